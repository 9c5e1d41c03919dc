/* txn.c - transactional ids: their states and transitions, timeouts, expiry, and the partitions of __transaction_state on this shard.
 *
 *     request -> txn_transit(): next is written (txn_log.c) -> txn_written(): next is now, after() answers the request -> txn_resume():
 *                Ongoing: timer until the timeout -> txn_end(abort)
 *                Prepare*: markers (txn_markers.c) -> txn_marked(): all there? Complete* is written : again later
 *                Empty, Complete*: timer until the id expires -> tombstone
 *
 * The states, who writes what and every crash: TRANSACTIONS.md. Not here: what requests mean (txn_requests.c).
 */
#include "txn_int.h"

const char *txn_state_name(enum txn_state s)
{
    static const char *const names[TXN_STATES] = {"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"};
    return s < TXN_STATES ? names[s] : "Unknown";
}

int64_t txn_wall_ms(void) { return (int64_t)(wall_ns() / 1000000); }

const char *txn_label(struct slice id, char out[TXN_LABEL])
{
    size_t n = MIN(id.n, TXN_LABEL - 1);
    memcpy(out, id.p, n);
    out[n] = 0;
    text_clean(out);
    return out;
}

/* ---- sets of partitions -------------------------------------------------------------------------------------------------- */

/* Where topic is, or would be. */
static uint32_t topic_at(const struct txn_parts *ps, struct slice topic, bool *found)
{
    uint32_t low = 0, high = ps->n;
    *found = false;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        struct slice name = slice_cstr(ps->topics[mid].name);
        int order = memcmp(name.p, topic.p, MIN(name.n, topic.n));
        if (order == 0 && name.n == topic.n) {
            *found = true;
            return mid;
        }
        if (order < 0 || (order == 0 && name.n < topic.n))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static uint32_t number_at(const struct txn_topic *t, int32_t partition, bool *found)
{
    uint32_t low = 0, high = t->n;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (t->parts[mid] < partition)
            low = mid + 1;
        else
            high = mid;
    }
    *found = low < t->n && t->parts[low] == partition;
    return low;
}

bool txn_parts_has(const struct txn_parts *ps, struct slice topic, int32_t partition)
{
    bool found;
    uint32_t i = topic_at(ps, topic, &found);
    if (found)
        number_at(&ps->topics[i], partition, &found);
    return found;
}

void txn_parts_add(struct txn_parts *ps, struct slice topic, int32_t partition)
{
    bool found;
    uint32_t i = topic_at(ps, topic, &found);
    if (!found) {
        ARRAY_GROW(MEM_BROKER, ps->topics, ps->n, ps->cap);
        memmove(&ps->topics[i + 1], &ps->topics[i], (ps->n - i) * sizeof *ps->topics);
        ps->topics[i] = (struct txn_topic){.name = mem_strndup(MEM_BROKER, topic.p, topic.n)};
        ps->n++;
    }
    struct txn_topic *t = &ps->topics[i];
    uint32_t at = number_at(t, partition, &found);
    if (found)
        return;
    ARRAY_GROW(MEM_BROKER, t->parts, t->n, t->cap);
    memmove(&t->parts[at + 1], &t->parts[at], (t->n - at) * sizeof *t->parts);
    t->parts[at] = partition;
    t->n++;
    ps->count++;
}

void txn_parts_copy(struct txn_parts *to, const struct txn_parts *from)
{
    *to = (struct txn_parts){.n = from->n, .cap = from->n, .count = from->count};
    if (from->n)
        to->topics = mem_new(MEM_BROKER, from->n * sizeof *to->topics);
    for (uint32_t i = 0; i < from->n; i++) {
        const struct txn_topic *f = &from->topics[i];
        struct txn_topic *t = &to->topics[i];
        *t = (struct txn_topic){.name = mem_strdup(MEM_BROKER, f->name), .n = f->n, .cap = f->n};
        t->parts = mem_new(MEM_BROKER, MAX(f->n, 1) * sizeof *t->parts);
        memcpy(t->parts, f->parts, f->n * sizeof *t->parts);
    }
}

void txn_parts_clear(struct txn_parts *ps)
{
    for (uint32_t i = 0; i < ps->n; i++) {
        mem_free(ps->topics[i].name);
        mem_free(ps->topics[i].parts);
    }
    mem_free(ps->topics);
    *ps = (struct txn_parts){0};
}

/* ---- requests that wait for the end of a transaction --------------------------------------------------------------------------- */

static void unpark(struct txn *t, bool again)
{
    struct breq *r = t->parked;
    if (!r)
        return;
    t->parked = NULL;
    timer_clear(&t->park_timer);
    t->unpark(r, again);
}

static void park_timeout(struct timer *timer)
{
    struct txn *t = CONTAINER_OF(timer, struct txn, park_timer);
    counter_inc(&t->part->all->counters.park_timeouts);
    unpark(t, false);
}

bool txn_park(struct txn *t, struct breq *r, void (*again)(struct breq *r, bool again))
{
    struct txns *all = t->part->all;
    if (t->parked || all->stopping)
        return false;
    t->parked = r;
    t->unpark = again;
    timer_set(all->s->loop, &t->park_timer, TXN_PARK_MS);
    counter_inc(&all->counters.parked);
    return true;
}

/* ---- one id -------------------------------------------------------------------------------------------------------------- */

static void txn_timer(struct timer *timer);

struct txn *txn_find(struct shard *here, struct slice id) { return table_get(&here->txns->by_id, id); }

struct txn *txn_new(struct txns_part *tp, struct slice id)
{
    struct txns *all = tp->all;
    if (all->by_id.n >= TXN_IDS_MAX || all->id_bytes + id.n > TXN_ID_BYTES_MAX) {
        counter_inc(&all->counters.ids_refused);
        return NULL;
    }
    struct txn *t = mem_new(MEM_BROKER, sizeof *t);
    t->part = tp;
    tp->refs++;
    list_push(&tp->txns, &t->link);
    list_init(&t->rounds);
    timer_init(&t->timer, txn_timer);
    timer_init(&t->park_timer, park_timeout);
    t->now = (struct txn_meta){.producer_id = -1, .previous_id = -1, .start_ms = -1, .update_ms = -1, .epoch = TXN_EPOCH_NONE, .last_epoch = TXN_EPOCH_NONE};
    MUST(table_put(&all->by_id, id, t) == NULL);
    t->id = table_key(&all->by_id, id);
    all->id_bytes += id.n;
    counter_set(&all->counters.ids, all->by_id.n);
    return t;
}

static void txn_free(struct txn *t)
{
    timer_clear(&t->timer);
    timer_clear(&t->park_timer);
    list_del(&t->link);
    txn_parts_clear(&t->parts);
    txn_parts_clear(&t->next_parts);
    txn_parts_clear(&t->todo);
    buf_free(&t->bytes);
    mem_free(t);
}

void txn_forget(struct txn *t)
{
    struct txns *all = t->part->all;
    if (t->dead)
        return;
    t->dead = true;
    timer_clear(&t->timer);
    all->id_bytes -= t->id.n;
    MUST(table_del(&all->by_id, t->id) == t);
    t->id = (struct slice){0};
    counter_set(&all->counters.ids, all->by_id.n);
    unpark(t, true); /* it finds the id no more */
}

void txn_release(struct txn *t)
{
    if (!t->dead || t->writing || t->rounds_out)
        return;
    struct txns_part *tp = t->part;
    txn_free(t);
    txns_part_unref(tp);
}

/* ---- transitions ------------------------------------------------------------------------------------------------------------ */

/* Which states may follow which (Kafka's validPreviousStates); a bug here would write nonsense that is loaded later. */
static bool may_follow(enum txn_state now, enum txn_state next)
{
    switch (next) {
    case TXN_EMPTY: return now == TXN_EMPTY || now == TXN_COMPLETE_COMMIT || now == TXN_COMPLETE_ABORT;
    case TXN_ONGOING: return now == TXN_ONGOING || now == TXN_EMPTY || now == TXN_COMPLETE_COMMIT || now == TXN_COMPLETE_ABORT;
    case TXN_PREPARE_COMMIT:
    case TXN_PREPARE_ABORT: return now == TXN_ONGOING;
    case TXN_COMPLETE_COMMIT: return now == TXN_PREPARE_COMMIT;
    case TXN_COMPLETE_ABORT: return now == TXN_PREPARE_ABORT;
    case TXN_DEAD: return now == TXN_EMPTY || now == TXN_COMPLETE_COMMIT || now == TXN_COMPLETE_ABORT;
    case TXN_STATES: break;
    }
    return false;
}

void txn_transit(struct txn *t, void (*after)(struct txn *t, enum kafka_error e))
{
    MUST(!t->writing && !t->dead && may_follow(t->now.state, t->next.state));
    timer_clear(&t->timer);
    t->after = after;
    t->writing = true;
    txn_log_write(t);
}

static void count_transition(struct txn *t)
{
    struct txn_counters *c = &t->part->all->counters;
    if (t->next.state == TXN_ONGOING && t->now.state != TXN_ONGOING)
        counter_inc(&c->begun);
    if (t->next.state == TXN_COMPLETE_COMMIT)
        counter_inc(&c->committed);
    if (t->next.state == TXN_COMPLETE_ABORT)
        counter_inc(&c->aborted);
    if (t->next.state == TXN_PREPARE_ABORT && t->fence_failed)
        counter_inc(t->timed_out ? &c->timed_out : &c->fenced);
}

void txn_written(struct txn *t, enum kafka_error e)
{
    void (*after)(struct txn *, enum kafka_error) = t->after;
    t->writing = false;
    t->after = NULL;
    buf_free(&t->bytes);
    if (t->dead && e == KAFKA_NONE)
        e = KAFKA_NOT_COORDINATOR;
    if (e == KAFKA_NONE) {
        count_transition(t);
        t->now = t->next;
        txn_parts_clear(&t->parts);
        t->parts = t->next_parts;
        t->next_parts = (struct txn_parts){0};
    } else {
        txn_parts_clear(&t->next_parts);
    }
    if (e == KAFKA_NONE && txn_preparing(t)) {
        t->fence_failed = false;
        txn_parts_copy(&t->todo, &t->parts);
    }
    after(t, e);
    if (!t->dead && !t->writing)
        txn_resume(t);
    txn_release(t);
}

void txn_end(struct txn *t, bool commit, bool bump, void (*after)(struct txn *t, enum kafka_error e))
{
    if (bump) { /* in effect at once: whoever is fenced must not write until the abort is durable either */
        if (!t->fence_failed && t->now.epoch < INT16_MAX) /* else there is nobody left to fence, and partitions must take the marker */
            t->now.epoch++;
        t->now.last_epoch = TXN_EPOCH_NONE;
        t->fence_failed = true; /* until it is written */
    }
    t->next = t->now;
    t->next.state = commit ? TXN_PREPARE_COMMIT : TXN_PREPARE_ABORT;
    t->next.update_ms = txn_wall_ms();
    txn_parts_copy(&t->next_parts, &t->parts);
    txn_transit(t, after);
}

static void txn_complete(struct txn *t);

static void retry_later(struct txn *t)
{
    t->retry_ms = t->retry_ms ? MIN(t->retry_ms * 2, TXN_RETRY_MAX_MS) : TXN_RETRY_MIN_MS;
    if (!t->part->all->stopping)
        timer_set(t->part->all->s->loop, &t->timer, t->retry_ms);
}

static void txn_completed(struct txn *t, enum kafka_error e)
{
    if (e != KAFKA_NONE && !t->dead) {
        retry_later(t);
        return;
    }
    t->retry_ms = 0;
    unpark(t, true);
}

static void txn_complete(struct txn *t)
{
    t->next = t->now;
    t->next.state = t->now.state == TXN_PREPARE_COMMIT ? TXN_COMPLETE_COMMIT : TXN_COMPLETE_ABORT;
    t->next.start_ms = -1;
    t->next.update_ms = txn_wall_ms();
    txn_transit(t, txn_completed);
}

/* The next transaction waits already: its record says, too, that this one is over, so Complete* need not be written. Until that record is durable a start would
 * find Prepare* and write markers again, which end nothing. */
static void txn_skip_complete(struct txn *t)
{
    t->next = t->now;
    t->next.state = t->now.state == TXN_PREPARE_COMMIT ? TXN_COMPLETE_COMMIT : TXN_COMPLETE_ABORT;
    t->next.start_ms = -1;
    t->next.update_ms = txn_wall_ms();
    count_transition(t);
    t->now = t->next;
    txn_parts_clear(&t->parts);
    unpark(t, true);
    if (!t->writing)
        txn_resume(t);
}

void txn_marked(struct txn *t)
{
    if (t->dead)
        txn_release(t);
    else if (t->todo.count)
        retry_later(t);
    else {
        t->retry_ms = 0;
        if (t->parked)
            txn_skip_complete(t);
        else
            txn_complete(t);
    }
}

void txn_tombstoned(struct txn *t, enum kafka_error e)
{
    if (e == KAFKA_NONE) {
        counter_inc(&t->part->all->counters.expired);
        txn_forget(t);
    } else if (!t->dead) {
        retry_later(t);
    }
}

static void timeout_ended(struct txn *t, enum kafka_error e)
{
    t->timed_out = false;
    if (e != KAFKA_NONE && !t->dead)
        retry_later(t);
}

static int64_t idle_until(const struct txn *t) { return t->now.update_ms + TXN_EXPIRE_MS; }
static int64_t open_until(const struct txn *t) { return t->now.start_ms + t->now.timeout_ms; }

static void txn_timer(struct timer *timer)
{
    struct txn *t = CONTAINER_OF(timer, struct txn, timer);
    int64_t now = txn_wall_ms();
    if (t->dead || t->writing || t->rounds_out || t->part->state != TXNS_READY)
        return;
    if (t->now.state == TXN_ONGOING && now >= open_until(t)) {
        t->timed_out = true;
        char name[TXN_LABEL];
        log_info("broker", "the transaction of \"%s\" is aborted: it was open for longer than its timeout of %d ms", txn_label(t->id, name), t->now.timeout_ms);
        txn_end(t, false, true, timeout_ended);
    } else if (txn_preparing(t) && t->todo.count) {
        counter_inc(&t->part->all->counters.markers_retried);
        txn_markers_send(t);
    } else if (txn_preparing(t)) {
        txn_complete(t);
    } else if (t->now.state != TXN_ONGOING && now >= idle_until(t)) {
        t->next = t->now;
        t->next.state = TXN_DEAD;
        txn_transit(t, txn_tombstoned);
    } else {
        txn_resume(t); /* the wall clock is behind the loop's */
    }
}

void txn_resume(struct txn *t)
{
    struct txns *all = t->part->all;
    if (all->stopping || timer_is_set(&t->timer) || t->rounds_out)
        return;
    if (txn_preparing(t) && t->todo.count) {
        txn_markers_send(t);
    } else if (txn_preparing(t)) {
        txn_complete(t);
    } else {
        int64_t left = (t->now.state == TXN_ONGOING ? open_until(t) : idle_until(t)) - txn_wall_ms();
        timer_set(all->s->loop, &t->timer, (uint64_t)MAX(left, 1));
    }
}

/* ---- the partitions of __transaction_state --------------------------------------------------------------------------------- */

static struct txns_part *part_by_index(const struct txns *all, int32_t index)
{
    LIST_FOREACH (it, &all->parts) {
        struct txns_part *tp = CONTAINER_OF(it, struct txns_part, link);
        if (tp->bp && tp->index == index)
            return tp;
    }
    return NULL;
}

struct txns_part *txns_part_of(struct shard *here, struct slice id, enum kafka_error *error)
{
    int32_t index = 0;
    struct shard *s = coordinator_of(here, TXN_TOPIC, id, &index);
    struct txns_part *tp = s == here ? part_by_index(here->txns, index) : NULL;
    *error = s != here                  ? KAFKA_NOT_COORDINATOR
             : !tp                      ? KAFKA_COORDINATOR_LOAD_IN_PROGRESS
             : tp->state == TXNS_READY  ? KAFKA_NONE
             : tp->state == TXNS_BROKEN ? KAFKA_COORDINATOR_NOT_AVAILABLE
                                        : KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
    return *error == KAFKA_NONE ? tp : NULL;
}

void txns_part_unref(struct txns_part *tp)
{
    MUST(tp->refs > 0);
    if (--tp->refs)
        return;
    list_del(&tp->link);
    mem_free(tp);
}

static void part_attached(struct shard *s, struct bpart *p)
{
    if (!slice_eq(slice_cstr(p->topic->name), TXN_TOPIC) || s->txns->stopping)
        return;
    struct txns_part *tp = mem_new(MEM_BROKER, sizeof *tp);
    tp->all = s->txns;
    tp->bp = p;
    tp->index = p->partition;
    tp->refs = 1; /* of the table */
    list_init(&tp->txns);
    list_push(&s->txns->parts, &tp->link);
    txn_log_load(tp);
}

static void part_gone(struct shard *s, struct bpart *p)
{
    LIST_FOREACH (it, &s->txns->parts) {
        struct txns_part *tp = CONTAINER_OF(it, struct txns_part, link);
        if (tp->bp != p)
            continue;
        tp->bp = NULL;
        LIST_FOREACH (jt, &tp->txns) {
            struct txn *t = CONTAINER_OF(jt, struct txn, link);
            txn_forget(t);
            txn_release(t);
        }
        txns_part_unref(tp);
        return;
    }
}

static void txns_init(struct shard *s)
{
    struct txns *all = mem_new(MEM_BROKER, sizeof *all);
    all->s = s;
    all->ids = producer_ids_new();
    list_init(&all->parts);
    list_init(&all->rounds);
    s->txns = all;
}

static void txns_stop(struct shard *s)
{
    s->txns->stopping = true;
    LIST_FOREACH (it, &s->txns->parts) {
        LIST_FOREACH (jt, &CONTAINER_OF(it, struct txns_part, link)->txns) {
            timer_clear(&CONTAINER_OF(jt, struct txn, link)->timer);
            unpark(CONTAINER_OF(jt, struct txn, link), false);
        }
    }
}

static bool txns_at_rest(const struct shard *s) { return s->txns->loads == 0 && list_empty(&s->txns->rounds); }

static void txns_fini(struct shard *s)
{
    struct txns *all = s->txns;
    if (!all)
        return;
    txn_markers_free(all);
    LIST_FOREACH (it, &all->parts) {
        struct txns_part *tp = CONTAINER_OF(it, struct txns_part, link);
        LIST_FOREACH (jt, &tp->txns)
            txn_free(CONTAINER_OF(jt, struct txn, link));
        mem_free(tp);
    }
    producer_ids_free(all->ids);
    table_fini(&all->by_id);
    mem_free(all);
    s->txns = NULL;
}

const struct module txns_module = {
    .init = txns_init,
    .part_attached = part_attached,
    .part_gone = part_gone,
    .stop = txns_stop,
    .at_rest = txns_at_rest,
    .fini = txns_fini,
    .metrics = txns_metrics,
};
