/* compile_more_test.c - what the compiler makes of everything beside HTTPRoutes: VirtualServices and delegates, calls from
 * inside, policies of clusters, ServiceEntries, splits, rules of bytes, TLS contexts, filters, expressions.
 *
 * Each test writes manifests in short and looks into the plan after the set is gone.
 */
#include "compile_test.h"
#include "tls_testcert.h"

#define ISTIO(kind, meta, spec) "---\n{apiVersion: networking.istio.io/v1, kind: " kind ", metadata: {" meta "}, spec: {" spec "}}\n"
#define GATEWAY_API(kind, meta, spec) "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: " kind ", metadata: {" meta "}, spec: {" spec "}}\n"
#define GATEWAY_ALPHA(kind, meta, spec) "---\n{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: " kind ", metadata: {" meta "}, spec: {" spec "}}\n"
#define SVC(meta, spec) "---\n{apiVersion: v1, kind: Service, metadata: {" meta "}, spec: {" spec "}}\n"
#define WEB(name) SVC("name: " name, "selector: {app: " name "}, ports: [{name: http, port: 80, targetPort: 8080}]")
#define DEPLOYMENT(meta, labels) \
    "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {" meta "}, spec: {selector: {matchLabels: {" labels "}}, template: {metadata: {labels: {" labels "}}, spec: {containers: [{name: c, image: none, command: [/bin/true]}]}}}}\n"

/* ---- worlds --------------------------------------------------------------------------------------------------------------- */

/* A set that is compiled and gone, and the memory for the next plan. */
struct world {
    struct objset *s;
    struct plan_memory *m;
    struct plan *p;
};

static void world_compile(struct world *w, const struct live_endpoint *eps, size_t eps_n, const struct live_address *ext, size_t ext_n)
{
    struct plan *old = w->p;
    w->p = plan_compile(w->m, w->s, eps, eps_n, ext, ext_n);
    plan_unref(old);
}

static struct world world_of(const char *manifests)
{
    struct world w = {.s = set_read(slice_cstr(manifests)), .m = plan_memory_new()};
    objset_addresses(w.s);
    world_compile(&w, NULL, 0, NULL, 0);
    return w;
}

static void world_end(struct world *w)
{
    plan_unref(w->p);
    plan_memory_free(w->m);
    objset_free(w->s);
}

static struct object *object_of(struct world *w, enum obj_kind k, const char *ns, const char *name)
{
    struct object *o = (struct object *)objset_find(w->s, k, ns, name);
    assert_non_null(o);
    return o;
}

static bool address_is(const struct plan_endpoint *ep, const struct addr *want)
{
    struct addr is = plan_endpoint_addr(ep);
    return addr_eq(&is, want);
}

static const struct plan_cluster *subset_cluster(const struct plan *p, const char *ns, const char *service, uint16_t port, const char *subset)
{
    for (uint32_t i = 0; i < p->clusters_n; i++) {
        const struct plan_cluster *c = &p->clusters[i];
        if (strcmp(c->ns, ns) == 0 && strcmp(c->service, service) == 0 && c->port == port && c->subset && strcmp(c->subset, subset) == 0)
            return c;
    }
    return NULL;
}

static struct addr address_of(struct world *w, const char *ns, const char *service, uint16_t port)
{
    struct addr a = object_of(w, OBJ_SERVICE, ns, service)->svc.address;
    a.port = port;
    return a;
}

/* "route rule (prefix) service[|subset]*weight ..." of what a hit leads to; "-" for none. */
static void hit_text(bool found, const struct plan_hit *hit, struct buf *out)
{
    buf_clear(out);
    if (!found) {
        buf_adds(out, "-");
        return;
    }
    buf_printf(out, "%s%s%s (%u)", hit->rule->route, hit->rule->spec && hit->rule->spec->name ? " " : "", hit->rule->spec && hit->rule->spec->name ? hit->rule->spec->name : "", hit->prefix_len);
    for (uint32_t i = 0; i < hit->rule->backends_n; i++) {
        const struct plan_backend *b = &hit->rule->backends[i];
        buf_printf(out, " %s%s%s:%u*%u", b->cluster ? b->cluster->service : "none", b->cluster && b->cluster->subset ? "|" : "", b->cluster && b->cluster->subset ? b->cluster->subset : "",
                   b->cluster ? b->cluster->port : 0, b->weight);
    }
}

static void gate_want(const struct plan *p, uint16_t port, const char *request, const char *want)
{
    static struct h1_head h;
    struct plan_hit hit = {0};
    struct buf got = {0};
    request_parse(&h, request);
    hit_text(plan_route(p, listener_at(p, port), &h, false, SLICE(""), &hit), &hit, &got);
    if (strcmp(got.p, want) != 0)
        fail_msg("%s: got %s, want %s", request, got.p, want);
    buf_free(&got);
}

static void mesh_want(const struct plan *p, struct addr a, const struct plan_caller *caller, const char *request, const char *want)
{
    static struct h1_head h;
    struct plan_hit hit = {0};
    struct buf got = {0};
    request_parse(&h, request);
    hit_text(plan_route_mesh(p, &a, &h, caller, &hit), &hit, &got);
    if (strcmp(got.p, want) != 0)
        fail_msg("%s: got %s, want %s", request, got.p, want);
    buf_free(&got);
}

static void tcp_want(const struct plan_tcp_rule *r, const char *want)
{
    struct buf got = {0};
    buf_adds(&got, r ? r->route : "-");
    for (uint32_t i = 0; r && i < r->backends_n; i++)
        buf_printf(&got, " %s:%u*%u", r->backends[i].cluster ? r->backends[i].cluster->service : "none", r->backends[i].cluster ? r->backends[i].cluster->port : 0, r->backends[i].weight);
    if (strcmp(got.p, want) != 0)
        fail_msg("got %s, want %s", got.p, want);
    buf_free(&got);
}

/* ---- VirtualServices on Gateways ------------------------------------------------------------------------------------------- */

#define ISTIO_GATEWAY(name, hosts) ISTIO("Gateway", "name: " name, "selector: {istio: x}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [" hosts "]}]")
#define TO(host) "route: [{destination: {host: " host "}}]"

static void test_ordered(void **state)
{
    struct world w = world_of(WEB("web") WEB("api") ISTIO_GATEWAY("gw", "'*'") ISTIO("VirtualService", "name: v",
        "gateways: [gw], hosts: [a.com], http: ["
        "{name: regex, match: [{uri: {regex: '/v[0-9]+/.*'}}], " TO("web") "},"
        "{name: prefix, match: [{uri: {prefix: /api}}], " TO("api") "},"
        "{name: slash, match: [{uri: {prefix: /s/}}], " TO("api") "},"
        "{name: late, match: [{uri: {prefix: /api/deep}}], " TO("web") "},"
        "{name: exact, match: [{uri: {exact: /login}}], " TO("web.default.svc.cluster.local") "},"
        "{name: fold, match: [{uri: {prefix: /Fold}, ignoreUriCase: true}], " TO("web") "},"
        "{name: head, match: [{headers: {x-user: {prefix: beta}}, withoutHeaders: {x-off: {}}}], " TO("web") "},"
        "{name: any, match: [{queryParams: {debug: {exact: '1'}}}, {method: {exact: POST}, scheme: {exact: http}, authority: {exact: 'a.com'}}], " TO("missing") "}]"));
    gate_want(w.p, 80, "GET a.com /v12/x", "default/v regex (6) web:80*1");
    gate_want(w.p, 80, "GET a.com /v12", "-");
    gate_want(w.p, 80, "GET a.com /apis/x", "default/v prefix (4) api:80*1");
    gate_want(w.p, 80, "GET a.com /api/deep", "default/v prefix (4) api:80*1");
    gate_want(w.p, 80, "GET a.com /s/x", "default/v slash (3) api:80*1");
    gate_want(w.p, 80, "GET a.com /s", "-");
    gate_want(w.p, 80, "GET a.com /login", "default/v exact (6) web:80*1");
    gate_want(w.p, 80, "GET a.com /login/", "-");
    gate_want(w.p, 80, "GET a.com /fOLDer", "default/v fold (5) web:80*1");
    gate_want(w.p, 80, "GET a.com /x x-user:beta-7", "default/v head (0) web:80*1");
    gate_want(w.p, 80, "GET a.com /x x-user:beta-7 x-off:", "-");
    gate_want(w.p, 80, "GET a.com /x?debug=1", "default/v any (0) none:0*1");
    gate_want(w.p, 80, "POST a.com /x", "default/v any (0) none:0*1");
    gate_want(w.p, 80, "POST b.com /x", "-");
    world_end(&w);
}

static void test_delegates(void **state)
{
    struct world w = world_of(WEB("web") WEB("api") SVC("name: other, namespace: team", "selector: {a: b}, ports: [{port: 80}]") ISTIO_GATEWAY("gw", "'*'")
        ISTIO("VirtualService", "name: root", "gateways: [gw], hosts: [a.com], http: ["
              "{name: team, match: [{uri: {prefix: /team}}], timeout: 7s, headers: {request: {set: {x-by: root}}}, delegate: {name: leaf, namespace: team}},"
              "{name: gone, match: [{uri: {prefix: /gone}}], delegate: {name: nobody}},"
              "{name: rest, " TO("web") "}]")
        ISTIO("VirtualService", "name: leaf, namespace: team", "http: ["
              "{name: in, match: [{uri: {prefix: /team/in}, headers: {x: {exact: '1'}}}], timeout: 2s, " TO("other") "},"
              "{name: out, match: [{uri: {prefix: /elsewhere}}], " TO("other") "},"
              "{match: [{method: {exact: PUT}}], " TO("other") "}]"));
    gate_want(w.p, 80, "GET a.com /team/in/x x:1", "default/root in (8) other:80*1");
    gate_want(w.p, 80, "GET a.com /team/in/x x:2", "default/root rest (0) web:80*1");
    gate_want(w.p, 80, "PUT a.com /team/in/x", "default/root team (5) other:80*1");
    gate_want(w.p, 80, "PUT a.com /elsewhere", "default/root rest (0) web:80*1");
    gate_want(w.p, 80, "GET a.com /gone", "default/root rest (0) web:80*1");
    static struct h1_head h;
    struct plan_hit hit;
    request_parse(&h, "GET a.com /team/in x:1");
    assert_true(plan_route(w.p, listener_at(w.p, 80), &h, false, SLICE(""), &hit));
    assert_int_equal(hit.rule->timeout_ms, 2000); /* its own */
    assert_string_equal(hit.rule->req->set.items[0].value, "root"); /* the root's */
    request_parse(&h, "PUT a.com /team");
    assert_true(plan_route(w.p, listener_at(w.p, 80), &h, false, SLICE(""), &hit));
    assert_int_equal(hit.rule->timeout_ms, 7000);
    world_end(&w);
}

/* What a delegate's rewrite replaces is what the root's match says, where the delegate has none of its own. */
static void test_delegate_rewrites(void **state)
{
    struct world w = world_of(WEB("web") ISTIO_GATEWAY("gw", "'*'")
        ISTIO("VirtualService", "name: root", "gateways: [gw], hosts: [a.com], http: [{match: [{uri: {exact: /one}}, {uri: {prefix: /two/}}], delegate: {name: leaf}}]")
        ISTIO("VirtualService", "name: leaf", "http: [{rewrite: {uri: /t/}, " TO("web") "}]"));
    static const struct {
        const char *request;
        enum path_rewrite kind;
        uint32_t prefix_len;
    } cases[] = {{"GET a.com /one", REWRITE_FULL, 0}, {"GET a.com /two/x", REWRITE_PREFIX, 5}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        static struct h1_head h;
        struct plan_hit hit;
        request_parse(&h, cases[i].request);
        assert_true(plan_route(w.p, listener_at(w.p, 80), &h, false, SLICE(""), &hit));
        assert_int_equal(hit.rule->spec->rewrite_path_kind, cases[i].kind);
        assert_true(cases[i].kind == REWRITE_FULL || hit.prefix_len == cases[i].prefix_len);
    }
    world_end(&w);
}

/* Two APIs on one port: of one hostname HTTPRoutes are asked first; a VirtualService ends the search. */
static void test_both_apis(void **state)
{
    struct world w = world_of(WEB("web") WEB("api") GATEWAY("g", LISTENER("http", "")) ISTIO_GATEWAY("i", "'*'")
        ROUTE("name: r", "{name: g}", "a.com", RULE("r", "{path: {value: /r}}")) ROUTE("name: any", "{name: g}", "", RULE("any", "{path: {value: /any}}"))
        ISTIO("VirtualService", "name: v", "gateways: [i], hosts: [a.com, '*.b.com'], http: [{name: v, match: [{uri: {prefix: /v}}], " TO("api") "}]"));
    gate_want(w.p, 80, "GET a.com /r", "default/r r (2) web:80*1");
    gate_want(w.p, 80, "GET a.com /v", "default/v v (2) api:80*1");
    gate_want(w.p, 80, "GET a.com /any", "-");
    gate_want(w.p, 80, "GET x.b.com /vv", "default/v v (2) api:80*1");
    gate_want(w.p, 80, "GET c.com /any", "default/any any (4) web:80*1");
    world_end(&w);
}

/* Which Gateways: by namespace and name, of the VirtualService or of one match; servers that admit namespaces. */
static void test_gateways(void **state)
{
    struct world w = world_of(WEB("web")
        ISTIO("Gateway", "name: one", "selector: {a: b}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*.com']}]")
        ISTIO("Gateway", "name: two", "selector: {a: b}, servers: [{port: {number: 81, name: h, protocol: HTTP}, hosts: ['./*', 'team/*']}]")
        ISTIO("VirtualService", "name: v", "gateways: [one, default/two], hosts: [a.com, a.org], http: ["
              "{name: two, match: [{uri: {prefix: /two}, gateways: [two]}], " TO("web") "}, {name: port, match: [{port: 81}], " TO("web") "}, {name: rest, " TO("web") "}]")
        ISTIO("VirtualService", "name: v, namespace: x", "gateways: [default/one, default/two], hosts: [x.com], http: [{name: x, " TO("web.default.svc.cluster.local") "}]"));
    gate_want(w.p, 80, "GET a.com /two", "default/v rest (0) web:80*1");
    gate_want(w.p, 81, "GET a.com /two", "default/v two (4) web:80*1");
    gate_want(w.p, 81, "GET a.com /", "default/v port (0) web:80*1");
    gate_want(w.p, 80, "GET a.org /", "-");
    gate_want(w.p, 81, "GET a.org /", "default/v port (0) web:80*1");
    gate_want(w.p, 80, "GET x.com /", "x/v x (0) web:80*1");
    gate_want(w.p, 81, "GET x.com /", "-");
    world_end(&w);
}

/* ---- calls from inside ------------------------------------------------------------------------------------------------------ */

static void test_mesh_virtuals(void **state)
{
    struct world w = world_of(WEB("web") WEB("api") WEB("plain") SVC("name: multi", "selector: {a: b}, ports: [{name: http-a, port: 80}, {name: http-b, port: 81}]")
        SVC("name: web, namespace: team", "selector: {a: b}, ports: [{port: 80}]")
        DEPLOYMENT("name: client", "app: client, version: v1") DEPLOYMENT("name: other, namespace: team", "app: client")
        ISTIO("DestinationRule", "name: d", "host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]")
        ISTIO("VirtualService", "name: canary", "hosts: [web], http: ["
              "{name: old, match: [{sourceLabels: {version: v1}, uri: {prefix: /old}}], route: [{destination: {host: web, subset: v1}}]},"
              "{name: team, match: [{sourceNamespace: team}], route: [{destination: {host: web, subset: v2}}]},"
              "{name: both, match: [{uri: {prefix: /}}], route: [{destination: {host: web, subset: v1}, weight: 90}, {destination: {host: web, subset: v2}, weight: 10}]}]")
        ISTIO("VirtualService", "name: wild", "hosts: ['*.team.svc.cluster.local'], gateways: [mesh, gw], http: [{name: wild, match: [{gateways: [mesh]}], " TO("web.team.svc.cluster.local") "}]")
        ISTIO("VirtualService", "name: own", "exportTo: ['.'], hosts: [api], http: [{name: own, " TO("plain") "}]")
        ISTIO("VirtualService", "name: near", "hosts: [multi], http: [{name: near, " TO("multi") "}]")
        ISTIO("VirtualService", "name: outer", "gateways: [gw], hosts: [plain], http: [{name: outer, " TO("web") "}]"));
    const struct plan_caller *client = plan_caller_find(w.p, "default", "client"), *other = plan_caller_find(w.p, "team", "other");
    assert_non_null(client);
    assert_non_null(other);
    assert_null(plan_caller_find(w.p, "team", "client"));
    struct addr web = address_of(&w, "default", "web", 80), api = address_of(&w, "default", "api", 80);
    mesh_want(w.p, web, client, "GET web /old/x", "default/canary old (4) web|v1:80*1");
    mesh_want(w.p, web, NULL, "GET web /old/x", "default/canary both (1) web|v1:80*90 web|v2:80*10");
    mesh_want(w.p, web, other, "GET web /old/x", "default/canary team (0) web|v2:80*1");
    mesh_want(w.p, web, client, "GET web *", "-");
    mesh_want(w.p, address_of(&w, "team", "web", 80), client, "GET web /", "default/wild wild (0) web:80*1");
    mesh_want(w.p, api, client, "GET api /", "default/own own (0) plain:80*1");
    mesh_want(w.p, api, other, "GET api /", " (0) api:80*1");
    mesh_want(w.p, api, NULL, "GET api /", " (0) api:80*1");
    mesh_want(w.p, address_of(&w, "default", "multi", 80), client, "GET m /", "default/near near (0) multi:80*1");
    mesh_want(w.p, address_of(&w, "default", "multi", 81), client, "GET m /", "default/near near (0) multi:81*1");
    mesh_want(w.p, address_of(&w, "default", "plain", 80), client, "GET p /", " (0) plain:80*1");
    mesh_want(w.p, address_of(&w, "default", "plain", 81), client, "GET p /", "-");
    world_end(&w);
}

/* The most specific host, then the oldest. */
static void test_mesh_choice(void **state)
{
    struct world w = world_of(WEB("web")
        ISTIO("VirtualService", "name: a", "hosts: ['*'], gateways: [mesh, default/gw], http: [{match: [{gateways: [mesh]}], " TO("web") "}]")
        ISTIO("VirtualService", "name: b", "hosts: ['*.svc.cluster.local'], http: [{" TO("web") "}]") ISTIO("VirtualService", "name: c", "hosts: [web.default.svc.cluster.local], http: [{" TO("web") "}]")
        ISTIO("VirtualService", "name: d", "hosts: [web], http: [{" TO("web") "}]"));
    struct addr a = address_of(&w, "default", "web", 80);
    static const char *const names[] = {"c", "d", "b", "a"};
    object_of(&w, OBJ_VIRTUALSERVICE, "default", "c")->created_ns = 1;
    object_of(&w, OBJ_VIRTUALSERVICE, "default", "d")->created_ns = 2;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct buf want = {0};
        world_compile(&w, NULL, 0, NULL, 0);
        buf_printf(&want, "default/%s (0) web:80*1", names[i]);
        mesh_want(w.p, a, NULL, "GET web /", want.p);
        buf_free(&want);
        assert_true(objset_remove(w.s, OBJ_VIRTUALSERVICE, "default", names[i]));
    }
    world_end(&w);
}

/* Gateway API's routes for Services: consumers before producers, with the precedence of HTTPRoutes. */
static void test_mesh_routes(void **state)
{
    struct world w = world_of(WEB("web") WEB("api") DEPLOYMENT("name: c, namespace: team", "app: c")
        GATEWAY_API("HTTPRoute", "name: p", "parentRefs: [{group: '', kind: Service, name: web, port: 80}], rules: ["
                    "{name: p1, matches: [{path: {value: /a}}], backendRefs: [{name: web, port: 80}]}, {name: p2, matches: [{path: {value: /a/b}}], backendRefs: [{name: api, port: 80}]}]")
        GATEWAY_API("HTTPRoute", "name: c, namespace: team", "parentRefs: [{group: '', kind: Service, namespace: default, name: web}], rules: [{name: c, backendRefs: [{name: api, namespace: default, port: 80}]}]")
        GATEWAY_API("GRPCRoute", "name: g", "parentRefs: [{group: '', kind: Service, name: api}], rules: [{matches: [{method: {service: shop.Cart, method: Get}}], backendRefs: [{name: api, port: 80}]}]")
        GATEWAY_API("ReferenceGrant", "name: g", "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: team}], to: [{group: '', kind: Service}]"));
    struct addr web = address_of(&w, "default", "web", 80), api = address_of(&w, "default", "api", 80);
    const struct plan_caller *team = plan_caller_find(w.p, "team", "c");
    mesh_want(w.p, web, NULL, "GET x /a/b/c", "default/p p2 (4) api:80*1");
    mesh_want(w.p, web, NULL, "GET x /a/bc", "default/p p1 (2) web:80*1");
    mesh_want(w.p, web, NULL, "GET x /", "-");
    mesh_want(w.p, web, team, "GET x /a/b", "team/c c (0) api:80*1");
    mesh_want(w.p, api, NULL, "POST x /shop.Cart/Get", "default/g (0) api:80*1");
    mesh_want(w.p, api, NULL, "POST x /shop.Cart/Put", "-");
    world_end(&w);
}

/* A root is split in the mesh and behind routes; shares multiply; a leaf may be the root itself. */
static void test_splits(void **state)
{
    struct world w = world_of(WEB("web") WEB("v1") SVC("name: v2", "selector: {a: b}, ports: [{port: 8000}]") WEB("api") GATEWAY("gw", LISTENER("http", ""))
        "---\n{apiVersion: split.smi-spec.io/v1alpha1, kind: TrafficSplit, metadata: {name: s}, spec: {service: web, backends: [{service: v1, weight: 90}, {service: v2, weight: 10}]}}\n"
        "---\n{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {name: t}, spec: {service: api, backends: [{service: api, weight: 1}, {service: v1, weight: 1}]}}\n"
        ROUTE("name: r", "{name: gw}", "", "{name: r, backendRefs: [{name: web, port: 80, weight: 3}, {name: v1, port: 80, weight: 1}]}")
        ROUTE("name: q", "{name: gw}", "q.com", "{name: q, backendRefs: [{name: web, port: 80, weight: 1}, {name: api, port: 80, weight: 3}, {name: none, port: 80}]}"));
    mesh_want(w.p, address_of(&w, "default", "web", 80), NULL, "GET web /", " (0) v1:80*9 v2:8000*1");
    mesh_want(w.p, address_of(&w, "default", "api", 80), NULL, "GET api /", " (0) api:80*1 v1:80*1");
    gate_want(w.p, 80, "GET x /", "default/r r (0) v1:80*27 v2:8000*3 v1:80*10");
    gate_want(w.p, 80, "GET q.com /", "default/q q (0) v1:80*9 v2:8000*1 api:80*15 v1:80*15 none:0*10");
    world_end(&w);
}

/* Each ready replica of a headless Service has an address of its own, which leads to it alone, at its own ports; the same in every plan and on every node. */
static void test_headless(void **state)
{
    struct world w = world_of(SVC("name: db", "clusterIP: None, selector: {app: db}, ports: [{name: http, port: 80, targetPort: web}, {name: tcp-sql, port: 5432}]")
        SVC("name: all", "clusterIP: None, selector: {app: db}, ports: [{name: http, port: 9000, targetPort: 8080}]") SVC("name: far", "clusterIP: None, ports: [{name: tcp, port: 80}]")
        GATEWAY("gw", LISTENER("http", "")) ROUTE("name: r", "{name: gw}", "", "{name: r, backendRefs: [{name: db, port: 80}]}")
        ISTIO("DestinationRule", "name: d", "host: db, trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 3}}}"));
    struct kv label = {"app", "db", 2};
    struct kvs labels = {&label, 1};
    struct container_port port = {.name = "web", .port = 8080};
    struct live_endpoint eps[] = {{.replica_id = 1, .ns = "default", .deployment = "db", .name = "db-1", .labels = &labels, .ports = &port, .ports_n = 1},
                                  {.replica_id = 2, .ns = "default", .deployment = "db", .name = "db-2", .labels = &labels}};
    struct live_address ext[] = {{.ns = "default", .service = "far", .ip = addr_ip4(0xc0000201, 7000), .registered = true}, {.ns = "default", .service = "far", .ip = addr_ip4(0xc0000201, 7001), .registered = true}};
    assert_int_equal(w.p->named_n, 0);
    assert_int_equal(object_of(&w, OBJ_SERVICE, "default", "db")->svc.address.family, ADDR_NONE);
    world_compile(&w, eps, 2, ext, 2);
    assert_int_equal(w.p->named_n, 6);
    struct addr first = {0}, second = {0}, far = {0};
    for (uint32_t i = 0; i < w.p->named_n; i++) {
        const struct plan_named *d = &w.p->named[i];
        struct addr *a = strcmp(d->host, "db-1") == 0 ? &first : strcmp(d->host, "db-2") == 0 ? &second : &far;
        assert_int_equal(addr_ip4_host(&d->address) >> 23, 0x7f800000u >> 23);
        if (a != &far && a->family)
            assert_true(addr_eq(a, &d->address)); /* one replica, one address, whatever Services it has */
        *a = d->address;
        if (strcmp(d->service, "db") == 0)
            assert_int_equal(d->ports_n, a == &first ? 2 : 1); /* db-2 has no port web */
        if (strcmp(d->service, "far") == 0)
            assert_string_equal(d->host, d->ports[0].port == 7000 ? "192-0-2-1-7000" : "192-0-2-1-7001");
    }
    assert_false(addr_eq(&first, &second));
    first.port = 8080;
    mesh_want(w.p, first, NULL, "GET x /", " (0) db-1.all:8080*1");
    first.port = 80; /* the Service's number, not the replica's */
    assert_int_equal(plan_mesh_protocol(w.p, &first), MESH_NONE);
    second.port = 5432;
    tcp_want(plan_tcp_mesh(w.p, &second, SLICE(""), NULL), " db-2.db:5432*1");
    for (uint32_t i = 0; i < w.p->clusters_n; i++) {
        const struct plan_cluster *c = &w.p->clusters[i];
        if (strcmp(c->service, "db-2.db") == 0) {
            assert_true(c->eps_n == 1 && c->eps[0].replica_id == 2 && c->eps[0].address.port == 5432);
            assert_int_equal(c->policy->pool.pending_max, 3); /* as the Service's */
        }
    }
    gate_want(w.p, 80, "GET x /", "default/r r (0) db:80*1"); /* routes reach all of them, balanced */
    struct addr before = second;
    world_compile(&w, &eps[1], 1, ext, 1);
    assert_int_equal(w.p->named_n, 3);
    assert_true(plan_tcp_mesh(w.p, &before, SLICE(""), NULL) != NULL);
    first.port = 8080;
    assert_int_equal(plan_mesh_protocol(w.p, &first), MESH_NONE); /* it is gone, and so is its address */
    world_end(&w);
}

/* Sums that have no small common multiple: shares are rounded, nobody with a weight gets none, sums fit. */
static void test_large_splits(void **state)
{
    struct world w = world_of(WEB("a") WEB("b") WEB("c") GATEWAY("gw", LISTENER("http", ""))
        "---\n{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {name: s}, spec: {service: a, backends: [{service: a, weight: 999983}, {service: c, weight: 1}]}}\n"
        "---\n{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {name: t}, spec: {service: b, backends: [{service: b, weight: 999979}, {service: c, weight: 4}]}}\n"
        ROUTE("name: r", "{name: gw}", "", "{name: r, backendRefs: [{name: a, port: 80, weight: 1000000}, {name: b, port: 80, weight: 1000000}]}"));
    static struct h1_head h;
    struct plan_hit hit;
    request_parse(&h, "GET x /");
    assert_true(plan_route(w.p, listener_at(w.p, 80), &h, false, SLICE(""), &hit));
    const struct plan_backend *b = hit.rule->backends;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 4; i++)
        sum += b[i].weight;
    assert_int_equal(hit.rule->backends_n, 4);
    assert_int_equal(sum, hit.rule->weight_sum);
    assert_true(b[1].weight > 0 && b[3].weight > 3 * b[1].weight);
    double first = (double)b[0].weight / (double)sum, second = (double)b[2].weight / (double)sum;
    assert_true(first > 0.4999 && first < 0.5001 && second > 0.4999 && second < 0.5001);
    world_end(&w);
}

/* Istio's protocol selection: appProtocol, then the port's name, then HTTP. */
static void test_mesh_protocols(void **state)
{
    static const struct { const char *name, *app; enum mesh_protocol want; bool h2; } ports[] = {
        {"http", NULL, MESH_HTTP, false}, {"http-web", NULL, MESH_HTTP, false}, {"web", NULL, MESH_HTTP, false}, {"", NULL, MESH_HTTP, false}, {"httpx", NULL, MESH_HTTP, false},
        {"http2", NULL, MESH_HTTP, true}, {"http2-a", NULL, MESH_HTTP, true}, {"grpc", NULL, MESH_HTTP, true}, {"grpc-web", NULL, MESH_HTTP, false}, {"grpc-web-x", NULL, MESH_HTTP, false}, {"grpc-webs", NULL, MESH_HTTP, true},
        {"https", NULL, MESH_TLS, false}, {"tls-x", NULL, MESH_TLS, false}, {"tcp", NULL, MESH_TCP, false}, {"mysql", NULL, MESH_TCP, false}, {"mongo-1", NULL, MESH_TCP, false}, {"redis", NULL, MESH_TCP, false},
        {"tcp", "http", MESH_HTTP, false}, {"x", "kubernetes.io/h2c", MESH_HTTP, true}, {"x", "kubernetes.io/ws", MESH_HTTP, false}, {"x", "kubernetes.io/wss", MESH_TLS, false}, {"http", "tcp", MESH_TCP, false}, {"x", "grpc", MESH_HTTP, true},
    };
    for (size_t i = 0; i < COUNT_OF(ports); i++) {
        struct world w = world_of(WEB("web"));
        struct service_port *sp = &object_of(&w, OBJ_SERVICE, "default", "web")->svc.ports[0];
        struct addr a = address_of(&w, "default", "web", 80);
        sp->name = (char *)ports[i].name;
        sp->app_protocol = (char *)ports[i].app;
        world_compile(&w, NULL, 0, NULL, 0);
        if (plan_mesh_protocol(w.p, &a) != ports[i].want)
            fail_msg("port %s, appProtocol %s: %d", ports[i].name, ports[i].app ? ports[i].app : "", (int)plan_mesh_protocol(w.p, &a));
        assert_int_equal(cluster_find(w.p, "default", "web", 80)->policy->pool.http, ports[i].h2 ? UPSTREAM_HTTP2 : UPSTREAM_HTTP1);
        world_end(&w);
    }
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------------ */

static void test_tcp(void **state)
{
    struct world w = world_of(WEB("web") WEB("db") SVC("name: sql", "selector: {a: b}, ports: [{name: mysql, port: 3306}, {name: tls, port: 443}]")
        GATEWAY_API("Gateway", "name: g", "gatewayClassName: weir, listeners: [{name: t, protocol: TCP, port: 5432}, {name: pass, protocol: TLS, port: 443, hostname: '*.a.com', tls: {mode: Passthrough}}]")
        GATEWAY_ALPHA("TCPRoute", "name: t", "parentRefs: [{name: g}], rules: [{backendRefs: [{name: db, port: 80, weight: 2}, {name: web, port: 80, weight: 1}]}]")
        GATEWAY_ALPHA("TLSRoute", "name: one", "parentRefs: [{name: g}], hostnames: [x.a.com], rules: [{backendRefs: [{name: web, port: 80}]}]")
        GATEWAY_ALPHA("TLSRoute", "name: rest", "parentRefs: [{name: g}], hostnames: ['*.a.com', b.com], rules: [{backendRefs: [{name: db, port: 80}]}]")
        ISTIO("Gateway", "name: i", "selector: {a: b}, servers: [{port: {number: 9000, name: tcp, protocol: TCP}, hosts: ['*']}, {port: {number: 443, name: tls, protocol: TLS}, hosts: [c.com], tls: {mode: PASSTHROUGH}}]")
        ISTIO("VirtualService", "name: v", "gateways: [i, mesh], hosts: [sql, c.com], tcp: [{match: [{port: 9000}], route: [{destination: {host: db}}]}, {match: [{port: 3306, sourceLabels: {app: x}}], route: [{destination: {host: web}}]}], "
              "tls: [{match: [{sniHosts: [c.com]}], route: [{destination: {host: web}}]}, {match: [{port: 443, sniHosts: ['*.d.com'], gateways: [mesh]}], route: [{destination: {host: db}}]}]")
        DEPLOYMENT("name: x", "app: x"));
    const struct plan_listener *tcp = listener_at(w.p, 5432), *tls = listener_at(w.p, 443), *istio = listener_at(w.p, 9000);
    assert_int_equal(tcp->protocol, LISTEN_TCP);
    assert_false(tcp->tls_peek);
    assert_int_equal(tls->protocol, LISTEN_TLS);
    assert_true(tls->tls_peek);
    assert_null(tls->tls);
    tcp_want(plan_tcp_route(w.p, tcp, SLICE("")), "default/t db:80*2 web:80*1");
    tcp_want(plan_tcp_route(w.p, tls, SLICE("x.a.com")), "default/one web:80*1");
    tcp_want(plan_tcp_route(w.p, tls, SLICE("Y.A.com")), "default/rest db:80*1");
    tcp_want(plan_tcp_route(w.p, tls, SLICE("b.com")), "-");
    tcp_want(plan_tcp_route(w.p, tls, SLICE("c.com")), "default/v web:80*1");
    tcp_want(plan_tcp_route(w.p, tls, SLICE("")), "-");
    tcp_want(plan_tcp_route(w.p, istio, SLICE("")), "default/v db:80*1");
    assert_true(plan_tls_passed(w.p, tls, SLICE("x.a.com")));
    assert_false(plan_tls_passed(w.p, tls, SLICE("other")));
    struct addr sql = address_of(&w, "default", "sql", 3306), secure = address_of(&w, "default", "sql", 443), web = address_of(&w, "default", "web", 80);
    tcp_want(plan_tcp_mesh(w.p, &sql, SLICE(""), plan_caller_find(w.p, "default", "x")), "default/v web:80*1");
    tcp_want(plan_tcp_mesh(w.p, &sql, SLICE(""), NULL), " sql:3306*1");
    tcp_want(plan_tcp_mesh(w.p, &secure, SLICE("z.d.com"), NULL), "default/v db:80*1");
    tcp_want(plan_tcp_mesh(w.p, &secure, SLICE("e.com"), NULL), " sql:443*1");
    tcp_want(plan_tcp_mesh(w.p, &web, SLICE(""), NULL), "-");
    mesh_want(w.p, sql, NULL, "GET x /", "-");
    world_end(&w);
}

/* ---- references -------------------------------------------------------------------------------------------------------------- */

static void test_grants(void **state)
{
    struct world w = world_of(SVC("name: web, namespace: team", "selector: {a: b}, ports: [{port: 80}]") SVC("name: db, namespace: team", "selector: {a: b}, ports: [{port: 80}]") GATEWAY("gw", LISTENER("http", ""))
        ROUTE("name: r", "{name: gw}", "", "{name: r, backendRefs: [{name: web, namespace: team, port: 80}, {name: db, namespace: team, port: 80}]}")
        GATEWAY_API("ReferenceGrant", "name: g, namespace: team", "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: '', kind: Service, name: db}]")
        GATEWAY_API("ReferenceGrant", "name: h, namespace: team", "from: [{group: gateway.networking.k8s.io, kind: TLSRoute, namespace: default}, {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: x}], to: [{group: '', kind: Service}]"));
    gate_want(w.p, 80, "GET x /", "default/r r (0) none:0*1 db:80*1");
    object_of(&w, OBJ_REFERENCEGRANT, "team", "g")->grant.to[0].name = NULL;
    world_compile(&w, NULL, 0, NULL, 0);
    gate_want(w.p, 80, "GET x /", "default/r r (0) web:80*1 db:80*1");
    world_end(&w);
}

/* ---- endpoints ---------------------------------------------------------------------------------------------------------------- */

static struct kv kv_v1[] = {{(char *)"app", (char *)"web", 3}, {(char *)"version", (char *)"v1", 2}}, kv_v2[] = {{(char *)"app", (char *)"web", 3}, {(char *)"version", (char *)"v2", 2}};
static const struct kvs labels_v1 = {kv_v1, 2}, labels_v2 = {kv_v2, 2};
static const struct live_endpoint live_web[] = {
    {.replica_id = 1, .ns = "default", .deployment = "web", .name = "web-1", .labels = &labels_v1, .weight = 3, .locality = "eu/a"},
    {.replica_id = 2, .ns = "default", .deployment = "web", .name = "web-2", .labels = &labels_v2},
};

static void test_subsets(void **state)
{
    struct world w = world_of(SVC("name: web", "selector: {app: web}, ports: [{name: http, port: 80}, {name: admin, port: 81}]")
        ISTIO("DestinationRule", "name: d", "host: web, subsets: [{name: v1, labels: {version: v1}}, {name: none, labels: {version: v3}}]") ISTIO("DestinationRule", "name: e", "host: web.default.svc.cluster.local, subsets: [{name: v1, labels: {version: v2}}, {name: v2, labels: {version: v2}}]"));
    object_of(&w, OBJ_DESTINATIONRULE, "default", "d")->created_ns = 1;
    object_of(&w, OBJ_DESTINATIONRULE, "default", "e")->created_ns = 2;
    plan_memory_locality(w.m, "eu/b");
    world_compile(&w, live_web, 2, NULL, 0);
    const struct plan_cluster *all = cluster_find(w.p, "default", "web", 80), *v1 = subset_cluster(w.p, "default", "web", 80, "v1"), *v2 = subset_cluster(w.p, "default", "web", 81, "v2");
    assert_int_equal(w.p->clusters_n, 2 * 4);
    assert_int_equal(all->eps_n, 2);
    assert_int_equal(v1->eps_n, 1);
    assert_string_equal(v1->eps[0].name, "web-1");
    assert_int_equal(v1->eps[0].weight, 3);
    assert_string_equal(v1->eps[0].locality, "eu/a");
    assert_string_equal(v2->eps[0].name, "web-2");
    assert_int_equal(v2->eps[0].weight, 1);
    assert_string_equal(v2->eps[0].locality, "eu/b");
    assert_string_equal(w.p->locality, "eu/b");
    assert_int_equal(v2->eps[0].address.port, 81);
    assert_int_equal(subset_cluster(w.p, "default", "web", 80, "none")->eps_n, 0);
    assert_null(all->subset);
    assert_true(all->slot != v1->slot && v1->slot != v2->slot && all->shared != v1->shared && all->eps[0].id != v1->eps[0].id);
    assert_true(all->eps[0].health->nobody && v1->eps[0].health->nobody); /* no policy asks for it */
    world_end(&w);
}

/* Workers connect to where an endpoint was when they first saw it: the same replica at another port is another endpoint. */
static void test_port_moves(void **state)
{
    struct world w = world_of(SVC("name: web", "selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]"));
    world_compile(&w, live_web, 2, NULL, 0);
    struct plan *first = plan_ref(w.p);
    const struct plan_endpoint *was = cluster_find(first, "default", "web", 80)->eps;
    world_compile(&w, live_web, 2, NULL, 0);
    assert_int_equal(cluster_find(w.p, "default", "web", 80)->eps[0].id, was[0].id);
    object_of(&w, OBJ_SERVICE, "default", "web")->svc.ports[0].target = 8081;
    world_compile(&w, live_web, 2, NULL, 0);
    const struct plan_endpoint *is = cluster_find(w.p, "default", "web", 80)->eps;
    for (int i = 0; i < 2; i++) {
        assert_true(was[i].address.port == 8080 && is[i].address.port == 8081 && is[i].replica_id == was[i].replica_id);
        assert_true(is[i].id != was[i].id && is[i].slot != was[i].slot);
    }
    plan_unref(first);
    world_end(&w);
}

/* ---- other nodes --------------------------------------------------------------------------------------------------------------- */

struct nodes_world {
    struct testcert *ca, *a, *b;
    struct plan_node node_a, node_b;
};

static struct nodes_world nodes_world(void)
{
    struct nodes_world n = {.ca = testcert_new(NULL, &(struct testcert_conf){.name = "nodes", .ca = true})};
    n.a = testcert_new(n.ca, &(struct testcert_conf){.name = "a", .sans = "DNS:a"});
    n.b = testcert_new(n.ca, &(struct testcert_conf){.name = "b", .sans = "DNS:b"});
    n.node_a = (struct plan_node){"a", addr_ip4(0x0a000001u, 7443), slice_cstr(n.a->chain_pem), slice_cstr(n.a->key_pem), slice_cstr(n.ca->cert_pem)};
    n.node_b = (struct plan_node){"b", addr_ip4(0x0a000002u, 7443), slice_cstr(n.b->chain_pem), slice_cstr(n.b->key_pem), slice_cstr(n.ca->cert_pem)};
    return n;
}

static void nodes_end(struct nodes_world *n)
{
    testcert_free(n->a);
    testcert_free(n->b);
    testcert_free(n->ca);
}

static const struct plan_listener *gate_of(const struct plan *p)
{
    const struct plan_listener *found = NULL;
    for (uint32_t i = 0; i < p->listeners_n; i++)
        if (p->listeners[i].node) {
            assert_null(found);
            found = &p->listeners[i];
        }
    return found;
}

/* The endpoints that one node calls remote are the targets of the other, whatever numbers they have there; and only those. */
static void test_nodes(void **state)
{
    static const char manifests[] = SVC("name: web", "selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 81, targetPort: 8080}]")
        ISTIO("DestinationRule", "name: d", "host: web, subsets: [{name: v1, labels: {version: v1}}]") GATEWAY("gw", LISTENER("http", ""));
    struct nodes_world n = nodes_world();
    struct world a = world_of(manifests), b = world_of(manifests);
    struct live_endpoint of_a[3] = {live_web[0], live_web[1], live_web[1]};
    of_a[0].node = of_a[1].node = "b"; /* the third is a's own; it has the same number as the second */
    of_a[0].gate = of_a[1].gate = n.node_b.listen;
    of_a[2].name = "web-3";
    world_compile(&a, of_a, 3, NULL, 0);
    assert_null(a.p->gate); /* a knows of no other nodes */
    assert_int_equal(cluster_find(a.p, "default", "web", 80)->eps_n, 1);
    assert_int_equal(a.p->targets.n, 0);
    plan_memory_node(a.m, &n.node_a);
    plan_memory_node(b.m, &n.node_b);
    world_compile(&a, of_a, 3, NULL, 0);
    world_compile(&b, live_web, 2, NULL, 0);
    assert_int_equal(b.p->targets.n, 2 * 2 + 2); /* two ports; those of the subset */
    assert_int_equal(a.p->targets.n, 2);
    const struct plan_cluster *all = cluster_find(a.p, "default", "web", 80), *admin = cluster_find(a.p, "default", "web", 81), *v1 = subset_cluster(a.p, "default", "web", 80, "v1");
    assert_int_equal(all->eps_n, 3);
    for (uint32_t i = 0; i < 2; i++) {
        const struct plan_endpoint *ep = &all->eps[i];
        assert_true(ep->remote && !ep->address.inside && ep->replica_id == 0 && address_is(ep, &n.node_b.listen));
        assert_string_equal(ep->remote->node, "b");
        assert_true(slice_starts(slice_cstr(ep->remote->sni), i ? SLICE("web-2.8080.") : SLICE("web-1.8080.")) && slice_ends(slice_cstr(ep->remote->sni), SLICE(".weir.internal")));
        const struct plan_target *t = plan_target_find(b.p, slice_cstr(ep->remote->sni));
        assert_non_null(t);
        assert_ptr_equal(t->backend.cluster, cluster_find(b.p, "default", "web", 80));
        assert_true(t->id == t->backend.cluster->eps[i].id && t->slot == t->backend.cluster->eps[i].slot);
        assert_null(plan_target_find(a.p, slice_cstr(ep->remote->sni)));
    }
    assert_true(!all->eps[2].remote && all->eps[2].address.inside && all->eps[2].replica_id == 2);
    assert_true(all->eps[0].id != all->eps[1].id && all->eps[1].id != all->eps[2].id && all->eps[1].slot != all->eps[2].slot);
    assert_int_equal(all->eps[0].weight, 3);
    assert_string_equal(all->eps[0].locality, "eu/a");
    assert_ptr_equal(plan_target_find(b.p, slice_cstr(admin->eps[0].remote->sni))->backend.cluster, cluster_find(b.p, "default", "web", 81));
    assert_ptr_equal(plan_target_find(b.p, slice_cstr(v1->eps[0].remote->sni))->backend.cluster, subset_cluster(b.p, "default", "web", 80, "v1"));
    assert_null(plan_target_find(b.p, SLICE("")));
    assert_null(plan_target_find(b.p, SLICE("web-1.8080.00000000000000000000000000000000.weir.internal")));
    uint64_t id = all->eps[0].id;
    world_compile(&a, of_a, 3, NULL, 0);
    assert_int_equal(cluster_find(a.p, "default", "web", 80)->eps[0].id, id); /* the same in the next plan */
    of_a[1].gate.port = 1;
    world_compile(&a, of_a, 3, NULL, 0);
    assert_true(cluster_find(a.p, "default", "web", 80)->eps[0].id == id && cluster_find(a.p, "default", "web", 80)->eps[1].id > id + 2); /* elsewhere: another one */
    of_a[0].gate = (struct addr){0};
    world_compile(&a, of_a, 3, NULL, 0);
    assert_int_equal(cluster_find(a.p, "default", "web", 80)->eps_n, 2); /* nobody could reach it */
    world_end(&a);
    world_end(&b);
    nodes_end(&n);
}

/* A listener that no Gateway has, in nobody's way, with contexts that follow the certificate and stay as long as it does. */
static void test_gate(void **state)
{
    struct nodes_world n = nodes_world();
    struct world w = world_of(WEB("web") GATEWAY("gw", "{name: http, protocol: HTTP, port: 7443}, {name: more, protocol: HTTP, port: 80}"));
    uint64_t token = listener_at(w.p, 7443)->token;
    assert_null(gate_of(w.p));
    plan_memory_node(w.m, &n.node_a);
    world_compile(&w, live_web, 2, NULL, 0);
    const struct plan_listener *g = gate_of(w.p);
    assert_int_equal(w.p->listeners_n, 3);
    assert_true(g && g->tls && g->protocol == LISTEN_TLS && addr_eq(&g->address, &n.node_a.listen) && g->token != token && plan_listener_find(w.p, g->token) == g);
    struct tls_ctx *gate = g->tls, *http = w.p->gate->http, *bytes = w.p->gate->bytes;
    assert_true(http && bytes && http != bytes);
    world_compile(&w, live_web, 2, NULL, 0);
    assert_true(gate_of(w.p)->tls == gate && w.p->gate->http == http && w.p->gate->bytes == bytes);
    struct plan_node renewed = n.node_a;
    struct testcert *again = testcert_new(n.ca, &(struct testcert_conf){.name = "a", .sans = "DNS:a"});
    renewed.cert_pem = slice_cstr(again->chain_pem);
    renewed.key_pem = slice_cstr(again->key_pem);
    plan_memory_node(w.m, &renewed);
    world_compile(&w, live_web, 2, NULL, 0);
    assert_true(gate_of(w.p)->tls != gate && w.p->gate->http != http);
    renewed.listen = addr_ip4(0x7f000001u, 7443); /* where a Gateway listens: it makes way */
    plan_memory_node(w.m, &renewed);
    world_compile(&w, live_web, 2, NULL, 0);
    assert_int_equal(w.p->listeners_n, 2);
    assert_true(gate_of(w.p) && gate_of(w.p)->token == token);
    renewed.listen = (struct addr){0}; /* no gate: others can be reached all the same */
    plan_memory_node(w.m, &renewed);
    world_compile(&w, live_web, 2, NULL, 0);
    assert_true(!gate_of(w.p) && w.p->listeners_n == 2 && w.p->gate->http);
    renewed.key_pem = n.node_b.key_pem; /* of another certificate */
    plan_memory_node(w.m, &renewed);
    world_compile(&w, live_web, 2, NULL, 0);
    assert_true(!w.p->gate->http && !w.p->gate->bytes);
    plan_memory_node(w.m, NULL);
    world_compile(&w, live_web, 2, NULL, 0);
    assert_null(w.p->gate);
    testcert_free(again);
    world_end(&w);
    nodes_end(&n);
}

static void test_node_check(void **state)
{
    struct nodes_world n = nodes_world();
    struct testcert *other = testcert_new(NULL, &(struct testcert_conf){.name = "others", .ca = true});
    struct testcert *old = testcert_new(n.ca, &(struct testcert_conf){.name = "a", .sans = "DNS:a", .from_s = -7200, .to_s = -3600});
    struct plan_node good = n.node_a, cases[5] = {good, good, good, good, good};
    static const char *const why[5] = {"is for a, not for b", "not of that CA", "key", "expired", "no certificate in PEM"};
    cases[0].name = "b";
    cases[1].ca_pem = slice_cstr(other->cert_pem);
    cases[2].key_pem = n.node_b.key_pem;
    cases[3].cert_pem = slice_cstr(old->chain_pem);
    cases[3].key_pem = slice_cstr(old->key_pem);
    cases[4].ca_pem = SLICE("nothing");
    struct buf text = {0};
    assert_int_equal(plan_node_check(&good, &text), OK);
    assert_int_equal(text.n, 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_not_equal(plan_node_check(&cases[i], &text), OK);
        buf_addc(&text, 0);
        if (!strstr(text.p, why[i]))
            fail_msg("case %zu: %s", i, text.p);
        buf_clear(&text);
    }
    buf_free(&text);
    testcert_free(old);
    testcert_free(other);
    nodes_end(&n);
}

/* What workers learnt of an endpoint or a cluster is there in the next plan, and as long as anybody holds it. */
static void test_shared(void **state)
{
    struct world w = world_of(WEB("web") ISTIO("DestinationRule", "name: d", "host: web, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}"));
    world_compile(&w, live_web, 2, NULL, 0);
    const struct plan_cluster *c = cluster_find(w.p, "default", "web", 80);
    struct endpoint_health *first = c->eps[0].health, *held = endpoint_health_ref(c->eps[1].health);
    struct cluster_shared *shared = c->shared, *held_shared = cluster_shared_ref(shared);
    uint64_t since_ms = c->eps[0].since_ms, hash = c->policy_hash;
    assert_true(since_ms > 0);
    first->ejections = 7;
    world_compile(&w, live_web, 1, NULL, 0);
    c = cluster_find(w.p, "default", "web", 80);
    assert_ptr_equal(c->eps[0].health, first);
    assert_int_equal(c->eps[0].health->ejections, 7);
    assert_int_equal(c->eps[0].since_ms, since_ms);
    assert_ptr_equal(c->shared, shared);
    assert_int_not_equal(c->policy_hash, hash); /* the set of endpoints changed */
    hash = c->policy_hash;
    world_compile(&w, live_web, 1, NULL, 0);
    assert_int_equal(cluster_find(w.p, "default", "web", 80)->policy_hash, hash);
    struct live_endpoint heavier = live_web[0];
    heavier.weight = 9;
    world_compile(&w, &heavier, 1, NULL, 0);
    assert_int_not_equal(cluster_find(w.p, "default", "web", 80)->policy_hash, hash);
    world_compile(&w, live_web, 2, NULL, 0); /* the second is another endpoint now */
    c = cluster_find(w.p, "default", "web", 80);
    assert_ptr_not_equal(c->eps[1].health, held);
    plan_memory_free(w.m); /* before the plan goes */
    w.m = NULL;
    assert_int_equal(c->eps[0].health->ejections, 7);
    world_end(&w);
    assert_int_equal(held->refs, 1);
    assert_int_equal(held_shared->refs, 1);
    endpoint_health_unref(held);
    cluster_shared_unref(held_shared);
    endpoint_health_unref(NULL);
    cluster_shared_unref(NULL);
}

/* An endpoint has counters of its own from the first plan on whose policy asks for them, and keeps them; until then it shares some that nobody writes. */
static void test_shared_when_asked(void **state)
{
    struct world w = world_of(WEB("web") ISTIO("DestinationRule", "name: d", "host: web, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}"));
    struct outlier_policy *outlier = &object_of(&w, OBJ_DESTINATIONRULE, "default", "d")->dest.policy.outlier;
    struct health_policy *health = &object_of(&w, OBJ_DESTINATIONRULE, "default", "d")->dest.policy.health;
    outlier->on = false;
    world_compile(&w, live_web, 2, NULL, 0);
    const struct plan_cluster *c = cluster_find(w.p, "default", "web", 80);
    assert_true(c->eps[0].health->nobody && c->eps[0].health == c->eps[1].health);
    outlier->on = true;
    world_compile(&w, live_web, 2, NULL, 0);
    c = cluster_find(w.p, "default", "web", 80);
    struct endpoint_health *own = c->eps[0].health;
    assert_true(!own->nobody && !c->eps[1].health->nobody && own != c->eps[1].health);
    own->ejections = 3;
    outlier->on = false;
    world_compile(&w, live_web, 2, NULL, 0);
    c = cluster_find(w.p, "default", "web", 80);
    assert_true(c->eps[0].health == own && own->ejections == 3 && !own->expected && !own->unchecked);
    health->kind = HEALTH_TCP;
    world_compile(&w, live_web, 2, NULL, 0);
    c = cluster_find(w.p, "default", "web", 80);
    assert_true(c->eps[0].health == own && own->expected && own->unchecked);
    world_end(&w);
    w = world_of(WEB("web") ISTIO("DestinationRule", "name: d", "host: web, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}"));
    object_of(&w, OBJ_DESTINATIONRULE, "default", "d")->dest.policy.outlier.on = false;
    object_of(&w, OBJ_DESTINATIONRULE, "default", "d")->dest.policy.health.kind = HEALTH_TCP;
    world_compile(&w, live_web, 1, NULL, 0);
    c = cluster_find(w.p, "default", "web", 80);
    assert_true(!c->eps[0].health->nobody && c->eps[0].health->unchecked); /* checks alone ask for it, too */
    world_end(&w);
}

/* Keys that come and go, many at once: each is found, none twice. */
static void test_many_slots(void **state)
{
    enum { MANY = 3000 };
    struct plan_memory *m = plan_memory_new();
    static uint64_t ids[MANY];
    char key[32];
    for (uint32_t round = 0; round < 8; round++) {
        (void)slots_begin(m);
        for (uint32_t i = 0; i < MANY; i++) {
            if ((i + round) % 3 == 0)
                continue; /* absent this time */
            size_t n = (size_t)snprintf(key, sizeof key, "%u-endpoint", i);
            struct slot_take t = slots_take(m, SLOT_ENDPOINT, slice_of(key, n)), again = slots_take(m, SLOT_ENDPOINT, slice_of(key, n));
            assert_true(!t.again && again.again && t.slot == again.slot && t.id == again.id);
            assert_true(slice_eq(slots_key(m, SLOT_ENDPOINT, t.slot), slice_of(key, n)));
            if (round && (i + round - 1) % 3 != 0)
                assert_int_equal(t.id, ids[i]); /* it was in the plan before */
            else
                assert_int_not_equal(t.id, ids[i]); /* back again: another endpoint */
            ids[i] = t.id;
        }
        slots_end(m);
        assert_true(slots_top(m, SLOT_ENDPOINT) <= 2 * MANY);
    }
    plan_memory_free(m);
}

static const struct plan_endpoint *endpoint_named(const struct plan_cluster *c, const char *name)
{
    for (uint32_t i = 0; i < c->eps_n; i++)
        if (strcmp(c->eps[i].name, name) == 0)
            return &c->eps[i];
    fail_msg("no endpoint %s", name);
    return NULL;
}

static void test_service_entries(void **state)
{
    struct world w = world_of(
        ISTIO("ServiceEntry", "name: s", "hosts: [db.example.com, alias.example.com], ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: 6432}], resolution: STATIC, endpoints: ["
              "{address: 192.0.2.1, weight: 5, locality: eu/a/1, labels: {role: primary}}, {address: 192.0.2.2, ports: {tcp: 7432}, labels: {role: replica}}, {address: 'unix:///run/db.sock'}]")
        ISTIO("ServiceEntry", "name: d", "hosts: [api.example.com], ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}], resolution: DNS")
        ISTIO("ServiceEntry", "name: e", "hosts: [two.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, endpoints: [{address: a.example.net, weight: 2}, {address: 192.0.2.9}]")
        ISTIO("ServiceEntry", "name: p, namespace: team", "hosts: [private.example.com], exportTo: ['.'], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS")
        ISTIO("ServiceEntry", "name: w", "hosts: [pods.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {labels: {version: v2}}")
        ISTIO("DestinationRule", "name: r", "host: db.example.com, subsets: [{name: primary, labels: {role: primary}}]") ISTIO_GATEWAY("gw", "'*'")
        ISTIO("VirtualService", "name: v", "gateways: [gw], hosts: ['*'], http: [{name: api, match: [{uri: {prefix: /api}}], route: [{destination: {host: api.example.com, port: {number: 80}}}]}, "
              "{name: private, match: [{uri: {prefix: /private}}], " TO("private.example.com") "}, {name: two, " TO("two.example.com") "}]"));
    const struct live_address ext[] = {{"", "api.example.com", addr_ip4(0xc6336401, 0)}, {"", "api.example.com", addr_ip4(0xc6336402, 0)}, {"", "a.example.net", addr_ip4(0xc6336403, 0)}, {"default", "api.example.com", addr_ip4(1, 0)}};
    world_compile(&w, live_web, 2, ext, 4);
    const struct plan_cluster *db = cluster_find(w.p, "default", "db.example.com", 5432), *api = cluster_find(w.p, "default", "api.example.com", 443);
    assert_int_equal(db->eps_n, 3);
    assert_string_equal(db->host, "db.example.com");
    assert_int_equal(endpoint_named(db, "192.0.2.1:6432")->weight, 5);
    assert_string_equal(endpoint_named(db, "192.0.2.1:6432")->locality, "eu/a/1");
    assert_int_equal(endpoint_named(db, "192.0.2.2:7432")->address.port, 7432);
    assert_int_equal(endpoint_named(db, "192.0.2.2:7432")->replica_id, 0);
    assert_int_equal(db->eps[2].address.family, ADDR_UNIX);
    assert_string_equal(plan_endpoint_addr(&db->eps[2]).path, db->eps[2].address.path);
    assert_int_equal(db->eps[2].address.path[0], '/');
    assert_int_equal(cluster_find(w.p, "default", "alias.example.com", 5432)->eps_n, 3);
    assert_int_equal(subset_cluster(w.p, "default", "db.example.com", 5432, "primary")->eps_n, 1);
    assert_int_equal(api->eps_n, 2);
    assert_int_equal(api->eps[1].address.port, 443);
    assert_int_equal(cluster_find(w.p, "default", "two.example.com", 80)->eps_n, 2);
    assert_int_equal(endpoint_named(cluster_find(w.p, "default", "two.example.com", 80), "198.51.100.3:80")->weight, 2);
    assert_int_equal(cluster_find(w.p, "default", "pods.example.com", 80)->eps_n, 1);
    assert_int_equal(cluster_find(w.p, "default", "pods.example.com", 80)->eps[0].replica_id, 2);
    assert_string_equal(cluster_find(w.p, "default", "pods.example.com", 80)->workload, "web");
    gate_want(w.p, 80, "GET x /api", "default/v api (4) api.example.com:80*1");
    gate_want(w.p, 80, "GET x /private", "default/v private (8) none:0*1");
    gate_want(w.p, 80, "GET x /", "default/v two (0) two.example.com:80*1");
    struct addr a = db->address;
    assert_int_equal(a.port, 5432);
    assert_int_equal(plan_mesh_protocol(w.p, &a), MESH_TCP);
    tcp_want(plan_tcp_mesh(w.p, &a, SLICE(""), NULL), " db.example.com:5432*1");
    world_end(&w);
}

/* ---- policies ------------------------------------------------------------------------------------------------------------------ */

#define DR(meta, spec) ISTIO("DestinationRule", meta, spec)
#define MAX_CONNECTIONS(n) "trafficPolicy: {connectionPool: {tcp: {maxConnections: " #n "}}}"

static uint32_t connections(const struct world *w, const char *ns, const char *service, uint16_t port)
{
    const struct plan_cluster *c = cluster_find(w->p, ns, service, port);
    assert_non_null(c);
    return c->policy->pool.connections_max;
}

static void test_destination_choice(void **state)
{
    struct world w = world_of(WEB("web") WEB("api") SVC("name: web, namespace: team", "selector: {a: b}, ports: [{port: 80}]") SVC("name: lone, namespace: x", "selector: {a: b}, ports: [{port: 80}]")
        ISTIO("ServiceEntry", "name: s", "hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS")
        DR("name: d1", "host: web, " MAX_CONNECTIONS(1)) DR("name: d2", "host: web.default.svc.cluster.local, " MAX_CONNECTIONS(2)) DR("name: d3", "host: '*.team.svc.cluster.local', " MAX_CONNECTIONS(3))
        DR("name: d4", "host: '*.svc.cluster.local', " MAX_CONNECTIONS(4)) DR("name: d5", "host: '*.example.com', " MAX_CONNECTIONS(5)) DR("name: d6, namespace: team", "host: web.default.svc.cluster.local, " MAX_CONNECTIONS(6))
        DR("name: d7, namespace: team", "host: '*.x.svc.cluster.local', exportTo: ['.'], " MAX_CONNECTIONS(7)));
    object_of(&w, OBJ_DESTINATIONRULE, "default", "d1")->created_ns = 9;
    object_of(&w, OBJ_DESTINATIONRULE, "default", "d2")->created_ns = 8;
    object_of(&w, OBJ_DESTINATIONRULE, "team", "d6")->created_ns = 1; /* older, but of another namespace */
    world_compile(&w, NULL, 0, NULL, 0);
    assert_int_equal(connections(&w, "default", "web", 80), 2);
    assert_int_equal(connections(&w, "default", "api", 80), 4);
    assert_int_equal(connections(&w, "team", "web", 80), 3);
    assert_int_equal(connections(&w, "x", "lone", 80), 4); /* d7 is not for it */
    assert_int_equal(connections(&w, "default", "a.example.com", 80), 5);
    world_end(&w);
}

static void test_policy_merge(void **state)
{
    struct world w = world_of(SVC("name: web", "selector: {app: web}, ports: [{name: http, port: 80}, {name: b, port: 81}]") WEB("plain")
        DR("name: d", "host: web, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 5}}, outlierDetection: {consecutive5xxErrors: 3, minHealthPercent: 20}, "
           "portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: RANDOM}}]}, subsets: [{name: s, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}}]")
        "---\n{apiVersion: weir.dev/v1, kind: BackendPolicy, metadata: {name: b}, spec: {targetRefs: [{name: web}], connectionPool: {maxConnections: 7}, slowStart: {duration: 10s}, hedging: {delay: 50ms}}}\n"
        "---\n{apiVersion: weir.dev/v1, kind: BackendPolicy, metadata: {name: c}, spec: {targetRefs: [{name: web}], connectionPool: {maxConnections: 9}, adaptiveConcurrency: {minLimit: 4}}}\n");
    object_of(&w, OBJ_BACKENDPOLICY, "default", "b")->created_ns = 1;
    object_of(&w, OBJ_BACKENDPOLICY, "default", "c")->created_ns = 2;
    world_compile(&w, NULL, 0, NULL, 0);
    const struct cluster_policy *p = cluster_find(w.p, "default", "web", 80)->policy, *q = cluster_find(w.p, "default", "web", 81)->policy, *s = subset_cluster(w.p, "default", "web", 80, "s")->policy;
    assert_int_equal(p->lb.kind, LB_ROUND_ROBIN);
    assert_int_equal(p->lb.panic_pct, 20);
    assert_int_equal(p->lb.slow_start_ms, 10000);
    assert_int_equal(p->outlier.consecutive_5xx, 3);
    assert_int_equal(p->pool.connections_max, 7);
    assert_int_equal(p->hedge.delay_ms, 50);
    assert_true(p->adaptive.on);
    assert_int_equal(q->lb.kind, LB_RANDOM);
    assert_int_equal(s->lb.kind, LB_LEAST_REQUEST);
    assert_int_equal(s->pool.connections_max, 7);
    const struct cluster_policy *none = cluster_find(w.p, "default", "plain", 80)->policy;
    assert_int_equal(none->lb.panic_pct, 50);
    assert_int_equal(none->lb.ring_size_min, 1024);
    assert_int_equal(none->tls.mode, TLS_OFF);
    uint64_t hash = cluster_find(w.p, "default", "web", 80)->policy_hash, other = cluster_find(w.p, "default", "plain", 80)->policy_hash;
    object_of(&w, OBJ_BACKENDPOLICY, "default", "b")->backend.policy.pool.connections_max = 8;
    world_compile(&w, NULL, 0, NULL, 0);
    assert_int_not_equal(cluster_find(w.p, "default", "web", 80)->policy_hash, hash);
    assert_int_equal(cluster_find(w.p, "default", "plain", 80)->policy_hash, other);
    world_end(&w);
}

/* ---- TLS ------------------------------------------------------------------------------------------------------------------------ */

static void secret_add(struct buf *b, const char *meta, const char *crt, const char *key, const char *ca)
{
    struct buf json = {0};
    buf_printf(b, "---\n{apiVersion: v1, kind: Secret, metadata: {%s}, type: Opaque, stringData: {x: ''", meta);
    const char *const names[] = {"tls.crt", "tls.key", "ca.crt"}, *const texts[] = {crt, key, ca};
    for (size_t i = 0; i < 3; i++)
        if (texts[i]) {
            buf_clear(&json);
            buf_add_json(&json, slice_cstr(texts[i]));
            buf_printf(b, ", %s: %s", names[i], json.p);
        }
    buf_adds(b, "}}\n");
    buf_free(&json);
}

/* Contexts are made, kept over plans by content, and missing where something is missing. */
static void test_tls(void **state)
{
    struct testcert *ca = testcert_new(NULL, &(struct testcert_conf){.name = "ca", .ca = true}), *a = testcert_new(ca, &(struct testcert_conf){.name = "a", .sans = "DNS:a.com"});
    struct buf text = {0};
    secret_add(&text, "name: a", a->chain_pem, a->key_pem, ca->cert_pem);
    secret_add(&text, "name: bad", a->chain_pem, "no key", NULL);
    secret_add(&text, "name: far, namespace: team", a->chain_pem, a->key_pem, NULL);
    buf_adds(&text, WEB("web") WEB("db") WEB("lost") GATEWAY_API("Gateway", "name: g", "gatewayClassName: weir, listeners: ["
        "{name: a, protocol: HTTPS, port: 443, hostname: a.com, tls: {certificateRefs: [{name: a}]}}, {name: b, protocol: HTTPS, port: 443, hostname: '*.b.com', tls: {certificateRefs: [{name: a}]}},"
        "{name: p, protocol: TLS, port: 443, hostname: p.com, tls: {mode: Passthrough}}, {name: far, protocol: HTTPS, port: 444, tls: {certificateRefs: [{name: far, namespace: team}]}},"
        "{name: bad, protocol: HTTPS, port: 445, tls: {certificateRefs: [{name: bad}]}}, {name: t, protocol: TLS, port: 446, tls: {certificateRefs: [{name: a}]}}]")
        ROUTE("name: a", "{name: g, sectionName: a}", "a.com", RULE("a", "")) ROUTE("name: b", "{name: g, sectionName: b}", "", RULE("b", "")) GATEWAY_ALPHA("TCPRoute", "name: t", "parentRefs: [{name: g, sectionName: t}], rules: [{backendRefs: [{name: db, port: 80}]}]")
        GATEWAY_ALPHA("TLSRoute", "name: p", "parentRefs: [{name: g, sectionName: p}], hostnames: [p.com], rules: [{backendRefs: [{name: db, port: 80}]}]")
        "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: b}, spec: {targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: in.web, caCertificateRefs: [{group: '', kind: Secret, name: a}]}}}\n"
        ISTIO("DestinationRule", "name: d", "host: db, trafficPolicy: {tls: {mode: MUTUAL, credentialName: a, sni: db.in}}") ISTIO("DestinationRule", "name: e", "host: lost, trafficPolicy: {tls: {mode: MUTUAL, credentialName: nothing}}"));
    struct world w = world_of(text.p);
    const struct plan_listener *ln = listener_at(w.p, 443);
    assert_int_equal(ln->protocol, LISTEN_HTTPS);
    assert_true(ln->tls_peek);
    assert_non_null(ln->tls);
    assert_true(plan_tls_passed(w.p, ln, SLICE("p.com")));
    assert_false(plan_tls_passed(w.p, ln, SLICE("a.com")));
    tcp_want(plan_tcp_route(w.p, ln, SLICE("p.com")), "default/p db:80*1");
    assert_int_equal(listener_at(w.p, 444)->protocol, LISTEN_HTTPS);
    assert_null(listener_at(w.p, 444)->tls); /* no grant */
    assert_null(listener_at(w.p, 445)->tls);
    assert_int_equal(listener_at(w.p, 446)->protocol, LISTEN_TLS);
    assert_non_null(listener_at(w.p, 446)->tls);
    assert_false(listener_at(w.p, 446)->tls_peek);
    tcp_want(plan_tcp_route(w.p, listener_at(w.p, 446), SLICE("a.com")), "default/t db:80*1");
    const struct cluster_policy *web = cluster_find(w.p, "default", "web", 80)->policy, *db = cluster_find(w.p, "default", "db", 80)->policy, *lost = cluster_find(w.p, "default", "lost", 80)->policy;
    assert_int_equal(web->tls.mode, TLS_SIMPLE);
    assert_string_equal(web->tls.sni, "in.web");
    assert_non_null(web->tls.ctx);
    assert_int_equal(db->tls.mode, TLS_MUTUAL);
    assert_non_null(db->tls.ctx);
    assert_int_equal(lost->tls.mode, TLS_MUTUAL);
    assert_null(lost->tls.ctx);
    const struct tls_ctx *before = web->tls.ctx, *before_ln = ln->tls;
    uint64_t hash = cluster_find(w.p, "default", "web", 80)->policy_hash;
    struct plan *held = plan_ref(w.p);
    world_compile(&w, NULL, 0, NULL, 0);
    assert_ptr_equal(cluster_find(w.p, "default", "web", 80)->policy->tls.ctx, before);
    assert_ptr_equal(listener_at(w.p, 443)->tls, before_ln);
    assert_int_equal(cluster_find(w.p, "default", "web", 80)->policy_hash, hash);
    struct kvs *data = &object_of(&w, OBJ_SECRET, "default", "a")->data; /* another authority: other contexts for clients, the same for the server */
    for (size_t i = 0; i < data->n; i++)
        if (strcmp(data->items[i].key, "ca.crt") == 0) {
            data->items[i].value = a->cert_pem;
            data->items[i].value_n = strlen(a->cert_pem);
        }
    world_compile(&w, NULL, 0, NULL, 0);
    assert_ptr_not_equal(cluster_find(w.p, "default", "web", 80)->policy->tls.ctx, before);
    assert_int_not_equal(cluster_find(w.p, "default", "web", 80)->policy_hash, hash);
    assert_ptr_equal(listener_at(w.p, 443)->tls, before_ln);
    world_end(&w);
    assert_int_equal(tls_ctx_expires_s(before) > 0, 1); /* the old plan still holds it */
    plan_unref(held);
    buf_free(&text);
    testcert_free(ca);
    testcert_free(a);
}

/* The host must belong to the listener that the server name chose; servers that want https say so. */
static void test_misdirected(void **state)
{
    struct testcert *a = testcert_new(NULL, &(struct testcert_conf){.name = "a", .sans = "DNS:a.com"});
    struct buf text = {0};
    secret_add(&text, "name: a", a->chain_pem, a->key_pem, NULL);
    buf_adds(&text, WEB("web") ISTIO("Gateway", "name: g", "selector: {a: b}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com, '*.a.com'], tls: {mode: SIMPLE, credentialName: a}}, "
        "{port: {number: 443, name: https-b, protocol: HTTPS}, hosts: [b.com], tls: {mode: SIMPLE, credentialName: a}}, {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com], tls: {httpsRedirect: true}}, "
        "{port: {number: 80, name: http-b, protocol: HTTP}, hosts: [b.com]}]") ISTIO("VirtualService", "name: v", "gateways: [g], hosts: [a.com, b.com, x.a.com, y.a.com], http: [{name: v, " TO("web") "}]"));
    struct world w = world_of(text.p);
    static struct h1_head h;
    static const struct { uint16_t port; bool secure; const char *host, *sni; bool found, redirect, misdirected; } want[] = {
        {443, true, "a.com", "a.com", true, false, false}, {443, true, "A.com", "a.COM", true, false, false}, {443, true, "b.com", "a.com", false, false, true}, {443, true, "b.com", "", true, false, false},
        {443, true, "x.a.com", "y.a.com", true, false, false}, {443, true, "x.a.com", "a.com", false, false, true}, {443, true, "nobody", "a.com", false, false, true}, {443, true, "nobody", "", false, false, false},
        {80, false, "a.com", "", true, true, false}, {80, false, "b.com", "", true, false, false}, {80, false, "nobody", "", false, false, false},
    };
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        struct buf line = {0};
        struct plan_hit hit;
        buf_printf(&line, "GET %s /", want[i].host);
        request_parse(&h, line.p);
        bool found = plan_route(w.p, listener_at(w.p, want[i].port), &h, want[i].secure, slice_cstr(want[i].sni), &hit);
        if (found != want[i].found || hit.https_redirect != want[i].redirect || hit.misdirected != want[i].misdirected || (hit.rule != NULL) != (found && !hit.https_redirect))
            fail_msg("%s with %s on %u: %d %d %d", want[i].host, want[i].sni, want[i].port, found, hit.https_redirect, hit.misdirected);
        buf_free(&line);
    }
    world_end(&w);
    buf_free(&text);
    testcert_free(a);
}

/* ---- what rules do --------------------------------------------------------------------------------------------------------------- */

static const struct plan_rule *rule_of(struct world *w, const char *request)
{
    static struct h1_head h;
    struct plan_hit hit;
    request_parse(&h, request);
    assert_true(plan_route(w->p, listener_at(w->p, 80), &h, false, SLICE(""), &hit));
    return hit.rule;
}

static void test_filters(void **state)
{
#define FILTERED(name, type, more) ROUTE("name: " name, "{name: gw}", name ".com", "{name: " name ", filters: [{type: " type more "}], backendRefs: [{name: web, port: 80}]}")
#define EXTENDED(name) FILTERED(name, "ExtensionRef", ", extensionRef: {group: weir.dev, kind: HTTPFilter, name: " name "}")
#define HTTP_FILTER(name, spec) "---\n{apiVersion: weir.dev/v1, kind: HTTPFilter, metadata: {name: " name "}, spec: {" spec "}}\n"
    struct world w = world_of(WEB("web") WEB("api") GATEWAY("gw", LISTENER("http", "")) ISTIO_GATEWAY("i", "'*.istio'")
        ROUTE("name: plain", "{name: gw}", "plain.com", "{name: plain, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}], timeouts: {request: 1s}, backendRefs: [{name: web, port: 80}]}")
        FILTERED("mirror", "RequestMirror", ", requestMirror: {backendRef: {name: api, port: 80}, percent: 42}") EXTENDED("aggregate") EXTENDED("transform") EXTENDED("fault") EXTENDED("upgrades") EXTENDED("direct")
        HTTP_FILTER("aggregate", "aggregate: {parts: [{name: a, backendRef: {name: api, port: 80}}, {name: b, backendRef: {name: nobody, port: 80}}]}")
        HTTP_FILTER("transform", "transform: {response: [{replace: {regex: 'a(b)', with: '\\1'}}, {remove: {pointer: /x}}]}")
        HTTP_FILTER("fault", "fault: {abort: {percent: 10, status: 503}}") HTTP_FILTER("upgrades", "upgrades: {connect: true}") HTTP_FILTER("direct", "directResponse: {status: 418, body: teapot}")
        ISTIO("VirtualService", "name: v", "gateways: [i], hosts: [a.istio], http: [{name: cors, match: [{uri: {prefix: /cors}}], corsPolicy: {allowOrigins: [{regex: 'https://.*'}, {exact: 'http://a'}]}, " TO("web") "}, "
              "{name: rewrite, rewrite: {uriRegexRewrite: {match: '/v([0-9])/', rewrite: '/\\1/'}}, " TO("web") "}]"));
    const struct plan_rule *r = rule_of(&w, "GET plain.com /");
    assert_true(r->plain);
    r = rule_of(&w, "GET mirror.com /");
    assert_false(r->plain);
    assert_int_equal(r->mirrors_n, 1);
    assert_ptr_equal(r->mirrors[0].cluster, cluster_find(w.p, "default", "api", 80));
    assert_int_equal(r->mirrors[0].ppm, 420000);
    r = rule_of(&w, "GET aggregate.com /");
    assert_int_equal(r->filters_n, 1);
    assert_string_equal(r->filters[0].name, "default/aggregate");
    assert_int_equal(r->filters[0].spec->aggregate.parts_n, 2);
    assert_ptr_equal(r->filters[0].parts[0].cluster, cluster_find(w.p, "default", "api", 80));
    assert_null(r->filters[0].parts[1].cluster);
    r = rule_of(&w, "GET transform.com /");
    assert_int_equal(r->filters[0].spec->transform.ops_n, 2);
    assert_non_null(r->filters[0].regexes[0]);
    assert_null(r->filters[0].regexes[1]);
    r = rule_of(&w, "GET fault.com /");
    assert_int_equal(r->filters_n, 0); /* settings */
    assert_int_equal(r->spec->fault.abort_ppm, 100000);
    assert_false(r->plain);
    assert_true(rule_of(&w, "GET upgrades.com /")->spec->connect);
    r = rule_of(&w, "GET direct.com /");
    assert_int_equal(r->filters[0].spec->direct.status, 418);
    r = rule_of(&w, "GET a.istio /cors");
    assert_true(r->spec->cors.given);
    assert_true(plan_string_match(&r->spec->cors.origins[0], r->origins[0], SLICE("https://x")));
    assert_false(plan_string_match(&r->spec->cors.origins[0], r->origins[0], SLICE("http://x")));
    assert_null(r->origins[1]);
    assert_true(plan_string_match(&r->spec->cors.origins[1], NULL, SLICE("http://a")));
    r = rule_of(&w, "GET a.istio /");
    struct buf out = {0};
    assert_non_null(r->rewrite);
    assert_true(plan_regex_replace(r->rewrite, SLICE("/v1/a/v2/b"), slice_cstr(r->spec->rewrite_path), 100, &out));
    assert_string_equal(out.p, "/1/a/2/b");
    assert_false(r->plain);
    buf_free(&out);
    world_end(&w);
}

/* ---- expressions ------------------------------------------------------------------------------------------------------------------ */

static bool matches(const char *text, const char *subject, bool whole)
{
    struct plan_regex *r = regex_new(slice_cstr(text), whole, NULL), *part = regex_new(slice_cstr(text), false, NULL);
    assert_non_null(r);
    bool holds = plan_regex_match(r, slice_cstr(subject), whole);
    assert_int_equal(plan_regex_match(part, slice_cstr(subject), whole), holds);
    regex_unref(r);
    regex_unref(part);
    return holds;
}

static void test_regex(void **state)
{
    assert_true(matches("/api/v[0-9]+(/.*)?", "/api/v12/x", true));
    assert_false(matches("/api/v[0-9]+", "/api/v12/x", true));
    assert_true(matches("/api/v[0-9]+", "/api/v12/x", false));
    assert_true(matches("a|ab", "ab", true)); /* all of it, whatever comes first */
    assert_false(matches("a$", "a\n", true));
    assert_true(matches("(?i)ABC", "abc", true));
    assert_true(matches("", "", true));
    assert_true(matches(".+", "\xff\xfe", true)); /* not UTF-8 */
    struct buf why = {0};
    assert_false(plan_regex_check(SLICE("a(b"), &why));
    assert_non_null(strstr(why.p, "at byte 4"));
    buf_clear(&why);
    for (size_t i = 0; i <= REGEX_BYTES_MAX; i++)
        buf_addc(&why, 'a');
    struct buf long_why = {0};
    assert_false(plan_regex_check(buf_slice(&why), &long_why));
    assert_string_equal(long_why.p, "longer than 2048 bytes");
    assert_true(plan_regex_check(slice_of(why.p, REGEX_BYTES_MAX), NULL));
    assert_false(plan_regex_check(SLICE("(*UTF)x"), NULL));
    buf_free(&why);
    buf_free(&long_why);
}

/* A match that would take for ever is given up, and counted. */
static void test_regex_limits(void **state)
{
    struct plan_regex *r = regex_new(SLICE("(a+)+b"), true, NULL);
    struct buf subject = {0};
    for (int i = 0; i < 200; i++)
        buf_addc(&subject, 'a');
    buf_adds(&subject, "!b"); /* what it must end with is there, so only trying shows that it does not match */
    uint64_t before = plan_regex_overruns();
    assert_false(plan_regex_match(r, buf_slice(&subject), true));
    assert_int_equal(plan_regex_overruns(), before + 1);
    regex_unref(r);
    buf_free(&subject);
}

static void test_regex_replace(void **state)
{
    static const struct { const char *text, *with, *subject, *want; } cases[] = {
        {"b+", "x", "abbbcb", "axcx"}, {"(a)(b)?", "[\\2\\1]", "aba", "[ba][a]"}, {"x*", "-", "abc", "-a-b-c-"}, {"x*", "-", "axb", "-a-b-"}, {"", "-", "", "-"}, {"b", "", "abc", "ac"},
        {"z", "-", "abc", "abc"}, {"b", "\\\\\\0\\x\\", "abc", "a\\b\\x\\c"}, {"(.)", "\\9\\1", "ab", "ab"}, {"^/a", "/b", "/a/a", "/b/a"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct plan_regex *r = regex_new(slice_cstr(cases[i].text), false, NULL);
        struct buf out = {0};
        buf_adds(&out, "kept:");
        size_t n = strlen(cases[i].want);
        assert_true(plan_regex_replace(r, slice_cstr(cases[i].subject), slice_cstr(cases[i].with), n, &out));
        assert_string_equal(out.p + 5, cases[i].want);
        out.n = 5;
        if (n) { /* one byte less than it takes */
            assert_false(plan_regex_replace(r, slice_cstr(cases[i].subject), slice_cstr(cases[i].with), n - 1, &out));
            assert_string_equal(out.p, "kept:");
            assert_int_equal(out.n, 5);
        }
        buf_free(&out);
        regex_unref(r);
    }
}

struct matcher {
    const struct plan_regex *r;
    uint32_t hits;
};

static void matcher_run(void *arg)
{
    struct matcher *m = arg;
    for (int i = 0; i < 20000; i++)
        m->hits += plan_regex_match(m->r, i & 1 ? SLICE("/api/v12/items") : SLICE("/api/vx/items"), true);
}

/* One pattern, many threads; a thread that ends leaves nothing behind. */
static void test_regex_threads(void **state)
{
    struct plan_regex *r = regex_new(SLICE("/api/v([0-9]+)/.*"), true, NULL);
    struct matcher m[4];
    struct thread *t[4];
    for (int i = 0; i < 4; i++) {
        m[i] = (struct matcher){r, 0};
        t[i] = thread_start("matcher", matcher_run, &m[i]);
    }
    for (int i = 0; i < 4; i++) {
        thread_join(t[i]);
        assert_int_equal(m[i].hits, 10000);
    }
    regex_unref(r);
}

/* Expressions are compiled once for all plans, and dropped when two plans in a row had none of them. */
static void test_regex_kept(void **state)
{
    struct world w = world_of(WEB("web") GATEWAY("gw", LISTENER("http", ""))
        ROUTE("name: r", "{name: gw}", "", RULE("r", "{path: {type: RegularExpression, value: '/a.*'}}, {headers: [{name: x, type: RegularExpression, value: '/a.*'}]}")));
    uint64_t with = mem_count(MEM_PLAN);
    const struct plan_regex *r = memory_regex(w.m, SLICE("/a.*"), true);
    assert_int_equal(mem_count(MEM_PLAN), with); /* it was there */
    world_compile(&w, NULL, 0, NULL, 0);
    assert_ptr_equal(memory_regex(w.m, SLICE("/a.*"), true), r);
    assert_true(objset_remove(w.s, OBJ_HTTPROUTE, "default", "r"));
    for (int i = 0; i < 3; i++)
        world_compile(&w, NULL, 0, NULL, 0);
    uint64_t without = mem_count(MEM_PLAN);
    assert_non_null(memory_regex(w.m, SLICE("/a.*"), true));
    assert_true(mem_count(MEM_PLAN) > without); /* it was made anew */
    world_end(&w);
}

/* ---- bounds ------------------------------------------------------------------------------------------------------------------------ */

/* A mesh of 1,000 Services, each with a policy, two subsets and a VirtualService of three rules, and 10,000 endpoints. Time is
 * printed, and bounded generously, for machines differ; what each Service costs is bounded. */
static void test_bounds_mesh(void **state)
{
    enum { SERVICES = 1000, ENDPOINTS = 10000 };
    struct buf text = {0};
    static struct live_endpoint eps[ENDPOINTS];
    static struct kv labels[SERVICES][2];
    static struct kvs sets[SERVICES];
    static char names[SERVICES][16];
    for (int i = 0; i < SERVICES; i++) {
        snprintf(names[i], sizeof names[i], "s-%d", i);
        labels[i][0] = (struct kv){(char *)"app", names[i], strlen(names[i])};
        labels[i][1] = (struct kv){(char *)"version", (char *)(i % 2 ? "v1" : "v2"), 2};
        sets[i] = (struct kvs){labels[i], 2};
        buf_printf(&text, WEB("s-%d"), i, i);
        buf_printf(&text, ISTIO("DestinationRule", "name: s-%d", "host: s-%d, trafficPolicy: {connectionPool: {tcp: {maxConnections: 10}}}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]"), i, i);
        buf_printf(&text, ISTIO("VirtualService", "name: s-%d", "hosts: [s-%d], gateways: [mesh, gw], http: [{match: [{uri: {prefix: /v1}}], route: [{destination: {host: s-%d, subset: v1}}]}, "
                                "{match: [{uri: {regex: '/x[0-9]+'}}], route: [{destination: {host: s-%d, subset: v2}}]}, {route: [{destination: {host: s-%d}}]}]"), i, i, i, i, i);
    }
    buf_adds(&text, ISTIO_GATEWAY("gw", "'*'"));
    for (size_t i = 0; i < ENDPOINTS; i++)
        eps[i] = (struct live_endpoint){.replica_id = i + 1, .ns = "default", .deployment = "d", .name = "d-1", .labels = &sets[i % SERVICES], .locality = i & 1 ? "eu/a" : "eu/b"};
    struct world w = world_of(text.p);
    uint64_t bare = w.p->bytes, best_ns = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        world_compile(&w, eps, ENDPOINTS, NULL, 0);
        best_ns = MIN(best_ns, w.p->compile_ns);
    }
    print_message("a Service with policy, subsets and VirtualService: %lu bytes; %d of them and %d endpoints compiled in %.1f ms\n", (unsigned long)(bare / SERVICES), SERVICES, ENDPOINTS, (double)best_ns / 1e6);
    assert_true(bare / SERVICES < 8192);
    assert_true(SANITIZED || best_ns < 2000000000u); /* what a sanitizer costs is nobody's promise */
    assert_int_equal(w.p->clusters_n, 3 * SERVICES);
    gate_want(w.p, 80, "GET s-7 /x99", "default/s-7 (4) s-7|v2:80*1");
    mesh_want(w.p, address_of(&w, "default", "s-999", 80), NULL, "GET s-999 /v1/a", "default/s-999 (3) s-999|v1:80*1");
    world_end(&w);
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordered), cmocka_unit_test(test_delegates), cmocka_unit_test(test_delegate_rewrites), cmocka_unit_test(test_both_apis), cmocka_unit_test(test_gateways), cmocka_unit_test(test_mesh_virtuals), cmocka_unit_test(test_mesh_choice),
        cmocka_unit_test(test_mesh_routes), cmocka_unit_test(test_splits), cmocka_unit_test(test_large_splits), cmocka_unit_test(test_headless), cmocka_unit_test(test_mesh_protocols), cmocka_unit_test(test_tcp), cmocka_unit_test(test_grants), cmocka_unit_test(test_nodes), cmocka_unit_test(test_gate), cmocka_unit_test(test_node_check), cmocka_unit_test(test_port_moves), cmocka_unit_test(test_subsets),
        cmocka_unit_test(test_shared), cmocka_unit_test(test_shared_when_asked), cmocka_unit_test(test_many_slots), cmocka_unit_test(test_service_entries), cmocka_unit_test(test_destination_choice), cmocka_unit_test(test_policy_merge), cmocka_unit_test(test_tls), cmocka_unit_test(test_misdirected),
        cmocka_unit_test(test_filters), cmocka_unit_test(test_regex), cmocka_unit_test(test_regex_limits), cmocka_unit_test(test_regex_replace), cmocka_unit_test(test_regex_threads), cmocka_unit_test(test_regex_kept), cmocka_unit_test(test_bounds_mesh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
