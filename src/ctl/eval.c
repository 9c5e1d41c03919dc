/* eval.c - what calls do to the state: ranges, comparisons, puts, deletions, transactions; and the batch that they become.
 *
 * A change is evaluated against the index under the batch's overlay (batch.over: the newest version of each key that the batch changed, deletions as dead
 * ones). Nothing of it is in the index before the batch is committed. A transaction is evaluated as etcd does: first all comparisons, nested ones too, which
 * decides its path; then what the path's operations require; then it is applied, which can't fail any more.
 *
 * A range at an older revision is answered from the overlay and its changes as far back as the batch began, and from history before that: that was read for the
 * call beforehand (call->priv), because evaluating never waits. So it is with values that are not in memory: a read is evaluated, and when it met some, its answer is thrown away,
 * they are read from disk, and it is evaluated again; a change looks for those that its path needs before it does anything. What was read is held until the call is answered.
 */
#include "ctl_int.h"

/* One evaluation. */
struct eval {
    struct own *o;
    struct arena *a;             /* what the answer refers to */
    struct ctl_call *call;
    bool in_batch;               /* sees the overlay */
    bool cold;                   /* a value that it needs is not in memory: the call has to go and get it */
    int64_t start;               /* the revision before it */
    bool *paths;                 /* transactions in the order they are met: whether their comparisons hold */
    size_t paths_n, paths_at;
    uint64_t changes_n, puts_n;  /* keys that its path changes at most; of them, puts */
    uint64_t looked_n;           /* keys that its comparisons and ranges look at */
};

/* A transaction can ask for all keys with each of its operations: that is bounded, and what is over it refused before it takes the time, or the memory. */
static bool looks_too_much(const struct eval *ev) { return ev->looked_n > TXN_KEYS_MAX && ev->call->op.kind == CTL_TXN && !ev->call->exempt; }

/* ---- values ---- */

/* Notes k for the call when its value has to be read first. False: so it is. */
static bool value_here(struct eval *ev, struct kv *k)
{
    if (!kv_is_cold(k)) {
        if (!kv_is(k, KV_USED)) k->version_flags |= KV_USED;
        return true;
    }
    struct past *p = ev->call->priv;
    if (!p || p->range || p->count == 0) {
        p = mem_new(MEM_CTL, sizeof *p);
        p->count = -1;
        p->next = ev->call->priv;
        ev->call->priv = p;
    }
    ARRAY_GROW(MEM_CTL, p->kvs, p->n, p->cap);
    p->kvs[p->n++] = kv_ref(k);
    ev->cold = true;
    return false;
}

/* ---- what is seen ---- */

struct kv *batch_get(const struct own *o, struct slice key)
{
    struct kv *k = tree_get(&o->batch.over, key);
    if (!k) return tree_get(&o->index, key);
    return kv_is(k, KV_DEAD) ? NULL : k;
}

/* Where k, which is the overlay's, is among the batch's changes: they are in the order of their ids. */
static const struct change *change_of(const struct changes *c, const struct kv *k)
{
    size_t from = 0, to = c->n;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (c->v[mid].now->id < k->id) from = mid + 1;
        else to = mid;
    }
    MUST(from < c->n && c->v[from].now == k);
    return &c->v[from];
}

/* The version of k's key, k being the overlay's, that was there after revision, which is not older than the index; NULL: none. */
static struct kv *version_at(const struct own *o, struct kv *k, int64_t revision)
{
    while (k && kv_mod(k) > revision) k = change_of(&o->batch.changes, k)->prev;
    return k && !kv_is(k, KV_DEAD) ? k : NULL;
}

/* Present keys in order, as of a revision that is not older than the index. */
struct view {
    const struct own *o;
    int64_t revision;
    struct tree_iter base, over;
};

static void view_seek(struct view *v, const struct eval *ev, struct slice from, int64_t revision)
{
    static const struct tree nothing;
    v->o = ev->o;
    v->revision = revision;
    tree_seek(&v->base, &ev->o->index, from);
    tree_seek(&v->over, ev->in_batch ? &ev->o->batch.over : &nothing, from);
}

static struct kv *view_next(struct view *v)
{
    for (;;) {
        struct kv *base = tree_peek(&v->base), *over = tree_peek(&v->over);
        int c = !over ? -1 : !base ? 1 : key_cmp(kv_key(base), kv_key(over));
        if (c < 0) return tree_next(&v->base); /* NULL when both are at their end */
        if (c == 0) (void)tree_next(&v->base);
        (void)tree_next(&v->over);
        struct kv *k = version_at(v->o, over, v->revision);
        if (k) return k;
    }
}

/* Keys of the range that there are. The overlay's are looked at one by one, the index's are counted by the tree. */
static int64_t view_count(const struct eval *ev, struct slice key, struct slice end, int64_t revision)
{
    int64_t n = (int64_t)tree_count(&ev->o->index, key, end);
    if (!ev->in_batch) return n;
    struct tree_iter it;
    tree_seek(&it, &ev->o->batch.over, key);
    for (struct kv *k; (k = tree_next(&it)) && range_has(key, end, kv_key(k));)
        n += (version_at(ev->o, k, revision) != NULL) - (tree_get(&ev->o->index, kv_key(k)) != NULL);
    return n;
}

/* ---- ranges ---- */

static bool range_is_plain(const struct ctl_range *r) /* by key, all of them: as they come */
{
    bool sorted = r->target != CTL_SORT_KEY || r->order == CTL_SORT_DESCEND;
    return !sorted && !r->min_mod_revision && !r->max_mod_revision && !r->min_create_revision && !r->max_create_revision;
}

static bool range_takes(const struct ctl_range *r, const struct kv *k)
{
    int64_t mod = kv_mod(k), create = kv_create(k);
    return !(r->min_mod_revision && mod < r->min_mod_revision) && !(r->max_mod_revision && mod > r->max_mod_revision) &&
           !(r->min_create_revision && create < r->min_create_revision) && !(r->max_create_revision && create > r->max_create_revision);
}

static int number_cmp(int64_t a, int64_t b) { return (a > b) - (a < b); }

static int order_by(const struct kv *a, const struct kv *b, enum ctl_sort_target target)
{
    switch (target) {
    case CTL_SORT_VERSION: return number_cmp(kv_version(a), kv_version(b));
    case CTL_SORT_CREATE: return number_cmp(kv_create(a), kv_create(b));
    case CTL_SORT_MOD: return number_cmp(kv_mod(a), kv_mod(b));
    case CTL_SORT_VALUE: return key_cmp(kv_value(a), kv_value(b));
    case CTL_SORT_KEY: break;
    }
    return key_cmp(kv_key(a), kv_key(b));
}

static bool goes_first(const struct ctl_range *r, const struct kv *a, const struct kv *b)
{
    int c = order_by(a, b, r->target);
    if (r->order == CTL_SORT_DESCEND) c = -c;
    return c ? c < 0 : key_cmp(kv_key(a), kv_key(b)) < 0;
}

/* Merge sort: v and spare have room for n; the result is in v. */
static void kvs_sort(const struct ctl_range *r, struct kv **v, struct kv **spare, size_t n)
{
    if (n < 2) return;
    size_t half = n / 2, i = 0, j = half;
    kvs_sort(r, v, spare, half);
    kvs_sort(r, v + half, spare, n - half);
    memcpy(spare, v, n * sizeof *v);
    for (size_t at = 0; at < n; at++)
        v[at] = j == n || (i < half && !goes_first(r, spare[j], spare[i])) ? spare[i++] : spare[j++];
}

/* The bounds and the order of a range that is not plain; how many are left. */
static size_t range_sort(struct eval *ev, const struct ctl_range *r, struct kv **found, size_t n)
{
    size_t taken = 0;
    for (size_t i = 0; i < n; i++)
        if (range_takes(r, found[i])) found[taken++] = found[i];
    if (r->target == CTL_SORT_VALUE)
        for (size_t i = 0; i < taken; i++) (void)value_here(ev, found[i]);
    if (taken > 1 && !ev->cold) kvs_sort(r, found, arena_alloc(ev->a, taken * sizeof(struct kv *)), taken);
    return taken;
}

/* The answer from the keys found, which may be fewer than count when they are plain. */
static void range_show(struct eval *ev, const struct ctl_range *r, struct kv **found, size_t n, int64_t count, struct ctl_range_result *out)
{
    out->count = count;
    if (r->count_only) return;
    if (!range_is_plain(r)) n = range_sort(ev, r, found, n);
    if (r->limit > 0 && n > (uint64_t)r->limit) {
        n = (size_t)r->limit;
        out->more = true;
    }
    out->kvs = n ? arena_alloc(ev->a, n * sizeof *out->kvs) : NULL;
    out->n = n;
    for (size_t i = 0; i < n; i++) {
        if (r->keys_only) kv_show_key(found[i], &out->kvs[i]);
        else if (value_here(ev, found[i])) kv_show(found[i], &out->kvs[i]);
    }
}

static const struct past *past_of(const struct ctl_call *call, const struct ctl_range *r)
{
    for (const struct past *p = call->priv; p; p = p->next)
        if (p->range == r) return p;
    return NULL;
}

static void eval_range(struct eval *ev, const struct ctl_range *r, struct ctl_range_result *out)
{
    int64_t revision = r->revision > 0 ? r->revision : INT64_MAX;
    const struct past *p = r->revision > 0 && r->revision < ev->o->revision ? past_of(ev->call, r) : NULL;
    if (p) {
        struct kv **kvs = arena_alloc(ev->a, MAX(p->n, 1) * sizeof *kvs);
        if (p->n) memcpy(kvs, p->kvs, p->n * sizeof *kvs);
        range_show(ev, r, kvs, p->n, p->count, out);
        return;
    }
    int64_t count = view_count(ev, r->key, r->end, revision);
    uint64_t max = r->count_only ? 0 : (uint64_t)count;
    if (range_is_plain(r) && r->limit > 0) max = MIN(max, (uint64_t)r->limit + 1);
    struct kv **found = max ? arena_alloc(ev->a, max * sizeof *found) : NULL;
    size_t n = 0;
    if (max) {
        struct view v;
        view_seek(&v, ev, r->key, revision);
        for (struct kv *k; n < max && (k = view_next(&v)) && range_has(r->key, r->end, kv_key(k));) found[n++] = k;
    }
    range_show(ev, r, found, n, count, out);
}

/* ---- what is to be read from disk ---- */

static void ops_past(const struct own *o, const struct ctl_op *ops, size_t n, struct ctl_call *call)
{
    if (n && ops->kind > CTL_TXN) return;
    for (size_t i = 0; i < n; i++) {
        const struct ctl_op *op = &ops[i];
        if (op->kind == CTL_TXN) {
            ops_past(o, op->txn.then_ops, op->txn.then_n, call);
            ops_past(o, op->txn.else_ops, op->txn.else_n, call);
        }
        if (op->kind != CTL_RANGE || op->range.revision <= 0 || op->range.revision >= o->revision || op->range.revision < o->compact) continue;
        if (past_of(call, &op->range)) continue;
        struct past *p = mem_new(MEM_CTL, sizeof *p);
        p->range = &op->range;
        p->count = -1;
        p->next = call->priv;
        call->priv = p;
    }
}

bool past_want(const struct own *o, struct ctl_call *call)
{
    ops_past(o, &call->op, 1, call);
    for (const struct past *p = call->priv; p; p = p->next)
        if (p->count < 0) return true;
    return false;
}

void past_free(struct own *o, struct past *p)
{
    for (struct past *next; p; p = next) {
        next = p->next;
        for (size_t i = 0; i < p->n; i++) kv_unref(p->kvs[i]);
        for (size_t i = 0; p->values && i < p->n; i++) mem_free(p->values[i]);
        o->holds -= p->holds;
        mem_free(p->values);
        mem_free(p->kvs);
        mem_free(p);
    }
}

/* ---- comparisons ---- */

static bool compare_kv(struct eval *ev, const struct ctl_compare *c, struct kv *k)
{
    int64_t is = 0;
    int r;
    switch (c->target) {
    case CTL_TARGET_VERSION: is = k ? kv_version(k) : 0; break;
    case CTL_TARGET_CREATE: is = k ? kv_create(k) : 0; break;
    case CTL_TARGET_MOD: is = k ? kv_mod(k) : 0; break;
    case CTL_TARGET_LEASE: is = k ? kv_lease(k) : 0; break;
    case CTL_TARGET_VALUE: break;
    }
    if (c->target != CTL_TARGET_VALUE) r = number_cmp(is, c->number);
    else if (k && value_here(ev, k)) r = key_cmp(kv_value(k), c->value);
    else return false; /* no key has no value, not an empty one */
    switch (c->result) {
    case CTL_EQUAL: return r == 0;
    case CTL_NOT_EQUAL: return r != 0;
    case CTL_GREATER: return r > 0;
    case CTL_LESS: return r < 0;
    }
    return false;
}

static bool compare_holds(struct eval *ev, const struct ctl_compare *c)
{
    struct view v;
    view_seek(&v, ev, c->key, INT64_MAX);
    size_t n = 0;
    for (struct kv *k; (k = view_next(&v)) && range_has(c->key, c->end, kv_key(k)); n++) {
        ev->looked_n++;
        if (looks_too_much(ev) || !compare_kv(ev, c, k)) return false;
    }
    return n > 0 || compare_kv(ev, c, NULL);
}

/* ---- the path of a transaction, and what its operations require ---- */

static size_t txns_of(const struct ctl_op *ops, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (ops[i].kind != CTL_TXN) continue;
        size_t yes = txns_of(ops[i].txn.then_ops, ops[i].txn.then_n), no = txns_of(ops[i].txn.else_ops, ops[i].txn.else_n);
        sum += 1 + MAX(yes, no);
    }
    return sum;
}

static void txn_path(struct eval *ev, const struct ctl_txn *t)
{
    bool holds = true;
    for (size_t i = 0; holds && i < t->compares_n; i++) holds = compare_holds(ev, &t->compares[i]);
    ev->paths[ev->paths_n++] = holds;
    const struct ctl_op *ops = holds ? t->then_ops : t->else_ops;
    for (size_t i = 0, n = holds ? t->then_n : t->else_n; i < n; i++)
        if (ops[i].kind == CTL_TXN) txn_path(ev, &ops[i].txn);
}

static enum ctl_error put_require(struct eval *ev, const struct ctl_put *p)
{
    const struct lease *l = p->lease ? lease_find(ev->o, p->lease) : NULL;
    enum ctl_error no_lease = p->lease && (!l || l->state == LEASE_REVOKING) ? CTL_LEASE_NOT_FOUND : CTL_OK;
    ev->changes_n++;
    ev->puts_n++;
    if (no_lease && ev->call->op.kind == CTL_PUT) return no_lease; /* etcd looks at it first here, and last in a transaction */
    if ((p->ignore_value || p->ignore_lease) && !batch_get(ev->o, p->key)) return CTL_KEY_NOT_FOUND;
    return no_lease;
}

/* Keys that a range looks at, behind the changes of its own transaction: those that it tells, or changed ones that are counted one by one. */
static uint64_t range_looks(const struct eval *ev, const struct ctl_range *r)
{
    const struct past *p = past_of(ev->call, r);
    if (p) return p->n;
    uint64_t there = (uint64_t)view_count(ev, r->key, r->end, INT64_MAX) + ev->puts_n, told = r->count_only ? 0 : there;
    if (told && r->limit > 0 && range_is_plain(r)) told = MIN(told, (uint64_t)r->limit + 1);
    return MAX(told, ev->in_batch ? MIN(there, ev->changes_n) : 0);
}

/* A range of the past in a transaction. Alone, a negative revision is the present; here etcd takes it at its word. */
static enum ctl_error range_require(const struct eval *ev, const struct ctl_range *r)
{
    int64_t compact = ev->in_batch ? ev->o->batch.compact : ev->o->compact;
    if (r->revision > ev->start) return CTL_FUTURE_REVISION;
    const struct past *p = r->revision > 0 ? past_of(ev->call, r) : NULL;
    if (r->revision > 0) return r->revision < compact ? CTL_COMPACTED : p && p->much ? CTL_TOO_MANY_OPS : CTL_OK;
    bool past = ev->call->op.kind == CTL_TXN && r->revision < 0 && r->revision < (compact > 0 ? compact : -1);
    return past ? CTL_COMPACTED : CTL_OK;
}

/* What the path of a call needs: in a first round its changes, in a second one its ranges, so that errors come in etcd's order. */
static enum ctl_error ops_require(struct eval *ev, const struct ctl_op *ops, size_t n, bool changes)
{
    enum ctl_error e = CTL_OK;
    for (size_t i = 0; e == CTL_OK && i < n; i++) {
        const struct ctl_op *op = &ops[i];
        bool holds;
        switch (op->kind) {
        case CTL_RANGE:
            if (changes) break;
            e = range_require(ev, &op->range);
            ev->looked_n += e == CTL_OK ? range_looks(ev, &op->range) : 0;
            break;
        case CTL_PUT:
            if (changes) e = put_require(ev, &op->put);
            break;
        case CTL_DELETE:
            if (changes) ev->changes_n += (uint64_t)view_count(ev, op->del.key, op->del.end, INT64_MAX);
            break;
        case CTL_TXN:
            holds = ev->paths[ev->paths_at++];
            e = ops_require(ev, holds ? op->txn.then_ops : op->txn.else_ops, holds ? op->txn.then_n : op->txn.else_n, changes);
            break;
        default: e = CTL_INVALID_ARGUMENT;
        }
    }
    return e != CTL_OK ? e : ev->changes_n > REVISION_CHANGES_MAX || looks_too_much(ev) ? CTL_TOO_MANY_OPS : CTL_OK;
}

/* ---- the values that a change's path needs ---- */

/* Whether a deletion is among them, on any path. */
static bool ops_delete(const struct ctl_op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct ctl_op *op = &ops[i];
        if (op->kind == CTL_DELETE) return true;
        if (op->kind == CTL_TXN && (ops_delete(op->txn.then_ops, op->txn.then_n) || ops_delete(op->txn.else_ops, op->txn.else_n))) return true;
    }
    return false;
}

static void keys_want(struct eval *ev, struct slice key, struct slice end, int64_t revision, uint64_t max)
{
    struct view v;
    view_seek(&v, ev, key, revision);
    for (struct kv *k; max > 0 && (k = view_next(&v)) && range_has(key, end, kv_key(k)); max--) (void)value_here(ev, k);
}

/* A deletion before it in the same transaction may move others into a range's limit. */
static void range_want(struct eval *ev, const struct ctl_range *r)
{
    if (r->count_only || (r->keys_only && r->target != CTL_SORT_VALUE)) return;
    if (r->revision > 0 && r->revision < ev->o->revision && past_of(ev->call, r)) return;
    bool limited = r->limit > 0 && range_is_plain(r) && !ops_delete(&ev->call->op, 1);
    keys_want(ev, r->key, r->end, r->revision > 0 ? r->revision : INT64_MAX, limited ? (uint64_t)r->limit : UINT64_MAX);
}

static void ops_want(struct eval *ev, const struct ctl_op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct ctl_op *op = &ops[i];
        struct kv *prev;
        bool holds;
        switch (op->kind) {
        case CTL_RANGE: range_want(ev, &op->range); break;
        case CTL_PUT:
            prev = op->put.prev_kv || op->put.ignore_value ? batch_get(ev->o, op->put.key) : NULL;
            if (prev) (void)value_here(ev, prev);
            break;
        case CTL_DELETE:
            if (op->del.prev_kv) keys_want(ev, op->del.key, op->del.end, INT64_MAX, UINT64_MAX);
            break;
        case CTL_TXN:
            holds = ev->paths[ev->paths_at++];
            ops_want(ev, holds ? op->txn.then_ops : op->txn.else_ops, holds ? op->txn.then_n : op->txn.else_n);
            break;
        default: break;
        }
    }
}

/* ---- doing it ---- */

void batch_change(struct own *o, struct kv *k, int64_t revision)
{
    struct batch *b = &o->batch;
    struct kv *prev = batch_get(o, kv_key(k));
    const struct kv *last = b->changes.n ? b->changes.v[b->changes.n - 1].now : NULL;
    k->id = last && kv_mod(last) == revision ? last->id + 1 : id_of(revision, 0);
    changes_add(&b->changes, k, prev ? kv_ref(prev) : NULL);
    kv_unref(tree_put(&b->over, kv_ref(k)));
    b->bytes += kv_bytes(k);
}

static void eval_put(struct eval *ev, const struct ctl_put *p, struct ctl_put_result *out)
{
    struct own *o = ev->o;
    struct kv *prev = batch_get(o, p->key);
    struct kv *k = kv_new(&o->pool, p->key, p->ignore_value ? kv_value(prev) : p->value, p->ignore_lease ? kv_lease(prev) : p->lease);
    kv_born(k, prev ? kv_create(prev) : ev->start + 1, prev ? kv_version(prev) + 1 : 1);
    batch_change(o, k, ev->start + 1); /* holds prev, too, until the batch has been answered */
    out->has_prev = p->prev_kv && prev;
    if (out->has_prev) kv_show(prev, &out->prev);
}

static void eval_delete(struct eval *ev, const struct ctl_delete *d, struct ctl_delete_result *out)
{
    uint64_t n = (uint64_t)view_count(ev, d->key, d->end, INT64_MAX);
    if (n == 0) return;
    struct kv **found = arena_alloc(ev->a, n * sizeof(struct kv *));
    struct view v;
    view_seek(&v, ev, d->key, INT64_MAX);
    for (uint64_t i = 0; i < n; i++) found[i] = view_next(&v);
    if (d->prev_kv) {
        out->prev = arena_alloc(ev->a, n * sizeof *out->prev);
        out->prev_n = n;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (d->prev_kv) kv_show(found[i], &out->prev[i]);
        batch_change(ev->o, kv_new_dead(&ev->o->pool, kv_key(found[i])), ev->start + 1);
    }
    out->deleted = (int64_t)n;
}

static void eval_op(struct eval *ev, const struct ctl_op *op, struct ctl_op_result *out)
{
    *out = (struct ctl_op_result){.kind = op->kind};
    switch (op->kind) {
    case CTL_RANGE: eval_range(ev, &op->range, &out->range); return;
    case CTL_PUT: eval_put(ev, &op->put, &out->put); return;
    case CTL_DELETE: eval_delete(ev, &op->del, &out->del); return;
    default: break;
    }
    MUST(op->kind == CTL_TXN);
    bool holds = ev->paths[ev->paths_at++];
    const struct ctl_op *ops = holds ? op->txn.then_ops : op->txn.else_ops;
    size_t n = holds ? op->txn.then_n : op->txn.else_n;
    struct ctl_op_result *results = n ? arena_alloc(ev->a, n * sizeof *results) : NULL;
    for (size_t i = 0; i < n; i++) eval_op(ev, &ops[i], &results[i]);
    out->txn = (struct ctl_txn_result){.succeeded = holds, .ops = results, .n = n};
}

/* Range, put, delete or transaction: whether it is to be done, then does it. */
static void eval(struct eval *ev, struct ctl_call *call)
{
    size_t before = ev->o->batch.changes.n;
    const struct ctl_op *op = &call->op;
    size_t txns = txns_of(op, 1);
    ev->paths = txns ? arena_alloc(ev->a, txns * sizeof *ev->paths) : NULL;
    if (op->kind == CTL_TXN) txn_path(ev, &op->txn);
    if (ev->cold) return; /* what it compares with comes first */
    call->error = ops_require(ev, op, 1, true);
    ev->paths_at = 0;
    if (call->error == CTL_OK) call->error = ops_require(ev, op, 1, false);
    ev->paths_at = 0;
    if (call->error == CTL_OK && ev->in_batch) ops_want(ev, op, 1);
    ev->paths_at = 0;
    if (call->error == CTL_OK && !ev->cold) eval_op(ev, op, &call->result);
    MUST(!ev->in_batch || !ev->cold || before == ev->o->batch.changes.n);
}

bool eval_read(struct own *o, struct ctl_call *call, struct arena *a)
{
    call->revision = o->revision;
    if (call->op.kind > CTL_TXN) {
        lease_read(o, call, a);
        return true;
    }
    struct eval ev = {.o = o, .a = a, .call = call, .start = o->revision};
    eval(&ev, call);
    return !ev.cold;
}

static void eval_compact(struct own *o, struct ctl_call *call)
{
    struct batch *b = &o->batch;
    int64_t to = call->op.compact;
    if (to <= b->compact) call->error = CTL_COMPACTED;
    else if (to > b->revision) call->error = CTL_FUTURE_REVISION;
    else b->compact = to;
}

bool eval_change(struct own *o, struct ctl_call *call)
{
    struct batch *b = &o->batch;
    enum ctl_kind kind = call->op.kind;
    if (past_want(o, call)) return false;
    if (kind == CTL_TXN && b->over.root && call_looks(call) * tree_size(&b->over) > TXN_KEYS_MAX) return false; /* not behind so many changes of others */
    call->error = CTL_OK;
    if (o->nospace && !call->exempt && (op_puts(&call->op) || kind == CTL_LEASE_GRANT)) call->error = CTL_NOSPACE;
    else if (kind == CTL_COMPACT) eval_compact(o, call);
    else if (kind > CTL_TXN) {
        if (!lease_eval(o, call)) return false;
    } else {
        struct eval ev = {.o = o, .a = &b->arena, .call = call, .in_batch = true, .start = b->revision};
        size_t before = b->changes.n;
        eval(&ev, call);
        if (ev.cold) return false;
        if (b->changes.n > before) b->revision++;
    }
    call->revision = b->revision;
    return true;
}

/* ---- the batch ---- */

void changes_add(struct changes *c, struct kv *now, struct kv *prev)
{
    ARRAY_GROW(MEM_CTL, c->v, c->n, c->cap);
    c->v[c->n++] = (struct change){now, prev};
}

void changes_fini(struct changes *c)
{
    for (size_t i = 0; i < c->n; i++) {
        kv_unref(c->v[i].now);
        kv_unref(c->v[i].prev);
    }
    mem_free(c->v);
    *c = (struct changes){0};
}

void batch_init(struct batch *b)
{
    list_init(&b->calls);
    list_init(&b->granted);
    list_init(&b->revoked);
    arena_init(&b->arena, MEM_CTL, 16384);
}

/* What is left of it goes; the next one begins. */
void batch_reset(struct own *o)
{
    struct batch *b = &o->batch;
    MUST(list_empty(&b->calls));
    LIST_FOREACH(it, &b->granted) list_del(it);
    LIST_FOREACH(it, &b->revoked) {
        list_del(it);
        lease_free(CONTAINER_OF(it, struct lease, link));
    }
    changes_fini(&b->changes);
    tree_free(&b->over);
    arena_reset(&b->arena);
    b->revision = o->revision;
    b->compact = o->compact;
    b->bytes = b->calls_n = 0;
    keeps_again(o);
}

void index_enter(struct own *o, struct kv *k)
{
    kv_enter(&o->pool, k);
    struct kv_leased *leased = kv_leased(k);
    struct lease *l = leased ? lease_find(o, leased->id) : NULL;
    if (l) list_push(&l->keys, &leased->link);
}

static void index_take(struct own *o, struct kv *k)
{
    bool dead = kv_is(k, KV_DEAD);
    struct kv *old = dead ? tree_del(&o->index, kv_key(k)) : tree_put(&o->index, kv_ref(k));
    if (old) {
        struct kv_leased *was = kv_leased(old);
        if (was) list_del(&was->link);
        kv_leave(&o->pool, old);
        kv_unref(old);
    }
    if (!dead) index_enter(o, k);
}

void batch_apply(struct own *o)
{
    struct batch *b = &o->batch;
    LIST_FOREACH(it, &b->granted) lease_start(CONTAINER_OF(it, struct lease, link));
    size_t n = tree_size(&b->over), at = 0;
    struct kv **kvs = n ? arena_alloc(&b->arena, n * sizeof(struct kv *)) : NULL;
    struct tree_iter it;
    tree_seek(&it, &b->over, slice_of(NULL, 0));
    for (struct kv *k; (k = tree_next(&it));) kvs[at++] = k;
    b->over.root = NULL;
    for (size_t i = 0; i < n; i++) {
        index_take(o, kvs[i]);
        kv_unref(kvs[i]); /* the overlay's */
    }
    LIST_FOREACH(l, &b->revoked) MUST(list_empty(&CONTAINER_OF(l, struct lease, link)->keys));
    o->revision = b->revision;
    o->compact = b->compact;
}

void batch_drop(struct own *o)
{
    struct batch *b = &o->batch;
    LIST_FOREACH(it, &b->granted) {
        list_del(it);
        lease_free(CONTAINER_OF(it, struct lease, link));
    }
    LIST_FOREACH(it, &b->revoked) {
        list_del(it);
        lease_stays(CONTAINER_OF(it, struct lease, link));
    }
}
