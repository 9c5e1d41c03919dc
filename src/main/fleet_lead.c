/* fleet_lead.c - the leader: who it is, and what it writes, which is placement and nothing else.
 *
 * Whoever makes /weir/leader leads until that key goes, which it does with the node's lease. Each write is on the condition that the key is still the one
 * that was made (its create_revision): what a former leader decided late never lands. placement is a pure function (plan/place.h) of what all can read, so a
 * new leader goes on where the old one ended. Who does not know the objects (they can't be read here) places nothing, does not stand for election, and gives up
 * leading after FLEET_BLIND_MS.
 */
#include "fleet_int.h"

#define LEADER_KEY "/weir/leader"
#define PLACEMENT "/weir/placement/"

static struct ctl_compare leader_is_us(const struct fleet *f)
{
    return (struct ctl_compare){.key = SLICE(LEADER_KEY), .target = CTL_TARGET_CREATE, .result = CTL_EQUAL, .number = f->leader_revision};
}

void lead_lost(struct fleet *f)
{
    f->lost_revision = MAX(f->lost_revision, f->leader_revision);
    f->leader_revision = 0;
}

/* ---- election --------------------------------------------------------------------------------------------------------------- */

static void campaigned(struct fleet *f, struct ask *a)
{
    f->campaigning = false;
    fleet_defer(f);
    if (a->call.error != CTL_OK) {
        timer_set(f->loop, &f->place_again, FLEET_AGAIN_MS);
        return;
    }
    if (!a->call.result.txn.succeeded || a->lease != f->lease || f->state != FLEET_IN)
        return; /* the mirror tells who it is */
    f->leader_revision = a->call.revision;
    if (!f->conf.alone)
        log_info("cluster", "node %s leads", f->conf.node);
}

/* Where the key may be there still, it is ours: it is found (leads_unawares()), and given up once more. */
static void resigned(struct fleet *f, struct ask *a)
{
    if (a->call.error != CTL_OK)
        f->lost_revision = 0;
    fleet_defer(f);
}

/* So that a node that knows the objects leads. If the key is another's by now, nothing happens. */
static void resign(struct timer *t)
{
    struct fleet *f = CONTAINER_OF(t, struct fleet, blind);
    struct ask *a = ask_new(f, resigned);
    struct ctl_compare *is = arena_alloc(&a->mem, sizeof *is);
    struct ctl_op *del = arena_zalloc(&a->mem, sizeof *del);
    log_warn("cluster", "node %s leads no more: it does not know the objects", f->conf.node);
    *is = leader_is_us(f);
    *del = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = SLICE(LEADER_KEY)}};
    a->call.op = (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = is, .compares_n = 1, .then_ops = del, .then_n = 1}};
    lead_lost(f);
    ask_send(a);
}

/* Only a moment: another node's change is being read. A node alone has nobody who could. */
static void blind_follow(struct fleet *f, bool blind)
{
    if (!blind || !f->leader_revision || f->conf.alone)
        timer_clear(&f->blind);
    else if (!timer_is_set(&f->blind))
        timer_set(f->loop, &f->blind, FLEET_BLIND_MS);
}

static void campaign(struct fleet *f)
{
    struct ctl_compare nobody = fleet_is_missing(SLICE(LEADER_KEY));
    f->campaigning = true;
    ask_hold(ask_new(f, campaigned), SLICE(LEADER_KEY), f->lease, &nobody, 1);
}

/* The key is ours, and nobody said so: the answer to the campaign was lost. It would stay as long as this node, which nobody else could then lead. */
static bool leads_unawares(const struct fleet *f, const struct mirror_item *it)
{
    return it && it->lease == f->lease && it->create_revision > f->lost_revision && !f->leader_revision && !f->campaigning;
}

/* True when this node leads, as far as is known. blind: it does not know the objects. */
static bool leads(struct fleet *f, bool blind)
{
    const struct mirror_item *it = mirror_get(f->leader, SLICE(""));
    if (!mirror_synced(f->leader) || f->state != FLEET_IN)
        return false;
    if (f->leader_revision && mirror_revision(f->leader) >= f->leader_revision && (!it || it->create_revision != f->leader_revision))
        lead_lost(f);
    if (leads_unawares(f, it))
        f->leader_revision = it->create_revision;
    if (!it && !f->leader_revision && !f->campaigning && !blind && !timer_is_set(&f->place_again))
        campaign(f);
    return f->leader_revision != 0;
}

/* ---- placement ---------------------------------------------------------------------------------------------------------------- */

struct lead {
    struct fleet *f;
    struct arena mem;
    struct place_node *nodes;
    size_t nodes_n;
    struct place_want *wants;
    uint32_t **was;              /* by Deployment: what placement says now, without what only waits to leave */
    uint32_t **moving;           /* by Deployment: what waits to leave */
    size_t wants_n;
};

static void lead_nodes(struct lead *l)
{
    size_t n;
    const struct fleet_node *const *nodes = fleet_nodes(l->f, &n);
    l->nodes = arena_zalloc(&l->mem, (n + 1) * sizeof *l->nodes);
    for (size_t i = 0; i < n; i++)
        l->nodes[l->nodes_n++] = (struct place_node){.name = nodes[i]->name, .labels = &nodes[i]->labels, .cpu_milli = nodes[i]->cpu_milli, .memory = nodes[i]->memory, .ready = !nodes[i]->leaving};
}

static const struct placed *placed_now(const struct fleet *f, const struct object *dep, struct buf *key)
{
    buf_clear(key);
    buf_printf(key, "%s/%s", dep->ns, dep->name);
    const struct mirror_item *it = mirror_get(f->placement, buf_slice(key));
    return it ? it->data : NULL;
}

/* Ready replicas of a Deployment on a node; NULL: on all. */
static uint32_t ready_on(const struct fleet *f, const struct object *dep, const char *node)
{
    uint32_t n = !node || strcmp(node, f->conf.node) == 0 ? own_ready(f, dep) : 0;
    for (size_t i = 0; i < f->others_n; i++) {
        const struct fleet_endpoint *ep = f->others[i];
        n += ep->node && (!node || strcmp(ep->node, node) == 0) && strcmp(ep->ns, dep->ns) == 0 && strcmp(ep->workload, dep->name) == 0;
    }
    return n;
}

static void lead_wants(struct lead *l, const struct objset *set)
{
    struct buf key = {0};
    l->wants = arena_zalloc(&l->mem, (objset_n(set) + 1) * sizeof *l->wants);
    l->was = arena_zalloc(&l->mem, (objset_n(set) + 1) * sizeof *l->was);
    l->moving = arena_zalloc(&l->mem, (objset_n(set) + 1) * sizeof *l->moving);
    for (size_t i = 0; i < objset_n(set); i++) {
        const struct object *o = objset_at(set, i);
        if (o->kind != OBJ_DEPLOYMENT)
            continue;
        const struct placed *now = placed_now(l->f, o, &key);
        struct place_want *w = &l->wants[l->wants_n];
        *w = (struct place_want){.dep = o, .settled = ready_on(l->f, o, NULL) >= o->dep.replicas};
        w->counts = arena_zalloc(&l->mem, (l->nodes_n + 1) * sizeof *w->counts);
        uint32_t *was = l->was[l->wants_n] = arena_zalloc(&l->mem, (l->nodes_n + 1) * sizeof *was);
        uint32_t *moving = l->moving[l->wants_n] = arena_zalloc(&l->mem, (l->nodes_n + 1) * sizeof *moving);
        for (size_t k = 0; k < l->nodes_n; k++) {
            moving[k] = placed_moving(now, l->nodes[k].name);
            w->counts[k] = was[k] = placed_on(now, l->nodes[k].name) - moving[k];
            w->settled = w->settled && !moving[k];
        }
        if (now && now->replicas != o->dep.replicas)
            memset(moving, 0, l->nodes_n * sizeof *moving); /* scaled: what was moving is settled at once */
        l->wants_n++;
    }
    buf_free(&key);
}

/* A replica that only moves leaves its node when the one that follows it is ready elsewhere: until then both are wanted. What runs once can't be doubled. */
static void lead_hold(struct lead *l, size_t at)
{
    struct place_want *w = &l->wants[at];
    uint32_t *moving = l->moving[at], *was = l->was[at];
    uint64_t before = 0, after = 0;
    bool waits = false;
    for (size_t k = 0; k < l->nodes_n; k++) {
        before += was[k];
        after += w->counts[k];
    }
    for (size_t k = 0; k < l->nodes_n; k++) {
        if (before == after && was[k] > w->counts[k])
            moving[k] += was[k] - w->counts[k];
        else
            moving[k] -= MIN(moving[k], w->counts[k] - MIN(was[k], w->counts[k]));
        waits = waits || (!moving[k] && ready_on(l->f, w->dep, l->nodes[k].name) < w->counts[k]);
    }
    for (size_t k = 0; k < l->nodes_n; k++) {
        moving[k] = waits && !w->dep->dep.run_once ? moving[k] : 0;
        w->counts[k] += moving[k];
    }
}

static void counts_json(const struct lead *l, const char *key, const uint32_t *counts, struct buf *out)
{
    bool any = false;
    buf_printf(out, ",\"%s\":{", key);
    for (size_t k = 0; k < l->nodes_n; k++)
        if (counts[k]) {
            buf_adds(out, any ? "," : "");
            buf_add_json(out, slice_cstr(l->nodes[k].name));
            buf_printf(out, ":%u", counts[k]);
            any = true;
        }
    buf_addc(out, '}');
}

static char *placed_json(const struct lead *l, size_t at)
{
    struct buf b = {0};
    const struct place_want *w = &l->wants[at];
    buf_printf(&b, "{\"generation\":%llu,\"replicas\":%u", (unsigned long long)w->dep->generation, w->dep->dep.replicas);
    counts_json(l, "nodes", w->counts, &b);
    for (size_t k = 0; k < l->nodes_n; k++)
        if (l->moving[at][k]) {
            counts_json(l, "moving", l->moving[at], &b);
            break;
        }
    if (w->unplaced) {
        buf_printf(&b, ",\"unplaced\":%u,\"why\":", w->unplaced);
        buf_add_json(&b, slice_cstr(w->why));
    }
    buf_addc(&b, '}');
    return buf_take(&b, NULL);
}

static bool placed_same(const struct lead *l, const struct placed *p, size_t at)
{
    uint32_t n = 0;
    const struct place_want *w = &l->wants[at];
    if (!p || p->replicas != w->dep->dep.replicas || p->unplaced != w->unplaced || (w->unplaced && strcmp(p->why, w->why) != 0))
        return false;
    for (size_t k = 0; k < l->nodes_n; k++) {
        n += w->counts[k] != 0;
        if (placed_on(p, l->nodes[k].name) != w->counts[k] || placed_moving(p, l->nodes[k].name) != l->moving[at][k])
            return false;
    }
    return n == p->n;
}

static void placed_written(struct fleet *f, struct ask *a)
{
    f->placing = false;
    if (a->call.error != CTL_OK)
        timer_set(f->loop, &f->place_again, FLEET_AGAIN_MS);
    else if (!a->call.result.txn.succeeded)
        lead_lost(f); /* another leads, or nobody: the mirror tells */
    else
        f->placed_revision = a->call.revision;
    fleet_defer(f);
}

/* Puts of what is different, deletions of what is no longer a Deployment: as many as one transaction takes, the rest follows. */
static void lead_write(struct lead *l, const struct objset *set)
{
    struct fleet *f = l->f;
    struct ask *a = ask_new(f, placed_written);
    struct ctl_op *ops = arena_zalloc(&a->mem, FLEET_OPS_MAX * sizeof *ops);
    struct buf key = {0};
    size_t n = 0, items_n;
    for (size_t i = 0; i < l->wants_n && n < FLEET_OPS_MAX; i++) {
        if (placed_same(l, placed_now(f, l->wants[i].dep, &key), i))
            continue;
        char *json = placed_json(l, i);
        ops[n++] = (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_cstr(arena_printf(&a->mem, PLACEMENT "%s", key.p)), .value = slice_cstr(arena_strdup(&a->mem, json))}};
        mem_free(json);
    }
    const struct mirror_item *const *items = mirror_items(f->placement, &items_n);
    for (size_t i = 0; i < items_n && n < FLEET_OPS_MAX; i++) {
        struct slice name, ns = slice_cut(items[i]->key, '/', &name);
        char *ns_text = arena_strdup(&a->mem, arena_slice(&a->mem, ns).p), *name_text = arena_strdup(&a->mem, arena_slice(&a->mem, name).p);
        if (!objset_find(set, OBJ_DEPLOYMENT, ns_text, name_text))
            ops[n++] = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(arena_printf(&a->mem, PLACEMENT SLICE_FMT, SLICE_ARG(items[i]->key)))}};
    }
    buf_free(&key);
    struct ctl_compare *is = arena_alloc(&a->mem, sizeof *is);
    *is = leader_is_us(f);
    a->call.op = (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = is, .compares_n = 1, .then_ops = ops, .then_n = n}};
    if (!n) {
        ask_drop(a);
        return;
    }
    f->placing = true;
    ask_send(a);
}

/* A node alone runs everything. */
static void lead_alone(struct lead *l)
{
    for (size_t i = 0; i < l->wants_n; i++)
        for (size_t k = 0; k < l->nodes_n; k++)
            l->wants[i].counts[k] = strcmp(l->nodes[k].name, l->f->conf.node) == 0 ? l->wants[i].dep->dep.replicas : 0;
}

void lead_turn(struct fleet *f)
{
    const struct objset *set = f->ops.objects(f->ctx);
    bool first = leads(f, !set);
    blind_follow(f, !set);
    if (!first || f->placing || timer_is_set(&f->place_again) || !fleet_settled(f))
        return;
    if (!set || mirror_revision(f->placement) < f->placed_revision || !mirror_synced(f->nodes) || !mirror_synced(f->placement) || !mirror_synced(f->endpoints))
        return;
    struct lead l = {.f = f};
    arena_init(&l.mem, MEM_CTL, 16384);
    lead_nodes(&l);
    lead_wants(&l, set);
    if (l.nodes_n) { /* at least this one, unless its key has just gone */
        if (f->conf.alone)
            lead_alone(&l);
        else
            place(l.nodes, l.nodes_n, l.wants, l.wants_n);
        for (size_t i = 0; i < l.wants_n; i++)
            lead_hold(&l, i);
        lead_write(&l, set);
    }
    for (size_t i = 0; i < l.wants_n; i++)
        mem_free(l.wants[i].why);
    arena_fini(&l.mem);
}

static void place_again(struct timer *t) { fleet_defer(CONTAINER_OF(t, struct fleet, place_again)); }

void lead_init(struct fleet *f)
{
    timer_init(&f->place_again, place_again);
    timer_init(&f->blind, resign);
}

void lead_fini(struct fleet *f)
{
    timer_clear(&f->place_again);
    timer_clear(&f->blind);
}
