/* group_load_fuzz.c - records of __consumer_offsets are read again, whatever is in them: clients of the name __admin_client may write there.
 *
 *     input = {flags:1 producer:1 key_n:2 value_n:2 key value}*      flags: 1 the value is null, 2 transactional, 4 a marker, 8 that commits
 *
 * What has been taken in is written again and taken in once more, and then all of it goes: the counts of groups, members and offsets must be zero.
 */
#include "frame_int.h"
#include "consumer_group_int.h"
#include "sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct broker B;
static struct shard S;

static void world(void)
{
    if (S.groups)
        return;
    sim_start(&(struct sim_conf){.seed = 1});
    broker_conf_default(&B.conf);
    B.shards_n = 1;
    B.shards[0] = &S;
    S = (struct shard){.b = &B, .loop = loop_new("fuzz"), .catalog = catalog_new()};
    groups_module.init(&S);
}

static uint16_t two(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static void take(struct group_part *gp, struct slice key, struct slice value, uint8_t flags, uint8_t producer, int64_t at)
{
    struct kafka_batch b = kafka_batch_plain;
    struct kafka_record rec = {.key = key, .value = value};
    struct arena a;
    if (flags & 4) {
        group_txn_end(gp, producer, flags & 8);
        return;
    }
    b.base_offset = at;
    b.producer_id = producer;
    b.attributes = flags & 2 ? KAFKA_BATCH_TRANSACTIONAL : 0;
    arena_init(&a, MEM_BROKER, 4096);
    (void)group_take_record(gp, &rec, &b, &a);
    arena_fini(&a);
}

/* Takes in every record that was written. */
static void again_records(struct group_part *gp, struct group_write *w)
{
    struct kafka_batch b;
    struct kafka_record rec;
    MUST(kafka_batch_end(&w->build, KAFKA_CODEC_NONE) == OK && kafka_batch_parse(buf_slice(&w->bytes), &b) == KAFKA_NONE);
    struct slice rest = b.records;
    for (int32_t i = 0; i < b.count; i++) {
        struct arena a;
        arena_init(&a, MEM_BROKER, 4096);
        MUST(kafka_record_next(&rest, &rec) == OK && group_take_record(gp, &rec, &b, &a));
        arena_fini(&a);
    }
}

/* Every group as it would be written, read again. */
static void again(struct group_part *gp)
{
    for (struct table_slot *s = NULL; (s = table_next(&gp->groups, s));) {
        struct group *g = s->value;
        struct group_write w = {0};
        size_t members = group_members_n(g);
        group_write_begin(&w, gp, -1, -1);
        if (g->consumer)
            consumers_write_all(&w, g->consumer);
        else
            group_write_group(&w, g, false);
        again_records(gp, &w);
        MUST(group_members_n(g) == members);
        group_write_drop(&w);
        group_wake_members(g);
        (void)group_choose_protocol(g);
        (void)group_subscribed(g, SLICE("t"));
        if (g->consumer)
            consumers_assign(g->consumer, S.catalog);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct group_part *gp = mem_new(MEM_BROKER, sizeof *gp);
    const struct group_counters *count;
    world();
    gp->gs = S.groups;
    count = &S.groups->count;
    for (int64_t at = 0; n >= 6; at++) {
        size_t key_n = MIN((size_t)two(data + 2), n - 6), value_n = MIN((size_t)two(data + 4), n - 6 - key_n);
        struct slice value = slice_of((const char *)data + 6 + key_n, value_n);
        take(gp, slice_of((const char *)data + 6, key_n), data[0] & 1 ? (struct slice){NULL, 0} : value, data[0], data[1], at);
        data += 6 + key_n + value_n;
        n -= 6 + key_n + value_n;
    }
    again(gp);
    for (struct table_slot *s; (s = table_next(&gp->groups, NULL));)
        group_kill(s->value, KAFKA_NOT_COORDINATOR);
    group_txns_fini(gp);
    table_fini(&gp->groups);
    mem_free(gp);
    MUST(counter_read(&count->groups) == 0 && counter_read(&count->members) == 0 && counter_read(&count->offsets) == 0);
    return 0;
}
