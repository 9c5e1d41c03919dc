/* tls_hello_fuzz.c - ClientHellos from any bytes: a prefix never contradicts the whole, names are what they promise to be, and
 * the same message cut into other records reads the same. */
#include "tls_hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct verdict {
    enum hello_result result;
    enum hello_error error;
};

static struct verdict parse(const char *p, size_t n, struct tls_hello *h)
{
    struct verdict v;
    v.result = tls_hello_parse(p, n, h, &v.error);
    MUST((v.result == HELLO_BAD) == (v.error != HELLO_OK));
    MUST(v.result != HELLO_MORE || n < HELLO_BYTES_MAX);
    return v;
}

static void check_cut(const char *p, size_t cut, struct verdict whole, size_t used)
{
    static struct tls_hello part;
    char *block = mem_grow(MEM_MISC, NULL, cut ? cut : 1); /* exact, so that AddressSanitizer sees a read past the cut */
    if (cut) memcpy(block, p, cut);
    struct verdict v = parse(block, cut, &part);
    mem_free(block);
    if (v.result == HELLO_MORE) MUST(whole.result != HELLO_DONE || cut < used);
    else MUST(v.result == whole.result && v.error == whole.error);
}

static void check_names(const struct tls_hello *h)
{
    MUST(h->host_n <= HELLO_HOST_MAX && h->alpn_n <= HELLO_ALPN_BYTES_MAX);
    for (size_t i = 0; i < h->host_n; i++) MUST(h->host[i] > ' ' && h->host[i] < 127 && h->host[i] == ascii_lower(h->host[i]));
    size_t at = 0, names = 0;
    for (struct slice name; tls_hello_alpn(h, &at, &name); names++) MUST(name.n > 0 && at <= h->alpn_n);
    MUST(at == h->alpn_n && (names > 0) == (h->alpn_n > 0));
}

/* The message of the records p[0..n) once more, a few bytes in each record, unless their heads then make it too long. */
static void check_recut(const char *p, size_t n, const struct tls_hello *h)
{
    static struct tls_hello again;
    struct buf message = {0}, out = {0};
    for (size_t at = 0; at < n;) {
        size_t record = (size_t)(uint8_t)p[at + 3] << 8 | (uint8_t)p[at + 4];
        buf_add(&message, p + at + 5, MIN(record, n - at - 5));
        at += 5 + record;
    }
    for (size_t at = 0, take; at < message.n; at += take) {
        take = MIN(message.n - at, at % 7 + 1);
        buf_add(&out, "\x16\3\3\0", 4);
        buf_addc(&out, (char)take);
        buf_add(&out, message.p + at, take);
    }
    struct verdict v = parse(out.p, out.n, &again);
    if (out.n > HELLO_BYTES_MAX) {
        MUST(v.result == HELLO_BAD && v.error == HELLO_E_SIZE);
    } else {
        MUST(v.result == HELLO_DONE && again.bytes == out.n && again.host_n == h->host_n && again.alpn_n == h->alpn_n);
        MUST(memcmp(again.host, h->host, h->host_n) == 0 && memcmp(again.alpn, h->alpn, h->alpn_n) == 0);
    }
    buf_free(&message);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tls_hello h;
    const char *p = (const char *)data;
    struct verdict v = parse(p, n, &h);
    for (size_t cut = 0; cut < n; cut += n / 64 + 1) check_cut(p, cut, v, h.bytes);
    if (v.result != HELLO_DONE) return 0;
    MUST(h.bytes > 0 && h.bytes <= n && h.bytes <= HELLO_BYTES_MAX);
    check_names(&h);
    check_recut(p, h.bytes, &h);
    return 0;
}
