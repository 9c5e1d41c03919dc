/* fetch.c - Fetch at home: what is wanted goes to the groups of the owning shards (fetch_group.c), what they found becomes the answer.
 *
 *     gather: request [+ session] -> parts -> groups     look -> each group replies, or parks
 *     consider: one has its share: what have the others? enough: the answer    not enough: all wait for more
 *     answer: when all have replied, and acknowledged    in the order of the request; in sessions what has something to say
 *
 * `busy` is set while calls are being sent: on the same shard they come back at once, and what follows from that waits until all are sent.
 */
#include "data.h"

struct fetch {
    struct kafka_fetch_resp resp;  /* breq.resp points here */
    struct breq *r;
    struct shard *home;
    struct fetch_session *session; /* NULL: none */
    bool full;                     /* every partition of the request is answered */
    bool by_id;
    bool wait, busy;
    bool counting;                 /* one has its share, and the others have been asked what they have */
    bool finishing;                /* it is answered when all have replied */
    bool urgent;                   /* something must be told now */
    int64_t enough, bytes;         /* wanted; in the replies */
    uint32_t bytes_max;
    uint32_t awaited;              /* replies and acknowledgements */
    uint32_t parts_n, groups_n;
    struct fetch_part **parts;     /* full: in the order of the answer */
    struct fetch_group **groups;
    struct timer timer;            /* max_wait_ms */
};

static void consider(struct fetch *f);

static struct fetch *fetch_of(struct breq *r) { return CONTAINER_OF(r->resp, struct fetch, resp); }

/* ---- the answer ------------------------------------------------------------------------------------------------------------ */

static bool same_topic(const struct fetch_part *a, const struct fetch_part *b)
{
    return a->name.n ? slice_eq(a->name, b->name) : kafka_uuid_eq(a->topic_id, b->topic_id);
}

/* The answer's partitions, from these that have something to say. */
struct fetch_out {
    struct fetch_part **parts;
    uint32_t n;
};

static struct fetch_out reported(struct fetch *f)
{
    if (f->full)
        return (struct fetch_out){f->parts, f->parts_n};
    struct fetch_out o = {0};
    for (uint32_t i = 0; i < f->groups_n; i++)
        for (struct fetch_part *fp = f->groups[i]->first; fp; fp = fp->reported)
            o.n++;
    LIST_FOREACH(it, &f->session->absent)
        o.n++;
    o.parts = BREQ_ARRAY(f->r, struct fetch_part *, o.n);
    o.n = 0;
    for (uint32_t i = 0; i < f->groups_n; i++) /* another group first each time */
        for (struct fetch_part *fp = f->groups[(i + f->session->turn) % f->groups_n]->first; fp; fp = fp->reported)
            o.parts[o.n++] = fp;
    f->session->turn++;
    LIST_FOREACH(it, &f->session->absent)
        o.parts[o.n++] = CONTAINER_OF(it, struct fetch_part, absent);
    return o;
}

/* The name by which permission is given: "" when there is no such topic any more. */
static struct slice part_topic_name(const struct fetch *f, const struct fetch_part *fp)
{
    if (fp->name.n)
        return fp->name;
    const struct topic *t = catalog_topic_by_id(f->home->catalog, &fp->topic_id);
    return t ? slice_cstr(t->name) : SLICE("");
}

static void part_refuse(struct fetch_part *fp, enum kafka_error e)
{
    fetch_part_drop(fp);
    fp->read.error = e;
    fp->diverging_epoch = -1;
    fp->read.offsets = (struct part_offsets){.log_start = -1, .stable = -1, .high = -1, .end = -1, .epoch = -1};
}

/* What the owner doesn't have may be gone from the catalog, too: that is another error, and in a session it is looked for anew. */
static void part_check_gone(struct fetch *f, struct fetch_part *fp)
{
    const struct topic *t = catalog_topic_by_id(f->home->catalog, &fp->topic_id);
    if (!fp->group || fp->read.error != KAFKA_NOT_LEADER_OR_FOLLOWER || t)
        return;
    fp->read.error = f->by_id ? KAFKA_UNKNOWN_TOPIC_ID : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
}

static void part_aborted_answer(struct fetch *f, const struct part_read *rd, struct kafka_fetch_resp_partition_data *out)
{
    if (rd->until != PART_STABLE) {
        out->aborted_transactions_n = -1;
        return;
    }
    out->aborted_transactions_n = rd->bytes ? rd->aborted_n : 0;
    out->aborted_transactions = BREQ_ARRAY(f->r, struct kafka_fetch_resp_aborted_transaction, out->aborted_transactions_n);
    for (int32_t i = 0; i < out->aborted_transactions_n; i++)
        out->aborted_transactions[i] =
            (struct kafka_fetch_resp_aborted_transaction){.producer_id = rd->aborted[i].producer_id, .first_offset = rd->aborted[i].first_offset};
}

static void part_answer(struct fetch *f, struct fetch_part *fp, struct kafka_fetch_resp_partition_data *out)
{
    struct part_read *rd = &fp->read;
    kafka_fetch_resp_partition_data_init(out);
    out->partition_index = fp->partition;
    out->error_code = (int16_t)rd->error;
    out->high_watermark = rd->error ? -1 : rd->offsets.high;
    out->last_stable_offset = rd->error ? -1 : rd->offsets.stable;
    out->log_start_offset = rd->error ? -1 : rd->offsets.log_start;
    out->diverging_epoch.epoch = fp->diverging_epoch;
    out->diverging_epoch.end_offset = fp->diverging_end;
    if (fp->diverging_epoch < 0)
        out->diverging_epoch.end_offset = -1;
    part_aborted_answer(f, rd, out);
    out->records.bytes = SLICE("");
    if (rd->bytes) {
        out->records.outside_n = rd->bytes;
        out->records.outside = breq_outside(f->r, rd->file, rd->pos);
        rd->file = NULL;
    }
    fp->sent_high = rd->error ? -1 : rd->offsets.high;
    fp->sent_start = rd->error ? -1 : rd->offsets.log_start;
}

/* Groups have read with the whole of max_bytes each: what is too much together is put back, but the first that has something (KIP-74). */
static void trim(struct fetch *f, const struct fetch_out *o)
{
    uint64_t left = f->bytes_max;
    bool first = true;
    for (uint32_t i = 0; i < o->n; i++) {
        struct part_read *rd = &o->parts[i]->read;
        if (!rd->bytes)
            continue;
        if (!first && rd->bytes > left) {
            fetch_part_drop(o->parts[i]);
            if (f->session) { /* its turn has not been: it is the first of the next look */
                o->parts[i]->first = true;
                fetch_group_change(o->parts[i]->group, o->parts[i]);
            }
            continue;
        }
        first = false;
        left -= MIN(left, rd->bytes);
        f->bytes += rd->bytes;
    }
}

static void topics_answer(struct fetch *f, const struct fetch_out *o)
{
    struct kafka_fetch_resp_partition_data *parts = BREQ_ARRAY(f->r, struct kafka_fetch_resp_partition_data, o->n);
    int32_t topics = 0;
    for (uint32_t i = 0; i < o->n; i++)
        topics += i == 0 || !same_topic(o->parts[i - 1], o->parts[i]);
    f->resp.responses = BREQ_ARRAY(f->r, struct kafka_fetch_resp_fetchable_topic_response, topics);
    f->resp.responses_n = topics;
    struct kafka_fetch_resp_fetchable_topic_response *t = f->resp.responses - 1;
    bool may = true;
    for (uint32_t i = 0; i < o->n; i++) {
        struct fetch_part *fp = o->parts[i];
        if (i == 0 || !same_topic(o->parts[i - 1], fp)) {
            t++;
            kafka_fetch_resp_fetchable_topic_response_init(t);
            t->topic = f->session && fp->name.n ? arena_slice(&f->r->arena, fp->name) : fp->name; /* a session's names may go before the answer does */
            t->topic_id = fp->topic_id;
            t->partitions = parts + i;
            t->partitions_n = 0;
            may = !fp->group || allowed(f->r, ACL_READ, ACL_TOPIC, part_topic_name(f, fp));
        }
        part_check_gone(f, fp);
        if (!may)
            part_refuse(fp, KAFKA_TOPIC_AUTHORIZATION_FAILED);
        part_answer(f, fp, &parts[i]);
        t->partitions_n++;
    }
}

/* In a session: what has gone is looked for again by the next fetch. */
static void session_tidy(struct fetch *f, const struct fetch_out *o)
{
    for (uint32_t i = 0; i < o->n; i++) {
        struct fetch_part *fp = o->parts[i];
        if (fp->group && (fp->read.error == KAFKA_UNKNOWN_TOPIC_ID || fp->read.error == KAFKA_UNKNOWN_TOPIC_OR_PARTITION))
            session_part_lost(f->home, f->session, fp);
    }
    for (uint32_t i = 0; i < f->groups_n; i++) {
        f->groups[i]->f = NULL;
        f->groups[i]->first = f->groups[i]->last = NULL;
    }
    session_rest(f->home, f->session);
}

static void answer(struct fetch *f)
{
    struct fetch_out o = reported(f);
    timer_clear(&f->timer);
    f->r->cancel = NULL;
    f->bytes = 0;
    trim(f, &o);
    topics_answer(f, &o);
    for (uint32_t i = 0; i < f->groups_n; i++) {
        arena_reset(&f->groups[i]->arena); /* aborted lists have been copied */
        if (!f->groups[i]->session)
            arena_fini(&f->groups[i]->arena);
    }
    if (f->session) {
        f->resp.session_id = f->session->closed || f->home->stopping ? 0 : f->session->id;
        session_tidy(f, &o);
    }
    f->resp.throttle_time_ms = quota_note(f->r, QUOTA_FETCH, (uint64_t)f->bytes);
    breq_answer(f->r, f->home);
}

static void answer_error(struct fetch *f, enum kafka_error e)
{
    f->resp.error_code = (int16_t)e;
    f->r->error = (int16_t)e;
    breq_answer(f->r, f->home);
}

/* ---- replies ------------------------------------------------------------------------------------------------------------------ */

/* Those that are parked reply with what there is. */
static void ask_all(struct fetch *f)
{
    f->busy = true;
    for (uint32_t i = 0; i < f->groups_n; i++) {
        struct fetch_group *g = f->groups[i];
        if (g->replied || g->asked)
            continue;
        g->asked = true;
        f->awaited++;
        g->finish.fn = fetch_group_finish;
        call_now(f->home, g->owner, &g->finish);
    }
    f->busy = false;
}

/* All have replied, and it isn't enough: they put back what they had, and each waits for its share of what is missing. When enough has come, wherever
 * that is, one of them has its share. */
static void wait_for_more(struct fetch *f)
{
    int64_t share = MAX((f->enough - f->bytes) / (int64_t)f->groups_n, 1);
    f->counting = false;
    f->bytes = 0;
    f->busy = true;
    for (uint32_t i = 0; i < f->groups_n; i++) {
        struct fetch_group *g = f->groups[i];
        g->replied = g->asked = false;
        g->enough = g->bytes + share;
        fetch_group_drop(g);
        f->awaited++;
        call_now(f->home, g->owner, &g->down);
    }
    f->busy = false;
}

static bool any_replied(const struct fetch *f)
{
    for (uint32_t i = 0; i < f->groups_n; i++)
        if (f->groups[i]->replied)
            return true;
    return false;
}

static void consider(struct fetch *f)
{
    if (f->busy)
        return;
    while (!f->finishing) {
        if (f->urgent || f->bytes >= f->enough) {
            f->finishing = true;
            ask_all(f);
        } else if (!f->counting && any_replied(f)) {
            f->counting = true; /* one has its share: what have the others? */
            ask_all(f);
        } else if (f->counting && f->awaited == 0) {
            wait_for_more(f);
        } else {
            break;
        }
    }
    if (f->finishing && f->awaited == 0)
        answer(f);
}

void fetch_replied(struct shard *here, struct call *c)
{
    (void)here;
    struct fetch_group *g = CONTAINER_OF(c, struct fetch_group, up);
    struct fetch *f = g->f;
    g->replied = true;
    f->awaited--;
    f->bytes += g->bytes;
    f->urgent = f->urgent || g->urgent;
    consider(f);
}

void fetch_acknowledged(struct shard *here, struct call *c)
{
    (void)here;
    struct fetch *f = CONTAINER_OF(c, struct fetch_group, ack)->f;
    f->awaited--;
    consider(f);
}

static void fetch_enough(struct fetch *f)
{
    f->urgent = true;
    consider(f);
}

static void fetch_timer(struct timer *t) { fetch_enough(CONTAINER_OF(t, struct fetch, timer)); }
static void fetch_cancel(struct breq *r) { fetch_enough(fetch_of(r)); }

/* ---- the request -------------------------------------------------------------------------------------------------------------- */

static uint32_t parts_of(const struct kafka_fetch_req *req)
{
    uint64_t n = 0;
    for (int32_t i = 0; i < req->topics_n; i++)
        n += (uint64_t)MAX(req->topics[i].partitions_n, 0);
    return (uint32_t)MIN(n, UINT32_MAX);
}

static void add_group(struct fetch *f, struct fetch_group *g)
{
    g->f = f;
    f->groups[f->groups_n++] = g;
}

static struct fetch_group *group_of(struct fetch *f, struct shard *owner)
{
    if (f->session) {
        struct fetch_group *g = session_group(f->home, f->session, owner);
        if (g->f != f)
            add_group(f, g);
        return g;
    }
    for (uint32_t i = 0; i < f->groups_n; i++)
        if (f->groups[i]->owner == owner)
            return f->groups[i];
    struct fetch_group *g = BREQ_NEW(f->r, struct fetch_group);
    fetch_group_init(g, f->home, owner);
    add_group(f, g);
    return g;
}

/* NONE: it is there, *t, and may be read. Who may not read a topic doesn't learn whether its name exists. */
static enum kafka_error part_may(const struct fetch *f, const struct fetch_part *fp, struct topic **t)
{
    if (!f->by_id && !allowed(f->r, ACL_READ, ACL_TOPIC, fp->name))
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    enum kafka_error e = part_find(f->home, fp->name, f->by_id ? &fp->topic_id : NULL, fp->partition, t);
    if (!e && f->by_id && !allowed(f->r, ACL_READ, ACL_TOPIC, slice_cstr((*t)->name)))
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    return e;
}

/* Finds its group for a partition that has none. One that isn't there keeps its error here. */
static void part_resolve(struct fetch *f, struct fetch_part *fp)
{
    struct topic *t = NULL;
    fp->read.until = PART_HIGH;
    part_refuse(fp, part_may(f, fp, &t));
    if (fp->read.error) {
        f->urgent = true;
        return;
    }
    fp->topic_id = t->id;
    list_del(&fp->absent);
    fp->group = group_of(f, shard_of_part(f->home->b, &t->id, fp->partition));
    fetch_group_change(fp->group, fp);
}

static struct fetch_part *part_new(struct fetch *f, struct slice name, const struct kafka_uuid *id, int32_t partition)
{
    struct fetch_part *fp = BREQ_NEW(f->r, struct fetch_part);
    fetch_part_init(fp);
    fp->topic_id = *id;
    fp->partition = partition;
    fp->name = f->by_id ? SLICE("") : name;
    return fp;
}

static void gather_part(struct fetch *f, const struct kafka_fetch_req_fetch_topic *t, const struct kafka_fetch_req_fetch_partition *want)
{
    bool made = true;
    struct fetch_part *fp = f->session ? session_part(f->home, f->session, t->topic, &t->topic_id, want->partition, &made)
                                       : part_new(f, t->topic, &t->topic_id, want->partition);
    fp->offset = want->fetch_offset;
    fp->bytes_max = want->partition_max_bytes;
    fp->epoch = want->current_leader_epoch;
    fp->last_epoch = want->last_fetched_epoch;
    if (f->full && made)
        f->parts[f->parts_n++] = fp;
    if (fp->group)
        fetch_group_change(fp->group, fp);
    else if (f->full)
        part_resolve(f, fp); /* in a session's next request with all that are absent */
}

/* A session's next request: what is no longer wanted goes, what is new comes; what was not there is looked for. */
static void gather_session(struct fetch *f, const struct kafka_fetch_req *req)
{
    for (int32_t i = 0; i < req->forgotten_topics_data_n; i++) {
        const struct kafka_fetch_req_forgotten_topic *t = &req->forgotten_topics_data[i];
        for (int32_t k = 0; k < t->partitions_n; k++)
            session_part_forget(f->home, f->session, t->topic, &t->topic_id, t->partitions[k]);
    }
    LIST_FOREACH(it, &f->session->groups) {
        struct fetch_group *g = CONTAINER_OF(it, struct fetch_group, link);
        if (g->f != f)
            add_group(f, g);
    }
}

static void gather(struct fetch *f, const struct kafka_fetch_req *req)
{
    uint32_t n = parts_of(req);
    f->groups = BREQ_ARRAY(f->r, struct fetch_group *, f->home->b->shards_n);
    if (f->full)
        f->parts = BREQ_ARRAY(f->r, struct fetch_part *, n);
    else
        gather_session(f, req);
    for (int32_t i = 0; i < req->topics_n; i++)
        for (int32_t k = 0; k < req->topics[i].partitions_n; k++)
            gather_part(f, &req->topics[i], &req->topics[i].partitions[k]);
    if (!f->full)
        LIST_FOREACH(it, &f->session->absent)
            part_resolve(f, CONTAINER_OF(it, struct fetch_part, absent));
}

static void start(struct fetch *f, const struct kafka_fetch_req *req)
{
    f->bytes_max = MIN((uint32_t)MAX(req->max_bytes, 1), FETCH_BYTES_MAX); /* 0 is too little for anything but the one batch that is always given */
    f->enough = MIN(MAX(req->min_bytes, 0), (int64_t)f->bytes_max);
    f->wait = !f->urgent && req->max_wait_ms > 0 && f->enough > 0 && f->groups_n > 0 && !f->home->stopping && f->r->conn;
    f->finishing = !f->wait; /* then every group replies by itself */
    f->busy = true;
    for (uint32_t i = 0; i < f->groups_n; i++) {
        struct fetch_group *g = f->groups[i];
        g->replied = g->asked = false;
        g->until = req->isolation_level == 1 ? PART_STABLE : PART_HIGH;
        g->bytes_max = f->bytes_max;
        g->enough = f->wait ? MAX(f->enough / (int64_t)f->groups_n, 1) : 0;
        g->down.fn = fetch_group_look;
        f->awaited++;
        call_now(f->home, g->owner, &g->down);
    }
    f->busy = false;
    counter_inc(&f->home->sessions->polls);
    if (f->wait) {
        f->r->cancel = fetch_cancel;
        timer_set(f->home->loop, &f->timer, (uint64_t)MIN(req->max_wait_ms, FETCH_WAIT_MAX_MS));
    }
    consider(f);
}

void fetch_serve(struct breq *r)
{
    const struct kafka_fetch_req *req = r->req;
    struct fetch *f = BREQ_NEW(r, struct fetch);
    uint32_t parts = parts_of(req);
    f->r = r;
    f->home = r->home;
    f->by_id = r->version >= 13;
    f->full = req->session_epoch <= 0;
    timer_init(&f->timer, fetch_timer);
    kafka_fetch_resp_init(&f->resp);
    r->resp = &f->resp;
    if (parts > REQUEST_PARTS_MAX) {
        answer_error(f, KAFKA_INVALID_REQUEST);
        return;
    }
    enum kafka_error e = session_find(r->home, req, r->version, parts, &f->session);
    if (e) {
        answer_error(f, e);
        return;
    }
    if (req->session_epoch == 0 && r->version >= 7 && parts && session_fits(req))
        f->session = session_new(r->home, f->by_id, parts);
    gather(f, req);
    start(f, req);
}
