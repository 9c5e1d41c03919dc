/* head_out.c - a message head being written: plain appends into one scratch buffer per worker. */
#include "http_int.h"

void head_out_init(struct head_out *o)
{
    o->p = mem_new(MEM_CONN, HEAD_OUT_BYTES);
    head_clear(o);
}

void head_out_fini(struct head_out *o)
{
    mem_free(o->p);
    o->p = NULL;
}

void head_u64(struct head_out *o, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    head_put(o, digits + at, sizeof digits - at);
}

void head_status(struct head_out *o, uint16_t status, struct slice reason)
{
    if (LIKELY(status == 200 && (reason.n == 0 || slice_eq(reason, SLICE("OK"))))) {
        head_lit(o, "HTTP/1.1 200 OK\r\n");
        return;
    }
    head_lit(o, "HTTP/1.1 ");
    head_u64(o, status);
    head_lit(o, " ");
    if (reason.n)
        head_slice(o, reason);
    else
        head_slice(o, slice_cstr(h1_reason(status)));
    head_lit(o, "\r\n");
}

size_t body_write(struct stream *s, struct slice before, struct pieces body, enum h1_framing framing, bool end, struct slice trailers)
{
    struct iovec v[PIECES_MAX + 8];
    int n = 0;
    char chunk[H1_CHUNK_HEAD_MAX];
    if (before.n)
        v[n++] = (struct iovec){(void *)(uintptr_t)before.p, before.n};
    bool chunked = framing == H1_CHUNKED;
    MUST(body.n <= PIECES_MAX);
    if (body.bytes) {
        if (chunked)
            v[n++] = (struct iovec){chunk, h1_chunk_head(chunk, body.bytes)};
        memcpy(v + n, body.v, (size_t)body.n * sizeof *v);
        n += body.n;
        if (chunked)
            v[n++] = (struct iovec){(void *)(uintptr_t) "\r\n", 2};
    }
    if (end && chunked) {
        v[n++] = (struct iovec){(void *)(uintptr_t) "0\r\n", 3};
        if (trailers.n)
            v[n++] = (struct iovec){(void *)(uintptr_t)trailers.p, trailers.n};
        v[n++] = (struct iovec){(void *)(uintptr_t) "\r\n", 2};
    }
    return n ? stream_write(s, v, n) : s->out_bytes;
}

enum h1_result chunked_gather(struct h1_chunked *ch, const char *p, size_t n, size_t *used, struct iovec v[PIECES_MAX], struct pieces *out, enum h1_error *error)
{
    *used = 0;
    *out = (struct pieces){.v = v};
    while (out->n < PIECES_MAX) {
        size_t took;
        struct slice data;
        enum h1_result r = h1_chunked_next(ch, p + *used, n - *used, &took, &data, error);
        *used += took;
        if (r == H1_BAD)
            return r;
        if (data.n) {
            v[out->n++] = (struct iovec){(void *)(uintptr_t)data.p, data.n};
            out->bytes += data.n;
        }
        if (r == H1_DONE || *used == n)
            return r;
        MUST(took > 0);
    }
    return H1_MORE;
}

void ahead_keep(char **in, uint32_t *in_n, uint32_t *in_cap, const char *p, size_t n)
{
    if (*in && p >= *in && p <= *in + *in_n) {
        memmove(*in, p, n);
        *in_n = (uint32_t)n;
        if (!n)
            ahead_free(in, in_n, in_cap);
        return;
    }
    if (!n)
        return;
    if (*in_n + n > *in_cap) {
        size_t cap = *in_cap ? *in_cap : 1024;
        while (cap < *in_n + n)
            cap *= 2;
        *in = mem_grow(MEM_CONN, *in, cap);
        *in_cap = (uint32_t)cap;
    }
    memcpy(*in + *in_n, p, n);
    *in_n += (uint32_t)n;
}

void ahead_free(char **in, uint32_t *in_n, uint32_t *in_cap)
{
    mem_free(*in);
    *in = NULL;
    *in_n = *in_cap = 0;
}
