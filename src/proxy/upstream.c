/* upstream.c - endpoints as one worker sees them: choosing one, connecting, pooling, leaving.
 *
 * An endpoint is made when a plan first names it and dies when no plan names it, nothing is in flight and no connection
 * points at it. Choice: two at random, the one with fewer requests in flight wins (power of two choices); endpoints that
 * just failed, or that this request has tried, are chosen only when there is nothing else.
 *
 * A replica inside its own network namespace is reached through sockets that were made there; they are kept in stock and
 * asked for in advance, so that a request seldom waits for one.
 */
#include "proxy_int.h"

/* ---- choice ------------------------------------------------------------------------------------------------------ */

static bool tried(const struct exchange *x, uint64_t id)
{
    for (uint32_t i = 0; i < TRIED_MAX && i < x->tries; i++)
        if (x->tried[i] == id)
            return true;
    return false;
}

/* Lower is better: requests in flight, behind whether it failed. */
static uint64_t endpoint_cost(const struct exchange *x, const struct endpoint *ep)
{
    uint64_t now = loop_now_ms(x->p->loop);
    uint64_t bad = (tried(x, ep->id) ? 2u : 0u) + (ep->shun_until_ms > now ? 1u : 0u);
    return bad << 32 | ep->in_flight;
}

static struct endpoint *endpoint_at(const struct exchange *x, uint32_t i)
{
    const struct plan_endpoint *pe = &x->cluster->eps[i];
    struct endpoint *ep = pe->slot < x->p->eps_n ? x->p->eps[pe->slot] : NULL;
    return ep && ep->id == pe->id ? ep : NULL;
}

struct endpoint *endpoint_pick(struct exchange *x)
{
    uint32_t n = x->cluster->eps_n;
    if (n == 0)
        return NULL;
    if (n == 1)
        return endpoint_at(x, 0);
    uint64_t r = loop_random(x->p->loop);
    if (x->tries == 0) {
        uint32_t i = (uint32_t)(r % n), j = (uint32_t)((r >> 32) % (n - 1));
        struct endpoint *a = endpoint_at(x, i), *b = endpoint_at(x, j >= i ? j + 1 : j);
        if (a && b) {
            uint64_t ca = endpoint_cost(x, a), cb = endpoint_cost(x, b);
            struct endpoint *best = cb < ca ? b : a;
            if (MIN(ca, cb) >> 32 == 0)
                return best;
        }
    }
    /* A second attempt, or both failed lately: look at all, from a random place. */
    struct endpoint *best = NULL;
    uint64_t best_cost = UINT64_MAX;
    for (uint32_t k = 0; k < n; k++) {
        struct endpoint *ep = endpoint_at(x, (uint32_t)((r + k) % n));
        uint64_t cost = ep ? endpoint_cost(x, ep) : UINT64_MAX;
        if (ep && cost < best_cost) {
            best = ep;
            best_cost = cost;
        }
    }
    return best;
}

/* ---- connections ---------------------------------------------------------------------------------------------------- */

static void stock_ask(struct proxy *p, struct endpoint *ep)
{
    if (ep->asked || ep->leaving || ep->stock_n >= SOCKET_STOCK_LOW + ep->pending_n)
        return;
    ep->asked = true;
    uint32_t n = 16 + MIN(ep->pending_n, (uint32_t)SOCKET_STOCK_MAX - 16);
    p->ops->sockets_wanted(p->ctx, p->conf.worker, ep->replica_id, n);
}

static struct up *up_new(struct exchange *x, int fd)
{
    struct proxy *p = x->p;
    struct up *u = mem_new(MEM_CONN, sizeof *u);
    u->p = p;
    u->ep = x->ep;
    u->ep->ups++;
    list_init(&u->link);
    counter_inc(&p->c.up_connections_total);
    counter_inc(&p->c.up_connections_now);
    h1_cli_connect(&u->cli, p->loop, &p->conf.limits, &up_ops, fd, &x->ep->address);
    return u;
}

struct up *up_get(struct exchange *x)
{
    struct endpoint *ep = x->ep;
    struct proxy *p = x->p;
    while (!list_empty(&ep->idle)) {
        struct up *u = CONTAINER_OF(ep->idle.next, struct up, link);
        list_del(&u->link);
        ep->idle_n--;
        if (LIKELY(h1_cli_reusable(&u->cli))) {
            counter_inc(&p->c.up_reused);
            return u;
        }
        up_close(u);
    }
    if (!ep->inside)
        return up_new(x, -1);
    if (ep->stock_n) {
        int fd = ep->stock[--ep->stock_n];
        stock_ask(p, ep);
        return up_new(x, fd);
    }
    x->state = X_SOCKET;
    list_push(&ep->pending, &x->pending);
    ep->pending_n++;
    counter_inc(&p->c.socket_waits);
    stock_ask(p, ep);
    return NULL;
}

void up_release(struct up *u)
{
    struct endpoint *ep = u->ep;
    u->x = NULL;
    if (!ep || ep->leaving || !h1_cli_reusable(&u->cli) || u->cli.s.out_bytes || ep->idle_n >= u->p->conf.pool_max) {
        up_close(u);
        return;
    }
    h1_cli_reading(&u->cli, true);
    u->rest_ms = loop_now_ms(u->p->loop);
    list_push_front(&ep->idle, &u->link);
    ep->idle_n++;
}

static void endpoint_reap(struct proxy *p, struct endpoint *ep);

void up_close(struct up *u)
{
    struct endpoint *ep = u->ep;
    u->x = NULL;
    if (u->link.next != &u->link) {
        list_del(&u->link);
        ep->idle_n--;
    }
    h1_cli_close(&u->cli);
    if (ep) {
        u->ep = NULL;
        ep->ups--;
        endpoint_reap(u->p, ep);
    }
}

void proxy_sockets(struct proxy *p, uint64_t replica_id, const int *fds, uint32_t n)
{
    uint32_t given = 0;
    for (uint32_t s = 0; s < p->eps_n; s++) {
        struct endpoint *ep = p->eps[s];
        if (!ep || ep->replica_id != replica_id || !ep->asked)
            continue;
        ep->asked = false;
        if (!ep->stock)
            ep->stock = mem_new(MEM_CONN, SOCKET_STOCK_MAX * sizeof *ep->stock);
        while (given < n && ep->stock_n < SOCKET_STOCK_MAX)
            ep->stock[ep->stock_n++] = fds[given++];
        bool none = n == 0;
        while (!list_empty(&ep->pending) && (ep->stock_n || none)) {
            struct exchange *x = CONTAINER_OF(ep->pending.next, struct exchange, pending);
            list_del(&x->pending);
            ep->pending_n--;
            if (none)
                exchange_failed(x, ERR_REFUSED, true);
            else
                exchange_socket(x);
        }
        if (!none)
            stock_ask(p, ep);
        break; /* one answer belongs to one question */
    }
    while (given < n)
        socket_close(fds[given++]);
}

/* Closes pooled connections that have rested too long: the peer's own limit counts when it told one. */
void upstream_sweep(struct proxy *p)
{
    uint64_t now = loop_now_ms(p->loop);
    for (uint32_t s = 0; s < p->eps_n; s++) {
        struct endpoint *ep = p->eps[s];
        if (!ep)
            continue;
        LIST_FOREACH(l, &ep->idle) {
            struct up *u = CONTAINER_OF(l, struct up, link);
            uint64_t rest_max = p->conf.upstream_idle_ms;
            if (u->cli.keep_alive_s)
                rest_max = MIN(rest_max, u->cli.keep_alive_s > 1 ? (u->cli.keep_alive_s - 1) * 1000u : 500u);
            if (now - u->rest_ms >= rest_max)
                up_close(u);
        }
    }
}

/* ---- plans -------------------------------------------------------------------------------------------------------------- */

static void endpoint_reap(struct proxy *p, struct endpoint *ep)
{
    if (!ep->leaving || ep->in_flight || ep->ups)
        return;
    mem_free(ep->stock);
    mem_free(ep->name);
    mem_free(ep);
}

void endpoint_done(struct endpoint *ep, struct proxy *p)
{
    MUST(ep->in_flight > 0);
    ep->in_flight--;
    if (ep->leaving && ep->in_flight == 0) {
        p->ops->endpoint_left(p->ctx, p->conf.worker, ep->id, ep->replica_id);
        endpoint_reap(p, ep);
    }
}

/* The plan does not name ep any more: nothing new goes there, what is in flight ends in peace. */
static void endpoint_leave(struct proxy *p, struct endpoint *ep)
{
    while (ep->stock_n)
        socket_close(ep->stock[--ep->stock_n]);
    ep->in_flight++; /* keep it while its lists are emptied */
    ep->leaving = true;
    LIST_FOREACH(l, &ep->idle)
        up_close(CONTAINER_OF(l, struct up, link));
    LIST_FOREACH(l, &ep->pending) {
        struct exchange *x = CONTAINER_OF(l, struct exchange, pending);
        list_del(&x->pending);
        ep->pending_n--;
        exchange_failed(x, ERR_REFUSED, true);
    }
    endpoint_done(ep, p);
}

static struct endpoint *endpoint_new(const struct plan_endpoint *pe)
{
    struct endpoint *ep = mem_new(MEM_CONN, sizeof *ep);
    ep->id = pe->id;
    ep->replica_id = pe->replica_id;
    ep->address = pe->address;
    ep->inside = pe->inside;
    ep->name = mem_strdup(MEM_CONN, pe->name);
    list_init(&ep->idle);
    list_init(&ep->pending);
    return ep;
}

void endpoints_swap(struct proxy *p, struct plan *plan)
{
    if (plan->endpoint_slots > p->eps_n) {
        p->eps = mem_grow(MEM_CONN, p->eps, plan->endpoint_slots * sizeof *p->eps);
        memset(p->eps + p->eps_n, 0, (plan->endpoint_slots - p->eps_n) * sizeof *p->eps);
        p->eps_n = plan->endpoint_slots;
    }
    struct endpoint **gone = mem_new(MEM_CONN, (p->eps_n + 1) * sizeof *gone);
    uint32_t gone_n = 0;
    for (uint32_t i = 0; i < plan->clusters_n; i++)
        for (uint32_t k = 0; k < plan->clusters[i].eps_n; k++) {
            const struct plan_endpoint *pe = &plan->clusters[i].eps[k];
            struct endpoint *old = p->eps[pe->slot];
            if (!old || old->id != pe->id) {
                if (old)
                    gone[gone_n++] = old;
                p->eps[pe->slot] = endpoint_new(pe);
            }
            p->eps[pe->slot]->plan_mark = plan->generation;
        }
    for (uint32_t s = 0; s < p->eps_n; s++)
        if (p->eps[s] && p->eps[s]->plan_mark != plan->generation) {
            gone[gone_n++] = p->eps[s];
            p->eps[s] = NULL;
        }
    /* Only now, with the new plan in place, may requests that were waiting there go elsewhere. */
    for (uint32_t i = 0; i < gone_n; i++)
        endpoint_leave(p, gone[i]);
    mem_free(gone);
}

void endpoints_free(struct proxy *p)
{
    for (uint32_t s = 0; s < p->eps_n; s++)
        if (p->eps[s])
            endpoint_leave(p, p->eps[s]);
    mem_free(p->eps);
    p->eps = NULL;
    p->eps_n = 0;
}
