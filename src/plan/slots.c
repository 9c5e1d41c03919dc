/* slots.c - plan_memory: small numbers that stay the same from one plan to the next.
 *
 * Workers keep tables indexed by slot: outstanding requests by endpoint, pools by cluster, counters by route. So the same
 * thing must keep its slot over reloads, and a slot must not pass to another thing while anybody can take the one for the
 * other. Workers change plans at different moments, and a request in flight finishes on the plan it began with. A slot is
 * therefore given away again only when
 *
 *   1. its owner was absent from a whole plan before this one: a worker that walks from plan to plan meets one in which
 *      nobody has the slot, and can clear its row; and
 *   2. every plan in which the owner was is gone (plan_life), so no request can still name the old owner.
 *
 * A cluster or route that comes back before that gets its old slot: its counters go on. An endpoint does not: it is a new
 * endpoint with a new id, and nothing that was learnt about the old one holds for it.
 *
 *   live --absent from plan G--> retired --slots_begin() of a plan > G, no held plan has it--> free --another key--> gone
 *
 * Control thread only, plan_life_end() excepted.
 */
#include "route_int.h"

struct slot_entry {
    struct list link;      /* on retired or free of its space; alone while live */
    uint32_t slot;
    uint64_t id;
    uint64_t first, last;  /* generations of the first and the last plan that has it */
    bool live;             /* it is in the last plan, or in the one being compiled */
    bool keyed;            /* the table still leads here; false for an endpoint's old entry after it came back */
    size_t key_n;
    char key[];            /* a copy, so that deletion may name it */
};
struct slot_space {
    struct table keys;           /* key -> struct slot_entry */
    struct list retired;         /* not in the last plan; oldest first */
    struct list free;            /* the same, and the slot may go to another key */
    struct slot_entry **by_slot; /* the holder, or the last one */
    uint32_t top, cap;
};
/* Shared by the memory and one plan; whoever lets go last frees it. */
struct plan_life {
    struct plan_life *next;  /* the memory's: the next younger plan */
    uint64_t generation;
    uint32_t refs;           /* atomic: 2, 1 */
    uint32_t ended;          /* atomic: the plan is gone */
};
struct plan_memory {
    uint64_t generation;     /* of the plan being compiled, or of the last one */
    uint64_t next_id;
    struct slot_space spaces[SLOT_KINDS];
    struct plan_life *lives; /* oldest first */
};

struct plan_memory *plan_memory_new(void)
{
    struct plan_memory *m = mem_new(MEM_PLAN, sizeof *m);
    m->next_id = 1;
    for (int k = 0; k < SLOT_KINDS; k++) {
        list_init(&m->spaces[k].retired);
        list_init(&m->spaces[k].free);
    }
    return m;
}

static void life_unref(struct plan_life *life)
{
    if (__atomic_sub_fetch(&life->refs, 1, __ATOMIC_ACQ_REL) == 0)
        mem_free(life);
}

void plan_memory_free(struct plan_memory *m)
{
    if (!m)
        return;
    for (int k = 0; k < SLOT_KINDS; k++) {
        struct slot_space *sp = &m->spaces[k];
        for (uint32_t i = 0; i < sp->top; i++) /* every entry that exists holds a slot, or held it last */
            mem_free(sp->by_slot[i]);
        mem_free(sp->by_slot);
        table_fini(&sp->keys);
    }
    while (m->lives) {
        struct plan_life *life = m->lives;
        m->lives = life->next;
        life_unref(life);
    }
    mem_free(m);
}

/* ---- one compilation ----------------------------------------------------------------------------------------------- */

/* Forgets plans that are gone. */
static void lives_sweep(struct plan_memory *m)
{
    for (struct plan_life **at = &m->lives; *at;) {
        struct plan_life *life = *at;
        if (__atomic_load_n(&life->ended, __ATOMIC_ACQUIRE)) {
            *at = life->next;
            life_unref(life);
        } else {
            at = &life->next;
        }
    }
}

/* Some plan that is held may have the entry. */
static bool slot_held(const struct plan_memory *m, const struct slot_entry *e)
{
    for (const struct plan_life *life = m->lives; life && life->generation <= e->last; life = life->next)
        if (life->generation >= e->first)
            return true;
    return false;
}

uint64_t slots_begin(struct plan_memory *m)
{
    m->generation++;
    lives_sweep(m);
    for (int k = 0; k < SLOT_KINDS; k++) {
        struct slot_space *sp = &m->spaces[k];
        LIST_FOREACH(at, &sp->retired) {
            struct slot_entry *e = CONTAINER_OF(at, struct slot_entry, link);
            if (slot_held(m, e))
                continue;
            list_del(&e->link);
            list_push(&sp->free, &e->link);
        }
    }
    return m->generation;
}

/* A slot that may pass to another key, the one that rested longest first; else a new one. */
static uint32_t slot_pick(struct slot_space *sp)
{
    if (!list_empty(&sp->free)) {
        struct slot_entry *old = CONTAINER_OF(sp->free.next, struct slot_entry, link);
        uint32_t slot = old->slot;
        list_del(&old->link);
        if (old->keyed)
            table_del(&sp->keys, slice_of(old->key, old->key_n));
        mem_free(old);
        sp->by_slot[slot] = NULL;
        return slot;
    }
    ARRAY_GROW(MEM_PLAN, sp->by_slot, sp->top, sp->cap);
    sp->by_slot[sp->top] = NULL;
    return sp->top++;
}

static struct slot_entry *slot_new(struct plan_memory *m, struct slot_space *sp, struct slice key)
{
    uint32_t slot = slot_pick(sp);
    struct slot_entry *e = mem_new(MEM_PLAN, sizeof *e + key.n + 1);
    list_init(&e->link);
    e->slot = slot;
    e->id = m->next_id++;
    e->first = m->generation;
    e->keyed = true;
    e->key_n = key.n;
    memcpy(e->key, key.p, key.n);
    sp->by_slot[slot] = e;
    struct slot_entry *before = table_put(&sp->keys, key, e);
    MUST(!before);
    return e;
}

struct slot_take slots_take(struct plan_memory *m, enum slot_kind kind, struct slice key)
{
    struct slot_space *sp = &m->spaces[kind];
    struct slot_entry *e = table_get(&sp->keys, key);
    if (e && !e->live && kind == SLOT_ENDPOINT) {
        table_del(&sp->keys, key); /* the entry stays in its list with its slot */
        e->keyed = false;
        e = NULL;
    }
    if (!e)
        e = slot_new(m, sp, key);
    list_del(&e->link);
    e->live = true;
    e->last = m->generation;
    return (struct slot_take){e->slot, e->id};
}

void slots_end(struct plan_memory *m)
{
    for (int k = 0; k < SLOT_KINDS; k++) {
        struct slot_space *sp = &m->spaces[k];
        for (uint32_t i = 0; i < sp->top; i++) {
            struct slot_entry *e = sp->by_slot[i];
            if (e->last == m->generation || !e->live)
                continue;
            e->live = false;
            list_push(&sp->retired, &e->link);
        }
    }
}

uint32_t slots_top(const struct plan_memory *m, enum slot_kind kind)
{
    return m->spaces[kind].top;
}

struct slice slots_key(const struct plan_memory *m, enum slot_kind kind, uint32_t slot)
{
    MUST(slot < m->spaces[kind].top);
    const struct slot_entry *e = m->spaces[kind].by_slot[slot];
    return slice_of(e->key, e->key_n);
}

/* ---- lives ------------------------------------------------------------------------------------------------------------ */

struct plan_life *slots_life(struct plan_memory *m)
{
    struct plan_life *life = mem_new(MEM_PLAN, sizeof *life), **at = &m->lives;
    life->generation = m->generation;
    life->refs = 2;
    while (*at)
        at = &(*at)->next;
    *at = life;
    return life;
}

void plan_life_end(struct plan_life *life)
{
    __atomic_store_n(&life->ended, 1, __ATOMIC_RELEASE);
    life_unref(life);
}
