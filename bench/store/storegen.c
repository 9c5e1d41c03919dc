/* storegen.c - load for control stores that speak etcd's v3 API (gRPC on HTTP/2, in clear): many clients over some connections, each with one request under
 * way, in one thread; and watchers that wait for what a writer puts. Measures what an answer, or an event, costs the server.
 *
 * -m put|get|list|watch|fill
 *      put    a key of -k, chosen at random, gets a value of -s bytes
 *      get    the value of such a key (linearizable, as clients ask by default)        -z  serializable
 *      list   all -k keys of the prefix: what a client reads at its start
 *      watch  -n watchers of one key, -u of them on each stream, over the connections; a writer on a connection of its own puts when all of them have seen the last
 *      fill   puts every key of -k once, and ends
 * -p port   -C connections (100)   -c clients (1000), spread over them   -k keys (10000)   -s bytes of a value (256)   -n watchers (1000)   -u watches per stream (1)
 * -t prefix ("bench/")             -d s / -W s  measured seconds (3) / warm-up (1)
 * -x pid,pid   read these processes' CPU time at both ends     -S  busy-poll
 *
 * What is sent is made once: a head is the same bytes from a connection's second request on (its fields are in HPACK's table by then), and a request differs in eight
 * digits of its key. Of an answer the fields of the outer message are counted (keys, events), and its status is read. One JSON line is printed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM "storegen"
#include "../measure.h"

#define SLOTS 4096                 /* of a connection: which client a stream is */
#define READ_BYTES (256u << 10)
#define WINDOW 0x7fffffffu
#define WINDOW_AGAIN (1u << 28)    /* so much was received: the connection's window is opened again */

enum mode { PUT, GET, LIST, WATCH, FILL };

/* What a stream receives: frames of gRPC, and in them a message whose outer fields are passed over and counted. */
struct parse {
    uint32_t head_n, left;         /* bytes of the frame's head that are there; of its message that are to come */
    uint8_t head[5];
    uint32_t skip;                 /* of the present field */
    uint64_t varint;
    uint8_t shift, what;           /* what: 0 a tag, 1 a number, 2 a length */
    uint32_t tag;
    uint32_t counted;              /* fields of the wanted number since the request */
    uint32_t created;              /* watch: messages that say that one is there */
};
struct client {
    uint32_t stream;               /* 0: none */
    uint64_t t0;
    struct parse in;
    uint32_t events;               /* watch: so many have come in all */
    bool writer;
};
struct conn {
    int fd;
    bool out_armed, waiting;       /* waiting: clients want to send, and the peer's window is used up */
    nghttp2_hd_inflater *hd;
    struct client *clients;
    uint32_t clients_n, next_stream;
    uint16_t slots[SLOTS];
    uint32_t *blocked, blocked_n;  /* clients that wait for the window */
    int64_t window;                /* bytes of DATA that the peer takes */
    uint32_t received;             /* since our window was opened last */
    uint32_t sent_heads;
    char *out;
    size_t out_n, out_at, out_cap;
    char *in;
    size_t in_n, in_cap;
};

static enum mode mode = PUT;
static int port = 2379, nconn = 100, nclient = 1000, nkeys = 10000, nwatch = 1000, per_stream = 1;
static uint32_t value_bytes = 256;
static double dur = 3, warm = 1;
static bool spin, serializable;
static const char *prefix = "bench/", *pids = "";
static struct conn *conns;
static int ep;
static bool measuring;
static uint64_t answers, events, keys, errors, total, chance = 88172645463325252u;
static char first_error[200];

static char *head_first, *head_again;     /* HEADERS of the method: a connection's first, and all others */
static size_t head_first_n, head_again_n;
static char *body;                        /* one DATA frame, but for the stream's number */
static size_t body_n, digits_at;
static uint32_t field;                    /* of the answer: which one is counted */
static uint32_t filled;                   /* FILL: the next key */
static uint32_t created, seen;            /* WATCH: watches that are there; those that have seen the last put */
static uint64_t put_t0;

static void failed(const char *what)
{
    errors++;
    if (!first_error[0])
        snprintf(first_error, sizeof first_error, "%s", what);
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------- */

static void be(char *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (char)(v >> (8 * (n - 1 - i)));
}

static void frame_head(char *p, uint32_t n, uint8_t type, uint8_t flags, uint32_t stream)
{
    be(p, n, 3);
    p[3] = (char)type;
    p[4] = (char)flags;
    be(p + 5, stream, 4);
}

static void out_add(struct conn *c, const void *p, size_t n)
{
    if (c->out_n + n > c->out_cap) {
        c->out_cap = (c->out_n + n) * 2;
        c->out = realloc(c->out, c->out_cap);
        if (!c->out)
            die("memory");
    }
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
}

static size_t varint(char *p, uint64_t v)
{
    size_t n = 0;
    for (; v > 127; v >>= 7)
        p[n++] = (char)(v | 128);
    p[n++] = (char)v;
    return n;
}

/* A field of bytes. */
static size_t pb_bytes(char *p, uint32_t no, const char *v, size_t n)
{
    size_t at = varint(p, no << 3 | 2);
    at += varint(p + at, n);
    memcpy(p + at, v, n);
    return at + n;
}
static size_t pb_number(char *p, uint32_t no, uint64_t v)
{
    size_t at = varint(p, no << 3);
    return at + varint(p + at, v);
}

/* The HEADERS of a method, twice: as the first of a connection, and as any further one. */
static void heads_make(const char *path)
{
    const char *fields[][2] = {{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "127.0.0.1"}, {"content-type", "application/grpc"},
                               {"user-agent", "grpc-c/storegen"}, {"te", "trailers"}};
    nghttp2_nv nv[sizeof fields / sizeof *fields];
    for (size_t i = 0; i < sizeof nv / sizeof *nv; i++)
        nv[i] = (nghttp2_nv){(uint8_t *)fields[i][0], (uint8_t *)fields[i][1], strlen(fields[i][0]), strlen(fields[i][1]), 0};
    nghttp2_hd_deflater *d;
    if (nghttp2_hd_deflate_new(&d, 4096))
        die("hpack");
    for (int i = 0; i < 2; i++) {
        char *p = alloc(1024);
        ssize_t n = nghttp2_hd_deflate_hd(d, (uint8_t *)p + 9, 1000, nv, sizeof nv / sizeof *nv);
        if (n < 0)
            die("hpack");
        frame_head(p, (uint32_t)n, 1, 4, 0); /* END_HEADERS */
        *(i ? &head_again : &head_first) = p;
        *(i ? &head_again_n : &head_first_n) = (size_t)n + 9;
    }
    nghttp2_hd_deflate_del(d);
}

/* message[n] as a frame of gRPC in a DATA frame that is (or is not) the stream's last. */
static void body_make(const char *message, size_t n, bool last)
{
    body_n = 9 + 5 + n;
    body = alloc(body_n);
    frame_head(body, (uint32_t)n + 5, 0, last, 0);
    be(body + 10, n, 4);
    memcpy(body + 14, message, n);
}

static size_t key_make(char *key, const char *end) { return (size_t)sprintf(key, "%s%s", prefix, end); }

static void request_make(enum mode m)
{
    static char text[1 << 20], value[1 << 19];
    char key[256];
    size_t n = 0, k = key_make(key, "00000000");
    memset(value, 'v', sizeof value);
    free(body);
    body = NULL;
    switch (m) {
    case PUT:
    case FILL:
        heads_make("/etcdserverpb.KV/Put");
        n = pb_bytes(text, 1, key, k);
        digits_at = 14 + n - 8;
        n += pb_bytes(text + n, 2, value, value_bytes);
        break;
    case GET:
        heads_make("/etcdserverpb.KV/Range");
        field = 2;
        n = pb_bytes(text, 1, key, k);
        digits_at = 14 + n - 8;
        if (serializable)
            n += pb_number(text + n, 7, 1);
        break;
    case LIST:
        heads_make("/etcdserverpb.KV/Range");
        field = 2;
        k = key_make(key, "");
        n = pb_bytes(text, 1, key, k);
        key[k - 1]++;
        n += pb_bytes(text + n, 2, key, k);
        if (serializable)
            n += pb_number(text + n, 7, 1);
        break;
    case WATCH: { /* WatchRequest{create_request} */
        heads_make("/etcdserverpb.Watch/Watch");
        field = 11;
        char create[256];
        size_t c = pb_bytes(create, 1, key, k);
        n = pb_bytes(text, 1, create, c);
    }
    }
    if (n > 16384 - 5) {
        errno = EMSGSIZE;
        die("a request has to fit into one frame");
    }
    body_make(text, n, m != WATCH);
}

/* ---- sending -------------------------------------------------------------------------------------------------------------- */

static void flush_out(struct conn *c)
{
    while (c->out_at < c->out_n) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_n - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            die("send");
        c->out_at += (size_t)n;
    }
    bool more = c->out_at < c->out_n;
    if (!more)
        c->out_at = c->out_n = 0;
    if (more != c->out_armed) {
        struct epoll_event ev = {.events = EPOLLIN | (more ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
        c->out_armed = more;
    }
}

static uint32_t rnd(uint32_t n)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)((chance >> 33) * n >> 31);
}

static void digits(uint32_t v)
{
    for (int i = 7; i >= 0; i--, v /= 10)
        body[digits_at + (size_t)i] = (char)('0' + v % 10);
}

/* The next request of a client; false: the window is used up, or there is none. */
static bool request_send(struct conn *c, struct client *k)
{
    if (mode == FILL && filled >= (uint32_t)nkeys)
        return false;
    if (c->window < (int64_t)body_n - 9) {
        c->blocked[c->blocked_n++] = (uint32_t)(k - c->clients);
        return false;
    }
    uint32_t stream = c->next_stream;
    char *head = c->sent_heads++ ? head_again : head_first;
    size_t head_n = c->sent_heads > 1 ? head_again_n : head_first_n;
    c->next_stream += 2;
    c->window -= (int64_t)body_n - 9;
    be(head + 5, stream, 4);
    be(body + 5, stream, 4);
    if (mode == PUT || mode == GET)
        digits(rnd((uint32_t)nkeys));
    else if (mode == FILL)
        digits(filled++);
    out_add(c, head, head_n);
    out_add(c, body, body_n);
    k->stream = stream;
    k->in = (struct parse){0};
    k->t0 = now_ns();
    c->slots[stream / 2 % SLOTS] = (uint16_t)(k - c->clients);
    return true;
}

/* WATCH: the other watches of a stream. */
static void more_watches(struct conn *c, struct client *k)
{
    for (int i = 1; i < per_stream; i++) {
        be(body + 5, k->stream, 4);
        out_add(c, body, body_n);
        c->window -= (int64_t)body_n - 9;
    }
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------- */

static struct client *client_of(struct conn *c, uint32_t stream)
{
    struct client *k = &c->clients[c->slots[stream / 2 % SLOTS]];
    if (k->stream == stream)
        return k;
    for (uint32_t i = 0; i < c->clients_n; i++)
        if (c->clients[i].stream == stream)
            return &c->clients[i];
    return NULL;
}

static void byte_take(struct parse *s, uint8_t b)
{
    s->varint |= (uint64_t)(b & 127) << s->shift;
    s->shift = (uint8_t)(s->shift + 7);
    if (b & 128)
        return;
    uint64_t v = s->varint;
    s->varint = s->shift = 0;
    if (s->what == 0) {
        s->tag = (uint32_t)v;
        s->what = (v & 7) == 0 ? 1 : 2;
    } else {
        if (s->what == 2)
            s->skip = (uint32_t)v;
        s->what = 0;
        if (s->tag >> 3 == field && (s->tag & 7) == 2)
            s->counted++;
        if (s->tag >> 3 == 3 && (s->tag & 7) == 0 && v)
            s->created++;
    }
}

static void data_take(struct parse *s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        if (s->head_n < 5) {
            s->head[s->head_n++] = p[i++];
            if (s->head_n == 5)
                s->left = (uint32_t)s->head[1] << 24 | (uint32_t)s->head[2] << 16 | (uint32_t)s->head[3] << 8 | s->head[4];
        } else if (s->skip) {
            size_t k = s->skip < n - i ? s->skip : n - i;
            s->skip -= (uint32_t)k;
            s->left -= (uint32_t)k;
            i += k;
        } else {
            s->left--;
            byte_take(s, p[i++]);
        }
        if (s->head_n == 5 && !s->left)
            s->head_n = 0;
    }
}

static struct client *writer;
static void events_take(struct client *k)
{
    created += k->in.created;
    k->in.created = 0;
    if (!k->in.counted)
        return;
    k->events += k->in.counted;
    seen += k->in.counted;
    total += k->in.counted;
    if (measuring) {
        events += k->in.counted;
        for (uint32_t i = 0; i < k->in.counted; i++)
            hist_add(now_ns() - put_t0);
    }
    k->in.counted = 0;
}

static void answered(struct conn *c, struct client *k)
{
    if (measuring) {
        answers++;
        keys += k->in.counted;
        if (mode != WATCH)
            hist_add(now_ns() - k->t0);
    }
    if (mode != WATCH)
        total++;
    if ((mode == LIST && k->in.counted != (uint32_t)nkeys) || (mode == GET && k->in.counted != 1))
        failed("an answer without the keys");
    k->stream = 0;
    if (mode == WATCH && !k->writer)
        failed("a watch has ended");
    else if (mode != WATCH)
        request_send(c, k);
}

/* Fields of an answer: its status has to be 0. */
static void fields_take(struct conn *c, const uint8_t *p, size_t n, bool last)
{
    while (n || last) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(c->hd, &nv, &flags, p, n, 1);
        if (used < 0) {
            errno = EBADMSG;
            die("fields");
        }
        p += used;
        n -= (size_t)used;
        if (flags & NGHTTP2_HD_INFLATE_EMIT && nv.namelen == 11 && !memcmp(nv.name, "grpc-status", 11) && (nv.valuelen != 1 || nv.value[0] != '0'))
            failed("grpc-status is not 0");
        if (flags & NGHTTP2_HD_INFLATE_EMIT && nv.namelen == 12 && !memcmp(nv.name, "grpc-message", 12) && nv.valuelen) {
            char text[100];
            snprintf(text, sizeof text, "%.*s", (int)nv.valuelen, (const char *)nv.value);
            if (!strcmp(first_error, "grpc-status is not 0"))
                first_error[0] = 0;
            if (!first_error[0])
                snprintf(first_error, sizeof first_error, "%s", text);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(c->hd);
            break;
        }
        if (!used && !(flags & NGHTTP2_HD_INFLATE_EMIT))
            break;
    }
}

static void window_more(struct conn *c, uint32_t n)
{
    c->window += n;
    uint32_t waited = c->blocked_n;
    c->blocked_n = 0;
    for (uint32_t i = 0; i < waited; i++)
        request_send(c, &c->clients[c->blocked[i]]);
}

static void frame_take(struct conn *c, const uint8_t *p, uint32_t n, uint8_t type, uint8_t flags, uint32_t stream)
{
    char b[32];
    struct client *k = stream ? client_of(c, stream) : NULL;
    switch (type) {
    case 0:
        if (flags & 8) {
            errno = EPROTO;
            die("padding");
        }
        if (k) {
            data_take(&k->in, p, n);
            if (mode == WATCH && !k->writer)
                events_take(k);
        }
        c->received += n;
        if (c->received > WINDOW_AGAIN) {
            frame_head(b, 4, 8, 0, 0);
            be(b + 9, c->received, 4);
            out_add(c, b, 13);
            c->received = 0;
        }
        break;
    case 1:
        if (flags & 0x20) {
            p += 5;
            n -= 5;
        }
        if (!(flags & 4)) {
            errno = EPROTO;
            die("fields in parts");
        }
        fields_take(c, p, n, true);
        break;
    case 3: failed("a stream was reset"); break;
    case 4:
        if (!(flags & 1)) { /* the initial window of streams is large enough for one request: only its size matters */
            frame_head(b, 0, 4, 1, 0);
            out_add(c, b, 9);
        }
        break;
    case 6:
        if (!(flags & 1)) {
            frame_head(b, 8, 6, 1, 0);
            memcpy(b + 9, p, 8);
            out_add(c, b, 17);
        }
        break;
    case 7:
        errno = ECONNRESET;
        die("the server says goodbye");
        break;
    case 8:
        if (!stream)
            window_more(c, (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
        break;
    }
    if ((type == 0 || type == 1) && flags & 1 && k)
        answered(c, k);
    else if (type == 3 && k)
        answered(c, k);
}

static void conn_read(struct conn *c)
{
    for (;;) {
        ssize_t got = recv(c->fd, c->in + c->in_n, c->in_cap - c->in_n, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0)
            die("a connection was closed");
        c->in_n += (size_t)got;
        size_t at = 0;
        while (c->in_n - at >= 9) {
            const uint8_t *h = (const uint8_t *)c->in + at;
            uint32_t n = (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2];
            if (c->in_n - at < 9 + n)
                break;
            frame_take(c, h + 9, n, h[3], h[4], ((uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8]) & 0x7fffffff);
            at += 9 + n;
        }
        memmove(c->in, c->in + at, c->in_n - at);
        c->in_n -= at;
        if ((size_t)got < c->in_cap / 2)
            return;
    }
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

static void conn_open(struct conn *c, uint32_t clients)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a))
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
    if (nghttp2_hd_inflate_new(&c->hd))
        die("hpack");
    c->clients = alloc(clients * sizeof *c->clients);
    c->blocked = alloc(clients * sizeof *c->blocked);
    c->clients_n = clients;
    c->next_stream = 1;
    c->window = 65535;
    c->in_cap = READ_BYTES;
    c->in = alloc(c->in_cap);
    char b[64];
    out_add(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    frame_head(b, 6, 4, 0, 0); /* SETTINGS: the initial window */
    be(b + 9, 4, 2);
    be(b + 11, WINDOW, 4);
    frame_head(b + 15, 4, 8, 0, 0);
    be(b + 24, WINDOW - 65535, 4);
    out_add(c, b, 28);
}

static void turn(bool wait)
{
    struct epoll_event ev[256];
    int n = epoll_wait(ep, ev, 256, spin || !wait ? 0 : 1);
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            conn_read(c);
        flush_out(c);
    }
}

static void watches_begin(void)
{
    request_make(WATCH);
    int streams = (nwatch + per_stream - 1) / per_stream, watches = 0;
    for (int i = 0; i < nconn; i++) {
        int mine = streams / nconn + (i < streams % nconn);
        conn_open(&conns[i], (uint32_t)mine);
        for (int k = 0; k < mine; k++) {
            request_send(&conns[i], &conns[i].clients[k]);
            more_watches(&conns[i], &conns[i].clients[k]);
            watches += per_stream;
        }
        flush_out(&conns[i]);
    }
    nwatch = watches;
    for (uint64_t until = now_ns() + 10000000000u; created < (uint32_t)nwatch && now_ns() < until;)
        turn(true);
    if (created < (uint32_t)nwatch)
        failed("not all watches were created");
    request_make(PUT);
    conn_open(&conns[nconn], 1);
    writer = conns[nconn].clients;
    writer->writer = true;
    seen = (uint32_t)nwatch;
}

/* The next put, when all have seen the last. */
static void watches_turn(void)
{
    if (seen < (uint32_t)nwatch || writer->stream)
        return;
    seen = 0;
    digits(0);
    nkeys = 1;
    put_t0 = now_ns();
    mode = PUT;
    request_send(&conns[nconn], writer);
    mode = WATCH;
    flush_out(&conns[nconn]);
}

static void clients_begin(void)
{
    request_make(mode);
    for (int i = 0; i < nconn; i++) {
        conn_open(&conns[i], (uint32_t)(nclient / nconn + (i < nclient % nconn)));
        for (uint32_t k = 0; k < conns[i].clients_n; k++)
            request_send(&conns[i], &conns[i].clients[k]);
        flush_out(&conns[i]);
    }
}

static void options(int argc, char **argv)
{
    static const char *const names[] = {"put", "get", "list", "watch", "fill"};
    int o;
    while ((o = getopt(argc, argv, "m:p:C:c:k:s:n:u:t:d:W:x:Sz")) != -1) {
        switch (o) {
        case 'm':
            for (mode = PUT; mode < FILL && strcmp(names[mode], optarg); mode++) {}
            break;
        case 'p': port = atoi(optarg); break;
        case 'C': nconn = atoi(optarg); break;
        case 'c': nclient = atoi(optarg); break;
        case 'k': nkeys = atoi(optarg); break;
        case 's': value_bytes = (uint32_t)atoi(optarg); break;
        case 'n': nwatch = atoi(optarg); break;
        case 'u': per_stream = atoi(optarg); break;
        case 't': prefix = optarg; break;
        case 'd': dur = atof(optarg); break;
        case 'W': warm = atof(optarg); break;
        case 'x': pids = optarg; break;
        case 'S': spin = true; break;
        case 'z': serializable = true; break;
        default: exit(2);
        }
    }
    if (nconn < 1 || nclient < nconn || nkeys < 1 || per_stream < 1 || nwatch < 1 || nclient / nconn >= SLOTS) {
        errno = EINVAL;
        die("options");
    }
}

int main(int argc, char **argv)
{
    options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = {1 << 20, 1 << 20};
    if (setrlimit(RLIMIT_NOFILE, &rl)) {
        getrlimit(RLIMIT_NOFILE, &rl);
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
    ep = epoll_create1(EPOLL_CLOEXEC);
    conns = alloc((size_t)(nconn + 1) * sizeof *conns);
    if (mode == WATCH)
        watches_begin();
    else
        clients_begin();
    uint64_t t0 = now_ns(), from = t0 + (uint64_t)(warm * 1e9), to = from + (uint64_t)(dur * 1e9), begun = t0;
    double cpu0 = 0, sys0 = 0, cpu1, sys1;
    if (mode == FILL) {
        from = t0;
        to = t0 + 600000000000u;
    }
    for (uint64_t t = now_ns(); t < to && !(mode == FILL && total >= (uint64_t)nkeys); t = now_ns()) {
        if (!measuring && t >= from) {
            measuring = true;
            begun = t;
            cpu0 = cpu_seconds(pids, &sys0);
        }
        if (mode == WATCH)
            watches_turn();
        turn(true);
        if (errors > 1000)
            break;
    }
    double wall = (double)(now_ns() - begun) / 1e9;
    cpu1 = cpu_seconds(pids, &sys1);
    uint64_t done = mode == WATCH ? events : answers;
    double cpu = cpu1 - cpu0;
    printf("{\"done\":%lu,\"wall\":%.4f,\"rps\":%.1f,\"keys\":%lu,\"cpu_s\":%.3f,\"sys_s\":%.3f,\"req_per_cpu_s\":%.1f,\"util\":%.4f,\"errors\":%lu,\"error\":\"%s\","
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           done, wall, (double)done / wall, keys, cpu, sys1 - sys0, cpu > 0 ? (double)done / cpu : 0, cpu / wall, errors, first_error, hist_us(.5), hist_us(.99),
           (double)hist_max / 1000);
    return 0;
}
