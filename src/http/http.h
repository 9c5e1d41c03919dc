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
    /* Nothing refers to c any more; its memory may go. */
    void (*released)(struct h1_srv *c);
};
struct h1_srv_conf {
    const struct h1_limits *limits;
    uint32_t head_timeout_ms, idle_timeout_ms, body_timeout_ms, linger_ms;
    struct head_out *out; /* scratch shared by all connections of the worker */
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
    bool head_request, keep_alive, answering, answered, consuming, paused, first;
};
/* Adopts an accepted socket. */
void h1_srv_open(struct h1_srv *c, struct loop *l, const struct h1_srv_conf *conf, const struct h1_srv_ops *ops, int fd);
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
 * H1_UNTIL_CLOSE both mean "length unknown": chunked to HTTP/1.1, ended by closing to HTTP/1.0. end: body is all of it.
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
/* After the answer's end: the connection may carry another request. */
bool h1_cli_reusable(const struct h1_cli *c);
void h1_cli_close(struct h1_cli *c);

#endif
