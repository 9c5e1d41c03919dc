/* sim_work.c - blocking work in the simulator: run() on a stack of its own, which sleeps where a thread would wait for the disk.
 *
 *     sys_work_run() -> run() -> disk_sync() -> sleeps          the loops go on, and may change what the work will find
 *     sys_work_run() -> ........ disk_sync() returns -> ...     when the time has come; until run() has returned
 *
 * So what a work does behind a sync happens after that sync, and a crash in between finds it not done. On a slow disk (sim_disk_slow()) a work
 * also sleeps a little before some of its writes: pool threads are slow when it hurts. On a quick one it is simply called. A work
 * that holds a lock must not sync or write: whoever wants the lock would wait for ever, in the same thread.
 */
#include "sim_int.h"

#include <ucontext.h>

#define FIBER_BYTES (512u << 10)

struct sim_fiber {
    ucontext_t here, back;       /* of run(); of who called sys_work_run() */
    struct work *work;
    uint64_t wake_ns;
    bool over;                   /* run() has returned */
    struct sim_fiber *next;      /* on sim.fibers: not in use */
    char stack[FIBER_BYTES];
};

static void fiber_main(void)
{
    struct sim_fiber *f = sim.fiber;
    f->work->run(f->work);
    f->over = true;
}

static struct sim_fiber *fiber_take(void)
{
    struct sim_fiber *f = sim.fibers;
    if (!f)
        return mem_new(MEM_SIM, sizeof *f);
    sim.fibers = f->next;
    return f;
}

static void fiber_init(struct sim_fiber *f, struct work *w)
{
    f->work = w;
    f->over = false;
    MUST(getcontext(&f->here) == 0);
    f->here.uc_stack.ss_sp = f->stack;
    f->here.uc_stack.ss_size = sizeof f->stack;
    f->here.uc_link = &f->back;
    makecontext(&f->here, fiber_main, 0);
}

bool sys_work_run(struct work *w)
{
    struct sim_fiber *f = w->sim_fiber;
    if (!f && sim.sync_ms_max == 0) {
        w->run(w);
        return true;
    }
    if (!f) {
        w->sim_fiber = f = fiber_take();
        fiber_init(f, w);
    }
    MUST(!sim.fiber);
    sim.fiber = f;
    MUST(swapcontext(&f->back, &f->here) == 0);
    sim.fiber = NULL;
    w->sim_due_ns = f->wake_ns;
    if (!f->over)
        return false;
    w->sim_fiber = NULL;
    f->next = sim.fibers;
    sim.fibers = f;
    return true;
}

void sim_wait_until(uint64_t ns)
{
    struct sim_fiber *f = sim.fiber;
    if (ns <= sim.now_ns)
        return;
    if (!f) {
        sim.now_ns = ns; /* a loop that waits: the world stands still */
        return;
    }
    f->wake_ns = ns;
    MUST(swapcontext(&f->here, &f->back) == 0);
}

void sim_work_dawdle(void)
{
    if (sim.fiber && sim_chance(1, 4))
        sim_wait_until(sim.now_ns + 1000 * sim_between(1, 1000));
}

void sim_work_fini(void)
{
    for (struct sim_fiber *f = sim.fibers, *next; f; f = next) {
        next = f->next;
        mem_free(f);
    }
}
