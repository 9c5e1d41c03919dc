/* index.c - where batches are in a segment: by offset and by time.
 *
 *     BASE.index       entries of 8 bytes: offset - base u32, position u32: the batch at that position ends with that offset;
 *                      then the segment's bytes u32, CRC-32C u32 of all before
 *     BASE.timeindex   entries of 12 bytes: timestamp i64, offset - base u32: no record up to that offset is later than the timestamp;
 *                      then the segment's bytes u64, CRC-32C u32 of all before
 *
 * The entries are as Kafka has them: one for every index.interval.bytes, both files ascending. Those of the last segment are in memory and are
 * written when it is sealed, or at a clean stop; they are never synced, because all can be made again from the log. So nothing that a file of
 * an index says is believed: it may have lost its end, or be an older one, or both in parts. What is read whole has to have its CRC and to be
 * of this segment; of what is looked up by single entries, an entry that is used has to name a batch that is there. A file that fails is made anew.
 */
#include "log_int.h"

#define ENTRY 8u
#define ENTRIES_END 8u                 /* behind the entries: the segment's bytes, and the CRC */
#define TIME_ENTRY 12u
#define TIMES_END 12u                  /* behind the entries: the segment's bytes, and the CRC */
#define TIMES_BYTES_MAX ((size_t)(INDEX_ENTRIES_MAX + 1) * TIME_ENTRY + TIMES_END)
#define GAP_MAX (4u << 20)             /* bytes behind the last entry, above which an index has lost its end */

void index_fini(struct index *ix)
{
    mem_free(ix->entries);
    mem_free(ix->times);
    *ix = (struct index){0};
}

void index_clear(struct index *ix) { ix->n = ix->times_n = ix->since = 0; }

static void times_add(struct index *ix, int64_t ms, uint32_t rel)
{
    if (ix->times_n && (ix->times[ix->times_n - 1].ms >= ms || ix->times[ix->times_n - 1].rel >= rel))
        return;
    ARRAY_GROW(MEM_PART, ix->times, ix->times_n, ix->times_cap);
    ix->times[ix->times_n++] = (struct time_entry){ms, rel};
}

void index_add(struct index *ix, struct seg *s, const struct kafka_batch *b, uint32_t pos, uint32_t interval_bytes)
{
    int64_t last = b->base_offset + b->last_offset_delta;
    if (b->max_timestamp > s->max_ms) {
        s->max_ms = b->max_timestamp;
        s->max_offset = last;
    }
    if (ix->since >= interval_bytes && ix->n < INDEX_ENTRIES_MAX) {
        ARRAY_GROW(MEM_PART, ix->entries, ix->n, ix->cap);
        ix->entries[ix->n++] = (struct index_entry){(uint32_t)(last - s->base), pos};
        if (s->max_offset >= s->base)
            times_add(ix, s->max_ms, (uint32_t)(s->max_offset - s->base));
        ix->since = 0;
    }
    ix->since += b->bytes;
}

void index_seal(struct index *ix, const struct seg *s)
{
    if (s->max_offset >= s->base)
        times_add(ix, s->max_ms, (uint32_t)(s->max_offset - s->base));
    ix->sealed = s->bytes;
}

/* ---- files ---- */

enum err file_fill(const char *path, const struct buf *b)
{
    int fd;
    uint64_t bytes, written;
    enum err e = disk_open(path, true, &fd, &bytes);
    if (e != OK)
        return e;
    struct iovec iov = {b->p, b->n};
    if (b->n)
        e = disk_write_at(fd, 0, &iov, 1, &written);
    if (e == OK && bytes > b->n)
        e = disk_truncate(fd, b->n);
    file_close(fd);
    return e;
}

enum err index_write(const struct index *ix, const char *index_path, const char *time_path)
{
    struct buf b = {0};
    for (uint32_t i = 0; i < ix->n; i++) {
        add32(&b, ix->entries[i].rel);
        add32(&b, ix->entries[i].pos);
    }
    add32(&b, (uint32_t)ix->sealed);
    add_crc(&b);
    enum err e = file_fill(index_path, &b);
    buf_clear(&b);
    for (uint32_t i = 0; i < ix->times_n; i++) {
        add64(&b, (uint64_t)ix->times[i].ms);
        add32(&b, ix->times[i].rel);
    }
    add64(&b, ix->sealed);
    add_crc(&b);
    if (e == OK)
        e = file_fill(time_path, &b);
    buf_free(&b);
    return e;
}

enum err index_save(struct part *p, const struct index *ix, int64_t base)
{
    char index_path[LOG_PATH_MAX], time_path[LOG_PATH_MAX];
    p->names_made++;
    return index_write(ix, seg_path(p, base, EXT_INDEX, index_path), seg_path(p, base, EXT_TIME, time_path));
}

/* Whole, and of the segment as it is now. */
static bool entries_read(struct index *ix, struct slice file, const struct seg *s)
{
    if (file.n % ENTRY || file.n < ENTRIES_END || crc32c(0, file.p, file.n - 4) != get32(file.p + file.n - 4) || get32(file.p + file.n - ENTRIES_END) != s->bytes)
        return false;
    file.n -= ENTRIES_END;
    for (size_t at = 0; at < file.n; at += ENTRY) {
        struct index_entry e = {get32(file.p + at), get32(file.p + at + 4)};
        const struct index_entry *before = ix->n ? &ix->entries[ix->n - 1] : NULL;
        if (e.pos >= s->bytes || e.rel > INT32_MAX || (before && (e.rel <= before->rel || e.pos <= before->pos)))
            return false;
        ARRAY_GROW(MEM_PART, ix->entries, ix->n, ix->cap);
        ix->entries[ix->n++] = e;
    }
    return true;
}

static bool times_read(struct index *ix, struct slice file, const struct seg *s)
{
    if (file.n % TIME_ENTRY || file.n < TIMES_END || file.n > TIMES_BYTES_MAX || crc32c(0, file.p, file.n - 4) != get32(file.p + file.n - 4) ||
        get64(file.p + file.n - TIMES_END) != s->bytes)
        return false;
    file.n -= TIMES_END;
    for (size_t at = 0; at < file.n; at += TIME_ENTRY) {
        struct time_entry e = {(int64_t)get64(file.p + at), get32(file.p + at + 8)};
        const struct time_entry *before = ix->times_n ? &ix->times[ix->times_n - 1] : NULL;
        if (e.rel > INT32_MAX || e.ms < 0 || (before && (e.ms <= before->ms || e.rel <= before->rel)))
            return false;
        ARRAY_GROW(MEM_PART, ix->times, ix->times_n, ix->times_cap);
        ix->times[ix->times_n++] = e;
    }
    return true;
}

static bool entry_true(struct part *p, struct seg *s, struct index_entry e);

bool index_load(struct part *p, struct seg *s, struct index *ix)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    index_clear(ix);
    bool ok = file_read(seg_path(p, s->base, EXT_INDEX, path), &b, (size_t)INDEX_ENTRIES_MAX * ENTRY + ENTRIES_END) == OK && entries_read(ix, buf_slice(&b), s);
    ok = ok && file_read(seg_path(p, s->base, EXT_TIME, path), &b, TIMES_BYTES_MAX) == OK && times_read(ix, buf_slice(&b), s);
    buf_free(&b);
    if (ok && s->bytes > 0)
        ok = ix->times_n > 0 && s->bytes - (ix->n ? ix->entries[ix->n - 1].pos : 0) <= MAX(GAP_MAX, 2 * (uint64_t)p->conf.max_message_bytes);
    if (ok && ix->n)
        ok = entry_true(p, s, ix->entries[ix->n - 1]);
    if (!ok) {
        index_clear(ix);
        return false;
    }
    if (ix->times_n) {
        s->max_ms = ix->times[ix->times_n - 1].ms;
        s->max_offset = s->base + ix->times[ix->times_n - 1].rel;
    }
    ix->since = (uint32_t)(s->bytes - (ix->n ? ix->entries[ix->n - 1].pos : 0));
    return true;
}

/* Bytes behind a sealed segment's last batch that are none: a full disk took a part of a write, which was cut off again, and a power loss took the
 * cut back; or a torn end that a recovery had cut off. Only when nothing is missing: the next segment begins with the offset that follows. */
static void tail_trim(struct part *p, struct seg *s, uint64_t bytes)
{
    uint64_t more = s->bytes - bytes;
    char path[LOG_PATH_MAX];
    if (disk_truncate(s->file->fd, bytes) != OK)
        return; /* it can be read up to there in any case */
    log_warn("log", "%s: %llu bytes behind its last batch were cut off before and came back; they are cut off again", seg_path(p, s->base, EXT_LOG, path),
             (unsigned long long)more);
    p->bytes -= more;
    counter_add(&p->shard->counters.bytes, -more);
    s->bytes = bytes;
    s->durable = MIN(s->durable, bytes);
    s->written_back = MIN(s->written_back, bytes);
}

enum err index_rebuild(struct part *p, struct seg *s, struct index *ix, bool save)
{
    enum err e = seg_open(p, s, false);
    if (e != OK)
        return e;
    char *window = mem_new(MEM_PART, WALK_BYTES);
    struct walk w;
    walk_init(&w, s->file->fd, 0, s->bytes, window);
    index_clear(ix);
    s->max_ms = s->max_offset = -1;
    int64_t follows = s->base;
    for (;;) {
        enum walked got = walk_next(&w);
        uint64_t at = w.pos;
        if (got == WALK_BAD && walk_search(&w, w.pos + 1, s->base)) /* damaged: what can be found */
            got = WALK_BATCH;
        bool behind = follows == s->end && s != seg_last(p) && at > 0; /* where the next segment begins */
        if (got != WALK_BATCH || behind) {
            e = got == WALK_IO ? w.err : OK;
            if ((got == WALK_BAD || got == WALK_BATCH) && behind)
                tail_trim(p, s, at);
            break;
        }
        index_add(ix, s, &w.b, (uint32_t)w.pos, p->conf.index_interval_bytes);
        follows = kafka_batch_last_offset(&w.b) + 1;
    }
    mem_free(window);
    index_seal(ix, s);
    if (e == OK && save)
        e = index_save(p, ix, s->base);
    return e;
}

/* ---- looking up ---- */

/* The batch is where the entry says. */
static bool entry_true(struct part *p, struct seg *s, struct index_entry e)
{
    char head[KAFKA_BATCH_HEADER];
    struct kafka_batch b;
    return s->bytes - e.pos >= sizeof head && seg_open(p, s, false) == OK && file_read_at(s->file->fd, e.pos, head, sizeof head) == OK && batch_head(head, &b) &&
           b.base_offset + b.last_offset_delta == s->base + e.rel;
}

/* Index of the last entry whose key is at most key, or -1. */
static int64_t entries_floor(const struct index *ix, uint32_t key, bool by_pos)
{
    int64_t lo = 0, hi = ix->n;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if ((by_pos ? ix->entries[mid].pos : ix->entries[mid].rel) <= key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo - 1;
}

struct index_file {
    int fd;
    uint32_t n;
};

static bool file_entry(const struct index_file *f, int64_t i, struct index_entry *e)
{
    char raw[ENTRY];
    if (file_read_at(f->fd, (uint64_t)i * ENTRY, raw, sizeof raw) != OK)
        return false;
    *e = (struct index_entry){get32(raw), get32(raw + 4)};
    return true;
}

/* The same in the file; false: it can't be read. *e: rel and pos 0 when there is none. */
static bool file_floor(const struct index_file *f, uint32_t key, bool by_pos, struct index_entry *e)
{
    int64_t lo = 0, hi = f->n;
    struct index_entry at, found = {0, 0};
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (!file_entry(f, mid, &at))
            return false;
        if ((by_pos ? at.pos : at.rel) <= key) {
            found = at;
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *e = found;
    return true;
}

/* A true entry of a sealed segment. A file that lies is made anew once, and asked again. */
static struct index_entry sealed_floor(struct part *p, struct seg *s, uint32_t key, bool by_pos)
{
    char path[LOG_PATH_MAX];
    struct index_entry e = {0, 0};
    for (int tries = 0; tries < 2; tries++) {
        struct index_file f;
        uint64_t bytes = 0, mtime;
        bool ok = file_open(seg_path(p, s->base, EXT_INDEX, path), &f.fd, &bytes, &mtime) == OK;
        if (ok) {
            f.n = bytes >= ENTRIES_END ? (uint32_t)MIN((bytes - ENTRIES_END) / ENTRY, INDEX_ENTRIES_MAX) : 0;
            ok = bytes % ENTRY == 0 && bytes >= ENTRIES_END && file_floor(&f, key, by_pos, &e);
            file_close(f.fd);
        }
        if (ok && (e.pos == 0 || (e.pos < s->bytes && e.rel <= INT32_MAX && entry_true(p, s, e))))
            return e;
        log_warn("log", "%s is missing or wrong and is made anew from the log", path);
        struct index ix = {0};
        struct seg copy = *s;
        enum err made = index_rebuild(p, &copy, &ix, true);
        s->file = copy.file;
        s->bytes = copy.bytes;
        s->durable = copy.durable;
        s->written_back = copy.written_back;
        index_fini(&ix);
        if (made != OK)
            break;
    }
    return (struct index_entry){0, 0};
}

uint32_t index_floor(struct part *p, struct seg *s, int64_t offset)
{
    if (offset <= s->base)
        return 0;
    uint32_t rel = (uint32_t)MIN(offset - s->base, INT32_MAX);
    if (s == seg_last(p)) {
        int64_t i = entries_floor(&p->log->index, rel, false);
        return i < 0 ? 0 : p->log->index.entries[i].pos;
    }
    return s->bytes > p->conf.index_interval_bytes ? sealed_floor(p, s, rel, false).pos : 0;
}

uint32_t index_floor_pos(struct part *p, struct seg *s, uint32_t from, uint32_t pos)
{
    uint32_t found = 0;
    if (s == seg_last(p)) {
        int64_t i = entries_floor(&p->log->index, pos, true);
        found = i < 0 ? 0 : p->log->index.entries[i].pos;
    } else if (pos - from > p->conf.index_interval_bytes) {
        found = sealed_floor(p, s, pos, true).pos;
    }
    return MAX(found, from);
}

/* ---- time ---- */

/* The position of a batch before which no record is as late as ms. */
void index_times_floor(struct part *p, struct seg *s, int64_t ms, uint32_t *pos)
{
    struct index own = {0};
    const struct index *ix = &p->log->index;
    if (s != seg_last(p)) {
        char path[LOG_PATH_MAX];
        struct buf b = {0};
        if (file_read(seg_path(p, s->base, EXT_TIME, path), &b, TIMES_BYTES_MAX) != OK || !times_read(&own, buf_slice(&b), s))
            own.times_n = 0; /* from the beginning, then */
        buf_free(&b);
        ix = &own;
    }
    uint32_t lo = 0, hi = ix->times_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (ix->times[mid].ms < ms)
            lo = mid + 1;
        else
            hi = mid;
    }
    *pos = lo ? index_floor(p, s, s->base + ix->times[lo - 1].rel) : 0;
    index_fini(&own);
}

void seg_times(struct part *p, struct seg *s)
{
    char path[LOG_PATH_MAX];
    struct buf b = {0};
    struct index ix = {0};
    bool ok = file_read(seg_path(p, s->base, EXT_TIME, path), &b, TIMES_BYTES_MAX) == OK && times_read(&ix, buf_slice(&b), s);
    buf_free(&b);
    s->max_ms = s->max_offset = -1;
    if (ok && ix.times_n) {
        s->max_ms = ix.times[ix.times_n - 1].ms;
        s->max_offset = s->base + ix.times[ix.times_n - 1].rel;
    } else if (!ok && s->bytes && index_rebuild(p, s, &ix, true) != OK) {
        log_warn("log", "%s is missing or wrong and can't be made anew now: retention and look-ups by time may miss what is late in it", path);
    }
    index_fini(&ix);
}
