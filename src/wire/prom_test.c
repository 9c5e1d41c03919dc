/* prom_test.c - the text exposition format: each kind of sample, byte by byte. */
#include "prom.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_families(void **state)
{
    struct buf b = {0};
    prom_family(&b, "weir_requests_total", PROM_COUNTER, "Requests.\nWith a \\ and a \"quote\".");
    prom_u64(&b, "weir_requests_total", "", NULL, 0, UINT64_MAX);
    prom_family(&b, "weir_x", PROM_GAUGE, "X.");
    assert_string_equal(b.p, "# HELP weir_requests_total Requests.\\nWith a \\\\ and a \"quote\".\n"
                             "# TYPE weir_requests_total counter\n"
                             "weir_requests_total 18446744073709551615\n"
                             "# HELP weir_x X.\n# TYPE weir_x gauge\n");
    buf_free(&b);
}

static void test_labels(void **state)
{
    struct buf b = {0};
    struct prom_label labels[] = {{"route", SLICE("a\"b\\c\nd")}, {"code", SLICE("200")}, {"none", {0}}};
    prom_u64(&b, "m", "_total", labels, 3, 7);
    assert_string_equal(b.p, "m_total{route=\"a\\\"b\\\\c\\nd\",code=\"200\",none=\"\"} 7\n");
    buf_free(&b);
}

static void test_doubles(void **state)
{
    static const struct { double v; const char *text; } cases[] = {
        {0, "0"}, {0.1, "0.1"}, {1, "1"}, {-2.5, "-2.5"}, {1800000, "1800000"}, {1.0 / 3, "0.3333333333333333"}, {1e300, "1e+300"},
        {123456789.125, "123456789.125"}, {-1e15, "-1e+15"},
    };
    struct buf b = {0};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_clear(&b);
        prom_double(&b, "m", "", NULL, 0, cases[i].v);
        assert_true(slice_starts(buf_slice(&b), SLICE("m ")) && slice_ends(buf_slice(&b), SLICE("\n")));
        assert_true(slice_is(slice_of(b.p + 2, b.n - 3), cases[i].text));
    }
    buf_clear(&b);
    prom_double(&b, "m", "", NULL, 0, (double)INFINITY);
    prom_double(&b, "m", "", NULL, 0, -(double)INFINITY);
    prom_double(&b, "m", "", NULL, 0, (double)NAN);
    assert_string_equal(b.p, "m +Inf\nm -Inf\nm NaN\n");
    buf_free(&b);
}

static void test_histogram(void **state)
{
    static const double bounds[] = {0.5, 1, 2500};
    static const uint64_t counts[] = {1, 0, 4, 2};
    struct prom_label label = {"dst", SLICE("x")};
    struct buf b = {0};
    prom_histogram(&b, "d", &label, 1, bounds, counts, 3, 12.5);
    assert_string_equal(b.p, "d_bucket{dst=\"x\",le=\"0.5\"} 1\nd_bucket{dst=\"x\",le=\"1\"} 1\nd_bucket{dst=\"x\",le=\"2500\"} 5\n"
                             "d_bucket{dst=\"x\",le=\"+Inf\"} 7\nd_sum{dst=\"x\"} 12.5\nd_count{dst=\"x\"} 7\n");
    buf_clear(&b);
    prom_histogram(&b, "e", NULL, 0, bounds, counts, 0, 0);
    assert_string_equal(b.p, "e_bucket{le=\"+Inf\"} 1\ne_sum 0\ne_count 1\n");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families), cmocka_unit_test(test_labels), cmocka_unit_test(test_doubles), cmocka_unit_test(test_histogram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
