/* offset_fetch.c - OffsetFetch: what is committed, of one group (versions to 7) or of several.
 *
 * Permissions are looked at on the home shard, before; then each group is visited where it lives (struct group_walk). Inside, every answer has the
 * shape of version 8: an answer to an older one is made from its only group at the end.
 *
 * An offset that was never committed is -1 without an error. With require_stable (KIP-447) a partition that has pending offsets of a transaction
 * is UNSTABLE_OFFSET_COMMIT, and the client asks again.
 */
#include "consumer_group_int.h"

#define FETCH_GROUPS_VERSION 8
#define FETCH_IDS_VERSION 10

struct fetch_group {
    const struct kafka_offset_fetch_req_offset_fetch_request_topics *topics;
    int32_t topics_n;          /* -1: all that are committed */
    struct slice *names;       /* of each topic of the request, in the arena */
    int16_t *refused;          /* of each topic: an error instead of its offsets */
    struct table told;         /* struct goffset *: those that are in the answer; while the group is looked at */
    enum kafka_error error;    /* of the whole group */
};
struct offset_fetch {
    struct kafka_offset_fetch_resp resp;
    struct group_walk walk;
    struct fetch_group *groups;
    struct kafka_offset_fetch_resp_offset_fetch_response_group *out; /* of each group */
};

static struct offset_fetch *fetch_of(struct breq *r) { return r->resp; }

/* ---- on the group's shard -------------------------------------------------------------------------------------------------- */

static void offset_tell(struct breq *r, const struct goffset *o, bool stable, struct kafka_offset_fetch_resp_offset_fetch_response_partitions *out)
{
    out->committed_offset = -1;
    out->committed_leader_epoch = -1;
    out->metadata = SLICE("");
    if (!o)
        return;
    if (stable && !list_empty(&o->pending)) {
        out->error_code = KAFKA_UNSTABLE_OFFSET_COMMIT;
    } else if (o->committed) {
        out->committed_offset = o->v.offset;
        out->committed_leader_epoch = o->v.leader_epoch;
        out->metadata = breq_text(r, o->v.metadata);
    }
}

/* It is in the answer: its metadata may be large, and the request name it once more in four bytes. */
static bool told_before(struct fetch_group *fg, const struct goffset *o) { return o && table_put(&fg->told, slice_of((const char *)&o, sizeof o), fg); }

static void tell_topic(struct breq *r, const struct group *g, struct fetch_group *fg, int32_t at, bool stable,
                       struct kafka_offset_fetch_resp_offset_fetch_response_topics *out)
{
    const struct kafka_offset_fetch_req_offset_fetch_request_topics *in = &fg->topics[at];
    kafka_offset_fetch_resp_offset_fetch_response_topics_init(out);
    out->name = in->name;
    out->topic_id = in->topic_id;
    out->partitions = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_partitions, in->partition_indexes_n);
    out->partitions_n = in->partition_indexes_n;
    for (int32_t i = 0; i < in->partition_indexes_n; i++) {
        struct kafka_offset_fetch_resp_offset_fetch_response_partitions *p = &out->partitions[i];
        kafka_offset_fetch_resp_offset_fetch_response_partitions_init(p);
        p->partition_index = in->partition_indexes[i];
        int16_t refused = fg->refused[at];
        const struct goffset *o = g && !refused ? group_offset(g, fg->names[at], p->partition_index) : NULL;
        bool again = told_before(fg, o);
        offset_tell(r, again ? NULL : o, stable, p);
        if (refused || again)
            p->error_code = refused ? refused : KAFKA_INVALID_REQUEST;
    }
}

/* How many partitions of the same topic begin at i. */
static uint32_t run_of(struct goffset **all, uint32_t n, uint32_t i)
{
    uint32_t k = i + 1;
    while (k < n && slice_eq(all[k]->topic, all[i]->topic))
        k++;
    return k - i;
}

static void tell_all(struct breq *r, const struct group *g, bool stable, struct kafka_offset_fetch_resp_offset_fetch_response_group *out)
{
    uint32_t n;
    struct goffset **all = group_offsets_sorted(g, &r->arena, &n);
    out->topics = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_topics, n);
    for (uint32_t i = 0, run; i < n; i += run) {
        struct kafka_offset_fetch_resp_offset_fetch_response_topics *t = &out->topics[out->topics_n++];
        run = run_of(all, n, i);
        kafka_offset_fetch_resp_offset_fetch_response_topics_init(t);
        t->name = breq_text(r, all[i]->topic);
        t->topic_id = all[i]->v.topic_id;
        t->partitions = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_partitions, run);
        t->partitions_n = (int32_t)run;
        for (uint32_t k = 0; k < run; k++) {
            kafka_offset_fetch_resp_offset_fetch_response_partitions_init(&t->partitions[k]);
            t->partitions[k].partition_index = all[i + k]->partition;
            offset_tell(r, all[i + k], stable, &t->partitions[k]);
        }
    }
}

static bool fetch_each(struct breq *r, int32_t i, struct group_part *gp, enum kafka_error e)
{
    const struct kafka_offset_fetch_req *q = r->req;
    struct offset_fetch *of = fetch_of(r);
    struct fetch_group *fg = &of->groups[i];
    struct kafka_offset_fetch_resp_offset_fetch_response_group *out = &of->out[i];
    if (fg->error)
        return true;
    if (!gp) {
        fg->error = e;
        return true;
    }
    counter_inc(&gp->gs->count.fetches);
    const struct group *g = group_find(gp, of->walk.ids[i]);
    bool stable = r->version >= 7 && q->require_stable;
    if (g && g->consumer && r->version >= 9 && q->groups[i].member_id.p && q->groups[i].member_epoch >= 0) {
        fg->error = consumers_check_epoch(g, q->groups[i].member_id, q->groups[i].member_epoch);
        if (fg->error)
            return true;
    }
    if (fg->topics_n < 0) {
        if (g)
            tell_all(r, g, stable, out);
        return true;
    }
    out->topics = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_topics, fg->topics_n);
    out->topics_n = fg->topics_n;
    for (int32_t t = 0; t < fg->topics_n; t++)
        tell_topic(r, g, fg, t, stable, &out->topics[t]);
    table_fini(&fg->told);
    return true;
}

/* ---- home again ------------------------------------------------------------------------------------------------------------------ */

/* Of all that is committed the caller sees what it may describe; topics that are gone meanwhile have no id. */
static void fetch_filter(struct breq *r, struct kafka_offset_fetch_resp_offset_fetch_response_group *out)
{
    int32_t n = 0;
    for (int32_t i = 0; i < out->topics_n; i++) {
        const struct topic *t = catalog_topic(r->home->catalog, out->topics[i].name);
        if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, out->topics[i].name) || (!t && r->version >= FETCH_IDS_VERSION))
            continue;
        out->topics[n] = out->topics[i];
        if (t)
            out->topics[n].topic_id = t->id;
        n++;
    }
    out->topics_n = n;
}

/* A group that is refused as a whole: version 1 has no other place for the error than each partition. */
static void error_each(struct breq *r, const struct fetch_group *fg, struct kafka_offset_fetch_resp_offset_fetch_response_group *out)
{
    struct fetch_group all = *fg;
    out->topics = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_topics, MAX(fg->topics_n, 0));
    out->topics_n = MAX(fg->topics_n, 0);
    for (int32_t t = 0; t < out->topics_n; t++) {
        all.refused[t] = (int16_t)fg->error;
        tell_topic(r, NULL, &all, t, false, &out->topics[t]);
    }
}

/* The answer of versions before 8. */
static void fetch_single(struct breq *r, struct offset_fetch *of)
{
    struct kafka_offset_fetch_resp_offset_fetch_response_group *g = &of->out[0];
    struct kafka_offset_fetch_resp *resp = &of->resp;
    resp->error_code = r->version >= 2 ? g->error_code : 0;
    resp->topics = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_topic, g->topics_n);
    resp->topics_n = g->topics_n;
    for (int32_t i = 0; i < g->topics_n; i++) {
        struct kafka_offset_fetch_resp_offset_fetch_response_topic *t = &resp->topics[i];
        const struct kafka_offset_fetch_resp_offset_fetch_response_topics *from = &g->topics[i];
        kafka_offset_fetch_resp_offset_fetch_response_topic_init(t);
        t->name = from->name;
        t->partitions = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_partition, from->partitions_n);
        t->partitions_n = from->partitions_n;
        for (int32_t k = 0; k < from->partitions_n; k++) {
            const struct kafka_offset_fetch_resp_offset_fetch_response_partitions *p = &from->partitions[k];
            t->partitions[k] = (struct kafka_offset_fetch_resp_offset_fetch_response_partition){
                .partition_index = p->partition_index, .committed_offset = p->committed_offset, .committed_leader_epoch = p->committed_leader_epoch,
                .metadata = p->metadata, .error_code = p->error_code};
        }
    }
}

static void fetch_end(struct breq *r)
{
    struct offset_fetch *of = fetch_of(r);
    for (int32_t i = 0; i < of->walk.n; i++) {
        struct fetch_group *fg = &of->groups[i];
        of->out[i].error_code = (int16_t)fg->error;
        if (fg->error)
            r->error = (int16_t)fg->error;
        if (fg->error && r->version < 2)
            error_each(r, fg, &of->out[i]);
        else if (fg->topics_n < 0)
            fetch_filter(r, &of->out[i]);
    }
    if (r->version < FETCH_GROUPS_VERSION) {
        fetch_single(r, of);
    } else {
        of->resp.groups = of->out;
        of->resp.groups_n = of->walk.n;
    }
    breq_answer(r, r->at);
}

static void fetch_step(struct breq *r) { group_walk_on(r, &fetch_of(r)->walk); }

/* ---- at home, before ---------------------------------------------------------------------------------------------------------------- */

static void fetch_prepare(struct breq *r, struct slice id, struct fetch_group *fg)
{
    int32_t n = MAX(fg->topics_n, 0);
    fg->error = allowed(r, ACL_DESCRIBE, ACL_GROUP, id) ? KAFKA_NONE : KAFKA_GROUP_AUTHORIZATION_FAILED;
    fg->names = BREQ_ARRAY(r, struct slice, n);
    fg->refused = BREQ_ARRAY(r, int16_t, n);
    for (int32_t i = 0; i < n; i++) {
        fg->names[i] = fg->topics[i].name;
        if (r->version >= FETCH_IDS_VERSION) {
            const struct topic *t = catalog_topic_by_id(r->home->catalog, &fg->topics[i].topic_id);
            if (!t) {
                fg->refused[i] = KAFKA_UNKNOWN_TOPIC_ID;
                continue;
            }
            fg->names[i] = breq_text(r, slice_cstr(t->name));
        }
        if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, fg->names[i]))
            fg->refused[i] = KAFKA_TOPIC_AUTHORIZATION_FAILED;
    }
}

/* The request of one group as one of several. */
static void fetch_old(struct breq *r, struct offset_fetch *of, struct slice *ids)
{
    const struct kafka_offset_fetch_req *q = r->req;
    int32_t n = MAX(q->topics_n, 0);
    struct kafka_offset_fetch_req_offset_fetch_request_topics *topics = BREQ_ARRAY(r, struct kafka_offset_fetch_req_offset_fetch_request_topics, n);
    for (int32_t i = 0; i < n; i++) {
        kafka_offset_fetch_req_offset_fetch_request_topics_init(&topics[i]);
        topics[i].name = q->topics[i].name;
        topics[i].partition_indexes = q->topics[i].partition_indexes;
        topics[i].partition_indexes_n = q->topics[i].partition_indexes_n;
    }
    ids[0] = q->group_id;
    of->groups[0].topics = topics;
    of->groups[0].topics_n = q->topics_n;
}

/* All offsets of a group are told once; what is named one by one is limited by that. */
static bool *again_all(struct breq *r, const struct offset_fetch *of)
{
    struct table seen = {0};
    bool *again = BREQ_ARRAY(r, bool, of->walk.n);
    for (int32_t i = 0; i < of->walk.n; i++)
        again[i] = of->groups[i].topics_n < 0 && table_put(&seen, of->walk.ids[i], r);
    table_fini(&seen);
    return again;
}

static uint64_t parts_named(const struct kafka_offset_fetch_req *q)
{
    uint64_t n = 0;
    for (int32_t i = 0; i < q->topics_n; i++)
        n += (uint64_t)MAX(q->topics[i].partition_indexes_n, 0);
    for (int32_t i = 0; i < q->groups_n; i++)
        for (int32_t t = 0; t < q->groups[i].topics_n; t++)
            n += (uint64_t)MAX(q->groups[i].topics[t].partition_indexes_n, 0);
    return n;
}

void offset_fetch(struct breq *r)
{
    const struct kafka_offset_fetch_req *q = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(q->groups_n, 0) + parts_named(q), NAMED_ITEMS_MAX))
        return;
    struct offset_fetch *of = BREQ_NEW(r, struct offset_fetch);
    bool many = r->version >= FETCH_GROUPS_VERSION;
    int32_t n = many ? q->groups_n : 1;
    struct slice *ids = BREQ_ARRAY(r, struct slice, n);
    kafka_offset_fetch_resp_init(&of->resp);
    r->resp = of;
    of->groups = BREQ_ARRAY(r, struct fetch_group, n);
    of->out = BREQ_ARRAY(r, struct kafka_offset_fetch_resp_offset_fetch_response_group, n);
    of->walk = (struct group_walk){.ids = ids, .n = n, .step = fetch_step, .each = fetch_each, .end = fetch_end};
    if (!many)
        fetch_old(r, of, ids);
    for (int32_t i = 0; i < n; i++) {
        kafka_offset_fetch_resp_offset_fetch_response_group_init(&of->out[i]);
        if (many) {
            ids[i] = q->groups[i].group_id;
            of->groups[i].topics = q->groups[i].topics;
            of->groups[i].topics_n = q->groups[i].topics_n;
        }
        of->out[i].group_id = ids[i];
        fetch_prepare(r, ids[i], &of->groups[i]);
    }
    of->walk.again = again_all(r, of);
    fetch_step(r);
}
