/* log_client_own.h - the own engine's insides: connections and calls, what is known of the cluster; used by its files.
 *
 *     log_ask, producer, consumer --own_send()--> call --> connection to a node --> answer --> call->done()
 *
 * A call is one request and its answer. It goes to a node by its number, or to any broker (OWN_ANY), over that node's one connection, which is made
 * when it is needed; answers come in the order of requests. When a connection fails, its calls fail with NETWORK_EXCEPTION: whoever made them
 * decides whether to repeat. Versions are the newest that both sides know, at most what the caller of own_call() understands.
 * A connection is made over TLS, and logs in, when the settings say so (log_client_own_secure.c); calls wait until that is done.
 */
#ifndef LOG_CLIENT_OWN_H
#define LOG_CLIENT_OWN_H

#include "kafka_batch.h"
#include "log_client_int.h"

#define OWN_ANY (-1)
#define OWN_KEYS 93          /* API keys that are looked at */
#define OWN_ANSWER_BYTES_MAX (128u << 20)

enum { /* API keys */
    API_PRODUCE = 0, API_FETCH = 1, API_LIST_OFFSETS = 2, API_METADATA = 3, API_OFFSET_COMMIT = 8, API_OFFSET_FETCH = 9, API_FIND_COORDINATOR = 10, API_JOIN_GROUP = 11,
    API_HEARTBEAT = 12, API_LEAVE_GROUP = 13, API_SYNC_GROUP = 14, API_DESCRIBE_GROUPS = 15, API_LIST_GROUPS = 16, API_API_VERSIONS = 18, API_CREATE_TOPICS = 19,
    API_SASL_HANDSHAKE = 17, API_DELETE_TOPICS = 20, API_INIT_PRODUCER_ID = 22, API_DESCRIBE_CONFIGS = 32, API_SASL_AUTHENTICATE = 36,
    API_CREATE_PARTITIONS = 37, API_DELETE_GROUPS = 42, API_INCREMENTAL_ALTER_CONFIGS = 44,
    API_DESCRIBE_USER_SCRAM_CREDENTIALS = 50, API_ALTER_USER_SCRAM_CREDENTIALS = 51, API_CONSUMER_GROUP_DESCRIBE = 69,
};

/* A broker that Metadata or FindCoordinator told of. */
struct own_node {
    int32_t id;
    char *host;
    uint16_t port;
};
/* A topic that is published to or consumed: who leads its partitions. */
struct own_topic {
    struct list link;        /* own.topic_list */
    char *name;
    int32_t *leaders;        /* by partition; -1: nobody now */
    int32_t parts_n;         /* 0: not known */
    struct own_lane **lanes; /* the producer's, by partition; parts_n of them */
    struct list unplaced;    /* struct own_msg: which partition is not known yet */
    bool asking;             /* for Metadata */
    uint32_t turn;           /* of messages without a key */
    struct timer again;      /* asks once more */
    struct own *o;
};

/* How brokers are spoken to: the settings, the same for all connections. */
enum own_sasl { OWN_SASL_NONE, OWN_SASL_PLAIN, OWN_SASL_SCRAM_256, OWN_SASL_SCRAM_512, OWN_SASL_KINDS };
struct own_secure {
    struct tls_ctx *tls;       /* NULL: in clear */
    bool any_name;             /* a certificate may be for another host */
    enum own_sasl sasl;
    char *user, *password;     /* of sasl; else NULL */
};

struct own {
    struct log_client base;
    char *bootstrap, *client_id;
    struct own_secure secure;
    struct buf why;            /* why the last connection failed, in words; empty: none has since one was ready */
    enum err (*resolve)(const char *host, struct addr *out);
    struct list conns, calls;  /* calls: all that are under way */
    struct own_node *nodes; size_t nodes_n, nodes_cap;
    int32_t controller;        /* OWN_ANY: not known */
    uint32_t bootstrap_at;     /* which address is next */
    struct table topics;       /* name -> struct own_topic */
    struct list topic_list;    /* the same, for going through while callbacks may add some */
    struct list asks;          /* struct own_ask */
    struct list consumers;     /* struct own_consumer */
    struct task flush;         /* the producer's, at the end of the turn */
    struct timer linger;       /* the same, after a back-off */
    int64_t producer_id;       /* -1: not known */
    int16_t producer_epoch;
    bool producer_asking;
    bool reached;              /* a broker has answered a call */
    uint32_t reach_ms;
    uint64_t made_ms;
    uint32_t conns_n;          /* not yet released */
    bool freed;                /* goes with the last connection */
};

/* Answers come in the order of requests: what waits long has a connection of its own. */
enum own_lane_of { LANE_CALLS, LANE_FETCH, LANE_GROUP };
struct own_call {
    struct list link;          /* own_conn.calls */
    struct list all;           /* own.calls */
    struct own *o;
    struct own_conn *conn;     /* NULL: finished before it was sent */
    const struct kafka_api *api;
    int16_t version;           /* at most; then what was sent */
    int32_t correlation;
    int32_t node;
    enum own_lane_of lane;     /* of nodes; the caller sets it before own_send() */
    bool sent, dropped, over;
    bool silent;               /* no answer comes (Produce with acks 0): it is done when it is written, and resp is empty */
    struct arena arena;        /* req, resp, what both point to */
    void *req, *resp;          /* struct kafka_X_req, _resp */
    struct timer timer;
    struct task fail;          /* tells a failure in another turn */
    enum kafka_error error;    /* NONE: resp is read; its slices are valid until done() returns */
    void (*done)(struct own_call *call);
    void *ctx;
    const void *owner;         /* own_calls_drop(); NULL */
};
enum own_state { OWN_RESOLVING, OWN_CONNECTING, OWN_ASKING, OWN_LOGIN, OWN_READY, OWN_GONE };
struct own_conn {
    struct list link;          /* own.conns */
    struct own *o;
    struct stream s;
    struct work work;          /* the look-up of its name */
    struct addr addr;
    enum err looked_up;
    char *host;
    uint16_t port;
    int32_t node;              /* OWN_ANY: a bootstrap address, whichever node it is */
    enum own_lane_of lane;
    enum own_state state;
    struct own_login *login;   /* in OWN_LOGIN; else NULL */
    struct list calls;         /* struct own_call, in the order of their answers; those not sent last */
    struct buf in;
    int32_t correlation;
    struct { int16_t min, max; } versions[OWN_KEYS]; /* max -1: not known to the broker */
};

/* A request with its defaults. version: the newest that the caller understands. */
struct own_call *own_call(struct own *o, int16_t api_key, int16_t version, int32_t node, void (*done)(struct own_call *call), void *ctx);
#define OWN_NEW(call, type, n) ((type *)arena_zalloc(&(call)->arena, sizeof(type) * (size_t)((n) + 1)))
struct slice own_keep(struct own_call *call, struct slice s); /* in the call's arena; null stays null */
/* done() comes once, never from inside, and the call is gone after it. */
void own_send(struct own_call *call, uint32_t timeout_ms);
void own_call_drop(struct own_call *call); /* nobody is called back any more */
void own_calls_drop(struct own *o, const void *owner); /* the same for all of an owner */

/* What Metadata told: nodes, controller, leaders of topics that are in o->topics. */
void own_learn(struct own *o, const struct kafka_metadata_resp *m);
struct own_node *own_node_learn(struct own *o, int32_t id, struct slice host, int32_t port);
struct own_call *own_metadata(struct own *o, const struct slice *names, size_t n, bool create, void (*done)(struct own_call *call), void *ctx); /* all topics when names is NULL */
struct own_topic *own_topic(struct own *o, struct slice name);
int32_t own_leader(const struct own_topic *t, int32_t partition); /* OWN_ANY when it is not known */
bool own_passing(enum kafka_error e);   /* an error that repeating may heal */
bool own_worth_it(const struct own *o, enum kafka_error e); /* the same, unless no broker was reached for as long as is tried */

/* The words for an error: the broker's where it sent some, else why there is no connection, where that is the error. */
struct slice own_words(const struct own *o, enum kafka_error e, struct slice text);

/* Before a connection is ready: a call on it, ahead of those that wait. done() may touch k when call->error is NONE, and only then. */
struct own_call *own_conn_call(struct own_conn *k, int16_t api_key, int16_t version, void (*done)(struct own_call *call));
void own_conn_send(struct own_conn *k, struct own_call *call);
void own_conn_ready(struct own_conn *k);
/* own.why says why. Its calls fail with e, in another turn. */
void own_conn_fail(struct own_conn *k, enum kafka_error e);

/* log_client_own_secure.c */
enum err own_secure_read(struct own_secure *s, const char *const *settings, struct buf *why) WARN_UNUSED; /* s is zero; own_secure_fini() in any case */
void own_secure_fini(struct own_secure *s);
void own_login_begin(struct own_conn *k); /* ends with own_conn_ready() or own_conn_fail() */
void own_login_drop(struct own_login *x); /* its connection goes; NULL-safe */

/* log_client_own_produce.c */
enum err own_produce(struct log_client *c, const struct log_message *m);
void own_produce_init(struct own *o);
void own_produce_fini(struct own *o);
void own_topic_learnt(struct own_topic *t); /* its partitions are known */
/* log_client_own_ask.c */
void own_ask(struct log_client *c, const struct log_ask *ask);
void own_asks_drop(struct own *o);
/* log_client_own_consume.c */
struct log_consumer *own_consume(struct log_client *c, const struct log_consumer_conf *conf, const struct log_consumer_ops *ops, void *ctx);
void own_consumer_rest(struct log_consumer *k, bool rest);
void own_consumer_commit(struct log_consumer *k, void (*done)(void *ctx, const struct log_fault *e), void *ctx);
void own_consumer_close(struct log_consumer *k, void (*done)(void *ctx), void *ctx);
void own_consumers_drop(struct own *o);

#endif
