/* framer.c - reads a known pattern as frames, the long ones through stream_into(): for rt's tests, plain and TLS.
 *
 * The lengths of frames are a fixed sequence, short and long in turn, so that both sides know them and any stream of the pattern will do. What
 * data() brings of a long frame is checked there; the rest of it goes straight into memory of its own, with a guard behind it.
 */
#include "framer.h"

#define LONG_BYTES 4000
#define GUARD 16

static struct framer *framing; /* one at a time: filled() gets the stream alone */

static size_t frame_bytes(uint64_t n)
{
    static const uint32_t sizes[] = {100, 200000, 1, 65536, 70000, 3, 5000, 5000, 12, 16384, 300001, 4096};
    return sizes[n % COUNT_OF(sizes)];
}

static void check(struct framer *f, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != f->pattern(f->at + i))
            f->bad = true;
    f->at += n;
    f->left -= n;
    if (f->left == 0)
        f->left = frame_bytes(++f->frame);
}

static void filled(struct stream *s);

static void take_rest(struct framer *f)
{
    f->mem_n = f->left;
    f->mem = mem_new(MEM_SIM, f->mem_n + GUARD);
    memset(f->mem + f->mem_n, 0x5a, GUARD);
    stream_into(f->s, f->mem, f->mem_n, filled);
}

static void mem_drop(struct framer *f)
{
    for (size_t i = 0; f->mem && i < GUARD; i++)
        if (f->mem[f->mem_n + i] != 0x5a)
            f->bad = true;
    mem_free(f->mem);
    f->mem = NULL;
}

static void data(struct stream *s, char *p, size_t n)
{
    struct framer *f = framing;
    if (f->mem || !s->reading || s->closed || n > STREAM_READ_BYTES)
        f->bad = true;
    f->datas++;
    memset(p - STREAM_HEADROOM, 0x55, STREAM_HEADROOM);
    while (n) {
        size_t take = MIN(n, f->left);
        check(f, p, take);
        p += take;
        n -= take;
    }
    if (f->left != frame_bytes(f->frame) && f->left >= LONG_BYTES)
        take_rest(f);
}

static void filled(struct stream *s)
{
    struct framer *f = framing;
    if (!f->mem || !s->reading || s->closed || stream_into_left(s))
        f->bad = true;
    f->fills++;
    check(f, f->mem, f->mem_n);
    mem_drop(f);
    if (f->close_at == f->fills) {
        stream_close(s);
        return;
    }
    if (f->chains && f->fills % f->chains == 0)
        take_rest(f);
    if (f->pauses && f->fills % f->pauses == 0) {
        stream_reading(s, false);
        timer_set(s->loop, &f->pause, 1);
    }
}

static void resume(struct timer *t)
{
    struct framer *f = CONTAINER_OF(t, struct framer, pause);
    stream_reading(f->s, true);
}

void framer_init(struct framer *f, struct stream *s, char (*pattern)(uint64_t at))
{
    f->s = s;
    f->ops = *s->ops;
    f->ops.data = data;
    f->pattern = pattern;
    f->left = frame_bytes(0);
    timer_init(&f->pause, resume);
    s->ops = &f->ops;
    framing = f;
}

void framer_fini(struct framer *f)
{
    timer_clear(&f->pause);
    mem_drop(f);
    framing = NULL;
}
