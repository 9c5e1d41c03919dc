/* engine_objects.c - the objects of the system: from the control store at the start, changed one at a time, into the plan.
 *
 *     asked (api, weir up) -> queue -> merged with what is there -> checked -> objstore_commit() -> objects_use(): run, names outside, plan, topics
 *
 * Changes take turns: each is checked against what the one before made of the objects, so two that come at once both take effect, or the second is told
 * why it can't. Nothing is in force that is not on disk: an error at any step leaves everything as it was. When another node changed something first, the
 * objects are read again and the change is made once more, also where nothing seemed to be different; after some such tries it is refused (ERR_INUSE).
 *
 *     the start:   store open -> objects read -> weir up's files: checked, committed | a later engine: as they are -> in force (objs.settled)
 *     a rehearsal: the engine in charge has the store; it leaves a copy of the objects in DATA/objects.copy
 */
#include "engine_int.h"
#include "topic_check.h"
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define OBJECTS_FILE_BYTES_MAX (256u << 20)
#define MANIFEST_BYTES_MAX (8u << 20)
#define TRIM_MS 500
#define CHANGE_TRIES 50              /* of a change that those of other nodes come before: each time one of them was made. Who hears the store late may lose all of them */
#define CLUSTER_OPS_MAX 100          /* of a transaction; an etcd cluster takes 128 */
#define CLUSTER_OPS_BYTES_MAX (512u << 10) /* and 1.5 MiB, of which one object may be the larger part */
#define OBJECTS_COPY "objects.copy"  /* for a rehearsal; there only during an upgrade */
#define STDIN_FILE "stdin.yaml"      /* what `weir up -` was given; there only until it is taken */
#define OBJECTS_OLD "objects.json"   /* of Weir before the control store: taken in once */
#define OBJECTS_TAKEN "objects.json.taken"

static void change_done(struct engine *e);

static char *data_path(const struct engine *e, const char *name)
{
    struct buf b = {0};
    buf_printf(&b, "%s/%s", e->conf.data_dir, name);
    return buf_take(&b, NULL);
}

/* ---- checks ---------------------------------------------------------------------------------------------------------------- */

/* Without sk_lookup a service's port has a listener of Weir's in every namespace, and a workload there that listens on the
 * same port with all addresses could not start: EADDRINUSE, which it would not explain. */
static void port_check(const struct object *service, const struct object *dep, struct diags *d)
{
    struct buf where = {0};
    buf_printf(&where, "Service/%s/%s spec.ports", service->ns, service->name);
    for (size_t i = 0; i < service->svc.ports_n; i++)
        for (size_t k = 0; k < dep->dep.pod.ports_n; k++)
            if (service->svc.ports[i].port == dep->dep.pod.ports[k].port)
                diags_add(d, DIAG_ERROR, service->file, service->line, service->column, where.p, "give the Service another port, such as 80, with this one as targetPort; or run Weir as root",
                          "port %u is also a container port of Deployment %s/%s, and without root (BPF sk_lookup) the two would be in each other's way", service->svc.ports[i].port, dep->ns, dep->name);
    buf_free(&where);
}

/* What this machine does not permit is refused by name, before anything is started. */
static void machine_check(struct engine *e, const struct objset *set, struct diags *d)
{
    for (size_t i = 0; i < objset_n(set) && e->caps.net != SUP_NET_LOOKUP; i++) {
        const struct object *dep = objset_at(set, i);
        if (dep->kind == OBJ_SERVICE && dep->svc.headless && e->caps.net == SUP_NET_LISTEN)
            diags_add(d, DIAG_ERROR, dep->file, dep->line, dep->column, dep->name, "run Weir as root, or remove clusterIP: None and call the Service by its name",
                      "addresses of single replicas need BPF sk_lookup, which this machine does not permit (%s)", e->caps.why);
        if (dep->kind != OBJ_DEPLOYMENT || dep->dep.pod.host_network)
            continue;
        if (e->caps.net == SUP_NET_HOST)
            diags_add(d, DIAG_ERROR, dep->file, dep->line, dep->column, dep->name, "run Weir as root, permit user namespaces, or set hostNetwork: true with one replica and a free port",
                      "this machine permits no network namespaces (%s), and running replicas on host ports is not built yet", e->caps.why);
        for (size_t k = 0; k < objset_n(set) && e->caps.net == SUP_NET_LISTEN; k++)
            if (objset_at(set, k)->kind == OBJ_SERVICE)
                port_check(objset_at(set, k), dep, d);
    }
}

/* True when g is about an object of set. */
static bool about(const struct diag *g, const struct objset *set)
{
    bool found = false;
    for (size_t i = 0; i < objset_n(set) && !found; i++) {
        const struct object *o = objset_at(set, i);
        struct buf name = {0};
        buf_printf(&name, "%s/%s%s%s ", obj_kind_name(o->kind), o->ns, o->ns[0] ? "/" : "", o->name);
        found = slice_starts(slice_cstr(g->where), buf_slice(&name));
        buf_free(&name);
    }
    return found;
}

static bool said(const struct diags *d, const struct diag *g)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->items[i].where, g->where) == 0 && strcmp(d->items[i].reason, g->reason) == 0)
            return true;
    return false;
}

/* What was amiss before with objects that next does not touch (a reference to what has been deleted) is neither a reason to
 * refuse next nor worth repeating. */
static void references_check(struct engine *e, const struct objset *merged, const struct objset *next, struct diags *d)
{
    struct diags now = {0}, before = {0};
    objset_check(merged, &now);
    objset_check(e->objects, &before);
    for (size_t i = 0; i < now.n; i++) {
        const struct diag *g = &now.items[i];
        if (!said(&before, g) || about(g, next))
            diags_add(d, g->level, g->file, g->line, g->column, g->where, g->remedy, "%s", g->reason);
    }
    diags_free(&now);
    diags_free(&before);
}

/* merged: all objects as they would be; given: those that the change is about. */
static void change_check(struct engine *e, const struct objset *merged, const struct objset *given, struct diags *d)
{
    references_check(e, merged, given, d);
    objset_check_immutable(e->objects, given, d);
    topic_check_settings(given, d);
    topic_check_names(e->objects, merged, given, d);
    machine_check(e, merged, d);
    peers_check(e, merged, d);
}

/* ---- in force ---------------------------------------------------------------------------------------------------------------- */

/* From here on next is what is wanted. */
static void objects_use(struct engine *e, struct objset *next)
{
    struct objset *old = e->objects;
    e->objects = next;
    e->objs.settled = true;
    run_want(e->run, next);
    resolver_want(e->resolver, next);
    engine_publish(e);
    topics_follow(e);
    store_follow(e);
    objset_free(old);
    cluster_touch(e);
    last_soon(e);
    engine_logs_trim(e);
    timer_set(e->loop, &e->objs.trim, TRIM_MS);
}

/* When what the change needed is freed everywhere: here, in the store, in the workers that let go of the plan before. */
static void objects_trim(struct timer *t) { mem_trim(); }

/* As they are: they were checked when they were applied, and what has been deleted since must not keep the node from starting. */
static void objects_restore(struct engine *e, struct objset *set)
{
    struct diags d = {0};
    objset_check(set, &d);
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR)
            log_warn("engine", "%s: %s", d.items[i].where, d.items[i].reason);
    diags_free(&d);
    objset_addresses(set);
    objects_use(e, set);
}

/* ---- a change ------------------------------------------------------------------------------------------------------------------ */

static void change_fail(struct node_change *c, enum err er, const char *why)
{
    c->error = er;
    buf_clear(&c->why);
    buf_adds(&c->why, why);
}

/* What becomes of each object that is given. */
static void note_given(struct node_change *c, const struct objset *now, const struct objset *given)
{
    for (size_t i = 0; i < objset_n(given); i++) {
        const struct object *o = objset_at(given, i);
        node_change_object(c, objset_find(now, o->kind, o->ns, o->name), o);
    }
}

/* What is in merged and was not given goes. */
static void keep_only(struct objset *merged, const struct objset *given)
{
    for (size_t i = objset_n(merged); i-- > 0;) {
        const struct object *o = objset_at(merged, i);
        if (!objset_find(given, o->kind, o->ns, o->name))
            objset_remove(merged, o->kind, o->ns, o->name);
    }
}

static void merge_applied(struct engine *e, struct node_change *c, struct objset *merged)
{
    struct objset *nothing = objset_new();
    if (c->merge && objset_own(c->next, e->objs.replace ? nothing : e->objects, c->merge, &c->conflicts, &c->diags) != OK)
        change_fail(c, ERR_INUSE, "others own fields of it");
    objset_free(nothing);
    if (c->error || c->diags.errors)
        return;
    struct objset *given = objset_copy(c->next);
    note_given(c, e->objects, given);
    topics_given(e, given);
    objset_merge(merged, c->next); /* c->next is empty now */
    if (e->objs.replace)
        keep_only(merged, given);
    if (!e->objs.taking_in) {
        change_check(e, merged, given, &c->diags);
    }
    objset_free(given);
}

static void merge_deleted(struct node_change *c, struct objset *merged)
{
    for (size_t i = 0; i < c->refs_n; i++) {
        const struct node_ref *r = &c->refs[i];
        bool there = objset_remove(merged, r->kind, r->ns, r->name);
        node_change_note(c, r->kind, r->ns, r->name, there ? "deleted" : "not found");
        c->missing += !there;
    }
}

/* Into into: what history says of another time. inherits: as a change of what is there now. */
static void past_into(struct objset *into, struct objstore_past *past, bool inherits)
{
    for (size_t i = 0; i < past->absent_n; i++)
        objset_remove(into, past->absent[i].kind, past->absent[i].ns, past->absent[i].name);
    for (size_t i = 0; !inherits && i < objset_n(past->set); i++)
        objset_remove(into, objset_at(past->set, i)->kind, objset_at(past->set, i)->ns, objset_at(past->set, i)->name);
    objset_merge(into, past->set);
}

static bool meant(const struct node_change *c, enum obj_kind k, const char *ns, const char *name)
{
    bool found = c->refs_n == 0;
    for (size_t i = 0; i < c->refs_n && !found; i++)
        found = c->refs[i].kind == k && strcmp(c->refs[i].ns, ns) == 0 && strcmp(c->refs[i].name, name) == 0;
    return found;
}

/* Of the past only what is meant. */
static void past_only(struct objstore_past *past, const struct node_change *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < past->absent_n; i++)
        if (meant(c, past->absent[i].kind, past->absent[i].ns, past->absent[i].name))
            past->absent[kept++] = past->absent[i];
    past->absent_n = kept;
    for (size_t i = objset_n(past->set); i-- > 0;) {
        const struct object *o = objset_at(past->set, i);
        if (!meant(c, o->kind, o->ns, o->name))
            objset_remove(past->set, o->kind, o->ns, o->name);
    }
}

static void merge_past(struct engine *e, struct node_change *c, struct objset *merged)
{
    struct objstore_past *past = &e->objs.back.after;
    past_only(past, c);
    struct objset *given = objset_copy(past->set);
    for (size_t i = 0; i < past->absent_n; i++)
        if (objset_find(merged, past->absent[i].kind, past->absent[i].ns, past->absent[i].name))
            node_change_note(c, past->absent[i].kind, past->absent[i].ns, past->absent[i].name, "deleted");
    note_given(c, e->objects, given);
    past_into(merged, past, true);
    change_check(e, merged, given, &c->diags);
    objset_free(given);
}

/* Another node's change came first: once more, on what that one made of the objects, since what is asked for is meant for whatever is there. Kubernetes' API
 * server does the same, and as often. */
static void change_again(struct engine *e)
{
    struct engine_objects *q = &e->objs;
    struct node_change *c = q->now;
    struct diags gone = {0};
    topics_again(e, false);
    objset_free(q->next);
    q->next = NULL;
    if (q->given) {
        objset_free(c->next);
        c->next = objset_copy(q->given);
    }
    diags_cut(&c->diags, q->diags_n, 0, &gone);
    diags_free(&gone);
    buf_clear(&c->changes);
    c->missing = 0;
    q->again = q->reread = true;
    loop_defer(e->loop, &q->turn);
}

static void committed(struct objstore_commit *oc)
{
    struct engine *e = CONTAINER_OF(oc, struct engine, objs.commit);
    struct node_change *c = e->objs.now;
    if (oc->op.error == OK) {
        c->revision = oc->revision;
        objects_use(e, e->objs.next);
        e->objs.next = NULL;
    } else {
        if (oc->op.error == ERR_INUSE && e->cluster.join && c != &e->objs.first && ++e->objs.tries < CHANGE_TRIES) {
            objstore_op_fini(&oc->op);
            change_again(e);
            return;
        }
        change_fail(c, oc->op.error, oc->op.why.p);
        e->objs.reread = oc->op.error == ERR_INUSE || (e->cluster.join && oc->op.call.error == CTL_UNKNOWN); /* it may be there */
    }
    objstore_op_fini(&oc->op);
    change_done(e);
}

static const char *what_of(const struct node_change *c, char text[64])
{
    if (c->what)
        return c->what;
    switch (c->kind) {
    case CHANGE_APPLY: return "apply";
    case CHANGE_DELETE: return "delete";
    case CHANGE_ROLLBACK: break;
    }
    snprintf(text, 64, "rollback to revision %lld", (long long)c->revision);
    return text;
}

/* Nothing is different from what was read here; and from what the store has now? A change of another node may be on its way, and what is asked for would be said to be there, and
 * would not. */
static void unchanged_known(struct objstore_newest *n)
{
    struct engine *e = CONTAINER_OF(n, struct engine, objs.newest);
    struct node_change *c = e->objs.now;
    bool good = n->op.error == OK, there = good && objstore_has(e->objs.store, n), again = good && !there && ++e->objs.tries < CHANGE_TRIES;
    if (!good)
        change_fail(c, n->op.error, n->op.why.p);
    else if (!there && !again)
        change_fail(c, ERR_INUSE, "another change came first");
    objstore_op_fini(&n->op);
    if (again)
        change_again(e);
    else
        change_done(e);
}

static void change_unchanged(struct engine *e)
{
    struct engine_objects *q = &e->objs;
    if (e->cluster.join && q->now != &q->first) { /* for the first one they have just been read */
        q->newest = (struct objstore_newest){.done = unchanged_known};
        objstore_newest(q->store, &q->newest);
    } else {
        change_done(e);
    }
}

/* Everything is known: the objects as they are to be are made, checked and written. */
static void change_make(struct engine *e)
{
    struct engine_objects *q = &e->objs;
    struct node_change *c = q->now;
    char text[64];
    q->next = objset_copy(e->objects);
    switch (c->kind) {
    case CHANGE_APPLY: merge_applied(e, c, q->next); break;
    case CHANGE_DELETE: merge_deleted(c, q->next); break;
    case CHANGE_ROLLBACK: merge_past(e, c, q->next); break;
    }
    if (c->diags.errors)
        c->error = ERR_INVALID;
    if (c->error == OK && !c->dry_run) {
        objset_addresses(q->next);
        objset_keep_same(q->next, e->objects, !q->replace); /* who starts the node anew with the same manifests changes nothing */
        q->commit = (struct objstore_commit){.done = committed, .from = e->objects, .to = q->next, .replace_unread = q->replace, .by = c->by ? c->by : "", .what = what_of(c, text)};
        enum err er = objstore_commit(q->store, &q->commit);
        if (er == OK)
            return;
        if (er != ERR_NOTFOUND)
            change_fail(c, er, q->commit.op.why.p);
        objstore_op_fini(&q->commit.op);
        if (er == ERR_NOTFOUND) {
            change_unchanged(e);
            return;
        }
    }
    change_done(e);
}

static void went_back(struct objstore_back *b)
{
    struct engine *e = CONTAINER_OF(b, struct engine, objs.back);
    struct node_change *c = e->objs.now;
    if (b->op.error != OK && !b->diags.errors)
        change_fail(c, b->op.error, b->op.why.p);
    for (size_t i = 0; i < b->diags.n; i++) {
        const struct diag *g = &b->diags.items[i];
        diags_add(&c->diags, g->level, g->file, g->line, g->column, g->where, g->remedy, "%s", g->reason);
    }
    if (c->error || c->diags.errors) {
        c->error = c->error ? c->error : ERR_INVALID;
        change_done(e);
    } else {
        change_make(e);
    }
    objstore_back_fini(b); /* what was made of it is copied */
}

static bool objects_open(const struct engine *e, struct node_change *c)
{
    if (e->stopping)
        change_fail(c, ERR_AGAIN, "the node is stopping"); /* nothing would be started any more */
    else if (e->last.serving)
        change_fail(c, ERR_AGAIN, cluster_trouble(e));
    else if (!e->run || e->store.state != STORE_OPEN)
        change_fail(c, ERR_AGAIN, e->store.why ? e->store.why : "the control store is not open");
    else
        return true;
    return false;
}

static void change_begin(struct engine *e)
{
    struct node_change *c = e->objs.now;
    if (!objects_open(e, c)) {
        change_done(e);
    } else if (c->kind == CHANGE_ROLLBACK) {
        e->objs.back = (struct objstore_back){.done = went_back, .revision = c->revision};
        objstore_back(e->objs.store, &e->objs.back);
    } else {
        change_make(e);
    }
}

void engine_event(struct engine *e, const char *ns, const char *kind, const char *name, bool warning, const char *reason, const char *message)
{
    events_add(e->events, &(struct node_event){.ns = ns, .kind = kind, .name = name, .warning = warning, .reason = reason, .message = message});
}

/* What was asked for and is not in force. */
static void event_refused(struct engine *e, const struct node_change *c)
{
    struct buf text = {0};
    char what[64];
    const struct diag *first = NULL;
    for (size_t i = 0; i < c->diags.n && !first; i++)
        first = c->diags.items[i].level == DIAG_ERROR ? &c->diags.items[i] : NULL;
    buf_printf(&text, "%s%s%s: ", what_of(c, what), c->by && *c->by ? " by " : "", c->by ? c->by : "");
    if (first)
        diag_format(first, &text);
    else
        buf_adds(&text, c->why.n ? c->why.p : err_text(c->error));
    engine_event(e, "", "Node", e->conf.name, true, first ? "ConfigRejected" : "ConfigNotSaved", text.p);
    buf_free(&text);
}

static void change_done(struct engine *e)
{
    struct engine_objects *q = &e->objs;
    struct node_change *c = q->now;
    if (c->error != OK && !c->dry_run && !e->stopping)
        event_refused(e, c);
    topics_again(e, c->error == OK && !c->dry_run);
    objset_free(q->next);
    objset_free(q->given);
    q->next = q->given = NULL;
    q->now = NULL;
    loop_defer(e->loop, &q->turn);
    c->done(c);
}

/* What was in force stays so. What can't be understood will not be before it is changed again; a store that does not answer is asked again. */
static void reread_failed(struct engine *e, const struct objstore_read *r)
{
    struct buf text = {0};
    log_error("engine", "the objects were changed elsewhere, and can't be read again: %s", r->op.why.p ? r->op.why.p : err_text(r->op.error));
    for (size_t i = 0; i < r->diags.n; i++) {
        buf_clear(&text);
        diag_format(&r->diags.items[i], &text);
        log_error("engine", "%s", text.p);
    }
    if (r->op.error == ERR_INVALID)
        engine_event(e, "", "Node", e->conf.name, true, "ConfigUnreadable", text.n ? text.p : r->op.why.p);
    else
        cluster_head_again(e);
    buf_free(&text);
}

static void reread_done(struct objstore_read *r)
{
    struct engine *e = CONTAINER_OF(r, struct engine, objs.read);
    e->objs.reading = e->objs.reread = false;
    if (r->op.error == OK && e->run && !e->stopping) {
        log_info("engine", "the objects were changed elsewhere: revision %lld", (long long)objstore_revision(e->objs.store));
        if (objstore_at(e->objs.store) < e->objs.read_from)
            cluster_went_back(e);
        objects_restore(e, r->set);
        r->set = NULL;
        syncs_read(e);
    } else if (r->op.error != OK) {
        reread_failed(e, r);
        syncs_end(e);
        if (e->cluster.fleet)
            fleet_touch(e->cluster.fleet); /* what can't be read here is for others to place */
    }
    objset_free(r->set);
    diags_free(&r->diags);
    objstore_op_fini(&r->op);
    loop_defer(e->loop, &e->objs.turn);
}

static void change_take(struct engine *e)
{
    struct engine_objects *q = &e->objs;
    q->now = CONTAINER_OF(q->queue.next, struct node_change, link);
    list_del(&q->now->link);
    q->tries = 0;
    q->diags_n = q->now->diags.n;
    q->given = e->cluster.join && q->now->kind == CHANGE_APPLY ? objset_copy(q->now->next) : NULL;
    change_begin(e);
}

/* One thing at a time. */
static void objects_turn(struct task *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, objs.turn);
    struct engine_objects *q = &e->objs;
    bool awaited = syncs_follow(e);
    if (q->reading || (q->now && !q->again))
        return;
    q->reread = q->reread || awaited;
    if (q->reread && e->store.state == STORE_OPEN) {
        q->reading = true;
        q->read_from = MAX(objstore_at(q->store), cluster_head_at(e));
        syncs_reading(e);
        q->read = (struct objstore_read){.done = reread_done, .base = e->cluster.join ? &e->objects : NULL};
        objstore_read(q->store, &q->read);
    } else if (q->again) {
        q->again = false;
        change_begin(e);
    } else if (!list_empty(&q->queue)) {
        change_take(e);
    }
}

void engine_change(struct engine *e, struct node_change *c)
{
    list_push(&e->objs.queue, &c->link);
    loop_defer(e->loop, &e->objs.turn);
}

/* ---- history ---------------------------------------------------------------------------------------------------------------------- */

/* Each question has its own, since there may be several. */
struct looking {
    struct engine *e;
    struct node_history *h;
    struct objstore_list list;
    struct objstore_back back;
};

static void looked(struct looking *l, struct objstore_op *op)
{
    struct node_history *h = l->h;
    h->error = op->error;
    if (op->error)
        buf_adds(&h->why, op->why.p ? op->why.p : err_text(op->error));
    objstore_op_fini(op);
    mem_free(l);
    h->done(h);
}

static void listed(struct objstore_list *list)
{
    struct looking *l = CONTAINER_OF(list, struct looking, list);
    l->h->json = list->json;
    looked(l, &list->op);
}

static void showed(struct objstore_back *b)
{
    struct looking *l = CONTAINER_OF(b, struct looking, back);
    struct node_history *h = l->h;
    struct buf why = {0};
    if (b->op.error == OK) {
        buf_adds(&h->json, b->summary);
        h->after = objset_copy(l->e->objects);
        past_into(h->after, &b->after, false);
        h->before = b->before.set;
        b->before.set = NULL;
    } else if (b->diags.n) {
        diag_format(&b->diags.items[0], &why);
        buf_clear(&b->op.why);
        buf_add_slice(&b->op.why, buf_slice(&why));
    }
    struct objstore_op op = b->op; /* answered from; the rest goes */
    b->op = (struct objstore_op){0};
    objstore_back_fini(b);
    buf_free(&why);
    looked(l, &op);
}

void engine_history(struct engine *e, struct node_history *h)
{
    struct looking *l;
    if (e->store.state != STORE_OPEN) {
        h->error = ERR_AGAIN;
        buf_adds(&h->why, e->store.why ? e->store.why : "the control store is not open");
        h->done(h);
        return;
    }
    l = mem_new(MEM_API, sizeof *l);
    l->e = e;
    l->h = h;
    if (h->revision) {
        l->back = (struct objstore_back){.done = showed, .revision = h->revision, .itself = true};
        objstore_back(e->objs.store, &l->back);
    } else {
        l->list = (struct objstore_list){.done = listed};
        objstore_list(e->objs.store, &l->list);
    }
}

/* ---- the start ----------------------------------------------------------------------------------------------------------------------- */

static void diags_print(const struct diags *d)
{
    for (size_t i = 0; i < d->n; i++) {
        struct buf b = {0};
        diag_format(&d->items[i], &b);
        buf_addc(&b, '\n');
        fwrite(b.p, 1, b.n, stderr);
        buf_free(&b);
    }
}

static void file_apply(struct engine *e, struct objset *set, const char *path, struct diags *d)
{
    struct buf text = {0}, dir = {0};
    const char *slash = strrchr(path, '/');
    size_t dir_n = slash && slash > path ? (size_t)(slash - path) : 1;
    enum err er = file_read(path, &text, MANIFEST_BYTES_MAX);
    char cwd[PATH_MAX];
    /* `weir up -` keeps standard input in the data folder; its paths are meant from where it was called. */
    if (strlen(e->conf.data_dir) == dir_n && memcmp(path, e->conf.data_dir, dir_n) == 0 && getcwd(cwd, sizeof cwd))
        buf_adds(&dir, cwd);
    else
        buf_add(&dir, path, dir_n);
    if (er != OK)
        diags_add(d, DIAG_ERROR, path, 0, 0, "", "check the path and its permissions", "the file can't be read: %s", err_text(er));
    else
        objset_read(set, path, dir.p, buf_slice(&text), e->conf.default_ns, e->conf.strict, d);
    buf_free(&text);
    buf_free(&dir);
}

/* Nobody reads it any more, and values of Secrets are in clear in it. */
static void stdin_remove(struct engine *e)
{
    char *path = data_path(e, STDIN_FILE);
    (void)unlink(path);
    mem_free(path);
}

/* The first objects are in force, or can't be. */
static void first_over(struct engine *e, struct diags *d)
{
    stdin_remove(e);
    diags_print(d);
    size_t errors = d->errors;
    if (errors)
        fprintf(stderr, "weir: %zu error%s; %s\n", errors, errors == 1 ? "" : "s", e->later || e->last.began ? "what runs goes on" : "nothing was started");
    diags_free(d);
    if (e->stopping || e->last.began) /* it serves already */
        return;
    if (errors)
        engine_unsettled(e);
    else
        engine_settled(e);
}

/* The folder is synced: if the file came back with a power failure, it would undo what is applied from now on. */
static void old_file_taken(struct engine *e)
{
    char *from = data_path(e, OBJECTS_OLD), *to = data_path(e, OBJECTS_TAKEN);
    if (disk_rename(from, to) == OK && disk_sync_dir(e->conf.data_dir) != OK)
        log_error("engine", "the data folder can't be synced: after a power failure " OBJECTS_OLD " may be taken in again");
    mem_free(from);
    mem_free(to);
}

/* What others own is said like a mistake in a manifest: another try would find the same. */
static void conflicts_said(struct merge_conflicts *all, struct diags *d)
{
    struct buf where = {0};
    for (size_t i = 0; i < all->kept; i++) {
        const struct merge_conflict *x = &all->items[i];
        buf_clear(&where);
        buf_printf(&where, "%s/%s%s%s %s", x->kind, x->ns, *x->ns ? "/" : "", x->name, x->field + (x->field[0] == '.'));
        diags_add(d, DIAG_ERROR, "weir up", 0, 0, where.p, "start without the manifests, and take it over with weir apply --force-conflicts, or leave it out of them", "%s has given it another value, and owns it", x->manager);
    }
    buf_free(&where);
    merge_conflicts_free(all);
}

/* Of the first change: manifests of `weir up`, or the file of an older version. */
static void first_changed(struct node_change *c)
{
    struct engine *e = CONTAINER_OF(c, struct engine, objs.first);
    struct diags d = c->diags;
    conflicts_said(&c->conflicts, &d);
    if (c->error == ERR_INUSE && e->cluster.join && !d.errors && !e->stopping) { /* another node was faster: once more, with what it made */
        e->objs.reread = false;
        buf_free(&c->why);
        buf_free(&c->changes);
        objset_free(c->next);
        diags_free(&d);
        objects_begin(e);
        return;
    }
    bool unchanged = c->error == OK && !e->objs.settled; /* it is all there: nothing was committed */
    e->objs.replace = e->objs.taking_in = false;
    if (unchanged)
        objects_restore(e, objset_copy(e->objects));
    if (c->error && !d.errors && !e->stopping)
        diags_add(&d, DIAG_ERROR, e->store.dir, 0, 0, "", "make room or mend what is said, and start again", "the objects could not be saved: %s", c->why.n ? c->why.p : err_text(c->error));
    if (!c->error)
        old_file_taken(e);
    buf_free(&c->why);
    buf_free(&c->changes);
    objset_free(c->next);
    first_over(e, &d);
}

/* Everything that the node has becomes what is in next. */
static void first_change(struct engine *e, struct objset *next, const char *what, struct diags *d)
{
    e->objs.own = (struct merge_conf){.manager = MERGE_MANAGER, .now_ns = wall_ns()}; /* as by weir apply: it owns all of it, there being nothing else */
    e->objs.first = (struct node_change){.kind = CHANGE_APPLY, .next = next, .merge = e->objs.taking_in ? NULL : &e->objs.own, .by = "weir up", .what = what, .diags = *d, .done = first_changed};
    e->objs.replace = !e->cluster.join; /* what others applied to a system of nodes stays */
    *d = (struct diags){0};
    engine_change(e, &e->objs.first);
}

/* False: there is no such file. */
static bool old_file_read(struct engine *e, struct objset *set, struct diags *d)
{
    char *path = data_path(e, OBJECTS_OLD);
    struct buf text = {0};
    enum err er = file_read(path, &text, OBJECTS_FILE_BYTES_MAX);
    bool there = er != ERR_NOTFOUND;
    if (er == OK)
        er = objset_load(set, path, buf_slice(&text), e->keys, d);
    if (there && er != OK && !d->errors)
        diags_add(d, DIAG_ERROR, path, 0, 0, "", "mend or remove the file, and start with the manifests", "the saved objects can't be loaded: %s", err_text(er));
    buf_free(&text);
    mem_free(path);
    return there;
}

static void files_apply(struct engine *e, struct diags *d)
{
    struct objset *set = objset_new();
    for (int i = 0; i < e->conf.files_n; i++)
        file_apply(e, set, e->conf.files[i], d);
    if (d->errors) {
        objset_free(set);
        first_over(e, d);
    } else {
        first_change(e, set, "up", d);
    }
}

/* What could not be read is replaced by manifests, and is an error without. */
static void unread_said(struct diags *unread, bool replaced, struct diags *d)
{
    for (size_t i = 0; i < unread->n; i++) {
        const struct diag *g = &unread->items[i];
        diags_add(d, replaced ? DIAG_WARNING : g->level, g->file, g->line, g->column, g->where, replaced ? "it is replaced by what the manifests say" : g->remedy, "%s", g->reason);
    }
    diags_free(unread);
}

/* This node serves by its last plan: what the store has takes its place, and then what weir up was given. A store that is there and has nothing does not. */
static void recalled_read(struct engine *e, struct objstore_read *r)
{
    struct diags d = {0};
    bool files = !e->later && e->conf.files_n, good = r->op.error == OK && (files || !r->none) && !e->stopping;
    if (!good && !e->stopping) {
        last_failed(e, r->op.error == OK ? "there are none" : r->op.why.p ? r->op.why.p : err_text(r->op.error));
    }
    diags_free(&r->diags);
    objstore_op_fini(&r->op);
    if (!good) {
        objset_free(r->set);
        return;
    }
    if (e->last.serving)
        last_over(e);
    objects_restore(e, r->set);
    if (files)
        files_apply(e, &d);
}

void objects_recalled(struct engine *e, struct objset *set)
{
    objects_restore(e, set);
    engine_settled(e);
}

static void first_read(struct objstore_read *r)
{
    struct engine *e = CONTAINER_OF(r, struct engine, objs.read);
    if (e->objs.settled) {
        e->objs.reading = false;
        recalled_read(e, r);
        return;
    }
    struct diags d = {0};
    struct objset *old = objset_new();
    bool files = !e->later && e->conf.files_n, none = r->none;
    e->objs.reading = false;
    objset_free(e->objects);
    e->objects = r->set;
    unread_said(&r->diags, files && !e->cluster.join, &d); /* what others of a system of nodes can read is not this one's to replace */
    if (r->op.error != OK && !d.n)
        diags_add(&d, DIAG_ERROR, e->store.dir, 0, 0, "", "see the node's log", "the objects can't be read: %s", r->op.why.p ? r->op.why.p : err_text(r->op.error));
    objstore_op_fini(&r->op);
    bool taken_in = !files && !d.errors && !e->stopping && old_file_read(e, old, &d);
    if (e->stopping || d.errors) {
        first_over(e, &d);
    } else if (taken_in) {
        e->objs.taking_in = true;
        first_change(e, old, "taken in from " OBJECTS_OLD, &d);
        old = NULL;
    } else if (files) {
        files_apply(e, &d);
    } else {
        if (none && !e->cluster.join && (e->mesh.n || !e->later))
            diags_add(&d, DIAG_ERROR, e->store.dir, 0, 0, "", e->later ? "put the folder back, or stop the node and start it with the manifests" : "name a manifest file, a folder of them, or - for standard input",
                      e->later ? "the control store has no objects, and %zu replicas run" : "no file is given, and the control store has no objects of an earlier node", e->mesh.n);
        if (!d.errors)
            objects_restore(e, objset_copy(e->objects));
        first_over(e, &d);
    }
    objset_free(old);
}

void objects_begin(struct engine *e)
{
    if (!e->later && peers_trouble(e)) { /* the log has said it */
        fprintf(stderr, "weir: between nodes: %s\n", peers_trouble(e));
        engine_unsettled(e);
        return;
    }
    e->objs.reading = true;
    e->objs.read = (struct objstore_read){.done = first_read, .base = e->cluster.join ? &e->objects : NULL};
    objstore_read(e->objs.store, &e->objs.read);
}

/* ---- for a rehearsal -------------------------------------------------------------------------------------------------------------------- */

enum err objects_copy(struct engine *e)
{
    char *path = data_path(e, OBJECTS_COPY);
    struct buf text = {0};
    objset_save(e->objects, e->keys, &text);
    enum err er = file_replace(path, text.p, text.n, 0600);
    buf_free(&text);
    mem_free(path);
    return er;
}

void objects_copy_remove(struct engine *e)
{
    char *path = data_path(e, OBJECTS_COPY);
    (void)unlink(path);
    mem_free(path);
}

bool objects_rehearse(struct engine *e, struct objset *set, struct diags *d)
{
    char *path = data_path(e, OBJECTS_COPY);
    struct buf text = {0};
    bool good = old_file_read(e, set, d); /* the engine in charge is of an older version */
    if (!good) {
        enum err er = file_read(path, &text, OBJECTS_FILE_BYTES_MAX);
        if (er == OK)
            er = objset_load(set, path, buf_slice(&text), e->keys, d);
        if (er != OK && !d->errors)
            diags_add(d, DIAG_ERROR, path, 0, 0, "", "try again", "the objects that the other engine left can't be read: %s", err_text(er));
    }
    buf_free(&text);
    mem_free(path);
    return !d->errors;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------------------------------- */

void objects_init(struct engine *e)
{
    struct objstore_conf conf;
    objstore_conf_default(&conf);
    conf.keys = e->keys;
    if (e->conf.join[0]) {
        conf.ops_max = CLUSTER_OPS_MAX;
        conf.ops_bytes_max = CLUSTER_OPS_BYTES_MAX;
    }
    e->objs.store = objstore_new(&conf);
    list_init(&e->objs.queue);
    list_init(&e->objs.syncing);
    task_init(&e->objs.turn, objects_turn);
    timer_init(&e->objs.trim, objects_trim);
}

/* The store has closed, so nothing is under way; what still waits is answered. */
void objects_fini(struct engine *e)
{
    if (e->objs.now) { /* it was to be made once more */
        change_fail(e->objs.now, ERR_AGAIN, "the node is stopping");
        change_done(e);
    }
    while (!list_empty(&e->objs.queue)) {
        struct node_change *c = CONTAINER_OF(e->objs.queue.next, struct node_change, link);
        list_del(&c->link);
        change_fail(c, ERR_AGAIN, "the node is stopping");
        c->done(c);
    }
    syncs_end(e);
    list_del(&e->objs.turn.link);
    timer_clear(&e->objs.trim);
    objset_free(e->objs.next);
    objstore_free(e->objs.store);
}
