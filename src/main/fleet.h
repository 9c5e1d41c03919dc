/* fleet.h - one node's part in a system of nodes that share a control store: who is there, who leads, who runs what, where replicas are.
 *
 * CLUSTER.md has the keys, the states and what happens when something fails. Everything is on the control loop. A node alone (conf.alone) writes the same
 * keys into its own store and is its own leader, but runs everything whatever placement says.
 */
#ifndef FLEET_H
#define FLEET_H

#include "ctl.h"
#include "plan.h"

struct fleet;
struct fleet_conf {
    const char *node;            /* its name, unique in the system */
    const char *instance;        /* of the data folder: who has it may take the node's keys over (an engine after another) */
    const char *place;           /* where the data folder is: tells it from a copy of it, which has the same instance; "" */
    const char *gate;            /* "ADDRESS:PORT" where other nodes reach its replicas; NULL: nowhere */
    const char *locality;        /* "region/zone/subzone"; "" */
    const char *version;         /* of Weir */
    const struct kvs *labels;    /* given by people; the well-known ones are added */
    uint64_t cpu_milli, memory;  /* allocatable */
    uint32_t ttl_s;              /* of the lease; 0: FLEET_TTL_S */
    bool alone;
    bool log;                    /* this node may keep the event log */
};
struct fleet_ops {
    /* What is wanted; NULL: not known, or it is not what the store has. Valid until fleet_touch(). */
    const struct objset *(*objects)(void *ctx);
    /* Shares, other nodes' endpoints, nodes, or what services outside registered are different. Once per turn at most, never from inside a function of this header. */
    void (*changed)(void *ctx);
    /* A process of this Deployment is on this node. */
    bool (*runs)(void *ctx, const char *ns, const char *name);
    /* The lease is about to run out: what runs once has to be gone within ms. Its share is 0 from here on, until the lease is there again. */
    void (*drop)(void *ctx, const char *ns, const char *name, uint32_t ms);
    /* Whatever becomes of this engine: all that runs once is to be killed at until_ms (loop time), unless this is called again. At each renewal. */
    void (*fence)(void *ctx, uint64_t until_ms);
    /* What stands at a key of a service outside is none, and is left out: message says which and why. ns, service: what the key has there, written by
     * anybody; empty where it has not. Also from inside fleet_recall(). */
    void (*left_out)(void *ctx, struct slice ns, struct slice service, const char *message);
};
/* conf and all that it refers to is copied. ctl must not be closed before fleet_stop(). */
struct fleet *fleet_start(struct loop *l, struct ctl *ctl, const struct fleet_conf *conf, const struct fleet_ops *ops, void *ctx);
/* This node is to have nothing more: the leader places its replicas elsewhere, each stays until the one that follows it is ready. Until fleet_leave(). */
void fleet_cordon(struct fleet *f);
/* The lease is given back, so that all of this node's keys are gone; then done(). Without contact after FLEET_LEAVE_MS: done() all the same. */
void fleet_leave(struct fleet *f, void (*done)(void *ctx), void *ctx);
/* Nothing is called any more; the keys stay as long as their lease. NULL-safe. */
void fleet_stop(struct fleet *f);

/* The store is older than it was: what all say is read anew, and this node joins anew. */
void fleet_again(struct fleet *f);

/* Objects, or what runs here, are different. */
void fleet_touch(struct fleet *f);
/* This node's ready replicas. The strings are copied; says nothing twice. */
void fleet_endpoints(struct fleet *f, const struct live_endpoint *eps, size_t n);

/* What this node says of its Deployments, in JSON, under FLEET_TOLD "NAMESPACE/NAME/NODE" while its lease lasts; copied, and says nothing twice. What is not named is gone. */
struct fleet_told {
    const char *ns, *name;
    char *json;
};
void fleet_tells(struct fleet *f, const struct fleet_told *items, size_t n);

/* What is known of all nodes - who they are, placement, endpoints - as text; of: the system's name, so that it is not taken for another's. */
void fleet_remember(struct fleet *f, const char *of, struct buf *out);
/* The reverse, before the store has told anything: shares and endpoints are as they were then, until it does. False: it is not of this system, or nothing that was remembered. */
bool fleet_recall(struct fleet *f, const char *of, struct slice text) WARN_UNUSED;

/* It is a member, and everything was read: shares are known. */
bool fleet_ready(const struct fleet *f);
/* How many replicas of a Deployment run here. */
uint32_t fleet_share(const struct fleet *f, const struct object *dep);
/* The leader has said where its replicas run, as many as it has now. */
bool fleet_placed(const struct fleet *f, const struct object *dep);
/* Replicas for which there is no node, and why; 0: none. */
uint32_t fleet_unplaced(const struct fleet *f, const struct object *dep, const char **why);

struct fleet_node {
    const char *name, *gate, *locality, *version; /* gate: NULL: none */
    struct kvs labels;
    uint64_t cpu_milli, memory;
    uint64_t since_ns;           /* wall clock: when it joined */
    bool self, leader;
    bool leaving;                /* fleet_cordon() */
};
/* By name; valid until the next turn. */
const struct fleet_node *const *fleet_nodes(struct fleet *f, size_t *n);
/* A ready replica on another node, or an address that a service outside registered (node NULL). */
struct fleet_endpoint {
    const char *node, *gate;     /* gate: of the node; NULL: it has none, or has just gone */
    const char *ns, *workload, *replica; /* outside: workload is the Service, replica the ID */
    const char *locality;        /* NULL: not known */
    uint64_t id;                 /* of the process, on its node; outside: of the key */
    struct kvs labels;
    struct container_port *ports; size_t ports_n; /* outside: the one port, or none */
    char *address;               /* outside */
    uint32_t weight;             /* outside; 0: nothing is sent to it */
};
/* By key; valid until the next turn. */
const struct fleet_endpoint *const *fleet_others(struct fleet *f, size_t *n);

/* The node that keeps the event log of all. */
struct fleet_log {
    bool known;                  /* somebody does */
    bool here;                   /* this node, and this data folder */
    struct slice node;           /* its name; empty when this node is alone */
    const char *gate;            /* NULL: not a member now, or it has none */
};
void fleet_log(const struct fleet *f, struct fleet_log *out); /* valid until the next turn */

struct fleet_status {
    bool member;                 /* the lease is valid, by this node's own clock */
    bool leader;                 /* this node */
    const char *why;             /* not a member: why; "" */
    uint64_t services_left_out;  /* so far: registrations beyond FLEET_SERVICES_MAX */
    uint64_t rejoins, fenced;    /* so far: leases lost; Deployments dropped for it */
};
void fleet_status(const struct fleet *f, struct fleet_status *out);

#define FLEET_TTL_S 3
#define FLEET_LEAVE_MS 1000
#define FLEET_SERVICES_MAX 20000     /* registrations of services outside */
#define FLEET_SERVICE_BYTES_MAX 4096u /* of the key and of the value of one */
#define FLEET_TOLD "/weir/workloads/"
#define SERVICES_PREFIX "/services/" /* NAMESPACE/SERVICE/ID: written by services outside */

#endif
