/* scram.h - SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677): both sides of the exchange, as pure functions. The messages: scram.c.
 *
 * Not here: SASLprep (RFC 4013): names and passwords are taken as the bytes they are, as Kafka's clients send them; channel binding.
 */
#ifndef SCRAM_H
#define SCRAM_H

#include "base.h"

enum scram_kind { SCRAM_NONE, SCRAM_SHA256, SCRAM_SHA512, SCRAM_KINDS }; /* as Kafka's ScramMechanism numbers them */
#define SCRAM_KEY_MAX 64
#define SCRAM_SALT_MAX 128
#define SCRAM_NONCE_BYTES 24
#define SCRAM_USER_MAX 255
#define SCRAM_ITERATIONS_MIN 4096
#define SCRAM_ITERATIONS_MAX 16384               /* as Kafka has it, for what a server keeps */
#define SCRAM_CLIENT_ITERATIONS_MAX (1 << 20)    /* that a client does for a server: half a second or so */

/* ---- keys ---------------------------------------------------------------------------------------------------------------- */

/* What a server keeps of a password (RFC 5802 section 3). */
struct scram_cred {
    int32_t iterations;                    /* 0: there is none */
    uint8_t salt_n, key_n;
    uint8_t salt[SCRAM_SALT_MAX], stored_key[SCRAM_KEY_MAX], server_key[SCRAM_KEY_MAX];
};
size_t scram_key_bytes(enum scram_kind k); /* 32, 64 */
const char *scram_name(enum scram_kind k); /* "SCRAM-SHA-256" */
/* Hi(): n iterations of HMAC; takes milliseconds. */
enum err scram_salt_password(enum scram_kind k, struct slice password, const uint8_t *salt, size_t salt_n, int32_t iterations, uint8_t out[SCRAM_KEY_MAX]) WARN_UNUSED;
/* Keys from a salted password. */
enum err scram_keys(enum scram_kind k, const uint8_t *salted, struct scram_cred *out) WARN_UNUSED;
/* Whether the password has these keys. Milliseconds. */
bool scram_password_ok(enum scram_kind k, const struct scram_cred *cred, struct slice password);

/* ---- the server's side ------------------------------------------------------------------------------------------------------- */

/* One exchange. */
struct scram {
    enum scram_kind kind;
    struct scram_cred cred;                /* given with scram_challenge() */
    bool known;                            /* the user exists */
    char user[SCRAM_USER_MAX + 1];
    size_t user_n;
    char gs2[SCRAM_USER_MAX * 3 + 8];      /* the header, to be repeated as c= */
    size_t gs2_n;
    struct buf auth;                       /* client-first-bare "," server-first "," client-final-without-proof */
    struct buf nonce;                      /* client's and ours */
};
void scram_fini(struct scram *x);
/* client-first-message: ERR_SYNTAX when it is none, ERR_PERM for an authorization id that is another user's. x->user is set. */
enum err scram_first(struct scram *x, struct slice msg) WARN_UNUSED;
/* server-first-message with these keys; cred is copied. */
void scram_challenge(struct scram *x, const struct scram_cred *cred, bool known, struct slice our_nonce, struct buf *out);
/* client-final-message: OK and server-final-message; ERR_PERM: the proof is wrong, or the user unknown. */
enum err scram_final(struct scram *x, struct slice msg, struct buf *out) WARN_UNUSED;

/* ---- the client's side --------------------------------------------------------------------------------------------------------- */

/* One exchange. Between answer and final the caller salts the password with salt and iterations (scram_salt_password(), off the loop). */
struct scram_client {
    enum scram_kind kind;
    struct buf auth;                       /* client-first-bare, then with "," server-first */
    struct buf nonce;                      /* ours, then the server's, which begins with it */
    uint8_t salt[SCRAM_SALT_MAX];          /* the server's */
    size_t salt_n;
    int32_t iterations;                    /* SCRAM_ITERATIONS_MIN to SCRAM_CLIENT_ITERATIONS_MAX */
    uint8_t signature[SCRAM_KEY_MAX];      /* that the server has to show */
};
void scram_client_fini(struct scram_client *x);
/* client-first-message; x is zero but for its kind. The nonce: printable, without commas, and never used before. */
void scram_client_first(struct scram_client *x, struct slice user, struct slice nonce, struct buf *out);
/* server-first-message: salt and iterations are set. ERR_SYNTAX: it is none; ERR_PERM: its nonce is not of this exchange; ERR_LIMIT: fewer or more
 * iterations than a client agrees to. */
enum err scram_client_answer(struct scram_client *x, struct slice msg) WARN_UNUSED;
/* client-final-message from the salted password, which is the caller's to wipe. */
enum err scram_client_final(struct scram_client *x, const uint8_t salted[SCRAM_KEY_MAX], struct buf *out) WARN_UNUSED;
/* server-final-message. ERR_PERM: an error (e=), or the server doesn't know the password's keys: it is not who it seems to be. */
enum err scram_client_verify(const struct scram_client *x, struct slice msg) WARN_UNUSED;

#endif
