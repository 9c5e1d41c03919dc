// inventory: how many units of each product there are, and who has reserved some.
//
//   GET  /stock                                   -> 200 {"share", "stock": {sku: units}}
//   POST /reserve {"reservation","sku","quantity"} -> 200 {"share", "units"}: up to quantity; 409 when there are none here
//   POST /release {"reservation"}                 -> 200 when this replica held it (its units are back); 404 when it did not
//
// There is no database: STOCK is divided among the replicas, each holds its share of the units and answers for that alone.
// A reservation is remembered by its name, so that asking again for the same one gives the same answer. A replica that is
// started anew has its share whole again. Only Node's standard library.
//
// Environment: STOCK (JSON: units of the whole shop), INVENTORY_SHARES, PORT.
'use strict';

const http = require('http');
const os = require('os');
const crypto = require('crypto');

const REPLICA = process.env.HOSTNAME || os.hostname();
const PORT = Number(process.env.PORT || 8080);
const SHARES = Number(process.env.INVENTORY_SHARES || 2);
const BODY_BYTES_MAX = 64 * 1024;
const RESERVATIONS_MAX = 10000; // the oldest are taken as sold for good beyond that

const stock = new Map(Object.entries(JSON.parse(process.env.STOCK || '{}')).map(([sku, n]) => [sku, Math.ceil(n / SHARES)]));
const reservations = new Map(); // name -> {sku, units}

const server = http.createServer((req, res) => serve(req, res));
let draining = false;

function log(fields) {
  process.stdout.write(JSON.stringify({ time: new Date().toISOString(), replica: REPLICA, service: 'inventory', ...fields }) + '\n');
}

// The trace id of a W3C traceparent, or a new one.
function traceOf(header) {
  const m = /^(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)/.exec(header || '');
  return m ? m[1] : crypto.randomBytes(16).toString('hex');
}

function reserve({ reservation, sku, quantity }) {
  if (typeof reservation !== 'string' || !reservation || !stock.has(sku) || !Number.isInteger(quantity) || quantity < 1) {
    return [400, { error: 'wants reservation, a known sku and a quantity of 1 or more', share: REPLICA }];
  }
  const before = reservations.get(reservation);
  if (before) return [200, { share: REPLICA, units: before.units }];
  const units = Math.min(quantity, stock.get(sku));
  if (units === 0) return [409, { error: 'sold out', share: REPLICA, units: 0 }];
  stock.set(sku, stock.get(sku) - units);
  reservations.set(reservation, { sku, units });
  if (reservations.size > RESERVATIONS_MAX) reservations.delete(reservations.keys().next().value);
  return [200, { share: REPLICA, units }];
}

function release({ reservation }) {
  const held = reservations.get(reservation);
  if (!held) return [404, { error: 'not held here', share: REPLICA }];
  reservations.delete(reservation);
  stock.set(held.sku, stock.get(held.sku) + held.units);
  return [200, { share: REPLICA, units: held.units }];
}

const routes = {
  'GET /healthz': () => [200, { ok: true }],
  'GET /stock': () => [200, { share: REPLICA, stock: Object.fromEntries(stock) }],
  'POST /reserve': reserve,
  'POST /release': release,
};

function answer(key, text) {
  const route = routes[key];
  if (!route) return [404, { error: 'no such path: ' + key }];
  if (key.startsWith('GET ')) return route();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    return [400, { error: 'the body is not JSON' }];
  }
  return body && typeof body === 'object' && !Array.isArray(body) ? route(body) : [400, { error: 'the body is not a JSON object' }];
}

function serve(req, res) {
  const started = process.hrtime.bigint();
  const traceId = traceOf(req.headers.traceparent);
  const path = req.url.split('?')[0];
  const chunks = [];
  let size = 0;
  const finish = ([status, body]) => {
    const text = JSON.stringify(body) + '\n';
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text), 'X-Served-By': REPLICA };
    if (draining || size > BODY_BYTES_MAX) headers.Connection = 'close';
    res.writeHead(status, headers);
    res.end(text);
    if (path === '/healthz') return;
    log({ method: req.method, path, status, ms: Number(process.hrtime.bigint() - started) / 1e6, trace_id: traceId,
      span_id: crypto.randomBytes(8).toString('hex'), request_id: req.headers['x-request-id'] || '' });
  };
  req.on('data', (c) => {
    size += c.length;
    if (size <= BODY_BYTES_MAX) chunks.push(c);
    else if (!res.headersSent) finish([413, { error: 'the body is too large' }]);
  });
  req.on('end', () => {
    if (!res.headersSent) finish(answer(`${req.method} ${path}`, Buffer.concat(chunks).toString()));
  });
  req.on('error', () => res.destroy());
}

// Stops accepting, closes connections that wait for a request; those in the middle of one end after it.
function drain() {
  if (draining) return;
  draining = true;
  log({ level: 'info', message: 'draining' });
  server.close(() => {
    log({ level: 'info', message: 'stopped' });
    process.exit(0);
  });
  server.closeIdleConnections();
}

process.on('SIGTERM', drain);
process.on('SIGINT', drain);
server.keepAliveTimeout = 120000; // longer than those in front keep a connection, so that it is they who close it
server.on('error', (e) => {
  log({ level: 'error', error: String(e) });
  process.exit(1);
});
server.listen(PORT, '0.0.0.0', 511, () => log({ level: 'info', message: `listening on port ${PORT}` }));
