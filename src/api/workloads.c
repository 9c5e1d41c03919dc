/* workloads.c - Deployments of the whole system: what run says of this node's replicas, and what other nodes say of theirs, added up.
 *
 *     run_status()      --+
 *     ops->elsewhere()  --+-->  one struct workload_status for each Deployment  -->  get, rollout status
 *     ops->unplaced()   --+
 *
 * A rollout is complete when it is on every node, each node has seen the newest manifest, and every replica has a node. On a node alone all of it is run's.
 */
#include "api_int.h"

struct whole {
    struct workload_status w;
    struct replica_status *replicas; /* w's; in the arena, as all of it */
    size_t replicas_cap;
    size_t own_n;                    /* this node's, at first the first */
    struct buf why;                  /* the reasons of all nodes */
};
struct wholes {
    const char *node;                /* whose statuses are added; NULL: this one's */
    struct table by_name;            /* "ns/name" -> struct whole */
    struct whole **order;            /* as run has them, then those that only others have */
    size_t n, cap;
    struct arena mem;
};

static struct whole *whole_of(struct wholes *x, const struct workload_status *w)
{
    struct slice key = slice_cstr(arena_printf(&x->mem, "%s/%s", w->ns, w->name));
    struct whole *o = table_get(&x->by_name, key);
    if (o)
        return o;
    o = arena_zalloc(&x->mem, sizeof *o);
    o->w = (struct workload_status){.ns = arena_strdup(&x->mem, w->ns), .name = arena_strdup(&x->mem, w->name), .generation = w->generation, .complete = true};
    table_put(&x->by_name, key, o);
    ARRAY_GROW(MEM_API, x->order, x->n, x->cap);
    x->order[x->n++] = o;
    return o;
}

static void reason_add(struct whole *o, const char *node, const char *why)
{
    if (why && *why)
        buf_printf(&o->why, "%s%s%s%s", o->why.n ? "; " : "", node ? node : "", node ? ": " : "", why);
}

static void replicas_add(struct wholes *x, struct whole *o, const struct workload_status *w)
{
    for (size_t i = 0; i < w->replicas_n; i++) {
        const struct replica_status *r = &w->replicas[i];
        ARRAY_GROW(MEM_API, o->replicas, o->w.replicas_n, o->replicas_cap);
        struct replica_status *to = &o->replicas[o->w.replicas_n++];
        *to = *r;
        to->name = arena_strdup(&x->mem, r->name);
        to->phase = arena_strdup(&x->mem, r->phase);
        to->node = arena_strdup(&x->mem, r->node ? r->node : "");
        to->why = arena_strdup(&x->mem, r->why ? r->why : "");
    }
}

static void whole_add(void *ctx, const struct workload_status *w)
{
    struct wholes *x = ctx;
    struct whole *o = whole_of(x, w);
    o->w.generation = MIN(o->w.generation, w->generation);
    o->w.revision = MAX(o->w.revision, w->revision);
    o->w.wanted += w->wanted;
    o->w.current += w->current;
    o->w.updated += w->updated;
    o->w.ready += w->ready;
    o->w.available += w->available;
    o->w.complete = o->w.complete && w->complete;
    o->w.late = o->w.late || w->late;
    reason_add(o, x->node, w->why);
    replicas_add(x, o, w);
}

static void own_add(void *ctx, const struct workload_status *w)
{
    whole_add(ctx, w);
    whole_of(ctx, w)->own_n = w->replicas_n;
}

static void other_add(void *ctx, const char *node, const struct workload_status *w)
{
    struct wholes *x = ctx;
    x->node = node;
    whole_add(x, w);
}

/* By node, as the others are: the same order wherever it is asked for. */
static void own_sort(struct wholes *x, struct whole *o)
{
    struct replica_status *r = o->replicas;
    size_t k = o->own_n, to = k;
    if (!k)
        return;
    while (to < o->w.replicas_n && strcmp(r[to].node, r[0].node) < 0)
        to++;
    struct replica_status *own = arena_alloc(&x->mem, k * sizeof *own);
    memcpy(own, r, k * sizeof *own);
    memmove(r, r + k, (to - k) * sizeof *r);
    memcpy(r + (to - k), own, k * sizeof *own);
}

/* Against what is wanted of all nodes together. */
static void whole_judge(struct api *a, struct whole *o)
{
    const char *why = "";
    const struct object *dep = objset_find(a->ops->objects(a->ctx), OBJ_DEPLOYMENT, o->w.ns, o->w.name);
    if (!dep)
        return;
    o->w.unplaced = a->ops->unplaced ? a->ops->unplaced(a->ctx, dep, &why) : 0;
    if (o->w.unplaced) {
        struct buf text = {0};
        buf_printf(&text, "%u of %u replicas have no node: %s", o->w.unplaced, dep->dep.replicas, why);
        reason_add(o, NULL, text.p);
        buf_free(&text);
    } else if (*why) {
        reason_add(o, NULL, why);
    } else if (o->w.wanted < dep->dep.replicas) {
        reason_add(o, NULL, "other nodes have not told of its replicas yet");
    } else if (o->w.generation < dep->generation) {
        reason_add(o, NULL, "not every node has seen the newest manifest");
    }
    o->w.late = o->w.late && o->w.generation >= dep->generation; /* else it is of a manifest that has been replaced */
    o->w.complete = o->w.complete && !*why && o->w.wanted >= dep->dep.replicas && o->w.generation >= dep->generation;
    o->w.wanted = dep->dep.replicas;
}

void api_workloads(struct api *a, void (*each)(void *ctx, const struct workload_status *w), void *ctx)
{
    struct run *run = a->ops->run(a->ctx);
    struct wholes x = {0};
    if (!run)
        return;
    if (!a->ops->shared || !a->ops->shared(a->ctx)) {
        run_status(run, each, ctx);
        return;
    }
    arena_init(&x.mem, MEM_API, 16384);
    run_status(run, own_add, &x);
    a->ops->elsewhere(a->ctx, other_add, &x);
    for (size_t i = 0; i < x.n; i++) {
        struct whole *o = x.order[i];
        whole_judge(a, o);
        own_sort(&x, o);
        o->w.why = o->why.n ? o->why.p : "";
        o->w.replicas = o->replicas;
        each(ctx, &o->w);
        buf_free(&o->why);
        mem_free(o->replicas);
    }
    mem_free(x.order);
    table_fini(&x.by_name);
    arena_fini(&x.mem);
}
