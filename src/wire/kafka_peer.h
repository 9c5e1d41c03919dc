/* kafka_peer.h - the other side of a Kafka connection, for tests, simulation and fuzzers: messages with contents by chance. */
#ifndef KAFKA_PEER_H
#define KAFKA_PEER_H

#include "kafka.h"

/* The next number of a sequence that *seed determines. */
uint64_t kafka_chance(uint64_t *seed);

/* Fills a struct with what this version can carry, by chance: extreme numbers, null, empty and long values, tagged fields set or not.
 * What the version lacks is at its default, so that the struct written and read again is equal. Arrays and blobs are in the arena. */
void kafka_fill(const struct kafka_schema *s, int16_t version, uint64_t *seed, struct arena *a, void *out);

#endif
