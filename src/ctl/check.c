/* check.c - what is wrong with a call by itself, whatever the store holds: etcd's api/v3rpc/key.go.
 *
 * A transaction may put no key twice, nor put and delete it, on any path that it can take: the branches of one nested transaction exclude each other, all else
 * may happen together. Deletions of ranges are compared with each put; so transactions are small: txn_ops_max
 * for the levels together, TXN_TOTAL_MAX operations in all; the node's own (ctl_call.exempt) have few of them.
 */
#include "ctl_int.h"

static bool sort_ok(const struct ctl_range *r)
{
    return (unsigned)r->order <= CTL_SORT_DESCEND && (unsigned)r->target <= CTL_SORT_VALUE;
}

static enum ctl_error put_check(const struct ctl_put *p)
{
    if (p->key.n == 0) return CTL_EMPTY_KEY;
    if (p->ignore_value && p->value.n) return CTL_VALUE_PROVIDED;
    if (p->ignore_lease && p->lease) return CTL_LEASE_PROVIDED;
    return CTL_OK;
}

static enum ctl_error txn_check(const struct ctl_txn *t, size_t ops_max);

static enum ctl_error op_check(const struct ctl_op *op, size_t ops_max)
{
    switch (op->kind) {
    case CTL_RANGE:
        if (op->range.key.n == 0) return CTL_EMPTY_KEY;
        return sort_ok(&op->range) ? CTL_OK : CTL_INVALID_SORT;
    case CTL_PUT: return put_check(&op->put);
    case CTL_DELETE: return op->del.key.n ? CTL_OK : CTL_EMPTY_KEY;
    case CTL_TXN: return txn_check(&op->txn, ops_max);
    default: return CTL_INVALID_ARGUMENT;
    }
}

static enum ctl_error ops_check(const struct ctl_op *ops, size_t n, size_t ops_max)
{
    for (size_t i = 0; i < n; i++) {
        enum ctl_error e = op_check(&ops[i], ops_max);
        if (e != CTL_OK) return e;
    }
    return CTL_OK;
}

/* The levels share ops_max: what the widest list takes is gone for those below, so depth is bounded, too. */
static enum ctl_error txn_check(const struct ctl_txn *t, size_t ops_max)
{
    size_t widest = MAX(t->compares_n, MAX(t->then_n, t->else_n));
    if (widest > ops_max) return CTL_TOO_MANY_OPS;
    for (size_t i = 0; i < t->compares_n; i++) {
        const struct ctl_compare *c = &t->compares[i];
        if (c->key.n == 0) return CTL_EMPTY_KEY;
        if ((unsigned)c->target > CTL_TARGET_LEASE || (unsigned)c->result > CTL_NOT_EQUAL) return CTL_INVALID_ARGUMENT;
    }
    enum ctl_error e = ops_check(t->then_ops, t->then_n, ops_max - widest);
    return e != CTL_OK ? e : ops_check(t->else_ops, t->else_n, ops_max - widest);
}

/* ---- keys that are changed twice ---- */

/* What a list of operations may change. */
struct touched {
    struct table puts;           /* key -> anything */
    struct table gone;           /* deletions of one key -> anything */
    struct { struct slice key, end; } *dels; /* of ranges */
    size_t dels_n, dels_cap;
};

static void touched_fini(struct touched *t)
{
    table_fini(&t->puts);
    table_fini(&t->gone);
    mem_free(t->dels);
}

static bool touched_deletes(const struct touched *t, struct slice key)
{
    if (table_get(&t->gone, key)) return true;
    for (size_t i = 0; i < t->dels_n; i++)
        if (range_has(t->dels[i].key, t->dels[i].end, key)) return true;
    return false;
}

static void touched_add_del(struct touched *t, struct slice key, struct slice end)
{
    if (end.n == 0) {
        table_put(&t->gone, key, t);
        return;
    }
    ARRAY_GROW(MEM_CTL, t->dels, t->dels_n, t->dels_cap);
    t->dels[t->dels_n].key = key;
    t->dels[t->dels_n++].end = end;
}

static void touched_add_dels(struct touched *t, const struct touched *branch)
{
    for (struct table_slot *s = NULL; (s = table_next(&branch->gone, s));) table_put(&t->gone, slice_of(s->key, s->key_n), t);
    for (size_t i = 0; i < branch->dels_n; i++) touched_add_del(t, branch->dels[i].key, branch->dels[i].end);
}

/* Adds the puts of a branch: but for those of its sibling, none may be there already, and none deleted. */
static bool touched_add_puts(struct touched *t, const struct touched *branch, const struct touched *sibling)
{
    for (struct table_slot *s = NULL; (s = table_next(&branch->puts, s));) {
        struct slice key = slice_of(s->key, s->key_n);
        if (table_get(&t->puts, key) && !(sibling && table_get(&sibling->puts, key))) return false;
        if (touched_deletes(t, key)) return false;
        table_put(&t->puts, key, t);
    }
    return true;
}

static bool ops_touch(const struct ctl_op *ops, size_t n, struct touched *out);

static bool txn_touch(const struct ctl_txn *txn, struct touched *out)
{
    struct touched yes = {0}, no = {0};
    bool ok = ops_touch(txn->then_ops, txn->then_n, &yes) && ops_touch(txn->else_ops, txn->else_n, &no) && touched_add_puts(out, &yes, NULL) &&
              touched_add_puts(out, &no, &yes);
    if (ok) touched_add_dels(out, &yes);
    if (ok) touched_add_dels(out, &no);
    touched_fini(&yes);
    touched_fini(&no);
    return ok;
}

/* False: a key may be changed twice. The order (this level's deletions, nested ones, this level's puts) is etcd's: it decides about a deletion in one
 * nested transaction and a put in an earlier one, which etcd lets pass. */
static bool ops_touch(const struct ctl_op *ops, size_t n, struct touched *out)
{
    for (size_t i = 0; i < n; i++)
        if (ops[i].kind == CTL_DELETE) touched_add_del(out, ops[i].del.key, ops[i].del.end);
    for (size_t i = 0; i < n; i++)
        if (ops[i].kind == CTL_TXN && !txn_touch(&ops[i].txn, out)) return false;
    for (size_t i = 0; i < n; i++) {
        if (ops[i].kind != CTL_PUT) continue;
        struct slice key = ops[i].put.key;
        if (table_get(&out->puts, key) || touched_deletes(out, key)) return false;
        table_put(&out->puts, key, out);
    }
    return true;
}

static bool txn_unambiguous(const struct ctl_txn *t)
{
    struct touched yes = {0}, no = {0};
    bool ok = ops_touch(t->then_ops, t->then_n, &yes) && ops_touch(t->else_ops, t->else_n, &no);
    touched_fini(&yes);
    touched_fini(&no);
    return ok;
}

/* ---- calls ---- */

static size_t op_bytes(const struct ctl_op *op);

static size_t ops_bytes(const struct ctl_op *ops, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += op_bytes(&ops[i]);
    return sum;
}

static size_t op_bytes(const struct ctl_op *op)
{
    size_t sum = 0;
    switch (op->kind) {
    case CTL_RANGE: return op->range.key.n + op->range.end.n;
    case CTL_PUT: return op->put.key.n + op->put.value.n;
    case CTL_DELETE: return op->del.key.n + op->del.end.n;
    case CTL_TXN:
        for (size_t i = 0; i < op->txn.compares_n; i++)
            sum += op->txn.compares[i].key.n + op->txn.compares[i].end.n + op->txn.compares[i].value.n;
        return sum + ops_bytes(op->txn.then_ops, op->txn.then_n) + ops_bytes(op->txn.else_ops, op->txn.else_n);
    default: return 0;
    }
}

static size_t ops_total(const struct ctl_op *ops, size_t n)
{
    size_t sum = n;
    for (size_t i = 0; i < n; i++)
        if (ops[i].kind == CTL_TXN) sum += ops_total(ops[i].txn.then_ops, ops[i].txn.then_n) + ops_total(ops[i].txn.else_ops, ops[i].txn.else_n);
    return sum;
}

static uint64_t compares_total(const struct ctl_op *ops, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const struct ctl_txn *t = &ops[i].txn;
        if (ops[i].kind == CTL_TXN) sum += t->compares_n + compares_total(t->then_ops, t->then_n) + compares_total(t->else_ops, t->else_n);
    }
    return sum;
}

uint64_t call_looks(const struct ctl_call *call) { return ops_total(&call->op, 1) + compares_total(&call->op, 1); }

enum ctl_error call_check(const struct ctl_call *call, uint32_t txn_ops_max, uint32_t request_bytes_max)
{
    const struct ctl_op *op = &call->op;
    if (op->kind == CTL_LEASE_GRANT && op->lease.ttl_s > LEASE_TTL_MAX_S) return CTL_LEASE_TTL_TOO_LARGE;
    if (op->kind > CTL_TXN) return CTL_OK;
    enum ctl_error e = op_check(op, call->exempt ? SIZE_MAX : txn_ops_max);
    if (e != CTL_OK) return e;
    if (!call->exempt && op_bytes(op) > request_bytes_max) return CTL_REQUEST_TOO_LARGE;
    if (op->kind != CTL_TXN) return CTL_OK;
    if (!call->exempt && ops_total(op, 1) > TXN_TOTAL_MAX) return CTL_TOO_MANY_OPS;
    return txn_unambiguous(&op->txn) ? CTL_OK : CTL_DUPLICATE_KEY;
}

/* ---- what it may do ---- */

static bool ops_any(const struct ctl_op *ops, size_t n, bool (*is)(const struct ctl_op *op))
{
    for (size_t i = 0; i < n; i++)
        if (is(&ops[i])) return true;
    return false;
}

bool op_puts(const struct ctl_op *op)
{
    if (op->kind == CTL_TXN)
        return ops_any(op->txn.then_ops, op->txn.then_n, op_puts) || ops_any(op->txn.else_ops, op->txn.else_n, op_puts);
    return op->kind == CTL_PUT;
}

bool op_writes(const struct ctl_op *op)
{
    switch (op->kind) {
    case CTL_PUT: case CTL_DELETE: case CTL_COMPACT: case CTL_LEASE_GRANT: case CTL_LEASE_REVOKE: return true;
    case CTL_TXN: return ops_any(op->txn.then_ops, op->txn.then_n, op_writes) || ops_any(op->txn.else_ops, op->txn.else_n, op_writes);
    default: return false;
    }
}
