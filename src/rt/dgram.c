/* dgram.c - UDP sockets: level-triggered like a watch, at most DGRAMS_PER_EVENT datagrams of one socket in a turn.
 *
 * A datagram is read into the loop's read buffer, whose size none exceeds, and is the user's during the call only. Nothing is queued for sending:
 * what the kernel does not take now is lost, which whoever speaks UDP must bear anyway.
 */
#include "rt_int.h"

#include <errno.h>

_Static_assert(DGRAM_BYTES_MAX <= STREAM_READ_BYTES, "a datagram fits into the read buffer");

enum err dgram_socket(const struct addr *at, const struct addr *to, int *fd)
{
    MUST(at || to);
    int r = sys_dgram(at, to);
    if (r < 0) return err_from_errno(-r);
    *fd = r;
    return OK;
}

static void dgram_event(struct watch *w)
{
    struct dgram *d = CONTAINER_OF(w, struct dgram, watch);
    struct loop *l = w->loop;
    char *p = l->read_buf + STREAM_HEADROOM;
    l->current = d;
    for (uint32_t i = 0; i < DGRAMS_PER_EVENT && l->current == d; i++) {
        struct addr from;
        ssize_t n = sys_dgram_recv(w->fd, p, DGRAM_BYTES_MAX, &from);
        if (n == -EAGAIN) break;
        if (n >= 0) d->received(d, p, (size_t)n, &from);
        else if (d->failed) d->failed(d, err_from_errno((int)-n));
    }
    l->current = NULL;
}

void dgram_start(struct dgram *d, struct loop *l, int fd) { watch_start(&d->watch, l, fd, dgram_event); }

void dgram_stop(struct dgram *d)
{
    if (!d->watch.on) return;
    if (d->watch.loop->current == d) d->watch.loop->current = NULL;
    watch_stop(&d->watch);
}

enum err dgram_send(struct dgram *d, const void *p, size_t n, const struct addr *to)
{
    ssize_t r = sys_dgram_send(d->watch.fd, p, n, to);
    return r < 0 ? err_from_errno((int)-r) : OK;
}
