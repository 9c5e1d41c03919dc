/* compile_node.c - this node among others: its gate, its replicas' names for other nodes, and the way to theirs.
 *
 *     endpoint of another node   address = that node's gate, remote = {its name, target_name()}
 *     endpoint of this node      targets[target_name()] = {cluster, endpoint}
 *
 * Both names are made from the objects, which all nodes share, so that they agree without having talked:
 *
 *     REPLICA.PORT.HASH.weir.internal      at most 63 + 1 + 5 + 1 + 32 + 14 bytes, labels of at most 63
 *
 * REPLICA and PORT are for people who look at connections; the hash alone decides. It is of SHA-256, because names of objects are chosen by
 * people who need not trust each other: nobody can make one service's replica answer for another's.
 */
#include "compile_int.h"

#include <openssl/evp.h>
#include <stdio.h>

#define REPLICA_LABEL_MAX 63
#define HASH_BYTES 16

void compile_node(struct compile *c)
{
    if (!c->node)
        return;
    struct plan_gate *g = keep_new(&c->keep, sizeof *g);
    g->node = keep_str(&c->keep, c->node->name);
    g->http = tls_node(c, NODE_TLS_HTTP);
    g->bytes = tls_node(c, NODE_TLS_BYTES);
    g->rule = (struct plan_rule){.route = keep_str(&c->keep, ""), .slot = slots_take(c->m, SLOT_ROUTE, SLICE("")).slot, .untimed = true, .plain = true};
    c->plan->gate = g;
}

/* A label of a DNS name: what does not belong in one is a dash. */
static size_t label_put(char *out, const char *text)
{
    size_t n = 0;
    for (; text[n] && n < REPLICA_LABEL_MAX; n++) {
        char ch = ascii_lower(text[n]);
        out[n] = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ? ch : '-';
    }
    return n;
}

/* The name of an endpoint of cl. No two different ones give the same text to the hash: each part has its end, and none has a NUL in it. */
static struct slice target_name(struct compile *c, const struct plan_cluster *cl, const char *ns, const char *replica, uint16_t port)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    char name[TARGET_NAME_MAX + 1];
    struct buf text = {0};
    buf_printf(&text, "weir target 1%c%s%c%s%c%u%c%d%s%c%s%c%u", 0, ns, 0, cl->service, 0, cl->port, 0, cl->subset != NULL, cl->subset ? cl->subset : "", 0, replica, 0, port);
    int r = EVP_Digest(text.p, text.n, hash, NULL, EVP_sha256(), NULL);
    MUST(r == 1);
    buf_free(&text);
    size_t n = label_put(name, replica);
    n += (size_t)snprintf(name + n, sizeof name - n, ".%u.", port);
    for (int i = 0; i < HASH_BYTES; i++)
        n += (size_t)snprintf(name + n, sizeof name - n, "%02x", hash[i]);
    n += (size_t)snprintf(name + n, sizeof name - n, ".weir.internal");
    MUST(n < sizeof name);
    return keep_slice(&c->keep, slice_of(name, n + 1));
}

bool remote_fill(struct compile *c, const struct plan_cluster *cl, const struct live_endpoint *live, uint16_t port, struct plan_endpoint *ep)
{
    const struct plan_gate *g = c->plan->gate;
    if (!g || !g->http || !g->bytes || live->gate.family == ADDR_NONE)
        return false;
    struct plan_remote *r = keep_new(&c->keep, sizeof *r);
    if (!c->remote_node || strcmp(c->remote_node, live->node) != 0)
        c->remote_node = keep_str(&c->keep, live->node);
    r->node = c->remote_node;
    r->sni = target_name(c, cl, live->ns, live->name, port).p;
    ep->remote = r;
    return true;
}

void target_add(struct compile *c, const struct plan_cluster *cl, const struct live_endpoint *live, const struct plan_endpoint *ep)
{
    struct slice name = target_name(c, cl, live->ns, live->name, ep->address.port);
    struct plan_target *t = keep_new(&c->keep, sizeof *t);
    *t = (struct plan_target){.backend = {.cluster = cl, .weight = 1}, .slot = ep->slot, .id = ep->id};
    table_put(&c->plan->targets, slice_of(name.p, name.n - 1), t);
}

void gate_listener(struct compile *c, uint64_t token, struct plan_listener *ln)
{
    *ln = (struct plan_listener){.node = true, .address = c->node->listen, .token = token, .protocol = LISTEN_TLS, .tls = tls_node(c, NODE_TLS_GATE),
                                 .gateway = keep_str(&c->keep, arena_printf(&c->scratch, "node/%s", c->node->name))};
}

const struct plan_target *plan_target_find(const struct plan *p, struct slice sni) { return table_get((struct table *)(uintptr_t)&p->targets, sni); }
