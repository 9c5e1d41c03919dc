/* watch.c - watches: who is told of which events.
 *
 *     start --revision to come--> SYNCED <--all is told-- BEHIND <--resume-- PAUSED
 *        \-----revision past------------------------------^  ^                 ^
 *                                      events() was false:   +--- from memory or a slice of history --- also false
 *
 * A synced watch hangs on its span: the range, shared by all watches on it. Spans of one key are found in a table; the others in a treap by (key, end), whose
 * nodes know the greatest end below them, so that all spans around a key are found in as many steps as there are hits, times the depth. A watch that is
 * behind or paused hangs on a list and costs nothing when events pass; only the next revision that it needs is kept for it.
 *
 * The newest events are in a ring, which a commit's changes are moved into when all have been told. Watches that are behind go on from it when it reaches far
 * enough back. Others wait for a slice of history: one is read for all of them, from the oldest revision that is needed.
 */
#include "ctl_int.h"

#define RECENT_CAP_MIN 64
#define RECENT_REST_BYTES (256u << 10) /* of the newest events stay in memory when it is quiet */

enum watch_state { WATCH_SYNCED, WATCH_BEHIND, WATCH_PAUSED, WATCH_ENDED };

/* An event for a watch, of the commit that is being told. */
struct hit {
    struct hit *next;
    const struct change *change;
};

struct ctl_watch_own {
    struct ctl_watch watch;
    struct list link;            /* on its span (SYNCED), or on the store's list of its state */
    struct list touched;         /* on watches_touched while it has hits */
    struct list due;             /* on watches_due */
    struct list progress;        /* on watches_progress, when it wants that */
    struct list all;             /* on watches_all */
    struct span *span;           /* SYNCED */
    const struct ctl_watch_ops *ops;
    void *ctx;
    struct hit *hits, *hits_last;
    size_t hits_n;
    struct ctl_watch_conf conf;  /* key and end: in bytes */
    int64_t next;                /* the first revision that was not told; of a synced one: none before it is wanted */
    enum watch_state state;
    bool from_disk;              /* BEHIND: what comes next is not all in memory, though the newest events are */
    bool progress_wanted;
    bool told;                   /* something, since the last tick of progress */
    enum ctl_error why_ended;
    const char *why;
    char bytes[];
};

struct span {
    struct span *kid[2];
    struct slice key, end;       /* in bytes */
    struct slice max;            /* the greatest end from here down */
    uint64_t prio;
    struct list watches;
    char bytes[];
};

static struct own *own_of(const struct ctl_watch_own *w) { return (struct own *)w->watch.store; }

/* ---- spans ------------------------------------------------------------------------------------------------------------ */

static int end_cmp(struct slice a, struct slice b)
{
    bool ao = end_is_open(a), bo = end_is_open(b);
    return ao || bo ? ao - bo : key_cmp(a, b);
}

static void span_sum(struct span *s)
{
    s->max = s->end;
    for (int i = 0; i < 2; i++)
        if (s->kid[i] && end_cmp(s->kid[i]->max, s->max) > 0) s->max = s->kid[i]->max;
}

static int span_cmp(struct slice key, struct slice end, const struct span *s)
{
    int c = key_cmp(key, s->key);
    return c ? c : end_cmp(end, s->end);
}

static struct span *span_put(struct span *at, struct span *s)
{
    if (!at) return s;
    int side = span_cmp(s->key, s->end, at) > 0;
    at->kid[side] = span_put(at->kid[side], s);
    struct span *up = at->kid[side];
    if (up->prio > at->prio) {
        at->kid[side] = up->kid[!side];
        up->kid[!side] = at;
        span_sum(at);
        at = up;
    }
    span_sum(at);
    return at;
}

static struct span *span_join(struct span *a, struct span *b)
{
    if (!a || !b) return a ? a : b;
    struct span *top = a->prio > b->prio ? a : b;
    if (top == a) a->kid[1] = span_join(a->kid[1], b);
    else b->kid[0] = span_join(a, b->kid[0]);
    span_sum(top);
    return top;
}

static struct span *span_cut(struct span *at, const struct span *s)
{
    if (at == s) return span_join(at->kid[0], at->kid[1]);
    int side = span_cmp(s->key, s->end, at) > 0;
    MUST(at->kid[side]);
    at->kid[side] = span_cut(at->kid[side], s);
    span_sum(at);
    return at;
}

static struct span *span_find(struct own *o, struct slice key, struct slice end)
{
    if (end.n == 0) return table_get(&o->spans, key);
    struct span *s = o->ranges.root;
    for (int c; s && (c = span_cmp(key, end, s)) != 0;) s = s->kid[c > 0];
    return s;
}

static struct span *span_new(struct own *o, struct slice key, struct slice end)
{
    struct span *s = mem_new(MEM_CTL, sizeof *s + key.n + end.n);
    memcpy(s->bytes, key.p, key.n);
    if (end.n) memcpy(s->bytes + key.n, end.p, end.n);
    s->key = slice_of(s->bytes, key.n);
    s->end = slice_of(s->bytes + key.n, end.n);
    s->max = s->end;
    s->prio = loop_random(o->loop);
    list_init(&s->watches);
    if (end.n == 0) table_put(&o->spans, key, s);
    else o->ranges.root = span_put(o->ranges.root, s);
    return s;
}

static void span_leave(struct own *o, struct ctl_watch_own *w)
{
    struct span *s = w->span;
    w->span = NULL;
    list_del(&w->link);
    if (!list_empty(&s->watches)) return;
    if (s->end.n == 0) table_del(&o->spans, s->key);
    else o->ranges.root = span_cut(o->ranges.root, s);
    mem_free(s);
}

/* ---- states ----------------------------------------------------------------------------------------------------------- */

/* Off the list or span it is on. */
static void watch_unhook(struct ctl_watch_own *w)
{
    if (w->span) span_leave(own_of(w), w);
    else list_del(&w->link);
}

static void watch_due(struct ctl_watch_own *w)
{
    struct own *o = own_of(w);
    w->progress_wanted = true;
    if (w->state != WATCH_SYNCED || !list_empty(&w->due)) return;
    list_push(&o->watches_due, &w->due);
    own_turn(o);
}

static void watch_set(struct ctl_watch_own *w, enum watch_state state)
{
    struct own *o = own_of(w);
    watch_unhook(w);
    w->state = state;
    switch (state) {
    case WATCH_SYNCED:
        w->span = span_find(o, w->conf.key, w->conf.end);
        if (!w->span) w->span = span_new(o, w->conf.key, w->conf.end);
        list_push(&w->span->watches, &w->link);
        if (w->progress_wanted) watch_due(w);
        return;
    case WATCH_BEHIND: list_push(&o->watches_behind, &w->link); break;
    case WATCH_PAUSED: list_push(&o->watches_paused, &w->link); break;
    case WATCH_ENDED: list_push(&o->watches_ended, &w->link); break;
    }
    list_del(&w->due);
    own_turn(o);
}

static void watch_free(struct ctl_watch_own *w)
{
    own_of(w)->watches_n--;
    own_of(w)->watches_bytes -= w->conf.key.n + w->conf.end.n;
    mem_free(w);
}

/* Tells it; false: it is gone. next is what it needs afterwards. */
static bool watch_tell(struct ctl_watch_own *w, const struct ctl_event *events, size_t n, int64_t next)
{
    struct own *o = own_of(w);
    MUST(!o->calling);
    o->calling = w;
    o->calling_gone = false;
    bool more = w->ops->events(w->ctx, events, n, next - 1);
    o->calling = NULL;
    counter_add(&o->ctl.counters.events, n);
    if (o->calling_gone) {
        watch_free(w);
        return false;
    }
    w->told = true;
    if (w->state == WATCH_ENDED) return true; /* the store was closed within */
    if (w->state == WATCH_BEHIND || !more) w->next = MAX(w->next, next);
    if (!more) watch_set(w, WATCH_PAUSED);
    return true;
}

static void watch_tell_end(struct ctl_watch_own *w)
{
    struct own *o = own_of(w);
    list_del(&w->link);
    o->calling = w;
    o->calling_gone = false;
    w->ops->ended(w->ctx, w->why_ended, w->why_ended == CTL_COMPACTED ? o->compact : 0, w->why);
    o->calling = NULL;
    if (o->calling_gone) watch_free(w);
}

static void watch_end(struct ctl_watch_own *w, enum ctl_error e, const char *why)
{
    w->why_ended = e;
    w->why = why;
    list_del(&w->touched);
    watch_set(w, WATCH_ENDED);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

static bool watch_wants(const struct ctl_watch_own *w, const struct kv *k)
{
    return kv_mod(k) >= w->next && !(kv_is(k, KV_DEAD) ? w->conf.no_delete : w->conf.no_put);
}

/* What was before the compact revision is forgotten, though it may still be at hand. */
static bool event_has_prev(const struct ctl_watch_own *w, const struct change *c)
{
    return w->conf.prev_kv && c->prev && kv_mod(c->now) > own_of(w)->compact;
}

/* What was there before is not in memory: the watch has to be told from history. */
static bool event_is_cold(const struct ctl_watch_own *w, const struct change *c) { return event_has_prev(w, c) && kv_is_cold(c->prev); }

static void event_fill(const struct ctl_watch_own *w, const struct change *c, struct ctl_event *out)
{
    *out = (struct ctl_event){.type = kv_is(c->now, KV_DEAD) ? CTL_EVENT_DELETE : CTL_EVENT_PUT};
    kv_show(c->now, &out->kv);
    out->has_prev = event_has_prev(w, c);
    if (out->has_prev) kv_show(c->prev, &out->prev);
}

static void watch_hit(struct own *o, struct ctl_watch_own *w, const struct change *c)
{
    if (!watch_wants(w, c->now)) return;
    struct hit *h = arena_alloc(&o->batch.arena, sizeof *h);
    *h = (struct hit){NULL, c};
    if (w->hits) w->hits_last->next = h;
    else {
        w->hits = h;
        list_push(&o->watches_touched, &w->touched);
    }
    w->hits_last = h;
    w->hits_n++;
}

static void span_hit(struct own *o, const struct span *s, const struct change *c)
{
    LIST_FOREACH(it, &s->watches) watch_hit(o, CONTAINER_OF(it, struct ctl_watch_own, link), c);
}

/* All spans around the key. */
static void spans_hit(struct own *o, const struct span *s, struct slice key, const struct change *c)
{
    if (!s || (!end_is_open(s->max) && key_cmp(s->max, key) <= 0)) return;
    spans_hit(o, s->kid[0], key, c);
    if (key_cmp(s->key, key) > 0) return;
    if (range_has(s->key, s->end, key)) span_hit(o, s, c);
    spans_hit(o, s->kid[1], key, c);
}

static void watch_tell_hits(struct own *o, struct ctl_watch_own *w)
{
    struct ctl_event *events = arena_alloc(&o->arena, w->hits_n * sizeof *events);
    size_t n = 0;
    bool cold = false;
    int64_t from = kv_mod(w->hits->change->now);
    for (const struct hit *h = w->hits; h; h = h->next) {
        cold |= event_is_cold(w, h->change);
        if (!cold) event_fill(w, h->change, &events[n++]);
    }
    w->hits = w->hits_last = NULL;
    w->hits_n = 0;
    if (cold) {
        w->next = MAX(w->next, from);
        w->from_disk = true;
        watch_set(w, WATCH_BEHIND);
    } else {
        (void)watch_tell(w, events, n, o->revision + 1);
    }
    arena_reset(&o->arena);
}

/* ---- the newest events ---- */

static struct change *recent_entry(const struct own *o, size_t i) { return &o->recent[(o->recent_at + i) % o->recent_cap]; }

static size_t change_bytes(const struct change *c) { return kv_bytes(c->now) + (c->prev ? kv_bytes(c->prev) : 0) + sizeof *c; }

static void recent_drop_first(struct own *o)
{
    struct change *c = recent_entry(o, 0);
    o->recent_bytes -= change_bytes(c);
    kv_unref(c->now);
    kv_unref(c->prev);
    o->recent_at = (o->recent_at + 1) % o->recent_cap;
    o->recent_n--;
}

static void recent_resize(struct own *o, size_t cap)
{
    struct change *bigger = mem_new(MEM_CTL, cap * sizeof *bigger);
    for (size_t i = 0; i < o->recent_n; i++) bigger[i] = *recent_entry(o, i);
    mem_free(o->recent);
    o->recent = bigger;
    o->recent_cap = cap;
    o->recent_at = 0;
}

/* What is more than that goes, whole revisions, oldest first. */
static void recent_drop(struct own *o, uint64_t bytes)
{
    while (o->recent_n && o->recent_bytes > bytes) {
        int64_t gone = kv_mod(recent_entry(o, 0)->now);
        while (o->recent_n && kv_mod(recent_entry(o, 0)->now) == gone) recent_drop_first(o);
        o->recent_from = gone + 1;
    }
}

/* Takes the batch's changes. */
static void recent_take(struct own *o, struct changes *c)
{
    for (size_t i = 0; i < c->n; i++) {
        if (o->recent_n == o->recent_cap) recent_resize(o, o->recent_cap ? o->recent_cap * 2 : RECENT_CAP_MIN);
        o->recent_n++;
        *recent_entry(o, o->recent_n - 1) = c->v[i];
        o->recent_bytes += change_bytes(&c->v[i]);
    }
    c->n = 0;
    recent_drop(o, o->conf.recent_bytes_max);
}

void recent_rest(struct own *o)
{
    recent_drop(o, MIN(o->conf.recent_bytes_max, RECENT_REST_BYTES));
    size_t cap = RECENT_CAP_MIN;
    while (cap < o->recent_n) cap *= 2;
    if (cap < o->recent_cap) recent_resize(o, cap);
}

/* The first entry of revision or behind it. */
static size_t recent_find(const struct own *o, int64_t revision)
{
    size_t from = 0, to = o->recent_n;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (kv_mod(recent_entry(o, mid)->now) < revision) from = mid + 1;
        else to = mid;
    }
    return from;
}

void watches_told(struct own *o)
{
    struct changes *c = &o->batch.changes;
    for (size_t i = 0; i < c->n; i++) {
        struct slice key = kv_key(c->v[i].now);
        const struct span *one = table_get(&o->spans, key);
        if (one) span_hit(o, one, &c->v[i]);
        spans_hit(o, o->ranges.root, key, &c->v[i]);
    }
    while (!list_empty(&o->watches_touched)) {
        struct ctl_watch_own *w = CONTAINER_OF(o->watches_touched.next, struct ctl_watch_own, touched);
        list_del(&w->touched);
        watch_tell_hits(o, w);
    }
    recent_take(o, c);
}

/* ---- those that are behind -------------------------------------------------------------------------------------------------- */

/* Its events from memory on: as many as one message may have, the last revision whole. */
static void watch_catch_up(struct own *o, struct ctl_watch_own *w)
{
    size_t from = recent_find(o, w->next), to = from, n = 0;
    int64_t last = 0, cold = INT64_MAX; /* cold: the first revision that has to come from disk */
    for (; to < o->recent_n; to++) {
        const struct change *c = recent_entry(o, to);
        if (n >= WATCH_EVENTS_MAX && kv_mod(c->now) != last) break;
        last = kv_mod(c->now);
        if (!range_has(w->conf.key, w->conf.end, kv_key(c->now)) || !watch_wants(w, c->now)) continue;
        n++;
        if (!event_is_cold(w, c)) continue;
        cold = last;
        break;
    }
    struct ctl_event *events = arena_alloc(&o->arena, MAX(n, 1) * sizeof *events);
    n = 0;
    for (size_t i = from; i < to; i++) {
        const struct change *c = recent_entry(o, i);
        if (kv_mod(c->now) < cold && range_has(w->conf.key, w->conf.end, kv_key(c->now)) && watch_wants(w, c->now)) event_fill(w, c, &events[n++]);
    }
    w->from_disk = cold != INT64_MAX;
    int64_t next = w->from_disk ? cold : to < o->recent_n ? last + 1 : o->revision + 1;
    if (n) (void)watch_tell(w, events, n, next);
    else w->next = next;
    arena_reset(&o->arena);
}

/* Steps w, which is behind, as far as memory allows. */
static void watch_step(struct own *o, struct ctl_watch_own *w)
{
    if (w->next > o->revision) {
        watch_set(w, WATCH_SYNCED);
    } else if (w->next < o->compact) {
        watch_end(w, CTL_COMPACTED, ctl_error_text(CTL_COMPACTED));
    } else if (w->next >= o->recent_from && !w->from_disk) {
        own_turn(o);
        watch_catch_up(o, w);
    }
}

/* Calls each for the watches that are behind; it may stop any of them. */
static void behind_each(struct own *o, void (*each)(struct own *o, struct ctl_watch_own *w))
{
    struct list now;
    list_take(&o->watches_behind, &now);
    while (!list_empty(&now)) {
        struct list *first = now.next;
        list_del(first);
        list_push(&o->watches_behind, first);
        each(o, CONTAINER_OF(first, struct ctl_watch_own, link));
    }
}

void watches_turn(struct own *o)
{
    behind_each(o, watch_step);
    struct list due;
    list_take(&o->watches_due, &due);
    while (!list_empty(&due)) {
        struct ctl_watch_own *w = CONTAINER_OF(due.next, struct ctl_watch_own, due);
        list_del(&w->due);
        w->progress_wanted = false;
        (void)watch_tell(w, NULL, 0, o->revision + 1);
    }
    while (!list_empty(&o->watches_ended)) watch_tell_end(CONTAINER_OF(o->watches_ended.next, struct ctl_watch_own, link));
}

bool watches_slice(struct own *o, struct job *j)
{
    int64_t from = INT64_MAX;
    bool prev = false;
    LIST_FOREACH(it, &o->watches_behind) {
        const struct ctl_watch_own *w = CONTAINER_OF(it, struct ctl_watch_own, link);
        if ((w->next >= o->recent_from && !w->from_disk) || w->next < o->compact || w->next > o->revision) continue;
        from = MIN(from, w->next);
        prev |= w->conf.prev_kv;
    }
    j->from = from;
    j->to = o->revision;
    j->want_prev = prev;
    return from != INT64_MAX;
}

static void watch_slice(struct own *o, struct ctl_watch_own *w)
{
    const struct job *j = &o->job;
    if (w->next < j->from || w->next > j->to || w->next < o->compact) return;
    w->from_disk = false;
    size_t n = 0;
    struct ctl_event *events = arena_alloc(&o->arena, MAX(j->slice.n, 1) * sizeof *events);
    for (size_t i = 0; i < j->slice.n; i++) {
        const struct change *c = &j->slice.v[i];
        if (range_has(w->conf.key, w->conf.end, kv_key(c->now)) && watch_wants(w, c->now)) event_fill(w, c, &events[n++]);
    }
    counter_add(&o->ctl.counters.events_past, n);
    if (n) (void)watch_tell(w, events, n, j->to + 1);
    else w->next = j->to + 1;
    arena_reset(&o->arena);
}

void watches_sliced(struct own *o, struct job *j)
{
    if (j->error == CTL_OK) behind_each(o, watch_slice);
    changes_fini(&j->slice);
}

/* ---- the interface ------------------------------------------------------------------------------------------------------------ */

struct ctl_watch *own_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx)
{
    struct own *o = (struct own *)c;
    if (o->closing || o->watches_n >= o->conf.watches_max || o->watches_bytes + conf->key.n + conf->end.n > WATCHES_BYTES_MAX) return NULL;
    struct ctl_watch_own *w = mem_new(MEM_CTL, sizeof *w + conf->key.n + conf->end.n + 1);
    o->watches_n++;
    o->watches_bytes += conf->key.n + conf->end.n;
    w->watch.store = c;
    w->ops = ops;
    w->ctx = ctx;
    w->conf = *conf;
    if (conf->key.n) memcpy(w->bytes, conf->key.p, conf->key.n);
    if (conf->end.n) memcpy(w->bytes + conf->key.n, conf->end.p, conf->end.n);
    w->conf.key = slice_of(w->bytes, conf->key.n);
    w->conf.end = slice_of(w->bytes + conf->key.n, conf->end.n);
    w->next = conf->revision > 0 ? conf->revision : o->revision + 1;
    list_init(&w->link);
    list_init(&w->touched);
    list_init(&w->due);
    list_init(&w->progress);
    list_push(&o->watches_all, &w->all);
    if (conf->progress) list_push(&o->watches_progress, &w->progress);
    watch_set(w, w->next > o->revision ? WATCH_SYNCED : WATCH_BEHIND);
    return &w->watch;
}

void own_watch_resume(struct ctl_watch *watch)
{
    struct ctl_watch_own *w = (struct ctl_watch_own *)watch;
    struct own *o = own_of(w);
    if (w->state != WATCH_PAUSED) return;
    if (w->next <= o->revision) counter_inc(&o->ctl.counters.watches_behind);
    watch_set(w, WATCH_BEHIND);
}

void own_watch_progress(struct ctl_watch *watch) { watch_due((struct ctl_watch_own *)watch); }

void own_watch_stop(struct ctl_watch *watch)
{
    struct ctl_watch_own *w = (struct ctl_watch_own *)watch;
    watch_unhook(w);
    list_del(&w->touched);
    list_del(&w->due);
    list_del(&w->progress);
    list_del(&w->all);
    if (own_of(w)->calling == w) own_of(w)->calling_gone = true;
    else watch_free(w);
}

/* ---- the store's part --------------------------------------------------------------------------------------------------------- */

static void progress_tick(struct timer *t)
{
    struct own *o = CONTAINER_OF(t, struct own, progress);
    LIST_FOREACH(it, &o->watches_progress) {
        struct ctl_watch_own *w = CONTAINER_OF(it, struct ctl_watch_own, progress);
        if (!w->told) watch_due(w);
        w->told = false;
    }
    timer_set(o->loop, t, o->conf.progress_ms);
}

void watches_init(struct own *o)
{
    struct list *lists[] = {&o->watches_behind, &o->watches_paused, &o->watches_due, &o->watches_ended, &o->watches_progress, &o->watches_touched,
                            &o->watches_all};
    for (size_t i = 0; i < COUNT_OF(lists); i++) list_init(lists[i]);
    timer_init(&o->progress, progress_tick);
}

void watches_end(struct own *o, enum ctl_error e, const char *why)
{
    LIST_FOREACH(it, &o->watches_all) {
        struct ctl_watch_own *w = CONTAINER_OF(it, struct ctl_watch_own, all);
        if (w->state != WATCH_ENDED) watch_end(w, e, why);
    }
}

void watches_fini(struct own *o)
{
    MUST(o->watches_n == 0);
    while (o->recent_n) recent_drop_first(o);
    mem_free(o->recent);
    table_fini(&o->spans);
}
