/* groups.c - what a shard coordinates, and how requests find it: FindCoordinator, partitions of __consumer_offsets that come and go, the sweep.
 *
 * A request of a group begins on the shard of its connection, where permissions are looked at, and visits the shard that owns the group's partition.
 * See GROUPS.md.
 */
#include "group_int.h"

/* ---- partitions that come and go ------------------------------------------------------------------------------------------- */

static struct group_part *part_at(const struct groups *gs, int32_t partition)
{
    return partition >= 0 && (uint32_t)partition < gs->parts_n ? gs->parts[partition] : NULL;
}

static void part_put(struct groups *gs, int32_t partition, struct group_part *gp)
{
    uint32_t n = (uint32_t)partition + 1;
    if (n > gs->parts_n) {
        gs->parts = mem_grow(MEM_BROKER, gs->parts, n * sizeof *gs->parts);
        memset(gs->parts + gs->parts_n, 0, (n - gs->parts_n) * sizeof *gs->parts);
        gs->parts_n = n;
    }
    gs->parts[partition] = gp;
}

static bool is_offsets(const struct bpart *p) { return slice_is(OFFSETS_TOPIC, p->topic->name); }

static void groups_part_attached(struct shard *here, struct bpart *p)
{
    struct groups *gs = here->groups;
    if (!is_offsets(p) || gs->stopping)
        return;
    struct group_part *gp = mem_new(MEM_BROKER, sizeof *gp);
    gp->gs = gs;
    gp->bp = p;
    gp->partition = p->partition;
    list_init(&gp->link);
    part_put(gs, p->partition, gp);
    if (!timer_is_set(&gs->sweep))
        timer_set(here->loop, &gs->sweep, GROUP_SWEEP_MS);
    group_metrics_begin(gs);
    group_load_begin(gp);
}

static void part_forget(struct group_part *gp)
{
    for (struct table_slot *s; (s = table_next(&gp->groups, NULL));)
        group_kill(s->value, KAFKA_NOT_COORDINATOR);
    group_txns_fini(gp);
    table_fini(&gp->groups);
}

void group_part_settle(struct group_part *gp)
{
    if (gp->state != GROUP_PART_GONE || gp->writes || gp->working)
        return;
    list_del(&gp->link);
    mem_free(gp);
}

static void part_leave(struct group_part *gp)
{
    struct groups *gs = gp->gs;
    gs->parts[gp->partition] = NULL;
    part_forget(gp);
    group_load_stop(gp);
    gp->state = GROUP_PART_GONE;
    gp->bp = NULL;
    list_del(&gp->link);
    list_push(&gs->gone, &gp->link);
    group_part_settle(gp);
}

static void groups_part_gone(struct shard *here, struct bpart *p)
{
    struct group_part *gp = is_offsets(p) ? part_at(here->groups, p->partition) : NULL;
    if (gp && gp->bp == p)
        part_leave(gp);
}

static void groups_topic_gone(struct shard *here, const struct topic *t)
{
    struct groups *gs = here->groups;
    for (uint32_t i = 0; i < gs->parts_n; i++)
        if (gs->parts[i] && gs->parts[i]->state == GROUP_PART_ACTIVE)
            group_part_topic_gone(gs->parts[i], t);
}

static void sweep_fn(struct timer *t)
{
    struct groups *gs = CONTAINER_OF(t, struct groups, sweep);
    int64_t now_ms = wall_ms();
    timer_set(gs->here->loop, t, GROUP_SWEEP_MS);
    for (uint32_t i = 0; i < gs->parts_n; i++)
        if (gs->parts[i] && gs->parts[i]->state == GROUP_PART_ACTIVE)
            group_part_sweep(gs->parts[i], now_ms);
}

static void groups_init(struct shard *here)
{
    struct groups *gs = mem_new(MEM_BROKER, sizeof *gs);
    gs->here = here;
    gs->size_max = GROUP_SIZE_MAX;
    list_init(&gs->loading);
    list_init(&gs->gone);
    timer_init(&gs->sweep, sweep_fn);
    group_metrics_init(gs);
    here->groups = gs;
}

static void groups_stop(struct shard *here)
{
    struct groups *gs = here->groups;
    gs->stopping = true;
    timer_clear(&gs->sweep);
    group_metrics_stop(gs);
    for (uint32_t i = 0; i < gs->parts_n; i++) {
        struct group_part *gp = gs->parts[i];
        if (!gp)
            continue;
        if (gp->state == GROUP_PART_LOADING)
            timer_clear(&gp->load_again);
        for (struct table_slot *s = NULL; (s = table_next(&gp->groups, s));)
            group_stop_waiting(s->value, KAFKA_NOT_COORDINATOR);
    }
}

static bool groups_at_rest(const struct shard *here)
{
    const struct groups *gs = here->groups;
    for (uint32_t i = 0; i < gs->parts_n; i++)
        if (gs->parts[i] && gs->parts[i]->working)
            return false;
    LIST_FOREACH (it, &gs->gone)
        if (CONTAINER_OF(it, struct group_part, link)->working)
            return false;
    return true;
}

static void groups_fini(struct shard *here)
{
    struct groups *gs = here->groups;
    if (!gs->stopping)
        groups_stop(here);
    for (uint32_t i = 0; i < gs->parts_n; i++)
        if (gs->parts[i])
            part_leave(gs->parts[i]);
    group_metrics_fini(gs);
    buf_free(&gs->key);
    buf_free(&gs->value);
    mem_free(gs->parts);
    mem_free(gs);
    here->groups = NULL;
}

const struct module groups_module = {.init = groups_init, .part_attached = groups_part_attached, .part_gone = groups_part_gone,
                                     .topic_gone = groups_topic_gone, .stop = groups_stop,
                                     .at_rest = groups_at_rest, .fini = groups_fini, .metrics = group_metrics};

/* ---- requests and their groups --------------------------------------------------------------------------------------------------- */

bool group_visit(struct breq *r, struct slice group, void (*fn)(struct breq *r))
{
    int32_t partition;
    struct shard *owner = coordinator_of(r->at, OFFSETS_TOPIC, group, &partition);
    if (!owner)
        return false;
    breq_visit(r, r->at, owner, fn);
    return true;
}

struct group_part *group_part_of(struct shard *here, struct slice group, enum kafka_error *e)
{
    int32_t partition;
    struct groups *gs = here->groups;
    *e = KAFKA_NOT_COORDINATOR;
    if (gs->stopping || coordinator_of(here, OFFSETS_TOPIC, group, &partition) != here)
        return NULL;
    struct group_part *gp = part_at(gs, partition);
    if (!gp && shard_part_named(here, OFFSETS_TOPIC, partition))
        *e = KAFKA_COORDINATOR_LOAD_IN_PROGRESS; /* its files are being looked at */
    if (!gp || gp->state == GROUP_PART_FAILED)
        return NULL;
    if (gp->state == GROUP_PART_LOADING) {
        *e = KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
        return NULL;
    }
    *e = KAFKA_NONE;
    return gp;
}

static void answer_now(struct shard *here, struct call *c) { breq_answer(CONTAINER_OF(c, struct breq, call), here); }

void group_answer(struct breq *r)
{
    r->call.fn = answer_now;
    shard_call(r->at, r->at, &r->call);
}

struct slice breq_text(struct breq *r, struct slice s) { return s.n ? arena_slice(&r->arena, s) : SLICE(""); }
struct slice breq_text_or_null(struct breq *r, struct slice s) { return s.p ? breq_text(r, s) : s; }

static bool *named_before(struct breq *r, const struct slice *ids, int32_t n)
{
    struct table seen = {0};
    bool *again = BREQ_ARRAY(r, bool, n);
    for (int32_t i = 0; i < n; i++)
        again[i] = table_put(&seen, ids[i], r) != NULL;
    table_fini(&seen);
    return again;
}

void group_walk_on(struct breq *r, struct group_walk *w)
{
    if (!w->again)
        w->again = named_before(r, w->ids, w->n);
    while (w->i < w->n) {
        int32_t partition, i = w->i;
        struct group_part *gp = NULL;
        enum kafka_error e = KAFKA_NOT_COORDINATOR;
        if (w->again[i]) {
            w->i++;
            (void)w->each(r, i, NULL, KAFKA_INVALID_REQUEST); /* nothing is under way: it was told no group */
            continue;
        }
        struct shard *owner = coordinator_of(r->at, OFFSETS_TOPIC, w->ids[i], &partition);
        if (owner && owner != r->at) {
            breq_visit(r, r->at, owner, w->step);
            return;
        }
        if (owner)
            gp = group_part_of(r->at, w->ids[i], &e);
        w->i++;
        if (!w->each(r, i, gp, e))
            return;
    }
    breq_visit(r, r->at, r->home, w->end);
}

/* ---- FindCoordinator ---------------------------------------------------------------------------------------------------------------- */

enum coordinator_kind { COORDINATOR_GROUP, COORDINATOR_TXN, COORDINATOR_SHARE }; /* key types of the protocol */

static enum kafka_error find_one(struct breq *r, int8_t kind, struct slice key, const char **why)
{
    int32_t partition;
    bool group = kind == COORDINATOR_GROUP;
    if (!group && kind != COORDINATOR_TXN) {
        *why = kind == COORDINATOR_SHARE ? "Share groups are not served." : "There is no such type of coordinator.";
        return KAFKA_INVALID_REQUEST;
    }
    if (!allowed(r, ACL_DESCRIBE, group ? ACL_GROUP : ACL_TXN, key))
        return group ? KAFKA_GROUP_AUTHORIZATION_FAILED : KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    struct slice topic = group ? OFFSETS_TOPIC : TXN_TOPIC;
    if (coordinator_of(r->at, topic, key, &partition))
        return KAFKA_NONE;
    internal_topic_make(r->at, topic);
    *why = "The coordinator is being set up.";
    return KAFKA_COORDINATOR_NOT_AVAILABLE;
}

static void find_many(struct breq *r, const struct kafka_find_coordinator_req *q, struct kafka_find_coordinator_resp *resp)
{
    resp->coordinators = BREQ_ARRAY(r, struct kafka_find_coordinator_resp_coordinator, q->coordinator_keys_n);
    resp->coordinators_n = q->coordinator_keys_n;
    for (int32_t i = 0; i < q->coordinator_keys_n; i++) {
        struct kafka_find_coordinator_resp_coordinator *c = &resp->coordinators[i];
        const char *why = NULL;
        kafka_find_coordinator_resp_coordinator_init(c);
        enum kafka_error e = find_one(r, q->key_type, q->coordinator_keys[i], &why);
        c->key = q->coordinator_keys[i];
        c->error_code = (int16_t)e;
        c->error_message = slice_cstr(why);
        c->node_id = e ? -1 : r->home->b->conf.node_id;
        c->host = e ? SLICE("") : r->advertised_host;
        c->port = e ? -1 : r->advertised_port;
        if (e)
            r->error = (int16_t)e;
    }
}

static void find_single(struct breq *r, const struct kafka_find_coordinator_req *q, struct kafka_find_coordinator_resp *resp)
{
    const char *why = NULL;
    enum kafka_error e = find_one(r, q->key_type, q->key, &why);
    resp->error_code = (int16_t)e;
    resp->error_message = slice_cstr(why);
    resp->node_id = e ? -1 : r->home->b->conf.node_id;
    resp->host = e ? SLICE("") : r->advertised_host;
    resp->port = e ? -1 : r->advertised_port;
    r->error = (int16_t)e;
}

void find_coordinator(struct breq *r)
{
    const struct kafka_find_coordinator_req *q = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(q->coordinator_keys_n, 0), NAMED_ITEMS_MAX))
        return;
    struct kafka_find_coordinator_resp *resp = BREQ_NEW(r, struct kafka_find_coordinator_resp);
    kafka_find_coordinator_resp_init(resp);
    if (r->version >= 4)
        find_many(r, q, resp);
    else
        find_single(r, q, resp);
    r->resp = resp;
    breq_answer(r, r->at);
}
