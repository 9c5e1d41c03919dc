/* engine_sync.c - questions about the objects, when other nodes change them, too: they are answered with what the store had when they were asked, or something newer.
 *
 *     asked --> the store's revision is read --> in force here, or one behind it? --> answered
 *                                                  |  no: read the objects (engine_objects.c), then --^
 *
 * So what was done through one node is seen through any other from then on, as with several API servers of Kubernetes. A store that does not answer, or
 * objects that this node can't read, keep nobody waiting: after SYNC_MS at most the answer is what this node has.
 */
#include "engine_int.h"

#define SYNC_MS 1000

struct syncing {
    struct list link;    /* objs.syncing, while s waits */
    struct engine *e;
    struct node_sync *s; /* NULL: answered */
    struct objstore_newest newest;
    bool known;          /* the store has answered: newest is what s waits for */
    bool reading;        /* and the objects are being read since */
    struct timer patience;
};

/* The memory stays until the store has answered, too. */
static void syncing_end(struct syncing *y)
{
    struct node_sync *s = y->s;
    list_del(&y->link);
    timer_clear(&y->patience);
    y->s = NULL;
    if (y->known)
        mem_free(y);
    s->done(s);
}

static void patience_over(struct timer *t) { syncing_end(CONTAINER_OF(t, struct syncing, patience)); }

static void newest_known(struct objstore_newest *n)
{
    struct syncing *y = CONTAINER_OF(n, struct syncing, newest);
    bool good = n->op.error == OK;
    objstore_op_fini(&n->op);
    y->known = true;
    if (!y->s)
        mem_free(y);
    else if (!good || objstore_has(y->e->objs.store, n))
        syncing_end(y);
    else
        loop_defer(y->e->loop, &y->e->objs.turn);
}

/* Whether there is something to wait for: the first objects are in force, and the store takes calls. */
static bool sync_possible(const struct engine *e)
{
    struct ctl_status s;
    if (!e->objs.settled || e->last.serving || e->stopping || e->store.state != STORE_OPEN)
        return false;
    ctl_status(e->store.ctl, &s);
    return s.trouble == CTL_OK;
}

void engine_sync(struct engine *e, struct node_sync *s)
{
    if (!sync_possible(e)) {
        s->done(s);
        return;
    }
    struct syncing *y = mem_new(MEM_API, sizeof *y);
    y->e = e;
    y->s = s;
    y->newest.done = newest_known;
    list_push(&e->objs.syncing, &y->link);
    timer_init(&y->patience, patience_over);
    timer_set(e->loop, &y->patience, SYNC_MS);
    objstore_newest(e->objs.store, &y->newest);
}

bool syncs_follow(struct engine *e)
{
    bool wait = false;
    LIST_FOREACH(it, &e->objs.syncing) {
        struct syncing *y = CONTAINER_OF(it, struct syncing, link);
        if (y->known && !objstore_has(e->objs.store, &y->newest))
            wait = true;
        else if (y->known)
            syncing_end(y); /* the connection's next question goes to the end of the list */
    }
    return wait;
}

void syncs_reading(struct engine *e)
{
    LIST_FOREACH(it, &e->objs.syncing) {
        struct syncing *y = CONTAINER_OF(it, struct syncing, link);
        y->reading = y->known;
    }
}

void syncs_read(struct engine *e)
{
    LIST_FOREACH(it, &e->objs.syncing) {
        struct syncing *y = CONTAINER_OF(it, struct syncing, link);
        if (y->reading)
            syncing_end(y);
    }
}

void syncs_end(struct engine *e)
{
    while (!list_empty(&e->objs.syncing))
        syncing_end(CONTAINER_OF(e->objs.syncing.next, struct syncing, link));
}
