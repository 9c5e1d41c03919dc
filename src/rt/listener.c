/* listener.c - sockets that accept, and descriptors that are merely watched.
 *
 * Both are level-triggered: what is left undone in one turn is told again in the next. A listener takes at most
 * ACCEPTS_PER_EVENT connections per turn, so that a flood of them does not hold up those that stand. How many it tries to
 * take follows how many there were, since to ask once too often costs a system call per connection when they come singly.
 * When the system has
 * no descriptor left (EMFILE and the like) the listener leaves the poller for ACCEPT_PAUSE_MS instead of spinning.
 *
 * Neither closes its descriptor, so both leave the poller explicitly, and their events of the present batch are struck
 * out: memory may go as soon as listener_stop() or watch_stop() returns, even within the callback.
 */
#include "rt_int.h"

#include <errno.h>

/* ---- listeners ---- */

static void listener_poll(struct listener *ln)
{
    int r = sys_poller_add_level(ln->loop->poller, ln->fd, src_tag(ln, SRC_LISTENER), ln->shared);
    if (r == 0) {
        ln->polled = true;
        return;
    }
    ln->accept_errors++; /* no kernel memory for it now: try again later */
    timer_set(ln->loop, &ln->pause, ACCEPT_PAUSE_MS);
}

static void listener_unpoll(struct listener *ln)
{
    if (!ln->polled) return;
    ln->polled = false;
    sys_poller_del(ln->loop->poller, ln->fd);
    loop_forget_events(ln->loop, src_tag(ln, SRC_LISTENER));
}

static void listener_resume(struct timer *t)
{
    listener_poll(CONTAINER_OF(t, struct listener, pause));
}

void listener_start(struct listener *ln, struct loop *l, int fd, bool shared,
                    void (*accepted)(struct listener *, int, const struct addr *))
{
    ln->loop = l;
    ln->fd = fd;
    ln->shared = shared;
    ln->accepted = accepted;
    ln->accept_errors = 0;
    ln->quota = 1;
    ln->fulls = 0;
    ln->open = true;
    ln->polled = false;
    timer_init(&ln->pause, listener_resume);
    list_push(&l->listeners, &ln->link);
    sys_nodelay(fd); /* accepted sockets inherit it: one call here instead of one per connection */
    listener_poll(ln);
}

void listener_stop(struct listener *ln)
{
    if (!ln->open) return;
    ln->open = false;
    listener_unpoll(ln);
    timer_clear(&ln->pause);
    list_del(&ln->link);
    if (ln->loop->current == ln) ln->loop->current = NULL;
}

/* The connection itself failed before it was taken (accept(2)): not the listener's trouble. */
static bool accept_error_passes(int e)
{
    switch (e) {
    case ECONNABORTED: case EINTR: case EPROTO: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN:
    case ENONET: case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case EPERM: return true;
    default: return false;
    }
}

/* The event used up the quota, or found nothing more after n connections. */
static void listener_adapt(struct listener *ln, uint32_t n)
{
    if (n < ln->quota) {
        ln->quota = MAX(n, 1);
        ln->fulls = 0;
    } else if (++ln->fulls == ACCEPTS_GROW_AFTER) {
        ln->quota = MIN(ln->quota * 2, ACCEPTS_PER_EVENT);
        ln->fulls = 0;
    }
}

void listener_event(struct listener *ln)
{
    struct loop *l = ln->loop;
    uint32_t n = 0;
    l->current = ln;
    for (; n < ln->quota; n++) {
        struct addr peer;
        int fd = sys_accept(ln->fd, &peer);
        if (fd >= 0) {
            ln->accepted(ln, fd, &peer);
            if (l->current != ln) return; /* stopped, perhaps freed */
            continue;
        }
        if (fd == -EAGAIN) break;
        ln->accept_errors++;
        if (accept_error_passes(-fd)) continue;
        listener_unpoll(ln);
        timer_set(l, &ln->pause, ACCEPT_PAUSE_MS);
        break;
    }
    listener_adapt(ln, n);
    l->current = NULL;
}

enum err listen_socket(const struct addr *a, int backlog, bool reuseport, int *fd)
{
    int r = sys_listen(a, backlog, reuseport);
    if (r < 0) return err_from_errno(-r);
    *fd = r;
    return OK;
}

void socket_close(int fd)
{
    if (fd >= 0) sys_close(fd);
}

/* ---- watches ---- */

void watch_start(struct watch *w, struct loop *l, int fd, void (*fn)(struct watch *))
{
    w->loop = l;
    w->fd = fd;
    w->fn = fn;
    w->on = true;
    MUST(sys_poller_add_level(l->poller, fd, src_tag(w, SRC_WATCH), false) == 0);
}

void watch_stop(struct watch *w)
{
    if (!w->on) return;
    w->on = false;
    sys_poller_del(w->loop->poller, w->fd);
    loop_forget_events(w->loop, src_tag(w, SRC_WATCH));
}

enum err socket_pair(int fds[2])
{
    int r = sys_pair(fds);
    return r < 0 ? err_from_errno(-r) : OK;
}

enum err socket_local_addr(int fd, struct addr *a)
{
    int r = sys_local_addr(fd, a);
    return r < 0 ? err_from_errno(-r) : OK;
}
