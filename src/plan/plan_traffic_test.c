/* plan_traffic_test.c - the reader on the kinds of traffic: the Gateway API's routes and TLS, Istio's, SMI's and weir.dev's. What good
 * manifests become, what is said about bad ones, references between them, addresses and hosts, save and load.
 */
#include "plan_reader_test.h"

#include <stdlib.h>

#define API "apiVersion: gateway.networking.k8s.io/v1\n"
#define VS(spec) "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: v }\nspec: { hosts: [ s ],\n" spec " }\n"
#define AT_V "VirtualService/default/v spec."
#define DR(spec) "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: { name: d }\nspec: { host: s,\n" spec " }\n"
#define AT_D "DestinationRule/default/d spec."
#define IGW(spec) "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: g }\nspec: { selector: { istio: ingressgateway },\n" spec " }\n"
#define AT_I "Gateway.networking.istio.io/default/g spec."
#define SE(spec) "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: e }\nspec: { hosts: [ api.example.com ],\n" spec " }\n"
#define AT_E "ServiceEntry/default/e spec."
#define HF(spec) "apiVersion: weir.dev/v1\nkind: HTTPFilter\nmetadata: { name: f }\nspec: {\n" spec " }\n"
#define AT_F "HTTPFilter/default/f spec"
#define BP(spec) "apiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: p }\nspec: { targetRefs: [ { name: s } ],\n" spec " }\n"
#define AT_P "BackendPolicy/default/p spec"
#define TO_S "route: [ { destination: { host: s } } ]"

/* Errors are none; warnings, of what is approximated, may be. */
static struct objset *read_fair(const char *text)
{
    struct diags d = {0};
    struct objset *s = read_text(text, false, &d);
    if (d.errors)
        fail_msg("%s: %s", d.items[0].where, d.items[0].reason);
    diags_free(&d);
    return s;
}

static const struct object *only(const struct objset *s)
{
    assert_int_equal(objset_n(s), 1);
    return objset_at(s, 0);
}

static void expect_match(const struct string_match *m, enum match_kind kind, const char *value)
{
    assert_non_null(m);
    assert_int_equal(m->kind, kind);
    assert_true(!m->value == !value);
    if (value)
        assert_string_equal(m->value, value);
}

/* ---- Gateway API ------------------------------------------------------------------------------------------------------------ */

static void test_gateway_tls(void **state)
{
    struct objset *s = read_good(
        API "kind: Gateway\nmetadata: { name: g, annotations: { weir.dev/proxy-protocol: \"true\" } }\nspec:\n  gatewayClassName: weir\n"
            "  tls: { frontend: { default: { validation: { caCertificateRefs: [ { group: \"\", kind: ConfigMap, name: clients } ] } } } }\n"
            "  listeners:\n"
            "  - { name: https, port: 443, protocol: HTTPS, hostname: a.example, tls: { certificateRefs: [ { name: a }, { name: b, namespace: certs } ],\n"
            "      options: { weir.dev/min-version: \"1.3\", weir.dev/ciphers: \"ECDHE+AESGCM\" } } }\n"
            "  - { name: other, port: 443, protocol: HTTPS, hostname: b.example, tls: { certificateRefs: [ { name: a } ],\n"
            "      frontendValidation: { caCertificateRefs: [ { kind: Secret, name: ca } ] } } }\n"
            "  - { name: pass, port: 443, protocol: TLS, hostname: c.example, tls: { mode: Passthrough } }\n"
            "  - { name: tls, port: 444, protocol: TLS, tls: { certificateRefs: [ { name: a } ] } }\n"
            "  - { name: tcp, port: 5432, protocol: TCP }\n"
            "  - { name: grpc, port: 80, protocol: HTTP, allowedRoutes: { kinds: [ { kind: GRPCRoute } ] } }\n");
    const struct gateway *gw = &only(s)->gw;
    const struct gw_listener *ln = gw->listeners;
    assert_int_equal(gw->listeners_n, 6);
    assert_true(ln[0].protocol == LISTEN_HTTPS && ln[0].tls == LISTEN_TLS_MUTUAL && ln[0].certs_n == 2 && ln[0].tls_min == 13 && ln[0].proxy_protocol);
    assert_string_equal(ln[0].certs[1].ns, "certs");
    assert_string_equal(ln[0].certs[0].ns, "default");
    assert_string_equal(ln[0].ciphers, "ECDHE+AESGCM");
    assert_string_equal(ln[0].client_ca[0].name, "clients");
    assert_string_equal(ln[1].client_ca[0].name, "ca"); /* the listener's own is nearer than the Gateway's */
    assert_true(ln[2].tls == LISTEN_TLS_PASSTHROUGH && ln[2].client_ca_n == 0 && ln[2].kinds == 1u << OBJ_TLSROUTE);
    assert_int_equal(ln[3].kinds, 1u << OBJ_TLSROUTE | 1u << OBJ_TCPROUTE);
    assert_true(ln[4].protocol == LISTEN_TCP && ln[4].kinds == 1u << OBJ_TCPROUTE && ln[4].tls == LISTEN_TLS_NONE);
    assert_int_equal(ln[5].kinds, 1u << OBJ_GRPCROUTE);
    objset_free(s);
}

static void test_http_route(void **state)
{
    struct objset *s = read_good(
        API "kind: HTTPRoute\nmetadata: { name: r }\nspec:\n  parentRefs: [ { group: \"\", kind: Service, name: web, port: 80 } ]\n  rules:\n"
            "  - name: main\n"
            "    matches: [ { path: { type: RegularExpression, value: \"/a/[0-9]+\" }, headers: [ { type: RegularExpression, name: x, value: \"a|b\" } ] } ]\n"
            "    filters:\n"
            "    - { type: RequestMirror, requestMirror: { backendRef: { name: m, port: 80 }, percent: 7 } }\n"
            "    - { type: RequestMirror, requestMirror: { backendRef: { name: m2, port: 80 }, fraction: { numerator: 1, denominator: 3 } } }\n"
            "    - { type: CORS, cors: { allowOrigins: [ \"https://a.example\", \"https://*.b.example:8443\" ], allowMethods: [ GET, PUT ], allowCredentials: true, maxAge: 60 } }\n"
            "    - { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: zip } }\n"
            "    - { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: fan } }\n"
            "    backendRefs: [ { name: web, port: 80 } ]\n"
            "    timeouts: { request: 10s, backendRequest: 2s }\n"
            "    retry: { codes: [ 503 ], attempts: 4, backoff: 100ms }\n"
            "    sessionPersistence: { sessionName: sid, absoluteTimeout: 1h, cookieConfig: { lifetimeType: Permanent } }\n"
            "  - filters: [ { type: RequestRedirect, requestRedirect: { port: 8443, statusCode: 307 } } ]\n"
            "  - retry: {}\n    backendRefs: [ { name: web, port: 80 } ]\n");
    const struct http_route *route = &only(s)->route;
    const struct route_rule *r = route->rules;
    assert_true(route->parents[0].service && route->parents[0].port == 80 && !route->ordered);
    assert_true(r->matches[0].path_kind == MATCH_REGEX && r->matches[0].headers[0].m.kind == MATCH_REGEX);
    assert_true(r->mirrors_n == 2 && r->mirrors[0].ppm == 70000 && r->mirrors[1].ppm == 333333);
    assert_string_equal(r->mirrors[1].backend.service, "m2");
    assert_true(r->cors.given && r->cors.origins_n == 2 && r->cors.credentials && r->cors.max_age_s == 60 && !r->cors.forward_unmatched);
    expect_match(&r->cors.origins[0], MATCH_EXACT, "https://a.example");
    expect_match(&r->cors.origins[1], MATCH_REGEX, "https://[A-Za-z0-9.-]+\\.b\\.example:8443");
    assert_string_equal(r->cors.methods, "GET, PUT");
    assert_true(r->filters_n == 2);
    assert_string_equal(r->filters[1], "fan");
    assert_true(r->retry.given && r->retry.attempts == 4 && r->retry.statuses_n == 1 && r->retry.statuses[0] == 503 && r->retry.backoff_base_ms == 100);
    assert_true(r->session.given && !r->session.header && r->session.ttl_s == 3600);
    assert_string_equal(r->session.name, "sid");
    assert_true(r[1].redirect_port == 8443 && r[1].redirect_status == 307);
    assert_true(r[2].retry.given && r[2].retry.attempts == 2 && r[2].retry.statuses_n == 4 && (r[2].retry.on & RETRY_RESET));
    objset_free(s);
}

static void test_grpc_route(void **state)
{
    struct objset *s = read_good(
        API "kind: GRPCRoute\nmetadata: { name: r }\nspec:\n  parentRefs: [ { name: g } ]\n  hostnames: [ a.example ]\n  rules:\n"
            "  - matches: [ { method: { service: a.B, method: Get } }, { method: { service: a.B } }, { method: { method: \"G+t\" } },\n"
            "      { method: { type: RegularExpression, service: \"a[.]\", method: \"G.*\" } }, { headers: [ { name: x, value: z } ] } ]\n"
            "    filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { remove: [ w ] } } ]\n"
            "    backendRefs: [ { name: web, port: 80 } ]\n");
    static const struct {
        enum match_kind kind;
        const char *path;
    } want[] = {{MATCH_EXACT, "/a.B/Get"}, {MATCH_PREFIX, "/a.B"}, {MATCH_REGEX, "/(?:[^/]+)/G\\+t"}, {MATCH_REGEX, "/(?:a[.])/(?:G.*)"}, {MATCH_PREFIX, "/"}};
    const struct route_rule *r = only(s)->route.rules;
    assert_int_equal(r->matches_n, COUNT_OF(want));
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        assert_int_equal(r->matches[i].path_kind, want[i].kind);
        assert_string_equal(r->matches[i].path, want[i].path);
    }
    assert_true(r->matches[4].headers_n == 1 && r->req.remove_n == 1 && r->backends_n == 1);
    objset_free(s);
}

static void test_stream_routes(void **state)
{
    struct objset *s = read_good(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: { name: r }\nspec:\n  parentRefs: [ { name: g, port: 5432 } ]\n"
        "  rules: [ { name: db, backendRefs: [ { name: db, port: 5432, weight: 3 }, { name: db2, port: 5432, namespace: data } ] } ]\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1alpha3\nkind: TLSRoute\nmetadata: { name: r }\nspec:\n  parentRefs: [ { name: g } ]\n  hostnames: [ \"*.a.example\" ]\n"
        "  rules: [ { backendRefs: [ { name: web, port: 443 } ] } ]\n");
    const struct http_route *tcp = &objset_find(s, OBJ_TCPROUTE, "default", "r")->route, *tls = &objset_find(s, OBJ_TLSROUTE, "default", "r")->route;
    assert_true(tcp->tcp_n == 1 && tcp->tls_n == 0 && tcp->tcp[0].sni_n == 0 && tcp->tcp[0].backends[0].weight == 3);
    assert_string_equal(tcp->tcp[0].backends[1].ns, "data");
    assert_true(tls->tls_n == 1 && tls->tcp_n == 0 && tls->tls[0].sni_n == 1);
    assert_string_equal(tls->tls[0].sni[0], "*.a.example");
    objset_free(s);
}

static void test_grants_and_backend_tls(void **state)
{
    struct objset *s = read_good(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: { name: x, namespace: data }\nspec:\n"
        "  from: [ { group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default } ]\n"
        "  to: [ { group: \"\", kind: Secret }, { group: \"\", kind: Service, name: db } ]\n---\n" API
        "kind: HTTPRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], rules: [ { backendRefs: [ { name: db, namespace: data, port: 1 } ] } ] }\n---\n" API
        "kind: GRPCRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], rules: [ { backendRefs: [ { name: db, namespace: data, port: 1 } ] } ] }\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1alpha3\nkind: BackendTLSPolicy\nmetadata: { name: t }\nspec:\n"
        "  targetRefs: [ { group: \"\", kind: Service, name: web, sectionName: https }, { group: \"\", kind: Service, name: api } ]\n"
        "  validation: { hostname: web.internal, caCertificateRefs: [ { group: \"\", kind: ConfigMap, name: ca } ],\n"
        "    subjectAltNames: [ { type: URI, uri: \"spiffe://x/y\" }, { type: Hostname, hostname: z.internal } ] }\n");
    const struct object *http = objset_find(s, OBJ_HTTPROUTE, "default", "r"), *grpc = objset_find(s, OBJ_GRPCROUTE, "default", "r");
    assert_true(objset_granted(s, http, OBJ_SERVICE, "data", "db"));
    assert_true(objset_granted(s, http, OBJ_SERVICE, "default", "anything"));
    assert_true(objset_granted(s, http, OBJ_SECRET, "data", "any"));
    assert_false(objset_granted(s, http, OBJ_SERVICE, "data", "db2"));
    assert_false(objset_granted(s, http, OBJ_SERVICE, "other", "db"));
    assert_false(objset_granted(s, grpc, OBJ_SERVICE, "data", "db"));
    const struct backend_tls *t = &objset_find(s, OBJ_BACKENDTLSPOLICY, "default", "t")->backend_tls;
    assert_true(t->services_n == 2 && !t->sections[1] && t->ca_n == 1 && !t->system_ca && t->sans_n == 2);
    assert_string_equal(t->sections[0], "https");
    assert_string_equal(t->sans[0], "spiffe://x/y");
    assert_string_equal(t->sans[1], "z.internal");
    objset_free(s);
}

/* Gateway API 1.0 and before: the same fields, and those that had other names. */
static void test_old_versions(void **state)
{
    struct objset *s = read_good(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: Gateway\nmetadata: { name: g }\nspec: { gatewayClassName: weir, listeners: [ { name: h, protocol: HTTP, port: 1 } ] }\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], rules: [ { backendRefs: [ { name: web, port: 1 } ] } ] }\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: BackendTLSPolicy\nmetadata: { name: a }\nspec:\n"
        "  targetRef: { group: \"\", kind: Service, name: web, sectionName: https }\n"
        "  tls: { hostname: web.internal, caCertRefs: [ { group: \"\", kind: ConfigMap, name: ca } ] }\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: BackendTLSPolicy\nmetadata: { name: b }\nspec:\n"
        "  targetRef: { group: \"\", kind: Service, name: api }\n  tls: { hostname: api.internal, wellKnownCACerts: System }\n");
    const struct backend_tls *a = &objset_find(s, OBJ_BACKENDTLSPOLICY, "default", "a")->backend_tls, *b = &objset_find(s, OBJ_BACKENDTLSPOLICY, "default", "b")->backend_tls;
    assert_true(a->services_n == 1 && a->ca_n == 1 && !a->system_ca && b->services_n == 1 && b->ca_n == 0 && b->system_ca);
    assert_string_equal(a->services[0], "web");
    assert_string_equal(a->sections[0], "https");
    assert_string_equal(a->hostname, "web.internal");
    assert_string_equal(a->ca[0].name, "ca");
    assert_string_equal(b->services[0], "api");
    assert_null(b->sections[0]);
    objset_free(s);
}

/* ---- VirtualService ------------------------------------------------------------------------------------------------------------ */

static void test_vs_match(void **state)
{
    struct objset *s = read_good(VS("gateways: [ mesh, gw, infra/gw, gw.other.svc.cluster.local ], exportTo: [ \".\" ], http: [ { name: a,\n"
                                    "match: [ { name: m, uri: { prefix: /a }, ignoreUriCase: true, scheme: { exact: https }, method: { regex: \"GET|HEAD\" }, authority: { prefix: a. },\n"
                                    "headers: { x: { exact: \"1\" }, cookie: { regex: \".*user=tester.*\" }, y: {} }, withoutHeaders: { z: { prefix: q } }, queryParams: { p: { exact: w }, e: {} },\n"
                                    "port: 8080, sourceLabels: { app: front }, sourceNamespace: shop, gateways: [ mesh, gw ] } ],\n" TO_S " } ]"));
    const struct http_route *route = &only(s)->route;
    const struct route_match_spec *m = route->rules[0].matches;
    assert_true(route->ordered && route->gateways_n == 4 && route->export_to_n == 1);
    assert_string_equal(route->gateways[0], "mesh");
    assert_string_equal(route->gateways[1], "default/gw");
    assert_string_equal(route->gateways[2], "infra/gw");
    assert_string_equal(route->gateways[3], "other/gw");
    assert_true(m->has_path && m->path_kind == MATCH_STRING_PREFIX && m->path_ignore_case && !m->method);
    expect_match(m->scheme, MATCH_EXACT, "https");
    expect_match(m->method_match, MATCH_REGEX, "GET|HEAD");
    expect_match(m->authority, MATCH_STRING_PREFIX, "a.");
    assert_int_equal(m->headers_n, 4);
    expect_match(&m->headers[1].m, MATCH_REGEX, ".*user=tester.*");
    expect_match(&m->headers[2].m, MATCH_PRESENT, NULL);
    assert_true(m->headers[3].m.invert && !m->headers[0].m.invert);
    assert_string_equal(m->headers[3].name, "z");
    assert_true(m->queries_n == 2 && m->queries[1].m.kind == MATCH_PRESENT);
    assert_true(m->port == 8080 && m->source_labels.n == 1 && m->gateways_n == 2);
    assert_string_equal(m->source_ns, "shop");
    assert_string_equal(m->gateways[1], "default/gw");
    const struct route_backend *be = route->rules[0].backends;
    assert_true(!be->service && be->weight == 1 && !be->subset);
    assert_string_equal(be->host, "s");
    assert_string_equal(be->ns, "default");
    objset_free(s);
}

static void test_vs_actions(void **state)
{
    struct objset *s = read_good(VS(
        "http: [ { match: [ { uri: { exact: /old } } ], redirect: { uri: /new, authority: \"x.example:8443\", scheme: https, redirectCode: 308 } },\n"
        "{ match: [ { uri: { prefix: /p } } ], redirect: { uri: \"%PREFIX()%/q\", derivePort: FROM_REQUEST_PORT } },\n"
        "{ match: [ { uri: { prefix: /d } } ], directResponse: { status: 503, body: { string: hello } } }, { match: [ { uri: { prefix: /e } } ], directResponse: { status: 200, body: { bytes: AAE= } } },\n"
        "{ match: [ { uri: { prefix: /f } } ], delegate: { name: more, namespace: infra } },\n"
        "{ match: [ { uri: { prefix: /g } } ], rewrite: { uriRegexRewrite: { match: \"/g/([^/]*)\", rewrite: \"/h/\\\\1\" }, authority: inner }, " TO_S ", timeout: 1.5s,\n"
        "retries: { attempts: 3, perTryTimeout: 2s, retryOn: \"5xx, reset,503,retriable-4xx,unavailable\", backoff: 10ms, retryIgnorePreviousHosts: true },\n"
        "fault: { delay: { percentage: { value: 0.1 }, fixedDelay: 5s }, abort: { percentage: { value: 100 }, grpcStatus: UNAVAILABLE } },\n"
        "mirrors: [ { destination: { host: m }, percentage: { value: 1.5 } }, { destination: { host: o, subset: v2, port: { number: 81 } } } ],\n"
        "corsPolicy: { allowOrigins: [ { exact: \"*\" }, { regex: \"https://.*\" } ], allowMethods: [ GET, POST ], allowHeaders: [ x ], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE },\n"
        "headers: { request: { set: { a: b }, add: { c: d, e: f }, remove: [ g ] }, response: { set: { h: i } } } },\n"
        "{ route: [ { destination: { host: s, subset: v1 }, weight: 90, headers: { request: { set: { v: \"1\" } } } }, { destination: { host: s, subset: v2 }, weight: 10 }, { destination: { host: s } } ],\n"
        "retries: { attempts: 2 }, mirror: { host: m }, corsPolicy: { allowOrigin: [ \"*\", \"http://a\" ] } } ]"));
    const struct http_route *route = &only(s)->route;
    const struct route_rule *r = route->rules;
    assert_int_equal(route->rules_n, 7);
    assert_true(r[0].redirect && r[0].redirect_port == 8443 && r[0].redirect_status == 308 && r[0].redirect_path_kind == REWRITE_FULL);
    assert_string_equal(r[0].redirect_host, "x.example");
    assert_true(r[1].redirect_status == 301 && r[1].redirect_derive_port && r[1].redirect_path_kind == REWRITE_PREFIX);
    assert_string_equal(r[1].redirect_path, "/q");
    assert_true(r[2].direct && r[2].direct_status == 503 && r[2].direct_body_n == 5 && r[3].direct_body_n == 2 && r[3].direct_body[1] == 1);
    assert_string_equal(r[4].delegate_name, "more");
    assert_string_equal(r[4].delegate_ns, "infra");
    const struct route_rule *g = &r[5];
    assert_true(g->rewrite_path_kind == REWRITE_REGEX && g->timeout_ms == 1500);
    assert_string_equal(g->rewrite_path, "/h/\\1");
    assert_int_equal(g->retry.on, RETRY_5XX | RETRY_RESET | RETRY_STATUSES | RETRY_4XX | RETRY_GRPC_UNAVAILABLE);
    assert_true(g->retry.attempts == 3 && g->retry.per_try_timeout_ms == 2000 && g->retry.statuses_n == 1 && g->retry.statuses[0] == 503 && g->retry.backoff_max_ms == 100);
    assert_true(g->fault.delay_ppm == 1000 && g->fault.delay_ms == 5000 && g->fault.abort_ppm == 1000000 && g->fault.abort_grpc == 14 && g->fault.abort_status == 0);
    assert_true(g->mirrors_n == 2 && g->mirrors[0].ppm == 15000 && g->mirrors[1].ppm == 1000000 && g->mirrors[1].backend.port == 81);
    expect_match(&g->cors.origins[0], MATCH_PRESENT, NULL);
    expect_match(&g->cors.origins[1], MATCH_REGEX, "https://.*");
    assert_true(g->cors.has_max_age && g->cors.max_age_s == 86400 && g->cors.credentials && !g->cors.forward_unmatched);
    assert_true(g->req.set.n == 1 && g->req.add.n == 2 && g->req.remove_n == 1 && g->resp.set.n == 1);
    const struct route_rule *w = &r[6];
    assert_true(w->backends_n == 3 && w->backends[0].weight == 90 && w->backends[1].weight == 10 && w->backends[2].weight == 0 && w->backends[0].req.set.n == 1);
    assert_int_equal(w->retry.on, RETRY_CONNECT_FAILURE | RETRY_REFUSED_STREAM | RETRY_GRPC_UNAVAILABLE | RETRY_GRPC_CANCELLED | RETRY_STATUSES);
    assert_true(w->retry.statuses[0] == 503 && w->mirrors_n == 1 && w->mirrors[0].ppm == 1000000 && w->cors.forward_unmatched && !w->cors.has_max_age);
    expect_match(&w->cors.origins[1], MATCH_EXACT, "http://a");
    objset_free(s);
}

/* What old manifests say, and what rewrite.uri means for matches of different kinds. */
static void test_vs_old_and_split(void **state)
{
    struct objset *s = read_good("apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata: { name: v, annotations: { weir.dev/filters: \"zip, guard\" } }\n"
                                 "spec:\n  hosts: [ s ]\n  http:\n"
                                 "  - fault: { delay: { percent: 10, fixedDelay: 1s }, abort: { percent: 5, httpStatus: 400 } }\n"
                                 "    mirror: { host: m }\n    mirror_percent: 25\n    rewrite: { uri: /x }\n"
                                 "    match: [ { uri: { prefix: /a } }, { uri: { exact: /b } }, { headers: { h: {} } }, { uri: { regex: /c.* } } ]\n    " TO_S "\n"
                                 "  - rewrite: { uri: /y }\n    match: [ { uri: { exact: /z } } ]\n    " TO_S "\n"
                                 "  - rewrite: { uri: /y }\n    " TO_S "\n    mirror: { host: m }\n    mirrorPercent: 5\n");
    const struct http_route *route = &only(s)->route;
    static const enum path_rewrite want[] = {REWRITE_PREFIX, REWRITE_FULL, REWRITE_PREFIX, REWRITE_FULL, REWRITE_FULL, REWRITE_PREFIX};
    assert_int_equal(route->rules_n, COUNT_OF(want));
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        assert_int_equal(route->rules[i].rewrite_path_kind, want[i]);
        assert_true(route->rules[i].filters_n == 2 && route->rules[i].matches_n == (i < 5));
    }
    const struct route_rule *r = route->rules;
    assert_true(r->fault.delay_ppm == 100000 && r->fault.abort_ppm == 50000 && r->fault.abort_status == 400 && r->fault.abort_grpc == -1);
    assert_true(r->mirrors[0].ppm == 250000 && r[5].mirrors[0].ppm == 50000);
    assert_string_equal(r->filters[1], "guard");
    objset_free(s);
}

static void test_vs_streams(void **state)
{
    struct objset *s = read_good(VS("tcp: [ { match: [ { port: 27017, sourceLabels: { a: b } }, { port: 27018, gateways: [ gw ] } ], route: [ { destination: { host: db }, weight: 1 }, { destination: { host: db2 }, weight: 2 } ] } ],\n"
                                    "tls: [ { match: [ { sniHosts: [ a.example, \"*.b.example\" ], port: 443 } ], route: [ { destination: { host: web, port: { number: 443 } } } ] } ]"));
    const struct http_route *route = &only(s)->route;
    assert_true(route->rules_n == 0 && route->tcp_n == 2 && route->tls_n == 1);
    assert_true(route->tcp[0].port == 27017 && route->tcp[0].source_labels.n == 1 && route->tcp[1].port == 27018 && route->tcp[1].source_labels.n == 0);
    assert_true(route->tcp[1].backends_n == 2 && route->tcp[1].backends[1].weight == 2);
    assert_string_equal(route->tcp[1].gateways[0], "default/gw");
    assert_true(route->tls[0].sni_n == 2 && route->tls[0].port == 443 && route->tls[0].backends[0].port == 443 && route->tls[0].backends[0].weight == 1);
    objset_free(s);
}

/* ---- DestinationRule -------------------------------------------------------------------------------------------------------------- */

static void test_dr_blocks(void **state)
{
    struct objset *s = read_fair(DR(
        "exportTo: [ \"*\" ], workloadSelector: { matchLabels: { a: b } }, trafficPolicy: { loadBalancer: { consistentHash: { httpCookie: { name: user, path: /p, ttl: 1.5s }, maglev: { tableSize: 101 } },\n"
        "warmup: { duration: 30s, minimumPercent: 5, aggression: 2 }, localityLbSetting: { distribute: [ { from: \"r1/*\", to: { \"r1/*\": 80, \"r2/*\": 20 } } ], failover: [ { from: r1, to: r2 } ] } },\n"
        "connectionPool: { tcp: { maxConnections: 100, connectTimeout: 30ms, maxConnectionDuration: 1h, idleTimeout: 5m, tcpKeepalive: { time: 7200s, interval: 75s, probes: 3 } },\n"
        "http: { http1MaxPendingRequests: 10, http2MaxRequests: 1000, maxRequestsPerConnection: 11, maxRetries: 4, idleTimeout: 2s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 7 } },\n"
        "outlierDetection: { consecutive5xxErrors: 7, consecutiveGatewayErrors: 3, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 60, minHealthPercent: 20 },\n"
        "tls: { mode: MUTUAL, credentialName: cert, sni: x.example, subjectAltNames: [ a, b ] }, proxyProtocol: { version: V2 }, retryBudget: { percent: 12.5, minRetryConcurrency: 9 } }"));
    const struct destination_rule *d = &only(s)->dest;
    const struct cluster_policy *p = &d->policy;
    assert_true(d->export_to_n == 1 && d->workload_selector.n == 1);
    assert_true(p->lb.kind == LB_MAGLEV && p->lb.hash_on == HASH_COOKIE && p->lb.maglev_size == 101 && p->lb.cookie_ttl_s == 2 && p->lb.cookie_ttl_given);
    assert_string_equal(p->lb.hash_name, "user");
    assert_true(p->lb.slow_start_ms == 30000 && p->lb.slow_start_min_pct == 5 && p->lb.slow_start_aggression > 1.99);
    assert_true(p->lb.distribute_n == 2 && p->lb.distribute[1].weight == 20 && p->lb.failover_n == 1 && !p->lb.locality_off && p->lb.panic_pct == 20);
    assert_true(p->pool.connections_max == 100 && p->pool.connect_timeout_ms == 30 && p->pool.connection_lifetime_ms == 3600000 && p->pool.tcp_idle_timeout_ms == 300000);
    assert_true(p->pool.keepalive && p->pool.keepalive_time_s == 7200 && p->pool.keepalive_interval_s == 75 && p->pool.keepalive_probes == 3);
    assert_true(p->pool.pending_max == 10 && p->pool.requests_max == 1000 && p->pool.requests_per_connection_max == 11 && p->pool.retries_max == 4);
    assert_true(p->pool.idle_timeout_ms == 2000 && p->pool.http == UPSTREAM_HTTP2 && p->pool.streams_max == 7 && p->pool.proxy_protocol == 2);
    assert_true(p->pool.retry_budget_pct == 12 && p->pool.retry_budget_min == 9);
    assert_true(p->outlier.on && p->outlier.consecutive_5xx == 7 && p->outlier.consecutive_gateway == 3 && p->outlier.consecutive_local == 2 && p->outlier.split_local);
    assert_true(p->outlier.interval_ms == 300000 && p->outlier.base_ejection_ms == 900000 && p->outlier.max_ejection_ms == 900000 && p->outlier.max_ejection_pct == 60);
    assert_true(p->tls.mode == TLS_MUTUAL && p->tls.ca_n == 1 && p->tls.sans_n == 2 && !p->tls.system_ca);
    assert_string_equal(p->tls.cert.name, "cert");
    objset_free(s);
}

/* Old names, and defaults where nothing is said. */
static void test_dr_old(void **state)
{
    static const struct {
        const char *spec;
        enum lb_kind lb;
    } kinds[] = {{"trafficPolicy: { loadBalancer: { simple: LEAST_CONN } }", LB_LEAST_REQUEST}, {"trafficPolicy: { loadBalancer: { simple: ROUND_ROBIN } }", LB_ROUND_ROBIN},
                 {"trafficPolicy: { loadBalancer: { simple: RANDOM } }", LB_RANDOM},           {"trafficPolicy: { loadBalancer: { consistentHash: { useSourceIp: true, minimumRingSize: 10 } } }", LB_RING_HASH},
                 {"trafficPolicy: { loadBalancer: { consistentHash: { httpHeaderName: x, ringHash: { minimumRingSize: 10 } } } }", LB_RING_HASH},
                 {"exportTo: []", LB_LEAST_REQUEST}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct buf text = {0};
        buf_printf(&text, DR("%s"), kinds[i].spec);
        struct objset *s = read_good(text.p);
        const struct lb_policy *lb = &only(s)->dest.policy.lb;
        assert_int_equal(lb->kind, kinds[i].lb);
        assert_int_equal(lb->ring_size_min, kinds[i].lb == LB_RING_HASH ? 10 : 1024);
        assert_true(lb->panic_pct == 50 && !only(s)->dest.policy.outlier.on && lb->slow_start_min_pct == 10);
        objset_free(s);
        buf_free(&text);
    }
    struct objset *s = read_good("apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: { name: d }\nspec: { host: s, trafficPolicy: { loadBalancer: { warmupDurationSecs: 10s },\n"
                                 "outlierDetection: { consecutiveErrors: 3 }, tls: { mode: SIMPLE } } }\n");
    const struct cluster_policy *p = &only(s)->dest.policy;
    assert_true(p->lb.slow_start_ms == 10000 && p->outlier.consecutive_5xx == 3 && p->outlier.consecutive_gateway == 3 && p->lb.panic_pct == 0);
    assert_true(p->outlier.interval_ms == 10000 && p->outlier.base_ejection_ms == 30000 && p->outlier.max_ejection_ms == 300000 && p->outlier.max_ejection_pct == 10);
    assert_true(p->tls.mode == TLS_SIMPLE && p->tls.system_ca);
    objset_free(s);
    s = read_good(DR("trafficPolicy: { connectionPool: { tcp: { idleTimeout: 0s } } }"));
    assert_int_equal(only(s)->dest.policy.pool.tcp_idle_timeout_ms, UINT32_MAX); /* "If set to 0s, the timeout will be disabled" */
    objset_free(s);
    s = read_good(DR("trafficPolicy: { outlierDetection: {} }"));
    assert_true(only(s)->dest.policy.outlier.consecutive_5xx == 5 && only(s)->dest.policy.outlier.consecutive_gateway == 0);
    objset_free(s);
}

static const struct port_policy *port_of(const struct port_policy *ports, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++)
        if (ports[i].port == port)
            return &ports[i];
    fail_msg("no policy of port %u", port);
    return NULL;
}

/* A block of a subset replaces the rule's; the settings of a port take nothing from the level they are in. */
static void test_dr_levels(void **state)
{
    struct objset *s = read_good(DR(
        "trafficPolicy: { loadBalancer: { simple: RANDOM }, connectionPool: { tcp: { maxConnections: 1 } }, outlierDetection: {}, proxyProtocol: {},\n"
        "portLevelSettings: [ { port: { number: 80 }, connectionPool: { tcp: { maxConnections: 2 } } }, { port: { number: 81 }, loadBalancer: { simple: ROUND_ROBIN } } ] },\n"
        "subsets: [ { name: v1, labels: { version: v1 } },\n"
        "{ name: v2, labels: { version: v2 }, trafficPolicy: { connectionPool: { http: { maxRetries: 3 } }, portLevelSettings: [ { port: { number: 81 }, tls: { mode: SIMPLE } } ] } } ]"));
    const struct destination_rule *d = &only(s)->dest;
    const struct cluster_policy *p80 = &port_of(d->ports, d->ports_n, 80)->policy;
    assert_true(p80->pool.connections_max == 2 && p80->lb.kind == LB_LEAST_REQUEST && !p80->outlier.on && p80->pool.proxy_protocol == 1 && p80->lb.panic_pct == 50);
    const struct subset *v1 = &d->subsets[0], *v2 = &d->subsets[1];
    assert_true(v1->policy.lb.kind == LB_RANDOM && v1->policy.pool.connections_max == 1 && v1->ports_n == 2 && v1->policy.lb.panic_pct == 0);
    assert_int_equal(port_of(v1->ports, v1->ports_n, 80)->policy.pool.connections_max, 2);
    assert_true(v2->policy.lb.kind == LB_RANDOM && v2->policy.pool.connections_max == 0 && v2->policy.pool.retries_max == 3 && v2->policy.outlier.on);
    assert_int_equal(v2->ports_n, 2);
    const struct cluster_policy *v81 = &port_of(v2->ports, 2, 81)->policy, *v80 = &port_of(v2->ports, 2, 80)->policy;
    assert_true(v81->tls.mode == TLS_SIMPLE && v81->lb.kind == LB_LEAST_REQUEST && v81->pool.retries_max == 0 && v81->pool.proxy_protocol == 1);
    assert_true(v80->pool.retries_max == 3 && v80->pool.connections_max == 0 && v80->lb.kind == LB_LEAST_REQUEST);
    objset_free(s);
}

/* ---- Istio's Gateway, ServiceEntry, the rest --------------------------------------------------------------------------------------- */

static void test_istio_gateway(void **state)
{
    struct objset *s = read_good(IGW(
        "servers: [ { port: { number: 80, name: http, protocol: HTTP }, hosts: [ \"*\" ], bind: 0.0.0.0, tls: { httpsRedirect: true } },\n"
        "{ name: web, port: { number: 443, name: https, protocol: HTTPS }, bind: 0.0.0.0, hosts: [ \"shop/a.example\", \"./*.b.example\" ], tls: { mode: MUTUAL, credentialName: c, subjectAltNames: [ x ], minProtocolVersion: TLSV1_3, cipherSuites: [ A, B ] } },\n"
        "{ port: { number: 444, name: pass, protocol: HTTPS }, bind: 0.0.0.0, hosts: [ c.example ], tls: { mode: PASSTHROUGH } },\n"
        "{ port: { number: 445, name: two, protocol: HTTPS }, bind: 0.0.0.0, hosts: [ c.example ], tls: { mode: OPTIONAL_MUTUAL, credentialNames: [ rsa, ec ], caCertCredentialName: ca } },\n"
        "{ port: { number: 5432, protocol: TCP }, bind: 0.0.0.0, hosts: [ \"*\" ] } ]"));
    const struct object *o = only(s);
    const struct gw_listener *ln = o->gw.listeners;
    assert_string_equal(obj_kind_name(o->kind), "Gateway.networking.istio.io");
    assert_true(o->gw.listeners_n == 5 && o->gw.addresses_n == 1 && addr_ip4_host(&o->gw.addresses[0]) == 0);
    assert_true(ln[0].https_redirect && ln[0].protocol == LISTEN_HTTP && ln[0].from == LISTEN_FROM_ALL && !ln[0].hostname && ln[0].hosts_n == 1);
    assert_string_equal(ln[0].name, "http");
    assert_true(ln[1].tls == LISTEN_TLS_MUTUAL && ln[1].certs_n == 1 && ln[1].client_ca_n == 1 && ln[1].client_sans_n == 1 && ln[1].tls_min == 13);
    assert_string_equal(ln[1].ciphers, "A:B");
    assert_string_equal(ln[1].name, "web");
    assert_string_equal(ln[1].client_ca[0].name, "c");
    assert_true(ln[2].tls == LISTEN_TLS_PASSTHROUGH && ln[2].protocol == LISTEN_TLS);
    assert_true(ln[3].tls == LISTEN_TLS_OPTIONAL_MUTUAL && ln[3].certs_n == 2);
    assert_string_equal(ln[3].client_ca[0].name, "ca");
    assert_true(ln[4].protocol == LISTEN_TCP && ln[4].tls == LISTEN_TLS_NONE);
    assert_string_equal(ln[4].name, "port-5432");
    objset_free(s);
}

static void test_service_entry(void **state)
{
    struct objset *s = read_good(SE("location: MESH_INTERNAL, resolution: STATIC, exportTo: [ \".\" ], subjectAltNames: [ x ], addresses: [ 240.0.0.1/32 ], ports: [ { number: 443, name: https, protocol: HTTPS }, { number: 80, name: http, targetPort: 8080 } ],\n"
                                    "endpoints: [ { address: 10.0.0.1, ports: { http: 81 }, labels: { v: \"1\" }, locality: r/z, weight: 5 }, { address: \"unix:///run/x.sock\" } ]"));
    const struct service_entry *e = &only(s)->entry;
    assert_true(e->resolution == ENTRY_STATIC && e->inside && e->hosts_n == 1 && e->ports_n == 2 && e->export_to_n == 1 && e->sans_n == 1);
    assert_string_equal(e->ports[0].app_protocol, "https");
    assert_true(e->ports[0].target == 443 && e->ports[1].target == 8080 && !e->ports[1].app_protocol);
    assert_true(e->endpoints_n == 2 && e->endpoints[0].weight == 5 && e->endpoints[1].weight == 1 && e->endpoints[0].rest->ports.n == 1);
    assert_string_equal(e->endpoints[0].rest->ports.items[0].value, "81");
    assert_string_equal(e->endpoints[0].rest->locality, "r/z");
    objset_free(s);
    s = read_good(SE("resolution: DNS_ROUND_ROBIN, ports: [ { number: 443, name: tls, protocol: TLS } ]"));
    assert_true(only(s)->entry.resolution == ENTRY_DNS && only(s)->entry.endpoints_n == 0);
    objset_free(s);
}

static void test_accepted_kinds(void **state)
{
    struct objset *s = read_good(
        "apiVersion: networking.istio.io/v1beta1\nkind: Sidecar\nmetadata: { name: default }\nspec: { egress: [ { hosts: [ \"./*\" ] } ], outboundTrafficPolicy: { mode: REGISTRY_ONLY } }\n---\n"
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: p }\nspec: { selector: { matchLabels: { a: b } }, mtls: { mode: STRICT }, portLevelMtls: { \"80\": { mode: UNSET } } }\n---\n"
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: { name: q }\n");
    assert_int_equal(objset_n(s), 3);
    objset_free(s);
}

static void test_traffic_split(void **state)
{
    static const struct {
        const char *version, *weights[2];
        uint32_t want[2];
    } cases[] = {{"v1alpha1", {"900m", "100m"}, {9, 1}}, {"v1alpha1", {"1", "500m"}, {2, 1}}, {"v1alpha2", {"90", "10"}, {9, 1}}, {"v1alpha3", {"0", "5"}, {0, 1}}, {"v1alpha4", {"3", "7"}, {3, 7}}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        buf_printf(&b, "apiVersion: split.smi-spec.io/%s\nkind: TrafficSplit\nmetadata: { name: t }\nspec: { service: web.default.svc, backends: [ { service: a, weight: %s }, { service: b, weight: %s } ] }\n",
                   cases[i].version, cases[i].weights[0], cases[i].weights[1]);
        struct objset *s = read_good(b.p);
        const struct traffic_split *t = &only(s)->split;
        assert_string_equal(t->service, "web");
        assert_true(t->backends_n == 2 && t->backends[0].weight == cases[i].want[0] && t->backends[1].weight == cases[i].want[1]);
        objset_free(s);
        buf_free(&b);
    }
}

/* ---- weir.dev ----------------------------------------------------------------------------------------------------------------------------- */

static const struct http_filter *filter_of(struct objset **s, const char *spec)
{
    struct buf b = {0};
    buf_printf(&b, HF("%s"), spec);
    objset_free(*s);
    *s = read_fair(b.p);
    buf_free(&b);
    return &only(*s)->filter;
}

static void test_filters(void **state)
{
    struct objset *s = NULL;
    const struct http_filter *f = filter_of(&s, "compression: { algorithms: [ br, gzip ], minBytes: 10, contentTypes: [ text/plain ], level: 9 }");
    assert_true(f->kind == FILTER_COMPRESS && f->compress.br && f->compress.gzip && !f->compress.zstd && f->compress.min_bytes == 10 && f->compress.types_n == 1 && f->compress.level == 9);
    f = filter_of(&s, "compression: {}");
    assert_true(f->compress.br && f->compress.zstd && f->compress.min_bytes == 1024 && f->compress.types_n > 3 && f->compress.level == 0);
    f = filter_of(&s, "staticFiles: { root: ./public, fallback: /index.html, cacheControl: no-cache, precompressed: true }");
    assert_true(f->kind == FILTER_STATIC && f->files.precompressed);
    assert_string_equal(f->files.root, "/srv/app/public");
    assert_string_equal(f->files.index, "index.html");
    f = filter_of(&s, "staticFiles: { root: /var/www, index: \"\" }");
    assert_string_equal(f->files.root, "/var/www");
    assert_null(f->files.index);
    f = filter_of(&s, "aggregate: { timeout: 2s, parts: [ { name: user, backendRef: { name: users, port: 80 }, path: \"/u/{1}?q={query:q}&h={header:x-y}\", required: true, pointer: /data }, { backendRef: { name: o, port: 81, namespace: other }, timeout: 100ms } ] }");
    assert_true(f->kind == FILTER_AGGREGATE && f->aggregate.parts_n == 2 && f->aggregate.timeout_ms == 2000 && f->aggregate.part_bytes_max == 1 << 20);
    assert_true(f->aggregate.parts[0].required && f->aggregate.parts[1].timeout_ms == 100 && f->aggregate.parts[1].backend.port == 81);
    assert_string_equal(f->aggregate.parts[1].path, "{path}");
    assert_string_equal(f->aggregate.parts[1].name, "");
    assert_string_equal(f->aggregate.parts[1].backend.ns, "other");
    f = filter_of(&s, "transform: { request: [ { set: { pointer: /a/b, value: { c: [ 1, null, x ] } } } ], response: [ { remove: { pointer: /s } }, { rename: { from: /a, to: /b } }, { replace: { regex: \"a(.)\", with: \"b\\\\1\" } } ] }");
    assert_true(f->kind == FILTER_TRANSFORM && f->transform.ops_n == 4 && f->transform.ops[0].request && !f->transform.ops[1].request);
    assert_string_equal(f->transform.ops[0].value, "{\"c\":[1,null,\"x\"]}");
    assert_true(f->transform.ops[2].op == TRANSFORM_RENAME && f->transform.ops[3].op == TRANSFORM_REPLACE && !f->transform.ops[3].pointer);
    assert_string_equal(f->transform.ops[2].value, "/b");
    f = filter_of(&s, "directResponse: { status: 503, body: sorry, contentType: text/html }");
    assert_true(f->kind == FILTER_DIRECT && f->direct.status == 503 && f->direct.body_n == 5);
    f = filter_of(&s, "fault: { delay: { duration: 10ms, percent: 0.5 }, abort: { grpcStatus: 0 } }");
    assert_true(f->kind == FILTER_FAULT && f->fault.delay_ppm == 5000 && f->fault.abort_ppm == 1000000 && f->fault.abort_grpc == 0 && f->fault.abort_status == 0);
    f = filter_of(&s, "upgrades: { connect: true }");
    assert_true(f->kind == FILTER_UPGRADES && f->upgrades.connect && !f->upgrades.refused);
    f = filter_of(&s, "hedge: { delay: 50ms }");
    assert_true(f->kind == FILTER_HEDGE && f->hedge.delay_ms == 50 && f->hedge.max == 1);
    f = filter_of(&s, "cors: { allowOrigins: [ \"*\" ], unmatchedPreflights: Forward }");
    assert_true(f->kind == FILTER_CORS && f->cors.forward_unmatched && f->cors.max_age_s == 5);
    objset_free(s);
}

static void test_backend_policy(void **state)
{
    struct objset *s = read_fair(BP(
        "loadBalancer: { algorithm: RingHash, hash: { cookie: { name: c, ttl: 0s } }, ringSize: 64, boundedLoadPercent: 125, panicPercent: 0 }, slowStart: { duration: 1m, minPercent: 20 },\n"
        "connectionPool: { maxConnections: 1, maxPendingRequests: 2, maxRequests: 3, maxRetries: 4, connectTimeout: 1s, http: Auto, proxyProtocol: V1, keepalive: { time: 60s } }, retryBudget: {},\n"
        "outlierDetection: { consecutiveLocalErrors: 2, successRate: { standardDeviations: 2.5 }, failurePercentage: { threshold: 50 } },\n"
        "healthCheck: { http: { path: /ready, statuses: { min: 200, max: 399 } }, interval: 2s, port: 9000 }, tls: { wellKnownCACertificates: System, hostname: x.example, clientCertificateRef: { name: c } },\n"
        "adaptiveConcurrency: { minLimit: 5, maxLimit: 50 }, loadShedding: { header: x-priority, levels: [ high, normal ], atPercent: 80 }, hedging: { delay: 20ms, maxRequests: 2 },\n"
        "sessionPersistence: { type: Header }"));
    const struct backend_policy *b = &only(s)->backend;
    const struct cluster_policy *p = &b->policy;
    assert_true(b->services_n == 1 && b->has_lb && b->has_pool && b->has_outlier && b->has_health && b->has_tls && b->has_adaptive && b->has_shed && b->has_hedge && b->has_retry_budget &&
                b->has_slow_start && b->has_session);
    assert_true(p->lb.kind == LB_RING_HASH && p->lb.hash_on == HASH_COOKIE && p->lb.ring_size_min == 64 && p->lb.bounded_load_pct == 125 && p->lb.panic_pct == 0);
    assert_true(p->lb.cookie_ttl_given && p->lb.cookie_ttl_s == 0 && p->lb.slow_start_ms == 60000 && p->lb.slow_start_min_pct == 20);
    assert_true(p->pool.connections_max == 1 && p->pool.pending_max == 2 && p->pool.requests_max == 3 && p->pool.retries_max == 4 && p->pool.http == UPSTREAM_AUTO);
    assert_true(p->pool.proxy_protocol == 1 && p->pool.keepalive_time_s == 60 && p->pool.retry_budget_pct == 20 && p->pool.retry_budget_min == 3);
    assert_true(p->outlier.consecutive_local == 2 && p->outlier.split_local && p->outlier.success_rate_stdev_permille == 2500 && p->outlier.success_rate_volume == 100 && p->outlier.failure_pct == 50);
    assert_true(p->health.kind == HEALTH_HTTP && p->health.status_max == 399 && p->health.interval_ms == 2000 && p->health.timeout_ms == 1000 && p->health.port == 9000 && p->health.unhealthy == 3);
    assert_true(p->tls.mode == TLS_MUTUAL && p->tls.system_ca);
    assert_string_equal(p->tls.sni, "x.example");
    assert_true(p->adaptive.on && p->adaptive.min == 5 && p->adaptive.max == 50 && p->adaptive.buffer_pct == 25 && p->shed.levels_n == 2 && p->shed.at_pct == 80);
    assert_true(p->hedge.delay_ms == 20 && p->hedge.max == 2 && p->session.header);
    objset_free(s);
    s = read_fair(BP("healthCheck: { grpc: {} }"));
    assert_true(only(s)->backend.policy.health.kind == HEALTH_GRPC && !only(s)->backend.has_lb);
    objset_free(s);
}

/* ---- bad manifests --------------------------------------------------------------------------------------------------------------------- */

static const struct bad_case bad_traffic[] = {
    /* kinds */
    {"EnvoyFilter", "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: { name: a }\n", "m.yaml:2:7: error: EnvoyFilter/default/a: refused: there is no Envoy here whose configuration could be changed: say it with VirtualService"},
    {"WasmPlugin", "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: { name: a }\n", "m.yaml:2:7: error: WasmPlugin/default/a: refused: proxies here do not run WebAssembly: say it with an HTTPFilter"},
    {"two kinds of one name", "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: g }\nspec: { servers: [ { port: { number: 1, protocol: HTTP }, hosts: [ \"*\" ] } ] }\n---\n" API
     "kind: Gateway\nmetadata: { name: g }\nspec: { gatewayClassName: x, listeners: [ { name: a, port: 2, protocol: HTTP } ] }\n---\napiVersion: networking.istio.io/v1beta1\nkind: Gateway\nmetadata: { name: g }\nspec: { servers: [ { port: { number: 1, protocol: HTTP }, hosts: [ \"*\" ] } ] }\n",
     "m.yaml:11:1: error: Gateway.networking.istio.io/default/g: the object is in this file twice: first at line 1"},

    /* other routes of the Gateway API */
    {"GRPCRoute", API "kind: GRPCRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], rules: [ { matches: [ { method: {} }, { method: { type: RegularExpression, method: \"(\" } } ], backendRefs: [ { name: s, port: 80 } ],\n"
     "filters: [ { type: URLRewrite, urlRewrite: {} } ] } ] }\n",
     "m.yaml:4:70: error: GRPCRoute/default/r spec.rules[0].matches[0].method: neither service nor method; add one of them\n"
     "m.yaml:4:86: error: GRPCRoute/default/r spec.rules[0].matches[1].method: not a regular expression: at byte\n"
     "m.yaml:5:20: error: GRPCRoute/default/r spec.rules[0].filters[0].type: \"URLRewrite\" is not known; known here: RequestHeaderModifier\n"
     "m.yaml:5:32: warning: GRPCRoute/default/r spec.rules[0].filters[0].urlRewrite: unknown field of a filter of a rule"},
    {"TCPRoute with two rules", "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], rules: [ { backendRefs: [ { name: s, port: 80 } ] }, { backendRefs: [] } ] }\n",
     "m.yaml:4:45: error: TCPRoute/default/r spec.rules: 2 rules: nothing would tell them apart\nm.yaml:4:91: warning: TCPRoute/default/r spec.rules[1].backendRefs: none: connections of this rule are closed"},
    {"ReferenceGrant", "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: { name: r }\nspec: { from: [ { group: \"\", kind: X } ], to: [] }\n",
     "m.yaml:4:17: error: ReferenceGrant/default/r spec.from[0].namespace: missing\nm.yaml:4:47: error: ReferenceGrant/default/r spec.to: empty: nothing would be granted"},
    {"BackendTLSPolicy", API "kind: BackendTLSPolicy\nmetadata: { name: r }\nspec: { targetRefs: [ { group: apps, kind: Service, name: s } ], validation: { hostname: a.example, subjectAltNames: [ { type: URI } ] } }\n",
     "m.yaml:4:32: error: BackendTLSPolicy/default/r spec.targetRefs[0].group: \"apps\" is not known\n"
     "m.yaml:4:78: error: BackendTLSPolicy/default/r spec.validation: neither caCertificateRefs nor wellKnownCACertificates; give exactly one\n"
     "m.yaml:4:120: error: BackendTLSPolicy/default/r spec.validation.subjectAltNames[0].uri: missing, with this type"},
    {"BackendTLSPolicy before", "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: BackendTLSPolicy\nmetadata: { name: r }\nspec: { targetRef: { group: \"\", kind: Service, name: s, namespace: o }, tls: { hostname: a.example, wellKnownCACerts: System, caCertRefs: [ { kind: Secret, name: c } ] } }\n",
     "m.yaml:4:57: error: BackendTLSPolicy/default/r spec.targetRef.namespace: refused: a policy is for Services of its own namespace\n"
     "m.yaml:4:78: error: BackendTLSPolicy/default/r spec.tls: both caCertRefs and wellKnownCACerts; give exactly one"},

    /* VirtualService */
    {"no rules", VS("gateways: [ mesh ]"), "m.yaml:4:7: error: " AT_V "http: missing: nothing is routed"},
    {"delegate with gateways", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: v }\nspec: { gateways: [ g ], http: [ { " TO_S " } ] }\n", "m.yaml:4:7: error: " AT_V "hosts: missing: only delegates"},
    {"rule without action", VS("http: [ { match: [ { uri: { prefix: / } } ] } ]"), "m.yaml:5:9: error: " AT_V "http[0].route: missing: the rule does nothing"},
    {"string matches", VS("http: [ { match: [ { uri: { prefix: /, exact: / }, method: {}, headers: { \":authority\": { regex: \"[\" } } } ], " TO_S " } ]"),
     "m.yaml:5:27: error: " AT_V "http[0].match[0].uri: more than one of exact, prefix, regex\n"
     "m.yaml:5:60: error: " AT_V "http[0].match[0].method: none of exact, prefix, regex; give exactly one\n"
     "m.yaml:5:75: error: " AT_V "http[0].match[0].headers[\":authority\"]: not a name of an HTTP field; use uri, scheme, method and authority\n"
     "m.yaml:5:98: error: " AT_V "http[0].match[0].headers[\":authority\"].regex: not a regular expression: at byte 2"},
    {"weights", VS("http: [ { route: [ { destination: { host: a } }, { destination: { host: b } } ] } ]"), "m.yaml:5:18: error: " AT_V "http[0].route: the weights add up to 0"},
    {"destinations", VS("http: [ { route: [ { destination: { host: \"A b\", port: { name: http } } } ] } ]"),
     "m.yaml:5:43: error: " AT_V "http[0].route[0].destination.host: not valid here: \"A b\"\n"
     "m.yaml:5:56: error: " AT_V "http[0].route[0].destination.port.number: missing\n"
     "m.yaml:5:58: error: " AT_V "http[0].route[0].destination.port.name: refused: Istio has no ports by name either"},
    {"actions that exclude each other", VS("http: [ { " TO_S ", redirect: { uri: /, authority: \"a:b\", port: 1, derivePort: FROM_REQUEST_PORT }, rewrite: { uri: /x, uriRegexRewrite: { match: a, rewrite: b } } } ]"),
     "m.yaml:5:18: error: " AT_V "http[0].route: a rule with redirect has no route\n"
     "m.yaml:5:83: error: " AT_V "http[0].redirect.authority: not an authority: a:b; give HOST or HOST:PORT\n"
     "m.yaml:5:111: error: " AT_V "http[0].redirect.derivePort: both port and derivePort\n"
     "m.yaml:5:141: error: " AT_V "http[0].rewrite: a rule with redirect has no rewrite\n"
     "m.yaml:5:169: error: " AT_V "http[0].rewrite.uriRegexRewrite: both uri and uriRegexRewrite"},
    {"what answers itself has no fault", VS("http: [ { directResponse: { status: 200 }, rewrite: { uri: / }, fault: { abort: { httpStatus: 500, percent: 1 } } }, { redirect: { uri: / }, fault: { abort: { httpStatus: 500, percent: 1 } } } ]"),
     "m.yaml:5:53: error: " AT_V "http[0].rewrite: a rule with directResponse has no rewrite\n"
     "m.yaml:5:72: error: " AT_V "http[0].fault: a rule with directResponse has no fault\n"
     "m.yaml:5:149: error: " AT_V "http[1].fault: a rule with redirect has no fault"},
    {"retries", VS("http: [ { " TO_S ", timeout: 5, retries: { attempts: -1, perTryTimeout: 2, retryOn: \"5xx,often,envoy-ratelimited\" } } ]"),
     "m.yaml:5:61: error: " AT_V "http[0].timeout: 5 is a whole number, and must be a duration such as 1.5s, 100ms or 1h\n"
     "m.yaml:5:85: error: " AT_V "http[0].retries.attempts: -1 is out of range\n"
     "m.yaml:5:104: error: " AT_V "http[0].retries.perTryTimeout: 2 is a whole number\n"
     "m.yaml:5:116: warning: " AT_V "http[0].retries.retryOn: ignored: there is nothing here that envoy-ratelimited could mean\n"
     "m.yaml:5:116: error: " AT_V "http[0].retries.retryOn: not a condition: \"often\""},
    {"targets that would end a line", VS("http: [ { " TO_S ", rewrite: { uri: \"/a b\", authority: \"x y\" } }, { redirect: { uri: \"/a\\r\\nb\", authority: x/y } } ]"),
     "m.yaml:5:68: error: " AT_V "http[0].rewrite.uri: not valid here: \"/a b\"; encode spaces\n"
     "m.yaml:5:87: error: " AT_V "http[0].rewrite.authority: not valid here: \"x y\"; give HOST or HOST:PORT\n"
     "m.yaml:5:117: error: " AT_V "http[1].redirect.uri: not valid here\n"
     "m.yaml:5:139: error: " AT_V "http[1].redirect.authority: not valid here: \"x/y\""},
    {"commands of Envoy", VS("http: [ { " TO_S ", headers: { request: { set: { x-a: \"%DOWNSTREAM_REMOTE_ADDRESS%\", x-b: 50% off, x-c: \"a%REQ(x)%\", x-d: \"%41 %% %\" } } } } ]"),
     "m.yaml:5:86: warning: " AT_V "http[0].headers.request.set[\"x-a\"]: sent as it is\n"
     "m.yaml:5:136: warning: " AT_V "http[0].headers.request.set[\"x-c\"]: sent as it is"},
    {"faults", VS("http: [ { " TO_S ", fault: { delay: { percentage: { value: 101 } }, abort: { httpStatus: 500, grpcStatus: SAD } } } ]"),
     "m.yaml:5:68: error: " AT_V "http[0].fault.delay.fixedDelay: missing\n"
     "m.yaml:5:91: error: " AT_V "http[0].fault.delay.percentage.value: 101 is out of range; give a number from 0 to 100\n"
     "m.yaml:5:107: error: " AT_V "http[0].fault.abort: more than one of httpStatus, grpcStatus, http2Error\n"
     "m.yaml:5:107: warning: " AT_V "http[0].fault.abort.percentage: no percentage is given: no request is aborted\n"
     "m.yaml:5:138: error: " AT_V "http[0].fault.abort.grpcStatus: not a status of gRPC: \"SAD\""},
    {"headers", VS("http: [ { " TO_S ", headers: { request: { set: { \"a b\": c, host: x }, remove: [ Content-Length ] } } } ]"),
     "m.yaml:5:81: error: " AT_V "http[0].headers.request.set[\"a b\"]: not a valid name of an HTTP field\n"
     "m.yaml:5:97: error: " AT_V "http[0].headers.request.set[\"host\"]: refused: the field host belongs to the proxy\n"
     "m.yaml:5:112: error: " AT_V "http[0].headers.request.remove[0]: refused: the field Content-Length belongs to the proxy"},
    {"a delegate that also routes", VS("http: [ { " TO_S ", delegate: { name: x } } ]"), "m.yaml:5:62: error: " AT_V "http[0].delegate: a rule with a delegate has no route"},
    {"hosts and gateways", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: v, annotations: { weir.dev/filters: \"a,B_\" } }\nspec: { hosts: [ \"a:80\", 10.0.0.1, \"*\" ], gateways: [ a/b/c ], http: [ { " TO_S " } ] }\n",
     "m.yaml:3:55: error: VirtualService/default/v metadata.annotations[\"weir.dev/filters\"]: not a name: \"B_\"\n"
     "m.yaml:4:18: error: " AT_V "hosts[0]: not valid here: \"a:80\"\n"
     "m.yaml:4:55: error: " AT_V "gateways[0]: not valid here: \"a/b/c\""},
    {"subnets", VS("tcp: [ { match: [ { destinationSubnets: [ 10.0.0.0/8 ] } ], " TO_S " } ], tls: [ { match: [ { port: 1 } ], " TO_S " }, { " TO_S " } ]"),
     "m.yaml:5:21: error: " AT_V "tcp[0].match[0].destinationSubnets: refused: workloads connect to Weir's own addresses\n"
     "m.yaml:5:124: error: " AT_V "tls[0].match[0].sniHosts: missing\n"
     "m.yaml:5:182: error: " AT_V "tls[1].match: missing"},

    /* DestinationRule */
    {"balancing", DR("trafficPolicy: { loadBalancer: { simple: PASSTHROUGH, consistentHash: { httpHeaderName: a, useSourceIp: false, ringHash: {}, maglev: {} } }, tunnel: {} }"),
     "m.yaml:5:42: error: " AT_D "trafficPolicy.loadBalancer.simple: refused: workloads connect to Weir's own addresses\n"
     "m.yaml:5:71: error: " AT_D "trafficPolicy.loadBalancer.consistentHash: both simple and consistentHash\n"
     "m.yaml:5:71: error: " AT_D "trafficPolicy.loadBalancer.consistentHash: more than one of httpHeaderName, httpCookie\n"
     "m.yaml:5:134: error: " AT_D "trafficPolicy.loadBalancer.consistentHash.maglev: both ringHash and maglev\n"
     "m.yaml:5:142: error: " AT_D "trafficPolicy.tunnel: refused: tunnels through another proxy"},
    {"TLS to a destination", DR("trafficPolicy: { tls: { mode: MUTUAL, clientCertificate: /etc/certs/cert.pem } }"),
     "m.yaml:5:23: error: " AT_D "trafficPolicy.tls.credentialName: missing, with mode MUTUAL\n"
     "m.yaml:5:39: error: " AT_D "trafficPolicy.tls.clientCertificate: refused: the files of a proxy's container are not here; put them into a Secret"},
    {"subsets", DR("subsets: [ { name: a }, { name: a, labels: { x: 1 }, trafficPolicy: { portLevelSettings: [ { port: { number: 1 } }, { port: { number: 1 } } ] } } ]"),
     "m.yaml:5:33: error: " AT_D "subsets[1].name: the name a is given twice\n"
     "m.yaml:5:49: error: " AT_D "subsets[1].labels[\"x\"]: 1 is a whole number, and must be a string\n"
     "m.yaml:5:117: error: " AT_D "subsets[1].trafficPolicy.portLevelSettings[1].port.number: the port 1 is given twice"},

    /* Istio's Gateway */
    {"servers", IGW("servers: [ { port: { number: 80, protocol: HTTP }, hosts: [], tls: { mode: SIMPLE } }, { port: { number: 443, protocol: HTTPS }, hosts: [ \"*/a\" ] },\n"
                    "{ port: { number: 444, protocol: HTTPS }, bind: 10.0.0.1, hosts: [ \"*\" ], tls: { mode: SIMPLE, serverCertificate: /x, minProtocolVersion: TLSV1_0 } }, { port: { number: 445, protocol: TLS }, hosts: [ \"*\" ], tls: { mode: AUTO_PASSTHROUGH } } ]"),
     "m.yaml:5:59: error: " AT_I "servers[0].hosts: empty: nothing would be served\n"
     "m.yaml:5:68: error: " AT_I "servers[0].tls.mode: has no meaning with this protocol\n"
     "m.yaml:5:88: error: " AT_I "servers[1].tls: missing, with this protocol\n"
     "m.yaml:6:49: error: " AT_I "servers[2].bind: not the address of the first server\n"
     "m.yaml:6:80: error: " AT_I "servers[2].tls.credentialName: missing, with this mode\n"
     "m.yaml:6:96: error: " AT_I "servers[2].tls.serverCertificate: refused\n"
     "m.yaml:6:139: error: " AT_I "servers[2].tls.minProtocolVersion: refused: versions before 1.2 are not spoken\n"
     "m.yaml:6:221: error: " AT_I "servers[3].tls.mode: refused: there are no other clusters"},

    /* ServiceEntry */
    {"addresses of an entry", SE("resolution: STATIC, ports: [ { number: 80, name: a }, { number: 80, name: b } ], endpoints: [ { address: a.example }, { address: \"unix://x\" } ]"),
     "m.yaml:5:55: error: " AT_E "ports[1].number: the port 80 is given twice\n"
     "m.yaml:5:106: error: " AT_E "endpoints[0].address: not an address here: \"a.example\"; give an IP address or unix:///PATH\n"
     "m.yaml:5:130: error: " AT_E "endpoints[1].address: not an address here: \"unix://x\""},
    {"entries that say too much or too little", SE("resolution: STATIC, ports: [ { number: 80, name: a, protocol: UDP } ]"),
     "m.yaml:4:7: error: " AT_E "endpoints: missing, with resolution STATIC\nm.yaml:5:63: error: " AT_E "ports[0].protocol: refused: UDP is not built"},
    {"entry without resolution", "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: e }\nspec: { hosts: [ \"*.example.com\" ], resolution: NONE, ports: [ { number: 80, name: a } ] }\n",
     "m.yaml:4:18: warning: " AT_E "hosts[0]: *.example.com cannot stand in the hosts file of workloads\nm.yaml:4:49: warning: " AT_E "resolution: approximated: the host is looked up in DNS"},

    /* the rest of Istio, SMI */
    {"modes of mTLS", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: p }\nspec: { mtls: { mode: PERMISSIVE } }\n", "m.yaml:4:23: warning: PeerAuthentication/default/p spec.mtls.mode: approximated: as STRICT"},
    {"open egress", "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: { name: p }\nspec: { outboundTrafficPolicy: { mode: ALLOW_ANY } }\n", "m.yaml:4:40: warning: Sidecar/default/p spec.outboundTrafficPolicy.mode: approximated: what is not declared cannot be reached"},
    {"TrafficSplit", "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: { name: t }\nspec: { service: s, backends: [ { service: a, weight: x }, { service: b, weight: 0 } ], matches: [] }\n",
     "m.yaml:4:31: error: TrafficSplit/default/t spec.backends: the weights add up to 0\nm.yaml:4:55: error: TrafficSplit/default/t spec.backends[0].weight: not a weight: \"x\"\n"
     "m.yaml:4:89: error: TrafficSplit/default/t spec.matches: refused: HTTPRouteGroups are not built"},

    /* weir.dev */
    {"filter of two kinds", HF("compression: {}, cors: {}"), "m.yaml:4:7: error: " AT_F ": more than one of compression, staticFiles, aggregate"},
    {"compression", HF("compression: { algorithms: [ lzma ], level: 12 }"), "m.yaml:5:30: error: " AT_F ".compression.algorithms[0]: \"lzma\" is not known; known here: gzip, br, zstd\nm.yaml:5:45: error: " AT_F ".compression.level: 12 is out of range"},
    {"aggregate", HF("aggregate: { parts: [ { name: a, backendRef: { name: s, port: 80 }, path: \"/{x}\" }, { name: a, backendRef: { name: s, port: 80 }, pointer: \"a~2\" } ] }"),
     "m.yaml:5:75: error: " AT_F ".aggregate.parts[0].path: not known: {x}; known here: {1} to {9}\n"
     "m.yaml:5:93: error: " AT_F ".aggregate.parts[1].name: the name a is given twice\n"
     "m.yaml:5:140: error: " AT_F ".aggregate.parts[1].pointer: not a JSON pointer (RFC 6901): \"a~2\""},
    {"transform", HF("transform: { request: [ { set: { pointer: a } }, {}, { replace: { regex: \"(\" } } ] }"),
     "m.yaml:5:43: error: " AT_F ".transform.request[0].set.pointer: not a JSON pointer\n"
     "m.yaml:5:50: error: " AT_F ".transform.request[1]: none of set, remove, rename, replace; give exactly one\n"
     "m.yaml:5:74: error: " AT_F ".transform.request[2].replace.regex: not a regular expression: at byte 2"},
    {"fault without anything", HF("fault: {}"), "m.yaml:5:8: error: " AT_F ".fault: neither delay nor abort"},
    {"abort with two statuses", HF("fault: { abort: { status: 500, grpcStatus: 3 } }"), "m.yaml:5:17: error: " AT_F ".fault.abort: both status and grpcStatus"},
    {"policy that says nothing", BP("loadBalancer: null"), "m.yaml:4:7: warning: " AT_P ": says nothing: no block is given"},
    {"policy", BP("loadBalancer: { algorithm: Maglev }, tls: {}, adaptiveConcurrency: { minLimit: 9, maxLimit: 8 }"),
     "m.yaml:5:15: error: " AT_P ".loadBalancer.hash: missing, with this algorithm\n"
     "m.yaml:5:43: error: " AT_P ".tls: neither caCertificateRefs nor wellKnownCACertificates\n"
     "m.yaml:5:68: error: " AT_P ".adaptiveConcurrency.minLimit: more than maxLimit"},
    {"shedding without a limit", BP("loadShedding: { header: p, levels: [ a ] }"), "m.yaml:5:15: error: " AT_P ".loadShedding: there is no limit whose share could be shed"},
};

static void test_bad(void **state) { expect_bad(bad_traffic, COUNT_OF(bad_traffic)); }

/* Apart from the table, because a warning about the whole block may come with them. */
static void test_bad_health(void **state)
{
    struct diags d = {0};
    struct buf all = {0};
    objset_free(read_text(BP("healthCheck: { tcp: {}, grpc: {}, interval: 0s, http: { statuses: { min: 500, max: 400 } } }"), false, &d));
    diags_text(&d, &all);
    assert_int_equal(d.errors, 3);
    assert_non_null(strstr(all.p, "m.yaml:5:14: error: " AT_P ".healthCheck: more than one of http, tcp, grpc"));
    assert_non_null(strstr(all.p, "m.yaml:5:14: error: " AT_P ".healthCheck.interval: no time at all"));
    assert_non_null(strstr(all.p, "m.yaml:5:67: error: " AT_P ".healthCheck.http.statuses: min is above max"));
    diags_free(&d);
    buf_free(&all);
}

/* ---- references ------------------------------------------------------------------------------------------------------------------------- */

#define WEB                                                                                                                                                    \
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web }\nspec: { selector: { matchLabels: { app: web } }, template: { metadata: { labels: { app: web, version: v1 } },\n"                  \
    "spec: { containers: [ { name: c, command: [x] } ] } } }\n---\napiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, ports: [ { port: 80, name: http } ] }\n---\n"

/* The diagnostics of objset_check() for WEB and what stands after it from line 12 on, which must read without any. */
static void expect_checked(const char *name, const char *text, const char *want)
{
    struct diags d = {0};
    struct buf b = {0};
    buf_printf(&b, WEB "%s", text);
    struct objset *s = read_text(b.p, false, &d);
    expect_diags(name, &d, "");
    objset_check(s, &d);
    expect_diags(name, &d, want);
    diags_free(&d);
    for (size_t i = 0; i < objset_n(s); i++) /* one by one is the same as all */
        objset_check_object(s, objset_at(s, i), &d);
    expect_diags(name, &d, want);
    diags_free(&d);
    objset_free(s);
    buf_free(&b);
}

#define ROUTE_TO(kind, backend) API "kind: " kind "\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], rules: [ { backendRefs: [ " backend " ] } ] }\n---\n"
#define GW_ON(name, ns, port, more)                                                                                                                            \
    API "kind: Gateway\nmetadata: { name: " name ", namespace: " ns " }\nspec: { gatewayClassName: w, listeners: [ { name: l, port: " port ", allowedRoutes: { namespaces: { from: All } }, " more " } ] }\n---\n"

static void test_check_gateways(void **state)
{
    expect_checked("shared port", GW_ON("a", "default", "80", "protocol: HTTP, hostname: a.example") GW_ON("b", "other", "80", "protocol: HTTP, hostname: a.example"), "");
    expect_checked("protocols", GW_ON("a", "default", "80", "protocol: HTTP") GW_ON("b", "default", "80", "protocol: TCP"),
                 "m.yaml:17:1: error: Gateway/default/b spec.listeners[0].port: the port 80 is used by the Gateway default/a as well, with another protocol; give one of them another port");
    expect_checked("both kinds of Gateway", GW_ON("a", "default", "80", "protocol: HTTP") IGW("servers: [ { port: { number: 80, protocol: TCP }, hosts: [ \"*\" ] } ]"),
                 "m.yaml:17:1: error: Gateway.networking.istio.io/default/g spec.servers[0].port: the port 80 is used by the Gateway default/a as well, with another protocol");
    expect_checked("TCP twice", GW_ON("a", "default", "80", "protocol: TCP") GW_ON("b", "default", "80", "protocol: TCP"),
                 "m.yaml:17:1: error: Gateway/default/b spec.listeners[0].port: the port 80 is used by the Gateway default/a as well, with protocol TCP, where nothing tells");
    expect_checked("protocols of one Gateway", API "kind: Gateway\nmetadata: { name: a }\nspec: { gatewayClassName: w, listeners: [ { name: x, port: 80, protocol: HTTP, hostname: a.example }, { name: z, port: 80, protocol: TLS, tls: { mode: Passthrough } } ] }\n",
                 "m.yaml:12:1: error: Gateway/default/a spec.listeners[1].port: the port 80 is used by the Gateway default/a as well, with another protocol");
    expect_checked("certificates",
                 GW_ON("a", "default", "443", "protocol: HTTPS, tls: { certificateRefs: [ { name: none }, { name: half }, { name: c, namespace: certs } ], frontendValidation: { caCertificateRefs: [ { kind: Secret, name: half } ] } }")
                 "apiVersion: v1\nkind: Secret\nmetadata: { name: half }\nstringData: { tls.crt: x }\n---\napiVersion: v1\nkind: Secret\nmetadata: { name: c, namespace: certs }\nstringData: { tls.crt: x, tls.key: z }\n",
                 "m.yaml:12:1: error: Gateway/default/a spec.listeners[0].tls: there is no Secret none in the namespace default\n"
                 "m.yaml:12:1: error: Gateway/default/a spec.listeners[0].tls: the Secret half has no key tls.key\n"
                 "m.yaml:12:1: warning: Gateway/default/a spec.listeners[0].tls: the Secret c of the namespace certs is not granted: it is not used; add a ReferenceGrant\n"
                 "m.yaml:12:1: error: Gateway/default/a spec.listeners[0].tls: the Secret half has no key ca.crt");
}

static void test_check_routes(void **state)
{
    expect_checked("kinds and filters", GW_ON("g", "default", "80", "protocol: HTTP") ROUTE_TO("GRPCRoute", "{ name: web, port: 81 }")
                 "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: { name: t }\nspec: { parentRefs: [ { name: g } ], rules: [ { backendRefs: [ { name: absent, port: 1 } ] } ] }\n---\n" API
                 "kind: HTTPRoute\nmetadata: { name: h }\nspec: { parentRefs: [ { kind: Service, group: \"\", name: web, port: 81 }, { kind: Service, group: \"\", name: absent } ],\n"
                 "rules: [ { backendRefs: [ { name: web, port: 80 } ], filters: [ { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: f } }, { type: RequestMirror, requestMirror: { backendRef: { name: absent, port: 1 } } } ] } ] }\n",
                 "m.yaml:27:1: error: HTTPRoute/default/h spec.parentRefs[0]: the Service web has no such port\n"
                 "m.yaml:27:1: error: HTTPRoute/default/h spec.parentRefs[1]: there is no Service absent in the namespace default\n"
                 "m.yaml:31:1: error: HTTPRoute/default/h spec.rules[0].filters: there is no Service absent in the namespace default\n"
                 "m.yaml:31:1: error: HTTPRoute/default/h spec.rules[0].filters: there is no HTTPFilter f in the namespace default\n"
                 "m.yaml:20:1: error: GRPCRoute/default/r spec.rules[0].backendRefs[0]: the Service web has no port 81\n"
                 "m.yaml:22:1: error: TCPRoute/default/t spec.parentRefs[0]: no listener of the Gateway g takes a TCPRoute\n"
                 "m.yaml:25:1: error: TCPRoute/default/t spec.rules[0].backendRefs[0]: there is no Service absent in the namespace default");
    expect_checked("transformed here", GW_ON("g", "default", "80", "protocol: HTTP")
                 "apiVersion: weir.dev/v1\nkind: HTTPFilter\nmetadata: { name: all }\nspec: { aggregate: { parts: [ { name: w, backendRef: { name: web, port: 80 }, path: / } ] } }\n---\n"
                 "apiVersion: weir.dev/v1\nkind: HTTPFilter\nmetadata: { name: less }\nspec: { transform: { response: [ { remove: { pointer: /s } } ] } }\n---\n" API
                 "kind: HTTPRoute\nmetadata: { name: h }\nspec: { parentRefs: [ { name: g } ],\n"
                 "rules: [ { filters: [ { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: all } }, { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: less } } ] } ] }\n",
                 "m.yaml:31:1: warning: HTTPRoute/default/h spec.rules[0].filters: its transformation has no effect: Weir itself makes the rule's answers; let a service answer, or take the transformation out");
    expect_checked("answered here, and mirrored", GW_ON("g", "default", "80", "protocol: HTTP")
                 "apiVersion: weir.dev/v1\nkind: HTTPFilter\nmetadata: { name: files }\nspec: { staticFiles: { root: /srv } }\n---\n" API
                 "kind: HTTPRoute\nmetadata: { name: h }\nspec: { parentRefs: [ { name: g } ],\n"
                 "rules: [ { filters: [ { type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: files } }, { type: URLRewrite, urlRewrite: { hostname: x.y } }, { type: RequestMirror, requestMirror: { backendRef: { name: web, port: 80 } } } ] } ] }\n",
                 "m.yaml:26:1: warning: HTTPRoute/default/h spec.rules[0].filters: its mirrors get nothing: Weir itself answers the rule's requests; let a service answer, or take the mirrors out\n"
                 "m.yaml:26:1: warning: HTTPRoute/default/h spec.rules[0].filters: its rewrite has no effect: Weir itself answers the rule's requests");
    expect_checked("no grant", GW_ON("g", "default", "80", "protocol: HTTP") ROUTE_TO("HTTPRoute", "{ name: db, namespace: data, port: 1 }"),
                 "m.yaml:20:1: warning: HTTPRoute/default/r spec.rules[0].backendRefs[0]: the Service db of the namespace data is not granted: its share fails; add a ReferenceGrant");
    expect_checked("a grant", GW_ON("g", "default", "80", "protocol: HTTP") ROUTE_TO("HTTPRoute", "{ name: db, namespace: data, port: 1 }")
                 "apiVersion: v1\nkind: Service\nmetadata: { name: db, namespace: data }\nspec: { type: ExternalName, externalName: db.example, ports: [ { port: 1 } ] }\n---\n"
                 "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: { name: x, namespace: data }\nspec: { from: [ { group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default } ], to: [ { group: \"\", kind: Service } ] }\n",
                 "");
}

static void test_check_istio(void **state)
{
    expect_checked("hosts, subsets, delegates",
                 "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: v, annotations: { weir.dev/filters: zip } }\nspec: { hosts: [ web ], gateways: [ mesh, shop/gw ],\n"
                 "http: [ { route: [ { destination: { host: web.default.svc.cluster.local, subset: v1 }, weight: 1 }, { destination: { host: web, subset: v9 }, weight: 1 }, { destination: { host: nowhere }, weight: 1 }, { destination: { host: web, port: { number: 81 } } } ] },\n"
                 "{ match: [ { uri: { prefix: /x } } ], delegate: { name: none } }, { match: [ { uri: { prefix: /y } } ], delegate: { name: w } } ] }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: w }\nspec: { hosts: [ web.default.svc.cluster.local ], http: [ { route: [ { destination: { host: api.example.com } } ] } ] }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: x }\nspec: { http: [ { route: [ { destination: { host: web } } ] } ] }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: { name: d }\nspec: { host: web, subsets: [ { name: v1, labels: { version: v1 } }, { name: v2, labels: { version: v2 } } ] }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: { name: e }\nspec: { host: web.default.svc.cluster.local, trafficPolicy: { tls: { mode: MUTUAL, credentialName: c } } }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: { name: f }\nspec: { host: nowhere }\n---\n" SE("resolution: DNS, ports: [ { number: 443, name: tls, protocol: TLS } ]"),
                 "m.yaml:12:1: warning: VirtualService/default/v spec.gateways: there is no Gateway of networking.istio.io named gw in the namespace shop\n"
                 "m.yaml:16:1: warning: VirtualService/default/v spec.http.route[1].destination: there is no subset v9 of web\n"
                 "m.yaml:16:1: warning: VirtualService/default/v spec.http.route[2].destination: there is no host nowhere\n"
                 "m.yaml:16:1: warning: VirtualService/default/v spec.http.route[3].destination: web has no port 81\n"
                 "m.yaml:17:1: warning: VirtualService/default/v spec.http.delegate: there is no VirtualService none in the namespace default\n"
                 "m.yaml:17:1: warning: VirtualService/default/v spec.http.delegate: the VirtualService w has hosts of its own\n"
                 "m.yaml:16:1: error: VirtualService/default/v metadata.annotations[\"weir.dev/filters\"]: there is no HTTPFilter zip\n"
                 "m.yaml:19:1: warning: VirtualService/default/w spec.hosts[0]: the VirtualService default/v is for the host web.default.svc.cluster.local as well\n"
                 "m.yaml:24:1: warning: VirtualService/default/x spec.hosts: no hosts, and nothing delegates to it\n"
                 "m.yaml:29:1: warning: DestinationRule/default/d spec.subsets[1].labels: no Deployment of the Service web has these labels: the subset v2 is empty\n"
                 "m.yaml:34:1: warning: DestinationRule/default/e spec.host: the DestinationRule d is for the host web.default.svc.cluster.local as well\n"
                 "m.yaml:34:1: error: DestinationRule/default/e spec.trafficPolicy.tls: there is no Secret c in the namespace default\n"
                 "m.yaml:39:1: warning: DestinationRule/default/f spec.host: there is no host nowhere");
}

static void test_check_bare(void **state)
{
    struct diags d = {0};
    struct objset *s = read_text(WEB "apiVersion: v1\nkind: Service\nmetadata: { name: bare }\nspec: { type: ExternalName, externalName: db.example }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: v }\nspec: { hosts: [ web ], http: [ { route: [ { destination: { host: bare, port: { number: 81 } }, weight: 1 }, "
                 "{ destination: { host: bare }, weight: 1 } ] } ] }\n---\n"
                 GW_ON("g", "default", "80", "protocol: HTTP") ROUTE_TO("HTTPRoute", "{ name: bare, port: 80 }"), false, &d);
    objset_check(s, &d);
    expect_diags("an ExternalName without ports", &d, "m.yaml:15:7: warning: Service/default/bare spec.ports: missing: it is a name\n"
                 "m.yaml:20:1: warning: VirtualService/default/v spec.http.route[1].destination: bare has no ports but those that routes give");
    diags_free(&d);
    objset_free(s);
}

/* The policy of a host is one for all its callers: who is told. */
static void test_check_scopes(void **state)
{
    static const char dr[] = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: { name: %s, namespace: %s }\nspec: { host: web.default.svc.cluster.local, %s }\n---\n";
    struct buf b = {0};
    buf_printf(&b, dr, "some", "default", "workloadSelector: { matchLabels: { a: b } }");
    buf_printf(&b, dr, "far", "other", "exportTo: [ \".\" ]");
    buf_printf(&b, dr, "near", "third", "exportTo: [ default ]");
    buf_printf(&b, dr, "open", "fourth", "workloadSelector: {}");
    expect_checked("rules that are not for all", b.p,
                   "m.yaml:12:1: warning: DestinationRule/default/some spec.workloadSelector: the policy of a host is one for all its callers: this rule has no effect\n"
                   "m.yaml:17:1: warning: DestinationRule/other/far spec.exportTo: the policy of a host is one for all its callers, and web.default.svc.cluster.local is in the namespace default: this rule has no effect");
    buf_free(&b);
}

static void test_check_policies(void **state)
{
    expect_checked("ciphers", API "kind: Gateway\nmetadata: { name: a }\nspec: { gatewayClassName: weir, listeners: [\n"
                 "{ name: a, port: 443, protocol: HTTPS, tls: { certificateRefs: [ { name: absent } ], options: { weir.dev/ciphers: NO-SUCH } } } ] }\n---\n"
                 "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: b }\nspec: { servers: [\n"
                 "{ port: { number: 444, protocol: HTTPS }, hosts: [ \"*\" ], tls: { mode: SIMPLE, credentialName: absent, cipherSuites: [ NO-SUCH, ECDHE-RSA-AES128-GCM-SHA256 ] } },\n"
                 "{ port: { number: 445, protocol: HTTPS }, hosts: [ \"*\" ], tls: { mode: SIMPLE, credentialName: absent, cipherSuites: [ TLS_AES_128_GCM_SHA256 ] } } ] }\n",
                 "m.yaml:12:1: error: Gateway/default/a spec.listeners[0].tls: there is no Secret absent in the namespace default\n"
                 "m.yaml:12:1: error: Gateway/default/a spec.listeners[0].tls: none of the ciphers is known for TLS 1.2: \"NO-SUCH\"\n"
                 "m.yaml:18:1: error: Gateway.networking.istio.io/default/b spec.servers[0].tls: there is no Secret absent in the namespace default\n"
                 "m.yaml:18:1: error: Gateway.networking.istio.io/default/b spec.servers[1].tls: there is no Secret absent in the namespace default\n"
                 "m.yaml:18:1: error: Gateway.networking.istio.io/default/b spec.servers[1].tls: none of the ciphers is known for TLS 1.2: \"TLS_AES_128_GCM_SHA256\"");
    expect_checked("targets", API "kind: BackendTLSPolicy\nmetadata: { name: t }\nspec: { targetRefs: [ { group: \"\", kind: Service, name: web, sectionName: https }, { group: \"\", kind: Service, name: absent } ], validation: { hostname: a.example, caCertificateRefs: [ { kind: ConfigMap, name: ca } ] } }\n---\n"
                 "apiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: a }\nspec: { targetRefs: [ { name: web } ], slowStart: { duration: 1s } }\n---\n"
                 "apiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: b }\nspec: { targetRefs: [ { name: web }, { name: absent } ], slowStart: { duration: 1s } }\n---\n"
                 HF("aggregate: { parts: [ { backendRef: { name: absent, port: 80 } } ] }") "---\n"
                 "apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: { name: t }\nspec: { service: web, backends: [ { service: web-v1, weight: 1 } ] }\n",
                 "m.yaml:12:1: error: BackendTLSPolicy/default/t spec.targetRefs[0]: the Service web has no port named https\n"
                 "m.yaml:12:1: error: BackendTLSPolicy/default/t spec.targetRefs[1]: there is no Service absent in the namespace default\n"
                 "m.yaml:12:1: error: BackendTLSPolicy/default/t spec.validation.caCertificateRefs: there is no ConfigMap or Secret ca\n"
                 "m.yaml:33:1: warning: TrafficSplit/default/t spec.backends[0].service: there is no Service web-v1 in the namespace default\n"
                 "m.yaml:27:1: error: HTTPFilter/default/f spec.aggregate.parts[0].backendRef: there is no Service absent in the namespace default\n"
                 "m.yaml:22:1: warning: BackendPolicy/default/b spec.targetRefs: the BackendPolicy a is for the Service web as well\n"
                 "m.yaml:22:1: error: BackendPolicy/default/b spec.targetRefs[1]: there is no Service absent in the namespace default");
}

/* ---- addresses, the saved file ------------------------------------------------------------------------------------------------------------- */

static const char entries[] =
    "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, ports: [ { port: 80 } ] }\n---\n"
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: a }\nspec: { hosts: [ api.example.com, web.default.svc.cluster.local ], resolution: DNS, ports: [ { number: 443, name: tls } ] }\n---\n"
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: b, namespace: other }\nspec: { hosts: [ api.example.com, own.example.com ], exportTo: [ \".\" ], resolution: DNS, ports: [ { number: 80, name: http } ] }\n";

static uint32_t entry_ip(const struct objset *s, const char *ns, const char *name, size_t host) { return addr_ip4_host(&objset_find(s, OBJ_SERVICEENTRY, ns, name)->entry.addresses[host]); }

static void test_addresses(void **state)
{
    struct objset *s = read_good(entries);
    struct buf here = {0}, there = {0};
    objset_addresses(s);
    uint32_t api = entry_ip(s, "default", "a", 0), own = entry_ip(s, "other", "b", 1);
    assert_true(api >> 23 == 0x7f800000u >> 23 && own >> 23 == 0x7f800000u >> 23 && api != own);
    assert_int_equal(entry_ip(s, "other", "b", 0), api); /* one host, one address */
    assert_int_equal(entry_ip(s, "default", "a", 1), addr_ip4_host(&objset_find(s, OBJ_SERVICE, "default", "web")->svc.address));
    objset_hosts(s, "default", &here);
    objset_hosts(s, "other", &there);
    assert_non_null(strstr(here.p, " api.example.com\n"));
    assert_null(strstr(here.p, "own.example.com"));
    assert_non_null(strstr(there.p, " own.example.com\n"));
    const char *first = strstr(there.p, "api.example.com");
    assert_null(strstr(first + 1, "api.example.com"));
    const char *web = strstr(here.p, "web.default.svc.cluster.local");
    assert_null(strstr(web + 1, "web.default.svc.cluster.local"));

    /* A copy has its own; what replaces an entry keeps the addresses of its hosts. */
    struct objset *copy = objset_copy(s), *again = objset_copy(copy), *changed = read_good(entries);
    struct object *b = (struct object *)objset_find(copy, OBJ_SERVICEENTRY, "other", "b");
    b->entry.addresses[1] = addr_ip4(0x7f800103, 0);
    assert_int_equal(entry_ip(s, "other", "b", 1), own);
    assert_int_equal(entry_ip(again, "other", "b", 1), own);
    objset_merge(copy, changed);
    objset_addresses(copy);
    assert_int_equal(entry_ip(copy, "other", "b", 1), 0x7f800103);
    objset_free(changed);
    objset_free(copy);
    assert_int_equal(entry_ip(again, "other", "b", 1), own); /* outlives what it was copied from */
    objset_free(s);
    objset_free(again);
    buf_free(&here);
    buf_free(&there);
}

static void round_trip(struct objset *s)
{
    struct objset *loaded = objset_new();
    struct diags d = {0};
    struct buf first = {0}, second = {0};
    objset_addresses(s);
    objset_save(s, NULL, &first);
    assert_int_equal(objset_load(loaded, "state.json", buf_slice(&first), NULL, &d), OK);
    expect_diags("load", &d, "");
    objset_save(loaded, NULL, &second);
    assert_string_equal(first.p, second.p);
    assert_int_equal(objset_n(loaded), objset_n(s));
    objset_free(loaded);
    buf_free(&first);
    buf_free(&second);
}

static char *file_text(const char *name)
{
    static char text[1 << 16];
    char path[512];
    snprintf(path, sizeof path, "%s/%s", CORPUS, name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("cannot open %s", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

/* What users wrote for Kubernetes and Istio, word for word: taken without an error, each and all together. */
static void test_user_manifests(void **state)
{
    static const char *const names[] = {"user_product-service.yaml", "user_canary.yaml", "user_mtls-strict.yaml", "user_traffic-split.yaml", "user_resilience.yaml"};
    struct objset *all = objset_new();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct objset *s = read_good(file_text(names[i]));
        struct diags d = {0};
        assert_true(objset_n(s) > 0);
        round_trip(s);
        objset_merge(all, s);
        objset_free(s);
        objset_check(all, &d);
        if (d.errors)
            fail_msg("%s: %s", names[i], d.items[0].reason);
        diags_free(&d);
    }
    assert_int_equal(objset_n(all), 6);
    const struct destination_rule *dr = &objset_find(all, OBJ_DESTINATIONRULE, "default", "product-service")->dest;
    assert_true(dr->policy.pool.connections_max == 100 && dr->policy.pool.pending_max == 10 && dr->policy.outlier.consecutive_5xx == 5 && dr->policy.outlier.base_ejection_ms == 30000);
    const struct traffic_split *t = &objset_find(all, OBJ_TRAFFICSPLIT, "default", "product-service-split")->split;
    assert_true(t->backends[0].weight == 9 && t->backends[1].weight == 1);
    round_trip(all);
    objset_free(all);
}

/* Every kind once, through the file and back; names of kinds too. */
static void test_every_kind(void **state)
{
    struct objset *s = read_good(file_text("traffic_all.yaml"));
    bool seen[OBJ_KIND_COUNT] = {false};
    for (size_t i = 0; i < objset_n(s); i++)
        seen[objset_at(s, i)->kind] = true;
    for (int k = OBJ_GATEWAY; k < OBJ_KIND_COUNT; k++) {
        enum obj_kind back;
        if (!seen[k])
            fail_msg("traffic_all.yaml has no %s", obj_kind_name((enum obj_kind)k));
        assert_true(obj_kind_parse(slice_cstr(obj_kind_name((enum obj_kind)k)), &back) && back == (enum obj_kind)k);
    }
    struct diags d = {0};
    objset_check(s, &d);
    expect_diags("traffic_all.yaml", &d, /* its certificate is none */
                 "m.yaml:36:1: error: Gateway/default/edge spec.listeners[1].tls: the Secret cert is not sound: \n"
                 "m.yaml:98:1: error: Gateway.networking.istio.io/default/front spec.servers[1].tls: the Secret cert is not sound: ");
    diags_free(&d);
    round_trip(s);
    objset_free(s);
}

static void test_kind_names(void **state)
{
    static const struct {
        const char *text;
        enum obj_kind kind;
    } names[] = {{"gateway", OBJ_GATEWAY},
                 {"gw", OBJ_GATEWAY},
                 {"gateways.networking.istio.io", OBJ_ISTIO_GATEWAY},
                 {"gw.networking.istio.io", OBJ_ISTIO_GATEWAY},
                 {"gateways.v1.networking.istio.io", OBJ_ISTIO_GATEWAY},
                 {"gateways.gateway.networking.k8s.io", OBJ_GATEWAY},
                 {"vs", OBJ_VIRTUALSERVICE},
                 {"virtualservices", OBJ_VIRTUALSERVICE},
                 {"dr", OBJ_DESTINATIONRULE},
                 {"se", OBJ_SERVICEENTRY},
                 {"serviceentries", OBJ_SERVICEENTRY},
                 {"serviceentry", OBJ_SERVICEENTRY},
                 {"grpcroute", OBJ_GRPCROUTE},
                 {"tcproutes", OBJ_TCPROUTE},
                 {"tlsroute", OBJ_TLSROUTE},
                 {"referencegrants", OBJ_REFERENCEGRANT},
                 {"backendtlspolicies", OBJ_BACKENDTLSPOLICY},
                 {"ts", OBJ_TRAFFICSPLIT},
                 {"httpfilters.weir.dev", OBJ_HTTPFILTER},
                 {"backendpolicies", OBJ_BACKENDPOLICY},
                 {"pa", OBJ_PEERAUTHENTICATION}};
    enum obj_kind k;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!obj_kind_parse(slice_cstr(names[i].text), &k) || k != names[i].kind)
            fail_msg("%s", names[i].text);
    assert_false(obj_kind_parse(SLICE("virtualservice.apps"), &k));
    assert_false(obj_kind_parse(SLICE("gateways.example.com"), &k));
}

static void test_grammars(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } durations[] = {{"1.5s", 1500}, {"100ms", 100}, {"1h", 3600000}, {"0", 0},      {"0s", 0},    {"1h15m30.918s", 4530918}, {"500us", 1}, {".5s", 500},   {"1000h", 3600000000}, {"1ns", 1},
                     {"", -1},       {"1", -1},      {"-1s", -1},     {"1d", -1},    {"s", -1},    {"1..5s", -1},             {"1.s", 1000}, {"1001h", -1}, {"9999999999h", -1},   {"1s ", -1}};
    for (size_t i = 0; i < COUNT_OF(durations); i++) {
        uint32_t v = 0;
        enum err e = value_go_duration_ms(slice_cstr(durations[i].text), &v);
        if (durations[i].want < 0 ? e == OK : e != OK || v != (uint64_t)durations[i].want)
            fail_msg("%s: err %d, %u", durations[i].text, e, v);
    }
    static const struct {
        bool (*is)(struct slice);
        const char *text;
        bool want;
    } names[] = {{value_is_host_pattern, "*", true},           {value_is_host_pattern, "*.a", true},           {value_is_host_pattern, "10.0.0.1", true},   {value_is_host_pattern, "a.*", false},
                 {value_is_host_pattern, "A", false},          {value_is_host_pattern, "", false},             {value_is_gateway_host, "ns/*", true},       {value_is_gateway_host, "./a.b", true},
                 {value_is_gateway_host, "*/*.a", true},       {value_is_gateway_host, "a/b/c", false},        {value_is_gateway_host, "/a", false},        {value_is_gateway_ref, "mesh", true},
                 {value_is_gateway_ref, "ns/gw", true},        {value_is_gateway_ref, "ns/", false},           {value_is_origin, "*", true},                {value_is_origin, "https://a.b:8080", true},
                 {value_is_origin, "https://*.a", true},       {value_is_origin, "null", false},               {value_is_origin, "https://", false},        {value_is_origin, "https://a/", false},
                 {value_is_origin, "https://a:", false},       {value_is_origin, "1x://a", false},             {value_is_scope, ".", true},                 {value_is_scope, "a.b", false}};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (names[i].is(slice_cstr(names[i].text)) != names[i].want)
            fail_msg("%s", names[i].text);
}

static void test_no_leak(void **state)
{
    uint64_t before = mem_bytes(MEM_MANIFEST);
    struct diags d = {0};
    for (size_t i = 0; i < COUNT_OF(bad_traffic); i++)
        objset_free(read_text(bad_traffic[i].text, true, &d));
    diags_free(&d);
    assert_int_equal(mem_bytes(MEM_MANIFEST), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammars),       cmocka_unit_test(test_kind_names),     cmocka_unit_test(test_gateway_tls),    cmocka_unit_test(test_http_route),
        cmocka_unit_test(test_grpc_route),     cmocka_unit_test(test_stream_routes),  cmocka_unit_test(test_grants_and_backend_tls), cmocka_unit_test(test_old_versions), cmocka_unit_test(test_vs_match),
        cmocka_unit_test(test_vs_actions),     cmocka_unit_test(test_vs_old_and_split), cmocka_unit_test(test_vs_streams),   cmocka_unit_test(test_dr_blocks),
        cmocka_unit_test(test_dr_old),         cmocka_unit_test(test_dr_levels),      cmocka_unit_test(test_istio_gateway),  cmocka_unit_test(test_service_entry),
        cmocka_unit_test(test_accepted_kinds), cmocka_unit_test(test_traffic_split),  cmocka_unit_test(test_filters),        cmocka_unit_test(test_backend_policy),
        cmocka_unit_test(test_bad),            cmocka_unit_test(test_bad_health),     cmocka_unit_test(test_check_gateways), cmocka_unit_test(test_check_routes),   cmocka_unit_test(test_check_istio), cmocka_unit_test(test_check_bare),
        cmocka_unit_test(test_check_scopes), cmocka_unit_test(test_check_policies), cmocka_unit_test(test_addresses),      cmocka_unit_test(test_user_manifests), cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_no_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
