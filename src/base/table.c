/* table.c - bytes to pointers: open addressing with linear probing.
 *
 * A slot's home is hash & (cap - 1); an entry sits in the first free slot at or behind its home. At most 3/4 of the slots are
 * used, so probes stay short and always end at a free one. Deleting closes the gap by moving later entries back, so there are
 * no tombstones and a table that shrinks stays as fast as a new one. Memory is not given back before table_fini().
 */
#include "base.h"

#define TABLE_CAP_MIN 8

/* The slot that holds key, or the free slot where it belongs. cap is not 0. */
static struct table_slot *slot_find(const struct table *t, struct slice key, uint64_t hash)
{
    for (size_t i = hash & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
        struct table_slot *s = &t->slots[i];
        if (!s->key || (s->hash == hash && slice_eq(slice_of(s->key, s->key_n), key)))
            return s;
    }
}

void *table_get(const struct table *t, struct slice key)
{
    if (t->n == 0)
        return NULL;
    return slot_find(t, key, hash_slice(key))->value; /* a free slot's value is NULL */
}

static void table_enlarge(struct table *t)
{
    struct table old = *t;
    t->cap = old.cap ? old.cap * 2 : TABLE_CAP_MIN;
    t->slots = mem_new(MEM_TABLE, t->cap * sizeof *t->slots);
    for (size_t k = 0; k < old.cap; k++) {
        if (!old.slots[k].key)
            continue;
        size_t i = old.slots[k].hash & (t->cap - 1);
        while (t->slots[i].key)
            i = (i + 1) & (t->cap - 1);
        t->slots[i] = old.slots[k];
    }
    mem_free(old.slots);
}

void *table_put(struct table *t, struct slice key, void *value)
{
    MUST(value); /* NULL means absent */
    if (t->n >= t->cap / 4 * 3)
        table_enlarge(t);
    uint64_t hash = hash_slice(key);
    struct table_slot *s = slot_find(t, key, hash);
    void *before = s->value;
    if (!s->key) {
        s->key = mem_strndup(MEM_TABLE, key.p, key.n);
        s->key_n = key.n;
        s->hash = hash;
        t->n++;
    }
    s->value = value;
    return before;
}

struct slice table_key(const struct table *t, struct slice key)
{
    const struct table_slot *s = t->n ? slot_find(t, key, hash_slice(key)) : NULL;
    MUST(s && s->key);
    return slice_of(s->key, s->key_n);
}

void *table_del(struct table *t, struct slice key)
{
    if (t->n == 0)
        return NULL;
    struct table_slot *s = slot_find(t, key, hash_slice(key));
    if (!s->key)
        return NULL;
    void *before = s->value;
    mem_free(s->key);
    size_t mask = t->cap - 1, gap = (size_t)(s - t->slots);
    for (size_t i = (gap + 1) & mask; t->slots[i].key; i = (i + 1) & mask) {
        size_t home = t->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - gap) & mask))
            continue; /* its home lies behind the gap: it may not move in front of it */
        t->slots[gap] = t->slots[i];
        gap = i;
    }
    t->slots[gap] = (struct table_slot){0};
    t->n--;
    return before;
}

void table_fini(struct table *t)
{
    for (struct table_slot *s = NULL; (s = table_next(t, s));)
        mem_free(s->key);
    mem_free(t->slots);
    *t = (struct table){0};
}

struct table_slot *table_next(const struct table *t, struct table_slot *prev)
{
    size_t i = prev ? (size_t)(prev - t->slots) + 1 : 0;
    for (; i < t->cap; i++)
        if (t->slots[i].key)
            return &t->slots[i];
    return NULL;
}
