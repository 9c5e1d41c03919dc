/* tls_int.h - what the TLS files of rt share: contexts, certificates, a connection's and a loop's part. PRIVATE to rt.
 *
 * The only header that knows of OpenSSL's types; everything else reaches TLS through rt.h and the functions of rt_int.h.
 */
#ifndef TLS_INT_H
#define TLS_INT_H

#include "rt_int.h"

#include <openssl/ssl.h>

/* ---- limits ---- */
#define TLS_RECORD_BYTES 16384         /* plaintext in one record, RFC 8446 section 5.1 */
#define TLS_CIPHERTEXT_MAX (16384 + 256 + 5) /* one record on the wire */
#define TLS_IN_BYTES 65536             /* ciphertext read at once */
#define TLS_OUT_BYTES 81920            /* ciphertext collected before it is written: four full records and what comes with them */
#define TLS_HANDSHAKE_BYTES_MAX 98304  /* from the peer, before the handshake is over */
#define TLS_CONTROL_MAX 32             /* answers to the peer's records (key updates) while it reads nothing */
#define TLS_SITE_CERTS 4               /* kinds of key for the same names: RSA, ECDSA, Ed25519, Ed448 */
#define TLS_TICKETS_KEPT 3             /* the current key and those before it */
#define TLS_TICKET_SECONDS 43200       /* a session's life; with client certificates: */
#define TLS_TICKET_SECONDS_AUTH 3600

/* ---- certificates (tls_cert.c) ---- */

struct tls_cert {
    X509 *leaf;
    STACK_OF(X509) *chain;             /* intermediates */
    EVP_PKEY *key;
    struct slice ocsp;                 /* owned; DER */
};
/* Reads and checks one; what is wrong goes to why as a sentence. c is to be finished in any case. */
enum err tls_cert_read(struct tls_cert *c, const struct tls_cert_conf *conf, bool any_time, struct buf *why) WARN_UNUSED;
void tls_cert_fini(struct tls_cert *c);
/* The certificates of a PEM text; ERR_INVALID when there is none, or something else. */
enum err tls_pem_certs(struct slice pem, STACK_OF(X509) *out, struct buf *why) WARN_UNUSED;
int64_t tls_cert_expires_s(const X509 *x);
/* The subjectAltNames of x of the kinds that tls_san knows; texts and array are in a. */
struct tls_san *tls_cert_sans(const X509 *x, struct arena *a, size_t *n);
bool tls_cert_has_san(const X509 *x, const struct tls_san *want, size_t want_n);
bool tls_cert_is_for(X509 *x, struct slice name); /* a DNS name, with the certificate's wildcards (RFC 9525), or an address */
void tls_cert_names(const X509 *x, struct buf *out); /* for messages: "a.example, b.example" */
void tls_cert_describe(X509 *x, struct arena *a, struct tls_cert_info *out);

/* ---- names ---- */

/* Server names to pointers: exact ones, and what stands behind "*.". Keys in lower case. */
struct tls_names {
    struct table exact, below;
};
/* False when the pattern is there already. */
bool tls_names_add(struct tls_names *t, struct slice pattern, void *value);
/* name in lower case. deep: "*.b" stands for any number of labels, the longest pattern first; else for one. */
void *tls_names_find(const struct tls_names *t, struct slice name, bool deep);
void tls_names_fini(struct tls_names *t);

/* ---- contexts (tls_ctx.c) ---- */

/* Certificates with the same names, of different kinds of key: what a server name chooses. */
struct tls_site {
    struct slice names;                /* all subjectAltNames, to find those with the same; owned */
    struct tls_cert *certs[TLS_SITE_CERTS]; /* in the context's array */
    size_t certs_n;
};

struct tls_ctx {
    uint32_t refs;                     /* any thread */
    bool is_server;
    SSL_CTX *ssl;                      /* with the default site's certificates; of hosts: the first one's, to begin with */
    struct tls_cert *certs;
    size_t certs_n;
    struct tls_site *sites;            /* the first is the default */
    size_t sites_n;
    struct tls_names names;            /* to sites; of hosts: to contexts */
    struct tls_ctx **hosts;            /* references; set: this context only chooses one of them */
    size_t hosts_n;
    struct tls_ctx *fallback;          /* of hosts: for names that are nobody's; or NULL */
    struct tls_san *sans;              /* that the peer's certificate must have one of; texts owned */
    size_t sans_n;
    int verify;                        /* SSL_VERIFY_* */
    int min_version, max_version;      /* OpenSSL's; 0: any */
    unsigned char *alpn;               /* as on the wire */
    size_t alpn_n;
    unsigned char sid[TLS_TERMS_BYTES]; /* sessions of another policy are not resumed: a digest of it */
    struct tls_tickets *tickets;       /* NULL: none */
    int64_t expires_s;
};

/* ---- ticket keys (tls_tickets.c) ---- */
int tls_ticket_key(struct tls_tickets *t, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher,
                   EVP_MAC_CTX *mac, int enc); /* as SSL_CTX_set_tlsext_ticket_key_evp_cb(3) wants it */

/* ---- connections (tls_stream.c) ---- */

enum tls_state { TLS_SHAKING, TLS_OPEN, TLS_DEAD /* no more of it; to be told */, TLS_DROPPED /* the stream is plain */ };
struct stream_tls {
    SSL *ssl;                          /* a server's: from the first bytes on */
    struct tls_ctx *ctx;               /* reference; as given */
    struct tls_ctx *chosen;            /* by server name; ctx itself when it has no hosts. Kept by ctx */
    struct tls_session_slot *slot;     /* the caller's; or NULL */
    char *server_name, *verify_name;   /* asked for by the client; or NULL */
    char *why;                         /* stream_tls_error(); or NULL */
    char *held;                        /* ciphertext that is read and waits for the owner, or for the handshake to begin */
    char *early;                       /* plaintext that waits for the end of the handshake */
    struct tls_kernel *kernel;         /* what the kernel needs to make the records, or that it does (tls_kernel.c); NULL: OpenSSL makes them */
    uint32_t held_n, early_n, early_cap;
    uint32_t shake_bytes;              /* received in the handshake */
    enum tls_state state;
    bool is_server;
    bool close_seen;                   /* close_notify came; perhaps not yet told */
    bool close_sent;
    bool drain_owed;                   /* drained() is to be called when all is in the kernel */
    uint8_t control_n;                 /* answers queued while nothing is taken */
};

/* A loop's buffers, which serve one stream at a time; made with its first TLS stream. */
struct tls_loop {
    BIO *bio;                          /* of all its connections: reads from in, writes to out */
    struct stream *cur;                /* whose bytes in and out are */
    char *in;                          /* TLS_IN_BYTES */
    size_t in_from, in_to;
    char *out;                         /* TLS_OUT_BYTES */
    size_t out_n;
    bool last;                         /* the record that OpenSSL makes is the last one of a write */
    char *gather;                      /* TLS_RECORD_BYTES: small pieces become one record */
};

/* ---- records that the kernel makes (tls_kernel.c) ---- */
bool tls_kernel_on(void);                                     /* tls_kernel_start() found that it can */
/* OpenSSL offers a key for sending: info is a struct tls_crypto_info of linux/tls.h and what belongs to its cipher. What the BIO writes from here on is
 * under that key. */
void tls_kernel_offer(struct stream *s, const void *info);
bool tls_kernel_saw(struct stream_tls *t, const char *p, size_t n); /* t->kernel is set, and OpenSSL writes this; false: it is not to be sent */
bool tls_kernel_outdated(const struct stream_tls *t);         /* the kernel sends, with a key that the peer wants to be replaced */
void tls_kernel_last_word(struct stream *s);                  /* the kernel sends: an alert that says why it ends, if it can go at once */
void tls_kernel_bye(struct stream *s);                        /* the same: close_notify */
void tls_kernel_free(struct stream_tls *t);
void tls_settle(struct stream *s);                            /* out holds nothing of s any more (tls_stream.c) */

/* Takes OpenSSL's errors off its queue and says what they mean (tls_error.c). Returns their kind, for counting. */
enum tls_fault { TLS_FAULT_OTHER, TLS_FAULT_CERTIFICATE, TLS_FAULT_ALERT, TLS_FAULT_PARAMETERS };
enum tls_fault tls_explain(const struct stream_tls *t, struct buf *out);
void tls_why(struct stream_tls *t, const char *fmt, ...) PRINTF_LIKE(2, 3); /* sets t->why, unless it is set */

/* Makes what a connection needs of its context: the SSL with s as its application data; NULL without memory (tls_ctx.c). */
SSL *tls_ssl_new(const struct tls_ctx *ctx, struct stream *s);

#endif
