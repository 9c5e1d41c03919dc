/* scram.c - SCRAM-SHA-256 and SCRAM-SHA-512, both sides (RFC 5802, RFC 7677), as pure functions.
 *
 *     client-first  n,,n=user,r=cnonce                  n: no channel binding; y: the client could
 *     server-first  r=cnonce snonce,s=base64(salt),i=iterations
 *     client-final  c=base64(gs2 header),r=nonce,p=base64(ClientProof)
 *     server-final  v=base64(ServerSignature)
 *
 *     SaltedPassword = Hi(password, salt, i)            ClientKey = HMAC(SaltedPassword, "Client Key"), StoredKey = H(ClientKey)
 *     AuthMessage = client-first-bare , server-first , client-final-without-proof
 *     ClientProof = ClientKey ^ HMAC(StoredKey, AuthMessage)     ServerSignature = HMAC(ServerKey, AuthMessage)
 */
#include "scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define CLIENT_NONCE_MAX 1024u

static const EVP_MD *digest(enum scram_kind k) { return k == SCRAM_SHA512 ? EVP_sha512() : EVP_sha256(); }
size_t scram_key_bytes(enum scram_kind k) { return k == SCRAM_SHA512 ? 64 : 32; }
const char *scram_name(enum scram_kind k) { return k == SCRAM_SHA512 ? "SCRAM-SHA-512" : "SCRAM-SHA-256"; }

/* ---- keys -------------------------------------------------------------------------------------------------------------------- */

static bool hmac(enum scram_kind k, const uint8_t *key, struct slice text, uint8_t out[SCRAM_KEY_MAX])
{
    unsigned n = 0;
    return HMAC(digest(k), key, (int)scram_key_bytes(k), (const unsigned char *)text.p, text.n, out, &n) && n == scram_key_bytes(k);
}

static bool hash_key(enum scram_kind k, const uint8_t *key, uint8_t out[SCRAM_KEY_MAX])
{
    unsigned n = 0;
    return EVP_Digest(key, scram_key_bytes(k), out, &n, digest(k), NULL) && n == scram_key_bytes(k);
}

enum err scram_salt_password(enum scram_kind k, struct slice password, const uint8_t *salt, size_t salt_n, int32_t iterations, uint8_t out[SCRAM_KEY_MAX])
{
    if (password.n > INT32_MAX || iterations < 1)
        return ERR_INVALID;
    return PKCS5_PBKDF2_HMAC(password.n ? password.p : "", (int)password.n, salt, (int)salt_n, iterations, digest(k), (int)scram_key_bytes(k), out) ? OK : ERR_INTERNAL;
}

enum err scram_keys(enum scram_kind k, const uint8_t *salted, struct scram_cred *out)
{
    uint8_t client_key[SCRAM_KEY_MAX];
    bool ok = hmac(k, salted, SLICE("Client Key"), client_key) && hash_key(k, client_key, out->stored_key) && hmac(k, salted, SLICE("Server Key"), out->server_key);
    OPENSSL_cleanse(client_key, sizeof client_key);
    out->key_n = (uint8_t)scram_key_bytes(k);
    return ok ? OK : ERR_INTERNAL;
}

bool scram_password_ok(enum scram_kind k, const struct scram_cred *cred, struct slice password)
{
    uint8_t salted[SCRAM_KEY_MAX];
    struct scram_cred got = {0};
    bool ok = scram_salt_password(k, password, cred->salt, cred->salt_n, cred->iterations, salted) == OK && scram_keys(k, salted, &got) == OK &&
              CRYPTO_memcmp(got.stored_key, cred->stored_key, scram_key_bytes(k)) == 0;
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(&got, sizeof got);
    return ok;
}

/* ---- texts --------------------------------------------------------------------------------------------------------------------- */

static void base64_add(struct buf *b, const void *p, size_t n)
{
    size_t room = 4 * ((n + 2) / 3);
    buf_reserve(b, room + 1); /* EVP_EncodeBlock() writes a NUL */
    b->n += (size_t)EVP_EncodeBlock((unsigned char *)b->p + b->n, p, (int)n);
}

/* At least one byte, at most cap (SCRAM_SALT_MAX or less). */
static bool base64_read(struct slice text, uint8_t *out, size_t cap, size_t *n)
{
    uint8_t raw[SCRAM_SALT_MAX + 8];
    size_t pads = 0;
    if (text.n == 0 || text.n % 4 || text.n / 4 * 3 > MIN(cap + 2, sizeof raw))
        return false;
    while (pads < 2 && text.p[text.n - 1 - pads] == '=')
        pads++;
    int got = EVP_DecodeBlock(raw, (const unsigned char *)text.p, (int)text.n);
    if (got < 0 || (size_t)got - pads > cap)
        return false;
    *n = (size_t)got - pads;
    memcpy(out, raw, *n);
    return true;
}

/* "k=value" at the front of *rest, to the next comma. */
static bool attribute(struct slice *rest, char k, struct slice *value)
{
    struct slice word = slice_cut(*rest, ',', rest);
    if (word.n < 2 || word.p[0] != k || word.p[1] != '=')
        return false;
    *value = slice_of(word.p + 2, word.n - 2);
    return true;
}

/* A saslname: =2C is a comma, =3D an equals sign. */
static bool saslname(struct slice in, char *out, size_t cap, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '=') {
            if (in.n - i < 3 || !((in.p[i + 1] == '2' && in.p[i + 2] == 'C') || (in.p[i + 1] == '3' && in.p[i + 2] == 'D')))
                return false;
            c = in.p[i + 1] == '2' ? ',' : '=';
            i += 2;
        }
        if (c == 0 || *n == cap)
            return false;
        out[(*n)++] = c;
    }
    return *n > 0;
}

/* What a nonce may have (RFC 5802 section 7, printable): anything but a comma. */
static bool printable(struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    return true;
}

void scram_fini(struct scram *x)
{
    buf_free(&x->auth);
    buf_free(&x->nonce);
    OPENSSL_cleanse(&x->cred, sizeof x->cred);
}

/* ---- the server's side ---------------------------------------------------------------------------------------------------------------- */

enum err scram_first(struct scram *x, struct slice msg)
{
    struct slice rest = msg, flag = slice_cut(rest, ',', &rest), authz = slice_cut(rest, ',', &rest), bare = rest, user, nonce;
    char other[SCRAM_USER_MAX];
    size_t other_n = 0;
    if (flag.n != 1 || (flag.p[0] != 'n' && flag.p[0] != 'y') || bare.n == 0)
        return ERR_SYNTAX;
    if (!attribute(&rest, 'n', &user) || !attribute(&rest, 'r', &nonce) || nonce.n == 0 || nonce.n > CLIENT_NONCE_MAX || !printable(nonce))
        return ERR_SYNTAX; /* m=: an extension that must be understood, and none is */
    if (!saslname(user, x->user, SCRAM_USER_MAX, &x->user_n))
        return ERR_SYNTAX;
    x->user[x->user_n] = 0;
    if (authz.n) {
        if (authz.n < 2 || authz.p[0] != 'a' || authz.p[1] != '=' || !saslname(slice_of(authz.p + 2, authz.n - 2), other, sizeof other, &other_n))
            return ERR_SYNTAX;
        if (!slice_eq(slice_of(other, other_n), slice_of(x->user, x->user_n)))
            return ERR_PERM;
    }
    x->gs2_n = msg.n - bare.n;
    if (x->gs2_n > sizeof x->gs2)
        return ERR_SYNTAX;
    memcpy(x->gs2, msg.p, x->gs2_n);
    buf_add_slice(&x->auth, bare);
    buf_add_slice(&x->nonce, nonce);
    return OK;
}

void scram_challenge(struct scram *x, const struct scram_cred *cred, bool known, struct slice our_nonce, struct buf *out)
{
    size_t at = out->n;
    x->cred = *cred;
    x->known = known;
    buf_add_slice(&x->nonce, our_nonce);
    buf_adds(out, "r=");
    buf_add_slice(out, buf_slice(&x->nonce));
    buf_adds(out, ",s=");
    base64_add(out, cred->salt, cred->salt_n);
    buf_printf(out, ",i=%d", cred->iterations);
    buf_addc(&x->auth, ',');
    buf_add(&x->auth, out->p + at, out->n - at);
}

/* Whether the proof is one of who knows the password; always computed whole, so that time tells nothing. */
static bool proof_ok(const struct scram *x, const uint8_t *proof)
{
    uint8_t signature[SCRAM_KEY_MAX], client_key[SCRAM_KEY_MAX], stored[SCRAM_KEY_MAX];
    size_t n = scram_key_bytes(x->kind);
    if (!hmac(x->kind, x->cred.stored_key, buf_slice(&x->auth), signature))
        return false;
    for (size_t i = 0; i < n; i++)
        client_key[i] = proof[i] ^ signature[i];
    bool ok = hash_key(x->kind, client_key, stored) && CRYPTO_memcmp(stored, x->cred.stored_key, n) == 0;
    OPENSSL_cleanse(client_key, sizeof client_key);
    return ok && x->known;
}

enum err scram_final(struct scram *x, struct slice msg, struct buf *out)
{
    struct slice rest = msg, binding, nonce, proof;
    uint8_t given[SCRAM_KEY_MAX], signature[SCRAM_KEY_MAX];
    struct buf c = {0};
    size_t given_n;
    ptrdiff_t at = -1;
    for (size_t i = 0; i + 2 < msg.n; i++) /* the proof is last; extensions may stand before it */
        if (msg.p[i] == ',' && msg.p[i + 1] == 'p' && msg.p[i + 2] == '=')
            at = (ptrdiff_t)i;
    if (at < 0 || !attribute(&rest, 'c', &binding) || !attribute(&rest, 'r', &nonce))
        return ERR_SYNTAX;
    proof = slice_of(msg.p + at + 3, msg.n - (size_t)at - 3);
    if (!base64_read(proof, given, sizeof given, &given_n) || given_n != scram_key_bytes(x->kind))
        return ERR_SYNTAX;
    base64_add(&c, x->gs2, x->gs2_n);
    /* The end of the nonce: librdkafka before 2.6 puts the client's part in front twice (Kafka lets it in for the same reason). Ours is in it, and the proof covers it. */
    bool same = slice_eq(binding, buf_slice(&c)) && slice_ends(nonce, buf_slice(&x->nonce));
    buf_free(&c);
    if (!same)
        return ERR_PERM;
    buf_addc(&x->auth, ',');
    buf_add(&x->auth, msg.p, (size_t)at);
    if (!proof_ok(x, given) || !hmac(x->kind, x->cred.server_key, buf_slice(&x->auth), signature))
        return ERR_PERM;
    buf_adds(out, "v=");
    base64_add(out, signature, scram_key_bytes(x->kind));
    return OK;
}

/* ---- the client's side --------------------------------------------------------------------------------------------------------- */

#define GS2 "n,,"          /* no channel binding, and nobody else's rights */
#define GS2_BASE64 "biws"

void scram_client_fini(struct scram_client *x)
{
    buf_free(&x->auth);
    buf_free(&x->nonce);
    OPENSSL_cleanse(x->signature, sizeof x->signature);
}

void scram_client_first(struct scram_client *x, struct slice user, struct slice nonce, struct buf *out)
{
    buf_add_slice(&x->nonce, nonce);
    buf_adds(&x->auth, "n=");
    for (size_t i = 0; i < user.n; i++)
        if (user.p[i] == ',' || user.p[i] == '=')
            buf_adds(&x->auth, user.p[i] == ',' ? "=2C" : "=3D");
        else
            buf_addc(&x->auth, user.p[i]);
    buf_adds(&x->auth, ",r=");
    buf_add_slice(&x->auth, nonce);
    buf_adds(out, GS2);
    buf_add_slice(out, buf_slice(&x->auth));
}

enum err scram_client_answer(struct scram_client *x, struct slice msg)
{
    struct slice rest = msg, nonce, salt, iterations;
    uint64_t n;
    if (!attribute(&rest, 'r', &nonce) || !attribute(&rest, 's', &salt) || !attribute(&rest, 'i', &iterations))
        return ERR_SYNTAX; /* or m=: an extension that must be understood, and none is */
    if (nonce.n > 2 * CLIENT_NONCE_MAX || !printable(nonce) || !base64_read(salt, x->salt, sizeof x->salt, &x->salt_n) || slice_u64(iterations, INT32_MAX, &n) != OK)
        return ERR_SYNTAX;
    if (nonce.n <= x->nonce.n || !slice_starts(nonce, buf_slice(&x->nonce)))
        return ERR_PERM;
    if (n < SCRAM_ITERATIONS_MIN || n > SCRAM_CLIENT_ITERATIONS_MAX)
        return ERR_LIMIT;
    x->iterations = (int32_t)n;
    buf_clear(&x->nonce);
    buf_add_slice(&x->nonce, nonce);
    buf_addc(&x->auth, ',');
    buf_add_slice(&x->auth, msg);
    return OK;
}

enum err scram_client_final(struct scram_client *x, const uint8_t salted[SCRAM_KEY_MAX], struct buf *out)
{
    uint8_t client_key[SCRAM_KEY_MAX], proof[SCRAM_KEY_MAX];
    struct scram_cred keys = {0};
    size_t n = scram_key_bytes(x->kind), at = out->n;
    buf_adds(out, "c=" GS2_BASE64 ",r=");
    buf_add_slice(out, buf_slice(&x->nonce));
    buf_addc(&x->auth, ',');
    buf_add(&x->auth, out->p + at, out->n - at);
    bool ok = hmac(x->kind, salted, SLICE("Client Key"), client_key) && scram_keys(x->kind, salted, &keys) == OK &&
              hmac(x->kind, keys.stored_key, buf_slice(&x->auth), proof) && hmac(x->kind, keys.server_key, buf_slice(&x->auth), x->signature);
    for (size_t i = 0; i < n && ok; i++)
        proof[i] ^= client_key[i];
    if (ok) {
        buf_adds(out, ",p=");
        base64_add(out, proof, n);
    }
    OPENSSL_cleanse(client_key, sizeof client_key);
    OPENSSL_cleanse(&keys, sizeof keys);
    return ok ? OK : ERR_INTERNAL;
}

enum err scram_client_verify(const struct scram_client *x, struct slice msg)
{
    struct slice rest = msg, text;
    uint8_t shown[SCRAM_KEY_MAX];
    size_t n;
    if (!attribute(&rest, 'v', &text) || !base64_read(text, shown, sizeof shown, &n) || n != scram_key_bytes(x->kind))
        return ERR_PERM;
    return CRYPTO_memcmp(shown, x->signature, n) == 0 ? OK : ERR_PERM;
}
