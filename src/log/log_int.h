/* log_int.h - what the files of the log share. PRIVATE to log (others use log.h).
 *
 *     struct log_store  the folder: lock, generation, what the checkpoints said when it was opened
 *     struct log_shard  one loop's part of it: partitions, descriptors, sync rounds, timers
 *     struct part       a partition: a few hundred bytes, all that an idle one costs
 *     struct part_log   what a partition in use needs besides: segments, the last one's index, producers, waiting appends
 *     struct seg        a segment: one file of batches and what is known of it
 *     struct segfile    its open descriptor, counted
 *
 * A partition is EMPTY (nothing on disk), SHELVED (on disk, described by a checkpoint, nothing read yet) or LOADED. README.md has the
 * formats, the states and the failure cases.
 */
#ifndef LOG_INT_H
#define LOG_INT_H

#include "crc32c.h"
#include "log.h"

#define LOG_PATH_MAX 1024              /* bytes of a path, with its NUL */
#define SEG_BYTES_MAX 0x7fffffffu      /* positions are 31 bits in an index */
#define WALK_BYTES 65536               /* a window on a segment */
#define WRITE_IOV 512                  /* batches of one write */
#define WRITE_BACK_BYTES (4u << 20)    /* written back early, whenever so much has gathered */
#define WRITE_BACK_FILES 32            /* at once; more wait for the next time */
#define SYNC_FORCED_MAX 16             /* partitions that nobody waits for, in one round */
#define SYNC_FORCED_FEW 2              /* the same, where somebody waits, or has in the last SYNC_QUIET_MS */
#define SYNC_QUIET_MS 1000
#define SYNC_FORCED_STOP 256           /* the same when the shard stops: nobody else waits */
#define HINTS 4                        /* places that readers of a partition have come to */
#define PRODUCERS_MAX 20000            /* of one partition; the one that is silent for longest goes */
#define ABORTED_MAX 1000000            /* of one partition; beyond, transactions are refused there */
#define DAMAGES_MAX 16                 /* regions of one partition; what is behind the last one can't be read */
#define EPOCH_MAX (1 << 30)
#define EPOCHS_MAX 64                  /* the oldest go */
#define CHECKPOINT_AFTER_BYTES (1u << 30) /* appended since the last checkpoint, when another is made */
#define SNAPSHOT_BYTES (64u << 20)     /* appended since the last snapshot of producers, when a checkpoint makes another */
#define INDEX_ENTRIES_MAX 1310720u     /* 10 MiB of an index (segment.index.bytes); then the segment is full */
#define SPACE_MS 1000                  /* between two looks at what is free */
#define STORED_PARTS_MAX 10000000u     /* entries that a checkpoint may claim */
#define CHECKPOINT_BYTES_MAX (1u << 30)
#define OFFSET_MAX (INT64_MAX / 2)      /* files that claim more are not believed: sums stay in range */
#define CONTROL_BYTES_MAX 512          /* of a marker's batch */

/* ---- bytes: Kafka's files are big-endian ---- */

static inline uint16_t get16(const char *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t get32(const char *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t get64(const char *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline void put16(char *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline void put32(char *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void put64(char *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }

/* As the record says; what producers write may be any number. */
static inline int64_t record_ms(const struct kafka_batch *b, const struct kafka_record *r) { return (int64_t)((uint64_t)b->base_timestamp + (uint64_t)r->timestamp_delta); }

/* Small files of our own: fields one after another, then a CRC-32C of all before it (fields.c). */
void add16(struct buf *b, uint16_t v);
void add32(struct buf *b, uint32_t v);
void add64(struct buf *b, uint64_t v);
void add_crc(struct buf *b);
struct fields {
    const char *p;
    size_t n;
    bool bad;                          /* read beyond the end: all is 0 from there */
};
/* False when the CRC at the end is not right, or magic at the front. */
bool fields_open(struct slice file, uint32_t magic, struct fields *f);
uint16_t take16(struct fields *f);
uint32_t take32(struct fields *f);
uint64_t take64(struct fields *f);
struct slice take_bytes(struct fields *f, size_t n);

/* ---- places ---- */

/* The border before the batch that begins with or holds offset. */
struct spot {
    int64_t offset;
    int64_t seg;                       /* the segment's base */
    uint32_t pos;
};
struct epoch_start {
    int32_t epoch;
    int64_t offset;
};
/* The batch with the greatest timestamp of those that are left of a segment in which the log starts; the segment itself knows it of all. */
struct newest {
    int64_t start;                     /* log_start for which this counts; -1: nothing is known */
    int64_t seg;                       /* the segment's base */
    uint64_t next;                     /* batches before this position have been looked at */
    uint64_t pos;                      /* of the batch */
    int64_t ms;                        /* its timestamp; -1: none yet */
};

/* ---- checkpoints (checkpoint.c) ---- */

/* What a checkpoint says of a partition. In the store's table by name; an entry is touched only by the loop that owns the partition. */
struct stored {
    uint64_t instance;                 /* of the folder: a partition of the same name made later has another */
    uint64_t generation;               /* of the checkpoint; 0: no checkpoint describes it */
    int64_t log_start, durable;
    int64_t stable;                    /* first open transaction, or the end */
    int64_t cleaned;                   /* compaction has seen what is before */
    int64_t oldest_ms;                 /* greatest timestamp of the first segment */
    uint64_t bytes;
    int64_t active;                    /* base and length of the last segment */
    uint64_t active_bytes;
    uint32_t segs_n;
    bool clean;                        /* all that was there was durable: active and active_bytes are where the log ended */
    int64_t cut;                       /* a sync failed: what is behind goes, what is before is written anew; -1: none did */
    bool sparse;                       /* it was compacted: offsets have gaps */
    bool known;                        /* durable was known, also where it is no more than log_start: behind it there are no gaps */
    bool folder;                       /* it was there when the store was opened */
    struct epoch_start *epochs;        /* owned */
    uint32_t epochs_n;
};
void stored_free(struct stored *st);

struct log_store {
    struct log_store_conf conf;
    char *dir;                         /* owned; conf.dir points to it */
    int lock;                          /* descriptor of store.lock */
    uint64_t generation;               /* of this life */
    uint32_t unclean;                  /* unclean starts so far, and partitions renewed: store_epoch() */
    bool was_clean;
    uint64_t clean_generation;         /* of the life that stopped cleanly, or 0 */
    struct table stored;               /* name -> struct stored; not changed while shards exist */
    uint32_t shards;                   /* shards that share files_max; atomic */
    bool full;                         /* some shard has said that the disk is full; atomic */
    uint32_t failed;                   /* shards whose last checkpoint could not be written: no clean stop; atomic */
};
const char *store_path(const struct log_store *l, const char *name, char out[LOG_PATH_MAX]);
/* The checkpoints in the folder: the table, and the highest generation. */
enum err checkpoints_read(struct log_store *l, struct buf *why) WARN_UNUSED;
void checkpoint_begin(struct buf *out, uint64_t generation, uint32_t unclean);
void checkpoint_part(struct buf *out, const char *name, const struct stored *st);
void checkpoint_end(struct buf *out);
/* Reads a checkpoint file's bytes into the table; false: not one, or damaged. */
bool checkpoint_merge(struct log_store *l, struct slice bytes);
uint64_t checkpoint_generation(struct slice bytes); /* UINT64_MAX: not a checkpoint */
enum err folder_remove(const char *path) WARN_UNUSED; /* with the files in it; OK when it is not there. Blocks */
/* store.state: generation, unclean starts, clean or not. */
enum err store_state_write(const struct log_store *l, bool clean) WARN_UNUSED;
int32_t store_epoch(const struct log_store *l);        /* of what is made or recovered now */
enum err store_epoch_next(struct log_store *l) WARN_UNUSED; /* from now on another one, which is durable; any thread. Blocks */
enum err store_note(const struct log_store *l, bool closing) WARN_UNUSED; /* entries of partitions that no shard has opened */

/* ---- segments ---- */

struct segfile {
    int refs;                          /* atomic: the segment's, and those of readers */
    int fd;
    struct list lru;                   /* on the shard's; alone when the shard no longer keeps it open */
    struct part *part;                 /* whose; the shard's loop only */
    int64_t base;
};

struct index_entry {
    uint32_t rel;                      /* last offset of the batch, from the segment's base */
    uint32_t pos;                      /* where that batch begins */
};
struct time_entry {
    int64_t ms;                        /* greatest timestamp so far */
    uint32_t rel;                      /* last offset of the batch that has it */
};
/* The index of a segment, in memory. */
struct index {
    struct index_entry *entries;
    struct time_entry *times;
    uint32_t n, cap, times_n, times_cap;
    uint32_t since;                    /* bytes since the last entry */
    uint64_t sealed;                   /* bytes of the segment when it was sealed */
};

struct seg {
    int64_t base;                      /* its name */
    int64_t end;                       /* the offset after its last batch; of sealed ones the next base */
    uint64_t bytes;
    uint64_t durable;                  /* of bytes */
    uint64_t written_back;             /* of bytes: on their way without a sync */
    int64_t first_ms;                  /* greatest timestamp of the first batch; -1: not known */
    int64_t made_ms;                   /* wall clock of the first append, or when it was loaded */
    int64_t max_ms, max_offset;        /* greatest timestamp, and the last offset of the batch that has it; -1: none */
    struct segfile *file;              /* NULL: not open */
    bool emptied;                      /* its file was cut back to nothing, which is not durable: what it had may come back */
    bool cut_late;                     /* it was cut while a round was on its way, which may not cover that */
    bool swapping;                     /* its file has not got its name yet: it may not be closed */
};

/* What can't be read: a region of a segment between sound batches. */
struct damage {
    int64_t seg;
    uint32_t pos, pos_end;
    int64_t offset, offset_end;        /* no sound batch between */
};

/* ---- producers (producers.c) ---- */

struct sent_batch {
    int64_t last_offset;
    int32_t base_sequence, last_sequence;
};
#define SENT_BATCHES 5                 /* KIP-98: what can be in flight */
struct producer {
    int64_t id;
    int64_t last_ms;                   /* wall clock: for expiry */
    int64_t txn_first;                 /* first offset of the open transaction; -1: none */
    int64_t txn_seg;                   /* where that is */
    uint32_t txn_pos;
    int32_t coordinator_epoch;         /* of the last marker; -1: none */
    int16_t epoch;
    uint8_t sent_n;
    bool journalled;                   /* its state before this turn is in the journal */
    struct list open;                  /* on the partition's list of open transactions, by first offset */
    struct sent_batch sent[SENT_BATCHES]; /* oldest first */
};
struct producer_before {
    struct producer was;               /* id -1: slot unused */
    bool existed;
};
struct aborted {
    int64_t producer_id, first, last;  /* last: the marker's offset */
    int64_t open_from;                 /* transactions that end later begin here or behind */
};
struct ended {                         /* a transaction whose marker is not visible yet */
    struct spot first;
    int64_t marker;
};
struct producers {
    struct producer **slots;           /* by id, open addressing */
    uint32_t n, cap;
    uint32_t forgotten;                /* by the limit, since somebody counted */
    struct list open;                  /* by first offset */
    struct aborted *aborted;           /* by last */
    uint32_t aborted_n, aborted_cap;
    struct ended *ended;               /* by marker */
    uint32_t ended_n, ended_cap;
    struct producer_before *journal;   /* of this turn, to take back what could not be written */
    uint32_t journal_n, journal_cap;
    uint32_t aborted_before, ended_before; /* their numbers when the journal began */
};
void producers_init(struct producers *ps);
void producers_fini(struct producers *ps);
struct producer *producer_get(const struct producers *ps, int64_t id);
/* What Kafka checks of a producer's batch. *dup: it is one of the last five, and where its last record is. */
enum kafka_error producer_check(const struct producers *ps, const struct append *a, int64_t *dup_last);
/* Notes a batch that is placed at spot; of a control batch the records are looked at. */
void producer_note(struct producers *ps, const struct kafka_batch *b, struct spot at, int64_t now_ms, bool journal);
struct producer *producer_add(struct producers *ps, const struct producer *as); /* a copy */
void producers_commit(struct producers *ps);    /* the turn's batches are written */
void producers_rollback(struct producers *ps);  /* to what was before the turn */
void producers_expire(struct producers *ps, int64_t before_ms);
void producers_visible(struct producers *ps, int64_t high); /* markers below high are seen */
/* The first offset that is not decided or whose decision is not visible: false if there is none. */
bool producers_unstable(const struct producers *ps, struct spot *first);
void producers_cut(struct producers *ps, int64_t log_start); /* aborted transactions that ended before */
uint32_t aborted_find(const struct producers *ps, int64_t from); /* index of the first whose last >= from */
/* The snapshot: all producers at offset (snapshot.c). */
void snapshot_write(const struct producers *ps, int64_t offset, int32_t epoch, struct buf *out);
bool snapshot_read(struct producers *ps, struct slice bytes, int64_t offset, int32_t *epoch);
void snapshot_save(struct part *p);     /* writes one at p->written, in the pool; older ones go */

/* ---- partitions ---- */

enum part_state { PART_EMPTY, PART_SHELVED, PART_LOADED };

struct part_log {
    struct seg *segs;                  /* ascending; the last takes appends; never empty */
    uint32_t segs_n, segs_cap;
    struct index index;                /* of the last segment */
    struct producers producers;
    int64_t next_seg, next_ms;         /* where the next append goes: a segment that may not be there yet, with its first timestamp */
    uint32_t next_pos;
    struct list pending;               /* appends to be written at the end of the turn, or sooner */
    uint64_t pending_bytes;            /* of them */
    struct list waits;                 /* appends with acks -1, written, not durable, in order */
    struct list dups;                  /* appends that repeat one that is not durable; pos: the offset to wait for */
    struct list flushes;
    struct spot hints[HINTS];          /* where reads ended */
    uint8_t hint_next;
    struct newest newest;              /* so that asking again looks at what came since */
    struct damage *damages;            /* DAMAGES_MAX of them; NULL: none */
    uint8_t damages_n;
    uint64_t since_snapshot;           /* bytes appended */
    bool snapshot_due;                 /* a segment was sealed */
    bool index_dirty;                  /* the index of the last segment is not in its file */
    int64_t snapshot;                  /* offset of the newest that was written; -1: none */
    int64_t snapshot_before;           /* of the one before; -1: none */
    int64_t snapshot_durable;          /* of the newest that is durable; -1: none */
    struct spot high, stable;
    struct spot held;                  /* recovered bytes behind here are not shown before they are durable; offset -1: all are */
    struct spot held_end;              /* the end of those */
};

/* Positions in segments are others from now on. */
static inline void places_forget(struct part_log *g)
{
    memset(g->hints, 0xff, sizeof g->hints);
    g->newest.start = -1;
}

#define PART_MAGIC 0x50415254u
struct part {
    uint32_t magic;
    enum part_state state;
    struct log_shard *shard;
    char *name;
    char *grave;                       /* what its folder is called since it was deleted; removed when no work uses it */
    void *owner;
    struct part_log *log;              /* LOADED only */
    struct epoch_start *epochs;        /* ascending; the last is this life's */
    uint32_t epochs_n;
    int32_t epoch;
    uint64_t instance;
    int64_t log_start, stable, high;
    int64_t start_noted;               /* log_start as it is durable, in partition.state or a checkpoint: never beyond log_start */
    int64_t written;                   /* the log's end on disk */
    int64_t end;                       /* with what this turn appended */
    int64_t durable;
    int64_t noting, noted;             /* recovery point in the checkpoint that is being written, and in the last one that was */
    int64_t cleaned;                   /* compaction has seen what is before */
    int64_t oldest_ms;                 /* while SHELVED */
    int64_t compact_after_ms;          /* loop time before which compaction does not look again */
    uint64_t bytes;
    uint64_t active_bytes;             /* while SHELVED: of the last segment */
    int64_t active;                    /* while SHELVED: its base */
    uint32_t shelved_segs;
    uint64_t truncated;                /* by its recovery */
    uint32_t pins;                     /* works that refer to it */
    uint32_t names_made, names_synced; /* files made in its folder, and how many of them are durable */
    bool born;                         /* its folder is there but not yet durable */
    bool offline;                      /* takes no records: */
    int64_t cut;                       /* suspect: where the log ended whose records may have been answered; -1 */
    bool suspect, failed;              /* a sync failed; something else than a damaged region did */
    bool gone;                         /* deleted, or replaced by a renewal; changes under notes_lock (part.c) */
    bool compacting;
    uint64_t renewed_until_ms;         /* loop time; before it requests may come that were sent before it was renewed; 0: it was not */
    bool renewing;                     /* between part_renew_begin() and part_renew_end(): its files are another's to change */
    bool left_over;                    /* a segment before the start could not be removed: it is in the folder until the next start */
    bool start_noting;                 /* a note of log_start is on its way, so that segments before it can go */
    bool sparse;                       /* was compacted once: partition.state has it */
    bool gaps;                         /* as in the recovery that it comes from, until a sync says what is durable */
    bool forced;                       /* to be synced though nobody waits */
    bool rounding;                     /* in the round that is on its way */
    struct part_conf conf;
    struct list all;                   /* on the shard's */
    struct list write_link;            /* has appends to be written this turn */
    struct list wait_link;             /* somebody waits for a sync */
    struct list force_link;            /* to be synced for a checkpoint, a stop or a descriptor */
    struct list moved_link;            /* watches to be told this turn; of one that is gone: to be freed */
    struct list watches;
};

/* part.c */
bool part_use(struct part *p);         /* loads it; false: it can't be read now (said in the log) */
enum err part_begin(struct part *p) WARN_UNUSED; /* EMPTY to LOADED: folder and first segment */
void part_moved(struct part *p);       /* recomputes high and stable; watches are told at the end of the turn */
void part_tell(struct part *p);        /* watches are told at the end of the turn */
void part_refuse(struct part *p);       /* takes no more records */
void part_offline(struct part *p, const char *what, enum err e); /* the same, after a fault that is said in the log */
void part_fail(struct part *p, enum kafka_error e); /* everything that waits */
void part_unpin(struct part *p);
void part_reap(struct part *p);        /* frees one that is gone when nothing refers to it */
void part_free(struct part *p);
void part_log_free(struct part *p);
void part_describe(const struct part *p, struct stored *st);
const char *part_path(const struct part *p, const char *file, char out[LOG_PATH_MAX]); /* file NULL: the folder */
int64_t part_now(const struct part *p); /* wall clock, milliseconds */
/* partition.state: what has to be certain of a partition at once. Blocks. */
struct part_note {
    uint64_t instance;
    int64_t log_start;
    int64_t cut;                       /* what is behind goes at the next start, what is not durable before it is written anew; -1: nothing */
    bool sparse;
};
struct part_note part_note_of(const struct part *p);
/* Durably, for any thread; p is the caller's or pinned. ERR_NOTFOUND, and nothing written: p is gone, and another may have its name. */
enum err part_note_write(const struct part *p, const struct part_note *note) WARN_UNUSED;
/* The note as it is now, written in the pool; slow: nobody waits for it. done() comes on the loop, also for one that is gone meanwhile. */
void part_note_submit(struct part *p, bool slow, void (*done)(struct part *p, const struct part_note *note, enum err e));
bool part_note_read(const char *folder, struct part_note *note);

/* segment.c */
#define EXT_LOG ".log"
#define EXT_INDEX ".index"
#define EXT_TIME ".timeindex"
#define EXT_SNAPSHOT ".snapshot"
#define EXT_DELETED ".deleted"
#define EXT_SWAP ".swap"
const char *seg_path(const struct part *p, int64_t base, const char *ext, char out[LOG_PATH_MAX]);
struct seg *seg_last(const struct part *p);
struct seg *seg_find(const struct part *p, int64_t offset);  /* the one that offset is in, or would be */
struct seg *seg_by_base(const struct part *p, int64_t base); /* NULL: gone */
struct seg *seg_add(struct part *p, int64_t base);           /* at the end, in memory only */
enum err seg_open(struct part *p, struct seg *s, bool create) WARN_UNUSED; /* its file, and uses it */
void seg_close(struct part *p, struct seg *s);
void seg_adopt(struct part *p, struct seg *s, int fd);       /* its file is open */
void seg_drop(struct part *p, uint32_t i, uint32_t n);       /* n from i leave the array; files closed, not removed */
enum err seg_files_remove(const struct part *p, int64_t base); /* all its files; what fails is said in the log, and the first of that returned */
void seg_remove_later(struct part *p, int64_t base);         /* renames, and removes after the delay */
enum err seg_roll(struct part *p) WARN_UNUSED;
void segfiles_limit(struct log_shard *s);                    /* closes what is above the shard's share */

/* index.c */
enum err file_fill(const char *path, const struct buf *b) WARN_UNUSED; /* the file's whole content, not synced */
void index_fini(struct index *ix);
void index_clear(struct index *ix);
void index_add(struct index *ix, struct seg *s, const struct kafka_batch *b, uint32_t pos, uint32_t interval_bytes);
void index_seal(struct index *ix, const struct seg *s);      /* the last time entry */
enum err index_save(struct part *p, const struct index *ix, int64_t base) WARN_UNUSED;
enum err index_write(const struct index *ix, const char *index_path, const char *time_path) WARN_UNUSED; /* any thread */
bool index_load(struct part *p, struct seg *s, struct index *ix); /* false: not there or wrong */
enum err index_rebuild(struct part *p, struct seg *s, struct index *ix, bool save) WARN_UNUSED; /* from the log */
/* A border at or before offset, and the last border at or before pos, from what the index says; 0 and from when it says nothing. */
uint32_t index_floor(struct part *p, struct seg *s, int64_t offset);
uint32_t index_floor_pos(struct part *p, struct seg *s, uint32_t from, uint32_t pos);
void index_times_floor(struct part *p, struct seg *s, int64_t ms, uint32_t *pos);
void seg_times(struct part *p, struct seg *s);               /* max_ms of a sealed segment from its time index, made anew if need be */

/* walk.c */
enum walked { WALK_BATCH, WALK_END, WALK_BAD, WALK_IO };
struct walk {
    int fd;
    uint64_t pos;                      /* of the batch in b; the next one is at pos + b.bytes */
    uint64_t next;
    uint64_t end;
    char *window;                      /* WALK_BYTES, the caller's */
    uint64_t at;                       /* position of the window */
    size_t n;                          /* bytes in it */
    size_t want;                       /* of the next one */
    const char *head;                  /* the batch's header, in the window */
    struct kafka_batch b;              /* records: not set */
    enum err err;
};
void walk_init(struct walk *w, int fd, uint64_t pos, uint64_t end, char *window);
enum walked walk_next(struct walk *w);
bool walk_crc_ok(struct walk *w);      /* of the batch in b; reads it through the window */
/* The first sound batch (CRC too) at or after from whose offset is at least offset; false: none before end. */
bool walk_search(struct walk *w, uint64_t from, int64_t offset);
bool batch_head(const char *p, struct kafka_batch *b); /* 61 bytes; false: not a header */

/* recover.c, folder.c, replay.c */
struct recovery {
    int64_t durable;                   /* known to be on disk: a fault before is damage, one behind it a torn tail */
    int64_t cut;                       /* what is behind goes; -1: nothing */
    bool gaps;                         /* nothing is known but that it was compacted: offsets needn't follow one another */
    int64_t active;                    /* when same may hold: what the last segment is expected to be; -1: nothing is known */
    uint64_t active_bytes;
    int64_t *snapshots;                /* offsets of those in the folder, ascending; owned */
    uint32_t snapshots_n, snapshots_cap;
};
enum err part_recover(struct part *p, struct recovery *r, struct buf *why) WARN_UNUSED; /* p->log is new */
enum err part_rewrite(struct part *p) WARN_UNUSED; /* what is not known to be durable, and makes it so */
enum err part_list(struct part *p, struct recovery *r, struct buf *why) WARN_UNUSED; /* the folder: segments in memory, left-overs removed */
const char *swap_path(const struct part *p, int64_t base, int64_t next, char out[LOG_PATH_MAX]);
enum err swap_finish(const char *folder, const char *swap, const char *log) WARN_UNUSED;
enum err part_replay(struct part *p, int64_t from) WARN_UNUSED; /* producers from offset on */
enum err producers_load(struct part *p, const struct recovery *r) WARN_UNUSED; /* snapshot, and what the log adds */
void part_next(struct part *p);        /* the next append goes to the end of the last segment */
struct part_log *part_log_new(struct part *p);
void damage_add(struct part *p, struct damage d);
void damages_cut(struct part *p);      /* forgets those before the start of the log */

/* append.c */
void parts_write(struct log_shard *s); /* what this turn appended */
void append_finish(struct log_shard *s, struct append *a, enum kafka_error e);
void flush_finish(struct log_shard *s, struct part_flush *f, enum kafka_error e);

/* sync.c */
void sync_want(struct part *p);        /* somebody waits */
void sync_force(struct part *p);       /* nobody waits, but it is to be durable soon */
/* A write that failed was cut off behind s->bytes. That is to be synced, too: the segment may be sealed, or left by a clean stop, before anything follows. */
void sync_cut(struct part *p, struct seg *s);
void sync_failed(struct part *p, enum err e); /* what the disk has behind p->durable is not known: p takes no more records, and what has to be cut off is noted */
void sync_start(struct log_shard *s);  /* the next round, when there is somebody and none is on its way */
void sync_settle(struct part *p);      /* answers those who wait for what is durable */
void write_back(struct part *p, struct seg *s);
bool part_dirty(const struct part *p);

/* retention.c */
void part_housekeep(struct part *p, int64_t now_ms);
void part_start_move(struct part *p, int64_t log_start); /* segments before it go when it is durable */

/* compact.c, clean.c */
void compact_maybe(struct part *p, int64_t now_ms); /* starts one when it is worth it */

struct clean_source {
    struct segfile *file;              /* a reference */
    int64_t base, next;                /* next: base of the segment behind */
    uint64_t bytes;
};
/* A segment that takes the place of sources first to first + n - 1. */
struct clean_out {
    struct seg seg;                    /* as it will be; file not set */
    struct index index;
    int64_t next;
    uint32_t first, n;
    int fd;                            /* of the .swap; -1: not made */
};
struct key_slot {
    uint64_t hash[2];
    int64_t offset;                    /* of the latest record with that key; -1: free */
};
struct clean_last {                    /* where a producer's last sequence is: that batch is kept, though it be empty */
    int64_t producer_id, offset;
};
struct clean {
    struct work work;
    struct part *part;                 /* pinned; the pool reads name and folder only */
    struct clean_source *sources;
    struct clean_out *outs;
    struct aborted *aborted;           /* by last */
    struct clean_last *lasts;          /* by producer */
    uint32_t sources_n, outs_n, outs_cap, aborted_n, lasts_n;
    int64_t dirty, limit;              /* keys of this range are looked at; the range ends before the last stable offset */
    int64_t map_end;                   /* so far the memory for keys reached */
    int64_t now_ms, delete_retention_ms;
    uint64_t map_bytes, segment_bytes;
    uint32_t interval_bytes;
    struct key_slot *map;
    uint64_t map_cap, map_n, map_key[2];
    struct table txn_data;             /* producer ids whose open transaction has records that stay */
    struct buf out;                    /* not yet written */
    struct buf batch, scratch;
    char *window;
    uint64_t batches, dropped;         /* records */
    bool stop;                         /* atomic: the shard stops, it may end early */
    enum err err;
    const char *what;                  /* of err: what could not be done; NULL: it was stopped */
};
void siphash128(const uint64_t key[2], struct slice in, uint64_t out[2]);
void clean_run(struct work *w);        /* reads the sources, leaves .swap files */
void clean_place(struct work *w);      /* gives them their names */
void clean_abandon(struct clean *c);   /* removes them; blocks */
void clean_free(struct clean *c);

/* ---- the shard (shard.c) ---- */

struct sync_file {
    struct part *part;
    struct segfile *file;
    int64_t seg;
    uint64_t from, to;
};
struct sync_part {
    struct part *part;
    int64_t end;                       /* what was written when the round began */
    uint32_t files, files_n;           /* of the round */
    uint32_t names;                    /* names_made then */
    struct part_note note;             /* of one that is new */
    bool folder, born;                 /* its folder has new names; is itself new */
    enum err err;
};
struct sync_round {
    struct work work;
    struct log_shard *shard;
    struct sync_file *files;
    struct sync_part *parts;
    uint32_t files_n, files_cap, parts_n, parts_cap;
    uint64_t began_ns;
    bool busy;
};
struct write_back {
    struct work work;
    struct { struct segfile *file; uint64_t from, n; } todo[WRITE_BACK_FILES], now[WRITE_BACK_FILES];
    uint32_t todo_n, now_n;
    bool busy;
};
enum shard_state { SHARD_RUNS, SHARD_SYNCS /* stop: all is made durable */, SHARD_NOTES /* stop: the checkpoint is written */, SHARD_STOPPED };
struct log_shard {
    struct log_store *store;
    struct loop *loop;
    uint32_t index;
    enum shard_state state;
    struct list parts;                 /* all */
    struct list writes, waits, forces, moved; /* partitions, by their links of that name */
    struct list finished;              /* appends, and flushes, whose done() is to be called */
    struct list flushed;
    struct task end;                   /* the end of a turn in which something is to be done */
    struct list lru;                   /* segfiles, the least recently used first */
    uint32_t files_n;
    struct sync_round round;
    uint64_t waited_ms;                /* loop time of the last round for which somebody waited; 0: none yet */
    struct write_back back;
    struct work checkpoint;            /* writing of checkpoint_bytes */
    struct buf checkpoint_bytes;
    struct timer checkpoint_timer, housekeeping_timer, space_timer, removal_timer;
    bool checkpoint_busy, checkpoint_wanted; /* wanted: when what is forced is durable */
    bool changed;                      /* since the last checkpoint */
    uint64_t unnoted;                  /* bytes appended since then */
    bool full;                         /* the disk: appends are refused */
    struct work space;
    bool space_busy, space_due;        /* appended since the last look */
    bool space_short;                  /* the last look found less than the reserve */
    uint64_t space_free;               /* the pool's */
    uint64_t room, looked_ms;          /* free at the last look, and when that was; UINT64_MAX: not known */
    enum err space_err, checkpoint_err;
    struct list removals;              /* struct removal, by time */
    uint64_t age_due_ms;               /* loop time of the next look at ages */
    bool by_age;                       /* this look is one */
    struct list *housekept;            /* the next partition to be looked at; the list's head: none */
    uint32_t jobs;                     /* works of any kind on their way: a stop waits for them */
    struct clean *cleaning;            /* the compaction that is on its way, or NULL */
    bool clean_waits;                  /* others were not looked at because of it */
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    void (*on_failure)(void *ctx, struct part *p); /* NULL: nobody wants to know */
    void *on_failure_ctx;
    void (*on_room)(void *ctx);        /* the same */
    void *on_room_ctx;
    struct iovec *iov;                 /* WRITE_IOV */
    char *window;                      /* WALK_BYTES, for what happens on the loop */
    struct log_counters counters;
};
void shard_end(struct log_shard *s);   /* something is to be done at the end of this turn */
void shard_finished(struct log_shard *s); /* calls what is finished */
void shard_full(struct log_shard *s, uint64_t free_bytes);
void shard_job_over(struct log_shard *s); /* one of jobs ended */
void shard_remove_later(struct log_shard *s, const char *path, uint64_t in_ms, bool folder);
void shard_checkpoint(struct log_shard *s);
void shard_checkpoint_soon(struct log_shard *s); /* a compaction waits for it */
void shard_checkpoint_go(struct log_shard *s); /* all that was forced is durable: writes it */

#endif
