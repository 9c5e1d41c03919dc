/* filter_compress.c - answers compressed on their way: gzip, br and zstd, chosen with the client.
 *
 * Preference. compress_accepts() turns the q values of Accept-Encoding (RFC 9110 section 12.5.3) into ranks: 3 bits for each coding, 0 for
 * "not acceptable", higher for "rather". Four codings are compared (identity is one), so ranks lose nothing that q values say. Among equals
 * zstd is taken before br before gzip. What the client likes less than identity, said by name, is not used.
 *
 * Flow. A body is fed as it is read. Where its length is known, the coder gives its output when it likes. Where it is not known, the service
 * may be telling something bit by bit: after a read shorter than COMPRESS_FLUSH_BELOW, which has emptied the socket, the coder is flushed, so
 * that the client has all that the service has said. That costs a few bytes for each flush.
 *
 * Memory. The coders' parameters are set so that what one context takes at most is known: context_bytes(), measured by a test at every level.
 * (brotli with a window above 64 KiB would take 38 MiB at quality 9.) A thread's contexts in use are counted at that, up to
 * COMPRESS_LIVE_BYTES; where the coding that the client likes best does not fit, the next one is taken. The coders allocate through a per-thread store of blocks, so that a context for the next body costs no system call;
 * gzip's and zstd's are kept whole and reset, brotli's can't be and is made anew from the blocks. The store goes with its thread; a body that
 * another thread frees (the control thread, when a worker has ended) leaves its memory to that one's store.
 */
#define ZSTD_STATIC_LINKING_ONLY /* for ZSTD_createCCtx_advanced(): its memory is counted under our tag */
#include "filter_int.h"

#include <brotli/encode.h>
#include <pthread.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define GZIP_WINDOW_BITS 15      /* 32 KiB; with MEM_LEVEL 8: 256 KiB in all */
#define GZIP_MEM_LEVEL 8
#define BROTLI_WINDOW_BITS 16    /* 64 KiB */
#define ZSTD_WINDOW_BITS 17      /* 128 KiB; RFC 9659 lets clients refuse windows above 8 MiB */
#define ZSTD_TABLE_BITS 15
#define OUT_STEP 16384u          /* the least room that a coder is given */

enum coding { GZIP, BROTLI, ZSTD, CODINGS };
static const struct slice coding_names[CODINGS] = {[GZIP] = {"gzip", 4}, [BROTLI] = {"br", 2}, [ZSTD] = {"zstd", 4}};
static const enum coding coding_order[CODINGS] = {ZSTD, BROTLI, GZIP}; /* among equals, the first */
/* The last levels that pay: FILTERS.md has the measurement. */
static const uint8_t default_levels[CODINGS] = {[GZIP] = 5, [BROTLI] = 5, [ZSTD] = 3};

struct compressor {
    struct body_filter f;
    uint8_t coding;              /* enum coding */
    bool flushing;               /* the length is not known */
    bool unflushed;              /* bytes went in since the coder last gave all that it had */
    uint8_t level;
    uint64_t in, out;            /* bytes so far */
    struct compressor *next;     /* in the thread's store */
    z_stream gzip;
    BrotliEncoderState *brotli;
    ZSTD_CCtx *zstd;
};

/* A block of a coder's memory, in use or kept. */
struct block {
    size_t bytes;                /* behind the head */
    struct block *next;
};

static _Thread_local struct {
    struct block *blocks;        /* kept */
    struct compressor *ready[CODINGS];
    size_t kept_bytes;           /* of blocks and of the contexts in ready[], these counted as their most */
    size_t live_bytes;           /* of contexts in use, counted as their most */
    size_t used_bytes, most_bytes; /* of blocks that the coders hold, now and at most: what the bounds are tested against */
    bool attached;               /* goes with the thread */
} store;

static pthread_key_t store_key;
static pthread_once_t store_once = PTHREAD_ONCE_INIT;
static void store_end(void *p) { filters_fini(); }
static void store_key_make(void) { MUST(pthread_key_create(&store_key, store_end) == 0); }

/* ---- the coders' memory ----------------------------------------------------------------------------------------------------- */

static void *block_used(struct block *b)
{
    store.used_bytes += b->bytes;
    store.most_bytes = MAX(store.most_bytes, store.used_bytes);
    return b + 1;
}

static void *block_get(void *opaque, size_t bytes)
{
    for (struct block **at = &store.blocks; *at; at = &(*at)->next) {
        struct block *b = *at;
        if (b->bytes < bytes || b->bytes / 2 > bytes)
            continue;
        *at = b->next;
        store.kept_bytes -= b->bytes;
        return block_used(b);
    }
    struct block *b = mem_try(MEM_FILTER, sizeof *b + bytes);
    if (!b)
        return NULL;
    b->bytes = bytes;
    return block_used(b);
}

static void block_put(void *opaque, void *p)
{
    if (!p)
        return;
    struct block *b = (struct block *)p - 1;
    store.used_bytes -= MIN(store.used_bytes, b->bytes); /* less only when it was another thread's */
    if (store.kept_bytes + b->bytes > COMPRESS_KEPT_BYTES) {
        mem_free(b);
        return;
    }
    b->next = store.blocks;
    store.blocks = b;
    store.kept_bytes += b->bytes;
}

static void *gzip_get(void *opaque, uInt items, uInt size) { return block_get(opaque, (size_t)items * size); }

static size_t context_bytes(enum coding c, uint8_t level)
{
    switch (c) {
    case GZIP: return 272 * 1024;
    case BROTLI: return (level <= 5 ? 1920 : 2688) * 1024;
    default: return 1216 * 1024;
    }
}

size_t compress_most_bytes(void)
{
    size_t most = store.most_bytes;
    store.most_bytes = store.used_bytes;
    return most;
}

/* ---- what the client accepts -------------------------------------------------------------------------------------------------- */

/* A weight in thousandths (RFC 9110 section 12.4.2); -1 when malformed. */
static int weight_parse(struct slice s)
{
    if (s.n == 0 || s.n > 5 || (s.p[0] != '0' && s.p[0] != '1') || (s.n > 1 && s.p[1] != '.'))
        return -1;
    int v = (s.p[0] - '0') * 1000, unit = 100;
    for (size_t i = 2; i < s.n; i++, unit /= 10) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
        v += (s.p[i] - '0') * unit;
    }
    return v <= 1000 ? v : -1;
}

/* "name" or "name;q=0.5"; parameters other than q are passed over. */
static int element_weight(struct slice element, struct slice *name)
{
    struct slice rest;
    *name = slice_trim(slice_cut(element, ';', &rest));
    while (rest.n) {
        struct slice value, key = slice_trim(slice_cut(slice_cut(rest, ';', &rest), '=', &value));
        if (slice_ieq(key, SLICE("q")))
            return weight_parse(slice_trim(value));
    }
    return 1000;
}

static void weights_read(const struct h1_head *h, int weights[CODINGS], int *identity)
{
    struct list_at at = {0};
    struct slice element, name;
    int any = -1;
    while (list_next(h, SLICE("accept-encoding"), &at, &element)) {
        int w = element_weight(element, &name);
        if (w < 0)
            continue;
        if (slice_is(name, "*"))
            any = MAX(any, w);
        else if (slice_ieq(name, SLICE("identity")))
            *identity = MAX(*identity, w);
        else if (slice_ieq(name, SLICE("x-gzip"))) /* RFC 9110 section 8.4.1.3 */
            weights[GZIP] = MAX(weights[GZIP], w);
        for (int c = 0; c < CODINGS; c++)
            if (slice_ieq(name, coding_names[c]))
                weights[c] = MAX(weights[c], w);
    }
    for (int c = 0; c < CODINGS; c++)
        if (weights[c] < 0)
            weights[c] = MAX(any, 0);
}

uint16_t compress_accepts(const struct h1_head *h)
{
    int weights[CODINGS] = {-1, -1, -1}, identity = -1;
    weights_read(h, weights, &identity);
    uint16_t accepts = 0;
    for (int c = 0; c < CODINGS; c++) {
        if (weights[c] == 0 || weights[c] < identity)
            continue;
        uint16_t rank = 1;
        for (int o = 0; o < CODINGS; o++)
            rank = (uint16_t)(rank + (weights[o] < weights[c]));
        accepts = (uint16_t)(accepts | rank << (3 * c));
    }
    return accepts;
}

uint16_t compress_rank(uint16_t accepts, struct slice coding)
{
    for (int c = 0; c < CODINGS; c++)
        if (slice_eq(coding, coding_names[c]))
            return (accepts >> (3 * c)) & 7;
    return 0;
}

/* ---- which answers are compressed ------------------------------------------------------------------------------------------------ */

static const char *const default_types[] = {
    "text/html", "text/css", "text/plain", "text/xml", "text/csv", "text/markdown", "text/javascript", "application/javascript", "application/json",
    "application/xml", "application/wasm", "application/x-ndjson", "application/manifest+json", "application/yaml", "image/svg+xml", "font/ttf", "font/otf",
    "application/vnd.ms-fontobject",
};

/* pattern: "text/html", "text/" followed by a star, or both stars. */
static bool type_matches(struct slice type, const char *pattern)
{
    struct slice want = slice_cstr(pattern);
    if (slice_is(want, "*/*") || slice_is(want, "*"))
        return true;
    if (slice_ends(want, SLICE("/*")))
        return type.n >= want.n && slice_ieq(slice_of(type.p, want.n - 1), slice_of(want.p, want.n - 1));
    return slice_ieq(type, want);
}

/* Event streams, and gRPC, whose messages are framed and compressed for themselves, are only compressed where they are listed by name. */
static bool type_needs_name(struct slice type)
{
    return slice_ieq(type, SLICE("text/event-stream")) ||
           (type.n >= 16 && slice_ieq(slice_of(type.p, 16), SLICE("application/grpc")));
}

static bool type_listed(const struct compress_filter *spec, struct slice type)
{
    if (type.n == 0)
        return false;
    for (size_t i = 0; i < spec->types_n; i++)
        if (type_matches(type, spec->types[i]) && (!type_needs_name(type) || slice_ieq(type, slice_cstr(spec->types[i]))))
            return true;
    if (spec->types_n)
        return false;
    for (size_t i = 0; i < COUNT_OF(default_types); i++)
        if (slice_ieq(type, slice_cstr(default_types[i])))
            return true;
    return !type_needs_name(type) && (slice_iends(type, SLICE("+json")) || slice_iends(type, SLICE("+xml")));
}

/* Changing the content would break a promise: that of RFC 9110 section 7.7, or a digest (RFC 9530). */
static bool sealed(const struct h1_head *h)
{
    struct list_at at = {0};
    struct slice directive;
    while (list_next(h, SLICE("cache-control"), &at, &directive))
        if (slice_ieq(directive, SLICE("no-transform")))
            return true;
    return h1_find(h, SLICE("content-digest")) || h1_find(h, SLICE("repr-digest")) || h1_find(h, SLICE("digest")) || h1_find(h, SLICE("content-md5"));
}

bool compress_varies(const struct compress_filter *spec, const struct h1_head *h)
{
    if (h->status < 200 || h->status == 204 || h->status == 205 || h->status == 206 || h->status == 304 || h->framing == H1_NO_BODY || h->framing == H1_TUNNEL)
        return false;
    if (h->framing == H1_LENGTH && (h->length == 0 || h->length < spec->min_bytes))
        return false;
    return type_listed(spec, content_type(h)) && !content_encoded(h) && !h1_find(h, SLICE("content-range")) && !sealed(h);
}

static uint8_t level_of(const struct compress_filter *spec, enum coding c) { return spec->level ? MIN(spec->level, 9) : default_levels[c]; }

enum choice { CHOSEN, NOT_WANTED, NO_ROOM };

static enum choice coding_choose(const struct compress_filter *spec, uint16_t accepts, enum coding *out)
{
    const bool offered[CODINGS] = {[GZIP] = spec->gzip, [BROTLI] = spec->br, [ZSTD] = spec->zstd};
    int best = 0;
    bool wanted = false;
    for (int i = 0; i < CODINGS; i++) {
        enum coding c = coding_order[i];
        int rank = accepts >> (3 * c) & 7;
        if (!offered[c] || rank <= best)
            continue;
        wanted = true;
        if (store.live_bytes + context_bytes(c, level_of(spec, c)) > COMPRESS_LIVE_BYTES)
            continue;
        best = rank;
        *out = c;
    }
    return best ? CHOSEN : wanted ? NO_ROOM : NOT_WANTED;
}

size_t compress_context_bytes(struct slice coding, uint8_t level)
{
    const struct compress_filter spec = {.level = level};
    enum coding c = GZIP;
    while (c < ZSTD && !slice_eq(coding, coding_names[c]))
        c++;
    return context_bytes(c, level_of(&spec, c));
}

/* ---- contexts ------------------------------------------------------------------------------------------------------------------------ */

static struct compressor *compressor_get(enum coding coding)
{
    if (!store.attached) {
        pthread_once(&store_once, store_key_make);
        store.attached = pthread_setspecific(store_key, &store) == 0;
    }
    struct compressor *c = store.ready[coding];
    if (c) {
        store.ready[coding] = c->next;
        store.kept_bytes -= context_bytes(coding, c->level);
    } else {
        c = mem_try(MEM_FILTER, sizeof *c);
        if (!c)
            return NULL;
        c->coding = (uint8_t)coding;
    }
    c->in = c->out = 0;
    c->unflushed = false;
    return c;
}

static void compressor_end(struct compressor *c)
{
    if (c->gzip.state)
        deflateEnd(&c->gzip);
    if (c->brotli)
        BrotliEncoderDestroyInstance(c->brotli);
    ZSTD_freeCCtx(c->zstd);
    mem_free(c);
}

/* Smallest window, in bits, that holds a body of this length. */
static int window_bits(const struct h1_head *h, int low, int high)
{
    int bits = low;
    while (bits < high && (h->framing != H1_LENGTH || h->length > (uint64_t)1 << bits))
        bits++;
    return bits;
}

static bool gzip_begin(struct compressor *c)
{
    if (c->gzip.state) /* reset, perhaps at another level */
        return deflateParams(&c->gzip, c->level, Z_DEFAULT_STRATEGY) == Z_OK;
    c->gzip.zalloc = gzip_get;
    c->gzip.zfree = block_put;
    return deflateInit2(&c->gzip, c->level, Z_DEFLATED, GZIP_WINDOW_BITS + 16, GZIP_MEM_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
}

static bool brotli_begin(struct compressor *c, const struct h1_head *h)
{
    c->brotli = BrotliEncoderCreateInstance(block_get, block_put, NULL);
    if (!c->brotli)
        return false;
    BrotliEncoderSetParameter(c->brotli, BROTLI_PARAM_QUALITY, c->level);
    BrotliEncoderSetParameter(c->brotli, BROTLI_PARAM_LGWIN, (uint32_t)window_bits(h, 14, BROTLI_WINDOW_BITS));
    if (h->framing == H1_LENGTH)
        BrotliEncoderSetParameter(c->brotli, BROTLI_PARAM_SIZE_HINT, (uint32_t)MIN(h->length, UINT32_MAX));
    return true;
}

static bool zstd_set(struct compressor *c, ZSTD_cParameter p, int v) { return !ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, p, v)); }

static bool zstd_begin(struct compressor *c, const struct h1_head *h)
{
    if (!c->zstd)
        c->zstd = ZSTD_createCCtx_advanced((ZSTD_customMem){block_get, block_put, NULL});
    if (!c->zstd)
        return false;
    ZSTD_CCtx_reset(c->zstd, ZSTD_reset_session_and_parameters);
    int window = window_bits(h, 12, ZSTD_WINDOW_BITS), table = MIN(window, ZSTD_TABLE_BITS);
    return zstd_set(c, ZSTD_c_compressionLevel, c->level) && zstd_set(c, ZSTD_c_windowLog, window) && zstd_set(c, ZSTD_c_hashLog, table) &&
           zstd_set(c, ZSTD_c_chainLog, table);
}

static bool coder_begin(struct compressor *c, const struct compress_filter *spec, const struct h1_head *h)
{
    c->level = level_of(spec, c->coding);
    switch ((enum coding)c->coding) {
    case GZIP: return gzip_begin(c);
    case BROTLI: return brotli_begin(c, h);
    default: return zstd_begin(c, h);
    }
}

/* ---- a body's way -------------------------------------------------------------------------------------------------------------------- */

/* in (may be empty) goes into the coder, what it gives is appended to out. With FLUSH, all that was fed comes out; with END, all. */
enum step { CONTINUE, FLUSH, END };

static enum err gzip_step(z_stream *z, struct slice in, enum step step, struct buf *out)
{
    static const int flushes[] = {[CONTINUE] = Z_NO_FLUSH, [FLUSH] = Z_SYNC_FLUSH, [END] = Z_FINISH};
    MUST(in.n <= UINT32_MAX);
    z->next_in = (Bytef *)(uintptr_t)in.p;
    z->avail_in = (uInt)in.n;
    int r;
    do {
        buf_reserve(out, OUT_STEP);
        z->next_out = (Bytef *)out->p + out->n;
        z->avail_out = OUT_STEP;
        r = deflate(z, flushes[step]);
        out->n += OUT_STEP - z->avail_out;
        if (r == Z_STREAM_ERROR)
            return ERR_INTERNAL;
    } while (step == END ? r != Z_STREAM_END : z->avail_out == 0);
    return OK;
}

static enum err brotli_step(BrotliEncoderState *b, struct slice in, enum step step, struct buf *out)
{
    static const BrotliEncoderOperation ops[] = {[CONTINUE] = BROTLI_OPERATION_PROCESS, [FLUSH] = BROTLI_OPERATION_FLUSH, [END] = BROTLI_OPERATION_FINISH};
    const uint8_t *next = (const uint8_t *)in.p;
    size_t left = in.n;
    do {
        size_t room = 0;
        if (!BrotliEncoderCompressStream(b, ops[step], &left, &next, &room, NULL, NULL))
            return ERR_NOMEM;
        size_t n = 0;
        const uint8_t *p = BrotliEncoderTakeOutput(b, &n);
        buf_add(out, p, n);
    } while (left || BrotliEncoderHasMoreOutput(b) || (step == END && !BrotliEncoderIsFinished(b)));
    return OK;
}

static enum err zstd_step(ZSTD_CCtx *z, struct slice in, enum step step, struct buf *out)
{
    static const ZSTD_EndDirective ops[] = {[CONTINUE] = ZSTD_e_continue, [FLUSH] = ZSTD_e_flush, [END] = ZSTD_e_end};
    ZSTD_inBuffer from = {in.p, in.n, 0};
    size_t left;
    do {
        buf_reserve(out, OUT_STEP);
        ZSTD_outBuffer to = {out->p + out->n, OUT_STEP, 0};
        left = ZSTD_compressStream2(z, &to, &from, ops[step]);
        out->n += to.pos;
        if (ZSTD_isError(left))
            return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? ERR_NOMEM : ERR_INTERNAL;
    } while (step == CONTINUE ? from.pos < from.size : left > 0);
    return OK;
}

static enum err coder_step(struct compressor *c, struct slice in, enum step step, struct buf *out)
{
    switch ((enum coding)c->coding) {
    case GZIP: return gzip_step(&c->gzip, in, step, out);
    case BROTLI: return brotli_step(c->brotli, in, step, out);
    default: return zstd_step(c->zstd, in, step, out);
    }
}

static enum err compress_feed(struct body_filter *f, struct pieces in, bool end, struct buf *out)
{
    struct compressor *c = CONTAINER_OF(f, struct compressor, f);
    size_t before = out->n;
    enum step last = end ? END : c->flushing && in.bytes < COMPRESS_FLUSH_BELOW && (in.bytes || c->unflushed) ? FLUSH : CONTINUE;
    enum err e = OK;
    for (int i = 0; i < in.n && e == OK; i++)
        e = coder_step(c, slice_of(in.v[i].iov_base, in.v[i].iov_len), i + 1 < in.n ? CONTINUE : last, out);
    if (in.n == 0 && last != CONTINUE)
        e = coder_step(c, SLICE(""), last, out);
    buf_reserve(out, 0);
    out->p[out->n] = '\0';
    c->unflushed = last == CONTINUE && (in.bytes || c->unflushed);
    c->in += in.bytes;
    c->out += out->n - before;
    return e;
}

static void compress_free(struct body_filter *f)
{
    struct compressor *c = CONTAINER_OF(f, struct compressor, f);
    filter_count(FILTER_COMPRESS_BODIES, 1);
    filter_count(FILTER_COMPRESS_IN, c->in);
    filter_count(FILTER_COMPRESS_OUT, c->out);
    size_t bytes = context_bytes(c->coding, c->level);
    store.live_bytes -= MIN(store.live_bytes, bytes); /* less only when it was another thread's */
    bool ready = c->coding == GZIP ? deflateReset(&c->gzip) == Z_OK : c->coding == ZSTD;
    if (!ready || store.kept_bytes + bytes > COMPRESS_KEPT_BYTES) {
        compressor_end(c);
        return;
    }
    store.kept_bytes += bytes;
    c->next = store.ready[c->coding];
    store.ready[c->coding] = c;
}

static const struct body_filter_ops compress_ops = {compress_feed, compress_free};

struct body_filter *compress_begin(const struct compress_filter *spec, uint16_t accepts, const struct h1_head *h, struct slice *coding)
{
    enum coding best = GZIP;
    enum choice choice = accepts ? coding_choose(spec, accepts, &best) : NOT_WANTED;
    if (choice == NOT_WANTED || !compress_varies(spec, h))
        return NULL;
    struct compressor *c = choice == CHOSEN ? compressor_get(best) : NULL;
    if (!c || !coder_begin(c, spec, h)) {
        filter_count(FILTER_COMPRESS_OVER, 1);
        if (c)
            compressor_end(c);
        return NULL;
    }
    store.live_bytes += context_bytes(best, c->level);
    c->f.ops = &compress_ops;
    c->flushing = h->framing != H1_LENGTH;
    *coding = coding_names[best];
    return &c->f;
}

struct slice compress_coding(const struct compress_filter *spec, uint16_t accepts, const struct h1_head *h)
{
    enum coding best = GZIP;
    return accepts && compress_varies(spec, h) && coding_choose(spec, accepts, &best) == CHOSEN ? coding_names[best] : SLICE("");
}

void filters_fini(void)
{
    for (int k = 0; k < CODINGS; k++)
        for (struct compressor *c = store.ready[k], *next; c; c = next) {
            next = c->next;
            compressor_end(c);
        }
    for (struct block *b = store.blocks, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    store.blocks = NULL;
    store.kept_bytes = 0;
    for (int k = 0; k < CODINGS; k++)
        store.ready[k] = NULL;
}
