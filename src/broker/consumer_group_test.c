/* consumer_group_test.c - groups of KIP-848 on the simulator: who gets what when, epochs and fencing, static members, patterns, restarts; and many
 * histories in which no partition may ever be with two members. */
#include "group_world_test.h"

#include "consumer_group_int.h"
#include "security_int.h"

#include <stdio.h>
#include <stdlib.h>

#define HEARTBEAT 68
#define DESCRIBE 69
#define CREATE_ACLS 30
#define PARTS 6

static void tune(struct broker_conf *c) { c->idle_ms = 24 * 3600 * 1000; }
static void start(uint32_t shards) { world_start(&(struct world_conf){.seed = 5, .shards = shards, .tune = tune}); }

/* A member as its client sees it; partitions of topic "t" as bits. */
struct cm {
    struct client *c;
    const char *group, *topic, *regex, *assignor, *instance;
    char id[64];
    int32_t epoch;
    uint32_t owned;      /* bit per partition that it uses */
    uint32_t told;       /* as the last assignment said */
    uint32_t topics;     /* how many topics the assignment named */
    int32_t sent;
    int32_t rebalance_ms;
    bool full;           /* an answer may have been lost: the next heartbeat says everything and is told everything */
};
static struct kafka_uuid T; /* of topic t */

static void cm_init(struct cm *m, uint32_t shard, const char *id)
{
    *m = (struct cm){.c = client_new(shard), .group = "g", .topic = "t", .rebalance_ms = 20000};
    snprintf(m->id, sizeof m->id, "%s", id);
}

static void cm_send(struct cm *m)
{
    struct kafka_consumer_group_heartbeat_req q;
    struct kafka_consumer_group_heartbeat_req_topic_partitions tp = {.topic_id = T};
    struct slice name = slice_cstr(m->topic);
    int32_t parts[PARTS];
    kafka_consumer_group_heartbeat_req_init(&q);
    q.group_id = slice_cstr(m->group);
    q.member_id = slice_cstr(m->id);
    q.member_epoch = m->epoch;
    q.instance_id = slice_cstr(m->instance);
    tp.partitions = parts;
    for (int32_t p = 0; p < PARTS; p++)
        if (m->owned & 1u << p)
            parts[tp.partitions_n++] = p;
    q.topic_partitions = &tp;
    q.topic_partitions_n = m->epoch == 0 ? 0 : tp.partitions_n > 0;
    if (m->epoch == 0 || m->full) {
        q.rebalance_timeout_ms = m->rebalance_ms;
        q.subscribed_topic_names = &name;
        q.subscribed_topic_names_n = m->topic ? 1 : 0;
        q.subscribed_topic_regex = slice_cstr(m->regex);
        q.server_assignor = slice_cstr(m->assignor);
    }
    m->full = false;
    m->sent = client_send(m->c, HEARTBEAT, 1, &q);
}

static enum kafka_error cm_take(struct cm *m, const struct kafka_consumer_group_heartbeat_resp *resp)
{
    m->sent = 0;
    if (resp->error_code)
        return (enum kafka_error)resp->error_code;
    m->epoch = resp->member_epoch;
    if (!resp->assignment)
        return KAFKA_NONE;
    m->told = 0;
    m->topics = (uint32_t)resp->assignment->topic_partitions_n;
    for (int32_t i = 0; i < resp->assignment->topic_partitions_n; i++)
        for (int32_t k = 0; kafka_uuid_eq(resp->assignment->topic_partitions[i].topic_id, T) && k < resp->assignment->topic_partitions[i].partitions_n; k++)
            m->told |= 1u << resp->assignment->topic_partitions[i].partitions[k];
    return KAFKA_NONE;
}

/* One heartbeat; what it is told it does at once, and says so with the next one. */
static enum kafka_error cm_beat(struct cm *m)
{
    cm_send(m);
    enum kafka_error e = cm_take(m, client_await(m->c, m->sent));
    if (!e)
        m->owned = m->told;
    return e;
}

static int bits(uint32_t x) { return __builtin_popcount(x); }

/* Everybody beats until all is quiet. */
static void cm_settle(struct cm *const *m, int n)
{
    for (int round = 0; round < 6; round++)
        for (int i = 0; i < n; i++)
            assert_int_equal(cm_beat(m[i]), KAFKA_NONE);
}

static const struct kafka_consumer_group_describe_resp_described_group *cm_describe(struct client *c, const char *group)
{
    struct kafka_consumer_group_describe_req q;
    struct slice id = slice_cstr(group);
    kafka_consumer_group_describe_req_init(&q);
    q.group_ids = &id;
    q.group_ids_n = 1;
    const struct kafka_consumer_group_describe_resp *resp = client_ask(c, DESCRIBE, 1, &q);
    assert_int_equal(resp->groups_n, 1);
    return &resp->groups[0];
}

static enum kafka_error cm_commit(struct cm *m, int64_t offset)
{
    struct tm t = {.c = m->c, .group = m->group, .generation = m->epoch};
    snprintf(t.id, sizeof t.id, "%s", m->id);
    return tm_commit(&t, "t", 0, offset, "");
}

static void reconnect(struct cm *m)
{
    client_free(m->c);
    m->c = client_new(0);
}

/* ---- one thing at a time ---------------------------------------------------------------------------------------------------- */

static void test_life(void **state)
{
    (void)state;
    start(2);
    struct cm a, b;
    cm_init(&a, 0, "a");
    cm_init(&b, 1, "b");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.epoch, 1);
    assert_int_equal(a.owned, 0x3f);
    assert_true(slice_is(cm_describe(a.c, "g")->group_state, "Stable"));
    assert_int_equal(cm_beat(&b), KAFKA_NONE); /* nothing is free yet */
    assert_int_equal(b.epoch, 2);
    assert_int_equal(b.owned, 0);
    assert_true(slice_is(cm_describe(a.c, "g")->group_state, "Reconciling"));
    cm_send(&a);
    assert_int_equal(cm_take(&a, client_await(a.c, a.sent)), KAFKA_NONE);
    assert_int_equal(bits(a.told), 3);
    assert_int_equal(a.epoch, 1); /* first it must give up */
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(b.owned, 0);
    assert_int_equal(cm_commit(&a, 1), KAFKA_NONE); /* it may, until then */
    a.owned = a.told;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.epoch, 2);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(a.owned | b.owned, 0x3f);
    assert_int_equal(a.owned & b.owned, 0);
    assert_true(slice_is(cm_describe(a.c, "g")->group_state, "Stable"));
    const struct kafka_consumer_group_describe_resp_described_group *g = cm_describe(b.c, "g");
    assert_int_equal(g->members_n, 2);
    assert_int_equal(g->group_epoch, 2);
    assert_int_equal(g->assignment_epoch, 2);
    assert_true(slice_is(g->assignor_name, "uniform") && slice_is(g->members[0].assignment.topic_partitions[0].topic_name, "t"));
    assert_int_equal(g->members[0].member_type, 1);
    b.epoch = MEMBER_LEAVES;
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(b.epoch, MEMBER_LEAVES);
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.owned, 0x3f);
    assert_int_equal(a.epoch, 3);
    assert_string_equal(tm_state(a.c, "g"), ""); /* no classic group */
    client_free(a.c);
    client_free(b.c);
    world_stop();
}

static void test_fencing(void **state)
{
    (void)state;
    start(1);
    struct cm a, b;
    cm_init(&a, 0, "a");
    cm_init(&b, 0, "b");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    a.epoch = 3;
    assert_int_equal(cm_beat(&a), KAFKA_UNKNOWN_MEMBER_ID);
    a.epoch = 0;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    int32_t first = a.epoch;
    a.epoch++;
    assert_int_equal(cm_beat(&a), KAFKA_FENCED_MEMBER_EPOCH);
    assert_int_equal(cm_commit(&a, 1), KAFKA_STALE_MEMBER_EPOCH);
    a.epoch = first;
    assert_int_equal(cm_commit(&a, 1), KAFKA_NONE);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    cm_settle((struct cm *const[]){&a, &b}, 2);
    assert_true(a.epoch > first);
    int32_t now = a.epoch;
    uint32_t owned = a.owned;
    a.epoch = first; /* it missed an answer */
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.epoch, now);
    a.epoch = first;
    a.owned = 0x3f; /* and uses what it has lost */
    assert_int_equal(cm_beat(&a), KAFKA_FENCED_MEMBER_EPOCH);
    a.epoch = 0;
    a.owned = 0;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.owned, owned);
    struct cm bad;
    cm_init(&bad, 0, "");
    assert_int_equal(cm_beat(&bad), KAFKA_INVALID_REQUEST);
    snprintf(bad.id, sizeof bad.id, "x");
    bad.rebalance_ms = -1;
    assert_int_equal(cm_beat(&bad), KAFKA_INVALID_REQUEST);
    bad.rebalance_ms = 1000;
    bad.epoch = -3;
    assert_int_equal(cm_beat(&bad), KAFKA_INVALID_REQUEST);
    bad.epoch = MEMBER_LEAVES_STATIC;
    assert_int_equal(cm_beat(&bad), KAFKA_INVALID_REQUEST);
    bad.epoch = 0;
    bad.assignor = "best";
    assert_int_equal(cm_beat(&bad), KAFKA_UNSUPPORTED_ASSIGNOR);
    bad.assignor = NULL;
    bad.regex = "(";
    assert_int_equal(cm_beat(&bad), KAFKA_INVALID_REGULAR_EXPRESSION);
    W.broker->shards[0]->groups->size_max = 2;
    bad.regex = NULL;
    assert_int_equal(cm_beat(&bad), KAFKA_GROUP_MAX_SIZE_REACHED);
    client_free(a.c);
    client_free(b.c);
    client_free(bad.c);
    world_stop();
}

/* A member can have no more than its group is dealt: a heartbeat that names more is refused before anything is kept of it. */
static void test_owns_too_many(void **state)
{
    (void)state;
    start(1);
    struct cm a;
    struct kafka_consumer_group_heartbeat_req q;
    struct kafka_consumer_group_heartbeat_req_topic_partitions tp[2] = {{.partitions_n = CONSUMERS_PARTS_MAX}, {.partitions_n = 1}};
    cm_init(&a, 0, "a");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    kafka_consumer_group_heartbeat_req_init(&q);
    q.group_id = SLICE("g");
    q.member_id = SLICE("a");
    q.member_epoch = a.epoch;
    q.topic_partitions = tp;
    for (int i = 0; i < 2; i++)
        tp[i].partitions = arena_zalloc(client_arena(a.c), (size_t)tp[i].partitions_n * sizeof *tp[i].partitions);
    for (int i = 1; i <= 2; i++) {
        q.topic_partitions_n = i;
        const struct kafka_consumer_group_heartbeat_resp *told = client_ask(a.c, HEARTBEAT, 1, &q);
        assert_int_equal(told->error_code, i == 1 ? KAFKA_NONE : KAFKA_INVALID_REQUEST);
        assert_int_equal(counter_read(&W.broker->shards[0]->groups->count.limit_owned), i - 1);
    }
    client_free(a.c);
    world_stop();
}

/* A group becomes a classic one, and another one of KIP-848, while the record of who left is on its way to the disk: what is under way then is none of the new one's. */
static void test_kinds_while_writing(void **state)
{
    (void)state;
    start(1);
    struct cm a;
    struct tm m;
    int32_t partition;
    cm_init(&a, 0, "a");
    tm_init(&m, 0, "g");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    sim_disk_slow(2000, 2000);
    a.epoch = MEMBER_LEAVES;
    cm_send(&a);
    int32_t left = a.sent;
    world_sleep(100);
    struct group *g = group_find(coordinator_of(W.broker->shards[0], OFFSETS_TOPIC, SLICE("g"), &partition)->groups->parts[partition], SLICE("g"));
    assert_int_equal(g->writes, 1);
    m.join_version = 3;
    tm_join_send(&m); /* a classic group */
    world_sleep(100);
    assert_null(g->consumer);
    assert_int_equal(tm_join_await(&m), KAFKA_NONE);
    assert_int_equal(tm_leave(&m), KAFKA_NONE);
    struct cm b;
    cm_init(&b, 0, "b");
    cm_send(&b); /* and one of KIP-848 again */
    world_sleep(100);
    assert_non_null(g->consumer);
    assert_null(client_try(a.c, left)); /* still on its way */
    assert_int_equal(g->writes, 2);
    assert_int_equal(cm_take(&b, client_await(b.c, b.sent)), KAFKA_NONE);
    assert_int_equal(cm_take(&a, client_await(a.c, left)), KAFKA_NONE);
    sim_disk_slow(0, 0);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(g->writes, 0);
    struct part_offsets before, after;
    part_offsets(g->gp->bp->part, &before);
    b.full = true;
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    part_offsets(g->gp->bp->part, &after);
    assert_int_equal(before.end, after.end); /* what it is told is durable: nothing is written for it */
    client_free(a.c);
    client_free(b.c);
    client_free(m.c);
    world_stop();
}

static void test_static(void **state)
{
    (void)state;
    start(1);
    struct cm a, b, again;
    cm_init(&a, 0, "a");
    cm_init(&b, 0, "b");
    a.instance = "i";
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    cm_settle((struct cm *const[]){&a, &b}, 2);
    again = a;
    again.c = client_new(0);
    snprintf(again.id, sizeof again.id, "a2");
    again.epoch = 0;
    assert_int_equal(cm_beat(&again), KAFKA_UNRELEASED_INSTANCE_ID);
    again.epoch = a.epoch;
    assert_int_equal(cm_beat(&again), KAFKA_FENCED_INSTANCE_ID);
    uint32_t had = a.owned;
    int32_t epoch = a.epoch;
    a.epoch = MEMBER_LEAVES_STATIC;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(b.owned, 0x3f & ~had); /* nothing moves */
    again.epoch = 0;
    again.owned = 0;
    snprintf(again.id, sizeof again.id, "b"); /* another member's */
    assert_int_equal(cm_beat(&again), KAFKA_INVALID_REQUEST);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    snprintf(again.id, sizeof again.id, "a2");
    assert_int_equal(cm_beat(&again), KAFKA_NONE);
    assert_int_equal(again.owned, had);
    assert_int_equal(again.epoch, epoch);
    again.epoch = MEMBER_LEAVES_STATIC;
    assert_int_equal(cm_beat(&again), KAFKA_NONE);
    for (int i = 0; i < 5; i++) { /* it does not come back */
        world_sleep(10000);
        assert_int_equal(cm_beat(&b), KAFKA_NONE);
    }
    assert_int_equal(b.owned, 0x3f);
    client_free(a.c);
    client_free(b.c);
    client_free(again.c);
    world_stop();
}

/* Sessions; and who does not give up what it must. */
static void test_time(void **state)
{
    (void)state;
    start(1);
    struct cm a, b;
    cm_init(&a, 0, "a");
    cm_init(&b, 0, "b");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    for (int i = 0; i < 5; i++) { /* a beats, and clings to its partitions */
        world_sleep(4500);
        cm_send(&a);
        assert_int_equal(cm_take(&a, client_await(a.c, a.sent)), KAFKA_NONE);
    }
    world_sleep(4000);
    assert_int_equal(cm_beat(&a), KAFKA_UNKNOWN_MEMBER_ID);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(b.owned, 0x3f);
    a.epoch = 0;
    a.owned = 0;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    cm_settle((struct cm *const[]){&a, &b}, 2);
    assert_int_equal(bits(a.owned), 3);
    world_sleep(30000);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    world_sleep(20000); /* a has not been heard of for 50 s */
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    assert_int_equal(b.owned, 0x3f);
    assert_int_equal(cm_beat(&a), KAFKA_UNKNOWN_MEMBER_ID);
    client_free(a.c);
    client_free(b.c);
    world_stop();
}

static void tune_rules(struct broker_conf *c)
{
    tune(c);
    c->authorize = true;
}

static void acl_put(struct client *c, enum acl_permission permission, const char *principal, const char *host, int op, int kind, const char *name)
{
    struct kafka_create_acls_req req;
    struct kafka_create_acls_req_acl_creation a = {.resource_type = (int8_t)kind,
                                                   .resource_name = slice_cstr(name),
                                                   .resource_pattern_type = ACL_LITERAL,
                                                   .principal = slice_cstr(principal),
                                                   .host = slice_cstr(host),
                                                   .operation = (int8_t)op,
                                                   .permission_type = (int8_t)permission};
    kafka_create_acls_req_init(&req);
    req.creations = &a;
    req.creations_n = 1;
    const struct kafka_create_acls_resp *resp = client_ask(c, CREATE_ACLS, 3, &req);
    assert_int_equal(resp->results[0].error_code, KAFKA_NONE);
}

/* Of the topics that a member's pattern matches those are its own that it may describe, also when permissions change; what it may not is for others. */
static void test_rules(void **state)
{
    (void)state;
    world_start(&(struct world_conf){.seed = 5, .shards = 1, .tune = tune_rules});
    struct cm u, v, *const both[] = {&u, &v};
    W.door.caller = (struct broker_caller){.principal = SLICE("User:u"), .host = SLICE("10.0.0.7")};
    cm_init(&u, 0, "u");
    W.door.caller = (struct broker_caller){.principal = SLICE("User:root"), .super = true};
    cm_init(&v, 0, "v");
    u.topic = v.topic = NULL;
    u.regex = v.regex = ".*";
    T = world_topic("t", 4, NULL);
    world_topic("closed", 2, NULL);
    group_ready(v.c, "g");
    acl_put(v.c, ACL_ALLOW, "User:u", "*", ACL_READ, ACL_GROUP, "g");
    acl_put(v.c, ACL_ALLOW, "User:u", "*", ACL_READ, ACL_TOPIC, "t");
    assert_int_equal(cm_beat(&u), KAFKA_NONE);
    assert_true(u.topics == 1 && u.owned == 0xf);
    acl_put(v.c, ACL_ALLOW, "User:u", "10.0.0.7", ACL_READ, ACL_TOPIC, "closed");
    assert_int_equal(cm_beat(&u), KAFKA_NONE);
    assert_int_equal(u.topics, 2);
    acl_put(v.c, ACL_DENY, "User:u", "*", ACL_ALL, ACL_TOPIC, "closed");
    assert_int_equal(cm_beat(&u), KAFKA_NONE);
    assert_int_equal(u.topics, 1);
    assert_int_equal(cm_beat(&v), KAFKA_NONE);
    cm_settle(both, 2);
    assert_true(u.topics == 1 && v.topics >= 1 && (u.owned | v.owned) == 0xf);
    client_free(u.c);
    client_free(v.c);
    world_stop();
}

static void test_topics(void **state)
{
    (void)state;
    start(1);
    struct cm a;
    cm_init(&a, 0, "a");
    a.topic = NULL;
    a.regex = "t|x.*";
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.topics, 1);
    assert_int_equal(a.owned, 0x3f);
    world_topic("xy", 1, NULL); /* a topic that comes */
    world_topic("yx", 1, NULL);
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.topics, 2);
    assert_int_equal(a.epoch, 2);
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.epoch, 2);
    world_topic_delete("xy");
    cm_settle((struct cm *const[]){&a}, 1);
    assert_int_equal(a.topics, 1);
    struct cm r[2];
    for (int i = 0; i < 2; i++) {
        cm_init(&r[i], 0, i ? "r2" : "r1");
        r[i].group = "range";
        r[i].assignor = "range";
        assert_int_equal(cm_beat(&r[i]), KAFKA_NONE);
    }
    cm_settle((struct cm *const[]){&r[0], &r[1]}, 2);
    assert_int_equal(r[0].owned, 0x07);
    assert_int_equal(r[1].owned, 0x38);
    assert_true(slice_is(cm_describe(a.c, "range")->assignor_name, "range"));
    client_free(a.c);
    client_free(r[0].c);
    client_free(r[1].c);
    world_stop();
}

static void test_restart(void **state)
{
    (void)state;
    start(2);
    struct cm a, b;
    cm_init(&a, 0, "a");
    cm_init(&b, 1, "b");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(cm_beat(&b), KAFKA_NONE);
    cm_settle((struct cm *const[]){&a, &b}, 2);
    for (int i = 0; i < 3; i++) {
        uint32_t had = a.owned;
        if (i == 0)
            world_restart();
        else
            world_crash(i == 2);
        reconnect(&a);
        reconnect(&b);
        group_ready(a.c, "g");
        assert_int_equal(cm_beat(&a), KAFKA_NONE);
        cm_settle((struct cm *const[]){&a, &b}, 2);
        assert_int_equal(a.owned, had);
        assert_int_equal(a.owned | b.owned, 0x3f);
        assert_int_equal(cm_commit(&a, i), KAFKA_NONE);
    }
    world_sleep(50000); /* sessions began with the loading */
    assert_true(slice_is(cm_describe(a.c, "g")->group_state, "Empty"));
    client_free(a.c);
    client_free(b.c);
    world_stop();
}

/* From the classic protocol and back, when nobody is there; lists; deleting. */
static void test_kinds(void **state)
{
    (void)state;
    start(2);
    struct cm a;
    struct tm m;
    cm_init(&a, 0, "a");
    tm_init(&m, 1, "g");
    T = world_topic("t", PARTS, NULL);
    group_ready(a.c, "g");
    tm_settle(&m, 1);
    assert_int_equal(tm_commit(&m, "t", 0, 42, ""), KAFKA_NONE);
    assert_int_equal(cm_beat(&a), KAFKA_GROUP_ID_NOT_FOUND);
    assert_int_equal(tm_leave(&m), KAFKA_NONE);
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(a.owned, 0x3f);
    assert_int_equal(tm_fetch(&m, "t", 0, true, NULL), 42);
    m.id[0] = '\0';
    assert_int_equal(tm_join(&m), KAFKA_INCONSISTENT_GROUP_PROTOCOL);
    struct kafka_list_groups_req q;
    struct slice type = SLICE("consumer");
    kafka_list_groups_req_init(&q);
    q.types_filter = &type;
    q.types_filter_n = 1;
    const struct kafka_list_groups_resp *listed = client_ask(a.c, KEY_LIST_GROUPS, 5, &q);
    assert_int_equal(listed->groups_n, 1);
    assert_true(slice_is(listed->groups[0].group_type, "consumer") && slice_is(listed->groups[0].group_state, "Stable"));
    struct kafka_delete_groups_req d;
    struct slice id = SLICE("g");
    kafka_delete_groups_req_init(&d);
    d.groups_names = &id;
    d.groups_names_n = 1;
    assert_int_equal(((const struct kafka_delete_groups_resp *)client_ask(a.c, 42, 2, &d))->results[0].error_code, KAFKA_NON_EMPTY_GROUP);
    a.epoch = MEMBER_LEAVES;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    world_restart();
    reconnect(&a);
    client_free(m.c);
    m.c = client_new(0);
    group_ready(a.c, "g");
    assert_true(slice_is(cm_describe(a.c, "g")->group_state, "Empty"));
    tm_settle(&m, 1); /* classic again */
    assert_int_equal(tm_fetch(&m, "t", 0, true, NULL), 42);
    world_restart();
    reconnect(&a);
    client_free(m.c);
    m.c = client_new(0);
    group_ready(a.c, "g");
    assert_string_equal(tm_state(a.c, "g"), "Stable");
    assert_int_equal(cm_describe(a.c, "g")->error_code, KAFKA_GROUP_ID_NOT_FOUND);
    assert_int_equal(tm_leave(&m), KAFKA_NONE);
    a.epoch = 0;
    a.owned = 0;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    a.epoch = MEMBER_LEAVES;
    assert_int_equal(cm_beat(&a), KAFKA_NONE);
    assert_int_equal(((const struct kafka_delete_groups_resp *)client_ask(a.c, 42, 2, &d))->results[0].error_code, 0);
    world_crash(true);
    reconnect(&a);
    client_free(m.c);
    m.c = client_new(0);
    group_ready(a.c, "g");
    assert_int_equal(cm_describe(a.c, "g")->error_code, KAFKA_GROUP_ID_NOT_FOUND);
    assert_int_equal(tm_fetch(&m, "t", 0, true, NULL), -1);
    client_free(a.c);
    client_free(m.c);
    world_stop();
}

/* ---- many histories ------------------------------------------------------------------------------------------------------------ */

#define ACTORS 5
static uint32_t Seed;
static uint32_t chance(uint32_t n)
{
    Seed = Seed * 1664525u + 1013904223u;
    return (Seed >> 8) % n;
}

static struct cm A[ACTORS];
static uint32_t Lives;
static uint64_t Given;

static void actor_up(struct cm *m)
{
    char id[16];
    snprintf(id, sizeof id, "m%u", ++Lives);
    cm_init(m, chance(W.conf.shards), id);
}

/* The broker may give what a dead member had to others only after its session: so nobody takes its place meanwhile. */
static void actor_down(struct cm *m, bool leaves)
{
    if (leaves && !m->sent && m->epoch > 0 && !client_closed(m->c)) {
        m->epoch = MEMBER_LEAVES;
        cm_send(m);
        world_sleep(20);
    }
    client_free(m->c);
    m->c = NULL;
    m->owned = 0;
    m->sent = 0;
}

/* What it is told: it gives up first, then takes. No partition is ever with two. */
static void actor_told(struct cm *m)
{
    m->owned &= m->told;
    for (int i = 0; i < ACTORS; i++)
        if (&A[i] != m && A[i].c)
            assert_int_equal(A[i].owned & m->told, 0);
    Given += (uint64_t)bits(m->told & ~m->owned);
    m->owned = m->told;
}

static void actor_step(struct cm *m)
{
    if (!m->c)
        return;
    if (client_closed(m->c)) {
        client_free(m->c);
        m->c = client_new(chance(W.conf.shards));
        m->sent = 0;
        m->full = true;
        return;
    }
    if (!m->sent) {
        cm_send(m);
        return;
    }
    const struct kafka_consumer_group_heartbeat_resp *resp = client_try(m->c, m->sent);
    if (!resp)
        return;
    switch (cm_take(m, resp)) {
    case KAFKA_NONE: actor_told(m); break;
    case KAFKA_FENCED_MEMBER_EPOCH:
    case KAFKA_UNKNOWN_MEMBER_ID:
        m->owned = m->told = 0;
        m->epoch = 0;
        break;
    case KAFKA_NOT_COORDINATOR:
    case KAFKA_COORDINATOR_NOT_AVAILABLE:
    case KAFKA_COORDINATOR_LOAD_IN_PROGRESS: m->full = true; break;
    default: fail_msg("an actor is told %d", resp->error_code);
    }
}

static bool settled(void)
{
    uint32_t all = 0;
    int most = 0, least = PARTS;
    for (int i = 0; i < ACTORS; i++) {
        if (!A[i].c)
            continue;
        all |= A[i].owned;
        most = MAX(most, bits(A[i].owned));
        least = MIN(least, bits(A[i].owned));
    }
    return all == 0x3f && most - least <= 1;
}

static void history(uint64_t seed)
{
    Seed = (uint32_t)seed * 2654435761u + 1;
    world_start(&(struct world_conf){.seed = seed, .shards = 1 + (uint32_t)seed % 3, .tune = tune});
    T = world_topic("t", PARTS, NULL);
    struct client *c = client_new(0);
    group_ready(c, "g");
    for (int i = 0; i < ACTORS; i++)
        actor_up(&A[i]);
    for (int step = 0; step < 4000; step++) {
        struct cm *m = &A[chance(ACTORS)];
        switch (chance(200)) {
        case 0:
        case 1:
            if (m->c)
                actor_down(m, chance(5) != 0);
            break;
        case 2:
        case 3:
        case 4:
            if (!m->c)
                actor_up(m);
            break;
        case 5:
            if (chance(4) == 0)
                world_restart();
            break;
        case 6:
            if (chance(2) == 0)
                world_crash(chance(2) == 0);
            break;
        case 7:
            if (m->c) { /* its connection breaks */
                client_free(m->c);
                m->c = client_new(0);
                m->sent = 0;
                m->full = true;
            }
            break;
        default: break;
        }
        for (int i = 0; i < ACTORS; i++)
            actor_step(&A[i]);
        world_sleep(100);
    }
    for (int i = 0; i < ACTORS; i++)
        if (!A[i].c)
            actor_up(&A[i]);
    for (int i = 0; i < 1500 && !(i > 600 && settled()); i++) {
        for (int k = 0; k < ACTORS; k++)
            actor_step(&A[k]);
        world_sleep(100);
    }
    assert_true(settled());
    for (int i = 0; i < ACTORS; i++)
        client_free(A[i].c);
    world_stop();
}

static void test_histories(void **state)
{
    (void)state;
    uint64_t n = 15;
    const char *many = getenv("SEEDS");
    if (many)
        assert_int_equal(slice_u64(slice_cstr(many), UINT32_MAX, &n), OK);
    for (uint64_t seed = 1; seed <= n; seed++) {
        print_message("seed %u, %u so far\n", (unsigned)seed, (unsigned)Given);
        history(seed);
    }
    print_message("%u partitions given\n", (unsigned)Given);
    assert_true(Given > 30 * n); /* else nothing was tried */
}

int main(void)
{
    log_start(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),  cmocka_unit_test(test_fencing), cmocka_unit_test(test_static), cmocka_unit_test(test_time),
        cmocka_unit_test(test_rules), cmocka_unit_test(test_topics), cmocka_unit_test(test_restart), cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_owns_too_many), cmocka_unit_test(test_kinds_while_writing), cmocka_unit_test(test_histories),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_stop();
    return failed;
}
