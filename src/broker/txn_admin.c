/* txn_admin.c - DescribeTransactions, ListTransactions, and the metrics of transactions.
 *
 * Both requests visit every shard in turn with the baton and look only at what is in memory; permissions are looked at when they are home again, since the
 * snapshot of permissions is the home shard's.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "prom.h"
#include "txn_int.h"
#include <pcre2.h>

#define PATTERN_MAX 1024           /* bytes of a pattern of ListTransactions */
#define PATTERN_STEPS_MAX 2000     /* of PCRE2 for one id */
#define PATTERN_HEAP_KIB 1024
#define PATTERN_IDS 500            /* that are matched in one turn of the loop */

/* ---- DescribeTransactions -------------------------------------------------------------------------------------------------------- */

struct describe_call {
    struct kafka_describe_transactions_resp resp; /* first: breq.resp points here */
    struct shard **at;             /* where each id is coordinated; NULL: known at home that nowhere */
    uint32_t shard;                /* visited now */
};

static void describe_topics(struct breq *r, const struct txn *t, struct kafka_describe_transactions_resp_transaction_state *out)
{
    out->topics_n = (int32_t)t->parts.n;
    out->topics = BREQ_ARRAY(r, struct kafka_describe_transactions_resp_topic_data, t->parts.n);
    for (uint32_t i = 0; i < t->parts.n; i++) {
        const struct txn_topic *topic = &t->parts.topics[i];
        out->topics[i].topic = arena_slice(&r->arena, slice_cstr(topic->name));
        out->topics[i].partitions = BREQ_ARRAY(r, int32_t, topic->n);
        out->topics[i].partitions_n = (int32_t)topic->n;
        memcpy(out->topics[i].partitions, topic->parts, topic->n * sizeof *topic->parts);
    }
}

static void describe_one(struct breq *r, struct kafka_describe_transactions_resp_transaction_state *out)
{
    enum kafka_error e;
    struct txn *t = txns_part_of(r->at, out->transactional_id, &e) ? txn_find(r->at, out->transactional_id) : NULL;
    if (e == KAFKA_NONE && !t)
        e = KAFKA_TRANSACTIONAL_ID_NOT_FOUND;
    out->error_code = (int16_t)e;
    if (e != KAFKA_NONE)
        return;
    out->transaction_state = slice_cstr(txn_state_name(t->now.state));
    out->transaction_timeout_ms = t->now.timeout_ms;
    out->transaction_start_time_ms = t->now.start_ms;
    out->producer_id = t->now.producer_id;
    out->producer_epoch = t->now.epoch;
    describe_topics(r, t, out);
}

static void describe_visit(struct breq *r);

/* To the next shard that has one of the ids, and home after the last. */
static void describe_next(struct breq *r, uint32_t from)
{
    struct describe_call *c = r->resp;
    for (uint32_t s = from; s < r->home->b->shards_n; s++) {
        for (int32_t i = 0; i < c->resp.transaction_states_n; i++) {
            if (c->at[i] == r->home->b->shards[s]) {
                c->shard = s;
                breq_visit(r, r->at, c->at[i], describe_visit);
                return;
            }
        }
    }
    c->shard = UINT32_MAX;
    breq_visit(r, r->at, r->home, describe_visit);
}

/* Topics that the caller may not know of are left out. */
static void describe_home(struct breq *r)
{
    struct describe_call *c = r->resp;
    for (int32_t i = 0; i < c->resp.transaction_states_n; i++) {
        struct kafka_describe_transactions_resp_transaction_state *t = &c->resp.transaction_states[i];
        int32_t n = 0;
        for (int32_t j = 0; j < t->topics_n; j++)
            if (allowed(r, ACL_DESCRIBE, ACL_TOPIC, t->topics[j].topic))
                t->topics[n++] = t->topics[j];
        t->topics_n = n;
    }
    breq_answer(r, r->at);
}

static void describe_visit(struct breq *r)
{
    struct describe_call *c = r->resp;
    if (c->shard == UINT32_MAX) {
        describe_home(r);
        return;
    }
    for (int32_t i = 0; i < c->resp.transaction_states_n; i++)
        if (c->at[i] == r->at)
            describe_one(r, &c->resp.transaction_states[i]);
    describe_next(r, c->shard + 1);
}

void describe_transactions_serve(struct breq *r)
{
    const struct kafka_describe_transactions_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->transactional_ids_n, 0), NAMED_ITEMS_MAX))
        return;
    struct describe_call *c = BREQ_NEW(r, struct describe_call);
    struct table seen = {0};
    int32_t n = MAX(req->transactional_ids_n, 0), partition;
    kafka_describe_transactions_resp_init(&c->resp);
    r->resp = c;
    c->resp.transaction_states = BREQ_ARRAY(r, struct kafka_describe_transactions_resp_transaction_state, n);
    c->resp.transaction_states_n = n;
    c->at = BREQ_ARRAY(r, struct shard *, n);
    for (int32_t i = 0; i < n; i++) {
        struct kafka_describe_transactions_resp_transaction_state *out = &c->resp.transaction_states[i];
        kafka_describe_transactions_resp_transaction_state_init(out);
        out->transactional_id = req->transactional_ids[i];
        if (!allowed(r, ACL_DESCRIBE, ACL_TXN, out->transactional_id))
            out->error_code = KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        else if (out->transactional_id.n == 0 || table_put(&seen, out->transactional_id, r)) /* its partitions may be many: named again it is not told again */
            out->error_code = KAFKA_INVALID_REQUEST;
        else if (!(c->at[i] = coordinator_of(r->home, TXN_TOPIC, out->transactional_id, &partition)))
            out->error_code = KAFKA_TRANSACTIONAL_ID_NOT_FOUND;
    }
    table_fini(&seen);
    describe_next(r, 0);
}

/* ---- ListTransactions ---------------------------------------------------------------------------------------------------------------- */

struct list_call {
    struct kafka_list_transactions_resp resp; /* first: breq.resp points here */
    struct breq *r;
    struct call call;              /* to home from home: the next turn */
    uint32_t shard;                /* visited now; shards_n: home again */
    uint32_t cap;
    int32_t looked, kept;          /* of the ids, when they are home: at the pattern and at permissions; those that pass are in front */
    bool states[TXN_STATES];       /* wanted */
    bool by_state;
    pcre2_code *pattern;           /* NULL: every id */
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

static bool list_matches(const struct list_call *c, const struct txn *t, int64_t now)
{
    const struct kafka_list_transactions_req *req = c->r->req;
    bool found = req->producer_id_filters_n <= 0;
    for (int32_t i = 0; i < req->producer_id_filters_n && !found; i++)
        found = req->producer_id_filters[i] == t->now.producer_id;
    if (!found || (c->by_state && !c->states[t->now.state]))
        return false;
    return c->r->version < 1 || req->duration_filter < 0 || (t->now.start_ms >= 0 && now - t->now.start_ms > req->duration_filter);
}

static void list_add(struct breq *r, struct list_call *c, const struct txn *t)
{
    struct kafka_list_transactions_resp *resp = &c->resp;
    if ((uint32_t)resp->transaction_states_n == c->cap) {
        uint32_t cap = c->cap ? c->cap * 2 : 32;
        struct kafka_list_transactions_resp_transaction_state *more = BREQ_ARRAY(r, struct kafka_list_transactions_resp_transaction_state, cap);
        if (c->cap)
            memcpy(more, resp->transaction_states, c->cap * sizeof *more);
        resp->transaction_states = more;
        c->cap = cap;
    }
    resp->transaction_states[resp->transaction_states_n++] = (struct kafka_list_transactions_resp_transaction_state){
        .transactional_id = arena_slice(&r->arena, t->id), .producer_id = t->now.producer_id, .transaction_state = slice_cstr(txn_state_name(t->now.state))};
}

static void list_end(struct breq *r)
{
    struct list_call *c = r->resp;
    if (c->pattern) {
        pcre2_code_free(c->pattern);
        pcre2_match_data_free(c->match);
        pcre2_match_context_free(c->limits);
        c->pattern = NULL;
    }
    c->resp.transaction_states_n = c->resp.error_code == KAFKA_NONE ? c->kept : 0;
    r->error = c->resp.error_code;
    breq_answer(r, r->at);
}

static void list_home(struct breq *r);
static void list_again(struct shard *here, struct call *call) { list_home(CONTAINER_OF(call, struct list_call, call)->r); }

/* A pattern may be a costly one, and the ids many: so many in a turn, and then others have theirs. */
static void list_home(struct breq *r)
{
    struct list_call *c = r->resp;
    struct kafka_list_transactions_resp_transaction_state *all = c->resp.transaction_states;
    int32_t until = c->pattern ? MIN(c->looked + PATTERN_IDS, c->resp.transaction_states_n) : c->resp.transaction_states_n;
    for (; c->looked < until; c->looked++) {
        struct slice id = all[c->looked].transactional_id;
        bool fits = !c->pattern || pcre2_match(c->pattern, (PCRE2_SPTR)id.p, id.n, 0, 0, c->match, c->limits) >= 0;
        if (fits && allowed(r, ACL_DESCRIBE, ACL_TXN, id))
            all[c->kept++] = all[c->looked];
    }
    if (c->looked == c->resp.transaction_states_n) {
        list_end(r);
        return;
    }
    c->call.fn = list_again;
    shard_call(r->home, r->home, &c->call);
}

static void list_visit(struct breq *r)
{
    struct list_call *c = r->resp;
    struct txns *all = r->at->txns;
    int64_t now = txn_wall_ms();
    if (c->shard == r->home->b->shards_n) {
        list_home(r);
        return;
    }
    LIST_FOREACH (it, &all->parts)
        if (CONTAINER_OF(it, struct txns_part, link)->bp && CONTAINER_OF(it, struct txns_part, link)->state == TXNS_LOADING)
            c->resp.error_code = KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
    for (struct table_slot *slot = NULL; (slot = table_next(&all->by_id, slot));)
        if (list_matches(c, slot->value, now))
            list_add(r, c, slot->value);
    c->shard++;
    breq_visit(r, r->at, c->shard < r->home->b->shards_n ? r->home->b->shards[c->shard] : r->home, list_visit);
}

static void list_states(struct breq *r, struct list_call *c, const struct kafka_list_transactions_req *req)
{
    c->resp.unknown_state_filters = BREQ_ARRAY(r, struct slice, req->state_filters_n);
    for (int32_t i = 0; i < req->state_filters_n; i++) {
        bool known = false;
        for (uint32_t s = 0; s < TXN_STATES; s++) {
            if (slice_is(req->state_filters[i], txn_state_name((enum txn_state)s)))
                known = c->states[s] = true;
        }
        c->by_state = true;
        if (!known)
            c->resp.unknown_state_filters[c->resp.unknown_state_filters_n++] = req->state_filters[i];
    }
}

/* The pattern must match the whole id (KIP-1152). */
static enum kafka_error list_pattern(struct list_call *c, struct slice pattern)
{
    int code;
    PCRE2_SIZE at;
    if (pattern.n > PATTERN_MAX)
        return KAFKA_INVALID_REGULAR_EXPRESSION;
    pcre2_compile_context *how = pcre2_compile_context_create(NULL);
    pcre2_set_compile_extra_options(how, PCRE2_EXTRA_MATCH_LINE);
    c->pattern = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, how);
    pcre2_compile_context_free(how);
    if (!c->pattern)
        return KAFKA_INVALID_REGULAR_EXPRESSION;
    c->match = pcre2_match_data_create(1, NULL);
    c->limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(c->limits, PATTERN_STEPS_MAX);
    pcre2_set_heap_limit(c->limits, PATTERN_HEAP_KIB);
    return KAFKA_NONE;
}

void list_transactions_serve(struct breq *r)
{
    const struct kafka_list_transactions_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->producer_id_filters_n, 0) + (uint64_t)MAX(req->state_filters_n, 0), FILTER_ITEMS_MAX))
        return;
    struct list_call *c = BREQ_NEW(r, struct list_call);
    kafka_list_transactions_resp_init(&c->resp);
    c->r = r;
    r->resp = c;
    list_states(r, c, req);
    enum kafka_error e = r->version >= 2 && req->transactional_id_pattern.n ? list_pattern(c, req->transactional_id_pattern) : KAFKA_NONE;
    if (e != KAFKA_NONE) {
        c->resp.error_code = (int16_t)e;
        list_end(r);
        return;
    }
    breq_visit(r, r->home, r->home->b->shards[0], list_visit);
}

/* ---- metrics --------------------------------------------------------------------------------------------------------------------------- */

static uint64_t sum(const struct broker *b, size_t offset)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->shards_n; i++)
        if (b->shards[i] && b->shards[i]->txns)
            n += counter_read((const counter *)(const void *)((const char *)&b->shards[i]->txns->counters + offset));
    return n;
}

void txns_metrics(struct broker *b, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t offset;
        enum prom_type type;
    } rows[] = {
        {"weir_kafka_txn_ids", "Transactional ids that are known.", offsetof(struct txn_counters, ids), PROM_GAUGE},
        {"weir_kafka_txn_begun_total", "Transactions begun.", offsetof(struct txn_counters, begun), PROM_COUNTER},
        {"weir_kafka_txn_committed_total", "Transactions committed.", offsetof(struct txn_counters, committed), PROM_COUNTER},
        {"weir_kafka_txn_aborted_total", "Transactions aborted, for whatever reason.", offsetof(struct txn_counters, aborted), PROM_COUNTER},
        {"weir_kafka_txn_timed_out_total", "Transactions aborted because they were open for longer than their timeout.", offsetof(struct txn_counters, timed_out), PROM_COUNTER},
        {"weir_kafka_txn_fenced_total", "Transactions aborted because another producer took their transactional id.", offsetof(struct txn_counters, fenced), PROM_COUNTER},
        {"weir_kafka_txn_markers_total", "Ends of transactions written to partitions.", offsetof(struct txn_counters, markers), PROM_COUNTER},
        {"weir_kafka_txn_markers_retried_total", "Times that ends of a transaction had to be written again.", offsetof(struct txn_counters, markers_retried), PROM_COUNTER},
        {"weir_kafka_txn_expired_total", "Transactional ids forgotten after 7 idle days.", offsetof(struct txn_counters, expired), PROM_COUNTER},
        {"weir_kafka_txn_waited_total", "Requests that waited for the end of the transaction before theirs.", offsetof(struct txn_counters, parked), PROM_COUNTER},
        {"weir_kafka_txn_waited_in_vain_total", "Of these, the ones that waited for a second and were then told to ask again.", offsetof(struct txn_counters, park_timeouts), PROM_COUNTER},
        {"weir_kafka_txn_ids_refused_total", "Transactional ids refused by the limit.", offsetof(struct txn_counters, ids_refused), PROM_COUNTER},
        {"weir_kafka_txn_partitions_refused_total", "Transactions refused another partition by the limit.", offsetof(struct txn_counters, partitions_refused), PROM_COUNTER},
        {"weir_kafka_txn_verified_total", "Batches found to be in their producer's transaction (KIP-890).", offsetof(struct txn_counters, verified), PROM_COUNTER},
        {"weir_kafka_txn_verify_refused_total", "Batches found not to be in it.", offsetof(struct txn_counters, verify_refused), PROM_COUNTER},
        {"weir_kafka_txn_records_skipped_total", "Records of __transaction_state that could not be read.", offsetof(struct txn_counters, records_skipped), PROM_COUNTER},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        prom_family(out, rows[i].name, rows[i].type, rows[i].help);
        prom_u64(out, rows[i].name, "", NULL, 0, sum(b, rows[i].offset));
    }
}
