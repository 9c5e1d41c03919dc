/* fleet_once.c - claims: what keeps a Deployment that runs once from running on two nodes.
 *
 * /weir/once/NAMESPACE/NAME is made by the node that placement names, under its lease, if it is not there; only then may it start a replica. It is removed when
 * placement names another node and no process is left here; or it goes with the lease, before which this node has ended what it had (fleet.c, the fence). An
 * engine that comes after another finds its node's claims by the instance, and takes them over with its own lease before anything else is decided.
 */
#include "fleet_int.h"

#define ONCE "/weir/once/"

static struct claim *claim_get(struct fleet *f, struct slice name)
{
    struct claim *c = table_get(&f->claims, name);
    if (c)
        return c;
    c = mem_new(MEM_CTL, sizeof *c);
    table_put(&f->claims, name, c);
    return c;
}

void once_lost(struct fleet *f)
{
    for (struct table_slot *s = NULL; (s = table_next(&f->claims, s));)
        ((struct claim *)s->value)->have = false;
}

/* The name of a claim as two strings, in a. */
static void name_cut(struct arena *a, struct slice name, char **ns, char **dep)
{
    struct slice rest, first = slice_cut(name, '/', &rest);
    *ns = (char *)arena_slice(a, first).p;
    *dep = (char *)arena_slice(a, rest).p;
}

void once_drop(struct fleet *f, uint32_t ms)
{
    struct arena a;
    char *ns, *dep;
    const struct objset *set = f->ops.objects(f->ctx);
    arena_init(&a, MEM_CTL, 1024);
    for (struct table_slot *s = NULL; (s = table_next(&f->claims, s));) {
        name_cut(&a, slice_of(s->key, s->key_n), &ns, &dep);
        const struct object *o = set ? objset_find(set, OBJ_DEPLOYMENT, ns, dep) : NULL;
        if (!((struct claim *)s->value)->have || (o && !o->dep.run_once) /* it did once: the claim is kept until its processes of then are gone */ || !f->ops.runs(f->ctx, ns, dep))
            continue;
        f->fenced_n++;
        log_warn("cluster", "%s/%s runs once, and the lease of node %s runs out: it is ended here", ns, dep, f->conf.node);
        f->ops.drop(f->ctx, ns, dep, ms);
    }
    arena_fini(&a);
}

bool once_have(const struct fleet *f, const struct object *dep)
{
    struct buf name = {0};
    buf_printf(&name, "%s/%s", dep->ns, dep->name);
    const struct claim *c = table_get(&f->claims, buf_slice(&name));
    buf_free(&name);
    return c && c->have;
}

bool once_known(const struct fleet *f)
{
    size_t n;
    const struct mirror_item *const *items = mirror_items(f->once, &n);
    for (size_t i = 0; i < n; i++) {
        const struct claim *c = table_get(&f->claims, items[i]->key);
        if (holder_is_me(f, items[i]->data) && !(c && c->have))
            return false;
    }
    return mirror_synced(f->once);
}

/* ---- claiming and letting go -------------------------------------------------------------------------------------------------- */

static void claimed(struct fleet *f, struct ask *a)
{
    struct claim *c = claim_get(f, slice_cstr(a->name));
    c->asking = false;
    if (a->call.error != CTL_OK) {
        timer_set(f->loop, &f->claim_again, FLEET_AGAIN_MS);
        return;
    }
    c->have = a->call.result.txn.succeeded && a->lease == f->lease && f->state == FLEET_IN;
    c->revision = a->call.revision;
    if (c->have && !f->conf.alone)
        log_info("cluster", "%s, which runs once, is this node's", a->name);
    if (!c->have)
        timer_set(f->loop, &f->claim_again, FLEET_AGAIN_MS); /* the mirror is late, or somebody was faster */
    fleet_tell(f);
}

static void released(struct fleet *f, struct ask *a)
{
    struct claim *c = claim_get(f, slice_cstr(a->name));
    c->asking = false;
    if (a->call.error != CTL_OK) {
        timer_set(f->loop, &f->claim_again, FLEET_AGAIN_MS);
        return;
    }
    c->have = false;
    fleet_tell(f);
}

static struct ask *claim_ask(struct fleet *f, struct claim *c, struct slice name, void (*then)(struct fleet *, struct ask *))
{
    struct ask *a = ask_new(f, then);
    a->name = (char *)arena_slice(&a->mem, name).p;
    c->asking = true;
    return a;
}

static struct slice once_key(struct ask *a, struct slice name) { return slice_cstr(arena_printf(&a->mem, ONCE SLICE_FMT, SLICE_ARG(name))); }

/* A claim of this node under an earlier lease. */
static void claim_again_put(struct fleet *f, struct claim *c, const struct mirror_item *it)
{
    struct ask *a = claim_ask(f, c, it->key, claimed);
    struct slice key = once_key(a, it->key);
    struct ctl_compare is = {.key = key, .target = CTL_TARGET_MOD, .result = CTL_EQUAL, .number = it->mod_revision};
    ask_hold(a, key, f->lease, &is, 1);
}

/* Nobody's: it is made if it is still nobody's, and placement still says so. */
static void claim_new(struct fleet *f, struct claim *c, struct slice name, const struct mirror_item *placed)
{
    struct ask *a = claim_ask(f, c, name, claimed);
    struct slice key = once_key(a, name), placement = slice_cstr(arena_printf(&a->mem, "/weir/placement/" SLICE_FMT, SLICE_ARG(name)));
    struct ctl_compare is[2] = {fleet_is_missing(key), {.key = placement, .target = CTL_TARGET_MOD, .result = CTL_EQUAL, .number = placed->mod_revision}};
    ask_hold(a, key, f->lease, is, COUNT_OF(is));
}

static void claim_release(struct fleet *f, struct claim *c, struct slice name)
{
    struct ask *a = claim_ask(f, c, name, released);
    struct slice key = once_key(a, name);
    struct ctl_op *del = arena_zalloc(&a->mem, sizeof *del);
    struct ctl_compare *is = arena_zalloc(&a->mem, sizeof *is);
    *is = (struct ctl_compare){.key = key, .target = CTL_TARGET_LEASE, .result = CTL_EQUAL, .number = f->lease};
    *del = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = key}};
    a->call.op = (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = is, .compares_n = 1, .then_ops = del, .then_n = 1}};
    ask_send(a);
}

/* ---- the turn -------------------------------------------------------------------------------------------------------------------- */

/* What the store has of this node's claims, and this engine not yet; what was lost. */
static void claims_follow(struct fleet *f)
{
    size_t n;
    const struct mirror_item *const *items = mirror_items(f->once, &n);
    for (size_t i = 0; i < n; i++) {
        struct claim *c = holder_is_me(f, items[i]->data) ? claim_get(f, items[i]->key) : NULL;
        if (c && !c->have && !c->asking && items[i]->mod_revision >= c->revision)
            claim_again_put(f, c, items[i]);
    }
    for (struct table_slot *s = NULL; (s = table_next(&f->claims, s));) {
        struct claim *c = s->value;
        const struct mirror_item *it = mirror_get(f->once, slice_of(s->key, s->key_n));
        if (!c->have || c->asking || mirror_revision(f->once) < c->revision || (it && it->lease == f->lease))
            continue;
        c->have = false; /* somebody removed it: it is claimed anew, and until then nothing of it runs */
        fleet_tell(f);
    }
}

static void claim_turn(struct fleet *f, struct slice name, bool wanted, const char *ns, const char *dep)
{
    const struct mirror_item *placed = mirror_get(f->placement, name);
    struct claim *c = table_get(&f->claims, name);
    wanted = wanted && placed && placed_on(placed->data, f->conf.node) && !f->fenced && fleet_valid(f);
    if ((c && c->asking) || (!c && !wanted))
        return;
    c = claim_get(f, name);
    if (wanted && !c->have && !mirror_get(f->once, name))
        claim_new(f, c, name, placed);
    else if (!wanted && c->have && !f->fenced && !f->ops.runs(f->ctx, ns, dep))
        claim_release(f, c, name);
}

void once_turn(struct fleet *f)
{
    const struct objset *set = f->ops.objects(f->ctx);
    if (f->conf.alone || f->state != FLEET_IN || !mirror_synced(f->once) || !mirror_synced(f->placement) || timer_is_set(&f->claim_again))
        return;
    claims_follow(f);
    if (!set)
        return;
    struct arena a;
    arena_init(&a, MEM_CTL, 2048);
    for (size_t i = 0; i < objset_n(set); i++) {
        const struct object *o = objset_at(set, i);
        if (o->kind == OBJ_DEPLOYMENT && o->dep.run_once)
            claim_turn(f, slice_cstr(arena_printf(&a, "%s/%s", o->ns, o->name)), true, o->ns, o->name);
    }
    for (struct table_slot *s = NULL; (s = table_next(&f->claims, s));) {
        char *ns, *dep;
        name_cut(&a, slice_of(s->key, s->key_n), &ns, &dep);
        const struct object *o = objset_find(set, OBJ_DEPLOYMENT, ns, dep);
        if (!o || !o->dep.run_once)
            claim_turn(f, arena_slice(&a, slice_of(s->key, s->key_n)), false, ns, dep);
    }
    arena_fini(&a);
}

static void claim_again(struct timer *t) { fleet_defer(CONTAINER_OF(t, struct fleet, claim_again)); }

void once_init(struct fleet *f) { timer_init(&f->claim_again, claim_again); }

void once_fini(struct fleet *f)
{
    timer_clear(&f->claim_again);
    for (struct table_slot *s = NULL; (s = table_next(&f->claims, s));)
        mem_free(s->value);
    table_fini(&f->claims);
}
