/* load_net.c - what is listened on and who may refer to whom: Gateways of the Gateway API and of Istio, and ReferenceGrants.
 *
 * Both kinds of Gateway become struct gateway. A listener of the Gateway API has one hostname; a server of Istio has a list of
 * "namespace/host". Istio's Gateway is opened by the proxies that its selector finds, on every address; here the one proxy
 * listens, on the host's loopback unless bind says otherwise: nothing is opened beyond it that no manifest asks for.
 */
#include "plan_int.h"

static bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

/* ---- TLS of a listener ------------------------------------------------------------------------------------------------- */

/* Options are the implementation's own (GatewayTLSConfig.options); these are ours. */
static void load_tls_options(struct reader *r, struct object *o, const struct ynode *tls, struct gw_listener *ln)
{
    static const char *const keys[] = {"weir.dev/min-version", "weir.dev/max-version", "weir.dev/ciphers"};
    const struct ynode *map = y_get(tls, "options");
    for (uint32_t i = 0; map && map->type == Y_MAP && i < map->n; i++) {
        const struct ypair *p = &map->pairs[i];
        struct slice v = y_str(p->value);
        uint8_t version = slice_is(v, "1.2") ? 12 : slice_is(v, "1.3") ? 13 : 0;
        size_t mark = reader_push(r, ".tls.options[\"" SLICE_FMT "\"]", (int)MIN(p->key.n, 60), p->key.p);
        if (slice_is(p->key, keys[2]))
            ln->ciphers = (char *)arena_slice(&o->mem, v).p;
        else if (!slice_is(p->key, keys[0]) && !slice_is(p->key, keys[1]))
            reader_warn_at(r, p->line, p->column, "known here: weir.dev/min-version, weir.dev/max-version, weir.dev/ciphers",
                           "ignored: the option is not known here");
        else if (!version)
            reader_error_at(r, p->line, p->column, "give \"1.2\" or \"1.3\"", "not a version of TLS: \"%.*s\"", (int)MIN(v.n, 60), v.p);
        else
            *(slice_is(p->key, keys[0]) ? &ln->tls_min : &ln->tls_max) = version;
        reader_pop(r, mark);
    }
    if (ln->tls_min && ln->tls_max && ln->tls_min > ln->tls_max)
        reader_error(r, map, ".tls.options", "swap them", "the least version of TLS is above the greatest");
}

/* validation: {caCertificateRefs, mode}; of the listener (v1.1 to v1.3 of the API) or of the Gateway (since v1.4). */
static void load_validation(struct object *o, const struct ynode *validation, struct gw_listener *ln)
{
    if (!validation || validation->type != Y_MAP || ln->tls == LISTEN_TLS_NONE || ln->tls == LISTEN_TLS_PASSTHROUGH)
        return;
    ln->client_ca = load_secret_refs(o, validation, "caCertificateRefs", &ln->client_ca_n);
    ln->tls = load_is(validation, "mode", "AllowInsecureFallback") ? LISTEN_TLS_OPTIONAL_MUTUAL : LISTEN_TLS_MUTUAL;
}

/* spec.tls.frontend: the default of all listeners that end TLS, or of those on one port. */
static void load_frontend(struct object *o, const struct ynode *spec)
{
    const struct ynode *front = y_path(spec, "tls.frontend"), *ports = y_get(front, "perPort");
    for (size_t i = 0; i < o->gw.listeners_n; i++) {
        struct gw_listener *ln = &o->gw.listeners[i];
        const struct ynode *validation = y_path(front, "default.validation");
        for (uint32_t k = 0; k < load_list_n(front, "perPort"); k++)
            if (load_int(ports->items[k], "port", 0, 65535) == ln->port)
                validation = y_path(ports->items[k], "tls.validation");
        if (ln->tls == LISTEN_TLS_TERMINATE)
            load_validation(o, validation, ln);
    }
}

static void load_listener_tls(struct reader *r, struct object *o, const struct ynode *n, struct gw_listener *ln)
{
    const struct ynode *tls = y_get(n, "tls");
    bool wanted = ln->protocol == LISTEN_HTTPS || ln->protocol == LISTEN_TLS, pass = load_is(tls, "mode", "Passthrough");
    if (!wanted) {
        if (tls)
            reader_error(r, tls, ".tls", "use protocol HTTPS or TLS, or remove it", "has no meaning with this protocol");
        return;
    }
    ln->tls = pass ? LISTEN_TLS_PASSTHROUGH : LISTEN_TLS_TERMINATE;
    ln->certs = load_secret_refs(o, tls, "certificateRefs", &ln->certs_n);
    load_tls_options(r, o, tls, ln);
    load_validation(o, y_get(tls, "frontendValidation"), ln);
    if (!tls && n->type == Y_MAP)
        reader_error(r, n, ".tls", "add it, with certificateRefs", "missing, with this protocol");
    else if (pass && ln->protocol == LISTEN_HTTPS)
        reader_error(r, y_get(tls, "mode"), ".tls.mode", "use protocol TLS and a TLSRoute", "HTTPS cannot be passed through: its requests could not be read");
    else if (pass && ln->certs_n)
        reader_warn(r, y_get(tls, "certificateRefs"), ".tls.certificateRefs", "remove it, or use mode Terminate", "ignored: what is passed through is not decrypted here");
    else if (!pass && !ln->certs_n && tls)
        reader_error(r, tls, ".tls.certificateRefs", "name a Secret with tls.crt and tls.key", "missing, with mode Terminate");
}

/* ---- the Gateway API's ---------------------------------------------------------------------------------------------------- */

static enum listen_protocol protocol_of(struct slice s)
{
    if (slice_is(s, "HTTPS"))
        return LISTEN_HTTPS;
    return slice_is(s, "TLS") ? LISTEN_TLS : slice_is(s, "TCP") ? LISTEN_TCP : LISTEN_HTTP;
}

/* The routes that a protocol can carry (Gateway API, ProtocolType). */
static uint32_t protocol_kinds(enum listen_protocol p, enum listen_tls tls)
{
    static const uint32_t http = 1u << OBJ_HTTPROUTE | 1u << OBJ_GRPCROUTE;
    if (p == LISTEN_HTTP || p == LISTEN_HTTPS)
        return http;
    if (p == LISTEN_TCP)
        return 1u << OBJ_TCPROUTE;
    return tls == LISTEN_TLS_PASSTHROUGH ? 1u << OBJ_TLSROUTE : 1u << OBJ_TLSROUTE | 1u << OBJ_TCPROUTE;
}

static void load_kinds(struct reader *r, const struct ynode *n, struct gw_listener *ln)
{
    const struct ynode *list = y_path(n, "allowedRoutes.kinds");
    uint32_t possible = protocol_kinds(ln->protocol, ln->tls), wanted = 0;
    for (uint32_t i = 0; list && list->type == Y_LIST && i < list->n; i++) {
        enum obj_kind k;
        struct slice kind = y_str(y_get(list->items[i], "kind"));
        if (!obj_kind_parse(kind, &k))
            continue; /* reported by the walk */
        if (!(possible & 1u << k)) {
            size_t mark = reader_push(r, ".allowedRoutes.kinds[%u].kind", i);
            reader_error(r, list->items[i], "", "remove it, or change the protocol", "the protocol of this listener cannot carry a " SLICE_FMT, SLICE_ARG(kind));
            reader_pop(r, mark);
        }
        wanted |= 1u << k;
    }
    ln->kinds = wanted ? wanted & possible : possible;
}

static void load_namespaces(struct reader *r, struct object *o, const struct ynode *n, struct gw_listener *ln)
{
    struct slice from = y_str(y_get(n, "from"));
    size_t mark = reader_push(r, ".allowedRoutes.namespaces");
    ln->from = slice_is(from, "All") ? LISTEN_FROM_ALL : slice_is(from, "Selector") ? LISTEN_FROM_SELECTOR : LISTEN_FROM_SAME;
    ln->namespaces = load_select(r, o, n, "selector");
    if (ln->from == LISTEN_FROM_SELECTOR && !ln->namespaces.given)
        reader_error(r, n, ".selector", "give the labels of the namespaces; {} is all of them", "from: Selector needs it");
    else if (ln->from != LISTEN_FROM_SELECTOR && ln->namespaces.given)
        reader_warn(r, y_get(n, "selector"), ".selector", "set from: Selector, or remove it", "has no effect without from: Selector");
    reader_pop(r, mark);
}

static void load_listeners(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "listeners");
    struct gateway *gw = &o->gw;
    gw->listeners_n = load_list_n(spec, "listeners");
    gw->listeners = load_array(o, gw->listeners_n, sizeof *gw->listeners);
    if (list && list->type == Y_LIST && !list->n)
        reader_error(r, list, "spec.listeners", "add one", "empty: nothing would listen");
    for (uint32_t i = 0; i < gw->listeners_n; i++) {
        const struct ynode *n = list->items[i];
        struct gw_listener *ln = &gw->listeners[i];
        size_t mark = reader_push(r, "spec.listeners[%u]", i);
        ln->name = load_str(o, n, "name");
        ln->port = (uint16_t)load_int(n, "port", 0, 65535);
        ln->hostname = load_str(o, n, "hostname");
        if (ln->hostname && !ln->hostname[0])
            ln->hostname = NULL;
        ln->protocol = protocol_of(y_str(y_get(n, "protocol")));
        load_namespaces(r, o, y_path(n, "allowedRoutes.namespaces"), ln);
        load_listener_tls(r, o, n, ln);
        load_kinds(r, n, ln);
        if (ln->hostname && ln->protocol == LISTEN_TCP)
            reader_error(r, y_get(n, "hostname"), ".hostname", "remove it", "has no meaning with protocol TCP: bytes name no host");
        for (uint32_t k = 0; k < i && ln->port; k++)
            if (gw->listeners[k].port == ln->port && same_text(gw->listeners[k].hostname, ln->hostname))
                reader_error(r, n, "", "give it another port or hostname", "the same port and hostname as the listener at line %u", list->items[k]->line);
        reader_pop(r, mark);
    }
}

/* An address that is every address takes the port from all others of its family (:: from IPv4 as well). */
static bool address_covers(const struct addr *any, const struct addr *other)
{
    static const uint8_t zero[16];
    bool every6 = any->family == ADDR_IP6 && memcmp(any->ip, zero, 16) == 0;
    bool every4 = any->family == ADDR_IP4 && memcmp(any->ip, zero, 4) == 0;
    return every6 || (every4 && other->family == ADDR_IP4);
}

static void load_addresses(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "addresses");
    struct gateway *gw = &o->gw;
    gw->addresses = load_array(o, load_list_n(spec, "addresses") + 1, sizeof *gw->addresses);
    for (uint32_t i = 0; i < load_list_n(spec, "addresses"); i++) {
        struct addr *a = &gw->addresses[gw->addresses_n];
        if (addr_parse(y_str(y_get(list->items[i], "value")), 0, a) != OK)
            continue; /* reported by the walk */
        for (size_t k = 0; k < gw->addresses_n; k++)
            if (addr_eq(a, &gw->addresses[k]) || address_covers(a, &gw->addresses[k]) || address_covers(&gw->addresses[k], a)) {
                size_t mark = reader_push(r, "spec.addresses[%u].value", i);
                reader_error(r, y_get(list->items[i], "value"), "", "keep one of them", "an address that another one of this list is or covers");
                reader_pop(r, mark);
                break;
            }
        gw->addresses_n++;
    }
    if (!gw->addresses_n)
        gw->addresses[gw->addresses_n++] = addr_ip4(0x7f000001, 0);
}

/* weir.dev/proxy-protocol: "true". */
static void load_proxy_protocol(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *n = y_get(y_path(doc, "metadata.annotations"), "weir.dev/proxy-protocol");
    bool on = slice_is(y_str(n), "true");
    if (y_is_str(n) && !on && !slice_is(n->text, "false"))
        reader_error(r, n, "metadata.annotations[\"weir.dev/proxy-protocol\"]", "give \"true\" or \"false\"", "not known: \"%.*s\"", (int)MIN(n->text.n, 60), n->text.p);
    for (size_t i = 0; i < o->gw.listeners_n; i++)
        o->gw.listeners[i].proxy_protocol = on;
}

void load_gateway(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    if (!spec || spec->type != Y_MAP)
        return;
    load_listeners(r, o, spec);
    load_frontend(o, spec);
    load_addresses(r, o, spec);
    load_proxy_protocol(r, o, doc);
}

/* ---- Istio's ------------------------------------------------------------------------------------------------------------------ */

static uint8_t istio_tls_version(const struct ynode *tls, const char *key)
{
    struct slice v = y_str(y_get(tls, key));
    return slice_is(v, "TLSV1_3") ? 13 : slice_is(v, "TLSV1_2") ? 12 : 0;
}

/* OpenSSL's list of Istio's names, which are OpenSSL's as well. */
static char *istio_ciphers(struct object *o, const struct ynode *tls)
{
    const struct ynode *list = y_get(tls, "cipherSuites");
    struct buf b = {0};
    for (uint32_t i = 0; i < load_list_n(tls, "cipherSuites"); i++) {
        buf_adds(&b, b.n ? ":" : "");
        buf_add_slice(&b, y_str(list->items[i]));
    }
    char *text = b.n ? arena_strdup(&o->mem, b.p) : NULL;
    buf_free(&b);
    return text;
}

static void istio_certs(struct reader *r, struct object *o, const struct ynode *tls, struct gw_listener *ln)
{
    const struct ynode *list = y_get(tls, "credentialNames");
    char *one = load_str(o, tls, "credentialName"), *ca = load_str(o, tls, "caCertCredentialName");
    size_t n = load_list_n(tls, "credentialNames");
    ln->certs = load_array(o, n + 1, sizeof *ln->certs);
    if (one)
        ln->certs[ln->certs_n++] = (struct secret_ref){.ns = o->ns, .name = one};
    for (size_t i = 0; i < n; i++)
        ln->certs[ln->certs_n++] = (struct secret_ref){.ns = o->ns, .name = (char *)arena_slice(&o->mem, y_str(list->items[i])).p};
    if (one && n)
        reader_error(r, list, ".tls.credentialNames", "keep one of them", "both credentialName and credentialNames");
    if (!ln->certs_n)
        reader_error(r, tls, ".tls.credentialName", "name a Secret with tls.crt and tls.key", "missing, with this mode");
    if (ln->tls != LISTEN_TLS_MUTUAL && ln->tls != LISTEN_TLS_OPTIONAL_MUTUAL)
        return;
    ln->client_ca = load_array(o, 1, sizeof *ln->client_ca); /* else ca.crt of the certificate's own Secret */
    if (ca)
        ln->client_ca[ln->client_ca_n++] = (struct secret_ref){.ns = o->ns, .name = ca};
    else if (ln->certs_n)
        ln->client_ca[ln->client_ca_n++] = ln->certs[0];
    ln->client_sans = load_strings(o, tls, "subjectAltNames", &ln->client_sans_n);
}

static void istio_tls(struct reader *r, struct object *o, const struct ynode *server, struct gw_listener *ln)
{
    const struct ynode *tls = y_get(server, "tls");
    struct slice mode = y_str(y_get(tls, "mode"));
    bool wanted = ln->protocol == LISTEN_HTTPS || ln->protocol == LISTEN_TLS;
    ln->https_redirect = load_bool(tls, "httpsRedirect", false);
    if (!wanted) {
        if (mode.n)
            reader_error(r, tls, ".tls.mode", "use protocol HTTPS or TLS, or remove it", "has no meaning with this protocol");
        return;
    }
    if (!tls) {
        if (server->type == Y_MAP)
            reader_error(r, server, ".tls", "add it, with mode and credentialName", "missing, with this protocol");
        return;
    }
    if (ln->https_redirect)
        reader_error(r, tls, ".tls.httpsRedirect", "set it in the server of protocol HTTP", "has no meaning with this protocol");
    ln->tls_min = istio_tls_version(tls, "minProtocolVersion");
    ln->tls_max = istio_tls_version(tls, "maxProtocolVersion");
    ln->ciphers = istio_ciphers(o, tls);
    ln->tls = slice_is(mode, "MUTUAL")            ? LISTEN_TLS_MUTUAL
              : slice_is(mode, "OPTIONAL_MUTUAL") ? LISTEN_TLS_OPTIONAL_MUTUAL
              : !mode.n || slice_is(mode, "PASSTHROUGH") ? LISTEN_TLS_PASSTHROUGH /* the first value of the enumeration, and so its default */
                                                         : LISTEN_TLS_TERMINATE;
    if (slice_is(mode, "ISTIO_MUTUAL") || slice_is(mode, "AUTO_PASSTHROUGH"))
        return; /* refused by the walk */
    if (ln->tls != LISTEN_TLS_PASSTHROUGH)
        istio_certs(r, o, tls, ln);
    else if (ln->protocol == LISTEN_HTTPS)
        ln->protocol = LISTEN_TLS; /* what is passed through is routed by its SNI */
}

static enum listen_protocol istio_protocol(struct slice s)
{
    if (slice_is(s, "HTTPS"))
        return LISTEN_HTTPS;
    return slice_is(s, "TLS") ? LISTEN_TLS : slice_is(s, "TCP") || slice_is(s, "MONGO") ? LISTEN_TCP : LISTEN_HTTP;
}

/* All servers of a Gateway have one address. */
static void istio_bind(struct reader *r, struct object *o, const struct ynode *server, uint32_t i)
{
    struct gateway *gw = &o->gw;
    struct addr a = addr_ip4(0x7f000001, 0);
    const struct ynode *bind = y_get(server, "bind");
    if (y_is_str(bind) && addr_parse(bind->text, 0, &a) != OK)
        return; /* reported by the walk */
    if (!i)
        gw->addresses[gw->addresses_n++] = a;
    else if (gw->addresses_n && !addr_eq(&a, &gw->addresses[0]))
        reader_error(r, bind ? bind : server, ".bind", "give every server the same, or write a Gateway for each address", "not the address of the first server");
}

static void istio_server(struct reader *r, struct object *o, const struct ynode *n, uint32_t i)
{
    struct gw_listener *ln = &o->gw.listeners[i];
    const struct ynode *port = y_get(n, "port");
    ln->port = (uint16_t)load_int(port, "number", 0, 65535);
    ln->name = load_str(o, n, "name");
    if (!ln->name)
        ln->name = load_str(o, port, "name");
    if (!ln->name)
        ln->name = arena_printf(&o->mem, "port-%u", ln->port);
    ln->from = LISTEN_FROM_ALL; /* hosts say from which namespaces */
    ln->protocol = istio_protocol(y_str(y_get(port, "protocol")));
    ln->kinds = 1u << OBJ_VIRTUALSERVICE;
    ln->hosts = load_strings(o, n, "hosts", &ln->hosts_n);
    if (!ln->hosts_n && load_list_n(n, "hosts") == 0 && y_get(n, "hosts"))
        reader_error(r, y_get(n, "hosts"), ".hosts", "add \"*\" for all", "empty: nothing would be served");
    istio_bind(r, o, n, i);
    istio_tls(r, o, n, ln);
}

void load_istio_gateway(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *list = y_get(spec, "servers");
    struct gateway *gw = &o->gw;
    if (!spec || spec->type != Y_MAP)
        return;
    gw->listeners_n = load_list_n(spec, "servers");
    gw->listeners = load_array(o, gw->listeners_n, sizeof *gw->listeners);
    gw->addresses = load_array(o, 1, sizeof *gw->addresses);
    if (list && list->type == Y_LIST && !list->n)
        reader_error(r, list, "spec.servers", "add one", "empty: nothing would listen");
    for (uint32_t i = 0; i < gw->listeners_n; i++) {
        size_t mark = reader_push(r, "spec.servers[%u]", i);
        istio_server(r, o, list->items[i], i);
        reader_pop(r, mark);
    }
    if (!gw->addresses_n)
        gw->addresses[gw->addresses_n++] = addr_ip4(0x7f000001, 0);
    load_proxy_protocol(r, o, doc);
}

/* ---- ReferenceGrant -------------------------------------------------------------------------------------------------------------- */

static struct grant_entry *load_grants(struct object *o, const struct ynode *spec, const char *key, size_t *n)
{
    const struct ynode *list = y_get(spec, key);
    *n = load_list_n(spec, key);
    struct grant_entry *grants = load_array(o, *n, sizeof *grants);
    for (size_t i = 0; i < *n; i++) {
        grants[i] = (struct grant_entry){.group = load_str(o, list->items[i], "group"), .kind = load_str(o, list->items[i], "kind"),
                                         .ns = load_str(o, list->items[i], "namespace"), .name = load_str(o, list->items[i], "name")};
        if (!grants[i].group)
            grants[i].group = arena_strdup(&o->mem, "");
    }
    return grants;
}

void load_reference_grant(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    o->grant.from = load_grants(o, spec, "from", &o->grant.from_n);
    o->grant.to = load_grants(o, spec, "to", &o->grant.to_n);
    for (int i = 0; i < 2; i++) {
        const char *key = i ? "to" : "from";
        const struct ynode *list = y_get(spec, key);
        size_t mark = reader_push(r, "spec.%s", key);
        if (list && list->type == Y_LIST && !list->n)
            reader_error(r, list, "", "add one", "empty: nothing would be granted");
        reader_pop(r, mark);
    }
}
