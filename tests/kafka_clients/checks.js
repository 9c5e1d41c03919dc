// checks.js - one line per check, as tests/lib.sh prints them. run() starts the checks of a list together: most of what a Kafka client does is waiting.
'use strict';
const util = require('util');

exports.equal = (want, got, what = '') => {
    if (!util.isDeepStrictEqual(want, got)) throw new Error(`${what} wanted: ${util.inspect(want)}; got: ${util.inspect(got)}`);
};
exports.truth = (v, what) => { if (!v) throw new Error(what); };

// The error that the promise ends with. Ending well is the failure.
exports.refused = async (what, promise) => {
    try { await promise; } catch (e) { return e; }
    throw new Error('it was not refused: ' + what);
};

exports.until = async (what, f, ms = 60000) => {
    const end = Date.now() + ms;
    while (!(await f())) {
        if (Date.now() > end) throw new Error('it never came true: ' + what);
        await new Promise((r) => setTimeout(r, 20));
    }
};

// checks: {name: function}; each has 90 s.
exports.run = async (checks) => {
    await Promise.all(Object.entries(checks).map(async ([name, f]) => {
        let timer;
        const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error('not over after 90 s')), 90000); });
        try {
            await Promise.race([f(), late]);
            console.log('ok ' + name);
        } catch (e) {
            console.log('not ok ' + name + '\n#   ' + String(e && (e.stack || e.message) || e).split('\n').slice(0, 6).join('\n#   '));
        }
        clearTimeout(timer);
    }));
};
