/* log_client_none_test.c - the engine over librdkafka on a machine without it: this program's looks for a library that is not there. */
#include "log_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_it_says_so(void **state)
{
    struct loop *l = loop_new("test");
    struct log_client *c = NULL;
    struct buf why = {0};
    struct log_client_conf conf = {.engine = LOG_ENGINE_RDKAFKA, .bootstrap = "127.0.0.1:1", .acks = -1};
    for (int i = 0; i < 2; i++) { /* the second time, too */
        buf_clear(&why);
        assert_int_equal(log_client_new(l, &conf, &c, &why), ERR_UNSUPPORTED);
        assert_null(c);
        assert_non_null(strstr(why.p, "libabsent.so.0"));
    }
    conf.engine = LOG_ENGINE_OWN;
    assert_int_equal(log_client_new(l, &conf, &c, &why), OK);
    log_client_free(c);
    buf_free(&why);
    loop_turn(l, 0);
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_it_says_so)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
