/* exchange.c - one request's life and its client's side: it begins, is routed or refused, and ends.
 *
 *     request() -> route -> exchange_begin() (attempt.c) ... -> exchange_finish()
 *                    |
 *                    '-> an answer of our own (local.c): redirect, 404, 500, 503
 *
 * Ownership: an HTTP/1 connection has at most one exchange, an HTTP/2 connection one for each stream; an exchange has at most
 * one call under way. exchange_finish() is the one place where an exchange ends; after it no side points to it.
 */
#include "proxy_int.h"

#define REPLAY_KEPT_BYTES 1024 /* of a body's memory that stays for the next request */

/* ---- beginning and end ---------------------------------------------------------------------------------------------- */

void hold_release(struct plan_hold *h)
{
    MUST(h->uses > 0);
    if (--h->uses == 0) {
        plan_unref(h->plan);
        mem_free(h);
    }
}

void exchange_share_plan(struct exchange *x, const struct exchange *with)
{
    with->hold->uses++;
    hold_release(x->hold);
    x->hold = with->hold;
}

struct exchange *exchange_new(struct proxy *p, struct door *door)
{
    struct exchange *x = p->free_exchanges;
    if (x)
        p->free_exchanges = x->next_free;
    else
        x = mem_new(MEM_CONN, sizeof *x);
    memset(x, 0, offsetof(struct exchange, inline_head));
    x->p = p;
    x->door = door;
    door->users++;
    x->hold = door_hold(door);
    x->hold->uses++;
    x->start_ns = loop_now_ns(p->loop);
    x->head = x->inline_head;
    list_init(&x->pending);
    list_init(&x->in_down);
    list_init(&x->in_up);
    timer_init(&x->timer, exchange_timer);
    counter_inc(&p->c.requests_now);
    return x;
}

void exchange_finish(struct exchange *x)
{
    struct proxy *p = x->p;
    timer_clear(&x->timer);
    if (UNLIKELY(x->role == X_TCP)) {
        tcp_closed(x);
        counter_inc(&p->c.requests_now); /* see tcp_begin() */
    } else if (x->role != X_HEDGE) /* the request it belongs to is counted */
        series_count(x);
    if (x->role == X_CLIENT || x->role == X_TCP)
        access_end(x);
    if (UNLIKELY(x->more != NULL)) {
        children_end(x);
        list_del(&x->more->sibling);
    }
    if (x->tries && x->state == X_ANSWER)
        counter_inc(&p->c.retries_won);
    if (x->req)
        x->req->owner = NULL;
    list_del(&x->in_down);
    attempt_drop(x);
    if (UNLIKELY(x->more != NULL))
        more_free(x);
    hold_release(x->hold);
    if (x->us) {
        breaker_leave(x->us->c, BREAKER_REQUESTS, &x->held);
        breaker_leave(x->us->c, BREAKER_RETRIES, &x->held);
        upstream_release(x->us);
    }
    if (x->head != x->inline_head)
        mem_free(x->head);
    if (x->replay.cap > REPLAY_KEPT_BYTES)
        buf_free(&x->replay);
    else
        buf_clear(&x->replay);
    buf_free(&x->log);
    counter_add(&p->c.requests_now, (uint64_t)-1);
    x->door->users--;
    door_release(x->door);
    x->next_free = p->free_exchanges;
    p->free_exchanges = x;
}

void exchange_abandon(struct exchange *x, enum flag f)
{
    if (f != FLAG_NONE)
        flag_set(x, f);
    exchange_finish(x);
}

/* ---- time --------------------------------------------------------------------------------------------------------------- */

void exchange_wait(struct exchange *x, uint64_t ms)
{
    uint64_t now = loop_now_ms(x->p->loop);
    if (x->deadline_ms)
        ms = MIN(ms, x->deadline_ms > now ? x->deadline_ms - now : 0);
    if (x->attempt_ms)
        ms = MIN(ms, x->attempt_ms > now ? x->attempt_ms - now : 0);
    timer_set(x->p->loop, &x->timer, ms);
}

/* ---- the client's side ------------------------------------------------------------------------------------------------------ */

static struct down *down_of(struct http_srv *c) { return CONTAINER_OF(c, struct down, srv); }

void client_reading(struct exchange *x, bool on)
{
    if (x->req && !x->request_end)
        http_req_reading(x->req, on);
}

static bool route(struct exchange *x, const struct h1_head *h, struct plan_hit *hit)
{
    struct down *d = x->down;
    const struct plan *plan = x->hold->plan;
    if (!x->door->token)
        return plan_route_mesh(plan, &d->local, h, x->door->caller, hit);
    const struct plan_listener *ln = plan_listener_find(plan, x->door->token);
    return ln && plan_route(plan, ln, h, x->secure, x->secure ? stream_tls_server_name(http_srv_stream(&d->srv)) : SLICE(""), hit);
}

static const struct plan_backend *backend_pick(struct exchange *x)
{
    const struct plan_rule *r = x->rule;
    if (r->backends_n == 1 && r->weight_sum)
        return &r->backends[0];
    if (!r->weight_sum)
        return NULL;
    uint64_t at = loop_random(x->p->loop) % r->weight_sum;
    for (uint32_t i = 0; i < r->backends_n; i++) {
        if (at < r->backends[i].weight)
            return &r->backends[i];
        at -= r->backends[i].weight;
    }
    return NULL;
}

/* The bytes of a slash at p: itself, as %2F, or turned round, which some services take for one; 0: there is none. */
static size_t slash_at(const char *p, const char *end)
{
    if (*p == '/' || *p == '\\')
        return 1;
    if (end - p < 3 || p[0] != '%')
        return 0;
    return (p[1] == '2' && (p[2] | 32) == 'f') || (p[1] == '5' && (p[2] | 32) == 'c') ? 3 : 0;
}

/* A path with a dot segment, plain or percent-encoded ("/a/../b", "/%2e%2e/", "/a%2f..%2fb"): it would be routed as one path and taken by
 * the service as another. Clients resolve them before they send (RFC 3986 section 5.2.4). */
static bool has_dot_segment(struct slice path)
{
    if (!path.n) /* OPTIONS *, CONNECT */
        return false;
    const char *p = path.p, *end = path.p + path.n;
    bool odd = memchr(p, '%', path.n) || memchr(p, '\\', path.n); /* there may be other slashes than those that are one */
    while (p < end && (odd || (p = memchr(p, '/', (size_t)(end - p))))) {
        size_t slash = slash_at(p, end);
        p += MAX(slash, (size_t)1);
        if (!slash)
            continue;
        const char *q = p;
        int dots = 0;
        for (; dots < 3; dots++)
            if (q < end && *q == '.')
                q++;
            else if (end - q >= 3 && q[0] == '%' && q[1] == '2' && (q[2] | 32) == 'e')
                q += 3;
            else
                break;
        if ((dots == 1 || dots == 2) && (q == end || slash_at(q, end)))
            return true;
    }
    return false;
}

static const char connect_refused[] = "CONNECT is not offered here";

/* What is refused before routing; true when it was answered. */
static bool refused_early(struct exchange *x, const struct h1_head *h)
{
    if (UNLIKELY(h->method_id == H1_TRACE)) {
        answer_text(x, 501, FLAG_NONE, "TRACE is not offered here");
        return true;
    }
    if (UNLIKELY(h->path.n && has_dot_segment(h->path))) {
        refusal_count(x->p, "dot_segments");
        answer_text(x, 400, FLAG_NONE, "the path has dot segments; send it resolved (RFC 3986 section 5.2.4)");
        return true;
    }
    return false;
}

/* An upgrade is passed on, unless it is HTTP/2's own (h2c, which RFC 9113 has dropped) or has a body: those offers are ignored,
 * as RFC 9110 section 7.8 lets a server do. */
static bool wants_tunnel(const struct h1_head *h)
{
    if (UNLIKELY(h->method_id == H1_CONNECT))
        return true;
    if (LIKELY(!h->upgrade) || h->framing != H1_NO_BODY)
        return false;
    const struct h1_field *u = h1_get(h, H1_UPGRADE);
    return u && !slice_ieq(u->value, SLICE("h2c"));
}

static bool method_idempotent(enum h1_method m)
{
    return m == H1_GET || m == H1_HEAD || m == H1_PUT || m == H1_DELETE || m == H1_OPTIONS;
}

/* "100m": at most eight digits and a unit (gRPC over HTTP/2, Timeout); 0 when it is malformed. */
static uint64_t grpc_timeout_ms(struct slice v)
{
    uint64_t n;
    if (v.n < 2 || v.n > 9 || slice_u64(slice_of(v.p, v.n - 1), 99999999, &n) != OK)
        return 0;
    switch (v.p[v.n - 1]) {
    case 'H': return n * 3600000;
    case 'M': return n * 60000;
    case 'S': return n * 1000;
    case 'm': return n;
    case 'u': return (n + 999) / 1000;
    case 'n': return (n + 999999) / 1000000;
    default: return 0;
    }
}

/* A gRPC call: refusals are statuses of its own, and its deadline is ours too. */
static void grpc_request(struct exchange *x, const struct h1_head *h)
{
    const struct h1_field *type = h1_get(h, H1_CONTENT_TYPE);
    if (!type || !slice_starts(type->value, SLICE("application/grpc")))
        return;
    char next = type->value.n > 16 ? type->value.p[16] : ';'; /* application/grpc-web is another protocol, of plain requests */
    if (next != ';' && next != '+' && next != ' ')
        return;
    x->grpc = true;
    const struct h1_field *timeout = h1_find(h, SLICE("grpc-timeout"));
    uint64_t ms = timeout ? grpc_timeout_ms(timeout->value) : 0;
    if (ms)
        x->deadline_ms = loop_now_ms(x->p->loop) + ms;
}

/* x asks for a tunnel: what the rule says to that. False: it was answered. */
static bool tunnel_allowed(struct exchange *x, const struct h1_head *h)
{
    const struct route_rule *spec = x->rule->spec;
    if (h->method_id == H1_CONNECT) {
        if (spec && spec->connect)
            return true;
        answer_text(x, 501, FLAG_NONE, connect_refused);
        return false;
    }
    bool refused = spec && spec->upgrades_refused;
    if (!refused && !steps_answer_here(x->rule))
        return true;
    if (h->major == 2) { /* an answer with 200 would agree to it */
        answer_text(x, 501, FLAG_NONE, refused ? "upgrades are refused on this route" : "no service is behind this route that could take an upgrade");
        return false;
    }
    x->framing = H1_NO_BODY;
    x->request_end = true;
    return true;
}

static struct exchange *client_exchange(struct down *d, struct http_req *r, const struct h1_head *h, size_t bytes, bool end)
{
    struct exchange *x = exchange_new(d->p, d->door);
    x->req = r;
    r->owner = x;
    x->down = d;
    list_push(&d->xs, &x->in_down);
    x->secure = d->srv.secure;
    x->mutual = d->identity != NULL || d->node;
    x->method_id = (uint8_t)h->method_id;
    x->framing = (uint8_t)h->framing;
    x->idempotent = method_idempotent(h->method_id);
    x->request_end = end;
    x->request_bytes = bytes;
    if (h->major == 2 && LIKELY(!d->node)) /* else its node has done that, and tells the client */
        grpc_request(x, h);
    if (UNLIKELY(wants_tunnel(h))) {
        x->framing = H1_TUNNEL;
        x->request_end = false;
    }
    if (UNLIKELY(d->p->draining || d->door->last) && (d->door->token || d->p->leaving))
        http_srv_last(&d->srv);
    head_identify(x, h);
    access_begin(x, h);
    return x;
}

static void answer_untransformable(struct exchange *x, enum err e)
{
    bool large = e == ERR_LIMIT;
    answer_text(x, large ? 413 : 400, FLAG_NONE, large ? "the request's body is larger than what this route transforms"
                                                       : "the request's body can't be transformed as this route asks: it is malformed");
}

/* The first attempt of a request with mirrors, a changed body, a fault's delay. */
static void exchange_begin_with_steps(struct exchange *x, struct pieces body)
{
    struct exchange_more *m = exchange_more(x);
    struct iovec v;
    enum err e = m->request_filter ? steps_body(x, m->request_filter, body, x->request_end, &v, &body) : OK;
    if (e != OK) {
        answer_untransformable(x, e);
        return;
    }
    if (m->delay_ms) {
        x->flag |= FLAG_DI;
        x->replayable = true;
        x->state = X_BEGIN;
        request_more(x, body, x->request_end);
        client_reading(x, false);
        exchange_wait(x, m->delay_ms);
        return;
    }
    mirrors_begin(x, body);
    exchange_begin(x, body);
}

/* What the cluster's policy looks at before a request may go there: its limits, and what it is hashed on. */
static bool request_admitted(struct exchange *x, const struct h1_head *h)
{
    struct cluster *c = x->us->c;
    const struct cluster_policy *policy = x->cluster->policy;
    uint32_t rank = 0;
    if (UNLIKELY((policy->tls.mode == TLS_SIMPLE || policy->tls.mode == TLS_MUTUAL) && !policy->tls.ctx)) {
        answer_text(x, 503, FLAG_UF, "the service wants TLS, and its policy names no usable certificates");
        return false;
    }
    if (UNLIKELY(policy->shed.header != NULL)) {
        const struct h1_field *f = h1_find(h, slice_cstr(policy->shed.header));
        rank = breaker_rank(&policy->shed, f ? f->value : SLICE(""));
        x->rank = (uint8_t)MIN(rank, UINT8_MAX);
    }
    enum overflow over = breaker_enter(c, BREAKER_REQUESTS, rank, &x->held);
    if (UNLIKELY(over != OVERFLOW_NONE)) {
        answer_text(x, 503, over == OVERFLOW_ADAPTIVE || over == OVERFLOW_SHED ? FLAG_OM : FLAG_UO, overflow_text(over));
        return false;
    }
    if (UNLIKELY(policy->lb.hash_on != HASH_NONE || session_of(x)))
        sticky_request(x, h);
    if (UNLIKELY(policy->hedge.max && !(x->more && x->more->hedge)))
        exchange_more(x)->hedge = &policy->hedge;
    return true;
}

static void down_body(struct http_req *r, struct pieces body, bool end);

static void down_request(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct down *d = down_of(c);
    struct h1_field none;
    bool trailers = end && h->framing == H1_CHUNKED && http_req_trailers(r, &none, 1) != 0;
    struct exchange *x = client_exchange(d, r, h, body.bytes, end && !trailers);
    struct plan_hit hit = {0};
    if (UNLIKELY(d->node)) {
        gate_request(x, h, body);
        if (trailers && r->owner == x)
            down_body(r, (struct pieces){0}, true);
        return;
    }
    if (refused_early(x, h))
        return;
    if (!route(x, h, &hit)) {
        if (hit.misdirected)
            answer_text(x, 421, FLAG_NR, "this host is not served on a connection made for another (RFC 9110 section 15.5.20)");
        else if (h->method_id == H1_CONNECT)
            answer_text(x, 501, FLAG_NR, connect_refused);
        else
            answer_text(x, 404, FLAG_NR, "no route matches this request");
        return;
    }
    if (UNLIKELY(hit.https_redirect)) {
        answer_https(x, h);
        return;
    }
    x->rule = hit.rule;
    if (UNLIKELY(x->framing == H1_TUNNEL) && !tunnel_allowed(x, h))
        return;
    if (x->rule->timeout_ms) {
        uint64_t due = loop_now_ms(d->p->loop) + x->rule->timeout_ms;
        x->deadline_ms = x->deadline_ms ? MIN(x->deadline_ms, due) : due;
    }
    if (UNLIKELY(!x->rule->plain) && steps_request(x, h, &hit) == STEP_OVER)
        return;
    x->backend = backend_pick(x);
    if (!x->backend || !x->backend->cluster) {
        answer_text(x, x->rule->unfound_503 ? 503 : 500, FLAG_NC, "the route's backend does not exist");
        return;
    }
    x->cluster = x->backend->cluster;
    struct upstream *us = upstream_of(x->p, x->cluster);
    if (UNLIKELY(!us)) { /* x->hold is not the newest plan: see door.last */
        answer_text(x, 503, FLAG_NC, "the service is gone");
        return;
    }
    x->us = upstream_hold(us);
    if (UNLIKELY(!request_admitted(x, h)))
        return;
    if (!head_request(x, h, &hit)) {
        answer_text(x, 431, FLAG_NONE, "the request's head is too large to pass on");
        return;
    }
    if (UNLIKELY(x->more != NULL) || x->rule->mirrors_n)
        exchange_begin_with_steps(x, body);
    else
        exchange_begin(x, body);
    if (UNLIKELY(trailers && r->owner == x)) /* all came in one read: the end follows with the trailers */
        down_body(r, (struct pieces){0}, true);
}

/* A filter can't go on with the request's body. */
static void request_broken(struct exchange *x, enum err e)
{
    if (x->state != X_ANSWER) {
        answer_untransformable(x, e);
        return;
    }
    struct http_req *r = x->req;
    x->req = NULL;
    r->owner = NULL;
    exchange_abandon(x, FLAG_DC);
    http_req_cut(r);
}

static void down_body(struct http_req *r, struct pieces body, bool end)
{
    struct exchange *x = r->owner;
    struct iovec v; /* of a body that a filter has changed: used until the end */
    if (!x)
        return; /* answered already: what still comes is thrown away */
    x->request_bytes += body.bytes;
    x->request_end = end;
    if (UNLIKELY(x->state == X_LOCAL)) /* its answer is on its way, or does not depend on the body */
        return;
    if (UNLIKELY(x->more != NULL)) {
        enum err e = x->more->request_filter ? steps_body(x, x->more->request_filter, body, end, &v, &body) : OK;
        if (e != OK) {
            request_broken(x, e);
            return;
        }
        mirrors_body(x, body, end);
    }
    request_more(x, body, end);
}

static void down_drained(struct http_req *r)
{
    struct exchange *x = r->owner;
    if (x)
        request_flow(x);
}

static void down_aborted(struct http_req *r, enum err e)
{
    struct exchange *x = r->owner;
    if (!x)
        return;
    x->req = NULL;
    r->owner = NULL;
    exchange_abandon(x, FLAG_DC);
}

static void down_refused(struct http_srv *c, uint16_t status, const char *label) { refusal_count(down_of(c)->p, label); }

void down_close(struct down *d)
{
    if (d->hello) {
        hello_stop(d);
        return;
    }
    if (d->tcp) {
        tcp_close(d);
        return;
    }
    if (d->linked) {
        link_close(d->linked);
        return;
    }
    LIST_FOREACH(l, &d->xs)
        exchange_abandon(CONTAINER_OF(l, struct exchange, in_down), FLAG_DC);
    http_srv_close(&d->srv);
}

static void down_secured(struct http_srv *c) { identity_take(down_of(c)); }
static void down_released(struct http_srv *c) { down_gone(down_of(c)); }

void down_gone(struct down *d)
{
    struct proxy *p = d->p;
    MUST(list_empty(&d->xs));
    list_del(&d->link);
    p->downs_n--;
    p->kinds_n[d->kind]--;
    counter_set(&p->c.connections_now, p->downs_n);
    if (d->door->token)
        p->outside_n--;
    d->door->users--;
    door_release(d->door);
    mem_free(d->identity);
    mem_free(d->peer_node);
    mem_free(d);
    if (p->draining && (p->leaving ? p->downs_n : p->outside_n) == 0 && p->drained) {
        void (*done)(void *) = p->drained;
        p->drained = NULL;
        timer_clear(&p->drain_timer);
        done(p->drained_ctx);
    }
}

const struct http_srv_ops down_ops = {
    .request = down_request, .body = down_body, .drained = down_drained, .aborted = down_aborted, .refused = down_refused, .secured = down_secured, .released = down_released};
