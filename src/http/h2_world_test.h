/* h2_world_test.h - what the tests of HTTP/2 share: a world on the simulator with both ends, their owners, and raw peers.
 *
 * `near` is the loop of the server's end, `far` that of the client's. The owner of a request behaves as the path says (see
 * request_begin()); a raw peer collects what it reads, and its frames can be counted.
 */
#ifndef H2_WORLD_TEST_H
#define H2_WORLD_TEST_H

#include "h2.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define PORT 23000
#define BIG (1u << 20)

/* ---- the world -------------------------------------------------------------------------------------------------------- */

struct request { /* one that a server's owner got */
    struct http_req *r;
    struct own *own;
    struct buf body;
    struct buf line, fields; /* method, path, query; "name: value\n" */
    struct h1_field trailers[8];
    int trailers_n;
    struct buf trailer;
    char path[64];
    size_t left;  /* of a drip */
    uint32_t calls, drains;
    bool end, aborted, over, answered;
    enum err err;
    enum h1_framing framing;
    bool upgrade, te_trailers, expect;
};
struct own { /* an http_srv with its owner */
    struct http_srv srv;
    uint32_t refusals;
    uint16_t status;
    char label[40];
    bool released;
};
struct raw { /* a peer that sends any bytes */
    struct stream s;
    struct buf got;
    bool connected, eof, failed, released;
};
struct use { /* an http_cli with its owner */
    struct http_cli cli;
    uint32_t connects, ended;
    enum err end_err;
    bool released;
};
struct call { /* one that a client's owner made */
    struct http_call k;
    struct use *u;
    struct buf body, fields, trailer;
    uint32_t interims, drains;
    uint16_t status;
    enum h1_framing framing;
    bool answered, end, failed, over, unsent, pause;
    bool open; /* its end is not sent when it drains */
    enum err err;
    size_t left; /* still to be sent */
};

extern struct world {
    struct loop *near, *far;
    struct head_out out;
    struct http_srv_conf sconf;
    struct http_cli_conf cconf;
    struct listener ln;
    struct own *own;   /* the last accepted */
    struct raw *raw;   /* the last accepted by a raw server */
    struct own *owns[16];
    struct raw *raws[64];
    struct use *uses[16];
    struct request **requests;
    struct call **calls;
    int owns_n, raws_n, uses_n, requests_n, requests_cap, calls_n, calls_cap, fd;
    struct request *last;
} W;


#define OPEN SIZE_MAX /* of a call: more will be sent by hand */
extern char filler[BIG];

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, CALM };

#define GET_LINES(path) ":method\tGET\n:scheme\thttp\n:path\t" path "\n:authority\tx.example\n"
#define POST_LINES(path) ":method\tPOST\n:scheme\thttp\n:path\t" path "\n:authority\tx.example\n"

struct frame {
    int type, flags;
    uint32_t id;
    const uint8_t *p;
    size_t n;
};

struct pieces one(struct iovec *v, const void *p, size_t n);
bool has(const struct buf *b, const char *what);
bool path_is(const struct request *q, const char *p);
struct use *use_open(void);
/* A request for "METHOD path" with further lines; body is sent with it, left afterwards as it drains. */
struct call *call_make(struct use *u, const char *what, const char *lines, enum h1_framing framing, const void *p, size_t n, size_t left);
struct call *get(struct use *u, const char *path);
void use_drained(struct http_call *k);
bool never(void *ctx);
void pass(uint64_t ms);
bool over(const struct raw *r);
void frame_add(struct buf *b, int type, int flags, uint32_t id, const void *p, size_t n);
void hpack_string(struct buf *b, const char *p, size_t n);
/* Literals without indexing; lines are "name\tvalue\n"; in values ^ stands for NUL and ~ for CR. */
void hpack_lines(struct buf *b, const char *lines);
void headers_add(struct buf *b, int flags, uint32_t id, const char *lines);
void raw_buf(struct raw *r, struct buf *b);
void raw_frame(struct raw *r, int type, int flags, uint32_t id, const void *p, size_t n);
void raw_headers(struct raw *r, int flags, uint32_t id, const char *lines);
struct raw *raw_open(bool greet);
/* How many frames of a type, on a stream (-1: any) came; *last is the last. */
uint32_t frames(const struct raw *r, int type, int64_t id, struct frame *last);
int64_t code_at(const uint8_t *p);
int64_t rst_code(const struct raw *r, uint32_t id);
int64_t goaway_code(const struct raw *r);
size_t data_bytes(const struct raw *r, uint32_t id);
/* Whether the stream was ended, and not reset. */
bool ended(const struct raw *r, uint32_t id);
void world_start(uint64_t seed, const struct sim_conf *faults, bool raw_server);
void plain_start(void);
/* A raw server, and our client connected to it with its SETTINGS exchanged. */
struct use *raw_server_start(const void *settings, size_t n);
/* Closes all; nothing may be left behind: no socket, no byte of memory. */
void world_stop(void);
extern const struct http_cli_ops use_ops;

#endif
