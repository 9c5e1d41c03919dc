/* cluster.c - a cluster's life in one worker: synchronised with each plan, refreshed while it serves, dropped.
 *
 * Sync. A plan that changes nothing about a cluster (equal policy_hash) costs a comparison. Otherwise its tables are made anew in an
 * arena of their own. A cluster of equals whose endpoints can be neither ejected nor unhealthy, which is most clusters, needs
 * only the array of its endpoints; members, states and groups exist where a policy asks for them.
 *
 * Refresh. What changes without a plan is who is up and, in a slow start, who weighs what. Both are read again every few
 * milliseconds of a cluster that is in use (REFRESH_*), before a choice: the states of all members are compared, and only when one
 * differs are the groups' live lists built again. Each choice looks once more at the one endpoint that it chose, so an endpoint
 * ejected by another worker is avoided at once, not after the period.
 *
 * Locality. Groups are either priorities (the nearer the better; what a group can't carry spills over into the next one, with
 * Envoy's overprovisioning of 1.4) or shares (localityLbSetting.distribute). Within a group the policy's algorithm chooses.
 */
#include "cluster.h"

#include <math.h>

#define REFRESH_MIN_MS 1          /* between two refreshes of a cluster with few members */
#define REFRESH_HOSTS_PER_MS 64   /* more members: seldomer, so that refreshing costs less than 1 % of a core */
#define RAMP_MS 10                /* the same where only weights change */
#define ARENA_PLAIN_BYTES 64
#define ARENA_RICH_BYTES 4096
#define OVERPROVISION_PCT 140
#define PRIORITIES 5              /* same subzone, zone, region; the region that failover names; elsewhere */
#define SHARE_MAX 10000u
#define NO_GROUP UINT32_MAX

static const struct cluster_policy policy_off = {.lb = {.kind = LB_LEAST_REQUEST}};

/* ---- life ----------------------------------------------------------------------------------------------------------- */

struct cluster *cluster_new(const struct cluster_ops *ops, void *ctx, uint64_t seed)
{
    static const struct cluster_ops nothing;
    struct cluster *c = mem_new(MEM_PLAN, sizeof *c);
    c->ops = ops ? ops : &nothing;
    c->ctx = ctx;
    c->seed = seed;
    c->policy = &policy_off;
    c->groups = &c->whole;
    c->groups_n = 1;
    c->refresh_at_ms = UINT64_MAX;
    c->count = mem_new(MEM_PLAN, sizeof *c->count);
    c->count_owned = true;
    arena_init(&c->mem, MEM_PLAN, ARENA_PLAIN_BYTES);
    return c;
}

void cluster_count_in(struct cluster *c, struct cluster_counters *count)
{
    if (c->count_owned)
        mem_free(c->count);
    c->count = count;
    c->count_owned = false;
}

static void cluster_free(struct cluster *c)
{
    if (c->count_owned)
        mem_free(c->count);
    mem_free(c);
}

/* No endpoints, no tables. Counters and what is in flight stay. */
static void tables_clear(struct cluster *c)
{
    arena_fini(&c->mem);
    c->whole = (struct lb_group){.equal = true};
    c->groups = &c->whole;
    c->groups_n = 1;
    c->members = NULL;
    c->keys = NULL;
    c->members_n = c->hosts_n = c->load_sum = 0;
    c->plain = c->checked = c->by_priority = false;
    c->ramp_until_ms = 0;
    c->refresh_at_ms = UINT64_MAX;
}

void cluster_drop(struct cluster *c)
{
    if (!c)
        return;
    MUST(!c->dropped);
    uint32_t *counts[BREAKER_COUNT] = {0};
    if (c->shared) {
        counts[BREAKER_CONNECTIONS] = &c->shared->connections;
        counts[BREAKER_PENDING] = &c->shared->pending;
        counts[BREAKER_REQUESTS] = &c->shared->requests;
        counts[BREAKER_RETRIES] = &c->shared->retries;
        counts[BREAKER_STARVED] = &c->shared->starved;
    }
    for (int b = 0; b < BREAKER_COUNT; b++) {
        if (c->held[b])
            __atomic_fetch_sub(counts[b], c->held[b], __ATOMIC_RELAXED);
        c->held[b] = 0;
    }
    tables_clear(c);
    c->dropped = true;
    c->shared = NULL;
    c->pc = NULL;
    c->policy = &policy_off;
    c->counted = 0;
    c->adaptive = c->outlier = c->sweeps = false;
    if (c->uses == 0)
        cluster_free(c);
}

void cluster_release(struct cluster *c)
{
    MUST(c->uses > 0);
    if (--c->uses == 0 && c->dropped)
        cluster_free(c);
}

/* ---- locality ---------------------------------------------------------------------------------------------------------- */

/* How many leading parts of region/zone/subzone are equal: 0 to 3. */
static uint32_t locality_common(const char *a, const char *b)
{
    struct slice x = slice_cstr(a), y = slice_cstr(b);
    uint32_t n = 0;
    while (n < 3 && slice_eq(slice_cut(x, '/', &x), slice_cut(y, '/', &y)))
        n++;
    return n;
}

/* "region/zone/ *" and "region/zone" cover all subzones, "*" covers everything. */
static bool locality_covers(const char *pattern, const char *locality)
{
    struct slice p = slice_cstr(pattern), l = slice_cstr(locality);
    while (p.n) {
        struct slice part = slice_cut(p, '/', &p);
        if (slice_is(part, "*"))
            return true;
        if (!slice_eq(part, slice_cut(l, '/', &l)))
            return false;
    }
    return true;
}

static uint32_t locality_priority(const struct lb_policy *lb, const char *here, const char *there)
{
    uint32_t common = locality_common(here, there);
    if (common > 0)
        return 3 - common;
    struct slice rest, from = slice_cut(slice_cstr(here), '/', &rest), to = slice_cut(slice_cstr(there), '/', &rest);
    for (size_t i = 0; i < lb->failover_n; i++)
        if (slice_is(from, lb->failover[i].from))
            return slice_is(to, lb->failover[i].to) ? 3 : 4;
    return 3;
}

/* The first entry of distribute that speaks of this node; NULL: none. */
static const struct locality_weight *distribute_from(const struct lb_policy *lb, const char *here)
{
    for (size_t i = 0; !lb->locality_off && i < lb->distribute_n; i++)
        if (locality_covers(lb->distribute[i].from, here))
            return &lb->distribute[i];
    return NULL;
}

/* Priorities need to know who is up, as in Istio, or a failover that says so. */
static bool priorities_wanted(const struct cluster *c, const char *here)
{
    const struct lb_policy *lb = &c->policy->lb;
    return !lb->locality_off && lb->distribute_n == 0 && here && *here && (c->checked || lb->failover_n);
}

/* Gives each member its group: one for each entry of distribute with the same from. Those that no entry covers have none. */
static uint32_t groups_by_share(struct cluster *c, const struct locality_weight *first)
{
    const struct lb_policy *lb = &c->policy->lb;
    uint32_t n = 0;
    for (uint32_t k = 0; k < c->members_n; k++)
        c->members[k].group = NO_GROUP;
    for (const struct locality_weight *w = first; w < lb->distribute + lb->distribute_n; w++) {
        if (strcmp(w->from, first->from) != 0)
            continue;
        for (uint32_t k = 0; k < c->members_n; k++)
            if (c->members[k].group == NO_GROUP && locality_covers(w->to, c->pc->eps[k].locality))
                c->members[k].group = n;
        n++;
    }
    return n;
}

static uint32_t groups_by_priority(struct cluster *c, const char *here)
{
    uint32_t n = 0, number[PRIORITIES], used[PRIORITIES] = {0};
    for (uint32_t k = 0; k < c->members_n; k++) {
        c->members[k].group = locality_priority(&c->policy->lb, here, c->pc->eps[k].locality);
        used[c->members[k].group]++;
    }
    for (uint32_t i = 0; i < PRIORITIES; i++)
        number[i] = used[i] ? n++ : NO_GROUP;
    for (uint32_t k = 0; k < c->members_n; k++)
        c->members[k].group = number[c->members[k].group];
    return n;
}

/* Orders members by group, keeping the plan's order within each; drops those without one. */
static void members_order(struct cluster *c)
{
    struct lb_member *sorted = arena_alloc(&c->mem, c->members_n * sizeof *sorted);
    uint32_t at = 0;
    for (uint32_t i = 0; i < c->groups_n; i++) {
        c->groups[i].first = at;
        for (uint32_t k = 0; k < c->members_n; k++)
            if (c->members[k].group == i)
                sorted[at++] = c->members[k];
        c->groups[i].n = at - c->groups[i].first;
    }
    c->members = sorted;
    c->members_n = at;
}

static void groups_make(struct cluster *c, const char *here)
{
    const struct locality_weight *from = distribute_from(&c->policy->lb, here ? here : "");
    c->whole.n = c->members_n;
    uint32_t n = 1, covered = 0;
    if (from)
        n = groups_by_share(c, from);
    else if (priorities_wanted(c, here))
        n = groups_by_priority(c, here);
    for (uint32_t k = 0; k < c->members_n; k++)
        covered += c->members[k].group != NO_GROUP;
    if (covered == 0 || (n == 1 && covered == c->members_n)) {
        for (uint32_t k = 0; k < c->members_n; k++)
            c->members[k].group = 0;
        return;
    }
    c->groups = arena_zalloc(&c->mem, n * sizeof *c->groups);
    c->groups_n = n;
    c->by_priority = from == NULL;
    uint32_t i = 0;
    for (const struct locality_weight *w = from; w && w < c->policy->lb.distribute + c->policy->lb.distribute_n; w++)
        if (strcmp(w->from, from->from) == 0)
            c->groups[i++].share = MIN(w->weight, SHARE_MAX);
    members_order(c);
}

/* ---- weights -------------------------------------------------------------------------------------------------------------- */

static bool kind_hashes(uint8_t kind) { return kind == LB_RING_HASH || kind == LB_MAGLEV; }

/* Envoy's slow start: weight * max(min_pct, (seconds up / window) ^ (1 / aggression)). */
static uint32_t weight_effective(const struct lb_policy *lb, const struct lb_member *m, uint64_t now_ms)
{
    uint32_t full = m->weight * LB_WEIGHT_UNIT;
    uint64_t up_ms = now_ms > m->since_ms ? now_ms - m->since_ms : 0;
    if (lb->slow_start_ms == 0 || up_ms >= lb->slow_start_ms)
        return full;
    double aggression = lb->slow_start_aggression > 0 ? lb->slow_start_aggression : 1.0;
    double factor = (double)MAX(up_ms, 1000u) / (double)lb->slow_start_ms;
    factor = MIN(1.0, pow(factor, 1.0 / aggression));
    factor = MAX(factor, (double)MIN(lb->slow_start_min_pct, 100u) / 100.0);
    return MAX(1u, (uint32_t)((double)full * factor));
}

static void weights_read(struct cluster *c, uint64_t now_ms)
{
    for (uint32_t k = 0; k < c->members_n; k++)
        c->members[k].effective = weight_effective(&c->policy->lb, &c->members[k], now_ms);
    if (now_ms >= c->ramp_until_ms)
        c->ramp_until_ms = 0;
}

/* ---- states and loads ------------------------------------------------------------------------------------------------------- */

bool host_down(const struct lb_host *h, uint64_t now_ms)
{
    return __atomic_load_n(&h->health->ejected_until_ms, __ATOMIC_RELAXED) > now_ms || __atomic_load_n(&h->health->unhealthy, __ATOMIC_RELAXED) != 0;
}

static uint8_t member_state(struct cluster *c, const struct lb_member *m, uint64_t now_ms)
{
    uint64_t until = __atomic_load_n(&m->host->health->ejected_until_ms, __ATOMIC_RELAXED);
    if (UNLIKELY(until != 0 && until <= now_ms))
        outlier_expire(c, m->host, now_ms);
    if (host_down(m->host, now_ms))
        return LB_DOWN;
    return __atomic_load_n(&m->host->health->unchecked, __ATOMIC_RELAXED) ? LB_UNCHECKED : LB_UP;
}

/* Reads who is up; true when anything changed. While nobody has passed a check, those that none has asked yet count as up. */
static bool states_read(struct cluster *c, uint64_t now_ms)
{
    bool changed = false;
    uint32_t up = 0;
    for (uint32_t k = 0; k < c->members_n; k++) {
        struct lb_member *m = &c->members[k];
        uint8_t state = c->checked ? member_state(c, m, now_ms) : LB_UP;
        changed |= state != m->state;
        m->state = state;
        up += state == LB_UP;
    }
    for (uint32_t k = 0; up == 0 && k < c->members_n; k++)
        if (c->members[k].state == LB_UNCHECKED)
            c->members[k].state = LB_UP;
    return changed;
}

static void states_count(struct cluster *c, uint64_t now_ms)
{
    uint32_t up = 0, ejected = 0;
    for (uint32_t i = 0; i < c->groups_n; i++) {
        struct lb_group *g = &c->groups[i];
        g->up_n = 0;
        for (uint32_t k = g->first; k < g->first + g->n; k++) {
            g->up_n += c->members[k].state == LB_UP;
            ejected += c->outlier && __atomic_load_n(&c->members[k].host->health->ejected_until_ms, __ATOMIC_RELAXED) > now_ms;
        }
        up += g->up_n;
    }
    counter_set(&c->count->hosts_up, up);
    counter_set(&c->count->hosts_ejected, ejected);
}

/* Percent of a group's share that its healthy members carry: Envoy's health score. */
static uint32_t group_score(const struct lb_group *g)
{
    return g->n ? MIN(100u, (uint32_t)((uint64_t)OVERPROVISION_PCT * g->up_n / g->n)) : 0;
}

static bool group_panics(const struct cluster *c, const struct lb_group *g)
{
    return (uint64_t)g->up_n * 100 < (uint64_t)c->policy->lb.panic_pct * g->n;
}

/* One group, or shares: what its healthy part can carry. Panic looks at the cluster as a whole. */
static void loads_by_share(struct cluster *c)
{
    uint64_t up = 0;
    for (uint32_t i = 0; i < c->groups_n; i++)
        up += c->groups[i].up_n;
    bool panic = up * 100 < (uint64_t)c->policy->lb.panic_pct * c->members_n;
    for (uint32_t i = 0; i < c->groups_n; i++) {
        struct lb_group *g = &c->groups[i];
        uint32_t share = c->groups_n == 1 ? 100 : g->share;
        g->panic = panic;
        g->load = panic ? (g->n ? share * 100 : 0) : share * group_score(g);
    }
}

/* Envoy's priority levels: each takes what its score allows of what the better ones left over; when all together can't carry
 * everything, scores are scaled up to it. */
static void loads_by_priority(struct cluster *c)
{
    uint32_t total = 0, left = 100, panics = 0;
    for (uint32_t i = 0; i < c->groups_n; i++)
        total += group_score(&c->groups[i]);
    total = MIN(total, 100u);
    for (uint32_t i = 0; i < c->groups_n; i++) {
        struct lb_group *g = &c->groups[i];
        g->load = total ? MIN(left, (group_score(g) * 100 + total - 1) / total) : 0;
        g->panic = total < 100 && group_panics(c, g);
        left -= g->load;
        panics += g->panic;
    }
    for (uint32_t i = 0; panics == c->groups_n && i < c->groups_n; i++)
        c->groups[i].load = c->groups[i].n;
}

/* ---- the live lists ---------------------------------------------------------------------------------------------------------- */

static void group_live(struct cluster *c, struct lb_group *g)
{
    uint32_t n = 0;
    g->weight_sum = g->weight_max = 0;
    g->equal = true;
    for (uint32_t k = g->first; k < g->first + g->n; k++) {
        const struct lb_member *m = &c->members[k];
        if (!g->panic && m->state != LB_UP)
            continue;
        g->live[n] = m->host;
        g->member[n] = k;
        g->weights[n] = kind_hashes(c->kind) ? m->weight * LB_WEIGHT_UNIT : m->effective;
        g->weight_max = MAX(g->weight_max, g->weights[n]);
        g->weight_sum += g->weights[n];
        g->equal &= g->weights[n] == g->weights[0];
        n++;
    }
    for (uint32_t k = 0; k < n; k++) { /* the heaviest may have gone: nobody is owed more than one turn */
        struct lb_member *m = &c->members[g->member[k]];
        m->deficit = MIN(m->deficit, g->weight_max - 1);
    }
    g->live_n = n;
    g->turn = n ? g->turn % n : 0;
    if (!g->equal && c->kind != LB_ROUND_ROBIN && !kind_hashes(c->kind))
        alias_build(g);
}

static uint64_t refresh_period(const struct cluster *c)
{
    uint64_t by_size = REFRESH_MIN_MS + c->members_n / REFRESH_HOSTS_PER_MS;
    return c->checked ? by_size : MAX(by_size, (uint64_t)RAMP_MS);
}

static void groups_refresh(struct cluster *c, uint64_t now_ms)
{
    states_count(c, now_ms);
    if (c->by_priority)
        loads_by_priority(c);
    else
        loads_by_share(c);
    c->load_sum = 0;
    for (uint32_t i = 0; i < c->groups_n; i++) {
        group_live(c, &c->groups[i]);
        if (c->groups[i].live_n == 0)
            c->groups[i].load = 0;
        c->load_sum += c->groups[i].load;
    }
    c->plain = c->kind == LB_LEAST_REQUEST && c->groups_n == 1 && c->groups[0].equal && !c->checked;
}

void cluster_refresh(struct cluster *c, uint64_t now_ms)
{
    if (!c->members)
        return;
    bool ramping = c->ramp_until_ms != 0;
    if (ramping)
        weights_read(c, now_ms);
    if (states_read(c, now_ms) || ramping)
        groups_refresh(c, now_ms);
    c->refresh_at_ms = c->checked || c->ramp_until_ms ? now_ms + refresh_period(c) : UINT64_MAX;
}

/* ---- sync ------------------------------------------------------------------------------------------------------------------------ */

static uint8_t policy_counts(const struct cluster_policy *p)
{
    bool budget = p->pool.retry_budget;
    return (uint8_t)((p->pool.connections_max ? 1u << BREAKER_CONNECTIONS | 1u << BREAKER_STARVED : 0) | (p->pool.pending_max ? 1u << BREAKER_PENDING : 0) |
                     (p->pool.requests_max || budget || p->adaptive.on ? 1u << BREAKER_REQUESTS : 0) |
                     (p->pool.retries_max || budget ? 1u << BREAKER_RETRIES : 0));
}

static void policy_take(struct cluster *c)
{
    const struct cluster_policy *p = c->policy;
    c->kind = (uint8_t)p->lb.kind;
    if (c->kind == LB_MAGLEV && c->hosts_n > MAGLEV_HOSTS_MAX)
        c->kind = LB_RING_HASH;
    c->outlier = p->outlier.on;
    c->adaptive = p->adaptive.on;
    c->checked = c->outlier || p->health.kind != HEALTH_NONE;
    c->sweeps = c->outlier;
    c->counted = policy_counts(p);
}

/* Whether anything is to be known of single members. */
static bool members_needed(const struct cluster *c, const char *here)
{
    const struct plan_cluster *pc = c->pc;
    if (pc->eps_n == 0)
        return false;
    if (c->checked || kind_hashes(c->kind) || c->policy->lb.slow_start_ms || priorities_wanted(c, here) || distribute_from(&c->policy->lb, here ? here : ""))
        return true;
    for (uint32_t i = 1; i < pc->eps_n; i++)
        if (pc->eps[i].weight != pc->eps[0].weight)
            return true;
    return false;
}

static struct lb_host *host_take(const struct plan_endpoint *pe, struct lb_host *h)
{
    MUST(h && pe->health);
    h->id = pe->id;
    h->health = pe->health;
    h->key = hash_key(slice_cstr(pe->name));
    return h;
}

static void members_make(struct cluster *c, struct lb_host *(*host_of)(void *ctx, const struct plan_endpoint *pe), void *host_ctx)
{
    const struct plan_cluster *pc = c->pc;
    c->members = arena_zalloc(&c->mem, pc->eps_n * sizeof *c->members);
    c->members_n = pc->eps_n;
    for (uint32_t i = 0; i < pc->eps_n; i++) {
        struct lb_member *m = &c->members[i];
        m->host = host_take(&pc->eps[i], host_of(host_ctx, &pc->eps[i]));
        m->since_ms = pc->eps[i].since_ms;
        m->weight = MAX(1u, MIN(pc->eps[i].weight, LB_WEIGHT_MAX));
        m->effective = m->weight * LB_WEIGHT_UNIT;
        if (c->policy->lb.slow_start_ms)
            c->ramp_until_ms = MAX(c->ramp_until_ms, m->since_ms + c->policy->lb.slow_start_ms);
    }
    if (kind_hashes(c->kind))
        c->ramp_until_ms = 0;
}

/* The phases at which members begin spread by the golden ratio, so that equal weights don't come due in the same round. */
static void deficits_spread(struct cluster *c, const struct lb_group *g)
{
    uint64_t max = 0;
    for (uint32_t k = g->first; k < g->first + g->n; k++)
        max = MAX(max, c->members[k].effective);
    for (uint32_t k = g->first; k < g->first + g->n; k++)
        c->members[k].deficit = (uint32_t)(max * (uint32_t)((k - g->first) * 2654435769u) >> 32);
}

static void group_tables(struct cluster *c, struct lb_group *g)
{
    const struct lb_policy *lb = &c->policy->lb;
    bool alias = !kind_hashes(c->kind) && c->kind != LB_ROUND_ROBIN;
    g->live = arena_alloc(&c->mem, g->n * sizeof *g->live);
    g->weights = arena_alloc(&c->mem, g->n * sizeof *g->weights);
    g->member = arena_alloc(&c->mem, g->n * sizeof *g->member);
    if (alias) {
        g->cut = arena_alloc(&c->mem, g->n * sizeof *g->cut);
        g->other = arena_alloc(&c->mem, g->n * sizeof *g->other);
        g->stack = arena_alloc(&c->mem, g->n * sizeof *g->stack);
        g->odds = arena_alloc(&c->mem, g->n * sizeof *g->odds);
    }
    g->turn = g->n ? (uint32_t)(c->seed % g->n) : 0;
    if (c->kind == LB_ROUND_ROBIN)
        deficits_spread(c, g);
    if (!kind_hashes(c->kind) || g->n == 0)
        return;
    counter_inc(&c->count->tables);
    if (c->kind == LB_MAGLEV)
        maglev_build(g, c->members, lb->maglev_size, &c->mem);
    else
        ring_build(g, c->members, lb->ring_size_min, &c->mem);
}

/* Endpoints of equal weight that are always up: nothing but the array. */
static void plain_make(struct cluster *c, struct lb_host *(*host_of)(void *ctx, const struct plan_endpoint *pe), void *host_ctx)
{
    struct lb_group *g = &c->whole;
    g->n = g->live_n = c->pc->eps_n;
    g->live = g->n ? arena_alloc(&c->mem, g->n * sizeof *g->live) : NULL;
    for (uint32_t i = 0; i < g->n; i++)
        g->live[i] = host_take(&c->pc->eps[i], host_of(host_ctx, &c->pc->eps[i]));
    g->weight_sum = g->n;
    g->turn = g->n ? (uint32_t)(c->seed % g->n) : 0;
    g->load = c->load_sum = g->n ? 1 : 0;
    c->plain = c->kind == LB_LEAST_REQUEST;
    counter_set(&c->count->hosts_up, g->n);
    counter_set(&c->count->hosts_ejected, 0);
}

void cluster_sync(struct cluster *c, const struct plan_cluster *pc, const char *locality, struct lb_host *(*host_of)(void *ctx, const struct plan_endpoint *pe),
                  void *host_ctx, uint64_t now_ms)
{
    MUST(!c->dropped && cluster_is(c, pc) && pc->shared && pc->policy);
    bool same = c->shared && c->policy_hash == pc->policy_hash;
    c->pc = pc;
    c->policy = pc->policy;
    c->shared = pc->shared;
    if (same)
        return;
    tables_clear(c);
    c->policy_hash = pc->policy_hash;
    c->hosts_n = pc->eps_n;
    policy_take(c);
    counter_set(&c->count->hosts, pc->eps_n);
    bool rich = members_needed(c, locality);
    arena_init(&c->mem, MEM_PLAN, rich ? ARENA_RICH_BYTES : MAX((size_t)ARENA_PLAIN_BYTES, pc->eps_n * sizeof(struct lb_host *)));
    if (!rich) {
        plain_make(c, host_of, host_ctx);
        return;
    }
    members_make(c, host_of, host_ctx);
    groups_make(c, locality);
    if (c->ramp_until_ms)
        weights_read(c, now_ms);
    for (uint32_t i = 0; i < c->groups_n; i++)
        group_tables(c, &c->groups[i]);
    states_read(c, now_ms);
    groups_refresh(c, now_ms);
    c->refresh_at_ms = c->checked || c->ramp_until_ms ? now_ms + refresh_period(c) : UINT64_MAX;
}

/* ---- questions ---------------------------------------------------------------------------------------------------------------------- */

enum lb_none cluster_none(const struct cluster *c, uint64_t now_ms)
{
    if (c->hosts_n == 0)
        return LB_NONE_EMPTY;
    for (uint32_t k = 0; k < c->members_n; k++)
        if (__atomic_load_n(&c->members[k].host->health->ejected_until_ms, __ATOMIC_RELAXED) <= now_ms)
            return LB_NONE_UNHEALTHY;
    return LB_NONE_EJECTED;
}

const char *lb_none_text(enum lb_none n)
{
    static const char *const texts[] = {
        [LB_NONE_EMPTY] = "the service has no ready endpoint",
        [LB_NONE_EJECTED] = "all endpoints of the service are ejected as outliers",
        [LB_NONE_UNHEALTHY] = "no endpoint of the service passes its health checks",
    };
    return texts[n];
}

bool cluster_in_panic(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->groups_n; i++)
        if (c->groups[i].panic && c->groups[i].load)
            return true;
    return false;
}

static struct lb_host *host_at(const struct cluster *c, uint32_t i)
{
    return c->members ? c->members[i].host : c->whole.live[i];
}

struct lb_host *cluster_find(struct cluster *c, uint64_t key, uint64_t now_ms)
{
    uint32_t n = c->members ? c->members_n : c->whole.live_n;
    if (!c->keys && n) {
        c->keys = arena_alloc(&c->mem, n * sizeof *c->keys);
        for (uint32_t i = 0; i < n; i++)
            c->keys[i] = host_at(c, i)->key;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (c->keys[i] != key)
            continue;
        struct lb_host *h = host_at(c, i);
        bool usable = h->shun_until_ms <= now_ms && (!c->checked || c->groups[c->members[i].group].panic || !host_down(h, now_ms));
        return usable ? h : NULL;
    }
    return NULL;
}
