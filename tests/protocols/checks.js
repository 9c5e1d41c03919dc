// checks.js - one line per check, as tests/lib.sh prints them; run() runs the checks of a file one after the other, each within its time.
'use strict';
const util = require('util');
exports.equal = (want, got) => {
    if (!util.isDeepStrictEqual(want, got)) throw new Error(`wanted: ${util.inspect(want)}; got: ${util.inspect(got)}`);
};
exports.truth = (v, what) => { if (!v) throw new Error(what); };
exports.until = async (what, f) => {
    const end = Date.now() + 5000;
    while (!(await f())) {
        if (Date.now() > end) throw new Error('it never came true: ' + what);
        await new Promise((r) => setTimeout(r, 20));
    }
};
exports.run = async (checks) => {
    for (const [name, f] of Object.entries(checks)) {
        let timer;
        const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error('not over after 10 s')), 10000); });
        try {
            await Promise.race([f(), late]);
            console.log('ok ' + name);
        } catch (e) {
            console.log('not ok ' + name + '\n#   ' + (e && e.message || e));
        }
        clearTimeout(timer);
    }
    process.exit(0);
};
