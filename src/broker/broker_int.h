/* broker_int.h - shared by the broker's files.
 *
 * The baton: a request (struct breq) is touched by one shard at a time. serve() begins on the home shard, that of its connection; breq_visit() hands it
 * to another shard and breq_home() brings it back; breq_answer() ends it, on the home shard, exactly once. Requests that need several shards
 * at once (produce, fetch, ...) keep the baton at home and send calls (struct call) that live in their arena.
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

/* ---- calls between shards (shard.c) --------------------------------------------------------------------------------- */

/* A function to run on another shard's loop, in order of posting between two shards. Intrusive; the memory is the sender's until fn has it. */
struct call {
    struct list link;
    void (*fn)(struct shard *here, struct call *c);
};
/* To `to`, from the loop of `from`. Also when both are the same: then at the end of this turn. Never refused: what a full mailbox does not take waits at the sender. */
void shard_call(struct shard *from, struct shard *to, struct call *c);

/* ---- the catalog of topics (catalog.c): immutable, reference-counted, one snapshot in each shard ---------------------- */

#define TOPIC_NAME_MAX 249
/* Kafka's topic settings with defaults: topic_settings.def. What is set is kept as text; what the log needs is in part. */
struct topic_settings {
    struct part_conf part;
    char **values;               /* by index in topic_settings.def; NULL: the default */
    bool log_append_time;        /* message.timestamp.type */
    int64_t timestamp_before_max_ms, timestamp_after_max_ms;
    uint8_t compression;         /* compression.type: as the producer sent it unless set */
    int32_t min_insync;          /* kept; there is one replica */
};
struct topic {
    uint32_t refs;               /* atomic: shared by successive snapshots */
    char *name;
    struct kafka_uuid id;
    int32_t partitions;
    bool internal;               /* __consumer_offsets, __transaction_state */
    struct topic_settings settings;
};
struct catalog {
    uint32_t refs;               /* atomic */
    uint64_t version;
    struct table by_name, by_id; /* -> struct topic */
};
struct catalog *catalog_ref(struct catalog *c);
void catalog_unref(struct catalog *c);
struct topic *catalog_topic(const struct catalog *c, struct slice name);              /* NULL: none */
struct topic *catalog_topic_by_id(const struct catalog *c, const struct kafka_uuid *id);
bool topic_name_ok(struct slice name);

/* ---- the broker and its shards ---------------------------------------------------------------------------------------- */

struct broker {
    struct broker_conf conf;
    struct log_store *log;
    struct shard *shards[SHARDS_MAX];
    uint32_t shards_n;
    struct kafka_uuid cluster_id;
    struct controller *controller; /* on shard 0: changes of topics, producer ids, ACLs, users, quotas (controller.c, security.c) */
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
    struct list conns;
    struct groups *groups;       /* groups.c: coordinator state of the groups that this shard owns */
    struct txns *txns;           /* txn.c */
    struct security *security;   /* security.c: snapshot of ACLs, users and quotas; usage of quotas */
    struct broker_counters *counters;
    struct shard_comm *comm;     /* shard.c */
};
/* Which shard owns a partition. */
struct shard *shard_of_part(struct broker *b, const struct kafka_uuid *topic_id, int32_t partition);

struct part_key { uint8_t topic[16]; int32_t partition; };
/* A partition on the shard that owns it. part is NULL while it is loaded in the pool. */
struct bpart {
    struct part_key key;
    struct topic *topic;         /* a reference; renewed with the catalog */
    int32_t partition;
    struct part *part;
};
/* NULL: not owned here, or not there. A part_* call needs bpart->part. */
struct bpart *shard_part(struct shard *s, const struct kafka_uuid *topic_id, int32_t partition);
struct bpart *shard_part_named(struct shard *s, struct slice topic, int32_t partition);

/* ---- requests (request.c, conn.c) ---------------------------------------------------------------------------------------- */

struct breq {
    struct list link;            /* on its connection, in the order of arrival */
    struct bconn *conn;          /* NULL once the connection is gone; home shard only */
    struct shard *home;
    const struct api *api;
    int16_t version;
    int32_t correlation_id;
    struct slice client_id;      /* in the frame; p NULL: null */
    struct broker_caller caller; /* in the arena */
    struct slice advertised_host;
    uint16_t advertised_port;
    char *frame;                 /* the whole request; slices of req point into it */
    size_t frame_n;
    struct arena arena;          /* req, resp, and whatever the handlers need until the answer is written */
    void *req;                   /* struct kafka_X_req, decoded */
    void *resp;                  /* struct kafka_X_resp, made by the handler in the arena */
    uint64_t begun_ns;
    void (*visit)(struct breq *r);
    struct call call;
    int32_t throttle_ms;         /* put by the quotas; the connection rests so long after the answer */
    bool answered, silent;       /* silent: no answer is sent (acks=0) */
    bool hang_up;                /* the connection is closed after the answer (or without one) */
    bool sync_done, group_done;  /* free for handlers */
};
/* api.c: api.def lists every API that is served: the versions advertised, the handler, whether it may run beside earlier requests of its connection. */
struct api {
    int16_t key, min, max;       /* advertised */
    int16_t served_min;          /* Produce: 0 is advertised and 3 is served */
    int16_t flexible;
    bool parallel;               /* produce, fetch, reads: begins while earlier requests of the connection still run. Others wait for them, and are waited for */
    const char *name;
    uint32_t req_bytes;
    enum err (*read)(struct kafka_reader *r, int16_t version, struct arena *a, void *out);
    void (*write)(struct kafka_writer *w, int16_t version, const void *resp);
    void (*serve)(struct breq *r);
    void (*error)(struct breq *r, enum kafka_error e); /* fills resp for a request that is refused as a whole; NULL: the connection is closed */
};
/* Zeroed memory of the request. */
#define BREQ_NEW(r, type) ((type *)arena_zalloc(&(r)->arena, sizeof(type)))
#define BREQ_ARRAY(r, type, n) ((type *)arena_zalloc(&(r)->arena, sizeof(type) * (size_t)MAX(n, 1)))
/* Goes on with fn(r) on shard s: at once when s is the present one. */
void breq_visit(struct breq *r, struct shard *from, struct shard *s, void (*fn)(struct breq *r));
/* r->resp is complete: it is written, in its turn, and r is gone. From any shard: comes home first. */
void breq_answer(struct breq *r, struct shard *from);

/* ---- handlers, by file. Each: void X(struct breq *r), on the home shard ---------------------------------------------------- */
/* produce.c fetch.c session.c offsets.c metadata.c topics.c configs.c cluster.c   data plane and topics
 * groups.c group_*.c offset_store.c group_admin.c consumer_group*.c share_*.c       groups
 * txn.c txn_*.c producer_ids.c sasl.c scram.c acls.c quotas.c security.c            transactions and security */

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

/* controller.c: on shard 0. A change of the catalog: made durable, then given to every shard (each makes its partitions), then done() on `from`'s loop. */
struct topic_change {
    struct call call;
    struct shard *from;
    struct slice name;
    enum { TOPIC_CREATE, TOPIC_DELETE, TOPIC_GROW, TOPIC_CONFIGURE } what;
    int32_t partitions;          /* create (-1: default), grow: the new number */
    const struct slice *settings;/* pairs name, value; create: given; configure: the whole new set. value.p NULL: back to the default */
    uint32_t settings_n;
    struct kafka_uuid id;        /* delete by id: given; create: result */
    bool internal, by_id, validate_only;
    void (*done)(struct shard *from, struct topic_change *c);
    enum kafka_error error;      /* result */
    const char *message;         /* result: what is wrong, static or in the arena of the request, or NULL */
    int32_t partitions_now;      /* result */
    void *ctx;
};
void topic_change(struct shard *from, struct topic_change *c);

/* Internal topics, made when first needed; the shard that coordinates a group or transactional id: owner of partition hash(key) % partitions (Java's String.hashCode, as
 * Kafka does: utils.abs(hash) % n). ready(r) comes on r's home shard once the topic is there, with the partition. */
#define OFFSETS_TOPIC SLICE("__consumer_offsets")
#define TXN_TOPIC SLICE("__transaction_state")
struct shard *coordinator_of(struct shard *here, struct slice topic, struct slice key, int32_t *partition); /* NULL: the topic is not there yet: make it by topic_change() and try again */

/* What a coordinator on shard `here` does when one of its partitions has been attached (load it: read all, rebuild state) or is deleted. */
void groups_part_attached(struct shard *here, struct bpart *p);
void groups_part_gone(struct shard *here, struct bpart *p);
void txns_part_attached(struct shard *here, struct bpart *p);
void txns_part_gone(struct shard *here, struct bpart *p);
/* A topic was deleted: committed offsets of it go (called on every shard with the new catalog). */
void groups_topic_gone(struct shard *here, const struct topic *t);

/* From transactions to data and group partitions (txn_markers.c uses, produce.c and offset_store.c serve): see README.md */

#endif
