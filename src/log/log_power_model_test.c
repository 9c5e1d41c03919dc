/* log_power_model_test.c - what must be in a partition, and whether it is. See log_power_test.h.
 *
 * power_verify() scans a partition from its start to its end and looks at every batch:
 *
 *     bytes      as they were sent, but for the offset and the epoch that the log gave
 *     place      offsets without holes (but where compaction made them), no batch twice, the offset that was told or read before
 *     presence   what is certain must be there; after a crash of the process alone, without faults, all that was told
 *     epoch      greater than before, when something that was told is gone
 *     producers  sequence numbers without gaps
 *     committed  what a consumer sees that reads up to the stable offset and leaves aborted transactions out
 *     times      look-ups agree with the scan
 */
#include "log_power_test.h"

#include <stdio.h>
#include <stdlib.h>

#define SCAN_BYTES 20000
#define PIDS 64

struct power P;

/* ---- chance and failing ---- */

static uint64_t power_state;

uint64_t power_random(uint64_t n)
{
    uint64_t z = (power_state += 0x9e3779b97f4a7c15ULL); /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (z ^ (z >> 31)) % n;
}

bool power_chance(uint64_t of, uint64_t in) { return power_random(in) < of; }

void power_fail(const char *file, int line, const char *fmt, ...)
{
    char text[500];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_error("seed %llu: %s\n", (unsigned long long)P.seed, text);
    _fail(file, line);
    abort();
}

/* ---- birth and death ---- */

void power_model_init(uint64_t seed)
{
    memset(&P, 0, sizeof P);
    P.seed = seed;
    P.clean = true;
    power_state = seed * 7919;
    P.sent_cap = 8;
    P.sent = mem_new(MEM_SIM, P.sent_cap * sizeof *P.sent);
    P.sent_n = 1;
    for (uint32_t i = 0; i < POWER_PARTS; i++)
        (void)snprintf(P.parts[i].name, sizeof P.parts[i].name, "t-%u", i);
}

void power_model_fini(void)
{
    for (uint32_t i = 1; i < P.sent_n; i++) {
        mem_free(P.sent[i]->orig);
        mem_free(P.sent[i]->bytes);
        mem_free(P.sent[i]);
    }
    mem_free(P.sent);
    for (uint32_t i = 0; i < POWER_PARTS; i++)
        mem_free(P.parts[i].log);
}

/* ---- batches ---- */

static struct sent *sent_new(uint32_t part)
{
    struct sent *s = mem_new(MEM_SIM, sizeof *s);
    s->id = P.sent_n;
    s->part = part;
    s->base = -1;
    s->refused = true;
    ARRAY_GROW(MEM_SIM, P.sent, P.sent_n, P.sent_cap);
    P.sent[P.sent_n++] = s;
    return s;
}

static struct sent *sent_take(struct sent *s, struct buf *b)
{
    s->n = (uint32_t)b->n;
    s->orig = mem_new(MEM_SIM, s->n);
    s->bytes = mem_new(MEM_SIM, s->n);
    memcpy(s->orig, b->p, s->n);
    buf_free(b);
    MUST(kafka_batch_parse(slice_of(s->orig, s->n), &s->head) == KAFKA_NONE);
    return s;
}

/* Values begin with the batch's number and the record's. The first record of a batch is never a tombstone, so that it can be told. */
struct sent *power_batch(uint32_t part, const struct kafka_batch *head)
{
    struct sent *s = sent_new(part);
    struct kafka_batch_builder k;
    struct buf b = {0};
    struct kafka_batch h = *head;
    h.base_timestamp = (int64_t)(wall_ns() / 1000000);
    kafka_batch_begin(&k, &b, &h);
    uint32_t n = 1 + (uint32_t)power_random(4);
    for (uint32_t i = 0; i < n; i++) {
        char key[8], value[3100];
        size_t key_n = (size_t)snprintf(key, sizeof key, "k%u", (unsigned)power_random(POWER_KEYS));
        size_t value_n = (size_t)snprintf(value, sizeof value, "%llu %u ", (unsigned long long)s->id, i);
        size_t fill = i == 0 && power_chance(1, 20) ? power_random(2500) : power_random(150);
        memset(value + value_n, (int)('a' + s->id % 26), fill);
        bool tombstone = part == POWER_COMPACTED && i && power_chance(1, 5);
        struct slice v = tombstone ? (struct slice){0} : slice_of(value, value_n + fill);
        kafka_batch_add(&k, h.base_timestamp + (int64_t)power_random(20), slice_of(key, key_n), v, NULL, 0);
    }
    static const enum kafka_codec codecs[] = {KAFKA_CODEC_NONE, KAFKA_CODEC_NONE, KAFKA_CODEC_NONE, KAFKA_CODEC_LZ4, KAFKA_CODEC_SNAPPY};
    enum err e = kafka_batch_end(&k, codecs[power_random(COUNT_OF(codecs))]);
    MUST(e == OK);
    return sent_take(s, &b);
}

struct sent *power_marker(uint32_t part, const struct kafka_batch *head, enum kafka_marker says)
{
    struct sent *s = sent_new(part);
    struct buf b = {0};
    struct kafka_batch h = *head;
    h.base_timestamp = (int64_t)(wall_ns() / 1000000);
    kafka_batch_marker(&b, &h, says, (int32_t)s->id);
    s->marker = true;
    s->says = says;
    return sent_take(s, &b);
}

/* The number in a batch; 0: compaction left nothing of it. */
static uint64_t batch_id(const struct kafka_batch *b, struct slice records)
{
    enum kafka_marker says;
    int32_t epoch;
    struct kafka_record r;
    if (b->attributes & KAFKA_BATCH_CONTROL)
        return kafka_batch_marker_read(b, &says, &epoch) ? (uint64_t)epoch : 0;
    while (records.n && kafka_record_next(&records, &r) == OK) {
        struct slice left;
        uint64_t id;
        if (r.value.p && slice_u64(slice_cut(r.value, ' ', &left), UINT32_MAX, &id) == OK)
            return id;
    }
    return 0;
}

/* ---- what is known ---- */

static struct known *known_at(struct power_part *m, int64_t offset)
{
    uint32_t from = 0, to = m->log_n;
    while (from < to) {
        uint32_t mid = (from + to) / 2;
        if (m->log[mid].end <= offset)
            from = mid + 1;
        else
            to = mid;
    }
    return from < m->log_n && m->log[from].base <= offset ? &m->log[from] : NULL;
}

static void known_add(struct power_part *m, const struct sent *s, int64_t base, int32_t epoch)
{
    int64_t end = base + s->head.last_offset_delta + 1;
    struct known *k = known_at(m, base);
    if (k) {
        if (m->conf.cleanup_compact && k->base <= base && k->end >= end)
            return;
        if (k->id != s->id || k->base != base)
            POWER_FAIL("%s: batch %llu is said to be at %lld, where batch %llu is", m->name, (unsigned long long)s->id, (long long)base,
                       (unsigned long long)k->id);
        return;
    }
    ARRAY_GROW(MEM_SIM, m->log, m->log_n, m->log_cap);
    uint32_t at = m->log_n++;
    for (; at > 0 && m->log[at - 1].base > base; at--)
        m->log[at] = m->log[at - 1];
    m->log[at] = (struct known){base, end, s->id, epoch};
    POWER_CHECK(at == 0 || m->log[at - 1].end <= base);
    POWER_CHECK(at + 1 == m->log_n || end <= m->log[at + 1].base);
}

static void known_forget(struct power_part *m, int64_t from)
{
    for (; m->log_n && m->log[m->log_n - 1].base >= from; m->log_n--) {
        P.sent[m->log[m->log_n - 1].id]->base = -1;
        P.lost++;
    }
}

static int64_t known_end(const struct power_part *m) { return m->log_n ? m->log[m->log_n - 1].end : 0; }

void power_told(struct sent *s)
{
    struct power_part *m = &P.parts[s->part];
    const struct append *a = &s->a;
    s->ok = a->error == KAFKA_NONE;
    if (!s->ok) {
        if (a->error == KAFKA_KAFKA_STORAGE_ERROR)
            s->refused = false; /* it may be there, or come back */
        return;
    }
    s->refused = false;
    if (s->base < m->start_max)
        s->base = -1; /* it was deleted before it was answered, and may be taken for new */
    if (s->base >= 0 && s->base != a->base_offset)
        POWER_FAIL("%s: batch %llu was at %lld and is said to be at %lld", m->name, (unsigned long long)s->id, (long long)s->base, (long long)a->base_offset);
    s->base = a->base_offset;
    known_add(m, s, s->base, m->epoch);
    int64_t end = s->base + s->head.last_offset_delta + 1;
    if (a->acks == -1) {
        m->durable = MAX(m->durable, end);
        m->high = MAX(m->high, end);
    }
}

/* ---- scanning ---- */

struct found {
    struct known at;
    struct kafka_batch head;     /* records is not kept */
    bool commits, aborts;
};
struct found_record {
    int64_t offset, ms;
    bool control;
};
struct scan {
    struct found *batches;
    uint32_t n, cap;
    struct found_record *records;
    uint32_t records_n, records_cap;
    struct part_offsets offsets;
};

static void scan_fini(struct scan *sc)
{
    mem_free(sc->batches);
    mem_free(sc->records);
}

/* A batch that was compacted: each record that is left, at its offset, as it was sent. */
static void check_compacted(struct power_part *m, const struct kafka_batch *b, struct slice records)
{
    struct kafka_record r, was;
    while (records.n) {
        POWER_CHECK(kafka_record_next(&records, &r) == OK);
        int64_t offset = b->base_offset + r.offset_delta;
        struct known *k = known_at(m, offset);
        if (!k)
            POWER_FAIL("%s: a record at %lld that nobody knows", m->name, (long long)offset);
        const struct sent *s = P.sent[k->id];
        struct buf scratch = {0};
        struct slice all;
        POWER_CHECK(kafka_batch_records(&s->head, 1 << 20, &scratch, &all) == OK);
        for (int64_t i = k->base; i <= offset; i++)
            POWER_CHECK(kafka_record_next(&all, &was) == OK);
        if (!slice_eq(r.key, was.key) || !slice_eq(r.value, was.value) || (r.value.p == NULL) != (was.value.p == NULL))
            POWER_FAIL("%s: the record at %lld is another one", m->name, (long long)offset);
        buf_free(&scratch);
    }
}

/* Everything about one batch that can be said by itself. */
static struct sent *check_batch(struct power_part *m, const char *p, const struct kafka_batch *b, struct slice records)
{
    if (!kafka_batch_crc_ok(p, b))
        POWER_FAIL("%s: a batch at %lld whose checksum is wrong", m->name, (long long)b->base_offset);
    uint64_t id = batch_id(b, records);
    const struct known *k = known_at(m, b->base_offset);
    if (k && id && k->id != id && k->end > m->durable && (P.power || P.faulty)) {
        known_forget(m, k->base); /* a power loss took it, and brought back what was cut off in its place and never synced */
        k = NULL;
    }
    if (m->conf.cleanup_compact && k && (id == 0 || b->bytes != P.sent[k->id]->n || memcmp(p + 17, P.sent[k->id]->orig + 17, b->bytes - 17) != 0)) {
        if (!(b->attributes & KAFKA_BATCH_CONTROL))
            check_compacted(m, b, records);
        return P.sent[k->id];
    }
    if (id == 0 || id >= P.sent_n)
        POWER_FAIL("%s: a batch at %lld that nobody sent", m->name, (long long)b->base_offset);
    struct sent *s = P.sent[id];
    if (&P.parts[s->part] != m || s->n != b->bytes || memcmp(p + 16, s->orig + 16, s->n - 16) != 0 || memcmp(p + 8, s->orig + 8, 4) != 0)
        POWER_FAIL("%s: batch %llu at %lld is not what was sent", m->name, (unsigned long long)id, (long long)b->base_offset);
    if (s->refused && !s->waits)
        POWER_FAIL("%s: batch %llu at %lld was refused (%s)", m->name, (unsigned long long)id, (long long)b->base_offset, kafka_error_name(s->a.error));
    if (k && (k->id != id || k->base != b->base_offset))
        POWER_FAIL("%s: at %lld was batch %llu and is batch %llu", m->name, (long long)b->base_offset, (unsigned long long)k->id, (unsigned long long)id);
    if (s->base >= 0 && s->base != b->base_offset && k)
        POWER_FAIL("%s: batch %llu was at %lld and is at %lld", m->name, (unsigned long long)id, (long long)s->base, (long long)b->base_offset);
    return s;
}

static void scan_records(struct scan *sc, const struct kafka_batch *b, struct slice records)
{
    struct kafka_record r;
    while (records.n) {
        POWER_CHECK(kafka_record_next(&records, &r) == OK);
        ARRAY_GROW(MEM_SIM, sc->records, sc->records_n, sc->records_cap);
        sc->records[sc->records_n++] = (struct found_record){b->base_offset + r.offset_delta, b->base_timestamp + r.timestamp_delta,
                                                             b->attributes & KAFKA_BATCH_CONTROL};
    }
}

static void scan_batch(struct scan *sc, struct power_part *m, const char *p, const struct kafka_batch *b)
{
    struct buf scratch = {0};
    struct slice records;
    POWER_CHECK(kafka_batch_records(b, 1 << 20, &scratch, &records) == OK);
    struct sent *s = check_batch(m, p, b, records);
    if (!sc) { /* somebody reads: what is shown to wait for durability is durable, and what is shown stays where it is */
        known_add(m, s, b->base_offset, b->leader_epoch);
        if (s->a.acks == -1)
            m->durable = MAX(m->durable, kafka_batch_last_offset(b) + 1);
    } else {
        if (s->scan == P.scans)
            POWER_FAIL("%s: batch %llu is there twice, at %lld the second time", m->name, (unsigned long long)s->id, (long long)b->base_offset);
        s->scan = P.scans;
        ARRAY_GROW(MEM_SIM, sc->batches, sc->n, sc->cap);
        sc->batches[sc->n++] = (struct found){.at = {b->base_offset, kafka_batch_last_offset(b) + 1, s->id, b->leader_epoch}, .head = *b,
                                              .commits = s->marker && s->says == KAFKA_MARKER_COMMIT, .aborts = s->marker && s->says == KAFKA_MARKER_ABORT};
        scan_records(sc, b, records);
    }
    buf_free(&scratch);
}

/* Reads at offset; what came goes to sc, if given. The offset behind it; offset itself: nothing came. */
static int64_t read_at(struct scan *sc, struct power_part *m, struct part_read *r, struct arena *arena)
{
    int64_t next = r->offset;
    part_read(m->p, r, arena);
    if (r->error == KAFKA_KAFKA_STORAGE_ERROR && !sc && (P.faulty || sim_is_down()))
        return next; /* its file could not be opened, perhaps */
    if (r->error)
        POWER_FAIL("%s: reading at %lld of %lld to %lld: %s", m->name, (long long)r->offset, (long long)r->offsets.log_start, (long long)r->offsets.end,
                   kafka_error_name(r->error));
    POWER_CHECK((r->file != NULL) == (r->bytes > 0));
    if (sim_is_down()) { /* since it looked for the place */
        segfile_unref(r->file);
        return next;
    }
    char *bytes = mem_new(MEM_SIM, r->bytes + 1);
    bool read = !r->bytes || file_read_at(segfile_fd(r->file), r->pos, bytes, r->bytes) == OK;
    if (!read && !sim_is_down()) /* the look-up may have made an index anew, and the crash came there */
        POWER_FAIL("%s: the file at %lld is shorter than it says", m->name, (long long)r->offset);
    for (uint32_t at = 0; read && at < r->bytes;) {
        struct kafka_batch b;
        if (kafka_batch_parse(slice_of(bytes + at, r->bytes - at), &b) != KAFKA_NONE)
            POWER_FAIL("%s: no batch behind %lld, %u bytes into a read of %u at %lld, from %llu on", m->name, (long long)next, at, r->bytes, (long long)r->offset,
                       (unsigned long long)r->pos);
        bool first = at == 0;
        POWER_CHECK(kafka_batch_last_offset(&b) >= next);
        if (!m->conf.cleanup_compact && (first ? b.base_offset > next : b.base_offset != next))
            POWER_FAIL("%s: a hole: behind %lld comes %lld", m->name, (long long)next, (long long)b.base_offset);
        POWER_CHECK(first || b.base_offset >= next);
        scan_batch(sc, m, bytes + at, &b);
        next = kafka_batch_last_offset(&b) + 1;
        at += b.bytes;
    }
    mem_free(bytes);
    segfile_unref(r->file);
    return next;
}

static void scan(struct scan *sc, struct power_part *m)
{
    *sc = (struct scan){0};
    struct arena arena;
    arena_init(&arena, MEM_SIM, 4096);
    P.scans++;
    part_offsets(m->p, &sc->offsets);
    const struct part_offsets *o = &sc->offsets;
    POWER_CHECK(o->log_start <= o->stable && o->stable <= o->high && o->high <= o->end);
    for (int64_t at = o->log_start; at < o->end;) {
        struct part_read r = {.offset = at, .bytes_max = (uint32_t)(1 + power_random(SCAN_BYTES)), .until = PART_END, .one_at_least = true};
        int64_t next = read_at(sc, m, &r, &arena);
        if (next == at && !m->conf.cleanup_compact)
            POWER_FAIL("%s: nothing at %lld, and %lld is the end", m->name, (long long)at, (long long)o->end);
        if (next == at)
            break; /* compaction left nothing behind here */
        at = next;
        arena_reset(&arena);
    }
    arena_fini(&arena);
}

/* ---- what follows from a scan ---- */

static const struct found *found_at(const struct scan *sc, int64_t offset)
{
    uint32_t from = 0, to = sc->n;
    while (from < to) {
        uint32_t mid = (from + to) / 2;
        if (sc->batches[mid].at.end <= offset)
            from = mid + 1;
        else
            to = mid;
    }
    return from < sc->n && sc->batches[from].at.base <= offset ? &sc->batches[from] : NULL;
}

/* What was known and is not there any more. */
static void check_presence(struct power_part *m, const struct scan *sc)
{
    bool kept = !P.power && !P.faulty, lost = false;
    int64_t must = kept || P.clean ? known_end(m) : m->durable;
    for (uint32_t i = 0; i < m->log_n; i++) {
        const struct known *k = &m->log[i];
        if (k->end <= sc->offsets.log_start)
            continue;
        const struct found *f = m->conf.cleanup_compact ? NULL : found_at(sc, k->base);
        if (f || (m->conf.cleanup_compact && k->base < sc->offsets.end))
            continue;
        if (k->end <= must)
            POWER_FAIL("%s: batch %llu at %lld is gone; the log is %lld to %lld; %lld was certain, %s", m->name, (unsigned long long)k->id,
                       (long long)k->base, (long long)sc->offsets.log_start, (long long)sc->offsets.end, (long long)m->durable,
                       P.clean ? "after a clean stop" : P.power ? "after a loss of power" : "after a crash");
        P.sent[k->id]->base = -1;
        P.lost++;
        lost = true;
    }
    if (lost && sc->offsets.epoch <= m->epoch)
        POWER_FAIL("%s: batches are gone, and the epoch is still %d", m->name, sc->offsets.epoch);
    POWER_CHECK(sc->offsets.epoch >= m->epoch);
}

/* The last record of every key, as far as it is certain. */
static void check_keys(struct power_part *m, const struct scan *sc)
{
    int64_t last[POWER_KEYS];
    bool tombstone[POWER_KEYS] = {0};
    for (size_t i = 0; i < POWER_KEYS; i++)
        last[i] = -1;
    for (uint32_t i = 0; i < m->log_n && m->log[i].end <= sc->offsets.end; i++) {
        struct buf scratch = {0};
        struct slice all;
        struct kafka_record r;
        POWER_CHECK(kafka_batch_records(&P.sent[m->log[i].id]->head, 1 << 20, &scratch, &all) == OK);
        for (int64_t at = m->log[i].base; all.n && kafka_record_next(&all, &r) == OK; at++)
            if (at >= sc->offsets.log_start) {
                last[r.key.p[1] - '0'] = at;
                tombstone[r.key.p[1] - '0'] = r.value.p == NULL;
            }
        buf_free(&scratch);
    }
    for (size_t i = 0; i < POWER_KEYS; i++) {
        bool there = last[i] < 0 || tombstone[i];
        for (uint32_t j = 0; j < sc->records_n && !there; j++)
            there = sc->records[j].offset == last[i];
        if (!there)
            POWER_FAIL("%s: the last record of key %zu, at %lld, is gone", m->name, i, (long long)last[i]);
    }
}

struct pid {
    int64_t id;
    int16_t epoch;
    int32_t next;                /* sequence number */
    int64_t first;               /* of its open transaction; -1 */
    bool dropped;                /* a consumer leaves its records out */
};

static struct pid *pid_of(struct pid pids[PIDS], uint32_t *n, const struct kafka_batch *b)
{
    for (uint32_t i = 0; i < *n; i++)
        if (pids[i].id == b->producer_id)
            return &pids[i];
    MUST(*n < PIDS);
    pids[*n] = (struct pid){.id = b->producer_id, .epoch = -1, .first = -1};
    return &pids[(*n)++];
}

/* Sequence numbers follow each other; the last stable offset is the first of the oldest open transaction. */
static void check_producers(const struct power_part *m, const struct scan *sc)
{
    struct pid pids[PIDS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < sc->n; i++) {
        const struct kafka_batch *b = &sc->batches[i].head;
        if (b->producer_id < 0)
            continue;
        struct pid *p = pid_of(pids, &n, b);
        if (b->attributes & KAFKA_BATCH_CONTROL) {
            p->first = -1;
            continue;
        }
        if (p->epoch == b->producer_epoch && b->base_sequence != p->next)
            POWER_FAIL("%s: producer %lld at %lld: sequence %d, not %d", m->name, (long long)b->producer_id, (long long)b->base_offset, b->base_sequence, p->next);
        POWER_CHECK(p->epoch <= b->producer_epoch);
        p->epoch = b->producer_epoch;
        p->next = b->base_sequence + b->last_offset_delta + 1;
        if ((b->attributes & KAFKA_BATCH_TRANSACTIONAL) && p->first < 0)
            p->first = b->base_offset;
    }
    int64_t stable = sc->offsets.high;
    for (uint32_t i = 0; i < n; i++)
        if (pids[i].first >= 0)
            stable = MIN(stable, MAX(pids[i].first, sc->offsets.log_start));
    if (sc->offsets.stable > stable)
        POWER_FAIL("%s: the stable offset is %lld, not %lld", m->name, (long long)sc->offsets.stable, (long long)stable);
}

/* The marker that ends the transaction of a batch: 1 commit, 0 abort, -1 none. */
static int decision(const struct scan *sc, uint32_t i)
{
    int64_t id = sc->batches[i].head.producer_id;
    for (uint32_t j = i + 1; j < sc->n; j++)
        if (sc->batches[j].head.producer_id == id && (sc->batches[j].commits || sc->batches[j].aborts))
            return sc->batches[j].commits;
    return -1;
}

static bool is_aborted(const struct part_read *r, const struct kafka_batch *b, const struct scan *sc, uint32_t i)
{
    for (int32_t a = 0; a < r->aborted_n; a++) {
        if (r->aborted[a].producer_id != b->producer_id || r->aborted[a].first_offset > b->base_offset)
            continue;
        bool ended = false; /* a marker between: that transaction was over before */
        for (uint32_t j = 0; j < i; j++) {
            const struct found *f = &sc->batches[j];
            ended |= f->head.producer_id == b->producer_id && (f->commits || f->aborts) && f->at.base >= r->aborted[a].first_offset;
        }
        if (!ended)
            return true;
    }
    return false;
}

/* As a consumer that reads what is committed: the aborted list of each answer must leave out what was aborted, and nothing else. */
static void check_committed(struct power_part *m, const struct scan *sc)
{
    struct arena arena;
    arena_init(&arena, MEM_SIM, 4096);
    for (int64_t at = sc->offsets.log_start; at < sc->offsets.stable;) {
        struct part_read r = {.offset = at, .bytes_max = (uint32_t)(1 + power_random(SCAN_BYTES)), .until = PART_STABLE, .one_at_least = true};
        int64_t next = read_at(NULL, m, &r, &arena);
        if (next == at || next > sc->offsets.stable)
            POWER_FAIL("%s: a committed read at %lld ends at %lld; %lld is stable", m->name, (long long)at, (long long)next, (long long)sc->offsets.stable);
        for (uint32_t i = 0; i < sc->n; i++) {
            const struct found *f = &sc->batches[i];
            if (f->at.end <= at || f->at.base >= next || !(f->head.attributes & KAFKA_BATCH_TRANSACTIONAL) || f->commits || f->aborts)
                continue;
            int said = decision(sc, i);
            POWER_CHECK(said >= 0);
            if (is_aborted(&r, &f->head, sc, i) != (said == 0))
                POWER_FAIL("%s: the transaction of the batch at %lld is %s, and a reader at %lld takes it for %s", m->name, (long long)f->at.base,
                           said ? "committed" : "aborted", (long long)at, said ? "aborted" : "committed");
        }
        at = next;
        arena_reset(&arena);
    }
    arena_fini(&arena);
}

/* The first record at or after ms, as the scan has it; control records may or may not count. */
static void check_time(struct power_part *m, const struct scan *sc, int64_t ms)
{
    int64_t offset = -2, at_ms = -2, want[2] = {-1, -1}, want_ms[2] = {-1, -1};
    enum kafka_error e = part_find_time(m->p, ms, PART_HIGH, &offset, &at_ms);
    if (e)
        POWER_FAIL("%s: looking for %lld: %s", m->name, (long long)ms, kafka_error_name(e));
    for (uint32_t i = 0; i < sc->records_n; i++) {
        const struct found_record *r = &sc->records[i];
        if (r->ms < ms || r->offset < sc->offsets.log_start || r->offset >= sc->offsets.high)
            continue;
        for (int j = 0; j < 2; j++)
            if (want[j] < 0 && (j || !r->control)) {
                want[j] = r->offset;
                want_ms[j] = r->ms;
            }
    }
    P.lookups++;
    for (int j = 0; j < 2; j++)
        if (offset == want[j] && at_ms == want_ms[j])
            return;
    POWER_FAIL("%s: the first record at %lld or later is at %lld (%lld), not at %lld (%lld)", m->name, (long long)ms, (long long)want[0], (long long)want_ms[0],
               (long long)offset, (long long)at_ms);
}

static void check_times(struct power_part *m, const struct scan *sc)
{
    for (int i = 0; i < 4 && sc->records_n; i++)
        check_time(m, sc, sc->records[power_random(sc->records_n)].ms + (int64_t)power_random(3) - 1);
    check_time(m, sc, INT64_MAX / 2);
}

static void check_epochs(struct power_part *m, const struct scan *sc)
{
    for (uint32_t i = 0; i < sc->n; i++) {
        int32_t epoch = sc->batches[i].at.epoch, found;
        int64_t end, want = sc->offsets.end, least = sc->offsets.log_start;
        if (i && sc->batches[i - 1].at.epoch == epoch)
            continue;
        POWER_CHECK(i == 0 || sc->batches[i - 1].at.epoch < epoch);
        part_epoch_end(m->p, epoch, &found, &end);
        for (uint32_t j = i; j < sc->n && want == sc->offsets.end; j++) {
            if (sc->batches[j].at.epoch > epoch)
                want = sc->batches[j].at.base;
            else
                least = sc->batches[j].at.end;
        }
        if (m->conf.cleanup_compact && end >= least) /* where the next one began may be compacted */
            want = MIN(want, end);
        if (found != epoch || end != want)
            POWER_FAIL("%s: epoch %d ends at %lld, not at %lld (epoch %d)", m->name, epoch, (long long)want, (long long)end, found);
    }
}

static void take_over(struct power_part *m, const struct scan *sc)
{
    if (!m->conf.cleanup_compact)
        m->log_n = 0;
    while (m->log_n && (m->log[m->log_n - 1].base >= sc->offsets.end || (m->log[m->log_n - 1].end > m->durable && (P.power || P.faulty) &&
                                                                        !found_at(sc, m->log[m->log_n - 1].base))))
        m->log_n--;
    for (uint32_t i = 0; i < sc->n; i++) {
        struct sent *s = P.sent[sc->batches[i].at.id];
        if (m->conf.cleanup_compact && known_at(m, sc->batches[i].at.base))
            continue;
        P.found += s->base < 0;
        s->base = sc->batches[i].at.base;
        known_add(m, s, s->base, sc->batches[i].at.epoch);
    }
    if (P.clean)
        m->durable = MAX(m->durable, sc->offsets.end);
    m->durable = MIN(m->durable, sc->offsets.end);
    m->epoch = sc->offsets.epoch;
    m->high = sc->offsets.high;
    m->start_max = sc->offsets.log_start;
    if ((P.power || P.clean) && &P.parts[POWER_RETAINED] != m)
        m->start = m->start_max; /* else it may be that of a request that had no answer, and not yet durable; what expired may come back, too */
}

void power_verify(uint32_t part)
{
    struct power_part *m = &P.parts[part];
    struct scan sc;
    scan(&sc, m);
    /* of segments without a durable name a power loss may take the first and leave the next one */
    bool began_anew = P.power && m->durable <= m->start_max;
    if (sc.offsets.log_start < m->start || (part != POWER_RETAINED && sc.offsets.log_start > m->start_max && !began_anew))
        POWER_FAIL("%s: the log starts at %lld; it was %lld", m->name, (long long)sc.offsets.log_start, (long long)m->start);
    check_presence(m, &sc);
    if (m->conf.cleanup_compact) {
        take_over(m, &sc);
        check_keys(m, &sc);
    } else {
        check_producers(m, &sc);
        check_committed(m, &sc);
        take_over(m, &sc);
    }
    check_epochs(m, &sc);
    check_times(m, &sc);
    scan_fini(&sc);
}

void power_read_some(uint32_t part)
{
    struct power_part *m = &P.parts[part];
    struct part_offsets o;
    struct arena arena;
    part_offsets(m->p, &o);
    POWER_CHECK(o.log_start <= o.stable && o.stable <= o.high && o.high <= o.end);
    POWER_CHECK(o.high >= m->high); /* what was shown, or said to be durable, in this life */
    m->high = o.high;
    if (o.log_start == o.high)
        return;
    arena_init(&arena, MEM_SIM, 4096);
    int64_t at = o.log_start + (int64_t)power_random((uint64_t)(o.high - o.log_start));
    struct part_read r = {.offset = at, .bytes_max = (uint32_t)(1 + power_random(SCAN_BYTES)), .until = PART_HIGH, .one_at_least = true};
    int64_t next = read_at(NULL, m, &r, &arena);
    if ((next == at && !m->conf.cleanup_compact && !r.error && !sim_is_down()) || next > o.high)
        POWER_FAIL("%s: a read at %lld ends at %lld; %lld is high", m->name, (long long)at, (long long)next, (long long)o.high);
    P.reads++;
    arena_fini(&arena);
}
