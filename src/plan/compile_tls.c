/* compile_tls.c - TLS contexts of listeners and of clusters, from the Secrets and ConfigMaps of the set.
 *
 * A context costs milliseconds (keys are parsed and checked), and most of them are the same from one plan to the next. So all
 * that makes a context is put into one text, and plan_memory keeps the context under a hash of that text; a plan holds a
 * reference for as long as it lives. What cannot be made (a Secret that is not there, a key that does not fit) is kept as a
 * failure, so that the log says so once and not with each plan. A listener or cluster without its context refuses
 * connections; nothing falls back to clear text.
 */
#include "compile_int.h"

/* 128 bits of a text: keys of contexts. Seeded, so that nobody outside can look for collisions. */
static void text_hash(const struct buf *b, uint64_t hash[2])
{
    uint64_t parts[2] = {hash_bytes(b->p, b->n), 0x746c73u};
    hash[0] = parts[0];
    struct buf salted = {0};
    buf_add(&salted, parts, sizeof parts);
    buf_add(&salted, b->p, b->n);
    hash[1] = hash_bytes(salted.p, salted.n);
    memset(salted.p, 0, salted.n);
    buf_free(&salted);
}

/* One item of the text, with its length before it, so that no two lists of items make one text. */
static void text_add(struct buf *b, struct slice s)
{
    uint64_t n = s.n;
    buf_add(b, &n, sizeof n);
    buf_add_slice(b, s);
}

static void text_free(struct buf *b)
{
    if (b->p)
        memset(b->p, 0, b->n); /* it had keys in it */
    buf_free(b);
}

static struct tls_ctx *ctx_hold(struct compile *c, struct tls_ctx *ctx)
{
    if (!ctx)
        return NULL;
    struct plan_holds *h = c->holds;
    ARRAY_GROW(MEM_PLAN, h->tls, h->tls_n, h->tls_cap);
    h->tls[h->tls_n++] = tls_ctx_ref(ctx);
    return ctx;
}

/* A key of a Secret, or of a ConfigMap where there is no such Secret; empty when absent. */
static struct slice data_of(const struct compile *c, const struct secret_ref *ref, const char *key)
{
    const struct object *o = ref->name ? objset_find(c->s, OBJ_SECRET, ref->ns, ref->name) : NULL;
    const struct kv *kv = o ? kvs_get(&o->data, slice_cstr(key)) : NULL;
    if (!kv && ref->name && (o = objset_find(c->s, OBJ_CONFIGMAP, ref->ns, ref->name)))
        kv = kvs_get(&o->data, slice_cstr(key));
    return kv ? slice_of(kv->value, kv->value_n) : slice_of(NULL, 0);
}

static struct tls_cert_conf cert_of(const struct compile *c, const struct secret_ref *ref)
{
    return (struct tls_cert_conf){data_of(c, ref, "tls.crt"), data_of(c, ref, "tls.key"), data_of(c, ref, "tls.ocsp")};
}

static void ca_add(struct compile *c, struct buf *pem, const struct secret_ref *refs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct slice ca = data_of(c, &refs[i], "ca.crt");
        buf_add_slice(pem, ca);
        if (ca.n && ca.p[ca.n - 1] != '\n')
            buf_addc(pem, '\n');
    }
}

static struct tls_san *sans_of(struct compile *c, char *const *sans, size_t n)
{
    struct tls_san *out = arena_zalloc(&c->scratch, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = (struct tls_san){TLS_SAN_ANY, slice_cstr(sans[i])};
    return out;
}

static void sans_text(struct buf *text, char *const *sans, size_t n)
{
    text_add(text, slice_of((const char *)&n, sizeof n));
    for (size_t i = 0; i < n; i++)
        text_add(text, slice_cstr(sans[i]));
}

static void cert_text(struct buf *text, const struct tls_cert_conf *cert)
{
    text_add(text, cert->chain_pem);
    text_add(text, cert->key_pem);
    text_add(text, cert->ocsp);
}

/* ---- clusters ------------------------------------------------------------------------------------------------------------ */

static const struct slice alpn_h1[] = {{"http/1.1", 8}}, alpn_h2[] = {{"h2", 2}}, alpn_both[] = {{"h2", 2}, {"http/1.1", 8}};

static struct tls_ctx *upstream_make(struct compile *c, const struct upstream_tls *tls, const struct tls_client_conf *conf, const char *name)
{
    struct tls_ctx *ctx = NULL;
    struct buf why = {0};
    bool no_cert = tls->mode == TLS_MUTUAL && (!conf->cert || !conf->cert->chain_pem.n || !conf->cert->key_pem.n);
    if (no_cert)
        buf_printf(&why, "the Secret %s/%s has no tls.crt and tls.key", tls->cert.ns ? tls->cert.ns : "", tls->cert.name ? tls->cert.name : "");
    else if (conf->trust == TLS_TRUST_CA && !conf->ca_pem.n)
        buf_adds(&why, "there is no ca.crt in the objects that it refers to");
    if (why.n || tls_client_new(conf, &ctx, &why) != OK) {
        ctx = NULL;
        log_error("plan", "TLS to %s: %s; calls to it fail until that is mended", name, why.p ? why.p : "no context could be made");
    }
    buf_free(&why);
    return ctx;
}

struct tls_ctx *tls_upstream(struct compile *c, const struct upstream_tls *tls, enum upstream_http http, const char *name, uint64_t *hash)
{
    struct buf text = {0}, ca = {0};
    uint64_t key[2];
    bool found;
    struct tls_cert_conf cert = tls->mode == TLS_MUTUAL ? cert_of(c, &tls->cert) : (struct tls_cert_conf){0};
    ca_add(c, &ca, tls->ca, tls->ca_n);
    if (tls->mode == TLS_MUTUAL && !tls->ca_n && !tls->system_ca)
        ca_add(c, &ca, &tls->cert, 1); /* Istio: ca.crt beside the client's own certificate */
    bool system = tls->system_ca || (!tls->ca_n && !ca.n);
    const struct slice *alpn = http == UPSTREAM_AUTO ? alpn_both : http == UPSTREAM_HTTP2 ? alpn_h2 : alpn_h1;
    struct tls_client_conf conf = {.trust = tls->insecure ? TLS_TRUST_ALL : system ? TLS_TRUST_SYSTEM : TLS_TRUST_CA, .ca_pem = buf_slice(&ca),
        .cert = tls->mode == TLS_MUTUAL ? &cert : NULL, .sans = sans_of(c, tls->sans, tls->sans_n), .sans_n = tls->sans_n, .alpn = alpn, .alpn_n = http == UPSTREAM_AUTO ? 2 : 1};
    buf_printf(&text, "client %d %d %d", (int)tls->mode, (int)conf.trust, (int)http);
    text_add(&text, buf_slice(&ca));
    cert_text(&text, &cert);
    sans_text(&text, tls->sans, tls->sans_n);
    text_hash(&text, key);
    struct tls_ctx *ctx = memory_tls(c->m, key, &found);
    if (!found) {
        ctx = upstream_make(c, tls, &conf, name);
        memory_tls_put(c->m, key, ctx);
    }
    *hash = key[0];
    buf_free(&ca);
    text_free(&text);
    return ctx_hold(c, ctx);
}

/* ---- between nodes --------------------------------------------------------------------------------------------------------- */

static const struct slice alpn_bytes[] = {{NODE_ALPN_BYTES, sizeof NODE_ALPN_BYTES - 1}}, alpn_gate[] = {{"h2", 2}, {NODE_ALPN_BYTES, sizeof NODE_ALPN_BYTES - 1}};

/* TLS 1.3 only: both ends are Weir. tickets may be NULL. */
static enum err node_make(const struct plan_node *n, enum node_tls kind, struct tls_tickets *tickets, struct tls_ctx **ctx, struct buf *why)
{
    struct tls_cert_conf cert = {.chain_pem = n->cert_pem, .key_pem = n->key_pem};
    if (kind == NODE_TLS_GATE) {
        struct tls_server_conf conf = {.certs = &cert, .certs_n = 1, .client_auth = TLS_CLIENT_REQUIRED, .client_ca_pem = n->ca_pem, .min = TLS_VERSION_1_3, .max = TLS_VERSION_1_3,
                                       .alpn = alpn_gate, .alpn_n = COUNT_OF(alpn_gate), .tickets = tickets};
        return tls_server_new(&conf, ctx, why);
    }
    struct tls_client_conf conf = {.trust = TLS_TRUST_CA, .ca_pem = n->ca_pem, .cert = &cert, .min = TLS_VERSION_1_3, .max = TLS_VERSION_1_3,
                                   .alpn = kind == NODE_TLS_HTTP ? alpn_h2 : alpn_bytes, .alpn_n = 1};
    return tls_client_new(&conf, ctx, why);
}

struct tls_ctx *tls_node(struct compile *c, enum node_tls kind)
{
    const struct plan_node *n = c->node;
    struct tls_tickets *tickets = plan_memory_tickets(c->m);
    struct buf text = {0}, why = {0};
    uint64_t key[2];
    bool found;
    buf_printf(&text, "node %d %s", (int)kind, n->name);
    text_add(&text, slice_of((const char *)&tickets, sizeof tickets));
    text_add(&text, n->cert_pem);
    text_add(&text, n->key_pem);
    text_add(&text, n->ca_pem);
    text_hash(&text, key);
    struct tls_ctx *ctx = memory_tls(c->m, key, &found);
    if (!found) {
        if (node_make(n, kind, tickets, &ctx, &why) != OK) {
            ctx = NULL;
            log_error("plan", "TLS between nodes: %s; nothing goes from or to other nodes until that is mended", why.p ? why.p : "no context could be made");
        }
        memory_tls_put(c->m, key, ctx);
    }
    buf_free(&why);
    text_free(&text);
    return ctx_hold(c, ctx);
}

enum err plan_node_check(const struct plan_node *n, struct buf *why)
{
    enum err e = OK;
    for (int kind = NODE_TLS_GATE; e == OK && kind <= NODE_TLS_BYTES; kind++) {
        struct tls_ctx *ctx = NULL;
        if ((e = node_make(n, (enum node_tls)kind, NULL, &ctx, why)) == OK)
            tls_ctx_unref(ctx);
    }
    return e ? e : tls_cert_belongs(n->cert_pem, n->ca_pem, slice_cstr(n->name), why);
}

/* ---- listeners ----------------------------------------------------------------------------------------------------------- */

/* Gateway API: "References to a resource in different namespace are invalid UNLESS there is a ReferenceGrant". */
static bool ref_allowed(const struct compile *c, const struct tls_site *site, const struct secret_ref *ref, const char *kind)
{
    return site->gw->kind != OBJ_GATEWAY || strcmp(site->gw->ns, ref->ns) == 0 || grant_given(c, "Gateway", site->gw->ns, kind, ref->ns, ref->name);
}

static enum tls_version version_of(uint8_t v) { return v == 12 ? TLS_VERSION_1_2 : v == 13 ? TLS_VERSION_1_3 : TLS_VERSION_DEFAULT; }

static struct tls_ctx *site_make(struct compile *c, const struct tls_site *site, const struct tls_server_conf *conf)
{
    struct tls_ctx *ctx = NULL;
    struct buf why = {0};
    if (!conf->certs_n)
        buf_adds(&why, "none of its certificateRefs is a Secret with tls.crt and tls.key that it may use");
    else if (conf->client_auth != TLS_CLIENT_NONE && !conf->client_ca_pem.n)
        buf_adds(&why, "there is no ca.crt to check clients' certificates with");
    if (why.n || tls_server_new(conf, &ctx, &why) != OK) {
        ctx = NULL;
        log_error("plan", "TLS of the listener %s of %s/%s: %s; connections to it are refused until that is mended", site->ln->name ? site->ln->name : "", site->gw->ns,
                  site->gw->name, why.p ? why.p : "no context could be made");
    }
    buf_free(&why);
    return ctx;
}

/* The certificates that the listener may use and that are there. */
static size_t site_certs(struct compile *c, const struct tls_site *site, struct tls_cert_conf *certs)
{
    size_t n = 0;
    for (size_t i = 0; i < site->ln->certs_n; i++) {
        struct tls_cert_conf cert = cert_of(c, &site->ln->certs[i]);
        if (cert.chain_pem.n && cert.key_pem.n && ref_allowed(c, site, &site->ln->certs[i], "Secret"))
            certs[n++] = cert;
    }
    return n;
}

static void site_ca(struct compile *c, const struct tls_site *site, struct buf *ca)
{
    const struct gw_listener *ln = site->ln;
    for (size_t i = 0; i < ln->client_ca_n; i++)
        if (ref_allowed(c, site, &ln->client_ca[i], "ConfigMap") || ref_allowed(c, site, &ln->client_ca[i], "Secret"))
            ca_add(c, ca, &ln->client_ca[i], 1);
    if (!ln->client_ca_n)
        ca_add(c, ca, ln->certs, ln->certs_n); /* Istio: ca.crt beside the certificate */
}

static struct tls_ctx *site_ctx(struct compile *c, const struct tls_site *site, struct buf *whole)
{
    const struct gw_listener *ln = site->ln;
    bool asks = ln->tls == LISTEN_TLS_MUTUAL || ln->tls == LISTEN_TLS_OPTIONAL_MUTUAL, found;
    struct buf text = {0}, ca = {0};
    struct tls_cert_conf *certs = arena_zalloc(&c->scratch, (ln->certs_n + 1) * sizeof *certs);
    if (asks)
        site_ca(c, site, &ca);
    bool http = ln->protocol == LISTEN_HTTPS || ln->protocol == LISTEN_HTTP;
    struct tls_server_conf conf = {.certs = certs, .certs_n = site_certs(c, site, certs), .client_ca_pem = buf_slice(&ca),
        .client_auth = !asks ? TLS_CLIENT_NONE : ln->tls == LISTEN_TLS_MUTUAL ? TLS_CLIENT_REQUIRED : TLS_CLIENT_OPTIONAL,
        .client_sans = sans_of(c, ln->client_sans, ln->client_sans_n), .client_sans_n = asks ? ln->client_sans_n : 0, .min = version_of(ln->tls_min), .max = version_of(ln->tls_max),
        .ciphers = ln->ciphers, .alpn = alpn_both, .alpn_n = http ? COUNT_OF(alpn_both) : 0, .tickets = plan_memory_tickets(c->m)};
    buf_printf(&text, "server %d %d %d %d", (int)conf.client_auth, (int)conf.min, (int)conf.max, http);
    text_add(&text, slice_of((const char *)&conf.tickets, sizeof conf.tickets));
    text_add(&text, slice_cstr(ln->ciphers ? ln->ciphers : ""));
    text_add(&text, buf_slice(&ca));
    sans_text(&text, ln->client_sans, conf.client_sans_n);
    for (size_t i = 0; i < conf.certs_n; i++)
        cert_text(&text, &certs[i]);
    uint64_t key[2];
    text_hash(&text, key);
    struct tls_ctx *ctx = memory_tls(c->m, key, &found);
    if (!found) {
        ctx = site_make(c, site, &conf);
        memory_tls_put(c->m, key, ctx);
    }
    text_add(whole, site->pattern);
    buf_add(whole, key, sizeof key);
    buf_free(&ca);
    text_free(&text);
    return ctx;
}

struct tls_ctx *tls_listener(struct compile *c, const struct tls_site *sites, size_t n)
{
    struct tls_host *hosts = arena_zalloc(&c->scratch, (n + 1) * sizeof *hosts);
    struct buf whole = {0}, why = {0};
    size_t hosts_n = 0;
    buf_adds(&whole, "hosts");
    for (size_t i = 0; i < n; i++) {
        struct tls_ctx *ctx = site_ctx(c, &sites[i], &whole);
        if (ctx)
            hosts[hosts_n++] = (struct tls_host){sites[i].pattern, ctx};
    }
    uint64_t key[2];
    bool found;
    text_hash(&whole, key);
    struct tls_ctx *ctx = memory_tls(c->m, key, &found);
    if (!found) {
        if (hosts_n && tls_hosts_new(hosts, hosts_n, &ctx, &why) != OK) {
            ctx = NULL;
            log_error("plan", "TLS of %s/%s: %s", sites[0].gw->ns, sites[0].gw->name, why.p ? why.p : "no context could be made");
        }
        memory_tls_put(c->m, key, ctx);
    }
    buf_free(&whole);
    buf_free(&why);
    return ctx_hold(c, ctx);
}
