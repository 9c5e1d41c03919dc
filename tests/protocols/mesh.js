// mesh.js - one workload calls services by name through the mesh: gRPC, HTTP/2 in clear, WebSocket, bytes, TLS that the service ends itself.
'use strict';
const fs = require('fs'), grpc = require('@grpc/grpc-js'), http2 = require('http2'), https = require('https'), net = require('net');
const WebSocket = require('ws');
const { Echo } = require('./grpc_service.js');
const text = (stream) => new Promise((yes, no) => {
    let all = '';
    stream.on('data', (d) => { all += d; }).on('end', () => yes(all)).on('error', no);
});

const calls = {
    async 'a gRPC call'() {
        const client = new Echo('grpc:80', grpc.credentials.createInsecure());
        const got = await new Promise((yes, no) => client.Unary(Buffer.from('hello'), (e, v) => (e ? no(e) : yes(v.toString()))));
        client.close();
        return got === 'hello';
    },
    async 'gRPC, both ways at once'() {
        const client = new Echo('grpc:80', grpc.credentials.createInsecure()), call = client.Both();
        let n = 0;
        call.on('data', () => { if (++n === 20) call.end(); else call.write(Buffer.from('m')); });
        call.write(Buffer.from('m'));
        const status = await new Promise((yes) => call.on('status', yes).on('error', () => {}));
        client.close();
        return n === 20 && status.code === 0;
    },
    async 'gRPC to a service without endpoints: UNAVAILABLE'() {
        const client = new Echo('none:80', grpc.credentials.createInsecure());
        const code = await new Promise((yes) => client.Unary(Buffer.from('x'), (e) => yes(e ? e.code : 0)));
        client.close();
        return code === grpc.status.UNAVAILABLE;
    },
    async 'HTTP/2 in clear'() {
        const session = http2.connect('http://h2c:80'), s = session.request({ ':path': '/x' });
        const told = JSON.parse(await text(s));
        session.close();
        return told.version === '2.0' && told.port === 8081;
    },
    async 'a WebSocket'() {
        const ws = new WebSocket('ws://plain/');
        await new Promise((yes, no) => ws.on('open', yes).on('error', no));
        ws.send('m');
        const m = await new Promise((yes) => ws.on('message', yes));
        ws.close();
        return m.toString() === 'm';
    },
    async 'bytes, with half-close'() {
        const s = net.connect({ port: 9000, host: 'count', allowHalfOpen: true });
        s.end(Buffer.alloc(70000));
        return JSON.parse(await text(s)).n === 70000;
    },
    async 'TLS to the service itself'() {
        const session = http2.connect('https://raw:443', { ca: fs.readFileSync('ca.crt'), servername: 'app.test' });
        const told = JSON.parse(await text(session.request({ ':path': '/' })));
        session.close();
        return told.tls && told.port === 8444;
    },
    async 'in clear to a service that wants TLS of us: the mesh makes it'() {
        const r = await new Promise((yes, no) => require('http').get('http://tls1:443/', yes).on('error', no));
        const told = JSON.parse(await text(r));
        return told.tls && told.port === 8443;
    },
};

exports.checks = async () => {
    let out = '';
    for (const [name, f] of Object.entries(calls)) {
        const late = new Promise((_, no) => setTimeout(() => no(new Error('not over after 5 s')), 5000).unref());
        const why = await Promise.race([f(), late]).then((good) => (good ? '' : 'something else came'), (e) => e.message);
        out += (why ? `not ok mesh: ${name}\n#   ${why}` : `ok mesh: ${name}`) + '\n';
    }
    return out;
};
