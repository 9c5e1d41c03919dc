/* join_test.c - values of the options that make a node one of several. */
#include "join.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_endpoints(void **state)
{
    static const struct { const char *text, *host; uint16_t port; bool tls; } good[] = {
        {"etcd://10.0.0.1:2379", "10.0.0.1", 2379, false}, {"10.0.0.1:1", "10.0.0.1", 1, false},       {"https://etcd.example:2379", "etcd.example", 2379, true},
        {"etcds://[2001:db8::1]:65535", "2001:db8::1", 65535, true}, {"http://a:80", "a", 80, false},
    };
    static const char *const bad[] = {"", "etcd://", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", ":2379", "etcd://:2379", "ftp://10.0.0.1:x"};
    bool tls;
    uint16_t port;
    struct slice host;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(join_endpoint_parse(slice_cstr(good[i].text), &tls, &host, &port));
        assert_true(slice_is(host, good[i].host) && port == good[i].port && tls == good[i].tls);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(join_endpoint_parse(slice_cstr(bad[i]), &tls, &host, &port));
}

static void test_labels(void **state)
{
    assert_true(join_label_good(SLICE("disk"), SLICE("ssd")) && join_label_good(SLICE("example.com/rack"), SLICE("r_7.a")) && join_label_good(SLICE("gpu"), SLICE("")));
    static const char *const bad[][2] = {{"", "a"}, {"/a", "b"}, {"a/", "b"}, {"-a", "b"}, {"a", "-b"}, {"a", "b c"}, {"a_", "b"}, {"ex_ample.com/a", "b"}};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(join_label_good(slice_cstr(bad[i][0]), slice_cstr(bad[i][1])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_endpoints), cmocka_unit_test(test_labels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
