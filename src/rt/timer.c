/* timer.c - a hierarchical timer wheel with millisecond ticks.
 *
 * Read due time and present time as numbers in base 64. A timer hangs at the level of the highest digit in which the two
 * differ, in the slot that its own digit names:
 *
 *     level 0: due within the present 64 ms      slot = due ms, exactly
 *     level 1: within the present 4,096 ms       slot = 64 ms wide
 *     level 2: within the present 262 s          slot = 4,096 ms wide       ... eight levels
 *
 * So every occupied slot lies ahead of the present, every slot of a level lies before all slots of the next, and the
 * earliest work is in the lowest level that has any: one bit scan per level. When time reaches the start of a slot above
 * level 0, its timers move down (cascade), each at most seven times in its life. Setting and clearing are list operations.
 *
 * Clearing a timer does not know its wheel, so the bit of a slot emptied that way is cleared when next looked at.
 * A due time is rounded up to a whole millisecond and compared with time rounded down: a timer is never early.
 */
#include "rt_int.h"

#define WHEEL_END (1ULL << (WHEEL_BITS * WHEEL_LEVELS))

void timer_init(struct timer *t, void (*fn)(struct timer *))
{
    list_init(&t->link);
    t->due_ms = 0;
    t->fn = fn;
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    w->now = now_ms;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        w->used[level] = 0;
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++) list_init(&w->slots[level][slot]);
    }
    list_init(&w->expired);
}

static void list_unlink_all(struct list *head)
{
    while (!list_empty(head)) list_del(head->next);
}

void wheel_fini(struct wheel *w)
{
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++) list_unlink_all(&w->slots[level][slot]);
    list_unlink_all(&w->expired);
}

static void wheel_place(struct wheel *w, struct timer *t)
{
    uint64_t diff = t->due_ms ^ w->now;
    unsigned level = diff ? (63U - (unsigned)__builtin_clzll(diff)) / WHEEL_BITS : 0;
    unsigned slot = (unsigned)(t->due_ms >> (WHEEL_BITS * level)) & (WHEEL_SLOTS - 1);
    list_push(&w->slots[level][slot], &t->link);
    w->used[level] |= 1ULL << slot;
}

void timer_set(struct loop *l, struct timer *t, uint64_t in_ms)
{
    struct wheel *w = &l->wheel;
    list_del(&t->link);
    uint64_t due = (l->now_ns + 999999) / 1000000 + MIN(in_ms, WHEEL_END / 2);
    /* Beyond the present tick, so that a timer set by a timer waits for the next turn. */
    due = MAX(due, w->now + 1);
    t->due_ms = MIN(due, WHEEL_END - 1);
    wheel_place(w, t);
}

void timer_clear(struct timer *t)
{
    list_del(&t->link);
}

/* The first slot of this level that holds timers, at or after slot from; WHEEL_SLOTS when there is none. */
static unsigned wheel_scan(struct wheel *w, unsigned level, unsigned from)
{
    if (from >= WHEEL_SLOTS) return WHEEL_SLOTS;
    uint64_t bits = w->used[level] & (~0ULL << from);
    while (bits) {
        unsigned slot = (unsigned)__builtin_ctzll(bits);
        if (!list_empty(&w->slots[level][slot])) return slot;
        w->used[level] &= ~(1ULL << slot);
        bits &= bits - 1;
    }
    return WHEEL_SLOTS;
}

/* Finds the earliest occupied slot; returns the time at which it starts. */
static uint64_t wheel_find(struct wheel *w, unsigned *level_out, unsigned *slot_out)
{
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        unsigned shift = WHEEL_BITS * level;
        unsigned digit = (unsigned)(w->now >> shift) & (WHEEL_SLOTS - 1);
        unsigned slot = wheel_scan(w, level, level == 0 ? digit : digit + 1);
        if (slot == WHEEL_SLOTS) continue;
        *level_out = level;
        *slot_out = slot;
        uint64_t above = w->now >> (shift + WHEEL_BITS) << (shift + WHEEL_BITS);
        return above | (uint64_t)slot << shift;
    }
    return WHEEL_NEVER;
}

uint64_t wheel_next(struct wheel *w)
{
    unsigned level, slot;
    return wheel_find(w, &level, &slot);
}

void wheel_advance(struct wheel *w, uint64_t now_ms)
{
    unsigned level = 0, slot = 0;
    for (;;) {
        uint64_t start = wheel_find(w, &level, &slot);
        if (start > now_ms) break;
        w->now = start;
        w->used[level] &= ~(1ULL << slot);
        struct list *head = &w->slots[level][slot];
        while (!list_empty(head)) {
            struct list *link = head->next;
            list_del(link);
            if (level == 0) list_push(&w->expired, link);
            else wheel_place(w, CONTAINER_OF(link, struct timer, link));
        }
    }
    /* No occupied slot starts at or before now_ms, so the highest differing digit of every timer stays what it was. */
    if (now_ms > w->now) w->now = now_ms;
}
