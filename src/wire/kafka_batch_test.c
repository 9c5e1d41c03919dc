/* kafka_batch_test.c - record batches: built, checked, broken at every byte; codecs there and back, cut off, and too large; CRC-32C. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crc32c.h"
#include "kafka_batch.h"
#include "kafka_peer.h"

#define assert_slice(s, text)                                                                                                                        \
    do {                                                                                                                                             \
        struct slice got_ = (s), want_ = SLICE(text);                                                                                                \
        assert_int_equal(got_.n, want_.n);                                                                                                           \
        assert_memory_equal(got_.p, want_.p, want_.n);                                                                                               \
    } while (0)

static const struct slice null = {NULL, 0};

/* ---- CRC-32C ---- */

static void test_crc_vectors(void **state)
{
    uint8_t block[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    memset(block, 0, sizeof block); /* RFC 3720 appendix B.4, and the three below */
    assert_int_equal(crc32c(0, block, sizeof block), 0x8a9136aa);
    memset(block, 0xff, sizeof block);
    assert_int_equal(crc32c(0, block, sizeof block), 0x62a8ab43);
    for (uint8_t i = 0; i < sizeof block; i++)
        block[i] = i;
    assert_int_equal(crc32c(0, block, sizeof block), 0x46dd794e);
    for (uint8_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(31 - i);
    assert_int_equal(crc32c(0, block, sizeof block), 0x113fdb5c);
    assert_int_equal(crc32c(7, block, 0), 7);
}

/* The vector code and the table agree at every length up to more than two rounds of the long blocks, at any alignment, and in pieces. */
static void test_crc_lengths(void **state)
{
    static uint8_t bytes[8192];
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)kafka_chance(&seed);
    uint32_t slow = 0;
    for (size_t n = 0; n < 8000; n++) {
        size_t at = kafka_chance(&seed) % 16, cut = kafka_chance(&seed) % (n + 1);
        uint32_t want = at ? crc32c_portable(0, bytes + at, n) : slow;
        if (crc32c(0, bytes + at, n) != want || crc32c(crc32c(0, bytes + at, cut), bytes + at + cut, n - cut) != want)
            fail_msg("%zu bytes from %zu, cut at %zu", n, at, cut);
        slow = crc32c_portable(slow, bytes + n, 1);
        n += n > 1000 ? 6 : 0;
        for (size_t k = 0; n > 1000 && k < 6; k++)
            slow = crc32c_portable(slow, bytes + n - 5 + k, 1);
    }
}

/* ---- building and reading ---- */

static void build(struct buf *b, enum kafka_codec codec, int32_t records)
{
    struct kafka_batch_builder k;
    struct kafka_batch head = kafka_batch_plain;
    const struct kafka_header headers[] = {{SLICE("h"), SLICE("1")}, {SLICE(""), {NULL, 0}}};
    head.base_offset = 42;
    head.base_timestamp = 1000;
    kafka_batch_begin(&k, b, &head);
    for (int32_t i = 0; i < records; i++)
        kafka_batch_add(&k, 1000 + i * 3, i % 2 ? SLICE("key") : SLICE(""), i % 3 ? SLICE("a value that repeats itself") : null, headers, i % 3);
    assert_int_equal(kafka_batch_end(&k, codec), OK);
}

static void read_back(struct slice bytes, int32_t records)
{
    struct kafka_batch head;
    struct kafka_batch_fault why;
    struct kafka_record r;
    struct kafka_header h;
    struct buf scratch = {0};
    struct slice rest;
    assert_int_equal(kafka_batch_parse(bytes, &head), KAFKA_NONE);
    assert_int_equal(head.bytes, bytes.n);
    assert_true(head.base_offset == 42 && head.count == records && head.last_offset_delta == records - 1 && head.magic == 2);
    assert_true(kafka_batch_last_offset(&head) == 41 + records);
    assert_true(head.base_timestamp == 1000 && head.max_timestamp == 1000 + (records - 1) * 3);
    assert_true(head.producer_id == -1 && head.producer_epoch == -1 && head.base_sequence == -1 && head.leader_epoch == -1);
    assert_int_equal(kafka_batch_check(bytes.p, &head, true, &why), KAFKA_NONE);
    assert_null(why.why);
    assert_int_equal(why.null_key, -1);
    assert_int_equal(kafka_batch_records(&head, 1 << 20, &scratch, &rest), OK);
    for (int32_t i = 0; i < records; i++) {
        assert_int_equal(kafka_record_next(&rest, &r), OK);
        assert_true(r.offset_delta == i && r.timestamp_delta == i * 3 && r.headers_n == i % 3);
        assert_true(r.key.p && slice_is(r.key, i % 2 ? "key" : ""));
        assert_true(i % 3 ? slice_is(r.value, "a value that repeats itself") : !r.value.p);
        for (int32_t k = 0; k < i % 3; k++) {
            assert_true(kafka_header_next(&r.headers, &h));
            assert_true(k ? h.key.n == 0 && !h.value.p : slice_is(h.key, "h") && slice_is(h.value, "1"));
        }
        assert_false(kafka_header_next(&r.headers, &h));
    }
    assert_int_equal(rest.n, 0);
    assert_int_equal(kafka_record_next(&rest, &r), ERR_SYNTAX);
    buf_free(&scratch);
}

static void test_build(void **state)
{
    for (int codec = 0; codec < KAFKA_CODECS; codec++)
        for (int32_t records = 1; records < 3000; records = records * 7 + 1) {
            struct buf b = {0};
            buf_adds(&b, "what stands before");
            size_t at = b.n;
            build(&b, (enum kafka_codec)codec, records);
            read_back(slice_of(b.p + at, b.n - at), records);
            buf_free(&b);
        }
}

/* One record without a key, as the protocol guide lays it out. The checksum is that of crc32c_portable() over what stands behind it. */
static void test_golden(void **state)
{
    struct kafka_batch_builder k;
    struct buf b = {0};
    struct kafka_batch head = kafka_batch_plain;
    head.base_offset = 1;
    head.leader_epoch = 2;
    head.base_timestamp = 3;
    head.producer_id = 4;
    head.producer_epoch = 5;
    head.base_sequence = 6;
    head.attributes = KAFKA_BATCH_TRANSACTIONAL;
    kafka_batch_begin(&k, &b, &head);
    kafka_batch_add(&k, 5, null, SLICE("v"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    static const char want[] = "\0\0\0\0\0\0\0\1\0\0\0\x39\0\0\0\2\2"
                               "CRC4\0\x10\0\0\0\0\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\4\0\5\0\0\0\6\0\0\0\1"
                               "\x0e\0\4\0\1\2v\0";
    assert_int_equal(b.n, sizeof want - 1);
    assert_memory_equal(b.p, want, 17);
    assert_memory_equal(b.p + 21, want + 21, sizeof want - 22);
    uint32_t crc = crc32c_portable(0, want + 21, sizeof want - 22);
    const uint8_t bytes[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8), (uint8_t)crc};
    assert_memory_equal(b.p + 17, bytes, 4);
    buf_free(&b);
}

static void test_place_and_stamp(void **state)
{
    struct buf b = {0};
    struct kafka_batch head;
    build(&b, KAFKA_CODEC_NONE, 3);
    kafka_batch_place(b.p, 77, 5);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_true(head.base_offset == 77 && head.leader_epoch == 5 && kafka_batch_crc_ok(b.p, &head));
    kafka_batch_stamp(b.p, 123456789);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_true(head.max_timestamp == 123456789 && head.attributes == KAFKA_BATCH_LOG_APPEND && kafka_batch_crc_ok(b.p, &head));
    b.p[b.n - 1] ^= 1;
    assert_false(kafka_batch_crc_ok(b.p, &head));
    buf_free(&b);
}

static void test_marker(void **state)
{
    struct buf b = {0};
    struct kafka_batch head = kafka_batch_plain;
    enum kafka_marker marker;
    int32_t epoch;
    head.producer_id = 9;
    head.producer_epoch = 2;
    kafka_batch_marker(&b, &head, KAFKA_MARKER_COMMIT, 3);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_true(kafka_batch_crc_ok(b.p, &head) && head.producer_id == 9 && head.producer_epoch == 2 && head.base_sequence == -1 && head.count == 1);
    assert_int_equal(head.attributes, KAFKA_BATCH_CONTROL | KAFKA_BATCH_TRANSACTIONAL);
    assert_true(kafka_batch_marker_read(&head, &marker, &epoch) && marker == KAFKA_MARKER_COMMIT && epoch == 3);
    head.attributes = KAFKA_BATCH_TRANSACTIONAL;
    assert_false(kafka_batch_marker_read(&head, &marker, &epoch));
    buf_free(&b);
}

/* What compaction does: records leave, the others keep their offsets, and the batch its last one. */
static void test_holes(void **state)
{
    struct buf b = {0}, kept = {0};
    struct kafka_batch head;
    struct kafka_record r;
    struct kafka_batch_builder k;
    build(&b, KAFKA_CODEC_NONE, 9);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    struct slice rest = head.records;
    kafka_batch_begin(&k, &kept, &head);
    while (rest.n) {
        assert_int_equal(kafka_record_next(&rest, &r), OK);
        if (r.offset_delta % 4 == 2)
            kafka_batch_add_at(&k, r.offset_delta, head.base_timestamp + r.timestamp_delta, &r);
    }
    k.head.last_offset_delta = head.last_offset_delta;
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_ZSTD), OK);
    buf_clear(&b);
    assert_int_equal(kafka_batch_parse(buf_slice(&kept), &head), KAFKA_NONE);
    assert_true(head.count == 2 && head.last_offset_delta == 8 && kafka_batch_codec(&head) == KAFKA_CODEC_ZSTD && kafka_batch_crc_ok(kept.p, &head));
    assert_int_equal(kafka_batch_records(&head, 1 << 20, &b, &rest), OK);
    assert_int_equal(kafka_record_next(&rest, &r), OK);
    assert_true(r.offset_delta == 2 && r.headers_n == 2 && r.timestamp_delta == 6);
    assert_int_equal(kafka_record_next(&rest, &r), OK);
    assert_true(r.offset_delta == 6 && rest.n == 0 && r.headers_n == 0 && !r.value.p);
    buf_free(&b);
    buf_free(&kept);
}

/* ---- what is refused ---- */

static void test_parse(void **state)
{
    struct buf b = {0};
    struct kafka_batch head;
    build(&b, KAFKA_CODEC_NONE, 2);
    for (size_t n = 0; n < b.n; n++) {
        char *p = mem_grow(MEM_MISC, NULL, n ? n : 1);
        memcpy(p, b.p, n);
        assert_int_equal(kafka_batch_parse(slice_of(p, n), &head), KAFKA_CORRUPT_MESSAGE);
        mem_free(p);
    }
    buf_adds(&b, "the next one");
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_int_equal(head.bytes, b.n - 12);
    static const uint32_t lengths[] = {0, 48, 0x7fffffff, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        for (int k = 0; k < 4; k++)
            b.p[8 + k] = (char)(lengths[i] >> (24 - 8 * k));
        assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_CORRUPT_MESSAGE);
    }
    b.p[16] = 1;
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_INVALID_RECORD);
    assert_int_equal(head.magic, 1);
    buf_free(&b);
}

/* A batch with its checksum made right after a change. */
static enum kafka_error check_changed(struct slice bytes, struct kafka_batch_fault *why)
{
    struct kafka_batch head;
    uint32_t crc = crc32c(0, bytes.p + 21, bytes.n - 21);
    char *p = mem_grow(MEM_MISC, NULL, bytes.n);
    memcpy(p, bytes.p, bytes.n);
    for (int k = 0; k < 4; k++)
        p[17 + k] = (char)(crc >> (24 - 8 * k));
    assert_int_equal(kafka_batch_parse(slice_of(p, bytes.n), &head), KAFKA_NONE);
    enum kafka_error e = kafka_batch_check(p, &head, true, why);
    assert_true((e == KAFKA_NONE) == (why->why == NULL));
    mem_free(p);
    return e;
}

static void test_check_head(void **state)
{
    static const struct {
        size_t at; /* bytes n from here become v */
        size_t n;
        uint64_t v;
        enum kafka_error want;
    } cases[] = {
        {57, 4, 2, KAFKA_INVALID_RECORD},                          /* count */
        {57, 4, 0, KAFKA_INVALID_RECORD},
        {57, 4, 0xffffffff, KAFKA_INVALID_RECORD},
        {23, 4, 7, KAFKA_INVALID_RECORD},                          /* last offset delta */
        {23, 4, 0xffffffff, KAFKA_INVALID_RECORD},
        {21, 2, KAFKA_BATCH_CONTROL, KAFKA_INVALID_RECORD},
        {21, 2, KAFKA_BATCH_DELETE_HORIZON, KAFKA_INVALID_RECORD},
        {21, 2, KAFKA_BATCH_TRANSACTIONAL, KAFKA_INVALID_RECORD},  /* and no producer id */
        {21, 2, KAFKA_BATCH_LOG_APPEND, KAFKA_INVALID_TIMESTAMP},
        {21, 2, 5, KAFKA_UNSUPPORTED_COMPRESSION_TYPE},
        {21, 2, KAFKA_CODEC_ZSTD, KAFKA_INVALID_RECORD},           /* it is not */
        {43, 8, 1, KAFKA_INVALID_RECORD},                          /* a producer id without a sequence */
        {61, 1, 2, KAFKA_INVALID_RECORD},                          /* the first record's length */
        {64, 1, 2, KAFKA_INVALID_RECORD},                          /* its offset delta: 1 */
        {0, 8, 99, KAFKA_NONE},
        {12, 4, 99, KAFKA_NONE},
        {35, 8, 99, KAFKA_NONE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct kafka_batch_fault why;
        struct buf b = {0};
        build(&b, KAFKA_CODEC_NONE, 3);
        for (size_t k = 0; k < cases[i].n; k++)
            b.p[cases[i].at + k] = (char)(cases[i].v >> (8 * (cases[i].n - 1 - k)));
        enum kafka_error e = check_changed(buf_slice(&b), &why);
        if (e != cases[i].want)
            fail_msg("case %zu: %s (%s)", i, kafka_error_name(e), why.why ? why.why : "fine");
        buf_free(&b);
    }
}

static void test_check_records(void **state)
{
    struct buf b = {0};
    struct kafka_batch_builder k;
    struct kafka_batch head;
    struct kafka_batch_fault why;
    kafka_batch_begin(&k, &b, &kafka_batch_plain);
    kafka_batch_add(&k, 0, SLICE("k"), SLICE("v"), NULL, 0);
    kafka_batch_add(&k, 0, null, SLICE("v"), NULL, 0);
    kafka_batch_add(&k, 0, null, SLICE("v"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    assert_int_equal(check_changed(buf_slice(&b), &why), KAFKA_NONE);
    assert_int_equal(why.null_key, 1);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_int_equal(kafka_batch_check(b.p, &head, false, &why), KAFKA_NONE);
    assert_int_equal(why.null_key, -1); /* nobody looked */
    b.p[b.n - 2] ^= 1;
    assert_int_equal(kafka_batch_check(b.p, &head, true, &why), KAFKA_CORRUPT_MESSAGE);
    buf_free(&b);
    /* a head that does not say what the greatest timestamp is */
    head = kafka_batch_plain;
    head.base_timestamp = -1;
    kafka_batch_begin(&k, &b, &head);
    kafka_batch_add(&k, -1, SLICE("k"), SLICE("v"), NULL, 0);
    kafka_batch_add(&k, -1, SLICE("k"), SLICE("v"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    kafka_batch_max_timestamp(b.p, 0);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_int_equal(head.max_timestamp, 0);
    assert_int_equal(kafka_batch_check(b.p, &head, true, &why), KAFKA_NONE);
    assert_int_equal(why.max_timestamp, -1);
    assert_int_equal(kafka_batch_check(b.p, &head, false, &why), KAFKA_NONE);
    assert_int_equal(why.max_timestamp, 0); /* nobody looked */
    buf_free(&b);
    /* one record more, or less, than the head says */
    for (int32_t lie = -1; lie <= 1; lie += 2) {
        kafka_batch_begin(&k, &b, &kafka_batch_plain);
        for (int i = 0; i < 3; i++)
            kafka_batch_add(&k, 0, SLICE("k"), SLICE("v"), NULL, 0);
        k.head.count += lie;
        k.head.last_offset_delta += lie;
        assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_LZ4), OK);
        assert_int_equal(check_changed(buf_slice(&b), &why), KAFKA_INVALID_RECORD);
        assert_int_equal(why.index, lie < 0 ? -1 : 3);
        buf_free(&b);
    }
}

/* Each byte of the records at each value: refused or fine, never read outside (AddressSanitizer). */
static void test_damaged(void **state)
{
    struct buf b = {0};
    struct kafka_batch_fault why;
    build(&b, KAFKA_CODEC_NONE, 3);
    for (size_t at = KAFKA_BATCH_HEADER; at < b.n; at++)
        for (int v = 0; v < 256; v++) {
            char was = b.p[at];
            b.p[at] = (char)v;
            enum kafka_error e = check_changed(buf_slice(&b), &why);
            assert_true(e == KAFKA_NONE || e == KAFKA_INVALID_RECORD);
            b.p[at] = was;
        }
    buf_free(&b);
}

static void test_record_numbers(void **state)
{
    static const struct {
        struct slice bytes;
        bool ok;
    } cases[] = {
        {{"\x0e\0\0\0\1\2v\0", 8}, true},
        {{"\x0e\0\0\0\3\2v\0", 8}, false},                              /* key of -2 bytes */
        {{"\x0e\0\0\0\1\2v\1", 8}, false},                              /* -1 headers */
        {{"\x0e\0\0\0\1\2v\2", 8}, false},                              /* one header, none there */
        {{"\x12\0\0\0\1\2v\2\0\1", 10}, true},                          /* its value is null */
        {{"\x12\0\0\0\1\2v\2\1\1", 10}, false},                         /* its key is */
        {{"\x10\0\0\0\1\2v\0z", 9}, false},                             /* a byte too much */
        {{"\0", 1}, false},
        {{"\1", 1}, false},
        {{"\xff\xff\xff\xff\x0f", 5}, false},
        {{"\xff\xff\xff\xff\x1f", 5}, false},
        {{"\x0c\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\0\1\1\0", 16}, false},  /* its length does not fit */
        {{"\x1e\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\0\1\1\0", 16}, true},   /* the earliest timestamp */
        {{"\x1e\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\2\0\1\1\0", 16}, false},  /* 65 bits */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct kafka_record r;
        struct slice rest = cases[i].bytes;
        bool ok = kafka_record_next(&rest, &r) == OK && rest.n == 0;
        if (ok != cases[i].ok)
            fail_msg("case %zu", i);
    }
}

/* ---- codecs ---- */

static void text_of(struct buf *b, size_t n, bool chance)
{
    uint64_t seed = n;
    while (b->n < n)
        buf_addc(b, chance ? (char)kafka_chance(&seed) : "abcdefgh"[kafka_chance(&seed) % 8]);
}

static void test_codecs(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 32768, 32769, 70000, 1000000};
    for (int codec = 0; codec < KAFKA_CODECS; codec++)
        for (size_t i = 0; i < 2 * COUNT_OF(sizes); i++) {
            struct buf in = {0}, small = {0}, out = {0};
            text_of(&in, sizes[i / 2], i % 2);
            buf_adds(&small, "x");
            buf_adds(&out, "before");
            assert_int_equal(kafka_deflate((enum kafka_codec)codec, buf_slice(&in), &small), OK);
            struct slice packed = slice_of(small.p + 1, small.n - 1);
            assert_int_equal(kafka_inflate((enum kafka_codec)codec, packed, in.n, &out), OK);
            assert_int_equal(out.n, 6 + in.n);
            assert_memory_equal(out.p, "before", 6);
            if (in.n)
                assert_memory_equal(out.p + 6, in.p, in.n);
            if (in.n) { /* one byte less is not enough, and leaves no trace */
                assert_int_equal(kafka_inflate((enum kafka_codec)codec, packed, in.n - 1, &out), ERR_LIMIT);
                assert_int_equal(out.n, 6 + in.n);
            }
            buf_free(&in);
            buf_free(&small);
            buf_free(&out);
        }
    struct buf out = {0};
    assert_int_equal(kafka_inflate((enum kafka_codec)5, SLICE("x"), 10, &out), ERR_UNSUPPORTED);
    assert_int_equal(kafka_deflate((enum kafka_codec)7, SLICE("x"), &out), ERR_UNSUPPORTED);
    buf_free(&out);
}

/* Compressed bytes cut off, damaged, and two in a row. */
static void test_codecs_broken(void **state)
{
    for (int c = KAFKA_CODEC_GZIP; c < KAFKA_CODECS; c++) {
        enum kafka_codec codec = (enum kafka_codec)c;
        struct buf in = {0}, small = {0}, out = {0};
        uint64_t seed = 3;
        text_of(&in, 500, false);
        assert_int_equal(kafka_deflate(codec, buf_slice(&in), &small), OK);
        for (size_t n = 0; n < small.n; n++) {
            char *p = mem_grow(MEM_MISC, NULL, n ? n : 1);
            memcpy(p, small.p, n);
            enum err e = kafka_inflate(codec, slice_of(p, n), 100000, &out);
            if (e != ERR_SYNTAX && !(codec == KAFKA_CODEC_SNAPPY && n == 16)) /* a stream of snappy-java has no end mark */
                fail_msg("codec %d, %zu of %zu bytes: %s", c, n, small.n, err_text(e));
            if (e)
                assert_int_equal(out.n, 0);
            mem_free(p);
        }
        for (int i = 0; i < 2000; i++) {
            size_t at = kafka_chance(&seed) % small.n;
            char was = small.p[at];
            small.p[at] ^= (char)(1 + kafka_chance(&seed) % 255);
            enum err e = kafka_inflate(codec, buf_slice(&small), 100000, &out);
            assert_true(e == OK || e == ERR_SYNTAX || e == ERR_LIMIT);
            small.p[at] = was;
            buf_clear(&out);
        }
        size_t n = small.n;
        buf_reserve(&small, n);
        buf_add(&small, small.p, n);
        assert_int_equal(kafka_inflate(codec, buf_slice(&small), 1000, &out), OK);
        assert_int_equal(out.n, 1000);
        assert_memory_equal(out.p, in.p, 500);
        assert_memory_equal(out.p + 500, in.p, 500);
        buf_free(&in);
        buf_free(&small);
        buf_free(&out);
    }
}

/* As librdkafka writes it: one raw block. "\5" is its length, "\x10" says five bytes as they are. */
static void test_snappy_raw(void **state)
{
    struct buf out = {0};
    assert_int_equal(kafka_inflate(KAFKA_CODEC_SNAPPY, SLICE("\5\x10hello"), 5, &out), OK);
    assert_slice(buf_slice(&out), "hello");
    assert_int_equal(kafka_inflate(KAFKA_CODEC_SNAPPY, SLICE("\5\x10hello"), 4, &out), ERR_LIMIT);
    assert_int_equal(kafka_inflate(KAFKA_CODEC_SNAPPY, SLICE("\xff\xff\xff\x0f\x10hello"), 1 << 30, &out), ERR_SYNTAX); /* 32 MiB, it says */
    buf_clear(&out);
    assert_int_equal(kafka_inflate(KAFKA_CODEC_SNAPPY, SLICE("\x82SNAPPY\0\0\0\0\1\0\0\0\1\0\0\0\7\5\x10hello\0\0\0\5\3\10abc"), 99, &out), OK);
    assert_slice(buf_slice(&out), "helloabc");
    buf_free(&out);
}

/* A gzip member of another writer: Java's, with an empty extra head. */
static void test_gzip_foreign(void **state)
{
    struct buf out = {0};
    static const struct slice member = SLICE("\x1f\x8b\x08\0\0\0\0\0\0\xff\xcb\x48\xcd\xc9\xc9\7\0\x86\xa6\x10\x36\5\0\0\0");
    assert_int_equal(kafka_inflate(KAFKA_CODEC_GZIP, member, 5, &out), OK);
    assert_slice(buf_slice(&out), "hello");
    buf_free(&out);
}

/* zstd of n blocks of 128 KiB, all zeros: each says "repeat this byte" (RFC 8878 section 3.1.1.2). */
static void zeros_of(struct buf *b, size_t blocks)
{
    buf_add(b, "\x28\xb5\x2f\xfd\0\x58", 6); /* no size, no checksum; a window of 2 MiB */
    for (size_t i = 1; i <= blocks; i++) {
        uint32_t head = 131072u << 3 | 1u << 1 | (i == blocks);
        const char bytes[4] = {(char)head, (char)(head >> 8), (char)(head >> 16), 0};
        buf_add(b, bytes, sizeof bytes);
    }
}

/* A batch whose records grow beyond what is checked. */
static void test_too_large(void **state)
{
    struct buf b = {0}, out = {0};
    struct kafka_batch_builder k;
    struct kafka_batch head = kafka_batch_plain;
    struct kafka_batch_fault why;
    zeros_of(&out, 1);
    assert_int_equal(kafka_inflate(KAFKA_CODEC_ZSTD, buf_slice(&out), 131072, &b), OK);
    assert_int_equal(b.n, 131072);
    buf_clear(&b);
    kafka_batch_begin(&k, &b, &head);
    zeros_of(&b, KAFKA_INFLATE_BYTES_MAX / 131072 + 1);
    k.head.count = 1;
    k.head.last_offset_delta = 0;
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    b.p[22] = KAFKA_CODEC_ZSTD;
    assert_int_equal(check_changed(buf_slice(&b), &why), KAFKA_MESSAGE_TOO_LARGE);
    assert_int_equal(kafka_batch_parse(buf_slice(&b), &head), KAFKA_NONE);
    assert_int_equal(kafka_batch_check(b.p, &head, false, &why), KAFKA_CORRUPT_MESSAGE); /* the checksum is looked at in any case */
    buf_free(&b);
    buf_free(&out);
}

static void test_no_memory(void **state)
{
    static const enum kafka_codec codecs[] = {KAFKA_CODEC_GZIP, KAFKA_CODEC_ZSTD};
    for (size_t i = 0; i < COUNT_OF(codecs); i++) {
        struct buf small = {0}, out = {0};
        uint64_t before = mem_bytes(MEM_BATCH);
        mem_fail_nth(1);
        assert_int_equal(kafka_deflate(codecs[i], SLICE("hello"), &small), ERR_NOMEM);
        mem_fail_nth(0);
        assert_int_equal(kafka_deflate(codecs[i], SLICE("hello"), &small), OK);
        mem_fail_nth(1);
        assert_int_equal(kafka_inflate(codecs[i], buf_slice(&small), 10, &out), ERR_NOMEM);
        mem_fail_nth(0);
        assert_int_equal(mem_bytes(MEM_BATCH), before);
        buf_free(&small);
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc_vectors), cmocka_unit_test(test_crc_lengths), cmocka_unit_test(test_build), cmocka_unit_test(test_golden),
        cmocka_unit_test(test_place_and_stamp), cmocka_unit_test(test_marker), cmocka_unit_test(test_holes), cmocka_unit_test(test_parse),
        cmocka_unit_test(test_check_head), cmocka_unit_test(test_check_records), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_record_numbers), cmocka_unit_test(test_codecs), cmocka_unit_test(test_codecs_broken),
        cmocka_unit_test(test_snappy_raw), cmocka_unit_test(test_gzip_foreign), cmocka_unit_test(test_too_large), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("kafka_batch", tests, NULL, NULL);
}
