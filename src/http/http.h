/* http.h - HTTP connections in both roles, over rt's streams and wire's codec.
 *
 * h1_srv is a connection that a client opened: it reads requests one after the other and hands each to its owner; h1_cli is
 * a connection that we opened: it carries one request at a time and may rest in a pool between. Neither knows routes or
 * endpoints. Both deliver a head together with the part of the body that came with it, so that the other side can be
 * written with one system call; bodies are handed on as pieces that lie in the loop's read buffer and are gone when the
 * callback returns. Backpressure: writing returns what is queued; the owner stops the reading of the other connection until
 * drained().
 */
#ifndef HTTP_H
#define HTTP_H

#include "http1.h"
#include "rt.h"

/* ---- head_out: a message head being written ------------------------------------------------------------------------ */

/* One per worker: a head is built in it and written out before the next one begins. Its last bytes are kept for what
 * h1_srv_answer() adds (framing, connection, the empty line): a head that fits for its builder always fits. */
#define HEAD_OUT_BYTES 98304
#define HEAD_OUT_TAIL 128
struct head_out {
    char *p;
    size_t n;
    size_t max; /* bytes that may be put now */
    bool over;  /* it did not fit: nothing that was put counts */
};
void head_out_init(struct head_out *o);
void head_out_fini(struct head_out *o);
static inline void head_clear(struct head_out *o)
{
    o->n = 0;
    o->max = HEAD_OUT_BYTES - HEAD_OUT_TAIL;
    o->over = false;
}
static inline void head_tail(struct head_out *o) { o->max = HEAD_OUT_BYTES; }
static inline void head_put(struct head_out *o, const void *p, size_t n)
{
    if (UNLIKELY(n > o->max - o->n)) {
        o->over = true;
        return;
    }
    memcpy(o->p + o->n, p, n);
    o->n += n;
}
#define head_lit(o, lit) head_put((o), (lit), sizeof(lit) - 1)
static inline void head_slice(struct head_out *o, struct slice s) { head_put(o, s.p, s.n); }
void head_u64(struct head_out *o, uint64_t v);
/* "Name: value\r\n" */
static inline void head_field(struct head_out *o, struct slice name, struct slice value)
{
    head_slice(o, name);
    head_lit(o, ": ");
    head_slice(o, value);
    head_lit(o, "\r\n");
}
/* "HTTP/1.1 404 Not Found\r\n"; an empty reason stands for RFC 9110's. */
void head_status(struct head_out *o, uint16_t status, struct slice reason);

/* Pieces of a body as they lie in memory; valid during the call. */
struct pieces {
    const struct iovec *v;
    int n;
    size_t bytes;
};
#define PIECES_MAX 60

/* The body of a message as it is read; both ends embed one. Private to http. */
struct body_in {
    uint64_t left;              /* with H1_LENGTH: bytes to come */
    struct h1_chunked *chunked; /* with H1_CHUNKED; stays until the next message begins, for its trailers */
    uint8_t framing;            /* enum h1_framing */
};

/* ---- the server's end ------------------------------------------------------------------------------------------------ */

struct h1_srv;
struct h1_srv_ops {
    /* A request. h and body are valid during the call. end: the whole body is in body. The owner answers now or later. */
    void (*request)(struct h1_srv *c, const struct h1_head *h, struct pieces body, bool end);
    /* More of its body. At the end, h1_srv_trailers() may be asked. */
    void (*body)(struct h1_srv *c, struct pieces body, bool end);
    /* What was queued for the client is in the kernel. */
    void (*drained)(struct h1_srv *c);
    /* The client left, or was too slow (ERR_TIMEOUT), or broke the body's framing (ERR_SYNTAX), while the exchange was open:
     * it is over, nothing may be written. */
    void (*aborted)(struct h1_srv *c, enum err e);
    /* A request was refused before it reached the owner and is being answered: for counting. status is 408 for a slow head. */
    void (*refused)(struct h1_srv *c, uint16_t status, const char *label);
    /* The first bytes are HTTP/2's preface, with conf.preface: the callee takes the stream over. p[n]: valid during the call. */
    void (*preface)(struct h1_srv *c, const char *p, size_t n);
    /* The TLS handshake is complete. May be NULL. */
    void (*secured)(struct h1_srv *c);
    /* Nothing refers to c any more; its memory may go. */
    void (*released)(struct h1_srv *c);
};
struct h1_srv_conf {
    const struct h1_limits *limits;
    uint32_t head_timeout_ms, idle_timeout_ms, body_timeout_ms, linger_ms;
    struct head_out *out; /* scratch shared by all connections of the worker */
    bool preface;         /* look for HTTP/2's */
    bool eof_leaves;      /* a client that ends its direction before its answer is complete has left: aborted(). Else it may still read */
};
enum h1_srv_state { SRV_HEAD, SRV_BODY, SRV_WAIT, SRV_LINGER, SRV_CLOSED };

/* Embedded in its owner; all fields are http's. */
struct h1_srv {
    struct stream s;
    const struct h1_srv_ops *ops;
    const struct h1_srv_conf *conf;
    struct timer timer;         /* head, idle, body or linger, by state */
    struct task resume;         /* goes on with what lies in in[] */
    char *in;                   /* bytes read ahead or a head that is not complete; NULL when none */
    uint32_t in_n, in_cap;
    size_t scan;                /* how far in[] was searched for the end of the head */
    struct body_in body;        /* of the request being read */
    uint32_t lingered;          /* bytes thrown away while lingering */
    size_t unsent_before;       /* bytes queued for the client when the timer of its reading was set */
    uint8_t state;              /* enum h1_srv_state */
    uint8_t minor;              /* of the request */
    uint8_t answer;             /* enum h1_framing of the answer's body as sent */
    bool head_request, connect_request, keep_alive, answering, answered, consuming, paused, first;
};
/* Adopts an accepted socket. */
void h1_srv_open(struct h1_srv *c, struct loop *l, const struct h1_srv_conf *conf, const struct h1_srv_ops *ops, int fd);
/* The same for a stream that is adopted already: within its data(). */
void h1_srv_take(struct h1_srv *c, const struct h1_srv_conf *conf, const struct h1_srv_ops *ops);
void h1_srv_feed(struct h1_srv *c, struct slice early); /* bytes that were read before */
/* Answers a request that never reached the owner (or a connection that is one too many), and ends the connection. Calls
 * refused(). text is a sentence without a newline. */
void h1_srv_refuse(struct h1_srv *c, uint16_t status, const char *label, const char *text);
/* Reads no more of the request's body until on again. */
void h1_srv_reading(struct h1_srv *c, bool on);
/* After the end of a chunked body: its decoder, for h1_chunked_trailers(); NULL when the body was not chunked. */
const struct h1_chunked *h1_srv_trailers(const struct h1_srv *c);
/* 100 to 199: an interim answer; o holds status line and fields without the final empty line. Not sent to HTTP/1.0. */
void h1_srv_interim(struct h1_srv *c, struct head_out *o);
/* The answer: o holds the status line and all fields but those of framing and connection, which are added here. framing
 * H1_NO_BODY: no body follows and no length is said (the caller may have put one: HEAD, 304). H1_CHUNKED and
 * H1_UNTIL_CLOSE both mean "length unknown": chunked to HTTP/1.1, ended by closing to HTTP/1.0. H1_TUNNEL, with status 101, or 2xx to a CONNECT:
 * bytes from now on, in both directions; the client may end its own first (body(end)), h1_srv_end() ends both. end: body is all of it.
 * Returns bytes queued. */
size_t h1_srv_answer(struct h1_srv *c, struct head_out *o, enum h1_framing framing, uint64_t length, struct pieces body, bool end);
size_t h1_srv_send(struct h1_srv *c, struct pieces body);
/* The body is complete. trailers: lines with CRLF, or empty; only sent when the answer is chunked. */
void h1_srv_end(struct h1_srv *c, struct slice trailers);
/* The client is not asked for another request on this connection. Before h1_srv_answer() it is told so. */
void h1_srv_last(struct h1_srv *c);
/* Between two requests, with nothing of a next one read and nothing of an answer unsent: may be closed without loss. */
bool h1_srv_idle(const struct h1_srv *c);
/* At once; an answer that was begun is cut off, so that the client sees that it is not whole. No aborted(). */
void h1_srv_close(struct h1_srv *c);

/* ---- the client's end -------------------------------------------------------------------------------------------------- */

struct h1_cli;
struct h1_cli_ops {
    void (*connected)(struct h1_cli *c);
    void (*interim)(struct h1_cli *c, const struct h1_head *h);
    void (*response)(struct h1_cli *c, const struct h1_head *h, struct pieces body, bool end);
    void (*body)(struct h1_cli *c, struct pieces body, bool end);
    void (*drained)(struct h1_cli *c);
    /* The exchange ended badly: connect failed, reset, closed too early (ERR_CLOSED), or a malformed answer (ERR_SYNTAX). The
     * connection is useless: close it. */
    void (*failed)(struct h1_cli *c, enum err e);
    /* At rest, the peer closed it or spoke out of turn: close it. */
    void (*idle_end)(struct h1_cli *c);
    void (*released)(struct h1_cli *c);
};
enum h1_cli_state { CLI_IDLE, CLI_HEAD, CLI_BODY, CLI_CLOSED };

struct h1_cli {
    struct stream s;
    const struct h1_cli_ops *ops;
    const struct h1_limits *limits;
    char *in;
    uint32_t in_n, in_cap;
    size_t scan;
    struct body_in body;         /* of the answer being read */
    uint64_t exchanges;          /* begun on this connection */
    uint64_t sent_before;        /* bytes, when the exchange began: see stream_unheard() */
    uint32_t interim_bytes;      /* of 1xx answers in this exchange; together they may be as long as one head */
    uint32_t keep_alive_s;       /* the peer's Keep-Alive: timeout=, 0 when it said none */
    uint8_t state;               /* enum h1_cli_state */
    uint8_t method;              /* enum h1_method of the request in progress */
    uint8_t sending;             /* enum h1_framing of the request's body */
    bool connected, answer_begun /* a byte of the answer has come */, sent /* all of the request has been written */, keep_alive, paused;
};
/* fd: an unconnected socket, or -1. */
void h1_cli_connect(struct h1_cli *c, struct loop *l, const struct h1_limits *limits, const struct h1_cli_ops *ops, int fd, const struct addr *a);
/* Begins an exchange (state idle). head: complete, with the empty line, framing fields included. */
size_t h1_cli_request(struct h1_cli *c, enum h1_method method, struct slice head, enum h1_framing framing, struct pieces body, bool end);
size_t h1_cli_send(struct h1_cli *c, struct pieces body);
void h1_cli_end(struct h1_cli *c, struct slice trailers);
void h1_cli_reading(struct h1_cli *c, bool on);
const struct h1_chunked *h1_cli_trailers(const struct h1_cli *c);
void h1_cli_poured(struct h1_cli *c); /* the rest of the answer's body was taken from the stream by somebody else */
/* After the answer's end: the connection may carry another request. */
bool h1_cli_reusable(const struct h1_cli *c);
void h1_cli_close(struct h1_cli *c);

/* ---- either version -------------------------------------------------------------------------------------------------- */

/* http_srv is a connection that a client opened, http_req a request that came on it; http_cli is a connection that we opened,
 * http_call a request that goes over it. HTTP/1 has one at a time, HTTP/2 many; the owner need not know which it is. A
 * client's version is known by ALPN, or in clear by the preface of HTTP/2 ("prior knowledge"). Heads are struct h1_head and
 * HTTP/1 text in both: HTTP/2's pseudo fields become method, target, authority, status; fields of HTTP/1's framing never
 * cross. An extended CONNECT (RFC 8441) looks like the upgrade of HTTP/1.1 that it stands for: GET, Upgrade: websocket,
 * h->upgrade set, answered with 101 and H1_TUNNEL; the same the other way round.
 *
 * Ends. A request is over when its answer is complete and its own body is read (or thrown away, or reset); a call is over
 * with the end of its answer, failed(), or http_call_cancel(). No callback for it follows. */

/* HTTP/2 of one worker. */
struct http_counters {
    counter h2_connections, h2_requests;      /* of clients */
    counter h2_resets, h2_resets_ours;        /* their streams, reset by them; by us, for their faults */
    counter h2_calm;                          /* their connections that were ended for a flood */
    counter h2_up_connections;                /* to services */
    counter h2_up_resets, h2_up_goaways;      /* calls that they reset; connections that they asked to leave */
    counter h2_up_hung;                       /* connections that were given up because nothing was heard: ask_ms */
};

struct http_srv;
struct http_req;
struct http_srv_ops {
    /* A request. h and body are valid during the call. end: the whole body is in body. The owner answers now or later, and
     * may set r->owner. */
    void (*request)(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end);
    /* More of its body; at the end http_req_trailers() may be asked, during this call. */
    void (*body)(struct http_req *r, struct pieces body, bool end);
    /* What was queued for the client is in the kernel (HTTP/2: on its way as far as flow control let it). */
    void (*drained)(struct http_req *r);
    /* The client left or reset the stream (ERR_CLOSED), was too slow (ERR_TIMEOUT), broke the framing (ERR_SYNTAX): it is over. */
    void (*aborted)(struct http_req *r, enum err e);
    /* Refused before it reached the owner, and being answered: for counting. */
    void (*refused)(struct http_srv *c, uint16_t status, const char *label);
    /* The TLS handshake is complete; the owner may ask stream_tls_...(). May be NULL. */
    void (*secured)(struct http_srv *c);
    /* Nothing refers to c any more; its memory may go. After aborted() of all its requests. */
    void (*released)(struct http_srv *c);
};
struct http_srv_conf {
    struct h1_srv_conf h1;
    bool h2;                      /* HTTP/2 is offered: by prior knowledge and, where the tls_ctx says so, by ALPN */
    uint32_t streams_max;         /* concurrent, per connection; default 256 */
    uint32_t window_bytes;        /* of a stream: what a client may send ahead; default 65,535 */
    uint32_t conn_window_bytes;   /* of a connection; default 1 MiB */
    uint32_t resets_max;          /* RST_STREAM from the client per resets_ms beyond which the connection ends (CVE-2023-44487); 200 in 1,000 ms */
    uint32_t resets_ms;
    struct http_counters *count;  /* or NULL */
};
void http_srv_conf_default(struct http_srv_conf *c); /* all but h1.limits and h1.out */

struct h2_srv;
struct h2_req;
struct http_req {
    struct http_srv *c;
    void *owner;                  /* the user's */
    struct h2_req *h2;            /* NULL: HTTP/1 */
};
/* Embedded in its owner; all fields but owner are http's. */
struct http_srv {
    struct h1_srv h1;             /* its stream carries HTTP/2 as well */
    struct h2_srv *h2;            /* once the client speaks it */
    struct http_req req;          /* HTTP/1's one */
    const struct http_srv_ops *ops;
    const struct http_srv_conf *conf;
    bool secure;                  /* over TLS */
};
/* Adopts an accepted socket. tls: its handshake comes first; NULL: clear text. */
void http_srv_open(struct http_srv *c, struct loop *l, const struct http_srv_conf *conf, const struct http_srv_ops *ops, int fd, struct tls_ctx *tls);
/* The same for a stream that the owner has adopted in http_srv_stream(c) and read from: within its data(). early: what came behind
 * what the owner took. */
void http_srv_take(struct http_srv *c, const struct http_srv_conf *conf, const struct http_srv_ops *ops, struct tls_ctx *tls, struct slice early);
/* A connection that is one too many: answers it with status and ends it. Calls refused(). */
void http_srv_refuse(struct http_srv *c, uint16_t status, const char *label, const char *text);
/* No further requests: HTTP/1 says so in the next answer, HTTP/2 by GOAWAY (twice, RFC 9113 section 6.8); requests that are under
 * way, or on their way to us, end well, then the connection closes. An idle one of HTTP/1 closes now. */
void http_srv_last(struct http_srv *c);
bool http_srv_idle(const struct http_srv *c);
/* False while an HTTP/1 answer is on its way: its head has gone, so the client can't be told in it that no other request is wanted. */
bool http_srv_can_say_last(const struct http_srv *c);
void http_srv_close(struct http_srv *c); /* at once; no aborted() */
static inline struct stream *http_srv_stream(struct http_srv *c) { return &c->h1.s; }
static inline bool http_req_is_h2(const struct http_req *r) { return r->h2 != NULL; }

void http_req_reading(struct http_req *r, bool on);       /* off: no body() until on again; HTTP/2 stops widening the stream's window */
int http_req_trailers(struct http_req *r, struct h1_field *fields, int max); /* as h1_chunked_trailers(); 0 without */
void http_req_interim(struct http_req *r, struct head_out *o);
/* As h1_srv_answer(). With H1_TUNNEL (status 101; 2xx to CONNECT) bytes flow both ways from now on: body() and http_req_send() carry them,
 * body(end) is the end of the client's direction, http_req_end() ends both. Returns bytes queued. */
size_t http_req_answer(struct http_req *r, struct head_out *o, enum h1_framing framing, uint64_t length, struct pieces body, bool end);
size_t http_req_send(struct http_req *r, struct pieces body);
void http_req_end(struct http_req *r, struct slice trailers); /* trailers: lines with CRLF */
/* The client may send no more of this request's body: what comes is thrown away (HTTP/1: and the connection ends after the answer). */
void http_req_last(struct http_req *r);
/* Before its answer: it was certainly not processed, and may be sent elsewhere whatever its method. HTTP/2 resets the stream with REFUSED_STREAM
 * (RFC 9113 section 8.7), HTTP/1 has no word for that and closes. No aborted(). */
void http_req_refuse(struct http_req *r);
/* Ends it at once so that the client sees that the answer is not whole: HTTP/1 closes the connection, HTTP/2 resets the stream.
 * No aborted(). */
void http_req_cut(struct http_req *r);

struct http_cli;
struct http_call;
struct http_cli_ops {
    /* The connection stands (the TLS handshake included); c->version is known. Calls begun before are on their way. */
    void (*connected)(struct http_cli *c);
    void (*interim)(struct http_call *k, const struct h1_head *h);
    /* The answer's head; framing H1_TUNNEL when an upgrade was agreed to. end: the call is over. */
    void (*response)(struct http_call *k, const struct h1_head *h, struct pieces body, bool end);
    void (*body)(struct http_call *k, struct pieces body, bool end); /* at the end http_call_trailers(), during this call */
    void (*drained)(struct http_call *k);
    /* It ended badly: connect failed, reset (k->reset_code says how, HTTP/2), closed too early (ERR_CLOSED), malformed (ERR_SYNTAX),
     * TLS refused (ERR_TLS). k->unsent: the peer has certainly not processed it (never written, GOAWAY, REFUSED_STREAM). The
     * call is over. The owner must not close c here when c->h2: ended() tells. */
    void (*failed)(struct http_call *k, enum err e);
    /* The connection takes no more calls and has none: close it. HTTP/1: at rest the peer closed it or spoke out of turn, or
     * it failed. Not called after http_cli_close(). */
    void (*ended)(struct http_cli *c, enum err e);
    void (*released)(struct http_cli *c);
};
enum http_version { HTTP_UNKNOWN, HTTP_1, HTTP_2 };
struct http_cli_conf {
    const struct h1_limits *limits;
    struct head_out *out;         /* scratch of the worker */
    uint32_t window_bytes, conn_window_bytes;
    uint32_t streams_max;         /* our own bound on concurrent calls over one HTTP/2 connection; the peer's counts too */
    uint32_t ask_ms, hung_ms;     /* HTTP/2: with calls under way and without a byte for ask_ms the peer is asked by PING; without one for another
                                   * hung_ms the connection has broken (ERR_TIMEOUT). 0: never */
    struct http_counters *count;  /* or NULL */
};
void http_cli_conf_default(struct http_cli_conf *c); /* all but limits and out */
struct h2_cli;
/* One call; embedded in its owner, which keeps it until it is over. */
struct http_call {
    struct http_cli *c;           /* while it is under way, and in its last callback */
    struct h2_call *h2;           /* HTTP/2's part */
    uint32_t reset_code;          /* RFC 9113 section 7, when the peer reset it */
    bool unsent;                  /* with failed() */
    bool stale;                   /* with failed(): it went out on a kept connection that its peer had ended before it came there */
    bool answer_begun;            /* something of the answer has come */
    bool sent;                    /* all of the request is written, or queued */
};
struct http_cli {
    struct h1_cli h1;             /* its stream carries HTTP/2 as well */
    struct h2_cli *h2;            /* with HTTP_2 */
    struct http_call *call;       /* HTTP/1's one */
    const struct http_cli_ops *ops;
    const struct http_cli_conf *conf;
    struct slice ahead;           /* the owner's, before http_cli_connect(): bytes that go out before all else (a PROXY header) */
    uint8_t version;              /* enum http_version; HTTP_UNKNOWN until ALPN has decided */
    bool waits;                   /* the version is not known: no calls before connected() */
    bool ending;                  /* ended() is on its way or was told */
};
/* Connects. fd: an unconnected socket, or -1. version: HTTP_1, HTTP_2 (prior knowledge, or the only ALPN wanted), HTTP_UNKNOWN: as
 * ALPN decides. tls NULL: clear text; sni and verify as in stream_tls_connect(). */
struct http_tls {
    struct tls_ctx *ctx;
    struct tls_peer_name name;
    struct tls_session_slot *sessions;
};
void http_cli_connect(struct http_cli *c, struct loop *l, const struct http_cli_conf *conf, const struct http_cli_ops *ops, int fd, const struct addr *a, enum http_version version, const struct http_tls *tls);
/* How many calls may be begun now: HTTP/1 1 or 0; HTTP/2 the free streams. 0 when it is ending, or its version not yet known. */
uint32_t http_cli_room(const struct http_cli *c);
uint32_t http_cli_calls(const struct http_cli *c); /* under way */
/* HTTP/2: how many calls at once the peer has said that it takes; 0: it has said nothing yet, and room counts on 100 (RFC 9113 section 6.5.2). */
uint32_t http_cli_streams_told(const struct http_cli *c);
void http_cli_rest(struct http_cli *c);            /* HTTP/1 without a call: reads, to see its end */
/* Begins a call (room > 0). head: HTTP/1 text, complete with the empty line and framing fields. scheme "http" or "https" goes
 * into :scheme. With H1_TUNNEL the head asks for an upgrade, or is a CONNECT. Returns bytes queued. */
size_t http_cli_request(struct http_cli *c, struct http_call *k, enum h1_method method, struct slice head, enum h1_framing framing, struct pieces body, bool end);
size_t http_call_send(struct http_call *k, struct pieces body);
size_t http_call_queued(const struct http_call *k); /* what http_call_send() would return now */
void http_call_end(struct http_call *k, struct slice trailers);
void http_call_reading(struct http_call *k, bool on);
int http_call_trailers(struct http_call *k, struct h1_field *fields, int max);
/* From within response() or body(), with nothing queued for r: what is left of the answer's body goes to r's client inside the kernel,
 * without its owner. done as in pour_start(): after OK, http_call_poured() ends the call, and http_req_end() the answer. False: it can't be
 * done (HTTP/2, TLS, another framing, too little is left), and nothing changes. */
bool http_call_pour(struct http_call *k, struct http_req *r, struct pour *p, void (*done)(struct pour *p, enum err e));
void http_call_poured(struct http_call *k);
/* Gives it up: HTTP/2 resets the stream; HTTP/1's connection is useless afterwards (http_cli_room() is 0, close it). */
void http_call_cancel(struct http_call *k);
void http_cli_close(struct http_cli *c); /* at once; calls under way get failed(ERR_CLOSED) unless cancelled before */
static inline struct stream *http_cli_stream(struct http_cli *c) { return &c->h1.s; }

#endif
