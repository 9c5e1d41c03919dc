// kafkajs.js - what a service in Node does with kafkajs: administration, producers of each kind, groups, transactions, refusals.
//
// usage: node kafkajs.js HOST:PORT SECURE_HOST:PORT CA      the user alice exists with the password "wonder land"
'use strict';
const fs = require('fs');
const { Kafka, CompressionTypes, CompressionCodecs, Partitioners, PartitionAssigners, logLevel, ConfigResourceTypes, ConfigSource, AclResourceTypes, AclOperationTypes,
    AclPermissionTypes, ResourcePatternTypes } = require('kafkajs');
const { equal, truth, refused, until, run } = require('./checks.js');
const snappy = require('snappyjs');
const lz4 = require('lz4js');
const { ZstdCodec } = require('zstd-codec');

const [BROKER, SECURE, CA] = process.argv.slice(2);
const quiet = () => () => {};
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [BROKER], logLevel: logLevel.NOTHING, logCreator: quiet, retry: { initialRetryTime: 50, retries: 8 } });

// A client of its own for what f asks: those who share one lose each other's topics, since a look at topics that is under way when another one is
// added counts for both, and takes the place of what was known.
const own = async (f) => {
    const a = kafka.admin();
    await a.connect();
    return f(a).finally(() => a.disconnect());
};
const admin = new Proxy({}, { get: (_, call) => (...args) => own((a) => a[call](...args)) });
const opened = []; // clients that are closed in the end

const producer = async (conf = {}) => {
    const p = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...conf });
    await p.connect();
    opened.push(p);
    return p;
};

const topic = async (name, partitions = 1, configEntries = []) => {
    await admin.createTopics({ topics: [{ topic: name, numPartitions: partitions, replicationFactor: 1, configEntries }] });
    return name;
};

// A consumer in a group. got: its messages in the order in which they came, with their partition.
const consumer = async (groupId, topics, conf = {}, each = async () => {}) => {
    const c = kafka.consumer({ groupId, sessionTimeout: 10000, rebalanceTimeout: 10000, heartbeatInterval: 300, maxWaitTimeInMs: 100, ...conf });
    const got = [], joins = [];
    c.on(c.events.GROUP_JOIN, (e) => joins.push(e.payload));
    await c.connect();
    opened.push(c);
    for (const t of topics) await c.subscribe({ topic: t, fromBeginning: true });
    await c.run({ autoCommit: conf.autoCommit !== false, eachMessage: async (m) => { got.push({ partition: m.partition, ...m.message }); await each(m, c); } });
    return { c, got, joins };
};

// The messages from the beginning to the end of a topic as it is now.
const read_all = async (name, conf = {}) => {
    const ends = await admin.fetchTopicOffsets(name);
    const want = ends.reduce((n, p) => n + Number(p.high) - Number(p.low), 0);
    const r = await consumer(`read-${name}-${Math.random()}`, [name], conf);
    await until(`${name} has ${want} messages`, () => r.got.length >= want);
    await r.c.stop();
    return r.got;
};

// What the broker said, through kafkajs's wrappings.
const kind = (e) => e.type ?? e.errors?.[0]?.type ?? (e.cause ?? e.originalError)?.type ?? e.message;

const text = (b) => b === null || b === undefined ? b : b.toString();

// ---- compression: pure JavaScript codecs where kafkajs has none ------------------------------------------------------------

const xerial = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);
const codecs = (zstd) => {
    CompressionCodecs[CompressionTypes.Snappy] = () => ({
        compress: async (e) => Buffer.from(snappy.compress(e.buffer)),
        decompress: async (b) => {
            if (!b.subarray(0, 8).equals(xerial)) return Buffer.from(snappy.uncompress(b));
            const out = [];
            for (let i = 16; i < b.length;) {
                const n = b.readInt32BE(i);
                out.push(Buffer.from(snappy.uncompress(b.subarray(i + 4, i + 4 + n))));
                i += 4 + n;
            }
            return Buffer.concat(out);
        },
    });
    CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: async (e) => Buffer.from(lz4.compress(e.buffer)), decompress: async (b) => Buffer.from(lz4.decompress(b)) });
    CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: async (e) => Buffer.from(zstd.compress(e.buffer, 3)), decompress: async (b) => Buffer.from(zstd.decompress(b)) });
};

// ---- administration ----------------------------------------------------------------------------------------------------------

const administration = {
    'kafkajs: topics are created, described, grown and deleted': async () => {
        await topic('js-life', 3, [{ name: 'retention.ms', value: '3600000' }]);
        equal(false, await admin.createTopics({ topics: [{ topic: 'js-life' }] }), 'a topic that is there');
        const meta = (await admin.fetchTopicMetadata({ topics: ['js-life'] })).topics[0];
        equal([0, 1, 2], meta.partitions.map((p) => p.partitionId).sort());
        truth(meta.partitions.every((p) => p.leader === meta.partitions[0].leader && p.replicas.length === 1 && p.isr.length === 1), 'one replica, in sync, leads');
        await admin.createPartitions({ topicPartitions: [{ topic: 'js-life', count: 5 }] });
        equal(5, (await admin.fetchTopicMetadata({ topics: ['js-life'] })).topics[0].partitions.length);
        equal('INVALID_PARTITIONS', kind(await refused('fewer partitions', admin.createPartitions({ topicPartitions: [{ topic: 'js-life', count: 2 }] }))));
        await admin.deleteTopics({ topics: ['js-life'] });
        truth(!(await admin.listTopics()).includes('js-life'), 'it is still listed');
    },
    'kafkajs: what is wrong with a topic is said as Kafka says it': async () => {
        const bad = async (t) => kind(await refused(JSON.stringify(t), admin.createTopics({ topics: [t] })));
        equal('INVALID_TOPIC_EXCEPTION', await bad({ topic: 'no spaces' }));
        equal('INVALID_PARTITIONS', await bad({ topic: 'js-bad', numPartitions: 0 }));
        equal('INVALID_REPLICATION_FACTOR', await bad({ topic: 'js-bad', numPartitions: 1, replicationFactor: 3 }));
        equal('INVALID_CONFIG', await bad({ topic: 'js-bad', numPartitions: 1, configEntries: [{ name: 'retention.ms', value: 'soon' }] }));
        equal('UNKNOWN_TOPIC_OR_PARTITION', kind(await refused('delete', admin.deleteTopics({ topics: ['js-never'] }))));
        truth(await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic: 'js-tried' }] }), 'validateOnly');
        truth(!(await admin.listTopics()).includes('js-tried'), 'validateOnly made it');
    },
    'kafkajs: settings are described with their source, and altered': async () => {
        await topic('js-set', 1, [{ name: 'segment.ms', value: '3600000' }]); // not one whose default other clients alter meanwhile
        const settings = async () => (await admin.describeConfigs({ includeSynonyms: true, resources: [{ type: ConfigResourceTypes.TOPIC, name: 'js-set' }] })).resources[0].configEntries;
        let all = await settings(), one = (n) => all.find((e) => e.configName === n);
        equal('3600000', one('segment.ms').configValue);
        equal(ConfigSource.TOPIC_CONFIG, one('segment.ms').configSource);
        equal('delete', one('cleanup.policy').configValue);
        equal(ConfigSource.DEFAULT_CONFIG, one('cleanup.policy').configSource);
        truth(all.length > 25, `only ${all.length} settings`);
        await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: 'js-set', configEntries: [{ name: 'cleanup.policy', value: 'compact' }] }] });
        all = await settings();
        equal('compact', one('cleanup.policy').configValue);
        equal(ConfigSource.DEFAULT_CONFIG, one('segment.ms').configSource, 'AlterConfigs sets all of a topic: what is not named is the default again');
    },
    'kafkajs: the cluster is this node': async () => {
        let c; // kafkajs asks for all topics, and knows no cluster while another check's topic is just being made (LEADER_NOT_AVAILABLE)
        await until('described', async () => (c = await admin.describeCluster().catch((e) => { if (!(e instanceof TypeError)) throw e; })));
        equal(1, c.brokers.length);
        equal(c.brokers[0].nodeId, c.controller);
        equal(BROKER, `${c.brokers[0].host}:${c.brokers[0].port}`);
        truth(/^[A-Za-z0-9_-]{22}$/.test(c.clusterId), 'cluster id ' + c.clusterId);
        equal([], (await admin.listPartitionReassignments({})).topics);
    },
    'kafkajs: records are deleted up to an offset': async () => {
        await topic('js-trim');
        const p = await producer();
        await p.send({ topic: 'js-trim', messages: [...Array(10).keys()].map((i) => ({ value: String(i) })) });
        const trim = (offset) => own(async (a) => {
            await a.fetchTopicOffsets('js-trim'); // without it kafkajs does not know who leads
            await a.deleteTopicRecords({ topic: 'js-trim', partitions: [{ partition: 0, offset }] });
        });
        await trim('6');
        equal([{ partition: 0, offset: '10', low: '6', high: '10' }], await admin.fetchTopicOffsets('js-trim'));
        equal(['6', '7', '8', '9'], (await read_all('js-trim')).map((m) => text(m.value)));
        const e = await refused('beyond the end', trim('11'));
        equal('OFFSET_OUT_OF_RANGE', e.cause.partitions[0].error.type);
    },
};

// ---- producing ------------------------------------------------------------------------------------------------------------------

const producing = {
    'kafkajs: every compression with every acks': async () => {
        const p = await producer(), want = [];
        await topic('js-codecs');
        for (const compression of [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy, CompressionTypes.LZ4, CompressionTypes.ZSTD])
            for (const acks of [-1, 1, 0]) {
                const values = [...Array(20).keys()].map((i) => `${compression}/${acks}/${i}/${'x'.repeat(i * 10)}`);
                await p.send({ topic: 'js-codecs', acks, compression, messages: values.map((value) => ({ value })) });
                want.push(...values);
            }
        await until('acks=0 arrived', async () => Number((await admin.fetchTopicOffsets('js-codecs'))[0].high) === want.length);
        equal(want, (await read_all('js-codecs')).map((m) => text(m.value)));
    },
    'kafkajs: headers, null and empty keys and values, timestamps': async () => {
        await topic('js-shapes');
        const p = await producer();
        await p.send({ topic: 'js-shapes', messages: [
            { key: 'k', value: null, timestamp: '1600000000000' },
            { key: null, value: 'v' },
            { key: '', value: '' },
            { value: 'h', headers: { a: 'one', b: ['two', 'three'], c: Buffer.from([0, 255]) } },
        ] });
        const got = await read_all('js-shapes');
        equal(['k', null, '', null], got.map((m) => text(m.key)));
        equal([null, 'v', '', 'h'], got.map((m) => text(m.value)));
        equal('1600000000000', got[0].timestamp);
        equal(['one', ['two', 'three'], Buffer.from([0, 255])], [text(got[3].headers.a), got[3].headers.b.map(text), got[3].headers.c]);
        equal(['0', '1', '2', '3'], got.map((m) => m.offset));
    },
    'kafkajs: ten thousand records arrive in the order of their keys': async () => {
        await topic('js-order', 6);
        const p = await producer({ idempotent: true, maxInFlightRequests: 1 });
        for (let b = 0; b < 10; b++)
            await p.send({ topic: 'js-order', acks: -1, messages: [...Array(1000).keys()].map((i) => ({ key: 'key-' + (i % 40), value: String(b * 1000 + i) })) });
        const got = await read_all('js-order'), last = new Map(), home = new Map();
        equal(10000, got.length);
        for (const m of got) {
            const k = text(m.key), n = Number(text(m.value));
            truth(!(n <= last.get(k)), `${k}: ${n} after ${last.get(k)}`);
            truth(home.get(k) === undefined || home.get(k) === m.partition, `${k} in two partitions`);
            last.set(k, n);
            home.set(k, m.partition);
        }
        truth(new Set(home.values()).size === 6, 'all partitions are used');
    },
    'kafkajs: a large record; one that is too large is refused': async () => {
        await topic('js-large');
        await topic('js-larger', 1, [{ name: 'max.message.bytes', value: '9000000' }]);
        const p = await producer();
        await p.send({ topic: 'js-large', messages: [{ value: Buffer.alloc(1000000, 'a') }] });
        equal('MESSAGE_TOO_LARGE', kind(await refused('2 MB', p.send({ topic: 'js-large', messages: [{ value: Buffer.alloc(2000000, 'b') }] }))));
        await p.send({ topic: 'js-larger', messages: [{ value: Buffer.alloc(8000000, 'c') }, { value: 'after' }] });
        const got = await read_all('js-larger', { maxBytesPerPartition: 1000, maxBytes: 1000 });
        equal([8000000, 5], got.map((m) => m.value.length), 'more than the fetch asks for, yet it comes');
        equal([1000000], (await read_all('js-large')).map((m) => m.value.length));
    },
    'kafkajs: topics come into being by being used, unless nobody wants that': async () => {
        const p = await producer({ allowAutoTopicCreation: true }), q = await producer({ allowAutoTopicCreation: false, retry: { retries: 1 } });
        await p.send({ topic: 'js-auto', messages: [{ value: '1' }] });
        equal(['1'], (await read_all('js-auto')).map((m) => text(m.value)));
        equal('UNKNOWN_TOPIC_OR_PARTITION', kind(await refused('unknown', q.send({ topic: 'js-unknown', messages: [{ value: '1' }] }))));
    },
    'kafkajs: offsets by time': async () => {
        await topic('js-time');
        const p = await producer(), at = Date.now() - 100000;
        for (const [i, value] of ['a', 'b', 'c'].entries()) await p.send({ topic: 'js-time', messages: [{ value, timestamp: String(at + i * 1000) }] });
        const when = async (t) => (await admin.fetchTopicOffsetsByTimestamp('js-time', t))[0].offset;
        equal(['0', '1', '1', '2'], [await when(at - 5), await when(at + 1), await when(at + 1000), await when(at + 1001)]);
        equal('3', await when(at + 2001), 'after the last one: the end');
    },
};

// ---- groups ------------------------------------------------------------------------------------------------------------------------

const groups = {
    'kafkajs: a group shares the partitions, and shares again when a member leaves': async () => {
        await topic('js-share', 4);
        const a = await consumer('js-share', ['js-share']), b = await consumer('js-share', ['js-share']);
        const parts = (r) => (r.joins.at(-1)?.memberAssignment['js-share'] ?? []).length;
        await until('two each', () => parts(a) === 2 && parts(b) === 2, 60000);
        const p = await producer();
        await p.send({ topic: 'js-share', messages: [0, 1, 2, 3].map((partition) => ({ partition, value: 'first' })) });
        await until('each has got its own', () => a.got.length === 2 && b.got.length === 2);
        const d = (await admin.describeGroups(['js-share'])).groups[0];
        equal(['Stable', 'consumer', 2, 'RoundRobinAssigner'], [d.state, d.protocolType, d.members.length, d.protocol]);
        truth((await admin.listGroups()).groups.some((g) => g.groupId === 'js-share' && g.protocolType === 'consumer'), 'not listed');
        equal('NON_EMPTY_GROUP', (await refused('delete', admin.deleteGroups(['js-share']))).groups[0].error.type);
        await b.c.disconnect();
        await until('all four are with the one that stayed', () => parts(a) === 4, 60000);
        await p.send({ topic: 'js-share', messages: [0, 1, 2, 3].map((partition) => ({ partition, value: 'second' })) });
        await until('it gets all four', () => a.got.filter((m) => text(m.value) === 'second').length === 4);
        await until('all is committed', async () => (await admin.fetchOffsets({ groupId: 'js-share', topics: ['js-share'] }))[0].partitions.every((x) => x.offset === '2'));
        await a.c.disconnect();
        equal('Empty', (await admin.describeGroups(['js-share'])).groups[0].state);
        await admin.deleteGroups(['js-share']);
        equal('Dead', (await admin.describeGroups(['js-share'])).groups[0].state);
    },
    'kafkajs: a group goes on where it was; its offsets are set, reset and described': async () => {
        await topic('js-resume');
        const p = await producer();
        await p.send({ topic: 'js-resume', messages: [...Array(6).keys()].map((i) => ({ value: String(i) })) });
        const g = { groupId: 'js-resume', topic: 'js-resume' };
        await admin.setOffsets({ ...g, partitions: [{ partition: 0, offset: '4' }] });
        const a = await consumer('js-resume', ['js-resume']);
        await until('4 and 5', () => a.got.length === 2);
        equal(['4', '5'], a.got.map((m) => m.offset));
        a.c.pause([{ topic: 'js-resume' }]);
        await a.c.commitOffsets([{ topic: 'js-resume', partition: 0, offset: '6', metadata: 'a word' }]);
        equal([{ partition: 0, offset: '6', metadata: 'a word' }], (await admin.fetchOffsets({ groupId: 'js-resume', topics: ['js-resume'] }))[0].partitions);
        a.c.seek({ topic: 'js-resume', partition: 0, offset: '1' });
        a.c.resume([{ topic: 'js-resume' }]);
        await until('from 1 again', () => a.got.length === 7);
        equal(['1', '2', '3', '4', '5'], a.got.slice(2).map((m) => m.offset));
        await a.c.disconnect();
        await admin.resetOffsets({ ...g, earliest: true });
        equal('0', (await admin.fetchOffsets({ groupId: 'js-resume', topics: ['js-resume'], resolveOffsets: true }))[0].partitions[0].offset);
        equal('-1', (await admin.fetchOffsets({ groupId: 'js-nobody', topics: ['js-resume'] }))[0].partitions[0].offset);
    },
};

// ---- transactions --------------------------------------------------------------------------------------------------------------------

const transactions = {
    'kafkajs: what is committed is read, what is aborted is not': async () => {
        await topic('js-txn', 2);
        const p = await producer({ transactionalId: 'js-txn', idempotent: true, maxInFlightRequests: 1 });
        for (const [what, end] of [['yes', 'commit'], ['no', 'abort'], ['yes too', 'commit']]) {
            const t = await p.transaction();
            await t.send({ topic: 'js-txn', messages: [0, 1].map((partition) => ({ partition, value: what })) });
            await t[end]();
        }
        const values = (r) => r.got.map((m) => text(m.value)).sort();
        const c = await consumer('js-txn-c', ['js-txn']), u = await consumer('js-txn-u', ['js-txn'], { readUncommitted: true });
        await until('all six, uncommitted', () => u.got.length === 6);
        await until('four, committed', () => c.got.length === 4);
        equal(['no', 'no', 'yes', 'yes', 'yes too', 'yes too'], values(u));
        equal(['yes', 'yes', 'yes too', 'yes too'], values(c));
    },
    'kafkajs: what a transaction has not ended holds readers back': async () => {
        await topic('js-open');
        const p = await producer({ transactionalId: 'js-open', idempotent: true, maxInFlightRequests: 1 }), q = await producer();
        const c = await consumer('js-open-c', ['js-open']), u = await consumer('js-open-u', ['js-open'], { readUncommitted: true });
        const t = await p.transaction();
        await t.send({ topic: 'js-open', messages: [{ value: 'in it' }] });
        await q.send({ topic: 'js-open', messages: [{ value: 'beside it' }] });
        await until('the other one sees both', () => u.got.length === 2);
        equal(0, c.got.length);
        await t.commit();
        await until('both came', () => c.got.length === 2);
        equal(['in it', 'beside it'], c.got.map((m) => text(m.value)));
    },
    'kafkajs: consume, transform, produce: each record once': async () => {
        await topic('js-in', 2);
        await topic('js-out', 2);
        const p = await producer(), tp = await producer({ transactionalId: 'js-ctp', idempotent: true, maxInFlightRequests: 1 });
        await p.send({ topic: 'js-in', messages: [...Array(40).keys()].map((i) => ({ key: 'k' + i, value: String(i) })) });
        const groupId = 'js-ctp';
        let failed = 0;
        const r = await consumer(groupId, ['js-in'], { autoCommit: false }, async ({ topic, partition, message }) => {
            const n = Number(text(message.value)), t = await tp.transaction();
            await t.send({ topic: 'js-out', messages: [{ key: message.key, value: String(n * 2) }] });
            await t.sendOffsets({ consumerGroupId: groupId, topics: [{ topic, partitions: [{ partition, offset: String(BigInt(message.offset) + 1n) }] }] });
            if (n % 10 === 3 && failed++ < 4) { // it fails once: nothing of it counts, and the record comes again
                await t.abort();
                throw new Error('on purpose');
            }
            await t.commit();
        });
        const out = await consumer('js-ctp-out', ['js-out']);
        const numbers = () => [...new Set(out.got.map((m) => Number(text(m.value))))];
        await until('all forty', () => numbers().length === 40, 25000);
        equal(40, out.got.length, 'none twice');
        truth(failed >= 4, 'nothing failed');
        const committed = (await admin.fetchOffsets({ groupId, topics: ['js-in'] }))[0].partitions.reduce((n, x) => n + Number(x.offset), 0);
        equal(40, committed);
        await r.c.disconnect();
    },
    'kafkajs: a second producer of the same transactional id fences the first': async () => {
        await topic('js-fence');
        const conf = { transactionalId: 'js-fence', idempotent: true, maxInFlightRequests: 1, retry: { retries: 2 } };
        const old = await producer(conf), t = await old.transaction();
        await t.send({ topic: 'js-fence', messages: [{ value: 'of the old one' }] });
        const young = await producer(conf), u = await young.transaction();
        await u.send({ topic: 'js-fence', messages: [{ value: 'of the young one' }] });
        await u.commit();
        const e = await refused('the old one', t.commit());
        truth(['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED'].includes(kind(e)), kind(e));
        const c = await consumer('js-fence', ['js-fence']);
        await until('one came', () => c.got.length === 1);
        equal(['of the young one'], c.got.map((m) => text(m.value)));
    },
};

// ---- permissions -----------------------------------------------------------------------------------------------------------------------

const rule = (permissionType) => (resourceType, resourceName, operation, resourcePatternType = ResourcePatternTypes.LITERAL) =>
    ({ resourceType, resourceName, resourcePatternType, principal: 'User:ANONYMOUS', host: '*', operation, permissionType });
const allow = rule(AclPermissionTypes.ALLOW), deny = rule(AclPermissionTypes.DENY);

// The error that a consumer ends with.
const crash = async (groupId, name) => {
    const c = kafka.consumer({ groupId, retry: { retries: 0, restartOnFailure: async () => false } });
    opened.push(c);
    const crashed = new Promise((done) => c.on(c.events.CRASH, (e) => done(kind(e.payload.error))));
    await c.connect();
    await c.subscribe({ topic: name, fromBeginning: true });
    await c.run({ eachMessage: async () => {} }).catch(() => {});
    return crashed;
};

// A name for which there is any rule is closed to all whom none lets in: so DESCRIBE is allowed beside what is denied.
const permissions = {
    'kafkajs: ACLs are created, described, obeyed and deleted': async () => {
        const { TOPIC, GROUP } = AclResourceTypes, { READ, WRITE, DESCRIBE, ANY } = AclOperationTypes;
        await topic('js-acl-read');
        await topic('js-acl-write');
        const p = await producer({ retry: { retries: 1 } }), acls = kafka.admin();
        await acls.connect();
        opened.push(acls);
        await p.send({ topic: 'js-acl-read', messages: [{ value: '1' }] });
        await acls.createAcls({ acl: [deny(TOPIC, 'js-acl-w', WRITE, ResourcePatternTypes.PREFIXED), allow(TOPIC, 'js-acl-', DESCRIBE, ResourcePatternTypes.PREFIXED), deny(TOPIC, 'js-acl-read', READ),
            deny(GROUP, 'js-acl-group', READ), allow(GROUP, 'js-acl-group', DESCRIBE)] });
        const filter = (name) => ({ resourceType: TOPIC, resourceName: name, resourcePatternType: ResourcePatternTypes.MATCH, operation: ANY, permissionType: AclPermissionTypes.ANY });
        const found = (await acls.describeAcls(filter('js-acl-write'))).resources;
        equal([['js-acl-', ResourcePatternTypes.PREFIXED, 'User:ANONYMOUS', DESCRIBE, AclPermissionTypes.ALLOW], ['js-acl-w', ResourcePatternTypes.PREFIXED, 'User:ANONYMOUS', WRITE, AclPermissionTypes.DENY]],
            found.flatMap((r) => r.acls.map((a) => [r.resourceName, r.resourcePatternType, a.principal, a.operation, a.permissionType])).sort());
        equal('TOPIC_AUTHORIZATION_FAILED', kind(await refused('write', p.send({ topic: 'js-acl-write', messages: [{ value: '1' }] }))));
        const errors = await Promise.all([crash('js-acl-reader', 'js-acl-read'), crash('js-acl-group', 'js-acl-write')]);
        equal(['TOPIC_AUTHORIZATION_FAILED', 'GROUP_AUTHORIZATION_FAILED'], errors);
        const gone = await acls.deleteAcls({ filters: [filter('js-acl-write'), filter('js-acl-read')] });
        equal([2, 2], gone.filterResponses.map((f) => f.matchingAcls.length), 'each filter sees what there was');
        await p.send({ topic: 'js-acl-write', messages: [{ value: '1' }] });
        equal(['1'], (await read_all('js-acl-write')).map((m) => text(m.value)));
    },
};

// ---- users ---------------------------------------------------------------------------------------------------------------------------------

const users = Object.fromEntries(['plain', 'scram-sha-256', 'scram-sha-512'].map((mechanism) => [`kafkajs: ${mechanism} over TLS; a wrong password is refused`, async () => {
    const as = (password) => new Kafka({ brokers: [SECURE], ssl: { ca: [fs.readFileSync(CA)] }, sasl: { mechanism, username: 'alice', password }, logLevel: logLevel.NOTHING, logCreator: quiet,
        retry: { retries: 1 } }).producer({ createPartitioner: Partitioners.DefaultPartitioner });
    const p = as('wonder land'), name = 'js-' + mechanism;
    opened.push(p);
    await topic(name);
    await p.connect();
    await p.send({ topic: name, messages: [{ value: mechanism }] });
    equal([mechanism], (await read_all(name)).map((m) => text(m.value)));
    const e = await refused('wrong', as('wonder').connect());
    truth(/[Aa]uthentication failed/.test(e.message), e.message);
}]));

const main = async () => {
    codecs(await new Promise((done) => ZstdCodec.run((z) => done(new z.Simple()))));
    await run({ ...administration, ...producing, ...groups, ...transactions, ...permissions, ...users });
    await Promise.race([Promise.all(opened.map((c) => c.disconnect().catch(() => {}))), new Promise((r) => setTimeout(r, 3000))]);
    process.exit(0);
};
main();
