/* steps.c - what a route does to a request beyond passing it on: CORS, faults, answers of its own, files, splits, bodies changed
 * on their way. Only routes that are not plan_rule.plain come here.
 *
 *     steps_request()  in this order: CORS, fault, redirect, direct answer, then HTTPFilters: file, aggregation, what is only noted for the answer
 *                      (compression before all of these, since an aggregation may be compressed)
 *     steps_answer()   at the answer's head: which filter its body goes through
 */
#include "proxy_int.h"

#define FILE_READ_BYTES 65536
#define FILE_TURN_BYTES (4 * FILE_READ_BYTES) /* of one file by copying, before others have their turn */

/* ---- what only some requests have ------------------------------------------------------------------------------------- */

static void file_next(struct task *t);

struct exchange_more *exchange_more(struct exchange *x)
{
    struct exchange_more *m = x->more;
    if (m)
        return m;
    m = x->more = mem_new(MEM_CONN, sizeof *m);
    m->x = x;
    m->file = -1;
    list_init(&m->children);
    list_init(&m->sibling);
    list_init(&m->mirrors);
    task_init(&m->file_next, file_next);
    timer_init(&m->hedge_timer, hedge_timer);
    return m;
}

static void filter_free(struct body_filter **f)
{
    if (*f)
        (*f)->ops->free(*f);
    *f = NULL;
}

void more_free(struct exchange *x)
{
    struct exchange_more *m = x->more;
    if (!m)
        return;
    timer_clear(&m->hedge_timer);
    list_del(&m->file_next.link);
    pour_stop(&m->pour); /* a file on its way to a client who has left, or is let go */
    filter_free(&m->request_filter);
    filter_free(&m->answer_filter);
    buf_free(&m->filtered);
    buf_free(&m->cookie);
    buf_free(&m->body);
    if (m->file >= 0)
        file_close(m->file);
    aggregate_free(m->aggregate);
    x->more = NULL;
    mem_free(m);
}

/* ---- at the request's head ------------------------------------------------------------------------------------------------ */

struct origins {
    const struct cors_policy *policy;
    const struct plan_regex *const *regexes;
};

static bool origin_matches(void *ctx, const struct string_match *m, struct slice value)
{
    const struct origins *o = ctx;
    return plan_string_match(m, o->regexes ? o->regexes[m - o->policy->origins] : NULL, value);
}

static enum step cors_step(struct exchange *x, const struct cors_policy *c, const struct plan_regex *const *regexes, const struct h1_head *h)
{
    struct exchange_more *m = exchange_more(x);
    struct origins origins = {c, regexes};
    m->cors_policy = c;
    if (!cors_request(c, h, origin_matches, &origins, &m->cors))
        return STEP_ON;
    x->status = 204;
    head_local(x, 204, NULL);
    cors_put(c, &m->cors, &x->p->out);
    answer_pieces(x, (struct pieces){0});
    return STEP_OVER;
}

static bool chance(struct exchange *x, uint32_t ppm) { return ppm && loop_random(x->p->loop) % 1000000u < ppm; }

static void answer_abort(struct exchange *x, const struct fault_policy *f)
{
    if (f->abort_grpc >= 0 && x->grpc)
        answer_grpc(x, (uint32_t)f->abort_grpc, FLAG_FI, "a fault of this route");
    else
        answer_text(x, f->abort_status ? f->abort_status : 503, FLAG_FI, "a fault of this route");
}

/* A fault's delay runs before its abort, as in Envoy, and both before anything goes out: what is aborted has no mirrors. */
static enum step fault_step(struct exchange *x, const struct fault_policy *f)
{
    bool delay = chance(x, f->delay_ppm), abort = chance(x, f->abort_ppm);
    if (!x->rule->backends_n) /* Weir itself answers, at once: the reader has said so */
        delay = false;
    if (delay) {
        struct exchange_more *m = exchange_more(x);
        m->delay_ms = MAX(f->delay_ms, 1u);
        m->abort = abort ? f : NULL;
    }
    if (delay || !abort)
        return STEP_ON;
    answer_abort(x, f);
    return STEP_OVER;
}

void step_delayed(struct exchange *x)
{
    const struct fault_policy *f = x->more->abort;
    struct iovec v = {x->replay.p, x->replay.n - x->trailers_n};
    x->more->delay_ms = 0;
    if (f) {
        answer_abort(x, f);
        return;
    }
    mirrors_begin(x, (struct pieces){&v, v.iov_len ? 1 : 0, v.iov_len});
    exchange_dispatch(x);
}

static enum step direct_step(struct exchange *x, uint16_t status, const char *type, const char *body, size_t n)
{
    struct iovec v = {(void *)(uintptr_t)body, n};
    x->status = status;
    head_local(x, status, n ? type ? type : "text/plain; charset=utf-8" : NULL);
    if (x->more)
        steps_put(x, NULL, &x->p->out);
    answer_pieces(x, (struct pieces){&v, n ? 1 : 0, n});
    return STEP_OVER;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------- */

static void file_sent(struct pour *pour, enum err e)
{
    struct exchange_more *m = CONTAINER_OF(pour, struct exchange_more, pour);
    struct exchange *x = m->x;
    struct http_req *r = x->req;
    x->req = NULL;
    r->owner = NULL;
    if (e == OK)
        http_req_end(r, SLICE(""));
    else
        http_req_cut(r);
    exchange_finish(x);
}

/* HTTP/2, where frames go between: what fits now; more when it is drained, or, from a client that takes all there is, in the next turn. */
void step_file_more(struct exchange *x)
{
    struct exchange_more *m = x->more;
    char *at = mem_new(MEM_CONN, FILE_READ_BYTES);
    uint64_t turn_end = m->file_offset + FILE_TURN_BYTES;
    size_t queued = 0;
    enum err e = OK;
    list_del(&m->file_next.link);
    while (m->file_left && m->file_offset < turn_end && !queued && e == OK) {
        size_t n = MIN(m->file_left, (uint64_t)FILE_READ_BYTES);
        e = file_read_at(m->file, m->file_offset, at, n);
        struct iovec v = {at, n};
        if (e == OK)
            queued = http_req_send(x->req, (struct pieces){&v, 1, n});
        m->file_left -= n;
        m->file_offset += n;
    }
    mem_free(at);
    exchange_wait(x, x->p->conf.body_timeout_ms);
    if (e != OK || !m->file_left)
        file_sent(&m->pour, e);
    else if (!queued)
        loop_defer(x->p->loop, &m->file_next);
}

static void file_next(struct task *t) { step_file_more(CONTAINER_OF(t, struct exchange_more, file_next)->x); }

/* A client that takes nothing within the time is let go. */
void step_file_timer(struct exchange *x)
{
    struct exchange_more *m = x->more;
    if (m->pour.flow.moved != m->file_moved) {
        m->file_moved = m->pour.flow.moved;
        exchange_wait(x, x->p->conf.body_timeout_ms);
        return;
    }
    pour_stop(&m->pour);
    file_sent(&m->pour, ERR_TIMEOUT);
}

static enum step static_step(struct exchange *x, const struct static_filter *spec, const struct h1_head *h, const struct plan_hit *hit)
{
    struct static_answer a = {.fd = -1};
    struct exchange_more *m = exchange_more(x);
    uint32_t skip = MIN(hit->prefix_len, (uint32_t)h->path.n);
    head_clear(&x->p->out);
    static_request(spec, h, slice_of(h->path.p + skip, h->path.n - skip), &x->p->out, &a);
    x->status = a.status;
    head_local_end(x, &x->p->out);
    steps_put(x, NULL, &x->p->out);
    if (a.fd < 0 || h->method_id == H1_HEAD || !a.length) {
        struct iovec v = {a.text, a.text_n};
        if (a.fd >= 0)
            file_close(a.fd);
        answer_length(x, a.length, (struct pieces){&v, a.text_n ? 1 : 0, a.text_n});
        return STEP_OVER;
    }
    m->file = a.fd;
    m->file_offset = a.offset;
    m->file_left = a.length;
    x->state = X_LOCAL;
    x->response_bytes = a.length;
    if (!x->request_end)
        http_req_last(x->req);
    http_req_answer(x->req, &x->p->out, H1_LENGTH, a.length, (struct pieces){0}, false);
    exchange_wait(x, x->p->conf.body_timeout_ms);
    if (http_req_is_h2(x->req) || !pour_file_start(&m->pour, m->file, a.offset, http_srv_stream(&x->down->srv), a.length, file_sent)) {
        m->copies = true;
        step_file_more(x);
    }
    return STEP_OVER;
}

static enum step filter_step(struct exchange *x, const struct plan_filter *pf, const struct h1_head *h, const struct plan_hit *hit)
{
    const struct http_filter *f = pf->spec;
    struct exchange_more *m;
    switch (f->kind) {
    case FILTER_UPGRADES: /* part of plan_rule.spec */
        return STEP_ON;
    case FILTER_CORS:
        return cors_step(x, &f->cors, pf->regexes, h);
    case FILTER_FAULT:
        return fault_step(x, &f->fault);
    case FILTER_DIRECT:
        return direct_step(x, f->direct.status, f->direct.type, f->direct.body, f->direct.body_n);
    case FILTER_STATIC:
        return static_step(x, &f->files, h, hit);
    case FILTER_AGGREGATE:
        return aggregate_begin(x, pf, h);
    case FILTER_COMPRESS: /* noted before any of them answers: compress_note() */
        return STEP_ON;
    case FILTER_TRANSFORM:
        m = exchange_more(x);
        if (!m->transform || transform_wants_plain(pf))
            m->transform = pf;
        m->asked = (uint8_t)tags_asked(h);
        if (h->framing != H1_NO_BODY && h->framing != H1_TUNNEL)
            m->request_filter = body_filter_chain(m->request_filter, transform_begin(pf, true, h));
        if (m->request_filter)
            x->framing = H1_CHUNKED; /* its length changes */
        return STEP_ON;
    case FILTER_HEDGE:
        exchange_more(x)->hedge = &f->hedge;
        return STEP_ON;
    }
    return STEP_ON;
}

/* Compression is the last thing that happens to an answer, wherever in the list it stands: behind an aggregation, too. */
static void compress_note(struct exchange *x, const struct plan_filter *pf, const struct h1_head *h)
{
    if (pf->spec->kind != FILTER_COMPRESS)
        return;
    struct exchange_more *m = exchange_more(x);
    m->compress = &pf->spec->compress;
    m->accepts = compress_accepts(h);
    m->asked = (uint8_t)tags_asked(h);
}

enum step steps_request(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit)
{
    const struct plan_rule *r = x->rule;
    const struct route_rule *spec = r->spec;
    enum step s = STEP_ON;
    if (spec && spec->cors.given)
        s = cors_step(x, &spec->cors, r->origins, h);
    if (s == STEP_ON && spec && (spec->fault.delay_ppm || spec->fault.abort_ppm))
        s = fault_step(x, &spec->fault);
    if (s == STEP_ON && spec && spec->redirect) {
        answer_redirect(x, h, hit);
        return STEP_OVER;
    }
    if (s == STEP_ON && spec && spec->direct)
        s = direct_step(x, spec->direct_status, NULL, spec->direct_body, spec->direct_body_n);
    for (uint32_t i = 0; s == STEP_ON && i < r->filters_n; i++)
        compress_note(x, &r->filters[i], h);
    for (uint32_t i = 0; s == STEP_ON && i < r->filters_n; i++)
        s = filter_step(x, &r->filters[i], h, hit);
    if (s == STEP_ON && spec && spec->hedge.max)
        exchange_more(x)->hedge = &spec->hedge;
    return s;
}

bool steps_answer_here(const struct plan_rule *r)
{
    bool here = r->spec && r->spec->direct;
    for (uint32_t i = 0; i < r->filters_n && !here; i++) {
        enum filter_kind kind = r->filters[i].spec->kind;
        here = kind == FILTER_DIRECT || kind == FILTER_STATIC || kind == FILTER_AGGREGATE;
    }
    return here;
}

/* An answer that will be transformed is asked for whole and in clear; a digest of a body that is changed says nothing. */
bool steps_withholds(const struct exchange_more *m, const struct h1_field *f)
{
    if (m->request_filter && body_changed_drops(f->name))
        return true;
    return m->transform && transform_wants_plain(m->transform) &&
           (slice_ieq(f->name, SLICE("accept-encoding")) || slice_ieq(f->name, SLICE("range")) || slice_ieq(f->name, SLICE("if-range")));
}

/* ---- at the answer ----------------------------------------------------------------------------------------------------------- */

bool steps_owns(const struct exchange_more *m, const struct h1_field *f)
{
    if (m->cors_policy && (m->cors.allowed || !m->cors_policy->forward_unmatched) && cors_owns(f->name))
        return true;
    if (!m->changed)
        return false;
    return slice_ieq(f->name, SLICE("etag")) || body_changed_drops(f->name);
}

/* A strong validator does not hold for other bytes (RFC 9110 section 8.8.1): it is weakened. */
static void etag_put(struct head_out *o, const struct h1_head *h)
{
    const struct h1_field *f = h1_find(h, SLICE("etag"));
    if (!f)
        return;
    head_lit(o, "ETag: ");
    body_changed_etag(f->value, o);
    head_lit(o, "\r\n");
}

void steps_put(struct exchange *x, const struct h1_head *h, struct head_out *o)
{
    struct exchange_more *m = x->more;
    if (m->cors_policy)
        cors_put(m->cors_policy, &m->cors, o);
    if (m->cookie.n)
        head_field(o, SLICE("Set-Cookie"), buf_slice(&m->cookie));
    if (!h)
        return;
    sticky_put(x, o);
    if (m->coding.n)
        head_field(o, SLICE("Content-Encoding"), m->coding);
    if (m->varies)
        head_lit(o, "Vary: Accept-Encoding\r\n");
    if (m->changed)
        etag_put(o, h);
}

/* Whether this is an answer to HEAD that stands for one with a body; *as: that one's head. */
static bool head_as_get(const struct exchange *x, const struct h1_head *h, struct h1_head *as)
{
    if (x->method_id != H1_HEAD || h->framing != H1_NO_BODY || h->status < 200 || h->status == 204 || h->status == 304)
        return false;
    const struct h1_field *length = h1_get(h, H1_CONTENT_LENGTH);
    *as = *h;
    as->framing = length && slice_u64(length->value, UINT64_MAX, &as->length) == OK ? H1_LENGTH : H1_CHUNKED;
    return true;
}

/* The fields that a GET's answer would have (RFC 9110 section 9.3.2): a length that is not that of the changed body would be wrong (section 8.6),
 * and a cache without Vary would give the answer to those who accept something else. */
static void answer_unsent(struct exchange *x, const struct h1_head *as)
{
    struct exchange_more *m = x->more;
    struct body_filter *f = NULL;
    for (uint32_t i = 0; m->transform && !f && i < x->rule->filters_n; i++)
        if (x->rule->filters[i].spec->kind == FILTER_TRANSFORM)
            f = transform_begin(&x->rule->filters[i], false, as);
    if (m->compress) {
        m->varies = compress_varies(m->compress, as);
        m->coding = compress_coding(m->compress, m->accepts, as);
    }
    m->changed = f || m->coding.n;
    filter_free(&f);
}

/* A 304 has the Vary and the ETag of the 200 (RFC 9110 section 15.4.5): without a type it may have that Vary; and a cache goes by the tag that it has,
 * for a strong one in its place would select nothing of what is stored (RFC 9111 section 4.3.4). */
static void answer_unmodified(struct exchange *x, const struct h1_head *h)
{
    struct exchange_more *m = x->more;
    struct h1_head as = *h;
    as.status = 200;
    as.framing = H1_CHUNKED;
    answer_unsent(x, &as);
    m->varies |= m->compress && !h1_get(h, H1_CONTENT_TYPE);
    m->coding = SLICE(""); /* there is no content */
    if (m->asked != TAGS_NONE)
        m->changed = m->asked == TAGS_WEAK;
}

enum h1_framing steps_answer(struct exchange *x, const struct h1_head *h)
{
    struct exchange_more *m = x->more;
    struct h1_head as;
    if (UNLIKELY(h->status == 304 && (m->compress || (m->transform && transform_wants_plain(m->transform)))))
        answer_unmodified(x, h);
    if (UNLIKELY((m->transform || m->compress) && head_as_get(x, h, &as)))
        answer_unsent(x, &as);
    if (h->framing == H1_NO_BODY || h->framing == H1_TUNNEL)
        return h->framing;
    for (uint32_t i = 0; m->transform && i < x->rule->filters_n; i++)
        if (x->rule->filters[i].spec->kind == FILTER_TRANSFORM)
            m->answer_filter = body_filter_chain(m->answer_filter, transform_begin(&x->rule->filters[i], false, h));
    if (m->compress) {
        m->varies = compress_varies(m->compress, h);
        m->answer_filter = body_filter_chain(m->answer_filter, compress_begin(m->compress, m->accepts, h, &m->coding));
    }
    m->changed = m->answer_filter != NULL;
    return m->changed ? H1_CHUNKED : h->framing;
}

/* Puts the fields of compression into a head of ours, and returns the body, compressed where the route and the client want that. */
struct slice steps_compress(struct exchange *x, struct slice type, struct slice body)
{
    struct exchange_more *m = x->more;
    struct h1_head h = {.status = x->status, .framing = H1_LENGTH, .length = body.n, .n = 1, .known[H1_CONTENT_TYPE] = 1};
    h.fields[0] = (struct h1_field){.name = SLICE("content-type"), .value = type, .id = H1_CONTENT_TYPE};
    struct iovec v = {(void *)(uintptr_t)body.p, body.n};
    struct pieces out;
    if (!m->compress || !compress_varies(m->compress, &h))
        return body;
    head_lit(&x->p->out, "Vary: Accept-Encoding\r\n");
    m->answer_filter = compress_begin(m->compress, m->accepts, &h, &m->coding);
    if (!m->answer_filter || steps_body(x, m->answer_filter, (struct pieces){&v, 1, v.iov_len}, true, &v, &out) != OK)
        return body;
    head_field(&x->p->out, SLICE("Content-Encoding"), m->coding);
    return buf_slice(&m->filtered);
}

enum err steps_body(struct exchange *x, struct body_filter *f, struct pieces body, bool end, struct iovec *v, struct pieces *out)
{
    struct exchange_more *m = x->more;
    buf_clear(&m->filtered);
    enum err e = f->ops->feed(f, body, end, &m->filtered);
    *v = (struct iovec){m->filtered.p, m->filtered.n};
    *out = (struct pieces){v, m->filtered.n ? 1 : 0, m->filtered.n};
    return e;
}
