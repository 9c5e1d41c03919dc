/* log_client_test.c - both engines of log_client, the same tests on each, against a cluster.
 *
 *     log_client_test                   librdkafka's mock cluster: three brokers, in this process, which fail as they are told
 *     log_client_test BROKER            Weir's own: the program broker_alone, as a child; groups and administration as well, which the mock cluster
 *                                       has not, or takes seconds for
 */
#include "log_client.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <ftw.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 20000

static rd_kafka_t *keeper;
static rd_kafka_mock_cluster_t *cluster;
static char bootstrap[512];
static char folder[] = "/tmp/log_client_test.XXXXXX"; /* of Weir's broker */
static pid_t broker;                                  /* 0: the mock cluster */

struct world {
    struct loop *l;
    struct log_client *c;
    /* what callbacks saw */
    uint32_t done, failed, records, caught, assigned;
    int64_t last_offset;
    int32_t last_partition;
    enum kafka_error error;
    char text[8192];         /* values of records in order, each with a space behind */
    uint32_t places;
    bool flag;
};

static enum log_engine engine_now;

static void world_open(struct world *w)
{
    struct buf why = {0};
    *w = (struct world){.l = loop_new("test"), .last_offset = -1};
    struct log_client_conf conf = {.engine = engine_now, .bootstrap = bootstrap, .acks = -1, .timeout_ms = 10000};
    enum err er = log_client_new(w->l, &conf, &w->c, &why);
    if (er != OK)
        fail_msg("%s", why.p);
}

static void world_close(struct world *w)
{
    log_client_free(w->c);
    loop_turn(w->l, 0);
    loop_turn(w->l, 0);
    loop_free(w->l);
    assert_int_equal(mem_bytes(MEM_KAFKA), 0);
}

#define UNTIL(w, cond)                                                          \
    do {                                                                        \
        uint64_t until_ms = mono_ns() / 1000000 + WAIT_MS;                      \
        while (!(cond)) {                                                       \
            if (mono_ns() / 1000000 > until_ms)                                 \
                fail_msg("not in time: %s (line %d)", #cond, __LINE__);         \
            loop_turn((w)->l, 10);                                              \
        }                                                                       \
    } while (0)

static void turns_for(struct world *w, uint32_t ms)
{
    uint64_t end_ms = mono_ns() / 1000000 + ms;
    while (mono_ns() / 1000000 < end_ms)
        loop_turn(w->l, 10);
}

static void on_done(void *ctx, const struct log_fault *e, int32_t partition, int64_t offset)
{
    struct world *w = ctx;
    w->done++;
    w->failed += e != NULL;
    w->error = e ? e->code : KAFKA_NONE;
    if (e)
        assert_true(e->text && *e->text);
    w->last_offset = offset;
    w->last_partition = partition;
}

static void on_record(void *ctx, const struct log_record *r)
{
    struct world *w = ctx;
    size_t n = strlen(w->text);
    w->records++;
    w->last_offset = r->offset;
    snprintf(w->text + n, sizeof w->text - n, SLICE_FMT " ", SLICE_ARG(r->value));
    if (r->headers_n == 2) {
        assert_true(slice_is(r->headers[0].name, "a") && slice_is(r->headers[0].value, "1"));
        assert_true(slice_is(r->headers[1].name, "b") && !r->headers[1].value.p);
        assert_true(slice_is(r->key, "k") && r->timestamp_ms == 1700000000000);
        w->flag = true;
    }
}

static void on_caught(void *ctx, struct slice topic, int32_t partition, int64_t offset) { ((struct world *)ctx)->caught++; }
static void on_assigned(void *ctx, uint32_t n) { ((struct world *)ctx)->assigned = n + 1; }

static void on_failed(void *ctx, const struct log_fault *e)
{
    struct world *w = ctx;
    w->failed++;
    w->error = e->code;
}

static const struct log_consumer_ops ops = {.record = on_record, .caught_up = on_caught, .assigned = on_assigned, .failed = on_failed};

static void on_closed(void *ctx) { ((struct world *)ctx)->flag = true; }

static void consumer_close(struct world *w, struct log_consumer *k)
{
    w->flag = false;
    log_consumer_close(k, on_closed, w);
    UNTIL(w, w->flag);
}

static void on_made(void *ctx, const struct log_fault *e, const struct log_answer *a)
{
    struct world *w = ctx;
    w->flag = true;
    if (e)
        fail_msg("%s", e->text);
}

static void topic_make(const char *name, int partitions)
{
    struct world w;
    if (!broker) {
        assert_int_equal(rd_kafka_mock_topic_create(cluster, name, partitions, 1), 0);
        return;
    }
    world_open(&w);
    log_ask(w.c, &(struct log_ask){.kind = LOG_ASK_CREATE, .name = slice_cstr(name), .partitions = partitions, .done = on_made, .ctx = &w});
    UNTIL(&w, w.flag);
    world_close(&w);
}

static void publish(struct world *w, const char *topic, int32_t partition, const char *key, const char *value)
{
    struct log_message m = {.topic = slice_cstr(topic), .partition = partition, .key = slice_cstr(key), .value = slice_cstr(value), .timestamp_ms = -1, .done = on_done, .ctx = w};
    assert_int_equal(log_produce(w->c, &m), OK);
}

/* "prefix-0" to "prefix-(n-1)", then waits. */
static void publish_many(struct world *w, const char *topic, int32_t partition, const char *prefix, uint32_t n)
{
    char value[32];
    w->done = 0;
    for (uint32_t i = 0; i < n; i++) {
        snprintf(value, sizeof value, "%s-%u", prefix, i);
        publish(w, topic, partition, NULL, value);
    }
    UNTIL(w, w->done == n);
    assert_int_equal(w->failed, 0);
    assert_int_equal(log_produce_bytes(w->c), 0);
}

static struct log_consumer *consume(struct world *w, const char *topic, const char *group, int32_t partition, int64_t from)
{
    struct slice name = slice_cstr(topic);
    struct log_consumer_conf conf = {.group = group, .topics = &name, .topics_n = 1, .partition = partition, .from = from, .session_ms = 6000};
    return log_consume(w->c, &conf, &ops, w);
}

/* ---- publishing and consuming ----------------------------------------------------------------------------------------------------- */

static void test_order(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "order%d", (int)engine_now);
    topic_make(topic, 1);
    world_open(&w);
    publish_many(&w, topic, 0, "x", 500);
    assert_int_equal(w.last_offset, 499);
    struct log_consumer *k = consume(&w, topic, NULL, -1, LOG_BEGINNING);
    UNTIL(&w, w.records == 500 && w.caught);
    assert_true(strncmp(w.text, "x-0 x-1 x-2 x-3 ", 16) == 0);
    assert_int_equal(w.assigned, 2);
    publish_many(&w, topic, 0, "y", 3);
    UNTIL(&w, w.records == 503);
    assert_int_equal(w.last_offset, 502);
    consumer_close(&w, k);
    world_close(&w);
}

static void test_headers(void **state)
{
    static const struct log_header headers[] = {{{"a", 1}, {"1", 1}}, {{"b", 1}, {NULL, 0}}};
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "headers%d", (int)engine_now);
    topic_make(topic, 4);
    world_open(&w);
    struct log_message m = {.topic = slice_cstr(topic), .partition = -1, .key = SLICE("k"), .value = SLICE("v"), .headers = headers, .headers_n = 2, .timestamp_ms = 1700000000000, .done = on_done, .ctx = &w};
    assert_int_equal(log_produce(w.c, &m), OK);
    UNTIL(&w, w.done == 1);
    assert_int_equal(w.failed, 0);
    assert_int_equal(w.last_partition, log_partition_of(SLICE("k"), 4));
    struct log_consumer *k = consume(&w, topic, NULL, w.last_partition, LOG_BEGINNING);
    UNTIL(&w, w.flag);
    consumer_close(&w, k);
    world_close(&w);
}

static void test_from(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "from%d", (int)engine_now);
    topic_make(topic, 1);
    world_open(&w);
    publish_many(&w, topic, 0, "x", 10);
    struct log_consumer *k = consume(&w, topic, NULL, 0, 7);
    UNTIL(&w, w.records == 3);
    assert_string_equal(w.text, "x-7 x-8 x-9 ");
    consumer_close(&w, k);
    w.text[0] = 0;
    w.assigned = w.caught = 0;
    k = consume(&w, topic, NULL, 0, LOG_END);
    UNTIL(&w, w.caught);
    publish_many(&w, topic, 0, "z", 1);
    UNTIL(&w, w.records == 4);
    assert_string_equal(w.text, "z-0 ");
    consumer_close(&w, k);
    world_close(&w);
}

/* While it rests nothing comes. */
static void test_rest(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "rest%d", (int)engine_now);
    topic_make(topic, 1);
    world_open(&w);
    struct log_consumer *k = consume(&w, topic, NULL, 0, LOG_BEGINNING);
    UNTIL(&w, w.caught);
    log_consumer_rest(k, true);
    turns_for(&w, 1200); /* longer than a fetch waits */
    publish_many(&w, topic, 0, "x", 5);
    turns_for(&w, 300);
    assert_int_equal(w.records, 0);
    log_consumer_rest(k, false);
    UNTIL(&w, w.records == 5);
    consumer_close(&w, k);
    world_close(&w);
}

static void test_unknown(void **state)
{
    struct world w;
    world_open(&w);
    if (!broker)
        rd_kafka_mock_topic_set_error(cluster, "nothing", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART); /* the mock cluster would make it */
    struct log_consumer *k = consume(&w, "nothing", NULL, -1, LOG_BEGINNING);
    UNTIL(&w, w.failed);
    assert_int_equal(w.error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    consumer_close(&w, k);
    world_close(&w);
}

/* A broker says for a while that it can't: nothing is lost, doubled or out of order. */
static void test_repeated(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "repeated%d", (int)engine_now);
    topic_make(topic, 1);
    world_open(&w);
    publish_many(&w, topic, 0, "a", 1);
    rd_kafka_mock_push_request_errors(cluster, 0, 3, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
    publish_many(&w, topic, 0, "b", 50);
    publish_many(&w, topic, 0, "c", 2);
    struct log_consumer *k = consume(&w, topic, NULL, 0, LOG_BEGINNING);
    UNTIL(&w, w.records == 53 && w.caught);
    assert_true(strncmp(w.text, "a-0 b-0 b-1 b-2 ", 16) == 0 && strstr(w.text, "b-49 c-0 c-1 "));
    consumer_close(&w, k);
    world_close(&w);
}

/* ---- groups --------------------------------------------------------------------------------------------------------------------------- */

static void on_committed(void *ctx, const struct log_fault *e)
{
    struct world *w = ctx;
    w->flag = true;
    w->error = e ? e->code : KAFKA_NONE;
}

static void commit(struct world *w, struct log_consumer *k)
{
    w->flag = false;
    log_consumer_commit(k, on_committed, w);
    UNTIL(w, w->flag);
    assert_int_equal(w->error, KAFKA_NONE);
}

static void test_group(void **state)
{
    struct world w;
    char topic[32], group[32];
    snprintf(topic, sizeof topic, "group%d", (int)engine_now);
    snprintf(group, sizeof group, "g%d", (int)engine_now);
    topic_make(topic, 4);
    world_open(&w);
    for (int32_t p = 0; p < 4; p++)
        publish_many(&w, topic, p, "x", 5);
    struct log_consumer *k = consume(&w, topic, group, -1, LOG_BEGINNING);
    UNTIL(&w, w.records == 20);
    assert_int_equal(w.assigned, 5);
    commit(&w, k);
    consumer_close(&w, k);
    publish_many(&w, topic, 2, "y", 1);
    w.text[0] = 0;
    w.records = 0;
    k = consume(&w, topic, group, -1, LOG_BEGINNING);
    UNTIL(&w, w.records == 1);
    assert_string_equal(w.text, "y-0 "); /* what was committed does not come again */
    consumer_close(&w, k);
    world_close(&w);
}

/* Two members share the partitions; when one leaves the other has them all. */
static void test_rebalance(void **state)
{
    struct world a, b;
    char topic[32], group[32];
    snprintf(topic, sizeof topic, "shared%d", (int)engine_now);
    snprintf(group, sizeof group, "s%d", (int)engine_now);
    topic_make(topic, 4);
    world_open(&a);
    *(&b) = (struct world){.l = a.l, .last_offset = -1};
    struct buf why = {0};
    assert_int_equal(log_client_new(a.l, &(struct log_client_conf){.engine = engine_now, .bootstrap = bootstrap, .acks = -1, .timeout_ms = 10000}, &b.c, &why), OK);
    struct log_consumer *ka = consume(&a, topic, group, -1, LOG_BEGINNING);
    UNTIL(&a, a.assigned == 5);
    struct log_consumer *kb = consume(&b, topic, group, -1, LOG_BEGINNING);
    UNTIL(&a, a.assigned == 3 && b.assigned == 3);
    for (int32_t p = 0; p < 4; p++)
        publish_many(&a, topic, p, "x", 2);
    UNTIL(&a, a.records == 4 && b.records == 4);
    consumer_close(&b, kb);
    UNTIL(&a, a.assigned == 5);
    consumer_close(&a, ka);
    log_client_free(b.c);
    world_close(&a);
}

/* ---- asking ---------------------------------------------------------------------------------------------------------------------------- */

static void on_answer(void *ctx, const struct log_fault *e, const struct log_answer *a)
{
    struct world *w = ctx;
    w->flag = true;
    w->error = e ? e->code : KAFKA_NONE;
    w->places = (uint32_t)a->topics_n;
    if (a->topics_n == 1) {
        w->last_partition = a->topics[0].partitions;
        w->error = w->error ? w->error : a->topics[0].error;
    }
    for (size_t i = 0; i < a->places_n; i++) {
        w->last_offset = a->places[i].offset;
        w->last_partition = a->places[i].partition;
        w->error = w->error ? w->error : a->places[i].error;
    }
}

static void ask(struct world *w, struct log_ask a)
{
    a.done = on_answer;
    a.ctx = w;
    w->flag = false;
    log_ask(w->c, &a);
    assert_false(w->flag);
    UNTIL(w, w->flag);
}

static void test_ask(void **state)
{
    struct world w;
    char topic[32], group[32];
    snprintf(topic, sizeof topic, "ask%d", (int)engine_now);
    snprintf(group, sizeof group, "a%d", (int)engine_now);
    struct slice name = slice_cstr(topic), none = SLICE("nothing");
    topic_make(topic, 3);
    world_open(&w);
    publish_many(&w, topic, 1, "x", 6);
    ask(&w, (struct log_ask){.kind = LOG_ASK_TOPICS, .names = &name, .names_n = 1});
    assert_true(w.error == KAFKA_NONE && w.last_partition == 3);
    ask(&w, (struct log_ask){.kind = LOG_ASK_TOPICS});
    assert_true(w.error == KAFKA_NONE && w.places > 1);
    ask(&w, (struct log_ask){.kind = LOG_ASK_OFFSETS, .places = &(struct log_place){.topic = name, .partition = 1, .offset = LOG_END}, .places_n = 1});
    assert_true(w.error == KAFKA_NONE && w.last_offset == 6);
    ask(&w, (struct log_ask){.kind = LOG_ASK_OFFSETS, .places = &(struct log_place){.topic = name, .partition = 1, .offset = LOG_BEGINNING}, .places_n = 1});
    assert_true(w.error == KAFKA_NONE && w.last_offset == 0);
    ask(&w, (struct log_ask){.kind = LOG_ASK_OFFSETS, .places = &(struct log_place){.topic = none, .partition = 9, .offset = LOG_END}, .places_n = 1});
    assert_int_equal(w.error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROUP_MOVE, .name = slice_cstr(group), .places = &(struct log_place){.topic = name, .partition = 1, .offset = 4}, .places_n = 1});
    assert_int_equal(w.error, KAFKA_NONE);
    struct log_consumer *k = consume(&w, topic, group, -1, LOG_BEGINNING);
    UNTIL(&w, w.records == 2);
    assert_string_equal(w.text, "x-4 x-5 ");
    consumer_close(&w, k);
    world_close(&w);
}

/* ---- administering ------------------------------------------------------------------------------------------------------------------------ */

static void on_settings(void *ctx, const struct log_fault *e, const struct log_answer *a)
{
    struct world *w = ctx;
    w->flag = true;
    w->error = e ? e->code : KAFKA_NONE;
    w->text[0] = 0;
    for (size_t i = 0; i < a->settings_n; i++)
        if (!a->settings[i].is_default)
            snprintf(w->text + strlen(w->text), 200, SLICE_FMT "=" SLICE_FMT " ", SLICE_ARG(a->settings[i].name), SLICE_ARG(a->settings[i].value));
    w->places = (uint32_t)a->settings_n;
}

static void settings(struct world *w, struct slice name)
{
    w->flag = false;
    log_ask(w->c, &(struct log_ask){.kind = LOG_ASK_SETTINGS, .name = name, .done = on_settings, .ctx = w});
    UNTIL(w, w->flag);
}

static void test_topics(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "made%d", (int)engine_now);
    struct slice name = slice_cstr(topic);
    struct log_setting set[] = {{.name = SLICE("retention.ms"), .value = SLICE("5000")}, {.name = SLICE("cleanup.policy"), .value = SLICE("compact")}};
    struct log_setting change[] = {{.name = SLICE("retention.ms")}, {.name = SLICE("segment.bytes"), .value = SLICE("2097152")}};
    struct log_setting bad = {.name = SLICE("no.such.setting"), .value = SLICE("1")};
    world_open(&w);
    ask(&w, (struct log_ask){.kind = LOG_ASK_CREATE, .name = name, .partitions = 2, .settings = set, .settings_n = 2});
    assert_int_equal(w.error, KAFKA_NONE);
    ask(&w, (struct log_ask){.kind = LOG_ASK_CREATE, .name = name, .partitions = 2});
    assert_int_equal(w.error, KAFKA_TOPIC_ALREADY_EXISTS);
    ask(&w, (struct log_ask){.kind = LOG_ASK_CREATE, .name = SLICE("bad"), .partitions = 2, .settings = &bad, .settings_n = 1});
    assert_int_equal(w.error, KAFKA_INVALID_CONFIG);
    settings(&w, name);
    assert_true(w.error == KAFKA_NONE && w.places > 10 && strstr(w.text, "retention.ms=5000 ") && strstr(w.text, "cleanup.policy=compact "));
    ask(&w, (struct log_ask){.kind = LOG_ASK_SET, .name = name, .settings = change, .settings_n = 2});
    assert_int_equal(w.error, KAFKA_NONE);
    settings(&w, name);
    assert_true(!strstr(w.text, "retention.ms") && strstr(w.text, "segment.bytes=2097152 ") && strstr(w.text, "cleanup.policy=compact ")); /* others stay */
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROW, .name = name, .partitions = 4});
    assert_int_equal(w.error, KAFKA_NONE);
    ask(&w, (struct log_ask){.kind = LOG_ASK_TOPICS, .names = &name, .names_n = 1});
    assert_true(w.error == KAFKA_NONE && w.last_partition == 4);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROW, .name = name, .partitions = 3});
    assert_int_equal(w.error, KAFKA_INVALID_PARTITIONS);
    ask(&w, (struct log_ask){.kind = LOG_ASK_DELETE, .name = name});
    assert_int_equal(w.error, KAFKA_NONE);
    ask(&w, (struct log_ask){.kind = LOG_ASK_DELETE, .name = name});
    assert_int_equal(w.error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    settings(&w, name);
    assert_int_equal(w.error, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    world_close(&w);
}

struct group_seen {
    struct world *w;
    uint32_t groups, members, places;
    char state[32];
};

static void on_groups(void *ctx, const struct log_fault *e, const struct log_answer *a)
{
    struct group_seen *g = ctx;
    g->w->flag = true;
    g->w->error = e ? e->code : KAFKA_NONE;
    g->groups = (uint32_t)a->groups_n;
    if (!a->groups_n)
        return;
    g->members = a->groups[0].members_n;
    g->places = a->groups[0].members_n ? a->groups[0].members[0].places_n : 0;
    snprintf(g->state, sizeof g->state, SLICE_FMT, SLICE_ARG(a->groups[0].state));
}

static void groups(struct group_seen *g, enum log_ask_kind kind, struct slice name)
{
    g->w->flag = false;
    log_ask(g->w->c, &(struct log_ask){.kind = kind, .name = name, .done = on_groups, .ctx = g});
    UNTIL(g->w, g->w->flag);
}

static void test_groups(void **state)
{
    struct world w;
    struct group_seen g = {.w = &w};
    char topic[32], group[32];
    snprintf(topic, sizeof topic, "seen%d", (int)engine_now);
    snprintf(group, sizeof group, "watched%d", (int)engine_now);
    topic_make(topic, 3);
    world_open(&w);
    struct log_consumer *k = consume(&w, topic, group, -1, LOG_BEGINNING);
    publish_many(&w, topic, 1, "x", 4);
    UNTIL(&w, w.records == 4);
    commit(&w, k);
    groups(&g, LOG_ASK_GROUP, slice_cstr(group));
    assert_true(w.error == KAFKA_NONE && g.members == 1 && g.places == 3);
    assert_string_equal(g.state, "Stable");
    groups(&g, LOG_ASK_GROUPS, SLICE(""));
    assert_true(w.error == KAFKA_NONE && g.groups >= 1);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROUP_DELETE, .name = slice_cstr(group)});
    assert_int_equal(w.error, KAFKA_NON_EMPTY_GROUP);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROUP_MOVE, .name = slice_cstr(group), .places = &(struct log_place){.topic = slice_cstr(topic), .partition = 1, .offset = 1}, .places_n = 1});
    assert_int_equal(w.error, KAFKA_UNKNOWN_MEMBER_ID);
    consumer_close(&w, k);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROUP_PLACES, .name = slice_cstr(group)});
    assert_int_equal(w.error, KAFKA_NONE);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROUP_MOVE, .name = slice_cstr(group), .places = &(struct log_place){.topic = slice_cstr(topic), .partition = 1, .offset = 1}, .places_n = 1});
    assert_int_equal(w.error, KAFKA_NONE);
    ask(&w, (struct log_ask){.kind = LOG_ASK_GROUP_DELETE, .name = slice_cstr(group)});
    assert_int_equal(w.error, KAFKA_NONE);
    groups(&g, LOG_ASK_GROUP, slice_cstr(group));
    assert_int_equal(w.error, KAFKA_GROUP_ID_NOT_FOUND);
    world_close(&w);
}

/* Nobody is there: every call ends with an error, none before its time and none long after. */
static void test_nobody(void **state)
{
    struct world w = {.l = loop_new("test")};
    struct buf why = {0};
    struct log_client_conf conf = {.engine = engine_now, .bootstrap = "127.0.0.1:1,[::1]:2", .acks = -1, .timeout_ms = 1500};
    assert_int_equal(log_client_new(w.l, &conf, &w.c, &why), OK);
    publish(&w, "t", -1, NULL, "x");
    ask(&w, (struct log_ask){.kind = LOG_ASK_TOPICS});
    assert_true(w.error == KAFKA_NETWORK_EXCEPTION || w.error == KAFKA_REQUEST_TIMED_OUT);
    UNTIL(&w, w.done == 1);
    assert_int_equal(w.failed, 1);
    world_close(&w);
}

/* Who would rather know soon is told soon, for whatever was asked. */
static void test_nobody_soon(void **state)
{
    struct world w = {.l = loop_new("test")};
    struct buf why = {0};
    struct log_client_conf conf = {.engine = engine_now, .bootstrap = "127.0.0.1:1", .acks = -1, .timeout_ms = 60000, .reach_ms = 300};
    if (engine_now != LOG_ENGINE_OWN) {
        loop_free(w.l);
        return;
    }
    assert_int_equal(log_client_new(w.l, &conf, &w.c, &why), OK);
    publish(&w, "t", -1, NULL, "x");
    struct log_consumer *a = consume(&w, "t", NULL, -1, LOG_BEGINNING), *b = consume(&w, "t", "g", -1, LOG_BEGINNING);
    ask(&w, (struct log_ask){.kind = LOG_ASK_TOPICS});
    assert_int_equal(w.error, KAFKA_NETWORK_EXCEPTION);
    UNTIL(&w, w.done == 1 && w.failed == 3);
    consumer_close(&w, a);
    consumer_close(&w, b);
    world_close(&w);
}

static void test_conf(void **state)
{
    struct loop *l = loop_new("test");
    struct log_client *c;
    static const char *const bad[] = {"", "x", "x:", ":1", "x:0", "x:65536", "a:1,b", "a:1,,b:2"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct buf why = {0};
        assert_int_equal(log_client_new(l, &(struct log_client_conf){.engine = engine_now, .bootstrap = bad[i]}, &c, &why), ERR_INVALID);
        assert_true(why.n && !c);
        buf_free(&why);
    }
    loop_free(l);
}

/* The hashes are those of org.apache.kafka.common.utils.UtilsTest. */
static void test_partitions(void **state)
{
    assert_int_equal(log_partition_of(SLICE("21"), INT32_MAX), (int32_t)((uint32_t)-973932308 & 0x7fffffff) % INT32_MAX);
    assert_int_equal(log_partition_of(SLICE("foobar"), INT32_MAX), (int32_t)((uint32_t)-790332482 & 0x7fffffff) % INT32_MAX);
    assert_int_equal(log_partition_of(SLICE("a-little-bit-long-string"), INT32_MAX), (int32_t)((uint32_t)-985981536 & 0x7fffffff) % INT32_MAX);
    assert_int_equal(log_partition_of(SLICE("a-little-bit-longer-string"), INT32_MAX), (int32_t)((uint32_t)-1486304829 & 0x7fffffff) % INT32_MAX);
    assert_int_equal(log_partition_of(SLICE("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), INT32_MAX), (int32_t)((uint32_t)-58897971 & 0x7fffffff) % INT32_MAX);
    assert_int_equal(log_partition_of(SLICE("abc"), INT32_MAX), 479470107 % INT32_MAX);
}

/* ---- the cluster ------------------------------------------------------------------------------------------------------------------------- */

static void cluster_start(void)
{
    char err[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "client.id", "keeper", err, sizeof err);
    keeper = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof err);
    assert_non_null(keeper);
    cluster = rd_kafka_mock_cluster_new(keeper, 3);
    assert_non_null(cluster);
    snprintf(bootstrap, sizeof bootstrap, "%s", rd_kafka_mock_cluster_bootstraps(cluster));
}

static void mock_stop(void)
{
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(keeper);
}

/* A port that nobody listens on now. */
static uint16_t port_free(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void weir_start(const char *program)
{
    char port[8];
    snprintf(port, sizeof port, "%u", port_free());
    snprintf(bootstrap, sizeof bootstrap, "127.0.0.1:%s", port);
    assert_non_null(mkdtemp(folder));
    broker = fork();
    if (broker == 0) {
        execl(program, program, folder, port, "2", (char *)NULL);
        _exit(127);
    }
    assert_true(broker > 0);
}

static int gone(const char *path, const struct stat *st, int type, struct FTW *at) { return remove(path); }

static void weir_stop(void)
{
    int status;
    kill(broker, SIGTERM);
    assert_int_equal(waitpid(broker, &status, 0), broker);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    nftw(folder, gone, 16, FTW_DEPTH | FTW_PHYS);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest with_mock[] = {cmocka_unit_test(test_conf), cmocka_unit_test(test_partitions), cmocka_unit_test(test_order),    cmocka_unit_test(test_headers), cmocka_unit_test(test_from),
                                           cmocka_unit_test(test_rest), cmocka_unit_test(test_unknown),    cmocka_unit_test(test_repeated), cmocka_unit_test(test_nobody), cmocka_unit_test(test_nobody_soon)};
    const struct CMUnitTest with_weir[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_headers),   cmocka_unit_test(test_from), cmocka_unit_test(test_unknown), cmocka_unit_test(test_topics),
                                           cmocka_unit_test(test_group), cmocka_unit_test(test_rebalance), cmocka_unit_test(test_ask),  cmocka_unit_test(test_groups)};
    int failures = 0;
    if (argc > 1)
        weir_start(argv[1]);
    else
        cluster_start();
    for (int e = LOG_ENGINE_OWN; e <= LOG_ENGINE_RDKAFKA; e++) {
        engine_now = (enum log_engine)e;
        failures += argc > 1 ? cmocka_run_group_tests_name(e == LOG_ENGINE_OWN ? "own" : "rdkafka", with_weir, NULL, NULL)
                             : cmocka_run_group_tests_name(e == LOG_ENGINE_OWN ? "own" : "rdkafka", with_mock, NULL, NULL);
    }
    if (argc > 1)
        weir_stop();
    else
        mock_stop();
    return failures;
}
