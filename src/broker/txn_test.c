/* txn_test.c - the transaction coordinator on the simulator: every state and request, fencing, timeouts, what readers see, the end of the process anywhere. */
#include "frame_int.h"
#include "txn_int.h"
#include "txn_world_test.h"

#include <stdio.h>

static void begin(uint32_t shards)
{
    world_start(&(struct world_conf){.seed = 7, .shards = shards, .quiet = true});
    world_topic("a", 3, NULL);
    world_topic("b", 1, NULL);
}

static void values(struct client *c, const char *topic, int32_t partition, bool committed, const int *want, int n)
{
    struct seen *s = mem_new(MEM_SIM, sizeof *s);
    txn_read(c, topic, partition, committed, s);
    assert_int_equal(s->n, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(s->values[i], want[i]);
    mem_free(s);
}
#define VALUES(c, topic, partition, committed, ...)                                           \
    do {                                                                                      \
        const int want_[] = {0, ##__VA_ARGS__};                                               \
        values((c), (topic), (partition), (committed), want_ + 1, (int)COUNT_OF(want_) - 1);  \
    } while (0)

/* ---- what readers see ------------------------------------------------------------------------------------------------------------ */

static void test_commit(void **state)
{
    (void)state;
    begin(3);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(p.error, KAFKA_NONE);
    assert_int_equal(p.epoch, 0);
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(txn_add(c, "t", p, "a", i), KAFKA_NONE);
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", i, 10 + i), KAFKA_NONE);
    VALUES(c, "a", 0, false, 10);
    VALUES(c, "a", 0, true);
    assert_int_equal(txn_latest(c, "a", 1, true), 0);
    assert_int_equal(txn_latest(c, "a", 1, false), 1);
    assert_int_equal(txn_newest(c, "a", 1, true), -1);
    assert_int_equal(txn_newest(c, "a", 1, false), 0);
    assert_string_equal(txn_state_of(c, "t"), "Ongoing");
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    for (int32_t i = 0; i < 3; i++) {
        txn_settle(c, "a", i);
        assert_int_equal(txn_latest(c, "a", i, true), 2); /* the marker has an offset */
    }
    VALUES(c, "a", 0, true, 10);
    VALUES(c, "a", 2, true, 12);
    world_sleep(100);
    assert_string_equal(txn_state_of(c, "t"), "CompleteCommit");
    /* the next one goes on with the sequence */
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 1, "a", 0, 20), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    txn_settle(c, "a", 0);
    VALUES(c, "a", 0, true, 10, 20);
    world_stop();
}

static void test_abort(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(1);
    struct producer_id p = txn_init(c, "t"), q = txn_init(c, "u");
    assert_true(p.id != q.id);
    assert_int_equal(txn_add(c, "t", p, "b", 0), KAFKA_NONE);
    assert_int_equal(txn_add(c, "u", q, "b", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, NULL, NULL, 0, "b", 0, 1), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "b", 0, 2), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "u", &q, 0, "b", 0, 3), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 1, "b", 0, 4), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "t", p, false), KAFKA_NONE);
    world_sleep(200);
    VALUES(c, "b", 0, true, 1);   /* u's is open: nothing behind it is stable */
    assert_int_equal(txn_latest(c, "b", 0, true), 2);
    assert_int_equal(txn_produce_one(c, NULL, NULL, 0, "b", 0, 5), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "u", q, true), KAFKA_NONE);
    txn_settle(c, "b", 0);
    VALUES(c, "b", 0, true, 1, 3, 5);
    VALUES(c, "b", 0, false, 1, 2, 3, 4, 5);
    /* the same producer again, after its abort */
    assert_int_equal(txn_add(c, "t", p, "b", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 2, "b", 0, 6), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    txn_settle(c, "b", 0);
    VALUES(c, "b", 0, true, 1, 3, 5, 6);
    world_stop();
}

/* A transaction that wrote to no partition, and partitions that were added and got nothing: markers change nothing there. */
static void test_empty_partitions(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    for (int round = 0; round < 2; round++) {
        assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
        assert_int_equal(txn_add(c, "t", p, "a", 1), KAFKA_NONE);
        assert_int_equal(txn_finish(c, "t", p, round == 0), KAFKA_NONE);
    }
    assert_int_equal(txn_produce_one(c, NULL, NULL, 0, "a", 0, 1), KAFKA_NONE);
    world_sleep(500);
    txn_settle(c, "a", 0);
    VALUES(c, "a", 0, true, 1);
    world_stop();
}

/* ---- states and requests ----------------------------------------------------------------------------------------------------------- */

/* Bring "t" to a state, with its producer; Prepare* is held there by a partition that can't take its marker (a slow disk). */
static struct producer_id bring(struct client *c, enum txn_state s)
{
    struct producer_id p = txn_init(c, "t");
    if (s == TXN_EMPTY)
        return p;
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    if (s == TXN_ONGOING)
        return p;
    if (s == TXN_PREPARE_COMMIT || s == TXN_PREPARE_ABORT)
        sim_disk_slow(2000, 2000);
    assert_int_equal(txn_finish(c, "t", p, s == TXN_PREPARE_COMMIT || s == TXN_COMPLETE_COMMIT), KAFKA_NONE);
    if (s == TXN_COMPLETE_COMMIT || s == TXN_COMPLETE_ABORT)
        world_sleep(500);
    return p;
}

static void unhold(void)
{
    sim_disk_slow(0, 0);
    world_sleep(10000);
}

static void test_states(void **state)
{
    static const struct {
        enum txn_state s;
        int16_t add, commit, abort, init;
    } rows[] = {
        {TXN_EMPTY, KAFKA_NONE, KAFKA_INVALID_TXN_STATE, KAFKA_INVALID_TXN_STATE, KAFKA_NONE},
        {TXN_ONGOING, KAFKA_NONE, KAFKA_NONE, KAFKA_NONE, KAFKA_CONCURRENT_TRANSACTIONS},
        {TXN_PREPARE_COMMIT, KAFKA_CONCURRENT_TRANSACTIONS, KAFKA_CONCURRENT_TRANSACTIONS, KAFKA_CONCURRENT_TRANSACTIONS, KAFKA_CONCURRENT_TRANSACTIONS},
        {TXN_PREPARE_ABORT, KAFKA_CONCURRENT_TRANSACTIONS, KAFKA_CONCURRENT_TRANSACTIONS, KAFKA_CONCURRENT_TRANSACTIONS, KAFKA_CONCURRENT_TRANSACTIONS},
        {TXN_COMPLETE_COMMIT, KAFKA_NONE, KAFKA_NONE, KAFKA_INVALID_TXN_STATE, KAFKA_NONE},
        {TXN_COMPLETE_ABORT, KAFKA_NONE, KAFKA_INVALID_TXN_STATE, KAFKA_NONE, KAFKA_NONE},
    };
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (int what = 0; what < 4; what++) {
            struct producer_id p = bring(c, rows[i].s);
            assert_string_equal(txn_state_of(c, "t"), txn_state_name(rows[i].s));
            int16_t got = what == 0   ? txn_add_once(c, "t", p, "a", 1, 3)
                          : what == 1 ? txn_finish_once(c, "t", p, true, 4)
                          : what == 2 ? txn_finish_once(c, "t", p, false, 4)
                                      : txn_init_once(c, "t", 60000, NULL).error;
            int16_t want = what == 0 ? rows[i].add : what == 1 ? rows[i].commit : what == 2 ? rows[i].abort : rows[i].init;
            if (got != want)
                fail_msg("%s, request %d: %d", txn_state_name(rows[i].s), what, got);
            unhold();
            client_forget(c);
        }
    }
    world_stop();
}

static int32_t add_send(struct client *c, struct producer_id p, const int32_t *partition)
{
    struct kafka_add_partitions_to_txn_req req;
    struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic t = {.name = SLICE("a"), .partitions = (int32_t *)(uintptr_t)partition, .partitions_n = 1};
    kafka_add_partitions_to_txn_req_init(&req);
    req.v3_and_below_transactional_id = SLICE("t");
    req.v3_and_below_producer_id = p.id;
    req.v3_and_below_producer_epoch = p.epoch;
    req.v3_and_below_topics = &t;
    req.v3_and_below_topics_n = 1;
    return client_send(c, KEY_ADD_PARTITIONS_TO_TXN, 3, &req);
}

static int16_t add_error(const struct kafka_add_partitions_to_txn_resp *resp)
{
    return resp->results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
}

/* The next transaction begins while the one before is ending: one request waits for that, others are told to ask again. */
static void test_parked(void **state)
{
    static const int32_t one = 1, two = 2;
    (void)state;
    begin(3);
    struct client *c = client_new(0), *d = client_new(1);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    world_sleep(1000); /* the partition's files are made */
    for (int round = 0; round < 3; round++) {
        sim_disk_slow(200, 200);
        assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
        assert_int_equal(txn_finish(c, "t", p, round != 1), KAFKA_NONE);
        uint64_t begun = sim_now_ms();
        int32_t first = add_send(c, p, &one);
        world_sleep(20);
        int32_t second = add_send(d, p, &two);
        assert_int_equal(add_error(client_await(d, second)), KAFKA_CONCURRENT_TRANSACTIONS);
        assert_true(sim_now_ms() - begun < 150);
        assert_int_equal(add_error(client_await(c, first)), KAFKA_NONE);
        assert_in_range(sim_now_ms() - begun, 390, 450); /* the marker and Ongoing: a sync each; Complete* is not written */
        sim_disk_slow(0, 0);
        assert_string_equal(txn_state_of(c, "t"), "Ongoing");
        assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
        world_sleep(100);
    }
    /* longer than a client should wait; and the end of the broker */
    sim_disk_slow(3000, 3000);
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    uint64_t begun = sim_now_ms();
    assert_int_equal(add_error(client_await(c, add_send(c, p, &one))), KAFKA_CONCURRENT_TRANSACTIONS);
    assert_in_range(sim_now_ms() - begun, 1000, 1100);
    add_send(c, p, &one);
    world_sleep(20);
    sim_disk_slow(0, 0);
    world_restart();
    c = client_new(0);
    assert_int_equal(txn_add(c, "t", p, "a", 1), KAFKA_NONE);
    world_stop();
}

static void test_unknown_and_wrong(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t"), wrong = {.id = p.id + 1000, .epoch = p.epoch}, old = {.id = p.id, .epoch = (int16_t)(p.epoch - 1)}, next = {.id = p.id, .epoch = (int16_t)(p.epoch + 1)};
    assert_int_equal(txn_add_once(c, "nobody", p, "a", 0, 3), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(txn_finish_once(c, "nobody", p, true, 4), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(txn_add_once(c, "t", wrong, "a", 0, 3), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(txn_finish_once(c, "t", wrong, true, 4), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(txn_add_once(c, "t", old, "a", 0, 3), KAFKA_PRODUCER_FENCED);
    assert_int_equal(txn_add_once(c, "t", old, "a", 0, 1), KAFKA_INVALID_PRODUCER_EPOCH); /* a version that does not know the other */
    assert_int_equal(txn_add_once(c, "t", next, "a", 0, 3), KAFKA_PRODUCER_FENCED);
    assert_int_equal(txn_finish_once(c, "t", old, true, 4), KAFKA_PRODUCER_FENCED);
    assert_int_equal(txn_finish_once(c, "t", old, true, 1), KAFKA_INVALID_PRODUCER_EPOCH);
    assert_int_equal(txn_add_once(c, "", p, "a", 0, 3), KAFKA_INVALID_REQUEST);
    assert_int_equal(txn_finish_once(c, "", p, true, 4), KAFKA_INVALID_REQUEST);
    assert_int_equal(txn_add_once(c, "t", p, "none", 0, 3), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(txn_add_once(c, "t", p, "a", 3, 3), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(txn_add_once(c, "t", p, "a", -1, 3), KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(txn_add_once(c, "t", p, "__transaction_state", 0, 3), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(txn_init_once(c, "", 60000, NULL).error, KAFKA_INVALID_REQUEST);
    assert_int_equal(txn_init_once(c, "x", 0, NULL).error, KAFKA_INVALID_TRANSACTION_TIMEOUT);
    assert_int_equal(txn_init_once(c, "x", -1, NULL).error, KAFKA_INVALID_TRANSACTION_TIMEOUT);
    assert_int_equal(txn_init_once(c, "x", 900001, NULL).error, KAFKA_INVALID_TRANSACTION_TIMEOUT);
    assert_int_equal(txn_init_once(c, "x", 900000, NULL).error, KAFKA_NONE);
    assert_int_equal(txn_init_once(c, "x", 60000, &(struct producer_id){.id = 5, .epoch = -1}).error, KAFKA_INVALID_REQUEST);
    assert_int_equal(txn_init_once(c, "x", 60000, &(struct producer_id){.id = -1, .epoch = 5}).error, KAFKA_INVALID_REQUEST);
    assert_string_equal(txn_state_of(c, "nobody"), "");
    world_stop();
}

/* One partition that is not there: none is added. */
static void test_add_all_or_none(void **state)
{
    struct kafka_add_partitions_to_txn_req req;
    int32_t parts[] = {0, 9, 1};
    struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic topics[2];
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    topics[0] = (struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic){.name = SLICE("a"), .partitions = parts, .partitions_n = 3};
    topics[1] = (struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic){.name = SLICE("none"), .partitions = parts, .partitions_n = 1};
    kafka_add_partitions_to_txn_req_init(&req);
    req.v3_and_below_transactional_id = SLICE("t");
    req.v3_and_below_producer_id = p.id;
    req.v3_and_below_producer_epoch = p.epoch;
    req.v3_and_below_topics = topics;
    req.v3_and_below_topics_n = 2;
    const struct kafka_add_partitions_to_txn_resp *resp = client_ask(c, KEY_ADD_PARTITIONS_TO_TXN, 3, &req);
    assert_int_equal(resp->results_by_topic_v3_and_below_n, 2);
    assert_int_equal(resp->results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, KAFKA_OPERATION_NOT_ATTEMPTED);
    assert_int_equal(resp->results_by_topic_v3_and_below[0].results_by_partition[1].partition_error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(resp->results_by_topic_v3_and_below[0].results_by_partition[2].partition_error_code, KAFKA_OPERATION_NOT_ATTEMPTED);
    assert_int_equal(resp->results_by_topic_v3_and_below[1].results_by_partition[0].partition_error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    assert_string_equal(txn_state_of(c, "t"), "Empty");
    world_stop();
}

/* ---- producer ids and epochs ------------------------------------------------------------------------------------------------------------ */

static void test_idempotent_ids(void **state)
{
    (void)state;
    begin(3);
    int64_t seen[64];
    int n = 0;
    for (int round = 0; round < 2; round++) {
        struct client *c[3];
        for (uint32_t i = 0; i < 3; i++)
            c[i] = client_new(i);
        for (int i = 0; i < 10; i++) {
            struct producer_id p = txn_init(c[i % 3], NULL);
            assert_int_equal(p.error, KAFKA_NONE);
            assert_int_equal(p.epoch, 0);
            for (int j = 0; j < n; j++)
                assert_true(seen[j] != p.id);
            seen[n++] = p.id;
        }
        if (round == 0)
            world_crash(true); /* a block that was begun is never begun again */
    }
    world_stop();
}

/* KIP-360: with its own id and epoch a producer bumps; a repetition gets the same; the epoch before that is fenced. */
static void test_bump(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p0 = txn_init(c, "t"), p1 = txn_init_once(c, "t", 60000, &p0);
    assert_int_equal(p1.error, KAFKA_NONE);
    assert_int_equal(p1.id, p0.id);
    assert_int_equal(p1.epoch, p0.epoch + 1);
    struct producer_id again = txn_init_once(c, "t", 60000, &p0);
    assert_int_equal(again.error, KAFKA_NONE);
    assert_int_equal(again.epoch, p1.epoch);
    struct producer_id p2 = txn_init_once(c, "t", 60000, &p1);
    assert_int_equal(p2.epoch, p1.epoch + 1);
    assert_int_equal(txn_init_once(c, "t", 60000, &p0).error, KAFKA_PRODUCER_FENCED);
    struct producer_id other = txn_init(c, "t"); /* another producer: the last epoch counts for nothing any more */
    assert_int_equal(other.epoch, p2.epoch + 1);
    assert_int_equal(txn_init_once(c, "t", 60000, &p2).error, KAFKA_PRODUCER_FENCED);
    struct producer_id stranger = {.id = p0.id + 77, .epoch = 0};
    assert_int_equal(txn_init_once(c, "t", 60000, &stranger).error, KAFKA_PRODUCER_FENCED);
    world_stop();
}

/* The coordinator's memory of "t": to bring an epoch near its end without 32,766 requests. */
static struct txn *memory_of(const char *id)
{
    for (uint32_t i = 0; i < W.broker->shards_n; i++) {
        struct txn *t = txn_find(W.broker->shards[i], slice_cstr(id));
        if (t)
            return t;
    }
    return NULL;
}

static void test_epoch_ends(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    memory_of("t")->now.epoch = TXN_EPOCH_LAST - 1;
    struct producer_id last = txn_init(c, "t");
    assert_int_equal(last.epoch, TXN_EPOCH_LAST);
    assert_int_equal(last.id, p.id);
    struct producer_id fresh = txn_init_once(c, "t", 60000, &last);
    assert_int_equal(fresh.error, KAFKA_NONE);
    assert_int_equal(fresh.epoch, 0);
    assert_true(fresh.id != p.id);
    struct producer_id again = txn_init_once(c, "t", 60000, &last); /* the answer was lost */
    assert_int_equal(again.error, KAFKA_NONE);
    assert_int_equal(again.id, fresh.id);
    assert_int_equal(again.epoch, 0);
    assert_int_equal(txn_add_once(c, "t", last, "a", 0, 3), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    /* an abort by another producer takes the epoch beyond the last; then the id changes */
    memory_of("t")->now.epoch = TXN_EPOCH_LAST;
    struct producer_id edge = {.id = fresh.id, .epoch = TXN_EPOCH_LAST};
    assert_int_equal(txn_add(c, "t", edge, "a", 0), KAFKA_NONE);
    struct producer_id after = txn_init(c, "t");
    assert_int_equal(after.error, KAFKA_NONE);
    assert_true(after.id != fresh.id);
    assert_int_equal(after.epoch, 0);
    assert_int_equal(txn_init_once(c, "t", 60000, &edge).error, KAFKA_PRODUCER_FENCED);
    /* the epoch beyond the last is given to nobody */
    memory_of("t")->now.epoch = TXN_EPOCH_LAST + 1;
    struct producer_id thief = {.id = after.id, .epoch = TXN_EPOCH_LAST + 1};
    assert_int_equal(txn_add_once(c, "t", thief, "a", 1, 3), KAFKA_PRODUCER_FENCED);
    /* a transaction that has it all the same, by the log of a life that gave way to it, ends: it goes no further, where no marker would be taken */
    memory_of("t")->now.epoch = TXN_EPOCH_LAST;
    struct producer_id lender = {.id = after.id, .epoch = TXN_EPOCH_LAST};
    assert_int_equal(txn_add(c, "t", lender, "a", 1), KAFKA_NONE);
    memory_of("t")->now.epoch = TXN_EPOCH_LAST + 1;
    assert_int_equal(txn_produce_one(c, "t", &thief, 0, "a", 1, 7), KAFKA_NONE);
    struct producer_id owner = txn_init(c, "t");
    assert_int_equal(owner.error, KAFKA_NONE);
    assert_true(owner.id != after.id);
    txn_settle(c, "a", 1);
    VALUES(c, "a", 1, true);
    world_restart();
    c = client_new(0);
    assert_int_equal(txn_init(c, "t").epoch, 1);
    world_stop();
}

/* ---- fencing ------------------------------------------------------------------------------------------------------------------------------ */

static void test_zombie(void **state)
{
    (void)state;
    begin(3);
    struct client *c = client_new(0), *d = client_new(2);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 1), KAFKA_NONE);
    struct producer_id q = txn_init(d, "t"); /* aborts p's transaction first */
    assert_int_equal(q.error, KAFKA_NONE);
    assert_int_equal(q.id, p.id);
    assert_int_equal(q.epoch, p.epoch + 2);
    /* what p still tries */
    assert_int_equal(txn_produce_one(c, "t", &p, 1, "a", 0, 2), KAFKA_INVALID_PRODUCER_EPOCH);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 1, 3), KAFKA_INVALID_PRODUCER_EPOCH);
    assert_int_equal(txn_add_once(c, "t", p, "a", 1, 3), KAFKA_PRODUCER_FENCED);
    assert_int_equal(txn_finish_once(c, "t", p, true, 4), KAFKA_PRODUCER_FENCED);
    assert_int_equal(txn_init_once(c, "t", 60000, &p).error, KAFKA_PRODUCER_FENCED);
    /* and q is not disturbed */
    assert_int_equal(txn_add(d, "t", q, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(d, "t", &q, 0, "a", 0, 4), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 1, "a", 0, 5), KAFKA_INVALID_PRODUCER_EPOCH);
    assert_int_equal(txn_finish(d, "t", q, true), KAFKA_NONE);
    txn_settle(d, "a", 0);
    VALUES(d, "a", 0, true, 4);
    world_stop();
}

/* KIP-890: what comes after the end of its transaction, or without having been added, does not open one. */
static void test_late_batch(void **state)
{
    (void)state;
    begin(3);
    struct client *c = client_new(1);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 1), KAFKA_INVALID_TXN_STATE);  /* nothing was added */
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 1, 1), KAFKA_INVALID_TXN_STATE);  /* another partition was */
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 2), KAFKA_NONE);
    assert_int_equal(txn_finish(c, "t", p, false), KAFKA_NONE);
    txn_settle(c, "a", 0);
    assert_int_equal(txn_produce_one(c, "t", &p, 1, "a", 0, 3), KAFKA_INVALID_TXN_STATE);  /* it was delayed */
    txn_settle(c, "a", 0);
    assert_int_equal(txn_produce_one(c, "other", &p, 1, "a", 0, 4), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(txn_produce_one(c, NULL, &p, 1, "a", 0, 5), KAFKA_NONE);              /* not transactional: nobody is asked */
    VALUES(c, "a", 0, true, 5);
    world_stop();
}

/* A connection that breaks when its first `n` requests are being served. */
struct breaking {
    struct shard *home;
    uint32_t n;
};

static bool broken(void *ctx)
{
    const struct breaking *b = ctx;
    struct bconn *c = CONTAINER_OF(b->home->conns.next, struct bconn, link);
    if (list_empty(&b->home->conns) || c->running_n < b->n)
        return false;
    conn_close(c);
    return true;
}

static void late_send(struct client *c, struct producer_id p, int32_t sequence, int32_t partition)
{
    struct buf b = {0};
    struct kafka_batch_builder k;
    struct kafka_batch head = kafka_batch_plain;
    head.base_timestamp = (int64_t)(wall_ns() / 1000000);
    head.producer_id = p.id;
    head.producer_epoch = p.epoch;
    head.base_sequence = sequence;
    head.attributes = KAFKA_BATCH_TRANSACTIONAL;
    kafka_batch_begin(&k, &b, &head);
    kafka_batch_add(&k, head.base_timestamp, (struct slice){0}, SLICE("late"), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    struct kafka_produce_req req;
    struct kafka_produce_req_partition_produce_data part = {.index = partition, .records = buf_slice(&b)};
    struct kafka_produce_req_topic_produce_data data = {.name = SLICE("a"), .partition_data = &part, .partition_data_n = 1};
    kafka_produce_req_init(&req);
    req.transactional_id = SLICE("t");
    req.acks = -1;
    req.timeout_ms = 30000;
    req.topic_data = &data;
    req.topic_data_n = 1;
    (void)client_send(c, KEY_PRODUCE, 9, &req);
    buf_free(&b);
}

/* Several batches wait for one answer of the coordinator, which refuses them, and their connection has gone meanwhile: each request is freed as it is refused. */
static void test_late_batches_of_nobody(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    int32_t number, partition = 0;
    struct shard *coordinator = coordinator_of(W.broker->shards[0], TXN_TOPIC, SLICE("t"), &number);
    while (world_owner("a", partition) == coordinator)
        partition++;
    struct shard *home = world_owner("a", partition);
    client_free(c);
    world_sleep(100);
    c = client_new(home->index);
    struct breaking b = {home, 3};
    for (int32_t i = 0; i < 3; i++)
        late_send(c, p, i, partition);
    world_until(broken, &b, WORLD_WAIT_MS);
    client_await_close(c);
    client_free(c);
    c = client_new(0);
    VALUES(c, "a", partition, false);
    assert_true(counter_read(&coordinator->txns->counters.verify_refused) > 0);
    world_stop();
}

static void test_timeout(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    txn_init(c, "t");
    struct producer_id p = txn_init_once(c, "t", 5000, NULL);
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 1), KAFKA_NONE);
    world_sleep(3000);
    assert_int_equal(txn_add(c, "t", p, "a", 1), KAFKA_NONE); /* that prolongs nothing */
    assert_string_equal(txn_state_of(c, "t"), "Ongoing");
    assert_int_equal(txn_latest(c, "a", 0, true), 0);
    world_sleep(2500);
    txn_settle(c, "a", 0);
    assert_string_equal(txn_state_of(c, "t"), "CompleteAbort");
    assert_int_equal(txn_finish_once(c, "t", p, true, 4), KAFKA_PRODUCER_FENCED);
    assert_int_equal(txn_finish_once(c, "t", p, true, 1), KAFKA_INVALID_PRODUCER_EPOCH);
    assert_int_equal(txn_produce_one(c, "t", &p, 1, "a", 0, 2), KAFKA_INVALID_PRODUCER_EPOCH);
    VALUES(c, "a", 0, true);
    /* its producer begins anew */
    struct producer_id q = txn_init_once(c, "t", 60000, NULL);
    assert_int_equal(q.epoch, p.epoch + 2);
    world_stop();
}

/* The timeout counts over restarts: by the wall clock, from the beginning of the transaction. */
static void test_timeout_over_restart(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 1), KAFKA_NONE);
    world_sleep(40000);
    world_crash(false);
    c = client_new(0);
    assert_string_equal(txn_state_of(c, "t"), "Ongoing");
    world_sleep(15000);
    assert_string_equal(txn_state_of(c, "t"), "Ongoing");
    world_sleep(6000);
    assert_string_equal(txn_state_of(c, "t"), "CompleteAbort");
    txn_settle(c, "a", 0);
    VALUES(c, "a", 0, true);
    world_stop();
}

static void test_expiry(void **state)
{
    (void)state;
    begin(1);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t"), q = txn_init(c, "u");
    world_sleep(TXN_EXPIRE_MS / 2);
    c = client_new(0);
    txn_init(c, "u");
    world_sleep(TXN_EXPIRE_MS / 2 + 60000);
    c = client_new(0);
    assert_string_equal(txn_state_of(c, "t"), "");
    assert_string_equal(txn_state_of(c, "u"), "Empty");
    assert_int_equal(txn_add_once(c, "t", p, "a", 0, 3), KAFKA_INVALID_PRODUCER_ID_MAPPING);
    world_restart(); /* the tombstone is in the log */
    c = client_new(0);
    assert_string_equal(txn_state_of(c, "t"), "");
    struct producer_id fresh = txn_init(c, "t");
    assert_true(fresh.id != p.id && fresh.id != q.id);
    assert_int_equal(fresh.epoch, 0);
    world_stop();
}

/* A topic of the transaction is deleted: what is left of it ends. */
static void test_topic_deleted(void **state)
{
    (void)state;
    begin(3);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_add(c, "t", p, "b", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 1), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "b", 0, 2), KAFKA_NONE);
    world_topic_delete("a");
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    txn_settle(c, "b", 0);
    VALUES(c, "b", 0, true, 2);
    assert_int_equal(txn_add(c, "t", p, "b", 0), KAFKA_NONE); /* completed */
    world_topic_delete("b");
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);   /* no partition is left at all */
    world_sleep(200);
    assert_string_equal(txn_state_of(c, "t"), "CompleteCommit");
    world_stop();
}

/* ---- describing ------------------------------------------------------------------------------------------------------------------------------ */

static int32_t list_n(struct client *c, const char *filter, int64_t duration, const char *pattern, int16_t *error, int32_t *unknown)
{
    struct kafka_list_transactions_req req;
    struct slice f = slice_cstr(filter);
    kafka_list_transactions_req_init(&req);
    req.state_filters = &f;
    req.state_filters_n = filter ? 1 : 0;
    req.duration_filter = duration;
    req.transactional_id_pattern = slice_cstr(pattern);
    const struct kafka_list_transactions_resp *resp = client_ask(c, 66, 2, &req);
    *error = resp->error_code;
    *unknown = resp->unknown_state_filters_n;
    return resp->transaction_states_n;
}

/* An id may have many partitions: it is told once, however often a request names it. */
static void test_described_twice(void **state)
{
    (void)state;
    begin(2);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    struct kafka_describe_transactions_req req;
    struct slice ids[] = {SLICE("t"), SLICE("u"), SLICE("t")};
    kafka_describe_transactions_req_init(&req);
    req.transactional_ids = ids;
    req.transactional_ids_n = 3;
    const struct kafka_describe_transactions_resp *resp = client_ask(c, 65, 0, &req);
    assert_int_equal(resp->transaction_states[0].topics_n, 1);
    assert_int_equal(resp->transaction_states[1].error_code, KAFKA_TRANSACTIONAL_ID_NOT_FOUND);
    assert_int_equal(resp->transaction_states[2].error_code, KAFKA_INVALID_REQUEST);
    assert_int_equal(resp->transaction_states[2].topics_n, 0);
    struct kafka_list_transactions_req list;
    kafka_list_transactions_req_init(&list);
    list.producer_id_filters_n = FILTER_ITEMS_MAX + 1;
    list.producer_id_filters = arena_zalloc(client_arena(c), (size_t)list.producer_id_filters_n * sizeof *list.producer_id_filters);
    client_send_silent(c, 66, 2, &list);
    client_await_close(c);
    world_stop();
}

static void test_list(void **state)
{
    char name[16];
    int16_t error;
    int32_t unknown;
    (void)state;
    begin(3);
    struct client *c = client_new(0);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "txn-%d", i);
        struct producer_id p = txn_init(c, name);
        if (i < 5)
            assert_int_equal(txn_add(c, name, p, "a", i % 3), KAFKA_NONE);
    }
    assert_int_equal(list_n(c, NULL, -1, NULL, &error, &unknown), 20);
    assert_int_equal(error, KAFKA_NONE);
    assert_int_equal(list_n(c, "Ongoing", -1, NULL, &error, &unknown), 5);
    assert_int_equal(list_n(c, "Empty", -1, NULL, &error, &unknown), 15);
    assert_int_equal(list_n(c, "Nonsense", -1, NULL, &error, &unknown), 0);
    assert_int_equal(unknown, 1);
    assert_int_equal(list_n(c, NULL, -1, "txn-1.*", &error, &unknown), 11);
    assert_int_equal(list_n(c, NULL, -1, "1", &error, &unknown), 0); /* the whole id must match */
    assert_int_equal(list_n(c, NULL, -1, "(x+x+)+y", &error, &unknown), 0);
    list_n(c, NULL, -1, "(", &error, &unknown);
    assert_int_equal(error, KAFKA_INVALID_REGULAR_EXPRESSION);
    assert_int_equal(list_n(c, NULL, 10000, NULL, &error, &unknown), 0);
    world_sleep(12000);
    assert_int_equal(list_n(c, NULL, 10000, NULL, &error, &unknown), 5);
    world_stop();
}

/* More ids than are matched in one turn, and a pattern that would take for ever without a limit. */
static void test_list_many(void **state)
{
    char name[64];
    int16_t error;
    int32_t unknown;
    (void)state;
    begin(2);
    struct client *c = client_new(1);
    txn_init(c, "first");
    for (int i = 0; i < 1100; i++) {
        snprintf(name, sizeof name, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-%d", i);
        assert_int_equal(txn_init(c, name).error, KAFKA_NONE);
        client_forget(c);
    }
    assert_int_equal(list_n(c, NULL, -1, NULL, &error, &unknown), 1101);
    assert_int_equal(list_n(c, NULL, -1, "x+-\\d+", &error, &unknown), 1100);
    assert_int_equal(list_n(c, NULL, -1, "x+-1\\d\\d\\d", &error, &unknown), 100);
    assert_int_equal(list_n(c, NULL, -1, "(x+x+)+y", &error, &unknown), 0);
    world_restart();
    c = client_new(0);
    assert_string_equal(txn_state_of(c, "first"), "Empty");
    assert_int_equal(list_n(c, NULL, -1, "x+-\\d+", &error, &unknown), 1100);
    world_stop();
}

/* Each limit, hit. The coordinator's memory is brought to its edge, since a client would need a while. */
static void test_limits(void **state)
{
    char name[TXN_PARTITIONS_MAX / 1000 + 16], pattern[1100];
    int16_t error;
    int32_t unknown;
    (void)state;
    begin(1);
    struct client *c = client_new(0);
    struct txns *all = W.broker->shards[0]->txns;
    struct producer_id p = txn_init(c, "t");
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    struct txn *t = memory_of("t");
    for (int32_t i = 0; t->parts.count < TXN_PARTITIONS_MAX; i++) {
        snprintf(name, sizeof name, "gone-%d", i / 1000);
        txn_parts_add(&t->parts, slice_cstr(name), i % 1000);
    }
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE); /* it is in */
    assert_int_equal(txn_add(c, "t", p, "a", 1), KAFKA_POLICY_VIOLATION);
    assert_int_equal(counter_read(&all->counters.partitions_refused), 1);
    assert_int_equal(txn_finish(c, "t", p, false), KAFKA_NONE); /* the others are of topics that are not there */
    world_sleep(500);
    assert_string_equal(txn_state_of(c, "t"), "CompleteAbort");
    size_t bytes = all->id_bytes;
    all->id_bytes = TXN_ID_BYTES_MAX;
    assert_int_equal(txn_init_once(c, "u", 60000, NULL).error, KAFKA_POLICY_VIOLATION);
    assert_int_equal(counter_read(&all->counters.ids_refused), 1);
    assert_int_equal(txn_init_once(c, "t", 60000, NULL).error, KAFKA_NONE); /* one that is there */
    all->id_bytes = bytes;
    assert_int_equal(txn_init_once(c, "u", 60000, NULL).error, KAFKA_NONE);
    memset(pattern, 'x', sizeof pattern);
    pattern[1024] = 0;
    assert_int_equal(list_n(c, NULL, -1, pattern, &error, &unknown), 0);
    assert_int_equal(error, KAFKA_NONE);
    pattern[1024] = 'x';
    pattern[1025] = 0;
    list_n(c, NULL, -1, pattern, &error, &unknown);
    assert_int_equal(error, KAFKA_INVALID_REGULAR_EXPRESSION);
    world_stop();
}

static void test_markers_refused(void **state)
{
    struct kafka_write_txn_markers_req req;
    int32_t index = 0;
    struct kafka_write_txn_markers_req_writable_txn_marker_topic topic = {.name = SLICE("a"), .partition_indexes = &index, .partition_indexes_n = 1};
    struct kafka_write_txn_markers_req_writable_txn_marker m;
    (void)state;
    begin(1);
    struct client *c = client_new(0);
    kafka_write_txn_markers_req_writable_txn_marker_init(&m);
    m.producer_id = 5;
    m.topics = &topic;
    m.topics_n = 1;
    kafka_write_txn_markers_req_init(&req);
    req.markers = &m;
    req.markers_n = 1;
    const struct kafka_write_txn_markers_resp *resp = client_ask(c, 27, 1, &req);
    assert_int_equal(resp->markers[0].topics[0].partitions[0].error_code, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    world_stop();
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit), cmocka_unit_test(test_abort), cmocka_unit_test(test_empty_partitions), cmocka_unit_test(test_states), cmocka_unit_test(test_parked),
        cmocka_unit_test(test_unknown_and_wrong), cmocka_unit_test(test_add_all_or_none), cmocka_unit_test(test_idempotent_ids), cmocka_unit_test(test_bump),
        cmocka_unit_test(test_epoch_ends), cmocka_unit_test(test_zombie), cmocka_unit_test(test_late_batch), cmocka_unit_test(test_late_batches_of_nobody),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_timeout_over_restart), cmocka_unit_test(test_expiry), cmocka_unit_test(test_topic_deleted), cmocka_unit_test(test_list), cmocka_unit_test(test_described_twice),
        cmocka_unit_test(test_list_many),
        cmocka_unit_test(test_markers_refused), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
