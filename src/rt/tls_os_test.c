/* tls_os_test.c - TLS on the kernel: the common scenarios, and Unix sockets, threads that share contexts and keys. */
#include "repeat_test.h"
#include "tls_scenarios.h"

#include <stdio.h>
#include <unistd.h>

const size_t world_transfer_bytes = 30000000;
bool world_alerts = true;
const uint32_t world_many = 1000 / REPEAT_PART;

void world_start(void) {}
void world_stop(void) {}

bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms)
{
    uint64_t end = mono_ns() + ms * 1000000;
    while (!done(ctx)) {
        if (mono_ns() > end) return false;
        loop_turn(l, 20);
    }
    return true;
}

/* ---- threads ---- */

#define THREADS 3
#define TALKS 40
struct talker {
    struct tls_tickets *keys;
    struct tls_ctx *server;
    uint32_t good, resumed;
};

static void talker_main(void *arg)
{
    struct talker *k = arg;
    struct loop *l = loop_new("talker");
    struct tls_session_slot slot = {0};
    for (int i = 0; i < TALKS; i++) {
        static _Thread_local struct duo d;
        memset(&d, 0, sizeof d);
        d.server_ctx = tls_ctx_ref(k->server);
        d.client_ctx = tls_client_plainly;
        d.server_name = d.verify_name = "a.example";
        d.slot = &slot;
        d.client.say = d.server.say = "hello";
        d.client.shut_after = d.server.shut_after = true;
        duo_open(&d, l);
        k->good += world_run(l, duo_settled, &d, 30000) && !d.client.failed && !d.server.failed;
        k->resumed += d.server.resumed;
        duo_close(&d);
        tls_ctx_unref(d.server_ctx);
        if (i % 10 == 9) tls_tickets_rotate(k->keys, (uint64_t)i);
    }
    tls_session_slot_fini(&slot);
    loop_free(l);
}

static void test_threads(void **state)
{
    struct talker all[THREADS];
    struct thread *threads[THREADS];
    struct tls_tickets *keys = tls_tickets_new(0);
    struct tls_ctx *server = tls_scenario_server(keys);
    for (int i = 0; i < THREADS; i++) {
        all[i] = (struct talker){.keys = keys, .server = server};
        threads[i] = thread_start("talker", talker_main, &all[i]);
    }
    for (int i = 0; i < THREADS; i++) thread_join(threads[i]);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(all[i].good, TALKS);
        assert_true(all[i].resumed > 0);
    }
    tls_ctx_unref(server);
    tls_tickets_unref(keys);
}

/* ---- Unix sockets ---- */

struct local {
    struct listener ln;
    struct stream client, server;
    bool accepted, connected, eof;
    enum err why;
    char heard[16];
    size_t heard_n;
};

static void local_connected(struct stream *s) { CONTAINER_OF(s, struct local, client)->connected = true; }
static void local_none(struct stream *s) {}
static void local_eof(struct stream *s) { CONTAINER_OF(s, struct local, client)->eof = true; }
static void local_failed(struct stream *s, enum err e) { CONTAINER_OF(s, struct local, client)->why = e; }
static void local_heard(struct stream *s, char *p, size_t n)
{
    struct local *x = CONTAINER_OF(s, struct local, client);
    assert_true(x->heard_n + n < sizeof x->heard);
    memcpy(x->heard + x->heard_n, p, n);
    x->heard_n += n;
}
static void local_answer(struct stream *s, char *p, size_t n)
{
    stream_write_slice(s, slice_of(p, n));
    stream_shut(s);
}
static const struct stream_ops local_client = {local_connected, local_heard, local_eof, local_none, local_failed, local_none};
static const struct stream_ops local_server = {local_none, local_answer, local_none, local_none, local_failed, local_none};

static void local_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct local *x = CONTAINER_OF(ln, struct local, ln);
    x->accepted = true;
    stream_adopt(&x->server, ln->loop, &local_server, fd);
}

static bool local_over(void *ctx)
{
    struct local *x = ctx;
    return x->eof || x->why;
}

static void test_unix_upstream(void **state)
{
    struct loop *l = loop_new("test");
    static struct local x;
    char path[80];
    struct addr a;
    snprintf(path, sizeof path, "unix:/tmp/weir-tls-test-%d", (int)getpid());
    assert_int_equal(addr_parse(slice_cstr(path), 0, &a), OK);
    stream_connect(&x.client, l, &local_client, -1, &a); /* nobody is there yet */
    assert_true(world_run(l, local_over, &x, 5000));
    assert_int_equal(x.why, ERR_NOTFOUND);
    stream_close(&x.client);
    loop_turn(l, 0);
    x.why = OK;
    int fd;
    assert_int_equal(listen_socket(&a, 1, false, &fd), OK);
    listener_start(&x.ln, l, fd, false, local_accepted);
    stream_connect(&x.client, l, &local_client, -1, &a);
    stream_write_slice(&x.client, SLICE("ping"));
    assert_true(world_run(l, local_over, &x, 5000));
    assert_true(x.connected && x.accepted && x.eof && !x.why);
    assert_true(slice_is(slice_of(x.heard, x.heard_n), "ping"));
    stream_close(&x.client);
    stream_close(&x.server);
    listener_stop(&x.ln);
    loop_turn(l, 0);
    /* nobody accepts and the backlog is full: Linux says EAGAIN, and never tells when there is room */
    struct stream crowd[8];
    memset(&x, 0, sizeof x);
    for (size_t i = 0; i < COUNT_OF(crowd); i++) {
        static const struct stream_ops crowd_ops = {local_none, NULL, local_none, local_none, NULL, local_none};
        stream_connect(&crowd[i], l, &crowd_ops, -1, &a);
        stream_reading(&crowd[i], false);
    }
    assert_int_equal(crowd[COUNT_OF(crowd) - 1].fail, ERR_REFUSED);
    for (size_t i = 0; i < COUNT_OF(crowd); i++) stream_close(&crowd[i]);
    loop_turn(l, 0);
    socket_close(fd);
    unlink(a.path);
    loop_free(l);
}

static const struct CMUnitTest os_tests[] = {cmocka_unit_test(test_threads), cmocka_unit_test(test_unix_upstream)};

int main(void)
{
    bool kernel = tls_kernel_start();
    tls_certs_make();
    int failed = _cmocka_run_group_tests("TLS on os: scenarios", tls_scenario_tests, tls_scenario_tests_n, NULL, NULL) +
                 cmocka_run_group_tests_name("TLS on os", os_tests, NULL, NULL);
    tls_kernel_min = tls_kernel_write_min = 0;
    if (kernel) failed += _cmocka_run_group_tests("TLS on os: records made by the kernel", tls_scenario_tests, tls_scenario_tests_n, NULL, NULL);
    tls_certs_free();
    return failed;
}
