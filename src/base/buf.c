/* buf.c - text that grows: appending, numbers, formatting, JSON strings.
 *
 * Capacity doubles; p[n] is always NUL after the first write. A buf never refuses: growth that the system denies ends the
 * process, so a buf holds text whose size is bounded by its writer, not by a peer.
 */
#include "base.h"

#include <stdio.h>

#define BUF_MIN 64

void buf_reserve(struct buf *b, size_t more)
{
    MUST(more < PTRDIFF_MAX - b->n);
    size_t need = b->n + more + 1;
    if (LIKELY(need <= b->cap))
        return;
    size_t cap = b->cap ? b->cap : BUF_MIN;
    while (cap < need)
        cap *= 2;
    b->p = mem_grow(MEM_BUF, b->p, cap);
    b->cap = cap;
    b->p[b->n] = '\0';
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    buf_reserve(b, n);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_slice(struct buf *b, struct slice s)
{
    buf_add(b, s.p, s.n);
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t i = sizeof digits;
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buf_add(b, digits + i, sizeof digits - i);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    buf_reserve(b, 0);
    int n = vsnprintf(b->p + b->n, b->cap - b->n, fmt, ap);
    MUST(n >= 0); /* only a broken format fails */
    if ((size_t)n >= b->cap - b->n) {
        buf_reserve(b, (size_t)n);
        vsnprintf(b->p + b->n, b->cap - b->n, fmt, again);
    }
    va_end(again);
    b->n += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    if (b->p)
        b->p[0] = '\0';
}

void buf_free(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){0};
}

void buf_wipe(struct buf *b)
{
    mem_wipe(b->p, b->cap);
    buf_free(b);
}

char *buf_take(struct buf *b, size_t *n)
{
    buf_reserve(b, 0); /* an empty buf gives "" */
    char *p = b->p;
    if (n)
        *n = b->n;
    *b = (struct buf){0};
    return p;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

/* The length of the well-formed UTF-8 sequence at s (RFC 3629 section 4), or 0; *bad is then how many bytes one U+FFFD
 * stands for: the longest start of a well-formed sequence, at least 1 (Unicode's recommended practice). */
static size_t utf8_len(struct slice s, size_t *bad)
{
    unsigned char first = (unsigned char)s.p[0];
    size_t len = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    *bad = 1;
    for (size_t i = 1; i < len; i++) {
        unsigned char low = 0x80, high = 0xbf;
        if (i == 1) {
            if (first == 0xe0)
                low = 0xa0; /* overlong */
            else if (first == 0xed)
                high = 0x9f; /* surrogates */
            else if (first == 0xf0)
                low = 0x90; /* overlong */
            else if (first == 0xf4)
                high = 0x8f; /* above U+10FFFF */
        }
        if (i >= s.n || (unsigned char)s.p[i] < low || (unsigned char)s.p[i] > high) {
            *bad = i;
            return 0;
        }
    }
    return len;
}

void text_clean(char *text)
{
    size_t bad, len;
    for (struct slice s = slice_cstr(text); s.n; s = slice_of(s.p + len, s.n - len)) {
        len = utf8_len(s, &bad);
        char *at = text + (s.p - text);
        if (len == 0 || (unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
        len = MAX(len, 1u); /* the rest of a broken sequence is no start of one: it is replaced byte by byte */
    }
}

static void json_escape(struct buf *b, char c)
{
    switch (c) {
    case '"': buf_add(b, "\\\"", 2); break;
    case '\\': buf_add(b, "\\\\", 2); break;
    case '\b': buf_add(b, "\\b", 2); break;
    case '\f': buf_add(b, "\\f", 2); break;
    case '\n': buf_add(b, "\\n", 2); break;
    case '\r': buf_add(b, "\\r", 2); break;
    case '\t': buf_add(b, "\\t", 2); break;
    default: buf_printf(b, "\\u%04x", (unsigned char)c); break;
    }
}

void buf_add_json(struct buf *b, struct slice s)
{
    buf_add(b, "\"", 1);
    size_t plain = 0; /* bytes at s.p that need no change and are not yet copied */
    while (plain < s.n) {
        unsigned char c = (unsigned char)s.p[plain];
        size_t bad, len;
        if (c < 0x20 || c == '"' || c == '\\') {
            buf_add(b, s.p, plain);
            json_escape(b, (char)c);
            len = 1;
        } else if ((len = utf8_len(slice_of(s.p + plain, s.n - plain), &bad)) > 0) {
            plain += len;
            continue;
        } else {
            buf_add(b, s.p, plain);
            buf_add(b, "\xef\xbf\xbd", 3);
            len = bad;
        }
        s = slice_of(s.p + plain + len, s.n - plain - len);
        plain = 0;
    }
    buf_add(b, s.p, plain);
    buf_add(b, "\"", 1);
}
