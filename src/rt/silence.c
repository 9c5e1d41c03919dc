/* silence.c - a peer that is gone without a word: no FIN, no reset, only nothing more.
 *
 * The kernel asks a peer that says nothing whether it is there (keep-alive), and a peer that is there says at least that much: an acknowledgement, an
 * answer, or a question of its own. So what is looked at is whether segments of any kind still come (tcpi_segs_in), each third of the time:
 *
 *     segments came since the last look            it is there
 *     none for ms, and one should have             it is gone: failed(ERR_TIMEOUT)
 *
 * One should have come where something that was sent is not acknowledged; and where we read: then the peer can send all that it has, and has nothing left
 * that would keep its own keep-alive, or ours, from asking. While we do not read, both sides may wait for the other's window with nothing on its way,
 * which the kernel looks at ever more seldom (RFC 9293 section 3.8.6.1): nothing can be said then, and the owner's own limits hold.
 *
 * TCP_USER_TIMEOUT would be simpler, and wrong: Linux also counts the time for which a peer that acknowledges everything keeps its window
 * closed, and would break the connection of each client that reads nothing for so long.
 *
 * Does not see: a peer whose kernel is well and whose program hangs.
 */
#include "rt_int.h"

struct silence {
    struct stream *s;
    struct timer timer;
    uint32_t ms;         /* without a segment: gone */
    uint32_t segments;   /* as counted at the last look at which there were new ones */
    uint64_t heard_ms;   /* when that was */
};

static void look(struct timer *t)
{
    struct silence *q = CONTAINER_OF(t, struct silence, timer);
    struct stream *s = q->s;
    uint64_t now = loop_now_ms(s->loop);
    uint32_t segments = q->segments;
    bool owed = false;
    if (s->failed_told || sys_heard(s->fd, &segments, &owed) < 0)
        return;
    if (segments != q->segments) {
        q->segments = segments;
        q->heard_ms = now;
    } else if (now - q->heard_ms >= q->ms && (owed || s->reading)) {
        stream_break(s, ERR_TIMEOUT);
        return;
    }
    timer_set(s->loop, t, MAX(q->ms / 3, 1u));
}

void stream_silence(struct stream *s, uint32_t ms)
{
    uint32_t third_s = MAX(ms / 3000, 1u);
    if (s->fd < 0 || s->closed)
        return;
    sys_keepalive(s->fd, third_s, third_s, 3);
    if (!s->silence) {
        s->silence = mem_new(MEM_STREAM, sizeof *s->silence);
        timer_init(&s->silence->timer, look);
    }
    struct silence *q = s->silence;
    q->s = s;
    q->ms = ms;
    q->heard_ms = loop_now_ms(s->loop);
    timer_set(s->loop, &q->timer, MAX(ms / 3, 1u));
}

void silence_end(struct stream *s)
{
    if (!s->silence)
        return;
    timer_clear(&s->silence->timer);
    mem_free(s->silence);
    s->silence = NULL;
}
