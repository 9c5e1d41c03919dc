/* etcd_kv.c - the service KV: Range, Put, DeleteRange, Txn, Compact.
 *
 *     Etcd__XRequest --x_read()--> struct ctl_op (in the call's arena) --ctl--> struct ctl_op_result --x_write()--> Etcd__XResponse
 *
 * The four operations are also what a transaction consists of, so each translation is written once. Numbers that stand for a choice are
 * checked here, because the store's enums hold nothing else; everything else that can be wrong with a request is the store's to say.
 */
#include "etcd_int.h"

#define NEW(a, T, init) ({ T *p_ = arena_alloc((a), sizeof *p_); init(p_); p_; })

/* ---- requests ----------------------------------------------------------------------------------------------------------- */

static enum ctl_error range_read(const Etcd__RangeRequest *m, struct ctl_op *op)
{
    op->kind = CTL_RANGE;
    if ((unsigned)m->sort_order > CTL_SORT_DESCEND || (unsigned)m->sort_target > CTL_SORT_VALUE)
        return CTL_INVALID_SORT;
    op->range = (struct ctl_range){.key = etcd_slice(m->key),
                                   .end = etcd_slice(m->range_end),
                                   .limit = m->limit,
                                   .revision = m->revision,
                                   .order = (enum ctl_sort_order)m->sort_order,
                                   .target = (enum ctl_sort_target)m->sort_target,
                                   .serializable = m->serializable,
                                   .keys_only = m->keys_only,
                                   .count_only = m->count_only,
                                   .min_mod_revision = m->min_mod_revision,
                                   .max_mod_revision = m->max_mod_revision,
                                   .min_create_revision = m->min_create_revision,
                                   .max_create_revision = m->max_create_revision};
    return CTL_OK;
}

static enum ctl_error put_read(const Etcd__PutRequest *m, struct ctl_op *op)
{
    op->kind = CTL_PUT;
    op->put = (struct ctl_put){.key = etcd_slice(m->key),
                               .value = etcd_slice(m->value),
                               .lease = m->lease,
                               .prev_kv = m->prev_kv,
                               .ignore_value = m->ignore_value,
                               .ignore_lease = m->ignore_lease};
    return CTL_OK;
}

static enum ctl_error delete_read(const Etcd__DeleteRangeRequest *m, struct ctl_op *op)
{
    op->kind = CTL_DELETE;
    op->del = (struct ctl_delete){.key = etcd_slice(m->key), .end = etcd_slice(m->range_end), .prev_kv = m->prev_kv};
    return CTL_OK;
}

static enum ctl_error compare_read(const Etcd__Compare *m, struct ctl_compare *c)
{
    if ((unsigned)m->result > CTL_NOT_EQUAL || (unsigned)m->target > CTL_TARGET_LEASE)
        return CTL_INVALID_ARGUMENT;
    *c = (struct ctl_compare){.key = etcd_slice(m->key),
                              .end = etcd_slice(m->range_end),
                              .target = (enum ctl_compare_target)m->target,
                              .result = (enum ctl_compare_result)m->result};
    switch (c->target) { /* of the union, what target does not name counts as absent: 0, or empty */
    case CTL_TARGET_VERSION: c->number = m->target_union_case == ETCD__COMPARE__TARGET_UNION_VERSION ? m->version : 0; break;
    case CTL_TARGET_CREATE: c->number = m->target_union_case == ETCD__COMPARE__TARGET_UNION_CREATE_REVISION ? m->create_revision : 0; break;
    case CTL_TARGET_MOD: c->number = m->target_union_case == ETCD__COMPARE__TARGET_UNION_MOD_REVISION ? m->mod_revision : 0; break;
    case CTL_TARGET_LEASE: c->number = m->target_union_case == ETCD__COMPARE__TARGET_UNION_LEASE ? m->lease : 0; break;
    case CTL_TARGET_VALUE:
        if (m->target_union_case == ETCD__COMPARE__TARGET_UNION_VALUE)
            c->value = etcd_slice(m->value);
        break;
    }
    return CTL_OK;
}

static enum ctl_error txn_read(struct arena *a, const Etcd__TxnRequest *m, struct ctl_op *op);

static enum ctl_error ops_read(struct arena *a, Etcd__RequestOp *const *m, size_t n, const struct ctl_op **out)
{
    struct ctl_op *ops = arena_zalloc(a, (n + 1) * sizeof *ops);
    enum ctl_error e = CTL_OK;
    for (size_t i = 0; i < n && e == CTL_OK; i++)
        switch (m[i]->request_case) {
        case ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE: e = range_read(m[i]->request_range, &ops[i]); break;
        case ETCD__REQUEST_OP__REQUEST_REQUEST_PUT: e = put_read(m[i]->request_put, &ops[i]); break;
        case ETCD__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE: e = delete_read(m[i]->request_delete_range, &ops[i]); break;
        case ETCD__REQUEST_OP__REQUEST_REQUEST_TXN: e = txn_read(a, m[i]->request_txn, &ops[i]); break;
        default: e = CTL_KEY_NOT_FOUND; break; /* what etcd says of an operation that is none */
        }
    *out = ops;
    return e;
}

/* As deep as the message: ETCD_NESTING_MAX. */
static enum ctl_error txn_read(struct arena *a, const Etcd__TxnRequest *m, struct ctl_op *op)
{
    struct ctl_compare *compares = arena_zalloc(a, (m->n_compare + 1) * sizeof *compares);
    enum ctl_error e = CTL_OK;
    op->kind = CTL_TXN;
    op->txn = (struct ctl_txn){.compares = compares, .compares_n = m->n_compare, .then_n = m->n_success, .else_n = m->n_failure};
    for (size_t i = 0; i < m->n_compare && e == CTL_OK; i++)
        e = compare_read(m->compare[i], &compares[i]);
    if (e == CTL_OK)
        e = ops_read(a, m->success, m->n_success, &op->txn.then_ops);
    return e == CTL_OK ? ops_read(a, m->failure, m->n_failure, &op->txn.else_ops) : e;
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

Etcd__KeyValue *etcd_kv(struct arena *a, const struct ctl_kv *kv)
{
    Etcd__KeyValue *m = NEW(a, Etcd__KeyValue, etcd__key_value__init);
    m->key = etcd_data(kv->key);
    m->value = etcd_data(kv->value);
    m->create_revision = kv->create_revision;
    m->mod_revision = kv->mod_revision;
    m->version = kv->version;
    m->lease = kv->lease;
    return m;
}

static Etcd__KeyValue **kvs_write(struct arena *a, const struct ctl_kv *kvs, size_t n)
{
    Etcd__KeyValue **out = arena_alloc(a, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = etcd_kv(a, &kvs[i]);
    return out;
}

static Etcd__RangeResponse *range_write(struct arena *a, const struct ctl_range_result *r)
{
    Etcd__RangeResponse *m = NEW(a, Etcd__RangeResponse, etcd__range_response__init);
    m->kvs = kvs_write(a, r->kvs, r->n);
    m->n_kvs = r->n;
    m->more = r->more;
    m->count = r->count;
    return m;
}

static Etcd__PutResponse *put_write(struct arena *a, const struct ctl_put_result *r)
{
    Etcd__PutResponse *m = NEW(a, Etcd__PutResponse, etcd__put_response__init);
    m->prev_kv = r->has_prev ? etcd_kv(a, &r->prev) : NULL;
    return m;
}

static Etcd__DeleteRangeResponse *delete_write(struct arena *a, const struct ctl_delete_result *r)
{
    Etcd__DeleteRangeResponse *m = NEW(a, Etcd__DeleteRangeResponse, etcd__delete_range_response__init);
    m->deleted = r->deleted;
    m->prev_kvs = kvs_write(a, r->prev, r->prev_n);
    m->n_prev_kvs = r->prev_n;
    return m;
}

/* What the operations of a transaction say about revisions, as etcd's do: each names the store's as it was when it had been done, which is that of the
 * transaction from its first change on. */
struct txn_walk {
    struct arena *a;
    int64_t before;              /* the store's revision without the transaction */
    bool changed;                /* by the operations so far */
};

static bool txn_changes(const struct ctl_txn_result *r)
{
    bool changes = false;
    for (size_t i = 0; i < r->n && !changes; i++)
        changes = r->ops[i].kind == CTL_PUT || (r->ops[i].kind == CTL_DELETE && r->ops[i].del.deleted) ||
                  (r->ops[i].kind == CTL_TXN && txn_changes(&r->ops[i].txn));
    return changes;
}

static Etcd__ResponseHeader *op_header(struct txn_walk *w, bool changes)
{
    w->changed |= changes;
    Etcd__ResponseHeader *h = NEW(w->a, Etcd__ResponseHeader, etcd__response_header__init);
    h->revision = w->before + w->changed;
    return h;
}

static Etcd__TxnResponse *txn_write(struct txn_walk *w, const struct ctl_txn_result *r);

static Etcd__ResponseOp *op_write(struct txn_walk *w, const struct ctl_op_result *r)
{
    struct arena *a = w->a;
    Etcd__ResponseOp *m = NEW(a, Etcd__ResponseOp, etcd__response_op__init);
    switch (r->kind) {
    case CTL_RANGE:
        m->response_case = ETCD__RESPONSE_OP__RESPONSE_RESPONSE_RANGE;
        m->response_range = range_write(a, &r->range);
        m->response_range->header = op_header(w, false);
        break;
    case CTL_PUT:
        m->response_case = ETCD__RESPONSE_OP__RESPONSE_RESPONSE_PUT;
        m->response_put = put_write(a, &r->put);
        m->response_put->header = op_header(w, true);
        break;
    case CTL_DELETE:
        m->response_case = ETCD__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE;
        m->response_delete_range = delete_write(a, &r->del);
        m->response_delete_range->header = op_header(w, r->del.deleted > 0);
        break;
    default:
        MUST(r->kind == CTL_TXN);
        m->response_case = ETCD__RESPONSE_OP__RESPONSE_RESPONSE_TXN;
        m->response_txn = txn_write(w, &r->txn);
        m->response_txn->header = NEW(a, Etcd__ResponseHeader, etcd__response_header__init); /* there, and empty */
        break;
    }
    return m;
}

static Etcd__TxnResponse *txn_write(struct txn_walk *w, const struct ctl_txn_result *r)
{
    Etcd__TxnResponse *m = NEW(w->a, Etcd__TxnResponse, etcd__txn_response__init);
    m->succeeded = r->succeeded;
    m->responses = arena_alloc(w->a, (r->n + 1) * sizeof *m->responses);
    m->n_responses = r->n;
    for (size_t i = 0; i < r->n; i++)
        m->responses[i] = op_write(w, &r->ops[i]);
    return m;
}

/* ---- the methods --------------------------------------------------------------------------------------------------------- */

static void kv_done(struct etcd_call *call)
{
    struct arena *a = &call->mem;
    const struct ctl_op_result *r = &call->ctl.result;
    if (call->ctl.error) {
        etcd_fail_ctl(call);
        return;
    }
    Etcd__ResponseHeader *header = etcd_header(call, call->ctl.revision);
    if (call->ctl.op.kind == CTL_RANGE) {
        Etcd__RangeResponse *m = range_write(a, &r->range);
        m->header = header;
        etcd_answer(call, &m->base);
    } else if (call->ctl.op.kind == CTL_PUT) {
        Etcd__PutResponse *m = put_write(a, &r->put);
        m->header = header;
        etcd_answer(call, &m->base);
    } else if (call->ctl.op.kind == CTL_DELETE) {
        Etcd__DeleteRangeResponse *m = delete_write(a, &r->del);
        m->header = header;
        etcd_answer(call, &m->base);
    } else if (call->ctl.op.kind == CTL_TXN) {
        struct txn_walk w = {.a = a, .before = call->ctl.revision - txn_changes(&r->txn)};
        Etcd__TxnResponse *m = txn_write(&w, &r->txn);
        m->header = header;
        etcd_answer(call, &m->base);
    } else {
        MUST(call->ctl.op.kind == CTL_COMPACT);
        Etcd__CompactionResponse *m = NEW(a, Etcd__CompactionResponse, etcd__compaction_response__init);
        m->header = header;
        etcd_answer(call, &m->base);
    }
}

static void kv_ask(struct etcd_call *call, enum ctl_error e)
{
    call->ctl.error = e;
    if (e)
        etcd_fail_ctl(call);
    else
        etcd_ask_kv(call, kv_done);
}

/* The handlers get what the table of methods says that they get. */
#define AS(T, m) ((const T *)(const void *)(m))

void etcd_range(struct etcd_call *call, const ProtobufCMessage *m) { kv_ask(call, range_read(AS(Etcd__RangeRequest, m), &call->ctl.op)); }
void etcd_put(struct etcd_call *call, const ProtobufCMessage *m) { kv_ask(call, put_read(AS(Etcd__PutRequest, m), &call->ctl.op)); }
void etcd_delete_range(struct etcd_call *call, const ProtobufCMessage *m) { kv_ask(call, delete_read(AS(Etcd__DeleteRangeRequest, m), &call->ctl.op)); }
void etcd_txn(struct etcd_call *call, const ProtobufCMessage *m) { kv_ask(call, txn_read(&call->mem, AS(Etcd__TxnRequest, m), &call->ctl.op)); }

void etcd_compact(struct etcd_call *call, const ProtobufCMessage *m)
{
    call->ctl.op = (struct ctl_op){.kind = CTL_COMPACT, .compact = AS(Etcd__CompactionRequest, m)->revision};
    if (etcd_may_all(call->conn, ETCD_MAY_WRITE))
        etcd_ask(call, kv_done);
    else
        etcd_deny(call);
}
