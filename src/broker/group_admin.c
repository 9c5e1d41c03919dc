/* group_admin.c - what administrators ask: DescribeGroups, ListGroups, DeleteGroups, OffsetDelete.
 *
 * Groups named in a request are visited one after the other (struct group_walk); a list visits every shard. Deletions are answered when their tombstones
 * are durable.
 */
#include "group_int.h"

/* ---- DescribeGroups ---------------------------------------------------------------------------------------------------------- */

#define DESCRIBE_NOT_FOUND_VERSION 6 /* before, a group that is not there was told as Dead without an error */

struct describe_groups {
    struct kafka_describe_groups_resp resp;
    struct group_walk walk;
};

static struct describe_groups *describe_of(struct breq *r) { return r->resp; }

static void describe_members(struct breq *r, const struct group *g, struct kafka_describe_groups_resp_described_group *out)
{
    out->members = BREQ_ARRAY(r, struct kafka_describe_groups_resp_described_group_member, g->members.n);
    bool stable = g->state == GROUP_STABLE;
    LIST_FOREACH (it, &g->in_order) {
        const struct gmember *m = CONTAINER_OF(it, struct gmember, link);
        struct kafka_describe_groups_resp_described_group_member *to = &out->members[out->members_n++];
        kafka_describe_groups_resp_described_group_member_init(to);
        to->member_id = breq_text(r, m->id);
        to->group_instance_id = breq_text_or_null(r, m->instance);
        to->client_id = breq_text(r, m->client_id);
        to->client_host = breq_text(r, m->client_host);
        to->member_metadata = stable ? breq_text(r, gmember_metadata(m, g->protocol)) : SLICE("");
        to->member_assignment = stable ? breq_text(r, m->assignment) : SLICE("");
    }
}

static bool describe_each(struct breq *r, int32_t i, struct group_part *gp, enum kafka_error e)
{
    struct kafka_describe_groups_resp_described_group *out = &describe_of(r)->resp.groups[i];
    if (out->error_code)
        return true;
    const struct group *g = gp ? group_find(gp, out->group_id) : NULL;
    if (!g || g->consumer) {
        if (gp && r->version >= DESCRIBE_NOT_FOUND_VERSION) {
            e = KAFKA_GROUP_ID_NOT_FOUND;
            out->error_message = slice_cstr(arena_printf(&r->arena, "Group " SLICE_FMT " %s.", SLICE_ARG(out->group_id), g ? "is not a classic group" : "not found"));
        }
        out->error_code = (int16_t)e;
        out->group_state = gp ? slice_cstr(group_state_name(GROUP_DEAD)) : SLICE("");
        return true;
    }
    out->group_state = slice_cstr(group_state_name(g->state));
    out->protocol_type = breq_text(r, g->protocol_type);
    out->protocol_data = g->state == GROUP_STABLE ? breq_text(r, g->protocol) : SLICE("");
    describe_members(r, g, out);
    return true;
}

static void describe_end(struct breq *r) { breq_answer(r, r->at); }
static void describe_step(struct breq *r) { group_walk_on(r, &describe_of(r)->walk); }

void describe_groups(struct breq *r)
{
    const struct kafka_describe_groups_req *q = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(q->groups_n, 0), NAMED_ITEMS_MAX))
        return;
    struct describe_groups *d = BREQ_NEW(r, struct describe_groups);
    kafka_describe_groups_resp_init(&d->resp);
    r->resp = d;
    d->resp.groups = BREQ_ARRAY(r, struct kafka_describe_groups_resp_described_group, q->groups_n);
    d->resp.groups_n = q->groups_n;
    for (int32_t i = 0; i < q->groups_n; i++) {
        struct kafka_describe_groups_resp_described_group *out = &d->resp.groups[i];
        kafka_describe_groups_resp_described_group_init(out);
        out->group_id = q->groups[i];
        if (!allowed(r, ACL_DESCRIBE, ACL_GROUP, q->groups[i]))
            out->error_code = KAFKA_GROUP_AUTHORIZATION_FAILED;
        else if (r->version >= 3 && q->include_authorized_operations)
            out->authorized_operations = allowed_operations(r, ACL_GROUP, q->groups[i]);
    }
    d->walk = (struct group_walk){.ids = q->groups, .n = q->groups_n, .step = describe_step, .each = describe_each, .end = describe_end};
    describe_step(r);
}

/* ---- ListGroups ---------------------------------------------------------------------------------------------------------------- */

struct list_groups {
    struct kafka_list_groups_resp resp;
    int32_t cap;               /* of resp.groups */
    uint32_t shard;            /* the next one */
};

static bool one_of(struct slice what, const struct slice *list, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (slice_ieq(what, list[i]))
            return true;
    return n <= 0;
}

static const char *group_type(const struct group *g) { return g->consumer ? "consumer" : "classic"; }

static void list_add(struct breq *r, struct list_groups *l, const struct group *g)
{
    struct kafka_list_groups_resp *resp = &l->resp;
    if (resp->groups_n == l->cap) {
        struct kafka_list_groups_resp_listed_group *old = resp->groups;
        l->cap = MAX(l->cap * 2, 16);
        resp->groups = BREQ_ARRAY(r, struct kafka_list_groups_resp_listed_group, l->cap);
        if (resp->groups_n)
            memcpy(resp->groups, old, (size_t)resp->groups_n * sizeof *old);
    }
    struct kafka_list_groups_resp_listed_group *out = &resp->groups[resp->groups_n++];
    kafka_list_groups_resp_listed_group_init(out);
    out->group_id = breq_text(r, g->id);
    out->protocol_type = breq_text(r, g->protocol_type);
    out->group_state = slice_cstr(group_state_text(g));
    out->group_type = slice_cstr(group_type(g));
}

static void list_part(struct breq *r, struct list_groups *l, const struct group_part *gp)
{
    const struct kafka_list_groups_req *q = r->req;
    if (gp->state == GROUP_PART_LOADING)
        l->resp.error_code = KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
    for (struct table_slot *s = NULL; (s = table_next(&gp->groups, s));) {
        const struct group *g = s->value;
        if (gp->state == GROUP_PART_ACTIVE && one_of(slice_cstr(group_state_text(g)), q->states_filter, q->states_filter_n) &&
            (r->version < 5 || one_of(slice_cstr(group_type(g)), q->types_filter, q->types_filter_n)))
            list_add(r, l, g);
    }
}

/* Home again: what the caller may see. */
static void list_end(struct breq *r)
{
    struct list_groups *l = r->resp;
    int32_t n = 0;
    bool all = allowed(r, ACL_DESCRIBE, ACL_CLUSTER, CLUSTER_NAME);
    for (int32_t i = 0; i < l->resp.groups_n; i++)
        if (all || allowed(r, ACL_DESCRIBE, ACL_GROUP, l->resp.groups[i].group_id))
            l->resp.groups[n++] = l->resp.groups[i];
    l->resp.groups_n = n;
    r->error = l->resp.error_code;
    breq_answer(r, r->at);
}

/* On the shard of that index. */
static void list_shard(struct breq *r)
{
    struct list_groups *l = r->resp;
    const struct groups *gs = r->at->groups;
    for (uint32_t i = 0; i < gs->parts_n; i++)
        if (gs->parts[i])
            list_part(r, l, gs->parts[i]);
    l->shard++;
    if (l->shard < r->home->b->shards_n)
        breq_visit(r, r->at, r->home->b->shards[l->shard], list_shard);
    else
        breq_visit(r, r->at, r->home, list_end);
}

void list_groups(struct breq *r)
{
    const struct kafka_list_groups_req *q = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(q->states_filter_n, 0) + (uint64_t)MAX(q->types_filter_n, 0), FILTER_ITEMS_MAX))
        return;
    struct list_groups *l = BREQ_NEW(r, struct list_groups);
    kafka_list_groups_resp_init(&l->resp);
    r->resp = l;
    breq_visit(r, r->at, r->home->b->shards[0], list_shard);
}

/* ---- DeleteGroups ---------------------------------------------------------------------------------------------------------------- */

struct delete_groups {
    struct kafka_delete_groups_resp resp;
    struct group_walk walk;
    struct breq *r;
};

static struct delete_groups *delete_of(struct breq *r) { return r->resp; }
static void delete_step(struct breq *r) { group_walk_on(r, &delete_of(r)->walk); }

static void deleted(void *ctx, enum kafka_error e)
{
    struct delete_groups *d = ctx;
    d->resp.results[d->walk.i - 1].error_code = (int16_t)group_write_error(e);
    delete_step(d->r);
}

static void delete_group(struct group_part *gp, struct group *g, struct delete_groups *d)
{
    struct arena a;
    uint32_t n;
    struct group_tombs *tombs = group_tombs_begin(gp, deleted, d);
    arena_init(&a, MEM_BROKER, 4096);
    struct goffset **all = group_offsets_sorted(g, &a, &n);
    for (uint32_t i = 0; i < n; i++)
        group_tombs_offset(tombs, g->id, all[i]->topic, all[i]->partition);
    arena_fini(&a);
    group_tombs_whole(tombs, g);
    log_info("broker", "group " SLICE_FMT " is deleted, with %u offsets", SLICE_ARG(g->id), n);
    group_kill(g, KAFKA_NOT_COORDINATOR);
    group_tombs_end(tombs);
}

static bool delete_each(struct breq *r, int32_t i, struct group_part *gp, enum kafka_error e)
{
    struct delete_groups *d = delete_of(r);
    int16_t *error = &d->resp.results[i].error_code;
    if (*error)
        return true;
    struct group *g = gp ? group_find(gp, d->walk.ids[i]) : NULL;
    if (gp && !g)
        e = KAFKA_GROUP_ID_NOT_FOUND;
    else if (g && g->state != GROUP_EMPTY)
        e = KAFKA_NON_EMPTY_GROUP;
    else if (g && g->refs)
        e = KAFKA_COORDINATOR_LOAD_IN_PROGRESS; /* a commit is on its way: ask again */
    *error = (int16_t)e;
    if (e)
        return true;
    delete_group(gp, g, d);
    return false;
}

static void delete_end(struct breq *r) { breq_answer(r, r->at); }

void delete_groups(struct breq *r)
{
    const struct kafka_delete_groups_req *q = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(q->groups_names_n, 0), NAMED_ITEMS_MAX))
        return;
    struct delete_groups *d = BREQ_NEW(r, struct delete_groups);
    kafka_delete_groups_resp_init(&d->resp);
    r->resp = d;
    d->r = r;
    d->resp.results = BREQ_ARRAY(r, struct kafka_delete_groups_resp_deletable_group_result, q->groups_names_n);
    d->resp.results_n = q->groups_names_n;
    for (int32_t i = 0; i < q->groups_names_n; i++) {
        struct kafka_delete_groups_resp_deletable_group_result *out = &d->resp.results[i];
        kafka_delete_groups_resp_deletable_group_result_init(out);
        out->group_id = q->groups_names[i];
        if (!allowed(r, ACL_DELETE, ACL_GROUP, out->group_id))
            out->error_code = KAFKA_GROUP_AUTHORIZATION_FAILED;
        else if (out->group_id.n == 0)
            out->error_code = KAFKA_INVALID_GROUP_ID;
    }
    d->walk = (struct group_walk){.ids = q->groups_names, .n = q->groups_names_n, .step = delete_step, .each = delete_each, .end = delete_end};
    delete_step(r);
}

/* ---- OffsetDelete ------------------------------------------------------------------------------------------------------------------ */

struct offset_delete {
    struct kafka_offset_delete_resp resp;
    struct breq *r;
    struct group *g;           /* a reference, while the tombstones are written */
};

static void offset_delete_fail(struct breq *r, enum kafka_error e)
{
    struct offset_delete *od = r->resp;
    od->resp.error_code = (int16_t)e;
    od->resp.topics_n = 0;
    r->error = (int16_t)e;
    breq_answer(r, r->at);
}

/* fn for every partition without an error. */
static void each_offset(struct offset_delete *od, void (*fn)(void *ctx, struct slice topic, int32_t partition), void *ctx)
{
    for (int32_t i = 0; i < od->resp.topics_n; i++) {
        const struct kafka_offset_delete_resp_offset_delete_response_topic *t = &od->resp.topics[i];
        for (int32_t k = 0; k < t->partitions_n; k++)
            if (!t->partitions[k].error_code)
                fn(ctx, t->name, t->partitions[k].partition_index);
    }
}

static void offset_forget(void *ctx, struct slice topic, int32_t partition)
{
    struct group *g = ctx;
    struct goffset *o = group_offset(g, topic, partition);
    if (o)
        group_offset_forget(g, o);
}

/* Only now, behind the commits that were on their way. */
static void offsets_deleted(void *ctx, enum kafka_error e)
{
    struct offset_delete *od = ctx;
    struct group *g = od->g;
    if (!e && g->state != GROUP_DEAD)
        each_offset(od, offset_forget, g);
    if (e)
        offset_delete_fail(od->r, group_write_error(e));
    else
        breq_answer(od->r, od->r->at);
    group_unref(g);
}

struct tomb_to { struct group_tombs *t; const struct group *g; };

static void offset_tomb(void *ctx, struct slice topic, int32_t partition)
{
    struct tomb_to *to = ctx;
    group_tombs_offset(to->t, to->g->id, topic, partition);
}

static bool any_good(const struct kafka_offset_delete_resp_offset_delete_response_topic *t)
{
    for (int32_t k = 0; k < t->partitions_n; k++)
        if (!t->partitions[k].error_code)
            return true;
    return false;
}

/* Offsets of topics that a member subscribes to stay. To tell may mean to read every member's metadata: so it is asked of topics that there are, once of each. */
static void offsets_of_subscribed(struct offset_delete *od, const struct group *g)
{
    static const bool yes = true, no = false;
    struct table known = {0};
    for (int32_t i = 0; i < od->resp.topics_n; i++) {
        struct kafka_offset_delete_resp_offset_delete_response_topic *t = &od->resp.topics[i];
        if (!any_good(t))
            continue;
        const bool *subscribed = table_get(&known, t->name);
        if (!subscribed) {
            subscribed = group_subscribed(g, t->name) ? &yes : &no;
            (void)table_put(&known, t->name, (void *)(uintptr_t)subscribed);
        }
        for (int32_t k = 0; *subscribed && k < t->partitions_n; k++)
            if (!t->partitions[k].error_code)
                t->partitions[k].error_code = KAFKA_GROUP_SUBSCRIBED_TO_TOPIC;
    }
    table_fini(&known);
}

static void offset_deleting(struct breq *r)
{
    const struct kafka_offset_delete_req *q = r->req;
    struct offset_delete *od = r->resp;
    enum kafka_error e;
    struct group_part *gp = group_part_of(r->at, q->group_id, &e);
    struct group *g = gp ? group_find(gp, q->group_id) : NULL;
    if (gp && !g)
        e = KAFKA_GROUP_ID_NOT_FOUND;
    else if (g && g->state != GROUP_EMPTY && !slice_is(g->protocol_type, "consumer"))
        e = KAFKA_NON_EMPTY_GROUP;
    if (e) {
        offset_delete_fail(r, e);
        return;
    }
    offsets_of_subscribed(od, g);
    od->g = g;
    g->refs++;
    struct tomb_to to = {group_tombs_begin(gp, offsets_deleted, od), g};
    each_offset(od, offset_tomb, &to);
    group_tombs_end(to.t);
}

static void offset_delete_topic(struct breq *r, struct offset_delete *od, int32_t at)
{
    const struct kafka_offset_delete_req *q = r->req;
    const struct kafka_offset_delete_req_offset_delete_request_topic *in = &q->topics[at];
    struct kafka_offset_delete_resp_offset_delete_response_topic *out = &od->resp.topics[at];
    kafka_offset_delete_resp_offset_delete_response_topic_init(out);
    const struct topic *t = catalog_topic(r->home->catalog, in->name);
    bool may = allowed(r, ACL_READ, ACL_TOPIC, in->name);
    out->name = in->name;
    out->partitions = BREQ_ARRAY(r, struct kafka_offset_delete_resp_offset_delete_response_partition, in->partitions_n);
    out->partitions_n = in->partitions_n;
    for (int32_t i = 0; i < in->partitions_n; i++) {
        int32_t partition = in->partitions[i].partition_index;
        kafka_offset_delete_resp_offset_delete_response_partition_init(&out->partitions[i]);
        out->partitions[i].partition_index = partition;
        out->partitions[i].error_code = !may                                                     ? KAFKA_TOPIC_AUTHORIZATION_FAILED
                                        : !t || partition < 0 || partition >= t->partitions ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION
                                                                                              : KAFKA_NONE;
    }
}

void offset_delete(struct breq *r)
{
    const struct kafka_offset_delete_req *q = r->req;
    uint64_t n = 0;
    for (int32_t i = 0; i < q->topics_n; i++)
        n += 1 + (uint64_t)MAX(q->topics[i].partitions_n, 0);
    if (!breq_items_ok(r, n, NAMED_ITEMS_MAX)) /* each is a tombstone */
        return;
    struct offset_delete *od = BREQ_NEW(r, struct offset_delete);
    kafka_offset_delete_resp_init(&od->resp);
    r->resp = od;
    od->r = r;
    if (!allowed(r, ACL_DELETE, ACL_GROUP, q->group_id)) {
        offset_delete_fail(r, KAFKA_GROUP_AUTHORIZATION_FAILED);
        return;
    }
    od->resp.topics = BREQ_ARRAY(r, struct kafka_offset_delete_resp_offset_delete_response_topic, q->topics_n);
    od->resp.topics_n = q->topics_n;
    for (int32_t i = 0; i < q->topics_n; i++)
        offset_delete_topic(r, od, i);
    if (!group_visit(r, q->group_id, offset_deleting))
        offset_delete_fail(r, KAFKA_NOT_COORDINATOR);
}
