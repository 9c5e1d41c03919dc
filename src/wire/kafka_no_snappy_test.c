/* kafka_no_snappy_test.c - record batches on a machine without libsnappy: this program's codecs look for a library that is not there. */
#include "kafka_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct buf batch_of(enum kafka_codec codec, enum err want)
{
    struct buf b = {0};
    struct kafka_batch_builder k;
    struct kafka_batch like = {.producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
    kafka_batch_begin(&k, &b, &like);
    kafka_batch_add(&k, 1, slice_of(NULL, 0), SLICE("hello"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, codec), want);
    return b;
}

/* Nothing is written, and nothing is left of what was begun. */
static void test_none_is_made(void **state)
{
    struct buf b = batch_of(KAFKA_CODEC_SNAPPY, ERR_UNSUPPORTED);
    assert_int_equal(b.n, 0);
    buf_free(&b);
}

/* A client's batch gets the protocol's own error, with a reason; nothing is read of it. */
static void test_a_clients(void **state)
{
    struct buf b = batch_of(KAFKA_CODEC_LZ4, OK), out = {0};
    struct kafka_batch is;
    struct kafka_batch_fault fault;
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &is), KAFKA_NONE);
    assert_int_equal(kafka_batch_check(b.p, &is, true, &fault), KAFKA_NONE);
    is.attributes = (int16_t)((is.attributes & ~KAFKA_BATCH_CODEC) | KAFKA_CODEC_SNAPPY);
    assert_int_equal(kafka_batch_check(b.p, &is, true, &fault), KAFKA_UNSUPPORTED_COMPRESSION_TYPE);
    assert_non_null(strstr(fault.why, "libsnappy"));
    assert_int_equal(kafka_inflate(KAFKA_CODEC_SNAPPY, SLICE("\5\x10hello"), 5, &out), ERR_UNSUPPORTED);
    assert_int_equal(out.n, 0);
    buf_free(&b);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_none_is_made), cmocka_unit_test(test_a_clients)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
