/* broker_world_test.c - see its header. Clients live on a loop of their own; answers are decoded as they come, by the codec's other direction. */
#include "broker_world_test.h"

#include <stdio.h>

struct world W;

/* ---- clients --------------------------------------------------------------------------------------------------------- */

struct pending {
    struct list link;
    int32_t correlation_id;
    int16_t key, version;
    void *resp;                /* NULL: not there yet */
};
struct client {
    struct stream s;
    struct list link;
    struct list waiting;       /* struct pending, in order of sending */
    struct list come;          /* struct pending, with their answers */
    struct buf in;
    struct arena arena;
    struct buf frame;          /* of a bare answer, when one is awaited */
    uint64_t bytes_in;
    int32_t next_id;
    bool connected, closed, ended, released, freed, bare, frame_come, any, shut;
};

static struct client *client_of(struct stream *s) { return CONTAINER_OF(s, struct client, s); }

static void client_end(struct client *c)
{
    c->ended = true;
    if (!c->closed)
        stream_close(&c->s);
    c->closed = true;
}

/* The answer that the oldest request waits for. */
static void on_answer(struct client *c, struct slice frame)
{
    struct kafka_reader rd;
    int32_t id;
    if (c->bare) {
        buf_clear(&c->frame);
        buf_add(&c->frame, frame.p, frame.n);
        c->frame_come = true;
        return;
    }
    if (c->any)
        return;
    MUST(!list_empty(&c->waiting));
    struct pending *p = CONTAINER_OF(c->waiting.next, struct pending, link);
    const struct kafka_api *api = kafka_api_find(p->key);
    frame = arena_slice(&c->arena, frame); /* answers borrow from it */
    kafka_reader_init(&rd, frame);
    MUST(kafka_response_header_read(&rd, p->key, p->version, &id) == OK);
    MUST(id == p->correlation_id);
    p->resp = arena_zalloc(&c->arena, api->response->size);
    /* ApiVersions tells by version 0 that it does not know the version (KIP-511) */
    int16_t version = p->key == KEY_API_VERSIONS && p->version > api->last ? 0 : p->version;
    MUST(kafka_schema_read(api->response, &rd, version, &c->arena, p->resp) == OK);
    MUST(kafka_reader_left(&rd) == 0);
    list_del(&p->link);
    list_push(&c->come, &p->link);
}

static uint32_t size_at(const char *p)
{
    return (uint32_t)(uint8_t)p[0] << 24 | (uint32_t)(uint8_t)p[1] << 16 | (uint32_t)(uint8_t)p[2] << 8 | (uint8_t)p[3];
}

static void on_data(struct stream *s, char *p, size_t n)
{
    struct client *c = client_of(s);
    size_t at = 0;
    c->bytes_in += n;
    buf_add(&c->in, p, n);
    while (c->in.n - at >= 4 && c->in.n - at - 4 >= size_at(c->in.p + at)) {
        on_answer(c, slice_of(c->in.p + at + 4, size_at(c->in.p + at)));
        at += 4 + size_at(c->in.p + at);
    }
    memmove(c->in.p, c->in.p + at, c->in.n - at);
    c->in.n -= at;
}

static void on_connected(struct stream *s) { client_of(s)->connected = true; }
static void on_eof(struct stream *s) { client_end(client_of(s)); }
static void on_drained(struct stream *s) { (void)s; }
static void on_failed(struct stream *s, enum err e)
{
    (void)e;
    client_end(client_of(s));
}

static void on_released(struct stream *s)
{
    struct client *c = client_of(s);
    c->ended = c->released = true;
    if (c->freed)
        mem_free(c);
}

static const struct stream_ops client_ops = {.connected = on_connected, .data = on_data, .eof = on_eof, .drained = on_drained, .failed = on_failed, .released = on_released};

static bool is_connected(void *ctx) { return ((struct client *)ctx)->connected || ((struct client *)ctx)->ended; }

struct client *client_new(uint32_t shard) { return client_new_tls(shard, NULL); }

struct client *client_new_tls(uint32_t shard, struct tls_ctx *ctx)
{
    struct client *c = mem_new(MEM_SIM, sizeof *c);
    struct addr a = addr_ip4(0x7f000001, (uint16_t)(WORLD_PORT + shard));
    list_init(&c->waiting);
    list_init(&c->come);
    arena_init(&c->arena, MEM_SIM, 4096);
    c->next_id = 1;
    list_push(&W.clients, &c->link);
    stream_connect(&c->s, W.client_loop, &client_ops, -1, &a);
    if (ctx)
        stream_tls_connect(&c->s, ctx, (struct tls_peer_name){0}, NULL);
    world_until(is_connected, c, WORLD_WAIT_MS);
    return c;
}

static void pendings_free(struct list *l)
{
    LIST_FOREACH(it, l) {
        list_del(it);
        mem_free(CONTAINER_OF(it, struct pending, link));
    }
}

void client_free(struct client *c)
{
    pendings_free(&c->waiting);
    pendings_free(&c->come);
    arena_fini(&c->arena);
    buf_free(&c->in);
    buf_free(&c->frame);
    list_del(&c->link);
    c->freed = true;
    bool was_closed = c->closed;
    c->closed = true;
    if (!was_closed)
        stream_close(&c->s);
    else if (c->released)
        mem_free(c);
}

static void send_request(struct client *c, int16_t key, int16_t version, const void *req)
{
    struct buf b = {0};
    struct kafka_writer w;
    const struct kafka_request_header h = {.api_key = key, .api_version = version, .correlation_id = c->next_id, .client_id = SLICE("test")};
    kafka_writer_init(&w, &b);
    struct kafka_frame frame = kafka_frame_begin(&w);
    kafka_request_header_write(&w, &h);
    const struct kafka_api *api = kafka_api_find(key);
    if (req && version >= api->first && version <= api->last)
        kafka_schema_write(api->request, &w, version, req);
    kafka_frame_end(&w, frame);
    MUST(w.err == OK);
    client_bytes(c, b.p, b.n);
    kafka_writer_fini(&w);
    buf_free(&b);
}

int32_t client_send(struct client *c, int16_t key, int16_t version, const void *req)
{
    struct pending *p = mem_new(MEM_SIM, sizeof *p);
    *p = (struct pending){.correlation_id = c->next_id, .key = key, .version = version};
    list_push(&c->waiting, &p->link);
    send_request(c, key, version, req);
    return c->next_id++;
}

void client_send_silent(struct client *c, int16_t key, int16_t version, const void *req)
{
    send_request(c, key, version, req);
    c->next_id++;
}

const void *client_try(struct client *c, int32_t correlation_id)
{
    LIST_FOREACH(it, &c->come) {
        const struct pending *p = CONTAINER_OF(it, struct pending, link);
        if (p->correlation_id == correlation_id)
            return p->resp;
    }
    return NULL;
}

struct await {
    struct client *c;
    int32_t id;
};
static bool has_come(void *ctx)
{
    struct await *a = ctx;
    return client_try(a->c, a->id) || a->c->ended;
}

const void *client_await(struct client *c, int32_t correlation_id)
{
    struct await a = {c, correlation_id};
    world_until(has_come, &a, WORLD_WAIT_MS);
    const void *resp = client_try(c, correlation_id);
    MUST(resp); /* else the connection has ended */
    return resp;
}

const void *client_ask(struct client *c, int16_t key, int16_t version, const void *req) { return client_await(c, client_send(c, key, version, req)); }

bool client_closed(const struct client *c) { return c->ended; }
static bool is_closed(void *ctx) { return client_closed(ctx); }
void client_await_close(struct client *c) { world_until(is_closed, c, WORLD_WAIT_MS); }

void client_forget(struct client *c)
{
    MUST(list_empty(&c->waiting));
    pendings_free(&c->come);
    arena_reset(&c->arena);
}

void client_bytes(struct client *c, const void *p, size_t n)
{
    if (!c->closed && !c->shut)
        stream_write_slice(&c->s, slice_of(p, n));
}

void client_reading(struct client *c, bool on) { stream_reading(&c->s, on); }
void client_any_answers(struct client *c) { c->any = true; }

void client_end_sending(struct client *c)
{
    if (!c->closed && !c->shut)
        stream_shut(&c->s);
    c->shut = true;
}

uint64_t client_bytes_in(const struct client *c) { return c->bytes_in; }
struct arena *client_arena(struct client *c) { return &c->arena; }

void client_frame(struct client *c, struct slice body)
{
    const char size[4] = {(char)(body.n >> 24), (char)(body.n >> 16), (char)(body.n >> 8), (char)body.n};
    c->bare = true;
    client_bytes(c, size, sizeof size);
    client_bytes(c, body.p, body.n);
}

static bool frame_come(void *ctx) { return ((struct client *)ctx)->frame_come || ((struct client *)ctx)->ended; }

struct slice client_await_frame(struct client *c)
{
    world_until(frame_come, c, WORLD_WAIT_MS);
    MUST(c->frame_come);
    c->frame_come = c->bare = false;
    return arena_slice(&c->arena, buf_slice(&c->frame));
}

/* ---- the world ------------------------------------------------------------------------------------------------------------ */

static void on_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    (void)peer;
    broker_accept(W.broker->shards[ln - W.listeners], fd, &W.door);
}

static struct addr shard_addr(uint32_t i) { return addr_ip4(0x7f000001, (uint16_t)(WORLD_PORT + i)); }

void world_up(void)
{
    struct broker_conf conf;
    struct buf why = {0};
    broker_conf_default(&conf);
    conf.log.dir = WORLD_DIR;
    conf.shards = W.conf.shards;
    conf.offsets_partitions = conf.txn_partitions = 4;
    conf.group_delay_ms = 0;
    if (W.conf.tune)
        W.conf.tune(&conf);
    if (broker_open(&conf, &W.broker, &why) != OK) {
        fprintf(stderr, "the broker does not open: %s\n", why.p);
        MUST(false);
    }
    buf_free(&why);
    for (uint32_t i = 0; i < W.conf.shards; i++)
        broker_shard_new(W.broker, i, W.loops[i]);
    broker_start(W.broker);
    for (uint32_t i = 0; i < W.conf.shards; i++) {
        struct addr a = shard_addr(i);
        int fd;
        MUST(listen_socket(&a, 128, false, &fd) == OK);
        listener_start(&W.listeners[i], W.loops[i], fd, false, on_accepted);
    }
}

static void set_true(void *ctx) { *(bool *)ctx = true; }
static bool is_true(void *ctx) { return *(bool *)ctx; }

void world_down(bool crash, bool power)
{
    bool stopped = false;
    for (uint32_t i = 0; i < W.conf.shards; i++) {
        int fd = W.listeners[i].fd;
        struct addr a = shard_addr(i);
        if (crash)
            sim_kill_addr(&a);
        listener_stop(&W.listeners[i]);
        socket_close(fd);
    }
    if (crash && power)
        sim_power_loss();
    else if (crash && !sim_is_down())
        sim_process_crash();
    broker_stop(W.broker, W.control, set_true, &stopped);
    world_until(is_true, &stopped, WORLD_WAIT_MS);
    for (uint32_t i = 0; i < W.conf.shards; i++)
        broker_shard_free(W.broker->shards[i]);
    broker_free(W.broker);
    W.broker = NULL;
    if (crash)
        sim_restart();
}

static bool all_loaded(void *ctx)
{
    (void)ctx;
    for (struct table_slot *s = NULL; (s = table_next(&W.broker->catalog->by_name, s));) {
        const struct topic *t = s->value;
        for (int32_t i = 0; i < t->partitions; i++)
            if (topic_epoch(t, i) == LIVE_LOADING)
                return false;
    }
    return true;
}

void world_ready(void) { world_until(all_loaded, NULL, WORLD_WAIT_MS); }

void world_restart(void)
{
    world_down(false, false);
    world_up();
    world_ready();
}

void world_crash(bool power)
{
    world_down(true, power);
    for (int op = 0; op < SIM_DISK_OPS; op++)
        sim_disk_fail_next((enum sim_disk_op)op, 0, 0); /* faults that did not happen are not the next start's */
    world_up();
    world_ready();
}

void world_start(const struct world_conf *conf)
{
    struct sim_conf net = conf->net;
    W = (struct world){.conf = *conf};
    W.conf.shards = conf->shards ? conf->shards : 1;
    net.seed = conf->seed;
    sim_start(&net);
    if (conf->quiet)
        sim_quiet();
    list_init(&W.clients);
    W.control = loop_new("control");
    W.client_loop = loop_new("clients");
    for (uint32_t i = 0; i < W.conf.shards; i++)
        W.loops[i] = loop_new("shard");
    W.door = (struct broker_door){.advertised_host = SLICE("broker.test"), .advertised_port = WORLD_PORT, .sasl = conf->sasl, .caller = {.principal = SLICE("User:test")}};
    world_up();
}

void world_stop(void)
{
    world_down(false, false);
    LIST_FOREACH(it, &W.clients)
        client_free(CONTAINER_OF(it, struct client, link));
    world_sleep(1000);
    for (uint32_t i = 0; i < W.conf.shards; i++)
        loop_free(W.loops[i]);
    loop_free(W.client_loop);
    loop_free(W.control);
    MUST(sim_sockets_open() == 0);
    sim_stop();
}

void world_until(bool (*done)(void *ctx), void *ctx, uint64_t ms)
{
    bool came = sim_run(done, ctx, ms);
    MUST(came); /* what the test waits for has not come */
}

void world_sleep(uint64_t ms) { (void)sim_run(NULL, NULL, ms); }

/* ---- topics ------------------------------------------------------------------------------------------------------------------ */

struct told {
    bool come;
    char *error;
};
static void on_told(void *ctx, const char *error)
{
    struct told *t = ctx;
    t->come = true;
    t->error = mem_strdup(MEM_SIM, error);
}
static bool was_told(void *ctx) { return ((struct told *)ctx)->come; }

static void await_told(struct told *t)
{
    world_until(was_told, t, WORLD_WAIT_MS);
    if (t->error)
        fprintf(stderr, "the topic: %s\n", t->error);
    MUST(!t->error);
}

struct kafka_uuid world_topic(const char *name, int32_t partitions, const char *const *settings)
{
    struct slice pairs[64];
    struct broker_topic t = {.name = slice_cstr(name), .partitions = partitions, .settings = pairs};
    struct told told = {0};
    for (; settings && settings[t.settings_n]; t.settings_n++) {
        struct slice value;
        MUST(t.settings_n < 32);
        pairs[2 * t.settings_n] = slice_cut(slice_cstr(settings[t.settings_n]), '=', &value);
        pairs[2 * t.settings_n + 1] = value;
    }
    broker_topic_apply(W.broker, &t, W.control, on_told, &told);
    await_told(&told);
    return catalog_topic(W.broker->catalog, slice_cstr(name))->id;
}

void world_topic_delete(const char *name)
{
    struct told told = {0};
    broker_topic_delete(W.broker, slice_cstr(name), W.control, on_told, &told);
    await_told(&told);
}

struct shard *world_owner(const char *topic, int32_t partition)
{
    const struct topic *t = catalog_topic(W.broker->catalog, slice_cstr(topic));
    MUST(t && partition < t->partitions);
    return shard_of_part(W.broker, &t->id, partition);
}
