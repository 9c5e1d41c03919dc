/* group_test.c - consumer groups on the simulator: every state and its requests, members that come, go and come again, commits, administration. */
#include "group_world_test.h"

#include <stdio.h>

static void start(uint32_t shards) { world_start(&(struct world_conf){.seed = 7, .shards = shards}); }

/* The group as its coordinator has it. */
static struct group *inside(const char *group)
{
    int32_t partition;
    struct shard *s = coordinator_of(W.broker->shards[0], OFFSETS_TOPIC, slice_cstr(group), &partition);
    struct group_part *gp = s->groups->parts[partition];
    return gp ? group_find(gp, slice_cstr(group)) : NULL;
}

/* ---- FindCoordinator --------------------------------------------------------------------------------------------------------- */

static void test_find(void **state)
{
    (void)state;
    start(2);
    struct client *c = client_new(1);
    struct kafka_find_coordinator_req q;
    kafka_find_coordinator_req_init(&q);
    q.key = SLICE("g");
    const struct kafka_find_coordinator_resp *resp = client_ask(c, KEY_FIND_COORDINATOR, 2, &q);
    assert_int_equal(resp->error_code, KAFKA_COORDINATOR_NOT_AVAILABLE);
    assert_int_equal(resp->node_id, -1);
    group_ready(c, "g");
    struct slice keys[] = {SLICE("g"), SLICE("h"), SLICE("g")};
    q.coordinator_keys = keys;
    q.coordinator_keys_n = 3;
    resp = client_ask(c, KEY_FIND_COORDINATOR, 4, &q);
    assert_int_equal(resp->coordinators_n, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(resp->coordinators[i].error_code, 0);
        assert_true(slice_eq(resp->coordinators[i].key, keys[i]));
        assert_true(slice_is(resp->coordinators[i].host, "broker.test"));
        assert_int_equal(resp->coordinators[i].port, WORLD_PORT);
        assert_int_equal(resp->coordinators[i].node_id, 1);
    }
    q.key_type = 2;
    resp = client_ask(c, KEY_FIND_COORDINATOR, 6, &q);
    assert_int_equal(resp->coordinators[0].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(resp->coordinators[0].port, -1);
    assert_true(resp->coordinators[0].error_message.n > 0);
    client_free(c);
    world_stop();
}

/* ---- the life of a group ---------------------------------------------------------------------------------------------------------- */

static void test_life(void **state)
{
    (void)state;
    start(2);
    struct tm a, b;
    tm_init(&a, 0, "g");
    tm_init(&b, 1, "g");
    group_ready(a.c, "g");
    assert_string_equal(tm_state(a.c, "g"), "");
    assert_int_equal(tm_join(&a), KAFKA_MEMBER_ID_REQUIRED);
    assert_memory_equal(a.id, "test-", 5);
    assert_string_equal(tm_state(a.c, "g"), "Empty");
    assert_int_equal(tm_join(&a), KAFKA_NONE);
    assert_int_equal(a.generation, 1);
    assert_true(a.leads);
    assert_string_equal(a.protocol, "range");
    assert_string_equal(tm_state(a.c, "g"), "CompletingRebalance");
    assert_int_equal(tm_heartbeat(&a), KAFKA_NONE);
    struct tm *all[] = {&a, &b};
    const char *bytes[] = {"for-a", "for-b"};
    assert_int_equal(tm_sync(&a, all, bytes, 1), KAFKA_NONE);
    assert_string_equal(a.assignment, "for-a");
    assert_string_equal(tm_state(a.c, "g"), "Stable");
    assert_int_equal(tm_heartbeat(&a), KAFKA_NONE);

    assert_int_equal(tm_join(&b), KAFKA_MEMBER_ID_REQUIRED);
    assert_int_equal(tm_heartbeat(&a), KAFKA_NONE); /* an id is no member */
    tm_join_send(&b);
    world_sleep(100);
    assert_false(tm_join_come(&b));
    assert_string_equal(tm_state(a.c, "g"), "PreparingRebalance");
    assert_int_equal(tm_heartbeat(&a), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_sync(&a, NULL, NULL, 0), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_join(&a), KAFKA_NONE);
    assert_int_equal(tm_join_await(&b), KAFKA_NONE);
    assert_int_equal(a.generation, 2);
    assert_int_equal(b.generation, 2);
    assert_true(a.leads);
    assert_false(b.leads);
    tm_sync_send(&b, NULL, NULL, 0);
    world_sleep(100);
    assert_false(tm_sync_come(&b));
    assert_int_equal(tm_sync(&a, all, bytes, 2), KAFKA_NONE);
    assert_int_equal(tm_sync_await(&b), KAFKA_NONE);
    assert_string_equal(b.assignment, "for-b");
    assert_int_equal(tm_sync(&b, NULL, NULL, 0), KAFKA_NONE); /* again, in Stable */
    assert_string_equal(b.assignment, "for-b");

    const struct kafka_describe_groups_resp_described_group *g = tm_describe(b.c, "g");
    assert_true(slice_is(g->group_state, "Stable") && slice_is(g->protocol_type, "consumer") && slice_is(g->protocol_data, "range"));
    assert_int_equal(g->members_n, 2);
    assert_true(slice_is(g->members[1].member_id, b.id) && slice_is(g->members[1].member_assignment, "for-b"));
    assert_true(slice_is(g->members[0].client_id, "test"));
    assert_int_equal(g->members[0].client_host.p[0], '/');

    assert_int_equal(tm_leave(&a), KAFKA_NONE);
    assert_int_equal(tm_leave(&a), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(tm_heartbeat(&b), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_join(&b), KAFKA_NONE);
    assert_true(b.leads);
    assert_int_equal(b.generation, 3);
    all[0] = &b;
    assert_int_equal(tm_sync(&b, all, bytes, 1), KAFKA_NONE);
    assert_int_equal(tm_leave(&b), KAFKA_NONE);
    assert_string_equal(tm_state(b.c, "g"), "Empty");
    assert_int_equal(inside("g")->generation, 4);
    tm_free(&a);
    tm_free(&b);
    world_stop();
}

static void test_errors(void **state)
{
    (void)state;
    start(1);
    struct tm a, b;
    tm_init(&a, 0, "g");
    tm_init(&b, 0, "g");
    assert_int_equal(tm_heartbeat(&a), KAFKA_NOT_COORDINATOR); /* there is no __consumer_offsets yet */
    group_ready(a.c, "g");
    assert_int_equal(tm_heartbeat(&a), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(tm_sync(&a, NULL, NULL, 0), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(tm_leave(&a), KAFKA_UNKNOWN_MEMBER_ID);
    snprintf(a.id, sizeof a.id, "nobody");
    assert_int_equal(tm_join(&a), KAFKA_UNKNOWN_MEMBER_ID);
    assert_null(inside("g")); /* nothing was made of it */
    a.id[0] = '\0';
    a.session_ms = 5999;
    assert_int_equal(tm_join(&a), KAFKA_INVALID_SESSION_TIMEOUT);
    a.session_ms = 1800001;
    assert_int_equal(tm_join(&a), KAFKA_INVALID_SESSION_TIMEOUT);
    a.session_ms = 10000;
    a.group = "";
    assert_int_equal(tm_join(&a), KAFKA_INVALID_GROUP_ID);
    assert_int_equal(tm_heartbeat(&a), KAFKA_INVALID_GROUP_ID);
    assert_int_equal(tm_leave(&a), KAFKA_INVALID_GROUP_ID);
    assert_int_equal(tm_sync(&a, NULL, NULL, 0), KAFKA_INVALID_GROUP_ID);
    a.group = "g";
    a.protocols[0] = NULL;
    assert_int_equal(tm_join(&a), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    a.protocols[0] = "range";
    tm_settle(&a, 1);
    b.protocols[0] = "sticky";
    assert_int_equal(tm_join(&b), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    a.generation++;
    assert_int_equal(tm_heartbeat(&a), KAFKA_ILLEGAL_GENERATION);
    assert_int_equal(tm_sync(&a, NULL, NULL, 0), KAFKA_ILLEGAL_GENERATION);
    a.generation--;
    snprintf(a.protocol, sizeof a.protocol, "sticky");
    assert_int_equal(tm_sync(&a, NULL, NULL, 0), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    tm_free(&a);
    tm_free(&b);
    world_stop();
}

/* The protocol that all have and most prefer. */
static void test_vote(void **state)
{
    (void)state;
    start(1);
    struct tm m[3];
    for (int i = 0; i < 3; i++)
        tm_init(&m[i], 0, "g");
    group_ready(m[0].c, "g");
    memcpy(m[0].protocols, (const char *[4]){"only-a", "range", "sticky"}, sizeof m[0].protocols);
    memcpy(m[1].protocols, (const char *[4]){"sticky", "range"}, sizeof m[1].protocols);
    memcpy(m[2].protocols, (const char *[4]){"sticky", "only-c", "range"}, sizeof m[2].protocols);
    tm_settle(m, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(m[i].protocol, "sticky");
    memcpy(m[1].protocols, (const char *[4]){"range", NULL}, sizeof m[1].protocols); /* what one no longer has is no choice */
    tm_join_send(&m[1]);
    world_sleep(50);
    tm_settle(m, 3);
    assert_string_equal(m[0].protocol, "range");
    for (int i = 0; i < 3; i++)
        tm_free(&m[i]);
    world_stop();
}

/* A member that says nothing new is told what is; a leader, and news, begin a rebalance. */
static void test_rejoin(void **state)
{
    (void)state;
    start(1);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 2);
    struct tm *leader = m[0].leads ? &m[0] : &m[1], *other = m[0].leads ? &m[1] : &m[0];
    int32_t generation = leader->generation;
    assert_int_equal(tm_join(other), KAFKA_NONE);
    assert_int_equal(other->generation, generation);
    assert_int_equal(tm_heartbeat(leader), KAFKA_NONE);
    other->topics = "news";
    tm_join_send(other);
    world_sleep(50);
    assert_false(tm_join_come(other));
    assert_int_equal(tm_heartbeat(leader), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_join(leader), KAFKA_NONE);
    assert_int_equal(tm_join_await(other), KAFKA_NONE);
    assert_int_equal(other->generation, generation + 1);
    assert_int_equal(tm_join(other), KAFKA_NONE); /* Completing: the same again */
    assert_int_equal(other->generation, generation + 1);
    assert_int_equal(tm_join(leader), KAFKA_NONE);
    assert_true(leader->leads);
    struct tm *all[] = {leader, other};
    const char *bytes[] = {"x", "y"};
    assert_int_equal(tm_sync(leader, all, bytes, 2), KAFKA_NONE);
    assert_int_equal(tm_sync(other, NULL, NULL, 0), KAFKA_NONE);
    assert_string_equal(other->assignment, "y");
    tm_join_send(leader); /* Stable: the leader may want to assign anew */
    world_sleep(50);
    assert_false(tm_join_come(leader));
    assert_int_equal(tm_join(other), KAFKA_NONE);
    assert_int_equal(tm_join_await(leader), KAFKA_NONE);
    tm_sync_send(other, NULL, NULL, 0);
    world_sleep(50);
    leader->topics = "other news"; /* Completing: a rebalance, and who waits for its assignment is told */
    tm_join_send(leader);
    assert_int_equal(tm_sync_await(other), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_join(other), KAFKA_NONE);
    assert_int_equal(tm_join_await(leader), KAFKA_NONE);
    assert_int_equal(leader->generation, generation + 3);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* A second JoinGroup or SyncGroup of the same member: the first one is answered, too. */
static void test_twice(void **state)
{
    (void)state;
    start(2);
    struct tm m[2], again;
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 2);
    m[1].topics = "t";
    tm_join_send(&m[1]);
    world_sleep(50);
    again = m[1];
    again.c = client_new(1);
    tm_join_send(&again);
    assert_int_equal(tm_join_await(&m[1]), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&again), KAFKA_NONE);
    struct tm *follower = m[0].leads ? &again : &m[0];
    if (follower == &again) {
        m[1] = (struct tm){.c = m[1].c, .group = "g", .generation = again.generation};
        snprintf(m[1].id, sizeof m[1].id, "%s", again.id);
        snprintf(m[1].protocol, sizeof m[1].protocol, "range");
        tm_sync_send(&m[1], NULL, NULL, 0);
        world_sleep(50);
        tm_sync_send(&again, NULL, NULL, 0);
        assert_int_equal(tm_sync_await(&m[1]), KAFKA_REBALANCE_IN_PROGRESS);
    }
    client_free(again.c);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* ---- time ----------------------------------------------------------------------------------------------------------------------------- */

static void test_session(void **state)
{
    (void)state;
    start(1);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 2);
    for (int i = 0; i < 4; i++) { /* m[1] is not heard of */
        world_sleep(2400);
        assert_int_equal(tm_heartbeat(&m[0]), KAFKA_NONE);
    }
    world_sleep(1000);
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_heartbeat(&m[1]), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE);
    assert_true(m[0].leads);
    struct tm *all[] = {&m[0]};
    assert_int_equal(tm_sync(&m[0], all, (const char *[]){"x"}, 1), KAFKA_NONE);
    world_sleep(11000);
    assert_string_equal(tm_state(m[0].c, "g"), "Empty");
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* Who does not come to a rebalance in time is out; who does not fetch its assignment, too. */
static void test_timeouts(void **state)
{
    (void)state;
    start(1);
    struct tm m[3];
    for (int i = 0; i < 3; i++) {
        tm_init(&m[i], 0, "g");
        m[i].session_ms = 60000;
    }
    group_ready(m[0].c, "g");
    tm_settle(m, 2);
    assert_int_equal(tm_join(&m[2]), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&m[2]);
    world_sleep(100); /* else the other one may come first, and be told of the generation there is */
    tm_join_send(&m[0]);
    world_sleep(18900);
    assert_false(tm_join_come(&m[0]));
    world_sleep(2000);
    assert_int_equal(tm_join_await(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&m[2]), KAFKA_NONE);
    assert_int_equal(tm_heartbeat(&m[1]), KAFKA_UNKNOWN_MEMBER_ID);
    struct tm *leader = m[0].leads ? &m[0] : &m[2], *other = m[0].leads ? &m[2] : &m[0];
    struct tm *all[] = {leader};
    assert_int_equal(tm_sync(leader, all, (const char *[]){"x"}, 1), KAFKA_NONE);
    world_sleep(15000);
    assert_int_equal(tm_heartbeat(leader), KAFKA_NONE);
    assert_int_equal(tm_heartbeat(other), KAFKA_NONE); /* beats, but never asks for its assignment */
    world_sleep(6000);
    assert_int_equal(tm_heartbeat(other), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(tm_heartbeat(leader), KAFKA_REBALANCE_IN_PROGRESS);
    for (int i = 0; i < 3; i++)
        tm_free(&m[i]);
    world_stop();
}

/* The leader dies and never assigns: who waits for that is told when the leader's session ends, and has a whole session from then on. */
static void test_leader_dies(void **state)
{
    (void)state;
    start(1);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 2);
    struct tm *leader = m[0].leads ? &m[0] : &m[1], *other = m[0].leads ? &m[1] : &m[0];
    tm_join_send(leader);
    world_sleep(50);
    assert_int_equal(tm_join(other), KAFKA_NONE);
    assert_int_equal(tm_join_await(leader), KAFKA_NONE);
    tm_sync_send(other, NULL, NULL, 0);
    world_sleep(9000);
    assert_false(tm_sync_come(other));
    assert_int_equal(tm_sync_await(other), KAFKA_REBALANCE_IN_PROGRESS);
    world_sleep(5000);
    assert_int_equal(tm_heartbeat(other), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_heartbeat(leader), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(tm_join(other), KAFKA_NONE);
    assert_true(other->leads);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

static void tune_delay(struct broker_conf *c) { c->group_delay_ms = 3000; }

/* The first rebalance waits for members that come (KIP-134). */
static void test_initial_delay(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 3, .shards = 1, .tune = tune_delay});
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    m[0].rebalance_ms = m[1].rebalance_ms = 7000;
    group_ready(m[0].c, "g");
    assert_int_equal(tm_join(&m[0]), KAFKA_MEMBER_ID_REQUIRED);
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&m[0]);
    world_sleep(2000);
    tm_join_send(&m[1]); /* 3 s more from the end of the first step */
    world_sleep(2000);
    assert_false(tm_join_come(&m[0]));
    world_sleep(2500);
    assert_true(tm_join_come(&m[0]) && tm_join_come(&m[1]));
    assert_int_equal(tm_join_await(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&m[1]), KAFKA_NONE);
    assert_int_equal(m[1].generation, 1);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* An id that was given out holds a rebalance up until it comes, is given back, or its session ends. */
static void test_pending_ids(void **state)
{
    (void)state;
    start(1);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 1);
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&m[0]);
    world_sleep(500);
    assert_false(tm_join_come(&m[0]));
    assert_int_equal(tm_leave(&m[1]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&m[0]), KAFKA_NONE);
    m[1].id[0] = '\0';
    m[1].session_ms = 6000;
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    m[0].topics = "news";
    tm_join_send(&m[0]);
    world_sleep(5000);
    assert_false(tm_join_come(&m[0]));
    world_sleep(1500);
    assert_true(tm_join_come(&m[0]));
    assert_int_equal(tm_join(&m[1]), KAFKA_UNKNOWN_MEMBER_ID);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

static void test_size_max(void **state)
{
    (void)state;
    start(1);
    struct tm m[3];
    for (int i = 0; i < 3; i++)
        tm_init(&m[i], 0, "g");
    group_ready(m[0].c, "g");
    W.broker->shards[0]->groups->size_max = 2;
    tm_settle(m, 2);
    assert_int_equal(tm_join(&m[2]), KAFKA_GROUP_MAX_SIZE_REACHED);
    assert_string_equal(m[2].id, "");
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_NONE); /* nobody is disturbed */
    assert_int_equal(counter_read(&W.broker->shards[0]->groups->count.limit_size), 1);
    m[2].group = "h"; /* ids that were given out are members, too */
    assert_int_equal(tm_join(&m[2]), KAFKA_MEMBER_ID_REQUIRED);
    m[2].id[0] = '\0';
    assert_int_equal(tm_join(&m[2]), KAFKA_MEMBER_ID_REQUIRED);
    m[2].id[0] = '\0';
    assert_int_equal(tm_join(&m[2]), KAFKA_GROUP_MAX_SIZE_REACHED);
    for (int i = 0; i < 3; i++)
        tm_free(&m[i]);
    world_stop();
}

/* Versions before 4: no second round; version 0: no rebalance timeout. */
static void test_old_versions(void **state)
{
    (void)state;
    start(1);
    struct tm a;
    tm_init(&a, 0, "g");
    group_ready(a.c, "g");
    a.join_version = 0;
    assert_int_equal(tm_join(&a), KAFKA_NONE);
    assert_int_equal(inside("g")->state, GROUP_COMPLETING);
    assert_int_equal(group_rebalance_ms(inside("g")), 10000);
    struct kafka_sync_group_req s;
    struct kafka_sync_group_req_sync_group_request_assignment as = {.member_id = slice_cstr(a.id), .assignment = SLICE("z")};
    kafka_sync_group_req_init(&s);
    s.group_id = SLICE("g");
    s.generation_id = 1;
    s.member_id = slice_cstr(a.id);
    s.assignments = &as;
    s.assignments_n = 1;
    const struct kafka_sync_group_resp *synced = client_ask(a.c, KEY_SYNC_GROUP, 0, &s);
    assert_int_equal(synced->error_code, 0);
    assert_true(slice_is(synced->assignment, "z"));
    struct kafka_leave_group_req l;
    kafka_leave_group_req_init(&l);
    l.group_id = SLICE("g");
    l.member_id = slice_cstr(a.id);
    const struct kafka_leave_group_resp *left = client_ask(a.c, KEY_LEAVE_GROUP, 0, &l);
    assert_int_equal(left->error_code, 0);
    left = client_ask(a.c, KEY_LEAVE_GROUP, 2, &l);
    assert_int_equal(left->error_code, KAFKA_UNKNOWN_MEMBER_ID);
    tm_free(&a);
    world_stop();
}

/* ---- static members (KIP-345) ---------------------------------------------------------------------------------------------------------- */

/* The new process of a member: the same instance, no member id yet. */
static struct tm restarted(const struct tm *m, uint32_t shard)
{
    struct tm again = *m;
    again.c = client_new(shard);
    again.id[0] = '\0';
    return again;
}

/* Nothing happens to the group, and the process before is fenced. */
static void follower_restarts(struct tm m[2])
{
    struct tm again = restarted(&m[1], 1);
    assert_int_equal(tm_join(&again), KAFKA_NONE);
    assert_int_equal(again.generation, m[0].generation);
    assert_string_not_equal(again.id, m[1].id);
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_heartbeat(&m[1]), KAFKA_FENCED_INSTANCE_ID);
    assert_int_equal(tm_sync(&m[1], NULL, NULL, 0), KAFKA_FENCED_INSTANCE_ID);
    assert_int_equal(tm_leave(&m[1]), KAFKA_FENCED_INSTANCE_ID);
    assert_int_equal(tm_join(&m[1]), KAFKA_FENCED_INSTANCE_ID);
    assert_int_equal(tm_commit(&m[1], "t", 0, 1, ""), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(tm_sync(&again, NULL, NULL, 0), KAFKA_NONE);
    client_free(again.c);
}

/* It leads on and must not assign; an older client is told that somebody else leads. */
static void leader_restarts(struct tm m[2])
{
    int32_t generation = m[0].generation;
    struct tm again = restarted(&m[0], 0);
    assert_int_equal(tm_join(&again), KAFKA_NONE);
    assert_int_equal(again.generation, generation);
    assert_true(again.leads && again.skip);
    tm_free(&m[0]);
    m[0] = again;
    again = restarted(&m[0], 0);
    again.join_version = 8;
    assert_int_equal(tm_join(&again), KAFKA_NONE);
    assert_false(again.leads);
    assert_int_equal(again.generation, generation);
    client_free(again.c);
}

/* An administrator takes members out by their instances. */
static void instances_leave(struct client *c)
{
    struct kafka_leave_group_req l;
    struct kafka_leave_group_req_member_identity who[2];
    kafka_leave_group_req_init(&l);
    kafka_leave_group_req_member_identity_init(&who[0]);
    kafka_leave_group_req_member_identity_init(&who[1]);
    l.group_id = SLICE("g");
    l.members = who;
    l.members_n = 2;
    who[0].group_instance_id = SLICE("i1");
    who[1].group_instance_id = SLICE("i9");
    const struct kafka_leave_group_resp *left = client_ask(c, KEY_LEAVE_GROUP, 3, &l);
    assert_int_equal(left->error_code, 0);
    assert_int_equal(left->members[0].error_code, 0);
    assert_int_equal(left->members[1].error_code, KAFKA_UNKNOWN_MEMBER_ID);
    assert_string_equal(tm_state(c, "g"), "PreparingRebalance");
}

static void test_static(void **state)
{
    (void)state;
    start(2);
    struct tm m[2];
    for (int i = 0; i < 2; i++) {
        tm_init(&m[i], (uint32_t)i, "g");
        snprintf(m[i].instance, sizeof m[i].instance, "i%d", i);
    }
    group_ready(m[0].c, "g");
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE); /* no second round for static members */
    assert_memory_equal(m[0].id, "i0-", 3);
    struct tm *one[] = {&m[0]};
    assert_int_equal(tm_sync(&m[0], one, (const char *[]){"x"}, 1), KAFKA_NONE);
    tm_join_send(&m[1]);
    world_sleep(50);
    tm_settle(m, 1); /* m[0] rejoins; m[1] waits for its assignment */
    assert_int_equal(tm_join_await(&m[1]), KAFKA_NONE);
    assert_int_equal(tm_sync(&m[1], NULL, NULL, 0), KAFKA_NONE);
    assert_string_equal(m[1].assignment, "");
    assert_true(m[0].leads);
    follower_restarts(m);
    leader_restarts(m);
    instances_leave(m[0].c);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* In the middle of a rebalance the new process of a static member begins another one, and the old one is told. */
static void test_static_rebalancing(void **state)
{
    (void)state;
    start(1);
    struct tm m[2], again;
    for (int i = 0; i < 2; i++) {
        tm_init(&m[i], 0, "g");
        snprintf(m[i].instance, sizeof m[i].instance, "i%d", i);
    }
    group_ready(m[0].c, "g");
    tm_settle(m, 1);
    tm_join_send(&m[1]);
    world_sleep(50);
    again = m[1]; /* Preparing: takes the place */
    again.c = client_new(0);
    tm_join_send(&again);
    assert_int_equal(tm_join_await(&m[1]), KAFKA_FENCED_INSTANCE_ID);
    tm_join_send(&m[0]);
    assert_int_equal(tm_join_await(&again), KAFKA_NONE);
    assert_int_equal(tm_join_await(&m[0]), KAFKA_NONE);
    int32_t generation = again.generation;
    tm_sync_send(&again, NULL, NULL, 0);
    world_sleep(50);
    struct tm third = again; /* Completing: another generation */
    third.c = client_new(0);
    third.id[0] = '\0';
    tm_join_send(&third);
    assert_int_equal(tm_sync_await(&again), KAFKA_FENCED_INSTANCE_ID);
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_REBALANCE_IN_PROGRESS);
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&third), KAFKA_NONE);
    assert_int_equal(third.generation, generation + 1);
    client_free(again.c);
    client_free(third.c);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* Static members with no time for a rebalance, none of whom comes: nothing runs until one does, or their sessions end. */
static void test_static_absent(void **state)
{
    (void)state;
    start(1);
    struct tm m[3];
    for (int i = 0; i < 3; i++) {
        tm_init(&m[i], 0, "g");
        snprintf(m[i].instance, sizeof m[i].instance, "i%d", i);
    }
    group_ready(m[0].c, "g");
    tm_settle(m, 3);
    for (int i = 0; i < 2; i++) { /* another process in its place: no rebalance */
        struct tm again = restarted(&m[i], 0);
        again.rebalance_ms = 0;
        assert_int_equal(tm_join(&again), KAFKA_NONE);
        tm_free(&m[i]);
        m[i] = again;
    }
    assert_int_equal(tm_leave(&m[2]), KAFKA_NONE);
    struct group *g = inside("g");
    for (int i = 0; i < 5; i++) {
        world_sleep(5000);
        assert_int_equal(tm_heartbeat(&m[0]), KAFKA_REBALANCE_IN_PROGRESS);
        assert_int_equal(g->state, GROUP_PREPARING);
        assert_false(timer_is_set(&g->join_timer));
    }
    assert_int_equal(g->members.n, 1); /* the other one was not heard of */
    int32_t generation = m[0].generation;
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE);
    assert_int_equal(m[0].generation, generation + 1);
    for (int i = 0; i < 3; i++)
        tm_free(&m[i]);
    world_stop();
}

/* One of them comes: the others have the time of a rebalance from then on, and are members still. */
static void test_static_first_back(void **state)
{
    (void)state;
    start(1);
    struct tm m[3], d;
    for (int i = 0; i < 3; i++) {
        tm_init(&m[i], 0, "g");
        snprintf(m[i].instance, sizeof m[i].instance, "i%d", i);
        m[i].session_ms = 100000;
    }
    tm_init(&d, 0, "g");
    d.session_ms = 600000;
    group_ready(m[0].c, "g");
    tm_settle(m, 3);
    assert_int_equal(tm_leave(&m[2]), KAFKA_NONE);
    struct group *g = inside("g");
    world_sleep(30000);
    assert_false(timer_is_set(&g->join_timer));
    tm_join_send(&m[0]);
    world_sleep(19000);
    assert_false(tm_join_come(&m[0]));
    world_sleep(2000);
    assert_int_equal(tm_join_await(&m[0]), KAFKA_NONE);
    assert_int_equal(g->members.n, 2);
    assert_int_equal(tm_heartbeat(&m[1]), KAFKA_ILLEGAL_GENERATION);
    struct tm *leader[] = {&m[0]};
    assert_int_equal(tm_sync(&m[0], leader, (const char *[]){"x"}, 1), KAFKA_NONE);
    world_sleep(21000);
    assert_int_equal(g->members.n, 1); /* m[1] did not ask for its assignment */
    assert_int_equal(tm_join(&d), KAFKA_MEMBER_ID_REQUIRED);
    world_sleep(30000);
    assert_int_equal(g->state, GROUP_PREPARING);
    assert_false(timer_is_set(&g->join_timer));
    world_sleep(100000);
    assert_int_equal(g->state, GROUP_EMPTY); /* the id that was given out holds up nothing */
    for (int i = 0; i < 3; i++)
        tm_free(&m[i]);
    tm_free(&d);
    world_stop();
}

/* ---- restarts --------------------------------------------------------------------------------------------------------------------------- */

static void reconnect(struct tm *m, uint32_t shard)
{
    client_free(m->c);
    m->c = client_new(shard);
}

static void test_restart(void **state)
{
    (void)state;
    start(2);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 1, "g");
    snprintf(m[1].instance, sizeof m[1].instance, "i");
    world_topic("t", 2, NULL);
    group_ready(m[0].c, "g");
    tm_settle(m, 2);
    assert_int_equal(tm_commit(&m[0], "t", 1, 77, "meta"), KAFKA_NONE);
    for (int round = 0; round < 3; round++) {
        if (round == 0)
            world_restart();
        else
            world_crash(round == 2);
        reconnect(&m[0], 1);
        reconnect(&m[1], 0);
        group_ready(m[0].c, "g");
        assert_string_equal(tm_state(m[0].c, "g"), "Stable");
        assert_int_equal(tm_heartbeat(&m[0]), KAFKA_NONE); /* nobody notices */
        assert_int_equal(tm_heartbeat(&m[1]), KAFKA_NONE);
        assert_int_equal(tm_sync(&m[1], NULL, NULL, 0), KAFKA_NONE);
        assert_string_equal(m[1].assignment, "a1");
        char metadata[5000];
        assert_int_equal(tm_fetch(&m[0], "t", 1, true, metadata), 77);
        assert_string_equal(metadata, "meta");
    }
    world_sleep(11000); /* sessions began with the loading */
    assert_string_equal(tm_state(m[0].c, "g"), "Empty");
    world_restart();
    reconnect(&m[0], 0);
    group_ready(m[0].c, "g");
    assert_string_equal(tm_state(m[0].c, "g"), "Empty");
    assert_int_equal(inside("g")->generation, m[0].generation + 1);
    assert_true(slice_is(inside("g")->protocol_type, "consumer"));
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* Killed between join and sync: the generation was nobody's. */
static void test_restart_rebalancing(void **state)
{
    (void)state;
    start(1);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 1);
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&m[1]);
    world_sleep(50);
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&m[1]), KAFKA_NONE);
    assert_int_equal(m[0].generation, 2);
    world_crash(true);
    reconnect(&m[0], 0);
    reconnect(&m[1], 0);
    group_ready(m[0].c, "g");
    assert_string_equal(tm_state(m[0].c, "g"), "Stable");
    assert_int_equal(inside("g")->generation, 1);
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_ILLEGAL_GENERATION);
    assert_int_equal(tm_heartbeat(&m[1]), KAFKA_UNKNOWN_MEMBER_ID);
    m[1].id[0] = '\0';
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    tm_settle(m, 2);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* What waits is answered when the broker stops. */
static void test_stop(void **state)
{
    (void)state;
    start(2);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 1, "g");
    group_ready(m[0].c, "g");
    tm_settle(m, 1);
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&m[1]);
    world_sleep(50);
    world_down(false, false);
    assert_true(tm_join_come(&m[1]));
    assert_int_equal(tm_join_await(&m[1]), KAFKA_NOT_COORDINATOR);
    world_up();
    reconnect(&m[0], 0);
    group_ready(m[0].c, "g");
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_NONE);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),           cmocka_unit_test(test_life),          cmocka_unit_test(test_errors),
        cmocka_unit_test(test_vote),           cmocka_unit_test(test_rejoin),        cmocka_unit_test(test_twice),
        cmocka_unit_test(test_session),        cmocka_unit_test(test_timeouts),      cmocka_unit_test(test_initial_delay), cmocka_unit_test(test_leader_dies),
        cmocka_unit_test(test_pending_ids),    cmocka_unit_test(test_size_max),      cmocka_unit_test(test_old_versions),
        cmocka_unit_test(test_static),         cmocka_unit_test(test_static_rebalancing), cmocka_unit_test(test_static_absent),
        cmocka_unit_test(test_static_first_back), cmocka_unit_test(test_restart),
        cmocka_unit_test(test_restart_rebalancing), cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
