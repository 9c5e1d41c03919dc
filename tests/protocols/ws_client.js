// ws_client.js HTTP-PORT HTTPS-PORT CA-FILE - WebSockets through the gateway with ws, over HTTP/1.1 and HTTP/2 on either side.
// The host ws.test is a service that speaks HTTP/1.1, ws2.test one that speaks HTTP/2.
'use strict';
const fs = require('fs'), http = require('http'), http2 = require('http2'), net = require('net');
const WebSocket = require('ws');
const { equal, truth, run } = require('./checks.js');
const [plain, secure, ca] = process.argv.slice(2);

// A message's, a close's or an error's arrival.
const next = (ws) => new Promise((yes) => {
    ws.once('message', (m, binary) => yes(binary ? m : m.toString()));
    ws.once('close', (code, reason) => yes(`closed ${code} ${reason}`));
    ws.once('error', (e) => yes('error ' + e.message));
});
const opened = (ws) => new Promise((yes, no) => { ws.once('open', () => yes(ws)); ws.once('error', no); });
const connect = (host, { tls, protocols } = {}) => opened(new WebSocket(`${tls ? 'wss' : 'ws'}://127.0.0.1:${tls ? secure : plain}/chat`, protocols || [],
    { host, headers: { Host: host }, ca: tls ? fs.readFileSync(ca) : undefined, servername: host, perMessageDeflate: true }));

// A WebSocket in a stream of HTTP/2.
async function extended(host, tls) {
    const session = http2.connect(tls ? `https://127.0.0.1:${secure}` : `http://127.0.0.1:${plain}`, tls ? { ca: fs.readFileSync(ca), servername: host } : {});
    await new Promise((yes, no) => { session.once('remoteSettings', yes); session.once('error', no); });
    truth(session.remoteSettings.enableConnectProtocol, 'SETTINGS_ENABLE_CONNECT_PROTOCOL is not set');
    const stream = session.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': tls ? 'https' : 'http', ':path': '/chat', ':authority': host,
        'sec-websocket-version': '13', 'sec-websocket-protocol': 'chat', origin: 'http://ws.test' });
    const head = await new Promise((yes, no) => { stream.once('response', yes); stream.once('error', no); });
    equal(200, head[':status']);
    truth(!('sec-websocket-accept' in head) && !('upgrade' in head) && !('connection' in head), 'fields of HTTP/1: ' + Object.keys(head));
    stream.setNoDelay = stream.setKeepAlive = () => {};
    const ws = new WebSocket(null, undefined, {});
    ws._isServer = false;
    ws.setSocket(stream, Buffer.alloc(0), { maxPayload: 1 << 24, skipUTF8Validation: false, allowSynchronousEvents: true });
    return { ws, session, head };
}

async function extendedStatus(host) {
    const session = http2.connect(`http://127.0.0.1:${plain}`);
    await new Promise((yes, no) => { session.once('remoteSettings', yes); session.once('error', no); });
    const stream = session.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'http', ':path': '/', ':authority': host, 'sec-websocket-version': '13' });
    const head = await new Promise((yes, no) => { stream.once('response', yes); stream.once('error', no); });
    session.destroy();
    return head[':status'];
}

// Sends data and the end of it, and gives what comes back.
const exchanged = (stream, data) => new Promise((yes, no) => {
    let text = '';
    stream.on('data', (d) => { text += d; }).on('end', () => yes(text)).on('error', no);
    stream.end(data);
});

async function talk(ws) {
    ws.send('text ü');
    equal('text ü', await next(ws));
    const binary = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 256));
    ws.send(binary);
    equal(binary, await next(ws));
    const large = Buffer.alloc(1 << 20, 'L');
    ws.send(large);
    truth(large.equals(await next(ws)), 'the frame of 1 MiB has changed');
    const got = [];
    const all = new Promise((yes) => ws.on('message', (m) => { if (got.push(m.toString()) === 200) yes(); }));
    for (let i = 0; i < 200; i++) ws.send('n' + i);
    await all;
    equal(Array.from({ length: 200 }, (_, i) => 'n' + i), got);
    ws.close(1000, 'enough');
    equal('closed 1000 enough', await next(ws));
}

const checks = {};
for (const [label, host, tls] of [['ws', 'ws.test', false], ['wss', 'ws.test', true], ['ws to an HTTP/2 service', 'ws2.test', false], ['wss to an HTTP/2 service', 'ws2.test', true],
    ['ws to a service with TLS', 'wss.test', false], ['wss to a service with TLS', 'wss.test', true]])
    checks[label + ': text, binary, 1 MiB, 200 in a row'] = async () => talk(await connect(host, { tls }));
for (const tls of [false, true])
    for (const [label, host] of [['an HTTP/1.1', 'ws.test'], ['an HTTP/2', 'ws2.test']])
        checks[`RFC 8441${tls ? ' over TLS' : ''}, to ${label} service`] = async () => {
            const { ws, session, head } = await extended(host, tls);
            if (host === 'ws.test') equal('chat', head['sec-websocket-protocol']);
            await talk(ws);
            session.close();
        };
Object.assign(checks, {
    async 'ping and pong, from either side'() {
        const ws = await connect('ws.test');
        ws.ping('xyz');
        equal('xyz', await new Promise((yes) => ws.once('pong', (d) => yes(d.toString()))));
        ws.send('ping');
        equal('pong abc', await next(ws));
        ws.terminate();
    },
    async 'close codes, from either side'() {
        for (const code of [1000, 1001, 1011, 3000, 4999]) {
            const ws = await connect('ws.test', { tls: code % 2 });
            ws.send('close ' + code);
            equal(`closed ${code} as asked`, await next(ws));
        }
        const ws = await connect('ws.test');
        ws.close(4001, 'mine');
        equal('closed 4001 mine', await next(ws));
    },
    async 'a subprotocol is agreed on'() { equal('chat', (await connect('ws.test', { protocols: ['other', 'chat'] })).protocol); },
    async 'the service is told of the client'() {
        const ws = await connect('ws.test', { tls: true });
        ws.send('who');
        const h = JSON.parse(await next(ws));
        equal(['https', '127.0.0.1', 'websocket', 'Upgrade'], [h['x-forwarded-proto'], h['x-forwarded-for'], h.upgrade, h.connection]);
    },
    async 'the service dies: the client sees that at once'() {
        for (const tls of [false, true]) {
            const ws = await connect('ws.test', { tls });
            ws.send('die');
            equal('closed 1006 ', await next(ws));
        }
    },
    async 'the service of a WebSocket over HTTP/2 dies: the stream ends, the connection goes on'() {
        const { ws, session } = await extended('ws.test', false);
        ws.send('die');
        equal('closed 1006 ', await next(ws));
        const again = session.request({ ':path': '/', ':authority': 'ws.test' });
        equal(200, (await new Promise((yes, no) => { again.once('response', yes); again.once('error', no); }))[':status']);
        session.destroy();
    },
    async 'the client goes away: so does its connection to the service'() {
        for (const host of ['ws.test', 'ws2.test']) (await connect(host)).terminate();
    },
    async 'a service that does not upgrade: its own answer'() {
        const error = await connect('plain.test').then(() => 'opened', (e) => e.message);
        equal('Unexpected server response: 200', error);
    },
    async 'an HTTP/2 service without extended CONNECT: 501 or 502, with a reason'() {
        const got = await new Promise((yes, no) => {
            const q = http.request({ host: '127.0.0.1', port: plain, path: '/', headers: { Host: 'h2tls.test', Connection: 'Upgrade', Upgrade: 'websocket',
                'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version': '13' } }, (r) => {
                let text = '';
                r.on('data', (d) => { text += d; });
                r.on('end', () => yes([r.statusCode, text]));
            });
            q.on('upgrade', () => no(new Error('it upgraded')));
            q.on('error', no);
            q.end();
        });
        truth(got[0] === 501 || got[0] === 502, got.join(' '));
        truth(got[1].includes('RFC 8441'), got.join(' '));
    },
    async 'no route: 404 to a WebSocket'() { equal('Unexpected server response: 404', await connect('nobody.test').then(() => 'opened', (e) => e.message)); },
    async 'refused on a route: as if it was not asked for; over HTTP/2: 501'() {
        equal('Unexpected server response: 200', await connect('stay.test').then(() => 'opened', (e) => e.message));
        equal(501, await extendedStatus('stay.test'));
    },
    async 'where Weir itself answers: as if it was not asked for; over HTTP/2 no 2xx, which would agree to it'() {
        equal('Unexpected server response: 200', await connect('here.test').then(() => 'opened', (e) => e.message));
        equal(501, await extendedStatus('here.test'));
    },
    async 'over HTTP/2 to a service that does not upgrade: no 2xx'() {
        equal(502, await extendedStatus('plain.test'));
    },
    async 'CONNECT where a route declares it: over HTTP/1.1'() {
        const got = await new Promise((yes, no) => {
            http.request({ host: '127.0.0.1', port: plain, method: 'CONNECT', path: 'target.test:9000', headers: { Host: 'target.test:9000' } })
                .on('connect', (r, s, head) => yes([r, s, head])).on('error', no).end();
        });
        equal([200, 'target.test:9000', undefined, undefined], [got[0].statusCode, got[0].headers['x-target'], got[0].headers.connection, got[0].headers['content-length']]);
        equal(100000, JSON.parse(await exchanged(got[1], Buffer.alloc(100000))).n);
    },
    async 'CONNECT where a route declares it: over HTTP/2'() {
        const session = http2.connect(`http://127.0.0.1:${plain}`), stream = session.request({ ':method': 'CONNECT', ':authority': 'target.test:9000' });
        const head = await new Promise((yes, no) => { stream.once('response', yes); stream.once('error', no); });
        equal([200, 'target.test:9000'], [head[':status'], head['x-target']]);
        equal(100000, JSON.parse(await exchanged(stream, Buffer.alloc(100000))).n);
        session.close();
    },
    async 'CONNECT where a route declares it: the service declines'() {
        const r = await new Promise((yes, no) => {
            http.request({ host: '127.0.0.1', port: plain, method: 'CONNECT', path: 'target.test:9', headers: { Host: 'target.test:9' } }).on('connect', yes).on('error', no).end();
        });
        equal(503, r.statusCode);
    },
    async 'CONNECT: 501 and why, over HTTP/1.1'() {
        const text = await new Promise((yes) => {
            const s = net.connect(+plain, '127.0.0.1', () => s.write('CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n'));
            let all = '';
            s.on('data', (d) => { all += d; });
            s.on('close', () => yes(all));
            setTimeout(() => s.end(), 300);
        });
        truth(/^HTTP\/1.1 501 /.test(text) && text.includes('CONNECT is not offered here'), text);
    },
    async 'CONNECT: 501 and why, over HTTP/2'() {
        const session = http2.connect(`http://127.0.0.1:${plain}`), stream = session.request({ ':method': 'CONNECT', ':authority': 'example.com:443' });
        const head = await new Promise((yes, no) => { stream.once('response', yes); stream.once('error', no); });
        equal(501, head[':status']);
        session.destroy();
    },
});
run(Object.fromEntries(Object.entries(checks).map(([k, f]) => ['WebSocket: ' + k, f])));
