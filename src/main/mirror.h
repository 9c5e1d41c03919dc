/* mirror.h - a prefix of the control store, held here: read once, then followed by a watch.
 *
 * What is held while mirror_synced() is some state that the store had, whole revisions, never older than it was; it catches up by itself after whatever happened to the watch.
 * While the store is away the last known state stays. Lives on its loop.
 */
#ifndef MIRROR_H
#define MIRROR_H

#include "ctl.h"

struct mirror_item {
    struct slice key;            /* behind the prefix; the mirror's */
    char *value; size_t value_n; /* as the store has it, with ops.values */
    void *data;                  /* what make() made of the value; NULL: it made nothing of it */
    int64_t create_revision, mod_revision, lease;
    uint64_t round;              /* of the reading that saw it last: private */
};
struct mirror_ops {
    void *(*make)(void *ctx, struct slice key, struct slice value); /* NULL: not to be understood; said by the owner */
    void (*drop)(void *data);
    /* Something is different, or it was read for the first time. Not called from inside a function of this header. */
    void (*changed)(void *ctx);
    bool values;                 /* values are kept beside what was made of them */
    size_t items_max;            /* more are left out, and counted, until others have gone and all is read anew; 0: as many as the store has */
};
struct mirror;
/* prefix is copied. */
struct mirror *mirror_start(struct loop *l, struct ctl *ctl, const char *prefix, const struct mirror_ops *ops, void *ctx);
/* Nothing is called any more; the memory goes when the store has answered. NULL-safe. */
void mirror_stop(struct mirror *m);
/* The store is another one than it was, and perhaps older: everything is read anew, and what is held is as that says. */
void mirror_again(struct mirror *m);
bool mirror_synced(const struct mirror *m);          /* it has been read, and no reading is half done: a store's state as a whole */
/* Before anything was read: as if the store had it. The first reading takes its place. */
void mirror_recall(struct mirror *m, struct slice key, struct slice value);
uint64_t mirror_left_out(const struct mirror *m);    /* so far, for items_max */
int64_t mirror_revision(const struct mirror *m);     /* the store's, up to which everything is in it */
const struct mirror_item *mirror_get(const struct mirror *m, struct slice key);
/* All items, by key; valid until the loop's next turn. */
const struct mirror_item *const *mirror_items(struct mirror *m, size_t *n);

#endif
