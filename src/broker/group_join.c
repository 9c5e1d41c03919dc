/* group_join.c - JoinGroup and the rebalance: who is a member, when a generation begins (GROUPS.md has the states).
 *
 *     join_group() home -> joining() coordinator -> new id | new member | known member | static member in place of another
 *                                                     |          |             |               |
 *                                  MEMBER_ID_REQUIRED-+          +-------------+---------------+-> group_rebalance()
 *     group_rebalance() -> prepare() -> ... the join timer, or all have joined ... -> join_complete() -> all JoinGroups are answered
 *
 * The rules are those of Kafka's coordinator; KIP-134 (initial delay), KIP-345 (static members), KIP-394 (member ids), KIP-559 (protocol
 * names), KIP-814 (the leader skips the assignment).
 */
#include "consumer_group_int.h"

#define JOIN_KNOWN_ID_VERSION 4 /* from here on a new dynamic member must come back with the id that it was given */
#define JOIN_SKIP_VERSION 9     /* knows skip_assignment */

static void join_complete(struct group *g);

/* ---- answers ------------------------------------------------------------------------------------------------------------- */

static struct kafka_join_group_resp *join_resp(struct breq *r)
{
    struct kafka_join_group_resp *resp = BREQ_NEW(r, struct kafka_join_group_resp);
    kafka_join_group_resp_init(resp);
    resp->protocol_name = r->version >= 7 ? (struct slice){NULL, 0} : SLICE("");
    r->resp = resp;
    return resp;
}

static void join_refuse(struct breq *r, struct slice member, enum kafka_error e)
{
    struct kafka_join_group_resp *resp = join_resp(r);
    resp->error_code = (int16_t)e;
    resp->member_id = breq_text(r, member);
    r->error = (int16_t)e;
    group_answer(r);
}

static void list_members(struct breq *r, const struct group *g, struct kafka_join_group_resp *resp)
{
    struct kafka_join_group_resp_join_group_response_member *to = BREQ_ARRAY(r, struct kafka_join_group_resp_join_group_response_member, g->members.n);
    resp->members = to;
    LIST_FOREACH (it, &g->in_order) {
        const struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        kafka_join_group_resp_join_group_response_member_init(to);
        to->member_id = breq_text(r, m->id);
        to->group_instance_id = breq_text_or_null(r, m->instance);
        to->metadata = breq_text(r, gmember_metadata(m, g->protocol));
        to++;
        resp->members_n++;
    }
}

/* What m is told of the present generation. leader: as it is to be told. */
static void join_tell(struct breq *r, const struct gmember *m, struct slice leader, bool members, bool skip)
{
    const struct group *g = m->g;
    struct kafka_join_group_resp *resp = join_resp(r);
    resp->generation_id = g->generation;
    resp->protocol_type = breq_text_or_null(r, g->protocol_type);
    resp->protocol_name = breq_text(r, g->protocol);
    resp->leader = breq_text(r, leader);
    resp->member_id = breq_text(r, m->id);
    resp->skip_assignment = skip;
    if (members)
        list_members(r, g, resp);
    group_answer(r);
}

static void join_accept(struct breq *r, const struct gmember *m) { join_tell(r, m, m->g->leader->id, m->g->leader == m, false); }

static struct breq *join_take(struct gmember *m)
{
    struct breq *r = m->join;
    if (r) {
        m->join = NULL;
        m->g->joined_n--;
    }
    return r;
}

/* r waits as the member's JoinGroup; one that waited is told to ask again. */
static void join_wait(struct gmember *m, struct breq *r)
{
    gmember_answer_join(m, KAFKA_REBALANCE_IN_PROGRESS);
    m->join = r;
    m->joins++;
    m->g->joined_n++;
}

void gmember_answer_join(struct gmember *m, enum kafka_error e)
{
    struct breq *r = join_take(m);
    if (r && e)
        join_refuse(r, m->id, e);
    else if (r)
        join_accept(r, m);
}

/* ---- sessions ---------------------------------------------------------------------------------------------------------------- */

void group_session_begin(struct gmember *m, uint32_t ms) { timer_set(group_loop(m->g), &m->session, ms); }

void group_session_expired(struct timer *t)
{
    struct gmember *m = CONTAINER_OF(t, struct gmember, session);
    struct group *g = m->g;
    if (!m->is_new && (m->join || m->sync))
        return; /* it is us who let it wait; the session begins anew with the answer */
    log_info("broker", "group " SLICE_FMT ": member " SLICE_FMT " was not heard of for %d ms and is removed", SLICE_ARG(g->id), SLICE_ARG(m->id),
             m->is_new ? (int)GROUP_NEW_MEMBER_MS : (int)m->session_ms);
    counter_inc(&g->gs->count.sessions_ended);
    group_leave_member(m);
    group_members_left(g);
    group_drop_idle(g);
}

static void pending_expired(struct timer *t)
{
    struct gpending *p = CONTAINER_OF(t, struct gpending, session);
    struct group *g = p->g;
    group_pending_remove(p);
    group_maybe_joined(g);
    group_drop_idle(g);
}

void group_wake_members(struct group *g)
{
    if (g->consumer) {
        consumers_loaded(g);
        return;
    }
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        group_session_begin(m, (uint32_t)m->session_ms);
    }
    if (g->members.n > g->gs->size_max)
        group_rebalance(g);
}

/* ---- the rebalance -------------------------------------------------------------------------------------------------------------- */

void group_members_left(struct group *g)
{
    if (g->state == GROUP_STABLE || g->state == GROUP_COMPLETING)
        group_rebalance(g);
    else
        group_maybe_joined(g);
}

static bool all_joined(const struct group *g) { return g->members.n == g->joined_n && g->pending.n == 0; }
static bool all_gone(const struct group *g) { return g->members.n == 0 && !timer_is_set(&g->join_timer); } /* the static members that a rebalance waited for */

void group_maybe_joined(struct group *g)
{
    if (g->state == GROUP_PREPARING && !g->initial && (all_joined(g) || all_gone(g)))
        join_complete(g);
}

void group_assignments_void(struct group *g, enum kafka_error e)
{
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        slice_drop(&m->assignment);
        if (!m->sync)
            continue;
        gmember_answer_sync(m, e);
        group_session_begin(m, (uint32_t)m->session_ms); /* while it waited it could not beat */
    }
}

static void prepare_initial(struct group *g)
{
    uint32_t delay = g->gs->here->b->conf.group_delay_ms, most = (uint32_t)group_rebalance_ms(g);
    g->initial = true;
    g->grew = false;
    g->delay_ms = delay;
    g->left_ms = most > delay ? most - delay : 0;
    timer_set(group_loop(g), &g->join_timer, delay);
}

static void prepare(struct group *g)
{
    if (g->state == GROUP_COMPLETING)
        group_assignments_void(g, KAFKA_REBALANCE_IN_PROGRESS);
    timer_clear(&g->sync_timer);
    bool initial = g->state == GROUP_EMPTY;
    group_state_set(g, GROUP_PREPARING);
    g->assigning = false;
    if (initial) {
        prepare_initial(g);
        return;
    }
    g->initial = false;
    if (all_joined(g))
        join_complete(g);
    else
        timer_set(group_loop(g), &g->join_timer, (uint32_t)group_rebalance_ms(g));
}

void group_rebalance(struct group *g)
{
    if (g->state != GROUP_PREPARING) {
        prepare(g);
        return;
    }
    group_maybe_joined(g);
    if (g->state == GROUP_PREPARING && g->joined_n && !timer_is_set(&g->join_timer)) /* the first who is back: the others have their time from now on */
        timer_set(group_loop(g), &g->join_timer, (uint32_t)group_rebalance_ms(g));
}

static void join_timer_fn(struct timer *t)
{
    struct group *g = CONTAINER_OF(t, struct group, join_timer);
    if (g->initial && g->grew && g->left_ms) { /* more may come (KIP-134) */
        uint32_t last = g->delay_ms;
        g->grew = false;
        g->delay_ms = MIN(g->gs->here->b->conf.group_delay_ms, g->left_ms);
        g->left_ms = g->left_ms > last ? g->left_ms - last : 0;
        timer_set(group_loop(g), t, g->delay_ms);
        return;
    }
    join_complete(g);
    group_drop_idle(g);
}

static void remove_absent(struct group *g)
{
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        if (!m->join && !m->instance.p)
            group_leave_member(m);
    }
}

/* Whoever leads must be there to do it. False: nobody is. */
static bool elect(struct group *g)
{
    if (g->leader->join)
        return true;
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        if (m->join) {
            g->leader = m;
            return true;
        }
    }
    return false;
}

static void generation_begin(struct group *g)
{
    struct slice protocol = slice_own(group_choose_protocol(g));
    MUST(protocol.p); /* group_supports() let nobody in who has none in common */
    slice_drop(&g->protocol);
    g->protocol = protocol;
    group_state_set(g, GROUP_COMPLETING);
    g->sync_wanted_n = 0;
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        gmember_answer_join(m, KAFKA_NONE);
        m->is_new = false;
        m->sync_wanted = true;
        g->sync_wanted_n++;
        group_session_begin(m, (uint32_t)m->session_ms);
    }
    timer_set(group_loop(g), &g->sync_timer, (uint32_t)group_rebalance_ms(g));
}

static void join_complete(struct group *g)
{
    timer_clear(&g->join_timer);
    remove_absent(g);
    if (g->members.n && !elect(g)) {
        g->initial = false;
        return; /* static members alone, and none of them is back: their sessions decide, or whoever comes first (group_rebalance()) */
    }
    g->generation = g->generation == INT32_MAX ? 1 : g->generation + 1;
    g->initial = false;
    counter_inc(&g->gs->count.rebalances);
    if (g->members.n) {
        generation_begin(g);
        return;
    }
    slice_drop(&g->protocol);
    group_state_set(g, GROUP_EMPTY);
    if (g->on_disk || g->offsets.n)
        group_write_now(g);
}

/* ---- members that come -------------------------------------------------------------------------------------------------------------- */

static struct slice member_id_new(struct breq *r, struct slice instance)
{
    struct slice prefix = instance.p ? instance : r->client_id;
    uint8_t b[16];
    random_bytes(b, sizeof b);
    const char *id = arena_printf(&r->arena,
                                  "%.*s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", (int)MIN(prefix.n, GROUP_MEMBER_PREFIX_MAX),
                                  prefix.p ? prefix.p : "", b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return slice_cstr(id);
}

static struct group_protocols_in protocols_in(const struct kafka_join_group_req *q) { return (struct group_protocols_in){q->protocols, q->protocols_n}; }

static int32_t rebalance_ms_of(const struct kafka_join_group_req *q, int16_t version)
{
    return version >= 1 && q->rebalance_timeout_ms >= 0 ? q->rebalance_timeout_ms : q->session_timeout_ms;
}

static void join_new_member(struct breq *r, struct group *g, struct slice id)
{
    const struct kafka_join_group_req *q = r->req;
    struct gpending *p = table_get(&g->pending, id);
    if (p)
        group_pending_remove(p);
    if (g->state == GROUP_PREPARING && g->initial)
        g->grew = true;
    struct gmember_conf c = {
        .id = id, .instance = q->group_instance_id, .client_id = r->client_id.p ? r->client_id : SLICE(""), .protocol_type = q->protocol_type,
        .client_host = slice_cstr(arena_printf(&r->arena, "/" SLICE_FMT, SLICE_ARG(r->caller.host))), .rebalance_ms = rebalance_ms_of(q, r->version),
        .session_ms = q->session_timeout_ms, .protocols = protocols_in(q)};
    struct gmember *m = gmember_add(g, &c);
    m->is_new = true;
    join_wait(m, r);
    group_session_begin(m, GROUP_NEW_MEMBER_MS);
    group_rebalance(g);
}

static void join_known_member(struct breq *r, struct gmember *m)
{
    const struct kafka_join_group_req *q = r->req;
    gmember_protocols_set(m, protocols_in(q));
    m->rebalance_ms = rebalance_ms_of(q, r->version);
    m->session_ms = q->session_timeout_ms;
    join_wait(m, r);
    group_rebalance(m->g);
}

/* A static member that took another's place in a Stable group: its id is being written. */
struct replaced {
    struct group_write w;
    struct group *g;          /* a reference */
    struct slice member;      /* owned */
    struct slice told_leader; /* owned; who led before */
    uint64_t joins;           /* the member's JoinGroup that waits for this */
};

static void replaced_done(struct group_write *w, enum kafka_error e)
{
    struct replaced *p = CONTAINER_OF(w, struct replaced, w);
    struct gmember *m = p->g->state == GROUP_DEAD ? NULL : group_member(p->g, p->member);
    if (m && m->join && m->joins == p->joins) {
        struct breq *r = join_take(m);
        bool leads = p->g->leader == m;
        if (e)
            join_refuse(r, SLICE(""), group_write_error(e));
        else if (r->version >= JOIN_SKIP_VERSION)
            join_tell(r, m, p->g->leader->id, leads, leads);
        else
            join_tell(r, m, p->told_leader, false, false);
        group_session_begin(m, (uint32_t)m->session_ms);
    }
    group_unref(p->g);
    slice_drop(&p->member);
    slice_drop(&p->told_leader);
    mem_free(p);
}

static void replaced_write(struct gmember *m, struct slice told_leader)
{
    struct replaced *p = mem_new(MEM_BROKER, sizeof *p);
    p->g = m->g;
    p->g->refs++;
    p->member = slice_own(m->id);
    p->told_leader = slice_own(told_leader);
    p->joins = m->joins;
    p->w.done = replaced_done;
    group_write_begin(&p->w, m->g->gp, -1, -1);
    group_write_group(&p->w, m->g, false);
    m->g->on_disk = true;
    if (!group_write_send(&p->w))
        replaced_done(&p->w, KAFKA_RECORD_LIST_TOO_LARGE);
}

/* The process that was this static member has been started again, or there are two (KIP-345). */
static void join_static_again(struct breq *r, struct gmember *m)
{
    const struct kafka_join_group_req *q = r->req;
    struct group *g = m->g;
    struct slice told_leader = arena_slice(&r->arena, g->leader->id);
    gmember_answer_join(m, KAFKA_FENCED_INSTANCE_ID);
    gmember_answer_sync(m, KAFKA_FENCED_INSTANCE_ID);
    gmember_rename(m, member_id_new(r, q->group_instance_id));
    gmember_protocols_set(m, protocols_in(q));
    m->rebalance_ms = rebalance_ms_of(q, r->version);
    m->session_ms = q->session_timeout_ms;
    join_wait(m, r);
    group_session_begin(m, (uint32_t)m->session_ms);
    if (g->state == GROUP_STABLE && slice_eq(group_choose_protocol(g), g->protocol))
        replaced_write(m, told_leader);
    else
        group_rebalance(g); /* in Completing, too: the leader may have assigned to the old id already */
}

static void join_without_id(struct breq *r, struct group *g)
{
    const struct kafka_join_group_req *q = r->req;
    if (!group_supports(g, q->protocol_type, protocols_in(q))) {
        join_refuse(r, SLICE(""), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
        return;
    }
    struct gmember *m = group_static(g, q->group_instance_id);
    if (m) {
        join_static_again(r, m);
        return;
    }
    struct slice id = member_id_new(r, q->group_instance_id);
    if (q->group_instance_id.p || r->version < JOIN_KNOWN_ID_VERSION) {
        join_new_member(r, g, id);
        return;
    }
    group_pending_add(g, id, (uint32_t)q->session_timeout_ms, pending_expired);
    join_refuse(r, id, KAFKA_MEMBER_ID_REQUIRED);
}

/* Only a leader, or a member that says something new, sets off a rebalance: others may just have missed their answer. */
static bool nothing_new(const struct gmember *m, struct group_protocols_in in)
{
    const struct group *g = m->g;
    return (g->state == GROUP_COMPLETING || (g->state == GROUP_STABLE && g->leader != m)) && gmember_matches(m, in);
}

static void join_with_id(struct breq *r, struct group *g)
{
    const struct kafka_join_group_req *q = r->req;
    enum kafka_error e = KAFKA_NONE;
    bool pending = table_get(&g->pending, q->member_id) != NULL;
    if (!group_supports(g, q->protocol_type, protocols_in(q)))
        e = KAFKA_INCONSISTENT_GROUP_PROTOCOL;
    else if (pending)
        e = q->group_instance_id.p ? KAFKA_INVALID_REQUEST : KAFKA_NONE; /* ids are given out to dynamic members alone */
    else
        e = group_check_member(g, q->member_id, q->group_instance_id);
    if (e) {
        join_refuse(r, q->member_id, e);
        return;
    }
    if (pending) {
        join_new_member(r, g, arena_slice(&r->arena, q->member_id));
        return;
    }
    struct gmember *m = group_member(g, q->member_id);
    if (nothing_new(m, protocols_in(q)))
        join_accept(r, m);
    else
        join_known_member(r, m);
}

/* Is there room? Members that are being collected count as they come, so that a group that is too large shrinks in its next rebalance. */
static bool room_for(const struct group *g, struct slice id)
{
    const struct gmember *m = group_member(g, id);
    uint32_t max = g->gs->size_max;
    switch (g->state) {
    case GROUP_PREPARING:
        return (m && m->join) || g->joined_n < max;
    case GROUP_COMPLETING:
    case GROUP_STABLE:
        return m || g->members.n < max;
    default:
        return true;
    }
}

/* A KIP-848 group without members is made a classic one; false: it has members. */
static bool become_classic(struct group *g)
{
    if (g->consumer->members.n)
        return false;
    if (g->on_disk) {
        struct group_tombs *t = group_tombs_begin(g->gp, NULL, NULL);
        group_tombs_whole(t, g);
        group_tombs_end(t);
    }
    consumers_free(g);
    group_classic_forget(g);
    return true;
}

static void joining(struct breq *r)
{
    const struct kafka_join_group_req *q = r->req;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, q->group_id, &e);
    if (!gp) {
        join_refuse(r, q->member_id, e);
        return;
    }
    counter_inc(&gp->gs->count.joins);
    struct group *g = group_find(gp, q->group_id);
    if (!g && q->member_id.n) {
        join_refuse(r, q->member_id, KAFKA_UNKNOWN_MEMBER_ID);
        return;
    }
    if (!g && !(g = group_make(gp, q->group_id))) {
        join_refuse(r, q->member_id, KAFKA_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    if (g->consumer && !become_classic(g)) {
        join_refuse(r, q->member_id, KAFKA_INCONSISTENT_GROUP_PROTOCOL);
        return;
    }
    if (!room_for(g, q->member_id) || (q->member_id.n == 0 && g->pending.n >= g->gs->size_max)) {
        struct gpending *p = table_get(&g->pending, q->member_id);
        struct gmember *m = group_member(g, q->member_id);
        counter_inc(&gp->gs->count.limit_size);
        join_refuse(r, SLICE(""), KAFKA_GROUP_MAX_SIZE_REACHED);
        if (p)
            group_pending_remove(p);
        if (m)
            group_leave_member(m); /* only in Preparing */
        group_maybe_joined(g);
        return;
    }
    if (q->member_id.n)
        join_with_id(r, g);
    else
        join_without_id(r, g);
    group_drop_idle(g);
}

static enum kafka_error join_check(struct breq *r, const struct kafka_join_group_req *q)
{
    if (!allowed(r, ACL_READ, ACL_GROUP, q->group_id))
        return KAFKA_GROUP_AUTHORIZATION_FAILED;
    if (q->group_id.n == 0)
        return KAFKA_INVALID_GROUP_ID;
    if (q->session_timeout_ms < GROUP_SESSION_MIN_MS || q->session_timeout_ms > GROUP_SESSION_MAX_MS)
        return KAFKA_INVALID_SESSION_TIMEOUT;
    if (group_protocols_bytes(protocols_in(q)) > GROUP_METADATA_MAX || q->protocols_n > GROUP_PROTOCOLS_MAX) {
        counter_inc(&r->home->groups->count.limit_metadata);
        return KAFKA_MESSAGE_TOO_LARGE;
    }
    return KAFKA_NONE;
}

void join_group(struct breq *r)
{
    const struct kafka_join_group_req *q = r->req;
    enum kafka_error e = join_check(r, q);
    if (e)
        join_refuse(r, q->member_id, e);
    else if (!group_visit(r, q->group_id, joining))
        join_refuse(r, q->member_id, KAFKA_NOT_COORDINATOR);
}

static void sync_timer_fn(struct timer *t)
{
    struct group *g = CONTAINER_OF(t, struct group, sync_timer);
    if (g->sync_wanted_n == 0)
        return;
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        if (m->sync_wanted) {
            log_info("broker", "group " SLICE_FMT ": member " SLICE_FMT " did not ask for its assignment in time and is removed", SLICE_ARG(g->id),
                     SLICE_ARG(m->id));
            group_leave_member(m);
        }
    }
    group_members_left(g);
    group_drop_idle(g);
}

void group_timers_init(struct group *g)
{
    timer_init(&g->join_timer, join_timer_fn);
    timer_init(&g->sync_timer, sync_timer_fn);
}

void group_stop_waiting(struct group *g, enum kafka_error e)
{
    timer_clear(&g->join_timer);
    timer_clear(&g->sync_timer);
    if (g->consumer)
        consumers_stop(g);
    LIST_FOREACH (it, &g->in_order) {
        struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        timer_clear(&m->session);
        gmember_answer_join(m, e);
        gmember_answer_sync(m, e);
    }
    for (struct table_slot *s = NULL; (s = table_next(&g->pending, s));)
        timer_clear(&((struct gpending *)s->value)->session);
}
