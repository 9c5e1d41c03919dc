/* health.c - active checks: who makes them, when, and what follows from them.
 *
 *     WAIT --timer--> [QUEUED] --> SOCKET (a replica's namespace) --> ASKED --verdict or timeout--> WAIT
 *
 * Owners. An endpoint is in the share of worker id % workers. That worker writes itself into endpoint_health.checker and is the only
 * one that writes the other fields of checks. A worker that finds in its sweep that an endpoint has had no check for much
 * longer than it should takes it over; the one before sees that at its next timer and lets go.
 *
 * A checker holds no pointer into a plan: at each check it reads the policy of its cluster as the newest plan has it, and what a
 * check needs is copied by http_check. So a plan may come at any moment, and a check under way ends as it was asked.
 */
#include "http_check.h"
#include "prom.h"
#include "proxy_int.h"
#include "proxy_protocol.h"

#include <stdio.h>

enum checker_state { CHECKER_WAIT, CHECKER_QUEUED, CHECKER_SOCKET, CHECKER_ASKED };

struct checker {
    struct proxy *p;
    struct endpoint *ep;
    struct endpoint_health *health; /* one reference: it outlives the plan that named the endpoint */
    struct timer timer;
    struct list link;               /* QUEUED: in health.queue */
    struct http_check *check;       /* ASKED */
    uint64_t began_ms;              /* of this check, or of the last one */
    uint8_t state;                  /* enum checker_state */
    struct tls_session_slot sessions;
};

enum { CHECK_OK, CHECK_FAILED, CHECK_LATE }; /* places in endpoint_health.checks */

static void checker_timer(struct timer *t);
static void checker_begin(struct checker *k);

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

enum health_turn health_judge(struct endpoint_health *h, const struct health_policy *policy, bool ok)
{
    bool unchecked = __atomic_load_n(&h->unchecked, __ATOMIC_RELAXED), unhealthy = __atomic_load_n(&h->unhealthy, __ATOMIC_RELAXED);
    uint32_t oks = ok ? MIN(h->checks_ok + 1, UINT32_MAX - 1) : 0, failed = ok ? 0 : MIN(h->checks_failed + 1, UINT32_MAX - 1);
    __atomic_store_n(&h->checks_ok, oks, __ATOMIC_RELAXED);
    __atomic_store_n(&h->checks_failed, failed, __ATOMIC_RELAXED);
    if (!ok && !unhealthy && failed >= MAX(policy->unhealthy, 1u)) {
        __atomic_store_n(&h->unhealthy, 1, __ATOMIC_RELEASE); /* before the next: it is never up in between */
        __atomic_store_n(&h->unchecked, 0, __ATOMIC_RELEASE);
        return HEALTH_FAILS;
    }
    if (ok && unchecked) { /* one good answer is enough at the beginning */
        __atomic_store_n(&h->unchecked, 0, __ATOMIC_RELAXED);
        return HEALTH_PROVEN;
    }
    if (ok && unhealthy && oks >= MAX(policy->healthy, 1u)) {
        __atomic_store_n(&h->unhealthy, 0, __ATOMIC_RELAXED);
        return HEALTH_RECOVERS;
    }
    return HEALTH_STAYS;
}

uint64_t health_pause_ms(const struct health_policy *policy, uint64_t took_ms, uint64_t random)
{
    uint64_t interval = policy->interval_ms - random % (policy->interval_ms / 10 + 1);
    return interval > took_ms + HEALTH_PAUSE_MS ? interval - took_ms : HEALTH_PAUSE_MS;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static const struct health_policy *policy_of(const struct checker *k) { return &k->ep->us->c->policy->health; }

static void pump(struct task *t)
{
    struct proxy *p = CONTAINER_OF(t, struct proxy, health.pump);
    while (!list_empty(&p->health.queue) && p->health.running < HEALTH_RUNNING_MAX) {
        struct checker *k = CONTAINER_OF(p->health.queue.next, struct checker, link);
        list_del(&k->link);
        checker_begin(k);
    }
}

/* A check is no longer under way: others may begin, but not before a change of plan that is going on is complete. */
static void running_less(struct proxy *p)
{
    p->health.running--;
    if (!list_empty(&p->health.queue))
        loop_defer(p->loop, &p->health.pump);
}

void health_init(struct proxy *p)
{
    list_init(&p->health.queue);
    task_init(&p->health.pump, pump);
}

static void checker_new(struct proxy *p, struct endpoint *ep, const struct plan_endpoint *pe)
{
    struct checker *k = mem_new(MEM_CONN, sizeof *k);
    k->p = p;
    k->ep = ep;
    k->health = endpoint_health_ref(pe->health); /* what the policy that asks for checks gave it */
    timer_init(&k->timer, checker_timer);
    list_init(&k->link);
    ep->checker = k;
    ep->us->checkers++;
    timer_set(p->loop, &k->timer, loop_random(p->loop) % (MIN(policy_of(k)->interval_ms, (uint32_t)HEALTH_SPREAD_MS) + 1));
}

void health_forget(struct endpoint *ep)
{
    struct checker *k = ep->checker;
    if (!k)
        return;
    struct proxy *p = k->p;
    bool running = k->state == CHECKER_SOCKET || k->state == CHECKER_ASKED;
    ep->checker = NULL;
    ep->us->checkers--;
    timer_clear(&k->timer);
    list_del(&k->link);
    http_check_cancel(k->check);
    tls_session_slot_fini(&k->sessions); /* no connection has it any more, though that of a check which is over may stand until the end of the turn */
    endpoint_health_unref(k->health);
    mem_free(k);
    if (running)
        running_less(p);
}

/* The policy has no checks any more: what they found does not count. */
static void checker_retract(struct checker *k)
{
    struct endpoint_health *h = k->health;
    __atomic_store_n(&h->unhealthy, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&h->unchecked, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&h->checks_ok, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&h->checks_failed, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&h->checked_ms, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&h->checker, 0, __ATOMIC_RELEASE);
    health_forget(k->ep);
}

static bool checker_owns(const struct checker *k) { return __atomic_load_n(&k->health->checker, __ATOMIC_ACQUIRE) == k->p->conf.worker + 1; }

/* ---- a check -------------------------------------------------------------------------------------------------------------- */

static void checker_wait(struct checker *k)
{
    k->state = CHECKER_WAIT;
    timer_set(k->p->loop, &k->timer, health_pause_ms(policy_of(k), loop_now_ms(k->p->loop) - k->began_ms, loop_random(k->p->loop)));
}

static void told(const struct checker *k, enum health_turn turn, const char *text)
{
    const char *cluster = k->ep->us->record->name, *ep = k->ep->name;
    if (turn == HEALTH_FAILS)
        log_warn("proxy", "%s: endpoint %s fails its health checks: %s", cluster, ep, text);
    else if (turn == HEALTH_RECOVERS)
        log_info("proxy", "%s: endpoint %s passes its health checks again", cluster, ep);
    else if (turn == HEALTH_PROVEN)
        log_debug("proxy", "%s: endpoint %s passes its health checks", cluster, ep);
}

static void checker_result(struct checker *k, int how, const char *text)
{
    struct proxy *p = k->p;
    k->check = NULL;
    if (checker_owns(k)) {
        __atomic_fetch_add(&k->health->checks[how], 1, __ATOMIC_RELAXED);
        __atomic_store_n(&k->health->checked_ms, loop_now_ms(p->loop), __ATOMIC_RELAXED);
        told(k, health_judge(k->health, policy_of(k), how == CHECK_OK), text);
    }
    checker_wait(k);
    running_less(p);
}

static void on_checked(void *owner, bool ok, const char *text) { checker_result(owner, ok ? CHECK_OK : CHECK_FAILED, text); }

/* The Host field: the policy's, else the name under which clients know the service. */
static void authority_put(const struct checker *k, struct buf *out)
{
    const struct plan_cluster *pc = k->ep->us->c->pc;
    const struct cluster_policy *policy = k->ep->us->c->policy;
    if (policy->health.host || pc->authority) {
        buf_adds(out, policy->health.host ? policy->health.host : pc->authority);
        return;
    }
    buf_adds(out, pc->host);
    if (pc->port != (policy->tls.ctx ? 443 : 80))
        buf_printf(out, ":%u", pc->port);
}

/* fd: a socket in the replica's namespace, or -1. */
static void checker_ask(struct checker *k, int fd)
{
    static const enum http_check_kind kinds[] = {[HEALTH_HTTP] = HTTP_CHECK_GET, [HEALTH_TCP] = HTTP_CHECK_CONNECT, [HEALTH_GRPC] = HTTP_CHECK_GRPC};
    const struct cluster_policy *policy = k->ep->us->c->policy;
    const struct health_policy *h = &policy->health;
    struct slice sni = slice_cstr(policy->tls.sni);
    struct http_tls tls = {policy->tls.ctx, {sni, policy->tls.sans_n || policy->tls.insecure ? SLICE("") : sni}, &k->sessions};
    struct addr to = k->ep->address;
    struct buf authority = {0};
    char ahead[PP_V2_BYTES_MAX];
    struct pp_header pp = {.version = policy->pool.proxy_protocol, .local = true};
    bool h2 = policy->pool.http == UPSTREAM_HTTP2, remote = k->ep->remote != NULL;
    authority_put(k, &authority);
    if (h->port && !remote && to.family != ADDR_UNIX)
        to.port = h->port;
    struct http_check_conf conf = {
        .kind = kinds[h->kind], .path = slice_cstr(h->path), .authority = buf_slice(&authority), .agent = SLICE("weir-health-check"), .status_min = h->status_min,
        .status_max = h->status_max, .service = slice_cstr(h->grpc_service), .tls = policy->tls.ctx ? &tls : NULL,
        .version = h2 ? HTTP_2 : policy->tls.ctx && policy->pool.http == UPSTREAM_AUTO ? HTTP_UNKNOWN : HTTP_1};
    if (remote) { /* its node passes the question on; what is no HTTP, and what is for another port than the service's, ends at the gate */
        tls = remote_tls(k->ep, k->ep->remote->http, &k->sessions);
        conf.tls = &tls;
        conf.version = HTTP_2;
        conf.kind = h->port ? HTTP_CHECK_CONNECT : conf.kind;
    } else if (pp.version)
        conf.ahead = slice_of(ahead, pp.version == 1 ? pp_write_v1(&pp, ahead) : pp_write_v2(&pp, ahead, sizeof ahead));
    k->state = CHECKER_ASKED;
    timer_set(k->p->loop, &k->timer, h->timeout_ms);
    k->check = http_check_start(k->p->loop, fd, &to, &conf, on_checked, k);
    buf_free(&authority);
}

/* What wants TLS is never asked in clear (README). A socket that sup does not give says nothing about the endpoint. */
static void checker_socket(struct checker *k)
{
    const struct cluster_policy *policy = k->ep->us->c->policy;
    int fd = -1;
    if ((policy->tls.mode == TLS_SIMPLE || policy->tls.mode == TLS_MUTUAL) && !policy->tls.ctx) {
        checker_result(k, CHECK_FAILED, "it wants TLS, and what the policy names for that can't be used");
        return;
    }
    if (k->ep->inside) {
        fd = socket_spare(k->p, k->ep);
        if (fd < 0 && loop_now_ms(k->p->loop) - k->began_ms >= policy->health.timeout_ms) {
            counter_inc(&k->p->c.checks_unmade);
            checker_wait(k);
            running_less(k->p);
            return;
        }
        if (fd < 0) {
            timer_set(k->p->loop, &k->timer, HEALTH_SOCKET_MS);
            return;
        }
    }
    checker_ask(k, fd);
}

static void checker_begin(struct checker *k)
{
    struct proxy *p = k->p;
    if (!checker_owns(k)) { /* another worker took it over */
        health_forget(k->ep);
        return;
    }
    __atomic_store_n(&k->health->checked_ms, loop_now_ms(p->loop), __ATOMIC_RELAXED);
    if (p->health.running >= HEALTH_RUNNING_MAX) {
        counter_inc(&p->c.checks_queued);
        k->state = CHECKER_QUEUED;
        list_push(&p->health.queue, &k->link);
        return;
    }
    p->health.running++;
    k->began_ms = loop_now_ms(p->loop);
    k->state = CHECKER_SOCKET;
    checker_socket(k);
}

static void checker_timer(struct timer *t)
{
    struct checker *k = CONTAINER_OF(t, struct checker, timer);
    char text[48];
    switch ((enum checker_state)k->state) {
    case CHECKER_WAIT: checker_begin(k); return;
    case CHECKER_SOCKET: checker_socket(k); return;
    case CHECKER_ASKED:
        http_check_cancel(k->check);
        (void)snprintf(text, sizeof text, "no answer within %u ms", policy_of(k)->timeout_ms);
        checker_result(k, CHECK_LATE, text);
        return;
    case CHECKER_QUEUED: break;
    }
    MUST(false && "a checker in the queue has no timer");
}

/* ---- shares ---------------------------------------------------------------------------------------------------------------- */

static bool claim(struct proxy *p, struct endpoint_health *h, uint32_t from)
{
    return __atomic_compare_exchange_n(&h->checker, &from, p->conf.worker + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* A worker that is restarted, or whose share changed, finds itself there already. */
static bool in_share(struct proxy *p, const struct plan_endpoint *pe)
{
    uint32_t now = __atomic_load_n(&pe->health->checker, __ATOMIC_ACQUIRE);
    return now == p->conf.worker + 1 || (now == 0 && pe->id % p->conf.workers == p->conf.worker && claim(p, pe->health, 0));
}

static void cluster_plan(struct proxy *p, const struct plan_cluster *pc, struct upstream *us)
{
    bool checks = pc->policy->health.kind != HEALTH_NONE;
    if (checks)
        p->health.clusters_n++;
    else if (!us || us->checkers == 0)
        return;
    for (uint32_t i = 0; i < pc->eps_n; i++) {
        struct endpoint *ep = p->eps[pc->eps[i].slot];
        struct checker *k = ep->checker;
        if (!checks && k)
            checker_retract(k);
        else if (checks && !k && in_share(p, &pc->eps[i]))
            checker_new(p, ep, &pc->eps[i]);
        else if (checks && k && k->state == CHECKER_WAIT && k->timer.due_ms > loop_now_ms(p->loop) + pc->policy->health.interval_ms)
            checker_wait(k); /* the interval is shorter now */
    }
}

void health_plan(struct proxy *p, const struct plan *plan)
{
    p->health.clusters_n = 0;
    for (uint32_t i = 0; i < plan->clusters_n; i++)
        cluster_plan(p, &plan->clusters[i], p->upstreams[plan->clusters[i].slot]);
}

static void endpoint_sweep(struct proxy *p, const struct plan_endpoint *pe, const struct health_policy *policy)
{
    uint64_t now = loop_now_ms(p->loop), seen = MAX(__atomic_load_n(&pe->health->checked_ms, __ATOMIC_RELAXED), pe->since_ms);
    uint32_t owner = __atomic_load_n(&pe->health->checker, __ATOMIC_ACQUIRE);
    uint64_t limit = 2 * (uint64_t)policy->interval_ms + policy->timeout_ms + HEALTH_SLACK_MS;
    if (now < seen + limit || owner == p->conf.worker + 1 || !claim(p, pe->health, owner))
        return;
    __atomic_store_n(&pe->health->checked_ms, now, __ATOMIC_RELAXED); /* so that nobody takes it from us before our first check */
    counter_inc(&p->c.checks_taken);
    checker_new(p, p->eps[pe->slot], pe);
}

void health_sweep(struct proxy *p)
{
    const struct plan *plan = p->hold->plan;
    for (uint32_t i = 0; i < plan->clusters_n; i++) {
        const struct plan_cluster *pc = &plan->clusters[i];
        for (uint32_t k = 0; pc->policy->health.kind != HEALTH_NONE && k < pc->eps_n; k++)
            if (!p->eps[pc->eps[k].slot]->checker)
                endpoint_sweep(p, &pc->eps[k], &pc->policy->health);
    }
}

/* ---- /metrics ---------------------------------------------------------------------------------------------------------------- */

static void endpoint_labels(const struct plan_cluster *pc, const struct plan_endpoint *pe, struct buf *name, struct prom_label l[3])
{
    buf_clear(name);
    buf_printf(name, "%s/%s:%u%s%s", pc->ns, pc->service, pc->port, pc->subset ? "/" : "", pc->subset ? pc->subset : "");
    l[0] = (struct prom_label){"cluster", buf_slice(name)};
    l[1] = (struct prom_label){"endpoint", slice_cstr(pe->name)};
}

static void state_metric(const struct plan_cluster *pc, const struct plan_endpoint *pe, struct buf *name, struct buf *out)
{
    struct prom_label l[3];
    bool well = !__atomic_load_n(&pe->health->unhealthy, __ATOMIC_RELAXED) && !__atomic_load_n(&pe->health->unchecked, __ATOMIC_RELAXED);
    endpoint_labels(pc, pe, name, l);
    prom_u64(out, "weir_endpoint_healthy", "", l, 2, well);
}

static void checks_metric(const struct plan_cluster *pc, const struct plan_endpoint *pe, struct buf *name, struct buf *out)
{
    static const char *const results[] = {[CHECK_OK] = "success", [CHECK_FAILED] = "failure", [CHECK_LATE] = "timeout"};
    struct prom_label l[3];
    endpoint_labels(pc, pe, name, l);
    for (int i = 0; i < (int)COUNT_OF(results); i++) {
        l[2] = (struct prom_label){"result", slice_cstr(results[i])};
        prom_u64(out, "weir_health_checks_total", "", l, 3, __atomic_load_n(&pe->health->checks[i], __ATOMIC_RELAXED));
    }
}

static void checked_each(const struct plan *plan, struct buf *out, void (*each)(const struct plan_cluster *, const struct plan_endpoint *, struct buf *, struct buf *))
{
    struct buf name = {0};
    for (uint32_t i = 0; i < plan->clusters_n; i++)
        for (uint32_t k = 0; plan->clusters[i].policy->health.kind != HEALTH_NONE && k < plan->clusters[i].eps_n; k++)
            each(&plan->clusters[i], &plan->clusters[i].eps[k], &name, out);
    buf_free(&name);
}

void proxy_health_metrics(const struct plan *plan, struct buf *out)
{
    prom_family(out, "weir_endpoint_healthy", PROM_GAUGE, "1: the endpoint passes its active checks; 0: it fails them, or has not answered one yet.");
    checked_each(plan, out, state_metric);
    prom_family(out, "weir_health_checks_total", PROM_COUNTER, "Active checks of endpoints, by result.");
    checked_each(plan, out, checks_metric);
}
