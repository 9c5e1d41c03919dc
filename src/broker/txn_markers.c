/* txn_markers.c - the ends of transactions: from the coordinator to the owners of the partitions and back.
 *
 *     coordinator: txn_markers_send()                                 owner of some partitions: round_arrived()
 *        one marker_round per owner shard  ---- shard_call() ---->       a control batch is appended to each, acks=all
 *        round_back(): what failed stays in todo  <-- shard_call() --     the last one is durable (or has failed)
 *        the last round: txn_marked()
 *
 * A round belongs to the coordinator before it is sent and after it is back, and to the owner between. What a partition says:
 * NONE: written; UNKNOWN_TOPIC_OR_PARTITION with a catalog that has it no more: no marker is needed; a newer producer epoch: none either; else: again.
 */
#include "txn_int.h"

#define MARKER_BYTES 128           /* a control batch has 78 */

struct marker {
    struct append append;
    struct marker_round *round;
    struct slice topic;            /* in the round */
    int32_t partition;
    enum kafka_error error;
    char batch[MARKER_BYTES];
};
struct marker_round {
    struct call call;
    struct list link;              /* on txns.rounds of the coordinator */
    struct list txn_link;          /* on txn.rounds */
    struct txn *txn;
    struct shard *home, *at;       /* coordinator, owner */
    int64_t producer_id;
    int32_t coordinator_epoch;
    int16_t epoch;
    bool commit;
    char *names;                   /* the topics' */
    uint32_t n, left;
    struct marker markers[];
};

/* ---- at the owner ------------------------------------------------------------------------------------------------------------ */

static void round_back(struct shard *here, struct call *c);

static void marker_done(struct marker *m, enum kafka_error e)
{
    struct marker_round *r = m->round;
    m->error = e;
    if (e == KAFKA_NONE) {
        counter_inc(&r->at->txns->counters.markers);
        struct bpart *p = slice_eq(m->topic, OFFSETS_TOPIC) ? shard_part_named(r->at, m->topic, m->partition) : NULL;
        if (p)
            groups_txn_marker(r->at, p, r->producer_id, r->commit);
    }
    if (--r->left)
        return;
    r->call.fn = round_back;
    shard_call(r->at, r->home, &r->call);
}

static void appended(struct append *a)
{
    struct marker *m = CONTAINER_OF(a, struct marker, append);
    marker_done(m, a->error);
}

static void marker_append(struct marker *m, struct slice batch)
{
    struct marker_round *r = m->round;
    struct bpart *p = shard_part_named(r->at, m->topic, m->partition);
    enum kafka_error e = p && p->part ? KAFKA_NONE : KAFKA_NOT_LEADER_OR_FOLLOWER;
    if (e != KAFKA_NONE) {
        marker_done(m, e);
        return;
    }
    MUST(batch.n <= MARKER_BYTES);
    memcpy(m->batch, batch.p, batch.n);
    m->append = (struct append){.bytes = m->batch, .acks = -1, .coordinator = true, .coordinator_epoch = r->coordinator_epoch, .done = appended};
    list_init(&m->append.link);
    MUST(kafka_batch_parse(slice_of(m->batch, batch.n), &m->append.batch) == KAFKA_NONE);
    part_append(p->part, &m->append);
}

static void round_arrived(struct shard *here, struct call *c)
{
    struct marker_round *r = CONTAINER_OF(c, struct marker_round, call);
    struct buf b = {0};
    struct kafka_batch head = kafka_batch_plain;
    head.attributes = KAFKA_BATCH_TRANSACTIONAL | KAFKA_BATCH_CONTROL;
    head.base_timestamp = txn_wall_ms();
    head.producer_id = r->producer_id;
    head.producer_epoch = r->epoch;
    kafka_batch_marker(&b, &head, r->commit ? KAFKA_MARKER_COMMIT : KAFKA_MARKER_ABORT, r->coordinator_epoch);
    MUST(here == r->at);
    r->left = r->n + 1; /* so that it is not sent back within the loop */
    for (uint32_t i = 0; i < r->n; i++)
        marker_append(&r->markers[i], buf_slice(&b));
    buf_free(&b);
    if (--r->left)
        return;
    r->call.fn = round_back;
    shard_call(r->at, r->home, &r->call);
}

/* ---- at the coordinator --------------------------------------------------------------------------------------------------------- */

static void round_free(struct marker_round *r)
{
    list_del(&r->link);
    list_del(&r->txn_link);
    mem_free(r->names);
    mem_free(r);
}

/* Whether this partition must be tried again. */
static bool marker_failed(struct txn *t, const struct marker *m)
{
    char name[TXN_LABEL];
    switch (m->error) {
    case KAFKA_NONE: return false;
    case KAFKA_INVALID_PRODUCER_EPOCH:
    case KAFKA_PRODUCER_FENCED:
    case KAFKA_TRANSACTION_COORDINATOR_FENCED:
        log_warn("broker", SLICE_FMT "-%d knows a newer epoch of the producer of \"%s\": its transaction needs no marker there (%s)", SLICE_ARG(m->topic), m->partition,
                 txn_label(t->id, name), kafka_error_name(m->error));
        return false;
    default: return true;
    }
}

static void round_back(struct shard *here, struct call *c)
{
    struct marker_round *last = CONTAINER_OF(c, struct marker_round, call);
    struct txn *t = last->txn;
    if (--t->rounds_out)
        return;
    struct txn_parts again = {0};
    LIST_FOREACH (it, &t->rounds) {
        struct marker_round *r = CONTAINER_OF(it, struct marker_round, txn_link);
        for (uint32_t i = 0; i < r->n && !t->dead; i++)
            if (marker_failed(t, &r->markers[i]))
                txn_parts_add(&again, r->markers[i].topic, r->markers[i].partition);
        round_free(r);
    }
    txn_parts_clear(&t->todo);
    t->todo = again;
    txn_marked(t);
    if (here->txns->stopping)
        shard_rested(here);
}

/* The owner of a partition, as the coordinator's catalog has it; NULL: it is there no more. */
static struct shard *owner_of(struct shard *here, const struct txn_topic *topic, int32_t partition)
{
    struct topic *t = catalog_topic(here->catalog, slice_cstr(topic->name));
    return t && partition >= 0 && partition < t->partitions ? shard_of_part(here->b, &t->id, partition) : NULL;
}

static struct marker_round *round_new(struct txn *t, struct shard *at, uint32_t n)
{
    struct part_offsets o;
    struct marker_round *r = mem_new(MEM_BROKER, sizeof *r + n * sizeof *r->markers);
    size_t names = 0;
    for (uint32_t i = 0; i < t->todo.n; i++)
        names += strlen(t->todo.topics[i].name);
    part_offsets(t->part->bp->part, &o);
    r->txn = t;
    r->home = t->part->all->s;
    r->at = at;
    r->producer_id = t->now.producer_id;
    r->epoch = t->now.epoch;
    r->commit = t->now.state == TXN_PREPARE_COMMIT;
    r->coordinator_epoch = o.epoch;
    r->names = mem_new(MEM_BROKER, MAX(names, 1));
    list_push(&t->part->all->rounds, &r->link);
    list_push(&t->rounds, &r->txn_link);
    t->rounds_out++;
    return r;
}

static void round_fill(struct marker_round *r, const struct txn *t)
{
    char *name = r->names;
    for (uint32_t i = 0; i < t->todo.n; i++) {
        const struct txn_topic *topic = &t->todo.topics[i];
        struct slice copy = slice_of(name, strlen(topic->name));
        memcpy(name, topic->name, copy.n);
        name += copy.n;
        for (uint32_t j = 0; j < topic->n; j++)
            if (owner_of(r->home, topic, topic->parts[j]) == r->at)
                r->markers[r->n++] = (struct marker){.round = r, .topic = copy, .partition = topic->parts[j]};
    }
}

void txn_markers_send(struct txn *t)
{
    struct shard *here = t->part->all->s;
    uint32_t n[SHARDS_MAX] = {0};
    MUST(!t->rounds_out && !t->dead);
    for (uint32_t i = 0; i < t->todo.n; i++) {
        for (uint32_t j = 0; j < t->todo.topics[i].n; j++) {
            struct shard *s = owner_of(here, &t->todo.topics[i], t->todo.topics[i].parts[j]);
            if (s)
                n[s->index]++;
        }
    }
    for (uint32_t i = 0; i < here->b->shards_n; i++)
        if (n[i])
            round_fill(round_new(t, here->b->shards[i], n[i]), t);
    if (!t->rounds_out) { /* all of its topics are gone */
        txn_parts_clear(&t->todo);
        txn_marked(t);
        return;
    }
    LIST_FOREACH (it, &t->rounds) {
        struct marker_round *r = CONTAINER_OF(it, struct marker_round, txn_link);
        r->call.fn = round_arrived;
        shard_call(here, r->at, &r->call);
    }
}

void txn_markers_free(struct txns *all)
{
    LIST_FOREACH (it, &all->rounds)
        round_free(CONTAINER_OF(it, struct marker_round, link));
}
