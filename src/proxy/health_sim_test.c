/* health_sim_test.c - active checks on the simulator: endpoints that answer, fail, hang, refuse and flap, under one or more
 * workers' proxies, with plans that change and workers that stop in the middle of a check.
 */
#include "grpc_health.h"
#include "proxy_int.h"
#include "sim.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define ORIGINS_MAX 400
#define WORKERS_MAX 3
#define REPLICA 77u

/* ---- the world -------------------------------------------------------------------------------------------------------- */

enum manner { WELL, BAD, SILENT, ALTERNATING, GRPC_DOWN, GRPC_NONE, GRPC_ODD, GRPC_COMPRESSED, GRPC_LONG };
struct origin {
    struct listener ln;
    struct addr addr;
    uint64_t ns;
    int fd;                 /* -1: nobody listens */
    enum manner manner;
    uint32_t checks, accepts, open;
    char service[64];       /* that the last gRPC check asked about */
    char host[64];
};
struct oconn {
    struct http_srv srv;
    struct origin *o;
    struct http_req *req;
    struct buf body;
    struct list link;
};
static struct {
    struct loop *loops[WORKERS_MAX], *origin_loop;
    struct proxy *proxies[WORKERS_MAX];
    uint32_t workers;
    struct objset *objects;
    struct plan_memory *memory;
    struct plan *plan;
    struct origin origins[ORIGINS_MAX];
    uint32_t origins_n;
    struct list conns;
    struct head_out out;
    struct http_srv_conf conf;
    bool replica;           /* a live replica behind the Service "in" */
    bool no_sockets;
} W;

static void answer(struct oconn *c, const char *fields, const void *p, size_t n, const char *trailers)
{
    struct iovec v = {(void *)(uintptr_t)p, n};
    bool bad = c->o->manner == BAD || (c->o->manner == ALTERNATING && c->o->checks % 2);
    head_clear(&W.out);
    head_status(&W.out, bad ? 503 : 200, SLICE(""));
    head_slice(&W.out, slice_cstr(fields));
    http_req_answer(c->req, &W.out, *trailers ? H1_CHUNKED : H1_LENGTH, n, (struct pieces){&v, n ? 1 : 0, n}, !*trailers);
    if (*trailers)
        http_req_end(c->req, slice_cstr(trailers));
}

static void grpc_answer(struct oconn *c)
{
    static const char type[] = "Content-Type: application/grpc\r\n";
    static char large[5000];
    size_t n = c->body.n > 7 ? c->body.n - 7 : 0;
    assert_true(c->body.n >= 5 && n < sizeof c->o->service);
    memcpy(c->o->service, c->body.p + (n ? 7 : 0), n);
    c->o->service[n] = '\0';
    switch (c->o->manner) {
    case GRPC_DOWN: answer(c, type, "\0\0\0\0\2\x08\2", 7, "grpc-status: 0\r\n"); return;
    case GRPC_NONE: answer(c, "Content-Type: application/grpc\r\ngrpc-status: 12\r\n", "", 0, ""); return;
    case GRPC_ODD: answer(c, type, "\0\0\0\0\2\x08\1", 7, "x-other: 0\r\n"); return;
    case GRPC_COMPRESSED: answer(c, type, "\1\0\0\0\2\x08\1", 7, "grpc-status: 0\r\n"); return;
    case GRPC_LONG: answer(c, type, large, sizeof large, "grpc-status: 0\r\n"); return;
    default: answer(c, type, "\0\0\0\0\2\x08\1", 7, "grpc-status: 0\r\n"); return;
    }
}

static void request_whole(struct oconn *c, bool grpc)
{
    if (c->o->manner == SILENT)
        return;
    if (grpc)
        grpc_answer(c);
    else
        answer(c, "", "ok", 2, "");
}

static void o_request(struct http_srv *s, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct oconn *c = CONTAINER_OF(s, struct oconn, srv);
    bool grpc = slice_is(h->path, GRPC_HEALTH_PATH);
    const struct h1_field *host = h1_get(h, H1_HOST);
    c->req = r;
    c->o->checks++;
    if (host)
        snprintf(c->o->host, sizeof c->o->host, SLICE_FMT, SLICE_ARG(host->value));
    assert_true(grpc || slice_is(h->path, "/well"));
    assert_true(end || grpc);
    for (int i = 0; i < body.n; i++)
        buf_add(&c->body, body.v[i].iov_base, body.v[i].iov_len);
    if (end)
        request_whole(c, grpc);
}

static void o_body(struct http_req *r, struct pieces body, bool end)
{
    struct oconn *c = CONTAINER_OF(r->c, struct oconn, srv);
    for (int i = 0; i < body.n; i++)
        buf_add(&c->body, body.v[i].iov_base, body.v[i].iov_len);
    if (end)
        request_whole(c, true);
}
static void o_drained(struct http_req *r) {}
static void o_aborted(struct http_req *r, enum err e) {}
static void o_refused(struct http_srv *s, uint16_t status, const char *label) { fail_msg("a check was refused: %s", label); }
static void o_released(struct http_srv *s)
{
    struct oconn *c = CONTAINER_OF(s, struct oconn, srv);
    c->o->open--;
    list_del(&c->link);
    buf_free(&c->body);
    mem_free(c);
}
static const struct http_srv_ops o_ops = {.request = o_request, .body = o_body, .drained = o_drained, .aborted = o_aborted, .refused = o_refused, .released = o_released};

static void o_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct oconn *c = mem_new(MEM_SIM, sizeof *c);
    c->o = ln->owner;
    c->o->accepts++;
    c->o->open++;
    list_push(&W.conns, &c->link);
    http_srv_open(&c->srv, W.origin_loop, &W.conf, &o_ops, fd, NULL);
}

static void origin_up(struct origin *o)
{
    o->fd = sim_listen(o->ns, &o->addr);
    assert_true(o->fd >= 0);
    o->ln = (struct listener){.owner = o};
    listener_start(&o->ln, W.origin_loop, o->fd, false, o_accepted);
}

static void origin_down(struct origin *o)
{
    if (o->fd < 0)
        return;
    listener_stop(&o->ln);
    socket_close(o->fd);
    o->fd = -1;
    LIST_FOREACH(l, &W.conns)
        if (CONTAINER_OF(l, struct oconn, link)->o == o)
            http_srv_close(&CONTAINER_OF(l, struct oconn, link)->srv);
}

static void sockets_wanted(void *ctx, uint32_t worker, uint64_t replica_id, uint32_t n)
{
    int fds[64];
    if (W.no_sockets)
        return;
    for (uint32_t i = 0; i < n; i++)
        fds[i] = sim_socket(replica_id);
    proxy_sockets(W.proxies[worker], replica_id, fds, n);
}
static void left(void *ctx, uint32_t worker, uint64_t endpoint_id, uint64_t replica_id) {}
static const struct proxy_ops p_ops = {sockets_wanted, left};

/* The first n origins, and what is said of their health. */
static void objects_read(uint32_t n, const char *policy)
{
    struct buf text = {0};
    struct diags d = {0};
    buf_adds(&text, "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: out}\nspec:\n  hosts: [out.example]\n"
                    "  ports: [{number: 8080, name: http, protocol: HTTP}]\n");
    buf_adds(&text, n ? "  resolution: STATIC\n  endpoints:\n" : "  resolution: DNS\n");
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&text, "  - {address: 10.0.%u.%u}\n", i / 200, i % 200 + 1);
    buf_adds(&text, "---\napiVersion: v1\nkind: Service\nmetadata: {name: in}\nspec: {selector: {app: in}, ports: [{port: 80, targetPort: 8080}]}\n");
    if (policy)
        buf_printf(&text, "---\napiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: {name: p}\nspec:\n"
                          "  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: out}, {name: in}]\n  %s\n", policy);
    objset_free(W.objects);
    W.objects = objset_new();
    objset_read(W.objects, "test.yaml", "/", buf_slice(&text), "default", false, &d);
    for (size_t i = 0; i < d.n; i++)
        print_message("%u: %s %s\n", d.items[i].line, d.items[i].where, d.items[i].reason);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    buf_free(&text);
    objset_addresses(W.objects);
}

static void publish(uint32_t n, const char *policy)
{
    static struct kv label = {"app", "in", 2};
    static const struct kvs labels = {&label, 1};
    struct live_endpoint live = {.replica_id = REPLICA, .ns = "default", .deployment = "in", .name = "in-1", .labels = &labels};
    struct plan *old = W.plan;
    objects_read(n, policy);
    W.plan = plan_compile(W.memory, W.objects, &live, W.replica ? 1 : 0, NULL, 0);
    for (uint32_t i = 0; i < W.workers; i++)
        proxy_plan(W.proxies[i], plan_ref(W.plan));
    plan_unref(old);
}

static bool never(void *ctx) { return false; }
static void pass(uint64_t ms) { sim_run(never, NULL, ms); }

static void world_start(uint64_t seed, uint32_t workers, uint32_t origins)
{
    struct sim_conf sc = {.seed = seed, .latency_us_min = 20, .latency_us_max = 400};
    memset(&W, 0, sizeof W);
    sim_start(&sc);
    W.origin_loop = loop_new("origin");
    list_init(&W.conns);
    head_out_init(&W.out);
    http_srv_conf_default(&W.conf);
    W.conf.h1 = (struct h1_srv_conf){&h1_limits_default, 1000000, 1000000, 1000000, 1000, &W.out, true};
    W.memory = plan_memory_new();
    W.workers = workers;
    for (uint32_t i = 0; i < workers; i++) {
        struct proxy_conf pc;
        proxy_conf_default(&pc);
        pc.worker = i;
        pc.workers = workers;
        W.loops[i] = loop_new("worker");
        W.proxies[i] = proxy_new(W.loops[i], &pc, &p_ops, NULL);
    }
    W.origins_n = origins;
    for (uint32_t i = 0; i < origins; i++) {
        W.origins[i].addr = addr_ip4(0x0a000000u + ((i / 200) << 8) + i % 200 + 1, 8080);
        origin_up(&W.origins[i]);
    }
}

static void workers_stop(void)
{
    for (uint32_t i = 0; i < W.workers; i++) {
        proxy_free(W.proxies[i]);
        loop_free(W.loops[i]);
    }
    W.workers = 0;
}

static void world_stop(void)
{
    workers_stop();
    plan_unref(W.plan);
    plan_memory_free(W.memory);
    objset_free(W.objects);
    for (uint32_t i = 0; i < W.origins_n; i++)
        origin_down(&W.origins[i]);
    pass(2000);
    LIST_FOREACH(l, &W.conns)
        http_srv_close(&CONTAINER_OF(l, struct oconn, link)->srv);
    pass(10);
    head_out_fini(&W.out);
    loop_free(W.origin_loop);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
}

/* ---- looking at it ------------------------------------------------------------------------------------------------------- */

static const struct plan_cluster *cluster_of(const char *service)
{
    for (uint32_t i = 0; i < W.plan->clusters_n; i++)
        if (strcmp(W.plan->clusters[i].service, service) == 0)
            return &W.plan->clusters[i];
    fail_msg("no cluster %s", service);
    return NULL;
}
static struct endpoint_health *health_of(uint32_t i) { return cluster_of("out.example")->eps[i].health; }
static bool is_down(uint32_t i) { return health_of(i)->unhealthy; }
static bool is_proven(uint32_t i) { return !health_of(i)->unhealthy && !health_of(i)->unchecked; }
static bool first_down(void *ctx) { return is_down(0); }
static bool first_up(void *ctx) { return is_proven(0); }

/* How many different endpoints of a worker's cluster get requests. */
static uint32_t picked(uint32_t worker)
{
    const struct plan_cluster *pc = cluster_of("out.example");
    struct loop *l = W.loops[worker];
    uint64_t seen[8] = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < 200; i++) {
        struct lb_request rq = {.random = loop_random(l), .now_ms = loop_now_ms(l), .now_ns = loop_now_ns(l)};
        struct lb_host *h = cluster_pick(W.proxies[worker]->upstreams[pc->slot]->c, &rq);
        bool known = !h;
        for (uint32_t k = 0; k < n; k++)
            known |= seen[k] == h->id;
        if (!known && n < COUNT_OF(seen))
            seen[n++] = h->id;
    }
    return n;
}

static const char http_policy[] = "healthCheck: {http: {path: /well}, interval: 1s, timeout: 200ms, unhealthyThreshold: 3, healthyThreshold: 2}";
static const char tcp_policy[] = "healthCheck: {tcp: {}, interval: 1s, timeout: 200ms, unhealthyThreshold: 2}";
static const char grpc_policy[] = "healthCheck: {grpc: {service: a.b}, interval: 1s, timeout: 200ms, unhealthyThreshold: 2}";

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

static void test_judge(void **state)
{
    struct health_policy p = {.healthy = 2, .unhealthy = 3};
    struct endpoint_health h = {.unchecked = 1};
    /* o: well, x: unwell; then what it becomes */
    static const struct { char c; enum health_turn turn; bool unhealthy, unchecked; } steps[] = {
        {'x', HEALTH_STAYS, 0, 1}, {'x', HEALTH_STAYS, 0, 1}, {'o', HEALTH_PROVEN, 0, 0}, {'x', HEALTH_STAYS, 0, 0}, {'x', HEALTH_STAYS, 0, 0}, {'o', HEALTH_STAYS, 0, 0},
        {'x', HEALTH_STAYS, 0, 0}, {'x', HEALTH_STAYS, 0, 0}, {'x', HEALTH_FAILS, 1, 0},  {'x', HEALTH_STAYS, 1, 0}, {'o', HEALTH_STAYS, 1, 0}, {'x', HEALTH_STAYS, 1, 0},
        {'o', HEALTH_STAYS, 1, 0}, {'o', HEALTH_RECOVERS, 0, 0}, {'o', HEALTH_STAYS, 0, 0}};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        assert_int_equal(health_judge(&h, &p, steps[i].c == 'o'), steps[i].turn);
        assert_true(h.unhealthy == steps[i].unhealthy && h.unchecked == steps[i].unchecked);
    }
    h = (struct endpoint_health){.unchecked = 1};
    for (int i = 0; i < 3; i++)
        assert_int_equal(health_judge(&h, &p, false), i == 2 ? HEALTH_FAILS : HEALTH_STAYS);
    assert_true(h.unhealthy && !h.unchecked);
    p = (struct health_policy){0}; /* thresholds of 0 count as 1 */
    h = (struct endpoint_health){0};
    assert_int_equal(health_judge(&h, &p, false), HEALTH_FAILS);
    assert_int_equal(health_judge(&h, &p, true), HEALTH_RECOVERS);
}

static void test_pause(void **state)
{
    struct health_policy p = {.interval_ms = 1000};
    uint64_t low = UINT64_MAX, high = 0;
    for (uint64_t r = 0; r < 1000; r++) {
        uint64_t ms = health_pause_ms(&p, 0, r * 7919);
        low = MIN(low, ms);
        high = MAX(high, ms);
    }
    assert_true(low == 900 && high == 1000);
    assert_int_equal(health_pause_ms(&p, 400, 0), 600);
    assert_int_equal(health_pause_ms(&p, 5000, 0), HEALTH_PAUSE_MS);
    p.interval_ms = 1;
    assert_int_equal(health_pause_ms(&p, 0, 12345), HEALTH_PAUSE_MS);
}

/* ---- HTTP ---------------------------------------------------------------------------------------------------------------- */

static void test_http(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        world_start(seed, 1, 3);
        publish(3, http_policy);
        assert_true(health_of(0)->unchecked && health_of(2)->unchecked);
        assert_int_equal(picked(0), 3); /* nobody is proven: all are used */
        pass(HEALTH_SPREAD_MS + 50);
        assert_true(is_proven(0) && is_proven(1) && is_proven(2));
        assert_string_equal(W.origins[0].host, "out.example:8080");
        assert_int_equal(picked(0), 3);
        W.origins[0].manner = BAD;
        uint64_t t = sim_now_ms();
        assert_true(sim_run(first_down, NULL, 3 * 1000 + 50)); /* threshold * interval */
        assert_true(sim_now_ms() - t > 1700);
        pass(10);
        assert_int_equal(picked(0), 2);
        W.origins[0].manner = WELL;
        assert_true(sim_run(first_up, NULL, 2 * 1000 + 50));
        pass(10);
        assert_int_equal(picked(0), 3);
        assert_true(is_proven(1) && is_proven(2));
        assert_true(health_of(0)->checks[1] == 3 && health_of(0)->checks[2] == 0 && health_of(1)->checks[1] == 0);
        assert_true(W.origins[1].accepts == W.origins[1].checks && W.origins[1].open == 0); /* each over a connection of its own, which ends */
        world_stop();
    }
}

static void test_flapping(void **state)
{
    world_start(1, 1, 2);
    W.origins[0].manner = ALTERNATING;
    publish(2, http_policy);
    pass(30000);
    assert_true(W.origins[0].checks >= 29 && W.origins[0].checks <= 36);
    assert_true(is_proven(0) && health_of(0)->checks[0] > 10 && health_of(0)->checks[1] > 10);
    W.origins[0].manner = BAD;
    pass(4000);
    assert_true(is_down(0));
    W.origins[0].manner = ALTERNATING; /* it needs two in a row to come back */
    pass(30000);
    assert_true(is_down(0) && is_proven(1));
    world_stop();
}

/* The peer takes the connection and the question, and says nothing; or its network swallows everything. */
static void test_timeouts(void **state)
{
    world_start(1, 1, 3);
    publish(3, http_policy);
    pass(1000);
    uint32_t sockets = sim_sockets_open();
    W.origins[0].manner = SILENT;
    sim_partition(&W.origins[1].addr, true);
    pass(3300);
    assert_true(is_down(0) && is_down(1) && is_proven(2));
    assert_true(health_of(0)->checks[2] >= 3 && health_of(1)->checks[2] >= 3 && health_of(2)->checks[2] == 0);
    assert_true(sim_sockets_open() <= sockets + 4); /* what timed out is closed: no more than is under way now */
    W.origins[0].manner = WELL;
    sim_partition(&W.origins[1].addr, false);
    pass(2500);
    assert_true(is_proven(0) && is_proven(1));
    world_stop();
}

static void test_panic(void **state)
{
    world_start(1, 1, 3);
    publish(3, http_policy);
    pass(1000);
    W.origins[0].manner = W.origins[1].manner = BAD;
    pass(4000);
    assert_true(is_down(0) && is_down(1) && is_proven(2));
    assert_int_equal(picked(0), 3); /* one of three is less than half */
    publish(3, "healthCheck: {http: {path: /well}, interval: 1s, timeout: 200ms}\n  loadBalancer: {panicPercent: 0}");
    pass(10);
    assert_true(is_down(0) && is_down(1));
    assert_int_equal(picked(0), 1);
    W.origins[2].manner = BAD;
    pass(4000);
    assert_true(is_down(2));
    assert_int_equal(picked(0), 0);
    world_stop();
}

/* ---- TCP, gRPC -------------------------------------------------------------------------------------------------------------- */

static void test_tcp(void **state)
{
    world_start(1, 1, 2);
    W.origins[0].manner = SILENT; /* accepting is enough */
    publish(2, tcp_policy);
    pass(1000);
    assert_true(is_proven(0) && is_proven(1) && W.origins[0].checks == 0);
    origin_down(&W.origins[0]);
    assert_true(sim_run(first_down, NULL, 2050));
    origin_up(&W.origins[0]);
    assert_true(sim_run(first_up, NULL, 1050));
    assert_true(is_proven(1));
    world_stop();
}

static void test_grpc(void **state)
{
    static const enum manner unwell[] = {GRPC_DOWN, GRPC_NONE, GRPC_ODD, GRPC_COMPRESSED, GRPC_LONG, BAD, SILENT};
    world_start(1, 1, 1);
    publish(1, grpc_policy);
    pass(1000);
    assert_true(is_proven(0));
    assert_string_equal(W.origins[0].service, "a.b");
    for (size_t i = 0; i < COUNT_OF(unwell); i++) {
        W.origins[0].manner = unwell[i];
        assert_true(sim_run(first_down, NULL, 2300));
        W.origins[0].manner = WELL;
        assert_true(sim_run(first_up, NULL, 1050));
    }
    publish(1, "healthCheck: {grpc: {}, interval: 1s, timeout: 200ms}");
    pass(2000);
    assert_true(is_proven(0));
    assert_string_equal(W.origins[0].service, "");
    world_stop();
}

/* ---- plans, workers ----------------------------------------------------------------------------------------------------------- */

static void test_plans(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        world_start(seed, 2, 4);
        W.origins[0].manner = BAD;
        W.origins[1].manner = SILENT;
        publish(4, http_policy);
        pass(4000);
        assert_true(is_down(0) && is_down(1) && is_proven(2) && is_proven(3));
        for (int i = 0; i < 20; i++) { /* checks are under way in some of these */
            publish(4, http_policy);
            pass(seed * 7 % 90);
            assert_true(is_down(0) && is_down(1) && is_proven(2) && is_proven(3));
        }
        publish(1, http_policy); /* the silent one leaves in the middle of its check */
        assert_true(is_down(0));
        publish(0, http_policy);
        pass(seed * 11 % 70);
        publish(4, http_policy);
        pass(600);
        assert_true(is_proven(2) && is_proven(3));
        pass(3000);
        assert_true(is_down(0) && is_down(1));
        publish(4, NULL); /* no checks any more: what they found does not count */
        pass(10);
        assert_true(is_proven(0) && is_proven(1) && health_of(0)->checker == 0);
        uint32_t before = W.origins[2].checks;
        pass(5000);
        assert_int_equal(W.origins[2].checks, before);
        publish(4, http_policy);
        assert_true(health_of(0)->unchecked && health_of(2)->unchecked);
        pass(4000);
        assert_true(is_down(0) && is_proven(2));
        world_stop();
    }
}

/* A worker ends with checks under way. */
static void test_stop(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        world_start(seed, 2, 4);
        W.origins[0].manner = SILENT;
        sim_partition(&W.origins[1].addr, true);
        publish(4, seed % 2 ? http_policy : grpc_policy);
        pass(seed * 13 % 400);
        workers_stop();
        sim_partition(&W.origins[1].addr, false);
        world_stop();
    }
}

/* Every endpoint is checked by one worker, the work is shared, and what stays behind is taken over. */
static void test_shares(void **state)
{
    world_start(1, 3, 30);
    publish(30, http_policy);
    uint32_t mine[WORKERS_MAX] = {0};
    for (uint32_t i = 0; i < 30; i++) {
        assert_in_range(health_of(i)->checker, 1, 3);
        mine[health_of(i)->checker - 1]++;
    }
    assert_true(mine[0] == 10 && mine[1] == 10 && mine[2] == 10);
    pass(10000);
    for (uint32_t i = 0; i < 30; i++)
        assert_in_range(W.origins[i].checks, 9, 12);
    health_of(0)->checker = 99; /* of a worker that is not there */
    uint64_t taken = 0;
    pass(2 * 1000 + 200 + HEALTH_SLACK_MS + 1100);
    for (int i = 0; i < 3; i++)
        taken += counter_read(&W.proxies[i]->c.checks_taken);
    assert_int_equal(taken, 1);
    assert_in_range(health_of(0)->checker, 1, 3);
    W.origins[0].manner = BAD;
    assert_true(sim_run(first_down, NULL, 3050));
    for (int i = 0; i < 3; i++) /* all balancers see it */
        assert_true(host_down(&W.proxies[i]->eps[cluster_of("out.example")->eps[0].slot]->lb, sim_now_ms()));
    world_stop();
}

static void test_limit(void **state)
{
    world_start(1, 1, ORIGINS_MAX);
    for (uint32_t i = 0; i < ORIGINS_MAX; i++)
        W.origins[i].manner = SILENT;
    publish(ORIGINS_MAX, "healthCheck: {http: {path: /well}, interval: 10s, timeout: 5s, unhealthyThreshold: 1}");
    for (int i = 0; i < 40; i++) {
        pass(25);
        assert_true(W.proxies[0]->health.running <= HEALTH_RUNNING_MAX);
    }
    assert_int_equal(W.proxies[0]->health.running, HEALTH_RUNNING_MAX);
    assert_true(counter_read(&W.proxies[0]->c.checks_queued) >= ORIGINS_MAX - HEALTH_RUNNING_MAX);
    publish(ORIGINS_MAX - 10, "healthCheck: {http: {path: /well}, interval: 10s, timeout: 5s, unhealthyThreshold: 1}"); /* with some in the queue */
    pass(11000);
    for (uint32_t i = 0; i < ORIGINS_MAX - 10; i++)
        assert_true(is_down(i));
    world_stop();
}

/* A replica in its namespace is asked through a socket from there; where none comes, nothing is held against it. */
static void test_inside(void **state)
{
    world_start(1, 1, 0);
    W.replica = true;
    W.origins_n = 1;
    W.origins[0] = (struct origin){.ns = REPLICA, .addr = addr_ip4(0x7f000001u, 8080), .fd = -1};
    origin_up(&W.origins[0]);
    publish(0, http_policy);
    pass(1000);
    const struct endpoint_health *h = cluster_of("in")->eps[0].health;
    assert_true(!h->unchecked && !h->unhealthy && W.origins[0].checks >= 1);
    assert_string_equal(W.origins[0].host, "in.default.svc.cluster.local");
    W.origins[0].manner = BAD;
    pass(3500);
    assert_true(h->unhealthy);
    W.origins[0].manner = WELL;
    pass(2500);
    assert_false(h->unhealthy);
    W.no_sockets = true;
    pass(60000); /* the stock is used up */
    uint64_t unmade = counter_read(&W.proxies[0]->c.checks_unmade);
    assert_true(unmade > 5 && !h->unhealthy);
    W.no_sockets = false;
    world_stop();
}

static void test_metrics(void **state)
{
    struct buf out = {0};
    world_start(1, 1, 2);
    W.origins[0].manner = BAD;
    publish(2, http_policy);
    pass(3500);
    proxy_health_metrics(W.plan, &out);
    assert_non_null(strstr(out.p, "weir_endpoint_healthy{cluster=\"default/out.example:8080\",endpoint=\"10.0.0.1:8080\"} 0\n"));
    assert_non_null(strstr(out.p, "weir_endpoint_healthy{cluster=\"default/out.example:8080\",endpoint=\"10.0.0.2:8080\"} 1\n"));
    assert_non_null(strstr(out.p, "weir_health_checks_total{cluster=\"default/out.example:8080\",endpoint=\"10.0.0.1:8080\",result=\"failure\"} 4\n"));
    assert_non_null(strstr(out.p, "endpoint=\"10.0.0.1:8080\",result=\"timeout\"} 0\n"));
    buf_free(&out);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge),  cmocka_unit_test(test_pause), cmocka_unit_test(test_http), cmocka_unit_test(test_flapping), cmocka_unit_test(test_timeouts), cmocka_unit_test(test_panic),
        cmocka_unit_test(test_tcp),    cmocka_unit_test(test_grpc),  cmocka_unit_test(test_plans), cmocka_unit_test(test_stop),    cmocka_unit_test(test_shares),   cmocka_unit_test(test_limit),
        cmocka_unit_test(test_inside), cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
