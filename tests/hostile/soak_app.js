// soak_app.js - a service for the soak: HTTP/1 on PORT (any path; /big/N bytes; /echo: what was sent), an echo of bytes on PORT + 1.
'use strict';
const http = require('http');
const net = require('net');
const port = Number(process.env.PORT || 8080);
const chunk = Buffer.alloc(65536, 'x');
const server = http.createServer((req, res) => {
    const [, what, n] = req.url.split('/');
    if (what === 'big') {
        let left = Number(n);
        res.writeHead(200, { 'Content-Length': left });
        const more = () => {
            while (left > 0 && !res.destroyed) {
                const piece = chunk.subarray(0, Math.min(left, chunk.length));
                left -= piece.length;
                if (!res.write(piece)) { res.once('drain', more); return; }
            }
            if (left <= 0) res.end();
        };
        more();
    } else if (what === 'echo') {
        res.writeHead(200);
        req.pipe(res);
    } else {
        req.resume();
        res.end(req.url);
    }
});
server.keepAliveTimeout = 120000;
server.listen(port);
const echo = net.createServer({ allowHalfOpen: true }, (s) => { s.on('error', () => s.destroy()); s.pipe(s); });
echo.listen(port + 1);
process.on('SIGTERM', () => { server.close(() => process.exit(0)); server.closeIdleConnections(); echo.close(); });
