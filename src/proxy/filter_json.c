/* filter_json.c - JSON as text: one pass that checks it, and walks over what was checked.
 *
 * jtext_check() is the only function here that sees bytes from outside: it accepts exactly RFC 8259's grammar with valid UTF-8, keeps the
 * open containers as bits (so that nesting costs no stack), and stops at JSON_DEPTH_MAX. All others run over text that it let pass, and
 * rely on it: a string ends, containers close, a comma or colon stands where one belongs. They still stop at the end of what they were given.
 */
#include "filter_int.h"

/* ---- checking ------------------------------------------------------------------------------------------------------------ */

struct scan {
    const uint8_t *p, *end;
};

static bool is_ws(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static void scan_ws(struct scan *s)
{
    while (s->p < s->end && is_ws(*s->p))
        s->p++;
}

/* Bytes of the UTF-8 character at p, which is not ASCII; 0: it is none (RFC 3629). */
static size_t utf8_bytes(const uint8_t *p, const uint8_t *end)
{
    static const struct { uint8_t first, last, low, high, n; } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
        {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        if (*p < forms[i].first || *p > forms[i].last)
            continue;
        size_t n = forms[i].n;
        if ((size_t)(end - p) < n || p[1] < forms[i].low || p[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < n; k++)
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        return n;
    }
    return 0;
}

static bool hex4(const uint8_t *p, const uint8_t *end, uint32_t *out)
{
    if (end - p < 4)
        return false;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], low = c | 0x20;
        if (is_digit(c))
            v = v << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            v = v << 4 | (uint32_t)(low - 'a' + 10);
        else
            return false;
    }
    *out = v;
    return true;
}

/* The escape at p, which is a backslash: its bytes, or 0. */
static size_t escape_bytes(const uint8_t *p, const uint8_t *end)
{
    uint32_t v;
    if (end - p < 2)
        return 0;
    if (p[1] == 'u')
        return hex4(p + 2, end, &v) ? 6 : 0;
    return p[1] && memchr("\"\\/bfnrt", p[1], 8) ? 2 : 0;
}

/* Whether none of the eight bytes ends a run of plain string bytes: quote, backslash, controls, and what is not ASCII. */
static bool plain8(const uint8_t *p)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t v;
    memcpy(&v, p, sizeof v);
    uint64_t quote = v ^ (ones * '"'), slash = v ^ (ones * '\\');
    return ((v | (v - ones * 0x20) | (quote - ones) | (slash - ones)) & tops) == 0;
}

static bool scan_string(struct scan *s)
{
    if (s->p == s->end || *s->p != '"')
        return false;
    s->p++;
    while (s->p < s->end) {
        if (s->end - s->p >= 8 && plain8(s->p)) {
            s->p += 8;
            continue;
        }
        uint8_t c = *s->p;
        size_t n = 1;
        if (c == '"') {
            s->p++;
            return true;
        }
        if (c == '\\')
            n = escape_bytes(s->p, s->end);
        else if (c < 0x20)
            n = 0;
        else if (c >= 0x80)
            n = utf8_bytes(s->p, s->end);
        if (n == 0)
            return false;
        s->p += n;
    }
    return false;
}

static bool scan_digits(struct scan *s)
{
    const uint8_t *from = s->p;
    while (s->p < s->end && is_digit(*s->p))
        s->p++;
    return s->p > from;
}

static bool scan_number(struct scan *s)
{
    if (s->p < s->end && *s->p == '-')
        s->p++;
    if (s->p < s->end && *s->p == '0')
        s->p++;
    else if (!scan_digits(s))
        return false;
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        if (!scan_digits(s))
            return false;
    }
    if (s->p < s->end && (*s->p | 0x20) == 'e') {
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
            s->p++;
        return scan_digits(s);
    }
    return true;
}

static bool scan_word(struct scan *s, struct slice word)
{
    if ((size_t)(s->end - s->p) < word.n || memcmp(s->p, word.p, word.n) != 0)
        return false;
    s->p += word.n;
    return true;
}

static bool scan_scalar(struct scan *s)
{
    switch (*s->p) {
    case '"': return scan_string(s);
    case 't': return scan_word(s, SLICE("true"));
    case 'f': return scan_word(s, SLICE("false"));
    case 'n': return scan_word(s, SLICE("null"));
    default: return scan_number(s);
    }
}

/* A member's name and its colon, with the white space around. */
static bool scan_name(struct scan *s)
{
    scan_ws(s);
    if (!scan_string(s))
        return false;
    scan_ws(s);
    if (s->p == s->end || *s->p != ':')
        return false;
    s->p++;
    return true;
}

/* The open containers, innermost last: a bit each, set for an object. */
struct nest {
    uint64_t object[JSON_DEPTH_MAX / 64];
    uint32_t depth;
};
static bool nest_object(const struct nest *t) { return t->object[(t->depth - 1) / 64] >> ((t->depth - 1) % 64) & 1; }
static void nest_push(struct nest *t, bool object)
{
    uint64_t bit = (uint64_t)1 << (t->depth % 64);
    uint64_t *word = &t->object[t->depth++ / 64];
    *word = object ? *word | bit : *word & ~bit;
}

/* Behind a value: closes what ends here, and steps to where the next value begins. *done: the outermost one is complete. */
static bool scan_after(struct scan *s, struct nest *t, bool *done)
{
    while (t->depth) {
        bool object = nest_object(t);
        scan_ws(s);
        if (s->p == s->end)
            return false;
        uint8_t c = *s->p++;
        if (c == ',')
            return !object || scan_name(s);
        if (c != (object ? '}' : ']'))
            return false;
        t->depth--;
    }
    *done = true;
    return true;
}

static enum err scan_value(struct scan *s)
{
    struct nest t = {.depth = 0};
    for (bool done = false; !done;) {
        scan_ws(s);
        if (s->p == s->end)
            return ERR_SYNTAX;
        bool object = *s->p == '{';
        if (object || *s->p == '[') {
            if (t.depth == JSON_DEPTH_MAX)
                return ERR_LIMIT;
            nest_push(&t, object);
            s->p++;
            scan_ws(s);
            bool empty = s->p < s->end && *s->p == (object ? '}' : ']');
            if (!empty) {
                if (object && !scan_name(s))
                    return ERR_SYNTAX;
                continue;
            }
        } else if (!scan_scalar(s)) {
            return ERR_SYNTAX;
        }
        if (!scan_after(s, &t, &done))
            return ERR_SYNTAX;
    }
    return OK;
}

enum err jtext_check(struct slice text, struct slice *value)
{
    struct scan s = {(const uint8_t *)text.p, (const uint8_t *)text.p + text.n};
    if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
        s.p += 3;
    scan_ws(&s);
    const uint8_t *from = s.p;
    enum err e = scan_value(&s);
    if (e == ERR_LIMIT)
        filter_count(FILTER_JSON_DEEP, 1);
    if (e != OK)
        return e;
    struct slice whole = slice_of((const char *)from, (size_t)(s.p - from));
    scan_ws(&s);
    if (s.p != s.end)
        return ERR_SYNTAX;
    *value = whole;
    return OK;
}

/* ---- walking what was checked ---------------------------------------------------------------------------------------------- */

static const char *skip_ws(const char *p, const char *end)
{
    while (p < end && is_ws((uint8_t)*p))
        p++;
    return p;
}

/* p: at an opening quote. Behind the closing one. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p < end ? p + 1 : end;
}

static const char *skip_value(const char *p, const char *end)
{
    if (p < end && *p == '"')
        return skip_string(p, end);
    size_t depth = 0;
    while (p < end) {
        switch (*p) {
        case '"': p = skip_string(p, end); continue;
        case '{': case '[': depth++; break;
        case '}': case ']':
            if (depth == 0)
                return p;
            if (--depth == 0)
                return p + 1;
            break;
        case ',': case ' ': case '\t': case '\n': case '\r':
            if (depth == 0)
                return p;
            break;
        default: break;
        }
        p++;
    }
    return end;
}

struct jtext_iter jtext_iter(struct slice value)
{
    struct jtext_iter it = {value.p, value.p, false};
    if (value.n >= 2 && (value.p[0] == '{' || value.p[0] == '[')) {
        it.object = value.p[0] == '{';
        it.p = value.p + 1;
        it.end = value.p + value.n - 1;
    }
    return it;
}

bool jtext_next(struct jtext_iter *it, struct slice *name, struct slice *value)
{
    const char *p = skip_ws(it->p, it->end);
    if (p < it->end && *p == ',')
        p = skip_ws(p + 1, it->end);
    if (p == it->end)
        return false;
    *name = slice_of(p, 0);
    if (it->object) {
        const char *behind = skip_string(p, it->end);
        *name = slice_of(p, (size_t)(behind - p));
        p = skip_ws(behind, it->end);
        p = skip_ws(p < it->end ? p + 1 : p, it->end); /* the colon */
    }
    const char *behind = skip_value(p, it->end);
    *value = slice_of(p, (size_t)(behind - p));
    it->p = behind;
    return true;
}

/* ---- strings ------------------------------------------------------------------------------------------------------------------ */

static size_t utf8_put(uint32_t v, char out[4])
{
    if (v < 0x80) {
        out[0] = (char)v;
        return 1;
    }
    if (v < 0x800) {
        out[0] = (char)(0xc0 | v >> 6);
        out[1] = (char)(0x80 | (v & 0x3f));
        return 2;
    }
    if (v < 0x10000) {
        out[0] = (char)(0xe0 | v >> 12);
        out[1] = (char)(0x80 | (v >> 6 & 0x3f));
        out[2] = (char)(0x80 | (v & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | v >> 18);
    out[1] = (char)(0x80 | (v >> 12 & 0x3f));
    out[2] = (char)(0x80 | (v >> 6 & 0x3f));
    out[3] = (char)(0x80 | (v & 0x3f));
    return 4;
}

/* The \u escape at *p, with the second half of a surrogate pair; a lone half becomes U+FFFD. */
static uint32_t unicode_escape(const char **p, const char *end)
{
    uint32_t v = 0xfffd, low;
    if (!hex4((const uint8_t *)*p + 2, (const uint8_t *)end, &v)) {
        *p = end;
        return v;
    }
    *p += 6;
    if (v < 0xd800 || v > 0xdfff)
        return v;
    if (v > 0xdbff || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u' || !hex4((const uint8_t *)*p + 2, (const uint8_t *)end, &low) ||
        low < 0xdc00 || low > 0xdfff)
        return 0xfffd;
    *p += 6;
    return 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
}

/* The bytes of the next piece of a string's inside: one escape, or one byte. */
static size_t string_step(const char **p, const char *end, char out[4])
{
    if (**p != '\\' || end - *p < 2) {
        out[0] = *(*p)++;
        return 1;
    }
    char c = (*p)[1];
    if (c == 'u')
        return utf8_put(unicode_escape(p, end), out);
    *p += 2;
    switch (c) {
    case 'b': out[0] = '\b'; break;
    case 'f': out[0] = '\f'; break;
    case 'n': out[0] = '\n'; break;
    case 'r': out[0] = '\r'; break;
    case 't': out[0] = '\t'; break;
    default: out[0] = c; break;
    }
    return 1;
}

static struct slice unquoted(struct slice quoted)
{
    return quoted.n >= 2 ? slice_of(quoted.p + 1, quoted.n - 2) : slice_of(quoted.p, 0);
}

void jtext_string(struct slice quoted, struct buf *out)
{
    struct slice s = unquoted(quoted);
    char bytes[4];
    for (const char *p = s.p, *end = s.p + s.n; p < end;)
        buf_add(out, bytes, string_step(&p, end, bytes));
}

/* ---- pointers (RFC 6901) -------------------------------------------------------------------------------------------------------- */

static bool token_step(const char **p, const char *end, char *out)
{
    *out = *(*p)++;
    if (*out != '~')
        return true;
    if (*p == end || (**p != '0' && **p != '1'))
        return false;
    *out = *(*p)++ == '1' ? '/' : '~';
    return true;
}

void jtext_token(struct slice token, struct buf *out)
{
    char c;
    for (const char *p = token.p, *end = token.p + token.n; p < end && token_step(&p, end, &c);)
        buf_addc(out, c);
}

static bool pointer_valid(struct slice pointer)
{
    if (pointer.n && pointer.p[0] != '/')
        return false;
    char c;
    for (const char *p = pointer.p, *end = pointer.p + pointer.n; p < end;)
        if (!token_step(&p, end, &c))
            return false;
    return true;
}

static bool name_is(struct slice quoted, struct slice token)
{
    struct slice s = unquoted(quoted);
    const char *t = token.p, *t_end = token.p + token.n;
    char bytes[4], c;
    for (const char *p = s.p, *end = s.p + s.n; p < end;) {
        size_t n = string_step(&p, end, bytes);
        for (size_t i = 0; i < n; i++)
            if (t == t_end || !token_step(&t, t_end, &c) || c != bytes[i])
                return false;
    }
    return t == t_end;
}

/* An array's index: digits without a leading zero (RFC 6901 section 4). */
static bool token_index(struct slice token, uint64_t *index)
{
    if (token.n == 0 || (token.n > 1 && token.p[0] == '0'))
        return false;
    return slice_u64(token, UINT32_MAX, index) == OK;
}

/* One step down from container; p of *value stays NULL when nothing is there. */
static enum err step_down(struct slice container, struct slice token, struct slice *name, struct slice *value)
{
    struct jtext_iter it = jtext_iter(container);
    uint64_t index = 0, at = 0;
    struct slice n, v;
    if (!it.object && !token_index(token, &index))
        return OK;
    while (jtext_next(&it, &n, &v)) {
        if (it.object ? !name_is(n, token) : at++ != index)
            continue;
        if (value->p)
            return ERR_SYNTAX;
        *name = n;
        *value = v;
        if (!it.object)
            break;
    }
    return OK;
}

enum err jtext_find(struct slice value, struct slice pointer, struct jtext_place *out)
{
    *out = (struct jtext_place){.value = value};
    if (!pointer_valid(pointer))
        return ERR_INVALID;
    for (struct slice rest = pointer; rest.n;) {
        struct slice container = out->value, next;
        out->rest = rest;
        out->value = out->name = (struct slice){0};
        out->parent = container;
        struct slice token = slice_cut(slice_of(rest.p + 1, rest.n - 1), '/', &next);
        enum err e = step_down(container, token, &out->name, &out->value);
        if (e != OK || !out->value.p)
            return e;
        size_t used = 1 + token.n;
        rest = slice_of(rest.p + used, rest.n - used);
    }
    out->rest = (struct slice){0};
    return OK;
}
