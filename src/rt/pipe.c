/* pipe.c - the loop's pool of kernel pipes, through which bytes are spliced from one socket to another.
 *
 * A pipe is out of the pool only while it holds bytes: a splice into it is followed at once by a splice out of it, so as
 * a rule one pipe serves all flows of a loop, and its pages stay in the cache. More are needed only for receivers that
 * are slow. A pipe that was left with bytes in it is closed, never given to somebody else.
 *
 * When the pool is at its limit, or the system refuses, the caller copies; each time is counted.
 */
#include "rt_int.h"

static void pipe_close(struct loop *l, struct pipe *p)
{
    sys_close(p->r);
    sys_close(p->w);
    mem_free(p);
    l->pipes_n--;
}

static struct pipe *pipe_new(struct loop *l)
{
    if (l->pipes_n >= l->pipes_max || l->now_ns < l->pipe_retry_ns) return NULL;
    struct pipe *p = mem_try(MEM_STREAM, sizeof *p);
    int fds[2], bytes = p ? sys_pipe(PIPE_BYTES, fds) : -1;
    if (bytes < 0) {
        mem_free(p);
        l->pipe_retry_ns = l->now_ns + PIPE_RETRY_NS;
        return NULL;
    }
    *p = (struct pipe){.r = fds[0], .w = fds[1], .bytes = (uint32_t)bytes};
    l->pipes_n++;
    return p;
}

struct pipe *pipe_get(struct loop *l)
{
    struct pipe *p = l->pipes;
    if (p) {
        l->pipes = p->next;
        l->pipes_kept--;
        return p;
    }
    p = pipe_new(l);
    if (!p) counter_inc(&l->pipe_misses);
    return p;
}

void pipe_put(struct loop *l, struct pipe *p, bool empty)
{
    if (!empty || l->pipes_kept >= PIPES_KEPT) {
        pipe_close(l, p);
        return;
    }
    p->next = l->pipes;
    l->pipes = p;
    l->pipes_kept++;
}

void pipes_free(struct loop *l)
{
    while (l->pipes) {
        struct pipe *p = l->pipes;
        l->pipes = p->next;
        pipe_close(l, p);
    }
    MUST(l->pipes_n == 0); /* a flow is still in work */
}

uint64_t loop_pipe_misses(const struct loop *l) { return counter_read(&l->pipe_misses); }
