/* load_policy.c - policies of a cluster: Istio's DestinationRule, the Gateway API's BackendTLSPolicy, Weir's BackendPolicy.
 *
 * All three become struct cluster_policy, a block for each concern. Which blocks a manifest gives decides how policies are laid over
 * each other; Istio's rules are kept (pilot, cluster traffic policy): a subset's block replaces the destination's whole; the
 * settings of a port take nothing from the level they are in, so what they leave out has its default. That is worked out
 * here, so that a compiled rule has one policy for each subset and port.
 */
#include "plan_int.h"

void cluster_policy_default(struct cluster_policy *p)
{
    *p = (struct cluster_policy){
        .lb = {.kind = LB_LEAST_REQUEST, .ring_size_min = 1024, .maglev_size = 65537, .slow_start_min_pct = 10, .slow_start_aggression = 1.0, .panic_pct = 50},
        .health = {.status_min = 200, .status_max = 299},
    };
}

static uint32_t load_u32(const struct ynode *map, const char *key, uint32_t def) { return (uint32_t)load_int(map, key, def, UINT32_MAX); }

/* ---- DestinationRule: one traffic policy ---------------------------------------------------------------------------------- */

/* A policy and which of its blocks are given. */
struct traffic {
    struct cluster_policy p;
    bool lb, pool, outlier, tls, proxy, budget;
};

static void traffic_init(struct traffic *t)
{
    *t = (struct traffic){0};
    cluster_policy_default(&t->p);
}

/* The blocks of a port that the level above does not pass on: pool without what has no port of its own. */
static void copy_pool(struct pool_policy *to, const struct pool_policy *from)
{
    struct pool_policy kept = *to;
    *to = *from;
    to->proxy_protocol = kept.proxy_protocol;
    to->retry_budget = kept.retry_budget;
    to->retry_budget_pct = kept.retry_budget_pct;
    to->retry_budget_min = kept.retry_budget_min;
}

/* Panic belongs to outlierDetection in manifests (minHealthPercent) and to balancing in the policy: it goes with the former. */
static void copy_lb(struct lb_policy *to, const struct lb_policy *from)
{
    uint32_t panic_pct = to->panic_pct;
    *to = *from;
    to->panic_pct = panic_pct;
}

static void copy_outlier(struct cluster_policy *to, const struct cluster_policy *from)
{
    to->outlier = from->outlier;
    to->lb.panic_pct = from->lb.panic_pct;
}

/* The blocks that over gives replace those of t. */
static void traffic_lay_over(struct traffic *t, const struct traffic *over)
{
    if (over->lb)
        copy_lb(&t->p.lb, &over->p.lb);
    if (over->pool)
        copy_pool(&t->p.pool, &over->p.pool);
    if (over->outlier)
        copy_outlier(&t->p, &over->p);
    if (over->tls)
        t->p.tls = over->p.tls;
    if (over->proxy)
        t->p.pool.proxy_protocol = over->p.pool.proxy_protocol;
    if (over->budget) {
        t->p.pool.retry_budget = over->p.pool.retry_budget;
        t->p.pool.retry_budget_pct = over->p.pool.retry_budget_pct;
        t->p.pool.retry_budget_min = over->p.pool.retry_budget_min;
    }
}

/* The settings of a port: its blocks, or defaults, and of level what has no port of its own. */
static void traffic_of_port(struct traffic *port, const struct traffic *level)
{
    struct cluster_policy p = level->p;
    copy_lb(&p.lb, &port->p.lb);
    copy_pool(&p.pool, &port->p.pool);
    copy_outlier(&p, &port->p);
    p.tls = port->p.tls;
    port->p = p;
}

static void load_consistent_hash(struct reader *r, struct object *o, const struct ynode *n, struct lb_policy *lb)
{
    static const char *const keys[] = {"httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName", NULL};
    const struct ynode *cookie = y_get(n, keys[1]), *maglev = y_get(n, "maglev");
    size_t mark = reader_push(r, ".consistentHash");
    const char *key = load_one_of(r, n, keys);
    if (maglev && y_get(n, "ringHash"))
        reader_error(r, maglev, ".maglev", "keep one of them", "both ringHash and maglev");
    if (key == keys[2] && !load_bool(n, key, false))
        reader_error(r, y_get(n, key), ".useSourceIp", "set it to true, or name a header, a cookie or a query parameter", "false: nothing is hashed");
    reader_pop(r, mark);
    lb->kind = maglev ? LB_MAGLEV : LB_RING_HASH;
    lb->hash_on = key == keys[0] ? HASH_HEADER : key == keys[1] ? HASH_COOKIE : key == keys[2] ? HASH_SOURCE_IP : key == keys[3] ? HASH_QUERY : HASH_NONE;
    lb->hash_name = key == keys[1] ? load_str(o, cookie, "name") : key ? load_str(o, n, key) : NULL;
    lb->cookie_path = load_str(o, cookie, "path");
    lb->cookie_ttl_given = y_get(cookie, "ttl") != NULL;
    lb->cookie_ttl_s = (load_go_duration(cookie, "ttl", 0) + 999) / 1000;
    lb->ring_size_min = load_u32(y_get(n, "ringHash"), "minimumRingSize", load_u32(n, "minimumRingSize", 1024));
    lb->maglev_size = load_u32(maglev, "tableSize", 65537);
}

static void load_locality(struct object *o, const struct ynode *n, struct lb_policy *lb)
{
    const struct ynode *list = y_get(n, "distribute"), *failover = y_get(n, "failover");
    size_t pairs = 0;
    lb->locality_off = !load_bool(n, "enabled", true);
    for (uint32_t i = 0; i < load_list_n(n, "distribute"); i++) {
        const struct ynode *to = y_get(list->items[i], "to");
        pairs += to && to->type == Y_MAP ? to->n : 0;
    }
    lb->distribute = load_array(o, pairs, sizeof *lb->distribute);
    for (uint32_t i = 0; i < load_list_n(n, "distribute"); i++) {
        const struct ynode *to = y_get(list->items[i], "to");
        char *from = load_str(o, list->items[i], "from");
        for (uint32_t k = 0; to && to->type == Y_MAP && k < to->n; k++)
            lb->distribute[lb->distribute_n++] = (struct locality_weight){
                .from = from, .to = (char *)arena_slice(&o->mem, to->pairs[k].key).p, .weight = (uint32_t)MAX(MIN(to->pairs[k].value->num, 100), 0)};
    }
    lb->failover_n = load_list_n(n, "failover");
    lb->failover = load_array(o, lb->failover_n, sizeof *lb->failover);
    for (size_t i = 0; i < lb->failover_n; i++)
        lb->failover[i] = (struct locality_failover){.from = load_str(o, failover->items[i], "from"), .to = load_str(o, failover->items[i], "to")};
}

static void load_lb(struct reader *r, struct object *o, const struct ynode *n, struct lb_policy *lb)
{
    const struct ynode *hash = y_get(n, "consistentHash"), *warmup = y_get(n, "warmup");
    struct slice simple = y_str(y_get(n, "simple"));
    if (hash && simple.n)
        reader_error(r, hash, ".consistentHash", "keep one of them", "both simple and consistentHash");
    lb->kind = slice_is(simple, "ROUND_ROBIN") ? LB_ROUND_ROBIN : slice_is(simple, "RANDOM") ? LB_RANDOM : LB_LEAST_REQUEST;
    if (hash && hash->type == Y_MAP)
        load_consistent_hash(r, o, hash, lb);
    lb->slow_start_ms = load_go_duration(warmup, "duration", load_go_duration(n, "warmupDurationSecs", 0));
    lb->slow_start_min_pct = (uint32_t)load_real(warmup, "minimumPercent", 10);
    lb->slow_start_aggression = load_real(warmup, "aggression", 1);
    load_locality(o, y_get(n, "localityLbSetting"), lb);
}

static void load_pool(const struct ynode *n, struct pool_policy *p)
{
    const struct ynode *tcp = y_get(n, "tcp"), *http = y_get(n, "http"), *keep = y_get(tcp, "tcpKeepalive");
    p->connections_max = load_u32(tcp, "maxConnections", 0);
    p->connect_timeout_ms = load_go_duration(tcp, "connectTimeout", 0);
    p->connection_lifetime_ms = load_go_duration(tcp, "maxConnectionDuration", 0);
    p->tcp_idle_timeout_ms = load_go_duration(tcp, "idleTimeout", 0);
    if (y_get(tcp, "idleTimeout") && !p->tcp_idle_timeout_ms) /* "If set to 0s, the timeout will be disabled" */
        p->tcp_idle_timeout_ms = UINT32_MAX;
    p->keepalive = keep != NULL;
    p->keepalive_probes = load_u32(keep, "probes", 0);
    p->keepalive_time_s = (load_go_duration(keep, "time", 0) + 999) / 1000;
    p->keepalive_interval_s = (load_go_duration(keep, "interval", 0) + 999) / 1000;
    p->pending_max = load_u32(http, "http1MaxPendingRequests", 0);
    p->requests_max = load_u32(http, "http2MaxRequests", 0);
    p->requests_per_connection_max = load_u32(http, "maxRequestsPerConnection", 0);
    p->retries_max = load_u32(http, "maxRetries", 0);
    p->idle_timeout_ms = load_go_duration(http, "idleTimeout", 0);
    p->streams_max = load_u32(http, "maxConcurrentStreams", 0);
    p->http = load_is(http, "h2UpgradePolicy", "UPGRADE") ? UPSTREAM_HTTP2 : UPSTREAM_HTTP1;
}

/* Envoy's defaults where Istio leaves them (outlier_detection.proto), but no success rate: Istio turns it off. */
static void load_outlier(const struct ynode *n, struct cluster_policy *p)
{
    struct outlier_policy *out = &p->outlier;
    uint32_t old = load_u32(n, "consecutiveErrors", 0);
    *out = (struct outlier_policy){.on = true, .max_ejection_ms = 300000};
    out->consecutive_5xx = load_u32(n, "consecutive5xxErrors", old ? old : 5);
    out->consecutive_gateway = load_u32(n, "consecutiveGatewayErrors", old);
    out->split_local = load_bool(n, "splitExternalLocalOriginErrors", false);
    out->consecutive_local = load_u32(n, "consecutiveLocalOriginFailures", 5);
    out->interval_ms = load_go_duration(n, "interval", 10000);
    out->base_ejection_ms = load_go_duration(n, "baseEjectionTime", 30000);
    out->max_ejection_ms = MAX(out->max_ejection_ms, out->base_ejection_ms);
    out->max_ejection_pct = (uint32_t)load_int(n, "maxEjectionPercent", 10, 100);
    p->lb.panic_pct = (uint32_t)load_int(n, "minHealthPercent", 0, 100);
}

static void load_client_tls(struct reader *r, struct object *o, const struct ynode *n, struct upstream_tls *tls)
{
    struct slice mode = y_str(y_get(n, "mode"));
    char *name = load_str(o, n, "credentialName");
    tls->mode = slice_is(mode, "SIMPLE") ? TLS_SIMPLE : slice_is(mode, "MUTUAL") ? TLS_MUTUAL : slice_is(mode, "ISTIO_MUTUAL") ? TLS_MESH : TLS_OFF;
    tls->sni = load_str(o, n, "sni");
    tls->sans = load_strings(o, n, "subjectAltNames", &tls->sans_n);
    tls->insecure = load_bool(n, "insecureSkipVerify", false);
    if (tls->mode == TLS_MUTUAL && !name)
        reader_error(r, n, ".tls.credentialName", "name a Secret with tls.crt and tls.key", "missing, with mode MUTUAL");
    if (name && (tls->mode == TLS_OFF || tls->mode == TLS_MESH))
        reader_error(r, y_get(n, "credentialName"), ".tls.credentialName", "use mode SIMPLE or MUTUAL, or remove it", "has no meaning with this mode");
    if (tls->mode == TLS_MUTUAL)
        tls->cert = (struct secret_ref){.ns = o->ns, .name = name};
    tls->ca = load_array(o, 1, sizeof *tls->ca);
    if (name && (tls->mode == TLS_SIMPLE || tls->mode == TLS_MUTUAL))
        tls->ca[tls->ca_n++] = (struct secret_ref){.ns = o->ns, .name = name};
    tls->system_ca = tls->mode == TLS_SIMPLE && !tls->ca_n && !tls->insecure;
}

/* A trafficPolicy, or the settings of a port. */
static void load_traffic(struct reader *r, struct object *o, const struct ynode *n, struct traffic *t)
{
    const struct ynode *lb = y_get(n, "loadBalancer"), *pool = y_get(n, "connectionPool"), *outlier = y_get(n, "outlierDetection"), *tls = y_get(n, "tls");
    const struct ynode *proxy = y_get(n, "proxyProtocol"), *budget = y_get(n, "retryBudget");
    traffic_init(t);
    t->lb = lb != NULL;
    t->pool = pool != NULL;
    t->outlier = outlier != NULL;
    t->tls = tls != NULL;
    t->proxy = proxy != NULL;
    t->budget = budget != NULL;
    size_t mark = reader_push(r, ".loadBalancer");
    if (lb)
        load_lb(r, o, lb, &t->p.lb);
    reader_pop(r, mark);
    if (pool)
        load_pool(pool, &t->p.pool);
    if (outlier)
        load_outlier(outlier, &t->p);
    if (tls)
        load_client_tls(r, o, tls, &t->p.tls);
    if (proxy)
        t->p.pool.proxy_protocol = load_is(proxy, "version", "V2") ? 2 : 1;
    if (budget) { /* Envoy's defaults: a fifth, and 3 at least */
        t->p.pool.retry_budget = true;
        t->p.pool.retry_budget_pct = (uint32_t)load_real(budget, "percent", 20);
        t->p.pool.retry_budget_min = load_u32(budget, "minRetryConcurrency", 3);
    }
}

/* portLevelSettings as written: no level laid under them yet. */
static struct traffic *load_port_traffic(struct reader *r, struct object *o, const struct ynode *policy, uint16_t **ports, size_t *n)
{
    const struct ynode *list = y_get(policy, "portLevelSettings");
    *n = load_list_n(policy, "portLevelSettings");
    struct traffic *t = load_array(o, *n, sizeof *t);
    *ports = load_array(o, *n, sizeof **ports);
    for (size_t i = 0; i < *n; i++) {
        size_t mark = reader_push(r, ".portLevelSettings[%zu]", i);
        (*ports)[i] = (uint16_t)load_int(y_get(list->items[i], "port"), "number", 0, 65535);
        for (size_t k = 0; k < i; k++)
            if ((*ports)[k] == (*ports)[i])
                reader_error(r, list->items[i], ".port.number", "join them", "the port %u is given twice: first at line %u", (*ports)[i], list->items[k]->line);
        load_traffic(r, o, list->items[i], &t[i]);
        reader_pop(r, mark);
    }
    return t;
}

/* ---- DestinationRule: the whole ---------------------------------------------------------------------------------------------- */

/* What a destination says, before subsets are laid over it. */
struct destination {
    struct traffic t;
    uint16_t *ports;
    struct traffic *port_t;
    size_t ports_n;
};

static void load_subset(struct reader *r, struct object *o, const struct ynode *n, const struct destination *d, struct subset *s)
{
    const struct ynode *policy = y_get(n, "trafficPolicy");
    struct traffic own, all = d->t;
    uint16_t *ports;
    size_t ports_n;
    s->name = load_str(o, n, "name");
    load_kvs(o, y_get(n, "labels"), &s->labels);
    size_t mark = reader_push(r, ".trafficPolicy");
    load_traffic(r, o, policy, &own);
    struct traffic *port_t = load_port_traffic(r, o, policy, &ports, &ports_n);
    reader_pop(r, mark);
    traffic_lay_over(&all, &own);
    s->policy = all.p;
    s->ports = load_array(o, d->ports_n + ports_n, sizeof *s->ports);
    for (size_t i = 0; i < ports_n; i++) {
        traffic_of_port(&port_t[i], &all);
        s->ports[s->ports_n++] = (struct port_policy){ports[i], port_t[i].p};
    }
    for (size_t i = 0; i < d->ports_n; i++) {
        bool own_port = false;
        for (size_t k = 0; k < ports_n; k++)
            own_port |= ports[k] == d->ports[i];
        struct traffic t = d->port_t[i];
        traffic_lay_over(&t, &own);
        if (!own_port)
            s->ports[s->ports_n++] = (struct port_policy){d->ports[i], t.p};
    }
}

void load_destination_rule(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *policy = y_get(spec, "trafficPolicy"), *subsets = y_get(spec, "subsets");
    struct destination_rule *rule = &o->dest;
    struct destination d = {0};
    if (!spec || spec->type != Y_MAP)
        return;
    rule->host = load_str(o, spec, "host");
    rule->export_to = load_strings(o, spec, "exportTo", &rule->export_to_n);
    load_kvs(o, y_path(spec, "workloadSelector.matchLabels"), &rule->workload_selector);
    size_t mark = reader_push(r, "spec.trafficPolicy");
    load_traffic(r, o, policy, &d.t);
    d.port_t = load_port_traffic(r, o, policy, &d.ports, &d.ports_n);
    reader_pop(r, mark);
    rule->policy = d.t.p;
    rule->ports_n = d.ports_n;
    rule->ports = load_array(o, d.ports_n, sizeof *rule->ports);
    for (size_t i = 0; i < d.ports_n; i++) {
        traffic_of_port(&d.port_t[i], &d.t);
        rule->ports[i] = (struct port_policy){d.ports[i], d.port_t[i].p};
    }
    rule->subsets_n = load_list_n(spec, "subsets");
    rule->subsets = load_array(o, rule->subsets_n, sizeof *rule->subsets);
    for (size_t i = 0; i < rule->subsets_n; i++) {
        mark = reader_push(r, "spec.subsets[%zu]", i);
        load_subset(r, o, subsets->items[i], &d, &rule->subsets[i]);
        reader_pop(r, mark);
    }
}

/* ---- BackendTLSPolicy ------------------------------------------------------------------------------------------------------------ */

static char **load_targets(struct object *o, const struct ynode *spec, size_t *n, char ***sections)
{
    const struct ynode *list = y_get(spec, "targetRefs");
    *n = load_list_n(spec, "targetRefs");
    char **names = load_array(o, *n, sizeof *names);
    if (sections)
        *sections = load_array(o, *n, sizeof **sections);
    for (size_t i = 0; i < *n; i++) {
        names[i] = load_str(o, list->items[i], "name");
        if (sections)
            (*sections)[i] = load_str(o, list->items[i], "sectionName");
    }
    return names;
}

/* subjectAltNames: {type: Hostname | URI, hostname, uri}. */
static char **load_san_list(struct reader *r, struct object *o, const struct ynode *map, size_t *n)
{
    const struct ynode *list = y_get(map, "subjectAltNames");
    *n = load_list_n(map, "subjectAltNames");
    char **sans = load_array(o, *n, sizeof *sans);
    for (size_t i = 0; i < *n; i++) {
        const struct ynode *san = list->items[i];
        const char *key = load_is(san, "type", "URI") ? "uri" : "hostname";
        sans[i] = load_str(o, san, key);
        if (!sans[i] && san->type == Y_MAP) {
            size_t mark = reader_push(r, ".subjectAltNames[%zu].%s", i, key);
            reader_error(r, san, "", "add it", "missing, with this type");
            reader_pop(r, mark);
        }
    }
    return sans;
}

static void check_ca(struct reader *r, const struct ynode *n, size_t ca_n, bool system_ca)
{
    bool old = y_get(n, "caCertRefs") || y_get(n, "wellKnownCACerts");
    const char *refs = old ? "caCertRefs" : "caCertificateRefs", *known = old ? "wellKnownCACerts" : "wellKnownCACertificates";
    if (n && n->type == Y_MAP && !ca_n == !system_ca)
        reader_error(r, n, "", "give exactly one of them", "%s %s %s %s", ca_n ? "both" : "neither", refs, ca_n ? "and" : "nor", known);
}

/* gateway.networking.k8s.io/v1alpha2, as Gateway API 1.0 had it. */
static void load_backend_tls_alpha2(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *target = y_get(spec, "targetRef"), *v = y_get(spec, "tls");
    struct backend_tls *tls = &o->backend_tls;
    tls->services_n = target ? 1 : 0;
    tls->services = load_array(o, 1, sizeof *tls->services);
    tls->sections = load_array(o, 1, sizeof *tls->sections);
    tls->services[0] = load_str(o, target, "name");
    tls->sections[0] = load_str(o, target, "sectionName");
    tls->hostname = load_str(o, v, "hostname");
    tls->ca = load_secret_refs(o, v, "caCertRefs", &tls->ca_n);
    tls->system_ca = load_is(v, "wellKnownCACerts", "System");
    size_t mark = reader_push(r, "spec.tls");
    check_ca(r, v, tls->ca_n, tls->system_ca);
    reader_pop(r, mark);
}

void load_backend_tls(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *v = y_get(spec, "validation");
    struct backend_tls *tls = &o->backend_tls;
    if (!v && y_get(spec, "tls")) {
        load_backend_tls_alpha2(r, o, spec);
        return;
    }
    tls->services = load_targets(o, spec, &tls->services_n, &tls->sections);
    tls->hostname = load_str(o, v, "hostname");
    tls->ca = load_secret_refs(o, v, "caCertificateRefs", &tls->ca_n);
    tls->system_ca = load_is(v, "wellKnownCACertificates", "System");
    size_t mark = reader_push(r, "spec.validation");
    tls->sans = load_san_list(r, o, v, &tls->sans_n);
    check_ca(r, v, tls->ca_n, tls->system_ca);
    reader_pop(r, mark);
}

/* ---- BackendPolicy ------------------------------------------------------------------------------------------------------------------ */

static void weir_lb(struct reader *r, struct object *o, const struct ynode *n, struct lb_policy *lb)
{
    static const char *const names[] = {"LeastRequest", "RoundRobin", "Random", "PeakEWMA", "RingHash", "Maglev", "LeastRequestFull"};
    static const char *const keys[] = {"header", "cookie", "queryParam", "sourceIP", NULL};
    const struct ynode *hash = y_get(n, "hash"), *cookie = y_get(hash, "cookie");
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (load_is(n, "algorithm", names[i]))
            lb->kind = (enum lb_kind)i;
    bool hashed = lb->kind == LB_RING_HASH || lb->kind == LB_MAGLEV;
    size_t mark = reader_push(r, "spec.loadBalancer");
    if (hashed != (hash != NULL))
        reader_error(r, hash ? hash : n, ".hash", hash ? "use algorithm RingHash or Maglev, or remove it" : "say what is hashed",
                     hash ? "has no meaning with this algorithm" : "missing, with this algorithm");
    size_t inner = reader_push(r, ".hash");
    const char *key = hash && hash->type == Y_MAP ? load_one_of(r, hash, keys) : NULL;
    reader_pop(r, inner);
    reader_pop(r, mark);
    lb->hash_on = key == keys[0] ? HASH_HEADER : key == keys[1] ? HASH_COOKIE : key == keys[2] ? HASH_QUERY : key == keys[3] ? HASH_SOURCE_IP : HASH_NONE;
    lb->hash_name = key == keys[1] ? load_str(o, cookie, "name") : key && key != keys[3] ? load_str(o, hash, key) : NULL;
    lb->cookie_path = load_str(o, cookie, "path");
    lb->cookie_ttl_given = y_get(cookie, "ttl") != NULL;
    lb->cookie_ttl_s = (load_duration(cookie, "ttl") + 999) / 1000;
    lb->ring_size_min = load_u32(n, "ringSize", lb->ring_size_min);
    lb->maglev_size = load_u32(n, "tableSize", lb->maglev_size);
    lb->bounded_load_pct = load_u32(n, "boundedLoadPercent", 0);
    lb->panic_pct = load_u32(n, "panicPercent", lb->panic_pct);
    load_locality(o, y_get(n, "locality"), lb);
}

static void weir_pool(const struct ynode *n, struct pool_policy *p)
{
    const struct ynode *keep = y_get(n, "keepalive");
    p->connections_max = load_u32(n, "maxConnections", 0);
    p->pending_max = load_u32(n, "maxPendingRequests", 0);
    p->requests_max = load_u32(n, "maxRequests", 0);
    p->retries_max = load_u32(n, "maxRetries", 0);
    p->requests_per_connection_max = load_u32(n, "maxRequestsPerConnection", 0);
    p->connect_timeout_ms = load_duration(n, "connectTimeout");
    p->idle_timeout_ms = load_duration(n, "idleTimeout");
    p->connection_lifetime_ms = load_duration(n, "maxConnectionDuration");
    p->tcp_idle_timeout_ms = load_duration(n, "tcpIdleTimeout");
    p->keepalive = keep != NULL;
    p->keepalive_time_s = (load_duration(keep, "time") + 999) / 1000;
    p->keepalive_interval_s = (load_duration(keep, "interval") + 999) / 1000;
    p->keepalive_probes = load_u32(keep, "probes", 0);
    p->http = load_is(n, "http", "HTTP2") ? UPSTREAM_HTTP2 : load_is(n, "http", "Auto") ? UPSTREAM_AUTO : UPSTREAM_HTTP1;
    p->streams_max = load_u32(n, "maxConcurrentStreams", 0);
    p->proxy_protocol = load_is(n, "proxyProtocol", "V2") ? 2 : load_is(n, "proxyProtocol", "V1") ? 1 : 0;
}

static uint32_t duration_or(const struct ynode *map, const char *key, uint32_t def) { return y_get(map, key) ? load_duration(map, key) : def; }

static void weir_outlier(const struct ynode *n, struct outlier_policy *p)
{
    const struct ynode *rate = y_get(n, "successRate"), *failures = y_get(n, "failurePercentage");
    *p = (struct outlier_policy){.on = true};
    p->consecutive_5xx = load_u32(n, "consecutive5xxErrors", 5);
    p->consecutive_gateway = load_u32(n, "consecutiveGatewayErrors", 0);
    p->consecutive_local = load_u32(n, "consecutiveLocalErrors", 5);
    p->split_local = load_bool(n, "splitLocalErrors", y_get(n, "consecutiveLocalErrors") != NULL);
    p->interval_ms = duration_or(n, "interval", 10000);
    p->base_ejection_ms = duration_or(n, "baseEjectionTime", 30000);
    p->max_ejection_ms = MAX(duration_or(n, "maxEjectionTime", 300000), p->base_ejection_ms);
    p->max_ejection_pct = load_u32(n, "maxEjectionPercent", 10);
    p->jitter_ms = duration_or(n, "maxEjectionJitter", 0);
    if (rate) {
        p->success_rate_min_hosts = load_u32(rate, "minHosts", 5);
        p->success_rate_volume = load_u32(rate, "requestVolume", 100);
        p->success_rate_stdev_permille = (uint32_t)(load_real(rate, "standardDeviations", 1.9) * 1000 + 0.5);
    }
    if (failures) {
        p->failure_pct = load_u32(failures, "threshold", 85);
        p->failure_pct_min_hosts = load_u32(failures, "minHosts", 5);
        p->failure_pct_volume = load_u32(failures, "requestVolume", 50);
    }
}

static void weir_health(struct reader *r, struct object *o, const struct ynode *n, struct health_policy *p)
{
    static const char *const kinds[] = {"http", "tcp", "grpc", NULL};
    size_t mark = reader_push(r, "spec.healthCheck");
    const char *kind = load_one_of(r, n, kinds);
    const struct ynode *http = y_get(n, "http"), *statuses = y_get(http, "statuses");
    p->kind = kind == kinds[0] ? HEALTH_HTTP : kind == kinds[1] ? HEALTH_TCP : kind == kinds[2] ? HEALTH_GRPC : HEALTH_NONE;
    p->path = load_str(o, http, "path");
    if (!p->path)
        p->path = arena_strdup(&o->mem, "/");
    p->host = load_str(o, http, "host");
    p->status_min = (uint16_t)load_int(statuses, "min", 200, 599);
    p->status_max = (uint16_t)load_int(statuses, "max", MAX(299, p->status_min), 599);
    p->grpc_service = load_str(o, y_get(n, "grpc"), "service");
    p->port = (uint16_t)load_int(n, "port", 0, 65535);
    p->interval_ms = duration_or(n, "interval", 10000);
    p->timeout_ms = duration_or(n, "timeout", 1000);
    p->healthy = load_u32(n, "healthyThreshold", 1);
    p->unhealthy = load_u32(n, "unhealthyThreshold", 3);
    if (p->status_min > p->status_max)
        reader_error(r, statuses, ".http.statuses", "swap them", "min is above max");
    if (!p->interval_ms || !p->timeout_ms)
        reader_error(r, n, p->interval_ms ? ".timeout" : ".interval", "give more than 0s", "no time at all");
    reader_pop(r, mark);
}

static void weir_tls(struct reader *r, struct object *o, const struct ynode *n, struct upstream_tls *tls)
{
    const struct ynode *cert = y_get(n, "clientCertificateRef");
    size_t mark = reader_push(r, "spec.tls");
    tls->mode = cert ? TLS_MUTUAL : TLS_SIMPLE;
    if (cert)
        tls->cert = load_secret_ref(o, cert);
    tls->ca = load_secret_refs(o, n, "caCertificateRefs", &tls->ca_n);
    tls->insecure = load_bool(n, "insecureSkipVerify", false);
    tls->system_ca = load_is(n, "wellKnownCACertificates", "System");
    tls->sni = load_str(o, n, "hostname");
    tls->sans = load_san_list(r, o, n, &tls->sans_n);
    if (!tls->insecure)
        check_ca(r, n, tls->ca_n, tls->system_ca);
    reader_pop(r, mark);
}

static void weir_limits(struct reader *r, struct object *o, const struct ynode *spec, struct cluster_policy *p)
{
    const struct ynode *adaptive = y_get(spec, "adaptiveConcurrency"), *shed = y_get(spec, "loadShedding"), *hedge = y_get(spec, "hedging");
    if (adaptive)
        p->adaptive = (struct adaptive_policy){.on = true,
                                               .min = load_u32(adaptive, "minLimit", 3),
                                               .max = load_u32(adaptive, "maxLimit", 1000),
                                               .interval_ms = duration_or(adaptive, "interval", 100),
                                               .buffer_pct = load_u32(adaptive, "bufferPercent", 25)};
    if (p->adaptive.min > p->adaptive.max)
        reader_error(r, adaptive, "spec.adaptiveConcurrency.minLimit", "give at most maxLimit", "more than maxLimit");
    if (shed) {
        p->shed.header = load_str(o, shed, "header");
        p->shed.levels = load_strings(o, shed, "levels", &p->shed.levels_n);
        p->shed.at_pct = load_u32(shed, "atPercent", 70);
        if (!p->pool.requests_max && !adaptive)
            reader_error(r, shed, "spec.loadShedding", "add connectionPool.maxRequests or adaptiveConcurrency", "there is no limit whose share could be shed");
    }
    if (hedge)
        p->hedge = (struct hedge_policy){.delay_ms = load_duration(hedge, "delay"), .max = load_u32(hedge, "maxRequests", 1)};
}

static void weir_rest(struct reader *r, struct object *o, const struct ynode *spec, struct backend_policy *b)
{
    const struct ynode *budget = y_get(spec, "retryBudget"), *slow = y_get(spec, "slowStart");
    struct cluster_policy *p = &b->policy;
    weir_limits(r, o, spec, p);
    if (budget) {
        p->pool.retry_budget = true;
        p->pool.retry_budget_pct = (uint32_t)load_int(budget, "percent", 20, 100);
        p->pool.retry_budget_min = load_u32(budget, "minConcurrency", 3);
    }
    if (slow) {
        p->lb.slow_start_ms = load_duration(slow, "duration");
        p->lb.slow_start_min_pct = load_u32(slow, "minPercent", 10);
        p->lb.slow_start_aggression = load_real(slow, "aggression", 1);
    }
    size_t mark = reader_push(r, "spec.sessionPersistence");
    load_session(r, o, y_get(spec, "sessionPersistence"), &p->session);
    reader_pop(r, mark);
}

void load_backend_policy(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    struct backend_policy *b = &o->backend;
    const struct {
        const char *key;
        bool *has;
    } blocks[] = {{"loadBalancer", &b->has_lb},          {"connectionPool", &b->has_pool}, {"outlierDetection", &b->has_outlier},
                  {"healthCheck", &b->has_health},       {"tls", &b->has_tls},             {"adaptiveConcurrency", &b->has_adaptive},
                  {"loadShedding", &b->has_shed},        {"hedging", &b->has_hedge},       {"retryBudget", &b->has_retry_budget},
                  {"slowStart", &b->has_slow_start},     {"sessionPersistence", &b->has_session}};
    size_t given = 0;
    cluster_policy_default(&b->policy);
    b->services = load_targets(o, spec, &b->services_n, NULL);
    b->entries = load_array(o, b->services_n, sizeof *b->entries);
    for (size_t i = 0; i < b->services_n; i++)
        b->entries[i] = load_is(y_get(spec, "targetRefs")->items[i], "kind", "ServiceEntry");
    for (size_t i = 0; i < COUNT_OF(blocks); i++)
        given += *blocks[i].has = y_get(spec, blocks[i].key) != NULL;
    if (b->has_lb)
        weir_lb(r, o, y_get(spec, "loadBalancer"), &b->policy.lb);
    if (b->has_pool)
        weir_pool(y_get(spec, "connectionPool"), &b->policy.pool);
    if (b->has_outlier)
        weir_outlier(y_get(spec, "outlierDetection"), &b->policy.outlier);
    if (b->has_health)
        weir_health(r, o, y_get(spec, "healthCheck"), &b->policy.health);
    if (b->has_tls)
        weir_tls(r, o, y_get(spec, "tls"), &b->policy.tls);
    weir_rest(r, o, spec, b);
    if (!given && spec && spec->type == Y_MAP)
        reader_warn(r, spec, "spec", "add a block, such as loadBalancer", "says nothing: no block is given");
}
