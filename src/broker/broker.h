/* broker.h - a Kafka broker over the commit log: topics, produce and fetch, consumer groups, transactions, permissions, quotas.
 *
 * One struct broker per process, one struct shard of it per worker loop. A connection belongs to the shard that accepted it; a partition,
 * group or transaction to the shard that a hash says; a request visits its owner by message. The shape is that of Kafka
 * 4.x with one node: this one.
 *
 * Threads: what is marked "shard" is called on that shard's loop; "start" before the shards' threads run; "any" on any thread.
 */
#ifndef BROKER_H
#define BROKER_H

#include "log.h"

/* Who calls: what ACLs and quotas go by. */
struct broker_caller {
    struct slice principal;        /* "User:shop/orders" for a workload, "User:ANONYMOUS" from outside, "User:NAME" after SASL */
    struct slice host;             /* the client's address, as text */
    bool super;                    /* may do everything: the node's own tools */
};

struct broker_conf {
    struct log_store_conf log;
    const char *node_name;
    int32_t node_id;               /* 1 */
    uint32_t shards;
    uint32_t connections_max;      /* per shard */
    uint32_t request_bytes_max;    /* socket.request.max.bytes */
    uint32_t idle_ms;              /* connections.max.idle.ms */
    uint64_t memory_bytes;         /* frames and answers under way, per shard; above it reading stops */
    int32_t partitions;            /* num.partitions of topics made without a number */
    int32_t offsets_partitions;    /* of __consumer_offsets; 50 */
    int32_t txn_partitions;        /* of __transaction_state; 50 */
    uint32_t group_delay_ms;       /* group.initial.rebalance.delay.ms */
    bool auto_create;              /* auto.create.topics.enable */
    bool authorize;                /* ACLs are looked at; without any ACL for a resource only super users may use it */
    bool allow_when_no_acl;        /* allow.everyone.if.no.acl.found */
    bool records_checked;          /* each record of a produced batch is checked, also inside compressed ones; default on */
};
void broker_conf_default(struct broker_conf *c);
/* "num.partitions=4,auto.create.topics.enable=false": settings by Kafka's names, of those that conf.c lists. Otherwise why is the sentence; c may have been changed then. */
enum err broker_conf_set(struct broker_conf *c, struct slice text, struct buf *why) WARN_UNUSED;

struct broker;
/* start: takes the data folder and reads what topics there are. conf is copied. ERR_INUSE and others: why is the sentence. */
enum err broker_open(const struct broker_conf *conf, struct broker **out, struct buf *why) WARN_UNUSED;
/* shard: the shard with that index on its worker's loop, which may run already. One after the other, and all before broker_start(). */
struct shard *broker_shard_new(struct broker *b, uint32_t index, struct loop *loop);
/* shard: after broker_stop() has told. All are freed before broker_free(); the loops may go on. */
void broker_shard_free(struct shard *s);
/* any: begins to load partitions and coordinators in the pool; connections may come at once and are answered when their topics are there
 * (COORDINATOR_LOAD_IN_PROGRESS, NOT_LEADER_OR_FOLLOWER until then: clients ask again). */
void broker_start(struct broker *b);
/* any: no more requests are taken, what is under way is answered, connections end, everything is durable; then done() on the given loop. */
void broker_stop(struct broker *b, struct loop *l, void (*done)(void *ctx), void *ctx);
/* After the last broker_shard_free(): closes the data folder. */
void broker_free(struct broker *b);

/* shard: a connection. fd is owned. advertised: the address that answers name (Metadata, FindCoordinator): how this caller reaches the broker. tls: NULL
 * for plain, else handshakes first. sasl: nothing but the handshake is answered before a user has proved itself. */
struct broker_door {
    struct slice advertised_host;
    uint16_t advertised_port;
    struct tls_ctx *tls;
    bool sasl;
    struct broker_caller caller;   /* copied */
};
void broker_accept(struct shard *s, int fd, const struct broker_door *door);

/* A permission that a manifest gives: an ACL binding of one topic by its whole name. */
struct broker_acl {
    struct slice principal, host;  /* "User:shop/orders", "User:*"; an address or "*" */
    uint8_t operation;             /* as on the wire: 2 ALL, 3 READ, 4 WRITE, 5 CREATE, 6 DELETE, 7 ALTER, 8 DESCRIBE, 10 DESCRIBE_CONFIGS, 11 ALTER_CONFIGS */
    bool deny;
};
/* What a manifest wants of a topic. any: applied by the controller; told() comes on the given loop with an error in words, or NULL. A topic that is
 * there gets more partitions and other settings; fewer partitions are an error. */
struct broker_topic {
    struct slice name;
    int32_t partitions;            /* -1: as configured */
    const struct slice *settings;  /* pairs: name, value, as Kafka names them */
    uint32_t settings_n;           /* of pairs */
    bool only_these;               /* settings that are not named go back to their defaults */
    const struct broker_acl *acls; /* what manifests permit: others of manifests go; what clients made by CreateAcls stays */
    uint32_t acls_n;
};
void broker_topic_apply(struct broker *b, const struct broker_topic *t, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx);
/* any: there is a topic of that name. */
bool broker_topic_there(struct broker *b, struct slice name);
/* any, without a broker: wrong() for each of these settings that it would refuse, with the reason, and with an empty name when they don't go together. */
void broker_topic_settings_check(const struct slice *settings, uint32_t n, void (*wrong)(void *ctx, struct slice name, const char *why), void *ctx);
/* How fast a user may be: bytes in a second, percent of a processor; 0: not limited. */
struct broker_quota {
    struct slice user;             /* without "User:" */
    double producer_bytes, consumer_bytes, request_percent;
};
/* All quotas that manifests give: those that they gave before and that are not among them go; what clients set stays. Otherwise as broker_topic_apply(). */
void broker_quotas_apply(struct broker *b, const struct broker_quota *quotas, uint32_t n, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx);
void broker_topic_delete(struct broker *b, struct slice name, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx);

/* any: Prometheus families, of all shards. Lag per group included. */
void broker_metrics(struct broker *b, struct buf *out);

/* any: what the event log has done and how far behind its slowest groups are, for who watches it: one JSON object.
 * {"partitions", "offline", "records_in", "bytes_in", "bytes_out": of all topics but internal ones, since the start, "sync_us": rounds of syncs that took up to 2^i microseconds, each in
 * the first that fits, "groups": [{"name", "lag"}]: those furthest behind, at most BROKER_TOP_GROUPS} */
#define BROKER_TOP_GROUPS 5
void broker_top(struct broker *b, struct buf *out);

#endif
