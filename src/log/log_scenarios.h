/* log_scenarios.h - what the log's tests have in common: a world (a back end's disk and time), a log in it, batches to append and to read.
 *
 * The same scenarios run on the kernel (log_test.c) and in the simulator (log_sim_test.c), which differ in the functions of the world.
 */
#ifndef LOG_SCENARIOS_H
#define LOG_SCENARIOS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "log_int.h"

/* ---- the world: each back end has its own ---- */

void world_start(void);                /* an empty disk */
void world_stop(void);
const char *world_dir(void);           /* its parent exists */
bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms);

/* ---- a log in it ---- */

struct node {
    struct loop *l;
    struct log_store *store;
    struct log_shard *shard;
    struct log_store_conf conf;
};
extern struct node node;
void node_start(void);                 /* opens store and shard; fails the test when it can't */
void node_stop(void);                  /* cleanly, as far as the disk lets it */
void node_restart(void);
void node_wait(bool (*done)(void *ctx), void *ctx);
void node_idle(uint64_t ms);           /* lets time pass */
struct part *part_get(const char *name, const struct part_conf *conf); /* loaded and attached; conf NULL: defaults */
struct part *part_on(const char *name, struct log_shard *s);
void note_stopped(void *ctx);           /* for log_shard_stop(): sets a bool */
bool is_stopped(void *ctx);
const char *node_path(const char *file, char out[LOG_PATH_MAX]);

/* What is appended: one batch. */
struct what {
    int32_t n;                         /* records; 0: one */
    int8_t acks;
    int64_t ms;                        /* timestamp of the first; each next is one later; 0: now */
    bool falling;                      /* each next is one earlier */
    size_t value_bytes;                /* of each record; 0: a few */
    int64_t producer_id;               /* 0: none */
    int16_t epoch;
    int32_t sequence;
    bool txn, log_append_time, coordinator, unchecked;
    const char *key;                   /* of all records; NULL: each has its own */
    const char *value;                 /* NULL: the record's number; "": null, a tombstone */
    enum kafka_codec codec;
    bool commit, abort;                /* a marker */
    int32_t coordinator_epoch;
};
struct sent {
    struct append a;
    struct buf bytes;
    bool done;
    uint32_t order;                    /* the how-manieth done() it was */
};
struct sent *batch_send(struct part *p, struct what w);   /* sent_free() */
struct sent *send_wait(struct part *p, struct what w);
enum kafka_error send_error(struct part *p, struct what w);
int64_t send_offset(struct part *p, struct what w); /* it must succeed */
void sent_free(struct sent *s);
void sent_wait(struct sent *s);
extern uint32_t sent_done;

/* Reads batch by batch from an offset; checks that all are whole, ascend and have right CRCs. */
struct got {
    uint32_t batches, records;
    int64_t first, next;               /* next: where a reader would go on; -1: nothing was read */
    struct buf text;                   /* key=value; of all records */
    int32_t aborted_n;
    struct part_aborted aborted[64];
    enum kafka_error error;
};
struct got *fetch(struct part *p, int64_t from, enum part_until until, uint32_t bytes_max); /* static; the next call overwrites it */
int64_t part_end(struct part *p);
int64_t part_high_now(struct part *p);
int64_t part_stable_now(struct part *p);
void run_wait_flushed(struct part *p); /* everything is durable */

extern const struct CMUnitTest log_scenarios[];
extern const size_t log_scenarios_n;

#endif
