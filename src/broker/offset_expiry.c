/* offset_expiry.c - offsets that go: by retention, with their topic, with their group.
 *
 * What goes is taken out of memory at once and its tombstones are written behind; nobody waits. That is only done to a group of which nothing is on its way
 * to the log: else a commit before the tombstone in the log could come after it in memory.
 */
#include "group_int.h"

#include <stdlib.h>

static int offset_order(const void *pa, const void *pb)
{
    const struct goffset *a = *(struct goffset *const *)pa, *b = *(struct goffset *const *)pb;
    int c = memcmp(a->topic.p, b->topic.p, MIN(a->topic.n, b->topic.n));
    if (c == 0 && a->topic.n != b->topic.n)
        c = a->topic.n < b->topic.n ? -1 : 1;
    return c ? c : (a->partition > b->partition) - (a->partition < b->partition);
}

struct goffset **group_offsets_sorted(const struct group *g, struct arena *a, uint32_t *n)
{
    struct goffset **all = arena_alloc(a, MAX(g->offsets.n, 1) * sizeof *all);
    *n = 0;
    for (struct table_slot *s = NULL; (s = table_next(&g->offsets, s));)
        all[(*n)++] = s->value;
    qsort(all, *n, sizeof *all, offset_order);
    return all;
}

/* ---- what is to go ------------------------------------------------------------------------------------------------------------- */

static bool is_consumer(const struct group *g) { return slice_is(g->protocol_type, "consumer"); }

/* Kafka's rule (KIP-211). */
static bool offset_expired(const struct group *g, const struct goffset *o, int64_t now_ms)
{
    if (!list_empty(&o->pending) || !o->committed)
        return false;
    bool simple = !g->protocol_type.p, empty = g->state == GROUP_EMPTY;
    if (!simple && !empty && (g->state != GROUP_STABLE || !is_consumer(g)))
        return false;
    int64_t since = !simple && empty ? MAX(g->state_ms, o->v.commit_ms) : o->v.commit_ms;
    if (o->v.expire_ms >= 0 ? now_ms < o->v.expire_ms : now_ms - since < OFFSET_RETENTION_MS)
        return false;
    return simple || empty || !group_subscribed(g, o->topic);
}

/* A reason to drop an offset; the slot is not to be changed. */
struct why {
    int64_t now_ms;           /* by retention */
    const struct topic *gone; /* its topic has been deleted; NULL: not looked at */
    bool stale;               /* its topic is not in the catalog, or is another one */
};

static bool to_go(const struct group *g, const struct goffset *o, const struct why *why)
{
    const struct offset_value *v = o->committed ? &o->v : &CONTAINER_OF(o->pending.next, struct gpending_offset, by_offset)->v;
    if (why->gone)
        return slice_is(o->topic, why->gone->name) && (kafka_uuid_is_zero(v->topic_id) || kafka_uuid_eq(v->topic_id, why->gone->id));
    if (why->stale)
        return group_topic_stale(g->gs->here, o->topic, &v->topic_id);
    return offset_expired(g, o, why->now_ms);
}

static void group_drop_offsets(struct group *g, const struct why *why, struct group_tombs *tombs)
{
    struct arena a;
    uint32_t n;
    arena_init(&a, MEM_BROKER, 4096);
    struct goffset **all = group_offsets_sorted(g, &a, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (!to_go(g, all[i], why))
            continue;
        group_tombs_offset(tombs, g->id, all[i]->topic, all[i]->partition);
        group_offset_forget(g, all[i]);
        counter_inc(&g->gs->count.offsets_expired);
    }
    arena_fini(&a);
}

/* Groups of the partition, so that some of them may go meanwhile. */
static struct group **groups_of(struct group_part *gp, struct arena *a, uint32_t *n)
{
    struct group **all = arena_alloc(a, MAX(gp->groups.n, 1) * sizeof *all);
    *n = 0;
    for (struct table_slot *s = NULL; (s = table_next(&gp->groups, s));)
        all[(*n)++] = s->value;
    return all;
}

/* busy: also groups of which something is on its way. */
static void drop_offsets(struct group_part *gp, const struct why *why, bool busy, bool groups_too)
{
    struct arena a;
    uint32_t n;
    arena_init(&a, MEM_BROKER, 4096);
    struct group **all = groups_of(gp, &a, &n);
    struct group_tombs *tombs = group_tombs_begin(gp, NULL, NULL);
    for (uint32_t i = 0; i < n; i++) {
        struct group *g = all[i];
        if (g->refs && !busy)
            continue;
        group_drop_offsets(g, why, tombs);
        if (groups_too && g->on_disk && !g->refs && g->state == GROUP_EMPTY && !g->offsets.n && !g->pending.n) {
            group_tombs_whole(tombs, g);
            g->on_disk = false;
        }
        group_drop_idle(g);
    }
    group_tombs_end(tombs);
    arena_fini(&a);
}

void group_part_sweep(struct group_part *gp, int64_t now_ms) { drop_offsets(gp, &(struct why){.now_ms = now_ms}, false, true); }

/* A commit that is on its way meanwhile sees for itself that the topic is gone (commit_apply()). */
void group_part_topic_gone(struct group_part *gp, const struct topic *t) { drop_offsets(gp, &(struct why){.gone = t}, true, false); }

void group_part_drop_stale(struct group_part *gp) { drop_offsets(gp, &(struct why){.stale = true}, true, false); }
