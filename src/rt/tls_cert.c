/* tls_cert.c - certificates: reading them from PEM, the names in them, what is told about them, tables of server names.
 *
 * A name in a certificate is a subjectAltName; the common name of the subject is not looked at (RFC 9525 section 2).
 * Nothing here does I/O or knows of connections.
 */
#include "tls_int.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

/* ---- reading ---- */

/* OpenSSL would ask for the passphrase on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *ctx)
{
    *(bool *)ctx = true;
    return -1;
}

static void add_openssl_reason(struct buf *why)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;
    buf_adds(why, reason ? reason : "malformed");
    ERR_clear_error();
}

static BIO *bio_of(struct slice text)
{
    if (text.n > INT32_MAX) return NULL;
    return BIO_new_mem_buf(text.n ? text.p : "", (int)text.n);
}

enum err tls_pem_certs(struct slice pem, STACK_OF(X509) *out, struct buf *why)
{
    BIO *b = bio_of(pem);
    if (!b) return ERR_NOMEM;
    ERR_clear_error();
    for (X509 *x; (x = PEM_read_bio_X509(b, NULL, NULL, NULL));)
        if (!sk_X509_push(out, x)) {
            X509_free(x);
            BIO_free(b);
            return ERR_NOMEM;
        }
    BIO_free(b);
    /* the reader ends with "no start line" behind the last one; anything else is a fault in the text */
    unsigned long e = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    if (at_end && sk_X509_num(out) > 0) {
        ERR_clear_error();
        return OK;
    }
    if (at_end) {
        buf_adds(why, pem.n ? "no certificate in PEM form is in it" : "it is empty");
        ERR_clear_error();
    } else {
        add_openssl_reason(why);
    }
    return ERR_INVALID;
}

static enum err key_read(struct tls_cert *c, struct slice pem, struct buf *why)
{
    BIO *b = bio_of(pem);
    if (!b) return ERR_NOMEM;
    bool asked = false;
    ERR_clear_error();
    c->key = PEM_read_bio_PrivateKey(b, NULL, no_passphrase, &asked);
    BIO_free(b);
    if (c->key) return OK;
    buf_adds(why, "its private key cannot be read: ");
    if (asked) buf_adds(why, "it is encrypted");
    else if (pem.n == 0) buf_adds(why, "it is empty");
    else add_openssl_reason(why);
    ERR_clear_error();
    return ERR_INVALID;
}

static int64_t time_s(const ASN1_TIME *t)
{
    int day = 0, sec = 0;
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    bool good = epoch && t && ASN1_TIME_diff(&day, &sec, epoch, t) == 1;
    ASN1_TIME_free(epoch);
    return good ? (int64_t)day * 86400 + sec : 0;
}

int64_t tls_cert_expires_s(const X509 *x) { return time_s(X509_get0_notAfter(x)); }

static enum err time_check(const X509 *x, struct buf *why)
{
    int64_t now_s = (int64_t)(wall_ns() / 1000000000);
    if (tls_cert_expires_s(x) < now_s) buf_adds(why, "it has expired");
    else if (time_s(X509_get0_notBefore(x)) > now_s) buf_adds(why, "it is not valid yet");
    else return OK;
    return ERR_INVALID;
}

static enum err cert_fill(struct tls_cert *c, const struct tls_cert_conf *conf, bool any_time, struct buf *why)
{
    c->chain = sk_X509_new_null();
    if (!c->chain) return ERR_NOMEM;
    enum err e = tls_pem_certs(conf->chain_pem, c->chain, why);
    if (e) return e;
    c->leaf = sk_X509_shift(c->chain);
    e = key_read(c, conf->key_pem, why);
    if (e) return e;
    if (X509_check_private_key(c->leaf, c->key) != 1) {
        ERR_clear_error();
        buf_adds(why, "its private key belongs to another certificate");
        return ERR_INVALID;
    }
    if (!any_time) e = time_check(c->leaf, why);
    if (!e && conf->ocsp.n) c->ocsp = slice_of(mem_strndup(MEM_TLS, conf->ocsp.p, conf->ocsp.n), conf->ocsp.n);
    return e;
}

enum err tls_cert_read(struct tls_cert *c, const struct tls_cert_conf *conf, bool any_time, struct buf *why)
{
    struct buf what = {0};
    enum err e = cert_fill(c, conf, any_time, &what);
    if (e) {
        buf_adds(why, "the certificate");
        if (c->leaf) {
            buf_adds(why, " for ");
            tls_cert_names(c->leaf, why);
        }
        buf_printf(why, " cannot be used: %s", what.n ? what.p : err_text(e));
    }
    buf_free(&what);
    return e;
}

void tls_cert_fini(struct tls_cert *c)
{
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    EVP_PKEY_free(c->key);
    mem_free((char *)(uintptr_t)c->ocsp.p);
    *c = (struct tls_cert){0};
}

/* ---- subjectAltNames ---- */

static struct slice asn1_slice(const ASN1_STRING *s)
{
    return slice_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static bool addr_of_bytes(struct slice b, struct addr *out)
{
    *out = (struct addr){.family = b.n == 4 ? ADDR_IP4 : ADDR_IP6};
    if (b.n != 4 && b.n != 16) return false;
    memcpy(out->ip, b.p, b.n);
    return true;
}

/* What g says, borrowed from it; of an address the bytes. False for kinds that nobody asks for. */
static bool san_of(const GENERAL_NAME *g, struct tls_san *out)
{
    int type;
    const ASN1_STRING *s = GENERAL_NAME_get0_value(g, &type);
    switch (type) {
    case GEN_DNS: out->kind = TLS_SAN_DNS; break;
    case GEN_URI: out->kind = TLS_SAN_URI; break;
    case GEN_EMAIL: out->kind = TLS_SAN_EMAIL; break;
    case GEN_IPADD: out->kind = TLS_SAN_IP; break;
    default: return false;
    }
    out->text = asn1_slice(s);
    return out->text.n > 0;
}

static GENERAL_NAMES *sans_get(const X509 *x)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    if (!names) ERR_clear_error();
    return names;
}

struct tls_san *tls_cert_sans(const X509 *x, struct arena *a, size_t *n)
{
    GENERAL_NAMES *names = sans_get(x);
    int count = names ? sk_GENERAL_NAME_num(names) : 0;
    struct tls_san *out = arena_alloc(a, sizeof *out * (size_t)MAX(count, 1));
    *n = 0;
    for (int i = 0; i < count; i++) {
        struct tls_san san;
        if (!san_of(sk_GENERAL_NAME_value(names, i), &san)) continue;
        struct addr ip;
        char text[ADDR_TEXT_MAX];
        if (san.kind == TLS_SAN_IP && !addr_of_bytes(san.text, &ip)) continue;
        if (san.kind == TLS_SAN_IP) san.text = slice_of(text, addr_format_ip(&ip, text));
        san.text = arena_slice(a, san.text);
        out[(*n)++] = san;
    }
    GENERAL_NAMES_free(names);
    return out;
}

static bool san_matches(const struct tls_san *have, const struct tls_san *want)
{
    if (want->kind != TLS_SAN_ANY && want->kind != have->kind) return false;
    if (have->kind == TLS_SAN_IP) {
        struct addr ip, wanted;
        return addr_of_bytes(have->text, &ip) && addr_parse(want->text, 0, &wanted) == OK && addr_eq(&ip, &wanted);
    }
    return have->kind == TLS_SAN_DNS ? slice_ieq(have->text, want->text) : slice_eq(have->text, want->text);
}

bool tls_cert_has_san(const X509 *x, const struct tls_san *want, size_t want_n)
{
    GENERAL_NAMES *names = sans_get(x);
    bool found = false;
    for (int i = 0; names && !found && i < sk_GENERAL_NAME_num(names); i++) {
        struct tls_san have;
        if (!san_of(sk_GENERAL_NAME_value(names, i), &have)) continue;
        for (size_t w = 0; w < want_n; w++) found |= san_matches(&have, &want[w]);
    }
    GENERAL_NAMES_free(names);
    return found;
}

bool tls_cert_is_for(X509 *x, struct slice name)
{
    struct addr ip;
    if (addr_parse(name, 0, &ip) == OK && ip.family != ADDR_UNIX)
        return X509_check_ip(x, ip.ip, ip.family == ADDR_IP4 ? 4 : 16, 0) == 1;
    return name.n && X509_check_host(x, name.p, name.n, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
}

static enum err store_of(STACK_OF(X509) *cas, X509_STORE **out)
{
    X509_STORE *store = *out = X509_STORE_new();
    bool ok = store && X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1; /* as in handshakes */
    for (int i = 0; ok && i < sk_X509_num(cas); i++) ok = X509_STORE_add_cert(store, sk_X509_value(cas, i)) == 1;
    return ok ? OK : ERR_NOMEM;
}

/* OK: it is. */
static enum err chain_verify(STACK_OF(X509) *chain, STACK_OF(X509) *cas, struct buf *why)
{
    X509_STORE *store = NULL;
    X509_STORE_CTX *v = X509_STORE_CTX_new();
    enum err e = v ? store_of(cas, &store) : ERR_NOMEM;
    if (e == OK && X509_STORE_CTX_init(v, store, sk_X509_value(chain, 0), chain) != 1) e = ERR_NOMEM;
    if (e == OK) {
        X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(v), (time_t)(wall_ns() / 1000000000));
        if (X509_verify_cert(v) != 1) {
            buf_printf(why, "the certificate is not of that CA: %s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(v)));
            e = ERR_INVALID;
        }
    }
    X509_STORE_CTX_free(v);
    X509_STORE_free(store);
    ERR_clear_error();
    return e;
}

enum err tls_cert_belongs(struct slice chain_pem, struct slice ca_pem, struct slice name, struct buf *why)
{
    STACK_OF(X509) *chain = sk_X509_new_null(), *cas = sk_X509_new_null();
    enum err e = chain && cas ? OK : ERR_NOMEM;
    if (e == OK) e = tls_pem_certs(chain_pem, chain, why);
    if (e == OK) e = tls_pem_certs(ca_pem, cas, why);
    if (e == OK) e = chain_verify(chain, cas, why);
    if (e == OK && !tls_cert_is_for(sk_X509_value(chain, 0), name)) {
        struct buf names = {0};
        tls_cert_names(sk_X509_value(chain, 0), &names);
        buf_printf(why, "the certificate is for %s, not for " SLICE_FMT, names.n ? names.p : "no name", SLICE_ARG(name));
        buf_free(&names);
        e = ERR_INVALID;
    }
    sk_X509_pop_free(chain, X509_free);
    sk_X509_pop_free(cas, X509_free);
    return e;
}

void tls_cert_names(const X509 *x, struct buf *out)
{
    struct arena a;
    arena_init(&a, MEM_TLS, 1024);
    size_t n;
    struct tls_san *sans = tls_cert_sans(x, &a, &n);
    for (size_t i = 0; i < MIN(n, 4); i++) buf_printf(out, "%s" SLICE_FMT, i ? ", " : "", SLICE_ARG(sans[i].text));
    if (n > 4) buf_printf(out, " and %zu more", n - 4);
    if (n == 0) buf_adds(out, "nobody (it has no subjectAltName)");
    arena_fini(&a);
    text_clean(out->p);
}

/* ---- what is told ---- */

static struct slice bio_text(BIO *b, struct arena *a)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);
    return arena_slice(a, slice_of(p, n > 0 ? (size_t)n : 0));
}

static struct slice name_text(const X509_NAME *name, struct arena *a)
{
    BIO *b = BIO_new(BIO_s_mem());
    if (!b) return (struct slice){0};
    X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253);
    struct slice text = bio_text(b, a);
    BIO_free(b);
    return text;
}

/* RFC 3986 section 2.1: everything but unreserved characters. */
static struct slice percent_encode(struct slice text, struct arena *a)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(a, 3 * text.n + 1), *to = out;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_' || c == '~';
        if (plain) {
            *to++ = (char)c;
            continue;
        }
        *to++ = '%';
        *to++ = hex[c >> 4];
        *to++ = hex[c & 15];
    }
    *to = 0;
    return slice_of(out, (size_t)(to - out));
}

static struct slice pem_text(X509 *x, struct arena *a)
{
    BIO *b = BIO_new(BIO_s_mem());
    if (!b) return (struct slice){0};
    PEM_write_bio_X509(b, x);
    char *p;
    long n = BIO_get_mem_data(b, &p);
    struct slice text = percent_encode(slice_of(p, n > 0 ? (size_t)n : 0), a);
    BIO_free(b);
    return text;
}

static struct slice digest_text(const X509 *x, struct arena *a)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (X509_digest(x, EVP_sha256(), md, &n) != 1) n = 0;
    char *out = arena_alloc(a, 2 * n + 1);
    for (unsigned i = 0; i < n; i++) {
        out[2 * i] = hex[md[i] >> 4];
        out[2 * i + 1] = hex[md[i] & 15];
    }
    out[2 * n] = 0;
    return slice_of(out, 2 * n);
}

void tls_cert_describe(X509 *x, struct arena *a, struct tls_cert_info *out)
{
    out->subject = name_text(X509_get_subject_name(x), a);
    out->issuer = name_text(X509_get_issuer_name(x), a);
    out->sha256 = digest_text(x, a);
    out->pem_url = pem_text(x, a);
    out->sans = tls_cert_sans(x, a, &out->sans_n);
    out->expires_s = tls_cert_expires_s(x);
}

/* ---- tables of names ---- */

static bool lower_name(struct slice name, char out[TLS_NAME_MAX])
{
    if (name.n == 0 || name.n > TLS_NAME_MAX) return false;
    for (size_t i = 0; i < name.n; i++) out[i] = ascii_lower(name.p[i]);
    return true;
}

bool tls_names_add(struct tls_names *t, struct slice pattern, void *value)
{
    char key[TLS_NAME_MAX];
    bool below = slice_starts(pattern, SLICE("*."));
    struct slice name = below ? slice_of(pattern.p + 2, pattern.n - 2) : pattern;
    if (!lower_name(name, key)) return true; /* no client can send it */
    struct table *table = below ? &t->below : &t->exact;
    if (table_get(table, slice_of(key, name.n))) return false;
    table_put(table, slice_of(key, name.n), value);
    return true;
}

void *tls_names_find(const struct tls_names *t, struct slice name, bool deep)
{
    void *found = table_get(&t->exact, name);
    struct slice rest = name;
    while (!found && slice_find(rest, '.') >= 0) {
        slice_cut(rest, '.', &rest);
        found = table_get(&t->below, rest);
        if (!deep) break;
    }
    return found;
}

void tls_names_fini(struct tls_names *t)
{
    table_fini(&t->exact);
    table_fini(&t->below);
}
