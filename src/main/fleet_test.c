/* fleet_test.c - several nodes that share one control store, in the simulator.
 *
 * The store is the embedded one; each node reaches it through a wire of its own (functions of ctl.h with other names, see meson.build), which can be cut: calls then
 * end with CTL_UNAVAILABLE, some are done all the same and end with CTL_UNKNOWN, watches stand still. What a node runs is played: processes that become ready,
 * and end when they are told to, or when the fence that the supervisor keeps is reached. At each step: what runs once has processes on one node at most. When all is well again: every replica is there, and every node
 * knows of each. SIM_SEEDS says how many lives, SIM_FIRST the first, SIM_SAY tells their steps.
 */
#undef ctl_submit
#undef ctl_watch_start
#undef ctl_watch_stop
#undef ctl_watch_resume
#include "fleet.h"
#include "repeat_test.h"
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define NODES 3
#define DEPS_MAX 6
#define PROCESSES_MAX 12
#define WATCHES_MAX 64

/* ---- wires ------------------------------------------------------------------------------------------------------------------ */

struct wire;
struct wired_call {
    struct wire *w;
    struct ctl_call *call;       /* NULL: free */
    void (*done)(struct ctl_call *);
    bool lost;                   /* it is done, and nobody will know */
    struct timer timer;
};
struct wired_watch {
    struct wire *w;
    bool used;
    struct ctl_watch *watch;     /* NULL: the wire is cut */
    struct ctl_watch_conf conf;  /* revision: the next one */
    struct ctl_watch_ops ops;
    void *ctx;
};
struct wire {
    bool cut;
    bool lose_leader;            /* the answer to the next campaign is lost */
    struct wired_call calls[WATCHES_MAX];
    struct wired_watch watches[WATCHES_MAX];
};

static struct loop *loop;
static struct ctl *store;
static uint64_t chance_state;
static unsigned chance(unsigned n) { return test_chance(&chance_state, n); }

static void wired_end(struct wired_call *wc, enum ctl_error error)
{
    struct ctl_call *call = wc->call;
    wc->call = NULL;
    timer_clear(&wc->timer);
    call->done = wc->done;
    if (error != CTL_OK) {
        call->error = error;
        call->why = "the wire is cut";
    }
    call->done(call);
}

static struct wire wires[NODES];
static void wired_done(struct ctl_call *call)
{
    for (size_t i = 0; i < NODES; i++)
        for (size_t k = 0; k < WATCHES_MAX; k++)
            if (wires[i].calls[k].call == call) {
                wired_end(&wires[i].calls[k], wires[i].calls[k].lost ? CTL_UNKNOWN : CTL_OK);
                return;
            }
    fail_msg("an answer nobody waits for");
}

static void wired_over(struct timer *t) { wired_end(CONTAINER_OF(t, struct wired_call, timer), CTL_UNAVAILABLE); }

void wire_submit(struct ctl *c, struct ctl_call *call);
void wire_submit(struct ctl *c, struct ctl_call *call)
{
    struct wire *w = (struct wire *)(void *)c;
    size_t k = 0;
    while (w->calls[k].call)
        MUST(++k < WATCHES_MAX);
    struct wired_call *wc = &w->calls[k];
    *wc = (struct wired_call){.w = w, .call = call, .done = call->done};
    timer_init(&wc->timer, wired_over);
    if (w->cut && chance(4)) {
        timer_set(loop, &wc->timer, 300 + chance(700));
        return;
    }
    bool leader = call->op.kind == CTL_TXN && call->op.txn.then_n && call->op.txn.then_ops[0].kind == CTL_PUT && slice_is(call->op.txn.then_ops[0].put.key, "/weir/leader");
    wc->lost = w->cut || (w->lose_leader && leader);
    w->lose_leader = w->lose_leader && !leader;
    call->done = wired_done;
    ctl_submit(store, call);
}

static bool wired_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct wired_watch *ww = ctx;
    ww->conf.revision = revision + 1;
    return ww->ops.events(ww->ctx, events, n, revision);
}

static void wired_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct wired_watch *ww = ctx;
    ww->ops.ended(ww->ctx, error, compact_revision, why);
}

static void wired_start(struct wired_watch *ww)
{
    static const struct ctl_watch_ops through = {wired_events, wired_ended};
    ww->watch = ctl_watch_start(store, &ww->conf, &through, ww);
    MUST(ww->watch);
}

struct ctl_watch *wire_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx);
struct ctl_watch *wire_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx)
{
    struct wire *w = (struct wire *)(void *)c;
    size_t k = 0;
    while (w->watches[k].used)
        MUST(++k < WATCHES_MAX);
    w->watches[k] = (struct wired_watch){.w = w, .used = true, .conf = *conf, .ops = *ops, .ctx = ctx};
    if (!w->cut)
        wired_start(&w->watches[k]);
    return (struct ctl_watch *)(void *)&w->watches[k];
}

void wire_watch_stop(struct ctl_watch *watch);
void wire_watch_stop(struct ctl_watch *watch)
{
    struct wired_watch *ww = (struct wired_watch *)(void *)watch;
    if (ww->watch)
        ctl_watch_stop(ww->watch);
    ww->used = false;
}

/* As the engine for an etcd cluster does it: each watch goes on from its next revision. */
static void wire_cut(struct wire *w)
{
    w->cut = true;
    for (size_t k = 0; k < WATCHES_MAX; k++)
        if (w->watches[k].used && w->watches[k].watch) {
            ctl_watch_stop(w->watches[k].watch);
            w->watches[k].watch = NULL;
        }
}

static void wire_heal(struct wire *w)
{
    w->cut = false;
    for (size_t k = 0; k < WATCHES_MAX; k++)
        if (w->watches[k].used && !w->watches[k].watch)
            wired_start(&w->watches[k]);
}

/* ---- nodes --------------------------------------------------------------------------------------------------------------------- */

struct process {
    bool there, ready, ending;
    size_t dep;
    uint64_t id, at_ms, end_ms;
    char name[24];
};
static struct node {
    struct fleet *fleet;         /* NULL: no engine */
    char name[4];
    char instance[12];
    const char *place;
    bool blind;                  /* can't read the objects */
    struct process processes[PROCESSES_MAX];
    uint64_t fence_ms;           /* the supervisor's: it needs no engine */
    struct timer tick;
} nodes[NODES];
static struct objset *objects;
static const struct object *deps[DEPS_MAX];
static size_t deps_n;
static uint64_t ids;

static size_t dep_index(const char *ns, const char *name)
{
    for (size_t i = 0; i < deps_n; i++)
        if (strcmp(deps[i]->ns, ns) == 0 && strcmp(deps[i]->name, name) == 0)
            return i;
    return deps_n;
}

static const struct objset *on_objects(void *ctx) { return ((const struct node *)ctx)->blind ? NULL : objects; }

static bool on_runs(void *ctx, const char *ns, const char *name)
{
    const struct node *n = ctx;
    for (size_t i = 0; i < PROCESSES_MAX; i++)
        if (n->processes[i].there && n->processes[i].dep == dep_index(ns, name))
            return true;
    return false;
}

static void on_drop(void *ctx, const char *ns, const char *name, uint32_t ms)
{
    struct node *n = ctx;
    for (size_t i = 0; i < PROCESSES_MAX; i++)
        if (n->processes[i].there && n->processes[i].dep == dep_index(ns, name)) {
            n->processes[i].ending = true;
            n->processes[i].end_ms = MIN(n->processes[i].end_ms ? n->processes[i].end_ms : UINT64_MAX, loop_now_ms(loop) + chance(ms + 1));
        }
}

static void on_fence(void *ctx, uint64_t until_ms) { ((struct node *)ctx)->fence_ms = until_ms; }

/* Towards the shares: starts, and drains. */
static void node_follow(struct node *n)
{
    uint64_t now = loop_now_ms(loop);
    if (!n->fleet || !fleet_ready(n->fleet))
        return;
    for (size_t d = 0; d < deps_n; d++) {
        uint32_t have = 0, want = fleet_share(n->fleet, deps[d]);
        for (size_t i = 0; i < PROCESSES_MAX; i++)
            have += n->processes[i].there && n->processes[i].dep == d && !n->processes[i].ending;
        for (size_t i = 0; i < PROCESSES_MAX && have > want; i++)
            if (n->processes[i].there && n->processes[i].dep == d && !n->processes[i].ending) {
                n->processes[i].ending = true;
                n->processes[i].end_ms = now + chance(600);
                have--;
            }
        for (size_t i = 0; i < PROCESSES_MAX && have < want; i++)
            if (!n->processes[i].there) {
                n->processes[i] = (struct process){.there = true, .dep = d, .id = ++ids, .at_ms = now + 50 + chance(250)};
                snprintf(n->processes[i].name, sizeof n->processes[i].name, "r%llu", (unsigned long long)ids);
                have++;
            }
    }
}

static void node_tell(struct node *n)
{
    struct live_endpoint eps[PROCESSES_MAX];
    size_t k = 0;
    for (size_t i = 0; i < PROCESSES_MAX; i++) {
        const struct process *p = &n->processes[i];
        if (p->there && p->ready && !p->ending)
            eps[k++] = (struct live_endpoint){.replica_id = p->id, .ns = deps[p->dep]->ns, .deployment = deps[p->dep]->name, .name = p->name, .labels = &deps[p->dep]->dep.pod.labels};
    }
    if (n->fleet)
        fleet_endpoints(n->fleet, eps, k);
}

static void on_changed(void *ctx)
{
    node_follow(ctx);
    node_tell(ctx);
}

static void node_tick(struct timer *t)
{
    struct node *n = CONTAINER_OF(t, struct node, tick);
    uint64_t now = loop_now_ms(loop);
    bool different = false;
    for (size_t i = 0; i < PROCESSES_MAX; i++) {
        struct process *p = &n->processes[i];
        if (p->there && deps[p->dep]->dep.run_once && now >= n->fence_ms)
            p->end_ms = p->ending = true;
        if (p->there && p->ending && now >= p->end_ms) {
            p->there = false;
            different = true;
        } else if (p->there && !p->ready && now >= p->at_ms) {
            p->ready = different = true;
        }
    }
    if (different && n->fleet) {
        node_follow(n);
        node_tell(n);
        fleet_touch(n->fleet);
    }
    timer_set(loop, &n->tick, 10);
}

static char left_out[8][160]; /* what was said of registrations: "NAMESPACE SERVICE MESSAGE" */
static size_t left_out_n;
static void on_left_out(void *ctx, struct slice ns, struct slice service, const char *message)
{
    if (ctx == &nodes[2] && left_out_n < COUNT_OF(left_out))
        snprintf(left_out[left_out_n++], sizeof left_out[0], SLICE_FMT " " SLICE_FMT " %s", SLICE_ARG(ns), SLICE_ARG(service), message);
}

static void node_start(size_t i)
{
    struct node *n = &nodes[i];
    static const struct fleet_ops ops = {on_objects, on_changed, on_runs, on_drop, on_fence, on_left_out};
    struct fleet_conf conf = {.node = n->name, .instance = n->instance, .place = n->place, .gate = "10.0.0.1:1", .locality = i < 2 ? "r/z1" : "r/z2", .version = "1", .cpu_milli = 100000, .memory = 1ull << 40, .log = i != 2};
    n->fleet = fleet_start(loop, (struct ctl *)(void *)&wires[i], &conf, &ops, n);
}

static void node_engine_dies(size_t i)
{
    fleet_stop(nodes[i].fleet);
    nodes[i].fleet = NULL;
}

static void node_dies(size_t i)
{
    node_engine_dies(i);
    memset(nodes[i].processes, 0, sizeof nodes[i].processes);
}

/* ---- the world ------------------------------------------------------------------------------------------------------------------ */

static void objects_read(const char *text)
{
    struct diags d = {0};
    objset_free(objects);
    objects = objset_new();
    objset_read(objects, "m.yaml", "/", slice_cstr(text), "default", false, &d);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    deps_n = objset_n(objects);
    for (size_t i = 0; i < deps_n; i++)
        deps[i] = objset_at(objects, i);
    for (size_t i = 0; i < NODES; i++)
        if (nodes[i].fleet)
            fleet_touch(nodes[i].fleet);
}

#define DEP(name, replicas, more)                                                                                                                                     \
    "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: { name: " name " }\nspec: { replicas: " replicas ", " more " selector: { matchLabels: { app: " name " } },\n" \
    " template: { metadata: { labels: { app: " name " } }, spec: { containers: [ { name: c, command: [ x ] } ] } } }\n"
static const char common[] = DEP("api", "3", "") DEP("once", "1", "strategy: { type: Recreate },") DEP("pair", "2", "strategy: { type: Recreate },") DEP("web", "4", "");

static void world_start(uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};
    struct ctl_own_conf own;
    struct buf why = {0};
    chance_state = seed;
    sim_start(&conf);
    sim_quiet();
    loop = loop_new("fleet");
    ctl_own_conf_default(&own);
    own.dir = "/ctl";
    assert_int_equal(ctl_own_open(&own, loop, &store, &why), OK);
    buf_free(&why);
    memset(nodes, 0, sizeof nodes);
    memset(wires, 0, sizeof wires);
    objects = NULL;
    objects_read(common);
    for (size_t i = 0; i < NODES; i++) {
        snprintf(nodes[i].name, sizeof nodes[i].name, "n%zu", i);
        snprintf(nodes[i].instance, sizeof nodes[i].instance, "i%zu", i);
        timer_init(&nodes[i].tick, node_tick);
        timer_set(loop, &nodes[i].tick, 10);
    }
}

static bool never(void *ctx) { return false; }
static bool closed;
static void on_closed(void *ctx) { closed = true; }
static bool is_closed(void *ctx) { return closed; }

static void world_stop(void)
{
    for (size_t i = 0; i < NODES; i++) {
        node_engine_dies(i);
        timer_clear(&nodes[i].tick);
        wire_heal(&wires[i]);
    }
    (void)sim_run(never, NULL, 2000); /* what is under way ends */
    closed = false;
    ctl_close(store, on_closed, NULL);
    assert_true(sim_run(is_closed, NULL, 60000));
    objset_free(objects);
    objects = NULL;
    loop_free(loop);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_CTL), 0);
}

/* The nodes that take themselves for the one that keeps the event log. */
static uint32_t logs_here(void)
{
    uint32_t n = 0;
    struct fleet_log l;
    for (size_t i = 0; i < NODES; i++) {
        if (nodes[i].fleet)
            fleet_log(nodes[i].fleet, &l);
        n += nodes[i].fleet && l.here;
    }
    return n;
}

/* What runs once is on one node at most, and so is the event log. */
static void once_check(void)
{
    assert_in_range(logs_here(), 0, 1);
    for (size_t d = 0; d < deps_n; d++) {
        int on = -1;
        for (size_t i = 0; i < NODES && deps[d]->dep.run_once; i++)
            for (size_t k = 0; k < PROCESSES_MAX; k++) {
                if (!nodes[i].processes[k].there || nodes[i].processes[k].dep != d)
                    continue;
                if (on >= 0 && on != (int)i)
                    fail_msg("%s runs on n%d and n%zu at %llu ms", deps[d]->name, on, i, (unsigned long long)sim_now_ms());
                on = (int)i;
            }
    }
}

static void pass(uint64_t ms)
{
    for (uint64_t end = sim_now_ms() + ms; sim_now_ms() < end;) {
        (void)sim_run(never, NULL, 10);
        once_check();
    }
}

static uint32_t ready_of(size_t d, size_t node)
{
    uint32_t n = 0;
    for (size_t i = 0; i < NODES; i++)
        for (size_t k = 0; k < PROCESSES_MAX && (node == NODES || node == i); k++)
            n += nodes[i].processes[k].there && nodes[i].processes[k].dep == d && nodes[i].processes[k].ready && !nodes[i].processes[k].ending;
    return n;
}

/* Every replica is there, and every node knows of all that are on others. */
static bool is_well(char *why, size_t why_n)
{
    size_t total = 0;
    for (size_t d = 0; d < deps_n; d++) {
        uint32_t have = ready_of(d, NODES);
        total += have;
        if (have != deps[d]->dep.replicas)
            return snprintf(why, why_n, "%s has %u of %u replicas", deps[d]->name, have, deps[d]->dep.replicas), false;
    }
    for (size_t i = 0; i < NODES; i++) {
        size_t n, own = 0, leaders = 0;
        for (size_t d = 0; d < deps_n; d++)
            own += ready_of(d, i);
        if (!nodes[i].fleet)
            continue;
        (void)fleet_others(nodes[i].fleet, &n);
        if (n != total - own)
            return snprintf(why, why_n, "n%zu knows %zu of %zu endpoints elsewhere", i, n, total - own), false;
        const struct fleet_node *const *list = fleet_nodes(nodes[i].fleet, &n);
        for (size_t k = 0; k < n; k++)
            leaders += list[k]->leader;
        if (leaders != 1)
            return snprintf(why, why_n, "n%zu sees %zu leaders", i, leaders), false;
    }
    return true;
}

static void world_fail(const char *why, uint64_t ms)
{
    for (size_t i = 0; i < NODES; i++) {
        struct fleet_status st = {0};
        if (nodes[i].fleet)
            fleet_status(nodes[i].fleet, &st);
        print_message("n%zu: %s%s%s%s%s\n", i, nodes[i].fleet ? "" : "no engine ", st.member ? "member " : "", st.leader ? "leader " : "", nodes[i].fleet && fleet_ready(nodes[i].fleet) ? "ready " : "", st.why ? st.why : "");
        for (size_t d = 0; d < deps_n; d++)
            print_message("    %s: share %u, ready %u\n", deps[d]->name, nodes[i].fleet ? fleet_share(nodes[i].fleet, deps[d]) : 0, ready_of(d, i));
    }
    fail_msg("after %llu ms: %s", (unsigned long long)ms, why);
}

static void well(uint64_t within_ms)
{
    char why[128] = "";
    uint64_t from = sim_now_ms();
    while (!is_well(why, sizeof why)) {
        if (sim_now_ms() - from > within_ms)
            world_fail(why, within_ms);
        pass(10);
    }
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------------- */

static void test_start(void **state)
{
    world_start(1);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    assert_int_equal(ready_of(3, 0) + ready_of(3, 1) + ready_of(3, 2), 4);
    for (size_t i = 0; i < NODES; i++)
        assert_int_equal(ready_of(0, i), 1); /* spread */
    size_t n;
    const struct fleet_endpoint *const *others = fleet_others(nodes[0].fleet, &n);
    assert_true(n && strcmp(others[0]->gate, "10.0.0.1:1") == 0 && strcmp(others[0]->workload, "api") == 0);
    assert_string_equal(kvs_get(&others[0]->labels, SLICE("app"))->value, "api");
    world_stop();
}

static void test_node_dies(void **state)
{
    world_start(2);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    node_dies(0); /* it leads, most likely */
    pass(1000);
    well(4000); /* 5 s in all: the lease is 3 */
    assert_int_equal(ready_of(0, 0), 0);
    node_start(0);
    pass(3000);
    well(1000);
    world_stop();
}

/* A node that can't reach the store goes on, but for what runs once. */
static void test_partition(void **state)
{
    world_start(3);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    size_t at = 0;
    while (!ready_of(1, at))
        at++;
    uint32_t web = ready_of(3, at);
    wire_cut(&wires[at]);
    pass(8000);
    assert_true(ready_of(3, at) == web && web > 0 && !ready_of(1, at));
    struct fleet_status s;
    fleet_status(nodes[at].fleet, &s);
    assert_true(!s.member && s.fenced >= 1 && s.why[0]);
    size_t n;
    (void)fleet_others(nodes[at].fleet, &n);
    assert_true(n > 0); /* what it knew */
    assert_int_equal(ready_of(1, NODES), 1); /* elsewhere */
    wire_heal(&wires[at]);
    pass(1000);
    well(6000);
    world_stop();
}

/* Nobody reaches it, longer than a lease: when it is back, nobody forgets endpoints that are there. */
static void test_store_away(void **state)
{
    size_t before[NODES], n;
    world_start(4);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    objects_read(DEP("api", "3", "") DEP("once", "1", "strategy: { type: Recreate },") DEP("pair", "0", "") DEP("web", "4", ""));
    well(4000);
    for (size_t i = 0; i < NODES; i++)
        wire_cut(&wires[i]);
    pass(2500);
    for (size_t i = 0; i < NODES; i++) {
        before[i] = 0;
        const struct fleet_endpoint *const *others = fleet_others(nodes[i].fleet, &n);
        for (size_t k = 0; k < n; k++)
            before[i] += strcmp(others[k]->workload, "web") == 0;
    }
    pass(7500);
    for (size_t i = 0; i < NODES; i++)
        wire_heal(&wires[i]);
    for (int step = 0; step < 300; step++) {
        pass(10);
        for (size_t i = 0; i < NODES; i++) {
            size_t now = 0;
            const struct fleet_endpoint *const *others = fleet_others(nodes[i].fleet, &n);
            for (size_t k = 0; k < n; k++)
                now += strcmp(others[k]->workload, "web") == 0;
            assert_int_equal(now, before[i]);
        }
    }
    assert_int_equal(ready_of(3, NODES), 4);
    well(6000);
    world_stop();
}

/* An engine that comes after another takes over: what runs once goes on with the same process. */
static void test_engine_after_another(void **state)
{
    world_start(5);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    size_t at = 0, k = 0;
    while (!ready_of(1, at))
        at++;
    while (!nodes[at].processes[k].there || nodes[at].processes[k].dep != 1)
        k++;
    uint64_t id = nodes[at].processes[k].id;
    node_engine_dies(at);
    pass(200);
    node_start(at);
    pass(5000);
    well(1000);
    assert_true(nodes[at].processes[k].there && nodes[at].processes[k].id == id);
    world_stop();
}

static void on_revoked(struct ctl_call *call) { assert_int_equal(call->error, CTL_OK); }
/* The calls that look for a node's lease, and those that revoke it. */
static struct ctl_call lease_calls[2 * NODES];
static void on_lease(struct ctl_call *call)
{
    assert_true(call->error == CTL_OK && call->result.range.n == 1);
    struct ctl_call *revoke = call + NODES;
    *revoke = (struct ctl_call){.op = {.kind = CTL_LEASE_REVOKE, .lease = {.id = call->result.range.kvs[0].lease}}, .done = on_revoked};
    ctl_submit(store, revoke);
}

/* All leases are revoked, one after the other, as a leader of etcd does that was stopped and goes on: nobody forgets or moves anything, but for what runs once. */
static void test_revoked(void **state)
{
    static char keys[NODES][24];
    uint32_t was[NODES][DEPS_MAX];
    size_t others[NODES], n;
    world_start(14);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    objects_read(DEP("api", "3", "") DEP("once", "0", "strategy: { type: Recreate },") DEP("pair", "2", "") DEP("web", "4", "")); /* pair ran once until now */
    pass(6000);
    well(1000);
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < NODES; i++) {
            (void)fleet_others(nodes[i].fleet, &others[i]);
            for (size_t d = 0; d < deps_n; d++)
                was[i][d] = ready_of(d, i);
        }
        for (size_t i = 0; i < NODES - round % 2; i++) { /* all, or all but one */
            snprintf(keys[i], sizeof keys[i], "/weir/nodes/n%zu", (i + round) % NODES);
            lease_calls[i] = (struct ctl_call){.op = {.kind = CTL_RANGE, .range = {.key = slice_cstr(keys[i])}}, .done = on_lease};
            ctl_submit(store, &lease_calls[i]);
            pass(chance(4) * 10);
        }
        for (int step = 0; step < 400; step++) {
            pass(10);
            for (size_t i = 0; i < NODES; i++) {
                (void)fleet_others(nodes[i].fleet, &n);
                assert_int_equal(n, others[i]);
                for (size_t d = 0; d < deps_n; d++)
                    assert_int_equal(ready_of(d, i), was[i][d]);
            }
        }
    }
    world_stop();
}

/* A node was cut off just long enough for its replicas to be placed elsewhere: it keeps its own until those are ready. */
static void test_back_at_once(void **state)
{
    world_start(15);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    for (uint64_t ms = 3000; ms < 4200; ms += 50) {
        size_t at = chance(NODES);
        wire_cut(&wires[at]);
        pass(ms);
        wire_heal(&wires[at]);
        for (int step = 0; step < 400; step++) {
            pass(10);
            assert_true(ready_of(0, NODES) >= 3 && ready_of(3, NODES) >= 4);
        }
        well(6000);
    }
    world_stop();
}

static void on_compacted(struct ctl_call *call) { assert_int_equal(call->error, CTL_OK); }

/* A name is one node's. */
/* A copy of its data folder has its instance, and would take its keys. */
static void test_copy(void **state)
{
    struct fleet_status s;
    world_start(13);
    node_start(0);
    pass(500);
    nodes[1] = (struct node){.tick = nodes[1].tick, .place = "elsewhere"};
    snprintf(nodes[1].name, sizeof nodes[1].name, "n0");
    snprintf(nodes[1].instance, sizeof nodes[1].instance, "i0");
    node_start(1);
    pass(5000);
    fleet_status(nodes[1].fleet, &s);
    assert_true(!s.member && strstr(s.why, "same name"));
    fleet_status(nodes[0].fleet, &s);
    assert_true(s.member && s.rejoins == 0);
    world_stop();
}

static void test_name_taken(void **state)
{
    world_start(6);
    node_start(0);
    pass(500);
    snprintf(nodes[1].name, sizeof nodes[1].name, "n0");
    node_start(1);
    pass(5000);
    struct fleet_status s;
    fleet_status(nodes[1].fleet, &s);
    assert_true(!s.member && strstr(s.why, "same name"));
    fleet_status(nodes[0].fleet, &s);
    assert_true(s.member && s.leader);
    node_dies(0);
    pass(6000);
    fleet_status(nodes[1].fleet, &s);
    assert_true(s.member);
    world_stop();
}

static void compact(void)
{
    static struct ctl_call call;
    struct ctl_status st;
    ctl_status(store, &st);
    call = (struct ctl_call){.op = {.kind = CTL_COMPACT, .compact = st.revision}, .done = on_compacted};
    ctl_submit(store, &call);
}

/* What happened while a node was cut off is no longer in history: it reads anew. */
static void test_compacted(void **state)
{
    world_start(8);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    wire_cut(&wires[2]);
    pass(1000);
    objects_read(DEP("api", "1", "") DEP("once", "0", "strategy: { type: Recreate },") DEP("pair", "0", "strategy: { type: Recreate },") DEP("web", "6", ""));
    pass(5000);
    compact();
    pass(200);
    wire_heal(&wires[2]);
    pass(1000);
    well(6000);
    world_stop();
}

/* A node that starts while the store is away goes on with what was remembered, but for what runs once. */
static void test_recall(void **state)
{
    struct buf memory = {0};
    size_t n, before;
    world_start(12);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    fleet_remember(nodes[0].fleet, "etcd://x:1", &memory);
    (void)fleet_others(nodes[0].fleet, &before);
    uint32_t web = fleet_share(nodes[0].fleet, deps[3]), once = ready_of(1, 0);
    node_dies(0);
    wire_cut(&wires[0]);
    node_start(0);
    assert_false(fleet_recall(nodes[0].fleet, "etcd://x:1", SLICE("{\"of\":\"etcd://x:1\"")));
    assert_false(fleet_recall(nodes[0].fleet, "etcd://y:1", buf_slice(&memory)));
    assert_int_equal(fleet_share(nodes[0].fleet, deps[3]), 0);
    nodes[0].place = "after a reboot";
    assert_true(fleet_recall(nodes[0].fleet, "etcd://x:1", buf_slice(&memory)));
    pass(2000);
    assert_true(web > 0 && fleet_share(nodes[0].fleet, deps[3]) == web && !fleet_ready(nodes[0].fleet));
    assert_true(fleet_share(nodes[0].fleet, deps[1]) == 0 && once <= 1);
    (void)fleet_others(nodes[0].fleet, &n);
    assert_int_equal(n, before);
    pass(4000); /* the others have taken over */
    wire_heal(&wires[0]);
    pass(1000);
    well(6000);
    buf_free(&memory);
    world_stop();
}

/* A node that is to leave has its replicas until others have those that follow; what runs once is handed on. */
static void test_cordon(void **state)
{
    world_start(9);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    fleet_cordon(nodes[1].fleet);
    for (int step = 0; step < 400; step++) {
        pass(10);
        assert_true(ready_of(0, NODES) >= 3 && ready_of(3, NODES) >= 4);
    }
    for (size_t d = 0; d < deps_n; d++)
        assert_int_equal(ready_of(d, 1), 0);
    well(2000);
    node_dies(1);
    node_start(1);
    pass(5000);
    well(2000);
    world_stop();
}

static bool left;
static void on_left(void *ctx) { left = true; }
static bool has_left(void *ctx) { return left; }
static struct ctl_call written[9];
static void on_put(struct ctl_call *call) { assert_int_equal(call->error, CTL_OK); }

/* The answer to the campaign is lost, and it was won: somebody leads all the same. */
static void test_campaign_unknown(void **state)
{
    world_start(10);
    wires[0].lose_leader = true;
    node_start(0);
    well(5000);
    assert_false(wires[0].lose_leader);
    node_start(1);
    wires[1].lose_leader = true;
    pass(3000);
    node_dies(0);
    pass(3000);
    well(5000);
    assert_false(wires[1].lose_leader);
    world_stop();
}

/* Whenever in the course of joining a node leaves: it is not there afterwards. */
static void test_leave_early(void **state)
{
    for (unsigned turns = 0; turns < 12; turns++) {
        size_t n;
        world_start(11);
        node_start(0);
        pass(3000);
        node_start(1);
        for (unsigned i = 0; i < turns; i++)
            (void)sim_run(never, NULL, 1);
        left = false;
        fleet_leave(nodes[1].fleet, on_left, NULL);
        pass(2000);
        assert_true(left);
        (void)fleet_nodes(nodes[0].fleet, &n);
        assert_int_equal(n, 1);
        world_stop();
    }
}

/* Who leaves is forgotten at once. Services outside are known by all. */
static void test_leave(void **state)
{
    size_t n;
    world_start(7);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    (void)fleet_nodes(nodes[1].fleet, &n);
    assert_int_equal(n, 3);
    left = false;
    fleet_leave(nodes[0].fleet, on_left, NULL);
    assert_true(sim_run(has_left, NULL, 1000));
    node_dies(0);
    pass(50);
    (void)fleet_nodes(nodes[1].fleet, &n);
    assert_int_equal(n, 2);
    well(2000);
    static char large[5000]; /* beyond FLEET_SERVICE_BYTES_MAX */
    const char *const kv[][2] = {{"/services/shop/legacy/a", "{\"address\":\"10.1.1.1\",\"port\":8080,\"zone\":\"r/z9\",\"weight\":3}"}, {"/services/shop/legacy/b", "{\"address\":\"nowhere\"}"}, {"/services/x", "[]"},
                                 {"/services/shop/legacy/c", large}, {"/services/shop/legacy/d", "{"}, {"/services/shop/legacy/e\xff", "{\"address\":\"::1\",\"port\":65536}"},
                                 {"/services/shop/legacy/f", "{\"address\":\"::1\",\"port\":1,\"weight\":-1}"}, {"/services/shop/legacy/g", "{\"address\":\"::1\",\"port\":1,\"weight\":0}"}, {"/services/shop/legacy/h", "{\"address\":\"::1\",\"port\":1}"}};
    const char *const said[] = {"shop legacy /services/shop/legacy/b is left out: its \"address\" has to be an IP address", "x  /services/x is left out: the key has to be /services/NAMESPACE/SERVICE/ID",
                                "shop legacy /services/shop/legacy/c is left out: its key or its value is longer than 4 KiB", "shop legacy /services/shop/legacy/d is left out: its value has to be a JSON object",
                                "shop legacy /services/shop/legacy/e? is left out: its \"port\" has to be a number from 1 to 65535",
                                "shop legacy /services/shop/legacy/f is left out: its \"weight\" has to be a whole number, 0 or more"};
    memset(large, ' ', sizeof large - 1);
    memcpy(large, "{\"address\":\"10.1.1.2\",\"port\":1}", 31);
    const struct fleet_endpoint *const *others = fleet_others(nodes[2].fleet, &n);
    size_t before = n;
    _Static_assert(COUNT_OF(kv) <= COUNT_OF(written), "each is a call");
    for (size_t i = 0; i < COUNT_OF(kv); i++) {
        written[i] = (struct ctl_call){.op = {.kind = CTL_PUT, .put = {.key = slice_cstr(kv[i][0]), .value = slice_cstr(kv[i][1])}}, .done = on_put};
        ctl_submit(store, &written[i]);
    }
    pass(100);
    others = fleet_others(nodes[2].fleet, &n);
    assert_int_equal(n, before + 3);
    assert_int_equal(left_out_n, COUNT_OF(said));
    for (size_t i = 0; i < COUNT_OF(said); i++)
        assert_memory_equal(left_out[i], said[i], strlen(said[i]));
    assert_true(others[n - 2]->weight == 0 && others[n - 1]->weight == 1);
    const struct fleet_endpoint *ep = others[n - 3];
    assert_true(!ep->node && strcmp(ep->ns, "shop") == 0 && strcmp(ep->workload, "legacy") == 0 && strcmp(ep->replica, "a") == 0 && strcmp(ep->address, "10.1.1.1") == 0);
    assert_true(ep->ports_n == 1 && ep->ports[0].port == 8080 && ep->weight == 3 && strcmp(ep->locality, "r/z9") == 0);
    world_stop();
}

/* One node keeps the event log, of those that may, and goes on keeping it while it is away. Only when it was given up does another take it. */
static void test_log(void **state)
{
    struct fleet_log l;
    world_start(10);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    assert_int_equal(logs_here(), 1);
    fleet_log(nodes[2].fleet, &l);
    assert_true(l.known && !l.here && l.gate && strcmp(l.gate, "10.0.0.1:1") == 0);
    size_t home = slice_is(l.node, "n0") ? 0 : 1, other = 1 - home;
    fleet_log(nodes[home].fleet, &l);
    assert_true(l.here);
    node_dies(home);
    pass(6000);
    for (size_t i = other; i < NODES; i = i == other ? 2 : NODES) {
        fleet_log(nodes[i].fleet, &l);
        assert_true(l.known && !l.here && slice_is(l.node, nodes[home].name) && !l.gate);
    }
    snprintf(nodes[home].instance, sizeof nodes[home].instance, "new"); /* another data folder: the records are not in it */
    node_start(home);
    pass(2000);
    assert_int_equal(logs_here(), 0);
    fleet_log(nodes[other].fleet, &l);
    assert_true(l.known && !l.gate);
    node_dies(home);
    snprintf(nodes[home].instance, sizeof nodes[home].instance, "i%zu", home);
    pass(6000);
    node_start(home);
    pass(2000);
    fleet_log(nodes[other].fleet, &l);
    assert_true(l.known && !l.here && l.gate);
    assert_int_equal(logs_here(), 1);
    node_dies(home);
    pass(6000);
    written[0] = (struct ctl_call){.op = {.kind = CTL_DELETE, .del = {.key = SLICE("/weir/log")}}, .done = on_put};
    ctl_submit(store, &written[0]);
    pass(500);
    fleet_log(nodes[other].fleet, &l);
    assert_true(l.here);
    node_start(home);
    pass(2000);
    fleet_log(nodes[home].fleet, &l);
    assert_true(l.known && !l.here && l.gate);
    world_stop();
}

static size_t leader_now(void)
{
    struct fleet_status s;
    size_t found = NODES;
    for (size_t i = 0; i < NODES; i++) {
        if (nodes[i].fleet)
            fleet_status(nodes[i].fleet, &s);
        if (nodes[i].fleet && s.leader)
            found = i;
    }
    return found;
}

/* Who can't read the objects neither leads nor places: what it does not know of is not gone. */
static void test_blind(void **state)
{
    struct ctl_call del = {.op = {.kind = CTL_DELETE, .del = {.key = SLICE("/weir/leader")}}, .done = on_put};
    world_start(18);
    for (size_t i = 0; i < NODES; i++)
        node_start(i);
    well(4000);
    size_t was = leader_now();
    nodes[was].blind = true;
    objects_read(DEP("api", "3", "") DEP("once", "1", "strategy: { type: Recreate },") DEP("pair", "2", "strategy: { type: Recreate },") DEP("web", "6", ""));
    well(6000); /* another placed the two */
    assert_int_not_equal(leader_now(), was);
    for (size_t i = 0; i < NODES; i++)
        nodes[i].blind = i != was;
    ctl_submit(store, &del);
    pass(4000);
    assert_int_equal(leader_now(), was);
    well(1000);
    nodes[was].blind = true; /* nobody can: nobody leads, and all stays where it is */
    fleet_touch(nodes[was].fleet);
    pass(6000);
    assert_int_equal(leader_now(), NODES);
    assert_int_equal(ready_of(3, NODES), 6);
    nodes[was].blind = false;
    fleet_touch(nodes[was].fleet);
    well(2000);
    assert_int_equal(leader_now(), was);
    world_stop();
}

/* ---- lives: whatever happens, in whatever order -------------------------------------------------------------------------------------- */

static void life(uint64_t seed)
{
    world_start(seed);
    for (size_t i = 0; i < NODES; i++) {
        node_start(i);
        pass(chance(800));
    }
    for (unsigned step = 0; step < 12; step++) {
        size_t i = chance(NODES);
        unsigned what = chance(8);
        if (getenv("SIM_SAY"))
            print_message("%llu ms: %u n%zu\n", (unsigned long long)sim_now_ms(), what, i);
        switch (what) { /* 7: to leave, until it comes again */
        case 0: wire_cut(&wires[i]); break;
        case 1: wire_heal(&wires[i]); break;
        case 2: if (nodes[i].fleet) node_dies(i); break;
        case 3: if (!nodes[i].fleet) node_start(i); break;
        case 4: if (nodes[i].fleet) { node_engine_dies(i); pass(chance(9000)); node_start(i); } break;
        case 5: objects_read(chance(2) ? common : DEP("api", "5", "") DEP("once", "1", "strategy: { type: Recreate },") DEP("pair", "1", "strategy: { type: Recreate },") DEP("web", "2", "")); break;
        case 6: break;
        case 7: if (nodes[i].fleet) fleet_cordon(nodes[i].fleet); break;
        }
        pass(chance(6000));
    }
    for (size_t i = 0; i < NODES; i++) {
        wire_heal(&wires[i]);
        if (nodes[i].fleet)
            node_engine_dies(i); /* the next one does not want to leave */
        node_start(i);
    }
    pass(5000);
    well(15000);
    world_stop();
}

static void test_lives(void **state)
{
    const char *given = getenv("SIM_SEEDS"), *from = getenv("SIM_FIRST");
    uint64_t n = test_repeats(300), first = 100;
    assert_true(!from || slice_u64(slice_cstr(from), 1000000, &first) == OK);
    for (uint64_t seed = first; seed < first + n; seed++) {
        if (given)
            print_message("seed %llu\n", (unsigned long long)seed);
        life(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_start), cmocka_unit_test(test_node_dies), cmocka_unit_test(test_partition), cmocka_unit_test(test_store_away),
                                       cmocka_unit_test(test_engine_after_another), cmocka_unit_test(test_name_taken), cmocka_unit_test(test_copy), cmocka_unit_test(test_revoked), cmocka_unit_test(test_back_at_once), cmocka_unit_test(test_leave), cmocka_unit_test(test_compacted), cmocka_unit_test(test_cordon), cmocka_unit_test(test_campaign_unknown), cmocka_unit_test(test_leave_early), cmocka_unit_test(test_log), cmocka_unit_test(test_recall), cmocka_unit_test(test_blind), cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
