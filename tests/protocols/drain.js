// drain.js PORT READY-FILE [stop] - requests on an HTTP/2 and an HTTP/1.1 connection, a slow one among them, and a WebSocket, while whoever listens
// goes away. A new stream is begun after each answer until GOAWAY comes. All that was begun must be answered,
// but for the stream that this client had not written yet when it read GOAWAY: it gives that up itself, as refused. And a node that stops may
// close an HTTP/1.1 connection at rest, where a request just meets it (RFC 9112 section 9.5).
'use strict';
const fs = require('fs'), http = require('http'), http2 = require('http2');
const WebSocket = require('ws');
const [port, ready, stop] = process.argv.slice(2);
const failures = [];
let streams = 0, goaway = false, requests = 0, told = false, slow = 0, socket = '';
const session = http2.connect('http://127.0.0.1:' + port);
session.on('goaway', () => { goaway = true; });
session.on('error', (e) => failures.push('session: ' + e.message));
const stream = (path) => new Promise((yes) => {
    const s = session.request({ ':path': path, ':authority': 'ws.test' });
    s.on('response', (h) => { if (h[':status'] !== 200) failures.push(`h2 ${path}: status ${h[':status']}`); });
    s.on('error', (e) => { if (!goaway || s.rstCode !== http2.constants.NGHTTP2_REFUSED_STREAM) failures.push(`h2 ${path}: ${e.message}`); yes(); });
    s.on('end', () => { streams++; yes(); }).resume();
});
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const get = (path) => new Promise((yes) => {
    const failed = (e) => { if (!stop || !q.reusedSocket) failures.push(`h1 ${path}: ${e.message}`); told = true; yes(); };
    const q = http.get({ host: '127.0.0.1', port, path, agent, headers: { Host: 'ws.test' } }, (r) => {
        if (r.statusCode !== 200) failures.push(`h1 ${path}: status ${r.statusCode}`);
        told = r.headers.connection === 'close';
        r.on('error', failed).on('end', () => { requests++; yes(); }).resume();
    }).on('error', failed);
});
const ws = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { Host: 'ws.test' } });
ws.on('open', () => ws.send('before'));
ws.on('error', (e) => { socket += ' error ' + e.message; });
ws.on('message', (m) => { socket += ' ' + m; });

const until = async (f, ms) => { for (const end = Date.now() + ms; !f() && Date.now() < end;) await new Promise((r) => setTimeout(r, 10)); return f(); };
(async () => {
    await until(() => socket === ' before', 5000);
    await stream('/');
    const slowly = Promise.all([stream('/slow?ms=1500').then(() => slow++), stream('/slow?ms=800').then(() => slow++)]);
    const h2 = (async () => { while (!goaway && !session.closed) await stream('/quick'); })();
    const h1 = (async () => { while (!told) await get('/quick'); })();
    fs.writeFileSync(ready, '');
    await Promise.race([Promise.all([slowly, h2, h1]), new Promise((r) => setTimeout(r, 8000))]);
    ws.send('after');
    await until(() => socket === ' before after', 2000);
    const say = (name, good, why) => console.log(`${good ? 'ok' : 'not ok'} ${name}${good ? '' : '\n#   ' + why}`);
    say('drain: no request fails', !failures.length, failures.slice(0, 5).join('; '));
    say('drain: the slow requests of HTTP/2 are answered', slow === 2, slow + ' of 2');
    say('drain: GOAWAY came', goaway, 'after ' + streams + ' streams');
    say('drain: HTTP/1.1 is told that no more are wanted', told, 'after ' + requests + ' requests');
    say('drain: a WebSocket goes on', socket === ' before after', socket);
    process.exit(0);
})();
