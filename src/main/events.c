/* events.c - what happened lately.
 *
 *     run, objects --events_add()--> the same as one that is kept? counted : new (the oldest goes) --> marked --> every EVENTS_WRITE_MS: one transaction
 *
 * Kept in memory, in the order in which they last happened; in the store (/weir/events/NAMESPACE/NAME, core v1 Events in JSON) for the next engine and for
 * whoever reads there. Writing is for that only: a crash loses the last seconds, and of what repeats the last count; a store that takes nothing stops nothing.
 * One transaction has at most EVENTS_OPS_MAX operations, because an etcd cluster takes no more; the rest follows when it is answered. What was to be deleted
 * and was not is tried again, for nobody else will: no key outlives its event for longer than the store is away.
 * However often a replica crashes, there is one write in EVENTS_WRITE_MS, and one of the same event in EVENTS_AGAIN_MS.
 *
 * Nodes that share a store (events_share) show each other's: a mirror of the prefix puts theirs into the list when they are written, and takes them out. Each
 * node deletes its own; those that nobody has touched for more than an hour by this node's own clock, whatever their times say, are a dead node's, and go too.
 *
 * One timer: it writes what is marked, and lets go of what is an hour old. One owner, the control loop.
 */
#include "events.h"
#include "mirror.h"
#include "prom.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PREFIX "/weir/events/"
#define PREFIX_END "/weir/events0"
#define SWEEP_MS 60000
#define LATE_MS (5 * SWEEP_MS) /* after the hour another node's event is nobody's */

struct event {
    struct list link;              /* events.all */
    struct node_event e;           /* its texts are the event's own */
    char name[24];                 /* of the Event: unique with the object's */
    uint64_t same;                 /* a hash of its texts: what several nodes say alike */
    bool dirty;                    /* not in the store as it is */
    uint64_t written_ms;           /* loop time; 0: not by this engine */
    char *host;                    /* the other node whose it is, and the mirror's to free; NULL: kept here */
    uint64_t seen_ms;              /* with host: loop time at which it was as it is */
    struct events *ev;             /* with host; NULL: it is in no list any more */
};
/* A key in the store that is to go. */
struct gone {
    struct list link;
    char *key;
    bool asked;                    /* the write under way deletes it */
};

struct events {
    struct loop *loop;
    char *node;                    /* its name: source.host */
    struct list all;               /* struct event, by when they last happened; those of others by when that was heard */
    size_t n, others_n;            /* kept here; of others */
    bool shared;
    struct mirror *others;         /* with shared, while the store is open */
    uint64_t seq;                  /* of the last that was added or counted */
    struct list gone;              /* struct gone */
    size_t gone_n;
    struct timer timer;
    struct ctl *ctl;               /* NULL: closed */
    bool read;                     /* what the store has from before has been asked for */
    bool busy;                     /* call is under way */
    bool whole;                    /* it writes also what only repeats */
    struct ctl_call call;          /* reading, or a write */
    struct arena mem;              /* of call */
    uint64_t added, combined, pushed_out, write_failures, keys_left;
};

/* ---- as JSON --------------------------------------------------------------------------------------------------------------- */

static void text_member(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\":", key);
    buf_add_json(out, slice_cstr(value));
}

static void time_member(struct buf *out, const char *key, uint64_t ns)
{
    time_t t = (time_t)(ns / 1000000000u);
    struct tm tm;
    char text[32];
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    buf_printf(out, "\"%s\":\"%s\"", key, text);
}

/* A core v1 Event. Times in nanoseconds are for who reads it back. */
static void event_json(const struct events *ev, const struct event *v, struct buf *out)
{
    const struct node_event *e = &v->e;
    buf_adds(out, "{\"apiVersion\":\"v1\",\"kind\":\"Event\",\"metadata\":{\"name\":");
    struct buf name = {0};
    buf_printf(&name, "%s.%s", e->name, v->name);
    buf_add_json(out, buf_slice(&name));
    buf_free(&name);
    buf_addc(out, ',');
    text_member(out, "namespace", *e->ns ? e->ns : "default");
    buf_addc(out, ',');
    time_member(out, "creationTimestamp", e->first_ns);
    buf_adds(out, "},\"involvedObject\":{");
    text_member(out, "kind", e->kind);
    buf_addc(out, ',');
    text_member(out, "namespace", e->ns);
    buf_addc(out, ',');
    text_member(out, "name", e->name);
    buf_adds(out, "},");
    text_member(out, "reason", e->reason);
    buf_addc(out, ',');
    text_member(out, "message", e->message);
    buf_printf(out, ",\"type\":\"%s\",\"count\":%u,", e->warning ? "Warning" : "Normal", e->count);
    time_member(out, "firstTimestamp", e->first_ns);
    buf_addc(out, ',');
    time_member(out, "lastTimestamp", e->last_ns);
    buf_adds(out, ",\"source\":{\"component\":\"weir\",");
    text_member(out, "host", v->host ? v->host : ev->node);
    buf_printf(out, "},\"weir.dev/stored\":{\"id\":\"%s\",\"first_ns\":%" PRIu64 ",\"last_ns\":%" PRIu64 "}}", v->name, e->first_ns, e->last_ns);
}

static void event_key(const struct event *v, struct buf *out) { buf_printf(out, PREFIX "%s/%s.%s", *v->e.ns ? v->e.ns : "default", v->e.name, v->name); }

/* ---- keeping --------------------------------------------------------------------------------------------------------------- */

static void event_free(struct event *v)
{
    const char *texts[] = {v->e.ns, v->e.kind, v->e.name, v->e.reason, v->e.message};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        mem_free((char *)(uintptr_t)texts[i]);
    mem_free(v->host);
    mem_free(v);
}

static void gone_free(struct events *ev, struct gone *g)
{
    list_del(&g->link);
    mem_free(g->key);
    mem_free(g);
    ev->gone_n--;
}

/* A store that is away for long: the next engine that reads it finds what is forgotten here. */
static void gone_bound(struct events *ev)
{
    while (ev->gone_n > 2 * EVENTS_MAX) {
        gone_free(ev, CONTAINER_OF(ev->gone.next, struct gone, link));
        ev->keys_left++;
    }
}

static void key_goes(struct events *ev, const struct event *v)
{
    struct buf key = {0};
    struct gone *g = mem_new(MEM_API, sizeof *g);
    event_key(v, &key);
    g->key = buf_take(&key, NULL);
    list_push(&ev->gone, &g->link);
    ev->gone_n++;
    gone_bound(ev);
}

static void event_drop(struct events *ev, struct event *v)
{
    key_goes(ev, v);
    list_del(&v->link);
    ev->n--;
    event_free(v);
}

static void event_text(const char **to, const char *text)
{
    char *copy = mem_strndup(MEM_API, text, MIN(strlen(text), (size_t)EVENTS_MESSAGE_MAX));
    text_clean(copy); /* what a workload said may be in it, and the cut may have gone through a character */
    mem_free((char *)(uintptr_t)*to);
    *to = copy;
}

static void event_hash(struct event *v)
{
    const char *texts[] = {v->e.ns, v->e.kind, v->e.name, v->e.reason, v->e.message};
    v->same = 0;
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        v->same = v->same * 31 + hash_slice(slice_cstr(texts[i]));
}

static struct event *event_new(struct events *ev, const struct node_event *e)
{
    struct event *v = mem_new(MEM_API, sizeof *v);
    v->e = (struct node_event){.warning = e->warning};
    event_text(&v->e.ns, e->ns);
    event_text(&v->e.kind, e->kind);
    event_text(&v->e.name, e->name);
    event_text(&v->e.reason, e->reason);
    event_text(&v->e.message, e->message);
    event_hash(v);
    list_push(&ev->all, &v->link);
    ev->n++;
    return v;
}

static void events_bound(struct events *ev)
{
    LIST_FOREACH(it, &ev->all) {
        struct event *v = CONTAINER_OF(it, struct event, link);
        if (ev->n <= EVENTS_MAX)
            break;
        if (v->host)
            continue;
        event_drop(ev, v);
        ev->pushed_out++;
    }
}

/* The one that this is again; or, when there are many like it, the newest of these. *similar: how many there are. */
static struct event *event_again(const struct events *ev, const struct node_event *e, uint32_t *similar)
{
    struct event *newest = NULL;
    LIST_FOREACH(it, &ev->all) {
        struct event *v = CONTAINER_OF(it, struct event, link);
        if (v->host || strcmp(v->e.name, e->name) != 0 || strcmp(v->e.reason, e->reason) != 0 || strcmp(v->e.ns, e->ns) != 0 || strcmp(v->e.kind, e->kind) != 0)
            continue;
        if (strcmp(v->e.message, e->message) == 0)
            return v;
        newest = v;
        ++*similar;
    }
    return *similar >= EVENTS_SIMILAR_MAX ? newest : NULL;
}

static void timer_soon(struct events *ev)
{
    if (!timer_is_set(&ev->timer) || ev->timer.due_ms > loop_now_ms(ev->loop) + EVENTS_WRITE_MS)
        timer_set(ev->loop, &ev->timer, EVENTS_WRITE_MS);
}

void events_add(struct events *ev, const struct node_event *e)
{
    uint32_t similar = 0;
    struct event *v = event_again(ev, e, &similar);
    uint64_t now = wall_ns();
    if (!v) {
        v = event_new(ev, e);
        v->e.first_ns = now;
        (void)snprintf(v->name, sizeof v->name, "%016" PRIx64, now + ev->seq % 1000);
    } else if (similar >= EVENTS_SIMILAR_MAX && strcmp(v->e.message, e->message) != 0) {
        ev->combined++;
        event_text(&v->e.message, e->message);
        event_hash(v);
    }
    v->e.seq = ++ev->seq;
    v->e.count++;
    v->e.last_ns = now;
    v->dirty = true;
    ev->added++;
    list_del(&v->link);
    list_push(&ev->all, &v->link);
    events_bound(ev);
    timer_soon(ev);
}

/* Each node sees for itself what is wrong with what all of them have: it is shown once. */
static bool said_here(const struct events *ev, const struct event *other)
{
    LIST_FOREACH(it, &ev->all) {
        const struct event *v = CONTAINER_OF(it, struct event, link);
        if (v->same == other->same && !v->host)
            return true;
    }
    return false;
}

void events_each(const struct events *ev, uint64_t after, void (*each)(void *ctx, const struct node_event *e), void *ctx)
{
    LIST_FOREACH(it, &ev->all) {
        struct event *v = CONTAINER_OF(it, struct event, link);
        if (v->e.seq <= after || (v->host && said_here(ev, v)))
            continue;
        struct buf json = {0};
        event_json(ev, v, &json);
        struct node_event e = v->e;
        e.json = buf_slice(&json);
        each(ctx, &e);
        buf_free(&json);
    }
}

/* ---- the store --------------------------------------------------------------------------------------------------------------- */

static struct events *events_of(struct ctl_call *call)
{
    struct events *ev = CONTAINER_OF(call, struct events, call);
    ev->busy = false;
    return ev;
}

static void submit(struct events *ev, struct ctl_op op, void (*done)(struct ctl_call *call))
{
    ev->busy = true;
    ev->call = (struct ctl_call){.op = op, .exempt = true, .done = done};
    ctl_submit(ev->ctl, &ev->call);
}

static void write_some(struct events *ev, bool all);

/* Events that could not be written are not tried again: the next change of it is, and for the rest an hour is soon over. */
static void written(struct ctl_call *call)
{
    struct events *ev = events_of(call);
    ev->write_failures += call->error != CTL_OK;
    LIST_FOREACH(it, &ev->gone) {
        struct gone *g = CONTAINER_OF(it, struct gone, link);
        if (g->asked && call->error == CTL_OK)
            gone_free(ev, g);
        else
            g->asked = false;
    }
    bool more = call->error == CTL_OK && call->op.txn.then_n == EVENTS_OPS_MAX;
    arena_reset(&ev->mem);
    if (more)
        write_some(ev, ev->whole);
}

/* all: also what only repeats, and is not due yet. */
static void write_some(struct events *ev, bool all)
{
    size_t n = 0;
    uint64_t now = loop_now_ms(ev->loop);
    if (!ev->ctl || ev->busy || (!ev->n && !ev->gone_n))
        return;
    ev->whole = all;
    struct ctl_op *ops = arena_alloc(&ev->mem, EVENTS_OPS_MAX * sizeof *ops);
    LIST_FOREACH(it, &ev->gone) {
        struct gone *g = CONTAINER_OF(it, struct gone, link);
        if (n == EVENTS_OPS_MAX)
            break;
        ops[n++] = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(arena_strdup(&ev->mem, g->key))}};
        g->asked = true;
    }
    LIST_FOREACH(it, &ev->all) {
        struct event *v = CONTAINER_OF(it, struct event, link);
        struct buf key = {0}, value = {0};
        if (n == EVENTS_OPS_MAX)
            break;
        if (v->host || !v->dirty || (!all && v->written_ms && now - v->written_ms < EVENTS_AGAIN_MS))
            continue;
        v->dirty = false;
        v->written_ms = now;
        event_key(v, &key);
        event_json(ev, v, &value);
        ops[n++] = (struct ctl_op){.kind = CTL_PUT, .put = {.key = arena_slice(&ev->mem, buf_slice(&key)), .value = arena_slice(&ev->mem, buf_slice(&value))}};
        buf_free(&key);
        buf_free(&value);
    }
    if (n)
        submit(ev, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = n}}, written);
    else
        arena_reset(&ev->mem);
}

/* ---- other nodes' ------------------------------------------------------------------------------------------------------------ */

static struct event *event_load(struct events *ev, struct slice value, bool mine, bool others);

static void *other_make(void *ctx, struct slice key, struct slice value)
{
    struct events *ev = ctx;
    struct event *v = event_load(ev, value, false, true);
    if (!v)
        return NULL;
    v->ev = ev;
    v->seen_ms = loop_now_ms(ev->loop);
    v->e.seq = ++ev->seq;
    ev->n--;
    ev->others_n++;
    return v;
}

static void other_drop(void *data)
{
    struct event *v = data;
    list_del(&v->link);
    if (v->ev)
        v->ev->others_n--;
    event_free(v);
}

static void others_changed(void *ctx) {}

static void others_start(struct events *ev)
{
    static const struct mirror_ops ops = {.make = other_make, .drop = other_drop, .changed = others_changed, .items_max = EVENTS_SHARED_MAX};
    if (ev->shared && !ev->others)
        ev->others = mirror_start(ev->loop, ev->ctl, PREFIX, &ops, ev);
}

/* The mirror frees them when the store has answered it: they are in no list by then. */
static void others_stop(struct events *ev)
{
    LIST_FOREACH(it, &ev->all) {
        struct event *v = CONTAINER_OF(it, struct event, link);
        if (!v->host)
            continue;
        list_del(&v->link);
        v->ev = NULL;
    }
    ev->others_n = 0;
    mirror_stop(ev->others);
    ev->others = NULL;
}

/* A key that is to go: the mirror is told when it is gone. */
static bool other_is_nobodys(struct events *ev, struct event *v)
{
    uint64_t now = loop_now_ms(ev->loop);
    bool late = now - v->seen_ms >= EVENTS_KEPT_MS + LATE_MS;
    if (late)
        v->seen_ms = now; /* asked for again, when that came to nothing */
    return late;
}

void events_share(struct events *ev) { ev->shared = true; }

void events_write(struct events *ev)
{
    others_stop(ev);
    write_some(ev, true);
}
bool events_busy(const struct events *ev) { return ev->busy; }

static void events_timer(struct timer *t)
{
    struct events *ev = CONTAINER_OF(t, struct events, timer);
    uint64_t now = wall_ns(), old = (uint64_t)EVENTS_KEPT_MS * 1000000;
    LIST_FOREACH(it, &ev->all) {
        struct event *v = CONTAINER_OF(it, struct event, link);
        if (v->host && other_is_nobodys(ev, v))
            key_goes(ev, v);
        else if (!v->host && now >= v->e.last_ns && now - v->e.last_ns >= old)
            event_drop(ev, v);
    }
    if (!ev->busy)
        events_on(ev, ev->ctl);
    write_some(ev, false);
    timer_set(ev->loop, &ev->timer, SWEEP_MS);
}

static const char *member(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* One of an engine before, or of another node, if that is asked for; else NULL. What is no event of Weir's is left alone. */
static struct event *event_load(struct events *ev, struct slice value, bool mine, bool others)
{
    struct event *v = NULL;
    json_t *o = json_loadb(value.p ? value.p : "", value.n, 0, NULL), *about = json_object_get(o, "involvedObject"), *extra = json_object_get(o, "weir.dev/stored");
    const char *id = member(extra, "id"), *host = member(json_object_get(o, "source"), "host");
    bool own = strcmp(host, ev->node) == 0, wanted = own ? mine : others;
    json_int_t count = json_integer_value(json_object_get(o, "count")), first = json_integer_value(json_object_get(extra, "first_ns")),
               last = json_integer_value(json_object_get(extra, "last_ns"));
    struct node_event e = {.ns = member(about, "namespace"), .kind = member(about, "kind"), .name = member(about, "name"), .reason = member(o, "reason"),
                           .message = member(o, "message"), .warning = strcmp(member(o, "type"), "Warning") == 0};
    if (wanted && count > 0 && count < UINT32_MAX && first > 0 && last >= first && strlen(id) == 16 && *e.kind && *e.name && *e.reason) {
        v = event_new(ev, &e);
        memcpy(v->name, id, 16);
        v->host = own || mine ? NULL : mem_strdup(MEM_API, host);
        v->e.count = (uint32_t)count;
        v->e.first_ns = (uint64_t)first;
        v->e.last_ns = (uint64_t)last;
    }
    json_decref(o);
    return v;
}

static int by_time(const void *a, const void *b)
{
    const struct event *x = *(struct event *const *)a, *y = *(struct event *const *)b;
    return x->e.last_ns < y->e.last_ns ? -1 : x->e.last_ns > y->e.last_ns;
}

/* In the order in which they happened; what has happened since this engine began is behind them. */
static void read_done(struct ctl_call *call)
{
    struct events *ev = events_of(call);
    struct list mine;
    size_t n = 0;
    if (call->error != CTL_OK) {
        ev->read = false; /* the timer asks again */
        timer_soon(ev);
        return;
    }
    list_init(&mine);
    LIST_FOREACH(it, &ev->all) {
        list_del(it);
        list_push(&mine, it);
    }
    for (size_t i = 0; i < call->result.range.n; i++)
        (void)event_load(ev, call->result.range.kvs[i].value, true, !ev->shared); /* alone: also of this node when it had another name */
    struct event **all = mem_new(MEM_API, (ev->n + 1) * sizeof *all);
    LIST_FOREACH(it, &ev->all)
        all[n++] = CONTAINER_OF(it, struct event, link);
    qsort(all, n, sizeof *all, by_time);
    for (size_t i = 0; i < n; i++) {
        list_del(&all[i]->link);
        list_push(&ev->all, &all[i]->link);
        all[i]->e.seq = ++ev->seq;
    }
    LIST_FOREACH(it, &mine) {
        list_del(it);
        list_push(&ev->all, it);
        CONTAINER_OF(it, struct event, link)->e.seq = ++ev->seq;
    }
    mem_free(all);
    events_bound(ev);
    timer_soon(ev);
}

void events_on(struct events *ev, struct ctl *c)
{
    ev->ctl = c;
    if (!c)
        others_stop(ev);
    else
        others_start(ev);
    if (!c || ev->read)
        return;
    ev->read = true;
    submit(ev, (struct ctl_op){.kind = CTL_RANGE, .range = {.key = SLICE(PREFIX), .end = SLICE(PREFIX_END), .limit = ev->shared ? EVENTS_SHARED_MAX : 2 * EVENTS_MAX}}, read_done);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------------------- */

struct events *events_new(struct loop *l, const char *node)
{
    struct events *ev = mem_new(MEM_API, sizeof *ev);
    ev->loop = l;
    ev->node = mem_strdup(MEM_API, node);
    list_init(&ev->all);
    list_init(&ev->gone);
    arena_init(&ev->mem, MEM_API, 4096);
    timer_init(&ev->timer, events_timer);
    return ev;
}

void events_free(struct events *ev)
{
    if (!ev)
        return;
    timer_clear(&ev->timer);
    while (!list_empty(&ev->all))
        event_drop(ev, CONTAINER_OF(ev->all.next, struct event, link));
    LIST_FOREACH(it, &ev->gone)
        gone_free(ev, CONTAINER_OF(it, struct gone, link));
    arena_fini(&ev->mem);
    mem_free(ev->node);
    mem_free(ev);
}

void events_metrics(const struct events *ev, struct buf *out)
{
    const struct {
        const char *name;
        enum prom_type type;
        const char *help;
        uint64_t value;
    } all[] = {
        {"weir_events", PROM_GAUGE, "Events that are kept.", ev->n},
        {"weir_events_of_others", PROM_GAUGE, "Events of other nodes that are shown.", ev->others_n},
        {"weir_events_left_out_total", PROM_COUNTER, "Events of the system that are not shown here, because there are too many.", ev->others ? mirror_left_out(ev->others) : 0},
        {"weir_events_total", PROM_COUNTER, "What happened, repetitions included.", ev->added},
        {"weir_events_combined_total", PROM_COUNTER, "Of them, those that were counted as one with similar ones.", ev->combined},
        {"weir_events_pushed_out_total", PROM_COUNTER, "Events that went before their time, because there were too many.", ev->pushed_out},
        {"weir_events_write_failures_total", PROM_COUNTER, "Writes of events to the control store that failed.", ev->write_failures},
        {"weir_events_keys_left_total", PROM_COUNTER, "Keys of events that are over, left in the control store because it took nothing for too long.", ev->keys_left},
    };
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        prom_family(out, all[i].name, all[i].type, all[i].help);
        prom_u64(out, all[i].name, "", NULL, 0, all[i].value);
    }
}
