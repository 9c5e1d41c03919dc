/* engine_node.c - the node as api sees it: objects, readiness, metrics, captured output. */
#include "engine_int.h"
#include "prom.h"
#include <time.h>
#include <unistd.h>

/* ---- captured output -------------------------------------------------------------------------------------------------- */

struct workload_log {
    char *path;
    struct log_file *file;
};

static struct workload_log *log_of(struct engine *e, const char *ns, const char *deployment, bool make)
{
    struct buf key = {0};
    buf_printf(&key, "%s/%s", ns, deployment);
    struct workload_log *w = table_get(&e->logs, buf_slice(&key));
    if (!w && make) {
        struct buf path = {0};
        buf_printf(&path, "%s/logs/%s.%s.log", e->conf.data_dir, ns, deployment);
        w = mem_new(MEM_LOG, sizeof *w);
        w->path = buf_take(&path, NULL);
        w->file = log_file_open(w->path, LOG_FILE_BYTES_MAX);
        if (!w->file)
            log_error("log", "%s can't be opened: the output of %s/%s is not kept", w->path, ns, deployment);
        table_put(&e->logs, buf_slice(&key), w);
    }
    buf_free(&key);
    return w;
}

/* A line as it is kept: TIME REPLICA STREAM TEXT. */
static void line_format(struct buf *b, const char *replica, bool from_stderr, struct slice line)
{
    uint64_t ms = wall_ns() / 1000000u;
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    buf_printf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ %s %s ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (unsigned)(ms % 1000), replica,
               from_stderr ? "stderr" : "stdout");
    buf_add_slice(b, line);
}

void engine_output(struct engine *e, const char *ns, const char *deployment, const char *replica, bool from_stderr, struct slice line)
{
    struct workload_log *w = log_of(e, ns, deployment, true);
    struct buf b = {0};
    line_format(&b, replica, from_stderr, line);
    if (w->file)
        log_file_put(w->file, b.p, b.n); /* a full ring is counted by the log and shown in /metrics */
    if (e->api_open)
        api_log_line(e->api, ns, deployment, buf_slice(&b));
    if (e->console) {
        buf_clear(&b);
        buf_printf(&b, "%s | ", replica);
        buf_add_slice(&b, line);
        log_file_put(e->console, b.p, b.n);
    }
    buf_free(&b);
}

static void log_close(struct workload_log *w)
{
    if (w->file)
        log_file_close(w->file);
    mem_free(w->path);
    mem_free(w);
}

/* The key is "namespace/deployment". */
static bool log_is_used(const struct engine *e, const struct table_slot *log)
{
    struct slice name, ns = slice_cut(slice_of(log->key, log->key_n), '/', &name);
    for (size_t i = 0; i < objset_n(e->objects); i++) {
        const struct object *o = objset_at(e->objects, i);
        if (o->kind == OBJ_DEPLOYMENT && slice_is(ns, o->ns) && slice_is(name, o->name))
            return true;
    }
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));) {
        const struct mesh_replica *m = s->value;
        if (slice_is(ns, m->ns) && slice_is(name, m->workload))
            return true;
    }
    return false;
}

/* What is closed here was wanted once: each log holds a descriptor and a ring of memory. */
void engine_logs_trim(struct engine *e)
{
    struct table_slot *s = NULL;
    while ((s = table_next(&e->logs, s))) {
        if (log_is_used(e, s))
            continue;
        struct workload_log *w = table_del(&e->logs, slice_of(s->key, s->key_n));
        e->log_lines_dropped += w->file ? log_file_dropped(w->file) : 0;
        log_close(w);
        s = NULL; /* the table has moved: from the start */
    }
}

void engine_output_flush(struct engine *e)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->logs, s));) {
        struct workload_log *w = s->value;
        if (w->file)
            log_file_flush(w->file);
    }
}

void engine_output_close(struct engine *e)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->logs, s));) {
        struct workload_log *w = s->value;
        e->log_lines_dropped += w->file ? log_file_dropped(w->file) : 0;
        log_close(w);
    }
    table_fini(&e->logs);
}

void engine_logs_close(struct engine *e)
{
    engine_output_close(e);
    if (e->console)
        log_file_close(e->console);
    if (e->access)
        log_file_close(e->access);
}

/* ---- node_ops ------------------------------------------------------------------------------------------------------------- */

static const struct objset *node_objects(void *ctx) { return ((struct engine *)ctx)->objects; }
static void node_change(void *ctx, struct node_change *c) { engine_change(ctx, c); }
static void node_events(void *ctx, uint64_t after, void (*each)(void *x, const struct node_event *e), void *x) { events_each(((struct engine *)ctx)->events, after, each, x); }
static void node_history(void *ctx, struct node_history *h) { engine_history(ctx, h); }
static struct run *node_run(void *ctx) { return ((struct engine *)ctx)->run; }
static const struct plan *node_plan(void *ctx) { return ((struct engine *)ctx)->plan; }

static struct proxy *const *node_workers(void *ctx, uint32_t *n)
{
    struct engine *e = ctx;
    *n = e->workers_n;
    return e->proxies;
}

struct ready_ctx {
    struct buf *why;
    bool ready;
};

static void workload_ready(void *ctx, const struct workload_status *w)
{
    struct ready_ctx *r = ctx;
    if (w->wanted == 0 || w->ready >= w->wanted)
        return;
    if (r->ready)
        buf_printf(r->why, "workload %s/%s: %u of %u replicas ready%s%s", w->ns, w->name, w->ready, w->wanted, *w->why ? ": " : "", w->why);
    r->ready = false;
}

/* Of several nodes: what this one is to run is known. */
static bool all_placed(const struct engine *e, struct buf *why_not)
{
    for (size_t i = 0; i < objset_n(e->objects); i++) {
        const struct object *o = objset_at(e->objects, i);
        if (o->kind != OBJ_DEPLOYMENT || cluster_placed(e, o))
            continue;
        buf_printf(why_not, "workload %s/%s: the leader has not placed it yet", o->ns, o->name);
        return false;
    }
    return true;
}

static bool node_listens(void *ctx, const struct addr *at, const char **why)
{
    const struct engine *e = ctx;
    for (size_t i = 0; i < e->gates_n; i++)
        if (e->gates[i].wanted && !e->gates[i].open && addr_eq(&e->gates[i].address, at)) {
            *why = e->gates[i].why ? e->gates[i].why : "";
            return false;
        }
    return true;
}

/* Ready: the Gateways listen, the workers use a plan, and every workload has once been whole. What happens to single
 * workloads later is not the node's readiness. */
static bool node_ready(void *ctx, struct buf *why_not)
{
    struct engine *e = ctx;
    if (!e->objs.settled || e->stopping) {
        buf_adds(why_not, e->stopping ? "the node is stopping" : "the node is starting");
        return false;
    }
    for (uint32_t i = 0; i < e->workers_n; i++)
        if (proxy_plan_generation(e->proxies[i]) == 0) {
            buf_adds(why_not, "a worker has no plan yet");
            return false;
        }
    for (size_t i = 0; i < e->gates_n; i++)
        if (!e->gates[i].open) {
            buf_printf(why_not, "%s does not listen%s%s", e->gates[i].gateway, e->gates[i].why ? ": " : " yet", e->gates[i].why ? e->gates[i].why : "");
            return false;
        }
    if (!broker_ready(e, why_not) || !store_ready(e, why_not))
        return false;
    if (!e->was_ready && !all_placed(e, why_not))
        return false;
    struct ready_ctx r = {why_not, true};
    if (!e->was_ready)
        run_status(e->run, workload_ready, &r);
    e->was_ready = r.ready;
    if (r.ready)
        buf_adds(why_not, cluster_trouble(e) ? cluster_trouble(e) : "");
    return r.ready;
}

static void node_down(void *ctx)
{
    engine_stop(ctx);
}

static enum err node_upgrade(void *ctx, const char *binary, uint32_t ready_ms, uint32_t drain_ms, struct buf *why_not)
{
    return upgrade_ask(ctx, binary, ready_ms, drain_ms, why_not);
}

static uint64_t resident_bytes(void)
{
    struct buf b = {0};
    uint64_t pages = 0;
    if (file_read("/proc/self/statm", &b, 4096) == OK) {
        struct slice rest = buf_slice(&b);
        slice_cut(rest, ' ', &rest);
        if (slice_u64(slice_cut(rest, ' ', &rest), UINT64_MAX, &pages) != OK)
            pages = 0;
    }
    buf_free(&b);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void plan_metrics(const struct plan *p, struct buf *out)
{
    uint64_t endpoints = 0;
    for (uint32_t i = 0; i < p->clusters_n; i++)
        endpoints += p->clusters[i].eps_n;
    struct { const char *name, *help; uint64_t value; } gauges[] = {
        {"weir_plan_generation", "Generation of the plan in force.", p->generation},
        {"weir_plan_bytes", "Memory that the plan in force holds.", p->bytes},
        {"weir_plan_endpoints", "Endpoints in the plan in force.", endpoints},
        {"weir_plan_clusters", "Service ports in the plan in force.", p->clusters_n},
        {"weir_plan_routes", "HTTPRoutes that the plan in force has counters for.", p->route_slots},
    };
    for (size_t i = 0; i < COUNT_OF(gauges); i++) {
        prom_family(out, gauges[i].name, PROM_GAUGE, gauges[i].help);
        prom_u64(out, gauges[i].name, "", NULL, 0, gauges[i].value);
    }
    prom_family(out, "weir_plan_compile_seconds", PROM_GAUGE, "Time it took to compile the plan in force.");
    prom_double(out, "weir_plan_compile_seconds", "", NULL, 0, (double)p->compile_ns / 1e9);
    proxy_health_metrics(p, out);
}

static void node_metrics(void *ctx, struct buf *out)
{
    struct engine *e = ctx;
    struct prom_label version = {"version", SLICE(WEIR_VERSION)};
    prom_family(out, "weir_build_info", PROM_GAUGE, "This build; always 1.");
    prom_u64(out, "weir_build_info", "", &version, 1, 1);
    prom_family(out, "weir_engine_restarts_total", PROM_COUNTER, "Times the supervisor has restarted the engine.");
    prom_u64(out, "weir_engine_restarts_total", "", NULL, 0, e->restarts);
    prom_family(out, "weir_engine_upgrades_total", PROM_COUNTER, "Times another binary's engine has taken over from the one before.");
    prom_u64(out, "weir_engine_upgrades_total", "", NULL, 0, e->history.upgrades);
    prom_family(out, "weir_tls_ticket_rotations_total", PROM_COUNTER, "New keys for TLS session tickets, made by this engine.");
    prom_u64(out, "weir_tls_ticket_rotations_total", "", NULL, 0, e->ticket_rotations);
    prom_family(out, "process_resident_memory_bytes", PROM_GAUGE, "Resident memory of the engine.");
    prom_u64(out, "process_resident_memory_bytes", "", NULL, 0, resident_bytes());
    prom_family(out, "weir_memory_bytes", PROM_GAUGE, "Memory held, by purpose.");
    for (enum mem_tag t = 0; t < MEM_TAG_COUNT; t++) {
        struct prom_label l = {"tag", slice_cstr(mem_tag_name(t))};
        prom_u64(out, "weir_memory_bytes", "", &l, 1, mem_bytes(t));
    }
    prom_family(out, "weir_workload_log_dropped_total", PROM_COUNTER, "Lines of workloads' output that were not kept because the log could not keep up.");
    uint64_t dropped = e->log_lines_dropped;
    for (struct table_slot *s = NULL; (s = table_next(&e->logs, s));) {
        struct workload_log *w = s->value;
        dropped += w->file ? log_file_dropped(w->file) : 0;
    }
    prom_u64(out, "weir_workload_log_dropped_total", "", NULL, 0, dropped);
    if (e->plan)
        plan_metrics(e->plan, out);
    names_metrics(e->names, e->workers_n, out);
    if (e->broker.state == BROKER_SERVING)
        broker_metrics(e->broker.b, out);
    store_metrics(e, out);
    events_metrics(e->events, out);
    nodes_metrics(e, out);
}

static bool node_shared(void *ctx) { return ((struct engine *)ctx)->cluster.join && ((struct engine *)ctx)->cluster.told; }
static void node_sync(void *ctx, struct node_sync *s) { engine_sync(ctx, s); }
static void node_elsewhere(void *ctx, void (*each)(void *x, const char *node, const struct workload_status *w), void *x) { cluster_elsewhere(ctx, each, x); }
static const char *node_name(void *ctx) { return ((struct engine *)ctx)->conf.name; }

static uint32_t node_unplaced(void *ctx, const struct object *dep, const char **why)
{
    struct engine *e = ctx;
    *why = "the leader has not placed it yet";
    return cluster_placed(e, dep) && e->cluster.fleet ? fleet_unplaced(e->cluster.fleet, dep, why) : 0;
}

static void node_log_top(void *ctx, struct buf *json)
{
    const struct engine *e = ctx;
    if (e->broker.state == BROKER_SERVING)
        broker_top(e->broker.b, json);
    else
        buf_adds(json, "{}");
}

static void node_nodes(void *ctx, struct buf *json) { cluster_nodes(ctx, json); }

static const char *node_log_path(void *ctx, const char *ns, const char *deployment)
{
    struct engine *e = ctx;
    if (!objset_find(e->objects, OBJ_DEPLOYMENT, ns, deployment) && !log_of(e, ns, deployment, false))
        return NULL;
    return log_of(e, ns, deployment, true)->path;
}

static int node_keyspace(void *ctx, struct buf *why) { return store_keyspace_status(ctx, why); }
static int node_topic(void *ctx, const struct object *o, struct buf *why) { return topics_status(ctx, o, why); }

static void node_info(void *ctx, struct buf *json)
{
    static const char *const nets[] = {"sk_lookup", "listeners inside each namespace", "host ports"};
    struct engine *e = ctx;
    buf_printf(json, "{\"version\":\"%s\",\"pid\":%d,\"name\":", WEIR_VERSION, (int)getpid());
    buf_add_json(json, slice_cstr(e->conf.name));
    buf_printf(json, ",\"workers\":%u,\"engine_restarts\":%u,\"engine_upgrades\":%u,\"leaving_pid\":%d,\"network\":\"%s\",\"namespaces\":%s,\"cgroup\":%d,\"seccomp\":%s,\"warnings\":[", e->workers_n, e->restarts,
               e->history.upgrades, (int)e->leaving_pid, nets[e->caps.net],
               e->caps.namespaces ? "true" : "false", e->caps.cgroup, e->caps.seccomp ? "true" : "false");
    if (e->caps.why[0])
        buf_add_json(json, slice_cstr(e->caps.why));
    buf_adds(json, "],\"listeners\":[");
    for (size_t i = 0; i < e->gates_n; i++) {
        char at[ADDR_TEXT_MAX];
        addr_format(&e->gates[i].address, at);
        buf_printf(json, "%s{\"address\":\"%s\",\"gateway\":", i ? "," : "", at);
        buf_add_json(json, slice_cstr(e->gates[i].gateway));
        buf_printf(json, ",\"open\":%s,\"why\":", e->gates[i].open ? "true" : "false");
        buf_add_json(json, slice_cstr(e->gates[i].why ? e->gates[i].why : ""));
        buf_adds(json, "}");
    }
    buf_adds(json, "]}");
}

static const struct keyring *node_keys(void *ctx) { return ((struct engine *)ctx)->keys; }

const struct node_ops engine_node_ops = {.objects = node_objects,
                                         .keys = node_keys,
                                         .change = node_change,
                                         .history = node_history,
                                         .events = node_events,
                                         .run = node_run,
                                         .plan = node_plan,
                                         .workers = node_workers,
                                         .ready = node_ready,
                                         .listens = node_listens,
                                         .down = node_down,
                                         .upgrade = node_upgrade,
                                         .metrics = node_metrics,
                                         .log_path = node_log_path,
                                         .topic = node_topic,
                                         .keyspace = node_keyspace,
                                         .log_top = node_log_top,
                                         .nodes = node_nodes,
                                         .shared = node_shared,
                                         .sync = node_sync,
                                         .elsewhere = node_elsewhere,
                                         .unplaced = node_unplaced,
                                         .name = node_name,
                                         .info = node_info};
