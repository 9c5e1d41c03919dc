/* kafka_peer.c - Kafka messages with contents by chance, for any schema. */
#include "kafka_peer.h"

#define ELEMENTS_MAX 4   /* of an array, as a rule */
#define MANY 130         /* now and then: counts and lengths of two bytes when they are compact */
#define BLOB_BYTES_MAX 12

static void fill_struct(const struct kafka_schema *s, int version, uint64_t *seed, struct arena *a, char *out);

uint64_t kafka_chance(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static bool one_in(uint64_t *seed, unsigned n)
{
    return kafka_chance(seed) % n == 0;
}

static bool within(int version, int first, int last)
{
    return version >= first && version <= last;
}

/* Small numbers, all ones, and any. */
static uint64_t number(uint64_t *seed)
{
    uint64_t v = kafka_chance(seed);
    switch (v % 4) {
    case 0: return v >> 56;
    case 1: return UINT64_MAX;
    default: return v;
    }
}

static struct slice blob(uint64_t *seed, struct arena *a, bool null)
{
    if (null && one_in(seed, 4))
        return (struct slice){NULL, 0};
    size_t n = one_in(seed, 32) ? MANY : kafka_chance(seed) % BLOB_BYTES_MAX;
    char *p = arena_alloc(a, n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)kafka_chance(seed);
    return slice_of(p, n);
}

static void fill_value(const struct kafka_field *f, int version, uint64_t *seed, struct arena *a, char *out)
{
    uint64_t v = number(seed);
    switch ((enum kafka_type)f->type) {
    case KAFKA_TYPE_BOOL: *(bool *)(void *)out = v & 1; break;
    case KAFKA_TYPE_INT8: *(int8_t *)(void *)out = (int8_t)v; break;
    case KAFKA_TYPE_INT16:
    case KAFKA_TYPE_UINT16: *(uint16_t *)(void *)out = (uint16_t)v; break;
    case KAFKA_TYPE_INT32:
    case KAFKA_TYPE_UINT32: *(uint32_t *)(void *)out = (uint32_t)v; break;
    case KAFKA_TYPE_INT64:
    case KAFKA_TYPE_FLOAT64: *(uint64_t *)(void *)out = v; break;
    case KAFKA_TYPE_UUID:
        memcpy(out, &v, sizeof v);
        v = number(seed);
        memcpy(out + sizeof v, &v, sizeof v);
        break;
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES: *(struct slice *)(void *)out = blob(seed, a, within(version, f->null_first, f->null_last)); break;
    case KAFKA_TYPE_RECORDS:
        *(struct kafka_records *)(void *)out = (struct kafka_records){.bytes = blob(seed, a, within(version, f->null_first, f->null_last))};
        break;
    case KAFKA_TYPE_STRUCT: fill_struct(f->of, version, seed, a, out); break;
    }
}

static size_t size_of(const struct kafka_field *f)
{
    switch ((enum kafka_type)f->type) {
    case KAFKA_TYPE_BOOL:
    case KAFKA_TYPE_INT8: return 1;
    case KAFKA_TYPE_INT16:
    case KAFKA_TYPE_UINT16: return 2;
    case KAFKA_TYPE_INT32:
    case KAFKA_TYPE_UINT32: return 4;
    case KAFKA_TYPE_INT64:
    case KAFKA_TYPE_FLOAT64: return 8;
    case KAFKA_TYPE_UUID: return sizeof(struct kafka_uuid);
    case KAFKA_TYPE_STRING:
    case KAFKA_TYPE_BYTES: return sizeof(struct slice);
    case KAFKA_TYPE_RECORDS: return sizeof(struct kafka_records);
    case KAFKA_TYPE_STRUCT: return f->of->size;
    }
    return 0;
}

static void fill_array(const struct kafka_field *f, int version, uint64_t *seed, struct arena *a, char *out)
{
    int32_t n = (int32_t)(kafka_chance(seed) % ELEMENTS_MAX);
    if (f->type != KAFKA_TYPE_STRUCT && one_in(seed, 16))
        n = MANY;
    if (within(version, f->null_first, f->null_last) && one_in(seed, 4))
        n = -1;
    char *x = n > 0 ? arena_zalloc(a, (size_t)n * size_of(f)) : NULL;
    memcpy(out, &x, sizeof x);
    memcpy(out + sizeof x, &n, sizeof n);
    for (int32_t i = 0; i < n; i++)
        fill_value(f, version, seed, a, x + (size_t)i * size_of(f));
}

static void fill_field(const struct kafka_field *f, int version, uint64_t *seed, struct arena *a, char *out)
{
    if (f->array) {
        fill_array(f, version, seed, a, out);
    } else if (f->type == KAFKA_TYPE_STRUCT && f->null_first <= f->null_last) {
        char *x = within(version, f->null_first, f->null_last) && one_in(seed, 3) ? NULL : arena_alloc(a, f->of->size);
        memcpy(out, &x, sizeof x);
        if (x)
            fill_struct(f->of, version, seed, a, x);
    } else {
        fill_value(f, version, seed, a, out);
    }
}

static void fill_struct(const struct kafka_schema *s, int version, uint64_t *seed, struct arena *a, char *out)
{
    kafka_schema_init(s, out);
    for (int i = 0; i < s->fields_n + s->tagged_n; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (within(version, f->first, f->last) && (f->tag < 0 || !one_in(seed, 3)))
            fill_field(f, version, seed, a, out + f->offset);
    }
}

void kafka_fill(const struct kafka_schema *s, int16_t version, uint64_t *seed, struct arena *a, void *out)
{
    fill_struct(s, version, seed, a, out);
}
