/* kafka_msg_fuzz.c - Kafka messages from any bytes: what is read can be written, and read again it is the same.
 *
 * The first byte chooses: 0 a request, as it comes from a connection; 1 a response, behind its API's key and version; 2 a record format,
 * behind its number and version.
 */
#include "kafka.h"

#define DECODE_BYTES_MAX (4u * 1024 * 1024) /* so that one input takes little time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct kafka_schema *choose(struct kafka_reader *r, int16_t *version)
{
    int8_t what = kafka_read_int8(r);
    if (what == 2) {
        uint8_t number = (uint8_t)kafka_read_int8(r);
        *version = kafka_read_int8(r);
        return r->err ? NULL : kafka_record_schemas[number % kafka_record_schemas_n];
    }
    struct kafka_request_header h = {0};
    if (what == 1) {
        h.api_key = kafka_read_int16(r);
        h.api_version = kafka_read_int16(r);
    } else if (kafka_request_header_read(r, &h)) {
        return NULL;
    }
    const struct kafka_api *api = kafka_api_find(h.api_key);
    *version = h.api_version;
    return r->err || !api ? NULL : what == 1 ? api->response : api->request;
}

static void check_again(const struct kafka_schema *s, int16_t version, const void *m, size_t size, struct arena *a)
{
    struct buf b = {0};
    struct kafka_writer w;
    struct kafka_reader r;
    void *again = arena_alloc(a, s->size);
    kafka_writer_init(&w, &b);
    kafka_schema_write(s, &w, version, m);
    MUST(w.err == OK && w.gaps_n == 0 && b.n <= size); /* ours is never longer: no unknown tags, no idle varint bytes, no defaults in tags */
    kafka_reader_init(&r, buf_slice(&b));
    enum err e = kafka_schema_read(s, &r, version, a, again);
    MUST(e == OK && kafka_reader_left(&r) == 0 && kafka_schema_equal(s, m, again));
    kafka_writer_fini(&w);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int16_t version = 0;
    struct kafka_reader r;
    kafka_reader_init(&r, slice_of((const char *)data, n));
    const struct kafka_schema *s = choose(&r, &version);
    if (!s)
        return 0;
    struct arena a;
    arena_init(&a, MEM_MISC, 65536);
    void *m = arena_alloc(&a, s->size);
    r.decode_left = DECODE_BYTES_MAX;
    const char *start = r.p;
    if (kafka_schema_read(s, &r, version, &a, m) == OK)
        check_again(s, version, m, (size_t)(r.p - start), &a);
    else
        MUST(r.err == ERR_SYNTAX || r.err == ERR_LIMIT || (r.err == ERR_UNSUPPORTED && (version < s->first || version > s->last)));
    arena_fini(&a);
    return 0;
}
