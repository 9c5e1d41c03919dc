/* log_client_own_produce.c - the own engine's producer.
 *
 *     own_produce() -> topic known? -> lane of the partition -> at the end of the turn: one batch per lane -> Produce -> done() of each message
 *                          no: unplaced until Metadata has told
 *
 * A lane has one batch under way, so messages keep their order, and a batch that may or may not have been written is sent again as it was: with
 * acks all it carries a producer id and a sequence number, by which the broker knows it (KIP-98). When a batch is given up, what the broker has
 * of it is not known, and later numbers would not fit: the producer id is given up with it, and the next batches get another.
 */
#include "log_client_own.h"

#define BATCH_BYTES_MAX 900000u      /* of keys and values: below Kafka's default max.message.bytes */
#define BATCH_MESSAGES_MAX 10000u

struct own_msg {
    struct list link;
    int32_t partition;               /* as asked for */
    uint64_t due_ms;
    int64_t timestamp_ms;
    struct slice key, value;         /* in the bytes behind */
    struct kafka_header *headers;
    uint32_t headers_n;
    size_t bytes;
    void (*done)(void *ctx, const struct log_fault *e, int32_t partition, int64_t offset);
    void *ctx;
};

/* One partition of the producer. */
struct own_lane {
    struct own_topic *t;
    int32_t partition;
    struct list waiting;             /* struct own_msg */
    struct list under_way;           /* those in the batch */
    struct buf batch;                /* as it is sent, and sent again */
    struct own_call *call;           /* while it is with the broker */
    int64_t producer_id;             /* of the batch and of next_sequence */
    int16_t producer_epoch;
    int32_t next_sequence;
    int32_t count;                   /* messages of the batch */
    uint64_t rest_ms;                /* not sent before this loop time */
    struct timer give_up;            /* the oldest message's time is over */
};

static void own_flush(struct own *o);

/* ---- messages --------------------------------------------------------------------------------------------------------------------- */

static struct slice put(char **at, struct slice s)
{
    if (!s.p)
        return s;
    char *p = *at;
    if (s.n)
        memcpy(p, s.p, s.n);
    *at += s.n;
    return slice_of(p, s.n);
}

static struct own_msg *msg_new(struct own *o, const struct log_message *m)
{
    size_t bytes = sizeof(struct own_msg) + m->headers_n * sizeof(struct kafka_header) + m->key.n + m->value.n;
    for (uint32_t i = 0; i < m->headers_n; i++)
        bytes += m->headers[i].name.n + m->headers[i].value.n;
    struct own_msg *msg = mem_try(MEM_KAFKA, bytes + 1);
    if (!msg)
        return NULL;
    char *at = (char *)(msg + 1) + m->headers_n * sizeof(struct kafka_header);
    msg->headers = (struct kafka_header *)(void *)(msg + 1);
    msg->headers_n = m->headers_n;
    msg->partition = m->partition;
    msg->due_ms = loop_now_ms(o->base.loop) + o->base.timeout_ms;
    msg->timestamp_ms = m->timestamp_ms >= 0 ? m->timestamp_ms : (int64_t)(wall_ns() / 1000000u);
    msg->key = put(&at, m->key);
    msg->value = put(&at, m->value);
    for (uint32_t i = 0; i < m->headers_n; i++)
        msg->headers[i] = (struct kafka_header){put(&at, m->headers[i].name), put(&at, m->headers[i].value)};
    msg->bytes = bytes;
    msg->done = m->done;
    msg->ctx = m->ctx;
    o->base.produce_bytes += bytes;
    return msg;
}

static void msg_free(struct own *o, struct own_msg *msg)
{
    list_del(&msg->link);
    o->base.produce_bytes -= msg->bytes;
    mem_free(msg);
}

static void msg_end(struct own *o, struct own_msg *msg, enum kafka_error e, struct slice text, int32_t partition, int64_t offset)
{
    struct log_fault fault;
    struct buf words = {0};
    list_del(&msg->link);
    if (msg->done)
        msg->done(msg->ctx, e ? log_fault_of(&fault, e, own_words(o, e, text), &words) : NULL, e ? -1 : partition, e ? -1 : offset);
    buf_free(&words);
    msg_free(o, msg);
}

/* ---- topics ------------------------------------------------------------------------------------------------------------------------- */

static void topic_ask(struct own_topic *t);
static void topic_again(struct timer *t) { topic_ask(CONTAINER_OF(t, struct own_topic, again)); }

struct own_topic *own_topic(struct own *o, struct slice name)
{
    struct own_topic *t = table_get(&o->topics, name);
    if (t)
        return t;
    t = mem_new(MEM_KAFKA, sizeof *t);
    t->o = o;
    t->name = mem_strndup(MEM_KAFKA, name.p, name.n);
    list_init(&t->unplaced);
    timer_init(&t->again, topic_again);
    table_put(&o->topics, name, t);
    list_push(&o->topic_list, &t->link);
    return t;
}

/* Those whose time is over; true when there are others. */
static bool unplaced_wait(struct own_topic *t, enum kafka_error e, bool all)
{
    LIST_FOREACH(l, &t->unplaced) {
        struct own_msg *msg = CONTAINER_OF(l, struct own_msg, link);
        if (all || loop_now_ms(t->o->base.loop) >= msg->due_ms)
            msg_end(t->o, msg, e, SLICE(""), -1, -1);
    }
    return !list_empty(&t->unplaced);
}

/* A topic that is not there is perhaps being made: that was asked for. */
static void topic_told(struct own_call *call)
{
    struct own_topic *t = call->ctx;
    const struct kafka_metadata_resp *resp = call->resp;
    enum kafka_error e = call->error;
    t->asking = false;
    if (e == KAFKA_NONE) {
        own_learn(t->o, resp);
        e = resp->topics_n == 1 ? (enum kafka_error)resp->topics[0].error_code : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    bool passing = own_worth_it(t->o, e) || e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (e != KAFKA_NONE && unplaced_wait(t, e, !passing))
        timer_set(t->o->base.loop, &t->again, LOG_BACKOFF_MS);
    loop_defer(t->o->base.loop, &t->o->flush);
}

static void topic_ask(struct own_topic *t)
{
    struct slice name = slice_cstr(t->name);
    if (t->asking)
        return;
    t->asking = true;
    own_send(own_metadata(t->o, &name, 1, true, topic_told, t), t->o->base.timeout_ms);
}

static void lane_give_up(struct timer *t);

static struct own_lane *lane_of(struct own_topic *t, int32_t partition)
{
    struct own_lane *lane = t->lanes[partition];
    if (lane)
        return lane;
    lane = t->lanes[partition] = mem_new(MEM_KAFKA, sizeof *lane);
    lane->t = t;
    lane->partition = partition;
    lane->producer_id = -1;
    list_init(&lane->waiting);
    list_init(&lane->under_way);
    timer_init(&lane->give_up, lane_give_up);
    return lane;
}

/* Puts a message into its lane; its topic is known. */
static void msg_place(struct own_topic *t, struct own_msg *msg)
{
    int32_t p = msg->partition;
    if (p < 0)
        p = msg->key.p ? log_partition_of(msg->key, t->parts_n) : (int32_t)(t->turn % (uint32_t)t->parts_n);
    if (p >= t->parts_n) {
        msg_end(t->o, msg, KAFKA_UNKNOWN_TOPIC_OR_PARTITION, SLICE(""), -1, -1);
        return;
    }
    list_del(&msg->link);
    list_push(&lane_of(t, p)->waiting, &msg->link);
}

void own_topic_learnt(struct own_topic *t)
{
    loop_defer(t->o->base.loop, &t->o->flush);
}

/* ---- batches ------------------------------------------------------------------------------------------------------------------------ */

static void lane_send(struct own_lane *lane);

static void lane_rest(struct own_lane *lane)
{
    struct own *o = lane->t->o;
    lane->rest_ms = loop_now_ms(o->base.loop) + LOG_BACKOFF_MS;
    topic_ask(lane->t); /* another may lead it now */
    if (!timer_is_set(&o->linger))
        timer_set(o->base.loop, &o->linger, LOG_BACKOFF_MS);
}

/* The batch is over, well or not. */
static void lane_done(struct own_lane *lane, enum kafka_error e, struct slice text, int64_t base_offset)
{
    struct own *o = lane->t->o;
    int64_t offset = base_offset;
    timer_clear(&lane->give_up);
    if (e != KAFKA_NONE) { /* what the broker has of it is not known: its numbers are not used again */
        if (lane->producer_id == o->producer_id)
            o->producer_id = -1;
        lane->producer_id = -1;
    }
    lane->batch.n = 0;
    while (!list_empty(&lane->under_way)) {
        struct own_msg *msg = CONTAINER_OF(lane->under_way.next, struct own_msg, link);
        msg_end(o, msg, e, text, lane->partition, base_offset < 0 ? -1 : offset++);
    }
    loop_defer(o->base.loop, &o->flush);
}

static void lane_give_up(struct timer *t)
{
    struct own_lane *lane = CONTAINER_OF(t, struct own_lane, give_up);
    if (lane->call)
        own_call_drop(lane->call);
    lane->call = NULL;
    lane_done(lane, KAFKA_REQUEST_TIMED_OUT, SLICE(""), -1);
}

static void lane_told(struct own_call *call)
{
    struct own_lane *lane = call->ctx;
    const struct kafka_produce_resp *resp = call->resp;
    enum kafka_error e = call->error;
    struct slice text = SLICE("");
    int64_t offset = -1;
    lane->call = NULL;
    if (e == KAFKA_NONE && !call->silent && (resp->responses_n != 1 || resp->responses[0].partition_responses_n != 1)) {
        e = KAFKA_CORRUPT_MESSAGE;
    } else if (e == KAFKA_NONE && !call->silent) {
        const struct kafka_produce_resp_partition_produce_response *p = &resp->responses[0].partition_responses[0];
        e = (enum kafka_error)p->error_code;
        text = p->error_message;
        offset = p->base_offset;
        if (p->record_errors_n > 0 && p->record_errors[0].batch_index_error_message.n)
            text = p->record_errors[0].batch_index_error_message;
    }
    if (e == KAFKA_DUPLICATE_SEQUENCE_NUMBER) /* it is there, from an earlier time */
        e = KAFKA_NONE;
    if (own_passing(e) || e == KAFKA_UNKNOWN_TOPIC_OR_PARTITION)
        lane_rest(lane);
    else
        lane_done(lane, e, text, offset);
}

static void lane_send(struct own_lane *lane)
{
    struct own *o = lane->t->o;
    int32_t node = own_leader(lane->t, lane->partition);
    if (node == OWN_ANY) {
        lane_rest(lane);
        return;
    }
    struct own_call *call = own_call(o, API_PRODUCE, 9, node, lane_told, lane);
    struct kafka_produce_req *req = call->req;
    req->acks = o->base.acks;
    req->timeout_ms = (int32_t)o->base.timeout_ms;
    req->topic_data_n = 1;
    req->topic_data = OWN_NEW(call, struct kafka_produce_req_topic_produce_data, 1);
    req->topic_data[0].name = slice_cstr(lane->t->name);
    req->topic_data[0].partition_data_n = 1;
    req->topic_data[0].partition_data = OWN_NEW(call, struct kafka_produce_req_partition_produce_data, 1);
    req->topic_data[0].partition_data[0] = (struct kafka_produce_req_partition_produce_data){lane->partition, own_keep(call, buf_slice(&lane->batch))};
    lane->call = call;
    call->silent = o->base.acks == 0;
    own_send(call, o->base.timeout_ms);
}

/* Makes the batch of what waits. */
static void lane_fill(struct own_lane *lane)
{
    struct own *o = lane->t->o;
    struct kafka_batch head = kafka_batch_plain;
    struct kafka_batch_builder k;
    size_t bytes = 0;
    bool numbered = o->base.acks == -1;
    if (numbered && lane->producer_id != o->producer_id) {
        lane->producer_id = o->producer_id;
        lane->producer_epoch = o->producer_epoch;
        lane->next_sequence = 0;
    }
    struct own_msg *first = CONTAINER_OF(lane->waiting.next, struct own_msg, link);
    head.base_timestamp = first->timestamp_ms;
    if (numbered) {
        head.producer_id = lane->producer_id;
        head.producer_epoch = lane->producer_epoch;
        head.base_sequence = lane->next_sequence;
    }
    buf_clear(&lane->batch);
    kafka_batch_begin(&k, &lane->batch, &head);
    lane->count = 0;
    while (!list_empty(&lane->waiting) && (uint32_t)lane->count < BATCH_MESSAGES_MAX) {
        struct own_msg *msg = CONTAINER_OF(lane->waiting.next, struct own_msg, link);
        if (lane->count && bytes + msg->bytes > BATCH_BYTES_MAX)
            break;
        bytes += msg->bytes;
        lane->count++;
        kafka_batch_add(&k, msg->timestamp_ms, msg->key, msg->value, msg->headers, (int32_t)msg->headers_n);
        list_del(&msg->link);
        list_push(&lane->under_way, &msg->link);
    }
    if (kafka_batch_end(&k, KAFKA_CODEC_NONE) != OK) {
        lane_done(lane, KAFKA_MESSAGE_TOO_LARGE, SLICE(""), -1);
        return;
    }
    if (numbered) /* wraps to 0 behind the greatest number (KIP-98) */
        lane->next_sequence = (int32_t)(((uint32_t)lane->next_sequence + (uint32_t)lane->count) & 0x7fffffffu);
    uint64_t now_ms = loop_now_ms(o->base.loop);
    timer_set(o->base.loop, &lane->give_up, first->due_ms > now_ms ? first->due_ms - now_ms : 0);
}

/* Without a producer id nothing can be sent: messages that have waited long enough fail, or all when waiting does not help. */
static void lanes_fail(struct own_topic *t, enum kafka_error e)
{
    for (int32_t i = 0; i < t->parts_n; i++) {
        if (!t->lanes[i])
            continue;
        LIST_FOREACH(l, &t->lanes[i]->waiting) {
            struct own_msg *msg = CONTAINER_OF(l, struct own_msg, link);
            if (!own_passing(e) || loop_now_ms(t->o->base.loop) >= msg->due_ms)
                msg_end(t->o, msg, e, SLICE(""), -1, -1);
        }
    }
}

static void producer_told(struct own_call *call)
{
    struct own *o = call->ctx;
    const struct kafka_init_producer_id_resp *resp = call->resp;
    o->producer_asking = false;
    if (call->error == KAFKA_NONE && resp->error_code == KAFKA_NONE) {
        o->producer_id = resp->producer_id;
        o->producer_epoch = resp->producer_epoch;
        loop_defer(o->base.loop, &o->flush);
        return;
    }
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    LIST_FOREACH(l, &o->topic_list)
        lanes_fail(CONTAINER_OF(l, struct own_topic, link), e);
    timer_set(o->base.loop, &o->linger, LOG_BACKOFF_MS);
}

static bool producer_ready(struct own *o)
{
    if (o->base.acks != -1 || o->producer_id >= 0)
        return true;
    if (o->producer_asking)
        return false;
    o->producer_asking = true;
    struct own_call *call = own_call(o, API_INIT_PRODUCER_ID, 4, OWN_ANY, producer_told, o);
    struct kafka_init_producer_id_req *req = call->req;
    req->transactional_id = (struct slice){0};
    req->transaction_timeout_ms = INT32_MAX;
    req->producer_id = -1;
    req->producer_epoch = -1;
    own_send(call, o->base.timeout_ms);
    return false;
}

static void lane_go(struct own_lane *lane)
{
    struct own *o = lane->t->o;
    if (lane->call)
        return;
    if (list_empty(&lane->under_way)) {
        if (list_empty(&lane->waiting) || !producer_ready(o))
            return;
        lane_fill(lane);
        if (list_empty(&lane->under_way))
            return;
    }
    if (loop_now_ms(o->base.loop) >= lane->rest_ms)
        lane_send(lane);
    else if (!timer_is_set(&o->linger))
        timer_set(o->base.loop, &o->linger, LOG_BACKOFF_MS);
}

static void topic_flush(struct own_topic *t)
{
    if (!t->parts_n) {
        if (!list_empty(&t->unplaced) && !timer_is_set(&t->again))
            topic_ask(t);
        return;
    }
    while (!list_empty(&t->unplaced))
        msg_place(t, CONTAINER_OF(t->unplaced.next, struct own_msg, link));
    t->turn++; /* messages of one turn without a key share a batch (KIP-480) */
    for (int32_t i = 0; i < t->parts_n; i++)
        if (t->lanes[i])
            lane_go(t->lanes[i]);
}

static void own_flush(struct own *o)
{
    LIST_FOREACH(l, &o->topic_list)
        topic_flush(CONTAINER_OF(l, struct own_topic, link));
}

static void flush_task(struct task *t) { own_flush(CONTAINER_OF(t, struct own, flush)); }
static void flush_timer(struct timer *t) { own_flush(CONTAINER_OF(t, struct own, linger)); }

enum err own_produce(struct log_client *c, const struct log_message *m)
{
    struct own *o = CONTAINER_OF(c, struct own, base);
    struct own_msg *msg = msg_new(o, m);
    if (!msg)
        return ERR_NOMEM;
    list_push(&own_topic(o, m->topic)->unplaced, &msg->link);
    loop_defer(o->base.loop, &o->flush);
    return OK;
}

void own_produce_init(struct own *o)
{
    task_init(&o->flush, flush_task);
    timer_init(&o->linger, flush_timer);
}

static void topic_free(struct own_topic *t)
{
    timer_clear(&t->again);
    while (!list_empty(&t->unplaced))
        msg_free(t->o, CONTAINER_OF(t->unplaced.next, struct own_msg, link));
    for (int32_t i = 0; i < t->parts_n; i++) {
        struct own_lane *lane = t->lanes[i];
        if (!lane)
            continue;
        timer_clear(&lane->give_up);
        for (int k = 0; k < 2; k++)
            while (!list_empty(k ? &lane->waiting : &lane->under_way))
                msg_free(t->o, CONTAINER_OF(k ? lane->waiting.next : lane->under_way.next, struct own_msg, link));
        buf_free(&lane->batch);
        mem_free(lane);
    }
    mem_free(t->lanes);
    mem_free(t->leaders);
    mem_free(t->name);
    mem_free(t);
}

void own_produce_fini(struct own *o)
{
    list_del(&o->flush.link);
    timer_clear(&o->linger);
    for (struct table_slot *s = NULL; (s = table_next(&o->topics, s));)
        topic_free(s->value);
    table_fini(&o->topics);
}
