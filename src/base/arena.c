/* arena.c - memory that is freed all at once.
 *
 *     head -> [prev|size| data ......used|.....free] -> prev -> [prev|size| data, full] -> NULL
 *
 * Allocation moves `used` in the newest chunk. What is larger than an ordinary chunk gets a chunk of its own, put behind the
 * head so that the head's free space is not lost. arena_reset() keeps one ordinary chunk, so a steady request path allocates
 * nothing. With WEIR_DEBUG_ARENA each allocation is a chunk of exactly its size, filled with a pattern, and reset keeps none:
 * AddressSanitizer then sees overflows and uses after a reset.
 */
#include "base.h"

#include <stdio.h>

#define ARENA_ALIGN 16
#define ARENA_PATTERN 0xa5

struct arena_chunk {
    struct arena_chunk *prev;
    size_t size; /* bytes of data[] */
    _Alignas(ARENA_ALIGN) char data[];
};

void arena_init(struct arena *a, enum mem_tag tag, size_t chunk_bytes)
{
    MUST(chunk_bytes >= ARENA_ALIGN);
    *a = (struct arena){.chunk_bytes = chunk_bytes, .tag = tag};
}

static struct arena_chunk *chunk_new(struct arena *a, size_t size)
{
    MUST(size <= PTRDIFF_MAX - sizeof(struct arena_chunk));
    struct arena_chunk *c = mem_grow(a->tag, NULL, sizeof *c + size);
    c->prev = NULL;
    c->size = size;
    return c;
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = NULL;
    for (struct arena_chunk *c = a->head, *prev; c; c = prev) {
        prev = c->prev;
#ifndef WEIR_DEBUG_ARENA
        if (!keep && c->size == a->chunk_bytes) {
            keep = c;
            keep->prev = NULL;
            continue;
        }
#endif
        mem_free(c);
    }
    a->head = keep;
    a->used = 0;
}

void arena_fini(struct arena *a)
{
    arena_reset(a);
    mem_free(a->head);
    a->head = NULL;
}

#ifdef WEIR_DEBUG_ARENA

void *arena_alloc(struct arena *a, size_t size)
{
    MUST(a->chunk_bytes); /* arena_init() was called */
    struct arena_chunk *c = chunk_new(a, size);
    c->prev = a->head;
    a->head = c;
    a->used = size;
    memset(c->data, ARENA_PATTERN, size);
    return c->data;
}

#else

static void *alloc_slow(struct arena *a, size_t size)
{
    MUST(a->chunk_bytes); /* arena_init() was called */
    if (size > a->chunk_bytes) {
        struct arena_chunk *big = chunk_new(a, size);
        if (a->head) {
            big->prev = a->head->prev;
            a->head->prev = big;
        } else {
            a->head = big;
            a->used = size;
        }
        return big->data;
    }
    struct arena_chunk *c = chunk_new(a, a->chunk_bytes);
    c->prev = a->head;
    a->head = c;
    a->used = size;
    return c->data;
}

void *arena_alloc(struct arena *a, size_t size)
{
    /* near the end of a chunk whose size is no multiple of ARENA_ALIGN, start may lie behind it */
    size_t start = (a->used + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (UNLIKELY(!a->head || start > a->head->size || size > a->head->size - start))
        return alloc_slow(a, size);
    a->used = start + size;
    return a->head->data + start;
}

#endif

void *arena_zalloc(struct arena *a, size_t size)
{
    void *p = arena_alloc(a, size);
    memset(p, 0, size);
    return p;
}

struct slice arena_slice(struct arena *a, struct slice s)
{
    char *copy = arena_alloc(a, s.n + 1);
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return slice_of(copy, s.n);
}

char *arena_strdup(struct arena *a, const char *s)
{
    return s ? (char *)arena_slice(a, slice_cstr(s)).p : NULL;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    MUST(fmt);
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    MUST(n >= 0); /* only a broken format fails */
    char *text = arena_alloc(a, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}
