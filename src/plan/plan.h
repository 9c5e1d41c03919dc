/* plan.h - from manifests to what runs: text -> checked objects -> one immutable plan.
 *
 * objset: every object that is applied, typed and validated; lives on the control thread. plan: what the request path
 * needs, compiled from an objset and the live endpoints; immutable, counted, shared by all workers. fields.def is the one
 * table of manifest fields: the reader, the checker, `explain` and the documentation come from it.
 */
#ifndef PLAN_H
#define PLAN_H

#include "http1.h"
#include "rt.h"

/* ---- diagnostics ------------------------------------------------------------------------------------------------ */

enum diag_level { DIAG_WARNING, DIAG_ERROR };
struct diag {
    enum diag_level level;
    char *file;
    uint32_t line, column; /* from 1; 0 when the whole file is meant */
    char *where;           /* "Deployment/default/catalog spec.template.spec.containers[0].image"; may be empty */
    char *reason;          /* what is wrong */
    char *remedy;          /* what to do */
};
struct diags {
    struct diag *items;
    size_t n, cap;
    size_t errors;
};
void diags_add(struct diags *d, enum diag_level lv, const char *file, uint32_t line, uint32_t column, const char *where, const char *remedy, const char *reason_fmt, ...) PRINTF_LIKE(8, 9);
void diags_free(struct diags *d);
void diag_format(const struct diag *d, struct buf *out); /* FILE:LINE:COLUMN: error: WHERE: REASON; REMEDY */

/* ---- objects -------------------------------------------------------------------------------------------------------- */

enum obj_kind { OBJ_NAMESPACE, OBJ_CONFIGMAP, OBJ_SECRET, OBJ_SERVICE, OBJ_DEPLOYMENT, OBJ_GATEWAY, OBJ_HTTPROUTE, OBJ_KIND_COUNT };
const char *obj_kind_name(enum obj_kind k);             /* "Deployment" */
/* Accepts "Deployment", "deployment", "deployments", "deploy" and the other customary short names; false when unknown. */
bool obj_kind_parse(struct slice s, enum obj_kind *out);

struct kv { char *key, *value; size_t value_n; /* bytes; values of Secrets may hold NULs */ };
struct kvs { struct kv *items; size_t n; };
const struct kv *kvs_get(const struct kvs *m, struct slice key);
/* Every pair of want is in have. */
bool kvs_match(const struct kvs *want, const struct kvs *have);

struct env_var {
    char *name;
    char *value;             /* literal; NULL when from elsewhere */
    char *map, *map_key;     /* valueFrom.configMapKeyRef | secretKeyRef */
    bool secret, optional;
};
struct env_from { char *map; char *prefix; bool secret, optional; };
struct container_port { char *name; uint16_t port; };

enum probe_kind { PROBE_NONE, PROBE_HTTP, PROBE_TCP, PROBE_EXEC };
struct probe {
    enum probe_kind kind;
    char *path;              /* http */
    char *host;              /* http: Host header, or NULL */
    struct kvs headers;      /* http */
    uint16_t port;           /* names are resolved by the reader */
    char **argv;             /* exec, NULL-terminated */
    uint32_t initial_delay_s, period_s, timeout_s, success_threshold, failure_threshold;
};
struct int_or_pct { int32_t value; bool pct; };

struct pod_template {
    struct kvs labels, annotations;
    char *container;         /* the container's name */
    char *image;
    char **argv;             /* command then args, NULL-terminated, $(VAR) not yet expanded */
    char *cwd;               /* absolute: workingDir, relative ones from the manifest's folder; default that folder */
    struct env_var *env; size_t env_n;
    struct env_from *env_from; size_t env_from_n;
    struct container_port *ports; size_t ports_n;
    struct probe readiness, liveness, startup;
    uint32_t cpu_milli_request, cpu_milli_limit;
    uint64_t memory_request, memory_limit;
    uint32_t grace_s;        /* terminationGracePeriodSeconds, default 30 */
    char **pre_stop_argv;    /* lifecycle.preStop.exec */
    struct probe pre_stop_http; /* lifecycle.preStop.httpGet; kind PROBE_NONE when absent */
    uint32_t pre_stop_sleep_s;  /* lifecycle.preStop.sleep */
    int64_t run_as_user, run_as_group; /* -1 when absent */
    bool host_network;
    bool service_links;      /* enableServiceLinks: the environment has NAME_SERVICE_HOST and NAME_SERVICE_PORT; default true */
    uint64_t hash;           /* of everything that makes a replica different: a change is a new revision */
};
struct deployment {
    uint32_t replicas;
    struct kvs selector;
    struct pod_template pod;
    bool recreate;           /* strategy.type Recreate */
    struct int_or_pct max_surge, max_unavailable; /* defaults 25 % */
    uint32_t min_ready_s, progress_deadline_s;
    bool paused;
};
struct service_port {
    char *name;              /* may be "" */
    uint16_t port;
    uint16_t target;         /* number; 0 when target_name is set */
    char *target_name;
    char *app_protocol;
};
struct service {
    struct kvs selector;
    char *external_name;     /* type ExternalName; else NULL */
    struct service_port *ports; size_t ports_n;
    struct addr address;     /* in 127.128.0.0/9, given by objset_addresses() */
};
struct gw_listener { char *name; uint16_t port; char *hostname; /* NULL: any; may begin with "*." */ bool from_all; };
struct gateway { struct addr *addresses; size_t addresses_n; /* default: 127.0.0.1 */ struct gw_listener *listeners; size_t listeners_n; };

enum match_kind { MATCH_EXACT, MATCH_PREFIX, MATCH_REGEX_REFUSED };
struct route_kv_match { char *name, *value; };
struct route_match_spec {
    bool has_path; enum match_kind path_kind; char *path;
    char *method;            /* NULL: any */
    struct route_kv_match *headers; size_t headers_n;
    struct route_kv_match *queries; size_t queries_n;
};
struct header_edit { struct kvs set, add; char **remove; size_t remove_n; };
struct route_backend { char *service, *ns; uint16_t port; uint32_t weight; struct header_edit req, resp; };
enum path_rewrite { REWRITE_NONE, REWRITE_FULL, REWRITE_PREFIX };
struct route_rule {
    struct route_match_spec *matches; size_t matches_n; /* any of them; none: everything */
    struct route_backend *backends; size_t backends_n;
    struct header_edit req, resp;
    bool redirect;
    char *redirect_scheme, *redirect_host; uint16_t redirect_port, redirect_status; /* NULL or 0: as the request */
    enum path_rewrite redirect_path_kind; char *redirect_path;
    char *rewrite_host; enum path_rewrite rewrite_path_kind; char *rewrite_path;
    uint32_t timeout_ms, backend_timeout_ms; /* 0: none given */
    char *name;
    uint32_t line;
};
struct parent_ref { char *gateway, *ns, *section; uint16_t port; };
struct http_route {
    struct parent_ref *parents; size_t parents_n;
    char **hostnames; size_t hostnames_n;
    struct route_rule *rules; size_t rules_n;
};

struct object {
    enum obj_kind kind;
    char *ns, *name;         /* ns "" for Namespace objects */
    struct kvs labels, annotations;
    char *file; uint32_t line, column; /* where it came from */
    char *dir;               /* absolute folder of that file */
    char *json;              /* the manifest as given, compact JSON */
    uint64_t hash;           /* of json */
    uint64_t created_ns;     /* wall clock, kept over updates */
    uint64_t generation;     /* +1 for each change */
    union {
        struct deployment dep;
        struct service svc;
        struct kvs data;     /* ConfigMap, Secret (decoded) */
        struct gateway gw;
        struct http_route route;
    };
    struct arena mem;        /* owns all of the above */
};

/* ---- the set ------------------------------------------------------------------------------------------------------------ */

struct objset;
struct objset *objset_new(void);
void objset_free(struct objset *s);
/* Reads the documents of one file into s (a later document of the same kind, namespace and name replaces an earlier one; in
 * the same file it is an error). Everything wrong goes to d; s is meaningless when errors were added. strict: what is
 * unknown or ignored is an error. default_ns: for objects that name none. */
void objset_read(struct objset *s, const char *file, const char *dir, struct slice text, const char *default_ns, bool strict, struct diags *d);
/* References that must hold in the whole set: routes to Gateways and Services, ConfigMaps and Secrets that are not
 * optional, selectors that match nothing, port clashes. */
void objset_check(const struct objset *s, struct diags *d);
/* into := into + from (from's objects win and keep created_ns, generation and addresses of those they replace). from is left empty. */
void objset_merge(struct objset *into, struct objset *from);
bool objset_remove(struct objset *s, enum obj_kind k, const char *ns, const char *name);
struct objset *objset_copy(const struct objset *s);
size_t objset_n(const struct objset *s);
const struct object *objset_at(const struct objset *s, size_t i); /* ordered by kind, namespace, name */
const struct object *objset_find(const struct objset *s, enum obj_kind k, const char *ns, const char *name);
/* Gives each Service that has none an address, the same one for the same namespace and name where that is free. */
void objset_addresses(struct objset *s);
/* To and from the file in the data folder (JSON; see plan/README.md). */
void objset_save(const struct objset *s, struct buf *out);
enum err objset_load(struct objset *s, const char *file, struct slice text, struct diags *d) WARN_UNUSED;
/* The lines of the hosts file that workloads of namespace ns see. */
void objset_hosts(const struct objset *s, const char *ns, struct buf *out);
/* The replica's environment after env, envFrom, $(VAR) expansion and the service variables; NULL-terminated, in a. Missing
 * references that are not optional are errors in d. extra: pairs that come first (HOSTNAME, PATH, ...), may be NULL. */
char **objset_env(const struct objset *s, const struct object *dep, const char *const *extra, struct arena *a, struct diags *d);
/* The command line with $(VAR) expanded from env. */
char **objset_argv(const struct object *dep, char *const *env, struct arena *a);

/* ---- explain ---------------------------------------------------------------------------------------------------------------- */

/* For each field of text, in order: line, path, "honoured|approximated|ignored|refused|unknown", and why. From fields.def. */
void explain_text(const char *file, struct slice text, struct buf *out, struct diags *d);
/* The whole table as Markdown, for docs/manifests.md. */
void explain_table(struct buf *out);

/* ---- the plan: what workers read -------------------------------------------------------------------------------------------- */

struct plan_endpoint {
    uint64_t id;          /* of the endpoint: never reused */
    uint64_t replica_id;  /* 0: an address outside Weir */
    bool inside;          /* address is inside the replica's network namespace: only sockets made there reach it */
    struct addr address;  /* to connect to: inside the replica's namespace, or outside */
    uint32_t slot;        /* small index, unique among live endpoints: index into per-worker tables */
    char name[64];        /* replica's name or address, for logs */
};
struct plan_cluster {
    char *ns, *service;
    char *host;            /* service.ns.svc.cluster.local */
    char *workload;        /* the Deployment behind it, or "unknown" */
    uint16_t port;
    char *authority;       /* ExternalName: the Host to send upstream; else NULL */
    struct addr address;   /* the service's address and this port, for the mesh */
    uint32_t slot;         /* small index, stable for the same namespace, service and port as long as it exists */
    struct plan_endpoint *eps; uint32_t eps_n;
};
struct plan_backend { const struct plan_cluster *cluster; /* NULL: its Service is not there: 500 (Gateway API) */ uint32_t weight; const struct header_edit *req, *resp; };
/* One rule of one HTTPRoute, or the whole of a Service's port for the mesh. */
struct plan_rule {
    char *route;            /* "namespace/name" of the HTTPRoute; "" for the mesh */
    uint32_t slot;          /* small index for per-route counters */
    struct plan_backend *backends; uint32_t backends_n; uint32_t weight_sum;
    const struct header_edit *req, *resp;   /* NULL when there is nothing to edit */
    const struct route_rule *spec;          /* redirect, rewrite, timeouts; NULL for the mesh */
    uint32_t timeout_ms, backend_timeout_ms;
};
struct plan_listener {
    struct addr address;
    uint64_t token;         /* stable for the same address: names its sockets */
    char *gateway;          /* "namespace/name" */
    struct plan_hosts *hosts; /* compiled; private */
};
struct plan {
    uint32_t refs;          /* atomic */
    uint64_t generation;
    struct plan_listener *listeners; uint32_t listeners_n;
    struct plan_cluster *clusters; uint32_t clusters_n;
    uint32_t cluster_slots, endpoint_slots, route_slots; /* one more than the largest slot */
    char **route_names;     /* by route slot */
    struct table mesh;      /* 6 bytes of address and port -> struct plan_rule * */
    uint64_t bytes;         /* memory held */
    uint64_t compile_ns;
    struct arena mem;
};

/* A live endpoint as run reports it: a ready replica of a Deployment. */
struct live_endpoint {
    uint64_t replica_id;
    const char *ns, *deployment, *name;
    const struct kvs *labels;
    const struct container_port *ports; size_t ports_n; /* for named target ports */
    const char *ip; /* NULL: inside its namespace, 127.0.0.1 */
};
/* An address of an ExternalName service, resolved by the caller. */
struct live_address { const char *ns, *service; struct addr ip; };

/* Keeps slots and ids stable from one plan to the next. Control thread only. */
struct plan_memory;
struct plan_memory *plan_memory_new(void);
void plan_memory_free(struct plan_memory *m);
/* Compiles; never fails on a checked set. References one, for the caller. The plan copies what it keeps of s. */
struct plan *plan_compile(struct plan_memory *m, const struct objset *s, const struct live_endpoint *eps, size_t eps_n, const struct live_address *ext, size_t ext_n);
struct plan *plan_ref(struct plan *p);
void plan_unref(struct plan *p); /* NULL-safe, any thread */

struct plan_hit {
    const struct plan_rule *rule;
    uint32_t prefix_len;  /* bytes of the path that the matched prefix covers, for REWRITE_PREFIX; 0 for an exact or pathless match */
};
/* The rule for a request on a listener; false: none (404). Precedence as Gateway API says (HTTPRouteRule). Hot path: no
 * allocation, O(labels of host + depth of path). */
bool plan_route(const struct plan *p, const struct plan_listener *ln, const struct h1_head *h, struct plan_hit *hit);
/* For the mesh: the rule of the service address that a workload connected to, or NULL. */
const struct plan_rule *plan_mesh_rule(const struct plan *p, const struct addr *a);
const struct plan_listener *plan_listener_find(const struct plan *p, uint64_t token);

#endif
