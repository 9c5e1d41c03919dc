/* h2_mem.c - memory for HTTP/2: what nghttp2 and the streams ask for, request by request.
 *
 * A request costs nghttp2 about a dozen small allocations. They come from free lists, one for each power of two and per
 * thread, so that a block that was just freed is the next one given: a few instructions, and warm. A block knows its list by
 * the word in front of it. With a sanitizer each block is its own allocation instead, so that it sees what is wrong.
 */
#include "h2_int.h"

#define STEP 64u           /* small blocks have a list for every 64 bytes: a line of the cache, so that the next block lies beside it */
#define STEPS_BITS 10      /* up to 1 KiB; above that a list for each power of two */
#define STEPS ((1u << STEPS_BITS) / STEP)
#define CLASS_MAX_BITS 15  /* 32 KiB; above that base is asked each time */
#define CLASSES (STEPS + CLASS_MAX_BITS - STEPS_BITS)
#define KEPT_BYTES_MAX (4u << 20) /* of each thread; more are given back */

/* In front of each block; 16 bytes, so that what follows is aligned for anything. */
struct front {
    union {
        struct front *next; /* on a free list */
        size_t size;        /* of a block of no class */
    };
    uint64_t class;
};

static _Thread_local struct {
    struct front *free[CLASSES];
    size_t kept_bytes;
    int users;
} pool;

static unsigned class_of(size_t size)
{
    if (LIKELY(size <= STEPS * STEP))
        return (unsigned)((size - 1) / STEP);
    return STEPS - 1 + (64 - (unsigned)__builtin_clzll(size - 1)) - STEPS_BITS;
}

static size_t class_bytes(unsigned class) { return class < STEPS ? (class + 1) * STEP : (size_t)1 << (class - (STEPS - 1) + STEPS_BITS); }

void *h2_get(size_t size)
{
    unsigned class = class_of(size + sizeof(struct front));
    struct front *f;
    if (LIKELY(!SANITIZED && class < CLASSES)) {
        f = pool.free[class];
        if (LIKELY(f != NULL)) {
            pool.free[class] = f->next;
            __builtin_prefetch(f->next, 1); /* the next one asked for will not wait for memory */
            pool.kept_bytes -= class_bytes(class);
        } else if (!(f = mem_try(MEM_CONN, class_bytes(class))))
            return NULL;
    } else {
        if (!(f = mem_try(MEM_CONN, size + sizeof *f)))
            return NULL;
        class = CLASSES;
        f->size = size;
    }
    f->class = class;
    return f + 1;
}

void h2_put(void *p)
{
    if (!p)
        return;
    struct front *f = (struct front *)p - 1;
    uint64_t class = f->class;
    if (class >= CLASSES || pool.kept_bytes >= KEPT_BYTES_MAX) {
        mem_free(f);
        return;
    }
    f->next = pool.free[class];
    pool.free[class] = f;
    pool.kept_bytes += class_bytes((unsigned)class);
}

void h2_mem_user(int change)
{
    pool.users += change;
    if (pool.users)
        return;
    for (unsigned i = 0; i < CLASSES; i++) {
        for (struct front *f = pool.free[i], *next; f; f = next) {
            next = f->next;
            mem_free(f);
        }
        pool.free[i] = NULL;
    }
    pool.kept_bytes = 0;
}

/* ---- for nghttp2 ---------------------------------------------------------------------------------------------------- */

static void *ng_get(size_t size, void *user) { return h2_get(size); }
static void ng_put(void *p, void *user) { h2_put(p); }

static void *ng_get_zeroed(size_t n, size_t size, void *user)
{
    void *p = n && size > SIZE_MAX / 2 / n ? NULL : h2_get(n * size);
    return p ? memset(p, 0, n * size) : NULL;
}

static void *ng_resize(void *p, size_t size, void *user)
{
    if (!p)
        return h2_get(size);
    const struct front *f = (struct front *)p - 1;
    size_t have = f->class < CLASSES ? class_bytes((unsigned)f->class) - sizeof *f : f->size;
    if (size <= have)
        return p;
    void *bigger = h2_get(size);
    if (!bigger)
        return NULL;
    memcpy(bigger, p, have);
    h2_put(p);
    return bigger;
}

nghttp2_mem h2_ng_mem = {NULL, ng_get, ng_put, ng_get_zeroed, ng_resize};

/* ---- queues ----------------------------------------------------------------------------------------------------------- */

#define CHUNK_MIN 512u
#define CHUNK_MAX (16384u - sizeof(struct front))

bool h2_queue_add(struct h2_queue *q, const void *p, size_t n)
{
    const char *from = p;
    while (n) {
        struct h2_chunk *c = q->last;
        if (!c || c->to == c->cap) {
            size_t size = MIN(MAX(n + sizeof *c, CHUNK_MIN), CHUNK_MAX);
            if (!(c = h2_get(size)))
                return false;
            *c = (struct h2_chunk){.cap = (uint32_t)(size - sizeof *c)};
            if (q->last)
                q->last->next = c;
            else
                q->first = c;
            q->last = c;
        }
        size_t take = MIN(n, (size_t)(c->cap - c->to));
        memcpy(c->bytes + c->to, from, take);
        c->to += (uint32_t)take;
        q->bytes += take;
        from += take;
        n -= take;
    }
    return true;
}

void h2_queue_take(struct h2_queue *q, size_t n)
{
    q->bytes -= n;
    while (n) {
        struct h2_chunk *c = q->first;
        size_t take = MIN(n, (size_t)(c->to - c->from));
        c->from += (uint32_t)take;
        n -= take;
        if (c->from < c->to)
            return;
        q->first = c->next;
        if (!q->first)
            q->last = NULL;
        h2_put(c);
    }
}

void h2_queue_clear(struct h2_queue *q) { h2_queue_take(q, q->bytes); }
