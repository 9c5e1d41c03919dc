/* stream.c - connected byte pipes over non-blocking sockets.
 *
 * Reading. The poller is edge-triggered: it tells once that bytes came. readable remembers that until a read proves the
 * kernel empty: EAGAIN, or fewer bytes than there was room (unless an end or error is pending: then only the end itself
 * is proof). One event makes one read, into the loop's one buffer; when more may be there, the stream joins the ready
 * list and is read again later in the turn, after the others.
 *
 * Writing. One system call; what the kernel does not take is copied into chunks and flushed when the poller tells that
 * there is room. A short write arms that edge in the kernel, so none is missed.
 *
 * Adopted sockets are read first and enter the poller afterwards, if they are still open at the end of the turn: a
 * connection that is answered and closed at once costs no poller call.
 *
 * stream_into() takes the loop's buffer out of the way: one readv() into the owner's memory and on into the buffer. When reading is
 * off again after the first part, bytes of the second are kept in memory of their own; only then.
 *
 * Failure. A failing write or connect only notes the error; failed() comes from the loop. Bytes that the peer sent before
 * it broke the connection (an early answer, say) are delivered first when reading is on.
 *
 *     connecting -> open -> [eof_seen] -> failed_told -> closed -> released
 */
#include "rt_int.h"

#include <errno.h>

_Static_assert(sizeof(struct stream_chunk) == CHUNK_BYTES, "a chunk fills its allocation");

/* ---- chunks ---- */

static struct stream_chunk *chunk_get(struct loop *l)
{
    struct stream_chunk *c = l->chunks;
    if (c) {
        l->chunks = c->next;
        l->chunks_n--;
    } else {
        c = mem_try(MEM_STREAM, sizeof *c);
        if (!c) return NULL;
    }
    c->next = NULL;
    c->from = c->to = 0;
    return c;
}

static void chunk_put(struct loop *l, struct stream_chunk *c)
{
    if (l->chunks_n >= CHUNKS_KEPT) {
        mem_free(c);
        return;
    }
    c->next = l->chunks;
    l->chunks = c;
    l->chunks_n++;
}

static void out_drop(struct stream *s)
{
    for (struct stream_chunk *c = s->out, *next; c; c = next) {
        next = c->next;
        chunk_put(s->loop, c);
    }
    s->out = s->out_last = NULL;
    s->out_bytes = 0;
}

/* Copies p[0..n) behind what is queued; false when there is no memory. */
static bool out_append(struct stream *s, const char *p, size_t n)
{
    while (n) {
        struct stream_chunk *c = s->out_last;
        if (!c || c->to == sizeof c->bytes) {
            c = chunk_get(s->loop);
            if (!c) return false;
            if (s->out_last) s->out_last->next = c;
            else s->out = c;
            s->out_last = c;
        }
        size_t take = MIN(n, sizeof c->bytes - c->to);
        memcpy(c->bytes + c->to, p, take);
        c->to += (uint32_t)take;
        s->out_bytes += take;
        p += take;
        n -= take;
    }
    return true;
}

static void out_consume(struct stream *s, size_t n)
{
    s->out_bytes -= n;
    while (n) {
        struct stream_chunk *c = s->out;
        size_t take = MIN(n, (size_t)(c->to - c->from));
        c->from += (uint32_t)take;
        n -= take;
        if (c->from < c->to) return;
        s->out = c->next;
        if (!s->out) s->out_last = NULL;
        chunk_put(s->loop, c);
    }
}

/* ---- birth ---- */

static void stream_init(struct stream *s, struct loop *l, const struct stream_ops *ops, int fd)
{
    *s = (struct stream){.ops = ops, .loop = l, .fd = fd, .reading = true};
    list_init(&s->ready);
    list_init(&s->reap.link);
}

void stream_queue_ready(struct stream *s)
{
    if (list_empty(&s->ready)) list_push(&s->loop->ready, &s->ready);
}

/* Notes a failure; the ready list tells it. What is queued can never be sent. */
void stream_break(struct stream *s, enum err e)
{
    if (s->fail || s->failed_told) return;
    s->fail = e;
    out_drop(s);
    stream_queue_ready(s);
}

void stream_register(struct stream *s)
{
    list_del(&s->reap.link);
    if (s->in_poller || s->closed) return;
    int r = sys_poller_add(s->loop->poller, s->fd, src_tag(s, SRC_STREAM));
    if (r < 0) {
        stream_break(s, err_from_errno(-r));
        return;
    }
    s->in_poller = true;
}

void stream_connect(struct stream *s, struct loop *l, const struct stream_ops *ops, int fd, const struct addr *a)
{
    stream_init(s, l, ops, fd);
    s->connecting = true;
    s->given = fd >= 0;
    if (fd < 0) s->fd = fd = sys_socket(a);
    else sys_nodelay(fd);
    int r = fd < 0 ? fd : sys_connect(fd, a);
    if (fd < 0) s->fd = -1;
    if (r == -EAGAIN) r = -ECONNREFUSED; /* a Unix socket whose backlog is full: nothing will tell when there is room */
    if (r < 0 && r != -EINPROGRESS) {
        stream_break(s, err_from_errno(-r));
        return;
    }
    stream_register(s); /* also when it stands already: the poller then tells at once that it can be written */
}

void stream_keepalive(struct stream *s, uint32_t time_s, uint32_t interval_s, uint32_t probes)
{
    if (s->fd >= 0 && !s->closed) sys_keepalive(s->fd, time_s, interval_s, probes);
}

void stream_adopt(struct stream *s, struct loop *l, const struct stream_ops *ops, int fd)
{
    stream_init(s, l, ops, fd);
    s->readable = true; /* nobody knows: the first read tells */
    stream_queue_ready(s);
    list_push(&l->fresh, &s->reap.link);
}

/* ---- failing ---- */

void stream_tell_failed(struct stream *s, enum err e)
{
    if (s->failed_told) return;
    s->failed_told = true;
    s->readable = false;
    list_del(&s->ready);
    out_drop(s);
    if ((s->in_flow || s->out_flow) && flow_failed(s, e)) return;
    if (!s->closed) s->ops->failed(s, e);
}

/* ---- writing ---- */

void stream_shut_now(struct stream *s)
{
    if (s->tls && !tls_may_shut(s)) return;
    s->shut_done = true;
    int r = sys_shutdown_write(s->fd);
    if (r < 0) stream_break(s, err_from_errno(-r));
}

static bool stream_append(struct stream *s, const struct iovec *iov, int n, size_t skip)
{
    for (int i = 0; i < n; i++) {
        size_t have = iov[i].iov_len;
        if (skip >= have) {
            skip -= have;
            continue;
        }
        if (!out_append(s, (const char *)iov[i].iov_base + skip, have - skip)) return false;
        skip = 0;
    }
    return true;
}

size_t iov_bytes(const struct iovec *iov, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) sum += iov[i].iov_len;
    return sum;
}

void stream_send(struct stream *s, const struct iovec *iov, int n)
{
    if (s->closed || s->failed_told || s->fail) return;
    size_t sent = 0;
    while (n > 0 && !s->out && !s->connecting) {
        int part = MIN(n, IOV_PER_CALL);
        size_t want = iov_bytes(iov, part);
        ssize_t r = !want ? 0 : s->more_follows ? sys_writev_more(s->fd, iov, part) : sys_writev(s->fd, iov, part);
        if (r < 0 && r != -EAGAIN) {
            stream_break(s, err_from_errno((int)-r));
            return;
        }
        sent = r < 0 ? 0 : (size_t)r;
        s->sent += sent;
        if (sent < want) break;
        sent = 0;
        iov += part;
        n -= part;
    }
    if (n > 0 && !stream_append(s, iov, n, sent)) stream_break(s, ERR_NOMEM);
}

size_t stream_write(struct stream *s, const struct iovec *iov, int n)
{
    MUST(!s->shut_wanted);
    if (s->closed || s->failed_told || s->fail) return 0;
    if (s->tls) return tls_write(s, iov, n);
    stream_send(s, iov, n);
    return s->out_bytes;
}

size_t stream_write_more(struct stream *s, const struct iovec *iov, int n)
{
    s->more_follows = true;
    size_t queued = stream_write(s, iov, n);
    s->more_follows = false;
    return queued;
}

size_t stream_write_slice(struct stream *s, struct slice b)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)b.p, .iov_len = b.n};
    return stream_write(s, &iov, b.n ? 1 : 0);
}

void stream_tell_drained(struct stream *s)
{
    if (s->out_flow) flow_room(s->out_flow);
    else s->ops->drained(s);
}

/* Hands queued chunks to the kernel until it is full or the queue is empty. */
static void stream_flush(struct stream *s)
{
    while (s->out) {
        struct iovec iov[FLUSH_IOV];
        int n = 0;
        for (struct stream_chunk *c = s->out; c && n < FLUSH_IOV; c = c->next)
            iov[n++] = (struct iovec){c->bytes + c->from, c->to - c->from};
        size_t want = iov_bytes(iov, n);
        ssize_t r = sys_writev(s->fd, iov, n);
        if (r == -EAGAIN) return;
        if (r < 0) {
            stream_break(s, err_from_errno((int)-r));
            return;
        }
        s->sent += (size_t)r;
        out_consume(s, (size_t)r);
        if ((size_t)r < want) return;
    }
    if (s->tls_handshake) return; /* what the owner wrote is still to come */
    if (s->shut_wanted && !s->shut_done) stream_shut_now(s);
    if (!s->fail && (!s->tls || tls_drained(s))) stream_tell_drained(s);
}

void stream_shut(struct stream *s)
{
    if (s->closed || s->shut_wanted) return;
    s->shut_wanted = true;
    if (s->connecting || s->fail || s->failed_told || s->tls_handshake) return;
    if (s->tls) tls_notify_close(s);
    if (!s->out && !s->fail) stream_shut_now(s);
}

/* ---- reading ---- */

/* A reset came behind the peer's FIN: the read gave the end and did not show the error. */
static void stream_broken_ended(struct stream *s)
{
    int e = s->closed || s->failed_told ? 0 : sys_connect_result(s->fd);
    if (e < 0) stream_tell_failed(s, err_from_errno(-e));
}

void stream_read_end(struct stream *s, ssize_t r)
{
    s->readable = false;
    if (r == -EAGAIN) {
        s->hup = false; /* the poller will tell again */
        if (s->fail) stream_tell_failed(s, s->fail);
        else if (!s->in_poller) stream_register(s);
    } else if (r < 0) {
        stream_tell_failed(s, s->fail ? s->fail : err_from_errno((int)-r));
    } else if (s->fail) {
        stream_tell_failed(s, s->fail);
    } else {
        s->eof_seen = true;
        if (!(s->in_flow && flow_ended(s->in_flow)) && !s->closed) s->ops->eof(s);
        if (UNLIKELY(s->broken)) stream_broken_ended(s);
    }
}

/* ---- reading straight into the owner's memory ---- */

void stream_into(struct stream *s, char *p, size_t n, void (*filled)(struct stream *s))
{
    if (s->closed) return;
    MUST(n > 0 && !s->into_left && !s->in_flow);
    s->into = p;
    s->into_left = n;
    s->filled = filled;
}

void stream_into_took(struct stream *s, size_t n, size_t more)
{
    s->into += n;
    s->into_left -= n;
    s->kept_n = more;
    if (s->into_left == 0) s->filled(s);
}

/* The kernel has given these bytes and the owner wants none now. */
static void stream_keep(struct stream *s, const char *p, size_t n)
{
    s->kept = mem_try(MEM_STREAM, n);
    if (!s->kept) {
        s->kept_n = 0;
        stream_break(s, ERR_NOMEM);
        return;
    }
    memcpy(s->kept, p, n);
    s->kept_n = n;
    s->readable = true;
}

void stream_deliver(struct stream *s, char *p, size_t n)
{
    while (n && s->reading && !s->closed) {
        size_t take = s->into_left ? MIN(n, s->into_left) : n;
        if (s->into_left) {
            memcpy(s->into, p, take);
            stream_into_took(s, take, n - take);
        } else {
            s->kept_n = 0;
            s->ops->data(s, p, take);
        }
        p += take;
        n -= take;
    }
    if (s->closed) return;
    s->kept_n = 0;
    if (n) stream_keep(s, p, n);
}

static void stream_read_kept(struct stream *s)
{
    char *p = s->loop->read_buf + STREAM_HEADROOM;
    memcpy(p, s->kept, s->kept_n);
    mem_free(s->kept);
    s->kept = NULL;
    stream_deliver(s, p, s->kept_n);
    if (s->reading && !s->closed) stream_queue_ready(s); /* what is in the kernel follows */
}

/* One read into the owner's memory and, when that may be filled, on into the loop's buffer: what comes behind a long message costs no read
 * of its own if it is short. */
static void stream_read_into(struct stream *s)
{
    char *spare = s->loop->read_buf + STREAM_HEADROOM;
    size_t wanted = MIN(s->into_left, INTO_ROUND_BYTES);
    struct iovec iov[2] = {{s->into, wanted}, {spare, STREAM_READ_BYTES}};
    int pieces = wanted == s->into_left ? 2 : 1;
    ssize_t r = sys_recvv(s->fd, iov, pieces);
    if (r <= 0) {
        stream_read_end(s, r);
        return;
    }
    size_t n = (size_t)r, behind = n > wanted ? n - wanted : 0;
    s->readable = n == iov_bytes(iov, pieces) || s->hup || s->fail;
    stream_into_took(s, n - behind, behind);
    stream_deliver(s, spare, behind);
    if (s->readable && s->reading && !s->closed) stream_queue_ready(s);
}

/* One read and what follows from it. s is open and reading. */
static void stream_read(struct stream *s)
{
    if (UNLIKELY(s->kept)) {
        stream_read_kept(s);
        return;
    }
    if (s->tls) {
        tls_read(s);
        return;
    }
    if (s->in_flow) {
        flow_read(s->in_flow);
        return;
    }
    if (s->into_left) {
        stream_read_into(s);
        return;
    }
    char *p = s->loop->read_buf + STREAM_HEADROOM;
    ssize_t r = sys_recv(s->fd, p, STREAM_READ_BYTES);
    if (r <= 0) {
        stream_read_end(s, r);
        return;
    }
    s->readable = r == STREAM_READ_BYTES || s->hup || s->fail;
    s->ops->data(s, p, (size_t)r);
    if (s->readable && s->reading && !s->closed) stream_queue_ready(s);
}

void stream_reading(struct stream *s, bool on)
{
    s->reading = on;
    if (s->closed) return;
    if (on && s->readable && !s->connecting) stream_queue_ready(s);
    else if (!on && !s->fail && !s->tls_handshake) list_del(&s->ready);
}

/* From the ready list: a failure to tell, a first read, or another one. */
void stream_look(struct stream *s)
{
    if (s->closed || s->failed_told) return;
    bool may_read = (s->reading || s->tls_handshake) && !s->eof_seen && !s->connecting;
    if (s->fail && !may_read) stream_tell_failed(s, s->fail);
    else if (may_read && (s->readable || s->fail)) stream_read(s);
}

/* ---- events ---- */

/* False when the connection did not come to stand or the owner closed it. */
static bool stream_connected(struct stream *s, uint32_t what)
{
    int r = what & (SYS_HUP | SYS_ERR) ? sys_connect_result(s->fd) : 0; /* that it can be written says enough */
    if (r == -EINPROGRESS) return false;
    if (r < 0) {
        stream_tell_failed(s, err_from_errno(-r));
        return false;
    }
    s->connecting = false;
    if (s->tls) tls_start(s);
    else s->ops->connected(s);
    if (s->closed || s->fail || s->failed_told) return false;
    if (s->shut_wanted && !s->out && !s->shut_done && !s->tls_handshake) stream_shut_now(s);
    return !s->fail;
}

/* The connection broke while the owner does not read: tell at once, unless bytes still wait for it. */
static void stream_broken_unread(struct stream *s)
{
    if (s->kept) return;
    ssize_t r = sys_recv_peek(s->fd);
    if (r < 0 && r != -EAGAIN) stream_tell_failed(s, err_from_errno((int)-r));
    else if (r <= 0 && s->eof_seen) {
        int e = sys_connect_result(s->fd);
        if (e < 0) stream_tell_failed(s, err_from_errno(-e));
    }
}

void stream_event(struct stream *s, uint32_t what)
{
    if (s->closed || s->failed_told) return;
    if (s->connecting && !stream_connected(s, what)) return;
    if ((s->out || s->out_flow) && (what & (SYS_OUT | SYS_HUP))) {
        if (s->out) stream_flush(s);
        else flow_room(s->out_flow);
        if (s->closed || s->failed_told) return;
    }
    if (!(what & (SYS_IN | SYS_HUP))) return;
    s->readable = !s->eof_seen;
    if (what & SYS_HUP) s->hup = true;
    if (UNLIKELY(what & SYS_ERR)) s->broken = true;
    if (s->readable && (s->reading || s->tls_handshake)) {
        list_del(&s->ready); /* this read is the one it waited for */
        stream_read(s);
    } else if (what & SYS_ERR) {
        stream_broken_unread(s);
    }
}

/* ---- the end ---- */

void stream_close(struct stream *s)
{
    if (s->closed) return;
    if (s->tls) tls_close(s, true);
    s->closed = true;
    if (s->in_flow || s->out_flow) flow_cut(s);
    silence_end(s);
    s->readable = false;
    list_del(&s->ready);
    list_del(&s->reap.link);
    out_drop(s);
    mem_free(s->kept);
    s->kept = NULL;
    s->into_left = 0;
    /* Closing the last descriptor of a socket takes it out of the poller. Of a socket that another process made and handed
     * over, that process may still hold one for a moment, and events would come for memory that is gone. */
    if (s->given && s->in_poller) (void)sys_poller_del(s->loop->poller, s->fd);
    if (s->fd >= 0) sys_close(s->fd);
    s->fd = -1;
    list_push(&s->loop->reaps, &s->reap.link);
}

void stream_reset(struct stream *s)
{
    if (!s->closed && s->fd >= 0) sys_linger_reset(s->fd);
    if (s->tls) tls_close(s, false);
    stream_close(s);
}

bool stream_unheard(const struct stream *s, uint64_t from)
{
    uint64_t acked;
    if (s->sent <= from) return true;
    if (tls_kernel_sends(s)) return false; /* what the kernel has acknowledged is ciphertext, what was sent is counted as plaintext */
    return s->eof_seen && s->fd >= 0 && sys_acked(s->fd, &acked) == 0 && acked <= from;
}

enum err stream_local_addr(const struct stream *s, struct addr *a)
{
    if (s->fd < 0) return ERR_CLOSED;
    int r = sys_local_addr(s->fd, a);
    return r < 0 ? err_from_errno(-r) : OK;
}

enum err stream_peer_addr(const struct stream *s, struct addr *a)
{
    if (s->fd < 0) return ERR_CLOSED;
    int r = sys_peer_addr(s->fd, a);
    return r < 0 ? err_from_errno(-r) : OK;
}
