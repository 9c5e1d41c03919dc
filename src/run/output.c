/* output.c - a pipe of a replica into lines.
 *
 * Model: sup hands over the read ends of a process's standard output and error, non-blocking. A watch says when there is
 * something; at most RUN_READ_MAX bytes are taken per callback, so that one noisy replica does not starve the loop. A line
 * that is whole in what was read is told from the read buffer; only an incomplete one is copied and waits for its rest, in
 * a buffer that is freed as soon as the line ends. A line longer than RUN_LINE_MAX is told in pieces.
 *
 * rt has watches but no read for pipes in its public header, so read(2) is called here, in one place.
 */
#include "run_int.h"

#include <errno.h>
#include <unistd.h>

#define READ_BYTES 16384 /* per read(2); on the stack */

static void outpipe_readable(struct watch *w);

void outpipe_init(struct outpipe *o, struct replica *rp, bool from_stderr)
{
    *o = (struct outpipe){.rp = rp, .fd = -1, .from_stderr = from_stderr};
}

void outpipe_open(struct outpipe *o, int fd)
{
    MUST(o->fd < 0 && !o->on);
    if (fd < 0)
        return;
    o->fd = fd;
    o->on = true;
    watch_start(&o->watch, RUN_OF(o->rp)->loop, fd, outpipe_readable);
}

/* ---- lines -------------------------------------------------------------------------------------------------------- */

static void outpipe_line(struct outpipe *o, struct slice line)
{
    struct workload *wl = o->rp->wl;
    struct run *r = wl->run;
    wl->lines[o->from_stderr]++;
    r->ops.output(r->ctx, wl->ns, wl->name, o->rp->name, o->from_stderr, line);
}

/* Joins what waits with piece and tells it. */
static void outpipe_flush(struct outpipe *o, struct slice piece)
{
    if (o->part.n == 0) {
        outpipe_line(o, piece);
        return;
    }
    buf_add_slice(&o->part, piece);
    outpipe_line(o, buf_slice(&o->part));
    buf_free(&o->part);
}

static void outpipe_bytes(struct outpipe *o, struct slice in)
{
    o->rp->wl->bytes[o->from_stderr] += in.n;
    while (in.n) {
        size_t room = RUN_LINE_MAX - o->part.n, look = MIN(in.n, room + 1); /* a newline may follow a full line */
        const char *nl = memchr(in.p, '\n', look);
        if (nl) {
            size_t n = (size_t)(nl - in.p);
            outpipe_flush(o, slice_of(in.p, n));
            in = slice_of(in.p + n + 1, in.n - n - 1);
        } else if (in.n > room) {
            RUN_OF(o->rp)->limit_hits[LIMIT_LINE]++;
            outpipe_flush(o, slice_of(in.p, room));
            in = slice_of(in.p + room, in.n - room);
        } else {
            buf_add_slice(&o->part, in);
            return;
        }
    }
}

/* ---- the pipe ------------------------------------------------------------------------------------------------------- */

bool outpipe_read(struct outpipe *o, size_t max)
{
    char bytes[READ_BYTES];
    for (size_t got = 0; got < max;) {
        ssize_t n = read(o->fd, bytes, sizeof bytes);
        if (n > 0) {
            got += (size_t)n;
            outpipe_bytes(o, slice_of(bytes, (size_t)n));
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else {
            return n < 0 && errno == EAGAIN; /* else the end, or an error that is as final */
        }
    }
    return true;
}

static void outpipe_close(struct outpipe *o)
{
    if (o->on)
        watch_stop(&o->watch);
    o->on = false;
    if (o->fd >= 0)
        (void)close(o->fd);
    o->fd = -1;
    if (o->part.n)
        outpipe_flush(o, (struct slice){0}); /* a last line without a newline */
    buf_free(&o->part);
}

static void outpipe_readable(struct watch *w)
{
    struct outpipe *o = CONTAINER_OF(w, struct outpipe, watch);
    if (o->fd >= 0 && !outpipe_read(o, RUN_READ_MAX))
        outpipe_close(o);
}

void outpipe_drop(struct outpipe *o)
{
    buf_free(&o->part);
    outpipe_close(o);
}

void outpipe_finish(struct outpipe *o)
{
    if (o->fd >= 0)
        (void)outpipe_read(o, RUN_EXIT_READ_MAX);
    outpipe_close(o);
}
