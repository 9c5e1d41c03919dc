// server.js - the services of the scenario, one process: every protocol on a port of its own. TLS material lies in the working folder.
//
//   8080  HTTP/1.1 and WebSocket     8081  HTTP/2 in clear, WebSocket by extended CONNECT (RFC 8441)
//   8443  HTTP/1.1 over TLS          8444  HTTP/2 over TLS            8445  the same, client certificate required
//   8446  HTTP/1.1 and WebSocket over TLS
//   9000  bytes: after the client's end, how many came and what they began with         9001  echo, both ways at once
//   9003  a proxy of its own: CONNECT to any port of 127.0.0.1
//   9002  a PROXY header v1, then HTTP/1.1: told as x-seen-proxy
//   50051 gRPC, service test.Echo     50053 the same on connections that live 300 ms
//   50054 the same, but it breaks off
//
// GET /mesh: calls the other services by name, as any workload does, and says how that went.
//
// HTTP: /slow?ms=N answers later, ?n=N with so many bytes, ?status=N with
// that status, ?head=N with a field of so many bytes, ?trailer with a trailer field, /cut cuts its answer off, anything else says in JSON what was asked.
// "unix PATH" as arguments: only HTTP/1.1, on that socket.
'use strict';
const fs = require('fs'), http = require('http'), http2 = require('http2'), https = require('https'), net = require('net');
const { createHash } = require('crypto');
const { WebSocketServer } = require('ws');
const { grpcServer } = require('./grpc_service.js');
const read = (name) => fs.readFileSync(name);

function answer(q, r) {
    const url = new URL(q.url, 'http://x'), n = +url.searchParams.get('n');
    const socket = q.stream ? q.stream.session.socket : q.socket;
    const cert = socket.getPeerCertificate ? socket.getPeerCertificate() : null;
    if (url.pathname === '/mesh') {
        require('./mesh.js').checks().then((text) => r.end(text));
        return;
    }
    if (socket.seenProxy) q.headers['x-seen-proxy'] = socket.seenProxy;
    if (url.searchParams.has('status')) { // and nothing else
        r.statusCode = +url.searchParams.get('status');
        r.end();
        return;
    }
    if (url.searchParams.has('head')) r.setHeader('x-large', 'h'.repeat(+url.searchParams.get('head')));
    if (url.searchParams.has('trailer')) {
        r.setHeader('trailer', 'x-end');
        r.write('body');
        r.addTrailers({ 'x-end': 'reached' });
        r.end();
        return;
    }
    if (url.searchParams.has('n')) {
        r.setHeader('content-length', n);
        r.end(Buffer.alloc(n, 'x'));
        return;
    }
    if (url.pathname === '/cut') {
        r.write('begun');
        setTimeout(() => socket.destroy(), 50);
        return;
    }
    if (q.headers['content-type'] === 'application/grpc') r.statusCode = 404; // as servers that know no gRPC do
    let bytes = 0;
    q.on('data', (d) => { bytes += d.length; });
    q.on('end', () => setTimeout(() => {
        r.setHeader('content-type', 'application/json');
        r.end(JSON.stringify({
            version: q.httpVersion, port: socket.localPort, path: q.url, bytes, method: q.method, tls: !!socket.encrypted,
            client: cert && cert.subject ? cert.subject.CN : '', sni: socket.servername || '', headers: q.headers }) + '\n');
    }, +url.searchParams.get('ms')));
}

// Echo; "close N": with that code; "die": the connection breaks; "ping": the server pings and tells of the answer.
function sockets(server) {
    const wss = new WebSocketServer({ server, maxPayload: 1 << 24, handleProtocols: (offered) => (offered.has('chat') ? 'chat' : false) });
    wss.on('connection', (ws, q) => {
        ws.on('pong', (d) => ws.send('pong ' + d));
        ws.on('error', () => {});
        ws.on('message', (m, binary) => {
            const text = binary ? '' : m.toString();
            if (text.startsWith('close ')) ws.close(+text.slice(6), 'as asked');
            else if (text === 'die') q.socket.destroy();
            else if (text === 'ping') ws.ping('abc');
            else if (text === 'who') ws.send(JSON.stringify(q.headers));
            else ws.send(m, { binary });
        });
    });
}

if (process.argv[2] === 'unix') {
    http.createServer(answer).listen(process.argv[3]);
} else {
    const tls = { key: read('app.key'), cert: read('app.crt') };
    const roomy = { maxHeaderSize: 65536 };
    const plain = http.createServer(roomy, answer);
    sockets(plain);
    plain.listen(8080, '0.0.0.0');

    // An extended CONNECT gets a real WebSocket: ws reads and writes frames over the stream as over a socket.
    const h2c = http2.createServer({ settings: { enableConnectProtocol: true, maxHeaderListSize: 65536, maxConcurrentStreams: 20 } }, answer);
    h2c.on('connect', (q, r) => {
        const WebSocket = require('ws'), stream = r.stream;
        if (q.headers[':protocol'] !== 'websocket' || q.headers['sec-websocket-version'] !== '13' || 'sec-websocket-key' in q.headers) {
            stream.respond({ ':status': 400 }, { endStream: true });
            return;
        }
        stream.respond({ ':status': 200 });
        stream.setNoDelay = stream.setKeepAlive = () => {};
        const ws = new WebSocket(null, undefined, {});
        ws.setSocket(stream, Buffer.alloc(0), { maxPayload: 1 << 24, skipUTF8Validation: false, allowSynchronousEvents: true });
        ws._isServer = true;
        ws.on('error', () => {});
        ws.on('message', (m, binary) => ws.send(m, { binary }));
    });
    h2c.listen(8081, '0.0.0.0');

    https.createServer({ ...tls, ...roomy }, answer).listen(8443, '0.0.0.0');
    const secure = https.createServer(tls, answer);
    sockets(secure);
    secure.listen(8446, '0.0.0.0');
    http2.createSecureServer({ ...tls, settings: { maxHeaderListSize: 65536, maxConcurrentStreams: 3 } }, answer).listen(8444, '0.0.0.0');
    const mutual = http2.createSecureServer({ ...tls, allowHTTP1: true, requestCert: true, rejectUnauthorized: true, ca: read('ca.crt') }, answer);
    mutual.on('tlsClientError', () => {});
    mutual.listen(8445, '0.0.0.0');

    net.createServer({ allowHalfOpen: true }, (s) => {
        const sum = createHash('sha256');
        let n = 0, head = Buffer.alloc(0);
        s.on('error', () => {});
        s.on('data', (d) => { n += d.length; sum.update(d); if (head.length < 64) head = Buffer.concat([head, d]).subarray(0, 64); });
        s.on('end', () => s.end(JSON.stringify({ n, head: head.toString('latin1'), hex: head.toString('hex'), sha256: sum.digest('hex') }) + '\n'));
    }).listen(9000, '0.0.0.0');
    net.createServer({ allowHalfOpen: true }, (s) => { s.on('error', () => {}); s.pipe(s); }).listen(9001, '0.0.0.0');
    net.createServer((s) => {
        s.on('error', () => {});
        s.once('data', (d) => {
            const end = d.indexOf('\r\n') + 2;
            s.seenProxy = d.subarray(0, end).toString();
            s.unshift(d.subarray(end));
            plain.emit('connection', s);
        });
    }).listen(9002, '0.0.0.0');
    const cut = http2.createServer();
    cut.on('stream', (stream) => {
        stream.on('error', () => {});
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
        stream.write(Buffer.from([0, 0, 0, 0, 1, 65, 0, 0]), () => setTimeout(() => stream.session.destroy(), 50));
    });
    cut.listen(50054, '0.0.0.0');
    const proxy = http.createServer((q, r) => { r.statusCode = 405; r.end(); });
    proxy.on('connect', (q, s, head) => {
        const to = net.connect({ port: +q.url.split(':')[1], host: '127.0.0.1', allowHalfOpen: true }, () => {
            s.write('HTTP/1.1 200 Connection established\r\nX-Target: ' + q.url + '\r\n\r\n');
            to.write(head);
            s.pipe(to);
            to.pipe(s);
        });
        to.on('error', () => s.end('HTTP/1.1 503 Nobody there\r\nContent-Length: 0\r\n\r\n'));
        s.on('error', () => to.destroy());
    });
    proxy.listen(9003, '0.0.0.0');
    const aging = { 'grpc.max_connection_age_ms': 300, 'grpc.max_connection_age_grace_ms': 5000 };
    grpcServer('0.0.0.0:50053', aging, () => grpcServer('0.0.0.0:50051', {}, () => console.log('listening')));
}
