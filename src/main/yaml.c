/* yaml.c - a JSON value as YAML 1.2 in block style, for `get -o yaml`.
 *
 * Text is written plain where every reader takes it for text; in the double quotes of JSON (which YAML 1.2 shares) where a
 * plain scalar would be read as something else; and as a literal block where it has lines that a block can hold exactly.
 */
#include "cli.h"

#include <ctype.h>

static void indent(FILE *f, int depth) { fprintf(f, "%*s", depth * 2, ""); }

static bool reserved(const char *s)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (slice_ieq(slice_cstr(s), slice_cstr(words[i])))
            return true;
    return false;
}

/* Begins with a letter, '/' or '_' and goes on with characters that mean nothing in YAML: no number, date or syntax. */
static bool plain(const char *s, size_t n)
{
    if (!n || n != strlen(s) || reserved(s) || !(isalpha((unsigned char)s[0]) || s[0] == '/' || s[0] == '_'))
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool inner_space = c == ' ' && i + 1 < n && s[i + 1] != '#';
        if (!isalnum(c) && !strchr("/_-.@+=,()", c) && !inner_space && !(c == ':' && i + 1 < n && s[i + 1] != ' '))
            return false;
    }
    return true;
}

/* Several lines, each printable and without spaces at its end, the first with text and no leading space. */
static bool literal(const char *s, size_t n)
{
    if (n < 2 || !memchr(s, '\n', n - 1) || s[0] == ' ' || s[0] == '\n' || n != strlen(s) || (s[n - 1] == '\n' && s[n - 2] == '\n'))
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c < ' ' && c != '\n') || c == 0x7f || (c == ' ' && (i + 1 == n || s[i + 1] == '\n')) || c >= 0x80)
            return false;
    }
    return true;
}

static void write_literal(const char *s, size_t n, FILE *f, int depth)
{
    struct slice rest = slice_of(s, n);
    fputs(s[n - 1] == '\n' ? "|\n" : "|-\n", f);
    while (rest.n) {
        struct slice line = slice_cut(rest, '\n', &rest);
        if (line.n) {
            indent(f, depth);
            fwrite(line.p, 1, line.n, f);
        }
        fputc('\n', f);
    }
}

static void write_text(const char *s, size_t n, FILE *f, int depth)
{
    if (plain(s, n)) {
        fwrite(s, 1, n, f);
        fputc('\n', f);
    } else if (literal(s, n)) {
        write_literal(s, n, f, depth);
    } else {
        struct buf b = {0};
        buf_add_json(&b, slice_of(s, n));
        fprintf(f, "%s\n", b.p);
        buf_free(&b);
    }
}

static void write_value(const json_t *v, FILE *f, int depth, bool inline_first);

static void write_key(const char *key, FILE *f)
{
    struct buf b = {0};
    if (!plain(key, strlen(key)))
        buf_add_json(&b, slice_cstr(key));
    fprintf(f, "%s:", b.p ? b.p : key);
    buf_free(&b);
}

static void write_object(const json_t *v, FILE *f, int depth, bool inline_first)
{
    const char *key;
    json_t *item;
    json_object_foreach ((json_t *)(uintptr_t)v, key, item) {
        bool nested = (json_is_object(item) && json_object_size(item)) || (json_is_array(item) && json_array_size(item));
        if (!inline_first)
            indent(f, depth);
        inline_first = false;
        write_key(key, f);
        fputs(nested ? "\n" : " ", f);
        write_value(item, f, nested && json_is_array(item) ? depth : depth + 1, false);
    }
}

static void write_array(const json_t *v, FILE *f, int depth, bool inline_first)
{
    size_t i;
    json_t *item;
    json_array_foreach (v, i, item) {
        if (!inline_first)
            indent(f, depth);
        inline_first = false;
        fputs("- ", f);
        write_value(item, f, depth + 1, true);
    }
}

/* inline_first: the cursor already stands behind "- ", where the first line of a collection goes. */
static void write_value(const json_t *v, FILE *f, int depth, bool inline_first)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        if (json_object_size(v))
            write_object(v, f, depth, inline_first);
        else
            fputs("{}\n", f);
        break;
    case JSON_ARRAY:
        if (json_array_size(v))
            write_array(v, f, depth, inline_first);
        else
            fputs("[]\n", f);
        break;
    case JSON_STRING: write_text(json_string_value(v), json_string_length(v), f, depth); break;
    case JSON_INTEGER: fprintf(f, "%lld\n", (long long)json_integer_value(v)); break;
    case JSON_REAL: fprintf(f, "%.17g\n", json_real_value(v)); break;
    case JSON_TRUE: fputs("true\n", f); break;
    case JSON_FALSE: fputs("false\n", f); break;
    case JSON_NULL: fputs("null\n", f); break;
    }
}

void yaml_write(const json_t *v, FILE *f) { write_value(v, f, 0, false); }
