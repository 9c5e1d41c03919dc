/* work.c - blocking work: run() on a pool of threads, done() on the loop that asked.
 *
 *     work_submit() -> queue (work_lock) -> pool thread: run() -> the loop's done stack (no lock) -> loop: done()
 *
 * The pool is shared by all loops and grows on demand to WORK_THREADS; its threads live as long as the process. The queues
 * are not bounded here: a work is memory of the one who submits it, who bounds how many there are. Slow works have a queue of their own and
 * never all of the threads, so that what somebody waits for (a sync, before an answer) does not stand behind minutes of compaction.
 *
 * A work may spread what it does over further threads (work_spread()): spreads stand in a list until all of their calls are taken; whoever is free takes the next
 * one, and the work itself takes part. These threads are not the pool's: they do nothing but wait for a device together.
 *
 * Without threads (the simulator), run() and done() are called by the loop, on the turn after the submission. On a slow disk run() sleeps
 * (sim_work.c), and the loop goes on with it when the time has come.
 */
#include "rt_int.h"

#include <pthread.h>
#include <sched.h>

#define WORK_THREADS 4
#define WORK_SLOW_THREADS 2 /* of them, the most that slow works have at a time */

/* work_lock guards what follows; nothing else is locked while it is held. */
static pthread_mutex_t work_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_there = PTHREAD_COND_INITIALIZER;
static struct works { struct work *first, *last; } work_quick, work_slow;
static int work_queued;                         /* works in both */
static int work_slow_runs;
static int work_idle;                           /* threads that wait */
static struct thread *work_threads[WORK_THREADS];
static int work_threads_n;

#define SPREAD_THREADS 15 /* and the one that spreads: about as many as a device merges */

struct spread {
    struct list link;
    void (*fn)(void *ctx, uint32_t i);
    void *ctx;
    uint32_t n, next;         /* next: atomic; the first call that nobody has taken */
    uint32_t helpers;         /* threads in it, besides its own */
    pthread_cond_t left;      /* the last helper has */
};
/* spread_lock guards what follows and the helpers of each; innermost. */
static pthread_mutex_t spread_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t spread_there = PTHREAD_COND_INITIALIZER;
static struct list spreads = {&spreads, &spreads};
static struct thread *spread_threads[SPREAD_THREADS];
static uint32_t spread_threads_n, spread_idle;

static void work_done(struct work *w)
{
    struct loop *l = w->loop;
    __atomic_fetch_add(&l->work_wakers, 1, __ATOMIC_RELAXED); /* before the loop can know that this work, its last one, is over */
    w->next = __atomic_load_n(&l->done, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&l->done, &w->next, w, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {}
    loop_wake(l);
    __atomic_fetch_sub(&l->work_wakers, 1, __ATOMIC_RELEASE);
}

/* No work is under way; but the thread that ran the last one may still be in loop_wake(), for an instant. */
void works_end(struct loop *l)
{
    MUST(l->works == 0);
    while (__atomic_load_n(&l->work_wakers, __ATOMIC_ACQUIRE)) sched_yield();
}

static struct work *work_take(struct works *q)
{
    struct work *w = q->first;
    if (w) q->first = w->next;
    return w;
}

/* What is to be run next, or NULL. With work_lock. */
static struct work *work_next(void)
{
    struct work *w = work_take(&work_quick);
    if (!w && work_slow_runs < WORK_SLOW_THREADS && (w = work_take(&work_slow))) work_slow_runs++;
    return w;
}

static _Noreturn void work_main(void *arg)
{
    thread_prompt(); /* it waits for the disk most of its time, and others for it */
    for (;;) {
        struct work *w;
        pthread_mutex_lock(&work_lock);
        work_idle++;
        while (!(w = work_next())) pthread_cond_wait(&work_there, &work_lock);
        work_idle--;
        work_queued--;
        pthread_mutex_unlock(&work_lock);
        bool slow = w->slow;
        w->run(w);
        work_done(w);
        if (!slow) continue;
        pthread_mutex_lock(&work_lock);
        work_slow_runs--; /* this thread is the next to look for work */
        pthread_mutex_unlock(&work_lock);
    }
}

static void work_queue(struct work **first, struct work *w)
{
    while (*first) first = &(*first)->next;
    *first = w;
}

void work_submit(struct loop *l, struct work *w)
{
    w->loop = l;
    w->next = NULL;
    w->sim_fiber = NULL;
    l->works++;
    if (!sys_threads()) {
        work_queue(&l->sim_queue, w);
        return;
    }
    pthread_mutex_lock(&work_lock);
    struct works *q = w->slow ? &work_slow : &work_quick;
    if (q->first) q->last->next = w;
    else q->first = w;
    q->last = w;
    if (++work_queued > work_idle && work_threads_n < WORK_THREADS) {
        work_threads[work_threads_n] = thread_start("work", work_main, NULL);
        work_threads_n++;
    }
    pthread_cond_signal(&work_there);
    pthread_mutex_unlock(&work_lock);
}

/* ---- spreads ---- */

static void spread_take(struct spread *s)
{
    for (uint32_t i; (i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->n;)
        s->fn(s->ctx, i);
}

/* One that still has calls to be taken. With spread_lock. */
static struct spread *spread_open(void)
{
    LIST_FOREACH(it, &spreads) {
        struct spread *s = CONTAINER_OF(it, struct spread, link);
        if (__atomic_load_n(&s->next, __ATOMIC_RELAXED) < s->n) return s;
    }
    return NULL;
}

static _Noreturn void spread_main(void *arg)
{
    pthread_mutex_lock(&spread_lock);
    for (;;) {
        struct spread *s;
        spread_idle++;
        while (!(s = spread_open())) pthread_cond_wait(&spread_there, &spread_lock);
        spread_idle--;
        s->helpers++;
        pthread_mutex_unlock(&spread_lock);
        spread_take(s);
        pthread_mutex_lock(&spread_lock);
        if (--s->helpers == 0) pthread_cond_signal(&s->left);
    }
}

void work_spread(uint32_t n, void (*fn)(void *ctx, uint32_t i), void *ctx)
{
    struct spread s = {.fn = fn, .ctx = ctx, .n = n, .left = PTHREAD_COND_INITIALIZER};
    if (n < 2 || !sys_threads()) {
        spread_take(&s);
        return;
    }
    pthread_mutex_lock(&spread_lock);
    list_push(&spreads, &s.link);
    uint32_t wanted = MIN(n - 1, SPREAD_THREADS);
    for (uint32_t i = 0; i < MIN(wanted, spread_idle); i++) pthread_cond_signal(&spread_there);
    for (uint32_t i = spread_idle; i < wanted && spread_threads_n < SPREAD_THREADS; i++) spread_threads[spread_threads_n++] = thread_start("spread", spread_main, NULL);
    pthread_mutex_unlock(&spread_lock);
    spread_take(&s);
    pthread_mutex_lock(&spread_lock);
    list_del(&s.link);
    while (s.helpers) pthread_cond_wait(&s.left, &spread_lock);
    pthread_mutex_unlock(&spread_lock);
    pthread_cond_destroy(&s.left);
}

bool works_pending(struct loop *l)
{
    return __atomic_load_n(&l->done, __ATOMIC_SEQ_CST) != NULL;
}

static void work_finish(struct work *w)
{
    w->loop->works--;
    w->done(w); /* may be gone now */
}

static void work_wait(struct work **first, struct work *w)
{
    while (*first && (*first)->sim_due_ns <= w->sim_due_ns) first = &(*first)->next;
    w->next = *first;
    *first = w;
}

static void works_run_here(struct loop *l)
{
    struct work *due = l->sim_due;
    l->sim_due = l->sim_queue;
    l->sim_queue = NULL;
    for (struct work *next; due; due = next) {
        next = due->next;
        if (sys_work_run(due)) work_finish(due);
        else work_wait(&l->sim_waits, due);
    }
    for (struct work *w; (w = l->sim_waits) && w->sim_due_ns <= sys_mono_ns();) {
        l->sim_waits = w->next;
        if (sys_work_run(w)) work_finish(w);
        else work_wait(&l->sim_waits, w);
    }
}

void works_finish(struct loop *l)
{
    if (l->sim_due || l->sim_queue || l->sim_waits) works_run_here(l);
    if (!works_pending(l)) return;
    struct work *w = __atomic_exchange_n(&l->done, NULL, __ATOMIC_ACQUIRE);
    struct work *in_order = NULL;
    for (struct work *next; w; w = next) { /* the stack gives the last first */
        next = w->next;
        w->next = in_order;
        in_order = w;
    }
    for (struct work *next; in_order; in_order = next) {
        next = in_order->next;
        work_finish(in_order);
    }
}
