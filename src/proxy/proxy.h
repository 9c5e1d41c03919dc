/* proxy.h - the request path, gateway and mesh alike: listeners, routes, clusters, balancing, pools, timeouts, retries.
 *
 * One struct proxy per worker thread, shared nothing: its own connections, pools, counters. The plan is handed over by
 * message and swapped between two events. Other threads read counters, and nothing else.
 */
#ifndef PROXY_H
#define PROXY_H

#include "plan.h"

struct proxy_conf {
    uint32_t worker;               /* index of this worker */
    uint32_t workers;              /* how many there are: each checks its share of the endpoints; default 1 */
    uint32_t connections_max;      /* client connections through Gateways, as many of workloads, and of other nodes; above: 503 and close; default 20,000 */
    uint32_t head_timeout_ms;      /* a request head must be complete: 408; default 10,000 */
    uint32_t idle_timeout_ms;      /* keep-alive without a request; default 60,000 */
    uint32_t body_timeout_ms;      /* no progress of a body in either direction; default 60,000 */
    uint32_t connect_timeout_ms;   /* default 2,000 */
    uint32_t answer_timeout_ms;    /* until the head of the answer, when the route gives none; default 60,000 */
    uint32_t upstream_idle_ms;     /* pooled connections; default 60,000 */
    uint32_t pool_max;             /* idle connections kept per endpoint; default 1,024 */
    uint32_t pending_max;          /* requests that wait for a socket per endpoint; default 1,024 */
    uint32_t tries_max;            /* attempts per request in all; default 3 */
    struct h1_limits limits;
    bool via;                      /* Via header; default on */
    struct log_file *access_log;   /* NULL: off */
    const char *node_name;         /* pseudonym in Via and Forwarded: "weir" */
};
void proxy_conf_default(struct proxy_conf *c);

struct proxy;
/* A way to a service of another node itself, such as its event log: link.c. */
#define PROXY_LINK_LINE_MAX 1024
struct proxy_link {
    const char *node;              /* its certificate has to be for this name */
    struct addr gate;
    struct slice line;             /* what the connection is, in words that both nodes' ops know; no line feed, at most PROXY_LINK_LINE_MAX - 1 bytes */
};
/* A connection from inside the mesh: who makes it, and what to. */
struct proxy_caller {
    struct addr local, peer;       /* what it was made to; where from, ADDR_NONE when that is not known */
    const char *ns, *workload, *replica;
    uint64_t replica_id;
};
struct proxy_ops {
    /* More sockets for connecting to this replica are wanted; proxy_sockets() answers. On the worker's thread. */
    void (*sockets_wanted)(void *ctx, uint32_t worker, uint64_t replica_id, uint32_t n);
    /* This endpoint is not in the worker's plan any more, and its last request is over: told exactly once for each endpoint
     * that a proxy_plan() took away. A drain waits for it from every worker. On the worker's thread. */
    void (*endpoint_left)(void *ctx, uint32_t worker, uint64_t endpoint_id, uint64_t replica_id);
    /* A request waits for a connection, and the limit of the cluster is reached: proxy_permits() on every worker gives back what
     * rests there. On the worker's thread; NULL where there is one worker. */
    void (*permits_wanted)(void *ctx, uint32_t worker, uint32_t cluster_slot);
    /* A connection was accepted through a door of the mesh: true when it is not for the proxy, and somebody else owns fd now. Before it is counted
     * or anything is made for it. On the worker's thread; NULL: all are the proxy's. */
    bool (*inside)(void *ctx, const struct proxy_caller *caller, int fd);
    /* Another node asks for a service of this node itself, with its proxy_link.line: true with *fd, one end of a connection to it, which is the
     * proxy's from then on. False: there is none. On the worker's thread; NULL: there is none. */
    bool (*service)(void *ctx, struct slice line, int *fd);
};
struct proxy *proxy_new(struct loop *l, const struct proxy_conf *c, const struct proxy_ops *ops, void *ctx);
void proxy_free(struct proxy *p); /* closes everything at once */

/* All of these on the worker's own thread (main brings them there by mailbox). */
void proxy_plan(struct proxy *p, struct plan *plan);                     /* takes one reference */
void proxy_listen(struct proxy *p, uint64_t token, int fd);              /* a Gateway address; owns fd */
void proxy_unlisten(struct proxy *p, uint64_t token);
void proxy_mesh_listen(struct proxy *p, uint64_t replica_id, int fd, const char *ns, const char *workload, const char *replica); /* owns fd */
void proxy_mesh_unlisten(struct proxy *p, uint64_t replica_id);          /* its connections end too */
void proxy_sockets(struct proxy *p, uint64_t replica_id, const int *fds, uint32_t n); /* owns fds */
void proxy_permits(struct proxy *p, uint32_t cluster_slot);             /* closes its resting connections that others wait for */
void proxy_link(struct proxy *p, int fd, const struct proxy_link *to);   /* owns fd, a client's connection; to is copied. What comes to nothing is closed */
void proxy_links_close(struct proxy *p);                                 /* those of this node's clients */
/* Gateway doors stop accepting, keep-alive ends after the current requests; done(ctx) when no client from outside is left, or
 * after ms. The mesh goes on: workloads that are being stopped still need each other. */
void proxy_drain(struct proxy *p, uint32_t ms, void (*done)(void *ctx), void *ctx);
/* Another engine serves: no door accepts any more, the mesh's neither. A connection ends with the answer under way if that can still say
 * so, else with its next one; at rest it is closed after PROXY_REST_MS. done(ctx) when none is left, or after ms. */
#define PROXY_REST_MS 5000
void proxy_leave(struct proxy *p, uint32_t ms, void (*done)(void *ctx), void *ctx);

/* From any thread. */
uint64_t proxy_plan_generation(const struct proxy *p);                   /* of the plan in use */

/* ---- counters ---- */
#define PROXY_DURATION_BUCKETS 19
extern const double proxy_duration_bounds_ms[PROXY_DURATION_BUCKETS];
enum proxy_protocol { PROXY_HTTP, PROXY_GRPC, PROXY_TCP };
/* One series of istio_requests_total and its histogram, or of istio_tcp_*, merged over workers by the reader. */
struct proxy_series {
    const char *source_workload, *source_ns;  /* "unknown" from outside (through the gateway: the Gateway's name) */
    const char *reporter;                     /* "source" for the mesh, "gateway", "destination" for what comes from other nodes */
    const char *service, *service_ns, *workload, *route;
    uint8_t protocol;                         /* enum proxy_protocol */
    uint8_t grpc_status;                      /* of gRPC: the code plus 1; 0: none came */
    bool mutual;                              /* the client showed a certificate that was checked */
    uint16_t status;                          /* 0: the client left before an answer; PROXY_TCP: always */
    char flags[8];                            /* Envoy's response flags: "-", UF, UH, UT, DC, NR, UC, ...; "DI,FI" */
    uint64_t requests, duration_us_sum, request_bytes, response_bytes; /* PROXY_TCP: bytes from the client, and to it */
    uint64_t opened, closed;                  /* PROXY_TCP: sessions */
    uint64_t duration[PROXY_DURATION_BUCKETS + 1];
};
/* Merges the workers' series and calls each() once per distinct one. From the control thread. */
void proxy_series_each(struct proxy *const *workers, uint32_t n, void (*each)(void *ctx, const struct proxy_series *s), void *ctx);
/* Prometheus families of this room, merged. */
void proxy_metrics(struct proxy *const *workers, uint32_t n, struct buf *out);
/* What active checks found, of the endpoints in a plan. Any thread. */
void proxy_health_metrics(const struct plan *plan, struct buf *out);

#endif
