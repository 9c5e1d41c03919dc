/* txn_requests.c - what producers ask of the transaction coordinator: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn; and txn_verify() of
 * the broker itself.
 *
 *     home shard: permissions, topics  --breq_visit()-->  coordinator: the state decides (txn.c), the record is durable  --breq_answer()-->  home
 *
 * The order of the checks is Kafka's (TransactionCoordinator, KIP-98, KIP-360). A request that has begun a transition is the txn's waiter and is answered by
 * the after() of that transition.
 */
#include "security_int.h"
#include "txn_int.h"

/* PRODUCER_FENCED is known from that version of an API on; before it, INVALID_PRODUCER_EPOCH said so (KIP-588). */
static enum kafka_error fenced_for(const struct breq *r, enum kafka_error e, int16_t since)
{
    return e == KAFKA_PRODUCER_FENCED && r->version < since ? KAFKA_INVALID_PRODUCER_EPOCH : e;
}

/* The coordinator's shard for an id; NULL: the topic is being made. */
static struct shard *coordinator(struct breq *r, struct slice id)
{
    int32_t partition;
    struct shard *s = coordinator_of(r->home, TXN_TOPIC, id, &partition);
    if (!s)
        internal_topic_make(r->home, TXN_TOPIC);
    return s;
}

/* ---- InitProducerId ------------------------------------------------------------------------------------------------------------ */

struct init_call {
    struct kafka_init_producer_id_resp resp; /* first: breq.resp points here */
    struct breq *r;
    struct producer_id_wait id;
    bool id_known;
};

static void init_answer(struct breq *r, enum kafka_error e, int64_t id, int16_t epoch)
{
    struct kafka_init_producer_id_resp *resp = r->resp;
    resp->error_code = (int16_t)fenced_for(r, e, 4);
    resp->producer_id = e == KAFKA_NONE ? id : -1;
    resp->producer_epoch = e == KAFKA_NONE ? epoch : TXN_EPOCH_NONE;
    r->error = resp->error_code;
    breq_answer(r, r->at);
}

static void init_written(struct txn *t, enum kafka_error e)
{
    struct breq *r = t->waiter;
    t->waiter = NULL;
    if (e != KAFKA_NONE && t->now.epoch == TXN_EPOCH_NONE && !t->dead)
        txn_forget(t); /* nothing of it was ever written */
    init_answer(r, e, t->now.producer_id, t->now.epoch);
}

/* The transaction of the producer before is being aborted; the client asks again (KIP-360). */
static void init_aborting(struct txn *t, enum kafka_error e)
{
    struct breq *r = t->waiter;
    t->waiter = NULL;
    init_answer(r, e == KAFKA_NONE ? KAFKA_CONCURRENT_TRANSACTIONS : e, -1, -1);
}

static void init_at(struct breq *r);

static void init_id_came(struct shard *here, struct producer_id_wait *w)
{
    struct init_call *c = CONTAINER_OF(w, struct init_call, id);
    const struct kafka_init_producer_id_req *req = c->r->req;
    (void)here;
    c->id_known = w->error == KAFKA_NONE;
    if (w->error != KAFKA_NONE)
        init_answer(c->r, w->error == KAFKA_KAFKA_STORAGE_ERROR ? KAFKA_COORDINATOR_NOT_AVAILABLE : w->error, -1, -1);
    else if (!req->transactional_id.p)
        init_answer(c->r, KAFKA_NONE, w->id, 0);
    else
        init_at(c->r);
}

static void init_want_id(struct breq *r)
{
    struct init_call *c = r->resp;
    c->id.done = init_id_came;
    producer_id_get(r->at, &c->id);
}

/* The producer says which it was (KIP-360): is it still, or was it before the id was rotated? */
static bool init_id_fits(const struct txn *t, const struct kafka_init_producer_id_req *req)
{
    return req->producer_id == -1 || t->now.epoch == TXN_EPOCH_NONE || req->producer_id == t->now.producer_id ||
           (req->producer_id == t->now.previous_id && req->producer_epoch >= TXN_EPOCH_LAST);
}

/* t->next's producer id and epochs. */
static enum kafka_error init_bump(struct txn *t, const struct kafka_init_producer_id_req *req)
{
    bool given = req->producer_id != -1;
    struct txn_meta *next = &t->next;
    if (t->now.epoch == TXN_EPOCH_NONE || !given) {
        next->last_epoch = TXN_EPOCH_NONE;
        next->epoch = (int16_t)(t->now.epoch + 1);
    } else if (req->producer_id == t->now.producer_id && req->producer_epoch == t->now.epoch) {
        next->last_epoch = t->now.epoch;
        next->epoch = (int16_t)(t->now.epoch + 1);
    } else if (t->now.last_epoch != TXN_EPOCH_NONE && req->producer_epoch == t->now.last_epoch) {
        next->epoch = t->now.epoch; /* a repetition: the answer was lost */
    } else {
        return KAFKA_PRODUCER_FENCED;
    }
    return KAFKA_NONE;
}

/* The last epoch was given out: a new id begins. next->last_epoch lets the same producer repeat its request. */
static void init_rotate(struct txn *t, int64_t id, bool given)
{
    t->next.previous_id = t->now.producer_id;
    t->next.producer_id = id;
    t->next.last_epoch = given ? t->now.epoch : TXN_EPOCH_NONE;
    t->next.epoch = 0;
}

static void init_transit(struct txn *t, struct breq *r)
{
    const struct kafka_init_producer_id_req *req = r->req;
    struct init_call *c = r->resp;
    bool given = req->producer_id != -1;
    enum kafka_error e = KAFKA_NONE;
    t->next = t->now;
    if (t->now.epoch >= TXN_EPOCH_LAST && (!given || (req->producer_id == t->now.producer_id && req->producer_epoch == t->now.epoch))) {
        if (!c->id_known) {
            init_want_id(r);
            return;
        }
        init_rotate(t, c->id.id, given);
    } else {
        e = t->now.epoch >= TXN_EPOCH_LAST ? KAFKA_PRODUCER_FENCED : init_bump(t, req);
    }
    if (e != KAFKA_NONE) {
        init_answer(r, e, -1, -1);
        return;
    }
    t->next.state = TXN_EMPTY;
    t->next.timeout_ms = req->transaction_timeout_ms;
    t->next.start_ms = -1;
    t->next.update_ms = txn_wall_ms();
    t->waiter = r;
    txn_transit(t, init_written);
}

static void init_new(struct txns_part *tp, struct breq *r)
{
    const struct kafka_init_producer_id_req *req = r->req;
    struct init_call *c = r->resp;
    if (!c->id_known) {
        init_want_id(r);
        return;
    }
    struct txn *t = txn_new(tp, req->transactional_id);
    if (!t) {
        init_answer(r, KAFKA_POLICY_VIOLATION, -1, -1);
        return;
    }
    t->now.producer_id = c->id.id;
    c->id_known = false; /* used up */
    init_transit(t, r);
}

static void init_at(struct breq *r)
{
    const struct kafka_init_producer_id_req *req = r->req;
    enum kafka_error e;
    struct txns_part *tp = txns_part_of(r->at, req->transactional_id, &e);
    struct txn *t = tp ? txn_find(r->at, req->transactional_id) : NULL;
    if (e != KAFKA_NONE) {
        init_answer(r, e, -1, -1);
    } else if (!t) {
        init_new(tp, r);
    } else if (txn_pending(t)) {
        init_answer(r, KAFKA_CONCURRENT_TRANSACTIONS, -1, -1);
    } else if (!init_id_fits(t, req)) {
        init_answer(r, KAFKA_PRODUCER_FENCED, -1, -1);
    } else if (txn_preparing(t)) {
        init_answer(r, KAFKA_CONCURRENT_TRANSACTIONS, -1, -1);
    } else if (t->now.state == TXN_ONGOING) {
        t->waiter = r;
        txn_end(t, false, true, init_aborting);
    } else {
        init_transit(t, r);
    }
}

static enum kafka_error init_check(const struct breq *r, const struct kafka_init_producer_id_req *req)
{
    if (req->transactional_id.p && !allowed(r, ACL_WRITE, ACL_TXN, req->transactional_id))
        return KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    if (!req->transactional_id.p && !allowed(r, ACL_IDEMPOTENT_WRITE, ACL_CLUSTER, CLUSTER_NAME) && !allowed_write_somewhere(r))
        return KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    if ((req->producer_id == -1) != (req->producer_epoch == -1) || req->producer_id < -1 || req->producer_epoch < -1)
        return KAFKA_INVALID_REQUEST;
    if (!req->transactional_id.p)
        return KAFKA_NONE;
    if (req->transactional_id.n == 0)
        return KAFKA_INVALID_REQUEST;
    if (req->transaction_timeout_ms <= 0 || req->transaction_timeout_ms > TXN_TIMEOUT_MAX_MS)
        return KAFKA_INVALID_TRANSACTION_TIMEOUT;
    return KAFKA_NONE;
}

void init_producer_id_serve(struct breq *r)
{
    const struct kafka_init_producer_id_req *req = r->req;
    struct init_call *c = BREQ_NEW(r, struct init_call);
    kafka_init_producer_id_resp_init(&c->resp);
    c->r = r;
    r->resp = c;
    enum kafka_error e = init_check(r, req);
    struct shard *s = e == KAFKA_NONE && req->transactional_id.p ? coordinator(r, req->transactional_id) : NULL;
    if (e != KAFKA_NONE)
        init_answer(r, e, -1, -1);
    else if (!req->transactional_id.p)
        init_want_id(r);
    else if (!s)
        init_answer(r, KAFKA_COORDINATOR_NOT_AVAILABLE, -1, -1);
    else
        breq_visit(r, r->home, s, init_at);
}

/* ---- AddPartitionsToTxn, AddOffsetsToTxn ------------------------------------------------------------------------------------------- */

struct add_topic {
    struct slice name;
    const int32_t *parts;
    int32_t n;
};
/* Both of them, at the coordinator. */
struct add_call {
    union {
        struct kafka_add_partitions_to_txn_resp partitions;
        struct kafka_add_offsets_to_txn_resp offsets;
    } resp;                        /* first: breq.resp points here */
    struct slice id;
    int64_t producer_id;
    int16_t epoch;
    const struct add_topic *topics;
    int32_t topics_n;
    void (*answer)(struct breq *r, enum kafka_error e);
    int32_t group_partition;
};

static void add_written(struct txn *t, enum kafka_error e)
{
    struct breq *r = t->waiter;
    struct add_call *c = r->resp;
    t->waiter = NULL;
    c->answer(r, e);
}

/* What a request of a producer gets before its own question: is it the present one, and is nothing under way? */
static enum kafka_error producer_check(const struct txn *t, int64_t id, int16_t epoch)
{
    return !t                            ? KAFKA_INVALID_PRODUCER_ID_MAPPING
           : txn_pending(t)              ? KAFKA_CONCURRENT_TRANSACTIONS
           : t->now.producer_id != id    ? KAFKA_INVALID_PRODUCER_ID_MAPPING
           : t->now.epoch != epoch       ? KAFKA_PRODUCER_FENCED
           : epoch > TXN_EPOCH_LAST      ? KAFKA_PRODUCER_FENCED /* given to nobody: the abort of the last one's transaction has it */
           : txn_preparing(t)            ? KAFKA_CONCURRENT_TRANSACTIONS
                                         : KAFKA_NONE;
}

static bool add_all_there(const struct txn *t, const struct add_call *c)
{
    for (int32_t i = 0; i < c->topics_n; i++)
        for (int32_t j = 0; j < c->topics[i].n; j++)
            if (!txn_parts_has(&t->parts, c->topics[i].name, c->topics[i].parts[j]))
                return false;
    return true;
}

static bool add_union(struct txn *t, const struct add_call *c)
{
    txn_parts_copy(&t->next_parts, &t->parts);
    for (int32_t i = 0; i < c->topics_n; i++)
        for (int32_t j = 0; j < c->topics[i].n && t->next_parts.count <= TXN_PARTITIONS_MAX; j++)
            txn_parts_add(&t->next_parts, c->topics[i].name, c->topics[i].parts[j]);
    if (t->next_parts.count <= TXN_PARTITIONS_MAX)
        return true;
    txn_parts_clear(&t->next_parts);
    counter_inc(&t->part->all->counters.partitions_refused);
    return false;
}

static void add_at(struct breq *r);

static void add_unpark(struct breq *r, bool again)
{
    struct add_call *c = r->resp;
    if (again)
        add_at(r);
    else
        c->answer(r, KAFKA_CONCURRENT_TRANSACTIONS);
}

/* The transaction before this one is ending, which takes a few syncs: waiting here spares the client its pause before it asks again. */
static bool add_waits(struct txn *t, const struct add_call *c, struct breq *r)
{
    return txn_preparing(t) && t->now.producer_id == c->producer_id && t->now.epoch == c->epoch && txn_park(t, r, add_unpark);
}

static void add_at(struct breq *r)
{
    struct add_call *c = r->resp;
    enum kafka_error e;
    struct txn *t = txns_part_of(r->at, c->id, &e) ? txn_find(r->at, c->id) : NULL;
    if (e == KAFKA_NONE)
        e = producer_check(t, c->producer_id, c->epoch);
    if (e == KAFKA_CONCURRENT_TRANSACTIONS && add_waits(t, c, r))
        return;
    if (e != KAFKA_NONE || (t->now.state == TXN_ONGOING && add_all_there(t, c))) {
        c->answer(r, e);
        return;
    }
    if (!add_union(t, c)) {
        c->answer(r, KAFKA_POLICY_VIOLATION);
        return;
    }
    int64_t now = txn_wall_ms();
    t->next = t->now;
    t->next.state = TXN_ONGOING;
    t->next.update_ms = now;
    if (t->now.state != TXN_ONGOING)
        t->next.start_ms = now;
    t->waiter = r;
    txn_transit(t, add_written);
}

static void add_begin(struct breq *r, struct add_call *c)
{
    struct shard *s = c->id.n ? coordinator(r, c->id) : NULL;
    if (c->id.n == 0)
        c->answer(r, KAFKA_INVALID_REQUEST);
    else if (!s)
        c->answer(r, KAFKA_COORDINATOR_NOT_AVAILABLE);
    else
        breq_visit(r, r->home, s, add_at);
}

/* One error for every partition; those that have one of their own (by_topic) keep it, and the others were then not attempted. */
static void add_partitions_answer(struct breq *r, enum kafka_error e)
{
    struct add_call *c = r->resp;
    struct kafka_add_partitions_to_txn_resp *resp = &c->resp.partitions;
    e = fenced_for(r, e, 2);
    for (int32_t i = 0; i < resp->results_by_topic_v3_and_below_n; i++) {
        struct kafka_add_partitions_to_txn_resp_add_partitions_to_txn_topic_result *t = &resp->results_by_topic_v3_and_below[i];
        for (int32_t j = 0; j < t->results_by_partition_n; j++)
            if (t->results_by_partition[j].partition_error_code == KAFKA_NONE)
                t->results_by_partition[j].partition_error_code = (int16_t)e;
    }
    r->error = (int16_t)e;
    breq_answer(r, r->at);
}

static enum kafka_error add_topic_check(const struct breq *r, struct slice name)
{
    const struct topic *t = catalog_topic(r->home->catalog, name);
    bool internal = slice_eq(name, OFFSETS_TOPIC) || slice_eq(name, TXN_TOPIC) || (t && t->internal);
    return internal || !allowed(r, ACL_WRITE, ACL_TOPIC, name) ? KAFKA_TOPIC_AUTHORIZATION_FAILED : t ? KAFKA_NONE : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
}

/* The answer's shape, with the errors that the home shard can tell; false when there are any. */
static bool add_partitions_check(struct breq *r, const struct kafka_add_partitions_to_txn_req *req, struct kafka_add_partitions_to_txn_resp *resp)
{
    bool ok = true;
    int32_t n = MAX(req->v3_and_below_topics_n, 0);
    resp->results_by_topic_v3_and_below = BREQ_ARRAY(r, struct kafka_add_partitions_to_txn_resp_add_partitions_to_txn_topic_result, n);
    resp->results_by_topic_v3_and_below_n = n;
    for (int32_t i = 0; i < n; i++) {
        const struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic *in = &req->v3_and_below_topics[i];
        struct kafka_add_partitions_to_txn_resp_add_partitions_to_txn_topic_result *out = &resp->results_by_topic_v3_and_below[i];
        const struct topic *t = catalog_topic(r->home->catalog, in->name);
        enum kafka_error e = add_topic_check(r, in->name);
        out->name = in->name;
        out->results_by_partition_n = MAX(in->partitions_n, 0);
        out->results_by_partition = BREQ_ARRAY(r, struct kafka_add_partitions_to_txn_resp_add_partitions_to_txn_partition_result, in->partitions_n);
        for (int32_t j = 0; j < in->partitions_n; j++) {
            bool there = e != KAFKA_NONE || (in->partitions[j] >= 0 && in->partitions[j] < t->partitions);
            out->results_by_partition[j].partition_index = in->partitions[j];
            out->results_by_partition[j].partition_error_code = (int16_t)(there ? e : KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
            ok = ok && out->results_by_partition[j].partition_error_code == KAFKA_NONE;
        }
    }
    return ok;
}

void add_partitions_to_txn_serve(struct breq *r)
{
    const struct kafka_add_partitions_to_txn_req *req = r->req;
    struct add_call *c = BREQ_NEW(r, struct add_call);
    r->resp = c;
    kafka_add_partitions_to_txn_resp_init(&c->resp.partitions);
    c->answer = add_partitions_answer;
    c->id = req->v3_and_below_transactional_id;
    c->producer_id = req->v3_and_below_producer_id;
    c->epoch = req->v3_and_below_producer_epoch;
    bool ok = add_partitions_check(r, req, &c->resp.partitions);
    if (!allowed(r, ACL_WRITE, ACL_TXN, c->id)) {
        for (int32_t i = 0; i < c->resp.partitions.results_by_topic_v3_and_below_n; i++)
            for (int32_t j = 0; j < c->resp.partitions.results_by_topic_v3_and_below[i].results_by_partition_n; j++)
                c->resp.partitions.results_by_topic_v3_and_below[i].results_by_partition[j].partition_error_code = KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        add_partitions_answer(r, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        return;
    }
    if (!ok) {
        add_partitions_answer(r, KAFKA_OPERATION_NOT_ATTEMPTED);
        return;
    }
    struct add_topic *topics = BREQ_ARRAY(r, struct add_topic, req->v3_and_below_topics_n);
    for (int32_t i = 0; i < req->v3_and_below_topics_n; i++)
        topics[i] = (struct add_topic){req->v3_and_below_topics[i].name, req->v3_and_below_topics[i].partitions, req->v3_and_below_topics[i].partitions_n};
    c->topics = topics;
    c->topics_n = MAX(req->v3_and_below_topics_n, 0);
    add_begin(r, c);
}

static void add_offsets_answer(struct breq *r, enum kafka_error e)
{
    struct add_call *c = r->resp;
    c->resp.offsets.error_code = (int16_t)fenced_for(r, e, 2);
    r->error = c->resp.offsets.error_code;
    breq_answer(r, r->at);
}

void add_offsets_to_txn_serve(struct breq *r)
{
    const struct kafka_add_offsets_to_txn_req *req = r->req;
    struct add_call *c = BREQ_NEW(r, struct add_call);
    r->resp = c;
    kafka_add_offsets_to_txn_resp_init(&c->resp.offsets);
    c->answer = add_offsets_answer;
    c->id = req->transactional_id;
    c->producer_id = req->producer_id;
    c->epoch = req->producer_epoch;
    if (!allowed(r, ACL_WRITE, ACL_TXN, c->id)) {
        add_offsets_answer(r, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    } else if (!allowed(r, ACL_READ, ACL_GROUP, req->group_id)) {
        add_offsets_answer(r, KAFKA_GROUP_AUTHORIZATION_FAILED);
    } else if (!coordinator_of(r->home, OFFSETS_TOPIC, req->group_id, &c->group_partition)) {
        internal_topic_make(r->home, OFFSETS_TOPIC);
        add_offsets_answer(r, KAFKA_COORDINATOR_NOT_AVAILABLE);
    } else {
        struct add_topic *topic = BREQ_NEW(r, struct add_topic);
        *topic = (struct add_topic){OFFSETS_TOPIC, &c->group_partition, 1};
        c->topics = topic;
        c->topics_n = 1;
        add_begin(r, c);
    }
}

/* ---- EndTxn -------------------------------------------------------------------------------------------------------------------------- */

static void end_answer(struct breq *r, enum kafka_error e)
{
    struct kafka_end_txn_resp *resp = r->resp;
    resp->error_code = (int16_t)fenced_for(r, e, 2);
    r->error = resp->error_code;
    breq_answer(r, r->at);
}

static void end_written(struct txn *t, enum kafka_error e)
{
    struct breq *r = t->waiter;
    t->waiter = NULL;
    end_answer(r, e);
}

/* What EndTxn gets without doing anything; NONE in Ongoing: it is to be done. */
static enum kafka_error end_check(const struct txn *t, const struct kafka_end_txn_req *req)
{
    if (!t || t->now.producer_id != req->producer_id)
        return KAFKA_INVALID_PRODUCER_ID_MAPPING;
    if (t->now.epoch != req->producer_epoch)
        return KAFKA_PRODUCER_FENCED;
    if (txn_pending(t))
        return KAFKA_CONCURRENT_TRANSACTIONS;
    switch (t->now.state) {
    case TXN_ONGOING: return KAFKA_NONE;
    case TXN_PREPARE_COMMIT: return req->committed ? KAFKA_CONCURRENT_TRANSACTIONS : KAFKA_INVALID_TXN_STATE;
    case TXN_PREPARE_ABORT: return req->committed ? KAFKA_INVALID_TXN_STATE : KAFKA_CONCURRENT_TRANSACTIONS;
    case TXN_COMPLETE_COMMIT: return req->committed ? KAFKA_NONE : KAFKA_INVALID_TXN_STATE;
    case TXN_COMPLETE_ABORT: return req->committed ? KAFKA_INVALID_TXN_STATE : KAFKA_NONE;
    default: return KAFKA_INVALID_TXN_STATE;
    }
}

static void end_at(struct breq *r)
{
    const struct kafka_end_txn_req *req = r->req;
    enum kafka_error e;
    struct txn *t = txns_part_of(r->at, req->transactional_id, &e) ? txn_find(r->at, req->transactional_id) : NULL;
    if (e == KAFKA_NONE)
        e = end_check(t, req);
    if (e != KAFKA_NONE || t->now.state != TXN_ONGOING) {
        end_answer(r, e);
        return;
    }
    t->waiter = r;
    txn_end(t, req->committed, false, end_written);
}

void end_txn_serve(struct breq *r)
{
    const struct kafka_end_txn_req *req = r->req;
    struct kafka_end_txn_resp *resp = BREQ_NEW(r, struct kafka_end_txn_resp);
    kafka_end_txn_resp_init(resp);
    r->resp = resp;
    if (!allowed(r, ACL_WRITE, ACL_TXN, req->transactional_id)) {
        end_answer(r, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        return;
    }
    struct shard *s = req->transactional_id.n ? coordinator(r, req->transactional_id) : NULL;
    if (req->transactional_id.n == 0)
        end_answer(r, KAFKA_INVALID_REQUEST);
    else if (!s)
        end_answer(r, KAFKA_COORDINATOR_NOT_AVAILABLE);
    else
        breq_visit(r, r->home, s, end_at);
}

/* ---- WriteTxnMarkers: for brokers among themselves; there is one -------------------------------------------------------------------------- */

void write_txn_markers_serve(struct breq *r)
{
    const struct kafka_write_txn_markers_req *req = r->req;
    struct kafka_write_txn_markers_resp *resp = BREQ_NEW(r, struct kafka_write_txn_markers_resp);
    kafka_write_txn_markers_resp_init(resp);
    resp->markers_n = MAX(req->markers_n, 0);
    resp->markers = BREQ_ARRAY(r, struct kafka_write_txn_markers_resp_writable_txn_marker_result, resp->markers_n);
    for (int32_t i = 0; i < resp->markers_n; i++) {
        const struct kafka_write_txn_markers_req_writable_txn_marker *in = &req->markers[i];
        struct kafka_write_txn_markers_resp_writable_txn_marker_result *out = &resp->markers[i];
        out->producer_id = in->producer_id;
        out->topics_n = MAX(in->topics_n, 0);
        out->topics = BREQ_ARRAY(r, struct kafka_write_txn_markers_resp_writable_txn_marker_topic_result, out->topics_n);
        for (int32_t j = 0; j < out->topics_n; j++) {
            const struct kafka_write_txn_markers_req_writable_txn_marker_topic *topic = &in->topics[j];
            struct kafka_write_txn_markers_resp_writable_txn_marker_topic_result *to = &out->topics[j];
            to->name = topic->name;
            to->partitions_n = MAX(topic->partition_indexes_n, 0);
            to->partitions = BREQ_ARRAY(r, struct kafka_write_txn_markers_resp_writable_txn_marker_partition_result, to->partitions_n);
            for (int32_t k = 0; k < to->partitions_n; k++) {
                to->partitions[k].partition_index = topic->partition_indexes[k];
                to->partitions[k].error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
            }
        }
    }
    r->resp = resp;
    r->error = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    breq_answer(r, r->at);
}

/* ---- txn_verify(): KIP-890 ------------------------------------------------------------------------------------------------------------------ */

static enum kafka_error verify_at(struct shard *here, const struct txn_verify *v)
{
    enum kafka_error e;
    struct txn *t = txns_part_of(here, v->transactional_id, &e) ? txn_find(here, v->transactional_id) : NULL;
    if (e != KAFKA_NONE)
        return KAFKA_NOT_ENOUGH_REPLICAS;
    if (!t || t->now.producer_id != v->producer_id)
        return KAFKA_INVALID_PRODUCER_ID_MAPPING;
    if (t->now.epoch != v->producer_epoch)
        return KAFKA_INVALID_PRODUCER_EPOCH;
    if (txn_preparing(t) || (t->writing && t->next.state != TXN_ONGOING))
        return KAFKA_NOT_ENOUGH_REPLICAS; /* its end is being decided: the producer asks again and learns */
    return t->now.state == TXN_ONGOING && txn_parts_has(&t->parts, v->topic, v->partition) ? KAFKA_NONE : KAFKA_INVALID_TXN_STATE;
}

static void verify_back(struct shard *here, struct call *c)
{
    struct txn_verify *v = CONTAINER_OF(c, struct txn_verify, call);
    v->done(here, v);
}

static void verify_decide(struct shard *here, struct txn_verify *v)
{
    v->error = verify_at(here, v);
    counter_inc(v->error == KAFKA_NONE ? &here->txns->counters.verified : &here->txns->counters.verify_refused);
}

static void verify_arrived(struct shard *here, struct call *c)
{
    struct txn_verify *v = CONTAINER_OF(c, struct txn_verify, call);
    verify_decide(here, v);
    v->call.fn = verify_back;
    shard_call(here, v->from, &v->call);
}

void txn_verify(struct shard *here, struct txn_verify *v)
{
    int32_t partition;
    struct shard *s = coordinator_of(here, TXN_TOPIC, v->transactional_id, &partition);
    v->from = here;
    if (!s) {
        v->error = KAFKA_INVALID_PRODUCER_ID_MAPPING; /* no transactional id was ever made */
        v->done(here, v);
    } else if (s == here) {
        verify_decide(here, v);
        v->done(here, v);
    } else {
        v->call.fn = verify_arrived;
        shard_call(here, s, &v->call);
    }
}
