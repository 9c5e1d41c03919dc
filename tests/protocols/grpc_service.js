// grpc_service.js - test.Echo, without a .proto: messages are bytes. What a call has come to is kept and told by Seen.
//
//   Unary      echo; "status N": fails with that code and trailers; "sleep MS"; "big N": N bytes
//   Down       "N SIZE": so many messages; "forever": until cancelled       Up  counts messages and bytes       Both  echoes each
//   Seen KEY   what became of the call with metadata x-key: "cancelled", "done", ...
'use strict';
const grpc = require('@grpc/grpc-js');
const same = (b) => b;
const method = (name, up, down) => ({ path: '/test.Echo/' + name, requestStream: up, responseStream: down, requestSerialize: same, requestDeserialize: same,
    responseSerialize: same, responseDeserialize: same });
const service = { Unary: method('Unary', false, false), Down: method('Down', false, true), Up: method('Up', true, false), Both: method('Both', true, true),
    Seen: method('Seen', false, false), Missing: method('Missing', false, false) };
const { Missing, ...offered } = service;
const seen = new Map();

function begun(call) {
    const key = call.metadata.get('x-key')[0];
    seen.set(key, 'running');
    call.on('cancelled', () => seen.set(key, 'cancelled'));
    const head = new grpc.Metadata();
    head.set('x-head', 'h');
    call.sendMetadata(head);
    return (what) => seen.get(key) === 'running' && seen.set(key, what);
}

function trailer() {
    const m = new grpc.Metadata();
    m.set('x-trail', 't');
    m.set('x-trail-bin', Buffer.from([0, 255, 7]));
    return m;
}

const impl = {
    Unary(call, done) {
        const end = begun(call), [word, n] = call.request.subarray(0, 32).toString().split(' ');
        const finish = (e, v) => { end('done'); done(e, v, trailer()); };
        if (word === 'status') finish({ code: +n, details: 'as asked: 50% "ü"', metadata: trailer() });
        else if (word === 'sleep') setTimeout(() => finish(null, call.request), +n);
        else if (word === 'big') finish(null, Buffer.alloc(+n, 'b'));
        else if (word === 'metadata') finish(null, Buffer.from(JSON.stringify(call.metadata.getMap())));
        else finish(null, call.request);
    },
    Down(call) {
        const end = begun(call), [count, size] = call.request.toString().split(' ');
        if (count === 'forever') {
            const t = setInterval(() => (call.cancelled ? clearInterval(t) : call.write(Buffer.from('tick'))), 20);
            call.on('cancelled', () => clearInterval(t));
            return;
        }
        let i = 0;
        const more = () => {
            while (i < +count) if (!call.write(Buffer.alloc(+size, i++ % 256))) { call.once('drain', more); return; }
            end('done');
            call.end(trailer());
        };
        more();
    },
    Up(call, done) {
        const end = begun(call);
        let n = 0, bytes = 0;
        call.on('data', (d) => { n++; bytes += d.length; });
        call.on('end', () => { end('done'); done(null, Buffer.from(n + ' ' + bytes), trailer()); });
    },
    Both(call) {
        const end = begun(call);
        call.on('data', (d) => call.write(d));
        call.on('end', () => { end('done'); call.end(trailer()); });
    },
    Seen(call, done) { done(null, Buffer.from(seen.get(call.request.toString()) || 'never')); },
};

// grpc.health.v1.Health/Check answers SERVING (field 1 is 1): what a readiness probe asks.
const health = { Check: { ...method('Check', false, false), path: '/grpc.health.v1.Health/Check' } };

exports.grpcServer = (address, options, ready) => {
    const server = new grpc.Server({ 'grpc.max_receive_message_length': -1, ...options });
    server.addService(offered, impl);
    server.addService(health, { Check: (call, done) => done(null, Buffer.from([8, 1])) });
    server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (e) => { if (e) throw e; ready(); });
};
exports.Echo = grpc.makeGenericClientConstructor(service, 'Echo');
