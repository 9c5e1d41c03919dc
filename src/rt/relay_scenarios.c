/* relay_scenarios.c - relays and pours, as every back end must show them.
 *
 * A client end and a server end send a known pattern and check what they read; between them stand two streams, down and
 * up, which the test joins. */
#include "rt_scenarios.h"

#include <stdlib.h>

#define RUN_MS 60000

/* ---- bridges ---- */

static void relay_over(struct relay *r, enum err e)
{
    struct bridge *b = CONTAINER_OF(r, struct bridge, relay);
    assert_false(b->ended);
    b->ended = true;
    b->why = e;
    memset(r, 0xaa, sizeof *r); /* not to be touched afterwards */
    if (e) stream_reset(&b->down);
    else stream_close(&b->down);
    if (e) stream_reset(&b->up);
    else stream_close(&b->up);
}

static void owner_data(struct bridge *b, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != pattern(b->owner_at + i)) b->owner_bad = true;
    b->owner_at += n;
}

static void bridge_nothing(struct stream *s) {}
static void down_data(struct stream *s, char *p, size_t n) { owner_data(CONTAINER_OF(s, struct bridge, down), p, n); }
static void down_eof(struct stream *s) { CONTAINER_OF(s, struct bridge, down)->owner_eof = true; }
static void down_failed(struct stream *s, enum err e) { CONTAINER_OF(s, struct bridge, down)->owner_failed++; }
static void up_data(struct stream *s, char *p, size_t n) { fail_msg("data() of a stream in a relay"); }
static void up_failed(struct stream *s, enum err e) { CONTAINER_OF(s, struct bridge, up)->owner_failed++; }
static void down_released(struct stream *s) { CONTAINER_OF(s, struct bridge, down)->released++; }
static void up_released(struct stream *s) { CONTAINER_OF(s, struct bridge, up)->released++; }

static void up_connected(struct stream *s)
{
    struct bridge *b = CONTAINER_OF(s, struct bridge, up);
    b->ready = true;
    if (b->by_hand) {
        stream_reading(s, false);
        return;
    }
    assert_true(relay_start(&b->relay, &b->down, &b->up, b->idle_ms, relay_over));
    assert_false(b->ended);
}

static const struct stream_ops down_ops = {bridge_nothing, down_data, down_eof, bridge_nothing, down_failed, down_released};
static const struct stream_ops up_ops = {up_connected, up_data, bridge_nothing, bridge_nothing, up_failed, up_released};

static void front_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct bridge *b = CONTAINER_OF(ln, struct bridge, front);
    b->down_open = true;
    stream_adopt(&b->down, b->l, &down_ops, fd);
    stream_reading(&b->down, false);
    stream_connect(&b->up, b->l, &up_ops, -1, &b->back_at);
}

static void back_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct bridge *b = CONTAINER_OF(ln, struct bridge, back);
    stream_adopt(&b->server.s, b->server.l, &end_ops, fd);
    end_pump(&b->server);
}

void bridge_open(struct bridge *b, struct loop *l)
{
    b->l = l;
    if (!b->client.l) b->client.l = l;
    b->server.l = b->client.l;
    timer_init(&b->client.pause, end_unpause);
    timer_init(&b->server.pause, end_unpause);
    struct addr a = addr_ip4(0x7f000001, 0);
    assert_int_equal(listen_socket(&a, 16, false, &b->back_fd), OK);
    assert_int_equal(sys_local_addr(b->back_fd, &b->back_at), 0);
    listener_start(&b->back, b->server.l, b->back_fd, false, back_accepted);
    assert_int_equal(listen_socket(&a, 16, false, &b->front_fd), OK);
    assert_int_equal(sys_local_addr(b->front_fd, &a), 0);
    listener_start(&b->front, l, b->front_fd, false, front_accepted);
    stream_connect(&b->client.s, b->client.l, &end_ops, -1, &a);
}

void bridge_close(struct bridge *b)
{
    listener_stop(&b->front);
    listener_stop(&b->back);
    socket_close(b->front_fd);
    socket_close(b->back_fd);
    stream_close(&b->client.s);
    if (b->down_open) stream_close(&b->down);
    if (b->down_open) stream_close(&b->up);
    if (b->server.s.loop) stream_close(&b->server.s);
    loop_turn(b->client.l, 0);
    loop_turn(b->l, 0);
    assert_true(b->client.released && (b->released == 2 || !b->down_open));
}

static bool end_knows(const struct end *e)
{
    return e->eof || e->failed || e->released || !e->s.loop;
}

bool bridge_over(void *ctx)
{
    struct bridge *b = ctx;
    return b->ended && end_knows(&b->client) && end_knows(&b->server);
}

static bool bridge_ready(void *ctx)
{
    struct bridge *b = ctx;
    return b->ready && b->server.s.loop;
}

static uint64_t loop_bytes_before; /* of threads that stay */

static struct loop *bridge_start(struct bridge *b)
{
    world_start();
    loop_bytes_before = mem_bytes(MEM_LOOP);
    memset(b, 0, sizeof *b);
    return loop_new("test");
}

static void bridge_end(struct bridge *b, struct loop *l)
{
    bridge_close(b);
    assert_int_equal(l->pipes_n, l->pipes_kept);
    loop_free(l);
    world_stop();
    assert_int_equal(mem_bytes(MEM_STREAM), 0);
    assert_int_equal(mem_bytes(MEM_LOOP), loop_bytes_before);
}

static void check_bytes(const struct bridge *b)
{
    assert_false(b->client.bad || b->server.bad || b->client.failed || b->server.failed);
    assert_int_equal(b->client.got, b->server.want);
    assert_int_equal(b->server.got, b->client.want);
}

/* ---- relays ---- */

static uint64_t spliced_seen; /* before done() cleans up */
static void (*relay_over_next)(struct relay *, enum err);

static void both_over(struct relay *r, enum err e)
{
    struct bridge *b = CONTAINER_OF(r, struct bridge, relay);
    spliced_seen = r->there.spliced + r->back.spliced;
    assert_int_equal(r->there.moved, b->client.want);
    assert_int_equal(r->back.moved, b->server.want);
    relay_over_next(r, e);
}

static struct loop *both_start(struct bridge *b, uint64_t there, uint64_t back)
{
    struct loop *l = bridge_start(b);
    b->client.want = there;
    b->server.want = back;
    b->client.shut_after = b->server.shut_after = true;
    return l;
}

static void both_run(struct bridge *b, struct loop *l)
{
    b->by_hand = true;
    relay_over_next = relay_over;
    bridge_open(b, l);
    assert_true(world_run(l, bridge_ready, b, RUN_MS));
    assert_true(relay_start(&b->relay, &b->down, &b->up, b->idle_ms, both_over));
    assert_true(world_run(l, bridge_over, b, RUN_MS));
    assert_int_equal(b->why, OK);
    check_bytes(b);
}

static void test_both_ways(void **state)
{
    static struct bridge b;
    struct loop *l = both_start(&b, world_transfer_bytes, world_transfer_bytes / 2);
    both_run(&b, l);
    assert_true(spliced_seen > world_transfer_bytes / 4);
    assert_int_equal(loop_pipe_misses(l), 0);
    bridge_end(&b, l);
}

static void test_slow_readers(void **state)
{
    static struct bridge b;
    struct loop *l = both_start(&b, world_transfer_bytes / 8, world_transfer_bytes / 4);
    b.client.pause_ms = 2;
    b.server.pause_ms = 3;
    b.idle_ms = 500; /* not idle: slow */
    both_run(&b, l);
    assert_true(spliced_seen > 0);
    bridge_end(&b, l);
}

static void test_nothing_sent(void **state)
{
    static struct bridge b;
    struct loop *l = both_start(&b, 0, 0);
    both_run(&b, l);
    assert_int_equal(spliced_seen, 0);
    bridge_end(&b, l);
}

/* All pipes are in use: bytes are copied, and it is counted. */
static void test_no_pipes(void **state)
{
    static struct bridge b;
    struct loop *l = both_start(&b, world_transfer_bytes / 4, world_transfer_bytes / 4);
    l->pipes_max = 0;
    both_run(&b, l);
    assert_int_equal(spliced_seen, 0);
    assert_true(loop_pipe_misses(l) > 0);
    bridge_end(&b, l);
}

static void test_one_pipe(void **state)
{
    static struct bridge b;
    struct loop *l = both_start(&b, world_transfer_bytes / 8, world_transfer_bytes / 8);
    l->pipes_max = 1;
    b.client.pause_ms = b.server.pause_ms = 1; /* both directions would hold one */
    both_run(&b, l);
    assert_true(spliced_seen > 0);
    assert_true(l->pipes_n <= 1);
    bridge_end(&b, l);
}

/* A request and its end, then the answer and its end. */
static void test_half_close_client(void **state)
{
    static struct bridge b;
    struct loop *l = bridge_start(&b);
    b.client.want = 300000;
    b.client.shut_after = b.server.echo = true;
    bridge_open(&b, l);
    assert_true(world_run(l, bridge_over, &b, RUN_MS));
    assert_true(b.why == OK && b.server.eof && b.client.eof && !b.client.bad);
    assert_int_equal(b.server.got, 300000);
    assert_int_equal(b.client.got, 300000);
    bridge_end(&b, l);
}

static bool client_at_end(void *ctx) { return ((struct bridge *)ctx)->client.eof; }

static void test_half_close_server(void **state)
{
    static struct bridge b;
    struct loop *l = bridge_start(&b);
    b.server.want = 10;
    b.server.shut_after = true;
    bridge_open(&b, l);
    assert_true(world_run(l, client_at_end, &b, RUN_MS));
    assert_true(b.client.got == 10 && !b.ended);
    b.client.want = 500000;
    b.client.shut_after = true;
    end_pump(&b.client);
    assert_true(world_run(l, bridge_over, &b, RUN_MS));
    assert_true(b.why == OK && b.server.got == 500000 && b.server.eof && !b.server.bad);
    bridge_end(&b, l);
}

/* The client has sent its end, and some bytes wait for the service, before the relay begins. */
static bool owner_at_end(void *ctx) { return ((struct bridge *)ctx)->owner_eof && bridge_ready(ctx); }

static void test_begun_before(void **state)
{
    static struct bridge b;
    struct loop *l = bridge_start(&b);
    b.by_hand = true;
    b.client.want = 50;
    b.client.shut_after = true;
    b.server.want = 2000000;
    b.server.shut_after = true;
    bridge_open(&b, l);
    assert_true(world_run(l, bridge_ready, &b, RUN_MS));
    stream_reading(&b.down, true);
    assert_true(world_run(l, owner_at_end, &b, RUN_MS));
    assert_true(b.owner_at == 50 && !b.owner_bad);
    char bytes[50];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = pattern(i);
    stream_write_slice(&b.up, slice_of(bytes, sizeof bytes));
    assert_true(relay_start(&b.relay, &b.down, &b.up, 0, relay_over));
    assert_true(world_run(l, bridge_over, &b, RUN_MS));
    assert_int_equal(b.why, OK);
    check_bytes(&b);
    bridge_end(&b, l);
}

static void test_refused_start(void **state)
{
    static struct bridge b;
    struct loop *l = bridge_start(&b);
    b.by_hand = true;
    bridge_open(&b, l);
    assert_true(world_run(l, bridge_ready, &b, RUN_MS));
    b.up.tls = (struct stream_tls *)(void *)&b; /* as if encrypted */
    assert_false(relay_start(&b.relay, &b.down, &b.up, 0, relay_over));
    assert_false(pour_start(&b.pour, &b.up, &b.down, 5, NULL));
    b.up.tls = NULL;
    stream_close(&b.up);
    assert_false(relay_start(&b.relay, &b.down, &b.up, 0, relay_over));
    assert_false(pour_start(&b.pour, &b.down, &b.up, 5, NULL));
    assert_null(b.down.in_flow);
    assert_null(b.down.out_flow);
    bridge_end(&b, l);
}

/* Small messages are copied; a large flow is spliced; small messages are copied again. */
struct pingpong {
    struct bridge b;
    uint32_t rounds;
};

static void ping_data(struct end *e, char *p, size_t n)
{
    struct pingpong *x = CONTAINER_OF(e, struct pingpong, b.client);
    if ((e->got + n) % 4) return; /* a part of a message */
    if (x->rounds && --x->rounds) stream_write_slice(&e->s, SLICE("ping"));
}

static bool pings_over(void *ctx) { return ((struct pingpong *)ctx)->rounds == 0; }
static bool server_has_all(void *ctx) { return ((struct pingpong *)ctx)->b.server.got >= 200 * 4 + 5000000; }

static void test_switching(void **state)
{
    static struct pingpong x;
    struct bridge *b = &x.b;
    struct loop *l = bridge_start(b);
    b->client.on_data = ping_data;
    b->server.echo = true;
    x.rounds = 200;
    bridge_open(b, l);
    assert_true(world_run(l, bridge_ready, b, RUN_MS));
    stream_write_slice(&b->client.s, SLICE("ping"));
    assert_true(world_run(l, pings_over, &x, RUN_MS));
    assert_int_equal(b->relay.there.moved, 200 * 4);
    assert_int_equal(b->relay.there.spliced + b->relay.back.spliced, 0);
    b->server.echo = false;
    b->client.want = 5000000;
    end_pump(&b->client);
    assert_true(world_run(l, server_has_all, &x, RUN_MS));
    uint64_t spliced = b->relay.there.spliced;
    assert_true(spliced > 1000000);
    b->server.echo = true;
    x.rounds = 50;
    stream_write_slice(&b->client.s, SLICE("ping"));
    assert_true(world_run(l, pings_over, &x, RUN_MS));
    assert_false(b->relay.there.splicing);
    assert_true(b->relay.there.spliced - spliced <= 8 * 4);
    assert_int_equal(b->relay.there.moved, 200 * 4 + 5000000 + 50 * 4);
    assert_int_equal(b->relay.back.spliced, 0);
    assert_int_equal(l->pipes_n, l->pipes_kept);
    bridge_end(b, l);
    assert_false(b->ended); /* closed by the owner of the streams */
}

static bool server_got_some(void *ctx) { return ((struct bridge *)ctx)->server.got > 600000; }

static void test_reset(void **state)
{
    static struct bridge b;
    for (int who = 0; who < 2; who++) {
        struct loop *l = bridge_start(&b);
        b.client.want = world_transfer_bytes;
        bridge_open(&b, l);
        assert_true(world_run(l, server_got_some, &b, RUN_MS));
        stream_reset(who ? &b.server.s : &b.client.s);
        assert_true(world_run(l, bridge_over, &b, RUN_MS));
        assert_true(b.why == ERR_RESET || b.why == ERR_CLOSED);
        const struct end *other = who ? &b.client : &b.server;
        assert_true(other->failed && !other->bad);
        assert_int_equal(b.owner_failed, 0); /* done() has told */
        bridge_end(&b, l);
    }
}

static bool relay_waits(void *ctx)
{
    struct bridge *b = ctx;
    return b->relay.back.to && b->relay.back.moved && (b->relay.back.in_pipe || b->relay.back.to->out_bytes);
}

/* What the service had sent before it broke, and the relay had taken, reaches a client that reads late. */
static bool service_sends_until_waits(void *ctx)
{
    struct bridge *b = ctx;
    if (relay_waits(b)) return true;
    if (b->ready && b->relay.back.moved == b->server.sent) {
        b->server.want += 8000;
        if (b->server.s.loop) end_pump(&b->server);
    }
    return false;
}
static bool service_broke(void *ctx) { return ((struct bridge *)ctx)->relay.why != OK || ((struct bridge *)ctx)->ended; }

static uint64_t taken;
static void late_over(struct relay *r, enum err e)
{
    struct bridge *b = CONTAINER_OF(r, struct bridge, relay);
    taken = r->back.moved;
    b->ended = true;
    b->why = e;
    stream_close(&b->down); /* a reset would take back what the client's kernel has not got yet */
    stream_close(&b->up);
}

static void test_reset_while_waiting(void **state)
{
    static struct bridge b;
    struct loop *l = bridge_start(&b);
    b.by_hand = true;
    bridge_open(&b, l);
    assert_true(world_run(l, bridge_ready, &b, RUN_MS));
    stream_reading(&b.client.s, false);
    assert_true(relay_start(&b.relay, &b.down, &b.up, 20000, late_over));
    assert_true(world_run(l, service_sends_until_waits, &b, RUN_MS));
    stream_reset(&b.server.s);
    if (b.relay.back.moved == b.server.sent) assert_true(world_run(l, service_broke, &b, RUN_MS)); /* told though nobody reads */
    stream_reading(&b.client.s, true);
    assert_true(world_run(l, bridge_over, &b, RUN_MS));
    assert_int_equal(b.why, ERR_RESET);
    assert_true(b.client.eof && !b.client.bad);
    assert_true(taken > 0 && (taken > 8000 || !sys_threads())); /* the simulator may take a short write for a full socket */
    assert_int_equal(b.client.got, taken);
    bridge_end(&b, l);
}

static void test_close_while_waiting(void **state)
{
    static struct bridge b;
    for (int who = 0; who < 3; who++) {
        struct loop *l = bridge_start(&b);
        b.server.want = world_transfer_bytes;
        b.idle_ms = 20000;
        bridge_open(&b, l);
        stream_reading(&b.client.s, false);
        assert_true(world_run(l, relay_waits, &b, RUN_MS));
        if (who == 2) relay_stop(&b.relay);
        else stream_close(who ? &b.down : &b.up);
        assert_true(!b.down.in_flow && !b.down.out_flow && !b.up.in_flow && !b.up.out_flow);
        assert_int_equal(l->pipes_n, l->pipes_kept); /* one that still held bytes is closed */
        bridge_end(&b, l);
        assert_false(b.ended);
    }
}

static void test_idle(void **state)
{
    static struct bridge b;
    struct loop *l = bridge_start(&b);
    b.client.want = b.server.want = 1000;
    b.idle_ms = 60;
    bridge_open(&b, l);
    assert_true(world_run(l, bridge_ready, &b, RUN_MS));
    uint64_t from_ms = loop_now_ms(l);
    assert_true(world_run(l, bridge_over, &b, RUN_MS));
    assert_int_equal(b.why, ERR_TIMEOUT);
    assert_in_range(loop_now_ms(l) - from_ms, 55, 20000);
    assert_true(b.client.got == 1000 && b.server.got == 1000);
    bridge_end(&b, l);
}

/* ---- pours ---- */

static void pour_over(struct pour *p, enum err e)
{
    struct bridge *b = CONTAINER_OF(p, struct bridge, pour);
    assert_false(b->ended);
    b->ended = true;
    b->why = e;
    b->owner_at = p->flow.moved;
    memset(p, 0xaa, sizeof *p);
}

static bool pour_ended_and_rest(void *ctx)
{
    struct bridge *b = ctx;
    return b->ended && b->owner_at == b->client.want;
}

static bool pour_ended_yet(void *ctx) { return ((struct bridge *)ctx)->ended; }
static bool server_has_poured(void *ctx) { return ((struct bridge *)ctx)->server.got == ((struct bridge *)ctx)->idle_ms; }

static struct loop *pour_open(struct bridge *b, uint64_t client_want)
{
    struct loop *l = bridge_start(b);
    b->by_hand = true;
    b->client.want = client_want;
    bridge_open(b, l);
    assert_true(world_run(l, bridge_ready, b, RUN_MS));
    return l;
}

/* Bytes behind the poured ones are the owner's, and complete. */
static void test_pour(void **state)
{
    static struct bridge b;
    static const uint32_t sizes[] = {1, 100, 65535, 65536, 65537, 300000, 2500000};
    for (size_t i = 0; i < 2 * COUNT_OF(sizes); i++) {
        uint32_t n = sizes[i / 2];
        struct loop *l = pour_open(&b, n + (i % 2 ? 100777 : 0));
        b.idle_ms = n;
        b.server.pause_ms = n > 1000000;
        assert_true(pour_start(&b.pour, &b.down, &b.up, n, pour_over));
        assert_false(b.ended);
        assert_true(world_run(l, pour_ended_and_rest, &b, RUN_MS));
        assert_true(world_run(l, server_has_poured, &b, RUN_MS));
        assert_true(b.why == OK && !b.owner_bad && !b.server.bad);
        stream_shut(&b.client.s);
        assert_true(world_run(l, owner_at_end, &b, RUN_MS)); /* no edge was lost */
        bridge_end(&b, l);
    }
}

static void test_pour_short(void **state)
{
    static struct bridge b;
    struct loop *l = pour_open(&b, 100000);
    b.client.shut_after = true;
    end_pump(&b.client);
    assert_true(pour_start(&b.pour, &b.down, &b.up, 100001, pour_over));
    assert_true(world_run(l, owner_at_end, &b, RUN_MS));
    assert_true(b.ended && b.why == ERR_CLOSED);
    assert_int_equal(b.owner_at, 100000);
    bridge_end(&b, l);
}

static bool both_told(void *ctx) { return ((struct bridge *)ctx)->ended && ((struct bridge *)ctx)->owner_failed == 1; }
static bool nobody_reads(void *ctx)
{
    struct bridge *b = ctx;
    return b->pour.flow.in_pipe || b->up.out_bytes;
}

static void test_pour_broken(void **state)
{
    static struct bridge b;
    for (int who = 0; who < 2; who++) {
        struct loop *l = pour_open(&b, world_transfer_bytes);
        stream_reading(&b.server.s, false);
        assert_true(pour_start(&b.pour, &b.down, &b.up, world_transfer_bytes, pour_over));
        assert_true(world_run(l, nobody_reads, &b, RUN_MS));
        stream_reset(who ? &b.client.s : &b.server.s);
        if (who) stream_reading(&b.server.s, true);
        assert_true(world_run(l, both_told, &b, RUN_MS));
        assert_true(b.why == ERR_RESET || b.why == ERR_CLOSED);
        bridge_end(&b, l);
    }
}

static void test_pour_closed(void **state)
{
    static struct bridge b;
    for (int who = 0; who < 3; who++) {
        struct loop *l = pour_open(&b, world_transfer_bytes);
        stream_reading(&b.server.s, false);
        assert_true(pour_start(&b.pour, &b.down, &b.up, world_transfer_bytes, pour_over));
        assert_true(world_run(l, nobody_reads, &b, RUN_MS));
        if (who == 2) pour_stop(&b.pour);
        else stream_close(who ? &b.down : &b.up);
        assert_true(!b.down.in_flow && !b.up.out_flow);
        bridge_end(&b, l);
        assert_false(b.ended);
    }
}

/* ---- pours from a file ---- */

#define FILE_BYTES 3000000

static int pattern_file(size_t n)
{
    char path[256];
    char *bytes = mem_new(MEM_MISC, n);
    for (size_t i = 0; i < n; i++) bytes[i] = pattern(i);
    assert_int_equal(file_replace(world_path("pattern", path), bytes, n, 0600), OK);
    mem_free(bytes);
    int fd;
    uint64_t size, mtime_ns;
    assert_int_equal(file_open(path, &fd, &size, &mtime_ns), OK);
    assert_int_equal(size, n);
    assert_true(mtime_ns > 1000000000000000000ULL);
    assert_int_equal(sys_unlink(path), 0);
    assert_int_equal(file_open(path, &fd, &size, &mtime_ns), ERR_NOTFOUND);
    return fd;
}

static bool server_has_file(void *ctx) { return ((struct bridge *)ctx)->server.got == FILE_BYTES; }

/* In two parts, behind what was written before, to a reader that is slow or not. */
static void test_file(void **state)
{
    static struct bridge b;
    for (uint32_t pause_ms = 0; pause_ms < 2; pause_ms++) {
        struct loop *l = pour_open(&b, 0);
        int fd = pattern_file(FILE_BYTES);
        b.server.pause_ms = pause_ms;
        char first[777];
        for (size_t i = 0; i < sizeof first; i++) first[i] = pattern(i);
        stream_write_slice(&b.up, slice_of(first, sizeof first));
        assert_true(pour_file_start(&b.pour, fd, sizeof first, &b.up, 2000000, pour_over));
        assert_false(b.ended);
        assert_true(world_run(l, pour_ended_yet, &b, RUN_MS));
        assert_int_equal(b.why, OK);
        b.ended = false;
        assert_true(pour_file_start(&b.pour, fd, sizeof first + 2000000, &b.up, FILE_BYTES - 2000000 - sizeof first, pour_over));
        assert_true(world_run(l, pour_ended_yet, &b, RUN_MS));
        assert_true(world_run(l, server_has_file, &b, RUN_MS));
        assert_true(b.why == OK && !b.server.bad);
        file_close(fd);
        bridge_end(&b, l);
    }
}

static void test_file_short(void **state)
{
    static struct bridge b;
    struct loop *l = pour_open(&b, 0);
    int fd = pattern_file(FILE_BYTES);
    assert_true(pour_file_start(&b.pour, fd, 0, &b.up, FILE_BYTES + 1, pour_over));
    assert_true(world_run(l, pour_ended_yet, &b, RUN_MS));
    assert_int_equal(b.why, ERR_IO);
    assert_int_equal(b.owner_failed, 0); /* the stream is sound */
    file_close(fd);
    bridge_end(&b, l);
}

static bool file_waits(void *ctx)
{
    struct bridge *b = ctx;
    for (int i = 0; i < 10; i++) loop_turn(b->l, 0);
    return b->pour.flow.moved > 0;
}

static void test_file_broken(void **state)
{
    static struct bridge b;
    for (int who = 0; who < 3; who++) {
        struct loop *l = pour_open(&b, 0);
        int fd = pattern_file(world_transfer_bytes); /* more than the kernel's buffers take */
        stream_reading(&b.server.s, false);
        assert_true(pour_file_start(&b.pour, fd, 0, &b.up, world_transfer_bytes, pour_over));
        if (who != 1) assert_true(world_run(l, file_waits, &b, RUN_MS));
        if (who == 0) stream_reset(&b.server.s);
        else stream_close(&b.up);
        if (who == 0) assert_true(world_run(l, both_told, &b, RUN_MS));
        assert_int_equal(b.ended, who == 0);
        assert_null(b.up.out_flow);
        file_close(fd);
        bridge_end(&b, l);
    }
}

const struct CMUnitTest relay_tests[] = {
    cmocka_unit_test(test_both_ways), cmocka_unit_test(test_slow_readers), cmocka_unit_test(test_nothing_sent),
    cmocka_unit_test(test_no_pipes), cmocka_unit_test(test_one_pipe), cmocka_unit_test(test_half_close_client),
    cmocka_unit_test(test_half_close_server), cmocka_unit_test(test_begun_before), cmocka_unit_test(test_refused_start),
    cmocka_unit_test(test_switching), cmocka_unit_test(test_reset), cmocka_unit_test(test_reset_while_waiting),
    cmocka_unit_test(test_close_while_waiting), cmocka_unit_test(test_idle), cmocka_unit_test(test_pour),
    cmocka_unit_test(test_pour_short), cmocka_unit_test(test_pour_broken), cmocka_unit_test(test_pour_closed),
    cmocka_unit_test(test_file), cmocka_unit_test(test_file_short), cmocka_unit_test(test_file_broken),
};
const size_t relay_tests_n = COUNT_OF(relay_tests);
