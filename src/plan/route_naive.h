/* route_naive.h - the oracle of the routing tests: Gateway API's matching written down as the specification words it, with
 * no regard for speed. It reads the objects, not the plan, and shares no code with route.c and route_build.c.
 *
 * Of all matches that hold for a request it keeps the best by a comparison of eleven criteria. Test code only.
 */
#ifndef ROUTE_NAIVE_H
#define ROUTE_NAIVE_H

#include "plan.h"

/* Sort key of a match that holds; larger wins, criterion by criterion. */
struct naive_hit {
    const struct object *route;
    const struct route_rule *rule;
    int64_t key[10];
    uint32_t prefix_len;
};

static inline struct slice naive_host(struct slice h, char *out, size_t cap)
{
    if (h.n && h.p[h.n - 1] == '.')
        h.n--;
    MUST(h.n < cap);
    for (size_t i = 0; i < h.n; i++)
        out[i] = ascii_lower(h.p[i]);
    return slice_of(out, h.n);
}

/* Does the configured hostname (NULL: any) match a lower-case host? */
static inline bool naive_host_is(const char *name, struct slice host)
{
    if (!name || !name[0] || strcmp(name, "*") == 0)
        return true;
    if (name[0] != '*')
        return slice_ieq(slice_cstr(name), host);
    struct slice suffix = slice_cstr(name + 1);
    return host.n > suffix.n && slice_iends(host, suffix);
}

/* "Characters in a matching non-wildcard hostname", then "characters in a matching hostname". */
static inline void naive_host_rank(const char *name, int64_t key[2])
{
    bool any = !name || !name[0] || strcmp(name, "*") == 0;
    key[0] = any || name[0] == '*' ? 0 : (int64_t)strlen(name);
    key[1] = any ? 0 : (int64_t)strlen(name);
}

static inline bool naive_path(const struct route_match_spec *m, struct slice path, bool *exact, uint32_t *prefix_len, int64_t *chars)
{
    struct slice want = slice_cstr(m->has_path ? m->path : "/");
    *exact = m->has_path && m->path_kind == MATCH_EXACT;
    *prefix_len = 0;
    *chars = (int64_t)want.n;
    if (*exact)
        return slice_eq(want, path);
    while (want.n && want.p[want.n - 1] == '/')
        want.n--;
    *prefix_len = (uint32_t)want.n;
    *chars = (int64_t)want.n;
    if (!want.n)
        return true;
    return slice_starts(path, want) && (path.n == want.n || path.p[want.n] == '/');
}

static inline bool naive_header(const struct route_kv_match *m, const struct h1_head *h)
{
    struct buf plain = {0}, spaced = {0};
    bool found = false;
    for (int i = 0; i < h->n; i++) {
        if (!slice_ieq(h->fields[i].name, slice_cstr(m->name)))
            continue;
        if (found) {
            buf_adds(&plain, ",");
            buf_adds(&spaced, ", ");
        }
        buf_add_slice(&plain, h->fields[i].value);
        buf_add_slice(&spaced, h->fields[i].value);
        found = true;
    }
    bool holds = found && (slice_is(buf_slice(&plain), m->value) || slice_is(buf_slice(&spaced), m->value));
    buf_free(&plain);
    buf_free(&spaced);
    return holds;
}

static inline int naive_hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, ascii_lower(c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

static inline bool naive_text(struct slice raw, const char *want)
{
    struct buf text = {0};
    for (size_t i = 0; i < raw.n; i++) {
        if (raw.p[i] == '%' && raw.n - i >= 3 && naive_hex(raw.p[i + 1]) >= 0 && naive_hex(raw.p[i + 2]) >= 0) {
            buf_addc(&text, (char)(naive_hex(raw.p[i + 1]) << 4 | naive_hex(raw.p[i + 2])));
            i += 2;
        } else {
            buf_addc(&text, raw.p[i] == '+' ? ' ' : raw.p[i]);
        }
    }
    bool is = slice_is(raw, want) || slice_is(buf_slice(&text), want);
    buf_free(&text);
    return is;
}

static inline bool naive_query(const struct route_kv_match *m, const struct h1_head *h)
{
    struct slice rest = h->has_query ? h->query : SLICE("");
    while (rest.n) {
        struct slice pair = slice_cut(rest, '&', &rest), value, name = slice_cut(pair, '=', &value);
        if (naive_text(name, m->name))
            return naive_text(value, m->value);
    }
    return false;
}

/* One match against one request; key[2] and on are filled. created, name and place come from the caller. */
static inline bool naive_match(const struct route_match_spec *m, const struct h1_head *h, struct naive_hit *hit)
{
    bool exact;
    if (!naive_path(m, h->path, &exact, &hit->prefix_len, &hit->key[3]))
        return false;
    if (m->method && !slice_is(h->method, m->method))
        return false;
    for (size_t i = 0; i < m->headers_n; i++)
        if (!naive_header(&m->headers[i], h))
            return false;
    for (size_t i = 0; i < m->queries_n; i++)
        if (!naive_query(&m->queries[i], h))
            return false;
    hit->key[2] = exact;
    hit->key[4] = m->method != NULL;
    hit->key[5] = (int64_t)m->headers_n;
    hit->key[6] = (int64_t)m->queries_n;
    return true;
}

static inline bool naive_better(const struct naive_hit *a, const struct naive_hit *b)
{
    for (size_t i = 0; i < COUNT_OF(a->key); i++) {
        if (a->key[i] != b->key[i])
            return a->key[i] > b->key[i];
        if (i == 7) { /* after the time of creation, before the place in the route: "namespace/name" in alphabetical order */
            struct buf x = {0}, y = {0};
            buf_printf(&x, "%s/%s", a->route->ns, a->route->name);
            buf_printf(&y, "%s/%s", b->route->ns, b->route->name);
            int c = strcmp(x.p, y.p);
            buf_free(&x);
            buf_free(&y);
            if (c)
                return c < 0;
        }
    }
    return false;
}

static inline void naive_route(const struct object *o, const char *hostname, const struct h1_head *h, struct naive_hit *best)
{
    static const struct route_match_spec everything;
    for (size_t r = 0; r < o->route.rules_n; r++) {
        const struct route_rule *rule = &o->route.rules[r];
        const struct route_match_spec *m = rule->matches_n ? rule->matches : &everything;
        for (size_t i = 0; i < (rule->matches_n ? rule->matches_n : 1); i++) {
            struct naive_hit hit = {.route = o, .rule = rule};
            if (!naive_match(&m[i], h, &hit))
                continue;
            naive_host_rank(hostname, hit.key);
            hit.key[7] = -(int64_t)o->created_ns;
            hit.key[8] = -(int64_t)r;
            hit.key[9] = -(int64_t)i;
            if (!best->route || naive_better(&hit, best))
                *best = hit;
        }
    }
}

static inline bool naive_serves(const struct object *gw, const struct gw_listener *ln, const struct addr *a)
{
    if (ln->port != a->port)
        return false;
    struct addr local = addr_ip4(0x7f000001, a->port);
    for (size_t i = 0; i < gw->gw.addresses_n; i++) {
        struct addr own = gw->gw.addresses[i];
        own.port = a->port;
        if (addr_eq(&own, a))
            return true;
    }
    return !gw->gw.addresses_n && addr_eq(&local, a);
}

static inline bool naive_attached(const struct object *o, const struct object *gw, const struct gw_listener *ln)
{
    if (!ln->from_all && strcmp(o->ns, gw->ns) != 0)
        return false;
    for (size_t i = 0; i < o->route.parents_n; i++) {
        const struct parent_ref *p = &o->route.parents[i];
        bool is = strcmp(p->gateway, gw->name) == 0 && strcmp(p->ns && p->ns[0] ? p->ns : o->ns, gw->ns) == 0;
        if (is && p->section && p->section[0])
            is = strcmp(p->section, ln->name) == 0;
        if (is && p->port)
            is = p->port == ln->port;
        if (is)
            return true;
    }
    return false;
}

/* The routes of one listener that may serve the host. */
static inline void naive_listener(const struct objset *s, const struct object *gw, const struct gw_listener *ln, struct slice host, const struct h1_head *h, struct naive_hit *best)
{
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        if (o->kind != OBJ_HTTPROUTE || !naive_attached(o, gw, ln))
            continue;
        for (size_t j = 0; j < o->route.hostnames_n; j++)
            if (naive_host_is(o->route.hostnames[j], host))
                naive_route(o, o->route.hostnames[j], h, best);
        if (!o->route.hostnames_n)
            naive_route(o, NULL, h, best);
    }
}

/* The best match for a request that came in on address a; false: none. */
static inline bool naive_find(const struct objset *s, const struct addr *a, const struct h1_head *h, struct naive_hit *best)
{
    char text[4096];
    struct slice host = naive_host(h->host, text, sizeof text);
    int64_t owner[2] = {-1, -1};
    *best = (struct naive_hit){0};
    for (int pass = 0; pass < 2; pass++) { /* the most specific listener hostname, then its listeners */
        for (size_t i = 0; i < objset_n(s); i++) {
            const struct object *gw = objset_at(s, i);
            for (size_t j = 0; gw->kind == OBJ_GATEWAY && j < gw->gw.listeners_n; j++) {
                const struct gw_listener *ln = &gw->gw.listeners[j];
                int64_t rank[2];
                if (!naive_serves(gw, ln, a) || !naive_host_is(ln->hostname, host))
                    continue;
                naive_host_rank(ln->hostname, rank);
                if (pass == 0 && (rank[0] > owner[0] || (rank[0] == owner[0] && rank[1] > owner[1])))
                    memcpy(owner, rank, sizeof owner);
                else if (pass == 1 && memcmp(owner, rank, sizeof owner) == 0)
                    naive_listener(s, gw, ln, host, h, best);
            }
        }
    }
    return best->route != NULL;
}

/* ---- requests from text -------------------------------------------------------------------------------------------- */

/* Fills h as the parser would, from borrowed slices. */
static inline void request_begin(struct h1_head *h, struct slice method, struct slice host, struct slice target)
{
    static const char *const names[] = {"?", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    *h = (struct h1_head){.method = method, .host = host, .authority = host, .target = target, .minor = 1};
    for (unsigned i = 1; i < COUNT_OF(names); i++)
        if (slice_is(method, names[i]))
            h->method_id = (enum h1_method)i;
    h->path = slice_cut(target, '?', &h->query);
    h->has_query = slice_find(target, '?') >= 0;
}

static inline void request_field(struct h1_head *h, struct slice name, struct slice value)
{
    enum h1_name id = h1_name_id(name);
    h->fields[h->n++] = (struct h1_field){name, value, id};
    if (id != H1_OTHER && !h->known[id])
        h->known[id] = h->n;
}

#endif
