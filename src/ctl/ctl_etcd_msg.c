/* ctl_etcd_msg.c - operations of ctl's to messages of etcd's, and its answers to results.
 *
 *     struct ctl_op --msg_request()--> Etcd__XRequest (in an arena, borrows from the call)
 *     bytes --msg_answer()--> Etcd__XResponse --> struct ctl_op_result (all in an arena)
 *
 * Pure translation: what is wrong with a call was said before (check.c), and what happened is the member's word. A message from outside may lack what it should
 * have: an operation's answer that is not the one that was asked for is ERR_SYNTAX.
 */
#include "ctl_etcd_int.h"

#include <stdlib.h>

#define NEW(a, T, init) ({ T *p_ = arena_alloc((a), sizeof *p_); init(p_); p_; })

/* ---- requests ---- */

static Etcd__RangeRequest *range_request(struct arena *a, const struct ctl_range *r)
{
    Etcd__RangeRequest *m = NEW(a, Etcd__RangeRequest, etcd__range_request__init);
    m->key = etcd_data(r->key);
    m->range_end = etcd_data(r->end);
    m->limit = r->limit;
    m->revision = r->revision;
    m->sort_order = (Etcd__RangeRequest__SortOrder)r->order;
    m->sort_target = (Etcd__RangeRequest__SortTarget)r->target;
    m->serializable = r->serializable;
    m->keys_only = r->keys_only;
    m->count_only = r->count_only;
    m->min_mod_revision = r->min_mod_revision;
    m->max_mod_revision = r->max_mod_revision;
    m->min_create_revision = r->min_create_revision;
    m->max_create_revision = r->max_create_revision;
    return m;
}

static Etcd__PutRequest *put_request(struct arena *a, const struct ctl_put *p)
{
    Etcd__PutRequest *m = NEW(a, Etcd__PutRequest, etcd__put_request__init);
    m->key = etcd_data(p->key);
    m->value = etcd_data(p->value);
    m->lease = p->lease;
    m->prev_kv = p->prev_kv;
    m->ignore_value = p->ignore_value;
    m->ignore_lease = p->ignore_lease;
    return m;
}

static Etcd__DeleteRangeRequest *delete_request(struct arena *a, const struct ctl_delete *d)
{
    Etcd__DeleteRangeRequest *m = NEW(a, Etcd__DeleteRangeRequest, etcd__delete_range_request__init);
    m->key = etcd_data(d->key);
    m->range_end = etcd_data(d->end);
    m->prev_kv = d->prev_kv;
    return m;
}

static Etcd__Compare *compare_request(struct arena *a, const struct ctl_compare *c)
{
    Etcd__Compare *m = NEW(a, Etcd__Compare, etcd__compare__init);
    m->result = (Etcd__Compare__CompareResult)c->result;
    m->target = (Etcd__Compare__CompareTarget)c->target;
    m->key = etcd_data(c->key);
    m->range_end = etcd_data(c->end);
    switch (c->target) {
    case CTL_TARGET_VERSION: m->target_union_case = ETCD__COMPARE__TARGET_UNION_VERSION; m->version = c->number; break;
    case CTL_TARGET_CREATE: m->target_union_case = ETCD__COMPARE__TARGET_UNION_CREATE_REVISION; m->create_revision = c->number; break;
    case CTL_TARGET_MOD: m->target_union_case = ETCD__COMPARE__TARGET_UNION_MOD_REVISION; m->mod_revision = c->number; break;
    case CTL_TARGET_VALUE: m->target_union_case = ETCD__COMPARE__TARGET_UNION_VALUE; m->value = etcd_data(c->value); break;
    case CTL_TARGET_LEASE: m->target_union_case = ETCD__COMPARE__TARGET_UNION_LEASE; m->lease = c->number; break;
    }
    return m;
}

static Etcd__TxnRequest *txn_request(struct arena *a, const struct ctl_txn *t);

static Etcd__RequestOp **ops_request(struct arena *a, const struct ctl_op *ops, size_t n)
{
    Etcd__RequestOp **out = arena_alloc(a, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        Etcd__RequestOp *m = out[i] = NEW(a, Etcd__RequestOp, etcd__request_op__init);
        switch (ops[i].kind) {
        case CTL_RANGE:
            m->request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE;
            m->request_range = range_request(a, &ops[i].range);
            break;
        case CTL_PUT:
            m->request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_PUT;
            m->request_put = put_request(a, &ops[i].put);
            break;
        case CTL_DELETE:
            m->request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
            m->request_delete_range = delete_request(a, &ops[i].del);
            break;
        default: /* call_check() lets no other pass */
            MUST(ops[i].kind == CTL_TXN);
            m->request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_TXN;
            m->request_txn = txn_request(a, &ops[i].txn);
            break;
        }
    }
    return out;
}

static Etcd__TxnRequest *txn_request(struct arena *a, const struct ctl_txn *t)
{
    Etcd__TxnRequest *m = NEW(a, Etcd__TxnRequest, etcd__txn_request__init);
    m->n_compare = t->compares_n;
    m->compare = arena_alloc(a, (t->compares_n + 1) * sizeof *m->compare);
    for (size_t i = 0; i < t->compares_n; i++) m->compare[i] = compare_request(a, &t->compares[i]);
    m->n_success = t->then_n;
    m->success = ops_request(a, t->then_ops, t->then_n);
    m->n_failure = t->else_n;
    m->failure = ops_request(a, t->else_ops, t->else_n);
    return m;
}

static const ProtobufCMessage *lease_request(struct arena *a, enum ctl_kind kind, const struct ctl_lease *l)
{
    if (kind == CTL_LEASE_GRANT) {
        Etcd__LeaseGrantRequest *m = NEW(a, Etcd__LeaseGrantRequest, etcd__lease_grant_request__init);
        m->ttl = l->ttl_s;
        m->id = l->id;
        return &m->base;
    }
    if (kind == CTL_LEASE_REVOKE) {
        Etcd__LeaseRevokeRequest *m = NEW(a, Etcd__LeaseRevokeRequest, etcd__lease_revoke_request__init);
        m->id = l->id;
        return &m->base;
    }
    if (kind == CTL_LEASE_KEEP) {
        Etcd__LeaseKeepAliveRequest *m = NEW(a, Etcd__LeaseKeepAliveRequest, etcd__lease_keep_alive_request__init);
        m->id = l->id;
        return &m->base;
    }
    if (kind == CTL_LEASE_LIST) {
        Etcd__LeaseLeasesRequest *m = NEW(a, Etcd__LeaseLeasesRequest, etcd__lease_leases_request__init);
        return &m->base;
    }
    MUST(kind == CTL_LEASE_INFO);
    Etcd__LeaseTimeToLiveRequest *m = NEW(a, Etcd__LeaseTimeToLiveRequest, etcd__lease_time_to_live_request__init);
    m->id = l->id;
    m->keys = l->keys;
    return &m->base;
}

const ProtobufCMessage *msg_request(struct arena *a, const struct ctl_op *op)
{
    switch (op->kind) {
    case CTL_RANGE: return &range_request(a, &op->range)->base;
    case CTL_PUT: return &put_request(a, &op->put)->base;
    case CTL_DELETE: return &delete_request(a, &op->del)->base;
    case CTL_TXN: return &txn_request(a, &op->txn)->base;
    case CTL_COMPACT: {
        Etcd__CompactionRequest *m = NEW(a, Etcd__CompactionRequest, etcd__compaction_request__init);
        m->revision = op->compact;
        return &m->base;
    }
    default: return lease_request(a, op->kind, &op->lease);
    }
}

/* ---- answers ---- */

void msg_kv(const Etcd__KeyValue *m, struct ctl_kv *out)
{
    *out = (struct ctl_kv){.key = etcd_slice(m->key), .value = etcd_slice(m->value), .create_revision = m->create_revision, .mod_revision = m->mod_revision,
                           .version = m->version, .lease = m->lease};
}

static struct ctl_kv *kvs_read(struct arena *a, Etcd__KeyValue *const *m, size_t n)
{
    struct ctl_kv *kvs = arena_alloc(a, (n + 1) * sizeof *kvs);
    for (size_t i = 0; i < n; i++) msg_kv(m[i], &kvs[i]);
    return kvs;
}

/* Who asked for a range counts on it that keys are in it: he may cut off what they have in common. */
static enum err range_read(struct arena *a, const struct ctl_range *asked, const Etcd__RangeResponse *m, struct ctl_range_result *out)
{
    *out = (struct ctl_range_result){.kvs = kvs_read(a, m->kvs, m->n_kvs), .n = m->n_kvs, .more = m->more, .count = m->count};
    for (size_t i = 0; i < out->n; i++)
        if (!range_has(asked->key, asked->end, out->kvs[i].key)) return ERR_SYNTAX;
    return OK;
}

static void put_read(const Etcd__PutResponse *m, struct ctl_put_result *out)
{
    out->has_prev = m->prev_kv != NULL;
    if (m->prev_kv) msg_kv(m->prev_kv, &out->prev);
}

static void delete_read(struct arena *a, const Etcd__DeleteRangeResponse *m, struct ctl_delete_result *out)
{
    *out = (struct ctl_delete_result){.deleted = m->deleted, .prev = kvs_read(a, m->prev_kvs, m->n_prev_kvs), .prev_n = m->n_prev_kvs};
}

static enum err txn_read(struct arena *a, const struct ctl_txn *asked, const Etcd__TxnResponse *m, struct ctl_txn_result *out);

/* The answer to one operation of a transaction, which has to be of its kind. */
static enum err op_read(struct arena *a, const struct ctl_op *asked, const Etcd__ResponseOp *m, struct ctl_op_result *out)
{
    out->kind = asked->kind;
    if (asked->kind == CTL_RANGE && m->response_case == ETCD__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
        return range_read(a, &asked->range, m->response_range, &out->range);
    if (asked->kind == CTL_PUT && m->response_case == ETCD__RESPONSE_OP__RESPONSE_RESPONSE_PUT) put_read(m->response_put, &out->put);
    else if (asked->kind == CTL_DELETE && m->response_case == ETCD__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE)
        delete_read(a, m->response_delete_range, &out->del);
    else if (asked->kind == CTL_TXN && m->response_case == ETCD__RESPONSE_OP__RESPONSE_RESPONSE_TXN) return txn_read(a, &asked->txn, m->response_txn, &out->txn);
    else return ERR_SYNTAX;
    return OK;
}

static enum err txn_read(struct arena *a, const struct ctl_txn *asked, const Etcd__TxnResponse *m, struct ctl_txn_result *out)
{
    const struct ctl_op *ops = m->succeeded ? asked->then_ops : asked->else_ops;
    size_t n = m->succeeded ? asked->then_n : asked->else_n;
    if (m->n_responses != n) return ERR_SYNTAX;
    *out = (struct ctl_txn_result){.succeeded = m->succeeded, .ops = arena_zalloc(a, (n + 1) * sizeof *out->ops), .n = n};
    for (size_t i = 0; i < n; i++)
        if (op_read(a, &ops[i], m->responses[i], &out->ops[i]) != OK) return ERR_SYNTAX;
    return OK;
}

/* Sorts in place, n log n: a lease may have any number of keys. */
static void sort(void *base, size_t n, size_t size, int (*cmp)(const void *a, const void *b))
{
    if (n > 1) qsort(base, n, size, cmp);
}

static int slice_order(const void *a, const void *b) { return key_cmp(*(const struct slice *)a, *(const struct slice *)b); }

static int id_order(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void info_read(struct arena *a, const Etcd__LeaseTimeToLiveResponse *m, struct ctl_lease_result *out)
{
    out->id = m->id;
    out->ttl_s = m->ttl;
    out->granted_s = m->grantedttl;
    out->keys_n = m->n_keys;
    out->keys = arena_alloc(a, (m->n_keys + 1) * sizeof *out->keys);
    for (size_t i = 0; i < m->n_keys; i++) out->keys[i] = etcd_slice(m->keys[i]);
    sort(out->keys, out->keys_n, sizeof *out->keys, slice_order);
}

static void list_read(struct arena *a, const Etcd__LeaseLeasesResponse *m, struct ctl_lease_result *out)
{
    out->ids_n = m->n_leases;
    out->ids = arena_alloc(a, (m->n_leases + 1) * sizeof *out->ids);
    for (size_t i = 0; i < m->n_leases; i++) out->ids[i] = m->leases[i]->id;
    sort(out->ids, out->ids_n, sizeof *out->ids, id_order);
}

#define AS(T, m) ((const T *)(const void *)(m))

static const ProtobufCMessageDescriptor *const answers[CTL_KINDS] = {
    [CTL_RANGE] = &etcd__range_response__descriptor,
    [CTL_PUT] = &etcd__put_response__descriptor,
    [CTL_DELETE] = &etcd__delete_range_response__descriptor,
    [CTL_TXN] = &etcd__txn_response__descriptor,
    [CTL_COMPACT] = &etcd__compaction_response__descriptor,
    [CTL_LEASE_GRANT] = &etcd__lease_grant_response__descriptor,
    [CTL_LEASE_REVOKE] = &etcd__lease_revoke_response__descriptor,
    [CTL_LEASE_KEEP] = &etcd__lease_keep_alive_response__descriptor,
    [CTL_LEASE_INFO] = &etcd__lease_time_to_live_response__descriptor,
    [CTL_LEASE_LIST] = &etcd__lease_leases_response__descriptor,
    [CTL_DISARM] = &etcd__alarm_response__descriptor,
};

/* The result of a message of the call's kind. */
static enum err result_read(struct arena *a, const ProtobufCMessage *m, struct ctl_call *call)
{
    struct ctl_op_result *out = &call->result;
    switch (call->op.kind) {
    case CTL_RANGE: return range_read(a, &call->op.range, AS(Etcd__RangeResponse, m), &out->range);
    case CTL_PUT: put_read(AS(Etcd__PutResponse, m), &out->put); return OK;
    case CTL_DELETE: delete_read(a, AS(Etcd__DeleteRangeResponse, m), &out->del); return OK;
    case CTL_TXN: return txn_read(a, &call->op.txn, AS(Etcd__TxnResponse, m), &out->txn);
    case CTL_LEASE_GRANT:
        out->lease.id = AS(Etcd__LeaseGrantResponse, m)->id;
        out->lease.ttl_s = AS(Etcd__LeaseGrantResponse, m)->ttl;
        return OK;
    case CTL_LEASE_KEEP:
        out->lease.id = AS(Etcd__LeaseKeepAliveResponse, m)->id;
        out->lease.ttl_s = MAX(AS(Etcd__LeaseKeepAliveResponse, m)->ttl, 0);
        return OK;
    case CTL_LEASE_REVOKE: out->lease.id = call->op.lease.id; return OK;
    case CTL_LEASE_INFO: info_read(a, AS(Etcd__LeaseTimeToLiveResponse, m), &out->lease); return OK;
    case CTL_LEASE_LIST: list_read(a, AS(Etcd__LeaseLeasesResponse, m), &out->lease); return OK;
    default: return OK;
    }
}

enum err msg_answer(struct arena *a, struct slice bytes, size_t bytes_max, struct ctl_call *call, const ProtobufCMessage **out)
{
    ProtobufCMessage *m;
    enum err e = etcd_read_max(answers[call->op.kind], a, bytes, bytes_max, &m);
    if (e != OK) return e;
    /* Every answer's first field is its header. */
    const Etcd__ResponseHeader *h = AS(Etcd__CompactionResponse, m)->header;
    if (h) call->revision = h->revision;
    *out = m;
    return result_read(a, m, call);
}

enum ctl_error msg_error(const char *text)
{
    for (int e = CTL_OK + 1; e < CTL_ERROR_COUNT; e++)
        if (strcmp(ctl_error_text((enum ctl_error)e), text) == 0) return (enum ctl_error)e;
    return CTL_OK;
}
