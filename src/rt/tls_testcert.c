/* tls_testcert.c - makes keys and certificates for tests. What OpenSSL refuses here is a fault of the test: MUST. */
#include "tls_testcert.h"

#include "tls_int.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static void add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    MUST(ext);
    MUST(X509_add_ext(x, ext, -1) == 1);
    X509_EXTENSION_free(ext);
}

static void set_times(X509 *x, const struct testcert_conf *conf)
{
    int64_t now_s = (int64_t)(wall_ns() / 1000000000);
    bool given = conf->from_s || conf->to_s;
    MUST(ASN1_TIME_set(X509_getm_notBefore(x), now_s + (given ? conf->from_s : -3600)));
    MUST(ASN1_TIME_set(X509_getm_notAfter(x), now_s + (given ? conf->to_s : 3650LL * 86400)));
}

static void set_name(X509_NAME *name, const char *text)
{
    MUST(X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"Weir Tests", -1, -1, 0) == 1);
    MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)text, -1, -1, 0) == 1);
}

static char *bio_take(BIO *b)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);
    char *text = mem_strndup(MEM_MISC, p, (size_t)n);
    BIO_free(b);
    return text;
}

static void write_pems(struct testcert *c, const struct testcert *issuer)
{
    BIO *b = BIO_new(BIO_s_mem());
    MUST(PEM_write_bio_X509(b, c->x) == 1);
    c->cert_pem = bio_take(b);
    b = BIO_new(BIO_s_mem());
    MUST(PEM_write_bio_PrivateKey(b, c->key, NULL, NULL, 0, NULL, NULL) == 1);
    c->key_pem = bio_take(b);
    struct buf chain = {0};
    buf_adds(&chain, c->cert_pem);
    bool is_root = issuer && X509_check_issued(issuer->x, issuer->x) == X509_V_OK;
    if (issuer && !is_root) buf_adds(&chain, issuer->chain_pem);
    c->chain_pem = buf_take(&chain, NULL);
}

struct testcert *testcert_new(const struct testcert *issuer, const struct testcert_conf *conf)
{
    struct testcert *c = mem_new(MEM_MISC, sizeof *c);
    EVP_PKEY *key = conf->rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *x = X509_new();
    MUST(key && x);
    c->x = x;
    c->key = key;
    uint64_t serial;
    random_bytes(&serial, sizeof serial);
    MUST(X509_set_version(x, X509_VERSION_3) == 1);
    MUST(ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) == 1);
    set_times(x, conf);
    set_name(X509_get_subject_name(x), conf->name);
    MUST(X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer->x : x)) == 1);
    MUST(X509_set_pubkey(x, key) == 1);
    add_ext(x, issuer ? issuer->x : x, NID_basic_constraints, conf->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add_ext(x, issuer ? issuer->x : x, NID_key_usage, conf->ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature,keyEncipherment");
    add_ext(x, x, NID_subject_key_identifier, "hash");
    if (issuer) add_ext(x, issuer->x, NID_authority_key_identifier, "keyid:always");
    if (conf->sans) add_ext(x, x, NID_subject_alt_name, conf->sans);
    MUST(X509_sign(x, issuer ? issuer->key : key, EVP_sha256()) > 0);
    write_pems(c, issuer);
    return c;
}

void testcert_free(struct testcert *c)
{
    if (!c) return;
    X509_free(c->x);
    EVP_PKEY_free(c->key);
    mem_free(c->cert_pem);
    mem_free(c->chain_pem);
    mem_free(c->key_pem);
    mem_free(c);
}

void testcert_ticket(struct stream *s) { MUST(s->tls && SSL_new_session_ticket(s->tls->ssl) == 1); }
