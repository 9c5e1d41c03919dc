// origin_h2.js PORT LOG - the recording origin over HTTP/2 in clear: each request becomes a line of JSON {"head", "body", "bad"}.
'use strict';
const http2 = require('http2');
const fs = require('fs');
const log = fs.openSync(process.argv[3], 'w');
const server = http2.createServer({ settings: { maxConcurrentStreams: 100 } });
server.on('stream', (stream, headers) => {
    const body = [];
    stream.on('data', (d) => body.push(d));
    stream.on('error', () => {});
    stream.on('end', () => {
        const lines = Object.keys(headers).map((k) => `${k}: ${headers[k]}`);
        fs.writeSync(log, JSON.stringify({ conn: 0, head: lines.join('\r\n'), body: Buffer.concat(body).toString('latin1'), bad: null }) + '\n');
        if (stream.destroyed) return;
        stream.respond({ ':status': 200, 'content-type': 'application/json' });
        stream.end(JSON.stringify({ target: headers[':path'] }));
    });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
