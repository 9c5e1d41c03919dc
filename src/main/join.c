/* join.c - values of the options that make a node one of several. */
#include "join.h"

#define HOST_MAX 253

bool join_endpoint_parse(struct slice text, bool *tls, struct slice *host, uint16_t *port)
{
    static const char *const plain[] = {"etcd://", "http://"}, *const secure[] = {"etcds://", "https://"};
    uint64_t n;
    *tls = false;
    for (size_t i = 0; i < 2; i++) {
        struct slice p = slice_cstr(plain[i]), s = slice_cstr(secure[i]);
        if (slice_starts(text, p))
            text = slice_of(text.p + p.n, text.n - p.n);
        else if (slice_starts(text, s)) {
            text = slice_of(text.p + s.n, text.n - s.n);
            *tls = true;
        }
    }
    size_t colon = text.n;
    while (colon && text.p[colon - 1] != ':')
        colon--;
    if (colon < 2 || slice_u64(slice_of(text.p + colon, text.n - colon), 65535, &n) != OK || !n)
        return false;
    *host = slice_of(text.p, colon - 1);
    *port = (uint16_t)n;
    if (host->n > 2 && host->p[0] == '[' && host->p[host->n - 1] == ']')
        *host = slice_of(host->p + 1, host->n - 2);
    return host->n && host->n <= HOST_MAX;
}

static bool label_char(char c) { return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || (c >= '0' && c <= '9'); }

/* Letters, digits and those of more, beginning and ending with a letter or digit. */
static bool label_part(struct slice s, size_t max, const char *more)
{
    for (size_t i = 0; i < s.n; i++)
        if (!label_char(s.p[i]) && (i == 0 || i + 1 == s.n || !strchr(more, s.p[i])))
            return false;
    return s.n <= max;
}

bool join_label_good(struct slice key, struct slice value)
{
    struct slice name, prefix = slice_cut(key, '/', &name);
    if (slice_find(key, '/') < 0)
        name = prefix;
    else if (!prefix.n || !label_part(prefix, HOST_MAX, "-."))
        return false;
    return name.n && label_part(name, 63, "-_.") && label_part(value, 63, "-_.");
}
