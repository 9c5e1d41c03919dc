/* proxy_protocol_fuzz.c - PROXY protocol headers from any bytes: a prefix never contradicts the whole, slices stay inside, and
 * what was read can be written and read again. */
#include "proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct verdict {
    enum pp_result result;
    enum pp_error error;
    size_t used;
};

static struct verdict parse(const char *p, size_t n, struct pp_header *h)
{
    struct verdict v = {0};
    v.result = pp_parse(p, n, h, &v.used, &v.error);
    MUST((v.result == PP_BAD) == (v.error != PP_OK));
    return v;
}

static void check_cut(const char *p, size_t cut, struct verdict whole)
{
    struct pp_header part;
    char *block = mem_grow(MEM_MISC, NULL, cut ? cut : 1); /* exact, so that AddressSanitizer sees a read past the cut */
    if (cut) memcpy(block, p, cut);
    struct verdict v = parse(block, cut, &part);
    mem_free(block);
    if (v.result == PP_MORE) MUST(cut < PP_V2_BYTES_MAX && (whole.result != PP_DONE || cut < whole.used));
    else MUST(v.result == whole.result && v.error == whole.error && v.used == whole.used);
}

static void check_slice(struct slice s, const char *p, size_t n)
{
    MUST(s.n == 0 || (s.p >= p && s.n <= n && (size_t)(s.p - p) <= n - s.n));
}

static void check_again(const struct pp_header *h)
{
    char out[PP_V2_BYTES_MAX];
    struct pp_header again;
    struct pp_header bare = *h; /* what TLVs were there may be more than fits, once they stand in another order */
    bare.alpn = bare.authority = bare.unique_id = (struct slice){0};
    bare.has_ssl = false;
    size_t n = h->version == 1 ? pp_write_v1(h, out) : pp_write_v2(&bare, out, sizeof out);
    MUST(n > 0);
    struct verdict v = parse(out, n, &again);
    MUST(v.result == PP_DONE && v.used == n && again.local == h->local && again.src.family == h->src.family);
    MUST(again.src.port == h->src.port && again.dst.port == h->dst.port && memcmp(again.src.ip, h->src.ip, 16) == 0);
    MUST(memcmp(again.dst.ip, h->dst.ip, 16) == 0 && slice_eq(again.src.path, h->src.path) && slice_eq(again.dst.path, h->dst.path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *p = (const char *)data;
    struct pp_header h;
    struct verdict v = parse(p, n, &h);
    for (size_t cut = 0; cut < n; cut += n / 128 + 1) check_cut(p, cut, v);
    if (v.result != PP_DONE) return 0;
    MUST(v.used <= n && v.used <= (h.version == 1 ? PP_V1_BYTES_MAX : PP_V2_BYTES_MAX));
    const struct slice parts[] = {h.src.path, h.dst.path, h.alpn, h.authority, h.unique_id, h.ssl_version, h.ssl_cn};
    for (size_t i = 0; i < COUNT_OF(parts); i++) check_slice(parts[i], p, v.used);
    check_again(&h);
    return 0;
}
