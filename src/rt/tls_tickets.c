/* tls_tickets.c - the keys that encrypt session tickets (RFC 5077, RFC 8446 section 4.6.1).
 *
 * The server keeps no sessions: a ticket is the session, encrypted with a key that only servers know. All workers use the
 * same keys, and the next engine process gets them, so a client may resume wherever it comes back. Whoever learns a key can
 * read the tickets of its time, so the owner rotates them; the two keys before the current one still open tickets, which
 * are then replaced.
 *
 * A key on export: | created (8, little endian, ms) | name (16) | AES-256 key (32) | HMAC-SHA-256 key (32) |, after 8
 * bytes "weirtkt1". The newest comes first.
 *
 * tickets_lock is innermost, held for copying one key, once or twice per handshake; never while data flows.
 */
#include "tls_int.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>

#define EXPORT_MAGIC "weirtkt1"
#define EXPORT_MAGIC_BYTES 8
#define EXPORT_KEY_BYTES (8 + sizeof ((struct ticket_key *)0)->secret)
#define IV_BYTES 16 /* AES's block */

struct ticket_key {
    uint64_t created_ms;
    struct {
        unsigned char name[16], aes[32], mac[32];
    } secret;
};

struct tls_tickets {
    uint32_t refs;
    pthread_mutex_t tickets_lock;             /* keys */
    struct ticket_key keys[TLS_TICKETS_KEPT]; /* newest first */
    uint32_t keys_n;
};

static struct tls_tickets *tickets_alloc(void)
{
    struct tls_tickets *t = mem_new(MEM_TLS, sizeof *t);
    t->refs = 1;
    pthread_mutex_init(&t->tickets_lock, NULL);
    return t;
}

static void key_make(struct ticket_key *k, uint64_t now_ms)
{
    k->created_ms = now_ms;
    random_bytes(&k->secret, sizeof k->secret);
}

struct tls_tickets *tls_tickets_new(uint64_t now_ms)
{
    struct tls_tickets *t = tickets_alloc();
    key_make(&t->keys[0], now_ms);
    t->keys_n = 1;
    return t;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t)
{
    __atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

void tls_tickets_unref(struct tls_tickets *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    pthread_mutex_destroy(&t->tickets_lock);
    OPENSSL_cleanse(t->keys, sizeof t->keys);
    mem_free(t);
}

void tls_tickets_rotate(struct tls_tickets *t, uint64_t now_ms)
{
    struct ticket_key k;
    key_make(&k, now_ms);
    pthread_mutex_lock(&t->tickets_lock);
    t->keys_n = MIN(t->keys_n + 1, TLS_TICKETS_KEPT);
    memmove(&t->keys[1], &t->keys[0], (t->keys_n - 1) * sizeof k);
    t->keys[0] = k;
    pthread_mutex_unlock(&t->tickets_lock);
    OPENSSL_cleanse(&k, sizeof k);
}

/* The wall clock may have been set meanwhile: a key from far ahead counts as new for a period, and not for ever. */
uint64_t tls_tickets_refresh(struct tls_tickets *t, uint64_t now_ms, uint64_t period_ms)
{
    uint64_t made_ms = tls_tickets_rotated_ms(t);
    uint64_t age_ms = now_ms > made_ms ? now_ms - made_ms : made_ms - now_ms > period_ms ? period_ms : 0;
    if (age_ms < period_ms) return period_ms - age_ms;
    for (uint64_t missed = MIN(age_ms / period_ms, (uint64_t)TLS_TICKETS_KEPT); missed; missed--) tls_tickets_rotate(t, now_ms);
    return period_ms;
}

uint64_t tls_tickets_rotated_ms(const struct tls_tickets *t)
{
    struct tls_tickets *mine = (struct tls_tickets *)(uintptr_t)t;
    pthread_mutex_lock(&mine->tickets_lock);
    uint64_t at = t->keys[0].created_ms;
    pthread_mutex_unlock(&mine->tickets_lock);
    return at;
}

/* ---- from process to process ---- */

void tls_tickets_export(const struct tls_tickets *t, struct buf *out)
{
    struct tls_tickets *mine = (struct tls_tickets *)(uintptr_t)t;
    struct ticket_key keys[TLS_TICKETS_KEPT];
    pthread_mutex_lock(&mine->tickets_lock);
    uint32_t n = t->keys_n;
    memcpy(keys, t->keys, sizeof keys);
    pthread_mutex_unlock(&mine->tickets_lock);
    buf_add(out, EXPORT_MAGIC, EXPORT_MAGIC_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        for (int b = 0; b < 8; b++) buf_addc(out, (char)(keys[i].created_ms >> (8 * b)));
        buf_add(out, &keys[i].secret, sizeof keys[i].secret);
    }
    OPENSSL_cleanse(keys, sizeof keys);
}

enum err tls_tickets_import(struct slice bytes, struct tls_tickets **out)
{
    if (!slice_starts(bytes, slice_of(EXPORT_MAGIC, EXPORT_MAGIC_BYTES))) return ERR_SYNTAX;
    size_t n = (bytes.n - EXPORT_MAGIC_BYTES) / EXPORT_KEY_BYTES;
    if (n == 0 || n > TLS_TICKETS_KEPT || bytes.n != EXPORT_MAGIC_BYTES + n * EXPORT_KEY_BYTES) return ERR_SYNTAX;
    struct tls_tickets *t = tickets_alloc();
    const unsigned char *p = (const unsigned char *)bytes.p + EXPORT_MAGIC_BYTES;
    for (; t->keys_n < n; t->keys_n++, p += EXPORT_KEY_BYTES) {
        struct ticket_key *k = &t->keys[t->keys_n];
        for (int b = 0; b < 8; b++) k->created_ms |= (uint64_t)p[b] << (8 * b);
        memcpy(&k->secret, p + 8, sizeof k->secret);
    }
    *out = t;
    return OK;
}

/* ---- use ---- */

/* Fetched once: looking an algorithm up by name takes longer than the use of it. They live as long as the process. */
static EVP_CIPHER *ticket_cipher;
static pthread_once_t ticket_once = PTHREAD_ONCE_INIT;

static void ticket_fetch(void)
{
    ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    MUST(ticket_cipher);
}

/* The key to encrypt with, or the one of that name; its place, or -1. */
static int key_copy(struct tls_tickets *t, const unsigned char *name, struct ticket_key *out)
{
    pthread_mutex_lock(&t->tickets_lock);
    int at = name ? -1 : 0;
    for (uint32_t i = 0; name && i < t->keys_n; i++)
        if (memcmp(t->keys[i].secret.name, name, sizeof t->keys[i].secret.name) == 0) at = (int)i;
    if (at >= 0) *out = t->keys[at];
    pthread_mutex_unlock(&t->tickets_lock);
    return at;
}

int tls_ticket_key(struct tls_tickets *t, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher,
                   EVP_MAC_CTX *mac, int enc)
{
    pthread_once(&ticket_once, ticket_fetch);
    struct ticket_key k;
    int at = key_copy(t, enc ? NULL : name, &k);
    if (at < 0) return 0; /* nobody's, or too old: a full handshake */
    if (enc) {
        memcpy(name, k.secret.name, sizeof k.secret.name);
        if (RAND_bytes(iv, IV_BYTES) != 1) return -1;
    }
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, k.secret.mac, sizeof k.secret.mac),
                           OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    bool good = EVP_CipherInit_ex2(cipher, ticket_cipher, k.secret.aes, iv, enc, NULL) == 1 && EVP_MAC_CTX_set_params(mac, params) == 1;
    OPENSSL_cleanse(&k, sizeof k);
    if (!good) return -1;
    return !enc && at > 0 ? 2 : 1; /* 2: resume, and give the client a ticket of the current key */
}
