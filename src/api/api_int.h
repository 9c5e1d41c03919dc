/* api_int.h - private to the api room: the connection, what a handler sees of a request, and how it answers.
 *
 * conn.c owns connections and HTTP; the other files are handlers, which read a struct request and call one of the
 * answer functions exactly once, now or (after api_conn_hold()) later. Everything runs on the control loop.
 */
#ifndef API_INT_H
#define API_INT_H

#include "api.h"
#include <jansson.h>

enum api_limit {
#define X(name, label, value, help) API_LIMIT_##name,
#include "limits.def"
#undef X
    API_LIMIT_COUNT
};
/* One captured line that may not have reached its file yet; see logs.c. */
struct recent_line {
    struct list link;
    char *key; /* "namespace/deployment" */
    char *text;
    size_t n;
};

struct api {
    struct loop *loop;
    const struct node_ops *ops; /* the node's; outlive the api */
    void *ctx;
    struct listener admin, public;
    int unix_fd, http_fd;       /* the node's; -1: none */
    bool suspended;             /* another engine takes over */
    struct api_conn *upgrader;  /* waits for the end of an upgrade; NULL */
    struct list conns;          /* every open connection */
    struct list followers;      /* those that follow a log */
    uint32_t admin_n, public_n; /* open connections by kind */
    struct list recent;         /* struct recent_line, oldest first */
    size_t recent_bytes;        /* held by them */
    counter requests;           /* answered */
    counter failures;           /* of those, with a status of 500 or more */
    counter malformed;          /* heads that the codec refused */
    counter lines_dropped;      /* followed lines that a slow reader did not get */
    counter limit_hits[API_LIMIT_COUNT];
    uint32_t limit[API_LIMIT_COUNT]; /* the values of limits.def; tests make them smaller */
};

/* A parsed request. Everything is valid until it is answered. */
struct request {
    enum h1_method method; /* GET also for HEAD */
    bool head_only;        /* it was HEAD */
    bool http10;           /* the client can't read chunks */
    char *path, *query;    /* NUL-terminated copies; query without its '?' */
    struct slice body;
};

enum conn_state {
    CONN_HEAD,   /* waiting for, or collecting, a request head */
    CONN_BODY,   /* collecting the body */
    CONN_BUSY,   /* a handler holds the connection and will answer later */
    CONN_STREAM, /* a chunked answer is being written */
    CONN_CLOSING /* the last answer is written: what comes is thrown away until the peer's FIN */
};

struct api_conn {
    struct stream stream;
    struct api *api;    /* NULL once closed */
    struct list link;   /* api->conns */
    struct list follow; /* api->followers, or alone */
    bool admin;         /* came over the Unix socket */
    bool keep_alive;    /* after the current request */
    bool asked;         /* something of a request has come */
    bool eof;           /* the peer's FIN came: answer what is complete, then close */
    bool in_process;    /* conn_process() is on the stack: it loops, it does not nest */
    bool dead;          /* closed: no callback may touch it */
    enum conn_state state;
    struct buf in;     /* bytes not yet consumed */
    size_t in_parsed;  /* of them, how many the last try at a head saw */
    size_t body_bytes; /* wanted, in CONN_BODY */
    struct arena mem;  /* of the current request; reset after it */
    struct request req;
    struct timer timer;                 /* the deadline of the state: head, body, idle, linger */
    struct timer write_timer;           /* a reader that takes nothing */
    size_t write_left;                  /* bytes that waited for it when write_timer was last set */
    struct timer poll;                  /* rollout.c: looks again */
    void (*detach)(struct api_conn *c); /* a handler's, called when the connection ends before the answer did */
    void *hold;                         /* the handler's own; see detach */
};

/* ---- conn.c: answering ---- */
void api_answer(struct api_conn *c, uint16_t status, const char *type, struct slice body);
void api_answer_json(struct api_conn *c, uint16_t status, const struct buf *json);
/* {"error": ..., "remedy": ...} */
void api_error(struct api_conn *c, uint16_t status, const char *remedy, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* 405; allow lists the methods that would do. */
void api_error_allow(struct api_conn *c, const char *allow);
/* The handler answers later. detach() is called when the connection ends first; api_answer() ends the hold without it. */
void api_conn_hold(struct api_conn *c, void *hold, void (*detach)(struct api_conn *c));
/* An answer of unknown length: begin, any number of chunks, end. For HEAD, begin ends it as well: returns false. */
bool api_stream_begin(struct api_conn *c, const char *type);
void api_stream_chunk(struct api_conn *c, struct slice data);
void api_stream_end(struct api_conn *c); /* calls detach(), too */
/* The stream goes on with look(), by timer c->poll, which sets it again: after ms. It ends at once where the client left, or another engine began to take over, while the request waited. */
void api_stream_follow(struct api_conn *c, void (*look)(struct timer *t), uint32_t ms);
void api_conn_close(struct api_conn *c);
/* No request follows the one under way, or the first, which is still to come from who has just connected; at rest, and when it follows something, it ends at once. */
void api_conn_last(struct api_conn *c);
void api_limit_hit(struct api *a, enum api_limit l);
/* A query parameter, percent-decoded, in the request's arena; NULL when absent. */
char *api_query(struct api_conn *c, const char *name);
bool api_query_flag(struct api_conn *c, const char *name); /* present, and neither "0" nor "false" */
/* conn.c: connections come and go */
void api_conn_new(struct api *a, int fd, bool admin);
/* api.c: finds the endpoint and calls it. */
void api_dispatch(struct api_conn *c);

/* ---- the handlers, by file ---- */
#define X(method, path, port, view, fn, help) void fn(struct api_conn *c);
#include "endpoints.def"
#undef X

/* ---- shared by handlers ---- */
/* A JSON object of a request body; answers 400 itself and returns NULL when it is not one. The caller decrefs. */
json_t *api_body_object(struct api_conn *c);

/* objects.c: the object as its manifest says, without status and owners; values of Secrets as their sizes and digests. A new reference. */
json_t *api_manifest(const struct object *o, const struct keyring *keys);
/* conditions.c: the status of Gateways, routes, and what else has conditions; NULL for other kinds. plan may be NULL. */
json_t *conditions_status(const struct api *a, const struct objset *set, const struct plan *plan, const struct object *o);
json_t *json_condition(const char *type, bool on, const char *reason, const char *message);
json_t *json_reason(const char *text); /* text that may hold anything; NULL is "" */
void json_put(json_t *o, const char *key, json_t *value); /* takes value */
const char *api_json_str(const json_t *o, const char *key, const char *absent);
/* "ns/name" of parameter workload split in place (namespace "default" when it has no '/'); false: absent. */
bool api_query_workload(struct api_conn *c, const char **ns, const char **name);
void api_add_diags(struct buf *out, const struct diags *d); /* a JSON array */
/* Deployments of the whole system; what each() is given is valid during the call. */
void api_workloads(struct api *a, void (*each)(void *ctx, const struct workload_status *w), void *ctx);
/* Takes body. What the text has of the object, which may be a part of it, is changed and manager's from then on; answered as an apply. */
void api_change_text(struct api_conn *c, json_t *body, struct slice text, const char *manager, const char *what);
char *api_time_text(char out[32], uint64_t wall);           /* RFC 3339, UTC, seconds */
uint64_t api_replica_memory(int32_t pid);                   /* working set in bytes; 0 when unknown */
void api_logs_fini(struct api *a);

#endif
