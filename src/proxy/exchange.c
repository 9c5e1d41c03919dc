/* exchange.c - one request's way: routed, sent to an endpoint, answered; or refused, tried again, timed out, abandoned.
 *
 *     request() -> route -> pick an endpoint -> connection from the pool -------------------> X_SENT -> X_ANSWER -> done
 *                    |            ^                    | none: connect; no socket: X_SOCKET ----^
 *                    |            '--- X_PAUSE <--- failed before an answer (and may be repeated)
 *                    '-> a local answer: redirect, 404, 500, 503
 *
 * The rule of repetition: what was never sent may go elsewhere, whatever its method; what may have been sent goes elsewhere
 * only when its method is idempotent (RFC 9110 section 9.2.2) and nothing of an answer has been passed on. In both cases the
 * whole request must still be at hand: replay holds its body while that is so.
 *
 * Ownership: a down has at most one exchange and an exchange at most one up. exchange_finish() is the one place where an
 * exchange ends; after it neither side points to it.
 */
#include "proxy_int.h"

static void dispatch(struct exchange *x);

/* ---- beginning and end ---------------------------------------------------------------------------------------------- */

static struct exchange *exchange_new(struct down *d)
{
    struct proxy *p = d->p;
    struct exchange *x = p->free_exchanges;
    if (x)
        p->free_exchanges = x->next_free;
    else
        x = mem_new(MEM_CONN, sizeof *x);
    memset(x, 0, offsetof(struct exchange, inline_head));
    x->p = p;
    x->down = d;
    x->hold = p->hold;
    x->hold->uses++;
    x->start_ns = loop_now_ns(p->loop);
    list_init(&x->pending);
    d->x = x;
    counter_inc(&p->c.requests_now);
    return x;
}

static void hold_release(struct plan_hold *h)
{
    MUST(h->uses > 0);
    if (--h->uses == 0) {
        plan_unref(h->plan);
        mem_free(h);
    }
}

/* The exchange is over: counted, logged, taken off both sides. */
static void exchange_finish(struct exchange *x)
{
    struct proxy *p = x->p;
    timer_clear(&x->timer);
    series_count(x);
    access_end(x);
    if (x->tries && x->state == X_ANSWER)
        counter_inc(&p->c.retries_won);
    if (x->down)
        x->down->x = NULL;
    if (x->pending.next != &x->pending) {
        list_del(&x->pending);
        x->ep->pending_n--;
    }
    if (x->ep)
        endpoint_done(x->ep, p);
    hold_release(x->hold);
    if (x->cluster_hold)
        hold_release(x->cluster_hold);
    if (x->head != x->inline_head)
        mem_free(x->head);
    buf_free(&x->replay);
    buf_free(&x->log);
    counter_add(&p->c.requests_now, (uint64_t)-1);
    x->next_free = p->free_exchanges;
    p->free_exchanges = x;
}

void exchange_abandon(struct exchange *x, enum flag f)
{
    if (f != FLAG_NONE)
        x->flag = (uint8_t)f;
    if (x->up)
        up_close(x->up);
    exchange_finish(x);
}

/* An answer of our own: text is one sentence for people. */
static void answer_text(struct exchange *x, uint16_t status, enum flag f, const char *text)
{
    struct down *d = x->down;
    x->status = status;
    x->flag = (uint8_t)f;
    if (!x->request_end)
        h1_srv_last(&d->srv);
    head_local(x, status, "text/plain; charset=utf-8");
    struct iovec v[3] = {{(void *)(uintptr_t) "weir: ", 6}, {(void *)(uintptr_t)text, strlen(text)}, {(void *)(uintptr_t) "\n", 1}};
    size_t bytes = v[1].iov_len + 7;
    x->response_bytes += bytes;
    if (x->up) {
        up_close(x->up);
        x->up = NULL;
    }
    d->x = NULL;
    h1_srv_answer(&d->srv, &x->p->out, H1_LENGTH, bytes, (struct pieces){v, 3, bytes}, true);
    exchange_finish(x);
}

/* ---- time --------------------------------------------------------------------------------------------------------------- */

/* Waits at most ms for the next step, and never past the request's own deadline. */
static void exchange_wait(struct exchange *x, uint64_t ms)
{
    if (x->deadline_ms) {
        uint64_t now = loop_now_ms(x->p->loop);
        uint64_t left = x->deadline_ms > now ? x->deadline_ms - now : 0;
        ms = MIN(ms, left);
    }
    timer_set(x->p->loop, &x->timer, ms);
}

static uint64_t answer_ms(const struct exchange *x)
{
    return x->rule->backend_timeout_ms ? x->rule->backend_timeout_ms : x->rule->timeout_ms ? x->rule->timeout_ms : x->p->conf.answer_timeout_ms;
}

static void exchange_timer(struct timer *t)
{
    struct exchange *x = CONTAINER_OF(t, struct exchange, timer);
    struct proxy *p = x->p;
    bool over = x->deadline_ms && loop_now_ms(p->loop) >= x->deadline_ms;
    if (x->state == X_ANSWER) { /* too late for an answer of our own: cut it off */
        counter_inc(&p->c.timeouts_body);
        struct down *d = x->down;
        exchange_abandon(x, over ? FLAG_UT : FLAG_SI);
        h1_srv_close(&d->srv);
        return;
    }
    if (x->state == X_PAUSE && !over) {
        dispatch(x);
        return;
    }
    bool connecting = x->state == X_SOCKET || (x->up && !x->up->cli.connected);
    if (connecting && !over) {
        counter_inc(&p->c.timeouts_connect);
        if (x->pending.next != &x->pending) {
            list_del(&x->pending);
            x->ep->pending_n--;
        }
        exchange_failed(x, ERR_TIMEOUT, true);
        return;
    }
    counter_inc(&p->c.timeouts_answer);
    answer_text(x, 504, FLAG_UT, "the service did not answer in time");
}

/* ---- towards the endpoint --------------------------------------------------------------------------------------------------- */

/* Sends what is there of the request on u. */
static void send_request(struct exchange *x, struct up *u)
{
    u->x = x;
    x->up = u;
    x->state = X_SENT;
    struct iovec v = {x->replay.p, x->replay.n};
    struct pieces body = {&v, x->replay.n ? 1 : 0, x->replay.n};
    size_t queued = h1_cli_request(&u->cli, (enum h1_method)x->method_id, slice_of(x->head, x->head_n), (enum h1_framing)x->framing, body, x->request_end);
    exchange_wait(x, u->cli.connected ? answer_ms(x) : x->p->conf.connect_timeout_ms);
    if (!x->replayable)
        buf_free(&x->replay);
    if (!x->request_end)
        h1_srv_reading(&x->down->srv, queued == 0);
}

static void wait_socket(struct exchange *x)
{
    exchange_wait(x, x->p->conf.connect_timeout_ms);
    if (!x->request_end)
        h1_srv_reading(&x->down->srv, false);
}

/* Endpoints come and go between two attempts: the second one uses the newest plan's view of the same service port. */
static void cluster_refresh(struct exchange *x)
{
    struct plan_hold *now = x->p->hold;
    if (now == (x->cluster_hold ? x->cluster_hold : x->hold))
        return;
    for (uint32_t i = 0; i < now->plan->clusters_n; i++) {
        const struct plan_cluster *c = &now->plan->clusters[i];
        if (c->port != x->cluster->port || strcmp(c->service, x->cluster->service) != 0 || strcmp(c->ns, x->cluster->ns) != 0)
            continue;
        if (x->cluster_hold)
            hold_release(x->cluster_hold);
        now->uses++;
        x->cluster_hold = now;
        x->cluster = c;
        return;
    }
}

static void dispatch(struct exchange *x)
{
    struct proxy *p = x->p;
    cluster_refresh(x);
    struct endpoint *ep = endpoint_pick(x);
    if (!ep) {
        char text[256];
        struct buf b = {0};
        buf_printf(&b, "no endpoint of service %s/%s is ready", x->cluster->ns, x->cluster->service);
        size_t n = MIN(b.n, sizeof text - 1);
        memcpy(text, b.p, n);
        text[n] = 0;
        buf_free(&b);
        answer_text(x, 503, FLAG_UH, text);
        return;
    }
    if (ep->pending_n >= p->conf.pending_max) {
        counter_inc(&p->c.pending_over);
        answer_text(x, 503, FLAG_UO, "too many requests are waiting for this service");
        return;
    }
    x->ep = ep;
    ep->in_flight++;
    struct up *u = up_get(x);
    if (u)
        send_request(x, u);
    else
        wait_socket(x);
}

void exchange_socket(struct exchange *x)
{
    struct up *u = up_get(x);
    if (u)
        send_request(x, u);
}

void exchange_failed(struct exchange *x, enum err e, bool never_sent)
{
    struct proxy *p = x->p;
    struct endpoint *ep = x->ep;
    if (never_sent)
        counter_inc(&p->c.up_connect_failures);
    ep->shun_until_ms = loop_now_ms(p->loop) + SHUN_MS;
    bool again = x->replayable && (never_sent || x->idempotent) && e != ERR_SYNTAX;
    uint64_t tried_id = ep->id;
    if (x->up) {
        up_close(x->up);
        x->up = NULL;
    }
    x->ep = NULL;
    endpoint_done(ep, p);
    if (!x->replayable && x->idempotent)
        counter_inc(&p->c.replay_over);
    if (again && x->tries + 1u < p->conf.tries_max) {
        x->tried[x->tries % TRIED_MAX] = tried_id;
        x->tries++;
        counter_inc(&p->c.retries);
        cluster_refresh(x);
        struct endpoint *next = endpoint_pick(x);
        if (next && next->id == tried_id) { /* nothing else to try: give it a moment */
            x->state = X_PAUSE;
            if (!x->request_end)
                h1_srv_reading(&x->down->srv, false);
            exchange_wait(x, 20u + loop_random(p->loop) % (30u << x->tries));
            return;
        }
        dispatch(x);
        return;
    }
    if (never_sent)
        answer_text(x, 503, FLAG_UF, e == ERR_TIMEOUT ? "connecting to the service took too long" : "the service refused the connection");
    else if (e == ERR_SYNTAX)
        answer_text(x, 502, FLAG_UPE, "the service's answer was malformed");
    else
        answer_text(x, 502, FLAG_UC, "the service closed the connection before it answered");
}

/* ---- the client's side ---------------------------------------------------------------------------------------------------------- */

static struct down *down_of(struct h1_srv *c) { return CONTAINER_OF(c, struct down, srv); }

static bool route(struct exchange *x, const struct h1_head *h, struct plan_hit *hit)
{
    struct down *d = x->down;
    const struct plan *plan = x->hold->plan;
    if (d->door->token) {
        const struct plan_listener *ln = plan_listener_find(plan, d->door->token);
        return ln && plan_route(plan, ln, h, hit);
    }
    hit->rule = plan_mesh_rule(plan, &d->local);
    hit->prefix_len = 0;
    return hit->rule != NULL;
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

static void redirect(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit)
{
    struct down *d = x->down;
    struct buf location = {0};
    uint16_t status = x->rule->spec->redirect_status ? x->rule->spec->redirect_status : 302;
    head_location(x, h, hit, &location);
    x->status = status;
    if (!x->request_end)
        h1_srv_last(&d->srv);
    head_local(x, status, NULL);
    head_field(&x->p->out, SLICE("Location"), buf_slice(&location));
    buf_free(&location);
    d->x = NULL;
    h1_srv_answer(&d->srv, &x->p->out, H1_LENGTH, 0, (struct pieces){0}, true);
    exchange_finish(x);
}

/* A path with a dot segment, plain or percent-encoded ("/a/../b", "/%2e%2e/"): it would be routed as one path and taken by the
 * service as another. Clients resolve them before they send (RFC 3986 section 5.2.4). */
static bool has_dot_segment(struct slice path)
{
    const char *p = path.p, *end = path.p + path.n;
    while ((p = memchr(p, '/', (size_t)(end - p)))) {
        const char *q = ++p;
        int dots = 0;
        for (; dots < 3; dots++)
            if (q < end && *q == '.')
                q++;
            else if (end - q >= 3 && q[0] == '%' && q[1] == '2' && (q[2] | 32) == 'e')
                q += 3;
            else
                break;
        if ((dots == 1 || dots == 2) && (q == end || *q == '/'))
            return true;
    }
    return false;
}

/* What is refused before routing; true when it was answered. */
static bool refused_early(struct exchange *x, const struct h1_head *h)
{
    if (UNLIKELY(h->method_id == H1_CONNECT || h->method_id == H1_TRACE)) {
        answer_text(x, 501, FLAG_NONE, h->method_id == H1_CONNECT ? "CONNECT is not offered here" : "TRACE is not offered here");
        return true;
    }
    if (UNLIKELY(has_dot_segment(h->path))) {
        refusal_count(x->p, "dot_segments");
        answer_text(x, 400, FLAG_NONE, "the path has dot segments; send it resolved (RFC 3986 section 5.2.4)");
        return true;
    }
    if (UNLIKELY(h->upgrade)) {
        const struct h1_field *u = h1_get(h, H1_UPGRADE);
        if (!slice_ieq(u->value, SLICE("h2c"))) { /* an offer that RFC 9110 section 7.8 lets a server ignore */
            answer_text(x, 501, FLAG_NONE, "protocol upgrades (WebSocket among them) are not offered yet");
            return true;
        }
    }
    return false;
}

static void body_keep(struct exchange *x, struct pieces body)
{
    if (!x->replayable || !body.bytes)
        return;
    if (x->replay.n + body.bytes > REPLAY_BYTES_MAX) {
        x->replayable = false;
        buf_free(&x->replay);
        return;
    }
    for (int i = 0; i < body.n; i++)
        buf_add(&x->replay, body.v[i].iov_base, body.v[i].iov_len);
}

static bool method_idempotent(enum h1_method m)
{
    return m == H1_GET || m == H1_HEAD || m == H1_PUT || m == H1_DELETE || m == H1_OPTIONS;
}

/* The way to an endpoint, for a request whose head is built: the fast way first, a pooled connection and one write. */
static void begin(struct exchange *x, struct pieces body)
{
    struct endpoint *ep = endpoint_pick(x);
    struct up *u = NULL;
    x->replayable = true;
    if (LIKELY(ep && !list_empty(&ep->idle))) {
        x->ep = ep;
        ep->in_flight++;
        u = up_get(x);
    }
    if (LIKELY(u && u->cli.connected)) {
        if (x->idempotent)
            body_keep(x, body);
        else
            x->replayable = body.bytes == 0;
        u->x = x;
        x->up = u;
        x->state = X_SENT;
        size_t queued = h1_cli_request(&u->cli, (enum h1_method)x->method_id, slice_of(x->head, x->head_n), (enum h1_framing)x->framing, body, x->request_end);
        exchange_wait(x, answer_ms(x));
        if (queued && !x->request_end)
            h1_srv_reading(&x->down->srv, false);
        return;
    }
    body_keep(x, body);
    if (!x->replayable) { /* more in the first read than is kept for another attempt: it goes along with this one only */
        for (int i = 0; i < body.n; i++)
            buf_add(&x->replay, body.v[i].iov_base, body.v[i].iov_len);
    }
    if (u)
        send_request(x, u);
    else if (x->ep)
        wait_socket(x);
    else
        dispatch(x);
}

static void down_body(struct h1_srv *c, struct pieces body, bool end);

static void down_request(struct h1_srv *c, const struct h1_head *h, struct pieces body, bool end)
{
    struct down *d = down_of(c);
    bool trailers = end && h->framing == H1_CHUNKED && h1_srv_trailers(c)->trailer_n;
    struct exchange *x = exchange_new(d);
    struct plan_hit hit = {0};
    timer_init(&x->timer, exchange_timer);
    x->head = x->inline_head;
    x->method_id = (uint8_t)h->method_id;
    x->framing = (uint8_t)h->framing;
    x->request_end = end && !trailers;
    x->idempotent = method_idempotent(h->method_id);
    x->request_bytes = body.bytes;
    if (d->p->draining && d->door->token)
        h1_srv_last(c);
    access_begin(x, h);
    if (refused_early(x, h))
        return;
    if (!route(x, h, &hit)) {
        answer_text(x, 404, FLAG_NR, "no route matches this request");
        return;
    }
    x->rule = hit.rule;
    if (x->rule->timeout_ms)
        x->deadline_ms = loop_now_ms(d->p->loop) + x->rule->timeout_ms;
    if (x->rule->spec && x->rule->spec->redirect) {
        redirect(x, h, &hit);
        return;
    }
    x->backend = backend_pick(x);
    if (!x->backend || !x->backend->cluster) {
        answer_text(x, 500, FLAG_NC, "the route's backend does not exist");
        return;
    }
    x->cluster = x->backend->cluster;
    if (!head_request(x, h, &hit)) {
        answer_text(x, 431, FLAG_NONE, "the request's head is too large to pass on");
        return;
    }
    begin(x, body);
    if (UNLIKELY(trailers && d->x == x)) /* all came in one read: the end follows with the trailers */
        down_body(c, (struct pieces){0}, true);
}

static void down_body(struct h1_srv *c, struct pieces body, bool end)
{
    struct exchange *x = down_of(c)->x;
    if (!x)
        return; /* answered already: what still comes is thrown away */
    x->request_bytes += body.bytes;
    x->request_end = end;
    if (x->state == X_SOCKET || x->state == X_PAUSE) {
        for (int i = 0; i < body.n; i++)
            buf_add(&x->replay, body.v[i].iov_base, body.v[i].iov_len);
        if (x->replay.n > REPLAY_BYTES_MAX)
            x->replayable = false; /* it is sent, but once */
        return;
    }
    struct up *u = x->up;
    body_keep(x, body);
    if (u->cli.sent)
        return;
    size_t queued = body.bytes ? h1_cli_send(&u->cli, body) : 0;
    if (end) {
        if (trailers_request(x, h1_srv_trailers(c)) > 0)
            x->replayable = false; /* trailers are not kept */
        h1_cli_end(&u->cli, slice_of(x->p->out.p, x->p->out.n));
        if (x->state == X_SENT && u->cli.connected)
            exchange_wait(x, answer_ms(x));
        return;
    }
    if (x->state == X_SENT && u->cli.connected)
        exchange_wait(x, MAX(answer_ms(x), (uint64_t)x->p->conf.body_timeout_ms));
    else if (x->state == X_ANSWER && !u->cli.paused)
        exchange_wait(x, x->p->conf.body_timeout_ms); /* the exchange moves on, if only upwards */
    if (queued)
        h1_srv_reading(c, false);
}

static void down_drained(struct h1_srv *c)
{
    struct exchange *x = down_of(c)->x;
    if (x && x->up && x->state == X_ANSWER) {
        h1_cli_reading(&x->up->cli, true);
        exchange_wait(x, x->p->conf.body_timeout_ms);
    }
}

static void down_aborted(struct h1_srv *c, enum err e)
{
    struct exchange *x = down_of(c)->x;
    if (x)
        exchange_abandon(x, FLAG_DC);
}

static void down_refused(struct h1_srv *c, uint16_t status, const char *label) { refusal_count(down_of(c)->p, label); }

static void down_released(struct h1_srv *c)
{
    struct down *d = down_of(c);
    struct proxy *p = d->p;
    list_del(&d->link);
    p->downs_n--;
    counter_set(&p->c.connections_now, p->downs_n);
    if (d->door->token)
        p->outside_n--;
    d->door->downs--;
    door_release(d->door);
    mem_free(d);
    if (p->draining && p->outside_n == 0 && p->drained) {
        void (*done)(void *) = p->drained;
        p->drained = NULL;
        timer_clear(&p->drain_timer);
        done(p->drained_ctx);
    }
}

const struct h1_srv_ops down_ops = {
    .request = down_request, .body = down_body, .drained = down_drained, .aborted = down_aborted, .refused = down_refused, .released = down_released};

/* ---- the endpoint's side ---------------------------------------------------------------------------------------------------------- */

static struct up *up_of(struct h1_cli *c) { return CONTAINER_OF(c, struct up, cli); }

static void up_connected(struct h1_cli *c)
{
    struct exchange *x = up_of(c)->x;
    if (!x)
        return;
    if (!x->idempotent) { /* from here on it may have been sent */
        x->replayable = false;
        buf_free(&x->replay);
    }
    exchange_wait(x, answer_ms(x));
}

static void up_interim(struct h1_cli *c, const struct h1_head *h)
{
    struct exchange *x = up_of(c)->x;
    head_response(x, h);
    h1_srv_interim(&x->down->srv, &x->p->out);
}

static void up_done(struct exchange *x)
{
    struct up *u = x->up;
    x->up = NULL;
    exchange_finish(x);
    up_release(u);
}

/* More of the answer is to come. queued: the client does not keep up, so nothing more is read until drained(). */
static void answer_flow(struct exchange *x, size_t queued)
{
    if (!queued) {
        exchange_wait(x, x->p->conf.body_timeout_ms);
        return;
    }
    h1_cli_reading(&x->up->cli, false);
    timer_clear(&x->timer); /* it is not the service that is slow; the connection to the client has its own limit */
    if (x->deadline_ms)
        exchange_wait(x, UINT32_MAX);
}

/* The end of an answer, with the trailers that the service sent. */
static void answer_trailers(struct exchange *x, struct h1_cli *c)
{
    trailers_response(x, h1_cli_trailers(c));
    h1_srv_end(&x->down->srv, slice_of(x->p->out.p, x->p->out.n));
}

static void up_response(struct h1_cli *c, const struct h1_head *h, struct pieces body, bool end)
{
    struct exchange *x = up_of(c)->x;
    struct down *d = x->down;
    x->state = X_ANSWER;
    x->status = h->status;
    x->response_bytes = body.bytes;
    head_response(x, h);
    if (x->p->out.over) {
        x->state = X_SENT;
        answer_text(x, 502, FLAG_UPE, "the service's answer has a head that is too large to pass on");
        return;
    }
    bool trailers = end && h->framing == H1_CHUNKED && h1_cli_trailers(c)->trailer_n;
    if (end)
        d->x = NULL;
    size_t queued = h1_srv_answer(&d->srv, &x->p->out, h->framing, h->length, body, end && !trailers);
    if (trailers)
        answer_trailers(x, c);
    if (end) {
        up_done(x);
        return;
    }
    answer_flow(x, queued);
}

static void up_body(struct h1_cli *c, struct pieces body, bool end)
{
    struct exchange *x = up_of(c)->x;
    struct down *d = x->down;
    x->response_bytes += body.bytes;
    size_t queued = body.bytes ? h1_srv_send(&d->srv, body) : 0;
    if (!end) {
        answer_flow(x, queued);
        return;
    }
    d->x = NULL;
    answer_trailers(x, c);
    up_done(x);
}

static void up_drained(struct h1_cli *c)
{
    struct exchange *x = up_of(c)->x;
    if (x && !x->request_end)
        h1_srv_reading(&x->down->srv, true);
}

static void up_failed(struct h1_cli *c, enum err e)
{
    struct up *u = up_of(c);
    struct exchange *x = u->x;
    if (!x) {
        up_close(u);
        return;
    }
    if (x->state == X_ANSWER) {
        struct down *d = x->down;
        exchange_abandon(x, FLAG_UC);
        h1_srv_close(&d->srv);
        return;
    }
    exchange_failed(x, e, !c->connected);
}

static void up_idle_end(struct h1_cli *c) { up_close(up_of(c)); }

static void up_released(struct h1_cli *c)
{
    struct up *u = up_of(c);
    counter_add(&u->p->c.up_connections_now, (uint64_t)-1);
    mem_free(u);
}

const struct h1_cli_ops up_ops = {.connected = up_connected,
                                  .interim = up_interim,
                                  .response = up_response,
                                  .body = up_body,
                                  .drained = up_drained,
                                  .failed = up_failed,
                                  .idle_end = up_idle_end,
                                  .released = up_released};
