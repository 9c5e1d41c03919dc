/* cluster.h - what one worker knows of one cluster of the plan: whom to choose, whom to avoid, how much is allowed.
 *
 *   struct cluster       one per worker and cluster slot; made with its first plan, synchronised with each, dropped with the last
 *    |- lb_group         endpoints among which one choice is made: all of them, or those of one locality priority or share
 *    |- lb_member        one endpoint as a member: weight, group, state
 *    '- lb_host          the balancer's part of an endpoint; embedded in the proxy's own struct, which finds itself by CONTAINER_OF
 *
 * Nothing here knows of requests, connections or sockets. All functions are called by the worker that owns the cluster; what
 * workers share are the atomics of struct endpoint_health and struct cluster_shared (plan.h), and those are touched only where
 * the policy asks for something that needs them. BALANCING.md says what each algorithm promises.
 */
#ifndef CLUSTER_H
#define CLUSTER_H

#include "plan.h"

#define LB_WEIGHT_MAX 1000000u      /* larger weights count as this */
#define LB_WEIGHT_UNIT 1000u        /* an effective weight is weight * this, less while an endpoint starts slowly */
#define RING_POINTS_MAX 65536u      /* of a ring, unless the policy asks for more; up to twice as many, see ring_build() */
#define RING_POINTS_PER_HOST 100u   /* wanted, within the limit */
#define RING_POINTS_SMALL 16384u    /* up to here each member has half of the least size */
#define RING_SIZE_MAX 8388608u      /* no policy gets more */
#define MAGLEV_SIZE_MAX 5000011u
#define MAGLEV_HOSTS_MAX 65535u     /* above: the ring is used */
#define EWMA_TAU_NS 10e9            /* a latency's weight falls to 1/e in this time */

/* ---- endpoints ------------------------------------------------------------------------------------------------------- */

/* One worker's view of one endpoint. Zeroed by its owner when made; an endpoint belongs to one cluster. */
struct lb_host {
    uint32_t in_flight;             /* requests of this worker: cluster_begin(), cluster_end() */
    uint64_t shun_until_ms;         /* the proxy's: it failed here just now, so it is the last choice until then */
    uint64_t id;                    /* of the plan's endpoint */
    struct endpoint_health *health; /* alive as long as a plan names the endpoint */
    uint64_t key;                   /* of its name: the same on every node and after every restart */
    double ewma_ns;                 /* peak-sensitive mean of its latency */
    uint64_t ewma_at_ns;            /* when that was last brought up to date; 0: never answered */
};

enum lb_state { LB_UP, LB_UNCHECKED /* active checks have not answered yet */, LB_DOWN /* ejected, or failed its checks */ };

struct lb_member {
    struct lb_host *host;
    uint64_t since_ms;              /* monotonic: when a plan first named it */
    uint32_t weight;                /* as the plan says, at most LB_WEIGHT_MAX */
    uint32_t effective;             /* weight * LB_WEIGHT_UNIT, less during slow start */
    uint32_t deficit;               /* round robin: what it is owed, in units of effective weight */
    uint32_t group;
    uint8_t state;                  /* enum lb_state, at the last refresh */
};

/* ---- groups ------------------------------------------------------------------------------------------------------------ */

struct ring_point { uint32_t hash, member; /* member: in the group */ };

struct lb_group {
    struct lb_host **live;          /* those that may be chosen now: who is up, or all in panic */
    uint32_t live_n;
    bool equal;                     /* all live weights are the same: weights, cut, other are not read */
    bool panic;                     /* too few are up: all are used */
    uint32_t load;                  /* its share of requests, relative to the other groups' */
    uint32_t turn;                  /* round robin: index into live of the next visit */
    uint32_t weight_max;            /* of weights */
    uint64_t weight_sum;            /* of weights; of live_n when equal */
    uint32_t *weights;              /* of live: effective */
    uint32_t *member;               /* of live: index into cluster.members */
    uint32_t *cut, *other;          /* Vose's alias table over live */
    uint64_t *odds; uint32_t *stack; /* scratch for building it */
    uint32_t first, n;              /* its range of cluster.members */
    uint32_t up_n;
    uint32_t share;                 /* localityLbSetting.distribute: its weight */
    struct ring_point *ring;        /* by hash; over all members, whoever is up */
    uint32_t ring_n, ring_bits;
    uint32_t *ring_start;           /* by the first ring_bits of a hash: index into ring */
    uint16_t *maglev;               /* index into the group's members */
    uint32_t maglev_n;
};

/* ---- refusals: which limit was hit --------------------------------------------------------------------------------------- */

/* What is counted over all workers, where a policy limits it. */
enum breaker { BREAKER_CONNECTIONS, BREAKER_PENDING, BREAKER_REQUESTS, BREAKER_RETRIES, BREAKER_STARVED /* counted, never refused */, BREAKER_COUNT };

/* X(name, label, text): the label is a metric's, the text is for people. */
#define OVERFLOW_LIST(X)                                                                              \
    X(CONNECTIONS, "connections", "the cluster has as many connections as its policy allows")         \
    X(PENDING, "pending", "as many requests wait for a connection as the policy allows")              \
    X(REQUESTS, "requests", "the cluster has as many requests in flight as its policy allows")        \
    X(RETRIES, "retries", "as many retries are in flight as the policy allows")                       \
    X(RETRY_BUDGET, "retry_budget", "retries have used up their share of the requests in flight")     \
    X(ADAPTIVE, "adaptive", "as many requests are in flight as the service handles without queueing") \
    X(SHED, "shed", "the cluster is nearly full, and the request's priority is low")
enum overflow {
    OVERFLOW_NONE,
#define X(name, label, text) OVERFLOW_##name,
    OVERFLOW_LIST(X)
#undef X
    OVERFLOW_COUNT
};
const char *overflow_label(enum overflow o); /* "" for none */
const char *overflow_text(enum overflow o);

/* Why an endpoint was ejected. X(name, label) */
#define EJECTION_LIST(X)                    \
    X(CONSECUTIVE_5XX, "consecutive_5xx")   \
    X(CONSECUTIVE_GATEWAY, "consecutive_gateway_failure") \
    X(CONSECUTIVE_LOCAL, "consecutive_local_origin_failure") \
    X(SUCCESS_RATE, "success_rate")         \
    X(FAILURE_PERCENTAGE, "failure_percentage")
enum ejection {
#define X(name, label) EJECTION_##name,
    EJECTION_LIST(X)
#undef X
    EJECTION_COUNT
};
const char *ejection_label(enum ejection e);

/* ---- the cluster ------------------------------------------------------------------------------------------------------------ */

/* Written by their worker, read by /metrics: see cluster_metrics.c, which tells their names. */
struct cluster_counters {
    counter picks_panic;                 /* choices made among all because too few were up */
    counter picks_none;                  /* requests for which there was nobody */
    counter picks_last;                  /* choices of an endpoint that failed lately or was tried: nobody else was left */
    counter picks_moved;                 /* hashed requests that did not go to the first endpoint of their hash */
    counter tables;                      /* rings and Maglev tables built */
    counter ejections[EJECTION_COUNT];   /* by this worker */
    counter ejections_over;              /* not done: max_ejection_pct */
    counter unejections;
    counter overflow[OVERFLOW_COUNT];
    counter limit_changes;               /* of the adaptive limit, by this worker */
    counter hosts, hosts_up, hosts_ejected; /* gauges, as of the last refresh */
    counter limit;                       /* gauge: the adaptive limit, as of the last sweep; 0: there is none */
    counter retries, hedges, mirrored;   /* requests to it beyond their clients' own */
    counter connect_failures, timeouts;  /* attempts that ended so */
};

struct cluster;
/* What the owner wants to hear; each may be NULL. Called inside outlier_result(), cluster_pick() and cluster_sweep(): they must not
 * call back into the cluster. */
struct cluster_ops {
    void (*ejected)(void *ctx, struct cluster *c, struct lb_host *h, enum ejection why, uint64_t for_ms);
    void (*unejected)(void *ctx, struct cluster *c, struct lb_host *h);
};

struct cluster {
    struct lb_group *groups;             /* groups_n; for most clusters the one below */
    uint32_t groups_n;
    uint8_t kind;                        /* enum lb_kind, of the policy */
    bool checked;                        /* endpoints can be ejected or unhealthy: refresh, and look at each choice */
    bool plain;                          /* two choices among equals, nothing to check: the shortest way */
    bool adaptive, outlier;              /* of the policy: their functions have work */
    bool sweeps;                         /* cluster_sweep() has work */
    uint8_t counted;                     /* sum of 1 << enum breaker: what is counted in shared */
    uint32_t load_sum;                   /* of the groups */
    uint64_t refresh_at_ms;              /* when the states and weights of members are read again; UINT64_MAX: never */
    const struct plan_cluster *pc;       /* of the worker's current plan; NULL once dropped */
    const struct cluster_policy *policy; /* never NULL */
    struct cluster_shared *shared;       /* NULL once dropped */
    uint32_t in_flight;                  /* requests of this worker in all its endpoints */
    uint32_t uses;                       /* cluster_hold() */
    uint64_t policy_hash;                /* of the plan that the tables were made for */
    struct lb_group whole;
    struct lb_member *members;           /* members_n, ordered by group; NULL when there is nothing to say of single members */
    uint32_t members_n;
    uint32_t hosts_n;                    /* in the plan */
    bool by_priority;                    /* groups are locality priorities, best first; else shares */
    bool dropped;
    uint64_t ramp_until_ms;              /* the last slow start ends */
    uint64_t *keys;                      /* of whole.live in plan order, for cluster_find(); NULL until asked for */
    uint64_t seed;                       /* where round robin begins */
    uint32_t held[BREAKER_COUNT];        /* by enum breaker: what this worker has counted in shared */
    struct arena mem;                    /* of all tables */
    const struct cluster_ops *ops;
    void *ctx;
    struct cluster_counters *count;      /* its own, unless cluster_count_in() gave others */
    bool count_owned;
};

/* seed: a random number; workers with different seeds begin round robin at different endpoints. */
struct cluster *cluster_new(const struct cluster_ops *ops, void *ctx, uint64_t seed);
/* From now on it counts there; they outlive it. Before its first use. */
void cluster_count_in(struct cluster *c, struct cluster_counters *count);
/* The same cluster as in the plan before: else the old one is dropped and a new one made (its slot was given away). */
static inline bool cluster_is(const struct cluster *c, const struct plan_cluster *pc) { return !c->shared || c->shared == pc->shared; }
/* Takes the cluster of a new plan, while the plan before is still held and the endpoints that it alone names still exist. Tables are made anew only when policy_hash differs; then
 * host_of() is called once for each endpoint and must return its lb_host, whose plan fields are filled in here. locality: of this
 * node (plan.locality). */
void cluster_sync(struct cluster *c, const struct plan_cluster *pc, const char *locality, struct lb_host *(*host_of)(void *ctx, const struct plan_endpoint *pe),
                  void *host_ctx, uint64_t now_ms);
/* No plan names it any more, or the worker ends: gives back what it has counted, and is freed with the last hold. */
void cluster_drop(struct cluster *c); /* NULL-safe */
/* For whoever keeps a pointer beyond the turn: exchanges, and connections that are counted. */
static inline struct cluster *cluster_hold(struct cluster *c)
{
    c->uses++;
    return c;
}
void cluster_release(struct cluster *c);
void cluster_refresh(struct cluster *c, uint64_t now_ms); /* reads states and weights again */

/* ---- choice ------------------------------------------------------------------------------------------------------------------ */

struct lb_request {
    uint64_t hash;          /* of what the policy hashes on */
    bool hashed;            /* else hash policies take a random place */
    uint64_t random;        /* loop_random() */
    uint64_t now_ms, now_ns; /* loop time */
    const uint64_t *tried;  /* ids of endpoints that this request has tried */
    uint32_t tried_n;
};
/* The endpoint for a request. NULL: none, and cluster_none() says why. One that was tried, or is shunned, is chosen only when there
 * is no other. */
struct lb_host *cluster_pick(struct cluster *c, const struct lb_request *rq);
enum lb_none { LB_NONE_EMPTY /* no endpoints */, LB_NONE_EJECTED /* all are ejected */, LB_NONE_UNHEALTHY /* some or all failed their checks */ };
enum lb_none cluster_none(const struct cluster *c, uint64_t now_ms);
const char *lb_none_text(enum lb_none n);
bool cluster_in_panic(const struct cluster *c);
/* For sticky sessions: the endpoint with this key, if it may be used now; NULL: choose another. */
struct lb_host *cluster_find(struct cluster *c, uint64_t key, uint64_t now_ms);

/* A request goes to h; it has ended there. */
static inline void cluster_begin(struct cluster *c, struct lb_host *h)
{
    h->in_flight++;
    c->in_flight++;
}
static inline void cluster_end(struct cluster *c, struct lb_host *h)
{
    DMUST(h->in_flight && c->in_flight);
    h->in_flight--;
    c->in_flight--;
}
/* h answered after rtt_ns (head of the answer; for failures: at least what a time-out would have cost). Only LB_PEAK_EWMA needs it. */
void host_latency(struct lb_host *h, uint64_t rtt_ns, uint64_t now_ns);
/* Cost of one more request there: latency, decayed since, times requests in flight and this one. scale: mean weight / its weight. */
double host_cost(const struct lb_host *h, double scale, uint64_t now_ns);
/* Ejected, or failed its active checks. */
bool host_down(const struct lb_host *h, uint64_t now_ms);

/* Vose's alias table of g->weights: choosing by weight in constant time. */
void alias_build(struct lb_group *g);

/* ---- hashing (hash_ring.c) ---------------------------------------------------------------------------------------------------- */

/* 64 bits of the bytes, the same in every process and on every node, unlike hash_bytes(). Not for secrets. */
uint64_t hash_key(struct slice s);
uint64_t hash_addr(const struct addr *a);              /* of the IP address without the port, or the path */
uint64_t hash_join(uint64_t a, uint64_t b);            /* of two hashes in this order: for fields that occur more than once */
/* The value of a cookie in the value of a Cookie field (RFC 6265 section 4.2.1), without quotes; false when absent. */
bool cookie_find(struct slice field, struct slice name, struct slice *value);
/* The value of a query parameter in a request target, as written (not decoded); false when absent. */
bool query_find(struct slice target, struct slice name, struct slice *value);
void ring_build(struct lb_group *g, const struct lb_member *members, uint32_t size_min, struct arena *a);
void maglev_build(struct lb_group *g, const struct lb_member *members, uint32_t size, struct arena *a);
uint32_t ring_at(const struct lb_group *g, uint64_t hash);   /* index of the first point at or behind hash */

/* ---- outliers --------------------------------------------------------------------------------------------------------------------- */

enum outcome {
    OUTCOME_OK,            /* any answer below 500 */
    OUTCOME_5XX,           /* 500, 501, 505 to 599 */
    OUTCOME_GATEWAY_ERROR, /* 502, 503, 504 from the endpoint */
    OUTCOME_LOCAL,         /* no answer: connecting failed, time-out, reset */
};
static inline enum outcome outcome_of(uint16_t status)
{
    return status < 500 ? OUTCOME_OK : status >= 502 && status <= 504 ? OUTCOME_GATEWAY_ERROR : OUTCOME_5XX;
}
void outlier_count(struct cluster *c, struct lb_host *h, enum outcome o, uint64_t now_ms, uint64_t random);
/* An attempt at h has ended. random: for the jitter of an ejection. */
static inline void outlier_result(struct cluster *c, struct lb_host *h, enum outcome o, uint64_t now_ms, uint64_t random)
{
    if (c->outlier)
        outlier_count(c, h, o, now_ms, random);
}
/* The ejection of h, which ended at the latest at now_ms, is taken off; told and counted by whoever is first. */
void outlier_expire(struct cluster *c, struct lb_host *h, uint64_t now_ms);
/* What is due by time: the end of ejections, rates of success. Called by each worker about once a second for each cluster with
 * c->sweeps; whichever comes first in an interval does it. */
void cluster_sweep(struct cluster *c, uint64_t now_ms, uint64_t random);

/* ---- breakers ------------------------------------------------------------------------------------------------------------------------ */

enum overflow breaker_count(struct cluster *c, enum breaker b, uint32_t rank, uint8_t *held);
void breaker_uncount(struct cluster *c, enum breaker b, uint8_t *held);
/* One more connection, request waiting for a connection, request or retry; what is not OVERFLOW_NONE is refused. *held, zero
 * at first, remembers for breaker_leave() what was counted: policies may change meanwhile. One held per exchange and connection.
 * No limit, no atomic operation. rank: of breaker_rank(), for requests; else 0. */
static inline enum overflow breaker_enter(struct cluster *c, enum breaker b, uint32_t rank, uint8_t *held)
{
    return LIKELY(!(c->counted & 1u << b)) ? OVERFLOW_NONE : breaker_count(c, b, rank, held);
}
/* Idempotent. */
static inline void breaker_leave(struct cluster *c, enum breaker b, uint8_t *held)
{
    if (UNLIKELY(*held & 1u << b))
        breaker_uncount(c, b, held);
}
/* Requests on other workers wait for a connection of this cluster: one that comes to rest here is given back. */
static inline bool cluster_starves(const struct cluster *c)
{
    if (LIKELY(!(c->counted & 1u << BREAKER_STARVED)) || !c->shared)
        return false;
    return __atomic_load_n(&c->shared->starved, __ATOMIC_RELAXED) > c->held[BREAKER_STARVED];
}
/* How unimportant a request is, by the value of the policy's shed.header (empty: absent): 0 is the most important. Values that the policy
 * does not list rank last. */
uint32_t breaker_rank(const struct shed_policy *s, struct slice value);
/* How long to wait before the retry-th retry (from 1): random between base_ms and base_ms * 2^retry, never above max_ms.
 * 0 for base_ms or max_ms: 25 and 10 times base_ms. */
uint32_t retry_backoff_ms(uint32_t retry, uint32_t base_ms, uint32_t max_ms, uint64_t random);

/* ---- adaptive concurrency -------------------------------------------------------------------------------------------------------------- */

enum probe_phase { GRADIENT_STEADY, GRADIENT_DRAIN, GRADIENT_MEASURE };
/* The controller by itself; kept in cluster_shared.adaptive. */
struct gradient {
    float limit;          /* wanted; while probing, half of it is allowed */
    uint16_t windows;     /* since the latency of the unloaded service was last measured */
    uint8_t phase;        /* enum probe_phase */
    uint64_t base_ns;     /* latency of the service without queueing, as far as known; 0: not yet */
};
/* One window is over: sample_ns is the mean latency in it; busy: most of its requests ran with at least half the limit in use.
 * Returns the limit that holds until the next window ends. */
uint32_t gradient_step(struct gradient *g, const struct adaptive_policy *p, uint64_t sample_ns, bool busy);
void adaptive_count(struct cluster *c, uint64_t rtt_ns, uint64_t now_ms);
uint32_t adaptive_limit(const struct cluster *c); /* requests allowed at once, over all workers */
/* A request was answered after rtt_ns, or timed out after that; refusals of our own and failures to connect are no samples. */
static inline void adaptive_sample(struct cluster *c, uint64_t rtt_ns, uint64_t now_ms)
{
    if (c->adaptive)
        adaptive_count(c, rtt_ns, now_ms);
}
/* Places in cluster_shared.adaptive. */
enum { ADAPTIVE_WINDOW_END, ADAPTIVE_SUM_NS, ADAPTIVE_SAMPLES, ADAPTIVE_BASE_NS, ADAPTIVE_STATE, SHARED_SWEEP_AT };

#endif
