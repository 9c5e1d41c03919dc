/* etcd.c - the messages of etcd's v3 API over protobuf-c: an arena for its allocator, and a look at a message's depth before it recurses.
 *
 *     bytes -> nesting_check (a stack of ETCD_NESTING_MAX ends, no recursion) -> protobuf_c_message_unpack (arena, counted) -> struct
 *
 * The check reads only keys and lengths. It is stricter than protobuf-c nowhere but in depth and in fields of number 0 and groups, which
 * protobuf-c refuses itself.
 */
#include "etcd.h"

#define VARINT_BYTES_MAX 10
#define ALLOC_ALIGN 16u /* what the arena rounds to */

/* ---- depth --------------------------------------------------------------------------------------------------------- */

/* A message that is being looked through. */
struct level {
    const ProtobufCMessageDescriptor *d;
    const uint8_t *end;
};

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    *out = 0;
    for (uint32_t i = 0; i < VARINT_BYTES_MAX && *p < end; i++) {
        uint8_t b = *(*p)++;
        *out |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80))
            return true;
    }
    return false;
}

/* Passes over a value that is no message, or stops in front of the bytes of one: then *inner is what it is. */
static bool value_next(const struct level *l, const uint8_t **p, struct level *inner)
{
    uint64_t key, n = 0;
    inner->d = NULL;
    if (!varint(p, l->end, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX >> 3)
        return false;
    switch (key & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT: return varint(p, l->end, &n);
    case PROTOBUF_C_WIRE_TYPE_64BIT: n = 8; break;
    case PROTOBUF_C_WIRE_TYPE_32BIT: n = 4; break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!varint(p, l->end, &n))
            return false;
        break;
    default: return false; /* groups went with proto2 */
    }
    if (n > (size_t)(l->end - *p))
        return false;
    const ProtobufCFieldDescriptor *f =
        (key & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED ? protobuf_c_message_descriptor_get_field(l->d, (unsigned)(key >> 3)) : NULL;
    if (f && f->type == PROTOBUF_C_TYPE_MESSAGE)
        *inner = (struct level){f->descriptor, *p + n};
    else
        *p += n;
    return true;
}

static enum err nesting_check(const ProtobufCMessageDescriptor *d, struct slice bytes)
{
    struct level stack[ETCD_NESTING_MAX], inner;
    int depth = 0;
    const uint8_t *p = (const uint8_t *)bytes.p;
    stack[0] = (struct level){d, p + bytes.n};
    for (;;) {
        while (p == stack[depth].end)
            if (depth-- == 0)
                return OK;
        if (!value_next(&stack[depth], &p, &inner))
            return ERR_SYNTAX;
        if (!inner.d)
            continue;
        if (++depth == ETCD_NESTING_MAX)
            return ERR_LIMIT;
        stack[depth] = inner;
    }
}

/* ---- reading and writing ------------------------------------------------------------------------------------------- */

/* protobuf-c's allocator: what one message may take. */
struct decode_mem {
    struct arena *a;
    size_t left;
    bool over;
};

static void *decode_alloc(void *data, size_t size)
{
    struct decode_mem *m = data;
    size_t take = size + ALLOC_ALIGN; /* rounding, and none is free */
    if (take < size || take > m->left) {
        m->over = true;
        return NULL;
    }
    m->left -= take;
    return arena_alloc(m->a, size);
}

static void decode_free(void *data, void *p)
{
    (void)data, (void)p; /* the arena's owner */
}

enum err etcd_read_max(const ProtobufCMessageDescriptor *d, struct arena *a, struct slice bytes, size_t bytes_max, ProtobufCMessage **out)
{
    struct decode_mem mem = {.a = a, .left = bytes_max};
    ProtobufCAllocator alloc = {.alloc = decode_alloc, .free = decode_free, .allocator_data = &mem};
    static const uint8_t none[1];
    enum err e = bytes.n ? nesting_check(d, bytes) : OK;
    if (e)
        return e;
    ProtobufCMessage *m = protobuf_c_message_unpack(d, &alloc, bytes.n, bytes.n ? (const uint8_t *)bytes.p : none);
    if (!m)
        return mem.over ? ERR_LIMIT : ERR_SYNTAX;
    *out = m;
    return OK;
}

size_t etcd_bytes(const ProtobufCMessage *m) { return protobuf_c_message_get_packed_size(m); }

void etcd_write(const ProtobufCMessage *m, struct buf *b)
{
    size_t n = etcd_bytes(m);
    buf_reserve(b, n + 1);
    MUST(protobuf_c_message_pack(m, (uint8_t *)b->p + b->n) == n);
    b->n += n;
    b->p[b->n] = 0;
}

void etcd_write_frame(const ProtobufCMessage *m, struct buf *b)
{
    size_t at = grpc_frame_begin(b);
    etcd_write(m, b);
    grpc_frame_end(b, at);
}
