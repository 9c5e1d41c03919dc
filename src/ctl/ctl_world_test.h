/* ctl_world_test.h - what the tests of the control store share: calls that wait for their answer, a watch that keeps what it is told, and the
 * scenarios that every engine has to pass. */
#ifndef CTL_WORLD_TEST_H
#define CTL_WORLD_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ctl.h"

struct world {
    struct loop *loop;
    struct ctl *ctl;
    /* Steps the loop until done() says so; false: it has not after that time. */
    bool (*run)(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms);
};

/* An answer, copied: what a done() sees is gone when it returns. */
struct answer {
    struct ctl_call call;
    struct arena arena;
    bool over;
};
void answer_fini(struct answer *a);
/* Submits; answer_wait() then. */
void ask(struct world *w, struct answer *a, struct ctl_op op);
void answer_wait(struct world *w, struct answer *a);
void result_copy(struct arena *a, struct ctl_op_result *r); /* what it refers to becomes the arena's */

/* One after the other, with C strings. Each frees its answer but for those that return one. */
int64_t put(struct world *w, const char *key, const char *value);                   /* the revision */
enum ctl_error do_op(struct world *w, struct answer *a, struct ctl_op op);          /* and waits */
/* The keys of a range as "key=value key=value", and " more", into the arena of a. */
const char *get(struct world *w, struct answer *a, struct ctl_range range);
struct ctl_op op_put(const char *key, const char *value);
struct ctl_op op_get(const char *key);
struct ctl_op op_delete(const char *key, const char *end);

/* A watch that writes down: "+key=value@revision(previous) -key@revision", messages ended by "|", "!NAME@compact" at its end. */
struct seen {
    struct ctl_watch *watch;
    struct buf text;
    size_t events;
    int64_t revision;            /* of the last message */
    int64_t last;                /* revision of the last event */
    uint32_t pause_after;        /* says "no more" with every so many messages; 0: never */
    uint32_t messages;
    bool paused, ended, quiet;   /* quiet: no text */
    enum ctl_error error;
    int64_t compact_revision;
};
void seen_start(struct world *w, struct seen *s, const struct ctl_watch_conf *conf);
void seen_wait(struct world *w, struct seen *s, size_t events); /* until there have been so many */
void seen_stop(struct seen *s);

/* For a table of cmocka; state is a struct world of an empty store. */
extern const struct CMUnitTest ctl_scenarios[];
extern const size_t ctl_scenarios_n;

#endif
