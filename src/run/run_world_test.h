/* run_world_test.h - the world of run's tests: a scripted supervisor and owner on the simulator's clock. Each test program includes it once.
 *
 * The functions of sup's client are defined here, so the linker takes these instead of sup's: each request becomes an
 * event some virtual milliseconds later, drawn from the seed. What a process does is told by its command line:
 *
 *     ["ok", ...]      becomes ready (exec probe "ready") some time after its start, ends soon after SIGTERM
 *     ["bad", ...]     never becomes ready            ["crash", ...]   exits with status 1 after crash_ms
 *     ["stubborn"...]  ignores SIGTERM                ["nostart"...]   cannot be started
 *
 * After every step of the simulator check_world() asserts what must hold at all times.
 */
#ifndef RUN_WORLD_TEST_H
#define RUN_WORLD_TEST_H

#include "run_int.h"

#include "sim.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* A test program uses what it needs of this. */
#pragma GCC diagnostic ignored "-Wunused-function"

/* ---- the world --------------------------------------------------------------------------------------------------------- */

#define PROCS_MAX 4096
#define EVENTS_MAX 64

struct proc {
    uint64_t id;
    char name[64], label[1024], kind[16];
    int32_t pid;
    uint64_t started_ms, started_wall_ns, ready_at_ms, signalled_ms;
    bool there, started, exited, told, ready_said;
    int32_t status;
    bool oom;
    int terms, kills, order_pre_stop, order_term;
};

enum ev_kind { EV_STARTED, EV_EXITED, EV_EXEC, EV_SOCKETS };
struct ev {
    struct timer timer;
    enum ev_kind kind;
    uint64_t id, token;
    enum err e;
    int32_t status;
    bool oom;
    char text[64];
};

static struct world {
    struct loop *loop;
    struct run *run;
    struct objset *set;
    uint64_t seed;
    char dir[64];
    struct proc procs[PROCS_MAX];
    size_t procs_n;
    int events_n;
    /* script */
    uint32_t start_ms_max, ready_ms_min, ready_ms_max, term_ms_max, crash_ms, start_fail_pct, crash_early_pct;
    bool live_ok, ready_ok, unknown_cap;
    bool socket_none;
    uint32_t exec_ms, execs;
    struct slice exec_says; /* by a failing probe "ready" */
    /* seen */
    uint32_t endpoints_changes, ups, gones, forgets, starts;
    uint64_t start_at[64];
    uint32_t flight_until_polls; /* in_flight says true this often */
    uint32_t flight_polls;
    int order;
    uint64_t term_at, kill_at, pre_stop_at, flight_end_at;
    bool stopped;
    char line[RUN_LINE_MAX + 8];
    size_t lines_n, line_n;
    bool line_err;
    uint32_t starting_max;
    uint32_t share;              /* of each Deployment; UINT32_MAX: all of it */
    uint32_t once_starts;        /* of what runs once */
    /* invariants; want 0: not checked */
    uint32_t want, min_ready, max_total;
    bool guard;
} W;

static uint64_t rnd(uint64_t n) { return n ? loop_random(W.loop) % n : 0; }

static struct proc *proc_of(uint64_t id)
{
    for (size_t i = W.procs_n; i-- > 0;)
        if (W.procs[i].id == id)
            return &W.procs[i];
    return NULL;
}

static void ev_fire(struct timer *t)
{
    struct ev e = *CONTAINER_OF(t, struct ev, timer);
    mem_free(CONTAINER_OF(t, struct ev, timer));
    W.events_n--;
    struct proc *p = proc_of(e.id);
    if (!W.run || !p || !p->there)
        return;
    if (e.kind == EV_STARTED) {
        struct sup_replica rep = {.id = e.id, .label = p->label, .pid = p->pid, .out_fd = -1, .err_fd = -1, .listen_fd = -1, .started_wall_ns = wall_ns()};
        p->started = e.e == OK;
        p->started_ms = loop_now_ms(W.loop);
        p->started_wall_ns = rep.started_wall_ns;
        p->ready_at_ms = p->started_ms + W.ready_ms_min + rnd(W.ready_ms_max - W.ready_ms_min + 1);
        run_on_started(W.run, e.id, e.e, e.text, e.e == OK ? &rep : NULL);
    } else if (e.kind == EV_EXITED) {
        if (p->exited)
            return;
        p->exited = true;
        p->status = e.status;
        p->oom = e.oom;
        run_on_exited(W.run, e.id, e.status, e.oom);
    } else if (e.kind == EV_EXEC) {
        if (strcmp(e.text, "ready") == 0 && e.status == 0)
            p->ready_said = true;
        if (!p->exited)
            run_on_exec_done(W.run, e.id, e.token, e.e, e.status, strcmp(e.text, "ready") != 0 || !e.status ? (struct slice){0} : W.exec_says.n ? W.exec_says : SLICE("not yet\n"));
    } else {
        int fd = -1; /* rt makes one itself */
        assert_true(run_on_sockets(W.run, e.id, e.token, &fd, W.socket_none ? 0 : 1));
    }
}

static struct ev *ev_at(enum ev_kind kind, uint64_t id, uint64_t in_ms)
{
    struct ev *e = mem_new(MEM_MISC, sizeof *e);
    timer_init(&e->timer, ev_fire);
    e->kind = kind;
    e->id = id;
    timer_set(W.loop, &e->timer, in_ms);
    W.events_n++;
    return e;
}

static void proc_exit(struct proc *p, int32_t status, bool oom, uint64_t in_ms)
{
    struct ev *e = ev_at(EV_EXITED, p->id, in_ms);
    e->status = status;
    e->oom = oom;
}

/* ---- sup, scripted ------------------------------------------------------------------------------------------------------------ */

enum err sup_start(struct sup_client *c, const struct sup_spec *spec)
{
    (void)c;
    assert_true(W.procs_n < PROCS_MAX);
    assert_null(proc_of(spec->id)); /* an id is used once */
    assert_true(strlen(spec->name) <= 63 && strlen(spec->label) < 1024);
    assert_string_equal(spec->cwd[0] == '/' ? "/" : "", "/");
    if (strcmp(spec->argv[0], "huge") == 0)
        return ERR_LIMIT;
    for (size_t i = 0; i < W.procs_n; i++) /* sup names cgroups: the same name must be forgotten first */
        if (W.procs[i].there)
            assert_string_not_equal(W.procs[i].name, spec->name);
    struct proc *p = &W.procs[W.procs_n++];
    *p = (struct proc){.id = spec->id, .pid = (int32_t)(1000 + W.procs_n), .there = true};
    (void)snprintf(p->name, sizeof p->name, "%s", spec->name);
    (void)snprintf(p->label, sizeof p->label, "%s", spec->label);
    (void)snprintf(p->kind, sizeof p->kind, "%s", spec->argv[0]);
    if (W.starts < COUNT_OF(W.start_at))
        W.start_at[W.starts] = loop_now_ms(W.loop);
    W.starts++;
    uint64_t delay = 1 + rnd(W.start_ms_max);
    struct ev *e = ev_at(EV_STARTED, p->id, delay);
    if (strcmp(p->kind, "nostart") == 0 || rnd(100) < W.start_fail_pct) {
        e->e = ERR_NOTFOUND;
        (void)snprintf(e->text, sizeof e->text, "%s: not found in PATH", p->kind);
    } else if (strcmp(p->kind, "crash") == 0) {
        proc_exit(p, 1 << 8, false, delay + W.crash_ms);
    } else if (strcmp(p->kind, "oom") == 0) {
        proc_exit(p, SIGKILL, true, delay + W.crash_ms);
    } else if (strcmp(p->kind, "segv") == 0) {
        proc_exit(p, SIGSEGV, false, delay + W.crash_ms);
    } else if (rnd(100) < W.crash_early_pct) {
        proc_exit(p, 3 << 8, false, delay + rnd(W.ready_ms_min + 1)); /* before it can be ready */
    }
    return OK;
}

void sup_signal(struct sup_client *c, uint64_t id, int signo)
{
    (void)c;
    struct proc *p = proc_of(id);
    assert_non_null(p);
    assert_true(p->there);
    if (signo == SIGTERM) {
        p->terms++;
        p->order_term = ++W.order;
        W.term_at = loop_now_ms(W.loop);
        if (strcmp(p->kind, "stubborn") != 0)
            proc_exit(p, SIGTERM, false, 1 + rnd(W.term_ms_max));
    } else {
        p->kills++;
        W.kill_at = loop_now_ms(W.loop);
        proc_exit(p, SIGKILL, false, 1);
    }
}

static bool exec_ok(const struct proc *p, const char *what)
{
    if (strcmp(what, "ready") == 0 || strcmp(what, "startup") == 0)
        return W.ready_ok && strcmp(p->kind, "bad") != 0 && loop_now_ms(W.loop) >= p->ready_at_ms;
    if (strcmp(what, "live") == 0)
        return W.live_ok;
    return true;
}

enum err sup_exec(struct sup_client *c, uint64_t id, uint64_t token, const char *const *argv, uint32_t timeout_ms)
{
    (void)c;
    struct proc *p = proc_of(id);
    assert_true(p && p->there && (token & RUN_TOKEN_BIT) && timeout_ms > 0);
    W.execs++;
    if (strcmp(argv[0], "prestop") == 0) {
        p->order_pre_stop = ++W.order;
        W.pre_stop_at = loop_now_ms(W.loop);
        if (argv[1]) /* never answers */
            return OK;
    }
    if (strcmp(argv[0], "lost") == 0)
        return OK;
    struct ev *e = ev_at(EV_EXEC, id, W.exec_ms ? W.exec_ms : 1 + rnd(5));
    e->token = token;
    e->status = exec_ok(p, argv[0]) ? 0 : 1 << 8;
    (void)snprintf(e->text, sizeof e->text, "%s", argv[0]);
    return OK;
}

void sup_sockets(struct sup_client *c, uint64_t id, uint64_t token, int n)
{
    (void)c;
    assert_int_equal(n, 1);
    assert_true(token & RUN_TOKEN_BIT);
    ev_at(EV_SOCKETS, id, 1 + rnd(3))->token = token;
}

void sup_forget(struct sup_client *c, uint64_t id)
{
    (void)c;
    struct proc *p = proc_of(id);
    assert_non_null(p);
    assert_true(p->there);
    assert_true(p->exited || !p->started); /* only after exited */
    p->there = false;
    W.forgets++;
}

/* ---- the owner of run ------------------------------------------------------------------------------------------------------------ */

static void on_endpoints(void *ctx) { ((struct world *)ctx)->endpoints_changes++; }
static bool on_in_flight(void *ctx, uint64_t id)
{
    (void)ctx;
    (void)id;
    W.flight_polls++;
    bool more = W.flight_polls <= W.flight_until_polls;
    if (!more)
        W.flight_end_at = loop_now_ms(W.loop);
    return more;
}
static void on_output(void *ctx, const char *ns, const char *dep, const char *replica, bool err, struct slice line)
{
    (void)ctx;
    assert_true(ns && dep && replica && line.n <= RUN_LINE_MAX);
    memcpy(W.line, line.p ? line.p : "", line.n);
    W.line[line.n] = 0;
    W.line_n = line.n;
    W.line_err = err;
    W.lines_n++;
}
static void on_up(void *ctx, uint64_t id, const char *ns, const char *dep, const char *replica, int fd)
{
    (void)ctx;
    assert_true(id && ns && dep && replica && fd == -1);
    W.ups++;
}
static void on_gone(void *ctx, uint64_t id)
{
    (void)ctx;
    size_t n;
    const struct live_endpoint *eps = run_endpoints(W.run, &n);
    for (size_t i = 0; i < n; i++)
        assert_true(eps[i].replica_id != id); /* a plan without it was published before */
    W.gones++;
}
static void on_stopped(void *ctx) { ((struct world *)ctx)->stopped = true; }

/* ---- set-up --------------------------------------------------------------------------------------------------------------------------- */

static uint32_t on_share(void *ctx, const struct object *dep)
{
    (void)ctx;
    return MIN(W.share, dep->dep.replicas);
}

/* Before it is asked for: sup does not know it yet. */
static void on_once_starting(void *ctx, uint64_t id)
{
    (void)ctx;
    assert_null(proc_of(id));
    W.once_starts++;
}

static void run_make(void)
{
    static const struct run_ops ops = {.endpoints_changed = on_endpoints, .in_flight = on_in_flight, .output = on_output, .replica_up = on_up, .replica_gone = on_gone, .share = on_share,
                                       .once_starting = on_once_starting};
    struct run_conf conf = {.data_dir = W.dir, .node_name = "test", .log_address = "127.0.0.1:9092"};
    W.run = run_new(W.loop, NULL, &conf, &ops, &W);
}

static void world_start(uint64_t seed)
{
    static int count;
    W = (struct world){.seed = seed, .share = UINT32_MAX, .start_ms_max = 20, .ready_ms_min = 30, .ready_ms_max = 30, .term_ms_max = 5, .live_ok = true, .ready_ok = true};
    struct sim_conf conf = {.seed = seed, .latency_us_min = 50, .latency_us_max = 500, .socket_bytes = 65536};
    sim_start(&conf);
    W.loop = loop_new("control");
    if (count++ == 0)
        (void)mkdir("/tmp/weir-run-test", 0700);
    (void)snprintf(W.dir, sizeof W.dir, "/tmp/weir-run-test/%d", (int)getpid());
    run_make();
}

static void set_free_later(struct objset *old)
{
    objset_free(old); /* run must not refer to it any more: ASan would tell */
}

static void world_stop(void)
{
    run_free(W.run);
    W.run = NULL;
    objset_free(W.set);
    W.set = NULL;
    for (int i = 0; i < 100000 && W.events_n; i++)
        (void)sim_run(NULL, NULL, 1000);
    (void)sim_run(NULL, NULL, 100); /* a state file being written */
    loop_free(W.loop);
    sim_stop();
}

struct spec {
    const char *name, *cmd, *version, *probes, *strategy, *extra, *pod_extra;
    uint32_t replicas;
};

static void spec_text(const struct spec *s, struct buf *b)
{
    buf_printf(b, "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"%s\"},\"spec\":{\"replicas\":%u,"
               "\"selector\":{\"matchLabels\":{\"app\":\"%s\"}},%s%s"
               "\"template\":{\"metadata\":{\"labels\":{\"app\":\"%s\",\"version\":\"%s\"}},\"spec\":{%s\"containers\":[{\"name\":\"main\",\"image\":\"x\",\"command\":[\"%s\",\"%s\"]%s}]}}}}\n",
               s->name, s->replicas, s->name, s->strategy ? s->strategy : "", s->extra ? s->extra : "", s->name, s->version ? s->version : "v1",
               s->pod_extra ? s->pod_extra : "", s->cmd, s->version ? s->version : "v1", s->probes ? s->probes : "");
}

#define READY_PROBE ",\"readinessProbe\":{\"exec\":{\"command\":[\"ready\"]},\"periodSeconds\":1}"
#define LIVE_PROBE ",\"livenessProbe\":{\"exec\":{\"command\":[\"live\"]},\"periodSeconds\":1,\"failureThreshold\":3}"

static void want_n(const struct spec *s, size_t n)
{
    struct objset *set = objset_new();
    struct diags d = {0};
    for (size_t i = 0; i < n; i++) {
        struct buf b = {0}, file = {0};
        spec_text(&s[i], &b);
        buf_printf(&file, "t%zu.yaml", i);
        objset_read(set, file.p, "/srv", buf_slice(&b), "default", false, &d);
        buf_free(&b);
        buf_free(&file);
    }
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR)
            print_message("%s: %s\n", d.items[i].where, d.items[i].reason);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    run_want(W.run, set);
    struct objset *old = W.set;
    W.set = set;
    set_free_later(old);
}

static void want(const struct spec *s) { want_n(s, 1); }

/* ---- looking ---------------------------------------------------------------------------------------------------------------------------- */

struct seen { uint32_t replicas, ready, updated, restarts; bool complete, found; char why[600], phase[16], name[64], rwhy[600]; int32_t pid; uint64_t revision; };
static void see_one(void *ctx, const struct workload_status *w)
{
    struct seen *s = ctx;
    s->found = true;
    s->replicas = (uint32_t)w->replicas_n;
    s->ready = w->ready;
    s->updated = w->updated;
    s->complete = w->complete;
    s->revision = w->revision;
    (void)snprintf(s->why, sizeof s->why, "%s", w->why);
    for (size_t i = 0; i < w->replicas_n; i++) {
        s->restarts += w->replicas[i].restarts;
        if (i == 0) {
            (void)snprintf(s->phase, sizeof s->phase, "%s", w->replicas[0].phase);
            (void)snprintf(s->name, sizeof s->name, "%s", w->replicas[0].name);
            (void)snprintf(s->rwhy, sizeof s->rwhy, "%s", w->replicas[0].why);
            s->pid = w->replicas[0].pid;
        }
    }
}
static struct seen look(void)
{
    struct seen s = {0};
    run_status(W.run, see_one, &s);
    return s;
}

static uint32_t procs_alive(void)
{
    uint32_t n = 0;
    for (size_t i = 0; i < W.procs_n; i++)
        n += W.procs[i].there && W.procs[i].started && !W.procs[i].exited;
    return n;
}

static void check_world(void)
{
    struct run *r = W.run;
    size_t n;
    const struct live_endpoint *eps = run_endpoints(r, &n);
    for (size_t i = 0; i < n; i++) {
        struct proc *p = proc_of(eps[i].replica_id);
        assert_true(p && p->there && p->started && !p->exited);
    }
    W.starting_max = MAX(W.starting_max, r->starting_n);
    assert_true(r->starting_n <= RUN_STARTS_MAX);
    assert_int_equal(r->by_id.n, ({ size_t k = 0; for (size_t i = 0; i < W.procs_n; i++) k += W.procs[i].there; k; }));
    if (!W.guard)
        return;
    if (n < W.min_ready || procs_alive() > W.max_total || r->replicas_n > W.max_total)
        print_message("seed %llu: %zu ready (min %u), %u processes, %u replicas (max %u)\n", (unsigned long long)W.seed, n, W.min_ready, procs_alive(), r->replicas_n, W.max_total);
    assert_true(n >= W.min_ready);
    assert_true(procs_alive() <= W.max_total);
    assert_true(r->replicas_n <= W.max_total);
}

static bool done_complete(void *ctx) { (void)ctx; check_world(); return look().complete; }
static bool done_never(void *ctx) { (void)ctx; check_world(); return false; }
static bool done_gone(void *ctx) { (void)ctx; check_world(); return W.run->replicas_n == 0; }
static bool done_stopped(void *ctx) { (void)ctx; check_world(); return W.stopped; }
static bool done_starts(void *ctx) { check_world(); return W.starts >= *(uint32_t *)ctx; }
static void pass_ms(uint64_t ms) { (void)sim_run(done_never, NULL, ms); }

/* What files.c wrote with plain system calls is on the real disk. */
static void clean_up(void)
{
    static const char *const names[] = {"net/default.hosts", "net/default.resolv", "in-place", "net", ""};
    char path[128];
    for (int dir = 0; dir < 3; dir++)
        for (size_t i = 0; i < COUNT_OF(names); i++) {
            (void)snprintf(path, sizeof path, "/tmp/weir-run-test/%d%s/%s", (int)getpid(), dir == 0 ? "" : dir == 1 ? "-2" : "-3", names[i]);
            (void)remove(path);
        }
    (void)rmdir("/tmp/weir-run-test");
}

#endif
