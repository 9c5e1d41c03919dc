/* ctl_world_test.c - calls that wait for their answer, and a watch that keeps what it is told. */
#include "ctl_world_test.h"

#define WAIT_MS 20000

/* ---- answers ---- */

static void kv_copy(struct arena *a, struct ctl_kv *k)
{
    k->key = arena_slice(a, k->key);
    k->value = arena_slice(a, k->value);
}

static struct ctl_kv *kvs_copy(struct arena *a, const struct ctl_kv *v, size_t n)
{
    struct ctl_kv *copy = arena_alloc(a, MAX(n, 1) * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        copy[i] = v[i];
        kv_copy(a, &copy[i]);
    }
    return copy;
}

static void lease_copy(struct arena *a, struct ctl_lease_result *l)
{
    struct slice *keys = arena_alloc(a, MAX(l->keys_n, 1) * sizeof *keys);
    for (size_t i = 0; i < l->keys_n; i++) keys[i] = arena_slice(a, l->keys[i]);
    l->keys = keys;
    int64_t *ids = arena_alloc(a, MAX(l->ids_n, 1) * sizeof *ids);
    for (size_t i = 0; i < l->ids_n; i++) ids[i] = l->ids[i];
    l->ids = ids;
}

void result_copy(struct arena *a, struct ctl_op_result *r)
{
    switch (r->kind) {
    case CTL_RANGE: r->range.kvs = kvs_copy(a, r->range.kvs, r->range.n); return;
    case CTL_PUT: if (r->put.has_prev) kv_copy(a, &r->put.prev); return;
    case CTL_DELETE: r->del.prev = kvs_copy(a, r->del.prev, r->del.prev_n); return;
    case CTL_TXN: {
        struct ctl_op_result *ops = arena_alloc(a, MAX(r->txn.n, 1) * sizeof *ops);
        for (size_t i = 0; i < r->txn.n; i++) {
            ops[i] = r->txn.ops[i];
            result_copy(a, &ops[i]);
        }
        r->txn.ops = ops;
        return;
    }
    case CTL_COMPACT: case CTL_DISARM: case CTL_KINDS: return;
    default: lease_copy(a, &r->lease);
    }
}

static void answered(struct ctl_call *call)
{
    struct answer *a = CONTAINER_OF(call, struct answer, call);
    assert_false(a->over);
    a->over = true;
    if (call->error == CTL_OK) result_copy(&a->arena, &call->result);
    call->why = arena_strdup(&a->arena, call->why);
}

void ask(struct world *w, struct answer *a, struct ctl_op op)
{
    a->call = (struct ctl_call){.op = op, .done = answered};
    a->over = false;
    arena_init(&a->arena, MEM_MISC, 1024);
    ctl_submit(w->ctl, &a->call);
    assert_false(a->over);
}

static bool answer_over(void *ctx) { return ((struct answer *)ctx)->over; }
void answer_wait(struct world *w, struct answer *a) { assert_true(w->run(w, answer_over, a, WAIT_MS)); }
void answer_fini(struct answer *a) { arena_fini(&a->arena); }

enum ctl_error do_op(struct world *w, struct answer *a, struct ctl_op op)
{
    ask(w, a, op);
    answer_wait(w, a);
    return a->call.error;
}

struct ctl_op op_put(const char *key, const char *value)
{
    return (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_cstr(key), .value = slice_cstr(value)}};
}

struct ctl_op op_get(const char *key) { return (struct ctl_op){.kind = CTL_RANGE, .range = {.key = slice_cstr(key)}}; }

struct ctl_op op_delete(const char *key, const char *end)
{
    return (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(key), .end = slice_cstr(end)}};
}

int64_t put(struct world *w, const char *key, const char *value)
{
    struct answer a;
    if (do_op(w, &a, op_put(key, value)) != CTL_OK) fail_msg("%s: %s", key, a.call.why);
    answer_fini(&a);
    return a.call.revision;
}

const char *get(struct world *w, struct answer *a, struct ctl_range range)
{
    if (do_op(w, a, (struct ctl_op){.kind = CTL_RANGE, .range = range}) != CTL_OK) return ctl_error_text(a->call.error);
    const struct ctl_range_result *r = &a->call.result.range;
    struct buf b = {0};
    buf_adds(&b, "");
    for (size_t i = 0; i < r->n; i++)
        buf_printf(&b, "%s" SLICE_FMT "=" SLICE_FMT, i ? " " : "", SLICE_ARG(r->kvs[i].key), SLICE_ARG(r->kvs[i].value));
    if (r->more) buf_adds(&b, " more");
    const char *text = arena_strdup(&a->arena, b.p);
    buf_free(&b);
    return text;
}

/* ---- watches ---- */

static bool seen_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct seen *s = ctx;
    assert_false(s->paused);
    assert_false(s->ended);
    for (size_t i = 0; i < n; i++) {
        const struct ctl_event *e = &events[i];
        assert_true(e->kv.mod_revision >= s->last && e->kv.mod_revision <= revision);
        if (i == 0) assert_true(e->kv.mod_revision > s->last); /* those of one revision are never apart */
        s->last = e->kv.mod_revision;
        if (s->quiet) continue;
        buf_printf(&s->text, "%c" SLICE_FMT, e->type == CTL_EVENT_PUT ? '+' : '-', SLICE_ARG(e->kv.key));
        if (e->type == CTL_EVENT_PUT) buf_printf(&s->text, "=" SLICE_FMT, SLICE_ARG(e->kv.value));
        if (e->has_prev) buf_printf(&s->text, "(" SLICE_FMT ")", SLICE_ARG(e->prev.value));
        buf_addc(&s->text, ' ');
    }
    if (!s->quiet) buf_addc(&s->text, '|');
    assert_true(revision >= s->revision);
    s->revision = revision;
    s->events += n;
    s->messages++;
    s->paused = s->pause_after && s->messages % s->pause_after == 0;
    return !s->paused;
}

static void seen_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct seen *s = ctx;
    assert_false(s->ended);
    assert_true(why[0] != '\0');
    s->ended = true;
    s->error = error;
    s->compact_revision = compact_revision;
}

static const struct ctl_watch_ops seen_ops = {.events = seen_events, .ended = seen_ended};

void seen_start(struct world *w, struct seen *s, const struct ctl_watch_conf *conf)
{
    s->watch = ctl_watch_start(w->ctl, conf, &seen_ops, s);
    assert_non_null(s->watch);
}

struct seen_until {
    struct seen *s;
    size_t events;
};

static bool seen_enough(void *ctx)
{
    struct seen_until *u = ctx;
    if (u->s->paused) {
        u->s->paused = false;
        ctl_watch_resume(u->s->watch);
    }
    return u->s->events >= u->events || u->s->ended;
}

void seen_wait(struct world *w, struct seen *s, size_t events)
{
    struct seen_until u = {s, events};
    assert_true(w->run(w, seen_enough, &u, WAIT_MS));
}

void seen_stop(struct seen *s)
{
    if (s->watch) ctl_watch_stop(s->watch);
    buf_free(&s->text);
    *s = (struct seen){0};
}
