/* into_scenarios.c - reading straight into the owner's memory, and answers made of heads and file ranges, as every back end must show them. */
#include "framer.h"
#include "rt_scenarios.h"

static struct pair p;
static struct framer f;

static struct loop *start(void)
{
    world_start();
    memset(&p, 0, sizeof p);
    memset(&f, 0, sizeof f);
    return loop_new("test");
}

static void end(struct loop *l)
{
    pair_close(&p);
    framer_fini(&f);
    loop_free(l);
    world_stop();
    assert_int_equal(mem_bytes(MEM_STREAM) + mem_bytes(MEM_SIM), 0);
}

static bool is_connected(void *ctx) { return p.accepted && p.client.connected; }
static bool server_at_end(void *ctx) { return p.server.eof || p.server.failed || p.server.s.closed; }

/* The client sends n bytes of the pattern, and its end if shut; the server reads them as frames. */
static void frame(struct loop *l, uint64_t n, bool shut)
{
    pair_open(&p, l);
    assert_true(world_run(l, is_connected, NULL, 5000));
    framer_init(&f, &p.server.s, pattern);
    p.client.want = n;
    p.client.shut_after = shut;
    end_pump(&p.client);
}

/* Frames of all sizes, with pauses and with frames that are read whole. */
static void test_frames(void **state)
{
    static const uint64_t ways[][2] = {{0, 0}, {1, 0}, {0, 1}, {2, 3}, {1, 1}};
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        struct loop *l = start();
        frame(l, 5000000, true);
        f.pauses = ways[i][0];
        f.chains = ways[i][1];
        assert_true(world_run(l, server_at_end, NULL, 60000));
        assert_true(p.server.eof && !f.bad && f.at + (f.mem ? f.mem_n - stream_into_left(&p.server.s) : 0) == p.client.want);
        assert_true(f.fills > 20);
        end(l);
    }
}

/* The peer ends within a frame. */
static void test_frame_cut(void **state)
{
    struct loop *l = start();
    frame(l, 100 + 150000, true); /* of 200,000 */
    assert_true(world_run(l, server_at_end, NULL, 5000));
    assert_true(p.server.eof && !f.bad && f.fills == 0);
    assert_int_equal(stream_into_left(&p.server.s), 50000);
    end(l);
}

static bool is_in_frame(void *ctx) { return stream_into_left(&p.server.s) > 0; }

/* Closed by the owner when a frame is full, and while one is under way. */
static void test_frame_close(void **state)
{
    for (uint64_t at = 1; at <= 4; at++) {
        struct loop *l = start();
        frame(l, 5000000, true);
        f.close_at = at;
        f.chains = at % 2;
        assert_true(world_run(l, server_at_end, NULL, 5000));
        assert_true(p.server.s.closed && !f.bad && f.fills == at);
        end(l);
    }
    struct loop *l = start();
    frame(l, 150000, false);
    assert_true(world_run(l, is_in_frame, NULL, 5000));
    stream_close(&p.server.s);
    assert_int_equal(stream_into_left(&p.server.s), 0);
    end(l);
}

/* A reset within a frame; and no flow takes from a stream that is in one. */
static void test_frame_reset(void **state)
{
    struct loop *l = start();
    frame(l, 150000, false);
    assert_true(world_run(l, is_in_frame, NULL, 5000));
    static struct pour pour;
    static struct relay relay;
    assert_false(pour_start(&pour, &p.server.s, &p.client.s, 100, NULL));
    assert_false(relay_start(&relay, &p.server.s, &p.client.s, 0, NULL));
    stream_reset(&p.client.s);
    assert_true(world_run(l, server_at_end, NULL, 5000));
    assert_true(p.server.failed && !f.bad && stream_into_left(&p.server.s) > 0);
    end(l);
}

/* ---- answers of heads and file ranges ---- */

#define HEAD_BYTES 40
#define RANGES 300 /* more than POURS_PER_TURN */
static struct chain {
    struct pour pour;
    int file;
    uint64_t at;                 /* in the pattern, which the file holds too */
    uint32_t ranges, max;
    bool over;
} c;

static uint32_t range_bytes(uint32_t n) { return n % 7 ? 100 * (n % 13) + 1 : 30000; }

static void chain_next(struct pour *pour, enum err e)
{
    assert_int_equal(e, OK);
    if (c.ranges == c.max) {
        c.over = true;
        return;
    }
    char head[HEAD_BYTES];
    for (size_t i = 0; i < sizeof head; i++)
        head[i] = pattern(c.at + i);
    struct iovec iov = {head, sizeof head};
    stream_write_more(&p.server.s, &iov, 1);
    c.at += sizeof head;
    uint32_t n = range_bytes(++c.ranges);
    assert_true(pour_file_start(&c.pour, c.file, c.at, &p.server.s, n, chain_next));
    c.at += n;
}

static bool chain_is_over(void *ctx) { return c.over && p.client.got == c.at; }

static void chain(uint32_t max)
{
    struct loop *l = start();
    char path[256];
    size_t total = 0;
    for (uint32_t i = 1; i <= max; i++)
        total += HEAD_BYTES + range_bytes(i);
    char *bytes = mem_new(MEM_SIM, total);
    for (size_t i = 0; i < total; i++)
        bytes[i] = pattern(i);
    assert_int_equal(file_replace(world_path("chain", path), bytes, total, 0600), OK);
    mem_free(bytes);
    c = (struct chain){.max = max};
    uint64_t n, mtime_ns;
    assert_int_equal(file_open(path, &c.file, &n, &mtime_ns), OK);
    frame(l, 0, false);
    chain_next(NULL, OK);
    assert_int_equal(c.ranges, 1); /* never from inside the call */
    loop_turn(l, 0);
    assert_true(max == RANGES || c.over || p.server.s.out_bytes || !sys_threads()); /* all in one turn, where no write is short */
    assert_true(world_run(l, chain_is_over, NULL, 20000));
    assert_int_equal(c.at, total);
    assert_false(p.client.bad);
    file_close(c.file);
    assert_int_equal(sys_unlink(path), 0);
    end(l);
}

static void test_chain(void **state)
{
    chain(6);
    chain(RANGES);
}

const struct CMUnitTest into_tests[] = {
    cmocka_unit_test(test_frames), cmocka_unit_test(test_frame_cut), cmocka_unit_test(test_frame_close), cmocka_unit_test(test_frame_reset),
    cmocka_unit_test(test_chain),
};
const size_t into_tests_n = COUNT_OF(into_tests);
