/* identity.c - who a client with a certificate is, told to services: X-Forwarded-Client-Cert, as Envoy writes it.
 *
 *     By=<a URI name of our own>;Hash=<SHA-256 of the certificate, hexadecimal>;Subject="<RFC 2253>";URI=<...>;DNS=<...>
 *
 * Only what was checked during the handshake is told: a listener that asks for certificates lets in no other. Made once per connection. The
 * certificate itself is left out: it would be the longest field of every request. What a client says in that field is never passed on
 * through a Gateway.
 */
#include "proxy_int.h"

#define IDENTITY_BYTES_MAX 2048 /* names that would make it longer are left out */

/* A name that needs no quotes there: visible ASCII without the separators. */
static bool is_plain(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 0x7f || memchr(",;=\"\\", s.p[i], 5))
            return false;
    return s.n > 0;
}

static void subject_put(struct buf *out, struct slice subject)
{
    buf_adds(out, ";Subject=\"");
    for (size_t i = 0; i < subject.n; i++) {
        if (subject.p[i] < ' ' || subject.p[i] == 0x7f)
            continue;
        if (subject.p[i] == '"' || subject.p[i] == '\\')
            buf_addc(out, '\\');
        buf_addc(out, subject.p[i]);
    }
    buf_addc(out, '"');
}

static void names_put(struct buf *out, const struct tls_cert_info *info, enum tls_san_kind kind, const char *label)
{
    for (size_t i = 0; i < info->sans_n; i++) {
        struct slice text = info->sans[i].text;
        if (info->sans[i].kind != kind || !is_plain(text) || out->n + strlen(label) + text.n > IDENTITY_BYTES_MAX)
            continue;
        buf_adds(out, label);
        buf_add_slice(out, text);
    }
}

/* The Gateway's certificate, whose URI names say who has checked the client's; most have none. */
static void own_put(struct buf *out, struct down *d, struct arena *a)
{
    struct tls_cert_info own;
    if (stream_tls_own(http_srv_stream(&d->srv), a, &own) == OK)
        for (size_t i = 0; i < own.sans_n && !out->n; i++)
            if (own.sans[i].kind == TLS_SAN_URI && is_plain(own.sans[i].text) && own.sans[i].text.n < IDENTITY_BYTES_MAX / 2)
                buf_printf(out, "By=%.*s;", (int)own.sans[i].text.n, own.sans[i].text.p);
}

void identity_take(struct down *d)
{
    struct arena a;
    struct tls_cert_info info;
    arena_init(&a, MEM_CONN, 4096);
    if (stream_tls_peer(http_srv_stream(&d->srv), &a, &info) == OK) {
        struct buf b = {0};
        own_put(&b, d, &a);
        buf_adds(&b, "Hash=");
        buf_add_slice(&b, info.sha256);
        if (b.n + info.subject.n * 2 < IDENTITY_BYTES_MAX)
            subject_put(&b, info.subject);
        names_put(&b, &info, TLS_SAN_URI, ";URI=");
        names_put(&b, &info, TLS_SAN_DNS, ";DNS=");
        d->identity = mem_strndup(MEM_CONN, b.p, b.n);
        buf_free(&b);
    }
    arena_fini(&a);
}
