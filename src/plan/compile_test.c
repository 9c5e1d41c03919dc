/* compile_test.c - the compiler and the router: precedence tables after the ideas of Gateway API's conformance tests,
 * random rule sets against the slow oracle of route_naive.h, slots over sequences of plans, and the bounds on memory.
 *
 * A wanted rule is "namespace/route rule-name", or "-" for none. Clusters' policies, Istio's kinds, bytes and calls from inside
 * are in compile_more_test.c.
 */
#include "compile_test.h"
#include "repeat_test.h"

/* xorshift64*: the same sequence for the same seed everywhere. */
static uint64_t chance_state;
static uint32_t chance(uint32_t n)
{
    chance_state ^= chance_state >> 12;
    chance_state ^= chance_state << 25;
    chance_state ^= chance_state >> 27;
    return (uint32_t)(chance_state * 0x2545f4914f6cdd1du >> 33) % n;
}

/* "namespace/route rule" of the rule that a request gets, or "-". Both answers, the plan's and the oracle's, must be one. */
static void route_text(const struct objset *s, const struct plan *p, const struct plan_listener *ln, const char *line, struct buf *out)
{
    static struct h1_head h;
    struct plan_hit hit = {0};
    struct naive_hit naive;
    request_parse(&h, line);
    bool found = plan_route(p, ln, &h, false, SLICE(""), &hit), wanted = naive_find(s, &ln->address, &h, &naive);
    if (found)
        buf_printf(out, "%s %s", hit.rule->route, hit.rule->spec->name ? hit.rule->spec->name : "");
    else
        buf_adds(out, "-");
    struct buf other = {0};
    if (wanted)
        buf_printf(&other, "%s/%s %s", naive.route->ns, naive.route->name, naive.rule->name ? naive.rule->name : "");
    else
        buf_adds(&other, "-");
    if (strcmp(out->p, other.p) != 0 || (found && hit.prefix_len != naive.prefix_len))
        fail_msg("%s: the plan says %s (%u), the oracle %s (%u)", line, out->p, hit.prefix_len, other.p, naive.prefix_len);
    buf_free(&other);
}

struct want {
    const char *request, *rule;
};

static void routes_want(const char *manifests, const struct want *want, size_t n)
{
    struct objset *s = set_read(slice_cstr(manifests));
    struct plan *p = plan_only(s);
    assert_int_equal(p->listeners_n, 1);
    for (size_t i = 0; i < n; i++) {
        struct buf got = {0};
        route_text(s, p, &p->listeners[0], want[i].request, &got);
        if (strcmp(got.p, want[i].rule) != 0)
            fail_msg("%s: got %s, want %s", want[i].request, got.p, want[i].rule);
        buf_free(&got);
    }
    plan_unref(p);
    objset_free(s);
}

/* ---- precedence ----------------------------------------------------------------------------------------------------------- */

static void test_paths(void **state)
{
    static const struct want want[] = {
        {"GET x /", "default/r root"}, {"GET x /other", "default/r root"}, {"OPTIONS x *", "default/r root"},
        {"GET x /api", "default/r exact"}, {"POST x /api?q=1", "default/r exact"}, {"GET x /api/", "default/r prefix"},
        {"GET x /api/x", "default/r prefix"}, {"GET x /apis", "default/r root"}, {"GET x /Api", "default/r root"},
        {"GET x /api/v1", "default/r deep"}, {"GET x /api/v1/", "default/r deep"}, {"GET x /api/v12", "default/r prefix"},
        {"GET x /api/v1/users/7", "default/r deep"}, {"GET x /api//v1", "default/r prefix"}, {"GET x //api", "default/r root"},
        {"GET x /ap", "default/r root"}, {"GET x /a", "default/r root"}, {"GET x /abc/d", "default/r abc"}, {"GET x /abd", "default/r root"},
    };
    routes_want(GATEWAY("gw", LISTENER("http", "")) SERVICE
                ROUTE("name: r", "{name: gw}", "",
                      RULE("root", "{path: {type: PathPrefix, value: /}}") "," RULE("prefix", "{path: {type: PathPrefix, value: /api}}") ","
                      RULE("exact", "{path: {type: Exact, value: /api}}") "," RULE("deep", "{path: {type: PathPrefix, value: /api/v1/}}") ","
                      RULE("abc", "{path: {type: PathPrefix, value: /abc}}")),
                want, COUNT_OF(want));
}

static void test_no_catch_all(void **state)
{
    static const struct want want[] = {{"GET x /", "-"}, {"GET x /a", "default/r a"}, {"GET x /ab", "-"}, {"CONNECT x ", "-"}, {"OPTIONS x *", "-"}};
    routes_want(GATEWAY("gw", LISTENER("http", "")) SERVICE ROUTE("name: r", "{name: gw}", "", RULE("a", "{path: {value: /a}}")), want, COUNT_OF(want));
}

/* Order of criteria below the path: method, headers, query; and what fails falls through to shorter prefixes. */
static void test_predicates(void **state)
{
    static const struct want want[] = {
        {"GET x /a", "default/r plain"}, {"POST x /a", "default/r method"}, {"GET x /a x-v:1", "default/r header"},
        {"GET x /a x-v:1 x-w:2", "default/r headers"}, {"GET x /a X-V:1 x-w:3", "default/r header"}, {"GET x /a x-v:2", "default/r plain"},
        {"POST x /a x-v:1 x-w:2", "default/r method"}, {"GET x /a?q=1", "default/r query"}, {"GET x /a?q=1 x-v:1", "default/r header"},
        {"GET x /a?p=0&q=1", "default/r query"}, {"GET x /a?Q=1", "default/r plain"}, {"GET x /a?q=2&q=1", "default/r plain"},
        {"GET x /a?q=%31", "default/r query"}, {"GET x /a?%71=1", "default/r query"}, {"GET x /a?q=1&r=a+b", "default/r queries"},
        {"GET x /a?r=a%20b&q=1", "default/r queries"}, {"GET x /a?q=1&r=a%2", "default/r query"}, {"PATCH x /a/b", "default/r plain"},
        {"PUT x /a/b", "default/r deeper"}, {"GET x /e", "-"}, {"DELETE x /e", "default/r gone"}, {"GET x /a user-agent:curl", "default/r agent"},
    };
    routes_want(GATEWAY("gw", LISTENER("http", "")) SERVICE
                ROUTE("name: r", "{name: gw}", "",
                      RULE("plain", "{path: {value: /a}}") "," RULE("query", "{path: {value: /a}, queryParams: [{name: q, value: '1'}]}") ","
                      RULE("queries", "{path: {value: /a}, queryParams: [{name: q, value: '1'}, {name: r, value: a b}]}") ","
                      RULE("header", "{path: {value: /a}, headers: [{name: X-V, value: '1'}]}") ","
                      RULE("headers", "{path: {value: /a}, headers: [{name: x-v, value: '1'}, {name: X-W, value: '2'}]}") ","
                      RULE("agent", "{path: {value: /a}, headers: [{name: User-Agent, value: curl}]}") ","
                      RULE("method", "{path: {value: /a}, method: POST}") "," RULE("deeper", "{path: {value: /a/b}, method: PUT}") ","
                      RULE("gone", "{path: {type: Exact, value: /e}, method: DELETE}")),
                want, COUNT_OF(want));
}

static void test_repeated_header(void **state)
{
    static const struct want want[] = {
        {"GET x / t:a t:b", "default/r two"}, {"GET x / t:b t:a", "-"}, {"GET x / t:a", "-"}, {"GET x / t:a,b", "-"}, {"GET x / t:a t:b t:c", "-"},
    };
    routes_want(GATEWAY("gw", LISTENER("http", "")) SERVICE
                ROUTE("name: r", "{name: gw}", "", RULE("two", "{headers: [{name: T, value: 'a, b'}]}")), want, COUNT_OF(want));
}

/* Rules without matches match everything; several matches are alternatives; the first rule of equals wins. */
static void test_rule_order(void **state)
{
    static const struct want want[] = {
        {"GET x /", "default/r first"}, {"GET x /a", "default/r either"}, {"GET x /b/c", "default/r either"}, {"HEAD x /c", "default/r either"}, {"GET x /c", "default/r first"},
    };
    routes_want(GATEWAY("gw", LISTENER("http", "")) SERVICE
                ROUTE("name: r", "{name: gw}", "",
                      "{name: first, backendRefs: [{name: web, port: 80}]}," RULE("second", "{path: {value: /}}") ","
                      RULE("either", "{path: {value: /a}}, {path: {value: /b}}, {method: HEAD}") "," RULE("late", "{path: {value: /a/}}")),
                want, COUNT_OF(want));
}

static void object_created(struct objset *s, const char *name, uint64_t created_ns)
{
    struct object *o = (struct object *)objset_find(s, OBJ_HTTPROUTE, "default", name);
    assert_non_null(o);
    o->created_ns = created_ns;
}

/* Across routes the older wins, then the name; both only after everything else. */
static void test_age_and_name(void **state)
{
    struct objset *s = set_read(slice_cstr(GATEWAY("gw", LISTENER("http", "")) SERVICE
                                           ROUTE("name: b", "{name: gw}", "", RULE("r", "{path: {value: /x}}") "," RULE("m", "{path: {value: /y}, method: GET}"))
                                           ROUTE("name: a", "{name: gw}", "", RULE("r", "{path: {value: /x}}") "," RULE("m", "{path: {value: /y}}"))));
    for (uint64_t a_created = 1; a_created <= 3; a_created++) {
        object_created(s, "a", a_created);
        object_created(s, "b", 2);
        struct plan *p = plan_only(s);
        struct buf x = {0}, y = {0};
        route_text(s, p, &p->listeners[0], "GET h /x", &x);
        route_text(s, p, &p->listeners[0], "GET h /y", &y);
        assert_string_equal(x.p, a_created <= 2 ? "default/a r" : "default/b r");
        assert_string_equal(y.p, "default/b m");
        buf_free(&x);
        buf_free(&y);
        plan_unref(p);
    }
    objset_free(s);
}

/* What the reader does not let through, or fills in, has a meaning all the same: a route without rules matches everything,
 * of several entries for one header the first counts, an expression that does not compile matches nothing. */
static void test_defaults(void **state)
{
    struct objset *s = set_read(slice_cstr(GATEWAY("gw", LISTENER("http", "")) SERVICE
                                           ROUTE("name: bare", "{name: gw}", "bare.com", RULE("r", "{path: {value: /x}}"))
                                           ROUTE("name: twice", "{name: gw}", "twice.com", RULE("r", "{headers: [{name: a, value: '1'}, {name: b, value: '2'}]}"))
                                           ROUTE("name: regex", "{name: gw}", "regex.com", RULE("r", "{path: {value: /x}}"))));
    ((struct object *)objset_find(s, OBJ_HTTPROUTE, "default", "bare"))->route.rules_n = 0;
    objset_find(s, OBJ_HTTPROUTE, "default", "twice")->route.rules[0].matches[0].headers[1].name[0] = 'A';
    objset_find(s, OBJ_HTTPROUTE, "default", "regex")->route.rules[0].matches[0].path_kind = MATCH_REGEX;
    objset_find(s, OBJ_HTTPROUTE, "default", "regex")->route.rules[0].matches[0].path[1] = '(';
    struct plan *p = plan_only(s);
    static struct h1_head h;
    struct plan_hit hit;
    request_parse(&h, "GET bare.com /anything");
    assert_true(plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit));
    assert_non_null(hit.rule->spec);
    assert_int_equal(hit.rule->backends_n, 0);
    request_parse(&h, "GET twice.com / A:1");
    assert_true(plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit));
    request_parse(&h, "GET twice.com / A:2");
    assert_false(plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit));
    request_parse(&h, "GET regex.com /x");
    assert_false(plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit));
    plan_unref(p);
    objset_free(s);
}

/* An empty set and a Gateway nobody attaches to are plans too. */
static void test_empty(void **state)
{
    struct objset *none = objset_new(), *alone = set_read(slice_cstr(GATEWAY("gw", LISTENER("http", ", hostname: a.com"))));
    struct plan *p = plan_only(none);
    assert_int_equal(p->listeners_n + p->clusters_n, 0);
    assert_int_equal(plan_mesh_protocol(p, &(struct addr){.family = ADDR_IP4}), MESH_NONE);
    plan_unref(p);
    p = plan_only(alone);
    struct buf got = {0};
    route_text(alone, p, &p->listeners[0], "GET a.com /", &got);
    buf_clear(&got);
    route_text(alone, p, &p->listeners[0], "GET b.com /", &got);
    assert_string_equal(got.p, "-");
    buf_free(&got);
    plan_unref(p);
    objset_free(none);
    objset_free(alone);
}

/* ---- hosts ---------------------------------------------------------------------------------------------------------------------- */

/* The host decides before the path; within one listener the less specific hosts' rules are still there. */
static void test_hosts(void **state)
{
    static const struct want want[] = {
        {"GET a.example.com /", "default/exact r"}, {"GET A.Example.COM /", "default/exact r"}, {"GET a.example.com. /", "default/exact r"}, {"GET Z.EXAMPLE.COM /", "default/sub r"}, {"GET @.example.com /", "default/wild r"},
        {"GET b.example.com /", "default/wild r"}, {"GET c.b.example.com /", "default/wild r"}, {"GET example.com /", "default/any r"},
        {"GET x.sub.example.com /", "default/sub r"}, {"GET y.x.sub.example.com /", "default/sub r"}, {"GET sub.example.com /", "default/wild r"},
        {"GET a.example.com /only-wild", "default/wild path"}, {"GET a.example.com /only-any", "default/any path"}, {"GET example.org /only-wild", "default/any r"},
        {"GET x.sub.example.com /only-wild", "default/wild path"}, {"GET .example.com /", "default/any r"}, {"GET aexample.com /", "default/any r"},
        {"GET 127.0.0.1 /", "default/any r"}, {"GET [::1] /", "default/any r"}, {"GET  /", "default/any r"}, {"GET . /", "default/any r"},
        {"GET averyveryverylonglabel.averyveryverylonglabel.averyveryverylonglabel.example.com /", "default/wild r"},
    };
    routes_want(GATEWAY("gw", LISTENER("http", "")) SERVICE
                ROUTE("name: any", "{name: gw}", "", RULE("r", "{path: {value: /}, method: GET}") "," RULE("path", "{path: {value: /only-any}, method: GET}"))
                ROUTE("name: exact", "{name: gw}", "a.example.com", RULE("r", "{path: {type: Exact, value: /}}"))
                ROUTE("name: wild", "{name: gw}", "'*.example.com'", RULE("r", "{path: {type: Exact, value: /}}") "," RULE("path", "{path: {value: /only-wild}}"))
                ROUTE("name: sub", "{name: gw}", "'*.sub.example.com', z.example.com, twelve12.com", RULE("r", "{path: {type: Exact, value: /}}")),
                want, COUNT_OF(want));
}

/* A host longer than any DNS name reaches wildcards only, and nothing overflows. */
static void test_long_hosts(void **state)
{
    struct objset *s = set_read(slice_cstr(GATEWAY("gw", LISTENER("http", "")) SERVICE ROUTE("name: wild", "{name: gw}", "'*.example.com'", RULE("r", ""))));
    struct plan *p = plan_only(s);
    for (size_t n = 0; n < 600; n += n < 300 ? 1 : 37) {
        struct buf line = {0}, got = {0};
        buf_adds(&line, "GET ");
        for (size_t i = 0; i < n; i++)
            buf_addc(&line, i % 7 == 3 ? '.' : 'x');
        buf_adds(&line, ".example.com /");
        route_text(s, p, &p->listeners[0], line.p, &got);
        assert_string_equal(got.p, n ? "default/wild r" : "-");
        buf_free(&line);
        buf_free(&got);
    }
    plan_unref(p);
    objset_free(s);
}

/* Gateway API's isolation of listeners: the most specific listener hostname owns the host, whether it has a rule or not. */
static void test_listener_isolation(void **state)
{
    static const struct want want[] = {
        {"GET bar.com /empty", "default/e r"}, {"GET bar.com /wild", "-"}, {"GET x.example.com /empty", "-"}, {"GET x.example.com /wild", "default/w r"},
        {"GET x.example.com /foo", "-"}, {"GET x.foo.example.com /wild", "-"}, {"GET x.foo.example.com /foo", "default/f r"}, {"GET x.foo.example.com /abc", "-"},
        {"GET abc.foo.example.com /foo", "-"}, {"GET abc.foo.example.com /abc", "default/a r"}, {"GET abc.foo.example.com /empty", "-"}, {"GET lonely.net /empty", "-"},
        {"GET foo.example.com /wild", "default/w r"},
    };
#define ALL_HOSTS "bar.com, '*.example.com', '*.foo.example.com', abc.foo.example.com"
    routes_want(GATEWAY("gw", LISTENER("empty", "") "," LISTENER("wild", ", hostname: '*.example.com'") "," LISTENER("foo", ", hostname: '*.foo.example.com'") ","
                        LISTENER("abc", ", hostname: abc.foo.example.com") "," LISTENER("lonely", ", hostname: lonely.net")) SERVICE
                ROUTE("name: e", "{name: gw, sectionName: empty}", ALL_HOSTS, RULE("r", "{path: {value: /empty}}"))
                ROUTE("name: w", "{name: gw, sectionName: wild}", ALL_HOSTS, RULE("r", "{path: {value: /wild}}"))
                ROUTE("name: f", "{name: gw, sectionName: foo}", ALL_HOSTS, RULE("r", "{path: {value: /foo}}"))
                ROUTE("name: a", "{name: gw, sectionName: abc}", ALL_HOSTS, RULE("r", "{path: {value: /abc}}")),
                want, COUNT_OF(want));
}

static void test_hostname_intersection(void **state)
{
    static const struct want want[] = {
        {"GET very.specific.com /s1", "default/s1 r"}, {"GET very.specific.com /s3", "default/s3 r"}, {"GET non.matching.com /s1", "-"},
        {"GET foo.specific.com /s3", "-"}, {"GET foo.wildcard.io /s2", "default/s2 r"}, {"GET foo.bar.wildcard.io /s2", "default/s2 r"},
        {"GET wildcard.io /s2", "-"}, {"GET very.specific.com /s2", "-"}, {"GET foo.anotherwildcard.io /s4", "default/s4 r"}, {"GET anotherwildcard.io /s4", "-"},
        {"GET specific.but.wrong.com /s5", "-"}, {"GET very.specific.com /both", "default/s1 both"},
    };
    routes_want(GATEWAY("gw", LISTENER("l1", ", hostname: very.specific.com") "," LISTENER("l2", ", hostname: '*.wildcard.io'") ","
                        LISTENER("l3", ", hostname: '*.anotherwildcard.io'")) SERVICE
                ROUTE("name: s1", "{name: gw}", "non.matching.com, very.specific.com", RULE("r", "{path: {value: /s1}}") "," RULE("both", "{path: {value: /both}}"))
                ROUTE("name: s2", "{name: gw}", "non.matching.io, '*.wildcard.io'", RULE("r", "{path: {value: /s2}}"))
                ROUTE("name: s3", "{name: gw}", "'*.specific.com'", RULE("r", "{path: {value: /s3}}") "," RULE("both", "{path: {type: Exact, value: /both}}"))
                ROUTE("name: s4", "{name: gw}", "'*.anotherwildcard.io'", RULE("r", "{path: {value: /s4}}"))
                ROUTE("name: s5", "{name: gw}", "specific.but.wrong.com, wildcard.io", RULE("r", "{path: {value: /s5}}")),
                want, COUNT_OF(want));
}

/* ---- attachment --------------------------------------------------------------------------------------------------------------------- */

static void test_namespaces(void **state)
{
    static const struct want want[] = {
        {"GET open.com /other", "team/r r"}, {"GET open.com /own", "default/r r"}, {"GET shut.com /other", "-"}, {"GET shut.com /own", "default/r r"}, {"GET open.com /stray", "-"},
    };
    routes_want(GATEWAY("gw", LISTENER("open", ", hostname: open.com" FROM_ALL) "," LISTENER("shut", ", hostname: shut.com")) SERVICE
                ROUTE("name: r", "{name: gw}", "", RULE("r", "{path: {value: /own}}"))
                ROUTE("name: r, namespace: team", "{name: gw, namespace: default}", "", RULE("r", "{path: {value: /other}}"))
                ROUTE("name: stray, namespace: team", "{name: gw}", "", RULE("r", "{path: {value: /stray}}")),
                want, COUNT_OF(want));
}

#define SELECT(selector) ", allowedRoutes: {namespaces: {from: Selector, selector: {" selector "}}}"
#define SPACE(name, labels) "---\n{apiVersion: v1, kind: Namespace, metadata: {name: " name ", labels: {" labels "}}}\n"

/* Namespaces by their labels, and by their names, which every one has as a label that none can change. */
static void test_namespaces_selected(void **state)
{
    static const struct want want[] = {
        {"GET team.com /team", "team/r r"}, {"GET team.com /own", "-"}, {"GET team.com /liar", "-"}, {"GET named.com /own", "default/r r"}, {"GET named.com /team", "-"}, {"GET named.com /liar", "-"},
        {"GET all.com /own", "default/r r"}, {"GET all.com /team", "team/r r"}, {"GET not.com /own", "default/r r"}, {"GET not.com /team", "-"}, {"GET not.com /liar", "liar/r r"},
    };
    routes_want(GATEWAY("gw", LISTENER("team", ", hostname: team.com" SELECT("matchLabels: {team: a}")) "," LISTENER("named", ", hostname: named.com" SELECT("matchLabels: {kubernetes.io/metadata.name: default}")) ","
                              LISTENER("all", ", hostname: all.com" SELECT("")) "," LISTENER("not", ", hostname: not.com" SELECT("matchExpressions: [{key: team, operator: NotIn, values: [a, b]}]"))) SERVICE
                SPACE("team", "team: a") SPACE("liar", "team: c, kubernetes.io/metadata.name: default")
                ROUTE("name: r", "{name: gw}", "", RULE("r", "{path: {value: /own}}"))
                ROUTE("name: r, namespace: team", "{name: gw, namespace: default}", "", RULE("r", "{path: {value: /team}}"))
                ROUTE("name: r, namespace: liar", "{name: gw, namespace: default}", "", RULE("r", "{path: {value: /liar}}")),
                want, COUNT_OF(want));
}

static void test_sections_and_ports(void **state)
{
    struct objset *s = set_read(slice_cstr(
        GATEWAY("gw", "{name: one, protocol: HTTP, port: 80}, {name: two, protocol: HTTP, port: 81}, {name: three, protocol: HTTP, port: 82}") SERVICE
        ROUTE("name: section", "{name: gw, sectionName: two}", "", RULE("r", "{path: {value: /section}}"))
        ROUTE("name: port", "{name: gw, port: 82}", "", RULE("r", "{path: {value: /port}}"))
        ROUTE("name: both", "{name: gw, sectionName: one, port: 82}, {name: gw, sectionName: three}", "", RULE("r", "{path: {value: /both}}"))
        ROUTE("name: all", "{name: gw}, {name: gw, port: 80}", "", RULE("r", "{path: {value: /all}}"))));
    struct plan *p = plan_only(s);
    assert_int_equal(p->listeners_n, 3);
    static const struct { uint16_t port; const char *request, *rule; } want[] = {
        {80, "GET x /section", "-"}, {81, "GET x /section", "default/section r"}, {82, "GET x /section", "-"},
        {80, "GET x /port", "-"}, {82, "GET x /port", "default/port r"}, {80, "GET x /both", "-"}, {82, "GET x /both", "default/both r"},
        {80, "GET x /all", "default/all r"}, {81, "GET x /all", "default/all r"}, {82, "GET x /all", "default/all r"},
    };
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        struct buf got = {0};
        route_text(s, p, listener_at(p, want[i].port), want[i].request, &got);
        assert_string_equal(got.p, want[i].rule);
        buf_free(&got);
    }
    plan_unref(p);
    objset_free(s);
}

/* FNV-1a of "127.0.0.1:80" without bits 61 to 63: an engine of another version must name the socket the same. */
#define TOKEN_LOCAL_80 0x07f2488132eb45c4u

/* Two Gateways on one address share its listener; a third address is another. Tokens are stable and distinct. */
static void test_shared_address(void **state)
{
    struct objset *s = set_read(slice_cstr(
        GATEWAY("g1", LISTENER("http", ", hostname: a.com") "," LISTENER("rest", "")) GATEWAY("g2", LISTENER("http", ", hostname: a.com")) SERVICE
        "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g3}, spec: {gatewayClassName: weir, "
        "addresses: [{type: IPAddress, value: 127.0.0.2}, {type: IPAddress, value: 127.0.0.1}], listeners: [{name: x, protocol: HTTP, port: 80, hostname: c.com}]}}\n"
        ROUTE("name: r1", "{name: g1}", "", RULE("r", "{path: {value: /1}}")) ROUTE("name: r2", "{name: g2}", "", RULE("r", "{path: {value: /2}}"))
        ROUTE("name: r3", "{name: g3}", "", RULE("r", ""))));
    struct plan *p = plan_only(s), *again = plan_only(s);
    assert_int_equal(p->listeners_n, 2);
    static const struct { uint32_t ln; const char *request, *rule; } want[] = {
        {0, "GET a.com /1", "default/r1 r"}, {0, "GET a.com /2", "default/r2 r"}, {0, "GET b.com /1", "default/r1 r"}, {0, "GET b.com /2", "-"},
        {0, "GET c.com /1", "default/r3 r"}, {1, "GET c.com /1", "default/r3 r"}, {1, "GET a.com /1", "-"},
    };
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        struct buf got = {0};
        route_text(s, p, &p->listeners[want[i].ln], want[i].request, &got);
        assert_string_equal(got.p, want[i].rule);
        buf_free(&got);
    }
    assert_string_equal(p->listeners[0].gateway, "default/g1");
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(p->listeners[i].token, again->listeners[i].token);
        assert_true(p->listeners[i].token > 0 && p->listeners[i].token >> 63 == 0);
        assert_ptr_equal(plan_listener_find(p, p->listeners[i].token), &p->listeners[i]);
    }
    assert_int_not_equal(p->listeners[0].token, p->listeners[1].token);
    assert_int_equal(p->listeners[0].token, TOKEN_LOCAL_80);
    assert_null(plan_listener_find(p, 12345));
    plan_unref(p);
    plan_unref(again);
    objset_free(s);
}

/* ---- clusters and the mesh ------------------------------------------------------------------------------------------------------------ */

static struct kv label_web[] = {{"app", "web", 3}, {"tier", "front", 5}}, label_db[] = {{"app", "db", 2}};
static struct kv label_back[] = {{"app", "web", 3}, {"tier", "back", 4}}, label_other[] = {{"app", "other", 5}, {"tier", "front", 5}};
static const struct kvs labels_web = {label_web, 2}, labels_db = {label_db, 1}, labels_back = {label_back, 2}, labels_other = {label_other, 2};
static struct container_port port_named[] = {{"http", 8080}, {"admin", 9000}};

static struct live_endpoint live(uint64_t id, const char *ns, const char *name, const struct kvs *labels)
{
    return (struct live_endpoint){.replica_id = id, .ns = ns, .deployment = "web", .name = name, .labels = labels, .ports = port_named, .ports_n = 2};
}

static const char cluster_manifests[] =
    "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, "
    "{name: raw, port: 81, targetPort: 7000}, {name: same, port: 82}, {name: lost, port: 83, targetPort: nowhere}]}}\n---\n"
    "{apiVersion: v1, kind: Service, metadata: {name: idle}, spec: {selector: {app: idle}, ports: [{port: 80}]}}\n---\n"
    "{apiVersion: v1, kind: Service, metadata: {name: none}, spec: {selector: {app: none}, ports: [{port: 80}]}}\n---\n"
    "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: team}, spec: {selector: {app: web, tier: front}, ports: [{port: 80}]}}\n---\n"
    "{apiVersion: v1, kind: Service, metadata: {name: ext}, spec: {type: ExternalName, externalName: api.example.com, ports: [{name: a, port: 80}, {name: b, port: 8443}]}}\n---\n"
    "{apiVersion: apps/v1, kind: Deployment, metadata: {name: sleeper}, spec: {selector: {matchLabels: {app: idle}}, template: {metadata: {labels: {app: idle, extra: label}}, "
    "spec: {containers: [{name: c, image: none, command: [/bin/true]}]}}}}\n"
    GATEWAY("gw", LISTENER("http", ""))
    ROUTE("name: r", "{name: gw}", "",
          "{name: r, timeouts: {request: 2s, backendRequest: 500ms}, backendRefs: [{name: web, port: 80, weight: 3}, {name: missing, port: 80}, {name: web, port: 99}, "
          "{name: ext, port: 8443, weight: 0, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-b]}}]}], "
          "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: one}]}}]}");

static uint32_t ip4_of(const struct plan_endpoint *ep)
{
    struct addr a = plan_endpoint_addr(ep);
    return addr_ip4_host(&a);
}

static void endpoints_check(const struct plan *p)
{
    const struct plan_cluster *web = cluster_find(p, "default", "web", 80);
    assert_int_equal(web->eps_n, 2);
    assert_string_equal(web->eps[0].name, "web-1");
    assert_int_equal(web->eps[0].address.port, 8080);
    assert_int_equal(ip4_of(&web->eps[0]), 0x7f000001);
    assert_int_equal(web->eps[1].replica_id, 12);
    assert_int_equal(ip4_of(&web->eps[1]), 0x7f000005);
    assert_string_equal(web->workload, "web");
    assert_string_equal(web->host, "web.default.svc.cluster.local");
    assert_int_equal(cluster_find(p, "default", "web", 81)->eps[0].address.port, 7000);
    assert_int_equal(cluster_find(p, "default", "web", 82)->eps[0].address.port, 82);
    assert_int_equal(cluster_find(p, "default", "web", 83)->eps_n, 0);
    assert_int_equal(cluster_find(p, "default", "idle", 80)->eps_n, 0);
    assert_string_equal(cluster_find(p, "default", "idle", 80)->workload, "sleeper");
    assert_string_equal(cluster_find(p, "default", "none", 80)->workload, "unknown");
    assert_int_equal(cluster_find(p, "team", "web", 80)->eps_n, 1);
    assert_int_equal(cluster_find(p, "team", "web", 80)->eps[0].replica_id, 14);
    const struct plan_cluster *ext = cluster_find(p, "default", "ext", 80);
    assert_string_equal(ext->authority, "api.example.com");
    assert_int_equal(ext->eps_n, 1);
    assert_string_equal(ext->eps[0].name, "192.0.2.7:80");
    assert_int_equal(ext->eps[0].replica_id, 0);
    assert_string_equal(cluster_find(p, "default", "ext", 8443)->authority, "api.example.com:8443");
    assert_null(web->authority);
}

static void rule_check(const struct plan *p)
{
    static struct h1_head h;
    struct plan_hit hit;
    request_parse(&h, "GET x /");
    assert_true(plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit));
    const struct plan_rule *r = hit.rule;
    assert_int_equal(r->backends_n, 4);
    assert_ptr_equal(r->backends[0].cluster, cluster_find(p, "default", "web", 80));
    assert_null(r->backends[1].cluster);
    assert_null(r->backends[2].cluster);
    assert_ptr_equal(r->backends[3].cluster, cluster_find(p, "default", "ext", 8443));
    assert_int_equal(r->weight_sum, 5);
    assert_int_equal(r->timeout_ms, 2000);
    assert_int_equal(r->backend_timeout_ms, 500);
    assert_string_equal(r->req->set.items[0].key, "x-a");
    assert_null(r->resp);
    assert_null(r->backends[0].req);
    assert_string_equal(r->backends[3].req->remove[0], "x-b");
    assert_string_equal(p->route_names[r->slot], "default/r");
}

static void mesh_check(const struct plan *p, const struct addr *web)
{
    struct addr a = *web;
    a.port = 81;
    struct plan_hit hit;
    assert_true(plan_route_mesh(p, &a, NULL, NULL, &hit));
    const struct plan_rule *r = hit.rule;
    assert_string_equal(r->route, "");
    assert_int_equal(r->weight_sum, 1);
    assert_null(r->spec);
    assert_ptr_equal(r->backends[0].cluster, cluster_find(p, "default", "web", 81));
    a.port = 84;
    assert_int_equal(plan_mesh_protocol(p, &a), MESH_NONE);
    assert_int_equal(plan_mesh_protocol(p, &(struct addr){.family = ADDR_IP6}), MESH_NONE);
}

/* An ExternalName without ports has those that routes give, each once; the mesh, too. Nobody gives any to "idle". */
static void test_bare_external_name(void **state)
{
    static const char text[] =
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}\n---\n"
        "{apiVersion: v1, kind: Service, metadata: {name: bare}, spec: {type: ExternalName, externalName: api.example.com}}\n---\n"
        "{apiVersion: v1, kind: Service, metadata: {name: bare, namespace: team}, spec: {type: ExternalName, externalName: api.example.com, ports: []}}\n---\n"
        "{apiVersion: v1, kind: Service, metadata: {name: idle}, spec: {type: ExternalName, externalName: api.example.com}}\n---\n"
        "{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: TCPRoute, metadata: {name: t}, spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: bare, port: 5432}]}]}}\n---\n"
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v}, spec: {hosts: [web], http: [{route: [{destination: {host: bare, port: {number: 81}}, weight: 1}, "
        "{destination: {host: bare.team}, weight: 1}]}]}}\n"
        GATEWAY("gw", LISTENER("http", ""))
        ROUTE("name: r", "{name: gw}", "", "{backendRefs: [{name: bare, port: 8443}, {name: bare, port: 80}, {name: bare, port: 8443}, {name: bare, namespace: team, port: 80}], "
              "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: bare, port: 90}}}]}");
    static const uint16_t given[] = {80, 81, 90, 5432, 8443};
    struct objset *s = set_read(slice_cstr(text));
    objset_addresses(s);
    struct addr a = objset_find(s, OBJ_SERVICE, "default", "bare")->svc.address;
    struct plan_memory *m = plan_memory_new();
    struct live_address ext = {"default", "bare", addr_ip4(0xc0000207, 0)};
    struct plan *p = plan_compile(m, s, NULL, 0, &ext, 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->clusters_n; i++)
        n += strcmp(p->clusters[i].service, "web") != 0;
    assert_int_equal(n, COUNT_OF(given));
    for (size_t i = 0; i < COUNT_OF(given); i++) {
        const struct plan_cluster *cl = cluster_find(p, "default", "bare", given[i]);
        assert_non_null(cl);
        assert_int_equal(cl->eps_n, 1);
        assert_int_equal(cl->eps[0].address.port, given[i]);
        a.port = given[i];
        assert_int_equal(plan_mesh_protocol(p, &a), MESH_HTTP);
    }
    assert_string_equal(cluster_find(p, "default", "bare", 8443)->authority, "api.example.com:8443");
    static struct h1_head h;
    struct plan_hit hit;
    request_parse(&h, "GET x /");
    assert_true(plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit));
    assert_ptr_equal(hit.rule->backends[0].cluster, cluster_find(p, "default", "bare", 8443));
    assert_null(hit.rule->backends[3].cluster); /* not granted */
    assert_int_equal(hit.rule->mirrors_n, 1);
    plan_unref(p);
    plan_memory_free(m);
    objset_free(s);
}

/* Everything in the plan stays right when the set and the endpoints it came from are gone. */
static void test_clusters_and_survival(void **state)
{
    struct objset *s = set_read(slice_cstr(cluster_manifests));
    objset_addresses(s);
    struct live_endpoint *eps = mem_new(MEM_MISC, 7 * sizeof *eps);
    eps[0] = live(11, "default", "web-1", &labels_web);
    eps[1] = live(12, "default", "web-2", &labels_web);
    eps[1].ip = "127.0.0.5";
    eps[2] = live(13, "default", "db-1", &labels_db);
    eps[3] = live(14, "team", "web-3", &labels_web);
    eps[4] = live(15, "other", "web-4", &labels_web);
    eps[5] = live(16, "team", "back-1", &labels_back); /* each has one label of what team/web selects, not both */
    eps[6] = live(17, "team", "other-1", &labels_other);
    struct live_address ext = {"default", "ext", addr_ip4(0xc0000207, 0)};
    struct plan_memory *m = plan_memory_new();
    struct plan *p = plan_compile(m, s, eps, 7, &ext, 1);
    struct addr web = objset_find(s, OBJ_SERVICE, "default", "web")->svc.address;
    mem_free(eps);
    objset_free(s);
    plan_memory_free(m);
    assert_ptr_equal(plan_ref(p), p);
    plan_unref(p);
    endpoints_check(p);
    rule_check(p);
    mesh_check(p, &web);
    plan_unref(p);
    plan_unref(NULL);
    plan_memory_free(NULL);
}

/* ---- slots ------------------------------------------------------------------------------------------------------------------------------- */

static const char slot_manifests[] =
    "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}\n---\n"
    "{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {selector: {app: db}, ports: [{port: 80}]}}\n";

static struct plan *slots_plan(struct plan_memory *m, const struct objset *s, uint64_t first_id, size_t n)
{
    struct live_endpoint eps[16];
    assert_true(n <= COUNT_OF(eps));
    for (size_t i = 0; i < n; i++)
        eps[i] = live(first_id + i, "default", "web-x", &labels_web);
    return plan_compile(m, s, eps, n, NULL, 0);
}

static const struct plan_endpoint *web_ep(const struct plan *p, uint32_t i)
{
    return &cluster_find(p, "default", "web", 80)->eps[i];
}

/* Plans let go at once: a slot rests for one whole plan, then is reused; ids never are. */
static void test_slots_reuse(void **state)
{
    struct objset *s = set_read(slice_cstr(slot_manifests));
    struct plan_memory *m = plan_memory_new();
    struct plan *p1 = slots_plan(m, s, 1, 2);
    uint32_t slot0 = web_ep(p1, 0)->slot, slot1 = web_ep(p1, 1)->slot;
    uint64_t id0 = web_ep(p1, 0)->id, id1 = web_ep(p1, 1)->id;
    assert_int_not_equal(slot0, slot1);
    assert_int_equal(p1->endpoint_slots, 2);
    plan_unref(p1);
    struct plan *p2 = slots_plan(m, s, 2, 2); /* 1 leaves, 3 comes: not into the slot of 1 */
    assert_int_equal(web_ep(p2, 0)->slot, slot1);
    assert_int_equal(web_ep(p2, 0)->id, id1);
    assert_int_equal(web_ep(p2, 1)->slot, 2);
    assert_int_equal(p2->endpoint_slots, 3);
    uint64_t id2 = web_ep(p2, 1)->id;
    plan_unref(p2);
    struct plan *p3 = slots_plan(m, s, 3, 2); /* 2 leaves, 4 comes: into the slot of 1, which p2 did not have */
    assert_int_equal(web_ep(p3, 0)->id, id2);
    assert_int_equal(web_ep(p3, 1)->slot, slot0);
    assert_int_equal(p3->endpoint_slots, 3);
    assert_true(web_ep(p3, 1)->id > id2 && id2 > id1 && id1 > id0);
    plan_unref(p3);
    struct plan *p4 = slots_plan(m, s, 2, 1); /* 2 comes back: another endpoint */
    assert_true(web_ep(p4, 0)->id > id2 + 1);
    plan_unref(p4);
    plan_memory_free(m);
    objset_free(s);
}

/* Somebody still holds the plan in which the old owner was: its slot stays free for as long. */
static void test_slots_held(void **state)
{
    struct objset *s = set_read(slice_cstr(slot_manifests));
    struct plan_memory *m = plan_memory_new();
    struct plan *held = slots_plan(m, s, 1, 1);
    for (uint64_t i = 2; i < 6; i++)
        plan_unref(slots_plan(m, s, i, 1));
    struct plan *p = slots_plan(m, s, 6, 1);
    assert_int_not_equal(web_ep(p, 0)->slot, web_ep(held, 0)->slot);
    plan_unref(p);
    plan_unref(held);
    p = slots_plan(m, s, 7, 1);
    assert_int_equal(web_ep(p, 0)->slot, 0);
    plan_memory_free(m); /* before the last plan goes */
    plan_unref(p);
    objset_free(s);
}

/* Clusters and routes keep their slots over absence as long as nobody else took them. */
static void test_slots_clusters(void **state)
{
    struct objset *s = set_read(slice_cstr(slot_manifests)), *less = objset_copy(s);
    assert_true(objset_remove(less, OBJ_SERVICE, "default", "db"));
    struct plan_memory *m = plan_memory_new();
    struct plan *p1 = slots_plan(m, s, 1, 1), *p2 = slots_plan(m, less, 1, 1), *p3 = slots_plan(m, s, 1, 1);
    assert_int_equal(cluster_find(p1, "default", "web", 80)->slot, cluster_find(p2, "default", "web", 80)->slot);
    assert_int_equal(cluster_find(p1, "default", "db", 80)->slot, cluster_find(p3, "default", "db", 80)->slot);
    assert_int_equal(web_ep(p1, 0)->id, web_ep(p3, 0)->id);
    assert_int_equal(p3->cluster_slots, 2);
    assert_int_equal(p3->generation, 3);
    plan_unref(p1);
    plan_unref(p2);
    plan_unref(p3);
    plan_memory_free(m);
    objset_free(s);
    objset_free(less);
}

/* Random comings and goings, plans held for random times. While a plan is held, a slot in it means the same endpoint as in
 * every other plan that is held; and no slot passes from one endpoint to another from one plan to the next. */
static void test_slots_random(void **state)
{
    enum { HELD = 6, REPLICAS = 12, PLANS = 600 };
    struct objset *s = set_read(slice_cstr(slot_manifests));
    struct plan_memory *m = plan_memory_new();
    struct plan *held[HELD] = {0};
    uint64_t owner_before[128] = {0};
    uint32_t top = 0;
    chance_state = 77;
    for (int round = 0; round < PLANS; round++) {
        struct live_endpoint eps[REPLICAS];
        uint64_t owner[128] = {0};
        size_t n = 0;
        for (uint64_t r = 1; r <= REPLICAS; r++)
            if (chance(4))
                eps[n++] = live(r, "default", "web-x", &labels_web);
        struct plan *p = plan_compile(m, s, eps, n, NULL, 0);
        assert_true(p->endpoint_slots <= COUNT_OF(owner) && p->endpoint_slots >= top);
        top = p->endpoint_slots;
        for (uint32_t i = 0; i < n; i++) {
            const struct plan_endpoint *ep = web_ep(p, i);
            assert_int_equal(owner[ep->slot], 0);
            owner[ep->slot] = ep->id;
            assert_true(!owner_before[ep->slot] || owner_before[ep->slot] == ep->id);
            for (int k = 0; k < HELD; k++)
                for (uint32_t j = 0; held[k] && j < cluster_find(held[k], "default", "web", 80)->eps_n; j++)
                    assert_true(web_ep(held[k], j)->slot != ep->slot || web_ep(held[k], j)->id == ep->id);
        }
        memcpy(owner_before, owner, sizeof owner);
        uint32_t place = chance(HELD);
        plan_unref(held[place]);
        held[place] = chance(3) ? p : NULL;
        if (!held[place])
            plan_unref(p);
    }
    assert_true(top <= (HELD + 2) * REPLICAS); /* no more than all that held plans and the last two have */
    for (int k = 0; k < HELD; k++)
        plan_unref(held[k]);
    plan_memory_free(m);
    objset_free(s);
}

/* ---- addresses and names ------------------------------------------------------------------------------------------------------------------- */

static void test_addresses(void **state)
{
    struct buf text = {0};
    for (int i = 0; i < 3000; i++)
        buf_printf(&text, "---\n{apiVersion: v1, kind: Service, metadata: {name: s%d}, spec: {selector: {a: b}, ports: [{port: 80}]}}\n", i);
    struct objset *s = set_read(buf_slice(&text)), *again = set_read(buf_slice(&text));
    struct object *kept = (struct object *)objset_find(s, OBJ_SERVICE, "default", "s7");
    struct object *wrong = (struct object *)objset_find(s, OBJ_SERVICE, "default", "s8");
    kept->svc.address = addr_ip4(0x7f800001, 0);
    wrong->svc.address = addr_ip4(0x0a000001, 0);
    objset_addresses(s);
    objset_addresses(again);
    struct table seen = {0};
    size_t same = 0;
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        uint32_t ip = addr_ip4_host(&o->svc.address);
        assert_true(ip >= 0x7f800000u && ip <= 0x7fffffffu && (ip & 0xff) != 0 && (ip & 0xff) != 255);
        assert_null(table_put(&seen, slice_of((const char *)&ip, 4), (void *)o));
        same += ip == addr_ip4_host(&objset_at(again, i)->svc.address);
    }
    assert_int_equal(addr_ip4_host(&kept->svc.address), 0x7f800001);
    assert_true(same >= 2998);
    table_fini(&seen);
    objset_free(s);
    objset_free(again);
    buf_free(&text);
}

static void test_hosts_file(void **state)
{
    struct objset *s = set_read(SLICE("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {a: b}, ports: [{port: 80}]}}\n---\n"
                                      "{apiVersion: v1, kind: Service, metadata: {name: b, namespace: team}, spec: {type: ExternalName, externalName: x.org, ports: [{port: 80}]}}\n"));
    ((struct object *)objset_find(s, OBJ_SERVICE, "default", "a"))->svc.address = addr_ip4(0x7f800102, 0);
    struct buf before = {0}, own = {0}, other = {0};
    objset_hosts(s, "team", &before);
    assert_string_equal(before.p, "127.0.0.1 localhost\n127.128.1.2 a.default.svc.cluster.local a.default.svc a.default\n");
    ((struct object *)objset_find(s, OBJ_SERVICE, "team", "b"))->svc.address = addr_ip4(0x7f900304, 0);
    objset_hosts(s, "default", &own);
    assert_string_equal(own.p, "127.0.0.1 localhost\n127.128.1.2 a.default.svc.cluster.local a.default.svc a.default a\n"
                               "127.144.3.4 b.team.svc.cluster.local b.team.svc b.team\n");
    objset_hosts(s, "team", &other);
    assert_string_equal(other.p, "127.0.0.1 localhost\n127.128.1.2 a.default.svc.cluster.local a.default.svc a.default\n"
                                 "127.144.3.4 b.team.svc.cluster.local b.team.svc b.team b\n");
    buf_free(&before);
    buf_free(&own);
    buf_free(&other);
    objset_free(s);
}

/* ---- random sets against the oracle ----------------------------------------------------------------------------------------------------------- */

static const char *const hosts_pool[] = {"a.com", "b.a.com", "c.b.a.com", "*.a.com", "*.b.a.com", "*.com", "d.net", "*.net"};
static const char *const paths_pool[] = {"/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/abc/d", "/b", "/a/bc", "/A/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i", "/j"};
static const char *const methods_pool[] = {"GET", "POST", "DELETE"};

static void random_pairs(struct buf *b, const char *field, const char *const names[2])
{
    uint32_t mask = chance(4);
    buf_printf(b, ", %s: [", field);
    for (uint32_t i = 0, n = 0; i < 2; i++)
        if (mask >> i & 1)
            buf_printf(b, "%s{name: %s, value: '%u'}", n++ ? ", " : "", names[i], chance(2));
    buf_addc(b, ']');
}

/* Expressions in the syntax that PCRE2 and POSIX have in common. */
static const char *const regexes_pool[] = {"/a", "/a/.*", "/[ab]/?.*", "/(a|b)(/.*)?", ".*c", "/a(/b)?", "/.*", "/[a-c]{1,2}"};

static void random_match(struct buf *b)
{
    static const char *const headers[2] = {"X-One", "Accept"}, *const queries[2] = {"p", "q"};
    uint32_t kind = chance(8);
    if (kind == 0)
        buf_printf(b, "{path: {type: RegularExpression, value: '%s'}", regexes_pool[chance(COUNT_OF(regexes_pool))]);
    else
        buf_printf(b, "{path: {type: %s, value: %s}", kind < 3 ? "Exact" : "PathPrefix", paths_pool[chance(COUNT_OF(paths_pool))]);
    if (chance(3) == 0)
        buf_printf(b, ", method: %s", methods_pool[chance(3)]);
    if (chance(3) == 0)
        random_pairs(b, "headers", headers);
    else if (chance(8) == 0)
        buf_printf(b, ", headers: [{name: X-One, type: RegularExpression, value: '%s'}]", chance(2) ? "[01]" : "1(, 1)*");
    if (chance(3) == 0)
        random_pairs(b, "queryParams", queries);
    else if (chance(8) == 0)
        buf_adds(b, ", queryParams: [{name: q, type: RegularExpression, value: '[1-9]'}]");
    buf_addc(b, '}');
}

static void random_gateway(struct buf *b, uint32_t i)
{
    buf_printf(b, "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g%u, namespace: n%u}, spec: {gatewayClassName: weir, listeners: [", i, chance(2));
    for (uint32_t n = 1 + chance(4), from = chance(COUNT_OF(hosts_pool) + 1), j = 0; j < n; j++) { /* hostnames differ within one Gateway, as they must */
        uint32_t host = (from + j) % (COUNT_OF(hosts_pool) + 1);
        buf_printf(b, "%s{name: l%u, protocol: HTTP, port: %u", j ? ", " : "", j, 80 + chance(2));
        if (host < COUNT_OF(hosts_pool))
            buf_printf(b, ", hostname: '%s'", hosts_pool[host]);
        buf_printf(b, "%s}", chance(3) ? FROM_ALL : "");
    }
    buf_adds(b, "]}}\n");
}

static void random_parent(struct buf *b)
{
    buf_printf(b, "{name: g%u", chance(2));
    if (chance(3))
        buf_printf(b, ", namespace: n%u", chance(2));
    if (chance(4) == 0)
        buf_printf(b, ", sectionName: l%u", chance(3));
    if (chance(5) == 0)
        buf_printf(b, ", port: %u", 80 + chance(2));
    buf_addc(b, '}');
}

static void random_route(struct buf *b, uint32_t i)
{
    buf_printf(b, "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r%u, namespace: n%u}, spec: {parentRefs: [", i, chance(2));
    random_parent(b);
    if (chance(2)) {
        buf_adds(b, ", ");
        random_parent(b);
    }
    buf_adds(b, "], hostnames: [");
    for (uint32_t n = chance(4), j = 0, from = chance(8); j < n; j++)
        buf_printf(b, "%s'%s'", j ? ", " : "", hosts_pool[(from + j) % COUNT_OF(hosts_pool)]);
    buf_adds(b, "], rules: [");
    for (uint32_t n = 1 + chance(4), j = 0; j < n; j++) {
        buf_printf(b, "%s{name: rule%u, matches: [", j ? ", " : "", j);
        for (uint32_t m = chance(4), k = 0; k < m; k++) {
            buf_adds(b, k ? ", " : "");
            random_match(b);
        }
        buf_adds(b, "]}");
    }
    buf_adds(b, "]}}\n");
}

/* A StringMatch of Istio over one of the values. */
static void random_string(struct buf *b, const char *value)
{
    static const char *const kinds[] = {"exact", "prefix", "exact", "regex"};
    buf_printf(b, "{%s: '%s'}", kinds[chance(4)], value);
}

static void random_istio_match(struct buf *b)
{
    static const char *const kinds[] = {"exact", "prefix", "prefix"};
    buf_addc(b, '{');
    if (chance(5)) {
        if (chance(5) == 0)
            buf_printf(b, "uri: {regex: '%s'}", regexes_pool[chance(COUNT_OF(regexes_pool))]);
        else
            buf_printf(b, "uri: {%s: %s}", kinds[chance(3)], paths_pool[chance(COUNT_OF(paths_pool))]);
        if (chance(6) == 0)
            buf_adds(b, ", ignoreUriCase: true");
    } else {
        buf_adds(b, "scheme: {exact: http}");
    }
    if (chance(5) == 0)
        buf_printf(b, ", method: {%s: %s}", kinds[chance(2)], chance(2) ? "GET" : "PO");
    if (chance(5) == 0) {
        buf_adds(b, ", headers: {x-one: ");
        random_string(b, chance(2) ? "1" : "0");
        buf_printf(b, "}");
    }
    if (chance(5) == 0) {
        buf_adds(b, ", withoutHeaders: {accept: ");
        random_string(b, "1");
        buf_printf(b, "}");
    }
    if (chance(5) == 0) {
        buf_adds(b, ", queryParams: {q: ");
        random_string(b, "1");
        buf_printf(b, "}");
    }
    if (chance(8) == 0)
        buf_printf(b, ", authority: {prefix: %s}", chance(2) ? "a" : "b.");
    if (chance(8) == 0)
        buf_printf(b, ", port: %u", 80 + chance(2));
    if (chance(8) == 0)
        buf_printf(b, ", gateways: [n%u/i%u]", chance(2), chance(2));
    if (chance(12) == 0)
        buf_adds(b, ", sourceLabels: {app: a}");
    buf_addc(b, '}');
}

static void random_istio_gateway(struct buf *b, uint32_t i)
{
    buf_printf(b, "---\n{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: i%u, namespace: n%u}, spec: {selector: {istio: x}, servers: [", i, chance(2));
    for (uint32_t n = 1 + chance(3), from = chance(COUNT_OF(hosts_pool) + 1), j = 0; j < n; j++) {
        uint32_t host = (from + j) % (COUNT_OF(hosts_pool) + 1);
        static const char *const spaces[] = {"", "*/", "./", ""};
        buf_printf(b, "%s{port: {number: %u, name: http-%u, protocol: HTTP}, hosts: ['%s%s']}", j ? ", " : "", 80 + chance(2), j, spaces[chance(4)], host < COUNT_OF(hosts_pool) ? hosts_pool[host] : "*");
    }
    buf_adds(b, "]}}\n");
}

static void random_virtual(struct buf *b, uint32_t i)
{
    buf_printf(b, "---\n{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v%u, namespace: n%u}, spec: {gateways: [n%u/i0, i1], hosts: [", i, chance(2), chance(2));
    for (uint32_t n = 1 + chance(3), j = 0, from = chance(COUNT_OF(hosts_pool) + 1); j < n; j++) {
        uint32_t host = (from + j) % (COUNT_OF(hosts_pool) + 1);
        buf_printf(b, "%s'%s'", j ? ", " : "", host < COUNT_OF(hosts_pool) ? hosts_pool[host] : "*");
    }
    buf_adds(b, "], http: [");
    for (uint32_t n = 1 + chance(6), j = 0; j < n; j++) {
        buf_printf(b, "%s{name: rule%u, route: [{destination: {host: web}}]", j ? ", " : "", j);
        uint32_t m = chance(5) ? 1 + chance(3) : 0;
        buf_adds(b, m ? ", match: [" : "");
        for (uint32_t k = 0; k < m; k++) {
            buf_adds(b, k ? ", " : "");
            random_istio_match(b);
        }
        buf_adds(b, m ? "]}" : "}");
    }
    buf_adds(b, "]}}\n");
}

static void random_request(struct buf *b)
{
    static const char *const hosts[] = {"a.com", "b.a.com", "c.b.a.com", "x.a.com", "y.x.b.a.com", "B.A.COM", "d.net", "e.net", "com", "other", "", "a.com.", ".a.com"};
    static const char *const tails[] = {"", "", "/", "/b", "x", "/b/c", "/b/c/d", "?p=0", "?q=1&p=1", "?p=%31", "/?q=0"};
    buf_printf(b, "%s %s %s%s", methods_pool[chance(3)], hosts[chance(COUNT_OF(hosts))], paths_pool[chance(COUNT_OF(paths_pool))], tails[chance(COUNT_OF(tails))]);
    for (uint32_t i = chance(3); i > 0; i--)
        buf_printf(b, " %s:%u", chance(2) ? "x-one" : "ACCEPT", chance(2));
}

/* What the random requests met, so that a test that meets nothing fails. */
struct random_count {
    size_t hits, ordered;
};

static void random_world(uint64_t seed, size_t requests, struct random_count *count)
{
    chance_state = seed * 0x9e3779b97f4a7c15u + 1;
    struct buf text = {0}, line = {0}, got = {0};
    for (uint32_t n = 1 + chance(2), i = 0; i < n; i++)
        random_gateway(&text, i);
    for (uint32_t n = 1 + chance(8), i = 0; i < n; i++)
        random_route(&text, i);
    for (uint32_t n = chance(3), i = 0; i < n; i++)
        random_istio_gateway(&text, i);
    for (uint32_t n = chance(6), i = 0; i < n; i++)
        random_virtual(&text, i);
    struct objset *s = set_read(buf_slice(&text));
    for (size_t i = 0; i < objset_n(s); i++)
        ((struct object *)objset_at(s, i))->created_ns = 1 + chance(3);
    struct plan *p = plan_only(s);
    for (size_t i = 0; i < requests; i++) {
        buf_clear(&line);
        buf_clear(&got);
        random_request(&line);
        route_text(s, p, &p->listeners[chance(p->listeners_n)], line.p, &got);
        count->hits += got.n > 1;
        count->ordered += got.n > 4 && got.p[3] == 'v'; /* "n0/v1 rule2" */
    }
    plan_unref(p);
    objset_free(s);
    buf_free(&text);
    buf_free(&line);
    buf_free(&got);
}

static void test_random_sets(void **state)
{
    struct random_count count = {0};
    const size_t sets = test_repeats(3000), requests = 40;
    for (uint64_t seed = 1; seed <= sets; seed++)
        random_world(seed, requests, &count);
    print_message("%zu random sets, %zu requests, %zu routed, %zu of them by VirtualServices\n", sets, sets * requests, count.hits, count.ordered);
    assert_true(test_few(sets, 3000) || (count.hits > sets * requests / 10 && count.ordered > sets * requests / 50));
}

/* ---- bounds ---------------------------------------------------------------------------------------------------------------------------------------- */

#define BOUND_ROUTES 1000
#define BOUND_ENDPOINTS 10000

static struct objset *bound_set(size_t services, size_t routes)
{
    struct buf text = {0};
    buf_adds(&text, GATEWAY("gw", LISTENER("http", "")));
    for (size_t i = 0; i < services; i++)
        buf_printf(&text, "---\n{apiVersion: v1, kind: Service, metadata: {name: service-%zu}, spec: {selector: {app: app-%zu}, ports: [{port: 80, targetPort: http}]}}\n", i, i);
    for (size_t i = 0; i < routes; i++)
        buf_printf(&text, ROUTE("name: route-%zu", "{name: gw}", "host-%zu.example.com", "{matches: [{path: {value: /api/v%zu}, method: GET}], backendRefs: [{name: service-%zu, port: 80}]}"), i, i, i, i);
    struct objset *s = set_read(buf_slice(&text));
    objset_addresses(s);
    buf_free(&text);
    return s;
}

static uint64_t plan_held(void)
{
    return mem_bytes(MEM_PLAN) + mem_bytes(MEM_TABLE);
}

/* One more route or endpoint costs less than 1 KiB, as counted by the plan and as counted by the allocator. */
static void test_bounds(void **state)
{
    struct objset *bare = bound_set(100, 0), *full = bound_set(100, BOUND_ROUTES);
    static struct live_endpoint eps[BOUND_ENDPOINTS];
    static struct kv labels[100];
    static struct kvs sets[100];
    static char values[100][16];
    for (size_t i = 0; i < 100; i++) {
        snprintf(values[i], sizeof values[i], "app-%zu", i);
        labels[i] = (struct kv){"app", values[i], strlen(values[i])};
        sets[i] = (struct kvs){&labels[i], 1};
    }
    for (size_t i = 0; i < BOUND_ENDPOINTS; i++)
        eps[i] = live(i + 1, "default", "app-5d8f7c9b6-x2x4z", &sets[i % 100]);
    struct plan_memory *m = plan_memory_new();
    struct plan *p0 = plan_compile(m, bare, NULL, 0, NULL, 0);
    uint64_t before = plan_held();
    struct plan *p1 = plan_compile(m, full, NULL, 0, NULL, 0);
    uint64_t routes = plan_held() - before;
    struct plan *p2 = plan_compile(m, full, eps, BOUND_ENDPOINTS, NULL, 0);
    uint64_t endpoints = p2->bytes - p1->bytes, best_ns = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        struct plan *p = plan_compile(m, full, eps, BOUND_ENDPOINTS, NULL, 0);
        best_ns = MIN(best_ns, p->compile_ns);
        plan_unref(p);
    }
    print_message("a route: %lu bytes counted, %lu held; an endpoint: %lu bytes; %d routes and %d endpoints compiled in %.1f ms\n", (unsigned long)((p1->bytes - p0->bytes) / BOUND_ROUTES),
                  (unsigned long)(routes / BOUND_ROUTES), (unsigned long)(endpoints / BOUND_ENDPOINTS), BOUND_ROUTES, BOUND_ENDPOINTS, (double)best_ns / 1e6);
    assert_true(p1->bytes - p0->bytes < BOUND_ROUTES * 1024ull);
#ifndef WEIR_DEBUG_ARENA /* which adds a header to every allocation */
    assert_true(routes < BOUND_ROUTES * 1024ull);
#endif
    assert_true(endpoints < BOUND_ENDPOINTS * 1024ull);
    assert_int_equal(p2->endpoint_slots, BOUND_ENDPOINTS);
    plan_unref(p0);
    plan_unref(p1);
    plan_unref(p2);
    plan_memory_free(m);
    objset_free(bare);
    objset_free(full);
}

/* Printed, not asserted: machines differ. */
static void route_time(const struct objset *s, const char *what, const char *line)
{
    static struct h1_head h;
    struct plan *p = plan_only(s);
    struct plan_hit hit = {0};
    const int rounds = 200000;
    request_parse(&h, line);
    uint64_t best = UINT64_MAX;
    for (int k = 0; k < 5; k++) {
        uint64_t start = mono_ns();
        for (int i = 0; i < rounds; i++) {
            plan_route(p, &p->listeners[0], &h, false, SLICE(""), &hit);
            __asm__ volatile("" ::: "memory");
        }
        best = MIN(best, mono_ns() - start);
    }
    print_message("%s: %.1f ns\n", what, (double)best / rounds);
    plan_unref(p);
}

static void test_speed(void **state)
{
    struct objset *one = set_read(slice_cstr(GATEWAY("gw", LISTENER("http", "")) SERVICE ROUTE("name: r", "{name: gw}", "", RULE("r", "{path: {value: /}}"))));
    struct objset *many = bound_set(100, BOUND_ROUTES);
    route_time(one, "one catch-all rule", "GET shop.example.com /api/products?page=2");
    route_time(many, "1,000 hosts, a hit", "GET host-777.example.com /api/v777/items/1");
    route_time(many, "1,000 hosts, no such host", "GET host-7777.example.com /api/v777/items/1");
    objset_free(one);
    objset_free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths), cmocka_unit_test(test_no_catch_all), cmocka_unit_test(test_predicates), cmocka_unit_test(test_repeated_header),
        cmocka_unit_test(test_rule_order), cmocka_unit_test(test_age_and_name), cmocka_unit_test(test_defaults), cmocka_unit_test(test_empty), cmocka_unit_test(test_hosts), cmocka_unit_test(test_long_hosts),
        cmocka_unit_test(test_listener_isolation), cmocka_unit_test(test_hostname_intersection), cmocka_unit_test(test_namespaces), cmocka_unit_test(test_namespaces_selected),
        cmocka_unit_test(test_sections_and_ports), cmocka_unit_test(test_shared_address), cmocka_unit_test(test_bare_external_name), cmocka_unit_test(test_clusters_and_survival),
        cmocka_unit_test(test_slots_reuse), cmocka_unit_test(test_slots_held), cmocka_unit_test(test_slots_clusters), cmocka_unit_test(test_slots_random), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_hosts_file), cmocka_unit_test(test_random_sets), cmocka_unit_test(test_bounds), cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
