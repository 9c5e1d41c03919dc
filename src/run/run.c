/* run.c - the public calls, the turn, endpoints and adoption.
 *
 * Model: whatever changes (sup's answers, timers, run_want) changes one replica and calls run_touch(). The work that
 * looks at many things together is done once, at the end of the turn, in run_turn(), always in this order:
 *
 *     rollout_step() of touched workloads -> starts that have a slot -> endpoints_changed -> replica_gone -> stop done?
 *
 * so that a plan without a dead replica is published before what refers to it is closed. It does not decide how many
 * replicas there are (rollout.c) nor how one lives (replica.c).
 */
#include "run_int.h"

#include <stdlib.h>
#include <unistd.h>

static void run_turn(struct task *t);
static void run_grave_empty(struct timer *t);
static void run_defer(struct run *r);

/* ---- creation ------------------------------------------------------------------------------------------------------ */

/* What replicas inherit of this process. The only place of this room that reads the process's environment. */
static void run_env_read(struct run *r)
{
    const char *path = getenv("PATH"), *lang = getenv("LANG"), *home = getenv("HOME");
    r->env_path = mem_strdup(MEM_RUN, path && *path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    r->env_lang = mem_strdup(MEM_RUN, lang && *lang ? lang : "C.UTF-8");
    r->env_home = mem_strdup(MEM_RUN, home && *home ? home : "/");
}

struct run *run_new(struct loop *l, struct sup_client *sup, const struct run_conf *conf, const struct run_ops *ops, void *ctx)
{
    MUST(conf->data_dir && ops->endpoints_changed && ops->in_flight && ops->output && ops->replica_up && ops->replica_gone);
    struct run *r = mem_new(MEM_RUN, sizeof *r);
    r->magic = RUN_MAGIC;
    r->loop = l;
    r->sup = sup;
    r->conf = *conf;
    r->conf.data_dir = mem_strdup(MEM_RUN, conf->data_dir);
    r->conf.node_name = mem_strdup(MEM_RUN, conf->node_name ? conf->node_name : "weir");
    r->conf.log_address = mem_strdup(MEM_RUN, conf->log_address);
    r->conf.store_address = mem_strdup(MEM_RUN, conf->store_address);
    r->conf.backoff_ms_min = conf->backoff_ms_min ? conf->backoff_ms_min : 1000;
    r->conf.backoff_ms_max = conf->backoff_ms_max ? conf->backoff_ms_max : 60000;
    r->conf.drain_ms_max = conf->drain_ms_max ? conf->drain_ms_max : 30000;
    r->ops = *ops;
    r->ctx = ctx;
    list_init(&r->workloads);
    list_init(&r->grave);
    task_init(&r->turn, run_turn);
    timer_init(&r->grave_timer, run_grave_empty);
    r->next_id = wall_ns() / 1000; /* never below the ids of an earlier engine of this node */
    arena_init(&r->scratch, MEM_RUN, 4096);
    run_env_read(r);
    run_state_init(r);
    run_state_load(r);
    return r;
}

static void workload_free(struct workload *wl)
{
    MUST(list_empty(&wl->replicas));
    list_del(&wl->link);
    timer_clear(&wl->timer);
    revision_unref(wl->cur);
    mem_free(wl->ns);
    mem_free(wl->name);
    mem_free(wl->why);
    mem_free(wl);
}

/* ---- letting go --------------------------------------------------------------------------------------------------------- */

static void release_step(struct run *r)
{
    if (r->starting_n || r->save)
        return; /* an answer of sup, or the end of the writing, queues the next turn */
    void (*done)(void *, enum err) = r->release_done;
    enum err e = run_state_release(r);
    r->release_done = NULL;
    r->released = e == OK;
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        if (!r->released)
            break;
        timer_clear(&wl->timer);
        LIST_FOREACH(rit, &wl->replicas)
            rep_let_go(CONTAINER_OF(rit, struct replica, link));
    }
    if (!r->released)
        run_defer(r); /* what was held back is started now */
    done(r->ctx, e);
}

void run_release(struct run *r, void (*done)(void *ctx, enum err e))
{
    MUST(!r->release_done && !r->released && !r->stopping);
    r->release_done = done;
    run_defer(r);
}

/* Processes go on running: the next engine adopts them. */
void run_free(struct run *r)
{
    if (!r)
        return;
    MUST(r->magic == RUN_MAGIC);
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        while (!list_empty(&wl->replicas)) {
            struct replica *rp = CONTAINER_OF(wl->replicas.next, struct replica, link);
            probers_stop(rp);
            rep_free(rp);
        }
        workload_free(wl);
    }
    r->volumes_stale = false; /* processes that go on need their files */
    run_grave_empty(&r->grave_timer);
    list_del(&r->turn.link);
    timer_clear(&r->grave_timer);
    run_state_detach(r);
    table_fini(&r->by_id);
    mem_free(r->eps);
    mem_free(r->gone);
    mem_free((char *)r->conf.data_dir);
    mem_free((char *)r->conf.node_name);
    mem_free((char *)r->conf.log_address);
    mem_free((char *)r->conf.store_address);
    mem_free(r->env_path);
    mem_free(r->env_home);
    mem_free(r->env_lang);
    buf_free(&r->saved);
    arena_fini(&r->scratch);
    r->magic = 0;
    mem_free(r);
}

/* ---- the turn --------------------------------------------------------------------------------------------------------- */

static void run_defer(struct run *r) { loop_defer(r->loop, &r->turn); }

void run_touch(struct workload *wl)
{
    wl->touched = true;
    run_defer(wl->run);
}

void run_endpoints_dirty(struct run *r)
{
    r->eps_dirty = true;
    run_state_changed(r);
    run_defer(r);
}

void run_gone(struct run *r, uint64_t id)
{
    ARRAY_GROW(MEM_RUN, r->gone, r->gone_n, r->gone_cap);
    r->gone[r->gone_n++] = id;
    run_defer(r);
}

/* The oldest Pending replica, so that nobody is overtaken for ever. */
static struct replica *run_next_pending(struct run *r)
{
    struct replica *best = NULL;
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        LIST_FOREACH(rit, &wl->replicas) {
            struct replica *rp = CONTAINER_OF(rit, struct replica, link);
            if (rp->phase == PH_PENDING && (!best || rp->seq < best->seq))
                best = rp;
        }
    }
    return best;
}

static void run_start_pending(struct run *r)
{
    struct replica *rp;
    while ((rp = run_next_pending(r))) {
        if (r->starting_n >= RUN_STARTS_MAX) {
            r->limit_hits[LIMIT_STARTS]++;
            return; /* an answer of sup queues the next turn */
        }
        rep_start(rp);
    }
}

static void run_tell_gone(struct run *r)
{
    for (size_t i = 0; i < r->gone_n; i++)
        r->ops.replica_gone(r->ctx, r->gone[i]);
    r->gone_n = 0;
}

static void run_rollouts(struct run *r)
{
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        if (!wl->touched)
            continue;
        wl->touched = false;
        rollout_step(wl);
        if (!wl->obj && list_empty(&wl->replicas)) {
            workload_free(wl);
            run_state_changed(r);
        }
    }
}

static void run_turn(struct task *t)
{
    struct run *r = CONTAINER_OF(t, struct run, turn);
    MUST(r->magic == RUN_MAGIC && !r->released);
    if (r->set || r->stopping) /* before the first run_want() nobody knows what is wanted: adopted replicas just go on */
        run_rollouts(r);
    if (r->set && !r->release_done)
        config_step(r);
    if (r->set && !r->release_done)
        run_start_pending(r);
    if (r->eps_dirty && (r->set || r->stopping)) {
        r->eps_dirty = false;
        r->ops.endpoints_changed(r->ctx);
    }
    run_tell_gone(r);
    if (!list_empty(&r->grave) && !timer_is_set(&r->grave_timer))
        timer_set(r->loop, &r->grave_timer, 1);
    if (r->stopping && r->stop_done && r->replicas_n == 0 && !r->save && !timer_is_set(&r->save_timer)) {
        void (*done)(void *) = r->stop_done;
        r->stop_done = NULL;
        volumes_trim(r);
        done(r->ctx); /* the last thing: it may end the loop */
    } else if (r->release_done) {
        release_step(r); /* the last thing: r may be gone */
    }
}

static void run_grave_empty(struct timer *t)
{
    struct run *r = CONTAINER_OF(t, struct run, grave_timer);
    while (!list_empty(&r->grave))
        rep_free(CONTAINER_OF(r->grave.next, struct replica, link));
    if (r->volumes_stale)
        volumes_trim(r);
}

/* ---- what is wanted ------------------------------------------------------------------------------------------------------ */

static int workload_cmp(const struct workload *wl, const char *ns, const char *name)
{
    int c = strcmp(wl->ns, ns);
    return c ? c : strcmp(wl->name, name);
}

static void workload_timer(struct timer *t)
{
    run_touch(CONTAINER_OF(t, struct workload, timer));
}

struct workload *workload_get(struct run *r, const char *ns, const char *name, bool make)
{
    struct list *at = &r->workloads;
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        int c = workload_cmp(wl, ns, name);
        if (c == 0)
            return wl;
        if (c > 0) {
            at = it;
            break;
        }
    }
    if (!make)
        return NULL;
    struct workload *wl = mem_new(MEM_RUN, sizeof *wl);
    wl->run = r;
    wl->ns = mem_strdup(MEM_RUN, ns);
    wl->name = mem_strdup(MEM_RUN, name);
    wl->progress_ms = loop_now_ms(r->loop);
    list_init(&wl->replicas);
    timer_init(&wl->timer, workload_timer);
    list_push(at, &wl->link); /* before *at: keeps the order */
    run_state_workload(r, wl);
    return wl;
}

static uint32_t share_of(const struct run *r, const struct object *dep)
{
    return r->ops.share ? MIN(r->ops.share(r->ctx, dep), dep->dep.replicas) : dep->dep.replicas;
}

void run_want(struct run *r, const struct objset *set)
{
    MUST(r->magic == RUN_MAGIC);
    if (r->stopping)
        return;
    r->set = set;
    if (++r->wants_n == 2)
        buf_free(&r->saved); /* adoption is over */
    LIST_FOREACH(it, &r->workloads)
        CONTAINER_OF(it, struct workload, link)->obj = NULL;
    for (size_t i = 0; i < objset_n(set); i++) {
        const struct object *o = objset_at(set, i);
        struct workload *wl = o->kind == OBJ_DEPLOYMENT ? workload_get(r, o->ns, o->name, true) : NULL;
        if (!wl)
            continue;
        wl->obj = o;
        wl->share = share_of(r, o);
    }
    run_files_write(r); /* before anything starts: it is mounted then */
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        config_want(wl);
        rollout_want(wl);
        run_touch(wl);
    }
    volumes_follow(r);
    volumes_trim(r);
    run_state_changed(r);
}

void run_shares(struct run *r)
{
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        uint32_t share = wl->obj ? share_of(r, wl->obj) : 0;
        if (!wl->obj || share == wl->share)
            continue;
        wl->share = share;
        wl->complete = false;
        run_touch(wl);
    }
}

void run_drop(struct run *r, const char *ns, const char *deployment, uint32_t ms)
{
    struct workload *wl = workload_get(r, ns, deployment, false);
    if (!wl)
        return;
    LIST_FOREACH(it, &wl->replicas)
        rep_drop(CONTAINER_OF(it, struct replica, link), ms);
    run_touch(wl);
}

static bool rep_is_there(const struct replica *rp) { return rp->phase == PH_STARTING || rp->pid != 0; }
bool rep_runs_once(const struct replica *rp) { return (rp->wl->obj && rp->wl->obj->dep.run_once) || (rp->rev->obj && rp->rev->obj->dep.run_once); }

bool run_has(struct run *r, const char *ns, const char *deployment)
{
    struct workload *wl = workload_get(r, ns, deployment, false);
    bool has = false;
    if (!wl)
        return false;
    LIST_FOREACH(it, &wl->replicas)
        has = has || rep_is_there(CONTAINER_OF(it, struct replica, link));
    return has;
}

void run_once_ids(struct run *r, void (*each)(void *ctx, uint64_t replica_id), void *ctx)
{
    LIST_FOREACH(it, &r->workloads)
        LIST_FOREACH(rit, &CONTAINER_OF(it, struct workload, link)->replicas) {
            const struct replica *rp = CONTAINER_OF(rit, struct replica, link);
            if (rep_runs_once(rp) && rep_is_there(rp))
                each(ctx, rp->id);
        }
}

enum err run_restart(struct run *r, const char *ns, const char *deployment)
{
    struct workload *wl = workload_get(r, ns, deployment, false);
    if (!wl || !wl->obj)
        return ERR_NOTFOUND;
    if (wl->obj->dep.paused || r->stopping)
        return ERR_INVALID; /* as kubectl: a paused Deployment can't be restarted */
    wl->restart_n++;
    rollout_want(wl);
    run_touch(wl);
    run_state_changed(r);
    return OK;
}

void run_stop(struct run *r, void (*done)(void *ctx))
{
    r->stopping = true;
    r->stop_done = done;
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        wl->obj = NULL;
        run_touch(wl);
    }
    r->set = NULL;
    run_defer(r);
}

/* ---- endpoints --------------------------------------------------------------------------------------------------------------- */

const struct live_endpoint *run_endpoints(struct run *r, size_t *n)
{
    r->eps_n = 0;
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        LIST_FOREACH(rit, &wl->replicas) {
            struct replica *rp = CONTAINER_OF(rit, struct replica, link);
            const struct pod_template *pod = rep_pod(rp);
            if (!rp->ready || rp->doomed || !pod)
                continue;
            ARRAY_GROW(MEM_RUN, r->eps, r->eps_n, r->eps_cap);
            r->eps[r->eps_n++] = (struct live_endpoint){.replica_id = rp->id, .ns = wl->ns, .deployment = wl->name,
                .name = rp->name, .labels = &pod->labels, .ports = pod->ports, .ports_n = pod->ports_n};
        }
    }
    *n = r->eps_n;
    return r->eps;
}

struct replica *run_find(struct run *r, uint64_t id)
{
    struct replica *rp = table_get(&r->by_id, slice_of((const char *)&id, sizeof id));
    MUST(!rp || rp->magic == REPLICA_MAGIC);
    return rp;
}

bool run_replica_name(struct run *r, uint64_t replica_id, const char **ns, const char **deployment, const char **name)
{
    struct replica *rp = run_find(r, replica_id);
    if (!rp)
        return false;
    *ns = rp->wl->ns;
    *deployment = rp->wl->name;
    *name = rp->name;
    return true;
}

/* ---- sup's answers -------------------------------------------------------------------------------------------------------------- */

static void close_fds(const struct sup_replica *rep)
{
    if (rep->out_fd >= 0)
        socket_close(rep->out_fd);
    if (rep->err_fd >= 0)
        socket_close(rep->err_fd);
    if (rep->listen_fd >= 0)
        socket_close(rep->listen_fd);
}

void run_on_started(struct run *r, uint64_t id, enum err e, const char *text, const struct sup_replica *rep)
{
    struct replica *rp = run_find(r, id);
    if (!rp || rp->phase != PH_STARTING) {
        log_warn("run", "started: unknown process %llu", (unsigned long long)id);
        if (e == OK && rep) {
            close_fds(rep);
            sup_signal(r->sup, id, 9);
        }
        return;
    }
    rep_started(rp, e, text, rep);
}

void run_on_exited(struct run *r, uint64_t id, int32_t status, bool oom_killed)
{
    struct replica *rp = run_find(r, id);
    if (rp)
        rep_exited(rp, status, oom_killed);
    else
        sup_forget(r->sup, id); /* one that could not be adopted */
}

void run_on_exec_done(struct run *r, uint64_t id, uint64_t token, enum err e, int32_t status, struct slice output)
{
    struct replica *rp = run_find(r, id);
    if (!rp)
        return;
    if (token_use(token) != USE_PRE_STOP)
        prober_exec_done(&rp->probers[token_use(token)], token, e, status, output);
    else if (rp->token == token && rp->step == STOP_PRE_STOP)
        rep_pre_stop_done(rp);
}

static void pre_stop_checked(void *owner, bool ok, const char *text)
{
    struct replica *rp = owner;
    rp->pre_stop = NULL;
    if (!ok)
        log_warn("run", "%s/%s: preStop %s", rp->wl->ns, rp->name, text);
    rep_pre_stop_done(rp);
}

bool run_on_sockets(struct run *r, uint64_t id, uint64_t token, const int *fds, int n)
{
    if (!(token & RUN_TOKEN_BIT))
        return false;
    struct replica *rp = run_find(r, id);
    if (rp && token_use(token) != USE_PRE_STOP) {
        prober_sockets(&rp->probers[token_use(token)], token, fds, n);
        return true;
    }
    int used = 0;
    if (rp && rp->token == token && rp->step == STOP_PRE_STOP) {
        rp->token = 0;
        if (n > 0) {
            rp->pre_stop = netcheck_start(r, fds[used++], &rep_pod(rp)->pre_stop_http, pre_stop_checked, rp);
        } else {
            rep_pre_stop_done(rp);
        }
    }
    for (; used < n; used++)
        if (fds[used] >= 0)
            socket_close(fds[used]);
    return true;
}

/* ---- adoption ---------------------------------------------------------------------------------------------------------------------- */

/* The revision of an adopted replica: one that others have already, or one as it was saved. */
static struct revision *adopt_revision(struct workload *wl, uint64_t key)
{
    struct revision *rev = revision_find(wl, key);
    if (rev)
        return revision_ref(rev);
    rev = revision_new(key);
    (void)run_state_revision(wl->run, wl, rev); /* else it stays unknown until run_want() */
    return rev;
}

static void adopt_refuse(struct run *r, const struct sup_replica *rep)
{
    log_warn("run", "process %d is of an unknown version of Weir (label \"%s\"): it is ended", (int)rep->pid, rep->label);
    close_fds(rep);
    if (rep->exited)
        sup_forget(r->sup, rep->id);
    else
        sup_signal(r->sup, rep->id, 9); /* run_on_exited() forgets it */
}

void run_on_adopt(struct run *r, const struct sup_replica *rep)
{
    struct label lb;
    if (!run_label_parse(slice_cstr(rep->label), &lb)) {
        adopt_refuse(r, rep);
        return;
    }
    if (rep->id >= r->next_id)
        r->next_id = rep->id + 1; /* the clock was set back */
    char *ns = mem_strndup(MEM_RUN, lb.ns.p, lb.ns.n), *dep = mem_strndup(MEM_RUN, lb.deployment.p, lb.deployment.n);
    char *name = mem_strndup(MEM_RUN, lb.name.p, lb.name.n);
    struct workload *wl = workload_get(r, ns, dep, true);
    struct revision *rev = adopt_revision(wl, lb.key);
    struct replica *rp = rep_new(wl, rev, name);
    revision_unref(rev);
    rp->restarts = (uint32_t)lb.restarts;
    rp->backoff_step = (uint32_t)MIN(lb.backoff_step, RUN_BACKOFF_STEP_MAX);
    struct saved_replica was;
    run_state_replica(r, rep->id, &was);
    r->adoptions++;
    rep_adopt(rp, rep, &was);
    run_touch(wl);
    mem_free(ns);
    mem_free(dep);
    mem_free(name);
}
