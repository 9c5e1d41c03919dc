/* seal.h - values of Secrets as they rest: encrypted, each for itself and bound to its place.
 *
 * A keyring holds AES-256 keys: the first seals, all open, so keys are rotated by putting a new one before the old. Belongs to one thread;
 * reads nothing and writes nothing: where keys come from is the caller's business (main/secrets_key.c).
 */
#ifndef SEAL_H
#define SEAL_H

#include "base.h"

#include <jansson.h>

#define SEAL_PREFIX "weir:sealed:1:" /* then KEYID:BASE64(nonce, ciphertext, tag) */
#define SEAL_KEY_BYTES 32            /* AES-256 */
#define SEAL_ID_CHARS 8              /* of a key's id: the first of its SHA-256 in hexadecimal */
#define SEAL_KEYS_MAX 16             /* in one keyring */
#define SEAL_VALUE_MAX (4u << 20)    /* bytes of one value, as a manifest may have at most */

struct keyring;
/* From text: a key in base64 on each line, the one that seals first; empty lines and those that begin with # are skipped. ERR_SYNTAX, ERR_LIMIT
 * or ERR_NOTFOUND (no key at all) with the reason in why, which never has anything of a key in it; *out is untouched then. */
enum err keyring_read(struct slice text, struct keyring **out, struct buf *why) WARN_UNUSED;
void keyring_free(struct keyring *k);                 /* NULL-safe; wipes the keys */
size_t keyring_n(const struct keyring *k);
const char *keyring_id(const struct keyring *k, size_t i); /* what may be shown of a key; 0: the one that seals */
void keyring_new_key(struct buf *out);                /* a new key as a line of text; the caller wipes it */

/* One value of namespace ns, Secret name, key. seal_value() adds its text form to out. unseal_value() adds the plain bytes; ERR_NOTFOUND: sealed
 * with a key that is not here; ERR_INVALID: damaged, or sealed for another place; ERR_SYNTAX: not a sealed value. why names the Secret, the key
 * and the id of the key that sealed, never a value; out is untouched then. */
void seal_value(const struct keyring *k, const char *ns, const char *name, const char *key, struct slice plain, struct buf *out);
enum err unseal_value(const struct keyring *k, const char *ns, const char *name, const char *key, struct slice sealed, struct buf *out, struct buf *why) WARN_UNUSED;
bool value_sealed(struct slice text); /* begins as a sealed value does */

/* What may be shown of a value: the beginning of an HMAC-SHA256 with the key that seals, which tells a changed value from the same, also on another node of
 * the same key; who has not the key learns nothing by trying short values. */
#define VALUE_DIGEST_CHARS 8
void value_digest(const struct keyring *k, struct slice plain, char out[VALUE_DIGEST_CHARS + 1]);

/* A Secret's manifest, in place: every string in data and stringData, and the copy of the whole manifest that kubectl keeps in an annotation.
 * Manifests of other kinds are left as they are. ns: of a manifest that names none. What is sealed must be unsealed exactly once. unseal_object()
 * takes values that are not sealed as they are (an older version's, or put there by hand), and leaves the manifest untouched on an error. */
void seal_object(const struct keyring *k, const char *ns, json_t *manifest);
enum err unseal_object(const struct keyring *k, const char *ns, json_t *manifest, struct buf *why) WARN_UNUSED;

#endif
