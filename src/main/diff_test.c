/* diff_test.c - differences of texts, against what diff -u prints. */
#include "diff.h"

#include "cli.h"

#include <setjmp.h>

#include <cmocka.h>

static void differs(const char *a, const char *b, const char *want)
{
    struct buf out = {0};
    buf_adds(&out, "");
    diff_text(slice_cstr(a), slice_cstr(b), false, &out);
    assert_string_equal(out.p, want);
    buf_free(&out);
}

static void texts(void **state)
{
    differs("", "", "");
    differs("a\nb\n", "a\nb\n", "");
    differs("", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n");
    differs("a\n", "", "@@ -1,1 +0,0 @@\n-a\n");
    differs("a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n");
    differs("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nx\n6\n7\n8\n9\n", "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n");
    /* two changes with six lines between them are one hunk, with seven two */
    differs("a\n1\n2\n3\n4\n5\n6\nb\n", "A\n1\n2\n3\n4\n5\n6\nB\n", "@@ -1,8 +1,8 @@\n-a\n+A\n 1\n 2\n 3\n 4\n 5\n 6\n-b\n+B\n");
    differs("a\n1\n2\n3\n4\n5\n6\n7\nb\n", "A\n1\n2\n3\n4\n5\n6\n7\nB\n", "@@ -1,4 +1,4 @@\n-a\n+A\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-b\n+B\n");
    differs("a\nb\nc\nd\n", "b\nc\ne\nd\n", "@@ -1,4 +1,4 @@\n-a\n b\n c\n+e\n d\n");
    (void)state;
}

/* So many lines that no table is made: what differs is replaced as a whole, and the ends stay. */
static void long_texts(void **state)
{
    struct buf a = {0}, b = {0}, out = {0};
    buf_adds(&a, "same\n");
    buf_adds(&b, "same\n");
    for (int i = 0; i < 5000; i++) {
        buf_printf(&a, "a%d\n", i);
        buf_printf(&b, "b%d\n", i);
    }
    diff_text(buf_slice(&a), buf_slice(&b), false, &out);
    assert_true(slice_starts(buf_slice(&out), SLICE("@@ -1,5001 +1,5001 @@\n same\n-a0\n")));
    assert_true(slice_ends(buf_slice(&out), SLICE("+b4999\n")));
    buf_free(&a);
    buf_free(&b);
    buf_free(&out);
    (void)state;
}

static void values(void **state)
{
    struct buf out = {0};
    json_t *a = json_pack("{s:{s:s,s:s}}", "data", "a", "x", "b", "y"), *b = json_pack("{s:{s:s,s:s}}", "data", "a", "x", "b", "z");
    diff_json("ConfigMap/default/c", a, a, false, &out);
    assert_int_equal(out.n, 0);
    diff_json("ConfigMap/default/c", a, b, false, &out);
    assert_string_equal(out.p, "--- ConfigMap/default/c\n+++ ConfigMap/default/c\n@@ -1,3 +1,3 @@\n data:\n   a: x\n-  b: \"y\"\n+  b: z\n");
    buf_clear(&out);
    diff_json("ConfigMap/default/c", json_null(), b, true, &out);
    assert_true(slice_starts(buf_slice(&out), SLICE("--- ConfigMap/default/c (not there)\n+++ ConfigMap/default/c\n\033[36m@@ -0,0 +1,3 @@\033[0m\n\033[32m+data:\033[0m\n")));
    buf_free(&out);
    json_decref(a);
    json_decref(b);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(long_texts), cmocka_unit_test(values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
