/* forward.c - names of outside: the question goes to the host's resolvers, and their answer back, unchanged but for its id.
 *
 *     start --> try: a socket of its own (port by chance), an id by chance --+-- an answer that fits the question --> the client
 *                ^                                                           +-- SERVFAIL, REFUSED, an error of the socket, or no answer in time
 *                '-- the next server, up to NAMES_TRIES ---------------------'            and after the last one: SERVFAIL, or what it said
 *
 * By which the client came the question goes on: a client by UDP gets TC if the answer is too long, and comes again by TCP. It has EDNS if the
 * client's had, with the length that the client takes, so the answer fits the client as it is.
 *
 * Against forged answers (RFC 5452): the socket is connected, so only the server's address is heard; port and id are by chance for every try; the
 * question must come back letter by letter; after NAMES_BAD_ANSWERS_MAX that do not fit, the try is given up.
 *
 * Nothing is cached: the host's resolver does that, or the workload's.
 */
#include "names_int.h"

struct pending {
    struct list link;            /* names.pending; alone once it is over */
    struct names *n;
    struct asker from;
    struct dns_query q;
    uint16_t id;                 /* of this try */
    uint32_t tries, bad;         /* begun; answers to this one that did not fit */
    struct timer timer;
    struct dgram dgram;          /* UDP: on is dgram.watch.on */
    int fd;
    struct stream s;             /* TCP; streaming: in use, until released */
    bool streaming, over;
    struct buf in;               /* of the stream */
};

static void try_next(struct pending *p);

bool forward_wanted(const struct names *n, const struct names_caller *c, const struct dns_query *q)
{
    return c->leaves && n->conf.upstreams_n && q->rd && q->question.type != DNS_ANY;
}

/* ---- the end ---- */

static void try_stop(struct pending *p)
{
    timer_clear(&p->timer);
    if (p->dgram.watch.on) {
        dgram_stop(&p->dgram);
        socket_close(p->fd);
    }
    if (p->streaming)
        stream_close(&p->s);
}

/* Nobody waits any more. The memory goes now, or with the stream. */
static void pending_over(struct pending *p)
{
    if (p->over)
        return;
    p->over = true;
    list_del(&p->link);
    counter_set(&p->n->c.pending, --p->n->pending_n);
    if (p->from.conn)
        p->from.conn->waits--;
    try_stop(p);
    if (!p->streaming)
        mem_free(p);
}

static void fail(struct pending *p, enum dns_rcode rcode)
{
    names_reply_bare(p->n, &p->from, &p->q, rcode, false);
    pending_over(p);
}

/* ---- an answer ---- */

/* An answer of bytes at b; false: it is none to this question. */
static bool answered(struct pending *p, char *b, size_t bytes)
{
    struct names *n = p->n;
    struct dns_message m;
    if (dns_message_parse(b, bytes, &m) != OK || !dns_message_answers(&m, p->id, &p->q.question))
        return false;
    bool unwilling = m.rcode == DNS_SERVFAIL || m.rcode == DNS_REFUSED || m.rcode == DNS_NOTIMP;
    if (unwilling && p->tries < NAMES_TRIES && n->conf.upstreams_n > 1) {
        counter_inc(&n->c.tries_failed);
        try_next(p);
        return true;
    }
    if (!p->from.conn && bytes > dns_udp_bytes(&p->q)) {
        names_reply_bare(n, &p->from, &p->q, DNS_NOERROR, true);
    } else {
        memcpy(n->out + 2, b, bytes);
        dns_id_set(n->out + 2, p->q.id);
        names_reply(n, &p->from, bytes);
    }
    pending_over(p);
    return true;
}

/* True: the try is given up. */
static bool bad_answer(struct pending *p)
{
    counter_inc(&p->n->c.bad_answers);
    if (++p->bad < NAMES_BAD_ANSWERS_MAX)
        return false;
    counter_inc(&p->n->c.limits[LIMIT_BAD_ANSWERS]);
    counter_inc(&p->n->c.tries_failed);
    try_next(p);
    return true;
}

static void udp_received(struct dgram *g, char *b, size_t bytes, const struct addr *from)
{
    struct pending *p = g->owner;
    if (!answered(p, b, bytes))
        bad_answer(p);
}

static void try_failed(struct pending *p)
{
    counter_inc(&p->n->c.tries_failed);
    try_next(p);
}

static void udp_failed(struct dgram *g, enum err e) { try_failed(g->owner); }

static void tcp_connected(struct stream *s)
{
    struct pending *p = CONTAINER_OF(s, struct pending, s);
    char b[2 + DNS_UDP_BYTES];
    size_t n = dns_query_write(b + 2, p->id, &p->q.question, p->q.edns ? DNS_EDNS_BYTES : 0, p->q.dnssec_ok, p->q.cd);
    b[0] = (char)(n >> 8);
    b[1] = (char)n;
    stream_write_slice(s, slice_of(b, n + 2));
}

static void tcp_data(struct stream *s, char *b, size_t bytes)
{
    struct pending *p = CONTAINER_OF(s, struct pending, s);
    buf_add(&p->in, b, bytes);
    size_t want = p->in.n < 2 ? 2 : 2 + ((size_t)(uint8_t)p->in.p[0] << 8 | (uint8_t)p->in.p[1]);
    if (p->in.n < want || want == 2)
        return;
    if (p->in.n > want || !answered(p, p->in.p + 2, want - 2)) {
        counter_inc(&p->n->c.bad_answers);
        try_failed(p);
    }
}

static void tcp_eof(struct stream *s) { try_failed(CONTAINER_OF(s, struct pending, s)); }
static void tcp_failed(struct stream *s, enum err e) { try_failed(CONTAINER_OF(s, struct pending, s)); }

/* Its memory is free for the next try only now; until then that waits. */
static void tcp_released(struct stream *s)
{
    struct pending *p = CONTAINER_OF(s, struct pending, s);
    p->streaming = false;
    buf_free(&p->in);
    if (p->over)
        mem_free(p);
    else
        try_next(p);
}

static const struct stream_ops tcp_ops = {.connected = tcp_connected, .data = tcp_data, .eof = tcp_eof, .failed = tcp_failed, .released = tcp_released};

/* ---- a try ---- */

static void timed_out(struct timer *t) { try_failed(CONTAINER_OF(t, struct pending, timer)); }

static bool udp_try(struct pending *p, const struct addr *to)
{
    char b[DNS_UDP_BYTES];
    size_t n = dns_query_write(b, p->id, &p->q.question, p->q.edns ? (uint16_t)dns_udp_bytes(&p->q) : 0, p->q.dnssec_ok, p->q.cd);
    if (dgram_socket(NULL, to, &p->fd) != OK)
        return false;
    p->dgram = (struct dgram){.received = udp_received, .failed = udp_failed, .owner = p};
    dgram_start(&p->dgram, p->n->loop, p->fd);
    return dgram_send(&p->dgram, b, n, NULL) == OK;
}

/* The next server, or the end. A socket that can't be had is waited out like an answer that does not come: else trouble would become work. */
static void try_next(struct pending *p)
{
    struct names *n = p->n;
    bool closing = p->streaming;
    try_stop(p);
    if (closing)
        return; /* tcp_released() comes back here */
    if (p->tries == NAMES_TRIES) {
        fail(p, DNS_SERVFAIL);
        return;
    }
    const struct addr *to = &n->conf.upstreams[p->tries++ % n->conf.upstreams_n];
    random_bytes(&p->id, sizeof p->id);
    p->bad = 0;
    timer_set(n->loop, &p->timer, NAMES_TRY_MS);
    if (!p->from.conn) {
        (void)!udp_try(p, to);
        return;
    }
    p->streaming = true;
    memset(&p->s, 0, sizeof p->s);
    stream_connect(&p->s, n->loop, &tcp_ops, -1, to);
}

static uint64_t asker_id(const struct asker *a) { return a->door ? a->door->id : a->conn->id; }

/* One who asks for names that nobody answers has the server wait for seconds each time: he does not take all of it. */
static bool pending_full(const struct names *n, const struct asker *from)
{
    uint32_t own = 0;
    if (n->pending_n < NAMES_PENDING_MAX / 2)
        return false;
    LIST_FOREACH(l, &n->pending)
        own += asker_id(&CONTAINER_OF(l, struct pending, link)->from) == asker_id(from);
    return n->pending_n >= NAMES_PENDING_MAX || own >= NAMES_SHARE;
}

void forward_start(struct names *n, const struct asker *from, const struct dns_query *q)
{
    struct pending *p = pending_full(n, from) ? NULL : mem_try(MEM_NAMES, sizeof *p);
    if (!p) {
        counter_inc(&n->c.limits[LIMIT_PENDING]);
        names_reply_bare(n, from, q, DNS_SERVFAIL, false);
        return;
    }
    p->n = n;
    p->from = *from;
    p->q = *q;
    p->fd = -1;
    timer_init(&p->timer, timed_out);
    list_push(&n->pending, &p->link);
    counter_set(&n->c.pending, ++n->pending_n);
    counter_inc(&n->c.forwarded);
    if (from->conn)
        from->conn->waits++;
    try_next(p);
}

/* ---- nobody waits ---- */

void forward_drop_door(struct names *n, const struct door *d)
{
    LIST_FOREACH(l, &n->pending)
        if (CONTAINER_OF(l, struct pending, link)->from.door == d)
            pending_over(CONTAINER_OF(l, struct pending, link));
}

void forward_drop_conn(struct names *n, const struct conn *c)
{
    LIST_FOREACH(l, &n->pending)
        if (CONTAINER_OF(l, struct pending, link)->from.conn == c)
            pending_over(CONTAINER_OF(l, struct pending, link));
}

void forward_drop_all(struct names *n)
{
    LIST_FOREACH(l, &n->pending)
        pending_over(CONTAINER_OF(l, struct pending, link));
}
