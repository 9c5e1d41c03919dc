/* loop.c - the event loop: one turn after another on one thread.
 *
 * A turn, in this order:
 *
 *     poll       wait for readiness, at most until the next timer; not at all when something is left to do
 *     clock      read once; everything in the turn sees this time
 *     events     streams (connect result, flush, one read), listeners (accept), watches
 *     mail       messages from other threads; results of blocking work
 *     timers     those that are due
 *     ready      streams with more to read, adopted streams' first read, failures found by a write
 *     tasks      what was deferred
 *     register   adopted streams that are still open enter the poller
 *     reap       closed streams are released
 *
 * Callbacks are called from here only, so they never nest. A stream closed in a turn stays in memory until reap, because
 * an event later in the same batch may still point to it. Listeners and watches are struck out of the batch instead.
 *
 * Sleeping and waking: before it waits, the loop raises may_sleep and then looks at its mailboxes once more; a sender
 * first publishes, then looks at may_sleep. Both are sequentially consistent, so one of the two sees the other.
 */
#include "rt_int.h"

#include <limits.h>
#include <stdio.h>

struct loop *loop_new(const char *name)
{
    struct loop *l = mem_new(MEM_LOOP, sizeof *l);
    snprintf(l->name, sizeof l->name, "%s", name);
    l->poller = sys_poller_new();
    MUST(l->poller >= 0);
    l->wake_fd = sys_wake_new();
    MUST(l->wake_fd >= 0);
    MUST(sys_poller_add_level(l->poller, l->wake_fd, src_tag(l, SRC_WAKE), false) == 0);
    l->now_ns = sys_mono_ns();
    sys_random(&l->random, sizeof l->random);
    l->pipes_max = PIPES_PER_LOOP;
    l->read_buf = mem_new(MEM_LOOP, STREAM_HEADROOM + STREAM_READ_BYTES);
    list_init(&l->ready);
    list_init(&l->fresh);
    list_init(&l->reaps);
    list_init(&l->tasks);
    list_init(&l->mailboxes);
    list_init(&l->listeners);
    wheel_init(&l->wheel, l->now_ns / 1000000);
    sys_loop_added(l);
    return l;
}

static void loop_reap(struct loop *l)
{
    while (!list_empty(&l->reaps)) {
        struct stream *s = CONTAINER_OF(l->reaps.next, struct stream, reap.link);
        list_del(&s->reap.link);
        s->ops->released(s); /* s may be gone now */
    }
}

void loop_free(struct loop *l)
{
    if (!l) return;
    loop_reap(l);
    MUST(list_empty(&l->fresh));
    MUST(list_empty(&l->ready));
    MUST(list_empty(&l->listeners));
    MUST(list_empty(&l->mailboxes));
    works_end(l);
    while (!list_empty(&l->tasks)) list_del(l->tasks.next);
    wheel_fini(&l->wheel);
    for (struct stream_chunk *c = l->chunks, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    pipes_free(l);
    tls_loop_free(l);
    sys_loop_gone(l);
    sys_close(l->wake_fd);
    sys_close(l->poller);
    mem_free(l->read_buf);
    mem_free(l);
}

/* ---- time and chance ---- */

uint64_t loop_now_ns(const struct loop *l) { return l->now_ns; }
uint64_t loop_now_ms(const struct loop *l) { return l->now_ns / 1000000; }
uint64_t wall_ns(void) { return sys_wall_ns(); }
uint64_t mono_ns(void) { return sys_mono_ns(); }
void random_bytes(void *p, size_t n) { sys_random(p, n); }

/* SplitMix64 (Steele, Lea, Flood 2014): any seed will do, one multiplication chain per number. */
uint64_t loop_random(struct loop *l)
{
    uint64_t z = (l->random += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* ---- tasks ---- */

void task_init(struct task *t, void (*fn)(struct task *))
{
    list_init(&t->link);
    t->fn = fn;
}

void loop_defer(struct loop *l, struct task *t)
{
    if (list_empty(&t->link)) list_push(&l->tasks, &t->link);
}

/* Moves all of from to the empty list to. */
static void list_take(struct list *from, struct list *to)
{
    list_init(to);
    if (list_empty(from)) return;
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

static void loop_tasks(struct loop *l)
{
    struct list batch;
    list_take(&l->tasks, &batch);
    while (!list_empty(&batch)) {
        struct task *t = CONTAINER_OF(batch.next, struct task, link);
        list_del(&t->link);
        t->fn(t);
    }
}

/* ---- waking ---- */

void loop_wake(struct loop *l)
{
    if (!__atomic_load_n(&l->may_sleep, __ATOMIC_SEQ_CST)) return;
    if (__atomic_exchange_n(&l->may_sleep, false, __ATOMIC_SEQ_CST)) sys_wake(l->wake_fd);
}

/* Something waits that no poller tells of, apart from what other threads may send. */
static bool loop_has_left(const struct loop *l)
{
    return !list_empty(&l->ready) || !list_empty(&l->tasks) || l->sim_queue || l->sim_due || !list_empty(&l->reaps) || !list_empty(&l->fresh);
}

static bool loop_has_mail(struct loop *l)
{
    return works_pending(l) || mailboxes_pending(l);
}

uint64_t loop_due_ns(struct loop *l)
{
    if (loop_has_left(l) || loop_has_mail(l)) return 0;
    uint64_t next = wheel_next(&l->wheel), done_ns = l->sim_waits ? l->sim_waits->sim_due_ns : UINT64_MAX;
    return MIN(next == WHEEL_NEVER ? UINT64_MAX : next * 1000000, done_ns);
}

int loop_poller(const struct loop *l) { return l->poller; }

/* ---- the turn ---- */

static int loop_timeout(struct loop *l, int wait_ms)
{
    if (wait_ms == 0 || loop_has_left(l)) return 0;
    uint64_t next = wheel_next(&l->wheel);
    if (next == WHEEL_NEVER) return wait_ms;
    uint64_t now_ms = sys_mono_ns() / 1000000;
    uint64_t in_ms = next > now_ms ? MIN(next - now_ms, INT_MAX) : 0;
    return wait_ms < 0 || in_ms < (uint64_t)wait_ms ? (int)in_ms : wait_ms;
}

static void loop_poll(struct loop *l, int wait_ms)
{
    int timeout_ms = loop_timeout(l, wait_ms);
    if (timeout_ms != 0) {
        __atomic_store_n(&l->may_sleep, true, __ATOMIC_SEQ_CST);
        if (loop_has_mail(l)) timeout_ms = 0;
    }
    int n = sys_poller_wait(l->poller, l->events, EVENTS_PER_POLL, timeout_ms);
    __atomic_store_n(&l->may_sleep, false, __ATOMIC_RELAXED);
    l->events_n = MAX(n, 0); /* interrupted by a signal: no events */
    l->now_ns = sys_mono_ns();
}

static void loop_event(struct loop *l, const struct sys_event *ev)
{
    void *p = (void *)((uintptr_t)ev->ptr & ~(uintptr_t)SRC_MASK);
    switch ((uintptr_t)ev->ptr & SRC_MASK) {
    case SRC_STREAM: stream_event(p, ev->what); break;
    case SRC_LISTENER: listener_event(p); break;
    case SRC_WATCH: ((struct watch *)p)->fn(p); break;
    default: sys_wake_clear(l->wake_fd); break;
    }
}

static void loop_events(struct loop *l)
{
    for (l->event_at = 0; l->event_at < l->events_n; l->event_at++) {
        const struct sys_event *ev = &l->events[l->event_at];
        if (ev->ptr) loop_event(l, ev);
    }
    l->events_n = 0;
}

void loop_forget_events(struct loop *l, void *tagged)
{
    for (int i = l->event_at + 1; i < l->events_n; i++)
        if (l->events[i].ptr == tagged) l->events[i].ptr = NULL;
}

static void loop_timers(struct loop *l)
{
    wheel_advance(&l->wheel, l->now_ns / 1000000);
    while (!list_empty(&l->wheel.expired)) {
        struct timer *t = CONTAINER_OF(l->wheel.expired.next, struct timer, link);
        list_del(&t->link);
        t->fn(t); /* t may be gone now */
    }
}

/* Round by round, so that each stream reads once before any reads again. */
static void loop_ready(struct loop *l)
{
    for (int round = 0; round < READS_PER_TURN && !list_empty(&l->ready); round++) {
        struct list batch;
        list_take(&l->ready, &batch);
        while (!list_empty(&batch)) {
            struct stream *s = CONTAINER_OF(batch.next, struct stream, ready);
            list_del(&s->ready);
            stream_look(s);
        }
    }
}

static void loop_register(struct loop *l)
{
    while (!list_empty(&l->fresh)) stream_register(CONTAINER_OF(l->fresh.next, struct stream, reap.link));
}

void loop_turn(struct loop *l, int wait_ms)
{
    loop_poll(l, wait_ms);
    loop_events(l);
    works_finish(l);
    mailboxes_drain(l);
    loop_timers(l);
    loop_ready(l);
    loop_tasks(l);
    loop_register(l);
    loop_reap(l);
}

void loop_run(struct loop *l)
{
    MUST(sys_threads()); /* the simulator steps its loops itself: sim_run() */
    thread_name(l->name);
    while (!l->stop) loop_turn(l, -1);
    l->stop = false;
}

void loop_stop(struct loop *l)
{
    l->stop = true;
}
