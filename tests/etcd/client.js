// npm's etcd3 does what its users do.
//
// usage: node client.js PORT, with NODE_PATH set
'use strict';
const assert = require('assert');
const { Etcd3 } = require('etcd3');

async function main() {
  const c = new Etcd3({ hosts: `http://127.0.0.1:${process.argv[2]}` });
  await c.put('js/a').value('one');
  assert.strictEqual(await c.get('js/a').string(), 'one');
  assert.strictEqual(await c.get('js/none').string(), null);
  await c.put('js/n').value(41);
  assert.strictEqual(await c.get('js/n').number(), 41);
  assert.deepStrictEqual(await c.getAll().prefix('js/').strings(), { 'js/a': 'one', 'js/n': '41' });
  assert.deepStrictEqual(await c.getAll().prefix('js/').sort('Key', 'Descend').limit(1).keys(), ['js/n']);

  const txn = await c.if('js/a', 'Value', '==', 'one').then(c.put('js/b').value('yes'), c.get('js/n')).else(c.delete().key('js/a')).commit();
  assert.strictEqual(txn.succeeded, true);
  assert.strictEqual(txn.responses[1].response_range.kvs[0].value.toString(), '41');

  // watches: a key and a prefix on one stream
  const key = await c.watch().key('js/w').create();
  const prefix = await c.watch().prefix('js/').withPreviousKV().create();
  const seen = [], before = [];
  const both = new Promise((resolve) => {
    const done = () => { if (seen.length >= 50 && before.length >= 51) resolve(); };
    key.on('put', (kv) => { seen.push(kv.value.toString()); done(); });
    prefix.on('data', (r) => { for (const e of r.events) before.push([e.type, e.prev_kv && e.prev_kv.value.toString()]); done(); });
  });
  for (let i = 0; i < 50; i++) await c.put('js/w').value(i);
  await c.delete().key('js/w');
  await both;
  assert.deepStrictEqual(seen, Array.from({ length: 50 }, (_, i) => String(i)));
  assert.deepStrictEqual(before[50], ['Delete', '49']);
  await key.cancel();
  await prefix.cancel();

  // a lease is kept alive by the client until it is revoked
  const lease = c.lease(5);
  await lease.put('js/l').value('x');
  await lease.keepaliveOnce();
  assert.strictEqual(await c.get('js/l').string(), 'x');
  await lease.revoke();
  assert.strictEqual(await c.get('js/l').string(), null);

  // locks, elections and read-modify-write are built of these
  await c.lock('js').do(async () => { assert.notStrictEqual((await c.getAll().prefix('js/').keys()).length, 0); });
  const election = c.election('js/e', 5);
  const campaign = election.campaign('me');
  await campaign.wait();
  assert.strictEqual(await election.leader(), 'me');
  await campaign.resign();
  await assert.rejects(c.put('').value('x').exec(), /key is not provided/);
  assert.strictEqual(await c.stm().transact(async (tx) => {
    const n = await tx.get('js/n').number();
    await tx.put('js/n').value(n + 1);
    return n + 1;
  }), 42);
  await c.delete().prefix('js/');
  c.close();
  console.log('all of it');
}

main().then(() => process.exit(0), (e) => { console.error(e); process.exit(1); });
