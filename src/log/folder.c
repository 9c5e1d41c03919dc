/* folder.c - what is in a partition's folder: its segments, and what has no business there any more.
 *
 * A compaction leaves `<base>-<next>.swap` when the process ended before the new segment had its place: it holds all that is still wanted of the
 * offsets from base to next (next: the base of the segment behind), and is complete and durable by then. So the segments of that
 * range go, and it takes the first one's name. `.cleaned` was not complete; `.deleted` was on its way out; `.tmp` is a file that was to replace
 * another. An index without its log is nobody's.
 */
#include "log_int.h"

#include <stdio.h>
#include <stdlib.h>

struct item {
    int64_t base, next;                /* next: of a swap */
    uint64_t bytes;
};
struct items {
    struct item *v;
    uint32_t n, cap;
};
struct folder {
    struct part *p;
    struct items logs, swaps, indexes;
    struct recovery *r;
    struct buf strays;                 /* names, each with its NUL */
};

static bool digits20(struct slice s, int64_t *out)
{
    uint64_t v;
    if (s.n < 20 || slice_u64(slice_of(s.p, 20), OFFSET_MAX, &v) != OK)
        return false;
    *out = (int64_t)v;
    return true;
}

static void item_add(struct items *to, struct item it)
{
    ARRAY_GROW(MEM_PART, to->v, to->n, to->cap);
    to->v[to->n++] = it;
}

static void folder_each(void *ctx, const char *name, bool is_folder, uint64_t bytes)
{
    struct folder *f = ctx;
    struct slice s = slice_cstr(name);
    struct item it = {.bytes = bytes};
    if (is_folder)
        return;
    if (slice_ends(s, SLICE(EXT_DELETED)) || slice_ends(s, SLICE(".cleaned")) || slice_ends(s, SLICE(".tmp"))) {
        buf_add(&f->strays, name, s.n + 1);
        return;
    }
    if (!digits20(s, &it.base))
        return;
    struct slice ext = slice_of(s.p + 20, s.n - 20);
    if (slice_is(ext, EXT_LOG)) {
        item_add(&f->logs, it);
    } else if (slice_is(ext, EXT_INDEX) || slice_is(ext, EXT_TIME)) {
        item_add(&f->indexes, it);
    } else if (slice_is(ext, EXT_SNAPSHOT)) {
        ARRAY_GROW(MEM_PART, f->r->snapshots, f->r->snapshots_n, f->r->snapshots_cap);
        f->r->snapshots[f->r->snapshots_n++] = it.base;
    } else if (ext.n == 26 && ext.p[0] == '-' && slice_ends(ext, SLICE(EXT_SWAP)) && digits20(slice_of(ext.p + 1, ext.n - 1), &it.next) && it.next > it.base) {
        item_add(&f->swaps, it);
    }
}

static int item_order(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->base < y->base ? -1 : x->base > y->base;
}

static int offset_order(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void strays_remove(struct folder *f)
{
    char path[LOG_PATH_MAX];
    for (size_t at = 0; at < f->strays.n; at += strlen(f->strays.p + at) + 1) {
        enum err e = disk_remove(part_path(f->p, f->strays.p + at, path));
        if (e != OK && e != ERR_NOTFOUND)
            log_warn("log", "%s is no longer needed and can't be removed: %s", path, err_text(e));
    }
}

const char *swap_path(const struct part *p, int64_t base, int64_t next, char out[LOG_PATH_MAX])
{
    char name[96];
    snprintf(name, sizeof name, "%020lld-%020lld" EXT_SWAP, (long long)base, (long long)next);
    return part_path(p, name, out);
}

/* Blocks; also the last step of a compaction, in the pool. */
enum err swap_finish(const char *folder, const char *swap, const char *log)
{
    enum err e = disk_sync_dir(folder); /* the removals before: the range must not be there twice */
    if (e == OK)
        e = disk_rename(swap, log);
    return e == OK ? disk_sync_dir(folder) : e;
}

static enum err swap_take(struct folder *f, const struct item *swap, struct buf *why)
{
    char folder[LOG_PATH_MAX], from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    uint32_t kept = 0;
    enum err e = disk_sync_dir(part_path(f->p, NULL, folder)); /* the process may have ended before its own name was durable */
    if (e != OK) {
        buf_printf(why, "%s can't be synced: %s", folder, err_text(e));
        return e;
    }
    for (uint32_t i = 0; i < f->logs.n; i++) {
        if (f->logs.v[i].base < swap->base || f->logs.v[i].base >= swap->next) {
            f->logs.v[kept++] = f->logs.v[i];
            continue;
        }
        enum err removed = seg_files_remove(f->p, f->logs.v[i].base);
        e = e ? e : removed;
    }
    f->logs.n = kept;
    if (e == OK)
        e = swap_finish(part_path(f->p, NULL, folder), swap_path(f->p, swap->base, swap->next, from), seg_path(f->p, swap->base, EXT_LOG, to));
    if (e != OK)
        buf_printf(why, "%s can't take its place: %s", from, err_text(e));
    item_add(&f->logs, (struct item){.base = swap->base, .bytes = swap->bytes});
    qsort(f->logs.v, f->logs.n, sizeof *f->logs.v, item_order);
    return e;
}

static void indexes_tidy(struct folder *f)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < f->indexes.n; i++) {
        while (at < f->logs.n && f->logs.v[at].base < f->indexes.v[i].base) at++;
        if (at == f->logs.n || f->logs.v[at].base != f->indexes.v[i].base)
            seg_files_remove(f->p, f->indexes.v[i].base);
    }
}

static void segs_take(struct folder *f)
{
    struct part *p = f->p;
    for (uint32_t i = 0; i < f->logs.n; i++) {
        struct seg *s = seg_add(p, f->logs.v[i].base);
        s->bytes = s->written_back = s->durable = MIN(f->logs.v[i].bytes, SEG_BYTES_MAX);
        p->bytes += s->bytes;
        counter_add(&p->shard->counters.bytes, s->bytes);
        if (i + 1 < f->logs.n)
            s->end = f->logs.v[i + 1].base;
    }
}

enum err part_list(struct part *p, struct recovery *r, struct buf *why)
{
    char path[LOG_PATH_MAX];
    struct folder f = {.p = p, .r = r};
    enum err e = disk_list(part_path(p, NULL, path), folder_each, &f);
    if (e != OK)
        buf_printf(why, "%s can't be listed: %s", path, err_text(e));
    if (f.logs.n)
        qsort(f.logs.v, f.logs.n, sizeof *f.logs.v, item_order);
    if (f.indexes.n)
        qsort(f.indexes.v, f.indexes.n, sizeof *f.indexes.v, item_order);
    if (r->snapshots_n)
        qsort(r->snapshots, r->snapshots_n, sizeof *r->snapshots, offset_order);
    strays_remove(&f);
    for (uint32_t i = 0; e == OK && i < f.swaps.n; i++) e = swap_take(&f, &f.swaps.v[i], why);
    if (e == OK) {
        indexes_tidy(&f);
        segs_take(&f);
    }
    mem_free(f.logs.v);
    mem_free(f.swaps.v);
    mem_free(f.indexes.v);
    buf_free(&f.strays);
    return e;
}
