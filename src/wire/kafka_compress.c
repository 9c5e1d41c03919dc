/* kafka_compress.c - the five codecs of record batches.
 *
 * A batch is opened in one call, into a buffer that grows as the records come out, up to the caller's limit and one byte: that byte is the sign
 * that the limit is not enough. What a batch claims of its size only helps to guess the first reservation, and not beyond what the codec could
 * make of so many bytes. zlib and zstd take their memory through our tags; liblz4 has no way to say so, and takes less than 5 MiB for the call.
 *
 * snappy comes in two shapes. Kafka's own clients write the stream of snappy-java, a header and then blocks of size:int32 and raw snappy:
 *
 *     82 53 4e 41 50 50 59 00 | version:int32 = 1 | compatible:int32 = 1 | { n:int32 block }*
 *
 * librdkafka writes one raw block, which cannot begin like this: as a length, these bytes would be followed by a copy from before the start.
 *
 * libsnappy alone is not linked: it is C++, and its run time would be 1 MiB of every process, most of which never meet a batch with snappy. It is loaded
 * when the first one comes, which takes some milliseconds once; where it is not installed snappy is not supported.
 */
#define ZLIB_CONST /* zlib reads next_in, and only reads */
#define ZSTD_STATIC_LINKING_ONLY /* for contexts whose memory is counted under our tag */
#include "kafka_batch.h"

#include <dlfcn.h>
#include <endian.h>
#include <lz4frame.h>
#include <pthread.h>
#include <snappy-c.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define ROOM_LEAST 4096u            /* the least room that a decoder is given */
#define ZSTD_LEVEL 3
#define GZIP_WINDOW (15 + 16)       /* 32 KiB, with gzip's header (zlib.h) */
#define SNAPPY_GROWTH_MAX 32u       /* no input byte becomes more: three bytes can say "copy 64" */
#ifndef SNAPPY_LIBRARY /* a test takes a name that nothing has */
#define SNAPPY_LIBRARY "libsnappy.so.1" /* snappy-c.h of version 1: C functions, whose interface has not changed since 2011 */
#endif
#define SNAPPY_JAVA_HEADER 16
#define SNAPPY_JAVA_BLOCK 32768u    /* what snappy-java puts into one */

static const char snappy_java_magic[8] = "\x82SNAPPY";

/* ---- memory of zlib and zstd ------------------------------------------------------------------------------------------ */

static void *zlib_get(void *opaque, unsigned n, unsigned size)
{
    return mem_try(MEM_BATCH, (size_t)n * size);
}

static void *zstd_get(void *opaque, size_t size)
{
    return mem_try(MEM_BATCH, size);
}

static void block_put(void *opaque, void *p)
{
    mem_free(p);
}

static const ZSTD_customMem zstd_mem = {zstd_get, block_put, NULL};

/* ---- room --------------------------------------------------------------------------------------------------------------- */

/* n bytes were written behind the end of b. */
static void buf_took(struct buf *b, size_t n)
{
    b->n += n;
    b->p[b->n] = '\0';
}

/* Output on its way into a buffer. */
struct sink {
    struct buf *out;
    size_t start; /* what out held before */
    size_t limit;
};

static size_t sink_bytes(const struct sink *s)
{
    return s->out->n - s->start;
}

/* Room for some more bytes, at the end of out: how many; 0: the limit is reached. */
static size_t sink_room(const struct sink *s, size_t wanted)
{
    size_t most = s->limit - sink_bytes(s) + 1; /* sink_bytes() <= limit, or somebody failed to look */
    size_t n = MIN(MAX(wanted, ROOM_LEAST), most);
    buf_reserve(s->out, n);
    return n;
}

/* n bytes have come out. */
static enum err sink_took(const struct sink *s, size_t n)
{
    buf_took(s->out, n);
    return sink_bytes(s) > s->limit ? ERR_LIMIT : OK;
}

/* ---- gzip ----------------------------------------------------------------------------------------------------------------- */

/* One step; *done at the end of a member behind which nothing is left. */
static enum err gunzip_step(z_stream *z, const struct sink *s, bool *done)
{
    size_t room = sink_room(s, (size_t)z->avail_in * 4);
    room = MIN(room, UINT32_MAX);
    z->next_out = (Bytef *)s->out->p + s->out->n;
    z->avail_out = (uInt)room;
    uInt in_before = z->avail_in;
    int r = inflate(z, Z_NO_FLUSH);
    size_t n = room - z->avail_out;
    enum err e = sink_took(s, n);
    if (e)
        return e;
    if (r == Z_STREAM_END) {
        *done = z->avail_in == 0;
        return *done || inflateReset(z) == Z_OK ? OK : ERR_SYNTAX;
    }
    if (r == Z_MEM_ERROR)
        return ERR_NOMEM;
    return r == Z_OK && (n > 0 || z->avail_in < in_before) ? OK : ERR_SYNTAX;
}

static enum err gunzip(struct slice in, const struct sink *s)
{
    bool done = false;
    enum err e = OK;
    z_stream z = {.zalloc = zlib_get, .zfree = block_put, .next_in = (const Bytef *)in.p, .avail_in = (uInt)in.n};
    if (in.n > UINT32_MAX)
        return ERR_LIMIT;
    if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return ERR_NOMEM;
    while (!e && !done)
        e = gunzip_step(&z, s, &done);
    inflateEnd(&z);
    return e;
}

static enum err gzip(struct slice in, struct buf *out)
{
    z_stream z = {.zalloc = zlib_get, .zfree = block_put, .next_in = (const Bytef *)in.p, .avail_in = (uInt)in.n};
    if (in.n > INT32_MAX)
        return ERR_LIMIT;
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return ERR_NOMEM;
    size_t room = deflateBound(&z, (uLong)in.n);
    buf_reserve(out, room);
    z.next_out = (Bytef *)out->p + out->n;
    z.avail_out = (uInt)room;
    int r = deflate(&z, Z_FINISH);
    MUST(r == Z_STREAM_END); /* the room is the bound */
    buf_took(out, room - z.avail_out);
    deflateEnd(&z);
    return OK;
}

/* ---- snappy ----------------------------------------------------------------------------------------------------------------- */

/* Filled once, read-only afterwards; compress NULL: the library is not there. */
static struct snappy_functions {
    __typeof__(snappy_uncompressed_length) *length;
    __typeof__(snappy_uncompress) *uncompress;
    __typeof__(snappy_max_compressed_length) *bound;
    __typeof__(snappy_compress) *compress;
} snappy;
static pthread_once_t snappy_once = PTHREAD_ONCE_INIT;

static void snappy_load(void)
{
    struct snappy_functions f;
    void *lib = dlopen(SNAPPY_LIBRARY, RTLD_NOW | RTLD_LOCAL); /* stays */
    if (!lib)
        return;
    *(void **)&f.length = dlsym(lib, "snappy_uncompressed_length");
    *(void **)&f.uncompress = dlsym(lib, "snappy_uncompress");
    *(void **)&f.bound = dlsym(lib, "snappy_max_compressed_length");
    *(void **)&f.compress = dlsym(lib, "snappy_compress");
    if (f.length && f.uncompress && f.bound && f.compress)
        snappy = f;
}

static bool snappy_there(void)
{
    pthread_once(&snappy_once, snappy_load);
    return snappy.compress != NULL;
}

static enum err unsnap_block(struct slice in, const struct sink *s)
{
    size_t n;
    if (snappy.length(in.p, in.n, &n) != SNAPPY_OK)
        return ERR_SYNTAX;
    if (n > s->limit - sink_bytes(s))
        return ERR_LIMIT;
    if (n / SNAPPY_GROWTH_MAX > in.n)
        return ERR_SYNTAX;
    buf_reserve(s->out, n);
    if (snappy.uncompress(in.p, in.n, s->out->p + s->out->n, &n) != SNAPPY_OK)
        return ERR_SYNTAX;
    return sink_took(s, n);
}

static bool is_snappy_java(struct slice in)
{
    return in.n >= SNAPPY_JAVA_HEADER && memcmp(in.p, snappy_java_magic, sizeof snappy_java_magic) == 0;
}

static enum err unsnap(struct slice in, const struct sink *s)
{
    if (!snappy_there())
        return ERR_UNSUPPORTED;
    if (!is_snappy_java(in))
        return unsnap_block(in, s);
    while (in.n) {
        if (is_snappy_java(in)) { /* also in the middle: streams may be joined */
            in = slice_of(in.p + SNAPPY_JAVA_HEADER, in.n - SNAPPY_JAVA_HEADER);
            continue;
        }
        uint32_t n;
        if (in.n < sizeof n)
            return ERR_SYNTAX;
        memcpy(&n, in.p, sizeof n);
        n = be32toh(n);
        if (n > in.n - sizeof n)
            return ERR_SYNTAX;
        enum err e = unsnap_block(slice_of(in.p + sizeof n, n), s);
        if (e)
            return e;
        in = slice_of(in.p + sizeof n + n, in.n - sizeof n - n);
    }
    return OK;
}

static enum err snap(struct slice in, struct buf *out)
{
    if (!snappy_there())
        return ERR_UNSUPPORTED;
    buf_add(out, snappy_java_magic, sizeof snappy_java_magic);
    buf_add(out, "\0\0\0\1\0\0\0\1", 8);
    while (in.n) {
        size_t part = MIN(in.n, SNAPPY_JAVA_BLOCK), n = snappy.bound(part);
        buf_reserve(out, 4 + n);
        snappy_status r = snappy.compress(in.p, part, out->p + out->n + 4, &n);
        MUST(r == SNAPPY_OK); /* the room is the bound */
        uint32_t size = htobe32((uint32_t)n);
        memcpy(out->p + out->n, &size, sizeof size);
        buf_took(out, 4 + n);
        in = slice_of(in.p + part, in.n - part);
    }
    return OK;
}

/* ---- lz4 ------------------------------------------------------------------------------------------------------------------------ */

static enum err unlz4_frames(LZ4F_dctx *z, struct slice in, const struct sink *s)
{
    size_t wants = 1; /* 0: a frame has ended here */
    while (in.n || wants) {
        size_t room = sink_room(s, in.n * 4), taken = in.n;
        wants = LZ4F_decompress(z, s->out->p + s->out->n, &room, in.p, &taken, NULL);
        if (LZ4F_isError(wants) || (room == 0 && taken == 0)) /* the second: it ends in the middle of a frame */
            return ERR_SYNTAX;
        enum err e = sink_took(s, room);
        if (e)
            return e;
        in = slice_of(in.p + taken, in.n - taken);
    }
    return OK;
}

static enum err unlz4(struct slice in, const struct sink *s)
{
    LZ4F_dctx *z;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&z, LZ4F_VERSION)))
        return ERR_NOMEM;
    enum err e = unlz4_frames(z, in, s);
    LZ4F_freeDecompressionContext(z);
    return e;
}

/* Kafka's Java clients read only blocks that do not depend on each other. */
static enum err lz4(struct slice in, struct buf *out)
{
    const LZ4F_preferences_t how = {.frameInfo = {.blockSizeID = LZ4F_max64KB, .blockMode = LZ4F_blockIndependent}};
    size_t room = LZ4F_compressFrameBound(in.n, &how);
    buf_reserve(out, room);
    size_t n = LZ4F_compressFrame(out->p + out->n, room, in.p, in.n, &how);
    if (LZ4F_isError(n))
        return ERR_NOMEM;
    buf_took(out, n);
    return OK;
}

/* ---- zstd ------------------------------------------------------------------------------------------------------------------------- */

static enum err unzstd_frames(ZSTD_DCtx *z, struct slice in, const struct sink *s)
{
    ZSTD_inBuffer from = {in.p, in.n, 0};
    size_t wants = 1; /* 0: a frame has ended here */
    while (from.pos < from.size || wants) {
        ZSTD_outBuffer to = {NULL, sink_room(s, (from.size - from.pos) * 4), 0};
        size_t before = from.pos;
        to.dst = s->out->p + s->out->n;
        wants = ZSTD_decompressStream(z, &to, &from);
        if (ZSTD_isError(wants))
            return ZSTD_getErrorCode(wants) == ZSTD_error_memory_allocation ? ERR_NOMEM : ERR_SYNTAX;
        if (to.pos == 0 && from.pos == before && wants) /* it ends in the middle of a frame */
            return ERR_SYNTAX;
        enum err e = sink_took(s, to.pos);
        if (e)
            return e;
    }
    return OK;
}

static enum err unzstd(struct slice in, const struct sink *s)
{
    ZSTD_DCtx *z = ZSTD_createDCtx_advanced(zstd_mem);
    if (!z)
        return ERR_NOMEM;
    enum err e = unzstd_frames(z, in, s);
    ZSTD_freeDCtx(z);
    return e;
}

static enum err zstd(struct slice in, struct buf *out)
{
    ZSTD_CCtx *z = ZSTD_createCCtx_advanced(zstd_mem);
    if (!z)
        return ERR_NOMEM;
    size_t room = ZSTD_compressBound(in.n);
    buf_reserve(out, room);
    size_t n = ZSTD_compressCCtx(z, out->p + out->n, room, in.p, in.n, ZSTD_LEVEL);
    ZSTD_freeCCtx(z);
    if (ZSTD_isError(n))
        return ERR_NOMEM;
    buf_took(out, n);
    return OK;
}

/* ---- which ---------------------------------------------------------------------------------------------------------------------------- */

static enum err inflate_into(enum kafka_codec codec, struct slice in, const struct sink *s)
{
    switch (codec) {
    case KAFKA_CODEC_NONE:
        if (in.n > s->limit)
            return ERR_LIMIT;
        buf_add_slice(s->out, in);
        return OK;
    case KAFKA_CODEC_GZIP: return gunzip(in, s);
    case KAFKA_CODEC_SNAPPY: return unsnap(in, s);
    case KAFKA_CODEC_LZ4: return unlz4(in, s);
    case KAFKA_CODEC_ZSTD: return unzstd(in, s);
    default: return ERR_UNSUPPORTED;
    }
}

enum err kafka_inflate(enum kafka_codec codec, struct slice in, size_t limit, struct buf *out)
{
    struct sink s = {.out = out, .start = out->n, .limit = limit};
    buf_reserve(out, 0);
    enum err e = inflate_into(codec, in, &s);
    if (e) {
        out->n = s.start;
        out->p[out->n] = '\0';
    }
    return e;
}

enum err kafka_deflate(enum kafka_codec codec, struct slice in, struct buf *out)
{
    switch (codec) {
    case KAFKA_CODEC_NONE: buf_add_slice(out, in); return OK;
    case KAFKA_CODEC_GZIP: return gzip(in, out);
    case KAFKA_CODEC_SNAPPY: return snap(in, out);
    case KAFKA_CODEC_LZ4: return lz4(in, out);
    case KAFKA_CODEC_ZSTD: return zstd(in, out);
    default: return ERR_UNSUPPORTED;
    }
}
