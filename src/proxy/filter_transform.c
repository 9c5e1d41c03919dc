/* filter_transform.c - bodies changed: members of JSON set, removed, renamed; text replaced by regular expression.
 *
 * A body is held until it is whole (at most body_bytes_max), then the operations run over it in their order, each on the text that the one
 * before left. JSON is edited as text (filter_int.h), so what no operation names stays byte for byte, large numbers included.
 *
 *     set      the value at the pointer, or a new member; objects that are missing on the way are made; "-" appends to an array
 *     remove   the member or element; nothing when it is not there
 *     rename   the value moves from one pointer to another; nothing when it is not there
 *     replace  with a pointer: inside that string; without: in the whole body
 *
 * What it leaves alone: bodies with a Content-Encoding, parts of bodies (206), and for JSON operations what is not of a JSON type.
 */
#include "filter_int.h"

struct transformer {
    struct body_filter f;
    const struct plan_filter *pf;
    struct buf body;             /* so far */
    size_t bytes_max;
    bool request;
    bool json;                   /* the type says JSON: JSON operations apply */
    bool text;                   /* a type that is text: replacing applies */
};

/* ---- editing text ---------------------------------------------------------------------------------------------------------- */

/* Of b, the n bytes at at become with. */
static void text_splice(struct buf *b, size_t at, size_t n, struct slice with)
{
    if (with.n > n)
        buf_reserve(b, with.n - n);
    memmove(b->p + at + with.n, b->p + at + n, b->n - at - n);
    if (with.n)
        memcpy(b->p + at, with.p, with.n);
    b->n = b->n - n + with.n;
    b->p[b->n] = '\0';
}

static void text_splice_slice(struct buf *b, struct slice old, struct slice with) { text_splice(b, (size_t)(old.p - b->p), old.n, with); }

static enum err find(const struct buf *b, const char *pointer, struct jtext_place *at)
{
    struct slice value;
    enum err e = jtext_check(buf_slice(b), &value);
    return e == OK ? jtext_find(value, slice_cstr(pointer), at) : e;
}

/* ---- set --------------------------------------------------------------------------------------------------------------------- */

/* "token": as a member's name. */
static void put_name(struct buf *b, struct slice token)
{
    struct buf name = {0};
    jtext_token(token, &name);
    buf_add_json(b, buf_slice(&name));
    buf_addc(b, ':');
    buf_free(&name);
}

/* What is inserted into parent: the first token's member or element, with objects for the tokens after it. */
static void put_new(struct buf *b, bool object, struct slice rest, struct slice value)
{
    size_t open = 0;
    for (bool named = object; rest.n; named = true) {
        struct slice next, token = slice_cut(slice_of(rest.p + 1, rest.n - 1), '/', &next);
        rest = slice_of(rest.p + 1 + token.n, rest.n - 1 - token.n);
        if (named)
            put_name(b, token);
        if (rest.n) {
            buf_addc(b, '{');
            open++;
        }
    }
    buf_add_slice(b, value);
    while (open--)
        buf_addc(b, '}');
}

/* Whether rest's first token may be put behind the last element of the array: "-" or its length. */
static bool appends(struct slice array, struct slice rest)
{
    struct slice next, token = slice_cut(slice_of(rest.p + 1, rest.n - 1), '/', &next), name, value;
    if (slice_is(token, "-"))
        return true;
    uint64_t index, n = 0;
    if (slice_u64(token, UINT32_MAX, &index) != OK || (token.n > 1 && token.p[0] == '0'))
        return false;
    for (struct jtext_iter it = jtext_iter(array); jtext_next(&it, &name, &value);)
        n++;
    return index == n;
}

static bool settable(const struct jtext_place *at)
{
    if (at->value.p)
        return true;
    return at->parent.p && (at->parent.p[0] == '{' || (at->parent.p[0] == '[' && appends(at->parent, at->rest)));
}

static void set_at(struct buf *b, const struct jtext_place *at, struct slice value)
{
    if (!settable(at))
        return;
    if (at->value.p) {
        text_splice_slice(b, at->value, value);
        return;
    }
    struct slice name, last;
    struct jtext_iter it = jtext_iter(at->parent);
    const char *behind = at->parent.p + 1; /* the last element, or the bracket that opens */
    while (jtext_next(&it, &name, &last))
        behind = last.p + last.n;
    struct buf fresh = {0};
    if (behind > at->parent.p + 1)
        buf_addc(&fresh, ',');
    put_new(&fresh, at->parent.p[0] == '{', at->rest, value);
    text_splice(b, (size_t)(behind - b->p), 0, buf_slice(&fresh));
    buf_free(&fresh);
}

static enum err op_set(struct buf *b, const struct transform_op *op)
{
    struct jtext_place at;
    enum err e = find(b, op->pointer, &at);
    if (e == OK)
        set_at(b, &at, slice_cstr(op->value));
    return e;
}

/* ---- remove, rename ------------------------------------------------------------------------------------------------------------- */

static bool is_ws(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* A member or element goes, with the comma behind it, or the one before it when it is the last. */
static void remove_at(struct buf *b, const struct jtext_place *at)
{
    if (!at->parent.p) /* the whole: a body is not removed */
        return;
    const char *from = at->name.n ? at->name.p : at->value.p, *to = at->value.p + at->value.n, *p = to;
    while (is_ws(*p)) /* the bracket that closes parent ends this */
        p++;
    if (*p == ',') {
        to = p + 1;
        while (is_ws(*to))
            to++;
    } else {
        for (p = from - 1; is_ws(*p);)
            p--;
        if (*p == ',')
            from = p;
    }
    text_splice(b, (size_t)(from - b->p), (size_t)(to - from), SLICE(""));
}

static enum err op_remove(struct buf *b, const struct transform_op *op)
{
    struct jtext_place at;
    enum err e = find(b, op->pointer, &at);
    if (e == OK && at.value.p)
        remove_at(b, &at);
    return e;
}

/* The last token of a pointer; *parent: what is before its slash. */
static struct slice last_token(struct slice pointer, struct slice *parent)
{
    size_t at = pointer.n;
    while (at && pointer.p[at - 1] != '/')
        at--;
    *parent = slice_of(pointer.p, at ? at - 1 : 0);
    return slice_of(pointer.p + at, pointer.n - at);
}

/* Within one object only the name changes, in its place. */
static void rename_in_place(struct buf *b, struct slice name, struct slice token)
{
    struct buf text = {0};
    put_name(&text, token);
    text_splice_slice(b, name, slice_of(text.p, text.n - 1)); /* the colon is there */
    buf_free(&text);
}

/* Taken out of one place and put in at another; if that is no place any more (an array is shorter now), nothing has happened. */
static enum err move(struct buf *b, const struct jtext_place *old, const char *to)
{
    struct jtext_place at;
    struct buf before = {0};
    buf_add_slice(&before, buf_slice(b));
    struct slice value = slice_of(before.p + (old->value.p - b->p), old->value.n);
    remove_at(b, old);
    enum err e = find(b, to, &at);
    if (e == OK && settable(&at)) {
        set_at(b, &at, value);
    } else {
        struct buf changed = *b;
        *b = before;
        before = changed;
    }
    buf_free(&before);
    return e;
}

static enum err op_rename(struct buf *b, const struct transform_op *op)
{
    struct jtext_place old, new;
    struct slice from = slice_cstr(op->pointer), to = slice_cstr(op->value), from_parent, to_parent;
    enum err e = find(b, op->pointer, &old);
    if (e != OK || !old.value.p || !old.parent.p)
        return e;
    e = find(b, op->value, &new);
    if (e != OK || !settable(&new))
        return e;
    if (slice_starts(to, from) && (to.n == from.n || to.p[from.n] == '/')) /* into itself */
        return OK;
    last_token(from, &from_parent);
    struct slice token = last_token(to, &to_parent);
    if (old.name.n && !new.value.p && slice_eq(from_parent, to_parent)) {
        rename_in_place(b, old.name, token);
        return OK;
    }
    return move(b, &old, op->value);
}

/* ---- replace ----------------------------------------------------------------------------------------------------------------------- */

static enum err replace_string(struct transformer *t, const struct transform_op *op, const struct plan_regex *regex)
{
    struct jtext_place at;
    enum err e = find(&t->body, op->pointer, &at);
    if (e != OK || !at.value.p || at.value.p[0] != '"')
        return e;
    struct buf text = {0}, changed = {0}, quoted = {0};
    jtext_string(at.value, &text);
    if (plan_regex_replace(regex, buf_slice(&text), slice_cstr(op->value), t->bytes_max, &changed)) {
        buf_add_json(&quoted, buf_slice(&changed));
        text_splice_slice(&t->body, at.value, buf_slice(&quoted));
    } else {
        e = ERR_LIMIT;
    }
    buf_free(&text);
    buf_free(&changed);
    buf_free(&quoted);
    return e;
}

static enum err replace_text(struct transformer *t, const struct transform_op *op, const struct plan_regex *regex)
{
    struct buf changed = {0};
    if (!plan_regex_replace(regex, buf_slice(&t->body), slice_cstr(op->value), t->bytes_max, &changed)) {
        buf_free(&changed);
        return ERR_LIMIT;
    }
    buf_free(&t->body);
    t->body = changed;
    return OK;
}

static bool op_is_json(const struct transform_op *op) { return op->op != TRANSFORM_REPLACE || (op->pointer && *op->pointer); }

static enum err op_run(struct transformer *t, const struct transform_op *op, const struct plan_regex *regex)
{
    if (op->request != t->request || !(op_is_json(op) ? t->json : t->text))
        return OK;
    switch (op->op) {
    case TRANSFORM_SET: return op_set(&t->body, op);
    case TRANSFORM_REMOVE: return op_remove(&t->body, op);
    case TRANSFORM_RENAME: return op_rename(&t->body, op);
    default: return op_is_json(op) ? replace_string(t, op, regex) : replace_text(t, op, regex);
    }
}

/* ---- the filter ---------------------------------------------------------------------------------------------------------------------- */

static enum err transform_feed(struct body_filter *f, struct pieces in, bool end, struct buf *out)
{
    struct transformer *t = CONTAINER_OF(f, struct transformer, f);
    enum err e = in.bytes > t->bytes_max - MIN(t->bytes_max, t->body.n) ? ERR_LIMIT : OK;
    for (int i = 0; i < in.n && e == OK; i++)
        buf_add(&t->body, in.v[i].iov_base, in.v[i].iov_len);
    const struct transform_filter *spec = &t->pf->spec->transform;
    if (end && t->body.n) /* an empty body is not JSON, nor meant to be */
        for (size_t i = 0; i < spec->ops_n && e == OK; i++)
            e = op_run(t, &spec->ops[i], t->pf->regexes ? t->pf->regexes[i] : NULL);
    if (e == ERR_LIMIT)
        filter_count(FILTER_TRANSFORM_OVER, 1);
    else if (e != OK)
        filter_count(FILTER_TRANSFORM_MALFORMED, 1);
    if (end && e == OK) {
        buf_add_slice(out, buf_slice(&t->body));
        buf_clear(&t->body);
    }
    return e;
}

static void transform_free(struct body_filter *f)
{
    struct transformer *t = CONTAINER_OF(f, struct transformer, f);
    buf_free(&t->body);
    mem_free(t);
}

static const struct body_filter_ops transform_ops = {transform_feed, transform_free};

static bool type_is_text(struct slice type)
{
    return content_is_json(type) || (type.n > 5 && slice_ieq(slice_of(type.p, 5), SLICE("text/"))) || slice_iends(type, SLICE("+xml")) ||
           slice_ieq(type, SLICE("application/xml")) || slice_ieq(type, SLICE("application/javascript")) ||
           slice_ieq(type, SLICE("application/x-www-form-urlencoded")) || slice_ieq(type, SLICE("application/x-ndjson"));
}

/* A body of this head is there, whole and as it is meant to be read. */
static bool body_plain(const struct h1_head *h)
{
    return h->framing != H1_NO_BODY && h->framing != H1_TUNNEL && !(h->framing == H1_LENGTH && h->length == 0) && h->status != 206 && !content_encoded(h) &&
           !h1_find(h, SLICE("content-range"));
}

struct body_filter *transform_begin(const struct plan_filter *pf, bool request, const struct h1_head *h)
{
    const struct transform_filter *spec = &pf->spec->transform;
    if (!body_plain(h))
        return NULL;
    struct slice type = content_type(h);
    bool json = content_is_json(type), text = type_is_text(type), any = false;
    for (size_t i = 0; i < spec->ops_n; i++)
        any = any || (spec->ops[i].request == request && (op_is_json(&spec->ops[i]) ? json : text));
    if (!any)
        return NULL;
    struct transformer *t = mem_new(MEM_FILTER, sizeof *t);
    *t = (struct transformer){.f.ops = &transform_ops, .pf = pf, .request = request, .json = json, .text = text,
                              .bytes_max = spec->body_bytes_max ? spec->body_bytes_max : TRANSFORM_BYTES_MAX};
    return &t->f;
}

bool transform_wants_plain(const struct plan_filter *pf)
{
    const struct transform_filter *spec = &pf->spec->transform;
    for (size_t i = 0; i < spec->ops_n; i++)
        if (!spec->ops[i].request)
            return true;
    return false;
}
