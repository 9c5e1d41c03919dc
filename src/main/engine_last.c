/* engine_last.c - the last plan: what a node of several keeps in its data folder, to begin with while the control store is away.
 *
 *     objects in force, fleet read --LAST_WRITE_MS--> DATA/last.objects (Secrets sealed), DATA/last.fleet (nodes, placement, endpoints: as text)
 *     a start, and no member after LAST_AFTER_MS --> both are read: in force, with the shares and endpoints of then --> serving
 *     the store is there --> member --> objects read (engine_objects.c) --> as they are now, and weir up's manifests
 *
 * By the last plan nothing is placed, nothing is written, no change is taken, and what runs once does not run. The files are of this --join only, and are written
 * by a thread for blocking work. A node that is stopping writes nothing: its replicas have moved, which is no plan to begin with.
 */
#include "engine_int.h"

#define LAST_OBJECTS "last.objects"
#define LAST_FLEET "last.fleet"
#define LAST_AFTER_MS 1500     /* a store that is there has answered by then */
#define LAST_AGAIN_MS 500      /* the store has come, and could not be read */
#define LAST_WRITE_MS 1000     /* after a change: what follows soon is written with it */
#define LAST_BYTES_MAX (256u << 20)

/* One writing; the thread's until it is done. */
struct last_write {
    struct work work;
    struct engine *e;            /* NULL: it has gone */
    char *objects_path, *fleet_path;
    struct buf objects, fleet;   /* without text: as it is in the file */
    enum err error;
};

static char *path_of(const struct engine *e, const char *name)
{
    struct buf b = {0};
    buf_printf(&b, "%s/%s", e->conf.data_dir, name);
    return buf_take(&b, NULL);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------------ */

static void write_run(struct work *w)
{
    struct last_write *l = CONTAINER_OF(w, struct last_write, work);
    if (l->objects.n)
        l->error = file_replace(l->objects_path, l->objects.p, l->objects.n, 0600);
    if (l->fleet.n && l->error == OK)
        l->error = file_replace(l->fleet_path, l->fleet.p, l->fleet.n, 0600);
}

static void write_free(struct last_write *l)
{
    buf_free(&l->objects);
    buf_free(&l->fleet);
    mem_free(l->objects_path);
    mem_free(l->fleet_path);
    mem_free(l);
}

static void write_done(struct work *w)
{
    struct last_write *l = CONTAINER_OF(w, struct last_write, work);
    struct engine *e = l->e;
    if (e) {
        struct engine_last *last = &e->last;
        last->writing = NULL;
        if (l->error != OK && last->well)
            log_error("cluster", "the last plan can't be kept in %s: %s; a start while the control store is away would begin with an older one", e->conf.data_dir, err_text(l->error));
        last->well = l->error == OK;
        if (l->error != OK)
            last->objects_hash = last->fleet_hash = 0;
        if (last->again || l->error != OK)
            last_soon(e);
    }
    write_free(l);
}

/* Leaves text only if it is other than what the file has. */
static void text_news(struct buf *text, uint64_t *hash)
{
    uint64_t h = hash_slice(buf_slice(text)) | 1;
    if (h == *hash)
        buf_free(text);
    *hash = h;
}

static void write_due(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, last.write_timer);
    struct engine_last *last = &e->last;
    last->again = last->writing != NULL;
    if (last->writing || last->serving || e->stopping || !e->cluster.fleet || !e->objs.settled || !fleet_ready(e->cluster.fleet))
        return;
    struct last_write *l = mem_new(MEM_API, sizeof *l);
    *l = (struct last_write){.work = {.run = write_run, .done = write_done, .slow = true}, .e = e, .objects_path = path_of(e, LAST_OBJECTS), .fleet_path = path_of(e, LAST_FLEET)};
    objset_save(e->objects, e->keys, &l->objects);
    fleet_remember(e->cluster.fleet, e->conf.join, &l->fleet);
    text_news(&l->objects, &last->objects_hash);
    text_news(&l->fleet, &last->fleet_hash);
    if (!l->objects.n && !l->fleet.n) {
        write_free(l);
        return;
    }
    last->writing = l;
    work_submit(e->loop, &l->work);
}

void last_soon(struct engine *e)
{
    if (e->cluster.join && !timer_is_set(&e->last.write_timer))
        timer_set(e->loop, &e->last.write_timer, LAST_WRITE_MS);
}

/* ---- beginning with it ------------------------------------------------------------------------------------------------------------------ */

/* The objects; NULL: there are none, or none that can be read. */
static struct objset *objects_read(const struct engine *e)
{
    char *path = path_of(e, LAST_OBJECTS);
    struct buf text = {0};
    struct diags d = {0};
    struct objset *set = objset_new();
    enum err er = file_read(path, &text, LAST_BYTES_MAX);
    if (er == OK)
        er = objset_load(set, path, buf_slice(&text), e->keys, &d);
    if (er != OK && er != ERR_NOTFOUND)
        log_error("cluster", "the last plan in %s can't be read: %s", path, d.n ? d.items[0].reason : err_text(er));
    if (er != OK) {
        objset_free(set);
        set = NULL;
    }
    diags_free(&d);
    buf_free(&text);
    mem_free(path);
    return set;
}

static bool fleet_read(const struct engine *e)
{
    char *path = path_of(e, LAST_FLEET);
    struct buf text = {0};
    bool good = file_read(path, &text, LAST_BYTES_MAX) == OK && fleet_recall(e->cluster.fleet, e->conf.join, buf_slice(&text));
    buf_free(&text);
    mem_free(path);
    return good;
}

static void begin(struct engine *e)
{
    struct objset *set = objects_read(e);
    if (!set || !fleet_read(e)) {
        log_warn("cluster", "the control store does not answer, and there is no last plan in %s to begin with", e->conf.data_dir);
        objset_free(set);
        return;
    }
    log_warn("cluster", "the control store does not answer: this node begins with its last plan, without what runs once, and catches up when the store is back");
    e->last.serving = e->last.began = true;
    objects_recalled(e, set);
}

static void begin_due(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, last.begin_timer);
    if (e->stopping || !e->run || !e->cluster.fleet)
        return;
    if (e->last.serving && fleet_ready(e->cluster.fleet))
        objects_begin(e);
    else if (e->cluster.waiting && !e->objs.settled)
        begin(e);
}

void last_wait(struct engine *e)
{
    if (e->cluster.join)
        timer_set(e->loop, &e->last.begin_timer, e->last.serving ? LAST_AGAIN_MS : LAST_AFTER_MS);
}

/* Said once for each reason. */
void last_failed(struct engine *e, const char *why)
{
    if (!e->last.why || strcmp(e->last.why, why) != 0)
        log_error("cluster", "the control store is back, and its objects can't be used: %s; this node goes on with its last plan", why);
    mem_free(e->last.why);
    e->last.why = mem_strdup(MEM_API, why);
    last_wait(e);
}

void last_over(struct engine *e)
{
    log_info("cluster", "the objects are read: the last plan is over");
    e->last.serving = false;
    last_soon(e);
}

void last_init(struct engine *e)
{
    e->last.well = true;
    timer_init(&e->last.write_timer, write_due);
    timer_init(&e->last.begin_timer, begin_due);
}

void last_fini(struct engine *e)
{
    timer_clear(&e->last.write_timer);
    timer_clear(&e->last.begin_timer);
    if (e->last.writing)
        e->last.writing->e = NULL;
    mem_free(e->last.why);
}
