// grpc_stop.js ADDRESS READY-FILE - a gRPC call that takes a while, and a stream of messages, while the node stops.
'use strict';
const fs = require('fs'), grpc = require('@grpc/grpc-js');
const { Echo } = require('./grpc_service.js');
const { equal, run } = require('./checks.js');
const echo = new Echo(process.argv[2], grpc.credentials.createInsecure(), { 'grpc.default_authority': 'grpc.test', 'grpc.enable_retries': 0 });
const both = echo.Both(new grpc.Metadata());
let n = 0, ended;
const status = new Promise((yes) => both.on('status', yes));
both.on('error', () => {});
const first = new Promise((yes) => both.on('data', () => { n++; yes(); }));
both.write(Buffer.from('m'));
run({
    async 'stop: a slow gRPC call and a stream end well'() {
        await first;
        const slow = new Promise((yes, no) => echo.Unary(Buffer.from('sleep 1500'), (e, v) => (e ? no(e) : yes(v.toString()))));
        fs.writeFileSync(process.argv[3], '');
        for (let i = 0; i < 20; i++) {
            await new Promise((r) => setTimeout(r, 50));
            both.write(Buffer.from('m'));
        }
        both.end();
        equal('sleep 1500', await slow);
        equal(grpc.status.OK, (await status).code);
        equal(21, n);
    },
});
