/* request.c - requests: their memory, their order on a connection, their answers.
 *
 *     arrived -> waiting -> begun: decoded, api->serve() ~~ visits to other shards ~~> answered -> written, when it is first -> gone
 *
 * Order. Answers leave in the order of requests. A request of a `parallel` API begins while earlier ones run; any other waits until nothing before it
 * runs, and nothing behind it begins before it is answered: so a client that sends without waiting sees its requests as if served one by one.
 *
 * Memory. A request has an arena with one chunk that is used again, so a steady path allocates nothing; a small frame lies in the arena, a larger one in a
 * buffer of 2^i bytes from the shard's store. Frames, and what they become when they are decoded, count as memory under way until the answer is written.
 *
 * Answers are written into a buffer of the shard, as many as are ready, and leave in one write. Bytes outside (a fetch's) follow one by one: small
 * ranges are read into a buffer and leave with what surrounds them, large ones are poured from the file. The next piece is not touched before the
 * peer has taken the last one, so a slow reader costs one answer's head. References to files are dropped when the answer is sent or the connection dies.
 *
 *     [head|gap|piece|gap|piece]   gap < OUTSIDE_SMALL: file_read_at();   else: stream_write_more(), then pour_file_start()
 */
#include "frame_int.h"
#include "security_int.h"

#define ARENA_CHUNK 4096
#define SMALL_FRAME 2048        /* in the arena */
#define REQ_COST 4096           /* the least that a request counts as memory */
#define FRAME_CLASS_LEAST 12    /* 4 KiB */
#define FRAMES_KEPT_BYTES (64ull << 20) /* free buffers kept by a shard; those that nobody has needed for a while go */
#define REQS_KEPT 256           /* free requests kept */
#define ANSWERS_KEPT 16
#define ANSWER_BUF_KEPT (256u << 10)
#define WRITE_BYTES 65536       /* answers are collected up to about so much for one write */
#define OUTSIDE_SMALL 16384
#define PIECES_MAX 64           /* of one write */

struct frame_kept {
    struct frame_kept *next;
};

/* Answers on their way: collected, written, poured. One per connection at most. */
struct answer {
    struct list link;           /* on the pool's free list */
    struct bconn *conn;
    struct buf b;
    struct kafka_writer w;      /* over b; gaps */
    struct buf small;           /* small ranges of files, read for one write */
    size_t at;                  /* next byte of b to be written */
    size_t gap;                 /* next gap */
    struct breq *last;          /* holds the files of the gaps */
    struct pour pour;
    uint64_t moved;             /* of all pours before the present one */
    uint64_t counted;           /* of memory under way */
    bool pouring;
    bool hang_up;               /* the connection ends after it */
};

/* ---- memory --------------------------------------------------------------------------------------------------------- */

void memory_add(struct conn_pool *p, uint64_t n)
{
    p->memory += n;
    counter_set(&p->shard->counters->memory, p->memory);
}

void memory_sub(struct conn_pool *p, uint64_t n)
{
    MUST(n <= p->memory);
    p->memory -= n;
    counter_set(&p->shard->counters->memory, p->memory);
    if (!list_empty(&p->starved))
        loop_defer(p->shard->loop, &p->wake);
}

/* A request larger than all memory is served alone. */
bool memory_for(const struct conn_pool *p, size_t n) { return p->memory == 0 || p->memory + MAX(n, (size_t)REQ_COST) <= p->shard->b->conf.memory_bytes; }

static void cost_add(struct breq *r, uint64_t n)
{
    r->cost += n;
    memory_add(r->home->pool, n);
}

static int class_of(size_t n)
{
    int i = FRAME_CLASS_LEAST;
    while ((1ull << i) < n)
        i++;
    return i;
}

bool breq_frame(struct breq *r, size_t n)
{
    struct conn_pool *p = r->home->pool;
    r->frame_n = n;
    if (n <= SMALL_FRAME) {
        r->frame = arena_alloc(&r->arena, MAX(n, (size_t)1));
    } else {
        int i = class_of(n);
        struct frame_kept *kept = p->frames[i];
        r->frame_cap = 1ull << i;
        if (kept) {
            p->frames[i] = kept->next;
            p->frames_kept_bytes -= r->frame_cap;
            p->frames_low_bytes = MIN(p->frames_low_bytes, p->frames_kept_bytes);
            r->frame = (char *)kept;
        } else {
            r->frame = mem_try(MEM_KAFKA, r->frame_cap);
        }
    }
    if (!r->frame)
        r->frame_n = r->frame_cap = 0;
    else
        cost_add(r, MAX(n, (size_t)REQ_COST));
    return r->frame != NULL;
}

static void frame_free(struct breq *r)
{
    struct conn_pool *p = r->home->pool;
    memory_sub(p, r->cost);
    if (r->frame_cap && p->frames_kept_bytes + r->frame_cap <= FRAMES_KEPT_BYTES) {
        struct frame_kept *kept = (struct frame_kept *)(void *)r->frame;
        int i = class_of(r->frame_cap);
        kept->next = p->frames[i];
        p->frames[i] = kept;
        p->frames_kept_bytes += r->frame_cap;
    } else if (r->frame_cap) {
        mem_free(r->frame);
    }
}

void frames_trim(struct conn_pool *p)
{
    for (int i = FRAME_CLASSES - 1; i >= 0; i--)
        while (p->frames[i] && 1ull << i <= p->frames_low_bytes) {
            struct frame_kept *kept = p->frames[i];
            p->frames[i] = kept->next;
            p->frames_kept_bytes -= 1ull << i;
            p->frames_low_bytes -= 1ull << i;
            mem_free(kept);
        }
    p->frames_low_bytes = p->frames_kept_bytes;
}

struct breq *breq_new(struct bconn *c)
{
    struct conn_pool *p = c->shard->pool;
    struct breq *r;
    struct arena arena;
    if (list_empty(&p->free_reqs)) {
        r = mem_new(MEM_KAFKA, sizeof *r);
        arena_init(&arena, MEM_KAFKA, ARENA_CHUNK);
    } else {
        r = CONTAINER_OF(p->free_reqs.next, struct breq, link);
        list_del(&r->link);
        p->free_reqs_n--;
        arena = r->arena;
    }
    *r = (struct breq){.conn = c, .home = c->shard, .at = c->shard, .who = c->who, .arena = arena};
    c->who->refs++;
    list_init(&r->link);
    r->caller = r->who->caller;
    r->advertised_host = r->who->advertised_host;
    r->advertised_port = r->who->advertised_port;
    p->reqs_n++;
    return r;
}

static void outsides_drop(struct breq *r)
{
    for (struct outside *o = r->outsides; o; o = o->next)
        segfile_unref(o->file);
    r->outsides = NULL;
}

void breq_free(struct breq *r)
{
    struct shard *s = r->home;
    struct conn_pool *p = s->pool;
    outsides_drop(r);
    if (r->held) {
        list_del(&r->link);
        r->sent = true;
        return;
    }
    frame_free(r);
    identity_unref(r->who);
    list_del(&r->link);
    p->reqs_n--;
    if (p->free_reqs_n < REQS_KEPT) {
        arena_reset(&r->arena);
        list_push_front(&p->free_reqs, &r->link);
        p->free_reqs_n++;
    } else {
        arena_fini(&r->arena);
        mem_free(r);
    }
    shard_stop_step(s);
}

void breq_hold(struct breq *r)
{
    MUST(!r->held && r->at == r->home);
    r->held = true;
}

void breq_release(struct breq *r)
{
    MUST(r->held);
    r->held = false;
    if (r->sent)
        breq_free(r);
}

struct outside *breq_outside(struct breq *r, struct segfile *file, uint64_t pos)
{
    struct outside *o = arena_alloc(&r->arena, sizeof *o);
    *o = (struct outside){.next = r->outsides, .file = file, .pos = pos};
    r->outsides = o;
    return o;
}

void requests_fini(struct conn_pool *p)
{
    LIST_FOREACH(it, &p->free_reqs) {
        struct breq *r = CONTAINER_OF(it, struct breq, link);
        arena_fini(&r->arena);
        mem_free(r);
    }
    LIST_FOREACH(it, &p->free_answers) {
        struct answer *a = CONTAINER_OF(it, struct answer, link);
        kafka_writer_fini(&a->w);
        buf_free(&a->b);
        buf_free(&a->small);
        mem_free(a);
    }
    for (uint32_t i = 0; i < FRAME_CLASSES; i++)
        for (struct frame_kept *k = p->frames[i], *next; k; k = next) {
            next = k->next;
            mem_free(k);
        }
}

/* ---- the baton ---------------------------------------------------------------------------------------------------------- */

static void visit_arrived(struct shard *here, struct call *c)
{
    struct breq *r = CONTAINER_OF(c, struct breq, call);
    (void)here;
    r->visit(r);
}

void breq_visit(struct breq *r, struct shard *from, struct shard *s, void (*fn)(struct breq *r))
{
    MUST(r->at == from);
    r->at = s;
    if (s == from) {
        fn(r);
        return;
    }
    r->visit = fn;
    r->call.fn = visit_arrived;
    shard_call(from, s, &r->call);
}

static void answer_home(struct breq *r)
{
    struct bconn *c = r->conn;
    MUST(!r->answered);
    r->answered = true;
    r->cancel = NULL;
    if (!c) {
        count_answer(r->home, r);
        breq_free(r);
        return;
    }
    c->running_n--;
    if (!r->api->parallel)
        c->exclusive = false;
    loop_defer(r->home->loop, &c->flush);
}

void breq_answer(struct breq *r, struct shard *from) { breq_visit(r, from, r->home, answer_home); }

bool breq_items_ok(struct breq *r, uint64_t n, uint64_t max)
{
    if (n <= max)
        return true;
    counter_inc(&r->home->counters->too_large);
    if (r->conn)
        conn_say(r->conn, "closed: a %s request for %llu at once; at most %llu are taken", r->api->wire->name, (unsigned long long)n, (unsigned long long)max);
    r->silent = r->hang_up = true;
    breq_answer(r, r->home);
    return false;
}

static void breq_cancel(struct breq *r)
{
    void (*cancel)(struct breq *) = r->cancel;
    r->cancel = NULL;
    if (cancel)
        cancel(r);
}

void requests_cancel(struct bconn *c)
{
    LIST_FOREACH(it, &c->reqs) {
        struct breq *r = CONTAINER_OF(it, struct breq, link);
        if (r->begun && !r->answered && r->at == r->home)
            breq_cancel(r);
    }
}

void requests_drop(struct bconn *c)
{
    LIST_FOREACH(it, &c->reqs) {
        struct breq *r = CONTAINER_OF(it, struct breq, link);
        list_del(&r->link);
        r->conn = NULL;
        if (!r->begun || r->answered)
            breq_free(r);
        else if (r->at == r->home)
            breq_cancel(r);
    }
    c->reqs_n = c->running_n = 0;
    c->reqs_bytes = 0;
}

/* ---- beginning -------------------------------------------------------------------------------------------------------------- */

static int16_t int16_at(const char *p) { return (int16_t)(uint16_t)((uint8_t)p[0] << 8 | (uint8_t)p[1]); }

/* Ends the connection in r's turn: what came before it is still answered. */
static void refuse(struct breq *r)
{
    r->silent = r->hang_up = true;
    r->begun = true;
    r->conn->running_n++;
    breq_answer(r, r->home);
}

static bool may_ask(const struct bconn *c, int16_t key)
{
    return c->auth == AUTH_DONE || key == api_versions_key || key == sasl_handshake_key || key == sasl_authenticate_key;
}

/* The header, and whether the API and version are served. False: said why, and counted. */
static bool header_read(struct bconn *c, struct breq *r)
{
    struct broker_counters *n = c->shard->counters;
    struct kafka_reader rd;
    struct kafka_request_header h;
    r->key = int16_at(r->frame);
    r->version = int16_at(r->frame + 2);
    r->api = api_find(r->key);
    bool ok = r->api && r->version >= r->api->served_min && r->version <= r->api->max;
    if (!ok && r->key != api_versions_key) {
        counter_inc(&n->unserved);
        conn_say(c, "closed: API %d version %d is not served here; clients that ask for ApiVersions first find what is", r->key, r->version);
        return false;
    }
    if (!ok) { /* KIP-511: the body may be of any shape; the answer is one that every client reads */
        r->correlation_id = (int32_t)((uint32_t)(uint16_t)int16_at(r->frame + 4) << 16 | (uint16_t)int16_at(r->frame + 6));
        r->error = KAFKA_UNSUPPORTED_VERSION;
        r->version = 0;
        return r->api != NULL;
    }
    kafka_reader_init(&rd, slice_of(r->frame, r->frame_n));
    if (kafka_request_header_read(&rd, &h) != OK) {
        counter_inc(&n->malformed);
        conn_say(c, "closed: malformed request header");
        return false;
    }
    r->correlation_id = h.correlation_id;
    r->client_id = h.client_id;
    r->body = slice_of(rd.p, kafka_reader_left(&rd));
    return true;
}

/* After SaslHandshake v0 frames are bare tokens (KIP-43): served as SaslAuthenticate v0, answered by a token. */
static bool token_read(struct breq *r)
{
    struct kafka_sasl_authenticate_req *req = BREQ_NEW(r, struct kafka_sasl_authenticate_req);
    r->bare = true;
    r->key = sasl_authenticate_key;
    r->api = api_find(r->key);
    kafka_sasl_authenticate_req_init(req);
    req->auth_bytes = slice_of(r->frame, r->frame_n);
    r->req = req;
    return r->api != NULL;
}

void request_arrived(struct bconn *c, struct breq *r)
{
    if (c->last) {
        breq_free(r);
        return;
    }
    r->begun_ns = loop_now_ns(c->shard->loop);
    list_push(&c->reqs, &r->link);
    c->reqs_n++;
    c->reqs_bytes += r->frame_n;
    if (c->auth == AUTH_TOKENS ? !token_read(r) : !header_read(c, r)) {
        r->api = &api_none;
        conn_last(c);
        refuse(r);
        return;
    }
    requests_begin(c);
}

static bool body_read(struct breq *r)
{
    const struct kafka_schema *schema = r->api->wire->request;
    struct kafka_reader rd;
    kafka_reader_init(&rd, r->body);
    r->req = arena_zalloc(&r->arena, schema->size);
    enum err e = kafka_schema_read(schema, &rd, r->version, &r->arena, r->req);
    cost_add(r, KAFKA_DECODE_BYTES_MAX - rd.decode_left);
    return e == OK;
}

static void request_begin(struct bconn *c, struct breq *r)
{
    r->begun = true;
    c->running_n++;
    c->exclusive = !r->api->parallel;
    if (r->error == KAFKA_NONE && !r->bare && !body_read(r)) {
        counter_inc(&c->shard->counters->malformed);
        conn_say(c, "closed: malformed %s request, version %d", r->api->wire->name, r->version);
    } else if (!may_ask(c, r->key)) {
        conn_say(c, "closed: %s before the user is known: this port wants SASL", r->api->wire->name);
    } else {
        struct shard *here = c->shard;
        bool timed = quota_time_begin(r);
        r->api->serve(r);
        if (timed)
            quota_time_end(here);
        return;
    }
    r->silent = r->hang_up = true;
    breq_answer(r, r->home);
}

void requests_begin(struct bconn *c)
{
    LIST_FOREACH(it, &c->reqs) {
        struct breq *r = CONTAINER_OF(it, struct breq, link);
        if (r->begun)
            continue;
        if (c->exclusive || c->resting || (!r->api->parallel && c->running_n)) {
            counter_inc(&c->shard->counters->waited);
            return;
        }
        request_begin(c, r);
        if (c->closed)
            return;
    }
}

/* ---- answering ------------------------------------------------------------------------------------------------------------------ */

static struct answer *answer_new(struct bconn *c)
{
    struct conn_pool *p = c->shard->pool;
    struct answer *a;
    if (list_empty(&p->free_answers)) {
        a = mem_new(MEM_KAFKA, sizeof *a);
        kafka_writer_init(&a->w, &a->b);
    } else {
        a = CONTAINER_OF(p->free_answers.next, struct answer, link);
        list_del(&a->link);
        p->free_answers_n--;
        a->w.b = &a->b;
    }
    a->conn = c;
    list_init(&a->link);
    c->sending = a;
    return a;
}

static void answer_end(struct answer *a)
{
    struct bconn *c = a->conn;
    struct conn_pool *p = c->shard->pool;
    if (a->last)
        breq_free(a->last);
    memory_sub(p, a->counted);
    c->sending = NULL;
    a->last = NULL;
    a->conn = NULL;
    a->at = a->gap = 0;
    a->counted = a->moved = 0;
    a->pouring = a->hang_up = false;
    kafka_writer_reset(&a->w);
    buf_clear(&a->b);
    if (a->b.cap > ANSWER_BUF_KEPT)
        buf_free(&a->b);
    if (a->small.cap > ANSWER_BUF_KEPT)
        buf_free(&a->small);
    if (p->free_answers_n < ANSWERS_KEPT) {
        list_push_front(&p->free_answers, &a->link);
        p->free_answers_n++;
    } else {
        kafka_writer_fini(&a->w);
        buf_free(&a->b);
        buf_free(&a->small);
        mem_free(a);
    }
}

void answer_drop(struct bconn *c)
{
    struct answer *a = c->sending;
    if (!a)
        return;
    if (a->pouring)
        pour_stop(&a->pour);
    answer_end(a);
}

uint64_t answer_moved(const struct bconn *c)
{
    const struct answer *a = c->sending;
    return a ? a->moved + (a->pouring ? a->pour.flow.moved : 0) : 0;
}

/* The frame of r's answer, behind what a has. False: r->resp cannot be said in this version, which is the handler's fault: the connection is closed. */
static bool answer_write(struct answer *a, struct breq *r)
{
    struct kafka_frame frame = kafka_frame_begin(&a->w);
    if (r->bare) {
        struct slice token = ((const struct kafka_sasl_authenticate_resp *)r->resp)->auth_bytes;
        buf_add(&a->b, token.p, token.n);
    } else {
        kafka_response_header_write(&a->w, r->key, r->version, r->correlation_id);
        kafka_schema_write(r->api->wire->response, &a->w, r->version, r->resp);
    }
    kafka_frame_end(&a->w, frame);
    if (a->w.err == OK)
        return true;
    a->b.n = frame.at;
    a->w.gaps_n = 0;
    return false;
}

/* Takes the first request of c, which is answered, into a. False: a holds enough. */
static bool answer_collect(struct bconn *c, struct answer *a)
{
    struct breq *r = CONTAINER_OF(c->reqs.next, struct breq, link);
    list_del(&r->link);
    c->reqs_n--;
    c->reqs_bytes -= r->frame_n;
    count_answer(c->shard, r);
    bool failed_token = r->bare && r->resp && ((const struct kafka_sasl_authenticate_resp *)r->resp)->error_code;
    if (!r->silent && !failed_token && !answer_write(a, r)) {
        conn_say(c, "closed: the answer to %s does not fit its format", r->api->wire->name);
        a->hang_up = true;
    }
    a->hang_up |= r->hang_up || failed_token;
    if (r->throttle_ms > 0)
        conn_rest(c, (uint32_t)r->throttle_ms);
    if (a->w.gaps_n)
        a->last = r;
    else
        breq_free(r);
    return !a->hang_up && !a->last && a->b.n < WRITE_BYTES;
}

static bool first_answered(const struct bconn *c) { return !list_empty(&c->reqs) && CONTAINER_OF(c->reqs.next, struct breq, link)->answered; }

/* Pieces of the next write: up to a gap that is poured, or as many as fit. */
struct pieces {
    struct iovec v[PIECES_MAX];
    bool outside[PIECES_MAX];   /* in a->small; iov_base is a position until all is read */
    int n;
    uint64_t bytes;
};

static void piece_add(struct pieces *p, void *base, size_t n, bool outside)
{
    p->v[p->n] = (struct iovec){base, n};
    p->outside[p->n++] = outside;
    p->bytes += n;
}

static bool small_read(struct answer *a, struct pieces *p, const struct kafka_gap *g)
{
    const struct outside *o = g->outside;
    size_t at = a->small.n;
    buf_reserve(&a->small, g->bytes);
    a->small.n += g->bytes;
    piece_add(p, (void *)at, g->bytes, true);
    return file_read_at(segfile_fd(o->file), o->pos, a->small.p + at, g->bytes) == OK;
}

static bool pieces_collect(struct answer *a, struct pieces *p)
{
    buf_clear(&a->small);
    while (p->n + 2 <= PIECES_MAX && p->bytes < 4 * WRITE_BYTES) {
        const struct kafka_gap *g = a->gap < a->w.gaps_n ? &a->w.gaps[a->gap] : NULL;
        size_t until = g ? g->at : a->b.n;
        if (until > a->at)
            piece_add(p, a->b.p + a->at, until - a->at, false);
        a->at = until;
        if (!g || g->bytes >= OUTSIDE_SMALL)
            break;
        if (!small_read(a, p, g))
            return false;
        a->gap++;
    }
    for (int i = 0; i < p->n; i++)
        if (p->outside[i])
            p->v[i].iov_base = a->small.p + (size_t)p->v[i].iov_base;
    return true;
}

static void answer_broken(struct answer *a, enum err e)
{
    struct bconn *c = a->conn;
    if (e != ERR_CLOSED && e != ERR_RESET)
        conn_say(c, "closed: records could not be sent: %s", err_text(e));
    conn_close(c);
}

static void answer_step(struct answer *a);

static void on_poured(struct pour *pour, enum err e)
{
    struct answer *a = CONTAINER_OF(pour, struct answer, pour);
    struct bconn *c = a->conn;
    a->pouring = false;
    a->moved += pour->flow.moved;
    counter_add(&c->shard->counters->bytes_out, pour->flow.moved);
    if (e != OK) {
        answer_broken(a, e);
        return;
    }
    c->active_ms = loop_now_ms(c->shard->loop);
    answer_step(a);
    if (!c->closed && !c->sending)
        loop_defer(c->shard->loop, &c->flush);
}

static void pour_gap(struct answer *a)
{
    const struct kafka_gap *g = &a->w.gaps[a->gap++];
    const struct outside *o = g->outside;
    a->pouring = true;
    if (!pour_file_start(&a->pour, segfile_fd(o->file), o->pos, &a->conn->stream, g->bytes, on_poured)) {
        a->pouring = false;
        answer_broken(a, ERR_CLOSED);
    }
}

static void answer_over(struct answer *a)
{
    struct bconn *c = a->conn;
    bool hang_up = a->hang_up;
    answer_end(a);
    if (hang_up)
        conn_last(c);
}

/* Writes until the peer takes no more, a pour runs, or all is written. */
static void answer_step(struct answer *a)
{
    struct bconn *c = a->conn;
    for (;;) {
        struct pieces p;
        p.n = 0;
        p.bytes = 0;
        if (!pieces_collect(a, &p)) {
            answer_broken(a, ERR_IO);
            return;
        }
        bool pours = a->gap < a->w.gaps_n && a->at == a->w.gaps[a->gap].at && a->w.gaps[a->gap].bytes >= OUTSIDE_SMALL;
        counter_add(&c->shard->counters->bytes_out, p.bytes);
        size_t queued = p.n == 0 ? 0 : pours ? stream_write_more(&c->stream, p.v, p.n) : stream_write(&c->stream, p.v, p.n);
        if (pours) {
            pour_gap(a);
            return;
        }
        if (a->at == a->b.n && a->gap == a->w.gaps_n) {
            answer_over(a);
            return;
        }
        if (queued)
            return;
    }
}

void answer_go_on(struct bconn *c)
{
    if (!c->sending->pouring)
        answer_step(c->sending);
}

bool answers_send(struct bconn *c)
{
    if (c->closed || c->sending || c->stream.out_bytes || !first_answered(c))
        return false;
    struct answer *a = answer_new(c);
    while (first_answered(c) && answer_collect(c, a)) {}
    a->counted = a->b.n;
    memory_add(c->shard->pool, a->counted);
    c->active_ms = loop_now_ms(c->shard->loop);
    answer_step(a);
    return true;
}
