/* kafka_batch.c - record batches: heads, records, checks, building. The format is in kafka_batch.h.
 *
 * Records are walked with a cursor of two pointers and no copy. A record is sound when its fields fill exactly the length in front of it.
 */
#include "kafka_batch.h"
#include "crc32c.h"

#include <endian.h>

/* Where things stand in a batch. */
enum {
    AT_BASE_OFFSET = 0,
    AT_LENGTH = 8,
    AT_LEADER_EPOCH = 12,
    AT_MAGIC = 16,
    AT_CRC = 17,
    AT_ATTRIBUTES = 21, /* the checksum covers from here on */
    AT_LAST_OFFSET_DELTA = 23,
    AT_BASE_TIMESTAMP = 27,
    AT_MAX_TIMESTAMP = 35,
    AT_PRODUCER_ID = 43,
    AT_PRODUCER_EPOCH = 51,
    AT_BASE_SEQUENCE = 53,
    AT_COUNT = 57,
    LENGTH_END = 12, /* what the length counts begins here */
};

const struct kafka_batch kafka_batch_plain = {.leader_epoch = -1, .producer_id = -1, .producer_epoch = -1, .base_sequence = -1};

static inline uint16_t get16(const char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return be16toh(v);
}

static inline uint32_t get32(const char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static inline uint64_t get64(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static inline void put16(char *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof v);
}

static inline void put32(char *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
}

static inline void put64(char *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
}

/* ---- heads ---------------------------------------------------------------------------------------------------------- */

enum kafka_error kafka_batch_parse(struct slice bytes, struct kafka_batch *out)
{
    const char *p = bytes.p;
    *out = (struct kafka_batch){0};
    if (bytes.n < KAFKA_BATCH_LEAST)
        return KAFKA_CORRUPT_MESSAGE;
    int32_t length = (int32_t)get32(p + AT_LENGTH);
    out->base_offset = (int64_t)get64(p + AT_BASE_OFFSET);
    out->magic = (int8_t)p[AT_MAGIC];
    if (out->magic != 2) /* the byte stands at the same place in formats 0 and 1 */
        return KAFKA_INVALID_RECORD;
    if (length < KAFKA_BATCH_HEADER - LENGTH_END || (size_t)length > bytes.n - LENGTH_END || bytes.n < KAFKA_BATCH_HEADER)
        return KAFKA_CORRUPT_MESSAGE;
    out->bytes = (uint32_t)length + LENGTH_END;
    out->leader_epoch = (int32_t)get32(p + AT_LEADER_EPOCH);
    out->crc = get32(p + AT_CRC);
    out->attributes = get16(p + AT_ATTRIBUTES);
    out->last_offset_delta = (int32_t)get32(p + AT_LAST_OFFSET_DELTA);
    out->base_timestamp = (int64_t)get64(p + AT_BASE_TIMESTAMP);
    out->max_timestamp = (int64_t)get64(p + AT_MAX_TIMESTAMP);
    out->producer_id = (int64_t)get64(p + AT_PRODUCER_ID);
    out->producer_epoch = (int16_t)get16(p + AT_PRODUCER_EPOCH);
    out->base_sequence = (int32_t)get32(p + AT_BASE_SEQUENCE);
    out->count = (int32_t)get32(p + AT_COUNT);
    out->records = slice_of(p + KAFKA_BATCH_HEADER, out->bytes - KAFKA_BATCH_HEADER);
    return KAFKA_NONE;
}

static uint32_t crc_of(const char *p, uint32_t bytes)
{
    return crc32c(0, p + AT_ATTRIBUTES, bytes - AT_ATTRIBUTES);
}

bool kafka_batch_crc_ok(const char *p, const struct kafka_batch *b)
{
    return crc_of(p, b->bytes) == b->crc;
}

void kafka_batch_place(char *p, int64_t base_offset, int32_t leader_epoch)
{
    put64(p + AT_BASE_OFFSET, (uint64_t)base_offset);
    put32(p + AT_LEADER_EPOCH, (uint32_t)leader_epoch);
}

void kafka_batch_max_timestamp(char *p, int64_t ms)
{
    put64(p + AT_MAX_TIMESTAMP, (uint64_t)ms);
    put32(p + AT_CRC, crc_of(p, get32(p + AT_LENGTH) + LENGTH_END));
}

void kafka_batch_stamp(char *p, int64_t log_append_ms)
{
    put16(p + AT_ATTRIBUTES, get16(p + AT_ATTRIBUTES) | KAFKA_BATCH_LOG_APPEND);
    put64(p + AT_MAX_TIMESTAMP, (uint64_t)log_append_ms);
    put32(p + AT_CRC, crc_of(p, get32(p + AT_LENGTH) + LENGTH_END));
}

static void head_write(char *p, const struct kafka_batch *b)
{
    kafka_batch_place(p, b->base_offset, b->leader_epoch);
    put32(p + AT_LENGTH, b->bytes - LENGTH_END);
    p[AT_MAGIC] = 2;
    put16(p + AT_ATTRIBUTES, b->attributes);
    put32(p + AT_LAST_OFFSET_DELTA, (uint32_t)b->last_offset_delta);
    put64(p + AT_BASE_TIMESTAMP, (uint64_t)b->base_timestamp);
    put64(p + AT_MAX_TIMESTAMP, (uint64_t)b->max_timestamp);
    put64(p + AT_PRODUCER_ID, (uint64_t)b->producer_id);
    put16(p + AT_PRODUCER_EPOCH, (uint16_t)b->producer_epoch);
    put32(p + AT_BASE_SEQUENCE, (uint32_t)b->base_sequence);
    put32(p + AT_COUNT, (uint32_t)b->count);
    put32(p + AT_CRC, crc_of(p, b->bytes));
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

/* Bytes yet to be read. After a failure p is NULL and nothing is left. */
struct cursor {
    const char *p, *end;
};

static inline void cursor_fail(struct cursor *c) { c->p = c->end = NULL; }

static inline int64_t unzigzag(uint64_t v) { return (int64_t)(v >> 1 ^ -(v & 1)); }

/* A zigzag number of at most `bits` bits. */
static int64_t varint_long(struct cursor *c, unsigned bits)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < bits && c->p < c->end; shift += 7) {
        uint64_t byte = (uint8_t)*c->p++;
        if (shift + 7 > bits && (byte & 0x7f) >> (bits - shift))
            break;
        v |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return unzigzag(v);
    }
    cursor_fail(c);
    return 0;
}

/* The same, quick for one and two bytes: lengths to 8 KiB, and the offsets and times of nearly all batches. */
static inline int64_t varint_of(struct cursor *c, unsigned bits)
{
    if (LIKELY(c->end - c->p >= 2)) {
        uint64_t low = (uint8_t)c->p[0], high = (uint8_t)c->p[1];
        if (low < 0x80) {
            c->p++;
            return unzigzag(low);
        }
        if (LIKELY(high < 0x80)) {
            c->p += 2;
            return unzigzag((low & 0x7f) | high << 7);
        }
    }
    return varint_long(c, bits);
}

static inline int32_t varint(struct cursor *c) { return (int32_t)varint_of(c, 32); }

/* A length and so many bytes; -1 is null. */
static inline struct slice blob(struct cursor *c)
{
    int32_t n = varint(c);
    if (UNLIKELY(!c->p) || n == -1)
        return (struct slice){NULL, 0};
    if (UNLIKELY(n < 0 || n > c->end - c->p)) {
        cursor_fail(c);
        return (struct slice){NULL, 0};
    }
    c->p += n;
    return slice_of(c->p - n, (size_t)n);
}

static void header(struct cursor *c, struct kafka_header *out)
{
    out->key = blob(c);
    if (c->p && !out->key.p) /* the key of a header is not null */
        cursor_fail(c);
    out->value = blob(c);
}

/* Goes over the headers. A count that is a lie ends at the first header that is not there. */
static void headers(struct cursor *c, struct kafka_record *out)
{
    struct kafka_header skipped;
    out->headers_n = varint(c);
    if (out->headers_n < 0)
        cursor_fail(c);
    out->headers = slice_of(c->p, c->p ? (size_t)(c->end - c->p) : 0);
    for (int32_t i = 0; i < out->headers_n && c->p; i++)
        header(c, &skipped);
}

enum err kafka_record_next(struct slice *rest, struct kafka_record *out)
{
    struct cursor c = {rest->p, rest->p + rest->n};
    int32_t n = rest->n ? varint(&c) : -1;
    if (!c.p || n < 0 || n > c.end - c.p)
        return ERR_SYNTAX;
    c.end = c.p + n;
    if (n == 0)
        return ERR_SYNTAX;
    c.p++; /* attributes: none are defined */
    out->timestamp_delta = varint_of(&c, 64);
    out->offset_delta = varint(&c);
    out->key = blob(&c);
    out->value = blob(&c);
    headers(&c, out);
    if (!c.p || c.p != c.end)
        return ERR_SYNTAX;
    *rest = slice_of(c.end, (size_t)(rest->p + rest->n - c.end));
    return OK;
}

bool kafka_header_next(struct slice *rest, struct kafka_header *out)
{
    if (rest->n == 0)
        return false;
    struct cursor c = {rest->p, rest->p + rest->n};
    header(&c, out);
    if (!c.p)
        return false;
    *rest = slice_of(c.p, (size_t)(c.end - c.p));
    return true;
}

enum err kafka_batch_records(const struct kafka_batch *b, size_t limit, struct buf *scratch, struct slice *out)
{
    *out = b->records;
    if (kafka_batch_codec(b) == KAFKA_CODEC_NONE)
        return OK;
    size_t before = scratch->n;
    enum err e = kafka_inflate(kafka_batch_codec(b), b->records, limit, scratch);
    *out = e ? (struct slice){"", 0} : slice_of(scratch->p + before, scratch->n - before);
    return e;
}

/* ---- checks -------------------------------------------------------------------------------------------------------------- */

static enum kafka_error fault(struct kafka_batch_fault *why, enum kafka_error e, int32_t index, const char *text)
{
    why->why = text;
    why->index = index;
    return e;
}

/* As Kafka's LogValidator for batches that clients append, and what it leaves to luck: marks that only brokers set. */
static enum kafka_error check_head(const struct kafka_batch *b, struct kafka_batch_fault *why)
{
    if (b->count <= 0 || b->last_offset_delta < 0)
        return fault(why, KAFKA_INVALID_RECORD, -1, "the batch has no records, or a last offset before its first");
    if (b->count - 1 != b->last_offset_delta)
        return fault(why, KAFKA_INVALID_RECORD, -1, "the batch's count of records does not agree with its offsets");
    if (b->attributes & KAFKA_BATCH_CONTROL)
        return fault(why, KAFKA_INVALID_RECORD, -1, "clients may not write control batches");
    if (b->attributes & KAFKA_BATCH_DELETE_HORIZON)
        return fault(why, KAFKA_INVALID_RECORD, -1, "clients may not set a delete horizon");
    if (b->producer_id >= 0 && (b->base_sequence < 0 || b->producer_epoch < 0))
        return fault(why, KAFKA_INVALID_RECORD, -1, "the batch has a producer id, and a negative sequence number or epoch");
    if (b->producer_id < 0 && b->attributes & KAFKA_BATCH_TRANSACTIONAL)
        return fault(why, KAFKA_INVALID_RECORD, -1, "the batch is transactional and has no producer id");
    if ((b->attributes & KAFKA_BATCH_CODEC) >= KAFKA_CODECS)
        return fault(why, KAFKA_UNSUPPORTED_COMPRESSION_TYPE, -1, "the batch's compression is not known");
    if (b->attributes & KAFKA_BATCH_LOG_APPEND)
        return fault(why, KAFKA_INVALID_TIMESTAMP, -1, "clients may not set log append time");
    return KAFKA_NONE;
}

static enum kafka_error check_records(const struct kafka_batch *b, struct slice rest, struct kafka_batch_fault *why)
{
    struct kafka_record record;
    int64_t most = INT64_MIN;
    for (int32_t i = 0; i < b->count; i++) {
        if (kafka_record_next(&rest, &record))
            return fault(why, KAFKA_INVALID_RECORD, i, "the record is malformed, or missing");
        if (record.offset_delta != i)
            return fault(why, KAFKA_INVALID_RECORD, i, "the record's offset does not follow the one before it");
        if (!record.key.p && why->null_key < 0)
            why->null_key = i;
        most = MAX(most, record.timestamp_delta);
    }
    if (rest.n)
        return fault(why, KAFKA_INVALID_RECORD, -1, "bytes are left behind the batch's records");
    if (__builtin_add_overflow(b->base_timestamp, most, &why->max_timestamp))
        return fault(why, KAFKA_INVALID_TIMESTAMP, -1, "a record's timestamp is beyond what fits");
    return KAFKA_NONE;
}

enum kafka_error kafka_batch_check(const char *p, const struct kafka_batch *b, bool records, struct kafka_batch_fault *why)
{
    *why = (struct kafka_batch_fault){.index = -1, .null_key = -1, .max_timestamp = b->max_timestamp};
    if (!kafka_batch_crc_ok(p, b))
        return fault(why, KAFKA_CORRUPT_MESSAGE, -1, "the batch's checksum is wrong");
    enum kafka_error e = check_head(b, why);
    if (e || !records)
        return e;
    struct buf scratch = {0};
    struct slice plain;
    switch (kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &scratch, &plain)) {
    case ERR_OK: e = check_records(b, plain, why); break;
    case ERR_LIMIT: e = fault(why, KAFKA_MESSAGE_TOO_LARGE, -1, "the batch's records are too large when they are decompressed"); break;
    case ERR_UNSUPPORTED: e = fault(why, KAFKA_UNSUPPORTED_COMPRESSION_TYPE, -1, "the batch is compressed with snappy, and libsnappy is not installed here"); break;
    case ERR_NOMEM: e = fault(why, KAFKA_UNKNOWN_SERVER_ERROR, -1, "there is no memory to decompress the batch"); break;
    default: e = fault(why, KAFKA_INVALID_RECORD, -1, "the batch's records cannot be decompressed"); break;
    }
    buf_free(&scratch);
    return e;
}

/* ---- building ---------------------------------------------------------------------------------------------------------------- */

#define VARINT_MAX 10 /* bytes of a 64-bit one */
#define RECORD_HEAD_MAX (5 + 1 + VARINT_MAX + 5)

static size_t zigzag_size(int64_t v)
{
    size_t n = 1;
    for (uint64_t u = (uint64_t)v << 1 ^ (uint64_t)(v >> 63); u >= 0x80; u >>= 7)
        n++;
    return n;
}

static void add_zigzag(struct buf *b, int64_t v)
{
    char bytes[VARINT_MAX];
    size_t n = 0;
    uint64_t u = (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
    for (; u >= 0x80; u >>= 7)
        bytes[n++] = (char)(u | 0x80);
    bytes[n++] = (char)u;
    buf_add(b, bytes, n);
}

static size_t blob_size(struct slice s)
{
    return zigzag_size(s.p ? (int64_t)s.n : -1) + s.n;
}

static void add_blob(struct buf *b, struct slice s)
{
    add_zigzag(b, s.p ? (int64_t)s.n : -1);
    buf_add_slice(b, s);
}

void kafka_batch_begin(struct kafka_batch_builder *k, struct buf *b, const struct kafka_batch *head)
{
    static const char zeros[KAFKA_BATCH_HEADER];
    *k = (struct kafka_batch_builder){.b = b, .at = b->n, .head = *head};
    k->head.count = 0;
    k->head.last_offset_delta = -1;
    k->head.max_timestamp = -1;
    buf_add(b, zeros, sizeof zeros);
}

/* A record up to its headers' count; more follow, headers_bytes of them. */
static void add_record(struct kafka_batch_builder *k, int64_t timestamp, const struct kafka_record *r, size_t headers_bytes)
{
    struct buf *b = k->b;
    int64_t timestamp_delta = (int64_t)((uint64_t)timestamp - (uint64_t)k->head.base_timestamp);
    size_t n = 1 + zigzag_size(timestamp_delta) + zigzag_size(r->offset_delta) + blob_size(r->key) + blob_size(r->value) +
               zigzag_size(r->headers_n) + headers_bytes;
    MUST(r->offset_delta > k->head.last_offset_delta);
    buf_reserve(b, RECORD_HEAD_MAX + n);
    add_zigzag(b, (int64_t)n);
    buf_addc(b, 0);
    add_zigzag(b, timestamp_delta);
    add_zigzag(b, r->offset_delta);
    add_blob(b, r->key);
    add_blob(b, r->value);
    add_zigzag(b, r->headers_n);
    k->head.last_offset_delta = r->offset_delta;
    k->head.max_timestamp = MAX(k->head.max_timestamp, timestamp);
    k->head.count++;
}

void kafka_batch_add(struct kafka_batch_builder *k, int64_t timestamp, struct slice key, struct slice value, const struct kafka_header *headers, int32_t headers_n)
{
    struct kafka_record r = {.offset_delta = k->head.last_offset_delta + 1, .key = key, .value = value, .headers_n = headers_n};
    size_t headers_bytes = 0;
    for (int32_t i = 0; i < headers_n; i++)
        headers_bytes += blob_size(headers[i].key) + blob_size(headers[i].value);
    add_record(k, timestamp, &r, headers_bytes);
    for (int32_t i = 0; i < headers_n; i++) {
        MUST(headers[i].key.p);
        add_blob(k->b, headers[i].key);
        add_blob(k->b, headers[i].value);
    }
}

void kafka_batch_add_at(struct kafka_batch_builder *k, int32_t offset_delta, int64_t timestamp, const struct kafka_record *record)
{
    struct kafka_record r = *record;
    r.offset_delta = offset_delta;
    add_record(k, timestamp, &r, r.headers.n);
    buf_add_slice(k->b, r.headers);
}

/* Puts the compressed records in place of the plain ones. */
static enum err compress(struct kafka_batch_builder *k, enum kafka_codec codec)
{
    struct buf small = {0};
    size_t records_at = k->at + KAFKA_BATCH_HEADER;
    enum err e = kafka_deflate(codec, slice_of(k->b->p + records_at, k->b->n - records_at), &small);
    if (!e) {
        k->b->n = records_at;
        buf_add_slice(k->b, buf_slice(&small));
    }
    buf_free(&small);
    return e;
}

enum err kafka_batch_end(struct kafka_batch_builder *k, enum kafka_codec codec)
{
    enum err e = codec == KAFKA_CODEC_NONE ? OK : compress(k, codec);
    size_t n = k->b->n - k->at;
    if (!e && n > INT32_MAX)
        e = ERR_LIMIT;
    if (e) {
        k->b->n = k->at;
        k->b->p[k->at] = '\0';
        return e;
    }
    k->head.bytes = (uint32_t)n;
    k->head.attributes = (uint16_t)((k->head.attributes & ~KAFKA_BATCH_CODEC) | (unsigned)codec);
    head_write(k->b->p + k->at, &k->head);
    return OK;
}

/* ---- transaction markers --------------------------------------------------------------------------------------------------------- */

/* Key: version and type; value: version and the coordinator's epoch (KIP-98). Both versions are 0. */
void kafka_batch_marker(struct buf *b, const struct kafka_batch *head, enum kafka_marker marker, int32_t coordinator_epoch)
{
    struct kafka_batch_builder k;
    struct kafka_batch h = *head;
    char key[4] = {0}, value[6] = {0};
    put16(key + 2, (uint16_t)marker);
    put32(value + 2, (uint32_t)coordinator_epoch);
    h.attributes = KAFKA_BATCH_CONTROL | KAFKA_BATCH_TRANSACTIONAL;
    h.base_sequence = -1;
    kafka_batch_begin(&k, b, &h);
    kafka_batch_add(&k, h.base_timestamp, slice_of(key, sizeof key), slice_of(value, sizeof value), NULL, 0);
    enum err e = kafka_batch_end(&k, KAFKA_CODEC_NONE);
    MUST(!e); /* nothing is compressed, and it is small */
}

bool kafka_batch_marker_read(const struct kafka_batch *b, enum kafka_marker *marker, int32_t *coordinator_epoch)
{
    struct slice rest = b->records;
    struct kafka_record r;
    if (!(b->attributes & KAFKA_BATCH_CONTROL) || kafka_batch_codec(b) != KAFKA_CODEC_NONE || kafka_record_next(&rest, &r))
        return false;
    if (r.key.n < 4 || r.value.n < 6 || get16(r.key.p + 2) > KAFKA_MARKER_COMMIT)
        return false;
    *marker = (enum kafka_marker)get16(r.key.p + 2);
    *coordinator_epoch = (int32_t)get32(r.value.p + 2);
    return true;
}
