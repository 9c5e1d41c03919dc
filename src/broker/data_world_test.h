/* data_world_test.h - batches, and requests of producers and consumers, for tests with broker_world_test.h. Everything lies in the client's arena. */
#ifndef DATA_WORLD_TEST_H
#define DATA_WORLD_TEST_H

#include "broker_world_test.h"

struct batch_conf {
    int32_t records;            /* 0: 1 */
    uint32_t value_bytes;       /* 0: a few */
    enum kafka_codec codec;
    int64_t producer_id;        /* 0: none */
    int16_t epoch;
    int32_t sequence;
    uint16_t attributes;
    int64_t at_ms;              /* 0: now */
    int64_t last_ms;            /* of the last record; 0: as those before it */
    int32_t keyless;            /* each so many-th record has no key; 0: all have one */
};
int64_t now_ms(void);
/* Values are "tag-INDEX", with padding; keys kINDEX. */
struct slice batch(struct client *c, const char *tag, const struct batch_conf *conf);

struct to {
    const char *topic;
    int32_t partition;
    struct slice batch;
};
struct kafka_produce_req *produce_req(struct client *c, const struct to *to, int n, int16_t acks);

struct from {
    const char *topic;
    int32_t partition;
    int64_t offset;
    struct kafka_uuid id;
};
struct fetch_conf {
    int32_t wait_ms, min_bytes, max_bytes, part_bytes; /* 0: none, 1, 10 MiB, 1 MiB */
    int8_t isolation;
    int32_t session, epoch;                            /* epoch 0 with `sessions`: a new one */
    bool sessions;
    int32_t leader_epoch, last_epoch;                  /* counted from 1; 0: not said */
    const struct from *forget;
    int forget_n;
};
struct kafka_fetch_req *fetch_req(struct client *c, const struct fetch_conf *conf, const struct from *from, int n);
/* The values of all records of a fetched partition, with a space behind each; offsets must go on from `offset`. *next: behind the last, -1: nothing. */
const char *values(struct client *c, const struct kafka_fetch_resp_partition_data *p, int64_t offset, int64_t *next);

/* For world_until(): all partitions of the topic whose name is ctx are loaded. */
bool all_loaded(void *ctx);

#endif
