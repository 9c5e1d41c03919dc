/* resolve_test.c - names and their addresses: who wants them, when they are looked up again, what failures leave in place. The
 * look-up is scripted; resolve_name() itself is asked for what every machine knows.
 */
#include "engine_int.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define NAMES_MAX 8

static struct {
    struct loop *loop;
    struct resolver *r;
    struct { char name[64]; uint32_t ips[100]; uint32_t n; bool fails; uint32_t asked; } names[NAMES_MAX];
    uint32_t changes, lookups;
} W;

static int place(const char *name)
{
    for (int i = 0; i < NAMES_MAX; i++)
        if (strcmp(W.names[i].name, name) == 0)
            return i;
    for (int i = 0; i < NAMES_MAX; i++)
        if (!W.names[i].name[0]) {
            snprintf(W.names[i].name, sizeof W.names[i].name, "%s", name);
            return i;
        }
    fail_msg("too many names");
    return 0;
}

static enum err lookup(const char *name, struct resolved *out)
{
    int i = place(name);
    *out = (struct resolved){0};
    W.lookups++;
    W.names[i].asked++;
    if (W.names[i].fails || !W.names[i].n)
        return ERR_NOTFOUND;
    out->items = mem_new(MEM_API, W.names[i].n * sizeof *out->items);
    for (; out->n < W.names[i].n; out->n++)
        out->items[out->n] = addr_ip4(W.names[i].ips[out->n], 0);
    return OK;
}

static void changed(void *ctx) { W.changes++; }
static bool never(void *ctx) { return false; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }

static void start(void)
{
    struct sim_conf sc = {.seed = 1, .latency_us_min = 20, .latency_us_max = 400};
    memset(&W, 0, sizeof W);
    sim_start(&sc);
    W.loop = loop_new("control");
    W.r = resolver_new(W.loop, lookup, changed, NULL);
}

static void stop(void)
{
    resolver_free(W.r);
    pass(10);
    loop_free(W.loop);
    sim_stop();
}

static void address(const char *name, uint32_t ip)
{
    int i = place(name);
    W.names[i].ips[W.names[i].n++] = ip;
}

static struct objset *set_of(const char *text)
{
    struct objset *s = objset_new();
    struct diags d = {0};
    objset_read(s, "t.yaml", "/", slice_cstr(text), "default", false, &d);
    for (size_t i = 0; i < d.n; i++)
        print_message("%u: %s %s\n", d.items[i].line, d.items[i].where, d.items[i].reason);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    return s;
}

static void want(const char *text)
{
    struct objset *s = set_of(text);
    resolver_want(W.r, s);
    objset_free(s); /* nothing of it is needed any more */
}

/* The addresses of ns/service as text, in order. */
static const char *found(const char *ns, const char *service)
{
    static char text[4096];
    size_t n, at = 0;
    const struct live_address *a = resolver_addresses(W.r, &n);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        char ip[ADDR_TEXT_MAX];
        if (strcmp(a[i].ns, ns) != 0 || strcmp(a[i].service, service) != 0)
            continue;
        addr_format_ip(&a[i].ip, ip);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", at ? " " : "", ip);
    }
    return text;
}

#define ENTRY(name, spec) "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: " name "}\nspec: {ports: [{number: 80, name: http, protocol: HTTP}], " spec "}\n---\n"
#define EXTERNAL(name, host) "apiVersion: v1\nkind: Service\nmetadata: {name: " name "}\nspec: {type: ExternalName, externalName: " host ", ports: [{port: 80}]}\n---\n"

static void test_wants(void **state)
{
    start();
    address("host.example", 0x0a000002);
    address("host.example", 0x0a000001); /* name servers rotate */
    address("ep.example", 0x0a000003);
    want(EXTERNAL("svc", "host.example") EXTERNAL("svc2", "host.example") ENTRY("a", "hosts: [host.example], resolution: DNS")
         ENTRY("b", "hosts: [never-asked.example], resolution: DNS, endpoints: [{address: ep.example}, {address: 10.0.0.9}]")
         ENTRY("c", "hosts: [static.example], resolution: STATIC, endpoints: [{address: 10.0.0.8}]") ENTRY("d", "hosts: [also.example], resolution: DNS, endpoints: [{address: ep.example}]")
         ENTRY("e", "hosts: [replicas.example], resolution: STATIC, workloadSelector: {labels: {app: x}}"));
    assert_false(resolver_settled(W.r));
    pass(100);
    assert_true(resolver_settled(W.r));
    assert_int_equal(W.lookups, 2); /* each name once, whoever wants it */
    assert_int_equal(W.changes, 1);
    assert_string_equal(found("default", "svc"), "10.0.0.1 10.0.0.2");
    assert_string_equal(found("default", "svc2"), "10.0.0.1 10.0.0.2");
    assert_string_equal(found("", "host.example"), "10.0.0.1 10.0.0.2");
    assert_string_equal(found("", "ep.example"), "10.0.0.3"); /* once, though two entries have it */
    stop();
}

/* Several addresses become several endpoints of the entry's cluster. */
static void test_plan(void **state)
{
    static const char text[] = ENTRY("a", "hosts: [host.example], resolution: DNS") ENTRY("b", "hosts: [b.example], resolution: DNS, endpoints: [{address: host.example, ports: {http: 8080}}]");
    start();
    address("host.example", 0x0a000001);
    address("host.example", 0x0a000002);
    want(text);
    pass(100);
    size_t n;
    struct objset *s = set_of(text);
    const struct live_address *a = resolver_addresses(W.r, &n);
    objset_addresses(s);
    struct plan_memory *m = plan_memory_new();
    struct plan *p = plan_compile(m, s, NULL, 0, a, n);
    assert_int_equal(p->clusters_n, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(p->clusters[i].eps_n, 2);
        assert_string_equal(p->clusters[i].eps[0].name, strcmp(p->clusters[i].service, "b.example") == 0 ? "10.0.0.1:8080" : "10.0.0.1:80");
    }
    plan_unref(p);
    plan_memory_free(m);
    objset_free(s);
    stop();
}

static void test_again(void **state)
{
    start();
    address("host.example", 0x0a000001);
    address("host.example", 0x0a000002);
    want(ENTRY("a", "hosts: [host.example], resolution: DNS"));
    pass(100);
    assert_int_equal(W.changes, 1);
    int i = place("host.example");
    W.names[i].ips[0] = 0x0a000002; /* the same, in another order */
    W.names[i].ips[1] = 0x0a000001;
    pass(RESOLVE_MS);
    assert_in_range(W.lookups, 2, 3);
    assert_int_equal(W.changes, 1);
    address("host.example", 0x0a000003);
    pass(RESOLVE_MS);
    assert_int_equal(W.changes, 2);
    assert_string_equal(found("", "host.example"), "10.0.0.1 10.0.0.2 10.0.0.3");
    stop();
}

/* A failure keeps the last answer, is tried again soon, then less often; what comes back is used. */
static void test_failure(void **state)
{
    start();
    address("host.example", 0x0a000001);
    want(ENTRY("a", "hosts: [host.example], resolution: DNS") ENTRY("b", "hosts: [none.example], resolution: DNS"));
    pass(500);
    assert_true(resolver_settled(W.r)); /* also with a name that can't be resolved */
    assert_string_equal(found("", "none.example"), "");
    int i = place("host.example"), none = place("none.example");
    W.names[i].fails = true;
    pass(RESOLVE_MS + 100);
    assert_string_equal(found("", "host.example"), "10.0.0.1");
    assert_int_equal(W.changes, 1);
    assert_in_range(W.names[none].asked, 4, 6); /* after 1, 2, 4, 8, 16 s */
    pass(120000);
    assert_in_range(W.names[none].asked, 8, 10); /* every RESOLVE_MS */
    assert_string_equal(found("", "host.example"), "10.0.0.1");
    W.names[i].fails = false;
    W.names[i].ips[0] = 0x0a000007;
    address("none.example", 0x0a000008);
    pass(RESOLVE_MS + 100);
    assert_string_equal(found("", "host.example"), "10.0.0.7");
    assert_string_equal(found("", "none.example"), "10.0.0.8");
    stop();
}

static void test_changes(void **state)
{
    start();
    address("a.example", 0x0a000001);
    address("b.example", 0x0a000002);
    want(ENTRY("a", "hosts: [a.example], resolution: DNS"));
    pass(100);
    want(ENTRY("a", "hosts: [a.example], resolution: DNS") ENTRY("b", "hosts: [b.example], resolution: DNS"));
    assert_string_equal(found("", "a.example"), "10.0.0.1"); /* at once: it is known */
    pass(100);
    assert_string_equal(found("", "b.example"), "10.0.0.2");
    assert_int_equal(W.names[place("a.example")].asked, 1); /* not looked up again for that */
    want(ENTRY("b", "hosts: [b.example], resolution: DNS"));
    assert_string_equal(found("", "a.example"), "");
    pass(2 * RESOLVE_MS);
    assert_int_equal(W.names[place("a.example")].asked, 1);
    want(ENTRY("a", "hosts: [a.example], resolution: DNS")); /* both under way: dropped before the answer comes */
    want(ENTRY("c", "hosts: [c.example], resolution: DNS"));
    want("");
    pass(100);
    assert_int_equal(W.changes, 2);
    want(ENTRY("c", "hosts: [c.example], resolution: DNS"));
    stop(); /* with a look-up under way */
}

static void test_limit(void **state)
{
    start();
    for (uint32_t k = 0; k < 100; k++)
        address("big.example", 0x0a000000 + (k * 37) % 100);
    want(ENTRY("a", "hosts: [big.example], resolution: DNS"));
    pass(100);
    size_t n;
    resolver_addresses(W.r, &n);
    assert_int_equal(n, ADDRESSES_PER_NAME);
    pass(2 * RESOLVE_MS);
    assert_int_equal(W.changes, 1);
    stop();
}

static void test_localhost(void **state)
{
    struct resolved found_here;
    assert_int_equal(resolve_name("localhost", &found_here), OK);
    assert_true(found_here.n >= 1 && found_here.items[0].family == ADDR_IP4 && found_here.items[0].ip[0] == 127 && found_here.items[0].port == 0);
    mem_free(found_here.items);
    assert_int_equal(resolve_name("no-such-name.invalid", &found_here), ERR_NOTFOUND);
    mem_free(found_here.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wants),   cmocka_unit_test(test_plan),  cmocka_unit_test(test_again),    cmocka_unit_test(test_failure),
                                       cmocka_unit_test(test_changes), cmocka_unit_test(test_limit), cmocka_unit_test(test_localhost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
