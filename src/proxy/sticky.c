/* sticky.c - requests that belong together go to the same endpoint: by a hash of something in the request, or by a session
 * cookie or header that names the endpoint which answered first.
 *
 * A hash needs no memory and moves few requests when endpoints come and go; a session names its endpoint and moves only when
 * that is gone. The name is the balancer's key of the endpoint in hexadecimal: it says nothing of addresses.
 */
#include "proxy_int.h"

static void hex_of(uint64_t v, char out[16])
{
    for (int i = 15; i >= 0; i--, v >>= 4)
        out[i] = "0123456789abcdef"[v & 15];
}

static uint64_t hex_read(struct slice s)
{
    uint64_t v = 0;
    if (s.n != 16)
        return 0;
    for (size_t i = 0; i < 16; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return 0;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return v;
}

static bool cookie_of(const struct h1_head *h, struct slice name, struct slice *value)
{
    for (uint16_t i = 0; i < h->n; i++)
        if (slice_ieq(h->fields[i].name, SLICE("cookie")) && cookie_find(h->fields[i].value, name, value))
            return true;
    return false;
}

/* ---- hashes ------------------------------------------------------------------------------------------------------------ */

static void cookie_make(struct buf *out, const char *name, struct slice value, const char *path, uint32_t max_age_s)
{
    buf_printf(out, "%s=%.*s; Path=%s; HttpOnly", name, (int)value.n, value.p, path && *path ? path : "/");
    if (max_age_s)
        buf_printf(out, "; Max-Age=%u", max_age_s);
}

static void hash_cookie(struct exchange *x, const struct lb_policy *lb, const struct h1_head *h)
{
    struct slice value;
    char made[16];
    if (!cookie_of(h, slice_cstr(lb->hash_name), &value)) {
        if (!lb->cookie_ttl_given)
            return;
        hex_of(loop_random(x->p->loop), made);
        value = slice_of(made, sizeof made);
        cookie_make(&exchange_more(x)->cookie, lb->hash_name, value, lb->cookie_path, lb->cookie_ttl_s);
    }
    x->hash = hash_key(value);
    x->hashed = true;
}

static void hash_header(struct exchange *x, struct slice name, const struct h1_head *h)
{
    for (uint16_t i = 0; i < h->n; i++)
        if (slice_ieq(h->fields[i].name, name)) {
            uint64_t one = hash_key(h->fields[i].value);
            x->hash = x->hashed ? hash_join(x->hash, one) : one;
            x->hashed = true;
        }
}

void sticky_request(struct exchange *x, const struct h1_head *h)
{
    const struct lb_policy *lb = &x->cluster->policy->lb;
    struct slice value;
    switch (lb->hash_on) {
    case HASH_NONE:
        break;
    case HASH_HEADER:
        hash_header(x, slice_cstr(lb->hash_name), h);
        break;
    case HASH_COOKIE:
        hash_cookie(x, lb, h);
        break;
    case HASH_QUERY:
        if (h->has_query && query_find(h->target, slice_cstr(lb->hash_name), &value)) {
            x->hash = hash_key(value);
            x->hashed = true;
        }
        break;
    case HASH_SOURCE_IP:
        x->hash = hash_key(slice_of(x->down->peer, x->down->peer_n));
        x->hashed = true;
        break;
    }
    const struct session_policy *s = session_of(x);
    if (!s)
        return;
    struct exchange_more *m = exchange_more(x);
    const struct h1_field *f = s->header ? h1_find(h, slice_cstr(s->name)) : NULL;
    if (f)
        m->session = hex_read(f->value);
    else if (!s->header && cookie_of(h, slice_cstr(s->name), &value))
        m->session = hex_read(value);
}

/* ---- sessions -------------------------------------------------------------------------------------------------------------- */

const struct session_policy *session_of(const struct exchange *x)
{
    const struct route_rule *spec = x->rule->spec;
    if (spec && spec->session.given)
        return &spec->session;
    return x->cluster->policy->session.given ? &x->cluster->policy->session : NULL;
}

struct lb_host *sticky_host(struct exchange *x)
{
    uint64_t key = x->more->session;
    return key && !x->tries ? cluster_find(x->us->c, key, loop_now_ms(x->p->loop)) : NULL;
}

void sticky_put(struct exchange *x, struct head_out *o)
{
    const struct session_policy *s = session_of(x);
    char text[16];
    if (!s || !x->ep || x->more->session == x->ep->lb.key)
        return;
    hex_of(x->ep->lb.key, text);
    if (s->header) {
        head_field(o, slice_cstr(s->name), slice_of(text, sizeof text));
        return;
    }
    struct buf b = {0};
    cookie_make(&b, s->name, slice_of(text, sizeof text), s->path, s->ttl_s);
    head_field(o, SLICE("Set-Cookie"), buf_slice(&b));
    buf_free(&b);
}
