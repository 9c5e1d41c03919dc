/* topics.c - CreateTopics, DeleteTopics, CreatePartitions: what a request asks for is checked here, and changed by the controller.
 *
 * Each topic of a request is a change of its own; the controller makes those that come together durable together. The answer comes when all are done: then
 * the topics can be used. `timeout_ms` is not looked at: nothing is waited for but the disk. One node: a replication factor of 1 (or -1), replicas on this node.
 */
#include "frame_int.h"

/* The versions from which a client knows THROTTLING_QUOTA_EXCEEDED (KIP-599). */
enum { CREATE_STRICT = 6, DELETE_STRICT = 5, GROW_STRICT = 3 };
#define QUOTA_EXCEEDED "The throttling quota has been exceeded."

struct topic_op {
    struct topic_change change;
    struct topics_batch *batch;
    int32_t index;               /* of its result */
};
/* The topics of one request. */
struct topics_batch {
    struct breq *r;
    uint32_t left;               /* changes under way, and one while the request is being read */
    struct topic_op *ops;        /* by index of result; change.done NULL: refused before */
    void (*result)(struct topics_batch *b, int32_t index, struct topic_change *c); /* puts an outcome into the answer */
};

static void op_done(struct shard *home, struct topic_change *c)
{
    struct topic_op *op = CONTAINER_OF(c, struct topic_op, change);
    struct topics_batch *b = op->batch;
    b->result(b, op->index, c);
    topic_unref(c->topic);
    mem_free(c->message);
    if (--b->left == 0)
        breq_answer(b->r, home);
}

static struct topics_batch *batch_new(struct breq *r, int32_t n, void (*result)(struct topics_batch *, int32_t, struct topic_change *))
{
    struct topics_batch *b = BREQ_NEW(r, struct topics_batch);
    b->r = r;
    b->left = 1;
    b->ops = BREQ_ARRAY(r, struct topic_op, n);
    b->result = result;
    return b;
}

static void batch_add(struct topics_batch *b, int32_t index)
{
    struct topic_op *op = &b->ops[index];
    op->batch = b;
    op->index = index;
    op->change.done = op_done;
    b->left++;
    topic_change(b->r->home, &op->change);
}

static void batch_end(struct topics_batch *b)
{
    if (--b->left == 0)
        breq_answer(b->r, b->r->home);
}

static struct slice message_of(struct breq *r, const struct topic_change *c) { return c->message ? arena_slice(&r->arena, slice_cstr(c->message)) : (struct slice){0}; }

/* The keys that stand more than once; values are r. */
static void find_doubles(struct table *seen, struct table *doubles, struct slice key, struct breq *r)
{
    if (table_put(seen, key, r))
        table_put(doubles, key, r);
}

static bool may(const struct breq *r, enum acl_operation op, struct slice topic) { return allowed(r, op, ACL_TOPIC, topic); }

/* ---- CreateTopics --------------------------------------------------------------------------------------------------------- */

/* The settings that the new topic has, as DescribeConfigs would tell them (KIP-525). */
static void created_configs(struct breq *r, struct kafka_create_topics_resp_creatable_topic_result *out, const struct topic *t)
{
    if (!allowed(r, ACL_DESCRIBE_CONFIGS, ACL_TOPIC, topic_name(t))) {
        out->topic_config_error_code = KAFKA_TOPIC_AUTHORIZATION_FAILED;
        out->num_partitions = out->replication_factor = -1;
        out->configs_n = -1;
        return;
    }
    out->num_partitions = t->partitions;
    out->replication_factor = 1;
    out->configs_n = TOPIC_SETTINGS;
    out->configs = BREQ_ARRAY(r, struct kafka_create_topics_resp_creatable_topic_configs, TOPIC_SETTINGS);
    for (int32_t i = 0; i < TOPIC_SETTINGS; i++) {
        struct kafka_create_topics_resp_creatable_topic_configs *c = &out->configs[i];
        kafka_create_topics_resp_creatable_topic_configs_init(c);
        c->name = slice_cstr(topic_setting_infos[i].name);
        c->value = arena_slice(&r->arena, slice_cstr(settings_value(&t->settings, (enum topic_setting)i)));
        c->config_source = settings_source(&t->settings, (enum topic_setting)i);
    }
}

static void create_result(struct topics_batch *b, int32_t i, struct topic_change *c)
{
    struct kafka_create_topics_resp_creatable_topic_result *out = &((struct kafka_create_topics_resp *)b->r->resp)->topics[i];
    out->error_code = (int16_t)c->error;
    out->error_message = message_of(b->r, c);
    if (c->error)
        return;
    if (!c->validate_only)
        out->topic_id = c->id;
    if (b->r->version >= 5)
        created_configs(b->r, out, c->topic);
}

/* Replicas named one by one: each partition on this node. NONE: *n is how many. */
static enum kafka_error assignments_read(struct breq *r, const struct kafka_create_topics_req_creatable_topic *t, int32_t *n)
{
    bool *there = BREQ_ARRAY(r, bool, t->assignments_n);
    for (int32_t i = 0; i < t->assignments_n; i++) {
        const struct kafka_create_topics_req_creatable_replica_assignment *a = &t->assignments[i];
        if (a->partition_index < 0 || a->partition_index >= t->assignments_n || there[a->partition_index] || a->broker_ids_n != 1 || a->broker_ids[0] != r->home->b->conf.node_id)
            return KAFKA_INVALID_REPLICA_ASSIGNMENT;
        there[a->partition_index] = true;
    }
    *n = t->assignments_n;
    return KAFKA_NONE;
}

static enum kafka_error create_read(struct breq *r, const struct kafka_create_topics_req_creatable_topic *t, struct topic_change *c, const char **why)
{
    *why = NULL;
    c->what = TOPIC_CREATE;
    c->name = t->name;
    c->partitions = t->num_partitions;
    if (t->assignments_n > 0) {
        *why = "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the same time.";
        if (t->num_partitions != -1 || t->replication_factor != -1)
            return KAFKA_INVALID_REQUEST;
        *why = "Partitions must be numbered from 0, each with one replica on this node: there is one.";
        enum kafka_error e = assignments_read(r, t, &c->partitions);
        if (e)
            return e;
    } else if (t->replication_factor != -1 && t->replication_factor != 1) {
        *why = t->replication_factor > 1 ? "The target replication factor cannot be reached because only 1 broker(s) are registered." : "Replication factor must be larger than 0.";
        return KAFKA_INVALID_REPLICATION_FACTOR;
    }
    struct slice *pairs = BREQ_ARRAY(r, struct slice, 2 * (size_t)MAX(t->configs_n, 0));
    for (int32_t i = 0; i < t->configs_n; i++) {
        *why = "Null value not supported for topic configs.";
        if (!t->configs[i].value.p)
            return KAFKA_INVALID_CONFIG;
        pairs[2 * i] = t->configs[i].name;
        pairs[2 * i + 1] = t->configs[i].value;
    }
    c->settings = pairs;
    c->settings_n = (uint32_t)MAX(t->configs_n, 0);
    *why = NULL;
    return KAFKA_NONE;
}

static void create_one(struct topics_batch *b, int32_t i, bool twice)
{
    struct breq *r = b->r;
    const struct kafka_create_topics_req *req = r->req;
    const struct kafka_create_topics_req_creatable_topic *t = &req->topics[i];
    struct kafka_create_topics_resp *resp = r->resp;
    struct topic_change *c = &b->ops[i].change;
    const char *why = "Duplicate topic name.";
    enum kafka_error e = KAFKA_INVALID_REQUEST;
    kafka_create_topics_resp_creatable_topic_result_init(&resp->topics[i]);
    resp->topics[i].name = t->name;
    if (!twice) {
        why = "Authorization failed.";
        e = KAFKA_TOPIC_AUTHORIZATION_FAILED;
        if (allowed(r, ACL_CREATE, ACL_CLUSTER, CLUSTER_NAME) || may(r, ACL_CREATE, t->name))
            e = create_read(r, t, c, &why);
    }
    if (e) {
        resp->topics[i].error_code = (int16_t)e;
        resp->topics[i].error_message = slice_cstr(why);
        return;
    }
    c->validate_only = req->validate_only;
    if (!quota_mutation(r, (uint64_t)(c->partitions > 0 ? c->partitions : r->home->b->conf.partitions), CREATE_STRICT, &resp->throttle_time_ms)) {
        resp->topics[i].error_code = KAFKA_THROTTLING_QUOTA_EXCEEDED;
        resp->topics[i].error_message = SLICE(QUOTA_EXCEEDED);
        return;
    }
    batch_add(b, i);
}

void create_topics(struct breq *r)
{
    const struct kafka_create_topics_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->topics_n, 0), ADMIN_ITEMS_MAX))
        return;
    struct kafka_create_topics_resp *resp = BREQ_NEW(r, struct kafka_create_topics_resp);
    struct table seen = {0}, doubles = {0};
    kafka_create_topics_resp_init(resp);
    r->resp = resp;
    resp->topics_n = MAX(req->topics_n, 0);
    resp->topics = BREQ_ARRAY(r, struct kafka_create_topics_resp_creatable_topic_result, resp->topics_n);
    struct topics_batch *b = batch_new(r, resp->topics_n, create_result);
    for (int32_t i = 0; i < resp->topics_n; i++)
        find_doubles(&seen, &doubles, req->topics[i].name, r);
    for (int32_t i = 0; i < resp->topics_n; i++)
        create_one(b, i, table_get(&doubles, req->topics[i].name) != NULL);
    table_fini(&seen);
    table_fini(&doubles);
    batch_end(b);
}

/* ---- DeleteTopics -------------------------------------------------------------------------------------------------------------- */

static void delete_result(struct topics_batch *b, int32_t i, struct topic_change *c)
{
    struct kafka_delete_topics_resp_deletable_topic_result *out = &((struct kafka_delete_topics_resp *)b->r->resp)->responses[i];
    out->error_code = (int16_t)c->error;
    out->error_message = message_of(b->r, c);
    if (c->error == KAFKA_NONE)
        out->topic_id = c->id;
}

/* One topic, by name where name.p is set, else by id. The name of a topic that the caller may not see is not told. */
static enum kafka_error delete_check(struct breq *r, struct slice name, const struct kafka_uuid *id, struct kafka_delete_topics_resp_deletable_topic_result *out)
{
    const struct topic *t = name.p ? catalog_topic(r->home->catalog, name) : catalog_topic_by_id(r->home->catalog, id);
    if (!name.p && !t)
        return KAFKA_UNKNOWN_TOPIC_ID;
    struct slice is = t ? topic_name(t) : name;
    bool sees = may(r, ACL_DESCRIBE, is), deletes = may(r, ACL_DELETE, is);
    if (t && sees)
        out->name = arena_slice(&r->arena, is);
    if (!deletes)
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    return t ? KAFKA_NONE : KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
}

static void delete_one(struct topics_batch *b, int32_t i, struct slice name, const struct kafka_uuid *id, bool twice)
{
    struct breq *r = b->r;
    struct kafka_delete_topics_resp *resp = r->resp;
    struct kafka_delete_topics_resp_deletable_topic_result *out = &resp->responses[i];
    struct topic_change *c = &b->ops[i].change;
    bool by_id = !kafka_uuid_is_zero(*id);
    kafka_delete_topics_resp_deletable_topic_result_init(out);
    out->name = name;
    out->topic_id = *id;
    if (twice || (name.p != NULL) == by_id) {
        out->error_code = KAFKA_INVALID_REQUEST;
        out->error_message = twice ? by_id ? SLICE("Duplicate topic id.") : SLICE("Duplicate topic name.")
                             : by_id ? SLICE("You may not specify both topic name and topic id.") : SLICE("Neither topic name nor id were specified.");
        return;
    }
    enum kafka_error e = delete_check(r, name, id, out);
    if (e) {
        out->error_code = (int16_t)e;
        out->error_message = slice_cstr(kafka_error_name(e));
        return;
    }
    const struct topic *t = name.p ? catalog_topic(r->home->catalog, name) : catalog_topic_by_id(r->home->catalog, id);
    *c = (struct topic_change){.what = TOPIC_DELETE, .by_id = true, .id = t->id};
    if (!quota_mutation(r, (uint64_t)t->partitions, DELETE_STRICT, &resp->throttle_time_ms)) {
        out->error_code = KAFKA_THROTTLING_QUOTA_EXCEEDED;
        out->error_message = SLICE(QUOTA_EXCEEDED);
        return;
    }
    batch_add(b, i);
}

static struct slice delete_key(const struct kafka_delete_topics_req_delete_topic_state *t)
{
    return t->name.p ? t->name : slice_of((const char *)t->topic_id.b, sizeof t->topic_id.b);
}

void delete_topics(struct breq *r)
{
    const struct kafka_delete_topics_req *req = r->req;
    struct kafka_delete_topics_resp *resp = BREQ_NEW(r, struct kafka_delete_topics_resp);
    const struct kafka_uuid none = {{0}};
    struct table seen = {0}, doubles = {0};
    bool names = r->version < 6;
    int32_t n = MAX(names ? req->topic_names_n : req->topics_n, 0);
    if (!breq_items_ok(r, (uint64_t)n, ADMIN_ITEMS_MAX))
        return;
    kafka_delete_topics_resp_init(resp);
    r->resp = resp;
    resp->responses_n = n;
    resp->responses = BREQ_ARRAY(r, struct kafka_delete_topics_resp_deletable_topic_result, n);
    struct topics_batch *b = batch_new(r, n, delete_result);
    for (int32_t i = 0; i < n; i++)
        find_doubles(&seen, &doubles, names ? req->topic_names[i] : delete_key(&req->topics[i]), r);
    for (int32_t i = 0; i < n; i++) {
        struct slice name = names ? req->topic_names[i] : req->topics[i].name;
        bool twice = table_get(&doubles, names ? name : delete_key(&req->topics[i])) != NULL;
        delete_one(b, i, name, names ? &none : &req->topics[i].topic_id, twice);
    }
    table_fini(&seen);
    table_fini(&doubles);
    batch_end(b);
}

/* ---- CreatePartitions -------------------------------------------------------------------------------------------------------------- */

static void grow_result(struct topics_batch *b, int32_t i, struct topic_change *c)
{
    struct kafka_create_partitions_resp_create_partitions_topic_result *out = &((struct kafka_create_partitions_resp *)b->r->resp)->results[i];
    out->error_code = (int16_t)c->error;
    out->error_message = message_of(b->r, c);
}

static enum kafka_error grow_check(struct breq *r, const struct kafka_create_partitions_req_create_partitions_topic *t, const char **why)
{
    const struct topic *is = catalog_topic(r->home->catalog, t->name);
    *why = NULL;
    if (!may(r, ACL_ALTER, t->name))
        return KAFKA_TOPIC_AUTHORIZATION_FAILED;
    if (t->assignments_n == -1 || !is || t->count <= is->partitions)
        return KAFKA_NONE; /* the controller says what is wrong */
    *why = "Replicas must be given for each new partition, each on this node: there is one.";
    if (t->assignments_n != t->count - is->partitions)
        return KAFKA_INVALID_REPLICA_ASSIGNMENT;
    for (int32_t i = 0; i < t->assignments_n; i++)
        if (t->assignments[i].broker_ids_n != 1 || t->assignments[i].broker_ids[0] != r->home->b->conf.node_id)
            return KAFKA_INVALID_REPLICA_ASSIGNMENT;
    return KAFKA_NONE;
}

static void grow_one(struct topics_batch *b, int32_t i, bool twice)
{
    struct breq *r = b->r;
    const struct kafka_create_partitions_req *req = r->req;
    struct kafka_create_partitions_resp *resp = r->resp;
    struct kafka_create_partitions_resp_create_partitions_topic_result *out = &resp->results[i];
    const char *why = "Duplicate topic in request.";
    enum kafka_error e = twice ? KAFKA_INVALID_REQUEST : grow_check(r, &req->topics[i], &why);
    kafka_create_partitions_resp_create_partitions_topic_result_init(out);
    out->name = req->topics[i].name;
    if (e) {
        out->error_code = (int16_t)e;
        out->error_message = slice_cstr(why);
        return;
    }
    b->ops[i].change = (struct topic_change){.what = TOPIC_GROW, .name = req->topics[i].name, .partitions = req->topics[i].count, .validate_only = req->validate_only};
    const struct topic *t = catalog_topic(r->home->catalog, out->name);
    uint64_t more = t && req->topics[i].count > t->partitions ? (uint64_t)(req->topics[i].count - t->partitions) : 1;
    if (!quota_mutation(r, more, GROW_STRICT, &resp->throttle_time_ms)) {
        out->error_code = KAFKA_THROTTLING_QUOTA_EXCEEDED;
        out->error_message = SLICE(QUOTA_EXCEEDED);
        return;
    }
    batch_add(b, i);
}

void create_partitions(struct breq *r)
{
    const struct kafka_create_partitions_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->topics_n, 0), ADMIN_ITEMS_MAX))
        return;
    struct kafka_create_partitions_resp *resp = BREQ_NEW(r, struct kafka_create_partitions_resp);
    struct table seen = {0}, doubles = {0};
    kafka_create_partitions_resp_init(resp);
    r->resp = resp;
    resp->results_n = MAX(req->topics_n, 0);
    resp->results = BREQ_ARRAY(r, struct kafka_create_partitions_resp_create_partitions_topic_result, resp->results_n);
    struct topics_batch *b = batch_new(r, resp->results_n, grow_result);
    for (int32_t i = 0; i < resp->results_n; i++)
        find_doubles(&seen, &doubles, req->topics[i].name, r);
    for (int32_t i = 0; i < resp->results_n; i++)
        grow_one(b, i, table_get(&doubles, req->topics[i].name) != NULL);
    table_fini(&seen);
    table_fini(&doubles);
    batch_end(b);
}
