/* sup_test.c - the supervisor with a scripted engine and real workloads.
 *
 * This binary plays every part. A test forks a process that runs sup_main(); that executes this binary again as the
 * engine ("engine SCRIPT DIR"), which goes through a script of requests and expectations; replicas run it a third time
 * as the workload ("work WHAT ..."). A script that is content ends with sup_shutdown(0). What the machine does not permit
 * is skipped, with a line that says so.
 */
#include "sup_int.h"
#include "sup_work_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SKIPPED 77
#define WAIT_MS 15000

static char self_path[4096];

/* ---- the engine's part: requests that wait for their answer ---------------------------------------------------------- */

static struct engine {
    struct loop *loop;
    struct sup_client *c;
    const char *dir;
    struct sup_caps caps;
    uint32_t restarts;
    struct sup_history history;
    bool ready, stop, taken, rehearsing, releasing, draining, alone, kept_right;
    int kept_n;
    int failures;        /* upgrade_failed() so far */
    uint64_t seen_id;    /* of the last answer of each kind */
    bool has_started, has_exited, has_exec, has_sockets, has_listening;
    enum err e;
    char text[SUP_TEXT_MAX];
    struct sup_replica rep;
    int32_t status;
    int exits;           /* answers of that kind so far */
    bool oom;
    char output[SUP_EXEC_OUTPUT_MAX + 1];
    int fds[SUP_FDS_MAX], n;
    struct sup_replica adopted[4];
    char adopted_label[4][64];
    int adopted_n;
    int listener_after; /* replicas that were adopted before the listener */
    uint64_t listener_token;
    int listener_fd, listener_n;
    struct addr listener_addr;
} E;

static _Noreturn void script_failed(const char *what, int line)
{
    fprintf(stderr, "sup_test.c:%d: %s (err %s, text \"%s\", status %x, output \"%s\")\n", line, what, err_text(E.e), E.text, (unsigned)E.status, E.output);
    sup_shutdown(E.c, 1);
    _exit(1);
}
#define WANT(x) ((x) ? (void)0 : script_failed(#x, __LINE__))

static void on_listening(void *ctx, uint64_t token, enum err e, const char *text, const int *fds, int n)
{
    E.has_listening = true;
    E.e = e;
    E.n = n;
    snprintf(E.text, sizeof E.text, "%s", text);
    memcpy(E.fds, fds, (size_t)n * sizeof *fds);
}

static void on_started(void *ctx, uint64_t id, enum err e, const char *text, const struct sup_replica *r)
{
    E.has_started = true;
    E.seen_id = id;
    E.e = e;
    snprintf(E.text, sizeof E.text, "%s", text);
    if (r)
        E.rep = *r;
}

static void on_exited(void *ctx, uint64_t id, int32_t status, bool oom)
{
    E.has_exited = true;
    E.exits++;
    E.seen_id = id;
    E.status = status;
    E.oom = oom;
}

static void on_exec_done(void *ctx, uint64_t id, uint64_t token, enum err e, int32_t status, struct slice output)
{
    E.has_exec = true;
    E.e = e;
    E.status = status;
    snprintf(E.output, sizeof E.output, SLICE_FMT, SLICE_ARG(output));
}

static void on_sockets(void *ctx, uint64_t id, uint64_t token, const int *fds, int n)
{
    E.has_sockets = true;
    E.n = n;
    memcpy(E.fds, fds, (size_t)n * sizeof *fds);
}

static void on_adopt_listener(void *ctx, uint64_t token, const struct addr *a, uint64_t ns_id, const int *fds, int n)
{
    E.listener_token = token;
    E.listener_addr = *a;
    E.listener_fd = fds[0];
    E.listener_n = n;
    E.listener_after = E.adopted_n;
}

static void on_adopt_replica(void *ctx, const struct sup_replica *r)
{
    WANT(E.adopted_n < 4);
    snprintf(E.adopted_label[E.adopted_n], sizeof E.adopted_label[0], "%s", r->label);
    E.adopted[E.adopted_n++] = *r;
}

static void on_ready(void *ctx, const struct sup_caps *caps, const struct sup_history *h)
{
    WANT(E.taken);
    E.caps = *caps;
    E.history = *h;
    E.restarts = h->restarts;
    E.ready = true;
}

static void on_take(void *ctx)
{
    E.taken = true;
    E.ready = false;
    E.adopted_n = 0;
}

static void on_rehearse(void *ctx) { E.rehearsing = true; }
static void on_release(void *ctx) { E.releasing = true; }
static void on_drain(void *ctx, uint32_t ms, int32_t new_pid) { E.draining = ms == 2000 && new_pid > 0; }
static void on_alone(void *ctx) { E.alone = true; }

static void on_upgrade_failed(void *ctx, enum err e, const char *text)
{
    E.failures++;
    E.e = e;
    snprintf(E.text, sizeof E.text, "%s", text);
}

static void on_stop(void *ctx) { E.stop = true; }

static void on_adopt_kept(void *ctx, struct slice bytes)
{
    E.kept_n++;
    E.kept_right = !E.ready && slice_eq(bytes, slice_of("one\0two", 7));
}
static const struct sup_client_ops ops = {on_listening, on_started, on_exited, on_exec_done, on_sockets, on_take, on_adopt_listener, on_adopt_replica, on_ready, on_stop,
                                          on_rehearse, on_release, on_drain, on_upgrade_failed, on_alone, on_adopt_kept};

static void wait_until(const bool *flag, const char *what, int line)
{
    uint64_t end = mono_ns() + WAIT_MS * 1000000ull;
    while (!*flag) {
        loop_turn(E.loop, 50);
        if (mono_ns() > end)
            script_failed(what, line);
    }
}
#define WAIT(flag) wait_until(&(flag), "waiting for " #flag, __LINE__)
#define WANT_EXITED(x) (WAIT(E.has_exited), WANT(x))

static _Noreturn void script_done(int status)
{
    sup_shutdown(E.c, status);
    loop_turn(E.loop, 0);
    _exit(0);
}

static _Noreturn void script_skip(const char *why)
{
    fprintf(stderr, "SKIPPED: %s: %s\n", why, E.caps.why);
    script_done(SKIPPED);
}

static struct sup_spec spec_of(uint64_t id, const char *const *argv)
{
    static char name[64], label[64], path[] = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    static const char *const env[] = {path, "X=some value", NULL};
    snprintf(name, sizeof name, "replica-%d", (int)id);
    snprintf(label, sizeof label, "label of %d", (int)id);
    return (struct sup_spec){.id = id, .name = name, .label = label, .argv = argv, .envp = env, .cwd = E.dir, .uid = -1, .gid = -1};
}

static void run_spec(const struct sup_spec *spec)
{
    E.has_started = E.has_exited = false;
    WANT(sup_start(E.c, spec) == OK);
    WAIT(E.has_started);
}

static void run(uint64_t id, const char *const *argv)
{
    struct sup_spec spec = spec_of(id, argv);
    run_spec(&spec);
    WANT(E.e == OK && E.rep.pid > 0);
}

#define RUN(id, ...) run((id), (const char *const[]){__VA_ARGS__, NULL})
#define SHELL(id, script) RUN((id), "sh", "-c", (script))

/* What comes out of fd until it ends or text is in it. */
static const char *read_until(int fd, const char *text)
{
    static char got[16384];
    size_t n = 0;
    uint64_t end = mono_ns() + WAIT_MS * 1000000ull;
    got[0] = 0;
    while (mono_ns() < end && n < sizeof got - 1) {
        struct pollfd p = {fd, POLLIN, 0};
        (void)poll(&p, 1, 100);
        loop_turn(E.loop, 0);
        ssize_t r = read(fd, got + n, sizeof got - 1 - n);
        if (r == 0)
            break;
        if (r < 0)
            continue;
        n += (size_t)r;
        got[n] = 0;
        if (text && strstr(got, text))
            break;
    }
    return got;
}

/* Like WANT(strstr(s, part)), but shows s. */
static void want_in(const char *s, const char *part, int line)
{
    if (strstr(s, part))
        return;
    fprintf(stderr, "\"%s\" is not in:\n%s\n", part, s);
    script_failed("output", line);
}
#define WANT_IN(s, part) want_in((s), (part), __LINE__)

static void exec_in(uint64_t id, const char *script, uint32_t timeout_ms)
{
    E.has_exec = false;
    WANT(sup_exec(E.c, id, 5, (const char *const[]){"sh", "-c", script, NULL}, timeout_ms) == OK);
    WAIT(E.has_exec);
}

/* ---- scripts --------------------------------------------------------------------------------------------------------- */

static void script_basic(void)
{
    RUN(1, "sh", "-c", "echo to out; echo to err >&2; echo $X; uname -n; pwd; exit 3");
    const char *out = read_until(E.rep.out_fd, NULL);
    WANT_IN(out, "to out\nsome value\n");
    WANT_IN(out, E.dir);
    if (E.caps.namespaces)
        WANT_IN(out, "replica-1\n");
    WANT_IN(read_until(E.rep.err_fd, NULL), "to err\n");
    WANT_EXITED(E.seen_id == 1 && WIFEXITED(E.status) && WEXITSTATUS(E.status) == 3 && !E.oom);
    sup_forget(E.c, 1);

    SHELL(2, "trap 'echo asked; exit 9' TERM; echo up; while :; do sleep 0.02; done");
    WANT_IN(read_until(E.rep.out_fd, "up"), "up");
    sup_signal(E.c, 2, SIGTERM);
    WANT_IN(read_until(E.rep.out_fd, "asked"), "asked");
    WANT_EXITED(WEXITSTATUS(E.status) == 9);

    SHELL(3, "echo up; kill -SEGV $$");
    WANT_EXITED(WIFSIGNALED(E.status) && WTERMSIG(E.status) == SIGSEGV);

    /* SIGKILL ends the children as well, also those in sessions of their own. */
    SHELL(4, "setsid sleep 1000 & sleep 1001 & echo up; wait");
    WANT_IN(read_until(E.rep.out_fd, "up"), "up");
    sup_signal(E.c, 4, SIGKILL);
    WANT_EXITED(WIFSIGNALED(E.status) && WTERMSIG(E.status) == SIGKILL);
    WANT_IN(read_until(E.rep.out_fd, NULL), ""); /* ends: nobody holds the pipe any more */
    sup_forget(E.c, 4);

    /* The fence is the last one that was told; what it does not name goes on. */
    SHELL(5, "trap '' TERM; echo up; while :; do sleep 0.02; done");
    SHELL(6, "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done");
    WANT_IN(read_until(E.rep.out_fd, "up"), "up");
    uint64_t now_ms = mono_ns() / 1000000, both[] = {5, 6, 77};
    sup_fence(E.c, now_ms + 60, both, 3);
    sup_fence(E.c, now_ms + 400, both, 1);
    WANT_EXITED(E.seen_id == 5 && WIFSIGNALED(E.status) && WTERMSIG(E.status) == SIGKILL && mono_ns() / 1000000 >= now_ms + 400);
    E.has_exited = false;
    sup_signal(E.c, 6, SIGTERM);
    WANT_EXITED(E.seen_id == 6 && WEXITSTATUS(E.status) == 7);
    /* What is named before it is asked for is fenced from its first breath on, and is not started when it is too late. */
    uint64_t next[] = {7, 8};
    now_ms = mono_ns() / 1000000;
    sup_fence(E.c, now_ms + 800, next, 2);
    SHELL(7, "trap '' TERM; echo up; while :; do sleep 0.02; done");
    WANT_EXITED(E.seen_id == 7 && WIFSIGNALED(E.status) && WTERMSIG(E.status) == SIGKILL && mono_ns() / 1000000 >= now_ms + 800);
    struct sup_spec late = spec_of(8, (const char *const[]){"true", NULL});
    run_spec(&late);
    WANT(E.e == ERR_TIMEOUT);
    sup_fence(E.c, mono_ns() / 1000000 + 60000, next, 2);
    run_spec(&late);
    WANT(E.e == OK);
    script_done(0);
}

static void script_refusals(void)
{
    struct sup_spec spec = spec_of(1, (const char *const[]){"no-such-program", NULL});
    run_spec(&spec);
    WANT(E.e == ERR_NOTFOUND);
    WANT_IN(E.text, "cannot run no-such-program: not found in PATH (/usr/local/bin:");
    spec = spec_of(2, (const char *const[]){"/etc/passwd", NULL});
    run_spec(&spec);
    WANT(E.e == ERR_PERM);
    WANT_IN(E.text, "cannot run /etc/passwd: permission denied");
    spec = spec_of(3, (const char *const[]){"sh", NULL});
    spec.cwd = "/no/such/folder";
    run_spec(&spec);
    WANT(E.e == ERR_NOTFOUND);
    WANT_IN(E.text, "working directory /no/such/folder");
    spec = spec_of(4, (const char *const[]){"sh", NULL});
    spec.name = "../x";
    run_spec(&spec);
    WANT(E.e == ERR_INVALID);
    char *big = malloc(SUP_MESSAGE_BYTES_MAX);
    memset(big, 'a', SUP_MESSAGE_BYTES_MAX - 1);
    big[SUP_MESSAGE_BYTES_MAX - 1] = 0;
    spec = spec_of(5, (const char *const[]){"sh", big, NULL});
    WANT(sup_start(E.c, &spec) == ERR_LIMIT);
    free(big);
    RUN(6, "sleep", "1000");
    spec = spec_of(6, (const char *const[]){"sh", NULL});
    run_spec(&spec);
    WANT(E.e == ERR_EXISTS);
    E.has_sockets = false;
    sup_sockets(E.c, 99, 1, 1);
    WAIT(E.has_sockets);
    WANT(E.n == 0);
    exec_in(99, "true", 1000);
    WANT(E.e == ERR_NOTFOUND);
    script_done(0);
}

static void script_exec(void)
{
    SHELL(1, "echo mark > mark; sleep 1000");
    exec_in(1, "echo $X; uname -n; echo to err >&2; exit 4", 10000);
    WANT(E.e == OK && WEXITSTATUS(E.status) == 4);
    WANT_IN(E.output, "some value\n");
    WANT_IN(E.output, "to err\n");
    if (E.caps.namespaces) {
        WANT_IN(E.output, "replica-1\n");
        exec_in(1, "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm", 10000);
        WANT_IN(E.output, "weir: init");
    }
    uint64_t before = mono_ns();
    exec_in(1, "echo first; sleep 1000", 200);
    WANT(E.e == ERR_TIMEOUT && WIFSIGNALED(E.status) && mono_ns() - before < 5000000000ull);
    WANT_IN(E.output, "first");
    exec_in(1, "head -c 300000 /dev/zero | tr '\\0' x", 10000);
    WANT(E.e == OK && E.status == 0 && strlen(E.output) == SUP_EXEC_OUTPUT_MAX);
    E.has_exec = false;
    WANT(sup_exec(E.c, 1, 5, (const char *const[]){"no-such-program", NULL}, 1000) == OK);
    WAIT(E.has_exec);
    WANT(E.e == OK && WEXITSTATUS(E.status) == 127);
    WANT_IN(E.output, "not found in PATH");
    if (E.caps.seccomp) {
        exec_in(1, "grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status", 10000);
        WANT_IN(E.output, "NoNewPrivs:\t1");
        WANT_IN(E.output, "Seccomp:\t2");
    }
    script_done(0);
}

/* Connects a socket made in the replica's namespace and returns what the server there says. */
static const char *through_socket(uint64_t id, int port)
{
    static char text[128];
    E.has_sockets = false;
    sup_sockets(E.c, id, 1, 3);
    WAIT(E.has_sockets);
    WANT(E.n == 3);
    struct sockaddr_in a = ip4(0x7f000001, port);
    int fd = E.fds[0];
    (void)fcntl(fd, F_SETFL, 0);
    WANT(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    for (int i = 0; i < 3; i++)
        close(E.fds[i]);
    return text;
}

static void script_sockets(void)
{
    if (!E.caps.namespaces)
        script_skip("two replicas on one port need namespaces");
    RUN(1, self_path, "work", "serve", "80", "first");
    WANT_IN(read_until(E.rep.out_fd, "\n"), "listening");
    RUN(2, self_path, "work", "serve", "80", "second");
    WANT_IN(read_until(E.rep.out_fd, "\n"), "listening");
    for (int i = 0; i < 20; i++) {
        WANT(strcmp(through_socket(1, 80), "first") == 0);
        WANT(strcmp(through_socket(2, 80), "second") == 0);
    }
    /* As another user: the right to listen below 1024 is kept. */
    if (!E.caps.user_namespace) {
        const char *const argv[] = {self_path, "work", "serve", "80", "third", NULL};
        struct sup_spec spec = spec_of(3, argv);
        spec.uid = spec.gid = 65534;
        run_spec(&spec);
        WANT(E.e == OK);
        WANT_IN(read_until(E.rep.out_fd, "\n"), "listening");
        WANT(strcmp(through_socket(3, 80), "third") == 0);
        exec_in(3, "id -u; id -G; grep Cap /proc/self/status", 10000);
        WANT_IN(E.output, "65534\n65534\n");
        WANT_IN(E.output, "CapEff:\t0000000000000400");
        WANT_IN(E.output, "CapBnd:\t0000000000000400");
        sup_signal(E.c, 3, SIGTERM); /* init may signal another user's process */
        WANT_EXITED(WTERMSIG(E.status) == SIGTERM);
    }
    script_done(0);
}

/* One connection from the replica's listener: where it was going. */
static void accept_one(int lfd, uint32_t want_ip, int want_port)
{
    struct pollfd p = {lfd, POLLIN, 0};
    WANT(poll(&p, 1, WAIT_MS) == 1);
    int fd = accept(lfd, NULL, NULL);
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    WANT(fd >= 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
    WANT(ntohl(a.sin_addr.s_addr) == want_ip && ntohs(a.sin_port) == want_port);
    WANT(write(fd, "service", 7) == 7);
    close(fd);
}

static void script_lookup(void)
{
    if (E.caps.net != SUP_NET_LOOKUP)
        script_skip("BPF sk_lookup");
    int host = listen_on(0x7f000001, 0); /* something on the host that must not be reached */
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    WANT(host >= 0 && getsockname(host, (struct sockaddr *)&a, &n) == 0);
    char port[16];
    snprintf(port, sizeof port, "%d", ntohs(a.sin_port));
    RUN(1, self_path, "work", "lookup", port);
    WANT(E.rep.listen_fd >= 0);
    accept_one(E.rep.listen_fd, 0x7fc80102, 80);
    accept_one(E.rep.listen_fd, 0x7fc80103, 5432);
    WANT_IN(read_until(E.rep.out_fd, NULL), "own own\nservice80 service\nservice5432 service\nhost Connection refused\n");
    WAIT(E.has_exited);

    SHELL(2, "grep -c : /proc/net/dev; grep lo: /proc/net/dev; cat /proc/net/route; echo end");
    const char *out = read_until(E.rep.out_fd, NULL);
    WANT(strncmp(out, "1\n", 2) == 0); /* loopback and nothing else, and no route to anywhere */
    WANT_IN(out, "Metric");
    WANT(strstr(out, "0000000") == NULL || strstr(out, "lo:") != NULL);

    /* Nobody holds the listener any more: refused, not stuck. */
    close(E.rep.listen_fd);
    script_done(0);
}

/* A UDP socket, and no second one on its address; TCP's ports are others. */
static void listen_dgram_twice(uint64_t ns_id, struct addr a)
{
    int type = 0;
    socklen_t n = sizeof type;
    E.has_listening = false;
    sup_listen_dgram(E.c, 180, &a, ns_id);
    WAIT(E.has_listening);
    WANT(E.e == OK && E.n == 1);
    WANT(getsockopt(E.fds[0], SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_DGRAM);
    close(E.fds[0]); /* sup has it still */
    E.has_listening = false;
    sup_listen_dgram(E.c, 181, &a, ns_id);
    WAIT(E.has_listening);
    WANT(E.e == ERR_INUSE);
    E.has_listening = false;
    sup_listen(E.c, 182, &a, ns_id, 1);
    WAIT(E.has_listening);
    WANT(E.e == OK);
    close(E.fds[0]);
    for (uint64_t token = 180; token <= 182; token += 2)
        sup_unlisten(E.c, token);
    E.has_listening = false;
    sup_listen_dgram(E.c, 183, &a, ns_id);
    WAIT(E.has_listening);
    WANT(E.e == OK);
}

/* A workload that asks at once is not refused: the socket is there before it runs, and the engine gets that very one. */
static void script_early_port(void)
{
    if (!E.caps.namespaces)
        script_skip("listeners inside namespaces");
    static const char script[] = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 53)); s.send(b'early'); print(s.recv(9).decode(), flush=True)";
    struct sup_spec spec = spec_of(1, (const char *const[]){"python3", "-c", script, NULL});
    spec.early_port = 53;
    run_spec(&spec);
    WANT(E.e == OK && E.rep.pid > 0);
    struct addr a = addr_ip4(0x7f000001, 53);
    E.has_listening = false;
    sup_listen_dgram(E.c, 77, &a, 1);
    WAIT(E.has_listening);
    WANT(E.e == OK && E.n == 1);
    int fd = E.fds[0];
    char text[16];
    struct sockaddr_in from;
    socklen_t from_n = sizeof from;
    struct pollfd p = {fd, POLLIN, 0};
    WANT(poll(&p, 1, 10000) == 1);
    ssize_t n = recvfrom(fd, text, sizeof text, 0, (struct sockaddr *)&from, &from_n);
    WANT(n == 5 && memcmp(text, "early", 5) == 0);
    WANT(sendto(fd, "answer", 6, 0, (struct sockaddr *)&from, from_n) == 6);
    WANT_EXITED(E.status == 0);
    close(fd);
    script_done(0);
}

static void script_listen_ns(void)
{
    if (!E.caps.namespaces)
        script_skip("listeners inside namespaces");
    RUN(1, self_path, "work", "sleep");
    struct addr a = addr_ip4(0x7f800005, 8080);
    E.has_listening = false;
    sup_listen(E.c, 77, &a, 1, 1);
    WAIT(E.has_listening);
    WANT(E.e == OK && E.n == 1);
    int lfd = E.fds[0];
    E.has_listening = false;
    sup_listen(E.c, 78, &a, 1, 1);
    WAIT(E.has_listening);
    WANT(E.e == ERR_INUSE);
    WANT_IN(E.text, "port 8080 on 127.128.0.5 inside replica-1");
    if (E.caps.net != SUP_NET_LOOKUP) { /* with it, the one listener gets these connections */
        E.has_exec = false;
        WANT(sup_exec(E.c, 1, 5, (const char *const[]){self_path, "work", "call", "7f800005", "8080", NULL}, 10000) == OK);
        accept_one(lfd, 0x7f800005, 8080);
        WAIT(E.has_exec);
    }
    sup_unlisten(E.c, 77);
    close(lfd);
    E.has_listening = false;
    sup_listen(E.c, 79, &a, 1, 1);
    WAIT(E.has_listening);
    WANT(E.e == OK);
    listen_dgram_twice(1, addr_ip4(0x7f000001, 53));
    script_done(0);
}

static void script_listen(void)
{
    int taken = listen_on(0x7f000001, 0);
    struct sockaddr_in in;
    socklen_t n = sizeof in;
    WANT(taken >= 0 && getsockname(taken, (struct sockaddr *)&in, &n) == 0);
    struct addr a = addr_ip4(0x7f000001, ntohs(in.sin_port));
    sup_listen(E.c, 1, &a, 0, 2);
    WAIT(E.has_listening);
    char holder[128];
    snprintf(holder, sizeof holder, "port %u on 127.0.0.1 is held by sup_test (pid %d); stop it or choose another port", a.port, (int)getpid());
    WANT(E.e == ERR_INUSE && E.n == 0);
    WANT_IN(E.text, holder);
    close(taken);
    E.has_listening = false;
    sup_listen(E.c, 2, &a, 0, 2);
    WAIT(E.has_listening);
    WANT(E.e == OK && E.n == 2);
    for (int i = 0; i < 2; i++)
        close(E.fds[i]);
    int caller = socket(AF_INET, SOCK_STREAM, 0); /* sup still holds them: the backlog takes the call */
    WANT(connect(caller, (struct sockaddr *)&in, sizeof in) == 0);
    close(caller);
    E.has_listening = false;
    sup_listen(E.c, 3, &a, 0, 1); /* SO_REUSEPORT does not let a second one in */
    WAIT(E.has_listening);
    WANT(E.e == ERR_INUSE);
    WANT_IN(E.text, "is held by weir: sup (pid ");
    sup_unlisten(E.c, 2);
    E.has_listening = false;
    sup_listen(E.c, 4, &a, 0, 1);
    WAIT(E.has_listening);
    WANT(E.e == OK && E.n == 1);
    struct addr far;
    WANT(addr_parse(SLICE("192.0.2.1"), 8080, &far) == OK);
    E.has_listening = false;
    sup_listen(E.c, 5, &far, 0, 1);
    WAIT(E.has_listening);
    WANT(E.e != OK);
    WANT_IN(E.text, "address 192.0.2.1 is not one of this machine's");
    listen_dgram_twice(0, a = addr_ip4(0x7f000035, a.port));
    script_done(0);
}

static void script_isolation(void)
{
    if (!E.caps.namespaces)
        script_skip("isolation");
    static const char script[] =
        "touch /etc/weir-was-here 2>/dev/null && echo BAD etc; touch /weir-was-here 2>/dev/null && echo BAD root;"
        "touch inside && echo cwd writable; touch /tmp/x && [ \"$(find /tmp -maxdepth 1 -name x)\" ] && echo tmp writable; touch /run/x && echo run writable;"
        "touch /dev/shm/x && echo shm writable; echo data: $(ls -A .weir); touch .weir/x 2>/dev/null && echo BAD data;"
        "cat /etc/hosts; cat /etc/resolv.conf; cat /etc/weir-marker 2>/dev/null; echo x > /etc/hosts 2>/dev/null && echo BAD hosts;"
        "echo x > /dev/null && echo null writable; ls /dev | tr '\\n' ' '; echo; [ -b /dev/vda ] && echo BAD disk;"
        "mount -t tmpfs x /mnt 2>/dev/null && echo BAD mount; umount /tmp 2>/dev/null && echo BAD umount; unshare -U true 2>/dev/null && echo BAD unshare;"
        "unshare -n true 2>/dev/null && echo BAD unshare net; hostname changed 2>/dev/null && [ $(uname -n) = changed ] && echo BAD hostname;"
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper; do ( : > $f ) 2>/dev/null && echo BAD $f; done;"
        "[ $(ls -d /proc/[0-9]* | wc -l) -lt 10 ] && echo few processes; grep CapEff /proc/self/status; umask; ulimit -n; [ \"$(ulimit -n)\" = \"$(ulimit -Hn)\" ] && echo raised;"
        "ls /proc/self/fd | wc -l; id -u; chroot / true 2>/dev/null && echo BAD chroot; mknod /tmp/d b 1 1 2>/dev/null && echo BAD mknod; kill -9 1; kill -STOP 1;"
        "[ -s /proc/kcore ] && echo BAD kcore; for f in environ maps mem fd/3; do [ -r /proc/1/$f ] && head -c 1 /proc/1/$f >/dev/null 2>&1 && echo BAD init $f; done;"
        "for f in fd/3 root cwd exe ns/net; do readlink /proc/1/$f >/dev/null 2>&1 && echo BAD init $f; done; echo end";
    char hosts[4200], resolv[4200];
    snprintf(hosts, sizeof hosts, "%s/.weir/hosts", E.dir);
    snprintf(resolv, sizeof resolv, "%s/.weir/resolv", E.dir);
    struct sup_spec spec = spec_of(1, (const char *const[]){"sh", "-c", script, NULL});
    spec.hosts_path = hosts;
    spec.resolv_path = resolv;
    run_spec(&spec);
    WANT(E.e == OK);
    const char *out = read_until(E.rep.out_fd, "end\n");
    const char *const parts[] = {"cwd writable", "tmp writable", "run writable", "shm writable", "data:\n", "127.128.0.1 inventory", "nameserver 127.0.0.53",
                                 "null writable", "few processes", "CapEff:\t0000000000000", "0022", "raised",
                                 "raised\n4\n" /* descriptors: 0, 1, 2, and ls's own */, "end"};
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        WANT_IN(out, parts[i]);
    if (strstr(out, "BAD")) {
        fprintf(stderr, "%s\n", out);
        script_failed("something is open", __LINE__);
    }
    script_done(0);
}

/* The sandbox must not be in the way of what language run times do: threads, children, sockets. */
static void script_languages(void)
{
    static const char python[] = "import threading,subprocess,socket,os,tempfile,multiprocessing\n"
                                 "s=socket.socket(); s.bind(('127.0.0.1',80)); s.listen()\n"
                                 "def f():\n  c=socket.create_connection(('localhost',80)); c.send(b'x'); c.close()\n"
                                 "t=threading.Thread(target=f); t.start(); a,_=s.accept(); print(a.recv(1)); t.join()\n"
                                 "print(subprocess.check_output(['echo','child']), tempfile.mkstemp()[1][:5], len(os.urandom(4)))\n"
                                 "q=multiprocessing.Queue(); p=multiprocessing.Process(target=q.put,args=(1,)); p.start(); print('got',q.get()); p.join()\n";
    static const char node[] = "const h=require('http');h.createServer((q,r)=>r.end('hi')).listen(80,()=>h.get('http://127.0.0.1/',r=>r.on('data',d=>{console.log(''+d);"
                               "require('child_process').exec('echo child',(e,o)=>{require('fs').readFile('/etc/hostname',()=>{console.log(o.trim()+' got');process.exit(0)})})})))";
    int ran = 0;
    if (!E.caps.namespaces)
        script_skip("port 80 of the machine is not ours to listen on");
    if (access("/usr/bin/python3", X_OK) == 0) {
        RUN(1, "/usr/bin/python3", "-c", python);
        WANT_IN(read_until(E.rep.out_fd, NULL), "b'x'\nb'child\\n' /tmp/ 4\ngot 1\n");
        ran++;
    }
    if (access("/usr/bin/node", X_OK) == 0) {
        RUN(2, "/usr/bin/node", "-e", node);
        WANT_IN(read_until(E.rep.out_fd, NULL), "hi\nchild got\n");
        ran++;
    }
    if (!ran)
        script_skip("neither python3 nor node is installed");
    script_done(0);
}

static void script_limits(void)
{
    if (E.caps.cgroup == 0)
        script_skip("cgroups");
    const char *const eat[] = {self_path, "work", "eat", "400", NULL};
    struct sup_spec spec = spec_of(1, eat);
    spec.memory_bytes_max = 48 << 20;
    spec.cpu_milli_max = 1500;
    spec.cpu_milli_share = 250;
    run_spec(&spec);
    WANT(E.e == OK);
    WANT_EXITED(E.oom && WIFSIGNALED(E.status) && WTERMSIG(E.status) == SIGKILL);
    const char *const forks[] = {self_path, "work", "fork", "200", NULL};
    spec = spec_of(2, forks);
    spec.pids_max = 10;
    run_spec(&spec);
    WANT(E.e == OK);
    const char *forked = read_until(E.rep.out_fd, NULL);
#ifdef __SANITIZE_THREAD__ /* its own thread counts as well: one or two for each process */
    WANT_IN(forked, "forked ");
    WANT(strtol(forked + strlen("forked "), NULL, 10) < 9);
#else
    WANT_IN(forked, "forked 9\n"); /* and itself */
#endif
    WANT_EXITED(!E.oom);
    script_done(0);
}

static void write_number(const char *name, long v)
{
    char path[4200], tmp[4200];
    snprintf(path, sizeof path, "%s/%s", E.dir, name);
    snprintf(tmp, sizeof tmp, "%s/%s.new", E.dir, name);
    FILE *f = fopen(tmp, "w");
    WANT(f != NULL);
    fprintf(f, "%ld", v);
    fclose(f);
    WANT(rename(tmp, path) == 0);
}

static long read_number(const char *dir, const char *name)
{
    char path[4200];
    long v = -1;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%ld", &v) != 1)
        v = -1;
    if (f)
        fclose(f);
    return v;
}

/* Three engines, one after another. The workload writes on, and ends with 7 when the file "go" is there. */
static void script_adopt(void)
{
    if (E.restarts == 0) {
        struct addr a = addr_ip4(0x7f000001, 0);
        int fd = listen_on(0x7f000001, 0);
        struct sockaddr_in in;
        socklen_t n = sizeof in;
        WANT(getsockname(fd, (struct sockaddr *)&in, &n) == 0);
        close(fd);
        a.port = ntohs(in.sin_port);
        sup_listen(E.c, 42, &a, 0, 2);
        WAIT(E.has_listening);
        WANT(E.e == OK);
        SHELL(1, "while [ ! -e go ]; do echo tick; sleep 0.05; done; echo last words; exit 7");
        write_number("pid", E.rep.pid);
        write_number("port", a.port);
        write_number("died", (long)(mono_ns() / 1000000));
        kill(getpid(), SIGKILL);
    }
    WANT(E.adopted_n == 1 && E.adopted[0].id == 1 && strcmp(E.adopted_label[0], "label of 1") == 0);
    struct sup_replica *r = &E.adopted[0];
    WANT(r->pid == read_number(E.dir, "pid") && r->started_wall_ns > 0);
    WANT(E.listener_after == 1);
    WANT(E.listener_token == 42 && E.listener_n == 2 && E.listener_addr.port == read_number(E.dir, "port"));
    if (E.restarts == 1) {
        WANT(mono_ns() / 1000000 - (uint64_t)read_number(E.dir, "died") < 1000);
        WANT(!r->exited && kill(r->pid, 0) == 0);
        WANT_IN(read_until(r->out_fd, "tick\ntick"), "tick");
        exec_in(1, "echo $X", 10000);
        WANT_IN(E.output, "some value");
        write_number("go", 1);
        _exit(1); /* the next one comes after 100 ms: the workload ends meanwhile */
    }
    if (!r->exited) {
        WAIT(E.has_exited);
        r->exit_status = E.status;
    }
    WANT(WEXITSTATUS(r->exit_status) == 7);
    WANT_IN(read_until(r->out_fd, NULL), "last words");
    struct sockaddr_in in = ip4(0x7f000001, E.listener_addr.port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    WANT(connect(fd, (struct sockaddr *)&in, sizeof in) == 0);
    script_done(0);
}

static void script_many(void)
{
    for (uint64_t id = 1; id <= 20; id++) {
        struct sup_spec spec = spec_of(id, (const char *const[]){"true", NULL});
        WANT(sup_start(E.c, &spec) == OK);
    }
    uint64_t end = mono_ns() + WAIT_MS * 1000000ull;
    while (E.exits < 20 && mono_ns() < end)
        loop_turn(E.loop, 10);
    WANT(E.exits == 20 && E.status == 0);
    for (uint64_t id = 1; id <= 20; id++)
        sup_forget(E.c, id);
    RUN(1, "true"); /* a forgotten id may be used again */
    script_done(0);
}

/* ---- upgrades: the same program is the new engine, and knows it by being asked to rehearse ---- */

enum { NEW_GOOD, NEW_DEAF, NEW_UNABLE, NEW_OTHER_PROTOCOL, NEW_DIES_TAKING };

static void upgrade_to(const char *path, uint32_t ready_ms)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    WANT(fd >= 0);
    sup_upgrade(E.c, fd, path, ready_ms, 2000);
    close(fd);
}

static void wait_failure(int n, const char *text)
{
    uint64_t end = mono_ns() + WAIT_MS * 1000000ull;
    while (E.failures < n && mono_ns() < end)
        loop_turn(E.loop, 20);
    WANT(E.failures == n);
    WANT_IN(E.text, text);
}

static void upgrade_begin(void)
{
    struct addr a = {.family = ADDR_UNIX};
    snprintf(a.path, sizeof a.path, "%s/s", E.dir);
    sup_listen(E.c, 42, &a, 0, 1);
    WAIT(E.has_listening);
    WANT(E.e == OK);
    SHELL(1, "while [ ! -e go ]; do echo tick; sleep 0.05; done; exit 7");
    write_number("pid", E.rep.pid);
    write_number("old", getpid());
}

static void adopted_is_whole(void)
{
    WANT(E.adopted_n == 1 && E.adopted[0].id == 1 && !E.adopted[0].exited && E.adopted[0].pid == read_number(E.dir, "pid"));
    WANT(E.listener_token == 42 && E.listener_after >= 1);
    WANT_IN(read_until(E.adopted[0].out_fd, "tick"), "tick");
}

/* The old engine: hands over, may still have sockets made, may start nothing, and ends. */
static void upgrade_old(void)
{
    struct sup_spec spec = spec_of(2, (const char *const[]){"true", NULL});
    upgrade_begin();
    write_number("mode", NEW_GOOD);
    WANT(E.kept_n == 0);
    sup_keep(E.c, SLICE("something else, which is longer"));
    sup_keep(E.c, slice_of("one\0two", 7));
    write_number("kept", 1);
    upgrade_to(self_path, 10000);
    WAIT(E.releasing);
    sup_released(E.c, OK, NULL);
    WAIT(E.draining);
    sup_keep(E.c, SLICE("not in charge"));
    E.has_sockets = E.has_started = false;
    WANT(sup_start(E.c, &spec) == OK); /* not heard */
    sup_sockets(E.c, 1, 5, 2);
    WAIT(E.has_sockets);
    WANT(E.n == 2 || E.caps.net == SUP_NET_HOST);
    WANT(!E.has_started);
    write_number("left", 1);
    _exit(0);
}

static _Noreturn void upgrade_new_good(void)
{
    sup_prepared(E.c, OK, NULL);
    WAIT(E.ready);
    adopted_is_whole();
    WANT(E.kept_n == (read_number(E.dir, "kept") == 1) && E.kept_right == (E.kept_n == 1));
    bool old = read_number(E.dir, "old") == E.history.leaving_pid;
    WANT(E.history.restarts == 0 && E.history.upgrades == 1 && !E.history.again && (old || E.history.leaving_pid == 0));
    sup_serving(E.c);
    if (old) {
        WAIT(E.alone);
        WANT(read_number(E.dir, "left") == 1);
    }
    RUN(3, "true");
    write_number("go", 1);
    E.exits = 0;
    sup_forget(E.c, 1);
    upgrade_to("/bin/false", 10000); /* an upgrade after an upgrade is one like any */
    wait_failure(1, "ended with status 1 before it was ready");
    script_done(0);
}

static void upgrade_new(void)
{
    struct sup_spec spec = spec_of(4, (const char *const[]){"sleep", "1000", NULL});
    switch (read_number(E.dir, "mode")) {
    case NEW_GOOD: upgrade_new_good();
    case NEW_UNABLE: sup_prepared(E.c, ERR_INVALID, "the objects are of another time"); break;
    case NEW_DIES_TAKING:
        sup_prepared(E.c, OK, NULL);
        WAIT(E.ready);
        run_spec(&spec);
        kill(getpid(), SIGKILL);
        break;
    default: break; /* NEW_DEAF */
    }
    for (;;)
        loop_turn(E.loop, 100);
}

/* Candidates that come to nothing, one after the other: the old engine is never asked for anything. */
static void upgrade_bad(void)
{
    char text[4200];
    upgrade_begin();
    upgrade_to("/bin/false", 10000);
    wait_failure(1, "ended with status 1 before it was ready");
    snprintf(text, sizeof text, "%s/pid", E.dir);
    upgrade_to(text, 10000);
    wait_failure(2, "can't be executed: ");
    write_number("mode", NEW_DEAF);
    upgrade_to(self_path, 300);
    upgrade_to(self_path, 300);
    wait_failure(3, "an upgrade is in progress: the new engine");
    wait_failure(4, "was not ready in time");
    write_number("mode", NEW_UNABLE);
    upgrade_to(self_path, 10000);
    wait_failure(5, "the objects are of another time");
    write_number("mode", NEW_OTHER_PROTOCOL);
    upgrade_to(self_path, 10000);
    wait_failure(6, "(weir 99.0) speaks version 99");
    WANT_IN(E.text, "(weir " WEIR_VERSION ") speaks version 5");
    WANT(!E.releasing && !E.has_exited);
    exec_in(1, "echo $X", 10000);
    WANT_IN(E.output, "some value");
    script_done(0);
}

static void upgrade_refused(void)
{
    upgrade_begin();
    write_number("mode", NEW_GOOD);
    upgrade_to(self_path, 10000);
    WAIT(E.releasing);
    sup_released(E.c, ERR_IO, "no room on the disk");
    wait_failure(1, "no room on the disk");
    E.has_started = false;
    RUN(2, "true"); /* still in charge */
    script_done(0);
}

static void upgrade_back(void)
{
    upgrade_begin();
    write_number("mode", NEW_DIES_TAKING);
    upgrade_to(self_path, 10000);
    WAIT(E.releasing);
    E.ready = false;
    sup_released(E.c, OK, NULL);
    WAIT(E.ready);
    WANT(E.history.again && E.history.restarts == 0 && E.history.leaving_pid == 0);
    E.adopted_n = MIN(E.adopted_n, 1); /* the other engine's replica is there as well: it ran */
    adopted_is_whole();
    wait_failure(1, "was ended by signal 9 (Killed) before it served");
    script_done(0);
}

static void script_upgrade(const char *how)
{
    if (E.rehearsing)
        upgrade_new();
    if (E.restarts)
        script_failed("was restarted", __LINE__);
    if (strcmp(how, "") == 0)
        upgrade_old();
    if (strcmp(how, "-bad") == 0)
        upgrade_bad();
    if (strcmp(how, "-refused") == 0)
        upgrade_refused();
    if (strcmp(how, "-back") == 0)
        upgrade_back();
    upgrade_begin(); /* -stop, -orphan, -orphan-late */
    write_number("mode", strcmp(how, "-stop") == 0 ? NEW_DEAF : NEW_GOOD);
    upgrade_to(self_path, 10000);
    if (strcmp(how, "-orphan") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(how, "-orphan-late") == 0) {
        WAIT(E.releasing);
        kill(getpid(), SIGKILL);
    }
    write_number("workload", read_number(E.dir, "pid"));
    write_number("engine", getpid());
    WAIT(E.stop);
    wait_failure(1, "the node is being stopped");
    script_done(5);
}

/* Runs a workload with children and waits to be told, or to be killed with everything. */
static void script_idle(const char *how)
{
    if (E.restarts > 0)
        script_failed("was restarted", __LINE__);
    char script[128]; /* the sleeps carry sup's PID: another run of this test may be going on */
    snprintf(script, sizeof script, "setsid sleep 1002.%d & sleep 1001.%d & echo up; wait", (int)getppid(), (int)getppid());
    SHELL(1, script);
    WANT_IN(read_until(E.rep.out_fd, "up"), "up");
    write_number("workload", E.rep.pid);
    write_number("engine", getpid());
    for (;;) {
        loop_turn(E.loop, 100);
        if (E.stop && strcmp(how, "polite") == 0)
            script_done(5);
        if (E.stop && strcmp(how, "dies") == 0)
            _exit(3);
    }
}

static void script_privileges(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    int good = 0;
    while (f && fgets(line, sizeof line, f))
        if (strcmp(line, "CapEff:\t0000000000000000\n") == 0 || strcmp(line, "CapPrm:\t0000000000000000\n") == 0 || strcmp(line, "NoNewPrivs:\t1\n") == 0)
            good++;
    if (f)
        fclose(f);
    WANT(good == 3);
    char comm[64] = "";
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)getppid());
    f = fopen(path, "r");
    WANT(f && fgets(comm, sizeof comm, f) && strcmp(comm, "weir: sup") == 0);
    fclose(f);
    script_done(0);
}

/* Run with sudo below somebody's closed home folder: the engine reaches its data, and has no other right than that. */
static void script_closed(void)
{
    char path[4200], line[256];
    bool only = false;
    snprintf(path, sizeof path, "%s/.weir/hosts", E.dir);
    WANT(access(path, R_OK) == 0);
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        only = only || strcmp(line, "CapPrm:\t0000000000000002\n") == 0;
    if (f)
        fclose(f);
    WANT(only);
    script_done(0);
}

/* An engine of another time says so in the words of all times. */
static _Noreturn void other_protocol(int fd)
{
    struct sup_chan c;
    struct buf b = {0};
    sup_chan_init(&c, fd);
    sup_put_u32(&b, 99);
    sup_put_str(&b, "99.0");
    sup_put_str(&b, "and more");
    (void)!sup_chan_send(&c, SUP_HELLO, &b, NULL, 0);
    for (;;)
        pause();
}

static int engine_main(const char *script, const char *dir)
{
    const char *fd = getenv(SUP_FD_ENV);
    alarm(120);
    (void)prctl(PR_SET_NAME, "sup_test", 0, 0, 0);
    if (strcmp(script, "config") == 0)
        return SUP_EXIT_CONFIG;
    E.dir = dir;
    snprintf(self_path, sizeof self_path, "%s/sup_test", dir); /* copy_self() put it there */
    E.loop = loop_new("engine");
    if (read_number(dir, "mode") == NEW_OTHER_PROTOCOL && read_number(dir, "old") != getpid())
        other_protocol((int)strtol(fd ? fd : "-1", NULL, 10));
    E.c = sup_client_new(E.loop, (int)strtol(fd ? fd : "-1", NULL, 10), &ops, NULL);
    bool upgrade = strncmp(script, "upgrade", 7) == 0;
    while (upgrade && !E.rehearsing && !E.ready)
        loop_turn(E.loop, 100);
    if (upgrade)
        script_upgrade(script + 7);
    WAIT(E.ready);
    static const struct {
        const char *name;
        void (*fn)(void);
    } scripts[] = {{"basic", script_basic},         {"refusals", script_refusals},   {"exec", script_exec},         {"sockets", script_sockets},
                   {"lookup", script_lookup},       {"listen-ns", script_listen_ns}, {"early-port", script_early_port}, {"listen", script_listen},     {"isolation", script_isolation},
                   {"limits", script_limits},       {"adopt", script_adopt},         {"many", script_many},         {"privileges", script_privileges},
                   {"languages", script_languages}, {"closed", script_closed}};
    for (size_t i = 0; i < COUNT_OF(scripts); i++)
        if (strcmp(script, scripts[i].name) == 0)
            scripts[i].fn();
    script_idle(script);
    return 1;
}

/* ---- the tests' part ------------------------------------------------------------------------------------------------- */

enum how { AS_ROOT, CLOSED_HOME, AS_NOBODY, WITHOUT_NAMESPACES, WITHOUT_SETATTR, BARE_ETC };
static char work_dir[128];

static void become_nobody(void)
{
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
        _exit(SKIPPED);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* as after an exec */
}

/* In a mount namespace of this process: an /etc without hosts, and with resolv.conf as systemd-resolved has it. */
static void bare_etc(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("tmpfs", "/etc", "tmpfs", 0, NULL) < 0 ||
        symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf") < 0)
        _exit(SKIPPED);
    int fd = open("/etc/weir-marker", O_CREAT | O_WRONLY, 0644);
    (void)!write(fd, "still here\n", 11);
    close(fd);
}

static void make_file(const char *name, const char *text)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", work_dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Workloads of another user run this program too, and the build may be where they cannot enter: in root's home. */
static void copy_self(void)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/sup_test", work_dir);
    int from = open(self_path, O_RDONLY | O_CLOEXEC), to = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
    assert_true(from >= 0 && to >= 0);
    ssize_t n;
    while ((n = sendfile(to, from, NULL, 1 << 20)) > 0)
        ;
    assert_int_equal(n, 0);
    assert_int_equal(fchmod(to, 0755), 0);
    close(from);
    close(to);
}

static pid_t sup_begin(const char *script, enum how how)
{
    snprintf(work_dir, sizeof work_dir, "/tmp/sup-test-XXXXXX");
    assert_non_null(mkdtemp(work_dir));
    char data[256];
    snprintf(data, sizeof data, "%s/.weir", work_dir);
    assert_int_equal(mkdir(data, 0755), 0);
    make_file(".weir/hosts", "127.128.0.1 inventory\n");
    make_file(".weir/resolv", "nameserver 127.0.0.53\n");
    copy_self();
    assert_int_equal(chmod(work_dir, how == CLOSED_HOME ? 0700 : 0777), 0);
    if (how == CLOSED_HOME && chown(work_dir, 65534, 65534) < 0)
        skip();
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    char *argv[] = {(char *)(uintptr_t)"sup_test", (char *)(uintptr_t)"engine", (char *)(uintptr_t)script, work_dir, NULL};
    struct sup_conf conf = {argv, data, "test"};
    if (how == AS_NOBODY)
        become_nobody();
    if (how == BARE_ETC)
        bare_etc();
    caps_no_namespaces = how == WITHOUT_NAMESPACES;
    mounts_setattr_absent = how == WITHOUT_SETATTR;
    int status = sup_main(&conf);
    if (mem_count(MEM_SUP) != 0 || mem_count(MEM_BUF) != 0) {
        fprintf(stderr, "sup ended with %llu + %llu allocations\n", (unsigned long long)mem_count(MEM_SUP), (unsigned long long)mem_count(MEM_BUF));
        status = status ? status : 99;
    }
    _exit(status);
}

static void remove_work_dir(void)
{
    char command[256];
    const char *const argv[] = {"rm", "-rf", work_dir, NULL};
    snprintf(command, sizeof command, "/bin/rm");
    pid_t pid = fork();
    if (pid == 0) {
        execv(command, (char *const *)(uintptr_t)argv);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
}

/* The exit status of sup, within a minute. */
static int sup_wait(pid_t pid)
{
    int status = 0;
    for (int i = 0; i < 6000; i++) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        usleep(10000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fail_msg("sup did not end");
    return -1;
}

/* Groups of this sup that are left in any hierarchy. Looking also removes those of a sup that was killed. */
static int count_cgroups(pid_t pid)
{
    struct cgroup_root r;
    struct buf why = {0};
    int n = 0;
    cgroup_root_init(&r, "look", &why);
    for (int i = 0; i < CG_COUNT; i++) {
        char path[4200];
        if (!r.dir[i])
            continue;
        char *slash = strrchr(r.dir[i], '/');
        snprintf(path, sizeof path, "%.*s/weir-test-%d", (int)(slash - r.dir[i]), r.dir[i], (int)pid);
        n += access(path, F_OK) == 0;
    }
    cgroup_root_fini(&r);
    buf_free(&why);
    return n;
}

static void check_no_cgroups(pid_t pid)
{
    for (int i = 0; i < 500 && count_cgroups(pid) > 0; i++)
        usleep(10000); /* a process that is no longer seen may still be leaving its group */
    assert_int_equal(count_cgroups(pid), 0);
}

static void play(const char *script, enum how how)
{
    pid_t pid = sup_begin(script, how);
    int status = sup_wait(pid);
    remove_work_dir();
    check_no_cgroups(pid);
    if (status == SKIPPED)
        skip();
    assert_int_equal(status, 0);
}

static void test_basic(void **state) { play("basic", AS_ROOT); }
static void test_refusals(void **state) { play("refusals", AS_ROOT); }
static void test_exec(void **state) { play("exec", AS_ROOT); }
static void test_sockets(void **state) { play("sockets", AS_ROOT); }
static void test_lookup(void **state) { play("lookup", AS_ROOT); }
static void test_listen_ns(void **state) { play("listen-ns", AS_ROOT); }
static void test_early_port(void **state) { play("early-port", AS_ROOT); }
static void test_listen(void **state) { play("listen", AS_ROOT); }
static void test_isolation(void **state) { play("isolation", AS_ROOT); }
static void test_isolation_old_kernel(void **state) { play("isolation", WITHOUT_SETATTR); }
static void test_isolation_bare_etc(void **state) { play("isolation", BARE_ETC); }
static void test_limits(void **state) { play("limits", AS_ROOT); }
static void test_adopt(void **state) { play("adopt", AS_ROOT); }
static void test_many(void **state) { play("many", AS_ROOT); }
static void test_privileges(void **state) { play("privileges", AS_ROOT); }

static void test_closed_home(void **state) { play("closed", CLOSED_HOME); }
static void test_languages(void **state) { play("languages", AS_ROOT); }
static void test_nobody_languages(void **state) { play("languages", AS_NOBODY); }

static void test_nobody_basic(void **state) { play("basic", AS_NOBODY); }
static void test_nobody_exec(void **state) { play("exec", AS_NOBODY); }
static void test_nobody_sockets(void **state) { play("sockets", AS_NOBODY); }
static void test_nobody_listen_ns(void **state) { play("listen-ns", AS_NOBODY); }
static void test_nobody_early_port(void **state) { play("early-port", AS_NOBODY); }
static void test_nobody_isolation(void **state) { play("isolation", AS_NOBODY); }
static void test_nobody_adopt(void **state) { play("adopt", AS_NOBODY); }

static void test_host_basic(void **state) { play("basic", WITHOUT_NAMESPACES); }
static void test_host_exec(void **state) { play("exec", WITHOUT_NAMESPACES); }
static void test_host_adopt(void **state) { play("adopt", WITHOUT_NAMESPACES); }
static void test_host_refusals(void **state) { play("refusals", WITHOUT_NAMESPACES); }

static void test_config_error(void **state)
{
    pid_t pid = sup_begin("config", AS_ROOT);
    assert_int_equal(sup_wait(pid), 2);
    remove_work_dir();
}

/* True when no process pid is left, or only its entry. */
static bool is_gone(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return true;
    char *got = fgets(text, sizeof text, f);
    fclose(f);
    char *p = got ? strrchr(text, ')') : NULL;
    return !p || p[2] == 'Z' || p[2] == 'X';
}

static long wait_number(const char *name)
{
    for (int i = 0; i < 3000; i++) {
        long v = read_number(work_dir, name);
        if (v > 0)
            return v;
        usleep(10000);
    }
    fail_msg("%s was not written", name);
    return -1;
}

/* Processes whose command line holds text. */
static int count_processes(const char *text)
{
    int n = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[300], line[256] = "";
        snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        int fd = e->d_name[0] >= '1' && e->d_name[0] <= '9' ? open(path, O_RDONLY) : -1;
        if (fd < 0)
            continue;
        ssize_t got = read(fd, line, sizeof line - 1);
        close(fd);
        for (ssize_t i = 0; i < got; i++)
            if (line[i] == 0)
                line[i] = ' ';
        if (got > 0 && strstr(line, text))
            n++;
    }
    if (d)
        closedir(d);
    return n;
}

static void nothing_is_left(pid_t sup, pid_t engine, pid_t workload)
{
    char sleeps[2][64];
    for (int i = 0; i < 2; i++)
        snprintf(sleeps[i], sizeof sleeps[i], "sleep 100%d.%d", i + 1, (int)sup);
    for (int i = 0; i < 1000 && !(is_gone(engine) && is_gone(workload) && count_processes(sleeps[0]) + count_processes(sleeps[1]) == 0); i++)
        usleep(10000);
    assert_true(is_gone(engine));
    assert_true(is_gone(workload));
    assert_int_equal(count_processes(sleeps[0]), 0);
    assert_int_equal(count_processes(sleeps[1]), 0);
    check_no_cgroups(sup); /* of a killed sup: removed by the next one, which looks for this */
    remove_work_dir();
}

static void stop_with(const char *script, enum how how, int signals, int want)
{
    pid_t sup = sup_begin(script, how);
    pid_t workload = (pid_t)wait_number("workload"), engine = (pid_t)wait_number("engine");
    assert_int_equal(kill(sup, SIGTERM), 0);
    if (signals == 2) {
        usleep(200000);
        assert_int_equal(kill(sup, SIGINT), 0);
    }
    assert_int_equal(sup_wait(sup), want);
    nothing_is_left(sup, engine, workload);
}

static void test_stop(void **state) { stop_with("polite", AS_ROOT, 1, 5); }
static void test_stop_twice(void **state) { stop_with("deaf", AS_ROOT, 2, 128 + SIGINT); }
static void test_stop_engine_dies(void **state) { stop_with("dies", AS_ROOT, 1, 1); }

static void test_upgrade(void **state) { play("upgrade", AS_ROOT); }
static void test_nobody_upgrade(void **state) { play("upgrade", AS_NOBODY); }
static void test_host_upgrade(void **state) { play("upgrade", WITHOUT_NAMESPACES); }
static void test_upgrade_bad(void **state) { play("upgrade-bad", AS_ROOT); }
static void test_upgrade_refused(void **state) { play("upgrade-refused", AS_ROOT); }
static void test_upgrade_back(void **state) { play("upgrade-back", AS_ROOT); }
static void test_upgrade_orphan(void **state) { play("upgrade-orphan", AS_ROOT); }
static void test_upgrade_orphan_late(void **state) { play("upgrade-orphan-late", AS_ROOT); }
static void test_upgrade_stop(void **state) { stop_with("upgrade-stop", AS_ROOT, 1, 5); }
static void test_host_stop(void **state) { stop_with("polite", WITHOUT_NAMESPACES, 1, 5); }

static void kill_sup(enum how how)
{
    pid_t sup = sup_begin("polite", how);
    pid_t workload = (pid_t)wait_number("workload"), engine = (pid_t)wait_number("engine");
    assert_int_equal(kill(sup, SIGKILL), 0);
    assert_int_equal(sup_wait(sup), 128 + SIGKILL);
    nothing_is_left(sup, engine, workload);
}

static void test_kill_sup(void **state) { kill_sup(AS_ROOT); }
static void test_nobody_kill_sup(void **state) { kill_sup(AS_NOBODY); }
static void test_host_kill_sup(void **state) { kill_sup(WITHOUT_NAMESPACES); }

/* ---- messages -------------------------------------------------------------------------------------------------------- */

static void test_fields(void **state)
{
    struct buf b = {0};
    const char *const list[] = {"a", "", "ccc", NULL};
    struct addr a = addr_ip4(0x7f000001, 80), got;
    sup_put_u32(&b, 7);
    sup_put_u64(&b, 1ull << 60);
    sup_put_str(&b, "text");
    sup_put_str(&b, NULL);
    sup_put_strv(&b, list);
    sup_put_addr(&b, &a);
    sup_put_bytes(&b, SLICE("x\0y"));
    for (size_t n = 0; n <= b.n; n++) { /* every prefix: only the whole is good */
        struct sup_reader r = {b.p, n, false};
        uint32_t v = sup_get_u32(&r);
        uint64_t w = sup_get_u64(&r);
        const char *s = sup_get_str(&r), *null = sup_get_str(&r);
        const char **v3 = sup_get_strv(&r);
        got = sup_get_addr(&r);
        struct slice bytes = sup_get_bytes(&r);
        assert_int_equal(sup_get_end(&r), n == b.n);
        if (n == b.n) {
            assert_true(v == 7 && w == 1ull << 60 && strcmp(s, "text") == 0 && !null);
            assert_true(v3 && strcmp(v3[2], "ccc") == 0 && !v3[3] && addr_eq(&a, &got) && slice_eq(bytes, SLICE("x\0y")));
        }
        mem_free(v3);
    }
    buf_free(&b);
    struct sup_reader r = {"\xff\xff\xff\x7f", 4, false}; /* a count that nothing stands behind */
    assert_null(sup_get_strv(&r));
    assert_true(r.bad);
    r = (struct sup_reader){"\x02\0\0\0a\0\0", 7, false}; /* a NUL inside */
    assert_null(sup_get_str(&r));
    assert_true(r.bad);
}

static void test_channel(void **state)
{
    int pair[2], n = 0;
    struct sup_chan a, b;
    struct sup_in in;
    struct buf payload = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    sup_chan_init(&a, pair[0]);
    sup_chan_init(&b, pair[1]);
    sup_put_u32(&payload, 99);
    while (list_empty(&a.out)) /* until it has to queue */
        assert_int_equal((n++, sup_chan_send(&a, SUP_LISTEN, &payload, &pair[0], 1)), OK);
    int received = 0;
    for (enum err e; (e = sup_chan_recv(&b, &in)) != ERR_AGAIN || sup_chan_flush(&a) == ERR_AGAIN || received < n;) {
        if (e == ERR_AGAIN)
            continue;
        assert_int_equal(e, OK);
        assert_int_equal(in.type, SUP_LISTEN);
        assert_int_equal(in.fds_n, 1);
        assert_int_equal(sup_get_u32(&in.r), 99);
        sup_in_done(&in);
        received++;
    }
    assert_int_equal(received, n);
    struct sup_head h = {SUP_LISTEN, 1, 0, 0}; /* a repeated number */
    assert_int_equal(packet_send(pair[0], &h, sizeof h, NULL, 0), sizeof h);
    assert_int_equal(sup_chan_recv(&b, &in), ERR_SYNTAX);
    h = (struct sup_head){SUP_LISTEN, (uint32_t)n + 1, 8, 0}; /* a payload that is not there */
    assert_int_equal(packet_send(pair[0], &h, sizeof h, NULL, 0), sizeof h);
    assert_int_equal(sup_chan_recv(&b, &in), ERR_SYNTAX);
    assert_int_equal(packet_send(pair[0], "x", 1, NULL, 0), 1);
    assert_int_equal(sup_chan_recv(&b, &in), ERR_SYNTAX);
    sup_chan_fini(&a);
    assert_int_equal(sup_chan_recv(&b, &in), ERR_CLOSED);
    sup_chan_fini(&b);
    buf_free(&payload);
}

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self_path, sizeof self_path - 1);
    self_path[n > 0 ? n : 0] = 0;
    if (argc > 3 && strcmp(argv[1], "engine") == 0)
        return engine_main(argv[2], argv[3]);
    if (argc > 2 && strcmp(argv[1], "work") == 0) {
        int status = work(argv + 2);
        fflush(stdout);
        _exit(status); /* no leak check: its tracer thread would be refused by the sandbox */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields), cmocka_unit_test(test_channel), cmocka_unit_test(test_basic), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_exec), cmocka_unit_test(test_sockets), cmocka_unit_test(test_lookup), cmocka_unit_test(test_listen_ns), cmocka_unit_test(test_early_port),
        cmocka_unit_test(test_listen), cmocka_unit_test(test_isolation), cmocka_unit_test(test_isolation_old_kernel), cmocka_unit_test(test_isolation_bare_etc), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_adopt), cmocka_unit_test(test_many), cmocka_unit_test(test_privileges), cmocka_unit_test(test_config_error),
        cmocka_unit_test(test_stop), cmocka_unit_test(test_stop_twice), cmocka_unit_test(test_stop_engine_dies), cmocka_unit_test(test_kill_sup),
        cmocka_unit_test(test_closed_home), cmocka_unit_test(test_languages), cmocka_unit_test(test_nobody_languages), cmocka_unit_test(test_nobody_basic), cmocka_unit_test(test_nobody_exec), cmocka_unit_test(test_nobody_sockets),
        cmocka_unit_test(test_nobody_listen_ns), cmocka_unit_test(test_nobody_early_port), cmocka_unit_test(test_nobody_isolation), cmocka_unit_test(test_nobody_adopt),
        cmocka_unit_test(test_nobody_kill_sup), cmocka_unit_test(test_host_basic), cmocka_unit_test(test_host_exec), cmocka_unit_test(test_host_adopt),
        cmocka_unit_test(test_host_refusals), cmocka_unit_test(test_host_stop), cmocka_unit_test(test_host_kill_sup),
        cmocka_unit_test(test_upgrade), cmocka_unit_test(test_nobody_upgrade), cmocka_unit_test(test_host_upgrade), cmocka_unit_test(test_upgrade_bad),
        cmocka_unit_test(test_upgrade_refused), cmocka_unit_test(test_upgrade_back), cmocka_unit_test(test_upgrade_orphan),
        cmocka_unit_test(test_upgrade_orphan_late), cmocka_unit_test(test_upgrade_stop),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
