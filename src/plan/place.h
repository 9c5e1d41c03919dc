/* place.h - which node runs how many replicas of which Deployment: a pure function of nodes, Deployments and what is where now.
 *
 * The rules are Kubernetes' scheduler's (README, "Placement"), for counts instead of pods: all replicas of a Deployment are alike. The same input
 * gives the same answer on every machine, and nothing moves that may stay: a node that is added gets what is new or was homeless, no more.
 */
#ifndef PLACE_H
#define PLACE_H

#include "plan.h"

#define PLACE_HOSTNAME "kubernetes.io/hostname"
#define PLACE_ZONE "topology.kubernetes.io/zone"
#define PLACE_REGION "topology.kubernetes.io/region"

struct place_node {
    const char *name;
    const struct kvs *labels;
    uint64_t cpu_milli, memory;  /* allocatable: thousandths of a CPU, bytes */
    bool ready;                  /* may be given more, and keeps what it has; else it has nothing */
};
struct place_want {
    const struct object *dep;    /* a Deployment */
    uint32_t *counts;            /* one for each node; in: replicas there now; out: replicas that shall be there */
    bool settled;                /* all of it is ready: one replica may be moved if that mends a constraint */
    uint32_t unplaced;           /* out: replicas for which there is no node */
    char *why;                   /* out: as `kubectl describe pod` says it: "0/3 nodes are available: ..."; NULL when all are placed; the caller frees it */
};
/* nodes and wants are ordered by name, and by namespace and name; each is there once. Without nodes everything is unplaced. */
void place(const struct place_node *nodes, size_t nodes_n, struct place_want *wants, size_t wants_n);

#endif
