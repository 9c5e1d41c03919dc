/* compile_policy.c - the policy of each cluster.
 *
 * Three kinds say something about traffic to a host, each over the one before it:
 *
 *   DestinationRule    by host, short names completed in its own namespace; of all that match, those with the most specific
 *                      host, of the target's own namespace before others, the oldest first. The first gives the policy,
 *                      all for the same host together the subsets. Its blocks are merged already (struct destination_rule)
 *   BackendTLSPolicy   its TLS; one for the port's name before one for all ports, then the oldest
 *   BackendPolicy      each block that it gives; the oldest wins block by block
 *
 * A cluster has one policy for all callers, so a rule of another namespace counts only where it is exported to the target's.
 * policy_keep() copies a policy into the plan and hashes all of it on the way.
 */
#include "compile_int.h"

#include <stdlib.h>

/* ---- finding ------------------------------------------------------------------------------------------------------------ */

static void services_index(struct compile *c, struct table *t, const struct object *o, char *const *services, size_t n)
{
    for (size_t i = 0; i < n; i++)
        list_add(list_at(c, t, host_full(c, o->ns, services[i])), o);
}

/* The hosts of a ServiceEntry have a name of their own. */
static void backends_index(struct compile *c, const struct object *o)
{
    const struct backend_policy *b = &o->backend;
    for (size_t i = 0; i < b->services_n; i++) {
        const struct object *entry = b->entries[i] ? objset_find(c->s, OBJ_SERVICEENTRY, o->ns, b->services[i]) : NULL;
        if (!b->entries[i])
            services_index(c, &c->backend_policies, o, &b->services[i], 1);
        for (size_t k = 0; entry && k < entry->entry.hosts_n; k++)
            list_add(list_at(c, &c->backend_policies, pattern_of(&c->scratch, entry->entry.hosts[k])), o);
    }
}

static int list_cmp(const void *a, const void *b) { return object_age_cmp(*(const struct object *const *)a, *(const struct object *const *)b); }

static void lists_sort(struct table *t)
{
    for (struct table_slot *s = NULL; (s = table_next(t, s));) {
        struct object_list *l = s->value;
        qsort(l->items, l->n, sizeof(void *), list_cmp);
    }
}

void policies_index(struct compile *c)
{
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind == OBJ_DESTINATIONRULE && !o->dest.workload_selector.n)
            list_add(list_at(c, &c->dests, host_full(c, o->ns, o->dest.host)), o);
        else if (o->kind == OBJ_BACKENDPOLICY)
            backends_index(c, o);
        else if (o->kind == OBJ_BACKENDTLSPOLICY)
            services_index(c, &c->backend_tls, o, o->backend_tls.services, o->backend_tls.services_n);
        else if (o->kind == OBJ_TRAFFICSPLIT) {
            struct target *t = (struct target *)target_service(c, o->ns, o->split.service); /* of this compilation: ours to fill */
            if (t && (!t->split || object_age_cmp(o, t->split) < 0))
                t->split = o;
        }
    }
    lists_sort(&c->dests);
    lists_sort(&c->backend_policies);
    lists_sort(&c->backend_tls);
    cluster_policy_default(&c->policy_none);
}

/* Those of l that the target's namespace sees: its own first. */
static void dests_take(struct compile *c, struct target *t, const struct object_list *l)
{
    t->dests = arena_alloc(&c->scratch, l->n * sizeof(void *));
    for (int own = 1; own >= 0; own--)
        for (size_t i = 0; i < l->n; i++) {
            const struct object *o = l->items[i];
            if ((strcmp(o->ns, t->o->ns) == 0) == (own == 1) && exported(o->dest.export_to, o->dest.export_to_n, o->ns, t->o->ns))
                t->dests[t->dests_n++] = o;
        }
}

void policies_bind(struct compile *c, struct target *t)
{
    struct slice host = pattern_of(&c->scratch, t->host);
    t->backend_policies = table_get(&c->backend_policies, host);
    t->backend_tls = table_get(&c->backend_tls, host);
    for (struct slice p = host; c->dests.n && !t->dests_n; p = pattern_up(p)) {
        const struct object_list *l = table_get(&c->dests, p);
        if (l)
            dests_take(c, t, l);
        if (!p.n)
            break;
    }
}

const struct subset *subset_find(const struct target *t, const char *name)
{
    for (size_t d = 0; d < t->dests_n; d++)
        for (size_t i = 0; i < t->dests[d]->dest.subsets_n; i++)
            if (strcmp(t->dests[d]->dest.subsets[i].name, name) == 0)
                return &t->dests[d]->dest.subsets[i];
    return NULL;
}

/* ---- what a port says --------------------------------------------------------------------------------------------------- */

/* Istio, "Protocol Selection": appProtocol before the port's name, which is PROTOCOL or PROTOCOL-anything. */
static struct slice port_word(const struct service_port *sp)
{
    struct slice rest, name = slice_cstr(sp->name ? sp->name : "");
    if (sp->app_protocol && sp->app_protocol[0])
        return slice_cstr(sp->app_protocol);
    if (slice_starts(name, SLICE("grpc-web")) && (name.n == 8 || name.p[8] == '-'))
        return slice_of(name.p, 8);
    return slice_cut(name, '-', &rest);
}

static bool word_in(struct slice word, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (slice_ieq(word, slice_cstr(list[i])))
            return true;
    return false;
}

bool port_is_h2(const struct service_port *sp)
{
    static const char *const words[] = {"http2", "grpc", "kubernetes.io/h2c"};
    return word_in(port_word(sp), words, COUNT_OF(words));
}

enum mesh_protocol port_protocol(const struct service_port *sp)
{
    static const char *const tls[] = {"https", "tls", "kubernetes.io/wss"}, *const tcp[] = {"tcp", "mongo", "mysql", "redis"}, *const none[] = {"udp"};
    struct slice word = port_word(sp);
    if (word_in(word, tls, COUNT_OF(tls)))
        return MESH_TLS;
    if (word_in(word, tcp, COUNT_OF(tcp)))
        return MESH_TCP;
    return word_in(word, none, COUNT_OF(none)) ? MESH_NONE : MESH_HTTP;
}

/* ---- merging ------------------------------------------------------------------------------------------------------------ */

static const struct cluster_policy *ports_policy(const struct cluster_policy *all, const struct port_policy *ports, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++)
        if (ports[i].port == port)
            return &ports[i].policy;
    return all;
}

static const struct cluster_policy *dest_policy(const struct target *t, const struct service_port *sp, const char *subset)
{
    const struct subset *s = subset ? subset_find(t, subset) : NULL;
    if (s)
        return ports_policy(&s->policy, s->ports, s->ports_n, sp->port);
    if (!t->dests_n)
        return NULL;
    const struct destination_rule *d = &t->dests[0]->dest;
    return ports_policy(&d->policy, d->ports, d->ports_n, sp->port);
}

/* The policy that is for this port by name, or for all ports; the oldest of each. */
static const struct object *backend_tls_find(const struct target *t, const struct service_port *sp)
{
    const struct object *all = NULL;
    for (size_t i = 0; t->backend_tls && i < t->backend_tls->n; i++) {
        const struct object *o = t->backend_tls->items[i];
        for (size_t k = 0; k < o->backend_tls.services_n; k++) {
            const char *section = o->backend_tls.sections ? o->backend_tls.sections[k] : NULL;
            if (strcmp(o->backend_tls.services[k], t->service) != 0 || (section && strcmp(section, sp->name ? sp->name : "") != 0))
                continue;
            if (section)
                return o;
            if (!all)
                all = o;
        }
    }
    return all;
}

static void backend_tls_merge(struct cluster_policy *p, const struct backend_tls *b)
{
    p->tls = (struct upstream_tls){.mode = TLS_SIMPLE, .ca = b->ca, .ca_n = b->ca_n, .system_ca = b->system_ca, .sni = b->hostname, .sans = b->sans, .sans_n = b->sans_n};
}

/* Slow start and budgets are blocks of their own, though they lie in those of balancing and pools. What only a
 * DestinationRule can say of a block (localities, keep-alive) stays where the BackendPolicy leaves it open. */
static void backend_policy_merge(struct cluster_policy *p, const struct backend_policy *b, const struct cluster_policy *none)
{
    const struct cluster_policy was = *p, *from = &b->policy;
    if (b->has_lb) {
        p->lb = from->lb;
        p->lb.slow_start_ms = was.lb.slow_start_ms;
        p->lb.slow_start_min_pct = was.lb.slow_start_min_pct;
        p->lb.slow_start_aggression = was.lb.slow_start_aggression;
        if (from->lb.panic_pct == none->lb.panic_pct)
            p->lb.panic_pct = was.lb.panic_pct;
        if (!from->lb.distribute_n && !from->lb.failover_n && !from->lb.locality_off) {
            p->lb.distribute = was.lb.distribute;
            p->lb.distribute_n = was.lb.distribute_n;
            p->lb.failover = was.lb.failover;
            p->lb.failover_n = was.lb.failover_n;
            p->lb.locality_off = was.lb.locality_off;
        }
    }
    if (b->has_slow_start) {
        p->lb.slow_start_ms = from->lb.slow_start_ms;
        p->lb.slow_start_min_pct = from->lb.slow_start_min_pct;
        p->lb.slow_start_aggression = from->lb.slow_start_aggression;
    }
    if (b->has_pool) {
        p->pool = from->pool;
        p->pool.retry_budget = was.pool.retry_budget;
        p->pool.retry_budget_pct = was.pool.retry_budget_pct;
        p->pool.retry_budget_min = was.pool.retry_budget_min;
    }
    if (b->has_retry_budget) {
        p->pool.retry_budget = from->pool.retry_budget;
        p->pool.retry_budget_pct = from->pool.retry_budget_pct;
        p->pool.retry_budget_min = from->pool.retry_budget_min;
    }
    p->outlier = b->has_outlier ? from->outlier : was.outlier;
    p->health = b->has_health ? from->health : was.health;
    p->tls = b->has_tls ? from->tls : was.tls;
    p->adaptive = b->has_adaptive ? from->adaptive : was.adaptive;
    p->shed = b->has_shed ? from->shed : was.shed;
    p->hedge = b->has_hedge ? from->hedge : was.hedge;
    p->session = b->has_session ? from->session : was.session;
}

/* ---- into the plan ------------------------------------------------------------------------------------------------------ */

/* Copies what is pointed to, and takes everything into the hash. */
struct visit {
    struct keep *k;
    uint64_t h;
};

static void hash_n(struct visit *v, uint64_t n)
{
    uint64_t parts[2] = {v->h, n};
    v->h = hash_bytes(parts, sizeof parts);
}

static void hash_text(struct visit *v, char **s)
{
    hash_n(v, *s ? hash_slice(slice_cstr(*s)) : 0);
    *s = keep_str(v->k, *s);
}

static void lb_visit(struct visit *v, struct lb_policy *p)
{
    uint64_t fixed;
    memcpy(&fixed, &p->slow_start_aggression, sizeof fixed);
    const uint64_t n[] = {p->kind, p->hash_on, p->cookie_ttl_s, p->cookie_ttl_given, p->ring_size_min, p->maglev_size, p->bounded_load_pct, p->slow_start_ms, p->slow_start_min_pct,
                          fixed, p->panic_pct, p->distribute_n, p->failover_n, p->locality_off};
    hash_n(v, hash_bytes(n, sizeof n));
    hash_text(v, &p->hash_name);
    hash_text(v, &p->cookie_path);
    struct locality_weight *distribute = keep_new(v->k, p->distribute_n * sizeof *distribute);
    for (size_t i = 0; i < p->distribute_n; i++) {
        distribute[i] = p->distribute[i];
        hash_text(v, &distribute[i].from);
        hash_text(v, &distribute[i].to);
        hash_n(v, distribute[i].weight);
    }
    p->distribute = distribute;
    struct locality_failover *failover = keep_new(v->k, p->failover_n * sizeof *failover);
    for (size_t i = 0; i < p->failover_n; i++) {
        failover[i] = p->failover[i];
        hash_text(v, &failover[i].from);
        hash_text(v, &failover[i].to);
    }
    p->failover = failover;
}

static void pool_visit(struct visit *v, const struct pool_policy *p)
{
    const uint64_t n[] = {p->connections_max, p->pending_max, p->requests_max, p->retries_max, p->retry_budget, p->retry_budget_pct, p->retry_budget_min, p->requests_per_connection_max,
                          p->connect_timeout_ms, p->idle_timeout_ms, p->connection_lifetime_ms, p->tcp_idle_timeout_ms, p->keepalive, p->keepalive_time_s, p->keepalive_interval_s,
                          p->keepalive_probes, p->http, p->streams_max, p->proxy_protocol};
    hash_n(v, hash_bytes(n, sizeof n));
}

static void outlier_visit(struct visit *v, const struct outlier_policy *p)
{
    const uint64_t n[] = {p->on, p->consecutive_5xx, p->consecutive_gateway, p->consecutive_local, p->split_local, p->interval_ms, p->base_ejection_ms, p->max_ejection_ms, p->max_ejection_pct,
                          p->jitter_ms, p->success_rate_min_hosts, p->success_rate_volume, p->success_rate_stdev_permille, p->failure_pct, p->failure_pct_min_hosts, p->failure_pct_volume};
    hash_n(v, hash_bytes(n, sizeof n));
}

static void health_visit(struct visit *v, struct health_policy *p)
{
    const uint64_t n[] = {p->kind, p->port, p->status_min, p->status_max, p->interval_ms, p->timeout_ms, p->healthy, p->unhealthy};
    hash_n(v, hash_bytes(n, sizeof n));
    hash_text(v, &p->path);
    hash_text(v, &p->host);
    hash_text(v, &p->grpc_service);
}

static void strings_visit(struct visit *v, char ***list, size_t n)
{
    hash_n(v, n);
    for (size_t i = 0; i < n; i++)
        hash_n(v, hash_slice(slice_cstr((*list)[i])));
    *list = strings_keep(v->k, *list, n);
}

/* References to Secrets stay behind: the plan has the context made of them, and its hash. */
static void tls_visit(struct visit *v, struct upstream_tls *p)
{
    hash_n(v, (uint64_t)p->mode << 2 | (uint64_t)p->insecure << 1 | p->system_ca);
    hash_text(v, &p->sni);
    strings_visit(v, &p->sans, p->sans_n);
    p->cert = (struct secret_ref){0};
    p->ca = NULL;
    p->ca_n = 0;
}

static void rest_visit(struct visit *v, struct cluster_policy *p)
{
    const uint64_t n[] = {p->adaptive.on, p->adaptive.min, p->adaptive.max, p->adaptive.interval_ms, p->adaptive.buffer_pct, p->shed.at_pct, p->hedge.delay_ms, p->hedge.max,
                          p->session.given, p->session.header, p->session.ttl_s};
    hash_n(v, hash_bytes(n, sizeof n));
    hash_text(v, &p->shed.header);
    strings_visit(v, &p->shed.levels, p->shed.levels_n);
    hash_text(v, &p->session.name);
    hash_text(v, &p->session.path);
}

static const struct cluster_policy *policy_keep(struct compile *c, const struct cluster_policy *from, const char *host, uint64_t *hash)
{
    struct visit v = {.k = &c->keep};
    struct cluster_policy *p = keep_new(&c->keep, sizeof *p);
    *p = *from;
    p->tls.ctx = NULL;
    if (p->tls.mode == TLS_SIMPLE || p->tls.mode == TLS_MUTUAL) {
        uint64_t made = 0;
        p->tls.ctx = tls_upstream(c, &from->tls, p->pool.http, host, &made);
        hash_n(&v, made);
    }
    lb_visit(&v, &p->lb);
    pool_visit(&v, &p->pool);
    outlier_visit(&v, &p->outlier);
    health_visit(&v, &p->health);
    tls_visit(&v, &p->tls);
    rest_visit(&v, p);
    *hash = v.h;
    return p;
}

/* Where nobody says anything: two policies for the whole plan, one for ports that speak HTTP/2. */
static const struct cluster_policy *policy_plain(struct compile *c, bool h2, uint64_t *hash)
{
    const struct cluster_policy **kept = h2 ? &c->policy_none_h2_kept : &c->policy_none_kept;
    uint64_t *kept_hash = h2 ? &c->policy_none_h2_hash : &c->policy_none_hash;
    if (!*kept) {
        struct cluster_policy p = c->policy_none;
        p.pool.http = h2 ? UPSTREAM_HTTP2 : p.pool.http;
        *kept = policy_keep(c, &p, "", kept_hash);
    }
    *hash = *kept_hash;
    return *kept;
}

const struct cluster_policy *policy_of(struct compile *c, const struct target *t, const struct service_port *sp, const char *subset, uint64_t *hash)
{
    const struct cluster_policy *dest = dest_policy(t, sp, subset);
    const struct object *tls = backend_tls_find(t, sp);
    if (!dest && !tls && !t->backend_policies)
        return policy_plain(c, port_is_h2(sp), hash);
    struct cluster_policy p = dest ? *dest : c->policy_none;
    if (tls)
        backend_tls_merge(&p, &tls->backend_tls);
    for (size_t i = t->backend_policies ? t->backend_policies->n : 0; i > 0; i--)
        backend_policy_merge(&p, &t->backend_policies->items[i - 1]->backend, &c->policy_none);
    if (p.pool.http == UPSTREAM_HTTP1 && port_is_h2(sp))
        p.pool.http = UPSTREAM_HTTP2;
    if (t->o->kind == OBJ_SERVICEENTRY && p.tls.mode != TLS_OFF && !p.tls.sans_n) { /* ServiceEntry.subjectAltNames */
        p.tls.sans = t->o->entry.sans;
        p.tls.sans_n = t->o->entry.sans_n;
    }
    return policy_keep(c, &p, t->host, hash);
}
