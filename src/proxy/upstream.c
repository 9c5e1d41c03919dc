/* upstream.c - endpoints as one worker sees them: choosing one, connecting, pooling, leaving.
 *
 * An endpoint is made when a plan first names it and dies when no plan names it, nothing is in flight and no connection
 * points at it. Choice: two at random, the one with fewer requests in flight wins (power of two choices); endpoints that
 * just failed, or that this request has tried, are chosen only when there is nothing else.
 *
 * A replica on another node is reached through the gate of that node, which is TLS and HTTP/2 whatever the replica speaks.
 *
 * A replica inside its own network namespace is reached through sockets that were made there; they are kept in stock and
 * asked for in advance, so that a request seldom waits for one.
 */
#include "proxy_int.h"
#include "proxy_protocol.h"

#define PERMIT_RETRY_MS 10 /* while requests wait for a connection that another worker may give back */

/* ---- choice ------------------------------------------------------------------------------------------------------ */

/* From another node, for one endpoint. */
static struct endpoint *endpoint_only(const struct exchange *x)
{
    const struct plan_target *t = x->target;
    struct endpoint *ep = t->slot < x->p->eps_n ? x->p->eps[t->slot] : NULL;
    return ep && ep->lb.id == t->id ? ep : NULL;
}

struct endpoint *endpoint_pick(struct exchange *x)
{
    if (UNLIKELY(x->target != NULL))
        return endpoint_only(x);
    struct loop *l = x->p->loop;
    struct lb_request rq = {.hash = x->hash,
                            .hashed = x->hashed,
                            .random = loop_random(l),
                            .now_ms = loop_now_ms(l),
                            .now_ns = loop_now_ns(l),
                            .tried = x->tried,
                            .tried_n = MIN(x->tries, TRIED_MAX)};
    struct lb_host *h = UNLIKELY(x->more != NULL) ? sticky_host(x) : NULL;
    if (!h)
        h = cluster_pick(x->us->c, &rq);
    return h ? CONTAINER_OF(h, struct endpoint, lb) : NULL;
}

void endpoint_take(struct exchange *x, struct endpoint *ep)
{
    x->ep = ep;
    cluster_begin(x->us->c, &ep->lb);
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

static bool pp_addr_from(const struct addr *a, struct pp_addr *out)
{
    if (a->family != ADDR_IP4 && a->family != ADDR_IP6)
        return false;
    out->family = a->family == ADDR_IP4 ? PP_IP4 : PP_IP6;
    out->port = a->port;
    memcpy(out->ip, a->ip, sizeof out->ip);
    return true;
}

/* The client's connection, from where to where: not ours to the endpoint, whose address the service knows and whose family may be another. */
struct slice proxy_header(const struct exchange *x, uint8_t version, char *out)
{
    struct pp_header h = {.version = version};
    struct down *d = x->down;
    struct addr to = {.family = ADDR_NONE};
    if (d && d->local.family != ADDR_NONE)
        to = d->local;
    else if (d && stream_local_addr(http_srv_stream(&d->srv), &to) != OK)
        to.family = ADDR_NONE;
    h.local = !d || !pp_addr_from(&d->peer_addr, &h.src) || !pp_addr_from(&to, &h.dst) || h.src.family != h.dst.family;
    return slice_of(out, version == 1 ? pp_write_v1(&h, out) : pp_write_v2(&h, out, PP_V2_BYTES_MAX));
}

void service_keepalive(struct stream *s, const struct pool_policy *pool)
{
    if (UNLIKELY(pool->keepalive))
        stream_keepalive(s, pool->keepalive_time_s, pool->keepalive_interval_s, pool->keepalive_probes);
}

struct http_tls remote_tls(struct endpoint *ep, struct tls_ctx *ctx, struct tls_session_slot *slot)
{
    return (struct http_tls){ctx, {slice_cstr(ep->remote->sni), slice_cstr(ep->remote->node)}, slot};
}

/* To the endpoint itself, as the policy says. The version that is spoken. */
static enum http_version up_connect(struct up *u, struct exchange *x, int fd)
{
    struct proxy *p = x->p;
    const struct cluster_policy *policy = x->cluster->policy;
    bool h2 = policy->pool.http == UPSTREAM_HTTP2, secure = policy->tls.ctx != NULL;
    enum http_version version = h2 ? HTTP_2 : secure && policy->pool.http == UPSTREAM_AUTO ? HTTP_UNKNOWN : HTTP_1;
    struct slice sni = slice_cstr(policy->tls.sni ? policy->tls.sni : "");
    struct http_tls tls = {policy->tls.ctx, {sni, policy->tls.sans_n || policy->tls.insecure ? SLICE("") : sni}, &x->ep->sessions};
    char ahead[PP_V2_BYTES_MAX];
    if (UNLIKELY(policy->pool.proxy_protocol))
        u->cli.ahead = proxy_header(x, policy->pool.proxy_protocol, ahead);
    u->tls = secure ? tls_ctx_ref(policy->tls.ctx) : NULL; /* while it lives no other context has its address, which manner_of() goes by */
    http_cli_connect(&u->cli, p->loop, &p->cli_conf, &up_ops, fd, &x->ep->address, version, secure ? &tls : NULL);
    u->cli.ahead = SLICE("");
    service_keepalive(http_cli_stream(&u->cli), &policy->pool);
    return version;
}

/* To the gate of its node, whatever the policy says of the endpoint: the gate goes by that. */
static enum http_version up_connect_node(struct up *u, struct exchange *x)
{
    struct proxy *p = x->p;
    struct http_tls tls = remote_tls(x->ep, x->ep->remote->http, &x->ep->sessions);
    counter_inc(&p->c.up_node_connections);
    u->tls = tls_ctx_ref(tls.ctx);
    http_cli_connect(&u->cli, p->loop, &p->node_conf, &up_ops, -1, &x->ep->address, HTTP_2, &tls);
    stream_silence(http_cli_stream(&u->cli), NODE_SILENT_MS);
    return HTTP_2;
}

static struct up *up_new(struct exchange *x, int fd, uint8_t held)
{
    struct proxy *p = x->p;
    struct up *u = mem_new(MEM_CONN, sizeof *u);
    u->p = p;
    u->ep = x->ep;
    u->ep->ups++;
    u->us = upstream_hold(x->us);
    u->manner = x->us->manner;
    u->held = held;
    u->born_ms = loop_now_ms(p->loop);
    list_init(&u->link);
    list_init(&u->xs);
    counter_inc(&p->c.up_connections_total);
    counter_inc(&p->c.up_connections_now);
    enum http_version version = UNLIKELY(x->ep->remote != NULL) ? up_connect_node(u, x) : up_connect(u, x, fd);
    if (version != HTTP_1)
        list_push_front(&u->ep->shared, &u->link);
    return u;
}

/* What its policy lets one connection carry is used up; or it was begun as the policy does not want it any more, perhaps in clear. */
static bool up_spent(const struct up *u)
{
    const struct pool_policy *pool = &u->us->c->policy->pool;
    const struct remote *remote = u->ep ? u->ep->remote : NULL;
    if (UNLIKELY(remote ? remote->http != u->tls : u->manner != u->us->manner))
        return true;
    if (LIKELY(!pool->requests_per_connection_max && !pool->connection_lifetime_ms && !pool->proxy_protocol))
        return false;
    bool one = pool->proxy_protocol && !remote; /* its PROXY header was of one client */
    return one || (pool->requests_per_connection_max && u->requests >= pool->requests_per_connection_max) ||
           (pool->connection_lifetime_ms && loop_now_ms(u->p->loop) - u->born_ms >= pool->connection_lifetime_ms);
}

bool up_room(const struct up *u)
{
    uint32_t max = u->us->c->policy->pool.streams_max, told = u->ep ? u->ep->streams_told : 0;
    if (!http_cli_room(&u->cli) || (max && http_cli_calls(&u->cli) >= max))
        return false;
    return LIKELY(!told) || http_cli_streams_told(&u->cli) || http_cli_calls(&u->cli) < told;
}

/* An open connection that takes one more: at rest, or with a free stream. */
static struct up *up_kept(struct exchange *x)
{
    struct endpoint *ep = x->ep;
    struct proxy *p = x->p;
    while (!list_empty(&ep->idle)) {
        struct up *u = CONTAINER_OF(ep->idle.next, struct up, link);
        list_del(&u->link);
        u->resting = false;
        ep->idle_n--;
        if (LIKELY(http_cli_room(&u->cli) && !up_spent(u))) { /* its time may have come while it rested */
            counter_inc(&p->c.up_reused);
            return u;
        }
        up_close(u);
    }
    LIST_FOREACH(l, &ep->shared) {
        struct up *u = CONTAINER_OF(l, struct up, link);
        if (up_room(u) && !up_spent(u)) {
            counter_inc(&p->c.up_reused);
            return u;
        }
    }
    return NULL;
}

/* Waits for a connection whose version ALPN has not yet decided; with others, since it may be HTTP/2. */
static void wait_version(struct exchange *x, struct up *u)
{
    x->state = X_CONNECT;
    x->up = u;
    list_push(&u->xs, &x->in_up);
}

bool socket_take(struct exchange *x, int *fd)
{
    struct endpoint *ep = x->ep;
    *fd = -1;
    if (!ep->inside)
        return true;
    if (ep->stock_n) {
        *fd = ep->stock[--ep->stock_n];
        stock_ask(x->p, ep);
        return true;
    }
    x->state = X_SOCKET;
    list_push(&ep->pending, &x->pending);
    ep->pending_n++;
    counter_inc(&x->p->c.socket_waits);
    stock_ask(x->p, ep);
    return false;
}

int socket_spare(struct proxy *p, struct endpoint *ep)
{
    int fd = ep->stock_n ? ep->stock[--ep->stock_n] : -1;
    stock_ask(p, ep);
    return fd;
}

/* Closes up to n connections of the cluster that rest on this worker; how many it were. All endpoints are looked at, so only once
 * in a millisecond while there is nothing to find. */
static uint32_t rest_close(struct upstream *us, uint32_t n)
{
    struct proxy *p = us->p;
    uint64_t now = loop_now_ms(p->loop);
    uint32_t closed = 0;
    if (us->bare_ms == now)
        return 0;
    for (uint32_t s = 0; s < p->eps_n && closed < n; s++) {
        struct endpoint *ep = p->eps[s];
        if (!ep || ep->us != us || ep->leaving)
            continue;
        for (; closed < n && !list_empty(&ep->idle); closed++)
            up_close(CONTAINER_OF(ep->idle.prev, struct up, link));
        LIST_FOREACH(l, &ep->shared) {
            struct up *u = CONTAINER_OF(l, struct up, link);
            if (closed < n && list_empty(&u->xs) && !u->closed) {
                up_close(u);
                closed++;
            }
        }
    }
    if (closed < n)
        us->bare_ms = now;
    return closed;
}

void proxy_permits(struct proxy *p, uint32_t slot)
{
    struct upstream *us = slot < p->upstreams_n ? p->upstreams[slot] : NULL;
    if (us && cluster_starves(us->c))
        rest_close(us, __atomic_load_n(&us->c->shared->starved, __ATOMIC_RELAXED));
}

static void permits_ask(struct upstream *us)
{
    timer_set(us->p->loop, &us->retry, PERMIT_RETRY_MS);
    if (us->p->ops->permits_wanted)
        us->p->ops->permits_wanted(us->p->ctx, us->p->conf.worker, us->slot);
}

/* The cluster has all the connections that it may: x waits for one to be given back, and chooses its endpoint then. */
static void wait_permit(struct exchange *x)
{
    endpoint_done(x);
    x->state = X_PERMIT;
    list_push(&x->us->waiting, &x->pending);
    if (breaker_enter(x->us->c, BREAKER_STARVED, 0, &x->held) == OVERFLOW_NONE && !timer_is_set(&x->us->retry))
        permits_ask(x->us);
}

/* A connection is free, or may be made: the one that waits longest goes on. */
static void upstream_pump(struct upstream *us)
{
    if (list_empty(&us->waiting))
        return;
    struct exchange *x = CONTAINER_OF(us->waiting.next, struct exchange, pending);
    list_del(&x->pending);
    exchange_dispatch(x);
}

/* Connections are counted over all workers, but a worker hears only of its own. Each that waits now tries once; who waits on does so behind them, and some may go
 * with another one's end, as a mirror does. */
static void upstream_retry(struct timer *t)
{
    struct upstream *us = CONTAINER_OF(t, struct upstream, retry);
    uint32_t n = 0;
    upstream_hold(us);
    LIST_FOREACH(l, &us->waiting)
        n++;
    while (n--)
        upstream_pump(us);
    if (!list_empty(&us->waiting))
        permits_ask(us);
    upstream_release(us);
}

struct up *up_get(struct exchange *x)
{
    struct endpoint *ep = x->ep;
    struct up *u = LIKELY(!x->stale) ? up_kept(x) : NULL; /* else the others may have ended as well */
    if (LIKELY(u))
        return u;
    LIST_FOREACH(l, &ep->shared) {
        u = CONTAINER_OF(l, struct up, link);
        if (u->cli.waits && !u->closed) {
            wait_version(x, u);
            return NULL;
        }
    }
    uint8_t held = 0;
    int fd;
    if (UNLIKELY(breaker_enter(x->us->c, BREAKER_CONNECTIONS, 0, &held) != OVERFLOW_NONE)) {
        /* One that rests at another endpoint makes room for this one. */
        if (!rest_close(x->us, 1) || breaker_enter(x->us->c, BREAKER_CONNECTIONS, 0, &held) != OVERFLOW_NONE) {
            wait_permit(x);
            return NULL;
        }
    }
    if (!socket_take(x, &fd)) {
        breaker_leave(x->us->c, BREAKER_CONNECTIONS, &held);
        return NULL;
    }
    u = up_new(x, fd, held);
    if (LIKELY(http_cli_room(&u->cli)))
        return u;
    wait_version(x, u);
    return NULL;
}

/* Whether it may carry another call later. */
static bool up_keeps(const struct up *u)
{
    const struct endpoint *ep = u->ep;
    if (!ep || ep->leaving || u->cli.ending || up_spent(u) || cluster_starves(u->us->c))
        return false;
    return u->cli.version != HTTP_1 || (u->cli.h1.connected && ep->idle_n < u->p->conf.pool_max);
}

void up_done(struct up *u)
{
    struct endpoint *ep = u->ep;
    if (u->closed || !list_empty(&u->xs))
        return;
    u->rest_ms = loop_now_ms(u->p->loop);
    if (u->cli.version != HTTP_1) {
        if (!up_keeps(u))
            up_close(u);
        return;
    }
    if (!up_keeps(u) || !http_cli_room(&u->cli) || http_cli_stream(&u->cli)->out_bytes) {
        up_close(u);
        return;
    }
    http_cli_rest(&u->cli);
    list_del(&u->link); /* from shared, when ALPN said HTTP/1 */
    list_push_front(&ep->idle, &u->link);
    u->resting = true;
    ep->idle_n++;
    if (UNLIKELY(!list_empty(&u->us->waiting)))
        loop_defer(u->p->loop, &u->us->pump);
}

static void endpoint_reap(struct proxy *p, struct endpoint *ep);

void up_close(struct up *u)
{
    struct endpoint *ep = u->ep;
    u->closed = true;
    list_del(&u->link);
    if (u->resting)
        ep->idle_n--;
    u->resting = false;
    http_cli_close(&u->cli);
    breaker_leave(u->us->c, BREAKER_CONNECTIONS, &u->held);
    if (!list_empty(&u->us->waiting))
        loop_defer(u->p->loop, &u->us->pump);
    upstream_release(u->us);
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
                attempt_failed(x, ERR_REFUSED, true);
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

/* Closes pooled connections that have rested too long, or may carry nothing more: the peer's own limit counts when it told one. */
void upstream_sweep(struct proxy *p)
{
    uint64_t now = loop_now_ms(p->loop);
    for (uint32_t s = 0; s < p->upstreams_n; s++) {
        if (!p->upstreams[s])
            continue;
        struct cluster *c = p->upstreams[s]->c;
        if (c->sweeps)
            cluster_sweep(c, now, loop_random(p->loop));
        if (now >= c->refresh_at_ms)
            cluster_refresh(c, now); /* else nobody would, without requests, and /metrics would show old states */
        counter_set(&c->count->limit, c->adaptive ? adaptive_limit(c) : 0);
    }
    if (p->health.clusters_n)
        health_sweep(p);
    for (uint32_t s = 0; s < p->eps_n; s++) {
        struct endpoint *ep = p->eps[s];
        if (!ep)
            continue;
        uint32_t given_ms = ep->us->c->policy->pool.idle_timeout_ms;
        uint64_t rest_ms = given_ms ? given_ms : p->conf.upstream_idle_ms;
        LIST_FOREACH(l, &ep->idle) {
            struct up *u = CONTAINER_OF(l, struct up, link);
            uint64_t rest_max = rest_ms;
            uint32_t told_s = u->cli.h1.keep_alive_s;
            if (told_s)
                rest_max = MIN(rest_max, told_s > 1 ? (told_s - 1) * 1000u : 500u);
            if (now - u->rest_ms >= rest_max || up_spent(u))
                up_close(u);
        }
        LIST_FOREACH(l, &ep->shared) {
            struct up *u = CONTAINER_OF(l, struct up, link);
            if (list_empty(&u->xs) && (now - u->rest_ms >= rest_ms || up_spent(u)))
                up_close(u);
        }
    }
}

/* ---- plans -------------------------------------------------------------------------------------------------------------- */

static void remote_free(struct remote *r)
{
    if (!r)
        return;
    tls_ctx_unref(r->http);
    tls_ctx_unref(r->bytes);
    mem_free(r->node);
    mem_free(r->sni);
    mem_free(r);
}

/* The contexts are the newest plan's: certificates are renewed without new endpoints. */
static void remote_follow(struct endpoint *ep, const struct plan_remote *from, const struct plan_gate *g)
{
    struct remote *r = ep->remote;
    if (!r) {
        r = ep->remote = mem_new(MEM_CONN, sizeof *r);
        r->node = mem_strdup(MEM_CONN, from->node);
        r->sni = mem_strdup(MEM_CONN, from->sni);
    }
    struct tls_ctx *http = r->http, *bytes = r->bytes;
    r->http = tls_ctx_ref(g->http);
    r->bytes = tls_ctx_ref(g->bytes);
    tls_ctx_unref(http);
    tls_ctx_unref(bytes);
}

static void endpoint_reap(struct proxy *p, struct endpoint *ep)
{
    if (!ep->leaving || ep->lb.in_flight || ep->ups)
        return;
    upstream_release(ep->us);
    mem_free(ep->stock);
    tls_session_slot_fini(&ep->sessions);
    remote_free(ep->remote);
    mem_free(ep->name);
    mem_free(ep);
}

static void endpoint_over(struct proxy *p, struct endpoint *ep)
{
    if (ep->leaving && ep->lb.in_flight == 0) {
        p->ops->endpoint_left(p->ctx, p->conf.worker, ep->lb.id, ep->replica_id);
        endpoint_reap(p, ep);
    }
}

void endpoint_done(struct exchange *x)
{
    struct endpoint *ep = x->ep;
    x->ep = NULL;
    cluster_end(ep->us->c, &ep->lb);
    endpoint_over(x->p, ep);
}

/* The plan does not name ep any more: nothing new goes there, what is in flight ends in peace. */
static void endpoint_leave(struct proxy *p, struct endpoint *ep)
{
    health_forget(ep);
    while (ep->stock_n)
        socket_close(ep->stock[--ep->stock_n]);
    cluster_begin(ep->us->c, &ep->lb); /* keep it while its lists are emptied */
    ep->leaving = true;
    LIST_FOREACH(l, &ep->idle)
        up_close(CONTAINER_OF(l, struct up, link));
    LIST_FOREACH(l, &ep->shared)
        if (list_empty(&CONTAINER_OF(l, struct up, link)->xs))
            up_close(CONTAINER_OF(l, struct up, link));
    LIST_FOREACH(l, &ep->pending)
        attempt_moved(CONTAINER_OF(l, struct exchange, pending));
    cluster_end(ep->us->c, &ep->lb);
    endpoint_over(p, ep);
}

static struct endpoint *endpoint_new(const struct plan_endpoint *pe, struct upstream *us)
{
    struct endpoint *ep = mem_new(MEM_CONN, sizeof *ep);
    ep->lb.id = pe->id;
    ep->us = upstream_hold(us);
    ep->replica_id = pe->replica_id;
    ep->address = plan_endpoint_addr(pe);
    ep->inside = pe->address.inside;
    ep->name = mem_strdup(MEM_CONN, pe->name);
    list_init(&ep->idle);
    list_init(&ep->shared);
    list_init(&ep->pending);
    return ep;
}

struct upstream *upstream_hold(struct upstream *us)
{
    us->uses++;
    return us;
}

void upstream_release(struct upstream *us)
{
    if (--us->uses)
        return;
    MUST(list_empty(&us->waiting));
    timer_clear(&us->retry);
    list_del(&us->pump.link);
    cluster_release(us->c);
    mem_free(us);
}

static void upstream_pump_task(struct task *t)
{
    struct upstream *us = CONTAINER_OF(t, struct upstream, pump);
    upstream_hold(us);
    upstream_pump(us);
    upstream_release(us);
}

static void told_ejected(void *ctx, struct cluster *c, struct lb_host *h, enum ejection why, uint64_t for_ms)
{
    const struct upstream *us = ctx;
    const struct endpoint *ep = CONTAINER_OF(h, struct endpoint, lb);
    log_warn("proxy", "%s: endpoint %s is ejected for %llu ms: %s", us->record->name, ep->name, (unsigned long long)for_ms, ejection_label(why));
}

static void told_unejected(void *ctx, struct cluster *c, struct lb_host *h)
{
    const struct upstream *us = ctx;
    log_info("proxy", "%s: endpoint %s is no longer ejected", us->record->name, CONTAINER_OF(h, struct endpoint, lb)->name);
}

static const struct cluster_ops cluster_ops = {.ejected = told_ejected, .unejected = told_unejected};

static struct upstream *upstream_new(struct proxy *p, const struct plan_cluster *pc)
{
    struct upstream *us = mem_new(MEM_CONN, sizeof *us);
    us->p = p;
    us->c = cluster_hold(cluster_new(&cluster_ops, us, loop_random(p->loop)));
    us->uses = 1;
    us->record = record_take(p, pc);
    cluster_count_in(us->c, &us->record->count);
    us->slot = pc->slot;
    us->bare_ms = UINT64_MAX;
    list_init(&us->waiting);
    timer_init(&us->retry, upstream_retry);
    task_init(&us->pump, upstream_pump_task);
    return us;
}

static void *grown(void *table, uint32_t *n, uint32_t wanted, size_t size)
{
    if (wanted <= *n)
        return table;
    table = mem_grow(MEM_CONN, table, wanted * size);
    memset((char *)table + *n * size, 0, (wanted - *n) * size);
    *n = wanted;
    return table;
}

static struct lb_host *host_of(void *ctx, const struct plan_endpoint *pe)
{
    struct proxy *p = ctx;
    return &p->eps[pe->slot]->lb;
}

/* Those that were in a table and that this plan does not name; the table's places for them are free. */
struct gone {
    void **items;
    uint32_t n;
};

/* How connections are begun. What else the policy says of them holds for those that stand, too. */
static uint64_t manner_of(const struct cluster_policy *policy)
{
    const struct upstream_tls *tls = &policy->tls;
    const uint64_t n[] = {(uintptr_t)tls->ctx, tls->sni ? hash_slice(slice_cstr(tls->sni)) : 0, tls->sans_n || tls->insecure, policy->pool.http, policy->pool.proxy_protocol};
    return hash_bytes(n, sizeof n);
}

/* u carries pc's requests from now on. What the table has in its endpoints' places from an older plan: to eps. */
static void cluster_fill(struct proxy *p, const struct plan *plan, const struct plan_cluster *pc, struct upstream *u, struct gone *eps)
{
    u->plan_mark = plan->generation;
    for (uint32_t k = 0; k < pc->eps_n; k++) {
        const struct plan_endpoint *pe = &pc->eps[k];
        struct endpoint *old = p->eps[pe->slot];
        if (!old || old->lb.id != pe->id) {
            if (old)
                eps->items[eps->n++] = old;
            p->eps[pe->slot] = endpoint_new(pe, u);
        }
        p->eps[pe->slot]->plan_mark = plan->generation;
        if (UNLIKELY(pe->remote != NULL))
            remote_follow(p->eps[pe->slot], pe->remote, plan->gate);
    }
    u->manner = manner_of(pc->policy);
    cluster_sync(u->c, pc, plan->locality, host_of, p, loop_now_ms(p->loop));
}

static void cluster_swap(struct proxy *p, const struct plan *plan, const struct plan_cluster *pc, struct gone *eps, struct gone *us)
{
    struct upstream *u = p->upstreams[pc->slot];
    if (u && !cluster_is(u->c, pc)) {
        us->items[us->n++] = u;
        u = p->upstreams[pc->slot] = NULL;
    }
    if (!u && pc->policy->health.kind != HEALTH_NONE) /* its checks want endpoints; others wait for their first request */
        u = p->upstreams[pc->slot] = upstream_new(p, pc);
    if (u)
        cluster_fill(p, plan, pc, u, eps);
}

/* Endpoints that old names and plan does not, of clusters that no request ever went to here: this worker has none of its own for them, and
 * who waits for it to let go of them is told at once. */
static void endpoints_unused(struct proxy *p, const struct plan *old, const struct plan *plan)
{
    uint64_t *ids = mem_new(MEM_CONN, (plan->endpoint_slots + 1) * sizeof *ids);
    for (uint32_t i = 0; i < plan->clusters_n; i++)
        for (uint32_t k = 0; k < plan->clusters[i].eps_n; k++)
            ids[plan->clusters[i].eps[k].slot] = plan->clusters[i].eps[k].id;
    for (uint32_t i = 0; i < old->clusters_n; i++) {
        const struct plan_cluster *c = &old->clusters[i];
        const struct upstream *u = c->slot < p->upstreams_n ? p->upstreams[c->slot] : NULL;
        if (u && u->plan_mark == old->generation)
            continue;
        for (uint32_t k = 0; k < c->eps_n; k++)
            if (c->eps[k].slot >= plan->endpoint_slots || ids[c->eps[k].slot] != c->eps[k].id)
                p->ops->endpoint_left(p->ctx, p->conf.worker, c->eps[k].id, c->eps[k].replica_id);
    }
    mem_free(ids);
}

/* The first request for a cluster of the newest plan: a worker with thousands of endpoints has those that it uses. */
static struct upstream *upstream_first(struct proxy *p, const struct plan_cluster *pc)
{
    const struct plan *plan = p->hold->plan;
    if (UNLIKELY(pc < plan->clusters || pc >= plan->clusters + plan->clusters_n)) { /* of an older plan: see door.last */
        const struct plan_cluster *end = plan->clusters + plan->clusters_n, *now = plan->clusters;
        while (now < end && now->shared != pc->shared)
            now++;
        if (now == end)
            return NULL;
        pc = now;
    }
    struct gone none = {0}; /* what the table has is of this plan already */
    struct upstream *u = p->upstreams[pc->slot] = upstream_new(p, pc);
    cluster_fill(p, plan, pc, u, &none);
    return u;
}

struct upstream *upstream_of(struct proxy *p, const struct plan_cluster *c)
{
    struct upstream *us = c->slot < p->upstreams_n ? p->upstreams[c->slot] : NULL;
    if (UNLIKELY(!us))
        return upstream_first(p, c);
    return LIKELY(us->c->shared == c->shared) ? us : NULL;
}

void endpoints_swap(struct proxy *p, const struct plan *old, struct plan *plan)
{
    if (old)
        endpoints_unused(p, old, plan);
    p->eps = grown(p->eps, &p->eps_n, plan->endpoint_slots, sizeof *p->eps);
    p->upstreams = grown(p->upstreams, &p->upstreams_n, plan->cluster_slots, sizeof *p->upstreams);
    struct gone eps = {mem_new(MEM_CONN, (p->eps_n + 1) * sizeof(void *)), 0}, us = {mem_new(MEM_CONN, (p->upstreams_n + 1) * sizeof(void *)), 0};
    for (uint32_t i = 0; i < plan->clusters_n; i++)
        cluster_swap(p, plan, &plan->clusters[i], &eps, &us);
    for (uint32_t s = 0; s < p->eps_n; s++)
        if (p->eps[s] && p->eps[s]->plan_mark != plan->generation) {
            eps.items[eps.n++] = p->eps[s];
            p->eps[s] = NULL;
        }
    for (uint32_t s = 0; s < p->upstreams_n; s++)
        if (p->upstreams[s] && p->upstreams[s]->plan_mark != plan->generation) {
            us.items[us.n++] = p->upstreams[s];
            p->upstreams[s] = NULL;
        }
    for (uint32_t i = 0; i < us.n; i++) {
        cluster_drop(((struct upstream *)us.items[i])->c);
        record_drop(((struct upstream *)us.items[i])->record);
    }
    /* Only now, with the new plan in place, may requests that were waiting there go elsewhere. */
    for (uint32_t i = 0; i < eps.n; i++)
        endpoint_leave(p, eps.items[i]);
    for (uint32_t i = 0; i < us.n; i++)
        upstream_release(us.items[i]);
    health_plan(p, plan);
    mem_free(eps.items);
    mem_free(us.items);
}

void endpoints_free(struct proxy *p)
{
    for (uint32_t s = 0; s < p->upstreams_n; s++)
        if (p->upstreams[s])
            cluster_drop(p->upstreams[s]->c);
    for (uint32_t s = 0; s < p->eps_n; s++)
        if (p->eps[s])
            endpoint_leave(p, p->eps[s]);
    for (uint32_t s = 0; s < p->upstreams_n; s++)
        if (p->upstreams[s])
            upstream_release(p->upstreams[s]);
    mem_free(p->eps);
    mem_free(p->upstreams);
    p->eps = NULL;
    p->upstreams = NULL;
    p->eps_n = p->upstreams_n = 0;
}
