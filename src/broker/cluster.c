/* cluster.c - what tools for clusters ask, answered for one node: sizes of partitions on disk, elections, reassignments.
 *
 * DescribeLogDirs visits the shards one after the other, since a partition's size is its owner's to tell. There is one folder, on this node. Leaders are
 * where they are, and replicas as well: an election is not needed, a reassignment to this node alone is done.
 */
#include "frame_int.h"

/* ---- DescribeLogDirs -------------------------------------------------------------------------------------------------- */

struct dir_topic {
    struct kafka_uuid id;
    struct kafka_describe_log_dirs_resp_describe_log_dirs_topic *out; /* all partitions that were asked for; -1 as size until their owner told */
};
struct dir_walk {
    struct kafka_describe_log_dirs_resp_describe_log_dirs_result *out;
    struct dir_topic *topics;
};

static void dir_end(struct breq *r)
{
    struct kafka_describe_log_dirs_resp_describe_log_dirs_result *out = ((struct kafka_describe_log_dirs_resp *)r->resp)->results;
    uint64_t free_bytes, total_bytes;
    for (int32_t i = 0; i < out->topics_n; i++) { /* what nobody owned is no partition */
        struct kafka_describe_log_dirs_resp_describe_log_dirs_topic *t = &out->topics[i];
        int32_t n = 0;
        for (int32_t k = 0; k < t->partitions_n; k++)
            if (t->partitions[k].partition_size >= 0)
                t->partitions[n++] = t->partitions[k];
        t->partitions_n = n;
    }
    if (disk_space(r->home->b->conf.log.dir, &free_bytes, &total_bytes) == OK) {
        out->total_bytes = (int64_t)total_bytes;
        out->usable_bytes = (int64_t)free_bytes;
    }
    breq_answer(r, r->home);
}

/* On each shard in turn; the baton comes home after the last. */
static void dir_visit(struct breq *r)
{
    struct shard *here = r->at;
    struct dir_walk *w = *(struct dir_walk **)r->req;
    for (int32_t i = 0; i < w->out->topics_n; i++) {
        struct kafka_describe_log_dirs_resp_describe_log_dirs_topic *t = w->topics[i].out;
        for (int32_t k = 0; k < t->partitions_n; k++) {
            struct bpart *p = shard_part(here, &w->topics[i].id, t->partitions[k].partition_index);
            if (p)
                t->partitions[k].partition_size = p->part ? (int64_t)part_bytes(p->part) : 0;
        }
    }
    uint32_t next = here->index + 1;
    if (next < here->b->shards_n)
        breq_visit(r, here, here->b->shards[next], dir_visit);
    else
        breq_visit(r, here, r->home, dir_end);
}

static void dir_add(struct breq *r, struct dir_walk *w, const struct topic *t, const int32_t *partitions, int32_t n)
{
    struct kafka_describe_log_dirs_resp_describe_log_dirs_topic *out = &w->out->topics[w->out->topics_n];
    kafka_describe_log_dirs_resp_describe_log_dirs_topic_init(out);
    out->name = arena_slice(&r->arena, topic_name(t));
    out->partitions_n = n;
    out->partitions = BREQ_ARRAY(r, struct kafka_describe_log_dirs_resp_describe_log_dirs_partition, n);
    for (int32_t i = 0; i < n; i++) {
        kafka_describe_log_dirs_resp_describe_log_dirs_partition_init(&out->partitions[i]);
        out->partitions[i].partition_index = partitions ? partitions[i] : i;
        out->partitions[i].partition_size = -1;
    }
    w->topics[w->out->topics_n++] = (struct dir_topic){.id = t->id, .out = out};
}

static void dir_topics(struct breq *r, struct dir_walk *w)
{
    const struct kafka_describe_log_dirs_req *req = r->req;
    const struct catalog *cat = r->home->catalog;
    bool all = req->topics_n == -1;
    size_t n = all ? cat->by_name.n : (size_t)req->topics_n;
    w->out->topics = BREQ_ARRAY(r, struct kafka_describe_log_dirs_resp_describe_log_dirs_topic, n);
    w->topics = BREQ_ARRAY(r, struct dir_topic, n);
    for (struct table_slot *s = NULL; all && (s = table_next(&cat->by_name, s));)
        dir_add(r, w, s->value, NULL, ((const struct topic *)s->value)->partitions);
    for (int32_t i = 0; !all && i < req->topics_n; i++) {
        const struct topic *t = catalog_topic(cat, req->topics[i].topic);
        if (t)
            dir_add(r, w, t, req->topics[i].partitions, MAX(req->topics[i].partitions_n, 0));
    }
}

void describe_log_dirs(struct breq *r)
{
    const struct kafka_describe_log_dirs_req *asked = r->req;
    uint64_t n = 0;
    for (int32_t i = 0; i < asked->topics_n; i++)
        n += 1 + (uint64_t)MAX(asked->topics[i].partitions_n, 0);
    if (!breq_items_ok(r, n, NAMED_ITEMS_MAX))
        return;
    struct kafka_describe_log_dirs_resp *resp = BREQ_NEW(r, struct kafka_describe_log_dirs_resp);
    kafka_describe_log_dirs_resp_init(resp);
    r->resp = resp;
    if (!allowed(r, ACL_DESCRIBE, ACL_CLUSTER, CLUSTER_NAME)) {
        r->error = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
        resp->error_code = r->version >= 3 ? r->error : KAFKA_NONE; /* before it there was nowhere to say it: no folders */
        breq_answer(r, r->home);
        return;
    }
    struct dir_walk *w = BREQ_NEW(r, struct dir_walk), **req = BREQ_NEW(r, struct dir_walk *);
    resp->results = BREQ_NEW(r, struct kafka_describe_log_dirs_resp_describe_log_dirs_result);
    resp->results_n = 1;
    kafka_describe_log_dirs_resp_describe_log_dirs_result_init(resp->results);
    resp->results->log_dir = slice_cstr(r->home->b->conf.log.dir);
    w->out = resp->results;
    dir_topics(r, w);
    *req = w;
    r->req = req; /* it has been read */
    breq_visit(r, r->home, r->home->b->shards[0], dir_visit);
}

/* ---- ElectLeaders (KIP-460) --------------------------------------------------------------------------------------------- */

void elect_leaders(struct breq *r)
{
    const struct kafka_elect_leaders_req *req = r->req;
    uint64_t n = 0;
    for (int32_t i = 0; i < req->topic_partitions_n; i++)
        n += 1 + (uint64_t)MAX(req->topic_partitions[i].partitions_n, 0);
    if (!breq_items_ok(r, n, NAMED_ITEMS_MAX))
        return;
    struct kafka_elect_leaders_resp *resp = BREQ_NEW(r, struct kafka_elect_leaders_resp);
    kafka_elect_leaders_resp_init(resp);
    r->resp = resp;
    if (!allowed(r, ACL_ALTER, ACL_CLUSTER, CLUSTER_NAME)) {
        r->error = resp->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
        breq_answer(r, r->home);
        return;
    }
    resp->replica_election_results_n = MAX(req->topic_partitions_n, 0); /* null: all; of them those are told whose leader changed */
    resp->replica_election_results = BREQ_ARRAY(r, struct kafka_elect_leaders_resp_replica_election_result, resp->replica_election_results_n);
    for (int32_t i = 0; i < resp->replica_election_results_n; i++) {
        const struct kafka_elect_leaders_req_topic_partitions *in = &req->topic_partitions[i];
        struct kafka_elect_leaders_resp_replica_election_result *out = &resp->replica_election_results[i];
        const struct topic *t = catalog_topic(r->home->catalog, in->topic);
        kafka_elect_leaders_resp_replica_election_result_init(out);
        out->topic = in->topic;
        out->partition_result_n = MAX(in->partitions_n, 0);
        out->partition_result = BREQ_ARRAY(r, struct kafka_elect_leaders_resp_partition_result, out->partition_result_n);
        for (int32_t k = 0; k < out->partition_result_n; k++) {
            struct kafka_elect_leaders_resp_partition_result *p = &out->partition_result[k];
            kafka_elect_leaders_resp_partition_result_init(p);
            p->partition_id = in->partitions[k];
            bool there = t && p->partition_id >= 0 && p->partition_id < t->partitions;
            p->error_code = there ? KAFKA_ELECTION_NOT_NEEDED : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
            p->error_message = there ? SLICE("Leader election not needed for topic partition.") : SLICE("No such topic or partition.");
        }
    }
    breq_answer(r, r->home);
}

/* ---- reassignments (KIP-455) ------------------------------------------------------------------------------------------------ */

static void reassign_part(struct breq *r, const struct topic *t, const struct kafka_alter_partition_reassignments_req_reassignable_partition *in,
                          struct kafka_alter_partition_reassignments_resp_reassignable_partition_response *out)
{
    kafka_alter_partition_reassignments_resp_reassignable_partition_response_init(out);
    out->partition_index = in->partition_index;
    out->error_message = (struct slice){0};
    if (!t || in->partition_index < 0 || in->partition_index >= t->partitions) {
        out->error_code = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        out->error_message = SLICE("The partition does not exist.");
    } else if (in->replicas_n == -1) {
        out->error_code = KAFKA_NO_REASSIGNMENT_IN_PROGRESS;
        out->error_message = SLICE("No reassignment is in progress.");
    } else if (in->replicas_n != 1 || in->replicas[0] != r->home->b->conf.node_id) {
        out->error_code = KAFKA_INVALID_REPLICA_ASSIGNMENT;
        out->error_message = SLICE("There is one broker: it has the one replica.");
    }
}

void alter_partition_reassignments(struct breq *r)
{
    const struct kafka_alter_partition_reassignments_req *req = r->req;
    uint64_t n = 0;
    for (int32_t i = 0; i < req->topics_n; i++)
        n += 1 + (uint64_t)MAX(req->topics[i].partitions_n, 0);
    if (!breq_items_ok(r, n, NAMED_ITEMS_MAX))
        return;
    struct kafka_alter_partition_reassignments_resp *resp = BREQ_NEW(r, struct kafka_alter_partition_reassignments_resp);
    kafka_alter_partition_reassignments_resp_init(resp);
    r->resp = resp;
    resp->error_message = (struct slice){0};
    resp->allow_replication_factor_change = req->allow_replication_factor_change;
    if (!allowed(r, ACL_ALTER, ACL_CLUSTER, CLUSTER_NAME)) {
        r->error = resp->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
        breq_answer(r, r->home);
        return;
    }
    resp->responses_n = MAX(req->topics_n, 0);
    resp->responses = BREQ_ARRAY(r, struct kafka_alter_partition_reassignments_resp_reassignable_topic_response, resp->responses_n);
    for (int32_t i = 0; i < resp->responses_n; i++) {
        const struct kafka_alter_partition_reassignments_req_reassignable_topic *in = &req->topics[i];
        struct kafka_alter_partition_reassignments_resp_reassignable_topic_response *out = &resp->responses[i];
        const struct topic *t = catalog_topic(r->home->catalog, in->name);
        kafka_alter_partition_reassignments_resp_reassignable_topic_response_init(out);
        out->name = in->name;
        out->partitions_n = MAX(in->partitions_n, 0);
        out->partitions = BREQ_ARRAY(r, struct kafka_alter_partition_reassignments_resp_reassignable_partition_response, out->partitions_n);
        for (int32_t k = 0; k < out->partitions_n; k++)
            reassign_part(r, t, &in->partitions[k], &out->partitions[k]);
    }
    breq_answer(r, r->home);
}

void list_partition_reassignments(struct breq *r)
{
    struct kafka_list_partition_reassignments_resp *resp = BREQ_NEW(r, struct kafka_list_partition_reassignments_resp);
    kafka_list_partition_reassignments_resp_init(resp);
    resp->error_message = (struct slice){0};
    r->resp = resp;
    if (!allowed(r, ACL_DESCRIBE, ACL_CLUSTER, CLUSTER_NAME))
        r->error = resp->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    breq_answer(r, r->home);
}
