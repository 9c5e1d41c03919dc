/* filter.c - what filters share: counters, and questions about heads that several of them ask. */
#include "filter_int.h"

static uint64_t counts[FILTER_COUNTER_COUNT];

void filter_count(enum filter_counter c, uint64_t n) { __atomic_fetch_add(&counts[c], n, __ATOMIC_RELAXED); }
uint64_t filter_counter_read(enum filter_counter c) { return __atomic_load_n(&counts[c], __ATOMIC_RELAXED); }

struct slice content_type(const struct h1_head *h)
{
    const struct h1_field *f = h1_get(h, H1_CONTENT_TYPE);
    struct slice rest;
    return f ? slice_trim(slice_cut(f->value, ';', &rest)) : (struct slice){0};
}

bool content_is_json(struct slice type)
{
    return slice_ieq(type, SLICE("application/json")) || slice_ieq(type, SLICE("text/json")) || slice_iends(type, SLICE("+json"));
}

bool content_encoded(const struct h1_head *h)
{
    const struct h1_field *f = h1_find(h, SLICE("content-encoding"));
    return f && f->value.n && !slice_ieq(f->value, SLICE("identity"));
}

/* Commas inside quoted strings do not end an element. */
static struct slice list_cut(struct slice s, struct slice *rest)
{
    bool quoted = false;
    size_t i = 0;
    for (; i < s.n && (quoted || s.p[i] != ','); i++) {
        if (s.p[i] == '"')
            quoted = !quoted;
        else if (quoted && s.p[i] == '\\')
            i++;
    }
    i = MIN(i, s.n);
    *rest = i < s.n ? slice_of(s.p + i + 1, s.n - i - 1) : slice_of(s.p + s.n, 0);
    return slice_trim(slice_of(s.p, i));
}

bool list_next(const struct h1_head *h, struct slice name, struct list_at *at, struct slice *element)
{
    for (;;) {
        while (at->rest.n) {
            *element = list_cut(at->rest, &at->rest);
            if (element->n)
                return true;
        }
        while (at->field < h->n && !slice_ieq(h->fields[at->field].name, name))
            at->field++;
        if (at->field == h->n)
            return false;
        at->rest = h->fields[at->field++].value;
    }
}

/* ---- one filter behind the other ---------------------------------------------------------------------------------------------- */

struct chain {
    struct body_filter f;
    struct body_filter *first, *second;
    struct buf between;          /* what first gave in this call */
};

static enum err chain_feed(struct body_filter *f, struct pieces in, bool end, struct buf *out)
{
    struct chain *c = CONTAINER_OF(f, struct chain, f);
    buf_clear(&c->between);
    enum err e = c->first->ops->feed(c->first, in, end, &c->between);
    if (e != OK || (c->between.n == 0 && !end))
        return e;
    struct iovec v = {c->between.p, c->between.n};
    return c->second->ops->feed(c->second, (struct pieces){&v, v.iov_len ? 1 : 0, v.iov_len}, end, out);
}

static void chain_free(struct body_filter *f)
{
    struct chain *c = CONTAINER_OF(f, struct chain, f);
    c->first->ops->free(c->first);
    c->second->ops->free(c->second);
    buf_free(&c->between);
    mem_free(c);
}

struct body_filter *body_filter_chain(struct body_filter *first, struct body_filter *second)
{
    static const struct body_filter_ops ops = {chain_feed, chain_free};
    if (!first || !second)
        return first ? first : second;
    struct chain *c = mem_new(MEM_FILTER, sizeof *c);
    *c = (struct chain){.f.ops = &ops, .first = first, .second = second};
    return &c->f;
}

/* ---- what a changed body changes in its head -------------------------------------------------------------------------------------- */

bool body_changed_drops(struct slice name)
{
    static const struct slice names[] = {{"digest", 6}, {"content-md5", 11}, {"repr-digest", 11}, {"accept-ranges", 13}, {"content-digest", 14}};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (slice_ieq(name, names[i]))
            return true;
    return false;
}

enum tags_asked tags_asked(const struct h1_head *h)
{
    struct list_at at = {0};
    struct slice tag;
    enum tags_asked asked = TAGS_NONE;
    while (list_next(h, SLICE("if-none-match"), &at, &tag)) {
        if (slice_starts(tag, SLICE("W/")))
            return TAGS_WEAK;
        asked = slice_is(tag, "*") ? asked : TAGS_STRONG;
    }
    return asked;
}

void body_changed_etag(struct slice etag, struct head_out *o)
{
    if (!slice_starts(etag, SLICE("W/")))
        head_lit(o, "W/");
    head_slice(o, etag);
}
