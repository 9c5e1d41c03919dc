/* conn_test.c - connections with data on them: bytes from files, slow readers and those that leave in the middle, TLS, SASL's states, throttling, ends; metrics. */
#include "broker_world_test.h"
#include "frame_int.h"
#include "repeat_test.h"
#include "tls_testcert.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NET_ROUGH (struct sim_conf){.split_pct = 50, .short_write_pct = 50, .latency_us_min = 10, .latency_us_max = 700, .socket_bytes = 20000}

/* ---- produce and fetch, as much as is needed here ------------------------------------------------------------------ */

static char byte_at(int64_t i) { return (char)('a' + i % 23); }

/* Appends a batch of one record with n bytes; the offset. */
static int64_t produce(struct client *c, const char *topic, int32_t partition, size_t n)
{
    struct kafka_batch_builder k;
    struct buf b = {0};
    struct kafka_produce_req req;
    struct kafka_produce_req_topic_produce_data t;
    struct kafka_produce_req_partition_produce_data p;
    char *value = mem_new(MEM_SIM, n + 1);
    for (size_t i = 0; i < n; i++)
        value[i] = byte_at((int64_t)i);
    kafka_batch_begin(&k, &b, &kafka_batch_plain);
    kafka_batch_add(&k, (int64_t)(wall_ns() / 1000000), SLICE("key"), slice_of(value, n), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    kafka_produce_req_init(&req);
    kafka_produce_req_topic_produce_data_init(&t);
    kafka_produce_req_partition_produce_data_init(&p);
    req.acks = -1;
    req.timeout_ms = 30000;
    req.topic_data = &t;
    req.topic_data_n = 1;
    t.name = slice_cstr(topic);
    t.partition_data = &p;
    t.partition_data_n = 1;
    p.index = partition;
    p.records = buf_slice(&b);
    const struct kafka_produce_resp *resp = client_ask(c, KEY_PRODUCE, 9, &req);
    assert_int_equal(resp->responses[0].partition_responses[0].error_code, 0);
    buf_free(&b);
    mem_free(value);
    return resp->responses[0].partition_responses[0].base_offset;
}

static int32_t send_fetch(struct client *c, const char *topic, int32_t partitions, int64_t offset)
{
    struct kafka_fetch_req req;
    struct kafka_fetch_req_fetch_topic t;
    struct kafka_fetch_req_fetch_partition p[16];
    kafka_fetch_req_init(&req);
    kafka_fetch_req_fetch_topic_init(&t);
    req.max_wait_ms = 100;
    req.min_bytes = 1;
    req.max_bytes = 50 << 20;
    req.session_epoch = -1;
    req.topics = &t;
    req.topics_n = 1;
    t.topic = slice_cstr(topic);
    t.partitions = p;
    t.partitions_n = partitions;
    for (int32_t i = 0; i < partitions; i++) {
        kafka_fetch_req_fetch_partition_init(&p[i]);
        p[i].partition = i;
        p[i].fetch_offset = offset;
        p[i].partition_max_bytes = 10 << 20;
    }
    return client_send(c, KEY_FETCH, 11, &req);
}

/* Every record of the answer is there, byte for byte; how many. */
static int records_of(const struct kafka_fetch_resp *resp)
{
    int n = 0;
    for (int32_t i = 0; i < resp->responses[0].partitions_n; i++) {
        struct slice left = resp->responses[0].partitions[i].records.bytes;
        struct kafka_batch b;
        assert_int_equal(resp->responses[0].partitions[i].error_code, 0);
        while (left.n) {
            assert_int_equal(kafka_batch_parse(left, &b), 0);
            assert_true(kafka_batch_crc_ok(left.p, &b));
            left.p += b.bytes;
            left.n -= b.bytes;
            n++;
        }
    }
    return n;
}

/* ---- answers from files ------------------------------------------------------------------------------------------------ */

/* Ranges of all sizes, small ones read and large ones poured, in one answer; also through TLS, where all are copied. */
static void ranges(uint64_t seed, struct tls_ctx *server, struct tls_ctx *client)
{
    world_start(&(struct world_conf){.seed = seed, .shards = 2, .net = NET_ROUGH});
    W.door.tls = server;
    world_topic("t", 8, NULL);
    struct client *c = client_new_tls(0, client);
    static const size_t sizes[] = {10, 1000, 15000, 16300, 16384, 60000, 300000, 1};
    for (int32_t i = 0; i < 8; i++)
        assert_int_equal(produce(c, "t", i, sizes[i]), 0);
    for (int32_t i = 0; i < 8; i++)
        assert_int_equal(produce(c, "t", i, sizes[7 - i]), 1);
    int32_t ids[3];
    for (int i = 0; i < 3; i++)
        ids[i] = send_fetch(c, "t", 8, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(records_of(client_await(c, ids[i])), 16);
    world_stop();
}

static void test_ranges(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= test_repeats(10); seed++)
        ranges(seed, NULL, NULL);
}

static void test_tls(void **state)
{
    (void)state;
    struct testcert *ca = testcert_new(NULL, &(struct testcert_conf){.name = "ca", .ca = true});
    struct testcert *cert = testcert_new(ca, &(struct testcert_conf){.name = "broker", .sans = "DNS:broker.test"});
    struct tls_cert_conf chain = {.chain_pem = slice_cstr(cert->chain_pem), .key_pem = slice_cstr(cert->key_pem)};
    struct tls_ctx *server, *client;
    struct buf why = {0};
    assert_int_equal(tls_server_new(&(struct tls_server_conf){.certs = &chain, .certs_n = 1, .any_time = true}, &server, &why), OK);
    assert_int_equal(tls_client_new(&(struct tls_client_conf){.trust = TLS_TRUST_ALL, .any_time = true}, &client, &why), OK);
    ranges(1, server, client);
    ranges(2, server, client);
    /* no TLS on a port that wants it, and a handshake that does not come */
    world_start(&(struct world_conf){.seed = 1, .quiet = true});
    W.door.tls = server;
    struct client *plain = client_new(0), *silent = client_new(0);
    client_bytes(plain, "\0\0\0\x0c\0\x12\0\0\0\0\0\1\0\2ab", 16);
    client_await_close(plain);
    client_await_close(silent);
    world_stop();
    tls_ctx_unref(server);
    tls_ctx_unref(client);
    testcert_free(cert);
    testcert_free(ca);
    buf_free(&why);
}

/* The reader takes nothing, or leaves, in the middle of an answer: files are let go, memory is given back (world_stop() sees leaks). */
static void test_leaves(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= test_repeats(20); seed++) {
        world_start(&(struct world_conf){.seed = seed, .shards = 2, .net = NET_ROUGH, .quiet = true});
        world_topic("t", 4, NULL);
        struct client *c = client_new(0), *other = client_new(1);
        for (int32_t i = 0; i < 4; i++)
            (void)produce(c, "t", i, 200000);
        client_reading(c, false);
        for (int i = 0; i < 5; i++)
            (void)send_fetch(c, "t", 4, 0);
        world_sleep(seed * 3);
        assert_int_equal(records_of(client_await(other, send_fetch(other, "t", 4, 0))), 4); /* nobody waits for it */
        if (seed % 4 == 0)
            world_topic_delete("t");
        if (seed % 2)
            client_free(c);
        world_sleep(20);
        assert_true(seed % 2 == 0 || W.broker->shards[0]->pool->memory == 0);
        world_stop();
    }
}

/* A stop while answers are on their way: who reads gets them whole. */
static void test_stop_sends(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= test_repeats(10); seed++) {
        world_start(&(struct world_conf){.seed = seed, .shards = 2, .net = NET_ROUGH});
        world_topic("t", 4, NULL);
        struct client *c = client_new(0);
        for (int32_t i = 0; i < 4; i++)
            (void)produce(c, "t", i, 200000);
        int32_t id = send_fetch(c, "t", 4, 0);
        world_sleep(5);
        world_down(false, false);
        world_sleep(100);
        assert_int_equal(records_of(client_await(c, id)), 4);
        world_up();
        world_stop();
    }
}

/* ---- ends --------------------------------------------------------------------------------------------------------------------- */

/* A client that has sent its last word still gets its answers. */
static void test_half_close(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 1, .shards = 2, .net = NET_ROUGH});
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    (void)produce(c, "t", 0, 100000);
    int32_t ids[4];
    for (int i = 0; i < 4; i++)
        ids[i] = send_fetch(c, "t", 2, 0);
    client_end_sending(c);
    for (int i = 0; i < 4; i++)
        assert_int_equal(records_of(client_await(c, ids[i])), 1);
    client_await_close(c);
    world_stop();
}

/* Before the user is known nothing but SASL is answered; large frames are not even read. */
static void test_sasl_gate(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 1, .sasl = true, .quiet = true});
    struct client *c = client_new(0), *large = client_new(0), *unknown = client_new(0);
    struct kafka_api_versions_req versions;
    struct kafka_metadata_req metadata;
    kafka_api_versions_req_init(&versions);
    kafka_metadata_req_init(&metadata);
    assert_int_equal(((const struct kafka_api_versions_resp *)client_ask(c, KEY_API_VERSIONS, 0, &versions))->error_code, 0);
    client_send_silent(c, KEY_METADATA, 5, &metadata);
    client_await_close(c);
    assert_int_equal(client_bytes_in(c) > 0, true);
    client_bytes(large, "\0\x10\0\0", 4);
    client_await_close(large);
    assert_int_equal(client_bytes_in(large), 0);
    client_bytes(unknown, "\0\0\0\x0a\0\4\0\0\0\0\0\1\0\0", 14);
    client_await_close(unknown);
    world_stop();
}

/* The nth allocation that may fail does: connections end, or not; nothing else happens, and nothing leaks. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= test_repeats(60); n++) {
        world_start(&(struct world_conf){.seed = n, .shards = 2, .quiet = true, .net = {.socket_bytes = 8000}});
        world_topic("t", 2, NULL);
        struct client *good = client_new(1);
        (void)produce(good, "t", 0, 50000);
        (void)produce(good, "t", 1, 50000);
        mem_fail_nth(n);
        struct client *c = client_new(0);
        if (!client_closed(c)) {
            client_any_answers(c);
            for (int i = 0; i < 3; i++)
                (void)send_fetch(c, "t", 2, 0);
            client_bytes(c, "\0\0\xff\0\0\3\0\1\0\0\0\1\0\0\xff\xff\xff\xff", 18); /* a large frame that does not end */
        }
        world_sleep(50);
        mem_fail_nth(0);
        if (!client_closed(good))
            assert_int_equal(records_of(client_await(good, send_fetch(good, "t", 2, 0))), 2);
        world_stop();
    }
}

/* ---- metrics -------------------------------------------------------------------------------------------------------------------- */

static void must_say(const struct buf *text, const char *line)
{
    if (!strstr(text->p, line))
        fail_msg("not in the metrics: %s", line);
}

static void test_metrics(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 1, .shards = 3});
    world_topic("t", 6, NULL);
    struct client *c = client_new(1);
    for (int i = 0; i < 6; i++)
        (void)produce(c, "t", i, 5000);
    (void)client_await(c, send_fetch(c, "t", 6, 0));
    world_sleep(10);
    struct buf text = {0};
    broker_metrics(W.broker, &text);
    must_say(&text, "weir_kafka_requests_total{api=\"Produce\"} 6\n");
    must_say(&text, "weir_kafka_requests_total{api=\"Fetch\"} 1\n");
    must_say(&text, "weir_kafka_request_duration_seconds_count{api=\"Produce\"} 6\n");
    must_say(&text, "weir_kafka_topic_in_batches_total{topic=\"t\"} 6\n");
    must_say(&text, "weir_kafka_topic_in_records_total{topic=\"t\"} 6\n");
    must_say(&text, "weir_kafka_partitions{state=\"ready\"} 6\n");
    must_say(&text, "weir_kafka_partitions{state=\"loading\"} 0\n");
    must_say(&text, "weir_kafka_connections 1\n");
    must_say(&text, "weir_kafka_log_appended_batches_total 6\n");
    must_say(&text, "weir_kafka_memory_bytes 0\n");
    /* a family is told once */
    for (const char *at = text.p; (at = strstr(at, "# TYPE ")); at++) {
        struct slice rest, name = slice_cut(slice_cstr(at + 7), ' ', &rest);
        struct buf line = {0};
        buf_printf(&line, "# TYPE " SLICE_FMT " ", SLICE_ARG(name));
        assert_null(strstr(at + 1, line.p));
        buf_free(&line);
    }
    buf_free(&text);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),     cmocka_unit_test(test_tls),       cmocka_unit_test(test_leaves),  cmocka_unit_test(test_stop_sends),
        cmocka_unit_test(test_half_close), cmocka_unit_test(test_sasl_gate), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
