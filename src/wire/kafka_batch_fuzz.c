/* kafka_batch_fuzz.c - record batches from any bytes: checks never read outside, and a batch that passes can be built again from its records.
 *
 * The checksum is made right, or every input would end there; the first byte says which codec's bytes follow, and whether a batch follows or
 * only compressed records.
 */
#include "crc32c.h"
#include "kafka_batch.h"

#define INFLATE_BYTES_MAX (1u * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Compressed bytes by themselves: what comes out is within the limit, and goes there and back. */
static void check_codec(enum kafka_codec codec, struct slice in)
{
    struct buf out = {0}, small = {0}, again = {0};
    enum err e = kafka_inflate(codec, in, INFLATE_BYTES_MAX, &out);
    MUST(e == OK ? out.n <= INFLATE_BYTES_MAX : out.n == 0);
    if (!e) {
        MUST(kafka_deflate(codec, buf_slice(&out), &small) == OK);
        MUST(kafka_inflate(codec, buf_slice(&small), out.n, &again) == OK);
        MUST(slice_eq(buf_slice(&out), buf_slice(&again)));
    }
    buf_free(&out);
    buf_free(&small);
    buf_free(&again);
}

static void check_headers(const struct kafka_record *r)
{
    struct slice rest = r->headers;
    struct kafka_header h;
    int32_t n = 0;
    while (kafka_header_next(&rest, &h)) {
        MUST(h.key.p);
        n++;
    }
    MUST(n == r->headers_n && rest.n == 0);
}

/* A batch that passed, built again from its records: they say the same, whatever bytes said it. */
static void check_again(const struct kafka_batch *head, struct slice rest)
{
    struct kafka_batch_builder k;
    struct kafka_batch again;
    struct kafka_batch_fault why;
    struct kafka_record r;
    struct buf b = {0};
    kafka_batch_begin(&k, &b, head);
    while (rest.n) {
        MUST(kafka_record_next(&rest, &r) == OK);
        check_headers(&r);
        kafka_batch_add_at(&k, r.offset_delta, (int64_t)((uint64_t)head->base_timestamp + (uint64_t)r.timestamp_delta), &r);
    }
    MUST(kafka_batch_end(&k, kafka_batch_codec(head)) == OK);
    MUST(kafka_batch_parse(buf_slice(&b), &again) == KAFKA_NONE && again.bytes == b.n && again.count == head->count);
    MUST(kafka_batch_check(b.p, &again, true, &why) == KAFKA_NONE);
    buf_free(&b);
}

static void check_batch(char *p, size_t n)
{
    struct kafka_batch head;
    struct kafka_batch_fault why;
    struct buf scratch = {0};
    struct slice rest;
    if (kafka_batch_parse(slice_of(p, n), &head) != KAFKA_NONE)
        return;
    MUST(head.bytes >= KAFKA_BATCH_HEADER && head.bytes <= n);
    uint32_t crc = crc32c(0, p + 21, head.bytes - 21);
    for (int i = 0; i < 4; i++)
        p[17 + i] = (char)(crc >> (24 - 8 * i));
    MUST(kafka_batch_parse(slice_of(p, n), &head) == KAFKA_NONE && kafka_batch_crc_ok(p, &head));
    enum kafka_error e = kafka_batch_check(p, &head, true, &why);
    MUST((e == KAFKA_NONE) == (why.why == NULL) && why.index >= -1 && why.null_key < MAX(head.count, 0));
    if (e == KAFKA_NONE && kafka_batch_records(&head, INFLATE_BYTES_MAX, &scratch, &rest) == OK)
        check_again(&head, rest);
    buf_free(&scratch);
    enum kafka_marker marker;
    int32_t epoch;
    (void)kafka_batch_marker_read(&head, &marker, &epoch);
    kafka_batch_stamp(p, 1);
    MUST(kafka_batch_parse(slice_of(p, n), &head) == KAFKA_NONE && kafka_batch_crc_ok(p, &head));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    if (data[0] < KAFKA_CODECS) {
        check_codec((enum kafka_codec)data[0], slice_of((const char *)data + 1, n - 1));
        return 0;
    }
    char *copy = mem_grow(MEM_MISC, NULL, n); /* exact, and ours to change */
    memcpy(copy, data + 1, n - 1);
    check_batch(copy, n - 1);
    mem_free(copy);
    return 0;
}
