/* lease.c - leases: granted and revoked by commits, kept alive in memory.
 *
 *     grant -> GRANTING --commit--> LIVE --revoke--> REVOKING --commit--> gone
 *                  \--failed--> gone   ^---------------failed--/
 *
 * Time is the loop's. When it is over the store revokes the lease itself, by a call like any other; until that is committed the lease and its keys are
 * there, but nobody can keep it alive any more. Who tries, while it is being revoked or its time is over, is answered when that is decided (o->keeps), as etcd does it: one who was told that a lease is
 * gone must not see its keys afterwards. After a start every lease has its whole TTL again: how long it was left is not written down.
 */
#include "ctl_int.h"

#define REVOKE_AGAIN_MS 1000 /* when an expired lease could not be revoked: the disk is full, or failed */

static struct slice id_key(const int64_t *id) { return slice_of((const char *)id, sizeof *id); }

struct lease *lease_find(const struct own *o, int64_t id) { return table_get(&o->leases, id_key(&id)); }

static void lease_expire(struct lease *l)
{
    l->expired = true;
    if (l->asked || l->state == LEASE_REVOKING || l->own->closing) return;
    l->asked = true;
    l->revoke.op = (struct ctl_op){.kind = CTL_LEASE_REVOKE, .lease = {.id = l->id}};
    ctl_submit(&l->own->ctl, &l->revoke);
}

static void lease_due(struct timer *t)
{
    struct lease *l = CONTAINER_OF(t, struct lease, timer);
    uint64_t now = loop_now_ms(l->own->loop);
    if (!l->expired && now < l->due_ms) timer_set(l->own->loop, t, l->due_ms - now); /* was kept alive meanwhile */
    else lease_expire(l);
}

static void lease_revoked(struct ctl_call *call)
{
    struct lease *l = CONTAINER_OF(call, struct lease, revoke);
    l->asked = false;
    if (lease_find(l->own, l->id) != l) {
        mem_free(l); /* lease_free() left it to us */
        return;
    }
    if (call->error == CTL_OK) {
        counter_inc(&l->own->ctl.counters.leases_expired); /* the batch frees it when all are answered */
        return;
    }
    timer_set(l->own->loop, &l->timer, REVOKE_AGAIN_MS);
    keeps_again(l->own);
}

struct lease *lease_add(struct own *o, int64_t id, int64_t ttl_s, enum lease_state state)
{
    struct lease *l = mem_new(MEM_CTL, sizeof *l);
    l->own = o;
    l->id = id;
    l->ttl_s = ttl_s;
    l->state = state;
    l->revoke.done = lease_revoked;
    list_init(&l->keys);
    list_init(&l->link);
    timer_init(&l->timer, lease_due);
    MUST(!table_put(&o->leases, id_key(&id), l));
    return l;
}

void lease_start(struct lease *l)
{
    l->state = LEASE_LIVE;
    l->due_ms = loop_now_ms(l->own->loop) + (uint64_t)l->ttl_s * 1000;
    timer_set(l->own->loop, &l->timer, (uint64_t)l->ttl_s * 1000);
}

void lease_stays(struct lease *l)
{
    l->state = LEASE_LIVE;
    if (l->expired && !l->asked) timer_set(l->own->loop, &l->timer, REVOKE_AGAIN_MS); /* its time was over meanwhile */
}

void lease_free(struct lease *l)
{
    timer_clear(&l->timer);
    MUST(list_empty(&l->keys));
    MUST(table_del(&l->own->leases, id_key(&l->id)) == l);
    if (!l->asked) mem_free(l); /* else when its call comes back */
}

/* Sorts slices by heap sort: in place, and without a worst case. */
static void slices_sift(struct slice *v, size_t i, size_t n)
{
    for (size_t kid; (kid = 2 * i + 1) < n; i = kid) {
        if (kid + 1 < n && key_cmp(v[kid], v[kid + 1]) < 0) kid++;
        if (key_cmp(v[i], v[kid]) >= 0) return;
        struct slice t = v[i];
        v[i] = v[kid];
        v[kid] = t;
    }
}

static void slices_sort(struct slice *v, size_t n)
{
    for (size_t i = n / 2; i > 0; i--) slices_sift(v, i - 1, n);
    for (size_t i = n; i > 1; i--) {
        struct slice t = v[0];
        v[0] = v[i - 1];
        v[i - 1] = t;
        slices_sift(v, 0, i - 1);
    }
}

/* ---- changes ---- */

static bool grant_eval(struct own *o, struct ctl_call *call)
{
    int64_t id = call->op.lease.id;
    const struct lease *there = id ? lease_find(o, id) : NULL;
    if (there && there->state == LEASE_REVOKING) return false; /* gone with this batch: in the next one the id is free */
    if (there) {
        call->error = CTL_LEASE_EXISTS;
        return true;
    }
    if (o->leases.n >= o->conf.leases_max && !call->exempt) {
        counter_inc(&o->ctl.counters.calls_refused);
        call->error = CTL_TOO_MANY_REQUESTS;
        return true;
    }
    while (!id || lease_find(o, id)) id = (int64_t)(loop_random(o->loop) & INT64_MAX);
    struct lease *l = lease_add(o, id, MAX(call->op.lease.ttl_s, o->conf.lease_ttl_min_s), LEASE_GRANTING);
    list_push(&o->batch.granted, &l->link);
    o->batch.bytes += sizeof *l;
    call->result.lease.id = id;
    call->result.lease.ttl_s = call->result.lease.granted_s = l->ttl_s;
    return true;
}

/* Deletes k if the batch still sees it with the lease. */
static void revoke_key(struct own *o, const struct lease *l, struct slice key)
{
    const struct kv *k = batch_get(o, key);
    if (!k || kv_lease(k) != l->id) return;
    batch_change(o, kv_new_dead(&o->pool, key), o->batch.revision + 1);
}

static bool revoke_eval(struct own *o, struct ctl_call *call)
{
    struct batch *b = &o->batch;
    struct lease *l = lease_find(o, call->op.lease.id);
    if (!l || l->state == LEASE_REVOKING) {
        call->error = CTL_LEASE_NOT_FOUND;
        return true;
    }
    if (l->state == LEASE_GRANTING || b->changes.n > REVOKE_BEHIND_MAX) return false; /* by this batch; behind too many changes of others */
    size_t before = b->changes.n, n = 0, there = 0;
    LIST_FOREACH(it, &l->keys) there++;
    struct slice *keys = arena_alloc(&b->arena, MAX(there + before, 1) * sizeof *keys);
    LIST_FOREACH(it, &l->keys) keys[n++] = kv_key(CONTAINER_OF(it, struct kv_leased, link)->kv);
    for (size_t i = 0; i < before; i++)
        if (kv_lease(b->changes.v[i].now) == l->id) keys[n++] = kv_key(b->changes.v[i].now);
    slices_sort(keys, n); /* the order of the events, as etcd has it */
    for (size_t i = 0; i < MIN(n, REVISION_CHANGES_MAX); i++) revoke_key(o, l, keys[i]);
    if (b->changes.n > before) b->revision++;
    if (n > REVISION_CHANGES_MAX) { /* more keys than a revision holds: the rest by the next call */
        call->error = CTL_TOO_MANY_OPS;
        return true;
    }
    l->state = LEASE_REVOKING;
    list_push(&b->revoked, &l->link);
    return true;
}

bool lease_eval(struct own *o, struct ctl_call *call)
{
    return call->op.kind == CTL_LEASE_GRANT ? grant_eval(o, call) : revoke_eval(o, call);
}

/* ---- reads ---- */

bool lease_is_going(const struct own *o, int64_t id)
{
    const struct lease *l = lease_find(o, id);
    return l && (l->state == LEASE_REVOKING || (l->expired && l->asked));
}

void keeps_again(struct own *o)
{
    if (list_empty(&o->keeps)) return;
    while (!list_empty(&o->keeps)) {
        struct list *first = o->keeps.next;
        list_del(first);
        list_push(&o->reads, first);
    }
    own_turn(o);
}

static enum ctl_error lease_keep(struct own *o, struct lease *l, struct ctl_lease_result *out)
{
    if (!l || l->state == LEASE_GRANTING) return CTL_OK; /* TTL 0: as etcd answers */
    if (l->expired) return l->revoke.error ? l->revoke.error : CTL_UNKNOWN; /* and could not be revoked: it is tried again */
    l->due_ms = loop_now_ms(o->loop) + (uint64_t)l->ttl_s * 1000; /* the timer looks at it when it comes */
    out->ttl_s = l->ttl_s;
    return CTL_OK;
}

static void lease_info(struct own *o, const struct ctl_lease *want, struct arena *a, struct ctl_lease_result *out)
{
    const struct lease *l = lease_find(o, want->id);
    out->ttl_s = -1;
    if (!l || l->state == LEASE_GRANTING) return;
    uint64_t now = loop_now_ms(o->loop);
    out->granted_s = l->ttl_s;
    out->ttl_s = l->due_ms > now ? (int64_t)((l->due_ms - now) / 1000) : 0;
    if (!want->keys) return;
    size_t n = 0;
    LIST_FOREACH(it, &l->keys) n++;
    out->keys = n ? arena_alloc(a, n * sizeof *out->keys) : NULL;
    LIST_FOREACH(it, &l->keys) out->keys[out->keys_n++] = kv_key(CONTAINER_OF(it, struct kv_leased, link)->kv);
    slices_sort(out->keys, out->keys_n);
}

/* Ids become keys that sort like them, and numbers again. */
static void lease_list(struct own *o, struct arena *a, struct ctl_lease_result *out)
{
    size_t n = 0;
    struct slice *keys = arena_alloc(a, MAX(o->leases.n, 1) * sizeof *keys);
    for (struct table_slot *s = NULL; (s = table_next(&o->leases, s));) {
        const struct lease *l = s->value;
        if (l->state == LEASE_GRANTING) continue;
        char *big_endian = arena_alloc(a, 8);
        for (int i = 0; i < 8; i++) big_endian[i] = (char)(((uint64_t)l->id ^ (1ull << 63)) >> (56 - 8 * i));
        keys[n++] = slice_of(big_endian, 8);
    }
    slices_sort(keys, n);
    out->ids = n ? arena_alloc(a, n * sizeof *out->ids) : NULL;
    out->ids_n = n;
    for (size_t i = 0; i < n; i++) {
        uint64_t id = 0;
        for (int j = 0; j < 8; j++) id = id << 8 | (unsigned char)keys[i].p[j];
        out->ids[i] = (int64_t)(id ^ (1ull << 63));
    }
}

void lease_read(struct own *o, struct ctl_call *call, struct arena *a)
{
    struct ctl_lease_result *out = &call->result.lease;
    switch (call->op.kind) {
    case CTL_LEASE_KEEP: call->error = lease_keep(o, lease_find(o, call->op.lease.id), out); break;
    case CTL_LEASE_INFO: lease_info(o, &call->op.lease, a, out); break;
    case CTL_LEASE_LIST: lease_list(o, a, out); break;
    default: o->nospace = false; return; /* CTL_DISARM */
    }
    if (call->op.kind != CTL_LEASE_LIST) out->id = call->op.lease.id;
}
