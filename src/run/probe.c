/* probe.c - startup, readiness and liveness: when to check, and what a result means.
 *
 * Model: a prober is one probe of one replica, a small machine with one timer:
 *
 *     OFF -> WAIT -> SOCKET (sup makes a socket in the namespace) -> CHECK (connect, GET) -> WAIT ...
 *                 -> EXEC   (sup runs the command)                                        -> WAIT ...
 *
 * Every question to sup carries a fresh token, so an answer that comes after the timeout is known by its token and
 * dropped. A result is judged in prober_result(); how soon the next attempt comes, in prober_again(). README ("Probes")
 * lists where this differs from Kubernetes, on purpose. The attempt over the network itself is in check.c.
 */
#include "run_int.h"

#include <stdio.h>
#include <sys/wait.h>

static void prober_timer(struct timer *t);
static void prober_checked(void *owner, bool ok, const char *text);
static void prober_result(struct prober *p, bool ok, const char *text);

/* ---- texts --------------------------------------------------------------------------------------------------------- */

const char *probe_use_name(enum probe_use use)
{
    static const char *const names[USE_COUNT] = {"startup", "readiness", "liveness", "preStop"};
    MUST(use < USE_COUNT);
    return names[use];
}

void probe_describe(const struct probe *spec, struct buf *out)
{
    switch (spec->kind) {
    case PROBE_HTTP: buf_printf(out, "GET %s", spec->path && *spec->path ? spec->path : "/"); break;
    case PROBE_TCP: buf_printf(out, "connect to port %u", spec->port); break;
    case PROBE_EXEC: buf_printf(out, "exec %s", spec->argv && spec->argv[0] ? spec->argv[0] : ""); break;
    case PROBE_GRPC: buf_printf(out, "gRPC health of port %u", spec->port); break;
    case PROBE_NONE: buf_adds(out, "no probe"); break;
    }
}

void run_wait_text(int32_t status, struct buf *out)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        if (name)
            buf_printf(out, "killed by SIG%s", name);
        else
            buf_printf(out, "killed by signal %d", WTERMSIG(status));
    } else {
        buf_printf(out, "exit status %d", WEXITSTATUS(status));
    }
}

/* ---- on and off ------------------------------------------------------------------------------------------------------- */

void probers_init(struct replica *rp)
{
    for (int u = 0; u < USE_PRE_STOP; u++) {
        rp->probers[u] = (struct prober){.rp = rp, .use = (enum probe_use)u};
        timer_init(&rp->probers[u].timer, prober_timer);
    }
}

static struct loop *prober_loop(const struct prober *p) { return RUN_OF(p->rp)->loop; }

static void prober_wait(struct prober *p, uint64_t in_ms)
{
    p->state = PROBER_WAIT;
    timer_set(prober_loop(p), &p->timer, in_ms);
}

static void prober_off(struct prober *p)
{
    timer_clear(&p->timer);
    netcheck_cancel(p->check);
    p->check = NULL;
    p->token = 0;
    p->state = PROBER_OFF;
    p->spec = NULL;
}

/* The initial delay counts from the start of the process, also for an adopted one and after a startup probe. */
static void prober_on(struct prober *p, const struct probe *spec, bool settled)
{
    uint64_t age = rep_age_ms(p->rp), first = (uint64_t)spec->initial_delay_s * 1000;
    prober_off(p);
    p->spec = spec;
    p->oks = p->fails = 0;
    p->counted_ms = 0;
    p->began_ms = loop_now_ms(prober_loop(p));
    p->fast_ms = RUN_FAST_MS_MIN;
    p->settled = settled;
    prober_wait(p, first > age ? first - age : 0);
}

/* Readiness and liveness: at the start, or when the startup probe has succeeded. */
static void probers_start_rest(struct replica *rp)
{
    const struct pod_template *pod = rep_pod(rp);
    rp->started_up = true;
    if (pod->liveness.kind != PROBE_NONE)
        prober_on(&rp->probers[USE_LIVENESS], &pod->liveness, true);
    if (pod->readiness.kind != PROBE_NONE)
        prober_on(&rp->probers[USE_READINESS], &pod->readiness, rp->ready);
    else if (rp->ready)
        return; /* adopted */
    else if (rp->rev->accept.kind != PROBE_NONE)
        prober_on(&rp->probers[USE_READINESS], &rp->rev->accept, false);
    else
        rep_ready_set(rp, true);
}

void probers_start(struct replica *rp)
{
    const struct pod_template *pod = rep_pod(rp);
    MUST(pod && rp->phase == PH_RUNNING);
    if (pod->startup.kind != PROBE_NONE && !rp->started_up)
        prober_on(&rp->probers[USE_STARTUP], &pod->startup, false);
    else
        probers_start_rest(rp);
}

void probers_stop(struct replica *rp)
{
    for (int u = 0; u < USE_PRE_STOP; u++)
        prober_off(&rp->probers[u]);
}

/* ---- an attempt ---------------------------------------------------------------------------------------------------------- */

static void prober_try(struct prober *p)
{
    struct replica *rp = p->rp;
    struct run *r = RUN_OF(rp);
    uint64_t timeout = (uint64_t)MAX(p->spec->timeout_s, 1u) * 1000;
    p->token = rep_token(rp, p->use);
    if (p->spec->kind != PROBE_EXEC) {
        p->state = PROBER_SOCKET;
        timer_set(r->loop, &p->timer, timeout);
        sup_sockets(r->sup, rp->id, p->token, 1);
        return;
    }
    p->state = PROBER_EXEC;
    enum err e = sup_exec(r->sup, rp->id, p->token, (const char *const *)p->spec->argv, (uint32_t)timeout);
    if (e != OK)
        prober_result(p, false, err_text(e));
    else
        timer_set(r->loop, &p->timer, timeout + RUN_EXEC_SLACK_MS); /* sup keeps the time; this is for an answer that is lost */
}

void prober_sockets(struct prober *p, uint64_t token, const int *fds, int n)
{
    int used = 0;
    if (p->state == PROBER_SOCKET && p->token == token) {
        p->token = 0;
        if (n > 0) {
            p->state = PROBER_CHECK; /* the timer goes on: it covers the whole attempt */
            p->check = netcheck_start(RUN_OF(p->rp), fds[used++], p->spec, prober_checked, p);
        } else {
            prober_result(p, false, "no socket in its namespace");
        }
    }
    for (; used < n; used++)
        if (fds[used] >= 0)
            socket_close(fds[used]);
}

static void prober_checked(void *owner, bool ok, const char *text)
{
    struct prober *p = owner;
    p->check = NULL;
    prober_result(p, ok, text);
}

void prober_exec_done(struct prober *p, uint64_t token, enum err e, int32_t status, struct slice output)
{
    if (p->state != PROBER_EXEC || p->token != token)
        return;
    struct buf text = {0};
    bool ok = e == OK && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (e == ERR_TIMEOUT)
        buf_printf(&text, "timed out after %u s", MAX(p->spec->timeout_s, 1u));
    else if (e != OK)
        buf_adds(&text, err_text(e));
    else if (!ok)
        run_wait_text(status, &text);
    while (output.n && (output.p[output.n - 1] == '\n' || output.p[output.n - 1] == '\r'))
        output.n--;
    if (!ok && output.n)
        buf_printf(&text, ": " SLICE_FMT, SLICE_ARG(output));
    prober_result(p, ok, text.p ? text.p : "");
    buf_free(&text);
}

static void prober_timer(struct timer *t)
{
    struct prober *p = CONTAINER_OF(t, struct prober, timer);
    MUST(p->rp->magic == REPLICA_MAGIC && p->state != PROBER_OFF);
    if (p->state == PROBER_WAIT) {
        prober_try(p);
        return;
    }
    char text[48];
    (void)snprintf(text, sizeof text, "timed out after %u s", MAX(p->spec->timeout_s, 1u));
    prober_result(p, false, text);
}

/* ---- a result ------------------------------------------------------------------------------------------------------------- */

/* When the next attempt comes. Fast repeats are only for what has not succeeded yet; successes that are to be repeated are
 * a full period apart, for they are to show that it lasts. */
static void prober_again(struct prober *p, bool ok)
{
    uint64_t period = (uint64_t)MAX(p->spec->period_s, 1u) * 1000;
    if (p->settled || ok) {
        prober_wait(p, period);
        return;
    }
    prober_wait(p, MIN(period, p->fast_ms));
    p->fast_ms = MIN(p->fast_ms * 2, RUN_FAST_MS_MAX);
}

/* A failure; true when it was one too many. Fast repeats would use the threshold up too soon: one counts per period. */
static bool prober_failure(struct prober *p)
{
    uint64_t now = loop_now_ms(prober_loop(p)), period = (uint64_t)MAX(p->spec->period_s, 1u) * 1000;
    p->oks = 0;
    if (p->fails && !p->settled && now - p->counted_ms < period)
        return false;
    p->counted_ms = now;
    p->fails++;
    return p->fails >= MAX(p->spec->failure_threshold, 1u);
}

static void prober_why(struct prober *p, const char *text)
{
    struct buf what = {0};
    probe_describe(p->spec, &what);
    if (p->spec == &p->rp->rev->accept)
        rep_why(p->rp, "its port %u does not accept connections yet: %s", p->spec->port, text);
    else
        rep_why(p->rp, "%s probe failed: %s: %s", probe_use_name(p->use), what.p, text);
    if (p->counted_ms == loop_now_ms(prober_loop(p)) && p->rp->why)
        rep_event(p->rp, true, "Unhealthy", p->rp->why); /* not for each of the quick repeats before the first success */
    buf_free(&what);
}

static void readiness_result(struct prober *p, bool ok, bool too_many, const char *text)
{
    struct replica *rp = p->rp;
    bool stand_in = p->spec == &rp->rev->accept;
    if (ok && p->oks >= MAX(p->spec->success_threshold, 1u)) {
        p->settled = true;
        rep_ready_set(rp, true);
    } else if (!ok && stand_in && loop_now_ms(prober_loop(p)) - p->began_ms >= RUN_ACCEPT_MS_MAX) {
        RUN_OF(rp)->limit_hits[LIMIT_ACCEPT]++;
        log_warn("run", "%s/%s: its declared port %u accepts no connections; taken as ready, for it has no readiness probe", rp->wl->ns, rp->name, p->spec->port);
        p->settled = true;
        rep_ready_set(rp, true);
    } else if (!ok && (too_many || !rp->ready)) {
        if (rp->ready)
            log_warn("run", "%s/%s: not ready: " "%s", rp->wl->ns, rp->name, text);
        rep_ready_set(rp, false);
        prober_why(p, text);
    }
    if (stand_in && rp->ready)
        prober_off(p); /* once is enough */
}

static void prober_result(struct prober *p, bool ok, const char *text)
{
    struct replica *rp = p->rp;
    timer_clear(&p->timer);
    netcheck_cancel(p->check);
    p->check = NULL;
    p->token = 0;
    p->state = PROBER_WAIT;
    rp->wl->probes[p->use][ok]++;
    bool too_many = false;
    if (ok) {
        p->fails = 0;
        p->oks++;
    } else {
        too_many = prober_failure(p);
    }
    if (p->use == USE_READINESS) {
        readiness_result(p, ok, too_many, text);
    } else if (too_many) {
        prober_why(p, text);
        rep_kill_bad(rp); /* switches this prober off */
    } else if (p->use == USE_STARTUP && ok && p->oks >= MAX(p->spec->success_threshold, 1u)) {
        prober_off(p);
        probers_start_rest(rp);
    } else if (p->use == USE_STARTUP && !ok) {
        prober_why(p, text);
    }
    if (p->state == PROBER_WAIT)
        prober_again(p, ok);
}
