/* offset_test.c - committed offsets and the administration of groups on the simulator: who may commit, what is read again, what goes when. */
#include "group_world_test.h"

#include <errno.h>
#include <stdio.h>

#define HOUR 3600000ull

static void tune(struct broker_conf *c) { c->idle_ms = 24 * (uint32_t)HOUR; } /* clients that sleep over a sweep stay */
static void start(uint32_t shards) { world_start(&(struct world_conf){.seed = 11, .shards = shards, .tune = tune}); }

static struct group *inside(const char *group)
{
    int32_t partition;
    struct shard *s = coordinator_of(W.broker->shards[0], OFFSETS_TOPIC, slice_cstr(group), &partition);
    struct group_part *gp = s->groups->parts[partition];
    return gp ? group_find(gp, slice_cstr(group)) : NULL;
}

static void reconnect(struct tm *m, uint32_t shard)
{
    client_free(m->c);
    m->c = client_new(shard);
}

/* ---- committing ------------------------------------------------------------------------------------------------------------- */

static void test_simple_consumer(void **state)
{
    (void)state;
    start(2);
    struct tm a;
    char metadata[5000];
    tm_init(&a, 0, "g");
    world_topic("t", 3, NULL);
    assert_int_equal(tm_commit(&a, "t", 0, 5, ""), KAFKA_NOT_COORDINATOR);
    group_ready(a.c, "g");
    assert_int_equal(tm_fetch(&a, "t", 0, true, metadata), -1);
    assert_string_equal(metadata, "");
    assert_int_equal(tm_fetch(&a, "none", 0, false, NULL), -1);
    assert_int_equal(tm_commit(&a, "t", 0, 5, "me"), KAFKA_NONE);
    assert_int_equal(tm_commit(&a, "t", 2, 0, NULL), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, false, metadata), 5);
    assert_string_equal(metadata, "me");
    assert_int_equal(tm_fetch(&a, "t", 1, false, metadata), -1);
    assert_int_equal(tm_fetch(&a, "t", 2, false, metadata), 0);
    assert_int_equal(tm_commit(&a, "t", 0, 3, ""), KAFKA_NONE); /* back, too */
    assert_int_equal(tm_fetch(&a, "t", 0, false, metadata), 3);
    assert_string_equal(tm_state(a.c, "g"), "Empty");
    assert_int_equal(tm_commit(&a, "t", 3, 5, ""), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(tm_commit(&a, "t", -1, 5, ""), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(tm_commit(&a, "none", 0, 5, ""), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    char big[OFFSET_METADATA_MAX + 2];
    memset(big, 'x', sizeof big);
    big[OFFSET_METADATA_MAX + 1] = '\0';
    assert_int_equal(tm_commit(&a, "t", 0, 6, big), KAFKA_OFFSET_METADATA_TOO_LARGE);
    assert_int_equal(counter_read(&W.broker->shards[0]->groups->count.limit_offset_metadata), 1);
    big[OFFSET_METADATA_MAX] = '\0';
    assert_int_equal(tm_commit(&a, "t", 0, 6, big), KAFKA_NONE);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tm_fetch(&a, "t", 0, false, metadata), 6);
        assert_string_equal(metadata, big);
        world_crash(i == 1);
        reconnect(&a, 1);
        group_ready(a.c, "g");
    }
    a.generation = 1; /* nobody's generation */
    assert_int_equal(tm_commit(&a, "t", 0, 7, ""), KAFKA_UNKNOWN_MEMBER_ID);
    a.group = "other";
    assert_int_equal(tm_commit(&a, "t", 0, 7, ""), KAFKA_ILLEGAL_GENERATION);
    assert_null(inside("other"));
    tm_free(&a);
    world_stop();
}

static void test_members_commit(void **state)
{
    (void)state;
    start(1);
    struct tm a, none;
    tm_init(&a, 0, "g");
    tm_init(&none, 0, "g");
    world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    assert_int_equal(tm_enter(&a), KAFKA_NONE);
    assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_REBALANCE_IN_PROGRESS); /* Completing */
    assert_int_equal(tm_commit(&none, "t", 0, 1, ""), KAFKA_UNKNOWN_MEMBER_ID);
    struct tm *all[] = {&a};
    assert_int_equal(tm_sync(&a, all, (const char *[]){"x"}, 1), KAFKA_NONE);
    assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_NONE);
    a.generation++;
    assert_int_equal(tm_commit(&a, "t", 0, 2, ""), KAFKA_ILLEGAL_GENERATION);
    a.generation--;
    assert_int_equal(tm_commit(&none, "t", 0, 2, ""), KAFKA_UNKNOWN_MEMBER_ID);
    snprintf(none.id, sizeof none.id, "somebody");
    assert_int_equal(tm_commit(&none, "t", 0, 2, ""), KAFKA_UNKNOWN_MEMBER_ID);
    none.id[0] = '\0';
    assert_int_equal(tm_join(&none), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&none);
    world_sleep(50);
    assert_int_equal(tm_commit(&a, "t", 0, 3, ""), KAFKA_NONE); /* Preparing: what it had worked on counts */
    for (int i = 0; i < 3; i++) { /* and it lives by that */
        world_sleep(6000);
        assert_int_equal(tm_commit(&a, "t", 0, 4 + i, ""), KAFKA_NONE);
    }
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), 6);
    tm_free(&a);
    tm_free(&none);
    world_stop();
}

/* ---- reading in every version ------------------------------------------------------------------------------------------------- */

/* One group in a request, up to version 7. */
static void fetch_one_group(struct client *c)
{
    struct kafka_offset_fetch_req q;
    struct kafka_offset_fetch_req_offset_fetch_request_topic t;
    int32_t parts[] = {1, 0, 7};
    for (int16_t v = 1; v <= 7; v++) {
        kafka_offset_fetch_req_init(&q);
        q.group_id = SLICE("g");
        q.topics = &t;
        q.topics_n = 1;
        t = (struct kafka_offset_fetch_req_offset_fetch_request_topic){.name = SLICE("t"), .partition_indexes = parts, .partition_indexes_n = 3};
        const struct kafka_offset_fetch_resp *resp = client_ask(c, KEY_OFFSET_FETCH, v, &q);
        assert_int_equal(resp->error_code, 0);
        assert_int_equal(resp->topics_n, 1);
        const struct kafka_offset_fetch_resp_offset_fetch_response_partition *p = resp->topics[0].partitions;
        assert_int_equal(p[0].committed_offset, 8);
        assert_true(slice_is(p[0].metadata, "mt"));
        assert_int_equal(p[0].committed_leader_epoch, v >= 5 ? 3 : -1);
        assert_int_equal(p[1].committed_offset, -1);
        assert_int_equal(p[2].committed_offset, -1);
        assert_int_equal(p[2].error_code, 0);
        if (v < 2)
            continue;
        q.topics_n = -1; /* all */
        resp = client_ask(c, KEY_OFFSET_FETCH, v, &q);
        assert_int_equal(resp->topics_n, 2);
        assert_true(slice_is(resp->topics[0].name, "t") && slice_is(resp->topics[1].name, "u"));
        assert_int_equal(resp->topics[0].partitions_n, 1);
        assert_int_equal(resp->topics[1].partitions[0].committed_offset, 9);
        q.topics_n = 0; /* none */
        resp = client_ask(c, KEY_OFFSET_FETCH, v, &q);
        assert_int_equal(resp->topics_n, 0);
    }
}

/* Several groups in a request, and topics by their ids, in version 10. */
static void fetch_groups(struct client *c, struct kafka_uuid id)
{
    struct kafka_offset_fetch_req q;
    struct kafka_offset_fetch_req_offset_fetch_request_group groups[3];
    struct kafka_offset_fetch_req_offset_fetch_request_topics topics[2];
    int32_t parts[] = {1};
    kafka_offset_fetch_req_init(&q);
    q.groups = groups;
    q.groups_n = 3;
    for (int i = 0; i < 3; i++) {
        kafka_offset_fetch_req_offset_fetch_request_group_init(&groups[i]);
        groups[i].group_id = i == 1 ? SLICE("h") : SLICE("g");
        groups[i].topics_n = -1;
    }
    kafka_offset_fetch_req_offset_fetch_request_topics_init(&topics[0]);
    kafka_offset_fetch_req_offset_fetch_request_topics_init(&topics[1]);
    topics[0].topic_id = id;
    topics[0].partition_indexes = parts;
    topics[0].partition_indexes_n = 1;
    memset(topics[1].topic_id.b, 9, 16);
    topics[1].partition_indexes = parts;
    topics[1].partition_indexes_n = 1;
    groups[2].topics = topics;
    groups[2].topics_n = 2;
    const struct kafka_offset_fetch_resp *resp = client_ask(c, KEY_OFFSET_FETCH, 10, &q);
    assert_int_equal(resp->groups_n, 3);
    assert_int_equal(resp->groups[0].topics_n, 2);
    assert_memory_equal(resp->groups[0].topics[0].topic_id.b, id.b, 16);
    assert_true(slice_is(resp->groups[1].group_id, "h"));
    assert_int_equal(resp->groups[1].topics_n, 0);
    assert_int_equal(resp->groups[2].topics[0].partitions[0].committed_offset, 8);
    assert_int_equal(resp->groups[2].topics[1].partitions[0].error_code, KAFKA_UNKNOWN_TOPIC_ID);
    assert_int_equal(resp->groups[2].topics[1].partitions[0].committed_offset, -1);
}

static void test_fetch_versions(void **state)
{
    (void)state;
    start(2);
    struct tm a;
    tm_init(&a, 1, "g");
    struct kafka_uuid id = world_topic("t", 2, NULL);
    world_topic("u", 1, NULL);
    group_ready(a.c, "g");
    group_ready(a.c, "h");
    assert_int_equal(tm_commit(&a, "u", 0, 9, "mu"), KAFKA_NONE);
    assert_int_equal(tm_commit(&a, "t", 1, 8, "mt"), KAFKA_NONE);
    fetch_one_group(a.c);
    fetch_groups(a.c, id);
    tm_free(&a);
    world_stop();
}

/* By topic id (KIP-848's version 10), and several topics in one request: each has its own error. */
static void test_commit_by_id(void **state)
{
    (void)state;
    start(1);
    struct tm a;
    tm_init(&a, 0, "g");
    struct kafka_uuid id = world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    struct kafka_offset_commit_req q;
    struct kafka_offset_commit_req_offset_commit_request_topic t[2];
    struct kafka_offset_commit_req_offset_commit_request_partition p;
    kafka_offset_commit_req_init(&q);
    kafka_offset_commit_req_offset_commit_request_partition_init(&p);
    q.group_id = SLICE("g");
    q.topics = t;
    q.topics_n = 2;
    p.committed_offset = 44;
    for (int i = 0; i < 2; i++) {
        kafka_offset_commit_req_offset_commit_request_topic_init(&t[i]);
        t[i].partitions = &p;
        t[i].partitions_n = 1;
    }
    memset(t[0].topic_id.b, 7, 16);
    t[1].topic_id = id;
    const struct kafka_offset_commit_resp *resp = client_ask(a.c, KEY_OFFSET_COMMIT, 10, &q);
    assert_int_equal(resp->topics[0].partitions[0].error_code, KAFKA_UNKNOWN_TOPIC_ID);
    assert_int_equal(resp->topics[1].partitions[0].error_code, 0);
    assert_memory_equal(resp->topics[1].topic_id.b, id.b, 16);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 44);
    tm_free(&a);
    world_stop();
}

/* ---- transactions --------------------------------------------------------------------------------------------------------------- */

struct producer {
    struct client *c;
    const char *id;
    int64_t producer_id;
    int16_t epoch;
};

/* Asked again while the coordinator is not there yet, or ends the last transaction. */
static bool again(int16_t e)
{
    world_sleep(50);
    return e == KAFKA_COORDINATOR_NOT_AVAILABLE || e == KAFKA_NOT_COORDINATOR || e == KAFKA_COORDINATOR_LOAD_IN_PROGRESS || e == KAFKA_CONCURRENT_TRANSACTIONS;
}

static void producer_init(struct producer *p)
{
    struct kafka_find_coordinator_req f;
    struct kafka_init_producer_id_req q;
    const struct kafka_init_producer_id_resp *resp;
    kafka_find_coordinator_req_init(&f);
    kafka_init_producer_id_req_init(&q);
    f.key = q.transactional_id = slice_cstr(p->id);
    f.key_type = 1;
    q.transaction_timeout_ms = 60000;
    while (again(((const struct kafka_find_coordinator_resp *)client_ask(p->c, KEY_FIND_COORDINATOR, 1, &f))->error_code))
        ;
    do
        resp = client_ask(p->c, KEY_INIT_PRODUCER_ID, 2, &q);
    while (again(resp->error_code));
    assert_int_equal(resp->error_code, 0);
    p->producer_id = resp->producer_id;
    p->epoch = resp->producer_epoch;
}

static void producer_begin(struct producer *p, const char *group)
{
    struct kafka_add_offsets_to_txn_req q;
    const struct kafka_add_offsets_to_txn_resp *resp;
    kafka_add_offsets_to_txn_req_init(&q);
    q.transactional_id = slice_cstr(p->id);
    q.producer_id = p->producer_id;
    q.producer_epoch = p->epoch;
    q.group_id = slice_cstr(group);
    do
        resp = client_ask(p->c, KEY_ADD_OFFSETS_TO_TXN, 2, &q);
    while (again(resp->error_code));
    assert_int_equal(resp->error_code, 0);
}

static enum kafka_error producer_commit(struct producer *p, const struct tm *m, const char *topic, int64_t offset)
{
    struct kafka_txn_offset_commit_req q;
    struct kafka_txn_offset_commit_req_txn_offset_commit_request_topic t;
    struct kafka_txn_offset_commit_req_txn_offset_commit_request_partition part;
    kafka_txn_offset_commit_req_init(&q);
    kafka_txn_offset_commit_req_txn_offset_commit_request_topic_init(&t);
    kafka_txn_offset_commit_req_txn_offset_commit_request_partition_init(&part);
    q.transactional_id = slice_cstr(p->id);
    q.group_id = slice_cstr(m->group);
    q.producer_id = p->producer_id;
    q.producer_epoch = p->epoch;
    q.generation_id = m->generation;
    q.member_id = slice_cstr(m->id);
    q.topics = &t;
    q.topics_n = 1;
    t.name = slice_cstr(topic);
    t.partitions = &part;
    t.partitions_n = 1;
    part.committed_offset = offset;
    part.committed_metadata = SLICE("txn");
    const struct kafka_txn_offset_commit_resp *resp = client_ask(p->c, KEY_TXN_OFFSET_COMMIT, 3, &q);
    return (enum kafka_error)resp->topics[0].partitions[0].error_code;
}

static enum kafka_error producer_end(struct producer *p, bool commit)
{
    struct kafka_end_txn_req q;
    const struct kafka_end_txn_resp *resp;
    kafka_end_txn_req_init(&q);
    q.transactional_id = slice_cstr(p->id);
    q.producer_id = p->producer_id;
    q.producer_epoch = p->epoch;
    q.committed = commit;
    do
        resp = client_ask(p->c, KEY_END_TXN, 2, &q);
    while (again(resp->error_code));
    world_sleep(500); /* the markers */
    return (enum kafka_error)resp->error_code;
}

#define UNSTABLE (-100 - KAFKA_UNSTABLE_OFFSET_COMMIT)

/* Members of a group: who is not one is refused (KIP-447), and a producer that begins anew fences itself, which aborts what was open. */
static void txn_of_members(struct producer *q, struct tm *a)
{
    tm_settle(a, 1);
    producer_begin(q, "g");
    a->generation++;
    assert_int_equal(producer_commit(q, a, "t", 17), KAFKA_ILLEGAL_GENERATION);
    a->generation--;
    assert_int_equal(producer_commit(q, a, "t", 17), KAFKA_NONE);
    q->epoch--;
    assert_true(producer_commit(q, a, "t", 18) != KAFKA_NONE);
    q->epoch++;
    producer_init(q);
    world_sleep(500);
    assert_int_equal(tm_fetch(a, "t", 0, true, NULL), 16);
}

static void test_txn(void **state)
{
    (void)state;
    start(3);
    struct tm a, simple;
    struct producer p = {.c = client_new(2), .id = "txn"}, q = {.c = client_new(0), .id = "other"};
    tm_init(&a, 0, "g");
    tm_init(&simple, 1, "g");
    world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    producer_init(&p);
    producer_init(&q);
    assert_int_equal(tm_commit(&simple, "t", 0, 10, ""), KAFKA_NONE);
    assert_int_equal(producer_commit(&p, &simple, "t", 11), KAFKA_INVALID_TXN_STATE); /* the group is not in a transaction of its */
    producer_begin(&p, "g");
    assert_int_equal(producer_commit(&p, &simple, "t", 11), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 10);
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), UNSTABLE);
    assert_int_equal(producer_commit(&p, &simple, "t", 12), KAFKA_NONE);
    assert_int_equal(producer_end(&p, true), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), 12);
    producer_begin(&p, "g"); /* aborted */
    assert_int_equal(producer_commit(&p, &simple, "t", 13), KAFKA_NONE);
    assert_int_equal(producer_end(&p, false), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), 12);
    producer_begin(&p, "g"); /* a later commit outside of it stays */
    assert_int_equal(producer_commit(&p, &simple, "t", 14), KAFKA_NONE);
    assert_int_equal(tm_commit(&simple, "t", 0, 15, ""), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 15);
    producer_begin(&q, "g"); /* two at once */
    assert_int_equal(producer_commit(&q, &simple, "t", 16), KAFKA_NONE);
    assert_int_equal(producer_end(&p, true), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), UNSTABLE);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 15);
    for (int i = 0; i < 2; i++) { /* pending outlives restarts and power failures */
        world_crash(i == 1);
        reconnect(&a, 1);
        reconnect(&simple, 1);
        client_free(q.c);
        q.c = client_new(0);
        group_ready(a.c, "g");
        assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), UNSTABLE);
        assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 15);
    }
    assert_int_equal(producer_end(&q, true), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), 16);
    world_restart();
    reconnect(&a, 1);
    client_free(q.c);
    q.c = client_new(0);
    group_ready(a.c, "g");
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), 16);
    txn_of_members(&q, &a);
    client_free(p.c);
    client_free(q.c);
    tm_free(&a);
    tm_free(&simple);
    world_stop();
}

/* The group, or the topic, goes while a transaction is open. */
static void test_txn_gone(void **state)
{
    (void)state;
    start(2);
    struct tm a;
    struct producer p = {.c = client_new(0), .id = "txn"};
    tm_init(&a, 1, "g");
    world_topic("t", 1, NULL);
    world_topic("u", 1, NULL);
    group_ready(a.c, "g");
    producer_init(&p);
    producer_begin(&p, "g");
    assert_int_equal(producer_commit(&p, &a, "t", 1), KAFKA_NONE);
    assert_int_equal(producer_commit(&p, &a, "u", 2), KAFKA_NONE);
    world_topic_delete("t");
    world_topic("t", 1, NULL);
    assert_int_equal(producer_end(&p, true), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), -1); /* that topic is another one */
    assert_int_equal(tm_fetch(&a, "u", 0, true, NULL), 2);
    producer_begin(&p, "g");
    assert_int_equal(producer_commit(&p, &a, "u", 3), KAFKA_NONE);
    struct slice id = SLICE("g");
    struct kafka_delete_groups_req q;
    kafka_delete_groups_req_init(&q);
    q.groups_names = &id;
    q.groups_names_n = 1;
    const struct kafka_delete_groups_resp *resp = client_ask(a.c, 42, 2, &q);
    assert_int_equal(resp->results[0].error_code, 0);
    assert_int_equal(producer_end(&p, true), KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "u", 0, true, NULL), -1);
    world_restart();
    reconnect(&a, 0);
    group_ready(a.c, "g");
    assert_int_equal(tm_fetch(&a, "t", 0, true, NULL), -1);
    assert_int_equal(tm_fetch(&a, "u", 0, true, NULL), -1);
    client_free(p.c);
    tm_free(&a);
    world_stop();
}

/* ---- what goes --------------------------------------------------------------------------------------------------------------------- */

static void test_topic_deleted(void **state)
{
    (void)state;
    start(2);
    struct tm a;
    tm_init(&a, 0, "g");
    world_topic("t", 1, NULL);
    world_topic("u", 1, NULL);
    group_ready(a.c, "g");
    assert_int_equal(tm_commit(&a, "t", 0, 5, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&a, "u", 0, 6, ""), KAFKA_NONE);
    world_topic_delete("t");
    world_sleep(200);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), -1);
    world_topic("t", 1, NULL); /* another one of that name */
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), -1);
    assert_int_equal(tm_fetch(&a, "u", 0, false, NULL), 6);
    world_restart();
    reconnect(&a, 1);
    group_ready(a.c, "g");
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), -1);
    assert_int_equal(tm_fetch(&a, "u", 0, false, NULL), 6);
    tm_free(&a);
    world_stop();
}

static void sweep(uint64_t hours)
{
    sim_clock_jump((int64_t)(hours * HOUR));
    world_sleep(GROUP_SWEEP_MS + 1000);
}

static void test_retention(void **state)
{
    (void)state;
    start(1);
    struct tm simple, was, is;
    tm_init(&simple, 0, "simple");
    tm_init(&was, 0, "was");
    tm_init(&is, 0, "is");
    is.session_ms = was.session_ms = 1800000;
    is.topics = was.topics = "t";
    world_topic("t", 2, NULL);
    world_topic("u", 1, NULL);
    group_ready(simple.c, "simple");
    group_ready(simple.c, "was");
    group_ready(simple.c, "is");
    tm_settle(&was, 1);
    tm_settle(&is, 1);
    assert_int_equal(tm_commit(&simple, "t", 0, 1, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&was, "t", 0, 2, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&is, "t", 0, 3, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&is, "u", 0, 4, ""), KAFKA_NONE);
    sweep(6 * 24);
    assert_int_equal(tm_commit(&simple, "t", 1, 5, ""), KAFKA_NONE);
    assert_int_equal(tm_heartbeat(&is), KAFKA_NONE);
    assert_int_equal(tm_leave(&was), KAFKA_NONE); /* its seven days begin */
    sweep(2 * 24);
    assert_int_equal(tm_fetch(&simple, "t", 0, false, NULL), -1);
    assert_int_equal(tm_fetch(&simple, "t", 1, false, NULL), 5);
    assert_int_equal(tm_fetch(&was, "t", 0, false, NULL), 2);
    assert_int_equal(tm_heartbeat(&is), KAFKA_NONE);
    assert_int_equal(tm_fetch(&is, "t", 0, false, NULL), 3);  /* subscribed */
    assert_int_equal(tm_fetch(&is, "u", 0, false, NULL), -1); /* not any more */
    for (int i = 0; i < 2; i++) {
        sweep(0);
        assert_int_equal(tm_heartbeat(&is), KAFKA_NONE);
    }
    sweep(5 * 24);
    assert_int_equal(tm_heartbeat(&is), KAFKA_NONE);
    assert_int_equal(tm_fetch(&was, "t", 0, false, NULL), -1);
    assert_null(inside("was"));
    assert_non_null(inside("is"));
    sweep(2 * 24);
    assert_null(inside("simple"));
    world_restart(); /* the tombstones are there, too */
    reconnect(&is, 0);
    group_ready(is.c, "is");
    assert_null(inside("was"));
    assert_null(inside("simple"));
    assert_int_equal(tm_fetch(&is, "t", 0, false, NULL), 3);
    assert_int_equal(tm_fetch(&is, "u", 0, false, NULL), -1);
    tm_free(&simple);
    tm_free(&was);
    tm_free(&is);
    world_stop();
}

/* The client's own retention (OffsetCommit 2 to 4). */
static void test_own_retention(void **state)
{
    (void)state;
    start(1);
    struct tm a;
    tm_init(&a, 0, "g");
    world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    struct kafka_offset_commit_req q;
    struct kafka_offset_commit_req_offset_commit_request_topic t;
    struct kafka_offset_commit_req_offset_commit_request_partition p;
    kafka_offset_commit_req_init(&q);
    kafka_offset_commit_req_offset_commit_request_topic_init(&t);
    kafka_offset_commit_req_offset_commit_request_partition_init(&p);
    q.group_id = SLICE("g");
    q.retention_time_ms = 2 * (int64_t)HOUR;
    q.topics = &t;
    q.topics_n = 1;
    t.name = SLICE("t");
    t.partitions = &p;
    t.partitions_n = 1;
    p.committed_offset = 12;
    const struct kafka_offset_commit_resp *resp = client_ask(a.c, KEY_OFFSET_COMMIT, 2, &q);
    assert_int_equal(resp->topics[0].partitions[0].error_code, 0);
    world_restart();
    reconnect(&a, 0);
    group_ready(a.c, "g");
    sweep(1);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 12);
    sweep(1);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), -1);
    q.retention_time_ms = INT64_MAX; /* for good */
    resp = client_ask(a.c, KEY_OFFSET_COMMIT, 2, &q);
    assert_int_equal(resp->topics[0].partitions[0].error_code, 0);
    sweep(30 * 24);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 12);
    tm_free(&a);
    world_stop();
}

/* ---- administration ------------------------------------------------------------------------------------------------------------------ */

static bool listed(const struct kafka_list_groups_resp *resp, const char *group, const char *state)
{
    for (int32_t i = 0; i < resp->groups_n; i++)
        if (slice_is(resp->groups[i].group_id, group))
            return slice_is(resp->groups[i].group_state, state);
    return false;
}

static void test_list(void **state)
{
    (void)state;
    start(3);
    struct tm m[6];
    char names[6][8];
    world_topic("t", 1, NULL);
    for (int i = 0; i < 6; i++) {
        snprintf(names[i], sizeof names[i], "g%d", i);
        tm_init(&m[i], (uint32_t)i % 3, names[i]);
        group_ready(m[i].c, names[i]);
        if (i < 3)
            tm_settle(&m[i], 1);
        else
            assert_int_equal(tm_commit(&m[i], "t", 0, i, ""), KAFKA_NONE);
    }
    struct kafka_list_groups_req q;
    kafka_list_groups_req_init(&q);
    const struct kafka_list_groups_resp *resp = client_ask(m[0].c, KEY_LIST_GROUPS, 5, &q);
    assert_int_equal(resp->error_code, 0);
    assert_int_equal(resp->groups_n, 6);
    for (int i = 0; i < 6; i++)
        assert_true(listed(resp, names[i], i < 3 ? "Stable" : "Empty"));
    assert_true(slice_is(resp->groups[0].group_type, "classic"));
    struct slice want = SLICE("stable");
    q.states_filter = &want;
    q.states_filter_n = 1;
    resp = client_ask(m[0].c, KEY_LIST_GROUPS, 4, &q);
    assert_int_equal(resp->groups_n, 3);
    assert_true(slice_is(resp->groups[0].protocol_type, "consumer"));
    q.types_filter = &want;
    q.types_filter_n = 1;
    resp = client_ask(m[0].c, KEY_LIST_GROUPS, 5, &q);
    assert_int_equal(resp->groups_n, 0);
    struct kafka_describe_groups_req d; /* of groups on every shard, and one that is not there */
    struct slice ids[] = {SLICE("g4"), SLICE("g0"), SLICE("none"), SLICE("g1")};
    kafka_describe_groups_req_init(&d);
    d.groups = ids;
    d.groups_n = 4;
    const struct kafka_describe_groups_resp *told = client_ask(m[1].c, KEY_DESCRIBE_GROUPS, 5, &d);
    assert_int_equal(told->groups_n, 4);
    assert_true(slice_is(told->groups[0].group_state, "Empty") && slice_is(told->groups[1].group_state, "Stable"));
    assert_true(slice_is(told->groups[2].group_state, "Dead") && told->groups[2].error_code == 0);
    assert_int_equal(told->groups[3].members_n, 1);
    told = client_ask(m[1].c, KEY_DESCRIBE_GROUPS, 6, &d);
    assert_int_equal(told->groups[2].error_code, KAFKA_GROUP_ID_NOT_FOUND);
    for (int i = 0; i < 6; i++)
        tm_free(&m[i]);
    world_stop();
}

/* What a request names again is not told again: an answer is not larger than what there is. */
static void test_named_twice(void **state)
{
    (void)state;
    start(2);
    struct tm m, s;
    world_topic("t", 1, NULL);
    tm_init(&m, 0, "g");
    tm_init(&s, 1, "h");
    group_ready(m.c, "g");
    group_ready(m.c, "h");
    tm_settle(&m, 1);
    assert_int_equal(tm_commit(&s, "t", 0, 7, "meta"), KAFKA_NONE);
    struct kafka_describe_groups_req d;
    struct slice ids[] = {SLICE("g"), SLICE("h"), SLICE("g"), SLICE("g")};
    kafka_describe_groups_req_init(&d);
    d.groups = ids;
    d.groups_n = 4;
    const struct kafka_describe_groups_resp *told = client_ask(m.c, KEY_DESCRIBE_GROUPS, 5, &d);
    assert_int_equal(told->groups[0].members_n, 1);
    assert_int_equal(told->groups[1].error_code, 0);
    for (int i = 2; i < 4; i++) {
        assert_int_equal(told->groups[i].error_code, KAFKA_INVALID_REQUEST);
        assert_int_equal(told->groups[i].members_n, 0);
    }
    struct kafka_offset_fetch_req q;
    int32_t numbers[] = {0, 0};
    struct kafka_offset_fetch_req_offset_fetch_request_topics topic;
    struct kafka_offset_fetch_req_offset_fetch_request_group groups[4];
    kafka_offset_fetch_req_init(&q);
    kafka_offset_fetch_req_offset_fetch_request_topics_init(&topic);
    topic.name = SLICE("t");
    topic.partition_indexes = numbers;
    topic.partition_indexes_n = 2;
    for (int i = 0; i < 4; i++) {
        kafka_offset_fetch_req_offset_fetch_request_group_init(&groups[i]);
        groups[i].group_id = i == 1 ? SLICE("g") : SLICE("h");
        groups[i].topics = i == 0 ? &topic : NULL;
        groups[i].topics_n = i == 0 ? 1 : -1; /* all */
    }
    q.groups = groups;
    q.groups_n = 4;
    const struct kafka_offset_fetch_resp *fetched = client_ask(m.c, KEY_OFFSET_FETCH, 8, &q);
    const struct kafka_offset_fetch_resp_offset_fetch_response_partitions *p = fetched->groups[0].topics[0].partitions;
    assert_int_equal(p[0].committed_offset, 7);
    assert_true(slice_is(p[0].metadata, "meta"));
    assert_int_equal(p[1].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(p[1].metadata.n, 0);
    assert_int_equal(fetched->groups[1].error_code, 0);
    assert_int_equal(fetched->groups[2].topics_n, 1);
    assert_int_equal(fetched->groups[3].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(fetched->groups[3].topics_n, 0);
    struct kafka_list_groups_req l;
    kafka_list_groups_req_init(&l);
    l.states_filter_n = FILTER_ITEMS_MAX + 1;
    l.states_filter = arena_zalloc(client_arena(s.c), (size_t)l.states_filter_n * sizeof *l.states_filter);
    for (int32_t i = 0; i < l.states_filter_n; i++)
        l.states_filter[i] = SLICE("Stable");
    client_send_silent(s.c, KEY_LIST_GROUPS, 5, &l);
    client_await_close(s.c);
    tm_free(&m);
    tm_free(&s);
    world_stop();
}

static void test_delete_groups(void **state)
{
    (void)state;
    start(2);
    struct tm a, b;
    tm_init(&a, 0, "a");
    tm_init(&b, 1, "b");
    world_topic("t", 2, NULL);
    group_ready(a.c, "a");
    group_ready(a.c, "b");
    tm_settle(&a, 1);
    assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&b, "t", 0, 2, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&b, "t", 1, 3, ""), KAFKA_NONE);
    struct slice ids[] = {SLICE("a"), SLICE("b"), SLICE("none"), SLICE("")};
    struct kafka_delete_groups_req q;
    kafka_delete_groups_req_init(&q);
    q.groups_names = ids;
    q.groups_names_n = 4;
    const struct kafka_delete_groups_resp *resp = client_ask(a.c, 42, 2, &q);
    assert_int_equal(resp->results_n, 4);
    assert_int_equal(resp->results[0].error_code, KAFKA_NON_EMPTY_GROUP);
    assert_int_equal(resp->results[1].error_code, 0);
    assert_int_equal(resp->results[2].error_code, KAFKA_GROUP_ID_NOT_FOUND);
    assert_int_equal(resp->results[3].error_code, KAFKA_INVALID_GROUP_ID);
    assert_null(inside("b"));
    assert_int_equal(tm_fetch(&b, "t", 1, false, NULL), -1);
    assert_int_equal(tm_leave(&a), KAFKA_NONE);
    q.groups_names_n = 1;
    resp = client_ask(a.c, 42, 2, &q);
    assert_int_equal(resp->results[0].error_code, 0);
    world_crash(true);
    reconnect(&a, 0);
    reconnect(&b, 1);
    group_ready(a.c, "a");
    group_ready(a.c, "b");
    assert_null(inside("a"));
    assert_null(inside("b"));
    assert_int_equal(tm_fetch(&b, "t", 1, false, NULL), -1);
    tm_free(&a);
    tm_free(&b);
    world_stop();
}

static const struct kafka_offset_delete_resp *offset_delete_ask(struct client *c, const char *group, const char *topic, int32_t partition)
{
    static struct kafka_offset_delete_req q;
    static struct kafka_offset_delete_req_offset_delete_request_topic t;
    static struct kafka_offset_delete_req_offset_delete_request_partition p;
    kafka_offset_delete_req_init(&q);
    q.group_id = slice_cstr(group);
    q.topics = &t;
    q.topics_n = 1;
    t.name = slice_cstr(topic);
    t.partitions = &p;
    t.partitions_n = 1;
    p.partition_index = partition;
    return client_ask(c, 47, 0, &q);
}

/* Topics named again, one that is not there between them; and more than a request may name. */
static void offset_delete_many(struct tm *a)
{
    struct kafka_offset_delete_req q;
    struct kafka_offset_delete_req_offset_delete_request_topic topics[3];
    struct kafka_offset_delete_req_offset_delete_request_partition p[2] = {{.partition_index = 0}, {.partition_index = 7}};
    kafka_offset_delete_req_init(&q);
    q.group_id = SLICE("g");
    q.topics = topics;
    q.topics_n = 3;
    for (int i = 0; i < 3; i++)
        topics[i] = (struct kafka_offset_delete_req_offset_delete_request_topic){.name = i == 1 ? SLICE("none") : SLICE("t"), .partitions = p, .partitions_n = 2};
    const struct kafka_offset_delete_resp *resp = client_ask(a->c, 47, 0, &q);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(resp->topics[i].partitions[0].error_code, i == 1 ? KAFKA_UNKNOWN_TOPIC_OR_PARTITION : KAFKA_GROUP_SUBSCRIBED_TO_TOPIC);
        assert_int_equal(resp->topics[i].partitions[1].error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    }
    struct client *c = client_new(1);
    q.topics_n = 1;
    topics[0].partitions_n = NAMED_ITEMS_MAX;
    topics[0].partitions = arena_zalloc(client_arena(c), NAMED_ITEMS_MAX * sizeof *topics[0].partitions);
    client_send_silent(c, 47, 0, &q);
    client_await_close(c);
    client_free(c);
}

static void test_offset_delete(void **state)
{
    (void)state;
    start(2);
    struct tm a;
    tm_init(&a, 0, "g");
    a.topics = "t";
    world_topic("t", 1, NULL);
    world_topic("u", 1, NULL);
    group_ready(a.c, "g");
    assert_int_equal(offset_delete_ask(a.c, "g", "t", 0)->error_code, KAFKA_GROUP_ID_NOT_FOUND);
    tm_settle(&a, 1);
    assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_NONE);
    assert_int_equal(tm_commit(&a, "u", 0, 2, ""), KAFKA_NONE);
    assert_int_equal(offset_delete_ask(a.c, "g", "t", 0)->topics[0].partitions[0].error_code, KAFKA_GROUP_SUBSCRIBED_TO_TOPIC);
    assert_int_equal(offset_delete_ask(a.c, "g", "u", 5)->topics[0].partitions[0].error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    offset_delete_many(&a);
    assert_int_equal(tm_fetch(&a, "u", 0, false, NULL), 2);
    assert_int_equal(offset_delete_ask(a.c, "g", "u", 0)->topics[0].partitions[0].error_code, 0);
    assert_int_equal(tm_fetch(&a, "u", 0, false, NULL), -1);
    assert_int_equal(tm_leave(&a), KAFKA_NONE);
    assert_int_equal(offset_delete_ask(a.c, "g", "t", 0)->topics[0].partitions[0].error_code, 0);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), -1);
    a.generation = -1;
    a.id[0] = '\0';
    assert_int_equal(tm_commit(&a, "u", 0, 3, ""), KAFKA_NONE);
    world_restart();
    reconnect(&a, 0);
    group_ready(a.c, "g");
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), -1);
    assert_int_equal(tm_fetch(&a, "u", 0, false, NULL), 3);
    tm_free(&a);
    world_stop();
}

/* ---- metrics, limits --------------------------------------------------------------------------------------------------------------------- */

static void test_metrics(void **state)
{
    (void)state;
    start(2);
    struct tm a;
    struct buf text = {0};
    tm_init(&a, 0, "g");
    world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    tm_settle(&a, 1);
    assert_int_equal(tm_commit(&a, "t", 0, 0, ""), KAFKA_NONE);
    for (int i = 0; i < 4; i++) {
        world_sleep(3000);
        assert_int_equal(tm_heartbeat(&a), KAFKA_NONE);
    }
    groups_module.metrics(W.broker, &text);
    assert_non_null(strstr(text.p, "weir_kafka_group_members{group=\"g\"} 1\n"));
    assert_non_null(strstr(text.p, "weir_kafka_group_state{group=\"g\",state=\"Stable\"} 1\n"));
    assert_non_null(strstr(text.p, "weir_kafka_group_lag{group=\"g\",topic=\"t\",partition=\"0\"} 0\n"));
    assert_non_null(strstr(text.p, "weir_kafka_groups 1\n"));
    buf_free(&text);
    tm_free(&a);
    world_stop();
}

/* A commit that is too large for one batch. */
static void test_batch_limit(void **state)
{
    (void)state;
    start(1);
    struct tm a;
    tm_init(&a, 0, "g");
    world_topic("t", 2100, NULL);
    group_ready(a.c, "g");
    struct kafka_offset_commit_req q;
    struct kafka_offset_commit_req_offset_commit_request_topic t;
    struct kafka_offset_commit_req_offset_commit_request_partition *p = mem_new(MEM_SIM, 2100 * sizeof *p);
    char big[OFFSET_METADATA_MAX];
    memset(big, 'x', sizeof big);
    kafka_offset_commit_req_init(&q);
    kafka_offset_commit_req_offset_commit_request_topic_init(&t);
    q.group_id = SLICE("g");
    q.topics = &t;
    q.topics_n = 1;
    t.name = SLICE("t");
    t.partitions = p;
    t.partitions_n = 2100;
    for (int32_t i = 0; i < 2100; i++) {
        kafka_offset_commit_req_offset_commit_request_partition_init(&p[i]);
        p[i].partition_index = i;
        p[i].committed_offset = i;
        p[i].committed_metadata = slice_of(big, sizeof big);
    }
    const struct kafka_offset_commit_resp *resp = client_ask(a.c, KEY_OFFSET_COMMIT, 9, &q);
    assert_int_equal(resp->topics[0].partitions[2099].error_code, KAFKA_INVALID_COMMIT_OFFSET_SIZE);
    assert_int_equal(counter_read(&W.broker->shards[0]->groups->count.limit_batch), 1);
    assert_null(inside("g"));
    t.partitions_n = 1000;
    resp = client_ask(a.c, KEY_OFFSET_COMMIT, 9, &q);
    assert_int_equal(resp->topics[0].partitions[999].error_code, 0);
    assert_int_equal(tm_fetch(&a, "t", 999, false, NULL), 999);
    mem_free(p);
    tm_free(&a);
    world_stop();
}

/* The disk fails: nothing that is not on it is told, and the group is as it was; after a restart it goes on. */
static void test_disk_fails(void **state)
{
    (void)state;
    start(1);
    struct tm m[2];
    tm_init(&m[0], 0, "g");
    tm_init(&m[1], 0, "g");
    world_topic("t", 1, NULL);
    group_ready(m[0].c, "g");
    tm_settle(m, 1);
    assert_int_equal(tm_commit(&m[0], "t", 0, 5, ""), KAFKA_NONE);
    sim_disk_fail_next(SIM_DISK_SYNC, 0, EIO);
    assert_int_equal(tm_commit(&m[0], "t", 0, 6, ""), KAFKA_NOT_COORDINATOR);
    assert_int_equal(tm_fetch(&m[0], "t", 0, false, NULL), 5);
    assert_int_equal(tm_commit(&m[0], "t", 0, 7, ""), KAFKA_NOT_COORDINATOR); /* the partition writes no more */
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join(&m[1]), KAFKA_MEMBER_ID_REQUIRED);
    tm_join_send(&m[1]);
    world_sleep(50);
    assert_int_equal(tm_join(&m[0]), KAFKA_NONE);
    assert_int_equal(tm_join_await(&m[1]), KAFKA_NONE);
    struct tm *all[] = {&m[0], &m[1]};
    tm_sync_send(&m[1], NULL, NULL, 0);
    assert_int_equal(tm_sync(&m[0], all, (const char *[]){"x", "y"}, 2), KAFKA_NOT_COORDINATOR); /* an assignment that is not durable is nobody's */
    assert_int_equal(tm_sync_await(&m[1]), KAFKA_NOT_COORDINATOR);
    assert_int_equal(tm_heartbeat(&m[0]), KAFKA_REBALANCE_IN_PROGRESS);
    assert_true(counter_read(&W.broker->shards[0]->groups->count.write_failed) >= 3);
    world_restart();
    reconnect(&m[0], 0);
    reconnect(&m[1], 0);
    group_ready(m[0].c, "g");
    assert_int_equal(tm_fetch(&m[0], "t", 0, false, NULL), 5);
    assert_int_equal(inside("g")->generation, 1);
    m[0].generation = 1;
    assert_int_equal(tm_commit(&m[0], "t", 0, 8, ""), KAFKA_NONE);
    assert_int_equal(tm_fetch(&m[0], "t", 0, false, NULL), 8);
    tm_free(&m[0]);
    tm_free(&m[1]);
    world_stop();
}

/* A full disk, and space again. */
static void test_disk_full(void **state)
{
    (void)state;
    start(1);
    struct tm a;
    tm_init(&a, 0, "g");
    world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_NONE);
    sim_disk_bytes_max(1);
    enum kafka_error e = KAFKA_NONE;
    int64_t last = 1;
    for (int64_t i = 2; i < 2000 && !e; i++) {
        e = tm_commit(&a, "t", 0, i, "some bytes of metadata, so that it fills");
        last = e ? last : i;
    }
    assert_int_equal(e, KAFKA_NOT_COORDINATOR);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), last);
    sim_disk_bytes_max(0);
    world_sleep(120000);
    e = tm_commit(&a, "t", 0, 9999, "");
    assert_int_equal(e, KAFKA_NONE);
    assert_int_equal(tm_fetch(&a, "t", 0, false, NULL), 9999);
    tm_free(&a);
    world_stop();
}

/* A partition that could not even be begun on a full disk is not tried for a while, and then seldom; when there is room it is at once. */
static void test_disk_full_new(void **state)
{
    (void)state;
    start(1);
    struct tm a;
    tm_init(&a, 0, "g");
    world_topic("t", 1, NULL);
    group_ready(a.c, "g");
    sim_disk_bytes_max(1);
    for (int i = 0; i < 45; i++) {
        assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_NOT_COORDINATOR);
        world_sleep(1000);
    }
    sim_disk_bytes_max(0);
    world_sleep(3000);
    assert_int_equal(tm_commit(&a, "t", 0, 1, ""), KAFKA_NONE);
    tm_free(&a);
    world_stop();
}

/* A thousand members: nothing in a rebalance takes the square of that. */
static void test_large_group(void **state)
{
    (void)state;
    enum { MEMBERS = 1000 };
    struct tm a;
    struct kafka_join_group_req q;
    struct kafka_join_group_req_join_group_request_protocol p = {.name = SLICE("range"), .metadata = SLICE("a subscription")};
    char instance[16];
    start(2);
    tm_init(&a, 0, "g");
    group_ready(a.c, "g");
    struct client **c = mem_new(MEM_SIM, MEMBERS * sizeof *c);
    int32_t *ids = mem_new(MEM_SIM, MEMBERS * sizeof *ids);
    W.broker->conf.group_delay_ms = 3000;
    for (int i = 0; i < MEMBERS; i++) {
        c[i] = client_new((uint32_t)i % 2);
        kafka_join_group_req_init(&q);
        q.group_id = SLICE("g");
        q.session_timeout_ms = 1800000;
        q.rebalance_timeout_ms = 1800000;
        snprintf(instance, sizeof instance, "i%d", i);
        q.group_instance_id = slice_cstr(instance);
        q.protocol_type = SLICE("consumer");
        q.protocols = &p;
        q.protocols_n = 1;
        ids[i] = client_send(c[i], KEY_JOIN_GROUP, 7, &q);
    }
    int leaders = 0;
    for (int i = 0; i < MEMBERS; i++) {
        const struct kafka_join_group_resp *resp = client_await(c[i], ids[i]);
        assert_int_equal(resp->error_code, 0);
        assert_int_equal(resp->generation_id, 1);
        leaders += resp->members_n == MEMBERS;
        client_free(c[i]);
    }
    assert_int_equal(leaders, 1);
    assert_int_equal(counter_read(&W.broker->shards[world_owner("__consumer_offsets", inside("g")->gp->partition)->index]->groups->count.members), MEMBERS);
    mem_free(c);
    mem_free(ids);
    tm_free(&a);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple_consumer), cmocka_unit_test(test_members_commit), cmocka_unit_test(test_fetch_versions),
        cmocka_unit_test(test_commit_by_id),    cmocka_unit_test(test_txn),             cmocka_unit_test(test_txn_gone),       cmocka_unit_test(test_topic_deleted),  cmocka_unit_test(test_retention),
        cmocka_unit_test(test_own_retention),   cmocka_unit_test(test_list), cmocka_unit_test(test_named_twice),           cmocka_unit_test(test_delete_groups),
        cmocka_unit_test(test_offset_delete),   cmocka_unit_test(test_metrics),        cmocka_unit_test(test_batch_limit),
        cmocka_unit_test(test_disk_fails),      cmocka_unit_test(test_disk_full), cmocka_unit_test(test_disk_full_new),      cmocka_unit_test(test_large_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
