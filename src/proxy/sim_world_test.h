/* sim_world_test.h - what the suites of policies share: clients, one or two proxies and a service of many hosts, in one virtual world
 * that follows from a seed.
 *
 *     clients (HTTP/1 or HTTP/2) --> proxy (one worker; a second one for handing over) --> hosts (replicas of Service "svc")
 *
 * Every request has a number. Its client keeps an `ask`, each host that gets it a `visit`; what a policy promises is judged by
 * comparing the two, never by the proxy's own counters alone. What a host does with a visit is said by the suite's script.
 */
#ifndef SIM_WORLD_TEST_H
#define SIM_WORLD_TEST_H

#include "proxy_int.h"
#include "repeat_test.h"
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOSTS_MAX 20
#define PROXIES_MAX 2
#define NO_VISIT UINT32_MAX

enum deed_kind { DEED_ANSWER, DEED_SILENT, DEED_RESET };
/* What a host does with a request once it has all of it. */
struct deed {
    enum deed_kind kind;
    uint16_t status;        /* 0: 200 */
    uint32_t delay_ms;      /* before it */
    uint32_t bytes;         /* of the answer's body */
    uint32_t rest_ms;       /* the second half of the body so much later; 0: with the first */
};

struct visit { /* a request as a host saw it */
    uint32_t id;            /* of the ask */
    uint32_t host;
    uint32_t nth;           /* of the visits of this ask, from 1 */
    uint64_t at_ms, over_ms;
    enum h1_method method;
    uint32_t body_bytes;    /* received; each is checked */
    bool whole, answered, aborted;
};

enum ask_state { ASK_OPEN, ASK_ANSWERED /* whole */, ASK_CUT /* begun, not whole */, ASK_LOST /* no byte of an answer */ };
struct ask { /* a request as its client sees it */
    uint32_t id;
    enum ask_state state;
    enum h1_method method;
    uint32_t body_bytes;
    uint64_t at_ms, over_ms;
    uint16_t status;
    uint32_t visit;         /* that the answer is of; NO_VISIT: the proxy's own */
    uint32_t heads;         /* answers' heads that came */
    uint64_t got;           /* bytes of the body */
    uint32_t visits;        /* of hosts */
    bool unsent;            /* lost, and the proxy has said that it was not taken (HTTP/2) */
};

/* A connection with what it carries: requests one after the other, `parallel` of them at once. */
struct client {
    struct http_cli cli;
    enum http_version version;
    const char *path;
    const char *fields;     /* more lines of the head, each with CRLF; NULL: none */
    enum h1_method method;
    uint32_t body_bytes;    /* of each request */
    uint32_t left;          /* requests still to begin */
    uint32_t parallel;      /* HTTP/1: 1 */
    uint32_t gap_ms;        /* at most so long between two, at random */
    uint32_t slow_ms;       /* the second half of a request's body so much later; 0: with the first */
    bool once;              /* no other connection after its end */
    uint32_t running;
    uint32_t connections, closed_at_rest; /* made; ended by the proxy while nothing was under way */
    bool open, failed;
    struct timer next;
    struct list calls;
};

struct host {
    uint64_t replica_id;
    struct listener ln;
    int fd;
    bool up;
    uint32_t connections, running, visits;
};

extern struct sim_world_test {
    uint64_t seed;                     /* 0: no world */
    struct loop *proxy_loop, *host_loop, *client_loop;
    struct proxy *proxies[PROXIES_MAX];
    struct objset *objects;
    struct plan_memory *memory;
    struct plan *plan;
    struct host hosts[HOSTS_MAX];
    uint32_t hosts_n;
    struct deed (*script)(const struct visit *v);
    uint16_t (*check)(uint32_t host);      /* what a host answers to /health, which is no visit; NULL: there is no such path */
    void (*seen)(const struct h1_head *h); /* each request's head, as a host gets it; NULL: nobody looks */
    bool hosts_h2;                     /* they speak HTTP/2 by prior knowledge */
    bool hosts_tunnel;                 /* they agree to upgrades, which are no visits, and send back what comes */
    bool hosts_notice;                 /* that an HTTP/1 connection is ended while they work for it: then they stop */
    struct visit *visits;
    uint32_t visits_n, visits_cap;
    struct ask *asks;
    uint32_t asks_n, asks_cap;
    struct client *clients[256];
    uint32_t clients_n;
    uint32_t open;                     /* asks that are not over, and those still to begin */
    uint32_t connections, connections_max; /* to hosts, as they see them at the end of a step; and the most so far */
    uint32_t running, running_max;     /* requests at hosts, likewise */
    uint32_t left;                     /* endpoint_left() calls */
    bool drained[PROXIES_MAX];
    uint64_t chance;                   /* of script and clients; from the seed */
} T;

/* Manifests: a Gateway on port 8080, Service svc, and more: routes and policies. */
#define ROUTE(rule)                                                                         \
    "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: v }\n" \
    "spec: { hosts: [ \"*\" ], gateways: [ gw ], http: [ { " rule "route: [ { destination: { host: svc, port: { number: 80 } } } ] } ] }\n"
#define POLICY(spec) "---\napiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: p }\nspec: { targetRefs: [ { name: svc } ], " spec " }\n"

void world_start(uint64_t seed, const struct sim_conf *faults, uint32_t hosts, const char *more);
/* Nothing may be left behind: no connection, no socket, no byte of memory of any tag. Returns what happened, as a number: equal for equal seeds. */
uint64_t world_stop(void);
void world_plan(uint32_t mask);               /* the hosts with a bit are in the plan */
struct proxy *proxy_more(void);               /* a second proxy on the same door: the one that takes over */
void host_live(uint32_t i);
void host_kill(uint32_t i);                   /* as kill -9 */
struct client *client_start(enum http_version version, uint32_t requests);
void client_go(struct client *c);             /* after its fields are set */
void client_end(struct client *c);
bool all_over(void *ctx);
bool never(void *ctx);
void pass(uint64_t ms);
void run_all(uint64_t ms);                    /* until all asks are over */
uint64_t chance(uint64_t below);              /* of the script: 0 to below - 1 */
uint64_t counted(const counter *c);
struct cluster *cluster_now(void);            /* of svc, in the first proxy */
uint32_t ejected_now(void);                   /* of the plan's endpoints */
uint32_t count_status(uint16_t status);
/* Runs body for seeds 1 to n, the first of them twice: with the same history, unless there is TLS in it, which draws by a chance of its own. */
extern bool world_secure;
void each_seed(uint64_t n, void (*body)(uint64_t seed));

#endif
