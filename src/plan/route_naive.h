/* route_naive.h - the oracle of the routing tests: Gateway API's and Istio's matching written down as the specifications word
 * them, with no regard for speed. It reads the objects, not the plan, and shares no code with route.c and route_build.c;
 * expressions are POSIX's (regexec), so tests keep to what both kinds of syntax have.
 *
 * It goes through the hostnames that match a request, most specific first. Of each, of all matches of HTTPRoutes that hold it
 * keeps the best by a comparison of criteria; then of VirtualServices the first in order, which ends the search. Test code
 * only.
 */
#ifndef ROUTE_NAIVE_H
#define ROUTE_NAIVE_H

#include "plan.h"

#include <regex.h>

/* Sort key of a match that holds; larger wins, criterion by criterion. */
struct naive_hit {
    const struct object *route;
    const struct route_rule *rule;
    int64_t key[10];
    uint32_t prefix_len;
    uint16_t port; /* of the listener */
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

static inline bool naive_regex(const char *text, struct slice s)
{
    regex_t re;
    struct buf pattern = {0}, subject = {0};
    buf_printf(&pattern, "^(%s)$", text);
    buf_add_slice(&subject, s);
    buf_addc(&subject, '\0');
    bool compiled = regcomp(&re, pattern.p, REG_EXTENDED | REG_NOSUB) == 0;
    bool holds = compiled && strlen(subject.p) == s.n && regexec(&re, subject.p, 0, NULL, 0) == 0;
    if (compiled)
        regfree(&re);
    buf_free(&pattern);
    buf_free(&subject);
    return holds;
}

static inline bool naive_same(struct slice a, struct slice b, bool fold) { return fold ? slice_ieq(a, b) : slice_eq(a, b); }

/* Without inversion. */
static inline bool naive_string(enum match_kind kind, const char *value, bool fold, struct slice s)
{
    struct slice want = slice_cstr(value);
    if (kind == MATCH_EXACT)
        return naive_same(s, want, fold);
    if (kind == MATCH_STRING_PREFIX)
        return s.n >= want.n && naive_same(slice_of(s.p, want.n), want, fold);
    return kind == MATCH_PRESENT || naive_regex(value, s);
}

/* rank: 3 exact, 2 a prefix, 1 an expression, 0 the prefix "/"; all equal where rules are ordered. */
static inline bool naive_path(const struct route_match_spec *m, struct slice path, bool ordered, int64_t *rank, uint32_t *prefix_len, int64_t *chars)
{
    enum match_kind kind = m->has_path ? m->path_kind : MATCH_PREFIX;
    struct slice want = slice_cstr(m->has_path ? m->path : "/");
    *prefix_len = 0;
    *chars = (int64_t)want.n;
    if (kind == MATCH_PREFIX) {
        while (want.n && want.p[want.n - 1] == '/')
            want.n--;
        *rank = want.n ? 2 : 0;
        *prefix_len = (uint32_t)want.n;
        *chars = (int64_t)want.n;
        return !want.n || (slice_starts(path, want) && (path.n == want.n || path.p[want.n] == '/'));
    }
    *rank = kind == MATCH_EXACT ? 3 : 1;
    if (ordered)
        *prefix_len = kind == MATCH_STRING_PREFIX ? (uint32_t)want.n : (uint32_t)path.n;
    return naive_string(kind, want.p, m->path_ignore_case, path);
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
    bool holds = found && ((m->m.kind != MATCH_REGEX && naive_string(m->m.kind, m->m.value, m->m.ignore_case, buf_slice(&plain))) ||
                           naive_string(m->m.kind, m->m.value, m->m.ignore_case, buf_slice(&spaced)));
    buf_free(&plain);
    buf_free(&spaced);
    return holds != m->m.invert;
}

static inline int naive_hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, ascii_lower(c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

static inline struct buf naive_decoded(struct slice raw)
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
    return text;
}

static inline bool naive_text(struct slice raw, const struct string_match *m)
{
    struct buf text = naive_decoded(raw);
    bool is = naive_string(m->kind, m->value, m->ignore_case, raw) || naive_string(m->kind, m->value, m->ignore_case, buf_slice(&text));
    buf_free(&text);
    return is;
}

static inline bool naive_query(const struct route_kv_match *m, const struct h1_head *h)
{
    struct slice rest = h->has_query ? h->query : SLICE("");
    const struct string_match is_name = {.kind = MATCH_EXACT, .value = m->name};
    while (rest.n) {
        struct slice pair = slice_cut(rest, '&', &rest), value, name = slice_cut(pair, '=', &value);
        if (naive_text(name, &is_name))
            return naive_text(value, &m->m) != m->m.invert;
    }
    return m->m.invert;
}

static inline bool naive_optional(const struct string_match *m, struct slice s) { return !m || naive_string(m->kind, m->value, m->ignore_case, s) != m->invert; }

/* One match against one request in clear from outside; key[2] and on are filled. created, name and place come from the caller. */
static inline bool naive_match(const struct route_match_spec *m, const struct h1_head *h, bool ordered, struct naive_hit *hit)
{
    if (!naive_path(m, h->path, ordered, &hit->key[2], &hit->prefix_len, &hit->key[3]))
        return false;
    if (m->method && !slice_is(h->method, m->method))
        return false;
    if (!naive_optional(m->method_match, h->method) || !naive_optional(m->scheme, SLICE("http")) || !naive_optional(m->authority, h->authority))
        return false;
    if (m->source_ns || m->source_labels.n || (m->port && m->port != hit->port))
        return false;
    for (size_t i = 0; i < m->headers_n; i++)
        if (!naive_header(&m->headers[i], h))
            return false;
    for (size_t i = 0; i < m->queries_n; i++)
        if (!naive_query(&m->queries[i], h))
            return false;
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
            if (!naive_match(&m[i], h, false, &hit))
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

static inline bool naive_attached(const struct objset *s, const struct object *o, const struct object *gw, const struct gw_listener *ln)
{
    if (!objset_listener_allows(s, gw, ln, o->ns))
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

/* ---- Istio ------------------------------------------------------------------------------------------------------------- */

static inline bool naive_named(const char *ref, const char *ns, const struct object *gw)
{
    struct buf full = {0}, want = {0};
    buf_printf(&want, "%s/%s", gw->ns, gw->name);
    buf_printf(&full, "%s%s%s", strchr(ref, '/') ? "" : ns, strchr(ref, '/') ? "" : "/", ref);
    bool is = strcmp(full.p, want.p) == 0;
    buf_free(&full);
    buf_free(&want);
    return is;
}

static inline bool naive_lists(char *const *list, size_t n, const char *ns, const struct object *gw)
{
    for (size_t i = 0; i < n; i++)
        if (naive_named(list[i], ns, gw))
            return true;
    return false;
}

/* One hostname of one listener on the address: of a Gateway API listener, or one host of an Istio server. */
struct naive_site {
    const struct object *gw;
    const struct gw_listener *ln;
    const char *host; /* without the namespace */
    const char *ns;   /* of VirtualServices; NULL: any */
};

static inline bool naive_virtual(const struct object *o, const struct naive_site *site)
{
    return (!site->ns || strcmp(site->ns, o->ns) == 0) && naive_lists(o->route.gateways, o->route.gateways_n, o->ns, site->gw);
}

/* The first rule of one VirtualService that holds, through this site. */
static inline bool naive_ordered(const struct object *o, const struct naive_site *site, const struct h1_head *h, struct naive_hit *hit)
{
    static const struct route_match_spec everything;
    for (size_t r = 0; r < o->route.rules_n; r++) {
        const struct route_rule *rule = &o->route.rules[r];
        const struct route_match_spec *m = rule->matches_n ? rule->matches : &everything;
        for (size_t i = 0; i < (rule->matches_n ? rule->matches_n : 1); i++) {
            *hit = (struct naive_hit){.route = o, .rule = rule, .port = site->ln->port};
            if ((!m[i].gateways_n || naive_lists(m[i].gateways, m[i].gateways_n, o->ns, site->gw)) && naive_match(&m[i], h, true, hit))
                return true;
        }
    }
    return false;
}

/* ---- the search ----------------------------------------------------------------------------------------------------------- */

#define NAIVE_SITES_MAX 256
#define NAIVE_NAMES_MAX 512
struct naive_search {
    const struct objset *s;
    const struct h1_head *h;
    struct slice host;
    struct naive_site sites[NAIVE_SITES_MAX]; /* that match the host most specifically */
    size_t sites_n;
    const char *names[NAIVE_NAMES_MAX];       /* of attached routes, that match the host; "" for none */
    size_t names_n;
};

static inline int naive_rank_cmp(const char *a, const char *b)
{
    int64_t x[2], y[2];
    naive_host_rank(a, x);
    naive_host_rank(b, y);
    return x[0] != y[0] ? (x[0] > y[0] ? 1 : -1) : (x[1] > y[1]) - (x[1] < y[1]);
}

static inline void naive_site_add(struct naive_search *q, struct naive_site site)
{
    if (!naive_host_is(site.host, q->host))
        return;
    int c = q->sites_n ? naive_rank_cmp(site.host, q->sites[0].host) : 0;
    if (c > 0)
        q->sites_n = 0;
    MUST(q->sites_n < NAIVE_SITES_MAX);
    if (c >= 0)
        q->sites[q->sites_n++] = site;
}

static inline void naive_sites(struct naive_search *q, const struct addr *a)
{
    for (size_t i = 0; i < objset_n(q->s); i++) {
        const struct object *gw = objset_at(q->s, i);
        for (size_t j = 0; (gw->kind == OBJ_GATEWAY || gw->kind == OBJ_ISTIO_GATEWAY) && j < gw->gw.listeners_n; j++) {
            const struct gw_listener *ln = &gw->gw.listeners[j];
            if (!naive_serves(gw, ln, a))
                continue;
            if (gw->kind == OBJ_GATEWAY)
                naive_site_add(q, (struct naive_site){gw, ln, ln->hostname ? ln->hostname : "", NULL});
            for (size_t k = 0; gw->kind == OBJ_ISTIO_GATEWAY && k < ln->hosts_n; k++) {
                const char *slash = strchr(ln->hosts[k], '/');
                bool any = !slash || ln->hosts[k][0] == '*', own = slash && ln->hosts[k][0] == '.';
                MUST(any || own);
                naive_site_add(q, (struct naive_site){gw, ln, slash ? slash + 1 : ln->hosts[k], any ? NULL : gw->ns});
            }
        }
    }
}

static inline void naive_name_add(struct naive_search *q, const char *name)
{
    if (!naive_host_is(name, q->host))
        return;
    size_t at = q->names_n;
    for (size_t i = 0; i < q->names_n; i++)
        if (naive_rank_cmp(name, q->names[i]) == 0)
            return;
    MUST(q->names_n < NAIVE_NAMES_MAX);
    for (q->names_n++; at > 0 && naive_rank_cmp(name, q->names[at - 1]) > 0; at--)
        q->names[at] = q->names[at - 1];
    q->names[at] = name;
}

static inline bool naive_has_name(const struct object *o, const char *name)
{
    for (size_t i = 0; i < o->route.hostnames_n; i++)
        if (slice_ieq(slice_cstr(o->route.hostnames[i]), slice_cstr(name)) || (naive_rank_cmp(o->route.hostnames[i], "") == 0 && naive_rank_cmp(name, "") == 0))
            return true;
    return !o->route.hostnames_n && naive_rank_cmp(name, "") == 0;
}

static inline bool naive_on_site(const struct objset *s, const struct object *o, const struct naive_site *site)
{
    if (site->gw->kind == OBJ_ISTIO_GATEWAY)
        return o->kind == OBJ_VIRTUALSERVICE && naive_virtual(o, site);
    return o->kind == OBJ_HTTPROUTE && naive_attached(s, o, site->gw, site->ln);
}

static inline void naive_names(struct naive_search *q)
{
    for (size_t i = 0; i < objset_n(q->s); i++)
        for (size_t k = 0; k < q->sites_n; k++) {
            const struct object *o = objset_at(q->s, i);
            if (!naive_on_site(q->s, o, &q->sites[k]))
                continue;
            for (size_t j = 0; j < o->route.hostnames_n; j++)
                naive_name_add(q, o->route.hostnames[j]);
            if (!o->route.hostnames_n)
                naive_name_add(q, "");
        }
}

/* The VirtualServices of one hostname, oldest first; true when there is one, whether it has a rule for the request or not. */
static inline bool naive_virtuals(struct naive_search *q, const char *name, struct naive_hit *best)
{
    const struct object *last = NULL;
    size_t last_i = 0; /* objects of one kind are in the order of namespace and name */
    *best = (struct naive_hit){0};
    for (bool any = false;; any = true) {
        const struct object *next = NULL;
        size_t next_i = 0;
        for (size_t i = 0; i < objset_n(q->s); i++) {
            const struct object *o = objset_at(q->s, i);
            bool there = false;
            for (size_t k = 0; k < q->sites_n; k++)
                there |= o->kind == OBJ_VIRTUALSERVICE && naive_on_site(q->s, o, &q->sites[k]) && naive_has_name(o, name);
            bool after = !last || o->created_ns > last->created_ns || (o->created_ns == last->created_ns && i > last_i);
            if (there && after && (!next || o->created_ns < next->created_ns)) {
                next = o;
                next_i = i;
            }
        }
        if (!next)
            return any;
        last_i = next_i;
        last = next;
        struct naive_hit first = {0}, hit;
        for (size_t k = 0; k < q->sites_n; k++) /* the same VirtualService through several Gateways: its earliest rule */
            if (naive_on_site(q->s, next, &q->sites[k]) && naive_ordered(next, &q->sites[k], q->h, &hit) && (!first.rule || hit.rule < first.rule))
                first = hit;
        if (first.rule) {
            *best = first;
            return true;
        }
    }
}

/* The best match for a request that came in on address a; false: none. */
static inline bool naive_find(const struct objset *s, const struct addr *a, const struct h1_head *h, struct naive_hit *best)
{
    char text[4096];
    static struct naive_search q;
    q = (struct naive_search){.s = s, .h = h, .host = naive_host(h->host, text, sizeof text)};
    naive_sites(&q, a);
    naive_names(&q);
    for (size_t n = 0; n < q.names_n; n++) {
        *best = (struct naive_hit){0};
        for (size_t i = 0; i < objset_n(s); i++)
            for (size_t k = 0; k < q.sites_n; k++) {
                const struct object *o = objset_at(s, i);
                if (o->kind == OBJ_HTTPROUTE && naive_on_site(q.s, o, &q.sites[k]) && naive_has_name(o, q.names[n]))
                    naive_route(o, q.names[n], h, best);
            }
        if (best->route || naive_virtuals(&q, q.names[n], best))
            return best->route != NULL;
    }
    *best = (struct naive_hit){0};
    return false;
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
