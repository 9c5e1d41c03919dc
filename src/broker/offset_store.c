/* offset_store.c - committed offsets: OffsetCommit, TxnOffsetCommit, and what a marker does to the pending ones.
 *
 *     commit  home: permissions, topics -> coordinator: may this member commit? -> one batch -> durable -> group_offset_set() -> answer
 *     txn     the same, after txn_verify(), in a transactional batch -> group_offset_pend() ... marker -> group_txn_end()
 *
 * A group's offsets are in one table. A slot holds the committed offset and any number of pending ones, one for each producer; pending ones are also
 * on the list of their transaction, which the marker goes through. Memory is changed when a batch is durable, in the order of the log.
 *
 * What may commit is Kafka's rule: a member with the present generation, not between the end of a join and the assignments; anybody with generation -1
 * while the group has no members.
 */
#include "consumer_group_int.h"
#include "txn_int.h"

#define COMMIT_EPOCH_VERSION 9 /* of OffsetCommit: STALE_MEMBER_EPOCH may be answered */
#define KEY_BYTES_MAX (TOPIC_NAME_MAX + 1 + sizeof(int32_t))

/* ---- the table --------------------------------------------------------------------------------------------------------------- */

/* Topic names from the log may be longer than ours: false. */
static bool key_make(char key[KEY_BYTES_MAX], struct slice topic, int32_t partition, struct slice *out)
{
    if (topic.n == 0 || topic.n > TOPIC_NAME_MAX)
        return false;
    memcpy(key, topic.p, topic.n);
    key[topic.n] = '\0';
    memcpy(key + topic.n + 1, &partition, sizeof partition);
    *out = slice_of(key, topic.n + 1 + sizeof partition);
    return true;
}

struct goffset *group_offset(const struct group *g, struct slice topic, int32_t partition)
{
    char bytes[KEY_BYTES_MAX];
    struct slice key;
    return key_make(bytes, topic, partition, &key) ? table_get(&g->offsets, key) : NULL;
}

static struct goffset *offset_slot(struct group *g, struct slice topic, int32_t partition)
{
    char bytes[KEY_BYTES_MAX];
    struct slice key;
    if (!key_make(bytes, topic, partition, &key))
        return NULL;
    struct goffset *o = table_get(&g->offsets, key);
    if (o)
        return o;
    o = mem_new(MEM_BROKER, sizeof *o);
    MUST(table_put(&g->offsets, key, o) == NULL);
    o->g = g;
    o->topic = slice_of(table_key(&g->offsets, key).p, topic.n);
    o->partition = partition;
    list_init(&o->pending);
    counter_add(&g->gs->count.offsets, 1);
    return o;
}

static void slot_settle(struct goffset *o)
{
    char bytes[KEY_BYTES_MAX];
    struct slice key;
    struct group *g = o->g;
    if (o->committed || !list_empty(&o->pending))
        return;
    MUST(key_make(bytes, o->topic, o->partition, &key) && table_del(&g->offsets, key) == o);
    mem_free(o);
    counter_add(&g->gs->count.offsets, (uint64_t)-1);
}

static void value_set(struct goffset *o, const struct offset_value *v, struct slice owned_metadata)
{
    if (o->committed)
        slice_drop(&o->v.metadata);
    o->committed = true;
    o->v = *v;
    o->v.metadata = owned_metadata;
}

void group_offset_set(struct group *g, struct slice topic, int32_t partition, const struct offset_value *v)
{
    struct goffset *o = offset_slot(g, topic, partition);
    if (o && (!o->committed || o->v.at <= v->at))
        value_set(o, v, slice_own(v->metadata));
}

bool group_topic_stale(const struct shard *here, struct slice topic, const struct kafka_uuid *id)
{
    const struct topic *t = catalog_topic(here->catalog, topic);
    return !t || !(kafka_uuid_is_zero(*id) || kafka_uuid_eq(t->id, *id));
}

/* ---- transactions --------------------------------------------------------------------------------------------------------------- */

static struct slice producer_key(const int64_t *id) { return slice_of((const char *)id, sizeof *id); }

static struct group_txn *txn_of(struct group_part *gp, int64_t producer_id)
{
    struct group_txn *t = table_get(&gp->txns, producer_key(&producer_id));
    if (t)
        return t;
    t = mem_new(MEM_BROKER, sizeof *t);
    t->producer_id = producer_id;
    list_init(&t->offsets);
    MUST(table_put(&gp->txns, producer_key(&producer_id), t) == NULL);
    return t;
}

static void txn_settle(struct group_part *gp, struct group_txn *t)
{
    if (!list_empty(&t->offsets))
        return;
    MUST(table_del(&gp->txns, producer_key(&t->producer_id)) == t);
    mem_free(t);
}

static void pending_free(struct gpending_offset *p)
{
    list_del(&p->by_offset);
    list_del(&p->by_txn);
    slice_drop(&p->v.metadata);
    p->o->g->txn_offsets--;
    mem_free(p);
}

void group_offset_forget(struct group *g, struct goffset *o)
{
    MUST(o->g == g);
    LIST_FOREACH (it, &o->pending) {
        struct gpending_offset *p = CONTAINER_OF(it, struct gpending_offset, by_offset);
        struct group_txn *t = txn_of(g->gp, p->producer_id);
        pending_free(p);
        txn_settle(g->gp, t);
    }
    if (o->committed) {
        slice_drop(&o->v.metadata);
        o->committed = false;
    }
    slot_settle(o);
}

void group_offset_pend(struct group *g, struct slice topic, int32_t partition, const struct offset_value *v, int64_t producer_id)
{
    struct goffset *o = offset_slot(g, topic, partition);
    if (!o)
        return;
    struct group_txn *t = txn_of(g->gp, producer_id);
    LIST_FOREACH (it, &o->pending) {
        struct gpending_offset *old = CONTAINER_OF(it, struct gpending_offset, by_offset);
        if (old->producer_id == producer_id)
            pending_free(old);
    }
    struct gpending_offset *p = mem_new(MEM_BROKER, sizeof *p);
    p->o = o;
    p->producer_id = producer_id;
    p->v = *v;
    p->v.metadata = slice_own(v->metadata);
    list_push(&o->pending, &p->by_offset);
    list_push(&t->offsets, &p->by_txn);
    g->txn_offsets++;
}

void group_txn_end(struct group_part *gp, int64_t producer_id, bool commit)
{
    struct group_txn *t = table_get(&gp->txns, producer_key(&producer_id));
    if (!t)
        return;
    LIST_FOREACH (it, &t->offsets) {
        struct gpending_offset *p = CONTAINER_OF(it, struct gpending_offset, by_txn);
        struct goffset *o = p->o;
        struct group *g = o->g;
        if (commit && (!o->committed || o->v.at <= p->v.at) && !group_topic_stale(gp->gs->here, o->topic, &p->v.topic_id)) {
            value_set(o, &p->v, p->v.metadata);
            p->v.metadata = (struct slice){NULL, 0};
        }
        pending_free(p);
        slot_settle(o);
        group_drop_idle(g);
    }
    txn_settle(gp, t);
}

void groups_txn_marker(struct shard *here, struct bpart *p, int64_t producer_id, bool commit)
{
    struct groups *gs = here->groups;
    struct group_part *gp = p->partition >= 0 && (uint32_t)p->partition < gs->parts_n ? gs->parts[p->partition] : NULL;
    if (gp && gp->bp == p && gp->state == GROUP_PART_ACTIVE) /* while it is loaded, the loading meets the marker */
        group_txn_end(gp, producer_id, commit);
}

void group_offsets_fini(struct group *g)
{
    for (struct table_slot *s; (s = table_next(&g->offsets, NULL));)
        group_offset_forget(g, s->value);
}

void group_txns_fini(struct group_part *gp)
{
    MUST(gp->txns.n == 0); /* every pending offset went with its group */
    table_fini(&gp->txns);
}

/* ---- a commit ---------------------------------------------------------------------------------------------------------------------- */

/* One offset of a request; where its error goes. */
struct item {
    struct slice topic;
    struct kafka_uuid topic_id;
    int32_t partition, leader_epoch;
    int64_t offset;
    struct slice metadata;
    int16_t *error;
};
/* A commit on its way; in the request's arena. */
struct commit {
    struct group_write w;
    struct txn_verify verify;
    struct breq *r;
    struct group *g;        /* a reference, while it is written */
    struct slice group, member, instance;
    struct item *items;
    int32_t n, good_n;      /* good: without an error so far */
    int32_t generation;
    int64_t retention_ms;   /* the client's own; -1: none */
    int64_t producer_id;    /* -1: no transaction */
    int16_t producer_epoch;
    struct slice transactional_id;
};

static void commit_answer(struct commit *c) { breq_answer(c->r, c->r->at); }

/* All that had no error get this one. */
static void commit_fail(struct commit *c, enum kafka_error e)
{
    for (int32_t i = 0; i < c->n; i++)
        if (!*c->items[i].error)
            *c->items[i].error = (int16_t)e;
    c->r->error = (int16_t)e;
    commit_answer(c);
}

/* The client's own retention may be as long as a number can say. */
static int64_t expires_ms(const struct commit *c)
{
    int64_t ms;
    if (c->retention_ms < 0)
        return -1;
    return __builtin_add_overflow(c->w.now_ms, c->retention_ms, &ms) ? INT64_MAX : ms;
}

static struct offset_value value_of(const struct commit *c, const struct item *it)
{
    return (struct offset_value){.offset = it->offset, .leader_epoch = it->leader_epoch, .metadata = it->metadata, .commit_ms = c->w.now_ms,
                                 .expire_ms = expires_ms(c), .topic_id = it->topic_id};
}

static void commit_apply(struct commit *c)
{
    struct group *g = c->g;
    struct group_tombs *tombs = NULL;
    int64_t at = c->w.append.base_offset;
    for (int32_t i = 0; i < c->n; i++) {
        const struct item *it = &c->items[i];
        if (*it->error)
            continue;
        struct offset_value v = value_of(c, it);
        v.at = at++;
        if (group_topic_stale(c->r->at, it->topic, &it->topic_id)) {
            tombs = tombs ? tombs : group_tombs_begin(g->gp, NULL, NULL);
            group_tombs_offset(tombs, g->id, it->topic, it->partition);
        } else if (c->producer_id >= 0) {
            group_offset_pend(g, it->topic, it->partition, &v, c->producer_id);
        } else {
            group_offset_set(g, it->topic, it->partition, &v);
        }
        counter_inc(&g->gs->count.offsets_committed);
    }
    if (tombs)
        group_tombs_end(tombs);
}

static enum kafka_error commit_error(enum kafka_error e)
{
    return e == KAFKA_RECORD_LIST_TOO_LARGE || e == KAFKA_MESSAGE_TOO_LARGE ? KAFKA_INVALID_COMMIT_OFFSET_SIZE : group_write_error(e);
}

static void commit_done(struct group_write *w, enum kafka_error e)
{
    struct commit *c = CONTAINER_OF(w, struct commit, w);
    struct group *g = c->g;
    if (!e && g->state != GROUP_DEAD)
        commit_apply(c);
    if (e)
        commit_fail(c, commit_error(e));
    else
        commit_answer(c);
    if (g->state == GROUP_DEAD) {
        group_unref(g);
        return;
    }
    g->refs--;
    group_drop_idle(g); /* it may have been made for this commit, which failed */
}

static void commit_write(struct commit *c, struct group *g)
{
    bool any = false;
    group_write_begin(&c->w, g->gp, c->producer_id, c->producer_epoch);
    for (int32_t i = 0; i < c->n; i++) {
        const struct item *it = &c->items[i];
        if (*it->error)
            continue;
        struct offset_value v = value_of(c, it);
        group_write_offset(&c->w, c->group, it->topic, it->partition, &v);
        any = true;
    }
    if (!any) {
        group_write_drop(&c->w);
        group_drop_idle(g);
        commit_answer(c);
        return;
    }
    c->g = g;
    g->refs++;
    c->w.done = commit_done;
    if (!group_write_send(&c->w))
        commit_done(&c->w, KAFKA_RECORD_LIST_TOO_LARGE);
}

/* The same for a KIP-848 group; requests that do not know of member epochs are told so. */
static enum kafka_error commit_check_epoch(const struct group *g, const struct commit *c, bool txn)
{
    if (txn && c->generation < 0 && !c->member.n)
        return KAFKA_NONE;
    enum kafka_error e = consumers_check_epoch(g, c->member, c->generation);
    if (e == KAFKA_STALE_MEMBER_EPOCH && txn)
        return KAFKA_ILLEGAL_GENERATION;
    return e == KAFKA_STALE_MEMBER_EPOCH && c->r->version < COMMIT_EPOCH_VERSION ? KAFKA_UNSUPPORTED_VERSION : e;
}

/* May it commit? txn: the rules are milder, since old clients did not say who they are (KIP-447). */
static enum kafka_error commit_check(const struct group *g, const struct commit *c)
{
    bool txn = c->producer_id >= 0;
    if (g->consumer)
        return commit_check_epoch(g, c, txn);
    if (c->generation < 0 && g->state == GROUP_EMPTY)
        return KAFKA_NONE;
    if (c->generation >= 0 || c->member.n || c->instance.p) {
        enum kafka_error e = group_check_member(g, c->member, c->instance);
        if (e)
            return e;
        if (c->generation != g->generation)
            return KAFKA_ILLEGAL_GENERATION;
    } else if (!txn && g->state != GROUP_EMPTY) {
        return KAFKA_UNKNOWN_MEMBER_ID;
    }
    return !txn && g->state == GROUP_COMPLETING ? KAFKA_REBALANCE_IN_PROGRESS : KAFKA_NONE;
}

/* On the coordinator. */
static void commit_take(struct commit *c)
{
    enum kafka_error e;
    struct group_part *gp = group_part_of(c->r->at, c->group, &e);
    if (!gp) {
        commit_fail(c, e);
        return;
    }
    counter_inc(&gp->gs->count.commits);
    struct group *g = group_find(gp, c->group);
    if (!g && c->generation >= 0)
        e = KAFKA_ILLEGAL_GENERATION;
    else if (!g && !(g = group_make(gp, c->group)))
        e = KAFKA_COORDINATOR_NOT_AVAILABLE;
    else
        e = commit_check(g, c);
    if (e) {
        commit_fail(c, e);
        return;
    }
    struct gmember *m = group_member(g, c->member);
    if (m && c->producer_id < 0 && !m->is_new)
        group_session_begin(m, (uint32_t)m->session_ms); /* it lives */
    commit_write(c, g);
}

/* ---- what both requests look at on the home shard -------------------------------------------------------------------------------------- */

static enum kafka_error item_check(struct breq *r, const struct topic *t, const struct item *it)
{
    if (!t || it->partition < 0 || it->partition >= t->partitions)
        return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (it->metadata.n > OFFSET_METADATA_MAX) {
        counter_inc(&r->home->groups->count.limit_offset_metadata);
        return KAFKA_OFFSET_METADATA_TOO_LARGE;
    }
    return KAFKA_NONE;
}

static void item_add(struct commit *c, const struct topic *t, struct item it, enum kafka_error refused)
{
    if (!it.metadata.p)
        it.metadata = SLICE("");
    if (t) {
        it.topic_id = t->id;
        it.topic = breq_text(c->r, slice_cstr(t->name));
    }
    *it.error = (int16_t)(refused ? refused : item_check(c->r, t, &it));
    if (!*it.error)
        c->good_n++;
    c->items[c->n++] = it;
}

/* ---- OffsetCommit ------------------------------------------------------------------------------------------------------------------------ */

/* In r->resp, in front: so it is found from r on the other shard. */
struct offset_commit {
    struct kafka_offset_commit_resp resp;
    struct commit c;
};

static void commit_arrived(struct breq *r) { commit_take(&((struct offset_commit *)r->resp)->c); }

static enum kafka_error topic_refused(struct breq *r, const struct topic *t, struct slice name, bool by_id)
{
    if (by_id && !t)
        return KAFKA_UNKNOWN_TOPIC_ID;
    return allowed(r, ACL_READ, ACL_TOPIC, t ? slice_cstr(t->name) : name) ? KAFKA_NONE : KAFKA_TOPIC_AUTHORIZATION_FAILED;
}

static void commit_topic(struct breq *r, struct offset_commit *oc, int32_t at, enum kafka_error refused)
{
    const struct kafka_offset_commit_req *q = r->req;
    const struct kafka_offset_commit_req_offset_commit_request_topic *in = &q->topics[at];
    struct kafka_offset_commit_resp_offset_commit_response_topic *out = &oc->resp.topics[at];
    kafka_offset_commit_resp_offset_commit_response_topic_init(out);
    bool by_id = r->version >= 10;
    const struct topic *t = by_id ? catalog_topic_by_id(r->home->catalog, &in->topic_id) : catalog_topic(r->home->catalog, in->name);
    if (!refused)
        refused = topic_refused(r, t, in->name, by_id);
    out->name = in->name;
    out->topic_id = in->topic_id;
    out->partitions = BREQ_ARRAY(r, struct kafka_offset_commit_resp_offset_commit_response_partition, in->partitions_n);
    out->partitions_n = in->partitions_n;
    for (int32_t i = 0; i < in->partitions_n; i++) {
        const struct kafka_offset_commit_req_offset_commit_request_partition *p = &in->partitions[i];
        kafka_offset_commit_resp_offset_commit_response_partition_init(&out->partitions[i]);
        out->partitions[i].partition_index = p->partition_index;
        item_add(&oc->c, t, (struct item){.topic = in->name, .partition = p->partition_index, .leader_epoch = p->committed_leader_epoch,
                                          .offset = p->committed_offset, .metadata = p->committed_metadata, .error = &out->partitions[i].error_code},
                 refused);
    }
}

static int32_t commit_count(const struct kafka_offset_commit_req *q)
{
    int32_t n = 0;
    for (int32_t i = 0; i < q->topics_n; i++)
        n += MAX(q->topics[i].partitions_n, 0);
    return n;
}

void offset_commit(struct breq *r)
{
    const struct kafka_offset_commit_req *q = r->req;
    struct offset_commit *oc = BREQ_NEW(r, struct offset_commit);
    kafka_offset_commit_resp_init(&oc->resp);
    r->resp = oc;
    oc->c = (struct commit){.r = r, .group = q->group_id, .member = q->member_id, .instance = q->group_instance_id, .generation = q->generation_id_or_member_epoch,
                            .retention_ms = r->version <= 4 ? q->retention_time_ms : -1, .producer_id = -1, .producer_epoch = -1};
    oc->c.items = BREQ_ARRAY(r, struct item, commit_count(q));
    oc->resp.topics = BREQ_ARRAY(r, struct kafka_offset_commit_resp_offset_commit_response_topic, q->topics_n);
    oc->resp.topics_n = q->topics_n;
    enum kafka_error refused = allowed(r, ACL_READ, ACL_GROUP, q->group_id) ? KAFKA_NONE : KAFKA_GROUP_AUTHORIZATION_FAILED;
    for (int32_t i = 0; i < q->topics_n; i++)
        commit_topic(r, oc, i, refused);
    if (oc->c.good_n == 0 || refused)
        commit_answer(&oc->c);
    else if (!group_visit(r, q->group_id, commit_arrived))
        commit_fail(&oc->c, KAFKA_NOT_COORDINATOR);
}

/* ---- TxnOffsetCommit ----------------------------------------------------------------------------------------------------------------------- */

struct txn_offset_commit {
    struct kafka_txn_offset_commit_resp resp;
    struct commit c;
};

static void txn_verified(struct shard *here, struct txn_verify *v)
{
    struct commit *c = CONTAINER_OF(v, struct commit, verify);
    (void)here;
    if (v->error)
        commit_fail(c, v->error == KAFKA_NOT_ENOUGH_REPLICAS ? KAFKA_COORDINATOR_LOAD_IN_PROGRESS : v->error);
    else
        commit_take(c);
}

/* On the group's shard: is its partition in the transaction (KIP-890)? */
static void txn_commit_arrived(struct breq *r)
{
    struct commit *c = &((struct txn_offset_commit *)r->resp)->c;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, c->group, &e);
    if (!gp) {
        commit_fail(c, e);
        return;
    }
    c->verify = (struct txn_verify){.transactional_id = c->transactional_id, .topic = OFFSETS_TOPIC, .partition = gp->partition, .producer_id = c->producer_id,
                                    .producer_epoch = c->producer_epoch, .done = txn_verified};
    txn_verify(r->at, &c->verify);
}

static void txn_commit_topic(struct breq *r, struct txn_offset_commit *tc, int32_t at, enum kafka_error refused)
{
    const struct kafka_txn_offset_commit_req *q = r->req;
    const struct kafka_txn_offset_commit_req_txn_offset_commit_request_topic *in = &q->topics[at];
    struct kafka_txn_offset_commit_resp_txn_offset_commit_response_topic *out = &tc->resp.topics[at];
    kafka_txn_offset_commit_resp_txn_offset_commit_response_topic_init(out);
    const struct topic *t = catalog_topic(r->home->catalog, in->name);
    if (!refused)
        refused = topic_refused(r, t, in->name, false);
    out->name = in->name;
    out->partitions = BREQ_ARRAY(r, struct kafka_txn_offset_commit_resp_txn_offset_commit_response_partition, in->partitions_n);
    out->partitions_n = in->partitions_n;
    for (int32_t i = 0; i < in->partitions_n; i++) {
        const struct kafka_txn_offset_commit_req_txn_offset_commit_request_partition *p = &in->partitions[i];
        kafka_txn_offset_commit_resp_txn_offset_commit_response_partition_init(&out->partitions[i]);
        out->partitions[i].partition_index = p->partition_index;
        item_add(&tc->c, t, (struct item){.topic = in->name, .partition = p->partition_index, .leader_epoch = p->committed_leader_epoch,
                                          .offset = p->committed_offset, .metadata = p->committed_metadata, .error = &out->partitions[i].error_code},
                 refused);
    }
}

static int32_t txn_commit_count(const struct kafka_txn_offset_commit_req *q)
{
    int32_t n = 0;
    for (int32_t i = 0; i < q->topics_n; i++)
        n += MAX(q->topics[i].partitions_n, 0);
    return n;
}

void txn_offset_commit(struct breq *r)
{
    const struct kafka_txn_offset_commit_req *q = r->req;
    struct txn_offset_commit *tc = BREQ_NEW(r, struct txn_offset_commit);
    kafka_txn_offset_commit_resp_init(&tc->resp);
    r->resp = tc;
    tc->c = (struct commit){.r = r, .group = q->group_id, .member = q->member_id, .instance = q->group_instance_id, .generation = q->generation_id,
                            .retention_ms = -1, .producer_id = q->producer_id, .producer_epoch = q->producer_epoch, .transactional_id = q->transactional_id};
    tc->c.items = BREQ_ARRAY(r, struct item, txn_commit_count(q));
    tc->resp.topics = BREQ_ARRAY(r, struct kafka_txn_offset_commit_resp_txn_offset_commit_response_topic, q->topics_n);
    tc->resp.topics_n = q->topics_n;
    enum kafka_error refused = KAFKA_NONE;
    if (!allowed(r, ACL_WRITE, ACL_TXN, q->transactional_id))
        refused = KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    else if (!allowed(r, ACL_READ, ACL_GROUP, q->group_id))
        refused = KAFKA_GROUP_AUTHORIZATION_FAILED;
    else if (q->producer_id < 0 || q->producer_epoch < 0)
        refused = KAFKA_INVALID_PRODUCER_ID_MAPPING;
    for (int32_t i = 0; i < q->topics_n; i++)
        txn_commit_topic(r, tc, i, refused);
    if (tc->c.good_n == 0 || refused)
        commit_answer(&tc->c);
    else if (!group_visit(r, q->group_id, txn_commit_arrived))
        commit_fail(&tc->c, KAFKA_NOT_COORDINATOR);
}
