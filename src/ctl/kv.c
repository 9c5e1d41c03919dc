/* kv.c - versions of keys in memory: small, since there may be a hundred thousand.
 *
 *     chunk   [ head | slot | slot | ... ]          slots of one size; a kv with its key, and with its value when that is small
 *     value   [ of, link | bytes ]                  a value that is not small, apart from its kv, which is there without it, too
 *
 * The kvs that the loop makes live in chunks, one size of slots each: a block of malloc's own would cost a third more. The others (rows of history, which a job makes in the
 * pool and which hold their value, however long) are blocks. A chunk without a kv goes back, but for the last one of its size that has room. A sanitizer sees blocks only.
 *
 * Values that are not small stay in memory while somebody holds their kv beside the index (a call, the newest events), and up to values_max beyond that: those of the index are on a
 * list, as a clock: the hand takes the first that was not used since it was here last. The rest is on disk, in the row of its kv's id (db.c).
 */
#include "ctl_int.h"

#define CHUNK_BYTES_MIN 1024 /* each chunk of a size is as large as all that there are of it, in these bounds: little is unused, and of the pages at */
#define CHUNK_BYTES_MAX (128u << 10) /* both ends, which it shares with what may be free, there are few */
#define SLOT_UNIT 8
#define TRIM_STEPS_MAX 16384 /* of the clock's hand at a time */

struct chunk {
    struct list link;            /* on its size's list, while it has a free slot */
    struct kv_pool *pool;
    struct kv *free;             /* slots that were given back, by kid[0] */
    uint32_t used, fresh, slots; /* kvs in it; slots from fresh on were never used */
    uint32_t slot_bytes, chunk_bytes;
    uint32_t unused;             /* for the alignment of slots */
    char bytes[];
};
_Static_assert(sizeof(struct chunk) % 8 == 0 && sizeof(struct kv) % 8 == 0, "slots are aligned to 8");

static size_t round8(size_t n) { return (n + 7) / 8 * 8; }

/* Of the kv itself: with its key, a small value, and what it has on its lease's list. */
static size_t kv_room(const struct kv *k)
{
    size_t n = sizeof *k + k->key_n + (kv_is(k, KV_SMALL) ? k->value_n : 0);
    return kv_is(k, KV_LEASED) ? round8(n) + sizeof(struct kv_leased) : n;
}

struct kv_leased *kv_leased(const struct kv *k)
{
    if (!kv_is(k, KV_LEASED)) return NULL;
    return (struct kv_leased *)((char *)(uintptr_t)k + kv_room(k) - sizeof(struct kv_leased));
}

/* ---- chunks ---- */

static void chunk_new(struct kv_pool *p, size_t slot_bytes)
{
    struct kv_class *class = &p->classes[slot_bytes / SLOT_UNIT];
    size_t n = MIN(MAX(class->bytes, CHUNK_BYTES_MIN), CHUNK_BYTES_MAX);
    struct chunk *c = mem_new(MEM_CTL, n);
    c->pool = p;
    c->slot_bytes = (uint32_t)slot_bytes;
    c->chunk_bytes = (uint32_t)n;
    c->slots = (uint32_t)((n - sizeof *c) / slot_bytes);
    class->bytes += n;
    list_push(&class->chunks, &c->link);
}

static void chunk_free(struct chunk *c)
{
    c->pool->classes[c->slot_bytes / SLOT_UNIT].bytes -= c->chunk_bytes;
    list_del(&c->link);
    mem_free(c);
}

void kv_pool_init(struct kv_pool *p, size_t small_max, size_t values_max)
{
    *p = (struct kv_pool){.small_max = small_max, .values_max = values_max};
    for (size_t i = 0; i < KV_CLASSES; i++) list_init(&p->classes[i].chunks);
    list_init(&p->values);
}

void kv_pool_fini(struct kv_pool *p)
{
    MUST(list_empty(&p->values));
    for (size_t i = 0; i < KV_CLASSES; i++) {
        while (!list_empty(&p->classes[i].chunks)) {
            struct chunk *c = CONTAINER_OF(p->classes[i].chunks.next, struct chunk, link);
            MUST(c->used == 0);
            chunk_free(c);
        }
        MUST(p->classes[i].bytes == 0);
    }
}


static struct kv *slot_take(struct kv_pool *p, size_t n)
{
    struct list *chunks = &p->classes[n / SLOT_UNIT].chunks;
    if (list_empty(chunks)) chunk_new(p, n);
    struct chunk *c = CONTAINER_OF(chunks->next, struct chunk, link);
    struct kv *k = c->free;
    uint64_t slot;
    if (k) {
        c->free = k->kid[0];
        slot = (uint64_t)((char *)k - c->bytes) / c->slot_bytes;
        memset(k, 0, n);
    } else {
        slot = c->fresh++;
        k = (struct kv *)(void *)(c->bytes + slot * n);
    }
    if (++c->used == c->slots) list_del(&c->link);
    k->create_slot = slot;
    k->version_flags = KV_POOLED;
    return k;
}

/* Of a chunk's kvs none is left: it goes, unless it is the only one that has room. */
static void slot_give(struct kv *k)
{
    size_t n = round8(kv_room(k));
    struct chunk *c = CONTAINER_OF((char *)k - (k->create_slot & KV_LOW) * n, struct chunk, bytes);
    struct list *chunks = &c->pool->classes[n / SLOT_UNIT].chunks;
    MUST(c->slot_bytes == n && c->used > 0);
    if (c->used == c->slots) list_push_front(chunks, &c->link);
    c->used--;
    k->kid[0] = c->free;
    c->free = k;
    if (c->used || (chunks->next == &c->link && chunks->prev == &c->link)) return;
    chunk_free(c);
}

/* ---- kvs ---- */

/* Room for a version; its flags but KV_POOLED are given. */
static struct kv *kv_make(struct kv_pool *p, struct slice key, uint64_t value_n, int64_t lease, uint64_t flags)
{
    struct kv size = {.key_n = (uint32_t)key.n, .value_n = (uint32_t)value_n, .version_flags = flags | (lease ? KV_LEASED : 0)};
    size_t n = round8(kv_room(&size));
    bool pooled = p && !SANITIZED && n / SLOT_UNIT < KV_CLASSES;
    struct kv *k = pooled ? slot_take(p, n) : mem_new(MEM_CTL, n);
    k->key_n = size.key_n;
    k->value_n = size.value_n;
    k->version_flags |= size.version_flags;
    k->refs = 1;
    if (key.n) memcpy(k->bytes, key.p, key.n);
    struct kv_leased *l = kv_leased(k);
    if (!l) return k;
    *l = (struct kv_leased){.kv = k, .id = lease};
    list_init(&l->link);
    return k;
}

struct value *value_new(struct slice bytes)
{
    struct value *v = mem_grow(MEM_CTL, NULL, sizeof *v + bytes.n);
    v->of = NULL;
    list_init(&v->link);
    if (bytes.n) memcpy(v->bytes, bytes.p, bytes.n);
    return v;
}

struct kv *kv_new(struct kv_pool *p, struct slice key, struct slice value, int64_t lease)
{
    bool small = !p || value.n == 0 || value.n <= p->small_max;
    struct kv *k = kv_make(p, key, value.n, lease, small ? KV_SMALL : 0);
    if (!small) {
        k->value = value_new(value);
        k->value->of = k;
    } else if (value.n) {
        memcpy(k->bytes + key.n, value.p, value.n);
    }
    return k;
}

struct kv *kv_new_dead(struct kv_pool *p, struct slice key) { return kv_make(p, key, 0, 0, KV_SMALL | KV_DEAD); }

struct kv *kv_new_cold(struct kv_pool *p, struct slice key, uint64_t value_n, int64_t lease) { return kv_make(p, key, value_n, lease, 0); }

void kv_unref(struct kv *k)
{
    if (!k) return;
    MUST(k->refs > 0);
    if (--k->refs) return;
    const struct kv_leased *l = kv_leased(k);
    MUST(!l || list_empty(&l->link));
    if (k->value) {
        MUST(list_empty(&k->value->link));
        mem_free(k->value);
    }
    if (kv_is(k, KV_POOLED)) slot_give(k);
    else mem_free(k);
}

void kv_show_key(const struct kv *k, struct ctl_kv *out)
{
    *out = (struct ctl_kv){.key = kv_key(k), .value = slice_of("", 0), .create_revision = kv_create(k), .mod_revision = kv_mod(k), .version = kv_version(k),
                           .lease = kv_lease(k)};
}

void kv_show(const struct kv *k, struct ctl_kv *out)
{
    kv_show_key(k, out);
    out->value = kv_value(k);
}

/* ---- values ---- */

static size_t value_bytes(const struct kv *k) { return sizeof(struct value) + k->value_n; }

static void value_join(struct kv_pool *p, struct kv *k)
{
    if (!k->value) return;
    list_push(&p->values, &k->value->link);
    p->values_bytes += value_bytes(k);
}

void kv_enter(struct kv_pool *p, struct kv *k)
{
    MUST(!kv_is(k, KV_INDEXED));
    k->version_flags |= KV_INDEXED;
    value_join(p, k);
}

void kv_leave(struct kv_pool *p, struct kv *k)
{
    MUST(kv_is(k, KV_INDEXED));
    k->version_flags &= ~(uint64_t)KV_INDEXED;
    if (!k->value) return;
    list_del(&k->value->link);
    p->values_bytes -= value_bytes(k);
}

void kv_warm(struct kv_pool *p, struct kv *k, struct value *v)
{
    if (!kv_is_cold(k)) { /* another call has read it, too */
        mem_free(v);
        return;
    }
    k->value = v;
    v->of = k;
    if (kv_is(k, KV_INDEXED)) value_join(p, k);
}

/* The clock's hand comes by: the value goes, or to the end of the list. False: somebody holds it, and nothing is different. */
static bool value_look(struct kv_pool *p, struct value *v)
{
    struct kv *k = v->of;
    bool used = kv_is(k, KV_USED), held = k->refs > 1;
    list_del(&v->link);
    if (used || held) {
        k->version_flags &= ~(uint64_t)KV_USED;
        list_push(&p->values, &v->link);
        return used;
    }
    p->values_bytes -= value_bytes(k);
    k->value = NULL;
    mem_free(v);
    return true;
}

bool kv_pool_trim(struct kv_pool *p)
{
    bool different = false;
    for (size_t steps = 0; p->values_bytes > p->values_max; steps++) {
        if (steps == TRIM_STEPS_MAX) return different;
        different |= value_look(p, CONTAINER_OF(p->values.next, struct value, link));
    }
    return false;
}

void kv_pool_rest(struct kv_pool *p)
{
    struct list *last = p->values.prev;
    for (bool over = list_empty(&p->values); !over;) {
        struct list *first = p->values.next;
        over = first == last;
        (void)value_look(p, CONTAINER_OF(first, struct value, link));
    }
    while (kv_pool_trim(p)) {}
}
