/* tls_testcert.h - certificates made at test time, so that none lie in the tree and none expires. Tests only.
 *
 * For tests of any room: link dep_tls_testcert. Black-box tests make theirs with openssl req. */
#ifndef TLS_TESTCERT_H
#define TLS_TESTCERT_H

#include "rt.h"

struct testcert_conf {
    const char *name;      /* common name of the subject */
    const char *sans;      /* OpenSSL's syntax: "DNS:a.example,URI:spiffe://b/c,IP:127.0.0.1"; NULL: none */
    bool ca;               /* may sign others */
    bool rsa;              /* RSA 2048, slow to make; else ECDSA P-256 */
    int64_t from_s, to_s;  /* validity, relative to now; both 0: from an hour ago for ten years (the simulator's clock is another) */
};
struct testcert {
    char *cert_pem;        /* the certificate alone */
    char *chain_pem;       /* with those of its issuers up to the root, which is left out */
    char *key_pem;
    void *x, *key;         /* OpenSSL's */
};
/* issuer NULL: self-signed. */
struct testcert *testcert_new(const struct testcert *issuer, const struct testcert_conf *conf);
void testcert_free(struct testcert *c);

/* A server's end of TLS 1.3, open: with what is next written there goes one more ticket. */
void testcert_ticket(struct stream *s);

#endif
