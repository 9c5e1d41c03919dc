/* log_client_int.h - what the engines of log_client share: the table of functions, and copies that outlive a call. */
#ifndef LOG_CLIENT_INT_H
#define LOG_CLIENT_INT_H

#include "log_client.h"

#define LOG_TIMEOUT_MS 30000u
#define LOG_BACKOFF_MS 100u      /* between repetitions */
#define LOG_SESSION_MS 45000u

struct log_engine_ops {
    enum err (*make)(struct loop *l, const struct log_client_conf *conf, struct log_client **out, struct buf *why);
    void (*free)(struct log_client *c);
    enum err (*produce)(struct log_client *c, const struct log_message *m);
    struct log_consumer *(*consume)(struct log_client *c, const struct log_consumer_conf *conf, const struct log_consumer_ops *ops, void *ctx);
    void (*rest)(struct log_consumer *k, bool rest);
    void (*commit)(struct log_consumer *k, void (*done)(void *ctx, const struct log_fault *e), void *ctx);
    void (*close)(struct log_consumer *k, void (*done)(void *ctx), void *ctx);
    void (*ask)(struct log_client *c, const struct log_ask *ask);
};
extern const struct log_engine_ops log_engine_own, log_engine_rdkafka;

/* Each engine's begins with this. */
struct log_client {
    const struct log_engine_ops *ops;
    struct loop *loop;
    size_t produce_bytes;        /* of messages that are not done */
    uint32_t timeout_ms;
    int16_t acks;
};
struct log_consumer {
    struct log_client *c;
    const struct log_consumer_ops *ops;
    void *ctx;
};

/* Its error, in words: the broker's own where it sent some, else what the code means. Valid until the next call. */
const struct log_fault *log_fault_of(struct log_fault *e, enum kafka_error code, struct slice text, struct buf *words);
/* Everything that ask points to, in a. */
struct log_ask *log_ask_copy(struct arena *a, const struct log_ask *ask);
/* A HOST and a port cut from the front of "HOST:PORT,..." ("[::1]:9092" is one, too); false when it is none. */
bool log_bootstrap_next(struct slice *rest, struct slice *host, uint16_t *port);

#endif
