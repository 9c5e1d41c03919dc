/* data_test.c - produce, fetch, sessions and offsets on the simulator: several shards, every error, long polls, order, faults of the disk. */
#include "data_world_test.h"
#include "data.h"
#include "repeat_test.h"
#include "crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- asking ---------------------------------------------------------------------------------------------------------------------- */

static struct slice plain(struct client *c, const char *tag) { return batch(c, tag, NULL); }

static const struct kafka_produce_resp_partition_produce_response *produced(const struct kafka_produce_resp *resp, int i)
{
    assert_true(i < resp->responses_n);
    assert_int_equal(resp->responses[i].partition_responses_n, 1);
    return &resp->responses[i].partition_responses[0];
}

static const struct kafka_produce_resp_partition_produce_response *produce_v(struct client *c, int16_t version, const char *topic, int32_t partition, struct slice b, int16_t acks)
{
    struct to to = {topic, partition, b};
    return produced(client_ask(c, KEY_PRODUCE, version, produce_req(c, &to, 1, acks)), 0);
}

static int produce_error(struct client *c, const char *topic, int32_t partition, struct slice b)
{
    const struct kafka_produce_resp_partition_produce_response *p = produce_v(c, 9, topic, partition, b, -1);
    if (p->error_code) {
        assert_int_equal(p->base_offset, -1);
        assert_int_equal(p->log_append_time_ms, -1);
    }
    return p->error_code;
}

/* Appends and expects that offset. */
static void put(struct client *c, const char *topic, int32_t partition, const char *tag, int64_t offset)
{
    const struct kafka_produce_resp_partition_produce_response *p = produce_v(c, 9, topic, partition, plain(c, tag), -1);
    assert_int_equal(p->error_code, 0);
    assert_int_equal(p->base_offset, offset);
}

static const struct kafka_fetch_resp *fetch(struct client *c, int16_t version, const struct fetch_conf *conf, const struct from *from, int n)
{
    return client_ask(c, KEY_FETCH, version, fetch_req(c, conf, from, n));
}

/* The one partition of an answer. */
static const struct kafka_fetch_resp_partition_data *only(const struct kafka_fetch_resp *resp)
{
    assert_int_equal(resp->error_code, 0);
    assert_int_equal(resp->responses_n, 1);
    assert_int_equal(resp->responses[0].partitions_n, 1);
    return &resp->responses[0].partitions[0];
}

static int parts_in(const struct kafka_fetch_resp *resp)
{
    int n = 0;
    for (int32_t i = 0; i < resp->responses_n; i++)
        n += resp->responses[i].partitions_n;
    return n;
}

static const struct kafka_fetch_resp_partition_data *part_of(const struct kafka_fetch_resp *resp, const char *topic, int32_t partition)
{
    for (int32_t i = 0; i < resp->responses_n; i++)
        for (int32_t k = 0; k < resp->responses[i].partitions_n; k++)
            if (slice_is(resp->responses[i].topic, topic) && resp->responses[i].partitions[k].partition_index == partition)
                return &resp->responses[i].partitions[k];
    return NULL;
}

static const struct kafka_fetch_resp_partition_data *fetch_one(struct client *c, const char *topic, int32_t partition, int64_t offset)
{
    struct from from = {.topic = topic, .partition = partition, .offset = offset};
    return only(fetch(c, 11, &(struct fetch_conf){0}, &from, 1));
}

static void assert_values(struct client *c, const char *topic, int32_t partition, int64_t offset, const char *expected)
{
    const struct kafka_fetch_resp_partition_data *p = fetch_one(c, topic, partition, offset);
    assert_int_equal(p->error_code, 0);
    assert_string_equal(values(c, p, offset, NULL), expected);
}

static void start(uint32_t shards) { world_start(&(struct world_conf){.seed = 7, .shards = shards}); }

/* The power fails; the topic's partitions are there again. */
static void power_loss(const char *topic)
{
    world_crash(true);
    world_until(all_loaded, (void *)(uintptr_t)topic, 10000);
}

/* ---- tests: there and back ------------------------------------------------------------------------------------------------------------- */

static void test_there_and_back(void **state)
{
    start(3);
    struct kafka_uuid id = world_topic("t", 8, NULL);
    struct client *c = client_new(1);
    int64_t offset[8] = {0};
    for (int16_t v = 3; v <= 11; v++)
        for (int32_t p = 0; p < 8; p++) {
            struct batch_conf conf = {.records = p + 1, .codec = v < 7 ? (enum kafka_codec)(p % 4) : (enum kafka_codec)(p % 5)};
            const struct kafka_produce_resp_partition_produce_response *out = produce_v(c, v, "t", p, batch(c, "x", &conf), (int16_t)(p % 2 ? 1 : -1));
            assert_int_equal(out->error_code, 0);
            assert_int_equal(out->base_offset, offset[p]);
            assert_int_equal(out->log_append_time_ms, -1);
            assert_int_equal(out->log_start_offset, v >= 5 ? 0 : -1);
            offset[p] += p + 1;
        }
    for (int16_t v = 4; v <= 18; v++) {
        struct from from[8];
        for (int32_t p = 0; p < 8; p++)
            from[p] = (struct from){v < 13 ? "t" : "", p, 0, id};
        const struct kafka_fetch_resp *resp = fetch(c, v, &(struct fetch_conf){.isolation = (int8_t)(v % 2)}, from, 8);
        assert_int_equal(parts_in(resp), 8);
        for (int32_t p = 0; p < 8; p++) { /* in the order of the request, one topic */
            const struct kafka_fetch_resp_partition_data *out = &resp->responses[0].partitions[p];
            int64_t next;
            assert_int_equal(out->partition_index, p);
            assert_int_equal(out->error_code, 0);
            assert_int_equal(out->high_watermark, offset[p]);
            assert_int_equal(out->last_stable_offset, offset[p]);
            assert_int_equal(out->aborted_transactions_n, v % 2 ? 0 : -1);
            values(c, out, 0, &next);
            assert_int_equal(next, offset[p]);
        }
        if (v >= 13)
            assert_true(kafka_uuid_eq(resp->responses[0].topic_id, id));
    }
    client_free(c);
    world_stop();
}

static void test_middle_of_a_batch(void **state)
{
    start(1);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    struct batch_conf ten = {.records = 10};
    for (int i = 0; i < 3; i++)
        assert_int_equal(produce_error(c, "t", 0, batch(c, i == 0 ? "a" : i == 1 ? "b" : "c", &ten)), 0);
    assert_values(c, "t", 0, 18, "b-8 b-9 c-0 c-1 c-2 c-3 c-4 c-5 c-6 c-7 c-8 c-9 ");
    assert_values(c, "t", 0, 29, "c-9 ");
    assert_values(c, "t", 0, 30, "");
    assert_int_equal(fetch_one(c, "t", 0, 31)->error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(fetch_one(c, "t", 0, -1)->error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    client_free(c);
    world_stop();
}

static void test_acks_0(void **state)
{
    start(2);
    world_topic("t", 4, NULL);
    struct client *c = client_new(0), *other = client_new(1);
    for (int32_t p = 0; p < 4; p++) {
        struct to to = {"t", p, plain(c, "quiet")};
        client_send_silent(c, KEY_PRODUCE, 7, produce_req(c, &to, 1, 0));
    }
    for (int32_t p = 0; p < 4; p++) {
        struct from from = {"t", p, 0, {{0}}};
        assert_string_equal(values(other, only(fetch(other, 11, &(struct fetch_conf){.wait_ms = 10000}, &from, 1)), 0, NULL), "quiet-0 ");
    }
    struct to bad = {"nowhere", 0, plain(c, "x")};
    client_send_silent(c, KEY_PRODUCE, 7, produce_req(c, &bad, 1, 0));
    client_await_close(c);
    client_free(c);
    client_free(other);
    world_stop();
}

/* 64 batches on the way at once, to one partition of another shard: they arrive in order. */
static void test_order_of_a_pipeline(void **state)
{
    start(2);
    world_topic("t", 4, (const char *const[]){"compression.type=producer", NULL});
    world_topic("z", 4, (const char *const[]){"compression.type=zstd", NULL});
    struct client *c = client_new(0);
    for (int topic = 0; topic < 2; topic++) {
        int32_t ids[64], p = 0;
        const char *name = topic ? "z" : "t";
        while (p < 3 && world_owner(name, p) == W.broker->shards[0])
            p++;
        for (int i = 0; i < 64; i++) {
            /* every third is of the codec already, and could overtake those that are compressed anew */
            struct batch_conf conf = {.codec = i % 3 ? KAFKA_CODEC_NONE : KAFKA_CODEC_ZSTD, .producer_id = 5, .sequence = i, .epoch = 1};
            struct to to = {name, p, batch(c, arena_printf(client_arena(c), "%d", i), &conf)};
            ids[i] = client_send(c, KEY_PRODUCE, 9, produce_req(c, &to, 1, -1));
        }
        for (int i = 0; i < 64; i++) {
            const struct kafka_produce_resp_partition_produce_response *out = produced(client_await(c, ids[i]), 0);
            assert_int_equal(out->error_code, 0);
            assert_int_equal(out->base_offset, i);
        }
    }
    client_free(c);
    world_stop();
}

/* ---- tests: what a broker refuses ---------------------------------------------------------------------------------------------------------- */

static struct slice damaged(struct client *c, struct slice b, size_t at, char xor, bool mend)
{
    char *p = (char *)(uintptr_t)arena_slice(client_arena(c), b).p;
    p[at] = (char)(p[at] ^ xor);
    if (mend) { /* the checksum is right again */
        uint32_t crc = crc32c(0, p + 21, b.n - 21);
        for (int i = 0; i < 4; i++)
            p[17 + i] = (char)(crc >> (24 - 8 * i));
    }
    return slice_of(p, b.n);
}

static void test_produce_refused(void **state)
{
    start(2);
    world_topic("t", 2, (const char *const[]){"max.message.bytes=1000", NULL});
    world_topic("compact", 1, (const char *const[]){"cleanup.policy=compact", NULL});
    struct client *c = client_new(0);
    struct slice good = plain(c, "good");
    assert_int_equal(produce_error(c, "nowhere", 0, good), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(produce_error(c, "t", 2, good), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(produce_error(c, "t", -1, good), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(produce_v(c, 9, "t", 0, good, 2)->error_code, KAFKA_INVALID_REQUIRED_ACKS);
    assert_int_equal(produce_v(c, 9, "t", 0, good, -2)->error_code, KAFKA_INVALID_REQUIRED_ACKS);
    assert_int_equal(produce_error(c, "t", 0, slice_of(NULL, 0)), KAFKA_INVALID_RECORD);
    assert_int_equal(produce_error(c, "t", 0, slice_of("", 0)), KAFKA_INVALID_RECORD);
    assert_int_equal(produce_error(c, "t", 0, slice_of(good.p, good.n - 1)), KAFKA_CORRUPT_MESSAGE);
    assert_int_equal(produce_error(c, "t", 0, slice_of(good.p, 20)), KAFKA_CORRUPT_MESSAGE);
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, good.n - 2, 1, false)), KAFKA_CORRUPT_MESSAGE);
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, 7, 1, false)), KAFKA_INVALID_RECORD);  /* base offset */
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, 16, 3, false)), KAFKA_INVALID_RECORD); /* magic */
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, 26, 1, true)), KAFKA_INVALID_RECORD);  /* last offset delta */
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, 60, 1, true)), KAFKA_INVALID_RECORD);  /* count */
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, 22, KAFKA_BATCH_CONTROL, true)), KAFKA_INVALID_RECORD);
    assert_int_equal(produce_error(c, "t", 0, damaged(c, good, 22, KAFKA_BATCH_LOG_APPEND, true)), KAFKA_INVALID_TIMESTAMP);
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.producer_id = 9, .sequence = -1})), KAFKA_INVALID_RECORD);
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.value_bytes = 1000})), KAFKA_MESSAGE_TOO_LARGE);
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.at_ms = now_ms() + 3700000})), KAFKA_INVALID_TIMESTAMP);
    struct slice zstd = batch(c, "x", &(struct batch_conf){.codec = KAFKA_CODEC_ZSTD});
    assert_int_equal(produce_v(c, 6, "t", 0, zstd, 1)->error_code, KAFKA_UNSUPPORTED_COMPRESSION_TYPE);
    char *twice = arena_alloc(client_arena(c), good.n * 2);
    memcpy(twice, good.p, good.n);
    memcpy(twice + good.n, good.p, good.n);
    assert_int_equal(produce_error(c, "t", 0, slice_of(twice, good.n * 2)), KAFKA_INVALID_RECORD);
    const struct kafka_produce_resp_partition_produce_response *out =
        produce_v(c, 8, "compact", 0, batch(c, "x", &(struct batch_conf){.records = 4, .keyless = 2, .codec = KAFKA_CODEC_LZ4}), -1);
    assert_int_equal(out->error_code, KAFKA_INVALID_RECORD);
    assert_int_equal(out->record_errors_n, 2); /* all that are at fault */
    assert_int_equal(out->record_errors[0].batch_index, 0);
    assert_int_equal(out->record_errors[1].batch_index, 2);
    assert_true(out->error_message.n > 0);
    out = produce_v(c, 8, "compact", 0, batch(c, "x", &(struct batch_conf){.records = 1200, .keyless = 1, .codec = KAFKA_CODEC_GZIP}), -1);
    assert_int_equal(out->record_errors_n, 1000); /* and no more than that */
    /* one that is bad doesn't touch the others of its request */
    struct to three[] = {{"t", 0, good}, {"t", 1, damaged(c, good, good.n - 2, 1, false)}, {"compact", 0, good}};
    const struct kafka_produce_resp *resp = client_ask(c, KEY_PRODUCE, 9, produce_req(c, three, 3, -1));
    assert_int_equal(produced(resp, 0)->error_code, 0);
    assert_int_equal(produced(resp, 1)->error_code, KAFKA_CORRUPT_MESSAGE);
    assert_int_equal(produced(resp, 2)->error_code, 0);
    assert_values(c, "t", 0, 0, "good-0 ");
    assert_values(c, "t", 1, 0, "");
    client_free(c);
    world_stop();
}

/* A head that lies about the greatest timestamp (librdkafka's, above records without one) is set right: retention and lookups by time go by it. */
static void test_max_timestamp(void **state)
{
    start(1);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    struct slice b = batch(c, "x", &(struct batch_conf){.records = 2, .at_ms = -2});
    struct kafka_batch head;
    kafka_batch_max_timestamp((char *)(uintptr_t)b.p, 7000);
    assert_int_equal(kafka_batch_parse(b, &head), KAFKA_NONE);
    assert_int_equal(head.max_timestamp, 7000);
    assert_int_equal(produce_v(c, 9, "t", 0, b, -1)->error_code, 0);
    struct slice got = fetch_one(c, "t", 0, 0)->records.bytes;
    assert_int_equal(kafka_batch_parse(got, &head), KAFKA_NONE);
    assert_int_equal(head.max_timestamp, -1);
    assert_true(kafka_batch_crc_ok(got.p, &head));
    client_free(c);
    world_stop();
}

static void test_topic_settings(void **state)
{
    start(2);
    world_topic("time", 1, (const char *const[]){"message.timestamp.type=LogAppendTime", NULL});
    world_topic("gzip", 1, (const char *const[]){"compression.type=gzip", NULL});
    world_topic("none", 1, (const char *const[]){"compression.type=uncompressed", NULL});
    world_topic("old", 1, (const char *const[]){"message.timestamp.before.max.ms=60000", NULL});
    struct client *c = client_new(0);
    struct kafka_batch b;
    const struct kafka_produce_resp_partition_produce_response *out = produce_v(c, 9, "time", 0, batch(c, "x", &(struct batch_conf){.at_ms = 5}), -1);
    assert_int_equal(out->error_code, 0);
    assert_true(out->log_append_time_ms > 5);
    const struct kafka_fetch_resp_partition_data *p = fetch_one(c, "time", 0, 0);
    assert_int_equal(kafka_batch_parse(p->records.bytes, &b), KAFKA_NONE);
    assert_true(kafka_batch_crc_ok(p->records.bytes.p, &b));
    assert_int_equal(b.max_timestamp, out->log_append_time_ms);
    assert_true(b.attributes & KAFKA_BATCH_LOG_APPEND);
    for (int codec = 0; codec < KAFKA_CODECS; codec++)
        for (int topic = 0; topic < 2; topic++) {
            const char *name = topic ? "gzip" : "none";
            struct batch_conf conf = {.records = 20, .codec = (enum kafka_codec)codec, .producer_id = 77, .sequence = codec * 20};
            assert_int_equal(produce_error(c, name, 0, batch(c, "v", &conf)), 0);
            p = fetch_one(c, name, 0, codec * 20);
            assert_int_equal(kafka_batch_parse(p->records.bytes, &b), KAFKA_NONE);
            assert_int_equal(kafka_batch_codec(&b), topic ? KAFKA_CODEC_GZIP : KAFKA_CODEC_NONE);
            assert_int_equal(b.count, 20);
            assert_int_equal(b.producer_id, 77);
            assert_int_equal(b.base_sequence, codec * 20);
            assert_int_equal(b.base_offset, codec * 20);
            assert_memory_equal(values(c, p, codec * 20 + 18, NULL), "v-18 v-19 ", 10);
        }
    assert_int_equal(produce_error(c, "old", 0, batch(c, "x", &(struct batch_conf){.at_ms = now_ms() - 61000})), KAFKA_INVALID_TIMESTAMP);
    assert_int_equal(produce_error(c, "old", 0, batch(c, "x", &(struct batch_conf){.at_ms = now_ms() - 59000})), 0);
    out = produce_v(c, 8, "old", 0, batch(c, "x", &(struct batch_conf){.records = 3, .last_ms = now_ms() - 61000, .codec = KAFKA_CODEC_GZIP}), -1);
    assert_int_equal(out->error_code, KAFKA_INVALID_TIMESTAMP);
    assert_int_equal(out->record_errors_n, 1);
    assert_int_equal(out->record_errors[0].batch_index, 2);
    assert_int_equal(produce_error(c, "old", 0, batch(c, "x", &(struct batch_conf){.records = 3, .last_ms = -1})), 0); /* none */
    client_free(c);
    world_stop();
}

static void test_idempotence(void **state)
{
    start(2);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    for (int round = 0; round < 2; round++) /* the second time all are duplicates, and have the offsets that they had */
        for (int i = 0; i < 5; i++) {
            struct batch_conf conf = {.records = 2, .producer_id = 3, .sequence = i * 2};
            const struct kafka_produce_resp_partition_produce_response *out = produce_v(c, 9, "t", 0, batch(c, "x", &conf), -1);
            assert_int_equal(out->error_code, 0);
            assert_int_equal(out->base_offset, i * 2);
        }
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.producer_id = 3, .sequence = 12})), KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.producer_id = 3, .epoch = 1, .sequence = 0})), 0);
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.producer_id = 3, .epoch = 0, .sequence = 10})), KAFKA_INVALID_PRODUCER_EPOCH);
    struct kafka_describe_producers_req req;
    struct kafka_describe_producers_req_topic_request topic;
    int32_t parts[] = {0, 1};
    kafka_describe_producers_req_init(&req);
    kafka_describe_producers_req_topic_request_init(&topic);
    req.topics = &topic;
    req.topics_n = 1;
    topic.name = SLICE("t");
    topic.partition_indexes = parts;
    topic.partition_indexes_n = 2;
    const struct kafka_describe_producers_resp *resp = client_ask(c, 61, 0, &req);
    assert_int_equal(resp->topics[0].partitions_n, 2);
    assert_int_equal(resp->topics[0].partitions[1].error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(resp->topics[0].partitions[0].active_producers_n, 1);
    const struct kafka_describe_producers_resp_producer_state *pr = &resp->topics[0].partitions[0].active_producers[0];
    assert_int_equal(pr->producer_id, 3);
    assert_int_equal(pr->producer_epoch, 1);
    assert_int_equal(pr->last_sequence, 0);
    assert_int_equal(pr->current_txn_start_offset, -1);
    client_free(c);
    world_stop();
}

/* ---- tests: how much, in which order -------------------------------------------------------------------------------------------------------- */

static void test_limits_of_a_fetch(void **state)
{
    start(3);
    world_topic("t", 8, NULL);
    struct client *c = client_new(0);
    struct from from[8];
    for (int32_t p = 0; p < 8; p++) {
        from[p] = (struct from){.topic = "t", .partition = 7 - p};
        for (int i = 0; i < 3; i++)
            assert_int_equal(produce_error(c, "t", p, batch(c, "x", &(struct batch_conf){.value_bytes = 1000})), 0);
    }
    /* nothing fits: the first one that has something gives one batch all the same (KIP-74) */
    const struct kafka_fetch_resp *resp = fetch(c, 11, &(struct fetch_conf){.max_bytes = 1, .part_bytes = 1}, from, 8);
    assert_int_equal(parts_in(resp), 8);
    for (int i = 0; i < 8; i++) {
        const struct kafka_fetch_resp_partition_data *p = &resp->responses[0].partitions[i];
        assert_int_equal(p->partition_index, 7 - i);
        assert_int_equal(p->high_watermark, 3);
        assert_int_equal(p->records.bytes.n > 0, i == 0);
        assert_true(p->records.bytes.n < 1200);
    }
    struct kafka_fetch_req *none = fetch_req(c, &(struct fetch_conf){.wait_ms = 1000}, from, 8);
    none->max_bytes = none->topics[0].partitions[0].partition_max_bytes = 0;
    resp = client_ask(c, KEY_FETCH, 11, none);
    assert_true(resp->responses[0].partitions[0].records.bytes.n > 0);
    /* two batches of each fit, and three partitions together */
    size_t all = fetch_one(c, "t", 0, 0)->records.bytes.n, one = all / 3;
    resp = fetch(c, 11, &(struct fetch_conf){.max_bytes = (int32_t)(6 * one + 10), .part_bytes = (int32_t)(2 * one + 5)}, from, 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(resp->responses[0].partitions[i].records.bytes.n, i < 3 ? 2 * one : 0);
    client_free(c);
    world_stop();
}

struct awaited {
    struct client *c;
    int32_t id;
};
static bool has_come(void *ctx)
{
    struct awaited *a = ctx;
    return client_try(a->c, a->id) != NULL;
}

/* Sends a fetch that finds nothing, and proves that it waits. */
static int32_t parked(struct client *c, int16_t version, const struct fetch_conf *conf, const struct from *from, int n)
{
    int32_t id = client_send(c, KEY_FETCH, version, fetch_req(c, conf, from, n));
    world_sleep(300);
    assert_null(client_try(c, id));
    return id;
}

static const struct kafka_fetch_resp *comes_within(struct client *c, int32_t id, uint64_t ms)
{
    struct awaited a = {c, id};
    world_until(has_come, &a, ms);
    return client_await(c, id);
}

static void test_long_poll(void **state)
{
    start(3);
    world_topic("t", 8, NULL);
    struct client *c = client_new(0), *producer = client_new(1);
    struct from from[8];
    for (int32_t p = 0; p < 8; p++)
        from[p] = (struct from){.topic = "t", .partition = p};
    for (int32_t p = 0; p < 8; p++) {
        int32_t id = parked(c, 11, &(struct fetch_conf){.wait_ms = 50000}, from, 8);
        put(producer, "t", p, "wake", from[p].offset);
        const struct kafka_fetch_resp *resp = comes_within(c, id, 1000);
        assert_int_equal(parts_in(resp), 8);
        for (int32_t i = 0; i < 8; i++)
            assert_string_equal(values(c, &resp->responses[0].partitions[i], from[i].offset, NULL), i == p ? "wake-0 " : "");
        from[p].offset++;
    }
    /* nothing comes: empty after max_wait_ms */
    int32_t id = parked(c, 11, &(struct fetch_conf){.wait_ms = 2000}, from, 8);
    world_sleep(1600);
    assert_null(client_try(c, id));
    assert_int_equal(parts_in(comes_within(c, id, 500)), 8);
    /* min_bytes 0, or max_wait 0: at once */
    struct kafka_fetch_req *req = fetch_req(c, &(struct fetch_conf){.wait_ms = 50000}, from, 8);
    req->min_bytes = 0;
    comes_within(c, client_send(c, KEY_FETCH, 11, req), 100);
    comes_within(c, client_send(c, KEY_FETCH, 11, fetch_req(c, &(struct fetch_conf){0}, from, 8)), 100);
    /* an error: at once */
    from[3].offset = 99;
    const struct kafka_fetch_resp *resp = comes_within(c, client_send(c, KEY_FETCH, 11, fetch_req(c, &(struct fetch_conf){.wait_ms = 50000}, from, 8)), 100);
    assert_int_equal(resp->responses[0].partitions[3].error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(resp->responses[0].partitions[3].high_watermark, -1);
    from[3].partition = 8;
    resp = comes_within(c, client_send(c, KEY_FETCH, 11, fetch_req(c, &(struct fetch_conf){.wait_ms = 50000}, from, 8)), 100);
    assert_int_equal(part_of(resp, "t", 8)->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    client_free(c);
    client_free(producer);
    world_stop();
}

static void test_min_bytes(void **state)
{
    start(3);
    world_topic("t", 8, NULL);
    struct client *c = client_new(0), *producer = client_new(1);
    struct from from[8];
    for (int32_t p = 0; p < 8; p++)
        from[p] = (struct from){.topic = "t", .partition = p};
    int32_t id = parked(c, 11, &(struct fetch_conf){.wait_ms = 100000, .min_bytes = 20000}, from, 8);
    size_t sum = 0;
    for (int i = 0; i < 19; i++) { /* all over the shards, and most in one partition */
        int32_t p = i % 2 ? 0 : i % 8;
        struct slice b = batch(producer, "x", &(struct batch_conf){.value_bytes = 940});
        assert_null(client_try(c, id));
        assert_int_equal(produce_error(producer, "t", p, b), 0);
        sum += b.n;
        world_sleep(50);
        if (sum >= 20000)
            break;
    }
    assert_true(sum < 20000);
    assert_null(client_try(c, id));
    assert_int_equal(produce_error(producer, "t", 5, batch(producer, "x", &(struct batch_conf){.value_bytes = 2000})), 0);
    const struct kafka_fetch_resp *resp = comes_within(c, id, 1000);
    size_t got = 0;
    for (int32_t p = 0; p < 8; p++)
        got += resp->responses[0].partitions[p].records.bytes.n;
    assert_true(got >= 20000);
    client_free(c);
    client_free(producer);
    world_stop();
}

/* What ends a long poll besides records. */
static void test_long_poll_ends(void **state)
{
    start(3);
    struct kafka_uuid id = world_topic("t", 8, NULL), id2 = world_topic("u", 2, NULL);
    struct client *c = client_new(0), *d = client_new(1), *gone = client_new(2);
    struct from from[10], by_id[10];
    for (int32_t p = 0; p < 10; p++) {
        from[p] = (struct from){.topic = p < 8 ? "t" : "u", .partition = p % 8};
        by_id[p] = (struct from){.topic = "", .partition = p % 8, .id = p < 8 ? id : id2};
    }
    struct fetch_conf wait = {.wait_ms = 50000};
    int32_t a = parked(c, 11, &wait, from, 10), b = parked(d, 13, &wait, by_id, 10);
    parked(gone, 11, &wait, from, 10);
    client_free(gone); /* nobody is told; world_stop() looks for what is left */
    world_topic_delete("u");
    const struct kafka_fetch_resp *resp = comes_within(c, a, 2000);
    assert_int_equal(part_of(resp, "u", 0)->error_code == KAFKA_UNKNOWN_TOPIC_OR_PARTITION || part_of(resp, "u", 1)->error_code == KAFKA_UNKNOWN_TOPIC_OR_PARTITION, 1);
    assert_int_equal(part_of(resp, "t", 0)->error_code, 0);
    resp = comes_within(d, b, 2000);
    bool unknown = false;
    for (int32_t i = 0; i < resp->responses_n; i++)
        for (int32_t k = 0; k < resp->responses[i].partitions_n; k++)
            unknown = unknown || resp->responses[i].partitions[k].error_code == KAFKA_UNKNOWN_TOPIC_ID;
    assert_true(unknown);
    /* the broker stops: what is under way is answered */
    a = parked(c, 11, &wait, from, 8);
    b = parked(d, 13, &wait, by_id, 8);
    world_down(false, false);
    assert_int_equal(parts_in(client_await(c, a)), 8);
    assert_int_equal(parts_in(client_await(d, b)), 8);
    world_up();
    client_free(c);
    client_free(d);
    world_stop();
}

/* ---- tests: sessions --------------------------------------------------------------------------------------------------------------------------- */

/* Errors of epochs and ids leave a session as it is, at its epoch 6; then it is closed by epoch -1. */
static void session_ends(struct client *c, struct fetch_conf s, struct from *from)
{
    s.epoch = 5;
    assert_int_equal(fetch(c, 11, &s, NULL, 0)->error_code, KAFKA_INVALID_FETCH_SESSION_EPOCH);
    s.epoch = 7;
    assert_int_equal(fetch(c, 11, &s, NULL, 0)->error_code, KAFKA_INVALID_FETCH_SESSION_EPOCH);
    s.epoch = 6;
    assert_int_equal(fetch(c, 13, &s, NULL, 0)->error_code, KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
    struct fetch_conf other = s;
    other.session ^= 1;
    const struct kafka_fetch_resp *resp = fetch(c, 11, &other, NULL, 0);
    assert_int_equal(resp->error_code, KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    assert_int_equal(resp->session_id, 0);
    s.wait_ms = 0;
    resp = fetch(c, 11, &s, NULL, 0);
    assert_int_equal(resp->error_code, 0);
    s.epoch = -1;
    resp = fetch(c, 11, &s, from, 8);
    assert_int_equal(parts_in(resp), 8);
    assert_int_equal(resp->session_id, 0);
    s.epoch = 7;
    assert_int_equal(fetch(c, 11, &s, NULL, 0)->error_code, KAFKA_FETCH_SESSION_ID_NOT_FOUND);
}

static void test_session(void **state)
{
    start(3);
    world_topic("t", 8, NULL);
    struct client *c = client_new(0), *producer = client_new(1);
    struct from from[8];
    for (int32_t p = 0; p < 8; p++)
        from[p] = (struct from){.topic = "t", .partition = p};
    struct fetch_conf s = {.sessions = true};
    const struct kafka_fetch_resp *resp = fetch(c, 11, &s, from, 8);
    assert_int_equal(parts_in(resp), 8);
    assert_true(resp->session_id > 0);
    s.session = resp->session_id;
    s.epoch = 1;
    resp = fetch(c, 11, &s, NULL, 0); /* nothing has changed */
    assert_int_equal(resp->error_code, 0);
    assert_int_equal(resp->session_id, s.session);
    assert_int_equal(parts_in(resp), 0);
    /* a long poll of the session: only what moved is told */
    s.epoch = 2;
    s.wait_ms = 50000;
    int32_t id = parked(c, 11, &s, NULL, 0);
    put(producer, "t", 6, "six", 0);
    resp = comes_within(c, id, 1000);
    assert_int_equal(parts_in(resp), 1);
    assert_string_equal(values(c, part_of(resp, "t", 6), 0, NULL), "six-0 ");
    /* the client hasn't moved on: the same again, at once */
    s.epoch = 3;
    resp = comes_within(c, client_send(c, KEY_FETCH, 11, fetch_req(c, &s, NULL, 0)), 100);
    assert_string_equal(values(c, part_of(resp, "t", 6), 0, NULL), "six-0 ");
    /* it has */
    s.epoch = 4;
    from[6].offset = 1;
    id = parked(c, 11, &s, &from[6], 1);
    put(producer, "t", 1, "one", 0);
    resp = comes_within(c, id, 1000);
    assert_int_equal(parts_in(resp), 1);
    assert_string_equal(values(c, part_of(resp, "t", 1), 0, NULL), "one-0 ");
    /* 1 is forgotten: what comes there is nothing to this session */
    s.epoch = 5;
    s.forget = &from[1];
    s.forget_n = 1;
    id = parked(c, 11, &s, NULL, 0);
    put(producer, "t", 1, "two", 1);
    world_sleep(200);
    assert_null(client_try(c, id));
    put(producer, "t", 2, "x", 0);
    assert_int_equal(parts_in(comes_within(c, id, 1000)), 1);
    s.forget_n = 0;
    session_ends(c, s, from);
    client_free(c);
    client_free(producer);
    world_stop();
}

/* Topics that come, go, and come again under a session by name, and by id. */
static void test_session_topics(void **state)
{
    start(3);
    struct client *c = client_new(0), *producer = client_new(1);
    struct from later = {.topic = "later", .partition = 1}, with[2] = {later, {.topic = "there"}};
    world_topic("there", 1, NULL);
    struct fetch_conf s = {.sessions = true, .wait_ms = 50000};
    const struct kafka_fetch_resp *resp = fetch(c, 11, &s, with, 2);
    assert_int_equal(part_of(resp, "later", 1)->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(part_of(resp, "there", 0)->error_code, 0);
    s.session = resp->session_id;
    assert_true(s.session > 0);
    s.epoch = 1;
    resp = fetch(c, 11, &s, NULL, 0); /* errors are told again */
    assert_int_equal(parts_in(resp), 1);
    assert_int_equal(part_of(resp, "later", 1)->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    for (int round = 0; round < 2; round++) {
        struct kafka_uuid id = world_topic("later", 2, NULL);
        put(producer, "later", 1, round ? "b" : "a", 0);
        s.epoch++;
        resp = fetch(c, 11, &s, NULL, 0);
        assert_int_equal(part_of(resp, "later", 1)->error_code, 0);
        assert_string_equal(values(c, part_of(resp, "later", 1), 0, NULL), round ? "b-0 " : "a-0 ");
        /* the same by id: the old one is unknown for ever */
        struct from by_id = {.topic = "", .partition = 1, .id = id};
        struct fetch_conf z = {.sessions = true, .wait_ms = 50000};
        resp = fetch(producer, 13, &z, &by_id, 1);
        assert_int_equal(only(resp)->error_code, 0);
        z.session = resp->session_id;
        z.epoch = 1;
        world_topic_delete("later");
        resp = fetch(producer, 13, &z, NULL, 0);
        assert_int_equal(only(resp)->error_code, KAFKA_UNKNOWN_TOPIC_ID);
        z.epoch = 2;
        assert_int_equal(only(fetch(producer, 13, &z, NULL, 0))->error_code, KAFKA_UNKNOWN_TOPIC_ID);
        z.epoch = 3;
        z.forget = &by_id;
        z.forget_n = 1;
        assert_int_equal(parts_in(fetch(producer, 13, &z, NULL, 0)), 0);
        s.epoch++;
        resp = fetch(c, 11, &s, NULL, 0);
        assert_int_equal(part_of(resp, "later", 1)->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    }
    client_free(c);
    client_free(producer);
    world_stop();
}

/* Little room in each answer: nobody starves. */
static void test_session_is_fair(void **state)
{
    start(2);
    world_topic("t", 8, NULL);
    struct client *c = client_new(0);
    struct from from[8];
    int seen[8] = {0};
    size_t one = 0;
    for (int32_t p = 0; p < 8; p++) {
        from[p] = (struct from){.topic = "t", .partition = p};
        for (int i = 0; i < 20; i++) {
            struct slice b = batch(c, "x", &(struct batch_conf){.value_bytes = 500});
            one = b.n;
            assert_int_equal(produce_error(c, "t", p, b), 0);
        }
    }
    struct fetch_conf s = {.sessions = true, .max_bytes = (int32_t)(one * 2), .part_bytes = (int32_t)(one * 2)};
    const struct kafka_fetch_resp *resp = fetch(c, 11, &s, from, 8);
    s.session = resp->session_id;
    for (int round = 0; round < 16; round++) {
        struct from moved[8];
        int n = 0;
        for (int32_t i = 0; i < resp->responses_n; i++)
            for (int32_t k = 0; k < resp->responses[i].partitions_n; k++) {
                const struct kafka_fetch_resp_partition_data *p = &resp->responses[i].partitions[k];
                if (!p->records.bytes.n)
                    continue;
                values(c, p, from[p->partition_index].offset, &from[p->partition_index].offset);
                moved[n++] = from[p->partition_index];
                seen[p->partition_index]++;
            }
        assert_true(n > 0);
        s.epoch++;
        resp = fetch(c, 11, &s, moved, n);
    }
    for (int p = 0; p < 8; p++)
        assert_true(seen[p] >= 1);
    client_free(c);
    world_stop();
}

static void test_session_slots(void **state)
{
    start(1);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    struct from from[2] = {{.topic = "t"}, {.topic = "t", .partition = 1}};
    struct fetch_conf s = {.sessions = true}, first = s;
    for (uint32_t i = 0; i < FETCH_SESSIONS_MAX; i++) {
        const struct kafka_fetch_resp *resp = fetch(c, 11, &s, from, 1);
        assert_true(resp->session_id > 0);
        if (i == 0)
            first.session = resp->session_id;
        client_forget(c);
    }
    assert_int_equal(fetch(c, 11, &s, from, 2)->session_id, 0); /* none is old enough to go */
    first.epoch = 1;
    assert_int_equal(fetch(c, 11, &first, NULL, 0)->error_code, 0);
    world_sleep(FETCH_SESSION_IDLE_MS - 1000);
    first.epoch = 2;
    assert_int_equal(fetch(c, 11, &first, NULL, 0)->error_code, 0);
    world_sleep(2000);
    assert_true(fetch(c, 11, &s, from, 1)->session_id > 0); /* the oldest went, and that is not the first one */
    first.epoch = 3;
    assert_int_equal(fetch(c, 11, &first, NULL, 0)->error_code, 0);
    assert_int_equal(counter_read(&W.broker->shards[0]->sessions->evicted), 1);
    assert_int_equal(counter_read(&W.broker->shards[0]->sessions->refused), 1);
    client_free(c);
    world_stop();
}

/* ---- tests: offsets ---------------------------------------------------------------------------------------------------------------------------------- */

static const struct kafka_list_offsets_resp_list_offsets_partition_response *list(struct client *c, int16_t version, const char *topic, int32_t partition, int64_t at,
                                                                                  int32_t epoch)
{
    struct kafka_list_offsets_req *req = arena_zalloc(client_arena(c), sizeof *req);
    kafka_list_offsets_req_init(req);
    req->replica_id = -1;
    req->topics_n = 1;
    req->topics = arena_zalloc(client_arena(c), sizeof *req->topics);
    kafka_list_offsets_req_list_offsets_topic_init(req->topics);
    req->topics->name = slice_cstr(topic);
    req->topics->partitions_n = 1;
    req->topics->partitions = arena_zalloc(client_arena(c), sizeof *req->topics->partitions);
    kafka_list_offsets_req_list_offsets_partition_init(req->topics->partitions);
    req->topics->partitions->partition_index = partition;
    req->topics->partitions->current_leader_epoch = epoch;
    req->topics->partitions->timestamp = at;
    const struct kafka_list_offsets_resp *resp = client_ask(c, KEY_LIST_OFFSETS, version, req);
    assert_int_equal(resp->topics_n, 1);
    return &resp->topics[0].partitions[0];
}

static int delete_before(struct client *c, const char *topic, int32_t partition, int64_t before, int64_t *low)
{
    struct kafka_delete_records_req req;
    struct kafka_delete_records_req_delete_records_topic t;
    struct kafka_delete_records_req_delete_records_partition p;
    kafka_delete_records_req_init(&req);
    kafka_delete_records_req_delete_records_topic_init(&t);
    kafka_delete_records_req_delete_records_partition_init(&p);
    req.topics = &t;
    req.topics_n = 1;
    t.name = slice_cstr(topic);
    t.partitions = &p;
    t.partitions_n = 1;
    p.partition_index = partition;
    p.offset = before;
    const struct kafka_delete_records_resp *resp = client_ask(c, KEY_DELETE_RECORDS, 2, &req);
    *low = resp->topics[0].partitions[0].low_watermark;
    return resp->topics[0].partitions[0].error_code;
}

static void test_list_offsets(void **state)
{
    start(3);
    world_topic("t", 8, NULL);
    struct client *c = client_new(0);
    int64_t base = now_ms() - 100000;
    for (int32_t p = 0; p < 8; p++)
        for (int i = 0; i < 10; i++) /* two records each, 1000 ms apart; the eighth batch is the newest */
            assert_int_equal(produce_error(c, "t", p, batch(c, "x", &(struct batch_conf){.records = 2, .at_ms = base + (i == 7 ? 50000 : i * 1000)})), 0);
    for (int16_t v = 1; v <= 11; v++) {
        assert_int_equal(list(c, v, "t", v % 8, -1, -1)->offset, 20);
        assert_int_equal(list(c, v, "t", v % 8, -2, -1)->offset, 0);
        assert_int_equal(list(c, v, "t", v % 8, base + 3000, -1)->offset, 6);
        assert_int_equal(list(c, v, "t", v % 8, base + 3001, -1)->offset, 7);
        assert_int_equal(list(c, v, "t", v % 8, base + 3001, -1)->timestamp, base + 3001);
        assert_int_equal(list(c, v, "t", v % 8, base + 99000, -1)->offset, -1);
        assert_int_equal(list(c, v, "t", v % 8, -3, -1)->error_code, v >= 7 ? 0 : KAFKA_UNSUPPORTED_VERSION);
        if (v >= 7)
            assert_int_equal(list(c, v, "t", v % 8, -3, -1)->offset, 15);
        assert_int_equal(list(c, v, "t", v % 8, -4, -1)->error_code, v >= 8 ? 0 : KAFKA_UNSUPPORTED_VERSION);
        if (v >= 9)
            assert_int_equal(list(c, v, "t", v % 8, -5, -1)->offset, -1);
        if (v >= 4) {
            assert_int_equal(list(c, v, "t", 0, -1, 0)->error_code, 0);
            assert_int_equal(list(c, v, "t", 0, -1, 1)->error_code, KAFKA_UNKNOWN_LEADER_EPOCH);
        }
        client_forget(c);
    }
    assert_int_equal(list(c, 5, "t", 8, -1, -1)->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(list(c, 5, "nowhere", 0, -1, -1)->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    client_free(c);
    world_stop();
}

static void test_delete_records(void **state)
{
    start(3);
    world_topic("t", 8, NULL);
    world_topic("compact", 1, (const char *const[]){"cleanup.policy=compact", NULL});
    struct client *c = client_new(0);
    int64_t low;
    for (int32_t p = 0; p < 8; p++) {
        for (int i = 0; i < 5; i++)
            put(c, "t", p, "x", i);
        assert_int_equal(delete_before(c, "t", p, 3, &low), 0);
        assert_int_equal(low, 3);
        assert_int_equal(list(c, 5, "t", p, -2, -1)->offset, 3);
        assert_int_equal(fetch_one(c, "t", p, 2)->error_code, KAFKA_OFFSET_OUT_OF_RANGE);
        assert_values(c, "t", p, 3, "x-0 x-0 ");
        assert_int_equal(delete_before(c, "t", p, 6, &low), KAFKA_OFFSET_OUT_OF_RANGE);
        assert_int_equal(low, -1);
        assert_int_equal(delete_before(c, "t", p, -1, &low), 0);
        assert_int_equal(low, 5);
        put(c, "t", p, "y", 5);
        assert_values(c, "t", p, 5, "y-0 ");
    }
    assert_int_equal(delete_before(c, "t", 8, 0, &low), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(delete_before(c, "t", 0, -2, &low), KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(delete_before(c, "compact", 0, 0, &low), KAFKA_POLICY_VIOLATION);
    power_loss("t"); /* the new start has been durable */
    struct client *d = client_new(0);
    assert_int_equal(list(d, 5, "t", 0, -2, -1)->offset, 5);
    assert_values(d, "t", 0, 5, "y-0 ");
    client_free(c);
    client_free(d);
    world_stop();
}

static const struct kafka_offset_for_leader_epoch_resp_epoch_end_offset *epoch_end(struct client *c, const char *topic, int32_t partition, int32_t current, int32_t epoch)
{
    struct kafka_offset_for_leader_epoch_req req;
    struct kafka_offset_for_leader_epoch_req_offset_for_leader_topic t;
    struct kafka_offset_for_leader_epoch_req_offset_for_leader_partition p;
    kafka_offset_for_leader_epoch_req_init(&req);
    kafka_offset_for_leader_epoch_req_offset_for_leader_topic_init(&t);
    kafka_offset_for_leader_epoch_req_offset_for_leader_partition_init(&p);
    req.topics = &t;
    req.topics_n = 1;
    t.topic = slice_cstr(topic);
    t.partitions = &p;
    t.partitions_n = 1;
    p.partition = partition;
    p.current_leader_epoch = current;
    p.leader_epoch = epoch;
    const struct kafka_offset_for_leader_epoch_resp *resp = client_ask(c, KEY_OFFSET_FOR_LEADER_EPOCH, 2, &req);
    return &resp->topics[0].partitions[0];
}

/* The leader epoch grows with an unclean end. */
static void test_epochs(void **state)
{
    start(2);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    put(c, "t", 0, "a", 0);
    put(c, "t", 0, "b", 1);
    power_loss("t");
    client_free(c);
    c = client_new(0);
    put(c, "t", 0, "c", 2);
    int32_t epoch = list(c, 5, "t", 0, -1, -1)->leader_epoch;
    assert_true(epoch > 0);
    assert_int_equal(epoch_end(c, "t", 0, epoch, 0)->end_offset, 2);
    assert_int_equal(epoch_end(c, "t", 0, epoch, 0)->leader_epoch, 0);
    assert_int_equal(epoch_end(c, "t", 0, -1, epoch)->end_offset, 3);
    assert_int_equal(epoch_end(c, "t", 0, epoch - 1, 0)->error_code, KAFKA_FENCED_LEADER_EPOCH);
    assert_int_equal(epoch_end(c, "t", 0, epoch + 1, 0)->error_code, KAFKA_UNKNOWN_LEADER_EPOCH);
    struct from from = {.topic = "t", .offset = 2};
    assert_int_equal(only(fetch(c, 12, &(struct fetch_conf){.leader_epoch = epoch}, &from, 1))->error_code, KAFKA_FENCED_LEADER_EPOCH);
    assert_int_equal(only(fetch(c, 12, &(struct fetch_conf){.leader_epoch = epoch + 2}, &from, 1))->error_code, KAFKA_UNKNOWN_LEADER_EPOCH);
    assert_int_equal(only(fetch(c, 12, &(struct fetch_conf){.leader_epoch = epoch + 1}, &from, 1))->error_code, 0);
    /* a client that believes to have offset 2 of the first epoch: they part at 2 */
    from.offset = 3;
    const struct kafka_fetch_resp_partition_data *p = only(fetch(c, 12, &(struct fetch_conf){.wait_ms = 50000, .last_epoch = 1}, &from, 1));
    assert_int_equal(p->diverging_epoch.epoch, 0);
    assert_int_equal(p->diverging_epoch.end_offset, 2);
    assert_int_equal(p->records.bytes.n, 0);
    from.offset = 2;
    p = only(fetch(c, 12, &(struct fetch_conf){.last_epoch = 1}, &from, 1));
    assert_int_equal(p->diverging_epoch.epoch, -1);
    assert_string_equal(values(c, p, 2, NULL), "c-0 ");
    /* an epoch that was never here: nothing is known of it, and who has read there begins anew */
    assert_int_equal(epoch_end(c, "t", 0, -1, epoch + 1)->leader_epoch, -1);
    assert_int_equal(epoch_end(c, "t", 0, -1, epoch + 1)->end_offset, -1);
    p = only(fetch(c, 12, &(struct fetch_conf){.wait_ms = 50000, .last_epoch = epoch + 2}, &from, 1));
    assert_int_equal(p->error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(p->diverging_epoch.epoch, -1);
    client_free(c);
    world_stop();
}

/* What ListOffsets finds has the epoch of its record; what is deleted leaves none. */
static void test_epochs_of_offsets(void **state)
{
    int64_t low;
    start(2);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    put(c, "t", 0, "a", 0);
    put(c, "t", 0, "b", 1);
    power_loss("t");
    power_loss("t");
    client_free(c);
    c = client_new(0);
    put(c, "t", 0, "c", 2);
    int32_t epoch = list(c, 7, "t", 0, -1, -1)->leader_epoch;
    assert_int_equal(epoch, 2); /* the first one wrote nothing */
    assert_int_equal(list(c, 7, "t", 0, -2, -1)->leader_epoch, 0);
    assert_int_equal(list(c, 7, "t", 0, 0, -1)->leader_epoch, 0);
    assert_int_equal(list(c, 7, "t", 0, 0, -1)->offset, 0);
    assert_int_equal(list(c, 7, "t", 0, INT64_MAX, -1)->leader_epoch, -1);
    assert_int_equal(delete_before(c, "t", 0, 1, &low), KAFKA_NONE);
    /* what diverges and is deleted, too, is deleted */
    struct from from = {.topic = "t", .offset = 0};
    const struct kafka_fetch_resp_partition_data *p = only(fetch(c, 12, &(struct fetch_conf){.wait_ms = 50000, .last_epoch = 2}, &from, 1));
    assert_int_equal(p->error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    assert_int_equal(p->diverging_epoch.epoch, -1);
    from.offset = 1;
    assert_int_equal(only(fetch(c, 12, &(struct fetch_conf){.wait_ms = 50000, .last_epoch = 2}, &from, 1))->diverging_epoch.end_offset, 2);
    assert_int_equal(delete_before(c, "t", 0, 3, &low), KAFKA_NONE);
    assert_int_equal(list(c, 7, "t", 0, -2, -1)->leader_epoch, epoch);
    assert_int_equal(epoch_end(c, "t", 0, -1, 0)->leader_epoch, 0);
    assert_int_equal(epoch_end(c, "t", 0, -1, 0)->end_offset, 3);
    client_free(c);
    world_stop();
}

/* ---- tests: faults ----------------------------------------------------------------------------------------------------------------------------------- */

static void test_slow_disk(void **state)
{
    start(2);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0), *reader = client_new(1);
    put(c, "t", 0, "first", 0);
    sim_disk_slow(3000, 3000);
    struct to to = {"t", 0, plain(c, "slow")};
    struct kafka_produce_req *req = produce_req(c, &to, 1, -1);
    req->timeout_ms = 1500;
    int32_t id = client_send(c, KEY_PRODUCE, 9, req);
    assert_int_equal(produce_v(reader, 9, "t", 1, plain(reader, "other"), 1)->error_code, 0); /* acks 1 doesn't wait */
    assert_values(reader, "t", 1, 0, "other-0 ");
    assert_values(reader, "t", 0, 1, ""); /* not durable: not visible */
    const struct kafka_produce_resp_partition_produce_response *out = produced(client_await(c, id), 0);
    assert_int_equal(out->error_code, KAFKA_REQUEST_TIMED_OUT);
    assert_values(reader, "t", 0, 1, "");
    client_free(c); /* the connection goes while its batch is in the sync */
    world_sleep(3000);
    assert_values(reader, "t", 0, 1, "slow-0 ");
    sim_disk_slow(0, 0);
    client_free(reader);
    world_stop();
}

static void test_failed_sync(void **state)
{
    start(2);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    put(c, "t", 0, "good", 0);
    put(c, "t", 1, "good", 0);
    sim_disk_fail_next(SIM_DISK_SYNC, 0, 5 /* EIO */);
    assert_int_equal(produce_error(c, "t", 0, plain(c, "lost")), KAFKA_KAFKA_STORAGE_ERROR);
    assert_values(c, "t", 0, 0, "good-0 "); /* what is sound can be read; what failed is not there */
    assert_int_equal(produce_error(c, "t", 0, plain(c, "more")), KAFKA_KAFKA_STORAGE_ERROR);
    client_free(c);
    world_stop();
}

static bool can_be_read(void *ctx)
{
    const struct bpart *p = shard_part_named(world_owner("t", 0), SLICE("t"), 0);
    (void)ctx;
    return p && p->part;
}

/* A disk that can't be read when the broker starts, and later can: what could not be loaded comes back by itself, with all that was acknowledged. */
static void test_disk_comes_back(void **state)
{
    start(2);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    put(c, "t", 0, "good", 0);
    client_free(c);
    world_down(true, false);
    world_up();
    sim_disk_fail(UINT32_MAX, 5 /* EIO */);
    world_ready();
    c = client_new(0);
    assert_int_equal(produce_error(c, "t", 0, plain(c, "lost")), KAFKA_KAFKA_STORAGE_ERROR);
    assert_int_equal(produce_error(c, "t", 1, plain(c, "lost")), KAFKA_KAFKA_STORAGE_ERROR); /* has no folder yet, and gets none */
    world_sleep(10000); /* tries that fail */
    assert_false(can_be_read(NULL));
    assert_true(shard_part_named(world_owner("t", 0), SLICE("t"), 0)->offline);
    sim_disk_fail(0, 0);
    world_until(can_be_read, NULL, 60000);
    assert_false(shard_part_named(world_owner("t", 0), SLICE("t"), 0)->offline);
    put(c, "t", 0, "more", 1); /* when that is durable, what was recovered is, and is shown */
    assert_values(c, "t", 0, 0, "good-0 more-0 ");
    client_free(c);
    world_restart();
    c = client_new(0);
    assert_values(c, "t", 0, 0, "good-0 more-0 ");
    client_free(c);
    world_stop();
}

static bool takes_records(void *ctx)
{
    struct part_offsets o;
    if (!can_be_read(ctx))
        return false;
    part_offsets(shard_part_named(world_owner("t", 0), SLICE("t"), 0)->part, &o);
    return !o.offline;
}

/* A disk that fails under a partition, and goes on failing for a while: what is sound can be read all the time, and the partition takes records again by itself. */
static void failed_disk_renewed(enum sim_disk_op op)
{
    start(2);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    put(c, "t", 0, "good", 0);
    sim_disk_fail_next(op, 0, 5 /* EIO */);
    assert_int_equal(produce_error(c, "t", 0, plain(c, "lost")), KAFKA_KAFKA_STORAGE_ERROR);
    sim_disk_fail(UINT32_MAX, 5 /* EIO */);
    world_sleep(10000); /* tries that fail */
    assert_true(can_be_read(NULL));
    assert_false(takes_records(NULL));
    sim_disk_fail(0, 0);
    assert_values(c, "t", 0, 0, "good-0 ");
    world_until(takes_records, NULL, 60000);
    put(c, "t", 0, "more", 1);
    assert_values(c, "t", 0, 0, "good-0 more-0 ");
    client_free(c);
    world_crash(true);
    world_sleep(2000); /* what was recovered is shown when it has been synced */
    c = client_new(0);
    assert_values(c, "t", 0, 0, "good-0 more-0 ");
    client_free(c);
    world_stop();
}

static void test_failed_disk_renewed(void **state)
{
    failed_disk_renewed(SIM_DISK_WRITE);
    failed_disk_renewed(SIM_DISK_SYNC);
}

static void test_full_disk(void **state)
{
    start(2);
    world_topic("t", 1, NULL);
    struct client *c = client_new(0);
    put(c, "t", 0, "good", 0);
    sim_disk_fail_next(SIM_DISK_WRITE, 0, 28 /* ENOSPC */);
    assert_int_equal(produce_error(c, "t", 0, batch(c, "x", &(struct batch_conf){.value_bytes = 100000})), KAFKA_KAFKA_STORAGE_ERROR);
    assert_values(c, "t", 0, 0, "good-0 ");
    client_free(c);
    world_stop();
}

static void test_cold_reads(void **state)
{
    start(2);
    world_topic("t", 4, (const char *const[]){"segment.bytes=1048576", NULL});
    struct client *c = client_new(0);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(produce_error(c, "t", i % 4, batch(c, "x", &(struct batch_conf){.value_bytes = 400000})), 0);
        client_forget(c);
    }
    sim_disk_cold(100);
    for (int i = 0; i < 4; i++) {
        struct from from[4];
        for (int32_t p = 0; p < 4; p++)
            from[p] = (struct from){.topic = "t", .partition = p, .offset = i};
        const struct kafka_fetch_resp *resp = fetch(c, 11, &(struct fetch_conf){.wait_ms = 1000}, from, 4);
        for (int32_t p = 0; p < 4; p++)
            assert_true(part_of(resp, "t", p)->records.bytes.n > 0);
        client_forget(c);
    }
    client_free(c);
    world_stop();
}

static void test_transaction_not_there(void **state)
{
    start(2);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    struct batch_conf conf = {.producer_id = 1000, .attributes = KAFKA_BATCH_TRANSACTIONAL};
    for (int32_t p = 0; p < 2; p++) {
        struct to to = {"t", p, batch(c, "x", &conf)};
        struct kafka_produce_req *req = produce_req(c, &to, 1, -1);
        const struct kafka_produce_resp *resp = client_ask(c, KEY_PRODUCE, 9, req);
        assert_int_equal(produced(resp, 0)->error_code, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED); /* a transaction without an id */
        req->transactional_id = SLICE("never-begun");
        resp = client_ask(c, KEY_PRODUCE, 9, req);
        assert_true(produced(resp, 0)->error_code != 0);
        assert_values(c, "t", p, 0, "");
    }
    client_free(c);
    world_stop();
}

/* ---- tests: hostile clients -------------------------------------------------------------------------------------------------------------------------- */

static uint32_t hostile_random;
static uint32_t chance(uint32_t n)
{
    hostile_random = hostile_random * 1664525u + 1013904223u;
    return (hostile_random >> 8) % n;
}
static int64_t odd_number(void)
{
    static const int64_t numbers[] = {0, 1, -1, 2, 3, -2, -3, -4, 7, 100, 1000, INT32_MAX, INT32_MIN, INT32_MAX - 1, INT64_MAX, INT64_MIN, 1 << 20, 12345678901234};
    return numbers[chance(COUNT_OF(numbers))];
}
static int32_t odd_int(void) { return (int32_t)odd_number(); }
static struct slice odd_name(struct client *c)
{
    char *text = arena_alloc(client_arena(c), 32000);
    memset(text, 'x', 32000);
    switch (chance(6)) {
    case 0: return SLICE("t");
    case 1: return SLICE("u");
    case 2: return SLICE("");
    case 3: return slice_of(text, 32000);
    case 4: return slice_of(text, TOPIC_NAME_MAX + chance(2));
    default: return SLICE("__consumer_offsets");
    }
}
static struct kafka_uuid odd_id(struct kafka_uuid there)
{
    if (chance(3) == 0)
        there.b[chance(16)] ^= (uint8_t)(1u << chance(8));
    else if (chance(4) == 0)
        memset(there.b, 0, sizeof there.b);
    return there;
}

static void odd_fetch(struct client *c, struct kafka_uuid id, int32_t *session, int32_t *epoch)
{
    int16_t version = (int16_t)(4 + chance(15));
    int n = (int)chance(4), forget = (int)chance(3);
    struct from from[4], forgotten[3];
    for (int i = 0; i < 4; i++)
        from[i] = (struct from){.topic = arena_strdup(client_arena(c), arena_slice(client_arena(c), odd_name(c)).p), .partition = odd_int(), .offset = odd_number(), .id = odd_id(id)};
    for (int i = 0; i < 3; i++)
        forgotten[i] = from[chance(4)];
    struct fetch_conf conf = {.wait_ms = chance(2) ? (int32_t)chance(50) : odd_int(), .sessions = chance(4) > 0, .forget = forgotten, .forget_n = forget};
    struct kafka_fetch_req *req = fetch_req(c, &conf, from, n);
    req->max_wait_ms = MIN(req->max_wait_ms, 1000);
    req->min_bytes = odd_int();
    req->max_bytes = odd_int();
    req->isolation_level = (int8_t)odd_int();
    req->replica_id = version < 15 ? odd_int() : -1;
    req->session_id = chance(3) ? *session : odd_int();
    req->session_epoch = chance(3) ? *epoch : odd_int();
    if (n > 0) { /* the same one again and again, with other wishes */
        struct kafka_fetch_req_fetch_topic *t = &req->topics[0];
        t->partitions_n = (int32_t)chance(20);
        t->partitions = arena_zalloc(client_arena(c), (size_t)t->partitions_n * sizeof *t->partitions + 1);
        for (int32_t i = 0; i < t->partitions_n; i++)
            t->partitions[i] = (struct kafka_fetch_req_fetch_partition){.partition = (int32_t)chance(4), .fetch_offset = chance(2) ? (int64_t)chance(20) : odd_number(),
                                                                        .partition_max_bytes = odd_int(), .current_leader_epoch = (int32_t)chance(4) - 2,
                                                                        .last_fetched_epoch = (int32_t)chance(4) - 2, .high_watermark = INT64_MAX};
    }
    const struct kafka_fetch_resp *resp = client_ask(c, KEY_FETCH, version, req);
    if (resp->session_id) {
        *epoch = *session == resp->session_id && req->session_epoch > 0 ? *epoch + 1 : 1;
        *session = resp->session_id;
    }
}

static void odd_produce(struct client *c)
{
    struct to to[3];
    int n = 1 + (int)chance(3);
    for (int i = 0; i < n; i++) {
        struct slice b = batch(c, "odd", &(struct batch_conf){.records = 1 + (int32_t)chance(5), .codec = (enum kafka_codec)chance(KAFKA_CODECS), .producer_id = (int64_t)chance(3),
                                                              .sequence = chance(3) ? (int32_t)chance(10) : odd_int(), .epoch = (int16_t)chance(3)});
        if (chance(2))
            b = damaged(c, b, chance((uint32_t)b.n), (char)(1u << chance(8)), chance(2) == 0);
        to[i] = (struct to){chance(2) ? "t" : "u", chance(4) ? (int32_t)chance(3) : odd_int(), slice_of(b.p, chance(5) ? b.n : chance((uint32_t)b.n))};
    }
    struct kafka_produce_req *req = produce_req(c, to, n, chance(4) ? -1 : (int16_t)(1 + chance(3)));
    req->timeout_ms = odd_int();
    if (chance(3) == 0)
        req->transactional_id = odd_name(c);
    client_ask(c, KEY_PRODUCE, (int16_t)(3 + chance(9)), req);
}

/* Whatever they ask, they get an answer, and others are served. */
static void test_hostile(void **state)
{
    for (uint64_t seed = 1; seed <= test_repeats(30); seed++) {
        hostile_random = (uint32_t)seed * 2654435761u;
        world_start(&(struct world_conf){.seed = seed, .shards = 1 + chance(3)});
        sim_quiet();
        struct kafka_uuid id = world_topic("t", 3, NULL);
        world_topic("u", 2, (const char *const[]){"cleanup.policy=compact", "compression.type=lz4", "message.timestamp.type=LogAppendTime", NULL});
        world_topic("good", 1, NULL);
        struct client *c = client_new(chance(W.conf.shards)), *good = client_new(0);
        int32_t session = 0, epoch = 0;
        int64_t low;
        for (int i = 0; i < 60; i++) {
            switch (chance(6)) {
            case 0:
            case 1:
            case 2: odd_fetch(c, id, &session, &epoch); break;
            case 3: odd_produce(c); break;
            case 4: list(c, (int16_t)(1 + chance(11)), chance(2) ? "t" : "u", odd_int(), odd_number(), odd_int()); break;
            case 5: delete_before(c, chance(2) ? "t" : "nowhere", odd_int(), odd_number(), &low); break;
            }
            if (i % 20 == 0) {
                put(good, "good", 0, "x", i / 20);
                client_forget(c);
            }
        }
        assert_values(good, "good", 0, 0, "x-0 x-0 x-0 ");
        client_free(c);
        client_free(good);
        world_stop();
    }
}

/* More partitions than a request may name. */
static void test_too_many_partitions(void **state)
{
    start(1);
    struct client *c = client_new(0), *d = client_new(0);
    struct from from = {.topic = "t"};
    struct kafka_fetch_req *req = fetch_req(c, &(struct fetch_conf){0}, &from, 1);
    req->topics[0].partitions_n = REQUEST_PARTS_MAX + 1;
    req->topics[0].partitions = arena_zalloc(client_arena(c), (REQUEST_PARTS_MAX + 1) * sizeof *req->topics[0].partitions);
    const struct kafka_fetch_resp *resp = client_ask(c, KEY_FETCH, 11, req);
    assert_int_equal(resp->error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(resp->responses_n, 0);
    struct to to = {.topic = "t", .batch = plain(d, "x")};
    struct kafka_produce_req *produce = produce_req(d, &to, 1, 1);
    produce->topic_data[0].partition_data_n = REQUEST_PARTS_MAX + 1;
    produce->topic_data[0].partition_data = arena_zalloc(client_arena(d), (REQUEST_PARTS_MAX + 1) * sizeof *produce->topic_data[0].partition_data);
    client_send_silent(d, KEY_PRODUCE, 9, produce);
    client_await_close(d);
    client_free(c);
    client_free(d);
    world_stop();
}

/* A partition that a request names again is refused: what one costs (a batch decompressed, a list of producers, a note synced) would be due as often. */
static void test_named_twice(void **state)
{
    start(2);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(produce_error(c, "t", i % 2, batch(c, "x", &(struct batch_conf){.producer_id = 1000 + i})), 0);
    struct kafka_list_offsets_req list;
    struct kafka_list_offsets_req_list_offsets_partition lp[3] = {{.partition_index = 0, .timestamp = -1, .current_leader_epoch = -1},
                                                                  {.partition_index = 1, .timestamp = -1, .current_leader_epoch = -1},
                                                                  {.partition_index = 0, .timestamp = -2, .current_leader_epoch = -1}};
    struct kafka_list_offsets_req_list_offsets_topic lt = {.name = SLICE("t"), .partitions = lp, .partitions_n = 3};
    kafka_list_offsets_req_init(&list);
    list.topics = &lt;
    list.topics_n = 1;
    const struct kafka_list_offsets_resp *listed = client_ask(c, KEY_LIST_OFFSETS, 5, &list);
    const struct kafka_list_offsets_resp_list_offsets_partition_response *lo = listed->topics[0].partitions;
    assert_int_equal(lo[0].offset, 2);
    assert_int_equal(lo[1].offset, 2);
    assert_int_equal(lo[2].error_code, KAFKA_INVALID_REQUEST);
    struct kafka_describe_producers_req who;
    int32_t numbers[] = {1, 0, 1};
    struct kafka_describe_producers_req_topic_request pt[2] = {{.name = SLICE("t"), .partition_indexes = numbers, .partition_indexes_n = 3},
                                                               {.name = SLICE("t"), .partition_indexes = numbers, .partition_indexes_n = 1}};
    kafka_describe_producers_req_init(&who);
    who.topics = pt;
    who.topics_n = 2;
    const struct kafka_describe_producers_resp *are = client_ask(c, 61, 0, &who);
    assert_int_equal(are->topics[0].partitions[0].active_producers_n, 2);
    assert_int_equal(are->topics[0].partitions[1].active_producers_n, 2);
    assert_int_equal(are->topics[0].partitions[2].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(are->topics[0].partitions[2].active_producers_n, 0);
    assert_int_equal(are->topics[1].partitions[0].error_code, KAFKA_INVALID_REQUEST);
    struct kafka_delete_records_req del;
    struct kafka_delete_records_req_delete_records_partition dp[2] = {{.partition_index = 0, .offset = 1}, {.partition_index = 0, .offset = 2}};
    struct kafka_delete_records_req_delete_records_topic dt = {.name = SLICE("t"), .partitions = dp, .partitions_n = 2};
    kafka_delete_records_req_init(&del);
    del.topics = &dt;
    del.topics_n = 1;
    del.timeout_ms = 1000;
    const struct kafka_delete_records_resp *deleted = client_ask(c, KEY_DELETE_RECORDS, 1, &del);
    assert_int_equal(deleted->topics[0].partitions[0].low_watermark, 1);
    assert_int_equal(deleted->topics[0].partitions[1].error_code, KAFKA_INVALID_REQUEST);
    struct from from[] = {{.topic = "t", .partition = 0, .offset = 1}, {.topic = "t", .partition = 1}, {.topic = "t", .partition = 0, .offset = 1}, {.topic = "t", .partition = 0}};
    const struct kafka_fetch_resp *got = fetch(c, 11, &(struct fetch_conf){0}, from, 4);
    assert_int_equal(got->responses_n, 1);
    assert_int_equal(got->responses[0].partitions_n, 4);
    for (int i = 0; i < 4; i++) {
        const struct kafka_fetch_resp_partition_data *p = &got->responses[0].partitions[i];
        assert_int_equal(p->partition_index, from[i].partition);
        assert_int_equal(p->error_code, i < 2 ? KAFKA_NONE : KAFKA_INVALID_REQUEST);
        assert_int_equal(p->records.bytes.n > 0, i < 2);
    }
    got = fetch(c, 11, &(struct fetch_conf){.sessions = true}, from, 4); /* a session has it once */
    assert_int_equal(parts_in(got), 2);
    assert_int_equal(part_of(got, "t", 0)->error_code, KAFKA_OFFSET_OUT_OF_RANGE); /* as it was named last */
    client_free(c);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_middle_of_a_batch),
        cmocka_unit_test(test_acks_0),
        cmocka_unit_test(test_order_of_a_pipeline),
        cmocka_unit_test(test_produce_refused),
        cmocka_unit_test(test_max_timestamp), cmocka_unit_test(test_topic_settings),
        cmocka_unit_test(test_idempotence),
        cmocka_unit_test(test_limits_of_a_fetch),
        cmocka_unit_test(test_long_poll),
        cmocka_unit_test(test_min_bytes),
        cmocka_unit_test(test_long_poll_ends),
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_session_topics),
        cmocka_unit_test(test_session_is_fair),
        cmocka_unit_test(test_session_slots),
        cmocka_unit_test(test_list_offsets),
        cmocka_unit_test(test_delete_records),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_epochs_of_offsets),
        cmocka_unit_test(test_slow_disk),
        cmocka_unit_test(test_failed_sync), cmocka_unit_test(test_disk_comes_back), cmocka_unit_test(test_failed_disk_renewed),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_cold_reads),
        cmocka_unit_test(test_transaction_not_there),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_too_many_partitions), cmocka_unit_test(test_named_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
