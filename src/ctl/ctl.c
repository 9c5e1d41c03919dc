/* ctl.c - the interface's functions: each is the engine's. */
#include "ctl_int.h"

void ctl_submit(struct ctl *c, struct ctl_call *call)
{
    MUST(call->done && (unsigned)call->op.kind < CTL_KINDS);
    call->error = CTL_OK;
    call->why = "";
    call->revision = 0;
    call->result = (struct ctl_op_result){.kind = call->op.kind};
    call->priv = NULL;
    list_init(&call->link);
    c->engine->submit(c, call);
}

struct ctl_watch *ctl_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx)
{
    return c->engine->watch_start(c, conf, ops, ctx);
}

void ctl_watch_resume(struct ctl_watch *w) { w->store->engine->watch_resume(w); }
void ctl_watch_progress(struct ctl_watch *w) { w->store->engine->watch_progress(w); }
void ctl_watch_stop(struct ctl_watch *w) { w->store->engine->watch_stop(w); }
void ctl_status(const struct ctl *c, struct ctl_status *out) { c->engine->status(c, out); }
const struct ctl_counters *ctl_counters(const struct ctl *c) { return &c->counters; }
void ctl_close(struct ctl *c, void (*done)(void *ctx), void *ctx) { c->engine->close(c, done, ctx); }

/* The smallest key behind all that begin with prefix: its last byte that is not 0xff plus one, and nothing behind it. */
struct slice ctl_prefix_end(struct slice prefix, char *out)
{
    for (size_t n = prefix.n; n > 0; n--) {
        if ((unsigned char)prefix.p[n - 1] == 0xff) continue;
        memcpy(out, prefix.p, n);
        out[n - 1]++;
        return slice_of(out, n);
    }
    out[0] = '\0';
    return slice_of(out, 1);
}
