/* h2.c - an HTTP/2 connection, as far as both ends are alike: an nghttp2 session over a stream of rt.
 *
 * Reading. nghttp2 takes the bytes of one read and calls back for each frame. What comes for one stream is gathered in pend:
 * a head and the DATA behind it, and the end, become one call of the owner, as with HTTP/1. pend is handed on when another
 * stream's frame comes, when the stream ends, or when the read is used up. Bodies are handed on as they lie in the read
 * buffer. While the owner of a stream does not read, what still comes (at most the stream's window) is kept in its in.
 *
 * Windows. The connection's part of what was read is given back at once, so that a stream whose owner does not read does not
 * stop the others; but only up to held_max bytes of such streams together: then the connection waits as well. So what is
 * kept is at most held_max plus the connection's window. The stream's part is given back when the owner took it and reads.
 *
 * Writing. A frame is made as soon as there is something to frame, if nghttp2 is not on the stack: then heads and bodies
 * are framed straight from the owner's memory into out, and nothing is queued. out is written once, at the end of the turn;
 * large pieces are not copied into it but written together with it at once. What can't be framed (no window, a stream of rt
 * that is backed up) is copied into the stream's out queue, and nghttp2 asks for it when it can go: provide(). Streams that
 * have much to send take turns of ROUND_BYTES.
 *
 * Callbacks. The owner is called from the reading of bytes and from the end of the turn only, never from inside a call of its
 * own; what has to be told otherwise is noted (h2_stream_note) and told at the end of the turn. A stream is freed at the end of a
 * turn; the session when the stream of rt is released. So an owner may end, cut or close anything from anywhere.
 */
#include "h2_int.h"

#define OUT_BYTES (32768u - 1024u)    /* written at a time */
#define OUT_PIECES 48
#define PIECE_MIN 4096u               /* smaller pieces are copied, larger ones written from where they lie */
#define ROUND_BYTES 16384u            /* of one stream, before the others have their turn */
#define OUT_QUEUED_MAX 65536u         /* bytes in the stream's queue beyond which no DATA is framed */
#define CHOKED_BYTES 262144u          /* and beyond which nothing is read: who reads no answers may not ask for more */
#define NOISE_BYTES_MAX (1u << 20)    /* bytes read beyond eight times those of heads and bodies */
#define NOISE_FACTOR 8
#define SECTION_FACTOR 8              /* a field section this many times too large ends the connection */
#define DISCARD_BYTES_MAX (1u << 20)  /* of a request that was answered before its end */
#define OUTBOUND_ACKS_MAX 1000         /* PING and SETTINGS to be acknowledged (CVE-2019-9512, 9515) */
#define SEND_BLOCK_MAX (2 * HEAD_OUT_BYTES)

/* Bytes to be written: bytes[from..n) behind the pieces of v, which lie in bytes or in the owner's memory. */
struct h2_out {
    uint32_t n, from;
    int v_n;
    struct iovec v[OUT_PIECES];
    char bytes[OUT_BYTES];
};

static void hand_on(struct h2_conn *c);
static void turn(struct task *t);

/* ---- blocks -------------------------------------------------------------------------------------------------------------- */

static struct h2_block *block_get(void)
{
    struct h2_block *b = h2_get(sizeof *b);
    if (b) {
        b->refs_n = 0;
        b->f.cookie = (struct buf){0};
    }
    return b;
}

static void block_put(struct h2_block *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->refs_n; i++)
        nghttp2_rcbuf_decref(b->refs[i]);
    h2_fields_fini(&b->f);
    h2_put(b);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

void h2_stream_init(struct h2_stream *st, struct h2_conn *c, int32_t id, void (*stall)(struct timer *))
{
    memset(st, 0, sizeof *st);
    st->c = c;
    st->id = id;
    list_init(&st->note_link);
    list_init(&st->yield_link);
    timer_init(&st->stall, stall);
    list_push(&c->streams, &st->link);
    c->streams_n++;
}

/* Bytes that were kept for the owner are gone: their part of the connection's window is given back. */
static void held_release(struct h2_conn *c, size_t n)
{
    c->held_bytes -= n;
    size_t owed = MIN(n, c->held_owed);
    c->held_owed -= owed;
    if (owed && !c->closed)
        (void)nghttp2_session_consume_connection(c->ng, owed);
}

static void in_clear(struct h2_stream *st)
{
    held_release(st->c, st->in.bytes);
    h2_queue_clear(&st->in);
}

static void out_clear(struct h2_stream *st)
{
    h2_queue_clear(&st->out);
    st->want_drained = false;
    list_del(&st->yield_link);
}

static void stream_dead(struct h2_stream *st)
{
    if (!st->over || !st->closed || st->dead)
        return;
    struct h2_conn *c = st->c;
    st->dead = true;
    c->streams_n--;
    if (c->last == st)
        c->last = NULL;
    timer_clear(&st->stall);
    list_del(&st->link);
    list_push(&c->dead, &st->link);
    h2_later(c);
}

void h2_stream_free(struct h2_stream *st)
{
    timer_clear(&st->stall);
    list_del(&st->link);
    list_del(&st->note_link);
    list_del(&st->yield_link);
    h2_queue_clear(&st->out);
    h2_queue_clear(&st->in);
    block_put(st->in_trailers);
    mem_free(st->trailers);
    h2_put(st);
}

void h2_stream_over(struct h2_stream *st)
{
    size_t held_back = st->unreturned + st->in.bytes;
    st->over = st->discard = true;
    st->want_drained = false;
    st->unreturned = 0;
    in_clear(st);
    if (held_back && !st->in_end && !st->closed && !st->c->closed) /* it may go on sending, into the void */
        (void)nghttp2_session_consume_stream(st->c->ng, st->id, held_back);
    stream_dead(st);
}

void h2_stream_reset(struct h2_stream *st, uint32_t code)
{
    if (st->closed || st->c->closed)
        return;
    out_clear(st);
    st->out_end = true;
    if (st->id == 0) {
        st->closed = true;
        return;
    }
    if (nghttp2_submit_rst_stream(st->c->ng, NGHTTP2_FLAG_NONE, st->id, code))
        h2_conn_terminate(st->c, NGHTTP2_INTERNAL_ERROR);
    h2_later(st->c);
}

void h2_stream_note(struct h2_stream *st, uint8_t note)
{
    st->notes |= note;
    if (list_empty(&st->note_link))
        list_push(&st->c->notes, &st->note_link);
    h2_later(st->c);
}

void h2_stream_fail(struct h2_stream *st, enum err e)
{
    if (st->over || st->notes & H2_NOTE_FAIL)
        return;
    st->err = e;
    st->discard = true;
    in_clear(st);
    h2_stream_note(st, H2_NOTE_FAIL);
}

static struct h2_stream *stream_find(struct h2_conn *c, int32_t id)
{
    if (LIKELY(c->last && c->last->id == id))
        return c->last;
    return c->last = nghttp2_session_get_stream_user_data(c->ng, id);
}

/* The peer broke the rules within one stream. */
void h2_stream_fault(struct h2_stream *st, uint32_t code)
{
    h2_stream_reset(st, code);
    if (st->known)
        h2_stream_fail(st, ERR_SYNTAX);
    else {
        h2_stream_over(st);
        st->c->role->unknown(st->c);
    }
}

/* ---- writing: bytes ---------------------------------------------------------------------------------------------------------- */

static void out_write(struct h2_conn *c)
{
    struct h2_out *o = c->out;
    if (!o)
        return;
    if (o->n > o->from)
        o->v[o->v_n++] = (struct iovec){o->bytes + o->from, o->n - o->from};
    if (o->v_n && !c->s->shut_wanted && stream_write(c->s, o->v, o->v_n) > OUT_QUEUED_MAX)
        c->blocked = true;
    if (UNLIKELY(c->blocked && !c->choked && c->s->out_bytes > CHOKED_BYTES)) {
        c->choked = true;
        stream_reading(c->s, false);
    }
    o->n = o->from = 0;
    o->v_n = 0;
}

static void sick(struct h2_conn *c)
{
    c->sick = true;
    h2_later(c);
}

static struct h2_out *out_ready(struct h2_conn *c)
{
    if (LIKELY(c->out != NULL))
        return c->out;
    c->out = h2_get(sizeof *c->out);
    if (!c->out) {
        sick(c);
        return NULL;
    }
    c->out->n = c->out->from = 0;
    c->out->v_n = 0;
    return c->out;
}

static void out_put(struct h2_conn *c, const void *p, size_t n)
{
    const char *from = p;
    struct h2_out *o = out_ready(c);
    while (n && o) {
        if (o->n == OUT_BYTES)
            out_write(c);
        size_t take = MIN(n, OUT_BYTES - o->n);
        memcpy(o->bytes + o->n, from, take);
        o->n += (uint32_t)take;
        from += take;
        n -= take;
    }
}

/* p lives until out_write(). */
static void out_lend(struct h2_conn *c, const void *p, size_t n)
{
    struct h2_out *o = out_ready(c);
    if (!o)
        return;
    if (o->v_n + 3 > OUT_PIECES)
        out_write(c);
    if (o->n > o->from)
        o->v[o->v_n++] = (struct iovec){o->bytes + o->from, o->n - o->from};
    o->from = o->n;
    o->v[o->v_n++] = (struct iovec){(void *)(uintptr_t)p, n};
}

/* ---- writing: frames ----------------------------------------------------------------------------------------------------------- */

static void resume(struct h2_stream *st)
{
    if (!st->deferred)
        return;
    st->deferred = false;
    (void)nghttp2_session_resume_data(st->c->ng, st->id); /* it may have been closed meanwhile */
}

static void trailers_submit(struct h2_stream *st, struct slice lines, bool no_copy)
{
    struct h2_nva a;
    h2_nva_init(&a, no_copy);
    h2_nva_lines(&a, lines);
    st->out_done = true;
    if (nghttp2_submit_trailer(st->c->ng, st->id, a.v, a.over ? 0 : (size_t)a.n))
        sick(st->c);
}

/* nghttp2 asks what of st's body is to be framed now. */
static ssize_t provide(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct h2_stream *st = source->ptr;
    size_t have = st->out.bytes + st->lent_bytes, n = MIN(have, length);
    if (!have)
        st->round_bytes = 0;
    if ((!have && !st->out_end) || st->closed) {
        st->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (st->round_bytes >= ROUND_BYTES || st->c->blocked) {
        list_push(&st->c->yielded, &st->yield_link);
        return NGHTTP2_ERR_DEFERRED;
    }
    st->round_bytes += (uint32_t)n;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == have && st->out_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (st->trailers_n) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            trailers_submit(st, slice_of(st->trailers, st->trailers_n), false);
        } else
            st->out_done = true;
    }
    return (ssize_t)n;
}

nghttp2_data_provider h2_provider(struct h2_stream *st) { return (nghttp2_data_provider){.source.ptr = st, .read_callback = provide}; }

static void lent_take(struct h2_stream *st, size_t n)
{
    st->lent_bytes -= n;
    while (n) {
        const struct iovec *v = st->lent;
        size_t take = MIN(n, v->iov_len - st->lent_skip);
        const char *p = (const char *)v->iov_base + st->lent_skip;
        if (take >= PIECE_MIN)
            out_lend(st->c, p, take);
        else
            out_put(st->c, p, take);
        n -= take;
        st->lent_skip += take;
        if (st->lent_skip == v->iov_len) {
            st->lent++;
            st->lent_n--;
            st->lent_skip = 0;
        }
    }
}

/* A frame of n bytes of st's body is due: its head is made. */
static int send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t n, nghttp2_data_source *source, void *user)
{
    struct h2_stream *st = source->ptr;
    struct h2_conn *c = st->c;
    out_put(c, head, 9);
    c->payload_bytes += n;
    st->active_ms = loop_now_ms(c->s->loop);
    while (n && st->out.first) {
        struct h2_chunk *ch = st->out.first;
        size_t take = MIN(n, (size_t)(ch->to - ch->from));
        out_put(c, ch->bytes + ch->from, take);
        h2_queue_take(&st->out, take);
        n -= take;
    }
    lent_take(st, n);
    if (st->want_drained && !st->out.bytes) {
        st->want_drained = false;
        h2_stream_note(st, H2_NOTE_DRAINED);
    }
    return 0;
}

/* Those that gave way have their next share. */
static bool next_round(struct h2_conn *c)
{
    if (list_empty(&c->yielded))
        return false;
    while (!list_empty(&c->yielded)) {
        struct h2_stream *st = CONTAINER_OF(c->yielded.next, struct h2_stream, yield_link);
        list_del(&st->yield_link);
        st->round_bytes = 0;
        (void)nghttp2_session_resume_data(c->ng, st->id);
    }
    return true;
}

static void pull(struct h2_conn *c)
{
    if (!h2_direct(c))
        return;
    c->pulling = true;
    while (!c->sick) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(c->ng, &p);
        if (n > 0)
            out_put(c, p, (size_t)n);
        else if (n < 0)
            sick(c);
        else if (c->blocked || !next_round(c))
            break;
    }
    c->pulling = false;
}

void h2_later(struct h2_conn *c)
{
    if (!c->closed && !c->leaving)
        loop_defer(c->s->loop, &c->turn);
}

void h2_flush(struct h2_conn *c)
{
    pull(c);
    if (c->out && c->out->v_n)
        out_write(c);
    h2_later(c);
}

void h2_conn_write(struct h2_conn *c)
{
    pull(c);
    out_write(c);
}

size_t h2_stream_send(struct h2_stream *st, struct pieces body, bool end)
{
    struct h2_conn *c = st->c;
    if (st->closed || st->out_end || c->closed)
        return 0;
    st->out_end = end;
    bool kept = true;
    bool lend = !st->out.bytes && h2_direct(c);
    if (lend) {
        st->lent = body.v;
        st->lent_n = body.n;
        st->lent_skip = 0;
        st->lent_bytes = body.bytes;
    }
    for (int i = 0; !lend && i < body.n && kept; i++) /* behind what waits, before nghttp2 asks: it is not asked for again */
        kept = h2_queue_add(&st->out, body.v[i].iov_base, body.v[i].iov_len);
    if (body.bytes || end)
        resume(st);
    h2_flush(c);
    for (; lend && st->lent_bytes && !st->closed && kept; st->lent++) {
        size_t n = st->lent->iov_len - st->lent_skip;
        kept = h2_queue_add(&st->out, (const char *)st->lent->iov_base + st->lent_skip, n);
        st->lent_skip = 0;
        st->lent_bytes -= n;
    }
    st->lent = NULL;
    st->lent_bytes = 0;
    if (!kept)
        sick(c);
    if (!st->out.bytes)
        return 0;
    st->want_drained = !end;
    return st->out.bytes;
}

void h2_stream_end(struct h2_stream *st, struct slice trailers)
{
    struct h2_conn *c = st->c;
    if (st->closed || st->out_end || c->closed)
        return;
    st->out_end = true;
    if (trailers.n && st->deferred && h2_direct(c)) /* nothing waits before them: what nghttp2 would ask for, it need not */
        trailers_submit(st, trailers, true);
    else {
        if (trailers.n)
            st->trailers = mem_strndup(MEM_CONN, trailers.p, trailers.n);
        st->trailers_n = (uint32_t)trailers.n;
        resume(st);
    }
    h2_flush(c);
}

/* ---- reading: handing on ----------------------------------------------------------------------------------------------------------- */

/* n bytes went to st's owner, or nowhere. */
static void taken(struct h2_stream *st, size_t n)
{
    struct h2_conn *c = st->c;
    c->unacked += n;
    if (st->in_end || st->closed || c->closed)
        return;
    st->unreturned += n;
    if (st->paused && !st->discard)
        return;
    (void)nghttp2_session_consume_stream(c->ng, st->id, st->unreturned);
    st->unreturned = 0;
}

static void keep(struct h2_stream *st, struct pieces body)
{
    struct h2_conn *c = st->c;
    bool kept = true;
    size_t before = st->in.bytes;
    for (int i = 0; i < body.n && kept; i++)
        kept = h2_queue_add(&st->in, body.v[i].iov_base, body.v[i].iov_len);
    size_t n = st->in.bytes - before;
    c->held_bytes += n;
    if (c->held_bytes <= c->held_max)
        c->unacked += n;
    else
        c->held_owed += n;
    if (!kept)
        sick(c);
}

/* They may be asked for during the call that tells the end, and not after it. */
static void trailers_told(struct h2_stream *st)
{
    block_put(st->in_trailers);
    st->in_trailers = NULL;
}

static void pend_clear(struct h2_conn *c)
{
    c->pend = NULL;
    c->pend_head = c->pend_end = false;
    c->pend_n = 0;
    c->pend_bytes = 0;
}

static void pend_set(struct h2_conn *c, struct h2_stream *st)
{
    if (c->pend == st)
        return;
    hand_on(c);
    c->pend = st;
}

/* What was gathered goes to the owner of its stream. */
static void hand_on(struct h2_conn *c)
{
    struct h2_stream *st = c->pend;
    if (!st)
        return;
    struct pieces body = {c->pend_v, c->pend_n, c->pend_bytes};
    bool head = c->pend_head, end = c->pend_end;
    struct h2_block *b = NULL;
    if (head) {
        b = c->head;
        c->head = NULL;
    }
    if (end && c->trail && c->trail_of == st) {
        st->in_trailers = c->trail;
        c->trail = NULL;
    }
    pend_clear(c);
    bool direct = head || !(st->paused || st->held || st->in.bytes || st->notes & H2_NOTE_RESUME);
    if (c->closed || st->discard)
        taken(st, body.bytes);
    else if (direct) {
        st->in_end_told = end;
        if (head)
            c->role->head(st, &b->f.h, body, end);
        else
            c->role->body(st, body, end);
        if (st->in_trailers && end)
            trailers_told(st);
        taken(st, body.bytes);
    } else
        keep(st, body);
    block_put(b);
}

/* The owner reads again: what was kept, and then what its window was held back for. */
static void hand_on_kept(struct h2_stream *st)
{
    struct h2_conn *c = st->c;
    while (!st->paused && !st->held && !st->discard && (st->in.bytes || (st->in_end && !st->in_end_told))) {
        struct iovec v[PIECES_MAX];
        struct pieces body = {v, 0, 0};
        struct h2_queue q = st->in;
        struct h2_chunk *ch = q.first;
        for (; ch && body.n < PIECES_MAX; ch = ch->next) {
            v[body.n++] = (struct iovec){ch->bytes + ch->from, ch->to - ch->from};
            body.bytes += ch->to - ch->from;
        }
        st->in = (struct h2_queue){0}; /* whatever the owner does, these bytes stay for the call */
        bool end = st->in_end && !ch;
        st->in_end_told = end;
        c->role->body(st, body, end);
        if (st->in_trailers && end)
            trailers_told(st);
        h2_queue_take(&q, body.bytes);
        held_release(c, body.bytes);
        if (q.bytes && !st->discard)
            st->in = q;
        else if (q.bytes) {
            held_release(c, q.bytes);
            h2_queue_clear(&q);
        }
        if (!st->in_end)
            st->unreturned += body.bytes;
        if (c->closed)
            return;
    }
    if (!st->paused && st->unreturned && !st->closed) {
        (void)nghttp2_session_consume_stream(c->ng, st->id, st->unreturned);
        st->unreturned = 0;
    }
}

void h2_stream_reading(struct h2_stream *st, bool on)
{
    if (st->paused == !on || st->over)
        return;
    st->paused = !on;
    st->active_ms = loop_now_ms(st->c->s->loop);
    if (on && (st->in.bytes || st->unreturned || (st->in_end && !st->in_end_told)))
        h2_stream_note(st, H2_NOTE_RESUME);
}

int h2_stream_trailers(const struct h2_stream *st, struct h1_field *fields, int max)
{
    if (!st->in_trailers || !st->in_end_told)
        return 0;
    const struct h1_head *h = &st->in_trailers->f.h;
    if (h->n > max)
        return -1;
    memcpy(fields, h->fields, h->n * sizeof *fields);
    return h->n;
}

/* ---- reading: nghttp2's callbacks ---------------------------------------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *st;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        hand_on(c);
        if (c->closed)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        st = c->role->begin(c, frame->hd.stream_id);
        if (st)
            (void)nghttp2_session_set_stream_user_data(ng, st->id, st);
        c->last = st;
    } else
        st = stream_find(c, frame->hd.stream_id);
    c->in_section = true;
    c->section_since_ms = loop_now_ms(c->s->loop);
    c->section_bytes = 0;
    c->reading = NULL;
    c->block = NULL;
    if (!st || st->discard)
        return 0;
    if (!st->head_done)
        hand_on(c); /* its interim answer, or another's */
    else
        pend_set(c, st);
    if (c->closed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    struct h2_block **b = st->head_done ? &c->trail : &c->head;
    block_put(*b);
    if (!(*b = block_get())) {
        sick(c);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    c->reading = st;
    c->block = *b;
    if (st->head_done)
        c->trail_of = st;
    h2_fields_begin(&c->block->f, st->head_done ? H2_TRAILERS : c->server ? H2_REQUEST : H2_RESPONSE, c->limits);
    return 0;
}

static int name_of(struct h2_conn *c, nghttp2_rcbuf *buf, struct slice name)
{
    struct h2_known *k = &c->names[((uintptr_t)buf >> 4) * 0x9e3779b97f4a7c15u >> 32 & (H2_NAMES - 1)];
    if (LIKELY(k->buf == buf))
        return k->id;
    int id = h2_name(name);
    if (name.n > H2_NAME_BYTES_MAX)
        return id;
    nghttp2_rcbuf_incref(buf);
    if (k->buf)
        nghttp2_rcbuf_decref(k->buf);
    *k = (struct h2_known){buf, id};
    return id;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    struct h2_conn *c = user;
    nghttp2_vec n = nghttp2_rcbuf_get_buf(name), v = nghttp2_rcbuf_get_buf(value);
    c->payload_bytes += n.len + v.len;
    c->section_bytes += n.len + v.len + 32;
    if (UNLIKELY(c->section_bytes > (uint64_t)SECTION_FACTOR * c->limits->head_bytes_max)) {
        h2_conn_terminate(c, NGHTTP2_ENHANCE_YOUR_CALM); /* a compression bomb, not a head */
        return 0;
    }
    struct h2_block *b = c->block;
    if (!b)
        return 0;
    uint16_t before = b->f.h.n;
    struct slice text = slice_of((const char *)n.base, n.len);
    int id = name_of(c, name, text);
    if (!h2_fields_add(&b->f, id, text, slice_of((const char *)v.base, v.len)))
        return 0;
    if (b->f.h.n == before && id < H2_NAME_PSEUDO)
        return 0; /* nothing points to it: a crumb of a cookie, which was copied, or a trailer that was left out */
    MUST(b->refs_n + 2 <= H2_REFS_MAX);
    nghttp2_rcbuf_incref(name);
    nghttp2_rcbuf_incref(value);
    b->refs[b->refs_n++] = name;
    b->refs[b->refs_n++] = value;
    return 0;
}

/* The peer will send no more on st. */
static void stream_ended(struct h2_conn *c, struct h2_stream *st)
{
    if (st->discard) {
        st->in_end = true;
        return;
    }
    if (UNLIKELY(!st->head_done) || (st->in_counted && st->in_left)) { /* before the (final) head, or short of what was said */
        h2_stream_fault(st, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    pend_set(c, st);
    st->in_end = true;
    c->pend_end = true;
    hand_on(c);
}

static void section_done(struct h2_conn *c, const nghttp2_frame *frame)
{
    struct h2_stream *st = c->reading;
    struct h2_block *b = c->block;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    c->in_section = false;
    c->reading = NULL;
    c->block = NULL;
    if (!st) {
        if (end && (st = stream_find(c, frame->hd.stream_id)))
            st->in_end = true;
        return;
    }
    st->active_ms = loop_now_ms(c->s->loop);
    if (st->head_done) {
        if (b->f.label || !end)
            h2_stream_fault(st, NGHTTP2_PROTOCOL_ERROR);
        else
            stream_ended(c, st);
        return;
    }
    if (!c->role->judge(st, b, end)) {
        st->in_end |= end;
        block_put(c->head);
        c->head = NULL;
        return;
    }
    c->pend = st;
    c->pend_head = true;
    if (end)
        stream_ended(c, st);
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *st;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        section_done(c, frame);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM && (st = stream_find(c, frame->hd.stream_id)))
            stream_ended(c, st);
        break;
    default:
        c->role->frame(c, frame);
        break;
    }
    return c->closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* The peer may go on sending, so that it reads our answer rather than a reset; for a while. */
static void thrown_away(struct h2_stream *st, size_t n)
{
    (void)nghttp2_session_consume_stream(st->c->ng, st->id, n);
    st->discarded += n;
    if (st->over && st->out_done && st->discarded > DISCARD_BYTES_MAX)
        h2_stream_reset(st, NGHTTP2_NO_ERROR);
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *st = stream_find(c, id);
    c->payload_bytes += n;
    if (!st || st->discard) {
        c->unacked += n;
        if (st)
            thrown_away(st, n);
        return 0;
    }
    if (UNLIKELY(!st->head_done)) { /* DATA before the (final) head */
        c->unacked += n;
        h2_stream_fault(st, NGHTTP2_PROTOCOL_ERROR);
        return 0;
    }
    pend_set(c, st);
    if (c->pend_n == PIECES_MAX) {
        hand_on(c);
        c->pend = st;
    }
    if (c->closed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    st->active_ms = loop_now_ms(c->s->loop);
    if (UNLIKELY(st->in_counted && n > st->in_left)) { /* more than was said (RFC 9113 section 8.1.1) */
        c->unacked += n;
        hand_on(c);
        h2_stream_fault(st, NGHTTP2_PROTOCOL_ERROR);
        return c->closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
    }
    st->in_left -= st->in_counted ? n : 0;
    c->pend_v[c->pend_n++] = (struct iovec){(void *)(uintptr_t)p, n};
    c->pend_bytes += n;
    return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *st = stream_find(c, id);
    if (!st)
        return 0;
    if (c->pend == st && !st->known) { /* reset before its owner heard of it */
        taken(st, c->pend_bytes);
        pend_clear(c);
    } else if (c->pend == st)
        hand_on(c);
    st->closed = true;
    c->last = NULL;
    if (c->reading == st) {
        c->reading = NULL;
        c->block = NULL;
    }
    if (c->trail_of == st)
        c->trail_of = NULL;
    out_clear(st);
    if (c->closed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    c->role->closing(st, code);
    stream_dead(st);
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        c->ng_error = frame->goaway.error_code;
    c->role->sent(c, frame);
    return 0;
}

static int on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *frame, int why, void *user)
{
    struct h2_conn *c = user;
    c->role->unsent(c, frame);
    return 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int why, void *user)
{
    struct h2_conn *c = user;
    c->role->invalid(c, frame, why);
    return 0;
}

/* ---- the connection ---------------------------------------------------------------------------------------------------------------------- */

static int session_new(struct h2_conn *c, bool server)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    if (nghttp2_session_callbacks_new(&cb))
        return NGHTTP2_ERR_NOMEM;
    if (nghttp2_option_new(&opt)) {
        nghttp2_session_callbacks_del(cb);
        return NGHTTP2_ERR_NOMEM;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    nghttp2_option_set_no_http_messaging(opt, 1); /* the rules of messages are wire's http2.c */
    nghttp2_option_set_no_closed_streams(opt, 1);
    nghttp2_option_set_max_outbound_ack(opt, OUTBOUND_ACKS_MAX);
    nghttp2_option_set_max_send_header_block_length(opt, SEND_BLOCK_MAX);
    nghttp2_option_set_stream_reset_rate_limit(opt, UINT64_MAX, UINT64_MAX); /* resets are counted in h2_srv.c */
    int r = server ? nghttp2_session_server_new3(&c->ng, cb, c, opt, &h2_ng_mem) : nghttp2_session_client_new3(&c->ng, cb, c, opt, &h2_ng_mem);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    return r;
}

bool h2_conn_init(struct h2_conn *c, struct stream *s, const struct h2_role *role, bool server, const struct h1_limits *limits,
                  const nghttp2_settings_entry *settings, size_t settings_n, uint32_t conn_window)
{
    memset(c, 0, sizeof *c);
    c->s = s;
    c->role = role;
    c->limits = limits;
    c->server = server;
    c->held_max = conn_window;
    list_init(&c->streams);
    list_init(&c->notes);
    list_init(&c->yielded);
    list_init(&c->dead);
    task_init(&c->turn, turn);
    h2_mem_user(1);
    if (session_new(c, server) || nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, settings, settings_n) ||
        nghttp2_session_set_local_window_size(c->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)conn_window)) {
        h2_conn_fini(c);
        return false;
    }
    h2_later(c);
    return true;
}

void h2_conn_fini(struct h2_conn *c)
{
    c->closed = true;
    list_del(&c->turn.link);
    nghttp2_session_del(c->ng);
    c->ng = NULL;
    struct list *lists[] = {&c->streams, &c->dead};
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        while (!list_empty(lists[i]))
            h2_stream_free(CONTAINER_OF(lists[i]->next, struct h2_stream, link));
    block_put(c->head);
    block_put(c->trail);
    h2_put(c->out);
    for (unsigned i = 0; i < H2_NAMES; i++)
        if (c->names[i].buf)
            nghttp2_rcbuf_decref(c->names[i].buf);
    h2_mem_user(-1);
}

void h2_conn_close(struct h2_conn *c)
{
    if (c->closed)
        return;
    if (!c->pulling)
        out_write(c);
    c->closed = true;
    list_del(&c->turn.link);
    stream_close(c->s);
}

void h2_conn_terminate(struct h2_conn *c, uint32_t code)
{
    if (c->closed || c->ng_error)
        return;
    c->ng_error = code;
    if (nghttp2_session_terminate_session(c->ng, code))
        sick(c);
    h2_later(c);
}

void h2_conn_data(struct h2_conn *c, const char *p, size_t n)
{
    c->total_bytes += n;
    c->receiving = true;
    ssize_t r = nghttp2_session_mem_recv(c->ng, (const uint8_t *)p, n);
    c->receiving = false;
    if (c->closed)
        return;
    hand_on(c);
    if (c->closed)
        return;
    if (c->unacked) {
        (void)nghttp2_session_consume_connection(c->ng, c->unacked);
        c->unacked = 0;
    }
    if (UNLIKELY(r < 0)) {
        if (r == NGHTTP2_ERR_FLOODED)
            h2_conn_terminate(c, NGHTTP2_ENHANCE_YOUR_CALM);
        c->role->broken(c, r == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_SYNTAX);
        return;
    }
    if (UNLIKELY(c->total_bytes / NOISE_FACTOR > c->payload_bytes + NOISE_BYTES_MAX))
        h2_conn_terminate(c, NGHTTP2_ENHANCE_YOUR_CALM);
    h2_later(c);
}

void h2_conn_drained(struct h2_conn *c)
{
    if (c->closed)
        return;
    c->blocked = false;
    if (c->choked) {
        c->choked = false;
        stream_reading(c->s, true);
    }
    h2_later(c);
}

static void notes_tell(struct h2_conn *c)
{
    while (!list_empty(&c->notes) && !c->closed) {
        struct h2_stream *st = CONTAINER_OF(c->notes.next, struct h2_stream, note_link);
        list_del(&st->note_link);
        uint8_t notes = st->notes;
        st->notes = 0;
        if (st->over)
            continue;
        if (notes & H2_NOTE_FAIL) {
            c->role->failed(st, st->err);
            continue;
        }
        if (notes & H2_NOTE_DRAINED)
            c->role->drained(st);
        if (notes & H2_NOTE_RESUME && !c->closed)
            hand_on_kept(st);
    }
}

/* The end of the loop's turn: what was noted is told, and what waits is written. */
static void turn(struct task *t)
{
    struct h2_conn *c = CONTAINER_OF(t, struct h2_conn, turn);
    notes_tell(c);
    if (c->closed)
        return;
    pull(c);
    notes_tell(c); /* what pull() drained; the owners may have more */
    if (c->closed)
        return;
    out_write(c);
    h2_put(c->out);
    c->out = NULL;
    while (!list_empty(&c->dead))
        h2_stream_free(CONTAINER_OF(c->dead.next, struct h2_stream, link));
    if (c->sick)
        c->role->broken(c, ERR_NOMEM);
    else if (!nghttp2_session_want_read(c->ng) && !nghttp2_session_want_write(c->ng))
        c->role->broken(c, c->ng_error ? ERR_SYNTAX : ERR_CLOSED);
    else
        c->role->turned(c);
}

struct h2_stream *h2_conn_open_stream(const struct h2_conn *c)
{
    LIST_FOREACH(l, &c->streams) {
        struct h2_stream *st = CONTAINER_OF(l, struct h2_stream, link);
        if (!st->over)
            return st;
    }
    return NULL;
}
