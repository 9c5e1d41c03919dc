// server.js ADDRESS HTTP_PORT GRPC_PORT TCP_PORT NAME - a service whose health is told from outside.
//
//   GET /well            200, or 503 after GET /set?well=no
//   GET /set?well=yes|no, ?serving=yes|no (the gRPC health of "shop"), ?tcp=yes|no (whether TCP_PORT accepts), ?hang=yes|no (GET /well gets no answer)
//   GET anything else    NAME: it always answers
// Ports of 0 are not opened. The gRPC packages are looked for in NODE_PATH.
'use strict'
const http = require('http')
const net = require('net')
const [address, httpPort, grpcPort, tcpPort, name] = process.argv.slice(2)

let well = true
let hang = false
let health = null
let tcp = null

function tcpOpen(wanted, done) {
  if (wanted && !tcp) {
    tcp = net.createServer((s) => s.on('error', () => {}).resume())
    tcp.listen(Number(tcpPort), address, done)
  } else if (!wanted && tcp) {
    tcp.close(done)
    tcp = null
  } else done()
}

function set(query, done) {
  if (query.has('well')) well = query.get('well') === 'yes'
  if (query.has('hang')) hang = query.get('hang') === 'yes'
  if (query.has('serving') && health) health.setStatus('shop', query.get('serving') === 'yes' ? 'SERVING' : 'NOT_SERVING')
  if (query.has('tcp')) tcpOpen(query.get('tcp') === 'yes', done)
  else done()
}

http.createServer((req, res) => {
  const url = new URL(req.url, 'http://x')
  if (url.pathname === '/well') {
    if (hang) return
    res.statusCode = well ? 200 : 503
    res.end('well\n')
  } else if (url.pathname === '/set') {
    set(url.searchParams, () => res.end('set\n'))
  } else res.end(name + '\n')
}).listen(Number(httpPort), address)

if (Number(tcpPort)) tcpOpen(true, () => {})
if (Number(grpcPort)) {
  const grpc = require('@grpc/grpc-js')
  const { HealthImplementation } = require('grpc-health-check')
  const server = new grpc.Server()
  health = new HealthImplementation({ '': 'SERVING', shop: 'SERVING' })
  health.addToServer(server)
  server.bindAsync(`${address}:${grpcPort}`, grpc.ServerCredentials.createInsecure(), (e) => { if (e) throw e })
}
