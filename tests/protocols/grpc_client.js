// grpc_client.js ADDRESS CA-FILE|- NAME - calls test.Echo through the gateway with grpc-js; over TLS where a CA is given.
'use strict';
const fs = require('fs'), grpc = require('@grpc/grpc-js');
const { Echo } = require('./grpc_service.js');
const { equal, truth, until, run } = require('./checks.js');
const [address, ca, label] = process.argv.slice(2);
const S = grpc.status;
const credentials = ca === '-' ? grpc.credentials.createInsecure() : grpc.credentials.createSsl(fs.readFileSync(ca));
const options = { 'grpc.default_authority': 'grpc.test', 'grpc.ssl_target_name_override': 'grpc.test', 'grpc.max_receive_message_length': -1, 'grpc.enable_retries': 0 };
const to = (host) => new Echo(address, credentials, { ...options, 'grpc.default_authority': host });
const echo = to('grpc.test');
let keys = 0;
const meta = (more) => {
    const m = new grpc.Metadata();
    m.set('x-key', label + ++keys);
    for (const [k, v] of Object.entries(more || {})) m.set(k, v);
    return m;
};
// A unary call: {error, value, head, status} once its status has come.
const unary = (client, name, text, { deadline, metadata } = {}) => new Promise((yes) => {
    const out = {};
    const call = client[name](Buffer.from(text), metadata || meta(), deadline ? { deadline: Date.now() + deadline } : {}, (error, value) => {
        out.error = error;
        out.value = value && value.toString();
        if (out.status) yes(out);
    });
    call.on('metadata', (m) => { out.head = m.getMap(); });
    call.on('status', (s) => { out.status = s; if ('error' in out) yes(out); });
});
const code = (out) => out.status.code;
const seen = async (key) => (await unary(echo, 'Seen', key)).value;
const ended = (call) => new Promise((yes) => { call.on('error', () => {}); call.on('status', yes); });

const checks = {
    async 'unary, metadata, trailers'() {
        const out = await unary(echo, 'Unary', 'hello');
        equal('hello', out.value);
        equal('h', out.head['x-head']);
        equal(S.OK, code(out));
        equal('t', out.status.metadata.get('x-trail')[0]);
        equal(Buffer.from([0, 255, 7]), out.status.metadata.get('x-trail-bin')[0]);
    },
    async 'metadata reaches the service, te: trailers too'() {
        const sent = JSON.parse((await unary(echo, 'Unary', 'metadata', { metadata: meta({ 'x-a': 'b' }) })).value);
        equal('b', sent['x-a']);
        truth(sent.te === 'trailers' || sent.te === undefined, 'te is ' + sent.te);
        truth(sent['x-request-id'], 'no x-request-id');
    },
    async 'a status of the service, its message, its trailers'() {
        for (const n of [3, 5, 7, 8, 14, 16]) {
            const out = await unary(echo, 'Unary', 'status ' + n);
            equal(n, code(out));
            equal('as asked: 50% "ü"', out.status.details);
            equal('t', out.status.metadata.get('x-trail')[0]);
        }
    },
    async 'server streaming, 500 messages of 4 KiB'() {
        const call = echo.Down(Buffer.from('500 4096'), meta());
        let n = 0, bytes = 0;
        call.on('data', (d) => { truth(d[0] === n % 256, 'out of order'); n++; bytes += d.length; });
        const status = await ended(call);
        equal([500, 500 * 4096, S.OK], [n, bytes, status.code]);
        equal('t', status.metadata.get('x-trail')[0]);
    },
    async 'client streaming, 500 messages of 4 KiB'() {
        let status;
        const value = await new Promise((yes, no) => {
            const call = echo.Up(meta(), (e, v) => (e ? no(e) : yes(v.toString())));
            status = ended(call);
            for (let i = 0; i < 500; i++) call.write(Buffer.alloc(4096));
            call.end();
        });
        equal('500 ' + 500 * 4096, value);
        equal('t', (await status).metadata.get('x-trail')[0]);
    },
    async 'both ways at once: each message is answered before the next is sent'() {
        const call = echo.Both(meta());
        const status = ended(call);
        let n = 0;
        call.on('data', (d) => { equal('m' + n, d.toString()); if (++n === 50) call.end(); else call.write(Buffer.from('m' + n)); });
        call.write(Buffer.from('m0'));
        equal(S.OK, (await status).code);
        equal(50, n);
    },
    async 'messages larger than every window, both ways'() {
        const call = echo.Both(meta()), status = ended(call), size = 5000000;
        let n = 0;
        call.on('data', (d) => { n += d.length; });
        call.write(Buffer.alloc(size, 1));
        call.write(Buffer.alloc(size, 2));
        call.end();
        equal(S.OK, (await status).code);
        equal(2 * size, n);
        equal(3000000, (await unary(echo, 'Unary', 'big 3000000')).value.length);
    },
    async '200 calls at once on one connection'() {
        const all = await Promise.all(Array.from({ length: 200 }, (_, i) => unary(echo, 'Unary', 'c' + i)));
        equal(Array.from({ length: 200 }, (_, i) => 'c' + i), all.map((o) => o.value));
    },
    async 'deadline: DEADLINE_EXCEEDED, and the service\'s call is cancelled'() {
        const metadata = meta(), key = metadata.get('x-key')[0];
        equal(S.DEADLINE_EXCEEDED, code(await unary(echo, 'Unary', 'sleep 3000', { deadline: 200, metadata })));
        await until('the call is cancelled', async () => (await seen(key)) === 'cancelled');
    },
    async 'grpc-timeout is kept by the gateway itself'() { // by hand: the client would end the call before
        const http2 = require('http2'), session = http2.connect((ca === '-' ? 'http://' : 'https://') + address, { ca: ca === '-' ? undefined : fs.readFileSync(ca), servername: 'grpc.test' });
        session.on('error', () => {});
        const key = label + 'raw', stream = session.request({ ':method': 'POST', ':path': '/test.Echo/Unary', ':authority': 'grpc.test', 'content-type': 'application/grpc',
            te: 'trailers', 'grpc-timeout': '150m', 'x-key': key });
        const body = Buffer.from('sleep 3000'), frame = Buffer.alloc(5);
        frame.writeUInt32BE(body.length, 1);
        stream.end(Buffer.concat([frame, body]));
        const head = await new Promise((yes, no) => {
            let first;
            stream.on('response', (h) => { first = h; if (h['grpc-status']) yes(h); });
            stream.on('trailers', (h) => yes({ ...first, ...h }));
            stream.on('error', no);
            stream.on('close', () => no(new Error('closed with ' + stream.rstCode)));
        });
        equal([200, '4'], [head[':status'], head['grpc-status']]);
        await until('the call is cancelled', async () => (await seen(key)) === 'cancelled');
        session.destroy();
    },
    async 'the client cancels: the service hears of it'() {
        const metadata = meta(), key = metadata.get('x-key')[0], call = echo.Down(Buffer.from('forever'), metadata), status = ended(call);
        await new Promise((yes) => call.once('data', yes));
        call.cancel();
        equal(S.CANCELLED, (await status).code);
        await until('the call is cancelled', async () => (await seen(key)) === 'cancelled');
    },
    async 'the client cancels while it sends'() {
        const metadata = meta(), key = metadata.get('x-key')[0], call = echo.Up(metadata, () => {}), status = ended(call);
        call.write(Buffer.alloc(1000));
        await until('it runs', async () => (await seen(key)) === 'running');
        call.cancel();
        equal(S.CANCELLED, (await status).code);
        await until('the call is cancelled', async () => (await seen(key)) === 'cancelled');
    },
    async 'a method that the service lacks: UNIMPLEMENTED'() { equal(S.UNIMPLEMENTED, code(await unary(echo, 'Missing', ''))); },
    async 'GRPCRoute: by service and method, by header'() {
        const by = to('route.test');
        equal('by-method', (await unary(by, 'Unary', 'x')).head['x-rule']);
        equal('by-header', (await unary(by, 'Unary', 'x', { metadata: meta({ 'x-which': 'red' }) })).head['x-rule']);
        equal('by-service', (await unary(by, 'Seen', 'x')).status.code === 0 ? 'by-service' : 'none');
    },
    async 'no route: UNIMPLEMENTED'() {
        const out = await unary(to('nobody.test'), 'Unary', 'x');
        equal(S.UNIMPLEMENTED, code(out));
        truth(out.status.details.startsWith('weir: no route'), out.status.details);
    },
    async 'no endpoint, nobody listens: UNAVAILABLE, with the gateway\'s own words'() {
        const none = await unary(to('none.test'), 'Unary', 'x'), refused = await unary(to('refused.test'), 'Unary', 'x');
        equal([S.UNAVAILABLE, S.UNAVAILABLE], [code(none), code(refused)]);
        truth(none.status.details.includes('no endpoint'), none.status.details);
        truth(refused.status.details.includes('refused'), refused.status.details);
    },
    async 'no endpoint while the client streams: UNAVAILABLE, and the connection goes on'() {
        const client = to('none.test'), call = client.Both(meta()), status = ended(call);
        for (let i = 0; i < 20; i++) call.write(Buffer.alloc(10000));
        equal(S.UNAVAILABLE, (await status).code);
        equal(S.UNAVAILABLE, code(await unary(client, 'Unary', 'x')));
    },
    async 'a service whose connections live 300 ms: no call fails'() {
        const client = to('aging.test'), begin = Date.now(), past = (ms) => Date.now() > begin + ms;
        // The HTTP/2 server of Node below 20 loses what it was about to send when it closes a connection, to clients without a gateway, too: that much is let pass.
        const lost = (out) => parseInt(process.versions.node) < 20 && out.status.details === 'weir: the service\'s answer broke off';
        let n = 0;
        while (!past(1000) || (n <= 100 && !past(20000))) for (const out of await Promise.all(Array.from({ length: 8 }, () => unary(client, 'Unary', 'sleep 5')))) { if (!lost(out)) equal(S.OK, code(out)); n++; }
        truth(n > 100, n + ' calls');
    },
    async 'the service breaks off inside a stream: UNAVAILABLE, not a mere end'() {
        const call = to('cut.test').Down(Buffer.from('forever'), meta()), status = ended(call);
        equal(S.UNAVAILABLE, (await status).code);
    },
    async 'a service that speaks no gRPC: its HTTP status decides'() { equal(S.UNIMPLEMENTED, code(await unary(to('http1.test'), 'Unary', 'x'))); },
};
run(Object.fromEntries(Object.entries(checks).map(([k, f]) => [`${label}: ${k}`, f])));
