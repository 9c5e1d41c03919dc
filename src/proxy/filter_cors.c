/* filter_cors.c - which pages of other origins may call (the Fetch standard, section 3.2, "CORS protocol").
 *
 * A browser names the page's origin in Origin, and before a request that a form could not have made it asks with OPTIONS (a preflight).
 * What the policy grants is said in Access-Control-* fields; the browser enforces it. An origin that is not allowed gets no such field. The
 * answer depends on Origin unless everybody is allowed without credentials: only then is "*" said and Vary left out.
 */
#include "filter_int.h"

static bool everybody(const struct cors_policy *c)
{
    if (c->credentials) /* "*" means nothing with credentials: the origin is repeated instead */
        return false;
    for (size_t i = 0; i < c->origins_n; i++)
        if (c->origins[i].kind == MATCH_PRESENT && !c->origins[i].invert)
            return true;
    return false;
}

static bool origin_allowed(const struct cors_policy *c, struct slice origin, bool (*match)(void *, const struct string_match *, struct slice), void *ctx)
{
    for (size_t i = 0; i < c->origins_n; i++)
        if ((c->origins[i].kind == MATCH_PRESENT && !c->origins[i].invert) || match(ctx, &c->origins[i], origin))
            return true;
    return false;
}

/* The names asked for, when they are that: what is repeated to the browser must not be anything else. */
static struct slice names_asked(const struct h1_head *h, struct slice field)
{
    const struct h1_field *f = h1_find(h, field);
    struct list_at at = {0};
    struct slice name;
    if (!f)
        return (struct slice){0};
    while (list_next(h, field, &at, &name))
        if (!h1_is_token(name))
            return (struct slice){0};
    return f->value;
}

bool cors_request(const struct cors_policy *c, const struct h1_head *h, bool (*match)(void *ctx, const struct string_match *m, struct slice value), void *ctx,
                  struct cors_state *s)
{
    s->origin_n = 0;
    s->allowed = s->preflight = false;
    s->want_method = s->want_headers = (struct slice){0};
    const struct h1_field *origin = h1_find(h, SLICE("origin"));
    if (!c->given || !origin)
        return false;
    if (origin->value.n && origin->value.n <= sizeof s->origin && origin_allowed(c, origin->value, match, ctx)) {
        s->allowed = true;
        s->origin_n = (uint16_t)origin->value.n;
        memcpy(s->origin, origin->value.p, origin->value.n);
    }
    const struct h1_field *method = h1_find(h, SLICE("access-control-request-method"));
    s->preflight = h->method_id == H1_OPTIONS && method;
    if (!s->preflight)
        return false;
    s->want_method = h1_is_token(method->value) ? method->value : (struct slice){0};
    s->want_headers = names_asked(h, SLICE("access-control-request-headers"));
    return s->allowed || !c->forward_unmatched;
}

/* A list of the policy; "*" with credentials would be taken for a name, so what was asked for is repeated. */
static void put_list(struct head_out *o, struct slice name, const char *list, bool credentials, struct slice asked)
{
    struct slice value = slice_cstr(list);
    if (slice_is(value, "*") && credentials)
        value = asked;
    if (value.n)
        head_field(o, name, value);
}

static void put_preflight(const struct cors_policy *c, const struct cors_state *s, struct head_out *o)
{
    put_list(o, SLICE("Access-Control-Allow-Methods"), c->methods, c->credentials, s->want_method);
    put_list(o, SLICE("Access-Control-Allow-Headers"), c->headers, c->credentials, s->want_headers);
    if (c->has_max_age) {
        head_lit(o, "Access-Control-Max-Age: ");
        head_u64(o, c->max_age_s);
        head_lit(o, "\r\n");
    }
}

void cors_put(const struct cors_policy *c, const struct cors_state *s, struct head_out *o)
{
    bool all = everybody(c);
    if (!all)
        head_lit(o, "Vary: Origin\r\n");
    if (!s->allowed)
        return;
    head_field(o, SLICE("Access-Control-Allow-Origin"), all ? SLICE("*") : slice_of(s->origin, s->origin_n));
    if (c->credentials)
        head_lit(o, "Access-Control-Allow-Credentials: true\r\n");
    if (s->preflight)
        put_preflight(c, s, o);
    else if (c->expose && *c->expose && !(c->credentials && strcmp(c->expose, "*") == 0)) /* "*" would name a field called so */
        head_field(o, SLICE("Access-Control-Expose-Headers"), slice_cstr(c->expose));
}

bool cors_owns(struct slice name)
{
    static const char *const names[] = {"origin", "credentials", "methods", "headers"};
    static const struct slice allow = {"access-control-allow-", 21};
    if (slice_ieq(name, SLICE("access-control-expose-headers")) || slice_ieq(name, SLICE("access-control-max-age")))
        return true;
    if (name.n <= allow.n || !slice_ieq(slice_of(name.p, allow.n), allow))
        return false;
    struct slice last = slice_of(name.p + allow.n, name.n - allow.n);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (slice_ieq(last, slice_cstr(names[i])))
            return true;
    return false;
}
