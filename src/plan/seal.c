/* seal.c - values of Secrets as they rest.
 *
 *     weir:sealed:1:KEYID:BASE64( nonce, 12 bytes | ciphertext, as long as the value | tag, 16 bytes )
 *
 * AES-256-GCM (NIST SP 800-38D). The nonce is random: with 96 bits of it, one key is good for 2^32 values before a repeat is likelier than
 * 2^-32 (8.3 there), which is far more changes of Secrets than a node sees; a new key begins anew. NAMESPACE/NAME/KEY is authenticated with the
 * value, so a sealed value that is moved to another place does not open. KEYID is the beginning of the key's SHA-256: it tells which key to use,
 * and says nothing about it.
 *
 * Strings of stringData are bound to NAMESPACE/NAME/stringData/KEY, and the annotation to NAMESPACE/NAME/PREFIX/NAME: keys of data have no slash, so
 * no two places are the same.
 *
 * A failure of OpenSSL that is not the tag's is one of the process (no memory, no provider), and ends it, as refused memory does in set-up.
 */
#include "seal.h"

#include "plan_int.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define NONCE_BYTES 12
#define TAG_BYTES 16
#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"

struct seal_key {
    uint8_t bytes[SEAL_KEY_BYTES];
    char id[SEAL_ID_CHARS + 1]; /* "" until id_of() is asked for it */
};
struct keyring {
    struct seal_key keys[SEAL_KEYS_MAX]; /* the first seals */
    size_t n;
};

/* ---- keys ------------------------------------------------------------------------------------------------------------------- */

static void hex_text(const uint8_t *p, size_t chars, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < chars; i++)
        out[i] = digits[i % 2 ? p[i / 2] & 15 : p[i / 2] >> 4];
    out[chars] = 0;
}

static void digest_text(const void *p, size_t n, size_t chars, char *out)
{
    uint8_t sha[EVP_MAX_MD_SIZE];
    MUST(EVP_Digest(p, n, sha, NULL, EVP_sha256(), NULL) == 1);
    hex_text(sha, chars, out);
}

/* Made when it is first asked for: the first digest makes OpenSSL read its configuration and load all its algorithms, 2 MiB that a node without Secrets
 * does not need. */
static const char *id_of(const struct keyring *k, size_t i)
{
    struct seal_key *key = (struct seal_key *)(uintptr_t)&k->keys[i];
    if (!key->id[0])
        digest_text(key->bytes, sizeof key->bytes, SEAL_ID_CHARS, key->id);
    return key->id;
}


/* Behind a word of its own, so that nothing else that the key is used for gives the same. */
void value_digest(const struct keyring *k, struct slice plain, char out[VALUE_DIGEST_CHARS + 1])
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    struct buf text = {0};
    buf_reserve(&text, plain.n + 32); /* so that it does not move, and leave a copy */
    buf_adds(&text, "weir value digest 1:");
    buf_add_slice(&text, plain);
    MUST(HMAC(EVP_sha256(), k->keys[0].bytes, SEAL_KEY_BYTES, (const unsigned char *)text.p, text.n, mac, NULL));
    hex_text(mac, VALUE_DIGEST_CHARS, out);
    buf_wipe(&text);
}

static const struct seal_key *key_find(const struct keyring *k, struct slice id)
{
    for (size_t i = 0; i < k->n; i++)
        if (slice_is(id, id_of(k, i)))
            return &k->keys[i];
    return NULL;
}

static bool key_known(const struct keyring *k, const uint8_t *bytes)
{
    bool known = false;
    for (size_t i = 0; i < k->n; i++)
        known |= CRYPTO_memcmp(k->keys[i].bytes, bytes, SEAL_KEY_BYTES) == 0;
    return known;
}

static enum err key_read(struct keyring *k, struct slice line, uint32_t number, struct buf *why)
{
    struct buf raw = {0};
    enum err e = OK;
    if (k->n == SEAL_KEYS_MAX) {
        buf_printf(why, "line %u: %d keys are the most", number, SEAL_KEYS_MAX);
        return ERR_LIMIT;
    }
    buf_reserve(&raw, line.n + 1); /* so that it does not move, and leave a copy */
    if (value_base64(line, &raw) != OK || raw.n != SEAL_KEY_BYTES) {
        buf_printf(why, "line %u: not a key: 32 bytes in base64, which are 44 characters", number);
        e = ERR_SYNTAX;
    } else if (!key_known(k, (const uint8_t *)raw.p)) { /* the same again adds nothing */
        memcpy(k->keys[k->n++].bytes, raw.p, SEAL_KEY_BYTES);
    }
    buf_wipe(&raw);
    return e;
}

enum err keyring_read(struct slice text, struct keyring **out, struct buf *why)
{
    struct keyring *k = mem_new(MEM_MANIFEST, sizeof *k);
    enum err e = OK;
    for (uint32_t number = 1; text.n && e == OK; number++) {
        struct slice line = slice_trim(slice_cut(text, '\n', &text));
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n && line.p[0] != '#')
            e = key_read(k, line, number, why);
    }
    if (e == OK && !k->n) {
        buf_adds(why, "it holds no key");
        e = ERR_NOTFOUND;
    }
    if (e == OK)
        *out = k;
    else
        keyring_free(k);
    return e;
}

void keyring_free(struct keyring *k)
{
    if (k)
        OPENSSL_cleanse(k, sizeof *k);
    mem_free(k);
}

size_t keyring_n(const struct keyring *k) { return k->n; }

const char *keyring_id(const struct keyring *k, size_t i)
{
    MUST(i < k->n);
    return id_of(k, i);
}

static void base64_add(struct buf *out, const uint8_t *p, size_t n)
{
    size_t room = (n + 2) / 3 * 4;
    buf_reserve(out, room + 1); /* EVP_EncodeBlock() writes a NUL */
    out->n += (size_t)EVP_EncodeBlock((unsigned char *)out->p + out->n, p, (int)n);
}

void keyring_new_key(struct buf *out)
{
    uint8_t key[SEAL_KEY_BYTES];
    random_bytes(key, sizeof key);
    base64_add(out, key, sizeof key);
    buf_addc(out, '\n');
    OPENSSL_cleanse(key, sizeof key);
}

/* ---- one value ---------------------------------------------------------------------------------------------------------------- */

static EVP_CIPHER_CTX *gcm_begin(const struct seal_key *key, const uint8_t *nonce, bool encrypt, const char *ns, const char *name, const char *at)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    struct buf place = {0};
    int n;
    buf_printf(&place, "%s/%s/%s", ns, name, at);
    MUST(ctx && EVP_CipherInit_ex2(ctx, EVP_aes_256_gcm(), key->bytes, nonce, encrypt, NULL) == 1);
    MUST(EVP_CipherUpdate(ctx, NULL, &n, (const uint8_t *)place.p, (int)place.n) == 1);
    buf_free(&place);
    return ctx;
}

void seal_value(const struct keyring *k, const char *ns, const char *name, const char *key, struct slice plain, struct buf *out)
{
    MUST(plain.n <= SEAL_VALUE_MAX); /* of a manifest that was read */
    uint8_t *raw = mem_new(MEM_MANIFEST, NONCE_BYTES + plain.n + TAG_BYTES);
    int n = 0, rest = 0;
    random_bytes(raw, NONCE_BYTES);
    EVP_CIPHER_CTX *ctx = gcm_begin(&k->keys[0], raw, true, ns, name, key);
    MUST(!plain.n || EVP_CipherUpdate(ctx, raw + NONCE_BYTES, &n, (const uint8_t *)plain.p, (int)plain.n) == 1);
    MUST(EVP_CipherFinal_ex(ctx, raw + NONCE_BYTES + n, &rest) == 1 && (size_t)(n + rest) == plain.n);
    MUST(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, raw + NONCE_BYTES + plain.n) == 1);
    EVP_CIPHER_CTX_free(ctx);
    buf_printf(out, SEAL_PREFIX "%s:", id_of(k, 0));
    base64_add(out, raw, NONCE_BYTES + plain.n + TAG_BYTES);
    mem_free(raw);
}

/* True: what was sealed at this place; the plain bytes are in out. */
static bool gcm_open(const struct seal_key *key, const char *ns, const char *name, const char *at, const struct buf *raw, struct buf *out)
{
    size_t text_n = raw->n - NONCE_BYTES - TAG_BYTES;
    uint8_t *p = (uint8_t *)raw->p;
    int n = 0, rest = 0;
    EVP_CIPHER_CTX *ctx = gcm_begin(key, p, false, ns, name, at);
    buf_reserve(out, text_n + 1);
    MUST(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, p + NONCE_BYTES + text_n) == 1);
    MUST(!text_n || EVP_CipherUpdate(ctx, (uint8_t *)out->p + out->n, &n, p + NONCE_BYTES, (int)text_n) == 1);
    bool good = EVP_CipherFinal_ex(ctx, (uint8_t *)out->p + out->n + n, &rest) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (good)
        out->n += text_n;
    else
        OPENSSL_cleanse(out->p + out->n, text_n);
    out->p[out->n] = 0;
    return good;
}

bool value_sealed(struct slice text) { return slice_starts(text, SLICE(SEAL_PREFIX)); }

static void unseal_why(struct buf *why, const struct keyring *k, const char *ns, const char *name, const char *at, struct slice id, const char *what)
{
    buf_printf(why, "Secret %s/%s, value of %s: %s %.*s", ns, name, at, what, (int)MIN(id.n, (size_t)SEAL_ID_CHARS), id.p);
    buf_adds(why, " (here:");
    for (size_t i = 0; i < k->n; i++)
        buf_printf(why, " %s", id_of(k, i));
    buf_addc(why, ')');
    text_clean(why->p);
}

enum err unseal_value(const struct keyring *k, const char *ns, const char *name, const char *key, struct slice sealed, struct buf *out, struct buf *why)
{
    struct slice rest = slice_of(sealed.p + MIN(sealed.n, sizeof SEAL_PREFIX - 1), sealed.n - MIN(sealed.n, sizeof SEAL_PREFIX - 1)), text;
    struct slice id = slice_cut(rest, ':', &text);
    struct buf raw = {0};
    if (!value_sealed(sealed) || id.n != SEAL_ID_CHARS) {
        buf_printf(why, "Secret %s/%s, value of %s: not a sealed value of this version", ns, name, key);
        return ERR_SYNTAX;
    }
    const struct seal_key *by = key_find(k, id);
    if (!by) {
        unseal_why(why, k, ns, name, key, id, "sealed with a key that is not here:");
        return ERR_NOTFOUND;
    }
    bool good = text.n <= (SEAL_VALUE_MAX + 64) / 3 * 4 + 64 && value_base64(text, &raw) == OK && raw.n >= NONCE_BYTES + TAG_BYTES && gcm_open(by, ns, name, key, &raw, out);
    buf_free(&raw);
    if (good)
        return OK;
    unseal_why(why, k, ns, name, key, id, "damaged, or sealed for another place, with key");
    return ERR_INVALID;
}

/* ---- a manifest --------------------------------------------------------------------------------------------------------------- */

/* Where a manifest has what is to be sealed. */
struct seal_place {
    const struct keyring *k;
    const char *ns, *name;
    struct buf *why; /* of unsealing */
};

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool place_of(json_t *manifest, const char *ns, struct seal_place *p)
{
    json_t *meta = json_object_get(manifest, "metadata");
    const char *own = text_of(meta, "namespace");
    if (strcmp(text_of(manifest, "kind"), "Secret") != 0)
        return false;
    p->name = text_of(meta, "name");
    p->ns = *own ? own : ns;
    return true;
}

/* Opens every string of map that is sealed, or seals all; only: this key alone. */
static enum err each_value(const struct seal_place *p, json_t *map, const char *within, const char *only, bool seal)
{
    const char *key;
    json_t *value;
    enum err e = OK;
    json_object_foreach (map, key, value) {
        struct slice text = slice_of(json_string_value(value), json_string_length(value));
        if (!json_is_string(value) || (only && strcmp(key, only) != 0) || (!seal && !value_sealed(text)))
            continue;
        struct buf at = {0}, out = {0};
        buf_printf(&at, "%s%s", within, key);
        if (seal)
            seal_value(p->k, p->ns, p->name, at.p, text, &out);
        else
            e = unseal_value(p->k, p->ns, p->name, at.p, text, &out, p->why);
        if (e == OK)
            MUST(json_string_setn_nocheck(value, out.p ? out.p : "", out.n) == 0);
        buf_free(&at);
        buf_wipe(&out);
        if (e != OK)
            return e;
    }
    return OK;
}

static enum err each_place(const struct seal_place *p, json_t *manifest, bool seal)
{
    enum err e = each_value(p, json_object_get(manifest, "data"), "", NULL, seal);
    if (e == OK)
        e = each_value(p, json_object_get(manifest, "stringData"), "stringData/", NULL, seal);
    if (e == OK)
        e = each_value(p, json_object_get(json_object_get(manifest, "metadata"), "annotations"), "", LAST_APPLIED, seal);
    return e;
}

void seal_object(const struct keyring *k, const char *ns, json_t *manifest)
{
    struct seal_place p = {.k = k};
    if (place_of(manifest, ns, &p))
        MUST(each_place(&p, manifest, true) == OK);
}

/* All or nothing: opened in a copy, which then gives its members. */
enum err unseal_object(const struct keyring *k, const char *ns, json_t *manifest, struct buf *why)
{
    struct seal_place p = {.k = k, .why = why};
    if (!place_of(manifest, ns, &p))
        return OK;
    json_t *copy = json_deep_copy(manifest);
    MUST(copy);
    enum err e = place_of(copy, ns, &p) ? each_place(&p, copy, false) : OK;
    if (e == OK)
        MUST(json_object_update(manifest, copy) == 0);
    json_decref(copy);
    return e;
}
