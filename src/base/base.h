/* base.h - what every room stands on: results, assertions, slices, tagged memory, arenas, buffers, tables, lists.
 *
 * Nothing here knows of sockets, threads or time. Everything allocates through a tag, so that /metrics can say who holds
 * the memory, and so that tests can fail the Nth allocation. Structs here are small value types, open on purpose.
 */
#ifndef BASE_H
#define BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- results ------------------------------------------------------------------------------------------------ */

enum err {
#define X(name, text) ERR_##name,
#include "err.def"
#undef X
    ERR_COUNT
};
#define OK ERR_OK

/* The text of e, for logs and answers; never NULL. */
const char *err_text(enum err e);
/* The err that an errno value means; unknown values are ERR_IO. */
enum err err_from_errno(int errno_value);

#define WARN_UNUSED __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
/* 1: memory is watched by a sanitizer, so blocks shall be its own, and their sizes say nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
/* The struct of type T whose member m is at p. */
#define CONTAINER_OF(p, T, m) ((T *)(void *)((char *)(p) - offsetof(T, m)))

/* ---- assertions: three grades (style.md 9) --------------------------------------------------------------------- */

/* Programmer error: always on, prints the place and aborts. Never used on bytes from outside. */
#define MUST(x) (LIKELY(x) ? (void)0 : must_failed(#x, __FILE__, __LINE__, __func__))
/* Costly checks: debug and sanitizer builds only. */
#ifdef WEIR_DEBUG
#define DMUST(x) MUST(x)
#else
#define DMUST(x) ((void)sizeof(x))
#endif
_Noreturn void must_failed(const char *expr, const char *file, int line, const char *func);

/* ---- slices: borrowed bytes -------------------------------------------------------------------------------------- */

/* Bytes that somebody else owns; not NUL-terminated. p may be NULL only when n is 0. */
struct slice {
    const char *p;
    size_t n;
};
#define SLICE(lit) ((struct slice){(lit), sizeof(lit) - 1})
#define SLICE_FMT "%.*s"
#define SLICE_ARG(s) (int)(s).n, (s).p

static inline struct slice slice_of(const char *p, size_t n) { return (struct slice){p, n}; }
static inline struct slice slice_cstr(const char *s) { return (struct slice){s, s ? strlen(s) : 0}; }
static inline bool slice_eq(struct slice a, struct slice b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }
static inline bool slice_is(struct slice a, const char *s) { return slice_eq(a, slice_cstr(s)); }
bool slice_ieq(struct slice a, struct slice b);               /* ASCII case folded */
bool slice_starts(struct slice s, struct slice prefix);
bool slice_ends(struct slice s, struct slice suffix);
bool slice_iends(struct slice s, struct slice suffix);        /* ASCII case folded */
struct slice slice_trim(struct slice s);                      /* spaces and tabs off both ends */
/* Splits at the first c: returns what is before it and leaves what is after in *rest; all and empty when c is absent. */
struct slice slice_cut(struct slice s, char c, struct slice *rest);
ptrdiff_t slice_find(struct slice s, char c);                 /* index, or -1 */
/* Decimal without sign, at most max; ERR_SYNTAX on anything else, ERR_LIMIT above max. */
enum err slice_u64(struct slice s, uint64_t max, uint64_t *out) WARN_UNUSED;
/* A 64-bit hash of the bytes (not for secrets; seeded once per process by hash_seed()). */
uint64_t hash_bytes(const void *p, size_t n);
uint64_t hash_slice(struct slice s);
void hash_seed(uint64_t seed);
static inline char ascii_lower(char c) { return (char)((c >= 'A' && c <= 'Z') ? c + 32 : c); }

/* ---- tagged memory ------------------------------------------------------------------------------------------------ */

enum mem_tag {
#define X(name, help) MEM_##name,
#include "mem_tag.def"
#undef X
    MEM_TAG_COUNT
};
const char *mem_tag_name(enum mem_tag t); /* lower case, for the metric label */
const char *mem_tag_help(enum mem_tag t);

/* Zeroed memory, or NULL when the system (or an injected fault) refuses. For data paths, which must cope. */
void *mem_try(enum mem_tag t, size_t size) WARN_UNUSED;
/* The same, but refusal ends the process with a message: for set-up, where going on makes no sense. */
void *mem_new(enum mem_tag t, size_t size) WARN_UNUSED;
/* Grows or shrinks p (may be NULL) to size; new bytes are not zeroed. Ends the process on refusal. */
void *mem_grow(enum mem_tag t, void *p, size_t size) WARN_UNUSED;
void mem_free(void *p); /* NULL-safe */
/* Zeroes what was secret, also where a compiler sees that nobody reads it any more. NULL-safe. */
void mem_wipe(void *p, size_t size);
char *mem_strdup(enum mem_tag t, const char *s) WARN_UNUSED;                /* NULL gives NULL */
char *mem_strndup(enum mem_tag t, const char *p, size_t n) WARN_UNUSED;     /* always NUL-terminated */
/* Bytes now held under t, all threads together; readable from any thread. */
uint64_t mem_bytes(enum mem_tag t);
uint64_t mem_count(enum mem_tag t); /* live allocations */
/* Gives what much work has left free back to the system, when it is much. Other threads that allocate wait meanwhile, some
 * milliseconds at worst: for the end of a change of plan, not for the data path. */
void mem_trim(void);
/* Test hook: the nth mem_try() from now fails (1 = the next); 0 switches it off. */
void mem_fail_nth(uint64_t n);

/* arr[n] with room for one more: ARRAY_GROW(tag, arr, n, cap) before arr[n++] = x. */
#define ARRAY_GROW(tag, arr, n, cap)                                                                   \
    do {                                                                                               \
        if ((n) == (cap)) {                                                                            \
            (cap) = (cap) ? (cap) * 2 : 8;                                                             \
            (arr) = mem_grow((tag), (arr), (size_t)(cap) * sizeof *(arr));                             \
        }                                                                                              \
    } while (0)

/* ---- arenas: memory freed all at once -------------------------------------------------------------------------------- */

/* Grows by chunks; arena_reset() keeps the first chunk for reuse. With WEIR_DEBUG_ARENA each allocation is its own
 * malloc, so that AddressSanitizer sees overflows. Not thread-safe: one owner. */
struct arena {
    struct arena_chunk *head;  /* newest chunk, the one allocated from; NULL before the first allocation */
    size_t used;               /* bytes used in head */
    size_t chunk_bytes;        /* size of an ordinary chunk */
    enum mem_tag tag;
};
void arena_init(struct arena *a, enum mem_tag tag, size_t chunk_bytes);
void arena_reset(struct arena *a);
void arena_fini(struct arena *a);
/* Aligned to 16, not zeroed. Ends the process on refusal. */
void *arena_alloc(struct arena *a, size_t size) WARN_UNUSED;
void *arena_zalloc(struct arena *a, size_t size) WARN_UNUSED;
char *arena_strdup(struct arena *a, const char *s) WARN_UNUSED;
struct slice arena_slice(struct arena *a, struct slice s) WARN_UNUSED; /* a copy; NUL-terminated beyond n */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3) WARN_UNUSED;

/* ---- buf: text that grows ------------------------------------------------------------------------------------------- */

/* Always NUL-terminated after the first write. Zero-initialised is valid and empty. */
struct buf {
    char *p;
    size_t n;   /* bytes used, without the NUL */
    size_t cap;
};
void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_addc(struct buf *b, char c);
void buf_adds(struct buf *b, const char *s);
void buf_add_slice(struct buf *b, struct slice s);
void buf_add_u64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
void buf_add_json(struct buf *b, struct slice s); /* a JSON string with its quotes (RFC 8259 section 7); invalid UTF-8 becomes U+FFFD */
/* Text from outside made fit to be shown and put into JSON, in place: control characters, and what is no UTF-8, become '?'. */
void text_clean(char *text);
void buf_clear(struct buf *b);                    /* keeps the memory */
void buf_free(struct buf *b);
void buf_wipe(struct buf *b); /* the same for what was secret: all of its memory is zeroed first */
char *buf_take(struct buf *b, size_t *n);         /* the caller owns the text (mem_free); b is empty again */
static inline struct slice buf_slice(const struct buf *b) { return (struct slice){b->p, b->n}; }

/* ---- table: bytes -> pointer ------------------------------------------------------------------------------------------ */

/* Open addressing; keys are copied. Values are the caller's. Not thread-safe; a table that no longer changes may be read
 * by all threads. Zero-initialised is valid and empty. */
struct table {
    struct table_slot *slots;
    size_t n, cap; /* cap is a power of two, or 0 */
};
struct table_slot {
    char *key; /* NULL: free; owned by the table */
    size_t key_n;
    uint64_t hash;
    void *value;
};
void *table_get(const struct table *t, struct slice key); /* NULL when absent */
/* Sets key to value (not NULL); returns the value it replaced, or NULL. */
void *table_put(struct table *t, struct slice key, void *value);
void *table_del(struct table *t, struct slice key); /* the value that was there, or NULL */
/* The table's own copy of a key that is in it: stays until table_del(), so whoever is in the table needs no other. */
struct slice table_key(const struct table *t, struct slice key);
void table_fini(struct table *t);                   /* frees keys and slots, not values */
/* Iteration in no order: for (struct table_slot *s = NULL; (s = table_next(t, s));). No changes meanwhile. */
struct table_slot *table_next(const struct table *t, struct table_slot *prev);

/* ---- list: intrusive, doubly linked, circular --------------------------------------------------------------------------- */

struct list {
    struct list *next, *prev;
};
static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_push(struct list *head, struct list *e) /* at the back */
{
    e->prev = head->prev;
    e->next = head;
    head->prev->next = e;
    head->prev = e;
}
static inline void list_push_front(struct list *head, struct list *e)
{
    e->next = head->next;
    e->prev = head;
    head->next->prev = e;
    head->next = e;
}
static inline void list_del(struct list *e) /* safe to repeat: e ends up alone */
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}
#define LIST_FOREACH(it, head) for (struct list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

#endif
