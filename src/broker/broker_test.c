/* broker_test.c - the frame on the simulator: connections, order of answers, limits, malformed bytes, topics and their settings, stopping, crashes. */
#include "broker_world_test.h"
#include "frame_int.h"
#include "kafka_peer.h"
#include "repeat_test.h"
#include "security_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>

#include <cmocka.h>

static void start(uint32_t shards) { world_start(&(struct world_conf){.seed = 1, .shards = shards, .quiet = true}); }

static const struct kafka_metadata_resp *ask_metadata(struct client *c, const char *name)
{
    struct kafka_metadata_req req;
    struct kafka_metadata_req_metadata_request_topic t;
    kafka_metadata_req_init(&req);
    kafka_metadata_req_metadata_request_topic_init(&t);
    t.name = slice_cstr(name);
    req.topics = &t;
    req.topics_n = name ? 1 : -1;
    req.allow_auto_topic_creation = false;
    return client_ask(c, KEY_METADATA, 12, &req);
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

static void test_api_versions(void **state)
{
    (void)state;
    start(1);
    struct client *c = client_new(0);
    struct kafka_api_versions_req req;
    kafka_api_versions_req_init(&req);
    req.client_software_name = SLICE("weir-test");
    req.client_software_version = SLICE("1.0");
    for (int16_t v = 0; v <= 4; v++) {
        const struct kafka_api_versions_resp *resp = client_ask(c, KEY_API_VERSIONS, v, &req);
        assert_int_equal(resp->error_code, 0);
        int32_t produce = -1;
        for (int32_t i = 0; i < resp->api_keys_n; i++)
            if (resp->api_keys[i].api_key == 0)
                produce = resp->api_keys[i].min_version;
        assert_int_equal(produce, 0); /* told, for librdkafka, though 3 is the first that is served */
        for (int32_t i = 1; i < resp->api_keys_n; i++)
            assert_true(resp->api_keys[i].api_key > resp->api_keys[i - 1].api_key);
    }
    req.client_software_name = SLICE("-no-name");
    assert_int_equal(((const struct kafka_api_versions_resp *)client_ask(c, KEY_API_VERSIONS, 3, &req))->error_code, KAFKA_INVALID_REQUEST);
    /* a version nobody knows: version 0, the range of this one API */
    const struct kafka_api_versions_resp *old = client_ask(c, KEY_API_VERSIONS, 100, &req);
    assert_int_equal(old->error_code, KAFKA_UNSUPPORTED_VERSION);
    assert_int_equal(old->api_keys_n, 1);
    assert_int_equal(old->api_keys[0].api_key, KEY_API_VERSIONS);
    assert_int_equal(old->api_keys[0].max_version, 4);
    world_stop();
}

/* Bytes that are no request end their connection, and no other. */
static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        size_t n;
    } bad[] = {
        {"\xff\xff\xff\xff", 4},                                       /* a negative size */
        {"\0\0\0\3abc", 7},                                            /* too short to be a request */
        {"\x7f\xff\xff\xff", 4},                                       /* larger than any */
        {"GET / HTTP/1.1\r\n\r\n", 18},                                /* another protocol */
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11},          /* TLS on a plain port */
        {"\0\0\0\x0a\0\x04\0\0\0\0\0\1\0\0", 14},                      /* an API that is not served */
        {"\0\0\0\x0a\0\0\0\2\0\0\0\1\0\0", 14},                        /* Produce 2 */
        {"\0\0\0\x0a\0\3\0\x63\0\0\0\1\0\0", 14},                      /* Metadata 99 */
        {"\0\0\0\x0a\0\3\0\1\0\0\0\1\x7f\xff", 14},                    /* a client id that is longer than the frame */
        {"\0\0\0\x0e\0\3\0\1\0\0\0\1\0\0\x7f\xff\xff\xff", 18},        /* two thousand million topics */
    };
    start(1);
    struct client *good = client_new(0);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct client *c = client_new(0);
        client_bytes(c, bad[i].p, bad[i].n);
        client_await_close(c);
        client_free(c);
    }
    assert_int_equal(ask_metadata(good, NULL)->topics_n, 0);
    const struct broker_counters *n = W.broker->shards[0]->counters;
    assert_int_equal(n->unserved, 3);
    assert_int_equal(n->malformed + n->too_large, 7);
    uint64_t unspoken = n->unspoken;
    for (int i = 0; i < 15; i++) { /* a second has ten lines */
        struct client *c = client_new(0);
        client_bytes(c, "\0\0\0\1a", 5);
        client_await_close(c);
    }
    assert_int_equal(n->unspoken - unspoken, 15);
    world_stop();
}

/* What came before malformed bytes is still answered. */
static void test_malformed_behind(void **state)
{
    (void)state;
    start(1);
    struct client *c = client_new(0);
    struct kafka_metadata_req req;
    kafka_metadata_req_init(&req);
    int32_t id = client_send(c, KEY_METADATA, 5, &req);
    client_bytes(c, "\0\0\0\x0a\0\x04\0\0\0\0\0\1\0\0", 14);
    client_await(c, id);
    client_await_close(c);
    world_stop();
}

static void many_seeds(void (*one)(uint64_t seed), uint64_t usual)
{
    uint64_t n = test_repeats(usual);
    for (uint64_t seed = 1; seed <= n; seed++)
        one(seed);
}

/* Requests sent without waiting, cut in any way, are answered in their order, whatever their kind. */
static void pipeline_seed(uint64_t seed)
{
    int32_t ids[100];
    world_start(&(struct world_conf){.seed = seed, .shards = 3, .net = {.split_pct = 60, .short_write_pct = 40, .latency_us_min = 10, .latency_us_max = 900}});
    world_topic("there", 5, NULL);
    struct client *c = client_new((uint32_t)seed % 3);
    struct kafka_metadata_req metadata;
    struct kafka_describe_cluster_req cluster;
    struct kafka_create_topics_req create;
    struct kafka_create_topics_req_creatable_topic topic;
    kafka_metadata_req_init(&metadata);
    metadata.topics_n = -1;
    kafka_describe_cluster_req_init(&cluster);
    kafka_create_topics_req_init(&create);
    kafka_create_topics_req_creatable_topic_init(&topic);
    create.topics = &topic;
    create.topics_n = 1;
    topic.num_partitions = 3;
    topic.replication_factor = -1;
    for (int32_t i = 0; i < 100; i++) {
        char name[] = {'t', (char)('0' + i / 10), (char)('0' + i % 10), 0};
        topic.name = SLICE("");
        topic.name = slice_cstr(name);
        if (i % 10 == 7)
            ids[i] = client_send(c, KEY_CREATE_TOPICS, 5, &create);
        else if (i % 3 == 0)
            ids[i] = client_send(c, KEY_DESCRIBE_CLUSTER, 0, &cluster);
        else
            ids[i] = client_send(c, KEY_METADATA, 7, &metadata);
    }
    int32_t seen = 1;
    for (int32_t i = 0; i < 100; i++) {
        const void *resp = client_await(c, ids[i]);
        if (i % 10 == 7) {
            assert_int_equal(((const struct kafka_create_topics_resp *)resp)->topics[0].error_code, 0);
            seen++;
        } else if (i % 3 != 0) {
            assert_int_equal(((const struct kafka_metadata_resp *)resp)->topics_n, seen); /* served as if one by one */
        }
    }
    world_stop();
}
static void test_pipeline(void **state)
{
    (void)state;
    many_seeds(pipeline_seed, 20);
}

static void small_limits(struct broker_conf *c)
{
    c->connections_max = 3;
    c->request_bytes_max = 4000;
    c->memory_bytes = 10000;
    c->idle_ms = 1000;
}

static void test_limits(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 3, .tune = small_limits, .quiet = true});
    struct client *c[4];
    for (int i = 0; i < 4; i++)
        c[i] = client_new(0);
    client_await_close(c[3]);
    assert_int_equal(W.broker->shards[0]->counters->refused, 1);
    client_bytes(c[0], "\0\0\x0f\xa1", 4);
    client_await_close(c[0]);
    assert_int_equal(W.broker->shards[0]->counters->too_large, 1);
    client_await_close(c[1]); /* idle */
    client_await_close(c[2]);
    assert_int_equal(W.broker->shards[0]->counters->closed_idle, 2);
    world_stop();
}

static void short_memory(struct broker_conf *c)
{
    c->memory_bytes = 20000;
    c->request_bytes_max = 1 << 20;
}

/* A request that does not come to its end holds its memory, so others stand in line, and it is closed in the end. */
static void test_memory(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 4, .tune = short_memory, .quiet = true});
    struct client *slow = client_new(0), *other = client_new(0);
    struct kafka_metadata_req req;
    kafka_metadata_req_init(&req);
    client_bytes(slow, "\0\0\x4e\x00\0\3\0\1", 8); /* 19968 bytes */
    world_sleep(10);
    int32_t id = client_send(other, KEY_METADATA, 5, &req);
    world_sleep(1000);
    assert_null(client_try(other, id));
    assert_true(W.broker->shards[0]->counters->starved > 0);
    client_await(other, id);
    assert_true(client_closed(slow));
    assert_int_equal(W.broker->shards[0]->counters->closed_slow, 1);
    /* larger than all memory: served alone */
    struct client *large = client_new(0);
    req.topics_n = 5000;
    req.topics = arena_zalloc(client_arena(large), sizeof req.topics[0] * 5000);
    for (int i = 0; i < 5000; i++)
        req.topics[i].name = slice_cstr(arena_printf(client_arena(large), "topic-%d", i));
    req.allow_auto_topic_creation = false;
    id = client_send(large, KEY_METADATA, 5, &req);
    assert_int_equal(((const struct kafka_metadata_resp *)client_await(large, id))->topics_n, 5000);
    world_sleep(10);
    assert_int_equal(W.broker->shards[0]->pool->memory, 0);
    world_stop();
}

/* Requests that name too much at once. */
static void test_too_many(void **state)
{
    (void)state;
    start(1);
    struct client *c = client_new(0), *d = client_new(0);
    struct kafka_delete_topics_req req;
    kafka_delete_topics_req_init(&req);
    req.topic_names_n = ADMIN_ITEMS_MAX;
    req.topic_names = arena_zalloc(client_arena(c), sizeof req.topic_names[0] * (ADMIN_ITEMS_MAX + 1));
    for (int32_t i = 0; i <= ADMIN_ITEMS_MAX; i++)
        req.topic_names[i] = slice_cstr(arena_printf(client_arena(c), "topic-%d", i));
    const struct kafka_delete_topics_resp *resp = client_ask(c, KEY_DELETE_TOPICS, 4, &req);
    assert_int_equal(resp->responses_n, ADMIN_ITEMS_MAX);
    assert_int_equal(resp->responses[7].error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    req.topic_names_n++;
    client_send(d, KEY_DELETE_TOPICS, 4, &req);
    client_await_close(d);
    assert_int_equal(W.broker->shards[0]->counters->too_large, 1);
    world_sleep(10);
    assert_int_equal(W.broker->shards[0]->pool->memory, 0);
    world_stop();
}

/* A reader that takes nothing: its requests wait, others are served, and it gets everything in the end. */
static void test_slow_reader(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 5, .shards = 2, .net = {.socket_bytes = 4096}});
    world_topic("wide", 500, NULL);
    struct client *slow = client_new(0), *other = client_new(0);
    struct kafka_metadata_req req;
    int32_t ids[200];
    kafka_metadata_req_init(&req);
    req.topics_n = -1;
    client_reading(slow, false);
    for (int i = 0; i < 200; i++)
        ids[i] = client_send(slow, KEY_METADATA, 7, &req);
    world_sleep(200);
    assert_int_equal(ask_metadata(other, "wide")->topics[0].partitions_n, 500);
    struct bconn *c = CONTAINER_OF(W.broker->shards[0]->conns.next, struct bconn, link);
    assert_true(c->reqs_n <= CONN_REQS_MAX);
    assert_true(c->stream.out_bytes <= 256 * 1024);
    assert_true(c->paused);
    client_reading(slow, true);
    for (int i = 0; i < 200; i++)
        assert_int_equal(((const struct kafka_metadata_resp *)client_await(slow, ids[i]))->topics[0].partitions_n, 500);
    world_stop();
}

/* ---- topics -------------------------------------------------------------------------------------------------------- */

static int16_t create(struct client *c, const char *name, int32_t partitions, int16_t replicas, const char *setting, const char *value, bool validate_only)
{
    struct kafka_create_topics_req req;
    struct kafka_create_topics_req_creatable_topic t;
    struct kafka_create_topics_req_creatable_topic_config conf = {slice_cstr(setting), slice_cstr(value)};
    kafka_create_topics_req_init(&req);
    kafka_create_topics_req_creatable_topic_init(&t);
    req.topics = &t;
    req.topics_n = 1;
    req.validate_only = validate_only;
    t.name = slice_cstr(name);
    t.num_partitions = partitions;
    t.replication_factor = replicas;
    t.configs = &conf;
    t.configs_n = setting != NULL;
    const struct kafka_create_topics_resp *resp = client_ask(c, KEY_CREATE_TOPICS, 7, &req);
    if (resp->topics[0].error_code == 0) {
        assert_int_equal(resp->topics[0].num_partitions, partitions == -1 ? 1 : partitions);
        assert_int_equal(resp->topics[0].configs_n, TOPIC_SETTINGS);
    } else {
        assert_non_null(resp->topics[0].error_message.p);
    }
    return resp->topics[0].error_code;
}

static int16_t delete(struct client *c, const char *name)
{
    struct kafka_delete_topics_req req;
    struct kafka_delete_topics_req_delete_topic_state t;
    kafka_delete_topics_req_init(&req);
    kafka_delete_topics_req_delete_topic_state_init(&t);
    req.topics = &t;
    req.topics_n = 1;
    t.name = slice_cstr(name);
    return ((const struct kafka_delete_topics_resp *)client_ask(c, KEY_DELETE_TOPICS, 6, &req))->responses[0].error_code;
}

static int16_t grow(struct client *c, const char *name, int32_t n)
{
    struct kafka_create_partitions_req req;
    struct kafka_create_partitions_req_create_partitions_topic t;
    kafka_create_partitions_req_init(&req);
    kafka_create_partitions_req_create_partitions_topic_init(&t);
    req.topics = &t;
    req.topics_n = 1;
    t.name = slice_cstr(name);
    t.count = n;
    t.assignments_n = -1;
    return ((const struct kafka_create_partitions_resp *)client_ask(c, KEY_CREATE_PARTITIONS, 3, &req))->results[0].error_code;
}

/* Every partition has a leader on every connection at once, and after a restart and a crash. */
static void check_topic(const char *name, int32_t partitions)
{
    for (uint32_t s = 0; s < W.conf.shards; s++) {
        struct client *c = client_new(s);
        const struct kafka_metadata_resp *resp = ask_metadata(c, name);
        assert_int_equal(resp->topics_n, 1);
        assert_int_equal(resp->topics[0].error_code, partitions ? 0 : KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        assert_int_equal(resp->topics[0].partitions_n, partitions);
        for (int32_t i = 0; i < partitions; i++) {
            assert_int_equal(resp->topics[0].partitions[i].error_code, 0);
            assert_int_equal(resp->topics[0].partitions[i].leader_id, 1);
        }
        client_free(c);
    }
}

static void test_topics(void **state)
{
    (void)state;
    start(3);
    struct client *c = client_new(1);
    assert_int_equal(create(c, "orders", 7, 1, NULL, NULL, true), 0);
    check_topic("orders", 0); /* validated only */
    assert_int_equal(create(c, "orders", 7, 1, "retention.ms", "1000", false), 0);
    check_topic("orders", 7);
    assert_int_equal(create(c, "orders", 7, 1, NULL, NULL, false), KAFKA_TOPIC_ALREADY_EXISTS);
    assert_int_equal(create(c, "or/ders", 7, 1, NULL, NULL, false), KAFKA_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create(c, "..", 7, 1, NULL, NULL, false), KAFKA_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create(c, "a.b", -1, -1, NULL, NULL, false), 0);
    assert_int_equal(create(c, "a_b", 1, 1, NULL, NULL, false), KAFKA_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create(c, "x", 0, 1, NULL, NULL, false), KAFKA_INVALID_PARTITIONS);
    assert_int_equal(create(c, "x", TOPIC_PARTITIONS_MAX + 1, 1, NULL, NULL, false), KAFKA_INVALID_PARTITIONS);
    assert_int_equal(create(c, "x", 1, 2, NULL, NULL, false), KAFKA_INVALID_REPLICATION_FACTOR);
    assert_int_equal(create(c, "x", 1, 0, NULL, NULL, false), KAFKA_INVALID_REPLICATION_FACTOR);
    assert_int_equal(create(c, "x", 1, 1, "segment.bytes", "1048575", false), KAFKA_INVALID_CONFIG);
    assert_int_equal(create(c, "x", 1, 1, "no.such", "1", false), KAFKA_INVALID_CONFIG);
    assert_int_equal(grow(c, "orders", 7), KAFKA_INVALID_PARTITIONS);
    assert_int_equal(grow(c, "orders", 3), KAFKA_INVALID_PARTITIONS);
    assert_int_equal(grow(c, "none", 3), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(grow(c, "orders", 12), 0);
    check_topic("orders", 12);
    assert_int_equal(create(c, "__consumer_offsets", 2, 1, NULL, NULL, false), 0);
    assert_true(catalog_topic(W.broker->catalog, OFFSETS_TOPIC)->settings.part.cleanup_compact);
    assert_false(catalog_topic(W.broker->catalog, OFFSETS_TOPIC)->settings.part.cleanup_delete);
    assert_int_equal(grow(c, "__consumer_offsets", 3), KAFKA_INVALID_REQUEST);
    struct kafka_uuid id = ask_metadata(c, "orders")->topics[0].topic_id;
    world_restart();
    check_topic("orders", 12);
    world_crash(true);
    check_topic("orders", 12);
    c = client_new(0);
    assert_true(kafka_uuid_eq(ask_metadata(c, "orders")->topics[0].topic_id, id));
    assert_int_equal(delete(c, "none"), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(delete(c, "orders"), 0);
    check_topic("orders", 0);
    assert_int_equal(create(c, "orders", 2, 1, NULL, NULL, false), 0);
    check_topic("orders", 2);
    assert_false(kafka_uuid_eq(ask_metadata(c, "orders")->topics[0].topic_id, id));
    world_crash(false);
    check_topic("orders", 2);
    world_stop();
}

static void test_auto_create(void **state)
{
    (void)state;
    start(2);
    struct client *c = client_new(0);
    struct kafka_metadata_req req;
    struct kafka_metadata_req_metadata_request_topic t[4];
    kafka_metadata_req_init(&req);
    for (int i = 0; i < 4; i++)
        kafka_metadata_req_metadata_request_topic_init(&t[i]);
    t[0].name = SLICE("new");
    t[1].name = SLICE("bad name");
    t[2].name = SLICE("new");
    t[3].name = SLICE("a.b");
    req.topics = t;
    req.topics_n = 4;
    const struct kafka_metadata_resp *resp = client_ask(c, KEY_METADATA, 4, &req);
    assert_int_equal(resp->topics_n, 3);
    assert_int_equal(resp->topics[0].error_code, 0);
    assert_int_equal(resp->topics[0].partitions[0].leader_id, 1);
    assert_int_equal(resp->topics[1].error_code, KAFKA_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(resp->topics[2].error_code, 0);
    t[0].name = SLICE("a_b"); /* would be the same metric */
    req.topics_n = 1;
    assert_int_equal(((const struct kafka_metadata_resp *)client_ask(c, KEY_METADATA, 4, &req))->topics[0].error_code, KAFKA_INVALID_TOPIC_EXCEPTION);
    t[0].name = SLICE("other");
    req.allow_auto_topic_creation = false;
    assert_int_equal(((const struct kafka_metadata_resp *)client_ask(c, KEY_METADATA, 4, &req))->topics[0].error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    /* no topics, and all topics, in the old way and the new one */
    req.topics_n = 0;
    assert_int_equal(((const struct kafka_metadata_resp *)client_ask(c, KEY_METADATA, 4, &req))->topics_n, 0);
    assert_int_equal(((const struct kafka_metadata_resp *)client_ask(c, KEY_METADATA, 0, &req))->topics_n, 2);
    req.topics_n = -1;
    assert_int_equal(((const struct kafka_metadata_resp *)client_ask(c, KEY_METADATA, 1, &req))->topics_n, 2);
    assert_int_equal(resp->brokers_n, 1);
    assert_true(slice_is(resp->brokers[0].host, "broker.test"));
    world_stop();
}

/* The file can't be written: nothing changes, and it works again afterwards. */
static void test_disk_full(void **state)
{
    (void)state;
    start(2);
    struct client *c = client_new(0);
    assert_int_equal(create(c, "one", 1, 1, NULL, NULL, false), 0);
    sim_disk_fail(UINT32_MAX, ENOSPC);
    assert_int_equal(create(c, "two", 1, 1, NULL, NULL, false), KAFKA_KAFKA_STORAGE_ERROR);
    assert_int_equal(delete(c, "one"), KAFKA_KAFKA_STORAGE_ERROR);
    check_topic("one", 1);
    check_topic("two", 0);
    sim_disk_fail(0, 0);
    assert_int_equal(create(c, "two", 1, 1, NULL, NULL, false), 0);
    world_crash(true);
    check_topic("one", 1);
    check_topic("two", 1);
    world_stop();
}

/* A crash at any moment while topics come and go: what was told is so afterwards. */
static void crash_seed(uint64_t seed)
{
    world_start(&(struct world_conf){.seed = seed, .shards = 2, .quiet = true, .net = {.latency_us_min = 10, .latency_us_max = 500}});
    uint64_t chance = seed;
    bool there[6] = {false};
    for (int round = 0; round < 4; round++) {
        struct client *c = client_new(0);
        sim_crash_after((uint32_t)(1 + kafka_chance(&chance) % 40), kafka_chance(&chance) % 2);
        int unsure = -1;
        while (!sim_is_down() && !client_closed(c)) {
            int i = (int)(kafka_chance(&chance) % 6);
            char name[] = {'t', (char)('0' + i), 0};
            int16_t e = there[i] ? delete(c, name) : create(c, name, 1 + i, 1, NULL, NULL, false);
            if (e == 0)
                there[i] = !there[i];
            else
                unsure = i; /* the crash was in the middle of it */
            client_forget(c);
        }
        world_down(true, false);
        world_up();
        for (int i = 0; i < 6; i++) {
            char name[] = {'t', (char)('0' + i), 0};
            const struct topic *t = catalog_topic(W.broker->catalog, slice_cstr(name));
            if (i == unsure)
                there[i] = t != NULL;
            assert_int_equal(t ? t->partitions : 0, there[i] ? 1 + i : 0);
        }
    }
    world_stop();
}
static void test_crashes(void **state)
{
    (void)state;
    many_seeds(crash_seed, 30);
}

/* ---- the life of topics, by chance --------------------------------------------------------------------------------- */

/* All shards agree, every partition is with its owner alone, and on disk is nothing of topics that are gone. */
static void check_world(void)
{
    uint32_t parts = 0, owned = 0;
    const struct catalog *cat = W.broker->catalog;
    for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s));) {
        const struct topic *t = s->value;
        parts += (uint32_t)t->partitions;
        assert_ptr_equal(catalog_topic_by_id(cat, &t->id), t);
        for (int32_t i = 0; i < t->partitions; i++) {
            const struct bpart *p = shard_part(shard_of_part(W.broker, &t->id, i), &t->id, i);
            assert_non_null(p);
            assert_non_null(p->part);
            assert_ptr_equal(p->topic, t);
            assert_int_equal(bpart_error(p), 0);
            assert_true(topic_epoch(t, i) >= 0);
        }
    }
    for (uint32_t i = 0; i < W.conf.shards; i++) {
        assert_ptr_equal(W.broker->shards[i]->catalog, cat);
        owned += (uint32_t)W.broker->shards[i]->parts.n;
    }
    assert_int_equal(owned, parts);
}

static void count_strays(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    uint32_t *strays = ctx;
    (void)bytes;
    if (!folder)
        return;
    for (struct table_slot *s = NULL; (s = table_next(&W.broker->catalog->by_name, s));) {
        char id[UUID_TEXT + 1];
        uuid_text(((const struct topic *)s->value)->id, id);
        if (strstr(name, id))
            return;
    }
    ++*strays;
}

/* A record to each partition of a topic, so that it is on disk; what comes of it does not matter here. */
static void write_some(struct client *c, const char *name)
{
    struct buf b = {0};
    struct kafka_batch_builder k;
    struct kafka_produce_req req;
    struct kafka_produce_req_topic_produce_data t;
    struct kafka_produce_req_partition_produce_data p;
    kafka_batch_begin(&k, &b, &kafka_batch_plain);
    kafka_batch_add(&k, (int64_t)(wall_ns() / 1000000), SLICE("k"), SLICE("v"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    kafka_produce_req_init(&req);
    kafka_produce_req_topic_produce_data_init(&t);
    kafka_produce_req_partition_produce_data_init(&p);
    req.acks = 1;
    req.timeout_ms = 1000;
    req.topic_data = &t;
    req.topic_data_n = 1;
    t.name = slice_cstr(name);
    t.partition_data = &p;
    t.partition_data_n = 1;
    p.records = buf_slice(&b);
    client_send(c, KEY_PRODUCE, 9, &req);
    buf_free(&b);
}

static void life_step(struct client *c, uint64_t *chance)
{
    char name[] = {'t', (char)('0' + kafka_chance(chance) % 8), 0};
    struct kafka_create_topics_req create_req;
    struct kafka_create_topics_req_creatable_topic ct;
    struct kafka_delete_topics_req delete_req;
    struct kafka_delete_topics_req_delete_topic_state dt;
    struct kafka_create_partitions_req grow_req;
    struct kafka_create_partitions_req_create_partitions_topic gt;
    kafka_create_topics_req_init(&create_req);
    kafka_create_topics_req_creatable_topic_init(&ct);
    kafka_delete_topics_req_init(&delete_req);
    kafka_delete_topics_req_delete_topic_state_init(&dt);
    kafka_create_partitions_req_init(&grow_req);
    kafka_create_partitions_req_create_partitions_topic_init(&gt);
    create_req.topics = &ct;
    delete_req.topics = &dt;
    grow_req.topics = &gt;
    create_req.topics_n = delete_req.topics_n = grow_req.topics_n = 1;
    ct.name = dt.name = gt.name = slice_cstr(name);
    ct.num_partitions = (int32_t)(1 + kafka_chance(chance) % 9);
    ct.replication_factor = 1;
    gt.count = (int32_t)(1 + kafka_chance(chance) % 14);
    gt.assignments_n = -1;
    switch (kafka_chance(chance) % 6) {
    case 0:
    case 1:
        client_send(c, KEY_CREATE_TOPICS, 6, &create_req);
        break;
    case 2:
        client_send(c, KEY_DELETE_TOPICS, 6, &delete_req);
        break;
    case 3:
        client_send(c, KEY_CREATE_PARTITIONS, 2, &grow_req);
        break;
    default:
        write_some(c, name);
        break;
    }
}

static void life_seed(uint64_t seed)
{
    uint64_t chance = seed;
    uint32_t strays = 0;
    world_start(&(struct world_conf){.seed = seed, .shards = 1 + (uint32_t)(seed % 4), .quiet = true, .net = {.latency_us_min = 10, .latency_us_max = 900, .split_pct = 20}});
    for (int round = 0; round < 4; round++) {
        struct client *c[3];
        for (int i = 0; i < 3; i++)
            c[i] = client_new((uint32_t)i % W.conf.shards);
        for (int i = 0; i < 60; i++) {
            life_step(c[kafka_chance(&chance) % 3], &chance);
            if (kafka_chance(&chance) % 3 == 0)
                world_sleep(kafka_chance(&chance) % 4);
        }
        if (round % 2 == 0) {
            world_sleep(200);
            check_world();
            world_restart();
        } else {
            world_sleep(kafka_chance(&chance) % 20);
            world_crash(kafka_chance(&chance) % 2);
            assert_int_equal(disk_list(WORLD_DIR, count_strays, &strays), OK);
            assert_int_equal(strays, 0);
        }
        check_world();
    }
    world_stop();
}
static void test_life(void **state)
{
    (void)state;
    many_seeds(life_seed, 40);
}

/* A mailbox that is full: calls wait at the sender, in their order. */
struct numbered {
    struct call call;
    int number;
};
static int numbers_seen;
static void on_numbered(struct shard *here, struct call *c)
{
    assert_ptr_equal(here, W.broker->shards[1]);
    assert_int_equal(CONTAINER_OF(c, struct numbered, call)->number, numbers_seen);
    numbers_seen++;
}
static bool all_numbers(void *ctx)
{
    (void)ctx;
    return numbers_seen == 100;
}
static void test_full_mailbox(void **state)
{
    (void)state;
    static struct numbered calls[100];
    start(2);
    world_sleep(10);
    numbers_seen = 0;
    while (mailbox_post(shard_inbox(W.broker->shards[1]), &(struct msg){.p = NULL})) {}
    for (int i = 0; i < 50; i++) {
        calls[i] = (struct numbered){.call.fn = on_numbered, .number = i};
        shard_call(W.broker->shards[0], W.broker->shards[1], &calls[i].call);
    }
    loop_turn(W.loops[0], 0); /* finds it full */
    assert_true(mailbox_full(shard_inbox(W.broker->shards[1])) > 1);
    for (int i = 50; i < 100; i++) {
        calls[i] = (struct numbered){.call.fn = on_numbered, .number = i};
        shard_call(W.broker->shards[0], W.broker->shards[1], &calls[i].call);
    }
    assert_int_equal(numbers_seen, 0);
    world_until(all_numbers, NULL, 1000);
    world_stop();
}

/* ---- settings --------------------------------------------------------------------------------------------------------- */

static const struct kafka_describe_configs_resp_describe_configs_result *describe(struct client *c, int8_t kind, const char *name)
{
    struct kafka_describe_configs_req req;
    struct kafka_describe_configs_req_describe_configs_resource res;
    kafka_describe_configs_req_init(&req);
    kafka_describe_configs_req_describe_configs_resource_init(&res);
    res.resource_type = kind;
    res.resource_name = slice_cstr(name);
    res.configuration_keys_n = -1;
    req.resources = &res;
    req.resources_n = 1;
    req.include_synonyms = req.include_documentation = true;
    return &((const struct kafka_describe_configs_resp *)client_ask(c, KEY_DESCRIBE_CONFIGS, 4, &req))->results[0];
}

static struct slice setting(struct client *c, const char *topic, const char *name, int8_t *source)
{
    const struct kafka_describe_configs_resp_describe_configs_result *res = describe(c, 2, topic);
    for (int32_t i = 0; i < res->configs_n; i++)
        if (slice_is(res->configs[i].name, name)) {
            *source = res->configs[i].config_source;
            return res->configs[i].value;
        }
    return (struct slice){0};
}

static struct slice alter_said; /* the last error's text */
static int16_t alter_of(struct client *c, int8_t kind, const char *topic, const char *name, int8_t op, const char *value)
{
    struct kafka_incremental_alter_configs_req req;
    struct kafka_incremental_alter_configs_req_alter_configs_resource res;
    struct kafka_incremental_alter_configs_req_alterable_config conf = {slice_cstr(name), op, slice_cstr(value)};
    kafka_incremental_alter_configs_req_init(&req);
    kafka_incremental_alter_configs_req_alter_configs_resource_init(&res);
    res.resource_type = kind;
    res.resource_name = slice_cstr(topic);
    res.configs = &conf;
    res.configs_n = 1;
    req.resources = &res;
    req.resources_n = 1;
    const struct kafka_incremental_alter_configs_resp *resp = client_ask(c, KEY_INCREMENTAL_ALTER_CONFIGS, 1, &req);
    if (resp->responses[0].error_code == 0)
        assert_null(resp->responses[0].error_message.p);
    alter_said = resp->responses[0].error_message;
    return resp->responses[0].error_code;
}

static int16_t alter(struct client *c, const char *topic, const char *name, int8_t op, const char *value) { return alter_of(c, 2, topic, name, op, value); }

static void test_configs(void **state)
{
    (void)state;
    start(2);
    world_topic("t", 2, (const char *const[]){"retention.ms=5000", NULL});
    struct client *c = client_new(0);
    int8_t source;
    assert_int_equal(describe(c, 2, "t")->configs_n, TOPIC_SETTINGS);
    assert_int_equal(describe(c, 2, "none")->error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_true(describe(c, 4, "1")->configs_n > 20);
    assert_int_equal(describe(c, 4, "2")->error_code, KAFKA_INVALID_REQUEST);
    assert_true(slice_is(setting(c, "t", "retention.ms", &source), "5000"));
    assert_int_equal(source, 1);
    assert_int_equal(alter(c, "t", "cleanup.policy", 2, "compact"), 0); /* append */
    assert_true(slice_is(setting(c, "t", "cleanup.policy", &source), "delete,compact"));
    assert_int_equal(alter(c, "t", "cleanup.policy", 3, "delete"), 0); /* subtract */
    assert_true(slice_is(setting(c, "t", "cleanup.policy", &source), "compact"));
    assert_int_equal(alter(c, "t", "retention.ms", 2, "1"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter(c, "t", "retention.ms", 0, "-2"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter(c, "t", "retention.ms", 0, "12 "), 0);
    assert_int_equal(alter(c, "t", "retention.ms", 9, "12"), KAFKA_INVALID_REQUEST);
    assert_int_equal(alter(c, "t", "retention.ms", 0, NULL), KAFKA_INVALID_REQUEST);
    assert_int_equal(alter(c, "none", "retention.ms", 0, "1"), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(catalog_topic(W.broker->catalog, SLICE("t"))->settings.part.retention_ms, 12);
    assert_int_equal(alter(c, "t", "retention.ms", 1, NULL), 0); /* delete */
    assert_true(slice_is(setting(c, "t", "retention.ms", &source), "604800000"));
    assert_int_equal(source, 5);
    assert_int_equal(alter(c, "t", "max.compaction.lag.ms", 0, "10"), 0);
    assert_int_equal(alter(c, "t", "min.compaction.lag.ms", 0, "11"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter(c, "t", "cleanup.policy", 1, NULL), 0);
    assert_int_equal(alter(c, "t", "min.compaction.lag.ms", 0, "11"), KAFKA_INVALID_CONFIG); /* whether or not it is compacted */
    assert_int_equal(create(c, "x", 1, 1, "max.compaction.lag.ms", "10", false), 0);
    assert_int_equal(alter(c, "x", "min.compaction.lag.ms", 0, "11"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter(c, "t", "cleanup.policy", 0, "compact"), 0);
    world_crash(true);
    c = client_new(1);
    assert_true(slice_is(setting(c, "t", "cleanup.policy", &source), "compact"));
    assert_true(slice_is(setting(c, "t", "max.compaction.lag.ms", &source), "10"));
    world_stop();
}

/* Changes of resources of other types than topics and the broker are refused by name. */
static void test_unserved_configs(void **state)
{
    (void)state;
    static const struct {
        int8_t kind;
        const char *name;
    } all[] = {{8, "BROKER_LOGGER"}, {32, "GROUP"}, {16, "CLIENT_METRICS"}, {7, "type 7"}};
    start(1);
    struct client *c = client_new(0);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        const struct kafka_describe_configs_resp_describe_configs_result *told = describe(c, all[i].kind, "1");
        assert_int_equal(told->error_code, all[i].kind == 16 || all[i].kind == 32 ? KAFKA_NONE : KAFKA_INVALID_REQUEST); /* of what nobody has set there is nothing, as in Kafka */
        assert_int_equal(told->configs_n, 0);
        if (told->error_code)
            assert_non_null(memmem(told->error_message.p, told->error_message.n, all[i].name, strlen(all[i].name)));
        assert_int_equal(alter_of(c, all[i].kind, "1", "consumer.session.timeout.ms", 0, "50000"), KAFKA_INVALID_REQUEST);
        assert_non_null(memmem(alter_said.p, alter_said.n, all[i].name, strlen(all[i].name)));
    }
    world_stop();
}

static void check_default(struct client *c, int8_t kind, const char *resource, const char *name, const char *value, int8_t source)
{
    const struct kafka_describe_configs_resp_describe_configs_result *res = describe(c, kind, resource);
    for (int32_t i = 0; i < res->configs_n; i++)
        if (slice_is(res->configs[i].name, name)) {
            assert_true(value && slice_is(res->configs[i].value, value));
            assert_int_equal(res->configs[i].config_source, source);
            assert_false(res->configs[i].read_only);
            assert_true(res->configs[i].synonyms_n && slice_is(res->configs[i].synonyms[0].value, value) && res->configs[i].synonyms[0].source == source); /* the one that counts comes first */
            return;
        }
    assert_null(value);
}

/* Defaults of topics (KIP-226): of all brokers, of this one, which comes first, and of the topic, which comes before both; durable; what is no such default is refused by name. */
static void test_defaults(void **state)
{
    (void)state;
    start(2);
    world_topic("t", 2, (const char *const[]){"retention.ms=5000", NULL});
    world_topic("u", 2, NULL);
    struct client *c = client_new(0);
    check_default(c, 4, "1", "log.retention.ms", "604800000", 5);
    check_default(c, 4, "", "log.retention.ms", NULL, 0);
    assert_int_equal(alter_of(c, 4, "", "log.retention.ms", 0, "60000"), 0);
    assert_int_equal(alter_of(c, 4, "", "message.max.bytes", 0, "70000"), 0);
    assert_int_equal(alter_of(c, 4, "", "log.cleanup.policy", 2, "compact"), 0); /* append */
    assert_int_equal(alter_of(c, 4, "1", "message.max.bytes", 0, "80000"), 0);
    check_default(c, 4, "", "message.max.bytes", "70000", 3);
    check_default(c, 4, "1", "message.max.bytes", "80000", 2);
    check_default(c, 4, "1", "log.retention.ms", "60000", 3);
    check_default(c, 2, "t", "retention.ms", "5000", 1);
    check_default(c, 2, "u", "retention.ms", "60000", 3);
    check_default(c, 2, "u", "max.message.bytes", "80000", 2);
    check_default(c, 2, "u", "cleanup.policy", "delete,compact", 3);
    assert_int_equal(alter_of(c, 4, "", "num.io.threads", 0, "16"), KAFKA_INVALID_REQUEST);
    assert_true(slice_is(alter_said, "Cannot update these configs dynamically: num.io.threads"));
    assert_int_equal(alter_of(c, 4, "1", "num.partitions", 0, "16"), KAFKA_INVALID_REQUEST);
    assert_int_equal(alter_of(c, 4, "2", "log.retention.ms", 0, "1"), KAFKA_INVALID_REQUEST);
    assert_int_equal(alter_of(c, 4, "", "retention.ms", 0, "1"), KAFKA_INVALID_REQUEST);
    assert_int_equal(alter_of(c, 4, "", "log.retention.ms", 0, "soon"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter_of(c, 4, "", "log.retention.ms", 2, "1"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter(c, "u", "min.compaction.lag.ms", 0, "5000"), 0);
    assert_int_equal(alter_of(c, 4, "", "log.cleaner.max.compaction.lag.ms", 0, "4000"), KAFKA_INVALID_REQUEST); /* u's own does not go with it */
    assert_non_null(memmem(alter_said.p, alter_said.n, "Topic u:", 8));
    const struct topic *u = catalog_topic(W.broker->catalog, SLICE("u")), *offsets = catalog_topic(W.broker->catalog, OFFSETS_TOPIC);
    assert_true(u->settings.part.retention_ms == 60000 && u->settings.part.max_message_bytes == 80000 && u->settings.part.cleanup_compact);
    assert_true(!offsets || offsets->settings.part.max_message_bytes == 1048588);
    client_free(c);
    world_crash(true);
    world_topic("v", 1, NULL);
    c = client_new(1);
    check_default(c, 4, "1", "message.max.bytes", "80000", 2);
    check_default(c, 2, "t", "retention.ms", "5000", 1);
    check_default(c, 2, "v", "retention.ms", "60000", 3);
    assert_int_equal(catalog_topic(W.broker->catalog, SLICE("v"))->settings.part.retention_ms, 60000);
    assert_int_equal(grow(c, "u", 4), 0);
    assert_int_equal(catalog_topic(W.broker->catalog, SLICE("u"))->settings.part.retention_ms, 60000);
    assert_int_equal(alter_of(c, 4, "", "log.retention.ms", 1, NULL), 0); /* delete */
    assert_int_equal(alter_of(c, 4, "1", "message.max.bytes", 1, NULL), 0);
    check_default(c, 2, "u", "retention.ms", "604800000", 5);
    check_default(c, 2, "u", "max.message.bytes", "70000", 3);
    assert_int_equal(catalog_topic(W.broker->catalog, SLICE("v"))->settings.part.retention_ms, 604800000);
    world_stop();
}

/* A topic that has grown is what it was: its partitions, old and new, go on with its settings. */
static void test_grown_configs(void **state)
{
    (void)state;
    start(2);
    world_topic("t", 1, (const char *const[]){"retention.ms=-1", "cleanup.policy=compact", "message.timestamp.type=LogAppendTime", NULL});
    struct client *c = client_new(0);
    assert_int_equal(grow(c, "t", 3), 0);
    const struct topic_settings *s = &catalog_topic(W.broker->catalog, SLICE("t"))->settings;
    assert_true(s->part.retention_ms == -1 && s->part.cleanup_compact && !s->part.cleanup_delete && s->log_append_time);
    world_stop();
}

/* Every setting's bounds, and that each default is a value that it takes. */
static void test_setting_bounds(void **state)
{
    (void)state;
    char *why;
    for (int i = 0; i < TOPIC_SETTINGS; i++) {
        const struct setting_info *f = &topic_setting_infos[i];
        assert_true(setting_check((enum topic_setting)i, slice_cstr(f->preset), &why));
        if (f->type == SETTING_INT || f->type == SETTING_LONG) {
            assert_false(setting_check((enum topic_setting)i, SLICE("x"), &why));
            assert_non_null(strstr(why, f->name));
            mem_free(why);
            assert_false(setting_check((enum topic_setting)i, SLICE("99999999999999999999999"), &why));
            mem_free(why);
            assert_false(setting_check((enum topic_setting)i, SLICE(""), &why));
            mem_free(why);
        }
    }
}

/* ---- other answers ---------------------------------------------------------------------------------------------------------- */

static void test_describe_topic_partitions(void **state)
{
    (void)state;
    start(2);
    world_topic("b", 5, NULL);
    world_topic("a", 3, NULL);
    world_topic("c", 2, NULL);
    struct client *c = client_new(0);
    struct kafka_describe_topic_partitions_req req;
    struct kafka_describe_topic_partitions_req_cursor cursor;
    kafka_describe_topic_partitions_req_init(&req);
    req.response_partition_limit = 4;
    const struct kafka_describe_topic_partitions_resp *resp = client_ask(c, 75, 0, &req);
    assert_int_equal(resp->topics_n, 2);
    assert_true(slice_is(resp->topics[0].name, "a"));
    assert_int_equal(resp->topics[1].partitions_n, 1);
    assert_true(slice_is(resp->next_cursor->topic_name, "b"));
    assert_int_equal(resp->next_cursor->partition_index, 1);
    cursor = (struct kafka_describe_topic_partitions_req_cursor){resp->next_cursor->topic_name, resp->next_cursor->partition_index};
    req.cursor = &cursor;
    resp = client_ask(c, 75, 0, &req);
    assert_int_equal(resp->topics_n, 1);
    assert_int_equal(resp->topics[0].partitions_n, 4);
    assert_int_equal(resp->topics[0].partitions[0].partition_index, 1);
    assert_true(slice_is(resp->next_cursor->topic_name, "c"));
    cursor = (struct kafka_describe_topic_partitions_req_cursor){resp->next_cursor->topic_name, resp->next_cursor->partition_index};
    resp = client_ask(c, 75, 0, &req);
    assert_int_equal(resp->topics_n, 1);
    assert_null(resp->next_cursor);
    world_stop();
}

static void test_log_dirs(void **state)
{
    (void)state;
    start(3);
    world_topic("t", 7, NULL);
    struct client *c = client_new(2);
    struct kafka_describe_log_dirs_req req;
    kafka_describe_log_dirs_req_init(&req);
    req.topics_n = -1;
    const struct kafka_describe_log_dirs_resp *resp = client_ask(c, 35, 4, &req);
    assert_int_equal(resp->results_n, 1);
    assert_int_equal(resp->results[0].topics_n, 1);
    assert_int_equal(resp->results[0].topics[0].partitions_n, 7);
    assert_true(resp->results[0].total_bytes > 0);
    world_stop();
}

/* Each version of what the frame serves says the same. */
static void test_versions(void **state)
{
    (void)state;
    start(2);
    struct client *c = client_new(0);
    struct kafka_create_topics_req make;
    struct kafka_create_topics_req_creatable_topic ct;
    struct kafka_delete_topics_req del;
    struct kafka_delete_topics_req_delete_topic_state dt;
    struct kafka_metadata_req meta;
    struct kafka_metadata_req_metadata_request_topic mt;
    struct kafka_describe_configs_req conf;
    struct kafka_describe_configs_req_describe_configs_resource res;
    struct slice name = SLICE("v"), keys[] = {SLICE("retention.ms"), SLICE("no.such")};
    kafka_create_topics_req_init(&make);
    kafka_create_topics_req_creatable_topic_init(&ct);
    kafka_delete_topics_req_init(&del);
    kafka_delete_topics_req_delete_topic_state_init(&dt);
    kafka_metadata_req_init(&meta);
    kafka_metadata_req_metadata_request_topic_init(&mt);
    kafka_describe_configs_req_init(&conf);
    kafka_describe_configs_req_describe_configs_resource_init(&res);
    ct.name = dt.name = mt.name = res.resource_name = name;
    ct.num_partitions = 3;
    ct.replication_factor = 1;
    make.topics = &ct;
    del.topics = &dt;
    del.topic_names = &name;
    meta.topics = &mt;
    conf.resources = &res;
    make.topics_n = del.topics_n = del.topic_names_n = meta.topics_n = conf.resources_n = 1;
    res.resource_type = 2;
    res.configuration_keys = keys;
    res.configuration_keys_n = 2;
    for (int16_t v = 0; v <= 13; v++) {
        assert_int_equal(((const struct kafka_create_topics_resp *)client_ask(c, KEY_CREATE_TOPICS, MAX(MIN(v, 7), 2), &make))->topics[0].error_code, 0);
        const struct kafka_metadata_resp *m = client_ask(c, KEY_METADATA, v, &meta);
        assert_int_equal(m->brokers[0].port, WORLD_PORT);
        assert_int_equal(m->topics_n, 1);
        assert_true(slice_eq(m->topics[0].name, name));
        assert_int_equal(m->topics[0].partitions_n, 3);
        assert_int_equal(m->topics[0].partitions[2].leader_id, 1);
        assert_int_equal(m->topics[0].partitions[2].replica_nodes[0], 1);
        assert_int_equal(m->topics[0].partitions[2].leader_epoch, v >= 7 ? topic_epoch(catalog_topic(W.broker->catalog, name), 2) : -1);
        assert_int_equal(m->topics[0].topic_authorized_operations, INT32_MIN); /* not asked for */
        const struct kafka_describe_configs_resp *d = client_ask(c, KEY_DESCRIBE_CONFIGS, MAX(MIN(v, 4), 1), &conf);
        assert_int_equal(d->results[0].configs_n, 1);
        assert_true(slice_is(d->results[0].configs[0].value, "604800000"));
        const struct kafka_delete_topics_resp *gone = client_ask(c, KEY_DELETE_TOPICS, MAX(MIN(v, 6), 1), &del);
        assert_int_equal(gone->responses[0].error_code, 0);
        client_forget(c);
    }
    world_stop();
}

static void authorizes(struct broker_conf *c)
{
    c->authorize = true;
    c->allow_when_no_acl = false;
}

/* A caller who may do nothing changes nothing, and learns of nothing that is there. */
static void test_denied(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 1, .tune = authorizes, .quiet = true});
    struct kafka_uuid id = world_topic("secret", 2, NULL);
    struct client *c = client_new(0);
    assert_int_equal(ask_metadata(c, NULL)->topics_n, 0);
    assert_int_equal(ask_metadata(c, "secret")->topics[0].error_code, KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(ask_metadata(c, "none")->topics[0].error_code, KAFKA_TOPIC_AUTHORIZATION_FAILED);
    struct kafka_metadata_req by_id;
    struct kafka_metadata_req_metadata_request_topic t;
    kafka_metadata_req_init(&by_id);
    kafka_metadata_req_metadata_request_topic_init(&t);
    by_id.topics = &t;
    by_id.topics_n = 1;
    t.topic_id = id;
    const struct kafka_metadata_resp *meta = client_ask(c, KEY_METADATA, 12, &by_id);
    assert_int_equal(meta->topics[0].error_code, KAFKA_UNKNOWN_TOPIC_ID);
    assert_null(meta->topics[0].name.p);
    assert_int_equal(create(c, "new", 1, 1, NULL, NULL, false), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(delete(c, "secret"), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(delete(c, "none"), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(grow(c, "secret", 5), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(alter(c, "secret", "retention.ms", 0, "1"), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(describe(c, 2, "secret")->error_code, KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(describe(c, 2, "none")->error_code, KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(describe(c, 4, "1")->error_code, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    struct kafka_describe_log_dirs_req dirs;
    kafka_describe_log_dirs_req_init(&dirs);
    dirs.topics_n = -1;
    assert_int_equal(((const struct kafka_describe_log_dirs_resp *)client_ask(c, 35, 4, &dirs))->error_code, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    struct kafka_elect_leaders_req elect;
    kafka_elect_leaders_req_init(&elect);
    assert_int_equal(((const struct kafka_elect_leaders_resp *)client_ask(c, 43, 2, &elect))->error_code, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    struct kafka_list_config_resources_req resources;
    kafka_list_config_resources_req_init(&resources);
    assert_int_equal(((const struct kafka_list_config_resources_resp *)client_ask(c, 74, 1, &resources))->error_code, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    struct kafka_describe_topic_partitions_req parts;
    kafka_describe_topic_partitions_req_init(&parts);
    assert_int_equal(((const struct kafka_describe_topic_partitions_resp *)client_ask(c, 75, 0, &parts))->topics_n, 0);
    check_world();
    assert_int_equal(catalog_topic(W.broker->catalog, SLICE("secret"))->partitions, 2);
    assert_null(catalog_topic(W.broker->catalog, SLICE("new")));
    world_stop();
}

/* One node's answers to what is asked of clusters. */
static void test_one_node(void **state)
{
    (void)state;
    start(2);
    world_topic("t", 2, NULL);
    struct client *c = client_new(0);
    int32_t parts[] = {0, 7}, here = 1, there = 2;
    struct kafka_elect_leaders_req elect;
    struct kafka_elect_leaders_req_topic_partitions tp = {SLICE("t"), parts, 2};
    kafka_elect_leaders_req_init(&elect);
    elect.topic_partitions = &tp;
    elect.topic_partitions_n = 1;
    const struct kafka_elect_leaders_resp *elected = client_ask(c, 43, 2, &elect);
    assert_int_equal(elected->replica_election_results[0].partition_result[0].error_code, KAFKA_ELECTION_NOT_NEEDED);
    assert_int_equal(elected->replica_election_results[0].partition_result[1].error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    struct kafka_alter_partition_reassignments_req move;
    struct kafka_alter_partition_reassignments_req_reassignable_partition p[4];
    struct kafka_alter_partition_reassignments_req_reassignable_topic mt = {SLICE("t"), p, 4};
    kafka_alter_partition_reassignments_req_init(&move);
    move.topics = &mt;
    move.topics_n = 1;
    p[0] = (struct kafka_alter_partition_reassignments_req_reassignable_partition){0, &here, 1};
    p[1] = (struct kafka_alter_partition_reassignments_req_reassignable_partition){0, &there, 1};
    p[2] = (struct kafka_alter_partition_reassignments_req_reassignable_partition){1, NULL, -1};
    p[3] = (struct kafka_alter_partition_reassignments_req_reassignable_partition){9, &here, 1};
    const struct kafka_alter_partition_reassignments_resp *moved = client_ask(c, 45, 0, &move);
    static const int16_t expected[] = {0, KAFKA_INVALID_REPLICA_ASSIGNMENT, KAFKA_NO_REASSIGNMENT_IN_PROGRESS, KAFKA_UNKNOWN_TOPIC_OR_PARTITION};
    for (int i = 0; i < 4; i++)
        assert_int_equal(moved->responses[0].partitions[i].error_code, expected[i]);
    struct kafka_describe_cluster_req cluster;
    kafka_describe_cluster_req_init(&cluster);
    const struct kafka_describe_cluster_resp *one = client_ask(c, KEY_DESCRIBE_CLUSTER, 1, &cluster);
    assert_int_equal(one->brokers_n, 1);
    assert_int_equal(one->brokers[0].port, WORLD_PORT);
    assert_int_equal(one->cluster_id.n, UUID_TEXT);
    cluster.endpoint_type = 2;
    assert_int_equal(((const struct kafka_describe_cluster_resp *)client_ask(c, KEY_DESCRIBE_CLUSTER, 1, &cluster))->error_code, KAFKA_MISMATCHED_ENDPOINT_TYPE);
    struct kafka_list_config_resources_req resources;
    kafka_list_config_resources_req_init(&resources);
    assert_int_equal(((const struct kafka_list_config_resources_resp *)client_ask(c, 74, 1, &resources))->config_resources_n, 2);
    assert_int_equal(((const struct kafka_list_config_resources_resp *)client_ask(c, 74, 0, &resources))->config_resources_n, 0);
    world_stop();
}

/* Names, ids and settings that stand twice in a request. */
static void test_doubles(void **state)
{
    (void)state;
    start(1);
    struct client *c = client_new(0);
    struct kafka_create_topics_req req;
    struct kafka_create_topics_req_creatable_topic t[3];
    kafka_create_topics_req_init(&req);
    for (int i = 0; i < 3; i++) {
        kafka_create_topics_req_creatable_topic_init(&t[i]);
        t[i].name = i == 1 ? SLICE("other") : SLICE("twice");
        t[i].num_partitions = t[i].replication_factor = 1;
    }
    req.topics = t;
    req.topics_n = 3;
    const struct kafka_create_topics_resp *resp = client_ask(c, KEY_CREATE_TOPICS, 5, &req);
    assert_int_equal(resp->topics[0].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(resp->topics[1].error_code, 0);
    assert_int_equal(resp->topics[2].error_code, KAFKA_INVALID_REQUEST);
    /* replicas one by one */
    int32_t here = 1;
    struct kafka_create_topics_req_creatable_replica_assignment a[2] = {{0, &here, 1}, {1, &here, 1}};
    t[0].name = SLICE("assigned");
    t[0].assignments = a;
    t[0].assignments_n = 2;
    req.topics_n = 1;
    assert_int_equal(((const struct kafka_create_topics_resp *)client_ask(c, KEY_CREATE_TOPICS, 5, &req))->topics[0].error_code, KAFKA_INVALID_REQUEST);
    t[0].num_partitions = t[0].replication_factor = -1;
    a[1].partition_index = 2;
    assert_int_equal(((const struct kafka_create_topics_resp *)client_ask(c, KEY_CREATE_TOPICS, 5, &req))->topics[0].error_code, KAFKA_INVALID_REPLICA_ASSIGNMENT);
    a[1].partition_index = 1;
    assert_int_equal(((const struct kafka_create_topics_resp *)client_ask(c, KEY_CREATE_TOPICS, 5, &req))->topics[0].error_code, 0);
    check_topic("assigned", 2);
    /* deleting: by name and id at once, by neither, by id, by one that is not there */
    struct kafka_delete_topics_req del;
    struct kafka_delete_topics_req_delete_topic_state d[4];
    kafka_delete_topics_req_init(&del);
    for (int i = 0; i < 4; i++)
        kafka_delete_topics_req_delete_topic_state_init(&d[i]);
    del.topics = d;
    del.topics_n = 4;
    d[0].name = SLICE("assigned");
    d[0].topic_id = ask_metadata(c, "assigned")->topics[0].topic_id;
    d[2].topic_id = ask_metadata(c, "other")->topics[0].topic_id;
    d[3].topic_id = (struct kafka_uuid){{9}};
    const struct kafka_delete_topics_resp *gone = client_ask(c, KEY_DELETE_TOPICS, 6, &del);
    assert_int_equal(gone->responses[0].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(gone->responses[1].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(gone->responses[2].error_code, 0);
    assert_true(slice_is(gone->responses[2].name, "other"));
    assert_int_equal(gone->responses[3].error_code, KAFKA_UNKNOWN_TOPIC_ID);
    check_topic("other", 0);
    check_topic("assigned", 2);
    world_stop();
}

/* Every API that is served, every version of it: requests by chance are answered or close the connection, and the broker lives. */
static void test_any_request(void **state)
{
    (void)state;
    uint64_t chance = 77;
    const struct api *a;
    start(2);
    world_topic("t", 3, NULL);
    struct arena arena;
    arena_init(&arena, MEM_SIM, 65536);
    for (uint32_t i = 0; (a = api_at(i)); i++) {
        for (int16_t v = a->served_min; v <= a->max; v++) {
            for (int k = 0; k < 2; k++) {
                struct client *c = client_new((uint32_t)k);
                void *req = arena_zalloc(&arena, a->wire->request->size);
                kafka_fill(a->wire->request, v, &chance, &arena, req);
                client_send(c, a->key, v, req);
                world_sleep(20);
                client_free(c);
                arena_reset(&arena);
            }
        }
    }
    arena_fini(&arena);
    struct client *c = client_new(0);
    assert_int_equal(ask_metadata(c, "t")->topics[0].error_code, 0);
    world_stop();
}

/* ---- stopping ---------------------------------------------------------------------------------------------------------------- */

/* Requests under way when the broker stops are answered; connections end; it starts again. */
static void stop_seed(uint64_t seed)
{
    world_start(&(struct world_conf){.seed = seed, .shards = 3, .net = {.latency_us_min = 10, .latency_us_max = 2000}});
    struct client *c = client_new((uint32_t)seed % 3), *idle = client_new(0);
    struct kafka_create_topics_req req;
    struct kafka_create_topics_req_creatable_topic t;
    kafka_create_topics_req_init(&req);
    kafka_create_topics_req_creatable_topic_init(&t);
    req.topics = &t;
    req.topics_n = 1;
    t.name = SLICE("t");
    t.num_partitions = 20;
    t.replication_factor = 1;
    int32_t id = client_send(c, KEY_CREATE_TOPICS, 5, &req);
    world_sleep(seed % 5);
    world_down(false, false);
    world_sleep(100);
    bool answered = client_try(c, id) != NULL;
    assert_true(client_closed(c));
    assert_true(client_closed(idle));
    world_up();
    bool there = catalog_topic(W.broker->catalog, SLICE("t")) != NULL;
    if (answered)
        assert_true(there);
    world_stop();
}
static void test_stop(void **state)
{
    (void)state;
    many_seeds(stop_seed, 30);
}

static void test_broken_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } broken[] = {
        {"", "line 1"},
        {"{\"format\": 1, \"cluster_id\": \"AAAAAAAAAAAAAAAAAAAAAA\"}", "no list"},
        {"{\"format\": 9, \"cluster_id\": \"AAAAAAAAAAAAAAAAAAAAAA\", \"topics\": []}", "newer version"},
        {"{\"format\": 1, \"cluster_id\": \"AAAAAAAAAAAAAAAAAAAAAA\", \"topics\": [{\"name\": \"a b\"}]}", "topic 0, a b"},
        {"{\"format\": 1, \"cluster_id\": \"AAAAAAAAAAAAAAAAAAAAAA\", \"topics\": [{\"name\": \"t\", \"id\": \"BAAAAAAAAAAAAAAAAAAAAA\", \"partitions\": 1, \"settings\": {\"retention.ms\": \"x\"}}]}",
         "retention.ms"},
    };
    start(1);
    world_down(false, false);
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        struct broker_conf conf;
        struct broker *b = NULL;
        struct buf why = {0};
        broker_conf_default(&conf);
        conf.log.dir = WORLD_DIR;
        assert_int_equal(file_replace(WORLD_DIR "/topics.json", broken[i].text, strlen(broken[i].text), 0600), OK);
        assert_int_not_equal(broker_open(&conf, &b, &why), OK);
        assert_non_null(strstr(why.p, WORLD_DIR "/topics.json"));
        if (!strstr(why.p, broken[i].says))
            fail_msg("%s", why.p);
        buf_free(&why);
    }
    static const char newer[] = "{\"format\": 1, \"later\": {}, \"cluster_id\": \"AAAAAAAAAAAAAAAAAAAAAA\", \"topics\": [{\"name\": \"t\", \"id\": \"BAAAAAAAAAAAAAAAAAAAAA\", "
                                "\"partitions\": 2, \"colour\": 1, \"settings\": {\"no.such\": \"1\", \"retention.ms\": \"7\"}}]}";
    assert_int_equal(file_replace(WORLD_DIR "/topics.json", newer, sizeof newer - 1, 0600), OK);
    world_up();
    assert_int_equal(catalog_topic(W.broker->catalog, SLICE("t"))->settings.part.retention_ms, 7);
    world_stop();
}

/* Lags of compaction that contradict each other were taken once of topics that are not compacted: such a topic is loaded, grows, and others change beside it. */
static void test_lags_of_before(void **state)
{
    (void)state;
    static const char file[] = "{\"format\": 1, \"cluster_id\": \"AAAAAAAAAAAAAAAAAAAAAA\", \"topics\": [{\"name\": \"t\", \"id\": \"BAAAAAAAAAAAAAAAAAAAAA\", "
                               "\"partitions\": 2, \"settings\": {\"min.compaction.lag.ms\": \"2\", \"max.compaction.lag.ms\": \"1\"}}]}";
    start(1);
    world_down(false, false);
    assert_int_equal(file_replace(WORLD_DIR "/topics.json", file, sizeof file - 1, 0600), OK);
    world_up();
    struct client *c = client_new(0);
    assert_int_equal(grow(c, "t", 3), 0);
    assert_int_equal(alter_of(c, 4, "", "log.retention.ms", 0, "60000"), 0);
    assert_int_equal(alter_of(c, 4, "", "log.cleanup.policy", 0, "compact"), KAFKA_INVALID_REQUEST);
    assert_non_null(memmem(alter_said.p, alter_said.n, "Topic t:", 8));
    assert_int_equal(alter(c, "t", "retention.ms", 0, "5"), KAFKA_INVALID_CONFIG);
    assert_int_equal(alter(c, "t", "min.compaction.lag.ms", 1, NULL), 0);
    assert_int_equal(alter(c, "t", "retention.ms", 0, "5"), 0);
    world_stop();
}

/* ---- permissions ------------------------------------------------------------------------------------------------------- */

static void tune_authorize(struct broker_conf *c)
{
    c->authorize = true;
    c->allow_when_no_acl = true;
}

/* Filters of one request that match the same bindings: each tells what there was before it, and they are gone once. */
static void test_acl_filters_overlap(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 1, .shards = 2, .tune = tune_authorize});
    struct client *c = client_new(1);
    struct kafka_create_acls_req_acl_creation make[2];
    struct kafka_delete_acls_req_delete_acls_filter filters[3];
    for (int i = 0; i < 2; i++)
        make[i] = (struct kafka_create_acls_req_acl_creation){.resource_type = ACL_TOPIC, .resource_name = i ? SLICE("orders-") : SLICE("orders-1"),
            .resource_pattern_type = i ? ACL_PREFIXED : ACL_LITERAL, .principal = SLICE("User:a"), .host = SLICE("*"), .operation = ACL_READ, .permission_type = ACL_ALLOW};
    client_ask(c, 30, 3, &(struct kafka_create_acls_req){make, 2});
    for (int i = 0; i < 3; i++)
        filters[i] = (struct kafka_delete_acls_req_delete_acls_filter){.resource_type_filter = ACL_TOPIC, .resource_name_filter = i == 1 ? SLICE("orders-2") : SLICE("orders-1"),
            .pattern_type_filter = 2 /* MATCH */, .operation = 1 /* ANY */, .permission_type = 1};
    const struct kafka_delete_acls_resp *resp = client_ask(c, 31, 3, &(struct kafka_delete_acls_req){filters, 3});
    assert_int_equal(resp->filter_results_n, 3);
    assert_int_equal(resp->filter_results[0].matching_acls_n, 2);
    assert_int_equal(resp->filter_results[1].matching_acls_n, 1);
    assert_int_equal(resp->filter_results[2].matching_acls_n, 2);
    resp = client_ask(c, 31, 3, &(struct kafka_delete_acls_req){filters, 3});
    assert_int_equal(resp->filter_results[0].error_code, 0);
    assert_int_equal(resp->filter_results[0].matching_acls_n, 0);
    client_free(c);
    world_stop();
}

/* Settings by name: each sort, its bounds, and what is none. */
static void test_conf_set(void **state)
{
    static const struct { const char *text, *why; } wrong[] = {
        {"num.partitions=0", "from 1 to"}, {"num.partitions=10001", "from 1 to"}, {"num.partitions=x", "from 1 to"}, {"num.partitions=", "from 1 to"},
        {"auto.create.topics.enable=yes", "true or false"}, {"num.partitions", "NAME=VALUE"}, {"num.partitions=2,log.dirs=/", "\"log.dirs\" is no setting"}, {",", "NAME=VALUE"}, {"=", "no setting"},
    };
    struct broker_conf c;
    struct buf why = {0};
    (void)state;
    broker_conf_default(&c);
    assert_int_equal(broker_conf_set(&c, SLICE(""), &why), OK);
    assert_int_equal(broker_conf_set(&c, SLICE("num.partitions=4,auto.create.topics.enable=false,group.initial.rebalance.delay.ms=0,connections.max.idle.ms=5000"), &why), OK);
    assert_int_equal(c.partitions, 4);
    assert_false(c.auto_create);
    assert_int_equal(c.group_delay_ms, 0);
    assert_int_equal(c.idle_ms, 5000);
    assert_int_equal(why.n, 0);
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        buf_clear(&why);
        assert_int_equal(broker_conf_set(&c, slice_cstr(wrong[i].text), &why), ERR_SYNTAX);
        if (!strstr(why.p, wrong[i].why))
            fail_msg("%s: %s", wrong[i].text, why.p);
    }
    buf_free(&why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_api_versions), cmocka_unit_test(test_malformed), cmocka_unit_test(test_malformed_behind), cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_memory), cmocka_unit_test(test_too_many), cmocka_unit_test(test_slow_reader), cmocka_unit_test(test_topics),
        cmocka_unit_test(test_auto_create), cmocka_unit_test(test_disk_full), cmocka_unit_test(test_crashes), cmocka_unit_test(test_life), cmocka_unit_test(test_full_mailbox), cmocka_unit_test(test_configs), cmocka_unit_test(test_grown_configs), cmocka_unit_test(test_defaults), cmocka_unit_test(test_unserved_configs), cmocka_unit_test(test_lags_of_before),
        cmocka_unit_test(test_setting_bounds), cmocka_unit_test(test_describe_topic_partitions), cmocka_unit_test(test_log_dirs), cmocka_unit_test(test_versions), cmocka_unit_test(test_denied), cmocka_unit_test(test_one_node), cmocka_unit_test(test_doubles), cmocka_unit_test(test_any_request),
        cmocka_unit_test(test_stop), cmocka_unit_test(test_conf_set), cmocka_unit_test(test_acl_filters_overlap), cmocka_unit_test(test_broken_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
