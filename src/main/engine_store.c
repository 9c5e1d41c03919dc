/* engine_store.c - the control store in the engine: opening and closing it, and the etcd API that leads to it.
 *
 *     STORE_CLOSED  --store_up()-->  STORE_OPEN  --store_down()-->  STORE_RESTING   calls under way are answered, for a while
 *        ^    ^--- tried again (a later engine only)                    |
 *        '------- ctl has closed its files -------------------------  STORE_CLOSING
 *
 * The folder DATA/ctl has one owner: the engine in charge, as with the event log. The socket on the host is sup's: while one engine makes way for
 * another, clients wait in its backlog. Everything here is on the control loop; connections from workloads' namespaces (127.0.0.1:2379 in each, unless
 * the workload listens there itself) are accepted by workers, which hand the descriptor over.
 */
#include "engine_int.h"
#include "prom.h"

#define STORE_RETRY_MS 5000
#define STORE_REST_MS 1000   /* the longest a stop waits for calls that are not answered */
#define STORE_POLL_MS 5
#define STORE_STOP_MS 20000  /* the longest it waits for the disk */

/* ---- trouble --------------------------------------------------------------------------------------------------------------- */

/* Said, and tried again, or at a first start the end of it. */
static void store_trouble(struct engine *e, const char *why)
{
    mem_free(e->store.why);
    e->store.why = mem_strdup(MEM_API, why);
    log_error("store", "%s", why);
    if (!e->later && !e->store.served)
        engine_config_failed(e);
    else
        timer_set(e->loop, &e->store.timer, STORE_RETRY_MS);
}

static void store_well(struct engine *e)
{
    mem_free(e->store.why);
    e->store.why = NULL;
}

/* ---- up ------------------------------------------------------------------------------------------------------------------------ */

/* FNV-1a of the node's name: what clients may remember of the cluster and its member is the same after a restart. */
static uint64_t id_of(const char *name, uint64_t h)
{
    h ^= 0xcbf29ce484222325u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    return h ? h : 1;
}

static void api_serve(struct engine *e)
{
    struct engine_store *s = &e->store;
    char at[ADDR_TEXT_MAX];
    if (s->state != STORE_OPEN || s->off || s->fd < 0 || s->listening || !s->known)
        return;
    s->listening = true;
    etcd_api_listen(s->api, s->fd);
    addr_format(&s->address, at);
    log_info("store", "the control store speaks etcd's API on %s", at);
}

static void api_make(struct engine *e)
{
    struct engine_store *s = &e->store;
    if (s->off)
        return;
    struct etcd_api_conf conf = {.cluster_id = id_of(e->conf.name, 1), .member_id = id_of(e->conf.name, 2), .name = e->conf.name, .client_url = s->url};
    s->api = etcd_api_new(e->loop, s->ctl, &conf);
    s->listening = false;
}

static enum err own_open(struct engine *e, struct buf *why)
{
    struct ctl_own_conf conf;
    ctl_own_conf_default(&conf);
    conf.dir = e->store.dir;
    return ctl_own_open(&conf, e->loop, &e->store.ctl, why);
}

void store_up(struct engine *e)
{
    struct engine_store *s = &e->store;
    struct buf why = {0};
    if (e->stopping || !e->run)
        return;
    if (!s->off && s->fd < 0 && !s->asked) {
        s->asked = true;
        sup_listen(e->sup, TOKEN_ETCD, &s->address, 0, 1);
    }
    if (s->state != STORE_CLOSED)
        return;
    enum err er = e->cluster.join ? cluster_store_open(e, &s->ctl, &why) : own_open(e, &why);
    if (er != OK) {
        if (!why.n)
            buf_printf(&why, "the control store in %s can't be opened: %s", e->cluster.join ? e->conf.join : s->dir, err_text(er));
        store_trouble(e, why.p);
    } else {
        s->state = STORE_OPEN;
        s->served = true;
        store_well(e);
        objstore_on(e->objs.store, s->ctl);
        events_on(e->events, s->ctl);
        cluster_up(e);
        api_make(e);
        if (s->known)
            store_follow(e);
    }
    buf_free(&why);
}

static void socket_take(struct engine *e, int fd)
{
    e->store.fd = fd;
    api_serve(e);
}

void store_listening(struct engine *e, enum err er, const char *text, const int *fds, int n)
{
    e->store.asked = false;
    if (er == OK && n) {
        socket_take(e, fds[0]);
        return;
    }
    struct buf why = {0};
    buf_printf(&why, "%s (--etcd moves the port of the etcd API)", text && *text ? text : err_text(er));
    store_trouble(e, why.p);
    buf_free(&why);
}

void store_adopt(struct engine *e, const struct addr *a, const int *fds, int n)
{
    struct engine_store *s = &e->store;
    if (s->off || s->fd >= 0 || !addr_eq(a, &s->address)) { /* this engine was in charge before, or another port is wanted now */
        for (int i = 0; i < n; i++)
            socket_close(fds[i]);
        if (s->fd < 0)
            sup_unlisten(e->sup, TOKEN_ETCD);
        return;
    }
    socket_take(e, fds[0]);
}

/* The loopback of a replica's namespace, unless the port there is the workload's own. */
void store_inside_follow(struct engine *e, struct mesh_replica *m)
{
    struct addr a = addr_ip4(0x7f000001u, STORE_PORT);
    const struct object *dep = objset_find(e->objects, OBJ_DEPLOYMENT, m->ns, m->workload);
    if (e->store.off || !dep || dep->dep.pod.host_network || e->caps.net == SUP_NET_HOST || !objset_port_free(e->objects, dep, STORE_PORT))
        return;
    mesh_listen(e, m, &a);
}

/* On the worker's thread. */
bool worker_inside_etcd(struct worker *w, const struct proxy_caller *c, int fd)
{
    if (c->local.port != STORE_PORT || addr_ip4_host(&c->local) != 0x7f000001u || w->e->store.off)
        return false;
    struct buf who = {0}; /* as the event log knows it */
    buf_printf(&who, "User:%s/%s", c->ns, c->workload);
    outbox_post(&w->to_control, (struct msg){.type = C_ETCD, .n = (uint32_t)fd, .p = buf_take(&who, NULL)});
    return true;
}

void store_accept(struct engine *e, int fd, char *principal)
{
    if (e->store.state == STORE_OPEN && e->store.api && e->store.known)
        etcd_api_accept(e->store.api, fd, slice_cstr(principal));
    else
        socket_close(fd); /* it comes again */
    mem_free(principal);
}

/* ---- keyspaces ------------------------------------------------------------------------------------------------------------------- */

static struct etcd_keyspace keyspace_of(struct arena *mem, const struct keyspace_spec *k)
{
    struct etcd_acl *acls = arena_alloc(mem, (k->acls_n + 1) * sizeof *acls);
    for (size_t i = 0; i < k->acls_n; i++)
        acls[i] = (struct etcd_acl){slice_cstr(k->acls[i].principal), (k->acls[i].read ? ETCD_MAY_READ : 0u) | (k->acls[i].write ? ETCD_MAY_WRITE : 0u)};
    return (struct etcd_keyspace){slice_cstr(k->prefix), acls, k->acls_n};
}

static void keyspaces_tell(struct engine *e)
{
    struct etcd_keyspace *all = NULL;
    struct arena mem;
    size_t n = 0, cap = 0;
    arena_init(&mem, MEM_API, 4096);
    for (size_t i = 0; i < objset_n(e->objects); i++) {
        const struct object *o = objset_at(e->objects, i);
        if (o->kind != OBJ_KEYSPACE)
            continue;
        ARRAY_GROW(MEM_API, all, n, cap);
        all[n++] = keyspace_of(&mem, &o->keyspace);
    }
    etcd_api_keyspaces(e->store.api, all, n);
    mem_free(all);
    arena_fini(&mem);
}

void store_follow(struct engine *e)
{
    e->store.known = true;
    if (e->store.api)
        keyspaces_tell(e);
    api_serve(e);
}

int store_keyspace_status(struct engine *e, struct buf *why)
{
    if (e->store.off)
        buf_adds(why, "the node's control store has no etcd API (--etcd off)");
    else if (!e->store.api)
        buf_adds(why, "the control store is not open yet");
    return e->store.off ? -1 : e->store.api != NULL;
}

/* ---- down ---------------------------------------------------------------------------------------------------------------------- */

/* What comes after it: the event log, which closes last. */
static void store_closed(struct engine *e)
{
    void (*then)(struct engine *) = e->store.then;
    e->store.then = NULL;
    if (then)
        broker_down(e, then);
}

static void ctl_closed(void *ctx)
{
    struct engine *e = ctx;
    objstore_on(e->objs.store, NULL);
    events_on(e->events, NULL);
    e->store.ctl = NULL;
    e->store.state = STORE_CLOSED;
    timer_clear(&e->store.timer);
    store_closed(e);
}

static void store_close_now(struct engine *e)
{
    struct engine_store *s = &e->store;
    cluster_down(e);
    etcd_api_free(s->api);
    s->api = NULL;
    s->listening = false;
    s->state = STORE_CLOSING;
    s->since_ms = loop_now_ms(e->loop);
    timer_set(e->loop, &s->timer, STORE_STOP_MS);
    ctl_close(s->ctl, ctl_closed, e);
}

static void store_timer(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, store.timer);
    struct engine_store *s = &e->store;
    switch (s->state) {
    case STORE_OPEN:
    case STORE_CLOSED: store_up(e); break;
    case STORE_RESTING:
        if ((e->cluster.leaving || (s->api && etcd_api_busy(s->api)) || events_busy(e->events)) && loop_now_ms(e->loop) - s->since_ms < STORE_REST_MS)
            timer_set(e->loop, &s->timer, STORE_POLL_MS);
        else
            store_close_now(e);
        break;
    case STORE_CLOSING:
        log_error("store", "the control store does not come to rest in %d s; it is left as it is, and looked through at the next start", STORE_STOP_MS / 1000);
        s->stuck = true;
        store_closed(e);
        break;
    }
}

void store_down(struct engine *e, void (*then)(struct engine *e))
{
    struct engine_store *s = &e->store;
    s->then = then;
    switch (s->state) {
    case STORE_CLOSED:
        timer_clear(&s->timer);
        store_closed(e);
        break;
    case STORE_OPEN:
        s->state = STORE_RESTING;
        s->since_ms = loop_now_ms(e->loop);
        if (s->api)
            etcd_api_suspend(s->api);
        events_write(e->events);
        cluster_leave(e);
        timer_set(e->loop, &s->timer, 0);
        break;
    case STORE_RESTING:
    case STORE_CLOSING: /* it is on its way */
        if (s->stuck)
            store_closed(e);
        break;
    }
}

/* ---- the rest -------------------------------------------------------------------------------------------------------------------- */

void store_init(struct engine *e)
{
    struct engine_store *s = &e->store;
    struct buf b = {0};
    char at[ADDR_TEXT_MAX];
    timer_init(&s->timer, store_timer);
    buf_printf(&b, "%s/ctl", e->conf.data_dir);
    s->dir = buf_take(&b, NULL);
    addr_format(&s->address, at);
    buf_printf(&b, "http://%s", at);
    s->url = buf_take(&b, NULL);
    s->off = s->address.family == ADDR_NONE;
    s->fd = -1;
}

void store_fini(struct engine *e)
{
    timer_clear(&e->store.timer);
    mem_free(e->store.dir);
    mem_free(e->store.url);
    mem_free(e->store.why);
}

const char *store_host_address(const struct engine *e, char text[ADDR_TEXT_MAX])
{
    if (e->store.off)
        return NULL;
    struct addr a = host_reached(e->store.address);
    addr_format(&a, text);
    return text;
}

bool store_ready(const struct engine *e, struct buf *why_not)
{
    const struct engine_store *s = &e->store;
    if (s->state == STORE_OPEN && (s->off || s->listening))
        return true;
    buf_printf(why_not, "the control store is not open%s%s", s->why ? ": " : " yet", s->why ? s->why : "");
    return false;
}

void store_metrics(const struct engine *e, struct buf *out)
{
    struct ctl_status s;
    if (e->store.state != STORE_OPEN)
        return;
    ctl_status(e->store.ctl, &s);
    const struct ctl_counters *c = ctl_counters(e->store.ctl);
    struct {
        const char *name;
        enum prom_type type;
        const char *help;
        uint64_t value;
    } all[] = {
        {"weir_store_revision", PROM_GAUGE, "Revision of the control store.", (uint64_t)s.revision},
        {"weir_store_compact_revision", PROM_GAUGE, "History before this revision is forgotten.", (uint64_t)s.compact_revision},
        {"weir_store_keys", PROM_GAUGE, "Keys in the control store.", s.keys},
        {"weir_store_leases", PROM_GAUGE, "Leases in the control store.", s.leases},
        {"weir_store_watches", PROM_GAUGE, "Watches on the control store.", s.watches},
        {"weir_store_bytes", PROM_GAUGE, "Bytes of the control store's files.", s.bytes},
        {"weir_store_used_bytes", PROM_GAUGE, "Of them, bytes in use.", s.bytes_used},
        {"weir_store_nospace", PROM_GAUGE, "1 while the store is over its quota and takes no puts.", s.nospace},
        {"weir_store_calls_total", PROM_COUNTER, "Calls to the control store.", counter_read(&c->calls)},
        {"weir_store_calls_failed_total", PROM_COUNTER, "Of them, those that ended with an error.", counter_read(&c->calls_failed)},
        {"weir_store_calls_refused_total", PROM_COUNTER, "Of the failed, those refused because too many were waiting.", counter_read(&c->calls_refused)},
        {"weir_store_commits_total", PROM_COUNTER, "Commits to disk.", counter_read(&c->commits)},
        {"weir_store_commits_failed_total", PROM_COUNTER, "Commits that failed.", counter_read(&c->commits_failed)},
        {"weir_store_commit_calls_total", PROM_COUNTER, "Calls in all commits: how many share one.", counter_read(&c->commit_calls)},
        {"weir_store_events_total", PROM_COUNTER, "Events told to watches.", counter_read(&c->events)},
        {"weir_store_events_past_total", PROM_COUNTER, "Of them, those read from history on disk.", counter_read(&c->events_past)},
        {"weir_store_watches_behind_total", PROM_COUNTER, "How often a watch had to go on from history.", counter_read(&c->watches_behind)},
        {"weir_store_leases_expired_total", PROM_COUNTER, "Leases that expired.", counter_read(&c->leases_expired)},
        {"weir_store_compacted_rows_total", PROM_COUNTER, "Rows of history that compaction removed.", counter_read(&c->compacted_rows)},
        {"weir_store_past_reads_total", PROM_COUNTER, "Ranges read at a revision of the past.", counter_read(&c->past_reads)},
        {"weir_store_values_read_total", PROM_COUNTER, "Values of present keys that were read from disk, since they were not in memory.", counter_read(&c->values_read)},
        {"weir_store_serves", PROM_GAUGE, "1 while the store takes calls; 0: no member of its cluster serves, or the disk failed.", s.trouble == CTL_OK},
        {"weir_store_connects_total", PROM_COUNTER, "Connections to members of the etcd cluster that came to serve.", counter_read(&c->connects)},
        {"weir_store_connects_failed_total", PROM_COUNTER, "Attempts to connect that did not come so far.", counter_read(&c->connects_failed)},
        {"weir_store_calls_again_total", PROM_COUNTER, "Calls sent to etcd once more, or later, because nothing had been done.", counter_read(&c->calls_again)},
        {"weir_store_calls_unknown_total", PROM_COUNTER, "Of the failed, changes of which nobody can say whether they were made.", counter_read(&c->calls_unknown)},
        {"weir_store_watches_again_total", PROM_COUNTER, "Watches made anew at etcd: on another connection, or after a rest.", counter_read(&c->watches_again)},
    };
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        prom_family(out, all[i].name, all[i].type, all[i].help);
        prom_u64(out, all[i].name, "", NULL, 0, all[i].value);
    }
    if (e->store.api)
        etcd_api_metrics(e->store.api, out);
}
