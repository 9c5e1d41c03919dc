/* produce.c - Produce: batches are checked at home, appended by the shards that own their partitions, answered when all are done.
 *
 *     home:  parse -> may he? -> each batch: topic, format, CRC, records, times -> [compress anew, in the pool] -> one call per shard
 *     owner: [verify the transaction] -> part_append() ... done() -> when all of the call are done: home
 *     home:  when all shards are done: answer. Before, when timeout_ms is over: REQUEST_TIMED_OUT; the request stays until they are done
 *
 * A batch's bytes are those of the request's frame (or of a buffer of its own, once compressed anew) until the log has written them.
 *
 * Order: a request whose batches are being compressed stands in its connection's line, and later ones of the connection wait there behind it. A batch whose transaction is being verified is in the owner's table `verifying`; its producer's later ones for that partition wait in a chain behind it.
 */
#include "data.h"
#include "txn_int.h"

#define PRODUCE_TIMEOUT_MIN_MS 1000
#define PRODUCE_VERSION_ZSTD 7          /* the first whose clients know zstd (KIP-110) */
#define PRODUCE_VERSION_ABORTABLE 11    /* the first whose clients know TRANSACTION_ABORTABLE (KIP-890) */
#define RECORD_ERRORS_MAX 1000          /* records of one batch that an answer names as faulty */
#define ADMIN_CLIENT_ID "__admin_client" /* may write into internal topics, as in Kafka */

struct produce;
/* What of a request goes to one shard. */
struct produce_group {
    struct call call;
    struct produce *p;
    struct shard *owner;
    struct produce_batch *first, **last;
    uint32_t left;                 /* owner: batches that are not done, and one while they are being appended */
    bool home;                     /* it has come back */
};
struct produce_batch {
    struct append append;
    struct produce_group *group;   /* NULL: it got no further than home */
    struct produce_batch *next;    /* in its group; while it waits for a verification: behind the same first one */
    struct produce_batch *behind, **behind_last; /* of the first one: those that wait with it */
    struct kafka_produce_resp_partition_produce_response *out;
    struct produce_verify *verify; /* NULL: not of a transaction */
    struct slice bytes;            /* as received */
    char *own;                     /* the batch, compressed anew; NULL: in the frame */
    struct kafka_uuid topic_id;
    int32_t partition;
    int8_t codec;                  /* COMPRESSION_PRODUCER, or what it is to be compressed with */
    uint32_t bytes_max;            /* max.message.bytes */
};
struct produce_verify {
    struct txn_verify v;
    struct produce_batch *pb;
};
struct produce {
    struct kafka_produce_resp resp; /* breq.resp points here */
    struct breq *r;
    struct produce_batch *batches; /* in the order of the request */
    uint32_t batches_n;
    struct produce_group *groups;  /* by index of shard */
    uint32_t left;                 /* groups that have not come back, and one while they are being sent */
    int64_t now_ms;
    uint64_t bytes;                /* of all batches: for the quota */
    bool answered;                 /* by the timer: what is still done is done for nobody */
    bool ready;                    /* it is in a line, and may go when it is the first there */
    struct bconn *conn;            /* whose order it keeps; not looked into */
    struct list link;              /* in its connection's line */
    struct work work;
    struct timer timer;
};
/* Requests of one connection, in the order of arrival: the first has batches that are being compressed. */
struct produce_line {
    struct list waiting;           /* struct produce */
};
/* Everything of produce on one shard. */
struct producing {
    struct table lines;            /* home: struct bconn * -> struct produce_line */
    struct table verifying;        /* owner: struct verify_key -> struct produce_batch */
};
struct verify_key {
    uint8_t topic[16];
    int64_t producer_id;
    int32_t partition, epoch;
};

static void send_groups(struct produce *p);

/* ---- the answer -------------------------------------------------------------------------------------------------------------- */

static void out_error(struct kafka_produce_resp_partition_produce_response *out, enum kafka_error e, const char *message)
{
    out->error_code = (int16_t)e;
    out->base_offset = -1;
    out->log_append_time_ms = -1;
    out->log_start_offset = -1;
    out->error_message = message ? slice_cstr(message) : slice_of(NULL, 0);
}

static void produce_free_own(struct produce *p)
{
    for (uint32_t i = 0; i < p->batches_n; i++)
        mem_free(p->batches[i].own);
}

static void answer(struct produce *p)
{
    struct breq *r = p->r;
    const struct kafka_produce_req *req = r->req;
    timer_clear(&p->timer);
    if (req->acks == 0) {
        r->silent = true;
        for (uint32_t i = 0; i < p->batches_n; i++)
            r->hang_up = r->hang_up || p->batches[i].out->error_code; /* its only way to learn of it */
    }
    p->resp.throttle_time_ms = quota_note(r, QUOTA_PRODUCE, p->bytes);
    breq_answer(r, r->home);
}

/* At home, when nothing of the request is under way any more. */
static void produce_done(struct produce *p)
{
    produce_free_own(p);
    if (p->answered)
        breq_release(p->r);
    else
        answer(p);
}

/* The time is over: what has not come home is not known to be durable. The answer is another object, because owners still write into the first. */
static void produce_timeout(struct timer *t)
{
    struct produce *p = CONTAINER_OF(t, struct produce, timer);
    struct breq *r = p->r;
    struct kafka_produce_resp *resp = BREQ_NEW(r, struct kafka_produce_resp);
    *resp = p->resp;
    resp->responses = BREQ_ARRAY(r, struct kafka_produce_resp_topic_produce_response, resp->responses_n);
    uint32_t at = 0;
    for (int32_t i = 0; i < resp->responses_n; i++) {
        struct kafka_produce_resp_topic_produce_response *topic = &resp->responses[i];
        *topic = p->resp.responses[i];
        topic->partition_responses = BREQ_ARRAY(r, struct kafka_produce_resp_partition_produce_response, topic->partition_responses_n);
        for (int32_t k = 0; k < topic->partition_responses_n; k++, at++) {
            const struct produce_batch *pb = &p->batches[at];
            struct kafka_produce_resp_partition_produce_response *out = &topic->partition_responses[k];
            if (!pb->group || pb->group->home) {
                *out = *pb->out;
                continue;
            }
            kafka_produce_resp_partition_produce_response_init(out);
            out->index = pb->partition;
            out_error(out, KAFKA_REQUEST_TIMED_OUT, "the disk took longer than the request's timeout; the records may have been written");
        }
    }
    resp->throttle_time_ms = quota_note(r, QUOTA_PRODUCE, p->bytes);
    r->resp = resp;
    p->answered = true;
    breq_hold(r);
    breq_answer(r, r->home);
}

/* ---- on the owner ------------------------------------------------------------------------------------------------------------- */

static void group_home(struct shard *here, struct call *c)
{
    struct produce_group *g = CONTAINER_OF(c, struct produce_group, call);
    (void)here;
    g->home = true;
    if (--g->p->left == 0)
        produce_done(g->p);
}

static void group_done_one(struct produce_group *g)
{
    if (--g->left)
        return;
    g->call.fn = group_home;
    call_now(g->owner, g->p->r->home, &g->call);
}

static void batch_refused(struct produce_batch *pb, enum kafka_error e, const char *message)
{
    out_error(pb->out, e, message);
    group_done_one(pb->group);
}

static void batch_appended(struct append *a)
{
    struct produce_batch *pb = CONTAINER_OF(a, struct produce_batch, append);
    if (a->error) {
        batch_refused(pb, a->error, NULL);
        return;
    }
    pb->out->base_offset = a->base_offset;
    pb->out->log_append_time_ms = a->append_ms;
    pb->out->log_start_offset = a->log_start;
    group_done_one(pb->group);
}

static struct slice verify_key(struct verify_key *k, const struct produce_batch *pb)
{
    *k = (struct verify_key){.producer_id = pb->append.batch.producer_id, .partition = pb->partition, .epoch = pb->append.batch.producer_epoch};
    memcpy(k->topic, pb->topic_id.b, sizeof k->topic);
    return slice_of((const char *)k, sizeof *k);
}

static void batch_append(struct shard *here, struct produce_batch *pb, bool checked)
{
    struct bpart *bp = shard_part(here, &pb->topic_id, pb->partition);
    enum kafka_error e = part_state(bp);
    if (e) {
        batch_refused(pb, e, NULL);
        return;
    }
    struct part_live *live = bpart_live(bp);
    counter_add(&live->in_bytes, pb->append.batch.bytes);
    counter_inc(&live->in_batches);
    counter_add(&live->in_records, (uint64_t)pb->append.batch.count);
    pb->append.transaction_checked = checked;
    part_append(bp->part, &pb->append);
}

/* The errors of clients that do not know the newest one. */
static enum kafka_error verify_error(const struct produce_batch *pb, enum kafka_error e)
{
    return e == KAFKA_INVALID_TXN_STATE && pb->group->p->r->version >= PRODUCE_VERSION_ABORTABLE ? KAFKA_TRANSACTION_ABORTABLE : e;
}

static void batch_verified(struct shard *here, struct txn_verify *v)
{
    struct produce_batch *pb = CONTAINER_OF(v, struct produce_verify, v)->pb;
    enum kafka_error e = v->error; /* v goes with the first one's request */
    struct verify_key k;
    MUST(table_del(&here->producing->verifying, verify_key(&k, pb)) == pb);
    while (pb) { /* those behind it are of the same producer, and what holds for the first holds for them */
        struct produce_batch *next = pb->behind;
        if (e)
            batch_refused(pb, verify_error(pb, e), "the transaction coordinator does not have this partition in an ongoing transaction of the producer");
        else
            batch_append(here, pb, true);
        pb = next;
    }
}

static void batch_verify(struct shard *here, struct produce_batch *pb)
{
    struct verify_key k;
    struct produce_batch *first = table_get(&here->producing->verifying, verify_key(&k, pb));
    if (first) {
        *first->behind_last = pb;
        first->behind_last = &pb->behind;
        return;
    }
    pb->behind_last = &pb->behind;
    table_put(&here->producing->verifying, verify_key(&k, pb), pb);
    pb->verify->v.done = batch_verified;
    txn_verify(here, &pb->verify->v);
}

static void group_append(struct shard *here, struct call *c)
{
    struct produce_group *g = CONTAINER_OF(c, struct produce_group, call);
    g->left = 1;
    for (struct produce_batch *pb = g->first; pb; pb = pb->next) {
        g->left++;
        struct bpart *bp = pb->verify ? shard_part(here, &pb->topic_id, pb->partition) : NULL;
        if (pb->verify && part_state(bp) == KAFKA_NONE && !part_txn_open(bp->part, pb->append.batch.producer_id))
            batch_verify(here, pb);
        else
            batch_append(here, pb, false);
    }
    group_done_one(g);
}

/* ---- compressing anew (compression.type of the topic is not the producer's) ----------------------------------------------------- */

/* On a pool thread. The records stay as they are, so counts, offsets and times do. */
static enum kafka_error batch_compress(struct produce_batch *pb)
{
    struct kafka_batch *b = &pb->append.batch;
    struct kafka_batch_builder k;
    struct buf out = {0}, plain = {0};
    struct slice records;
    enum err e = kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &plain, &records);
    if (e == OK) {
        kafka_batch_begin(&k, &out, b);
        k.head.last_offset_delta = b->last_offset_delta;
        k.head.max_timestamp = b->max_timestamp;
        k.head.count = b->count;
        buf_add_slice(&out, records);
        e = kafka_batch_end(&k, (enum kafka_codec)pb->codec);
    }
    buf_free(&plain);
    if (e == OK && out.n <= pb->bytes_max && kafka_batch_parse(buf_slice(&out), b) == KAFKA_NONE) {
        pb->own = pb->append.bytes = buf_take(&out, NULL);
        b->records.p = pb->own + KAFKA_BATCH_HEADER;
        return KAFKA_NONE;
    }
    buf_free(&out);
    switch (e) {
    case OK:
    case ERR_LIMIT: return KAFKA_MESSAGE_TOO_LARGE;
    case ERR_NOMEM: return KAFKA_UNKNOWN_SERVER_ERROR;
    case ERR_UNSUPPORTED: return KAFKA_UNSUPPORTED_COMPRESSION_TYPE; /* libsnappy is not installed here */
    default: return KAFKA_CORRUPT_MESSAGE;
    }
}

static void compress_run(struct work *w)
{
    struct produce *p = CONTAINER_OF(w, struct produce, work);
    for (uint32_t i = 0; i < p->batches_n; i++) {
        struct produce_batch *pb = &p->batches[i];
        if (pb->out->error_code || pb->codec == COMPRESSION_PRODUCER)
            continue;
        enum kafka_error e = batch_compress(pb);
        if (e)
            out_error(pb->out, e, "the records could not be compressed as the topic's compression.type says");
    }
}

static struct slice line_key(struct bconn *const *c) { return slice_of((const char *)c, sizeof *c); }

/* Those of a line that are ready and have nothing before them go. */
static void line_move(struct producing *ps, struct produce_line *line, struct bconn *conn)
{
    while (!list_empty(&line->waiting)) {
        struct produce *p = CONTAINER_OF(line->waiting.next, struct produce, link);
        if (!p->ready)
            return;
        list_del(&p->link);
        send_groups(p);
    }
    (void)table_del(&ps->lines, line_key(&conn));
    mem_free(line);
}

static void compress_done(struct work *w)
{
    struct produce *p = CONTAINER_OF(w, struct produce, work);
    struct producing *ps = p->r->home->producing;
    p->ready = true;
    line_move(ps, table_get(&ps->lines, line_key(&p->conn)), p->conn);
}

/* True: p waits, for itself or for one before it. */
static bool compress_wait(struct produce *p, bool compress)
{
    struct producing *ps = p->r->home->producing;
    if (!compress && ps->lines.n == 0)
        return false;
    struct produce_line *line = table_get(&ps->lines, line_key(&p->conn));
    if (!compress && !line)
        return false;
    if (!line) {
        line = mem_new(MEM_BROKER, sizeof *line);
        list_init(&line->waiting);
        table_put(&ps->lines, line_key(&p->conn), line);
    }
    list_push(&line->waiting, &p->link);
    p->ready = !compress;
    if (compress) {
        p->work = (struct work){.run = compress_run, .done = compress_done};
        work_submit(p->r->home->loop, &p->work);
    }
    return true;
}

/* ---- sending ------------------------------------------------------------------------------------------------------------------- */

static void group_add(struct produce *p, struct produce_batch *pb)
{
    struct shard *owner = shard_of_part(p->r->home->b, &pb->topic_id, pb->partition);
    struct produce_group *g = &p->groups[owner->index];
    if (!g->owner) {
        *g = (struct produce_group){.p = p, .owner = owner, .call = {.fn = group_append}};
        list_init(&g->call.link);
        g->last = &g->first;
    }
    pb->group = g;
    *g->last = pb;
    g->last = &pb->next;
}

static void send_groups(struct produce *p)
{
    struct shard *home = p->r->home;
    const struct kafka_produce_req *req = p->r->req;
    for (uint32_t i = 0; i < p->batches_n; i++)
        if (!p->batches[i].out->error_code)
            group_add(p, &p->batches[i]);
    p->left = 1;
    for (uint32_t i = 0; i < home->b->shards_n; i++) {
        struct produce_group *g = &p->groups[i];
        if (!g->owner)
            continue;
        p->left++;
        call_now(home, g->owner, &g->call);
    }
    if (--p->left == 0)
        produce_done(p);
    else if (req->acks == -1)
        timer_set(home->loop, &p->timer, (uint64_t)MAX(req->timeout_ms, PRODUCE_TIMEOUT_MIN_MS));
}

/* ---- checking ------------------------------------------------------------------------------------------------------------------- */

/* CreateTime: not too old, not too far in the future (KIP-937). -1 is none. */
static bool time_ok(const struct topic_settings *ts, int64_t ms, int64_t now_ms)
{
    if (ms == -1)
        return true;
    return ms > now_ms ? (uint64_t)ms - (uint64_t)now_ms <= (uint64_t)ts->timestamp_after_max_ms
                       : (uint64_t)now_ms - (uint64_t)ms <= (uint64_t)ts->timestamp_before_max_ms;
}

static void record_error(struct produce *p, struct produce_batch *pb, int32_t index, const char *why)
{
    pb->out->record_errors = BREQ_ARRAY(p->r, struct kafka_produce_resp_batch_index_and_error_message, 1);
    pb->out->record_errors_n = 1;
    pb->out->record_errors[0] = (struct kafka_produce_resp_batch_index_and_error_message){.batch_index = index, .batch_index_error_message = slice_cstr(why)};
}

static bool record_keyless(const struct produce *p, const struct topic *t, const struct kafka_batch *b, const struct kafka_record *r)
{
    (void)p, (void)t, (void)b;
    return !r->key.p;
}

static bool record_untimely(const struct produce *p, const struct topic *t, const struct kafka_batch *b, const struct kafka_record *r)
{
    return !time_ok(&t->settings, (int64_t)((uint64_t)b->base_timestamp + (uint64_t)r->timestamp_delta), p->now_ms);
}

/* Each record that is faulty, as Kafka lists them: a client that knows which records were at fault can send the others again. How many. */
static int32_t record_errors(struct produce *p, struct produce_batch *pb, const struct topic *t, struct slice why,
                             bool (*faulty)(const struct produce *p, const struct topic *t, const struct kafka_batch *b, const struct kafka_record *r))
{
    const struct kafka_batch *b = &pb->append.batch;
    struct kafka_produce_resp_batch_index_and_error_message *errors = BREQ_ARRAY(p->r, struct kafka_produce_resp_batch_index_and_error_message, MIN(b->count, RECORD_ERRORS_MAX));
    struct buf scratch = {0};
    struct slice rest;
    struct kafka_record record;
    int32_t n = 0;
    if (kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &scratch, &rest) == OK)
        for (int32_t i = 0; n < RECORD_ERRORS_MAX && i < b->count && kafka_record_next(&rest, &record) == OK; i++)
            if (faulty(p, t, b, &record))
                errors[n++] = (struct kafka_produce_resp_batch_index_and_error_message){.batch_index = i, .batch_index_error_message = why};
    buf_free(&scratch);
    pb->out->record_errors = errors;
    pb->out->record_errors_n = n;
    return n;
}

/* The greatest time of the records is known, the least only where they are looked at, which few topics want. */
static bool times_ok(struct produce *p, struct produce_batch *pb, const struct topic *t)
{
    const struct topic_settings *ts = &t->settings;
    const struct kafka_batch *b = &pb->append.batch;
    if (ts->log_append_time || (ts->timestamp_before_max_ms == INT64_MAX && time_ok(ts, b->max_timestamp, p->now_ms)))
        return true;
    return record_errors(p, pb, t, SLICE("a timestamp that is out of range"), record_untimely) == 0;
}

/* What UnifiedLog and LogValidator check of a batch, in their order. */
static enum kafka_error content_check(struct produce *p, struct produce_batch *pb, const struct topic *t, const char **why)
{
    const struct kafka_batch *b = &pb->append.batch;
    struct kafka_batch_fault fault;
    *why = NULL;
    if (b->base_offset != 0) {
        *why = "the base offset of a produced batch must be 0";
        return KAFKA_INVALID_RECORD;
    }
    if (b->bytes > t->settings.part.max_message_bytes) {
        *why = "the batch is larger than the topic's max.message.bytes";
        return KAFKA_MESSAGE_TOO_LARGE;
    }
    enum kafka_error e = kafka_batch_check(pb->bytes.p, b, p->r->home->b->conf.records_checked || t->settings.part.cleanup_compact, &fault);
    if (e) {
        *why = fault.why;
        if (fault.index >= 0)
            record_error(p, pb, fault.index, fault.why);
        return e;
    }
    if (fault.max_timestamp != b->max_timestamp && !t->settings.log_append_time) { /* librdkafka writes 0 above records that have none: they would count as 50 years old */
        pb->append.batch.max_timestamp = fault.max_timestamp;
        kafka_batch_max_timestamp(pb->append.bytes, fault.max_timestamp);
    }
    if (t->settings.part.cleanup_compact && fault.null_key >= 0) {
        record_errors(p, pb, t, SLICE("a record without a key"), record_keyless);
        *why = "a compacted topic takes no records without a key";
        return KAFKA_INVALID_RECORD;
    }
    if (!times_ok(p, pb, t)) {
        *why = "a timestamp is out of the range that message.timestamp.before.max.ms and after.max.ms allow";
        return KAFKA_INVALID_TIMESTAMP;
    }
    return KAFKA_NONE;
}

/* What KafkaApis checks before: the form of what is in the request. */
static enum kafka_error form_check(const struct produce *p, const struct produce_batch *pb, enum kafka_error parsed, const char **why)
{
    const struct kafka_batch *b = &pb->append.batch;
    *why = NULL;
    if (!pb->bytes.n) {
        *why = "a produce request must have one record batch for each partition";
        return KAFKA_INVALID_RECORD;
    }
    if (parsed)
        return parsed;
    if (b->bytes != pb->bytes.n) {
        *why = "a produce request may have only one record batch for each partition";
        return KAFKA_INVALID_RECORD;
    }
    if (kafka_batch_codec(b) == KAFKA_CODEC_ZSTD && p->r->version < PRODUCE_VERSION_ZSTD) {
        *why = "zstd needs Produce version 7";
        return KAFKA_UNSUPPORTED_COMPRESSION_TYPE;
    }
    return KAFKA_NONE;
}

static enum kafka_error batch_check(struct produce *p, struct produce_batch *pb, struct slice name, enum kafka_error parsed, const char **why)
{
    const struct kafka_produce_req *req = p->r->req;
    struct topic *t;
    *why = NULL;
    if (!allowed(p->r, ACL_WRITE, ACL_TOPIC, name))
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    enum kafka_error e = part_find(p->r->home, name, NULL, pb->partition, &t);
    if (e || (e = form_check(p, pb, parsed, why)))
        return e;
    if (req->acks < -1 || req->acks > 1)
        return KAFKA_INVALID_REQUIRED_ACKS;
    if (t->internal && !slice_is(p->r->client_id, ADMIN_CLIENT_ID)) {
        *why = "clients may not write into an internal topic";
        return KAFKA_INVALID_TOPIC_EXCEPTION;
    }
    if ((e = content_check(p, pb, t, why)))
        return e;
    const struct topic_settings *ts = &t->settings;
    pb->topic_id = t->id;
    pb->bytes_max = ts->part.max_message_bytes;
    pb->codec = ts->compression == COMPRESSION_PRODUCER || ts->compression == (int8_t)kafka_batch_codec(&pb->append.batch) ? COMPRESSION_PRODUCER : ts->compression;
    pb->append.log_append_time = ts->log_append_time;
    return KAFKA_NONE;
}

/* ---- the request -------------------------------------------------------------------------------------------------------------------- */

static void batch_begin(struct produce *p, struct produce_batch *pb, const struct kafka_produce_req_partition_produce_data *in,
                        struct kafka_produce_resp_partition_produce_response *out)
{
    const struct kafka_produce_req *req = p->r->req;
    kafka_produce_resp_partition_produce_response_init(out);
    out->index = in->index;
    out->record_errors_n = 0;
    *pb = (struct produce_batch){.out = out, .bytes = in->records, .partition = in->index, .codec = COMPRESSION_PRODUCER};
    list_init(&pb->append.link);
    pb->append.bytes = (char *)(uintptr_t)in->records.p; /* the frame is the request's own, and may be written into */
    pb->append.acks = (int8_t)req->acks;
    pb->append.done = batch_appended;
    p->bytes += in->records.n;
}

/* Makes the answer's shape and reads the heads of all batches. True: one is of a transaction. */
static bool produce_parse(struct produce *p, const struct kafka_produce_req *req, enum kafka_error *parsed)
{
    bool transactional = false;
    uint32_t at = 0;
    p->resp.responses = BREQ_ARRAY(p->r, struct kafka_produce_resp_topic_produce_response, req->topic_data_n);
    p->resp.responses_n = MAX(req->topic_data_n, 0);
    for (int32_t i = 0; i < req->topic_data_n; i++) {
        const struct kafka_produce_req_topic_produce_data *in = &req->topic_data[i];
        struct kafka_produce_resp_topic_produce_response *out = &p->resp.responses[i];
        kafka_produce_resp_topic_produce_response_init(out);
        out->name = in->name;
        out->topic_id = in->topic_id;
        out->partition_responses = BREQ_ARRAY(p->r, struct kafka_produce_resp_partition_produce_response, in->partition_data_n);
        out->partition_responses_n = MAX(in->partition_data_n, 0);
        for (int32_t k = 0; k < in->partition_data_n; k++, at++) {
            struct produce_batch *pb = &p->batches[at];
            batch_begin(p, pb, &in->partition_data[k], &out->partition_responses[k]);
            parsed[at] = pb->bytes.n ? kafka_batch_parse(pb->bytes, &pb->append.batch) : KAFKA_INVALID_RECORD;
            transactional = transactional || (!parsed[at] && pb->append.batch.attributes & KAFKA_BATCH_TRANSACTIONAL);
        }
    }
    return transactional;
}

static void batch_verify_prepare(struct produce *p, struct produce_batch *pb, struct slice topic)
{
    const struct kafka_produce_req *req = p->r->req;
    const struct kafka_batch *b = &pb->append.batch;
    pb->verify = BREQ_NEW(p->r, struct produce_verify);
    pb->verify->pb = pb;
    pb->verify->v = (struct txn_verify){.transactional_id = req->transactional_id, .topic = topic, .producer_id = b->producer_id,
                                        .producer_epoch = b->producer_epoch, .partition = pb->partition};
}

/* Checks all batches. True: some are to be compressed anew. */
static bool produce_check(struct produce *p, const struct kafka_produce_req *req, const enum kafka_error *parsed, enum kafka_error all)
{
    bool compress = false;
    uint32_t at = 0;
    for (int32_t i = 0; i < req->topic_data_n; i++) {
        for (int32_t k = 0; k < req->topic_data[i].partition_data_n; k++, at++) {
            struct produce_batch *pb = &p->batches[at];
            const char *why = NULL;
            enum kafka_error e = all ? all : batch_check(p, pb, req->topic_data[i].name, parsed[at], &why);
            if (e) {
                out_error(pb->out, e, why);
                continue;
            }
            compress = compress || pb->codec != COMPRESSION_PRODUCER;
            if (pb->append.batch.attributes & KAFKA_BATCH_TRANSACTIONAL)
                batch_verify_prepare(p, pb, req->topic_data[i].name);
        }
    }
    return compress;
}

void produce_serve(struct breq *r)
{
    const struct kafka_produce_req *req = r->req;
    uint64_t parts = 0;
    for (int32_t i = 0; i < req->topic_data_n; i++)
        parts += (uint64_t)MAX(req->topic_data[i].partition_data_n, 0);
    if (!request_parts_ok(r, parts))
        return;
    struct produce *p = BREQ_NEW(r, struct produce);
    p->r = r;
    p->batches_n = (uint32_t)parts;
    p->conn = r->conn;
    p->now_ms = (int64_t)(wall_ns() / 1000000);
    r->resp = &p->resp;
    timer_init(&p->timer, produce_timeout);
    list_init(&p->link);
    kafka_produce_resp_init(&p->resp);
    p->batches = BREQ_ARRAY(r, struct produce_batch, p->batches_n);
    p->groups = BREQ_ARRAY(r, struct produce_group, r->home->b->shards_n);
    enum kafka_error *parsed = BREQ_ARRAY(r, enum kafka_error, p->batches_n);
    bool transactional = produce_parse(p, req, parsed);
    bool may = !transactional || (req->transactional_id.p && allowed(r, ACL_WRITE, ACL_TXN, req->transactional_id));
    bool compress = produce_check(p, req, parsed, may ? KAFKA_NONE : KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    if (!compress_wait(p, compress))
        send_groups(p);
}

/* ---- the module --------------------------------------------------------------------------------------------------------------------- */

static void producing_init(struct shard *s)
{
    s->producing = mem_new(MEM_BROKER, sizeof *s->producing);
}

static void producing_fini(struct shard *s)
{
    table_fini(&s->producing->verifying);
    table_fini(&s->producing->lines);
    mem_free(s->producing);
}

const struct module producing_module = {.init = producing_init, .fini = producing_fini};
