/* proxy_int.h - the objects of the request path and who owns them.
 *
 *   struct proxy        one per worker; owns all below
 *    |- door            an open listener: a Gateway's address, or a replica's way out into the mesh
 *    |- link            a connection to a service of another node itself, or from another node to one of this node
 *    |- down            a client's connection (http_srv); HTTP/1 has one exchange at a time, HTTP/2 many
 *    |- exchange        one request on its way: from the head's arrival until answered, failed or abandoned
 *    |- upstream        a cluster of the plan as this worker sees it: balancer, breakers, requests that wait for a connection
 *    |- endpoint        one of its endpoints: connections, sockets in stock, requests in flight
 *    |- up              a connection to an endpoint (http_cli); carries calls of exchanges, or rests in the endpoint's idle list
 *    |- plan_hold       a plan in use, counted by this worker alone, so that a request costs no atomic operation
 *    '- series          counters of one combination of labels
 */
#ifndef PROXY_INT_H
#define PROXY_INT_H

#include "cluster.h"
#include "filter.h"
#include "health.h"
#include "http.h"
#include "proxy.h"

#define SOCKET_STOCK_MAX 32       /* unconnected sockets kept per endpoint */
#define SOCKET_STOCK_LOW 4        /* below: ask for more */
#define REPLAY_BYTES_MAX 65536    /* of a request's body kept for another attempt */
#define HEAD_INLINE_BYTES 1024    /* an upstream head up to this size needs no allocation */
#define SHUN_MS 500               /* an endpoint that failed is the last choice for so long */
#define REFUSING_MAX 256          /* connections above connections_max that still get a 503, of each kind of door */
#define SERIES_MAX 8192           /* distinct label combinations per worker; above: one series named "other" */
#define SERIES_CACHE 1024
#define SERIES_TCP_CACHE 64u      /* of those, for sessions of bytes; a power of two */
#define REFUSALS_MAX 128          /* reasons of refusals that are counted each by itself, and one more for all others */
#define RECORDS_MAX 4096          /* distinct names of clusters per worker; above: one record named "other" */
#define TRIED_MAX 4
#define STALE_REST_MS 100         /* a kept connection that rested for so long may be just about to be closed by its peer */
#define NODE_SILENT_MS 3000       /* a connection between nodes on which no segment comes for so long fails */
#define NODE_ASK_MS 2000          /* requests wait at another node and nothing comes: it is asked by PING */
#define NODE_HUNG_MS 5000         /* ... and does not answer: its engine hangs */
#define GRPC_CODE_MAX 16          /* UNAUTHENTICATED is the last one that is defined */

/* Envoy's response flags: one of the first, and FLAG_DI beside it where a fault's delay ran before. */
enum flag { FLAG_NONE, FLAG_UF, FLAG_UH, FLAG_UT, FLAG_UC, FLAG_UO, FLAG_UPE, FLAG_NR, FLAG_NC, FLAG_DC, FLAG_FI, FLAG_SI, FLAG_URX, FLAG_UR, FLAG_OM, FLAG_COUNT, FLAG_DI = 0x80 };
const char *flag_text(uint8_t flags); /* "-", "UF", "DI,FI", ...: below 8 bytes */

/* Whose connections come through a door: each kind has its own connections_max, so that a crowd in front of a Gateway keeps neither workloads nor other
 * nodes out. */
enum door_kind { DOOR_MESH, DOOR_GATEWAY, DOOR_NODE, DOOR_KINDS };

struct link;
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
    uint32_t users;             /* connections accepted here and still open, and exchanges */
    bool node;                  /* the gate: connections come from other nodes */
    bool closed;                /* unlistened; freed with its last user */
    struct plan_hold *last;     /* the newest plan that knew its address, once one has come that does not: what connections that are still
                                 * open ask for goes by it. Held; else NULL */
    char *source_ns, *source_workload, *source_replica;
    const struct plan_caller *caller; /* of the current plan: who calls through a mesh door; NULL: unknown */
};

struct down {
    struct http_srv srv;        /* its stream is there from the beginning, whatever is spoken on it */
    struct proxy *p;
    struct hello *hello;        /* while it has to be found out what is spoken; NULL */
    struct tcp *tcp;            /* bytes are passed on; NULL: HTTP */
    struct link *linked;        /* another node's, to a service of this node itself; NULL: it is not */
    struct door *door;
    struct list link;           /* in proxy.downs */
    struct list xs;             /* its exchanges */
    struct addr local;          /* mesh: the service address that the client connected to; else what a PROXY header says, where there is one */
    struct addr peer_addr;      /* the client's; as a PROXY header says, where there is one */
    char peer[46];              /* the client's address, for X-Forwarded-For and logs */
    uint8_t peer_n;
    char *identity;             /* X-Forwarded-Client-Cert, of a client whose certificate was checked; NULL */
    uint8_t kind;               /* enum door_kind */
    bool node;                  /* it came through the gate: from another node, for the replica that its SNI names */
    char *peer_node;            /* with node: the name in its certificate, for the access log; NULL until the handshake is over */
    bool rested;                /* it was at rest when this engine began to leave */
};

/* Whose request it is. Children have no client of their own: what is answered to them goes to child.c. */
enum exchange_role { X_CLIENT, X_MIRROR, X_HEDGE, X_PART, X_TCP /* not a request: bytes, see tcp.c */ };

enum exchange_state {
    X_BEGIN,   /* nothing was sent anywhere yet: filters look at it, or a fault's delay runs */
    X_SOCKET,  /* waits in endpoint.pending for a socket */
    X_PERMIT,  /* waits in upstream.waiting: the cluster has all the connections it may */
    X_CONNECT, /* waits for a connection whose version is not known */
    X_SENT,    /* written, or queued on a connection that is being made; no answer yet */
    X_ANSWER,  /* the answer's head has gone to the client, its body follows */
    X_PAUSE,   /* waits before another attempt */
    X_LOCAL,   /* an answer of our own is being sent, or gathered from parts */
};

struct exchange {
    struct proxy *p;
    struct http_req *req;       /* the client's request; NULL for children, and once the answer is complete */
    struct http_call call;      /* under way while up is set */
    struct up *up;              /* with X_CONNECT, X_SENT and X_ANSWER */
    struct door *door;          /* through which it came; counted there */
    struct down *down;          /* NULL for children */
    struct list in_down;        /* in down.xs */
    struct upstream *us;        /* where it goes; held */
    struct endpoint *ep;        /* counted in flight there while set */
    struct plan_hold *hold;     /* the plan that routed it */
    const struct plan_rule *rule;
    const struct plan_backend *backend;
    const struct plan_tcp_rule *tcp_rule; /* X_TCP, which has no rule */
    const struct plan_cluster *cluster;
    const struct plan_target *target; /* from another node: no other endpoint will do; in hold's plan. NULL: of this node's own */
    struct list pending;        /* X_SOCKET: in endpoint.pending; X_PERMIT: in upstream.waiting */
    struct list in_up;          /* with up: in up.xs */
    struct timer timer;
    uint64_t start_ns;
    uint64_t sent_ns;           /* this attempt */
    uint64_t deadline_ms;       /* loop time; 0: none */
    uint64_t attempt_ms;        /* loop time at which this attempt is given up; 0: with the deadline */
    uint64_t request_bytes, response_bytes;
    char *head;                 /* what goes upstream: inline_head, or allocated when larger */
    uint32_t head_n;
    uint32_t trailers_n;        /* of replay, its last bytes: the lines of the request's trailers */
    uint64_t tried[TRIED_MAX];  /* endpoint ids that failed */
    uint8_t tries;
    uint8_t held;               /* what breakers count of it: see breaker_enter() */
    uint8_t rank;               /* how unimportant: breaker_rank() */
    bool hashed;                /* hash is set */
    uint64_t hash;              /* of what the policy hashes on */
    uint8_t state;              /* enum exchange_state */
    uint8_t role;               /* enum exchange_role */
    uint8_t framing;            /* of the request's body, as it goes upstream */
    uint8_t method_id;
    uint8_t flag;               /* of enum flag; see flag_set() */
    bool idempotent;            /* RFC 9110 section 9.2.2 */
    bool request_end;           /* the whole request was read */
    bool replayable;            /* replay holds all of the body so far, and the trailers */
    bool open_ended;            /* the answer that was begun has no Content-Length */
    bool stale;                 /* it went out on a kept connection that had ended already: now a new one is made */
    bool grpc;                  /* its Content-Type begins with application/grpc: refusals are gRPC statuses */
    bool secure;                /* the client came over TLS */
    bool mutual;                /* ... and showed a certificate that was checked */
    uint8_t grpc_status;        /* with grpc: the code of the answer plus 1; 0: none yet */
    bool tunnel;                /* an upgrade was agreed to */
    bool calling;               /* call is under way */
    bool stalled;               /* the client does not keep up with the answer: the service is not read */
    uint16_t status;
    uint8_t trace_id[32];       /* hex; this and the next three are there from the beginning, so that refusals are logged with them */
    uint8_t trace_flags[2];     /* hex */
    char request_id[64];
    uint8_t request_id_n;
    struct exchange_more *more; /* what only some requests have; NULL */
    struct buf log;             /* method, authority, path, user agent for the access log; empty when it is off */
    struct exchange *next_free;
    /* From here on the memory is as the last request left it. */
    char inline_head[HEAD_INLINE_BYTES];
    struct buf replay;          /* the body so far and the trailers behind it, while another attempt may need them; empty at the beginning */
};

/* What only requests on routes with filters, splits over several services, or policies of their own have. */
struct exchange_more {
    struct cors_state cors;
    const struct cors_policy *cors_policy;      /* NULL: none */
    const struct compress_filter *compress;     /* NULL: none */
    const struct plan_filter *transform;        /* one of the route's, one that changes answers if there is such; NULL: none */
    uint16_t accepts;                           /* of compress_accepts() */
    uint8_t asked;                              /* enum tags_asked; with compress or transform */
    struct body_filter *request_filter, *answer_filter;
    struct slice coding;                        /* of answer_filter, or what it would be if this were not the answer to HEAD; a static string */
    bool changed;                               /* the answer's body is other than the service's, or would be if this were not the answer to HEAD */
    bool varies;                                /* Vary: Accept-Encoding, whether compressed or not */
    uint32_t delay_ms;                          /* a fault's, before the first attempt; 0: none */
    const struct fault_policy *abort;           /* behind the delay; NULL: none */
    struct buf filtered;                        /* what a filter gave for the pieces at hand */
    struct buf cookie;                          /* a Set-Cookie value of ours, or empty */
    char ws_accept[29];                         /* for the client's Sec-WebSocket-Key; [0] 0: none */
    uint64_t session;                           /* key of the endpoint that the client's session names; 0: none */
    struct exchange *parent;                    /* of a hedge or a part */
    struct list children;                       /* mirrors are not among them: nobody waits for them */
    struct list sibling;                        /* in parent's children */
    struct list mirrors;                        /* of the parent: they get its body as it comes */
    uint32_t hedges;                            /* begun */
    const struct hedge_policy *hedge;           /* NULL: none */
    struct timer hedge_timer;
    struct exchange *x;
    struct aggregate *aggregate;                /* parts that are being gathered; NULL */
    uint32_t part;                              /* of a part: which */
    struct buf body;                            /* of a part: its answer so far */
    struct pour pour;                           /* a file, or a large body, on its way to the client */
    bool pouring;                               /* the body of the answer; see answer_pour() */
    uint64_t poured_before;                     /* flow.moved when its progress was last looked at */
    int file;                                   /* -1: none */
    uint64_t file_offset, file_left;            /* with copies */
    bool copies;                                /* by reading and writing instead of pour */
    struct task file_next;                      /* with copies: all that one turn gives was taken, it goes on in the next */
    uint64_t file_moved;                        /* when its progress was last looked at */
};

struct up {
    struct http_cli cli;
    struct proxy *p;
    struct endpoint *ep;        /* NULL once the endpoint is gone */
    struct list link;           /* HTTP/1 at rest: in endpoint.idle, newest first; HTTP/2, and while the version is not known: in endpoint.shared */
    struct list xs;             /* exchanges whose up it is */
    uint32_t requests;          /* begun on it */
    uint64_t rest_ms;           /* when it came to rest */
    uint64_t born_ms;
    struct upstream *us;        /* where it is counted; held */
    struct tls_ctx *tls;        /* what the connection was begun with, or NULL; to a gate: with another one the endpoint has it takes no more. One reference */
    uint64_t manner;            /* us->manner when it was begun; with another one it takes no more */
    uint8_t held;               /* what breakers count of it */
    bool resting;               /* in endpoint.idle */
    bool closed;                /* by us, or by its peer: nothing more goes over it */
};

/* A cluster of the plan; by slot. Lives while a plan names it, an exchange goes there or a connection counts there. */
struct upstream {
    struct proxy *p;
    struct cluster *c;          /* the balancer's and the breakers' */
    struct list waiting;        /* exchanges in X_PERMIT */
    struct task pump;           /* one of them goes on */
    struct timer retry;         /* while some wait: a connection may have become free on another worker */
    uint32_t uses;              /* exchanges and connections; one more while it is in proxy.upstreams */
    uint32_t slot;              /* in proxy.upstreams */
    uint64_t bare_ms;           /* when it was last seen that none of its connections rests */
    uint64_t manner;            /* a hash of how its policy wants connections begun: TLS and as whom, version, PROXY header */
    uint64_t plan_mark;         /* generation of the last plan that named it */
    uint32_t checkers;          /* of its endpoints that this worker checks */
    struct cluster_record *record; /* where it counts; its name is the cluster's, for logs and metrics */
};

/* What is counted of clusters of one name, "ns/service:port" with the subset: as long as the worker lives. */
struct cluster_record {
    struct cluster_counters count;
    counter uses;               /* in the worker's current plan: 0 or 1, for a moment 2 */
    char *name;                 /* owned */
};

/* What it takes to reach an endpoint on another node. */
struct remote {
    char *node, *sni;           /* owned */
    struct tls_ctx *http, *bytes; /* one reference each; of the newest plan that names the endpoint */
};
struct endpoint {
    struct lb_host lb;          /* id, requests in flight, what the balancer knows */
    uint64_t replica_id;
    struct addr address;
    bool inside;                /* reached through sockets from its namespace */
    uint64_t plan_mark;         /* generation of the last plan that named it */
    struct upstream *us;        /* alive as long as the endpoint */
    uint32_t idle_n, pending_n;
    uint32_t ups;               /* connections that point here */
    uint32_t streams_told;      /* HTTP/2: how many at once it took when it refused one; 0: it has refused none. Holds for connections that have
                                 * not yet said so themselves */
    struct list idle;
    struct list shared;
    struct list pending;
    int *stock;                 /* SOCKET_STOCK_MAX places, with inside; NULL until the first arrive */
    uint32_t stock_n;
    bool asked;                 /* sockets_wanted() was called and not yet answered */
    bool leaving;               /* not in the plan any more */
    struct tls_session_slot sessions;
    struct checker *checker;    /* makes its active checks, on the one worker whose share it is; NULL */
    char *name;                 /* owned; for the access log */
    struct remote *remote;      /* on another node: address is its gate's; NULL: it is not */
};

struct series {
    struct proxy_series s;      /* strings are owned; counters written by this worker only */
};

/* Counters of one worker, in the order of counters.def. */
struct proxy_counters {
#define X(field, name, help) counter field;
#include "counters.def"
#undef X
    counter refused[REFUSALS_MAX]; /* by refusal label: proxy.refusal_labels */
};

struct proxy {
    struct loop *loop;
    struct proxy_conf conf;
    const struct proxy_ops *ops;
    void *ctx;
    struct http_srv_conf srv_conf, gate_conf; /* of clients; of other nodes */
    struct http_cli_conf cli_conf, node_conf; /* of services; of gates of other nodes */
    struct head_out out;
    struct plan_hold *hold;     /* the current plan; NULL before the first */
    counter generation;
    struct list doors;
    struct list downs;
    uint32_t downs_n, door_id;
    uint32_t outside_n;         /* of downs: those that came through a Gateway, or the gate */
    uint32_t kinds_n[DOOR_KINDS]; /* of downs: by kind of door */
    struct endpoint **eps;      /* by slot */
    uint32_t eps_n;
    struct upstream **upstreams; /* by cluster slot */
    uint32_t upstreams_n;
    struct exchange *free_exchanges;
    struct health health;       /* active checks of this worker's share */
    struct timer sweep;
    struct proxy_counters c;
    struct http_counters http;
    const char *refusal_labels[REFUSALS_MAX]; /* static strings; NULL: none has this place yet */
    struct series **series;     /* SERIES_MAX places; published by series_n */
    counter series_n;
    struct table series_index;
    struct cluster_record **records; /* RECORDS_MAX places; published by records_n */
    counter records_n;
    struct table record_index;
    struct list tcps;           /* sessions of bytes, see tcp.c */
    struct list links;          /* see link.c */
    uint32_t links_n;           /* of these: this node's clients */
    uint64_t tcps_counted_ms;   /* when their bytes were last counted */
    struct { uint64_t key; struct series *s; } cache[SERIES_CACHE];
    struct series_tcp { uint64_t door; const void *rule, *cluster; struct series *s; uint8_t flag; } tcp_cache[SERIES_TCP_CACHE];
    char date[30];              /* IMF-fixdate of date_s */
    uint64_t date_s;
    bool draining;
    bool leaving;               /* ... the mesh too */
    void (*drained)(void *ctx);
    void *drained_ctx;
    struct timer drain_timer;
    struct timer rest_timer;    /* leaving: closes what is at rest still */
};

/* proxy.c */
void door_release(struct door *o); /* frees it when it is closed and its last connection is gone */
static inline struct plan_hold *door_hold(const struct door *o) { return LIKELY(!o->last) ? o->p->hold : o->last; }
/* exchange.c: a request's life, and its client's side */
extern const struct http_srv_ops down_ops;
struct exchange *exchange_new(struct proxy *p, struct door *door);
void hold_release(struct plan_hold *h);
void exchange_share_plan(struct exchange *x, const struct exchange *with); /* the plan that routed the other one */
void exchange_finish(struct exchange *x);                /* over: counted, logged, taken off both sides */
void exchange_abandon(struct exchange *x, enum flag f);  /* without an answer */
static inline void flag_set(struct exchange *x, enum flag f) { x->flag = (uint8_t)((x->flag & FLAG_DI) | f); }
void exchange_wait(struct exchange *x, uint64_t ms);     /* for the next step at most so long, and never past the deadline */
void client_reading(struct exchange *x, bool on);        /* of the request's body */
void down_close(struct down *d);                         /* with all its exchanges */
/* attempt.c: its service's side */
extern const struct http_cli_ops up_ops;
void exchange_begin(struct exchange *x, struct pieces body); /* the first attempt; head is built */
void exchange_dispatch(struct exchange *x);              /* chooses an endpoint, then: */
void exchange_socket(struct exchange *x);                /* x has an endpoint, and perhaps a socket is in stock: a connection */
void exchange_timer(struct timer *t);
void attempt_failed(struct exchange *x, enum err e, bool unsent); /* before an answer; the call is over or was never begun */
void attempt_moved(struct exchange *x);                  /* its endpoint leaves the plan while x waits for a socket there */
void attempt_drop(struct exchange *x);                   /* takes x off its connection and its endpoint */
void request_more(struct exchange *x, struct pieces body, bool end); /* of the request's body */
void request_flow(struct exchange *x);                   /* the client's side is free again */
/* steps.c: what a route does beyond passing on */
enum step { STEP_ON, STEP_OVER /* answered, or waits: the caller is done with it */ };
enum step steps_request(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit);
void step_delayed(struct exchange *x);                     /* the delay is over */
void step_file_timer(struct exchange *x);
void step_file_more(struct exchange *x);
enum h1_framing steps_answer(struct exchange *x, const struct h1_head *h); /* at the answer's head: chooses its filter; the framing that it goes out with */
struct slice steps_compress(struct exchange *x, struct slice type, struct slice body); /* of an answer of ours, whose head is in proxy.out */
enum err steps_body(struct exchange *x, struct body_filter *f, struct pieces body, bool end, struct iovec *v, struct pieces *out); /* through a filter; valid until the next call */
bool steps_answer_here(const struct plan_rule *r);         /* its requests go to no service as they are: files, aggregations, direct answers */
bool steps_withholds(const struct exchange_more *m, const struct h1_field *f); /* a field of the client's request that the service is not sent */
bool steps_owns(const struct exchange_more *m, const struct h1_field *f);  /* a field of the service's answer that is dropped */
void steps_put(struct exchange *x, const struct h1_head *h, struct head_out *o); /* fields of the answer */
struct exchange_more *exchange_more(struct exchange *x);   /* made when first asked for */
void more_free(struct exchange *x);
/* child.c: requests that nobody outside asked for: mirrors, hedges, parts */
void mirrors_begin(struct exchange *x, struct pieces body);
void mirrors_body(struct exchange *x, struct pieces body, bool end);
void hedge_start(struct exchange *x);
void hedge_timer(struct timer *t);
bool hedges_pending(const struct exchange *x);             /* another attempt of it is under way elsewhere */
void children_end(struct exchange *x);
void aggregate_timer(struct exchange *x);                  /* out of time: with what arrived */
void aggregate_free(struct aggregate *g);                  /* NULL-safe */
enum step aggregate_begin(struct exchange *x, const struct plan_filter *f, const struct h1_head *h);
/* An answer to a child: true when it is dealt with; false: it goes to the client (a hedge won: x is the client's now). */
bool child_response(struct exchange *x, const struct h1_head *h, struct pieces body, bool end);
void child_body(struct exchange *x, struct pieces body, bool end);
void child_failed(struct exchange *x, uint16_t status, enum flag f, const char *text);
/* sticky.c */
void sticky_request(struct exchange *x, const struct h1_head *h); /* what the cluster hashes on, and the session */
const struct session_policy *session_of(const struct exchange *x); /* NULL: none */
struct lb_host *sticky_host(struct exchange *x);           /* of its session; NULL: any */
void sticky_put(struct exchange *x, struct head_out *o);   /* tells the client its session, when that is new */
/* hello.c: what a new connection begins with */
void hello_start(struct down *d, int fd, bool proxy_protocol, bool tls);
void hello_stop(struct down *d);
void hello_gate(struct down *d, int fd, struct tls_ctx *tls); /* another node's: which of both it speaks; tls NULL: closed */
/* gate.c: what comes from other nodes */
void gate_request(struct exchange *x, const struct h1_head *h, struct pieces body); /* for one replica; or refused */
void gate_bytes(struct down *d, struct slice early);
void gate_give_back(struct exchange *x, bool unsent, enum flag f); /* instead of an answer: x ends, its node is told */
/* proxy.c */
void down_speaks(struct down *d, struct slice sni, bool passed, struct slice early); /* hello.c has found out */
void down_peer(struct down *d, const struct addr *peer);   /* who the client is */
static inline bool down_over(const struct down *d) { return d->p->kinds_n[d->kind] > d->p->conf.connections_max; } /* there are more of its kind than may be */
/* identity.c */
void identity_take(struct down *d); /* the TLS handshake is complete */
void down_gone(struct down *d);                            /* its stream is released */
/* tcp.c: bytes from a client to a service */
void tcp_begin(struct down *d, const struct plan_tcp_rule *r, struct slice early); /* the stream is adopted */
void tcp_begin_target(struct down *d, const struct plan_target *t, struct slice early); /* the same for another node's; t NULL: not here */
void tcp_socket(struct exchange *x);                       /* a socket is in stock */
void tcp_failed(struct exchange *x);                       /* no way to the endpoint */
void tcp_timer(struct exchange *x);
void tcp_close(struct down *d);
void tcp_closed(struct exchange *x);                       /* it is counted; the exchange is about to end */
void tcp_sweep(struct proxy *p);                           /* bytes of open sessions are counted */
/* link.c: bytes between nodes, for services of their own */
bool link_asked(struct down *d);                           /* by its SNI */
void link_begin(struct down *d, struct slice early);       /* it came through the gate */
void link_close(struct link *k);
void links_close(struct proxy *p, bool all);               /* all: also those of this node's clients */
/* local.c: answers of our own */
void answer_pieces(struct exchange *x, struct pieces body); /* what lies in p->out, and these */
void answer_length(struct exchange *x, uint64_t length, struct pieces body); /* the same for a HEAD: the length that a GET would have */
void answer_grpc(struct exchange *x, uint32_t code, enum flag f, const char *text);
void answer_grpc_end(struct http_req *r, uint32_t code, const char *text);
void answer_text(struct exchange *x, uint16_t status, enum flag f, const char *text);
void answer_method(struct exchange *x, const char *allow, const char *text); /* 405 */
void answer_https(struct exchange *x, const struct h1_head *h);
void answer_redirect(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit);
/* upstream.c */
struct endpoint *endpoint_pick(struct exchange *x);      /* NULL: none */
/* A connection with room for x at x->ep: kept, shared or new. NULL: x waits (X_SOCKET, X_CONNECT). */
struct up *up_get(struct exchange *x);
/* A socket for connecting to x->ep: *fd, or -1 when any will do. False: x waits for one (X_SOCKET). */
bool socket_take(struct exchange *x, int *fd);
void service_keepalive(struct stream *s, const struct pool_policy *pool); /* TCP's, where the policy has it */
struct http_tls remote_tls(struct endpoint *ep, struct tls_ctx *ctx, struct tls_session_slot *slot); /* ctx: of ep->remote */
int socket_spare(struct proxy *p, struct endpoint *ep);  /* one from the stock of an endpoint inside; -1: none now, more are asked for */
bool up_room(const struct up *u); /* it takes one more */
void up_done(struct up *u);                              /* a call of it is over: it rests, goes on, or closes */
void up_close(struct up *u);
void endpoint_take(struct exchange *x, struct endpoint *ep); /* x goes there: one request more in flight */
void endpoint_done(struct exchange *x);                  /* one less */
struct upstream *upstream_of(struct proxy *p, const struct plan_cluster *c); /* NULL: the newest plan does not name it */
struct upstream *upstream_hold(struct upstream *us);
void upstream_release(struct upstream *us);
void endpoints_swap(struct proxy *p, const struct plan *old, struct plan *plan); /* old: the one before; NULL: none */
void endpoints_free(struct proxy *p);
void upstream_sweep(struct proxy *p);
/* A PROXY header that tells the service who x's client is; in out, which has PP_V2_BYTES_MAX bytes. */
struct slice proxy_header(const struct exchange *x, uint8_t version, char *out);
/* head.c */
void head_identify(struct exchange *x, const struct h1_head *h); /* its trace and its id: the client's, or new ones */
bool head_request(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit); /* fills x->head; false: too large */
bool head_part(struct exchange *x, const struct h1_head *h, struct slice path);          /* the same for a part of an aggregated answer: GET path */
void head_response(struct exchange *x, const struct h1_head *h);    /* fills p->out */
void head_location(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit, struct buf *out);
void head_local(struct exchange *x, uint16_t status, const char *type);
void head_local_end(struct exchange *x, struct head_out *o);        /* the fields that all answers of our own have: Date, the request's id */
/* Fill p->out with those of n trailers that may pass on; return their number. */
int trailers_request(struct exchange *x, const struct h1_field *f, int n);
int trailers_response(struct exchange *x, const struct h1_field *f, int n);
/* series.c */
void series_count(struct exchange *x);
/* Of TCP sessions: r and c may be NULL. */
struct series *series_tcp(struct proxy *p, const struct door *door, const struct plan_tcp_rule *r, const struct plan_cluster *c, enum flag f);
void series_tcp_opened(struct series *s);
void series_tcp_bytes(struct series *s, uint64_t received, uint64_t sent);
void series_tcp_closed(struct series *s);
void refusal_count(struct proxy *p, const char *label);
void series_free(struct proxy *p);
void series_swap(struct proxy *p);
/* cluster_metrics.c */
struct cluster_record *record_take(struct proxy *p, const struct plan_cluster *pc); /* a cluster of the current plan counts there */
void record_drop(struct cluster_record *r);              /* no longer in the plan: what is a gauge is gone */
void records_free(struct proxy *p);
void cluster_metrics(struct proxy *const *workers, uint32_t n, struct buf *out);
/* access.c */
void access_begin(struct exchange *x, const struct h1_head *h);
void access_end(struct exchange *x);

#endif
