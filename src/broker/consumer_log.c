/* consumer_log.c - the records of KIP-848 groups in __consumer_offsets, as Kafka writes them; the first number of a key says what it is of.
 *
 *     3 the group: its epoch       5 a member: what it subscribes to         8 a member: its epoch, what it has, what it must give up
 *     6 the epoch of the target    7 a member: what it is to have
 */
#include "consumer_group_int.h"

enum { KEY_GROUP_EPOCH = 3, KEY_MEMBER = 5, KEY_TARGET_EPOCH = 6, KEY_TARGET = 7, KEY_CURRENT = 8 };

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static void put(struct group_write *w, bool tombstone)
{
    struct groups *gs = w->gp->gs;
    kafka_batch_add(&w->build, w->now_ms, buf_slice(&gs->key), tombstone ? (struct slice){NULL, 0} : buf_slice(&gs->value), NULL, 0);
}

/* A key is its number, the group, and a member: whose are two strings in every one of them. */
static void key(struct group_write *w, int16_t number, struct slice group, struct slice member)
{
    struct kafka_writer kw;
    struct buf *b = &w->gp->gs->key;
    buf_clear(b);
    kafka_writer_init(&kw, b);
    kafka_write_int16(&kw, number);
    kafka_write_string(&kw, group, false);
    if (member.p)
        kafka_write_string(&kw, member, false);
    kafka_writer_fini(&kw);
}

static struct kafka_writer value_begin(struct group_write *w)
{
    struct kafka_writer kw;
    buf_clear(&w->gp->gs->value);
    kafka_writer_init(&kw, &w->gp->gs->value);
    kafka_write_int16(&kw, 0);
    return kw;
}

static const struct slice none = {NULL, 0};

void consumers_write_epoch(struct group_write *w, const struct consumers *cg)
{
    struct kafka_consumer_group_metadata_value v;
    kafka_consumer_group_metadata_value_init(&v);
    v.epoch = cg->epoch;
    key(w, KEY_GROUP_EPOCH, cg->g->id, none);
    struct kafka_writer kw = value_begin(w);
    kafka_consumer_group_metadata_value_write(&kw, 0, &v);
    kafka_writer_fini(&kw);
    put(w, false);
}

void consumers_write_target_epoch(struct group_write *w, const struct consumers *cg)
{
    struct kafka_consumer_group_target_assignment_metadata_value v;
    kafka_consumer_group_target_assignment_metadata_value_init(&v);
    v.assignment_epoch = cg->target_epoch;
    key(w, KEY_TARGET_EPOCH, cg->g->id, none);
    struct kafka_writer kw = value_begin(w);
    kafka_consumer_group_target_assignment_metadata_value_write(&kw, 0, &v);
    kafka_writer_fini(&kw);
    put(w, false);
}

void consumers_write_member(struct group_write *w, const struct cmember *m)
{
    struct kafka_consumer_group_member_metadata_value v;
    kafka_consumer_group_member_metadata_value_init(&v);
    v.instance_id = m->instance;
    v.rack_id = m->rack;
    v.client_id = m->client_id.p ? m->client_id : SLICE("");
    v.client_host = m->client_host.p ? m->client_host : SLICE("");
    v.subscribed_topic_names = m->topics;
    v.subscribed_topic_names_n = m->topics_n;
    v.subscribed_topic_regex = m->regex;
    v.rebalance_timeout_ms = m->rebalance_ms;
    v.server_assignor = m->assignor;
    key(w, KEY_MEMBER, m->g->id, m->id);
    struct kafka_writer kw = value_begin(w);
    kafka_consumer_group_member_metadata_value_write(&kw, 0, &v);
    kafka_writer_fini(&kw);
    put(w, false);
}

/* The runs of one topic in a set: fn for each. */
static int32_t run(const struct tps *s, uint32_t at)
{
    uint32_t k = at + 1;
    while (k < s->n && kafka_uuid_eq(s->p[k].topic, s->p[at].topic))
        k++;
    return (int32_t)(k - at);
}

static int32_t *numbers(const struct tps *s, uint32_t at, int32_t n, struct arena *a)
{
    int32_t *out = arena_alloc(a, (size_t)n * sizeof *out);
    for (int32_t i = 0; i < n; i++)
        out[i] = s->p[at + (uint32_t)i].partition;
    return out;
}

void consumers_write_target(struct group_write *w, const struct cmember *m)
{
    struct kafka_consumer_group_target_assignment_member_value v;
    struct arena a;
    arena_init(&a, MEM_BROKER, 4096);
    kafka_consumer_group_target_assignment_member_value_init(&v);
    v.topic_partitions = arena_zalloc(&a, MAX(m->target.n, 1) * sizeof *v.topic_partitions);
    for (uint32_t i = 0; i < m->target.n;) {
        int32_t n = run(&m->target, i);
        v.topic_partitions[v.topic_partitions_n].topic_id = m->target.p[i].topic;
        v.topic_partitions[v.topic_partitions_n].partitions = numbers(&m->target, i, n, &a);
        v.topic_partitions[v.topic_partitions_n++].partitions_n = n;
        i += (uint32_t)n;
    }
    key(w, KEY_TARGET, m->g->id, m->id);
    struct kafka_writer kw = value_begin(w);
    kafka_consumer_group_target_assignment_member_value_write(&kw, 0, &v);
    kafka_writer_fini(&kw);
    put(w, false);
    arena_fini(&a);
}

static struct kafka_consumer_group_current_member_assignment_value_topic_partitions *topics_of(const struct tps *s, struct arena *a, int32_t *topics_n)
{
    struct kafka_consumer_group_current_member_assignment_value_topic_partitions *out = arena_zalloc(a, MAX(s->n, 1) * sizeof *out);
    *topics_n = 0;
    for (uint32_t i = 0; i < s->n;) {
        int32_t n = run(s, i);
        out[*topics_n].topic_id = s->p[i].topic;
        out[*topics_n].partitions = numbers(s, i, n, a);
        out[(*topics_n)++].partitions_n = n;
        i += (uint32_t)n;
    }
    return out;
}

void consumers_write_current(struct group_write *w, const struct cmember *m)
{
    struct kafka_consumer_group_current_member_assignment_value v;
    struct arena a;
    arena_init(&a, MEM_BROKER, 4096);
    kafka_consumer_group_current_member_assignment_value_init(&v);
    v.member_epoch = m->epoch;
    v.previous_member_epoch = m->previous;
    v.state = (int8_t)m->state;
    v.assigned_partitions = topics_of(&m->assigned, &a, &v.assigned_partitions_n);
    v.partitions_pending_revocation = topics_of(&m->revoking, &a, &v.partitions_pending_revocation_n);
    key(w, KEY_CURRENT, m->g->id, m->id);
    struct kafka_writer kw = value_begin(w);
    kafka_consumer_group_current_member_assignment_value_write(&kw, 0, &v);
    kafka_writer_fini(&kw);
    put(w, false);
    arena_fini(&a);
}

void consumers_write_all(struct group_write *w, const struct consumers *cg)
{
    LIST_FOREACH (it, &cg->in_order) {
        const struct cmember *m = CONTAINER_OF(it, struct cmember, link);
        consumers_write_member(w, m);
        consumers_write_target(w, m);
    }
    consumers_write_epoch(w, cg);
    consumers_write_target_epoch(w, cg);
    LIST_FOREACH (it, &cg->in_order)
        consumers_write_current(w, CONTAINER_OF(it, struct cmember, link));
}

void consumers_write_member_gone(struct group_write *w, struct slice group, struct slice member)
{
    static const int16_t numbers_of[] = {KEY_CURRENT, KEY_TARGET, KEY_MEMBER};
    for (size_t i = 0; i < COUNT_OF(numbers_of); i++) {
        key(w, numbers_of[i], group, member);
        put(w, true);
    }
}

void consumers_tombs(struct group_tombs *t, const struct group *g)
{
    group_tombs_numbered(t, KEY_TARGET_EPOCH, g->id);
    group_tombs_numbered(t, KEY_GROUP_EPOCH, g->id);
}

/* ---- reading again ----------------------------------------------------------------------------------------------------------- */

/* The member of a record, made when it is not there; NULL: the group cannot be made. */
static struct cmember *member_for(struct group *g, struct slice id, struct slice instance)
{
    struct cmember *m = cmember_find(g->consumer, id);
    if (m && instance.p && !slice_eq(m->instance, instance)) {
        cmember_remove(m);
        m = NULL;
    }
    struct cmember *holder = cmember_static(g->consumer, instance);
    if (holder && holder != m)
        cmember_remove(holder);
    return m ? m : cmember_add(g->consumer, id, instance);
}

static bool take_member(struct group *g, struct slice id, struct kafka_reader *rd, struct arena *a)
{
    struct kafka_consumer_group_member_metadata_value v;
    if (kafka_consumer_group_member_metadata_value_read(rd, 0, a, &v) != OK)
        return false;
    struct cmember *m = member_for(g, id, v.instance_id);
    slice_drop(&m->rack);
    slice_drop(&m->client_id);
    slice_drop(&m->client_host);
    slice_drop(&m->regex);
    slice_drop(&m->assignor);
    m->rack = slice_own(v.rack_id);
    m->client_id = slice_own(v.client_id);
    m->client_host = slice_own(v.client_host);
    m->regex = slice_own(v.subscribed_topic_regex);
    m->assignor = slice_own(v.server_assignor);
    m->rebalance_ms = v.rebalance_timeout_ms;
    cmember_topics_set(m, v.subscribed_topic_names, v.subscribed_topic_names_n);
    return true;
}

static bool take_target(struct cmember *m, struct kafka_reader *rd, struct arena *a)
{
    struct kafka_consumer_group_target_assignment_member_value v;
    if (kafka_consumer_group_target_assignment_member_value_read(rd, 0, a, &v) != OK)
        return false;
    tps_clear(&m->target);
    for (int32_t i = 0; i < v.topic_partitions_n; i++)
        for (int32_t k = 0; k < v.topic_partitions[i].partitions_n; k++)
            tps_add(&m->target, (struct tp){v.topic_partitions[i].topic_id, v.topic_partitions[i].partitions[k]});
    tps_sort(&m->target);
    return true;
}

static struct tps set_of(const struct kafka_consumer_group_current_member_assignment_value_topic_partitions *t, int32_t n)
{
    struct tps out = {0};
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < t[i].partitions_n; k++)
            tps_add(&out, (struct tp){t[i].topic_id, t[i].partitions[k]});
    tps_sort(&out);
    return out;
}

static bool take_current(struct cmember *m, struct kafka_reader *rd, struct arena *a)
{
    struct kafka_consumer_group_current_member_assignment_value v;
    if (kafka_consumer_group_current_member_assignment_value_read(rd, 0, a, &v) != OK || v.state < CMEMBER_STABLE || v.state > CMEMBER_UNRELEASED)
        return false;
    m->epoch = v.member_epoch;
    m->previous = v.previous_member_epoch;
    m->state = (enum cmember_state)v.state;
    cmember_own(m, set_of(v.assigned_partitions, v.assigned_partitions_n), set_of(v.partitions_pending_revocation, v.partitions_pending_revocation_n));
    return true;
}

static bool take_gone(struct group *g, int16_t number, struct slice member)
{
    struct cmember *m = g && g->consumer && member.p ? cmember_find(g->consumer, member) : NULL;
    if (number == KEY_MEMBER && m)
        cmember_remove(m);
    else if (number == KEY_TARGET && m)
        tps_clear(&m->target);
    else if (number == KEY_GROUP_EPOCH && g && g->consumer) {
        consumers_free(g);
        slice_drop(&g->protocol_type);
        g->on_disk = false;
    }
    return true;
}

static bool take_epochs(struct consumers *cg, int16_t number, struct kafka_reader *rd, struct arena *a)
{
    struct kafka_consumer_group_metadata_value v;
    struct kafka_consumer_group_target_assignment_metadata_value t;
    if (number == KEY_GROUP_EPOCH) {
        if (kafka_consumer_group_metadata_value_read(rd, 0, a, &v) != OK)
            return false;
        cg->epoch = v.epoch;
        return true;
    }
    if (kafka_consumer_group_target_assignment_metadata_value_read(rd, 0, a, &t) != OK)
        return false;
    cg->target_epoch = t.assignment_epoch;
    return true;
}

bool consumers_take_record(struct group_part *gp, int16_t number, struct kafka_reader *key_rd, struct slice value, struct arena *a)
{
    bool of_member = number == KEY_MEMBER || number == KEY_TARGET || number == KEY_CURRENT;
    if (!of_member && number != KEY_GROUP_EPOCH && number != KEY_TARGET_EPOCH)
        return false;
    struct slice id = kafka_read_string(key_rd, false), member = of_member ? kafka_read_string(key_rd, false) : none;
    if (key_rd->err || !id.p || (of_member && !member.p))
        return false;
    struct group *g = group_find(gp, id);
    if (!value.p)
        return take_gone(g, number, member);
    struct kafka_reader rd;
    kafka_reader_init(&rd, value);
    if (kafka_read_int16(&rd) != 0 || rd.err)
        return false;
    if (!g && !(g = group_make(gp, id)))
        return false;
    if (!g->consumer) {
        group_classic_forget(g);
        consumers_make(g);
    }
    g->state_ms = wall_ms();
    g->on_disk = true;
    if (number == KEY_MEMBER)
        return take_member(g, member, &rd, a);
    if (!of_member)
        return take_epochs(g->consumer, number, &rd, a);
    struct cmember *m = member_for(g, member, none);
    return number == KEY_TARGET ? take_target(m, &rd, a) : take_current(m, &rd, a);
}

void consumers_loaded(struct group *g)
{
    g->state = g->consumer->members.n ? GROUP_STABLE : GROUP_EMPTY;
    g->consumer->subscribed = 0; /* the first heartbeat looks whether the topics are as they were; a new target keeps what it can */
    LIST_FOREACH (it, &g->consumer->in_order) {
        struct cmember *m = CONTAINER_OF(it, struct cmember, link);
        timer_set(group_loop(g), &m->session, CONSUMERS_SESSION_MS);
        if (m->state == CMEMBER_UNREVOKED)
            timer_set(group_loop(g), &m->rebalance, (uint32_t)MAX(m->rebalance_ms, 0));
    }
}
