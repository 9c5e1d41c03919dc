/* sim_power.c - the simulated disk, second part: what reaches it, and when; what crashes leave.
 *
 * A file's content is `bytes` in the page cache and `disk` for certain on the disk; `changes` lead from one to the other. A sync that is
 * over moves its changes over. At power loss the remaining ones are settled by chance, in the manner of a journaling file system that orders
 * nothing between data and names (rt.h promises no more than that):
 *
 *     sectors   each of 512 bytes holds what the cache held after one of the changes, each sector for itself: lost, torn, reordered
 *     size      as after one of the changes, or on the way of one that made the file grow, at a multiple of 4,096. Sectors behind it are
 *               lost; what was not written there reads as zeroes
 *     cutting   a truncation is part of what the size says. When it did not arrive, what was written later into blocks that it freed did
 *               not either; when it did, they are zeroes. In the block in which the cut lies, sectors are as any others
 *     names     each change arrives or not. A folder whose own name did not arrive takes all that is in it along
 *
 * In a third of cases all or nothing arrives, or changes in their order up to one: what happens most, outside of tests.
 *
 * A sync that fails makes its changes suspect. The next one that succeeds drops them, carrying over by chance what no later change wrote
 * into the same sector again (which would have made its page dirty anew). After the end of a process such pages may have left the cache.
 */
#include "sim_int.h"

#include <errno.h>

#define SECTOR 512u
#define BLOCK 4096u
#define CHANGES_MAX 4096 /* of one file without a sync: the kernel writes the older half back by itself */

/* ---- bytes ---- */

void sim_bytes_cut(struct buf *b, uint64_t n)
{
    if (n > b->n) {
        buf_reserve(b, n - b->n);
        memset(b->p + b->n, 0, n - b->n);
    }
    b->n = n;
    if (b->p)
        b->p[n] = 0;
}

void sim_bytes_put(struct buf *b, uint64_t at, const void *p, size_t n)
{
    if (at + n > b->n)
        sim_bytes_cut(b, at + n);
    if (n)
        memcpy(b->p + at, p, n);
}

static void bytes_copy(struct buf *to, const struct buf *from)
{
    buf_clear(to);
    if (from->n)
        buf_add(to, from->p, from->n);
}

static uint64_t block_up(uint64_t at) { return (at + BLOCK - 1) / BLOCK * BLOCK; }

/* ---- from the cache to the disk ---- */

static void changes_drop(struct sim_node *f, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        mem_free(f->changes[i].bytes);
    f->changes_n -= n;
    if (f->changes_n)
        memmove(f->changes, f->changes + n, f->changes_n * sizeof *f->changes);
}

void sim_settle(struct sim_node *f)
{
    changes_drop(f, f->changes_n);
    bytes_copy(&f->disk, &f->bytes);
    f->lost = false;
}

/* What of the first n changes arrives. */
struct arrival {
    uint32_t n;
    uint32_t size_at;            /* the size is that after so many changes */
    uint64_t size;
    uint64_t first;              /* the sector of upto[0] */
    uint32_t *upto;              /* of each sector: the changes that arrived there, counted from the oldest */
};

static uint64_t change_end(const struct sim_change *c) { return c->bytes ? c->at + c->n : block_up(c->at); }

static void arrival_init(struct arrival *a, const struct sim_node *f, uint32_t n)
{
    uint64_t from = UINT64_MAX, to = 0;
    for (uint32_t i = 0; i < n; i++) {
        from = MIN(from, f->changes[i].at);
        to = MAX(to, change_end(&f->changes[i]));
    }
    *a = (struct arrival){.n = n, .size_at = n, .size = f->changes[n - 1].size, .first = from / SECTOR};
    size_t sectors = to / SECTOR - a->first + 1;
    a->upto = mem_new(MEM_SIM, sectors * sizeof *a->upto);
    for (size_t s = 0; s < sectors; s++)
        a->upto[s] = n;
}

static size_t arrival_sectors(const struct arrival *a, const struct sim_node *f)
{
    uint64_t to = 0;
    for (uint32_t i = 0; i < a->n; i++)
        to = MAX(to, change_end(&f->changes[i]));
    return to / SECTOR - a->first + 1;
}

static bool is_cut(const struct sim_node *f, uint32_t i)
{
    return !f->changes[i].bytes && f->changes[i].at < (i ? f->changes[i - 1].size : f->disk.n);
}

/* The pieces of one write that lie in sectors where it arrived, below limit. */
static void write_arrives(const struct arrival *a, struct sim_node *f, uint32_t i, uint64_t limit)
{
    const struct sim_change *c = &f->changes[i];
    uint64_t end = MIN(c->at + c->n, limit);
    for (uint64_t at = c->at, next; at < end; at = next) {
        next = MIN((at / SECTOR + 1) * SECTOR, end);
        if (a->upto[at / SECTOR - a->first] > i)
            sim_bytes_put(&f->disk, at, c->bytes + (at - c->at), next - at);
    }
}

/* The end of the block in which the cut lies was written over with zeroes, sector by sector; blocks behind it are gone. */
static void cut_arrives(const struct arrival *a, struct sim_node *f, uint32_t i)
{
    uint64_t end = MIN(block_up(f->changes[i].at), f->disk.n);
    for (uint64_t at = f->changes[i].at, next; at < end; at = next) {
        next = MIN((at / SECTOR + 1) * SECTOR, end);
        if (a->upto[at / SECTOR - a->first] > i)
            memset(f->disk.p + at, 0, next - at);
    }
    if (a->size_at > i)
        sim_bytes_cut(&f->disk, end);
}

/* Carries the first changes over to the disk, as far as they arrive, and drops them. */
static void arrive(struct arrival *a, struct sim_node *f)
{
    uint64_t limit = UINT64_MAX;
    for (uint32_t i = 0; i < a->n; i++) {
        bool cut = is_cut(f, i);
        if (f->changes[i].bytes)
            write_arrives(a, f, i, limit);
        else if (cut)
            cut_arrives(a, f, i);
        if (cut && a->size_at <= i)
            limit = MIN(limit, block_up(f->changes[i].at));
    }
    sim_bytes_cut(&f->disk, a->size);
    changes_drop(f, a->n);
    mem_free(a->upto);
}

/* The first n changes were synced. Of those that are suspect a sector arrives by chance, unless a sound one came later. */
static void changes_sync(struct sim_node *f, uint32_t n)
{
    struct arrival a;
    bool suspect = false;
    if (n == 0)
        return;
    arrival_init(&a, f, n);
    for (uint32_t i = 0; i < n; i++)
        suspect |= f->changes[i].suspect;
    if (suspect) {
        memset(a.upto, 0, arrival_sectors(&a, f) * sizeof *a.upto);
        for (uint32_t i = 0; i < n; i++) {
            const struct sim_change *c = &f->changes[i];
            for (uint64_t s = c->at / SECTOR; s * SECTOR < change_end(c); s++)
                if (!c->suspect || sim_chance(1, 2))
                    a.upto[s - a.first] = i + 1;
        }
        f->lost = true;
    }
    arrive(&a, f);
}

/* What syncs that are over have covered. */
static void changes_due(struct sim_node *f)
{
    uint32_t n = 0;
    while (n < f->changes_n && f->changes[n].safe_ns <= sim.now_ns)
        n++;
    changes_sync(f, n);
}

void sim_changed(struct sim_node *f, uint64_t at, const void *p, size_t n)
{
    struct sim_change c = {.at = at, .n = n, .size = f->bytes.n, .safe_ns = UINT64_MAX};
    if (p) {
        c.bytes = mem_new(MEM_SIM, n);
        memcpy(c.bytes, p, n);
    }
    if (f->changes_n == CHANGES_MAX) {
        for (uint32_t i = 0; i < CHANGES_MAX / 2; i++)
            f->changes[i].safe_ns = MIN(f->changes[i].safe_ns, sim.now_ns);
        changes_due(f);
    }
    ARRAY_GROW(MEM_SIM, f->changes, f->changes_n, f->changes_cap);
    f->changes[f->changes_n++] = c;
}

void sim_synced(struct sim_node *f, int r, uint64_t over_ns)
{
    for (uint32_t i = 0; i < f->changes_n; i++) {
        struct sim_change *c = &f->changes[i];
        if (r < 0 && c->safe_ns == UINT64_MAX)
            c->suspect = true;
        else if (r >= 0)
            c->safe_ns = MIN(c->safe_ns, over_ns);
    }
    if (r < 0)
        return;
    f->reserved_disk = f->reserved;
    changes_due(f);
}

/* ---- names ---- */

void sim_name_changed(struct sim_name_change c, struct slice name, struct slice name_to)
{
    c.name = mem_strndup(MEM_SIM, name.p, name.n);
    c.name_to = c.to ? mem_strndup(MEM_SIM, name_to.p, name_to.n) : NULL;
    c.safe_ns = UINT64_MAX;
    ARRAY_GROW(MEM_SIM, sim.name_changes, sim.name_changes_n, sim.name_changes_cap);
    sim.name_changes[sim.name_changes_n++] = c;
}

static void name_del(struct table *t, const char *name, const struct sim_node *node)
{
    if (table_get(t, slice_cstr(name)) == node)
        (void)table_del(t, slice_cstr(name));
}

/* Whatever node is called: it was moved twice, and only the second time arrives. */
static void name_del_any(struct table *t, const struct sim_node *node)
{
    struct table_slot *s = NULL;
    while ((s = table_next(t, s)) && s->value != node) {}
    if (s)
        (void)table_del(t, slice_of(s->key, s->key_n));
}

static void name_arrives(const struct sim_name_change *c)
{
    switch (c->what) {
    case SIM_NAME_ADDED: (void)table_put(&c->folder->names_disk, slice_cstr(c->name), c->node); break;
    case SIM_NAME_REMOVED: name_del(&c->folder->names_disk, c->name, c->node); break;
    case SIM_NAME_MOVED:
        name_del_any(&c->folder->names_disk, c->node);
        (void)table_put(&c->to->names_disk, slice_cstr(c->name_to), c->node);
        break;
    }
}

static void name_change_free(struct sim_name_change *c)
{
    mem_free(c->name);
    mem_free(c->name_to);
}

void sim_names_forget(void)
{
    for (uint32_t i = 0; i < sim.name_changes_n; i++)
        name_change_free(&sim.name_changes[i]);
    sim.name_changes_n = 0;
}

/* A move between folders ties them: changes arrive in their order, so one of its folders is not synced without the other. */
static bool folder_is_tied(const struct sim_node *folder)
{
    for (uint32_t i = 0; i < sim.name_changes_n; i++) {
        const struct sim_name_change *c = &sim.name_changes[i];
        if (c->to && c->to != c->folder && (c->folder == folder || c->to == folder))
            return true;
    }
    return false;
}

void sim_names_synced(struct sim_node *folder, uint64_t over_ns)
{
    bool all = folder_is_tied(folder);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < sim.name_changes_n; i++) {
        struct sim_name_change c = sim.name_changes[i];
        if (all || c.folder == folder)
            c.safe_ns = MIN(c.safe_ns, over_ns);
        if (c.safe_ns <= sim.now_ns) {
            name_arrives(&c);
            name_change_free(&c);
        } else {
            sim.name_changes[kept++] = c;
        }
    }
    sim.name_changes_n = kept;
}

/* ---- time ---- */

void sim_disk_slow(uint32_t sync_ms_min, uint32_t sync_ms_max)
{
    sim.sync_ms_min = sync_ms_min;
    sim.sync_ms_max = sync_ms_max;
}

uint64_t sim_disk_busy(void) { return sim.now_ns + 1000000 * sim_between(sim.sync_ms_min, sim.sync_ms_max); }

/* ---- power loss ---- */

enum { ARRIVE_NOTHING, ARRIVE_ALL, ARRIVE_IN_ORDER, ARRIVE_MIXED, ARRIVE_WAYS = 6 /* the other numbers are mixed, too */ };

/* Which change each sector holds. */
static void arrival_mix(struct arrival *a, const struct sim_node *f, uint64_t way)
{
    size_t sectors = arrival_sectors(a, f);
    uint64_t share = sim_between(1, 9), in_order = sim_between(0, a->n), torn = sim_between(0, sectors);
    for (size_t s = 0; s < sectors; s++) {
        uint32_t *upto = &a->upto[s];
        switch (way) {
        case ARRIVE_NOTHING: *upto = 0; break;
        case ARRIVE_ALL: break;
        case ARRIVE_IN_ORDER: *upto = (uint32_t)MIN(in_order + (s < torn), a->n); break;
        default: *upto = sim_chance(share, 10) ? a->n : sim_chance(1, 2) ? 0 : (uint32_t)sim_between(0, a->n); break;
        }
    }
    for (uint32_t i = 0; i < a->n; i++) {
        const struct sim_change *c = &f->changes[i];
        for (uint64_t s = c->at / SECTOR; c->started && s * SECTOR < change_end(c); s++)
            if (!sim_chance(1, 8))
                a->upto[s - a->first] = MAX(a->upto[s - a->first], i + 1);
    }
    a->size_at = way == ARRIVE_NOTHING ? 0 : way == ARRIVE_ALL ? a->n : (uint32_t)in_order;
    if (sim_chance(1, 3))
        a->size_at = (uint32_t)sim_between(0, a->n);
}

/* Growing, a file may be met at every block. */
static void arrival_size(struct arrival *a, const struct sim_node *f)
{
    a->size = a->size_at ? f->changes[a->size_at - 1].size : f->disk.n;
    const struct sim_change *next = a->size_at < a->n ? &f->changes[a->size_at] : NULL;
    uint64_t first = a->size / BLOCK + 1, last = next ? next->size / BLOCK : 0;
    if (first <= last && sim_chance(1, 3))
        a->size = sim_between(first, last) * BLOCK;
}

static void file_lose_power(struct sim_node *f)
{
    changes_due(f);
    if (f->changes_n) {
        struct arrival a;
        arrival_init(&a, f, f->changes_n);
        arrival_mix(&a, f, sim_between(0, ARRIVE_WAYS - 1));
        arrival_size(&a, f);
        arrive(&a, f);
    }
    f->reserved = f->reserved_disk;
    bytes_copy(&f->bytes, &f->disk);
    f->lost = false;
}

/* What is found from here on after power loss is what is found now. */
static void folder_come_back(struct sim_node *folder)
{
    folder->linked = true;
    if (!folder->folder)
        return;
    table_fini(&folder->names);
    folder->names = (struct table){0};
    for (struct table_slot *t = NULL; (t = table_next(&folder->names_disk, t));) {
        (void)table_put(&folder->names, slice_of(t->key, t->key_n), t->value);
        folder_come_back(t->value);
    }
}

static void nodes_sweep(void)
{
    struct sim_node **at = &sim.nodes;
    while (*at) {
        struct sim_node *f = *at;
        if (f->linked) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        sim_node_free(f);
    }
}

static void descriptors_die(void)
{
    for (uint32_t i = 0; i < sim.objs_n; i++)
        if (sim.objs[i]->kind == SIM_FILE)
            sim_file_closed(sim.objs[i]);
}

void sim_power_loss(void)
{
    sim_note(31, sim.name_changes_n, 0);
    sim.disk_off = true;
    sim.crash_ops = 0;
    descriptors_die();
    for (uint32_t i = 0; i < sim.name_changes_n; i++)
        if (sim.name_changes[i].safe_ns <= sim.now_ns || sim_chance(1, 2))
            name_arrives(&sim.name_changes[i]);
    sim_names_forget();
    for (struct sim_node *f = sim.nodes; f; f = f->next) {
        f->linked = false;
        if (!f->folder)
            file_lose_power(f);
    }
    if (sim.root)
        folder_come_back(sim.root);
    nodes_sweep();
}

/* Pages that a failed sync left clean and wrong on the disk may leave the cache any time; here, by chance, before the next process reads. */
void sim_process_crash(void)
{
    sim_note(32, 0, 0);
    sim.disk_off = true;
    sim.crash_ops = 0;
    descriptors_die();
    for (struct sim_node *f = sim.nodes; f; f = f->next) {
        if (!f->lost || f->changes_n || sim_chance(1, 2))
            continue;
        bytes_copy(&f->bytes, &f->disk);
        f->lost = false;
    }
}

void sim_crash_after(uint32_t n, bool power)
{
    sim.crash_ops = n;
    sim.crash_power = power;
}

void sim_crash_tick(void)
{
    if (sim.disk_off || sim.crash_ops == 0 || --sim.crash_ops > 0)
        return;
    if (sim.crash_power)
        sim_power_loss();
    else
        sim_process_crash();
}

bool sim_is_down(void) { return sim.disk_off; }
void sim_restart(void) { sim.disk_off = false; }
