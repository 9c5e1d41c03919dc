/* txn_world_test.c - see its header. */
#include "txn_world_test.h"

static bool again(int16_t e) { return e == KAFKA_COORDINATOR_LOAD_IN_PROGRESS || e == KAFKA_COORDINATOR_NOT_AVAILABLE || e == KAFKA_NOT_COORDINATOR; }

struct producer_id txn_init_once(struct client *c, const char *txn, int32_t timeout_ms, const struct producer_id *given)
{
    struct kafka_init_producer_id_req req;
    kafka_init_producer_id_req_init(&req);
    req.transactional_id = slice_cstr(txn);
    req.transaction_timeout_ms = timeout_ms;
    req.producer_id = given ? given->id : -1;
    req.producer_epoch = given ? given->epoch : -1;
    const struct kafka_init_producer_id_resp *resp = client_ask(c, KEY_INIT_PRODUCER_ID, 5, &req);
    return (struct producer_id){resp->producer_id, resp->producer_epoch, resp->error_code};
}

struct producer_id txn_init(struct client *c, const char *txn)
{
    for (int i = 0; i < 1000; i++) {
        struct producer_id p = txn_init_once(c, txn, 60000, NULL);
        if (!again(p.error) && p.error != KAFKA_CONCURRENT_TRANSACTIONS)
            return p;
        world_sleep(20);
    }
    fail_msg("InitProducerId never succeeds");
    return (struct producer_id){0};
}

int16_t txn_add_once(struct client *c, const char *txn, struct producer_id p, const char *topic, int32_t partition, int16_t version)
{
    struct kafka_add_partitions_to_txn_req req;
    struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic t = {.name = slice_cstr(topic), .partitions = &partition, .partitions_n = 1};
    kafka_add_partitions_to_txn_req_init(&req);
    req.v3_and_below_transactional_id = slice_cstr(txn);
    req.v3_and_below_producer_id = p.id;
    req.v3_and_below_producer_epoch = p.epoch;
    req.v3_and_below_topics = &t;
    req.v3_and_below_topics_n = 1;
    const struct kafka_add_partitions_to_txn_resp *resp = client_ask(c, KEY_ADD_PARTITIONS_TO_TXN, version, &req);
    assert_int_equal(resp->results_by_topic_v3_and_below_n, 1);
    assert_int_equal(resp->results_by_topic_v3_and_below[0].results_by_partition_n, 1);
    return resp->results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
}

int16_t txn_add(struct client *c, const char *txn, struct producer_id p, const char *topic, int32_t partition)
{
    for (int i = 0; i < 1000; i++) {
        int16_t e = txn_add_once(c, txn, p, topic, partition, 3);
        if (!again(e) && e != KAFKA_CONCURRENT_TRANSACTIONS)
            return e;
        world_sleep(20);
    }
    fail_msg("AddPartitionsToTxn never succeeds");
    return 0;
}

int16_t txn_finish_once(struct client *c, const char *txn, struct producer_id p, bool commit, int16_t version)
{
    struct kafka_end_txn_req req;
    kafka_end_txn_req_init(&req);
    req.transactional_id = slice_cstr(txn);
    req.producer_id = p.id;
    req.producer_epoch = p.epoch;
    req.committed = commit;
    const struct kafka_end_txn_resp *resp = client_ask(c, KEY_END_TXN, version, &req);
    return resp->error_code;
}

int16_t txn_finish(struct client *c, const char *txn, struct producer_id p, bool commit)
{
    for (int i = 0; i < 1000; i++) {
        int16_t e = txn_finish_once(c, txn, p, commit, 4);
        if (!again(e))
            return e;
        world_sleep(20);
    }
    fail_msg("EndTxn never succeeds");
    return 0;
}

int16_t txn_produce(struct client *c, const char *txn, const struct producer_id *p, int32_t sequence, const char *topic, int32_t partition, const int *values, int n)
{
    struct buf b = {0};
    struct kafka_batch_builder k;
    struct kafka_batch head = kafka_batch_plain;
    head.base_timestamp = (int64_t)(wall_ns() / 1000000);
    if (p) {
        head.producer_id = p->id;
        head.producer_epoch = p->epoch;
        head.base_sequence = sequence;
    }
    if (txn)
        head.attributes = KAFKA_BATCH_TRANSACTIONAL;
    kafka_batch_begin(&k, &b, &head);
    for (int i = 0; i < n; i++)
        kafka_batch_add(&k, head.base_timestamp, (struct slice){0}, slice_of((const char *)&values[i], sizeof values[i]), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    struct kafka_produce_req req;
    struct kafka_produce_req_partition_produce_data part = {.index = partition, .records = buf_slice(&b)};
    struct kafka_produce_req_topic_produce_data data = {.name = slice_cstr(topic), .partition_data = &part, .partition_data_n = 1};
    kafka_produce_req_init(&req);
    req.transactional_id = slice_cstr(txn);
    req.acks = -1;
    req.timeout_ms = 30000;
    req.topic_data = &data;
    req.topic_data_n = 1;
    const struct kafka_produce_resp *resp = client_ask(c, KEY_PRODUCE, 9, &req);
    buf_free(&b);
    assert_int_equal(resp->responses_n, 1);
    return resp->responses[0].partition_responses[0].error_code;
}

int16_t txn_produce_one(struct client *c, const char *txn, const struct producer_id *p, int32_t sequence, const char *topic, int32_t partition, int value)
{
    return txn_produce(c, txn, p, sequence, topic, partition, &value, 1);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------- */

/* Whether a batch of this producer at this offset belongs to an aborted transaction: as clients do it, the list and the markers so far decide. */
struct aborting {
    int64_t ids[VALUES_MAX];
    int n;
};

static void aborting_begin(struct aborting *a, const struct kafka_fetch_resp_partition_data *p, int64_t last_offset)
{
    for (int32_t i = 0; i < p->aborted_transactions_n; i++) {
        bool have = p->aborted_transactions[i].first_offset > last_offset;
        for (int j = 0; j < a->n; j++)
            have = have || a->ids[j] == p->aborted_transactions[i].producer_id;
        if (!have)
            a->ids[a->n++] = p->aborted_transactions[i].producer_id;
    }
}

/* One batch; the offset behind it. Aborted transactions of the list that begin at or before it are open for it; a marker ends one, and takes it off the list. */
static int64_t batch_read(const struct kafka_fetch_resp_partition_data *p, struct aborting *a, const struct kafka_batch *b, bool committed, struct seen *out)
{
    struct slice records;
    struct buf scratch = {0};
    struct kafka_record rec;
    bool skip = false;
    aborting_begin(a, p, kafka_batch_last_offset(b));
    for (int j = 0; j < a->n; j++) {
        if (a->ids[j] != b->producer_id)
            continue;
        skip = (b->attributes & KAFKA_BATCH_TRANSACTIONAL) != 0;
        if (b->attributes & KAFKA_BATCH_CONTROL) {
            a->ids[j] = a->ids[--a->n];
            for (int32_t i = 0; i < p->aborted_transactions_n; i++) /* this one is over */
                if (p->aborted_transactions[i].producer_id == b->producer_id && p->aborted_transactions[i].first_offset <= b->base_offset)
                    p->aborted_transactions[i].first_offset = INT64_MAX;
            break;
        }
    }
    if (!(b->attributes & KAFKA_BATCH_CONTROL) && !(committed && skip)) {
        assert_int_equal(kafka_batch_records(b, 1 << 20, &scratch, &records), OK);
        for (int32_t i = 0; i < b->count; i++) {
            assert_int_equal(kafka_record_next(&records, &rec), OK);
            assert_true(out->n < VALUES_MAX);
            memcpy(&out->values[out->n++], rec.value.p, sizeof out->values[0]);
        }
    }
    buf_free(&scratch);
    return kafka_batch_last_offset(b) + 1;
}

static const struct kafka_fetch_resp_partition_data *fetch(struct client *c, const char *topic, int32_t partition, int64_t offset, bool committed)
{
    for (int i = 0; i < 1000; i++) {
        struct kafka_fetch_req req;
        struct kafka_fetch_req_fetch_partition p;
        kafka_fetch_req_fetch_partition_init(&p);
        p.partition = partition;
        p.fetch_offset = offset;
        p.partition_max_bytes = 1 << 20;
        struct kafka_fetch_req_fetch_topic t = {.topic = slice_cstr(topic), .partitions = &p, .partitions_n = 1};
        kafka_fetch_req_init(&req);
        req.replica_id = -1;
        req.max_bytes = 1 << 20;
        req.isolation_level = committed;
        req.session_epoch = -1;
        req.topics = &t;
        req.topics_n = 1;
        const struct kafka_fetch_resp *resp = client_ask(c, KEY_FETCH, 11, &req);
        assert_int_equal(resp->responses_n, 1);
        const struct kafka_fetch_resp_partition_data *got = &resp->responses[0].partitions[0];
        if (got->error_code == KAFKA_NONE)
            return got;
        assert_int_equal(got->error_code, KAFKA_NOT_LEADER_OR_FOLLOWER); /* being loaded */
        world_sleep(20);
    }
    fail_msg("the partition never loads");
    return NULL;
}

void txn_read(struct client *c, const char *topic, int32_t partition, bool committed, struct seen *out)
{
    int64_t offset = 0;
    struct aborting a = {.n = 0};
    out->n = 0;
    for (;;) {
        const struct kafka_fetch_resp_partition_data *p = fetch(c, topic, partition, offset, committed);
        struct slice rest = p->records.bytes;
        struct kafka_batch b;
        out->high = p->high_watermark;
        out->stable = p->last_stable_offset;
        if (rest.n == 0)
            return;
        a.n = 0; /* each answer has the whole list of its range */
        while (rest.n && kafka_batch_parse(rest, &b) == KAFKA_NONE) {
            assert_true(kafka_batch_crc_ok(rest.p, &b));
            offset = batch_read(p, &a, &b, committed, out);
            rest = slice_of(rest.p + b.bytes, rest.n - b.bytes);
        }
    }
}

static int64_t offset_of(struct client *c, const char *topic, int32_t partition, bool committed, int64_t which)
{
    struct kafka_list_offsets_req req;
    struct kafka_list_offsets_req_list_offsets_partition p;
    kafka_list_offsets_req_list_offsets_partition_init(&p);
    p.partition_index = partition;
    p.timestamp = which;
    struct kafka_list_offsets_req_list_offsets_topic t = {.name = slice_cstr(topic), .partitions = &p, .partitions_n = 1};
    kafka_list_offsets_req_init(&req);
    req.replica_id = -1;
    req.isolation_level = committed;
    req.topics = &t;
    req.topics_n = 1;
    const struct kafka_list_offsets_resp *resp = client_ask(c, KEY_LIST_OFFSETS, 7, &req);
    return resp->topics[0].partitions[0].error_code ? -2 : resp->topics[0].partitions[0].offset;
}

int64_t txn_latest(struct client *c, const char *topic, int32_t partition, bool committed) { return offset_of(c, topic, partition, committed, -1); }
int64_t txn_newest(struct client *c, const char *topic, int32_t partition, bool committed) { return offset_of(c, topic, partition, committed, -3); }

void txn_settle(struct client *c, const char *topic, int32_t partition)
{
    for (int i = 0; i < 10000; i++) {
        int64_t stable = txn_latest(c, topic, partition, true), high = txn_latest(c, topic, partition, false);
        if (stable >= 0 && stable == high)
            return;
        world_sleep(50);
    }
    fail_msg("a transaction never ends in %s-%d", topic, partition);
}

const char *txn_state_of(struct client *c, const char *txn)
{
    struct kafka_describe_transactions_req req;
    struct slice id = slice_cstr(txn);
    kafka_describe_transactions_req_init(&req);
    req.transactional_ids = &id;
    req.transactional_ids_n = 1;
    for (int i = 0; i < 1000; i++) {
        const struct kafka_describe_transactions_resp *resp = client_ask(c, 65, 0, &req);
        assert_int_equal(resp->transaction_states_n, 1);
        if (!again(resp->transaction_states[0].error_code))
            return arena_slice(client_arena(c), resp->transaction_states[0].transaction_state).p;
        world_sleep(20);
    }
    fail_msg("DescribeTransactions never succeeds");
    return NULL;
}
