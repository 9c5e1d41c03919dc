/* tls_stream.c - TLS under a stream: bytes between the kernel, OpenSSL and the stream's owner.
 *
 *     kernel -> in (64 KiB, the loop's) -> BIO -> OpenSSL -> the loop's read buffer -> data()
 *     stream_write() -> (gather, 16 KiB) -> OpenSSL -> BIO -> out (80 KiB, the loop's) -> one send, the rest queued
 *
 * A connection has no buffers of its own. OpenSSL takes all that was read from in, keeps a record that is not complete, and
 * gives its own buffers back when it holds none; so plaintext of one read is always delivered by one data(). The BIO is
 * one per loop: it serves the stream that the loop works for (tls_loop.cur). It never blocks and never fails: an empty in
 * is "try again", a full out is written to the stream.
 *
 * Ciphertext is kept apart (held) only in three cases: it was read before the handshake began (a PROXY header was in front);
 * it came together with the end of the handshake, and the owner has switched reading off since; the client speaks plain
 * HTTP, and the owner may take the bytes as such.
 *
 * Once the kernel makes the records (tls_kernel.c), gather and out are passed by, and what is queued is plaintext.
 *
 * What OpenSSL wants to send by itself (handshake, tickets, alerts, answers to key updates) stays in out until the end of the
 * current read, so that it leaves together with what the owner writes in its callbacks. Before another stream uses out, and when
 * the stream is closed, it is written at once.
 *
 *     SHAKING -> OPEN -> [close_sent] [close_seen] -> closed
 *        |         |
 *        |         +-> DEAD (damaged record, alert): told by failed() when what was read before is delivered
 *        +-> failed(), with tls_plain_http perhaps DROPPED: the stream goes on without TLS
 */
#include "tls_int.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>

#define OUT_DIRECT_MIN 4096 /* the last record of a write, if as long, is sent from where OpenSSL has it */
#define EARLY_MIN 4096 /* first allocation for what is written before the handshake is over */

/* ---- the BIO ---- */

static void tls_flush(struct tls_loop *tl)
{
    if (tl->out_n == 0) return;
    struct iovec iov = {tl->out, tl->out_n};
    tl->out_n = 0;
    stream_send(tl->cur, &iov, 1);
}

static int bio_write(BIO *b, const char *p, int n)
{
    struct tls_loop *tl = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    struct stream_tls *t = tl->cur->tls;
    if (t->kernel && !tls_kernel_saw(t, p, (size_t)n)) return n;
    if (tl->last && n >= OUT_DIRECT_MIN) {
        struct iovec iov[2] = {{tl->out, tl->out_n}, {(void *)(uintptr_t)p, (size_t)n}};
        tl->out_n = 0;
        stream_send(tl->cur, iov, 2);
        return n;
    }
    for (size_t left = (size_t)n; left;) {
        if (tl->out_n == TLS_OUT_BYTES) tls_flush(tl);
        size_t take = MIN(left, TLS_OUT_BYTES - tl->out_n);
        memcpy(tl->out + tl->out_n, p, take);
        tl->out_n += take;
        p += take;
        left -= take;
    }
    return n;
}

static int bio_read(BIO *b, char *p, int n)
{
    struct tls_loop *tl = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    size_t take = MIN((size_t)n, tl->in_to - tl->in_from);
    if (take == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    memcpy(p, tl->in + tl->in_from, take);
    tl->in_from += take;
    return (int)take;
}

/* OpenSSL's own kernel TLS: SSL_OP_ENABLE_KTLS makes it offer the key for sending (num is not 0) to the BIO, as the kernel wants it. bio.h names the
 * number in a comment, and the unit tests decrypt with what comes. */
#define CTRL_SET_KTLS 72

static long bio_ctrl(BIO *b, int cmd, long num, void *p)
{
    struct tls_loop *tl = BIO_get_data(b);
    if (cmd == CTRL_SET_KTLS && num) tls_kernel_offer(tl->cur, p); /* and declined: OpenSSL goes on */
    return cmd == BIO_CTRL_FLUSH; /* what is in out leaves at the end of the read */
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;

static void bio_method_make(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir loop");
    MUST(bio_method);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* ---- a loop's part ---- */

static void tls_loop_make(struct loop *l)
{
    if (l->tls) return;
    pthread_once(&bio_method_once, bio_method_make);
    struct tls_loop *tl = mem_new(MEM_TLS, sizeof *tl);
    tl->in = mem_new(MEM_TLS, TLS_IN_BYTES);
    tl->out = mem_new(MEM_TLS, TLS_OUT_BYTES);
    tl->gather = mem_new(MEM_TLS, TLS_RECORD_BYTES);
    tl->bio = BIO_new(bio_method);
    MUST(tl->bio);
    BIO_set_data(tl->bio, tl);
    BIO_set_init(tl->bio, 1);
    l->tls = tl;
}

void tls_loop_free(struct loop *l)
{
    struct tls_loop *tl = l->tls;
    if (!tl) return;
    BIO_free(tl->bio);
    mem_free(tl->in);
    mem_free(tl->out);
    mem_free(tl->gather);
    mem_free(tl);
    l->tls = NULL;
}

const struct tls_counters *loop_tls_counters(const struct loop *l) { return &l->tls_counters; }

/* The loop's buffers, for s. */
static struct tls_loop *tls_use(struct stream *s)
{
    struct tls_loop *tl = s->loop->tls;
    if (tl->cur == s) return tl;
    tls_flush(tl);
    tl->cur = s;
    return tl;
}

void tls_settle(struct stream *s) { tls_flush(tls_use(s)); }

/* ---- birth and death ---- */

static struct stream_tls *tls_new(struct stream *s, struct tls_ctx *ctx, bool is_server)
{
    MUST(!s->tls && !s->closed && ctx->is_server == is_server);
    struct stream_tls *t = mem_new(MEM_TLS, sizeof *t);
    t->ctx = t->chosen = tls_ctx_ref(ctx);
    t->is_server = is_server;
    tls_loop_make(s->loop);
    s->tls = t;
    s->tls_handshake = true;
    return t;
}

/* Takes over what bytes there are; false: no memory. */
static bool hold(struct stream_tls *t, const char *p, size_t n)
{
    if (n == 0) return true;
    t->held = mem_try(MEM_TLS, n);
    if (!t->held) return false;
    memcpy(t->held, p, n);
    t->held_n = (uint32_t)n;
    return true;
}

void stream_tls_accept(struct stream *s, struct tls_ctx *ctx, struct slice early)
{
    MUST(!s->connecting && early.n <= STREAM_READ_BYTES); /* which is what in holds */
    struct stream_tls *t = tls_new(s, ctx, true);
    if (!hold(t, early.p, early.n)) stream_break(s, ERR_NOMEM);
    if (early.n == 0) return;
    s->readable = true;
    stream_queue_ready(s);
}

void stream_tls_connect(struct stream *s, struct tls_ctx *ctx, struct tls_peer_name name, struct tls_session_slot *slot)
{
    MUST(s->connecting);
    struct stream_tls *t = tls_new(s, ctx, false);
    t->slot = slot;
    t->drain_owed = s->out_bytes > 0;
    if (name.server_name.n) t->server_name = mem_strndup(MEM_TLS, name.server_name.p, name.server_name.n);
    if (name.verify_name.n) t->verify_name = mem_strndup(MEM_TLS, name.verify_name.p, name.verify_name.n);
}

void stream_tls_slot_end(struct stream *s)
{
    if (s->tls) s->tls->slot = NULL;
}

static void held_drop(struct stream_tls *t)
{
    mem_free(t->held);
    t->held = NULL;
    t->held_n = 0;
}

static void early_drop(struct stream_tls *t)
{
    mem_free(t->early);
    t->early = NULL;
    t->early_n = t->early_cap = 0;
}

static void ssl_drop(struct stream_tls *t)
{
    if (!t->ssl) return;
    /* otherwise OpenSSL takes it for a broken connection, whose session must not be resumed (a rule of SSLv3) */
    SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    t->ssl = NULL;
}

/* Ends s->tls. polite: close_notify goes out, if it can at once. */
void tls_close(struct stream *s, bool polite)
{
    struct stream_tls *t = s->tls;
    struct tls_loop *tl = s->loop->tls;
    bool sound = polite && t->state == TLS_OPEN && !s->fail && !s->failed_told && !s->out;
    if (sound) tls_notify_close(s);
    if (sound && tls_kernel_sends(s)) tls_kernel_bye(s);
    tls_kernel_free(t);
    if (tl->cur == s) {
        if (polite && !s->fail && !s->out) tls_flush(tl);
        tl->out_n = 0;
        tl->cur = NULL;
    }
    ssl_drop(t);
    held_drop(t);
    tls_ctx_unref(t->ctx);
    mem_free(t->server_name);
    mem_free(t->verify_name);
    mem_free(t->why);
    early_drop(t);
    mem_free(t);
    s->tls = NULL;
    s->tls_handshake = false;
}

/* ---- failing ---- */

/* Says why, once, and lets no more happen. */
static void tls_die(struct stream *s, const char *why)
{
    struct stream_tls *t = s->tls;
    if (t->state == TLS_DEAD) return;
    t->state = TLS_DEAD;
    struct buf b = {0};
    enum tls_fault fault = tls_explain(t, &b); /* in any case: OpenSSL's errors are off its queue */
    tls_why(t, "%s", why ? why : b.p);
    buf_free(&b);
    struct tls_counters *count = &s->loop->tls_counters;
    counter_inc(&count->failed);
    if (why) return; /* whoever knows it counts it */
    if (fault == TLS_FAULT_CERTIFICATE) counter_inc(&count->certificate);
    if (fault == TLS_FAULT_ALERT) counter_inc(&count->alerts);
    if (fault == TLS_FAULT_PARAMETERS) counter_inc(&count->parameters);
}

/* Sends the alert, if there is one, and tells the owner. */
static void tls_tell_dead(struct stream *s)
{
    struct tls_loop *tl = tls_use(s);
    if (!s->fail) tls_flush(tl);
    tl->out_n = 0;
    if (!s->fail && tls_kernel_sends(s)) tls_kernel_last_word(s);
    stream_tell_failed(s, s->tls->why ? ERR_TLS : s->fail);
}

/* ---- writing ---- */

static bool put_record(struct stream_tls *t, const char *p, size_t n)
{
    return n == 0 || SSL_write(t->ssl, p, (int)n) == (int)n;
}

static size_t records_of(size_t n) { return (n + TLS_RECORD_BYTES - 1) / TLS_RECORD_BYTES; }

/* Pieces are gathered to full records, unless as many records come of it when what was gathered goes by itself (a head before a long
 * body): then the rest is not copied. */
static bool encrypt(struct tls_loop *tl, struct stream_tls *t, const struct iovec *iov, int n)
{
    size_t have = 0, rest = iov_bytes(iov, n);
    for (int i = 0; i < n; i++) {
        const char *p = iov[i].iov_base;
        for (size_t left = iov[i].iov_len, take; left; left -= take, rest -= take, p += take) {
            take = MIN(left, TLS_RECORD_BYTES);
            bool whole = take == TLS_RECORD_BYTES || take == rest;
            if (whole && (have == 0 || records_of(have) + records_of(rest) == records_of(have + rest))) {
                if (!put_record(t, tl->gather, have)) return false;
                have = 0;
                tl->last = take == rest;
                if (!put_record(t, p, take)) return false;
                continue;
            }
            take = MIN(left, TLS_RECORD_BYTES - have);
            memcpy(tl->gather + have, p, take);
            have += take;
            if (have < TLS_RECORD_BYTES) continue;
            tl->last = take == rest;
            if (!put_record(t, tl->gather, have)) return false;
            have = 0;
        }
    }
    tl->last = true;
    return put_record(t, tl->gather, have);
}

static bool early_add(struct stream *s, const char *p, size_t n)
{
    struct stream_tls *t = s->tls;
    if (t->early_n + n > UINT32_MAX / 2) return false;
    if (t->early_n + n > t->early_cap) {
        uint32_t cap = MAX(t->early_cap, EARLY_MIN);
        while (cap < t->early_n + n) cap *= 2;
        char *more = mem_try(MEM_TLS, cap);
        if (!more) return false;
        if (t->early_n) memcpy(more, t->early, t->early_n);
        mem_free(t->early);
        t->early = more;
        t->early_cap = cap;
    }
    memcpy(t->early + t->early_n, p, n);
    t->early_n += (uint32_t)n;
    s->out_bytes += n;
    return true;
}

size_t tls_write(struct stream *s, const struct iovec *iov, int n)
{
    struct stream_tls *t = s->tls;
    if (t->state == TLS_DROPPED) {
        stream_send(s, iov, n);
    } else if (t->state == TLS_SHAKING) {
        for (int i = 0; i < n; i++)
            if (iov[i].iov_len && !early_add(s, iov[i].iov_base, iov[i].iov_len)) {
                stream_break(s, ERR_NOMEM);
                break;
            }
    } else if (tls_kernel_sends(s) || (t->kernel && iov_bytes(iov, n) >= tls_kernel_write_min && tls_direct(s, UINT64_MAX))) {
        if (t->state == TLS_OPEN) stream_send(s, iov, n);
    } else if (t->state == TLS_OPEN) {
        struct tls_loop *tl = tls_use(s);
        if (!encrypt(tl, t, iov, n)) {
            tls_die(s, NULL);
            stream_break(s, ERR_TLS);
        }
        tl->last = false;
        tls_flush(tl);
    }
    t->drain_owed |= s->out_bytes > 0;
    return s->out_bytes;
}

void tls_notify_close(struct stream *s)
{
    struct stream_tls *t = s->tls;
    if (t->state != TLS_OPEN || t->close_sent) return;
    t->close_sent = true;
    if (tls_kernel_sends(s)) return; /* what waits goes before it: tls_may_shut() */
    struct tls_loop *tl = tls_use(s);
    if (SSL_shutdown(t->ssl) < 0) ERR_clear_error();
    tls_flush(tl);
    t->drain_owed |= s->out_bytes > 0; /* as for a write: who waits for an empty queue would wait for ever */
}

bool tls_drained(struct stream *s)
{
    struct stream_tls *t = s->tls;
    bool owed = t->drain_owed;
    t->drain_owed = false;
    t->control_n = 0;
    return owed;
}

/* ---- reading ---- */

static void tls_tell_eof(struct stream *s)
{
    s->eof_seen = true;
    s->readable = false;
    if (s->fail) stream_tell_failed(s, s->fail);
    else s->ops->eof(s);
}

/* A read gave the end, or an error. */
static void read_end(struct stream *s, ssize_t r)
{
    struct stream_tls *t = s->tls;
    if (r != 0 || s->fail || t->state == TLS_DROPPED) {
        stream_read_end(s, r);
        return;
    }
    s->readable = false;
    if (t->state == TLS_SHAKING) {
        counter_inc(&s->loop->tls_counters.closed);
        tls_die(s, "the peer closed the connection within the handshake");
        stream_tell_failed(s, ERR_TLS);
        return;
    }
    counter_inc(&s->loop->tls_counters.truncated);
    s->truncated = true;
    tls_tell_eof(s);
}

/* Fills in: from what is held, else with one read. False when there is nothing, and that was seen to. */
static bool fill(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    tl->in_from = tl->in_to = 0;
    if (t->held_n) {
        memcpy(tl->in, t->held, t->held_n);
        tl->in_to = t->held_n;
        held_drop(t);
        s->readable = true;
        return true;
    }
    /* with a record that OpenSSL has begun, the plaintext must fit the read buffer still */
    size_t cap = t->ssl && SSL_has_pending(t->ssl) ? TLS_IN_BYTES - TLS_CIPHERTEXT_MAX : TLS_IN_BYTES;
    ssize_t r = sys_recv(s->fd, tl->in, cap);
    if (r <= 0) {
        read_end(s, r);
        return false;
    }
    tl->in_to = (size_t)r;
    s->readable = tl->in_to == cap || s->hup || s->fail;
    return true;
}

/* Decrypts what is in in, up to max bytes; notes what ends the connection. Returns bytes of plaintext. */
static size_t decrypt(struct stream *s, struct tls_loop *tl, char *p, size_t max)
{
    struct stream_tls *t = s->tls;
    size_t n = 0;
    if (ERR_peek_error()) ERR_clear_error();
    while (n < max && (tl->in_from < tl->in_to || SSL_pending(t->ssl) > 0)) {
        int r = SSL_read(t->ssl, p + n, (int)(max - n));
        if (r > 0) {
            n += (size_t)r;
            continue;
        }
        int why = SSL_get_error(t->ssl, r);
        if (why == SSL_ERROR_WANT_READ) break; /* in is empty */
        if (why == SSL_ERROR_ZERO_RETURN) t->close_seen = true;
        else tls_die(s, NULL);
        break;
    }
    return n;
}

/* OpenSSL answers some records by itself. A peer that sends many and takes no answers would fill our memory. */
static bool control_abused(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    if (tl->out_n == 0 || !s->out || ++t->control_n <= TLS_CONTROL_MAX) return false;
    counter_inc(&s->loop->tls_counters.limits);
    tl->out_n = 0;
    tls_die(s, "the peer asks for answers (key updates) and takes none");
    return true;
}

/* What was read is for the owner: s is open and reading. */
static void deliver(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    char *p = s->loop->read_buf + STREAM_HEADROOM;
    size_t direct = s->into_left ? decrypt(s, tl, s->into, MIN(s->into_left, INTO_ROUND_BYTES)) : 0; /* in is smaller than a round */
    bool over = direct < s->into_left || t->close_seen || t->state == TLS_DEAD;
    size_t n = over ? 0 : decrypt(s, tl, p, STREAM_READ_BYTES);
    (void)control_abused(s, tl);
    if (UNLIKELY(tls_kernel_outdated(t)) && t->state == TLS_OPEN) {
        counter_inc(&s->loop->tls_counters.kernel_outdated);
        tls_die(s, "the peer asks for a new key, and the kernel that sends can't change it");
        tls_kernel_last_word(s); /* before the owner answers what was read: that goes nowhere */
    }
    if (direct) stream_into_took(s, direct, n);
    if (direct) stream_deliver(s, p, n);
    else if (n) s->ops->data(s, p, n);
    if (s->closed || s->failed_told) return;
    if (s->kept) return; /* the end, too, waits until reading is on again */
    if (t->state == TLS_DEAD) tls_tell_dead(s);
    else if (t->close_seen && s->reading) tls_tell_eof(s);
    else if (t->close_seen) s->readable = true; /* to be told when reading is on again */
    else if (s->readable && s->reading) stream_queue_ready(s);
}

/* ---- the handshake ---- */

/* The certificate of a resumed session was verified when the session began. */
static bool resumed_is_stale(const struct stream_tls *t)
{
    if (t->chosen->verify == SSL_VERIFY_NONE || !SSL_session_reused(t->ssl)) return false;
    const X509 *x = SSL_get0_peer_certificate(t->ssl);
    return x && tls_cert_expires_s(x) < (int64_t)(wall_ns() / 1000000000);
}

static void count_handshake(struct stream *s)
{
    struct tls_counters *c = &s->loop->tls_counters;
    counter_inc(s->tls->is_server ? &c->accepted : &c->connected);
    if (SSL_session_reused(s->tls->ssl)) counter_inc(&c->resumed);
}

/* With TLS 1.2 OpenSSL does not tell of a ticket that came with a resumption. */
static void keep_renewed(struct stream_tls *t)
{
    if (t->is_server || !t->slot || !SSL_session_reused(t->ssl) || SSL_version(t->ssl) != TLS1_2_VERSION) return;
    tls_session_slot_fini(t->slot);
    t->slot->session = SSL_get1_session(t->ssl);
}

/* What was written meanwhile goes out with the last message of the handshake. */
static void send_early(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    if (t->early_n == 0) return;
    struct iovec iov = {t->early, t->early_n};
    s->out_bytes -= t->early_n;
    if (!encrypt(tl, t, &iov, 1)) {
        tls_die(s, NULL);
        stream_break(s, ERR_TLS);
    }
    tl->last = false;
    early_drop(t);
}

static void established(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    t->state = TLS_OPEN;
    s->tls_handshake = false;
    count_handshake(s);
    keep_renewed(t);
    send_early(s, tl);
    s->ops->connected(s);
    if (s->closed) return;
    if (s->shut_wanted && !s->fail) tls_notify_close(s);
    if (tl->in_from == tl->in_to) {
        if (s->readable && s->reading) stream_queue_ready(s);
    } else if (s->reading) {
        deliver(s, tls_use(s));
    } else if (!hold(t, tl->in + tl->in_from, tl->in_to - tl->in_from)) {
        stream_break(s, ERR_NOMEM);
    } else {
        s->readable = true;
    }
}

static void handshake_failed(struct stream *s, const char *why)
{
    tls_die(s, why);
    tls_tell_dead(s);
}

/* One step with what is in in. */
static void shake(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    t->shake_bytes += (uint32_t)(tl->in_to - tl->in_from);
    ERR_clear_error();
    int r = SSL_do_handshake(t->ssl);
    if (r == 1 && s->fail) {
        stream_tell_failed(s, s->fail);
    } else if (r == 1) {
        if (resumed_is_stale(t)) {
            counter_inc(&s->loop->tls_counters.certificate);
            handshake_failed(s, "the certificate of the peer has expired since its session began");
        } else {
            established(s, tl);
        }
    } else if (SSL_get_error(t->ssl, r) != SSL_ERROR_WANT_READ) {
        handshake_failed(s, NULL);
    } else if (t->shake_bytes > TLS_HANDSHAKE_BYTES_MAX) {
        counter_inc(&s->loop->tls_counters.limits);
        handshake_failed(s, "the peer's handshake is too long");
    } else if (s->readable) {
        stream_queue_ready(s);
    }
}

/* A request line begins with a method in capitals; a TLS record with 22. */
static bool is_plain_http(const char *p, size_t n)
{
    for (size_t i = 0; i < MIN(n, 8); i++) {
        if (p[i] == ' ' && i >= 3) return true;
        if (p[i] < 'A' || p[i] > 'Z') return false;
    }
    return true;
}

/* The first bytes of a client: the SSL is made only now, so that a mere connect costs little. False: it failed, and that was told. */
static bool server_begin(struct stream *s, struct tls_loop *tl)
{
    struct stream_tls *t = s->tls;
    if (is_plain_http(tl->in, tl->in_to)) {
        s->tls_plain_http = hold(t, tl->in, tl->in_to);
        counter_inc(&s->loop->tls_counters.plain_http);
        handshake_failed(s, "the client speaks plain HTTP");
        return false;
    }
    t->ssl = tls_ssl_new(t->ctx, s);
    if (t->ssl) return true;
    handshake_failed(s, NULL);
    return false;
}

/* The connection stands: ClientHello. */
void tls_start(struct stream *s)
{
    struct stream_tls *t = s->tls;
    struct tls_loop *tl = tls_use(s);
    tl->in_from = tl->in_to = 0;
    t->ssl = tls_ssl_new(t->ctx, s);
    if (!t->ssl) {
        handshake_failed(s, NULL);
        return;
    }
    shake(s, tl);
    if (!s->closed && !s->failed_told) tls_flush(tl);
}

/* ---- what follows from a read ---- */

void stream_tls_drop(struct stream *s)
{
    MUST(s->tls && s->tls_plain_http && s->failed_told && !s->closed);
    s->tls->state = TLS_DROPPED;
    early_drop(s->tls);
    s->tls_handshake = s->failed_told = false;
    s->fail = OK;
    s->readable = true;
    if (s->reading) stream_queue_ready(s);
}

static void read_dropped(struct stream *s, struct tls_loop *tl)
{
    if (!fill(s, tl)) return;
    memcpy(s->loop->read_buf + STREAM_HEADROOM, tl->in, tl->in_to);
    s->ops->data(s, s->loop->read_buf + STREAM_HEADROOM, tl->in_to);
    if (!s->closed && s->readable && s->reading) stream_queue_ready(s);
}

/* Writes what OpenSSL and the owner left in out, and what follows from an empty queue. */
static void settle(struct stream *s, bool shaken)
{
    struct tls_loop *tl = s->loop->tls;
    if (tl->cur == s) tls_flush(tl);
    if (!shaken || s->tls_handshake || s->out || s->fail) return;
    if (s->shut_wanted && !s->shut_done) stream_shut_now(s);
    if (!s->fail && tls_drained(s)) stream_tell_drained(s);
}

void tls_read(struct stream *s)
{
    struct stream_tls *t = s->tls;
    if (t->state == TLS_DEAD) {
        tls_tell_dead(s);
        return;
    }
    if (t->close_seen) {
        tls_tell_eof(s);
        return;
    }
    struct tls_loop *tl = tls_use(s);
    if (t->state == TLS_DROPPED) {
        read_dropped(s, tl);
        return;
    }
    if (!fill(s, tl)) return;
    bool shaking = t->state == TLS_SHAKING;
    if (!shaking) deliver(s, tl);
    else if (t->ssl || server_begin(s, tl)) shake(s, tl);
    if (!s->closed && !s->failed_told) settle(s, shaking);
}

/* ---- what the owner may ask ---- */

const char *stream_tls_error(const struct stream *s)
{
    return s->tls && s->tls->why ? s->tls->why : "";
}

struct slice stream_tls_server_name(const struct stream *s)
{
    return slice_cstr(s->tls ? s->tls->server_name : NULL);
}

static SSL *open_ssl(const struct stream *s)
{
    return s->tls && s->tls->ssl && !s->tls_handshake ? s->tls->ssl : NULL;
}

struct slice stream_tls_alpn(const struct stream *s)
{
    const unsigned char *p = NULL;
    unsigned n = 0;
    if (open_ssl(s)) SSL_get0_alpn_selected(open_ssl(s), &p, &n);
    return slice_of((const char *)p, n);
}

const char *stream_tls_version(const struct stream *s) { return open_ssl(s) ? SSL_get_version(open_ssl(s)) : ""; }
const char *stream_tls_cipher(const struct stream *s) { return open_ssl(s) ? SSL_get_cipher_name(open_ssl(s)) : ""; }
bool stream_tls_resumed(const struct stream *s) { return open_ssl(s) && SSL_session_reused(open_ssl(s)); }

static enum err describe(X509 *x, struct arena *a, struct tls_cert_info *out)
{
    if (!x) return ERR_NOTFOUND;
    tls_cert_describe(x, a, out);
    return OK;
}

enum err stream_tls_peer(const struct stream *s, struct arena *a, struct tls_cert_info *out)
{
    return describe(open_ssl(s) ? SSL_get0_peer_certificate(open_ssl(s)) : NULL, a, out);
}

/* A resumed session has the certificate and not those between it and the CA: who needs them begins anew. */
bool stream_tls_trusted(const struct stream *s, const struct tls_ctx *ctx)
{
    SSL *ssl = open_ssl(s);
    X509 *leaf = ssl ? SSL_get0_peer_certificate(ssl) : NULL;
    X509_STORE_CTX *x = leaf ? X509_STORE_CTX_new() : NULL;
    bool trusted = x && X509_STORE_CTX_init(x, SSL_CTX_get_cert_store(ctx->ssl), leaf, SSL_get_peer_cert_chain(ssl)) == 1 && X509_STORE_CTX_set_default(x, "ssl_client") == 1;
    if (trusted) {
        X509_STORE_CTX_set_time(x, 0, (time_t)(wall_ns() / 1000000000));
        trusted = X509_verify_cert(x) == 1 && (!ctx->sans_n || tls_cert_has_san(leaf, ctx->sans, ctx->sans_n));
    }
    X509_STORE_CTX_free(x);
    ERR_clear_error();
    return trusted;
}

enum err stream_tls_own(const struct stream *s, struct arena *a, struct tls_cert_info *out)
{
    return describe(open_ssl(s) ? SSL_get_certificate(open_ssl(s)) : NULL, a, out);
}
