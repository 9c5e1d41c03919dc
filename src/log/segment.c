/* segment.c - the files of a partition: their names, their descriptors, their coming and going.
 *
 *     DIR/<partition>/<base, 20 digits>.log         batches
 *                     <base>.index, .timeindex      index.c
 *                     <offset>.snapshot             producers and aborted transactions at that offset (snapshot.c)
 *                     <file>.deleted                on its way out
 *
 * Only the last segment is written. A descriptor (struct segfile) is counted: the segment holds one reference while it is on the shard's list of
 * open files, each reader that sends from it holds another. When the shard has more open than its share, the least recently used
 * are let go, but none with bytes that are not durable: an error that the kernel keeps for a file must meet the sync of whoever wrote it. Such
 * a file is synced first.
 */
#include "log_int.h"

#include <stdio.h>

#define LIMIT_LOOKS 64                 /* files looked at to find one that can be closed */

const char *part_path(const struct part *p, const char *file, char out[LOG_PATH_MAX])
{
    int n = file ? snprintf(out, LOG_PATH_MAX, "%s/%s/%s", p->shard->store->dir, p->name, file) : snprintf(out, LOG_PATH_MAX, "%s/%s", p->shard->store->dir, p->name);
    MUST(n > 0 && n < LOG_PATH_MAX);
    return out;
}

const char *seg_path(const struct part *p, int64_t base, const char *ext, char out[LOG_PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "%020lld%s", (long long)base, ext);
    return part_path(p, name, out);
}

/* ---- descriptors ---- */

struct segfile *segfile_ref(struct segfile *f)
{
    __atomic_add_fetch(&f->refs, 1, __ATOMIC_RELAXED);
    return f;
}

void segfile_unref(struct segfile *f)
{
    if (!f || __atomic_sub_fetch(&f->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    file_close(f->fd);
    mem_free(f);
}

int segfile_fd(const struct segfile *f) { return f->fd; }

void seg_close(struct part *p, struct seg *s)
{
    struct segfile *f = s->file;
    if (!f)
        return;
    s->file = NULL;
    list_del(&f->lru);
    f->part = NULL;
    p->shard->files_n--;
    counter_set(&p->shard->counters.files_open, p->shard->files_n);
    segfile_unref(f);
}

static uint32_t files_share(const struct log_shard *s)
{
    uint32_t shards = __atomic_load_n(&s->store->shards, __ATOMIC_RELAXED);
    return MAX(s->store->conf.files_max / MAX(shards, 1u), 4u);
}

void segfiles_limit(struct log_shard *s)
{
    uint32_t looks = LIMIT_LOOKS, share = files_share(s);
    LIST_FOREACH(it, &s->lru) {
        if (s->files_n < share || looks-- == 0)
            return;
        struct segfile *f = CONTAINER_OF(it, struct segfile, lru);
        struct seg *sg = seg_by_base(f->part, f->base);
        MUST(sg && sg->file == f);
        if (sg->swapping)
            continue;
        if (sg->durable < sg->bytes && !f->part->suspect) {
            sync_force(f->part);
            continue;
        }
        counter_inc(&s->counters.files_closed);
        seg_close(f->part, sg);
    }
}

/* The shard's list takes a descriptor for a segment. */
void seg_adopt(struct part *p, struct seg *s, int fd)
{
    struct segfile *f = mem_new(MEM_PART, sizeof *f);
    *f = (struct segfile){.refs = 1, .fd = fd, .part = p, .base = s->base};
    list_push(&p->shard->lru, &f->lru);
    s->file = f;
    p->shard->files_n++;
    counter_set(&p->shard->counters.files_open, p->shard->files_n);
}

enum err seg_open(struct part *p, struct seg *s, bool create)
{
    if (s->file) {
        if (s->file->lru.next != &p->shard->lru) { /* not the latest already */
            list_del(&s->file->lru);
            list_push(&p->shard->lru, &s->file->lru);
        }
        return OK;
    }
    char path[LOG_PATH_MAX];
    int fd;
    uint64_t bytes;
    segfiles_limit(p->shard);
    enum err e = disk_open(seg_path(p, s->base, EXT_LOG, path), create, &fd, &bytes);
    if (e == OK && bytes < s->bytes) {
        file_close(fd);
        e = ERR_IO;
    }
    if (e == OK && create && bytes > 0) { /* left over by a creation that was taken back */
        e = disk_truncate(fd, 0);
        if (e != OK)
            file_close(fd);
    }
    if (e != OK) {
        log_error("log", "%s can't be opened: %s", path, bytes < s->bytes && e == ERR_IO ? "it is shorter than it was" : err_text(e));
        return e;
    }
    s->emptied = s->emptied || (create && bytes > 0);
    seg_adopt(p, s, fd);
    return OK;
}

/* ---- the array ---- */

struct seg *seg_last(const struct part *p) { return &p->log->segs[p->log->segs_n - 1]; }

struct seg *seg_find(const struct part *p, int64_t offset)
{
    uint32_t lo = 0, hi = p->log->segs_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (p->log->segs[mid].base <= offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return &p->log->segs[lo ? lo - 1 : 0];
}

struct seg *seg_by_base(const struct part *p, int64_t base)
{
    if (!p->log || p->log->segs_n == 0)
        return NULL;
    struct seg *s = seg_find(p, base);
    return s->base == base ? s : NULL;
}

struct seg *seg_add(struct part *p, int64_t base)
{
    struct part_log *g = p->log;
    MUST(g->segs_n == 0 || seg_last(p)->base < base);
    if (g->segs_n == g->segs_cap) {
        g->segs_cap = g->segs_cap ? g->segs_cap * 2 : 1; /* most partitions have one or two */
        g->segs = mem_grow(MEM_PART, g->segs, g->segs_cap * sizeof *g->segs);
    }
    struct seg *s = &g->segs[g->segs_n++];
    *s = (struct seg){.base = base, .end = base, .first_ms = -1, .max_ms = -1, .max_offset = -1, .made_ms = part_now(p)};
    counter_add(&p->shard->counters.segments, 1);
    return s;
}

void seg_drop(struct part *p, uint32_t i, uint32_t n)
{
    struct part_log *g = p->log;
    if (n == 0)
        return;
    for (uint32_t k = i; k < i + n; k++) {
        seg_close(p, &g->segs[k]);
        p->bytes -= g->segs[k].bytes;
        counter_add(&p->shard->counters.bytes, -g->segs[k].bytes);
    }
    memmove(&g->segs[i], &g->segs[i + n], (g->segs_n - i - n) * sizeof *g->segs);
    g->segs_n -= n;
    counter_add(&p->shard->counters.segments, -(uint64_t)n);
    places_forget(g);
}

/* ---- removing ---- */

static const char *const seg_exts[] = {EXT_INDEX, EXT_TIME, EXT_LOG};

enum err seg_files_remove(const struct part *p, int64_t base)
{
    char path[LOG_PATH_MAX];
    enum err first = OK;
    for (size_t i = 0; i < COUNT_OF(seg_exts); i++) {
        enum err e = disk_remove(seg_path(p, base, seg_exts[i], path));
        if (e == OK || e == ERR_NOTFOUND)
            continue;
        log_warn("log", "%s can't be removed: %s", path, err_text(e));
        first = first ? first : e;
    }
    return first;
}

void seg_remove_later(struct part *p, int64_t base)
{
    char path[LOG_PATH_MAX], away[LOG_PATH_MAX];
    enum err e = OK;
    for (size_t i = 0; i < COUNT_OF(seg_exts); i++) { /* the log itself is the last */
        seg_path(p, base, seg_exts[i], path);
        int n = snprintf(away, sizeof away, "%s" EXT_DELETED, path);
        e = n < LOG_PATH_MAX ? disk_rename(path, away) : ERR_LIMIT;
        if (e == OK)
            shard_remove_later(p->shard, away, (uint64_t)MAX(p->conf.file_delete_delay_ms, 0), false);
        else if (e != ERR_NOTFOUND)
            log_warn("log", "%s can't be removed: %s; it is tried again at the next start", path, err_text(e));
    }
    p->left_over |= e != OK && e != ERR_NOTFOUND;
    p->names_made++;
}

/* ---- rolling ---- */

enum err seg_roll(struct part *p)
{
    struct part_log *g = p->log;
    struct seg *s = seg_last(p);
    MUST(s->bytes > 0);
    index_seal(&g->index, s);
    enum err e = index_save(p, &g->index, s->base);
    if (e != OK) /* without them the segment is read slowly; the log itself is sound */
        log_warn("log", "%s: the index of segment %lld can't be written: %s; it is made again when it is needed", p->name, (long long)s->base, err_text(e));
    s->end = p->written;
    s = seg_add(p, p->written);
    e = seg_open(p, s, true);
    if (e != OK) {
        g->segs_n--;
        counter_add(&p->shard->counters.segments, -(uint64_t)1);
        return e;
    }
    index_clear(&g->index);
    p->names_made++;
    p->log->snapshot_due = true;
    return OK;
}
