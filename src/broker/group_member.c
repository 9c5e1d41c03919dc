/* group_member.c - a group and its members as data.
 *
 * A group holds its members in a table by id and in a list by the order in which they came; which of them is static is in a second table, by
 * instance id. How many members support each protocol is counted as they come and go, so that the choice of a protocol looks
 * at every member once. Nothing here sends an answer or sets a timer: see group_join.c.
 */
#include "consumer_group_int.h"

const char *group_state_name(enum group_state s)
{
    static const char *const names[] = {"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"};
    return names[s];
}

struct slice slice_own(struct slice s)
{
    return s.p ? slice_of(mem_strndup(MEM_BROKER, s.p, s.n), s.n) : s;
}

void slice_drop(struct slice *s)
{
    mem_free((void *)(uintptr_t)s->p);
    *s = (struct slice){NULL, 0};
}

int64_t wall_ms(void) { return (int64_t)(wall_ns() / 1000000); }

struct loop *group_loop(const struct group *g) { return g->gs->here->loop; }

/* ---- groups ------------------------------------------------------------------------------------------------------------- */

struct group *group_find(struct group_part *gp, struct slice id) { return table_get(&gp->groups, id); }

struct group *group_make(struct group_part *gp, struct slice id)
{
    struct groups *gs = gp->gs;
    if (counter_read(&gs->count.groups) >= GROUPS_MAX) {
        counter_inc(&gs->count.limit_groups);
        return NULL;
    }
    struct group *g = mem_new(MEM_BROKER, sizeof *g);
    g->gp = gp;
    g->gs = gs;
    g->state_ms = wall_ms();
    list_init(&g->in_order);
    group_timers_init(g);
    MUST(table_put(&gp->groups, id, g) == NULL);
    g->id = table_key(&gp->groups, id);
    counter_add(&gs->count.groups, 1);
    return g;
}

static void group_free(struct group *g)
{
    MUST(g->state == GROUP_DEAD && g->refs == 0 && g->members.n == 0 && g->offsets.n == 0);
    table_fini(&g->members);
    table_fini(&g->statics);
    table_fini(&g->pending);
    table_fini(&g->supported);
    table_fini(&g->offsets);
    slice_drop(&g->protocol_type);
    slice_drop(&g->protocol);
    slice_drop(&g->id);
    mem_free(g);
}

void group_kill(struct group *g, enum kafka_error e)
{
    MUST(g->gp && g->state != GROUP_DEAD);
    group_stop_waiting(g, e);
    while (!list_empty(&g->in_order))
        gmember_remove(CONTAINER_OF(g->in_order.next, struct gmember, link));
    for (struct table_slot *s; (s = table_next(&g->pending, NULL));)
        group_pending_remove(s->value);
    group_offsets_fini(g);
    if (g->consumer)
        consumers_free(g);
    struct slice id = slice_own(g->id);
    MUST(table_del(&g->gp->groups, g->id) == g);
    g->id = id;
    g->gp = NULL;
    g->state = GROUP_DEAD;
    counter_add(&g->gs->count.groups, (uint64_t)-1);
    g->refs++;
    group_unref(g);
}

void group_unref(struct group *g)
{
    MUST(g->refs > 0);
    g->refs--;
    if (g->refs == 0 && g->state == GROUP_DEAD)
        group_free(g);
}

void group_drop_idle(struct group *g)
{
    if (g->state == GROUP_EMPTY && g->refs == 0 && !g->on_disk && (!g->consumer || g->consumer->members.n == 0) && g->members.n == 0 && g->pending.n == 0 && g->offsets.n == 0)
        group_kill(g, KAFKA_NOT_COORDINATOR);
}

const char *group_state_text(const struct group *g) { return g->consumer ? consumers_state_name(g) : group_state_name(g->state); }
size_t group_members_n(const struct group *g) { return g->consumer ? g->consumer->members.n : g->members.n; }

void group_state_set(struct group *g, enum group_state s)
{
    g->state = s;
    g->state_ms = wall_ms();
}

/* ---- protocols of a member ------------------------------------------------------------------------------------------------- */

static void supported_add(struct group *g, struct slice name, int32_t more)
{
    uintptr_t n = (uintptr_t)table_get(&g->supported, name);
    n = more > 0 ? n + 1 : n - 1;
    if (n)
        (void)table_put(&g->supported, name, (void *)n); /* what it replaces is a number */
    else
        (void)table_del(&g->supported, name);
}

static void supported_all(struct gmember *m, int32_t more)
{
    for (uint32_t i = 0; i < m->protocols_n; i++)
        supported_add(m->g, m->protocols[i].name, more);
}

size_t group_protocols_bytes(struct group_protocols_in in)
{
    size_t n = 0;
    for (int32_t i = 0; i < in.n; i++)
        n += in.p[i].name.n + in.p[i].metadata.n;
    return n;
}

static bool named_before(struct group_protocols_in in, int32_t at)
{
    for (int32_t i = 0; i < at; i++)
        if (slice_eq(in.p[i].name, in.p[at].name))
            return true;
    return false;
}

static struct slice put(char **to, struct slice s)
{
    char *at = *to;
    if (s.n)
        memcpy(at, s.p, s.n);
    *to += s.n;
    return slice_of(at, s.n);
}

static void protocols_copy(struct gmember *m, struct group_protocols_in in)
{
    uint32_t n = in.n > 0 ? (uint32_t)in.n : 0;
    m->protocol_bytes = group_protocols_bytes(in);
    m->protocols = mem_new(MEM_BROKER, n * sizeof *m->protocols + m->protocol_bytes + 1);
    m->protocols_n = 0;
    char *to = (char *)(m->protocols + n);
    for (int32_t i = 0; i < in.n; i++) {
        if (named_before(in, i))
            continue; /* the first one counts */
        struct group_protocol *p = &m->protocols[m->protocols_n++];
        p->name = put(&to, in.p[i].name);
        p->metadata = put(&to, in.p[i].metadata);
    }
}

void gmember_protocols_set(struct gmember *m, struct group_protocols_in in)
{
    supported_all(m, -1);
    struct group_protocol *old = m->protocols;
    protocols_copy(m, in);
    mem_free(old);
    supported_all(m, 1);
}

bool gmember_matches(const struct gmember *m, struct group_protocols_in in)
{
    uint32_t at = 0;
    for (int32_t i = 0; i < in.n; i++) {
        if (named_before(in, i))
            continue;
        if (at == m->protocols_n || !slice_eq(m->protocols[at].name, in.p[i].name) || !slice_eq(m->protocols[at].metadata, in.p[i].metadata))
            return false;
        at++;
    }
    return at == m->protocols_n;
}

struct slice gmember_metadata(const struct gmember *m, struct slice protocol)
{
    for (uint32_t i = 0; i < m->protocols_n; i++)
        if (slice_eq(m->protocols[i].name, protocol))
            return m->protocols[i].metadata;
    return SLICE("");
}

/* ---- members --------------------------------------------------------------------------------------------------------------- */

struct gmember *group_member(const struct group *g, struct slice id) { return table_get(&g->members, id); }
struct gmember *group_static(const struct group *g, struct slice instance) { return instance.p ? table_get(&g->statics, instance) : NULL; }

struct gmember *gmember_add(struct group *g, const struct gmember_conf *c)
{
    struct gmember *m = mem_new(MEM_BROKER, sizeof *m);
    m->g = g;
    m->instance = slice_own(c->instance);
    m->client_id = slice_own(c->client_id);
    m->client_host = slice_own(c->client_host);
    m->rebalance_ms = c->rebalance_ms;
    m->session_ms = c->session_ms;
    timer_init(&m->session, group_session_expired);
    MUST(table_put(&g->members, c->id, m) == NULL);
    m->id = table_key(&g->members, c->id);
    if (c->instance.p)
        MUST(table_put(&g->statics, c->instance, m) == NULL);
    if (g->in_order.next == &g->in_order) {
        slice_drop(&g->protocol_type);
        g->protocol_type = slice_own(c->protocol_type);
    }
    list_push(&g->in_order, &m->link);
    protocols_copy(m, c->protocols);
    supported_all(m, 1);
    if (!g->leader)
        g->leader = m;
    counter_add(&g->gs->count.members, 1);
    return m;
}

void gmember_remove(struct gmember *m)
{
    struct group *g = m->g;
    MUST(!m->join && !m->sync);
    timer_clear(&m->session);
    supported_all(m, -1);
    list_del(&m->link);
    MUST(table_del(&g->members, m->id) == m);
    if (m->instance.p)
        MUST(table_del(&g->statics, m->instance) == m);
    if (m->sync_wanted)
        g->sync_wanted_n--;
    if (g->leader == m)
        g->leader = list_empty(&g->in_order) ? NULL : CONTAINER_OF(g->in_order.next, struct gmember, link);
    mem_free(m->protocols);
    slice_drop(&m->instance);
    slice_drop(&m->client_id);
    slice_drop(&m->client_host);
    slice_drop(&m->assignment);
    slice_drop(&m->next);
    mem_free(m);
    counter_add(&g->gs->count.members, (uint64_t)-1);
}

void gmember_rename(struct gmember *m, struct slice id)
{
    struct group *g = m->g;
    MUST(table_del(&g->members, m->id) == m);
    MUST(table_put(&g->members, id, m) == NULL);
    m->id = table_key(&g->members, id);
}

void group_pending_add(struct group *g, struct slice id, uint32_t session_ms, void (*expired)(struct timer *t))
{
    struct gpending *p = mem_new(MEM_BROKER, sizeof *p);
    p->g = g;
    timer_init(&p->session, expired);
    MUST(table_put(&g->pending, id, p) == NULL);
    p->id = table_key(&g->pending, id);
    timer_set(group_loop(g), &p->session, session_ms);
}

void group_pending_remove(struct gpending *p)
{
    timer_clear(&p->session);
    MUST(table_del(&p->g->pending, p->id) == p);
    mem_free(p);
}

/* ---- what members have in common --------------------------------------------------------------------------------------------- */

static bool all_support(const struct group *g, struct slice name) { return (uintptr_t)table_get(&g->supported, name) == g->members.n; }

bool group_supports(const struct group *g, struct slice protocol_type, struct group_protocols_in in)
{
    if (g->members.n == 0)
        return protocol_type.n > 0 && in.n > 0;
    if (!slice_eq(g->protocol_type, protocol_type))
        return false;
    for (int32_t i = 0; i < in.n; i++)
        if (all_support(g, in.p[i].name))
            return true;
    return false;
}

/* The first of its protocols that all support. */
static struct slice vote(const struct gmember *m)
{
    for (uint32_t i = 0; i < m->protocols_n; i++)
        if (all_support(m->g, m->protocols[i].name))
            return m->protocols[i].name;
    return (struct slice){NULL, 0};
}

struct slice group_choose_protocol(const struct group *g)
{
    if (!g->leader)
        return (struct slice){NULL, 0};
    const struct gmember *first = g->leader; /* any member lists every candidate */
    struct slice best = {NULL, 0};
    uint32_t best_votes = 0;
    for (uint32_t i = 0; i < first->protocols_n; i++) {
        struct slice name = first->protocols[i].name;
        if (!all_support(g, name))
            continue;
        uint32_t votes = 0;
        LIST_FOREACH (it, &g->in_order)
            votes += slice_eq(vote(CONTAINER_OF(it, struct gmember, link)), name);
        if (votes > best_votes) {
            best = name;
            best_votes = votes;
        }
    }
    return best;
}

int32_t group_rebalance_ms(const struct group *g)
{
    int32_t ms = 0;
    LIST_FOREACH (it, &g->in_order)
        ms = MAX(ms, CONTAINER_OF(it, struct gmember, link)->rebalance_ms);
    return ms;
}

/* Whether the subscription in a consumer's metadata has the topic; true when it cannot be read. */
static bool metadata_names(struct slice metadata, struct slice topic)
{
    struct kafka_reader rd;
    struct arena a;
    arena_init(&a, MEM_BROKER, 1024);
    kafka_reader_init(&rd, metadata);
    int16_t version = kafka_read_int16(&rd);
    struct kafka_consumer_protocol_subscription sub;
    bool found = version < 0 || kafka_consumer_protocol_subscription_read(&rd, MIN(version, 3), &a, &sub) != OK;
    for (int32_t i = 0; !found && i < sub.topics_n; i++)
        found = slice_eq(sub.topics[i], topic);
    arena_fini(&a);
    return found;
}

bool group_subscribed(const struct group *g, struct slice topic)
{
    if (g->consumer)
        return consumers_subscribes(g->consumer, topic);
    if (g->members.n == 0)
        return false;
    if (!slice_is(g->protocol_type, "consumer") || !g->protocol.p)
        return true;
    LIST_FOREACH (it, &g->in_order)
        if (metadata_names(gmember_metadata(CONTAINER_OF(it, struct gmember, link), g->protocol), topic))
            return true;
    return false;
}
