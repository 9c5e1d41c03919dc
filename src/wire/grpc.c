/* grpc.c - frames, timeouts and status texts of gRPC. Pure functions; what a call is, and its life, is its owner's. */
#include "grpc.h"

enum err grpc_frame_next(struct slice *bytes, uint32_t bytes_max, struct slice *msg)
{
    const uint8_t *p = (const uint8_t *)bytes->p;
    if (bytes->n < GRPC_FRAME_HEAD)
        return bytes->n && p[0] > 1 ? ERR_SYNTAX : ERR_AGAIN;
    uint32_t length = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    *msg = slice_of(bytes->p + GRPC_FRAME_HEAD, length);
    if (p[0] > 1)
        return ERR_SYNTAX;
    if (p[0] == 1)
        return ERR_UNSUPPORTED;
    if (length > bytes_max)
        return ERR_LIMIT;
    if (bytes->n - GRPC_FRAME_HEAD < length)
        return ERR_AGAIN;
    bytes->p += GRPC_FRAME_HEAD + length;
    bytes->n -= GRPC_FRAME_HEAD + length;
    return OK;
}

size_t grpc_frame_begin(struct buf *b)
{
    size_t at = b->n;
    buf_add(b, "\0\0\0\0\0", GRPC_FRAME_HEAD);
    return at;
}

void grpc_frame_end(struct buf *b, size_t at)
{
    MUST(b->n >= at + GRPC_FRAME_HEAD && b->n - at - GRPC_FRAME_HEAD <= UINT32_MAX);
    size_t n = b->n - at - GRPC_FRAME_HEAD;
    for (int i = 0; i < 4; i++)
        b->p[at + 4 - (size_t)i] = (char)(n >> (8 * i) & 0xff);
}

enum err grpc_timeout_parse(struct slice text, uint64_t *timeout_ms)
{
    uint64_t n;
    if (text.n < 2 || text.n > 9 || slice_u64(slice_of(text.p, text.n - 1), 99999999, &n))
        return ERR_SYNTAX;
    switch (text.p[text.n - 1]) {
    case 'H': *timeout_ms = n * 3600000; return OK;
    case 'M': *timeout_ms = n * 60000; return OK;
    case 'S': *timeout_ms = n * 1000; return OK;
    case 'm': *timeout_ms = n; return OK;
    case 'u': *timeout_ms = (n + 999) / 1000; return OK;
    case 'n': *timeout_ms = (n + 999999) / 1000000; return OK;
    default: return ERR_SYNTAX;
    }
}

void grpc_message_add(struct buf *b, struct slice text)
{
    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = (uint8_t)text.p[i];
        if (c >= 0x20 && c <= 0x7e && c != '%')
            buf_addc(b, (char)c);
        else
            buf_printf(b, "%%%02X", c);
    }
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t grpc_message_read(struct slice text, char *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n && n < max; i++) {
        bool escaped = text.p[i] == '%' && text.n - i > 2 && hex(text.p[i + 1]) >= 0 && hex(text.p[i + 2]) >= 0;
        int c = escaped ? hex(text.p[i + 1]) << 4 | hex(text.p[i + 2]) : text.p[i];
        out[n++] = (char)(c & 0xff);
        i += escaped ? 2 : 0;
    }
    return n;
}
