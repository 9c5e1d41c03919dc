/* kafka_test.c - Kafka messages: every one in every version there and back, cut off and damaged; bytes known from the protocol guide; limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kafka_peer.h"

#define ROUNDS 16 /* fillings of each message and version */

static struct arena arena;

static int setup(void **state)
{
    arena_init(&arena, MEM_MISC, 65536);
    return 0;
}

static int teardown(void **state)
{
    arena_fini(&arena);
    return 0;
}

/* ---- every message ---- */

static void each_schema(void (*f)(const struct kafka_schema *s, int16_t version, uint64_t seed))
{
    for (size_t i = 0; i < 2 * kafka_apis_n + kafka_record_schemas_n; i++) {
        const struct kafka_schema *s = i >= 2 * kafka_apis_n ? kafka_record_schemas[i - 2 * kafka_apis_n]
                                       : i % 2               ? kafka_apis[i / 2].response
                                                             : kafka_apis[i / 2].request;
        for (int16_t v = s->first; v <= s->last; v++)
            for (uint64_t seed = 0; seed < ROUNDS; seed++) {
                f(s, v, seed << 32 | i << 8 | (uint64_t)v);
                arena_reset(&arena);
            }
    }
}

/* A message filled by chance, and its bytes. */
static void *made(const struct kafka_schema *s, int16_t version, uint64_t seed, struct buf *b)
{
    struct kafka_writer w;
    void *m = arena_alloc(&arena, s->size);
    kafka_fill(s, version, &seed, &arena, m);
    kafka_writer_init(&w, b);
    kafka_schema_write(s, &w, version, m);
    assert_int_equal(w.err, OK);
    assert_int_equal(w.gaps_n, 0);
    assert_int_equal(b->p[b->n], 0);
    kafka_writer_fini(&w);
    return m;
}

/* Reads from a block of exactly that size, so that AddressSanitizer sees a read behind it; *used: bytes read. */
static enum err read_exact(const struct kafka_schema *s, int16_t version, struct slice bytes, void *out, size_t *used)
{
    struct kafka_reader r;
    kafka_reader_init(&r, bytes);
    enum err e = kafka_schema_read(s, &r, version, &arena, out);
    *used = (size_t)(r.p - bytes.p);
    return e;
}

static char *exact(struct slice bytes)
{
    char *p = mem_grow(MEM_MISC, NULL, bytes.n ? bytes.n : 1);
    if (bytes.n)
        memcpy(p, bytes.p, bytes.n);
    return p;
}

static void there_and_back(const struct kafka_schema *s, int16_t version, uint64_t seed)
{
    struct buf b = {0};
    size_t used;
    void *m = made(s, version, seed, &b), *again = arena_alloc(&arena, s->size);
    char *p = exact(buf_slice(&b));
    assert_int_equal(read_exact(s, version, slice_of(p, b.n), again, &used), OK);
    if (used != b.n || !kafka_schema_equal(s, m, again))
        fail_msg("%s version %d, seed %llu: read otherwise than written", s->name, version, (unsigned long long)seed);
    mem_free(p);
    buf_free(&b);
}

static void test_there_and_back(void **state)
{
    each_schema(there_and_back);
}

/* Bytes cut off anywhere are no message, except where only an empty rest is cut: nothing is. */
static void cut_off(const struct kafka_schema *s, int16_t version, uint64_t seed)
{
    struct buf b = {0};
    size_t used;
    if (seed >> 32 > 1)
        return;
    made(s, version, seed, &b);
    void *again = arena_alloc(&arena, s->size);
    for (size_t n = 0; n < b.n; n += b.n > 400 ? 7 : 1) {
        char *p = exact(slice_of(b.p, n));
        if (read_exact(s, version, slice_of(p, n), again, &used) != ERR_SYNTAX)
            fail_msg("%s version %d, seed %llu: %zu of %zu bytes were enough", s->name, version, (unsigned long long)seed, n, b.n);
        mem_free(p);
    }
    buf_free(&b);
}

static void test_cut_off(void **state)
{
    each_schema(cut_off);
}

/* Damaged bytes are refused, or they are another message: what was read then can be written. */
static void damaged(const struct kafka_schema *s, int16_t version, uint64_t seed)
{
    struct buf b = {0}, out = {0};
    struct kafka_writer w;
    size_t used;
    made(s, version, seed, &b);
    void *again = arena_alloc(&arena, s->size);
    kafka_writer_init(&w, &out);
    for (int i = 0; i < 8 && b.n; i++) {
        char *p = exact(buf_slice(&b));
        p[kafka_chance(&seed) % b.n] ^= (char)(1 + kafka_chance(&seed) % 255);
        enum err e = read_exact(s, version, slice_of(p, b.n), again, &used);
        assert_true(e == OK || e == ERR_SYNTAX);
        if (!e)
            kafka_schema_write(s, &w, version, again);
        mem_free(p);
    }
    kafka_writer_fini(&w);
    buf_free(&out);
    buf_free(&b);
}

static void test_damaged(void **state)
{
    each_schema(damaged);
}

static void test_other_versions(void **state)
{
    struct kafka_fetch_req m;
    struct kafka_reader r;
    kafka_reader_init(&r, SLICE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    assert_int_equal(kafka_fetch_req_read(&r, 3, &arena, &m), ERR_UNSUPPORTED);
    assert_int_equal(m.max_bytes, 0x7fffffff);
    kafka_reader_init(&r, SLICE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    assert_int_equal(kafka_fetch_req_read(&r, 19, &arena, &m), ERR_UNSUPPORTED);
}

/* ---- bytes that others write ---- */

static struct buf written; /* the last message that WRITE() made */

#define READ(name, version, bytes, out)                                                                                                              \
    do {                                                                                                                                             \
        struct kafka_reader r_;                                                                                                                      \
        kafka_reader_init(&r_, bytes);                                                                                                               \
        assert_int_equal(kafka_##name##_read(&r_, version, &arena, out), OK);                                                                        \
        assert_int_equal(kafka_reader_left(&r_), 0);                                                                                                 \
    } while (0)

#define WRITE(name, version, m)                                                                                                                      \
    do {                                                                                                                                             \
        struct kafka_writer w_;                                                                                                                      \
        buf_clear(&written);                                                                                                                         \
        kafka_writer_init(&w_, &written);                                                                                                            \
        kafka_##name##_write(&w_, version, m);                                                                                                       \
        kafka_writer_fini(&w_);                                                                                                                      \
    } while (0)

static void assert_bytes(struct slice got, struct slice want)
{
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.p, want.p, want.n);
}

#define assert_slice(s, text) assert_bytes(s, SLICE(text))

static void test_api_versions(void **state)
{
    struct kafka_api_versions_req req;
    READ(api_versions_req, 0, SLICE(""), &req);
    assert_slice(req.client_software_name, "");
    const struct slice v3 = SLICE("\x0blibrdkafka\x06"
                                  "2.3.0\0");
    READ(api_versions_req, 3, v3, &req);
    assert_slice(req.client_software_name, "librdkafka");
    assert_slice(req.client_software_version, "2.3.0");
    WRITE(api_versions_req, 3, &req);
    assert_bytes(buf_slice(&written), v3);

    struct kafka_api_versions_resp resp;
    struct kafka_api_versions_resp_api_version keys[2];
    kafka_api_versions_resp_init(&resp);
    assert_int_equal(resp.finalized_features_epoch, -1);
    for (int i = 0; i < 2; i++) {
        kafka_api_versions_resp_api_version_init(&keys[i]);
        keys[i].api_key = i ? 18 : 0;
        keys[i].max_version = i ? 4 : 11;
    }
    resp.error_code = KAFKA_UNSUPPORTED_VERSION;
    resp.api_keys = keys;
    resp.api_keys_n = 2;
    WRITE(api_versions_resp, 0, &resp);
    assert_slice(buf_slice(&written), "\0\x23\0\0\0\2\0\0\0\0\0\x0b\0\x12\0\0\0\4");
    WRITE(api_versions_resp, 3, &resp);
    assert_slice(buf_slice(&written), "\0\x23\3\0\0\0\0\0\x0b\0\0\x12\0\0\0\4\0\0\0\0\0\0");
}

static void test_metadata(void **state)
{
    struct kafka_metadata_req m;
    READ(metadata_req, 0, SLICE("\0\0\0\0"), &m);
    assert_int_equal(m.topics_n, 0);
    assert_true(m.allow_auto_topic_creation);
    READ(metadata_req, 1, SLICE("\xff\xff\xff\xff"), &m);
    assert_int_equal(m.topics_n, -1);
    READ(metadata_req, 4, SLICE("\0\0\0\1\0\3abc\0"), &m);
    assert_int_equal(m.topics_n, 1);
    assert_slice(m.topics[0].name, "abc");
    assert_false(m.allow_auto_topic_creation);
    const struct slice v12 = SLICE("\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\1\0\0");
    READ(metadata_req, 12, v12, &m);
    assert_null(m.topics[0].name.p);
    assert_int_equal(m.topics[0].topic_id.b[15], 1);
    WRITE(metadata_req, 12, &m);
    assert_bytes(buf_slice(&written), v12);
    struct kafka_reader r;
    kafka_reader_init(&r, SLICE("\xff\xff\xff\xff")); /* all topics is not null in version 0 */
    assert_int_equal(kafka_metadata_req_read(&r, 0, &arena, &m), ERR_SYNTAX);
}

static void test_produce(void **state)
{
    struct kafka_produce_req m;
    const struct slice v7 = SLICE("\xff\xff\xff\xff\0\0\x75\x30\0\0\0\1\0\1t\0\0\0\1\0\0\0\2\0\0\0\3xyz");
    READ(produce_req, 7, v7, &m);
    assert_null(m.transactional_id.p);
    assert_int_equal(m.acks, -1);
    assert_int_equal(m.timeout_ms, 30000);
    assert_int_equal(m.topic_data_n, 1);
    assert_slice(m.topic_data[0].name, "t");
    assert_int_equal(m.topic_data[0].partition_data[0].index, 2);
    assert_slice(m.topic_data[0].partition_data[0].records, "xyz");
    WRITE(produce_req, 7, &m);
    assert_bytes(buf_slice(&written), v7);
    WRITE(produce_req, 9, &m);
    assert_slice(buf_slice(&written), "\0\xff\xff\0\0\x75\x30\2\2t\2\0\0\0\2\4xyz\0\0\0");

    struct kafka_produce_resp resp;
    struct kafka_produce_resp_topic_produce_response topic;
    struct kafka_produce_resp_partition_produce_response part;
    kafka_produce_resp_init(&resp);
    kafka_produce_resp_topic_produce_response_init(&topic);
    kafka_produce_resp_partition_produce_response_init(&part);
    part.base_offset = 5;
    topic.name = SLICE("t");
    topic.partition_responses = &part;
    topic.partition_responses_n = resp.responses_n = 1;
    resp.responses = &topic;
    WRITE(produce_resp, 7, &resp);
    assert_slice(buf_slice(&written), "\0\0\0\1\0\1t\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\5\xff\xff\xff\xff\xff\xff\xff\xff"
                                      "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0");
    part.current_leader.leader_id = 1; /* tag 0, 9 bytes: two int32 and no tags of its own */
    WRITE(produce_resp, 10, &resp);
    assert_slice(buf_slice(&written), "\2\2t\2\0\0\0\0\0\0\0\0\0\0\0\0\0\5\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
                                      "\1\0\1\0\x09\0\0\0\1\xff\xff\xff\xff\0\0\0\0\0\0\0");
}

static void test_records_formats(void **state)
{
    struct kafka_consumer_protocol_subscription sub;
    READ(consumer_protocol_subscription, 0, SLICE("\0\0\0\1\0\1t\xff\xff\xff\xff"), &sub);
    assert_slice(sub.topics[0], "t");
    assert_null(sub.user_data.p);
    assert_int_equal(sub.generation_id, -1);
    struct kafka_consumer_protocol_assignment assignment;
    READ(consumer_protocol_assignment, 1, SLICE("\0\0\0\1\0\1t\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0"), &assignment);
    assert_int_equal(assignment.assigned_partitions[0].partitions_n, 2);
    assert_int_equal(assignment.assigned_partitions[0].partitions[1], 1);
    assert_non_null(assignment.user_data.p);
    assert_int_equal(assignment.user_data.n, 0);
    struct kafka_offset_commit_value value;
    kafka_offset_commit_value_init(&value);
    value.offset = 7;
    value.metadata = SLICE("m");
    value.commit_timestamp = 1;
    WRITE(offset_commit_value, 1, &value);
    assert_slice(buf_slice(&written), "\0\0\0\0\0\0\0\7\0\1m\0\0\0\0\0\0\0\1\xff\xff\xff\xff\xff\xff\xff\xff");
    WRITE(offset_commit_value, 3, &value);
    assert_slice(buf_slice(&written), "\0\0\0\0\0\0\0\7\xff\xff\xff\xff\0\1m\0\0\0\0\0\0\0\1");
    WRITE(offset_commit_value, 4, &value);
    assert_slice(buf_slice(&written), "\0\0\0\0\0\0\0\7\xff\xff\xff\xff\2m\0\0\0\0\0\0\0\1\0");
    struct kafka_transaction_log_value txn;
    kafka_transaction_log_value_init(&txn);
    txn.producer_id = 9;
    txn.transaction_partitions_n = -1;
    txn.client_transaction_version = 2;
    WRITE(transaction_log_value, 1, &txn);
    assert_slice(buf_slice(&written), "\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\2\2\0\2");
}

static void test_nullable_struct(void **state)
{
    struct kafka_consumer_group_heartbeat_resp m;
    const struct slice with = SLICE("\0\0\0\0\0\0\0\0\0\0\0\1\0\0\x13\x88\1\1\0\0");
    READ(consumer_group_heartbeat_resp, 0, with, &m);
    assert_non_null(m.assignment);
    assert_int_equal(m.assignment->topic_partitions_n, 0);
    WRITE(consumer_group_heartbeat_resp, 0, &m);
    assert_bytes(buf_slice(&written), with);
    const struct slice without = SLICE("\0\0\0\0\0\0\0\0\0\0\0\1\0\0\x13\x88\xff\0");
    READ(consumer_group_heartbeat_resp, 0, without, &m);
    assert_null(m.assignment);
    WRITE(consumer_group_heartbeat_resp, 0, &m);
    assert_bytes(buf_slice(&written), without);
}

/* ---- headers and frames ---- */

static void test_headers(void **state)
{
    struct kafka_request_header h;
    struct kafka_reader r;
    kafka_reader_init(&r, SLICE("\0\x12\0\3\0\0\0\7\0\3abc\1\5\2xyrest"));
    assert_int_equal(kafka_request_header_read(&r, &h), OK);
    assert_int_equal(h.api_key, 18);
    assert_int_equal(h.api_version, 3);
    assert_int_equal(h.correlation_id, 7);
    assert_slice(h.client_id, "abc"); /* not compact, in a header with tags */
    assert_slice(slice_of(r.p, kafka_reader_left(&r)), "rest");
    kafka_reader_init(&r, SLICE("\0\0\0\7\0\0\0\7\xff\xffrest"));
    assert_int_equal(kafka_request_header_read(&r, &h), OK);
    assert_null(h.client_id.p);
    assert_int_equal(kafka_reader_left(&r), 4);
    kafka_reader_init(&r, SLICE("\7\xff\0\7\0\0\0\7\0\0rest")); /* an API without a table */
    assert_int_equal(kafka_request_header_read(&r, &h), OK);
    assert_int_equal(kafka_reader_left(&r), 4);
    kafka_reader_init(&r, SLICE("\0\0\0\7\0\0\0\7\xff\xfe"));
    assert_int_equal(kafka_request_header_read(&r, &h), ERR_SYNTAX);
    kafka_reader_init(&r, SLICE("\0\0\0"));
    assert_int_equal(kafka_request_header_read(&r, &h), ERR_SYNTAX);
}

static void test_headers_written(void **state)
{
    struct kafka_writer w;
    struct buf b = {0};
    int32_t correlation_id;
    kafka_writer_init(&w, &b);
    kafka_request_header_write(&w, &(struct kafka_request_header){.api_key = 0, .api_version = 9, .correlation_id = 1, .client_id = SLICE("c")});
    assert_slice(buf_slice(&b), "\0\0\0\x09\0\0\0\1\0\1c\0");
    static const struct {
        int16_t key, version;
        size_t n;
    } cases[] = {{18, 0, 4}, {18, 3, 4}, {0, 8, 4}, {0, 9, 5}, {17, 1, 4}, {1000, 9, 4}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct kafka_reader r;
        buf_clear(&b);
        kafka_response_header_write(&w, cases[i].key, cases[i].version, 77);
        assert_int_equal(b.n, cases[i].n);
        kafka_reader_init(&r, buf_slice(&b));
        assert_int_equal(kafka_response_header_read(&r, cases[i].key, cases[i].version, &correlation_id), OK);
        assert_int_equal(correlation_id, 77);
        assert_int_equal(kafka_reader_left(&r), 0);
    }
    buf_free(&b);
}

/* Bytes from elsewhere count in every length, and the writer says where they belong. */
static void test_gaps(void **state)
{
    struct kafka_fetch_resp_partition_data parts[3];
    struct kafka_fetch_resp_fetchable_topic_response topic;
    struct kafka_fetch_resp resp, again;
    struct buf b = {0}, whole = {0};
    struct kafka_writer w;
    kafka_fetch_resp_init(&resp);
    kafka_fetch_resp_fetchable_topic_response_init(&topic);
    for (int i = 0; i < 3; i++)
        kafka_fetch_resp_partition_data_init(&parts[i]);
    int file;
    parts[0].records = (struct kafka_records){.outside_n = 300, .outside = &file};
    parts[1].records.bytes = SLICE("memory");
    parts[2].records = (struct kafka_records){.bytes = SLICE("both"), .outside_n = 5, .outside = parts};
    topic.topic = SLICE("t");
    topic.partitions = parts;
    topic.partitions_n = 3;
    resp.responses = &topic;
    resp.responses_n = 1;
    for (int16_t version = 4; version <= 18; version++) {
        buf_clear(&b);
        buf_clear(&whole);
        buf_adds(&b, "before");
        kafka_writer_init(&w, &b);
        struct kafka_frame frame = kafka_frame_begin(&w);
        kafka_response_header_write(&w, KAFKA_API_FETCH, version, 3);
        kafka_fetch_resp_write(&w, version, &resp);
        kafka_frame_end(&w, frame);
        assert_int_equal(w.err, OK);
        assert_int_equal(w.gaps_n, 2);
        assert_int_equal(w.gap_bytes, 305);
        assert_ptr_equal(w.gaps[0].outside, &file);
        assert_ptr_equal(w.gaps[1].outside, parts);
        size_t from = frame.at;
        for (size_t i = 0; i < w.gaps_n; i++) { /* as it goes over the wire */
            buf_add(&whole, b.p + from, w.gaps[i].at - from);
            for (uint64_t n = w.gaps[i].bytes; n; n--)
                buf_addc(&whole, 'x');
            from = w.gaps[i].at;
        }
        buf_add(&whole, b.p + from, b.n - from);
        struct kafka_reader r;
        int32_t correlation_id;
        kafka_reader_init(&r, buf_slice(&whole));
        assert_int_equal(kafka_read_int32(&r), whole.n - 4);
        assert_int_equal(kafka_response_header_read(&r, KAFKA_API_FETCH, version, &correlation_id), OK);
        assert_int_equal(kafka_fetch_resp_read(&r, version, &arena, &again), OK);
        assert_int_equal(kafka_reader_left(&r), 0);
        assert_int_equal(again.responses[0].partitions[0].records.bytes.n, 300);
        assert_slice(again.responses[0].partitions[1].records.bytes, "memory");
        assert_slice(again.responses[0].partitions[2].records.bytes, "bothxxxxx");
        kafka_writer_fini(&w);
    }
    buf_free(&b);
    buf_free(&whole);
}

/* ---- tags ---- */

static void test_tags(void **state)
{
    struct kafka_fetch_req m;
    struct kafka_reader r;
    /* version 12: cluster_id has tag 0; 77 is unknown, and 1 belongs to version 15 */
    static const char head[] = "\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1\1";
    struct buf b = {0};
    buf_add(&b, head, sizeof head - 1);
    buf_add(&b, "\3\x4d\2xy\0\3\3ab\1\1z", 13);
    kafka_reader_init(&r, buf_slice(&b));
    assert_int_equal(kafka_fetch_req_read(&r, 12, &arena, &m), OK);
    assert_slice(m.cluster_id, "ab");
    assert_int_equal(m.replica_state.replica_id, -1);
    assert_int_equal(kafka_reader_left(&r), 0);
    b.p[b.n - 6] = 4; /* the tag's size and its string's disagree */
    kafka_reader_init(&r, buf_slice(&b));
    assert_int_equal(kafka_fetch_req_read(&r, 12, &arena, &m), ERR_SYNTAX);
    b.n = sizeof head - 1;
    buf_add(&b, "\1\0\xff\xff\xff\xff\x0f", 7); /* longer than all there is */
    kafka_reader_init(&r, buf_slice(&b));
    assert_int_equal(kafka_fetch_req_read(&r, 12, &arena, &m), ERR_SYNTAX);
    b.n = sizeof head - 1;
    buf_add(&b, "\xff\xff\xff\xff\x0f", 5); /* four thousand million tags */
    kafka_reader_init(&r, buf_slice(&b));
    assert_int_equal(kafka_fetch_req_read(&r, 12, &arena, &m), ERR_SYNTAX);
    buf_free(&b);
}

/* Tagged fields whose size takes one, two and three bytes. */
static void test_large_tags(void **state)
{
    static const int32_t counts[] = {1, 5, 6, 60, 900, 1000};
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        struct kafka_produce_resp m, again;
        kafka_produce_resp_init(&m);
        m.throttle_time_ms = 5;
        m.node_endpoints_n = counts[i];
        m.node_endpoints = arena_alloc(&arena, (size_t)counts[i] * sizeof *m.node_endpoints);
        for (int32_t k = 0; k < counts[i]; k++) {
            kafka_produce_resp_node_endpoint_init(&m.node_endpoints[k]);
            m.node_endpoints[k].node_id = k;
            m.node_endpoints[k].host = SLICE("localhost.localdomain");
        }
        WRITE(produce_resp, 10, &m);
        READ(produce_resp, 10, buf_slice(&written), &again);
        assert_true(kafka_schema_equal(&kafka_produce_resp_schema, &m, &again));
    }
}

/* ---- limits ---- */

static void test_count_bombs(void **state)
{
    static const struct {
        int16_t version;
        struct slice bytes;
    } cases[] = {
        {1, {"\x7f\xff\xff\xff\0\1a", 7}},
        {1, {"\0\0\0\2\0\1a", 7}},            /* two, and only one is there */
        {1, {"\xff\xff\xff\xfe\0\1a", 7}},    /* below null */
        {12, {"\xff\xff\xff\xff\x0f\0\0", 7}},
        {12, {"\xff\xff\xff\xff\x1f\0\0", 7}}, /* 33 bits */
        {12, {"\xff\xff\xff\xff\xff\0\0", 7}}, /* six bytes */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct kafka_metadata_req m;
        struct kafka_reader r;
        kafka_reader_init(&r, cases[i].bytes);
        assert_int_equal(kafka_metadata_req_read(&r, cases[i].version, &arena, &m), ERR_SYNTAX);
        assert_true(m.topics_n <= 1);
    }
}

/* The structs of a message may not take more than the reader allows, however small they are on the wire. */
static void test_decode_limit(void **state)
{
    struct kafka_metadata_req m;
    struct kafka_reader r;
    struct buf b = {0};
    buf_add(&b, "\0\0\0\x64", 4);
    for (int i = 0; i < 100; i++)
        buf_add(&b, "\0", 2); /* "" */
    size_t need = 100 * sizeof(struct kafka_metadata_req_metadata_request_topic);
    kafka_reader_init(&r, buf_slice(&b));
    assert_int_equal(r.decode_left, KAFKA_DECODE_BYTES_MAX);
    r.decode_left = need;
    assert_int_equal(kafka_metadata_req_read(&r, 1, &arena, &m), OK);
    assert_int_equal(r.decode_left, 0);
    kafka_reader_init(&r, buf_slice(&b));
    r.decode_left = need - 1;
    assert_int_equal(kafka_metadata_req_read(&r, 1, &arena, &m), ERR_LIMIT);
    assert_int_equal(m.topics_n, 0);
    buf_free(&b);
}

static void test_string_limit(void **state)
{
    struct kafka_transaction_log_key key;
    struct kafka_writer w;
    struct kafka_reader r;
    struct buf text = {0}, b = {0};
    for (int i = 0; i <= KAFKA_STRING_MAX; i++)
        buf_addc(&text, 'a');
    kafka_transaction_log_key_init(&key);
    kafka_writer_init(&w, &b);
    key.transactional_id = slice_of(text.p, KAFKA_STRING_MAX);
    kafka_transaction_log_key_write(&w, 0, &key);
    assert_int_equal(w.err, OK);
    kafka_reader_init(&r, buf_slice(&b));
    assert_int_equal(kafka_transaction_log_key_read(&r, 0, &arena, &key), OK);
    assert_int_equal(key.transactional_id.n, KAFKA_STRING_MAX);
    key.transactional_id = buf_slice(&text);
    buf_clear(&b);
    kafka_transaction_log_key_write(&w, 0, &key);
    assert_int_equal(w.err, ERR_LIMIT);
    assert_int_equal(b.n, 2 + KAFKA_STRING_MAX); /* cut, but sound */
    kafka_writer_reset(&w);
    assert_int_equal(w.err, OK);
    buf_clear(&b); /* and none is read where the length could say so */
    kafka_write_uvarint(&w, KAFKA_STRING_MAX + 2);
    buf_add_slice(&b, buf_slice(&text));
    kafka_reader_init(&r, buf_slice(&b));
    assert_null(kafka_read_string(&r, true).p);
    assert_int_equal(r.err, ERR_SYNTAX);
    kafka_writer_fini(&w);
    buf_free(&text);
    buf_free(&b);
}

/* A null where the version has none is written as empty. */
static void test_null_where_none_is(void **state)
{
    struct kafka_metadata_req m;
    kafka_metadata_req_init(&m);
    m.topics_n = -1;
    WRITE(metadata_req, 0, &m);
    assert_slice(buf_slice(&written), "\0\0\0\0");
    struct kafka_transaction_log_key key = {.transactional_id = {NULL, 0}};
    WRITE(transaction_log_key, 0, &key);
    assert_slice(buf_slice(&written), "\0\0");
}

static void test_primitives(void **state)
{
    static const int64_t numbers[] = {0, 1, -1, 63, -64, 64, 300, -300, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    struct kafka_writer w;
    struct kafka_reader r;
    struct buf b = {0};
    kafka_writer_init(&w, &b);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        kafka_write_varlong(&w, numbers[i]);
        kafka_write_varint(&w, (int32_t)numbers[i]);
        kafka_write_uvarint(&w, (uint32_t)numbers[i]);
        kafka_write_int8(&w, (int8_t)numbers[i]);
        kafka_write_int16(&w, (int16_t)numbers[i]);
        kafka_write_int32(&w, (int32_t)numbers[i]);
        kafka_write_int64(&w, numbers[i]);
    }
    struct kafka_uuid id = {{1, 2, 3}};
    kafka_write_uuid(&w, id);
    kafka_write_bytes(&w, SLICE("b"), false);
    kafka_write_string(&w, (struct slice){NULL, 0}, true);
    kafka_reader_init(&r, buf_slice(&b));
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        assert_true(kafka_read_varlong(&r) == numbers[i]);
        assert_true(kafka_read_varint(&r) == (int32_t)numbers[i]);
        assert_true(kafka_read_uvarint(&r) == (uint32_t)numbers[i]);
        assert_true(kafka_read_int8(&r) == (int8_t)numbers[i]);
        assert_true(kafka_read_int16(&r) == (int16_t)numbers[i]);
        assert_true(kafka_read_int32(&r) == (int32_t)numbers[i]);
        assert_true(kafka_read_int64(&r) == numbers[i]);
    }
    assert_true(kafka_uuid_eq(kafka_read_uuid(&r), id));
    assert_slice(kafka_read_bytes(&r, false), "b");
    assert_null(kafka_read_string(&r, true).p);
    assert_int_equal(kafka_reader_left(&r), 0);
    assert_int_equal(r.err, OK);
    assert_int_equal(kafka_read_int8(&r), 0);
    assert_int_equal(r.err, ERR_SYNTAX);
    kafka_writer_fini(&w);
    buf_free(&b);
}

static void test_names(void **state)
{
    assert_string_equal(kafka_error_name(KAFKA_NOT_COORDINATOR), "NOT_COORDINATOR");
    assert_string_equal(kafka_error_name(-1), "UNKNOWN_SERVER_ERROR");
    assert_string_equal(kafka_error_name(9999), "UNKNOWN");
    assert_string_equal(kafka_api_find(KAFKA_API_SHARE_FETCH)->name, "ShareFetch");
    assert_null(kafka_api_find(4));
    assert_null(kafka_api_find(-1));
    assert_null(kafka_api_find(INT16_MAX));
    for (size_t i = 0; i < kafka_apis_n; i++)
        assert_ptr_equal(kafka_api_find(kafka_apis[i].key), &kafka_apis[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_cut_off), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_other_versions), cmocka_unit_test(test_api_versions), cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_produce), cmocka_unit_test(test_records_formats), cmocka_unit_test(test_nullable_struct),
        cmocka_unit_test(test_headers), cmocka_unit_test(test_headers_written), cmocka_unit_test(test_gaps), cmocka_unit_test(test_tags),
        cmocka_unit_test(test_large_tags), cmocka_unit_test(test_count_bombs), cmocka_unit_test(test_decode_limit),
        cmocka_unit_test(test_string_limit), cmocka_unit_test(test_null_where_none_is), cmocka_unit_test(test_primitives),
        cmocka_unit_test(test_names),
    };
    int failed = cmocka_run_group_tests_name("kafka", tests, setup, teardown);
    buf_free(&written);
    return failed;
}
