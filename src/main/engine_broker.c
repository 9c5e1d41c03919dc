/* engine_broker.c - the event log in the engine: opening and closing the broker, and the doors that lead to it.
 *
 *     BROKER_OFF                                  --kafka off: none of this happens
 *     BROKER_CLOSED  --broker_up()-->  BROKER_MAKING    the data folder is ours; the workers make their shards, one after the other
 *        ^    ^                             |
 *        |    '-- tried again (a later      v
 *        |        engine only)         BROKER_SERVING   doors are open, topics of the objects are applied
 *        |                                  |  broker_down()
 *     BROKER_FREEING  <-----------  BROKER_STOPPING     what is under way is answered, everything is made durable
 *     each worker frees its shard on its own loop, one after the other
 *
 *     BROKER_CLOSED <--> BROKER_AWAY              another node keeps the log of all: the doors are open, and lead there (engine_log_home.c)
 *
 * The data folder has one owner: the engine in charge. It opens the broker when it is so (broker_up), and closes it before it makes way
 * for another or ends (broker_down). Meanwhile clients on the host wait in the backlog of the listening sockets, which are sup's, and those
 * inside namespaces are closed and come again.
 *
 * Doors: the address of --kafka on the host, and that of --kafka-secure (TLS, and SASL before anything else), one socket for each worker; and in each workload's namespace the address of the name
 * kafka (through the mesh's door) and 127.0.0.1. Through whichever it came, a connection stays with the worker that accepted it.
 */
#include "engine_int.h"
#include <stdio.h>

#define BROKER_RETRY_MS 5000
#define CERT_BYTES_MAX (1u << 20)
#define GROUP_DELAY_MS 100   /* before the first rebalance of a new group: here all members start at once, and soon */
#define LOG_FILES_MAX 4096
#define BROKER_STOP_MS 20000 /* the longest a stop waits for the broker */

static void broker_next(struct engine *e);

/* ---- on the worker's thread -------------------------------------------------------------------------------------------------- */

/* A socket on the host that this worker accepts Kafka's clients from. Its descriptor is the control loop's. */
struct log_door {
    struct list link; /* worker.log_doors */
    struct listener ln;
    struct worker *w;
    enum log_way_kind kind;
};

static void caller_host(const struct addr *peer, char text[ADDR_TEXT_MAX], struct slice *host)
{
    *host = peer && peer->family != ADDR_NONE && peer->family != ADDR_UNIX ? slice_of(text, addr_format_ip(peer, text)) : SLICE("");
}

/* To the broker here, or to that of another node. */
static void connect_client(struct worker *w, int fd, const struct broker_door *door)
{
    if (w->shard)
        broker_accept(w->shard, fd, door);
    else if (!worker_log_away(w, fd, door))
        socket_close(fd);
}

/* From the host: in clear, whoever can reach the port, and nobody says who that is; else a user, once he has logged in. The address that was reached is the one to come back to. */
static void host_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    const struct log_door *d = ln->owner;
    struct worker *w = d->w;
    char at[ADDR_TEXT_MAX], from[ADDR_TEXT_MAX];
    struct addr local;
    if (socket_local_addr(fd, &local) != OK) {
        socket_close(fd);
        return;
    }
    struct broker_door door = {.advertised_host = slice_of(at, addr_format_ip(&local, at)), .advertised_port = local.port, .caller = {.principal = SLICE("User:ANONYMOUS")}};
    if (d->kind == WAY_SECURE) {
        door.tls = w->e->broker.tls;
        door.sasl = true;
    }
    caller_host(peer, from, &door.caller.host);
    connect_client(w, fd, &door);
}

/* From a workload: the door that it came through says who it is. */
bool worker_inside_log(struct worker *w, const struct proxy_caller *c, int fd)
{
    uint32_t ip = addr_ip4_host(&c->local);
    if (c->local.port != LOG_PORT || (ip != LOG_ADDRESS && ip != 0x7f000001u) || w->e->broker.off)
        return false;
    char from[ADDR_TEXT_MAX], principal[256];
    int n = snprintf(principal, sizeof principal, "User:%s/%s", c->ns, c->workload);
    struct broker_door door = {.advertised_host = ip == LOG_ADDRESS ? SLICE(LOG_HOST) : SLICE("127.0.0.1"),
                               .advertised_port = LOG_PORT,
                               .caller = {.principal = slice_of(principal, MIN((size_t)n, sizeof principal - 1))}};
    caller_host(&c->peer, from, &door.caller.host);
    connect_client(w, fd, &door);
    return true;
}

void worker_log_listen(struct worker *w, enum log_way_kind kind, int fd)
{
    struct log_door *d = mem_new(MEM_CONN, sizeof *d);
    d->w = w;
    d->kind = kind;
    d->ln.owner = d;
    list_push(&w->log_doors, &d->link);
    listener_start(&d->ln, w->loop, fd, false, host_accepted);
}

void worker_log_unlisten(struct worker *w)
{
    LIST_FOREACH(l, &w->log_doors) {
        struct log_door *d = CONTAINER_OF(l, struct log_door, link);
        listener_stop(&d->ln);
        list_del(&d->link);
        mem_free(d);
    }
}

/* ---- doors ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t way_token(enum log_way_kind kind) { return kind == WAY_SECURE ? TOKEN_KAFKA_SECURE : TOKEN_KAFKA; }

/* A socket that nobody accepts from would still be given connections: every one has a worker. */
static void way_open(struct engine *e, enum log_way_kind kind)
{
    const struct log_way *w = &e->broker.ways[kind];
    for (int i = 0; i < w->fds_n; i++)
        worker_post(e, (uint32_t)i % e->workers_n, (struct msg){.type = W_LOG_LISTEN, .a = kind, .n = (uint32_t)w->fds[i]});
    if (!w->fds_n)
        return;
    char at[ADDR_TEXT_MAX];
    addr_format(&w->address, at);
    if (e->broker.state == BROKER_AWAY)
        log_info("broker", "the event log of node %s is reached on %s%s", e->broker.home.node, at, kind == WAY_SECURE ? ", over TLS, with SASL" : "");
    else
        log_info("broker", "the event log speaks Kafka's protocol on %s%s", at, kind == WAY_SECURE ? ", over TLS, with SASL" : "");
}

void broker_ways_open(struct engine *e)
{
    for (enum log_way_kind kind = 0; kind < WAYS; kind++)
        way_open(e, kind);
}

static void sockets_take(struct engine *e, enum log_way_kind kind, const int *fds, int n)
{
    struct log_way *w = &e->broker.ways[kind];
    for (int i = 0; i < n; i++)
        if (w->fds_n < WORKERS_MAX)
            w->fds[w->fds_n++] = fds[i];
        else
            socket_close(fds[i]);
    if (e->broker.state == BROKER_SERVING || e->broker.state == BROKER_AWAY)
        way_open(e, kind);
}

/* Why there is no event log, or no way to it from the host: said, and tried again, or at a first start the end of it. */
static void broker_trouble(struct engine *e, const char *why)
{
    mem_free(e->broker.why);
    e->broker.why = mem_strdup(MEM_API, why);
    log_error("broker", "%s", why);
    if (!e->later && !e->broker.served)
        engine_config_failed(e);
    else
        timer_set(e->loop, &e->broker.retry, BROKER_RETRY_MS);
}

void broker_listening(struct engine *e, enum log_way_kind kind, enum err er, const char *text, const int *fds, int n)
{
    e->broker.ways[kind].asked = false;
    if (er == OK) {
        mem_free(e->broker.why);
        e->broker.why = NULL;
        sockets_take(e, kind, fds, n);
        return;
    }
    struct buf why = {0};
    buf_printf(&why, "%s (%s moves the event log's port)", text && *text ? text : err_text(er), kind == WAY_SECURE ? "--kafka-secure" : "--kafka");
    broker_trouble(e, why.p);
    buf_free(&why);
}

void broker_adopt(struct engine *e, enum log_way_kind kind, const struct addr *a, const int *fds, int n)
{
    const struct log_way *w = &e->broker.ways[kind];
    if (e->broker.off || w->fds_n || !addr_eq(a, &w->address)) { /* this engine was in charge before, or another port is wanted now */
        for (int i = 0; i < n; i++)
            socket_close(fds[i]);
        if (!w->fds_n)
            sup_unlisten(e->sup, way_token(kind));
        return;
    }
    sockets_take(e, kind, fds, n);
}

/* The loopback of a replica's namespace, unless a port there is the workload's own. */
void broker_inside_follow(struct engine *e, struct mesh_replica *m)
{
    struct addr a = addr_ip4(0x7f000001u, LOG_PORT), named = addr_ip4(LOG_ADDRESS, LOG_PORT);
    const struct object *dep = objset_find(e->objects, OBJ_DEPLOYMENT, m->ns, m->workload);
    if (e->broker.off || !dep || dep->dep.pod.host_network || e->caps.net == SUP_NET_HOST || !objset_port_free(e->objects, dep, LOG_PORT))
        return;
    mesh_listen(e, m, &a);
    if (e->caps.net == SUP_NET_LISTEN && objset_log_named(e->objects, m->ns)) /* else the mesh's door has it, whatever the workload listens on */
        mesh_listen(e, m, &named);
}

/* ---- up ------------------------------------------------------------------------------------------------------------------------ */

/* The certificate of WAY_SECURE, as its files are now. */
static enum err broker_certificate(struct engine *e, struct buf *why)
{
    struct buf chain = {0}, key = {0};
    const char *path = e->conf.kafka_cert;
    enum err er = file_read(path, &chain, CERT_BYTES_MAX);
    if (er == OK)
        er = file_read(path = e->conf.kafka_key, &key, CERT_BYTES_MAX);
    if (er != OK)
        buf_printf(why, "%s can't be read: %s (--kafka-cert, --kafka-key)", path, err_text(er));
    struct tls_cert_conf cert = {.chain_pem = buf_slice(&chain), .key_pem = buf_slice(&key)};
    struct tls_server_conf conf = {.certs = &cert, .certs_n = 1};
    struct tls_ctx *ctx;
    if (er == OK && (er = tls_server_new(&conf, &ctx, why)) == OK) {
        tls_ctx_unref(e->broker.tls);
        e->broker.tls = ctx;
    }
    buf_free(&chain);
    buf_wipe(&key);
    return er;
}

static enum err broker_make(struct engine *e, struct buf *why)
{
    struct broker_conf conf;
    broker_conf_default(&conf);
    conf.log.dir = e->broker.dir;
    conf.node_name = e->conf.name;
    conf.shards = e->workers_n;
    conf.group_delay_ms = GROUP_DELAY_MS;
    conf.log.files_max = LOG_FILES_MAX;
    conf.authorize = true;
    conf.allow_when_no_acl = true;
    enum err er = broker_conf_set(&conf, slice_cstr(e->conf.kafka_set), why);
    if (er == OK && e->broker.ways[WAY_SECURE].address.family != ADDR_NONE)
        er = broker_certificate(e, why);
    return er ? er : broker_open(&conf, &e->broker.b, why);
}

static void shard_ask(struct engine *e) { worker_post(e, e->broker.answers, (struct msg){.type = W_SHARD, .p = e->broker.b}); }

void broker_up(struct engine *e)
{
    struct engine_broker *b = &e->broker;
    struct buf why = {0};
    if (b->off || e->stopping || !e->run)
        return;
    for (enum log_way_kind kind = 0; kind < WAYS; kind++) {
        struct log_way *w = &b->ways[kind];
        if (w->fds_n || w->asked || w->address.family == ADDR_NONE)
            continue;
        w->asked = true;
        sup_listen(e->sup, way_token(kind), &w->address, 0, (int)e->workers_n);
    }
    if (b->state != BROKER_CLOSED || b->place == LOG_UNKNOWN)
        return;
    if (b->place == LOG_AWAY) {
        log_home_open(e);
        return;
    }
    enum err er = broker_make(e, &why);
    if (er != OK) {
        if (!why.n)
            buf_printf(&why, "the event log in %s can't be opened: %s", b->dir, err_text(er));
        broker_trouble(e, why.p);
    } else {
        b->state = BROKER_MAKING;
        b->answers = 0;
        shard_ask(e);
    }
    buf_free(&why);
}

static void broker_retry(struct timer *t) { broker_up(CONTAINER_OF(t, struct engine, broker.retry)); }

/* ---- down ---------------------------------------------------------------------------------------------------------------------- */

static void broker_closed(struct engine *e)
{
    void (*then)(struct engine *) = e->broker.then;
    e->broker.then = NULL;
    timer_clear(&e->broker.patience);
    if (then)
        then(e);
}

static void broker_stopped(void *ctx)
{
    struct engine *e = ctx;
    e->broker.state = BROKER_FREEING;
    e->broker.answers = 0;
    worker_post(e, 0, (struct msg){.type = W_SHARD_FREE});
}

static void broker_impatient(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, broker.patience);
    log_error("broker", "the event log does not come to rest in %d s; it is left as it is, and verified at the next start", BROKER_STOP_MS / 1000);
    e->broker.stuck = true;
    broker_closed(e);
}

static void broker_stop_now(struct engine *e)
{
    e->broker.state = BROKER_STOPPING;
    topics_rest(e);
    workers_post_all(e, (struct msg){.type = W_LOG_UNLISTEN});
    broker_stop(e->broker.b, e->loop, broker_stopped, e);
}

void broker_down(struct engine *e, void (*then)(struct engine *e))
{
    struct engine_broker *b = &e->broker;
    bool under_way = b->then != NULL;
    timer_clear(&b->retry);
    b->then = then;
    if (b->state == BROKER_AWAY)
        log_home_close(e);
    if (b->state == BROKER_CLOSED || b->off || b->stuck) {
        broker_closed(e);
        return;
    }
    if (!under_way)
        timer_set(e->loop, &b->patience, BROKER_STOP_MS);
    if (b->state == BROKER_SERVING)
        broker_stop_now(e); /* else when the workers have answered */
}

/* ---- what workers answer --------------------------------------------------------------------------------------------------------- */

static void broker_next(struct engine *e)
{
    struct engine_broker *b = &e->broker;
    broker_start(b->b);
    b->state = BROKER_SERVING;
    b->served = true;
    if (b->then) {
        broker_stop_now(e);
        return;
    }
    broker_ways_open(e);
    topics_follow(e);
}

void broker_shard_made(struct engine *e)
{
    if (++e->broker.answers < e->workers_n)
        shard_ask(e);
    else
        broker_next(e);
}

void broker_shard_freed(struct engine *e)
{
    if (++e->broker.answers < e->workers_n) {
        worker_post(e, e->broker.answers, (struct msg){.type = W_SHARD_FREE});
        return;
    }
    broker_free(e->broker.b);
    e->broker.b = NULL;
    e->broker.state = BROKER_CLOSED;
    broker_closed(e);
}

/* ---- the rest -------------------------------------------------------------------------------------------------------------------- */

void broker_init(struct engine *e)
{
    timer_init(&e->broker.retry, broker_retry);
    timer_init(&e->broker.patience, broker_impatient);
    struct buf dir = {0};
    buf_printf(&dir, "%s/log", e->conf.data_dir);
    e->broker.dir = buf_take(&dir, NULL);
    e->broker.off = e->broker.ways[WAY_PLAIN].address.family == ADDR_NONE;
    log_home_init(e);
    topics_init(e);
}

void broker_fini(struct engine *e)
{
    timer_clear(&e->broker.retry);
    timer_clear(&e->broker.patience);
    tls_ctx_unref(e->broker.tls);
    log_home_fini(e);
    mem_free(e->broker.why);
    mem_free(e->broker.dir);
    topics_fini(e);
}

bool broker_ready(const struct engine *e, struct buf *why_not)
{
    const struct engine_broker *b = &e->broker;
    bool open = b->state == BROKER_SERVING || b->state == BROKER_AWAY;
    for (enum log_way_kind kind = 0; kind < WAYS; kind++)
        open = open && (b->ways[kind].fds_n || b->ways[kind].address.family == ADDR_NONE);
    if (b->off || open)
        return true;
    buf_printf(why_not, "the event log is not open%s%s", b->why ? ": " : " yet", b->why ? b->why : "");
    return false;
}

struct addr host_reached(struct addr a)
{
    static const uint8_t none[16];
    bool any = memcmp(a.ip, none, a.family == ADDR_IP4 ? 4 : 16) == 0;
    if (any && a.family == ADDR_IP4)
        a = addr_ip4(0x7f000001u, a.port);
    else if (any)
        a.ip[15] = 1;
    return a;
}

/* The address for workloads on the host's network: where they reach it. NULL: there is no event log. */
const char *broker_host_address(const struct engine *e, char text[ADDR_TEXT_MAX])
{
    if (e->broker.off)
        return NULL;
    struct addr a = host_reached(e->broker.ways[WAY_PLAIN].address);
    addr_format(&a, text);
    return text;
}
