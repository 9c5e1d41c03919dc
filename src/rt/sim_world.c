/* sim_world.c - the simulator's clock, chance and loops.
 *
 * Time stands still while a loop's turn runs and a few microseconds pass between turns, in an order that the seed
 * chooses. When no loop has anything to do, time jumps to the next thing that happens: a segment that arrives, or the
 * earliest timer of a loop. All choices come from one generator, so one seed gives one history; the trace is a hash over
 * what happened, by which tests prove it.
 */
#include "sim_int.h"

#define SIM_START_NS 1000000000000ULL            /* the monotonic clock at sim_start() */
#define SIM_WALL_NS 1767225600000000000ULL       /* added for the wall clock: 2026-01-01 and a bit */
#define SIM_SOCKET_BYTES 65536

struct sim_world sim;

/* ---- chance ---- */

uint64_t sim_random(void)
{
    uint64_t z = (sim.random += 0x9e3779b97f4a7c15ULL); /* SplitMix64, as in loop_random() */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

uint64_t sim_between(uint64_t min, uint64_t max)
{
    return max <= min ? min : min + sim_random() % (max - min + 1);
}

bool sim_chance(uint64_t of, uint64_t in)
{
    return of != 0 && sim_random() % in < of;
}

void sim_note(uint64_t what, uint64_t a, uint64_t b)
{
    uint64_t words[4] = {sim.now_ns, what, a, b};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        sim.trace = (sim.trace ^ words[i]) * 0x9fb21c651e98df25ULL;
        sim.trace ^= sim.trace >> 29;
    }
}

uint64_t sim_trace(void) { return sim.trace; }

/* ---- the seam: clock, chance, loops ---- */

bool sys_threads(void) { return false; }
uint64_t sys_mono_ns(void) { return sim.now_ns; }
uint64_t sys_wall_ns(void) { return sim.now_ns + SIM_WALL_NS + sim.wall_jumps_ns; }
void sim_quiet(void) { sim.quiet = true; }
void sim_clock_jump(int64_t ms) { sim.wall_jumps_ns += (uint64_t)ms * 1000000; }

void sys_random(void *p, size_t n)
{
    char *at = p;
    for (size_t i = 0; i < n; i++) at[i] = (char)sim_random();
}

void sys_loop_added(struct loop *l)
{
    MUST(sim.on && sim.loops_n < SIM_LOOPS_MAX);
    sim.loops[sim.loops_n++] = l;
}

void sys_loop_gone(struct loop *l)
{
    for (uint32_t i = 0; i < sim.loops_n; i++) {
        if (sim.loops[i] != l) continue;
        sim.loops_n--;
        memmove(&sim.loops[i], &sim.loops[i + 1], (sim.loops_n - i) * sizeof sim.loops[0]);
        return;
    }
}

/* ---- objects ---- */

struct sim_obj *sim_obj_new(enum sim_kind kind)
{
    MUST(sim.on);
    struct sim_obj *o = mem_new(MEM_SIM, sizeof *o);
    o->kind = kind;
    o->fd = SIM_FD_BASE + (int)sim.objs_n;
    ARRAY_GROW(MEM_SIM, sim.objs, sim.objs_n, sim.objs_cap);
    sim.objs[sim.objs_n++] = o;
    return o;
}

struct sim_obj *sim_obj_get(int fd, enum sim_kind kind)
{
    MUST(fd >= SIM_FD_BASE && (uint32_t)(fd - SIM_FD_BASE) < sim.objs_n);
    struct sim_obj *o = sim.objs[fd - SIM_FD_BASE];
    MUST(!o->closed); /* use after close */
    MUST(o->kind == kind);
    return o;
}

/* ---- the world ---- */

void sim_conf_set(const struct sim_conf *conf)
{
    sim.conf = *conf;
    if (sim.conf.socket_bytes == 0) sim.conf.socket_bytes = SIM_SOCKET_BYTES;
}

void sim_start(const struct sim_conf *conf)
{
    MUST(!sim.on);
    memset(&sim, 0, sizeof sim);
    sim.on = true;
    sim.random = conf->seed;
    sim.now_ns = SIM_START_NS + sim_random() % 1000000000;
    sim.next_port = 32768;
    sim_conf_set(conf);
}

void sim_stop(void)
{
    MUST(sim.loops_n == 0); /* free the loops first */
    sim_net_fini();
    sim_disk_fini();
    sim_work_fini();
    for (uint32_t i = 0; i < sim.objs_n; i++) {
        mem_free(sim.objs[i]->hots);
        mem_free(sim.objs[i]->waiting);
        buf_free(&sim.objs[i]->rx);
        if (sim.objs[i]->tls) sim_tls_free(sim.objs[i]);
        mem_free(sim.objs[i]);
    }
    mem_free(sim.objs);
    sim.on = false;
}

uint64_t sim_now_ms(void) { return sim.now_ns / 1000000; }

static bool sim_step_loop(struct loop *l)
{
    if (!sim_poller_hot(loop_poller(l)) && loop_due_ns(l) > sim.now_ns) return false;
    sim_note(1, (uint64_t)loop_poller(l), 0);
    loop_turn(l, 0);
    sim.now_ns += 1000 * sim_between(1, 5);
    return true;
}

static bool sim_step(void)
{
    struct loop *order[SIM_LOOPS_MAX];
    uint32_t n = sim.loops_n;
    memcpy(order, sim.loops, n * sizeof order[0]);
    bool any = false;
    for (; n; n--) {
        uint32_t i = (uint32_t)(sim_random() % n);
        any |= sim_step_loop(order[i]);
        order[i] = order[n - 1];
        sim_net_due();
    }
    return any;
}

/* When no loop has anything to do: the time at which one will. */
static uint64_t sim_next_ns(void)
{
    uint64_t next = sim_net_next();
    for (uint32_t i = 0; i < sim.loops_n; i++) next = MIN(next, loop_due_ns(sim.loops[i]));
    return next;
}

bool sim_run(bool (*done)(void *ctx), void *ctx, uint64_t max_ms)
{
    uint64_t end = sim.now_ns + max_ms * 1000000;
    for (;;) {
        if (done && done(ctx)) return true;
        if (sim.now_ns >= end) return false;
        sim_net_due();
        if (sim_step()) continue;
        uint64_t next = sim_next_ns();
        sim.now_ns = MAX(sim.now_ns, MIN(next, end));
    }
}
