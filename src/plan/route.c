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

/* ---- predicates: what a match asks for besides host and path ------------------------------------------------------ */

/* Field lines of one name stand for one value, joined by commas (RFC 9110 section 5.3), so want is compared with all of
 * them in order; a space after the comma is optional. */
static bool header_holds(const struct route_pred *pred, const struct h1_head *h)
{
    uint16_t first = pred->id == H1_OTHER ? 0 : h->known[pred->id];
    if (pred->id != H1_OTHER && !first)
        return false;
    struct slice rest = pred->value;
    bool found = false;
    for (uint16_t i = first ? (uint16_t)(first - 1) : 0; i < h->n; i++) {
        const struct h1_field *f = &h->fields[i];
        if (f->id != pred->id || (f->id == H1_OTHER && !slice_ieq(f->name, pred->name)))
            continue;
        if (found) {
            if (!rest.n || rest.p[0] != ',')
                return false;
            size_t skip = rest.n > 1 && rest.p[1] == ' ' ? 2 : 1;
            rest = slice_of(rest.p + skip, rest.n - skip);
        }
        if (!slice_starts(rest, f->value))
            return false;
        rest = slice_of(rest.p + f->value.n, rest.n - f->value.n);
        found = true;
    }
    return found && rest.n == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* raw is want, as it stands or after decoding %XX and '+' (application/x-www-form-urlencoded). A '%' without two hex
 * digits stands for itself. */
static bool query_text_is(struct slice raw, struct slice want)
{
    if (slice_eq(raw, want))
        return true;
    size_t w = 0;
    for (size_t i = 0; i < raw.n; i++, w++) {
        char c = raw.p[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%' && i + 2 < raw.n && hex_digit(raw.p[i + 1]) >= 0 && hex_digit(raw.p[i + 2]) >= 0) {
            c = (char)(hex_digit(raw.p[i + 1]) * 16 + hex_digit(raw.p[i + 2]));
            i += 2;
        }
        if (w >= want.n || want.p[w] != c)
            return false;
    }
    return w == want.n;
}

/* The first parameter of that name decides (HTTPQueryParamMatch recommends it for repeated ones). */
static bool query_holds(const struct route_pred *pred, const struct h1_head *h)
{
    struct slice rest = h->has_query ? h->query : slice_of(NULL, 0);
    while (rest.n) {
        struct slice value, name = slice_cut(slice_cut(rest, '&', &rest), '=', &value);
        if (query_text_is(name, pred->name))
            return query_text_is(value, pred->value);
    }
    return false;
}

static bool preds_hold(const struct route_preds *preds, const struct h1_head *h)
{
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
    return true;
}

static inline const struct plan_rule *cands_pick(const struct route_cand *cands, uint32_t n, const struct h1_head *h)
{
    for (uint32_t i = 0; i < n; i++)
        if (LIKELY(!cands[i].preds) || preds_hold(cands[i].preds, h))
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

/* The deepest node with candidates that is a prefix of path element by element. The root, prefix "/", matches whatever the
 * path is, "*" and none included: a rule without a path is for every request. */
static const struct radix_node *radix_find(const struct radix_node *root, struct slice path)
{
    const struct radix_node *best = root->cands_n ? root : NULL;
    const struct radix_node *node = root;
    size_t i = 0;
    while (i < path.n && (node = radix_kid(node, path.p[i])) && path.n - i >= node->label_n &&
           memcmp(path.p + i, node->label, node->label_n) == 0) {
        i += node->label_n;
        if (node->cands_n && (i == path.n || path.p[i] == '/'))
            best = node;
    }
    return best;
}

static bool paths_find(const struct route_paths *t, const struct h1_head *h, struct plan_hit *hit)
{
    if (t->exact_n) {
        const struct route_exact *e = exact_find(t, h->path);
        if (e && (hit->rule = cands_pick(e->cands, e->cands_n, h))) {
            hit->prefix_len = 0;
            return true;
        }
    }
    for (const struct radix_node *node = radix_find(&t->root, h->path); node; node = node->up) {
        if ((hit->rule = cands_pick(node->cands, node->cands_n, h))) {
            hit->prefix_len = node->depth;
            return true;
        }
    }
    return false;
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

/* The path tables for a host. A trailing dot (the absolute form of a DNS name) is ignored. Of a host longer than any DNS
 * name only wildcards can match, so its last bytes are enough. */
static const struct route_paths *hosts_find(const struct plan_hosts *t, struct slice host)
{
    if (!t->n)
        return t->any;
    if (host.n && host.p[host.n - 1] == '.')
        host.n--;
    char text[HOST_BYTES_MAX + 3];
    size_t off = host.n > HOST_BYTES_MAX ? host.n - HOST_BYTES_MAX : 0, n = host.n - off;
    lower_copy(text, host.p + off, n);
    const struct route_host *e;
    if (!off && lens_has(t->exact_lens, n) && (e = host_probe(t, slice_of(text, n), false)))
        return e->first;
    for (size_t i = 1; i < n; i++) { /* not 0: "*" stands for a label at least */
        const char *dot = memchr(text + i, '.', n - i);
        if (!dot)
            break;
        i = (size_t)(dot - text);
        if (lens_has(t->wild_lens, n - i) && (e = host_probe(t, slice_of(dot, n - i), true)))
            return e->first;
    }
    return t->any;
}

/* ---- the room's functions ------------------------------------------------------------------------------------------------ */

bool plan_route(const struct plan *p, const struct plan_listener *ln, const struct h1_head *h, struct plan_hit *hit)
{
    DMUST(ln >= p->listeners && ln < p->listeners + p->listeners_n);
    for (const struct route_paths *t = hosts_find(ln->hosts, h->host); t; t = t->next)
        if (paths_find(t, h, hit))
            return true;
    return false;
}

const struct plan_rule *plan_mesh_rule(const struct plan *p, const struct addr *a)
{
    if (a->family != ADDR_IP4)
        return NULL;
    char key[6];
    memcpy(key, a->ip, 4);
    key[4] = (char)(a->port >> 8);
    key[5] = (char)(a->port & 0xff);
    return table_get(&p->mesh, slice_of(key, sizeof key));
}

const struct plan_listener *plan_listener_find(const struct plan *p, uint64_t token)
{
    for (uint32_t i = 0; i < p->listeners_n; i++)
        if (p->listeners[i].token == token)
            return &p->listeners[i];
    return NULL;
}
