/* proxy.c - one worker's proxy: its life, its doors, its plan.
 *
 * Doors are listeners: a Gateway's address (named by the plan's token) or the one listening socket in a replica's network
 * namespace, whose connections say by their local address which service port they are meant for. A plan is taken into use
 * between two events; requests that an older plan routed keep it until they end.
 */
#include "proxy_int.h"

#define SWEEP_MS 1000
#define GATE_WINDOW_BYTES (256u << 10)
#define GATE_CONN_WINDOW_BYTES (4u << 20)
#define GATE_IDLE_MORE_MS 10000

void proxy_conf_default(struct proxy_conf *c)
{
    *c = (struct proxy_conf){.workers = 1,
                             .connections_max = 20000,
                             .head_timeout_ms = 10000,
                             .idle_timeout_ms = 60000,
                             .body_timeout_ms = 60000,
                             .connect_timeout_ms = 2000,
                             .answer_timeout_ms = 60000,
                             .upstream_idle_ms = 60000,
                             .pool_max = 1024,
                             .pending_max = 1024,
                             .tries_max = 3,
                             .limits = h1_limits_default,
                             .via = true,
                             .node_name = "weir"};
}

static void sweep(struct timer *t)
{
    struct proxy *p = CONTAINER_OF(t, struct proxy, sweep);
    upstream_sweep(p);
    tcp_sweep(p);
    timer_set(p->loop, &p->sweep, SWEEP_MS);
}

/* What is asked for on it are requests, so that it can be told that no more are wanted. Bytes go on until they end, or all does. */
static bool has_requests(const struct down *d) { return !d->hello && !d->tcp && !d->linked; }

/* Ends connections at once: those from outside, or all. */
static void downs_close(struct proxy *p, bool all)
{
    LIST_FOREACH(l, &p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        if (!all && !d->door->token)
            continue;
        down_close(d);
    }
}

static void drain_over(struct timer *t)
{
    struct proxy *p = CONTAINER_OF(t, struct proxy, drain_timer);
    downs_close(p, p->leaving);
    if ((p->leaving ? p->downs_n : p->outside_n) == 0 && p->drained) { /* else the last released() tells */
        void (*done)(void *) = p->drained;
        p->drained = NULL;
        done(p->drained_ctx);
    }
}

static void rest_over(struct timer *t)
{
    struct proxy *p = CONTAINER_OF(t, struct proxy, rest_timer);
    LIST_FOREACH(l, &p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        if (d->rested && has_requests(d) && http_srv_idle(&d->srv))
            http_srv_last(&d->srv); /* which closes it; with HTTP/2 the client learns by GOAWAY what was not looked at */
    }
}

struct proxy *proxy_new(struct loop *l, const struct proxy_conf *c, const struct proxy_ops *ops, void *ctx)
{
    struct proxy *p = mem_new(MEM_CONN, sizeof *p);
    p->loop = l;
    p->conf = *c;
    p->ops = ops;
    p->ctx = ctx;
    head_out_init(&p->out);
    http_srv_conf_default(&p->srv_conf);
    p->srv_conf.h1 = (struct h1_srv_conf){.limits = &p->conf.limits,
                                          .head_timeout_ms = c->head_timeout_ms,
                                          .idle_timeout_ms = c->idle_timeout_ms,
                                          .body_timeout_ms = c->body_timeout_ms,
                                          .linger_ms = 2000,
                                          .out = &p->out,
                                          .preface = true,
                                          .eof_leaves = true};
    p->gate_conf = p->srv_conf;
    p->gate_conf.resets_max = UINT32_MAX; /* of many clients of another node, who come and go */
    p->gate_conf.window_bytes = GATE_WINDOW_BYTES;
    p->gate_conf.conn_window_bytes = GATE_CONN_WINDOW_BYTES;
    p->gate_conf.h1.idle_timeout_ms = MAX(c->idle_timeout_ms, c->upstream_idle_ms + GATE_IDLE_MORE_MS); /* the other node's limit comes first */
    http_cli_conf_default(&p->cli_conf);
    p->srv_conf.count = p->gate_conf.count = p->cli_conf.count = &p->http;
    p->cli_conf.limits = &p->conf.limits;
    p->cli_conf.out = &p->out;
    p->node_conf = p->cli_conf;
    p->node_conf.ask_ms = NODE_ASK_MS;
    p->node_conf.hung_ms = NODE_HUNG_MS;
    list_init(&p->doors);
    list_init(&p->downs);
    list_init(&p->tcps);
    list_init(&p->links);
    p->series = mem_new(MEM_METRIC, SERIES_MAX * sizeof *p->series);
    health_init(p);
    p->records = mem_new(MEM_METRIC, RECORDS_MAX * sizeof *p->records);
    timer_init(&p->sweep, sweep);
    timer_init(&p->drain_timer, drain_over);
    timer_init(&p->rest_timer, rest_over);
    timer_set(l, &p->sweep, SWEEP_MS);
    return p;
}

/* ---- doors ------------------------------------------------------------------------------------------------------------ */

void down_peer(struct down *d, const struct addr *peer)
{
    char text[ADDR_TEXT_MAX];
    size_t n = addr_format_ip(peer, text);
    d->peer_addr = *peer;
    d->peer_n = (uint8_t)MIN(n, sizeof d->peer);
    memcpy(d->peer, text, d->peer_n);
}

static void http_begin(struct down *d, int fd, struct tls_ctx *tls)
{
    struct proxy *p = d->p;
    http_srv_open(&d->srv, p->loop, &p->srv_conf, &down_ops, fd, tls);
    if (UNLIKELY(down_over(d))) {
        counter_inc(&p->c.connections_over);
        http_srv_refuse(&d->srv, 503, "too_many_connections", "this gateway has as many connections as it may; try again");
    }
}

/* ln: of the door's plan; NULL: it names none any more. */
static void gateway_begin(struct down *d, const struct plan_listener *ln, int fd)
{
    d->node = d->kind == DOOR_NODE;
    if (UNLIKELY(d->node)) {
        hello_gate(d, fd, ln->tls);
        return;
    }
    if (ln && ln->protocol == LISTEN_HTTPS && !ln->tls && !ln->tls_peek) { /* no usable certificate: nothing is said in clear */
        counter_inc(&d->p->c.hello_failed);
        http_begin(d, fd, NULL);
        http_srv_close(&d->srv);
        return;
    }
    if (!ln || (!ln->proxy_protocol && !ln->tls_peek && (ln->protocol == LISTEN_HTTP || ln->protocol == LISTEN_HTTPS)))
        http_begin(d, fd, ln ? ln->tls : NULL);
    else
        hello_start(d, fd, ln->proxy_protocol, ln->tls_peek || ln->protocol == LISTEN_TLS);
}

static void mesh_begin(struct down *d, int fd)
{
    const struct plan *plan = door_hold(d->door)->plan;
    switch (plan_mesh_protocol(plan, &d->local)) {
    case MESH_HTTP:
        http_begin(d, fd, NULL);
        return;
    case MESH_TCP:
        hello_start(d, fd, false, false);
        return;
    case MESH_TLS:
        hello_start(d, fd, false, true);
        return;
    case MESH_NONE: /* as if nobody listened there */
        counter_inc(&d->p->c.mesh_undeclared);
        http_begin(d, fd, NULL);
        stream_reset(http_srv_stream(&d->srv));
        http_srv_close(&d->srv);
        return;
    }
}

void down_speaks(struct down *d, struct slice sni, bool passed, struct slice early)
{
    const struct plan *plan = door_hold(d->door)->plan;
    if (UNLIKELY(d->node)) {
        gate_bytes(d, early);
        return;
    }
    if (!d->door->token) {
        tcp_begin(d, plan_tcp_mesh(plan, &d->local, sni, d->door->caller), early);
        return;
    }
    const struct plan_listener *ln = plan_listener_find(plan, d->door->token);
    if (ln && !passed && ln->protocol == LISTEN_HTTPS && !ln->tls)
        tcp_begin(d, NULL, early); /* no usable certificate: reset */
    else if (ln && !passed && (ln->protocol == LISTEN_HTTP || ln->protocol == LISTEN_HTTPS))
        http_srv_take(&d->srv, &d->p->srv_conf, &down_ops, ln->tls, early);
    else
        tcp_begin(d, ln ? plan_tcp_route(plan, ln, sni) : NULL, early);
}

/* Not every address in a namespace is a service's. */
static bool taken_inside(const struct door *o, int fd, const struct addr *local, const struct addr *peer)
{
    const struct proxy_ops *ops = o->p->ops;
    struct proxy_caller c = {.local = *local, .ns = o->source_ns, .workload = o->source_workload, .replica = o->source_replica, .replica_id = o->replica_id};
    if (peer)
        c.peer = *peer;
    return ops->inside && ops->inside(o->p->ctx, &c, fd);
}

static enum door_kind kind_of(struct door *o, const struct plan_listener *ln)
{
    o->node = ln && ln->node;
    return o->node ? DOOR_NODE : o->token ? DOOR_GATEWAY : DOOR_MESH;
}

static void door_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct door *o = ln->owner;
    struct proxy *p = o->p;
    struct addr local = {.family = ADDR_NONE};
    if (!o->token && socket_local_addr(fd, &local) == OK && taken_inside(o, fd, &local, peer))
        return;
    const struct plan_listener *planned = o->token ? plan_listener_find(door_hold(o)->plan, o->token) : NULL;
    enum door_kind kind = kind_of(o, planned);
    counter_inc(&p->c.connections_total);
    if (p->kinds_n[kind] >= p->conf.connections_max + REFUSING_MAX) {
        counter_inc(&p->c.connections_over);
        socket_close(fd);
        return;
    }
    struct down *d = mem_try(MEM_CONN, sizeof *d);
    if (!d) {
        socket_close(fd);
        return;
    }
    d->p = p;
    d->door = o;
    d->local = local;
    d->kind = (uint8_t)kind;
    o->users++;
    list_init(&d->xs);
    list_push(&p->downs, &d->link);
    p->downs_n++;
    p->kinds_n[kind]++;
    if (o->token)
        p->outside_n++;
    counter_set(&p->c.connections_now, p->downs_n);
    if (peer)
        down_peer(d, peer);
    if (o->token)
        gateway_begin(d, planned, fd);
    else
        mesh_begin(d, fd);
}

/* Before the first plan nothing is accepted: whoever connects waits in the backlog, also while a new engine takes over. */
static void door_open(struct door *o)
{
    if (o->p->hold && !o->ln.open && !(o->p->draining && (o->token || o->p->leaving)))
        listener_start(&o->ln, o->p->loop, o->fd, false, door_accepted);
}

static struct door *door_new(struct proxy *p, int fd)
{
    struct door *o = mem_new(MEM_CONN, sizeof *o);
    o->p = p;
    o->id = ++p->door_id;
    o->ln.owner = o;
    o->fd = fd;
    list_push(&p->doors, &o->link);
    return o;
}

void door_release(struct door *o)
{
    if (o->users || !o->closed)
        return;
    mem_free(o->source_ns);
    mem_free(o->source_workload);
    mem_free(o->source_replica);
    if (o->last)
        hold_release(o->last);
    mem_free(o);
}

/* The newest plan does not know this address any more, and h, the one before, does: whoever is connected is served by that one until its
 * connection ends, and is told that it should. (HTTP/1 at rest is told with its next answer: to close it now could meet a request.) */
static void door_retire(struct door *o, struct plan_hold *h)
{
    o->last = h;
    h->uses++;
    LIST_FOREACH(l, &o->p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        if (d->door == o && has_requests(d) && d->srv.h2)
            http_srv_last(&d->srv);
    }
}

static void doors_follow(struct proxy *p, struct plan_hold *old)
{
    LIST_FOREACH(l, &p->doors) {
        struct door *o = CONTAINER_OF(l, struct door, link);
        bool known = !o->token || plan_listener_find(p->hold->plan, o->token);
        if (known && o->last) { /* it came back before its socket was closed */
            hold_release(o->last);
            o->last = NULL;
        } else if (!known && !o->last && old && plan_listener_find(old->plan, o->token))
            door_retire(o, old);
    }
}

static void door_close(struct door *o)
{
    if (o->ln.open)
        listener_stop(&o->ln);
    socket_close(o->fd);
    list_del(&o->link);
    o->closed = true;
    door_release(o);
}

void proxy_listen(struct proxy *p, uint64_t token, int fd)
{
    struct door *o = door_new(p, fd);
    o->token = token;
    o->source_ns = mem_strdup(MEM_CONN, "unknown");
    o->source_workload = mem_strdup(MEM_CONN, "unknown");
    o->source_replica = mem_strdup(MEM_CONN, "");
    door_open(o);
}

void proxy_unlisten(struct proxy *p, uint64_t token)
{
    LIST_FOREACH(l, &p->doors) {
        struct door *o = CONTAINER_OF(l, struct door, link);
        if (o->token == token && token)
            door_close(o);
    }
}

void proxy_mesh_listen(struct proxy *p, uint64_t replica_id, int fd, const char *ns, const char *workload, const char *replica)
{
    struct door *o = door_new(p, fd);
    o->replica_id = replica_id;
    o->source_ns = mem_strdup(MEM_CONN, ns);
    o->source_workload = mem_strdup(MEM_CONN, workload);
    o->source_replica = mem_strdup(MEM_CONN, replica);
    o->caller = p->hold ? plan_caller_find(p->hold->plan, ns, workload) : NULL;
    door_open(o);
}

void proxy_mesh_unlisten(struct proxy *p, uint64_t replica_id)
{
    LIST_FOREACH(l, &p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        if (d->door->token || d->door->replica_id != replica_id)
            continue;
        down_close(d);
    }
    LIST_FOREACH(l, &p->doors) {
        struct door *o = CONTAINER_OF(l, struct door, link);
        if (!o->token && o->replica_id == replica_id)
            door_close(o);
    }
}

/* ---- plans -------------------------------------------------------------------------------------------------------------- */

static struct tls_ctx *gate_tls(const struct plan *plan)
{
    for (uint32_t i = 0; plan && i < plan->listeners_n; i++)
        if (plan->listeners[i].node)
            return plan->listeners[i].tls;
    return NULL;
}

/* The gate has other certificates now. Who came with one that it would not take any more is shown out: requests under way end, nothing new is begun; bytes end at
 * once. It is the way to give a node up, or a CA. */
static void gate_follow(struct proxy *p, const struct plan *old)
{
    const struct tls_ctx *tls = gate_tls(p->hold->plan);
    if (!tls || tls == gate_tls(old))
        return;
    LIST_FOREACH(l, &p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        if (d->kind != DOOR_NODE || !d->peer_node || stream_tls_trusted(http_srv_stream(&d->srv), tls))
            continue;
        counter_inc(&p->c.node_distrusted);
        if (has_requests(d))
            http_srv_last(&d->srv);
        else
            down_close(d);
    }
}

void proxy_plan(struct proxy *p, struct plan *plan)
{
    struct plan_hold *old = p->hold;
    struct plan_hold *h = mem_new(MEM_CONN, sizeof *h);
    h->plan = plan;
    h->uses = 1;
    p->hold = h;
    series_swap(p);
    endpoints_swap(p, old ? old->plan : NULL, plan);
    LIST_FOREACH(l, &p->doors) {
        struct door *o = CONTAINER_OF(l, struct door, link);
        o->caller = o->token ? NULL : plan_caller_find(plan, o->source_ns, o->source_workload);
    }
    doors_follow(p, old);
    gate_follow(p, old ? old->plan : NULL);
    counter_inc(&p->c.swaps);
    counter_set(&p->generation, plan->generation);
    LIST_FOREACH(l, &p->doors)
        door_open(CONTAINER_OF(l, struct door, link));
    if (old && --old->uses == 0) {
        plan_unref(old->plan);
        mem_free(old);
    }
}

uint64_t proxy_plan_generation(const struct proxy *p) { return counter_read(&p->generation); }

/* ---- the end -------------------------------------------------------------------------------------------------------------- */

void proxy_drain(struct proxy *p, uint32_t ms, void (*done)(void *ctx), void *ctx)
{
    p->draining = true;
    LIST_FOREACH(l, &p->doors) {
        struct door *o = CONTAINER_OF(l, struct door, link);
        if (o->token && o->ln.open)
            listener_stop(&o->ln);
    }
    LIST_FOREACH(l, &p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        if (d->door->token && has_requests(d))
            http_srv_last(&d->srv);
    }
    links_close(p, false); /* of other nodes, which would last as long as their clients; those come again */
    p->drained = done;
    p->drained_ctx = ctx;
    timer_set(p->loop, &p->drain_timer, p->outside_n ? ms : 0);
}

/* To close a connection at rest would fail the request that its client is just sending: so it waits for one more. HTTP/2 has GOAWAY for that. */
void proxy_leave(struct proxy *p, uint32_t ms, void (*done)(void *ctx), void *ctx)
{
    p->draining = p->leaving = true;
    p->srv_conf.h1.idle_timeout_ms = MIN(p->srv_conf.h1.idle_timeout_ms, PROXY_REST_MS);
    LIST_FOREACH(l, &p->doors) {
        struct door *o = CONTAINER_OF(l, struct door, link);
        if (o->ln.open)
            listener_stop(&o->ln);
    }
    LIST_FOREACH(l, &p->downs) {
        struct down *d = CONTAINER_OF(l, struct down, link);
        d->rested = has_requests(d) && !d->srv.h2 && http_srv_idle(&d->srv);
        if (has_requests(d) && !d->rested && http_srv_can_say_last(&d->srv)) /* else it rests when its answer is over, for as long as any now */
            http_srv_last(&d->srv);
    }
    links_close(p, true); /* as the event log's connections do that stay on the node: the next engine has the new ones */
    p->drained = done;
    p->drained_ctx = ctx;
    timer_set(p->loop, &p->rest_timer, PROXY_REST_MS);
    timer_set(p->loop, &p->drain_timer, p->downs_n ? ms : 0);
}

void proxy_free(struct proxy *p)
{
    if (!p)
        return;
    p->drained = NULL;
    downs_close(p, true);
    links_close(p, true);
    loop_turn(p->loop, 0); /* released() of what was just closed */
    LIST_FOREACH(l, &p->doors)
        door_close(CONTAINER_OF(l, struct door, link));
    endpoints_free(p);
    loop_turn(p->loop, 0);
    timer_clear(&p->sweep);
    timer_clear(&p->drain_timer);
    timer_clear(&p->rest_timer);
    if (p->hold) {
        MUST(p->hold->uses == 1);
        plan_unref(p->hold->plan);
        mem_free(p->hold);
    }
    while (p->free_exchanges) {
        struct exchange *x = p->free_exchanges;
        p->free_exchanges = x->next_free;
        buf_free(&x->replay);
        mem_free(x);
    }
    series_free(p);
    records_free(p);
    head_out_fini(&p->out);
    mem_free(p);
}
