/* log_client_test.c - both engines of log_client, the same tests on each, against a cluster.
 *
 *     log_client_test                   librdkafka's mock cluster: three brokers, in this process, which fail as they are told
 *     log_client_test BROKER            Weir's own: the program broker_alone, as a child; groups and administration as well, which the mock cluster
 *                                       has not, or takes seconds for; then over its other port, with TLS and a login, and
 *                                       what is not let in there
 */
#include "log_client.h"
#include "port_test.h"
#include "scram.h"
#include "tls_testcert.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <ftw.h>
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
    uint32_t done, failed, records, caught, assigned, moved;
    int64_t moved_from, moved_to;
    int64_t last_offset;
    int32_t last_partition;
    enum kafka_error error;
    char text[8192];         /* values of records in order, each with a space behind */
    uint32_t places;
    bool flag;
    struct buf *words;       /* of the last fault; NULL */
};

static enum log_engine engine_now;
static int round_now;                                 /* of the same tests: their topics are others */
static const char *const *settings_now;               /* of every client */

static void world_open(struct world *w)
{
    struct buf why = {0};
    *w = (struct world){.l = loop_new("test"), .last_offset = -1};
    struct log_client_conf conf = {.engine = engine_now, .bootstrap = bootstrap, .acks = -1, .timeout_ms = 10000, .settings = settings_now};
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

static void on_moved(void *ctx, struct slice topic, int32_t partition, int64_t asked, int64_t offset)
{
    struct world *w = ctx;
    w->moved++;
    w->last_partition = partition;
    w->moved_from = asked;
    w->moved_to = offset;
}

static void on_failed(void *ctx, const struct log_fault *e)
{
    struct world *w = ctx;
    w->failed++;
    w->error = e->code;
}

static const struct log_consumer_ops ops = {.record = on_record, .caught_up = on_caught, .assigned = on_assigned, .moved = on_moved, .failed = on_failed};

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
    snprintf(topic, sizeof topic, "order%d", 2 * round_now + (int)engine_now);
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
    snprintf(topic, sizeof topic, "headers%d", 2 * round_now + (int)engine_now);
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
    snprintf(topic, sizeof topic, "from%d", 2 * round_now + (int)engine_now);
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

/* Records before `offset` go. */
static void records_delete(const char *topic, int32_t partition, int64_t offset)
{
    char err[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, err, sizeof err), RD_KAFKA_CONF_OK);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof err);
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
    rd_kafka_DeleteRecords_t *del = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(rk, &del, 1, NULL, q);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, WAIT_MS);
    assert_non_null(ev);
    assert_int_equal(rd_kafka_event_error(ev), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_event_destroy(ev);
    rd_kafka_DeleteRecords_destroy(del);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy(rk);
}

/* A partition that has not the offset is read from its nearest end, and that is told; the others from the offset. */
static void test_nearest(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "nearest%d", 2 * round_now + (int)engine_now);
    topic_make(topic, 2);
    world_open(&w);
    publish_many(&w, topic, 0, "x", 10);
    publish_many(&w, topic, 1, "y", 2);
    struct log_consumer *k = consume(&w, topic, NULL, -1, 7);
    UNTIL(&w, w.records == 3 && w.caught >= 2);
    assert_string_equal(w.text, "x-7 x-8 x-9 ");
    assert_true(w.moved == 1 && w.last_partition == 1 && w.moved_from == 7 && w.moved_to == 2);
    publish_many(&w, topic, 1, "z", 1);
    UNTIL(&w, w.records == 4);
    assert_string_equal(w.text, "x-7 x-8 x-9 z-0 ");
    consumer_close(&w, k);
    k = consume(&w, topic, NULL, 1, 3); /* its end: that is there */
    w.caught = 0;
    UNTIL(&w, w.caught);
    consumer_close(&w, k);
    assert_int_equal(w.moved, 1);
    if (broker) {
        records_delete(topic, 0, 8);
        w.text[0] = 0;
        k = consume(&w, topic, NULL, 0, 7);
        UNTIL(&w, w.records == 6);
        assert_string_equal(w.text, "x-8 x-9 ");
        assert_true(w.moved == 2 && w.moved_from == 7 && w.moved_to == 8);
        consumer_close(&w, k);
    }
    assert_int_equal(w.failed, 0);
    world_close(&w);
}

/* While it rests nothing comes. */
static void test_rest(void **state)
{
    struct world w;
    char topic[32];
    snprintf(topic, sizeof topic, "rest%d", 2 * round_now + (int)engine_now);
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
    snprintf(topic, sizeof topic, "repeated%d", 2 * round_now + (int)engine_now);
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
    snprintf(topic, sizeof topic, "group%d", 2 * round_now + (int)engine_now);
    snprintf(group, sizeof group, "g%d", 2 * round_now + (int)engine_now);
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
static struct log_consumer *committing; /* one commit behind the other, until its members change */

static void on_committed_again(void *ctx, const struct log_fault *e)
{
    struct world *w = ctx;
    w->done++;
    if (w->assigned == 5 && !e)
        log_consumer_commit(committing, on_committed_again, w);
    else
        committing = NULL;
}

static void test_rebalance(void **state)
{
    struct world a, b;
    char topic[32], group[32];
    snprintf(topic, sizeof topic, "shared%d", 2 * round_now + (int)engine_now);
    snprintf(group, sizeof group, "s%d", 2 * round_now + (int)engine_now);
    topic_make(topic, 4);
    world_open(&a);
    *(&b) = (struct world){.l = a.l, .last_offset = -1};
    struct buf why = {0};
    assert_int_equal(log_client_new(a.l, &(struct log_client_conf){.engine = engine_now, .bootstrap = bootstrap, .acks = -1, .timeout_ms = 10000, .settings = settings_now}, &b.c, &why), OK);
    struct log_consumer *ka = consume(&a, topic, group, -1, LOG_BEGINNING);
    UNTIL(&a, a.assigned == 5);
    committing = ka;
    log_consumer_commit(ka, on_committed_again, &a);
    struct log_consumer *kb = consume(&b, topic, group, -1, LOG_BEGINNING);
    UNTIL(&a, a.assigned == 3 && b.assigned == 3);
    assert_true(a.done > 0);
    UNTIL(&a, !committing); /* also the one that was under way when it learned of the rebalance */
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
    if (w->words && e)
        buf_adds(w->words, e->text);
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
    snprintf(topic, sizeof topic, "ask%d", 2 * round_now + (int)engine_now);
    snprintf(group, sizeof group, "a%d", 2 * round_now + (int)engine_now);
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
    snprintf(topic, sizeof topic, "made%d", 2 * round_now + (int)engine_now);
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
    snprintf(topic, sizeof topic, "seen%d", 2 * round_now + (int)engine_now);
    snprintf(group, sizeof group, "watched%d", 2 * round_now + (int)engine_now);
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

/* ---- TLS and logins: Weir's broker ------------------------------------------------------------------------------------------------------ */

static char plain[64], secure[64];       /* bootstrap addresses: of anybody; with TLS, of who logs in */
static char cert_pem[8192];

static void user_make(const char *name, const char *password)
{
    struct world w;
    struct log_credential c[2];
    uint8_t salt[16] = "salt salt salt s", salted[2][SCRAM_KEY_MAX];
    for (int8_t m = SCRAM_SHA256; m <= SCRAM_SHA512; m++) {
        assert_int_equal(scram_salt_password((enum scram_kind)m, slice_cstr(password), salt, sizeof salt, 4096, salted[m - 1]), OK);
        c[m - 1] = (struct log_credential){.mechanism = m, .iterations = 4096, .salt = slice_of((char *)salt, sizeof salt), .salted = slice_of((char *)salted[m - 1], scram_key_bytes((enum scram_kind)m))};
    }
    world_open(&w);
    ask(&w, (struct log_ask){.kind = LOG_ASK_USER_SET, .name = slice_cstr(name), .credentials = c, .credentials_n = 2});
    assert_int_equal(w.error, KAFKA_NONE);
    world_close(&w);
}

/* A client with these settings asks for topics: what it is told. NULL ca: the system's. */
static enum kafka_error asked(const char *protocol, const char *mechanism, const char *password, const char *ca, struct buf *text)
{
    const char *list[] = {"security.protocol", protocol, "sasl.mechanism", mechanism, "sasl.username", "weir", "sasl.password", password, "ssl.ca.pem", ca ? ca : "", NULL};
    struct world w = {.l = loop_new("test")};
    struct buf why = {0};
    struct log_client_conf conf = {.engine = LOG_ENGINE_OWN, .bootstrap = secure, .acks = -1, .timeout_ms = 3000, .reach_ms = 300, .settings = list};
    if (log_client_new(w.l, &conf, &w.c, &why) != OK)
        fail_msg("%s", why.p);
    w.words = text;
    buf_clear(text);
    ask(&w, (struct log_ask){.kind = LOG_ASK_TOPICS});
    world_close(&w);
    return w.error;
}

static void test_let_in(void **state)
{
    struct buf text = {0};
    static const char *const mechanisms[] = {"PLAIN", "SCRAM-SHA-256", "scram-sha-512"};
    for (size_t i = 0; i < COUNT_OF(mechanisms); i++) {
        assert_int_equal(asked("SASL_SSL", mechanisms[i], "a=b,c", cert_pem, &text), KAFKA_NONE);
        assert_int_equal(asked("sasl_ssl", mechanisms[i], "wrong", cert_pem, &text), KAFKA_SASL_AUTHENTICATION_FAILED);
        assert_non_null(strstr(text.p, "weir may not log in with"));
    }
    assert_int_equal(asked("sasl_ssl", "PLAIN", "a=b,c", NULL, &text), KAFKA_NETWORK_EXCEPTION);
    assert_non_null(strstr(text.p, "the certificate of the peer is not trusted"));
    assert_int_equal(asked("ssl", "", "", cert_pem, &text), KAFKA_NETWORK_EXCEPTION);
    assert_non_null(strstr(text.p, "it may want a login"));
    assert_int_equal(asked("plaintext", "", "", NULL, &text), KAFKA_NETWORK_EXCEPTION);
    assert_non_null(strstr(text.p, "security.protocol"));
    buf_free(&text);
}

/* The client goes while its password is being salted, and while it waits for the handshake: nothing is left behind. */
static void test_gone(void **state)
{
    const char *list[] = {"security.protocol", "sasl_ssl", "sasl.mechanism", "SCRAM-SHA-256", "sasl.username", "weir", "sasl.password", "a=b,c", "ssl.ca.pem", cert_pem, NULL};
    for (int turns = 0; turns < 12; turns++) {
        struct world w = {.l = loop_new("test")};
        struct buf why = {0};
        assert_int_equal(log_client_new(w.l, &(struct log_client_conf){.engine = LOG_ENGINE_OWN, .bootstrap = secure, .settings = list}, &w.c, &why), OK);
        log_ask(w.c, &(struct log_ask){.kind = LOG_ASK_TOPICS, .done = on_answer, .ctx = &w});
        for (int i = 0; i < turns; i++)
            loop_turn(w.l, 20);
        log_client_free(w.c);
        UNTIL(&w, mem_bytes(MEM_KAFKA) == 0);
        loop_free(w.l);
    }
}

/* Which settings the own engine refuses, and why. */
static void test_settings(void **state)
{
    static const struct {
        const char *settings[8], *why;
    } cases[] = {
        {{"linger.ms", "5"}, "linger.ms is librdkafka's"},
        {{"security.protocol", "tls"}, "security.protocol is plaintext"},
        {{"security.protocol", "sasl_ssl"}, "sasl.mechanism is PLAIN"},
        {{"security.protocol", "sasl_ssl", "sasl.mechanisms", "GSSAPI"}, "not \"GSSAPI\""},
        {{"security.protocol", "sasl_plaintext", "sasl.mechanism", "PLAIN", "sasl.username", "me"}, "sasl.password"},
        {{"security.protocol", "ssl", "enable.ssl.certificate.verification", "perhaps"}, "is false or true"},
        {{"security.protocol", "ssl", "ssl.endpoint.identification.algorithm", ""}, "is none or https"},
        {{"security.protocol", "ssl", "ssl.key.pem", "x"}, "goes with its key"},
        {{"security.protocol", "ssl", "ssl.ca.pem", "x"}, ""},
        {{"sasl.mechanism", "GSSAPI", "sasl.password", "x"}, NULL}, /* of no use, and no harm: nobody logs in */
    };
    struct loop *l = loop_new("test");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct log_client *c;
        struct buf why = {0};
        enum err e = log_client_new(l, &(struct log_client_conf){.engine = LOG_ENGINE_OWN, .bootstrap = "127.0.0.1:1", .settings = cases[i].settings}, &c, &why);
        if (e != (cases[i].why ? ERR_INVALID : OK) || (cases[i].why && (!why.n || !strstr(why.p, cases[i].why))))
            fail_msg("case %zu: %s", i, why.p ? why.p : "taken");
        log_client_free(c);
        buf_free(&why);
    }
    assert_int_equal(mem_bytes(MEM_KAFKA), 0);
    loop_free(l);
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

static void cert_write(char *cert, char *key, size_t n)
{
    struct testcert *t = testcert_new(NULL, &(struct testcert_conf){.name = "127.0.0.1", .sans = "IP:127.0.0.1"});
    snprintf(cert, n, "%s.cert", folder); /* beside it: the broker's folder is its own */
    snprintf(key, n, "%s.key", folder);
    snprintf(cert_pem, sizeof cert_pem, "%s", t->cert_pem);
    assert_int_equal(file_replace(cert, cert_pem, strlen(cert_pem), 0600), OK);
    assert_int_equal(file_replace(key, t->key_pem, strlen(t->key_pem), 0600), OK);
    testcert_free(t);
}

static void weir_start(const char *program)
{
    char port[8], sasl[8], cert[64], key[64];
    snprintf(port, sizeof port, "%u", test_port());
    snprintf(sasl, sizeof sasl, "%u", test_port());
    snprintf(plain, sizeof plain, "127.0.0.1:%s", port);
    snprintf(secure, sizeof secure, "127.0.0.1:%s", sasl);
    snprintf(bootstrap, sizeof bootstrap, "%s", plain);
    assert_non_null(mkdtemp(folder));
    cert_write(cert, key, sizeof cert);
    broker = fork();
    if (broker == 0) {
        execl(program, program, folder, port, "2", sasl, cert, key, "allow.everyone.if.no.acl.found=true", (char *)NULL);
        _exit(127);
    }
    assert_true(broker > 0);
}

static int gone(const char *path, const struct stat *st, int type, struct FTW *at) { return remove(path); }

static void weir_stop(void)
{
    char path[64];
    int status;
    kill(broker, SIGTERM);
    assert_int_equal(waitpid(broker, &status, 0), broker);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    nftw(folder, gone, 16, FTW_DEPTH | FTW_PHYS);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s.%s", folder, i ? "cert" : "key");
        remove(path);
    }
}

/* Over TLS, as a user who logs in: what goes over all lanes, with both engines, from the same settings. */
static int secure_run(void)
{
    static const char *const list[] = {"security.protocol", "sasl_ssl", "sasl.mechanism", "SCRAM-SHA-512", "sasl.username", "weir", "sasl.password", "a=b,c", "ssl.ca.pem", cert_pem, NULL};
    const struct CMUnitTest logins[] = {cmocka_unit_test(test_let_in), cmocka_unit_test(test_gone)};
    const struct CMUnitTest over[] = {cmocka_unit_test(test_headers), cmocka_unit_test(test_ask)};
    engine_now = LOG_ENGINE_OWN;
    user_make("weir", "a=b,c");
    int failures = cmocka_run_group_tests_name("logins", logins, NULL, NULL);
    snprintf(bootstrap, sizeof bootstrap, "%s", secure);
    settings_now = list;
    round_now = 1;
    for (int e = LOG_ENGINE_OWN; e <= LOG_ENGINE_RDKAFKA; e++) {
        engine_now = (enum log_engine)e;
        failures += cmocka_run_group_tests_name(e == LOG_ENGINE_OWN ? "own, TLS and SASL" : "rdkafka, TLS and SASL", over, NULL, NULL);
    }
    return failures;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest with_mock[] = {cmocka_unit_test(test_conf), cmocka_unit_test(test_partitions), cmocka_unit_test(test_order),    cmocka_unit_test(test_headers), cmocka_unit_test(test_from),
                                           cmocka_unit_test(test_nearest), cmocka_unit_test(test_rest), cmocka_unit_test(test_unknown),    cmocka_unit_test(test_repeated), cmocka_unit_test(test_nobody), cmocka_unit_test(test_nobody_soon),
                                           cmocka_unit_test(test_settings)};
    const struct CMUnitTest with_weir[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_headers),   cmocka_unit_test(test_from), cmocka_unit_test(test_nearest), cmocka_unit_test(test_unknown), cmocka_unit_test(test_topics),
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
    if (argc > 1) {
        failures += secure_run();
        weir_stop();
    } else
        mock_stop();
    return failures;
}
