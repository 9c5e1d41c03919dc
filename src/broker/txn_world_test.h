/* txn_world_test.h - what tests of transactions say and see: producers with a transactional id, values written and read, over broker_world_test.h. */
#ifndef TXN_WORLD_TEST_H
#define TXN_WORLD_TEST_H

#include "broker_world_test.h"

#include <setjmp.h>
#include <cmocka.h>

#define VALUES_MAX 4096

/* A producer as a client library keeps it. */
struct producer_id {
    int64_t id;
    int16_t epoch;
    int16_t error;               /* of the InitProducerId */
};
/* One InitProducerId, version 5; txn NULL: idempotent. given: its id and epoch are sent (KIP-360). */
struct producer_id txn_init_once(struct client *c, const char *txn, int32_t timeout_ms, const struct producer_id *given);
/* The same, asked again while the coordinator is being made or loaded, or a transaction ends. */
struct producer_id txn_init(struct client *c, const char *txn);
int16_t txn_add_once(struct client *c, const char *txn, struct producer_id p, const char *topic, int32_t partition, int16_t version);
int16_t txn_add(struct client *c, const char *txn, struct producer_id p, const char *topic, int32_t partition); /* 51 and loading: again */
int16_t txn_finish_once(struct client *c, const char *txn, struct producer_id p, bool commit, int16_t version);
int16_t txn_finish(struct client *c, const char *txn, struct producer_id p, bool commit);                             /* loading: again */
/* One batch with one record per value; txn NULL: not transactional; p NULL: not idempotent. */
int16_t txn_produce(struct client *c, const char *txn, const struct producer_id *p, int32_t sequence, const char *topic, int32_t partition, const int *values, int n);
int16_t txn_produce_one(struct client *c, const char *txn, const struct producer_id *p, int32_t sequence, const char *topic, int32_t partition, int value);

/* All values of a partition from its start, as a consumer sees them: of aborted transactions none if committed. */
struct seen {
    int values[VALUES_MAX];
    int n;
    int64_t high, stable;        /* as the last fetch told */
};
void txn_read(struct client *c, const char *topic, int32_t partition, bool committed, struct seen *out);
int64_t txn_latest(struct client *c, const char *topic, int32_t partition, bool committed);   /* ListOffsets -1 */
int64_t txn_newest(struct client *c, const char *topic, int32_t partition, bool committed);   /* and -3: the one with the greatest timestamp; -1: none */
/* Until the last stable offset is the high watermark: no transaction is open or ending there. */
void txn_settle(struct client *c, const char *topic, int32_t partition);
const char *txn_state_of(struct client *c, const char *txn);  /* DescribeTransactions; "" and an error: none */

#endif
