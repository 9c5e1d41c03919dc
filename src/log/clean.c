/* clean.c - the work of a compaction, in the pool: sealed segments in, fewer and smaller ones out.
 *
 *     1. keys      every record of the dirty range: hash of its key -> its offset, in a table of fixed size. When that is full the
 *                  range ends there (map_end), and another compaction goes on from it.
 *     2. copy      all sources, in groups that make one segment each. A record stays when no later one has its key; a batch of which nothing
 *                  is taken away is copied as it is.
 *     3. swap      each new segment is synced, gets a name that says which offsets it stands for, and that name is made durable. (folder.c)
 *
 * Rules (KIP-58, KIP-280's default, KIP-534, KIP-98): base offset, last offset delta and sequences of a batch stay, offsets become sparse. A batch
 * that is left without records stays as a header while it holds its producer's last sequence. A tombstone is kept until its batch's
 * delete horizon (attribute bit 6; the base timestamp then is the horizon), which is set when it is first cleaned. Records of aborted
 * transactions go. A marker goes when no record of its transaction is left, but not before a horizon of its own. What is at or behind
 * map_end stays as it is, but for aborted records.
 *
 * Keys are told apart by 128 bits of SipHash-2-4 with a key that is new each time: nobody can make two keys collide.
 */
#include "log_int.h"

#include <stdio.h>
#include <stdlib.h>

#define OUT_BYTES (1u << 20)           /* gathered before they are written */
#define MAP_FULL(cap) ((cap) / 10 * 9)
#define TXN_DATA_MAX 100000            /* transactions followed at once; beyond, markers stay */

/* ---- SipHash-2-4, 128 bits (Aumasson, Bernstein 2012) ---- */

struct sip {
    uint64_t v[4];
};

static uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }

static void sip_rounds(struct sip *s, int n)
{
    uint64_t *v = s->v;
    while (n--) {
        v[0] += v[1]; v[1] = rotl(v[1], 13); v[1] ^= v[0]; v[0] = rotl(v[0], 32);
        v[2] += v[3]; v[3] = rotl(v[3], 16); v[3] ^= v[2];
        v[0] += v[3]; v[3] = rotl(v[3], 21); v[3] ^= v[0];
        v[2] += v[1]; v[1] = rotl(v[1], 17); v[1] ^= v[2]; v[2] = rotl(v[2], 32);
    }
}

static void sip_word(struct sip *s, uint64_t m)
{
    s->v[3] ^= m;
    sip_rounds(s, 2);
    s->v[0] ^= m;
}

void siphash128(const uint64_t key[2], struct slice in, uint64_t out[2])
{
    struct sip s = {{key[0] ^ 0x736f6d6570736575ULL, key[1] ^ 0x646f72616e646f6dULL ^ 0xee, key[0] ^ 0x6c7967656e657261ULL, key[1] ^ 0x7465646279746573ULL}};
    uint64_t m, last = (uint64_t)in.n << 56;
    size_t at = 0;
    for (; at + 8 <= in.n; at += 8) {
        memcpy(&m, in.p + at, 8);
        sip_word(&s, m);
    }
    for (size_t i = 0; at + i < in.n; i++) last |= (uint64_t)(uint8_t)in.p[at + i] << (8 * i);
    sip_word(&s, last);
    s.v[2] ^= 0xee;
    sip_rounds(&s, 4);
    out[0] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    s.v[1] ^= 0xdd;
    sip_rounds(&s, 4);
    out[1] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
}

/* ---- keys ---- */

static struct key_slot *map_slot(const struct clean *c, struct slice key)
{
    uint64_t h[2];
    siphash128(c->map_key, key, h);
    uint64_t i = h[0] % c->map_cap;
    while (c->map[i].offset >= 0 && (c->map[i].hash[0] != h[0] || c->map[i].hash[1] != h[1])) i = i + 1 == c->map_cap ? 0 : i + 1;
    struct key_slot *s = &c->map[i];
    if (s->offset < 0) {
        s->hash[0] = h[0];
        s->hash[1] = h[1];
    }
    return s;
}

static enum err fail(struct clean *c, enum err e, const char *what)
{
    if (c->err == OK) {
        c->err = e;
        c->what = what;
    }
    return e;
}

/* Its records are what its header says; a producer's own mistakes are not made worse. */
static bool records_sane(const struct kafka_batch *b, struct slice records)
{
    struct kafka_record r;
    int32_t n = 0, delta = -1;
    while (records.n) {
        if (kafka_record_next(&records, &r) != OK || r.offset_delta <= delta || r.offset_delta > b->last_offset_delta)
            return false;
        delta = r.offset_delta;
        n++;
    }
    return n == b->count;
}

/* The batch of the walk, whole, with its records inflated in *records. *opaque: it can't be looked into; it stays as it is. */
static enum err batch_read(struct clean *c, struct walk *w, struct kafka_batch *b, struct slice *records, bool *opaque)
{
    *records = (struct slice){0};
    buf_clear(&c->batch);
    buf_reserve(&c->batch, w->b.bytes);
    enum err e = file_read_at(w->fd, w->pos, c->batch.p, w->b.bytes);
    if (e != OK)
        return fail(c, e, "a segment can't be read");
    c->batch.n = w->b.bytes;
    if (kafka_batch_parse(buf_slice(&c->batch), b) != KAFKA_NONE || !kafka_batch_crc_ok(c->batch.p, b))
        return fail(c, ERR_SYNTAX, "a batch is damaged");
    buf_clear(&c->scratch);
    e = kafka_batch_records(b, KAFKA_INFLATE_BYTES_MAX, &c->scratch, records);
    *opaque = e != OK || !records_sane(b, *records);
    return OK;
}

/* The next batch of a source; false at its end, or after an error (c->err). */
static bool source_next(struct clean *c, struct walk *w)
{
    if (__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
        fail(c, ERR_CLOSED, NULL);
        return false;
    }
    enum walked got = walk_next(w);
    if (got == WALK_IO)
        fail(c, w->err, "a segment can't be read");
    else if (got == WALK_BAD)
        fail(c, ERR_SYNTAX, "a batch is damaged");
    return got == WALK_BATCH;
}

static bool is_aborted(const struct clean *c, const struct kafka_batch *b)
{
    if (!(b->attributes & KAFKA_BATCH_TRANSACTIONAL) || (b->attributes & KAFKA_BATCH_CONTROL))
        return false;
    uint32_t lo = 0, hi = c->aborted_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (c->aborted[mid].last < b->base_offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < c->aborted_n; lo++) {
        const struct aborted *a = &c->aborted[lo];
        if (a->producer_id == b->producer_id && a->first <= b->base_offset)
            return true;
        if (a->open_from > b->base_offset)
            return false;
    }
    return false;
}

/* Its keys, unless there is no room for all of them: then false. */
static bool keys_take(struct clean *c, const struct kafka_batch *b, struct slice records)
{
    struct kafka_record r;
    if (c->map_n + (uint64_t)b->count > MAP_FULL(c->map_cap))
        return false;
    while (records.n && kafka_record_next(&records, &r) == OK) {
        if (!r.key.p)
            continue;
        struct key_slot *s = map_slot(c, r.key);
        c->map_n += s->offset < 0;
        s->offset = b->base_offset + r.offset_delta;
    }
    return true;
}

/* Slots for all records of the dirty range, as their headers count them, if there is memory for so many: most compactions need little. */
static uint64_t map_size(struct clean *c)
{
    uint64_t most = MAX(c->map_bytes / sizeof *c->map, 16u), records = 0;
    for (uint32_t i = 0; i < c->sources_n && c->err == OK; i++) {
        const struct clean_source *s = &c->sources[i];
        struct walk w;
        if (s->next <= c->dirty || s->base >= c->limit)
            continue;
        for (walk_init(&w, s->file->fd, 0, s->bytes, c->window); source_next(c, &w);)
            if (kafka_batch_last_offset(&w.b) >= c->dirty)
                records += (uint64_t)w.b.count;
    }
    return MIN(most, records + records / 8 + 16); /* at most 9 in 10 are used */
}

static void keys_read(struct clean *c)
{
    c->map_end = c->limit;
    for (uint32_t i = 0; i < c->sources_n && c->err == OK; i++) {
        const struct clean_source *s = &c->sources[i];
        struct walk w;
        if (s->next <= c->dirty || s->base >= c->limit)
            continue;
        for (walk_init(&w, s->file->fd, 0, s->bytes, c->window); source_next(c, &w);) {
            struct kafka_batch b;
            struct slice records;
            bool opaque;
            if (kafka_batch_last_offset(&w.b) < c->dirty || (w.b.attributes & KAFKA_BATCH_CONTROL) || is_aborted(c, &w.b))
                continue;
            if (w.b.base_offset >= c->limit)
                return;
            if (batch_read(c, &w, &b, &records, &opaque) != OK)
                return;
            if (opaque || keys_take(c, &b, records))
                continue;
            c->map_end = b.base_offset;
            if (c->map_n == 0)
                fail(c, ERR_LIMIT, "one batch has more keys than there is memory for (compaction_bytes)");
            return;
        }
    }
}

/* ---- what stays ---- */

/* Its transaction has records that stay. */
static void txn_mark(struct clean *c, int64_t producer_id, bool data)
{
    struct slice key = slice_of((const char *)&producer_id, sizeof producer_id);
    if (!data)
        table_del(&c->txn_data, key);
    else if (c->txn_data.n < TXN_DATA_MAX)
        table_put(&c->txn_data, key, c);
}

static bool txn_has_data(const struct clean *c, int64_t producer_id)
{
    return c->txn_data.n >= TXN_DATA_MAX || table_get(&c->txn_data, slice_of((const char *)&producer_id, sizeof producer_id));
}

static int last_order(const void *a, const void *b)
{
    const struct clean_last *x = a, *y = b;
    return x->producer_id < y->producer_id ? -1 : x->producer_id > y->producer_id;
}

static bool is_last(const struct clean *c, const struct kafka_batch *b)
{
    struct clean_last key = {.producer_id = b->producer_id};
    const struct clean_last *l = c->lasts_n ? bsearch(&key, c->lasts, c->lasts_n, sizeof key, last_order) : NULL;
    return l && l->offset == kafka_batch_last_offset(b);
}

struct verdict {
    int32_t kept, dropped;
    bool horizon;                      /* is to be set */
};

static bool past_horizon(const struct clean *c, const struct kafka_batch *b)
{
    return (b->attributes & KAFKA_BATCH_DELETE_HORIZON) && b->base_timestamp <= c->now_ms;
}

static bool record_stays(struct clean *c, const struct kafka_batch *b, const struct kafka_record *r, bool *horizon)
{
    int64_t offset = b->base_offset + r->offset_delta;
    if (offset >= c->map_end)
        return true;
    if (!r->key.p)
        return false;
    if (map_slot(c, r->key)->offset > offset)
        return false;
    if (r->value.p)
        return true;
    if (past_horizon(c, b))
        return false;
    *horizon = true;
    return true;
}

/* Adds the batch with only what stays of its records to out. */
static enum err batch_rewrite(struct clean *c, const struct kafka_batch *b, struct slice records, bool horizon, bool none)
{
    struct kafka_batch_builder k;
    struct kafka_batch head = *b;
    struct kafka_record r;
    if (horizon) {
        head.attributes |= KAFKA_BATCH_DELETE_HORIZON;
        head.base_timestamp = c->delete_retention_ms < INT64_MAX - c->now_ms ? c->now_ms + c->delete_retention_ms : INT64_MAX;
    }
    kafka_batch_begin(&k, &c->out, &head);
    bool ignored;
    while (!none && records.n && kafka_record_next(&records, &r) == OK)
        if ((b->attributes & KAFKA_BATCH_CONTROL) || record_stays(c, b, &r, &ignored))
            kafka_batch_add_at(&k, r.offset_delta, record_ms(b, &r), &r);
    k.head.last_offset_delta = b->last_offset_delta;
    if ((b->attributes & KAFKA_BATCH_LOG_APPEND) || k.head.count == 0)
        k.head.max_timestamp = b->max_timestamp;
    return kafka_batch_end(&k, k.head.count ? kafka_batch_codec(b) : KAFKA_CODEC_NONE);
}

static enum err out_flush(struct clean *c, struct clean_out *o, size_t least)
{
    if (c->out.n < least || c->out.n == 0)
        return OK;
    struct iovec iov = {c->out.p, c->out.n};
    uint64_t written;
    enum err e = disk_write_at(o->fd, o->seg.bytes - c->out.n, &iov, 1, &written);
    buf_clear(&c->out);
    return e == OK ? OK : fail(c, e, "the new segment can't be written");
}

/* The batch at c->out's end, from `at` on, is part of the new segment. */
static enum err out_added(struct clean *c, struct clean_out *o, size_t at)
{
    struct kafka_batch b;
    MUST(batch_head(c->out.p + at, &b));
    if (o->seg.bytes == 0)
        o->seg.first_ms = b.max_timestamp;
    index_add(&o->index, &o->seg, &b, (uint32_t)o->seg.bytes, c->interval_bytes);
    o->seg.bytes += b.bytes;
    c->batches++;
    return out_flush(c, o, OUT_BYTES);
}

static struct verdict judge(struct clean *c, const struct kafka_batch *b, struct slice records)
{
    struct verdict v = {0};
    struct kafka_record r;
    if (b->attributes & KAFKA_BATCH_CONTROL) {
        bool data = txn_has_data(c, b->producer_id);
        txn_mark(c, b->producer_id, false);
        v.kept = b->count;
        if (data || kafka_batch_last_offset(b) >= c->map_end)
            return v;
        if (past_horizon(c, b)) {
            v.dropped = v.kept;
            v.kept = 0;
        }
        v.horizon = v.kept && !(b->attributes & KAFKA_BATCH_DELETE_HORIZON);
        return v;
    }
    bool gone = is_aborted(c, b), horizon = false;
    while (records.n && kafka_record_next(&records, &r) == OK) {
        if (!gone && record_stays(c, b, &r, &horizon))
            v.kept++;
        else
            v.dropped++;
    }
    v.horizon = horizon && !(b->attributes & KAFKA_BATCH_DELETE_HORIZON);
    if (v.kept && (b->attributes & KAFKA_BATCH_TRANSACTIONAL))
        txn_mark(c, b->producer_id, true);
    return v;
}

/* left: bytes of the group's sources that are still to come. */
static enum err batch_clean(struct clean *c, struct clean_out *o, struct walk *w, uint64_t left)
{
    struct kafka_batch b;
    struct slice records;
    bool opaque;
    enum err e = batch_read(c, w, &b, &records, &opaque);
    if (e != OK)
        return e;
    struct verdict v = opaque ? (struct verdict){.kept = b.count} : judge(c, &b, records);
    size_t at = c->out.n;
    bool empty = v.kept == 0 && !opaque;
    c->dropped += (uint64_t)v.dropped;
    if (empty && !is_last(c, &b))
        return OK;
    bool as_is = opaque || (v.dropped == 0 && !v.horizon);
    if (!as_is) {
        e = batch_rewrite(c, &b, records, v.horizon, empty);
        if (e != OK)
            return fail(c, e, "a batch can't be written anew");
        as_is = o->seg.bytes + (c->out.n - at) + left > SEG_BYTES_MAX; /* a horizon makes it longer: not today */
        c->out.n = as_is ? at : c->out.n;
    }
    if (as_is)
        buf_add(&c->out, c->batch.p, b.bytes);
    return out_added(c, o, at);
}

/* ---- segments ---- */

static enum err out_open(struct clean *c, struct clean_out *o, char path[LOG_PATH_MAX])
{
    uint64_t bytes;
    char name[64];
    snprintf(name, sizeof name, "%020lld.cleaned", (long long)o->seg.base);
    enum err e = disk_open(part_path(c->part, name, path), true, &o->fd, &bytes);
    if (e == OK && bytes)
        e = disk_truncate(o->fd, 0);
    return e == OK ? OK : fail(c, e, "a new segment can't be made");
}

static enum err out_close(struct clean *c, struct clean_out *o, const char *path)
{
    char swap[LOG_PATH_MAX];
    enum err e = out_flush(c, o, 1);
    if (e != OK)
        return e;
    index_seal(&o->index, &o->seg);
    e = disk_sync(o->fd);
    if (e == OK)
        e = disk_rename(path, swap_path(c->part, o->seg.base, o->next, swap));
    return e == OK ? OK : fail(c, e, "the new segment can't be made durable");
}

static void group_clean(struct clean *c, struct clean_out *o)
{
    char path[LOG_PATH_MAX];
    uint64_t left = 0;
    if (out_open(c, o, path) != OK)
        return;
    for (uint32_t i = o->first; i < o->first + o->n; i++) left += c->sources[i].bytes;
    for (uint32_t i = o->first; i < o->first + o->n && c->err == OK; i++) {
        const struct clean_source *s = &c->sources[i];
        struct walk w;
        for (walk_init(&w, s->file->fd, 0, s->bytes, c->window); source_next(c, &w);) {
            left -= w.b.bytes;
            if (batch_clean(c, o, &w, left) != OK)
                return;
        }
    }
    if (c->err == OK)
        out_close(c, o, path);
}

/* Sources that make one segment together. */
static void groups_make(struct clean *c)
{
    for (uint32_t i = 0; i < c->sources_n && c->sources[i].base < c->map_end;) {
        uint64_t bytes = 0;
        ARRAY_GROW(MEM_PART, c->outs, c->outs_n, c->outs_cap);
        struct clean_out *o = &c->outs[c->outs_n++];
        *o = (struct clean_out){.first = i, .fd = -1};
        o->seg = (struct seg){.base = c->sources[i].base, .first_ms = -1, .made_ms = c->now_ms, .max_ms = -1, .max_offset = -1};
        do {
            bytes += c->sources[i].bytes;
            o->next = o->seg.end = c->sources[i].next;
            o->n++;
            i++;
        } while (i < c->sources_n && c->sources[i].base < c->map_end && bytes + c->sources[i].bytes <= c->segment_bytes &&
                 c->sources[i].next - o->seg.base <= INT32_MAX);
    }
}

void clean_abandon(struct clean *c)
{
    char path[LOG_PATH_MAX], name[64];
    for (uint32_t i = 0; i < c->outs_n; i++) {
        struct clean_out *o = &c->outs[i];
        if (o->fd < 0)
            continue;
        snprintf(name, sizeof name, "%020lld.cleaned", (long long)o->seg.base);
        enum err e = disk_remove(swap_path(c->part, o->seg.base, o->next, path));
        if (e == ERR_NOTFOUND)
            e = disk_remove(part_path(c->part, name, path));
        if (e != OK && e != ERR_NOTFOUND)
            log_warn("log", "%s can't be removed: %s", path, err_text(e));
        file_close(o->fd);
        o->fd = -1;
    }
}

void clean_run(struct work *w)
{
    struct clean *c = CONTAINER_OF(w, struct clean, work);
    char folder[LOG_PATH_MAX];
    c->window = mem_new(MEM_PART, WALK_BYTES);
    c->map_cap = map_size(c);
    c->map = mem_try(MEM_PART, c->map_cap * sizeof *c->map);
    if (!c->map) {
        fail(c, ERR_NOMEM, "there is no memory for its keys");
        return;
    }
    for (uint64_t i = 0; i < c->map_cap; i++) c->map[i].offset = -1;
    random_bytes(c->map_key, sizeof c->map_key);
    if (c->lasts_n)
        qsort(c->lasts, c->lasts_n, sizeof *c->lasts, last_order);
    keys_read(c);
    if (c->err == OK)
        groups_make(c);
    for (uint32_t i = 0; i < c->outs_n && c->err == OK; i++) group_clean(c, &c->outs[i]);
    if (c->err == OK) {
        enum err e = disk_sync_dir(part_path(c->part, NULL, folder));
        if (e != OK)
            fail(c, e, "the new segments can't be made durable");
    }
    if (c->err != OK)
        clean_abandon(c);
    mem_free(c->map);
    mem_free(c->window);
    c->map = NULL;
    c->window = NULL;
}

/* In this order a crash leaves nothing twice: the old ones go, that is durable, then the new one takes the name. */
static enum err place_one(const struct clean *c, const struct clean_out *o)
{
    char folder[LOG_PATH_MAX], swap[LOG_PATH_MAX], log[LOG_PATH_MAX], index[LOG_PATH_MAX], times[LOG_PATH_MAX];
    enum err e = OK;
    for (uint32_t i = o->first; i < o->first + o->n; i++) { /* one that stays would be taken for what follows */
        enum err removed = seg_files_remove(c->part, c->sources[i].base);
        e = e ? e : removed;
    }
    if (e == OK)
        e = swap_finish(part_path(c->part, NULL, folder), swap_path(c->part, o->seg.base, o->next, swap), seg_path(c->part, o->seg.base, EXT_LOG, log));
    if (e == OK && index_write(&o->index, seg_path(c->part, o->seg.base, EXT_INDEX, index), seg_path(c->part, o->seg.base, EXT_TIME, times)) != OK)
        log_warn("log", "%s can't be written; it is made again when it is needed", index);
    return e;
}

void clean_place(struct work *w)
{
    struct clean *c = CONTAINER_OF(w, struct clean, work);
    for (uint32_t i = 0; i < c->outs_n && c->err == OK; i++) {
        enum err e = place_one(c, &c->outs[i]);
        if (e != OK)
            fail(c, e, "a new segment can't take its place");
    }
}

void clean_free(struct clean *c)
{
    for (uint32_t i = 0; i < c->sources_n; i++) segfile_unref(c->sources[i].file);
    for (uint32_t i = 0; i < c->outs_n; i++) index_fini(&c->outs[i].index);
    mem_free(c->sources);
    mem_free(c->outs);
    mem_free(c->aborted);
    mem_free(c->lasts);
    table_fini(&c->txn_data);
    buf_free(&c->out);
    buf_free(&c->batch);
    buf_free(&c->scratch);
    mem_free(c);
}
