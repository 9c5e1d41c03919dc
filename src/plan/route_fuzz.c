/* route_fuzz.c - any bytes as host, path, query and fields against a fixed plan: plan_route() must say what the oracle of
 * route_naive.h says.
 *
 * The input is lines: the first byte chooses the method and the listener, the rest of its line is the host; the second line is
 * the target; each further one a field, "name:value". Nothing is cleaned up, so hosts and paths get bytes that no parser
 * lets through.
 */
#include "route_naive.h"

#define FUZZ_BYTES_MAX 4000
#define FUZZ_FIELDS_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char manifests[] =
    "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: gw}, spec: {gatewayClassName: weir, listeners: [\n"
    "  {name: any, protocol: HTTP, port: 80}, {name: wild, protocol: HTTP, port: 80, hostname: '*.a.com'},\n"
    "  {name: deep, protocol: HTTP, port: 80, hostname: '*.b.a.com'}, {name: exact, protocol: HTTP, port: 80, hostname: x.b.a.com},\n"
    "  {name: plain, protocol: HTTP, port: 81}]}}\n"
    "---\n"
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: hosts}, spec: {parentRefs: [{name: gw}],\n"
    "  hostnames: [a.com, '*.a.com', '*.com', x.b.a.com, c.b.a.com, '*.long-label-for-eight-bytes.net'], rules: [\n"
    "  {name: root, matches: [{path: {type: PathPrefix, value: /}, method: GET}]}, {name: a, matches: [{path: {type: PathPrefix, value: /a}}]},\n"
    "  {name: exact, matches: [{path: {type: Exact, value: /a/b}}, {path: {type: Exact, value: /}}]}]}}\n"
    "---\n"
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: any}, spec: {parentRefs: [{name: gw, sectionName: any}, {name: gw, port: 81}], rules: [\n"
    "  {name: q, matches: [{path: {type: PathPrefix, value: /a}, queryParams: [{name: q, value: a b}]}]},\n"
    "  {name: qq, matches: [{path: {type: PathPrefix, value: /a}, queryParams: [{name: q, value: '1'}, {name: r, value: '%'}]}]},\n"
    "  {name: h, matches: [{headers: [{name: X-A, value: 'a, b'}]}, {headers: [{name: Accept, value: x}]}]},\n"
    "  {name: p1, matches: [{path: {type: PathPrefix, value: /api/v1}}]}, {name: p2, matches: [{path: {type: PathPrefix, value: /api/v2/}}]},\n"
    "  {name: p3, matches: [{path: {type: PathPrefix, value: /api/v1/users}, method: POST}]}, {name: p4, matches: [{path: {type: PathPrefix, value: /apis}}]},\n"
    "  {name: many, matches: [{path: {type: PathPrefix, value: /b}}, {path: {type: PathPrefix, value: /c}}, {path: {type: PathPrefix, value: /d}}, {path: {type: PathPrefix, value: /e}},\n"
    "    {path: {type: PathPrefix, value: /f}}, {path: {type: PathPrefix, value: /g}}, {path: {type: PathPrefix, value: /h}}, {path: {type: PathPrefix, value: /i}}]}]}}\n"
    "---\n"
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: wild}, spec: {parentRefs: [{name: gw}], hostnames: ['*.a.com', '*.b.a.com'], rules: [\n"
    "  {name: only, matches: [{path: {type: PathPrefix, value: /only}}]}, {name: post, matches: [{method: POST}]}]}}\n"
    "---\n"
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: regex}, spec: {parentRefs: [{name: gw, port: 81}], hostnames: [r.com], rules: [\n"
    "  {name: r1, matches: [{path: {type: RegularExpression, value: '/a[a-z]*'}}]}, {name: r2, matches: [{path: {type: RegularExpression, value: '/(a|bc?)/[0-9]{1,3}'}}]},\n"
    "  {name: r3, matches: [{headers: [{name: X-A, type: RegularExpression, value: 'a(, [a-c]+)*'}]}]}, {name: r4, matches: [{queryParams: [{name: q, type: RegularExpression, value: '[a b]+'}]}]},\n"
    "  {name: r5, matches: [{path: {type: PathPrefix, value: /ab}}]}, {name: r6, matches: [{path: {type: Exact, value: /abc}}]}, {name: r7, matches: [{path: {type: PathPrefix, value: /}, method: PUT}]}]}}\n"
    "---\n"
    "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: ig}, spec: {selector: {a: b}, servers: [\n"
    "  {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*', '*.i.com']}, {port: {number: 81, name: http, protocol: HTTP}, hosts: ['./*.com', 'x.i.com']}]}}\n"
    "---\n"
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: first}, spec: {gateways: [ig], hosts: ['*.i.com', 'x.i.com', 'v.com'], http: [\n"
    "  {name: v1, match: [{uri: {prefix: /a}, method: {exact: PUT}}], route: [{destination: {host: web}}]}, {name: v2, match: [{uri: {exact: /ab}}, {uri: {regex: '/[a-c]+/?'}}], route: [{destination: {host: web}}]},\n"
    "  {name: v3, match: [{uri: {prefix: /ab}, ignoreUriCase: true, headers: {x-a: {prefix: 'a, b'}}}], route: [{destination: {host: web}}]}, {name: v4, match: [{uri: {prefix: /ab/c}}, {uri: {prefix: /}, port: 81, withoutHeaders: {x-a: {}}}], route: [{destination: {host: web}}]},\n"
    "  {name: v5, match: [{queryParams: {q: {prefix: a}}}, {queryParams: {q: {exact: ''}}}, {authority: {prefix: x}}], route: [{destination: {host: web}}]}, {name: v6, match: [{headers: {accept: {regex: '[a-z/]+(, [a-z]*)?'}}, scheme: {exact: http}}], route: [{destination: {host: web}}]}]}}\n"
    "---\n"
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: second}, spec: {gateways: [ig], hosts: ['*.i.com', '*'], http: [\n"
    "  {name: w1, match: [{uri: {prefix: /w}}, {method: {regex: 'P[A-Z]+'}}], route: [{destination: {host: web}}]}, {name: w2, match: [{uri: {exact: /Aa}, ignoreUriCase: true}], route: [{destination: {host: web}}]}]}}\n";

static const struct objset *fuzz_set;
static const struct plan *fuzz_plan;

static void fuzz_begin(void)
{
    struct objset *s = objset_new();
    struct diags d = {0};
    objset_read(s, "fuzz.yaml", "/", slice_cstr(manifests), "default", false, &d);
    MUST(d.errors == 0);
    diags_free(&d);
    struct plan_memory *m = plan_memory_new();
    fuzz_plan = plan_compile(m, s, NULL, 0, NULL, 0);
    plan_memory_free(m);
    fuzz_set = s; /* both stay until the process ends */
    MUST(fuzz_plan->listeners_n == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "BREW"};
    static struct h1_head h;
    if (!fuzz_plan)
        fuzz_begin();
    if (n == 0 || n > FUZZ_BYTES_MAX)
        return 0;
    struct slice rest = slice_of((const char *)data + 1, n - 1), value;
    struct slice host = slice_cut(rest, '\n', &rest), target = slice_cut(rest, '\n', &rest);
    request_begin(&h, slice_cstr(methods[data[0] & 3]), host, target);
    while (rest.n && h.n < FUZZ_FIELDS_MAX) {
        struct slice name = slice_cut(slice_cut(rest, '\n', &rest), ':', &value);
        request_field(&h, name, slice_trim(value));
    }
    const struct plan_listener *ln = &fuzz_plan->listeners[data[0] >> 2 & 1];
    struct plan_hit hit = {0};
    struct naive_hit naive;
    bool found = plan_route(fuzz_plan, ln, &h, false, SLICE(""), &hit);
    MUST(found == naive_find(fuzz_set, &ln->address, &h, &naive));
    if (found) {
        MUST(hit.prefix_len == naive.prefix_len);
        MUST(strcmp(hit.rule->spec->name, naive.rule->name) == 0);
        MUST(slice_ends(slice_cstr(hit.rule->route), slice_cstr(naive.route->name)));
    }
    return 0;
}
