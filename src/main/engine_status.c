/* engine_status.c - what nodes tell each other of their workloads, so that each can show the whole; and what is said of replicas for which there is no node.
 *
 *     run --soon--> a JSON for each Deployment that has something here --fleet_tells()--> /weir/workloads/NAMESPACE/NAME/NODE, under the node's lease
 *     the keys of all nodes --mirror--> struct told --cluster_elsewhere()--> api (workloads.c adds them up)
 *
 * Written when something has happened, at most every SOON_MS, and while a rollout is not complete looked at every AGAIN_MS: what differs is written. Only between
 * nodes; a node alone has nobody to tell.
 */
#include "engine_int.h"
#include "mirror.h"
#include <jansson.h>

#define SOON_MS 50
#define AGAIN_MS 500
#define TOLD_REPLICAS_MAX 256 /* of one Deployment on one node: more are counted, not named */

/* ---- to others ----------------------------------------------------------------------------------------------------------------- */

struct telling {
    struct fleet_told *items;
    size_t n, cap;
    bool complete;
};

static void text_add(struct buf *b, const char *key, const char *value)
{
    buf_printf(b, ",\"%s\":", key);
    buf_add_json(b, slice_cstr(value ? value : ""));
}

static void replica_json(struct buf *b, const struct replica_status *r)
{
    buf_printf(b, "%s{\"pid\":%d,\"restarts\":%u,\"ready\":%s,\"updated\":%s,\"started_ns\":%llu", b->p[b->n - 1] == '[' ? "" : ",", (int)r->pid, r->restarts, r->ready ? "true" : "false",
               r->up_to_date ? "true" : "false", (unsigned long long)r->started_wall_ns);
    text_add(b, "name", r->name);
    text_add(b, "phase", r->phase);
    text_add(b, "why", r->why);
    buf_addc(b, '}');
}

static void workload_tell(void *ctx, const struct workload_status *w)
{
    struct telling *t = ctx;
    struct buf b = {0};
    t->complete = t->complete && w->complete;
    if (!w->wanted && !w->current)
        return;
    buf_printf(&b, "{\"generation\":%llu,\"revision\":%llu,\"wanted\":%u,\"current\":%u,\"updated\":%u,\"ready\":%u,\"available\":%u,\"complete\":%s%s", (unsigned long long)w->generation,
               (unsigned long long)w->revision, w->wanted, w->current, w->updated, w->ready, w->available, w->complete ? "true" : "false", w->late ? ",\"late\":true" : "");
    text_add(&b, "why", w->why);
    buf_adds(&b, ",\"replicas\":[");
    for (size_t i = 0; i < MIN(w->replicas_n, (size_t)TOLD_REPLICAS_MAX); i++)
        replica_json(&b, &w->replicas[i]);
    buf_adds(&b, "]}");
    ARRAY_GROW(MEM_API, t->items, t->n, t->cap);
    t->items[t->n++] = (struct fleet_told){mem_strdup(MEM_API, w->ns), mem_strdup(MEM_API, w->name), buf_take(&b, NULL)};
}

static void status_tell(struct timer *timer)
{
    struct engine *e = CONTAINER_OF(timer, struct engine, cluster.tell);
    struct telling t = {.complete = true};
    if (!e->cluster.fleet || !e->run || !e->objs.settled)
        return;
    run_status(e->run, workload_tell, &t);
    fleet_tells(e->cluster.fleet, t.items, t.n);
    for (size_t i = 0; i < t.n; i++) {
        mem_free((char *)t.items[i].ns);
        mem_free((char *)t.items[i].name);
        mem_free(t.items[i].json);
    }
    mem_free(t.items);
    if (!t.complete)
        timer_set(e->loop, &e->cluster.tell, AGAIN_MS);
}

void status_soon(struct engine *e)
{
    if (e->cluster.join && (!timer_is_set(&e->cluster.tell) || e->cluster.tell.due_ms > loop_now_ms(e->loop) + SOON_MS))
        timer_set(e->loop, &e->cluster.tell, SOON_MS);
}

/* ---- from others ---------------------------------------------------------------------------------------------------------------- */

struct told {
    const char *node;
    struct workload_status w;
    struct arena mem;            /* of all that it refers to */
};

static uint64_t number_of(const json_t *o, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n > 0 ? (uint64_t)n : 0;
}

static uint32_t count_of(const json_t *o, const char *key) { return (uint32_t)MIN(number_of(o, key), 1000000u); }
static bool flag_of(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static const char *text_of(struct arena *a, const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return arena_strdup(a, s ? s : "");
}

static void replicas_read(struct told *t, const json_t *list)
{
    size_t n = MIN(json_array_size(list), (size_t)TOLD_REPLICAS_MAX);
    struct replica_status *out = arena_zalloc(&t->mem, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(list, i);
        out[i] = (struct replica_status){.name = text_of(&t->mem, o, "name"), .node = t->node, .phase = text_of(&t->mem, o, "phase"), .ready = flag_of(o, "ready"), .up_to_date = flag_of(o, "updated"),
                                         .pid = (int32_t)count_of(o, "pid"), .restarts = count_of(o, "restarts"), .started_wall_ns = number_of(o, "started_ns"), .why = text_of(&t->mem, o, "why")};
    }
    t->w.replicas = out;
    t->w.replicas_n = n;
}

/* NAMESPACE/NAME/NODE */
static void *told_make(void *ctx, struct slice key, struct slice value)
{
    json_error_t at;
    json_t *o = json_loadb(value.p, value.n, 0, &at);
    struct slice rest, ns = slice_cut(key, '/', &rest), name = slice_cut(rest, '/', &rest);
    if (!json_is_object(o) || !ns.n || !name.n || !rest.n) {
        json_decref(o);
        return NULL;
    }
    struct told *t = mem_new(MEM_CTL, sizeof *t);
    arena_init(&t->mem, MEM_CTL, 1024);
    t->node = arena_slice(&t->mem, rest).p;
    t->w = (struct workload_status){.ns = arena_slice(&t->mem, ns).p, .name = arena_slice(&t->mem, name).p, .generation = number_of(o, "generation"), .revision = number_of(o, "revision"),
                                    .wanted = count_of(o, "wanted"), .current = count_of(o, "current"), .updated = count_of(o, "updated"), .ready = count_of(o, "ready"),
                                    .available = count_of(o, "available"), .complete = flag_of(o, "complete"), .late = flag_of(o, "late"), .why = text_of(&t->mem, o, "why")};
    replicas_read(t, json_object_get(o, "replicas"));
    json_decref(o);
    return t;
}

static void told_drop(void *data)
{
    struct told *t = data;
    arena_fini(&t->mem);
    mem_free(t);
}

static void told_changed(void *ctx) {} /* it is read when somebody asks */

void cluster_elsewhere(struct engine *e, void (*each)(void *x, const char *node, const struct workload_status *w), void *x)
{
    size_t n;
    const struct mirror_item *const *items = mirror_items(e->cluster.told, &n);
    for (size_t i = 0; i < n; i++) {
        const struct told *t = items[i]->data;
        if (t && strcmp(t->node, e->conf.name) != 0)
            each(x, t->node, &t->w);
    }
}

/* ---- replicas for which there is no node --------------------------------------------------------------------------------------------- */

/* An event for each reason that is new; the same for as long as it lasts is one. */
static void unplaced_say(struct engine *e, const struct object *dep)
{
    struct buf key = {0}, text = {0};
    const char *why;
    uint32_t n = fleet_unplaced(e->cluster.fleet, dep, &why);
    buf_printf(&key, "%s/%s", dep->ns, dep->name);
    const char *before = table_get(&e->cluster.unplaced, buf_slice(&key));
    if (n)
        buf_printf(&text, "%u of %u replicas have no node: %s", n, dep->dep.replicas, why);
    if (n && !(before && strcmp(before, text.p) == 0)) {
        engine_event(e, dep->ns, "Deployment", dep->name, true, "FailedScheduling", text.p);
        mem_free(table_put(&e->cluster.unplaced, buf_slice(&key), mem_strdup(MEM_API, text.p)));
    } else if (!n && before) {
        mem_free(table_del(&e->cluster.unplaced, buf_slice(&key)));
    }
    buf_free(&key);
    buf_free(&text);
}

void status_unplaced(struct engine *e)
{
    for (size_t i = 0; e->cluster.join && i < objset_n(e->objects); i++)
        if (objset_at(e->objects, i)->kind == OBJ_DEPLOYMENT)
            unplaced_say(e, objset_at(e->objects, i));
}

/* ---- up and down ------------------------------------------------------------------------------------------------------------------------ */

void status_up(struct engine *e)
{
    static const struct mirror_ops ops = {told_make, told_drop, told_changed, false, 0};
    e->cluster.told = mirror_start(e->loop, e->store.ctl, FLEET_TOLD, &ops, e);
}

void status_again(struct engine *e) { mirror_again(e->cluster.told); }

void status_down(struct engine *e)
{
    timer_clear(&e->cluster.tell);
    mirror_stop(e->cluster.told);
    e->cluster.told = NULL;
}

void status_init(struct engine *e) { timer_init(&e->cluster.tell, status_tell); }

void status_fini(struct engine *e)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->cluster.unplaced, s));)
        mem_free(s->value);
    table_fini(&e->cluster.unplaced);
}
