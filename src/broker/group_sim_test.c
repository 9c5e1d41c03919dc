/* group_sim_test.c - many histories of one group: members come, crash, leave, are slow, connections break, the broker is stopped, killed, loses power.
 *
 * The actors do what consumers do: join, let the leader assign the partitions, sync, fetch what is committed, commit one more each time, beat. What must hold,
 * in every history:
 *
 *   1. a generation has one assignment: no partition has two owners in it, and what a member is told does not change
 *   2. once a SyncGroup of a generation was answered, no commit of an older one that is sent afterwards succeeds
 *   3. what is fetched is at least the last commit that was acknowledged, and at most the last one that was sent
 *   4. when the trouble ends, all members that live soon share one generation and all partitions
 */
#include "group_world_test.h"

#include <stdio.h>
#include <stdlib.h>

#define ACTORS 6
#define PARTS 8
#define GENERATIONS 4096
#define STEP_MS 40
#define STEPS 2500
#define CALM_MS 120000

enum phase { AWAY, JOIN, JOINING, SYNCING, FETCHING, OWNING };
struct actor {
    struct tm m;
    enum phase phase;
    bool up;                  /* its process runs; m.c is there */
    uint64_t wake_ms;         /* it does nothing before */
    uint64_t beat_ms;         /* next heartbeat */
    uint32_t owned;           /* bit per partition */
    int fetch_part;           /* FETCHING: which is asked for */
    int32_t request;          /* of a fetch, commit or heartbeat under way; 0: none */
    enum { NOTHING, BEAT, COMMIT, FETCH } asked;
    int64_t floor;            /* what was acknowledged of the partition when the fetch was sent */
    int commit_part;
    int64_t commit_offset;
    int32_t commit_generation;
    int32_t commit_sent_max;  /* greatest generation that was synced when the commit was sent */
    int64_t next[PARTS];      /* what it commits next */
};

static struct actor A[ACTORS];
static struct {
    uint32_t seed;
    uint8_t owner[GENERATIONS][PARTS]; /* actor + 1, as told by SyncGroup */
    int64_t acked[PARTS], sent[PARTS];
    int32_t synced_max;
    uint32_t commits, syncs;
} H;

static uint32_t chance(uint32_t n)
{
    H.seed = H.seed * 1664525u + 1013904223u;
    return (H.seed >> 8) % n;
}

static uint64_t now_ms(void) { return loop_now_ms(W.client_loop); }

/* ---- an actor's process ----------------------------------------------------------------------------------------------------- */

static void actor_connect(struct actor *a)
{
    a->m.c = client_new(chance(W.conf.shards));
    a->request = 0;
    a->asked = NOTHING;
}

static void actor_up(struct actor *a)
{
    int i = (int)(a - A);
    struct client *c;
    *a = (struct actor){.up = true, .phase = JOIN};
    tm_init(&a->m, chance(W.conf.shards), "g");
    c = a->m.c;
    a->m.session_ms = 6000;
    a->m.rebalance_ms = 8000;
    if (i % 3 == 0)
        snprintf(a->m.instance, sizeof a->m.instance, "static-%d", i);
    MUST(c);
}

static void actor_down(struct actor *a, bool leaves)
{
    if (leaves && a->m.id[0] && !client_closed(a->m.c)) {
        struct kafka_leave_group_req q;
        struct kafka_leave_group_req_member_identity who;
        kafka_leave_group_req_init(&q);
        kafka_leave_group_req_member_identity_init(&who);
        q.group_id = SLICE("g");
        q.members = &who;
        q.members_n = 1;
        who.member_id = slice_cstr(a->m.id);
        if (a->m.instance[0])
            who.group_instance_id = slice_cstr(a->m.instance);
        client_send(a->m.c, KEY_LEAVE_GROUP, 4, &q);
        world_sleep(20);
    }
    client_free(a->m.c);
    a->m.c = NULL;
    a->up = false;
    a->owned = 0;
    a->phase = AWAY;
}

static void rejoin(struct actor *a, bool forget)
{
    if (forget)
        a->m.id[0] = '\0';
    a->phase = JOIN;
    a->owned = 0;
}

static void rest(struct actor *a, uint32_t ms) { a->wake_ms = now_ms() + ms; }

/* What an error means to a consumer. */
static void actor_error(struct actor *a, enum kafka_error e)
{
    switch (e) {
    case KAFKA_NONE: return;
    case KAFKA_MEMBER_ID_REQUIRED:
    case KAFKA_REBALANCE_IN_PROGRESS: rejoin(a, false); break;
    case KAFKA_UNKNOWN_MEMBER_ID:
    case KAFKA_ILLEGAL_GENERATION:
    case KAFKA_FENCED_INSTANCE_ID: rejoin(a, true); break;
    case KAFKA_NOT_COORDINATOR:
    case KAFKA_COORDINATOR_NOT_AVAILABLE:
    case KAFKA_COORDINATOR_LOAD_IN_PROGRESS:
        if (a->phase == JOINING || a->phase == SYNCING)
            rejoin(a, false);
        rest(a, 100);
        break;
    default: fail_msg("an actor is told %s", kafka_error_name(e));
    }
}

/* ---- joining ------------------------------------------------------------------------------------------------------------------- */

/* The leader deals the partitions out: each member's is text like "0,3,6". */
static void deal(struct actor *a)
{
    const struct kafka_join_group_resp *resp = client_try(a->m.c, a->m.join_id);
    struct kafka_sync_group_req q;
    struct kafka_sync_group_req_sync_group_request_assignment as[ACTORS * 4];
    char text[ACTORS * 4][3 * PARTS] = {{0}};
    uint32_t first = chance(PARTS);
    kafka_sync_group_req_init(&q);
    q.group_id = SLICE("g");
    q.generation_id = a->m.generation;
    q.member_id = slice_cstr(a->m.id);
    if (a->m.instance[0])
        q.group_instance_id = slice_cstr(a->m.instance);
    q.assignments = as;
    if (a->m.leads && !a->m.skip) {
        MUST(resp->members_n <= ACTORS * 4);
        for (uint32_t p = 0; p < PARTS; p++) {
            char *t = text[(p + first) % (uint32_t)resp->members_n];
            snprintf(t + strlen(t), 3 * PARTS - strlen(t), "%u,", p);
        }
        for (int32_t i = 0; i < resp->members_n; i++)
            as[q.assignments_n++] = (struct kafka_sync_group_req_sync_group_request_assignment){.member_id = resp->members[i].member_id, .assignment = slice_cstr(text[i])};
    }
    a->m.sync_id = client_send(a->m.c, KEY_SYNC_GROUP, 4, &q);
    a->phase = SYNCING;
}

static void joined(struct actor *a)
{
    enum kafka_error e = tm_join_await(&a->m);
    if (e)
        actor_error(a, e);
    else
        deal(a);
}

/* 1. */
static void own(struct actor *a)
{
    int32_t g = a->m.generation;
    MUST(g >= 0 && g < GENERATIONS);
    a->owned = 0;
    for (struct slice rest_of = slice_cstr(a->m.assignment), word; rest_of.n;) {
        word = slice_cut(rest_of, ',', &rest_of);
        uint32_t p = (uint32_t)(word.p[0] - '0');
        assert_true(p < PARTS);
        uint8_t *owner = &H.owner[g][p];
        assert_true(*owner == 0 || *owner == (uint8_t)(a - A + 1));
        *owner = (uint8_t)(a - A + 1);
        a->owned |= 1u << p;
    }
    for (uint32_t p = 0; p < PARTS; p++)
        assert_true(H.owner[g][p] != (uint8_t)(a - A + 1) || a->owned & 1u << p);
    H.synced_max = MAX(H.synced_max, g);
    H.syncs++;
    a->beat_ms = now_ms() + 500;
    a->fetch_part = 0;
    a->phase = FETCHING;
}

static void synced(struct actor *a)
{
    enum kafka_error e = tm_sync_await(&a->m);
    if (e)
        actor_error(a, e);
    else
        own(a);
}

/* ---- owning ---------------------------------------------------------------------------------------------------------------------- */

static void ask_beat(struct actor *a)
{
    struct kafka_heartbeat_req q;
    kafka_heartbeat_req_init(&q);
    q.group_id = SLICE("g");
    q.generation_id = a->m.generation;
    q.member_id = slice_cstr(a->m.id);
    if (a->m.instance[0])
        q.group_instance_id = slice_cstr(a->m.instance);
    a->request = client_send(a->m.c, KEY_HEARTBEAT, 3, &q);
    a->asked = BEAT;
    a->beat_ms = now_ms() + 500;
}

static void ask_fetch(struct actor *a)
{
    struct kafka_offset_fetch_req q;
    struct kafka_offset_fetch_req_offset_fetch_request_topic t = {.name = SLICE("t"), .partition_indexes_n = 1};
    int32_t part = a->fetch_part;
    a->floor = H.acked[part];
    t.partition_indexes = &part;
    kafka_offset_fetch_req_init(&q);
    q.group_id = SLICE("g");
    q.topics = &t;
    q.topics_n = 1;
    a->request = client_send(a->m.c, KEY_OFFSET_FETCH, 5, &q);
    a->asked = FETCH;
}

static void ask_commit(struct actor *a)
{
    int p = (int)chance(PARTS);
    for (int i = 0; i < PARTS && !(a->owned & 1u << p); i++)
        p = (p + 1) % PARTS;
    struct kafka_offset_commit_req q;
    struct kafka_offset_commit_req_offset_commit_request_topic t;
    struct kafka_offset_commit_req_offset_commit_request_partition part;
    if (!(a->owned & 1u << p))
        return;
    kafka_offset_commit_req_init(&q);
    kafka_offset_commit_req_offset_commit_request_topic_init(&t);
    kafka_offset_commit_req_offset_commit_request_partition_init(&part);
    q.group_id = SLICE("g");
    a->commit_generation = chance(20) ? a->m.generation : a->m.generation - 1; /* as if it had been on the way since then */
    q.generation_id_or_member_epoch = a->commit_generation;
    q.member_id = slice_cstr(a->m.id);
    if (a->m.instance[0])
        q.group_instance_id = slice_cstr(a->m.instance);
    q.topics = &t;
    q.topics_n = 1;
    t.name = SLICE("t");
    t.partitions = &part;
    t.partitions_n = 1;
    part.partition_index = p;
    part.committed_offset = a->commit_offset = a->next[p];
    a->commit_part = p;
    a->commit_sent_max = H.synced_max;
    H.sent[p] = MAX(H.sent[p], a->commit_offset);
    a->request = client_send(a->m.c, KEY_OFFSET_COMMIT, 7, &q);
    a->asked = COMMIT;
}

static void fetched(struct actor *a, const struct kafka_offset_fetch_resp *resp)
{
    if (resp->error_code) {
        actor_error(a, (enum kafka_error)resp->error_code);
        return;
    }
    int64_t offset = resp->topics[0].partitions[0].committed_offset;
    int p = a->fetch_part++;
    assert_int_equal(resp->topics[0].partitions[0].error_code, 0);
    assert_true(offset >= a->floor && offset <= H.sent[p]); /* 3. */
    a->next[p] = offset + 1;
    if (a->fetch_part == PARTS)
        a->phase = OWNING;
}

static void committed(struct actor *a, const struct kafka_offset_commit_resp *resp)
{
    enum kafka_error e = (enum kafka_error)resp->topics[0].partitions[0].error_code;
    if (e) {
        if (a->commit_generation == a->m.generation)
            actor_error(a, e);
        return;
    }
    assert_true(a->commit_generation >= a->commit_sent_max); /* 2. */
    H.acked[a->commit_part] = MAX(H.acked[a->commit_part], a->commit_offset);
    a->next[a->commit_part] = a->commit_offset + 1;
    H.commits++;
}

static void answered(struct actor *a, const void *resp)
{
    int asked = a->asked;
    a->request = 0;
    a->asked = NOTHING;
    if (asked == BEAT)
        actor_error(a, (enum kafka_error)((const struct kafka_heartbeat_resp *)resp)->error_code);
    else if (asked == FETCH)
        fetched(a, resp);
    else
        committed(a, resp);
}

static void own_step(struct actor *a)
{
    if (a->request) {
        const void *resp = client_try(a->m.c, a->request);
        if (resp)
            answered(a, resp);
    } else if (now_ms() >= a->beat_ms) {
        ask_beat(a);
    } else if (a->phase == FETCHING) {
        ask_fetch(a);
    } else {
        ask_commit(a);
    }
}

static void actor_step(struct actor *a)
{
    if (!a->up || now_ms() < a->wake_ms)
        return;
    if (client_closed(a->m.c)) {
        client_free(a->m.c);
        actor_connect(a);
        if (a->phase != OWNING && a->phase != FETCHING)
            a->phase = JOIN;
        return;
    }
    switch (a->phase) {
    case AWAY: break;
    case JOIN:
        tm_join_send(&a->m);
        a->phase = JOINING;
        break;
    case JOINING:
        if (tm_join_come(&a->m))
            joined(a);
        break;
    case SYNCING:
        if (tm_sync_come(&a->m))
            synced(a);
        break;
    case FETCHING:
    case OWNING: own_step(a); break;
    }
}

/* ---- trouble ------------------------------------------------------------------------------------------------------------------------- */

static void trouble(void)
{
    struct actor *a = &A[chance(ACTORS)];
    switch (chance(200)) {
    case 0:
    case 1:
        if (a->up)
            actor_down(a, false);
        break;
    case 2:
        if (a->up)
            actor_down(a, true);
        break;
    case 3:
    case 4:
    case 5:
        if (!a->up)
            actor_up(a);
        break;
    case 6: rest(a, 1000 + chance(14000)); break; /* a long pause: perhaps it is out meanwhile */
    case 7:
        if (a->up) { /* its connection breaks */
            client_free(a->m.c);
            actor_connect(a);
            if (a->phase == JOINING || a->phase == SYNCING)
                a->phase = JOIN;
        }
        break;
    case 8:
        if (chance(4) == 0)
            world_restart();
        break;
    case 9:
        if (chance(2) == 0)
            world_crash(chance(2) == 0);
        break;
    default: break;
    }
}

static bool all_settled(void)
{
    uint32_t owned = 0;
    int32_t generation = -1;
    for (int i = 0; i < ACTORS; i++) {
        struct actor *a = &A[i];
        if (!a->up)
            continue;
        if (a->phase != OWNING || (generation >= 0 && a->m.generation != generation) || owned & a->owned)
            return false;
        generation = a->m.generation;
        owned |= a->owned;
    }
    return owned == (1u << PARTS) - 1;
}

static void step(void)
{
    for (int i = 0; i < ACTORS; i++)
        actor_step(&A[(i + (int)chance(ACTORS)) % ACTORS]);
    world_sleep(STEP_MS);
}

static void history(uint64_t seed)
{
    memset(&H, 0, sizeof H);
    H.seed = (uint32_t)seed * 2654435761u + 1;
    for (int p = 0; p < PARTS; p++)
        H.acked[p] = H.sent[p] = -1;
    world_start(&(struct world_conf){.seed = seed, .shards = 1 + (uint32_t)seed % 4});
    world_topic("t", PARTS, NULL);
    struct client *c = client_new(0);
    group_ready(c, "g");
    client_free(c);
    for (int i = 0; i < ACTORS; i++)
        actor_up(&A[i]);
    for (int i = 0; i < STEPS; i++) {
        trouble();
        step();
    }
    for (int i = 0; i < ACTORS; i++)
        if (!A[i].up)
            actor_up(&A[i]);
    uint64_t until = now_ms() + CALM_MS;
    while (!all_settled() && now_ms() < until)
        step();
    assert_true(all_settled()); /* 4. */
    for (int i = 0; i < ACTORS; i++)
        client_free(A[i].m.c);
    world_stop();
}

static void test_histories(void **state)
{
    (void)state;
    const char *one = getenv("SEED"), *many = getenv("SEEDS");
    uint64_t seed = 0, n = 30, commits = 0, syncs = 0;
    if (one) {
        assert_int_equal(slice_u64(slice_cstr(one), UINT32_MAX, &seed), OK);
        history(seed);
        return;
    }
    if (many)
        assert_int_equal(slice_u64(slice_cstr(many), UINT32_MAX, &n), OK);
    for (seed = 1; seed <= n; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        history(seed);
        commits += H.commits;
        syncs += H.syncs;
    }
    print_message("%u commits, %u assignments\n", (unsigned)commits, (unsigned)syncs);
    assert_true(commits > 100 * n && syncs > 10 * n); /* else nothing was tried */
}

int main(void)
{
    log_start(LOG_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_stop();
    return failed;
}
