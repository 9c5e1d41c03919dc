/* consumer_member.c - groups of KIP-848 as data: sets of partitions, members, who owns what. */
#include "consumer_group_int.h"

#include <stdlib.h>

/* ---- sets of partitions ------------------------------------------------------------------------------------------------ */

static int tp_order(const void *pa, const void *pb)
{
    const struct tp *a = pa, *b = pb;
    int c = memcmp(a->topic.b, b->topic.b, sizeof a->topic.b);
    return c ? c : (a->partition > b->partition) - (a->partition < b->partition);
}

void tps_add(struct tps *s, struct tp x)
{
    ARRAY_GROW(MEM_BROKER, s->p, s->n, s->cap);
    s->p[s->n++] = x;
}

void tps_sort(struct tps *s)
{
    uint32_t n = 0;
    if (s->n)
        qsort(s->p, s->n, sizeof *s->p, tp_order);
    for (uint32_t i = 0; i < s->n; i++)
        if (n == 0 || tp_order(&s->p[n - 1], &s->p[i]))
            s->p[n++] = s->p[i];
    s->n = n;
}

bool tps_has(const struct tps *s, struct tp x) { return s->n && bsearch(&x, s->p, s->n, sizeof *s->p, tp_order); }
bool tps_equal(const struct tps *a, const struct tps *b) { return a->n == b->n && (a->n == 0 || tps_within(a, b)); }

bool tps_meet(const struct tps *a, const struct tps *b)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (tps_has(b, a->p[i]))
            return true;
    return false;
}

bool tps_within(const struct tps *a, const struct tps *b)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (!tps_has(b, a->p[i]))
            return false;
    return true;
}

static struct tps those(const struct tps *a, const struct tps *b, bool in)
{
    struct tps out = {0};
    for (uint32_t i = 0; i < a->n; i++)
        if (tps_has(b, a->p[i]) == in)
            tps_add(&out, a->p[i]);
    return out;
}

struct tps tps_and(const struct tps *a, const struct tps *b) { return those(a, b, true); }
struct tps tps_minus(const struct tps *a, const struct tps *b) { return those(a, b, false); }

struct tps tps_copy(const struct tps *a)
{
    struct tps out = {0};
    for (uint32_t i = 0; i < a->n; i++)
        tps_add(&out, a->p[i]);
    return out;
}

void tps_clear(struct tps *s)
{
    mem_free(s->p);
    *s = (struct tps){0};
}

void tps_take(struct tps *to, struct tps from)
{
    mem_free(to->p);
    *to = from;
}

/* ---- who owns what --------------------------------------------------------------------------------------------------------- */

#define TP_KEY 20
static struct slice tp_key(char key[TP_KEY], struct tp x)
{
    memcpy(key, x.topic.b, sizeof x.topic.b);
    memcpy(key + sizeof x.topic.b, &x.partition, sizeof x.partition);
    return slice_of(key, TP_KEY);
}

struct cmember *consumers_owner(const struct consumers *cg, struct tp x)
{
    char key[TP_KEY];
    return table_get(&cg->owners, tp_key(key, x));
}

static void owners_drop(struct cmember *m, const struct tps *s)
{
    char key[TP_KEY];
    struct table *owners = &m->g->consumer->owners;
    for (uint32_t i = 0; i < s->n; i++)
        if (table_get(owners, tp_key(key, s->p[i])) == m)
            (void)table_del(owners, slice_of(key, TP_KEY));
}

static void owners_put(struct cmember *m, const struct tps *s)
{
    char key[TP_KEY];
    for (uint32_t i = 0; i < s->n; i++)
        (void)table_put(&m->g->consumer->owners, tp_key(key, s->p[i]), m);
}

void cmember_own(struct cmember *m, struct tps assigned, struct tps revoking)
{
    owners_drop(m, &m->assigned);
    owners_drop(m, &m->revoking);
    tps_take(&m->assigned, assigned);
    tps_take(&m->revoking, revoking);
    owners_put(m, &m->assigned);
    owners_put(m, &m->revoking);
}

/* ---- members ------------------------------------------------------------------------------------------------------------------ */

struct cmember *cmember_find(const struct consumers *cg, struct slice id) { return table_get(&cg->members, id); }
struct cmember *cmember_static(const struct consumers *cg, struct slice instance) { return instance.p ? table_get(&cg->statics, instance) : NULL; }

struct cmember *cmember_add(struct consumers *cg, struct slice id, struct slice instance)
{
    struct cmember *m = mem_new(MEM_BROKER, sizeof *m);
    m->g = cg->g;
    MUST(table_put(&cg->members, id, m) == NULL);
    m->id = table_key(&cg->members, id);
    m->instance = slice_own(instance);
    if (instance.p)
        MUST(table_put(&cg->statics, instance, m) == NULL);
    m->rebalance_ms = -1;
    timer_init(&m->session, cmember_session_expired);
    timer_init(&m->rebalance, cmember_rebalance_expired);
    list_push(&cg->in_order, &m->link);
    counter_add(&cg->g->gs->count.members, 1);
    return m;
}

void cmember_topics_set(struct cmember *m, const struct slice *names, int32_t n)
{
    for (int32_t i = 0; i < m->topics_n; i++)
        slice_drop(&m->topics[i]);
    mem_free(m->topics);
    m->topics_n = MAX(n, 0);
    m->topics = mem_new(MEM_BROKER, (size_t)MAX(m->topics_n, 1) * sizeof *m->topics);
    for (int32_t i = 0; i < m->topics_n; i++)
        m->topics[i] = slice_own(names[i]);
}

void cmember_rename(struct cmember *m, struct slice id)
{
    struct consumers *cg = m->g->consumer;
    MUST(table_del(&cg->members, m->id) == m);
    MUST(table_put(&cg->members, id, m) == NULL);
    m->id = table_key(&cg->members, id);
}

void cmember_remove(struct cmember *m)
{
    struct consumers *cg = m->g->consumer;
    cmember_own(m, (struct tps){0}, (struct tps){0});
    timer_clear(&m->session);
    timer_clear(&m->rebalance);
    list_del(&m->link);
    MUST(table_del(&cg->members, m->id) == m);
    if (m->instance.p)
        MUST(table_del(&cg->statics, m->instance) == m);
    cmember_topics_set(m, NULL, 0);
    mem_free(m->topics);
    slice_drop(&m->instance);
    slice_drop(&m->rack);
    slice_drop(&m->client_id);
    slice_drop(&m->client_host);
    slice_drop(&m->regex);
    slice_drop(&m->principal);
    slice_drop(&m->from);
    slice_drop(&m->assignor);
    tps_clear(&m->target);
    counter_add(&cg->g->gs->count.members, (uint64_t)-1);
    mem_free(m);
}

/* ---- groups ---------------------------------------------------------------------------------------------------------------------- */

struct consumers *consumers_make(struct group *g)
{
    struct consumers *cg = mem_new(MEM_BROKER, sizeof *cg);
    MUST(!g->consumer && g->members.n == 0);
    cg->g = g;
    list_init(&cg->in_order);
    g->consumer = cg;
    slice_drop(&g->protocol);
    slice_drop(&g->protocol_type);
    g->protocol_type = slice_own(SLICE("consumer"));
    return cg;
}

void consumers_stop(struct group *g)
{
    LIST_FOREACH (it, &g->consumer->in_order) {
        struct cmember *m = CONTAINER_OF(it, struct cmember, link);
        timer_clear(&m->session);
        timer_clear(&m->rebalance);
    }
}

void consumers_free(struct group *g)
{
    struct consumers *cg = g->consumer;
    while (!list_empty(&cg->in_order))
        cmember_remove(CONTAINER_OF(cg->in_order.next, struct cmember, link));
    table_fini(&cg->members);
    table_fini(&cg->statics);
    table_fini(&cg->owners);
    mem_free(cg);
    g->consumer = NULL;
}

const char *consumers_state_name(const struct group *g)
{
    const struct consumers *cg = g->consumer;
    if (cg->members.n == 0)
        return "Empty";
    if (cg->epoch > cg->target_epoch)
        return "Assigning";
    LIST_FOREACH (it, &cg->in_order) {
        const struct cmember *m = CONTAINER_OF(it, struct cmember, link);
        if (m->state != CMEMBER_STABLE || (m->epoch != cg->target_epoch && m->epoch != MEMBER_LEAVES_STATIC))
            return "Reconciling";
    }
    return "Stable";
}
