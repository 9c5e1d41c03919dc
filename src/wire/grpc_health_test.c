/* grpc_health_test.c - the messages of the health protocol: what is written, what is read, what is refused. */
#include "grpc_health.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_request(void **state)
{
    char out[GRPC_HEALTH_REQUEST_MAX], name[300];
    assert_int_equal(grpc_health_request(SLICE(""), out), 5);
    assert_memory_equal(out, "\0\0\0\0\0", 5);
    assert_int_equal(grpc_health_request(SLICE("ab"), out), 9);
    assert_memory_equal(out, "\0\0\0\0\4\x0a\2ab", 9);
    memset(name, 'x', sizeof name);
    assert_int_equal(grpc_health_request(slice_of(name, 127), out), 5 + 2 + 127);
    assert_memory_equal(out, "\0\0\0\0\x81\x0a\x7f", 7);
    assert_int_equal(grpc_health_request(slice_of(name, 128), out), 5 + 3 + 128);
    assert_memory_equal(out, "\0\0\0\0\x83\x0a\x80\1", 8);
    assert_int_equal(grpc_health_request(slice_of(name, sizeof name), out), GRPC_HEALTH_REQUEST_MAX);
}

static void test_response(void **state)
{
    static const struct { struct slice frame; enum err e; uint64_t status; } cases[] = {
        {{"\0\0\0\0\2\x08\1", 7}, OK, GRPC_SERVING},
        {{"\0\0\0\0\2\x08\2", 7}, OK, GRPC_NOT_SERVING},
        {{"\0\0\0\0\0", 5}, OK, GRPC_SERVING_UNKNOWN},
        {{"\0\0\0\0\3\x08\x81\0", 8}, OK, GRPC_SERVING},                      /* a varint longer than need be */
        {{"\0\0\0\0\4\x08\2\x08\1", 9}, OK, GRPC_SERVING},                    /* the last counts */
        {{"\0\0\0\0\6\x12\2hi\x08\1", 11}, OK, GRPC_SERVING},                 /* an unknown string before it */
        {{"\0\0\0\0\7\x15" "abcd\x08\1", 12}, OK, GRPC_SERVING},              /* an unknown fixed32 */
        {{"\0\0\0\0\x0b\x11" "abcdefgh\x08\1", 16}, OK, GRPC_SERVING},        /* an unknown fixed64 */
        {{"\0\0\0\0\2\x08\x7f", 7}, OK, 127},
        {{"\1\0\0\0\2\x08\1", 7}, ERR_UNSUPPORTED, 0},
        {{"\2\0\0\0\2\x08\1", 7}, ERR_SYNTAX, 0},
        {{"\0\0\0\0", 4}, ERR_SYNTAX, 0},
        {{"", 0}, ERR_SYNTAX, 0},
        {{"\0\0\0\0\3\x08\1", 7}, ERR_SYNTAX, 0},                             /* shorter than it says */
        {{"\0\0\0\0\1\x08\1", 7}, ERR_SYNTAX, 0},                             /* longer */
        {{"\0\0\0\0\1\x08", 6}, ERR_SYNTAX, 0},
        {{"\0\0\0\0\2\x08\x80", 7}, ERR_SYNTAX, 0},
        {{"\0\0\0\0\3\x12\x09h", 8}, ERR_SYNTAX, 0},
        {{"\0\0\0\0\1\0", 6}, ERR_SYNTAX, 0},                                 /* there is no field 0 */
        {{"\0\0\0\0\1\x0b", 6}, ERR_SYNTAX, 0},                               /* a group */
        {{"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", 17}, ERR_SYNTAX, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t status = 99;
        assert_int_equal(grpc_health_response(cases[i].frame, &status), cases[i].e);
        assert_int_equal(status, cases[i].e == OK ? cases[i].status : 99);
    }
    assert_string_equal(grpc_serving_text(2), "NOT_SERVING");
    assert_string_equal(grpc_serving_text(127), "an unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_request), cmocka_unit_test(test_response)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
