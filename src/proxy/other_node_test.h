/* other_node_test.h - a second node for tests of the request path: its own plan memory, plan and proxy, in the same simulated world, with
 * certificates that are made for it. What the first node, "a", knows of the replicas is then that they are on "b", behind its gate.
 *
 *     clients --> proxy of a --mTLS--> gate of b: proxy of b --> hosts (replicas)
 */
#ifndef OTHER_NODE_TEST_H
#define OTHER_NODE_TEST_H

#include "proxy_int.h"
#include "sim.h"
#include "tls_testcert.h"

#include <stdio.h>

#define OTHER_GATE_PORT 7443

struct node_certs {
    struct testcert *ca, *a, *b;
};
static struct node_certs node_certs; /* made once: keys cost time */

static inline struct testcert *node_cert(const struct testcert *ca, const char *name)
{
    char sans[80];
    (void)snprintf(sans, sizeof sans, "DNS:%s", name);
    return testcert_new(ca, &(struct testcert_conf){.name = name, .sans = sans, .from_s = -3600 * 24 * 365ll * 60, .to_s = 3600 * 24 * 365ll * 100});
}

static inline struct testcert *node_ca(const char *name)
{
    return testcert_new(NULL, &(struct testcert_conf){.name = name, .ca = true, .from_s = -3600 * 24 * 365ll * 60, .to_s = 3600 * 24 * 365ll * 100});
}

static inline void node_certs_make(void)
{
    node_certs.ca = node_ca("nodes");
    node_certs.a = node_cert(node_certs.ca, "a");
    node_certs.b = node_cert(node_certs.ca, "b");
}

static inline void node_certs_free(void)
{
    testcert_free(node_certs.a);
    testcert_free(node_certs.b);
    testcert_free(node_certs.ca);
}

static inline struct addr other_gate(void) { return addr_ip4(0x0a000002u, OTHER_GATE_PORT); }

static inline struct plan_node node_conf(const char *name, const struct testcert *cert, const struct testcert *ca)
{
    return (struct plan_node){.name = name, .cert_pem = slice_cstr(cert->chain_pem), .key_pem = slice_cstr(cert->key_pem), .ca_pem = slice_cstr(ca->cert_pem)};
}

struct other_node {
    struct loop *loop;
    struct proxy *proxy;
    struct plan_memory *memory;
    struct plan *plan;
    uint32_t left;       /* endpoint_left() calls */
    bool hold_sockets;
    bool (*service)(void *ctx, struct slice line, int *fd); /* of the node itself; NULL: it has none */
};

/* The answer to sockets_wanted(): by another turn, as sup's. */
struct other_sockets {
    struct timer t;
    struct other_node *o;
    uint64_t replica_id;
    uint32_t n;
};

static inline void other_sockets_late(struct timer *t)
{
    struct other_sockets *l = CONTAINER_OF(t, struct other_sockets, t);
    int fds[64];
    uint32_t n = MIN(l->n, (uint32_t)COUNT_OF(fds));
    for (uint32_t i = 0; i < n; i++)
        fds[i] = sim_socket(l->replica_id);
    proxy_sockets(l->o->proxy, l->replica_id, fds, n);
    mem_free(l);
}

static inline void other_sockets_wanted(void *ctx, uint32_t worker, uint64_t replica_id, uint32_t n)
{
    struct other_node *o = ctx;
    if (o->hold_sockets)
        return;
    struct other_sockets *l = mem_new(MEM_SIM, sizeof *l);
    *l = (struct other_sockets){.o = o, .replica_id = replica_id, .n = n};
    timer_init(&l->t, other_sockets_late);
    timer_set(o->loop, &l->t, 1);
}

static inline void other_endpoint_left(void *ctx, uint32_t worker, uint64_t endpoint_id, uint64_t replica_id) { ((struct other_node *)ctx)->left++; }

static inline bool other_service(void *ctx, struct slice line, int *fd)
{
    struct other_node *o = ctx;
    return o->service && o->service(ctx, line, fd);
}

/* Its replicas are eps. */
static inline void other_plan(struct other_node *o, const struct objset *s, const struct live_endpoint *eps, size_t n)
{
    struct plan *old = o->plan;
    o->plan = plan_compile(o->memory, s, eps, n, NULL, 0);
    proxy_plan(o->proxy, plan_ref(o->plan));
    plan_unref(old);
}

static inline void other_listen(struct other_node *o)
{
    struct addr a = other_gate();
    int fd = sim_listen(0, &a);
    MUST(fd >= 0);
    for (uint32_t i = 0; i < o->plan->listeners_n; i++)
        if (o->plan->listeners[i].node)
            proxy_listen(o->proxy, o->plan->listeners[i].token, fd);
}

static inline void other_start(struct other_node *o, const struct objset *s, const struct live_endpoint *eps, size_t n)
{
    static const struct proxy_ops ops = {.sockets_wanted = other_sockets_wanted, .endpoint_left = other_endpoint_left, .service = other_service};
    struct plan_node conf = node_conf("b", node_certs.b, node_certs.ca);
    struct proxy_conf pc;
    proxy_conf_default(&pc);
    *o = (struct other_node){.loop = loop_new("other"), .memory = plan_memory_new()};
    conf.listen = other_gate();
    plan_memory_node(o->memory, &conf);
    o->proxy = proxy_new(o->loop, &pc, &ops, o);
    other_plan(o, s, eps, n);
    other_listen(o);
}

static inline void other_stop(struct other_node *o)
{
    proxy_free(o->proxy);
    plan_unref(o->plan);
    plan_memory_free(o->memory);
    loop_free(o->loop);
}

/* What node a is told of them. */
static inline void other_remote(struct live_endpoint *to, const struct live_endpoint *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = from[i];
        to[i].node = "b";
        to[i].gate = other_gate();
    }
}

#endif
