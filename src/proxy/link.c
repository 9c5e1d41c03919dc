/* link.c - bytes between nodes that are for no replica but for a node itself: a client here uses a service of another node, such as its event log, as if
 * it were this node's.
 *
 *     client --near--> this node --far: TLS, ALPN of bytes, SNI LINK_SNI--> gate of the other --near                      far--> its service
 *
 *                      LINK_WAITS  --PROXY header (LOCAL), the line, LF-->            LINK_LINE --ops.service()--> the line's service
 *                          |       <------------------- one byte, 0 ------------------    |
 *                      LINK_OPEN   <---------------------- bytes ------------------>  LINK_OPEN
 *
 * The line says what the connection is and who makes it, in words that only the nodes' owners know (main): another node of the same CA is believed. Until
 * the byte has come the client is not read; when it does not come in LINK_STANDS_MS, or anything breaks, both sides are closed: for who is connected that is
 * a service that went away, and his own affair to come again. The end of a direction passes by itself.
 *
 * near is the client's, or, at the gate, the stream of the down that came there; far is the other.
 */
#include "proxy_int.h"
#include "proxy_protocol.h"

#define LINK_SNI "node.weir.internal"
#define LINK_STANDS_MS 5000u     /* TCP, TLS and the answer */
#define LINK_QUEUE_MAX 262144u   /* bytes that wait for a slow side before the other is not read */

struct link {
    struct proxy *p;
    struct list link;            /* in proxy.links */
    struct down *d;              /* at the gate: whose stream near is; else NULL */
    struct stream own;           /* near, without d */
    struct stream far;
    struct timer timer;          /* until it is open */
    struct buf line;             /* LINK_LINE: what has come of it */
    enum { LINK_LINE, LINK_WAITS, LINK_OPEN, LINK_OVER } state;
    bool far_used;               /* far was given to rt */
    bool near_gone, far_gone;    /* released */
    bool near_ended, far_ended;  /* FIN was seen */
};

static struct down *down_of(struct stream *s) { return CONTAINER_OF(CONTAINER_OF(s, struct http_srv, h1.s), struct down, srv); }
static struct stream *near_of(struct link *k) { return k->d ? http_srv_stream(&k->d->srv) : &k->own; }

bool link_asked(struct down *d) { return slice_is(stream_tls_server_name(http_srv_stream(&d->srv)), LINK_SNI); }

/* ---- the end ------------------------------------------------------------------------------------------------------------------------ */

static void link_free(struct link *k)
{
    struct down *d = k->d;
    if (!k->near_gone || (k->far_used && !k->far_gone))
        return;
    if (d)
        d->linked = NULL;
    else
        k->p->links_n--;
    buf_free(&k->line);
    mem_free(k);
    if (d)
        down_gone(d);
}

void link_close(struct link *k)
{
    if (k->state == LINK_OVER)
        return;
    k->state = LINK_OVER;
    timer_clear(&k->timer);
    list_del(&k->link);
    stream_close(near_of(k));
    if (k->far_used)
        stream_close(&k->far);
}

void links_close(struct proxy *p, bool all)
{
    LIST_FOREACH(l, &p->links) {
        struct link *k = CONTAINER_OF(l, struct link, link);
        if (all || k->d)
            link_close(k);
    }
}

void proxy_links_close(struct proxy *p)
{
    LIST_FOREACH(l, &p->links) {
        struct link *k = CONTAINER_OF(l, struct link, link);
        if (!k->d)
            link_close(k);
    }
}

static void link_broke(struct link *k)
{
    if (k->d && k->state == LINK_LINE)
        counter_inc(&k->p->c.node_refused);
    if (!k->d)
        counter_inc(&k->p->c.links_failed);
    link_close(k);
}

static void link_late(struct timer *t) { link_broke(CONTAINER_OF(t, struct link, timer)); }

/* ---- bytes ---------------------------------------------------------------------------------------------------------------------------- */

static void copy(struct stream *from, struct stream *to, const char *p, size_t n)
{
    if (stream_write_slice(to, slice_of(p, n)) > LINK_QUEUE_MAX)
        stream_reading(from, false);
}

static bool both_ended(struct link *k) { return k->near_ended && k->far_ended && !near_of(k)->out_bytes && !k->far.out_bytes; }

static void ended(struct link *k, struct stream *to, bool *end)
{
    if (k->state != LINK_OPEN) {
        link_broke(k);
        return;
    }
    *end = true;
    stream_shut(to);
    if (both_ended(k))
        link_close(k);
}

static void drained(struct link *k, struct stream *other)
{
    if (both_ended(k))
        link_close(k);
    else if (k->state == LINK_OPEN)
        stream_reading(other, true);
}

/* ---- far ------------------------------------------------------------------------------------------------------------------------------ */

static struct link *link_of_far(struct stream *s) { return CONTAINER_OF(s, struct link, far); }

static void link_stands(struct link *k)
{
    k->state = LINK_OPEN;
    timer_clear(&k->timer);
    stream_reading(near_of(k), true);
}

static void far_connected(struct stream *s) { (void)s; } /* what was written follows by itself */

static void far_data(struct stream *s, char *p, size_t n)
{
    struct link *k = link_of_far(s);
    if (k->state == LINK_WAITS) {
        if (*p) { /* no gate says that */
            link_broke(k);
            return;
        }
        link_stands(k);
        p++;
        n--;
    }
    if (n)
        copy(s, near_of(k), p, n);
}

static void far_eof(struct stream *s)
{
    struct link *k = link_of_far(s);
    ended(k, near_of(k), &k->far_ended);
}

static void far_drained(struct stream *s)
{
    struct link *k = link_of_far(s);
    drained(k, near_of(k));
}

static void far_failed(struct stream *s, enum err e) { link_broke(link_of_far(s)); }

static void far_released(struct stream *s)
{
    struct link *k = link_of_far(s);
    k->far_gone = true;
    link_free(k);
}

static const struct stream_ops far_ops = {.connected = far_connected, .data = far_data, .eof = far_eof, .drained = far_drained, .failed = far_failed, .released = far_released};

/* ---- near ------------------------------------------------------------------------------------------------------------------------------- */

/* The line is whole: it names a service. */
static void line_whole(struct link *k, struct slice line)
{
    const struct proxy_ops *ops = k->p->ops;
    int fd;
    if (!ops->service || !ops->service(k->p->ctx, line, &fd)) {
        link_broke(k);
        return;
    }
    counter_inc(&k->p->c.links_taken);
    k->far_used = true;
    stream_adopt(&k->far, k->p->loop, &far_ops, fd);
    stream_write_slice(near_of(k), SLICE("\0"));
    link_stands(k);
}

/* The other node says the line, and nothing behind it before it is answered. */
static void line_more(struct link *k, struct slice more)
{
    buf_add(&k->line, more.p, more.n);
    struct slice all = buf_slice(&k->line);
    ptrdiff_t at = slice_find(all, '\n');
    if (at < 0 && all.n < PROXY_LINK_LINE_MAX)
        return;
    if (at < 0 || (size_t)at != all.n - 1)
        link_broke(k);
    else
        line_whole(k, slice_of(all.p, (size_t)at));
}

static void near_bytes(struct link *k, struct stream *s, const char *p, size_t n)
{
    if (k->state == LINK_LINE)
        line_more(k, slice_of(p, n));
    else
        copy(s, &k->far, p, n);
}

static void near_gone(struct link *k)
{
    k->near_gone = true;
    link_free(k);
}

static struct link *link_of_own(struct stream *s) { return CONTAINER_OF(s, struct link, own); }
static void own_connected(struct stream *s) { (void)s; }
static void own_data(struct stream *s, char *p, size_t n) { near_bytes(link_of_own(s), s, p, n); }
static void own_eof(struct stream *s) { ended(link_of_own(s), &link_of_own(s)->far, &link_of_own(s)->near_ended); }
static void own_drained(struct stream *s) { drained(link_of_own(s), &link_of_own(s)->far); }
static void own_failed(struct stream *s, enum err e) { link_broke(link_of_own(s)); }
static void own_released(struct stream *s) { near_gone(link_of_own(s)); }
static const struct stream_ops own_ops = {.connected = own_connected, .data = own_data, .eof = own_eof, .drained = own_drained, .failed = own_failed, .released = own_released};

static struct link *link_of_down(struct stream *s) { return down_of(s)->linked; }
static void gate_data(struct stream *s, char *p, size_t n) { near_bytes(link_of_down(s), s, p, n); }
static void gate_eof(struct stream *s) { ended(link_of_down(s), &link_of_down(s)->far, &link_of_down(s)->near_ended); }
static void gate_drained(struct stream *s) { drained(link_of_down(s), &link_of_down(s)->far); }
static void gate_failed(struct stream *s, enum err e) { link_broke(link_of_down(s)); }
static void gate_released(struct stream *s) { near_gone(link_of_down(s)); }
static const struct stream_ops gate_ops = {.connected = own_connected, .data = gate_data, .eof = gate_eof, .drained = gate_drained, .failed = gate_failed, .released = gate_released};

/* ---- beginning ---------------------------------------------------------------------------------------------------------------------------- */

static struct link *link_new(struct proxy *p)
{
    struct link *k = mem_new(MEM_CONN, sizeof *k);
    k->p = p;
    list_push(&p->links, &k->link);
    timer_init(&k->timer, link_late);
    timer_set(p->loop, &k->timer, LINK_STANDS_MS);
    return k;
}

void link_begin(struct down *d, struct slice early)
{
    struct link *k = d->linked = link_new(d->p);
    k->d = d;
    k->state = LINK_LINE;
    http_srv_stream(&d->srv)->ops = &gate_ops;
    if (early.n)
        line_more(k, early);
}

void proxy_link(struct proxy *p, int fd, const struct proxy_link *to)
{
    const struct plan_gate *g = p->hold ? p->hold->plan->gate : NULL;
    const struct pp_header local = {.version = 2, .local = true};
    char header[PP_V2_BYTES_MAX];
    if (p->links_n >= p->conf.connections_max) {
        counter_inc(&p->c.links_over);
        socket_close(fd);
        return;
    }
    counter_inc(&p->c.links);
    if (!g || !g->bytes || to->gate.family == ADDR_NONE) {
        counter_inc(&p->c.links_failed);
        socket_close(fd);
        return;
    }
    struct link *k = link_new(p);
    p->links_n++;
    k->state = LINK_WAITS;
    k->far_used = true;
    stream_adopt(&k->own, p->loop, &own_ops, fd);
    stream_reading(&k->own, false);
    stream_connect(&k->far, p->loop, &far_ops, -1, &to->gate);
    stream_silence(&k->far, NODE_SILENT_MS);
    stream_tls_connect(&k->far, g->bytes, (struct tls_peer_name){SLICE(LINK_SNI), slice_cstr(to->node)}, NULL);
    MUST(to->line.n < PROXY_LINK_LINE_MAX);
    stream_write_slice(&k->far, slice_of(header, pp_write_v2(&local, header, sizeof header)));
    stream_write_slice(&k->far, to->line);
    stream_write_slice(&k->far, SLICE("\n"));
}
