/* group_int.h - shared by the files of consumer groups and committed offsets: GROUPS.md tells the model.
 *
 * Everything here belongs to one shard: struct groups is what it coordinates, struct group_part a partition of
 * __consumer_offsets that it owns, struct group a group of that partition with its members and offsets.
 */
#ifndef GROUP_INT_H
#define GROUP_INT_H

#include "broker_int.h"

/* ---- limits; each refusal is counted (struct group_counters) ------------------------------------------------------------ */

#define GROUPS_MAX 100000u                   /* groups of a shard */
#define GROUP_SIZE_MAX 10000u                /* members of a group, and ids given out that have not joined yet (group.max.size) */
#define GROUP_METADATA_MAX (1024u * 1024)    /* bytes of all protocols of one member */
#define GROUP_PROTOCOLS_MAX 100              /* protocols of one member */
#define GROUP_MEMBER_PREFIX_MAX 200u         /* bytes of a client's or instance's id in front of the member id that is made from it */
#define GROUP_SESSION_MIN_MS 6000            /* group.min.session.timeout.ms */
#define GROUP_SESSION_MAX_MS 1800000         /* group.max.session.timeout.ms */
#define GROUP_NEW_MEMBER_MS 300000u          /* how long a member's first JoinGroup waits */
#define OFFSET_METADATA_MAX 4096u            /* offset.metadata.max.bytes */
#define OFFSET_RETENTION_MS (7LL * 24 * 3600 * 1000) /* offsets.retention.minutes */
#define GROUP_SWEEP_MS 600000u               /* offsets.retention.check.interval.ms */
#define GROUP_LOAD_BYTES (256u * 1024)       /* read and taken in at a time while a partition is loaded */
#define GROUP_BATCH_MAX (8u * 1024 * 1024)   /* bytes of one batch of records */
#define GROUP_TOMBS_BYTES (512u * 1024)      /* tombstones are written in batches of about this size */

/* Written by the shard, read by any thread. */
struct group_counters {
    counter joins, syncs, heartbeats, leaves, commits, fetches; /* requests that reached the coordinator */
    counter rebalances;                      /* generations begun */
    counter sessions_ended;                  /* members removed because nothing was heard of them */
    counter offsets_committed, offsets_expired;
    counter loads, load_records, load_skipped; /* partitions loaded; their records; those not understood */
    counter write_failed;
    counter limit_groups, limit_size, limit_metadata, limit_batch, limit_offset_metadata, limit_owned; /* refused: GROUPS_MAX and so on */
    counter groups, members, offsets;        /* now */
};

/* ---- the coordinator of one shard (groups.c) ------------------------------------------------------------------------------ */

struct groups {
    struct shard *here;
    struct group_part **parts;   /* by partition number; NULL: not coordinated here */
    uint32_t parts_n;
    struct list loading;         /* group_part.link: are to be read; the first one is */
    struct list gone;            /* group_part.link: left, and freed when nothing of them is under way */
    struct timer sweep;          /* retention */
    struct timer report;         /* group_metrics.c: makes the text anew */
    struct group_report *text;   /* group_metrics.c; taken by any thread under its lock */
    uint32_t size_max;           /* GROUP_SIZE_MAX; tests change it */
    struct buf key, value;       /* scratch: a record on its way into a batch */
    uint64_t said_ms;            /* loop time of the last line about a write that failed */
    bool stopping;               /* the broker stops: nothing waits any more */
    struct group_counters count;
};
extern const struct module groups_module;

enum group_part_state { GROUP_PART_LOADING, GROUP_PART_ACTIVE, GROUP_PART_FAILED, GROUP_PART_GONE };
struct group_part {
    struct list link;            /* groups.loading, or groups.gone, or alone */
    struct groups *gs;
    struct bpart *bp;            /* NULL once gone */
    int32_t partition;
    enum group_part_state state;
    struct table groups;         /* group id -> struct group */
    struct table txns;           /* producer id (8 bytes) -> struct group_txn: transactions with pending offsets */
    uint32_t writes;             /* batches under way, and the flush at the end of loading */
    struct work work;            /* loading: a piece is being read */
    struct part_flush flush;     /* loading: what was read is made durable before anybody is told of it */
    bool working;
    int64_t load_next;           /* the offset that is to be read next */
    struct segfile *load_file;   /* where the piece is */
    uint64_t load_pos;
    char *load_bytes;            /* the piece; of load_n bytes */
    uint32_t load_n;
    enum err load_err;
    struct timer load_again;     /* the end of the log is not written yet */
    uint64_t load_begun_ms;
};

/* A partition that has left and that nothing refers to any more is freed. */
void group_part_settle(struct group_part *gp);

/* ---- groups and members (group_member.c) ------------------------------------------------------------------------------------ */

enum group_state { GROUP_EMPTY, GROUP_PREPARING, GROUP_COMPLETING, GROUP_STABLE, GROUP_DEAD };
const char *group_state_name(enum group_state s); /* as Kafka names it */

struct group_protocol {
    struct slice name, metadata; /* in the member's protocol_bytes */
};
struct gmember {
    struct list link;            /* group's, in the order in which they came */
    struct group *g;
    struct slice id;             /* the table's key */
    struct slice instance;       /* owned; p NULL: a dynamic member */
    struct slice client_id, client_host; /* owned */
    int32_t rebalance_ms, session_ms;
    struct group_protocol *protocols; /* preferred first, no name twice; owned, with protocol_bytes behind it */
    uint32_t protocols_n;
    size_t protocol_bytes;
    struct slice assignment;     /* owned; of the present generation once Stable */
    struct slice next;           /* owned; what the leader assigned, while that is being written */
    struct breq *join, *sync;    /* waiting requests; NULL: none */
    uint64_t joins;              /* how often a JoinGroup has begun to wait: tells one from the next */
    bool is_new;                 /* its first rebalance is not over: no heartbeat is expected, its JoinGroup waits GROUP_NEW_MEMBER_MS */
    bool sync_wanted;            /* its SyncGroup of this generation has not come */
    struct timer session;
};
/* A member id that was given out (MEMBER_ID_REQUIRED) and has not joined yet. */
struct gpending {
    struct group *g;
    struct slice id;             /* the table's key */
    struct timer session;
};
struct group {
    struct group_part *gp;       /* NULL once it is in no table */
    struct groups *gs;
    struct slice id;             /* the table's key while gp is set, then owned */
    uint32_t refs;               /* writes that will look at it; it is freed when it is Dead and this is 0 */
    enum group_state state;
    int32_t generation;
    struct slice protocol_type;  /* owned; p NULL: a simple consumer's, offsets alone */
    struct slice protocol;       /* owned; of the present generation; p NULL: none */
    struct gmember *leader;      /* NULL: no members */
    int64_t state_ms;            /* wall clock of the last change of state */
    struct table members;        /* member id -> struct gmember */
    struct list in_order;        /* gmember.link */
    struct table statics;        /* instance id -> struct gmember */
    struct table pending;        /* member id -> struct gpending */
    struct table supported;      /* protocol name -> how many members have it, as a number */
    uint32_t joined_n;           /* members with a waiting JoinGroup */
    uint32_t sync_wanted_n;
    bool initial;                /* Preparing: it was Empty before */
    bool grew;                   /* a member came during the initial delay */
    uint32_t delay_ms, left_ms;  /* initial delay: of this step, and what may yet be added */
    struct timer join_timer, sync_timer;
    struct table offsets;        /* topic, NUL, partition (4 bytes) -> struct goffset */
    uint32_t txn_offsets;        /* pending ones */
    bool assigning;              /* Completing: the leader's assignment of this generation is being written */
    bool on_disk;                /* a record of the group has been written */
    uint32_t writes;             /* consumer_group.c: batches of heartbeats under way. Not in consumer: that may go before they are done, and another come */
    struct consumers *consumer;     /* consumer_group.c: a group of KIP-848; then members and statics above are empty. NULL: a classic one */
};

/* The name of its state, also of a KIP-848 group; how many members it has. */
const char *group_state_text(const struct group *g);
size_t group_members_n(const struct group *g);
struct group *group_find(struct group_part *gp, struct slice id);   /* NULL: none */
struct group *group_make(struct group_part *gp, struct slice id);   /* NULL: GROUPS_MAX */
/* Takes g out of its partition: Dead, its requests answered with e, its offsets gone. Freed once no write looks at it. */
void group_kill(struct group *g, enum kafka_error e);
void group_unref(struct group *g);
/* An Empty group that nothing refers to and that is not on disk is killed. */
void group_drop_idle(struct group *g);
void group_state_set(struct group *g, enum group_state s);
/* The partition's loop, and the wall clock in milliseconds. */
struct loop *group_loop(const struct group *g);
int64_t wall_ms(void);

struct gmember *group_member(const struct group *g, struct slice id);
struct gmember *group_static(const struct group *g, struct slice instance);
struct group_protocols_in { const struct kafka_join_group_req_join_group_request_protocol *p; int32_t n; };
struct gmember_conf {
    struct slice id, instance, client_id, client_host, protocol_type;
    int32_t rebalance_ms, session_ms;
    struct group_protocols_in protocols;
};
/* Adds a member: leader if it is the first. */
struct gmember *gmember_add(struct group *g, const struct gmember_conf *c);
/* Takes it out and frees it; the next in order leads if it led. Its requests have been answered. */
void gmember_remove(struct gmember *m);
void gmember_protocols_set(struct gmember *m, struct group_protocols_in in);
bool gmember_matches(const struct gmember *m, struct group_protocols_in in); /* the same names and metadata in the same order */
/* Gives the static member m another member id: what it had stays. */
void gmember_rename(struct gmember *m, struct slice id);
/* The metadata for a protocol; empty when the member does not have it. */
struct slice gmember_metadata(const struct gmember *m, struct slice protocol);
size_t group_protocols_bytes(struct group_protocols_in in);
/* Could a member with these join? (INCONSISTENT_GROUP_PROTOCOL) */
bool group_supports(const struct group *g, struct slice protocol_type, struct group_protocols_in in);
/* The protocol that all support and most prefer; p NULL without members. Points into a member. */
struct slice group_choose_protocol(const struct group *g);
int32_t group_rebalance_ms(const struct group *g); /* the greatest of its members */
/* Does a member subscribe to the topic? Yes, if it cannot be told: other protocol types, unreadable metadata. */
bool group_subscribed(const struct group *g, struct slice topic);
void group_pending_add(struct group *g, struct slice id, uint32_t session_ms, void (*expired)(struct timer *t));
void group_pending_remove(struct gpending *p);

/* A copy that its holder frees by slice_drop(); p NULL stays NULL. */
struct slice slice_own(struct slice s);
void slice_drop(struct slice *s);

/* ---- rebalances (group_join.c, group_sync.c) ------------------------------------------------------------------------------------ */

/* UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID or NONE for a member as a request names it. */
enum kafka_error group_check_member(const struct group *g, struct slice member, struct slice instance);
void group_session_begin(struct gmember *m, uint32_t ms);            /* its session ends so long from now */
void group_session_expired(struct timer *t);
/* After members have been taken out: a rebalance begins, or the one under way may be complete. */
void group_members_left(struct group *g);
/* Empty, Stable, Completing: Preparing begins. Preparing: perhaps it is complete. */
void group_rebalance(struct group *g);
void group_maybe_joined(struct group *g);                            /* Preparing: all are there? */
void gmember_answer_join(struct gmember *m, enum kafka_error e);     /* an error, or the present generation; nothing when nobody waits */
void gmember_answer_sync(struct gmember *m, enum kafka_error e);     /* an error, or the assignment */
/* Completing: nobody gets an assignment of this generation any more; who waits for one is told e. */
void group_assignments_void(struct group *g, enum kafka_error e);
void group_leave_member(struct gmember *m);                          /* answers what waits and removes it */
void group_stop_waiting(struct group *g, enum kafka_error e);        /* every waiting request is answered so; timers end */
void group_timers_init(struct group *g);
void group_wake_members(struct group *g);                            /* loaded: sessions begin */

/* ---- records of __consumer_offsets (group_log.c) ---------------------------------------------------------------------------------- */

/* One batch on its way to the log. Embedded in whoever waits for it, who keeps it until done(). */
struct group_write {
    struct append append;
    struct kafka_batch_builder build;
    struct buf bytes;
    struct group_part *gp;
    int64_t now_ms;              /* of its records */
    void (*done)(struct group_write *w, enum kafka_error e); /* the write may be freed in it */
};
void group_write_begin(struct group_write *w, struct group_part *gp, int64_t producer_id, int16_t producer_epoch); /* -1: no transaction */
void group_write_group(struct group_write *w, const struct group *g, bool next); /* next: with gmember.next as assignments */
size_t group_write_bytes(const struct group_write *w);               /* so far */
void group_write_drop(struct group_write *w);                        /* begun and not to be sent */
/* Sends it; false: it is larger than GROUP_BATCH_MAX and was dropped, done() does not come. */
bool group_write_send(struct group_write *w) WARN_UNUSED;
/* The error of a write as clients of the group and of offsets are told it. */
enum kafka_error group_write_error(enum kafka_error e);
/* Sends the group as it is; nobody waits. */
void group_write_now(struct group *g);

/* Tombstones, in as many batches as they need. done() once all are durable; NULL: nobody waits. Freed by itself. */
struct group_tombs;
struct group_tombs *group_tombs_begin(struct group_part *gp, void (*done)(void *ctx, enum kafka_error e), void *ctx);
void group_tombs_offset(struct group_tombs *t, struct slice group, struct slice topic, int32_t partition);
void group_tombs_group(struct group_tombs *t, struct slice group);
void group_tombs_numbered(struct group_tombs *t, int16_t number, struct slice group); /* of another kind of key: number, group */
void group_tombs_whole(struct group_tombs *t, const struct group *g);  /* all records of the group itself, whichever kind it is */
void group_classic_forget(struct group *g);                             /* members, generation, protocol: as if it were new */
void group_tombs_end(struct group_tombs *t);

/* Takes in one record of batch b, as it was read again; false: it is not understood. a: for decoding. */
bool group_take_record(struct group_part *gp, const struct kafka_record *rec, const struct kafka_batch *b, struct arena *a);
void group_load_begin(struct group_part *gp);
void group_load_stop(struct group_part *gp); /* the partition leaves; may be repeated */

/* ---- committed offsets (offset_store.c, offset_expiry.c) ------------------------------------------------------------------------------ */

struct offset_value {
    int64_t offset;
    int32_t leader_epoch;        /* -1: unknown */
    struct slice metadata;       /* owned where it is kept */
    int64_t commit_ms, expire_ms;/* wall clock; expire_ms -1: by retention */
    int64_t at;                  /* where the record is in the log: what is later wins */
    struct kafka_uuid topic_id;  /* zero: an old record without it */
};
struct goffset {
    struct group *g;
    struct slice topic;          /* within the table's key */
    int32_t partition;
    bool committed;              /* v counts; false: there are only pending ones */
    struct offset_value v;
    struct list pending;         /* struct gpending_offset.by_offset */
};
/* An offset in a transaction that has not ended. */
struct gpending_offset {
    struct list by_offset, by_txn;
    struct goffset *o;
    int64_t producer_id;
    struct offset_value v;
};
struct group_txn {
    int64_t producer_id;
    struct list offsets;         /* struct gpending_offset.by_txn */
};
void group_write_offset(struct group_write *w, struct slice group, struct slice topic, int32_t partition, const struct offset_value *v);
struct goffset *group_offset(const struct group *g, struct slice topic, int32_t partition); /* NULL: none */
void group_offset_set(struct group *g, struct slice topic, int32_t partition, const struct offset_value *v); /* committed; unless what is there is later */
/* The topic of that id (zero: any) is there no more; another one may bear its name, and the group must not begin that one there. */
bool group_topic_stale(const struct shard *here, struct slice topic, const struct kafka_uuid *id);
void group_offset_pend(struct group *g, struct slice topic, int32_t partition, const struct offset_value *v, int64_t producer_id);
void group_offset_forget(struct group *g, struct goffset *o);        /* as its tombstone does: the committed one and those that are pending */
void group_offsets_fini(struct group *g);                            /* all, also pending ones */
void group_txn_end(struct group_part *gp, int64_t producer_id, bool commit);
void group_txns_fini(struct group_part *gp);
/* Committed and pending, sorted by topic and partition; in the arena. */
struct goffset **group_offsets_sorted(const struct group *g, struct arena *a, uint32_t *n);
void group_part_sweep(struct group_part *gp, int64_t now_ms);        /* retention */
void group_part_drop_stale(struct group_part *gp);                   /* loaded: offsets of topics that are gone */
void group_part_topic_gone(struct group_part *gp, const struct topic *t); /* offsets of a topic that has been deleted */
/* A transaction's marker has been written into a partition of __consumer_offsets (by transactions, on the shard that owns it). */
void groups_txn_marker(struct shard *here, struct bpart *p, int64_t producer_id, bool commit);

/* ---- metrics (group_metrics.c) ------------------------------------------------------------------------------------------------------------ */

void group_metrics_init(struct groups *gs);
void group_metrics_begin(struct groups *gs); /* there is something to tell; may be repeated */
void group_metrics_stop(struct groups *gs);
void group_metrics_fini(struct groups *gs);
void group_metrics(struct broker *b, struct buf *out); /* any thread */

/* ---- requests (groups.c) ------------------------------------------------------------------------------------------------------------------ */

/* The handlers, by file; api.def lists them. */
void find_coordinator(struct breq *r);  /* groups.c */
void join_group(struct breq *r);        /* group_join.c */
void sync_group(struct breq *r);        /* group_sync.c */
void heartbeat(struct breq *r);
void leave_group(struct breq *r);
void offset_commit(struct breq *r);     /* offset_store.c */
void txn_offset_commit(struct breq *r);
void offset_fetch(struct breq *r);      /* offset_fetch.c */
void describe_groups(struct breq *r);   /* group_admin.c */
void list_groups(struct breq *r);
void delete_groups(struct breq *r);
void offset_delete(struct breq *r);

/* Takes r to the shard that coordinates the group; fn finds it by group_part_of(). False: there is none yet. */
bool group_visit(struct breq *r, struct slice group, void (*fn)(struct breq *r)) WARN_UNUSED;
/* Where the group lives, on the shard that has r; NULL with the error that says why not. */
struct group_part *group_part_of(struct shard *here, struct slice group, enum kafka_error *e);
/* breq_answer() at the end of this turn: nothing that the answer sets off meets a group in the middle of a change. */
void group_answer(struct breq *r);
/* A string for the answer: never null, or null where it was. */
struct slice breq_text(struct breq *r, struct slice s);
struct slice breq_text_or_null(struct breq *r, struct slice s);

/* A request that asks about several groups: each of them is looked at on its shard, one after the other, then end() runs at home. One that is named again
 * is not looked at again (INVALID_REQUEST): a short request could ask for a large group's members, or offsets, a million times. */
struct group_walk {
    const struct slice *ids;
    int32_t n, i;                /* i: the next one */
    bool *again;                 /* of each: it was named before; in the arena. NULL: by the ids alone */
    void (*step)(struct breq *r);/* finds the walk from r and calls group_walk_on() */
    /* On the group's shard. gp NULL: e says why. False: something is under way, which calls group_walk_on() on that shard when it is over. */
    bool (*each)(struct breq *r, int32_t i, struct group_part *gp, enum kafka_error e);
    void (*end)(struct breq *r);
};
void group_walk_on(struct breq *r, struct group_walk *w);

#endif
