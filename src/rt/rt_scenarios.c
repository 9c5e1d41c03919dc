/* rt_scenarios.c - streams, listeners, timers, tasks, mailboxes and work, as every back end must show them.
 *
 * Each scenario is a small world: one loop, a listener, two ends that send a known pattern and check what they read. */
#include "rt_scenarios.h"

#include <stdlib.h>

#define QUEUE_BYTES 262144 /* an end stops writing above this much queued */

/* ---- ends ---- */

char pattern(uint64_t at)
{
    return (char)(at * 7 + (at >> 8) * 13 + (at >> 16));
}

void end_pump(struct end *e)
{
    char bytes[20000];
    while (e->sent < e->want && !e->s.closed && !e->s.failed_told && e->s.out_bytes < QUEUE_BYTES) {
        size_t n = MIN(sizeof bytes, e->want - e->sent);
        for (size_t i = 0; i < n; i++) bytes[i] = pattern(e->sent + i);
        struct iovec iov[3] = {{bytes, n / 3}, {bytes + n / 3, 0}, {bytes + n / 3, n - n / 3}};
        size_t queued = stream_write(&e->s, iov, 3);
        assert_int_equal(queued, e->s.out_bytes);
        e->queue_max = MAX(e->queue_max, queued);
        e->sent += n;
        if (e->s.fail) return;
    }
    if (e->sent == e->want && e->shut_after && !e->s.closed && !e->s.failed_told) stream_shut(&e->s);
}

static struct end *end_of(struct stream *s)
{
    return CONTAINER_OF(s, struct end, s);
}

static void end_connected(struct stream *s)
{
    struct end *e = end_of(s);
    assert_false(e->connected);
    e->connected = true;
    if (e->close_in == CLOSE_CONNECTED) stream_close(s);
    else end_pump(e);
}

static void end_check(struct end *e, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(e->got + i)) e->bad = true;
}

static void end_data(struct stream *s, char *p, size_t n)
{
    struct end *e = end_of(s);
    assert_true(s->reading && !s->closed && !e->eof && !e->failed && n > 0 && n <= STREAM_READ_BYTES);
    memset(p - STREAM_HEADROOM, 0x55, STREAM_HEADROOM);
    e->data_calls++;
    if (e->on_data) e->on_data(e, p, n);
    else end_check(e, p, n);
    e->got += n;
    if (e->echo) stream_write_slice(s, slice_of(p, n));
    if (e->pause_ms) {
        stream_reading(s, false);
        timer_set(e->l, &e->pause, e->pause_ms);
    }
    if (e->close_in == CLOSE_DATA) stream_close(s);
}

static void end_eof(struct stream *s)
{
    struct end *e = end_of(s);
    assert_true(!e->eof && !e->failed && !s->closed);
    e->eof = true;
    if (e->echo) stream_shut(s);
    if (e->close_in == CLOSE_EOF) stream_close(s);
}

static void end_drained(struct stream *s)
{
    struct end *e = end_of(s);
    assert_true(!s->closed && s->out_bytes == 0);
    e->drains++;
    if (e->close_in == CLOSE_DRAINED) stream_close(s);
    else if (!s->shut_wanted) end_pump(e);
}

static void end_failed(struct stream *s, enum err why)
{
    struct end *e = end_of(s);
    assert_true(!e->failed && !s->closed);
    e->failed = true;
    e->why = why;
    if (!s->shut_wanted) assert_int_equal(stream_write_slice(s, SLICE("x")), 0);
    if (e->close_in == CLOSE_FAILED) stream_close(s);
}

static void end_released(struct stream *s)
{
    struct end *e = end_of(s);
    assert_true(s->closed && !e->released);
    e->released = true;
    timer_clear(&e->pause);
}

const struct stream_ops end_ops = {end_connected, end_data, end_eof, end_drained, end_failed, end_released};

void end_unpause(struct timer *t)
{
    struct end *e = CONTAINER_OF(t, struct end, pause);
    if (!e->s.closed) stream_reading(&e->s, true);
}

/* ---- pairs ---- */

static void pair_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct pair *p = CONTAINER_OF(ln, struct pair, ln);
    assert_false(p->accepted);
    p->accepted = true;
    stream_adopt(&p->server.s, p->l, &end_ops, fd);
    end_pump(&p->server);
}

void pair_open(struct pair *p, struct loop *l)
{
    p->l = p->server.l = l;
    if (!p->client.l) p->client.l = l;
    timer_init(&p->client.pause, end_unpause);
    timer_init(&p->server.pause, end_unpause);
    struct addr a = addr_ip4(0x7f000001, 0);
    assert_int_equal(listen_socket(&a, 16, false, &p->listen_fd), OK);
    assert_int_equal(sys_local_addr(p->listen_fd, &p->at), 0);
    listener_start(&p->ln, l, p->listen_fd, false, pair_accepted);
    stream_connect(&p->client.s, p->client.l, &end_ops, -1, &p->at);
}

void pair_close(struct pair *p)
{
    listener_stop(&p->ln);
    socket_close(p->listen_fd);
    stream_close(&p->client.s);
    if (p->accepted) stream_close(&p->server.s);
    loop_turn(p->l, 0);
    loop_turn(p->client.l, 0);
    assert_true(p->client.released && (p->server.released || !p->accepted));
}

static bool end_finished(const struct end *me, const struct end *other)
{
    if (me->failed || me->s.closed) return true;
    if (other->failed || other->s.closed) return me->eof;
    return me->sent == me->want && me->s.out_bytes == 0 && me->got == other->want && (!other->shut_after || me->eof);
}

bool pair_finished(void *ctx)
{
    struct pair *p = ctx;
    if (!p->accepted) return p->client.failed;
    return end_finished(&p->client, &p->server) && end_finished(&p->server, &p->client);
}

bool pair_released(void *ctx)
{
    struct pair *p = ctx;
    return p->client.released && p->server.released;
}

static bool client_failed(void *ctx) { return ((struct pair *)ctx)->client.failed; }
static bool server_failed(void *ctx) { return ((struct pair *)ctx)->server.failed; }
static bool client_closed(void *ctx) { return ((struct pair *)ctx)->client.s.closed; }
static bool client_eof(void *ctx) { return ((struct pair *)ctx)->client.eof; }
static bool pair_accepted_yet(void *ctx) { return ((struct pair *)ctx)->accepted; }
static bool server_got_all(void *ctx)
{
    struct pair *p = ctx;
    return p->server.got == p->client.want;
}

static void check_good(const struct pair *p)
{
    assert_false(p->client.bad || p->server.bad || p->client.failed || p->server.failed);
    assert_int_equal(p->client.got, p->server.want);
    assert_int_equal(p->server.got, p->client.want);
}

static struct loop *scenario_start(struct pair *p)
{
    world_start();
    memset(p, 0, sizeof *p);
    return loop_new("test");
}

static void scenario_end(struct loop *l)
{
    loop_free(l);
    world_stop();
    assert_int_equal(mem_bytes(MEM_STREAM), 0);
    assert_int_equal(mem_bytes(MEM_LOOP), 0);
}

/* ---- streams ---- */

static void test_transfer(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    p.client.want = p.server.want = world_transfer_bytes;
    p.client.shut_after = p.server.shut_after = true;
    pair_open(&p, l);
    assert_true(world_run(l, pair_finished, &p, 60000));
    check_good(&p);
    assert_true(p.client.eof && p.server.eof);
    assert_true(p.client.queue_max < QUEUE_BYTES + 20000);
    pair_close(&p);
    scenario_end(l);
}

static void test_slow_reader(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    p.client.want = world_transfer_bytes / 3; /* more than the socket buffers hold */
    p.client.shut_after = p.server.shut_after = true;
    p.server.pause_ms = 3;
    pair_open(&p, l);
    assert_true(world_run(l, pair_finished, &p, 60000));
    check_good(&p);
    assert_true(p.client.drains > 0);
    pair_close(&p);
    scenario_end(l);
}

/* Both ends are adopted; the end of each direction passes by itself. */
static void test_socket_pair(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    int fds[2];
    assert_int_equal(socket_pair(fds), OK);
    p.client.want = world_transfer_bytes / 3;
    p.server.want = 1000;
    p.client.shut_after = p.server.shut_after = p.accepted = true;
    p.l = p.client.l = p.server.l = l;
    timer_init(&p.client.pause, end_unpause);
    timer_init(&p.server.pause, end_unpause);
    stream_adopt(&p.client.s, l, &end_ops, fds[0]);
    stream_adopt(&p.server.s, l, &end_ops, fds[1]);
    end_pump(&p.client);
    end_pump(&p.server);
    assert_true(world_run(l, pair_finished, &p, 60000));
    check_good(&p);
    assert_true(p.client.eof && p.server.eof);
    stream_close(&p.client.s);
    stream_close(&p.server.s);
    loop_turn(l, 0);
    assert_true(p.client.released && p.server.released);
    scenario_end(l);
}

static void test_half_close(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    p.client.want = 5;
    p.client.shut_after = true;
    p.server.echo = true;
    pair_open(&p, l);
    assert_true(world_run(l, pair_accepted_yet, &p, 5000));
    struct addr mine, theirs;
    assert_int_equal(stream_local_addr(&p.client.s, &mine), OK);
    assert_int_equal(stream_peer_addr(&p.server.s, &theirs), OK);
    assert_true(addr_eq(&mine, &theirs));
    assert_int_equal(stream_local_addr(&p.server.s, &theirs), OK);
    assert_true(addr_eq(&p.at, &theirs));
    assert_true(world_run(l, client_eof, &p, 5000));
    assert_true(p.server.eof && p.client.got == 5 && !p.client.bad);
    pair_close(&p);
    scenario_end(l);
}

static void test_write_before_connected(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    pair_open(&p, l);
    p.client.want = 100000;
    p.client.shut_after = true;
    end_pump(&p.client);
    assert_int_equal(p.client.s.out_bytes, 100000);
    assert_true(world_run(l, server_got_all, &p, 5000));
    assert_true(p.client.drains == 1 && !p.server.bad);
    pair_close(&p);
    scenario_end(l);
}

static void test_reset(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    pair_open(&p, l);
    assert_true(world_run(l, pair_accepted_yet, &p, 5000));
    stream_reset(&p.server.s);
    assert_true(world_run(l, client_failed, &p, 5000));
    assert_int_equal(p.client.why, ERR_RESET);
    pair_close(&p);
    scenario_end(l);
}

/* A reset is told also to an owner who does not read, when nothing is left to read. */
static void test_reset_unread(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    pair_open(&p, l);
    assert_true(world_run(l, pair_accepted_yet, &p, 5000));
    stream_reading(&p.server.s, false);
    stream_reset(&p.client.s);
    assert_true(world_run(l, server_failed, &p, 5000));
    assert_int_equal(p.server.why, ERR_RESET);
    pair_close(&p);
    scenario_end(l);
}

static bool server_sent(void *ctx)
{
    const struct end *e = &((struct pair *)ctx)->server;
    return e->sent == e->want && e->s.out_bytes == 0;
}

/* An answer that came before the connection broke is delivered although writing has failed. */
static void test_early_answer(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    p.client.want = 50000000; /* more than any buffer holds, so that it is writing when the reset comes */
    p.server.want = 1000;
    pair_open(&p, l);
    assert_true(world_run(l, pair_accepted_yet, &p, 5000));
    stream_reading(&p.server.s, false);
    assert_true(world_run(l, server_sent, &p, 5000)); /* a short write leaves some of it to a later turn */
    stream_close(&p.server.s); /* unread bytes: a reset follows the answer */
    assert_true(world_run(l, client_failed, &p, 5000));
    assert_int_equal(p.client.got, 1000);
    assert_false(p.client.bad);
    pair_close(&p);
    scenario_end(l);
}

static void test_refused(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    int fd;
    struct addr a = addr_ip4(0x7f000001, 0);
    assert_int_equal(listen_socket(&a, 1, false, &fd), OK);
    assert_int_equal(sys_local_addr(fd, &a), 0);
    int twice;
    assert_int_equal(listen_socket(&a, 1, false, &twice), ERR_INUSE);
    socket_close(fd);
    timer_init(&p.client.pause, end_unpause);
    stream_connect(&p.client.s, l, &end_ops, -1, &a);
    assert_false(p.client.failed); /* never from inside the call */
    assert_true(world_run(l, client_failed, &p, 5000));
    assert_int_equal(p.client.why, ERR_REFUSED);
    assert_false(p.client.connected);
    stream_close(&p.client.s);
    stream_close(&p.client.s);
    loop_turn(l, 0);
    assert_true(p.client.released);
    scenario_end(l);
}

static void test_bad_address(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    struct addr none = {0};
    timer_init(&p.client.pause, end_unpause);
    p.client.close_in = CLOSE_FAILED;
    stream_connect(&p.client.s, l, &end_ops, -1, &none);
    assert_false(p.client.failed);
    loop_turn(l, 0);
    assert_true(p.client.failed && p.client.released);
    scenario_end(l);
}

static void test_close_in_callbacks(void **state)
{
    static struct pair p;
    for (int where = CLOSE_CONNECTED; where <= CLOSE_FAILED; where++) {
        struct loop *l = scenario_start(&p);
        p.client.want = world_transfer_bytes / 3;
        p.client.shut_after = p.server.shut_after = true;
        p.server.want = where == CLOSE_CONNECTED ? 0 : 100000;
        p.client.close_in = where;
        p.server.close_in = where == CLOSE_FAILED ? CLOSE_DATA : where == CLOSE_EOF ? CLOSE_EOF : CLOSE_FAILED;
        pair_open(&p, l);
        assert_true(world_run(l, client_closed, &p, 60000));
        assert_true(world_run(l, pair_finished, &p, 60000));
        pair_close(&p);
        scenario_end(l);
    }
}

static void test_no_memory(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    pair_open(&p, l);
    mem_fail_nth(1);
    assert_int_equal(stream_write_slice(&p.client.s, SLICE("queued, for it is not connected")), 0);
    mem_fail_nth(0);
    assert_false(p.client.failed);
    assert_true(world_run(l, client_failed, &p, 1000));
    assert_int_equal(p.client.why, ERR_NOMEM);
    pair_close(&p);
    scenario_end(l);
}

/* Reading switched off and on within the callback loses nothing, and small reads stay in order. */
static void toggle_data(struct end *e, char *p, size_t n)
{
    stream_reading(&e->s, false);
    stream_reading(&e->s, true);
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(e->got + i)) e->bad = true;
}

static void test_toggle(void **state)
{
    static struct pair p;
    struct loop *l = scenario_start(&p);
    p.client.want = 1500000;
    p.client.shut_after = p.server.shut_after = true;
    p.server.on_data = toggle_data;
    pair_open(&p, l);
    assert_true(world_run(l, pair_finished, &p, 60000));
    check_good(&p);
    pair_close(&p);
    scenario_end(l);
}

/* ---- listeners ---- */

#define MANY 200
struct many {
    struct listener ln;
    struct end ends[2 * MANY];
    uint32_t accepted, stop_at;
};

static void many_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct many *m = CONTAINER_OF(ln, struct many, ln);
    struct end *e = &m->ends[MANY + m->accepted++];
    timer_init(&e->pause, end_unpause);
    e->close_in = CLOSE_DATA;
    stream_adopt(&e->s, ln->loop, &end_ops, fd);
    if (m->accepted == m->stop_at) listener_stop(ln);
}

static bool many_done(void *ctx)
{
    struct many *m = ctx;
    uint32_t released = 0;
    for (uint32_t i = 0; i < m->accepted; i++) released += m->ends[MANY + i].released;
    return m->accepted == m->stop_at && released == m->accepted;
}

static void test_listener(void **state)
{
    static struct many m;
    memset(&m, 0, sizeof m);
    world_start();
    struct loop *l = loop_new("test");
    m.stop_at = MANY;
    struct addr a = addr_ip4(0x7f000001, 0);
    int fd;
    assert_int_equal(listen_socket(&a, 512, true, &fd), OK);
    assert_int_equal(sys_local_addr(fd, &a), 0);
    listener_start(&m.ln, l, fd, true, many_accepted);
    for (uint32_t i = 0; i < MANY; i++) {
        timer_init(&m.ends[i].pause, end_unpause);
        m.ends[i].want = 10;
        stream_connect(&m.ends[i].s, l, &end_ops, -1, &a);
    }
    assert_true(world_run(l, many_done, &m, 20000));
    assert_false(m.ln.open);
    for (uint32_t i = 0; i < MANY; i++) stream_close(&m.ends[i].s);
    socket_close(fd);
    scenario_end(l); /* loop_free() releases */
    for (uint32_t i = 0; i < MANY; i++) assert_true(m.ends[i].released);
}

/* ---- timers ---- */

#define TIMERS 400
static uint64_t timer_rng;
static uint64_t timers_now, timers_last_due;
static struct timer timers[TIMERS];
static bool timers_armed[TIMERS];

static uint64_t rng(void)
{
    timer_rng = timer_rng * 6364136223846793005ULL + 1442695040888963407ULL;
    return timer_rng >> 20;
}

static void timer_model_fired(struct timer *t)
{
    size_t i = (size_t)(t - timers);
    assert_true(timers_armed[i]);          /* not cleared, not fired twice */
    assert_true(t->due_ms <= timers_now);  /* not early */
    assert_true(t->due_ms >= timers_last_due);
    timers_last_due = t->due_ms;
    timers_armed[i] = false;
}

static void timers_fire(struct loop *l)
{
    timers_last_due = 0;
    wheel_advance(&l->wheel, timers_now);
    while (!list_empty(&l->wheel.expired)) {
        struct timer *t = CONTAINER_OF(l->wheel.expired.next, struct timer, link);
        list_del(&t->link);
        t->fn(t);
    }
}

static void timers_compare(struct loop *l)
{
    uint64_t earliest = WHEEL_NEVER;
    for (size_t i = 0; i < TIMERS; i++) {
        assert_int_equal(timer_is_set(&timers[i]), timers_armed[i]);
        if (!timers_armed[i]) continue;
        assert_true(timers[i].due_ms > timers_now); /* else it was late */
        earliest = MIN(earliest, timers[i].due_ms);
    }
    uint64_t next = wheel_next(&l->wheel);
    assert_true(next <= earliest);
    assert_int_equal(next == WHEEL_NEVER, earliest == WHEEL_NEVER);
}

static void timers_change(struct loop *l)
{
    static const uint64_t spans[] = {1, 3, 64, 70, 4096, 5000, 300000, 20000000, 2000000000, UINT64_MAX};
    for (int n = (int)(rng() % 20); n > 0; n--) {
        size_t i = rng() % TIMERS;
        if (rng() % 3 == 0) {
            timer_clear(&timers[i]);
            timers_armed[i] = false;
            continue;
        }
        uint64_t span = spans[rng() % COUNT_OF(spans)], in_ms = span == UINT64_MAX ? span : rng() % (span + 1);
        timer_set(l, &timers[i], in_ms);
        timers_armed[i] = true;
        if (in_ms < 1000000) assert_in_range(timers[i].due_ms, timers_now + in_ms, timers_now + in_ms + 1);
    }
}

static void test_timer_model(void **state)
{
    world_start();
    struct loop *l = loop_new("test");
    for (timer_rng = 1; timer_rng < 30; timer_rng++) {
        uint64_t seed = timer_rng;
        for (size_t i = 0; i < TIMERS; i++) timer_init(&timers[i], timer_model_fired);
        memset(timers_armed, 0, sizeof timers_armed);
        timers_now = seed % 3 == 0 ? (1ULL << 36) - 50 : seed * 12345; /* also across a boundary of all lower levels */
        wheel_init(&l->wheel, timers_now);
        for (int step = 0; step < 600; step++) {
            static const uint64_t jumps[] = {0, 1, 1, 2, 40, 64, 1000, 4096, 90000, 10000000};
            uint64_t next = wheel_next(&l->wheel), jump = rng() % (jumps[rng() % COUNT_OF(jumps)] + 1);
            timers_now = rng() % 4 == 0 && next != WHEEL_NEVER ? MAX(next, timers_now) : timers_now + jump;
            l->now_ns = timers_now * 1000000;
            timers_fire(l);
            timers_change(l);
            timers_compare(l);
        }
        wheel_fini(&l->wheel);
        for (size_t i = 0; i < TIMERS; i++) assert_false(timer_is_set(&timers[i]));
        timer_rng = seed;
    }
    scenario_end(l);
}

struct ticker {
    struct loop *l;
    struct timer t, never;
    struct task task;
    uint64_t set_ns;
    uint32_t fired, tasks;
    bool early, wrong;
};

static void ticker_fired(struct timer *t)
{
    struct ticker *k = CONTAINER_OF(t, struct ticker, t);
    if (mono_ns() - k->set_ns < 5 * 1000000) k->early = true;
    k->fired++;
    timer_clear(&k->never);
    if (k->fired == 5) return;
    k->set_ns = loop_now_ns(k->l);
    timer_set(k->l, t, 5);
    timer_set(k->l, &k->never, 5); /* the same tick; cleared by the other just before */
    loop_defer(k->l, &k->task);
    loop_defer(k->l, &k->task);
}

static void never_fired(struct timer *t) { CONTAINER_OF(t, struct ticker, never)->wrong = true; }
static void ticker_task(struct task *t) { CONTAINER_OF(t, struct ticker, task)->tasks++; }
static bool ticker_done(void *ctx) { return ((struct ticker *)ctx)->fired == 5; }

static void test_timers_on_loop(void **state)
{
    world_start();
    struct loop *l = loop_new("test");
    struct ticker k = {.l = l};
    timer_init(&k.t, ticker_fired);
    timer_init(&k.never, never_fired);
    task_init(&k.task, ticker_task);
    loop_turn(l, 0);
    k.set_ns = loop_now_ns(l);
    timer_set(l, &k.t, 0);
    timer_set(l, &k.t, 5);
    assert_true(timer_is_set(&k.t));
    assert_true(world_run(l, ticker_done, &k, 5000));
    assert_false(k.early || k.wrong);
    assert_int_equal(k.tasks, 4);
    timer_set(l, &k.never, 100000);
    scenario_end(l);
    assert_false(timer_is_set(&k.never));
}

/* ---- mailboxes and work on one thread ---- */

struct mail {
    struct mailbox *mb;
    uint64_t got, sum;
    bool free_in_fn;
};

static void mail_fn(void *ctx, const struct msg *m)
{
    struct mail *x = ctx;
    assert_int_equal(m->a, x->got);
    x->got++;
    x->sum += m->b;
    if (x->free_in_fn) mailbox_free(x->mb);
}

static bool mail_four(void *ctx) { return ((struct mail *)ctx)->got == 4; }

static void test_mailbox(void **state)
{
    world_start();
    struct loop *l = loop_new("test");
    struct mail x = {0};
    x.mb = mailbox_new(l, 4, mail_fn, &x);
    for (uint64_t i = 0; i < 4; i++) assert_true(mailbox_post(x.mb, &(struct msg){.a = i, .b = 10}));
    assert_false(mailbox_post(x.mb, &(struct msg){.a = 4}));
    assert_int_equal(mailbox_full(x.mb), 1);
    assert_true(world_run(l, mail_four, &x, 1000));
    assert_int_equal(x.sum, 40);
    x.free_in_fn = true;
    assert_true(mailbox_post(x.mb, &(struct msg){.a = 4}));
    assert_true(mailbox_post(x.mb, &(struct msg){.a = 5}));
    loop_turn(l, 0);
    assert_int_equal(x.got, 5);
    scenario_end(l);
}

struct job {
    struct work w;
    bool ran, done;
};
static void job_run(struct work *w) { ((struct job *)w)->ran = true; }
static void job_done(struct work *w)
{
    struct job *j = (struct job *)w;
    assert_true(j->ran && !j->done);
    j->done = true;
}
static bool jobs_done(void *ctx)
{
    struct job *j = ctx;
    for (int i = 0; i < 10; i++)
        if (!j[i].done) return false;
    return true;
}

static void test_work(void **state)
{
    world_start();
    struct loop *l = loop_new("test");
    struct job jobs[10] = {0};
    for (int i = 0; i < 10; i++) {
        jobs[i].w.run = job_run;
        jobs[i].w.done = job_done;
        work_submit(l, &jobs[i].w);
        assert_false(jobs[i].done);
    }
    assert_true(world_run(l, jobs_done, jobs, 5000));
    loop_free(l);
    world_stop();
}

/* ---- datagrams ---- */

/* A server that sends each datagram back, and a connected client. */
struct post {
    struct dgram server, client;
    int server_fd, client_fd;
    uint32_t echoed, got, refused;
    size_t got_n;
    bool stop_in_received;
};

static void post_echo(struct dgram *d, char *p, size_t n, const struct addr *from)
{
    struct post *o = d->owner;
    o->echoed++;
    assert_int_equal(dgram_send(d, p, n, from), OK);
}

static void post_got(struct dgram *d, char *p, size_t n, const struct addr *from)
{
    struct post *o = d->owner;
    for (size_t i = 0; i < n; i++) assert_int_equal(p[i], pattern(i));
    o->got++;
    o->got_n = n;
    if (o->stop_in_received) dgram_stop(d);
}

static void post_refused(struct dgram *d, enum err e)
{
    struct post *o = d->owner;
    assert_int_equal(e, ERR_REFUSED);
    o->refused++;
}

static bool post_arrived(void *ctx) { return ((struct post *)ctx)->got > 0; }
static bool post_told(void *ctx) { return ((struct post *)ctx)->refused > 0; }
static bool post_echoed_two(void *ctx) { return ((struct post *)ctx)->echoed == 2; }
static bool post_never(void *ctx) { return false; }

static void post_send(struct post *o, size_t n)
{
    static char bytes[60000];
    for (size_t i = 0; i < n; i++) bytes[i] = pattern(i);
    o->got = 0;
    assert_int_equal(dgram_send(&o->client, bytes, n, NULL), OK);
}

static void test_datagrams(void **state)
{
    world_start();
    struct loop *l = loop_new("test");
    struct post o = {.server = {.received = post_echo, .owner = &o}, .client = {.received = post_got, .failed = post_refused, .owner = &o}};
    struct addr at = addr_ip4(0x7f000001, 0);
    assert_int_equal(dgram_socket(&at, NULL, &o.server_fd), OK);
    assert_int_equal(socket_local_addr(o.server_fd, &at), OK);
    int second;
    assert_int_equal(dgram_socket(&at, NULL, &second), ERR_INUSE);
    assert_int_equal(dgram_socket(NULL, &at, &o.client_fd), OK);
    dgram_start(&o.server, l, o.server_fd);
    dgram_start(&o.client, l, o.client_fd);
    static const size_t sizes[] = {0, 1, 512, 60000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        post_send(&o, sizes[i]);
        assert_true(world_run(l, post_arrived, &o, 5000));
        assert_int_equal(o.got_n, sizes[i]);
    }
    o.echoed = 0;
    o.stop_in_received = true; /* the second answer waits, and is nobody's */
    post_send(&o, 3);
    post_send(&o, 3);
    assert_true(world_run(l, post_echoed_two, &o, 5000));
    assert_false(world_run(l, post_never, &o, 50));
    assert_int_equal(o.got, 1);
    dgram_stop(&o.server);
    socket_close(o.server_fd);
    socket_close(o.client_fd);
    assert_int_equal(dgram_socket(NULL, &at, &o.client_fd), OK); /* nobody is there any more */
    dgram_start(&o.client, l, o.client_fd);
    post_send(&o, 3);
    assert_true(world_run(l, post_told, &o, 5000));
    dgram_stop(&o.client);
    socket_close(o.client_fd);
    loop_free(l);
    world_stop();
}

/* ---- addresses ---- */

static void check_addr(const char *text, const char *with_port, const char *ip)
{
    struct addr a;
    char out[ADDR_TEXT_MAX];
    assert_int_equal(addr_parse(slice_cstr(text), 80, &a), OK);
    assert_int_equal(addr_format(&a, out), strlen(with_port));
    assert_string_equal(out, with_port);
    assert_int_equal(addr_format_ip(&a, out), strlen(ip));
    assert_string_equal(out, ip);
}

static void test_addr(void **state)
{
    check_addr("127.0.0.1", "127.0.0.1:80", "127.0.0.1");
    check_addr("255.10.0.109", "255.10.0.109:80", "255.10.0.109");
    check_addr("::1", "[::1]:80", "::1");
    check_addr("[2001:db8::5]", "[2001:db8::5]:80", "2001:db8::5");
    check_addr("unix:/tmp/x", "unix:/tmp/x", "unix:/tmp/x");
    static const char *const bad[] = {"", "localhost", "127.0.0.1:80", "[127.0.0.1]", "1.2.3", "256.1.1.1", "[::1", "unix:", " 127.0.0.1"};
    struct addr a = addr_ip4(1, 2);
    for (size_t i = 0; i < COUNT_OF(bad); i++) assert_int_equal(addr_parse(slice_cstr(bad[i]), 80, &a), ERR_SYNTAX);
    assert_true(a.port == 2 && addr_ip4_host(&a) == 1); /* untouched */
    char path[120];
    memset(path, 'a', sizeof path);
    memcpy(path, "unix:/", 6);
    assert_int_equal(addr_parse(slice_of(path, sizeof path), 0, &a), ERR_LIMIT);
    struct addr b = addr_ip4(0x7f000001, 80), c = addr_ip4(0x7f000001, 81);
    assert_false(addr_eq(&b, &c));
    c.port = 80;
    assert_true(addr_eq(&b, &c));
}

const struct CMUnitTest scenario_tests[] = {
    cmocka_unit_test(test_transfer), cmocka_unit_test(test_slow_reader), cmocka_unit_test(test_socket_pair), cmocka_unit_test(test_half_close),
    cmocka_unit_test(test_write_before_connected), cmocka_unit_test(test_reset), cmocka_unit_test(test_reset_unread),
    cmocka_unit_test(test_early_answer), cmocka_unit_test(test_refused), cmocka_unit_test(test_bad_address),
    cmocka_unit_test(test_close_in_callbacks), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_toggle),
    cmocka_unit_test(test_listener), cmocka_unit_test(test_timer_model), cmocka_unit_test(test_timers_on_loop),
    cmocka_unit_test(test_mailbox), cmocka_unit_test(test_work), cmocka_unit_test(test_datagrams), cmocka_unit_test(test_addr),
};
const size_t scenario_tests_n = COUNT_OF(scenario_tests);
