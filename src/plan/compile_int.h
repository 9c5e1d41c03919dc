/* compile_int.h - one compilation: what the files compile*.c share. See ROUTING.md for the way from a set to a plan.
 *
 *   compile.c           the order of things, the plan's life
 *   compile_cluster.c   names that traffic can go to (targets), their clusters and endpoints
 *   compile_policy.c    DestinationRule, BackendPolicy, BackendTLSPolicy: the policy of a cluster
 *   compile_tls.c       contexts from Secrets and ConfigMaps, kept over plans
 *   compile_node.c      the gate, and replicas of other nodes
 *   compile_rule.c      what a rule does: backends, filters, mirrors
 *   compile_route.c     what a rule matches: sources, their order, delegates
 *   compile_listener.c  Gateways of both kinds: listeners, and what is attached to them
 *   compile_mesh.c      service addresses, and what is attached to them
 *
 * Control thread only. What the plan keeps is copied into its arena (keep); what only the compilation needs is in scratch.
 */
#ifndef COMPILE_INT_H
#define COMPILE_INT_H

#include "plan_int.h"
#include "route_int.h"

/* One label of one thing: for finding what a selector may match without trying everything. */
struct label_ref {
    uint64_t hash;   /* of namespace, key and value */
    uint32_t index;  /* of the thing */
};
struct label_index {
    struct label_ref *refs; /* by hash, then index */
    size_t n;
};
/* Objects that share a key, in the order in which they count. */
struct object_list {
    const struct object **items;
    size_t n, cap;
    struct object_list *next; /* of the compilation, to be freed */
};
/* A name that traffic can go to: a Service, or one host of a ServiceEntry. */
struct target {
    const struct object *o;
    const char *service;            /* the Service's name, or the host; in the plan */
    const char *host;               /* lower case: NAME.NS.svc.cluster.local, or the host; in the plan */
    const struct service_port *ports; size_t ports_n;
    struct addr address;            /* ADDR_NONE: nobody can connect to it */
    const struct object **dests; size_t dests_n; /* DestinationRules for exactly the same host, the first decides */
    const struct object_list *backend_policies, *backend_tls; /* oldest first; may be NULL */
    const struct object *split;     /* TrafficSplit whose root it is */
    struct object_list *mesh_routes; /* HTTPRoutes and GRPCRoutes that name it as a parent */
    const struct target *whole;     /* of what a headless Service stands for (struct plan_named): the Service; NULL: of all others. It has as many ports, */
    const struct live_endpoint *replica; /* ... with its own numbers, 0 where it has no such one; and serves them alone: */
    const struct live_address *outside;  /* ... either of the two */
};
/* One compilation. */
struct compile {
    struct plan_memory *m;
    const struct objset *s;
    const struct live_endpoint *eps; size_t eps_n;
    const struct live_address *ext; size_t ext_n;
    struct plan *plan;
    struct keep keep;
    struct arena scratch;
    struct label_index ep_labels, dep_labels;
    const struct object **deps; size_t deps_n;
    struct target *targets; size_t targets_n;
    struct table named;           /* "NAMESPACE/NAME" of an endpoint of headless Services -> its address */
    struct table taken;           /* addresses that are held -> 1; empty without headless Services */
    struct table hosts;           /* host, or ".example.com" for "*.example.com" -> struct target */
    struct table clusters;        /* see cluster_key() -> struct plan_cluster */
    struct table dests;           /* host as a pattern -> struct object_list of DestinationRules */
    struct table backend_policies, backend_tls; /* host -> struct object_list */
    struct table addresses;       /* host name -> struct address_list: what the caller resolved for ServiceEntries */
    struct table grants;          /* see grant_key(): what ReferenceGrants allow */
    struct table filters;         /* "ns/name" -> struct plan_filter, made when first used */
    struct table regexes;         /* text -> struct plan_regex, of this plan */
    struct table localities;      /* text -> the same text in the plan */
    struct table specs;           /* bytes -> struct route_rule: settings that several rules share */
    struct object_list *lists;    /* all of them */
    struct route_source *sources; uint32_t sources_n; /* HTTPRoutes and GRPCRoutes */
    struct virtual_service *virtuals; uint32_t virtuals_n; /* oldest first */
    struct tcp_route *tcp_routes; uint32_t tcp_routes_n; /* oldest first */
    struct cluster_policy policy_none; uint64_t policy_none_hash; /* where nobody says anything */
    const struct cluster_policy *policy_none_kept, *policy_none_h2_kept;
    uint64_t policy_none_h2_hash;
    struct plan_holds *holds;
    const struct plan_node *node; /* NULL: there are no other nodes */
    const char *remote_node;      /* the node of the remote endpoint before, in the plan: they come in runs */
};
/* What a plan holds of what outlives it; let go with the plan. */
struct plan_holds {
    struct plan_regex **regexes; size_t regexes_n, regexes_cap;
    struct tls_ctx **tls; size_t tls_n, tls_cap;
};

/* ---- compile.c ------------------------------------------------------------------------------------------------------ */

/* The list of a key, made when it is not there. */
struct object_list *list_at(struct compile *c, struct table *t, struct slice key);
struct object_list *list_new(struct compile *c);
void list_add(struct object_list *l, const struct object *o);
/* The older object, then the name in byte order: who wins in all three APIs. */
int object_age_cmp(const struct object *a, const struct object *b);
struct kvs kvs_keep(struct keep *k, const struct kvs *from);
char **strings_keep(struct keep *k, char *const *from, size_t n);
/* A ReferenceGrant allows objects of from_kind in from_ns to refer to to_kind to_ns/to_name. */
bool grant_given(const struct compile *c, const char *from_kind, const char *from_ns, const char *to_kind, const char *to_ns, const char *to_name);
/* The expression of this plan; NULL when text is no valid one (the reader has said so) or NULL. */
const struct plan_regex *regex_keep(struct compile *c, const char *text, bool whole);

/* ---- compile_cluster.c ------------------------------------------------------------------------------------------------ */

void compile_targets(struct compile *c);
void compile_clusters(struct compile *c);
/* The target that host means to an object of namespace ns; NULL: none. */
const struct target *target_find(struct compile *c, const char *ns, const char *host);
const struct target *target_service(struct compile *c, const char *ns, const char *service);
/* Host as the tables keep it, with short names completed. */
struct slice host_full(struct compile *c, const char *ns, const char *host);
/* port 0: the only one, or the one whose number is near. NULL: no such port or subset. */
const struct plan_cluster *target_cluster(struct compile *c, const struct target *t, uint16_t port, uint16_t near, const char *subset);

/* ---- compile_policy.c --------------------------------------------------------------------------------------------------- */

void policies_index(struct compile *c);
void policies_bind(struct compile *c, struct target *t);
/* The policy of one port of a target, or of a subset of it, in the plan. */
const struct cluster_policy *policy_of(struct compile *c, const struct target *t, const struct service_port *sp, const char *subset, uint64_t *hash);
const struct subset *subset_find(const struct target *t, const char *name);
/* The port asks for HTTP/2 by its appProtocol or name. */
bool port_is_h2(const struct service_port *sp);
/* How connections to the port begin. */
enum mesh_protocol port_protocol(const struct service_port *sp);

/* ---- compile_tls.c -------------------------------------------------------------------------------------------------------- */

/* A client's context; NULL when something it needs is missing or wrong, which is logged once. */
struct tls_ctx *tls_upstream(struct compile *c, const struct upstream_tls *tls, enum upstream_http http, const char *name, uint64_t *hash);
/* The contexts of a node among others: of its gate, and to other gates by what is spoken there. NULL as above. */
enum node_tls { NODE_TLS_GATE, NODE_TLS_HTTP, NODE_TLS_BYTES };
struct tls_ctx *tls_node(struct compile *c, enum node_tls kind);
/* One server behind an address. */
struct tls_site {
    struct slice pattern;  /* as a hostname: "", "a.com", "*.a.com" */
    const struct object *gw;
    const struct gw_listener *ln;
};
struct tls_ctx *tls_listener(struct compile *c, const struct tls_site *sites, size_t n);

/* ---- compile_node.c -------------------------------------------------------------------------------------------------------- */

#define TARGET_NAME_MAX 127
/* Before the clusters: contexts, the rule of what comes from other nodes. Nothing without c->node. */
void compile_node(struct compile *c);
/* The endpoint's other half where it runs on another node: fills address, and remote. False: it can't be reached. */
bool remote_fill(struct compile *c, const struct plan_cluster *cl, const struct live_endpoint *live, uint16_t port, struct plan_endpoint *ep);
/* ep, of this node and of cl, can be asked for by other nodes. */
void target_add(struct compile *c, const struct plan_cluster *cl, const struct live_endpoint *live, const struct plan_endpoint *ep);
/* The gate's listener. */
void gate_listener(struct compile *c, uint64_t token, struct plan_listener *ln);

/* ---- compile_rule.c --------------------------------------------------------------------------------------------------------- */

/* Fills r from a rule of o; near: the port that traffic comes in on, for destinations that name none. */
void rule_fill(struct compile *c, struct plan_rule *r, const struct object *o, const struct route_rule *from, uint16_t near);
/* The target that a backend of o means, whatever its port; NULL: none, or none that is granted to o. */
const struct target *backend_target(struct compile *c, const struct object *o, const struct route_backend *b);
/* True when some destination of the rule depends on near. */
bool backends_near(struct compile *c, const struct object *o, const struct route_backend *b, size_t n);
void tcp_rule_fill(struct compile *c, struct plan_tcp_rule *r, const struct object *o, const struct tcp_rule *from, uint16_t near);
/* The backends for a target itself: it, or what a TrafficSplit makes of it. */
uint32_t backends_default(struct compile *c, const struct target *t, const struct plan_cluster *cl, struct plan_backend **out, uint32_t *weight_sum);

/* ---- compile_route.c ---------------------------------------------------------------------------------------------------------- */

/* A VirtualService. What it becomes depends on the port only where a destination leaves its own open. */
struct virtual_service {
    const struct object *o;
    char *name;                 /* "namespace/name", in the plan */
    uint32_t slot;
    uint32_t order;             /* of its first match among all VirtualServices' */
    bool near;                  /* see above */
    bool mesh;                  /* it is for calls from inside */
    uint32_t tcp_order;         /* as order, of its rules of bytes */
    struct flat_rule *rules; size_t rules_n; /* with those of delegates put in */
    struct virtual_compiled *compiled; /* one for each port */
};
struct virtual_compiled {
    struct virtual_compiled *next;
    uint16_t near;
    struct route_source http;   /* ones_n 0: has none */
    struct tcp_one *tcp; uint32_t tcp_n;
    struct tcp_one *tls; uint32_t tls_n;
    const struct mesh_table *mesh;
};
/* A TCPRoute or TLSRoute. */
struct tcp_route {
    const struct object *o;
    struct tcp_one *ones; uint32_t ones_n;
};
#define TCP_ORDER_VIRTUAL 0x80000000u /* rules of bytes of VirtualServices come after those of TCPRoutes and TLSRoutes */
void compile_routes(struct compile *c);
struct virtual_compiled *virtual_at(struct compile *c, struct virtual_service *v, uint16_t port);
/* gateways is empty, or has name ("ns/name", or "mesh"); entries without a slash are of namespace ns. */
bool gateways_have(char *const *gateways, size_t n, const char *ns, const char *name);

/* ---- compile_listener.c, compile_mesh.c -------------------------------------------------------------------------------------------- */

void compile_listeners(struct compile *c);
void compile_mesh(struct compile *c);
void compile_named(struct compile *c);
void compile_callers(struct compile *c);

#endif
