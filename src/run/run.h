/* run.h - workloads: from Deployments to replicas that are started, probed, rolled, drained and restarted.
 *
 * Lives on the engine's control loop, one owner, no locks. It brings what is there towards what the objset wants, tells
 * sup what to start and stop, and tells its owner which replicas are ready to be sent requests. It knows nothing of HTTP
 * routes; drain asks the owner whether anything is in flight.
 */
#ifndef RUN_H
#define RUN_H

#include "plan.h"
#include "sup.h"

/* What happened to a workload, as Kubernetes' Events have it. */
struct run_event {
    const char *ns, *workload;
    const char *replica;       /* NULL: it is about the workload as a whole */
    bool warning;              /* else Normal */
    const char *reason;        /* a word in CamelCase: Started, Failed, Exited, OOMKilled, Unhealthy, .. */
    const char *message;       /* the same text for the same thing, so that repetitions can be counted; nothing that is different each time */
};
struct run;
struct run_ops {
    /* The set of ready replicas changed: compile and publish a new plan. Called at most once per turn of the loop. */
    void (*endpoints_changed)(void *ctx);
    /* True while a worker has requests in flight at this replica, or has not yet taken the plan without it. */
    bool (*in_flight)(void *ctx, uint64_t replica_id);
    /* One line of output. from_stderr tells the stream; line has no newline. */
    void (*output)(void *ctx, const char *ns, const char *deployment, const char *replica, bool from_stderr, struct slice line);
    /* The replica is there (started or adopted); its in-namespace listener if it has one (owned by the receiver). ns and
     * deployment name the caller for policy and telemetry. */
    void (*replica_up)(void *ctx, uint64_t replica_id, const char *ns, const char *deployment, const char *replica, int listen_fd);
    /* May be NULL. */
    void (*event)(void *ctx, const struct run_event *ev);
    /* It is gone: close what refers to it. */
    void (*replica_gone)(void *ctx, uint64_t replica_id);
    /* How many of this Deployment's replicas are this node's, at most spec.replicas; asked at run_want() and run_shares(). NULL: all of each. */
    uint32_t (*share)(void *ctx, const struct object *dep);
    /* A process of what runs once is about to be asked for. May be NULL. */
    void (*once_starting)(void *ctx, uint64_t replica_id);
};
struct run_conf {
    const char *data_dir;      /* for hosts and resolv files */
    const char *node_name;
    uint32_t backoff_ms_min, backoff_ms_max; /* restart back-off: defaults 1,000 and 60,000; resets after 10 min of running */
    uint32_t drain_ms_max;     /* the longest to wait for what is in flight: default 30,000 */
    const char *log_address;   /* the event log's on the host, "127.0.0.1:9092", for replicas on the host's network; NULL: there is no event log */
    const char *store_address; /* the same of the etcd API, "127.0.0.1:2379"; NULL: there is no control store */
};
struct run *run_new(struct loop *l, struct sup_client *sup, const struct run_conf *conf, const struct run_ops *ops, void *ctx);
void run_free(struct run *r);

/* The wanted state; set must stay valid and unchanged until the next call. Starts converging. */
void run_want(struct run *r, const struct objset *set);
/* ops.share() may say something else now. */
void run_shares(struct run *r);
/* All replicas of a Deployment, of whatever revision, have to be gone within ms: SIGTERM at once, without waiting for requests or preStop, then SIGKILL. They
 * are not restarted; what its share says is started anew. */
void run_drop(struct run *r, const char *ns, const char *deployment, uint32_t ms);
/* A process of it is here, or is being started. */
bool run_has(struct run *r, const char *ns, const char *deployment);
/* The processes of Deployments that run once (struct deployment), running or being started: calls each() for every one. */
void run_once_ids(struct run *r, void (*each)(void *ctx, uint64_t replica_id), void *ctx);
/* Ready replicas now; the array is valid until the next call into run. */
const struct live_endpoint *run_endpoints(struct run *r, size_t *n);
/* A new revision of the same template (weir rollout restart). */
enum err run_restart(struct run *r, const char *ns, const char *deployment) WARN_UNUSED;
/* Drains and stops everything, then calls done(ctx). */
void run_stop(struct run *r, void (*done)(void *ctx));
/* Lets go of everything, for another engine or for this one in a while: starts nothing more, waits for the starts under way, writes
 * DATA/run.state with all that an adoption needs, half-read lines included, and calls done(ctx, e). After OK nothing is read or told any
 * more, and run_free() is the only call left (done() may make it). After an error it goes on as if nothing had been. */
void run_release(struct run *r, void (*done)(void *ctx, enum err e));
/* A replica by id, for sockets and names: false when unknown. */
bool run_replica_name(struct run *r, uint64_t replica_id, const char **ns, const char **deployment, const char **name);

/* sup's answers, handed on by the owner of the sup_client (main), which sorts them by who asked. */
void run_on_started(struct run *r, uint64_t id, enum err e, const char *text, const struct sup_replica *rep);
void run_on_exited(struct run *r, uint64_t id, int32_t status, bool oom_killed);
void run_on_exec_done(struct run *r, uint64_t id, uint64_t token, enum err e, int32_t status, struct slice output);
/* Sockets that run asked for, for its probes: true when the token was run's (tokens of run have bit 63 set). */
bool run_on_sockets(struct run *r, uint64_t id, uint64_t token, const int *fds, int n);
void run_on_adopt(struct run *r, const struct sup_replica *rep);
#define RUN_TOKEN_BIT (1ULL << 63)

/* ---- what `get` shows ---- */
struct replica_status {
    uint64_t id;
    const char *name;
    const char *node;       /* that it is on; "" when nobody has said */
    const char *phase;      /* Pending, Starting, Running, Draining, Stopping, BackOff, Exited */
    bool ready, up_to_date;
    int32_t pid;
    uint32_t restarts;
    uint64_t started_wall_ns;
    const char *why;        /* the last reason for not being ready or for the last restart; "" */
};
struct workload_status {
    const char *ns, *name;
    uint64_t generation, revision;
    uint32_t wanted, current, updated, ready, available;
    bool complete;          /* the rollout is done */
    bool late;              /* it is not, and has made no progress for its progressDeadlineSeconds */
    const char *why;        /* why it is not; "" */
    const struct replica_status *replicas; size_t replicas_n;
    uint32_t unplaced;      /* replicas for which there is no node: 0 from run, which knows of one node */
};
/* Calls each() for every Deployment; what it is given is valid during the call. */
void run_status(struct run *r, void (*each)(void *ctx, const struct workload_status *w), void *ctx);
/* Prometheus families of this room. */
void run_metrics(struct run *r, struct buf *out);

#endif
