/* relay.c - bytes from one stream to another without their owner: relays (both ways, until both end), pours (a known number).
 *
 * Both are made of flows. A flow is one direction, in one of two states:
 *
 *     taking    nothing waits for to; from is read when it is readable
 *     waiting   bytes wait: in to's queue (copied) or in a pipe (spliced). Reading of from is off, so its sender is held by
 *               the kernel. When to has taken all of it, the flow takes again, or comes to its end.
 *
 * Copying is recv() into the loop's buffer and one send(): the least there is for small messages. Splicing costs two
 * calls per piece, and one more to find the source empty, but touches no byte; it wins by half where many bytes come
 * at once. So a flow begins with copying, splices after a read that filled the buffer or FLOW_STREAK large ones, and
 * copies again after FLOW_STREAK small pieces. Without a pipe, or where the kernel can't, it copies.
 *
 * What a splice leaves behind in the source is not known: the pipe may have been out of pieces. So the source stays readable
 * until a splice finds nothing (EAGAIN). It goes through the ready list, behind the other streams of the turn.
 *
 * Ends and failures come in through stream.c, which asks the flow of a stream before it calls the stream's owner. They find
 * the flow taking, except a failure, which is told also when nobody reads. Then a relay first writes what waits to the
 * other side; a pour, whose message is incomplete anyhow, ends at once.
 *
 * A pour may also go into an encrypted stream for which the kernel makes the records (tls_kernel.c); the body decides whether that is worth a change.
 *
 * Not done here: other encrypted streams (their bytes have to pass through user space anyhow) and closing streams.
 */
#include "rt_int.h"

#include <errno.h>

#define FLOW_LARGE_BYTES 32768      /* a read that speaks for splicing */
#define FLOW_SMALL_BYTES 8192       /* a piece that speaks for copying */
#define FLOW_STREAK 4               /* how many of them decide */
#define POUR_SPLICE_BYTES 65536     /* pours of this many splice from the beginning */
#define FILE_ROUND_BYTES (1 << 20)  /* from a file to one stream, before others have their turn */

/* ---- flows ---- */

static bool stream_is_plain(const struct stream *s)
{
    return !s->tls;
}

/* Whether n bytes may go to the socket as they are. */
static bool stream_takes_plain(struct stream *s, uint64_t n)
{
    return !s->tls || tls_direct(s, n);
}

static void flow_attach(struct flow *f, const struct flow_ops *ops, struct stream *from, struct stream *to, uint64_t n)
{
    MUST(!to->connecting && !to->shut_wanted && !to->out_flow);
    *f = (struct flow){.ops = ops, .from = from, .to = to, .left = n, .active_ns = to->loop->now_ns};
    to->out_flow = f;
    if (!from) return;
    MUST(from->loop == to->loop && !from->connecting && !from->in_flow);
    from->in_flow = f;
    stream_reading(from, to->out_bytes == 0);
}

static void flow_pipe_put(struct flow *f)
{
    if (f->pipe) pipe_put(f->to->loop, f->pipe, f->in_pipe == 0);
    f->pipe = NULL;
    f->in_pipe = 0;
}

static void flow_detach(struct flow *f)
{
    flow_pipe_put(f);
    if (f->from) f->from->in_flow = NULL;
    f->to->out_flow = NULL;
    f->to = NULL;
}

static bool flow_waits(const struct flow *f)
{
    return f->in_pipe || f->to->out_bytes;
}

static void flow_took(struct flow *f, size_t n)
{
    f->left -= f->left == UINT64_MAX ? 0 : n;
    f->moved += n;
    f->active_ns = f->to->loop->now_ns;
}

/* Bytes were taken and written as far as possible. */
static void flow_next(struct flow *f)
{
    if (flow_waits(f) || f->to->fail) stream_reading(f->from, false);
    else if (f->left == 0) f->ops->filled(f);
    else if (f->from->readable) stream_queue_ready(f->from);
}

static void flow_copy(struct flow *f)
{
    struct stream *s = f->from;
    char *p = s->loop->read_buf + STREAM_HEADROOM;
    size_t want = MIN(f->left, STREAM_READ_BYTES);
    ssize_t r = sys_recv(s->fd, p, want);
    if (r <= 0) {
        stream_read_end(s, r);
        return;
    }
    size_t n = (size_t)r;
    s->readable = n == want || s->hup || s->fail;
    flow_took(f, n);
    f->streak = n < FLOW_LARGE_BYTES ? 0 : (uint8_t)(f->streak + 1);
    if (!f->unspliceable && (n == STREAM_READ_BYTES || f->streak == FLOW_STREAK)) {
        f->splicing = true;
        f->streak = 0;
    }
    stream_write_slice(f->to, slice_of(p, n));
    flow_next(f);
}

/* From the pipe into the stream; an error breaks the stream and leaves the bytes where they are. */
static void flow_push(struct flow *f)
{
    ssize_t r = sys_splice_out(f->pipe->r, f->to->fd, f->in_pipe);
    if (r == -EAGAIN) return;
    if (r <= 0) {
        stream_break(f->to, r < 0 ? err_from_errno((int)-r) : ERR_IO);
        return;
    }
    f->in_pipe -= (size_t)r;
    f->to->sent += (uint64_t)r;
    f->active_ns = f->to->loop->now_ns;
    if (f->in_pipe == 0) flow_pipe_put(f);
}

/* False: nothing was taken, for it can't be done this way. */
static bool flow_splice(struct flow *f)
{
    struct stream *s = f->from;
    f->pipe = pipe_get(s->loop);
    if (!f->pipe) return false;
    ssize_t r = sys_splice_in(s->fd, f->pipe->w, MIN(f->left, f->pipe->bytes));
    if (r == -EINVAL) {
        flow_pipe_put(f);
        f->unspliceable = true;
        f->splicing = false;
        return false;
    }
    if (r <= 0) {
        flow_pipe_put(f);
        stream_read_end(s, r);
        return true;
    }
    f->in_pipe = (size_t)r;
    f->spliced += f->in_pipe;
    flow_took(f, f->in_pipe);
    f->streak = f->in_pipe < FLOW_SMALL_BYTES ? (uint8_t)(f->streak + 1) : 0;
    if (f->streak == FLOW_STREAK) {
        f->splicing = false;
        f->streak = 0;
    }
    /* A pour that is over asks once, so that its owner knows a stream at rest from one that was told something more. */
    s->readable = f->left || s->hup || s->fail || sys_recv_peek(s->fd) != -EAGAIN;
    flow_push(f);
    flow_next(f);
    return true;
}

void flow_read(struct flow *f)
{
    if (!f->splicing || !flow_splice(f)) flow_copy(f);
}

bool flow_ended(struct flow *f)
{
    f->ended = true;
    return f->ops->ended(f);
}

void flow_room(struct flow *f)
{
    if (!f->in_pipe && f->from && f->from->reading) return; /* nothing has waited */
    if (f->in_pipe) flow_push(f);
    if (flow_waits(f) || f->to->fail) return;
    f->active_ns = f->to->loop->now_ns;
    if (f->left == 0) f->ops->filled(f);
    else f->ops->room(f);
}

bool flow_failed(struct stream *s, enum err e)
{
    struct flow *f = s->in_flow ? s->in_flow : s->out_flow;
    bool told = f->ops->failed(f, s, e);
    if (told || s->closed) return true;
    f = s->in_flow ? s->in_flow : s->out_flow; /* a stream may be in two pours: the second now, for the first has ended */
    return f && (f->ops->failed(f, s, e) || s->closed);
}

void flow_cut(struct stream *s)
{
    if (s->in_flow) s->in_flow->ops->cut(s->in_flow);
    if (s->out_flow) s->out_flow->ops->cut(s->out_flow);
}

/* ---- relays ---- */

static struct relay *relay_of(struct flow *f)
{
    return f->is_back ? CONTAINER_OF(f, struct relay, back) : CONTAINER_OF(f, struct relay, there);
}

static void relay_end(struct relay *r, enum err e)
{
    relay_stop(r);
    r->done(r, e); /* r may be gone now */
}

/* All that f took is written and no more will come. The last end needs no shutdown(): the owner closes the stream. */
static void relay_flow_done(struct flow *f)
{
    struct relay *r = relay_of(f);
    f->done = true;
    if (r->why) {
        relay_end(r, r->why);
    } else if (r->there.done && r->back.done) {
        relay_end(r, OK);
    } else {
        stream_shut(f->to); /* an error is told by failed() */
    }
}

static bool relay_flow_ended(struct flow *f)
{
    if (!flow_waits(f)) relay_flow_done(f);
    return true;
}

static void relay_room(struct flow *f)
{
    if (f->done) return;
    if (f->ended) relay_flow_done(f);
    else if (!f->from->reading && !f->from->failed_told) stream_reading(f->from, true);
}

/* s is dead. What was taken from it goes on its way; what was meant for it is lost. */
static bool relay_failed(struct flow *f, struct stream *s, enum err e)
{
    struct relay *r = relay_of(f);
    struct flow *from_s = s->in_flow, *to_s = s->out_flow;
    if (r->why == OK) r->why = e;
    to_s->ended = to_s->done = true;
    flow_pipe_put(to_s);
    stream_reading(to_s->from, false);
    from_s->ended = true;
    if (from_s->done || from_s->to->failed_told || !flow_waits(from_s)) relay_end(r, r->why);
    return true;
}

static void relay_filled(struct flow *f)
{
}

static void relay_cut(struct flow *f)
{
    relay_stop(relay_of(f));
}

static const struct flow_ops relay_ops = {relay_filled, relay_flow_ended, relay_failed, relay_room, relay_cut};

static size_t relay_waiting(const struct relay *r)
{
    return r->there.in_pipe + r->there.to->out_bytes + r->back.in_pipe + r->back.to->out_bytes;
}

/* Lazily: moving bytes only notes the time, and this looks at it when the time might be up. */
static void relay_idle(struct timer *t)
{
    struct relay *r = CONTAINER_OF(t, struct relay, idle);
    struct loop *l = r->there.to->loop;
    size_t waiting = relay_waiting(r);
    uint64_t active_ms = MAX(r->there.active_ns, r->back.active_ns) / 1000000, now_ms = loop_now_ms(l);
    if (waiting != r->waiting) active_ms = now_ms; /* a slow reader takes from a queue */
    r->waiting = waiting;
    if (now_ms - active_ms >= r->idle_ms) relay_end(r, ERR_TIMEOUT);
    else timer_set(l, t, active_ms + r->idle_ms - now_ms);
}

/* Bytes that were read for stream_into() lie in memory, or are on their way there: a flow takes from the kernel. */
static bool stream_is_clear(const struct stream *s)
{
    return !s->into_left && !s->kept_n;
}

static bool relay_may(const struct stream *s)
{
    return !s->closed && !s->failed_told && !s->shut_wanted && stream_is_plain(s) && stream_is_clear(s);
}

bool relay_start(struct relay *r, struct stream *client, struct stream *service, uint32_t idle_ms,
                 void (*done)(struct relay *r, enum err e))
{
    if (!relay_may(client) || !relay_may(service) || (client->eof_seen && service->eof_seen)) return false;
    *r = (struct relay){.done = done, .idle_ms = idle_ms};
    flow_attach(&r->there, &relay_ops, client, service, UINT64_MAX);
    flow_attach(&r->back, &relay_ops, service, client, UINT64_MAX);
    r->back.is_back = true;
    if (client->eof_seen) flow_ended(&r->there); /* half-closed before; can't be the last end */
    if (service->eof_seen) flow_ended(&r->back);
    timer_init(&r->idle, relay_idle);
    if (idle_ms) timer_set(client->loop, &r->idle, idle_ms);
    return true;
}

void relay_stop(struct relay *r)
{
    if (!r->there.to) return;
    timer_clear(&r->idle);
    stream_reading(r->there.from, false);
    stream_reading(r->back.from, false);
    flow_detach(&r->there);
    flow_detach(&r->back);
}

/* ---- pours from a stream ---- */

static void pour_end(struct pour *p, enum err e)
{
    pour_stop(p);
    p->done(p, e); /* p may be gone now */
}

static struct pour *pour_of(struct flow *f)
{
    return CONTAINER_OF(f, struct pour, flow);
}

static void pour_filled(struct flow *f) { pour_end(pour_of(f), OK); }

static bool pour_ended(struct flow *f)
{
    struct stream *s = f->from;
    pour_end(pour_of(f), ERR_CLOSED);
    return s->closed;
}

static bool pour_failed(struct flow *f, struct stream *s, enum err e)
{
    pour_end(pour_of(f), e);
    return s->closed;
}

static void pour_room(struct flow *f)
{
    if (!f->from->reading) stream_reading(f->from, true);
}

static void pour_cut(struct flow *f) { pour_stop(pour_of(f)); }

static const struct flow_ops pour_ops = {pour_filled, pour_ended, pour_failed, pour_room, pour_cut};

static bool pour_may(const struct stream *s)
{
    return !s->closed && !s->failed_told;
}

bool pour_start(struct pour *p, struct stream *from, struct stream *to, uint64_t n, void (*done)(struct pour *p, enum err e))
{
    MUST(n > 0 && n < UINT64_MAX);
    if (!pour_may(from) || !stream_is_plain(from) || from->eof_seen || !stream_is_clear(from) || !pour_may(to) || !stream_takes_plain(to, n)) return false;
    *p = (struct pour){.done = done, .file = -1};
    flow_attach(&p->flow, &pour_ops, from, to, n);
    p->flow.splicing = n >= POUR_SPLICE_BYTES;
    return true;
}

/* ---- pours from a file ---- */

/* As much as to takes, at most max bytes; the rest in the next turn. How many were taken. */
static size_t file_push(struct pour *p, size_t max)
{
    struct stream *to = p->flow.to;
    size_t want = MIN(p->flow.left, max), taken = 0;
    while (taken < want && !flow_waits(&p->flow) && !to->fail) {
        ssize_t r;
        if (stream_takes_plain(to, p->flow.left)) {
            r = sys_sendfile(to->fd, p->file, p->offset, want - taken);
            if (r == -EAGAIN) return taken;
            p->flow.spliced += r > 0 ? (size_t)r : 0;
            to->sent += r > 0 ? (size_t)r : 0;
        } else {
            char *at = to->loop->read_buf + STREAM_HEADROOM;
            r = sys_file_pread(p->file, at, MIN(want - taken, STREAM_READ_BYTES), p->offset);
            if (r > 0) stream_write_slice(to, slice_of(at, (size_t)r));
        }
        if (r == 0 || r == -EIO) {
            pour_end(p, ERR_IO); /* the file's fault, not the stream's */
            return taken;
        }
        if (r < 0) {
            stream_break(to, err_from_errno((int)-r));
            return taken;
        }
        p->offset += (uint64_t)r;
        flow_took(&p->flow, (size_t)r);
        taken += (size_t)r;
    }
    if (to->fail || flow_waits(&p->flow)) return taken;
    if (p->flow.left == 0) pour_end(p, OK);
    else loop_defer(to->loop, &p->task);
    return taken;
}

/* What a done() started on s: it need not wait for the next turn. */
static struct pour *file_pour_next(struct stream *s)
{
    struct flow *f = s->closed ? NULL : s->out_flow;
    struct pour *p = f && !f->from ? pour_of(f) : NULL;
    return p && !list_empty(&p->task.link) ? p : NULL;
}

/* A closed stream is not released before the end of the turn: to is there after done(). */
static void file_task(struct task *t)
{
    struct pour *p = CONTAINER_OF(t, struct pour, task);
    struct stream *to = p->flow.to;
    size_t left = FILE_ROUND_BYTES;
    for (int n = 0; p && left && n < POURS_PER_TURN; n++) {
        list_del(&p->task.link);
        left -= file_push(p, left);
        p = file_pour_next(to);
    }
}

static void file_room(struct flow *f) { (void)file_push(pour_of(f), FILE_ROUND_BYTES); }
static bool file_ended(struct flow *f) { return false; }

static const struct flow_ops file_ops = {pour_filled, file_ended, pour_failed, file_room, pour_cut};

bool pour_file_start(struct pour *p, int file, uint64_t offset, struct stream *to, uint64_t n,
                     void (*done)(struct pour *p, enum err e))
{
    MUST(n > 0 && n < UINT64_MAX);
    if (!pour_may(to)) return false;
    *p = (struct pour){.done = done, .file = file, .offset = offset};
    flow_attach(&p->flow, &file_ops, NULL, to, n);
    task_init(&p->task, file_task);
    loop_defer(to->loop, &p->task); /* the loop's buffer may be in use by the caller now */
    return true;
}

void pour_stop(struct pour *p)
{
    struct stream *from = p->flow.from;
    if (!p->flow.to) return;
    flow_detach(&p->flow);
    if (from) stream_reading(from, true);
    else list_del(&p->task.link);
}
