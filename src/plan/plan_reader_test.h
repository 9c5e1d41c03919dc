/* plan_reader_test.h - what the tests of the reader share: text to a set, and diagnostics compared line by line. */
#ifndef PLAN_READER_TEST_H
#define PLAN_READER_TEST_H

#include "plan_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define FILE_NAME "m.yaml"

static struct objset *read_text(const char *text, bool strict, struct diags *d)
{
    struct objset *s = objset_new();
    objset_read(s, FILE_NAME, "/srv/app", slice_cstr(text), NULL, strict, d);
    return s;
}

static void diags_text(const struct diags *d, struct buf *out)
{
    buf_reserve(out, 0);
    for (size_t i = 0; i < d->n; i++) {
        diag_format(&d->items[i], out);
        buf_addc(out, '\n');
    }
}

/* Each line of want is the beginning of the diagnostic at its place, and there are no others. */
static void expect_diags(const char *name, const struct diags *d, const char *want)
{
    struct slice rest = slice_cstr(want);
    struct buf all = {0};
    diags_text(d, &all);
    for (size_t i = 0; i < d->n || rest.n; i++) {
        struct buf got = {0};
        struct slice line = slice_cut(rest, '\n', &rest);
        if (i < d->n)
            diag_format(&d->items[i], &got);
        if (!line.n || !slice_starts(buf_slice(&got), line))
            fail_msg("%s: diagnostic %zu: wanted \"" SLICE_FMT "\", all that came:\n%s", name, i + 1, SLICE_ARG(line), all.p);
        buf_free(&got);
    }
    buf_free(&all);
}

static struct objset *read_good(const char *text)
{
    struct diags d = {0};
    struct objset *s = read_text(text, false, &d);
    expect_diags("good", &d, "");
    diags_free(&d);
    return s;
}

struct bad_case {
    const char *name, *text, *want;
};

static void expect_bad(const struct bad_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct diags d = {0};
        objset_free(read_text(cases[i].text, false, &d));
        expect_diags(cases[i].name, &d, cases[i].want);
        diags_free(&d);
    }
}

#endif
