/* attempt.c - a request's way to an endpoint and back: sent, answered, or tried again.
 *
 *     exchange_begin() -> endpoint_pick() -> up_get() -----------------------> X_SENT -> X_ANSWER -> done
 *                             ^                 | no socket: X_SOCKET ----------^
 *                             |                 | version unknown: X_CONNECT ---'
 *                             '--- X_PAUSE <--- failed before an answer (and may be repeated)
 *
 * The rule of repetition: what was never sent may go elsewhere, whatever its method; what may have been sent goes elsewhere
 * only when its method is idempotent (RFC 9110 section 9.2.2) and nothing of an answer has been passed on. In both cases the
 * whole request must still be at hand: replay holds its body and its trailers while that is so. "Never sent" includes what went out on a kept
 * connection that its peer had closed before any of it arrived there; that is no fault of the endpoint, and no attempt.
 */
#include "proxy_int.h"

#define POUR_LENGTH_MIN 131072u /* a body of this length is worth a look whether it can be spliced */
#define REFUSED_STREAM 7u       /* REFUSED_STREAM, RFC 9113 section 7 */
#define TUNNEL_IDLE_MS 3600000u /* a tunnel in which nothing moves, or a spliced body: there it may be the client who does not read */

static void answer_wait(struct exchange *x);
static bool pour_moved(struct exchange *x);
static void attempt_again(struct exchange *x);
static void exchange_to(struct exchange *x, struct endpoint *ep);
static bool retry_take(struct exchange *x, uint32_t causes, bool safe);
static const struct retry_policy *retry_policy(const struct exchange *x);

static struct exchange *exchange_of(struct http_call *k) { return CONTAINER_OF(k, struct exchange, call); }

/* ---- time --------------------------------------------------------------------------------------------------------------- */

/* Until the head of the answer. While the client still sends, it is the one who may be slow: its connection's own limit comes first. */
static uint64_t answer_ms(const struct exchange *x)
{
    const struct plan_rule *r = x->rule;
    if (UNLIKELY(x->attempt_ms != 0)) /* which is what exchange_wait() goes by */
        return UINT32_MAX;
    uint64_t ms = r->backend_timeout_ms ? r->backend_timeout_ms : r->timeout_ms ? r->timeout_ms : r->untimed ? UINT32_MAX : x->p->conf.answer_timeout_ms;
    return LIKELY(x->request_end) ? ms : MAX(ms, x->p->conf.body_timeout_ms + 1000ull);
}

static uint64_t connect_ms(const struct exchange *x)
{
    uint32_t ms = x->cluster->policy->pool.connect_timeout_ms;
    return ms ? ms : x->p->conf.connect_timeout_ms;
}

static uint64_t body_ms(const struct exchange *x) { return x->tunnel ? TUNNEL_IDLE_MS : x->rule->untimed ? UINT32_MAX : x->p->conf.body_timeout_ms; }

void attempt_drop(struct exchange *x)
{
    struct up *u = x->up;
    if (!list_empty(&x->pending)) {
        list_del(&x->pending);
        if (x->state == X_SOCKET)
            x->ep->pending_n--;
    }
    if (x->us) {
        breaker_leave(x->us->c, BREAKER_PENDING, &x->held);
        breaker_leave(x->us->c, BREAKER_STARVED, &x->held);
    }
    if (u) {
        x->up = NULL;
        list_del(&x->in_up);
        if (UNLIKELY(x->more && x->more->pouring)) {
            pour_stop(&x->more->pour);
            x->more->pouring = false;
        }
        if (x->calling)
            http_call_cancel(&x->call);
        x->calling = false;
        up_done(u);
    }
    if (x->ep)
        endpoint_done(x);
}

/* gRPC's code for a service that reset the stream of its answer ("HTTP2 Transport Mapping", Errors; codes of RFC 9113 section 7). */
static uint32_t grpc_reset_code(uint32_t reset_code)
{
    switch (reset_code) {
    case 0x0: /* it was not reset: the connection broke */
    case REFUSED_STREAM: return 14;
    case 0x8: return 1;
    case 0xb: return 8;
    case 0xc: return 7;
    default: return 13;
    }
}

/* The answer has begun and can't be completed: the client sees that it is cut off. A gRPC call ends with a status that says why. */
static void answer_cut(struct exchange *x, enum flag f)
{
    struct http_req *r = x->req;
    uint32_t code = f == FLAG_UT ? 4 : f == FLAG_UPE ? 13 : f == FLAG_SI ? 14 : grpc_reset_code(x->call.reset_code);
    bool grpc = x->grpc && x->open_ended;
    x->req = NULL;
    r->owner = NULL;
    if (grpc)
        x->grpc_status = (uint8_t)(code + 1);
    exchange_abandon(x, f);
    if (grpc)
        answer_grpc_end(r, code, f == FLAG_UT ? "the service did not answer in time" : "the service's answer broke off");
    else
        http_req_cut(r);
}

/* No answer in time tells as much of the endpoint as an answer would. */
static void attempt_late(struct exchange *x)
{
    uint64_t now_ns = loop_now_ns(x->p->loop);
    struct cluster *c = x->us->c;
    if (!x->ep || !x->calling)
        return;
    outlier_result(c, &x->ep->lb, OUTCOME_LOCAL, now_ns / 1000000u, loop_random(x->p->loop));
    adaptive_sample(c, now_ns - x->sent_ns, now_ns / 1000000u);
    if (c->kind == LB_PEAK_EWMA)
        host_latency(&x->ep->lb, now_ns - x->sent_ns, now_ns);
}

/* A file that moves on, an aggregation that is out of time, a request whose hedges are. */
static void local_timer(struct exchange *x)
{
    struct exchange_more *m = x->more;
    if (m->file >= 0) {
        step_file_timer(x);
    } else if (m->aggregate) {
        aggregate_timer(x);
    } else {
        children_end(x);
        answer_text(x, 504, FLAG_UT, "the service did not answer in time");
    }
}

void exchange_timer(struct timer *t)
{
    struct exchange *x = CONTAINER_OF(t, struct exchange, timer);
    struct proxy *p = x->p;
    bool over = x->deadline_ms && loop_now_ms(p->loop) >= x->deadline_ms, tried = x->attempt_ms && loop_now_ms(p->loop) >= x->attempt_ms;
    if (UNLIKELY(x->role == X_TCP)) {
        tcp_timer(x);
        return;
    }
    if (UNLIKELY(x->state == X_LOCAL)) {
        local_timer(x);
        return;
    }
    if (UNLIKELY(x->state == X_BEGIN) && !over) {
        step_delayed(x);
        return;
    }
    if (x->state == X_ANSWER) { /* too late for an answer of our own: cut it off */
        if (!over && !tried && x->more && x->more->pouring && pour_moved(x))
            return;
        counter_inc(&p->c.timeouts_body);
        if (x->role != X_CLIENT) {
            child_failed(x, 504, FLAG_UT, "timeout");
            return;
        }
        answer_cut(x, over || tried ? FLAG_UT : FLAG_SI);
        return;
    }
    if (x->state == X_PAUSE && !over) {
        exchange_dispatch(x);
        return;
    }
    if (!over && x->state == X_PERMIT) { /* nothing that the endpoint could help */
        answer_text(x, 504, FLAG_UT, "all connections that the policy allows were in use for too long");
        return;
    }
    if (!over && (x->state == X_SOCKET || x->state == X_CONNECT || !x->up->cli.h1.connected)) {
        counter_inc(&p->c.timeouts_connect);
        attempt_failed(x, ERR_TIMEOUT, true);
        return;
    }
    counter_inc(&p->c.timeouts_answer);
    counter_inc(&x->us->c->count->timeouts);
    attempt_late(x);
    if (!over && tried && retry_policy(x) && retry_take(x, RETRY_5XX | RETRY_GATEWAY_ERROR | RETRY_RESET, x->idempotent)) {
        attempt_again(x);
        return;
    }
    answer_text(x, 504, FLAG_UT, "the service did not answer in time");
}

/* ---- another attempt ------------------------------------------------------------------------------------------------------- */

static const struct retry_policy *retry_policy(const struct exchange *x)
{
    return x->rule->spec && x->rule->spec->retry.given ? &x->rule->spec->retry : NULL;
}

/* Whether there may be another attempt, for causes (enum retry_on) that a route's policy may name. safe: it would do no harm, so
 * that a route without a policy, or with one that names other causes, gets it too. */
static bool retry_after(const struct exchange *x, uint32_t causes, bool safe)
{
    const struct retry_policy *r = retry_policy(x);
    uint32_t max = r ? r->attempts : x->p->conf.tries_max - 1;
    if (!x->replayable || x->tries >= max)
        return false;
    return safe || (r && (r->on & causes));
}

/* The same, and the policy of the cluster lets one more retry be in flight. */
static bool retry_take(struct exchange *x, uint32_t causes, bool safe)
{
    if (!retry_after(x, causes, safe))
        return false;
    if (x->held & 1u << BREAKER_RETRIES || breaker_enter(x->us->c, BREAKER_RETRIES, 0, &x->held) == OVERFLOW_NONE)
        return true;
    counter_inc(&x->p->c.retries_over);
    return false;
}

/* The causes that an answer is for another attempt, as Envoy's retry-on names them; 0: none. */
static uint32_t answer_causes(const struct exchange *x, const struct h1_head *h)
{
    const struct retry_policy *r = retry_policy(x);
    uint32_t causes = h->status >= 500 ? RETRY_5XX : h->status == 409 ? RETRY_4XX : 0;
    if (h->status >= 502 && h->status <= 504)
        causes |= RETRY_GATEWAY_ERROR;
    for (size_t i = 0; i < r->statuses_n; i++)
        if (r->statuses[i] == h->status)
            causes |= RETRY_STATUSES;
    const struct h1_field *f = x->grpc ? h1_find(h, SLICE("grpc-status")) : NULL; /* a call that was refused at once */
    uint64_t code;
    if (f && slice_u64(f->value, 16, &code) == OK)
        causes |= code == 1    ? RETRY_GRPC_CANCELLED
                  : code == 4  ? RETRY_GRPC_DEADLINE
                  : code == 8  ? RETRY_GRPC_EXHAUSTED
                  : code == 13 ? RETRY_GRPC_INTERNAL
                  : code == 14 ? RETRY_GRPC_UNAVAILABLE
                               : 0;
    return causes & r->on;
}

/* The answer is one that the route wants to try again: true when that is under way. */
static bool answer_again(struct exchange *x, const struct h1_head *h)
{
    uint32_t causes = answer_causes(x, h);
    if (!causes)
        return false;
    if (retry_take(x, causes, false)) {
        attempt_again(x);
        return true;
    }
    if (!x->replayable)
        counter_inc(&x->p->c.replay_over);
    if (retry_after(x, causes, false)) /* so it was the cluster's policy that said no */
        flag_set(x, FLAG_UO);
    else if (x->tries)
        flag_set(x, FLAG_URX);
    return false;
}

/* Without a policy only the same endpoint again is waited for. */
static uint64_t backoff_ms(const struct exchange *x, bool elsewhere)
{
    const struct retry_policy *r = retry_policy(x);
    if (!r && elsewhere)
        return 0;
    uint64_t random = loop_random(x->p->loop);
    if (!r)
        return 20u + random % (30u << MIN(x->tries, 6));
    return retry_backoff_ms(x->tries, r->backoff_base_ms, r->backoff_max_ms, random);
}

/* The attempt is given up for another one, which retry_after() has allowed. */
static void attempt_again(struct exchange *x)
{
    struct proxy *p = x->p;
    uint64_t tried_id = x->ep->lb.id;
    x->tried[x->tries % TRIED_MAX] = tried_id;
    x->tries++;
    counter_inc(&p->c.retries);
    counter_inc(&x->us->c->count->retries);
    attempt_drop(x);
    x->attempt_ms = 0;
    x->call.reset_code = 0;
    struct endpoint *next = retry_policy(x) ? NULL : endpoint_pick(x);
    uint64_t pause_ms = backoff_ms(x, !next || next->lb.id != tried_id);
    if (!pause_ms) {
        exchange_to(x, next ? next : endpoint_pick(x));
        return;
    }
    x->state = X_PAUSE;
    client_reading(x, false);
    exchange_wait(x, pause_ms);
}

/* Nothing failed and nothing was sent: no budget of retries or number of attempts has a say in it. */
void attempt_moved(struct exchange *x)
{
    attempt_drop(x);
    exchange_dispatch(x);
}

void attempt_failed(struct exchange *x, enum err e, bool unsent)
{
    struct proxy *p = x->p;
    if (UNLIKELY(x->role == X_TCP)) {
        tcp_failed(x);
        return;
    }
    if (UNLIKELY(e == ERR_UNSUPPORTED)) { /* the service is well, and will say the same next time */
        answer_text(x, 502, FLAG_UPE, "the service speaks HTTP/2 and does not take upgrades there (RFC 8441)");
        return;
    }
    if (unsent && !x->call.reset_code) {
        counter_inc(&p->c.up_connect_failures);
        counter_inc(&x->us->c->count->connect_failures);
    }
    bool refused = x->call.reset_code == REFUSED_STREAM; /* to take no more streams now is no failure */
    if (UNLIKELY(refused && x->ep->remote)) /* a gate says so of the replica, unless it leaves */
        refused = x->up && x->up->cli.ending;
    if (LIKELY(!refused)) {
        x->ep->lb.shun_until_ms = loop_now_ms(p->loop) + SHUN_MS;
        outlier_result(x->us->c, &x->ep->lb, OUTCOME_LOCAL, loop_now_ms(p->loop), loop_random(p->loop));
    }
    if (!x->replayable && x->idempotent)
        counter_inc(&p->c.replay_over);
    if (UNLIKELY(x->target != NULL)) { /* where else, is decided by its node */
        gate_give_back(x, unsent, unsent ? FLAG_UF : e == ERR_SYNTAX ? FLAG_UPE : FLAG_UC);
        return;
    }
    uint32_t causes = unsent ? (uint32_t)(RETRY_CONNECT_FAILURE | RETRY_REFUSED_STREAM | RETRY_RESET | RETRY_5XX | RETRY_GATEWAY_ERROR) : (uint32_t)(RETRY_RESET | RETRY_5XX);
    if (e != ERR_SYNTAX && retry_take(x, causes, unsent || x->idempotent)) {
        attempt_again(x);
        return;
    }
    if (unsent)
        answer_text(x, 503, FLAG_UF, e == ERR_TIMEOUT ? "connecting to the service took too long" : e == ERR_TLS ? "the TLS connection to the service failed" : "the service refused the connection");
    else if (e == ERR_SYNTAX)
        answer_text(x, 502, FLAG_UPE, "the service's answer was malformed");
    else
        answer_text(x, 502, FLAG_UC, e == ERR_TLS ? "the TLS connection to the service failed before it answered" : "the service closed the connection before it answered");
}

/* ---- towards the endpoint --------------------------------------------------------------------------------------------------- */

/* From here on there is this attempt only. */
static void body_forget(struct exchange *x)
{
    x->replayable = false;
    x->trailers_n = 0;
    buf_free(&x->replay);
}

/* u has room: what is there of the request goes out. */
static void request_send(struct exchange *x, struct up *u)
{
    breaker_leave(x->us->c, BREAKER_PENDING, &x->held);
    x->attempt_ms = 0;
    x->state = X_SENT;
    if (x->up != u) {
        x->up = u;
        list_push(&u->xs, &x->in_up);
    }
    x->calling = true;
    u->requests++;
    x->sent_ns = loop_now_ns(x->p->loop);
    struct iovec v = {x->replay.p, x->replay.n - x->trailers_n};
    struct pieces body = {&v, v.iov_len ? 1 : 0, v.iov_len};
    bool end = x->request_end && !x->trailers_n;
    size_t queued = http_cli_request(&u->cli, &x->call, (enum h1_method)x->method_id, slice_of(x->head, x->head_n), (enum h1_framing)x->framing, body, end);
    if (UNLIKELY(x->trailers_n))
        http_call_end(&x->call, slice_of(x->replay.p + v.iov_len, x->trailers_n));
    if (u->cli.h1.connected)
        answer_wait(x);
    else
        exchange_wait(x, connect_ms(x));
    if (!x->replayable)
        body_forget(x);
    client_reading(x, queued == 0);
}

/* The request is on its way: the time for the answer runs. The time of a try is the service's from when it has the whole request, which is the head alone where
 * a tunnel is asked for; until then answer_ms() counts the client in. */
static void answer_wait(struct exchange *x)
{
    const struct retry_policy *r = retry_policy(x);
    if (UNLIKELY(x->more != NULL))
        hedge_start(x);
    uint32_t ms = r && r->per_try_timeout_ms ? r->per_try_timeout_ms : x->rule->backend_timeout_ms;
    if (UNLIKELY(ms && !x->attempt_ms && (x->request_end || (x->framing == H1_TUNNEL && r && r->per_try_timeout_ms))))
        x->attempt_ms = loop_now_ms(x->p->loop) + ms;
    exchange_wait(x, answer_ms(x));
}

static void answer_none(struct exchange *x)
{
    if (x->role == X_TCP) {
        tcp_failed(x);
        return;
    }
    struct buf b = {0};
    enum lb_none why = cluster_none(x->us->c, loop_now_ms(x->p->loop));
    buf_printf(&b, "no endpoint of service %s/%s is ready", x->cluster->ns, x->cluster->service);
    if (why != LB_NONE_EMPTY)
        buf_printf(&b, ": %s", lb_none_text(why));
    buf_addc(&b, 0);
    answer_text(x, 503, FLAG_UH, b.p);
    buf_free(&b);
}

/* A choice is made once for each attempt: round robin, weights and slow starts count it as a request. */
static void exchange_to(struct exchange *x, struct endpoint *ep)
{
    struct proxy *p = x->p;
    if (!ep) {
        answer_none(x);
        return;
    }
    if (ep->pending_n >= p->conf.pending_max) {
        counter_inc(&p->c.pending_over);
        if (x->role == X_TCP) {
            tcp_failed(x);
            return;
        }
        answer_text(x, 503, FLAG_UO, "too many requests are waiting for this service");
        return;
    }
    endpoint_take(x, ep);
    exchange_socket(x);
}

void exchange_dispatch(struct exchange *x) { exchange_to(x, endpoint_pick(x)); }

/* x has an endpoint and there is no connection yet that takes it. */
static void wait(struct exchange *x)
{
    enum overflow over = breaker_enter(x->us->c, BREAKER_PENDING, 0, &x->held);
    if (UNLIKELY(over != OVERFLOW_NONE)) {
        answer_text(x, 503, FLAG_UO, overflow_text(over));
        return;
    }
    if (x->state != X_PERMIT) {
        x->attempt_ms = 0;
        exchange_wait(x, connect_ms(x));
    } else { /* the queue moves as answers do; to look again does not begin its time anew */
        if (!x->attempt_ms)
            x->attempt_ms = loop_now_ms(x->p->loop) + answer_ms(x);
        exchange_wait(x, UINT32_MAX);
    }
    client_reading(x, false);
}

void exchange_socket(struct exchange *x)
{
    breaker_leave(x->us->c, BREAKER_PENDING, &x->held);
    breaker_leave(x->us->c, BREAKER_STARVED, &x->held);
    if (UNLIKELY(x->role == X_TCP)) {
        tcp_socket(x);
        return;
    }
    struct up *u = up_get(x);
    if (u)
        request_send(x, u);
    else
        wait(x);
}

static void body_keep(struct exchange *x, struct pieces body)
{
    if (!x->replayable || !body.bytes)
        return;
    if (x->replay.n + body.bytes > REPLAY_BYTES_MAX) {
        body_forget(x);
        return;
    }
    for (int i = 0; i < body.n; i++)
        buf_add(&x->replay, body.v[i].iov_base, body.v[i].iov_len);
}

/* The way to an endpoint, for a request whose head is built: the fast way first, a kept connection and one write. */
void exchange_begin(struct exchange *x, struct pieces body)
{
    struct endpoint *ep = endpoint_pick(x);
    struct up *u = NULL;
    bool warm = LIKELY(ep && (!list_empty(&ep->idle) || !list_empty(&ep->shared)));
    x->replayable = true;
    if (LIKELY(warm)) {
        endpoint_take(x, ep);
        u = up_get(x);
    }
    if (LIKELY(u && u->cli.h1.connected)) {
        /* A connection of HTTP/2 may leave with GOAWAY and refuse what it has not looked at: that may always go out again. */
        if (x->idempotent || u->cli.version != HTTP_1 || retry_policy(x) || loop_now_ms(x->p->loop) - u->rest_ms >= STALE_REST_MS)
            body_keep(x, body);
        else
            x->replayable = body.bytes == 0;
        x->up = u;
        list_push(&u->xs, &x->in_up);
        x->calling = true;
        x->state = X_SENT;
        u->requests++;
        x->sent_ns = loop_now_ns(x->p->loop);
        size_t queued = http_cli_request(&u->cli, &x->call, (enum h1_method)x->method_id, slice_of(x->head, x->head_n), (enum h1_framing)x->framing, body, x->request_end);
        answer_wait(x);
        if (queued)
            client_reading(x, false);
        return;
    }
    body_keep(x, body);
    if (!x->replayable) { /* more in the first read than is kept for another attempt: it goes along with this one only */
        for (int i = 0; i < body.n; i++)
            buf_add(&x->replay, body.v[i].iov_base, body.v[i].iov_len);
    }
    if (u)
        request_send(x, u);
    else if (warm) /* none of those at rest was any good; now it waits, perhaps for any endpoint */
        wait(x);
    else
        exchange_to(x, ep);
}

/* The trailers that go upstream, as lines; a mirror gets none. They can be read while the client's side tells of the end, and not later. */
static struct slice request_trailers(struct exchange *x)
{
    struct h1_field f[H1_FIELDS_MAX];
    (void)trailers_request(x, f, x->req ? http_req_trailers(x->req, f, H1_FIELDS_MAX) : 0);
    return slice_of(x->p->out.p, x->p->out.n);
}

/* x->replay holds all of the body. */
static void trailers_keep(struct exchange *x, struct slice trailers)
{
    buf_add_slice(&x->replay, trailers);
    x->trailers_n = (uint32_t)trailers.n;
}

void request_more(struct exchange *x, struct pieces body, bool end)
{
    if (!x->calling) { /* X_BEGIN, X_SOCKET, X_PERMIT, X_CONNECT, X_PAUSE: it goes out with the head */
        for (int i = 0; i < body.n; i++)
            buf_add(&x->replay, body.v[i].iov_base, body.v[i].iov_len);
        if (end)
            trailers_keep(x, request_trailers(x));
        if (x->replay.n > REPLAY_BYTES_MAX)
            x->replayable = false; /* it is sent, but once */
        return;
    }
    body_keep(x, body);
    if (x->call.sent)
        return;
    size_t queued = body.bytes ? http_call_send(&x->call, body) : 0;
    if (end) {
        struct slice trailers = request_trailers(x);
        if (UNLIKELY(trailers.n && x->replayable)) {
            if (x->replay.n + trailers.n > REPLAY_BYTES_MAX)
                body_forget(x);
            else
                trailers_keep(x, trailers);
        }
        http_call_end(&x->call, trailers);
        if (x->state == X_SENT && x->up->cli.h1.connected)
            answer_wait(x);
        return;
    }
    if (x->state == X_SENT && x->up->cli.h1.connected)
        exchange_wait(x, answer_ms(x));
    else if (x->state == X_ANSWER && !x->stalled)
        exchange_wait(x, body_ms(x)); /* the exchange moves on, if only upwards */
    if (queued)
        client_reading(x, false);
}

void request_flow(struct exchange *x)
{
    if (x->state == X_LOCAL && x->more->copies) {
        step_file_more(x);
        return; /* x may be over */
    }
    if (!x->calling || x->state != X_ANSWER)
        return;
    x->stalled = false;
    http_call_reading(&x->call, true);
    exchange_wait(x, body_ms(x));
}

/* ---- from the endpoint ------------------------------------------------------------------------------------------------------- */

static void up_interim(struct http_call *k, const struct h1_head *h)
{
    struct exchange *x = exchange_of(k);
    if (!x->req)
        return;
    head_response(x, h);
    http_req_interim(x->req, &x->p->out);
}

/* The rest of a large answer goes on inside the kernel. */
static void poured(struct pour *pour, enum err e)
{
    struct exchange_more *m = CONTAINER_OF(pour, struct exchange_more, pour);
    struct exchange *x = m->x;
    m->pouring = false;
    x->response_bytes += pour->flow.moved;
    if (e != OK) {
        answer_cut(x, FLAG_UC);
        return;
    }
    struct http_req *r = x->req;
    http_call_poured(&x->call);
    x->calling = false;
    x->req = NULL;
    r->owner = NULL;
    http_req_end(r, SLICE(""));
    exchange_finish(x);
}

static bool answer_pour(struct exchange *x, const struct h1_head *h)
{
    if (LIKELY(h->framing != H1_LENGTH || h->length < POUR_LENGTH_MIN) || http_req_is_h2(x->req) || x->call.h2)
        return false;
    struct exchange_more *m = exchange_more(x);
    m->pouring = !m->answer_filter && http_call_pour(&x->call, x->req, &m->pour, poured);
    if (m->pouring)
        exchange_wait(x, MIN(body_ms(x), TUNNEL_IDLE_MS));
    return m->pouring;
}

/* Time is up, unless bytes have moved since it was last looked at. */
static bool pour_moved(struct exchange *x)
{
    struct exchange_more *m = x->more;
    if (m->pour.flow.moved == m->poured_before)
        return false;
    m->poured_before = m->pour.flow.moved;
    exchange_wait(x, MIN(body_ms(x), TUNNEL_IDLE_MS));
    return true;
}

/* More of the answer is to come. queued: the client does not keep up, so nothing more is read until request_flow(). */
static void answer_flow(struct exchange *x, size_t queued)
{
    if (!queued) {
        exchange_wait(x, body_ms(x));
        return;
    }
    x->stalled = true;
    http_call_reading(&x->call, false);
    timer_clear(&x->timer); /* it is not the service that is slow; the connection to the client has its own limit */
    if (x->deadline_ms || x->attempt_ms)
        exchange_wait(x, UINT32_MAX);
}

/* How a gRPC call ended, for its series; what is no code of gRPC is 2, UNKNOWN, as its libraries have it. */
static void grpc_ended(struct exchange *x, const struct h1_field *f)
{
    uint64_t code;
    if (f)
        x->grpc_status = (uint8_t)(1 + (slice_u64(f->value, GRPC_CODE_MAX, &code) == OK ? code : 2));
}

static void grpc_trailers(struct exchange *x, const struct h1_field *f, int n)
{
    for (int i = 0; i < n; i++)
        if (slice_ieq(f[i].name, SLICE("grpc-status")))
            grpc_ended(x, &f[i]);
}

/* The answer is complete: its last bytes, then the end with the trailers that the service sent. */
static void answer_end(struct exchange *x, struct http_call *k)
{
    struct http_req *r = x->req;
    struct h1_field f[H1_FIELDS_MAX];
    int n = http_call_trailers(k, f, H1_FIELDS_MAX);
    if (UNLIKELY(x->grpc))
        grpc_trailers(x, f, n);
    trailers_response(x, f, n);
    x->req = NULL;
    r->owner = NULL;
    http_req_end(r, slice_of(x->p->out.p, x->p->out.n));
}

/* An upgrade was agreed to: from now on it is neither late nor repeatable. */
static void tunnel_begin(struct exchange *x)
{
    x->tunnel = true;
    x->deadline_ms = x->attempt_ms = 0;
    body_forget(x);
}

/* The head is in p->out. */
static void answer_begin(struct exchange *x, struct http_call *k, const struct h1_head *h, enum h1_framing framing, struct pieces body, bool end)
{
    struct http_req *r = x->req;
    struct h1_field none;
    if (UNLIKELY(h->framing == H1_TUNNEL))
        tunnel_begin(x);
    bool trailers = end && h->framing == H1_CHUNKED && http_call_trailers(k, &none, 1) != 0;
    bool whole = end && !trailers;
    if (whole) {
        x->req = NULL;
        r->owner = NULL;
    }
    x->open_ended = framing == H1_CHUNKED;
    size_t queued = http_req_answer(r, &x->p->out, framing, h->length, body, whole);
    if (trailers)
        answer_end(x, k);
    if (end)
        exchange_finish(x);
    else if (queued || !answer_pour(x, h))
        answer_flow(x, queued);
}

/* The answer's body goes through a filter, so its length is not known before its end. The trailers behind it pass as ever. */
static void answer_filtered(struct exchange *x, struct http_call *k, struct pieces body, bool end, bool first)
{
    struct exchange_more *m = x->more;
    struct iovec v;
    struct pieces out;
    if (steps_body(x, m->answer_filter, body, end, &v, &out) != OK) {
        if (first)
            answer_text(x, 502, FLAG_UPE, "the service's answer can't be transformed as this route asks: it is malformed or too large");
        else
            answer_cut(x, FLAG_UPE);
        return;
    }
    struct http_req *r = x->req;
    struct h1_field none;
    bool whole = first && end && !http_call_trailers(k, &none, 1);
    if (whole) {
        x->req = NULL;
        r->owner = NULL;
    }
    size_t queued = 0;
    if (first) {
        x->open_ended = !whole;
        queued = http_req_answer(r, &x->p->out, whole ? H1_LENGTH : H1_CHUNKED, out.bytes, out, whole);
    } else if (out.bytes) {
        queued = http_req_send(r, out);
    }
    if (!end) {
        answer_flow(x, queued);
        return;
    }
    if (!whole)
        answer_end(x, k);
    exchange_finish(x);
}

static void answer_with_steps(struct exchange *x, struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    timer_clear(&x->more->hedge_timer);
    children_end(x);
    enum h1_framing framing = steps_answer(x, h);
    head_response(x, h);
    if (x->p->out.over) {
        answer_text(x, 502, FLAG_UPE, "the service's answer has a head that is too large to pass on");
        return;
    }
    if (x->more->answer_filter)
        answer_filtered(x, k, body, end, true);
    else
        answer_begin(x, k, h, framing, body, end);
}

/* A tunnel was asked for and the service gives an ordinary answer. True: it can't be passed on, for a client of HTTP/2 takes any 2xx for
 * the tunnel (RFC 8441 section 5). */
static bool tunnel_declined(struct exchange *x, const struct h1_head *h)
{
    if (h->framing == H1_TUNNEL || !x->req || !http_req_is_h2(x->req) || h->status / 100 != 2)
        return false;
    answer_text(x, 502, FLAG_UPE, "the service did not take the upgrade");
    return true;
}

static void up_response(struct http_call *k, const struct h1_head *h, struct pieces body, bool end)
{
    struct exchange *x = exchange_of(k);
    uint64_t now_ns = loop_now_ns(x->p->loop);
    struct cluster *c = x->us->c;
    x->calling = !end;
    if (UNLIKELY(c->outlier))
        outlier_result(c, &x->ep->lb, outcome_of(h->status), now_ns / 1000000u, loop_random(x->p->loop));
    adaptive_sample(c, now_ns - x->sent_ns, now_ns / 1000000u);
    if (UNLIKELY(c->kind == LB_PEAK_EWMA))
        host_latency(&x->ep->lb, now_ns - x->sent_ns, now_ns);
    if (UNLIKELY(retry_policy(x) != NULL) && answer_again(x, h))
        return;
    x->state = X_ANSWER;
    if (LIKELY(!x->rule->backend_timeout_ms)) /* HTTPRouteTimeouts: until the full answer has been received; a perTryTimeout, as Envoy's, until it begins */
        x->attempt_ms = 0;
    if (UNLIKELY(x->role != X_CLIENT)) {
        if (child_response(x, h, body, end))
            return;
    }
    if (UNLIKELY(x->framing == H1_TUNNEL) && tunnel_declined(x, h))
        return;
    x->status = h->status;
    x->response_bytes = body.bytes;
    if (UNLIKELY(x->grpc)) /* the whole answer may be its head */
        grpc_ended(x, h1_find(h, SLICE("grpc-status")));
    if (UNLIKELY(x->more != NULL)) {
        answer_with_steps(x, k, h, body, end);
        return;
    }
    head_response(x, h);
    if (x->p->out.over) {
        answer_text(x, 502, FLAG_UPE, "the service's answer has a head that is too large to pass on");
        return;
    }
    answer_begin(x, k, h, h->framing, body, end);
}

static void up_body(struct http_call *k, struct pieces body, bool end)
{
    struct exchange *x = exchange_of(k);
    x->calling = !end;
    if (UNLIKELY(x->role != X_CLIENT)) {
        child_body(x, body, end);
        return;
    }
    x->response_bytes += body.bytes;
    if (UNLIKELY(x->more != NULL) && x->more->answer_filter) {
        answer_filtered(x, k, body, end, false);
        return;
    }
    size_t queued = body.bytes ? http_req_send(x->req, body) : 0;
    if (!end) {
        answer_flow(x, queued);
        return;
    }
    answer_end(x, k);
    exchange_finish(x);
}

static void up_drained(struct http_call *k) { client_reading(exchange_of(k), true); }

/* The kept connection had ended before the request came there: true when it goes out again, on a new one, as if nothing had been sent. No endpoint was tried by
 * that: where a policy or another node pins the request, it is the same one again, and where that has left meanwhile, it may go elsewhere. */
static bool stale_again(struct exchange *x)
{
    if (!x->replayable || x->stale)
        return false;
    x->stale = true;
    counter_inc(&x->p->c.up_stale);
    attempt_drop(x);
    x->state = X_BEGIN;
    x->attempt_ms = 0;
    exchange_dispatch(x);
    return true;
}

static void up_failed(struct http_call *k, enum err e)
{
    struct exchange *x = exchange_of(k);
    x->calling = false;
    if (UNLIKELY(k->reset_code == REFUSED_STREAM) && k->c && x->ep)
        x->ep->streams_told = http_cli_streams_told(k->c);
    if (k->stale && x->state == X_SENT && stale_again(x))
        return;
    if (x->state == X_ANSWER && x->role != X_CLIENT)
        child_failed(x, 502, FLAG_UC, "the service closed the connection inside its answer");
    else if (x->state == X_ANSWER)
        answer_cut(x, FLAG_UC);
    else
        attempt_failed(x, e, k->unsent);
}

static struct up *up_of(struct http_cli *c) { return CONTAINER_OF(c, struct up, cli); }

/* Its version is known: those that waited for it go out as far as there is room, the others look again. */
static void connect_over(struct exchange *x, struct up *u)
{
    if (up_room(u)) {
        request_send(x, u);
        return;
    }
    x->up = NULL;
    list_del(&x->in_up);
    exchange_socket(x);
}

static void up_connected(struct http_cli *c)
{
    struct up *u = up_of(c);
    LIST_FOREACH(l, &u->xs) {
        struct exchange *x = CONTAINER_OF(l, struct exchange, in_up);
        if (x->state == X_CONNECT) {
            connect_over(x, u);
            continue;
        }
        if (!x->idempotent && !retry_policy(x) && c->version != HTTP_2) /* from here on it may have been sent; HTTP/2 tells */
            body_forget(x);
        answer_wait(x);
    }
}

static void up_ended(struct http_cli *c, enum err e)
{
    struct up *u = up_of(c);
    u->closed = true;
    LIST_FOREACH(l, &u->xs) /* those in X_CONNECT */
        attempt_failed(CONTAINER_OF(l, struct exchange, in_up), e, true);
    up_close(u);
}

static void up_released(struct http_cli *c)
{
    struct up *u = up_of(c);
    counter_add(&u->p->c.up_connections_now, (uint64_t)-1);
    tls_ctx_unref(u->tls);
    mem_free(u);
}

const struct http_cli_ops up_ops = {.connected = up_connected,
                                    .interim = up_interim,
                                    .response = up_response,
                                    .body = up_body,
                                    .drained = up_drained,
                                    .failed = up_failed,
                                    .ended = up_ended,
                                    .released = up_released};
