/* tls_ctx.c - contexts: what the connections of a server, or of a client, have in common.
 *
 * A context is built once, from texts, checked as far as can be, and then immutable: threads share it, and a new plan makes
 * new ones while connections keep theirs. It holds one SSL_CTX. Certificates beyond the default are put on a connection
 * when its server name is known, so a thousand of them cost a thousand certificates and not a thousand SSL_CTX.
 *
 *     ClientHello -> hello_cb: server name -> (hosts: which context) -> which certificates -> the rest of the handshake
 *
 * What OpenSSL copied from the first SSL_CTX when the connection began (versions, options, verification) is set again
 * when hosts choose another. Sessions are bound to the policy on client certificates by a digest of it, so that a ticket
 * from a host that asks for none opens nothing at a host that does. A client's sessions are bound to whom it believes and as whom it comes, for a server that
 * is resumed is not verified again: with another CA or another certificate of its own it begins anew.
 *
 * Own locks: none. The system's roots are loaded once per process.
 */
#include "tls_int.h"

#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>

#define CIPHERS                                                                                                             \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"   \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERSUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS "X25519:P-256:P-384"

/* ---- life ---- */

static struct tls_ctx *ctx_alloc(bool is_server)
{
    struct tls_ctx *ctx = mem_new(MEM_TLS, sizeof *ctx);
    ctx->refs = 1;
    ctx->is_server = is_server;
    ctx->expires_s = INT64_MAX;
    return ctx;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx)
{
    __atomic_add_fetch(&ctx->refs, 1, __ATOMIC_RELAXED);
    return ctx;
}

void tls_ctx_unref(struct tls_ctx *ctx)
{
    if (!ctx || __atomic_sub_fetch(&ctx->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    SSL_CTX_free(ctx->ssl);
    for (size_t i = 0; i < ctx->certs_n; i++) tls_cert_fini(&ctx->certs[i]);
    for (size_t i = 0; i < ctx->sites_n; i++) mem_free((char *)(uintptr_t)ctx->sites[i].names.p);
    for (size_t i = 0; i < ctx->hosts_n; i++) tls_ctx_unref(ctx->hosts[i]);
    for (size_t i = 0; i < ctx->sans_n; i++) mem_free((char *)(uintptr_t)ctx->sans[i].text.p);
    tls_names_fini(&ctx->names);
    tls_tickets_unref(ctx->tickets);
    mem_free(ctx->certs);
    mem_free(ctx->sites);
    mem_free(ctx->hosts);
    mem_free(ctx->sans);
    mem_free(ctx->alpn);
    mem_free(ctx);
}

int64_t tls_ctx_expires_s(const struct tls_ctx *ctx) { return ctx->expires_s; }

static struct stream_tls *tls_of(const SSL *ssl)
{
    return ((struct stream *)SSL_get_app_data(ssl))->tls;
}

/* ---- verification ---- */

static int verify_cb(int ok, X509_STORE_CTX *x)
{
    if (!ok || X509_STORE_CTX_get_error_depth(x) > 0) return ok;
    struct stream_tls *t = tls_of(X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx()));
    const struct tls_ctx *ctx = t->chosen;
    X509 *leaf = X509_STORE_CTX_get_current_cert(x);
    bool named = !t->verify_name || tls_cert_is_for(leaf, slice_cstr(t->verify_name));
    if (named && (ctx->sans_n == 0 || tls_cert_has_san(leaf, ctx->sans, ctx->sans_n))) return 1;
    struct buf names = {0};
    tls_cert_names(leaf, &names);
    if (!named) tls_why(t, "the certificate of the peer is for %s, not for %s", names.p, t->verify_name);
    else tls_why(t, "the certificate of the peer is for %s, none of the names that are allowed", names.p);
    buf_free(&names);
    X509_STORE_CTX_set_error(x, X509_V_ERR_HOSTNAME_MISMATCH);
    return 0;
}

static void verify_set(SSL *ssl, const struct tls_ctx *ctx)
{
    SSL_set_verify(ssl, ctx->verify, ctx->verify == SSL_VERIFY_NONE ? NULL : verify_cb);
    if (ctx->verify != SSL_VERIFY_NONE) X509_VERIFY_PARAM_set_time(SSL_get0_param(ssl), (time_t)(wall_ns() / 1000000000));
}

/* ---- choosing by server name ---- */

/* The host_name of the extension, RFC 6066 section 3; empty when there is none. False: malformed. */
static bool hello_name(SSL *ssl, struct slice *out)
{
    const unsigned char *p;
    size_t n;
    *out = (struct slice){0};
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n)) return true;
    if (n < 5 || (size_t)(p[0] << 8 | p[1]) != n - 2 || p[2] != TLSEXT_NAMETYPE_host_name) return false;
    size_t len = (size_t)(p[3] << 8 | p[4]);
    if (len == 0 || len > n - 5 || len > TLS_NAME_MAX || memchr(p + 5, 0, len)) return false;
    *out = slice_of((const char *)p + 5, len);
    return true;
}

static bool keep_name(struct stream_tls *t, struct slice name)
{
    mem_free(t->server_name); /* of a first ClientHello, before a HelloRetryRequest */
    t->server_name = NULL;
    if (name.n == 0) return true;
    t->server_name = mem_try(MEM_TLS, name.n + 1);
    for (size_t i = 0; t->server_name && i < name.n; i++) t->server_name[i] = ascii_lower(name.p[i]);
    return t->server_name != NULL;
}

static struct tls_ctx *host_find(struct tls_ctx *ctx, struct slice name)
{
    if (ctx->hosts_n == 0) return ctx;
    struct tls_ctx *found = name.n ? tls_names_find(&ctx->names, name, true) : NULL;
    return found ? found : ctx->fallback;
}

/* What the connection took from the first SSL_CTX becomes what the chosen one says. */
static bool ctx_switch(SSL *ssl, const struct tls_ctx *ctx)
{
    if (!SSL_set_SSL_CTX(ssl, ctx->ssl)) return false;
    if (ctx->tickets) SSL_clear_options(ssl, SSL_OP_NO_TICKET);
    else SSL_set_options(ssl, SSL_OP_NO_TICKET);
    return SSL_set_num_tickets(ssl, ctx->tickets ? 1 : 0) && SSL_set_min_proto_version(ssl, ctx->min_version) &&
           SSL_set_max_proto_version(ssl, ctx->max_version) && SSL_set_session_id_context(ssl, ctx->sid, sizeof ctx->sid);
}

static bool site_use(SSL *ssl, const struct tls_site *site)
{
    SSL_certs_clear(ssl);
    for (size_t i = 0; i < site->certs_n; i++)
        if (SSL_use_cert_and_key(ssl, site->certs[i]->leaf, site->certs[i]->key, site->certs[i]->chain, 1) != 1) return false;
    return true;
}

static int hello_cb(SSL *ssl, int *alert, void *arg)
{
    struct stream_tls *t = tls_of(ssl);
    struct slice name;
    *alert = SSL_AD_DECODE_ERROR;
    if (!hello_name(ssl, &name)) return SSL_CLIENT_HELLO_ERROR;
    *alert = SSL_AD_INTERNAL_ERROR;
    if (!keep_name(t, name)) return SSL_CLIENT_HELLO_ERROR;
    name.p = t->server_name;
    struct tls_ctx *ctx = host_find(t->ctx, name);
    if (!ctx) {
        *alert = name.n ? SSL_AD_UNRECOGNIZED_NAME : SSL_AD_MISSING_EXTENSION;
        if (name.n) tls_why(t, "nobody serves the name %s that the client asked for", t->server_name);
        else tls_why(t, "the client sent no server name, and none is served by default");
        return SSL_CLIENT_HELLO_ERROR;
    }
    t->chosen = ctx;
    if (ctx->ssl != SSL_get_SSL_CTX(ssl) && !ctx_switch(ssl, ctx)) return SSL_CLIENT_HELLO_ERROR;
    verify_set(ssl, ctx);
    const struct tls_site *site = name.n ? tls_names_find(&ctx->names, name, false) : NULL;
    if (site && site != &ctx->sites[0] && !site_use(ssl, site)) return SSL_CLIENT_HELLO_ERROR;
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* ---- other callbacks of OpenSSL ---- */

static int alpn_cb(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, unsigned in_n, void *arg)
{
    const struct tls_ctx *ctx = tls_of(ssl)->chosen;
    unsigned char *at;
    if (SSL_select_next_proto(&at, out_n, ctx->alpn, (unsigned)ctx->alpn_n, in, in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301 section 3.2 */
    *out = at;
    return SSL_TLSEXT_ERR_OK;
}

static int ocsp_cb(SSL *ssl, void *arg)
{
    const struct tls_ctx *ctx = tls_of(ssl)->chosen;
    const X509 *shown = SSL_get_certificate(ssl);
    for (size_t i = 0; i < ctx->certs_n; i++) {
        const struct tls_cert *c = &ctx->certs[i];
        if (c->leaf != shown || c->ocsp.n == 0) continue;
        void *copy = OPENSSL_memdup(c->ocsp.p, c->ocsp.n);
        if (!copy) break;
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)c->ocsp.n);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

static int ticket_cb(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc)
{
    struct tls_tickets *tickets = tls_of(ssl)->chosen->tickets;
    int r = tickets ? tls_ticket_key(tickets, name, iv, cipher, mac, enc) : 0;
    return !enc && r == 1 && SSL_version(ssl) == TLS1_3_VERSION ? 2 : r; /* there each is used once: another one, always */
}

/* Under what a client's session was made: what its context believes and shows, and the name that the server had to have. */
static bool session_terms(const struct stream_tls *t, unsigned char out[TLS_TERMS_BYTES])
{
    unsigned char text[TLS_TERMS_BYTES + TLS_NAME_MAX];
    size_t n = t->verify_name ? MIN(strlen(t->verify_name), (size_t)TLS_NAME_MAX) : 0;
    unsigned got = 0;
    memcpy(text, t->ctx->sid, TLS_TERMS_BYTES);
    if (n) memcpy(text + TLS_TERMS_BYTES, t->verify_name, n);
    return EVP_Digest(text, TLS_TERMS_BYTES + n, out, &got, EVP_sha256(), NULL) == 1;
}

/* A client's session that can be resumed; TLS 1.3 gives one per ticket. */
static int session_cb(SSL *ssl, SSL_SESSION *session)
{
    struct tls_session_slot *slot = tls_of(ssl)->slot;
    if (!slot || !session_terms(tls_of(ssl), slot->terms)) return 0;
    SSL_SESSION_free(slot->session);
    slot->session = session;
    return 1; /* ours now */
}

void tls_session_slot_fini(struct tls_session_slot *slot)
{
    SSL_SESSION_free(slot->session);
    slot->session = NULL;
}

/* ---- building: what both roles have ---- */

static enum err refused(struct buf *why, const char *what)
{
    unsigned long e = ERR_peek_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;
    buf_printf(why, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
    ERR_clear_error();
    return ERR_INVALID;
}

static int version_number(enum tls_version v, int otherwise)
{
    return v == TLS_VERSION_1_3 ? TLS1_3_VERSION : v == TLS_VERSION_1_2 ? TLS1_2_VERSION : otherwise;
}

static enum err set_versions(struct tls_ctx *ctx, enum tls_version min, enum tls_version max, struct buf *why)
{
    ctx->min_version = version_number(min, TLS1_2_VERSION);
    ctx->max_version = version_number(max, 0);
    if (ctx->max_version && ctx->max_version < ctx->min_version) return refused(why, "the lowest TLS version is above the highest");
    if (!SSL_CTX_set_min_proto_version(ctx->ssl, ctx->min_version) || !SSL_CTX_set_max_proto_version(ctx->ssl, ctx->max_version))
        return refused(why, "these TLS versions cannot be set");
    return OK;
}

bool tls_ciphers_known(const char *ciphers)
{
    SSL_CTX *ssl = SSL_CTX_new(TLS_server_method());
    bool known = ssl && SSL_CTX_set_cipher_list(ssl, ciphers) == 1;
    SSL_CTX_free(ssl);
    ERR_clear_error();
    return known;
}

static enum err set_ciphers(struct tls_ctx *ctx, const char *ciphers, const char *suites, struct buf *why)
{
    if (SSL_CTX_set_cipher_list(ctx->ssl, ciphers ? ciphers : CIPHERS) != 1) return refused(why, "the list of ciphers names none that is known");
    if (SSL_CTX_set_ciphersuites(ctx->ssl, suites ? suites : CIPHERSUITES) != 1) return refused(why, "the list of cipher suites (TLS 1.3) is not understood");
    if (SSL_CTX_set1_groups_list(ctx->ssl, GROUPS) != 1) return refused(why, "the key exchange groups cannot be set");
    return OK;
}

static enum err set_alpn(struct tls_ctx *ctx, const struct slice *list, size_t n, struct buf *why)
{
    if (n == 0) return OK;
    for (size_t i = 0; i < n; i++) {
        if (list[i].n == 0 || list[i].n > 255) return refused(why, "an application protocol (ALPN) has 1 to 255 bytes");
        ctx->alpn_n += 1 + list[i].n;
    }
    unsigned char *to = ctx->alpn = mem_new(MEM_TLS, ctx->alpn_n);
    for (size_t i = 0; i < n; i++) {
        *to++ = (unsigned char)list[i].n;
        memcpy(to, list[i].p, list[i].n);
        to += list[i].n;
    }
    if (ctx->is_server) SSL_CTX_set_alpn_select_cb(ctx->ssl, alpn_cb, NULL);
    else if (SSL_CTX_set_alpn_protos(ctx->ssl, ctx->alpn, (unsigned)ctx->alpn_n)) return ERR_NOMEM; /* 0 is success here */
    return OK;
}

static void set_sans(struct tls_ctx *ctx, const struct tls_san *sans, size_t n)
{
    if (n == 0) return;
    ctx->sans = mem_new(MEM_TLS, n * sizeof *sans);
    for (; ctx->sans_n < n; ctx->sans_n++) {
        struct slice text = sans[ctx->sans_n].text;
        ctx->sans[ctx->sans_n] = (struct tls_san){sans[ctx->sans_n].kind, slice_of(mem_strndup(MEM_TLS, text.p, text.n), text.n)};
    }
}

/* Certificates in pem are trusted, roots or not. */
static enum err set_ca(struct tls_ctx *ctx, struct slice pem, const char *what, struct buf *why)
{
    STACK_OF(X509) *certs = sk_X509_new_null();
    if (!certs) return ERR_NOMEM;
    struct buf detail = {0};
    enum err e = tls_pem_certs(pem, certs, &detail);
    if (e) buf_printf(why, "%s cannot be used: %s", what, detail.n ? detail.p : err_text(e));
    buf_free(&detail);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx->ssl);
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    for (int i = 0; !e && i < sk_X509_num(certs); i++) {
        X509 *x = sk_X509_value(certs, i);
        if (X509_STORE_add_cert(store, x) != 1 || (ctx->is_server && SSL_CTX_add_client_CA(ctx->ssl, x) != 1)) e = ERR_NOMEM;
    }
    sk_X509_pop_free(certs, X509_free);
    return e;
}

static enum err ssl_ctx_make(struct tls_ctx *ctx)
{
    ERR_clear_error();
    ctx->ssl = SSL_CTX_new(ctx->is_server ? TLS_server_method() : TLS_client_method());
    if (!ctx->ssl) return ERR_NOMEM;
    SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx->ssl, SSL_MODE_RELEASE_BUFFERS);
    if (tls_kernel_on()) SSL_CTX_set_options(ctx->ssl, SSL_OP_ENABLE_KTLS); /* keys are offered to the BIO */
    return OK;
}

/* ---- building: servers ---- */

static enum err sid_make(struct tls_ctx *ctx, const struct tls_server_conf *conf)
{
    struct buf b = {0};
    buf_printf(&b, "weir server %d %zu ", (int)conf->client_auth, conf->client_ca_pem.n);
    if (conf->client_auth != TLS_CLIENT_NONE) buf_add_slice(&b, conf->client_ca_pem);
    for (size_t i = 0; i < conf->client_sans_n; i++)
        buf_printf(&b, " %d %zu " SLICE_FMT, (int)conf->client_sans[i].kind, conf->client_sans[i].text.n, SLICE_ARG(conf->client_sans[i].text));
    unsigned n = 0;
    int r = EVP_Digest(b.p, b.n, ctx->sid, &n, EVP_sha256(), NULL);
    buf_free(&b);
    return r == 1 && SSL_CTX_set_session_id_context(ctx->ssl, ctx->sid, sizeof ctx->sid) == 1 ? OK : ERR_NOMEM;
}

static void set_resumption(struct tls_ctx *ctx, const struct tls_server_conf *conf)
{
    SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx->ssl, ticket_cb); /* always: hosts may choose a context that has keys */
    SSL_CTX_set_timeout(ctx->ssl, conf->client_auth == TLS_CLIENT_NONE ? TLS_TICKET_SECONDS : TLS_TICKET_SECONDS_AUTH);
    SSL_CTX_set_num_tickets(ctx->ssl, conf->tickets ? 1 : 0);
    if (conf->tickets) ctx->tickets = tls_tickets_ref(conf->tickets);
    else SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_TICKET);
}

static enum err set_client_auth(struct tls_ctx *ctx, const struct tls_server_conf *conf, struct buf *why)
{
    ctx->verify = SSL_VERIFY_NONE;
    if (conf->client_auth == TLS_CLIENT_NONE) return OK;
    ctx->verify = SSL_VERIFY_PEER | (conf->client_auth == TLS_CLIENT_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
    set_sans(ctx, conf->client_sans, conf->client_sans_n);
    return set_ca(ctx, conf->client_ca_pem, "the CA for client certificates", why);
}

/* All names of x, in their order. */
static struct slice names_of(const X509 *x, struct arena *a, struct tls_san **sans, size_t *sans_n)
{
    *sans = tls_cert_sans(x, a, sans_n);
    struct buf b = {0};
    for (size_t i = 0; i < *sans_n; i++) buf_printf(&b, "%d " SLICE_FMT "\n", (int)(*sans)[i].kind, SLICE_ARG((*sans)[i].text));
    size_t n;
    char *p = buf_take(&b, &n);
    return slice_of(p, n);
}

static struct tls_site *site_for(struct tls_ctx *ctx, const struct tls_cert *c, struct slice names)
{
    for (size_t i = 0; i < ctx->sites_n; i++) {
        struct tls_site *site = &ctx->sites[i];
        bool same_kind = site->certs_n == TLS_SITE_CERTS;
        for (size_t k = 0; k < site->certs_n; k++) same_kind |= EVP_PKEY_get_base_id(site->certs[k]->key) == EVP_PKEY_get_base_id(c->key);
        if (!same_kind && slice_eq(site->names, names)) return site;
    }
    return &ctx->sites[ctx->sites_n++];
}

/* Sorts a certificate into its site, and its names into the table: the first that has a name serves it. */
static void site_add(struct tls_ctx *ctx, struct tls_cert *c)
{
    struct arena a;
    arena_init(&a, MEM_TLS, 1024);
    struct tls_san *sans;
    size_t n;
    struct slice names = names_of(c->leaf, &a, &sans, &n);
    struct tls_site *site = site_for(ctx, c, names);
    if (site->certs_n == 0) site->names = names;
    else mem_free((char *)(uintptr_t)names.p);
    site->certs[site->certs_n++] = c;
    for (size_t i = 0; i < n; i++)
        if (sans[i].kind == TLS_SAN_DNS) (void)tls_names_add(&ctx->names, sans[i].text, site);
    arena_fini(&a);
}

/* OpenSSL's own check, for its rules on keys and signatures; into a context that is thrown away. */
static enum err cert_try(const struct tls_cert *c, SSL_CTX *scratch, struct buf *why)
{
    ERR_clear_error();
    if (SSL_CTX_use_cert_and_key(scratch, c->leaf, c->key, c->chain, 1) == 1) return OK;
    buf_adds(why, "the certificate for ");
    tls_cert_names(c->leaf, why);
    return refused(why, " cannot be used");
}

static enum err set_certs(struct tls_ctx *ctx, const struct tls_server_conf *conf, struct buf *why)
{
    if (conf->certs_n == 0) return refused(why, "a TLS server needs a certificate");
    ctx->certs = mem_new(MEM_TLS, conf->certs_n * sizeof *ctx->certs);
    ctx->sites = mem_new(MEM_TLS, conf->certs_n * sizeof *ctx->sites);
    SSL_CTX *scratch = SSL_CTX_new(TLS_server_method());
    enum err e = scratch ? OK : ERR_NOMEM;
    while (!e && ctx->certs_n < conf->certs_n) {
        struct tls_cert *c = &ctx->certs[ctx->certs_n];
        e = tls_cert_read(c, &conf->certs[ctx->certs_n++], conf->any_time, why);
        if (!e) e = cert_try(c, scratch, why);
        if (e) break;
        site_add(ctx, c);
        ctx->expires_s = MIN(ctx->expires_s, tls_cert_expires_s(c->leaf));
    }
    SSL_CTX_free(scratch);
    for (size_t i = 0; !e && i < ctx->sites[0].certs_n; i++) e = cert_try(ctx->sites[0].certs[i], ctx->ssl, why);
    return e;
}

static enum err server_fill(struct tls_ctx *ctx, const struct tls_server_conf *conf, struct buf *why)
{
    enum err e = ssl_ctx_make(ctx);
    if (!e) e = set_certs(ctx, conf, why);
    if (!e) e = set_versions(ctx, conf->min, conf->max, why);
    if (!e) e = set_ciphers(ctx, conf->ciphers, conf->ciphersuites, why);
    if (!e) e = set_client_auth(ctx, conf, why);
    if (!e) e = set_alpn(ctx, conf->alpn, conf->alpn_n, why);
    if (!e) e = sid_make(ctx, conf);
    if (e) return e;
    set_resumption(ctx, conf);
    SSL_CTX_set_client_hello_cb(ctx->ssl, hello_cb, NULL);
    SSL_CTX_set_tlsext_status_cb(ctx->ssl, ocsp_cb);
    return OK;
}

static enum err built(struct tls_ctx *ctx, enum err e, struct tls_ctx **out, struct buf *why)
{
    if (!e) {
        *out = ctx;
        return OK;
    }
    if (why->n == 0) buf_adds(why, err_text(e));
    tls_ctx_unref(ctx);
    return e;
}

enum err tls_server_new(const struct tls_server_conf *conf, struct tls_ctx **out, struct buf *why)
{
    struct tls_ctx *ctx = ctx_alloc(true);
    return built(ctx, server_fill(ctx, conf, why), out, why);
}

enum err tls_hosts_new(const struct tls_host *hosts, size_t n, struct tls_ctx **out, struct buf *why)
{
    MUST(n > 0);
    struct tls_ctx *ctx = ctx_alloc(true);
    ctx->hosts = mem_new(MEM_TLS, n * sizeof *ctx->hosts);
    enum err e = OK;
    for (size_t i = 0; i < n && !e; i++) {
        struct slice pattern = hosts[i].pattern;
        struct tls_ctx *host = hosts[i].ctx;
        MUST(host->is_server && host->hosts_n == 0);
        ctx->hosts[ctx->hosts_n++] = tls_ctx_ref(host);
        ctx->expires_s = MIN(ctx->expires_s, host->expires_s);
        bool all = pattern.n == 0 || slice_is(pattern, "*");
        bool fresh = all ? !ctx->fallback : tls_names_add(&ctx->names, pattern, host);
        if (all) ctx->fallback = host;
        if (fresh) continue;
        buf_printf(why, "the host name \"" SLICE_FMT "\" is there twice", SLICE_ARG(pattern));
        e = ERR_EXISTS;
    }
    ctx->ssl = (ctx->fallback ? ctx->fallback : ctx->hosts[0])->ssl;
    SSL_CTX_up_ref(ctx->ssl);
    return built(ctx, e, out, why);
}

/* ---- building: clients ---- */

static X509_STORE *system_roots;
static pthread_once_t system_roots_once = PTHREAD_ONCE_INIT;

/* A bundle is read once; OpenSSL's default, a folder, would be searched on disk within handshakes. */
static void system_roots_load(void)
{
    const char *const files[] = {secure_getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"};
    X509_STORE *store = X509_STORE_new();
    bool loaded = false;
    for (size_t i = 0; store && !loaded && i < COUNT_OF(files); i++) loaded = files[i] && X509_STORE_load_file(store, files[i]) == 1;
    if (store && !loaded) loaded = X509_STORE_set_default_paths(store) == 1;
    ERR_clear_error();
    system_roots = store;
}

static enum err set_trust(struct tls_ctx *ctx, const struct tls_client_conf *conf, struct buf *why)
{
    ctx->verify = conf->trust == TLS_TRUST_ALL ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    set_sans(ctx, conf->sans, conf->sans_n);
    if (conf->trust == TLS_TRUST_ALL) return OK;
    if (conf->trust == TLS_TRUST_CA) return set_ca(ctx, conf->ca_pem, "the CA for server certificates", why);
    pthread_once(&system_roots_once, system_roots_load);
    if (!system_roots) return ERR_NOMEM;
    SSL_CTX_set1_cert_store(ctx->ssl, system_roots);
    return OK;
}

static enum err set_own_cert(struct tls_ctx *ctx, const struct tls_client_conf *conf, struct buf *why)
{
    if (!conf->cert) return OK;
    ctx->certs = mem_new(MEM_TLS, sizeof *ctx->certs);
    ctx->certs_n = 1;
    enum err e = tls_cert_read(&ctx->certs[0], conf->cert, conf->any_time, why);
    if (!e) e = cert_try(&ctx->certs[0], ctx->ssl, why);
    if (!e) ctx->expires_s = tls_cert_expires_s(ctx->certs[0].leaf);
    return e;
}

/* See session_terms(). */
static enum err terms_make(struct tls_ctx *ctx, const struct tls_client_conf *conf)
{
    struct buf b = {0};
    buf_printf(&b, "weir client %d %d %zu ", (int)conf->trust, conf->cert != NULL, conf->ca_pem.n);
    buf_add_slice(&b, conf->ca_pem);
    if (conf->cert) buf_printf(&b, " %zu " SLICE_FMT, conf->cert->chain_pem.n, SLICE_ARG(conf->cert->chain_pem));
    for (size_t i = 0; i < conf->sans_n; i++) buf_printf(&b, " %d %zu " SLICE_FMT, (int)conf->sans[i].kind, conf->sans[i].text.n, SLICE_ARG(conf->sans[i].text));
    unsigned n = 0;
    int r = EVP_Digest(b.p, b.n, ctx->sid, &n, EVP_sha256(), NULL);
    buf_free(&b);
    return r == 1 ? OK : ERR_NOMEM;
}

static enum err client_fill(struct tls_ctx *ctx, const struct tls_client_conf *conf, struct buf *why)
{
    enum err e = ssl_ctx_make(ctx);
    if (!e) e = set_trust(ctx, conf, why);
    if (!e) e = set_own_cert(ctx, conf, why);
    if (!e) e = set_versions(ctx, conf->min, conf->max, why);
    if (!e) e = set_ciphers(ctx, conf->ciphers, conf->ciphersuites, why);
    if (!e) e = set_alpn(ctx, conf->alpn, conf->alpn_n, why);
    if (!e) e = terms_make(ctx, conf);
    if (e) return e;
    SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx->ssl, session_cb);
    return OK;
}

enum err tls_client_new(const struct tls_client_conf *conf, struct tls_ctx **out, struct buf *why)
{
    struct tls_ctx *ctx = ctx_alloc(false);
    return built(ctx, client_fill(ctx, conf, why), out, why);
}

/* ---- connections ---- */

static bool is_ip(const char *name)
{
    struct addr a;
    return addr_parse(slice_cstr(name), 0, &a) == OK;
}

static bool client_prepare(SSL *ssl, struct stream_tls *t)
{
    SSL_set_connect_state(ssl);
    if (t->server_name && !is_ip(t->server_name) && SSL_set_tlsext_host_name(ssl, t->server_name) != 1) return false;
    SSL_SESSION *session = t->slot ? t->slot->session : NULL;
    unsigned char terms[TLS_TERMS_BYTES];
    if (!session) return true;
    if (!session_terms(t, terms) || memcmp(terms, t->slot->terms, sizeof terms) != 0) {
        tls_session_slot_fini(t->slot);
        return true;
    }
    bool set = SSL_set_session(ssl, session) == 1; /* takes a reference */
    /* a ticket of TLS 1.3 is used once, lest an observer link connections by it: RFC 8446 appendix C.4 */
    if (!set || SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION) tls_session_slot_fini(t->slot);
    if (!set) ERR_clear_error();
    return true;
}

SSL *tls_ssl_new(const struct tls_ctx *ctx, struct stream *s)
{
    SSL *ssl = SSL_new(ctx->ssl);
    if (!ssl) return NULL;
    SSL_set_app_data(ssl, s);
    BIO *bio = s->loop->tls->bio;
    BIO_up_ref(bio);
    SSL_set_bio(ssl, bio, bio); /* takes one reference for both */
    if (ctx->is_server) {
        SSL_set_accept_state(ssl);
        return ssl;
    }
    verify_set(ssl, ctx);
    if (client_prepare(ssl, s->tls)) return ssl;
    SSL_free(ssl);
    return NULL;
}
