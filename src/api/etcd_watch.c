/* etcd_watch.c - the service Watch: many watches on one stream, each a watch of ctl's.
 *
 *     create --> LIVE --events()--> a response, or several      events that don't fit --> RESTING --drained--> LIVE     (ctl_watch_resume())
 *                 |                                             the stream is full --> PUT OFF --drained--> LIVE    (stopped, and started again
 *                 '--cancel, compacted--> canceled, gone                                at the revision that could not be sent)
 *
 * Nothing is queued for a slow client but what is on its stream already, STREAM_BYTES and one batch: its watches rest, or are put off, and
 * go on from the store's history when it takes again. When that is compacted meanwhile, they end as etcd's do, with compact_revision.
 *
 * A response never ends within a revision unless the watch allows fragments; then `fragment` says that more of it follows. A request for progress is
 * answered for the whole stream, with watch id -1, when every watch on it has been told everything up to that revision.
 */
#include "etcd_int.h"

#define AS(T, m) ((const T *)(const void *)(m))
#define ALL_WATCHES (-1) /* as watch id; nobody's own */
#define DENIED "rpc error: code = PermissionDenied desc = " ETCD_DENIED /* as etcd words it here */

struct etcd_watches {
    struct list all;                /* struct etcd_watch */
    struct table by_id;             /* int64_t -> struct etcd_watch */
    uint32_t n;
    uint32_t progress_left;         /* watches that have not answered the request for progress; 0: none is under way */
    int64_t progress_revision;      /* the least of the answers */
    bool progress_again;            /* it was asked for again meanwhile */
    int64_t next_id;
};

struct etcd_watch {
    struct etcd_call *call;
    struct list link;
    struct ctl_watch *ctl;          /* NULL: put off; goes on at conf.revision */
    struct ctl_watch_conf conf;     /* key and end are ours, behind the struct */
    int64_t id;
    bool fragment;
    bool resting;                   /* ctl was told to wait */
    bool progress_due;              /* of progress_left */
    char bytes[];
};

static const struct ctl_watch_ops watch_ops;
static void progress_ask(struct etcd_call *call);
static void progress_answered(struct etcd_call *call, int64_t revision);

static struct slice id_key(const int64_t *id) { return slice_of((const char *)id, sizeof *id); }

/* ---- responses --------------------------------------------------------------------------------------------------------- */

static void response_init(struct etcd_call *call, Etcd__WatchResponse *m, int64_t id, int64_t revision)
{
    etcd__watch_response__init(m);
    m->header = etcd_header(call, revision);
    m->watch_id = id;
}

static void canceled_send(struct etcd_call *call, int64_t id, bool created, int64_t compact_revision, const char *reason)
{
    Etcd__WatchResponse m;
    response_init(call, &m, id, etcd_revision(call->api));
    m.created = created;
    m.canceled = true;
    m.compact_revision = compact_revision;
    m.cancel_reason = arena_strdup(&call->mem, reason);
    etcd_stream_send(call, &m.base);
}

static Etcd__Event *event_write(struct arena *a, const struct ctl_event *ev)
{
    Etcd__Event *m = arena_alloc(a, sizeof *m);
    etcd__event__init(m);
    m->type = ev->type == CTL_EVENT_DELETE ? ETCD__EVENT__EVENT_TYPE__DELETE : ETCD__EVENT__EVENT_TYPE__PUT;
    m->kv = etcd_kv(a, &ev->kv);
    m->prev_kv = ev->has_prev ? etcd_kv(a, &ev->prev) : NULL;
    return m;
}

/* How many of the events go into the next response, and whether the rest of their last revision follows in another. */
static size_t events_cut(const struct etcd_watch *w, Etcd__Event *const *m, size_t n, bool *fragment)
{
    size_t bytes = 0, whole = 0, i = 0; /* whole: up to here revisions are complete */
    for (; i < n; i++) {
        if (i && m[i]->kv->mod_revision != m[i - 1]->kv->mod_revision)
            whole = i;
        bytes += etcd_bytes(&m[i]->base);
        if (bytes > w->call->api->limit[ETCD_LIMIT_FRAGMENT_BYTES] && i && (whole || w->fragment)) {
            *fragment = w->fragment && whole != i;
            return w->fragment ? i : whole;
        }
    }
    *fragment = false;
    return n;
}

static void events_send(struct etcd_watch *w, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct etcd_call *call = w->call;
    arena_reset(&call->mem);
    Etcd__Event **all = arena_alloc(&call->mem, n * sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = event_write(&call->mem, &events[i]);
    counter_add(&call->api->events, n);
    while (n && call->r) {
        Etcd__WatchResponse m;
        bool fragment;
        size_t take = events_cut(w, all, n, &fragment);
        response_init(call, &m, w->id, revision);
        m.events = all;
        m.n_events = take;
        m.fragment = fragment;
        etcd_stream_send(call, &m.base);
        all += take;
        n -= take;
        if (n)
            etcd_limit_hit(call->api, ETCD_LIMIT_FRAGMENT_BYTES);
    }
}

/* ---- one watch ---------------------------------------------------------------------------------------------------------- */

static size_t watch_bytes(const struct etcd_watch *w) { return w->conf.key.n + w->conf.end.n; }

/* by: 1 or -1. */
static void watch_count(struct etcd_watch *w, int by)
{
    struct etcd_api *a = w->call->api;
    struct etcd_asker *asker = w->call->asker;
    size_t bytes = (size_t)by * watch_bytes(w);
    counter_set(&a->watches, counter_read(&a->watches) + (uint64_t)by);
    asker->watches_n += (uint32_t)by;
    a->watches_bytes += bytes;
    asker->watches_bytes += bytes;
}

static bool watches_full(const struct etcd_call *call, size_t bytes)
{
    struct etcd_api *a = call->api;
    const struct etcd_asker *w = call->asker;
    return etcd_share_full(a, ETCD_LIMIT_WATCHES, counter_read(&a->watches), w->watches_n, 1) ||
        etcd_share_full(a, ETCD_LIMIT_WATCHES_BYTES, a->watches_bytes, w->watches_bytes, bytes);
}

static struct etcd_watch *watch_new(struct etcd_call *call, const Etcd__WatchCreateRequest *q, struct slice key, struct slice end)
{
    struct etcd_watches *ws = call->watches;
    struct etcd_watch *w = mem_new(MEM_API, sizeof *w + key.n + end.n + 1);
    memcpy(w->bytes, key.p, key.n);
    if (end.n)
        memcpy(w->bytes + key.n, end.p, end.n);
    w->call = call;
    w->conf = (struct ctl_watch_conf){.key = slice_of(w->bytes, key.n), .end = slice_of(w->bytes + key.n, end.n), .prev_kv = q->prev_kv, .progress = q->progress_notify};
    w->conf.revision = q->start_revision < 0 ? 1 : q->start_revision;
    for (size_t i = 0; i < q->n_filters; i++) {
        w->conf.no_put |= q->filters[i] == ETCD__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT;
        w->conf.no_delete |= q->filters[i] == ETCD__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE;
    }
    w->fragment = q->fragment;
    w->id = q->watch_id;
    while (q->watch_id == 0) {
        w->id = ws->next_id++;
        if (!table_get(&ws->by_id, id_key(&w->id)))
            break;
    }
    list_push(&ws->all, &w->link);
    MUST(!table_put(&ws->by_id, id_key(&w->id), w));
    ws->n++;
    watch_count(w, 1);
    return w;
}

static void watch_free(struct etcd_watch *w)
{
    struct etcd_watches *ws = w->call->watches;
    if (w->ctl)
        ctl_watch_stop(w->ctl);
    table_del(&ws->by_id, id_key(&w->id));
    list_del(&w->link);
    ws->n--;
    watch_count(w, -1);
    mem_free(w);
}

/* The same while the stream goes on: it is none that an answer about progress waits for. */
static void watch_end(struct etcd_watch *w)
{
    struct etcd_call *call = w->call;
    bool due = w->progress_due;
    watch_free(w);
    if (due)
        progress_answered(call, INT64_MAX);
}

/* Starts, or goes on. */
static bool watch_go(struct etcd_watch *w)
{
    w->ctl = ctl_watch_start(w->call->api->ctl, &w->conf, &watch_ops, w);
    w->resting = false;
    if (w->ctl && w->progress_due)
        ctl_watch_progress(w->ctl);
    return w->ctl != NULL;
}

static bool on_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct etcd_watch *w = ctx;
    struct etcd_call *call = w->call;
    if (n == 0) {
        Etcd__WatchResponse m;
        arena_reset(&call->mem);
        if (w->progress_due) {
            w->progress_due = false;
            progress_answered(call, revision);
        } else if (w->conf.progress && !etcd_stream_full(call)) {
            response_init(call, &m, w->id, revision);
            etcd_stream_send(call, &m.base);
        }
        return true;
    }
    if (etcd_stream_full(call)) { /* another watch's events filled it */
        ctl_watch_stop(w->ctl);
        w->ctl = NULL;
        w->conf.revision = events[0].kv.mod_revision;
        return false;
    }
    events_send(w, events, n, revision);
    w->resting = etcd_stream_full(call);
    return !w->resting;
}

static void on_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct etcd_watch *w = ctx;
    struct etcd_call *call = w->call;
    int64_t id = w->id;
    if (error == CTL_STOPPED) {
        etcd_fail(call, GRPC_UNAVAILABLE, ctl_error_text(CTL_STOPPED));
        return;
    }
    arena_reset(&call->mem);
    watch_end(w);
    canceled_send(call, id, false, compact_revision, ctl_error_text(error));
}

static const struct ctl_watch_ops watch_ops = {.events = on_events, .ended = on_ended};

/* ---- progress, of the whole stream -------------------------------------------------------------------------------------- */

static void progress_send(struct etcd_call *call, int64_t revision)
{
    Etcd__WatchResponse m;
    response_init(call, &m, ALL_WATCHES, revision);
    etcd_stream_send(call, &m.base);
}

/* One watch of those that were asked knows everything up to revision; INT64_MAX: it is no more. */
static void progress_answered(struct etcd_call *call, int64_t revision)
{
    struct etcd_watches *ws = call->watches;
    ws->progress_revision = MIN(ws->progress_revision, revision);
    if (--ws->progress_left)
        return;
    progress_send(call, ws->progress_revision == INT64_MAX ? etcd_revision(call->api) : ws->progress_revision);
    if (ws->progress_again) {
        ws->progress_again = false;
        progress_ask(call);
    }
}

static void progress_ask(struct etcd_call *call)
{
    struct etcd_watches *ws = call->watches;
    if (ws->progress_left) {
        ws->progress_again = true;
        return;
    }
    if (!ws->n) {
        progress_send(call, etcd_revision(call->api));
        return;
    }
    ws->progress_left = ws->n;
    ws->progress_revision = INT64_MAX;
    LIST_FOREACH(l, &ws->all) {
        struct etcd_watch *w = CONTAINER_OF(l, struct etcd_watch, link);
        w->progress_due = true;
        if (w->ctl)
            ctl_watch_progress(w->ctl);
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static void watch_create(struct etcd_call *call, const Etcd__WatchCreateRequest *q)
{
    struct etcd_watches *ws = call->watches;
    struct slice key = q->key.len ? etcd_slice(q->key) : slice_of("", 1), end = etcd_slice(q->range_end); /* no key: from the first one on */
    bool to_the_last = end.n == 1 && end.p[0] == 0;
    int order = end.n && !to_the_last ? memcmp(key.p, end.p, MIN(key.n, end.n)) : -1;
    const char *reason = NULL;
    if (!etcd_may(call->conn, key, end, ETCD_MAY_READ)) {
        counter_inc(&call->api->denied);
        reason = DENIED;
    } else if (order > 0 || (order == 0 && key.n >= end.n))
        reason = "mvcc: watcher range is empty";
    else if (q->watch_id == ALL_WATCHES || table_get(&ws->by_id, id_key(&q->watch_id)))
        reason = q->watch_id ? "mvcc: duplicate watch ID provided on the WatchStream" : NULL;
    if (!reason && watches_full(call, key.n + end.n))
        reason = ctl_error_text(CTL_TOO_MANY_REQUESTS);
    struct etcd_watch *w = reason ? NULL : watch_new(call, q, key, end);
    if (w && !watch_go(w)) {
        watch_free(w);
        reason = ctl_error_text(CTL_TOO_MANY_REQUESTS);
    }
    if (reason) {
        canceled_send(call, ALL_WATCHES, true, 0, reason);
        return;
    }
    Etcd__WatchResponse m;
    response_init(call, &m, w->id, etcd_revision(call->api));
    m.created = true;
    etcd_stream_send(call, &m.base);
}

static void watch_cancel(struct etcd_call *call, int64_t id)
{
    struct etcd_watch *w = table_get(&call->watches->by_id, id_key(&id));
    if (!w)
        return; /* as etcd: it may have ended meanwhile */
    watch_end(w);
    canceled_send(call, id, false, 0, "");
}

void etcd_watch_request(struct etcd_call *call, const ProtobufCMessage *m)
{
    const Etcd__WatchRequest *q = AS(Etcd__WatchRequest, m);
    if (!call->watches) {
        call->watches = mem_new(MEM_API, sizeof *call->watches);
        list_init(&call->watches->all);
    }
    switch (q->request_union_case) {
    case ETCD__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST: watch_create(call, q->create_request); break;
    case ETCD__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST: watch_cancel(call, q->cancel_request->watch_id); break;
    case ETCD__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST: progress_ask(call); break;
    default: break; /* one that is not known yet: passed over, as etcd does */
    }
}

void etcd_watches_drained(struct etcd_call *call)
{
    struct etcd_watches *ws = call->watches;
    if (!ws)
        return;
    LIST_FOREACH(l, &ws->all) {
        struct etcd_watch *w = CONTAINER_OF(l, struct etcd_watch, link);
        if (w->ctl && w->resting) {
            w->resting = false;
            ctl_watch_resume(w->ctl);
        } else if (!w->ctl && !watch_go(w)) {
            on_ended(w, CTL_TOO_MANY_REQUESTS, 0, "");
        }
    }
}

void etcd_watches_look(struct etcd_call *call)
{
    LIST_FOREACH(l, &call->watches->all) {
        struct etcd_watch *w = CONTAINER_OF(l, struct etcd_watch, link);
        int64_t id = w->id;
        if (etcd_may(call->conn, w->conf.key, w->conf.end, ETCD_MAY_READ))
            continue;
        counter_inc(&call->api->denied);
        arena_reset(&call->mem);
        watch_end(w);
        canceled_send(call, id, false, 0, DENIED);
    }
}

void etcd_watches_free(struct etcd_call *call)
{
    struct etcd_watches *ws = call->watches;
    if (!ws)
        return;
    LIST_FOREACH(l, &ws->all)
        watch_free(CONTAINER_OF(l, struct etcd_watch, link));
    table_fini(&ws->by_id);
    mem_free(ws);
    call->watches = NULL;
}
