/* offsets.c - questions about partitions: ListOffsets, OffsetForLeaderEpoch, DescribeProducers; and DeleteRecords, which moves their start.
 *
 * All of them are the same walk: the request's topics and partitions become items (scatter.c) with their answers in the same shape, owners fill the answers in, home
 * sends them.
 */
#include "data.h"

#define TIME_LATEST (-1)
#define TIME_EARLIEST (-2)
#define TIME_NEWEST (-3)         /* the record with the greatest timestamp (KIP-734) */
#define TIME_EARLIEST_LOCAL (-4) /* nothing is tiered: the same as -2 (KIP-405) */
#define TIME_LATEST_TIERED (-5)  /* nothing is tiered: none (KIP-1005) */
#define TIME_EARLIEST_PENDING (-6) /* the first that is to be uploaded: none is (KIP-1023) */

#define TIME_VERSION_NEWEST 7    /* ListOffsets versions that know -3, -4, -5, -6 */
#define TIME_VERSION_LOCAL 8
#define TIME_VERSION_TIERED 9
#define TIME_VERSION_PENDING 11

/* A question about one partition that clients ask by name: whether it may be asked, and where the partition is. */
static enum kafka_error ask_named(struct scatter *s, struct scatter_item *it, enum acl_operation op, struct slice name, int32_t partition)
{
    struct topic *t;
    if (!allowed(s->r, op, ACL_TOPIC, name))
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    enum kafka_error e = part_find(s->r->home, name, NULL, partition, &t);
    return e || scatter_add(s, it, t, partition) ? e : KAFKA_INVALID_REQUEST;
}

static void answer(struct breq *r) { breq_answer(r, r->home); }

/* The partitions that a request names, with a member for the arrays of partitions in its topics. */
#define PARTS_OF(req, member)                                                                          \
    ({                                                                                                 \
        uint64_t parts_ = 0;                                                                           \
        for (int32_t i_ = 0; i_ < (req)->topics_n; i_++)                                               \
            parts_ += (uint64_t)MAX((req)->topics[i_].member, 0);                                      \
        parts_;                                                                                        \
    })

/* ---- ListOffsets ----------------------------------------------------------------------------------------------------------- */

struct list_item {
    struct scatter_item item;
    const struct kafka_list_offsets_req_list_offsets_partition *in;
    struct kafka_list_offsets_resp_list_offsets_partition_response *out;
    int16_t version;
    bool committed;              /* read_committed: the end is the last stable offset */
};

/* The end is of the present epoch; where there is a record, a consumer goes on with that record's epoch, as if it had read it (KIP-320). */
static void list_found(struct list_item *li, const struct part *p, const struct part_offsets *o, int64_t offset, int64_t at_ms)
{
    li->out->offset = offset;
    li->out->timestamp = at_ms;
    li->out->leader_epoch = offset < 0 ? -1 : li->in->timestamp == TIME_LATEST ? o->epoch : part_epoch_at(p, offset);
}

static enum kafka_error list_lookup(struct list_item *li, struct part *p, const struct part_offsets *o)
{
    enum part_until until = li->committed ? PART_STABLE : PART_HIGH;
    int64_t offset = -1, at_ms = -1, asked = li->in->timestamp;
    enum kafka_error e = KAFKA_NONE;
    if (asked == TIME_LATEST)
        offset = li->committed ? o->stable : o->high;
    else if (asked == TIME_EARLIEST || (asked == TIME_EARLIEST_LOCAL && li->version >= TIME_VERSION_LOCAL))
        offset = o->log_start;
    else if (asked == TIME_NEWEST && li->version >= TIME_VERSION_NEWEST) {
        e = part_find_newest(p, &offset, &at_ms);
        if (li->committed && offset >= o->stable) /* as Kafka has it: of a record that the caller may not see yet nothing is told */
            offset = at_ms = -1;
    } else if ((asked == TIME_LATEST_TIERED && li->version >= TIME_VERSION_TIERED) || (asked == TIME_EARLIEST_PENDING && li->version >= TIME_VERSION_PENDING))
        offset = -1;
    else if (asked < 0)
        return KAFKA_UNSUPPORTED_VERSION;
    else
        e = part_find_time(p, asked, until, &offset, &at_ms);
    if (!e)
        list_found(li, p, o, offset, at_ms);
    return e;
}

static void list_visit(struct scatter_item *it, struct bpart *bp, enum kafka_error e)
{
    struct list_item *li = CONTAINER_OF(it, struct list_item, item);
    struct part_offsets o;
    if (!e) {
        part_offsets(bp->part, &o);
        e = epoch_check(li->in->current_leader_epoch, o.epoch);
    }
    if (!e)
        e = list_lookup(li, bp->part, &o);
    li->out->error_code = (int16_t)e;
}

static void list_topic(struct scatter *s, const struct kafka_list_offsets_req *req, const struct kafka_list_offsets_req_list_offsets_topic *in,
                       struct kafka_list_offsets_resp_list_offsets_topic_response *out)
{
    struct list_item *items = BREQ_ARRAY(s->r, struct list_item, in->partitions_n);
    kafka_list_offsets_resp_list_offsets_topic_response_init(out);
    out->name = in->name;
    out->partitions = BREQ_ARRAY(s->r, struct kafka_list_offsets_resp_list_offsets_partition_response, in->partitions_n);
    out->partitions_n = MAX(in->partitions_n, 0);
    for (int32_t i = 0; i < in->partitions_n; i++) {
        struct list_item *li = &items[i];
        *li = (struct list_item){.in = &in->partitions[i], .out = &out->partitions[i], .version = s->r->version, .committed = req->isolation_level == 1};
        kafka_list_offsets_resp_list_offsets_partition_response_init(li->out);
        li->out->partition_index = li->in->partition_index;
        li->out->error_code = (int16_t)ask_named(s, &li->item, ACL_DESCRIBE, in->name, li->in->partition_index);
    }
}

void list_offsets_serve(struct breq *r)
{
    const struct kafka_list_offsets_req *req = r->req;
    if (!request_parts_ok(r, PARTS_OF(req, partitions_n)))
        return;
    struct kafka_list_offsets_resp *resp = BREQ_NEW(r, struct kafka_list_offsets_resp);
    struct scatter *s = scatter_new(r, list_visit, answer);
    kafka_list_offsets_resp_init(resp);
    r->resp = resp;
    resp->topics = BREQ_ARRAY(r, struct kafka_list_offsets_resp_list_offsets_topic_response, req->topics_n);
    resp->topics_n = MAX(req->topics_n, 0);
    for (int32_t i = 0; i < req->topics_n; i++)
        list_topic(s, req, &req->topics[i], &resp->topics[i]);
    resp->throttle_time_ms = quota_note(r, QUOTA_REQUEST, 0);
    scatter_run(s);
}

/* ---- OffsetForLeaderEpoch (KIP-101, KIP-320) ------------------------------------------------------------------------------------ */

struct epoch_item {
    struct scatter_item item;
    const struct kafka_offset_for_leader_epoch_req_offset_for_leader_partition *in;
    struct kafka_offset_for_leader_epoch_resp_epoch_end_offset *out;
};

static void epoch_visit(struct scatter_item *it, struct bpart *bp, enum kafka_error e)
{
    struct epoch_item *ei = CONTAINER_OF(it, struct epoch_item, item);
    if (!e) {
        struct part_offsets o;
        part_offsets(bp->part, &o);
        e = epoch_check(ei->in->current_leader_epoch, o.epoch);
    }
    if (!e)
        part_epoch_end(bp->part, ei->in->leader_epoch, &ei->out->leader_epoch, &ei->out->end_offset);
    ei->out->error_code = (int16_t)e;
}

static void epoch_topic(struct scatter *s, const struct kafka_offset_for_leader_epoch_req_offset_for_leader_topic *in,
                        struct kafka_offset_for_leader_epoch_resp_offset_for_leader_topic_result *out)
{
    struct epoch_item *items = BREQ_ARRAY(s->r, struct epoch_item, in->partitions_n);
    kafka_offset_for_leader_epoch_resp_offset_for_leader_topic_result_init(out);
    out->topic = in->topic;
    out->partitions = BREQ_ARRAY(s->r, struct kafka_offset_for_leader_epoch_resp_epoch_end_offset, in->partitions_n);
    out->partitions_n = MAX(in->partitions_n, 0);
    for (int32_t i = 0; i < in->partitions_n; i++) {
        struct epoch_item *ei = &items[i];
        *ei = (struct epoch_item){.in = &in->partitions[i], .out = &out->partitions[i]};
        kafka_offset_for_leader_epoch_resp_epoch_end_offset_init(ei->out);
        ei->out->partition = ei->in->partition;
        ei->out->error_code = (int16_t)ask_named(s, &ei->item, ACL_DESCRIBE, in->topic, ei->in->partition);
    }
}

void offset_for_leader_epoch_serve(struct breq *r)
{
    const struct kafka_offset_for_leader_epoch_req *req = r->req;
    if (!request_parts_ok(r, PARTS_OF(req, partitions_n)))
        return;
    struct kafka_offset_for_leader_epoch_resp *resp = BREQ_NEW(r, struct kafka_offset_for_leader_epoch_resp);
    struct scatter *s = scatter_new(r, epoch_visit, answer);
    kafka_offset_for_leader_epoch_resp_init(resp);
    r->resp = resp;
    resp->topics = BREQ_ARRAY(r, struct kafka_offset_for_leader_epoch_resp_offset_for_leader_topic_result, req->topics_n);
    resp->topics_n = MAX(req->topics_n, 0);
    for (int32_t i = 0; i < req->topics_n; i++)
        epoch_topic(s, &req->topics[i], &resp->topics[i]);
    resp->throttle_time_ms = quota_note(r, QUOTA_REQUEST, 0);
    scatter_run(s);
}

/* ---- DeleteRecords (KIP-107) ------------------------------------------------------------------------------------------------------- */

struct delete_item {
    struct scatter_item item;
    int64_t before;
    struct kafka_delete_records_resp_delete_records_partition_result *out;
};

static void delete_visit(struct scatter_item *it, struct bpart *bp, enum kafka_error e)
{
    struct delete_item *di = CONTAINER_OF(it, struct delete_item, item);
    if (!e)
        e = part_delete_before(bp->part, di->before, &di->out->low_watermark);
    if (e)
        di->out->low_watermark = -1;
    di->out->error_code = (int16_t)e;
}

static enum kafka_error delete_ask(struct scatter *s, struct delete_item *di, struct slice name, int32_t partition)
{
    struct topic *t;
    if (!allowed(s->r, ACL_DELETE, ACL_TOPIC, name))
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    enum kafka_error e = part_find(s->r->home, name, NULL, partition, &t);
    if (e)
        return e;
    if (t->internal)
        return KAFKA_INVALID_TOPIC_EXCEPTION;
    if (!t->settings.part.cleanup_delete)
        return KAFKA_POLICY_VIOLATION; /* compacted only: its records are the state of something */
    if (di->before < -1)
        return KAFKA_OFFSET_OUT_OF_RANGE;
    return scatter_add(s, &di->item, t, partition) ? KAFKA_NONE : KAFKA_INVALID_REQUEST;
}

static void delete_topic(struct scatter *s, const struct kafka_delete_records_req_delete_records_topic *in,
                         struct kafka_delete_records_resp_delete_records_topic_result *out)
{
    struct delete_item *items = BREQ_ARRAY(s->r, struct delete_item, in->partitions_n);
    kafka_delete_records_resp_delete_records_topic_result_init(out);
    out->name = in->name;
    out->partitions = BREQ_ARRAY(s->r, struct kafka_delete_records_resp_delete_records_partition_result, in->partitions_n);
    out->partitions_n = MAX(in->partitions_n, 0);
    for (int32_t i = 0; i < in->partitions_n; i++) {
        struct delete_item *di = &items[i];
        *di = (struct delete_item){.before = in->partitions[i].offset, .out = &out->partitions[i]};
        kafka_delete_records_resp_delete_records_partition_result_init(di->out);
        di->out->partition_index = in->partitions[i].partition_index;
        di->out->low_watermark = -1;
        di->out->error_code = (int16_t)delete_ask(s, di, in->name, in->partitions[i].partition_index);
    }
}

void delete_records_serve(struct breq *r)
{
    const struct kafka_delete_records_req *req = r->req;
    if (!request_parts_ok(r, PARTS_OF(req, partitions_n)))
        return;
    struct kafka_delete_records_resp *resp = BREQ_NEW(r, struct kafka_delete_records_resp);
    struct scatter *s = scatter_new(r, delete_visit, answer);
    kafka_delete_records_resp_init(resp);
    r->resp = resp;
    resp->topics = BREQ_ARRAY(r, struct kafka_delete_records_resp_delete_records_topic_result, req->topics_n);
    resp->topics_n = MAX(req->topics_n, 0);
    for (int32_t i = 0; i < req->topics_n; i++)
        delete_topic(s, &req->topics[i], &resp->topics[i]);
    resp->throttle_time_ms = quota_note(r, QUOTA_REQUEST, 0);
    scatter_run(s);
}

/* ---- DescribeProducers (KIP-664) ------------------------------------------------------------------------------------------------------ */

struct producers_item {
    struct scatter_item item;
    struct kafka_describe_producers_resp_partition_response *out;
    struct part_producer *found; /* the owner's memory until home has copied it */
    int32_t found_n, found_cap;
};
struct producers {
    struct kafka_describe_producers_resp resp; /* breq.resp points here */
    struct producers_item *items;
    uint32_t items_n;
};

static void producer_add(void *ctx, const struct part_producer *pr)
{
    struct producers_item *pi = ctx;
    ARRAY_GROW(MEM_KAFKA, pi->found, pi->found_n, pi->found_cap);
    pi->found[pi->found_n++] = *pr;
}

static void producers_visit(struct scatter_item *it, struct bpart *bp, enum kafka_error e)
{
    struct producers_item *pi = CONTAINER_OF(it, struct producers_item, item);
    pi->out->error_code = (int16_t)e;
    if (!e)
        part_producers(bp->part, producer_add, pi);
}

static void producers_done(struct breq *r)
{
    struct producers *ps = CONTAINER_OF(r->resp, struct producers, resp);
    for (uint32_t i = 0; i < ps->items_n; i++) {
        struct producers_item *pi = &ps->items[i];
        pi->out->active_producers = BREQ_ARRAY(r, struct kafka_describe_producers_resp_producer_state, pi->found_n);
        pi->out->active_producers_n = pi->found_n;
        for (int32_t k = 0; k < pi->found_n; k++) {
            const struct part_producer *pr = &pi->found[k];
            pi->out->active_producers[k] = (struct kafka_describe_producers_resp_producer_state){
                .producer_id = pr->id,
                .producer_epoch = pr->epoch,
                .last_sequence = pr->last_sequence,
                .last_timestamp = pr->last_ms,
                .coordinator_epoch = pr->coordinator_epoch,
                .current_txn_start_offset = pr->txn_first_offset,
            };
        }
        mem_free(pi->found);
    }
    breq_answer(r, r->home);
}

static void producers_topic(struct scatter *s, struct producers *ps, const struct kafka_describe_producers_req_topic_request *in,
                            struct kafka_describe_producers_resp_topic_response *out)
{
    kafka_describe_producers_resp_topic_response_init(out);
    out->name = in->name;
    out->partitions = BREQ_ARRAY(s->r, struct kafka_describe_producers_resp_partition_response, in->partition_indexes_n);
    out->partitions_n = MAX(in->partition_indexes_n, 0);
    for (int32_t i = 0; i < in->partition_indexes_n; i++) {
        struct producers_item *pi = &ps->items[ps->items_n++];
        pi->out = &out->partitions[i];
        kafka_describe_producers_resp_partition_response_init(pi->out);
        pi->out->partition_index = in->partition_indexes[i];
        pi->out->error_code = (int16_t)ask_named(s, &pi->item, ACL_READ, in->name, in->partition_indexes[i]);
    }
}

void describe_producers_serve(struct breq *r)
{
    const struct kafka_describe_producers_req *req = r->req;
    uint64_t n = PARTS_OF(req, partition_indexes_n);
    if (!request_parts_ok(r, n))
        return;
    struct producers *ps = BREQ_NEW(r, struct producers);
    struct scatter *s = scatter_new(r, producers_visit, producers_done);
    kafka_describe_producers_resp_init(&ps->resp);
    r->resp = &ps->resp;
    ps->items = BREQ_ARRAY(r, struct producers_item, n);
    ps->resp.topics = BREQ_ARRAY(r, struct kafka_describe_producers_resp_topic_response, req->topics_n);
    ps->resp.topics_n = MAX(req->topics_n, 0);
    for (int32_t i = 0; i < req->topics_n; i++)
        producers_topic(s, ps, &req->topics[i], &ps->resp.topics[i]);
    ps->resp.throttle_time_ms = quota_note(r, QUOTA_REQUEST, 0);
    scatter_run(s);
}
