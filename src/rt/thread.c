/* thread.c - threads. All of Weir's threads block all signals: what arrives is for the process's first thread.
 *
 * In the simulator there are none: starting one is a programmer error there.
 */
#include "rt_int.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

struct thread {
    pthread_t id;
    char name[16];
    void (*fn)(void *);
    void *arg;
};

#define PROMPT_TURN_NS 100000 /* the shortest that the kernel takes; its own is some 3 ms */

/* As in sched_setattr(2), its first version; the headers have it only in place of <sched.h>. */
struct turn_attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* 0: the kernel's own. */
static void turn_set(uint64_t ns)
{
    struct turn_attr a = {0};
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0 || a.policy != SCHED_OTHER) return;
    a.runtime = ns;
    if (syscall(SYS_sched_setattr, 0, &a, 0) != 0) log_debug("rt", "cannot set the turns of a thread");
}

void thread_prompt(void) { turn_set(PROMPT_TURN_NS); }

static void *thread_main(void *p)
{
    struct thread *t = p;
    turn_set(0); /* one that was started by a prompt thread is none */
    thread_name(t->name);
    t->fn(t->arg);
    return NULL;
}

struct thread *thread_start(const char *name, void (*fn)(void *), void *arg)
{
    MUST(sys_threads());
    struct thread *t = mem_new(MEM_LOOP, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->fn = fn;
    t->arg = arg;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int r = pthread_create(&t->id, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    MUST(r == 0);
    return t;
}

void thread_join(struct thread *t)
{
    if (!t) return;
    MUST(pthread_join(t->id, NULL) == 0);
    mem_free(t);
}

void thread_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0 || cpu >= CPU_SETSIZE) return;
    CPU_SET(cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) log_debug("rt", "cannot pin a thread to CPU %d", cpu);
}

/* The first thread's name is the process's, which is not ours to change. */
void thread_name(const char *name)
{
    if (gettid() != getpid()) pthread_setname_np(pthread_self(), name);
}
