/* ctl_etcd_watch.c - watches on a cluster: all on one stream of the service Watch, made anew wherever the store goes.
 *
 *     start --> NEW --create_request--> CREATING --created--> LIVE --compacted, refused--> ENDED
 *                ^                                              |
 *                |-----------the connection is lost-------------|
 *                '--resumed, all kept told-- AWAY <--too much is kept
 *
 * No gap, no repeat. `got` is the last revision of which everything is here (told or kept); a watch is made at got + 1, and events up to got are left out
 * when they come. A watch for "the next" revision begins behind the newest one that this store has been told of, so that what is submitted after
 * ctl_watch_start() is seen.
 *
 * A revision is never apart. A member may send the events of one revision in several responses, all but the last marked `fragment`: frames. They are kept until
 * the revision is whole, and each revision is told in one message of its own.
 *
 * A watch whose owner said "no more" keeps frames up to watch_bytes_max (and all watches together watches_bytes_max); beyond that it is
 * canceled at the member, and made again when its owner has taken what was kept.
 *
 * Progress. A member tells a watch now and then that it is up to date, in order with its events; that is always asked for, so that watches without events
 * don't fall behind what is compacted. At ctl_watch_progress() the stream is asked. Members before 3.4.25 and 3.5.8 may answer that too
 * early (etcd's issue 15220: before events that are on their way): their answer is taken for true when a second one has come MARK_SETTLE_MS later, and never
 * moves `got`.
 */
#include "ctl_etcd_int.h"

enum rwatch_state { RWATCH_NEW, RWATCH_CREATING, RWATCH_LIVE, RWATCH_AWAY, RWATCH_ENDED, RWATCH_OVER };

#define FRAME_EVENT_BYTES 512u   /* what an event takes in memory beside its bytes, generously */

/* Events of one response, decoded. */
struct frame {
    struct list link;            /* on its watch */
    struct arena mem;            /* the events */
    struct ctl_event *events;
    size_t n, at;                /* at: the first that was not told */
    size_t bytes;                /* counted as kept */
    bool open;                   /* its last revision may go on in the next frame */
};

struct rwatch {
    struct ctl_watch watch;
    struct list all;             /* on watches */
    struct list link;            /* on watches_new or watches_creating, by state */
    struct list due;             /* on watches_due */
    const struct ctl_watch_ops *ops;
    void *ctx;
    struct ctl_watch_conf conf;  /* key and end: in bytes */
    struct list frames;          /* kept, oldest first */
    size_t kept;                 /* bytes of them */
    int64_t id;                  /* on the stream; 0: not there */
    int64_t got;                 /* see above; -1: not known yet which revision is the next */
    int64_t told;                /* the newest revision of a message */
    int64_t mark;                /* the member said, in order, that up to here there is nothing but what was sent; counts when no frames are kept */
    int64_t belief;              /* the same, not as certain: it moves nothing */
    int64_t progress_to;         /* with progress_wanted */
    enum rwatch_state state;
    bool paused;                 /* "no more" */
    bool gone;                   /* stopped while CREATING: freed when that is answered */
    bool empty;                  /* its range names no keys: the member never hears of it */
    bool progress_wanted;        /* ctl_watch_progress() */
    bool progress_asks;          /* and only the member can tell: counted in progress_n */
    bool progress_due;           /* an empty message, as conf.progress wants it */
    bool asked;                  /* was LIVE when progress was asked for: the answer is for it, too */
    bool renewed;                /* was refused for its token already */
    bool before;                 /* has been LIVE */
    enum ctl_error why_ended;
    int64_t compact;             /* with CTL_COMPACTED */
    char *why;                   /* of why_ended; owned */
    char bytes[];
};

static struct remote *remote_of(const struct rwatch *w) { return (struct remote *)w->watch.store; }
static struct slice id_key(const int64_t *id) { return slice_of((const char *)id, sizeof *id); }

static void rwatch_due(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    if (list_empty(&w->due)) list_push(&r->watches_due, &w->due);
    remote_turn(r);
}

/* ---- frames ---- */

static void frame_drop(struct frame *f)
{
    arena_fini(&f->mem);
    mem_free(f);
}

static void frame_free(struct rwatch *w, struct frame *f)
{
    w->kept -= f->bytes;
    remote_of(w)->kept_bytes -= f->bytes;
    list_del(&f->link);
    frame_drop(f);
}

static void frames_free(struct rwatch *w)
{
    while (!list_empty(&w->frames)) frame_free(w, CONTAINER_OF(w->frames.next, struct frame, link));
}

/* What is not whole, behind got, comes again. */
static void frames_trim(struct rwatch *w)
{
    LIST_FOREACH(it, &w->frames) {
        struct frame *f = CONTAINER_OF(it, struct frame, link);
        while (f->n > f->at && f->events[f->n - 1].kv.mod_revision > w->got) f->n--;
        f->open = false;
        if (f->n == f->at) frame_free(w, f);
    }
}

static bool frames_are_one(const struct rwatch *w) { return w->frames.next == w->frames.prev; }

/* Whether too much is kept: for all watches, or for this one. One response may be as large as it is: else a watch that rests often would get ahead by no more than one
 * revision with each response. */
static bool frames_are_over(const struct rwatch *w)
{
    const struct remote *r = remote_of(w);
    return r->kept_bytes > r->conf.watches_bytes_max || (w->kept > r->conf.watch_bytes_max && !frames_are_one(w));
}

/* The newest go, and will come again. */
static void frames_cut(struct rwatch *w)
{
    while (!list_empty(&w->frames) && frames_are_over(w)) {
        struct frame *f = CONTAINER_OF(w->frames.prev, struct frame, link);
        w->got = MIN(w->got, f->events[f->at].kv.mod_revision - 1);
        frame_free(w, f);
    }
}

/* ---- life ---- */

/* Whether the member's word is needed for the progress that is wanted. Of a watch that it does not know it can say nothing: that is asked when the watch is LIVE. */
static void rwatch_progress_asks(struct rwatch *w)
{
    bool asks = w->progress_wanted && w->id && w->state == RWATCH_LIVE && MAX(w->got, MAX(w->mark, w->belief)) < w->progress_to;
    if (asks && !w->progress_asks) remote_of(w)->progress_n++;
    if (!asks && w->progress_asks) remote_of(w)->progress_n--;
    w->progress_asks = asks;
}

static void rwatch_free(struct rwatch *w)
{
    frames_free(w);
    list_del(&w->link);
    list_del(&w->due);
    mem_free(w->why);
    mem_free(w);
}

/* The member does not know it any more. */
static void rwatch_forget(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    if (w->id) table_del(&r->watch_ids, id_key(&w->id));
    w->id = 0;
    if (w->state == RWATCH_CREATING) r->creating_n--;
    list_del(&w->link);
    w->mark = w->belief = 0; /* what they are about may come again */
    rwatch_progress_asks(w);
}

static void rwatch_end(struct rwatch *w, enum ctl_error e, int64_t compact, const char *why)
{
    rwatch_forget(w);
    frames_trim(w);
    w->state = RWATCH_ENDED;
    w->why_ended = e;
    w->compact = compact;
    mem_free(w->why);
    w->why = mem_strdup(MEM_CTL, why && why[0] ? why : ctl_error_text(e));
    rwatch_progress_asks(w);
    rwatch_due(w);
}

static void rwatch_new(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    w->state = RWATCH_NEW;
    list_del(&w->link);
    list_push(&r->watches_new, &w->link);
    remote_turn(r);
}

/* ---- telling ---- */

/* False: it is gone, or wants no more. */
static bool rwatch_tell(struct rwatch *w, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct remote *r = remote_of(w);
    MUST(!r->calling);
    r->calling = w;
    r->calling_gone = false;
    w->told = MAX(w->told, revision);
    counter_add(&r->ctl.counters.events, n);
    bool more = w->ops->events(w->ctx, events, n, w->told);
    r->calling = NULL;
    if (r->calling_gone) {
        if (w->gone) frames_free(w);
        else rwatch_free(w);
        return false;
    }
    w->paused = !more;
    return more && w->state != RWATCH_OVER;
}

/* The events of one revision, which begin at f->at and end in the same frame or a later one; in *out when they have to be joined. Returns their number; 0: they are not
 * all here. */
static size_t revision_gather(struct rwatch *w, struct frame *f, struct ctl_event **out)
{
    int64_t revision = f->events[f->at].kv.mod_revision;
    size_t n = 0;
    if (revision > w->got) return 0;
    for (struct list *it = &f->link; it != &w->frames; it = it->next) {
        const struct frame *g = CONTAINER_OF(it, struct frame, link);
        for (size_t i = g->at; i < g->n && g->events[i].kv.mod_revision == revision; i++) n++;
    }
    *out = &f->events[f->at];
    if (f->at + n <= f->n) return n;
    struct ctl_event *all = *out = arena_alloc(&f->mem, n * sizeof *all);
    for (struct list *it = &f->link; it != &w->frames; it = it->next) {
        const struct frame *g = CONTAINER_OF(it, struct frame, link);
        for (size_t i = g->at; i < g->n && g->events[i].kv.mod_revision == revision; i++) *all++ = g->events[i];
    }
    return n;
}

/* n events were told: frames that are empty now go. */
static void frames_take(struct rwatch *w, size_t n)
{
    LIST_FOREACH(it, &w->frames) {
        struct frame *f = CONTAINER_OF(it, struct frame, link);
        size_t take = MIN(n, f->n - f->at);
        f->at += take;
        n -= take;
        if (f->at < f->n) return;
        frame_free(w, f);
        if (!n) return;
    }
}

/* Tells what is kept, as far as it is whole and wanted. False: the watch is gone. */
static bool rwatch_pump(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    while (!w->paused && !list_empty(&w->frames) && w->state != RWATCH_OVER) {
        struct frame *f = CONTAINER_OF(w->frames.next, struct frame, link);
        struct ctl_event *events;
        size_t n = revision_gather(w, f, &events);
        if (!n) break;
        int64_t revision = events[0].kv.mod_revision;
        bool more = rwatch_tell(w, events, n, revision);
        if (r->calling_gone) return false;
        frames_take(w, n);
        if (r->closing) frames_free(w); /* the owner closed the store just now */
        if (!more) break;
    }
    return true;
}

static bool rwatch_caught_up(const struct rwatch *w) { return list_empty(&w->frames); }

/* An empty message, when one is wanted and true. False: the watch is gone. */
static bool rwatch_tell_progress(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    if (w->paused || !rwatch_caught_up(w) || w->got < 0 || w->state == RWATCH_OVER) return true;
    if (w->empty) w->got = MAX(w->got, r->revision);
    if (w->mark > w->got) w->got = w->mark;
    bool wanted = w->progress_wanted && MAX(w->got, w->belief) >= w->progress_to;
    if (!wanted && !w->progress_due) return true;
    w->progress_wanted = w->progress_wanted && !wanted;
    w->progress_due = false;
    rwatch_progress_asks(w);
    (void)rwatch_tell(w, NULL, 0, MAX(w->got, w->belief));
    return !r->calling_gone;
}

static void rwatch_tell_end(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    w->state = RWATCH_OVER;
    r->calling = w;
    r->calling_gone = false;
    w->ops->ended(w->ctx, w->why_ended, w->compact, w->why);
    r->calling = NULL;
    if (r->calling_gone) rwatch_free(w);
}

static void rwatch_turn(struct rwatch *w)
{
    if (w->state == RWATCH_OVER || !rwatch_pump(w) || !rwatch_tell_progress(w)) return;
    if (w->state == RWATCH_ENDED && rwatch_caught_up(w)) {
        rwatch_tell_end(w);
    } else if (w->state == RWATCH_AWAY && !w->paused && rwatch_caught_up(w)) {
        counter_inc(&remote_of(w)->ctl.counters.watches_behind);
        rwatch_new(w);
    }
}

/* ---- what the member sends ---- */

static void watch_over(struct rpc *p, const struct rpc_end *end);
static void watch_message(struct rpc *p, struct slice message);
static const struct rpc_method method_watch = {.path = "/etcdserverpb.Watch/Watch", .stream = true, .message = watch_message, .over = watch_over};

static void stream_send(struct remote *r, const Etcd__WatchRequest *m) { rpc_send(&r->watch, &m->base); }

static void cancel_send(struct remote *r, int64_t id)
{
    Etcd__WatchRequest m = ETCD__WATCH_REQUEST__INIT;
    Etcd__WatchCancelRequest cancel = ETCD__WATCH_CANCEL_REQUEST__INIT;
    if (!rpc_on(&r->watch)) return;
    m.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    m.cancel_request = &cancel;
    cancel.watch_id = id;
    stream_send(r, &m);
}

/* It can't have more: it goes on from the member's history later. */
static void rwatch_away(struct rwatch *w)
{
    cancel_send(remote_of(w), w->id);
    rwatch_forget(w);
    frames_cut(w);
    frames_trim(w);
    w->state = RWATCH_AWAY;
    rwatch_due(w);
}

/* A frame has come, the last one: whole is every revision in front of its last one, and that, too, unless it goes on. */
static void got_moves(struct rwatch *w, const struct frame *last)
{
    int64_t newest = last->events[last->n - 1].kv.mod_revision;
    LIST_FOREACH(it, &w->frames) {
        const struct frame *f = CONTAINER_OF(it, struct frame, link);
        size_t n = f->n;
        while (n > f->at && last->open && f->events[n - 1].kv.mod_revision == newest) n--;
        if (n > f->at) w->got = MAX(w->got, f->events[n - 1].kv.mod_revision);
    }
}

static void event_read(const Etcd__Event *m, struct ctl_event *out)
{
    *out = (struct ctl_event){.type = m->type == ETCD__EVENT__EVENT_TYPE__DELETE ? CTL_EVENT_DELETE : CTL_EVENT_PUT, .has_prev = m->prev_kv != NULL};
    msg_kv(m->kv, &out->kv);
    if (m->prev_kv) msg_kv(m->prev_kv, &out->prev);
}

/* The newest revision that is kept; 0: nothing is. */
static int64_t frames_newest(const struct rwatch *w)
{
    const struct frame *f = CONTAINER_OF(w->frames.prev, struct frame, link);
    return list_empty(&w->frames) ? 0 : f->events[f->n - 1].kv.mod_revision;
}

/* The events that are news, in the frame. False: they are in no order, lack their keys, or are of keys that are not watched. */
static bool events_read(const struct rwatch *w, const Etcd__WatchResponse *m, struct frame *f)
{
    int64_t last = 0, kept = frames_newest(w);
    f->events = arena_alloc(&f->mem, (m->n_events + 1) * sizeof *f->events);
    for (size_t i = 0; i < m->n_events; i++) {
        const Etcd__Event *e = m->events[i];
        if (!e->kv || e->kv->mod_revision < last || !range_has(w->conf.key, w->conf.end, etcd_slice(e->kv->key))) return false;
        last = e->kv->mod_revision;
        if (last > w->got && last < kept) return false;
        if (last > w->got) event_read(e, &f->events[f->n++]);
    }
    return true;
}

/* A frame has come. It is kept until it is told: mostly at once. */
static void rwatch_events(struct rwatch *w, struct frame *f)
{
    struct remote *r = remote_of(w);
    list_push(&w->frames, &f->link);
    w->kept += f->bytes;
    r->kept_bytes += f->bytes;
    got_moves(w, f);
    if (!rwatch_pump(w) || w->state != RWATCH_LIVE) return;
    if (w->paused && frames_are_over(w)) {
        rwatch_away(w);
    } else if (w->kept > r->conf.answer_bytes_max) {
        cancel_send(r, w->id);
        rwatch_end(w, CTL_REQUEST_TOO_LARGE, 0, "the events of one revision are larger than answers may be");
    }
}

static void rwatch_progress(struct rwatch *w, int64_t revision)
{
    w->mark = MAX(w->mark, revision);
    if (w->conf.progress) w->progress_due = true;
    rwatch_progress_asks(w);
    rwatch_due(w);
}

static void rwatch_canceled(struct rwatch *w, const Etcd__WatchResponse *m)
{
    struct remote *r = remote_of(w);
    const char *desc = strstr(m->cancel_reason, " desc = "), *reason = desc ? desc + 8 : m->cancel_reason; /* "rpc error: code = Unauthenticated desc = etcdserver: .." */
    enum ctl_error e = msg_error(reason);
    bool token = r->user && !w->renewed && (e == CTL_PERMISSION_DENIED || strcmp(reason, "etcdserver: invalid auth token") == 0);
    if (m->compact_revision > 0) {
        r->compact = MAX(r->compact, m->compact_revision);
        rwatch_end(w, CTL_COMPACTED, m->compact_revision, ctl_error_text(CTL_COMPACTED));
    } else if (token) { /* the stream's token may have expired, which 3.4 calls a missing permission; a stream keeps its token */
        w->renewed = true;
        rwatches_away(r);
        rconn_authenticate(r->conn);
    } else {
        rwatch_end(w, e == CTL_OK ? CTL_INVALID_ARGUMENT : e, 0, reason);
    }
}

/* The answer to the oldest create_request. */
static void watch_created(struct remote *r, const Etcd__WatchResponse *m)
{
    if (list_empty(&r->watches_creating)) return;
    struct rwatch *w = CONTAINER_OF(r->watches_creating.next, struct rwatch, link);
    if (w->gone) {
        rwatch_forget(w);
        rwatch_free(w);
    } else if (!m->canceled && m->watch_id != w->id) {
        rconn_fail(r->conn, false, "does not let watches be named: etcd 3.4 or newer is needed");
    } else if (m->canceled) {
        rwatch_canceled(w, m);
    } else {
        list_del(&w->link);
        r->creating_n--;
        w->state = RWATCH_LIVE;
        w->asked = w->renewed = false;
        if (w->before) counter_inc(&r->ctl.counters.watches_again);
        w->before = true;
        rwatch_progress_asks(w);
    }
    remote_turn(r);
}

static void marks_answered(struct remote *r, int64_t revision);

/* True: the frame is its watch's. */
static bool watch_take(struct remote *r, const Etcd__WatchResponse *m, struct frame *f)
{
    struct rwatch *w = table_get(&r->watch_ids, id_key(&m->watch_id));
    int64_t revision = m->header ? m->header->revision : 0;
    remote_revision(r, revision);
    if (m->created) {
        watch_created(r, m);
    } else if (m->watch_id == -1 && !m->canceled && !m->n_events) {
        marks_answered(r, revision);
    } else if (!w) {
        return false; /* the last words of one that is stopped */
    } else if (w->state != RWATCH_LIVE) {
        rconn_fail(r->conn, false, "speaks of a watch that it has not confirmed"); /* what is left out now would never come */
    } else if (m->canceled) {
        rwatch_canceled(w, m);
    } else if (!m->n_events) {
        rwatch_progress(w, revision);
    } else if (!events_read(w, m, f)) {
        rconn_fail(r->conn, false, "sent events that are in no order, or of keys that are not watched");
    } else if (f->n) {
        f->open = m->fragment;
        rwatch_events(w, f);
        return true;
    }
    return false;
}

static void watch_message(struct rpc *p, struct slice message)
{
    struct remote *r = CONTAINER_OF(p, struct remote, watch);
    struct frame *f = mem_new(MEM_CTL, sizeof *f);
    ProtobufCMessage *m;
    arena_init(&f->mem, MEM_CTL, MIN(MAX(4 * message.n, 512), 65536));
    enum err e = etcd_read_max(&etcd__watch_response__descriptor, &f->mem, message, r->conf.answer_bytes_max, &m);
    if (e != OK) {
        frame_drop(f);
        rconn_fail(r->conn, false, "sent a response of a watch that can't be read: %s", err_text(e));
        return;
    }
    const Etcd__WatchResponse *response = (const Etcd__WatchResponse *)(void *)m;
    f->bytes = sizeof *f + message.n + response->n_events * FRAME_EVENT_BYTES;
    if (!watch_take(r, response, f)) frame_drop(f);
}

static void watch_over(struct rpc *p, const struct rpc_end *end)
{
    struct remote *r = CONTAINER_OF(p, struct remote, watch);
    struct rconn *c = end->conn;
    enum ctl_error all = CTL_OK; /* that no other connection would change */
    if (end->err == ERR_LIMIT) all = CTL_REQUEST_TOO_LARGE;
    else if (end->err == OK && end->status == GRPC_UNIMPLEMENTED) all = CTL_UNSUPPORTED;
    else if (end->err == OK && end->status == GRPC_PERMISSION_DENIED) all = CTL_PERMISSION_DENIED;
    rwatches_away(r);
    if (c != r->conn) return;
    if (end->err == OK && strcmp(end->text, ctl_error_text(CTL_UNAVAILABLE)) == 0) {
        rconn_no_leader(c);
    } else if (end->err == OK && end->status == GRPC_UNAUTHENTICATED && r->user) {
        rconn_authenticate(c);
    } else if (all != CTL_OK) {
        LIST_FOREACH(it, &r->watches) {
            struct rwatch *w = CONTAINER_OF(it, struct rwatch, all);
            if (w->state == RWATCH_NEW) rwatch_end(w, all, 0, end->err == OK ? end->text : "a response is larger than answer_bytes_max: is request_bytes_max as etcd's?");
        }
    } else {
        rconn_fail(c, true, "ended the stream of watches: %s", end->err != OK ? err_text(end->err) : end->text[0] ? end->text : "without a reason");
    }
}

/* ---- making them ---- */

static void rwatch_create(struct rwatch *w)
{
    struct remote *r = remote_of(w);
    Etcd__WatchRequest m = ETCD__WATCH_REQUEST__INIT;
    Etcd__WatchCreateRequest create = ETCD__WATCH_CREATE_REQUEST__INIT;
    Etcd__WatchCreateRequest__FilterType filters[2];
    m.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = &create;
    create.key = etcd_data(w->conf.key);
    create.range_end = etcd_data(w->conf.end);
    create.start_revision = w->got + 1;
    create.progress_notify = true;
    create.prev_kv = w->conf.prev_kv;
    create.fragment = true;
    create.filters = filters;
    if (w->conf.no_put) filters[create.n_filters++] = ETCD__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT;
    if (w->conf.no_delete) filters[create.n_filters++] = ETCD__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE;
    create.watch_id = w->id = ++r->watch_id;
    MUST(!table_put(&r->watch_ids, id_key(&w->id), w));
    list_del(&w->link);
    list_push(&r->watches_creating, &w->link);
    r->creating_n++;
    w->state = RWATCH_CREATING;
    if (rpc_on(&r->watch)) stream_send(r, &m);
    else rpc_begin(r->conn, &r->watch, &method_watch, &m.base, 0);
}

static void rwatches_make(struct remote *r)
{
    while (rconn_serves(r->conn) && !r->closing && r->creating_n < CREATING_MAX && !list_empty(&r->watches_new))
        rwatch_create(CONTAINER_OF(r->watches_new.next, struct rwatch, link));
}

/* Those that were started before anything was known begin here. */
void rwatches_ready(struct remote *r)
{
    LIST_FOREACH(it, &r->watches) {
        struct rwatch *w = CONTAINER_OF(it, struct rwatch, all);
        if (w->got < 0) w->got = r->revision;
        if (w->progress_wanted) rwatch_due(w);
    }
    remote_turn(r);
}

/* The stream is gone: what is not whole comes again, on the next one. */
void rwatches_away(struct remote *r)
{
    rpc_cancel(&r->watch);
    timer_clear(&r->mark);
    r->mark_settling = r->mark_again = false;
    LIST_FOREACH(it, &r->watches_creating) {
        struct rwatch *w = CONTAINER_OF(it, struct rwatch, link);
        if (!w->gone) continue;
        rwatch_forget(w);
        rwatch_free(w);
    }
    LIST_FOREACH(it, &r->watches) {
        struct rwatch *w = CONTAINER_OF(it, struct rwatch, all);
        w->asked = false;
        if ((w->state != RWATCH_CREATING && w->state != RWATCH_LIVE) || w->empty) continue;
        rwatch_forget(w);
        frames_trim(w);
        rwatch_new(w);
    }
}

/* ---- progress, of the whole stream ---- */

static void marks_ask(struct remote *r)
{
    Etcd__WatchRequest m = ETCD__WATCH_REQUEST__INIT;
    Etcd__WatchProgressRequest progress = ETCD__WATCH_PROGRESS_REQUEST__INIT;
    if (!rpc_on(&r->watch) || r->closing) return;
    m.request_union_case = ETCD__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    m.progress_request = &progress;
    LIST_FOREACH(it, &r->watches) {
        struct rwatch *w = CONTAINER_OF(it, struct rwatch, all);
        if (!r->mark_settling) w->asked = w->state == RWATCH_LIVE;
    }
    r->mark_again = r->mark_settling;
    r->marked_ms = loop_now_ms(r->loop);
    timer_set(r->loop, &r->mark, MARK_AGAIN_MS);
    stream_send(r, &m);
}

static void marks_time(struct timer *t)
{
    struct remote *r = CONTAINER_OF(t, struct remote, mark);
    if (r->mark_settling || r->progress_n) marks_ask(r);
}

static void marks_answered(struct remote *r, int64_t revision)
{
    if (!r->mark_trusted && !r->mark_settling) {
        r->mark_settling = true;
        r->mark_revision = revision;
        timer_set(r->loop, &r->mark, MARK_SETTLE_MS);
        return;
    }
    if (!r->mark_trusted && !r->mark_again) return; /* the answer to an earlier question */
    bool behind = false;
    LIST_FOREACH(it, &r->watches) {
        struct rwatch *w = CONTAINER_OF(it, struct rwatch, all);
        if (!w->asked || w->state != RWATCH_LIVE) continue;
        if (r->mark_trusted) w->mark = MAX(w->mark, revision);
        else w->belief = MAX(w->belief, r->mark_revision);
        rwatch_progress_asks(w);
        behind |= w->progress_asks;
        rwatch_due(w);
    }
    r->mark_settling = r->mark_again = false;
    timer_clear(&r->mark);
    if (behind) timer_set(r->loop, &r->mark, MARK_AGAIN_MS); /* this member does not know yet what another one has told: not again at once */
    else if (r->progress_n) remote_turn(r);                  /* for watches that were not LIVE when this was asked */
}

void rwatches_tick(struct remote *r)
{
    if (r->mark_trusted && r->watches_n && loop_now_ms(r->loop) - r->marked_ms >= MARK_PERIOD_MS) marks_ask(r);
}

/* ---- the end of a turn ---- */

void rwatches_turn(struct remote *r)
{
    struct list now;
    list_take(&r->watches_due, &now);
    while (!list_empty(&now)) {
        struct rwatch *w = CONTAINER_OF(now.next, struct rwatch, due);
        list_del(&w->due);
        rwatch_turn(w);
    }
    rwatches_make(r);
    if (r->progress_n && !timer_is_set(&r->mark)) marks_ask(r);
}

void rwatches_stop(struct remote *r)
{
    LIST_FOREACH(it, &r->watches) {
        struct rwatch *w = CONTAINER_OF(it, struct rwatch, all);
        if (w->state == RWATCH_OVER) continue;
        if (w != r->calling) frames_free(w);
        rwatch_end(w, CTL_STOPPED, 0, ctl_error_text(CTL_STOPPED));
    }
}

bool rwatches_quiet(const struct remote *r) { return list_empty(&r->watches_due); }

void rwatches_init(struct remote *r)
{
    struct list *lists[] = {&r->watches, &r->watches_new, &r->watches_creating, &r->watches_due};
    for (size_t i = 0; i < COUNT_OF(lists); i++) list_init(lists[i]);
    timer_init(&r->mark, marks_time);
}

void rwatches_fini(struct remote *r)
{
    MUST(r->watches_n == 0);
    table_fini(&r->watch_ids);
}

/* ---- the interface ---- */

static bool range_is_empty(struct slice key, struct slice end) { return end.n && !end_is_open(end) && key_cmp(key, end) >= 0; }

struct ctl_watch *remote_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx)
{
    struct remote *r = (struct remote *)c;
    if (r->closing || r->watches_n >= r->conf.watches_max) return NULL;
    struct rwatch *w = mem_new(MEM_CTL, sizeof *w + conf->key.n + conf->end.n + 1);
    w->watch.store = c;
    w->ops = ops;
    w->ctx = ctx;
    w->conf = *conf;
    if (conf->key.n) memcpy(w->bytes, conf->key.p, conf->key.n);
    if (conf->end.n) memcpy(w->bytes + conf->key.n, conf->end.p, conf->end.n);
    w->conf.key = slice_of(w->bytes, conf->key.n);
    w->conf.end = slice_of(w->bytes + conf->key.n, conf->end.n);
    w->got = conf->revision > 0 ? conf->revision - 1 : r->revision > 0 ? r->revision : -1;
    w->empty = range_is_empty(w->conf.key, w->conf.end);
    list_init(&w->link);
    list_init(&w->due);
    list_init(&w->frames);
    list_push(&r->watches, &w->all);
    r->watches_n++;
    if (w->empty) w->state = RWATCH_LIVE;
    else rwatch_new(w);
    return &w->watch;
}

void remote_watch_resume(struct ctl_watch *watch)
{
    struct rwatch *w = (struct rwatch *)watch;
    if (!w->paused) return;
    w->paused = false;
    rwatch_due(w);
}

void remote_watch_progress(struct ctl_watch *watch)
{
    struct rwatch *w = (struct rwatch *)watch;
    if (w->state >= RWATCH_ENDED) return;
    w->progress_wanted = true;
    w->progress_to = remote_of(w)->revision;
    if (!w->empty) rwatch_progress_asks(w);
    rwatch_due(w);
}

void remote_watch_stop(struct ctl_watch *watch)
{
    struct rwatch *w = (struct rwatch *)watch;
    struct remote *r = remote_of(w);
    w->progress_wanted = false;
    rwatch_progress_asks(w);
    list_del(&w->all);
    list_del(&w->due);
    r->watches_n--;
    remote_turn(r);
    if (w->id) cancel_send(r, w->id);
    r->calling_gone |= r->calling == w;
    if (w->state == RWATCH_CREATING) { /* its place in the line of answers stays */
        table_del(&r->watch_ids, id_key(&w->id));
        w->id = 0;
        w->gone = true;
        if (r->calling != w) frames_free(w); /* else they are being read: rwatch_tell() frees them */
        return;
    }
    rwatch_forget(w);
    if (r->calling != w) rwatch_free(w);
}
