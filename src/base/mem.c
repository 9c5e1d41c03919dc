/* mem.c - tagged memory: the only place that calls malloc.
 *
 *     | size (8) | tag (4) | magic (4) | what the caller sees, aligned to 16 ...
 *
 * The header lets mem_free() give the bytes back to the right tag, and catches pointers that never came from here. Counters
 * are relaxed atomics on a cache line per tag: any thread may allocate, and any thread may read the sums, which are exact
 * once the other threads are quiet.
 */
#include "base.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MEM_MAGIC 0x4d656d21u
#define MEM_FREED 0x66726564u
#define MEM_EXIT_STATUS 71 /* EX_OSERR of sysexits.h */
#define TRIM_BYTES_MIN (2u << 20) /* free, below which mem_trim() leaves it */

struct mem_header {
    uint64_t size; /* the caller's bytes, without this header */
    uint32_t tag;
    uint32_t magic; /* MEM_MAGIC while alive, MEM_FREED after */
};
_Static_assert(sizeof(struct mem_header) == 16, "what follows the header must stay aligned to 16");

struct mem_counter {
    _Alignas(64) _Atomic uint64_t bytes;
    _Atomic uint64_t count;
};

static struct mem_counter counters[MEM_TAG_COUNT];
static _Atomic uint64_t fail_in; /* the fail_in-th mem_try() fails; 0: none */

static const char *const tag_helps[MEM_TAG_COUNT] = {
#define X(name, help) [MEM_##name] = help,
#include "mem_tag.def"
#undef X
};

static const char *const tag_ids[MEM_TAG_COUNT] = {
#define X(name, help) [MEM_##name] = #name,
#include "mem_tag.def"
#undef X
};

/* tag_ids in lower case, which the preprocessor cannot do: made at first use, read-only afterwards. */
#define TAG_NAME_MAX 16
static char tag_names[MEM_TAG_COUNT][TAG_NAME_MAX];
static pthread_once_t tag_names_once = PTHREAD_ONCE_INIT;

static void tag_names_fill(void)
{
    for (size_t t = 0; t < MEM_TAG_COUNT; t++) {
        MUST(strlen(tag_ids[t]) < TAG_NAME_MAX);
        for (size_t i = 0; tag_ids[t][i]; i++)
            tag_names[t][i] = ascii_lower(tag_ids[t][i]);
    }
}

const char *mem_tag_name(enum mem_tag t)
{
    MUST((unsigned)t < MEM_TAG_COUNT);
    pthread_once(&tag_names_once, tag_names_fill);
    return tag_names[t];
}

const char *mem_tag_help(enum mem_tag t)
{
    MUST((unsigned)t < MEM_TAG_COUNT);
    return tag_helps[t];
}

/* ---- accounting -------------------------------------------------------------------------------------------------- */

static void count_in(enum mem_tag t, uint64_t size)
{
    atomic_fetch_add_explicit(&counters[t].bytes, size, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters[t].count, 1, memory_order_relaxed);
}

static void count_out(enum mem_tag t, uint64_t size)
{
    atomic_fetch_sub_explicit(&counters[t].bytes, size, memory_order_relaxed);
    atomic_fetch_sub_explicit(&counters[t].count, 1, memory_order_relaxed);
}

static void *header_fill(struct mem_header *h, enum mem_tag t, size_t size)
{
    h->size = size;
    h->tag = t;
    h->magic = MEM_MAGIC;
    count_in(t, size);
    return h + 1;
}

static struct mem_header *header_of(void *p)
{
    struct mem_header *h = (struct mem_header *)p - 1;
    MUST(h->magic == MEM_MAGIC); /* not from mem_*, or freed already, or overrun from below */
    return h;
}

uint64_t mem_bytes(enum mem_tag t)
{
    MUST((unsigned)t < MEM_TAG_COUNT);
    return atomic_load_explicit(&counters[t].bytes, memory_order_relaxed);
}

uint64_t mem_count(enum mem_tag t)
{
    MUST((unsigned)t < MEM_TAG_COUNT);
    return atomic_load_explicit(&counters[t].count, memory_order_relaxed);
}

/* ---- allocating ---------------------------------------------------------------------------------------------------- */

void mem_fail_nth(uint64_t n)
{
    atomic_store(&fail_in, n);
}

/* Counts one mem_try() down; true when it is the one that is to fail. */
static bool fault_due(void)
{
    uint64_t n = atomic_load_explicit(&fail_in, memory_order_relaxed);
    while (UNLIKELY(n)) {
        if (atomic_compare_exchange_weak(&fail_in, &n, n - 1))
            return n == 1;
    }
    return false;
}

static _Noreturn void out_of_memory(enum mem_tag t, size_t size)
{
    char text[160];
    int n = snprintf(text, sizeof text, "weir: out of memory: %zu bytes for %s were refused, %llu are held; the process ends\n", size,
                     tag_ids[t], (unsigned long long)mem_bytes(t));
    ssize_t written = n > 0 ? write(STDERR_FILENO, text, MIN((size_t)n, sizeof text - 1)) : 0;
    (void)written;
    _exit(MEM_EXIT_STATUS);
}

static void *zeroed(enum mem_tag t, size_t size)
{
    MUST((unsigned)t < MEM_TAG_COUNT);
    if (UNLIKELY(size > PTRDIFF_MAX - sizeof(struct mem_header)))
        return NULL;
    struct mem_header *h = calloc(1, sizeof *h + size);
    return LIKELY(h) ? header_fill(h, t, size) : NULL;
}

void *mem_try(enum mem_tag t, size_t size)
{
    return UNLIKELY(fault_due()) ? NULL : zeroed(t, size);
}

void *mem_new(enum mem_tag t, size_t size)
{
    void *p = zeroed(t, size);
    if (UNLIKELY(!p))
        out_of_memory(t, size);
    return p;
}

void *mem_grow(enum mem_tag t, void *p, size_t size)
{
    MUST((unsigned)t < MEM_TAG_COUNT);
    struct mem_header *old = p ? header_of(p) : NULL;
    if (UNLIKELY(size > PTRDIFF_MAX - sizeof *old))
        out_of_memory(t, size);
    if (old)
        count_out((enum mem_tag)old->tag, old->size);
    struct mem_header *h = realloc(old, sizeof *h + size);
    if (UNLIKELY(!h))
        out_of_memory(t, size);
    return header_fill(h, t, size);
}

void mem_free(void *p)
{
    if (!p)
        return;
    struct mem_header *h = header_of(p);
    count_out((enum mem_tag)h->tag, h->size);
    h->magic = MEM_FREED;
    free(h);
}

void mem_wipe(void *p, size_t size)
{
    if (p)
        explicit_bzero(p, size);
}

char *mem_strndup(enum mem_tag t, const char *p, size_t n)
{
    char *copy = mem_grow(t, NULL, n + 1);
    if (n)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

char *mem_strdup(enum mem_tag t, const char *s)
{
    return s ? mem_strndup(t, s, strlen(s)) : NULL;
}

void mem_trim(void)
{
    if (mallinfo2().fordblks >= TRIM_BYTES_MIN)
        (void)malloc_trim(0);
}
