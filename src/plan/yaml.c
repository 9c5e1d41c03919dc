/* yaml.c - from YAML text to trees with positions.
 *
 *     text --split at "---"--> documents --libfyaml events--> build --> struct ynode
 *
 * libfyaml scans and parses; this file builds its own tree from the events, for three reasons: each limit can stop the work
 * as it goes (depth, values, expanded aliases), duplicate keys and places are kept the way our errors need them, and a
 * syntax error in one document does not hide what is wrong in the next. A line that begins with "---" can only be a
 * document marker in YAML, also inside quotes and block scalars (YAML 1.2.2 section 9.1), so the text is split there first.
 *
 * Scalars resolve as Kubernetes does it (the YAML 1.1 words of go-yaml): yes, no, on and off are booleans, so that a string
 * such as NO must be quoted here too. Merge keys (<<) are followed. Aliases share the node; what they add up to is limited.
 */
#include "plan_int.h"

#include <errno.h>
#include <libfyaml.h>
#include <math.h>
#include <stdlib.h>

/* A map or list that is being read. */
struct frame {
    struct ynode *node;
    struct ypair key; /* maps: the key read last; its value comes next when has_key */
    bool has_key;
    uint32_t cap;      /* of pairs or items in node */
    struct table keys; /* maps: key -> key_mark() of its pair */
    bool merge;        /* the key was << */
    bool key_broken;   /* the key was an error: the value is read and dropped */
};

struct build {
    const char *file;
    struct diags *d;
    struct arena *a;
    uint32_t line_base;    /* lines before this document's text */
    uint32_t line, column; /* of the latest event that had a place */
    struct table anchors;  /* of this document: name -> struct ynode */
    struct frame stack[MANIFEST_DEPTH_MAX + 1];
    uint32_t depth;
    struct ynode *root;
    struct buf scratch;    /* of token_text() */
    uint64_t nodes, bytes; /* so far in the file, aliases expanded */
    bool failed;           /* a limit: nothing more of this file is read */
    bool broken;           /* this document is not worth checking: parts of it are missing */
};

static void build_error(struct build *b, const char *remedy, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void build_error(struct build *b, const char *remedy, const char *fmt, ...)
{
    struct buf reason = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&reason, fmt, ap);
    va_end(ap);
    diags_add(b->d, DIAG_ERROR, b->file, b->line, b->column, "", remedy, "%s", reason.p);
    buf_free(&reason);
}

static void build_limit(struct build *b, const char *what, uint64_t max)
{
    build_error(b, "split it into several files", "more %s than the %llu a file may have", what, (unsigned long long)max);
    b->failed = b->broken = true;
}

/* The text of a scalar, anchor or alias. Through an iterator: fy_token_get_text() of libfyaml 0.7.12 loses memory for each text of
 * more than eight pieces (escapes, lines of a block). */
static struct slice token_text(struct build *b, struct fy_token *t)
{
    struct fy_token_iter *it = t ? fy_token_iter_create(t) : NULL;
    const struct fy_iter_chunk *c = NULL;
    int failed = 0;
    b->scratch.n = 0;
    while (it && (c = fy_token_iter_chunk_next(it, c, &failed)))
        buf_add(&b->scratch, c->str, c->len);
    if (it)
        fy_token_iter_destroy(it);
    if (failed)
        build_error(b, "write it in another way", "not YAML: a text that cannot be read");
    return arena_slice(b->a, buf_slice(&b->scratch));
}

static struct slice tag_text(struct build *b, struct fy_token *t)
{
    size_t n = 0;
    const char *p = t ? fy_token_get_text(t, &n) : NULL;
    return arena_slice(b->a, p ? slice_of(p, n) : SLICE(""));
}

/* ---- scalars ------------------------------------------------------------------------------------------------------- */

static bool word_in(struct slice s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (slice_is(s, words[i]))
            return true;
    return false;
}

static bool resolve_bool(struct slice s, bool *out)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"};
    *out = word_in(s, yes, COUNT_OF(yes));
    return *out || word_in(s, no, COUNT_OF(no));
}

static bool is_number_text(struct slice s)
{
    size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+') ? 1 : 0;
    if (i + 1 < s.n && s.p[i] == '.')
        i++;
    return i < s.n && s.p[i] >= '0' && s.p[i] <= '9';
}

/* Whole numbers: decimal, 0x, 0o, 0b, and 0777, which is octal as in YAML 1.1. s is NUL-terminated. */
static bool resolve_int(struct slice s, int64_t *out)
{
    bool minus = s.p[0] == '-';
    const char *p = s.p + (minus || s.p[0] == '+');
    int base = 10;
    if (p[0] == '0' && p[1]) {
        base = p[1] == 'x' ? 16 : p[1] == 'o' ? 8 : p[1] == 'b' ? 2 : 8;
        p += p[1] == 'x' || p[1] == 'o' || p[1] == 'b' ? 2 : 1;
    }
    if (!((*p >= '0' && *p <= '9') || (base == 16 && ascii_lower(*p) >= 'a' && ascii_lower(*p) <= 'f')))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(p, &end, base);
    if (errno || *end || end != s.p + s.n || v > (uint64_t)INT64_MAX)
        return false;
    *out = minus ? -(int64_t)v : (int64_t)v;
    return true;
}

static bool resolve_float(struct slice s, double *out)
{
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789+-.eE", s.p[i]))
            return false;
    char *end;
    *out = strtod(s.p, &end);
    return end == s.p + s.n && isfinite(*out);
}

/* The type of a plain scalar. */
static void resolve_plain(struct ynode *n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (word_in(n->text, nulls, COUNT_OF(nulls)))
        n->type = Y_NULL;
    else if (resolve_bool(n->text, &n->flag))
        n->type = Y_BOOL;
    else if (is_number_text(n->text) && resolve_int(n->text, &n->num))
        n->type = Y_INT;
    else if (is_number_text(n->text) && resolve_float(n->text, &n->real))
        n->type = Y_FLOAT;
    else
        n->type = Y_STR;
}

static void resolve_scalar(struct build *b, struct ynode *n, struct fy_token *tok, struct fy_token *tag)
{
    enum fy_scalar_style style = tok ? fy_token_scalar_style(tok) : FYSS_PLAIN;
    n->text = token_text(b, tok);
    n->type = Y_STR;
    struct slice name = tag_text(b, tag);
    if (memchr(n->text.p, '\0', n->text.n))
        build_error(b, "remove it", "a string may not hold a NUL character");
    else if (!name.n ? style == FYSS_PLAIN : !slice_is(name, "!") && !slice_is(name, "tag:yaml.org,2002:str"))
        resolve_plain(n);
    static const char *const known[] = {
        "", "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", "tag:yaml.org,2002:float"};
    static const enum ytype wants[] = {0, 0, Y_STR, Y_INT, Y_BOOL, Y_NULL, Y_FLOAT};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (slice_is(name, known[i])) {
            if (wants[i] && n->type != wants[i])
                build_error(b, "remove the tag", "the tag %s says %s, which the value is not", known[i], ytype_name(wants[i]));
            return;
        }
    build_error(b, "remove the tag", "the tag " SLICE_FMT " is not known", SLICE_ARG(name));
}

/* ---- maps, lists, aliases --------------------------------------------------------------------------------------------- */

static struct ynode *node_new(struct build *b, enum ytype t)
{
    struct ynode *n = arena_zalloc(b->a, sizeof *n);
    n->type = t;
    n->line = b->line;
    n->column = b->column;
    n->nodes = 1;
    n->text = SLICE("");
    return n;
}

/* Adds the weight of child, which hangs below all open maps and lists. */
static void weigh(struct build *b, const struct ynode *child, bool alias)
{
    b->nodes += alias ? child->nodes : 1;
    b->bytes += alias ? child->bytes : child->text.n;
    if (b->nodes > MANIFEST_NODES_MAX)
        build_limit(b, "values (aliases counted where they are used)", MANIFEST_NODES_MAX);
    else if (b->bytes > MANIFEST_EXPANDED_MAX)
        build_limit(b, "bytes of text (aliases counted where they are used)", MANIFEST_EXPANDED_MAX);
    else if (b->depth + child->height > MANIFEST_DEPTH_MAX)
        build_limit(b, "levels of nesting", MANIFEST_DEPTH_MAX);
}

static void *array_room(struct build *b, void *old, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    *cap = *cap ? *cap * 2 : 4;
    void *p = arena_alloc(b->a, *cap * size);
    if (n)
        memcpy(p, old, n * size);
    return p;
}

/* What frame.keys holds for a key: the number of its pair, and whether it came by a merge. */
static void *key_mark(uint32_t index, bool merged) { return (void *)(uintptr_t)((index + 1ull) << 1 | merged); }
static uint32_t mark_index(const void *mark) { return (uint32_t)((uintptr_t)mark >> 1) - 1; }
static bool mark_merged(const void *mark) { return (uintptr_t)mark & 1; }

static void add_pair(struct build *b, struct frame *f, struct ypair pair, bool merged)
{
    struct ynode *m = f->node;
    table_put(&f->keys, pair.key, key_mark(m->n, merged));
    m->pairs = array_room(b, m->pairs, m->n, &f->cap, sizeof *m->pairs);
    m->pairs[m->n++] = pair;
}

/* The pairs of a merged map (<<): those that the map has, or gets later, win. */
static void merge_map(struct build *b, struct frame *f, const struct ynode *from)
{
    if (from->type != Y_MAP) {
        build_error(b, "give << an alias of a map", "<< merges maps, and this is %s", ytype_name(from->type));
        return;
    }
    for (uint32_t i = 0; i < from->n; i++)
        if (!table_get(&f->keys, from->pairs[i].key))
            add_pair(b, f, from->pairs[i], true);
}

static void put_value(struct build *b, struct frame *f, struct ynode *v)
{
    f->has_key = false;
    if (f->key_broken)
        return;
    if (f->merge) {
        for (uint32_t i = 0; v->type == Y_LIST && i < v->n; i++)
            merge_map(b, f, v->items[i]);
        if (v->type != Y_LIST)
            merge_map(b, f, v);
        return;
    }
    f->key.value = v;
    void *merged = table_get(&f->keys, f->key.key); /* put_key() has refused what is no merged pair */
    if (!merged) {
        add_pair(b, f, f->key, false);
        return;
    }
    f->node->pairs[mark_index(merged)] = f->key;
    table_put(&f->keys, f->key.key, key_mark(mark_index(merged), false));
}

static void put_key(struct build *b, struct frame *f, const struct ynode *k, bool plain)
{
    f->has_key = true;
    f->merge = plain && slice_is(k->text, "<<");
    f->key = (struct ypair){.key = k->text, .line = k->line, .column = k->column};
    f->key_broken = k->type == Y_MAP || k->type == Y_LIST;
    if (f->key_broken) {
        build_error(b, "use a string", "a key may not be %s", ytype_name(k->type));
        return;
    }
    const void *before = table_get(&f->keys, k->text);
    if (before && !f->merge && !mark_merged(before)) {
        const struct ypair *first = &f->node->pairs[mark_index(before)];
        build_error(b, "keep one of them", "the key " SLICE_FMT " is given twice: first at line %u", (int)MIN(k->text.n, 100), k->text.p, first->line);
        f->key_broken = true;
    }
}

/* Hangs a node, complete but for its own children, where the text has it. */
static void put_node(struct build *b, struct ynode *n, bool plain, bool alias)
{
    weigh(b, n, alias);
    if (b->failed)
        return;
    if (!b->depth) {
        b->root = n;
        return;
    }
    struct frame *f = &b->stack[b->depth - 1];
    if (f->node->type == Y_LIST) {
        f->node->items = array_room(b, f->node->items, f->node->n, &f->cap, sizeof *f->node->items);
        f->node->items[f->node->n++] = n;
    } else if (f->has_key) {
        put_value(b, f, n);
    } else {
        put_key(b, f, n, plain);
    }
}

static void on_start(struct build *b, enum ytype t, struct fy_event *ev)
{
    struct ynode *n = node_new(b, t);
    struct fy_token *anchor = fy_event_get_anchor_token(ev), *tag = fy_event_get_tag_token(ev);
    if (anchor)
        table_put(&b->anchors, token_text(b, anchor), n);
    struct slice name = tag_text(b, tag);
    if (name.n && !slice_is(name, "!") && !slice_is(name, t == Y_MAP ? "tag:yaml.org,2002:map" : "tag:yaml.org,2002:seq"))
        build_error(b, "remove the tag", "the tag " SLICE_FMT " is not known", SLICE_ARG(name));
    if (b->depth == MANIFEST_DEPTH_MAX) {
        build_limit(b, "levels of nesting", MANIFEST_DEPTH_MAX);
        return;
    }
    /* In a map that waits for its key this node is a key, which is an error; its content hangs nowhere. */
    if (t == Y_MAP || t == Y_LIST)
        weigh(b, n, false);
    b->stack[b->depth++] = (struct frame){.node = n};
}

static void on_end(struct build *b)
{
    if (!b->depth)
        return;
    struct frame *f = &b->stack[--b->depth];
    struct ynode *n = f->node;
    table_fini(&f->keys);
    for (uint32_t i = 0; i < n->n; i++) {
        const struct ynode *c = n->type == Y_MAP ? n->pairs[i].value : n->items[i];
        n->nodes += c->nodes;
        n->bytes += c->bytes + (n->type == Y_MAP ? n->pairs[i].key.n : 0);
        n->height = MAX(n->height, c->height + 1);
    }
    n->height = MAX(n->height, 1u);
    n->complete = true;
    uint64_t nodes = b->nodes, bytes = b->bytes;
    put_node(b, n, false, false);
    b->nodes = nodes; /* counted when they were read */
    b->bytes = bytes;
}

static void on_scalar(struct build *b, struct fy_event *ev)
{
    struct fy_token *tok = fy_event_get_token(ev), *anchor = fy_event_get_anchor_token(ev);
    enum fy_scalar_style style = tok ? fy_token_scalar_style(tok) : FYSS_PLAIN;
    if (b->column > 1 && (style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED))
        b->column--; /* libfyaml's mark is behind the quote */
    struct ynode *n = node_new(b, Y_STR);
    resolve_scalar(b, n, tok, fy_event_get_tag_token(ev));
    n->bytes = n->text.n;
    n->complete = true;
    if (anchor)
        table_put(&b->anchors, token_text(b, anchor), n);
    put_node(b, n, style == FYSS_PLAIN, false);
}

static void on_alias(struct build *b, struct fy_event *ev)
{
    struct slice name = token_text(b, fy_event_get_token(ev));
    b->column -= b->column > 1; /* libfyaml's mark is behind the asterisk */
    struct ynode *n = table_get(&b->anchors, name);
    if (n && n->complete) {
        put_node(b, n, false, true);
        return;
    }
    build_error(b, n ? "write it out" : "define it with & before it is used",
                n ? "the alias *" SLICE_FMT " stands inside its own anchor" : "there is no anchor for the alias *" SLICE_FMT, SLICE_ARG(name));
    b->broken = true;
    put_node(b, node_new(b, Y_NULL), false, false);
}

static void on_event(struct build *b, struct fy_event *ev)
{
    const struct fy_mark *m = fy_event_start_mark(ev);
    if (m) {
        b->line = b->line_base + (uint32_t)m->line + 1;
        b->column = (uint32_t)m->column + 1;
    }
    switch (ev->type) {
    case FYET_SCALAR: on_scalar(b, ev); break;
    case FYET_ALIAS: on_alias(b, ev); break;
    case FYET_MAPPING_START: on_start(b, Y_MAP, ev); break;
    case FYET_SEQUENCE_START: on_start(b, Y_LIST, ev); break;
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END: on_end(b); break;
    default: break;
    }
}

/* ---- documents ---------------------------------------------------------------------------------------------------------- */

static void build_reset(struct build *b)
{
    while (b->depth)
        table_fini(&b->stack[--b->depth].keys);
    table_fini(&b->anchors);
    b->root = NULL;
    b->broken = false;
}

static void document_done(struct build *b, struct ydocs *docs)
{
    if (b->root && b->root->type != Y_NULL && !b->broken && !b->failed) {
        ARRAY_GROW(MEM_MANIFEST, docs->items, docs->n, docs->cap);
        docs->items[docs->n++] = b->root;
    }
    build_reset(b);
}

/* What libfyaml found wrong becomes one error: it stops at the first. */
static void syntax_errors(struct build *b, struct fy_diag *diag)
{
    b->broken = true;
    struct fy_diag_error *e;
    void *it = NULL;
    bool any = false;
    while ((e = fy_diag_errors_iterate(diag, &it))) {
        if (any || !e->msg)
            continue;
        any = true;
        b->line = b->line_base + (uint32_t)MAX(e->line, 1);
        b->column = (uint32_t)MAX(e->column, 1);
        build_error(b, "correct the YAML; the cause may be on a line before", "not YAML: %s", e->msg);
    }
    if (!any)
        build_error(b, "correct the YAML", "not YAML: the parser gave up near here");
}

static struct fy_diag *diag_collector(void)
{
    struct fy_diag_cfg cfg;
    fy_diag_cfg_default(&cfg);
    cfg.fp = NULL;
    struct fy_diag *diag = fy_diag_create(&cfg);
    if (diag)
        fy_diag_set_collect_errors(diag, true);
    return diag;
}

static void parse_part(struct build *b, struct slice text, struct ydocs *docs)
{
    struct fy_diag *diag = diag_collector();
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE | FYPCF_DISABLE_MMAP_OPT | FYPCF_SLOPPY_FLOW_INDENTATION,
                               .diag = diag};
    struct fy_parser *fyp = diag ? fy_parser_create(&cfg) : NULL;
    b->line = b->line_base + 1;
    b->column = 1;
    if (!fyp || fy_parser_set_string(fyp, text.p, text.n) != 0) {
        build_error(b, "try again with more memory", "the YAML parser could not be set up");
    } else {
        struct fy_event *ev;
        while (!b->failed && (ev = fy_parser_parse(fyp))) {
            bool end = ev->type == FYET_DOCUMENT_END;
            on_event(b, ev);
            fy_parser_event_free(fyp, ev);
            if (end)
                document_done(b, docs);
        }
        if (!b->failed && fy_parser_get_stream_error(fyp))
            syntax_errors(b, diag);
    }
    build_reset(b);
    if (fyp)
        fy_parser_destroy(fyp);
    if (diag)
        fy_diag_destroy(diag);
}

/* Length of the first document's text, its end the start of a line "---"; all when directives (%) must stay with it. */
static size_t part_length(struct slice text, bool directives)
{
    for (size_t i = 0; !directives && i < text.n;) {
        const char *nl = memchr(text.p + i, '\n', text.n - i);
        if (!nl)
            break;
        i = (size_t)(nl - text.p) + 1;
        if (text.n - i >= 3 && memcmp(text.p + i, "---", 3) == 0 && (text.n - i == 3 || strchr(" \t\r\n", text.p[i + 3])))
            return i;
    }
    return text.n;
}

static uint32_t lines_in(struct slice s)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '\n' || (s.p[i] == '\r' && (i + 1 == s.n || s.p[i + 1] != '\n')); /* YAML 1.2.2 section 5.4 */
    return n;
}

static bool text_refused(const char *file, struct slice text, struct diags *d)
{
    size_t bad;
    if (text.n > MANIFEST_BYTES_MAX) {
        diags_add(d, DIAG_ERROR, file, 0, 0, "", "split it into several files", "the file has %zu bytes, and %u is the most", text.n, MANIFEST_BYTES_MAX);
        return true;
    }
    if (utf8_valid(text, &bad))
        return false;
    struct slice before = slice_of(text.p, bad);
    const char *nl = bad ? memrchr(text.p, '\n', bad) : NULL;
    uint32_t column = (uint32_t)(nl ? text.p + bad - nl : (ptrdiff_t)bad + 1);
    if (text.p[bad] == '\0')
        diags_add(d, DIAG_ERROR, file, lines_in(before) + 1, column, "", "remove it", "a NUL character");
    else if ((uint8_t)text.p[bad] < 0x20 || text.p[bad] == 0x7f)
        diags_add(d, DIAG_ERROR, file, lines_in(before) + 1, column, "", "write it as an escape in double quotes", "a control character (%02x)",
                  (unsigned)(uint8_t)text.p[bad]);
    else
        diags_add(d, DIAG_ERROR, file, lines_in(before) + 1, column, "", "save the file as UTF-8", "the text is not UTF-8");
    return true;
}

void yaml_read(const char *file, struct slice text, struct arena *a, struct ydocs *docs, struct diags *d)
{
    if (slice_starts(text, SLICE("\xef\xbb\xbf"))) /* a byte order mark */
        text = slice_of(text.p + 3, text.n - 3);
    if (text_refused(file, text, d))
        return;
    struct build *b = mem_new(MEM_MANIFEST, sizeof *b);
    b->file = file;
    b->d = d;
    b->a = a;
    bool directives = text.n && (text.p[0] == '%' || memmem(text.p, text.n, "\n%", 2));
    while (text.n && !b->failed) {
        size_t n = part_length(text, directives);
        struct slice part = slice_of(text.p, n);
        parse_part(b, part, docs);
        b->line_base += lines_in(part);
        text = slice_of(text.p + n, text.n - n);
    }
    buf_free(&b->scratch);
    mem_free(b);
}

void ydocs_free(struct ydocs *docs)
{
    mem_free(docs->items);
    *docs = (struct ydocs){0};
}
