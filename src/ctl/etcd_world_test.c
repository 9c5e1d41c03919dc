/* etcd_world_test.c - members of an etcd cluster as child processes. */
#include "etcd_world_test.h"
#include "port_test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

bool kernel_run(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms)
{
    for (uint64_t until = mono_ns() + ms * 1000000; !done(ctx);) {
        if (mono_ns() > until) return false;
        loop_turn(w->loop, 20);
    }
    return true;
}

void cluster_init(struct cluster *c, int members)
{
    memset(c, 0, sizeof *c);
    snprintf(c->dir, sizeof c->dir, "/dev/shm/weir_etcd_test_XXXXXX"); /* how long a disk takes to sync is not what is asked here */
    if (!mkdtemp(c->dir)) {
        snprintf(c->dir, sizeof c->dir, "/tmp/weir_etcd_test_XXXXXX");
        assert_non_null(mkdtemp(c->dir));
    }
    c->n = members;
    for (int i = 0; i < members; i++) {
        struct member *m = &c->members[i];
        m->port = test_port();
        m->peer_port = test_port();
        snprintf(m->name, sizeof m->name, "m%d", i);
        snprintf(m->dir, sizeof m->dir, "%s/m%d", c->dir, i);
    }
    c->w.loop = loop_new("ctl_etcd_test");
    c->w.run = kernel_run;
}

/* A child that ends with us, with its output in a file. */
static pid_t program_start(const char **args, const char *out_path)
{
    pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int in = open("/dev/null", O_RDONLY), out = open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (getppid() != parent || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
    union {
        const char **from;
        char **to;
    } argv = {.from = args};
    setenv("ETCDCTL_API", "3", 1);
    execvp(args[0], argv.to);
    _exit(127);
}

void member_start(struct cluster *c, int i)
{
    struct member *m = &c->members[i];
    char urls[4][64], all[256] = "", log[128];
    const char *scheme = c->tls ? "https" : "http";
    snprintf(urls[0], sizeof urls[0], "%s://127.0.0.1:%u", scheme, m->port);
    snprintf(urls[1], sizeof urls[1], "http://127.0.0.1:%u", m->peer_port);
    for (int k = 0; k < c->n; k++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s=http://127.0.0.1:%u", k ? "," : "", c->members[k].name, c->members[k].peer_port);
    snprintf(log, sizeof log, "%s.log", m->dir);
    const char *args[40] = {"etcd", "--name", m->name, "--data-dir", m->dir, "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
                            "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", all,
                            "--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-outputs", log};
    int n = 0;
    while (args[n]) n++;
    for (int k = 0; c->options[k]; k++) args[n++] = c->options[k];
    m->pid = program_start(args, "/dev/null");
}

void cluster_start(struct cluster *c)
{
    if (access("/usr/bin/etcd", X_OK) != 0 || access("/usr/bin/etcdctl", X_OK) != 0) fail_msg("etcd is not installed (Debian: etcd-server, etcd-client)");
    for (int i = 0; i < c->n; i++) member_start(c, i);
}

void member_signal(struct cluster *c, int i, int signal)
{
    struct member *m = &c->members[i];
    if (!m->pid) return;
    kill(m->pid, signal);
    if (signal != SIGKILL) return;
    waitpid(m->pid, NULL, 0);
    m->pid = 0;
}

static void remove_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    if (folder) assert_int_equal(disk_list(path, remove_each, path), OK);
    assert_int_equal(folder ? disk_remove_dir(path) : disk_remove(path), OK);
}

void cluster_fini(struct cluster *c)
{
    if (c->w.ctl) cluster_close(c);
    for (int i = 0; i < c->n; i++) member_signal(c, i, SIGKILL);
    loop_free(c->w.loop);
    assert_int_equal(disk_list(c->dir, remove_each, c->dir), OK);
    assert_int_equal(disk_remove_dir(c->dir), OK);
}

struct ctl_etcd_conf cluster_conf(const struct cluster *c, int first, struct ctl_etcd_endpoint *endpoints)
{
    struct ctl_etcd_conf conf;
    ctl_etcd_conf_default(&conf);
    for (int i = 0; i < c->n; i++) endpoints[i] = (struct ctl_etcd_endpoint){.addr = addr_ip4(0x7f000001, c->members[(first + i) % c->n].port)};
    conf.endpoints = endpoints;
    conf.endpoints_n = (size_t)c->n;
    conf.tls = c->tls;
    return conf;
}

void cluster_open(struct cluster *c, const struct ctl_etcd_conf *conf)
{
    struct buf why = {0};
    if (ctl_etcd_open(conf, c->w.loop, &c->w.ctl, &why) != OK) fail_msg("%s", why.p);
    buf_free(&why);
}

static void cluster_closed(void *ctx) { ((struct cluster *)ctx)->closed = true; }
static bool cluster_is_closed(void *ctx) { return ((struct cluster *)ctx)->closed; }

void cluster_close(struct cluster *c)
{
    c->closed = false;
    ctl_close(c->w.ctl, cluster_closed, c);
    assert_false(c->closed);
    assert_true(kernel_run(&c->w, cluster_is_closed, c, 10000));
    c->w.ctl = NULL;
}

void cluster_wipe(struct cluster *c)
{
    struct answer a;
    struct ctl_op op = {.kind = CTL_DELETE, .del = {.key = slice_of("\0", 1), .end = slice_of("\0", 1)}};
    for (int i = 0; do_op(&c->w, &a, op) != CTL_OK && i < 5; i++) { /* members that begin, or look for a leader */
        if (a.call.error != CTL_UNAVAILABLE && a.call.error != CTL_UNKNOWN) break;
        answer_fini(&a);
    }
    if (a.call.error != CTL_OK) fail_msg("%s", a.call.why);
    answer_fini(&a);
}

/* A child that a loop waits for. */
struct child {
    pid_t pid;
    int status;
};
static bool child_ended(void *ctx)
{
    struct child *x = ctx;
    return waitpid(x->pid, &x->status, WNOHANG) == x->pid;
}

bool cluster_ctl(struct cluster *c, int i, const char *const *words, struct buf *out)
{
    char at[64], path[96];
    const char *args[24] = {"timeout", "5", "etcdctl", "--endpoints", at};
    int n = 5;
    snprintf(at, sizeof at, "127.0.0.1:%u", c->members[i].port);
    snprintf(path, sizeof path, "%s/etcdctl", c->dir);
    while (*words) args[n++] = *words++;
    struct child x = {.pid = program_start(args, path)};
    assert_true(kernel_run(&c->w, child_ended, &x, 30000)); /* a loop that stands still for seconds takes the next call's time for over */
    buf_clear(out);
    assert_int_equal(file_read(path, out, 1u << 20), OK);
    return WIFEXITED(x.status) && WEXITSTATUS(x.status) == 0;
}

int cluster_leader(struct cluster *c)
{
    static const char *const words[] = {"endpoint", "status", "-w", "fields", NULL};
    struct buf out = {0};
    int leads = -1;
    for (int i = 0; i < c->n && leads < 0; i++) {
        unsigned long long member = 0, leader = 0;
        if (!c->members[i].pid || !cluster_ctl(c, i, words, &out)) continue;
        const char *m = strstr(out.p, "\"MemberID\" : "), *l = strstr(out.p, "\"Leader\" : ");
        if (m && l && sscanf(m + 13, "%llu", &member) == 1 && sscanf(l + 11, "%llu", &leader) == 1 && member == leader) leads = i;
    }
    buf_free(&out);
    return leads;
}
