/* kafka.c - reads and writes Kafka messages as their schemas say.
 *
 * One interpreter for all messages: it goes through a struct's fields in wire order and takes those that the version has. A field costs
 * a few nanoseconds more than in code made for its message, which is little beside the request's other costs, and the code of some
 * hundred messages stays small. Reading starts from a copy of the struct's defaults, so absent fields need no work.
 *
 * Lengths and counts by version (KIP-482):
 *
 *                     before `flexible`            from `flexible` on
 *     string          int16, -1 null               uvarint of n + 1, 0 null
 *     bytes, records  int32, -1 null               uvarint of n + 1, 0 null
 *     array           int32, -1 null               uvarint of n + 1, 0 null
 *     struct          its fields                   its fields, then tags: uvarint count, each uvarint tag, uvarint size, bytes
 *     nullable struct int8 -1 null, else 1         the same
 *
 * A count is believed only when that many elements of the fewest possible bytes fit into what is left, and when their structs fit into
 * what may still be allocated for this message.
 */
#include "kafka.h"

#include <endian.h>

#define KAFKA_HEADER_TAGS_NONE 0

/* ---- names ------------------------------------------------------------------------------------------------------- */

const char *kafka_error_name(int code)
{
    switch (code) {
#define X(name, value)                                                                                                             \
    case value:                                                                                                                    \
        return #name;
#include "kafka_errors.def"
#undef X
    default: return "UNKNOWN";
    }
}

const struct kafka_api *kafka_api_find(int16_t key)
{
    size_t low = 0, high = kafka_apis_n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (kafka_apis[middle].key == key)
            return &kafka_apis[middle];
        if (kafka_apis[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- primitive types, read --------------------------------------------------------------------------------------------- */

void kafka_reader_fail(struct kafka_reader *r, enum err e)
{
    if (r->err == OK)
        r->err = e;
    r->p = r->end;
}

/* The next n bytes, or NULL after a failure. */
static inline const char *take(struct kafka_reader *r, size_t n)
{
    const char *p = r->p;
    if (UNLIKELY(n > kafka_reader_left(r))) {
        kafka_reader_fail(r, ERR_SYNTAX);
        return NULL;
    }
    r->p += n;
    return p;
}

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

int8_t kafka_read_int8(struct kafka_reader *r)
{
    const char *p = take(r, 1);
    return p ? (int8_t)*p : 0;
}

int16_t kafka_read_int16(struct kafka_reader *r)
{
    const char *p = take(r, 2);
    return p ? (int16_t)get16(p) : 0;
}

int32_t kafka_read_int32(struct kafka_reader *r)
{
    const char *p = take(r, 4);
    return p ? (int32_t)get32(p) : 0;
}

int64_t kafka_read_int64(struct kafka_reader *r)
{
    const char *p = take(r, 8);
    return p ? (int64_t)get64(p) : 0;
}

struct kafka_uuid kafka_read_uuid(struct kafka_reader *r)
{
    struct kafka_uuid v = {{0}};
    const char *p = take(r, sizeof v.b);
    if (p)
        memcpy(v.b, p, sizeof v.b);
    return v;
}

/* A base-128 number of at most `bits` bits, the low seven first. */
static uint64_t read_varint(struct kafka_reader *r, unsigned bits)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < bits && r->p < r->end; shift += 7) {
        uint8_t byte = (uint8_t)*r->p++;
        uint64_t part = byte & 0x7f;
        if (shift + 7 > bits && part >> (bits - shift))
            break;
        v |= part << shift;
        if (byte < 0x80)
            return v;
    }
    kafka_reader_fail(r, ERR_SYNTAX);
    return 0;
}

uint32_t kafka_read_uvarint(struct kafka_reader *r)
{
    if (LIKELY(r->p < r->end && (uint8_t)*r->p < 0x80))
        return (uint8_t)*r->p++;
    return (uint32_t)read_varint(r, 32);
}

int32_t kafka_read_varint(struct kafka_reader *r)
{
    uint32_t v = kafka_read_uvarint(r);
    return (int32_t)(v >> 1 ^ -(v & 1));
}

int64_t kafka_read_varlong(struct kafka_reader *r)
{
    uint64_t v = read_varint(r, 64);
    return (int64_t)(v >> 1 ^ -(v & 1));
}

/* n bytes, where -1 means null. An empty slice that is not null has a p, even when the reader's bytes end here. */
static struct slice read_blob(struct kafka_reader *r, int64_t n)
{
    if (n == -1)
        return (struct slice){NULL, 0};
    if (n < 0) {
        kafka_reader_fail(r, ERR_SYNTAX);
        return (struct slice){NULL, 0};
    }
    const char *p = take(r, (size_t)n);
    return p ? slice_of(p, (size_t)n) : (struct slice){NULL, 0};
}

struct slice kafka_read_string(struct kafka_reader *r, bool compact)
{
    int64_t n = compact ? (int64_t)kafka_read_uvarint(r) - 1 : kafka_read_int16(r);
    if (UNLIKELY(n > KAFKA_STRING_MAX))
        kafka_reader_fail(r, ERR_SYNTAX);
    return UNLIKELY(r->err) ? (struct slice){NULL, 0} : read_blob(r, n);
}

struct slice kafka_read_bytes(struct kafka_reader *r, bool compact)
{
    int64_t n = compact ? (int64_t)kafka_read_uvarint(r) - 1 : kafka_read_int32(r);
    return UNLIKELY(r->err) ? (struct slice){NULL, 0} : read_blob(r, n);
}

void kafka_read_tags(struct kafka_reader *r)
{
    for (uint32_t n = kafka_read_uvarint(r); n > 0 && !r->err; n--) {
        (void)kafka_read_uvarint(r);
        (void)take(r, kafka_read_uvarint(r));
    }
}

/* ---- primitive types, written ----------------------------------------------------------------------------------------- */

/* Room for n bytes at the end of the buffer, which count from now on. The byte behind them may lack its NUL until finish(). */
static inline char *space(struct kafka_writer *w, size_t n)
{
    struct buf *b = w->b;
    if (UNLIKELY(b->cap - b->n <= n))
        buf_reserve(b, n);
    char *p = b->p + b->n;
    b->n += n;
    return p;
}

static inline void finish(struct kafka_writer *w)
{
    w->b->p[w->b->n] = '\0';
}

static inline void add8(struct kafka_writer *w, uint8_t v)
{
    *space(w, 1) = (char)v;
}

static inline void add16(struct kafka_writer *w, uint16_t v)
{
    v = htobe16(v);
    memcpy(space(w, sizeof v), &v, sizeof v);
}

static inline void add32(struct kafka_writer *w, uint32_t v)
{
    v = htobe32(v);
    memcpy(space(w, sizeof v), &v, sizeof v);
}

static inline void add64(struct kafka_writer *w, uint64_t v)
{
    v = htobe64(v);
    memcpy(space(w, sizeof v), &v, sizeof v);
}

static void add_varint(struct kafka_writer *w, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        add8(w, (uint8_t)(v | 0x80));
    add8(w, (uint8_t)v);
}

static void add_data(struct kafka_writer *w, const void *p, size_t n)
{
    char *to = space(w, n);
    if (n)
        memcpy(to, p, n);
}

static void add_string(struct kafka_writer *w, struct slice s, bool compact)
{
    if (UNLIKELY(s.n > KAFKA_STRING_MAX)) {
        w->err = ERR_LIMIT;
        s.n = KAFKA_STRING_MAX;
    }
    if (compact)
        add_varint(w, s.p ? s.n + 1 : 0);
    else
        add16(w, s.p ? (uint16_t)s.n : UINT16_MAX);
    add_data(w, s.p, s.n);
}

/* The length of bytes or records, or a count; -1 is null. */
static void add_length(struct kafka_writer *w, int64_t n, bool compact)
{
    if (compact)
        add_varint(w, (uint64_t)(n + 1));
    else
        add32(w, (uint32_t)n);
}

static void add_records(struct kafka_writer *w, const struct kafka_records *records, bool compact)
{
    if (UNLIKELY(records->bytes.n > INT32_MAX || records->outside_n > INT32_MAX - records->bytes.n)) {
        w->err = ERR_LIMIT;
        add_length(w, -1, compact);
        return;
    }
    bool null = !records->bytes.p && records->outside_n == 0;
    add_length(w, null ? -1 : (int64_t)(records->bytes.n + records->outside_n), compact);
    add_data(w, records->bytes.p, records->bytes.n);
    if (records->outside_n == 0)
        return;
    ARRAY_GROW(MEM_BUF, w->gaps, w->gaps_n, w->gaps_cap);
    w->gaps[w->gaps_n++] = (struct kafka_gap){.at = w->b->n, .bytes = records->outside_n, .outside = records->outside};
    w->gap_bytes += records->outside_n;
}

static void add_bytes(struct kafka_writer *w, struct slice s, bool compact)
{
    add_records(w, &(struct kafka_records){.bytes = s}, compact);
}

void kafka_write_int8(struct kafka_writer *w, int8_t v)
{
    add8(w, (uint8_t)v);
    finish(w);
}

void kafka_write_int16(struct kafka_writer *w, int16_t v)
{
    add16(w, (uint16_t)v);
    finish(w);
}

void kafka_write_int32(struct kafka_writer *w, int32_t v)
{
    add32(w, (uint32_t)v);
    finish(w);
}

void kafka_write_int64(struct kafka_writer *w, int64_t v)
{
    add64(w, (uint64_t)v);
    finish(w);
}

void kafka_write_uvarint(struct kafka_writer *w, uint32_t v)
{
    add_varint(w, v);
    finish(w);
}

void kafka_write_varint(struct kafka_writer *w, int32_t v)
{
    add_varint(w, (uint32_t)v << 1 ^ (uint32_t)(v >> 31));
    finish(w);
}

void kafka_write_varlong(struct kafka_writer *w, int64_t v)
{
    add_varint(w, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
    finish(w);
}

void kafka_write_uuid(struct kafka_writer *w, struct kafka_uuid v)
{
    add_data(w, v.b, sizeof v.b);
    finish(w);
}

void kafka_write_string(struct kafka_writer *w, struct slice s, bool compact)
{
    add_string(w, s, compact);
    finish(w);
}

void kafka_write_bytes(struct kafka_writer *w, struct slice s, bool compact)
{
    add_bytes(w, s, compact);
    finish(w);
}

void kafka_writer_reset(struct kafka_writer *w)
{
    w->gaps_n = 0;
    w->gap_bytes = 0;
    w->err = OK;
}

void kafka_writer_fini(struct kafka_writer *w)
{
    mem_free(w->gaps);
    *w = (struct kafka_writer){.b = w->b};
}

/* ---- frames and headers ------------------------------------------------------------------------------------------------- */

struct kafka_frame kafka_frame_begin(struct kafka_writer *w)
{
    struct kafka_frame frame = {.at = w->b->n, .gap_bytes = w->gap_bytes};
    kafka_write_int32(w, 0);
    return frame;
}

void kafka_frame_end(struct kafka_writer *w, struct kafka_frame frame)
{
    uint64_t n = w->b->n - frame.at - sizeof(int32_t) + (w->gap_bytes - frame.gap_bytes);
    if (UNLIKELY(n > INT32_MAX)) {
        w->err = ERR_LIMIT;
        n = INT32_MAX;
    }
    uint32_t size = htobe32((uint32_t)n);
    memcpy(w->b->p + frame.at, &size, sizeof size);
}

/* Whether this version of an API is flexible. Above the last known version it is as in that. */
static bool is_flexible(int16_t api_key, int16_t version)
{
    const struct kafka_api *api = kafka_api_find(api_key);
    return api && version >= api->flexible;
}

enum err kafka_request_header_read(struct kafka_reader *r, struct kafka_request_header *out)
{
    out->api_key = kafka_read_int16(r);
    out->api_version = kafka_read_int16(r);
    out->correlation_id = kafka_read_int32(r);
    out->client_id = kafka_read_string(r, false); /* never compact: older brokers must be able to read it (KIP-511) */
    if (is_flexible(out->api_key, out->api_version))
        kafka_read_tags(r);
    return r->err;
}

void kafka_request_header_write(struct kafka_writer *w, const struct kafka_request_header *h)
{
    add16(w, (uint16_t)h->api_key);
    add16(w, (uint16_t)h->api_version);
    add32(w, (uint32_t)h->correlation_id);
    add_string(w, h->client_id, false);
    if (is_flexible(h->api_key, h->api_version))
        add8(w, KAFKA_HEADER_TAGS_NONE);
    finish(w);
}

static bool response_has_tags(int16_t api_key, int16_t version)
{
    return api_key != KAFKA_API_API_VERSIONS && is_flexible(api_key, version);
}

void kafka_response_header_write(struct kafka_writer *w, int16_t api_key, int16_t api_version, int32_t correlation_id)
{
    add32(w, (uint32_t)correlation_id);
    if (response_has_tags(api_key, api_version))
        add8(w, KAFKA_HEADER_TAGS_NONE);
    finish(w);
}

enum err kafka_response_header_read(struct kafka_reader *r, int16_t api_key, int16_t api_version, int32_t *correlation_id)
{
    *correlation_id = kafka_read_int32(r);
    if (response_has_tags(api_key, api_version))
        kafka_read_tags(r);
    return r->err;
}

/* ---- schemas: small questions ---------------------------------------------------------------------------------------------- */

/* Bytes of an element in C, and the fewest on the wire where lengths are not compact. */
static const struct {
    uint8_t c_bytes, wire_bytes;
} types[] = {
    [KAFKA_TYPE_BOOL] = {sizeof(bool), 1},       [KAFKA_TYPE_INT8] = {1, 1},    [KAFKA_TYPE_INT16] = {2, 2},
    [KAFKA_TYPE_UINT16] = {2, 2},                [KAFKA_TYPE_INT32] = {4, 4},   [KAFKA_TYPE_UINT32] = {4, 4},
    [KAFKA_TYPE_INT64] = {8, 8},                 [KAFKA_TYPE_FLOAT64] = {8, 8}, [KAFKA_TYPE_UUID] = {sizeof(struct kafka_uuid), 16},
    [KAFKA_TYPE_STRING] = {sizeof(struct slice), 2},
    [KAFKA_TYPE_BYTES] = {sizeof(struct slice), 4},
    [KAFKA_TYPE_RECORDS] = {sizeof(struct kafka_records), 4},
};

static inline size_t element_size(const struct kafka_field *f)
{
    return f->type == KAFKA_TYPE_STRUCT ? f->of->size : types[f->type].c_bytes;
}

/* The fewest bytes of an element on the wire. */
static size_t element_least(const struct kafka_field *f, int version, bool flexible)
{
    if (f->type == KAFKA_TYPE_STRUCT)
        return f->of->least[version - f->of->first];
    if (flexible && (f->type == KAFKA_TYPE_STRING || f->type == KAFKA_TYPE_BYTES))
        return 1;
    return types[f->type].wire_bytes;
}

static inline bool has(const struct kafka_field *f, int version)
{
    return version >= f->first && version <= f->last;
}

static inline bool may_be_null(const struct kafka_field *f, int version)
{
    return version >= f->null_first && version <= f->null_last;
}

/* A struct that may be null in some version is held by pointer. */
static inline bool is_pointer(const struct kafka_field *f)
{
    return f->null_first <= f->null_last;
}

/* The count of the array whose pointer is at `at`. */
static inline int32_t *count_of(const char *at)
{
    return (int32_t *)(void *)(at + sizeof(void *));
}

void kafka_schema_init(const struct kafka_schema *s, void *m)
{
    memcpy(m, s->defaults, s->size);
}

/* ---- schemas: reading -------------------------------------------------------------------------------------------------------- */

/* What stays the same while one message is read or written. */
struct context {
    struct arena *arena; /* reading only */
    int version;
    bool flexible;
};

static void read_struct(const struct context *c, struct kafka_reader *r, const struct kafka_schema *s, char *out);

static void *alloc(const struct context *c, struct kafka_reader *r, size_t n)
{
    if (UNLIKELY(n > r->decode_left)) {
        kafka_reader_fail(r, ERR_LIMIT);
        return NULL;
    }
    r->decode_left -= n;
    return arena_alloc(c->arena, n);
}

static inline void read_blob_field(const struct context *c, struct kafka_reader *r, const struct kafka_field *f, struct slice v, char *out)
{
    if (UNLIKELY(!v.p && !may_be_null(f, c->version)))
        kafka_reader_fail(r, ERR_SYNTAX);
    else
        memcpy(out, &v, sizeof v);
}

/* One value that is no array; `out` is its place. */
static void read_value(const struct context *c, struct kafka_reader *r, const struct kafka_field *f, char *out)
{
    switch ((enum kafka_type)f->type) {
    case KAFKA_TYPE_BOOL: *(bool *)(void *)out = kafka_read_int8(r) != 0; break;
    case KAFKA_TYPE_INT8: *(int8_t *)(void *)out = kafka_read_int8(r); break;
    case KAFKA_TYPE_INT16:
    case KAFKA_TYPE_UINT16: *(int16_t *)(void *)out = kafka_read_int16(r); break;
    case KAFKA_TYPE_INT32:
    case KAFKA_TYPE_UINT32: *(int32_t *)(void *)out = kafka_read_int32(r); break;
    case KAFKA_TYPE_INT64:
    case KAFKA_TYPE_FLOAT64: *(int64_t *)(void *)out = kafka_read_int64(r); break;
    case KAFKA_TYPE_UUID: *(struct kafka_uuid *)(void *)out = kafka_read_uuid(r); break;
    case KAFKA_TYPE_STRING: read_blob_field(c, r, f, kafka_read_string(r, c->flexible), out); break;
    case KAFKA_TYPE_BYTES: read_blob_field(c, r, f, kafka_read_bytes(r, c->flexible), out); break;
    case KAFKA_TYPE_RECORDS: /* `bytes` is its first member */
        *(struct kafka_records *)(void *)out = (struct kafka_records){0};
        read_blob_field(c, r, f, kafka_read_bytes(r, c->flexible), out);
        break;
    case KAFKA_TYPE_STRUCT: read_struct(c, r, f->of, out); break;
    }
}

/* The count in front of an array, or -1 for null; checked against the bytes that are there. */
static int64_t read_count(const struct context *c, struct kafka_reader *r, const struct kafka_field *f)
{
    int64_t n = c->flexible ? (int64_t)kafka_read_uvarint(r) - 1 : kafka_read_int32(r);
    if (r->err)
        return -1;
    if (n < (may_be_null(f, c->version) ? -1 : 0) || (n > 0 && (uint64_t)n > kafka_reader_left(r) / element_least(f, c->version, c->flexible)))
        kafka_reader_fail(r, ERR_SYNTAX);
    return n;
}

/* After a failure the count says how many elements were read. */
static void read_array(const struct context *c, struct kafka_reader *r, const struct kafka_field *f, char *out)
{
    void *none = NULL;
    size_t size = element_size(f);
    int64_t n = read_count(c, r, f);
    if (UNLIKELY(r->err))
        return;
    memcpy(out, &none, sizeof none);
    *count_of(out) = n < 0 ? -1 : 0;
    if (n <= 0)
        return;
    char *x = alloc(c, r, (size_t)n * size);
    if (UNLIKELY(!x))
        return;
    memcpy(out, &x, sizeof x);
    for (int32_t i = 0; i < n; i++, x += size) {
        read_value(c, r, f, x);
        if (UNLIKELY(r->err))
            break;
        *count_of(out) = i + 1;
    }
}

static void read_nullable_struct(const struct context *c, struct kafka_reader *r, const struct kafka_field *f, char *out)
{
    void *m = NULL;
    int8_t there = kafka_read_int8(r);
    if (UNLIKELY(r->err))
        return;
    if (there >= 0) {
        m = alloc(c, r, f->of->size);
        if (UNLIKELY(!m))
            return;
        read_struct(c, r, f->of, m);
    } else if (!may_be_null(f, c->version)) {
        kafka_reader_fail(r, ERR_SYNTAX);
    }
    memcpy(out, &m, sizeof m);
}

static inline void read_field(const struct context *c, struct kafka_reader *r, const struct kafka_field *f, char *out)
{
    if (f->array)
        read_array(c, r, f, out + f->offset);
    else if (f->type == KAFKA_TYPE_STRUCT && is_pointer(f))
        read_nullable_struct(c, r, f, out + f->offset);
    else
        read_value(c, r, f, out + f->offset);
}

/* One tagged field of exactly n bytes; skipped when this version has no such tag. */
static void read_tag(const struct context *c, struct kafka_reader *r, const struct kafka_schema *s, uint32_t tag, uint32_t n, char *out)
{
    const char *start = take(r, n);
    if (!start)
        return;
    for (int i = s->fields_n; i < s->fields_n + s->tagged_n; i++) {
        const struct kafka_field *f = &s->fields[i];
        if ((uint32_t)f->tag != tag || !has(f, c->version))
            continue;
        struct kafka_reader inner = {.p = start, .end = start + n, .decode_left = r->decode_left};
        read_field(c, &inner, f, out);
        r->decode_left = inner.decode_left;
        if (inner.err || inner.p != inner.end)
            kafka_reader_fail(r, inner.err ? inner.err : ERR_SYNTAX);
        return;
    }
}

static void read_struct_tags(const struct context *c, struct kafka_reader *r, const struct kafka_schema *s, char *out)
{
    for (uint32_t n = kafka_read_uvarint(r); UNLIKELY(n > 0) && !r->err; n--) {
        uint32_t tag = kafka_read_uvarint(r);
        uint32_t size = kafka_read_uvarint(r);
        read_tag(c, r, s, tag, size, out);
    }
}

static void read_struct(const struct context *c, struct kafka_reader *r, const struct kafka_schema *s, char *out)
{
    memcpy(out, s->defaults, s->size);
    const struct kafka_field *end = s->fields + s->fields_n;
    for (const struct kafka_field *f = s->fields; f < end && !r->err; f++)
        if (has(f, c->version))
            read_field(c, r, f, out);
    if (c->flexible)
        read_struct_tags(c, r, s, out);
}

enum err kafka_schema_read(const struct kafka_schema *s, struct kafka_reader *r, int16_t version, struct arena *a, void *out)
{
    const struct context c = {.arena = a, .version = version, .flexible = version >= s->flexible};
    if (version < s->first || version > s->last) {
        kafka_schema_init(s, out);
        kafka_reader_fail(r, ERR_UNSUPPORTED);
    } else {
        read_struct(&c, r, s, out);
    }
    return r->err;
}

/* ---- schemas: equality ------------------------------------------------------------------------------------------------------------ */

static bool blob_equal(const char *a, const char *b)
{
    struct slice x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return !x.p == !y.p && slice_eq(x, y);
}

static bool value_equal(const struct kafka_field *f, const char *a, const char *b)
{
    switch ((enum kafka_type)f->type) {
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES:
    case KAFKA_TYPE_RECORDS: return blob_equal(a, b);
    case KAFKA_TYPE_STRUCT: return kafka_schema_equal(f->of, a, b);
    default: return memcmp(a, b, types[f->type].c_bytes) == 0;
    }
}

static bool field_equal(const struct kafka_field *f, const char *a, const char *b)
{
    char *x, *y;
    if (!f->array && (f->type != KAFKA_TYPE_STRUCT || !is_pointer(f)))
        return value_equal(f, a, b);
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    if (!f->array)
        return x && y ? kafka_schema_equal(f->of, x, y) : x == y;
    if (*count_of(a) != *count_of(b))
        return false;
    size_t size = element_size(f);
    for (int32_t i = 0; i < *count_of(a); i++)
        if (!value_equal(f, x + (size_t)i * size, y + (size_t)i * size))
            return false;
    return true;
}

bool kafka_schema_equal(const struct kafka_schema *s, const void *a, const void *b)
{
    for (int i = 0; i < s->fields_n + s->tagged_n; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (!field_equal(f, (const char *)a + f->offset, (const char *)b + f->offset))
            return false;
    }
    return true;
}

/* ---- schemas: writing ---------------------------------------------------------------------------------------------------------------- */

static void write_struct(const struct context *c, struct kafka_writer *w, const struct kafka_schema *s, const char *m);

/* A null that this version does not allow is written as empty: the reader would drop the connection otherwise. */
static inline struct slice blob_of(const struct context *c, const struct kafka_field *f, const char *at)
{
    struct slice v;
    memcpy(&v, at, sizeof v);
    return v.p || may_be_null(f, c->version) ? v : SLICE("");
}

static void write_records(const struct context *c, struct kafka_writer *w, const struct kafka_field *f, const char *at)
{
    struct kafka_records records;
    memcpy(&records, at, sizeof records);
    if (records.outside_n == 0)
        records.bytes = blob_of(c, f, at);
    add_records(w, &records, c->flexible);
}

static void write_value(const struct context *c, struct kafka_writer *w, const struct kafka_field *f, const char *at)
{
    switch ((enum kafka_type)f->type) {
    case KAFKA_TYPE_BOOL: add8(w, *(const bool *)(const void *)at); break;
    case KAFKA_TYPE_INT8: add8(w, *(const uint8_t *)(const void *)at); break;
    case KAFKA_TYPE_INT16:
    case KAFKA_TYPE_UINT16: add16(w, *(const uint16_t *)(const void *)at); break;
    case KAFKA_TYPE_INT32:
    case KAFKA_TYPE_UINT32: add32(w, *(const uint32_t *)(const void *)at); break;
    case KAFKA_TYPE_INT64:
    case KAFKA_TYPE_FLOAT64: add64(w, *(const uint64_t *)(const void *)at); break;
    case KAFKA_TYPE_UUID: add_data(w, at, sizeof(struct kafka_uuid)); break;
    case KAFKA_TYPE_STRING: add_string(w, blob_of(c, f, at), c->flexible); break;
    case KAFKA_TYPE_BYTES: add_bytes(w, blob_of(c, f, at), c->flexible); break;
    case KAFKA_TYPE_RECORDS: write_records(c, w, f, at); break;
    case KAFKA_TYPE_STRUCT: write_struct(c, w, f->of, at); break;
    }
}

static void write_field(const struct context *c, struct kafka_writer *w, const struct kafka_field *f, const char *m)
{
    const char *at = m + f->offset, *x;
    if (!f->array && (f->type != KAFKA_TYPE_STRUCT || !is_pointer(f))) {
        write_value(c, w, f, at);
        return;
    }
    memcpy(&x, at, sizeof x);
    if (!f->array) {
        add8(w, x ? 1 : UINT8_MAX);
        if (x)
            write_struct(c, w, f->of, x);
        return;
    }
    int32_t n = *count_of(at);
    if (n < 0)
        n = may_be_null(f, c->version) ? -1 : 0;
    add_length(w, n, c->flexible);
    size_t size = element_size(f);
    for (int32_t i = 0; i < n; i++, x += size)
        write_value(c, w, f, x);
}

/* A tagged field's size stands before it. One byte is left for it; where it takes more, the field moves. */
static void write_tag(const struct context *c, struct kafka_writer *w, const struct kafka_field *f, const char *m)
{
    add_varint(w, (uint64_t)f->tag);
    size_t start = w->b->n + 1;
    add8(w, 0);
    write_field(c, w, f, m);
    size_t n = w->b->n - start, more = 0;
    for (size_t v = n; v >= 0x80; v >>= 7)
        more++;
    if (more) {
        (void)space(w, more);
        memmove(w->b->p + start + more, w->b->p + start, n);
    }
    size_t end = w->b->n;
    w->b->n = start - 1;
    add_varint(w, n);
    w->b->n = end;
}

/* A value that is its default to the bit needs no closer look. */
static bool at_default(const struct kafka_field *f, const char *at, const char *initial)
{
    size_t n = f->array ? sizeof(void *) + sizeof(int32_t) : is_pointer(f) && f->type == KAFKA_TYPE_STRUCT ? sizeof(void *) : element_size(f);
    return memcmp(at, initial, n) == 0 || field_equal(f, at, initial);
}

static void write_tags(const struct context *c, struct kafka_writer *w, const struct kafka_schema *s, const char *m)
{
    uint64_t wanted = 0; /* a bit for each that is not at its default */
    unsigned n = 0;
    const struct kafka_field *tagged = s->fields + s->fields_n;
    for (unsigned i = 0; i < s->tagged_n; i++) {
        const struct kafka_field *f = &tagged[i];
        if (has(f, c->version) && !at_default(f, m + f->offset, (const char *)s->defaults + f->offset)) {
            wanted |= UINT64_C(1) << i;
            n++;
        }
    }
    add_varint(w, n);
    for (unsigned i = 0; i < s->tagged_n; i++)
        if (wanted >> i & 1)
            write_tag(c, w, &tagged[i], m);
}

static void write_struct(const struct context *c, struct kafka_writer *w, const struct kafka_schema *s, const char *m)
{
    const struct kafka_field *end = s->fields + s->fields_n;
    for (const struct kafka_field *f = s->fields; f < end; f++)
        if (has(f, c->version))
            write_field(c, w, f, m);
    if (c->flexible)
        write_tags(c, w, s, m);
}

void kafka_schema_write(const struct kafka_schema *s, struct kafka_writer *w, int16_t version, const void *m)
{
    const struct context c = {.version = version, .flexible = version >= s->flexible};
    MUST(version >= s->first && version <= s->last);
    space(w, 0);
    write_struct(&c, w, s, m);
    finish(w);
}
