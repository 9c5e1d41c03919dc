/* tree.c - the tree that YAML becomes: look-ups, JSON, and what its text must be made of.
 *
 * Trees are read-only once built, and live in an arena. A key whose value is null counts as absent, as in Kubernetes.
 */
#include "plan_int.h"

#include <stdio.h>
#include <stdlib.h>

const char *ytype_name(enum ytype t)
{
    static const char *const names[] = {"null", "a boolean", "a whole number", "a fraction", "a string", "a map", "a list"};
    return names[t];
}

static const struct ynode *get_slice(const struct ynode *n, struct slice key)
{
    if (!n || n->type != Y_MAP)
        return NULL;
    for (uint32_t i = 0; i < n->n; i++)
        if (slice_eq(n->pairs[i].key, key))
            return n->pairs[i].value->type == Y_NULL ? NULL : n->pairs[i].value;
    return NULL;
}

const struct ynode *y_get(const struct ynode *n, const char *key) { return get_slice(n, slice_cstr(key)); }

const struct ynode *y_path(const struct ynode *n, const char *path)
{
    struct slice rest = slice_cstr(path);
    while (n && rest.n)
        n = get_slice(n, slice_cut(rest, '.', &rest));
    return n;
}

bool y_is_str(const struct ynode *n) { return n && n->type == Y_STR; }
struct slice y_str(const struct ynode *n) { return y_is_str(n) ? n->text : SLICE(""); }

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

static int pair_order(const void *a, const void *b)
{
    const struct ypair *x = *(const struct ypair *const *)a, *y = *(const struct ypair *const *)b;
    int c = memcmp(x->key.p, y->key.p, MIN(x->key.n, y->key.n));
    return c ? c : (x->key.n > y->key.n) - (x->key.n < y->key.n);
}

/* The shortest text that reads back as the same number. */
static void json_real(double v, struct buf *out)
{
    for (int digits = 15; digits <= 17; digits++) {
        char text[40];
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (digits == 17 || strtod(text, NULL) == v) {
            buf_adds(out, text);
            return;
        }
    }
}

static void json_map(const struct ynode *n, bool sorted, struct buf *out)
{
    const struct ypair **order = mem_new(MEM_MANIFEST, (n->n + 1) * sizeof *order);
    for (uint32_t i = 0; i < n->n; i++)
        order[i] = &n->pairs[i];
    if (sorted && n->n)
        qsort(order, n->n, sizeof *order, pair_order);
    buf_addc(out, '{');
    for (uint32_t i = 0; i < n->n; i++) {
        if (i)
            buf_addc(out, ',');
        buf_add_json(out, order[i]->key);
        buf_addc(out, ':');
        y_json(order[i]->value, sorted, out);
    }
    buf_addc(out, '}');
    mem_free(order);
}

/* Recursion is bounded by MANIFEST_DEPTH_MAX, output by MANIFEST_EXPANDED_MAX. */
void y_json(const struct ynode *n, bool sorted, struct buf *out)
{
    switch (n->type) {
    case Y_NULL: buf_adds(out, "null"); break;
    case Y_BOOL: buf_adds(out, n->flag ? "true" : "false"); break;
    case Y_INT: buf_printf(out, "%lld", (long long)n->num); break;
    case Y_FLOAT: json_real(n->real, out); break;
    case Y_STR: buf_add_json(out, n->text); break;
    case Y_MAP: json_map(n, sorted, out); break;
    case Y_LIST:
        buf_addc(out, '[');
        for (uint32_t i = 0; i < n->n; i++) {
            if (i)
                buf_addc(out, ',');
            y_json(n->items[i], sorted, out);
        }
        buf_addc(out, ']');
        break;
    }
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------------ */

/* Length of the character at p (RFC 3629 section 4); 0 when it is malformed. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (!len || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] >= 0xa0;
    bool beyond = p[0] == 0xf4 && p[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : len;
}

/* UTF-8 without control characters other than tab and line ends: what YAML text may be (YAML 1.2.2 section 5.1). */
bool utf8_valid(struct slice s, size_t *bad)
{
    for (size_t i = 0; i < s.n;) {
        uint8_t c = (uint8_t)s.p[i];
        size_t len = utf8_length((const uint8_t *)s.p + i, s.n - i);
        bool control = (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f;
        if (!len || control) {
            *bad = i;
            return false;
        }
        i += len;
    }
    return true;
}
