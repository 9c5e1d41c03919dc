/* client.c - the engine's end of the channel, on its control loop.
 *
 * Requests become messages, messages become calls of struct sup_client_ops; there is no state here but the queue of what
 * the socket did not take. A watch can only tell of readability, so a short timer looks after that queue.
 *
 * If the other end is gone, so is sup, and the process exits: its workloads are dead and its sockets will be taken over
 * by nobody (the kernel's PR_SET_PDEATHSIG has most likely been faster).
 */
#include "sup_int.h"

#include <unistd.h>

#define FLUSH_MS 2        /* between attempts to send what waits */
#define MESSAGES_PER_TURN 64

struct sup_client {
    struct loop *loop;
    const struct sup_client_ops *ops;
    void *ctx;
    struct sup_chan chan;
    struct watch watch;
    struct timer flush;   /* set while chan.out holds something */
    bool in_turn;         /* a callback may be running: sup_client_free() only marks */
    bool dead;
};

/* ---- answers --------------------------------------------------------------------------------------------------------- */

/* The receiver of the callback owns the descriptors now. */
static void give_away(struct sup_in *in)
{
    in->fds_n = 0;
}

/* Descriptors beside a replica, in the order of its pipes and listener. False when they are too few. */
static bool get_replica(struct sup_in *in, struct sup_replica *rep)
{
    rep->label = sup_get_str(&in->r);
    rep->pid = (int32_t)sup_get_u32(&in->r);
    rep->exited = sup_get_u32(&in->r) != 0;
    rep->exit_status = (int32_t)sup_get_u32(&in->r);
    rep->oom_killed = sup_get_u32(&in->r) != 0;
    rep->started_wall_ns = sup_get_u64(&in->r);
    if (!sup_get_end(&in->r) || !rep->label || in->fds_n < 2 || in->fds_n > 3)
        return false;
    rep->out_fd = in->fds[0];
    rep->err_fd = in->fds[1];
    rep->listen_fd = in->fds_n == 3 ? in->fds[2] : -1;
    return true;
}

static bool on_started(struct sup_client *c, struct sup_in *in)
{
    struct sup_replica rep = {.id = sup_get_u64(&in->r), .out_fd = -1, .err_fd = -1, .listen_fd = -1};
    enum err e = (enum err)sup_get_u32(&in->r);
    const char *text = sup_get_str(&in->r);
    if (!text || in->r.bad || (e == OK && !get_replica(in, &rep)))
        return false;
    if (e == OK)
        give_away(in);
    c->ops->started(c->ctx, rep.id, e, text, e == OK ? &rep : NULL);
    return true;
}

static bool on_adopt_replica(struct sup_client *c, struct sup_in *in)
{
    struct sup_replica rep = {.id = sup_get_u64(&in->r)};
    if (!get_replica(in, &rep))
        return false;
    give_away(in);
    c->ops->adopt_replica(c->ctx, &rep);
    return true;
}

static bool on_listening(struct sup_client *c, struct sup_in *in)
{
    uint64_t token = sup_get_u64(&in->r);
    enum err e = (enum err)sup_get_u32(&in->r);
    const char *text = sup_get_str(&in->r);
    int n = in->fds_n;
    if (!text || !sup_get_end(&in->r))
        return false;
    give_away(in);
    c->ops->listening(c->ctx, token, e, text, in->fds, n);
    return true;
}

static bool on_adopt_listener(struct sup_client *c, struct sup_in *in)
{
    uint64_t token = sup_get_u64(&in->r);
    struct addr a = sup_get_addr(&in->r);
    uint64_t ns_id = sup_get_u64(&in->r);
    int n = in->fds_n;
    if (!sup_get_end(&in->r))
        return false;
    give_away(in);
    c->ops->adopt_listener(c->ctx, token, &a, ns_id, in->fds, n);
    return true;
}

static bool on_exited(struct sup_client *c, struct sup_in *in)
{
    uint64_t id = sup_get_u64(&in->r);
    int32_t status = (int32_t)sup_get_u32(&in->r);
    bool oom = sup_get_u32(&in->r) != 0;
    if (!sup_get_end(&in->r))
        return false;
    c->ops->exited(c->ctx, id, status, oom);
    return true;
}

static bool on_exec_done(struct sup_client *c, struct sup_in *in)
{
    uint64_t id = sup_get_u64(&in->r), token = sup_get_u64(&in->r);
    enum err e = (enum err)sup_get_u32(&in->r);
    int32_t status = (int32_t)sup_get_u32(&in->r);
    struct slice output = sup_get_bytes(&in->r);
    if (!sup_get_end(&in->r))
        return false;
    c->ops->exec_done(c->ctx, id, token, e, status, output);
    return true;
}

static bool on_sockets(struct sup_client *c, struct sup_in *in)
{
    uint64_t id = sup_get_u64(&in->r), token = sup_get_u64(&in->r);
    int n = in->fds_n;
    if (!sup_get_end(&in->r))
        return false;
    give_away(in);
    c->ops->sockets(c->ctx, id, token, in->fds, n);
    return true;
}

static void send_numbers(struct sup_client *c, uint32_t type, const struct buf *b);

static bool on_ready(struct sup_client *c, struct sup_in *in)
{
    struct sup_caps caps = {0};
    caps.net = (enum sup_net)sup_get_u32(&in->r);
    caps.namespaces = sup_get_u32(&in->r) != 0;
    caps.user_namespace = sup_get_u32(&in->r) != 0;
    caps.cgroup = (int)sup_get_u32(&in->r);
    caps.seccomp = sup_get_u32(&in->r) != 0;
    const char *why = sup_get_str(&in->r);
    struct sup_history h = {.restarts = sup_get_u32(&in->r)};
    h.upgrades = sup_get_u32(&in->r);
    h.leaving_pid = (int32_t)sup_get_u32(&in->r);
    h.again = sup_get_u32(&in->r) != 0;
    if (!why || !sup_get_end(&in->r))
        return false;
    memcpy(caps.why, why, MIN(strlen(why), sizeof caps.why - 1));
    send_numbers(c, SUP_ACK, NULL);
    c->ops->ready(c->ctx, &caps, &h);
    return true;
}

static bool on_drain(struct sup_client *c, struct sup_in *in)
{
    uint32_t ms = sup_get_u32(&in->r);
    int32_t pid = (int32_t)sup_get_u32(&in->r);
    if (!sup_get_end(&in->r))
        return false;
    c->ops->drain(c->ctx, ms, pid);
    return true;
}

static bool on_upgrade_failed(struct sup_client *c, struct sup_in *in)
{
    enum err e = (enum err)sup_get_u32(&in->r);
    const char *text = sup_get_str(&in->r);
    if (!text || !sup_get_end(&in->r))
        return false;
    c->ops->upgrade_failed(c->ctx, e, text);
    return true;
}

static bool on_adopt_kept(struct sup_client *c, struct sup_in *in)
{
    struct slice bytes = sup_get_bytes(&in->r);
    if (!sup_get_end(&in->r))
        return false;
    if (c->ops->adopt_kept)
        c->ops->adopt_kept(c->ctx, bytes);
    mem_wipe((void *)(uintptr_t)bytes.p, bytes.n);
    return true;
}

static bool dispatch(struct sup_client *c, struct sup_in *in)
{
    switch (in->type) {
    case SUP_LISTENING: return on_listening(c, in);
    case SUP_STARTED: return on_started(c, in);
    case SUP_EXITED: return on_exited(c, in);
    case SUP_EXEC_DONE: return on_exec_done(c, in);
    case SUP_SOCKETS_MADE: return on_sockets(c, in);
    case SUP_ADOPT_LISTENER: return on_adopt_listener(c, in);
    case SUP_ADOPT_REPLICA: return on_adopt_replica(c, in);
    case SUP_READY: return on_ready(c, in);
    case SUP_STOP: c->ops->stop(c->ctx); return true;
    case SUP_REHEARSE: c->ops->rehearse(c->ctx); return true;
    case SUP_TAKE: c->ops->take(c->ctx); return true;
    case SUP_RELEASE: c->ops->release(c->ctx); return true;
    case SUP_DRAIN: return on_drain(c, in);
    case SUP_UPGRADE_FAILED: return on_upgrade_failed(c, in);
    case SUP_ALONE: c->ops->alone(c->ctx); return true;
    case SUP_ADOPT_KEPT: return on_adopt_kept(c, in);
    default: return false;
    }
}

/* ---- the loop's side ------------------------------------------------------------------------------------------------- */

static _Noreturn void lost(const char *why)
{
    log_error("sup", "%s; the engine ends", why);
    _exit(1);
}

static void client_release(struct sup_client *c)
{
    watch_stop(&c->watch);
    timer_clear(&c->flush);
    sup_chan_fini(&c->chan);
    mem_free(c);
}

static void on_readable(struct watch *w)
{
    struct sup_client *c = CONTAINER_OF(w, struct sup_client, watch);
    c->in_turn = true;
    for (int i = 0; i < MESSAGES_PER_TURN && !c->dead; i++) {
        struct sup_in in;
        enum err e = sup_chan_recv(&c->chan, &in);
        if (e == ERR_AGAIN)
            break;
        if (e == ERR_CLOSED)
            lost("the connection to the supervisor has ended");
        if (e != OK || !dispatch(c, &in))
            lost("the supervisor sent a malformed message");
        sup_in_done(&in);
    }
    c->in_turn = false;
    if (c->dead)
        client_release(c);
}

static void on_flush(struct timer *t)
{
    struct sup_client *c = CONTAINER_OF(t, struct sup_client, flush);
    if (sup_chan_flush(&c->chan) == ERR_AGAIN)
        timer_set(c->loop, t, FLUSH_MS);
}

static void hello(struct sup_client *c)
{
    struct buf b = {0};
    sup_put_u32(&b, SUP_PROTOCOL);
    sup_put_str(&b, WEIR_VERSION);
    send_numbers(c, SUP_HELLO, &b);
    buf_free(&b);
}

struct sup_client *sup_client_new(struct loop *l, int fd, const struct sup_client_ops *ops, void *ctx)
{
    struct sup_client *c = mem_new(MEM_SUP, sizeof *c);
    c->loop = l;
    c->ops = ops;
    c->ctx = ctx;
    sup_chan_init(&c->chan, fd);
    timer_init(&c->flush, on_flush);
    watch_start(&c->watch, l, fd, on_readable);
    hello(c);
    return c;
}

void sup_client_free(struct sup_client *c)
{
    if (!c)
        return;
    c->dead = true;
    if (!c->in_turn)
        client_release(c);
}

/* ---- requests -------------------------------------------------------------------------------------------------------- */

static enum err send_with(struct sup_client *c, uint32_t type, const struct buf *b, const int *fds, int n)
{
    if (c->dead)
        return ERR_CLOSED;
    enum err e = sup_chan_send(&c->chan, type, b, fds, n);
    if (!list_empty(&c->chan.out) && !timer_is_set(&c->flush))
        timer_set(c->loop, &c->flush, FLUSH_MS);
    return e;
}

static enum err send_msg(struct sup_client *c, uint32_t type, const struct buf *b) { return send_with(c, type, b, NULL, 0); }

/* Small requests: they can fail only when sup is gone (then the watch sees it), or has not read 16 MiB of them. */
static void send_numbers(struct sup_client *c, uint32_t type, const struct buf *b)
{
    if (send_msg(c, type, b) == ERR_LIMIT)
        lost("the supervisor does not read its messages");
}

static void listen_send(struct sup_client *c, uint64_t token, const struct addr *a, uint64_t ns_id, int n, enum listen_kind kind)
{
    struct buf b = {0};
    MUST(n >= 1);
    sup_put_u64(&b, token);
    sup_put_addr(&b, a);
    sup_put_u64(&b, ns_id);
    sup_put_u32(&b, (uint32_t)n);
    sup_put_u32(&b, (uint32_t)kind);
    send_numbers(c, SUP_LISTEN, &b);
    buf_free(&b);
}

void sup_listen(struct sup_client *c, uint64_t token, const struct addr *a, uint64_t ns_id, int n) { listen_send(c, token, a, ns_id, n, LISTEN_STREAM); }

void sup_listen_dgram(struct sup_client *c, uint64_t token, const struct addr *a, uint64_t ns_id) { listen_send(c, token, a, ns_id, 1, LISTEN_DGRAM); }

void sup_unlisten(struct sup_client *c, uint64_t token)
{
    struct buf b = {0};
    sup_put_u64(&b, token);
    send_numbers(c, SUP_UNLISTEN, &b);
    buf_free(&b);
}

/* The order of the fields is that of spec_read() in spawn.c. */
enum err sup_start(struct sup_client *c, const struct sup_spec *spec)
{
    struct buf b = {0};
    sup_put_u64(&b, spec->id);
    sup_put_str(&b, spec->name);
    sup_put_str(&b, spec->label ? spec->label : "");
    sup_put_strv(&b, spec->argv);
    sup_put_strv(&b, spec->envp);
    sup_put_str(&b, spec->cwd);
    sup_put_str(&b, spec->hosts_path);
    sup_put_str(&b, spec->resolv_path);
    sup_put_strv(&b, spec->mounts ? spec->mounts : (const char *const[]){NULL});
    sup_put_u64(&b, (uint64_t)spec->uid);
    sup_put_u64(&b, (uint64_t)spec->gid);
    sup_put_u32(&b, spec->cpu_milli_max);
    sup_put_u32(&b, spec->cpu_milli_share);
    sup_put_u64(&b, spec->memory_bytes_max);
    sup_put_u32(&b, spec->pids_max);
    sup_put_u32(&b, spec->host_network);
    sup_put_u32(&b, spec->early_port);
    enum err e = send_msg(c, SUP_START, &b);
    buf_free(&b);
    return e;
}

void sup_signal(struct sup_client *c, uint64_t id, int signo)
{
    struct buf b = {0};
    sup_put_u64(&b, id);
    sup_put_u32(&b, (uint32_t)signo);
    send_numbers(c, SUP_SIGNAL, &b);
    buf_free(&b);
}

enum err sup_exec(struct sup_client *c, uint64_t id, uint64_t token, const char *const *argv, uint32_t timeout_ms)
{
    struct buf b = {0};
    sup_put_u64(&b, id);
    sup_put_u64(&b, token);
    sup_put_u32(&b, timeout_ms);
    sup_put_strv(&b, argv);
    enum err e = send_msg(c, SUP_EXEC, &b);
    buf_free(&b);
    return e;
}

void sup_sockets(struct sup_client *c, uint64_t id, uint64_t token, int n)
{
    struct buf b = {0};
    MUST(n >= 1 && n <= SUP_FDS_MAX);
    sup_put_u64(&b, id);
    sup_put_u64(&b, token);
    sup_put_u32(&b, (uint32_t)n);
    send_numbers(c, SUP_SOCKETS, &b);
    buf_free(&b);
}

void sup_forget(struct sup_client *c, uint64_t id)
{
    struct buf b = {0};
    sup_put_u64(&b, id);
    send_numbers(c, SUP_FORGET, &b);
    buf_free(&b);
}

void sup_shutdown(struct sup_client *c, int exit_status)
{
    struct buf b = {0};
    sup_put_u32(&b, (uint32_t)exit_status);
    send_numbers(c, SUP_SHUTDOWN, &b);
    buf_free(&b);
}

void sup_upgrade(struct sup_client *c, int exe_fd, const char *path, uint32_t ready_ms, uint32_t drain_ms)
{
    struct buf b = {0};
    sup_put_u32(&b, ready_ms);
    sup_put_u32(&b, drain_ms);
    sup_put_str(&b, path);
    if (send_with(c, SUP_UPGRADE, &b, &exe_fd, 1) == ERR_LIMIT)
        lost("the supervisor does not read its messages");
    buf_free(&b);
}

static void send_verdict(struct sup_client *c, uint32_t type, enum err e, const char *why_not)
{
    struct buf b = {0};
    sup_put_u32(&b, (uint32_t)e);
    sup_put_str(&b, e == OK ? "" : why_not);
    send_numbers(c, type, &b);
    buf_free(&b);
}

void sup_prepared(struct sup_client *c, enum err e, const char *why_not) { send_verdict(c, SUP_PREPARED, e, why_not); }
void sup_released(struct sup_client *c, enum err e, const char *why_not) { send_verdict(c, SUP_RELEASED, e, why_not); }
void sup_serving(struct sup_client *c) { send_numbers(c, SUP_SERVING, NULL); }

void sup_fence(struct sup_client *c, uint64_t until_ms, const uint64_t *ids, size_t n)
{
    struct buf b = {0};
    MUST(n <= SUP_FENCED_MAX);
    sup_put_u64(&b, until_ms);
    sup_put_u32(&b, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        sup_put_u64(&b, ids[i]);
    send_numbers(c, SUP_FENCE, &b);
    buf_free(&b);
}

void sup_keep(struct sup_client *c, struct slice bytes)
{
    struct buf b = {0};
    MUST(bytes.n <= SUP_KEEP_BYTES_MAX);
    sup_put_bytes(&b, bytes);
    send_numbers(c, SUP_KEEP, &b);
    buf_wipe(&b);
}
