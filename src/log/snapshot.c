/* snapshot.c - producers and aborted transactions of a partition as of an offset, in a file.
 *
 *     <offset>.snapshot    magic "WLPS", offset i64, leader epoch i32, producers u32, each: id i64, last ms i64, txn first i64, txn segment i64, txn position u32,
 *                          coordinator epoch i32, epoch i16, sent u16, each: last offset i64, base sequence i32, last sequence i32;
 *                          aborted u32, each: producer i64, first i64, last i64, open from i64; crc (fields.c)
 *
 * One is written when a segment is sealed, by a checkpoint when much was appended since, and when the shard stops. It is replaced
 * atomically and durably, in the pool. With the log behind its offset it gives the state at the end; so the newest one that does not lie beyond
 * the end of a recovered log is needed, and the one before it is kept until what the newest stands for is durable. The epoch tells one whose
 * log was lost behind an earlier offset, and has since been written anew, from one of this log (as KIP-101 does for followers).
 */
#include "log_int.h"

#include <stdio.h>

#define SNAPSHOT_MAGIC 0x574c5053u
#define SNAPSHOT_FILE_MAX (1u << 28)

void snapshot_write(const struct producers *ps, int64_t offset, int32_t epoch, struct buf *out)
{
    buf_clear(out);
    add32(out, SNAPSHOT_MAGIC);
    add64(out, (uint64_t)offset);
    add32(out, (uint32_t)epoch);
    add32(out, ps->n);
    for (uint32_t i = 0; i < ps->cap; i++) {
        const struct producer *pr = ps->slots[i];
        if (!pr)
            continue;
        add64(out, (uint64_t)pr->id);
        add64(out, (uint64_t)pr->last_ms);
        add64(out, (uint64_t)pr->txn_first);
        add64(out, (uint64_t)pr->txn_seg);
        add32(out, pr->txn_pos);
        add32(out, (uint32_t)pr->coordinator_epoch);
        add16(out, (uint16_t)pr->epoch);
        add16(out, pr->sent_n);
        for (uint8_t k = 0; k < pr->sent_n; k++) {
            add64(out, (uint64_t)pr->sent[k].last_offset);
            add32(out, (uint32_t)pr->sent[k].base_sequence);
            add32(out, (uint32_t)pr->sent[k].last_sequence);
        }
    }
    add32(out, ps->aborted_n);
    for (uint32_t i = 0; i < ps->aborted_n; i++) {
        add64(out, (uint64_t)ps->aborted[i].producer_id);
        add64(out, (uint64_t)ps->aborted[i].first);
        add64(out, (uint64_t)ps->aborted[i].last);
        add64(out, (uint64_t)ps->aborted[i].open_from);
    }
    add_crc(out);
}

static bool producer_read(struct producers *ps, struct fields *f, int64_t offset)
{
    struct producer pr = {.id = (int64_t)take64(f)};
    pr.last_ms = (int64_t)take64(f);
    pr.txn_first = (int64_t)take64(f);
    pr.txn_seg = (int64_t)take64(f);
    pr.txn_pos = take32(f);
    pr.coordinator_epoch = (int32_t)take32(f);
    pr.epoch = (int16_t)take16(f);
    uint16_t n = take16(f);
    if (n > SENT_BATCHES || pr.txn_first < -1 || pr.txn_first >= offset)
        return false;
    for (; pr.sent_n < n; pr.sent_n++) {
        struct sent_batch *b = &pr.sent[pr.sent_n];
        b->last_offset = (int64_t)take64(f);
        b->base_sequence = (int32_t)take32(f);
        b->last_sequence = (int32_t)take32(f);
    }
    if (f->bad)
        return false;
    producer_add(ps, &pr);
    return true;
}

static bool aborted_read(struct producers *ps, struct fields *f)
{
    struct aborted a = {.producer_id = (int64_t)take64(f)};
    a.first = (int64_t)take64(f);
    a.last = (int64_t)take64(f);
    a.open_from = (int64_t)take64(f);
    if (f->bad || a.first > a.last || (ps->aborted_n && ps->aborted[ps->aborted_n - 1].last >= a.last))
        return false;
    ARRAY_GROW(MEM_PART, ps->aborted, ps->aborted_n, ps->aborted_cap);
    ps->aborted[ps->aborted_n++] = a;
    return true;
}

bool snapshot_read(struct producers *ps, struct slice bytes, int64_t offset, int32_t *epoch)
{
    struct fields f;
    if (!fields_open(bytes, SNAPSHOT_MAGIC, &f) || (int64_t)take64(&f) != offset)
        return false;
    *epoch = (int32_t)take32(&f);
    uint32_t n = take32(&f);
    bool ok = n <= PRODUCERS_MAX;
    for (uint32_t i = 0; ok && i < n; i++) ok = producer_read(ps, &f, offset);
    n = ok ? take32(&f) : 0;
    ok = ok && n <= 2 * ABORTED_MAX;
    for (uint32_t i = 0; ok && i < n; i++) ok = aborted_read(ps, &f);
    if (ok && f.n == 0 && !f.bad)
        return true;
    producers_fini(ps);
    return false;
}

/* ---- saving ---- */

struct snapshot_job {
    struct work work;
    struct part *part;
    struct buf bytes;
    int64_t offset;
    int64_t remove;                    /* a snapshot that is no longer needed; -1: none */
    enum err err;
    char path[LOG_PATH_MAX], gone[LOG_PATH_MAX];
};

static void snapshot_run(struct work *w)
{
    struct snapshot_job *j = CONTAINER_OF(w, struct snapshot_job, work);
    j->err = file_replace(j->path, j->bytes.p, j->bytes.n, 0600);
    if (j->err == OK && j->remove >= 0 && disk_remove(j->gone) != OK)
        j->remove = -1; /* at the next start */
}

static void snapshot_done(struct work *w)
{
    struct snapshot_job *j = CONTAINER_OF(w, struct snapshot_job, work);
    struct part *p = j->part;
    struct log_shard *s = p->shard;
    if (j->err != OK && !p->gone)
        log_warn("log", "%s can't be written: %s; a start reads more of the log", j->path, err_text(j->err));
    else if (p->log && j->offset > p->log->snapshot_durable)
        p->log->snapshot_durable = j->offset;
    buf_free(&j->bytes);
    mem_free(j);
    part_unpin(p);
    shard_job_over(s);
}

void snapshot_save(struct part *p)
{
    struct part_log *g = p->log;
    if (g->snapshot == p->written || (g->producers.n == 0 && g->producers.aborted_n == 0 && g->snapshot < 0))
        return;
    struct snapshot_job *j = mem_new(MEM_PART, sizeof *j);
    char name[64];
    *j = (struct snapshot_job){.work = {.run = snapshot_run, .done = snapshot_done}, .part = p, .offset = p->written, .remove = -1};
    snapshot_write(&g->producers, p->written, p->epoch, &j->bytes);
    snprintf(name, sizeof name, "%020lld" EXT_SNAPSHOT, (long long)p->written);
    part_path(p, name, j->path);
    if (g->snapshot_before >= 0 && p->durable >= g->snapshot && g->snapshot <= g->snapshot_durable) {
        j->remove = g->snapshot_before;
        snprintf(name, sizeof name, "%020lld" EXT_SNAPSHOT, (long long)j->remove);
        part_path(p, name, j->gone);
    }
    g->snapshot_before = g->snapshot;
    g->snapshot = p->written;
    g->since_snapshot = 0;
    p->pins++;
    p->shard->jobs++;
    work_submit(p->shard->loop, &j->work);
}
