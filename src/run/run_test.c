/* run_test.c - the controller: starts, restarts, probes, rollouts, drains, output and files, in the world of run_world_test.h. What outlives an
 * engine is in run_adopt_test.c.
 */
#include "http.h"
#include "repeat_test.h"
#include "run_world_test.h"

static void test_start_ready(void **state)
{
    (void)state;
    world_start(1);
    uint64_t t0 = sim_now_ms();
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE});
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_true(sim_now_ms() - t0 < 500); /* not a full period: fast repeats */
    struct seen s = look();
    assert_int_equal(s.ready, 2);
    assert_int_equal(s.revision, 1);
    assert_string_equal(s.phase, "Running");
    assert_string_equal(s.why, "");
    size_t n;
    const struct live_endpoint *eps = run_endpoints(W.run, &n);
    assert_int_equal(n, 2);
    assert_string_equal(eps[0].deployment, "shop");
    assert_int_equal(strlen(eps[0].name), strlen("shop-") + 8 + 1 + 5);
    const char *ns, *dep, *name;
    assert_true(run_replica_name(W.run, eps[0].replica_id, &ns, &dep, &name));
    assert_string_equal(ns, "default");
    assert_false(run_replica_name(W.run, 1, &ns, &dep, &name));
    struct buf m = {0};
    run_metrics(W.run, &m);
    assert_non_null(strstr(m.p, "kube_deployment_status_replicas_ready{namespace=\"default\",deployment=\"shop\"} 2"));
    buf_free(&m);
    /* scale to nothing: everything is told, forgotten, and no plan holds it */
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 0, .probes = READY_PROBE});
    assert_true(sim_run(done_gone, NULL, 60000));
    pass_ms(50);
    assert_int_equal(W.ups, 2);
    assert_int_equal(W.gones, 2);
    assert_int_equal(W.forgets, 2);
    world_stop();
}

static void test_back_off(void **state)
{
    (void)state;
    world_start(2);
    W.crash_ms = 10;
    want(&(struct spec){.name = "shop", .cmd = "crash", .replicas = 1});
    uint32_t eight = 9;
    assert_true(sim_run(done_starts, &eight, 1000000));
    for (int i = 1; i < 9; i++) {
        uint64_t gap = W.start_at[i] - W.start_at[i - 1], full = MIN(1000ULL << (i - 1), 60000ULL);
        assert_in_range(gap, full * 9 / 10, full + 100);
    }
    struct seen s = look();
    assert_int_equal(s.restarts, 8);
    assert_int_equal(s.replicas, 1);
    assert_string_equal(s.rwhy, "exit status 1");
    char name[64];
    (void)snprintf(name, sizeof name, "%s", s.name);
    /* ten minutes of running reset it */
    W.crash_ms = RUN_STABLE_MS + 1000;
    uint32_t ten = 10;
    assert_true(sim_run(done_starts, &ten, 200000));
    uint32_t eleven = 11;
    assert_true(sim_run(done_starts, &eleven, RUN_STABLE_MS + 10000));
    assert_in_range(W.start_at[10] - W.start_at[9], RUN_STABLE_MS + 1000 + 900, RUN_STABLE_MS + 1000 + 1100);
    assert_string_equal(look().name, name); /* a restart keeps the name */
    world_stop();
}

static void test_exit_reasons(void **state)
{
    (void)state;
    static const struct { const char *cmd, *probes, *why; } cases[] = {
        {"oom", ",\"resources\":{\"limits\":{\"memory\":\"256Mi\"}}", "out of memory (limit 256Mi)"},
        {"segv", "", "killed by SIGSEGV"},
        {"nostart", "", "could not start: nostart: not found in PATH"},
        {"huge", "", "could not start: arguments and environment exceed 131072 bytes"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        world_start(3 + i);
        want(&(struct spec){.name = "shop", .cmd = cases[i].cmd, .replicas = 1, .probes = cases[i].probes});
        pass_ms(100);
        struct seen s = look();
        assert_string_equal(s.phase, "BackOff");
        assert_string_equal(s.rwhy, cases[i].why);
        assert_non_null(strstr(s.why, cases[i].why));
        pass_ms(10000); /* start failures back off too */
        assert_true(W.starts <= 5);
        want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1});
        assert_true(sim_run(done_complete, NULL, 60000)); /* repaired by a new revision */
        world_stop();
    }
}

static void test_liveness(void **state)
{
    (void)state;
    world_start(7);
    want(&(struct spec){.name = "shop", .cmd = "stubborn", .replicas = 1, .probes = READY_PROBE LIVE_PROBE, .pod_extra = "\"terminationGracePeriodSeconds\":3,"});
    assert_true(sim_run(done_complete, NULL, 5000));
    int32_t pid = look().pid;
    pass_ms(20000);
    assert_int_equal(look().pid, pid);
    W.live_ok = false;
    uint64_t t0 = sim_now_ms();
    uint32_t two = 2;
    assert_true(sim_run(done_starts, &two, 60000));
    assert_true(W.kill_at - W.term_at >= 3000 && W.kill_at - W.term_at <= 3010); /* SIGTERM, grace, SIGKILL */
    assert_in_range(sim_now_ms() - t0, 2000 + 3000 + 900, 3100 + 3000 + 1100);
    struct seen s = look();
    assert_int_equal(s.restarts, 1);
    assert_string_equal(s.rwhy, "liveness probe failed: exec live: exit status 1");
    W.live_ok = true;
    assert_true(sim_run(done_complete, NULL, 60000));
    world_stop();
}

static void test_startup_gate(void **state)
{
    (void)state;
    world_start(8);
    W.live_ok = false; /* must not be asked before the startup probe is through */
    W.ready_ms_min = W.ready_ms_max = 8000;
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1, .probes =
        ",\"startupProbe\":{\"exec\":{\"command\":[\"startup\"]},\"periodSeconds\":2,\"failureThreshold\":5}" READY_PROBE LIVE_PROBE});
    pass_ms(7500);
    assert_int_equal(look().restarts, 0); /* fast repeats do not use up the threshold */
    assert_int_equal(look().ready, 0);
    W.live_ok = true;
    assert_true(sim_run(done_complete, NULL, 3000));
    /* a startup that never succeeds: restart after failureThreshold periods */
    W.ready_ms_min = W.ready_ms_max = 1000000;
    assert_int_equal(run_restart(W.run, "default", "shop"), OK);
    pass_ms(7500);
    assert_int_equal(look().restarts, 0);
    pass_ms(3000);
    assert_int_equal(look().restarts, 1);
    assert_int_equal(look().ready, 1); /* the old one serves */
    world_stop();
}

static void test_readiness_lost(void **state)
{
    (void)state;
    world_start(9);
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE});
    assert_true(sim_run(done_complete, NULL, 5000));
    uint32_t changes = W.endpoints_changes;
    W.ready_ok = false;
    pass_ms(1500);
    assert_int_equal(look().ready, 2); /* failureThreshold 3 */
    pass_ms(2600);
    assert_int_equal(look().ready, 0);
    assert_true(W.endpoints_changes > changes);
    assert_string_equal(look().rwhy, "readiness probe failed: exec ready: exit status 1: not yet");
    assert_int_equal(look().restarts, 0);
    W.ready_ok = true;
    pass_ms(1100);
    assert_int_equal(look().ready, 2);
    world_stop();
}

/* Repeats of what has not succeeded yet grow apart: 50, 100, 200, 400, 800, then 1,000 ms. */
/* A workload may say anything: what is kept of it can be shown, put into JSON and logged. */
static void test_why_clean(void **state)
{
    (void)state;
    world_start(13);
    want(&(struct spec){.name = "shop", .cmd = "bad", .replicas = 1, .probes = READY_PROBE});
    W.exec_says = SLICE("\377\376\303\251\033[31m\na\200 \303");
    pass_ms(3000);
    assert_string_equal(look().rwhy, "readiness probe failed: exec ready: exit status 1: ??\303\251?[31m?a? ?");
    world_stop();
}

static void test_fast_repeats(void **state)
{
    (void)state;
    world_start(23);
    want(&(struct spec){.name = "shop", .cmd = "bad", .replicas = 1, .probes = ",\"readinessProbe\":{\"exec\":{\"command\":[\"ready\"]},\"periodSeconds\":10}"});
    pass_ms(10000);
    assert_in_range(W.execs, 12, 15);
    want(&(struct spec){.name = "shop", .cmd = "bad", .version = "v2", .replicas = 1, .probes = ",\"readinessProbe\":{\"exec\":{\"command\":[\"ready\"]},\"periodSeconds\":10,\"initialDelaySeconds\":30}"});
    pass_ms(100);
    uint32_t execs = W.execs;
    want(&(struct spec){.name = "shop", .cmd = "bad", .replicas = 0});
    assert_true(sim_run(done_gone, NULL, 60000));
    assert_true(W.execs <= execs + 1); /* nothing before the initial delay */
    world_stop();
}

static void test_lost_exec(void **state)
{
    (void)state;
    world_start(10);
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1, .probes = ",\"readinessProbe\":{\"exec\":{\"command\":[\"lost\"]},\"periodSeconds\":1,\"timeoutSeconds\":2}"});
    pass_ms(4000);
    assert_string_equal(look().rwhy, "readiness probe failed: exec lost: timed out after 2 s");
    W.exec_ms = 10;
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 0});
    assert_true(sim_run(done_gone, NULL, 60000));
    world_stop();
}

static uint64_t drain_order(const char *probes, const char *pod, uint32_t flight_polls, const char *cmd)
{
    world_start(11);
    struct buf all = {0};
    buf_printf(&all, "%s%s", READY_PROBE, probes);
    struct spec s = {.name = "shop", .cmd = cmd, .replicas = 1, .probes = all.p, .pod_extra = pod};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.flight_until_polls = flight_polls;
    uint64_t t0 = sim_now_ms();
    s.replicas = 0;
    want(&s);
    pass_ms(2);
    size_t n;
    (void)run_endpoints(W.run, &n);
    assert_int_equal(n, 0); /* out of the endpoints first */
    assert_string_equal(look().phase, "Draining");
    assert_true(sim_run(done_gone, NULL, 600000));
    buf_free(&all);
    return t0;
}

static void test_drain(void **state)
{
    (void)state;
    uint64_t t0 = drain_order(",\"lifecycle\":{\"preStop\":{\"exec\":{\"command\":[\"prestop\"]}}}", "\"terminationGracePeriodSeconds\":5,", 20, "ok");
    assert_true(W.flight_polls == 21 && W.flight_end_at - t0 >= 200);
    assert_true(W.pre_stop_at >= W.flight_end_at && W.term_at > W.pre_stop_at && !W.kill_at);
    assert_true(W.procs[0].order_pre_stop < W.procs[0].order_term);
    world_stop();
    /* in flight for ever: at most the grace period; SIGTERM ignored: SIGKILL a grace period later */
    t0 = drain_order("", "\"terminationGracePeriodSeconds\":5,", 1u << 30, "stubborn");
    assert_in_range(W.term_at - t0, 5000, 5020);
    assert_in_range(W.kill_at - W.term_at, 5000, 5010);
    world_stop();
    /* a preStop that never ends uses the grace period up; then 2 s */
    t0 = drain_order(",\"lifecycle\":{\"preStop\":{\"exec\":{\"command\":[\"prestop\",\"forever\"]}}}", "\"terminationGracePeriodSeconds\":4,", 0, "stubborn");
    assert_in_range(W.term_at - W.pre_stop_at, 4000, 4010);
    assert_in_range(W.kill_at - W.term_at, 2000, 2010);
    world_stop();
    /* sleep, and a grace period that started with it */
    t0 = drain_order(",\"lifecycle\":{\"preStop\":{\"sleep\":{\"seconds\":3}}}", "\"terminationGracePeriodSeconds\":5,", 0, "stubborn");
    assert_in_range(W.term_at - t0, 3000, 3030);
    assert_in_range(W.kill_at - W.term_at, 1990, 2010);
    world_stop();
    /* no grace: killed at once */
    t0 = drain_order("", "\"terminationGracePeriodSeconds\":0,", 1u << 30, "ok");
    assert_true(W.term_at == 0 && W.kill_at - t0 < 30);
    world_stop();
}

/* ---- probes over the network ---- */

struct http_peer { struct listener ln; int status; bool silent, huge; uint32_t hits; char seen[512]; };
static struct http_peer peer;
struct peer_conn { struct stream s; };
static void peer_data(struct stream *s, char *p, size_t n)
{
    struct buf b = {0};
    (void)snprintf(peer.seen, sizeof peer.seen, "%.*s", (int)MIN(n, sizeof peer.seen - 1), p);
    if (peer.silent)
        return;
    buf_printf(&b, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %d Whatever\r\nContent-Length: 2\r\n", peer.status);
    for (int i = 0; peer.huge && i < 60; i++)
        buf_printf(&b, "X-Long-%d: %0400d\r\n", i, i);
    buf_adds(&b, "\r\nok");
    (void)stream_write_slice(s, buf_slice(&b));
    buf_free(&b);
}
static void peer_end(struct stream *s) { stream_close(s); }
static void peer_failed(struct stream *s, enum err e) { (void)e; stream_close(s); }
static void peer_drained(struct stream *s) { (void)s; }
static void peer_released(struct stream *s) { mem_free(CONTAINER_OF(s, struct peer_conn, s)); }
static void peer_accepted(struct listener *ln, int fd, const struct addr *from)
{
    (void)from;
    static const struct stream_ops ops = {.data = peer_data, .eof = peer_end, .drained = peer_drained, .failed = peer_failed, .released = peer_released};
    struct peer_conn *c = mem_new(MEM_MISC, sizeof *c);
    peer.hits++;
    stream_adopt(&c->s, ln->loop, &ops, fd);
}
static int peer_listen(uint16_t port)
{
    int fd;
    struct addr a = addr_ip4(0x7f000001u, port);
    assert_int_equal(listen_socket(&a, 16, false, &fd), OK);
    peer = (struct http_peer){.status = 200};
    listener_start(&peer.ln, W.loop, fd, false, peer_accepted);
    return fd;
}
static void peer_stop(int fd)
{
    listener_stop(&peer.ln);
    socket_close(fd);
}

static void test_http_probe(void **state)
{
    (void)state;
    world_start(12);
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1, .probes =
        ",\"ports\":[{\"containerPort\":8080,\"name\":\"http\"}],\"readinessProbe\":{\"httpGet\":{\"path\":\"/health\",\"port\":\"http\",\"httpHeaders\":[{\"name\":\"X-A\",\"value\":\"b\"}]},\"periodSeconds\":1,\"failureThreshold\":1}"});
    pass_ms(300);
    assert_string_equal(look().rwhy, "readiness probe failed: GET /health: connection refused");
    int fd = peer_listen(8080);
    assert_true(sim_run(done_complete, NULL, 1100));
    assert_non_null(strstr(peer.seen, "GET /health HTTP/1.1\r\n"));
    assert_non_null(strstr(peer.seen, "\r\nUser-Agent: weir-probe\r\n"));
    assert_non_null(strstr(peer.seen, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(peer.seen, "\r\nHost: 127.0.0.1:8080\r\n"));
    assert_non_null(strstr(peer.seen, "\r\nX-A: b\r\n"));
    peer.status = 503;
    pass_ms(1200);
    assert_string_equal(look().rwhy, "readiness probe failed: GET /health: 503");
    assert_int_equal(look().ready, 0);
    peer.status = 302; /* a redirect is success */
    pass_ms(1200);
    assert_int_equal(look().ready, 1);
    peer.silent = true;
    pass_ms(2300);
    assert_string_equal(look().rwhy, "readiness probe failed: GET /health: timed out after 1 s");
    peer.silent = false;
    peer.huge = true;
    pass_ms(2300);
    assert_int_equal(look().ready, 0);
    assert_true(W.run->limit_hits[LIMIT_PROBE_ANSWER] > 0);
    assert_string_equal(look().rwhy, "readiness probe failed: GET /health: the head of the answer is larger than 16 KiB");
    W.socket_none = true;
    pass_ms(1200);
    assert_string_equal(look().rwhy, "readiness probe failed: GET /health: no socket in its namespace");
    peer_stop(fd);
    world_stop();
}

/* ---- grpc ---------------------------------------------------------------------------------------------------------------- */

/* A server of the health protocol on 127.0.0.1:9090. */
static struct {
    struct http_srv_conf conf;
    struct head_out out;
    struct listener ln;
    const char *frame;  /* 7 bytes of answer; NULL: none comes */
    char body[64];
    size_t body_n;
    uint32_t open;
} health;

static void health_answer(struct http_req *r)
{
    struct iovec v = {(void *)(uintptr_t)health.frame, 7};
    if (!health.frame)
        return;
    head_clear(&health.out);
    head_status(&health.out, 200, SLICE(""));
    head_lit(&health.out, "Content-Type: application/grpc\r\n");
    http_req_answer(r, &health.out, H1_CHUNKED, 0, (struct pieces){&v, 1, 7}, false);
    http_req_end(r, SLICE("grpc-status: 0\r\n"));
}

static void health_body(struct http_req *r, struct pieces body, bool end)
{
    for (int i = 0; i < body.n; i++) {
        assert_true(health.body_n + body.v[i].iov_len <= sizeof health.body);
        memcpy(health.body + health.body_n, body.v[i].iov_base, body.v[i].iov_len);
        health.body_n += body.v[i].iov_len;
    }
    if (end)
        health_answer(r);
}

static void health_request(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    (void)c;
    assert_true(slice_is(h->path, "/grpc.health.v1.Health/Check"));
    assert_true(h->major == 2);
    health.body_n = 0;
    health_body(r, body, end);
}
static void health_drained(struct http_req *r) { (void)r; }
static void health_aborted(struct http_req *r, enum err e) { (void)r, (void)e; }
static void health_refused(struct http_srv *c, uint16_t status, const char *label) { (void)c, (void)status, (void)label; }
static void health_released(struct http_srv *c)
{
    health.open--;
    mem_free(c);
}

static void health_accepted(struct listener *ln, int fd, const struct addr *from)
{
    static const struct http_srv_ops ops = {.request = health_request, .body = health_body, .drained = health_drained, .aborted = health_aborted, .refused = health_refused, .released = health_released};
    (void)from;
    struct http_srv *c = mem_new(MEM_SIM, sizeof *c);
    health.open++;
    http_srv_open(c, ln->loop, &health.conf, &ops, fd, NULL);
}

static void test_grpc_probe(void **state)
{
    (void)state;
    world_start(13);
    memset(&health, 0, sizeof health);
    head_out_init(&health.out);
    http_srv_conf_default(&health.conf);
    health.conf.h1.limits = &h1_limits_default;
    health.conf.h1.out = &health.out;
    health.frame = "\0\0\0\0\2\x08\1";
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1, .probes = ",\"readinessProbe\":{\"grpc\":{\"port\":9090,\"service\":\"shop\"},\"periodSeconds\":1,\"failureThreshold\":1}"});
    pass_ms(300);
    assert_string_equal(look().rwhy, "readiness probe failed: gRPC health of port 9090: connection refused");
    struct addr a = addr_ip4(0x7f000001u, 9090);
    int fd = sim_listen(0, &a);
    listener_start(&health.ln, W.loop, fd, false, health_accepted);
    assert_true(sim_run(done_complete, NULL, 1100));
    assert_int_equal(health.body_n, 11);
    assert_memory_equal(health.body, "\0\0\0\0\6\x0a\4shop", 11);
    health.frame = "\0\0\0\0\2\x08\2";
    pass_ms(1200);
    assert_string_equal(look().rwhy, "readiness probe failed: gRPC health of port 9090: NOT_SERVING");
    assert_int_equal(look().ready, 0);
    health.frame = "\0\0\0\0\2\x08\1";
    pass_ms(1200);
    assert_int_equal(look().ready, 1);
    health.frame = NULL;
    pass_ms(2300);
    assert_string_equal(look().rwhy, "readiness probe failed: gRPC health of port 9090: timed out after 1 s");
    assert_true(health.open <= 1); /* what timed out is closed */
    run_stop(W.run, on_stopped); /* with a check under way */
    assert_true(sim_run(done_stopped, NULL, 60000));
    pass_ms(100);
    assert_int_equal(health.open, 0);
    listener_stop(&health.ln);
    socket_close(fd);
    head_out_fini(&health.out);
    world_stop();
}

static void test_port_check(void **state)
{
    (void)state;
    world_start(13);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 1, .probes = ",\"ports\":[{\"containerPort\":9000}]"};
    want(&s);
    pass_ms(2000);
    assert_int_equal(look().ready, 0);
    assert_string_equal(look().rwhy, "its port 9000 does not accept connections yet: connection refused");
    int fd = peer_listen(9000);
    assert_true(sim_run(done_complete, NULL, 1200));
    uint32_t hits = peer.hits;
    pass_ms(30000);
    assert_int_equal(peer.hits, hits); /* once is enough */
    peer_stop(fd);
    /* a port that never opens does not keep it from traffic for ever */
    assert_int_equal(run_restart(W.run, "default", "shop"), OK);
    pass_ms(RUN_ACCEPT_MS_MAX - 1000);
    assert_int_equal(look().replicas, 2);
    pass_ms(5000);
    assert_true(look().complete);
    assert_int_equal(W.run->limit_hits[LIMIT_ACCEPT], 1);
    world_stop();
}

static void test_pre_stop_http(void **state)
{
    (void)state;
    world_start(35);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 1, .probes = READY_PROBE ",\"lifecycle\":{\"preStop\":{\"httpGet\":{\"path\":\"/bye\",\"port\":7000}}}"};
    int fd = peer_listen(7000);
    peer.status = 500; /* does not matter */
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    s.replicas = 0;
    want(&s);
    assert_true(sim_run(done_gone, NULL, 60000));
    assert_int_equal(peer.hits, 1);
    assert_non_null(strstr(peer.seen, "GET /bye HTTP/1.1\r\n"));
    assert_int_equal(W.procs[0].terms, 1);
    peer.silent = true; /* no answer: the grace period, then SIGTERM */
    s.replicas = 1;
    s.pod_extra = "\"terminationGracePeriodSeconds\":4,";
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    s.replicas = 0;
    want(&s);
    uint64_t t0 = sim_now_ms();
    assert_true(sim_run(done_gone, NULL, 60000));
    assert_in_range(W.term_at - t0, 4000, 4030);
    peer_stop(fd);
    world_stop();
}

/* ---- rollouts ---- */

static void test_never_ready_keeps_old(void **state)
{
    (void)state;
    world_start(14);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 3, .probes = READY_PROBE, .extra = "\"progressDeadlineSeconds\":60,"};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.guard = true;
    W.min_ready = 3;
    W.max_total = 4; /* 25 % of 3: surge 1, unavailable 0 */
    s.cmd = "bad";
    s.version = "v2";
    want(&s);
    pass_ms(30000);
    struct seen a = look();
    assert_int_equal(a.ready, 3);
    assert_int_equal(a.updated, 1);
    assert_false(a.complete);
    assert_null(strstr(a.why, "deadline"));
    pass_ms(40000);
    a = look();
    assert_non_null(strstr(a.why, "progress deadline exceeded: 1 of 3 replicas updated"));
    assert_non_null(strstr(a.why, "readiness probe failed: exec ready: exit status 1"));
    s.cmd = "ok"; /* back to the first: its replicas are current again */
    s.version = "v1";
    uint32_t starts = W.starts;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 60000));
    assert_int_equal(W.starts, starts);
    assert_int_equal(look().revision, 3);
    world_stop();
}

/* Old replicas that lost their readiness for a while are kept as long as the new ones have proved nothing. */
static void test_unproven_keeps_old(void **state)
{
    (void)state;
    world_start(22);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.ready_ok = false;
    pass_ms(5000);
    assert_int_equal(look().ready, 0);
    s.cmd = "bad";
    s.version = "v2";
    want(&s);
    pass_ms(5000);
    assert_int_equal(look().replicas, 3);
    assert_int_equal(W.procs[0].terms + W.procs[1].terms, 0);
    W.ready_ok = true;
    pass_ms(2000);
    assert_int_equal(look().ready, 2);
    s.version = "v3"; /* a better one: the unproven v2 goes before those that serve */
    s.cmd = "ok";
    W.guard = true;
    W.min_ready = 2;
    W.max_total = 3;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 60000));
    world_stop();
}

static void test_recreate(void **state)
{
    (void)state;
    world_start(15);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 3, .probes = READY_PROBE, .strategy = "\"strategy\":{\"type\":\"Recreate\"},"};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.guard = true;
    W.max_total = 3;
    s.version = "v2";
    want(&s);
    assert_true(sim_run(done_complete, NULL, 60000));
    for (size_t i = 0; i < 3; i++)
        assert_true(W.procs[i].exited);
    for (size_t i = 3; i < 6; i++)
        assert_true(W.procs[i].started_ms > W.term_at);
    assert_int_equal(look().revision, 2);
    world_stop();
}

static void test_paused(void **state)
{
    (void)state;
    world_start(16);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE, .extra = "\"paused\":true,"};
    want(&s);
    pass_ms(5000);
    assert_int_equal(W.starts, 0); /* new and paused: nothing */
    s.extra = NULL;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    s.extra = "\"paused\":true,";
    s.version = "v2";
    want(&s);
    pass_ms(5000);
    assert_int_equal(W.starts, 2);
    assert_non_null(strstr(look().why, "paused"));
    assert_int_equal(run_restart(W.run, "default", "shop"), ERR_INVALID);
    s.replicas = 3; /* scaling goes on, with the revision that is there */
    want(&s);
    pass_ms(5000);
    assert_int_equal(look().ready, 3);
    assert_int_equal(look().revision, 1);
    s.replicas = 1;
    want(&s);
    pass_ms(5000);
    assert_int_equal(look().replicas, 1);
    s.extra = NULL;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(look().revision, 2);
    world_stop();
}

static void test_scale_victims(void **state)
{
    (void)state;
    world_start(17);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    pass_ms(1000);
    int32_t first = look().pid;
    s.replicas = 4;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    s.replicas = 1;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(look().pid, first); /* the youngest went */
    s.replicas = 3;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.procs[0].ready_at_ms = UINT64_MAX; /* the oldest, but not ready any more */
    pass_ms(5000);
    assert_int_equal(look().ready, 2);
    s.replicas = 2;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(W.procs[0].terms, 1);
    assert_int_equal(run_restart(W.run, "default", "nobody"), ERR_NOTFOUND);
    world_stop();
}

/* A node's share: of the replicas, and of what a rollout may have more and less. */
static void test_share(void **state)
{
    (void)state;
    world_start(27);
    W.share = 2;
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 6, .probes = READY_PROBE, .strategy = "\"strategy\":{\"rollingUpdate\":{\"maxSurge\":2,\"maxUnavailable\":1}},"};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(look().ready, 2);
    W.guard = true;
    W.min_ready = 2;  /* 1 * 2 / 6 */
    W.max_total = 3;  /* 2 + 2 * 2 / 6, but at least one of both */
    s.version = "v2";
    want(&s);
    assert_true(sim_run(done_complete, NULL, 60000));
    W.guard = false;
    W.share = 4;
    run_shares(W.run);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(look().ready, 4);
    W.share = 0;
    run_shares(W.run);
    assert_true(sim_run(done_complete, NULL, 60000));
    assert_true(!look().replicas && !run_has(W.run, "default", "shop"));
    world_stop();
}

static void count_once(void *ctx, uint64_t id) { ++*(uint32_t *)ctx; }

/* Gone in time, whatever it does, and started again when the share says so. */
static void test_drop(void **state)
{
    (void)state;
    uint32_t once = 0;
    world_start(28);
    struct spec s = {.name = "shop", .cmd = "stubborn", .replicas = 2, .probes = READY_PROBE, .strategy = "\"strategy\":{\"type\":\"Recreate\"},"};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    run_once_ids(W.run, count_once, &once);
    assert_true(once == 2 && W.once_starts == 2 && run_has(W.run, "default", "shop"));
    W.flight_until_polls = 10000; /* requests are not waited for */
    W.share = 0;
    run_drop(W.run, "default", "shop", 700);
    run_shares(W.run);
    pass_ms(600);
    assert_true(W.procs[0].terms == 1 && !W.procs[0].exited);
    pass_ms(200);
    assert_true(W.procs[0].exited && W.procs[1].exited && W.procs[0].kills);
    assert_false(run_has(W.run, "default", "shop"));
    W.share = 1;
    run_shares(W.run);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(look().ready, 1);
    W.start_ms_max = 400;
    W.share = 2;
    run_shares(W.run);
    pass_ms(1); /* one is being started */
    run_drop(W.run, "default", "shop", 300);
    pass_ms(800);
    for (size_t i = 2; i < 4; i++)
        assert_true(W.procs[i].exited);
    world_stop();
}

static void test_min_ready(void **state)
{
    (void)state;
    world_start(18);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 1, .probes = READY_PROBE, .extra = "\"minReadySeconds\":10,"};
    want(&s);
    pass_ms(5000);
    assert_int_equal(look().ready, 1);
    assert_false(look().complete);
    assert_true(sim_run(done_complete, NULL, 6000));
    s.version = "v2";
    want(&s);
    pass_ms(8000);
    assert_int_equal(look().ready, 2); /* the old one stays until the new one is available */
    assert_true(sim_run(done_complete, NULL, 6000));
    world_stop();
}

static void test_starts_limit(void **state)
{
    (void)state;
    world_start(19);
    W.start_ms_max = 100;
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 60, .probes = READY_PROBE});
    assert_true(sim_run(done_complete, NULL, 20000));
    assert_int_equal(W.starting_max, RUN_STARTS_MAX);
    assert_true(W.run->limit_hits[LIMIT_STARTS] > 0);
    world_stop();
}

static void test_stop(void **state)
{
    (void)state;
    world_start(20);
    struct spec two[] = {{.name = "a", .cmd = "ok", .replicas = 2, .probes = READY_PROBE}, {.name = "b", .cmd = "nostart", .replicas = 2}};
    want_n(two, 2);
    pass_ms(500);
    run_stop(W.run, on_stopped);
    assert_true(sim_run(done_stopped, NULL, 60000));
    assert_int_equal(W.run->replicas_n, 0);
    for (size_t i = 0; i < W.procs_n; i++)
        assert_false(W.procs[i].there);
    world_stop();
    world_start(21); /* nothing there: done all the same */
    run_stop(W.run, on_stopped);
    assert_true(sim_run(done_stopped, NULL, 1000));
    world_stop();
}

/* One seed: a history of new templates, bad ones among them, restarts and failures before readiness. */
static void rolling_history(uint64_t seed)
{
    world_start(seed);
    uint32_t n = 1 + (uint32_t)rnd(8), surge_pct = (uint32_t)rnd(101), unavailable_pct = (uint32_t)rnd(101);
    W.start_ms_max = 1 + (uint32_t)rnd(500);
    W.ready_ms_max = W.ready_ms_min + (uint32_t)rnd(3000);
    W.term_ms_max = 1 + (uint32_t)rnd(2000);
    W.flight_until_polls = (uint32_t)rnd(200);
    struct buf strategy = {0}, extra = {0};
    bool pct = rnd(2);
    uint32_t su = pct ? surge_pct : (uint32_t)rnd(4), un = pct ? unavailable_pct : (uint32_t)rnd(n + 1);
    if (su == 0 && un == 0)
        su = 1;
    buf_printf(&strategy, pct ? "\"strategy\":{\"rollingUpdate\":{\"maxSurge\":\"%u%%\",\"maxUnavailable\":\"%u%%\"}}," : "\"strategy\":{\"rollingUpdate\":{\"maxSurge\":%u,\"maxUnavailable\":%u}},", su, un);
    buf_printf(&extra, "\"minReadySeconds\":%u,", rnd(3) ? 0u : (uint32_t)rnd(3));
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = n, .probes = READY_PROBE, .strategy = strategy.p, .extra = extra.p};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 120000));
    W.start_fail_pct = (uint32_t)rnd(30);
    W.crash_early_pct = (uint32_t)rnd(30);
    W.guard = true;
    struct workload of = {.obj = objset_find(W.set, OBJ_DEPLOYMENT, "default", "shop"), .share = n};
    W.min_ready = n - rollout_unavailable(&of);
    W.max_total = n + rollout_surge(&of);
    static const char *const versions[] = {"v1", "v2", "v3", "v4"};
    for (int i = 0; i < 5; i++) {
        s.version = versions[rnd(4)];
        s.cmd = rnd(4) ? "ok" : "bad";
        want(&s);
        if (rnd(3) == 0)
            assert_int_equal(run_restart(W.run, "default", "shop"), OK);
        pass_ms(rnd(2) ? rnd(3000) : rnd(30000));
    }
    s.cmd = "ok";
    s.version = "v9";
    want(&s);
    if (!sim_run(done_complete, NULL, 3000000)) {
        struct seen a = look();
        fail_msg("seed %llu: never complete: %s (%u replicas, %u ready, %u updated)", (unsigned long long)seed, a.why, a.replicas, a.ready, a.updated);
    }
    buf_free(&strategy);
    buf_free(&extra);
    world_stop();
}

static void test_rolling_seeds(void **state)
{
    (void)state;
    for (uint64_t seed = 1000; seed < 1000 + test_repeats(300); seed++)
        rolling_history(seed);
}

/* ---- output and files ---- */

static void test_output(void **state)
{
    (void)state;
    world_start(40);
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1});
    assert_true(sim_run(done_complete, NULL, 5000));
    struct replica *rp = CONTAINER_OF(workload_get(W.run, "default", "shop", false)->replicas.next, struct replica, link);
    struct outpipe *o = &rp->out[1];
    int p[2];
    assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
    o->fd = p[0]; /* a kernel pipe cannot be watched in the simulator: it is read by hand */
    assert_int_equal(write(p[1], "one\ntw", 6), 6);
    assert_true(outpipe_read(o, RUN_READ_MAX));
    assert_int_equal(W.lines_n, 1);
    assert_string_equal(W.line, "one");
    assert_true(W.line_err);
    assert_int_equal(write(p[1], "o\n\nthree\n", 9), 9);
    assert_true(outpipe_read(o, RUN_READ_MAX));
    assert_int_equal(W.lines_n, 4);
    assert_string_equal(W.line, "three");
    assert_null(o->part.p); /* memory only while a line is pending */
    static char big[2 * RUN_LINE_MAX + 3];
    memset(big, 'x', sizeof big);
    big[2 * RUN_LINE_MAX + 1] = '\n';
    big[2 * RUN_LINE_MAX + 2] = 'y';
    assert_int_equal(write(p[1], big, sizeof big), sizeof big);
    assert_true(outpipe_read(o, RUN_READ_MAX));
    assert_int_equal(W.lines_n, 7); /* 16 KiB, 16 KiB, 1 */
    assert_int_equal(W.line_n, 1);
    assert_int_equal(W.run->limit_hits[LIMIT_LINE], 2);
    memset(big, 'z', RUN_LINE_MAX);
    big[RUN_LINE_MAX - 1] = '\n'; /* y and 16,383 z: exactly a full line */
    assert_int_equal(write(p[1], big, RUN_LINE_MAX), RUN_LINE_MAX);
    assert_true(outpipe_read(o, RUN_READ_MAX));
    assert_int_equal(W.lines_n, 8);
    assert_int_equal(W.line_n, RUN_LINE_MAX);
    assert_int_equal(W.run->limit_hits[LIMIT_LINE], 2);
    assert_int_equal(write(p[1], "last", 4), 4);
    (void)close(p[1]);
    proc_exit(&W.procs[0], 0, false, 1);
    pass_ms(50);
    assert_int_equal(W.lines_n, 9); /* what is left is read at the exit, also without a newline */
    assert_string_equal(W.line, "last");
    assert_int_equal(o->fd, -1);
    world_stop();
}

static void text_of(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    assert_true(n >= 0);
    text[n] = 0;
    (void)close(fd);
}

static void test_files(void **state)
{
    (void)state;
    world_start(41);
    char path[128], text[8192], hosts[4096];
    (void)snprintf(path, sizeof path, "%s/in-place", W.dir);
    (void)mkdir(W.dir, 0700);
    struct stat a, b;
    assert_int_equal(run_file_write(path, SLICE("a long text\n")), OK);
    assert_int_equal(stat(path, &a), 0);
    assert_int_equal(run_file_write(path, SLICE("short\n")), OK);
    assert_int_equal(stat(path, &b), 0);
    assert_true(a.st_ino == b.st_ino && b.st_size == 6);
    assert_int_not_equal(run_file_write("/nowhere/at/all", SLICE("x")), OK);
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 1});
    (void)snprintf(path, sizeof path, "%s/net/default.resolv", W.dir);
    text_of(path, text, sizeof text);
    assert_non_null(strstr(text, "search default.svc.cluster.local svc.cluster.local cluster.local\n"));
    (void)snprintf(path, sizeof path, "%s/net/default.hosts", W.dir);
    text_of(path, text, sizeof text);
    assert_string_equal(text, "127.0.0.1 localhost\n127.255.255.254 kafka\n");
    (void)snprintf(path, sizeof path, "%s/net/default.host-hosts", W.dir);
    text_of(path, text, sizeof text);
    text_of("/etc/hosts", hosts, sizeof hosts);
    assert_int_equal(strncmp(text, hosts, strlen(hosts)), 0); /* the host's lines are all there */
    assert_non_null(strstr(text + strlen(hosts), "127.0.0.1 kafka\n"));
    pass_ms(200);
    (void)snprintf(path, sizeof path, "%s/run.state", W.dir);
    const struct buf *saved = sim_file(path);
    assert_non_null(saved);
    assert_true(slice_starts(buf_slice(saved), SLICE("weir-run 1\nworkload default shop 0 1 ")));
    sim_disk_fail(1, 28);
    want(&(struct spec){.name = "shop", .cmd = "ok", .replicas = 2});
    pass_ms(200);
    assert_int_equal(W.run->save_failures, 1);
    world_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_ready), cmocka_unit_test(test_back_off), cmocka_unit_test(test_exit_reasons),
        cmocka_unit_test(test_liveness), cmocka_unit_test(test_startup_gate), cmocka_unit_test(test_readiness_lost),
        cmocka_unit_test(test_why_clean), cmocka_unit_test(test_fast_repeats), cmocka_unit_test(test_lost_exec), cmocka_unit_test(test_drain), cmocka_unit_test(test_http_probe), cmocka_unit_test(test_grpc_probe),
        cmocka_unit_test(test_port_check), cmocka_unit_test(test_pre_stop_http), cmocka_unit_test(test_never_ready_keeps_old), cmocka_unit_test(test_unproven_keeps_old), cmocka_unit_test(test_recreate),
        cmocka_unit_test(test_paused), cmocka_unit_test(test_scale_victims), cmocka_unit_test(test_min_ready), cmocka_unit_test(test_share), cmocka_unit_test(test_drop),
        cmocka_unit_test(test_starts_limit), cmocka_unit_test(test_stop), cmocka_unit_test(test_rolling_seeds),
        cmocka_unit_test(test_output), cmocka_unit_test(test_files),
    };
    int failed = cmocka_run_group_tests_name("run", tests, NULL, NULL);
    clean_up();
    return failed;
}
