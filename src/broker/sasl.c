/* sasl.c - proving who one is: SaslHandshake and SaslAuthenticate, with PLAIN (RFC 4616) and SCRAM (scram.h).
 *
 *     SaslHandshake(mechanism) -> the conversation begins (again: KIP-368) -> tokens in SaslAuthenticate, or bare after handshake v0 (conn.c makes
 *     requests of them, breq.bare) -> conn_authenticated(), or error 58 and the connection ends
 *
 * The conversation (struct sasl) hangs on its connection and is touched on the connection's loop. A PLAIN password is verified in the work pool, on what it needs and no
 * more: the connection may end meanwhile. Both requests are served one after the other (not `parallel`), so one verification is under way at most.
 */
#include "security_int.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define TOKEN_MAX 16384u
#define UNKNOWN_ITERATIONS 4096    /* that a user who does not exist seems to have */
#define UNKNOWN_SALT 18

enum sasl_mechanism { SASL_PLAIN, SASL_SCRAM_256, SASL_SCRAM_512, SASL_MECHANISMS };
static const char *const mechanisms[SASL_MECHANISMS] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};

struct sasl {
    enum sasl_mechanism mechanism;
    enum { SASL_IDLE, SASL_BEGUN, SASL_CHALLENGED } step; /* idle: no handshake, or the last conversation is over */
    bool proven;                   /* one conversation has succeeded */
    enum sasl_mechanism proven_by; /* with this; another may not follow */
    char proven_user[SCRAM_USER_MAX + 1];
    struct scram scram;
};

static void sasl_free(void *p)
{
    struct sasl *x = p;
    scram_fini(&x->scram);
    mem_free(x);
}

/* ---- the handshake ------------------------------------------------------------------------------------------------------------- */

static struct sasl *sasl_of(struct bconn *c)
{
    if (!c->sasl) {
        c->sasl = mem_new(MEM_BROKER, sizeof(struct sasl));
        c->sasl_free = sasl_free;
    }
    return c->sasl;
}

static enum kafka_error handshake(struct breq *r, struct slice name)
{
    struct bconn *c = r->conn;
    if (!c || (c->auth == AUTH_DONE && !c->sasl) || c->auth == AUTH_TOKENS)
        return KAFKA_ILLEGAL_SASL_STATE; /* this door asks nobody who he is; or a conversation is under way */
    struct sasl *x = sasl_of(c);
    if (x->step != SASL_IDLE || (x->proven && r->version < 1))
        return KAFKA_ILLEGAL_SASL_STATE;
    for (int m = 0; m < SASL_MECHANISMS; m++) {
        if (!slice_is(name, mechanisms[m]))
            continue;
        if (x->proven && x->proven_by != (enum sasl_mechanism)m)
            return KAFKA_ILLEGAL_SASL_STATE;
        scram_fini(&x->scram);
        x->scram = (struct scram){.kind = m == SASL_SCRAM_512 ? SCRAM_SHA512 : SCRAM_SHA256};
        x->mechanism = (enum sasl_mechanism)m;
        x->step = SASL_BEGUN;
        if (r->version == 0)
            c->auth = AUTH_TOKENS;
        return KAFKA_NONE;
    }
    return KAFKA_UNSUPPORTED_SASL_MECHANISM;
}

void sasl_handshake_serve(struct breq *r)
{
    const struct kafka_sasl_handshake_req *req = r->req;
    struct kafka_sasl_handshake_resp *resp = BREQ_NEW(r, struct kafka_sasl_handshake_resp);
    kafka_sasl_handshake_resp_init(resp);
    r->resp = resp;
    enum kafka_error e = handshake(r, req->mechanism);
    resp->error_code = (int16_t)e;
    if (e != KAFKA_ILLEGAL_SASL_STATE) {
        resp->mechanisms = BREQ_ARRAY(r, struct slice, SASL_MECHANISMS);
        resp->mechanisms_n = SASL_MECHANISMS;
        for (int m = 0; m < SASL_MECHANISMS; m++)
            resp->mechanisms[m] = slice_cstr(mechanisms[m]);
    }
    r->hang_up = e != KAFKA_NONE;
    r->error = resp->error_code;
    breq_answer(r, r->home);
}

/* ---- the tokens -------------------------------------------------------------------------------------------------------------------- */

static void answer(struct breq *r, enum kafka_error e, const char *why)
{
    struct kafka_sasl_authenticate_resp *resp = r->resp;
    resp->error_code = (int16_t)e;
    resp->error_message = slice_cstr(why);
    r->error = resp->error_code;
    if (e != KAFKA_NONE) {
        resp->auth_bytes = SLICE("");
        r->hang_up = true;
        r->silent = r->bare;
    }
    breq_answer(r, r->home);
}

static void fail(struct breq *r)
{
    struct sasl *x = r->conn ? r->conn->sasl : NULL;
    counter_inc(&r->home->security->counters.sasl_failed);
    if (x) {
        x->step = SASL_IDLE;
        log_info("broker", "%s: SASL authentication with %s failed", r->conn->host, mechanisms[x->mechanism]);
    }
    answer(r, KAFKA_SASL_AUTHENTICATION_FAILED,
           arena_printf(&r->arena, "Authentication failed during authentication due to invalid credentials with SASL mechanism %s", x ? mechanisms[x->mechanism] : "PLAIN"));
}

/* last: bytes for the client, in the arena. */
static void succeed(struct breq *r, struct slice user, struct slice last)
{
    struct kafka_sasl_authenticate_resp *resp = r->resp;
    struct bconn *c = r->conn;
    if (!c) { /* it has gone meanwhile */
        answer(r, KAFKA_NONE, NULL);
        return;
    }
    struct sasl *x = c->sasl;
    if (x->proven && !slice_eq(slice_cstr(x->proven_user), user)) {
        counter_inc(&r->home->security->counters.sasl_failed);
        x->step = SASL_IDLE;
        answer(r, KAFKA_SASL_AUTHENTICATION_FAILED, "Cannot change principals during re-authentication");
        return;
    }
    bool again = x->proven;
    x->proven = true;
    x->proven_by = x->mechanism;
    memcpy(x->proven_user, user.p, user.n);
    x->proven_user[user.n] = 0;
    x->step = SASL_IDLE;
    c->auth = AUTH_DONE;
    counter_inc(&r->home->security->counters.sasl_succeeded);
    if (!again)
        conn_authenticated(c, slice_cstr(arena_printf(&r->arena, "User:" SLICE_FMT, SLICE_ARG(user))));
    resp->auth_bytes = last;
    answer(r, KAFKA_NONE, NULL);
}

/* ---- PLAIN ---------------------------------------------------------------------------------------------------------------------------- */

struct plain_check {
    struct work work;
    struct breq *r;
    enum scram_kind kind;
    struct scram_cred cred;
    bool known, ok;
    struct slice user, password;   /* in the frame */
};

static void plain_run(struct work *w)
{
    struct plain_check *p = CONTAINER_OF(w, struct plain_check, work);
    p->ok = scram_password_ok(p->kind, &p->cred, p->password) && p->known;
}

static void plain_done(struct work *w)
{
    struct plain_check *p = CONTAINER_OF(w, struct plain_check, work);
    OPENSSL_cleanse((char *)(uintptr_t)p->password.p, p->password.n);
    OPENSSL_cleanse(&p->cred, sizeof p->cred);
    if (p->ok)
        succeed(p->r, p->user, SLICE(""));
    else
        fail(p->r);
}

/* authzid NUL authcid NUL passwd */
static bool plain_read(struct slice token, struct slice *user, struct slice *password)
{
    struct slice rest, authz = slice_cut(token, 0, &rest);
    if (authz.n == token.n)
        return false;
    *user = slice_cut(rest, 0, password);
    return user->n > 0 && user->n < rest.n && user->n <= SCRAM_USER_MAX && password->n > 0 && !memchr(password->p, 0, password->n) &&
           (authz.n == 0 || slice_eq(authz, *user));
}

/* Keys for a user that does not exist: as constant as those of one who does. */
static void cred_of_nobody(const struct broker *b, enum scram_kind kind, struct slice user, struct scram_cred *out)
{
    unsigned n = 0;
    unsigned char d[EVP_MAX_MD_SIZE] = {0};
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) && EVP_DigestUpdate(ctx, b->security->salt_secret, sizeof b->security->salt_secret))
        if (EVP_DigestUpdate(ctx, user.p, user.n))
            EVP_DigestFinal_ex(ctx, d, &n);
    EVP_MD_CTX_free(ctx);
    *out = (struct scram_cred){.iterations = UNKNOWN_ITERATIONS, .salt_n = UNKNOWN_SALT, .key_n = (uint8_t)scram_key_bytes(kind)};
    memcpy(out->salt, d, UNKNOWN_SALT);
    random_bytes(out->stored_key, sizeof out->stored_key);
    random_bytes(out->server_key, sizeof out->server_key);
}

/* True: the user has keys of this kind. */
static bool cred_find(const struct breq *r, enum scram_kind kind, struct slice user, struct scram_cred *out)
{
    const struct sec_user *u = secdb_user(r->home->security->db, user);
    bool known = u && u->cred[kind].iterations;
    if (known)
        *out = u->cred[kind];
    else
        cred_of_nobody(r->home->b, kind, user, out);
    return known;
}

static void plain(struct breq *r, struct slice token)
{
    struct plain_check *p = BREQ_NEW(r, struct plain_check);
    if (!plain_read(token, &p->user, &p->password)) {
        fail(r);
        return;
    }
    const struct sec_user *u = secdb_user(r->home->security->db, p->user);
    p->r = r;
    p->kind = u && u->cred[SCRAM_SHA512].iterations ? SCRAM_SHA512 : SCRAM_SHA256;
    p->known = cred_find(r, p->kind, p->user, &p->cred);
    p->work = (struct work){.run = plain_run, .done = plain_done, .loop = r->home->loop};
    work_submit(r->home->loop, &p->work);
}

/* ---- SCRAM ------------------------------------------------------------------------------------------------------------------------------ */

static void scram_begin(struct breq *r, struct sasl *x, struct slice token)
{
    struct kafka_sasl_authenticate_resp *resp = r->resp;
    uint8_t raw[SCRAM_NONCE_BYTES];
    char nonce[2 * SCRAM_NONCE_BYTES];
    struct scram_cred cred;
    struct buf out = {0};
    if (scram_first(&x->scram, token) != OK) {
        fail(r);
        return;
    }
    random_bytes(raw, sizeof raw);
    for (size_t i = 0; i < sizeof raw; i++) {
        nonce[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        nonce[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    bool known = cred_find(r, x->scram.kind, slice_of(x->scram.user, x->scram.user_n), &cred);
    scram_challenge(&x->scram, &cred, known, slice_of(nonce, sizeof nonce), &out);
    x->step = SASL_CHALLENGED;
    resp->auth_bytes = arena_slice(&r->arena, buf_slice(&out));
    buf_free(&out);
    answer(r, KAFKA_NONE, NULL);
}

static void scram_end(struct breq *r, struct sasl *x, struct slice token)
{
    struct buf out = {0};
    if (scram_final(&x->scram, token, &out) == OK)
        succeed(r, slice_of(x->scram.user, x->scram.user_n), arena_slice(&r->arena, buf_slice(&out)));
    else
        fail(r);
    buf_free(&out);
}

void sasl_authenticate_serve(struct breq *r)
{
    const struct kafka_sasl_authenticate_req *req = r->req;
    struct kafka_sasl_authenticate_resp *resp = BREQ_NEW(r, struct kafka_sasl_authenticate_resp);
    kafka_sasl_authenticate_resp_init(resp);
    r->resp = resp;
    struct sasl *x = r->conn ? r->conn->sasl : NULL;
    if (!x || x->step == SASL_IDLE)
        answer(r, KAFKA_ILLEGAL_SASL_STATE,
               x && x->proven ? "SaslAuthenticate request received after successful authentication" : "SaslAuthenticate request received without a SaslHandshake");
    else if (req->auth_bytes.n > TOKEN_MAX)
        fail(r);
    else if (x->mechanism == SASL_PLAIN)
        plain(r, req->auth_bytes);
    else if (x->step == SASL_BEGUN)
        scram_begin(r, x, req->auth_bytes);
    else
        scram_end(r, x, req->auth_bytes);
}
