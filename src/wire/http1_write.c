/* http1_write.c - the small things that are written, the grammars that guard what is written, and the tables of texts.
 *
 * Heads are written by their owners, piece by piece into an iovec; what they need from here is the reason phrase, the line
 * before a chunk, and the certainty that a name or value taken from a manifest cannot break the head.
 */
#include "http1_int.h"

#define ALNUM (H1_C_TOKEN | H1_C_REG_NAME)
#define BOTH (H1_C_TOKEN | H1_C_REG_NAME)

const uint8_t h1_class[256] = {
    ['0' ... '9'] = ALNUM | H1_C_HEX | H1_C_DIGIT,
    ['a' ... 'f'] = ALNUM | H1_C_HEX, ['g' ... 'z'] = ALNUM,
    ['A' ... 'F'] = ALNUM | H1_C_HEX, ['G' ... 'Z'] = ALNUM,
    ['-'] = BOTH, ['.'] = BOTH, ['_'] = BOTH, ['~'] = BOTH, ['!'] = BOTH, ['$'] = BOTH, ['&'] = BOTH, ['\''] = BOTH, ['*'] = BOTH, ['+'] = BOTH,
    ['#'] = H1_C_TOKEN, ['%'] = H1_C_TOKEN, ['^'] = H1_C_TOKEN, ['`'] = H1_C_TOKEN, ['|'] = H1_C_TOKEN,
    ['('] = H1_C_REG_NAME, [')'] = H1_C_REG_NAME, [','] = H1_C_REG_NAME, [';'] = H1_C_REG_NAME, ['='] = H1_C_REG_NAME,
};

bool h1_is_token(struct slice s)
{
    return s.n && h1_scan_token(s.p, s.p + s.n) == s.p + s.n;
}

bool h1_is_value(struct slice s)
{
    if (s.n == 0)
        return true;
    return slice_trim(s).n == s.n && h1_scan_value(s.p, s.p + s.n) == s.p + s.n;
}

size_t h1_chunk_head(char out[H1_CHUNK_HEAD_MAX], uint64_t n)
{
    MUST(n > 0); /* a chunk of 0 bytes would end the body */
    size_t digits = (size_t)(67 - __builtin_clzll(n)) / 4;
    for (size_t i = digits; i-- > 0; n >>= 4)
        out[i] = "0123456789abcdef"[n & 15];
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}

/* ---- texts ---------------------------------------------------------------------------------------------------------- */

struct error_text {
    uint16_t status;
    const char *label, *text;
};

static const struct error_text error_texts[H1_ERROR_COUNT] = {
    [H1_OK] = {200, "ok", "ok"},
#define X(name, status, label, text) [H1_E_##name] = {status, label, text},
#include "http1_errors.def"
#undef X
};

uint16_t h1_error_status(enum h1_error e)
{
    MUST((unsigned)e < H1_ERROR_COUNT);
    return error_texts[e].status;
}

const char *h1_error_label(enum h1_error e)
{
    MUST((unsigned)e < H1_ERROR_COUNT);
    return error_texts[e].label;
}

const char *h1_error_text(enum h1_error e)
{
    MUST((unsigned)e < H1_ERROR_COUNT);
    return error_texts[e].text;
}

/* RFC 9110 section 15; 428, 429, 431 and 511 from RFC 6585, 103 from RFC 8297, 425 from RFC 8470, 451 from RFC 7725,
 * 102, 207, 208, 226, 423, 424, 506, 507, 508 from the IANA registry. */
static const char *const reasons[600] = {
    [100] = "Continue", [101] = "Switching Protocols", [102] = "Processing", [103] = "Early Hints",
    [200] = "OK", [201] = "Created", [202] = "Accepted", [203] = "Non-Authoritative Information", [204] = "No Content",
    [205] = "Reset Content", [206] = "Partial Content", [207] = "Multi-Status", [208] = "Already Reported", [226] = "IM Used",
    [300] = "Multiple Choices", [301] = "Moved Permanently", [302] = "Found", [303] = "See Other", [304] = "Not Modified",
    [305] = "Use Proxy", [307] = "Temporary Redirect", [308] = "Permanent Redirect",
    [400] = "Bad Request", [401] = "Unauthorized", [402] = "Payment Required", [403] = "Forbidden", [404] = "Not Found",
    [405] = "Method Not Allowed", [406] = "Not Acceptable", [407] = "Proxy Authentication Required", [408] = "Request Timeout",
    [409] = "Conflict", [410] = "Gone", [411] = "Length Required", [412] = "Precondition Failed", [413] = "Content Too Large",
    [414] = "URI Too Long", [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable", [417] = "Expectation Failed",
    [421] = "Misdirected Request", [422] = "Unprocessable Content", [423] = "Locked", [424] = "Failed Dependency", [425] = "Too Early",
    [426] = "Upgrade Required", [428] = "Precondition Required", [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway", [503] = "Service Unavailable",
    [504] = "Gateway Timeout", [505] = "HTTP Version Not Supported", [506] = "Variant Also Negotiates", [507] = "Insufficient Storage",
    [508] = "Loop Detected", [511] = "Network Authentication Required",
};

const char *h1_reason(uint16_t status)
{
    const char *reason = status < COUNT_OF(reasons) ? reasons[status] : NULL;
    return reason ? reason : "Unknown";
}
