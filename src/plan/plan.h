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
/* Moves what d has from n on into out, which is empty: d had so many errors then. */
void diags_cut(struct diags *d, size_t n, size_t errors, struct diags *out);
void diag_format(const struct diag *d, struct buf *out); /* FILE:LINE:COLUMN: error: WHERE: REASON; REMEDY */

/* ---- objects -------------------------------------------------------------------------------------------------------- */

enum obj_kind {
    OBJ_NAMESPACE, OBJ_CONFIGMAP, OBJ_SECRET, OBJ_SERVICE, OBJ_DEPLOYMENT, OBJ_GATEWAY, OBJ_HTTPROUTE,
    OBJ_GRPCROUTE, OBJ_TCPROUTE, OBJ_TLSROUTE, OBJ_REFERENCEGRANT, OBJ_BACKENDTLSPOLICY,   /* gateway.networking.k8s.io */
    OBJ_VIRTUALSERVICE, OBJ_DESTINATIONRULE, OBJ_ISTIO_GATEWAY, OBJ_SERVICEENTRY, OBJ_SIDECAR, /* networking.istio.io */
    OBJ_PEERAUTHENTICATION,                                                                /* security.istio.io */
    OBJ_TRAFFICSPLIT,                                                                      /* split.smi-spec.io */
    OBJ_HTTPFILTER, OBJ_BACKENDPOLICY, OBJ_TOPIC, OBJ_KEYSPACE,                            /* weir.dev */
    OBJ_KAFKATOPIC,                                                                        /* kafka.strimzi.io */
    OBJ_KIND_COUNT
};
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

/* Volumes are files of ConfigMaps and Secrets. */
struct volume_item { char *key, *path; int32_t mode; /* -1: the volume's */ };
struct volume_source { char *map; bool secret, optional; struct volume_item *items; size_t items_n; /* none: every key */ };
struct volume { char *name; struct volume_source *sources; size_t sources_n; uint32_t mode; };
struct volume_mount {
    uint32_t volume;         /* its index */
    char *path;              /* where: absolute, without ".." and a '/' at its end */
    char *sub_path;          /* the file of the volume that is shown there; NULL: all of it */
};

enum probe_kind { PROBE_NONE, PROBE_HTTP, PROBE_TCP, PROBE_EXEC, PROBE_GRPC };
struct probe {
    enum probe_kind kind;
    char *path;              /* http */
    char *host;              /* http: Host header, or NULL */
    char *service;           /* grpc: of grpc.health.v1.HealthCheckRequest; NULL: "" */
    struct kvs headers;      /* http */
    uint16_t port;           /* names are resolved by the reader */
    char **argv;             /* exec, NULL-terminated */
    uint32_t initial_delay_s, period_s, timeout_s, success_threshold, failure_threshold;
};
struct int_or_pct { int32_t value; bool pct; };

/* ---- where replicas may run: read by load_place.c, judged by place.c ------------------------------------------------------- */

enum label_op { LABEL_IN, LABEL_NOT_IN, LABEL_EXISTS, LABEL_DOES_NOT_EXIST, LABEL_GT, LABEL_LT };
extern const char *const label_op_names[]; /* as in a manifest: "NotIn" */
struct label_expr { char *key; enum label_op op; char **values; size_t values_n; };
/* A label selector: all of it holds. Empty: everything; not given: nothing. */
struct label_select { bool given; struct kvs labels; struct label_expr *exprs; size_t exprs_n; };
bool label_expr_holds(const struct label_expr *e, const char *have); /* have: NULL when the label is not there */
bool label_exprs_hold(const struct label_expr *exprs, size_t n, const struct kvs *labels);
bool label_select_match(const struct label_select *s, const struct kvs *labels);
/* One term of a node affinity: all of it holds. names: expressions on metadata.name. */
struct node_term { struct label_expr *exprs; size_t exprs_n; struct label_expr *names; size_t names_n; uint32_t weight; /* preferred: 1 to 100 */ };
/* One term of affinity or anti-affinity to replicas of who, in these namespaces, in the same domain: nodes whose label topology is equal. */
struct pod_term { struct label_select who; char **namespaces; size_t namespaces_n; /* none: the Deployment's own */ char *topology; uint32_t weight; };
struct spread_rule { struct label_select who; char *topology; uint32_t max_skew, min_domains /* 0: not given */; bool hard; /* DoNotSchedule */ };
struct place_spec {
    struct kvs node_selector;
    char *node_name;                                       /* NULL: any */
    struct node_term *node_terms; size_t node_terms_n;     /* one of them must hold; given but none: no node */
    bool node_required;                                    /* node_terms was given */
    struct node_term *node_preferred; size_t node_preferred_n;
    struct pod_term *near; size_t near_n;                  /* podAffinity, required */
    struct pod_term *near_preferred; size_t near_preferred_n;
    struct pod_term *apart; size_t apart_n;                /* podAntiAffinity, required */
    struct pod_term *apart_preferred; size_t apart_preferred_n;
    struct spread_rule *spread; size_t spread_n;
};

struct pod_template {
    struct kvs labels, annotations;
    struct place_spec place;
    char *container;         /* the container's name */
    char *image;
    char **argv;             /* command then args, NULL-terminated, $(VAR) not yet expanded */
    char *cwd;               /* absolute: workingDir, relative ones from the manifest's folder; default that folder */
    struct env_var *env; size_t env_n;
    struct env_from *env_from; size_t env_from_n;
    struct volume *volumes; size_t volumes_n;
    struct volume_mount *mounts; size_t mounts_n; /* ordered by path */
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
    bool run_once;           /* never on two nodes at once: recreate, or annotation weir.dev/run-once: "true" */
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
    bool headless;           /* clusterIP: None: no address; its replicas have some (plan.named) */
    struct addr address;     /* in 127.128.0.0/9, given by objset_addresses(); ADDR_NONE when headless */
};
/* What a Gateway (of either kind) listens for. */
enum listen_protocol { LISTEN_HTTP, LISTEN_HTTPS, LISTEN_TLS, LISTEN_TCP };
enum listen_tls { LISTEN_TLS_NONE, LISTEN_TLS_TERMINATE, LISTEN_TLS_MUTUAL, LISTEN_TLS_OPTIONAL_MUTUAL, LISTEN_TLS_PASSTHROUGH };
enum listen_from { LISTEN_FROM_SAME, LISTEN_FROM_ALL, LISTEN_FROM_SELECTOR };
struct secret_ref { char *ns, *name; };
struct gw_listener {
    char *name;
    uint16_t port;
    char *hostname;            /* NULL: any; may begin with "*." */
    enum listen_from from;
    struct label_select namespaces; /* with LISTEN_FROM_SELECTOR: of namespaces' labels */
    enum listen_protocol protocol;
    enum listen_tls tls;
    struct secret_ref *certs; size_t certs_n; /* kubernetes.io/tls Secrets: tls.crt, tls.key, with MUTUAL also ca.crt; optional tls.ocsp */
    struct secret_ref *client_ca; size_t client_ca_n; /* frontendValidation.caCertificateRefs: ConfigMaps or Secrets with ca.crt */
    char **client_sans; size_t client_sans_n;
    uint8_t tls_min, tls_max;  /* 12, 13; 0: default (12 to 13) */
    char *ciphers;             /* OpenSSL list for TLS 1.2, or NULL */
    bool https_redirect;       /* Istio: answer 301 to https */
    bool proxy_protocol;       /* annotation weir.dev/proxy-protocol: "true": connections begin with a PROXY header, v1 or v2 */
    char **hosts; size_t hosts_n; /* Istio: "ns/host" or "host"; Gateway API: hostname above, none here */
    uint32_t kinds;            /* Gateway API: routes that may attach, bits 1 << OBJ_HTTPROUTE and so on */
};
struct gateway {
    struct addr *addresses; size_t addresses_n; /* default: 127.0.0.1 */
    struct gw_listener *listeners; size_t listeners_n;
};

/* ---- routes: HTTPRoute, GRPCRoute, VirtualService, TrafficSplit all become these ---------------------------------------- */

enum match_kind { MATCH_EXACT, MATCH_PREFIX /* whole path elements */, MATCH_REGEX /* all of it; RE2-like syntax by PCRE2 */, MATCH_STRING_PREFIX /* any bytes: Istio */, MATCH_PRESENT };
struct string_match {
    enum match_kind kind;
    char *value;               /* NULL with MATCH_PRESENT */
    bool invert;               /* holds when the rest does not: withoutHeaders */
    bool ignore_case;
};
struct route_kv_match { char *name; struct string_match m; };
struct route_match_spec {
    bool has_path; enum match_kind path_kind; char *path; bool path_ignore_case;
    char *method;              /* NULL: any; exact */
    struct string_match *method_match, *scheme, *authority; /* Istio; NULL: any */
    struct route_kv_match *headers; size_t headers_n;
    struct route_kv_match *queries; size_t queries_n;
    struct kvs source_labels; char *source_ns; /* the caller's pod labels and namespace; NULL: any. Never hold for callers from outside */
    char **gateways; size_t gateways_n;        /* Istio: "ns/name" or "mesh"; none: those of the route */
    uint16_t port;             /* of the address connected to; 0: any */
    char *name;
};
struct header_edit { struct kvs set, add; char **remove; size_t remove_n; };
/* Where requests go. One of: a Service (service, ns, port), a host (Istio: short name, FQDN, or a ServiceEntry's host). */
struct route_backend {
    char *service, *ns; uint16_t port; uint32_t weight; struct header_edit req, resp;
    char *host;                /* Istio's destination.host as written; service is NULL then, until compiled */
    char *subset;              /* of a DestinationRule; or NULL */
};
enum path_rewrite { REWRITE_NONE, REWRITE_FULL, REWRITE_PREFIX, REWRITE_REGEX };
enum retry_on {
    RETRY_5XX = 1, RETRY_GATEWAY_ERROR = 2 /* 502, 503, 504 */, RETRY_CONNECT_FAILURE = 4, RETRY_RESET = 8, RETRY_REFUSED_STREAM = 16, RETRY_4XX = 32 /* retriable-4xx: 409 */,
    RETRY_STATUSES = 64 /* those listed */, RETRY_GRPC_CANCELLED = 128, RETRY_GRPC_DEADLINE = 256, RETRY_GRPC_INTERNAL = 512, RETRY_GRPC_EXHAUSTED = 1024, RETRY_GRPC_UNAVAILABLE = 2048,
    RETRY_RESET_BEFORE_REQUEST = 4096
};
struct retry_policy {
    bool given;                /* the route has one; else what is always safe is retried (proxy/README.md) */
    uint32_t attempts;         /* retries, not counting the first try; 0: none */
    uint32_t per_try_timeout_ms; /* 0: none */
    uint32_t on;               /* enum retry_on; as Envoy's retry-on, so that non-idempotent methods are retried too when listed */
    uint16_t *statuses; size_t statuses_n;
    uint32_t backoff_base_ms, backoff_max_ms; /* jittered exponential; defaults 25 and 250 */
};
struct hedge_policy { uint32_t delay_ms; uint32_t max; /* extra requests; 0: no hedging */ };
struct fault_policy {
    uint32_t delay_ppm, delay_ms; /* share of requests, parts per million */
    uint32_t abort_ppm; uint16_t abort_status; int16_t abort_grpc; /* -1: none */
};
struct mirror_policy { struct route_backend backend; uint32_t ppm; };
struct cors_policy {
    bool given;
    struct string_match *origins; size_t origins_n; /* "*" is MATCH_PRESENT */
    char *methods, *headers, *expose; /* joined by ", "; "*" allowed; NULL: none */
    uint32_t max_age_s; bool has_max_age; bool credentials;
    bool forward_unmatched;    /* a preflight from another origin goes to the service; else it is answered without CORS fields */
};
struct session_policy { bool given; bool header; char *name; char *path; uint32_t ttl_s; /* 0: session cookie */ };
struct route_rule {
    struct route_match_spec *matches; size_t matches_n; /* any of them; none: everything */
    struct route_backend *backends; size_t backends_n;
    struct header_edit req, resp;
    bool redirect;
    char *redirect_scheme, *redirect_host; uint16_t redirect_port, redirect_status; /* NULL or 0: as the request */
    bool redirect_derive_port; /* Istio FROM_REQUEST_PORT */
    bool redirect_listener_port; /* HTTPRoute: without scheme and port, and where Host has none, the listener's */
    enum path_rewrite redirect_path_kind; char *redirect_path;
    char *rewrite_host; enum path_rewrite rewrite_path_kind; char *rewrite_path;
    char *rewrite_regex;       /* REWRITE_REGEX: every match of it becomes rewrite_path, with \1 to \9 */
    uint32_t timeout_ms, backend_timeout_ms; /* 0: none given */
    bool untimed;              /* one of them was given as 0s: an answer may begin when it likes, and pause, as far as the other lets it */
    struct retry_policy retry;
    struct hedge_policy hedge;
    struct fault_policy fault;
    struct mirror_policy *mirrors; size_t mirrors_n;
    struct cors_policy cors;
    struct session_policy session;
    bool direct; uint16_t direct_status; char *direct_body; size_t direct_body_n;
    char *delegate_name, *delegate_ns;          /* VirtualService delegate; NULL: none */
    char **filters; size_t filters_n;           /* HTTPFilter objects by name, same namespace, in order */
    bool upgrades_refused, connect;             /* WebSocket and other upgrades pass unless refused; CONNECT only when declared (HTTPFilter) */
    char *name;
    uint32_t line;
};
/* A rule of bytes: TCPRoute, TLSRoute, VirtualService tcp and tls. */
struct tcp_rule {
    char **sni; size_t sni_n;                   /* none: any */
    uint16_t port;                              /* VirtualService match.port; 0: any */
    struct kvs source_labels; char *source_ns;
    char **gateways; size_t gateways_n;
    struct route_backend *backends; size_t backends_n;
    char *name;
    uint32_t line;
};
struct parent_ref { char *gateway, *ns, *section; uint16_t port; bool service; /* kind Service: for the mesh (GAMMA) */ };
/* HTTPRoute, GRPCRoute, TCPRoute, TLSRoute, VirtualService. */
struct http_route {
    struct parent_ref *parents; size_t parents_n; /* Gateway API */
    char **hostnames; size_t hostnames_n;         /* Istio: hosts as written */
    char **gateways; size_t gateways_n;           /* VirtualService: "ns/name" or "name" or "mesh"; none: mesh */
    char **export_to; size_t export_to_n;
    bool ordered;                                 /* VirtualService: the first rule that matches wins */
    struct route_rule *rules; size_t rules_n;
    struct tcp_rule *tcp; size_t tcp_n;           /* TCPRoute, VirtualService tcp */
    struct tcp_rule *tls; size_t tls_n;           /* TLSRoute, VirtualService tls: by SNI, passed through */
};
struct grant_entry { char *group, *kind, *ns, *name; }; /* from: group, kind, ns; to: group, kind, name or NULL */
struct reference_grant { struct grant_entry *from; size_t from_n; struct grant_entry *to; size_t to_n; };
struct traffic_split { char *service; struct route_backend *backends; size_t backends_n; };

/* ---- policies of a cluster: DestinationRule, BackendTLSPolicy, BackendPolicy ------------------------------------------------- */

enum lb_kind { LB_LEAST_REQUEST /* weighted, two choices: the default */, LB_ROUND_ROBIN /* smooth weighted */, LB_RANDOM, LB_PEAK_EWMA, LB_RING_HASH, LB_MAGLEV, LB_LEAST_REQUEST_FULL /* looks at all */ };
enum hash_on { HASH_NONE, HASH_HEADER, HASH_COOKIE, HASH_QUERY, HASH_SOURCE_IP };
struct lb_policy {
    enum lb_kind kind;
    enum hash_on hash_on; char *hash_name; char *cookie_path; uint32_t cookie_ttl_s; bool cookie_ttl_given; /* a cookie with ttl is made by us when absent */
    uint32_t ring_size_min;    /* default 1024 */
    uint32_t maglev_size;      /* prime; default 65537 */
    uint32_t bounded_load_pct; /* 0: off; 125: nobody gets more than 1.25 times the mean */
    uint32_t slow_start_ms; uint32_t slow_start_min_pct; double slow_start_aggression; /* 0: off; default 10, 1.0 */
    uint32_t panic_pct;        /* below this share of healthy endpoints all are used; default 50 (minHealthPercent 0 turns it off) */
    struct locality_weight { char *from, *to; uint32_t weight; } *distribute; size_t distribute_n;
    struct locality_failover { char *from, *to; } *failover; size_t failover_n;
    bool locality_off;
};
struct pool_policy {
    uint32_t connections_max, pending_max, requests_max, retries_max; /* of the whole cluster on this node; 0: no limit given */
    uint32_t retry_budget_pct, retry_budget_min;  /* share of requests in flight that may be retries, and how many always may */
    bool retry_budget;            /* there is a budget; with 0 % only the least number may be */
    uint32_t requests_per_connection_max;
    uint32_t connect_timeout_ms, idle_timeout_ms, connection_lifetime_ms; /* 0: default */
    uint32_t tcp_idle_timeout_ms;
    bool keepalive; uint32_t keepalive_time_s, keepalive_interval_s, keepalive_probes;
    enum upstream_http { UPSTREAM_HTTP1, UPSTREAM_HTTP2, UPSTREAM_AUTO /* ALPN with TLS, else HTTP/1.1 */ } http;
    uint32_t streams_max;      /* concurrent HTTP/2 streams per connection; 0: the peer's */
    uint8_t proxy_protocol;    /* 0, or 1 or 2: the version that is sent */
};
struct outlier_policy {
    bool on;
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_local; /* 0: off */
    bool split_local;          /* splitExternalLocalOriginErrors */
    uint32_t interval_ms, base_ejection_ms, max_ejection_ms, max_ejection_pct, jitter_ms;
    uint32_t success_rate_min_hosts, success_rate_volume, success_rate_stdev_permille; /* stdev 0: off; 1900 = 1.9 */
    uint32_t failure_pct, failure_pct_min_hosts, failure_pct_volume; /* 0: off */
};
struct health_policy {
    enum { HEALTH_NONE, HEALTH_HTTP, HEALTH_TCP, HEALTH_GRPC } kind;
    char *path, *host, *grpc_service; uint16_t port /* 0: the endpoint's */, status_min, status_max; /* default 200 to 299 */
    uint32_t interval_ms, timeout_ms, healthy, unhealthy;
};
enum tls_mode { TLS_OFF, TLS_SIMPLE, TLS_MUTUAL, TLS_MESH /* ISTIO_MUTUAL: within the node plain; see proxy/README.md */ };
struct upstream_tls {
    enum tls_mode mode;
    struct secret_ref cert;    /* MUTUAL: tls.crt, tls.key, ca.crt */
    struct secret_ref *ca; size_t ca_n; bool system_ca; /* ConfigMaps or Secrets with ca.crt */
    char *sni; char **sans; size_t sans_n;
    bool insecure;
    struct tls_ctx *ctx;       /* compiled; in a plan only */
};
struct adaptive_policy { bool on; uint32_t min, max; uint32_t interval_ms; uint32_t buffer_pct; }; /* gradient limit on concurrent requests */
struct shed_policy { char *header; char **levels; size_t levels_n; /* values of header, most important first */ uint32_t at_pct; /* of the limit: where the least important is refused */ };
struct cluster_policy {
    struct lb_policy lb;
    struct pool_policy pool;
    struct outlier_policy outlier;
    struct health_policy health;
    struct upstream_tls tls;
    struct adaptive_policy adaptive;
    struct shed_policy shed;
    struct hedge_policy hedge;
    struct session_policy session;
};
struct port_policy { uint16_t port; struct cluster_policy policy; };
struct subset { char *name; struct kvs labels; struct cluster_policy policy; struct port_policy *ports; size_t ports_n; };
/* DestinationRule. A subset's policy, and a port's, is already merged over the one above it as Istio does (whole blocks win). */
struct destination_rule {
    char *host;
    struct cluster_policy policy;
    struct port_policy *ports; size_t ports_n;
    struct subset *subsets; size_t subsets_n;
    struct kvs workload_selector;
    char **export_to; size_t export_to_n;
};
/* There may be very many of them, and most have an address and nothing else. */
struct entry_endpoint { char *address; /* IP, host name, or unix path */ const struct entry_endpoint_rest *rest; /* never NULL */ uint32_t weight; };
struct entry_endpoint_rest { struct kvs ports; /* name -> number as text */ struct kvs labels; char *locality; };
struct service_entry {
    char **hosts; size_t hosts_n;
    struct service_port *ports; size_t ports_n;
    enum { ENTRY_NONE, ENTRY_STATIC, ENTRY_DNS } resolution;
    bool inside;               /* location MESH_INTERNAL */
    struct entry_endpoint *endpoints; size_t endpoints_n;
    struct kvs selector;       /* workloadSelector: replicas of Deployments */
    struct addr *addresses; size_t addresses_n; /* one per host, in 127.128.0.0/9, given by objset_addresses(); none (ADDR_NONE) for "*." hosts */
    char **sans; size_t sans_n;           /* subjectAltNames that the endpoints' certificates must have one of; none: unchecked */
    char **export_to; size_t export_to_n; /* namespaces that see it: "." its own, "*" all; none: all */
};
struct backend_tls { char **services; size_t services_n; char *hostname; struct secret_ref *ca; size_t ca_n; bool system_ca; char **sans; size_t sans_n; char **sections; /* port names, NULL: all; parallel to services */ };
/* weir.dev BackendPolicy: what no open kind can say. has_*: which blocks it gives; they win over a DestinationRule's. */
struct backend_policy {
    char **services; size_t services_n;
    bool *entries;             /* parallel to services: the name is a ServiceEntry's */
    struct cluster_policy policy;
    bool has_lb, has_pool, has_outlier, has_health, has_tls, has_adaptive, has_shed, has_hedge, has_retry_budget, has_slow_start, has_session;
};

/* What holds where nothing is said: the defaults named above. */
void cluster_policy_default(struct cluster_policy *p);

/* ---- weir.dev HTTPFilter: what a route does beyond the open kinds; referenced by ExtensionRef --------------------------------- */

enum filter_kind { FILTER_COMPRESS, FILTER_STATIC, FILTER_AGGREGATE, FILTER_TRANSFORM, FILTER_DIRECT, FILTER_FAULT, FILTER_UPGRADES, FILTER_HEDGE, FILTER_CORS };
struct compress_filter { bool gzip, br, zstd; uint32_t min_bytes; char **types; size_t types_n; uint8_t level; /* 1 to 9; 0: the coding's own default */ };
struct static_filter { char *root; char *index; /* "index.html"; NULL: none */ char *fallback; /* for single-page applications; NULL: 404 */ char *cache_control; bool precompressed; };
/* One part of an aggregated answer. */
struct aggregate_part {
    char *name;                /* the member of the merged object; "" merges the part's own members into it */
    struct route_backend backend;
    char *path;                /* with {n} or {query:NAME}, {header:NAME}, {path} filled from the request */
    uint32_t timeout_ms;
    bool required;             /* without it the whole answer is 502/504; else it is null and listed under "missing" */
    char *pointer;             /* RFC 6901: what of the part's answer is taken; NULL: all */
};
struct aggregate_filter { struct aggregate_part *parts; size_t parts_n; uint32_t timeout_ms; size_t part_bytes_max; };
/* Body edits on JSON, and text replaced by regular expression; header edits are the route's own. */
struct transform_op { enum { TRANSFORM_SET, TRANSFORM_REMOVE, TRANSFORM_RENAME, TRANSFORM_REPLACE } op; bool request; char *pointer; char *value; /* JSON text, new pointer, or replacement */ char *regex; };
struct transform_filter { struct transform_op *ops; size_t ops_n; size_t body_bytes_max; };
struct http_filter {
    enum filter_kind kind;
    union {
        struct compress_filter compress;
        struct static_filter files;
        struct aggregate_filter aggregate;
        struct transform_filter transform;
        struct { uint16_t status; char *body; size_t body_n; char *type; } direct;
        struct fault_policy fault;
        struct { bool refused, connect; } upgrades;
        struct hedge_policy hedge;
        struct cors_policy cors;
    };
};

/* ---- weir.dev Topic and Strimzi's KafkaTopic: what a topic of the event log is to be --------------------------------------------- */

/* Who may do what with it: Kafka's ACL of this one topic. */
struct topic_acl {
    char *principal, *host;    /* "User:shop/orders"; "*" */
    uint32_t operations;       /* bits: 1 << enum topic_operation */
    bool deny;
};
enum topic_operation { TOPIC_ALL, TOPIC_READ, TOPIC_WRITE, TOPIC_CREATE_IT, TOPIC_DELETE_IT, TOPIC_ALTER, TOPIC_DESCRIBE, TOPIC_DESCRIBE_CONFIGS, TOPIC_ALTER_CONFIGS, TOPIC_OPERATIONS };
extern const char *const topic_operation_names[TOPIC_OPERATIONS]; /* as in a manifest: "DescribeConfigs" */
/* How fast somebody may be, with all topics together. 0: nothing is said. */
struct topic_quota {
    char *principal;
    int64_t producer_bytes, consumer_bytes, request_percent;
};
struct topic_spec {
    char *topic;               /* the name that clients use */
    uint32_t partitions;
    struct kvs config;         /* values as Kafka writes them */
    struct topic_quota *quotas; size_t quotas_n;
    struct topic_acl *acls; size_t acls_n; /* none: nothing is said about who may use it */
};
/* Who may do what with the control store's keys that begin with a prefix. */
struct keyspace_acl {
    char *principal;           /* "User:shop/orders", "User:ANONYMOUS" for the host, "User:*" */
    bool read, write;
};
struct keyspace_spec {
    char *prefix;
    struct keyspace_acl *acls; size_t acls_n; /* at least one */
};
#define KEYSPACE_RESERVED "/weir/" /* the node's own keys */
bool topic_name_is_good(struct slice s);  /* 1 to 249 of letters, digits, '.', '_', '-'; neither "." nor ".." (Kafka's Topic.validate()) */

struct object {
    enum obj_kind kind;
    char *ns, *name;         /* ns "" for Namespace objects */
    struct kvs labels, annotations;
    char *file; uint32_t line, column; /* where it came from */
    char *dir;               /* absolute folder of that file */
    char *json;              /* the manifest as given, compact JSON */
    uint64_t hash;           /* of json */
    uint64_t serial;         /* of the reading of a stored value that made its content: no other has it, but copies; 0: it was made otherwise */
    uint64_t created_ns;     /* wall clock, kept over updates */
    uint64_t generation;     /* +1 for each change */
    bool immutable;          /* ConfigMap, Secret: the data stays as it is until the object is deleted */
    struct diags *lacks;     /* objset_read_parts(): it is a part of an object, whose fields here are right; why it can't stand alone. NULL: it is whole */
    union {
        struct deployment dep;
        struct service svc;
        struct kvs data;     /* ConfigMap, Secret (decoded) */
        struct gateway gw;
        struct http_route route; /* HTTPRoute, GRPCRoute, TCPRoute, TLSRoute, VirtualService */
        struct reference_grant grant;
        struct backend_tls backend_tls;
        struct destination_rule dest;
        struct service_entry entry;
        struct traffic_split split;
        struct http_filter filter;
        struct backend_policy backend;
        struct topic_spec topic; /* Topic, KafkaTopic */
        struct keyspace_spec keyspace;
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
/* The same for objset_own(): what lacks required fields, but has no other mistake, is put into s as well, and becomes whole there, or not. */
void objset_read_parts(struct objset *s, const char *file, const char *dir, struct slice text, const char *default_ns, bool strict, struct diags *d);
/* References that must hold in the whole set: routes to Gateways and Services, ConfigMaps and Secrets that are not
 * optional, selectors that match nothing, port clashes. */
void objset_check(const struct objset *s, struct diags *d);
void objset_check_object(const struct objset *s, const struct object *o, struct diags *d); /* the same of one object in s */
/* What may not become of ConfigMaps and Secrets that are immutable, as Kubernetes has it: an error for each field of given that is another than in now. */
void objset_check_immutable(const struct objset *now, const struct objset *given, struct diags *d);
/* into := into + from (from's objects win and keep created_ns, generation and addresses of those they replace). from is left empty. */
void objset_merge(struct objset *into, struct objset *from);
bool objset_remove(struct objset *s, enum obj_kind k, const char *ns, const char *name);
struct objset *objset_copy(const struct objset *s);
void objset_share(struct objset *into, const struct object *o); /* a copy, which shares its content with o */
size_t objset_n(const struct objset *s);
const struct object *objset_at(const struct objset *s, size_t i); /* ordered by kind, namespace, name */
const struct object *objset_find(const struct objset *s, enum obj_kind k, const char *ns, const char *name);
/* from may refer to the object of this kind in namespace ns: its own namespace, or a ReferenceGrant there allows it (Gateway API,
 * ReferenceGrant). A route's backends elsewhere, and a Gateway's certificates, that are not granted must not be used. */
bool objset_granted(const struct objset *s, const struct object *from, enum obj_kind to, const char *ns, const char *name);
/* The listener ln of gw allows routes of namespace ns (Gateway API, RouteNamespaces). A namespace has the labels of its object, if there is one, and
 * kubernetes.io/metadata.name. */
bool objset_listener_allows(const struct objset *s, const struct object *gw, const struct gw_listener *ln, const char *ns);
/* The Secret has a certificate and the key to it (tls.crt, tls.key), in whatever time it is valid; else why says what is wrong. */
enum err objset_cert(const struct object *secret, struct buf *why) WARN_UNUSED;
/* Gives each Service that has none an address, the same one for the same namespace and name where that is free. */
void objset_addresses(struct objset *s);
/* Objects of into that are the same in old, but for the place where they were read, are old's again: nothing is to be written for them. owners: who
 * owns which field has to be the same, too. */
void objset_keep_same(struct objset *into, const struct objset *old, bool owners);
bool object_same(const struct object *a, const struct object *b); /* what would be stored of them is the same */

/* ---- how objects are kept (stored.c; README.md has the format) ------------------------------------------------------- */

struct keyring; /* seal.h: with it values of Secrets are sealed; NULL: plain */
/* Adds "KIND.GROUP/NAMESPACE/NAME"; the namespace of what has none is "-", and no group leaves out its dot. */
void object_key(enum obj_kind k, const char *ns, const char *name, struct buf *out);
bool object_key_parse(struct slice key, enum obj_kind *k, struct slice *ns, struct slice *name);
/* Adds the object as JSON. ERR_INVALID: it has a number that JSON's readers do not take. */
enum err object_store(const struct object *o, const struct keyring *keys, struct buf *out) WARN_UNUSED;
const struct object *objset_find_stored(const struct objset *s, struct slice key); /* by its object_key(); NULL: it is not there */
/* The reverse, into s. An error is in d, with key as its place and the remedy if the manifest itself has none. */
enum err objset_load_stored(struct objset *s, struct slice key, struct slice value, const struct keyring *keys, const char *remedy, struct diags *d) WARN_UNUSED;
/* All of them to and from one file. What can't be stored is left out. Loading takes files of Weir before the control store, too. */
void objset_save(const struct objset *s, const struct keyring *keys, struct buf *out);
enum err objset_load(struct objset *s, const char *file, struct slice text, const struct keyring *keys, struct diags *d) WARN_UNUSED;
/* The event log's name, address and port inside each workload's namespace: an address that no Service gets. */
#define LOG_HOST "kafka"
#define LOG_ADDRESS 0x7ffffffeu /* 127.255.255.254 */
#define LOG_PORT 9092
#define STORE_PORT 2379           /* the etcd API's, on the host and on 127.0.0.1 inside */
/* In the namespace ns that name is the event log's: no Service there has it, and no host outside that is declared for it. */
bool objset_log_named(const struct objset *s, const char *ns);
/* The port is free on the loopback of dep's replicas, as far as manifests say: no container port, and no Service that leads there. */
bool objset_port_free(const struct objset *s, const struct object *dep, uint16_t port);
/* The lines of the hosts file that workloads of namespace ns see. */
void objset_hosts(const struct objset *s, const char *ns, struct buf *out);
/* The replica's environment after env, envFrom, $(VAR) expansion and the service variables; NULL-terminated, in a. Missing
 * references that are not optional are errors in d. extra: pairs that come first (HOSTNAME, PATH, ...), may be NULL. */
char **objset_env(const struct objset *s, const struct object *dep, const char *const *extra, struct arena *a, struct diags *d);
/* The files of a volume of dep, in a. What is missing and not optional is an error in d. */
struct volume_file { const char *path; struct slice bytes; uint32_t mode; };
struct volume_file *objset_volume(const struct objset *s, const struct object *dep, const struct volume *v, struct arena *a, size_t *n, struct diags *d);
/* A hash of all ConfigMaps and Secrets whose change shall restart dep, the same in every process; 0: there are none. A Secret in the environment counts
 * unless an annotation says no; the rest when one says yes: weir.dev/restart-on-config or reloader.stakater.com/auto, on the Deployment or its template.
 * configmap.reloader.stakater.com/reload and secret.... name further ones. */
uint64_t objset_config_hash(const struct objset *s, const struct object *dep);
/* The command line with $(VAR) expanded from env. */
char **objset_argv(const struct object *dep, char *const *env, struct arena *a);

/* ---- explain ---------------------------------------------------------------------------------------------------------------- */

/* For each field of text, in order: line, path, "honoured|approximated|ignored|refused|unknown", and why. From fields.def. */
void explain_text(const char *file, struct slice text, struct buf *out, struct diags *d);
/* The whole table as Markdown, for docs/manifests.md. */
void explain_table(struct buf *out);

/* ---- the plan: what workers read -------------------------------------------------------------------------------------------- */

/* What all workers know of an endpoint together: touched only where a policy asks for it (outliers, active health checks).
 * Lives as long as a plan names the endpoint, whatever the plan; fields are atomics, written by any worker. */
struct endpoint_health {
    uint32_t refs;
    uint32_t consecutive_5xx, consecutive_gateway, consecutive_local; /* reset by a success */
    uint32_t ok, failed;         /* since the interval began: for success rate and failure percentage */
    uint32_t ejections;          /* how often in a row: the ejection time grows with it */
    uint64_t ejected_until_ms;   /* monotonic; 0: not ejected */
    uint32_t unhealthy;          /* by active checks: 1; where there are none: 0 */
    uint32_t unchecked;          /* active checks are on and none has answered yet: 1 */
    uint32_t checker;            /* 1 + the worker that makes its checks; 0: nobody yet */
    uint32_t checks_ok, checks_failed; /* in a row */
    uint64_t checked_ms;         /* monotonic: its checker's last sign of life */
    uint64_t checks[3];          /* made so far: well, unwell, without an answer in time */
    bool expected;               /* the control thread's: the plan before had checks for it */
    bool nobody;                 /* not of one endpoint: shared by all for which no policy ever asked, and never written but for refs */
};
/* The same for a cluster: its circuit breakers count over all workers. */
struct cluster_shared {
    uint32_t refs;
    uint32_t connections, pending, requests, retries;
    uint32_t starved;            /* requests that wait because connections has reached its limit */
    uint32_t ejected;            /* endpoints ejected now */
    uint32_t limit;              /* adaptive: requests allowed at once; 0: not yet known */
    uint64_t adaptive[6];        /* of the gradient: private to proxy */
};
struct endpoint_health *endpoint_health_ref(struct endpoint_health *h);
void endpoint_health_unref(struct endpoint_health *h); /* NULL-safe, any thread */
struct cluster_shared *cluster_shared_ref(struct cluster_shared *s);
void cluster_shared_unref(struct cluster_shared *s);   /* NULL-safe, any thread */
/* A struct addr without the room for a path that few have: there are many endpoints. plan_endpoint_addr() makes one of it. */
struct plan_address {
    union {
        uint8_t ip[16];   /* network byte order; the first 4 for IPv4 */
        const char *path; /* ADDR_UNIX */
    };
    uint16_t port;        /* host byte order */
    uint8_t family;       /* enum addr_family */
    bool inside;          /* it is inside the replica's network namespace: only sockets made there reach it */
};
struct plan_endpoint {
    uint64_t id;          /* of the endpoint: never reused */
    uint64_t replica_id;  /* 0: an address outside Weir */
    struct plan_address address; /* to connect to: inside the replica's namespace, or outside; a unix path for ServiceEntry */
    uint32_t slot;        /* small index, unique among live endpoints: index into per-worker tables */
    uint32_t weight;      /* relative, from 1; 1 when nothing says otherwise */
    uint64_t since_ms;    /* monotonic time of the first plan that named it: for slow start */
    const char *locality; /* "region/zone/subzone"; "" */
    struct endpoint_health *health; /* never NULL */
    const char *name;     /* replica's name or address, for logs */
    const struct plan_remote *remote; /* a replica on another node: address is that node's gate; NULL: none */
};
struct addr plan_endpoint_addr(const struct plan_endpoint *ep);
/* How a replica on another node is reached. See ROUTING.md, "Other nodes". */
struct plan_remote {
    const char *node;     /* the node's name: its certificate must be for it */
    const char *sni;      /* what its gate knows the replica by: target_name() */
};
struct plan_cluster {
    char *ns, *service;
    char *subset;          /* of a DestinationRule; NULL: all */
    char *host;            /* service.ns.svc.cluster.local, or the ServiceEntry's host */
    char *workload;        /* the Deployment behind it, or "unknown" */
    uint16_t port;
    char *authority;       /* ExternalName: the Host to send upstream; else NULL */
    struct addr address;   /* the service's address and this port, for the mesh */
    uint32_t slot;         /* small index, stable for the same namespace, service, port and subset as long as it exists */
    struct plan_endpoint *eps; uint32_t eps_n;
    const struct cluster_policy *policy; /* never NULL; equal pointers within a plan where policies are equal is not promised */
    uint64_t policy_hash;  /* changes when the policy does, or the set of endpoints and weights: derived tables are made anew then */
    struct cluster_shared *shared;       /* never NULL */
};
struct plan_backend { const struct plan_cluster *cluster; /* NULL: its Service is not there: 500 (Gateway API) */ uint32_t weight; const struct header_edit *req, *resp; };
struct plan_mirror { const struct plan_cluster *cluster; uint32_t ppm; };
struct plan_part { const struct plan_cluster *cluster; /* NULL: missing */ };
/* An HTTPFilter of a rule. Those of kind FAULT, UPGRADES, HEDGE and CORS are not listed: they are in plan_rule.spec. */
struct plan_filter {
    char *name;                           /* "namespace/name" */
    const struct http_filter *spec;
    const struct plan_part *parts;        /* FILTER_AGGREGATE: one for each of spec->aggregate.parts */
    const struct plan_regex *const *regexes; /* FILTER_TRANSFORM: one for each op, NULL where it has none */
};
/* One rule of one route, or the whole of a Service's port for the mesh. */
struct plan_rule {
    char *route;            /* "namespace/name" of the route; "" for the mesh's own */
    uint32_t slot;          /* small index for per-route counters */
    struct plan_backend *backends; uint32_t backends_n; uint32_t weight_sum;
    const struct header_edit *req, *resp;   /* NULL when there is nothing to edit */
    const struct route_rule *spec;          /* redirect, rewrite, timeouts, retries, ...; NULL for the mesh's own */
    uint32_t timeout_ms, backend_timeout_ms;
    bool untimed;           /* as in spec */
    bool unfound_503;       /* a share whose cluster is NULL is answered with 503, as in Istio; else with 500, as HTTPRouteRule.backendRefs asks */
    const struct plan_mirror *mirrors; uint32_t mirrors_n;
    const struct plan_filter *filters; uint32_t filters_n;
    const struct plan_regex *rewrite;       /* REWRITE_REGEX */
    const struct plan_regex *const *origins; /* one for each of spec->cors.origins, NULL where that is no MATCH_REGEX; NULL: no CORS */
    bool plain;             /* nothing but backends, header edits, timeouts, rewrites (not by REWRITE_REGEX): the short way applies */
};
/* Bytes: TCP and TLS pass-through. */
struct plan_tcp_rule {
    char *route;
    uint32_t slot;          /* a route slot */
    struct plan_backend *backends; uint32_t backends_n; uint32_t weight_sum; /* req and resp NULL */
};
struct plan_listener {
    bool node;              /* the gate: other nodes come here, with requests for replicas (plan_target_find()); tls is its context, hosts NULL */
    struct addr address;
    uint64_t token;         /* stable for the same address: names its sockets */
    char *gateway;          /* "namespace/name" */
    enum listen_protocol protocol;
    bool tls_peek;          /* some of its TLS is passed through: the ClientHello decides (plan_tls_route()) */
    bool proxy_protocol;
    struct tls_ctx *tls;    /* terminate with this; NULL: no TLS or all passed through */
    struct plan_hosts *hosts; /* compiled; private */
};
/* What a connection of another node is for: an endpoint of this node in one of its clusters. */
struct plan_target {
    struct plan_backend backend;  /* its cluster, nothing to edit */
    uint32_t slot;                /* of the endpoint */
    uint64_t id;
};
/* Between this node and others. */
struct plan_gate {
    const char *node;             /* this node's name */
    struct tls_ctx *http, *bytes; /* to other gates, by what is spoken there; NULL: could not be made, and the plan has no remote endpoints */
    struct plan_rule rule;        /* of all requests that come from other nodes: it does nothing */
};
/* One of what a headless Service stands for: a ready replica, here or on another node, or an endpoint outside that has registered itself. In the mesh its address
 * leads to it alone, at its own ports (targetPort). The address follows from its name, on all nodes alike. */
struct plan_named_port { const char *name; uint16_t port; /* the endpoint's */ };
struct plan_named {
    const char *ns, *service;
    const char *host;             /* a label, below the Service's name: the replica's name; of what is outside its address, with dashes */
    struct addr address;          /* in 127.128.0.0/9 */
    const struct plan_named_port *ports; uint32_t ports_n;
};
/* Who calls from inside: what source matches look at. */
struct plan_caller { const char *ns, *workload; const struct kvs *labels; };
struct plan {
    uint32_t refs;          /* atomic */
    uint64_t generation;
    struct plan_listener *listeners; uint32_t listeners_n;
    struct plan_cluster *clusters; uint32_t clusters_n;
    uint32_t cluster_slots, endpoint_slots, route_slots; /* one more than the largest slot */
    char **route_names;     /* by route slot */
    struct table mesh;      /* 6 bytes of address and port -> private */
    struct table callers;   /* "ns/workload" -> struct plan_caller * */
    const char *locality;   /* of this node: "region/zone/subzone"; "" */
    const struct plan_gate *gate; /* NULL: there are no other nodes */
    struct table targets;   /* with gate: target_name() -> const struct plan_target */
    const struct plan_named *named; uint32_t named_n; /* by Service */
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
    uint32_t weight;      /* 0: 1 */
    const char *locality; /* "region/zone/subzone"; NULL: that of this node. Of another node: its own */
    const char *node;     /* the other node that it runs on; NULL: this one. Then ip, replica_id are nothing to us, and */
    struct addr gate;     /* ... this is where that node takes requests for it; ADDR_NONE: nowhere, the endpoint is left out */
};
/* This node as one of several. */
#define NODE_NAME_MAX 63
struct plan_node {
    const char *name;     /* its certificate is for this DNS name */
    struct addr listen;   /* of its gate; ADDR_NONE: it has none, and its replicas serve this node alone */
    struct slice cert_pem, key_pem, ca_pem; /* its chain, its key, and the CA that signs the nodes' certificates, and only those */
};
/* An address of an ExternalName service, resolved by the caller. */
struct live_address {
    const char *ns, *service;
    struct addr ip;
    bool registered;      /* ip, with its port, serves the Service ns/service beside the replicas that this selects, whatever targetPort says; */
    uint32_t weight;      /* ... 0: 1 */
    const char *locality; /* ... NULL: that of this node */
}; /* service: of an ExternalName Service, or a host name in a ServiceEntry (ns "") */

/* Keeps slots and ids stable from one plan to the next. Control thread only. */
struct plan_memory;
struct plan_memory *plan_memory_new(void);
void plan_memory_free(struct plan_memory *m);
/* "region/zone/subzone" of this node, for plans compiled from now on. */
void plan_memory_locality(struct plan_memory *m, const char *locality);
/* There are other nodes: for plans compiled from now on. NULL: there are none, as in the beginning. All is copied. */
void plan_memory_node(struct plan_memory *m, const struct plan_node *n);
/* Whether a node with these texts can talk to others: they are sound, fit together, and the certificate is of the CA and for the name. why: a
 * sentence that says what is wrong. */
enum err plan_node_check(const struct plan_node *n, struct buf *why) WARN_UNUSED;
/* Session ticket keys of all listeners of all plans: to be rotated, or exported for the next engine; _set takes a reference, before the first plan. */
struct tls_tickets *plan_memory_tickets(struct plan_memory *m);
void plan_memory_tickets_set(struct plan_memory *m, struct tls_tickets *t);
/* Compiles; never fails on a checked set. References one, for the caller. The plan copies what it keeps of s. */
struct plan *plan_compile(struct plan_memory *m, const struct objset *s, const struct live_endpoint *eps, size_t eps_n, const struct live_address *ext, size_t ext_n);
struct plan *plan_ref(struct plan *p);
void plan_unref(struct plan *p); /* NULL-safe, any thread */

struct plan_hit {
    const struct plan_rule *rule;
    uint32_t prefix_len;  /* bytes of the path that the matched prefix covers, for REWRITE_PREFIX; 0 for an exact or pathless match. Of a
                           * VirtualService the whole path where it matched exactly or by expression, and a prefix with its trailing slash */
    bool https_redirect;  /* the listener wants https: answer 301; rule is NULL, and plan_route() returned true */
    bool misdirected;     /* the host belongs to another TLS listener than the one that sni chose: answer 421; plan_route() returned false */
};
/* The rule for a request on a listener; false: none (404). Precedence as Gateway API says (HTTPRouteRule); VirtualServices in
 * their own order. secure: it came over TLS; sni: what the client named there, or empty. Hot path: no allocation,
 * O(labels of host + depth of path). */
bool plan_route(const struct plan *p, const struct plan_listener *ln, const struct h1_head *h, bool secure, struct slice sni, struct plan_hit *hit);
/* For the mesh: the rule of the service address that a workload connected to; false: no rule matches (404), or no service has
 * that address (then plan_mesh_protocol() says MESH_NONE). caller may be NULL. */
bool plan_route_mesh(const struct plan *p, const struct addr *a, const struct h1_head *h, const struct plan_caller *caller, struct plan_hit *hit);
/* How connections to a service address begin: from appProtocol or the port's name (http-..., tcp-..., grpc, tls, mysql ...). */
enum mesh_protocol { MESH_NONE, MESH_HTTP, MESH_TCP, MESH_TLS /* bytes, chosen by SNI */ };
enum mesh_protocol plan_mesh_protocol(const struct plan *p, const struct addr *a);
/* Bytes. sni: empty when unknown. NULL: nothing matches, the connection is reset. */
const struct plan_tcp_rule *plan_tcp_route(const struct plan *p, const struct plan_listener *ln, struct slice sni);
const struct plan_tcp_rule *plan_tcp_mesh(const struct plan *p, const struct addr *a, struct slice sni, const struct plan_caller *caller);
/* tls_peek: whether a connection with this SNI is passed through (plan_tcp_route()) instead of terminated. */
bool plan_tls_passed(const struct plan *p, const struct plan_listener *ln, struct slice sni);
const struct plan_caller *plan_caller_find(const struct plan *p, const char *ns, const char *workload); /* NULL: unknown */

/* Regular expressions: PCRE2 with limits on matching work, compiled once per plan; any thread. */
struct plan_regex;
/* Whole subject must match when whole is set. A match that exceeds the limits is no match, and counted. */
bool plan_regex_match(const struct plan_regex *r, struct slice subject, bool whole);
/* Every match is replaced; \1 to \9 in with stand for groups. False: limits or out_max exceeded, out is untouched. */
bool plan_regex_replace(const struct plan_regex *r, struct slice subject, struct slice with, size_t out_max, struct buf *out);
uint64_t plan_regex_overruns(void); /* matches given up for their limits, of all threads */
/* For the reader: false when text is no valid expression; why gets a sentence. */
bool plan_regex_check(struct slice text, struct buf *why);
/* m holds for s. r: the compiled m->value of a MATCH_REGEX, NULL for others. */
bool plan_string_match(const struct string_match *m, const struct plan_regex *r, struct slice s);
const struct plan_listener *plan_listener_find(const struct plan *p, uint64_t token);
/* What the name in a connection from another node stands for; NULL: nothing here. Hot path. */
const struct plan_target *plan_target_find(const struct plan *p, struct slice sni);
#define NODE_ALPN_BYTES "weir-bytes/1" /* ALPN of connections between nodes that carry bytes; the others have h2 */

#endif
