/* local.c - answers of our own: refusals, redirects, gRPC statuses. A child's refusal goes to its parent instead (child.c). */
#include "proxy_int.h"

void answer_length(struct exchange *x, uint64_t length, struct pieces body)
{
    struct http_req *r = x->req;
    struct proxy *p = x->p;
    if (!x->request_end && x->framing != H1_TUNNEL)
        http_req_last(r);
    x->response_bytes += body.bytes;
    x->req = NULL;
    r->owner = NULL;
    http_req_answer(r, &p->out, x->status == 204 || x->status == 304 ? H1_NO_BODY : H1_LENGTH, length, body, true);
    exchange_finish(x);
}

void answer_pieces(struct exchange *x, struct pieces body) { answer_length(x, body.bytes, body); }

/* A call that was not made: a status in the head, which is the whole answer ("Trailers-Only", gRPC over HTTP/2). */
void answer_grpc(struct exchange *x, uint32_t code, enum flag f, const char *text)
{
    struct head_out *o = &x->p->out;
    x->status = 200;
    flag_set(x, f);
    x->grpc_status = (uint8_t)(code + 1);
    head_local(x, 200, "application/grpc");
    head_lit(o, "grpc-status: ");
    head_u64(o, code);
    head_lit(o, "\r\ngrpc-message: weir: ");
    head_slice(o, slice_cstr(text));
    head_lit(o, "\r\n");
    struct http_req *r = x->req;
    if (!x->request_end)
        http_req_last(r);
    x->req = NULL;
    r->owner = NULL;
    http_req_answer(r, o, H1_NO_BODY, 0, (struct pieces){0}, true);
    exchange_finish(x);
}

/* The same for a call whose answer has begun: its trailers. */
void answer_grpc_end(struct http_req *r, uint32_t code, const char *text)
{
    struct buf b = {0};
    buf_printf(&b, "grpc-status: %u\r\ngrpc-message: weir: %s\r\n", code, text);
    http_req_end(r, buf_slice(&b));
    buf_free(&b);
}

/* gRPC's codes for statuses (doc/http-grpc-status-mapping.md), except that what took too long is DEADLINE_EXCEEDED. */
static uint32_t grpc_code(uint16_t status)
{
    switch (status) {
    case 400: return 13;
    case 401: return 16;
    case 403: return 7;
    case 404: return 12;
    case 504: return 4;
    case 429: case 502: case 503: return 14;
    default: return 2;
    }
}

/* allow: of the Allow field; NULL: there is none. */
static void refuse(struct exchange *x, uint16_t status, enum flag f, const char *allow, const char *text)
{
    if (UNLIKELY(x->role != X_CLIENT)) {
        child_failed(x, status, f, text);
        return;
    }
    if (UNLIKELY(x->target != NULL)) {
        gate_give_back(x, x->state < X_SENT, f);
        return;
    }
    if (UNLIKELY(x->more && hedges_pending(x))) { /* another attempt may still answer */
        attempt_drop(x);
        x->state = X_LOCAL;
        x->attempt_ms = 0; /* the time of this try is not theirs */
        exchange_wait(x, UINT32_MAX);
        return;
    }
    if (x->grpc) {
        answer_grpc(x, grpc_code(status), f, text);
        return;
    }
    x->status = status;
    flag_set(x, f);
    head_local(x, status, "text/plain; charset=utf-8");
    if (allow)
        head_field(&x->p->out, SLICE("Allow"), slice_cstr(allow));
    if (x->more)
        steps_put(x, NULL, &x->p->out);
    struct iovec v[3] = {{(void *)(uintptr_t) "weir: ", 6}, {(void *)(uintptr_t)text, strlen(text)}, {(void *)(uintptr_t) "\n", 1}};
    answer_pieces(x, (struct pieces){v, 3, v[1].iov_len + 7});
}

void answer_text(struct exchange *x, uint16_t status, enum flag f, const char *text) { refuse(x, status, f, NULL, text); }

/* RFC 9110 section 15.5.6. */
void answer_method(struct exchange *x, const char *allow, const char *text) { refuse(x, 405, FLAG_NONE, allow, text); }

void answer_redirect(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit)
{
    struct buf location = {0};
    x->status = x->rule->spec->redirect_status ? x->rule->spec->redirect_status : 302;
    head_location(x, h, hit, &location);
    head_local(x, x->status, NULL);
    head_field(&x->p->out, SLICE("Location"), buf_slice(&location));
    buf_free(&location);
    if (x->more)
        steps_put(x, NULL, &x->p->out);
    answer_pieces(x, (struct pieces){0});
}

/* The listener wants https: the same place there (Istio Gateway, tls.httpsRedirect), whatever form the target had. */
void answer_https(struct exchange *x, const struct h1_head *h)
{
    struct buf to = {0};
    buf_adds(&to, "https://");
    buf_add_slice(&to, h->host);
    buf_add_slice(&to, slice_is(h->path, "*") ? SLICE("/") : h->path);
    if (h->has_query)
        buf_addc(&to, '?');
    buf_add_slice(&to, h->query);
    x->status = 301;
    head_local(x, 301, NULL);
    head_field(&x->p->out, SLICE("Location"), buf_slice(&to));
    buf_free(&to);
    answer_pieces(x, (struct pieces){0});
}
