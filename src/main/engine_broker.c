/* engine_broker.c - the event log in the node: one broker over DATA/log, a shard of it in each worker, and the ways to it.
 *
 *     OFF         --kafka off
 *     CLOSED      --engine_broker_open()--> OPENING   the folder is taken, what topics there are is read; then each worker makes its shard,
 *     OPENING     --the last shard is there--> RUNS   one after the other: shards look at each other
 *     RUNS        --engine_broker_close()--> STOPPING connections end, all is made durable; then each worker frees its shard, one after the other
 *     STOPPING    --the last shard is gone--> CLOSED  the folder is free for another engine
 *
 * The folder has one owner: an engine opens it when it comes into charge, and closes it before it lets go (engine_upgrade.c) or ends. Clients whose
 * connection ends meanwhile come back, to the same sockets: those are sup's.
 *
 * Two ways lead here. Clients on the host: `--kafka ADDRESS:PORT`, a socket for each worker. Workloads: the mesh door of their namespace, where
 * the name kafka has the address LOG_ADDRESS, and 127.0.0.1:9092 where they do not listen there themselves; who calls is known by the door.
 */
#include "engine_int.h"
#include <stdio.h>

#define BROKER_RETRY_MS 5000
#define GROUP_DELAY_MS 100          /* before the first rebalance of a new group: here all members start at once, and soon */
#define LOG_FILES_MAX 4096

/* ---- on a worker's thread ------------------------------------------------------------------------------------------------ */

/* A listening socket on the host. */
struct kafka_door {
    struct listener ln;
    struct worker *w;
    struct list link;               /* worker's kafka_doors */
    int fd;                         /* owned */
};

/* Answers name the address that the client came to: whatever way that was, it works for him. */
static void accept_on(struct worker *w, int fd, const struct addr *local, struct slice principal)
{
    char host[ADDR_TEXT_MAX];
    struct slice name = slice_of(host, addr_format_ip(local, host));
    if (addr_ip4_host(local) == LOG_ADDRESS)
        name = SLICE(LOG_HOST);
    const struct broker_door door = {.advertised_host = name, .advertised_port = local->port, .caller = {.principal = principal}};
    broker_accept(w->shard, fd, &door);
}

static void host_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct kafka_door *d = CONTAINER_OF(ln, struct kafka_door, ln);
    struct addr local;
    if (socket_local_addr(fd, &local) == OK)
        accept_on(d->w, fd, &local, SLICE("User:ANONYMOUS"));
    else
        socket_close(fd);
}

bool worker_inside(struct worker *w, int fd, const struct addr *local, const char *ns, const char *workload)
{
    uint32_t ip = addr_ip4_host(local);
    if (local->port != LOG_PORT || (ip != LOG_ADDRESS && ip != 0x7f000001u) || w->e->broker_state == BROKER_OFF)
        return false;
    char who[512];
    int n = snprintf(who, sizeof who, "User:%s/%s", ns, workload);
    if (w->kafka_open && n > 0 && (size_t)n < sizeof who)
        accept_on(w, fd, local, slice_of(who, (size_t)n));
    else
        socket_close(fd); /* he comes back */
    return true;
}

void worker_kafka_listen(struct worker *w, int fd)
{
    struct kafka_door *d = mem_new(MEM_BROKER, sizeof *d);
    d->w = w;
    d->fd = fd;
    list_push(&w->kafka_doors, &d->link);
    if (w->kafka_open)
        listener_start(&d->ln, w->loop, fd, false, host_accepted);
}

void worker_kafka_accept(struct worker *w, bool on)
{
    w->kafka_open = on;
    LIST_FOREACH(l, &w->kafka_doors) {
        struct kafka_door *d = CONTAINER_OF(l, struct kafka_door, link);
        if (on && !d->ln.open)
            listener_start(&d->ln, w->loop, d->fd, false, host_accepted);
        else if (!on && d->ln.open)
            listener_stop(&d->ln);
    }
}

void worker_shard(struct worker *w, struct broker *b)
{
    if (b) {
        w->shard = broker_shard_new(b, w->index, w->loop);
    } else {
        broker_shard_free(w->shard);
        w->shard = NULL;
    }
    outbox_post(&w->to_control, (struct msg){.type = C_SHARD, .b = w->index});
}

void worker_kafka_fini(struct worker *w)
{
    LIST_FOREACH(l, &w->kafka_doors) {
        struct kafka_door *d = CONTAINER_OF(l, struct kafka_door, link);
        if (d->ln.open)
            listener_stop(&d->ln);
        socket_close(d->fd);
        mem_free(d);
    }
}

/* ---- opening and closing --------------------------------------------------------------------------------------------------- */

static void shard_next(struct engine *e)
{
    worker_post(e, e->shards_n, (struct msg){.type = W_SHARD, .p = e->broker_state == BROKER_OPENING ? e->broker : NULL});
}

static void kafka_accept(struct engine *e, bool on) { workers_post_all(e, (struct msg){.type = W_KAFKA_ACCEPT, .n = on}); }

static void stopped(void *ctx)
{
    struct engine *e = ctx;
    e->shards_n = 0;
    shard_next(e);
}

static void stop_now(struct engine *e)
{
    e->broker_state = BROKER_STOPPING;
    kafka_accept(e, false);
    broker_stop(e->broker, e->loop, stopped, e);
}

static void closed(struct engine *e)
{
    void (*then)(struct engine *) = e->broker_closed;
    broker_free(e->broker);
    e->broker = NULL;
    e->broker_state = BROKER_CLOSED;
    e->broker_closed = NULL;
    if (then)
        then(e);
}

void engine_shard_done(struct engine *e)
{
    if (++e->shards_n < e->workers_n) {
        shard_next(e);
        return;
    }
    if (e->broker_state == BROKER_STOPPING) {
        closed(e);
        return;
    }
    broker_start(e->broker);
    e->broker_state = BROKER_RUNS;
    if (e->broker_closed)
        stop_now(e);
    else
        kafka_accept(e, true);
}

static enum err open_now(struct engine *e, struct buf *why)
{
    struct buf dir = {0};
    struct broker_conf c;
    broker_conf_default(&c);
    buf_printf(&dir, "%s/log", e->conf.data_dir);
    c.log.dir = dir.p;
    c.log.files_max = LOG_FILES_MAX;
    c.node_name = e->conf.name;
    c.shards = e->workers_n;
    c.group_delay_ms = GROUP_DELAY_MS;
    c.authorize = true;
    c.allow_when_no_acl = true;
    enum err er = broker_open(&c, &e->broker, why);
    buf_free(&dir);
    return er;
}

static void listen_ask(struct engine *e)
{
    if (e->kafka_asked || e->kafka_known)
        return;
    e->kafka_asked = true;
    sup_listen(e->sup, TOKEN_KAFKA, &e->kafka_addr, 0, (int)e->workers_n);
}

bool engine_broker_open(struct engine *e)
{
    struct buf why = {0};
    if (e->broker_state != BROKER_CLOSED || e->stopping)
        return true;
    enum err er = open_now(e, &why);
    if (er == OK) {
        e->broker_state = BROKER_OPENING;
        e->shards_n = 0;
        shard_next(e);
        listen_ask(e);
    } else {
        log_error("broker", "the event log can't be opened: %s", why.n ? why.p : err_text(er));
        if (e->later)
            timer_set(e->loop, &e->broker_retry, BROKER_RETRY_MS);
    }
    buf_free(&why);
    return er == OK;
}

static void open_again(struct timer *t) { (void)engine_broker_open(CONTAINER_OF(t, struct engine, broker_retry)); }

void engine_broker_close(struct engine *e, void (*then)(struct engine *e))
{
    timer_clear(&e->broker_retry);
    if (e->broker_state == BROKER_OFF || e->broker_state == BROKER_CLOSED) {
        then(e);
        return;
    }
    e->broker_closed = then;
    if (e->broker_state == BROKER_RUNS)
        stop_now(e);
}

void engine_broker_init(struct engine *e)
{
    timer_init(&e->broker_retry, open_again);
    e->broker_state = e->kafka_addr.family == ADDR_NONE ? BROKER_OFF : BROKER_CLOSED;
}

/* ---- sockets on the host ------------------------------------------------------------------------------------------------------- */

/* As with gates: a socket of the group that nobody accepts from would keep its connections waiting, so every one gets a worker. */
static void listeners_share(struct engine *e, const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        worker_post(e, (uint32_t)i % e->workers_n, (struct msg){.type = W_KAFKA_LISTEN, .n = (uint32_t)fds[i]});
    e->kafka_known = true;
}

void engine_broker_listening(struct engine *e, enum err er, const char *text, const int *fds, int n)
{
    char at[ADDR_TEXT_MAX];
    addr_format(&e->kafka_addr, at);
    if (er == OK) {
        listeners_share(e, fds, n);
        log_info("broker", "the event log listens on %s", at);
        return;
    }
    log_error("broker", "--kafka %s: %s; choose another with --kafka ADDRESS:PORT, or none with --kafka off", at, text && *text ? text : err_text(er));
    e->kafka_asked = false;
    if (!e->later)
        engine_config_failed(e);
}

void engine_broker_adopt(struct engine *e, const int *fds, int n)
{
    if (!e->kafka_known && e->broker_state != BROKER_OFF) {
        listeners_share(e, fds, n);
        return;
    }
    for (int i = 0; i < n; i++) /* this engine was in charge before */
        socket_close(fds[i]);
}
