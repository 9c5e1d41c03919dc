/* log_client.h - an event log from the outside: what Weir's own rooms and commands use to publish, consume and administer, whoever keeps the log.
 *
 * One interface, two engines, which any Kafka cluster takes for clients like others: `own` speaks the protocol over rt's streams, with the
 * codec of wire; `rdkafka` is librdkafka, for clusters that want what the own one has not (Kerberos, OAuth, its many settings). What moves from
 * Weir's broker to a cluster changes the address, and perhaps the engine, and nothing else.
 *
 * Threads: a client belongs to one loop; its callbacks come there, and never from inside the call that asked for them.
 * Memory: what is given to a call is copied; what is given to a callback is valid until it returns.
 */
#ifndef LOG_CLIENT_H
#define LOG_CLIENT_H

#include "kafka.h"
#include "rt.h"

#define LOG_CLIENT_BYTES_MAX (64u << 20) /* records that wait to be acknowledged; above it log_produce() refuses */

enum log_engine { LOG_ENGINE_OWN, LOG_ENGINE_RDKAFKA };
struct log_client_conf {
    enum log_engine engine;
    const char *bootstrap;     /* "HOST:PORT,HOST:PORT": one of them is asked for the others */
    const char *client_id;     /* NULL: "weir" */
    uint32_t timeout_ms;       /* of one call, repetitions included; 0: 30,000 */
    uint32_t reach_ms;         /* how long to try before a broker was ever reached, for who would rather be told that there is none; 0: as long. The own engine's */
    int16_t acks;              /* 0, 1, -1 (all); with -1 records are not doubled by repetitions (KIP-98) */
    /* A host's name to its address; blocks, on a thread of the pool. NULL: addresses only. The own engine's; librdkafka has its own way. */
    enum err (*resolve)(const char *host, struct addr *out);
    /* Pairs of librdkafka's settings, ended by NULL, or NULL. The own engine has those that log_setting_common() tells, with the same meaning, and refuses others. */
    const char *const *settings;
};
/* How brokers are spoken to: security.protocol (plaintext, ssl, sasl_plaintext, sasl_ssl), sasl.mechanism or sasl.mechanisms (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512),
 * sasl.username, sasl.password, ssl.ca.pem (else the system's), ssl.certificate.pem with ssl.key.pem, enable.ssl.certificate.verification (true, false),
 * ssl.endpoint.identification.algorithm (https, none). */
bool log_setting_common(struct slice name);
struct log_client;
/* ERR_INVALID: why says what is wrong with the conf. Nothing is connected yet. */
enum err log_client_new(struct loop *l, const struct log_client_conf *conf, struct log_client **out, struct buf *why) WARN_UNUSED;
/* Not from inside a callback. Nothing more is called back. What waits to be sent is dropped: wait for its done() before. Its consumers are closed, without leaving their groups. */
void log_client_free(struct log_client *c);

/* Why something has failed. In callbacks NULL is success. */
struct log_fault {
    enum kafka_error code;     /* NETWORK_EXCEPTION: no broker could be reached, text says why; SASL_AUTHENTICATION_FAILED; REQUEST_TIMED_OUT: no answer in time */
    const char *text;          /* a sentence */
};

/* ---- publishing ---------------------------------------------------------------------------------------------------------- */

struct log_header {
    struct slice name, value;  /* value.p NULL: null */
};
struct log_message {
    struct slice topic;
    int32_t partition;         /* -1: by the key as Kafka's clients choose it (murmur2); without a key in turn */
    struct slice key, value;   /* p NULL: null */
    const struct log_header *headers;
    uint32_t headers_n;
    int64_t timestamp_ms;      /* since 1970; -1: now */
    /* Once for each message. partition and offset are where it stands, -1 where that is not told (acks 0). */
    void (*done)(void *ctx, const struct log_fault *e, int32_t partition, int64_t offset);
    void *ctx;
};
/* Messages to one partition keep their order. What is published in one turn of the loop leaves together. ERR_LIMIT: LOG_CLIENT_BYTES_MAX wait, done() is
 * not called: try again when some are done. */
enum err log_produce(struct log_client *c, const struct log_message *m) WARN_UNUSED;
size_t log_produce_bytes(const struct log_client *c); /* that wait */

/* ---- consuming ------------------------------------------------------------------------------------------------------------ */

#define LOG_BEGINNING (-2) /* as an offset: the first record there is */
#define LOG_END (-1)       /* what comes from now on */

struct log_record {
    struct slice topic;
    int32_t partition;
    int64_t offset, timestamp_ms;
    struct slice key, value;   /* p NULL: null */
    const struct log_header *headers;
    uint32_t headers_n;
};
struct log_consumer;
struct log_consumer_ops {
    void (*record)(void *ctx, const struct log_record *r);
    /* Everything before offset, the end of what is visible now, has been given. May come again. */
    void (*caught_up)(void *ctx, struct slice topic, int32_t partition, int64_t offset);
    /* The partitions that it has now: after it began, and after each rebalance of its group. */
    void (*assigned)(void *ctx, uint32_t partitions);
    /* A partition has no place `asked` (conf.from, or where it was when its records were deleted): it goes on at its nearest end, `offset`. */
    void (*moved)(void *ctx, struct slice topic, int32_t partition, int64_t asked, int64_t offset);
    /* It is over: close it. Passing failures are not told but repeated. */
    void (*failed)(void *ctx, const struct log_fault *e);
};
struct log_consumer_conf {
    const char *group;         /* a member of this group (partitions are shared among its members, places are kept); NULL: alone */
    const struct slice *topics;
    uint32_t topics_n;
    int32_t partition;         /* only this one; -1: all. Without a group */
    int64_t from;              /* LOG_BEGINNING, LOG_END or an offset (ops.moved tells of partitions that have it not); with a group: where it has no place yet, BEGINNING or END */
    bool from_time;            /* from is a time in ms since 1970: the first record that is not older */
    bool uncommitted;          /* also records of transactions that are open or were aborted */
    uint32_t session_ms;       /* of the group; 0: 45,000 */
};
/* done through ops. */
struct log_consumer *log_consume(struct log_client *c, const struct log_consumer_conf *conf, const struct log_consumer_ops *ops, void *ctx);
/* While it rests nothing is given. From inside record(), too: then the next record is the first one when it goes on. */
void log_consumer_rest(struct log_consumer *k, bool rest);
/* The group's places become those behind the records that were given. done() comes in any case, unless the consumer is closed before. */
void log_consumer_commit(struct log_consumer *k, void (*done)(void *ctx, const struct log_fault *e), void *ctx);
/* Nothing more is called back but done() (may be NULL), once the group has been left. */
void log_consumer_close(struct log_consumer *k, void (*done)(void *ctx), void *ctx);

/* ---- asking and administering ------------------------------------------------------------------------------------------------ */

enum log_ask_kind {
    LOG_ASK_TOPICS,         /* names (none: all)            -> topics */
    LOG_ASK_OFFSETS,        /* places                       -> places: the offset of LOG_BEGINNING or LOG_END, or of a time */
    LOG_ASK_CREATE,         /* name, partitions (-1: as the cluster has it), settings */
    LOG_ASK_GROW,           /* name, partitions */
    LOG_ASK_DELETE,         /* name */
    LOG_ASK_SETTINGS,       /* name                         -> settings */
    LOG_ASK_SET,            /* name, settings: value.p NULL: back to the default; others stay */
    LOG_ASK_GROUPS,         /*                              -> groups, without members */
    LOG_ASK_GROUP,          /* name                         -> groups: this one */
    LOG_ASK_GROUP_PLACES,   /* name                         -> places: what is committed */
    LOG_ASK_GROUP_MOVE,     /* name, places: becomes what is committed; the group has no members */
    LOG_ASK_GROUP_DELETE,   /* name */
    LOG_ASK_USERS,          /*                              -> users: who can log in with SASL (KIP-554) */
    LOG_ASK_USER_SET,       /* name, credentials: what he logs in with from now on */
    LOG_ASK_USER_DELETE,    /* name, credentials: these go; mechanisms alone are looked at */
    LOG_ASK_KINDS
};
struct log_setting {
    struct slice name, value;
    bool is_default, read_only;
};
struct log_place {
    struct slice topic;
    int32_t partition;
    int64_t offset;            /* LOG_ASK_OFFSETS: LOG_BEGINNING, LOG_END, or with by_time ms since 1970. As an answer -1: none */
    bool by_time;
    enum kafka_error error;    /* of this one, in answers */
};
struct log_topic {
    struct slice name;
    bool internal;
    int32_t partitions, replicas;
    const int32_t *leaders;    /* of each partition; -1: none now */
    enum kafka_error error;
};
struct log_member {
    struct slice id, client_id, host;
    const struct log_place *places; /* assigned; offsets mean nothing */
    uint32_t places_n;
};
struct log_group {
    struct slice name, state, protocol; /* "Stable", "Empty", ...; "range" */
    const struct log_member *members;
    uint32_t members_n;
};
/* What a SCRAM password is kept as (RFC 5802): never the password. mechanism: 1 SCRAM-SHA-256, 2 SCRAM-SHA-512. */
struct log_credential {
    int8_t mechanism;
    int32_t iterations;
    struct slice salt, salted; /* not in answers */
};
struct log_user {
    struct slice name;
    const struct log_credential *credentials;
    uint32_t credentials_n;
};
struct log_answer {
    const struct log_user *users; size_t users_n;
    const struct log_topic *topics; size_t topics_n;
    const struct log_place *places; size_t places_n;
    const struct log_setting *settings; size_t settings_n;
    const struct log_group *groups; size_t groups_n;
};
struct log_ask {
    enum log_ask_kind kind;
    struct slice name;
    int32_t partitions;
    const struct slice *names; size_t names_n;
    const struct log_place *places; size_t places_n;
    const struct log_setting *settings; size_t settings_n;
    const struct log_credential *credentials; size_t credentials_n;
    /* Once. a is empty after a failure, and for what has no answer but that it is done. */
    void (*done)(void *ctx, const struct log_fault *e, const struct log_answer *a);
    void *ctx;
};
void log_ask(struct log_client *c, const struct log_ask *ask);

/* The partition of a key as Kafka's clients choose it: murmur2 over the key, without its sign, modulo n. */
int32_t log_partition_of(struct slice key, int32_t n);

#endif
