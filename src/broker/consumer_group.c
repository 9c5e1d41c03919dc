/* consumer_group.c - KIP-848: ConsumerGroupHeartbeat and ConsumerGroupDescribe. The broker assigns; members are told what to give up and what to take.
 *
 *     heartbeat -> who is it, is its epoch the present one? -> what it says anew -> the group's epoch goes up? -> a target for all -> reconcile() -> records -> durable -> answer
 *
 * The group's epoch goes up with members, subscriptions and their topics; a target is made for it at the next heartbeat of anybody. Each member goes
 * towards its target by itself, with the answers to its heartbeats:
 *
 *     Stable -> (must give something up) Unrevoked -> (has done so) -> at the target's epoch: Stable, or Unreleased while others still own what is to be its
 *
 * A partition is given to a member only when nobody owns it: owners holds what is assigned and what is not given up yet. Memory goes ahead of the disk, answers do
 * not: they wait for the records. When a write fails, the next one writes the group anew.
 */
#include "consumer_group_int.h"
#include "security_int.h"

#define HEARTBEAT_MEMBER_ID_VERSION 1 /* from here on members make their own id (KIP-1082) */

/* In the request's arena; the answer comes first, so this is found from r->resp. */
struct beat {
    struct kafka_consumer_group_heartbeat_resp resp;
    struct kafka_consumer_group_heartbeat_resp_assignment assignment;
    struct group_write w;
    struct breq *r;
    struct group *g;             /* a reference while it is written */
    struct slice id, instance;
    struct tps owned;            /* what the member says that it owns; valid when owned_said */
    bool owned_said, full;       /* full: it wants to be told everything */
    bool records;                /* something is in w */
};

static void beat_answer(struct beat *b)
{
    tps_clear(&b->owned);
    group_answer(b->r);
}

static void beat_refuse(struct beat *b, enum kafka_error e, const char *why)
{
    b->resp.error_code = (int16_t)e;
    b->resp.error_message = slice_cstr(why);
    b->r->error = (int16_t)e;
    b->resp.assignment = NULL;
    beat_answer(b);
}

static void records(struct beat *b)
{
    if (!b->records)
        group_write_begin(&b->w, b->g->gp, -1, -1);
    b->records = true;
}

/* ---- members that go -------------------------------------------------------------------------------------------------------- */

static void size_changed(struct group *g)
{
    enum group_state s = g->consumer->members.n ? GROUP_STABLE : GROUP_EMPTY;
    if (g->state != s)
        group_state_set(g, s);
}

static void member_out(struct group_write *w, struct cmember *m)
{
    struct group *g = m->g;
    consumers_write_member_gone(w, g->id, m->id);
    cmember_remove(m);
    g->consumer->epoch++;
    g->consumer->catalog_version = 0; /* its subscription counts no more */
    consumers_write_epoch(w, g->consumer);
    size_changed(g);
}

/* A write that nobody waits for. */
struct out_write {
    struct group_write w;
    struct group *g;             /* a reference */
};

static void out_done(struct group_write *w, enum kafka_error e)
{
    struct out_write *o = CONTAINER_OF(w, struct out_write, w);
    o->g->writes--;
    if (o->g->consumer)
        o->g->consumer->rewrite |= e != KAFKA_NONE;
    group_unref(o->g);
    mem_free(o);
}

static void fence(struct cmember *m, const char *why)
{
    struct group *g = m->g;
    struct out_write *o = mem_new(MEM_BROKER, sizeof *o);
    log_info("broker", "group " SLICE_FMT ": member " SLICE_FMT " %s and is removed", SLICE_ARG(g->id), SLICE_ARG(m->id), why);
    counter_inc(&g->gs->count.sessions_ended);
    o->g = g;
    o->w.done = out_done;
    g->refs++;
    g->writes++;
    group_write_begin(&o->w, g->gp, -1, -1);
    member_out(&o->w, m);
    if (!group_write_send(&o->w))
        out_done(&o->w, KAFKA_RECORD_LIST_TOO_LARGE);
}

void cmember_session_expired(struct timer *t) { fence(CONTAINER_OF(t, struct cmember, session), "was not heard of"); }
void cmember_rebalance_expired(struct timer *t) { fence(CONTAINER_OF(t, struct cmember, rebalance), "did not give up its partitions in time"); }

/* ---- towards the target -------------------------------------------------------------------------------------------------------- */

static bool owns_any(const struct beat *b, const struct tps *what) { return !b->owned_said || tps_meet(&b->owned, what); }

/* What is to be the member's and nobody else's now; unreleased: some of it is somebody else's yet. */
static struct tps free_of_others(const struct cmember *m, const struct tps *wanted, bool *unreleased)
{
    struct tps out = {0};
    for (uint32_t i = 0; i < wanted->n; i++) {
        const struct cmember *owner = consumers_owner(m->g->consumer, wanted->p[i]);
        if (!owner || owner == m)
            tps_add(&out, wanted->p[i]);
        else
            *unreleased = true;
    }
    return out;
}

static void advance(struct cmember *m, int32_t epoch, enum cmember_state state)
{
    if (m->epoch != epoch) {
        m->previous = m->epoch;
        m->epoch = epoch;
    }
    m->state = state;
}

/* From what it has and the epoch that it has reached: what it must give up, or else what it gets. */
static void next_assignment(const struct beat *b, struct cmember *m, int32_t epoch)
{
    struct tps keep = tps_and(&m->assigned, &m->target), revoke = tps_minus(&m->assigned, &m->target);
    if (revoke.n && owns_any(b, &revoke)) {
        advance(m, epoch, CMEMBER_UNREVOKED);
        cmember_own(m, keep, revoke);
        return;
    }
    bool unreleased = false;
    cmember_own(m, tps_copy(&keep), (struct tps){0});
    struct tps wanted = tps_minus(&m->target, &keep), more = free_of_others(m, &wanted, &unreleased);
    for (uint32_t i = 0; i < more.n; i++)
        tps_add(&keep, more.p[i]);
    tps_sort(&keep);
    advance(m, m->g->consumer->target_epoch, unreleased ? CMEMBER_UNRELEASED : CMEMBER_STABLE);
    cmember_own(m, keep, (struct tps){0});
    tps_clear(&revoke);
    tps_clear(&wanted);
    tps_clear(&more);
}

/* True: what it has, its epoch or its state is another one than before. */
static bool reconcile(const struct beat *b, struct cmember *m, bool *assigned_changed)
{
    struct tps assigned = tps_copy(&m->assigned), revoking = tps_copy(&m->revoking);
    int32_t epoch = m->epoch;
    enum cmember_state state = m->state;
    if (state == CMEMBER_STABLE && epoch != m->g->consumer->target_epoch)
        next_assignment(b, m, epoch);
    else if (state == CMEMBER_UNREVOKED && !owns_any(b, &m->revoking))
        next_assignment(b, m, epoch + 1);
    else if (state == CMEMBER_UNRELEASED)
        next_assignment(b, m, epoch);
    *assigned_changed = !tps_equal(&assigned, &m->assigned);
    bool changed = *assigned_changed || !tps_equal(&revoking, &m->revoking) || epoch != m->epoch || state != m->state;
    tps_clear(&assigned);
    tps_clear(&revoking);
    return changed;
}

static void timers(struct cmember *m)
{
    struct loop *l = group_loop(m->g);
    timer_set(l, &m->session, CONSUMERS_SESSION_MS);
    if (m->state != CMEMBER_UNREVOKED)
        timer_clear(&m->rebalance);
    else if (!timer_is_set(&m->rebalance))
        timer_set(l, &m->rebalance, (uint32_t)MAX(m->rebalance_ms, 0));
}

/* ---- who is it? --------------------------------------------------------------------------------------------------------------------- */

static enum kafka_error epoch_check(const struct beat *b, const struct cmember *m, int32_t epoch)
{
    if (epoch == m->epoch || epoch == MEMBER_JOINS)
        return KAFKA_NONE;
    bool behind = epoch < m->epoch && epoch == m->previous; /* it missed the last answer */
    return behind && b->owned_said && tps_within(&b->owned, &m->assigned) ? KAFKA_NONE : KAFKA_FENCED_MEMBER_EPOCH;
}

static enum kafka_error member_new(struct beat *b, struct consumers *cg, struct cmember **out)
{
    if (cg->members.n >= MIN(CONSUMERS_SIZE_MAX, cg->g->gs->size_max)) {
        counter_inc(&cg->g->gs->count.limit_size);
        return KAFKA_GROUP_MAX_SIZE_REACHED;
    }
    *out = cmember_add(cg, b->id, b->instance);
    size_changed(cg->g);
    return KAFKA_NONE;
}

/* A static member that left for a while is back, as another process (KIP-345): it takes over what it had. */
static void member_back(struct beat *b, struct cmember *m)
{
    records(b);
    consumers_write_member_gone(&b->w, m->g->id, m->id);
    cmember_rename(m, b->id);
    m->epoch = m->previous = 0;
    m->g->consumer->subscribed = consumers_subscribed(m->g->consumer, m->g->gs->here->catalog); /* an id is another one: no reason for a new target */
    consumers_write_member(&b->w, m);
    consumers_write_target(&b->w, m);
}

static enum kafka_error static_member(struct beat *b, struct consumers *cg, int32_t epoch, struct cmember **out)
{
    struct cmember *m = cmember_static(cg, b->instance);
    if (!m && epoch == MEMBER_JOINS)
        return cmember_find(cg, b->id) ? KAFKA_INVALID_REQUEST : member_new(b, cg, out);
    if (!m)
        return KAFKA_UNKNOWN_MEMBER_ID;
    if (!slice_eq(m->id, b->id)) {
        if (epoch != MEMBER_JOINS)
            return KAFKA_FENCED_INSTANCE_ID;
        if (m->epoch != MEMBER_LEAVES_STATIC)
            return KAFKA_UNRELEASED_INSTANCE_ID;
        if (cmember_find(cg, b->id))
            return KAFKA_INVALID_REQUEST; /* the id is another member's */
        member_back(b, m);
    }
    *out = m;
    return epoch_check(b, m, epoch);
}

static enum kafka_error member_of(struct beat *b, struct consumers *cg, int32_t epoch, struct cmember **out)
{
    if (b->instance.p)
        return static_member(b, cg, epoch, out);
    *out = cmember_find(cg, b->id);
    if (!*out)
        return epoch == MEMBER_JOINS ? member_new(b, cg, out) : KAFKA_UNKNOWN_MEMBER_ID;
    return epoch_check(b, *out, epoch);
}

/* ---- what it says anew ----------------------------------------------------------------------------------------------------------------- */

static bool set_text(struct slice *to, struct slice s)
{
    if (!s.p || (to->p && slice_eq(*to, s)))
        return false;
    slice_drop(to);
    *to = slice_own(s);
    return true;
}

static bool same_topics(const struct cmember *m, const struct slice *names, int32_t n)
{
    if (m->topics_n != n)
        return false;
    for (int32_t i = 0; i < n; i++)
        if (!slice_eq(m->topics[i], names[i]))
            return false;
    return true;
}

/* rebalances: the group needs a new target by that. */
static bool member_update(struct beat *b, struct cmember *m, bool *rebalances)
{
    const struct kafka_consumer_group_heartbeat_req *q = b->r->req;
    struct slice host = slice_cstr(arena_printf(&b->r->arena, "/" SLICE_FMT, SLICE_ARG(b->r->caller.host)));
    bool changed = set_text(&m->client_id, b->r->client_id.p ? b->r->client_id : SLICE(""));
    changed |= set_text(&m->client_host, host);
    changed |= set_text(&m->rack, q->rack_id);
    bool other = set_text(&m->principal, b->r->caller.principal);
    other |= set_text(&m->from, b->r->caller.host);
    if (other && m->regex.n)
        m->g->consumer->catalog_version = 0; /* its pattern may match other topics now */
    m->super = b->r->caller.super;
    *rebalances = set_text(&m->assignor, q->server_assignor);
    *rebalances |= set_text(&m->regex, q->subscribed_topic_regex);
    if (q->subscribed_topic_names_n >= 0 && !same_topics(m, q->subscribed_topic_names, q->subscribed_topic_names_n)) {
        cmember_topics_set(m, q->subscribed_topic_names, q->subscribed_topic_names_n);
        *rebalances = true;
    }
    if (q->rebalance_timeout_ms >= 0 && q->rebalance_timeout_ms != m->rebalance_ms) {
        m->rebalance_ms = q->rebalance_timeout_ms;
        changed = true;
    }
    return changed || *rebalances;
}

/* The group's epoch and target, when they are not up to date. */
static void target_update(struct beat *b, struct consumers *cg, bool rebalances)
{
    const struct catalog *cat = cg->g->gs->here->catalog;
    uint64_t rules = cg->g->gs->here->security->db->version;
    if (rebalances || cg->catalog_version != cat->version || cg->rules_version != rules) {
        uint64_t now = consumers_subscribed(cg, cat);
        if (rebalances || (now != cg->subscribed && cg->epoch <= cg->target_epoch)) { /* else a new target is due anyway */
            cg->epoch++;
            records(b);
            consumers_write_epoch(&b->w, cg);
        }
        cg->subscribed = now;
        cg->catalog_version = cat->version;
        cg->rules_version = rules;
    }
    if (cg->epoch <= cg->target_epoch)
        return;
    consumers_assign(cg, cat);
    cg->target_epoch = cg->epoch;
    counter_inc(&cg->g->gs->count.rebalances);
    records(b);
    LIST_FOREACH (it, &cg->in_order) {
        struct cmember *m = CONTAINER_OF(it, struct cmember, link);
        if (m->target_new)
            consumers_write_target(&b->w, m);
        m->target_new = false;
    }
    consumers_write_target_epoch(&b->w, cg);
}

/* ---- the answer ---------------------------------------------------------------------------------------------------------------------------- */

static void tell_assignment(struct beat *b, const struct cmember *m)
{
    struct kafka_consumer_group_heartbeat_resp_topic_partitions *t = BREQ_ARRAY(b->r, struct kafka_consumer_group_heartbeat_resp_topic_partitions, m->assigned.n);
    int32_t *numbers = BREQ_ARRAY(b->r, int32_t, m->assigned.n), topics = 0;
    for (uint32_t i = 0; i < m->assigned.n; i++) {
        numbers[i] = m->assigned.p[i].partition;
        if (i == 0 || !kafka_uuid_eq(m->assigned.p[i - 1].topic, m->assigned.p[i].topic))
            t[topics++] = (struct kafka_consumer_group_heartbeat_resp_topic_partitions){.topic_id = m->assigned.p[i].topic, .partitions = &numbers[i]};
        t[topics - 1].partitions_n++;
    }
    b->assignment.topic_partitions = t;
    b->assignment.topic_partitions_n = topics;
    b->resp.assignment = &b->assignment;
}

static void beat_done(struct group_write *w, enum kafka_error e)
{
    struct beat *b = CONTAINER_OF(w, struct beat, w);
    struct group *g = b->g;
    g->writes--;
    if (g->consumer)
        g->consumer->rewrite |= e != KAFKA_NONE;
    if (e)
        beat_refuse(b, group_write_error(e), NULL);
    else
        beat_answer(b);
    group_unref(g);
}

/* What was written is sent and waited for; without anything to write, the answer goes at once unless it would tell of what is not durable yet. */
static void beat_send(struct beat *b, const struct cmember *m)
{
    struct consumers *cg = b->g->consumer;
    if (!b->records && m && (cg->rewrite || (b->g->writes && b->resp.assignment))) {
        records(b);
        consumers_write_current(&b->w, m);
    }
    if (!b->records) {
        beat_answer(b);
        return;
    }
    if (cg->rewrite)
        consumers_write_all(&b->w, cg);
    cg->rewrite = false;
    b->g->writes++;
    b->g->refs++;
    b->g->on_disk = true;
    b->w.done = beat_done;
    if (!group_write_send(&b->w))
        beat_done(&b->w, KAFKA_RECORD_LIST_TOO_LARGE);
}

static void beat_member(struct beat *b, struct cmember *m, bool is_new)
{
    bool rebalances, assigned_changed;
    if (member_update(b, m, &rebalances) || is_new) {
        records(b);
        consumers_write_member(&b->w, m);
    }
    target_update(b, b->g->consumer, rebalances || is_new);
    int32_t epoch = m->epoch;
    if (reconcile(b, m, &assigned_changed)) {
        records(b);
        consumers_write_current(&b->w, m);
    }
    if (m->epoch != epoch)
        timer_clear(&m->rebalance);
    timers(m);
    b->resp.member_id = breq_text(b->r, m->id);
    b->resp.member_epoch = m->epoch;
    b->resp.heartbeat_interval_ms = CONSUMERS_HEARTBEAT_MS;
    if (b->full || assigned_changed)
        tell_assignment(b, m);
    beat_send(b, m);
}

/* ---- leaving ----------------------------------------------------------------------------------------------------------------------------------- */

static void beat_leave(struct beat *b, struct consumers *cg, int32_t epoch)
{
    struct cmember *m = b->instance.p ? cmember_static(cg, b->instance) : cmember_find(cg, b->id);
    if (!m) {
        beat_refuse(b, KAFKA_UNKNOWN_MEMBER_ID, "The group has no such member.");
        return;
    }
    if (!slice_eq(m->id, b->id)) {
        beat_refuse(b, KAFKA_FENCED_INSTANCE_ID, "Another member has that instance id.");
        return;
    }
    b->resp.member_id = breq_text(b->r, b->id);
    b->resp.member_epoch = epoch;
    records(b);
    if (epoch == MEMBER_LEAVES_STATIC) { /* its session goes on: until then it may come back */
        m->previous = m->epoch;
        m->epoch = MEMBER_LEAVES_STATIC;
        m->state = CMEMBER_STABLE;
        cmember_own(m, tps_copy(&m->assigned), (struct tps){0});
        timer_clear(&m->rebalance);
        consumers_write_current(&b->w, m);
    } else {
        log_info("broker", "group " SLICE_FMT ": member " SLICE_FMT " leaves", SLICE_ARG(b->g->id), SLICE_ARG(m->id));
        member_out(&b->w, m);
    }
    beat_send(b, NULL);
}

/* ---- on the group's shard ------------------------------------------------------------------------------------------------------------------------ */

/* The group, which may be made, or made anew of a classic one without members. */
static enum kafka_error group_for(struct beat *b, struct group_part *gp, struct slice id, int32_t epoch)
{
    struct group *g = group_find(gp, id);
    if (g && !g->consumer && (g->state != GROUP_EMPTY || g->pending.n))
        return KAFKA_GROUP_ID_NOT_FOUND;
    if ((!g || !g->consumer) && epoch != MEMBER_JOINS)
        return KAFKA_UNKNOWN_MEMBER_ID;
    if (!g && !(g = group_make(gp, id)))
        return KAFKA_COORDINATOR_NOT_AVAILABLE;
    b->g = g;
    if (g->consumer)
        return KAFKA_NONE;
    if (g->on_disk) {
        struct group_tombs *t = group_tombs_begin(gp, NULL, NULL);
        group_tombs_group(t, g->id);
        group_tombs_end(t);
    }
    group_classic_forget(g);
    consumers_make(g);
    return KAFKA_NONE;
}

static void beat_arrived(struct breq *r)
{
    const struct kafka_consumer_group_heartbeat_req *q = r->req;
    struct beat *b = r->resp;
    struct cmember *m = NULL;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, q->group_id, &e);
    if (!gp) {
        beat_refuse(b, e, NULL);
        return;
    }
    counter_inc(&gp->gs->count.heartbeats);
    e = group_for(b, gp, q->group_id, q->member_epoch);
    if (e) {
        beat_refuse(b, e, e == KAFKA_GROUP_ID_NOT_FOUND ? "The group is not a consumer group." : NULL);
        return;
    }
    struct consumers *cg = b->g->consumer;
    if (q->member_epoch < 0) {
        beat_leave(b, cg, q->member_epoch);
        return;
    }
    size_t before = cg->members.n;
    e = member_of(b, cg, q->member_epoch, &m);
    if (e) {
        beat_refuse(b, e, e == KAFKA_FENCED_MEMBER_EPOCH ? "The member's epoch is not the present one: it must give up all partitions and join again." : NULL);
        group_drop_idle(b->g);
    } else {
        beat_member(b, m, cg->members.n > before);
    }
}

/* ---- at home -------------------------------------------------------------------------------------------------------------------------------------- */

static const char *malformed(const struct kafka_consumer_group_heartbeat_req *q, int16_t version)
{
    if (q->group_id.n == 0)
        return "GroupId can't be empty.";
    if (q->member_id.n == 0 && (version >= HEARTBEAT_MEMBER_ID_VERSION || q->member_epoch != MEMBER_JOINS))
        return "MemberId can't be empty.";
    if (q->instance_id.p && q->instance_id.n == 0)
        return "InstanceId can't be empty.";
    if (q->rack_id.p && q->rack_id.n == 0)
        return "RackId can't be empty.";
    if (q->member_epoch < MEMBER_LEAVES_STATIC)
        return "MemberEpoch is invalid.";
    if (q->member_epoch == MEMBER_LEAVES_STATIC && !q->instance_id.p)
        return "InstanceId can't be null.";
    if (q->subscribed_topic_names_n > CONSUMERS_TOPICS_MAX)
        return "Too many topics are subscribed to.";
    if (q->member_epoch != MEMBER_JOINS)
        return NULL;
    if (q->rebalance_timeout_ms < 0)
        return "RebalanceTimeoutMs must be provided in first request.";
    if (q->topic_partitions_n != 0)
        return "TopicPartitions must be empty when (re-)joining.";
    if (q->subscribed_topic_names_n < 0 && !q->subscribed_topic_regex.p)
        return "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.";
    return NULL;
}

/* A member has what its group is dealt, at most: of more it need not say that it owns it. */
static const char *owns_too_many(struct breq *r, const struct kafka_consumer_group_heartbeat_req *q)
{
    uint64_t n = 0;
    for (int32_t i = 0; i < q->topic_partitions_n; i++)
        n += (uint64_t)MAX(q->topic_partitions[i].partitions_n, 1); /* a topic without partitions is named, too */
    if (n <= CONSUMERS_PARTS_MAX)
        return NULL;
    counter_inc(&r->home->groups->count.limit_owned);
    return "TopicPartitions names more partitions than a group is dealt.";
}

static enum kafka_error beat_check(struct beat *b, const char **why)
{
    const struct kafka_consumer_group_heartbeat_req *q = b->r->req;
    if (!allowed(b->r, ACL_READ, ACL_GROUP, q->group_id))
        return KAFKA_GROUP_AUTHORIZATION_FAILED;
    *why = malformed(q, b->r->version);
    if (!*why)
        *why = owns_too_many(b->r, q);
    if (*why)
        return KAFKA_INVALID_REQUEST;
    for (int32_t i = 0; i < q->subscribed_topic_names_n; i++)
        if (!allowed(b->r, ACL_DESCRIBE, ACL_TOPIC, q->subscribed_topic_names[i]))
            return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    if (q->server_assignor.p && !consumers_assignor_known(q->server_assignor)) {
        *why = arena_printf(&b->r->arena, "ServerAssignor " SLICE_FMT " is not supported. Supported assignors: uniform, range.", SLICE_ARG(q->server_assignor));
        return KAFKA_UNSUPPORTED_ASSIGNOR;
    }
    return q->subscribed_topic_regex.n ? consumers_regex_check(q->subscribed_topic_regex, &b->r->arena, why) : KAFKA_NONE;
}

static void beat_owned(struct beat *b, const struct kafka_consumer_group_heartbeat_req *q)
{
    b->owned_said = q->topic_partitions_n >= 0;
    for (int32_t i = 0; i < q->topic_partitions_n; i++)
        for (int32_t k = 0; k < q->topic_partitions[i].partitions_n; k++)
            tps_add(&b->owned, (struct tp){q->topic_partitions[i].topic_id, q->topic_partitions[i].partitions[k]});
    tps_sort(&b->owned);
}

static struct slice id_made(struct breq *r)
{
    struct kafka_uuid id;
    char *text = arena_alloc(&r->arena, UUID_TEXT + 1);
    random_bytes(id.b, sizeof id.b);
    uuid_text(id, text);
    return slice_cstr(text);
}

void consumer_group_heartbeat(struct breq *r)
{
    const struct kafka_consumer_group_heartbeat_req *q = r->req;
    struct beat *b = BREQ_NEW(r, struct beat);
    const char *why = NULL;
    kafka_consumer_group_heartbeat_resp_init(&b->resp);
    kafka_consumer_group_heartbeat_resp_assignment_init(&b->assignment);
    r->resp = b;
    b->r = r;
    enum kafka_error e = beat_check(b, &why);
    if (e) {
        beat_refuse(b, e, why);
        return;
    }
    b->id = q->member_id.n ? q->member_id : id_made(r);
    b->instance = q->instance_id;
    b->full = q->member_epoch == MEMBER_JOINS ||
              (q->rebalance_timeout_ms != -1 && (q->subscribed_topic_names_n >= 0 || q->subscribed_topic_regex.p) && q->topic_partitions_n >= 0);
    beat_owned(b, q);
    if (!group_visit(r, q->group_id, beat_arrived))
        beat_refuse(b, KAFKA_NOT_COORDINATOR, NULL);
}

enum kafka_error consumers_check_epoch(const struct group *g, struct slice member, int32_t epoch)
{
    const struct cmember *m = cmember_find(g->consumer, member);
    if (epoch < 0 && g->consumer->members.n == 0)
        return KAFKA_NONE;
    if (!m)
        return KAFKA_UNKNOWN_MEMBER_ID;
    return epoch == m->epoch ? KAFKA_NONE : KAFKA_STALE_MEMBER_EPOCH;
}

/* ---- ConsumerGroupDescribe ---------------------------------------------------------------------------------------------------------------------------- */

struct consumers_describe {
    struct kafka_consumer_group_describe_resp resp;
    struct group_walk walk;
};

static struct consumers_describe *describe_of(struct breq *r) { return r->resp; }

static void tell_set(struct breq *r, const struct tps *s, struct kafka_consumer_group_describe_resp_assignment *out)
{
    struct kafka_consumer_group_describe_resp_topic_partitions *t = BREQ_ARRAY(r, struct kafka_consumer_group_describe_resp_topic_partitions, s->n);
    int32_t *numbers = BREQ_ARRAY(r, int32_t, s->n), topics = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        numbers[i] = s->p[i].partition;
        if (i == 0 || !kafka_uuid_eq(s->p[i - 1].topic, s->p[i].topic)) {
            const struct topic *topic = catalog_topic_by_id(r->at->catalog, &s->p[i].topic);
            t[topics++] = (struct kafka_consumer_group_describe_resp_topic_partitions){
                .topic_id = s->p[i].topic, .topic_name = topic ? breq_text(r, slice_cstr(topic->name)) : SLICE(""), .partitions = &numbers[i]};
        }
        t[topics - 1].partitions_n++;
    }
    out->topic_partitions = t;
    out->topic_partitions_n = topics;
}

static void tell_member(struct breq *r, const struct cmember *m, struct kafka_consumer_group_describe_resp_member *out)
{
    kafka_consumer_group_describe_resp_member_init(out);
    out->member_id = breq_text(r, m->id);
    out->instance_id = breq_text_or_null(r, m->instance);
    out->rack_id = breq_text_or_null(r, m->rack);
    out->member_epoch = m->epoch;
    out->client_id = breq_text(r, m->client_id);
    out->client_host = breq_text(r, m->client_host);
    struct slice *names = BREQ_ARRAY(r, struct slice, m->topics_n);
    for (int32_t i = 0; i < m->topics_n; i++)
        names[i] = breq_text(r, m->topics[i]);
    out->subscribed_topic_names = names;
    out->subscribed_topic_names_n = m->topics_n;
    out->subscribed_topic_regex = m->regex.n ? breq_text(r, m->regex) : (struct slice){NULL, 0};
    tell_set(r, &m->assigned, &out->assignment);
    tell_set(r, &m->target, &out->target_assignment);
    out->member_type = 1;
}

static bool describe_each(struct breq *r, int32_t i, struct group_part *gp, enum kafka_error e)
{
    struct kafka_consumer_group_describe_resp_described_group *out = &describe_of(r)->resp.groups[i];
    if (out->error_code)
        return true;
    const struct group *g = gp ? group_find(gp, out->group_id) : NULL;
    if (!g || !g->consumer) {
        out->error_code = (int16_t)(gp ? KAFKA_GROUP_ID_NOT_FOUND : e);
        if (gp)
            out->error_message = slice_cstr(arena_printf(&r->arena, "Group " SLICE_FMT " %s.", SLICE_ARG(out->group_id), g ? "is not a consumer group" : "not found"));
        return true;
    }
    const struct consumers *cg = g->consumer;
    out->group_state = slice_cstr(consumers_state_name(g));
    out->group_epoch = cg->epoch;
    out->assignment_epoch = cg->target_epoch;
    out->assignor_name = consumers_assignor(cg);
    out->members = BREQ_ARRAY(r, struct kafka_consumer_group_describe_resp_member, cg->members.n);
    LIST_FOREACH (it, &cg->in_order)
        tell_member(r, CONTAINER_OF(it, struct cmember, link), &out->members[out->members_n++]);
    return true;
}

/* Home again: topics that the caller may not see hide the group's members (KIP-848). */
static bool sees(struct breq *r, const struct kafka_consumer_group_describe_resp_member *m)
{
    for (int32_t i = 0; i < m->assignment.topic_partitions_n; i++)
        if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, m->assignment.topic_partitions[i].topic_name))
            return false;
    for (int32_t i = 0; i < m->subscribed_topic_names_n; i++)
        if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, m->subscribed_topic_names[i]))
            return false;
    return true;
}

static void describe_end(struct breq *r)
{
    struct kafka_consumer_group_describe_resp *resp = &describe_of(r)->resp;
    for (int32_t i = 0; i < resp->groups_n; i++)
        for (int32_t k = 0; k < resp->groups[i].members_n; k++)
            if (!sees(r, &resp->groups[i].members[k])) {
                resp->groups[i].error_code = KAFKA_TOPIC_AUTHORIZATION_FAILED;
                resp->groups[i].error_message = SLICE("The group has described topic(s) that the client is not authorized to describe.");
                resp->groups[i].members_n = 0;
            }
    breq_answer(r, r->at);
}

static void describe_step(struct breq *r) { group_walk_on(r, &describe_of(r)->walk); }

void consumer_group_describe(struct breq *r)
{
    const struct kafka_consumer_group_describe_req *q = r->req;
    struct consumers_describe *d = BREQ_NEW(r, struct consumers_describe);
    kafka_consumer_group_describe_resp_init(&d->resp);
    r->resp = d;
    d->resp.groups = BREQ_ARRAY(r, struct kafka_consumer_group_describe_resp_described_group, q->group_ids_n);
    d->resp.groups_n = q->group_ids_n;
    for (int32_t i = 0; i < q->group_ids_n; i++) {
        struct kafka_consumer_group_describe_resp_described_group *out = &d->resp.groups[i];
        kafka_consumer_group_describe_resp_described_group_init(out);
        out->group_id = q->group_ids[i];
        if (!allowed(r, ACL_DESCRIBE, ACL_GROUP, out->group_id))
            out->error_code = KAFKA_GROUP_AUTHORIZATION_FAILED;
        else if (out->group_id.n == 0)
            out->error_code = KAFKA_INVALID_GROUP_ID;
        else if (q->include_authorized_operations)
            out->authorized_operations = allowed_operations(r, ACL_GROUP, out->group_id);
    }
    d->walk = (struct group_walk){.ids = q->group_ids, .n = q->group_ids_n, .step = describe_step, .each = describe_each, .end = describe_end};
    describe_step(r);
}
