/* txn_crash_test.c - transactions and the end of the process: at every change of the disk in turn, and at random with many producers.
 *
 * Whatever happens, a reader of committed records sees all of a transaction or nothing of it: all if EndTxn(commit) was answered, nothing if EndTxn(abort) was, or if
 * it was never asked to commit. The crashes are those of the process (the page cache survives) and of the machine (what was not synced is lost or torn).
 */
#include "repeat_test.h"
#include "txn_int.h"
#include "txn_world_test.h"

#include <stdio.h>

#define PARTS 4                    /* a-0, a-1, a-2, b-0 */

static const char *topic_of(int i) { return i < 3 ? "a" : "b"; }
static int32_t part_of(int i) { return i < 3 ? i : 0; }

/* ---- requests that the crash may cut off -------------------------------------------------------------------------------------- */

struct cut {
    struct client *c;
    int32_t id;
};
static bool come_or_down(void *ctx)
{
    struct cut *x = ctx;
    return sim_is_down() || client_closed(x->c) || client_try(x->c, x->id);
}

/* NULL: the process ended meanwhile; what it said last counts for nothing. */
static const void *ask(struct client *c, int16_t key, int16_t version, const void *req)
{
    struct cut x = {c, 0};
    if (sim_is_down())
        return NULL;
    x.id = client_send(c, key, version, req);
    world_until(come_or_down, &x, WORLD_WAIT_MS);
    return sim_is_down() ? NULL : client_try(c, x.id);
}

#define CUT ((int16_t)-1000)
#define TRIES 100

static bool soon(int16_t e)
{
    return e == KAFKA_COORDINATOR_LOAD_IN_PROGRESS || e == KAFKA_COORDINATOR_NOT_AVAILABLE || e == KAFKA_NOT_COORDINATOR || e == KAFKA_CONCURRENT_TRANSACTIONS;
}

static struct producer_id do_init(struct client *c, const char *txn)
{
    for (int i = 0; i < TRIES; i++) {
        struct kafka_init_producer_id_req req;
        kafka_init_producer_id_req_init(&req);
        req.transactional_id = slice_cstr(txn);
        req.transaction_timeout_ms = 20000;
        req.producer_id = -1;
        req.producer_epoch = -1;
        const struct kafka_init_producer_id_resp *resp = ask(c, KEY_INIT_PRODUCER_ID, 4, &req);
        if (!resp)
            return (struct producer_id){.error = CUT};
        if (!soon(resp->error_code))
            return (struct producer_id){resp->producer_id, resp->producer_epoch, resp->error_code};
        world_sleep(20);
    }
    return (struct producer_id){.error = CUT};
}

static int16_t do_add(struct client *c, const char *txn, struct producer_id p, int mask)
{
    struct kafka_add_partitions_to_txn_req req;
    int32_t a[3], b = 0;
    struct kafka_add_partitions_to_txn_req_add_partitions_to_txn_topic t[2] = {{.name = SLICE("a"), .partitions = a}, {.name = SLICE("b"), .partitions = &b, .partitions_n = 1}};
    kafka_add_partitions_to_txn_req_init(&req);
    for (int i = 0; i < 3; i++)
        if (mask & 1 << i)
            a[t[0].partitions_n++] = i;
    req.v3_and_below_transactional_id = slice_cstr(txn);
    req.v3_and_below_producer_id = p.id;
    req.v3_and_below_producer_epoch = p.epoch;
    req.v3_and_below_topics = t[0].partitions_n ? t : t + 1;
    req.v3_and_below_topics_n = (t[0].partitions_n ? 1 : 0) + (mask & 8 ? 1 : 0);
    for (int i = 0; i < TRIES; i++) {
        const struct kafka_add_partitions_to_txn_resp *resp = ask(c, KEY_ADD_PARTITIONS_TO_TXN, 3, &req);
        if (!resp)
            return CUT;
        int16_t e = resp->results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
        if (!soon(e))
            return e;
        world_sleep(20);
    }
    return CUT;
}

static int16_t do_produce(struct client *c, const char *txn, struct producer_id p, int32_t sequence, int where, int value)
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
    kafka_batch_add(&k, head.base_timestamp, (struct slice){0}, slice_of((const char *)&value, sizeof value), NULL, 0);
    assert_int_equal(kafka_batch_end(&k, KAFKA_CODEC_NONE), OK);
    struct kafka_produce_req req;
    struct kafka_produce_req_partition_produce_data part = {.index = part_of(where), .records = buf_slice(&b)};
    struct kafka_produce_req_topic_produce_data data = {.name = slice_cstr(topic_of(where)), .partition_data = &part, .partition_data_n = 1};
    kafka_produce_req_init(&req);
    req.transactional_id = slice_cstr(txn);
    req.acks = -1;
    req.timeout_ms = 30000;
    req.topic_data = &data;
    req.topic_data_n = 1;
    int16_t e = CUT;
    for (int i = 0; i < TRIES; i++) {
        const struct kafka_produce_resp *resp = ask(c, KEY_PRODUCE, 9, &req);
        e = resp ? resp->responses[0].partition_responses[0].error_code : CUT;
        if (e != KAFKA_NOT_LEADER_OR_FOLLOWER && e != KAFKA_NOT_ENOUGH_REPLICAS)
            break;
        world_sleep(20);
    }
    buf_free(&b);
    return e;
}

/* Offset `value` of a-0 for the group, in the transaction. */
static int16_t do_offset(struct client *c, const char *txn, struct producer_id p, int value)
{
    struct kafka_add_offsets_to_txn_req add;
    struct kafka_txn_offset_commit_req req;
    struct kafka_txn_offset_commit_req_txn_offset_commit_request_partition part;
    kafka_add_offsets_to_txn_req_init(&add);
    add.transactional_id = add.group_id = slice_cstr(txn);
    add.producer_id = p.id;
    add.producer_epoch = p.epoch;
    kafka_txn_offset_commit_req_txn_offset_commit_request_partition_init(&part);
    part.committed_offset = value;
    struct kafka_txn_offset_commit_req_txn_offset_commit_request_topic topic = {.name = SLICE("a"), .partitions = &part, .partitions_n = 1};
    kafka_txn_offset_commit_req_init(&req);
    req.transactional_id = req.group_id = slice_cstr(txn);
    req.producer_id = p.id;
    req.producer_epoch = p.epoch;
    req.topics = &topic;
    req.topics_n = 1;
    int16_t e = CUT;
    for (int i = 0; i < TRIES; i++) {
        const struct kafka_add_offsets_to_txn_resp *resp = ask(c, KEY_ADD_OFFSETS_TO_TXN, 3, &add);
        e = resp ? resp->error_code : CUT;
        if (!soon(e))
            break;
        world_sleep(20);
    }
    for (int i = 0; i < TRIES && e == KAFKA_NONE; i++) {
        const struct kafka_txn_offset_commit_resp *resp = ask(c, KEY_TXN_OFFSET_COMMIT, 3, &req);
        e = resp ? resp->topics[0].partitions[0].error_code : CUT;
        if (!soon(e))
            return e;
        e = KAFKA_NONE;
        world_sleep(20);
    }
    return e ? e : CUT;
}

static int16_t do_end(struct client *c, const char *txn, struct producer_id p, bool commit)
{
    struct kafka_end_txn_req req;
    kafka_end_txn_req_init(&req);
    req.transactional_id = slice_cstr(txn);
    req.producer_id = p.id;
    req.producer_epoch = p.epoch;
    req.committed = commit;
    for (int i = 0; i < TRIES; i++) {
        const struct kafka_end_txn_resp *resp = ask(c, KEY_END_TXN, 3, &req);
        if (!resp)
            return CUT;
        if (!soon(resp->error_code) || resp->error_code == KAFKA_CONCURRENT_TRANSACTIONS)
            return resp->error_code;
        world_sleep(20);
    }
    return CUT;
}

/* ---- one transaction, and what may be seen of it ----------------------------------------------------------------------------------- */

enum fate { FATE_NOTHING, FATE_EITHER, FATE_ALL };
struct deed {
    int value;                     /* written to each of its partitions */
    int mask;
    int author;                    /* whose; */
    bool offset;                   /* the value was also committed as an offset */
    enum fate fate;
};

/* False: the process ended. */
static bool transaction(struct client *c, const char *txn, struct producer_id p, int32_t *sequences, bool commit, struct deed *d)
{
    d->fate = FATE_NOTHING;
    if (do_add(c, txn, p, d->mask) != KAFKA_NONE)
        return false;
    for (int i = 0; i < PARTS; i++) {
        if (!(d->mask & 1 << i))
            continue;
        if (do_produce(c, txn, p, sequences[i], i, d->value) != KAFKA_NONE)
            return false;
        sequences[i]++;
    }
    d->fate = commit ? FATE_EITHER : FATE_NOTHING;
    if (do_end(c, txn, p, commit) != KAFKA_NONE)
        return false;
    d->fate = commit ? FATE_ALL : FATE_NOTHING;
    return true;
}

static uint64_t history;           /* the seed, or the change at which it ended */

static int count_of(const struct seen *s, int value)
{
    int n = 0;
    for (int i = 0; i < s->n; i++)
        n += s->values[i] == value;
    return n;
}

/* All transactions have ended. */
static void check(struct client *c, const struct deed *deeds, int n)
{
    struct seen *s = mem_new(MEM_SIM, PARTS * sizeof *s);
    for (int i = 0; i < PARTS; i++) {
        txn_settle(c, topic_of(i), part_of(i));
        txn_read(c, topic_of(i), part_of(i), true, &s[i]);
    }
    for (int j = 0; j < n; j++) {
        int first = -1;
        for (int i = 0; i < PARTS; i++) {
            int times = count_of(&s[i], deeds[j].value);
            if (!(deeds[j].mask & 1 << i)) {
                assert_int_equal(times, 0);
                continue;
            }
            if (first < 0)
                first = times;
            if (times > 1 || times != first || (deeds[j].fate == FATE_ALL && !times) || (deeds[j].fate == FATE_NOTHING && times))
                fail_msg("history %llu: transaction %d: seen %d times in %s-%d, %d times in another partition; its fate is %d", (unsigned long long)history, deeds[j].value, times,
                         topic_of(i), part_of(i), first, deeds[j].fate);
        }
    }
    mem_free(s);
}

/* The committed offset of an author's group is that of the last transaction with one that is seen. */
static void check_offsets(struct client *c, const char *group, int author, const struct deed *deeds, int n)
{
    struct seen *s = mem_new(MEM_SIM, PARTS * sizeof *s);
    struct kafka_offset_fetch_req req;
    int32_t zero = 0;
    struct kafka_offset_fetch_req_offset_fetch_request_topic topic = {.name = SLICE("a"), .partition_indexes = &zero, .partition_indexes_n = 1};
    int want = -1;
    for (int i = 0; i < PARTS; i++)
        txn_read(c, topic_of(i), part_of(i), true, &s[i]);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < PARTS; i++)
            if (deeds[j].author == author && deeds[j].offset && deeds[j].mask & 1 << i && count_of(&s[i], deeds[j].value))
                want = deeds[j].value;
    mem_free(s);
    kafka_offset_fetch_req_init(&req);
    req.group_id = slice_cstr(group);
    req.topics = &topic;
    req.topics_n = 1;
    req.require_stable = true;
    for (int i = 0; i < TRIES; i++) {
        const struct kafka_offset_fetch_resp *resp = client_ask(c, KEY_OFFSET_FETCH, 7, &req);
        int16_t e = resp->error_code ? resp->error_code : resp->topics[0].partitions[0].error_code;
        if (e == KAFKA_NONE) {
            if (resp->topics[0].partitions[0].committed_offset != want)
                fail_msg("history %llu: the committed offset of %s is %lld and should be %d", (unsigned long long)history, group,
                         (long long)resp->topics[0].partitions[0].committed_offset, want);
            return;
        }
        world_sleep(20);
    }
    fail_msg("OffsetFetch of %s never succeeds", group);
}

/* ---- a crash at each change of the disk ------------------------------------------------------------------------------------------------ */

/* False: the n-th change was never reached. */
static bool crash_at(uint32_t n, bool power, bool commit, uint32_t shards)
{
    struct deed d[3] = {{.value = 1, .mask = 15}, {.value = 2, .mask = 13}, {.value = 3, .mask = 15}};
    int32_t sequences[PARTS] = {0};
    world_start(&(struct world_conf){.seed = 1000 + n, .shards = shards, .quiet = true});
    world_topic("a", 3, NULL);
    world_topic("b", 1, NULL);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    int done = 0;
    history = n;
    sim_crash_after(n, power);
    if (transaction(c, "t", p, sequences, true, &d[done++]) && transaction(c, "t", p, sequences, commit, &d[done++]))
        world_sleep(1000);
    bool crashed = sim_is_down();
    if (!crashed)
        sim_crash_after(0, false);
    world_crash(false);
    c = client_new(shards - 1);
    p = txn_init(c, "t"); /* a new producer: what is open ends */
    assert_int_equal(p.error, KAFKA_NONE);
    check(c, d, done);
    memset(sequences, 0, sizeof sequences);
    assert_true(transaction(c, "t", p, sequences, true, &d[2]));
    check(c, d, done);
    check(c, &d[2], 1);
    world_stop();
    return crashed;
}

static void test_every_change(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        uint32_t n = 1;
        while (crash_at(n, kind & 1, kind & 2, 1 + n % 3))
            n++;
        assert_true(n > 10);
    }
}

/* ---- many producers, crashes at random ------------------------------------------------------------------------------------------------------ */

#define PRODUCERS 3
#define DEEDS_MAX 400

struct author {
    char name[8];                  /* its transactional id and its group */
    int number;
    struct client *c;
    struct producer_id p;          /* error CUT: to be initialised */
    int32_t sequences[PARTS];
    struct deed *d;                /* under way; NULL: none */
    int todo;                      /* partitions still to be written */
    bool commit;
};

static uint64_t dice_state;
static uint32_t dice(uint32_t n) { return test_chance(&dice_state, n); }

static void author_begin(struct author *a, struct deed *d, int value)
{
    *d = (struct deed){.value = value, .mask = 1 + (int)dice(15), .author = a->number, .offset = dice(2)};
    a->commit = dice(4) != 0;
    if (do_add(a->c, a->name, a->p, d->mask) != KAFKA_NONE || (d->offset && do_offset(a->c, a->name, a->p, value) != KAFKA_NONE)) {
        a->p.error = CUT; /* nothing of it was written */
        return;
    }
    a->d = d;
    a->todo = d->mask;
}

static void author_end(struct author *a)
{
    a->d->fate = a->commit ? FATE_EITHER : FATE_NOTHING;
    int16_t e = do_end(a->c, a->name, a->p, a->commit);
    if (e == KAFKA_NONE)
        a->d->fate = a->commit ? FATE_ALL : FATE_NOTHING;
    else
        a->p.error = CUT;
    a->d = NULL;
}

/* One request of one producer. */
static void author_step(struct author *a, struct deed *deeds, int *n)
{
    if (a->p.error) {
        a->d = NULL;
        memset(a->sequences, 0, sizeof a->sequences);
        a->p = do_init(a->c, a->name);
    } else if (!a->d) {
        author_begin(a, &deeds[*n], *n + 1);
        *n += a->d != NULL;
    } else if (a->todo) {
        int i = __builtin_ctz((unsigned)a->todo);
        a->todo &= a->todo - 1;
        if (do_produce(a->c, a->name, a->p, a->sequences[i]++, i, a->d->value) != KAFKA_NONE)
            a->p.error = CUT; /* its transaction is left open: the next init aborts it */
    } else {
        author_end(a);
    }
}

/* Another instance of the same application takes the id, in the middle of whatever the first one does. */
static void author_robbed(struct author *a)
{
    struct producer_id thief = do_init(a->c, a->name);
    if (thief.error == CUT || a->p.error)
        return;
    assert_int_equal(thief.error, KAFKA_NONE);
    if (a->d && !a->todo) /* it may still try to commit, and must not succeed */
        assert_int_not_equal(do_end(a->c, a->name, a->p, true), KAFKA_NONE);
    a->p.error = CUT;
}

static void authors_connect(struct author *authors)
{
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        authors[i].c = client_new(dice(W.conf.shards));
        authors[i].p.error = CUT;
        authors[i].d = NULL;
    }
}

static void random_history(uint64_t seed)
{
    static struct deed deeds[DEEDS_MAX];
    struct author authors[PRODUCERS] = {{.name = "t0", .number = 0}, {.name = "t1", .number = 1}, {.name = "t2", .number = 2}};
    int n = 0, restart_in = -1;
    dice_state = history = seed;
    world_start(&(struct world_conf){.seed = seed, .shards = 1 + dice(3), .quiet = true});
    world_topic("a", 3, NULL);
    world_topic("b", 1, NULL);
    authors_connect(authors);
    sim_crash_after(50 + dice(200), dice(2));
    for (int step = 0; step < 300 && n < DEEDS_MAX; step++) {
        struct author *a = &authors[dice(PRODUCERS)];
        if (dice(40) == 0)
            author_robbed(a);
        else
            author_step(a, deeds, &n);
        /* A disk that fails once: what it concerned writes no more until it is renewed. No kill meanwhile: one that comes before the failure of a sync is
         * noted leaves bytes in the page cache that look well and may never arrive, and nobody can tell. */
        if (restart_in < 0 && dice(80) == 0) {
            sim_crash_after(0, false);
            sim_disk_fail_next(dice(2) ? SIM_DISK_SYNC : SIM_DISK_WRITE, dice(4), 5 /* EIO */);
            restart_in = (int)dice(12);
        }
        bool orderly = restart_in-- == 0 && !sim_is_down();
        if (orderly || sim_is_down()) {
            sim_crash_after(0, false);
            sim_disk_fail_next(SIM_DISK_SYNC, 0, 0);
            sim_disk_fail_next(SIM_DISK_WRITE, 0, 0);
            if (orderly)
                world_sleep(200);
            if (orderly && dice(2))
                world_restart();
            else
                world_crash(false);
            restart_in = -1;
            authors_connect(authors);
            sim_crash_after(5 + dice(100), dice(2)); /* perhaps while it loads */
        }
    }
    sim_crash_after(0, false);
    if (sim_is_down())
        world_crash(false);
    else
        world_restart();
    struct client *c = client_new(0);
    for (uint32_t i = 0; i < PRODUCERS; i++)
        assert_int_equal(txn_init(c, authors[i].name).error, KAFKA_NONE);
    check(c, deeds, n);
    for (int i = 0; i < PRODUCERS; i++)
        check_offsets(c, authors[i].name, i, deeds, n);
    assert_true(n > 0);
    world_stop();
}

/* The process ends somewhere within the first transaction; the next one is committed; then the machine loses power. What the first life made and never
 * synced (a segment's name) is part of what the second one promises. */
static bool power_after(uint32_t n)
{
    struct deed d[2] = {{.value = 1, .mask = 15}, {.value = 2, .mask = 15}};
    int32_t sequences[PARTS] = {0};
    history = n;
    world_start(&(struct world_conf){.seed = 5000 + n, .shards = 1 + n % 2, .quiet = true});
    world_topic("a", 3, NULL);
    world_topic("b", 1, NULL);
    struct client *c = client_new(0);
    struct producer_id p = txn_init(c, "t");
    sim_crash_after(n, false);
    transaction(c, "t", p, sequences, true, &d[0]);
    bool crashed = sim_is_down();
    sim_crash_after(0, false);
    world_crash(false);
    c = client_new(0);
    p = txn_init(c, "t");
    memset(sequences, 0, sizeof sequences);
    assert_true(transaction(c, "t", p, sequences, true, &d[1]));
    world_crash(true);
    c = client_new(0);
    assert_int_equal(txn_init(c, "t").error, KAFKA_NONE);
    check(c, d, 2);
    world_stop();
    return crashed;
}

static void test_power_after(void **state)
{
    uint32_t n = 1;
    (void)state;
    while (power_after(n))
        n++;
    assert_true(n > 10);
}

static void test_random(void **state)
{
    (void)state;
    uint64_t n = test_repeats(60);
    const char *one = getenv("SIM_SEED");
    if (one) {
        random_history(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= n; seed++)
        random_history(seed);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_change), cmocka_unit_test(test_power_after), cmocka_unit_test(test_random)};
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
