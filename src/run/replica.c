/* replica.c - the life of one replica: start, exit, back-off, drain.
 *
 *     Pending -> Starting -> Running -> Draining -> Stopping -> Exited (doomed) | BackOff -> Pending
 *
 * The states and who owns the next step are tabled in README. One timer serves the replica; what it means is told by
 * phase and step. A replica does not decide whether it is wanted: rollout.c dooms it. Probes are in probe.c.
 */
#include "run_int.h"
#include "dns.h"

#include <signal.h>
#include <stdio.h>

static void rep_timer(struct timer *t);
static void rep_bury(struct replica *rp);
static void rep_drain(struct replica *rp);
static void rep_pre_stop(struct replica *rp);
static void rep_term(struct replica *rp);
static void rep_kill(struct replica *rp);

/* ---- birth and death ------------------------------------------------------------------------------------------------ */

struct replica *rep_new(struct workload *wl, struct revision *rev, const char *name)
{
    struct replica *rp = mem_new(MEM_RUN, sizeof *rp);
    rp->magic = REPLICA_MAGIC;
    rp->wl = wl;
    rp->rev = revision_ref(rev);
    rp->seq = ++wl->run->next_seq;
    rp->phase = PH_PENDING;
    if (name)
        (void)snprintf(rp->name, sizeof rp->name, "%s", name);
    else
        rep_name_make(wl, rev, rp->name);
    timer_init(&rp->timer, rep_timer);
    probers_init(rp);
    outpipe_init(&rp->out[0], rp, false);
    outpipe_init(&rp->out[1], rp, true);
    list_push(&wl->replicas, &rp->link);
    wl->run->replicas_n++;
    run_touch(wl);
    return rp;
}

/* Nothing of rt refers to it any more: it has been in the graveyard for a turn, or the loop has ended. */
void rep_free(struct replica *rp)
{
    MUST(rp->magic == REPLICA_MAGIC);
    timer_clear(&rp->timer);
    netcheck_cancel(rp->pre_stop);
    for (int i = 0; i < 2; i++)
        outpipe_finish(&rp->out[i]);
    revision_unref(rp->rev);
    list_del(&rp->link);
    mem_free(rp->why);
    mem_free(rp->ended_why);
    rp->magic = 0;
    mem_free(rp);
}

void rep_let_go(struct replica *rp)
{
    timer_clear(&rp->timer);
    probers_stop(rp);
    netcheck_cancel(rp->pre_stop);
    rp->pre_stop = NULL;
    for (int i = 0; i < 2; i++)
        outpipe_drop(&rp->out[i]);
}

/* sup may forget the process: its namespaces and pipes go. */
static void rep_forget(struct replica *rp)
{
    if (!rp->known)
        return;
    struct run *r = RUN_OF(rp);
    sup_forget(r->sup, rp->id);
    MUST(table_del(&r->by_id, slice_of((const char *)&rp->id, sizeof rp->id)) == rp);
    rp->known = false;
}

/* The end. rp->wl is gone from here on; the memory goes in the next turn. */
static void rep_bury(struct replica *rp)
{
    struct workload *wl = rp->wl;
    struct run *r = wl->run;
    MUST(!rp->up && !rp->ready);
    rp->phase = PH_EXITED;
    timer_clear(&rp->timer);
    probers_stop(rp);
    rep_forget(rp);
    list_del(&rp->link);
    list_push(&r->grave, &rp->link);
    rp->wl = NULL;
    r->volumes_stale |= rp->rev->obj && rp->rev->obj->dep.pod.mounts_n;
    r->replicas_n--;
    wl->progress_ms = loop_now_ms(r->loop);
    run_state_changed(r);
    run_touch(wl);
}

/* ---- small truths -------------------------------------------------------------------------------------------------------- */

const char *rep_phase_name(enum replica_phase p)
{
    static const char *const names[PH_COUNT] = {"Pending", "Starting", "Running", "Draining", "Stopping", "BackOff", "Exited"};
    MUST(p < PH_COUNT);
    return names[p];
}

const struct pod_template *rep_pod(const struct replica *rp)
{
    return rp->rev->obj ? &rp->rev->obj->dep.pod : NULL;
}

uint64_t rep_age_ms(const struct replica *rp)
{
    return rp->age0_ms + (loop_now_ms(RUN_OF(rp)->loop) - rp->started_ms);
}

static uint64_t rep_grace_ms(const struct replica *rp)
{
    const struct pod_template *pod = rep_pod(rp);
    return pod ? (uint64_t)pod->grace_s * 1000 : 30000; /* Kubernetes' default when the template is unknown */
}

uint64_t rep_token(struct replica *rp, enum probe_use use)
{
    return RUN_TOKEN_BIT | (++rp->serial << 2 & ~RUN_TOKEN_BIT) | (uint64_t)use;
}

void rep_why(struct replica *rp, const char *fmt, ...)
{
    char text[RUN_WHY_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    text_clean(text); /* a workload's own words may be in it, and the cut may have gone through a character */
    mem_free(rp->why);
    rp->why = text[0] ? mem_strdup(MEM_RUN, text) : NULL;
}

void rep_event(const struct replica *rp, bool warning, const char *reason, const char *message)
{
    struct run *r = RUN_OF(rp);
    if (r->ops.event)
        r->ops.event(r->ctx, &(struct run_event){rp->wl->ns, rp->wl->name, rp->name, warning, reason, message});
}

void rep_ready_set(struct replica *rp, bool ready)
{
    if (rp->ready == ready)
        return;
    MUST(!ready || rp->phase == PH_RUNNING);
    rp->ready = ready;
    rp->available = false;
    if (ready) {
        rp->ready_ms = rp->wl->progress_ms = loop_now_ms(RUN_OF(rp)->loop);
        rp->was_endpoint = true;
        rep_why(rp, "%s", "");
    }
    run_endpoints_dirty(RUN_OF(rp));
    run_touch(rp->wl);
}

/* ---- start --------------------------------------------------------------------------------------------------------------- */

/* The delay doubles up to the maximum; up to a tenth less, so that what failed together does not return together. */
static void rep_backoff(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    uint64_t delay = r->conf.backoff_ms_min;
    for (uint32_t i = 0; i < rp->backoff_step && delay < r->conf.backoff_ms_max; i++)
        delay *= 2;
    delay = MIN(delay, r->conf.backoff_ms_max);
    delay -= loop_random(r->loop) % (delay / 10 + 1);
    rp->backoff_step = MIN(rp->backoff_step + 1, RUN_BACKOFF_STEP_MAX);
    rp->phase = PH_BACKOFF;
    rp->step = STOP_NONE;
    timer_set(r->loop, &rp->timer, delay);
    run_touch(rp->wl);
}

static void rep_start_failed(struct replica *rp)
{
    RUN_OF(rp)->start_failures++;
    log_warn("run", "%s/%s: %s", rp->wl->ns, rp->name, rp->why);
    rep_event(rp, true, "Failed", rp->why);
    if (rp->doomed)
        rep_bury(rp);
    else
        rep_backoff(rp);
}

static void rep_spec(const struct replica *rp, struct arena *a, struct buf *label, struct sup_spec *spec)
{
    const struct pod_template *pod = rep_pod(rp);
    run_label_format(rp, label);
    *spec = (struct sup_spec){.id = rp->id, .name = rp->name, .label = label->p, .cwd = pod->cwd ? pod->cwd : "/",
        .hosts_path = run_files_hosts_path(RUN_OF(rp), rp->wl->ns, pod->host_network, a), .resolv_path = run_files_resolv_path(RUN_OF(rp), rp->wl->ns, pod->host_network, a),
        .uid = pod->run_as_user, .gid = pod->run_as_group, .cpu_milli_max = pod->cpu_milli_limit,
        .cpu_milli_share = pod->cpu_milli_request, .memory_bytes_max = pod->memory_limit, .host_network = pod->host_network};
    spec->mounts = volumes_mounts(RUN_OF(rp), rp->wl, rp->rev, a);
    if (!pod->host_network && objset_port_free(RUN_OF(rp)->set, rp->rev->obj, DNS_PORT))
        spec->early_port = DNS_PORT; /* the name server's: who asks with its first breath is heard */
}

/* Asks sup; the reason is in why when it can't be asked. */
static enum err rep_ask_start(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    struct diags d = {0};
    struct buf label = {0}, missing = {0};
    struct sup_spec spec;
    enum err e = ERR_INVALID;
    arena_reset(&r->scratch);
    char **envp = objset_env(r->set, rp->rev->obj, run_files_env_base(r, rp, &r->scratch), &r->scratch, &d);
    char **argv = d.errors ? NULL : objset_argv(rp->rev->obj, envp, &r->scratch);
    if (d.errors) {
        for (size_t i = 0; i < d.n; i++)
            if (d.items[i].level == DIAG_ERROR)
                rep_why(rp, "could not start: %s; %s", d.items[i].reason, d.items[i].remedy ? d.items[i].remedy : "");
    } else if (!volumes_prepare(r, rp->wl, rp->rev, &missing)) {
        rep_why(rp, "could not start: %s", missing.p);
    } else if (!argv || !argv[0]) {
        rep_why(rp, "could not start: the manifest gives no command, and images are not run here; set spec.template.spec.containers[0].command");
    } else {
        rep_spec(rp, &r->scratch, &label, &spec);
        spec.argv = (const char *const *)argv;
        spec.envp = (const char *const *)envp;
        if (r->ops.once_starting && rep_runs_once(rp))
            r->ops.once_starting(r->ctx, rp->id);
        e = sup_start(r->sup, &spec);
        if (e == ERR_LIMIT)
            rep_why(rp, "could not start: arguments and environment exceed %d bytes", SUP_MESSAGE_BYTES_MAX);
        else if (e != OK)
            rep_why(rp, "could not start: %s", err_text(e));
    }
    buf_free(&label);
    buf_free(&missing);
    diags_free(&d);
    return e;
}

void rep_start(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    MUST(rp->phase == PH_PENDING && !rp->doomed && r->set);
    rep_forget(rp); /* the process before, if there was one */
    rp->id = r->next_id++;
    rp->serial = 0;
    rp->was_endpoint = rp->adopted = rp->bad_stop = false;
    rp->started_up = false;
    r->starts++;
    if (!rp->rev->obj) {
        rep_why(rp, "could not start: its template is not known any more");
        rep_start_failed(rp);
        return;
    }
    if (rep_ask_start(rp) != OK) {
        rep_start_failed(rp);
        return;
    }
    rp->known = true;
    (void)table_put(&r->by_id, slice_of((const char *)&rp->id, sizeof rp->id), rp);
    rp->phase = PH_STARTING;
    r->starting_n++;
}

static void rep_pipes(struct replica *rp, const struct sup_replica *rep, const struct saved_replica *was)
{
    for (int i = 0; was && i < 2; i++)
        buf_add_slice(&rp->out[i].part, was->part[i]);
    outpipe_open(&rp->out[0], rep->out_fd);
    outpipe_open(&rp->out[1], rep->err_fd);
}

/* The process runs: what both a start and an adoption do. */
static void rep_running(struct replica *rp, const struct sup_replica *rep, const struct saved_replica *was)
{
    struct run *r = RUN_OF(rp);
    rp->phase = PH_RUNNING;
    rp->pid = rep->pid;
    rp->started_wall_ns = rep->started_wall_ns;
    rp->started_ms = loop_now_ms(r->loop);
    rp->age0_ms = 0;
    rep_pipes(rp, rep, was);
    rp->up = true;
    r->ops.replica_up(r->ctx, rp->id, rp->wl->ns, rp->wl->name, rp->name, rep->listen_fd);
}

void rep_started(struct replica *rp, enum err e, const char *text, const struct sup_replica *rep)
{
    struct run *r = RUN_OF(rp);
    MUST(rp->phase == PH_STARTING && r->starting_n > 0);
    r->starting_n--;
    run_touch(rp->wl); /* a slot is free */
    if (e != OK) {
        rep_why(rp, "could not start: %s", text && *text ? text : err_text(e));
        rep_start_failed(rp);
        return;
    }
    rep_running(rp, rep, NULL);
    log_info("run", "%s/%s: started, process %d", rp->wl->ns, rp->name, (int)rp->pid);
    rep_event(rp, false, "Started", "started");
    if (rp->doomed && rp->drop_ms)
        rep_drop(rp, rp->drop_ms > loop_now_ms(r->loop) ? rp->drop_ms - loop_now_ms(r->loop) : 0);
    else if (rp->doomed)
        rep_drain(rp);
    else
        probers_start(rp);
}

/* ---- adoption ---------------------------------------------------------------------------------------------------------------- */

/* Milliseconds from now until wall-clock time due_ms; not more than max. */
static uint64_t rep_left_ms(uint64_t due_ms, uint64_t max)
{
    uint64_t now = wall_ns() / 1000000;
    return due_ms > now ? MIN(due_ms - now, max) : 0;
}

static void rep_adopt_exited(struct replica *rp, const struct sup_replica *rep, const struct saved_replica *was)
{
    struct run *r = RUN_OF(rp);
    rep_pipes(rp, rep, was);
    if (rep->listen_fd >= 0)
        socket_close(rep->listen_fd);
    rp->phase = PH_RUNNING;
    rp->started_ms = loop_now_ms(r->loop);
    rep_exited(rp, rep->exit_status, rep->oom_killed);
    if (was->backoff && was->due_wall_ms && rp->phase == PH_BACKOFF) /* its delay had begun */
        timer_set(r->loop, &rp->timer, rep_left_ms(was->due_wall_ms, r->conf.backoff_ms_max));
}

void rep_adopt(struct replica *rp, const struct sup_replica *rep, const struct saved_replica *was)
{
    struct run *r = RUN_OF(rp);
    rp->id = rep->id;
    rp->known = true;
    (void)table_put(&r->by_id, slice_of((const char *)&rp->id, sizeof rp->id), rp);
    rp->adopted = true;
    rp->doomed = was->doomed;
    if (rep->exited) {
        rep_adopt_exited(rp, rep, was);
        return;
    }
    rep_running(rp, rep, was);
    uint64_t wall = wall_ns();
    rp->age0_ms = wall > rep->started_wall_ns ? (wall - rep->started_wall_ns) / 1000000 : 0;
    log_info("run", "%s/%s: found again, process %d%s", rp->wl->ns, rp->name, (int)rp->pid, was->ready ? ", ready" : "");
    if (was->termed) { /* one SIGTERM is enough: many take a second one for impatience */
        rp->phase = PH_STOPPING;
        rp->step = STOP_TERM;
        timer_set(r->loop, &rp->timer, rep_left_ms(was->due_wall_ms, rep_grace_ms(rp) + RUN_PRE_STOP_EXTRA_MS));
    } else if (was->doomed) {
        rp->was_endpoint = r->ops.in_flight(r->ctx, rp->id); /* of an engine that is leaving */
        rep_drain(rp);
    } else if (was->ready) {
        rp->started_up = true;
        rep_ready_set(rp, true);
    }
    rep_bound(rp);
}

/* Idempotent: run_want() calls it for every replica. */
void rep_bound(struct replica *rp)
{
    if (!rp->adopted || rp->phase != PH_RUNNING || rp->doomed || !rp->rev->obj)
        return;
    if (rp->probers[USE_READINESS].state != PROBER_OFF || rp->probers[USE_LIVENESS].state != PROBER_OFF || rp->probers[USE_STARTUP].state != PROBER_OFF)
        return;
    probers_start(rp);
    if (rp->ready)
        run_endpoints_dirty(RUN_OF(rp)); /* its labels are known now */
}

/* ---- exit ------------------------------------------------------------------------------------------------------------------------- */

static void format_bytes(uint64_t n, struct buf *out)
{
    if (n && n % (1u << 30) == 0)
        buf_printf(out, "%lluGi", (unsigned long long)(n >> 30));
    else if (n && n % (1u << 20) == 0)
        buf_printf(out, "%lluMi", (unsigned long long)(n >> 20));
    else if (n && n % 1024 == 0)
        buf_printf(out, "%lluKi", (unsigned long long)(n >> 10));
    else
        buf_printf(out, "%llu bytes", (unsigned long long)n);
}

static void rep_exit_why(struct replica *rp, int32_t status, bool oom_killed)
{
    struct buf text = {0};
    const struct pod_template *pod = rep_pod(rp);
    if (oom_killed) {
        buf_adds(&text, "out of memory");
        if (pod && pod->memory_limit) {
            buf_adds(&text, " (limit ");
            format_bytes(pod->memory_limit, &text);
            buf_addc(&text, ')');
        }
    } else {
        run_wait_text(status, &text);
    }
    if (!rp->bad_stop || oom_killed) /* else the probe's verdict says more */
        rep_why(rp, "%s", text.p);
    if (rp->doomed)
        log_info("run", "%s/%s: ended: %s", rp->wl->ns, rp->name, text.p);
    else
        log_warn("run", "%s/%s: ended: %s%s%s; it is started again", rp->wl->ns, rp->name, text.p, rp->bad_stop ? ", because " : "",
                 rp->bad_stop && rp->why ? rp->why : "");
    if (rp->doomed && !oom_killed)
        rep_event(rp, false, "Stopped", text.p);
    else
        rep_event(rp, true, oom_killed ? "OOMKilled" : "Exited", text.p); /* it is started again, unless it was being stopped */
    buf_free(&text);
}

void rep_exited(struct replica *rp, int32_t status, bool oom_killed)
{
    struct run *r = RUN_OF(rp);
    if (rp->phase == PH_BACKOFF || rp->phase == PH_PENDING)
        return; /* told twice */
    if (rp->phase == PH_STARTING)
        r->starting_n--;
    timer_clear(&rp->timer);
    probers_stop(rp);
    netcheck_cancel(rp->pre_stop);
    rp->pre_stop = NULL;
    rp->token = 0;
    outpipe_finish(&rp->out[0]);
    outpipe_finish(&rp->out[1]);
    rep_ready_set(rp, false);
    rep_exit_why(rp, status, oom_killed);
    if (rp->up)
        run_gone(r, rp->id);
    rp->up = false;
    rp->pid = 0;
    if (rep_age_ms(rp) >= RUN_STABLE_MS)
        rp->backoff_step = 0;
    rp->started_wall_ns = 0;
    run_state_changed(r);
    if (rp->doomed) {
        rep_bury(rp);
        return;
    }
    rp->restarts++;
    rp->wl->restarts++;
    mem_free(rp->ended_why);
    rp->ended_why = rp->why ? mem_strdup(MEM_RUN, rp->why) : NULL;
    rep_backoff(rp);
}

/* ---- drain and stop ------------------------------------------------------------------------------------------------------------------ */

void rep_doom(struct replica *rp)
{
    if (rp->doomed)
        return;
    rp->doomed = true;
    run_state_changed(RUN_OF(rp));
    switch (rp->phase) {
    case PH_PENDING:
    case PH_BACKOFF:
        rep_bury(rp);
        break;
    case PH_RUNNING:
        rep_drain(rp);
        break;
    case PH_STARTING: /* rep_started() drains it */
    case PH_DRAINING: /* being stopped to be restarted: it is not restarted now */
    case PH_STOPPING:
    case PH_EXITED:
    case PH_COUNT:
        break;
    }
}

void rep_drop(struct replica *rp, uint64_t ms)
{
    struct run *r = RUN_OF(rp);
    rp->drop_ms = MAX(1, loop_now_ms(r->loop) + ms);
    switch (rp->phase) {
    case PH_RUNNING:
        rep_ready_set(rp, false);
        probers_stop(rp);
        break;
    case PH_DRAINING: break;
    case PH_STOPPING:
        rp->doomed = true;
        if (rp->step == STOP_TERM && rp->timer.due_ms > rp->drop_ms)
            timer_set(r->loop, &rp->timer, ms);
        return;
    case PH_STARTING: /* rep_started() goes on */
    case PH_PENDING:
    case PH_BACKOFF:
    case PH_EXITED:
    case PH_COUNT: rep_doom(rp); return;
    }
    rp->doomed = true;
    rp->grace_end_ms = rp->drop_ms;
    run_state_changed(r);
    rep_term(rp);
}

void rep_kill_bad(struct replica *rp)
{
    MUST(rp->phase == PH_RUNNING && rp->why);
    log_warn("run", "%s/%s: %s", rp->wl->ns, rp->name, rp->why);
    rep_event(rp, false, "Killing", "a probe has failed too often: it is stopped, and started again");
    rp->bad_stop = true;
    rep_ready_set(rp, false);
    probers_stop(rp);
    rep_pre_stop(rp);
}

/* Steps 1 and 2: out of the endpoints, then wait for what is in flight. */
static void rep_drain(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    MUST(rp->phase == PH_RUNNING);
    bool wait = rp->was_endpoint;
    rep_ready_set(rp, false);
    probers_stop(rp);
    rep_why(rp, "%s", "");
    if (!wait) {
        rep_pre_stop(rp);
        return;
    }
    rp->phase = PH_DRAINING;
    rp->step = STOP_FLIGHT;
    rp->flight_end_ms = loop_now_ms(r->loop) + MIN((uint64_t)r->conf.drain_ms_max, rep_grace_ms(rp));
    timer_set(r->loop, &rp->timer, RUN_FLIGHT_POLL_MS); /* the plan without it is published at the end of this turn */
}

static void rep_flight_poll(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    bool over = loop_now_ms(r->loop) >= rp->flight_end_ms;
    if (!over && r->ops.in_flight(r->ctx, rp->id)) {
        timer_set(r->loop, &rp->timer, RUN_FLIGHT_POLL_MS);
        return;
    }
    rep_pre_stop(rp);
}

/* Step 3; the grace period starts. */
static void rep_pre_stop(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    const struct pod_template *pod = rep_pod(rp);
    uint64_t grace = rep_grace_ms(rp);
    rp->phase = PH_DRAINING;
    rp->step = STOP_PRE_STOP;
    rp->grace_end_ms = loop_now_ms(r->loop) + grace;
    rp->token = 0;
    if (!pod || grace == 0 || !(pod->pre_stop_argv || pod->pre_stop_http.kind == PROBE_HTTP || pod->pre_stop_sleep_s)) {
        rep_term(rp);
        return;
    }
    rp->token = rep_token(rp, USE_PRE_STOP);
    if (pod->pre_stop_argv) {
        enum err e = sup_exec(r->sup, rp->id, rp->token, (const char *const *)pod->pre_stop_argv, (uint32_t)MIN(grace, UINT32_MAX));
        if (e != OK) {
            log_warn("run", "%s/%s: preStop could not be run: %s", rp->wl->ns, rp->name, err_text(e));
            rep_term(rp);
            return;
        }
    } else if (pod->pre_stop_http.kind == PROBE_HTTP) {
        sup_sockets(r->sup, rp->id, rp->token, 1);
    } else {
        grace = MIN(grace, (uint64_t)pod->pre_stop_sleep_s * 1000);
    }
    timer_set(r->loop, &rp->timer, grace);
}

void rep_pre_stop_done(struct replica *rp)
{
    if (rp->step == STOP_PRE_STOP)
        rep_term(rp);
}

/* Step 4 and 5. */
static void rep_term(struct replica *rp)
{
    struct run *r = RUN_OF(rp);
    uint64_t now = loop_now_ms(r->loop);
    netcheck_cancel(rp->pre_stop);
    rp->pre_stop = NULL;
    rp->token = 0;
    rp->phase = PH_STOPPING;
    rp->step = STOP_TERM;
    if (rep_grace_ms(rp) == 0) {
        rep_kill(rp);
        return;
    }
    sup_signal(r->sup, rp->id, SIGTERM);
    timer_set(r->loop, &rp->timer, rp->grace_end_ms > now ? rp->grace_end_ms - now : RUN_PRE_STOP_EXTRA_MS);
}

/* Step 6, again and again until the exit is reported. */
static void rep_kill(struct replica *rp)
{
    if (rp->step == STOP_KILL)
        log_warn("run", "%s/%s: process %d does not end after SIGKILL; sent again", rp->wl->ns, rp->name, (int)rp->pid);
    rp->step = STOP_KILL;
    sup_signal(RUN_OF(rp)->sup, rp->id, SIGKILL);
    timer_set(RUN_OF(rp)->loop, &rp->timer, RUN_KILL_AGAIN_MS);
}

static void rep_timer(struct timer *t)
{
    struct replica *rp = CONTAINER_OF(t, struct replica, timer);
    MUST(rp->magic == REPLICA_MAGIC);
    if (rp->phase == PH_BACKOFF) {
        rp->phase = PH_PENDING;
        run_touch(rp->wl);
        return;
    }
    MUST(rp->phase == PH_DRAINING || rp->phase == PH_STOPPING);
    switch (rp->step) {
    case STOP_FLIGHT: rep_flight_poll(rp); break;
    case STOP_PRE_STOP: rep_term(rp); break;
    case STOP_TERM:
    case STOP_KILL: rep_kill(rp); break;
    case STOP_NONE: MUST(rp->step != STOP_NONE); /* a timer without a meaning */
    }
}
