/* broker_world_test.h - a broker on the simulator and clients that speak to it: what the broker's tests stand on.
 *
 *     world_start(&(struct world_conf){.seed = 1, .shards = 2});
 *     struct client *c = client_new(0);                              a connection to shard 0
 *     struct kafka_metadata_req req;  kafka_metadata_req_init(&req);
 *     const struct kafka_metadata_resp *resp = client_ask(c, KEY_METADATA, 12, &req);
 *     ...
 *     world_stop();                                                  also proves that nothing leaks
 *
 * Everything runs in one thread: a call that waits steps the world until what it waits for has come, or WORLD_WAIT_MS of virtual time have passed, which fails
 * the test. Topics: world_topic(). Anything else that a client can do: a request.
 */
#ifndef BROKER_WORLD_TEST_H
#define BROKER_WORLD_TEST_H

#include "broker_int.h"
#include "sim.h"

#define WORLD_SHARDS_MAX 8
#define WORLD_WAIT_MS 120000
#define WORLD_PORT 9092          /* of shard 0; shard i listens on WORLD_PORT + i */
#define WORLD_DIR "/data"

/* Keys of the protocol, for tests that name them often. */
enum { KEY_PRODUCE = 0, KEY_FETCH = 1, KEY_LIST_OFFSETS = 2, KEY_METADATA = 3, KEY_OFFSET_COMMIT = 8, KEY_OFFSET_FETCH = 9, KEY_FIND_COORDINATOR = 10, KEY_JOIN_GROUP = 11,
       KEY_HEARTBEAT = 12, KEY_LEAVE_GROUP = 13, KEY_SYNC_GROUP = 14, KEY_DESCRIBE_GROUPS = 15, KEY_LIST_GROUPS = 16, KEY_SASL_HANDSHAKE = 17, KEY_API_VERSIONS = 18,
       KEY_CREATE_TOPICS = 19, KEY_DELETE_TOPICS = 20, KEY_DELETE_RECORDS = 21, KEY_INIT_PRODUCER_ID = 22, KEY_OFFSET_FOR_LEADER_EPOCH = 23, KEY_ADD_PARTITIONS_TO_TXN = 24,
       KEY_ADD_OFFSETS_TO_TXN = 25, KEY_END_TXN = 26, KEY_TXN_OFFSET_COMMIT = 28, KEY_DESCRIBE_CONFIGS = 32, KEY_ALTER_CONFIGS = 33, KEY_SASL_AUTHENTICATE = 36,
       KEY_CREATE_PARTITIONS = 37, KEY_INCREMENTAL_ALTER_CONFIGS = 44, KEY_DESCRIBE_CLUSTER = 60 };

struct world_conf {
    uint64_t seed;
    uint32_t shards;                      /* 0: 1 */
    void (*tune)(struct broker_conf *c);  /* may change what it likes, at each start; NULL */
    struct sim_conf net;                  /* the seed in it is ignored */
    bool sasl;                            /* doors want SASL */
    bool quiet;                           /* nothing is logged: for tests of many faults */
};
/* One world at a time. Partitions of internal topics are 4 unless tune() says otherwise; group_delay_ms is 0. */
struct world {
    struct world_conf conf;
    struct broker *broker;
    struct loop *control;                 /* not a shard's: stops, topics of manifests */
    struct loop *loops[WORLD_SHARDS_MAX]; /* of the shards */
    struct listener listeners[WORLD_SHARDS_MAX];
    struct loop *client_loop;
    struct list clients;
    struct broker_door door;              /* for connections from now on; world_start() sets a caller User:test, who is no super user */
};
extern struct world W;

void world_start(const struct world_conf *conf);
void world_stop(void);
/* The broker stops as it should and starts again on its data. Connections end; clients are still to be freed. */
void world_restart(void);
/* It is killed (power: the machine loses power, too) and starts again. */
void world_crash(bool power);
/* The same in two steps, to look at what is left or to start with other settings. */
void world_down(bool crash, bool power);
void world_up(void);
void world_ready(void);                   /* waits until every partition is loaded, or offline; world_restart() and world_crash() do */
/* Steps the world until done(ctx), at most ms of virtual time; fails the test if it does not come. */
void world_until(bool (*done)(void *ctx), void *ctx, uint64_t ms);
void world_sleep(uint64_t ms);            /* virtual time passes */
/* A topic with so many partitions, all loaded when this returns. settings: NULL, or "name=value" texts up to a NULL. */
struct kafka_uuid world_topic(const char *name, int32_t partitions, const char *const *settings);
void world_topic_delete(const char *name);
struct shard *world_owner(const char *topic, int32_t partition);

/* ---- clients ---- */

struct client;
struct client *client_new(uint32_t shard);        /* the connection stands when this returns */
struct client *client_new_tls(uint32_t shard, struct tls_ctx *ctx); /* W.door.tls is its server's */
void client_free(struct client *c);
/* Sends a request (struct kafka_X_req of that key); its correlation id. */
int32_t client_send(struct client *c, int16_t key, int16_t version, const void *req);
/* No answer will come to what is sent next (acks=0). */
void client_send_silent(struct client *c, int16_t key, int16_t version, const void *req);
/* The answer (struct kafka_X_resp), which stays until client_forget() or client_free(); fails the test when the connection ends first. Answers come in the order of
 * requests, which is checked. */
const void *client_await(struct client *c, int32_t correlation_id);
const void *client_try(struct client *c, int32_t correlation_id);   /* the same, NULL: it has not come yet. Does not wait */
const void *client_ask(struct client *c, int16_t key, int16_t version, const void *req); /* send and await */
bool client_closed(const struct client *c);       /* the broker has ended the connection */
void client_await_close(struct client *c);
void client_forget(struct client *c);             /* answers so far are freed */
void client_bytes(struct client *c, const void *p, size_t n);       /* any bytes */
void client_reading(struct client *c, bool on);   /* off: a reader that takes nothing */
void client_end_sending(struct client *c);
void client_any_answers(struct client *c);        /* whatever comes is passed over: for bytes that are no requests of client_send() */
uint64_t client_bytes_in(const struct client *c);
struct arena *client_arena(struct client *c);     /* for requests: emptied by client_forget() */
/* Bare frames (SASL tokens after handshake v0): one sent, the next one that comes. */
void client_frame(struct client *c, struct slice body);
struct slice client_await_frame(struct client *c);

#endif
