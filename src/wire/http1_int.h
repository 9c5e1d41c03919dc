/* http1_int.h - what the files of the HTTP/1 codec share: byte classes, scanners, the internal result.
 *
 * The scanners look for the first byte that ends or spoils a part of the head, 16 bytes at a time with SSE2, else 8 at a time
 * or one by one. They never read at or behind `end`, and they return `end` when nothing was found. What the byte that stopped
 * them means is decided by the caller, so the hot loops have one exit.
 */
#ifndef HTTP1_INT_H
#define HTTP1_INT_H

#include "http1.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Not an error: the bytes end before the part does. Beside the errors, so that one value carries all three results. */
#define H1_PART_MORE ((enum h1_error)H1_ERROR_COUNT)

/* Byte classes. */
enum {
    H1_C_TOKEN = 1,    /* tchar (RFC 9110 section 5.6.2) */
    H1_C_REG_NAME = 2, /* unreserved and sub-delims (RFC 3986 section 2); '%' is looked at apart */
    H1_C_HEX = 4,
    H1_C_DIGIT = 8,
};
extern const uint8_t h1_class[256];

static inline bool h1_in(char c, int cls) { return h1_class[(unsigned char)c] & cls; }
static inline bool h1_is_ctl(char c) { return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f; }

/* Parses one field line at *pp, through its CRLF. f->id is not set. *pp moves on with H1_OK only. */
enum h1_error h1_field_line(const char **pp, const char *end, struct h1_field *f);

/* The id of a name that is known to be a token. */
enum h1_name h1_token_id(const char *p, size_t n);
enum h1_method h1_method_id(const char *p, size_t n);
/* RFC 9110 section 6.5.1; f->id is set. */
bool h1_trailer_forbidden(const struct h1_field *f);

/* Meaning, once all fields are there: framing, authority, connection options. (http1_meaning.c) */
enum h1_error h1_target_split(struct h1_head *h, const char *query);
enum h1_error h1_request_finish(struct h1_head *h);
enum h1_error h1_response_finish(struct h1_head *h, enum h1_method request_method);

#ifdef __SSE2__
static inline __m128i h1_load16(const char *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
/* 0xff where low <= x <= low + span, as unsigned bytes. */
static inline __m128i h1_between(__m128i x, char low, char span)
{
    __m128i off = _mm_sub_epi8(x, _mm_set1_epi8(low));
    return _mm_cmpeq_epi8(_mm_min_epu8(off, _mm_set1_epi8(span)), off);
}
#endif

/* The first byte that is not a tchar. Letters, digits and '-' in vectors; the rare others by table. */
static inline const char *h1_scan_token(const char *p, const char *end)
{
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i x = h1_load16(p);
        __m128i letter = h1_between(_mm_or_si128(x, _mm_set1_epi8(0x20)), 'a', 25);
        __m128i plain = _mm_or_si128(_mm_or_si128(letter, h1_between(x, '0', 9)), _mm_cmpeq_epi8(x, _mm_set1_epi8('-')));
        unsigned other = ~(unsigned)_mm_movemask_epi8(plain) & 0xffff;
        if (LIKELY(other)) {
            p += __builtin_ctz(other);
            if (LIKELY(!h1_in(*p, H1_C_TOKEN)))
                return p;
            p++;
            continue;
        }
        p += 16;
    }
#endif
    while (p < end && h1_in(*p, H1_C_TOKEN))
        p++;
    return p;
}

/* The first byte that a field value may not have: a control character other than HTAB. */
static inline const char *h1_scan_value(const char *p, const char *end)
{
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i x = h1_load16(p);
        __m128i low = _mm_andnot_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('\t')), h1_between(x, 0, 0x1f));
        unsigned stop = (unsigned)_mm_movemask_epi8(_mm_or_si128(low, _mm_cmpeq_epi8(x, _mm_set1_epi8(0x7f))));
        if (stop)
            return p + __builtin_ctz(stop);
        p += 16;
    }
#else
    /* A word without a byte below 0x20 and without 0x7f has nothing to look at closer (the test also stops at HTAB and may
     * stop at a byte above a match; never too late). */
    while (end - p >= 8) {
        const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
        uint64_t x, del;
        memcpy(&x, p, sizeof x);
        del = x ^ ones * 0x7f;
        if (((x - ones * 0x20) & ~x & tops) | ((del - ones) & ~del & tops)) {
            for (int i = 0; i < 8; i++)
                if (h1_is_ctl(p[i]))
                    return p + i;
        }
        p += 8;
    }
#endif
    while (p < end && !h1_is_ctl(*p))
        p++;
    return p;
}

/* The first byte that a request target may not have: CTL, SP, '#', or 0x80 and above. *query is the first '?' before it, or
 * NULL. */
static inline const char *h1_scan_target(const char *p, const char *end, const char **query)
{
    *query = NULL;
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i x = h1_load16(p);
        __m128i graph = h1_between(x, 0x21, 0x7e - 0x21);
        __m128i bad = _mm_cmpeq_epi8(x, _mm_set1_epi8('#'));
        unsigned stop = ~(unsigned)_mm_movemask_epi8(_mm_andnot_si128(bad, graph)) & 0xffff;
        unsigned mark = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_set1_epi8('?')));
        if (stop)
            mark &= (stop & -stop) - 1; /* only before the stop */
        if (mark && !*query)
            *query = p + __builtin_ctz(mark);
        if (stop)
            return p + __builtin_ctz(stop);
        p += 16;
    }
#endif
    for (; p < end && (unsigned char)(*p - 0x21) <= 0x7e - 0x21 && *p != '#'; p++)
        if (*p == '?' && !*query)
            *query = p;
    return p;
}

#endif
