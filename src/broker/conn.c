/* conn.c - connections: bytes into frames, limits, idleness, the end. What is in a frame, and answers: request.c.
 *
 *     frame = size:int32, body        one copy, from the loop's buffer into the request's own; large ones are read straight into it
 *
 *     reading --limit--> paused --answers have left, memory is back, the throttle is over--> reading
 *        | eof, or told to end: last                                     (what was read behind the limit is held: one read at most)
 *        '--> last --all answers sent--> shut, lingering until the peer has closed too --> closed --> released
 *
 * A connection at rest has no buffer: a struct bconn and its stream. It stops reading when it has CONN_REQS_MAX requests or CONN_REQS_BYTES_MAX bytes under
 * way, when its shard's memory for requests is used up (then it stands in line, oldest first), and while it is throttled.
 * Whoever holds memory in a frame that does not come to its end while others starve is closed after STARVING_FRAME_MS.
 */
#include "frame_int.h"

#include <stdio.h>

#define SIZE_BYTES 4
#define FRAME_LEAST 8               /* key, version, correlation id */
#define SASL_BYTES_MAX 524288u      /* of a frame before the user is known (sasl.server.max.receive.size) */
#define SWEEP_MS 5000
#define HANDSHAKE_MS 30000          /* so long may TLS take */
#define STARVING_FRAME_MS 30000
#define LINGER_MS 1000              /* so long a connection that was ended waits for the peer's end, so that the last answer arrives */
#define SAID_PER_SECOND 10
#define INTO_LEAST 16384            /* so much must be missing of a frame that it is read in place */

static struct bconn *conn_of(struct stream *s) { return CONTAINER_OF(s, struct bconn, stream); }
static struct conn_pool *pool_of(const struct bconn *c) { return c->shard->pool; }

void conn_say(struct bconn *c, const char *fmt, ...)
{
    struct conn_pool *p = pool_of(c);
    uint64_t s = loop_now_ms(c->shard->loop) / 1000;
    if (s != p->said_s)
        p->said_n = 0;
    p->said_s = s;
    if (p->said_n++ >= SAID_PER_SECOND) {
        counter_inc(&c->shard->counters->unspoken);
        return;
    }
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    text_clean(b.p);
    log_warn("broker", "%s (" SLICE_FMT "): %s", c->host, SLICE_ARG(c->who->caller.principal), b.p);
    buf_free(&b);
}

/* ---- identities ---------------------------------------------------------------------------------------------------- */

static struct slice put(char **at, struct slice s)
{
    char *p = *at;
    if (s.n)
        memcpy(p, s.p, s.n);
    *at += s.n;
    return slice_of(p, s.n);
}

static struct identity *identity_new(const struct broker_caller *caller, struct slice host, struct slice advertised_host, uint16_t advertised_port)
{
    size_t n = caller->principal.n + host.n + advertised_host.n;
    struct identity *who = mem_new(MEM_BROKER, sizeof *who + n + 1);
    char *at = (char *)(who + 1);
    who->refs = 1;
    who->caller.super = caller->super;
    who->caller.principal = put(&at, caller->principal);
    who->caller.host = put(&at, host);
    who->advertised_host = put(&at, advertised_host);
    who->advertised_port = advertised_port;
    return who;
}

void conn_authenticated(struct bconn *c, struct slice principal)
{
    struct identity *old = c->who;
    struct broker_caller caller = {.principal = principal, .super = old->caller.super};
    c->who = identity_new(&caller, old->caller.host, old->advertised_host, old->advertised_port);
    identity_unref(old);
    c->auth = AUTH_DONE;
}

void identity_unref(struct identity *who)
{
    if (--who->refs == 0)
        mem_free(who);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static bool must_rest(const struct bconn *c)
{
    return c->reqs_n >= CONN_REQS_MAX || c->reqs_bytes >= CONN_REQS_BYTES_MAX || c->resting || c->last;
}

static void starve(struct bconn *c)
{
    if (!list_empty(&c->starved))
        return;
    counter_inc(&c->shard->counters->starved);
    list_push(&pool_of(c)->starved, &c->starved);
}

static uint32_t size_of(const struct bconn *c)
{
    const uint8_t *b = c->size_bytes;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static bool size_ok(struct bconn *c, uint32_t n)
{
    const struct broker_conf *conf = &c->shard->b->conf;
    if (n < FRAME_LEAST && c->auth != AUTH_TOKENS) {
        counter_inc(&c->shard->counters->malformed);
        conn_say(c, "closed: a request of %u bytes is none; is this a Kafka client?", n);
        return false;
    }
    if (n <= conf->request_bytes_max && (c->auth == AUTH_DONE || n <= SASL_BYTES_MAX))
        return true;
    counter_inc(&c->shard->counters->too_large);
    if (c->auth != AUTH_DONE)
        conn_say(c, "closed: a request of %u bytes before the user is known; %u are taken then", n, SASL_BYTES_MAX);
    else
        conn_say(c, "closed: a request of %u bytes; at most %u are taken (socket.request.max.bytes). If this is a Kafka client: a smaller max.request.size; if not: this is a Kafka port, without TLS",
                 n, conf->request_bytes_max);
    return false;
}

/* The size in front of a frame is known. False: not now, it waits for memory; or the connection is closed. */
static bool frame_begin(struct bconn *c)
{
    uint32_t n = size_of(c);
    if (!size_ok(c, n)) {
        conn_close(c);
        return false;
    }
    if (!memory_for(pool_of(c), n) || (!list_empty(&pool_of(c)->starved) && pool_of(c)->starved.next != &c->starved)) {
        starve(c);
        return false;
    }
    list_del(&c->starved);
    c->filling = breq_new(c);
    if (!breq_frame(c->filling, n)) {
        conn_say(c, "closed: no memory for a request of %u bytes", n);
        conn_close(c);
        return false;
    }
    c->filled = 0;
    c->filling_ms = loop_now_ms(c->shard->loop);
    return true;
}

static void frame_whole(struct bconn *c)
{
    struct breq *r = c->filling;
    c->filling = NULL;
    c->filled = 0;
    request_arrived(c, r);
}

/* Takes bytes until they are used up, or the connection has to rest; how many were taken. */
static size_t conn_feed(struct bconn *c, const char *p, size_t n)
{
    size_t used = 0;
    while (!c->closed) {
        if (!c->filling) {
            if (must_rest(c))
                break;
            size_t size_n = MIN(SIZE_BYTES - c->filled, n - used);
            memcpy(c->size_bytes + c->filled, p + used, size_n);
            c->filled += size_n;
            used += size_n;
            if (c->filled < SIZE_BYTES || !frame_begin(c))
                break;
        }
        size_t some = MIN(c->filling->frame_n - c->filled, n - used);
        memcpy(c->filling->frame + c->filled, p + used, some);
        c->filled += some;
        used += some;
        if (c->filled < c->filling->frame_n)
            break;
        frame_whole(c);
    }
    return used;
}

static void conn_pause(struct bconn *c)
{
    if (c->paused)
        return;
    c->paused = true;
    stream_reading(&c->stream, false);
}

static void hold(struct bconn *c, const char *p, size_t n)
{
    c->held = mem_try(MEM_KAFKA, n);
    if (!c->held) {
        conn_say(c, "closed: no memory for what it sent");
        conn_close(c);
        return;
    }
    memcpy(c->held, p, n);
    c->held_n = n;
    c->held_at = 0;
}

static void on_filled(struct stream *s);

/* The rest of a large frame needs no copy. */
static void read_in_place(struct bconn *c)
{
    if (!c->closed && c->filling && c->filling->frame_n - c->filled >= INTO_LEAST && stream_into_left(&c->stream) == 0)
        stream_into(&c->stream, c->filling->frame + c->filled, c->filling->frame_n - c->filled, on_filled);
}

static bool waits(const struct bconn *c) { return !c->filling && (must_rest(c) || !list_empty(&c->starved)); }

static void on_data(struct stream *s, char *p, size_t n)
{
    struct bconn *c = conn_of(s);
    counter_add(&c->shard->counters->bytes_in, n);
    c->active_ms = loop_now_ms(c->shard->loop);
    if (c->last)
        return; /* nobody wants it any more */
    size_t used = conn_feed(c, p, n);
    if (c->closed)
        return;
    if (used < n && !c->last)
        hold(c, p + used, n - used);
    if (!c->closed && waits(c) && !c->last)
        conn_pause(c);
    read_in_place(c);
}

static void on_filled(struct stream *s)
{
    struct bconn *c = conn_of(s);
    counter_add(&c->shard->counters->bytes_in, c->filling->frame_n - c->filled);
    c->active_ms = loop_now_ms(c->shard->loop);
    c->filled = c->filling->frame_n;
    frame_whole(c);
    if (!c->closed && waits(c) && !c->last)
        conn_pause(c);
}

/* What made it pause may be over: first what is held, then the socket. */
static void conn_read_on(struct bconn *c)
{
    if (!c->paused || c->closed || c->last || must_rest(c))
        return;
    if (c->held || c->filled == SIZE_BYTES) {
        c->held_at += conn_feed(c, c->held ? c->held + c->held_at : "", c->held ? c->held_n - c->held_at : 0);
        if (c->closed)
            return;
    }
    if (c->held && c->held_at == c->held_n) {
        mem_free(c->held);
        c->held = NULL;
    }
    if (c->held || waits(c))
        return;
    c->paused = false;
    stream_reading(&c->stream, true);
    read_in_place(c);
}

static void on_wake(struct task *t)
{
    struct conn_pool *p = CONTAINER_OF(t, struct conn_pool, wake);
    while (!list_empty(&p->starved)) {
        struct bconn *c = CONTAINER_OF(p->starved.next, struct bconn, starved);
        if (!memory_for(p, size_of(c)))
            return;
        conn_read_on(c);
        if (!list_empty(&p->starved) && p->starved.next == &c->starved) {
            if (c->closed || must_rest(c))
                list_del(&c->starved); /* it comes again when it may read */
            else
                return;
        }
    }
}

static void on_rest_over(struct timer *t)
{
    struct bconn *c = CONTAINER_OF(t, struct bconn, rest);
    if (c->shut) {
        conn_close(c);
        return;
    }
    c->resting = false;
    conn_go(c);
}

void conn_rest(struct bconn *c, uint32_t ms)
{
    if (c->shut || c->closed)
        return;
    c->resting = true;
    timer_set(c->shard->loop, &c->rest, ms);
    conn_pause(c);
}

/* ---- going on, and the end ---------------------------------------------------------------------------------------------------- */

static bool all_sent(const struct bconn *c) { return list_empty(&c->reqs) && !c->sending && c->stream.out_bytes == 0; }

static void conn_end(struct bconn *c)
{
    if (c->eof) {
        conn_close(c);
        return;
    }
    if (c->shut)
        return;
    c->shut = true;
    stream_shut(&c->stream);
    if (c->paused)
        stream_reading(&c->stream, true); /* what comes is dropped; the peer's end is waited for */
    timer_set(c->shard->loop, &c->rest, LINGER_MS);
}

void conn_go(struct bconn *c)
{
    while (!c->closed) {
        bool sent = answers_send(c);
        if (!c->closed)
            requests_begin(c);
        if (!sent)
            break;
    }
    if (c->closed)
        return;
    conn_read_on(c);
    if (!c->closed && (c->last || (c->eof && !c->held)) && all_sent(c))
        conn_end(c);
}

static void on_flush(struct task *t)
{
    struct bconn *c = CONTAINER_OF(t, struct bconn, flush);
    conn_go(c);
}

void conn_last(struct bconn *c)
{
    if (c->closed || c->last)
        return;
    c->last = true;
    list_del(&c->starved);
    loop_defer(c->shard->loop, &c->flush);
}

static void on_connected(struct stream *s) { (void)s; }

static void on_eof(struct stream *s)
{
    struct bconn *c = conn_of(s);
    c->eof = true;
    if (all_sent(c) && !c->held)
        conn_close(c);
}

static void on_drained(struct stream *s)
{
    struct bconn *c = conn_of(s);
    c->active_ms = loop_now_ms(c->shard->loop);
    if (c->sending)
        answer_go_on(c);
    if (!c->closed)
        conn_go(c);
}

static void on_failed(struct stream *s, enum err e)
{
    struct bconn *c = conn_of(s);
    if (e == ERR_TLS)
        conn_say(c, "closed: TLS: %s", stream_tls_error(s));
    conn_close(c);
}

static void on_released(struct stream *s)
{
    struct bconn *c = conn_of(s);
    struct shard *shard = c->shard;
    list_del(&c->link);
    shard->pool->conns_n--;
    counter_set(&shard->counters->connections, shard->pool->conns_n);
    identity_unref(c->who);
    mem_free(c);
    shard_stop_step(shard);
}

static const struct stream_ops conn_ops = {.connected = on_connected, .data = on_data, .eof = on_eof, .drained = on_drained, .failed = on_failed, .released = on_released};

void conn_close(struct bconn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    timer_clear(&c->rest);
    list_del(&c->flush.link);
    if (!list_empty(&c->starved))
        loop_defer(c->shard->loop, &pool_of(c)->wake);
    list_del(&c->starved);
    answer_drop(c);
    stream_close(&c->stream);
    if (c->filling)
        breq_free(c->filling);
    c->filling = NULL;
    mem_free(c->held);
    c->held = NULL;
    requests_drop(c);
    if (c->sasl_free)
        c->sasl_free(c->sasl);
    c->sasl = NULL;
    c->sasl_free = NULL;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------------ */

static bool made_progress(struct bconn *c)
{
    uint64_t sent = c->stream.sent + answer_moved(c);
    bool moved = sent != c->sent_seen;
    c->sent_seen = sent;
    return moved;
}

static void conn_look(struct bconn *c, uint64_t now)
{
    struct broker_counters *n = c->shard->counters;
    const struct broker_conf *conf = &c->shard->b->conf;
    if (made_progress(c))
        c->active_ms = MAX(c->active_ms, now);
    uint64_t still_ms = now - c->active_ms;
    if (c->stream.tls_handshake && still_ms >= HANDSHAKE_MS) {
        conn_say(c, "closed: no TLS handshake within %d s", HANDSHAKE_MS / 1000);
    } else if (c->filling && !list_empty(&pool_of(c)->starved) && now - c->filling_ms >= STARVING_FRAME_MS) {
        counter_inc(&n->closed_slow);
        conn_say(c, "closed: a request is not complete after %d s, and others wait for its memory", STARVING_FRAME_MS / 1000);
    } else if (still_ms >= conf->idle_ms && c->running_n == 0 && !c->resting) {
        counter_inc(c->sending || c->stream.out_bytes ? &n->closed_slow : &n->closed_idle);
    } else {
        return;
    }
    conn_close(c);
}

static void on_sweep(struct timer *t)
{
    struct conn_pool *p = CONTAINER_OF(t, struct conn_pool, sweep);
    uint64_t now = loop_now_ms(p->shard->loop);
    LIST_FOREACH(it, &p->shard->conns) {
        struct bconn *c = CONTAINER_OF(it, struct bconn, link);
        if (!c->closed)
            conn_look(c, now);
    }
    frames_trim(p);
    if (p->conns_n || p->frames_kept_bytes)
        timer_set(p->shard->loop, t, MIN((uint64_t)SWEEP_MS, p->shard->b->conf.idle_ms / 4 + 1));
}

static void conn_new(struct shard *s, int fd, const struct broker_door *door)
{
    struct conn_pool *p = s->pool;
    struct bconn *c = mem_try(MEM_BROKER, sizeof *c);
    struct addr peer;
    if (!c) {
        socket_close(fd);
        return;
    }
    c->shard = s;
    list_init(&c->reqs);
    list_init(&c->starved);
    task_init(&c->flush, on_flush);
    timer_init(&c->rest, on_rest_over);
    c->auth = door->sasl ? AUTH_WANTED : AUTH_DONE;
    c->active_ms = loop_now_ms(s->loop);
    list_push(&s->conns, &c->link);
    p->conns_n++;
    counter_set(&s->counters->connections, p->conns_n);
    stream_adopt(&c->stream, s->loop, &conn_ops, fd);
    snprintf(c->host, sizeof c->host, "?");
    if (stream_peer_addr(&c->stream, &peer) == OK)
        addr_format_ip(&peer, c->host);
    c->who = identity_new(&door->caller, door->caller.host.n ? door->caller.host : slice_cstr(c->host), door->advertised_host, door->advertised_port);
    if (door->tls)
        stream_tls_accept(&c->stream, door->tls, SLICE(""));
    if (!timer_is_set(&p->sweep))
        timer_set(s->loop, &p->sweep, MIN((uint64_t)SWEEP_MS, s->b->conf.idle_ms / 4 + 1));
}

void broker_accept(struct shard *s, int fd, const struct broker_door *door)
{
    if (!s->stopping && s->pool->conns_n < s->b->conf.connections_max) {
        counter_inc(&s->counters->accepted);
        conn_new(s, fd, door);
        return;
    }
    counter_inc(&s->counters->refused);
    socket_close(fd);
}

void conns_init(struct shard *s)
{
    struct conn_pool *p = mem_new(MEM_BROKER, sizeof *p);
    s->pool = p;
    p->shard = s;
    list_init(&s->conns);
    list_init(&p->free_reqs);
    list_init(&p->free_answers);
    list_init(&p->starved);
    task_init(&p->wake, on_wake);
    timer_init(&p->sweep, on_sweep);
}

/* What has arrived whole is answered; connections on which nothing is under way end at once. */
void conns_stop(struct shard *s)
{
    LIST_FOREACH(it, &s->conns) {
        struct bconn *c = CONTAINER_OF(it, struct bconn, link);
        if (c->closed)
            continue;
        if (all_sent(c)) {
            conn_close(c);
            continue;
        }
        conn_last(c);
        requests_cancel(c);
    }
}

bool conns_at_rest(const struct shard *s) { return s->pool->conns_n == 0 && s->pool->reqs_n == 0; }

void conns_fini(struct shard *s)
{
    timer_clear(&s->pool->sweep);
    list_del(&s->pool->wake.link);
    requests_fini(s->pool);
    mem_free(s->pool);
    s->pool = NULL;
}
