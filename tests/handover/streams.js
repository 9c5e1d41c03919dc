// streams.js STOP-FILE URL... - requests over HTTP/2 to each URL until the file is there, while engines hand over to others: on one connection as fast as
// they are answered, four at once; on another with pauses in which the connection is at rest. When GOAWAY has come the next request goes over a new
// connection; that alone is no failure. Prints "REQUESTS FAILED CONNECTIONS GOAWAYS" and why.
'use strict';
const fs = require('fs'), http2 = require('http2');
const [stop, ...urls] = process.argv.slice(2);
const failures = [];
let requests = 0, connections = 0, goaways = 0, over = false;

class Client {
    constructor(url) { this.url = url; }
    session() {
        if (this.current && !this.current.closed && !this.current.destroyed && !this.current.left) return this.current;
        const s = http2.connect(this.url, { rejectUnauthorized: false });
        connections++;
        s.on('goaway', () => { if (!s.left) goaways++; s.left = true; });
        s.on('error', (e) => failures.push(`${this.url}: connection: ${e.message}`));
        return this.current = s;
    }
    ask() {
        return new Promise((done) => {
            let s, bytes = 0, status = 0, session;
            try {
                session = this.session();
                s = session.request({ ':path': '/', ':authority': 'a.test' });
            } catch (e) { // it has ended within this turn: nothing was sent
                this.current = null;
                return done(this.ask());
            }
            s.on('response', (h) => { status = h[':status']; }).on('data', (d) => { bytes += d.length; });
            s.on('error', (e) => {
                // Not yet written when GOAWAY was read: this client gives it up itself.
                const unwritten = session.left && s.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM;
                if (unwritten || e.code === 'ERR_HTTP2_GOAWAY_SESSION') return done(this.ask());
                failures.push(`${this.url}: ${e.code} ${e.message}`);
                done();
            });
            s.on('end', () => {
                requests++;
                if (status !== 200 || bytes !== 2) failures.push(`${this.url}: status ${status}, ${bytes} bytes`);
                done();
            });
        });
    }
}
const pause = (ms) => new Promise((r) => setTimeout(r, ms));
const work = urls.flatMap((url) => {
    const busy = new Client(url), calm = new Client(url);
    const loop = async (c, ms) => { while (!over) { await c.ask(); if (ms) await pause(ms); } };
    return [loop(busy, 0), loop(busy, 0), loop(busy, 1), loop(busy, 3), loop(calm, 170)];
});
(async () => {
    while (!fs.existsSync(stop)) await pause(50);
    over = true;
    await Promise.race([Promise.all(work), pause(8000).then(() => failures.push('some requests do not end'))]);
    console.log(requests, failures.length, connections, goaways);
    for (const f of failures.slice(0, 10)) console.log(f);
    process.exit(0);
})();
