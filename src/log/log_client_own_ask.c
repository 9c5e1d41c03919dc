/* log_client_own_ask.c - the own engine's questions and orders: one row for each kind of ask.
 *
 *     own_ask() -> begin(): request -> told(): answer, or the next request -> ask_end()
 *                    ^                    |
 *                    '-- after a while <--' an error that may pass, as long as there is time
 *
 * Who is asked: any broker; for what changes topics, the controller; for a group, its coordinator (FindCoordinator first); for offsets,
 * the leader of each partition (Metadata first). An ask is repeated as a whole, from its beginning.
 */
#include "log_client_own.h"

struct own_ask {
    struct list link;          /* own.asks */
    struct own *o;
    struct arena arena;        /* ask and answer */
    struct log_ask *ask;
    struct log_answer answer;
    struct timer again;
    uint64_t due_ms;
    struct own_call *call;     /* the one that is waited for; of several the last */
    uint32_t waiting;          /* calls under way, for those that make several */
    enum kafka_error error;    /* of these, the first */
    int32_t coordinator;
};

static void ask_begin(struct own_ask *k);

static struct slice keep(struct own_ask *k, struct slice s) { return s.p ? arena_slice(&k->arena, s) : s; }
#define ASK_NEW(k, type, n) ((type *)arena_zalloc(&(k)->arena, sizeof(type) * (size_t)((n) + 1)))

static void ask_free(struct own_ask *k)
{
    timer_clear(&k->again);
    list_del(&k->link);
    arena_fini(&k->arena);
    mem_free(k);
}

static void ask_end(struct own_ask *k, enum kafka_error e, struct slice text)
{
    struct log_fault fault;
    struct buf words = {0};
    const struct log_answer none = {0};
    uint64_t now_ms = loop_now_ms(k->o->base.loop);
    if (own_worth_it(k->o, e) && now_ms + LOG_BACKOFF_MS < k->due_ms) {
        k->answer = none;
        timer_set(k->o->base.loop, &k->again, LOG_BACKOFF_MS);
        return;
    }
    list_del(&k->link);
    k->ask->done(k->ask->ctx, e ? log_fault_of(&fault, e, own_words(k->o, e, text), &words) : NULL, e ? &none : &k->answer);
    buf_free(&words);
    ask_free(k);
}

/* What every answer begins with: a call that failed ends the ask. */
static bool ask_failed(struct own_ask *k, const struct own_call *call)
{
    k->call = NULL;
    if (call->error != KAFKA_NONE)
        ask_end(k, call->error, SLICE(""));
    return call->error != KAFKA_NONE;
}

static struct own_call *ask_call(struct own_ask *k, int16_t key, int16_t version, int32_t node, void (*done)(struct own_call *))
{
    k->call = own_call(k->o, key, version, node, done, k);
    return k->call;
}

static void ask_send(struct own_ask *k, struct own_call *call)
{
    uint64_t now_ms = loop_now_ms(k->o->base.loop);
    own_send(call, k->due_ms > now_ms ? (uint32_t)(k->due_ms - now_ms) : 1);
}

/* ---- topics ---------------------------------------------------------------------------------------------------------------------------- */

static void topics_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_metadata_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    own_learn(k->o, resp);
    struct log_topic *topics = ASK_NEW(k, struct log_topic, resp->topics_n);
    for (int32_t i = 0; i < resp->topics_n; i++) {
        const struct kafka_metadata_resp_metadata_response_topic *m = &resp->topics[i];
        int32_t n = MAX(m->partitions_n, 0);
        int32_t *leaders = ASK_NEW(k, int32_t, n);
        for (int32_t p = 0; p < n; p++)
            if (m->partitions[p].partition_index >= 0 && m->partitions[p].partition_index < n)
                leaders[m->partitions[p].partition_index] = m->partitions[p].leader_id;
        topics[i] = (struct log_topic){.name = keep(k, m->name),
                                       .internal = m->is_internal,
                                       .partitions = n,
                                       .replicas = n ? MAX(m->partitions[0].replica_nodes_n, 0) : 0,
                                       .leaders = leaders,
                                       .error = (enum kafka_error)m->error_code};
    }
    k->answer.topics = topics;
    k->answer.topics_n = (size_t)MAX(resp->topics_n, 0);
    ask_end(k, KAFKA_NONE, SLICE(""));
}

static void begin_topics(struct own_ask *k)
{
    k->call = own_metadata(k->o, k->ask->names_n ? k->ask->names : NULL, k->ask->names_n, false, topics_told, k);
    ask_send(k, k->call);
}

/* The controller changes topics. A cluster's is known after Metadata; KRaft's brokers name one of themselves, which passes on. */
static void controller_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    if (ask_failed(k, call))
        return;
    own_learn(k->o, call->resp);
    ask_begin(k);
}

static bool controller_known(struct own_ask *k)
{
    static const struct slice none;
    if (k->o->controller != OWN_ANY)
        return true;
    k->call = own_metadata(k->o, &none, 0, false, controller_told, k);
    ask_send(k, k->call);
    return false;
}

static void order_end(struct own_ask *k, int16_t code, struct slice text)
{
    if (code == KAFKA_NOT_CONTROLLER)
        k->o->controller = OWN_ANY;
    ask_end(k, (enum kafka_error)code, text);
}

static void create_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_create_topics_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    bool one = resp->topics_n == 1;
    order_end(k, one ? resp->topics[0].error_code : KAFKA_CORRUPT_MESSAGE, one ? resp->topics[0].error_message : SLICE(""));
}

static void begin_create(struct own_ask *k)
{
    if (!controller_known(k))
        return;
    struct own_call *call = ask_call(k, API_CREATE_TOPICS, 6, k->o->controller, create_told);
    struct kafka_create_topics_req *req = call->req;
    struct kafka_create_topics_req_creatable_topic *t = OWN_NEW(call, struct kafka_create_topics_req_creatable_topic, 1);
    req->topics = t;
    req->topics_n = 1;
    req->timeout_ms = (int32_t)k->o->base.timeout_ms;
    t->name = k->ask->name;
    t->num_partitions = k->ask->partitions;
    t->replication_factor = -1; /* as the cluster has it: from version 4 on, KIP-464 */
    t->configs_n = (int32_t)k->ask->settings_n;
    t->configs = OWN_NEW(call, struct kafka_create_topics_req_creatable_topic_config, k->ask->settings_n);
    for (size_t i = 0; i < k->ask->settings_n; i++)
        t->configs[i] = (struct kafka_create_topics_req_creatable_topic_config){k->ask->settings[i].name, k->ask->settings[i].value};
    ask_send(k, call);
}

static void delete_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_delete_topics_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    bool one = resp->responses_n == 1;
    order_end(k, one ? resp->responses[0].error_code : KAFKA_CORRUPT_MESSAGE, one ? resp->responses[0].error_message : SLICE(""));
}

static void begin_delete(struct own_ask *k)
{
    if (!controller_known(k))
        return;
    struct own_call *call = ask_call(k, API_DELETE_TOPICS, 5, k->o->controller, delete_told);
    struct kafka_delete_topics_req *req = call->req;
    req->topic_names = &k->ask->name;
    req->topic_names_n = 1;
    req->timeout_ms = (int32_t)k->o->base.timeout_ms;
    ask_send(k, call);
}

static void grow_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_create_partitions_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    bool one = resp->results_n == 1;
    order_end(k, one ? resp->results[0].error_code : KAFKA_CORRUPT_MESSAGE, one ? resp->results[0].error_message : SLICE(""));
}

static void begin_grow(struct own_ask *k)
{
    if (!controller_known(k))
        return;
    struct own_call *call = ask_call(k, API_CREATE_PARTITIONS, 3, k->o->controller, grow_told);
    struct kafka_create_partitions_req *req = call->req;
    req->topics_n = 1;
    req->topics = OWN_NEW(call, struct kafka_create_partitions_req_create_partitions_topic, 1);
    req->topics[0] = (struct kafka_create_partitions_req_create_partitions_topic){.name = k->ask->name, .count = k->ask->partitions, .assignments_n = -1};
    req->timeout_ms = (int32_t)k->o->base.timeout_ms;
    ask_send(k, call);
}

/* ---- settings ---------------------------------------------------------------------------------------------------------------------------- */

#define RESOURCE_TOPIC 2
#define SOURCE_TOPIC 1 /* of a setting: set for this topic (DescribeConfigs) */

static void settings_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_describe_configs_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    if (resp->results_n != 1 || resp->results[0].error_code) {
        ask_end(k, resp->results_n == 1 ? (enum kafka_error)resp->results[0].error_code : KAFKA_CORRUPT_MESSAGE,
                resp->results_n == 1 ? resp->results[0].error_message : SLICE(""));
        return;
    }
    int32_t n = MAX(resp->results[0].configs_n, 0);
    struct log_setting *s = ASK_NEW(k, struct log_setting, n);
    for (int32_t i = 0; i < n; i++) {
        const struct kafka_describe_configs_resp_describe_configs_resource_result *c = &resp->results[0].configs[i];
        s[i] = (struct log_setting){.name = keep(k, c->name), .value = keep(k, c->value), .is_default = c->config_source != SOURCE_TOPIC, .read_only = c->read_only};
    }
    k->answer.settings = s;
    k->answer.settings_n = (size_t)n;
    ask_end(k, KAFKA_NONE, SLICE(""));
}

static void begin_settings(struct own_ask *k)
{
    struct own_call *call = ask_call(k, API_DESCRIBE_CONFIGS, 4, OWN_ANY, settings_told);
    struct kafka_describe_configs_req *req = call->req;
    req->resources_n = 1;
    req->resources = OWN_NEW(call, struct kafka_describe_configs_req_describe_configs_resource, 1);
    req->resources[0] =
        (struct kafka_describe_configs_req_describe_configs_resource){.resource_type = RESOURCE_TOPIC, .resource_name = k->ask->name, .configuration_keys_n = -1};
    ask_send(k, call);
}

static void set_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_incremental_alter_configs_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    bool one = resp->responses_n == 1;
    ask_end(k, one ? (enum kafka_error)resp->responses[0].error_code : KAFKA_CORRUPT_MESSAGE, one ? resp->responses[0].error_message : SLICE(""));
}

static void begin_set(struct own_ask *k)
{
    struct own_call *call = ask_call(k, API_INCREMENTAL_ALTER_CONFIGS, 1, OWN_ANY, set_told);
    struct kafka_incremental_alter_configs_req *req = call->req;
    struct kafka_incremental_alter_configs_req_alter_configs_resource *r = OWN_NEW(call, struct kafka_incremental_alter_configs_req_alter_configs_resource, 1);
    req->resources = r;
    req->resources_n = 1;
    r->resource_type = RESOURCE_TOPIC;
    r->resource_name = k->ask->name;
    r->configs_n = (int32_t)k->ask->settings_n;
    r->configs = OWN_NEW(call, struct kafka_incremental_alter_configs_req_alterable_config, k->ask->settings_n);
    for (size_t i = 0; i < k->ask->settings_n; i++) {
        struct slice v = k->ask->settings[i].value;
        r->configs[i] = (struct kafka_incremental_alter_configs_req_alterable_config){k->ask->settings[i].name, v.p ? 0 : 1, v}; /* 0 set, 1 delete (KIP-339) */
    }
    ask_send(k, call);
}

/* ---- offsets ------------------------------------------------------------------------------------------------------------------------------- */

static struct log_place *answer_place(struct own_ask *k, struct slice topic, int32_t partition)
{
    struct log_place *places = (struct log_place *)k->answer.places; /* ours, in the arena */
    for (size_t i = 0; i < k->answer.places_n; i++)
        if (places[i].partition == partition && slice_eq(places[i].topic, topic))
            return &places[i];
    return NULL;
}

/* One of several calls is over; the last one ends the ask. */
static void several_told(struct own_ask *k, enum kafka_error e)
{
    if (e != KAFKA_NONE && k->error == KAFKA_NONE)
        k->error = e;
    if (--k->waiting == 0)
        ask_end(k, k->error, SLICE(""));
}

static void offsets_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_list_offsets_resp *resp = call->resp;
    enum kafka_error passing = call->error;
    for (int32_t i = 0; call->error == KAFKA_NONE && i < resp->topics_n; i++)
        for (int32_t p = 0; p < resp->topics[i].partitions_n; p++) {
            const struct kafka_list_offsets_resp_list_offsets_partition_response *r = &resp->topics[i].partitions[p];
            struct log_place *at = answer_place(k, resp->topics[i].name, r->partition_index);
            if (!at)
                continue;
            at->offset = r->offset;
            at->error = (enum kafka_error)r->error_code;
            if (own_passing(at->error))
                passing = at->error;
        }
    several_told(k, passing);
}

static struct own_call *offsets_call(struct own_ask *k, int32_t leader, const struct log_place *p)
{
    struct own_call *call = own_call(k->o, API_LIST_OFFSETS, 6, leader, offsets_told, k);
    struct kafka_list_offsets_req *req = call->req;
    req->replica_id = -1;
    req->isolation_level = 1;
    req->topics_n = 1;
    req->topics = OWN_NEW(call, struct kafka_list_offsets_req_list_offsets_topic, 1);
    req->topics[0].name = p->topic;
    req->topics[0].partitions_n = 1;
    req->topics[0].partitions = OWN_NEW(call, struct kafka_list_offsets_req_list_offsets_partition, 1);
    req->topics[0].partitions[0] = (struct kafka_list_offsets_req_list_offsets_partition){p->partition, -1, p->offset};
    return call;
}

/* Leaders are known: each place is asked for by a call of its own, all at once over few connections. */
static void offsets_leaders(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_metadata_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    own_learn(k->o, resp);
    struct log_place *places = ASK_NEW(k, struct log_place, k->ask->places_n);
    memcpy(places, k->ask->places, k->ask->places_n * sizeof *places);
    k->answer.places = places;
    k->answer.places_n = k->ask->places_n;
    k->error = KAFKA_NONE;
    k->waiting = 1;
    for (size_t i = 0; i < k->ask->places_n; i++) {
        int32_t leader = OWN_ANY;
        places[i].error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        places[i].offset = -1;
        for (int32_t t = 0; t < resp->topics_n; t++)
            for (int32_t p = 0; slice_eq(resp->topics[t].name, places[i].topic) && p < resp->topics[t].partitions_n; p++)
                if (resp->topics[t].partitions[p].partition_index == places[i].partition)
                    leader = resp->topics[t].partitions[p].leader_id;
        if (leader == OWN_ANY)
            continue;
        k->waiting++;
        ask_send(k, offsets_call(k, leader, &k->ask->places[i]));
    }
    several_told(k, KAFKA_NONE);
}

static void begin_offsets(struct own_ask *k)
{
    struct slice *names = ASK_NEW(k, struct slice, k->ask->places_n);
    size_t n = 0;
    for (size_t i = 0; i < k->ask->places_n; i++) {
        bool there = false;
        for (size_t j = 0; j < n; j++)
            there = there || slice_eq(names[j], k->ask->places[i].topic);
        if (!there)
            names[n++] = k->ask->places[i].topic;
    }
    k->call = own_metadata(k->o, names, n, false, offsets_leaders, k);
    ask_send(k, k->call);
}

/* ---- groups ---------------------------------------------------------------------------------------------------------------------------------- */

static void coordinator_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_find_coordinator_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    if (resp->error_code) {
        ask_end(k, (enum kafka_error)resp->error_code, resp->error_message);
        return;
    }
    own_node_learn(k->o, resp->node_id, resp->host, resp->port);
    k->coordinator = resp->node_id;
    ask_begin(k);
}

/* The coordinator is looked for once in each try. */
static bool coordinator_known(struct own_ask *k)
{
    if (k->coordinator != OWN_ANY)
        return true;
    struct own_call *call = ask_call(k, API_FIND_COORDINATOR, 3, OWN_ANY, coordinator_told);
    struct kafka_find_coordinator_req *req = call->req;
    req->key = k->ask->name;
    ask_send(k, call);
    return false;
}

/* Every broker knows its own groups. */
static void groups_part(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_list_groups_resp *resp = call->resp;
    enum kafka_error e = call->error ? call->error : (enum kafka_error)resp->error_code;
    int32_t n = e ? 0 : MAX(resp->groups_n, 0);
    struct log_group *all = ASK_NEW(k, struct log_group, k->answer.groups_n + (size_t)n);
    if (k->answer.groups_n)
        memcpy(all, k->answer.groups, k->answer.groups_n * sizeof *all);
    for (int32_t i = 0; i < n; i++)
        all[k->answer.groups_n++] = (struct log_group){.name = keep(k, resp->groups[i].group_id), .state = keep(k, resp->groups[i].group_state), .protocol = keep(k, resp->groups[i].protocol_type)};
    k->answer.groups = all;
    several_told(k, e);
}

static void groups_nodes(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_metadata_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    own_learn(k->o, resp);
    k->error = KAFKA_NONE;
    k->waiting = 1;
    for (int32_t i = 0; i < resp->brokers_n; i++) {
        k->waiting++;
        ask_send(k, own_call(k->o, API_LIST_GROUPS, 4, resp->brokers[i].node_id, groups_part, k));
    }
    several_told(k, KAFKA_NONE);
}

static void begin_groups(struct own_ask *k)
{
    static const struct slice none;
    k->call = own_metadata(k->o, &none, 0, false, groups_nodes, k);
    ask_send(k, k->call);
}

/* What a member was given, if it is a consumer. */
static void member_places(struct own_ask *k, struct slice assignment, struct log_member *out)
{
    struct kafka_reader r;
    struct kafka_consumer_protocol_assignment a;
    kafka_reader_init(&r, assignment);
    int16_t version = kafka_read_int16(&r);
    if (r.err || version < 0 || kafka_consumer_protocol_assignment_read(&r, MIN(version, 3), &k->arena, &a) != OK)
        return;
    size_t n = 0;
    for (int32_t i = 0; i < a.assigned_partitions_n; i++)
        n += (size_t)MAX(a.assigned_partitions[i].partitions_n, 0);
    struct log_place *places = ASK_NEW(k, struct log_place, n);
    for (int32_t i = 0; i < a.assigned_partitions_n; i++)
        for (int32_t p = 0; p < a.assigned_partitions[i].partitions_n; p++)
            places[out->places_n++] = (struct log_place){.topic = keep(k, a.assigned_partitions[i].topic), .partition = a.assigned_partitions[i].partitions[p], .offset = -1};
    out->places = places;
}

/* What the broker has assigned to a member of the consumer protocol. */
static void consumer_places(struct own_ask *k, const struct kafka_consumer_group_describe_resp_assignment *a, struct log_member *out)
{
    size_t n = 0;
    for (int32_t i = 0; i < a->topic_partitions_n; i++)
        n += (size_t)MAX(a->topic_partitions[i].partitions_n, 0);
    struct log_place *places = ASK_NEW(k, struct log_place, n);
    for (int32_t i = 0; i < a->topic_partitions_n; i++)
        for (int32_t p = 0; p < a->topic_partitions[i].partitions_n; p++)
            places[out->places_n++] =
                (struct log_place){.topic = keep(k, a->topic_partitions[i].topic_name), .partition = a->topic_partitions[i].partitions[p], .offset = -1};
    out->places = places;
}

static void consumers_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_consumer_group_describe_resp *resp = call->resp;
    if (call->error == KAFKA_UNSUPPORTED_VERSION) { /* a broker without such groups */
        k->call = NULL;
        ask_end(k, KAFKA_GROUP_ID_NOT_FOUND, SLICE(""));
        return;
    }
    if (ask_failed(k, call))
        return;
    if (resp->groups_n != 1 || resp->groups[0].error_code) {
        ask_end(k, resp->groups_n == 1 ? (enum kafka_error)resp->groups[0].error_code : KAFKA_CORRUPT_MESSAGE, SLICE(""));
        return;
    }
    const struct kafka_consumer_group_describe_resp_described_group *g = &resp->groups[0];
    struct log_group *out = ASK_NEW(k, struct log_group, 1);
    int32_t n = MAX(g->members_n, 0);
    struct log_member *members = ASK_NEW(k, struct log_member, n);
    for (int32_t i = 0; i < n; i++) {
        const struct kafka_consumer_group_describe_resp_member *m = &g->members[i];
        members[i] = (struct log_member){.id = keep(k, m->member_id), .client_id = keep(k, m->client_id), .host = keep(k, m->client_host)};
        consumer_places(k, &m->assignment, &members[i]);
    }
    *out = (struct log_group){
        .name = keep(k, g->group_id), .state = keep(k, g->group_state), .protocol = keep(k, g->assignor_name), .members = members, .members_n = (uint32_t)n};
    k->answer.groups = out;
    k->answer.groups_n = 1;
    ask_end(k, KAFKA_NONE, SLICE(""));
}

/* To DescribeGroups a group of the consumer protocol (KIP-848) is none. */
static void consumers_ask(struct own_ask *k)
{
    struct own_call *call = ask_call(k, API_CONSUMER_GROUP_DESCRIBE, 0, k->coordinator, consumers_told);
    struct kafka_consumer_group_describe_req *req = call->req;
    req->group_ids = &k->ask->name;
    req->group_ids_n = 1;
    ask_send(k, call);
}

static void group_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_describe_groups_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    if (resp->groups_n != 1 || resp->groups[0].error_code) {
        ask_end(k, resp->groups_n == 1 ? (enum kafka_error)resp->groups[0].error_code : KAFKA_CORRUPT_MESSAGE, SLICE(""));
        return;
    }
    const struct kafka_describe_groups_resp_described_group *g = &resp->groups[0];
    if (slice_is(g->group_state, "Dead")) {
        consumers_ask(k);
        return;
    }
    struct log_group *out = ASK_NEW(k, struct log_group, 1);
    int32_t n = MAX(g->members_n, 0);
    struct log_member *members = ASK_NEW(k, struct log_member, n);
    for (int32_t i = 0; i < n; i++) {
        members[i] = (struct log_member){.id = keep(k, g->members[i].member_id), .client_id = keep(k, g->members[i].client_id), .host = keep(k, g->members[i].client_host)};
        if (g->members[i].member_assignment.n)
            member_places(k, g->members[i].member_assignment, &members[i]);
    }
    *out = (struct log_group){.name = keep(k, g->group_id), .state = keep(k, g->group_state), .protocol = keep(k, g->protocol_data), .members = members, .members_n = (uint32_t)n};
    k->answer.groups = out;
    k->answer.groups_n = 1;
    ask_end(k, KAFKA_NONE, SLICE(""));
}

static void begin_group(struct own_ask *k)
{
    if (!coordinator_known(k))
        return;
    struct own_call *call = ask_call(k, API_DESCRIBE_GROUPS, 5, k->coordinator, group_told);
    struct kafka_describe_groups_req *req = call->req;
    req->groups = &k->ask->name;
    req->groups_n = 1;
    ask_send(k, call);
}

static void places_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_offset_fetch_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    size_t n = 0, at = 0;
    enum kafka_error e = (enum kafka_error)resp->error_code;
    for (int32_t i = 0; i < resp->topics_n; i++)
        n += (size_t)MAX(resp->topics[i].partitions_n, 0);
    struct log_place *places = ASK_NEW(k, struct log_place, n);
    for (int32_t i = 0; i < resp->topics_n; i++)
        for (int32_t p = 0; p < resp->topics[i].partitions_n; p++) {
            const struct kafka_offset_fetch_resp_offset_fetch_response_partition *r = &resp->topics[i].partitions[p];
            places[at++] = (struct log_place){.topic = keep(k, resp->topics[i].name), .partition = r->partition_index, .offset = r->committed_offset, .error = (enum kafka_error)r->error_code};
            if (own_passing((enum kafka_error)r->error_code))
                e = (enum kafka_error)r->error_code;
        }
    k->answer.places = places;
    k->answer.places_n = n;
    ask_end(k, e, SLICE(""));
}

static void begin_places(struct own_ask *k)
{
    if (!coordinator_known(k))
        return;
    struct own_call *call = ask_call(k, API_OFFSET_FETCH, 7, k->coordinator, places_told);
    struct kafka_offset_fetch_req *req = call->req;
    req->group_id = k->ask->name;
    req->topics_n = -1; /* all */
    req->require_stable = true;
    ask_send(k, call);
}

static void move_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_offset_commit_resp *resp = call->resp;
    enum kafka_error e = KAFKA_NONE;
    if (ask_failed(k, call))
        return;
    for (int32_t i = 0; i < resp->topics_n; i++)
        for (int32_t p = 0; p < resp->topics[i].partitions_n; p++)
            e = e ? e : (enum kafka_error)resp->topics[i].partitions[p].error_code;
    ask_end(k, e, SLICE(""));
}

static void begin_move(struct own_ask *k)
{
    if (!coordinator_known(k))
        return;
    struct own_call *call = ask_call(k, API_OFFSET_COMMIT, 8, k->coordinator, move_told);
    struct kafka_offset_commit_req *req = call->req;
    req->group_id = k->ask->name;
    req->generation_id_or_member_epoch = -1;
    req->member_id = SLICE("");
    req->topics = OWN_NEW(call, struct kafka_offset_commit_req_offset_commit_request_topic, k->ask->places_n);
    for (size_t i = 0; i < k->ask->places_n; i++) {
        struct kafka_offset_commit_req_offset_commit_request_topic *t = &req->topics[req->topics_n++];
        t->name = k->ask->places[i].topic;
        t->partitions_n = 1;
        t->partitions = OWN_NEW(call, struct kafka_offset_commit_req_offset_commit_request_partition, 1);
        t->partitions[0] = (struct kafka_offset_commit_req_offset_commit_request_partition){k->ask->places[i].partition, k->ask->places[i].offset, -1, SLICE("")};
    }
    ask_send(k, call);
}

static void group_deleted(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_delete_groups_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    ask_end(k, resp->results_n == 1 ? (enum kafka_error)resp->results[0].error_code : KAFKA_CORRUPT_MESSAGE, SLICE(""));
}

static void begin_group_delete(struct own_ask *k)
{
    if (!coordinator_known(k))
        return;
    struct own_call *call = ask_call(k, API_DELETE_GROUPS, 2, k->coordinator, group_deleted);
    struct kafka_delete_groups_req *req = call->req;
    req->groups_names = &k->ask->name;
    req->groups_names_n = 1;
    ask_send(k, call);
}

/* ---- users ------------------------------------------------------------------------------------------------------------------------------------------ */

static void users_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_describe_user_scram_credentials_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    struct log_user *users = ASK_NEW(k, struct log_user, MAX(resp->results_n, 0));
    for (int32_t i = 0; i < resp->results_n; i++) {
        const struct kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result *r = &resp->results[i];
        struct log_credential *has = ASK_NEW(k, struct log_credential, MAX(r->credential_infos_n, 0));
        for (int32_t c = 0; c < r->credential_infos_n; c++)
            has[c] = (struct log_credential){.mechanism = r->credential_infos[c].mechanism, .iterations = r->credential_infos[c].iterations};
        users[i] = (struct log_user){.name = keep(k, r->user), .credentials = has, .credentials_n = (uint32_t)MAX(r->credential_infos_n, 0)};
    }
    k->answer.users = users;
    k->answer.users_n = (size_t)MAX(resp->results_n, 0);
    ask_end(k, (enum kafka_error)resp->error_code, resp->error_message);
}

static void begin_users(struct own_ask *k)
{
    struct own_call *call = ask_call(k, API_DESCRIBE_USER_SCRAM_CREDENTIALS, 0, OWN_ANY, users_told);
    struct kafka_describe_user_scram_credentials_req *req = call->req;
    req->users_n = -1; /* all */
    ask_send(k, call);
}

static void user_told(struct own_call *call)
{
    struct own_ask *k = call->ctx;
    const struct kafka_alter_user_scram_credentials_resp *resp = call->resp;
    if (ask_failed(k, call))
        return;
    bool one = resp->results_n == 1;
    ask_end(k, one ? (enum kafka_error)resp->results[0].error_code : KAFKA_CORRUPT_MESSAGE, one ? resp->results[0].error_message : SLICE(""));
}

static void begin_user_set(struct own_ask *k)
{
    if (!controller_known(k))
        return;
    struct own_call *call = ask_call(k, API_ALTER_USER_SCRAM_CREDENTIALS, 0, k->o->controller, user_told);
    struct kafka_alter_user_scram_credentials_req *req = call->req;
    size_t n = k->ask->credentials_n;
    req->upsertions = OWN_NEW(call, struct kafka_alter_user_scram_credentials_req_scram_credential_upsertion, n);
    for (size_t i = 0; i < n; i++) {
        const struct log_credential *c = &k->ask->credentials[i];
        req->upsertions[req->upsertions_n++] = (struct kafka_alter_user_scram_credentials_req_scram_credential_upsertion){
            .name = k->ask->name, .mechanism = c->mechanism, .iterations = c->iterations, .salt = c->salt, .salted_password = c->salted};
    }
    ask_send(k, call);
}

static void begin_user_delete(struct own_ask *k)
{
    if (!controller_known(k))
        return;
    struct own_call *call = ask_call(k, API_ALTER_USER_SCRAM_CREDENTIALS, 0, k->o->controller, user_told);
    struct kafka_alter_user_scram_credentials_req *req = call->req;
    size_t n = k->ask->credentials_n;
    req->deletions = OWN_NEW(call, struct kafka_alter_user_scram_credentials_req_scram_credential_deletion, n);
    for (size_t i = 0; i < n; i++)
        req->deletions[req->deletions_n++] =
            (struct kafka_alter_user_scram_credentials_req_scram_credential_deletion){.name = k->ask->name, .mechanism = k->ask->credentials[i].mechanism};
    ask_send(k, call);
}

/* ---- dispatch -------------------------------------------------------------------------------------------------------------------------------------- */

static void (*const begins[LOG_ASK_KINDS])(struct own_ask *) = {[LOG_ASK_TOPICS] = begin_topics,
                                                                [LOG_ASK_OFFSETS] = begin_offsets,
                                                                [LOG_ASK_CREATE] = begin_create,
                                                                [LOG_ASK_GROW] = begin_grow,
                                                                [LOG_ASK_DELETE] = begin_delete,
                                                                [LOG_ASK_SETTINGS] = begin_settings,
                                                                [LOG_ASK_SET] = begin_set,
                                                                [LOG_ASK_GROUPS] = begin_groups,
                                                                [LOG_ASK_GROUP] = begin_group,
                                                                [LOG_ASK_GROUP_PLACES] = begin_places,
                                                                [LOG_ASK_GROUP_MOVE] = begin_move,
                                                                [LOG_ASK_GROUP_DELETE] = begin_group_delete,
                                                                [LOG_ASK_USERS] = begin_users,
                                                                [LOG_ASK_USER_SET] = begin_user_set,
                                                                [LOG_ASK_USER_DELETE] = begin_user_delete};

static void ask_begin(struct own_ask *k) { begins[k->ask->kind](k); }

static void ask_again(struct timer *t)
{
    struct own_ask *k = CONTAINER_OF(t, struct own_ask, again);
    k->coordinator = OWN_ANY;
    ask_begin(k);
}

void own_ask(struct log_client *c, const struct log_ask *ask)
{
    struct own *o = CONTAINER_OF(c, struct own, base);
    struct own_ask *k = mem_new(MEM_KAFKA, sizeof *k);
    k->o = o;
    k->due_ms = loop_now_ms(c->loop) + c->timeout_ms;
    k->coordinator = OWN_ANY;
    arena_init(&k->arena, MEM_KAFKA, 1024);
    timer_init(&k->again, ask_again);
    list_push(&o->asks, &k->link);
    k->ask = log_ask_copy(&k->arena, ask);
    ask_begin(k);
}

/* Their calls are dropped by the engine. */
void own_asks_drop(struct own *o)
{
    while (!list_empty(&o->asks))
        ask_free(CONTAINER_OF(o->asks.next, struct own_ask, link));
}
