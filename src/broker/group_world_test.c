/* group_world_test.c - see its header. */
#include "group_world_test.h"

#include <stdio.h>

void tm_init(struct tm *m, uint32_t shard, const char *group)
{
    *m = (struct tm){.c = client_new(shard), .group = group, .generation = -1, .session_ms = 10000, .rebalance_ms = 20000, .protocols = {"range"}, .join_version = 9};
}

void tm_free(struct tm *m)
{
    client_free(m->c);
    m->c = NULL;
}

static enum kafka_error find(struct client *c, const char *group)
{
    struct kafka_find_coordinator_req q;
    kafka_find_coordinator_req_init(&q);
    q.key = slice_cstr(group);
    const struct kafka_find_coordinator_resp *resp = client_ask(c, KEY_FIND_COORDINATOR, 2, &q);
    if (!resp->error_code) {
        assert_true(slice_is(resp->host, "broker.test"));
        assert_int_equal(resp->node_id, 1);
    }
    return (enum kafka_error)resp->error_code;
}

void group_ready(struct client *c, const char *group)
{
    for (int i = 0; i < 200; i++) {
        if (find(c, group) == KAFKA_NONE) {
            const struct kafka_describe_groups_resp_described_group *g = tm_describe(c, group);
            if (g->error_code == KAFKA_NONE || g->error_code == KAFKA_GROUP_ID_NOT_FOUND)
                return;
        }
        world_sleep(50);
    }
    fail_msg("the coordinator of %s does not come", group);
}

/* ---- JoinGroup ------------------------------------------------------------------------------------------------------------ */

static struct slice subscription(struct tm *m)
{
    struct buf b = {0};
    struct kafka_writer w;
    struct slice topics[8];
    struct kafka_consumer_protocol_subscription sub;
    if (!m->topics)
        return SLICE("m");
    kafka_consumer_protocol_subscription_init(&sub);
    sub.topics = topics;
    for (struct slice rest = slice_cstr(m->topics); rest.n;)
        topics[sub.topics_n++] = slice_cut(rest, ',', &rest);
    kafka_writer_init(&w, &b);
    kafka_write_int16(&w, 1);
    kafka_consumer_protocol_subscription_write(&w, 1, &sub);
    struct slice s = arena_slice(client_arena(m->c), buf_slice(&b));
    buf_free(&b);
    return s;
}

void tm_join_send(struct tm *m)
{
    struct kafka_join_group_req q;
    struct kafka_join_group_req_join_group_request_protocol p[4];
    kafka_join_group_req_init(&q);
    q.group_id = slice_cstr(m->group);
    q.session_timeout_ms = m->session_ms;
    q.rebalance_timeout_ms = m->rebalance_ms;
    q.member_id = slice_cstr(m->id);
    if (m->instance[0])
        q.group_instance_id = slice_cstr(m->instance);
    q.protocol_type = SLICE("consumer");
    q.protocols = p;
    for (int i = 0; i < 4 && m->protocols[i]; i++, q.protocols_n++)
        p[i] = (struct kafka_join_group_req_join_group_request_protocol){.name = slice_cstr(m->protocols[i]), .metadata = subscription(m)};
    m->join_id = client_send(m->c, KEY_JOIN_GROUP, m->join_version, &q);
}

static void copy(char *to, size_t cap, struct slice s)
{
    assert_true(s.n < cap);
    if (s.n)
        memcpy(to, s.p, s.n);
    to[s.n] = '\0';
}

enum kafka_error tm_join_await(struct tm *m)
{
    const struct kafka_join_group_resp *resp = client_await(m->c, m->join_id);
    copy(m->id, sizeof m->id, resp->member_id);
    if (resp->error_code) {
        assert_int_equal(resp->members_n, 0);
        return (enum kafka_error)resp->error_code;
    }
    m->generation = resp->generation_id;
    m->leads = slice_eq(resp->leader, resp->member_id);
    m->skip = resp->skip_assignment;
    copy(m->protocol, sizeof m->protocol, resp->protocol_name);
    assert_int_equal(m->leads, resp->members_n > 0);
    return KAFKA_NONE;
}

bool tm_join_come(struct tm *m) { return client_try(m->c, m->join_id) != NULL; }

enum kafka_error tm_join(struct tm *m)
{
    tm_join_send(m);
    return tm_join_await(m);
}

enum kafka_error tm_enter(struct tm *m)
{
    enum kafka_error e = tm_join(m);
    return e == KAFKA_MEMBER_ID_REQUIRED ? tm_join(m) : e;
}

/* ---- SyncGroup, Heartbeat, LeaveGroup --------------------------------------------------------------------------------------- */

void tm_sync_send(struct tm *m, struct tm *const *all, const char *const *bytes, int n)
{
    struct kafka_sync_group_req q;
    struct kafka_sync_group_req_sync_group_request_assignment a[64];
    kafka_sync_group_req_init(&q);
    q.group_id = slice_cstr(m->group);
    q.generation_id = m->generation;
    q.member_id = slice_cstr(m->id);
    if (m->instance[0])
        q.group_instance_id = slice_cstr(m->instance);
    q.protocol_type = SLICE("consumer");
    q.protocol_name = slice_cstr(m->protocol);
    q.assignments = a;
    for (int i = 0; i < n; i++)
        a[q.assignments_n++] = (struct kafka_sync_group_req_sync_group_request_assignment){.member_id = slice_cstr(all[i]->id), .assignment = slice_cstr(bytes[i])};
    m->sync_id = client_send(m->c, KEY_SYNC_GROUP, 5, &q);
}

enum kafka_error tm_sync_await(struct tm *m)
{
    const struct kafka_sync_group_resp *resp = client_await(m->c, m->sync_id);
    copy(m->assignment, sizeof m->assignment, resp->assignment);
    return (enum kafka_error)resp->error_code;
}

bool tm_sync_come(struct tm *m) { return client_try(m->c, m->sync_id) != NULL; }

enum kafka_error tm_sync(struct tm *m, struct tm *const *all, const char *const *bytes, int n)
{
    tm_sync_send(m, all, bytes, n);
    return tm_sync_await(m);
}

enum kafka_error tm_heartbeat(struct tm *m)
{
    struct kafka_heartbeat_req q;
    kafka_heartbeat_req_init(&q);
    q.group_id = slice_cstr(m->group);
    q.generation_id = m->generation;
    q.member_id = slice_cstr(m->id);
    if (m->instance[0])
        q.group_instance_id = slice_cstr(m->instance);
    const struct kafka_heartbeat_resp *resp = client_ask(m->c, KEY_HEARTBEAT, 4, &q);
    return (enum kafka_error)resp->error_code;
}

enum kafka_error tm_leave(struct tm *m)
{
    struct kafka_leave_group_req q;
    struct kafka_leave_group_req_member_identity who;
    kafka_leave_group_req_init(&q);
    kafka_leave_group_req_member_identity_init(&who);
    q.group_id = slice_cstr(m->group);
    q.members = &who;
    q.members_n = 1;
    who.member_id = slice_cstr(m->id);
    if (m->instance[0])
        who.group_instance_id = slice_cstr(m->instance);
    const struct kafka_leave_group_resp *resp = client_ask(m->c, KEY_LEAVE_GROUP, 5, &q);
    if (resp->error_code)
        return (enum kafka_error)resp->error_code;
    assert_int_equal(resp->members_n, 1);
    return (enum kafka_error)resp->members[0].error_code;
}

void tm_settle(struct tm *all, int n)
{
    struct tm *members[64] = {NULL}, *leader = NULL;
    char text[64][16];
    const char *bytes[64] = {NULL};
    for (int i = 0; i < n; i++) {
        members[i] = &all[i];
        snprintf(text[i], sizeof text[i], "a%d", i);
        bytes[i] = text[i];
        if (!all[i].id[0] && !all[i].instance[0])
            assert_int_equal(tm_join(&all[i]), KAFKA_MEMBER_ID_REQUIRED);
    }
    for (int i = 0; i < n; i++)
        tm_join_send(&all[i]);
    for (int i = 0; i < n; i++) {
        assert_int_equal(tm_join_await(&all[i]), KAFKA_NONE);
        if (all[i].leads)
            leader = &all[i];
    }
    assert_non_null(leader);
    for (int i = 0; i < n; i++)
        if (&all[i] != leader)
            tm_sync_send(&all[i], NULL, NULL, 0);
    tm_sync_send(leader, members, bytes, n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(tm_sync_await(&all[i]), KAFKA_NONE);
        assert_string_equal(all[i].assignment, text[i]);
    }
}

/* ---- offsets -------------------------------------------------------------------------------------------------------------------- */

enum kafka_error tm_commit(struct tm *m, const char *topic, int32_t partition, int64_t offset, const char *metadata)
{
    struct kafka_offset_commit_req q;
    struct kafka_offset_commit_req_offset_commit_request_topic t;
    struct kafka_offset_commit_req_offset_commit_request_partition p;
    kafka_offset_commit_req_init(&q);
    kafka_offset_commit_req_offset_commit_request_topic_init(&t);
    kafka_offset_commit_req_offset_commit_request_partition_init(&p);
    q.group_id = slice_cstr(m->group);
    q.generation_id_or_member_epoch = m->generation;
    q.member_id = slice_cstr(m->id);
    if (m->instance[0])
        q.group_instance_id = slice_cstr(m->instance);
    q.topics = &t;
    q.topics_n = 1;
    t.name = slice_cstr(topic);
    t.partitions = &p;
    t.partitions_n = 1;
    p.partition_index = partition;
    p.committed_offset = offset;
    p.committed_leader_epoch = 3;
    p.committed_metadata = slice_cstr(metadata);
    const struct kafka_offset_commit_resp *resp = client_ask(m->c, KEY_OFFSET_COMMIT, 9, &q);
    assert_int_equal(resp->topics_n, 1);
    assert_int_equal(resp->topics[0].partitions_n, 1);
    assert_int_equal(resp->topics[0].partitions[0].partition_index, partition);
    return (enum kafka_error)resp->topics[0].partitions[0].error_code;
}

int64_t tm_fetch(struct tm *m, const char *topic, int32_t partition, bool stable, char *metadata)
{
    struct kafka_offset_fetch_req q;
    struct kafka_offset_fetch_req_offset_fetch_request_group g;
    struct kafka_offset_fetch_req_offset_fetch_request_topics t;
    kafka_offset_fetch_req_init(&q);
    kafka_offset_fetch_req_offset_fetch_request_group_init(&g);
    kafka_offset_fetch_req_offset_fetch_request_topics_init(&t);
    q.groups = &g;
    q.groups_n = 1;
    q.require_stable = stable;
    g.group_id = slice_cstr(m->group);
    g.topics = &t;
    g.topics_n = 1;
    t.name = slice_cstr(topic);
    t.partition_indexes = &partition;
    t.partition_indexes_n = 1;
    const struct kafka_offset_fetch_resp *resp = client_ask(m->c, KEY_OFFSET_FETCH, 9, &q);
    assert_int_equal(resp->groups_n, 1);
    if (resp->groups[0].error_code)
        return -100 - resp->groups[0].error_code;
    assert_int_equal(resp->groups[0].topics_n, 1);
    const struct kafka_offset_fetch_resp_offset_fetch_response_partitions *p = &resp->groups[0].topics[0].partitions[0];
    if (metadata)
        copy(metadata, 5000, p->metadata);
    return p->error_code ? -100 - p->error_code : p->committed_offset;
}

/* ---- looking on -------------------------------------------------------------------------------------------------------------------- */

const struct kafka_describe_groups_resp_described_group *tm_describe(struct client *c, const char *group)
{
    struct kafka_describe_groups_req q;
    struct slice id = slice_cstr(group);
    kafka_describe_groups_req_init(&q);
    q.groups = &id;
    q.groups_n = 1;
    const struct kafka_describe_groups_resp *resp = client_ask(c, KEY_DESCRIBE_GROUPS, 6, &q);
    assert_int_equal(resp->groups_n, 1);
    return &resp->groups[0];
}

const char *tm_state(struct client *c, const char *group)
{
    const struct kafka_describe_groups_resp_described_group *g = tm_describe(c, group);
    return g->error_code ? "" : arena_slice(client_arena(c), g->group_state).p;
}
