/* shard.c - calls between shards, and the end of all of them.
 *
 * Calls. Each shard has one mailbox, and for every other shard a lane: the calls posted for it in this turn. At the end of the turn each lane
 * leaves as one message that carries the chain of calls, so a turn costs at most one message per pair of shards however many requests it moved.
 * A full mailbox leaves the lane as it is; it is tried again a millisecond later. What a shard posts for itself stays in its own lane until then.
 *
 *     shard_call() -> lane[to] --end of turn--> mailbox of `to` -> fn(to, call), in order
 *
 * Threads that are no shard's (the control loop) are outsiders: they post to shard 0, and are told back through a mailbox on their own loop.
 *
 * The end. Shard 0 leads: every shard stops taking requests and answers what is under way (quiet); when all are quiet and the controller rests,
 * every shard's log is made durable and closed; then the outsider who asked is told. Shard.stopping goes one way.
 *
 *     running --broker_stop()--> ending --quiet--> (all are) --log_shard_stop()--> (all have) --> done()
 */
#include "frame_int.h"

#define INBOX_CAP 1024
#define LANE_RETRY_MS 1
#define STOP_ANSWER_MS 5000 /* so long do answers under way have; then connections are cut */
#define STOP_GIVE_UP_MS 10000 /* and after this the stop goes on without requests that never came home */

struct shard_comm {
    struct shard *shard;
    struct mailbox *inbox;
    struct list lanes[SHARDS_MAX]; /* struct call: to be sent to the shard of that index */
    uint64_t dirty;                /* bit i: lanes[i] holds something */
    struct task send;
    struct timer retry;
    struct timer stop_timer;
    bool cut, quiet;               /* of the stop: connections were cut; everything is answered and this was reported */
};

/* ---- calls --------------------------------------------------------------------------------------------------------- */

static void call_chain(struct shard *here, struct list *first)
{
    for (struct list *it = first, *next; it; it = next) {
        struct call *c = CONTAINER_OF(it, struct call, link);
        next = it->next;
        list_init(&c->link);
        c->fn(here, c);
    }
}

/* The calls of a lane as a chain that ends with NULL; the lane is empty then. */
static struct list *lane_take(struct list *lane)
{
    struct list *first = lane->next;
    lane->prev->next = NULL;
    list_init(lane);
    return first;
}

static void lane_give_back(struct list *lane, struct list *first)
{
    for (struct list *it = first, *next; it; it = next) {
        next = it->next;
        list_push(lane, it);
    }
}

static void lane_send(struct shard_comm *comm, uint32_t to)
{
    struct list *first = lane_take(&comm->lanes[to]);
    comm->dirty &= ~(1ULL << to);
    if (to == comm->shard->index) {
        call_chain(comm->shard, first);
        return;
    }
    if (mailbox_post(comm->shard->b->shards[to]->comm->inbox, &(struct msg){.p = first}))
        return;
    lane_give_back(&comm->lanes[to], first);
    comm->dirty |= 1ULL << to;
    if (!timer_is_set(&comm->retry))
        timer_set(comm->shard->loop, &comm->retry, LANE_RETRY_MS);
}

static void lanes_send(struct shard_comm *comm)
{
    for (uint64_t left = comm->dirty; left; left &= left - 1)
        lane_send(comm, (uint32_t)__builtin_ctzll(left));
}

static void on_send(struct task *t) { lanes_send(CONTAINER_OF(t, struct shard_comm, send)); }
static void on_retry(struct timer *t) { lanes_send(CONTAINER_OF(t, struct shard_comm, retry)); }

void shard_call(struct shard *from, struct shard *to, struct call *c)
{
    struct shard_comm *comm = from->comm;
    list_push(&comm->lanes[to->index], &c->link);
    comm->dirty |= 1ULL << to->index;
    loop_defer(from->loop, &comm->send);
}

void shard_post(struct shard *to, struct call *c)
{
    c->link.next = NULL;
    MUST(mailbox_post(to->comm->inbox, &(struct msg){.p = &c->link}));
}

static void on_message(void *ctx, const struct msg *m) { call_chain(ctx, m->p); }
static void on_stop_timer(struct timer *t);

void shard_comm_new(struct shard *s)
{
    struct shard_comm *comm = mem_new(MEM_BROKER, sizeof *comm);
    s->comm = comm;
    comm->shard = s;
    comm->inbox = mailbox_new(s->loop, INBOX_CAP, on_message, s);
    for (uint32_t i = 0; i < SHARDS_MAX; i++)
        list_init(&comm->lanes[i]);
    task_init(&comm->send, on_send);
    timer_init(&comm->retry, on_retry);
    timer_init(&comm->stop_timer, on_stop_timer);
}

struct mailbox *shard_inbox(struct shard *s) { return s->comm->inbox; }

void shard_comm_free(struct shard *s)
{
    struct shard_comm *comm = s->comm;
    timer_clear(&comm->retry);
    timer_clear(&comm->stop_timer);
    list_del(&comm->send.link);
    mailbox_free(comm->inbox);
    mem_free(comm);
    s->comm = NULL;
}

/* ---- outsiders --------------------------------------------------------------------------------------------------------- */

static void outsider_told(void *ctx, const struct msg *m)
{
    struct outsider *o = ctx;
    o->told(o, m->p);
}

void outsider_init(struct outsider *o, struct broker *b, struct loop *l, void (*told)(struct outsider *o, struct call *c))
{
    *o = (struct outsider){.b = b, .loop = l, .told = told};
    o->back = mailbox_new(l, 2, outsider_told, o);
    outbox_init(&o->to, l, b->shards[0]->comm->inbox);
}

void outsider_fini(struct outsider *o)
{
    outbox_fini(&o->to);
    mailbox_free(o->back);
}

void outsider_call(struct outsider *o, struct call *c)
{
    c->link.next = NULL;
    outbox_post(&o->to, (struct msg){.p = &c->link});
}

void outsider_tell(struct shard *here, struct outsider *o, struct call *c)
{
    (void)here;
    MUST(mailbox_post(o->back, &(struct msg){.p = c}));
}

/* ---- the end ------------------------------------------------------------------------------------------------------------- */

struct stop_step {
    struct call call;
    struct broker_stop *stop;
    struct shard *shard;
};
struct broker_stop {
    struct broker *b;
    struct outsider outsider;
    void (*done)(void *ctx);
    void *ctx;
    struct call first;                  /* to shard 0, and back when all is over */
    struct stop_step steps[SHARDS_MAX]; /* one call per shard, there and back, used again for each step */
    uint32_t left;                      /* shards that have not reported this step; shard 0's */
    bool closing;                       /* all are quiet, the logs are being closed */
};

static void stop_over(struct outsider *o, struct call *c)
{
    struct broker_stop *stop = CONTAINER_OF(o, struct broker_stop, outsider);
    (void)c;
    outsider_fini(o);
    stop->b->stop = NULL;
    void (*done)(void *ctx) = stop->done;
    void *ctx = stop->ctx;
    mem_free(stop);
    done(ctx);
}

static void stop_closed(struct shard *zero, struct call *c)
{
    struct broker_stop *stop = CONTAINER_OF(c, struct stop_step, call)->stop;
    if (--stop->left == 0)
        outsider_tell(zero, &stop->outsider, &stop->first);
}

static void log_stopped(void *ctx)
{
    struct stop_step *step = ctx;
    step->call.fn = stop_closed;
    shard_call(step->shard, step->shard->b->shards[0], &step->call);
}

static void stop_close(struct shard *here, struct call *c)
{
    log_shard_stop(here->log, log_stopped, CONTAINER_OF(c, struct stop_step, call));
}

static void stop_all(struct shard *zero, void (*fn)(struct shard *, struct call *))
{
    struct broker_stop *stop = zero->b->stop;
    stop->left = zero->b->shards_n;
    for (uint32_t i = 0; i < zero->b->shards_n; i++) {
        stop->steps[i].call.fn = fn;
        shard_call(zero, zero->b->shards[i], &stop->steps[i].call);
    }
}

/* On shard 0: the logs are closed when nobody can want to write any more. */
static void stop_try_close(struct shard *zero)
{
    struct broker_stop *stop = zero->b->stop;
    if (stop->left || stop->closing || !controller_at_rest(zero->b))
        return;
    stop->closing = true;
    stop_all(zero, stop_close);
}

static void stop_quiet(struct shard *zero, struct call *c)
{
    CONTAINER_OF(c, struct stop_step, call)->stop->left--;
    stop_try_close(zero);
}

static void stop_report(struct shard *s)
{
    struct stop_step *step = &s->b->stop->steps[s->index];
    timer_clear(&s->comm->stop_timer);
    s->comm->quiet = true;
    step->call.fn = stop_quiet;
    shard_call(s, s->b->shards[0], &step->call);
}

static bool modules_at_rest(const struct shard *s)
{
    for (uint32_t i = 0; i < modules_n; i++)
        if (modules[i]->at_rest && !modules[i]->at_rest(s))
            return false;
    return true;
}

void shard_rested(struct shard *s) { shard_stop_step(s); }

void shard_stop_step(struct shard *s)
{
    if (!s->stopping)
        return;
    if (!s->comm->quiet && conns_at_rest(s) && parts_at_rest(s) && modules_at_rest(s))
        stop_report(s);
    else if (s->index == 0 && s->comm->quiet)
        stop_try_close(s);
}

static void on_stop_timer(struct timer *t)
{
    struct shard *s = CONTAINER_OF(t, struct shard_comm, stop_timer)->shard;
    if (!s->comm->cut) {
        s->comm->cut = true;
        LIST_FOREACH(it, &s->conns)
            conn_close(CONTAINER_OF(it, struct bconn, link));
        timer_set(s->loop, t, STOP_GIVE_UP_MS - STOP_ANSWER_MS);
        shard_stop_step(s);
        return;
    }
    log_error("broker", "shard %u stops though %u requests were never answered", s->index, s->pool->reqs_n);
    stop_report(s);
}

static void stop_begin(struct shard *here, struct call *c)
{
    (void)c;
    here->stopping = true;
    for (uint32_t i = modules_n; i-- > 0;)
        if (modules[i]->stop)
            modules[i]->stop(here);
    parts_stop(here);
    timer_set(here->loop, &here->comm->stop_timer, STOP_ANSWER_MS);
    conns_stop(here);
    shard_stop_step(here);
}

static void stop_first(struct shard *zero, struct call *c)
{
    (void)c;
    stop_all(zero, stop_begin);
}

void broker_stop(struct broker *b, struct loop *l, void (*done)(void *ctx), void *ctx)
{
    MUST(!b->stop);
    struct broker_stop *stop = mem_new(MEM_BROKER, sizeof *stop);
    stop->b = b;
    stop->done = done;
    stop->ctx = ctx;
    for (uint32_t i = 0; i < b->shards_n; i++) {
        stop->steps[i].stop = stop;
        stop->steps[i].shard = b->shards[i];
    }
    outsider_init(&stop->outsider, b, l, stop_over);
    b->stop = stop;
    __atomic_store_n(&b->stopping, true, __ATOMIC_RELAXED);
    stop->first.fn = stop_first;
    outsider_call(&stop->outsider, &stop->first);
}
