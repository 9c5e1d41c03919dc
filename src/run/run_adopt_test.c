/* run_adopt_test.c - what outlives an engine: adoption after a crash, and the hand-over of an upgrade, in the world of run_world_test.h. */
#include "repeat_test.h"
#include "run_world_test.h"

/* A new run is told what sup has. */
static void adopt_all(void)
{
    run_make();
    for (size_t i = 0; i < W.procs_n; i++) {
        struct proc *p = &W.procs[i];
        if (!p->there)
            continue;
        struct sup_replica rep = {.id = p->id, .label = p->label, .pid = p->pid, .out_fd = -1, .err_fd = -1, .listen_fd = -1, .exited = p->exited,
            .exit_status = p->status, .oom_killed = p->oom, .started_wall_ns = p->started_wall_ns};
        if (!p->started && !p->exited)
            p->started = true; /* sup finished it meanwhile */
        run_on_adopt(W.run, &rep);
    }
}

/* The engine dies: run goes without a word to sup. */
static void engine_restart(uint32_t dead_ms)
{
    run_free(W.run);
    W.run = NULL;
    (void)sim_run(NULL, NULL, dead_ms + 1);
    adopt_all();
}

static enum err release_err;
static bool release_done;

static void on_released(void *ctx, enum err e)
{
    (void)ctx;
    release_err = e;
    release_done = true;
    if (e == OK) {
        run_free(W.run);
        W.run = NULL;
    }
}

static bool is_released(void *ctx)
{
    (void)ctx;
    return release_done;
}

/* The engine makes way for another. */
static void engine_hand_over(void)
{
    release_done = false;
    run_release(W.run, on_released);
    assert_true(sim_run(is_released, NULL, 20000));
    assert_int_equal(release_err, OK);
    adopt_all();
}

static void want_again(void)
{
    struct objset *set = W.set;
    run_want(W.run, set);
}

static void test_adopt(void **state)
{
    (void)state;
    world_start(30);
    struct spec two[] = {{.name = "a", .cmd = "ok", .replicas = 3, .probes = READY_PROBE LIVE_PROBE}, {.name = "b", .cmd = "crash", .replicas = 1}};
    W.crash_ms = 10;
    want_n(two, 2);
    pass_ms(5000);
    assert_int_equal(run_restart(W.run, "default", "a"), OK);
    pass_ms(10000);
    uint32_t starts = W.starts;
    engine_restart(0);
    size_t n;
    (void)run_endpoints(W.run, &n);
    assert_int_equal(n, 3); /* ready at once */
    uint32_t changes = W.endpoints_changes;
    want_again();
    (void)run_endpoints(W.run, &n);
    assert_int_equal(n, 3);
    pass_ms(500);
    assert_true(W.endpoints_changes > changes);
    assert_true(W.starts <= starts + 1); /* none of a's; b may have been due */
    uint32_t b = 0;
    LIST_FOREACH(it, &W.run->workloads)
        b += CONTAINER_OF(CONTAINER_OF(it, struct workload, link)->replicas.next, struct replica, link)->restarts;
    assert_true(b >= 3); /* b's count went on */
    assert_int_equal(workload_get(W.run, "default", "a", false)->revision_n, 2);
    /* probes start again, and say otherwise */
    W.ready_ok = false;
    pass_ms(4500);
    (void)run_endpoints(W.run, &n);
    assert_int_equal(n, 0);
    W.ready_ok = true;
    pass_ms(2000);
    /* gone from the wanted set while the engine was away: drained */
    run_free(W.run);
    W.run = NULL;
    objset_free(W.set);
    W.set = objset_new();
    run_make();
    for (size_t i = 0; i < W.procs_n; i++)
        if (W.procs[i].there) {
            struct sup_replica rep = {.id = W.procs[i].id, .label = W.procs[i].label, .pid = W.procs[i].pid, .out_fd = -1, .err_fd = -1, .listen_fd = -1,
                .exited = W.procs[i].exited, .exit_status = W.procs[i].status, .started_wall_ns = W.procs[i].started_wall_ns};
            run_on_adopt(W.run, &rep);
        }
    want_again();
    assert_true(sim_run(done_gone, NULL, 60000));
    pass_ms(100);
    assert_true(list_empty(&W.run->workloads));
    world_stop();
}

/* Doom is not forgotten with the engine, though the Deployment would have room for the replica again. */
static void test_adopt_doomed(void **state)
{
    (void)state;
    world_start(32);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.flight_until_polls = 1u << 30;
    s.replicas = 1;
    want(&s);
    pass_ms(200);
    assert_int_equal(W.procs[0].terms + W.procs[1].terms, 0); /* still waits for what is in flight */
    W.flight_until_polls = 0;
    engine_restart(0);
    s.replicas = 2;
    want(&s);
    pass_ms(20);
    assert_int_equal(W.procs[0].terms, 0);
    assert_int_equal(W.procs[1].terms, 1); /* the workers that had its requests are gone: no second wait */
    assert_true(sim_run(done_complete, NULL, 60000));
    assert_int_equal(W.starts, 3);
    assert_string_not_equal(W.procs[2].name, W.procs[1].name); /* a new replica, not a restart */
    world_stop();
}

/* While the former engine still has requests of it, a doomed replica waits for them; one that has its SIGTERM gets no second one. */
static void test_hand_over_doomed(void **state)
{
    (void)state;
    world_start(34);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE, .pod_extra = "\"terminationGracePeriodSeconds\":9,"};
    W.term_ms_max = 4000;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    W.flight_until_polls = 1u << 30;
    s.replicas = 1;
    want(&s);
    pass_ms(200);
    engine_hand_over();
    want_again();
    pass_ms(200);
    assert_int_equal(W.procs[0].terms + W.procs[1].terms, 0);
    W.flight_until_polls = 0;
    pass_ms(20);
    assert_int_equal(W.procs[1].terms, 1);
    engine_hand_over();
    want_again();
    assert_string_equal(rep_phase_name(CONTAINER_OF(workload_get(W.run, "default", "shop", false)->replicas.prev, struct replica, link)->phase), "Stopping");
    assert_true(sim_run(done_complete, NULL, 6000));
    assert_int_equal(W.procs[1].terms, 1);
    assert_int_equal(W.procs[1].kills, 0);
    assert_int_equal(W.starts, 2);
    world_stop();
}

/* A hand-over waits for starts under way and makes no others; nobody stops being ready, and what a pipe began to say is kept. */
static void test_hand_over(void **state)
{
    (void)state;
    world_start(35);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE};
    size_t n;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    s.replicas = 4;
    want(&s);
    pass_ms(1);
    assert_int_equal(W.run->starting_n, 2);
    struct replica *rp = CONTAINER_OF(workload_get(W.run, "default", "shop", false)->replicas.next, struct replica, link);
    buf_adds(&rp->out[1].part, "half a li ne\001");
    uint64_t id = rp->id;
    engine_hand_over();
    assert_int_equal(W.starts, 4);
    assert_int_equal(W.run->replicas_n, 4);
    rp = run_find(W.run, id);
    assert_int_equal(rp->out[0].part.n, 0);
    assert_true(slice_is(buf_slice(&rp->out[1].part), "half a li ne\001"));
    want_again();
    (void)run_endpoints(W.run, &n);
    assert_int_equal(n, 2);
    assert_true(sim_run(done_complete, NULL, 2000));
    assert_int_equal(W.starts, 4);
    pass_ms(100);
    engine_restart(0); /* a crash: what was half read then is not told again */
    rp = run_find(W.run, id);
    assert_int_equal(rp->out[1].part.n, 0);
    want_again();
    world_stop();
}

/* The back-off of a replica goes on where it was. */
static void test_hand_over_backoff(void **state)
{
    (void)state;
    world_start(36);
    W.crash_ms = 10;
    want(&(struct spec){.name = "shop", .cmd = "crash", .replicas = 1});
    pass_ms(20000); /* delays of about 1, 2, 4, 8 s */
    uint32_t starts = W.starts;
    struct replica *rp = CONTAINER_OF(workload_get(W.run, "default", "shop", false)->replicas.next, struct replica, link);
    assert_int_equal(rp->phase, PH_BACKOFF);
    uint64_t due = rp->timer.due_ms;
    engine_hand_over();
    want_again();
    rp = CONTAINER_OF(workload_get(W.run, "default", "shop", false)->replicas.next, struct replica, link);
    assert_int_equal(rp->phase, PH_BACKOFF);
    assert_in_range(rp->timer.due_ms, due - 10, due + 10);
    assert_int_equal(W.starts, starts);
    world_stop();
}

/* When run.state can't be written, everything goes on. */
static void test_hand_over_refused(void **state)
{
    (void)state;
    world_start(37);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 1, .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    pass_ms(100);
    sim_disk_fail(1, 28);
    release_done = false;
    run_release(W.run, on_released);
    assert_true(sim_run(is_released, NULL, 1000));
    assert_int_not_equal(release_err, OK);
    s.replicas = 2;
    want(&s);
    pass_ms(100);
    assert_true(sim_run(done_complete, NULL, 5000));
    assert_int_equal(W.starts, 2);
    world_stop();
}

/* run.state is lost: processes are not; templates are guessed and probes decide. */
static void test_adopt_without_state(void **state)
{
    (void)state;
    world_start(33);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    (void)snprintf(W.dir, sizeof W.dir, "/tmp/weir-run-test/%d-2", (int)getpid()); /* another folder */
    engine_restart(0);
    assert_int_equal(W.run->replicas_n, 2);
    want_again();
    assert_true(sim_run(done_complete, NULL, 1000));
    assert_int_equal(W.starts, 2);
    (void)snprintf(W.dir, sizeof W.dir, "/tmp/weir-run-test/%d-3", (int)getpid());
    engine_restart(0);
    s.version = "v2"; /* and the template changed: old ones are rolled with a guessed template */
    W.guard = true;
    W.max_total = 3;
    want(&s);
    assert_true(sim_run(done_complete, NULL, 60000));
    assert_int_equal(W.starts, 4);
    world_stop();
}

/* run_want() before the adoption calls: what was started too many goes again, the adopted stay. */
static void test_adopt_after_want(void **state)
{
    (void)state;
    world_start(34);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 2, .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 5000));
    pass_ms(200);
    run_free(W.run);
    W.run = NULL;
    run_make();
    want_again();
    for (size_t i = 0; i < 2; i++) {
        struct proc *p = &W.procs[i];
        struct sup_replica rep = {.id = p->id, .label = p->label, .pid = p->pid, .out_fd = -1, .err_fd = -1, .listen_fd = -1, .started_wall_ns = p->started_wall_ns};
        run_on_adopt(W.run, &rep);
    }
    assert_true(sim_run(done_complete, NULL, 60000));
    pass_ms(1000);
    assert_int_equal(W.procs[0].terms + W.procs[1].terms, 0);
    assert_int_equal(look().ready, 2);
    world_stop();
}

/* A label that cannot be read. */
static void test_adopt_unknown(void **state)
{
    (void)state;
    world_start(31);
    W.procs[W.procs_n++] = (struct proc){.id = 77, .pid = 5, .there = true, .started = true, .label = "2 what ever", .kind = "ok"};
    W.guard = false;
    struct sup_replica rep = {.id = 77, .label = "2 what ever", .pid = 5, .out_fd = -1, .err_fd = -1, .listen_fd = -1};
    run_on_adopt(W.run, &rep);
    (void)sim_run(NULL, NULL, 100);
    assert_int_equal(W.procs[0].kills, 1);
    assert_false(W.procs[0].there);
    struct label lb;
    assert_false(run_label_parse(SLICE("1 ns dep 5 0 0 "), &lb));
    assert_false(run_label_parse(SLICE("1 ns dep x 0 0 name"), &lb));
    assert_true(run_label_parse(SLICE("1 ns dep 5 0 0 name"), &lb));
    assert_true(run_label_parse(SLICE("1 ns dep 5 900 900 name"), &lb)); /* it has crashed all night: still ours */
    world_stop();
}

/* The engine is killed at random moments of rollouts; wanted replicas keep their processes, and it still ends well. */
static void adopt_history(uint64_t seed)
{
    world_start(seed);
    W.term_ms_max = 1 + (uint32_t)rnd(1500);
    W.ready_ms_max = 30 + (uint32_t)rnd(1500);
    struct spec s = {.name = "shop", .cmd = "ok", .replicas = 1 + (uint32_t)rnd(4), .probes = READY_PROBE};
    want(&s);
    assert_true(sim_run(done_complete, NULL, 60000));
    for (int i = 0; i < 4; i++) {
        s.version = rnd(2) ? "v2" : "v3";
        s.cmd = rnd(4) ? "ok" : "bad";
        want(&s);
        pass_ms(rnd(4000));
        pass_ms(100); /* the state file is written */
        size_t before, after;
        (void)run_endpoints(W.run, &before);
        engine_restart((uint32_t)rnd(50));
        want_again();
        (void)run_endpoints(W.run, &after);
        assert_true(after <= before);
        pass_ms(rnd(3000));
    }
    s.cmd = "ok";
    s.version = "v1";
    want(&s);
    if (!sim_run(done_complete, NULL, 600000))
        fail_msg("seed %llu: never complete: %s", (unsigned long long)seed, look().why);
    uint32_t starts = W.starts;
    pass_ms(200);
    engine_restart(0);
    want_again();
    size_t n;
    (void)run_endpoints(W.run, &n);
    assert_int_equal(n, s.replicas);
    pass_ms(20000);
    assert_int_equal(W.starts, starts); /* complete: nothing is restarted */
    assert_true(look().complete);
    world_stop();
}

static void test_adopt_seeds(void **state)
{
    (void)state;
    for (uint64_t seed = 2000; seed < 2000 + test_repeats(150); seed++)
        adopt_history(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adopt), cmocka_unit_test(test_adopt_doomed), cmocka_unit_test(test_hand_over), cmocka_unit_test(test_hand_over_doomed),
        cmocka_unit_test(test_hand_over_backoff), cmocka_unit_test(test_hand_over_refused), cmocka_unit_test(test_adopt_without_state),
        cmocka_unit_test(test_adopt_after_want), cmocka_unit_test(test_adopt_unknown), cmocka_unit_test(test_adopt_seeds),
    };
    int failed = cmocka_run_group_tests_name("run_adopt", tests, NULL, NULL);
    clean_up();
    return failed;
}
