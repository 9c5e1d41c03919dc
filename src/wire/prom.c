/* prom.c - the Prometheus text exposition format 0.0.4.
 *
 *     # HELP name text            backslash and newline escaped
 *     # TYPE name counter
 *     name_suffix{label="value"} 1        backslash, quote and newline escaped in values
 *
 * The caller keeps the samples of a family together and names them rightly: MUST() checks names, which come from code.
 * Label values come from outside and may be anything.
 */
#include "prom.h"

#include <math.h>
#include <stdio.h>

static bool is_name(const char *s, bool colons)
{
    for (size_t i = 0; s[i]; i++) {
        bool letter = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || s[i] == '_' || (colons && s[i] == ':');
        if (!letter && (i == 0 || s[i] < '0' || s[i] > '9'))
            return false;
    }
    return s[0] != '\0';
}

/* Copies s; backslash and newline are escaped, quotes where the place needs it. */
static void add_escaped(struct buf *out, struct slice s, bool quotes)
{
    if (s.n == 0)
        return;
    size_t done = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (LIKELY(c != '\\' && c != '\n' && !(quotes && c == '"')))
            continue;
        buf_add(out, s.p + done, i - done);
        char escape[2] = {'\\', c == '\n' ? 'n' : c};
        buf_add(out, escape, sizeof escape);
        done = i + 1;
    }
    buf_add(out, s.p + done, s.n - done);
}

void prom_family(struct buf *out, const char *name, enum prom_type type, const char *help)
{
    static const char *const types[] = {[PROM_COUNTER] = "counter", [PROM_GAUGE] = "gauge", [PROM_HISTOGRAM] = "histogram"};
    MUST(is_name(name, true));
    buf_printf(out, "# HELP %s ", name);
    add_escaped(out, slice_cstr(help), false);
    buf_printf(out, "\n# TYPE %s %s\n", name, types[type]);
}

static void add_text(struct buf *out, const char *s)
{
    buf_add(out, s, strlen(s));
}

/* name_suffix{labels,extra="value"} and a space; extra may be NULL. */
static void add_sample(struct buf *out, const char *name, const char *suffix, const struct prom_label *labels, size_t n, const char *extra,
                       const char *extra_value)
{
    DMUST(is_name(name, true));
    add_text(out, name);
    add_text(out, suffix);
    char before = '{';
    for (size_t i = 0; i < n; i++) {
        DMUST(is_name(labels[i].name, false));
        buf_add(out, &before, 1);
        add_text(out, labels[i].name);
        buf_add(out, "=\"", 2);
        add_escaped(out, labels[i].value, true);
        buf_add(out, "\"", 1);
        before = ',';
    }
    if (extra) {
        buf_add(out, &before, 1);
        buf_printf(out, "%s=\"%s\"", extra, extra_value);
        before = ',';
    }
    if (before == ',')
        buf_add(out, "}", 1);
    buf_add(out, " ", 1);
}

/* The shortest decimal that reads back as v, so that 0.1 stays 0.1; whole numbers without an exponent. */
#define DOUBLE_TEXT_MAX 32
#define WHOLE_MAX 1e15
static void double_text(char out[DOUBLE_TEXT_MAX], double v)
{
    if (isnan(v) || isinf(v)) {
        snprintf(out, DOUBLE_TEXT_MAX, "%s", isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
        return;
    }
    if (v > -WHOLE_MAX && v < WHOLE_MAX && v == (double)(int64_t)v) {
        snprintf(out, DOUBLE_TEXT_MAX, "%lld", (long long)v);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, DOUBLE_TEXT_MAX, "%.*g", digits, v);
        double back = 0;
        if (sscanf(out, "%lf", &back) == 1 && memcmp(&back, &v, sizeof v) == 0)
            return;
    }
}

void prom_u64(struct buf *out, const char *name, const char *suffix, const struct prom_label *labels, size_t n, uint64_t value)
{
    add_sample(out, name, suffix, labels, n, NULL, NULL);
    buf_add_u64(out, value);
    buf_add(out, "\n", 1);
}

void prom_double(struct buf *out, const char *name, const char *suffix, const struct prom_label *labels, size_t n, double value)
{
    char text[DOUBLE_TEXT_MAX];
    double_text(text, value);
    add_sample(out, name, suffix, labels, n, NULL, NULL);
    add_text(out, text);
    buf_add(out, "\n", 1);
}

void prom_histogram(struct buf *out, const char *name, const struct prom_label *labels, size_t n, const double *bounds, const uint64_t *counts,
                    size_t bounds_n, double sum)
{
    uint64_t below = 0;
    for (size_t i = 0; i <= bounds_n; i++) {
        char bound[DOUBLE_TEXT_MAX];
        double_text(bound, i < bounds_n ? bounds[i] : (double)INFINITY);
        below += counts[i];
        add_sample(out, name, "_bucket", labels, n, "le", bound);
        buf_add_u64(out, below);
        buf_add(out, "\n", 1);
    }
    prom_double(out, name, "_sum", labels, n, sum);
    prom_u64(out, name, "_count", labels, n, below);
}
