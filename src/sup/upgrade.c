/* upgrade.c - another engine, of another binary, takes over from the one that is in charge.
 *
 *     NONE -> PREPARING -> RELEASING -> TAKING -> DRAINING -> NONE
 *
 *     from (old)      sup                          to (new)
 *       |-- UPGRADE -->|  PREPARING: launched         |
 *       |              |<------------------- HELLO ---|   its protocol
 *       |              |-- REHEARSE ----------------->|   reads the objects, compiles them
 *       |              |<---------------- PREPARED ---|
 *       |<-- RELEASE --|  RELEASING                   |
 *       |-- RELEASED ->|  TAKING: `to` is in charge   |   `from` goes on accepting, and runs nothing
 *       |              |-- TAKE, ADOPT..., READY ---->|   adopts, compiles, its workers take the plan and accept
 *       |              |<----------------- SERVING ---|
 *       |<-- DRAIN ----|  DRAINING                    |   `from` accepts no more
 *       x exit         |-- ALONE -------------------->|
 *
 * Until SERVING nothing is decided: whatever goes wrong, `to` is killed, and `from` takes again (TAKE ... READY, `again` set) if
 * it had released. From SERVING on `to` is the engine, and its binary the one that restarts are made of. If `from` dies
 * before that, `to` takes what there is as soon as it is prepared. README.md tables the failures.
 *
 * Replicas and listeners belong to sup all the while; an engine in charge only decides about them.
 */
#include "sup_int.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell_failed(struct sup *s, struct sup_engine *e, enum err er, const char *text)
{
    struct buf b = {0};
    sup_put_u32(&b, (uint32_t)er);
    sup_put_str(&b, text);
    if (e)
        sup_tell_to(s, e, SUP_UPGRADE_FAILED, &b, NULL, 0);
    buf_free(&b);
}

void upgrade_free(struct sup *s)
{
    if (s->up.exe_fd >= 0)
        close(s->up.exe_fd);
    mem_free(s->up.path);
    mem_free(s->up.failed);
    s->up = (struct upgrade){.exe_fd = -1};
}

static void enter(struct sup *s, enum upgrade_state state, uint64_t ms)
{
    s->up.state = state;
    s->up.deadline_ms = sup_now_ms() + ms;
}

/* ---- failure --------------------------------------------------------------------------------------------------------- */

/* `from` is the engine again, as if nothing had been; if it has died, one of the binary that ran until now is started. */
static void fall_back(struct sup *s, const char *text, bool had_released)
{
    struct sup_engine *from = s->up.from;
    log_error("sup", "the upgrade has failed: %s", text);
    if (had_released && from)
        engine_take(s, from, true);
    if (from)
        tell_failed(s, from, ERR_CLOSED, text);
    else if (s->phase == SUP_RUNNING)
        engine_restart_later(s, 0);
    else
        sup_end(s, 1, true);
    if (had_released && from && s->phase == SUP_STOPPING)
        sup_tell(s, SUP_STOP, NULL, NULL, 0);
    upgrade_free(s);
}

static void fail(struct sup *s, const char *text)
{
    struct upgrade *u = &s->up;
    engine_discard(s, u->to);
    u->to = NULL;
    if (u->state == UPGRADE_RELEASING) { /* `from` is letting go: it takes again when it has */
        if (!u->failed)
            u->failed = mem_strdup(MEM_SUP, text);
        u->deadline_ms = UINT64_MAX;
        return;
    }
    bool taking = u->state == UPGRADE_TAKING;
    if (taking) {
        s->charge = NULL;
        replicas_engine_gone(s); /* what `to` was starting */
    }
    fall_back(s, text, taking);
}

/* ---- forward --------------------------------------------------------------------------------------------------------- */

static void take_over(struct sup *s)
{
    enter(s, UPGRADE_TAKING, SUP_TAKE_MS_MAX);
    engine_take(s, s->up.to, false);
}

static const char *state_text(const struct sup *s, char text[SUP_TEXT_MAX])
{
    const struct upgrade *u = &s->up;
    if (u->state == UPGRADE_DRAINING)
        snprintf(text, SUP_TEXT_MAX, "an upgrade is in progress: the former engine (process %d) is still finishing its requests", (int)u->from->pid);
    else
        snprintf(text, SUP_TEXT_MAX, "an upgrade is in progress: the new engine (process %d) is getting ready", u->to ? (int)u->to->pid : 0);
    return text;
}

void upgrade_request(struct sup *s, struct sup_engine *from, struct sup_in *in)
{
    struct upgrade *u = &s->up;
    char text[SUP_TEXT_MAX];
    uint32_t ready_ms = sup_get_u32(&in->r), drain_ms = sup_get_u32(&in->r);
    const char *path = sup_get_str(&in->r);
    if (!path || !sup_get_end(&in->r) || in->fds_n != 1) {
        in->r.bad = true;
        return;
    }
    if (u->state != UPGRADE_NONE || from != s->charge || s->phase != SUP_RUNNING) {
        tell_failed(s, from, ERR_AGAIN, s->phase != SUP_RUNNING ? "the node is being stopped" : state_text(s, text));
        return;
    }
    u->to = engine_launch(s, in->fds[0]);
    if (!u->to) {
        snprintf(text, sizeof text, "no process can be started: %s", strerror(errno));
        tell_failed(s, from, ERR_LIMIT, text);
        return;
    }
    u->from = from;
    u->exe_fd = in->fds[0];
    in->fds[0] = -1;
    u->path = mem_strdup(MEM_SUP, path);
    u->drain_ms = MIN(drain_ms, SUP_DRAIN_MS_MAX);
    enter(s, UPGRADE_PREPARING, MIN(ready_ms, SUP_READY_MS_MAX));
    log_info("sup", "upgrade: %s is started as the next engine (pid %d)", path, (int)u->to->pid);
}

void upgrade_greeted(struct sup *s, struct sup_engine *e, const char *wrong)
{
    if (e != s->up.to || s->up.state != UPGRADE_PREPARING)
        return;
    if (wrong)
        fail(s, wrong);
    else
        sup_tell_to(s, e, SUP_REHEARSE, NULL, NULL, 0);
}

void upgrade_prepared(struct sup *s, struct sup_engine *e, enum err er, const char *why_not)
{
    char text[SUP_TEXT_MAX];
    if (e != s->up.to || s->up.state != UPGRADE_PREPARING)
        return;
    if (er != OK) {
        snprintf(text, sizeof text, "the new engine (%.200s) can't take over: %s", s->up.path, why_not);
        fail(s, text);
        return;
    }
    if (!s->up.from) {
        take_over(s);
        return;
    }
    enter(s, UPGRADE_RELEASING, SUP_RELEASE_MS_MAX);
    sup_tell_to(s, s->up.from, SUP_RELEASE, NULL, NULL, 0);
}

void upgrade_released(struct sup *s, struct sup_engine *e, enum err er, const char *why_not)
{
    struct upgrade *u = &s->up;
    char text[SUP_TEXT_MAX];
    if (e != u->from || u->state != UPGRADE_RELEASING)
        return;
    if (er != OK) { /* it has let go of nothing */
        snprintf(text, sizeof text, "the engine can't be replaced now: %s", why_not);
        engine_discard(s, u->to);
        u->to = NULL;
        fall_back(s, u->failed ? u->failed : text, false);
        if (s->phase == SUP_STOPPING)
            sup_tell(s, SUP_STOP, NULL, NULL, 0);
    } else if (u->failed) {
        fall_back(s, u->failed, true);
    } else {
        take_over(s);
    }
}

static void drained(struct sup *s)
{
    sup_tell(s, SUP_ALONE, NULL, NULL, 0);
    upgrade_free(s);
}

void upgrade_serving(struct sup *s, struct sup_engine *e)
{
    struct upgrade *u = &s->up;
    if (e != u->to || u->state != UPGRADE_TAKING)
        return; /* said after every start */
    log_info("sup", "upgrade: %s serves (pid %d)", u->path, (int)e->pid);
    close(s->exe_fd);
    s->exe_fd = u->exe_fd;
    u->exe_fd = -1;
    s->upgrades++;
    s->backoff_ms = 0;
    enter(s, UPGRADE_DRAINING, (uint64_t)u->drain_ms + SUP_LEAVE_MS_MAX);
    if (!u->from) {
        drained(s);
        return;
    }
    struct buf b = {0};
    sup_put_u32(&b, u->drain_ms);
    sup_put_u32(&b, (uint32_t)e->pid);
    sup_tell_to(s, u->from, SUP_DRAIN, &b, NULL, 0);
    buf_free(&b);
}

/* ---- ends ------------------------------------------------------------------------------------------------------------ */

static void to_ended(struct sup *s, const struct sup_engine *e, int status)
{
    char how[SUP_TEXT_MAX], text[SUP_TEXT_MAX];
    const char *when = s->up.state == UPGRADE_TAKING ? " before it served; what it said is in the node's log" : " before it was ready; what it said is in the node's log";
    bool ran = engine_end_text(e, status, how);
    s->up.to = NULL;
    snprintf(text, sizeof text, "the new engine (%.200s) %.200s%s", s->up.path, how, ran ? when : "");
    fail(s, text);
}

static void from_ended(struct sup *s, const struct sup_engine *e, int status)
{
    struct upgrade *u = &s->up;
    char how[SUP_TEXT_MAX];
    (void)engine_end_text(e, status, how);
    u->from = NULL;
    if (u->state == UPGRADE_DRAINING || u->state == UPGRADE_TAKING) {
        bool calm = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (calm)
            log_info("sup", "upgrade: the former engine (pid %d) has finished its requests and ended", (int)e->pid);
        else
            log_error("sup", "upgrade: the former engine (pid %d) %s", (int)e->pid, how);
        if (u->state == UPGRADE_DRAINING)
            drained(s);
        else
            sup_tell(s, SUP_ALONE, NULL, NULL, 0);
        return;
    }
    log_error("sup", "upgrade: the engine (pid %d) %s; the new one takes over", (int)e->pid, how);
    replicas_engine_gone(s);
    if (s->phase == SUP_STOPPING) {
        sup_end(s, 1, true);
    } else if (u->state == UPGRADE_PREPARING) {
        u->deadline_ms = MIN(u->deadline_ms, sup_now_ms() + SUP_ORPHAN_MS_MAX);
    } else if (u->failed) {
        fall_back(s, u->failed, true);
    } else {
        take_over(s);
    }
}

bool upgrade_reaped(struct sup *s, struct sup_engine *e, bool was_charge, int status)
{
    struct upgrade *u = &s->up;
    if (u->state == UPGRADE_NONE || (e != u->from && e != u->to))
        return false;
    if (e == u->from) {
        from_ended(s, e, status);
        return true;
    }
    if (u->state == UPGRADE_DRAINING) { /* it is the engine now, and is restarted as any */
        u->to = NULL;
        return false;
    }
    if (s->phase == SUP_STOPPING && was_charge) {
        sup_end(s, 1, true);
        return true;
    }
    to_ended(s, e, status);
    return true;
}

void upgrade_stop(struct sup *s)
{
    struct upgrade *u = &s->up;
    if (u->state == UPGRADE_PREPARING || u->state == UPGRADE_RELEASING)
        fail(s, "the node is being stopped");
    else if (u->state == UPGRADE_TAKING)
        upgrade_serving(s, u->to); /* both stop accepting */
    if (u->state != UPGRADE_RELEASING) /* else `from` hears of it when it has taken again */
        sup_tell(s, SUP_STOP, NULL, NULL, 0);
}

void upgrade_deadline(struct sup *s, uint64_t now_ms)
{
    struct upgrade *u = &s->up;
    char text[SUP_TEXT_MAX];
    if (u->state == UPGRADE_NONE || now_ms < u->deadline_ms)
        return;
    switch (u->state) {
    case UPGRADE_PREPARING:
        snprintf(text, sizeof text, "the new engine (%.200s) was not ready in time; what it said is in the node's log", u->path);
        fail(s, text);
        break;
    case UPGRADE_RELEASING: fail(s, "the engine did not let go of its workloads in time"); break;
    case UPGRADE_TAKING:
        snprintf(text, sizeof text, "the new engine (%.200s) did not serve within %d s of taking over", u->path, SUP_TAKE_MS_MAX / 1000);
        fail(s, text);
        break;
    case UPGRADE_DRAINING:
        log_warn("sup", "upgrade: the former engine (pid %d) has not ended in time and is killed", (int)u->from->pid);
        engine_kill(u->from);
        u->deadline_ms = UINT64_MAX;
        break;
    case UPGRADE_NONE: break;
    }
}
