/* proxy_int.h - the objects of the request path and who owns them.
 *
 *   struct proxy        one per worker; owns all below
 *    |- door            an open listener: a Gateway's address, or a replica's way out into the mesh
 *    |- down            a client's connection (h1_srv); holds at most one exchange
 *    |- exchange        one request on its way: from the head's arrival until answered, failed or abandoned
 *    |- endpoint        what this worker knows of one endpoint: idle connections, sockets in stock, requests in flight
 *    |- up              a connection to an endpoint (h1_cli); in an exchange or in the endpoint's idle list
 *    |- plan_hold       a plan in use, counted by this worker alone, so that a request costs no atomic operation
 *    '- series          counters of one combination of labels
 */
#ifndef PROXY_INT_H
#define PROXY_INT_H

#include "http.h"
#include "proxy.h"

#define SOCKET_STOCK_MAX 32       /* unconnected sockets kept per endpoint */
#define SOCKET_STOCK_LOW 4        /* below: ask for more */
#define REPLAY_BYTES_MAX 65536    /* of a request's body kept for another attempt */
#define HEAD_INLINE_BYTES 1024    /* an upstream head up to this size needs no allocation */
#define SHUN_MS 500               /* an endpoint that failed is the last choice for so long */
#define REFUSING_MAX 256          /* connections above connections_max that still get a 503 */
#define SERIES_MAX 8192           /* distinct label combinations per worker; above: one series named "other" */
#define SERIES_CACHE 1024
#define TRIED_MAX 4

/* Envoy's response flags, in the order of their names in flag_names[]. */
enum flag { FLAG_NONE, FLAG_UF, FLAG_UH, FLAG_UT, FLAG_UC, FLAG_UO, FLAG_UPE, FLAG_NR, FLAG_NC, FLAG_DC, FLAG_DI, FLAG_SI, FLAG_COUNT };
extern const char *const flag_names[FLAG_COUNT];

struct plan_hold {
    struct plan *plan;
    uint32_t uses;              /* exchanges, plus one while it is the current one */
};

struct door {
    struct proxy *p;
    struct listener ln;         /* open once there is a plan */
    int fd;                     /* the listening socket; owned */
    struct list link;           /* in proxy.doors */
    uint64_t token;             /* of a Gateway's address; 0 for the mesh */
    uint64_t replica_id;        /* mesh: whose namespace it stands in */
    uint32_t id;                /* unique for the life of the worker: part of the series' key */
    uint32_t downs;             /* connections accepted here and still open */
    bool closed;                /* unlistened; freed with its last connection */
    char *source_ns, *source_workload, *source_replica;
};

struct down {
    struct h1_srv srv;
    struct proxy *p;
    struct door *door;
    struct list link;           /* in proxy.downs */
    struct exchange *x;         /* the request in progress, or NULL */
    struct addr local;          /* mesh: the service address that the client connected to */
    char peer[46];              /* the client's address, for X-Forwarded-For and logs */
    uint8_t peer_n;
};

enum exchange_state {
    X_SOCKET,  /* waits in endpoint.pending for a socket */
    X_SENT,    /* written, or queued on a connection that is being made; no answer yet */
    X_ANSWER,  /* the answer's head has gone to the client, its body follows */
    X_PAUSE,   /* waits before another attempt at the same endpoint */
};

struct exchange {
    struct proxy *p;
    struct down *down;
    struct up *up;              /* with X_SENT and X_ANSWER */
    struct endpoint *ep;        /* counted in ep->in_flight while set */
    struct plan_hold *hold;         /* the plan that routed it */
    struct plan_hold *cluster_hold; /* a newer plan that cluster belongs to, or NULL: hold's */
    const struct plan_rule *rule;
    const struct plan_backend *backend;
    const struct plan_cluster *cluster;
    struct list pending;        /* X_SOCKET: in endpoint.pending */
    struct timer timer;
    uint64_t start_ns;
    uint64_t deadline_ms;       /* loop time; 0: none */
    uint64_t request_bytes, response_bytes;
    char *head;                 /* what goes upstream: inline_head, or allocated when larger */
    uint32_t head_n;
    struct buf replay;          /* the body so far, while another attempt may need it */
    uint64_t tried[TRIED_MAX];  /* endpoint ids that failed */
    uint8_t tries;
    uint8_t state;              /* enum exchange_state */
    uint8_t framing;            /* of the request's body */
    uint8_t method_id;
    uint8_t flag;               /* enum flag */
    bool idempotent;            /* RFC 9110 section 9.2.2 */
    bool request_end;           /* the whole request was read */
    bool replayable;            /* replay holds all of the body so far */
    uint16_t status;
    uint8_t trace_id[32];       /* hex */
    char request_id[64];
    uint8_t request_id_n;
    struct buf log;             /* method, authority, path, user agent for the access log; empty when it is off */
    struct exchange *next_free;
    char inline_head[HEAD_INLINE_BYTES];
};

struct up {
    struct h1_cli cli;
    struct proxy *p;
    struct endpoint *ep;        /* NULL once the endpoint is gone */
    struct exchange *x;         /* NULL: at rest */
    struct list link;           /* at rest: in endpoint.idle; newest first */
    uint64_t rest_ms;           /* when it came to rest */
};

struct endpoint {
    uint64_t id, replica_id;
    struct addr address;
    bool inside;                /* reached through sockets from its namespace */
    uint64_t plan_mark;         /* generation of the last plan that named it */
    uint64_t shun_until_ms;
    uint32_t in_flight;
    uint32_t idle_n, pending_n;
    uint32_t ups;               /* connections that point here */
    struct list idle;
    struct list pending;
    int *stock;                 /* SOCKET_STOCK_MAX places, with inside; NULL until the first arrive */
    uint32_t stock_n;
    bool asked;                 /* sockets_wanted() was called and not yet answered */
    bool leaving;               /* not in the plan any more */
    char *name;                 /* owned; for the access log */
};

struct series {
    struct proxy_series s;      /* strings are owned; counters written by this worker only */
};

/* Counters of one worker, in the order of counters.def. */
struct proxy_counters {
#define X(field, name, help) counter field;
#include "counters.def"
#undef X
    counter refused[64];        /* by refusal label, see refusal_slot() */
};
#define REFUSALS_MAX 64

struct proxy {
    struct loop *loop;
    struct proxy_conf conf;
    const struct proxy_ops *ops;
    void *ctx;
    struct h1_srv_conf srv_conf;
    struct head_out out;
    struct plan_hold *hold;     /* the current plan; NULL before the first */
    counter generation;
    struct list doors;
    struct list downs;
    uint32_t downs_n, door_id;
    uint32_t outside_n;         /* of downs: those that came through a Gateway */
    struct endpoint **eps;      /* by slot */
    uint32_t eps_n;
    struct exchange *free_exchanges;
    struct timer sweep;
    struct proxy_counters c;
    const char *refusal_labels[REFUSALS_MAX]; /* static strings; NULL ends */
    struct series **series;     /* SERIES_MAX places; published by series_n */
    counter series_n;
    struct table series_index;
    struct { uint64_t key; struct series *s; } cache[SERIES_CACHE];
    char date[30];              /* IMF-fixdate of date_s */
    uint64_t date_s;
    bool draining;
    void (*drained)(void *ctx);
    void *drained_ctx;
    struct timer drain_timer;
};

/* proxy.c */
void door_release(struct door *o); /* frees it when it is closed and its last connection is gone */
/* exchange.c */
extern const struct h1_srv_ops down_ops;
extern const struct h1_cli_ops up_ops;
void exchange_socket(struct exchange *x);                /* a socket is in stock: go on */
void exchange_failed(struct exchange *x, enum err e, bool never_sent); /* this attempt failed before an answer */
void exchange_abandon(struct exchange *x, enum flag f);  /* without an answer */
/* upstream.c */
struct endpoint *endpoint_pick(struct exchange *x);      /* NULL: none */
/* A connection for x->ep: from the pool, new, or NULL when x waits for a socket (X_SOCKET) or was answered with an error. */
struct up *up_get(struct exchange *x);
void up_release(struct up *u);                           /* to the pool, or closed */
void up_close(struct up *u);
void endpoint_done(struct endpoint *ep, struct proxy *p); /* one request less in flight */
void endpoints_swap(struct proxy *p, struct plan *plan);
void endpoints_free(struct proxy *p);
void upstream_sweep(struct proxy *p);
/* head.c */
bool head_request(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit); /* fills x->head; false: too large */
void head_response(struct exchange *x, const struct h1_head *h);    /* fills p->out */
void head_location(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit, struct buf *out);
void head_local(struct exchange *x, uint16_t status, const char *type);
/* Fill p->out with the trailers of a finished chunked body that may pass on (ch may be NULL); return their number. */
int trailers_request(struct exchange *x, const struct h1_chunked *ch);
int trailers_response(struct exchange *x, const struct h1_chunked *ch);
/* series.c */
void series_count(struct exchange *x);
void refusal_count(struct proxy *p, const char *label);
void series_free(struct proxy *p);
void series_swap(struct proxy *p);
/* access.c */
void access_begin(struct exchange *x, const struct h1_head *h);
void access_end(struct exchange *x);

#endif
