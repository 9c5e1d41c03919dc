/* threads_test.c - the broker on the kernel with a thread for each shard, for ThreadSanitizer: clients on every shard at once that make, fill, read, grow and
 * delete topics, while metrics are read; then a stop in the middle of it, and a start on what is there. */
#include "broker.h"
#include "kafka.h"
#include "kafka_batch.h"
#include "repeat_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SHARDS 3
#define CLIENTS 9
#define STEPS 40
#define TOPICS 4
#define WAIT_MS 60000

enum { PRODUCE = 0, FETCH = 1, METADATA = 3, CREATE = 19, DELETE = 20, GROW = 37 };

struct one {
    struct loop *loop;
    struct shard *shard;
    struct listener listener;
    struct mailbox *inbox;
    struct thread *thread;
    uint16_t port;
};
static struct {
    char dir[64];
    struct loop *control;
    struct broker *broker;
    struct one shards[SHARDS];
    uint32_t answers, errors, ended;
    bool stopped;
} W;

/* ---- the broker --------------------------------------------------------------------------------------------------------- */

static void on_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    const struct broker_door door = {.advertised_host = SLICE("127.0.0.1"), .advertised_port = 9092, .caller = {.principal = SLICE("User:test")}};
    (void)peer;
    broker_accept(CONTAINER_OF(ln, struct one, listener)->shard, fd, &door);
}

static void on_stop(void *ctx, const struct msg *m)
{
    (void)m;
    loop_stop(((struct one *)ctx)->loop);
}

static void shard_main(void *arg) { loop_run(((struct one *)arg)->loop); }

static void broker_up(void)
{
    struct broker_conf conf;
    struct buf why = {0};
    char dir[80];
    snprintf(dir, sizeof dir, "%s/log", W.dir);
    broker_conf_default(&conf);
    conf.log.dir = dir;
    conf.log.reserve_bytes = 0;
    conf.shards = SHARDS;
    conf.offsets_partitions = conf.txn_partitions = 3;
    assert_int_equal(broker_open(&conf, &W.broker, &why), OK);
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct one *s = &W.shards[i];
        struct addr at = addr_ip4(0x7f000001, 0);
        int fd;
        s->loop = loop_new("shard");
        s->inbox = mailbox_new(s->loop, 2, on_stop, s);
        s->shard = broker_shard_new(W.broker, i, s->loop);
        assert_int_equal(listen_socket(&at, 64, false, &fd), OK);
        assert_int_equal(socket_local_addr(fd, &at), OK);
        s->port = at.port;
        listener_start(&s->listener, s->loop, fd, false, on_accepted);
    }
    broker_start(W.broker);
    for (uint32_t i = 0; i < SHARDS; i++)
        W.shards[i].thread = thread_start("shard", shard_main, &W.shards[i]);
}

static void on_stopped(void *ctx)
{
    (void)ctx;
    W.stopped = true;
}

static void run_until(bool (*done)(void))
{
    uint64_t end = mono_ns() + WAIT_MS * 1000000ull;
    while (!done()) {
        assert_true(mono_ns() < end);
        loop_turn(W.control, 5);
    }
}

static bool is_stopped(void) { return W.stopped; }

static void broker_down(void)
{
    W.stopped = false;
    broker_stop(W.broker, W.control, on_stopped, NULL);
    run_until(is_stopped);
    for (uint32_t i = 0; i < SHARDS; i++)
        assert_true(mailbox_post(W.shards[i].inbox, &(struct msg){.type = 0}));
    for (uint32_t i = 0; i < SHARDS; i++)
        thread_join(W.shards[i].thread); /* all of them: each may still be waking another's loop */
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct one *s = &W.shards[i];
        int fd = s->listener.fd;
        listener_stop(&s->listener);
        socket_close(fd);
        broker_shard_free(s->shard);
        mailbox_free(s->inbox);
        loop_free(s->loop);
    }
    broker_free(W.broker);
}

/* ---- clients: one request after the other --------------------------------------------------------------------------------------- */

struct client {
    struct stream s;
    struct buf in;
    struct arena arena;
    uint64_t chance;
    uint32_t steps;
    int16_t key, version;
    bool closed;
};

static uint32_t chance(struct client *c, uint32_t n) { return test_chance(&c->chance, n); }

static void client_end(struct client *c)
{
    if (c->closed)
        return;
    c->closed = true;
    stream_close(&c->s);
}

static void send_request(struct client *c, int16_t key, int16_t version, const void *req)
{
    struct buf b = {0};
    struct kafka_writer w;
    const struct kafka_request_header h = {.api_key = key, .api_version = version, .correlation_id = (int32_t)c->steps, .client_id = SLICE("t")};
    kafka_writer_init(&w, &b);
    struct kafka_frame frame = kafka_frame_begin(&w);
    kafka_request_header_write(&w, &h);
    kafka_schema_write(kafka_api_find(key)->request, &w, version, req);
    kafka_frame_end(&w, frame);
    c->key = key;
    c->version = version;
    stream_write_slice(&c->s, buf_slice(&b));
    kafka_writer_fini(&w);
    buf_free(&b);
}

static void send_produce(struct client *c, struct slice name)
{
    struct buf b = {0};
    struct kafka_batch_builder k;
    struct kafka_produce_req req;
    struct kafka_produce_req_topic_produce_data t;
    struct kafka_produce_req_partition_produce_data p[6];
    kafka_batch_begin(&k, &b, &kafka_batch_plain);
    kafka_batch_add(&k, (int64_t)(wall_ns() / 1000000), SLICE("k"), SLICE("value"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    kafka_produce_req_init(&req);
    kafka_produce_req_topic_produce_data_init(&t);
    req.acks = chance(c, 2) ? 1 : -1;
    req.timeout_ms = 10000;
    req.topic_data = &t;
    req.topic_data_n = 1;
    t.name = name;
    t.partition_data = p;
    t.partition_data_n = 6;
    for (int32_t i = 0; i < 6; i++) {
        kafka_produce_req_partition_produce_data_init(&p[i]);
        p[i].index = i;
        p[i].records = buf_slice(&b);
    }
    send_request(c, PRODUCE, 9, &req);
    buf_free(&b);
}

static void send_fetch(struct client *c, struct slice name)
{
    struct kafka_fetch_req req;
    struct kafka_fetch_req_fetch_topic t;
    struct kafka_fetch_req_fetch_partition p[6];
    kafka_fetch_req_init(&req);
    kafka_fetch_req_fetch_topic_init(&t);
    req.max_wait_ms = (int32_t)chance(c, 20);
    req.min_bytes = 1;
    req.max_bytes = 1 << 20;
    req.topics = &t;
    req.topics_n = 1;
    t.topic = name;
    t.partitions = p;
    t.partitions_n = 6;
    for (int32_t i = 0; i < 6; i++) {
        kafka_fetch_req_fetch_partition_init(&p[i]);
        p[i].partition = i;
        p[i].fetch_offset = 0;
        p[i].partition_max_bytes = 10000;
    }
    send_request(c, FETCH, 11, &req);
}

static void send_topics(struct client *c, struct slice name)
{
    struct kafka_create_topics_req create;
    struct kafka_create_topics_req_creatable_topic ct;
    struct kafka_delete_topics_req delete;
    struct kafka_create_partitions_req grow;
    struct kafka_create_partitions_req_create_partitions_topic gt;
    kafka_create_topics_req_init(&create);
    kafka_create_topics_req_creatable_topic_init(&ct);
    kafka_delete_topics_req_init(&delete);
    kafka_create_partitions_req_init(&grow);
    kafka_create_partitions_req_create_partitions_topic_init(&gt);
    ct.name = gt.name = name;
    ct.num_partitions = 4;
    ct.replication_factor = 1;
    create.topics = &ct;
    delete.topic_names = &name;
    grow.topics = &gt;
    create.topics_n = delete.topic_names_n = grow.topics_n = 1;
    gt.count = 6;
    gt.assignments_n = -1;
    switch (chance(c, 4)) {
    case 0:
        send_request(c, DELETE, 4, &delete);
        break;
    case 1:
        send_request(c, GROW, 1, &grow);
        break;
    default:
        send_request(c, CREATE, 5, &create);
        break;
    }
}

static void next_step(struct client *c)
{
    static const char *const names[TOPICS] = {"a", "b", "c", "d"};
    struct slice name = slice_cstr(names[chance(c, TOPICS)]);
    struct kafka_metadata_req metadata;
    if (c->steps++ == STEPS) {
        client_end(c);
        return;
    }
    switch (chance(c, 8)) {
    case 0:
        send_topics(c, name);
        break;
    case 1:
        kafka_metadata_req_init(&metadata);
        metadata.topics_n = -1;
        send_request(c, METADATA, 9, &metadata);
        break;
    case 2:
    case 3:
        send_fetch(c, name);
        break;
    default:
        send_produce(c, name);
        break;
    }
}

static void on_answer(struct client *c, struct slice frame)
{
    struct kafka_reader rd;
    int32_t id;
    const struct kafka_api *api = kafka_api_find(c->key);
    kafka_reader_init(&rd, frame);
    assert_int_equal(kafka_response_header_read(&rd, c->key, c->version, &id), OK);
    assert_int_equal(id, (int32_t)c->steps);
    void *resp = arena_zalloc(&c->arena, api->response->size);
    assert_int_equal(kafka_schema_read(api->response, &rd, c->version, &c->arena, resp), OK);
    arena_reset(&c->arena);
    W.answers++;
    next_step(c);
}

static void on_data(struct stream *s, char *p, size_t n)
{
    struct client *c = CONTAINER_OF(s, struct client, s);
    buf_add(&c->in, p, n);
    if (c->in.n < 4)
        return;
    size_t size = (size_t)(uint8_t)c->in.p[0] << 24 | (size_t)(uint8_t)c->in.p[1] << 16 | (size_t)(uint8_t)c->in.p[2] << 8 | (uint8_t)c->in.p[3];
    if (c->in.n - 4 < size)
        return;
    struct slice frame = slice_of(c->in.p + 4, size);
    char *whole = c->in.p;
    c->in = (struct buf){0}; /* one request is under way, so nothing is behind its answer */
    on_answer(c, frame);
    mem_free(whole);
}

static void on_connected(struct stream *s) { next_step(CONTAINER_OF(s, struct client, s)); }
static void on_eof(struct stream *s) { client_end(CONTAINER_OF(s, struct client, s)); }
static void on_drained(struct stream *s) { (void)s; }
static void on_failed(struct stream *s, enum err e)
{
    (void)e;
    client_end(CONTAINER_OF(s, struct client, s));
}

static void on_released(struct stream *s)
{
    struct client *c = CONTAINER_OF(s, struct client, s);
    buf_free(&c->in);
    arena_fini(&c->arena);
    mem_free(c);
    W.ended++;
}

static const struct stream_ops client_ops = {.connected = on_connected, .data = on_data, .eof = on_eof, .drained = on_drained, .failed = on_failed, .released = on_released};

static void clients_start(uint64_t seed)
{
    W.answers = W.ended = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client *c = mem_new(MEM_MISC, sizeof *c);
        struct addr at = addr_ip4(0x7f000001, W.shards[i % SHARDS].port);
        c->chance = seed * 1000 + i;
        arena_init(&c->arena, MEM_MISC, 4096);
        stream_connect(&c->s, W.control, &client_ops, -1, &at);
    }
}

static bool all_ended(void)
{
    struct buf text = {0};
    broker_metrics(W.broker, &text);
    buf_free(&text);
    return W.ended == CLIENTS;
}

static bool half_done(void) { return W.answers > CLIENTS * STEPS / 2; }
static bool all_gone(void) { return W.ended == CLIENTS; }

/* ---- tests ------------------------------------------------------------------------------------------------------------------------ */

static void remove_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    char path[512];
    (void)bytes;
    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    if (folder) {
        assert_int_equal(disk_list(path, remove_each, path), OK);
        assert_int_equal(disk_remove_dir(path), OK);
    } else {
        assert_int_equal(disk_remove(path), OK);
    }
}

static void test_threads(void **state)
{
    (void)state;
    /* in memory where that is to be had: how long a disk takes for its syncs is not what is asked here */
    snprintf(W.dir, sizeof W.dir, "/dev/shm/weir_broker_test_XXXXXX");
    if (!mkdtemp(W.dir)) {
        snprintf(W.dir, sizeof W.dir, "/tmp/weir_broker_test_XXXXXX");
        assert_non_null(mkdtemp(W.dir));
    }
    W.control = loop_new("control");
    broker_up();
    clients_start(1);
    run_until(all_ended);
    assert_int_equal(W.answers, CLIENTS * STEPS);
    clients_start(2);
    run_until(half_done);
    broker_down(); /* in the middle */
    run_until(all_gone);
    broker_up();
    clients_start(3);
    run_until(all_ended);
    assert_int_equal(W.answers, CLIENTS * STEPS);
    broker_down();
    loop_free(W.control);
    assert_int_equal(disk_list(W.dir, remove_each, W.dir), OK);
    assert_int_equal(disk_remove_dir(W.dir), OK);
    assert_int_equal(mem_bytes(MEM_BROKER) + mem_bytes(MEM_KAFKA) + mem_bytes(MEM_PART), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
