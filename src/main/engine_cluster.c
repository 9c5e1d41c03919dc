/* engine_cluster.c - this node in a system of nodes: the fleet (fleet.h) wired to run, to the plan and to the objects. CLUSTER.md has the whole.
 *
 *     store open -> fleet -> member, everything read -> objects -> run with its shares, plan with others' endpoints
 *
 * What others apply comes by /weir/head: when its revision is not the one that is in force here, the objects are read again.
 */
#include "engine_int.h"
#include "join.h"
#include "mirror.h"
#include "prom.h"
#include "json_buf.h"
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define JOIN_MS 30000           /* the longest a first start waits to become a member */
#define HEAD_AGAIN_MS 50        /* while a change of this node is under way */
#define HEAD_FAILED_MS 1000     /* after a reading that failed */
#define NODE_ID_CHARS 16
#define HEAD_KEY "/weir/head"

/* ---- who this node is ---------------------------------------------------------------------------------------------------------- */

/* What tells a data folder from a copy of it, on this machine or another: both would hold the other's keys to be their own. After a reboot it is another, too, when
 * nothing of before runs any more. FNV-1a: for all engines the same. */
static uint64_t place_of(const char *dir)
{
    struct stat st = {0};
    struct buf boot = {0};
    uint64_t h = 0xcbf29ce484222325u;
    if (file_read("/proc/sys/kernel/random/boot_id", &boot, 64) != OK || stat(dir, &st) != 0)
        log_warn("cluster", "a copy of %s would not be told from it", dir);
    uint64_t parts[2] = {(uint64_t)st.st_dev, (uint64_t)st.st_ino};
    buf_add(&boot, parts, sizeof parts);
    for (size_t i = 0; i < boot.n; i++)
        h = (h ^ (uint8_t)boot.p[i]) * 0x100000001b3u;
    buf_free(&boot);
    return h;
}

/* DATA/node.id: the same for all engines of a data folder, and for no other. */
static bool instance_read(struct engine *e)
{
    struct buf path = {0}, text = {0};
    uint8_t bytes[NODE_ID_CHARS / 2];
    buf_printf(&path, "%s/node.id", e->conf.data_dir);
    enum err er = file_read(path.p, &text, 64);
    if (er == OK && slice_trim(slice_cut(buf_slice(&text), '\n', &(struct slice){0})).n == NODE_ID_CHARS) {
        e->cluster.instance = mem_strndup(MEM_API, text.p, NODE_ID_CHARS);
    } else {
        buf_clear(&text);
        random_bytes(bytes, sizeof bytes);
        for (size_t i = 0; i < sizeof bytes; i++)
            buf_printf(&text, "%02x", bytes[i]);
        e->cluster.instance = mem_strdup(MEM_API, text.p);
        buf_addc(&text, '\n');
        er = file_replace(path.p, text.p, text.n, 0600);
        if (er != OK)
            log_error("cluster", "%s can't be written: %s", path.p, err_text(er));
    }
    buf_free(&path);
    buf_free(&text);
    return er == OK;
}

/* "a=b,c=d" of --node-labels, checked by weir up. */
static void labels_read(struct engine *e)
{
    struct engine_cluster *c = &e->cluster;
    struct slice rest = slice_cstr(e->conf.node_labels);
    while (rest.n) {
        struct slice value, key = slice_cut(slice_cut(rest, ',', &rest), '=', &value);
        c->labels.items = mem_grow(MEM_API, c->labels.items, (c->labels.n + 1) * sizeof *c->labels.items);
        c->labels.items[c->labels.n++] = (struct kv){mem_strndup(MEM_API, key.p, key.n), mem_strndup(MEM_API, value.p, value.n), value.n};
    }
}

/* HOST:PORT of one member; several addresses of a name are several endpoints. */
static void endpoint_add(struct engine_cluster *c, struct slice host, uint16_t port)
{
    struct addr a;
    struct resolved all = {0};
    char *name = mem_strndup(MEM_API, host.p, host.n);
    if (addr_parse(host, port, &a) == OK) {
        all.items = mem_new(MEM_API, sizeof a);
        all.items[all.n++] = a;
    } else if (resolve_name(name, &all) != OK) {
        log_warn("cluster", "%s of --join can't be resolved", name);
    }
    for (uint32_t i = 0; i < all.n; i++) {
        c->endpoints = mem_grow(MEM_API, c->endpoints, (c->endpoints_n + 1) * sizeof *c->endpoints);
        all.items[i].port = port;
        c->endpoints[c->endpoints_n++] = (struct ctl_etcd_endpoint){.addr = all.items[i], .host = mem_strdup(MEM_API, name)};
    }
    mem_free(all.items);
    mem_free(name);
}

static void endpoints_free(struct engine_cluster *c)
{
    for (size_t i = 0; i < c->endpoints_n; i++)
        mem_free((char *)c->endpoints[i].host);
    mem_free(c->endpoints);
    c->endpoints = NULL;
    c->endpoints_n = 0;
}

/* [etcd://|etcds://|http://|https://]HOST:PORT,... of --join, checked by weir up. Names are resolved anew each time. */
static void endpoints_read(struct engine *e)
{
    struct engine_cluster *c = &e->cluster;
    struct slice rest = slice_cstr(e->conf.join);
    endpoints_free(c);
    while (rest.n) {
        bool tls;
        uint16_t port;
        struct slice host;
        if (join_endpoint_parse(slice_cut(rest, ',', &rest), &tls, &host, &port)) {
            c->tls = c->tls || tls;
            endpoint_add(c, host, port);
        }
    }
}

/* The first line of the file of --etcd-password. */
static bool password_read(struct engine *e, struct buf *out, struct buf *why)
{
    if (!e->conf.etcd_password[0])
        return true;
    enum err er = file_read(e->conf.etcd_password, out, 4096);
    if (er != OK)
        buf_printf(why, "%s can't be read: %s", e->conf.etcd_password, err_text(er));
    while (er == OK && out->n && (out->p[out->n - 1] == '\n' || out->p[out->n - 1] == '\r'))
        out->p[--out->n] = 0;
    return er == OK;
}

enum err cluster_store_open(struct engine *e, struct ctl **out, struct buf *why)
{
    struct engine_cluster *c = &e->cluster;
    struct ctl_etcd_conf conf;
    struct buf password = {0};
    enum err er = ERR_INVALID;
    endpoints_read(e);
    ctl_etcd_conf_default(&conf);
    conf.endpoints = c->endpoints;
    conf.endpoints_n = c->endpoints_n;
    conf.tls = c->tls || e->conf.etcd_ca[0] || e->conf.etcd_cert[0];
    conf.ca_file = e->conf.etcd_ca[0] ? e->conf.etcd_ca : NULL;
    conf.cert_file = e->conf.etcd_cert[0] ? e->conf.etcd_cert : NULL;
    conf.key_file = e->conf.etcd_key[0] ? e->conf.etcd_key : NULL;
    conf.user = e->conf.etcd_user[0] ? e->conf.etcd_user : NULL;
    if (!c->endpoints_n)
        buf_printf(why, "no member of --join %s can be found", e->conf.join);
    else if (password_read(e, &password, why)) {
        conf.password = conf.user ? password.p ? password.p : "" : NULL;
        er = ctl_etcd_open(&conf, e->loop, out, why);
    }
    buf_wipe(&password);
    return er;
}

/* Another node has changed them, and this one has not read them again. */
static bool objects_behind(const struct engine *e)
{
    const struct mirror_item *it = e->cluster.head ? mirror_get(e->cluster.head, SLICE("")) : NULL;
    const int64_t *revision = it ? it->data : NULL;
    return revision && *revision > objstore_revision(e->objs.store);
}

/* ---- the fleet's calls --------------------------------------------------------------------------------------------------------- */

/* Nobody is placed or forgotten by what they were before another node changed them, also where what that one made of them can't be read. */
static const struct objset *on_objects(void *ctx)
{
    struct engine *e = ctx;
    return e->objs.settled && !e->last.serving && !objects_behind(e) && objstore_whole(e->objs.store) ? e->objects : NULL;
}

static bool on_runs(void *ctx, const char *ns, const char *name)
{
    struct engine *e = ctx;
    return e->run && run_has(e->run, ns, name);
}

static void on_drop(void *ctx, const char *ns, const char *name, uint32_t ms)
{
    struct engine *e = ctx;
    if (e->run)
        run_drop(e->run, ns, name, ms);
}

/* ---- the supervisor's fence ------------------------------------------------------------------------------------------------------- */

static void fence_id(void *ctx, uint64_t id)
{
    struct engine_cluster *c = ctx;
    ARRAY_GROW(MEM_API, c->fenced, c->fenced_n, c->fenced_cap);
    c->fenced[c->fenced_n++] = id;
}

/* The time is the same for both processes: CLOCK_MONOTONIC. starting: a process that sup is asked for next; 0: none. */
static void fence_tell(struct engine *e, uint64_t starting)
{
    struct engine_cluster *c = &e->cluster;
    size_t before = c->fenced_n;
    c->fenced_n = 0;
    if (!e->run || !c->fence_ms)
        return;
    run_once_ids(e->run, fence_id, c);
    if (starting)
        fence_id(c, starting);
    if (c->fenced_n || before)
        sup_fence(e->sup, c->fence_ms, c->fenced, c->fenced_n);
}

static void on_fence(void *ctx, uint64_t until_ms)
{
    struct engine *e = ctx;
    e->cluster.fence_ms = until_ms;
    fence_tell(e, 0);
}

/* Before it is asked for: an engine that hangs from here on can't leave a process behind that nobody ends, and one that hung before asks in vain. */
void cluster_once_starting(struct engine *e, uint64_t id) { fence_tell(e, id); }

/* ---- what services outside say --------------------------------------------------------------------------------------------------- */

static const struct object *service_of(const struct engine *e, struct slice ns, struct slice name)
{
    char *ns_text = mem_strndup(MEM_API, ns.p, ns.n), *name_text = mem_strndup(MEM_API, name.p, name.n);
    const struct object *o = e->objects ? objset_find(e->objects, OBJ_SERVICE, ns_text, name_text) : NULL;
    mem_free(ns_text);
    mem_free(name_text);
    return o;
}

/* An event of the Service if there is one, so that those who write there can't fill the list of events with names of their own. */
static void on_left_out(void *ctx, struct slice ns, struct slice service, const char *message)
{
    struct engine *e = ctx;
    const struct object *o = service_of(e, ns, service);
    engine_event(e, o ? o->ns : "", o ? "Service" : "Node", o ? o->name : e->conf.name, true, "RegistrationRejected", message);
}

/* ---- what others say, for the plan ------------------------------------------------------------------------------------------------ */

static struct addr gate_of(const struct fleet_endpoint *ep)
{
    struct addr a = {0};
    if (!ep->gate || !engine_address_parse(slice_cstr(ep->gate), &a))
        a = (struct addr){0};
    return a;
}

const struct live_endpoint *cluster_endpoints(struct engine *e, const struct live_endpoint *own, size_t own_n, size_t *n)
{
    struct engine_cluster *c = &e->cluster;
    size_t others_n = 0, k = 0;
    *n = own_n;
    if (!c->fleet)
        return own;
    fleet_endpoints(c->fleet, own, own_n);
    const struct fleet_endpoint *const *others = fleet_others(c->fleet, &others_n);
    if (!others_n)
        return own;
    c->live = mem_grow(MEM_API, c->live, (own_n + others_n) * sizeof *c->live);
    for (; k < own_n; k++)
        c->live[k] = own[k];
    for (size_t i = 0; i < others_n; i++) {
        const struct fleet_endpoint *ep = others[i];
        if (ep->node)
            c->live[k++] = (struct live_endpoint){.replica_id = ep->id, .ns = ep->ns, .deployment = ep->workload, .name = ep->replica, .labels = &ep->labels, .ports = ep->ports,
                                                  .ports_n = ep->ports_n, .locality = ep->locality ? ep->locality : "", .node = ep->node, .gate = gate_of(ep)};
    }
    *n = k;
    return c->live;
}

/* Registrations that lead nowhere: said once, until there is such a Service or nobody registers for it any more. */
static void serviceless_look(struct engine *e, const struct fleet_endpoint *const *others, size_t n)
{
    struct table now = {0};
    struct buf key = {0};
    char text[400];
    for (size_t i = 0; i < n; i++) {
        const struct fleet_endpoint *ep = others[i];
        if (ep->node || objset_find(e->objects, OBJ_SERVICE, ep->ns, ep->workload))
            continue;
        buf_clear(&key);
        buf_printf(&key, "%s/%s", ep->ns, ep->workload);
        if (table_put(&now, buf_slice(&key), e) || table_get(&e->cluster.serviceless, buf_slice(&key)))
            continue;
        (void)snprintf(text, sizeof text, "registrations below /services/%.100s/ are not called: there is no Service %.63s in the namespace %.63s", key.p, ep->workload, ep->ns);
        text_clean(text);
        log_warn("cluster", "%s", text);
        engine_event(e, "", "Node", e->conf.name, true, "RegistrationUnused", text);
    }
    buf_free(&key);
    table_fini(&e->cluster.serviceless);
    e->cluster.serviceless = now;
}

const struct live_address *cluster_addresses(struct engine *e, const struct live_address *own, size_t own_n, size_t *n)
{
    struct engine_cluster *c = &e->cluster;
    size_t others_n = 0, k = 0;
    const struct fleet_endpoint *const *others = c->fleet ? fleet_others(c->fleet, &others_n) : NULL;
    *n = own_n;
    serviceless_look(e, others, others_n);
    if (!others_n)
        return own;
    c->addresses = mem_grow(MEM_API, c->addresses, (own_n + others_n) * sizeof *c->addresses);
    for (; k < own_n; k++)
        c->addresses[k] = own[k];
    for (size_t i = 0; i < others_n; i++) {
        const struct fleet_endpoint *ep = others[i];
        struct addr a;
        if (!ep->node && ep->weight && addr_parse(slice_cstr(ep->address), ep->ports[0].port, &a) == OK)
            c->addresses[k++] = (struct live_address){.ns = ep->ns, .service = ep->workload, .ip = a, .registered = true, .weight = ep->weight, .locality = ep->locality};
    }
    *n = k;
    return c->addresses;
}

/* Whether what the plan takes from others is another than last time. */
static bool others_differ(struct engine_cluster *c)
{
    size_t n;
    uint64_t h = 1;
    const struct fleet_endpoint *const *others = fleet_others(c->fleet, &n);
    for (size_t i = 0; i < n; i++) {
        const struct fleet_endpoint *ep = others[i];
        const char *texts[] = {ep->node, ep->gate, ep->ns, ep->workload, ep->replica, ep->locality, ep->address};
        uint64_t parts[COUNT_OF(texts) + 3] = {h, ep->id, ep->weight};
        for (size_t k = 0; k < COUNT_OF(texts); k++)
            parts[3 + k] = texts[k] ? hash_slice(slice_cstr(texts[k])) : 0;
        h = hash_bytes(parts, sizeof parts);
        for (size_t k = 0; k < ep->ports_n; k++)
            h = h * 31 + ep->ports[k].port;
    }
    bool differ = h != c->others_hash;
    c->others_hash = h;
    return differ;
}

static void cluster_begin(struct engine *e);

static void store_checked(struct node_sync *s) { CONTAINER_OF(s, struct engine, cluster.check)->cluster.checking = false; }

/* Who was away may find another store than before. */
static void store_check(struct engine *e)
{
    struct fleet_status s;
    fleet_status(e->cluster.fleet, &s);
    if (!s.member || s.rejoins == e->cluster.checked || e->cluster.checking)
        return;
    e->cluster.checked = s.rejoins;
    e->cluster.checking = true;
    e->cluster.check.done = store_checked;
    engine_sync(e, &e->cluster.check);
}

static void on_changed(void *ctx)
{
    struct engine *e = ctx;
    if (e->cluster.waiting)
        cluster_begin(e);
    log_home_follow(e);
    if (!e->run || !e->objs.settled)
        return;
    store_check(e);
    run_shares(e->run);
    status_unplaced(e);
    status_soon(e);
    last_soon(e);
    if (others_differ(&e->cluster))
        engine_publish(e);
}

uint32_t cluster_share(struct engine *e, const struct object *dep) { return e->cluster.fleet ? fleet_share(e->cluster.fleet, dep) : dep->dep.replicas; }

bool cluster_placed(const struct engine *e, const struct object *dep) { return !e->cluster.join || (e->cluster.fleet && fleet_placed(e->cluster.fleet, dep)); }

/* ---- objects of others ---------------------------------------------------------------------------------------------------------------- */

static void *head_make(void *ctx, struct slice key, struct slice value)
{
    json_error_t at;
    json_t *o = json_loadb(value.p, value.n, 0, &at);
    int64_t *revision = mem_new(MEM_API, sizeof *revision);
    *revision = json_integer_value(json_object_get(o, "revision"));
    json_decref(o);
    return revision;
}

static void head_look(struct engine *e)
{
    if (!e->cluster.head || !e->objs.settled || e->last.serving || !objects_behind(e))
        return;
    if (e->objs.now || e->objs.reading) { /* perhaps it is what this node has just written */
        timer_set(e->loop, &e->cluster.head_again, HEAD_AGAIN_MS);
        return;
    }
    e->objs.reread = true;
    loop_defer(e->loop, &e->objs.turn);
}

static void head_changed(void *ctx) { head_look(ctx); }
static void head_again(struct timer *t) { head_look(CONTAINER_OF(t, struct engine, cluster.head_again)); }

/* The mirror tells a change of the head once; what could not be read then is not told again. */
void cluster_head_again(struct engine *e)
{
    if (e->cluster.head)
        timer_set(e->loop, &e->cluster.head_again, HEAD_FAILED_MS);
}

int64_t cluster_head_at(const struct engine *e)
{
    const struct mirror_item *it = e->cluster.head ? mirror_get(e->cluster.head, SLICE("")) : NULL;
    return it ? it->mod_revision : 0;
}

static void head_start(struct engine *e)
{
    static const struct mirror_ops head = {head_make, mem_free, head_changed, false, 0};
    e->cluster.head = mirror_start(e->loop, e->store.ctl, HEAD_KEY, &head, e);
}

/* What watches wait for comes when the store is where it was: until then they would tell nothing. */
void cluster_went_back(struct engine *e)
{
    if (!e->cluster.head || !e->cluster.fleet)
        return;
    log_warn("cluster", "the control store is older than it was (restored from a backup?): everything is read anew");
    mirror_stop(e->cluster.head);
    head_start(e);
    status_again(e);
    fleet_again(e->cluster.fleet);
}

/* Replicas have started or are gone; the objects are other ones. */
void cluster_touch(struct engine *e)
{
    if (!e->cluster.fleet)
        return;
    if (e->cluster.join) {
        fence_tell(e, 0);
        head_look(e); /* what the mirror told before there were objects is not told again */
    }
    status_soon(e);
    fleet_touch(e->cluster.fleet);
}

/* ---- up and down ---------------------------------------------------------------------------------------------------------------------------- */

/* The objects can be read: who runs what is known. */
static void cluster_begin(struct engine *e)
{
    if (e->cluster.join && !fleet_ready(e->cluster.fleet))
        return;
    e->cluster.waiting = false;
    timer_clear(&e->cluster.patience);
    objects_begin(e);
}

static void join_over(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, cluster.patience);
    struct fleet_status s;
    if (!e->cluster.waiting || e->later || e->last.began || !e->cluster.fleet)
        return;
    fleet_status(e->cluster.fleet, &s);
    fprintf(stderr, "weir: this node could not join %s in %d s: %s\n", e->conf.join, JOIN_MS / 1000, s.why[0] ? s.why : "the control store does not answer");
    e->cluster.waiting = false;
    engine_unsettled(e);
}

void cluster_objects(struct engine *e)
{
    e->cluster.waiting = true;
    if (e->cluster.join)
        timer_set(e->loop, &e->cluster.patience, JOIN_MS);
    last_wait(e);
    cluster_begin(e);
}

void cluster_up(struct engine *e)
{
    static const struct fleet_ops ops = {.objects = on_objects, .changed = on_changed, .runs = on_runs, .drop = on_drop, .fence = on_fence, .left_out = on_left_out};
    struct engine_cluster *c = &e->cluster;
    char gate[ADDR_TEXT_MAX], place[17];
    addr_format(&e->peers.gate, gate);
    (void)snprintf(place, sizeof place, "%016llx", (unsigned long long)place_of(e->conf.data_dir));
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    struct fleet_conf conf = {.node = e->conf.name, .instance = c->instance, .place = place, .gate = e->peers.gate.family == ADDR_NONE ? NULL : gate, .locality = e->conf.locality, .version = WEIR_VERSION,
                              .labels = &c->labels, .cpu_milli = (uint64_t)MAX(1, cpus) * 1000, .memory = (uint64_t)MAX(1, pages) * (uint64_t)MAX(1, page), .alone = !c->join, .log = !e->broker.off};
    c->fleet = fleet_start(e->loop, e->store.ctl, &conf, &ops, e);
    if (!c->join)
        return;
    head_start(e);
    status_up(e);
}

static void cluster_left(void *ctx) { ((struct engine *)ctx)->cluster.leaving = false; }

void cluster_cordon(struct engine *e)
{
    if (e->cluster.join && e->cluster.fleet)
        fleet_cordon(e->cluster.fleet);
}

/* Another node could take what is still placed here. */
bool cluster_moving(const struct engine *e)
{
    size_t n;
    uint32_t shares = 0;
    struct fleet_status s;
    if (!e->cluster.join || !e->cluster.fleet || !e->objs.settled)
        return false;
    fleet_status(e->cluster.fleet, &s);
    (void)fleet_nodes(e->cluster.fleet, &n);
    for (size_t i = 0; i < objset_n(e->objects) && n > 1; i++)
        shares += objset_at(e->objects, i)->kind == OBJ_DEPLOYMENT ? fleet_share(e->cluster.fleet, objset_at(e->objects, i)) : 0;
    return s.member && shares > 0;
}

/* At the node's end its keys go at once. An engine that makes way for another, or whose workloads go on without it, leaves them to the next. */
void cluster_leave(struct engine *e)
{
    bool nothing_runs = e->run_stopped || !e->later;
    if (!e->cluster.fleet || !e->stopping || !nothing_runs || e->cluster.leaving)
        return;
    e->cluster.leaving = true;
    fleet_leave(e->cluster.fleet, cluster_left, e);
}

void cluster_down(struct engine *e)
{
    status_down(e);
    mirror_stop(e->cluster.head);
    fleet_stop(e->cluster.fleet);
    e->cluster.head = NULL;
    e->cluster.fleet = NULL;
    e->cluster.leaving = e->cluster.waiting = false;
    timer_clear(&e->cluster.head_again);
    timer_clear(&e->cluster.patience);
}

void cluster_init(struct engine *e)
{
    timer_init(&e->cluster.head_again, head_again);
    status_init(e);
    last_init(e);
    timer_init(&e->cluster.patience, join_over);
    e->cluster.join = e->conf.join[0] != 0;
    labels_read(e);
    if (!instance_read(e))
        log_error("cluster", "this node can't be told from others of its name after a restart");
}

void cluster_fini(struct engine *e)
{
    struct engine_cluster *c = &e->cluster;
    endpoints_free(c);
    last_fini(e);
    status_fini(e);
    for (size_t i = 0; i < c->labels.n; i++) {
        mem_free(c->labels.items[i].key);
        mem_free(c->labels.items[i].value);
    }
    mem_free(c->labels.items);
    mem_free(c->instance);
    mem_free(c->live);
    mem_free(c->addresses);
    table_fini(&c->serviceless);
    mem_free(c->fenced);
}

/* ---- what is shown ------------------------------------------------------------------------------------------------------------------------------ */

const char *cluster_trouble(const struct engine *e)
{
    struct fleet_status s = {.member = true};
    if (e->cluster.join && e->cluster.fleet)
        fleet_status(e->cluster.fleet, &s);
    if (e->last.serving)
        return "the control store has not answered since this node began: it goes on with its last plan";
    return s.member && !(s.why && s.why[0]) ? NULL : s.why && s.why[0] ? s.why : "this node is not a member yet";
}

static json_t *node_json(const struct engine *e, const struct fleet_node *n, uint32_t replicas)
{
    json_t *labels = json_object();
    for (size_t i = 0; i < n->labels.n; i++)
        json_object_set_new(labels, n->labels.items[i].key, json_string(n->labels.items[i].value));
    const char *why = n->self ? cluster_trouble(e) : NULL;
    char when[32] = "", cpu[32], memory[32];
    time_t s = (time_t)(n->since_ns / 1000000000u);
    struct tm tm;
    if (n->since_ns && gmtime_r(&s, &tm))
        (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    (void)snprintf(cpu, sizeof cpu, "%llum", (unsigned long long)n->cpu_milli);
    (void)snprintf(memory, sizeof memory, "%lluKi", (unsigned long long)(n->memory >> 10));
    return json_pack("{s:s,s:s,s:{s:s,s:s,s:o},s:{s:[{s:s,s:s,s:s,s:s}],s:[{s:s,s:s}],s:{s:s,s:s},s:{s:s},s:s,s:b,s:i,s:b}}", "apiVersion", "v1", "kind", "Node", "metadata", "name", n->name,
                     "creationTimestamp", when, "labels", labels, "status", "conditions", "type", "Ready", "status", why ? "False" : "True", "reason", why ? "NotAMember" : "Member", "message",
                     why ? why : "", "addresses", "type", "InternalIP", "address", n->gate ? n->gate : "", "allocatable", "cpu", cpu, "memory", memory, "nodeInfo", "kubeletVersion", n->version,
                     "locality", n->locality, "leader", n->leader, "readyReplicas", (int)replicas, "leaving", n->leaving);
}

/* {"apiVersion":"v1","kind":"List","items":[Node, ...]} */
void cluster_nodes(struct engine *e, struct buf *out)
{
    size_t n = 0, others_n = 0, own_n = 0;
    json_t *items = json_array();
    const struct fleet_node *const *nodes = e->cluster.fleet ? fleet_nodes(e->cluster.fleet, &n) : NULL;
    const struct fleet_endpoint *const *others = e->cluster.fleet ? fleet_others(e->cluster.fleet, &others_n) : NULL;
    if (e->run)
        (void)run_endpoints(e->run, &own_n);
    for (size_t i = 0; i < n; i++) {
        uint32_t replicas = nodes[i]->self ? (uint32_t)own_n : 0;
        for (size_t k = 0; k < others_n; k++)
            replicas += others[k]->node && strcmp(others[k]->node, nodes[i]->name) == 0;
        json_array_append_new(items, node_json(e, nodes[i], replicas));
    }
    json_t *list = json_pack("{s:s,s:s,s:o}", "apiVersion", "v1", "kind", "List", "items", items);
    (void)json_buf_add(list, JSON_COMPACT, out);
    json_decref(list);
}

void nodes_metrics(const struct engine *e, struct buf *out)
{
    struct fleet_status s;
    size_t n;
    if (!e->cluster.fleet)
        return;
    fleet_status(e->cluster.fleet, &s);
    (void)fleet_nodes(e->cluster.fleet, &n);
    struct {
        const char *name;
        enum prom_type type;
        const char *help;
        uint64_t value;
    } all[] = {
        {"weir_cluster_nodes", PROM_GAUGE, "Nodes of the system that this node knows.", n},
        {"weir_cluster_member", PROM_GAUGE, "1 while this node's lease is valid.", s.member},
        {"weir_cluster_leader", PROM_GAUGE, "1 while this node leads.", s.leader},
        {"weir_cluster_log_keeper", PROM_GAUGE, "1 while this node keeps the event log of all.", !e->broker.off && e->broker.place == LOG_HERE},
        {"weir_cluster_rejoins_total", PROM_COUNTER, "Leases that were lost.", s.rejoins},
        {"weir_cluster_services_left_out_total", PROM_COUNTER, "Services outside whose registration is beyond the limit.", s.services_left_out},
        {"weir_cluster_fenced_total", PROM_COUNTER, "Deployments that run once and were ended here for a lease that ran out.", s.fenced},
    };
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        prom_family(out, all[i].name, all[i].type, all[i].help);
        prom_u64(out, all[i].name, "", NULL, 0, all[i].value);
    }
}
