/* scatter.c - one question to many partitions: the items of a request are grouped by the shards that own their partitions, each shard is visited by one
 * call, and the request goes on at home when all have come back. Items, groups and calls live in the request's arena. */
#include "data.h"

enum kafka_error part_find(const struct shard *home, struct slice name, const struct kafka_uuid *id, int32_t partition, struct topic **out)
{
    struct topic *t = id ? catalog_topic_by_id(home->catalog, id) : catalog_topic(home->catalog, name);
    *out = t;
    if (!t)
        return id ? KAFKA_UNKNOWN_TOPIC_ID : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    return partition < 0 || partition >= t->partitions ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_NONE;
}

bool request_parts_ok(struct breq *r, uint64_t parts)
{
    if (parts <= REQUEST_PARTS_MAX)
        return true;
    log_warn("broker", "closed: a %s request names %llu partitions, at most %u are served; ask for fewer at once", r->api->wire->name, (unsigned long long)parts,
             REQUEST_PARTS_MAX);
    r->silent = r->hang_up = true;
    breq_answer(r, r->home);
    return false;
}

struct scatter *scatter_new(struct breq *r, void (*visit)(struct scatter_item *, struct bpart *, enum kafka_error), void (*done)(struct breq *))
{
    struct scatter *s = BREQ_NEW(r, struct scatter);
    *s = (struct scatter){.r = r, .visit = visit, .done = done};
    s->groups = BREQ_ARRAY(r, struct scatter_group, r->home->b->shards_n);
    return s;
}

bool scatter_add(struct scatter *s, struct scatter_item *it, const struct topic *t, int32_t partition)
{
    struct part_key key = {.partition = partition};
    memcpy(key.topic, t->id.b, sizeof key.topic);
    if (table_put(&s->seen, slice_of((const char *)&key, sizeof key), it))
        return false;
    struct shard *owner = shard_of_part(s->r->home->b, &t->id, partition);
    struct scatter_group *g = &s->groups[owner->index];
    if (!g->owner) {
        *g = (struct scatter_group){.s = s, .owner = owner};
        g->last = &g->first;
    }
    it->topic_id = t->id;
    it->partition = partition;
    it->next = NULL;
    *g->last = it;
    g->last = &it->next;
    return true;
}

static void scatter_came_home(struct scatter *s)
{
    if (--s->left == 0)
        s->done(s->r);
}

static void group_home(struct shard *here, struct call *c)
{
    (void)here;
    scatter_came_home(CONTAINER_OF(c, struct scatter_group, call)->s);
}

static void group_visit(struct shard *here, struct call *c)
{
    struct scatter_group *g = CONTAINER_OF(c, struct scatter_group, call);
    for (struct scatter_item *it = g->first; it; it = it->next) {
        struct bpart *p = shard_part(here, &it->topic_id, it->partition);
        g->s->visit(it, p, part_state(p));
    }
    c->fn = group_home;
    call_now(here, g->s->r->home, c);
}

void scatter_run(struct scatter *s)
{
    table_fini(&s->seen);
    s->left = 1; /* so that done() comes after the last group was sent */
    for (uint32_t i = 0; i < s->r->home->b->shards_n; i++) {
        struct scatter_group *g = &s->groups[i];
        if (!g->owner)
            continue;
        s->left++;
        g->call.fn = group_visit;
        list_init(&g->call.link);
        call_now(s->r->home, g->owner, &g->call);
    }
    scatter_came_home(s);
}
