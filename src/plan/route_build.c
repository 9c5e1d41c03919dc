/* route_build.c - lays out the tables that plan_route() walks, for one address.
 *
 * Hostnames form a tree: "" (any host) covers ".com" ("*.com"), which covers ".example.com", which covers "a.example.com".
 * What matches a request's host is one path in that tree, so one lookup of its most specific name decides everything
 * about hosts. For each name that a Gateway listener or a route gives, the host table therefore already holds
 *
 *   owner   the Gateway listener with the most specific hostname that covers the name: it alone serves the host
 *   first   the path table of the owner's most specific route hostname that covers the name; route_paths.next leads on
 *           to the owner's less specific ones, but never past a table of VirtualServices: Istio chooses one hostname
 *   bytes   the same for rules of bytes
 *
 * A table is built once per Gateway listener, route hostname and kind (a group), from the matches of all routes that gave
 * that hostname; of one hostname the plain table comes before the ordered one. It keys on the hostname as the route gave it, not on its intersection with the listener's, so that of two
 * routes whose intersections are the same the one with the more specific hostname wins (HTTPRouteSpec.hostnames). The
 * intersection needs no computing here: only names inside the listener's hostname ever lead to the group.
 */
#include "route_int.h"

#include <stdlib.h>

/* ---- memory of the plan -------------------------------------------------------------------------------------------- */

void *keep_new(struct keep *k, size_t size)
{
    if (!size)
        return NULL;
    k->bytes += (size + 15) & ~(size_t)15;
    return arena_zalloc(k->mem, size);
}

struct slice keep_slice(struct keep *k, struct slice s)
{
    char *copy = keep_new(k, s.n + 1);
    if (s.n)
        memcpy(copy, s.p, s.n);
    return slice_of(copy, s.n);
}

char *keep_str(struct keep *k, const char *s)
{
    return s ? (char *)keep_slice(k, slice_cstr(s)).p : NULL;
}

/* ---- hostnames ------------------------------------------------------------------------------------------------------- */

struct slice pattern_of(struct arena *a, const char *hostname)
{
    struct slice s = slice_cstr(hostname);
    if (slice_is(s, "*"))
        s.n = 0;
    if (slice_starts(s, SLICE("*.")))
        s = slice_of(s.p + 1, s.n - 1);
    char *copy = arena_alloc(a, s.n + 1);
    for (size_t i = 0; i < s.n; i++)
        copy[i] = ascii_lower(s.p[i]);
    return slice_of(copy, s.n);
}

struct slice pattern_up(struct slice p)
{
    MUST(p.n);
    const char *dot = memchr(p.p + 1, '.', p.n - 1);
    return dot ? slice_of(dot, p.n - (size_t)(dot - p.p)) : slice_of(p.p + p.n, 0);
}

bool pattern_covers(struct slice wide, struct slice narrow)
{
    if (wide.n == 0 || slice_eq(wide, narrow))
        return true;
    return wide.p[0] == '.' && narrow.n > wide.n && slice_ends(narrow, wide);
}

/* ---- path tables -------------------------------------------------------------------------------------------------------- */

/* All matches of a group with the same kind and path, best first. */
struct path_entry {
    struct slice path;
    const struct route_cand *cands;
    uint32_t cands_n;
};

static int slice_cmp(struct slice a, struct slice b)
{
    int c = memcmp(a.n ? a.p : "", b.n ? b.p : "", MIN(a.n, b.n));
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* By place, then by path, then by precedence. */
static int one_cmp(const void *pa, const void *pb)
{
    const struct route_one *a = *(const struct route_one *const *)pa, *b = *(const struct route_one *const *)pb;
    if (a->place != b->place)
        return a->place < b->place ? -1 : 1;
    int c = a->place == ONE_REST ? 0 : slice_cmp(a->path, b->path);
    return c ? c : (a->order > b->order) - (a->order < b->order);
}

/* Of paths that are in no table of a plain route, the longer text first. */
static int rest_cmp(const void *pa, const void *pb)
{
    const struct route_one *a = *(const struct route_one *const *)pa, *b = *(const struct route_one *const *)pb;
    if (a->path.n != b->path.n)
        return a->path.n > b->path.n ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

/* What follows a candidate that asks for nothing more can never be reached, and is left out. */
static struct path_entry entry_of(struct keep *k, const struct route_one *const *ones, uint32_t n)
{
    uint32_t used = 0;
    while (used < n && ones[used++]->cand.preds)
        ;
    struct route_cand *cands = keep_new(k, used * sizeof *cands);
    for (uint32_t i = 0; i < used; i++) {
        cands[i] = ones[i]->cand;
        cands[i].order = ones[i]->order;
    }
    return (struct path_entry){keep_slice(k, ones[0]->path), cands, used};
}

/* The power of two of slots for n keys: at most three quarters are used, so every probe ends soon. */
static uint32_t table_size(uint32_t n)
{
    uint32_t size = 2;
    while (size * 3 < n * 4)
        size *= 2;
    return size;
}

static void exact_build(struct keep *k, struct route_paths *t, const struct path_entry *entries, uint32_t n)
{
    t->exact_n = n;
    if (!n)
        return;
    t->exact_mask = table_size(n) - 1;
    struct route_exact *slots = keep_new(k, (t->exact_mask + 1) * sizeof *slots);
    for (uint32_t e = 0; e < n; e++) {
        uint32_t hash = route_hash(entries[e].path.p, entries[e].path.n), i = hash & t->exact_mask;
        while (slots[i].cands)
            i = (i + 1) & t->exact_mask;
        slots[i] = (struct route_exact){entries[e].path, entries[e].cands, entries[e].cands_n, hash};
        t->exact_lens |= 1ull << (entries[e].path.n & 63);
    }
    t->exact = slots;
}

/* The bytes that entries[0..n) have in common from depth on; they are sorted, so the first and the last decide. */
static uint32_t common_bytes(const struct path_entry *entries, uint32_t n, uint32_t depth)
{
    struct slice a = entries[0].path, b = entries[n - 1].path;
    uint32_t i = depth;
    while (i < a.n && i < b.n && a.p[i] == b.p[i])
        i++;
    return i - depth;
}

/* End of the run of entries that have the same byte at depth as entries[from]. */
static uint32_t run_end(const struct path_entry *entries, uint32_t from, uint32_t n, uint32_t depth)
{
    uint32_t to = from + 1;
    while (to < n && entries[to].path.p[depth] == entries[from].path.p[depth])
        to++;
    return to;
}

/* The nearest prefix among node and its shorter ones that covers path element by element; "" covers all. */
static const struct radix_node *radix_up(const struct radix_node *node, struct slice path)
{
    while (node && node->depth && path.p[node->depth] != '/')
        node = node->up;
    return node;
}

/* Fills node, whose depth is set, from the sorted entries below it. near: the nearest ancestor with candidates. Recursion
 * goes one level deeper for each branching byte of a path, and a path has a limit in the reader. */
static void radix_build(struct keep *k, struct radix_node *node, const struct path_entry *entries, uint32_t n, const struct radix_node *near, bool elements)
{
    uint32_t at = 0, runs = 0, depth = node->depth;
    if (n && entries[0].path.n == depth) {
        node->cands = entries[0].cands;
        node->cands_n = entries[0].cands_n;
        node->up = elements ? radix_up(near, entries[0].path) : near;
        near = node;
        at = 1;
    }
    for (uint32_t i = at; i < n; i = run_end(entries, i, n, depth))
        runs++;
    struct radix_node *kids = keep_new(k, runs * sizeof *kids);
    char *firsts = runs > 1 ? keep_new(k, runs) : NULL; /* a single kid's label begins with it */
    for (uint32_t i = at, kid = 0, end; i < n; i = end, kid++) {
        end = run_end(entries, i, n, depth);
        if (firsts)
            firsts[kid] = entries[i].path.p[depth];
        kids[kid].label = entries[i].path.p + depth;
        kids[kid].label_n = common_bytes(entries + i, end - i, depth);
        kids[kid].depth = depth + kids[kid].label_n;
        radix_build(k, &kids[kid], entries + i, end - i, near, elements);
    }
    node->kids = kids;
    node->firsts = firsts ? firsts : runs ? kids[0].label : NULL;
    node->kids_n = runs;
}

static struct route_paths *ones_build(struct keep *k, struct arena *scratch, const struct route_one **ones, size_t n, bool ordered)
{
    struct path_entry *entries = arena_alloc(scratch, (n + 1) * sizeof *entries);
    uint32_t entries_n = 0, exact_n = 0;
    size_t from = 0, end;
    if (n)
        qsort(ones, n, sizeof(void *), one_cmp);
    for (; from < n && ones[from]->place != ONE_REST; from = end) {
        for (end = from + 1; end < n && ones[end]->place == ones[from]->place && slice_eq(ones[end]->path, ones[from]->path);)
            end++;
        exact_n += ones[from]->place == ONE_EXACT;
        entries[entries_n++] = entry_of(k, ones + from, (uint32_t)(end - from));
    }
    struct route_paths *t = keep_new(k, sizeof *t);
    t->ordered = ordered;
    exact_build(k, t, entries, exact_n);
    radix_build(k, &t->root, entries + exact_n, entries_n - exact_n, NULL, !ordered);
    if (from == n)
        return t;
    if (!ordered)
        qsort(ones + from, n - from, sizeof(void *), rest_cmp);
    struct path_entry rest = entry_of(k, ones + from, (uint32_t)(n - from));
    t->rest = rest.cands;
    t->rest_n = rest.cands_n;
    return t;
}

static bool one_allowed(const struct route_one *one, const char *gateway)
{
    for (size_t i = 0; i < one->gateways_n; i++)
        if (strcmp(one->gateways[i], gateway) == 0)
            return true;
    return one->gateways_n == 0;
}

const struct route_paths *paths_of(struct keep *k, struct arena *scratch, const struct route_source *const *sources, size_t n, const char *gateway)
{
    size_t total = 0, ones_n = 0;
    for (size_t i = 0; i < n; i++)
        total += sources[i]->ones_n;
    const struct route_one **ones = arena_alloc(scratch, (total + 1) * sizeof(void *));
    for (size_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < sources[i]->ones_n; j++)
            if (one_allowed(&sources[i]->ones[j], gateway))
                ones[ones_n++] = &sources[i]->ones[j];
    return ones_build(k, scratch, ones, ones_n, sources[0]->ordered);
}

/* ---- groups: the routes of one hostname on one Gateway listener ----------------------------------------------------------- */

enum group_kind { GROUP_PLAIN, GROUP_ORDERED, GROUP_BYTES };
struct route_group {
    uint32_t site;
    enum group_kind kind;
    struct slice pattern;
    struct route_paths *paths; /* or */
    struct route_bytes *bytes;
};
/* One hosts_build(). Tables key on a site's index and a kind (4 bytes each) and a pattern, or on a pattern alone. */
struct build {
    struct keep *k;
    struct arena *scratch;
    const struct route_site *sites; /* in the plan */
    uint32_t sites_n;
    struct table site_of;  /* pattern -> &sites[i] */
    struct table groups;   /* site, kind, pattern -> struct route_group */
    struct table names;    /* pattern -> anything: what becomes an entry of the host table */
};

static struct slice group_key(struct build *b, uint32_t site, enum group_kind kind, struct slice pattern)
{
    uint32_t head[2] = {site, (uint32_t)kind};
    char *key = arena_alloc(b->scratch, sizeof head + pattern.n);
    memcpy(key, head, sizeof head);
    if (pattern.n)
        memcpy(key + sizeof head, pattern.p, pattern.n);
    return slice_of(key, sizeof head + pattern.n);
}

static enum group_kind attach_kind(const struct route_attach *at) { return at->tcp ? GROUP_BYTES : at->source->ordered ? GROUP_ORDERED : GROUP_PLAIN; }

static int attach_cmp(const void *pa, const void *pb)
{
    const struct route_attach *a = pa, *b = pb;
    enum group_kind x = attach_kind(a), y = attach_kind(b);
    if (a->site != b->site)
        return a->site < b->site ? -1 : 1;
    if (x != y)
        return x < y ? -1 : 1;
    int c = slice_cmp(a->pattern, b->pattern);
    if (c)
        return c;
    if (a->tcp)
        return (a->tcp->order > b->tcp->order) - (a->tcp->order < b->tcp->order);
    return ((uintptr_t)a->source > (uintptr_t)b->source) - ((uintptr_t)a->source < (uintptr_t)b->source);
}

/* The path table of at[0..n): attachments of one group. A route that is attached twice counts once; a match counts that is
 * for one of the Gateways through which its route is attached. */
static struct route_paths *paths_build(struct build *b, const struct route_attach *at, size_t n)
{
    size_t total = 0, ones_n = 0;
    for (size_t i = 0; i < n; i++)
        total += at[i].source->ones_n;
    const struct route_one **ones = arena_alloc(b->scratch, (total + 1) * sizeof(void *));
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && at[end].source == at[i].source;)
            end++;
        for (uint32_t j = 0; j < at[i].source->ones_n; j++) {
            const struct route_one *one = &at[i].source->ones[j];
            bool allowed = false;
            for (size_t e = i; e < end && !allowed; e++)
                allowed = one_allowed(one, at[e].gateway);
            if (allowed)
                ones[ones_n++] = one;
        }
    }
    return ones_build(b->k, b->scratch, ones, ones_n, at[0].source->ordered);
}

static struct route_bytes *bytes_build(struct build *b, const struct route_attach *at, size_t n)
{
    struct route_bytes *t = keep_new(b->k, sizeof *t);
    struct tcp_cand *cands = keep_new(b->k, n * sizeof *cands);
    t->cands = cands;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || at[i].tcp != at[i - 1].tcp)
            cands[t->cands_n++] = at[i].tcp->cand;
    return t;
}

static void groups_build(struct build *b, struct route_attach *at, size_t n)
{
    if (n)
        qsort(at, n, sizeof *at, attach_cmp);
    for (size_t i = 0, end; i < n; i = end) {
        enum group_kind kind = attach_kind(&at[i]);
        for (end = i + 1; end < n && at[end].site == at[i].site && attach_kind(&at[end]) == kind && slice_eq(at[end].pattern, at[i].pattern);)
            end++;
        struct route_group *g = arena_zalloc(b->scratch, sizeof *g);
        *g = (struct route_group){.site = at[i].site, .kind = kind, .pattern = at[i].pattern};
        if (kind == GROUP_BYTES)
            g->bytes = bytes_build(b, at + i, end - i);
        else
            g->paths = paths_build(b, at + i, end - i);
        table_put(&b->groups, group_key(b, g->site, kind, g->pattern), g);
        table_put(&b->names, g->pattern, g);
    }
}

/* The site's table of that kind with the most specific hostname that covers pattern, or NULL. */
static const struct route_group *group_above(struct build *b, uint32_t site, enum group_kind kind, struct slice pattern)
{
    for (;; pattern = pattern_up(pattern)) {
        const struct route_group *g = table_get(&b->groups, group_key(b, site, kind, pattern));
        if (g || !pattern.n)
            return g;
    }
}

/* The same for requests: of one hostname the plain table comes first. */
static const struct route_paths *group_first(struct build *b, uint32_t site, struct slice pattern)
{
    const struct route_group *plain = group_above(b, site, GROUP_PLAIN, pattern), *ordered = group_above(b, site, GROUP_ORDERED, pattern);
    const struct route_group *g = !ordered || (plain && plain->pattern.n >= ordered->pattern.n) ? plain : ordered;
    return g ? g->paths : NULL;
}

static void groups_chain(struct build *b)
{
    for (struct table_slot *s = NULL; (s = table_next(&b->groups, s));) {
        struct route_group *g = s->value;
        if (g->kind == GROUP_ORDERED)
            continue;
        const struct route_group *same = g->kind == GROUP_PLAIN ? table_get(&b->groups, group_key(b, g->site, GROUP_ORDERED, g->pattern)) : NULL;
        if (g->kind == GROUP_BYTES) {
            const struct route_group *up = g->pattern.n ? group_above(b, g->site, GROUP_BYTES, pattern_up(g->pattern)) : NULL;
            g->bytes->next = up ? up->bytes : NULL;
        } else if (same) {
            g->paths->next = same->paths;
        } else if (g->pattern.n) {
            g->paths->next = group_first(b, g->site, pattern_up(g->pattern));
        }
    }
}

/* ---- the host table ---------------------------------------------------------------------------------------------------- */

/* Where a request goes whose most specific name is pattern: see the head of this file. */
static void name_lead(struct build *b, struct slice pattern, struct route_host *e)
{
    for (struct slice p = pattern;; p = pattern_up(p)) {
        const struct route_site *site = table_get(&b->site_of, p);
        if (site) {
            uint32_t i = (uint32_t)(site - b->sites);
            const struct route_group *bytes = group_above(b, i, GROUP_BYTES, pattern);
            e->site = site;
            e->first = group_first(b, i, pattern);
            e->bytes = bytes ? bytes->bytes : NULL;
        }
        if (site || !p.n)
            return;
    }
}

static void host_insert(struct build *b, struct plan_hosts *t, struct route_host *hosts, struct slice pattern)
{
    uint32_t hash = route_hash(pattern.p, pattern.n), i = hash & t->mask;
    while (hosts[i].used)
        i = (i + 1) & t->mask;
    bool wildcard = pattern.p[0] == '.';
    hosts[i] = (struct route_host){.name = keep_slice(b->k, pattern), .hash = hash, .wildcard = wildcard, .used = true};
    name_lead(b, pattern, &hosts[i]);
    (wildcard ? t->wild_lens : t->exact_lens)[pattern.n >> 6 & 3] |= 1ull << (pattern.n & 63);
}

static void hosts_fill(struct build *b, struct plan_hosts *t)
{
    for (uint32_t i = 0; i < b->sites_n; i++) {
        table_put(&b->names, b->sites[i].pattern, (void *)&b->sites[i]);
        t->redirects |= b->sites[i].https_redirect;
    }
    t->sites_n = b->sites_n;
    name_lead(b, SLICE(""), &t->any);
    t->n = (uint32_t)b->names.n - (table_get(&b->names, SLICE("")) ? 1 : 0);
    if (!t->n)
        return;
    t->mask = table_size(t->n) - 1;
    struct route_host *hosts = keep_new(b->k, (t->mask + 1) * sizeof *hosts);
    for (struct table_slot *s = NULL; (s = table_next(&b->names, s));)
        if (s->key_n)
            host_insert(b, t, hosts, slice_of(s->key, s->key_n));
    t->hosts = hosts;
}

struct plan_hosts *hosts_build(struct keep *k, struct arena *scratch, const struct route_site *sites, uint32_t sites_n, struct route_attach *at, size_t at_n)
{
    struct route_site *kept = keep_new(k, (sites_n + 1) * sizeof *kept);
    for (uint32_t i = 0; i < sites_n; i++) {
        kept[i] = sites[i];
        kept[i].pattern = keep_slice(k, sites[i].pattern);
    }
    struct build b = {.k = k, .scratch = scratch, .sites = kept, .sites_n = sites_n};
    for (uint32_t i = 0; i < sites_n; i++)
        table_put(&b.site_of, kept[i].pattern, &kept[i]);
    groups_build(&b, at, at_n);
    groups_chain(&b);
    struct plan_hosts *t = keep_new(k, sizeof *t);
    hosts_fill(&b, t);
    table_fini(&b.site_of);
    table_fini(&b.groups);
    table_fini(&b.names);
    return t;
}
