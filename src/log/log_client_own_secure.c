/* log_client_own_secure.c - the own engine's TLS and SASL: the settings that say so, and how a connection logs in.
 *
 *     SaslHandshake(mechanism) -> SaslAuthenticate(token) ... -> own_conn_ready(), or own_conn_fail() with the broker's words
 *
 *     PLAIN (RFC 4616)         one token: NUL user NUL password
 *     SCRAM (RFC 5802)         client-first, [the password is salted, in the pool], client-final; the server has to prove that it knows the password's keys
 *
 * The settings have librdkafka's names and meanings, so that what is written for one engine is right for the other; files are the caller's to
 * read (ssl.ca.pem, not ssl.ca.location). A conversation (struct own_login) hangs on its connection and outlives it only while its work is in the pool.
 *
 * Not here: GSSAPI, OAUTHBEARER, delegation tokens, logging in again on a connection (KIP-368: such a connection ends, and the next one logs in).
 */
#include "log_client_own.h"

#include "scram.h"

#include <openssl/crypto.h>

/* ---- settings --------------------------------------------------------------------------------------------------------------------- */

enum setting { PROTOCOL, MECHANISM, MECHANISMS, USERNAME, PASSWORD, CA, CERTIFICATE, KEY, VERIFY, IDENTIFY, SETTINGS };
static const char *const names[SETTINGS] = {
    [PROTOCOL] = "security.protocol", [MECHANISM] = "sasl.mechanism",  [MECHANISMS] = "sasl.mechanisms", [USERNAME] = "sasl.username",
    [PASSWORD] = "sasl.password",     [CA] = "ssl.ca.pem",             [CERTIFICATE] = "ssl.certificate.pem", [KEY] = "ssl.key.pem",
    [VERIFY] = "enable.ssl.certificate.verification", [IDENTIFY] = "ssl.endpoint.identification.algorithm",
};
static const char *const mechanisms[OWN_SASL_KINDS] = {[OWN_SASL_PLAIN] = "PLAIN", [OWN_SASL_SCRAM_256] = "SCRAM-SHA-256", [OWN_SASL_SCRAM_512] = "SCRAM-SHA-512"};

static int setting_find(struct slice name)
{
    int i = 0;
    while (i < SETTINGS && !slice_is(name, names[i]))
        i++;
    return i;
}

bool log_setting_common(struct slice name) { return setting_find(name) < SETTINGS; }

/* One of two words, whatever their case. */
static enum err choose(const char *const *values, enum setting which, const char *no, const char *yes, bool *out, struct buf *why)
{
    struct slice value = slice_cstr(values[which]);
    *out = slice_ieq(value, slice_cstr(yes));
    if (*out || slice_ieq(value, slice_cstr(no)))
        return OK;
    buf_printf(why, "%s is %s or %s, not \"%s\"", names[which], no, yes, values[which]);
    return ERR_INVALID;
}

static enum err tls_read(struct own_secure *s, const char *const *values, struct buf *why)
{
    bool verify, identify;
    if (choose(values, VERIFY, "false", "true", &verify, why) != OK || choose(values, IDENTIFY, "none", "https", &identify, why) != OK)
        return ERR_INVALID;
    if (!*values[CERTIFICATE] != !*values[KEY]) {
        buf_adds(why, "a client's certificate goes with its key: ssl.certificate and ssl.key");
        return ERR_INVALID;
    }
    const struct tls_cert_conf cert = {.chain_pem = slice_cstr(values[CERTIFICATE]), .key_pem = slice_cstr(values[KEY])};
    const struct tls_client_conf conf = {.trust = !verify ? TLS_TRUST_ALL : *values[CA] ? TLS_TRUST_CA : TLS_TRUST_SYSTEM,
                                         .ca_pem = slice_cstr(values[CA]),
                                         .cert = *values[KEY] ? &cert : NULL};
    s->any_name = !verify || !identify;
    return tls_client_new(&conf, &s->tls, why);
}

static enum err sasl_read(struct own_secure *s, const char *const *values, struct buf *why)
{
    const char *given = values[*values[MECHANISM] ? MECHANISM : MECHANISMS];
    size_t user_n = strlen(values[USERNAME]);
    for (int m = OWN_SASL_PLAIN; m < OWN_SASL_KINDS; m++)
        if (slice_ieq(slice_cstr(given), slice_cstr(mechanisms[m])))
            s->sasl = (enum own_sasl)m;
    if (!s->sasl) {
        buf_printf(why, "sasl.mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (others by librdkafka), not \"%s\"", given);
        return ERR_INVALID;
    }
    if (!user_n || user_n > SCRAM_USER_MAX || !*values[PASSWORD]) {
        buf_printf(why, "to log in it takes sasl.username, of %d bytes at most, and sasl.password", SCRAM_USER_MAX);
        return ERR_INVALID;
    }
    s->user = mem_strdup(MEM_KAFKA, values[USERNAME]);
    s->password = mem_strdup(MEM_KAFKA, values[PASSWORD]);
    return OK;
}

enum err own_secure_read(struct own_secure *s, const char *const *settings, struct buf *why)
{
    const char *values[SETTINGS] = {[PROTOCOL] = "plaintext", [MECHANISM] = "", [MECHANISMS] = "", [USERNAME] = "", [PASSWORD] = "", [CA] = "", [CERTIFICATE] = "", [KEY] = "",
                                    [VERIFY] = "true", [IDENTIFY] = "https"};
    for (size_t i = 0; settings && settings[i]; i += 2) {
        int which = setting_find(slice_cstr(settings[i]));
        if (which == SETTINGS) {
            buf_printf(why, "the setting %s is librdkafka's; use that engine", settings[i]);
            return ERR_INVALID;
        }
        values[which] = settings[i + 1];
    }
    static const struct {
        const char *name;
        bool tls, sasl;
    } protocols[] = {{"plaintext", false, false}, {"ssl", true, false}, {"sasl_plaintext", false, true}, {"sasl_ssl", true, true}};
    size_t p = 0;
    while (p < COUNT_OF(protocols) && !slice_ieq(slice_cstr(values[PROTOCOL]), slice_cstr(protocols[p].name)))
        p++;
    if (p == COUNT_OF(protocols)) {
        buf_printf(why, "security.protocol is plaintext, ssl, sasl_plaintext or sasl_ssl, not \"%s\"", values[PROTOCOL]);
        return ERR_INVALID;
    }
    enum err er = protocols[p].sasl ? sasl_read(s, values, why) : OK;
    return er == OK && protocols[p].tls ? tls_read(s, values, why) : er;
}

void own_secure_fini(struct own_secure *s)
{
    tls_ctx_unref(s->tls);
    if (s->password)
        OPENSSL_cleanse(s->password, strlen(s->password));
    mem_free(s->user);
    mem_free(s->password);
    *s = (struct own_secure){0};
}

/* ---- logging in --------------------------------------------------------------------------------------------------------------------- */

struct own_login {
    struct own_conn *k;         /* NULL: it has gone while the work was in the pool */
    enum { LOGIN_BEGUN, LOGIN_SHOWN, LOGIN_PROVEN } step; /* what the broker has of us: nothing or SCRAM's first; a name; the last token */
    struct scram_client scram;
    struct work work;           /* salts the password */
    bool working;
    char *password;             /* its own: the client may go before the work does */
    uint8_t salted[SCRAM_KEY_MAX];
    enum err salted_is;
};

static void login_free(struct own_login *x)
{
    OPENSSL_cleanse(x->salted, sizeof x->salted);
    OPENSSL_cleanse(x->password, strlen(x->password));
    mem_free(x->password);
    scram_client_fini(&x->scram);
    mem_free(x);
}

void own_login_drop(struct own_login *x)
{
    if (!x)
        return;
    x->k = NULL;
    if (!x->working)
        login_free(x);
}

static void login_refused(struct own_conn *k, enum kafka_error e, struct slice text)
{
    struct own *o = k->o;
    buf_clear(&o->why);
    buf_printf(&o->why, "%s:%u: %s may not log in with %s: ", k->host, k->port, o->secure.user, mechanisms[o->secure.sasl]);
    if (text.n)
        buf_add_slice(&o->why, text);
    else
        buf_adds(&o->why, kafka_error_name(e));
    own_conn_fail(k, e);
}

static void token_told(struct own_call *call);

static void token_send(struct own_conn *k, struct slice token)
{
    struct own_call *call = own_conn_call(k, API_SASL_AUTHENTICATE, 2, token_told);
    struct kafka_sasl_authenticate_req *req = call->req;
    req->auth_bytes = own_keep(call, token);
    own_conn_send(k, call);
}

static void salt_run(struct work *w)
{
    struct own_login *x = CONTAINER_OF(w, struct own_login, work);
    x->salted_is = scram_salt_password(x->scram.kind, slice_cstr(x->password), x->scram.salt, x->scram.salt_n, x->scram.iterations, x->salted);
}

static void salt_done(struct work *w)
{
    struct own_login *x = CONTAINER_OF(w, struct own_login, work);
    struct own_conn *k = x->k;
    struct buf final = {0};
    x->working = false;
    if (!k) {
        login_free(x);
        return;
    }
    x->step = LOGIN_PROVEN;
    if (x->salted_is == OK && scram_client_final(&x->scram, x->salted, &final) == OK)
        token_send(k, buf_slice(&final));
    else
        login_refused(k, KAFKA_SASL_AUTHENTICATION_FAILED, SLICE("the password can't be hashed"));
    buf_free(&final);
}

/* The broker's answer to a token that was not refused. */
static void token_taken(struct own_login *x, struct slice answer)
{
    struct own_conn *k = x->k;
    if (x->step == LOGIN_SHOWN) {
        enum err er = scram_client_answer(&x->scram, answer);
        if (er != OK) {
            login_refused(k, KAFKA_SASL_AUTHENTICATION_FAILED, er == ERR_LIMIT ? SLICE("the broker wants fewer or more iterations than are safe") : SLICE("the broker's challenge is not well formed"));
            return;
        }
        x->working = true;
        x->work = (struct work){.run = salt_run, .done = salt_done};
        work_submit(k->o->base.loop, &x->work);
    } else if (k->o->secure.sasl != OWN_SASL_PLAIN && scram_client_verify(&x->scram, answer) != OK) {
        login_refused(k, KAFKA_SASL_AUTHENTICATION_FAILED, SLICE("the broker can't prove that it knows the password's keys"));
    } else {
        own_conn_ready(k);
    }
}

static void token_told(struct own_call *call)
{
    const struct kafka_sasl_authenticate_resp *resp = call->resp;
    struct own_conn *k = call->ctx;
    if (call->error != KAFKA_NONE)
        return; /* it has failed */
    if (resp->error_code)
        login_refused(k, (enum kafka_error)resp->error_code, resp->error_message);
    else
        token_taken(k->login, resp->auth_bytes);
}

static void scram_begin(struct own_conn *k)
{
    static const char hex[] = "0123456789abcdef";
    struct own_login *x = k->login;
    uint8_t raw[SCRAM_NONCE_BYTES];
    char nonce[2 * SCRAM_NONCE_BYTES];
    struct buf first = {0};
    random_bytes(raw, sizeof raw);
    for (size_t i = 0; i < sizeof raw; i++) {
        nonce[2 * i] = hex[raw[i] >> 4];
        nonce[2 * i + 1] = hex[raw[i] & 15];
    }
    x->step = LOGIN_SHOWN;
    x->scram.kind = k->o->secure.sasl == OWN_SASL_SCRAM_512 ? SCRAM_SHA512 : SCRAM_SHA256;
    scram_client_first(&x->scram, slice_cstr(k->o->secure.user), slice_of(nonce, sizeof nonce), &first);
    token_send(k, buf_slice(&first));
    buf_free(&first);
}

static void plain_begin(struct own_conn *k)
{
    struct buf token = {0};
    k->login->step = LOGIN_PROVEN;
    buf_addc(&token, 0);
    buf_adds(&token, k->o->secure.user);
    buf_addc(&token, 0);
    buf_adds(&token, k->o->secure.password);
    token_send(k, buf_slice(&token));
    OPENSSL_cleanse(token.p, token.n);
    buf_free(&token);
}

static void handshake_told(struct own_call *call)
{
    const struct kafka_sasl_handshake_resp *resp = call->resp;
    struct own_conn *k = call->ctx;
    struct buf text = {0};
    if (call->error != KAFKA_NONE)
        return;
    if (resp->error_code) {
        for (int32_t i = 0; i < resp->mechanisms_n; i++)
            buf_printf(&text, "%s" SLICE_FMT, i ? ", " : "the broker takes ", SLICE_ARG(resp->mechanisms[i]));
        login_refused(k, (enum kafka_error)resp->error_code, text.n ? buf_slice(&text) : SLICE("the broker takes nobody's login here"));
    } else if (k->o->secure.sasl == OWN_SASL_PLAIN)
        plain_begin(k);
    else
        scram_begin(k);
    buf_free(&text);
}

void own_login_begin(struct own_conn *k)
{
    k->state = OWN_LOGIN;
    k->login = mem_new(MEM_KAFKA, sizeof *k->login);
    k->login->k = k;
    k->login->password = mem_strdup(MEM_KAFKA, k->o->secure.password);
    struct own_call *call = own_conn_call(k, API_SASL_HANDSHAKE, 1, handshake_told);
    struct kafka_sasl_handshake_req *req = call->req;
    req->mechanism = slice_cstr(mechanisms[k->o->secure.sasl]);
    own_conn_send(k, call);
}
