/* log_client_own_consume.c - the own engine's consumers: alone, or as members of a group.
 *
 *     alone    Metadata -> parts -> where each begins (ListOffsets) -> fetching
 *     group    FINDING -> JOINING -> SYNCING -> PLACING (OffsetFetch) -> MEMBER: fetching, Heartbeat
 *                 ^          ^------------------------------------------'  a rebalance
 *                 '--------- whenever the coordinator is not there any more
 *
 * A part is a partition that is consumed; `next` is where it goes on. There is one Fetch under way per leader, for all parts there. What a part has
 * given and nobody committed before a rebalance is given again, to whoever has the partition then. The group's assignor is "range", Kafka's
 * oldest, so other clients may be members as well (the eager protocol, KIP-62 and before).
 *
 * A consumer that is closed within a callback is freed at the end of the turn; whatever goes through its parts looks at `closed` after each callback.
 */
#include "log_client_own.h"
#include <stdlib.h>

#define FETCH_WAIT_MS 500
#define FETCH_BYTES_MAX (8 << 20)
#define FETCH_PART_BYTES_MAX (1 << 20)
#define HEARTBEAT_MS 3000
#define REBALANCE_MS 60000
#define ABORTED_MAX 1000         /* transactions of one answer that were aborted, at once */
#define PROTOCOL "range"

enum own_group_state { ALONE, FINDING, JOINING, SYNCING, PLACING, MEMBER };

struct own_part {
    struct list link;            /* own_consumer.parts */
    struct own_consumer *k;
    struct own_topic *t;
    int32_t partition;
    int64_t next;                /* offset to be fetched; -1: not known yet */
    int64_t from;                /* where it begins: own_consumer.from, until that turned out not to be there */
    bool from_time;
    int64_t asked;               /* an offset that it has not, while the nearest is looked for; -1 */
    int64_t given;               /* behind the last record that was given; -1: none */
    int64_t committed;
    bool looking;                /* for its beginning */
    bool caught;                 /* caught_up() was told since it was placed */
    int32_t fetched_from;        /* the node of the Fetch under way; OWN_ANY: none */
};
struct own_consumer {
    struct log_consumer base;
    struct list link;            /* own.consumers */
    struct own *o;
    char *group, *member;        /* member "": not told yet */
    char **topics; uint32_t topics_n;
    int32_t only;                /* partition; -1: all */
    int64_t from;
    bool from_time, uncommitted;
    uint32_t session_ms;
    enum own_group_state state;
    int32_t coordinator, generation;
    struct list parts;
    bool rests, closed, failed;
    char commits;                /* its address owns the calls of commits: a rebalance, or a failure, does not drop them, since who asked is to be told */
    struct timer step;           /* the next try, or heartbeat */
    struct timer refresh;        /* Metadata once more */
    struct task reap;
    void (*left)(void *ctx);     /* of log_consumer_close() */
    void *left_ctx;
    struct log_header *headers; size_t headers_cap;
    struct buf inflated;
};

static void consumer_fetch(struct own_consumer *k);
static void group_find(struct own_consumer *k);
static void group_join(struct own_consumer *k);
static void parts_place(struct own_consumer *k);
static void part_place(struct own_part *p);

static void consumer_fail(struct own_consumer *k, enum kafka_error e, struct slice text)
{
    struct log_fault fault;
    struct buf words = {0};
    if (k->failed || k->closed)
        return;
    k->failed = true;
    timer_clear(&k->step);
    timer_clear(&k->refresh);
    own_calls_drop(k->o, k);
    k->base.ops->failed(k->base.ctx, log_fault_of(&fault, e, own_words(k->o, e, text), &words));
    buf_free(&words);
}

static struct own_call *consumer_call(struct own_consumer *k, int16_t key, int16_t version, int32_t node, void (*done)(struct own_call *), void *ctx)
{
    struct own_call *call = own_call(k->o, key, version, node, done, ctx);
    call->owner = k;
    return call;
}

static void call_to_coordinator(struct own_consumer *k, struct own_call *call, uint32_t ms)
{
    call->lane = LANE_GROUP;
    own_send(call, ms);
}

/* ---- parts ---------------------------------------------------------------------------------------------------------------------------- */

static struct own_part *part_find(struct own_consumer *k, struct slice topic, int32_t partition)
{
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        if (p->partition == partition && slice_is(topic, p->t->name))
            return p;
    }
    return NULL;
}

static struct own_part *part_add(struct own_consumer *k, struct slice topic, int32_t partition)
{
    struct own_part *p = mem_new(MEM_KAFKA, sizeof *p);
    p->k = k;
    p->t = own_topic(k->o, topic);
    p->partition = partition;
    p->next = p->given = p->committed = p->asked = -1;
    p->from = k->from;
    p->from_time = k->from_time;
    p->fetched_from = OWN_ANY;
    list_push(&k->parts, &p->link);
    return p;
}

static void parts_drop(struct own_consumer *k)
{
    while (!list_empty(&k->parts)) {
        struct own_part *p = CONTAINER_OF(k->parts.next, struct own_part, link);
        list_del(&p->link);
        mem_free(p);
    }
}

static uint32_t parts_count(const struct own_consumer *k)
{
    uint32_t n = 0;
    LIST_FOREACH(l, &k->parts)
        n++;
    return n;
}

/* ---- where a part begins ------------------------------------------------------------------------------------------------------------------ */

/* It has not the offset that was asked for. Its end is looked for first; when that lies behind what was asked, it is its beginning that is nearer. */
static void part_moved(struct own_part *p)
{
    struct own_consumer *k = p->k;
    int64_t asked = p->asked;
    if (p->from == LOG_END && asked < p->next) {
        p->from = LOG_BEGINNING;
        p->next = -1;
        part_place(p);
        return;
    }
    p->asked = -1;
    p->from = p->next;
    if (k->base.ops->moved && asked != p->next)
        k->base.ops->moved(k->base.ctx, slice_cstr(p->t->name), p->partition, asked, p->next);
    if (!k->closed)
        consumer_fetch(k);
}

static void part_placed(struct own_call *call)
{
    struct own_part *p = call->ctx;
    struct own_consumer *k = p->k;
    const struct kafka_list_offsets_resp *resp = call->resp;
    enum kafka_error e = call->error;
    p->looking = false;
    bool one = e == KAFKA_NONE && resp->topics_n == 1 && resp->topics[0].partitions_n == 1;
    if (e == KAFKA_NONE)
        e = one ? (enum kafka_error)resp->topics[0].partitions[0].error_code : KAFKA_CORRUPT_MESSAGE;
    if (own_passing(e) || e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION) {
        timer_set(k->o->base.loop, &k->refresh, LOG_BACKOFF_MS);
        return;
    }
    if (e != KAFKA_NONE) {
        consumer_fail(k, e, SLICE(""));
        return;
    }
    p->next = resp->topics[0].partitions[0].offset;
    if (p->next < 0) { /* a time after the last record: what comes from now on */
        p->from_time = false;
        p->from = LOG_END;
        parts_place(k);
    } else if (p->asked >= 0) {
        part_moved(p);
    } else {
        consumer_fetch(k);
    }
}

static void part_place(struct own_part *p)
{
    struct own_consumer *k = p->k;
    int32_t leader = own_leader(p->t, p->partition);
    if (p->from >= 0 && !p->from_time) {
        p->next = p->from;
        return;
    }
    if (leader == OWN_ANY) {
        timer_set(k->o->base.loop, &k->refresh, LOG_BACKOFF_MS);
        return;
    }
    struct own_call *call = consumer_call(k, API_LIST_OFFSETS, 6, leader, part_placed, p);
    struct kafka_list_offsets_req *req = call->req;
    p->looking = true;
    req->replica_id = -1;
    req->isolation_level = k->uncommitted ? 0 : 1;
    req->topics_n = 1;
    req->topics = OWN_NEW(call, struct kafka_list_offsets_req_list_offsets_topic, 1);
    req->topics[0].name = slice_cstr(p->t->name);
    req->topics[0].partitions_n = 1;
    req->topics[0].partitions = OWN_NEW(call, struct kafka_list_offsets_req_list_offsets_partition, 1);
    req->topics[0].partitions[0] = (struct kafka_list_offsets_req_list_offsets_partition){p->partition, -1, p->from};
    own_send(call, k->o->base.timeout_ms);
}

static void parts_place(struct own_consumer *k)
{
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        if (p->next < 0 && !p->looking)
            part_place(p);
    }
    consumer_fetch(k);
}

/* ---- records --------------------------------------------------------------------------------------------------------------------------------- */

/* Producers whose transaction was aborted, within one answer. */
struct aborted {
    const struct kafka_fetch_resp_aborted_transaction *all; /* as the broker sends them: by first offset */
    int32_t n, at;
    int64_t now[ABORTED_MAX];
    size_t now_n;
};

static bool is_aborted(const struct aborted *a, int64_t producer_id)
{
    for (size_t i = 0; i < a->now_n; i++)
        if (a->now[i] == producer_id)
            return true;
    return false;
}

/* False: the batch has nothing for the application. */
static bool batch_wanted(struct aborted *a, const struct kafka_batch *b, bool uncommitted)
{
    enum kafka_marker marker;
    int32_t epoch;
    while (a->at < a->n && a->all[a->at].first_offset <= kafka_batch_last_offset(b)) {
        if (a->now_n < ABORTED_MAX && !is_aborted(a, a->all[a->at].producer_id))
            a->now[a->now_n++] = a->all[a->at].producer_id;
        a->at++;
    }
    if (b->attributes & KAFKA_BATCH_CONTROL) {
        for (size_t i = 0; kafka_batch_marker_read(b, &marker, &epoch) && marker == KAFKA_MARKER_ABORT && i < a->now_n; i++)
            if (a->now[i] == b->producer_id)
                a->now[i--] = a->now[--a->now_n];
        return false;
    }
    return uncommitted || !(b->attributes & KAFKA_BATCH_TRANSACTIONAL) || !is_aborted(a, b->producer_id);
}

static void record_give(struct own_part *p, const struct kafka_batch *b, const struct kafka_record *r)
{
    struct own_consumer *k = p->k;
    struct slice rest = r->headers;
    struct kafka_header h;
    size_t n = 0;
    while (kafka_header_next(&rest, &h)) {
        ARRAY_GROW(MEM_KAFKA, k->headers, n, k->headers_cap);
        k->headers[n++] = (struct log_header){h.key, h.value};
    }
    struct log_record out = {.topic = slice_cstr(p->t->name),
                             .partition = p->partition,
                             .offset = b->base_offset + r->offset_delta,
                             .timestamp_ms = b->attributes & KAFKA_BATCH_LOG_APPEND ? b->max_timestamp : b->base_timestamp + r->timestamp_delta,
                             .key = r->key,
                             .value = r->value,
                             .headers = k->headers,
                             .headers_n = (uint32_t)n};
    p->given = p->next = out.offset + 1;
    k->base.ops->record(k->base.ctx, &out);
}

static enum kafka_error batch_give(struct own_part *p, const struct kafka_batch *b)
{
    struct own_consumer *k = p->k;
    struct slice records;
    struct kafka_record r;
    buf_clear(&k->inflated);
    enum err er = kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &k->inflated, &records);
    if (er != OK)
        return er == ERR_UNSUPPORTED ? KAFKA_UNSUPPORTED_COMPRESSION_TYPE : KAFKA_CORRUPT_MESSAGE;
    while (records.n && !k->closed && !k->failed && !k->rests) {
        if (kafka_record_next(&records, &r) != OK)
            return KAFKA_CORRUPT_MESSAGE;
        if (b->base_offset + r.offset_delta >= p->next)
            record_give(p, b, &r);
    }
    return KAFKA_NONE;
}

/* The batches of one partition. The last one may be cut off, and comes again. */
static void records_give(struct own_part *p, const struct kafka_fetch_resp_partition_data *d)
{
    struct own_consumer *k = p->k;
    struct slice rest = d->records.bytes;
    struct aborted a = {.all = d->aborted_transactions, .n = MAX(d->aborted_transactions_n, 0)};
    struct kafka_batch b;
    while (rest.n && !k->closed && !k->failed && !k->rests && kafka_batch_parse(rest, &b) == KAFKA_NONE) {
        enum kafka_error e = kafka_batch_crc_ok(rest.p, &b) ? KAFKA_NONE : KAFKA_CORRUPT_MESSAGE;
        if (e == KAFKA_NONE && batch_wanted(&a, &b, k->uncommitted))
            e = batch_give(p, &b);
        if (e != KAFKA_NONE) {
            consumer_fail(k, e, SLICE(""));
            return;
        }
        if (k->rests) /* perhaps within the batch: next is where it was left */
            return;
        p->next = MAX(p->next, kafka_batch_last_offset(&b) + 1);
        rest = slice_of(rest.p + b.bytes, rest.n - b.bytes);
    }
}

static void part_told(struct own_part *p, const struct kafka_fetch_resp_partition_data *d)
{
    struct own_consumer *k = p->k;
    enum kafka_error e = (enum kafka_error)d->error_code;
    if (e == KAFKA_OFFSET_OUT_OF_RANGE) { /* it never had it, or retention was faster */
        if (p->from >= 0 && !p->from_time) {
            p->asked = p->next;
            p->from = LOG_END;
        }
        p->next = -1;
        part_place(p);
    } else if (e == KAFKA_NONE) {
        records_give(p, d);
        int64_t end = k->uncommitted ? d->high_watermark : d->last_stable_offset;
        p->caught = p->caught || p->next >= end;
        if (!k->closed && !k->failed && !k->rests && p->next >= end && k->base.ops->caught_up)
            k->base.ops->caught_up(k->base.ctx, slice_cstr(p->t->name), p->partition, p->next);
    } else if (own_passing(e) || e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION || e == KAFKA_KAFKA_STORAGE_ERROR) {
        timer_set(k->o->base.loop, &k->refresh, LOG_BACKOFF_MS);
    } else {
        consumer_fail(k, e, SLICE(""));
    }
}

/* ---- fetching ---------------------------------------------------------------------------------------------------------------------------------- */

static void fetch_over(struct own_consumer *k, int32_t node)
{
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        if (p->fetched_from == node)
            p->fetched_from = OWN_ANY;
    }
}

static void fetch_told(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_fetch_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    fetch_over(k, call->node);
    if (e != KAFKA_NONE) {
        timer_set(k->o->base.loop, &k->refresh, LOG_BACKOFF_MS);
        return;
    }
    for (int32_t i = 0; i < resp->responses_n; i++)
        for (int32_t j = 0; j < resp->responses[i].partitions_n; j++) {
            struct own_part *p = part_find(k, resp->responses[i].topic, resp->responses[i].partitions[j].partition_index);
            if (p && p->next >= 0)
                part_told(p, &resp->responses[i].partitions[j]);
            if (k->closed || k->failed)
                return;
        }
    if (!timer_is_set(&k->refresh))
        consumer_fetch(k);
}

static void fetch_from(struct own_consumer *k, int32_t node)
{
    struct own_call *call = consumer_call(k, API_FETCH, 11, node, fetch_told, k);
    struct kafka_fetch_req *req = call->req;
    call->lane = LANE_FETCH;
    req->replica_id = -1;
    req->max_wait_ms = FETCH_WAIT_MS;
    req->min_bytes = 1;
    req->max_bytes = FETCH_BYTES_MAX;
    req->isolation_level = k->uncommitted ? 0 : 1;
    req->session_id = 0;
    req->session_epoch = -1; /* without a session (KIP-227) */
    req->topics = OWN_NEW(call, struct kafka_fetch_req_fetch_topic, parts_count(k));
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        if (p->next < 0 || p->fetched_from != OWN_ANY || own_leader(p->t, p->partition) != node)
            continue;
        p->fetched_from = node;
        if (!p->caught) /* it is to be told soon where the end is */
            req->max_wait_ms = 0;
        struct kafka_fetch_req_fetch_topic *t = &req->topics[req->topics_n++];
        t->topic = own_keep(call, slice_cstr(p->t->name));
        t->partitions_n = 1;
        t->partitions = OWN_NEW(call, struct kafka_fetch_req_fetch_partition, 1);
        t->partitions[0] = (struct kafka_fetch_req_fetch_partition){.partition = p->partition,
                                                                    .current_leader_epoch = -1,
                                                                    .fetch_offset = p->next,
                                                                    .last_fetched_epoch = -1,
                                                                    .log_start_offset = -1,
                                                                    .partition_max_bytes = FETCH_PART_BYTES_MAX};
    }
    own_send(call, k->o->base.timeout_ms + FETCH_WAIT_MS);
}

static bool fetching_from(const struct own_consumer *k, int32_t node)
{
    LIST_FOREACH(l, &k->parts) {
        const struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        if (p->fetched_from == node)
            return true;
    }
    return false;
}

static void consumer_fetch(struct own_consumer *k)
{
    if (k->rests || k->closed || k->failed || (k->state != ALONE && k->state != MEMBER))
        return;
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        int32_t node = own_leader(p->t, p->partition);
        if (p->next < 0 || p->fetched_from != OWN_ANY)
            continue;
        if (node == OWN_ANY)
            timer_set(k->o->base.loop, &k->refresh, LOG_BACKOFF_MS);
        else if (!fetching_from(k, node))
            fetch_from(k, node);
    }
}

/* ---- topics -------------------------------------------------------------------------------------------------------------------------------------- */

static void assigned(struct own_consumer *k)
{
    if (k->base.ops->assigned)
        k->base.ops->assigned(k->base.ctx, parts_count(k));
}

/* Alone: all partitions, or the one that is wanted. Later only leaders are of interest. */
static void alone_learn(struct own_consumer *k, const struct kafka_metadata_resp *resp)
{
    if (!list_empty(&k->parts))
        return;
    for (int32_t i = 0; i < resp->topics_n; i++)
        for (int32_t p = 0; p < resp->topics[i].partitions_n; p++)
            if (k->only == -1 || k->only == p)
                part_add(k, resp->topics[i].name, p);
    own_learn(k->o, resp); /* once more: parts have made topics known */
    assigned(k);
}

static void refreshed(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_metadata_resp *resp = call->resp;
    enum kafka_error e = call->error;
    if (e == KAFKA_NONE) {
        own_learn(k->o, resp);
        for (int32_t i = 0; i < resp->topics_n && e == KAFKA_NONE; i++)
            e = (enum kafka_error)resp->topics[i].error_code;
    }
    if (own_worth_it(k->o, e)) {
        timer_set(k->o->base.loop, &k->refresh, LOG_BACKOFF_MS);
        return;
    }
    if (e == KAFKA_NONE && k->state == ALONE) {
        alone_learn(k, resp);
        if (!k->closed && list_empty(&k->parts))
            e = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    if (e != KAFKA_NONE)
        consumer_fail(k, e, SLICE(""));
    else if (!k->closed)
        parts_place(k);
}

static void refresh(struct timer *t)
{
    struct own_consumer *k = CONTAINER_OF(t, struct own_consumer, refresh);
    struct slice *names = mem_new(MEM_KAFKA, (k->topics_n + 1) * sizeof *names);
    for (uint32_t i = 0; i < k->topics_n; i++)
        names[i] = slice_cstr(k->topics[i]);
    struct own_call *call = own_metadata(k->o, names, k->topics_n, false, refreshed, k);
    call->owner = k;
    own_send(call, k->o->base.timeout_ms);
    mem_free(names);
}

/* ---- the group ------------------------------------------------------------------------------------------------------------------------------------- */

/* What an error of the coordinator means for a member. */
static void group_trouble(struct own_consumer *k, enum kafka_error e)
{
    switch (e) {
    case KAFKA_UNKNOWN_MEMBER_ID:
    case KAFKA_FENCED_INSTANCE_ID:
        mem_free(k->member);
        k->member = mem_strdup(MEM_KAFKA, "");
        k->state = JOINING;
        break;
    case KAFKA_REBALANCE_IN_PROGRESS:
    case KAFKA_ILLEGAL_GENERATION: k->state = JOINING; break;
    default:
        if (!own_passing(e)) {
            consumer_fail(k, e, SLICE(""));
            return;
        }
        k->state = FINDING;
    }
    own_calls_drop(k->o, k);
    timer_clear(&k->refresh);
    parts_drop(k);
    timer_set(k->o->base.loop, &k->step, k->state == FINDING ? LOG_BACKOFF_MS : 0);
}

static void heartbeat_told(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_heartbeat_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    if (e != KAFKA_NONE)
        group_trouble(k, e);
    else
        timer_set(k->o->base.loop, &k->step, MIN(HEARTBEAT_MS, k->session_ms / 3));
}

static void heartbeat(struct own_consumer *k)
{
    struct own_call *call = consumer_call(k, API_HEARTBEAT, 4, k->coordinator, heartbeat_told, k);
    struct kafka_heartbeat_req *req = call->req;
    req->group_id = slice_cstr(k->group);
    req->generation_id = k->generation;
    req->member_id = own_keep(call, slice_cstr(k->member));
    call_to_coordinator(k, call, k->session_ms);
}

static void group_placed(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_offset_fetch_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    for (int32_t i = 0; !e && i < resp->topics_n; i++)
        for (int32_t j = 0; j < resp->topics[i].partitions_n; j++) {
            struct own_part *p = part_find(k, resp->topics[i].name, resp->topics[i].partitions[j].partition_index);
            if (resp->topics[i].partitions[j].error_code)
                e = (enum kafka_error)resp->topics[i].partitions[j].error_code;
            if (p)
                p->next = p->committed = resp->topics[i].partitions[j].committed_offset;
        }
    if (e != KAFKA_NONE) {
        group_trouble(k, e);
        return;
    }
    k->state = MEMBER;
    timer_set(k->o->base.loop, &k->step, MIN(HEARTBEAT_MS, k->session_ms / 3));
    timer_set(k->o->base.loop, &k->refresh, 0); /* leaders; then parts_place() */
    assigned(k);
}

static void group_place(struct own_consumer *k)
{
    struct own_call *call = consumer_call(k, API_OFFSET_FETCH, 7, k->coordinator, group_placed, k);
    struct kafka_offset_fetch_req *req = call->req;
    k->state = PLACING;
    req->group_id = slice_cstr(k->group);
    req->require_stable = true;
    req->topics = OWN_NEW(call, struct kafka_offset_fetch_req_offset_fetch_request_topic, parts_count(k));
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        req->topics[req->topics_n++] = (struct kafka_offset_fetch_req_offset_fetch_request_topic){own_keep(call, slice_cstr(p->t->name)), OWN_NEW(call, int32_t, 1), 1};
        req->topics[req->topics_n - 1].partition_indexes[0] = p->partition;
    }
    call_to_coordinator(k, call, k->o->base.timeout_ms);
}

static void synced(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_sync_group_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    struct kafka_consumer_protocol_assignment a;
    struct kafka_reader r;
    if (e != KAFKA_NONE) {
        group_trouble(k, e);
        return;
    }
    parts_drop(k);
    kafka_reader_init(&r, resp->assignment);
    int16_t version = resp->assignment.n ? kafka_read_int16(&r) : -1;
    if (version >= 0 && !r.err && kafka_consumer_protocol_assignment_read(&r, MIN(version, 3), &call->arena, &a) == OK)
        for (int32_t i = 0; i < a.assigned_partitions_n; i++)
            for (int32_t p = 0; p < a.assigned_partitions[i].partitions_n; p++)
                part_add(k, a.assigned_partitions[i].topic, a.assigned_partitions[i].partitions[p]);
    group_place(k);
}

static struct own_call *sync_call(struct own_consumer *k)
{
    struct own_call *call = consumer_call(k, API_SYNC_GROUP, 5, k->coordinator, synced, k);
    struct kafka_sync_group_req *req = call->req;
    k->state = SYNCING;
    req->group_id = slice_cstr(k->group);
    req->generation_id = k->generation;
    req->member_id = own_keep(call, slice_cstr(k->member));
    req->protocol_type = SLICE("consumer");
    req->protocol_name = SLICE(PROTOCOL);
    return call;
}

/* ---- the leader's part: range ------------------------------------------------------------------------------------------------------------------------ */

struct joined {
    struct slice id;
    struct kafka_consumer_protocol_subscription sub;
    struct kafka_consumer_protocol_assignment out;
};
struct leading {
    struct own_consumer *k;
    struct own_call *sync;      /* its arena holds all of this */
    struct joined *members;
    int32_t n;
};

static bool subscribed(const struct joined *m, struct slice topic)
{
    for (int32_t i = 0; i < m->sub.topics_n; i++)
        if (slice_eq(m->sub.topics[i], topic))
            return true;
    return false;
}

static int by_id(const void *a, const void *b)
{
    const struct slice x = ((const struct joined *)a)->id, y = ((const struct joined *)b)->id;
    int c = memcmp(x.p, y.p, MIN(x.n, y.n));
    return c ? c : x.n < y.n ? -1 : x.n > y.n;
}

/* Partitions in a row for each member in the order of their ids; the first ones get one more where they can't be shared evenly. */
static void range_topic(struct leading *g, struct slice topic, int32_t partitions)
{
    int32_t members = 0, at = 0, nth = 0;
    for (int32_t i = 0; i < g->n; i++)
        members += subscribed(&g->members[i], topic);
    for (int32_t i = 0; i < g->n; i++) {
        struct joined *m = &g->members[i];
        if (!subscribed(m, topic))
            continue;
        int32_t share = partitions / members + (nth++ < partitions % members);
        if (!share)
            continue;
        struct kafka_consumer_protocol_assignment_topic_partition *t = &m->out.assigned_partitions[m->out.assigned_partitions_n++];
        t->topic = own_keep(g->sync, topic);
        t->partitions = OWN_NEW(g->sync, int32_t, share);
        while (t->partitions_n < share)
            t->partitions[t->partitions_n++] = at++;
    }
}

static void range_told(struct own_call *call)
{
    struct leading *g = call->ctx;
    struct own_consumer *k = g->k;
    const struct kafka_metadata_resp *resp = call->resp;
    if (call->error != KAFKA_NONE) {
        group_trouble(k, call->error); /* the call to sync is dropped, and all join again */
        return;
    }
    for (int32_t i = 0; i < g->n; i++)
        g->members[i].out.assigned_partitions = OWN_NEW(g->sync, struct kafka_consumer_protocol_assignment_topic_partition, resp->topics_n);
    for (int32_t i = 0; i < resp->topics_n; i++)
        if (!resp->topics[i].error_code)
            range_topic(g, resp->topics[i].name, MAX(resp->topics[i].partitions_n, 0));
    struct kafka_sync_group_req *req = g->sync->req;
    req->assignments = OWN_NEW(g->sync, struct kafka_sync_group_req_sync_group_request_assignment, g->n);
    for (int32_t i = 0; i < g->n; i++) {
        struct buf b = {0};
        struct kafka_writer w;
        kafka_writer_init(&w, &b);
        kafka_write_int16(&w, 0);
        g->members[i].out.user_data = (struct slice){0};
        kafka_consumer_protocol_assignment_write(&w, 0, &g->members[i].out);
        req->assignments[req->assignments_n++] = (struct kafka_sync_group_req_sync_group_request_assignment){g->members[i].id, own_keep(g->sync, buf_slice(&b))};
        kafka_writer_fini(&w);
        buf_free(&b);
    }
    call_to_coordinator(k, g->sync, k->session_ms);
}

static void range_begin(struct own_consumer *k, const struct kafka_join_group_resp *resp)
{
    struct own_call *sync = sync_call(k);
    struct leading *g = OWN_NEW(sync, struct leading, 1);
    struct table topics = {0};
    struct slice *names;
    size_t n = 0;
    *g = (struct leading){k, sync, OWN_NEW(sync, struct joined, resp->members_n), 0};
    for (int32_t i = 0; i < resp->members_n; i++) {
        struct joined *m = &g->members[g->n];
        struct kafka_reader r;
        kafka_reader_init(&r, own_keep(sync, resp->members[i].metadata));
        int16_t version = kafka_read_int16(&r);
        if (r.err || version < 0 || kafka_consumer_protocol_subscription_read(&r, MIN(version, 3), &sync->arena, &m->sub) != OK)
            continue;
        m->id = own_keep(sync, resp->members[i].member_id);
        g->n++;
        for (int32_t t = 0; t < m->sub.topics_n; t++)
            table_put(&topics, m->sub.topics[t], g);
    }
    qsort(g->members, (size_t)g->n, sizeof *g->members, by_id);
    names = OWN_NEW(sync, struct slice, topics.n);
    for (struct table_slot *s = NULL; (s = table_next(&topics, s));)
        names[n++] = own_keep(sync, slice_of(s->key, s->key_n));
    struct own_call *call = own_metadata(k->o, names, n, false, range_told, g);
    call->owner = k;
    own_send(call, k->session_ms);
    table_fini(&topics);
}

/* ---- joining -------------------------------------------------------------------------------------------------------------------------------------------- */

static void joined_told(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_join_group_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    if (e == KAFKA_NONE || e == KAFKA_MEMBER_ID_REQUIRED) {
        mem_free(k->member);
        k->member = mem_strndup(MEM_KAFKA, resp->member_id.p, resp->member_id.n);
    }
    if (e == KAFKA_MEMBER_ID_REQUIRED) {
        group_join(k);
        return;
    }
    if (e != KAFKA_NONE) {
        group_trouble(k, e);
        return;
    }
    k->generation = resp->generation_id;
    if (slice_eq(resp->leader, resp->member_id))
        range_begin(k, resp);
    else
        call_to_coordinator(k, sync_call(k), k->session_ms);
}

static void group_join(struct own_consumer *k)
{
    struct own_call *call = consumer_call(k, API_JOIN_GROUP, 7, k->coordinator, joined_told, k);
    struct kafka_join_group_req *req = call->req;
    struct kafka_consumer_protocol_subscription sub;
    struct buf b = {0};
    struct kafka_writer w;
    k->state = JOINING;
    kafka_consumer_protocol_subscription_init(&sub);
    sub.topics = OWN_NEW(call, struct slice, k->topics_n);
    for (uint32_t i = 0; i < k->topics_n; i++)
        sub.topics[sub.topics_n++] = slice_cstr(k->topics[i]);
    kafka_writer_init(&w, &b);
    kafka_write_int16(&w, 0);
    kafka_consumer_protocol_subscription_write(&w, 0, &sub);
    req->group_id = slice_cstr(k->group);
    req->session_timeout_ms = (int32_t)k->session_ms;
    req->rebalance_timeout_ms = REBALANCE_MS;
    req->member_id = own_keep(call, slice_cstr(k->member));
    req->protocol_type = SLICE("consumer");
    req->protocols_n = 1;
    req->protocols = OWN_NEW(call, struct kafka_join_group_req_join_group_request_protocol, 1);
    req->protocols[0] = (struct kafka_join_group_req_join_group_request_protocol){SLICE(PROTOCOL), own_keep(call, buf_slice(&b))};
    kafka_writer_fini(&w);
    buf_free(&b);
    call_to_coordinator(k, call, REBALANCE_MS + 10000); /* it is answered when all members have joined */
}

static void found(struct own_call *call)
{
    struct own_consumer *k = call->ctx;
    const struct kafka_find_coordinator_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    if (e == KAFKA_NONE) {
        own_node_learn(k->o, resp->node_id, resp->host, resp->port);
        k->coordinator = resp->node_id;
        group_join(k);
    } else if (own_worth_it(k->o, e)) {
        timer_set(k->o->base.loop, &k->step, LOG_BACKOFF_MS);
    } else {
        consumer_fail(k, e, resp->error_message);
    }
}

static void group_find(struct own_consumer *k)
{
    struct own_call *call = consumer_call(k, API_FIND_COORDINATOR, 3, OWN_ANY, found, k);
    struct kafka_find_coordinator_req *req = call->req;
    k->state = FINDING;
    req->key = slice_cstr(k->group);
    own_send(call, k->o->base.timeout_ms);
}

static void step(struct timer *t)
{
    struct own_consumer *k = CONTAINER_OF(t, struct own_consumer, step);
    if (k->state == FINDING)
        group_find(k);
    else if (k->state == JOINING)
        group_join(k);
    else if (k->state == MEMBER)
        heartbeat(k);
}

/* ---- places ------------------------------------------------------------------------------------------------------------------------------------------------ */

struct commit {
    struct own_consumer *k;
    void (*done)(void *ctx, const struct log_fault *e);
    void *ctx;
    enum kafka_error error;
};

static void commit_told(struct own_call *call)
{
    struct commit *c = call->ctx; /* in the call's arena */
    const struct kafka_offset_commit_resp *resp = call->resp;
    enum kafka_error e = c->error ? c->error : call->error;
    struct log_fault fault;
    struct buf words = {0};
    for (int32_t i = 0; !e && i < resp->topics_n; i++)
        for (int32_t j = 0; j < resp->topics[i].partitions_n; j++)
            e = e ? e : (enum kafka_error)resp->topics[i].partitions[j].error_code;
    if (c->done)
        c->done(c->ctx, e ? log_fault_of(&fault, e, own_words(call->o, e, SLICE("")), &words) : NULL);
    buf_free(&words);
}

void own_consumer_commit(struct log_consumer *base, void (*done)(void *ctx, const struct log_fault *e), void *ctx)
{
    struct own_consumer *k = CONTAINER_OF(base, struct own_consumer, base);
    struct own_call *call = own_call(k->o, API_OFFSET_COMMIT, 8, k->coordinator, commit_told, NULL);
    struct commit *c = OWN_NEW(call, struct commit, 1);
    struct kafka_offset_commit_req *req = call->req;
    *c = (struct commit){k, done, ctx, !k->group ? KAFKA_INVALID_GROUP_ID : k->state != MEMBER ? KAFKA_REBALANCE_IN_PROGRESS : KAFKA_NONE};
    call->ctx = c;
    call->owner = &k->commits;
    req->group_id = own_keep(call, slice_cstr(k->group ? k->group : ""));
    req->generation_id_or_member_epoch = k->generation;
    req->member_id = own_keep(call, slice_cstr(k->member));
    req->topics = OWN_NEW(call, struct kafka_offset_commit_req_offset_commit_request_topic, parts_count(k));
    LIST_FOREACH(l, &k->parts) {
        struct own_part *p = CONTAINER_OF(l, struct own_part, link);
        if (p->given < 0)
            continue;
        struct kafka_offset_commit_req_offset_commit_request_topic *t = &req->topics[req->topics_n++];
        t->name = own_keep(call, slice_cstr(p->t->name));
        t->partitions_n = 1;
        t->partitions = OWN_NEW(call, struct kafka_offset_commit_req_offset_commit_request_partition, 1);
        t->partitions[0] = (struct kafka_offset_commit_req_offset_commit_request_partition){p->partition, p->given, -1, SLICE("")};
    }
    if (c->error) {
        call->error = c->error;
        loop_defer(k->o->base.loop, &call->fail);
    } else {
        call_to_coordinator(k, call, k->o->base.timeout_ms);
    }
}

/* ---- the consumer ---------------------------------------------------------------------------------------------------------------------------------------------- */

static void consumer_free(struct own_consumer *k)
{
    timer_clear(&k->step);
    timer_clear(&k->refresh);
    list_del(&k->reap.link);
    list_del(&k->link);
    own_calls_drop(k->o, k);
    own_calls_drop(k->o, &k->commits);
    parts_drop(k);
    for (uint32_t i = 0; i < k->topics_n; i++)
        mem_free(k->topics[i]);
    mem_free(k->topics);
    mem_free(k->group);
    mem_free(k->member);
    mem_free(k->headers);
    buf_free(&k->inflated);
    mem_free(k);
}

static void consumer_left(struct own_consumer *k)
{
    void (*left)(void *) = k->left;
    void *ctx = k->left_ctx;
    consumer_free(k);
    if (left)
        left(ctx);
}

static void leave_told(struct own_call *call) { consumer_left(call->ctx); }

/* At the end of the turn, when nothing goes through its parts. */
static void reap(struct task *t)
{
    struct own_consumer *k = CONTAINER_OF(t, struct own_consumer, reap);
    if (!k->group || !*k->member || k->coordinator == OWN_ANY || k->state == FINDING) {
        consumer_left(k);
        return;
    }
    struct own_call *call = consumer_call(k, API_LEAVE_GROUP, 2, k->coordinator, leave_told, k);
    struct kafka_leave_group_req *req = call->req;
    req->group_id = slice_cstr(k->group);
    req->member_id = own_keep(call, slice_cstr(k->member));
    call_to_coordinator(k, call, 5000);
}

void own_consumer_close(struct log_consumer *base, void (*done)(void *ctx), void *ctx)
{
    struct own_consumer *k = CONTAINER_OF(base, struct own_consumer, base);
    MUST(!k->closed);
    k->closed = true;
    k->left = done;
    k->left_ctx = ctx;
    timer_clear(&k->step);
    timer_clear(&k->refresh);
    own_calls_drop(k->o, k);
    own_calls_drop(k->o, &k->commits);
    loop_defer(k->o->base.loop, &k->reap);
}

void own_consumer_rest(struct log_consumer *base, bool rest)
{
    struct own_consumer *k = CONTAINER_OF(base, struct own_consumer, base);
    k->rests = rest;
    consumer_fetch(k);
}

struct log_consumer *own_consume(struct log_client *c, const struct log_consumer_conf *conf, const struct log_consumer_ops *ops, void *ctx)
{
    struct own *o = CONTAINER_OF(c, struct own, base);
    struct own_consumer *k = mem_new(MEM_KAFKA, sizeof *k);
    k->base = (struct log_consumer){c, ops, ctx};
    k->o = o;
    k->group = mem_strdup(MEM_KAFKA, conf->group);
    k->member = mem_strdup(MEM_KAFKA, "");
    k->topics = mem_new(MEM_KAFKA, conf->topics_n * sizeof *k->topics);
    for (uint32_t i = 0; i < conf->topics_n; i++)
        k->topics[k->topics_n++] = mem_strndup(MEM_KAFKA, conf->topics[i].p, conf->topics[i].n);
    k->only = conf->partition;
    k->from = conf->from;
    k->from_time = conf->from_time;
    k->uncommitted = conf->uncommitted;
    k->session_ms = conf->session_ms ? conf->session_ms : LOG_SESSION_MS;
    k->coordinator = OWN_ANY;
    k->state = conf->group ? FINDING : ALONE;
    list_init(&k->parts);
    list_push(&o->consumers, &k->link);
    timer_init(&k->step, step);
    timer_init(&k->refresh, refresh);
    task_init(&k->reap, reap);
    timer_set(c->loop, conf->group ? &k->step : &k->refresh, 0);
    return &k->base;
}

void own_consumers_drop(struct own *o)
{
    while (!list_empty(&o->consumers))
        consumer_free(CONTAINER_OF(o->consumers.next, struct own_consumer, link));
}
