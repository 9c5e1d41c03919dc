// rotation.js HTTPS-PORT CA-FILE - requests over TLS until SIGTERM: four new connections at a time, one HTTP/1.1 connection and one of
// HTTP/2 that stay. Then: whether one failed, and which certificates were seen.
'use strict';
const fs = require('fs'), http2 = require('http2'), https = require('https');
const [port, ca] = process.argv.slice(2);
const options = { host: '127.0.0.1', port: +port, ca: fs.readFileSync(ca), servername: 'ws.test', headers: { Host: 'ws.test' } };
const kept = new https.Agent({ keepAlive: true, maxSockets: 1 });
const sockets = new Set(), subjects = new Set(), failures = [];
let made = 0, over = false;

const get = (agent) => new Promise((yes) => {
    const failed = (e) => { failures.push(e.message); yes(); };
    https.get({ ...options, agent }, (r) => {
        if (agent) sockets.add(r.socket.localPort);
        else if (!r.socket.isSessionReused()) subjects.add(r.socket.getPeerCertificate().subject.CN);
        if (r.statusCode !== 200) failures.push('status ' + r.statusCode);
        r.on('error', failed).on('end', () => { made++; yes(); }).resume();
    }).on('error', failed);
});
const session = http2.connect('https://ws.test:' + port, { ...options, ALPNProtocols: ['h2'] });
session.on('error', (e) => failures.push('session: ' + e.message));
session.on('goaway', () => over || failures.push('GOAWAY'));
const stream = () => new Promise((yes) => {
    const s = session.request({ ':path': '/', ':authority': 'ws.test' });
    s.on('response', (h) => { if (h[':status'] !== 200) failures.push('h2 status ' + h[':status']); });
    s.on('error', (e) => { failures.push('h2: ' + e.message); yes(); });
    s.on('end', () => { made++; yes(); }).resume();
});
const loop = async (f) => { while (!over) { await f(); await new Promise((r) => setTimeout(r, 5)); } };
const all = [1, 2, 3, 4].map(() => loop(() => get(false))).concat([loop(() => get(kept)), loop(stream)]);
process.on('SIGTERM', async () => {
    over = true;
    await Promise.all(all);
    console.log(failures.length ? `not ok rotation: no request fails\n#   ${failures.length} of ${made}: ${failures.slice(0, 5)}` : `ok rotation: none of ${made > 100 ? 'hundreds of' : made} requests fails`);
    console.log(`${sockets.size === 1 ? 'ok' : 'not ok'} rotation: the kept connection stays`);
    console.log(`${subjects.has('gateway') && subjects.has('renewed') ? 'ok' : 'not ok'} rotation: both certificates were seen`);
    process.exit(0);
});
console.log('# started');
