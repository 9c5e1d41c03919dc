/* log.h - the commit log: partitions of record batches on disk, each owned by one loop.
 *
 * A store is the data folder, one per process. A shard is the part of it that one loop serves: its partitions, its sync rounds, its
 * housekeeping. A partition is a sequence of segments, named by the offset of their first record; batches are stored as
 * the producer sent them, with offset and leader epoch put in. Topics, groups and permissions are not known here: a partition has a
 * name (its folder) and a configuration.
 *
 * What is visible (Kafka's high watermark): batches with acks=all once they are durable, others once written, and nothing behind a batch that
 * still waits. Last stable offset: the first record of the oldest open transaction, at most the high watermark.
 *
 * Threads: log_store_open() and log_store_close() are called while no shard exists. Everything else belongs to the shard's loop, except what
 * says otherwise. Calls marked "blocks" read or write the disk and are for the start, or for work_submit().
 */
#ifndef LOG_H
#define LOG_H

#include "kafka_batch.h"
#include "rt.h"

/* ---- the store ----------------------------------------------------------------------------------------------------- */

struct log_store_conf {
    const char *dir;              /* made when it is not there; its parent exists */
    uint64_t reserve_bytes;       /* writing stops (KAFKA_STORAGE_ERROR) while less than this is free on the device */
    uint32_t files_max;           /* descriptors that all shards together keep open; the least recently used are closed */
    uint32_t checkpoint_ms;       /* recovery points are noted so often */
    uint32_t housekeeping_ms;     /* retention by size, rolls by time and compaction are looked at so often */
    uint32_t age_look_ms;         /* retention by age, so often: for so long records may outlive retention.ms; 0: with each look */
    uint64_t compaction_bytes;    /* memory for the keys of one compaction pass */
    uint32_t write_soon_bytes;    /* what one turn appends to a partition is written when so much has gathered, the rest at the turn's end */
};
void log_store_conf_default(struct log_store_conf *c);

struct log_store;
/* Takes the lock of the folder, reads the checkpoints. ERR_INUSE: another process has it; why names what is wrong. Blocks. */
enum err log_store_open(const struct log_store_conf *conf, struct log_store **out, struct buf *why) WARN_UNUSED;
/* After the last shard: marks a clean stop, so that the next start verifies nothing. Blocks. */
void log_store_close(struct log_store *l);
bool log_store_was_clean(const struct log_store *l);     /* the last process stopped cleanly */

struct log_shard;
struct log_shard *log_shard_new(struct log_store *l, struct loop *loop, uint32_t index);
/* What waits is made durable, what is open closed, the checkpoint of this shard written. done() comes on the loop. Until then appends are
 * refused. Before log_shard_free(). */
void log_shard_stop(struct log_shard *s, void (*done)(void *ctx), void *ctx);
void log_shard_free(struct log_shard *s);

/* Written by the shard's loop, read by any thread. */
struct log_counters {
    counter appended_batches, appended_bytes;
    counter read_bytes;
    counter sync_rounds, synced_files, sync_ns;    /* sync_ns: the sum over all rounds */
    counter sync_rounds_us[24];                     /* rounds that took up to 2^i microseconds, each in the first that fits */
    counter written_refused;                       /* batches refused because the disk is full or has failed */
    counter cold_reads;                            /* reads that went through the pool */
    counter deleted_segments, compacted_segments, compacted_bytes, truncated_bytes;
    counter bytes, segments, partitions;           /* now */
    counter files_open, files_closed;              /* closed: by the limit */
    counter offline;                               /* partitions that no longer write */
    counter producers_forgotten;                   /* by the limit of a partition: taken for new when they come back */
    counter disk_full;                             /* 1 while writing is stopped for want of space */
};
const struct log_counters *log_shard_counters(const struct log_shard *s);

/* ---- partitions ---------------------------------------------------------------------------------------------------- */

/* Topic settings as Kafka names them (topic-configs), in their units. */
struct part_conf {
    uint32_t segment_bytes;               /* segment.bytes */
    uint32_t index_interval_bytes;        /* index.interval.bytes */
    uint32_t max_message_bytes;           /* max.message.bytes: of a batch */
    int64_t segment_ms;                   /* segment.ms */
    int64_t retention_ms, retention_bytes;/* -1: without limit */
    int64_t delete_retention_ms;          /* of tombstones and markers after cleaning */
    int64_t min_compaction_lag_ms, max_compaction_lag_ms;
    int64_t file_delete_delay_ms;
    int64_t producer_expiration_ms;       /* producer.id.expiration.ms */
    double min_cleanable_ratio;           /* min.cleanable.dirty.ratio */
    bool cleanup_delete, cleanup_compact; /* cleanup.policy */
};
void part_conf_default(struct part_conf *c);

#define PART_NAME_MAX 255
struct part;
/* Opens the partition of that name; nothing is on disk before its first batch. Recovers: verifies from the last recovery point, cuts a torn tail,
 * rebuilds indexes and producers. Blocks, and runs on any thread (the pool's: the loops serve meanwhile): it touches no shard.
 * ERR_IO and what the disk says: why names file and reason. */
enum err part_load(struct log_store *l, const char *name, const struct part_conf *conf, struct part **out, struct buf *why) WARN_UNUSED;
/* From now on p belongs to s and its loop. */
void part_attach(struct part *p, struct log_shard *s);
void part_conf_set(struct part *p, const struct part_conf *conf);
/* Renames its folder at once and removes it in the pool. What waits fails with UNKNOWN_TOPIC_OR_PARTITION; watches are told. p is gone
 * after this returns and the turn ends. */
void part_delete(struct part *p);
const char *part_name(const struct part *p);

/* A partition that a failed disk took offline is made whole again as a start would do it, beside the one that goes on serving what is sound:
 *
 *     part_renew_begin(), on its loop -> part_renew_run(), in the pool -> part_renew_end(), on its loop
 *
 * begin: NULL when it has not failed, or works still use it: later, perhaps. Meanwhile it is not to be deleted, and DeleteRecords is KAFKA_STORAGE_ERROR.
 * run: blocks, like part_load(). end: what was made, to be attached by the caller, who sets its owner and configuration: the old partition is gone as if deleted, but
 * for its files, and watches are told; or NULL, and the old one stays as it was. */
struct part_renewal;
struct part_renewal *part_renew_begin(struct part *p, const struct part_conf *conf);
enum err part_renew_run(struct part_renewal *r, struct buf *why) WARN_UNUSED;
struct part *part_renew_end(struct part_renewal *r);
/* fn is told of each partition that a failed disk takes offline, in the middle of what met the failure: it takes a note and calls nothing here. */
void log_shard_on_failure(struct log_shard *s, void (*fn)(void *ctx, struct part *p), void *ctx);
/* fn is told when a disk that had less than the reserve free has as much again: what failed for want of room is worth another try. */
void log_shard_on_room(struct log_shard *s, void (*fn)(void *ctx), void *ctx);

struct part_offsets {
    int64_t log_start;       /* first offset that can be read */
    int64_t stable;          /* last stable offset */
    int64_t high;            /* high watermark: what is visible ends before it */
    int64_t end;             /* the next offset */
    int32_t epoch;           /* leader epoch of this life */
    bool offline;            /* no longer writes: a sync or write failed, or a synced region is damaged; reads of what is sound go on */
    bool failed;             /* offline because the disk failed: part_renew_begin() */
};
void part_offsets(const struct part *p, struct part_offsets *out);
uint64_t part_bytes(const struct part *p);   /* on disk */
void *part_owner(const struct part *p);      /* for the user of the room: set once, never touched here */
void part_owner_set(struct part *p, void *owner);

/* ---- appending ------------------------------------------------------------------------------------------------------- */

/* One batch on its way. Embedded in its request; all of it, and bytes, stay as they are until done(). */
struct append {
    struct list link;             /* the partition's */
    char *bytes;                  /* the whole batch; offset, epoch (and LogAppendTime with its CRC) are written into it */
    struct kafka_batch batch;     /* parsed and checked by the caller (kafka_batch_check()) */
    int8_t acks;                  /* 0, 1, -1 */
    bool log_append_time;         /* message.timestamp.type of the topic */
    bool coordinator;             /* a transaction's marker, or a coordinator's own batch: no sequence is looked at */
    bool transaction_checked;     /* the transaction coordinator has this partition in the batch's transaction */
    int32_t coordinator_epoch;    /* of a marker */
    void (*done)(struct append *a); /* never from inside part_append() */
    /* results */
    enum kafka_error error;
    int64_t base_offset;          /* -1 after an error; of the original when it was a duplicate (KIP-98) */
    int64_t append_ms;            /* LogAppendTime, else -1 */
    int64_t log_start;
    uint64_t pos;                 /* the room's */
};
/* Puts the batch at the end of the log. Batches appended in one turn are written together at its end; done() comes then for acks 0 and 1, for acks -1 after
 * a sync that began after the write, and on errors: OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID never, INVALID_TXN_STATE (a plain batch of
 * a producer with an open transaction), INVALID_RECORD, RECORD_LIST_TOO_LARGE (above the segment's size), KAFKA_STORAGE_ERROR. A duplicate of one of the producer's last
 * five batches succeeds with the offset it has; with acks -1 after that one is durable. */
void part_append(struct part *p, struct append *a);
/* Makes everything before now durable; done as above. For coordinators that need a point in time. */
struct part_flush {
    struct list link;
    int64_t until;                /* the room's */
    void (*done)(struct part_flush *f, enum kafka_error e);
};
void part_flush(struct part *p, struct part_flush *f);

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* A segment's file, shared with whoever sends from it; any thread may ref and unref. The descriptor stays open meanwhile, and its bytes as they are. */
struct segfile;
struct segfile *segfile_ref(struct segfile *f);
void segfile_unref(struct segfile *f);   /* NULL-safe */
int segfile_fd(const struct segfile *f);

enum part_until { PART_HIGH, PART_STABLE, PART_END }; /* read_uncommitted, read_committed, coordinators that load */
struct part_aborted {
    int64_t producer_id, first_offset;
};
struct part_read {
    int64_t offset;               /* of the first record wanted; the batch that contains it is returned whole */
    uint32_t bytes_max;
    enum part_until until;
    bool one_at_least;            /* the first batch though it is larger than bytes_max (KIP-74) */
    /* results */
    enum kafka_error error;       /* OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR (a damaged region) */
    struct segfile *file;    /* the reader unrefs it; NULL when there is nothing to read (bytes 0) */
    uint64_t pos;
    uint32_t bytes;               /* whole batches */
    bool cold;                    /* probably not in memory: read it ahead in the pool before sending (disk_hint_read()) */
    struct part_offsets offsets;
    struct part_aborted *aborted; /* with PART_STABLE: of the range; in the arena that was given */
    int32_t aborted_n;
};
/* Opens a segment's file perhaps; copies nothing. */
void part_read(struct part *p, struct part_read *r, struct arena *a);
/* How many bytes a reader at offset could get now, without touching the disk: exact where a read of the last segment ended; else up to a segment too
 * many (in the last one: an index interval and a batch). At least 1 when there is something, and never too few. */
uint64_t part_readable(const struct part *p, int64_t offset, enum part_until until);

/* Told once, at the end of a turn in which high or stable moved, the partition was deleted, or went offline. */
struct part_watch {
    struct list link;
    void (*fn)(struct part_watch *w);
};
void part_watch(struct part *p, struct part_watch *w); /* init by list_init(&w->link); set again from fn if wanted */
void part_unwatch(struct part_watch *w);               /* safe to repeat */

/* The first record whose timestamp is at least ms: its offset and timestamp; -1, -1 when there is none (before until). Reads the disk a little. */
enum kafka_error part_find_time(struct part *p, int64_t ms, enum part_until until, int64_t *offset, int64_t *at_ms);
/* The record with the greatest timestamp (ListOffsets -3, KIP-734), of those that are not deleted; -1, -1: there is none. */
enum kafka_error part_find_newest(struct part *p, int64_t *offset, int64_t *at_ms);
/* The end of an epoch (OffsetForLeaderEpoch, KIP-101): the greatest epoch that is <= epoch, and where it ends. As in Kafka one older than all that are known (it left no records,
 * or they are deleted) ended where these begin: whoever stands there has lost nothing; and of one that is newer than all nothing is known: -1, -1, as of no epoch. */
void part_epoch_end(const struct part *p, int32_t epoch, int32_t *found, int64_t *end_offset);
/* The epoch in which the record at offset was written, or would have been; -1: it is not known any more. */
int32_t part_epoch_at(const struct part *p, int64_t offset);

/* Deletes records before offset (DeleteRecords; -1: up to high). The new start is durable when done. */
enum kafka_error part_delete_before(struct part *p, int64_t offset, int64_t *log_start);

/* ---- producers and transactions ---------------------------------------------------------------------------------------- */

/* For DescribeProducers, and for the verification of transactional writes. */
struct part_producer {
    int64_t id, last_ms, txn_first_offset; /* -1: no open transaction */
    int16_t epoch;
    int32_t last_sequence, coordinator_epoch;
};
void part_producers(struct part *p, void (*each)(void *ctx, const struct part_producer *pr), void *ctx);
bool part_txn_open(struct part *p, int64_t producer_id); /* has an open transaction here */

#endif
