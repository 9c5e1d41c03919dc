/* producers.c - idempotent producers and their transactions (KIP-98, KIP-360, KIP-890): who wrote which sequences, what is open, what was aborted.
 *
 * A batch is noted when it is appended, before it is written: the next one in the same turn has to be checked against it. What a turn changes
 * is journalled (a producer's state before its first change), so that a write that fails can be taken back.
 *
 *     producer_check() -> producer_note() -> written: producers_commit()
 *                                            failed:  producers_rollback()
 *
 * Transactions of a partition: a producer's first transactional batch opens one (list `open`, by first offset); a marker (control batch) ends
 * it. Until the marker is visible itself the transaction still holds the last stable offset back (list `ended`): otherwise a reader could have
 * seen records of a transaction whose marker a crash then takes away. An aborted one goes to the array `aborted`, which stays for as long
 * as records of it may be in the log.
 */
#include "log_int.h"

void producers_init(struct producers *ps)
{
    *ps = (struct producers){0};
    list_init(&ps->open);
}

void producers_fini(struct producers *ps)
{
    for (uint32_t i = 0; i < ps->cap; i++) mem_free(ps->slots[i]);
    mem_free(ps->slots);
    mem_free(ps->aborted);
    mem_free(ps->ended);
    mem_free(ps->journal);
    producers_init(ps);
}

/* ---- the table: open addressing, at most 3/4 full ---- */

static uint32_t slot_of(const struct producers *ps, int64_t id)
{
    uint32_t i = (uint32_t)hash_bytes(&id, sizeof id) & (ps->cap - 1);
    while (ps->slots[i] && ps->slots[i]->id != id) i = (i + 1) & (ps->cap - 1);
    return i;
}

struct producer *producer_get(const struct producers *ps, int64_t id) { return ps->cap ? ps->slots[slot_of(ps, id)] : NULL; }

static void table_grow(struct producers *ps)
{
    struct producers old = *ps;
    ps->cap = old.cap ? old.cap * 2 : 8;
    ps->slots = mem_new(MEM_PART, ps->cap * sizeof *ps->slots);
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i])
            ps->slots[slot_of(ps, old.slots[i]->id)] = old.slots[i];
    mem_free(old.slots);
}

static void producer_drop(struct producers *ps, struct producer *pr)
{
    uint32_t mask = ps->cap - 1, gap = slot_of(ps, pr->id);
    list_del(&pr->open);
    mem_free(pr);
    ps->slots[gap] = NULL;
    ps->n--;
    for (uint32_t i = (gap + 1) & mask; ps->slots[i]; i = (i + 1) & mask) {
        int64_t id = ps->slots[i]->id;
        uint32_t home = (uint32_t)hash_bytes(&id, sizeof id) & mask;
        if (((i - home) & mask) < ((i - gap) & mask))
            continue;
        ps->slots[gap] = ps->slots[i];
        ps->slots[i] = NULL;
        gap = i;
    }
}

static bool can_go(const struct producer *pr) { return pr && pr->txn_first < 0 && !pr->journalled; }

/* At the limit those without a transaction that have been silent for longest go, some at once so that not every new one has to look through
 * all: they are taken for new when they come back. When all have transactions, these are bounded by their coordinators. */
static void producers_make_room(struct producers *ps)
{
    int64_t oldest = INT64_MAX, newest = INT64_MIN;
    uint32_t left = PRODUCERS_MAX / 16;
    for (uint32_t i = 0; i < ps->cap; i++) {
        if (!can_go(ps->slots[i]))
            continue;
        oldest = MIN(oldest, ps->slots[i]->last_ms);
        newest = MAX(newest, ps->slots[i]->last_ms);
    }
    for (uint32_t i = 0; oldest <= newest && i < ps->cap && left;) {
        if (can_go(ps->slots[i]) && (uint64_t)(ps->slots[i]->last_ms - oldest) <= (uint64_t)(newest - oldest) / 16) {
            producer_drop(ps, ps->slots[i]); /* another may have moved here: the slot is looked at again */
            ps->forgotten++;
            left--;
        } else {
            i++;
        }
    }
}

static struct producer *producer_make(struct producers *ps, int64_t id)
{
    struct producer *pr = producer_get(ps, id);
    if (pr)
        return pr;
    if (ps->n >= PRODUCERS_MAX)
        producers_make_room(ps);
    if ((ps->n + 1) * 4 > ps->cap * 3)
        table_grow(ps);
    pr = mem_new(MEM_PART, sizeof *pr);
    *pr = (struct producer){.id = id, .txn_first = -1, .coordinator_epoch = -1, .epoch = -1};
    list_init(&pr->open);
    ps->slots[slot_of(ps, id)] = pr;
    ps->n++;
    return pr;
}

struct producer *producer_add(struct producers *ps, const struct producer *as)
{
    struct producer *pr = producer_make(ps, as->id);
    list_del(&pr->open);
    *pr = *as;
    pr->journalled = false;
    list_init(&pr->open);
    if (pr->txn_first < 0)
        return pr;
    struct list *after = ps->open.prev; /* by first offset: nearly always at the end */
    while (after != &ps->open && CONTAINER_OF(after, struct producer, open)->txn_first > pr->txn_first) after = after->prev;
    list_push_front(after, &pr->open);
    return pr;
}

/* ---- checks ---- */

static int32_t sequence_after(int32_t sequence, int32_t n)
{
    return (int32_t)(((int64_t)sequence + n) & INT32_MAX); /* 2147483647 is followed by 0 */
}

static enum kafka_error marker_check(const struct producer *pr, const struct append *a)
{
    if (!pr)
        return KAFKA_NONE;
    if (a->batch.producer_epoch < pr->epoch)
        return KAFKA_INVALID_PRODUCER_EPOCH;
    return a->coordinator_epoch < pr->coordinator_epoch ? KAFKA_TRANSACTION_COORDINATOR_FENCED : KAFKA_NONE;
}

static bool producer_dup(const struct producer *pr, const struct kafka_batch *b, int64_t *dup_last)
{
    int32_t last = sequence_after(b->base_sequence, b->last_offset_delta);
    for (uint8_t i = 0; pr->epoch == b->producer_epoch && i < pr->sent_n; i++) {
        if (pr->sent[i].base_sequence != b->base_sequence || pr->sent[i].last_sequence != last)
            continue;
        *dup_last = pr->sent[i].last_offset;
        return true;
    }
    return false;
}

/* KIP-98; a producer that is not known here may begin with any sequence (KIP-360). */
static enum kafka_error sequence_check(const struct producer *pr, const struct kafka_batch *b)
{
    if (!pr || pr->epoch < 0)
        return KAFKA_NONE;
    if (b->producer_epoch < pr->epoch)
        return KAFKA_INVALID_PRODUCER_EPOCH;
    int32_t want = b->producer_epoch > pr->epoch || pr->sent_n == 0 ? 0 : sequence_after(pr->sent[pr->sent_n - 1].last_sequence, 1);
    return b->base_sequence == want ? KAFKA_NONE : KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER;
}

enum kafka_error producer_check(const struct producers *ps, const struct append *a, int64_t *dup_last)
{
    const struct kafka_batch *b = &a->batch;
    const struct producer *pr = producer_get(ps, b->producer_id);
    *dup_last = -1;
    if (b->attributes & KAFKA_BATCH_CONTROL)
        return marker_check(pr, a);
    bool txn = b->attributes & KAFKA_BATCH_TRANSACTIONAL;
    if (!a->coordinator) {
        if (b->base_sequence < 0)
            return KAFKA_INVALID_RECORD;
        if (pr && producer_dup(pr, b, dup_last))
            return KAFKA_NONE;
        enum kafka_error e = sequence_check(pr, b);
        if (e != KAFKA_NONE)
            return e;
    } else if (pr && b->producer_epoch < pr->epoch) {
        return KAFKA_INVALID_PRODUCER_EPOCH;
    }
    bool open = pr && pr->txn_first >= 0;
    if (!txn)
        return open && !a->coordinator ? KAFKA_INVALID_TXN_STATE : KAFKA_NONE;
    if (open)
        return KAFKA_NONE;
    if (ps->aborted_n + ps->ended_n >= ABORTED_MAX)
        return KAFKA_POLICY_VIOLATION;
    return a->transaction_checked || a->coordinator ? KAFKA_NONE : KAFKA_INVALID_TXN_STATE; /* KIP-890 */
}

/* ---- noting ---- */

static void journal(struct producers *ps, int64_t id)
{
    struct producer *pr = producer_get(ps, id);
    if (pr && pr->journalled)
        return;
    if (ps->journal_n == 0) {
        ps->aborted_before = ps->aborted_n;
        ps->ended_before = ps->ended_n;
    }
    ARRAY_GROW(MEM_PART, ps->journal, ps->journal_n, ps->journal_cap);
    struct producer_before *before = &ps->journal[ps->journal_n++];
    before->existed = pr != NULL;
    before->was = pr ? *pr : (struct producer){.id = id};
    producer_make(ps, id)->journalled = true;
}

static void txn_end(struct producers *ps, struct producer *pr, int64_t marker, bool commit)
{
    ARRAY_GROW(MEM_PART, ps->ended, ps->ended_n, ps->ended_cap);
    ps->ended[ps->ended_n++] = (struct ended){{pr->txn_first, pr->txn_seg, pr->txn_pos}, marker};
    if (!commit) {
        ARRAY_GROW(MEM_PART, ps->aborted, ps->aborted_n, ps->aborted_cap);
        ps->aborted[ps->aborted_n] = (struct aborted){pr->id, pr->txn_first, marker, marker + 1};
    }
    pr->txn_first = -1;
    list_del(&pr->open);
    if (commit)
        return;
    if (!list_empty(&ps->open))
        ps->aborted[ps->aborted_n].open_from = CONTAINER_OF(ps->open.next, struct producer, open)->txn_first;
    ps->aborted_n++;
}

static void note_marker(struct producers *ps, struct producer *pr, const struct kafka_batch *b)
{
    enum kafka_marker kind;
    int32_t coordinator_epoch;
    if (!kafka_batch_marker_read(b, &kind, &coordinator_epoch))
        return; /* a kind of control record that is not known: no marker */
    if (b->producer_epoch > pr->epoch) {
        pr->epoch = b->producer_epoch;
        pr->sent_n = 0;
    }
    pr->coordinator_epoch = coordinator_epoch;
    if (pr->txn_first >= 0)
        txn_end(ps, pr, b->base_offset, kind == KAFKA_MARKER_COMMIT);
}

static void note_sent(struct producer *pr, const struct kafka_batch *b)
{
    if (pr->sent_n == SENT_BATCHES)
        memmove(pr->sent, pr->sent + 1, --pr->sent_n * sizeof pr->sent[0]);
    pr->sent[pr->sent_n++] = (struct sent_batch){b->base_offset + b->last_offset_delta, b->base_sequence, sequence_after(b->base_sequence, b->last_offset_delta)};
}

void producer_note(struct producers *ps, const struct kafka_batch *b, struct spot at, int64_t now_ms, bool to_journal)
{
    if (to_journal)
        journal(ps, b->producer_id);
    struct producer *pr = producer_make(ps, b->producer_id);
    pr->last_ms = now_ms;
    if (b->attributes & KAFKA_BATCH_CONTROL) {
        note_marker(ps, pr, b);
        return;
    }
    if (b->producer_epoch != pr->epoch) {
        pr->epoch = b->producer_epoch;
        pr->sent_n = 0;
    }
    if (b->base_sequence >= 0)
        note_sent(pr, b);
    if ((b->attributes & KAFKA_BATCH_TRANSACTIONAL) && pr->txn_first < 0 && b->count > 0) { /* compaction leaves empty ones */
        pr->txn_first = at.offset;
        pr->txn_seg = at.seg;
        pr->txn_pos = at.pos;
        list_push(&ps->open, &pr->open);
    }
}

/* ---- turns ---- */

static void journal_end(struct producers *ps)
{
    for (uint32_t i = 0; i < ps->journal_n; i++) {
        struct producer *pr = producer_get(ps, ps->journal[i].was.id);
        if (pr)
            pr->journalled = false;
    }
    ps->journal_n = 0;
}

void producers_commit(struct producers *ps) { journal_end(ps); }

void producers_rollback(struct producers *ps)
{
    if (ps->journal_n) {
        ps->aborted_n = ps->aborted_before;
        ps->ended_n = ps->ended_before;
    }
    for (uint32_t i = 0; i < ps->journal_n; i++) {
        const struct producer_before *before = &ps->journal[i];
        struct producer *pr = producer_get(ps, before->was.id);
        if (before->existed)
            producer_add(ps, &before->was);
        else if (pr)
            producer_drop(ps, pr);
    }
    journal_end(ps);
}

void producers_expire(struct producers *ps, int64_t before_ms)
{
    for (uint32_t i = 0; i < ps->cap;) {
        struct producer *pr = ps->slots[i];
        if (can_go(pr) && pr->last_ms < before_ms)
            producer_drop(ps, pr); /* as above */
        else
            i++;
    }
}

/* ---- what is stable, what was aborted ---- */

void producers_visible(struct producers *ps, int64_t high)
{
    uint32_t n = 0;
    while (n < ps->ended_n && ps->ended[n].marker < high) n++;
    if (n == 0)
        return;
    memmove(ps->ended, ps->ended + n, (ps->ended_n - n) * sizeof *ps->ended);
    ps->ended_n -= n;
    if (ps->journal_n)
        ps->ended_before -= n;
}

bool producers_unstable(const struct producers *ps, struct spot *first)
{
    bool found = false;
    if (!list_empty(&ps->open)) {
        const struct producer *pr = CONTAINER_OF(ps->open.next, struct producer, open);
        *first = (struct spot){pr->txn_first, pr->txn_seg, pr->txn_pos};
        found = true;
    }
    for (uint32_t i = 0; i < ps->ended_n; i++) {
        if (found && ps->ended[i].first.offset >= first->offset)
            continue;
        *first = ps->ended[i].first;
        found = true;
    }
    return found;
}

uint32_t aborted_find(const struct producers *ps, int64_t from)
{
    uint32_t lo = 0, hi = ps->aborted_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (ps->aborted[mid].last < from)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void producers_cut(struct producers *ps, int64_t log_start)
{
    uint32_t n = aborted_find(ps, log_start);
    if (n == 0 || ps->journal_n)
        return;
    memmove(ps->aborted, ps->aborted + n, (ps->aborted_n - n) * sizeof *ps->aborted);
    ps->aborted_n -= n;
}
