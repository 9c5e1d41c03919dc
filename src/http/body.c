/* body.c - bodies of messages: reading them by their framing, writing them, and the bytes that were read ahead.
 *
 * A body that is read is handed on as pieces that lie where they were read. With chunked framing the data of all chunks in
 * one read become the pieces of one call, and, on the other side, one chunk.
 */
#include "http_int.h"

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* Decodes as much of a chunked body as fits into v. H1_MORE with *used < n means that v was full: call again. */
static enum h1_result chunked_gather(struct h1_chunked *ch, const char *p, size_t n, size_t *used, struct iovec v[PIECES_MAX], struct pieces *out, enum h1_error *error)
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

void body_begin(struct body_in *b, const struct h1_head *h)
{
    b->framing = (uint8_t)h->framing;
    b->left = h->framing == H1_LENGTH ? h->length : 0;
    if (h->framing != H1_CHUNKED) {
        body_fini(b);
        return;
    }
    if (!b->chunked)
        b->chunked = mem_new(MEM_CONN, sizeof *b->chunked);
    h1_chunked_init(b->chunked);
}

void body_fini(struct body_in *b)
{
    mem_free(b->chunked);
    b->chunked = NULL;
}

bool body_take(struct body_in *b, const char *p, size_t n, size_t *used, struct iovec v[PIECES_MAX], struct pieces *out, bool *end)
{
    enum h1_error error;
    *used = 0;
    *end = false;
    switch ((enum h1_framing)b->framing) {
    case H1_CHUNKED: {
        enum h1_result r = chunked_gather(b->chunked, p, n, used, v, out, &error);
        *end = r == H1_DONE;
        return r != H1_BAD;
    }
    case H1_LENGTH:
        *used = n < b->left ? n : (size_t)b->left;
        b->left -= *used;
        *end = b->left == 0;
        break;
    case H1_UNTIL_CLOSE:
    case H1_TUNNEL:
        *used = n;
        break;
    case H1_NO_BODY:
        *end = true;
        break;
    }
    v[0] = (struct iovec){(void *)(uintptr_t)p, *used};
    *out = (struct pieces){v, *used ? 1 : 0, *used};
    return true;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

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

/* ---- bytes read ahead ------------------------------------------------------------------------------------------------ */

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
