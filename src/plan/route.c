/* route.c - from a request head to its rule. The hot path: no allocation, no lock, no system call, nothing written but the
 * result.
 *
 * Three steps, each most specific first, with Gateway API's precedence already laid down in the tables by route_build.c:
 *
 *   host     one hash probe for the whole name, then one for each shorter suffix that a wildcard could be (bit sets of the
 *            lengths in use skip the rest); the entry leads to a chain of path tables, one for each less specific hostname
 *   path     one probe for the exact path, then the deepest node of the prefix tree and its shorter element-wise prefixes
 *   rest     a list of candidates by method, headers and query; the first whose predicates hold wins
 *
 * What fails at one step goes on to the next less specific entry, within one Gateway listener (ROUTING.md says why).
 */
#include "route_int.h"

/* What is asked of a request. */
struct route_ask {
    const struct h1_head *h;
    const struct plan_caller *caller; /* NULL: from outside, or unknown */
    bool secure;
    uint16_t port;                    /* connected to */
};

/* ---- predicates: what a match asks for besides host and path ------------------------------------------------------ */

#define JOINED_BYTES_MAX 4096 /* a header in several lines, or a decoded query value, that an expression looks at: longer never match */

static inline bool text_eq(struct slice a, struct slice b, bool ignore_case) { return ignore_case ? slice_ieq(a, b) : slice_eq(a, b); }

static inline bool text_starts(struct slice s, struct slice prefix, bool ignore_case)
{
    return s.n >= prefix.n && text_eq(slice_of(s.p, prefix.n), prefix, ignore_case);
}

/* One whole text against a predicate, without its inversion. */
static bool text_holds(const struct route_pred *pred, struct slice s)
{
    switch ((enum match_kind)pred->kind) {
    case MATCH_EXACT: return text_eq(s, pred->value, pred->ignore_case);
    case MATCH_STRING_PREFIX: return text_starts(s, pred->value, pred->ignore_case);
    case MATCH_PREFIX: return text_starts(s, pred->value, pred->ignore_case) && (!pred->value.n || s.n == pred->value.n || s.p[pred->value.n] == '/');
    case MATCH_REGEX: return pred->regex && plan_regex_match(pred->regex, s, true);
    case MATCH_PRESENT: return true;
    }
    return false;
}

static inline bool field_is(const struct route_pred *pred, const struct h1_field *f)
{
    return f->id == pred->id && (f->id != H1_OTHER || slice_ieq(f->name, pred->name));
}

/* Field lines of one name stand for one value, joined by commas (RFC 9110 section 5.3), so the wanted value is compared with
 * all of them in order; a space after the comma is optional. first: index of the first line of that name. */
static bool header_lines_are(const struct route_pred *pred, const struct h1_head *h, uint16_t first)
{
    struct slice rest = pred->value;
    bool prefix = pred->kind == MATCH_STRING_PREFIX || pred->kind == MATCH_PREFIX, again = false;
    for (uint16_t i = first; i < h->n; i++) {
        const struct h1_field *f = &h->fields[i];
        if (!field_is(pred, f))
            continue;
        if (again) {
            if (!rest.n)
                return prefix;
            if (rest.p[0] != ',')
                return false;
            size_t skip = rest.n > 1 && rest.p[1] == ' ' ? 2 : 1;
            rest = slice_of(rest.p + skip, rest.n - skip);
        }
        if (prefix && rest.n <= f->value.n)
            return text_starts(f->value, rest, pred->ignore_case);
        if (!text_starts(rest, f->value, pred->ignore_case))
            return false;
        rest = slice_of(rest.p + f->value.n, rest.n - f->value.n);
        again = true;
    }
    return rest.n == 0;
}

/* The lines joined by ", ", for expressions. */
static bool header_joined_holds(const struct route_pred *pred, const struct h1_head *h, uint16_t first)
{
    char text[JOINED_BYTES_MAX];
    size_t n = 0;
    for (uint16_t i = first; i < h->n; i++) {
        const struct h1_field *f = &h->fields[i];
        if (!field_is(pred, f))
            continue;
        if (i > first) {
            if (sizeof text - n < 2)
                return plan_regex_overrun();
            text[n++] = ',';
            text[n++] = ' ';
        }
        if (f->value.n > sizeof text - n)
            return plan_regex_overrun();
        if (f->value.n)
            memcpy(text + n, f->value.p, f->value.n);
        n += f->value.n;
    }
    return text_holds(pred, slice_of(text, n));
}

static bool header_matches(const struct route_pred *pred, const struct h1_head *h)
{
    uint16_t first = 0, lines = 0;
    if (pred->id != H1_OTHER) {
        if (!h->known[pred->id])
            return false;
        first = (uint16_t)(h->known[pred->id] - 1);
    } else {
        while (first < h->n && !field_is(pred, &h->fields[first]))
            first++;
        if (first == h->n)
            return false;
    }
    if (pred->kind == MATCH_PRESENT)
        return true;
    if (pred->kind != MATCH_REGEX)
        return header_lines_are(pred, h, first);
    for (uint16_t i = first; i < h->n && lines < 2; i++)
        lines = (uint16_t)(lines + field_is(pred, &h->fields[i]));
    return lines == 1 ? text_holds(pred, h->fields[first].value) : header_joined_holds(pred, h, first);
}

static inline bool header_holds(const struct route_pred *pred, const struct h1_head *h)
{
    return header_matches(pred, h) != pred->invert;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte at raw.p[*i] after decoding %XX and '+' (application/x-www-form-urlencoded); *i is moved to its last byte. A '%'
 * without two hex digits stands for itself. */
static inline char query_byte(struct slice raw, size_t *i)
{
    char c = raw.p[*i];
    if (c == '+')
        return ' ';
    if (c == '%' && *i + 2 < raw.n && hex_digit(raw.p[*i + 1]) >= 0 && hex_digit(raw.p[*i + 2]) >= 0) {
        c = (char)(hex_digit(raw.p[*i + 1]) * 16 + hex_digit(raw.p[*i + 2]));
        *i += 2;
    }
    return c;
}

/* raw is want, as it stands or decoded. */
static bool query_text_is(struct slice raw, struct slice want)
{
    if (slice_eq(raw, want))
        return true;
    size_t w = 0;
    for (size_t i = 0; i < raw.n; i++, w++) {
        char c = query_byte(raw, &i);
        if (w >= want.n || want.p[w] != c)
            return false;
    }
    return w == want.n;
}

/* A value against anything but an exact text: as sent, or decoded. */
static bool query_value_holds(const struct route_pred *pred, struct slice raw)
{
    char text[JOINED_BYTES_MAX];
    size_t n = 0;
    bool coded = false;
    if (text_holds(pred, raw))
        return true;
    for (size_t i = 0; i < raw.n && !coded; i++)
        coded = raw.p[i] == '%' || raw.p[i] == '+';
    if (!coded)
        return false;
    for (size_t i = 0; i < raw.n; i++) {
        if (n == sizeof text)
            return plan_regex_overrun();
        text[n++] = query_byte(raw, &i);
    }
    return text_holds(pred, slice_of(text, n));
}

/* The first parameter of that name decides (HTTPQueryParamMatch recommends it for repeated ones). */
static bool query_holds(const struct route_pred *pred, const struct h1_head *h)
{
    struct slice rest = h->has_query ? h->query : slice_of(NULL, 0);
    while (rest.n) {
        struct slice value, name = slice_cut(slice_cut(rest, '&', &rest), '=', &value);
        if (!query_text_is(name, pred->name))
            continue;
        bool plain = pred->kind == MATCH_EXACT && !pred->ignore_case;
        return (plain ? query_text_is(value, pred->value) : query_value_holds(pred, value)) != pred->invert;
    }
    return pred->invert;
}

static bool source_holds(const struct plan_caller *caller, const char *ns, const struct kvs *labels)
{
    return caller && (!ns || strcmp(ns, caller->ns) == 0) && (!labels->n || (caller->labels && kvs_match(labels, caller->labels)));
}

static bool more_holds(const struct route_more *m, const struct route_ask *ask)
{
    const struct h1_head *h = ask->h;
    if (m->port && m->port != ask->port)
        return false;
    if (m->path && text_holds(m->path, h->path) == m->path->invert)
        return false;
    if (m->method && text_holds(m->method, h->method) == m->method->invert)
        return false;
    if (m->scheme && text_holds(m->scheme, ask->secure ? SLICE("https") : SLICE("http")) == m->scheme->invert)
        return false;
    if (m->authority && text_holds(m->authority, h->authority) == m->authority->invert)
        return false;
    return !m->source || source_holds(ask->caller, m->source_ns, &m->source_labels);
}

static __attribute__((noinline)) bool preds_hold(const struct route_preds *preds, const struct route_ask *ask)
{
    const struct h1_head *h = ask->h;
    if (preds->has_method) {
        if (preds->method != h->method_id)
            return false;
        if (preds->method == H1_M_OTHER && !slice_eq(preds->method_text, h->method))
            return false;
    }
    for (uint16_t i = 0; i < preds->headers_n; i++)
        if (!header_holds(&preds->headers[i], h))
            return false;
    for (uint16_t i = 0; i < preds->queries_n; i++)
        if (!query_holds(&preds->queries[i], h))
            return false;
    return !preds->more || more_holds(preds->more, ask);
}

static inline const struct plan_rule *cands_pick(const struct route_cand *cands, uint32_t n, const struct route_ask *ask)
{
    for (uint32_t i = 0; i < n; i++)
        if (LIKELY(!cands[i].preds) || preds_hold(cands[i].preds, ask))
            return cands[i].rule;
    return NULL;
}

/* ---- paths ------------------------------------------------------------------------------------------------------------ */

static const struct route_exact *exact_find(const struct route_paths *t, struct slice path)
{
    if (!(t->exact_lens >> (path.n & 63) & 1))
        return NULL;
    uint32_t hash = route_hash(path.p, path.n);
    for (uint32_t i = hash & t->exact_mask;; i = (i + 1) & t->exact_mask) {
        const struct route_exact *e = &t->exact[i];
        if (!e->cands)
            return NULL;
        if (e->hash == hash && slice_eq(e->path, path))
            return e;
    }
}

/* The kid whose label goes on with c, or NULL. */
static inline const struct radix_node *radix_kid(const struct radix_node *node, char c)
{
    if (node->kids_n > 8) {
        const char *at = memchr(node->firsts, c, node->kids_n);
        return at ? &node->kids[at - node->firsts] : NULL;
    }
    for (uint32_t i = 0; i < node->kids_n; i++)
        if (node->firsts[i] == c)
            return &node->kids[i];
    return NULL;
}

/* The deepest node with candidates that is a prefix of path: element by element, or of any bytes. The root, prefix "/" or "",
 * matches whatever the path is, "*" and none included: a rule without a path is for every request. */
static inline const struct radix_node *radix_find(const struct radix_node *root, struct slice path, bool elements)
{
    const struct radix_node *best = root->cands_n ? root : NULL;
    const struct radix_node *node = root;
    size_t i = 0;
    while (i < path.n && (node = radix_kid(node, path.p[i])) && path.n - i >= node->label_n &&
           memcmp(path.p + i, node->label, node->label_n) == 0) {
        i += node->label_n;
        if (node->cands_n && (!elements || i == path.n || path.p[i] == '/'))
            best = node;
    }
    return best;
}

/* The first that holds of those before limit. */
static const struct route_cand *cands_before(const struct route_cand *cands, uint32_t n, const struct route_ask *ask, uint32_t limit)
{
    for (uint32_t i = 0; i < n && cands[i].order < limit; i++)
        if (!cands[i].preds || preds_hold(cands[i].preds, ask))
            return &cands[i];
    return NULL;
}

/* Bytes of the path that a match in the rest covers. */
static uint32_t rest_covers(const struct route_cand *cand, struct slice path)
{
    const struct route_pred *p = cand->preds->more->path;
    return (uint32_t)(p->kind == MATCH_STRING_PREFIX || p->kind == MATCH_PREFIX ? p->value.n : path.n);
}

/* Of all that hold the one with the lowest order. Each place has its candidates in order, so none is asked that comes after
 * what was found elsewhere. */
static __attribute__((noinline)) bool ordered_find(const struct route_paths *t, const struct route_ask *ask, struct plan_hit *hit)
{
    struct slice path = ask->h->path;
    const struct route_cand *best = NULL, *cand;
    uint32_t limit = UINT32_MAX;
    const struct route_exact *e = t->exact_n ? exact_find(t, path) : NULL;
    if (e && (best = cands_before(e->cands, e->cands_n, ask, limit))) {
        limit = best->order;
        hit->prefix_len = (uint32_t)path.n;
    }
    for (const struct radix_node *node = radix_find(&t->root, path, false); node; node = node->up) {
        if (!(cand = cands_before(node->cands, node->cands_n, ask, limit)))
            continue;
        best = cand;
        limit = best->order;
        hit->prefix_len = node->depth;
    }
    if ((cand = cands_before(t->rest, t->rest_n, ask, limit))) {
        best = cand;
        hit->prefix_len = rest_covers(best, path);
    }
    hit->rule = best ? best->rule : NULL;
    return best != NULL;
}

/* Exact, the longest prefix, expressions, "/". */
static inline bool plain_find(const struct route_paths *t, const struct route_ask *ask, struct plan_hit *hit)
{
    struct slice path = ask->h->path;
    if (t->exact_n) {
        const struct route_exact *e = exact_find(t, path);
        if (e && (hit->rule = cands_pick(e->cands, e->cands_n, ask))) {
            hit->prefix_len = 0;
            return true;
        }
    }
    const struct radix_node *node = radix_find(&t->root, path, true);
    for (; node && (node->depth || !t->rest_n); node = node->up) {
        if ((hit->rule = cands_pick(node->cands, node->cands_n, ask))) {
            hit->prefix_len = node->depth;
            return true;
        }
    }
    if (!t->rest_n)
        return false;
    hit->prefix_len = 0;
    if ((hit->rule = cands_pick(t->rest, t->rest_n, ask)))
        return true;
    return node && (hit->rule = cands_pick(node->cands, node->cands_n, ask)) != NULL;
}

static inline bool paths_find(const struct route_paths *t, const struct route_ask *ask, struct plan_hit *hit)
{
    return t->ordered ? ordered_find(t, ask, hit) : plain_find(t, ask, hit);
}

/* ---- hosts ---------------------------------------------------------------------------------------------------------------- */

/* Lower-cases eight ASCII letters at once: a byte is a letter from A to Z when adding 63 sets its high bit and adding 37
 * does not; bit 5 is then set. Bytes above 127 stay. */
static inline uint64_t lower8(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t low = w & ones * 0x7f;
    uint64_t letter = ((low + ones * (128 - 'A')) ^ (low + ones * (127 - 'Z'))) & ~w & ones * 0x80;
    return w | letter >> 2;
}

static inline void lower_copy(char *out, const char *p, size_t n)
{
    uint64_t w;
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            out[i] = ascii_lower(p[i]);
        return;
    }
    for (size_t i = 0; i + 8 <= n; i += 8) {
        memcpy(&w, p + i, 8);
        w = lower8(w);
        memcpy(out + i, &w, 8);
    }
    memcpy(&w, p + n - 8, 8); /* the last eight again, instead of a loop over the remainder */
    w = lower8(w);
    memcpy(out + n - 8, &w, 8);
}

static inline bool lens_has(const uint64_t lens[4], size_t n)
{
    return lens[n >> 6 & 3] >> (n & 63) & 1;
}

static const struct route_host *host_probe(const struct plan_hosts *t, struct slice name, bool wildcard)
{
    uint32_t hash = route_hash(name.p, name.n);
    for (uint32_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        const struct route_host *e = &t->hosts[i];
        if (!e->used)
            return NULL;
        if (e->hash == hash && e->wildcard == wildcard && slice_eq(e->name, name))
            return e;
    }
}

/* The entry for a host. A trailing dot (the absolute form of a DNS name) is ignored. Of a host longer than any DNS
 * name only wildcards can match, so its last bytes are enough. */
static __attribute__((noinline)) const struct route_host *names_find(const struct plan_hosts *t, struct slice host)
{
    if (!host.n)
        return &t->any;
    if (host.p[host.n - 1] == '.')
        host.n--;
    char text[HOST_BYTES_MAX + 3];
    size_t off = host.n > HOST_BYTES_MAX ? host.n - HOST_BYTES_MAX : 0, n = host.n - off;
    lower_copy(text, host.p + off, n);
    const struct route_host *e;
    if (!off && lens_has(t->exact_lens, n) && (e = host_probe(t, slice_of(text, n), false)))
        return e;
    for (size_t i = 1; i < n; i++) { /* not 0: "*" stands for a label at least */
        const char *dot = memchr(text + i, '.', n - i);
        if (!dot)
            break;
        i = (size_t)(dot - text);
        if (lens_has(t->wild_lens, n - i) && (e = host_probe(t, slice_of(dot, n - i), true)))
            return e;
    }
    return &t->any;
}

static inline const struct route_host *hosts_find(const struct plan_hosts *t, struct slice host) { return t->n ? names_find(t, host) : &t->any; }

/* ---- the room's functions ------------------------------------------------------------------------------------------------ */

/* What a Gateway listener says before its routes: false when the request does not get to them. */
static __attribute__((noinline)) bool site_admits(const struct plan_hosts *t, const struct route_host *e, const struct h1_head *h, bool secure, struct slice sni, struct plan_hit *hit)
{
    if (!secure) {
        hit->https_redirect = e->site && e->site->https_redirect;
        return !hit->https_redirect;
    }
    /* RFC 9110 section 7.4; Gateway API GatewaySpec.listeners: the server name chose a listener, with its certificates and
     * its demands on the client's; a host of another one must not be reached past those. */
    hit->misdirected = t->sites_n > 1 && sni.n && !slice_ieq(sni, h->host) && hosts_find(t, sni)->site != e->site;
    return !hit->misdirected;
}

bool plan_route(const struct plan *p, const struct plan_listener *ln, const struct h1_head *h, bool secure, struct slice sni, struct plan_hit *hit)
{
    DMUST(ln >= p->listeners && ln < p->listeners + p->listeners_n);
    const struct plan_hosts *t = ln->hosts;
    const struct route_host *e = hosts_find(t, h->host);
    const struct route_ask ask = {.h = h, .secure = secure, .port = ln->address.port};
    hit->https_redirect = hit->misdirected = false;
    if (UNLIKELY(t->redirects | secure) && !site_admits(t, e, h, secure, sni, hit)) {
        hit->rule = NULL;
        return hit->https_redirect;
    }
    for (const struct route_paths *paths = e->first; paths; paths = paths->next)
        if (paths_find(paths, &ask, hit))
            return true;
    hit->rule = NULL;
    return false;
}

static bool tcp_holds(const struct tcp_preds *p, uint16_t port, const struct plan_caller *caller)
{
    return !p || ((!p->port || p->port == port) && (!p->source || source_holds(caller, p->source_ns, &p->source_labels)));
}

static const struct plan_tcp_rule *tcp_pick(const struct tcp_cand *cands, uint32_t n, uint16_t port, const struct plan_caller *caller)
{
    for (uint32_t i = 0; i < n; i++)
        if (tcp_holds(cands[i].preds, port, caller))
            return cands[i].rule;
    return NULL;
}

static const struct plan_tcp_rule *bytes_find(const struct plan_hosts *t, struct slice sni, uint16_t port, const struct plan_caller *caller)
{
    const struct plan_tcp_rule *rule = NULL;
    for (const struct route_bytes *b = hosts_find(t, sni)->bytes; b && !rule; b = b->next)
        rule = tcp_pick(b->cands, b->cands_n, port, caller);
    return rule;
}

const struct plan_tcp_rule *plan_tcp_route(const struct plan *p, const struct plan_listener *ln, struct slice sni)
{
    DMUST(ln >= p->listeners && ln < p->listeners + p->listeners_n);
    return bytes_find(ln->hosts, sni, ln->address.port, NULL);
}

bool plan_tls_passed(const struct plan *p, const struct plan_listener *ln, struct slice sni)
{
    DMUST(ln >= p->listeners && ln < p->listeners + p->listeners_n);
    const struct route_site *site = hosts_find(ln->hosts, sni)->site;
    return site && site->passed;
}

/* ---- the mesh ------------------------------------------------------------------------------------------------------------ */

static const struct mesh_entry *mesh_find(const struct plan *p, const struct addr *a)
{
    if (a->family != ADDR_IP4)
        return NULL;
    char key[6];
    memcpy(key, a->ip, 4);
    key[4] = (char)(a->port >> 8);
    key[5] = (char)(a->port & 0xff);
    return table_get(&p->mesh, slice_of(key, sizeof key));
}

static bool table_is_for(const struct mesh_table *t, const struct plan_caller *caller)
{
    for (uint32_t i = 0; i < t->from_n; i++)
        if (caller && strcmp(t->from[i], caller->ns) == 0)
            return true;
    return t->from_n == 0;
}

bool plan_route_mesh(const struct plan *p, const struct addr *a, const struct h1_head *h, const struct plan_caller *caller, struct plan_hit *hit)
{
    const struct mesh_entry *e = mesh_find(p, a);
    *hit = (struct plan_hit){0};
    if (!e || e->protocol != MESH_HTTP)
        return false;
    const struct route_ask ask = {.h = h, .caller = caller, .port = a->port};
    for (uint32_t i = 0; i < e->tables_n; i++)
        if (e->tables[i]->http && table_is_for(e->tables[i], caller))
            return paths_find(e->tables[i]->http, &ask, hit);
    hit->rule = e->rule;
    return true;
}

enum mesh_protocol plan_mesh_protocol(const struct plan *p, const struct addr *a)
{
    const struct mesh_entry *e = mesh_find(p, a);
    return e ? e->protocol : MESH_NONE;
}

const struct plan_tcp_rule *plan_tcp_mesh(const struct plan *p, const struct addr *a, struct slice sni, const struct plan_caller *caller)
{
    const struct mesh_entry *e = mesh_find(p, a);
    if (!e || (e->protocol != MESH_TCP && e->protocol != MESH_TLS))
        return NULL;
    for (uint32_t i = 0; i < e->tables_n; i++) {
        const struct mesh_table *t = e->tables[i];
        if ((!t->tls && !t->tcp_n) || !table_is_for(t, caller))
            continue;
        const struct plan_tcp_rule *rule = t->tls && sni.n ? bytes_find(t->tls, sni, a->port, caller) : NULL;
        if (!rule)
            rule = tcp_pick(t->tcp, t->tcp_n, a->port, caller);
        return rule ? rule : e->bytes;
    }
    return e->bytes;
}

const struct plan_caller *plan_caller_find(const struct plan *p, const char *ns, const char *workload)
{
    char key[512];
    size_t a = strlen(ns), b = strlen(workload);
    if (a + b + 1 > sizeof key)
        return NULL; /* names are far shorter: DNS labels */
    memcpy(key, ns, a);
    key[a] = '/';
    memcpy(key + a + 1, workload, b);
    return table_get(&p->callers, slice_of(key, a + b + 1));
}

const struct plan_listener *plan_listener_find(const struct plan *p, uint64_t token)
{
    for (uint32_t i = 0; i < p->listeners_n; i++)
        if (p->listeners[i].token == token)
            return &p->listeners[i];
    return NULL;
}
