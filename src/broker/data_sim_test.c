/* data_sim_test.c - many histories: producers, consumers, restarts, crashes, power failures and faults of the disk, from seeds; then what was said is compared
 * with what is there.
 *
 * Producers write numbered values into every partition, some batches of each on the way at once; after an error or a broken connection they send again from the first
 * that was not acknowledged, as idempotent producers do. Consumers follow all partitions, with and without sessions. At the end everything is read once more.
 *
 *     acknowledged              -> it is there, at the offset that was told
 *     read by anybody, ever     -> it is there, at that offset: no offset has two values
 *     idempotent                -> no value twice, and in the order of sending
 *     read                      -> without a gap
 *
 * Histories with acks=1 have no power failures and no failed syncs: nothing is promised then. SIM_SEEDS: how many; SIM_SEED: that one alone.
 */
#include "data_world_test.h"
#include "repeat_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

#define PARTS 5
#define PRODUCERS 3
#define CONSUMERS 3
#define WINDOW 3
#define BATCHES_MAX 400 /* of a producer, to one partition */
#define OFFSETS_MAX 4096
#define SYNC_MS_MAX 65      /* a slow disk's */

/* What one producer has sent to one partition. Batch b has b % 3 + 1 records. */
struct line {
    int base, next, sent;       /* first that is not acknowledged; next to be sent; behind the last that ever was */
    bool again;                 /* something failed: when nothing is on the way any more, from base again */
    int on_way_n;
    struct { int32_t id; int batch; } on_way[WINDOW];
    int64_t offset[BATCHES_MAX]; /* where an acknowledged one is; -1 */
};
struct producer {
    struct client *c;
    int index;
    struct line lines[PARTS];
};
struct consumer {
    struct client *c;
    bool sessions;
    int32_t session, epoch, id; /* id: of the fetch on its way; -1 */
    int64_t next[PARTS];
    bool moved[PARTS];
};
static struct {
    uint64_t seed;
    uint32_t random;
    bool power;                 /* power may fail: all is acks=-1 */
    struct producer producers[PRODUCERS];
    struct consumer consumers[CONSUMERS];
    char *seen[PARTS][OFFSETS_MAX]; /* what anybody has read at that offset */
} H;

static uint32_t chance(uint32_t n)
{
    H.random = H.random * 1664525u + 1013904223u;
    return (H.random >> 8) % n;
}

static int records_before(int batch) { return batch / 3 * 6 + (int[]){0, 1, 3}[batch % 3]; }
static void value_of(char out[32], int producer, int partition, int record) { snprintf(out, 32, "%d/%d/%d", producer, partition, record); }

static struct client *connect_somewhere(void) { return client_new(chance(W.conf.shards)); }

/* ---- producers ---------------------------------------------------------------------------------------------------------------- */

static struct slice numbered(struct producer *p, int partition, int b)
{
    struct kafka_batch head = kafka_batch_plain;
    struct kafka_batch_builder k;
    struct buf out = {0};
    head.base_timestamp = now_ms();
    head.producer_id = 100 + p->index;
    head.producer_epoch = 0;
    head.base_sequence = records_before(b);
    kafka_batch_begin(&k, &out, &head);
    for (int i = 0; i < b % 3 + 1; i++) {
        char value[32];
        value_of(value, p->index, partition, records_before(b) + i);
        kafka_batch_add(&k, head.base_timestamp, slice_of(NULL, 0), slice_cstr(value), NULL, 0);
    }
    assert_int_equal(kafka_batch_end(&k, (enum kafka_codec)(b % KAFKA_CODECS)), OK);
    struct slice s = arena_slice(client_arena(p->c), buf_slice(&out));
    buf_free(&out);
    return s;
}

/* more: what was never sent, too. */
static void produce_more(struct producer *p, int partition, bool more)
{
    struct line *l = &p->lines[partition];
    if (l->again) {
        if (l->on_way_n)
            return;
        l->sent = MAX(l->sent, l->next);
        l->next = l->base;
        l->again = false;
    }
    if (!more && l->next >= l->sent)
        return;
    if (l->on_way_n == WINDOW || l->next == BATCHES_MAX || chance(3))
        return;
    struct to to = {"t", partition, numbered(p, partition, l->next)};
    l->on_way[l->on_way_n].id = client_send(p->c, KEY_PRODUCE, 9, produce_req(p->c, &to, 1, H.power || p->index ? -1 : 1));
    l->on_way[l->on_way_n++].batch = l->next++;
}

static void produced(struct producer *p, int partition, const struct kafka_produce_resp *resp)
{
    struct line *l = &p->lines[partition];
    const struct kafka_produce_resp_partition_produce_response *out = &resp->responses[0].partition_responses[0];
    int b = l->on_way[0].batch;
    memmove(l->on_way, l->on_way + 1, (size_t)--l->on_way_n * sizeof l->on_way[0]);
    switch (out->error_code) {
    case KAFKA_NONE:
        assert_true(out->base_offset >= 0);
        assert_true(l->offset[b] < 0 || l->offset[b] == out->base_offset);
        l->offset[b] = out->base_offset;
        l->base = MAX(l->base, b + 1);
        break;
    case KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER: /* one before it failed */
    case KAFKA_NOT_LEADER_OR_FOLLOWER:
    case KAFKA_KAFKA_STORAGE_ERROR:
    case KAFKA_REQUEST_TIMED_OUT:
        l->again = true;
        break;
    default:
        fail_msg("seed %u: partition %d, batch %d: %s", (unsigned)H.seed, partition, b, kafka_error_name(out->error_code));
    }
}

static void producer_step(struct producer *p, bool more)
{
    if (client_closed(p->c)) {
        client_free(p->c);
        p->c = connect_somewhere();
        for (int i = 0; i < PARTS; i++) {
            p->lines[i].again = p->lines[i].again || p->lines[i].on_way_n;
            p->lines[i].on_way_n = 0;
        }
    }
    for (int i = 0; i < PARTS; i++) {
        struct line *l = &p->lines[i];
        const void *resp;
        while (l->on_way_n && (resp = client_try(p->c, l->on_way[0].id)))
            produced(p, i, resp);
        produce_more(p, i, more);
    }
}

/* ---- consumers ----------------------------------------------------------------------------------------------------------------- */

static void saw(int partition, int64_t offset, struct slice value)
{
    char **at = &H.seen[partition][offset];
    assert_true(offset < OFFSETS_MAX);
    if (*at && !slice_is(value, *at))
        fail_msg("seed %u: offset %lld of partition %d was %s and is " SLICE_FMT, (unsigned)H.seed, (long long)offset, partition, *at, SLICE_ARG(value));
    if (!*at)
        *at = mem_strndup(MEM_MISC, value.p, value.n);
}

static void consume(struct consumer *k, const struct kafka_fetch_resp_partition_data *p)
{
    int i = p->partition_index;
    switch (p->error_code) {
    case KAFKA_NONE: break;
    case KAFKA_NOT_LEADER_OR_FOLLOWER:
    case KAFKA_KAFKA_STORAGE_ERROR: return;
    default: fail_msg("seed %u: fetch of %d at %lld: %s", (unsigned)H.seed, i, (long long)k->next[i], kafka_error_name(p->error_code));
    }
    int64_t next;
    struct slice rest = slice_cstr(values(k->c, p, k->next[i], &next));
    if (next < 0)
        return;
    while (rest.n)
        saw(i, k->next[i]++, slice_cut(rest, ' ', &rest));
    assert_int_equal(k->next[i], next); /* no gap */
    k->moved[i] = true;
}

static void consumer_send(struct consumer *k)
{
    struct from from[PARTS];
    int n = 0;
    bool all = !k->sessions || k->epoch <= 0;
    for (int i = 0; i < PARTS; i++)
        if (all || k->moved[i])
            from[n++] = (struct from){.topic = "t", .partition = i, .offset = k->next[i]};
    struct fetch_conf conf = {.wait_ms = (int32_t)chance(300), .min_bytes = chance(4) ? 1 : 500, .max_bytes = chance(2) ? 0 : 300, .part_bytes = chance(2) ? 0 : 200,
                              .isolation = (int8_t)chance(2), .sessions = k->sessions, .session = k->session, .epoch = k->epoch};
    memset(k->moved, 0, sizeof k->moved);
    k->id = client_send(k->c, KEY_FETCH, 12, fetch_req(k->c, &conf, from, n));
}

static void consumer_step(struct consumer *k)
{
    if (client_closed(k->c)) {
        client_free(k->c);
        k->c = connect_somewhere();
        k->id = -1;
        k->epoch = 0;
    }
    const struct kafka_fetch_resp *resp = k->id < 0 ? NULL : client_try(k->c, k->id);
    if (k->id >= 0 && !resp)
        return;
    if (resp && resp->error_code) {
        assert_true(resp->error_code == KAFKA_FETCH_SESSION_ID_NOT_FOUND || resp->error_code == KAFKA_INVALID_FETCH_SESSION_EPOCH);
        k->session = k->epoch = 0;
    } else if (resp) {
        for (int32_t i = 0; i < resp->responses_n; i++)
            for (int32_t j = 0; j < resp->responses[i].partitions_n; j++)
                consume(k, &resp->responses[i].partitions[j]);
        k->session = resp->session_id;
        k->epoch = k->session ? k->epoch + 1 : 0;
        client_forget(k->c);
    }
    consumer_send(k);
}

/* ---- histories -------------------------------------------------------------------------------------------------------------------- */

static void step(bool more)
{
    world_sleep(1 + chance(10));
    for (int i = 0; i < PRODUCERS; i++)
        producer_step(&H.producers[i], more);
    for (int i = 0; i < CONSUMERS; i++)
        consumer_step(&H.consumers[i]);
}

static void no_faults(void)
{
    sim_disk_fail_next(SIM_DISK_SYNC, 0, 0);
    sim_disk_fail_next(SIM_DISK_WRITE, 0, 0);
}

/* The process ends, one way or another, and begins again on a disk without faults. */
static void next_life(void)
{
    no_faults();
    switch (chance(3)) {
    case 0: world_restart(); break;
    case 1: world_crash(false); break;
    case 2: world_crash(H.power); break;
    }
}

static void steps(uint32_t n)
{
    while (n--)
        step(true);
}

/* A sync that failed and whose process was killed before it learnt of it: the next one gets a success for pages that are gone. Nobody can know; so it isn't tried. */
static void failure_noticed(void)
{
    steps(chance(30));
    no_faults();
    world_sleep(SYNC_MS_MAX * PARTS * 3); /* a round syncs files and folders one after the other */
}

static void trouble(void)
{
    switch (chance(H.power ? 10 : 8)) { /* the last two may take what acks=1 said */
    case 0:
    case 1:
    case 2: next_life(); break;
    case 3: sim_disk_slow(chance(5), 5 + chance(SYNC_MS_MAX - 5)); break;
    case 4: sim_disk_slow(0, 0); break;
    case 5: sim_disk_cold(chance(100)); break;
    case 8: /* a sync fails: that partition takes no more until it is renewed */
        sim_disk_fail_next(SIM_DISK_SYNC, chance(3), 5 /* EIO */);
        failure_noticed();
        if (chance(2))
            next_life();
        break;
    case 9: /* the sync that fails is one of what recovery found */
        no_faults();
        world_crash(false);
        sim_disk_fail_next(SIM_DISK_SYNC, chance(4), 5 /* EIO */);
        failure_noticed();
        next_life();
        break;
    case 7: sim_disk_fail_next(SIM_DISK_WRITE, chance(5), 28 /* ENOSPC */); break;
    case 6: /* a connection breaks, without a word to the broker about what is on it */
        client_free(H.producers[0].c);
        H.producers[0].c = connect_somewhere();
        for (int i = 0; i < PARTS; i++) {
            H.producers[0].lines[i].again = true;
            H.producers[0].lines[i].on_way_n = 0;
        }
        break;
    }
}

static bool all_acknowledged(void)
{
    for (int i = 0; i < PRODUCERS; i++)
        for (int k = 0; k < PARTS; k++)
            if (H.producers[i].lines[k].base < MAX(H.producers[i].lines[k].next, H.producers[i].lines[k].sent))
                return false;
    return true;
}

/* Everything that is there now, read from the start. */
static void read_all(int64_t end[PARTS])
{
    struct consumer k = {.c = connect_somewhere(), .id = -1};
    for (int i = 0; i < PARTS; i++)
        for (;;) {
            struct from from = {.topic = "t", .partition = i, .offset = k.next[i]};
            int64_t before = k.next[i];
            const struct kafka_fetch_resp *resp = client_ask(k.c, KEY_FETCH, 12, fetch_req(k.c, &(struct fetch_conf){0}, &from, 1));
            assert_int_equal(resp->responses[0].partitions[0].error_code, 0);
            consume(&k, &resp->responses[0].partitions[0]);
            end[i] = resp->responses[0].partitions[0].high_watermark;
            if (k.next[i] == before)
                break;
        }
    for (int i = 0; i < PARTS; i++)
        assert_int_equal(k.next[i], end[i]);
    client_free(k.c);
}

static void compare(const int64_t end[PARTS])
{
    char value[32];
    for (int i = 0; i < PARTS; i++) {
        int last[PRODUCERS];
        memset(last, -1, sizeof last);
        for (int64_t o = 0; o < OFFSETS_MAX; o++) {
            int producer, partition, record;
            if (o >= end[i] && H.seen[i][o])
                fail_msg("seed %u: partition %d: offset %lld was read once, and is gone", (unsigned)H.seed, i, (long long)o);
            if (o >= end[i])
                continue;
            assert_int_equal(sscanf(H.seen[i][o], "%d/%d/%d", &producer, &partition, &record), 3);
            assert_int_equal(partition, i);
            if (record != last[producer] + 1)
                fail_msg("seed %u: partition %d, offset %lld: %s comes behind record %d of its producer", (unsigned)H.seed, i, (long long)o, H.seen[i][o], last[producer]);
            last[producer] = record;
        }
        for (int p = 0; p < PRODUCERS; p++)
            for (int b = 0; b < H.producers[p].lines[i].base; b++) {
                int64_t at = H.producers[p].lines[i].offset[b];
                value_of(value, p, i, records_before(b));
                if (at < 0)
                    continue; /* acknowledged by one behind it: its own answer was lost with a connection */
                if (at >= end[i] || strcmp(H.seen[i][at], value) != 0)
                    fail_msg("seed %u: partition %d: %s was acknowledged at %lld and isn't there", (unsigned)H.seed, i, value, (long long)at);
            }
    }
}

static void history(uint64_t seed)
{
    int64_t end[PARTS];
    memset(&H, 0, sizeof H);
    H.seed = seed;
    H.random = (uint32_t)seed * 2654435761u + 1;
    H.power = seed % 3 != 0;
    world_start(&(struct world_conf){.seed = seed, .shards = 1 + chance(4), .net = {.split_pct = chance(30), .short_write_pct = chance(30), .latency_us_max = chance(2000)}});
    sim_quiet();
    world_topic("t", PARTS, NULL);
    for (int i = 0; i < PRODUCERS; i++) {
        H.producers[i].index = i;
        H.producers[i].c = connect_somewhere();
        for (int k = 0; k < PARTS; k++)
            memset(H.producers[i].lines[k].offset, -1, sizeof H.producers[i].lines[k].offset);
    }
    for (int i = 0; i < CONSUMERS; i++)
        H.consumers[i] = (struct consumer){.c = connect_somewhere(), .id = -1, .sessions = i > 0};
    for (int round = 0; round < 6; round++) {
        steps(10 + chance(30));
        trouble();
    }
    sim_disk_slow(0, 0);
    no_faults();
    if (chance(2))
        world_restart(); /* what is offline is whole again by that, or by itself */
    for (int i = 0; !all_acknowledged(); i++) {
        assert_true(i < 10000);
        step(false);
    }
    world_crash(H.power); /* what was acknowledged is certain */
    world_until(all_loaded, "t", 20000);
    read_all(end);
    compare(end);
    for (int i = 0; i < PRODUCERS; i++)
        client_free(H.producers[i].c);
    for (int i = 0; i < CONSUMERS; i++)
        client_free(H.consumers[i].c);
    world_stop();
    for (int i = 0; i < PARTS; i++)
        for (int o = 0; o < OFFSETS_MAX; o++)
            mem_free(H.seen[i][o]);
}

static void test_histories(void **state)
{
    const char *one = getenv("SIM_SEED");
    uint64_t seed, n = test_repeats(60);
    if (one) {
        assert_int_equal(slice_u64(slice_cstr(one), UINT32_MAX, &seed), OK);
        history(seed);
        return;
    }
    for (seed = 1; seed <= n; seed++)
        history(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
