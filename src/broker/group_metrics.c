/* group_metrics.c - what /metrics tells of groups: members, states, committed offsets and lag.
 *
 * Lag needs the high watermark of partitions that other shards own, and /metrics is asked for on other threads. So each shard makes the text of its
 * own groups every REPORT_MS and leaves it where any thread may copy it, under a lock that nothing on the data path takes:
 *
 *     timer -> report: every committed offset -> a call to each shard: what is the high watermark? -> all are back: text -> struct group_report
 *
 * One report is made at a time. A shard without partitions of __consumer_offsets makes none.
 */
#include "group_int.h"

#include "prom.h"

#include <pthread.h>
#include <stdio.h>

#define REPORT_MS 5000
#define REPORT_FIRST_MS 500
#define REPORT_OFFSETS_MAX 50000u /* offsets of a shard that are told; the others are left out */

enum { FAMILY_MEMBERS, FAMILY_STATE, FAMILY_OFFSET, FAMILY_LAG, FAMILIES };

/* A group and how many records it is behind, in all partitions together. */
struct group_behind {
    char name[64];        /* its beginning, perhaps */
    uint64_t lag;
};

struct group_report {
    pthread_mutex_t lock; /* text, worst */
    struct buf text[FAMILIES];
    struct group_behind worst[BROKER_TOP_GROUPS]; /* of this shard, the greatest lag first */
    uint32_t worst_n;
    struct lag_round *round; /* under way; NULL: none. The shard's own */
};

/* One committed offset, and the high watermark that its owner puts in. */
struct lag_item {
    struct slice group, topic; /* in the round's arena */
    int32_t partition;
    int64_t committed, high;   /* high -1: not known now */
    uint32_t owner;
};
struct lag_ask {
    struct call call;
    struct lag_round *round;
    uint32_t owner;
};
struct lag_round {
    struct groups *gs;         /* NULL: the shard's groups are gone meanwhile */
    struct arena arena;
    struct lag_item *items;
    uint32_t n;
    struct kafka_uuid *ids;    /* of each item's topic */
    struct lag_ask asks[SHARDS_MAX];
    uint32_t asked;            /* not back yet */
};

/* ---- the text -------------------------------------------------------------------------------------------------------------- */

static void tell_group(struct buf text[FAMILIES], const struct group *g)
{
    struct prom_label labels[] = {{"group", g->id}, {"state", slice_cstr(group_state_text(g))}};
    prom_u64(&text[FAMILY_MEMBERS], "weir_kafka_group_members", "", labels, 1, group_members_n(g));
    prom_u64(&text[FAMILY_STATE], "weir_kafka_group_state", "", labels, 2, 1);
}

static void tell_item(struct buf text[FAMILIES], const struct lag_item *it)
{
    char number[12];
    snprintf(number, sizeof number, "%d", it->partition);
    struct prom_label labels[] = {{"group", it->group}, {"topic", it->topic}, {"partition", slice_cstr(number)}};
    prom_u64(&text[FAMILY_OFFSET], "weir_kafka_group_offset", "", labels, 3, (uint64_t)MAX(it->committed, 0));
    if (it->high >= 0)
        prom_u64(&text[FAMILY_LAG], "weir_kafka_group_lag", "", labels, 3, (uint64_t)MAX(it->high - MAX(it->committed, 0), 0)); /* a client may commit any number */
}

/* Into a list of the greatest, in order. */
static void worst_put(struct group_behind *list, uint32_t *n, const struct group_behind *g)
{
    uint32_t at = *n;
    while (at > 0 && list[at - 1].lag < g->lag)
        at--;
    if (at == BROKER_TOP_GROUPS)
        return;
    *n = MIN(*n + 1, (uint32_t)BROKER_TOP_GROUPS);
    memmove(&list[at + 1], &list[at], (*n - at - 1) * sizeof *list);
    list[at] = *g;
}

/* A group's items stand together. */
static uint32_t worst_find(const struct lag_round *round, struct group_behind *list)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < round->n;) {
        struct slice name = round->items[i].group;
        struct group_behind g = {.lag = 0};
        size_t fits = MIN(name.n, sizeof g.name - 1);
        memcpy(g.name, name.p, fits);
        for (; i < round->n && slice_eq(round->items[i].group, name); i++)
            g.lag += round->items[i].high > round->items[i].committed ? (uint64_t)(round->items[i].high - MAX(round->items[i].committed, 0)) : 0;
        worst_put(list, &n, &g);
    }
    return n;
}

static void round_free(struct lag_round *round)
{
    arena_fini(&round->arena);
    mem_free(round);
}

static void round_over(struct lag_round *round)
{
    struct groups *gs = round->gs;
    struct group_report *report = gs->text;
    struct buf text[FAMILIES] = {{0}}, old[FAMILIES];
    struct group_behind worst[BROKER_TOP_GROUPS] = {0};
    uint32_t worst_n = worst_find(round, worst);
    for (uint32_t p = 0; p < gs->parts_n; p++)
        if (gs->parts[p] && gs->parts[p]->state == GROUP_PART_ACTIVE)
            for (struct table_slot *s = NULL; (s = table_next(&gs->parts[p]->groups, s));)
                tell_group(text, s->value);
    for (uint32_t i = 0; i < round->n; i++)
        tell_item(text, &round->items[i]);
    pthread_mutex_lock(&report->lock);
    memcpy(old, report->text, sizeof old);
    memcpy(report->text, text, sizeof text);
    memcpy(report->worst, worst, sizeof worst);
    report->worst_n = worst_n;
    pthread_mutex_unlock(&report->lock);
    for (int f = 0; f < FAMILIES; f++)
        buf_free(&old[f]);
    report->round = NULL;
    round_free(round);
    if (!gs->stopping)
        timer_set(gs->here->loop, &gs->report, REPORT_MS);
}

/* ---- asking the owners ------------------------------------------------------------------------------------------------------- */

static void lag_back(struct shard *here, struct call *c)
{
    struct lag_round *round = CONTAINER_OF(c, struct lag_ask, call)->round;
    (void)here;
    if (--round->asked == 0)
        round_over(round);
}

static void lag_asked(struct shard *here, struct call *c)
{
    struct lag_ask *ask = CONTAINER_OF(c, struct lag_ask, call);
    struct lag_round *round = ask->round;
    for (uint32_t i = 0; i < round->n; i++) {
        if (round->items[i].owner != ask->owner)
            continue;
        struct bpart *p = shard_part(here, &round->ids[i], round->items[i].partition);
        struct part_offsets o;
        if (!p || !p->part)
            continue;
        part_offsets(p->part, &o);
        round->items[i].high = o.high;
    }
    c->fn = lag_back;
    shard_call(here, round->gs->here, c);
}

static void round_collect(struct lag_round *round, const struct group *g)
{
    struct shard *here = round->gs->here;
    for (struct table_slot *s = NULL; (s = table_next(&g->offsets, s)) && round->n < REPORT_OFFSETS_MAX;) {
        const struct goffset *o = s->value;
        const struct topic *t = o->committed ? catalog_topic(here->catalog, o->topic) : NULL;
        if (!t)
            continue;
        round->ids[round->n] = t->id;
        round->items[round->n++] = (struct lag_item){.group = arena_slice(&round->arena, g->id), .topic = arena_slice(&round->arena, o->topic), .partition = o->partition,
                                                     .committed = o->v.offset, .high = -1, .owner = shard_of_part(here->b, &t->id, o->partition)->index};
    }
}

static void report_begin(struct timer *t)
{
    struct groups *gs = CONTAINER_OF(t, struct groups, report);
    struct lag_round *round = mem_new(MEM_METRIC, sizeof *round);
    uint32_t n = (uint32_t)MIN(counter_read(&gs->count.offsets), REPORT_OFFSETS_MAX);
    round->gs = gs;
    arena_init(&round->arena, MEM_METRIC, 64 * 1024);
    round->items = arena_alloc(&round->arena, MAX(n, 1) * sizeof *round->items);
    round->ids = arena_alloc(&round->arena, MAX(n, 1) * sizeof *round->ids);
    for (uint32_t p = 0; p < gs->parts_n; p++)
        if (gs->parts[p] && gs->parts[p]->state == GROUP_PART_ACTIVE)
            for (struct table_slot *s = NULL; (s = table_next(&gs->parts[p]->groups, s));)
                round_collect(round, s->value);
    gs->text->round = round;
    round->asked = gs->here->b->shards_n;
    for (uint32_t i = 0; i < gs->here->b->shards_n; i++) {
        round->asks[i] = (struct lag_ask){.call.fn = lag_asked, .round = round, .owner = i};
        shard_call(gs->here, gs->here->b->shards[i], &round->asks[i].call);
    }
}

/* ---- its life ------------------------------------------------------------------------------------------------------------------ */

void group_metrics_init(struct groups *gs)
{
    gs->text = mem_new(MEM_METRIC, sizeof *gs->text);
    pthread_mutex_init(&gs->text->lock, NULL);
    timer_init(&gs->report, report_begin);
}

void group_metrics_begin(struct groups *gs)
{
    if (!timer_is_set(&gs->report) && !gs->text->round)
        timer_set(gs->here->loop, &gs->report, REPORT_FIRST_MS);
}

void group_metrics_stop(struct groups *gs) { timer_clear(&gs->report); }

void group_metrics_fini(struct groups *gs)
{
    if (gs->text->round)
        round_free(gs->text->round); /* no loop runs any more */
    for (int f = 0; f < FAMILIES; f++)
        buf_free(&gs->text->text[f]);
    pthread_mutex_destroy(&gs->text->lock);
    mem_free(gs->text);
}

/* ---- any thread -------------------------------------------------------------------------------------------------------------------- */

static void tell_family(struct broker *b, struct buf *out, int family)
{
    for (uint32_t i = 0; i < b->shards_n; i++) {
        struct groups *gs = b->shards[i]->groups;
        if (!gs)
            continue;
        pthread_mutex_lock(&gs->text->lock);
        buf_add_slice(out, buf_slice(&gs->text->text[family]));
        pthread_mutex_unlock(&gs->text->lock);
    }
}

void group_top(struct broker *b, struct buf *out)
{
    struct group_behind all[BROKER_TOP_GROUPS] = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->shards_n; i++) {
        struct groups *gs = b->shards[i]->groups;
        if (!gs)
            continue;
        pthread_mutex_lock(&gs->text->lock);
        for (uint32_t k = 0; k < gs->text->worst_n; k++)
            worst_put(all, &n, &gs->text->worst[k]);
        pthread_mutex_unlock(&gs->text->lock);
    }
    buf_addc(out, '[');
    for (uint32_t k = 0; k < n; k++) {
        buf_adds(out, k ? ",{\"name\":" : "{\"name\":");
        buf_add_json(out, slice_cstr(all[k].name));
        buf_printf(out, ",\"lag\":%llu}", (unsigned long long)all[k].lag);
    }
    buf_addc(out, ']');
}

static void tell_counters(struct broker *b, struct buf *out)
{
    static const struct { const char *name, *help; enum prom_type type; size_t at; } all[] = {
#define C(field, type, name, help) {"weir_kafka_" name, help, type, offsetof(struct group_counters, field)}
        C(groups, PROM_GAUGE, "groups", "Consumer groups, also those without members."),
        C(offsets, PROM_GAUGE, "group_offsets", "Committed and pending offsets in memory."),
        C(joins, PROM_COUNTER, "group_joins_total", "JoinGroup requests."),
        C(rebalances, PROM_COUNTER, "group_rebalances_total", "Generations begun."),
        C(heartbeats, PROM_COUNTER, "group_heartbeats_total", "Heartbeat requests."),
        C(sessions_ended, PROM_COUNTER, "group_sessions_ended_total", "Members removed because nothing was heard of them."),
        C(commits, PROM_COUNTER, "group_commits_total", "OffsetCommit and TxnOffsetCommit requests."),
        C(offsets_committed, PROM_COUNTER, "group_offsets_committed_total", "Offsets committed."),
        C(offsets_expired, PROM_COUNTER, "group_offsets_expired_total", "Offsets dropped by retention or with their topic."),
        C(write_failed, PROM_COUNTER, "group_write_failures_total", "Batches that could not be written into __consumer_offsets."),
        C(load_skipped, PROM_COUNTER, "group_load_skipped_total", "Records of __consumer_offsets that were not understood."),
        C(limit_groups, PROM_COUNTER, "group_refused_groups_total", "Groups refused: there are too many."),
        C(limit_size, PROM_COUNTER, "group_refused_members_total", "Members refused: their group is too large."),
        C(limit_metadata, PROM_COUNTER, "group_refused_metadata_total", "Members refused: their protocols are too large."),
        C(limit_batch, PROM_COUNTER, "group_refused_batches_total", "Groups and commits too large for one batch of records."),
        C(limit_offset_metadata, PROM_COUNTER, "group_refused_offset_metadata_total", "Offsets refused: their metadata is too large."),
        C(limit_owned, PROM_COUNTER, "group_refused_owned_total", "Heartbeats refused: they name too many partitions as their member's."),
#undef C
    };
    for (size_t k = 0; k < COUNT_OF(all); k++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < b->shards_n; i++)
            if (b->shards[i]->groups)
                sum += counter_read((const counter *)(const void *)((const char *)&b->shards[i]->groups->count + all[k].at));
        prom_family(out, all[k].name, all[k].type, all[k].help);
        prom_u64(out, all[k].name, "", NULL, 0, sum);
    }
}

void group_metrics(struct broker *b, struct buf *out)
{
    static const struct { const char *name, *help; } families[FAMILIES] = {
        {"weir_kafka_group_members", "Members of a consumer group."},
        {"weir_kafka_group_state", "1 for the state that a consumer group is in."},
        {"weir_kafka_group_offset", "What a consumer group has committed."},
        {"weir_kafka_group_lag", "Records behind what a consumer group has committed; no more than a few seconds old."},
    };
    for (int f = 0; f < FAMILIES; f++) {
        prom_family(out, families[f].name, PROM_GAUGE, families[f].help);
        tell_family(b, out, f);
    }
    tell_counters(b, out);
}
