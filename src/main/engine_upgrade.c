/* engine_upgrade.c - this engine's part in an upgrade: as the new one, and as the old one.
 *
 *   new   rehearse(): the objects that the old engine left in the data folder, a plan of them, external names -> sup_prepared()
 *         take(), adopt_*(), ready(): as after a restart (engine.c) -> every worker uses the plan -> sup_serving() -> the api
 *   old   upgrade_ask() -> sup ... release(): the api rests, the control store and the event log close, run lets go -> sup_released()
 *         drain(): the workers leave -> the process ends;  or take() ... ready(again): run and the api go on
 *
 * While it has released, e->run is NULL, and the workers go on as they were, with the last plan: they know nothing of it. What sup does
 * meanwhile, and who is in charge when, is in sup/upgrade.c.
 */
#include "engine_int.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define HAND_POLL_MS 2

static uint64_t hand_ms(const struct engine *e) { return loop_now_ms(e->loop) - e->hand_since_ms; }

static void hand_enter(struct engine *e, int hand)
{
    e->hand = (typeof(e->hand))hand;
    e->hand_since_ms = loop_now_ms(e->loop);
    timer_set(e->loop, &e->hand_poll, 0);
}

/* ---- the new engine ------------------------------------------------------------------------------------------------------ */

void upgrade_rehearse(struct engine *e)
{
    struct diags d = {0};
    struct objset *set = objset_new();
    e->later = true;
    if (objects_rehearse(e, set, &d)) {
        struct diags refs = {0};
        struct plan_memory *memory = plan_memory_new();
        objset_check(set, &refs); /* as at a restart: what is amiss was amiss before */
        objset_addresses(set);
        plan_unref(plan_compile(memory, set, NULL, 0, NULL, 0));
        plan_memory_free(memory);
        diags_free(&refs);
        resolver_want(e->resolver, set);
        hand_enter(e, HAND_REHEARSING);
    } else {
        struct buf why = {0};
        if (d.n)
            diag_format(&d.items[0], &why);
        log_error("engine", "%s", why.n ? why.p : "the saved objects can't be used");
        sup_prepared(e->sup, ERR_INVALID, why.n ? why.p : "the saved objects can't be used");
        buf_free(&why);
    }
    diags_free(&d);
    objset_free(set);
}

void upgrade_serving_soon(struct engine *e) { hand_enter(e, HAND_SERVING); }

static bool workers_follow(const struct engine *e)
{
    for (uint32_t i = 0; i < e->workers_n; i++)
        if (!e->plan || proxy_plan_generation(e->proxies[i]) < e->plan->generation)
            return false;
    return true;
}

/* ---- the old engine ------------------------------------------------------------------------------------------------------ */

/* The binary is opened here, with this process's rights and not sup's. -1 with why_not. */
static int binary_open(const char *path, struct buf *why_not)
{
    struct stat st;
    char magic[4] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        buf_printf(why_not, "%s can't be opened: %s", path, err_text(err_from_errno(errno)));
    else if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
        buf_printf(why_not, "%s is no file that may be executed", path);
    else if (pread(fd, magic, sizeof magic, 0) != (ssize_t)sizeof magic || memcmp(magic, "\177ELF", 4) != 0)
        buf_printf(why_not, "%s is no program in machine code (ELF), and a script can't be an engine", path);
    else
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The file that this process was started from, or what has been put in its place since. */
static bool own_binary(char *path, size_t max)
{
    static const char gone[] = " (deleted)";
    ssize_t n = readlink("/proc/self/exe", path, max - 1);
    if (n <= 0)
        return false;
    path[n] = 0;
    if (slice_ends(slice_of(path, (size_t)n), SLICE(" (deleted)")) && access(path, F_OK) != 0)
        path[(size_t)n - (sizeof gone - 1)] = 0;
    return true;
}

enum err upgrade_ask(struct engine *e, const char *path, uint32_t ready_ms, uint32_t drain_ms, struct buf *why_not)
{
    char own[4096];
    if (e->stopping || !e->run || e->hand == HAND_RELEASING) {
        buf_adds(why_not, e->stopping ? "the node is being stopped" : "an upgrade is in progress");
        return ERR_AGAIN;
    }
    if (!path && !own_binary(own, sizeof own)) {
        buf_adds(why_not, "the path of the running binary is not known");
        return ERR_INVALID;
    }
    int fd = binary_open(path ? path : own, why_not);
    if (fd < 0)
        return ERR_INVALID;
    enum err er = objects_copy(e); /* the control store is this engine's until it makes way */
    if (er != OK) {
        buf_printf(why_not, "the objects can't be written for the other engine: %s", err_text(er));
        close(fd);
        return er;
    }
    sup_upgrade(e->sup, fd, path ? path : own, ready_ms, drain_ms);
    close(fd);
    return OK;
}

void upgrade_over(struct engine *e, enum err er, const char *text)
{
    objects_copy_remove(e);
    if (e->api_open) /* sup has said it in the log */
        api_upgraded(e->api, er, text, 0);
}

static void stay(struct engine *e, enum err er, const char *why_not)
{
    timer_clear(&e->hand_poll);
    e->hand = HAND_NONE;
    broker_up(e);
    store_up(e);
    if (e->api_open)
        api_resume(e->api);
    sup_released(e->sup, er, why_not);
}

static void released(void *ctx, enum err er)
{
    struct engine *e = ctx;
    if (er != OK) {
        stay(e, er, "run.state can't be written in the data folder; see the node's log");
        return;
    }
    run_free(e->run);
    e->run = NULL;
    e->hand = HAND_RELEASED;
    timer_clear(&e->gate_retry);
    engine_output_close(e); /* what was captured is in the files before the next engine adds to them */
    sup_released(e->sup, OK, NULL);
}

/* The data folders of the control store and of the event log are the next engine's. */
static void broker_is_down(struct engine *e)
{
    if (e->stopping)
        stay(e, ERR_AGAIN, "the node is being stopped");
    else
        run_release(e->run, released);
}

void upgrade_release(struct engine *e)
{
    if (e->stopping || !e->objs.settled) {
        sup_released(e->sup, ERR_AGAIN, e->stopping ? "the node is being stopped" : "it is still starting");
        return;
    }
    if (e->api_open)
        api_suspend(e->api);
    hand_enter(e, HAND_RELEASING);
}

void upgrade_back(struct engine *e)
{
    e->hand = HAND_NONE;
    e->leaving_pid = 0;
    run_want(e->run, e->objects);
    mesh_trim(e);
    engine_publish(e);
    broker_up(e);
    store_up(e);
    if (e->api_open)
        api_resume(e->api);
    else
        engine_api_open(e);
    log_warn("engine", "the upgrade has come to nothing; this engine goes on");
}

void upgrade_drain(struct engine *e, uint32_t ms, int32_t new_pid)
{
    log_info("engine", "process %d has taken over; requests in flight are finished", (int)new_pid);
    if (e->api_open)
        api_upgraded(e->api, OK, NULL, new_pid);
    e->drained_n = 0;
    workers_post_all(e, (struct msg){.type = W_LEAVE, .n = ms});
    hand_enter(e, HAND_LEAVING);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------- */

/* True when there is nothing more to wait for. */
static bool hand_step(struct engine *e)
{
    switch (e->hand) {
    case HAND_REHEARSING:
        if (!resolver_settled(e->resolver) && hand_ms(e) < REHEARSE_RESOLVE_MS)
            return false;
        e->hand = HAND_NONE;
        sup_prepared(e->sup, OK, NULL);
        return true;
    case HAND_SERVING:
        if (!workers_follow(e))
            return false;
        e->hand = HAND_NONE;
        sup_serving(e->sup);
        if (!e->stopping)
            engine_api_open(e);
        return true;
    case HAND_RELEASING:
        if (e->stopping) {
            stay(e, ERR_AGAIN, "the node is being stopped");
            return true;
        }
        if (e->api_open && api_busy(e->api) && hand_ms(e) < API_REST_MS)
            return false;
        store_down(e, broker_is_down);
        return true;
    case HAND_LEAVING:
        if (e->drained_n < e->workers_n || (e->api_open && api_busy(e->api) && hand_ms(e) < API_REST_MS))
            return false;
        log_info("engine", "no request is left");
        loop_defer(e->loop, &e->end);
        return true;
    case HAND_NONE:
    case HAND_RELEASED: break;
    }
    return true;
}

static void hand_turn(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, hand_poll);
    if (!hand_step(e))
        timer_set(e->loop, &e->hand_poll, HAND_POLL_MS);
}

void upgrade_init(struct engine *e) { timer_init(&e->hand_poll, hand_turn); }
