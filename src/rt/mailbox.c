/* mailbox.c - a bounded queue of messages from any thread to one loop, without locks.
 *
 * A ring of cells, each with a turn number (Vyukov's bounded queue). With cap cells, position p uses cell p mod cap, and
 * the cell's turn says whose it is:
 *
 *     turn == p          free, for the sender that takes position p
 *     turn == p + 1      filled, for the receiver at position p
 *     turn == p + cap    free again, for the next time round
 *
 * Senders take positions with a compare-and-swap on tail; there is one receiver, the loop, so head needs none. In one
 * turn of the loop at most as many messages are taken as waited when it began.
 *
 * An outbox stands in front of a mailbox for a sender that can neither wait nor lose: what does not fit waits in it, in order.
 */
#include "rt_int.h"

#define MAILBOX_CAP_MIN 2
#define OUTBOX_RETRY_MS 1

struct mailbox_cell {
    uint64_t turn;
    struct msg msg;
};
struct mailbox {
    struct loop *loop;
    struct list link;           /* on the loop's list */
    void (*fn)(void *ctx, const struct msg *m);
    void *ctx;
    struct mailbox_cell *cells;
    uint64_t mask;              /* cap - 1; cap is a power of two */
    uint64_t full;              /* posts refused; any thread */
    uint64_t head;              /* next to take; the loop's */
    char apart[64];             /* keeps the senders off the loop's cache line */
    uint64_t tail;              /* next to fill; the senders' */
};

struct mailbox *mailbox_new(struct loop *l, uint32_t cap, void (*fn)(void *ctx, const struct msg *m), void *ctx)
{
    struct mailbox *mb = mem_new(MEM_LOOP, sizeof *mb);
    uint64_t n = MAILBOX_CAP_MIN;
    while (n < cap) n *= 2;
    mb->loop = l;
    mb->fn = fn;
    mb->ctx = ctx;
    mb->mask = n - 1;
    mb->cells = mem_new(MEM_LOOP, n * sizeof *mb->cells);
    for (uint64_t i = 0; i < n; i++) mb->cells[i].turn = i;
    list_push(&l->mailboxes, &mb->link);
    return mb;
}

void mailbox_free(struct mailbox *mb)
{
    if (!mb) return;
    if (mb->loop->current == mb) mb->loop->current = NULL;
    list_del(&mb->link);
    mem_free(mb->cells);
    mem_free(mb);
}

bool mailbox_post(struct mailbox *mb, const struct msg *m)
{
    uint64_t pos = __atomic_load_n(&mb->tail, __ATOMIC_RELAXED);
    struct mailbox_cell *c;
    for (;;) {
        c = &mb->cells[pos & mb->mask];
        uint64_t turn = __atomic_load_n(&c->turn, __ATOMIC_ACQUIRE);
        if (turn == pos) {
            if (__atomic_compare_exchange_n(&mb->tail, &pos, pos + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
        } else if ((int64_t)(turn - pos) < 0) {
            __atomic_fetch_add(&mb->full, 1, __ATOMIC_RELAXED);
            return false;
        } else {
            pos = __atomic_load_n(&mb->tail, __ATOMIC_RELAXED);
        }
    }
    c->msg = *m;
    struct loop *l = mb->loop; /* whom the message tells that nobody posts any more may free the mailbox at once */
    /* Sequentially consistent with the loop's may_sleep: see loop.c. */
    __atomic_store_n(&c->turn, pos + 1, __ATOMIC_SEQ_CST);
    loop_wake(l);
    return true;
}

uint64_t mailbox_full(const struct mailbox *mb)
{
    return __atomic_load_n(&mb->full, __ATOMIC_RELAXED);
}

static bool mailbox_pending(struct mailbox *mb)
{
    return __atomic_load_n(&mb->cells[mb->head & mb->mask].turn, __ATOMIC_SEQ_CST) == mb->head + 1;
}

bool mailboxes_pending(struct loop *l)
{
    LIST_FOREACH(it, &l->mailboxes)
        if (mailbox_pending(CONTAINER_OF(it, struct mailbox, link))) return true;
    return false;
}

static void mailbox_drain(struct mailbox *mb)
{
    struct loop *l = mb->loop;
    uint64_t end = __atomic_load_n(&mb->tail, __ATOMIC_RELAXED);
    l->current = mb;
    while (mb->head != end && mailbox_pending(mb)) {
        struct mailbox_cell *c = &mb->cells[mb->head & mb->mask];
        struct msg m = c->msg;
        __atomic_store_n(&c->turn, mb->head + mb->mask + 1, __ATOMIC_RELEASE);
        mb->head++;
        mb->fn(mb->ctx, &m);
        if (l->current != mb) return; /* fn freed it */
    }
    l->current = NULL;
}

void mailboxes_drain(struct loop *l)
{
    /* A callback may free any mailbox or make new ones: each is moved to the back when it has been seen. */
    uint32_t n = 0;
    LIST_FOREACH(it, &l->mailboxes) n++;
    while (n-- && !list_empty(&l->mailboxes)) {
        struct list *first = l->mailboxes.next;
        list_del(first);
        list_push(&l->mailboxes, first);
        mailbox_drain(CONTAINER_OF(first, struct mailbox, link));
    }
}

/* ---- outboxes ---- */

static void outbox_flush(struct timer *t)
{
    struct outbox *o = CONTAINER_OF(t, struct outbox, retry);
    size_t sent = 0;
    while (sent < o->n && mailbox_post(o->to, &o->waiting[sent]))
        sent++;
    memmove(o->waiting, o->waiting + sent, (o->n - sent) * sizeof *o->waiting);
    o->n -= sent;
    if (o->n)
        timer_set(o->loop, &o->retry, OUTBOX_RETRY_MS);
}

void outbox_init(struct outbox *o, struct loop *l, struct mailbox *to)
{
    *o = (struct outbox){.loop = l, .to = to};
    timer_init(&o->retry, outbox_flush);
}

void outbox_post(struct outbox *o, struct msg m)
{
    if (o->n == 0 && mailbox_post(o->to, &m))
        return;
    ARRAY_GROW(MEM_LOOP, o->waiting, o->n, o->cap);
    o->waiting[o->n++] = m;
    if (!timer_is_set(&o->retry))
        timer_set(o->loop, &o->retry, OUTBOX_RETRY_MS);
}

void outbox_fini(struct outbox *o)
{
    timer_clear(&o->retry);
    mem_free(o->waiting);
    o->waiting = NULL;
    o->n = o->cap = 0;
}
