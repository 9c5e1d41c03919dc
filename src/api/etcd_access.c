/* etcd_access.c - who may do what with which keys.
 *
 *     a connection: the host's, or a workload's --> principal       Keyspaces of the manifests --> sorted prefixes, each with its list of principals
 *
 * A key belongs to the keyspace with the longest prefix of it, which lets those do something whom its list names. Keys of none are open. As with etcd's roles, a range has to
 * lie wholly in what its caller may: every keyspace that has keys of the range must let him. Prefixes are nested or apart, never half over each other, so these are:
 * those around the range's first key, from the innermost out to the first that holds all of the range, and those that begin within it.
 *
 * Keys below /weir/ are the node's own: read from the host only, written by nobody through this API. So a range over all keys is the host's only.
 *
 * Keys below /services/ say where requests for Services go (main/CLUSTER.md): to any address that the host reaches, its own loopback with the node's own
 * ports among them. So they are written from the host, and by those workloads only that a Keyspace below that prefix names.
 *
 * Leases belong to nobody, but keys hang on them: who revokes one, or hangs a key on it, must be allowed to write every key that hangs on it (as with etcd). What hangs on it is asked before, in memory.
 * One that the node's own keys hang on is not kept alive by workloads, either: a node's lease is how others know that it lives.
 *
 * What is about the whole store (compaction, which ends watches that lag; the quota's alarm; the list of all leases) is the host's, and that of workloads
 * whom every keyspace lets write, or read: where there are none, everybody's.
 *
 * Without Keyspaces a request costs a comparison with /weir/.
 */
#include "etcd_int.h"

#include <stdlib.h>

#define RESERVED SLICE("/weir/")
#define RESERVED_END SLICE("/weir0")
#define SERVICES SLICE("/services/")
#define SERVICES_END SLICE("/services0")
#define NONE UINT32_MAX

struct keyspace {
    struct slice prefix, end;     /* end: empty when no key is behind its keys */
    const struct etcd_acl *acls;
    size_t acls_n;
    uint32_t around;              /* the one with the longest shorter prefix, or NONE */
};
struct etcd_access {
    struct arena mem;             /* all of it */
    struct keyspace *all;         /* by prefix */
    uint32_t n;
};

/* ---- ranges ---------------------------------------------------------------------------------------------------------------- */

static int key_order(struct slice a, struct slice b)
{
    size_t n = MIN(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static bool is_open(struct slice end) { return end.n == 1 && end.p[0] == 0; }

/* Of a range that is more than a key: whether it has keys before `to`, in bytes. */
static bool ends_behind(struct slice end, struct slice to) { return is_open(end) || key_order(end, to) > 0; }

/* Whether [key, end), or key alone, has keys of [from, to). */
static bool meets(struct slice key, struct slice end, struct slice from, struct slice to)
{
    if (key_order(key, to) >= 0)
        return false;
    return key_order(key, from) >= 0 || (end.n && ends_behind(end, from));
}

/* The range begins with a key of k; whether it ends there, too. */
static bool holds_all(const struct keyspace *k, struct slice end) { return !end.n || !k->end.n || !ends_behind(end, k->end); }

/* ---- the question --------------------------------------------------------------------------------------------------------------- */

static bool lets(const struct keyspace *k, struct slice principal, unsigned may)
{
    unsigned has = 0;
    for (size_t i = 0; i < k->acls_n; i++)
        if (slice_eq(k->acls[i].principal, principal) || slice_is(k->acls[i].principal, "User:*"))
            has |= k->acls[i].may;
    return (has & may) == may;
}

/* How many keyspaces have prefixes that are not behind key. */
static uint32_t not_behind(const struct etcd_access *x, struct slice key)
{
    uint32_t from = 0, to = x->n;
    while (from < to) {
        uint32_t mid = from + (to - from) / 2;
        if (key_order(x->all[mid].prefix, key) <= 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

/* The innermost keyspace that key is in, or NONE; n: of not_behind(). */
static uint32_t innermost(const struct etcd_access *x, struct slice key, uint32_t n)
{
    uint32_t at = n ? n - 1 : NONE;
    while (at != NONE && !slice_starts(key, x->all[at].prefix))
        at = x->all[at].around;
    return at;
}

/* All of the range is in one keyspace below /services/. Whom that lets is looked at like that of others. */
static bool services_declared(const struct etcd_access *x, struct slice key, struct slice end)
{
    uint32_t at = x ? innermost(x, key, not_behind(x, key)) : NONE;
    return at != NONE && slice_starts(x->all[at].prefix, SERVICES) && holds_all(&x->all[at], end);
}

static bool access_lets(const struct etcd_access *x, struct slice principal, struct slice key, struct slice end, unsigned may)
{
    uint32_t n = not_behind(x, key), at = innermost(x, key, n);
    for (; at != NONE; at = x->all[at].around) {
        if (!lets(&x->all[at], principal, may))
            return false;
        if (holds_all(&x->all[at], end))
            break;
    }
    for (; end.n && n < x->n && ends_behind(end, x->all[n].prefix); n++)
        if (!lets(&x->all[n], principal, may))
            return false;
    return true;
}

bool etcd_may(const struct etcd_conn *conn, struct slice key, struct slice end, unsigned may)
{
    if (end.n && !is_open(end) && key_order(key, end) >= 0)
        return true; /* no keys */
    if (meets(key, end, RESERVED, RESERVED_END) && (!conn->host || may != ETCD_MAY_READ))
        return false;
    const struct etcd_access *x = conn->api->access;
    if (!conn->host && (may & ETCD_MAY_WRITE) && meets(key, end, SERVICES, SERVICES_END) && !services_declared(x, key, end))
        return false;
    return !x || access_lets(x, conn->principal, key, end, may);
}

bool etcd_may_all(const struct etcd_conn *conn, unsigned may)
{
    const struct etcd_access *x = conn->api->access;
    return conn->host || !x || access_lets(x, conn->principal, SLICE("\0"), SLICE("\0"), may);
}

static bool txn_may(const struct etcd_conn *conn, const struct ctl_txn *t);

static bool op_may(const struct etcd_conn *conn, const struct ctl_op *op)
{
    switch (op->kind) {
    case CTL_RANGE: return etcd_may(conn, op->range.key, op->range.end, ETCD_MAY_READ);
    case CTL_PUT: return etcd_may(conn, op->put.key, SLICE(""), op->put.prev_kv ? ETCD_MAY_READ | ETCD_MAY_WRITE : ETCD_MAY_WRITE);
    case CTL_DELETE: return etcd_may(conn, op->del.key, op->del.end, op->del.prev_kv ? ETCD_MAY_READ | ETCD_MAY_WRITE : ETCD_MAY_WRITE);
    case CTL_TXN: return txn_may(conn, &op->txn);
    default: return true;
    }
}

/* Both branches, whichever will be taken. As deep as the message: ETCD_NESTING_MAX. */
static bool txn_may(const struct etcd_conn *conn, const struct ctl_txn *t)
{
    bool may = true;
    for (size_t i = 0; i < t->compares_n && may; i++)
        may = etcd_may(conn, t->compares[i].key, t->compares[i].end, ETCD_MAY_READ);
    for (size_t i = 0; i < t->then_n && may; i++)
        may = op_may(conn, &t->then_ops[i]);
    for (size_t i = 0; i < t->else_n && may; i++)
        may = op_may(conn, &t->else_ops[i]);
    return may;
}

void etcd_deny(struct etcd_call *call)
{
    counter_inc(&call->api->denied);
    etcd_fail(call, GRPC_PERMISSION_DENIED, ETCD_DENIED);
}

/* ---- leases ----------------------------------------------------------------------------------------------------------------------- */

/* What a call wants, while the leases are looked at that it is about. In the call's arena. */
struct etcd_guard {
    struct ctl_op op;
    void (*done)(struct etcd_call *call);
    int64_t *leases;
    size_t n, cap, at;
    bool reserved;                /* only the node's own keys matter */
};

static void guard_next(struct etcd_call *call);

#define GUARD_LEASES_MAX 8192 /* that a transaction names: as many as the store takes operations in one, which it counts only when it is asked */

static void guard_told(struct etcd_call *call)
{
    const struct ctl_lease_result *r = &call->ctl.result.lease;
    for (size_t i = 0; i < r->keys_n && !call->ctl.error; i++)
        if (call->guard->reserved ? slice_starts(r->keys[i], RESERVED) : !etcd_may(call->conn, r->keys[i], SLICE(""), ETCD_MAY_WRITE)) {
            etcd_deny(call);
            return;
        }
    guard_next(call); /* of one that is not there the store says so */
}

static void guard_next(struct etcd_call *call)
{
    struct etcd_guard *g = call->guard;
    if (g->at == g->n) {
        call->ctl.op = g->op;
        etcd_ask(call, g->done);
        return;
    }
    call->ctl.op = (struct ctl_op){.kind = CTL_LEASE_INFO, .lease = {.id = g->leases[g->at++], .keys = true}};
    etcd_ask(call, guard_told);
}

static void guard_add(struct etcd_call *call, struct etcd_guard *g, int64_t lease)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->leases[i] == lease)
            return;
    if (g->n == g->cap) {
        int64_t *more = arena_alloc(&call->mem, (g->cap * 2 + 4) * sizeof *more);
        if (g->n)
            memcpy(more, g->leases, g->n * sizeof *more);
        g->leases = more;
        g->cap = g->cap * 2 + 4;
    }
    g->leases[g->n++] = lease;
}

/* The leases that puts name; GUARD_LEASES_MAX of them and one more are too many. */
static void guard_gather(struct etcd_call *call, struct etcd_guard *g, const struct ctl_op *op)
{
    if (g->n > GUARD_LEASES_MAX)
        return;
    if (op->kind == CTL_PUT && op->put.lease)
        guard_add(call, g, op->put.lease);
    if (op->kind != CTL_TXN)
        return;
    for (size_t i = 0; i < op->txn.then_n; i++)
        guard_gather(call, g, &op->txn.then_ops[i]);
    for (size_t i = 0; i < op->txn.else_n; i++)
        guard_gather(call, g, &op->txn.else_ops[i]);
}

static void guard_begin(struct etcd_call *call, const struct etcd_guard *g)
{
    call->guard = arena_alloc(&call->mem, sizeof *call->guard);
    *call->guard = *g;
    guard_next(call);
}

void etcd_ask_kv(struct etcd_call *call, void (*done)(struct etcd_call *call))
{
    const struct ctl_op *op = &call->ctl.op;
    struct etcd_guard g = {.done = done};
    if (!op_may(call->conn, op)) {
        etcd_deny(call);
        return;
    }
    if (call->api->access) /* without, only the node's own keys are not for everybody, and a key more on their lease harms nobody but itself */
        guard_gather(call, &g, op);
    if (!g.n) {
        etcd_ask(call, done);
        return;
    }
    if (g.n > GUARD_LEASES_MAX) {
        etcd_fail(call, (enum grpc_status)ctl_error_grpc(CTL_TOO_MANY_OPS), ctl_error_text(CTL_TOO_MANY_OPS));
        return;
    }
    g.op = *op;
    guard_begin(call, &g);
}

void etcd_ask_lease(struct etcd_call *call, void (*done)(struct etcd_call *call))
{
    const struct ctl_op *op = &call->ctl.op;
    bool keep = op->kind == CTL_LEASE_KEEP;
    if (keep && call->conn->host) {
        etcd_ask(call, done);
        return;
    }
    struct etcd_guard g = {.op = *op, .done = done, .reserved = keep};
    guard_add(call, &g, op->lease.id);
    guard_begin(call, &g);
}

/* ---- keyspaces ---------------------------------------------------------------------------------------------------------------------- */

static int keyspace_order(const void *a, const void *b) { return key_order(((const struct keyspace *)a)->prefix, ((const struct keyspace *)b)->prefix); }

static void keyspace_copy(struct arena *mem, struct keyspace *to, const struct etcd_keyspace *from)
{
    struct etcd_acl *acls = arena_alloc(mem, (from->acls_n + 1) * sizeof *acls);
    for (size_t i = 0; i < from->acls_n; i++)
        acls[i] = (struct etcd_acl){arena_slice(mem, from->acls[i].principal), from->acls[i].may};
    *to = (struct keyspace){.prefix = arena_slice(mem, from->prefix), .acls = acls, .acls_n = from->acls_n, .around = NONE};
    to->end = ctl_prefix_end(to->prefix, arena_alloc(mem, MAX(to->prefix.n, (size_t)1)));
    if (is_open(to->end))
        to->end = SLICE("");
}

/* Watches of what is not their clients' any more end. */
static void watches_look(struct etcd_api *a)
{
    LIST_FOREACH(l, &a->conns) {
        struct etcd_conn *conn = CONTAINER_OF(l, struct etcd_conn, link);
        LIST_FOREACH(k, &conn->calls) {
            struct etcd_call *call = CONTAINER_OF(k, struct etcd_call, link);
            if (call->watches)
                etcd_watches_look(call);
        }
    }
}

void etcd_access_free(struct etcd_access *x)
{
    if (!x)
        return;
    struct arena mem = x->mem;
    arena_fini(&mem);
}

void etcd_api_keyspaces(struct etcd_api *a, const struct etcd_keyspace *keyspaces, size_t n)
{
    struct arena mem;
    etcd_access_free(a->access);
    a->access = NULL;
    if (n) {
        arena_init(&mem, MEM_API, 4096);
        struct etcd_access *x = arena_alloc(&mem, sizeof *x);
        x->n = (uint32_t)n;
        x->all = arena_alloc(&mem, n * sizeof *x->all);
        for (size_t i = 0; i < n; i++)
            keyspace_copy(&mem, &x->all[i], &keyspaces[i]);
        qsort(x->all, n, sizeof *x->all, keyspace_order);
        for (uint32_t i = 1; i < n; i++) { /* the one before, or one that is around it */
            uint32_t at = i - 1;
            while (at != NONE && !slice_starts(x->all[i].prefix, x->all[at].prefix))
                at = x->all[at].around;
            x->all[i].around = at;
        }
        x->mem = mem;
        a->access = x;
    }
    watches_look(a);
}
