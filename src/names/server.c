/* server.c - questions in, answers out, over UDP and TCP.
 *
 *     datagram            -> dns_query_parse -> names_answer ------------------------> datagram
 *     2 bytes + question  ->        |               `- none of ours: forward.c, or REFUSED
 *     of a stream, one               `- no question: nothing; a bad one: its rcode
 *     after the other
 *
 * A client by TCP may ask before it has its answers (RFC 7766 section 6.2.1.1); they go as they come, not in the order of the questions. What it
 * sends is read no further while too much waits for it to be read.
 */
#include "names_int.h"

/* ---- answers ---- */

static void answer_count(struct names *n, const char *p)
{
    static const uint8_t outcomes[16] = {OUT_NOERROR, OUT_FORMERR, OUT_SERVFAIL, OUT_NXDOMAIN, OUT_NOTIMP, OUT_REFUSED, OUT_OTHER, OUT_OTHER,
                                         OUT_OTHER, OUT_OTHER, OUT_OTHER, OUT_OTHER, OUT_OTHER, OUT_OTHER, OUT_OTHER, OUT_OTHER};
    counter_inc(&n->c.answers[outcomes[p[3] & 15]]);
    if (p[2] & 2)
        counter_inc(&n->c.truncated);
}

void names_reply(struct names *n, const struct asker *to, size_t bytes)
{
    char *p = n->out + 2;
    MUST(bytes >= DNS_HEAD_BYTES && bytes <= DNS_MESSAGE_MAX);
    answer_count(n, p);
    if (to->door) {
        (void)!dgram_send(&to->door->dgram, p, bytes, &to->peer); /* lost: the client asks again */
        return;
    }
    n->out[0] = (char)(bytes >> 8);
    n->out[1] = (char)bytes;
    struct conn *c = to->conn;
    if (stream_write_slice(&c->s, slice_of(n->out, bytes + 2)) > NAMES_OUT_BYTES_MAX && c->s.reading) {
        counter_inc(&n->c.limits[LIMIT_OUT_BYTES]);
        stream_reading(&c->s, false); /* until it has read */
    }
}

static size_t room(const struct asker *to, const struct dns_query *q) { return to->conn ? DNS_MESSAGE_MAX : dns_udp_bytes(q); }

void names_reply_bare(struct names *n, const struct asker *to, const struct dns_query *q, enum dns_rcode rcode, bool truncated)
{
    struct dns_writer w;
    dns_answer_begin(&w, n->out + 2, room(to, q), q);
    w.truncated = truncated;
    names_reply(n, to, dns_answer_end(&w, rcode, false, false));
}

static void question(struct names *n, const struct asker *from, const struct names_caller *caller, const char *p, size_t bytes)
{
    struct dns_query q;
    enum dns_rcode rcode;
    enum dns_verdict v = dns_query_parse(p, bytes, &q, &rcode);
    if (v == DNS_DROP) {
        counter_inc(&n->c.dropped);
        return;
    }
    counter_inc(&n->c.queries[from->conn ? WAY_TCP : WAY_UDP]);
    if (v == DNS_BAD || !n->zone) {
        names_reply_bare(n, from, &q, v == DNS_BAD ? rcode : DNS_SERVFAIL, false);
        return;
    }
    size_t answered = names_answer(n->zone, caller, &q, n->out + 2, room(from, &q));
    if (answered)
        names_reply(n, from, answered);
    else if (forward_wanted(n, caller, &q))
        forward_start(n, from, &q);
    else
        names_reply_bare(n, from, &q, DNS_REFUSED, false);
}

/* ---- UDP ---- */

static void datagram(struct dgram *g, char *p, size_t n, const struct addr *from)
{
    struct door *d = g->owner;
    struct asker a = {.door = d, .peer = *from};
    if (from->port) /* 0 can't be answered, and is nobody's */
        question(d->n, &a, &d->caller, p, n);
}

/* ---- TCP ---- */

static void conn_close(struct conn *c)
{
    if (c->s.closed)
        return;
    forward_drop_conn(c->n, c);
    timer_clear(&c->idle);
    list_del(&c->link);
    counter_set(&c->n->c.conns, --c->n->conns_n);
    stream_close(&c->s);
}

/* Takes what is complete off c->in. */
static void conn_work(struct conn *c)
{
    size_t at = 0;
    while (!c->s.closed && c->s.reading && c->in.n - at >= 2) {
        const char *p = c->in.p + at;
        size_t n = (size_t)(uint8_t)p[0] << 8 | (uint8_t)p[1];
        if (n > NAMES_QUERY_BYTES_MAX || n < DNS_HEAD_BYTES) {
            counter_inc(n > NAMES_QUERY_BYTES_MAX ? &c->n->c.limits[LIMIT_QUERY_BYTES] : &c->n->c.dropped);
            conn_close(c);
            return;
        }
        if (c->in.n - at - 2 < n)
            break;
        struct asker a = {.conn = c};
        question(c->n, &a, &c->caller, p + 2, n);
        at += n + 2;
    }
    if (c->s.closed)
        return;
    memmove(c->in.p, c->in.p + at, c->in.n - at);
    c->in.n -= at;
    if (!c->in.n)
        buf_free(&c->in); /* a resting connection holds no buffer */
}

static void conn_data(struct stream *s, char *p, size_t n)
{
    struct conn *c = CONTAINER_OF(s, struct conn, s);
    timer_set(c->n->loop, &c->idle, NAMES_IDLE_MS);
    buf_add(&c->in, p, n); /* at most one read and a part of a question: what is complete is taken at once, and reading stops when it is not */
    conn_work(c);
}

static void conn_drained(struct stream *s)
{
    struct conn *c = CONTAINER_OF(s, struct conn, s);
    if (s->reading)
        return;
    stream_reading(s, true);
    if (c->in.n)
        conn_work(c);
}

/* Answers that are under way still come, if they come soon. */
static void conn_eof(struct stream *s)
{
    struct conn *c = CONTAINER_OF(s, struct conn, s);
    if (!c->waits && !s->out_bytes)
        conn_close(c);
}

static void conn_failed(struct stream *s, enum err e) { conn_close(CONTAINER_OF(s, struct conn, s)); }

static void conn_released(struct stream *s)
{
    struct conn *c = CONTAINER_OF(s, struct conn, s);
    buf_free(&c->in);
    mem_free((char *)(uintptr_t)c->caller.ns);
    mem_free(c);
}

static const struct stream_ops conn_ops = {.data = conn_data, .eof = conn_eof, .drained = conn_drained, .failed = conn_failed, .released = conn_released};

static void conn_idle(struct timer *t) { conn_close(CONTAINER_OF(t, struct conn, idle)); }

/* Nobody takes all of them: whoever has his share waits while half are taken. */
static bool conns_full(const struct names *n, uint64_t id)
{
    uint32_t own = 0;
    if (n->conns_n < NAMES_CONNS_MAX / 2)
        return false;
    LIST_FOREACH(l, &n->conns)
        own += CONTAINER_OF(l, struct conn, link)->id == id;
    return n->conns_n >= NAMES_CONNS_MAX || own >= NAMES_SHARE;
}

void names_accept(struct names *n, uint64_t id, int fd, const struct names_caller *c)
{
    if (conns_full(n, id) || n->leaving) {
        counter_inc(&n->c.limits[LIMIT_CONNS]);
        socket_close(fd);
        return;
    }
    struct conn *k = mem_try(MEM_NAMES, sizeof *k);
    if (!k) {
        socket_close(fd);
        return;
    }
    k->n = n;
    k->id = id;
    k->caller = (struct names_caller){mem_strdup(MEM_NAMES, c->ns), c->leaves};
    timer_init(&k->idle, conn_idle);
    list_push(&n->conns, &k->link);
    counter_set(&n->c.conns, ++n->conns_n);
    timer_set(n->loop, &k->idle, NAMES_IDLE_MS);
    stream_adopt(&k->s, n->loop, &conn_ops, fd);
}

static void door_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    const struct door *d = ln->owner;
    names_accept(d->n, d->id, fd, &d->caller);
}

/* ---- doors ---- */

static struct door *door_new(struct names *n, uint64_t id, int fd, const struct names_caller *c)
{
    struct door *d = mem_new(MEM_NAMES, sizeof *d);
    d->n = n;
    d->id = id;
    d->fd = fd;
    d->caller = (struct names_caller){mem_strdup(MEM_NAMES, c->ns), c->leaves};
    list_push(&n->doors, &d->link);
    return d;
}

/* Before the first zone nothing is read: questions wait in the socket, also while a new engine takes over. */
static void door_open(struct door *d)
{
    if (!d->n->zone || d->open)
        return;
    d->open = true;
    if (d->tcp)
        listener_start(&d->ln, d->n->loop, d->fd, false, door_accepted);
    else
        dgram_start(&d->dgram, d->n->loop, d->fd);
}

static void door_close(struct door *d)
{
    if (d->open && d->tcp) {
        listener_stop(&d->ln);
    } else if (d->open) {
        forward_drop_door(d->n, d);
        dgram_stop(&d->dgram);
    }
    socket_close(d->fd);
    list_del(&d->link);
    mem_free((char *)(uintptr_t)d->caller.ns);
    mem_free(d);
}

void names_dgram(struct names *n, uint64_t id, int fd, const struct names_caller *c)
{
    struct door *d = door_new(n, id, fd, c);
    d->dgram = (struct dgram){.received = datagram, .owner = d};
    door_open(d);
}

void names_listen(struct names *n, uint64_t id, int fd, const struct names_caller *c)
{
    struct door *d = door_new(n, id, fd, c);
    d->tcp = true;
    d->ln.owner = d;
    door_open(d);
}

void names_close(struct names *n, uint64_t id)
{
    LIST_FOREACH(l, &n->doors)
        if (CONTAINER_OF(l, struct door, link)->id == id)
            door_close(CONTAINER_OF(l, struct door, link));
    LIST_FOREACH(l, &n->conns)
        if (CONTAINER_OF(l, struct conn, link)->id == id)
            conn_close(CONTAINER_OF(l, struct conn, link));
}

/* ---- life ---- */

struct names *names_new(struct loop *l, const struct names_conf *conf)
{
    struct names *n = mem_new(MEM_NAMES, sizeof *n);
    MUST(conf->upstreams_n <= NAMES_UPSTREAMS_MAX);
    n->loop = l;
    n->conf = *conf;
    list_init(&n->doors);
    list_init(&n->conns);
    list_init(&n->pending);
    return n;
}

void names_zone_set(struct names *n, struct names_zone *z)
{
    names_zone_unref(n->zone);
    n->zone = z;
    LIST_FOREACH(l, &n->doors)
        door_open(CONTAINER_OF(l, struct door, link));
}

void names_leave(struct names *n)
{
    n->leaving = true;
    LIST_FOREACH(l, &n->doors)
        door_close(CONTAINER_OF(l, struct door, link));
    LIST_FOREACH(l, &n->conns)
        if (!CONTAINER_OF(l, struct conn, link)->waits)
            timer_set(n->loop, &CONTAINER_OF(l, struct conn, link)->idle, 0);
}

void names_free(struct names *n)
{
    if (!n)
        return;
    LIST_FOREACH(l, &n->doors)
        door_close(CONTAINER_OF(l, struct door, link));
    LIST_FOREACH(l, &n->conns)
        conn_close(CONTAINER_OF(l, struct conn, link));
    forward_drop_all(n);
    names_zone_unref(n->zone);
    mem_free(n);
}
