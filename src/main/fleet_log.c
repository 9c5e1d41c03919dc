/* fleet_log.c - which node keeps the event log of all.
 *
 * /weir/log names it, by node and data folder. Whoever finds it missing makes it, on the condition that it still is; a node that runs without an event log, or
 * is leaving, does not. It has no lease: the records are in that node's folder, so they are away while it is, and nobody else may begin a log of the same name
 * meanwhile. Who gives them up deletes the key (CLUSTER.md, "The event log").
 */
#include "fleet_int.h"

#define LOG_KEY "/weir/log"

static void log_again(struct timer *t) { fleet_defer(CONTAINER_OF(t, struct fleet, log_again)); }

static void log_answered(struct fleet *f, struct ask *a)
{
    f->log_asking = false;
    if (a->call.error != CTL_OK)
        timer_set(f->loop, &f->log_again, FLEET_AGAIN_MS);
    else if (a->call.result.txn.succeeded)
        log_info("cluster", "node %s keeps the event log of all nodes", f->conf.node);
    /* else somebody was faster, or this node is no member any more: the mirror tells */
}

static void log_claim(struct fleet *f)
{
    struct ctl_compare nobody = fleet_is_missing(SLICE(LOG_KEY));
    f->log_asking = true;
    ask_hold(ask_new(f, log_answered), SLICE(LOG_KEY), 0, &nobody, 1);
}

/* Where this data folder was copied, the other one may be the node: it has the records that were written since. Who keeps the log goes on while nothing is
 * known of that. */
static void log_where(struct fleet *f)
{
    const struct mirror_item *log = mirror_get(f->log, SLICE("")), *self = mirror_get(f->nodes, slice_cstr(f->conf.node));
    const struct member *m = self ? self->data : NULL;
    if (!holder_is_me(f, log ? log->data : NULL))
        f->log_here = false;
    else if (m)
        f->log_here = strcmp(m->place, f->conf.place) == 0;
    else if (mirror_synced(f->nodes) || f->recalled)
        f->log_here = true;
}

void log_turn(struct fleet *f)
{
    log_where(f);
    bool mine = f->conf.log && !f->conf.alone && !f->leaving && f->state == FLEET_IN;
    if (mine && mirror_synced(f->log) && !mirror_get(f->log, SLICE("")) && !f->log_asking && !timer_is_set(&f->log_again))
        log_claim(f);
}

void fleet_log(const struct fleet *f, struct fleet_log *out)
{
    const struct mirror_item *it = f->conf.alone ? NULL : mirror_get(f->log, SLICE(""));
    const char *holder = it ? it->data : NULL;
    struct slice instance, node = slice_cut(slice_cstr(holder ? holder : ""), '/', &instance);
    const struct mirror_item *is = holder ? mirror_get(f->nodes, node) : NULL;
    const struct member *m = is ? is->data : NULL;
    *out = (struct fleet_log){.known = f->conf.alone || holder, .here = f->conf.alone || f->log_here, .node = node};
    if (m && slice_is(instance, m->instance)) /* else it is another data folder's, which has none of the records */
        out->gate = m->n.gate;
}

void log_init(struct fleet *f) { timer_init(&f->log_again, log_again); }
void log_fini(struct fleet *f) { timer_clear(&f->log_again); }
