/* child.c - requests that no client made itself: mirrors, hedges, and the parts of an aggregated answer.
 *
 *     X_MIRROR  a copy for another cluster; its answer is thrown away, nobody waits for it, and it outlives its parent
 *     X_HEDGE   a second attempt beside a slow first one; whichever answers first is the client's, the other is given up
 *     X_PART    one of the services that an aggregating route asks; its answer is kept until all are there or out of time
 *
 * A child is an exchange like any other, with attempts, retries and breakers of its own, but without a client: where others
 * answer, a child tells its parent. Hedges and parts end with their parent.
 */
#include "proxy_int.h"

#define MIRROR_QUEUE_MAX (256u << 10) /* bytes of a body that wait for a slow mirror; more: it is given up */
#define PARTS_MAX 32                  /* the reader's limit on parts; asserted */

static struct exchange *child_new(struct exchange *x, enum exchange_role role, const struct plan_cluster *c)
{
    struct proxy *p = x->p;
    struct exchange *k = exchange_new(p, x->door);
    k->role = (uint8_t)role;
    exchange_share_plan(k, x);
    k->rule = x->rule;
    k->backend = x->backend;
    k->cluster = c;
    struct upstream *us = upstream_of(p, c);
    if (us)
        k->us = upstream_hold(us);
    k->method_id = x->method_id;
    k->idempotent = x->idempotent;
    k->secure = x->secure;
    k->rank = x->rank;
    k->deadline_ms = x->deadline_ms;
    memcpy(k->trace_id, x->trace_id, sizeof k->trace_id);
    memcpy(k->trace_flags, x->trace_flags, sizeof k->trace_flags);
    memcpy(k->request_id, x->request_id, sizeof k->request_id);
    k->request_id_n = x->request_id_n;
    exchange_more(k);
    counter_inc(&p->c.children);
    return k;
}

/* The same head and, as far as it is there, the same body. */
static void child_copy(struct exchange *k, const struct exchange *x)
{
    k->framing = x->framing;
    k->request_end = x->request_end;
    if (x->head_n > HEAD_INLINE_BYTES)
        k->head = mem_new(MEM_CONN, x->head_n);
    memcpy(k->head, x->head, x->head_n);
    k->head_n = x->head_n;
}

/* False: it was not begun, and is over. Its cluster counts it like any request. */
static bool child_start(struct exchange *k, struct pieces body)
{
    if (!k->us) { /* its cluster left with a newer plan */
        child_failed(k, 503, FLAG_NC, "the service is gone");
        return false;
    }
    uint32_t rank = k->cluster->policy->shed.header ? k->rank : 0;
    enum overflow over = breaker_enter(k->us->c, BREAKER_REQUESTS, rank, &k->held);
    if (UNLIKELY(over != OVERFLOW_NONE)) {
        child_failed(k, 503, FLAG_UO, overflow_text(over));
        return false;
    }
    exchange_begin(k, body);
    return true;
}

/* ---- mirrors ------------------------------------------------------------------------------------------------------------ */

void mirrors_begin(struct exchange *x, struct pieces body)
{
    const struct plan_rule *r = x->rule;
    for (uint32_t i = 0; i < r->mirrors_n; i++) {
        const struct plan_mirror *m = &r->mirrors[i];
        if (!m->cluster || (m->ppm < 1000000 && loop_random(x->p->loop) % 1000000u >= m->ppm))
            continue;
        struct exchange *k = child_new(x, X_MIRROR, m->cluster);
        struct upstream *us = k->us;
        child_copy(k, x);
        list_push(&exchange_more(x)->mirrors, &k->more->sibling);
        k->more->parent = x;
        if (child_start(k, body)) {
            counter_inc(&x->p->c.mirrored);
            counter_inc(&us->c->count->mirrored);
        }
    }
}

void mirrors_body(struct exchange *x, struct pieces body, bool end)
{
    LIST_FOREACH(l, &x->more->mirrors) {
        struct exchange *k = CONTAINER_OF(l, struct exchange_more, sibling)->x;
        k->request_bytes += body.bytes;
        k->request_end = end;
        request_more(k, body, end);
        if ((k->calling ? http_call_queued(&k->call) : k->replay.n) > MIRROR_QUEUE_MAX) {
            counter_inc(&x->p->c.mirrors_slow);
            exchange_abandon(k, FLAG_NONE);
        }
    }
}

/* ---- hedges --------------------------------------------------------------------------------------------------------------- */

bool hedges_pending(const struct exchange *x) { return x->more->hedge && !list_empty(&x->more->children); }

/* What may not be done twice is not sent twice, unless the route has retries: then its operator says that it may. */
static bool hedge_allowed(const struct exchange *x) { return x->idempotent || (x->rule->spec && x->rule->spec->retry.given); }

void hedge_start(struct exchange *x)
{
    struct exchange_more *m = x->more;
    if (m->hedge && m->hedges < m->hedge->max && hedge_allowed(x) && !timer_is_set(&m->hedge_timer))
        timer_set(x->p->loop, &m->hedge_timer, MAX(m->hedge->delay_ms, 1u));
}

void hedge_timer(struct timer *t)
{
    struct exchange_more *m = CONTAINER_OF(t, struct exchange_more, hedge_timer);
    struct exchange *x = m->x;
    if (x->state == X_ANSWER || !x->request_end || !x->replayable || x->trailers_n || !x->ep) /* a child gets no trailers */
        return;
    struct exchange *k = child_new(x, X_HEDGE, x->cluster);
    child_copy(k, x);
    m->hedges++;
    k->more->parent = x;
    list_push(&m->children, &k->more->sibling);
    k->tried[0] = x->ep->lb.id; /* elsewhere, if there is an elsewhere */
    k->tries = 1;
    k->hash = x->hash;
    struct iovec v = {x->replay.p, x->replay.n};
    struct proxy *p = x->p;
    struct upstream *us = x->us;
    hedge_start(x);
    if (!child_start(k, (struct pieces){&v, x->replay.n ? 1 : 0, x->replay.n}))
        return;
    counter_inc(&p->c.hedges);
    counter_inc(&us->c->count->hedges);
}

/* k has answered first: it takes the client over, with all that belongs to it, and what x was doing is given up. */
static void hedge_wins(struct exchange *k)
{
    struct exchange *x = k->more->parent;
    struct exchange_more *mine = k->more;
    counter_inc(&k->p->c.hedges_won);
    list_del(&mine->sibling);
    mine->parent = NULL;
    mine->x = x;
    k->more = x->more;
    k->more->x = k;
    x->more = mine;
    children_end(k);
    timer_clear(&k->more->hedge_timer);
    k->role = X_CLIENT;
    k->req = x->req;
    k->req->owner = k;
    k->down = x->down;
    list_del(&x->in_down);
    list_push(&k->down->xs, &k->in_down);
    k->grpc = x->grpc;
    k->flag |= x->flag & FLAG_DI;
    k->start_ns = x->start_ns;
    k->request_bytes = x->request_bytes;
    struct buf log = k->log;
    k->log = x->log;
    x->log = log;
    x->req = NULL;
    x->down = NULL;
    x->role = X_HEDGE;
    exchange_finish(x);
}

/* ---- parts ------------------------------------------------------------------------------------------------------------------ */

struct aggregate {
    const struct plan_filter *pf;
    uint32_t left;                      /* parts whose result is open, and one while they are begun */
    uint8_t flag;                       /* enum flag: of the first required part that failed with one */
    struct aggregate_result results[PARTS_MAX];
    struct buf bodies[PARTS_MAX];
};

static void aggregate_complete(struct exchange *x)
{
    struct aggregate *g = x->more->aggregate;
    struct buf out = {0};
    for (uint32_t i = 0; i < g->pf->spec->aggregate.parts_n; i++)
        g->results[i].body = buf_slice(&g->bodies[i]);
    x->status = aggregate_merge(&g->pf->spec->aggregate, g->results, &out);
    if (x->status != 200)
        flag_set(x, x->status == 504 ? FLAG_UT : g->flag ? (enum flag)g->flag : FLAG_UPE);
    head_local(x, x->status, "application/json");
    steps_put(x, NULL, &x->p->out);
    struct slice body = steps_compress(x, SLICE("application/json"), buf_slice(&out));
    struct iovec v = {(void *)(uintptr_t)body.p, body.n};
    answer_pieces(x, (struct pieces){&v, 1, body.n});
    buf_free(&out);
}

static void part_settled(struct exchange *x)
{
    if (--x->more->aggregate->left == 0)
        aggregate_complete(x);
}

static void part_missing(struct exchange *x, uint32_t part, const char *why)
{
    struct aggregate_result *r = &x->more->aggregate->results[part];
    r->arrived = false;
    r->why = why;
    counter_inc(&x->p->c.parts_missing);
    part_settled(x);
}

/* k, a part, is over: its body arrived, or why it did not. */
static void part_over(struct exchange *k, const char *why)
{
    struct exchange *x = k->more->parent;
    uint32_t part = k->more->part;
    struct aggregate *g = x->more->aggregate;
    g->results[part].status = k->status;
    if (why && !g->flag && g->pf->spec->aggregate.parts[part].required)
        g->flag = k->flag;
    if (!why) {
        g->bodies[part] = k->more->body;
        k->more->body = (struct buf){0};
        g->results[part].arrived = true;
    }
    exchange_finish(k);
    if (why)
        part_missing(x, part, why);
    else
        part_settled(x);
}

static void part_begin(struct exchange *x, uint32_t i, const struct h1_head *h)
{
    struct aggregate *g = x->more->aggregate;
    const struct aggregate_part *part = &g->pf->spec->aggregate.parts[i];
    const struct plan_cluster *c = g->pf->parts[i].cluster;
    struct buf path = {0};
    const char *missing = NULL;
    if (!c) {
        part_missing(x, i, "its service does not exist");
        return;
    }
    if (!aggregate_path(part, h, &path, &missing)) {
        part_missing(x, i, missing);
        buf_free(&path);
        return;
    }
    struct exchange *k = child_new(x, X_PART, c);
    k->more->parent = x;
    k->more->part = i;
    list_push(&x->more->children, &k->more->sibling);
    k->method_id = H1_GET;
    k->idempotent = k->request_end = true;
    k->framing = H1_NO_BODY;
    uint32_t ms = part->timeout_ms;
    uint64_t due = loop_now_ms(x->p->loop) + ms;
    if (ms && (!k->deadline_ms || due < k->deadline_ms))
        k->deadline_ms = due;
    if (head_part(k, h, buf_slice(&path)))
        child_start(k, (struct pieces){0});
    else
        child_failed(k, 431, FLAG_NONE, "its request would be too large");
    buf_free(&path);
}

enum step aggregate_begin(struct exchange *x, const struct plan_filter *pf, const struct h1_head *h)
{
    const struct aggregate_filter *spec = &pf->spec->aggregate;
    MUST(spec->parts_n <= PARTS_MAX);
    if (h->method_id != H1_GET && h->method_id != H1_HEAD) {
        answer_method(x, "GET, HEAD", "what is gathered from several services can be read only: GET");
        return STEP_OVER;
    }
    struct aggregate *g = exchange_more(x)->aggregate = mem_new(MEM_CONN, sizeof *g);
    g->pf = pf;
    g->left = (uint32_t)spec->parts_n + 1;
    x->state = X_LOCAL;
    uint64_t due = loop_now_ms(x->p->loop) + spec->timeout_ms;
    if (spec->timeout_ms && (!x->deadline_ms || due < x->deadline_ms))
        x->deadline_ms = due;
    exchange_wait(x, x->p->conf.answer_timeout_ms);
    for (uint32_t i = 0; i < spec->parts_n; i++)
        part_begin(x, i, h);
    part_settled(x);
    return STEP_OVER;
}

void aggregate_timer(struct exchange *x)
{
    struct aggregate *g = x->more->aggregate;
    for (uint32_t i = 0; i < g->pf->spec->aggregate.parts_n; i++)
        if (!g->results[i].arrived && !g->results[i].why) {
            g->results[i].why = "timeout";
            counter_inc(&x->p->c.parts_missing);
        }
    children_end(x);
    aggregate_complete(x);
}

void aggregate_free(struct aggregate *g)
{
    for (uint32_t i = 0; g && i < PARTS_MAX; i++)
        buf_free(&g->bodies[i]);
    mem_free(g);
}

static void part_body(struct exchange *k, struct pieces body, bool end)
{
    const struct aggregate *g = k->more->parent->more->aggregate;
    struct buf *b = &k->more->body;
    if (b->n + body.bytes > g->pf->spec->aggregate.part_bytes_max) {
        part_over(k, "too large");
        return;
    }
    for (int i = 0; i < body.n; i++)
        buf_add(b, body.v[i].iov_base, body.v[i].iov_len);
    if (end)
        part_over(k, NULL);
    else
        exchange_wait(k, k->p->conf.body_timeout_ms);
}

/* ---- what children tell ---------------------------------------------------------------------------------------------------------- */

bool child_response(struct exchange *x, const struct h1_head *h, struct pieces body, bool end)
{
    switch ((enum exchange_role)x->role) {
    case X_HEDGE:
        hedge_wins(x);
        return false;
    case X_PART:
        x->status = h->status;
        if (h->status < 200 || h->status > 299) {
            static const char *const why[] = {"status 1xx", "status 2xx", "status 3xx", "status 4xx", "status 5xx"};
            part_over(x, h->status == 404 ? "status 404" : why[MIN(h->status / 100u, 5u) - 1]);
            return true;
        }
        part_body(x, body, end);
        return true;
    case X_MIRROR:
        x->status = h->status;
        child_body(x, body, end);
        return true;
    case X_CLIENT:
    case X_TCP:
        break;
    }
    return false;
}

void child_body(struct exchange *x, struct pieces body, bool end)
{
    x->response_bytes += body.bytes;
    if (x->role == X_PART)
        part_body(x, body, end);
    else if (end)
        exchange_finish(x);
    else
        exchange_wait(x, x->p->conf.body_timeout_ms);
}

void child_failed(struct exchange *x, uint16_t status, enum flag f, const char *text)
{
    struct exchange *parent = x->more->parent;
    enum exchange_role role = (enum exchange_role)x->role;
    x->status = status;
    flag_set(x, f);
    if (role == X_PART) {
        part_over(x, f == FLAG_UT ? "timeout" : f == FLAG_UO ? "overloaded" : f == FLAG_UH ? "no endpoint is ready" : f == FLAG_NC ? "its service is gone" : f == FLAG_UPE ? "malformed answer" : "refused");
        return;
    }
    exchange_finish(x);
    if (role == X_HEDGE && parent && parent->state == X_LOCAL && list_empty(&parent->more->children))
        answer_text(parent, status, f, text);
}

void children_end(struct exchange *x)
{
    struct exchange_more *m = x->more;
    LIST_FOREACH(l, &m->children) {
        struct exchange *k = CONTAINER_OF(l, struct exchange_more, sibling)->x;
        k->more->parent = NULL;
        exchange_abandon(k, FLAG_NONE);
    }
    LIST_FOREACH(l, &m->mirrors) {
        struct exchange *k = CONTAINER_OF(l, struct exchange_more, sibling)->x;
        k->more->parent = NULL;
        list_del(l);
        if (!k->request_end)
            exchange_abandon(k, FLAG_NONE);
    }
}
