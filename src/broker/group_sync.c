/* group_sync.c - SyncGroup, Heartbeat, LeaveGroup: what members do between rebalances (GROUPS.md has the states).
 *
 * The leader's SyncGroup brings every member's assignment. They are written into __consumer_offsets with the group and take effect when that is
 * durable, provided that the generation is still the present one: then all who wait are answered. So no member ever has an
 * assignment that a restarted coordinator would not know.
 */
#include "group_int.h"

enum kafka_error group_check_member(const struct group *g, struct slice member, struct slice instance)
{
    if (!instance.p)
        return group_member(g, member) ? KAFKA_NONE : KAFKA_UNKNOWN_MEMBER_ID;
    const struct gmember *m = group_static(g, instance);
    if (!m)
        return KAFKA_UNKNOWN_MEMBER_ID;
    return slice_eq(m->id, member) ? KAFKA_NONE : KAFKA_FENCED_INSTANCE_ID;
}

/* ---- SyncGroup ------------------------------------------------------------------------------------------------------------- */

static void sync_refuse(struct breq *r, enum kafka_error e)
{
    struct kafka_sync_group_resp *resp = BREQ_NEW(r, struct kafka_sync_group_resp);
    kafka_sync_group_resp_init(resp);
    resp->error_code = (int16_t)e;
    r->error = (int16_t)e;
    r->resp = resp;
    group_answer(r);
}

static void sync_accept(struct breq *r, const struct gmember *m)
{
    struct kafka_sync_group_resp *resp = BREQ_NEW(r, struct kafka_sync_group_resp);
    kafka_sync_group_resp_init(resp);
    resp->protocol_type = breq_text_or_null(r, m->g->protocol_type);
    resp->protocol_name = breq_text_or_null(r, m->g->protocol);
    resp->assignment = breq_text(r, m->assignment);
    r->resp = resp;
    group_answer(r);
}

void gmember_answer_sync(struct gmember *m, enum kafka_error e)
{
    struct breq *r = m->sync;
    if (!r)
        return;
    m->sync = NULL;
    if (e)
        sync_refuse(r, e);
    else
        sync_accept(r, m);
}

/* The member asked for its assignment in time. */
static void sync_came(struct gmember *m)
{
    struct group *g = m->g;
    if (!m->sync_wanted)
        return;
    m->sync_wanted = false;
    g->sync_wanted_n--;
    if (g->sync_wanted_n == 0)
        timer_clear(&g->sync_timer);
}

/* A generation's assignments on their way to the disk. */
struct assigned {
    struct group_write w;
    struct group *g; /* a reference */
    int32_t generation;
};

static void assignments_take(struct group *g)
{
    group_state_set(g, GROUP_STABLE);
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        slice_drop(&m->assignment);
        m->assignment = m->next;
        m->next = (struct slice){NULL, 0};
        if (!m->sync)
            continue;
        gmember_answer_sync(m, KAFKA_NONE);
        group_session_begin(m, (uint32_t)m->session_ms);
    }
}

static void assigned_done(struct group_write *w, enum kafka_error e)
{
    struct assigned *p = CONTAINER_OF(w, struct assigned, w);
    struct group *g = p->g;
    if (g->state == GROUP_COMPLETING && g->generation == p->generation) {
        g->assigning = false;
        if (!e) {
            assignments_take(g);
        } else {
            group_assignments_void(g, group_write_error(e));
            group_rebalance(g);
        }
    }
    group_unref(g);
    mem_free(p);
}

static void next_clear(struct group *g)
{
    LIST_FOREACH (it, &g->in_order)
        slice_drop(&CONTAINER_OF(it, struct gmember, link)->next);
}

static void assign(struct group *g, const struct kafka_sync_group_req *q)
{
    next_clear(g);
    for (int32_t i = 0; i < q->assignments_n; i++) {
        struct gmember *m = group_member(g, q->assignments[i].member_id);
        if (!m)
            continue; /* it has left */
        slice_drop(&m->next);
        m->next = slice_own(q->assignments[i].assignment);
    }
    struct assigned *p = mem_new(MEM_BROKER, sizeof *p);
    p->g = g;
    g->refs++;
    p->generation = g->generation;
    p->w.done = assigned_done;
    group_write_begin(&p->w, g->gp, -1, -1);
    group_write_group(&p->w, g, true);
    g->assigning = true;
    g->on_disk = true;
    if (!group_write_send(&p->w))
        assigned_done(&p->w, KAFKA_RECORD_LIST_TOO_LARGE);
}

static void sync_completing(struct breq *r, struct gmember *m)
{
    struct group *g = m->g;
    gmember_answer_sync(m, KAFKA_REBALANCE_IN_PROGRESS);
    m->sync = r;
    sync_came(m);
    if (g->leader == m && !g->assigning)
        assign(g, r->req);
}

static bool differs(struct slice said, struct slice is) { return said.p && is.p && !slice_eq(said, is); }

static enum kafka_error sync_check(const struct group *g, const struct kafka_sync_group_req *q)
{
    if (!g)
        return KAFKA_UNKNOWN_MEMBER_ID;
    enum kafka_error e = group_check_member(g, q->member_id, q->group_instance_id);
    if (e)
        return e;
    if (q->generation_id != g->generation)
        return KAFKA_ILLEGAL_GENERATION;
    if (differs(q->protocol_type, g->protocol_type) || differs(q->protocol_name, g->protocol))
        return KAFKA_INCONSISTENT_GROUP_PROTOCOL;
    return g->state == GROUP_PREPARING ? KAFKA_REBALANCE_IN_PROGRESS : KAFKA_NONE;
}

static void syncing(struct breq *r)
{
    const struct kafka_sync_group_req *q = r->req;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, q->group_id, &e);
    struct group *g = gp ? group_find(gp, q->group_id) : NULL;
    if (gp) {
        counter_inc(&gp->gs->count.syncs);
        e = sync_check(g, q);
    }
    if (e) {
        sync_refuse(r, e);
        return;
    }
    struct gmember *m = group_member(g, q->member_id);
    if (g->state == GROUP_COMPLETING) {
        sync_completing(r, m);
        return;
    }
    sync_came(m);
    sync_accept(r, m);
    group_session_begin(m, (uint32_t)m->session_ms);
}

void sync_group(struct breq *r)
{
    const struct kafka_sync_group_req *q = r->req;
    if (!allowed(r, ACL_READ, ACL_GROUP, q->group_id))
        sync_refuse(r, KAFKA_GROUP_AUTHORIZATION_FAILED);
    else if (q->group_id.n == 0)
        sync_refuse(r, KAFKA_INVALID_GROUP_ID);
    else if (!group_visit(r, q->group_id, syncing))
        sync_refuse(r, KAFKA_NOT_COORDINATOR);
}

/* ---- Heartbeat --------------------------------------------------------------------------------------------------------------- */

static void heartbeat_answer(struct breq *r, enum kafka_error e)
{
    struct kafka_heartbeat_resp *resp = BREQ_NEW(r, struct kafka_heartbeat_resp);
    kafka_heartbeat_resp_init(resp);
    resp->error_code = (int16_t)e;
    r->error = (int16_t)e;
    r->resp = resp;
    breq_answer(r, r->at);
}

static enum kafka_error heartbeat_take(struct group *g, const struct kafka_heartbeat_req *q)
{
    if (!g)
        return KAFKA_UNKNOWN_MEMBER_ID;
    enum kafka_error e = group_check_member(g, q->member_id, q->group_instance_id);
    if (e)
        return e;
    if (q->generation_id != g->generation)
        return KAFKA_ILLEGAL_GENERATION;
    struct gmember *m = group_member(g, q->member_id);
    group_session_begin(m, m->is_new ? GROUP_NEW_MEMBER_MS : (uint32_t)m->session_ms);
    return g->state == GROUP_PREPARING ? KAFKA_REBALANCE_IN_PROGRESS : KAFKA_NONE;
}

static void heart_beats(struct breq *r)
{
    const struct kafka_heartbeat_req *q = r->req;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, q->group_id, &e);
    if (gp) {
        counter_inc(&gp->gs->count.heartbeats);
        e = heartbeat_take(group_find(gp, q->group_id), q);
    } else if (e == KAFKA_COORDINATOR_LOAD_IN_PROGRESS) {
        e = KAFKA_NONE; /* sessions begin when it is loaded: the member need not know */
    }
    heartbeat_answer(r, e);
}

void heartbeat(struct breq *r)
{
    const struct kafka_heartbeat_req *q = r->req;
    if (!allowed(r, ACL_READ, ACL_GROUP, q->group_id))
        heartbeat_answer(r, KAFKA_GROUP_AUTHORIZATION_FAILED);
    else if (q->group_id.n == 0)
        heartbeat_answer(r, KAFKA_INVALID_GROUP_ID);
    else if (!group_visit(r, q->group_id, heart_beats))
        heartbeat_answer(r, KAFKA_NOT_COORDINATOR);
}

/* ---- LeaveGroup ---------------------------------------------------------------------------------------------------------------- */

void group_leave_member(struct gmember *m)
{
    gmember_answer_join(m, KAFKA_UNKNOWN_MEMBER_ID);
    gmember_answer_sync(m, KAFKA_UNKNOWN_MEMBER_ID);
    sync_came(m);
    gmember_remove(m);
}

static enum kafka_error leave_one(struct group *g, struct slice member, struct slice instance, uint32_t *left)
{
    struct gmember *m;
    if (member.n == 0) { /* an administrator takes a static member out (KIP-345) */
        m = group_static(g, instance);
        if (!m)
            return KAFKA_UNKNOWN_MEMBER_ID;
    } else {
        struct gpending *p = table_get(&g->pending, member);
        if (p) {
            group_pending_remove(p);
            return KAFKA_NONE;
        }
        enum kafka_error e = group_check_member(g, member, instance);
        if (e)
            return e;
        m = group_member(g, member);
    }
    log_info("broker", "group " SLICE_FMT ": member " SLICE_FMT " leaves", SLICE_ARG(g->id), SLICE_ARG(m->id));
    group_leave_member(m);
    ++*left;
    return KAFKA_NONE;
}

static struct kafka_leave_group_resp *leave_resp(struct breq *r, enum kafka_error e)
{
    struct kafka_leave_group_resp *resp = BREQ_NEW(r, struct kafka_leave_group_resp);
    kafka_leave_group_resp_init(resp);
    resp->error_code = (int16_t)e;
    r->error = (int16_t)e;
    r->resp = resp;
    return resp;
}

/* How many did leave. */
static uint32_t leave_members(struct breq *r, struct group *g, const struct kafka_leave_group_req *q)
{
    uint32_t left = 0;
    struct kafka_leave_group_resp *resp = leave_resp(r, KAFKA_NONE);
    resp->members = BREQ_ARRAY(r, struct kafka_leave_group_resp_member_response, q->members_n);
    resp->members_n = q->members_n;
    for (int32_t i = 0; i < q->members_n; i++) {
        const struct kafka_leave_group_req_member_identity *in = &q->members[i];
        struct kafka_leave_group_resp_member_response *out = &resp->members[i];
        kafka_leave_group_resp_member_response_init(out);
        out->member_id = in->member_id;
        out->group_instance_id = in->group_instance_id;
        out->error_code = (int16_t)(g ? leave_one(g, in->member_id, in->group_instance_id, &left) : KAFKA_UNKNOWN_MEMBER_ID);
    }
    return left;
}

static uint32_t leave_single(struct breq *r, struct group *g, const struct kafka_leave_group_req *q)
{
    uint32_t left = 0;
    leave_resp(r, g && q->member_id.n ? leave_one(g, q->member_id, (struct slice){NULL, 0}, &left) : KAFKA_UNKNOWN_MEMBER_ID);
    return left;
}

static void leaving(struct breq *r)
{
    const struct kafka_leave_group_req *q = r->req;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, q->group_id, &e);
    if (!gp) {
        leave_resp(r, e);
        breq_answer(r, r->at);
        return;
    }
    counter_inc(&gp->gs->count.leaves);
    struct group *g = group_find(gp, q->group_id);
    uint32_t left = r->version >= 3 ? leave_members(r, g, q) : leave_single(r, g, q);
    if (left)
        group_members_left(g);
    else if (g)
        group_maybe_joined(g); /* an id that was given out may have been given back */
    if (g)
        group_drop_idle(g);
    group_answer(r);
}

void leave_group(struct breq *r)
{
    const struct kafka_leave_group_req *q = r->req;
    enum kafka_error e = KAFKA_NONE;
    if (!allowed(r, ACL_READ, ACL_GROUP, q->group_id))
        e = KAFKA_GROUP_AUTHORIZATION_FAILED;
    else if (q->group_id.n == 0)
        e = KAFKA_INVALID_GROUP_ID;
    else if (group_visit(r, q->group_id, leaving))
        return;
    leave_resp(r, e ? e : KAFKA_NOT_COORDINATOR);
    breq_answer(r, r->at);
}
