/* log_recover_fuzz.c - any bytes as the files of a log, on the simulated disk; then it is opened, read, appended to, and opened again.
 *
 * The input is a list of files: a byte that chooses which (see files[]), a byte of flags, two of length, then the content. Flags: 1 the
 * content's last bytes become the CRC of our own formats, 2 its batches get right CRCs and lengths as far as they reach, 4 they get consecutive offsets;
 * the upper four bits choose the base offset of files that have one.
 *
 * What must hold: nothing crashes; whatever is served is a sequence of whole batches whose offsets ascend; without a checkpoint each has a right CRC; what
 * is appended is there after a restart.
 */
#include "log_int.h"
#include "sim.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const int64_t bases[16] = {0, 0, 0, 1, 2, 3, 5, 8, 13, 100, 1000, 65536, INT32_MAX, (int64_t)INT32_MAX + 1, INT64_MAX / 2, INT64_MAX - 1};

enum { F_LOG, F_INDEX, F_TIME, F_SNAPSHOT, F_NOTE, F_STATE, F_STORE, F_SHARD, F_SWAP, F_CLEANED, F_DELETED, F_KINDS };
static const char *const names[F_KINDS] = {
    [F_LOG] = "t-0/%020lld.log",           [F_INDEX] = "t-0/%020lld.index", [F_TIME] = "t-0/%020lld.timeindex", [F_SNAPSHOT] = "t-0/%020lld.snapshot",
    [F_NOTE] = "t-0/partition.state",      [F_STATE] = "store.state",       [F_STORE] = "store.checkpoint",     [F_SHARD] = "shard-0.checkpoint",
    [F_SWAP] = "t-0/%020lld-%020lld.swap", [F_CLEANED] = "t-0/%020lld.cleaned", [F_DELETED] = "t-0/%020lld.log.deleted"};

static bool trusting; /* a checkpoint was given: what it calls durable is served without a look at CRCs */

/* Batches of arbitrary bytes are made sound, as far as the flags say. */
static void batches_fix(char *p, size_t n, int64_t base, bool offsets)
{
    int64_t next = base;
    for (size_t at = 0; n - at >= KAFKA_BATCH_HEADER;) {
        uint32_t length = get32(p + at + 8) % 512 + KAFKA_BATCH_HEADER - 12;
        if (length + 12 > n - at)
            length = (uint32_t)(n - at) - 12;
        put32(p + at + 8, length);
        p[at + 16] = 2;
        if (offsets) {
            uint32_t delta = get32(p + at + 23) % 16;
            put64(p + at, (uint64_t)next);
            put32(p + at + 23, delta);
            put32(p + at + 57, delta + 1);
            next = (int64_t)((uint64_t)next + delta + 1);
        }
        put32(p + at + 17, crc32c(0, p + at + 21, length + 12 - 21));
        at += length + 12;
    }
}

static const uint8_t *file_take(const uint8_t *p, const uint8_t *end)
{
    char name[96], path[LOG_PATH_MAX];
    uint8_t kind = p[0] % F_KINDS, flags = p[1];
    size_t n = MIN((size_t)(p[2] << 8 | p[3]), (size_t)(end - p - 4));
    int64_t base = bases[flags >> 4];
    struct buf b = {0};
    buf_add(&b, p + 4, n);
    if ((flags & 1) && n >= 4)
        put32(b.p + n - 4, crc32c(0, b.p, n - 4));
    if (flags & 2)
        batches_fix(b.p, n, base, flags & 4);
    trusting |= kind == F_STORE || kind == F_SHARD;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, names[kind], (long long)base, (long long)(base < INT64_MAX - 100 ? base + 100 : base));
#pragma GCC diagnostic pop
    snprintf(path, sizeof path, "/log/%s", name);
    MUST(file_replace(path, b.p ? b.p : "", n, 0600) == OK);
    buf_free(&b);
    return p + 4 + n;
}

/* ---- the log ---- */

static struct loop *l;
static struct log_store *store;
static struct log_shard *shard;
static bool flag;

static void set_flag(void *ctx) { flag = true; }
static void append_flag(struct append *a) { flag = true; }
static bool is_flag(void *ctx) { return flag; }

static bool node_open(void)
{
    struct log_store_conf c;
    struct buf why = {0};
    log_store_conf_default(&c);
    c.dir = "/log";
    c.reserve_bytes = 0;
    l = loop_new("log");
    bool ok = log_store_open(&c, &store, &why) == OK;
    if (ok)
        shard = log_shard_new(store, l, 0);
    else
        loop_free(l);
    buf_free(&why);
    return ok;
}

static void node_close(void)
{
    flag = false;
    log_shard_stop(shard, set_flag, NULL);
    MUST(sim_run(is_flag, NULL, 600000));
    log_shard_free(shard);
    log_store_close(store);
    loop_free(l);
}

static struct part *part_of(void)
{
    struct part_conf c;
    struct part *p;
    struct buf why = {0};
    part_conf_default(&c);
    c.segment_bytes = 2048;
    c.index_interval_bytes = 128;
    enum err e = part_load(store, "t-0", &c, &p, &why);
    MUST(e == OK || why.n);
    buf_free(&why);
    if (e != OK)
        return NULL;
    part_attach(p, shard);
    return p;
}

/* Reads from `from` to the end; the offset behind the last batch, or `from`. */
static int64_t read_from(struct part *p, int64_t from, enum part_until until)
{
    struct arena a;
    int64_t next = from;
    arena_init(&a, MEM_ARENA, 1024);
    for (int rounds = 0; rounds < 64; rounds++) {
        struct part_read r = {.offset = next, .bytes_max = 300, .until = until, .one_at_least = true};
        part_read(p, &r, &a);
        MUST(r.file || r.bytes == 0);
        if (!r.file)
            break;
        struct buf b = {0};
        buf_reserve(&b, r.bytes);
        MUST(file_read_at(segfile_fd(r.file), r.pos, b.p, r.bytes) == OK);
        int64_t before = next;
        for (size_t at = 0; at < r.bytes;) {
            struct kafka_batch batch;
            MUST(kafka_batch_parse(slice_of(b.p + at, r.bytes - at), &batch) == KAFKA_NONE);
            MUST(kafka_batch_last_offset(&batch) >= next && (at == 0 || batch.base_offset >= next));
            MUST(trusting || kafka_batch_crc_ok(b.p + at, &batch));
            next = kafka_batch_last_offset(&batch) + 1;
            at += batch.bytes;
        }
        MUST(next > before);
        buf_free(&b);
        segfile_unref(r.file);
        arena_reset(&a);
    }
    arena_fini(&a);
    return next;
}

static void read_all(struct part *p)
{
    struct part_offsets o;
    int64_t offset, ms;
    part_offsets(p, &o);
    MUST(o.log_start >= 0 && o.log_start <= o.stable && o.stable <= o.high && o.high <= o.end);
    for (int64_t at = o.log_start; at < o.end && at < o.log_start + 12; at++) read_from(p, at, at % 2 ? PART_STABLE : PART_END);
    (void)!part_find_time(p, 1000, PART_HIGH, &offset, &ms);
    MUST(offset < o.high);
    (void)!part_find_newest(p, &offset, &ms);
}

/* One more record; its offset, or -1 when the partition takes none. */
static int64_t append_one(struct part *p)
{
    struct kafka_batch_builder k;
    struct kafka_batch head = kafka_batch_plain;
    struct buf b = {0};
    head.base_timestamp = 2000;
    kafka_batch_begin(&k, &b, &head);
    kafka_batch_add(&k, 2000, SLICE("k"), SLICE("v"), NULL, 0);
    MUST(kafka_batch_end(&k, KAFKA_CODEC_NONE) == OK);
    struct append a = {.bytes = b.p, .acks = -1, .done = append_flag};
    MUST(kafka_batch_parse(buf_slice(&b), &a.batch) == KAFKA_NONE);
    flag = false;
    part_append(p, &a);
    MUST(sim_run(is_flag, NULL, 60000));
    buf_free(&b);
    return a.error == KAFKA_NONE ? a.base_offset : -1;
}

static void live(void)
{
    if (!node_open())
        return;
    struct part *p = part_of();
    int64_t at = -1;
    if (p) {
        read_all(p);
        if (part_use(p) && p->end < OFFSET_MAX - 1000)
            at = append_one(p);
        read_all(p);
        int64_t start;
        (void)!part_delete_before(p, p->log_start + 1, &start);
    }
    node_close();
    if (at < 0 || !node_open())
        return;
    p = part_of();
    MUST(p && p->end >= at + 1);
    read_all(p);
    if (at >= p->log_start)
        MUST(read_from(p, at, PART_END) > at);
    node_close();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sim_conf conf = {.seed = 1};
    sim_start(&conf);
    trusting = false;
    for (const uint8_t *p = data, *end = data + n; end - p >= 4;) p = file_take(p, end);
    live();
    MUST(sim_sockets_open() == 0);
    sim_stop();
    return 0;
}
