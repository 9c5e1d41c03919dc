/* rt_os_test.c - rt on the kernel: the common scenarios, and what needs real threads, files and sockets. */
#include "rt_scenarios.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

const size_t world_transfer_bytes = 64000000;

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

static char test_dir[] = "/tmp/rt_os_test_XXXXXX";

static char *in_dir(const char *name, char out[256])
{
    snprintf(out, 256, "%s/%s", test_dir, name);
    return out;
}

const char *world_path(const char *name, char out[256]) { return in_dir(name, out); }

/* ---- threads and mailboxes ---- */

#define POSTERS 4
#define POSTS 20000

struct posts {
    struct loop *l;
    struct mailbox *mb;
    uint64_t next[POSTERS], got;
    bool disorder;
};
struct poster {
    struct posts *all;
    uint64_t id, full;
};

static void posts_fn(void *ctx, const struct msg *m)
{
    struct posts *x = ctx;
    if (x->next[m->a] != m->b) x->disorder = true;
    x->next[m->a] = m->b + 1;
    if (++x->got == POSTERS * POSTS) loop_stop(x->l);
}

static void poster_main(void *arg)
{
    struct poster *p = arg;
    for (uint64_t i = 0; i < POSTS; i++)
        while (!mailbox_post(p->all->mb, &(struct msg){.a = p->id, .b = i})) {
            p->full++;
            sched_yield();
        }
}

static void test_mailbox_threads(void **state)
{
    struct posts x = {.l = loop_new("posts")};
    x.mb = mailbox_new(x.l, 64, posts_fn, &x);
    struct poster posters[POSTERS];
    struct thread *threads[POSTERS];
    for (uint64_t i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.all = &x, .id = i};
        threads[i] = thread_start("poster", poster_main, &posters[i]);
    }
    loop_run(x.l);
    uint64_t full = 0;
    for (int i = 0; i < POSTERS; i++) {
        thread_join(threads[i]);
        full += posters[i].full;
    }
    assert_false(x.disorder);
    assert_int_equal(mailbox_full(x.mb), full);
    mailbox_free(x.mb);
    loop_free(x.l);
}

/* Two loops on two threads throw a message back and forth: each throw must wake a sleeper. */
struct court {
    struct loop *l;
    struct mailbox *mine, *theirs;
    uint64_t throws;
};
static void court_fn(void *ctx, const struct msg *m)
{
    struct court *c = ctx;
    c->throws++;
    if (m->a > 0) assert_true(mailbox_post(c->theirs, &(struct msg){.a = m->a - 1}));
    if (m->a <= 1) loop_stop(c->l);
}
static void court_main(void *arg) { loop_run(((struct court *)arg)->l); }

static void test_wake(void **state)
{
    struct court a = {.l = loop_new("a")}, b = {.l = loop_new("b")};
    a.mine = b.theirs = mailbox_new(a.l, 2, court_fn, &a);
    b.mine = a.theirs = mailbox_new(b.l, 2, court_fn, &b);
    struct thread *t = thread_start("b", court_main, &b);
    assert_true(mailbox_post(a.mine, &(struct msg){.a = 5001}));
    loop_run(a.l);
    thread_join(t);
    assert_int_equal(a.throws + b.throws, 5002);
    mailbox_free(a.mine);
    mailbox_free(b.mine);
    loop_free(a.l);
    loop_free(b.l);
}

/* ---- slow works ---- */

/* The slow ones hold their threads until the quick ones are done: if they had all threads, nobody would ever be. */
#define QUICK_WORKS 3
static int quick_ran;
static void slow_run(struct work *w)
{
    while (__atomic_load_n(&quick_ran, __ATOMIC_SEQ_CST) < QUICK_WORKS) sched_yield();
}
static void quick_run(struct work *w) { __atomic_add_fetch(&quick_ran, 1, __ATOMIC_SEQ_CST); }
static int works_left;
static void one_done(struct work *w) { works_left--; }
static bool none_left(void *ctx) { return works_left == 0; }

static void test_slow_works(void **state)
{
    struct loop *l = loop_new("slow");
    struct work slow[8], quick[QUICK_WORKS];
    works_left = COUNT_OF(slow) + COUNT_OF(quick);
    for (size_t i = 0; i < COUNT_OF(slow); i++) {
        slow[i] = (struct work){.run = slow_run, .done = one_done, .slow = true};
        work_submit(l, &slow[i]);
    }
    for (size_t i = 0; i < COUNT_OF(quick); i++) {
        quick[i] = (struct work){.run = quick_run, .done = one_done};
        work_submit(l, &quick[i]);
    }
    assert_true(world_run(l, none_left, NULL, 10000));
    loop_free(l);
}

/* The thread that ran a work tells its loop last of all; the loop may have seen that before and be freed at once. */
static void nothing_run(struct work *w) {}
static void last_done(struct work *w)
{
    if (--works_left == 0) loop_stop(w->loop);
}

static void test_works_end(void **state)
{
    for (int i = 0; i < 2000; i++) {
        struct loop *l = loop_new("short");
        struct work w[4];
        works_left = COUNT_OF(w);
        for (size_t k = 0; k < COUNT_OF(w); k++) {
            w[k] = (struct work){.run = nothing_run, .done = last_done};
            work_submit(l, &w[k]);
        }
        loop_run(l);
        loop_free(l);
    }
}

/* ---- spreads ---- */

/* Each of four works spreads many calls: every one comes once, and all before its work is done. The first calls of a work wait for each other: they need threads of
 * their own. */
#define SPREADS 4
#define SPREAD_CALLS 500
#define SPREAD_AT_ONCE 4
struct spreading {
    struct work w;
    uint8_t calls[SPREAD_CALLS];
    uint32_t n, together;
};
static void spread_one(void *ctx, uint32_t i)
{
    struct spreading *s = ctx;
    __atomic_add_fetch(&s->calls[i], 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&s->together, 1, __ATOMIC_SEQ_CST);
    while (s->n == SPREAD_AT_ONCE && __atomic_load_n(&s->together, __ATOMIC_SEQ_CST) < SPREAD_AT_ONCE) sched_yield();
}
static void spread_run(struct work *w)
{
    struct spreading *s = CONTAINER_OF(w, struct spreading, w);
    work_spread(s->n, spread_one, s);
    for (uint32_t i = 0; i < s->n; i++) MUST(s->calls[i] == 1);
}

static void test_spread(void **state)
{
    struct loop *l = loop_new("spread");
    struct spreading *s = mem_new(MEM_MISC, SPREADS * sizeof *s);
    for (uint32_t n = 0; n <= SPREAD_CALLS; n = n < 2 ? n + 1 : n * 5 / 2 + 1) {
        works_left = SPREADS;
        for (int i = 0; i < SPREADS; i++) {
            s[i] = (struct spreading){.w = {.run = spread_run, .done = one_done}, .n = n};
            work_submit(l, &s[i].w);
        }
        assert_true(world_run(l, none_left, NULL, 10000));
    }
    works_left = 1;
    s[0] = (struct spreading){.w = {.run = spread_run, .done = one_done}, .n = SPREAD_AT_ONCE};
    work_submit(l, &s[0].w);
    assert_true(world_run(l, none_left, NULL, 10000));
    mem_free(s);
    loop_free(l);
}

/* ---- watches, stale events ---- */

struct watched {
    struct watch w;
    struct watched *other;
    uint32_t calls;
};
static void watched_fn(struct watch *w)
{
    struct watched *x = (struct watched *)w;
    x->calls++;
    watch_stop(&x->other->w); /* whose event is in the same batch */
    memset(x->other, 0xee, sizeof *x->other);
    mem_free(x->other);
    x->other = NULL;
    watch_stop(w);
}

static void test_watch_stops_other(void **state)
{
    struct loop *l = loop_new("test");
    int fds[2][2];
    struct watched *x[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe2(fds[i], O_NONBLOCK | O_CLOEXEC), 0);
        assert_int_equal(write(fds[i][1], "x", 1), 1);
        x[i] = mem_new(MEM_MISC, sizeof *x[i]);
    }
    x[0]->other = x[1];
    x[1]->other = x[0];
    for (int i = 0; i < 2; i++) watch_start(&x[i]->w, l, fds[i][0], watched_fn);
    uint64_t before = mem_count(MEM_MISC);
    loop_turn(l, 100);
    assert_int_equal(mem_count(MEM_MISC), before - 1);
    loop_turn(l, 0);
    mem_free(x[0]->other == NULL ? x[0] : x[1]);
    for (int i = 0; i < 2; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
    loop_free(l);
}

/* ---- a fast peer and a small one ---- */

struct flood {
    struct stream s;
    uint64_t bytes, turns_with_data, last_turn;
    uint64_t *turn;
};
static void flood_data(struct stream *s, char *p, size_t n)
{
    struct flood *f = (struct flood *)s;
    f->bytes += n;
    if (f->last_turn != *f->turn) f->turns_with_data++;
    f->last_turn = *f->turn;
}
static void flood_none(struct stream *s) {}
static void flood_failed(struct stream *s, enum err e) {}
static const struct stream_ops flood_ops = {flood_none, flood_data, flood_none, flood_none, flood_failed, flood_none};

static void fill_socket(int fd)
{
    static char block[65536];
    while (send(fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {}
}

static void test_fairness(void **state)
{
    struct loop *l = loop_new("test");
    int big[2], small[2], size = 4 << 20;
    uint64_t turn = 1;
    struct flood fast = {.turn = &turn}, slow = {.turn = &turn};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, big), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, small), 0);
    setsockopt(big[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    stream_adopt(&fast.s, l, &flood_ops, big[0]);
    stream_adopt(&slow.s, l, &flood_ops, small[0]);
    for (; turn <= 50; turn++) {
        fill_socket(big[1]);
        assert_int_equal(write(small[1], "x", 1), 1);
        uint64_t before = fast.bytes;
        loop_turn(l, 0);
        assert_true(fast.bytes - before <= (READS_PER_TURN + 1) * STREAM_READ_BYTES);
    }
    assert_int_equal(slow.bytes, 50);
    stream_close(&fast.s);
    stream_close(&slow.s);
    close(big[1]);
    close(small[1]);
    loop_free(l);
}

/* Accepted, answered and closed in one turn: never in the poller. */
static void test_adopt_without_poller(void **state)
{
    struct loop *l = loop_new("test");
    int fds[2];
    uint64_t turn = 1;
    struct flood f = {.turn = &turn};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(write(fds[1], "hello", 5), 5);
    stream_adopt(&f.s, l, &flood_ops, fds[0]);
    loop_turn(l, 0);
    assert_int_equal(f.bytes, 5); /* in the same turn, without the poller */
    assert_true(f.s.in_poller); /* it stayed open */
    stream_close(&f.s);
    close(fds[1]);
    loop_free(l);
}

static int option(int fd, int level, int name)
{
    int v = -1;
    socklen_t n = sizeof v;
    assert_int_equal(getsockopt(fd, level, name, &v, &n), 0);
    return v;
}

static void test_keepalive(void **state)
{
    struct loop *l = loop_new("test");
    struct addr a = addr_ip4(0x7f000001, 0);
    struct flood f = {0};
    int fd;
    assert_int_equal(listen_socket(&a, 8, false, &fd), OK);
    assert_int_equal(socket_local_addr(fd, &a), OK);
    stream_connect(&f.s, l, &flood_ops, -1, &a);
    assert_int_equal(option(f.s.fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    int kernels = option(f.s.fd, IPPROTO_TCP, TCP_KEEPINTVL);
    stream_keepalive(&f.s, 77, 0, 1000);
    assert_int_equal(option(f.s.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(f.s.fd, IPPROTO_TCP, TCP_KEEPIDLE), 77);
    assert_int_equal(option(f.s.fd, IPPROTO_TCP, TCP_KEEPINTVL), kernels);
    assert_int_equal(option(f.s.fd, IPPROTO_TCP, TCP_KEEPCNT), 127); /* the kernel's largest */
    stream_silence(&f.s, 6000);
    assert_int_equal(option(f.s.fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 0); /* see test_unread */
    assert_int_equal(option(f.s.fd, IPPROTO_TCP, TCP_KEEPIDLE), 2);
    assert_int_equal(option(f.s.fd, IPPROTO_TCP, TCP_KEEPINTVL), 2);
    stream_close(&f.s);
    stream_keepalive(&f.s, 1, 1, 1); /* closed: nothing */
    stream_silence(&f.s, 1);
    socket_close(fd);
    loop_turn(l, 0);
    loop_free(l);
}

/* A peer that is there and reads nothing is not silent, however long its window is closed; and it gets all of it in the end. With
 * TCP_USER_TIMEOUT the kernel would break the connection behind the first question that comes after that time. */
#define UNREAD_BYTES world_transfer_bytes /* more than the kernel's buffers take */
#define UNREAD_MS 3600u /* the kernel asks 0.2, 0.6, 1.4 and 3 s after the window closed */
static bool unread_failed;
static bool unread_bad(void *ctx) { return unread_failed; }
static bool unread_all(void *ctx) { return unread_failed || ((struct flood *)ctx)->bytes == UNREAD_BYTES; }
static void unread_broke(struct stream *s, enum err e) { unread_failed = true; }
static void unread_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct flood *f = ln->owner;
    stream_adopt(&f->s, ln->loop, f->s.ops, fd);
    stream_silence(&f->s, 2000);
    stream_reading(&f->s, false);
}

static void test_unread(void **state)
{
    struct loop *l = loop_new("test");
    struct stream_ops ops = flood_ops;
    struct addr a = addr_ip4(0x7f000001, 0);
    uint64_t turn = 1;
    ops.failed = unread_broke;
    struct flood writer = {.turn = &turn}, reader = {.turn = &turn, .s.ops = &ops};
    struct listener ln = {.owner = &reader};
    char *bytes = mem_new(MEM_SIM, UNREAD_BYTES);
    int fd;
    assert_int_equal(listen_socket(&a, 8, false, &fd), OK);
    assert_int_equal(socket_local_addr(fd, &a), OK);
    listener_start(&ln, l, fd, false, unread_accepted);
    stream_connect(&writer.s, l, &ops, -1, &a);
    stream_silence(&writer.s, 2000);
    stream_write_slice(&writer.s, slice_of(bytes, UNREAD_BYTES));
    unread_failed = false;
    assert_false(world_run(l, unread_bad, NULL, UNREAD_MS));
    assert_true(writer.s.out_bytes > 0); /* so it did wait */
    stream_reading(&reader.s, true);
    assert_true(world_run(l, unread_all, &reader, 60000));
    assert_false(unread_failed);
    stream_close(&writer.s);
    stream_close(&reader.s);
    listener_stop(&ln);
    socket_close(fd);
    loop_turn(l, 0);
    mem_free(bytes);
    loop_free(l);
}

/* Without a free descriptor a listener pauses instead of spinning, and goes on later. */
static uint32_t pausing_accepted;
static void pausing_fn(struct listener *ln, int fd, const struct addr *peer)
{
    pausing_accepted++;
    socket_close(fd);
}
static bool pausing_done(void *ctx) { return pausing_accepted == 1; }

/* ---- what a peer has heard ---- */

struct heard {
    struct stream s;
    uint64_t from;
    bool connected, ended, unheard, released;
};
static void heard_end(struct heard *h)
{
    h->unheard = stream_unheard(&h->s, h->from);
    h->ended = true;
    stream_close(&h->s);
}
static void heard_connected(struct stream *s) { CONTAINER_OF(s, struct heard, s)->connected = true; }
static void heard_data(struct stream *s, char *p, size_t n) {}
static void heard_eof(struct stream *s) { heard_end(CONTAINER_OF(s, struct heard, s)); }
static void heard_drained(struct stream *s) {}
static void heard_failed(struct stream *s, enum err e) { heard_end(CONTAINER_OF(s, struct heard, s)); }
static void heard_released(struct stream *s) { CONTAINER_OF(s, struct heard, s)->released = true; }
static const struct stream_ops heard_ops = {heard_connected, heard_data, heard_eof, heard_drained, heard_failed, heard_released};
static bool heard_connected_is(void *ctx) { return ((struct heard *)ctx)->connected; }
static bool heard_ended_is(void *ctx) { return ((struct heard *)ctx)->ended && ((struct heard *)ctx)->released; }

enum heard_act { PEER_CLOSES_FIRST, PEER_READS_FIRST, PEER_RESETS_UNREAD, PEER_HALF_CLOSES };

/* A first message is read by the peer; then comes what act says, and a second message. Whether the peer can't have heard that one. */
static bool second_unheard(enum heard_act act)
{
    struct loop *l = loop_new("heard");
    struct addr a = addr_ip4(0x7f000001u, 0);
    struct heard h = {0};
    int ln, peer;
    char buf[64];
    assert_int_equal(listen_socket(&a, 5, false, &ln), OK);
    assert_int_equal(socket_local_addr(ln, &a), OK);
    stream_connect(&h.s, l, &heard_ops, -1, &a);
    assert_true(world_run(l, heard_connected_is, &h, 5000));
    assert_true((peer = accept(ln, NULL, NULL)) >= 0);
    stream_write_slice(&h.s, SLICE("first"));
    assert_int_equal(recv(peer, buf, sizeof buf, 0), 5);
    h.from = h.s.sent;
    assert_int_equal(h.from, 5);
    if (act == PEER_CLOSES_FIRST) assert_int_equal(close(peer), 0);
    if (act == PEER_HALF_CLOSES) assert_int_equal(shutdown(peer, SHUT_WR), 0);
    stream_write_slice(&h.s, SLICE("second"));
    if (act == PEER_READS_FIRST) assert_int_equal(recv(peer, buf, sizeof buf, 0), 6);
    if (act == PEER_RESETS_UNREAD) assert_int_equal(recv(peer, buf, 1, 0), 1);
    if (act == PEER_READS_FIRST || act == PEER_RESETS_UNREAD) assert_int_equal(close(peer), 0);
    assert_true(world_run(l, heard_ended_is, &h, 5000));
    if (act == PEER_HALF_CLOSES) close(peer);
    close(ln);
    loop_free(l);
    return h.unheard;
}

static void test_unheard(void **state)
{
    for (int i = 0; i < 20; i++) {
        assert_true(second_unheard(PEER_CLOSES_FIRST));
        assert_false(second_unheard(PEER_READS_FIRST));
        assert_false(second_unheard(PEER_RESETS_UNREAD));
        assert_false(second_unheard(PEER_HALF_CLOSES)); /* it took the bytes and may have read them */
    }
}

static void test_accept_pause(void **state)
{
    struct loop *l = loop_new("test");
    struct listener ln = {0};
    struct addr a = addr_ip4(0x7f000001, 0);
    int fd, client;
    assert_int_equal(listen_socket(&a, 16, false, &fd), OK);
    assert_int_equal(sys_local_addr(fd, &a), 0);
    client = sys_socket(&a);
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    listener_start(&ln, l, fd, false, pausing_fn);
    assert_int_equal(sys_connect(client, &a), -EINPROGRESS);
    setrlimit(RLIMIT_NOFILE, &none);
    uint64_t from = mono_ns();
    for (int i = 0; i < 20; i++) loop_turn(l, 1);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_in_range(ln.accept_errors, 1, 1 + (mono_ns() - from) / (ACCEPT_PAUSE_MS * 1000000ull)); /* 20 turns may take long where others run, too */
    assert_true(world_run(l, pausing_done, NULL, 5000));
    listener_stop(&ln);
    socket_close(fd);
    socket_close(client);
    loop_free(l);
}

/* ---- files ---- */

static void test_files(void **state)
{
    char path[256];
    struct buf b = {0};
    in_dir("f", path);
    assert_int_equal(file_read(path, &b, 100), ERR_NOTFOUND);
    assert_int_equal(file_replace(path, "hello", 5, 0600), OK);
    assert_int_equal(file_read(path, &b, 5), OK);
    assert_true(slice_is(buf_slice(&b), "hello"));
    assert_int_equal(file_read(path, &b, 4), ERR_LIMIT);
    assert_int_equal(file_replace(path, "", 0, 0640), OK);
    assert_int_equal(file_read(path, &b, 4), OK);
    assert_int_equal(b.n, 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(file_replace("/nowhere/f", "x", 1, 0600), ERR_NOTFOUND);
    assert_int_equal(file_read("/proc/self/status", &b, 1 << 20), OK); /* a file without a size */
    assert_true(b.n > 100);
    buf_free(&b);
    unlink(path);
}

/* ---- logs ---- */

/* As in sched_getattr(2). */
static uint64_t turn_ns(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a = {0};
    assert_int_equal(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0), 0);
    return a.runtime;
}

struct turns {
    uint64_t before, prompt, child;
};
static void turns_child(void *arg) { ((struct turns *)arg)->child = turn_ns(); }
static void turns_main(void *arg)
{
    struct turns *t = arg;
    t->before = turn_ns();
    thread_prompt();
    t->prompt = turn_ns();
    thread_join(thread_start("child", turns_child, arg));
}

/* A prompt thread has short turns where the kernel knows such; those that it starts have the kernel's. */
static void test_prompt(void **state)
{
    struct turns t;
    thread_join(thread_start("prompt", turns_main, &t));
    if (t.before == 0) skip(); /* Linux before 6.12 */
    assert_true(t.before > 100000);
    assert_int_equal(t.prompt, 100000);
    assert_int_equal(t.child, t.before);
}

#define LOGGERS 3
#define LOG_LINES 4000
struct logger {
    struct log_file *f;
    int id;
    uint64_t put;
};
static void logger_main(void *arg)
{
    struct logger *g = arg;
    char line[64];
    for (int i = 0; i < LOG_LINES; i++) {
        int n = snprintf(line, sizeof line, "%d %d %.*s", g->id, i, i % 40, "----------------------------------------");
        g->put += log_file_put(g->f, line, (size_t)n);
    }
}

/* Every line that was taken is in the file, whole, and in its producer's order. */
static uint64_t check_log(const char *path, int last[LOGGERS])
{
    struct buf b = {0};
    uint64_t lines = 0;
    if (file_read(path, &b, 64 << 20) != OK) return 0;
    struct slice rest = buf_slice(&b);
    while (rest.n) {
        struct slice line = slice_cut(rest, '\n', &rest);
        int id = -1, i = -1;
        assert_int_equal(sscanf(line.p, "%d %d ", &id, &i), 2);
        assert_int_equal(line.n, (size_t)snprintf(NULL, 0, "%d %d ", id, i) + (size_t)(i % 40));
        assert_true(i > last[id]);
        last[id] = i;
        lines++;
    }
    buf_free(&b);
    return lines;
}

static void test_log_threads(void **state)
{
    char path[256], old[256];
    in_dir("access.log", path);
    in_dir("access.log.1", old);
    log_start(LOG_WARN);
    log_warn("test", "a line with a control character: %c", '\n');
    struct log_file *f = log_file_open(path, 200000);
    struct logger g[LOGGERS];
    struct thread *t[LOGGERS];
    for (int i = 0; i < LOGGERS; i++) {
        g[i] = (struct logger){.f = f, .id = i};
        t[i] = thread_start("logger", logger_main, &g[i]);
    }
    uint64_t put = 0;
    for (int i = 0; i < LOGGERS; i++) {
        thread_join(t[i]);
        put += g[i].put;
    }
    assert_int_equal(put + log_file_dropped(f), LOGGERS * LOG_LINES);
    log_file_close(f);
    log_stop();
    int last[LOGGERS] = {-1, -1, -1};
    struct stat st;
    assert_int_equal(stat(old, &st), 0); /* it was rotated, perhaps more than once */
    uint64_t lines = check_log(old, last) + check_log(path, last);
    assert_true(lines > 0 && lines <= put);
    unlink(path);
    unlink(old);
}

/* What was put is in the file at once, not when the writer comes round. */
static void test_log_flush(void **state)
{
    char path[256];
    struct stat st;
    in_dir("flush.log", path);
    log_start(LOG_WARN);
    struct log_file *f = log_file_open(path, 1 << 20);
    for (int64_t i = 1; i <= 200; i++) {
        assert_true(log_file_put(f, "nine char", 9));
        log_file_flush(f);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, i * 10);
    }
    log_file_close(f);
    log_stop();
    unlink(path);
}

/* What is no regular file is never renamed, however much was written: somebody may log to /dev/null. */
static void test_log_device(void **state)
{
    char dir[] = "/tmp/rt_os_test_XXXXXX", path[64], old[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/pipe", dir);
    snprintf(old, sizeof old, "%s/pipe.1", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    log_start(LOG_WARN);
    struct log_file *f = log_file_open(path, 100);
    char text[200];
    for (int i = 0; i < 10; i++) { /* each is written by itself */
        assert_true(log_file_put(f, "a line of some thirty characters", 32));
        struct pollfd p = {reader, POLLIN, 0};
        assert_int_equal(poll(&p, 1, 5000), 1);
        assert_int_equal(read(reader, text, sizeof text), 33);
    }
    log_file_close(f);
    log_stop();
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(stat(old, &st), -1);
    close(reader);
    unlink(path);
    rmdir(dir);
}

/* Two processes write one log: only one of them renames it, the other goes on in the new file. */
static void test_log_shared(void **state)
{
    char path[256], old[256], line[60];
    struct buf text = {0};
    in_dir("shared.log", path);
    in_dir("shared.log.1", old);
    memset(line, 'x', sizeof line);
    struct log_file *a = log_file_open(path, 100), *b = log_file_open(path, 100);
    assert_true(log_file_put(a, "first", 5) && log_file_put(b, line, sizeof line));
    assert_true(log_file_put(a, line, sizeof line) && log_file_put(a, line, sizeof line)); /* the second of these does not fit */
    assert_true(log_file_put(b, line, sizeof line));
    assert_int_equal(file_read(old, &text, 4096), OK);
    assert_int_equal(text.n, 6 + 61 + 61);
    buf_clear(&text);
    assert_int_equal(file_read(path, &text, 4096), OK);
    assert_int_equal(text.n, 61 + 61);
    log_file_close(a);
    log_file_close(b);
    buf_free(&text);
    unlink(path);
    unlink(old);
}

static void test_log_whole(void **state)
{
    char path[256];
    in_dir("whole.log", path);
    struct log_file *f = log_file_open(path, 0);
    assert_true(log_file_put(f, "0 0 ", 4)); /* no writer yet: written at once */
    int last[LOGGERS] = {-1, -1, -1};
    assert_int_equal(check_log(path, last), 1);
    log_start(LOG_WARN);
    struct logger g = {.f = f, .id = 1};
    logger_main(&g);
    assert_int_equal(g.put, LOG_LINES);
    log_file_close(f);
    log_stop();
    last[0] = -1;
    assert_int_equal(check_log(path, last), LOG_LINES + 1);
    unlink(path);
}

/* A writer that is held up: the ring fills, lines are dropped and counted, nobody waits. */
static void test_log_full(void **state)
{
    char path[256];
    in_dir("fifo", path);
    assert_int_equal(mkfifo(path, 0600), 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    log_start(LOG_WARN);
    struct log_file *f = log_file_open(path, 0);
    char line[1000];
    memset(line, 'x', sizeof line);
    uint64_t put = 0;
    for (int i = 0; i < 3000; i++) put += log_file_put(f, line, sizeof line);
    assert_true(put < 3000);
    assert_int_equal(log_file_dropped(f), 3000 - put);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    uint64_t got = 0, end = mono_ns() + 10000000000ULL;
    static char sink[65536];
    while (got < put * 1001 && mono_ns() < end) {
        ssize_t r = read(fd, sink, sizeof sink);
        if (r > 0) got += (uint64_t)r;
        else usleep(1000);
    }
    assert_int_equal(got, put * 1001);
    log_file_close(f);
    log_stop();
    close(fd);
    unlink(path);
}

/* Standard error is a pipe that nobody reads: no call waits for its reader; when there is one, what was kept arrives. */
static void test_log_stderr_stuck(void **state)
{
    static char sink[65536];
    char path[256], line[1000];
    int ends[2], before = dup(2);
    in_dir("beside.log", path);
    memset(line, 'x', sizeof line);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(dup2(ends[1], 2) >= 0);
    log_start(LOG_WARN);
    struct log_file *console = log_file_open(NULL, 0);
    uint64_t put = 0, got = 0, from = mono_ns();
    for (int i = 0; i < 500; i++) put += log_file_put(console, line, sizeof line);
    usleep(100000); /* the writer comes to the full pipe */
    struct log_file *f = log_file_open(path, 0);
    assert_true(log_file_put(f, "line", 4));
    log_file_close(f);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (uint64_t end = mono_ns() + 10000000000ULL; got < put * 1001 && mono_ns() < end;) {
        ssize_t r = read(ends[0], sink, sizeof sink);
        for (ssize_t i = 0; i < r; i++) got += sink[i] == 'x' || sink[i] == '\n';
        if (r <= 0) usleep(1000);
    }
    assert_in_range(got, put * 1001, put * 1001 + 2); /* the word that lines were dropped */
    for (int i = 0; i < 500; i++) (void)log_file_put(console, line, sizeof line);
    log_file_close(console);
    log_stop();
    for (int i = 0; i < 200; i++) log_warn("test", "said without a writer, to nobody: %.900s", line);
    assert_true(mono_ns() - from < 15000000000ULL);
    dup2(before, 2);
    close(before);
    close(ends[0]);
    close(ends[1]);
    unlink(path);
}

/* /dev/full takes nothing: dropped lines are counted, the program goes on. */
static void test_log_disk_full(void **state)
{
    log_start(LOG_WARN);
    struct log_file *f = log_file_open("/dev/full", 0);
    for (int i = 0; i < 10; i++) assert_true(log_file_put(f, "line", 4));
    uint64_t end = mono_ns() + 5000000000ULL;
    while (log_file_dropped(f) < 10 && mono_ns() < end) usleep(1000);
    assert_int_equal(log_file_dropped(f), 10);
    log_file_close(f);
    log_stop();
}

static const struct CMUnitTest os_tests[] = {
    cmocka_unit_test(test_mailbox_threads), cmocka_unit_test(test_wake), cmocka_unit_test(test_watch_stops_other),
    cmocka_unit_test(test_fairness), cmocka_unit_test(test_adopt_without_poller), cmocka_unit_test(test_keepalive), cmocka_unit_test(test_unread), cmocka_unit_test(test_accept_pause),
    cmocka_unit_test(test_unheard),
    cmocka_unit_test(test_files),             cmocka_unit_test(test_prompt), cmocka_unit_test(test_slow_works), cmocka_unit_test(test_works_end), cmocka_unit_test(test_spread),
    cmocka_unit_test(test_log_threads), cmocka_unit_test(test_log_flush), cmocka_unit_test(test_log_whole), cmocka_unit_test(test_log_shared), cmocka_unit_test(test_log_device), cmocka_unit_test(test_log_full),
    cmocka_unit_test(test_log_disk_full), cmocka_unit_test(test_log_stderr_stuck),
};

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    MUST(mkdtemp(test_dir));
    int failed = _cmocka_run_group_tests("rt on os: scenarios", scenario_tests, scenario_tests_n, NULL, NULL);
    failed += _cmocka_run_group_tests("rt on os: relays", relay_tests, relay_tests_n, NULL, NULL);
    failed += _cmocka_run_group_tests("rt on os: disk", disk_tests, disk_tests_n, NULL, NULL);
    failed += _cmocka_run_group_tests("rt on os: frames", into_tests, into_tests_n, NULL, NULL);
    failed += cmocka_run_group_tests_name("rt on os", os_tests, NULL, NULL);
    rmdir(test_dir);
    return failed;
}
