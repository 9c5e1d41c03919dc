/* etcd_int.h - private to the etcd API: connections, calls, and what handlers do with them.
 *
 * etcd_call.c owns connections and calls, and speaks gRPC; the other files are handlers: they read a request, ask ctl, and give the answer to
 * etcd_answer() or etcd_stream_send(). Everything is on one loop.
 */
#ifndef ETCD_INT_H
#define ETCD_INT_H

#include "etcd.h"
#include "etcd_api.h"
#include "http.h"

#define ETCD_VERSION "3.5.0" /* whose API this is, as far as clients ask */

enum etcd_limit {
#define X(name, label, value, help) ETCD_LIMIT_##name,
#include "etcd_limits.def"
#undef X
    ETCD_LIMIT_COUNT
};

#define ETCD_SHARE 8 /* one asker has at most this part of what all share while half of it is taken: the rest is for others */

struct etcd_call;
enum etcd_kind { ETCD_UNARY, ETCD_STREAM };
struct etcd_method {
    const char *service, *name;
    const ProtobufCMessageDescriptor *request; /* NULL: not read */
    enum etcd_kind kind;
    /* UNARY: the request, once: it answers now or in done() of a call to ctl. STREAM: each message, in turn; call->held puts off the next one.
     * The message is in call->mem, which is reset when it is answered (UNARY) or before the next message (STREAM). */
    void (*handle)(struct etcd_call *call, const ProtobufCMessage *m);
    const char *why;                           /* NULL; else it is refused: why */
};

struct etcd_api {
    struct loop *loop;
    struct ctl *ctl;
    struct etcd_api_conf conf;
    struct listener listener;
    bool listening, suspended, freed;
    struct table methods;           /* "/service/method" -> struct etcd_method */
    struct list conns;              /* struct etcd_conn */
    struct table askers;            /* principal -> struct etcd_asker */
    uint32_t conns_n, calls_n;      /* calls: those that have a client, or a question at ctl */
    uint32_t asked_n;               /* unary calls that are not answered */
    struct list pool;               /* struct etcd_call, kept for the next ones */
    uint32_t pool_n, pool_least;    /* least: so many there were at any time since the pool was looked at */
    struct timer pool_rest;         /* looks at it, while there are some */
    bool pool_looked;               /* pool_rest is set */
    size_t in_bytes;                /* that calls hold of messages */
    size_t watches_bytes;           /* of keys that are watched */
    size_t out_bytes;               /* that wait on calls, as far as they were told */
    struct http_srv_conf srv_conf;
    struct h1_limits h1_limits;
    struct head_out head;           /* scratch, as the next */
    struct buf out, text;
    struct http_counters http;
    uint32_t limit[ETCD_LIMIT_COUNT]; /* the values of etcd_limits.def; tests make them smaller */
    counter limit_hits[ETCD_LIMIT_COUNT];
    counter requests, failures;     /* calls answered; of them, with a status other than 0 */
    counter watches, events;        /* watches now; events sent */
    counter denied;                 /* requests and watches that their callers may not */
    struct etcd_access *access;     /* NULL: there are no keyspaces */
};

/* All who come as one principal, and what they have of what all share. There while they have a connection or a call. */
struct etcd_asker {
    struct slice principal;         /* the table's */
    uint32_t conns_n, calls_n, watches_n;
    size_t in_bytes, out_bytes, watches_bytes;
};

struct etcd_conn {
    struct http_srv srv;
    struct etcd_api *api;           /* NULL once it is closed */
    struct list link;               /* api->conns */
    struct list calls;              /* those whose client is there */
    struct etcd_asker *asker;       /* with whom it shares */
    bool host;                      /* from the host, not from a workload */
    struct slice principal;         /* who asks: the asker's */
};

struct etcd_watches;
struct etcd_call {
    struct etcd_api *api;
    struct etcd_conn *conn;         /* NULL: the client has its answer, or has left */
    struct http_req *r;             /* the same */
    struct etcd_asker *asker;       /* whose it is, also when he has left */
    const struct etcd_method *method;
    struct list link;               /* conn->calls; or api->pool */
    struct buf in;                  /* of messages that are not complete, or not handled yet */
    struct arena mem;               /* what the message became, and what is made for its answer */
    struct timer deadline;          /* grpc-timeout, or BODY_MS until the request is there */
    bool timed;                     /* deadline is the client's */
    bool in_end;                    /* the client sends no more */
    bool handled;                   /* UNARY: the request was given to its handler */
    bool begun;                     /* STREAM: the answer's head is sent */
    bool held;                      /* STREAM: its handler wants no next message yet */
    bool taking;                    /* in a loop over messages already */
    bool reading_off;               /* the client is not read */
    bool finishing;                 /* UNARY: all is given to http, and waits for the client */
    bool asked;                     /* ctl has `ctl` */
    void (*done)(struct etcd_call *call); /* while asked */
    size_t out_bytes;               /* queued for the client when last told */
    struct ctl_call ctl;            /* one question at a time */
    int64_t number;                 /* the handler's: a lease's id */
    struct etcd_guard *guard;       /* etcd_access.c: while leases are looked at; in mem */
    struct etcd_watches *watches;   /* of Watch.Watch; NULL before its first message */
};

/* ---- etcd_api.c ---- */
/* What is no gRPC. */
void etcd_plain(struct etcd_api *a, struct http_req *r, const struct h1_head *h);
void etcd_api_reap(struct etcd_api *a); /* gone, when it was freed and nothing refers to it any more */

/* ---- etcd_call.c: for etcd_api.c ---- */
extern const struct http_srv_ops etcd_srv_ops;
void etcd_conn_close(struct etcd_conn *conn); /* at once, with its calls */

/* ---- etcd_call.c: for handlers ---- */
/* The answer: 200, m, status 0. The call is over for its client. */
void etcd_answer(struct etcd_call *call, const ProtobufCMessage *m);
/* Ends a call, or a stream, with a status. text may be shown as it is: clients compare etcd's. */
void etcd_fail(struct etcd_call *call, enum grpc_status status, const char *text);
void etcd_fail_ctl(struct etcd_call *call); /* with the error of call->ctl */
/* A message on a stream. Bytes that wait: more than STREAM_BYTES, and the client is slow. */
void etcd_stream_send(struct etcd_call *call, const ProtobufCMessage *m);
void etcd_stream_end(struct etcd_call *call); /* status 0 */
static inline bool etcd_stream_full(const struct etcd_call *call) { return call->out_bytes > call->api->limit[ETCD_LIMIT_STREAM_BYTES]; }
/* Asks ctl. done() is called only while the client is there. */
void etcd_ask(struct etcd_call *call, void (*done)(struct etcd_call *call));
/* STREAM: goes on with what is in call->in. */
void etcd_stream_next(struct etcd_call *call);
void etcd_limit_hit(struct etcd_api *a, enum etcd_limit l);
/* Whether `more` is too much of what all share, counted when it is: `all` is taken now, `own` of it by who wants more. */
bool etcd_share_full(struct etcd_api *a, enum etcd_limit l, size_t all, size_t own, size_t more);
void etcd_asker_rest(struct etcd_api *a, struct etcd_asker *w); /* he may have nothing any more */
/* A header, in the call's arena. */
Etcd__ResponseHeader *etcd_header(struct etcd_call *call, int64_t revision);
int64_t etcd_revision(const struct etcd_api *a); /* the store's, now */

/* ---- etcd_access.c ---- */
#define ETCD_DENIED "etcdserver: permission denied"
#define ETCD_HOST_PRINCIPAL SLICE("User:ANONYMOUS")
/* Whether who is at conn may do that with all keys of the range. */
bool etcd_may(const struct etcd_conn *conn, struct slice key, struct slice end, unsigned may);
bool etcd_may_all(const struct etcd_conn *conn, unsigned may); /* what is about the whole store, and no keys */
void etcd_deny(struct etcd_call *call);
/* As etcd_ask(), if it is permitted: a range, put, delete or transaction; what is done with a lease. */
void etcd_ask_kv(struct etcd_call *call, void (*done)(struct etcd_call *call));
void etcd_ask_lease(struct etcd_call *call, void (*done)(struct etcd_call *call));
void etcd_access_free(struct etcd_access *x);
void etcd_pool_init(struct etcd_api *a);
void etcd_pool_fini(struct etcd_api *a);

/* ---- etcd_kv.c ---- */
Etcd__KeyValue *etcd_kv(struct arena *a, const struct ctl_kv *kv);

/* ---- etcd_watch.c ---- */
void etcd_watches_drained(struct etcd_call *call); /* the client takes again */
void etcd_watches_look(struct etcd_call *call);    /* what they may has changed */
void etcd_watches_free(struct etcd_call *call);    /* NULL-safe */

#define X(service, method, request, kind, fn) void fn(struct etcd_call *call, const ProtobufCMessage *m);
#define N(service, method, why)
#include "etcd_methods.def"
#undef X
#undef N

#endif
