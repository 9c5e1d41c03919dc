/* metadata.c - what there is: Metadata, DescribeTopicPartitions, DescribeCluster.
 *
 * Answers name one node: this one, at the address under which the caller reached it. A partition that is being loaded has no leader yet, and one that could
 * not be loaded has an offline replica.
 *
 * Metadata makes topics that are not there, where configuration and permission allow it. Kafka answers UNKNOWN_TOPIC_OR_PARTITION first and lets
 * the client ask again; here the answer waits for the topic, so that nobody has to. Topics that are named twice are answered once: no request
 * can ask for an answer much larger than the catalog.
 */
#include "frame_int.h"

#include <stdlib.h>

/* ---- parts of answers --------------------------------------------------------------------------------------------- */

/* The replicas of every partition: this node. */
static int32_t *this_node(struct breq *r)
{
    int32_t *node = BREQ_NEW(r, int32_t);
    *node = r->home->b->conf.node_id;
    return node;
}

static struct slice cluster_id(struct breq *r)
{
    char *text = arena_alloc(&r->arena, UUID_TEXT + 1);
    uuid_text(r->home->b->cluster_id, text);
    return slice_cstr(text);
}

static int32_t operations(const struct breq *r, bool asked, enum acl_resource kind, struct slice name)
{
    return asked ? allowed_operations(r, kind, name) : INT32_MIN;
}

/* ---- Metadata ------------------------------------------------------------------------------------------------------- */

struct metadata {
    struct breq *r;
    int32_t *node;
    uint32_t left;                 /* topics being made, and one while the request is being read */
    struct meta_making *making;
    uint32_t making_n;
};
struct meta_making {
    struct topic_change change;
    struct metadata *m;
    int32_t index;                 /* in the request, and in the answer */
};

static void fill_topic(struct metadata *m, struct kafka_metadata_resp_metadata_response_topic *out, const struct topic *t)
{
    struct breq *r = m->r;
    const struct kafka_metadata_req *req = r->req;
    out->name = arena_slice(&r->arena, topic_name(t));
    out->topic_id = t->id;
    out->is_internal = t->internal;
    out->partitions_n = t->partitions;
    out->partitions = BREQ_ARRAY(r, struct kafka_metadata_resp_metadata_response_partition, t->partitions);
    out->topic_authorized_operations = operations(r, req->include_topic_authorized_operations, ACL_TOPIC, topic_name(t));
    for (int32_t i = 0; i < t->partitions; i++) {
        struct kafka_metadata_resp_metadata_response_partition *p = &out->partitions[i];
        int32_t epoch = topic_epoch(t, i);
        bool there = epoch >= 0;
        kafka_metadata_resp_metadata_response_partition_init(p);
        p->error_code = there ? KAFKA_NONE : KAFKA_LEADER_NOT_AVAILABLE;
        p->partition_index = i;
        p->leader_id = there ? *m->node : -1;
        p->leader_epoch = there ? epoch : -1;
        p->replica_nodes = p->isr_nodes = p->offline_replicas = m->node;
        p->replica_nodes_n = 1;
        p->isr_nodes_n = epoch != LIVE_OFFLINE;
        p->offline_replicas_n = epoch == LIVE_OFFLINE;
    }
}

static void all_topics(struct metadata *m, struct kafka_metadata_resp *resp)
{
    struct breq *r = m->r;
    const struct catalog *cat = r->home->catalog;
    resp->topics = BREQ_ARRAY(r, struct kafka_metadata_resp_metadata_response_topic, cat->by_name.n);
    for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s));) {
        const struct topic *t = s->value;
        if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, topic_name(t)))
            continue;
        kafka_metadata_resp_metadata_response_topic_init(&resp->topics[resp->topics_n]);
        fill_topic(m, &resp->topics[resp->topics_n++], t);
    }
}

/* One that was asked for, by name, or by id where that is not zero. */
static void one_topic(struct metadata *m, struct kafka_metadata_resp_metadata_response_topic *out, const struct kafka_metadata_req_metadata_request_topic *want)
{
    struct breq *r = m->r;
    bool by_id = !kafka_uuid_is_zero(want->topic_id);
    const struct topic *t = by_id ? catalog_topic_by_id(r->home->catalog, &want->topic_id) : catalog_topic(r->home->catalog, want->name);
    kafka_metadata_resp_metadata_response_topic_init(out);
    out->name = !by_id ? want->name : r->version >= 12 ? (struct slice){0} : SLICE(""); /* by id: not told before it may be seen */
    out->topic_id = want->topic_id;
    if (by_id && !t)
        out->error_code = KAFKA_UNKNOWN_TOPIC_ID;
    else if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, t ? topic_name(t) : want->name))
        out->error_code = by_id ? KAFKA_UNKNOWN_TOPIC_ID : KAFKA_TOPIC_AUTHORIZATION_FAILED;
    else if (t)
        fill_topic(m, out, t);
    else
        out->error_code = topic_name_ok(want->name) ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_INVALID_TOPIC_EXCEPTION;
}

static struct slice want_key(const struct kafka_metadata_req_metadata_request_topic *t)
{
    return kafka_uuid_is_zero(t->topic_id) ? t->name : slice_of((const char *)t->topic_id.b, sizeof t->topic_id.b);
}

/* What making a topic came to, for one that is still not there. */
static void making_errors(struct metadata *m, struct kafka_metadata_resp *resp)
{
    for (uint32_t k = 0; k < m->making_n; k++) {
        int16_t *error = &resp->topics[m->making[k].index].error_code;
        if (*error == KAFKA_UNKNOWN_TOPIC_OR_PARTITION && m->making[k].change.error)
            *error = (int16_t)m->making[k].change.error;
    }
}

static void metadata_answer(struct metadata *m)
{
    struct breq *r = m->r;
    const struct kafka_metadata_req *req = r->req;
    struct kafka_metadata_resp *resp = BREQ_NEW(r, struct kafka_metadata_resp);
    kafka_metadata_resp_init(resp);
    r->resp = resp;
    m->node = this_node(r);
    resp->brokers = BREQ_NEW(r, struct kafka_metadata_resp_metadata_response_broker);
    resp->brokers_n = 1;
    kafka_metadata_resp_metadata_response_broker_init(resp->brokers);
    resp->brokers->node_id = *m->node;
    resp->brokers->host = r->advertised_host;
    resp->brokers->port = r->advertised_port;
    resp->cluster_id = cluster_id(r);
    resp->controller_id = *m->node;
    resp->cluster_authorized_operations = operations(r, req->include_cluster_authorized_operations, ACL_CLUSTER, CLUSTER_NAME);
    if (req->topics_n == -1 || (r->version == 0 && req->topics_n == 0)) {
        all_topics(m, resp);
    } else {
        resp->topics = BREQ_ARRAY(r, struct kafka_metadata_resp_metadata_response_topic, req->topics_n);
        for (int32_t i = 0; i < req->topics_n; i++)
            one_topic(m, &resp->topics[resp->topics_n++], &req->topics[i]);
        making_errors(m, resp);
    }
    breq_answer(r, r->home);
}

static void topic_made(struct shard *home, struct topic_change *c)
{
    struct meta_making *mk = CONTAINER_OF(c, struct meta_making, change);
    if (c->error == KAFKA_NONE)
        counter_inc(&home->counters->auto_created);
    topic_unref(c->topic);
    mem_free(c->message);
    if (--mk->m->left == 0)
        metadata_answer(mk->m);
}

static bool may_make(const struct breq *r, struct slice name)
{
    return allowed(r, ACL_CREATE, ACL_CLUSTER, CLUSTER_NAME) || allowed(r, ACL_CREATE, ACL_TOPIC, name);
}

static void make_missing(struct metadata *m)
{
    struct breq *r = m->r;
    const struct kafka_metadata_req *req = r->req;
    bool may = r->home->b->conf.auto_create && (r->version < 4 || req->allow_auto_topic_creation);
    if (!may || req->topics_n <= 0)
        return;
    m->making = BREQ_ARRAY(r, struct meta_making, req->topics_n);
    for (int32_t i = 0; i < req->topics_n; i++) {
        const struct kafka_metadata_req_metadata_request_topic *want = &req->topics[i];
        if (!kafka_uuid_is_zero(want->topic_id) || catalog_topic(r->home->catalog, want->name) || !topic_name_ok(want->name) ||
            !allowed(r, ACL_DESCRIBE, ACL_TOPIC, want->name) || !may_make(r, want->name))
            continue;
        struct meta_making *mk = &m->making[m->making_n++];
        bool offsets = slice_eq(want->name, OFFSETS_TOPIC), internal = topic_is_internal(want->name);
        mk->m = m;
        mk->index = i;
        mk->change = (struct topic_change){.name = want->name, .what = TOPIC_CREATE, .internal = internal, .done = topic_made};
        mk->change.partitions = offsets ? r->home->b->conf.offsets_partitions : internal ? r->home->b->conf.txn_partitions : -1;
        m->left++;
        topic_change(r->home, &mk->change);
    }
}

/* Names and ids that come again are taken out. */
static void forget_doubles(struct breq *r)
{
    struct kafka_metadata_req *req = r->req;
    struct table seen = {0};
    int32_t n = 0;
    for (int32_t i = 0; i < req->topics_n; i++)
        if (!table_put(&seen, want_key(&req->topics[i]), r))
            req->topics[n++] = req->topics[i];
    if (req->topics_n > 0)
        req->topics_n = n;
    table_fini(&seen);
}

void metadata(struct breq *r)
{
    const struct kafka_metadata_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->topics_n, 0), NAMED_ITEMS_MAX))
        return;
    struct metadata *m = BREQ_NEW(r, struct metadata);
    m->r = r;
    m->left = 1;
    forget_doubles(r);
    make_missing(m);
    if (--m->left == 0)
        metadata_answer(m);
}

/* ---- DescribeTopicPartitions (KIP-966): topics in order of their names, page by page ----------------------------------- */

#define DESCRIBE_LIMIT 2000 /* max.request.partition.size.limit */

static int by_name(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    int c = memcmp(x->p, y->p, MIN(x->n, y->n));
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* The names wanted, sorted, each once; from the cursor's on. */
static struct slice *names_wanted(struct breq *r, int32_t *n)
{
    const struct kafka_describe_topic_partitions_req *req = r->req;
    const struct catalog *cat = r->home->catalog;
    size_t all = req->topics_n > 0 ? (size_t)req->topics_n : cat->by_name.n;
    struct slice *names = BREQ_ARRAY(r, struct slice, all);
    size_t k = 0, unique = 0;
    if (req->topics_n > 0) {
        for (; k < all; k++)
            names[k] = req->topics[k].name;
    } else {
        for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s));)
            names[k++] = arena_slice(&r->arena, slice_of(s->key, s->key_n));
    }
    qsort(names, k, sizeof names[0], by_name);
    for (size_t i = 0; i < k; i++) {
        bool before = req->cursor && by_name(&names[i], &req->cursor->topic_name) < 0;
        if (!before && (unique == 0 || !slice_eq(names[unique - 1], names[i])))
            names[unique++] = names[i];
    }
    *n = (int32_t)unique;
    return names;
}

static void describe_part(struct kafka_describe_topic_partitions_resp_describe_topic_partitions_response_partition *p, const struct topic *t, int32_t i, int32_t *node)
{
    int32_t epoch = topic_epoch(t, i);
    kafka_describe_topic_partitions_resp_describe_topic_partitions_response_partition_init(p);
    p->error_code = epoch >= 0 ? KAFKA_NONE : KAFKA_LEADER_NOT_AVAILABLE;
    p->partition_index = i;
    p->leader_id = epoch >= 0 ? *node : -1;
    p->leader_epoch = epoch >= 0 ? epoch : -1;
    p->replica_nodes = p->isr_nodes = p->offline_replicas = node;
    p->replica_nodes_n = 1;
    p->isr_nodes_n = epoch != LIVE_OFFLINE;
    p->offline_replicas_n = epoch == LIVE_OFFLINE;
    p->eligible_leader_replicas = p->last_known_elr = node;
}

/* As many partitions as are left of the limit, from `first` on; how many. */
static int32_t describe_topic(struct breq *r, struct kafka_describe_topic_partitions_resp_describe_topic_partitions_response_topic *out, struct slice name, int32_t first, int32_t left, int32_t *node)
{
    const struct topic *t = catalog_topic(r->home->catalog, name);
    kafka_describe_topic_partitions_resp_describe_topic_partitions_response_topic_init(out);
    out->name = name;
    if (!allowed(r, ACL_DESCRIBE, ACL_TOPIC, name)) {
        out->error_code = KAFKA_TOPIC_AUTHORIZATION_FAILED;
        return 0;
    }
    if (!t) {
        out->error_code = topic_name_ok(name) ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_INVALID_TOPIC_EXCEPTION;
        return 0;
    }
    out->topic_id = t->id;
    out->is_internal = t->internal;
    out->topic_authorized_operations = allowed_operations(r, ACL_TOPIC, name);
    out->partitions_n = MAX(MIN(t->partitions - first, left), 0);
    out->partitions = BREQ_ARRAY(r, struct kafka_describe_topic_partitions_resp_describe_topic_partitions_response_partition, out->partitions_n);
    for (int32_t i = 0; i < out->partitions_n; i++)
        describe_part(&out->partitions[i], t, first + i, node);
    return out->partitions_n;
}

static void set_cursor(struct breq *r, struct kafka_describe_topic_partitions_resp *resp, struct slice name, int32_t partition)
{
    resp->next_cursor = BREQ_NEW(r, struct kafka_describe_topic_partitions_resp_cursor);
    resp->next_cursor->topic_name = name;
    resp->next_cursor->partition_index = partition;
}

void describe_topic_partitions(struct breq *r)
{
    const struct kafka_describe_topic_partitions_req *req = r->req;
    struct kafka_describe_topic_partitions_resp *resp = BREQ_NEW(r, struct kafka_describe_topic_partitions_resp);
    if (!breq_items_ok(r, (uint64_t)MAX(req->topics_n, 0), NAMED_ITEMS_MAX))
        return;
    int32_t n, left = MAX(MIN(req->response_partition_limit, DESCRIBE_LIMIT), 1), *node = this_node(r);
    bool all = req->topics_n <= 0;
    kafka_describe_topic_partitions_resp_init(resp);
    r->resp = resp;
    struct slice *names = names_wanted(r, &n);
    resp->topics = BREQ_ARRAY(r, struct kafka_describe_topic_partitions_resp_describe_topic_partitions_response_topic, n);
    for (int32_t i = 0; i < n; i++) {
        bool begun = req->cursor && slice_eq(names[i], req->cursor->topic_name);
        int32_t first = begun ? MAX(req->cursor->partition_index, 0) : 0;
        if (all && !allowed(r, ACL_DESCRIBE, ACL_TOPIC, names[i]))
            continue;
        if (left == 0) {
            set_cursor(r, resp, names[i], 0);
            break;
        }
        struct kafka_describe_topic_partitions_resp_describe_topic_partitions_response_topic *out = &resp->topics[resp->topics_n++];
        int32_t told = describe_topic(r, out, names[i], first, left, node);
        left -= told;
        const struct topic *t = catalog_topic(r->home->catalog, names[i]);
        if (t && !out->error_code && first + told < t->partitions) {
            set_cursor(r, resp, names[i], first + told);
            break;
        }
    }
    breq_answer(r, r->home);
}

/* ---- DescribeCluster (KIP-700) ---------------------------------------------------------------------------------------------- */

void describe_cluster(struct breq *r)
{
    const struct kafka_describe_cluster_req *req = r->req;
    struct kafka_describe_cluster_resp *resp = BREQ_NEW(r, struct kafka_describe_cluster_resp);
    kafka_describe_cluster_resp_init(resp);
    r->resp = resp;
    resp->cluster_id = cluster_id(r);
    if (r->version >= 1 && req->endpoint_type != 1) { /* 2: controllers; they are not reached by clients (KIP-919) */
        r->error = resp->error_code = req->endpoint_type == 2 ? KAFKA_MISMATCHED_ENDPOINT_TYPE : KAFKA_UNSUPPORTED_ENDPOINT_TYPE;
        resp->error_message = SLICE("This is a broker's endpoint.");
        breq_answer(r, r->home);
        return;
    }
    resp->endpoint_type = 1;
    resp->controller_id = r->home->b->conf.node_id;
    resp->brokers = BREQ_NEW(r, struct kafka_describe_cluster_resp_describe_cluster_broker);
    resp->brokers_n = 1;
    kafka_describe_cluster_resp_describe_cluster_broker_init(resp->brokers);
    resp->brokers->broker_id = r->home->b->conf.node_id;
    resp->brokers->host = r->advertised_host;
    resp->brokers->port = r->advertised_port;
    resp->cluster_authorized_operations = operations(r, req->include_cluster_authorized_operations, ACL_CLUSTER, CLUSTER_NAME);
    breq_answer(r, r->home);
}
