/* value.c - the grammars of values in manifests: quantities, durations, names, paths, base64.
 *
 * Pure functions over slices. What Kubernetes' validation accepts is accepted here and nothing more, so that a manifest
 * that works here works there. Sources: the Kubernetes API conventions (quantities, names), RFC 1123 and RFC 1035 (labels), RFC 6335
 * section 5.1 (service names), Gateway API GEP-2257 (durations), RFC 3986 (paths), RFC 4648 section 4 (base64).
 */
#include "plan_int.h"

static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alnum(char c) { return is_digit(c) || is_lower(ascii_lower(c)); }

/* ---- quantities --------------------------------------------------------------------------------------------------- */

#define QUANTITY_DIGITS_MAX 18 /* a mantissa of so many digits fits 64 bits */

/* What a suffix multiplies by: 2^binary * 10^decimal. */
struct quantity_suffix {
    const char *text;
    int binary, decimal;
};
static const struct quantity_suffix quantity_suffixes[] = {
    {"", 0, 0},   {"n", 0, -9}, {"u", 0, -6},  {"m", 0, -3},  {"k", 0, 3},   {"M", 0, 6},   {"G", 0, 9},   {"T", 0, 12},
    {"P", 0, 15}, {"E", 0, 18}, {"Ki", 10, 0}, {"Mi", 20, 0}, {"Gi", 30, 0}, {"Ti", 40, 0}, {"Pi", 50, 0}, {"Ei", 60, 0},
};

/* The suffix s, or an exponent "e3", "E-2". */
static bool quantity_suffix_parse(struct slice s, struct quantity_suffix *out)
{
    for (size_t i = 0; i < COUNT_OF(quantity_suffixes); i++)
        if (slice_is(s, quantity_suffixes[i].text)) {
            *out = quantity_suffixes[i];
            return true;
        }
    if (s.n < 2 || ascii_lower(s.p[0]) != 'e')
        return false;
    bool minus = s.p[1] == '-';
    size_t sign = minus || s.p[1] == '+' ? 1 : 0;
    uint64_t e;
    if (slice_u64(slice_of(s.p + 1 + sign, s.n - 1 - sign), 18, &e) != OK)
        return false;
    *out = (struct quantity_suffix){"e", 0, minus ? -(int)e : (int)e};
    return true;
}

/* mantissa * 2^binary * 10^decimal, rounded up; ERR_LIMIT above max. */
static enum err quantity_scale(uint64_t mantissa, int binary, int decimal, uint64_t max, uint64_t *out)
{
    unsigned __int128 v = mantissa;
    v <<= binary; /* at most 60 + 60 bits */
    for (; decimal > 0 && v; decimal--) {
        v *= 10;
        if (v > (unsigned __int128)UINT64_MAX << 60)
            return ERR_LIMIT;
    }
    for (; decimal < 0 && v; decimal++)
        v = (v + 9) / 10; /* rounding up step by step gives what rounding up once would */
    if (v > max)
        return ERR_LIMIT;
    *out = (uint64_t)v;
    return OK;
}

enum err value_quantity(struct slice s, uint32_t scale_digits, uint64_t max, uint64_t *out)
{
    uint64_t mantissa = 0;
    size_t i = s.n && s.p[0] == '+' ? 1 : 0, digits = 0, significant = 0;
    int decimal = (int)scale_digits;
    bool point = false;
    for (; i < s.n && (is_digit(s.p[i]) || (s.p[i] == '.' && !point)); i++) {
        if (s.p[i] == '.') {
            point = true;
            continue;
        }
        digits++;
        if (significant || s.p[i] != '0')
            significant++;
        if (significant > QUANTITY_DIGITS_MAX)
            return ERR_LIMIT;
        mantissa = mantissa * 10 + (uint64_t)(s.p[i] - '0');
        if (point && --decimal < -64)
            return ERR_LIMIT;
    }
    struct quantity_suffix suffix;
    if (!digits || !quantity_suffix_parse(slice_of(s.p + i, s.n - i), &suffix))
        return ERR_SYNTAX;
    return quantity_scale(mantissa, suffix.binary, decimal + suffix.decimal, max, out);
}

/* ---- durations ---------------------------------------------------------------------------------------------------- */

#define DURATION_PARTS_MAX 4
#define DURATION_DIGITS_MAX 5
#define DURATION_MS_MAX (1000ull * 3600 * 1000) /* 1,000 hours */

/* The unit at the start of s in milliseconds, and its length; 0 when there is none. */
static uint64_t duration_unit(struct slice s, size_t *n)
{
    *n = s.n >= 2 && s.p[0] == 'm' && s.p[1] == 's' ? 2 : 1;
    if (*n == 2)
        return 1;
    char c = s.n ? s.p[0] : '\0';
    return c == 'h' ? 3600000 : c == 'm' ? 60000 : c == 's' ? 1000 : 0;
}

/* ([0-9]{1,5}(h|m|s|ms)){1,4} */
enum err value_duration_ms(struct slice s, uint32_t *out)
{
    uint64_t total = 0;
    size_t at = 0;
    for (int parts = 0; at < s.n || !parts; parts++) {
        uint64_t v = 0;
        size_t digits = 0, unit_n;
        for (; at < s.n && is_digit(s.p[at]) && digits <= DURATION_DIGITS_MAX; at++, digits++)
            v = v * 10 + (uint64_t)(s.p[at] - '0');
        uint64_t unit = duration_unit(slice_of(s.p + at, s.n - at), &unit_n);
        if (!digits || digits > DURATION_DIGITS_MAX || !unit || parts == DURATION_PARTS_MAX)
            return ERR_SYNTAX;
        at += unit_n;
        total += v * unit;
    }
    if (total > DURATION_MS_MAX)
        return ERR_LIMIT;
    *out = (uint32_t)total;
    return OK;
}

/* The unit at the start of s in nanoseconds, and its length; 0 when there is none. Go's "\xc2\xb5s" is taken too. */
static uint64_t go_unit(struct slice s, size_t *n)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } units[] = {{"ns", 1}, {"us", 1000}, {"\xc2\xb5s", 1000}, {"ms", 1000000}, {"s", 1000000000}, {"m", 60000000000}, {"h", 3600000000000}};
    for (size_t i = 0; i < COUNT_OF(units); i++)
        if (slice_starts(s, slice_cstr(units[i].text))) {
            *n = strlen(units[i].text);
            return units[i].ns;
        }
    return 0;
}

#define GO_DIGITS_MAX 9 /* before and after the point: 10^9 h * 10^9 fits no counter that matters, and is refused */

/* digits[.digits]unit, once or more, or "0" (time.ParseDuration). Rounded up to a millisecond, so that no timeout becomes none. */
enum err value_go_duration_ms(struct slice s, uint32_t *out)
{
    unsigned __int128 total = 0; /* in 10^-9 ns */
    size_t at = 0, unit_n = 0;
    if (slice_is(s, "0"))
        s = SLICE("0s");
    do {
        uint64_t v = 0, scale = 1000000000;
        size_t digits = 0, fraction = 0;
        for (; at < s.n && is_digit(s.p[at]) && digits <= GO_DIGITS_MAX; at++, digits++)
            v = v * 10 + (uint64_t)(s.p[at] - '0');
        if (at < s.n && s.p[at] == '.')
            for (at++; at < s.n && is_digit(s.p[at]) && fraction < GO_DIGITS_MAX; at++, fraction++) {
                v = v * 10 + (uint64_t)(s.p[at] - '0');
                scale /= 10;
            }
        uint64_t unit = go_unit(slice_of(s.p + at, s.n - at), &unit_n);
        if (!(digits + fraction) || digits > GO_DIGITS_MAX || !unit)
            return ERR_SYNTAX;
        at += unit_n;
        total += (unsigned __int128)v * scale * unit;
        if (total > (unsigned __int128)DURATION_MS_MAX * 1000000 * 1000000000)
            return ERR_LIMIT;
    } while (at < s.n);
    const uint64_t ms = 1000000000000000u;
    *out = (uint32_t)((total + ms - 1) / ms);
    return OK;
}

/* ---- base64 ------------------------------------------------------------------------------------------------------- */

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

enum err value_base64(struct slice s, struct buf *out)
{
    uint32_t group = 0;
    size_t digits = 0, padding = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '\n' || c == '\r' || c == ' ' || c == '\t')
            continue;
        int v = base64_digit(c);
        if (c == '=' ? digits % 4 < 2 : v < 0 || padding)
            return ERR_SYNTAX;
        padding += c == '=';
        group = group << 6 | (uint32_t)(c == '=' ? 0 : v);
        if (++digits % 4)
            continue;
        const char bytes[3] = {(char)(group >> 16), (char)(group >> 8), (char)group};
        if ((padding == 1 && bytes[2]) || (padding == 2 && (bytes[1] || bytes[2])))
            return ERR_SYNTAX; /* bits that the padding says are not there */
        buf_add(out, bytes, 3 - padding);
        group = 0;
        if (padding)
            digits = SIZE_MAX / 8 * 4; /* a multiple of 4 that a further digit turns into an error */
    }
    return digits % 4 || padding > 2 ? ERR_SYNTAX : OK;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

bool value_is_label(struct slice s)
{
    if (!s.n || s.n > 63 || s.p[0] == '-' || s.p[s.n - 1] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '-')
            return false;
    return true;
}

bool value_is_label1035(struct slice s) { return value_is_label(s) && is_lower(s.p[0]); }

/* Kubernetes limits the whole to 253, not each part to 63. */
bool value_is_subdomain(struct slice s)
{
    if (!s.n || s.n > 253)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool edge = i == 0 || i + 1 == s.n || s.p[i - 1] == '.' || s.p[i + 1] == '.';
        if (is_lower(s.p[i]) || is_digit(s.p[i]))
            continue;
        if (edge || (s.p[i] != '-' && s.p[i] != '.'))
            return false;
    }
    return true;
}

static bool is_ip4(struct slice s)
{
    struct addr a;
    return addr_parse(s, 0, &a) == OK;
}

bool value_is_hostname(struct slice s, bool wildcard)
{
    if (wildcard && slice_starts(s, SLICE("*.")))
        return value_is_subdomain(slice_of(s.p + 2, s.n - 2));
    return value_is_subdomain(s) && !is_ip4(s);
}

bool value_is_port_name(struct slice s)
{
    bool letter = false;
    if (!value_is_label(s) || s.n > 15)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        letter |= is_lower(s.p[i]);
        if (s.p[i] == '-' && s.p[i - 1] == '-')
            return false;
    }
    return letter;
}

/* Letters, digits, '-', '_' and '.', the ends letters or digits; at most 63. */
static bool is_qualified(struct slice s)
{
    if (!s.n || s.n > 63 || !is_alnum(s.p[0]) || !is_alnum(s.p[s.n - 1]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
            return false;
    return true;
}

bool value_is_label_key(struct slice s)
{
    struct slice name;
    struct slice prefix = slice_cut(s, '/', &name);
    if (slice_find(s, '/') < 0)
        return is_qualified(s);
    return value_is_subdomain(prefix) && is_qualified(name);
}

bool value_is_label_value(struct slice s) { return !s.n || is_qualified(s); }

bool value_is_config_key(struct slice s)
{
    if (!s.n || s.n > 253 || slice_is(s, ".") || slice_starts(s, SLICE("..")))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
            return false;
    return true;
}

bool value_is_env_name(struct slice s)
{
    if (!s.n || is_digit(s.p[0]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
            return false;
    return true;
}

/* ---- paths -------------------------------------------------------------------------------------------------------- */

static bool is_hex(char c) { return is_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f'); }

/* pchar of RFC 3986 section 3.3, '/', and what extra lists. */
static bool is_path_text(struct slice s, const char *extra)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%' && i + 2 < s.n && is_hex(s.p[i + 1]) && is_hex(s.p[i + 2]))
            i += 2;
        else if (!c || c == '%' || (!is_alnum(c) && !strchr("/-._~!$&'()*+,;=:@", c) && !strchr(extra, c)))
            return false;
    }
    return true;
}

bool value_is_url_path(struct slice s)
{
    if (!s.n || s.p[0] != '/' || s.n > 1024 || !is_path_text(s, ""))
        return false;
    struct slice rest = slice_of(s.p + 1, s.n - 1);
    for (bool more = rest.n > 0; more;) {
        more = slice_find(rest, '/') >= 0;
        struct slice e = slice_cut(rest, '/', &rest);
        if ((!e.n && (more || rest.n)) || slice_is(e, ".") || slice_is(e, ".."))
            return false;
        for (size_t i = 0; i + 2 < e.n; i++)
            if (e.p[i] == '%' && e.p[i + 1] == '2' && ascii_lower(e.p[i + 2]) == 'f')
                return false; /* an escaped slash: no peer agrees with another on what it means */
    }
    return true;
}

bool value_is_path_part(struct slice s) { return !s.n || (s.p[0] == '/' && s.n <= 1024 && is_path_text(s, "")); }
bool value_is_target(struct slice s) { return s.n && s.p[0] == '/' && s.n <= 4096 && is_path_text(s, "?"); }

/* ---- Istio's names --------------------------------------------------------------------------------------------------- */

bool value_is_host_pattern(struct slice s)
{
    struct addr a;
    return slice_is(s, "*") || value_is_hostname(s, true) || (addr_parse(s, 0, &a) == OK && a.family != ADDR_UNIX);
}

bool value_is_gateway_host(struct slice s)
{
    struct slice host;
    if (slice_find(s, '/') < 0)
        return value_is_host_pattern(s);
    struct slice ns = slice_cut(s, '/', &host);
    return (slice_is(ns, ".") || slice_is(ns, "*") || value_is_label(ns)) && value_is_host_pattern(host);
}

bool value_is_gateway_ref(struct slice s)
{
    struct slice name;
    if (slice_find(s, '/') < 0)
        return value_is_subdomain(s);
    struct slice ns = slice_cut(s, '/', &name);
    return value_is_label(ns) && value_is_subdomain(name);
}

bool value_is_origin(struct slice s)
{
    ptrdiff_t colon = slice_find(s, ':');
    if (slice_is(s, "*"))
        return true;
    if (colon <= 0 || s.n > 253 || !slice_starts(slice_of(s.p + colon, s.n - (size_t)colon), SLICE("://")) || ascii_lower(s.p[0]) < 'a' || ascii_lower(s.p[0]) > 'z')
        return false;
    for (ptrdiff_t i = 0; i < colon; i++)
        if (!is_alnum(s.p[i]) && !strchr("+-.", s.p[i]))
            return false;
    struct slice host = slice_of(s.p + colon + 3, s.n - (size_t)colon - 3), port;
    bool has_port = slice_find(host, ':') >= 0;
    host = slice_cut(host, ':', &port);
    uint64_t number;
    return value_is_host_pattern(host) && (!has_port || (slice_u64(port, 65535, &number) == OK && number));
}

bool value_is_scope(struct slice s) { return slice_is(s, ".") || slice_is(s, "*") || slice_is(s, "~") || value_is_label(s); }
