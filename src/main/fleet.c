/* fleet.c - membership: the node's lease, its key, and the turn in which everything else is decided.
 *
 *     OUT --> GRANTING a lease --> JOINING: is the name free, or ours? --> IN: renewed three times in its life
 *      ^            |                    |                                  |
 *      '------------+--------------------+----------- the lease is gone ----'       LEFT: it was given back, for good
 *
 * How long the lease is valid is this node's own reckoning: from before the last call that was answered, so the store never thinks it shorter.
 */
#include "fleet_int.h"

#include <stdlib.h>

static void fleet_step(struct timer *t);

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */

static void fleet_unref(struct fleet *f)
{
    MUST(f->refs > 0);
    if (--f->refs)
        return;
    own_free(f);
    once_fini(f);
    mem_free(f->why);
    mem_free(f->others);
    mem_free(f->node_list);
    arena_fini(&f->mem);
    mem_free(f);
}

/* One that is not sent, or that was answered. */
void ask_drop(struct ask *a)
{
    struct fleet *f = a->f;
    arena_fini(&a->mem);
    mem_free(a);
    fleet_unref(f);
}

static void ask_done(struct ctl_call *call)
{
    struct ask *a = CONTAINER_OF(call, struct ask, call);
    struct fleet *f = a->f;
    if (!f->stopped)
        a->then(f, a);
    ask_drop(a);
}

struct ask *ask_new(struct fleet *f, void (*then)(struct fleet *f, struct ask *a))
{
    struct ask *a = mem_new(MEM_CTL, sizeof *a);
    arena_init(&a->mem, MEM_CTL, 2048);
    a->f = f;
    a->then = then;
    a->lease = f->lease;
    a->call.done = ask_done;
    f->refs++;
    return a;
}

void ask_send(struct ask *a)
{
    a->sent_ms = loop_now_ms(a->f->loop);
    ctl_submit(a->f->ctl, &a->call);
}

struct ctl_compare fleet_is_member(const struct fleet *f)
{
    return (struct ctl_compare){.key = slice_cstr(f->node_key), .target = CTL_TARGET_LEASE, .result = CTL_EQUAL, .number = f->lease};
}

struct ctl_compare fleet_is_missing(struct slice key)
{
    return (struct ctl_compare){.key = key, .target = CTL_TARGET_VERSION, .result = CTL_EQUAL, .number = 0};
}

void ask_hold(struct ask *a, struct slice key, int64_t lease, const struct ctl_compare *is, size_t is_n)
{
    const struct fleet *f = a->f;
    struct ctl_compare *all = arena_alloc(&a->mem, (is_n + 1) * sizeof *all);
    struct ctl_op *put = arena_zalloc(&a->mem, sizeof *put);
    struct buf value = {0};
    memcpy(all, is, is_n * sizeof *all);
    all[is_n] = fleet_is_member(f);
    holder_json(f, &value);
    *put = (struct ctl_op){.kind = CTL_PUT, .put = {.key = key, .value = arena_slice(&a->mem, buf_slice(&value)), .lease = lease}};
    a->call.op = (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = all, .compares_n = is_n + 1, .then_ops = put, .then_n = 1}};
    buf_free(&value);
    ask_send(a);
}

/* ---- the turn ------------------------------------------------------------------------------------------------------------------ */

void fleet_defer(struct fleet *f) { loop_defer(f->loop, &f->turn); }

void fleet_tell(struct fleet *f)
{
    f->tell = true;
    fleet_defer(f);
}

/* Others may be coming (back) for ms more: nothing is placed anew until then, and nobody forgotten. */
static void fleet_settle(struct fleet *f, uint64_t ms)
{
    uint64_t now = loop_now_ms(f->loop);
    f->settle_until_ms = MAX(f->settle_until_ms, now + ms);
    timer_set(f->loop, &f->doubt, f->settle_until_ms - now + 1);
}

bool fleet_settled(const struct fleet *f) { return f->state == FLEET_IN && loop_now_ms(f->loop) >= f->settle_until_ms; }

/* Keys go with a lease, and a lease can go although its node lives: a leader of etcd that was stopped and goes on may revoke all of them, before it learns that it leads no more. */
static void missed_follow(struct fleet *f)
{
    struct table was = f->present;
    size_t n;
    if (!mirror_synced(f->nodes))
        return;
    f->present = (struct table){0};
    const struct mirror_item *const *items = mirror_items(f->nodes, &n);
    for (size_t i = 0; i < n; i++) {
        struct member *m = items[i]->data;
        if (m && !m->n.leaving)
            table_put(&f->present, items[i]->key, m);
    }
    for (struct table_slot *s = NULL; (s = table_next(&was, s));)
        if (!mirror_get(f->nodes, slice_of(s->key, s->key_n)))
            fleet_settle(f, FLEET_MISSED_MS);
    table_fini(&was);
}

/* An endpoint that expired while nobody could renew is believed to be there until its node had time to say so again. */
static bool doubted(const struct fleet *f, const struct remote *r)
{
    return r->ep.node && !fleet_settled(f) && (!mirror_synced(f->nodes) || !mirror_get(f->nodes, slice_cstr(r->ep.node)));
}

static void remotes_take(struct fleet *f, struct mirror *from)
{
    size_t n;
    const struct mirror_item *const *items = mirror_items(from, &n);
    for (size_t i = 0; i < n; i++) {
        struct remote *r = items[i]->data;
        if (!r || (r->ep.node && strcmp(r->ep.node, f->conf.node) == 0))
            continue;
        struct buf key = {0};
        buf_printf(&key, "%c" SLICE_FMT, r->ep.node ? 'e' : 's', SLICE_ARG(items[i]->key));
        struct remote *was = table_put(&f->remotes, buf_slice(&key), r);
        r->refs++;
        if (was)
            remote_unref(was);
        buf_free(&key);
    }
}

static int other_cmp(const void *a, const void *b)
{
    const struct fleet_endpoint *x = *(const struct fleet_endpoint *const *)a, *y = *(const struct fleet_endpoint *const *)b;
    int c = strcmp(x->ns, y->ns);
    c = c ? c : strcmp(x->workload, y->workload);
    c = c ? c : strcmp(x->replica, y->replica);
    return c ? c : (x->node != NULL) - (y->node != NULL);
}

static const char *text_kept(struct arena *mem, const char *have, const char *want)
{
    return !want ? NULL : have && strcmp(have, want) == 0 ? have : arena_strdup(mem, want);
}

static void others_sort(struct fleet *f)
{
    f->others = mem_grow(MEM_CTL, f->others, (f->remotes.n + 1) * sizeof *f->others);
    f->others_n = 0;
    for (struct table_slot *s = NULL; (s = table_next(&f->remotes, s));) {
        struct remote *r = s->value;
        const struct mirror_item *node = r->ep.node ? mirror_get(f->nodes, slice_cstr(r->ep.node)) : NULL;
        const struct member *m = node ? node->data : NULL;
        if (m) { /* else as it was: it may only be late */
            r->ep.gate = text_kept(&r->mem, r->ep.gate, m->n.gate);
            r->ep.locality = text_kept(&r->mem, r->ep.locality, m->n.locality);
        }
        f->others[f->others_n++] = &r->ep;
    }
    qsort(f->others, f->others_n, sizeof *f->others, other_cmp);
}

static void others_follow(struct fleet *f)
{
    struct table was = f->remotes;
    if (!f->recalled && (!mirror_synced(f->endpoints) || !mirror_synced(f->nodes)))
        return;
    f->remotes = (struct table){0};
    remotes_take(f, f->endpoints);
    remotes_take(f, f->services);
    for (struct table_slot *s = NULL; (s = table_next(&was, s));) {
        struct remote *r = s->value;
        struct slice key = slice_of(s->key, s->key_n);
        if (!table_get(&f->remotes, key) && doubted(f, r))
            table_put(&f->remotes, key, r);
        else
            remote_unref(r);
    }
    table_fini(&was);
    others_sort(f);
}

static void nodes_follow(struct fleet *f)
{
    size_t n;
    const struct mirror_item *const *items = mirror_items(f->nodes, &n), *leader = mirror_get(f->leader, SLICE(""));
    const char *holder = leader ? leader->data : NULL;
    f->node_list = mem_grow(MEM_CTL, f->node_list, (n + 1) * sizeof *f->node_list);
    f->node_list_n = 0;
    for (size_t i = 0; i < n; i++) {
        struct member *m = items[i]->data;
        if (!m)
            continue;
        m->n.self = strcmp(m->n.name, f->conf.node) == 0;
        m->n.leader = holder_is(holder, m->n.name, m->instance);
        f->node_list[f->node_list_n++] = &m->n;
    }
}

static void revoked(struct fleet *f, struct ask *a) {} /* if not, it ends by itself */

static void revoke(struct fleet *f, int64_t lease)
{
    struct ask *a = ask_new(f, revoked);
    a->call.op = (struct ctl_op){.kind = CTL_LEASE_REVOKE, .lease = {.id = lease}};
    ask_send(a);
}

/* Everything of this node is written with the new lease: what still hangs on the former is of replicas that are gone. */
static void former_revoke(struct fleet *f)
{
    if (!f->former_lease || f->state != FLEET_IN || !own_settled(f) || !once_known(f))
        return;
    revoke(f, f->former_lease);
    f->former_lease = 0;
}

/* This node's key is not the one that it made. Its lease was revoked, or somebody deleted the key: known before the next renewal. */
static bool key_lost(const struct fleet *f)
{
    const struct mirror_item *it = mirror_get(f->nodes, slice_cstr(f->conf.node));
    return f->state == FLEET_IN && mirror_synced(f->nodes) && mirror_revision(f->nodes) >= f->joined_revision && (!it || it->lease != f->lease);
}

static void fleet_turn(struct task *t)
{
    struct fleet *f = CONTAINER_OF(t, struct fleet, turn);
    if (key_lost(f))
        fleet_out(f, FLEET_KEY_LOST);
    nodes_follow(f);
    if (f->tell) {
        missed_follow(f);
        others_follow(f);
    }
    lead_turn(f);
    once_turn(f);
    log_turn(f);
    own_write(f);
    former_revoke(f);
    if (!f->tell)
        return;
    f->tell = false;
    f->ops.changed(f->ctx); /* the last thing: it may stop the fleet */
}

void fleet_touch(struct fleet *f) { fleet_defer(f); }

/* ---- the lease -------------------------------------------------------------------------------------------------------------- */

bool fleet_valid(const struct fleet *f) { return f->state == FLEET_IN && (f->conf.alone || loop_now_ms(f->loop) < f->valid_until_ms); }

/* Said once, until it is another reason. */
static void fleet_why(struct fleet *f, const char *why)
{
    if (why && (!f->why || strcmp(f->why, why) != 0))
        log_warn("cluster", "node %s is not a member: %s", f->conf.node, why);
    mem_free(f->why);
    f->why = mem_strdup(MEM_CTL, why);
}

static void fleet_later(struct fleet *f, uint64_t ms)
{
    f->state = FLEET_OUT;
    timer_set(f->loop, &f->timer, ms);
}

void fleet_out(struct fleet *f, const char *why)
{
    uint64_t again_ms = f->state == FLEET_IN ? 0 : FLEET_AGAIN_MS;
    if (f->state == FLEET_LEFT)
        return;
    fleet_why(f, why);
    timer_clear(&f->edge);
    if (f->state == FLEET_IN) {
        f->rejoins++;
        once_drop(f, 0); /* another node may begin by now */
    }
    f->lease = 0;
    f->former_lease = 0;
    own_unwritten(f);
    once_lost(f);
    lead_lost(f);
    fleet_later(f, again_ms);
    fleet_tell(f);
}

/* The lease is valid for its time from when the call was sent. */
static void fleet_renewed(struct fleet *f, uint64_t sent_ms)
{
    uint64_t now = loop_now_ms(f->loop), until = sent_ms + (uint64_t)f->conf.ttl_s * 1000;
    f->valid_until_ms = MAX(f->valid_until_ms, until);
    if (f->conf.alone || f->state != FLEET_IN)
        return;
    f->ops.fence(f->ctx, f->valid_until_ms - FLEET_FENCE_SLACK_MS);
    if (f->fenced && now + FLEET_FENCE_MS < f->valid_until_ms) {
        f->fenced = false;
        log_info("cluster", "node %s has its lease again", f->conf.node);
        fleet_why(f, NULL);
        fleet_tell(f);
    }
    if (!f->fenced)
        timer_set(f->loop, &f->edge, f->valid_until_ms - FLEET_FENCE_MS > now ? f->valid_until_ms - FLEET_FENCE_MS - now : 0);
}

/* First the fence, then the end. */
static void fleet_edge(struct timer *t)
{
    struct fleet *f = CONTAINER_OF(t, struct fleet, edge);
    uint64_t now = loop_now_ms(f->loop);
    if (now >= f->valid_until_ms) {
        fleet_out(f, "the control store does not answer, and its lease has run out; it goes on with what it knows");
        return;
    }
    f->fenced = true;
    fleet_why(f, "the control store does not answer; what runs once ends here before the lease does");
    once_drop(f, (uint32_t)MAX(1, (int64_t)(f->valid_until_ms - now) - (int64_t)FLEET_FENCE_SLACK_MS));
    timer_set(f->loop, &f->edge, f->valid_until_ms - now);
    fleet_tell(f);
}

static void kept(struct fleet *f, struct ask *a)
{
    f->keeps_n--;
    if (a->lease != f->lease || f->state != FLEET_IN)
        return;
    if (a->call.error == CTL_LEASE_NOT_FOUND || (a->call.error == CTL_OK && a->call.result.lease.ttl_s <= 0))
        fleet_out(f, "its lease has run out");
    else if (a->call.error == CTL_OK)
        fleet_renewed(f, a->sent_ms);
}

static void keep_alive(struct fleet *f)
{
    timer_set(f->loop, &f->timer, (uint64_t)f->conf.ttl_s * 1000 / 3);
    if (f->keeps_n >= FLEET_KEEPS_MAX)
        return;
    struct ask *a = ask_new(f, kept);
    a->call.op = (struct ctl_op){.kind = CTL_LEASE_KEEP, .lease = {.id = f->lease}};
    f->keeps_n++;
    ask_send(a);
}

/* ---- joining ------------------------------------------------------------------------------------------------------------------ */

static void joined(struct fleet *f, struct ask *a)
{
    if (f->state != FLEET_JOINING)
        return;
    if (a->call.error != CTL_OK || !a->call.result.txn.succeeded) {
        fleet_out(f, a->call.error != CTL_OK ? a->call.why : "somebody else was faster to take its name");
        return;
    }
    f->state = FLEET_IN;
    f->fenced = false;
    f->joined_revision = a->call.revision;
    fleet_settle(f, f->conf.alone ? 0 : FLEET_SETTLE_MS);
    if (f->was_in)
        log_info("cluster", "node %s is a member again", f->conf.node);
    f->was_in = true;
    fleet_why(f, NULL);
    fleet_renewed(f, f->valid_until_ms - (uint64_t)f->conf.ttl_s * 1000);
    keep_alive(f);
    fleet_tell(f);
}

static void join(struct fleet *f, int64_t seen_revision)
{
    struct ask *a = ask_new(f, joined);
    struct ctl_compare *is = arena_alloc(&a->mem, sizeof *is);
    struct ctl_op *put = arena_zalloc(&a->mem, sizeof *put);
    struct buf value = {0};
    own_node(f, &value);
    *is = (struct ctl_compare){.key = slice_cstr(f->node_key), .target = CTL_TARGET_MOD, .result = CTL_EQUAL, .number = seen_revision};
    *put = (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_cstr(f->node_key), .value = arena_slice(&a->mem, buf_slice(&value)), .lease = f->lease}};
    a->call.op = (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = is, .compares_n = 1, .then_ops = put, .then_n = 1}};
    buf_free(&value);
    ask_send(a);
}

/* Whose the name is: nobody's, ours (an engine before this one), or another's. */
static void name_seen(struct fleet *f, struct ask *a)
{
    const struct ctl_range_result *r = &a->call.result.range;
    if (f->state != FLEET_JOINING)
        return;
    if (a->call.error != CTL_OK) {
        fleet_out(f, a->call.why);
        return;
    }
    if (!r->n) {
        join(f, 0);
        return;
    }
    struct member *m = member_ops.make(f, slice_cstr(f->conf.node), r->kvs[0].value);
    bool ours = m && strcmp(m->instance, f->conf.instance) == 0 && strcmp(m->place, f->conf.place) == 0;
    if (m)
        member_ops.drop(m);
    if (ours) {
        f->former_lease = r->kvs[0].lease;
        join(f, r->kvs[0].mod_revision);
        return;
    }
    revoke(f, f->lease);
    fleet_out(f, "another node has the same name, or had it until its lease runs out; give each its own with --name");
    fleet_later(f, FLEET_TAKEN_MS);
}

static void granted(struct fleet *f, struct ask *a)
{
    if (f->state != FLEET_GRANTING) {
        if (a->call.error == CTL_OK)
            revoke(f, a->call.result.lease.id);
        return;
    }
    if (a->call.error != CTL_OK) {
        fleet_why(f, a->call.why);
        fleet_later(f, FLEET_AGAIN_MS);
        return;
    }
    f->state = FLEET_JOINING;
    f->lease = a->call.result.lease.id;
    f->conf.ttl_s = (uint32_t)MAX(f->conf.ttl_s, MIN(a->call.result.lease.ttl_s, 3600)); /* the store may have a least one */
    f->valid_until_ms = a->sent_ms + (uint64_t)f->conf.ttl_s * 1000;
    struct ask *look = ask_new(f, name_seen);
    look->call.op = (struct ctl_op){.kind = CTL_RANGE, .range = {.key = slice_cstr(f->node_key)}};
    ask_send(look);
}

/* The timer: the next attempt, or the next renewal. */
static void fleet_step(struct timer *t)
{
    struct fleet *f = CONTAINER_OF(t, struct fleet, timer);
    if (f->state == FLEET_IN) {
        keep_alive(f);
        return;
    }
    f->state = FLEET_GRANTING;
    struct ask *a = ask_new(f, granted);
    a->call.op = (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.ttl_s = f->conf.ttl_s}};
    ask_send(a);
}

static void doubt_over(struct timer *t) { fleet_tell(CONTAINER_OF(t, struct fleet, doubt)); }

static void write_again(struct timer *t) { fleet_defer(CONTAINER_OF(t, struct fleet, write_again)); }

/* ---- leaving --------------------------------------------------------------------------------------------------------------------- */

static void fleet_gone(struct fleet *f)
{
    void (*left)(void *) = f->left;
    void *ctx = f->left_ctx;
    f->left = NULL;
    timer_clear(&f->leave_timer);
    if (left)
        left(ctx);
}

static void leave_answered(struct fleet *f, struct ask *a) { fleet_gone(f); }
static void leave_over(struct timer *t) { fleet_gone(CONTAINER_OF(t, struct fleet, leave_timer)); }

/* ---- the interface -------------------------------------------------------------------------------------------------------------- */

/* What people gave, and before it what Kubernetes puts on every node. */
static void labels_make(struct fleet *f, const struct kvs *given, struct kvs *out)
{
    struct slice rest = slice_cstr(f->conf.locality), region = slice_cut(rest, '/', &rest), zone = slice_cut(rest, '/', &rest);
    const char *const known[][2] = {{PLACE_HOSTNAME, f->conf.node},
                                    {"kubernetes.io/os", "linux"},
#if defined(__aarch64__)
                                    {"kubernetes.io/arch", "arm64"},
#else
                                    {"kubernetes.io/arch", "amd64"},
#endif
                                    {PLACE_REGION, arena_slice(&f->mem, region).p},
                                    {PLACE_ZONE, arena_slice(&f->mem, zone).p}};
    out->items = arena_zalloc(&f->mem, (COUNT_OF(known) + (given ? given->n : 0)) * sizeof *out->items);
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (known[i][1][0] && !(given && kvs_get(given, slice_cstr(known[i][0]))))
            out->items[out->n++] = (struct kv){arena_strdup(&f->mem, known[i][0]), arena_strdup(&f->mem, known[i][1]), strlen(known[i][1])};
    for (size_t i = 0; given && i < given->n; i++)
        out->items[out->n++] = (struct kv){arena_strdup(&f->mem, given->items[i].key), arena_strdup(&f->mem, given->items[i].value), strlen(given->items[i].value)};
}

static void conf_copy(struct fleet *f, const struct fleet_conf *conf)
{
    struct kvs *labels = arena_zalloc(&f->mem, sizeof *labels);
    f->conf = *conf;
    f->conf.node = arena_strdup(&f->mem, conf->node);
    f->conf.instance = arena_strdup(&f->mem, conf->instance);
    f->conf.place = arena_strdup(&f->mem, conf->place ? conf->place : "");
    f->conf.gate = conf->gate ? arena_strdup(&f->mem, conf->gate) : NULL;
    f->conf.locality = arena_strdup(&f->mem, conf->locality ? conf->locality : "");
    f->conf.version = arena_strdup(&f->mem, conf->version);
    f->conf.ttl_s = conf->ttl_s ? conf->ttl_s : FLEET_TTL_S;
    labels_make(f, conf->labels, labels);
    f->conf.labels = labels;
    f->node_key = arena_printf(&f->mem, "/weir/nodes/%s", f->conf.node);
}

struct fleet *fleet_start(struct loop *l, struct ctl *ctl, const struct fleet_conf *conf, const struct fleet_ops *ops, void *ctx)
{
    struct fleet *f = mem_new(MEM_CTL, sizeof *f);
    *f = (struct fleet){.loop = l, .ctl = ctl, .ops = *ops, .ctx = ctx, .refs = 1, .since_ns = wall_ns()};
    arena_init(&f->mem, MEM_CTL, 2048);
    conf_copy(f, conf);
    task_init(&f->turn, fleet_turn);
    timer_init(&f->timer, fleet_step);
    timer_init(&f->edge, fleet_edge);
    timer_init(&f->doubt, doubt_over);
    timer_init(&f->write_again, write_again);
    timer_init(&f->leave_timer, leave_over);
    lead_init(f);
    once_init(f);
    log_init(f);
    f->nodes = mirror_start(l, ctl, "/weir/nodes/", &member_ops, f);
    f->leader = mirror_start(l, ctl, "/weir/leader", &leader_ops, f);
    f->placement = mirror_start(l, ctl, "/weir/placement/", &placed_ops, f);
    f->endpoints = mirror_start(l, ctl, "/weir/endpoints/", &remote_ops, f);
    f->once = mirror_start(l, ctl, "/weir/once/", &leader_ops, f);
    f->log = mirror_start(l, ctl, "/weir/log", &leader_ops, f);
    f->services = mirror_start(l, ctl, SERVICES_PREFIX, &external_ops, f);
    timer_set(l, &f->timer, 0);
    return f;
}

void fleet_stop(struct fleet *f)
{
    if (!f || f->stopped)
        return;
    f->stopped = true;
    struct mirror *all[] = {f->nodes, f->leader, f->placement, f->endpoints, f->once, f->log, f->services};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        mirror_stop(all[i]);
    for (struct table_slot *s = NULL; (s = table_next(&f->remotes, s));)
        remote_unref(s->value);
    table_fini(&f->remotes);
    table_fini(&f->present);
    list_del(&f->turn.link);
    timer_clear(&f->claim_again);
    timer_clear(&f->timer);
    timer_clear(&f->edge);
    timer_clear(&f->doubt);
    timer_clear(&f->write_again);
    timer_clear(&f->leave_timer);
    lead_fini(f);
    log_fini(f);
    fleet_unref(f);
}

void fleet_again(struct fleet *f)
{
    struct mirror *all[] = {f->nodes, f->leader, f->placement, f->endpoints, f->once, f->log, f->services};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        mirror_again(all[i]);
    fleet_out(f, "the control store is older than it was");
    f->lost_revision = f->placed_revision = 0;
    for (struct table_slot *s = NULL; (s = table_next(&f->claims, s));)
        ((struct claim *)s->value)->revision = 0;
}

void fleet_cordon(struct fleet *f)
{
    struct buf value = {0};
    if (f->leaving)
        return;
    f->leaving = true;
    own_node(f, &value);
    own_put(f, f->node_key, buf_take(&value, NULL));
}

void fleet_leave(struct fleet *f, void (*done)(void *ctx), void *ctx)
{
    int64_t lease = f->lease;
    f->left = done;
    f->left_ctx = ctx;
    timer_set(f->loop, &f->leave_timer, lease ? FLEET_LEAVE_MS : 0);
    timer_clear(&f->timer);
    timer_clear(&f->edge);
    f->state = FLEET_LEFT;
    f->lease = 0;
    if (!lease)
        return;
    struct ask *a = ask_new(f, leave_answered);
    a->call.op = (struct ctl_op){.kind = CTL_LEASE_REVOKE, .lease = {.id = lease}};
    ask_send(a);
}

bool fleet_ready(const struct fleet *f)
{
    return f->conf.alone || (f->state == FLEET_IN && mirror_synced(f->nodes) && mirror_synced(f->endpoints) && mirror_synced(f->placement) && mirror_synced(f->once) && once_known(f));
}

static const struct placed *placed_of(const struct fleet *f, const struct object *dep)
{
    struct buf key = {0};
    buf_printf(&key, "%s/%s", dep->ns, dep->name);
    const struct mirror_item *it = mirror_get(f->placement, buf_slice(&key));
    buf_free(&key);
    return it ? it->data : NULL;
}

uint32_t fleet_share(const struct fleet *f, const struct object *dep)
{
    if (f->conf.alone)
        return dep->dep.replicas;
    if (dep->dep.run_once && (f->fenced || !fleet_valid(f) || !once_have(f, dep)))
        return 0;
    uint32_t placed = placed_on(placed_of(f, dep), f->conf.node), ready = dep->dep.run_once || fleet_settled(f) ? 0 : own_ready(f, dep);
    return MIN(MAX(placed, ready), dep->dep.replicas); /* replicas that were given to others while this node was missed are kept until those had time to become ready */
}

bool fleet_placed(const struct fleet *f, const struct object *dep)
{
    const struct placed *p = f->conf.alone ? NULL : placed_of(f, dep);
    return f->conf.alone || (p && p->replicas == dep->dep.replicas);
}

uint32_t fleet_unplaced(const struct fleet *f, const struct object *dep, const char **why)
{
    const struct placed *p = f->conf.alone ? NULL : placed_of(f, dep);
    *why = p ? p->why : "";
    return p ? p->unplaced : 0;
}

const struct fleet_node *const *fleet_nodes(struct fleet *f, size_t *n)
{
    nodes_follow(f);
    *n = f->node_list_n;
    return f->node_list;
}

const struct fleet_endpoint *const *fleet_others(struct fleet *f, size_t *n)
{
    *n = f->others_n;
    return f->others;
}

void fleet_status(const struct fleet *f, struct fleet_status *out)
{
    *out = (struct fleet_status){.member = fleet_valid(f), .leader = f->leader_revision != 0, .why = f->why ? f->why : "", .rejoins = f->rejoins, .fenced = f->fenced_n, .services_left_out = mirror_left_out(f->services)};
}
