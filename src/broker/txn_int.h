/* txn_int.h - transactions: what produce and groups call, and what the txn_*.c files share. The model: TRANSACTIONS.md.
 *
 * Everything here is of one shard and called on its loop. Calls from elsewhere come as struct call.
 */
#ifndef TXN_INT_H
#define TXN_INT_H

#include "broker_int.h"

/* The handlers. */
#define X(key, name, min, max, served, parallel, serve) void serve(struct breq *r);
#include "api.def"
#undef X

/* ---- for produce and groups ---------------------------------------------------------------------------------------------- */

/* Is this partition in the ongoing transaction of this producer (KIP-890)? In the memory of who asks; the slices stay until done(), which comes on
 * `here`, perhaps from inside txn_verify(). error is what the producer is to be told: NONE, INVALID_TXN_STATE, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING,
 * NOT_ENOUGH_REPLICAS (retriable: the coordinator can't tell now). On NONE append within done(): later the transaction may have ended. */
struct txn_verify {
    struct call call;              /* the room's */
    struct shard *from;            /* the room's: where done() comes */
    struct slice transactional_id, topic;
    int64_t producer_id;
    int32_t partition;
    int16_t producer_epoch;
    enum kafka_error error;        /* result */
    void (*done)(struct shard *here, struct txn_verify *v);
};
void txn_verify(struct shard *here, struct txn_verify *v);

/* offset_store.c: a marker of this producer is durable in this partition of __consumer_offsets: its pending offsets count, or are dropped. */
void groups_txn_marker(struct shard *here, struct bpart *p, int64_t producer_id, bool commit);

/* A producer id that was never given out before. done() comes perhaps from inside. Errors: KAFKA_STORAGE_ERROR (the next block could not be made durable),
 * COORDINATOR_LOAD_IN_PROGRESS (too many wait). */
struct producer_id_wait {
    struct list link;
    void (*done)(struct shard *here, struct producer_id_wait *w);
    enum kafka_error error;        /* result */
    int64_t id;                    /* result */
};
void producer_id_get(struct shard *here, struct producer_id_wait *w);
struct producer_ids;
struct producer_ids *producer_ids_new(void);
void producer_ids_free(struct producer_ids *ids); /* NULL-safe; after the loops have ended */

/* ---- the coordinator (txn.c) ------------------------------------------------------------------------------------------------ */

#define TXN_IDS_MAX 100000u                /* transactional ids of a shard */
#define TXN_ID_BYTES_MAX (64u << 20)       /* of their names together */
#define TXN_PARTITIONS_MAX 20000u          /* partitions in one transaction */
#define TXN_TIMEOUT_MAX_MS 900000          /* transaction.max.timeout.ms */
#define TXN_EXPIRE_MS 604800000ll          /* transactional.id.expiration.ms */
#define TXN_LOAD_BYTES (256u << 10)        /* a piece of the partition while it is loaded */
#define TXN_PARK_MS 1000u                  /* that a request waits for the end of the transaction before it */
#define TXN_RETRY_MIN_MS 100u              /* markers and Complete* that could not be written */
#define TXN_RETRY_MAX_MS 5000u
#define TXN_EPOCH_LAST 32766               /* the last epoch that a producer gets (KIP-360) */
#define TXN_EPOCH_NONE ((int16_t)-1)

struct txn_counters {
    counter ids;                           /* now */
    counter begun, committed, aborted;     /* transactions: first partition added; Complete* written */
    counter timed_out, fenced;             /* of aborted: by timeout; by another InitProducerId */
    counter markers, markers_retried;      /* written; rounds that had to be repeated */
    counter expired;                       /* ids forgotten */
    counter parked, park_timeouts;         /* requests that waited for the end of the transaction before; in vain */
    counter ids_refused, partitions_refused; /* by the limits */
    counter verified, verify_refused;      /* txn_verify() */
    counter records_skipped;               /* of __transaction_state that could not be parsed */
};

/* As they are written in TransactionLogValue. */
enum txn_state { TXN_EMPTY, TXN_ONGOING, TXN_PREPARE_COMMIT, TXN_PREPARE_ABORT, TXN_COMPLETE_COMMIT, TXN_COMPLETE_ABORT, TXN_DEAD, TXN_STATES };
const char *txn_state_name(enum txn_state s);   /* "PrepareCommit" */

/* A set of partitions: topics sorted by name, partitions of each sorted. */
struct txn_topic {
    char *name;
    int32_t *parts;
    uint32_t n, cap;
};
struct txn_parts {
    struct txn_topic *topics;
    uint32_t n, cap;
    uint32_t count;                        /* partitions in all topics */
};
bool txn_parts_has(const struct txn_parts *ps, struct slice topic, int32_t partition);
void txn_parts_add(struct txn_parts *ps, struct slice topic, int32_t partition); /* does nothing when it is there */
void txn_parts_copy(struct txn_parts *to, const struct txn_parts *from);         /* to is empty or unset */
void txn_parts_clear(struct txn_parts *ps);

/* What a record of __transaction_state says, without the partitions. */
struct txn_meta {
    int64_t producer_id, previous_id;      /* previous: before the id was rotated; -1 */
    int64_t start_ms, update_ms;           /* wall clock; start: -1 outside of a transaction */
    int32_t timeout_ms;
    int16_t epoch;                         /* -1: new, not yet written */
    int16_t last_epoch;                    /* the one before, when the same producer bumped it (KIP-360); not in the log */
    enum txn_state state;
};

struct txns;
/* A partition of __transaction_state on this shard. */
struct txns_part {
    struct txns *all;
    struct bpart *bp;                      /* NULL: gone */
    int32_t index;                         /* of the partition */
    enum { TXNS_LOADING, TXNS_READY, TXNS_BROKEN } state; /* broken: it could not be read */
    uint32_t refs;                         /* txns of it, and the load under way; freed when gone and 0 */
    struct list txns;                      /* struct txn.link */
    struct list link;                      /* on txns.parts */
};

/* One transactional id. It stays while something is under way with it; see txn_release(). */
struct txn {
    struct txns_part *part;
    struct list link;                      /* on part->txns */
    struct slice id;                       /* the table's copy of the key */
    struct txn_meta now;                   /* what is durable (but see TRANSACTIONS.md on fencing) */
    struct txn_parts parts;                /* of the ongoing or ending transaction */
    /* the pending transition */
    struct txn_meta next;
    struct txn_parts next_parts;
    void (*after)(struct txn *t, enum kafka_error e); /* when the write of next is done; next is in effect when e is NONE */
    struct breq *waiter;                   /* to be answered by after() */
    /* one AddPartitions or AddOffsets of the next transaction, until this one has ended; NULL: none */
    struct breq *parked;
    void (*unpark)(struct breq *r, bool again); /* again: it is looked at anew; else the time is over */
    struct timer park_timer;
    struct append append;                  /* of the record of next; list link unused while !writing */
    struct buf bytes;                      /* the batch that is being written */
    bool writing;                          /* append is on its way */
    bool fence_failed;                     /* the epoch was bumped for an abort that could not be written: not bumped again.
                                            * Also while that abort is being written */
    bool timed_out;                        /* the abort under way is one by timeout */
    bool dead;                             /* its partition is gone, or it has expired: freed when nothing is under way */
    /* markers of Prepare* */
    struct txn_parts todo;                 /* partitions that still need one */
    struct list rounds;                    /* struct marker_round.txn_link: sent and not all back */
    uint32_t rounds_out;
    uint32_t retry_ms;
    struct timer timer;                    /* Ongoing: the timeout; Prepare*: next try; else: expiry */
};

struct txns {
    struct shard *s;
    struct table by_id;                    /* transactional id -> struct txn */
    struct list parts;                     /* struct txns_part */
    struct list rounds;                    /* struct marker_round.link: all that are out, for the end */
    struct producer_ids *ids;
    size_t id_bytes;
    uint32_t loads;                        /* partitions of which a piece is in the pool, or that are being flushed */
    bool stopping;                         /* no timer is set any more */
    struct txn_counters counters;
};
/* The coordinator's partition that id belongs to; error: NONE, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE. */
struct txns_part *txns_part_of(struct shard *here, struct slice id, enum kafka_error *error);
struct txn *txn_find(struct shard *here, struct slice id);
/* NULL: a limit. */
struct txn *txn_new(struct txns_part *tp, struct slice id);
void txn_release(struct txn *t);           /* frees it when it is dead and nothing is under way */
void txn_forget(struct txn *t);            /* dead; out of the table */
/* pending: being written, or ending. */
static inline bool txn_pending(const struct txn *t) { return t->writing || t->rounds_out || t->todo.count; }
static inline bool txn_preparing(const struct txn *t) { return t->now.state == TXN_PREPARE_COMMIT || t->now.state == TXN_PREPARE_ABORT; }
int64_t txn_wall_ms(void);
#define TXN_LABEL 80
const char *txn_label(struct slice id, char out[TXN_LABEL]); /* its beginning, fit for a log line */
void txns_metrics(struct broker *b, struct buf *out);
/* t->next is filled in, next_parts too (taken over when it is written). Not while one is pending. */
void txn_transit(struct txn *t, void (*after)(struct txn *t, enum kafka_error e));
/* From Ongoing to Prepare*; bump: with the next epoch (fencing). After that everything goes on by itself. */
void txn_end(struct txn *t, bool commit, bool bump, void (*after)(struct txn *t, enum kafka_error e));
/* Keeps r until t has ended or TXN_PARK_MS are over; false: another one waits, or the broker stops. */
bool txn_park(struct txn *t, struct breq *r, void (*unpark)(struct breq *r, bool again));
/* After loading, and after each transition: timers, markers. */
void txn_resume(struct txn *t);
void txn_tombstoned(struct txn *t, enum kafka_error e);

/* ---- txn_log.c ---------------------------------------------------------------------------------------------------------------- */

/* Appends the record of t->next (a tombstone when that is TXN_DEAD) with acks=all; txn_written() is called when it is durable. */
void txn_log_write(struct txn *t);
void txn_written(struct txn *t, enum kafka_error e);
/* Reads the partition from its start; state becomes ready or broken. */
void txn_log_load(struct txns_part *tp);
void txns_part_unref(struct txns_part *tp);
/* From a record: as it was written; false: it can't be parsed. A tombstone has value.p NULL. */
bool txn_log_record(struct txns_part *tp, struct slice key, struct slice value);

/* ---- txn_markers.c -------------------------------------------------------------------------------------------------------------- */

/* Sends markers to all of t->todo; txn_marked() comes when all are back: todo has what failed and is to be tried again. */
void txn_markers_send(struct txn *t);
void txn_marked(struct txn *t);
void txn_markers_free(struct txns *all);

#endif
