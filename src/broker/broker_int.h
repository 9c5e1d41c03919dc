/* broker_int.h - shared by the broker's files.
 *
 * The baton: a request (struct breq) is touched by one shard at a time. serve() begins on the home shard, that of its connection; breq_visit() hands it
 * to another shard and breq_home() brings it back; breq_answer() ends it, on the home shard, exactly once. Requests that need several shards
 * at once (produce, fetch, ...) keep the baton at home and send calls (struct call) that live in their arena.
 *
 * What a file adds is written into a table: its requests into api.def, what it keeps in each shard (groups, transactions, ...) into modules.def.
 */
#ifndef BROKER_INT_H
#define BROKER_INT_H

#include "broker.h"
#include "kafka.h"
#include "kafka_batch.h"

#define MEM_REQ MEM_KAFKA
#define SHARDS_MAX 64

struct shard;
struct bconn;
struct breq;
struct bpart;
struct topic;
struct topic_change;

/* ---- calls between shards (shard.c) --------------------------------------------------------------------------------- */

/* A function to run on another shard's loop, in order of posting between two shards. Intrusive; the memory is the sender's until fn has it. */
struct call {
    struct list link;
    void (*fn)(struct shard *here, struct call *c);
};
/* To `to`, from the loop of `from`, with the others of this turn. Also when both are the same: then at the end of this turn. Never refused: what a
 * full mailbox does not take waits at the sender. When shards are freed, calls that have not arrived are dropped. */
void shard_call(struct shard *from, struct shard *to, struct call *c);

/* What a file keeps in each shard, beyond requests: one object by this name in the file, one line in modules.def. Every function may be NULL; all
 * are called on the shard's loop, except init and fini (its loop does not run then). In the order of modules.def, fini and stop in the reverse one. */
struct module {
    enum err (*open)(struct broker *b, struct buf *why); /* broker_open(), which fails with it: files are read. why: a sentence. Blocks */
    void (*close)(struct broker *b);             /* broker_free(): also after an open that failed, its own or another's */
    void (*init)(struct shard *s);               /* as the shard is made; no partition, no connection yet */
    void (*part_attached)(struct shard *s, struct bpart *p); /* it has been loaded: p->part is there. A coordinator begins to read its own */
    void (*part_gone)(struct shard *s, struct bpart *p);     /* its topic is being deleted; p->part is there for the last time, or still NULL */
    void (*topic_gone)(struct shard *s, const struct topic *t); /* deleted: called on every shard, which has the new catalog already */
    void (*stop)(struct shard *s);               /* broker_stop(): waiting joins and the like are answered, timers end. Requests may still come */
    bool (*at_rest)(const struct shard *s);      /* nothing of it is in the pool: the stop waits for that. Whatever comes back after stop(): shard_rested() */
    void (*fini)(struct shard *s);
    void (*metrics)(struct broker *b, struct buf *out); /* any thread; whole families (prom.h) */
};

void shard_rested(struct shard *s); /* something for which a stop may wait is over */

/* ---- the catalog of topics (catalog.c): immutable, reference-counted, one snapshot in each shard ---------------------- */

#define TOPIC_NAME_MAX 249
#define TOPIC_PARTITIONS_MAX 100000 /* of one topic; more is INVALID_PARTITIONS */
/* Kafka's topic settings: topic_settings.def. */
enum topic_setting {
#define X(id, name, type, def, min, max, words, doc) TOPIC_##id,
#include "topic_settings.def"
#undef X
    TOPIC_SETTINGS
};
struct broker_defaults;
/* What is set is kept as text; what is looked at is here in its own type. */
struct topic_settings {
    struct part_conf part;
    struct broker_defaults *defaults; /* of what is not set here; a reference. NULL: as topic_settings.def has them */
    char *values[TOPIC_SETTINGS]; /* NULL: the default */
    bool log_append_time;        /* message.timestamp.type */
    int64_t timestamp_before_max_ms, timestamp_after_max_ms;
    int8_t compression;          /* compression.type: enum kafka_codec, or COMPRESSION_PRODUCER */
    int32_t compression_level;   /* of that codec */
    int32_t min_insync;          /* kept; there is one replica */
};
#define COMPRESSION_PRODUCER (-1) /* as the producer sent it */
/* What the owner of a partition tells everybody. Written by the owner's loop, read by any thread. */
#define LIVE_LOADING (-1)        /* LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER */
#define LIVE_OFFLINE (-2)        /* could not be loaded: KAFKA_STORAGE_ERROR */
struct part_live {
    int32_t epoch;               /* atomic: leader epoch once it is loaded */
    counter in_bytes, in_batches, in_records;
    counter out_bytes;
};
struct topic_live {
    uint32_t refs;               /* atomic */
    int32_t n;
    struct part_live part[];
};
struct topic {
    uint32_t refs;               /* atomic: shared by successive snapshots */
    char *name;
    struct kafka_uuid id;
    int32_t partitions;
    bool internal;               /* __consumer_offsets, __transaction_state */
    struct topic_settings settings;
    struct topic_live *live;     /* shared by successive states of the topic, until it grows */
};
static inline int32_t topic_epoch(const struct topic *t, int32_t partition) { return __atomic_load_n(&t->live->part[partition].epoch, __ATOMIC_RELAXED); }
struct catalog {
    uint32_t refs;               /* atomic */
    uint64_t version;
    struct table by_name, by_id; /* -> struct topic */
    struct broker_defaults *defaults; /* of all topics but internal ones; a reference. NULL: none were set */
};
struct topic *topic_ref(struct topic *t);
void topic_unref(struct topic *t);                                                    /* NULL-safe */
struct catalog *catalog_ref(struct catalog *c);
void catalog_unref(struct catalog *c);
struct topic *catalog_topic(const struct catalog *c, struct slice name);              /* NULL: none */
struct topic *catalog_topic_by_id(const struct catalog *c, const struct kafka_uuid *id);
bool topic_name_ok(struct slice name);
#define UUID_TEXT 22
void uuid_text(struct kafka_uuid id, char out[UUID_TEXT + 1]); /* as Kafka prints it: base64url without padding */

/* ---- the broker and its shards ---------------------------------------------------------------------------------------- */

struct broker {
    struct broker_conf conf;
    struct log_store *log;
    struct shard *shards[SHARDS_MAX];
    uint32_t shards_n;
    struct kafka_uuid cluster_id;
    struct catalog *catalog;       /* the newest, under catalog_lock (broker.c): for threads that are no shard's */
    struct controller *controller; /* on shard 0: changes of topics, producer ids (controller.c) */
    struct security_control *security; /* on shard 0: changes of users, ACLs, quotas (security.c) */
    struct quota_meters *meters;   /* quotas.c: shared by all shards */
    struct broker_stop *stop;      /* shard.c: while it stops */
    uint32_t wishes;               /* of the control loop, on shard 0: not told yet */
    bool stopping;                 /* atomic */
};
/* Everything of one loop. */
struct shard {
    struct broker *b;
    uint32_t index;
    struct loop *loop;
    struct log_shard *log;
    struct catalog *catalog;     /* this shard's reference; swapped by a call from the controller */
    struct table parts;          /* struct part_key -> struct bpart: the ones that this shard owns */
    struct list conns;           /* struct bconn */
    struct groups *groups;       /* groups.c: coordinator state of the groups that this shard owns */
    struct txns *txns;           /* txn.c */
    struct security *security;   /* security.c: snapshot of ACLs, users and quotas; usage of quotas */
    struct producing *producing; /* produce.c: batches that wait for others */
    struct sessions *sessions;   /* session.c: fetch sessions */
    struct broker_counters *counters; /* metrics.c: written by this loop, read by any thread */
    struct shard_comm *comm;     /* shard.c */
    struct shard_parts *loading; /* parts.c: partitions being loaded in the pool */
    struct conn_pool *pool;      /* conn.c: requests and buffers for reuse; memory under way */
    bool stopping;               /* broker_stop() has come here */
};
/* Which shard owns a partition. */
/* What is wrong with a partition that a request names, seen from its owner: NONE, NOT_LEADER_OR_FOLLOWER while it is loaded, KAFKA_STORAGE_ERROR,
 * UNKNOWN_TOPIC_OR_PARTITION for NULL. */
enum kafka_error bpart_error(const struct bpart *p);
struct shard *shard_of_part(struct broker *b, const struct kafka_uuid *topic_id, int32_t partition);

struct part_key { uint8_t topic[16]; int32_t partition; };
/* A partition on the shard that owns it. part is NULL while it is loaded in the pool. */
struct bpart {
    struct part_key key;
    struct topic *topic;         /* a reference; renewed with the catalog */
    int32_t partition;
    struct part *part;
    bool gone;                   /* its topic is deleted; in no table any more */
    bool loading;                /* in the pool */
    bool offline;                /* could not be loaded: KAFKA_STORAGE_ERROR. It is tried again by and by */
    struct list link;            /* on the shard's list of what is to be loaded, or is offline */
    struct news *news;           /* that made it, until it is loaded */
    uint64_t looked;             /* the number of the last look by a fetch that came here (sessions.looks); 0: none did */
};
static inline struct part_live *bpart_live(const struct bpart *p) { return &p->topic->live->part[p->partition]; } /* to count what goes in and out */
/* NULL: not owned here, or not there. A part_* call needs bpart->part. */
struct bpart *shard_part(struct shard *s, const struct kafka_uuid *topic_id, int32_t partition);
struct bpart *shard_part_named(struct shard *s, struct slice topic, int32_t partition);

/* ---- connections (conn.c) ------------------------------------------------------------------------------------------------ */

/* Who calls and how he reached us: shared by a connection and its requests, so that these outlive it. Counted; home shard only. */
struct identity {
    uint32_t refs;
    struct broker_caller caller;
    struct slice advertised_host;
    uint16_t advertised_port;
};
/* What a connection may ask before it has proved who it is (sasl.c changes it, conn.c looks at it). */
enum auth_state {
    AUTH_DONE,                   /* or not needed */
    AUTH_WANTED,                 /* ApiVersions, SaslHandshake, SaslAuthenticate; others close the connection */
    AUTH_TOKENS,                 /* after SaslHandshake v0: every frame is a bare token, answered by one; it is served as SaslAuthenticate v0 (breq.bare) */
};
struct bconn {
    struct stream stream;
    struct list link;            /* shard's */
    struct shard *shard;
    struct identity *who;
    struct list reqs;            /* struct breq, in the order of arrival */
    struct list starved;         /* on the pool's list while it waits for memory */
    struct answer *sending;      /* an answer, partly sent; NULL */
    struct task flush;           /* answers that are ready leave at the end of the turn */
    struct breq *filling;        /* its frame is being read; not in reqs yet */
    size_t filled;               /* bytes of that frame; without one, of the size in front of it */
    uint8_t size_bytes[4];
    char *held;                  /* what was read and not looked at, because the connection rests; at most STREAM_READ_BYTES */
    size_t held_n, held_at;
    uint64_t reqs_bytes;         /* frames of reqs */
    uint32_t reqs_n, running_n;  /* in reqs; begun and not answered */
    uint64_t active_ms;          /* loop time of the last byte either way, for idle_ms */
    uint64_t filling_ms;         /* loop time at which the frame began */
    uint64_t sent_seen;          /* what had been sent when the sweep last looked */
    struct timer rest;           /* throttled until then; or lingering until then */
    void *sasl;                  /* sasl.c's; NULL when there is none */
    void (*sasl_free)(void *sasl);
    char host[ADDR_TEXT_MAX];    /* the peer, for logs */
    uint8_t auth;                /* enum auth_state */
    bool exclusive;              /* a request that is not `parallel` runs: nothing else begins */
    bool paused;                 /* reading is off */
    bool resting;                /* throttled */
    bool last;                   /* nothing behind what is in reqs is served; the connection ends when all is sent */
    bool eof, shut, closed;
};
void identity_unref(struct identity *who);
/* sasl.c: from now on the connection is this principal's ("User:alice"). */
void conn_authenticated(struct bconn *c, struct slice principal);

/* ---- requests (request.c) -------------------------------------------------------------------------------------------------- */

/* Bytes of an answer that are sent from a file: kafka_records.outside points to one. */
struct outside {
    struct outside *next;
    struct segfile *file;
    uint64_t pos;
};
struct breq {
    struct list link;            /* on its connection, in the order of arrival */
    struct bconn *conn;          /* NULL once the connection is gone; home shard only */
    struct shard *home, *at;     /* at: the shard that has the baton */
    const struct api *api;
    int16_t version;
    int16_t key;
    int32_t correlation_id;
    struct slice body;           /* of the frame: what req is read from */
    struct slice client_id;      /* in the frame; p NULL: null */
    struct identity *who;
    struct broker_caller caller; /* who's */
    struct slice advertised_host;/* who's */
    uint16_t advertised_port;
    char *frame;                 /* the whole request; slices of req point into it. May be written into (batches are placed in it) */
    size_t frame_n;
    size_t frame_cap;            /* 0: the frame is in the arena */
    uint64_t cost;               /* that it counts as memory under way */
    struct arena arena;          /* req, resp, and whatever the handlers need until the answer is written */
    void *req;                   /* struct kafka_X_req, decoded */
    void *resp;                  /* struct kafka_X_resp, made by the handler in the arena */
    uint64_t begun_ns;           /* loop time at which its last byte was there */
    void (*visit)(struct breq *r);
    struct call call;
    struct outside *outsides;    /* file ranges that it holds, dropped with it */
    /* Put by a handler that waits (a long poll): called on the home shard when the connection has gone or the broker stops; it sees to it that the answer
     * comes soon. Only by handlers that keep the baton at home meanwhile. */
    void (*cancel)(struct breq *r);
    int32_t throttle_ms;         /* put by the quotas; the connection rests so long after the answer */
    int16_t error;               /* enum kafka_error of the whole request: put by the handler, for the counters alone */
    bool begun, answered;
    bool silent;                 /* no answer is sent (acks=0) */
    bool hang_up;                /* the connection is closed after the answer (or without one) */
    bool bare;                   /* a SASL token without header */
    bool held, sent;             /* breq_hold(); its answer is done with */
    bool sync_done, group_done;  /* free for handlers */
};
/* api.c: api.def lists every API that is served: the versions advertised, the handler, whether it may run beside earlier requests of its connection. */
struct api {
    int16_t key, min, max;       /* advertised */
    int16_t served_min;          /* Produce: 0 is advertised and 3 is served */
    bool parallel;               /* produce, fetch, reads: begins while earlier requests of the connection still run. Others wait for them, and are waited for */
    const struct kafka_api *wire;
    void (*serve)(struct breq *r);
};
const struct api *api_find(int16_t key); /* NULL: not served */
const struct api *api_at(uint32_t i);    /* of all that are served, by key; NULL behind the last */
/* Zeroed memory of the request. */
#define BREQ_NEW(r, type) ((type *)arena_zalloc(&(r)->arena, sizeof(type)))
#define BREQ_ARRAY(r, type, n) ((type *)arena_zalloc(&(r)->arena, sizeof(type) * (size_t)MAX(n, 1)))
/* Goes on with fn(r) on shard s: at once when s is the present one. */
void breq_visit(struct breq *r, struct shard *from, struct shard *s, void (*fn)(struct breq *r));
/* r->resp is complete: it is written, in its turn, and r is gone. From any shard: comes home first. What resp points to stays until then. */
void breq_answer(struct breq *r, struct shard *from);
/* Home: whether a request that names n things (topics, settings, ...) may be served: else it is answered by the end of its connection, and r is gone. So
 * no request can make the broker take many times its own bytes. */
bool breq_items_ok(struct breq *r, uint64_t n, uint64_t max);
#define ADMIN_ITEMS_MAX 10000    /* topics or resources in a request that changes or describes them */
#define NAMED_ITEMS_MAX 100000   /* topics in Metadata; partitions in requests of tools; groups, transactional ids */
#define FILTER_ITEMS_MAX 1000    /* in the filters of a list: each entry is held against each of them */
/* Home: r's memory stays after its answer, until breq_release(): something still reads the frame or writes into the arena. */
void breq_hold(struct breq *r);
void breq_release(struct breq *r);
/* For kafka_records.outside: bytes of file from pos on; takes over the reference. */
struct outside *breq_outside(struct breq *r, struct segfile *file, uint64_t pos);

/* ---- handlers and modules: those of the tables ------------------------------------------------------------------------------ */

#define X(key, name, min, max, served, parallel, serve) void serve(struct breq *r);
#include "api.def"
#undef X
#define X(name) extern const struct module name##_module;
#include "modules.def"
#undef X

/* ---- handlers, by file. Each: void X(struct breq *r), on the home shard ---------------------------------------------------- */
/* produce.c fetch.c session.c offsets.c metadata.c topics.c configs.c cluster.c   data plane and topics
 * groups.c group_*.c offset_store.c group_admin.c consumer_group*.c share_*.c       groups
 * txn.c txn_*.c producer_ids.c sasl.c acls.c quotas.c security.c            transactions and security */

/* security.c: may this caller do that? Looks at the shard's snapshot; counts refusals. */
enum acl_operation { ACL_UNKNOWN, ACL_ANY, ACL_ALL, ACL_READ, ACL_WRITE, ACL_CREATE, ACL_DELETE, ACL_ALTER, ACL_DESCRIBE, ACL_CLUSTER_ACTION,
                     ACL_DESCRIBE_CONFIGS, ACL_ALTER_CONFIGS, ACL_IDEMPOTENT_WRITE, ACL_CREATE_TOKENS, ACL_DESCRIBE_TOKENS, ACL_TWO_PHASE_COMMIT };
enum acl_resource { ACL_RESOURCE_UNKNOWN, ACL_RESOURCE_ANY, ACL_TOPIC, ACL_GROUP, ACL_CLUSTER, ACL_TXN, ACL_TOKEN, ACL_USER };
bool allowed(const struct breq *r, enum acl_operation op, enum acl_resource kind, struct slice name);
#define CLUSTER_NAME SLICE("kafka-cluster")
/* The bits that includeAuthorizedOperations asks for; INT32_MIN when not asked. */
int32_t allowed_operations(const struct breq *r, enum acl_resource kind, struct slice name);
/* quotas.c: notes bytes or a request; what the answer's throttle_time_ms must be. */
enum quota { QUOTA_PRODUCE, QUOTA_FETCH, QUOTA_REQUEST, QUOTA_CONTROLLER };
int32_t quota_note(struct breq *r, enum quota q, uint64_t amount);
/* So many partitions are to be made or removed (KIP-599). False: answer THROTTLING_QUOTA_EXCEEDED and do nothing; only in versions that know it, from strict_from on.
 * Those before are noted, and the connection rests. */
bool quota_mutation(struct breq *r, uint64_t partitions, int16_t strict_from, int32_t *throttle_ms);

/* group_metrics.c: any thread: a JSON list of the groups that are furthest behind, for broker_top(). */
void group_top(struct broker *b, struct buf *out);

/* controller.c: on shard 0. A change of the catalog: made durable, then given to every shard (each makes its partitions), then done() on `from`'s loop. Changes that
 * come while the file is being written wait and are written together. */
enum config_op { CONFIG_SET, CONFIG_DELETE, CONFIG_APPEND, CONFIG_SUBTRACT }; /* as in IncrementalAlterConfigs (KIP-339) */
struct topic_change {
    struct call call;
    struct shard *from;
    struct slice name;
    enum { TOPIC_CREATE, TOPIC_DELETE, TOPIC_GROW, TOPIC_CONFIGURE, BROKER_CONFIGURE } what; /* the last: the defaults of topics; name: "", or the broker's id */
    int32_t partitions;          /* create (-1: default), grow: the new number */
    const struct slice *settings;/* pairs name, value; create: given; configure: the whole new set. value.p NULL: back to the default */
    uint32_t settings_n;         /* of pairs */
    const int8_t *ops;           /* configure, of both kinds: enum config_op of each pair; what is not named stays. NULL: the whole new set */
    struct kafka_uuid id;        /* delete by id: given; create: result */
    bool internal, by_id, validate_only;
    void (*done)(struct shard *from, struct topic_change *c);
    enum kafka_error error;      /* result */
    char *message;               /* result: what is wrong, or NULL; mem_free() */
    int32_t partitions_now;      /* result */
    struct topic *topic;         /* result: the topic as it is now, a reference; NULL after an error or a deletion */
    void *ctx;
    struct list link;            /* the controller's */
};
void topic_change(struct shard *from, struct topic_change *c);

/* controller.c: numbers that were never given before, also after a restart: for producer ids. */
#define PRODUCER_ID_BLOCK 1000
struct id_block {
    struct call call;
    struct shard *from;
    void (*done)(struct shard *from, struct id_block *b);
    enum kafka_error error;      /* result */
    int64_t first;               /* result: this one and the PRODUCER_ID_BLOCK - 1 that follow */
    struct list link;            /* the controller's */
};
void producer_id_block(struct shard *from, struct id_block *b);

/* Internal topics, made when first needed; the shard that coordinates a group or transactional id: owner of partition hash(key) % partitions (Java's String.hashCode, as
 * Kafka does: utils.abs(hash) % n). */
#define OFFSETS_TOPIC SLICE("__consumer_offsets")
#define TXN_TOPIC SLICE("__transaction_state")
struct shard *coordinator_of(struct shard *here, struct slice topic, struct slice key, int32_t *partition); /* NULL: the topic is not there yet: internal_topic_make(), and COORDINATOR_NOT_AVAILABLE meanwhile */
/* Has the controller make one of the two, with its settings and as many partitions as configured; nothing happens when it is there or on its way. */
void internal_topic_make(struct shard *here, struct slice name);
int32_t java_hash(struct slice utf8); /* String.hashCode() */

/* From transactions to data and group partitions (txn_markers.c uses, produce.c and offset_store.c serve): see README.md */

#endif
