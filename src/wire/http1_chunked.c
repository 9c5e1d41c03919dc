/* http1_chunked.c - the chunked transfer coding, read piece by piece (RFC 9112 section 7.1).
 *
 *     chunked-body = *( size [ ext ] CRLF data CRLF ) "0"... [ ext ] CRLF *field-line CRLF
 *
 *     SIZE -> (SPACE ->) EXT -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ...
 *                                       -> TRAILER (one line after another) -> LAST_LF -> END
 *
 * State lives in the caller's struct h1_chunked. Data is never copied; the trailer section is, because its lines may arrive
 * in pieces. Every byte is judged when it comes, so cutting the input differently changes nothing.
 */
#include "http1_int.h"

enum state { SIZE, SPACE, EXT, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, LAST_LF, END };

#define DIGITS_MAX 16 /* of a size: what 64 bits hold, leading zeros included */

void h1_chunked_init(struct h1_chunked *c)
{
    memset(c, 0, offsetof(struct h1_chunked, trailer));
}

static unsigned hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    return (unsigned)(ascii_lower(c) - 'a' + 10);
}

static enum h1_error size_digit(struct h1_chunked *c, char b)
{
    if (++c->digits > DIGITS_MAX || c->left > INT64_MAX >> 4)
        return H1_E_CHUNK_SIZE_OVERFLOW;
    c->left = c->left << 4 | hex_digit(b);
    return H1_OK;
}

/* One byte of a size line, which is short: there is nothing to gain by looking ahead. */
static enum h1_error size_line(struct h1_chunked *c, char b)
{
    if (c->state == SIZE_LF) {
        if (b != '\n')
            return H1_E_BARE_CR;
        c->line_n = 0;
        c->digits = 0;
        c->state = c->left ? DATA : TRAILER;
        return H1_OK;
    }
    if (b == '\n')
        return H1_E_BARE_LF;
    if (b != '\r' && ++c->line_n > H1_CHUNK_LINE_MAX)
        return H1_E_CHUNK_LINE_SIZE;
    if (c->state == SIZE && h1_in(b, H1_C_HEX))
        return size_digit(c, b);
    if (c->digits == 0)
        return H1_E_CHUNK_SIZE;
    if (c->state == EXT)
        c->state = b == '\r' ? SIZE_LF : EXT;
    else if (b == ';')
        c->state = EXT;
    else if (b == '\r' && c->state == SIZE)
        c->state = SIZE_LF;
    else if (b == ' ' || b == '\t')
        c->state = SPACE; /* allowed before ';' alone (section 7.1.1) */
    else
        return H1_E_CHUNK_SIZE;
    return c->state == EXT && h1_is_ctl(b) ? H1_E_CHUNK_EXTENSION : H1_OK;
}

/* Takes what it can of the current trailer line, which is not the empty one, and judges what is there of it. A line that comes
 * in many pieces is looked at as often; it is short. */
static enum h1_error trailer_bytes(struct h1_chunked *c, const char *p, size_t n, size_t *used)
{
    size_t room = H1_TRAILER_BYTES_MAX - c->trailer_n, take = MIN(n, room);
    const char *lf = take ? memchr(p, '\n', take) : NULL;
    if (lf)
        take = (size_t)(lf - p) + 1;
    memcpy(c->trailer + c->trailer_n, p, take);
    c->trailer_n += (uint32_t)take;
    c->line_n += (uint32_t)take;
    *used = take;
    const char *end = c->trailer + c->trailer_n, *line = end - c->line_n;
    struct h1_field f;
    enum h1_error e = h1_field_line(&line, end, &f);
    if (e == H1_PART_MORE) {
        MUST(!lf); /* an LF ends or spoils a line */
        return n > room ? H1_E_TRAILERS_SIZE : H1_OK;
    }
    c->line_n = 0;
    return e;
}

/* The data of a chunk that is there, or one framing byte, or a stretch of trailers. */
static enum h1_error step(struct h1_chunked *c, const char *p, size_t n, size_t *used, struct slice *data)
{
    *used = 1;
    switch ((enum state)c->state) {
    case DATA:
        *used = c->left < n ? (size_t)c->left : n;
        *data = slice_of(p, *used);
        c->left -= *used;
        if (c->left == 0)
            c->state = DATA_CR;
        return H1_OK;
    case DATA_CR:
        c->state = DATA_LF;
        return *p == '\r' ? H1_OK : *p == '\n' ? H1_E_BARE_LF : H1_E_CHUNK_END;
    case DATA_LF:
        c->state = SIZE;
        return *p == '\n' ? H1_OK : H1_E_CHUNK_END;
    case TRAILER:
        if (c->line_n > 0 || *p != '\r')
            return trailer_bytes(c, p, n, used);
        c->state = LAST_LF;
        return H1_OK;
    case LAST_LF:
        c->state = END;
        return *p == '\n' ? H1_OK : H1_E_BARE_CR;
    default:
        return size_line(c, *p);
    }
}

enum h1_result h1_chunked_next(struct h1_chunked *c, const char *p, size_t n, size_t *used, struct slice *data, enum h1_error *error)
{
    *data = slice_of(p, 0);
    *used = 0;
    while (*used < n && c->state != END) {
        size_t taken;
        enum h1_error e = step(c, p + *used, n - *used, &taken, data);
        if (UNLIKELY(e)) {
            *error = e;
            return H1_BAD;
        }
        *used += taken;
        if (data->n)
            return H1_MORE;
    }
    return c->state == END ? H1_DONE : H1_MORE;
}

/* ---- trailers ---------------------------------------------------------------------------------------------------------- */

/* Fields that a recipient must not take from trailers (RFC 9110 section 6.5.1): they decide about framing, routing,
 * authentication, or how the content is to be read, which has all happened by then. Names with an id first. */
bool h1_trailer_forbidden(const struct h1_field *f)
{
    static const char *const names[] = {
        "authorization",    "www-authenticate",  "authentication-info", "proxy-authentication-info", "content-encoding", "content-range",
        "content-location", "cache-control",     "range",               "if-match",                  "if-none-match",    "if-modified-since",
        "if-range",         "if-unmodified-since", "age",               "expires",                   "retry-after",      "vary",
        "warning",          "pragma",
    };
    switch (f->id) {
    case H1_OTHER:
        for (size_t i = 0; i < COUNT_OF(names); i++)
            if (slice_ieq(f->name, slice_cstr(names[i])))
                return true;
        return false;
    case H1_USER_AGENT: case H1_SERVER: return false;
    default: return true; /* every other field that this code acts on */
    }
}

int h1_chunked_trailers(const struct h1_chunked *c, struct h1_field *fields, int max)
{
    const char *p = c->trailer, *end = p + c->trailer_n;
    int n = 0;
    while (p < end) {
        struct h1_field f;
        if (h1_field_line(&p, end, &f))
            return -1;
        f.id = h1_name_id(f.name);
        if (h1_trailer_forbidden(&f))
            continue;
        if (n == max)
            return -1;
        fields[n++] = f;
    }
    return n;
}
