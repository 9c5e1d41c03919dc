/* kafka_batch.h - record batches, format 2 (KIP-98): what producers send, what logs hold, what consumers fetch.
 *
 *      0 base offset    int64    |  21 attributes        int16: 0-2 codec, 3 log append time, 4 transactional, 5 control,
 *      8 length         int32    |                              6 delete horizon
 *     12 leader epoch   int32    |  23 last offset delta int32
 *     16 magic          int8 = 2 |  27 base timestamp    int64
 *     17 CRC-32C        uint32   |  35 max timestamp     int64
 *                                |  43 producer id       int64     51 producer epoch int16     53 base sequence int32
 *                                |  57 count             int32     61 records, compressed as the codec says
 *
 *     record = length:varint attributes:int8 timestamp_delta:varlong offset_delta:varint
 *              key_n:varint key value_n:varint value headers_n:varint {key_n:varint key value_n:varint value}*     (-1: null)
 *
 * The length counts from 12 on; the checksum covers what stands from 21 on. So a broker may set base offset and leader epoch where the batch
 * lies, and may send it on as it came. Timestamps are milliseconds since 1970.
 *
 * Not here: where batches are kept, which sequence numbers and timestamps a partition takes, message sets of formats 0 and 1.
 */
#ifndef KAFKA_BATCH_H
#define KAFKA_BATCH_H

#include "base.h"
#include "kafka.h"

#define KAFKA_BATCH_HEADER 61
#define KAFKA_BATCH_LEAST 17                          /* bytes from which kafka_batch_bytes() can be told, and the magic */
#define KAFKA_INFLATE_BYTES_MAX (64u * 1024 * 1024)   /* records of one batch, decompressed: kafka_batch_check() */

enum kafka_codec { KAFKA_CODEC_NONE, KAFKA_CODEC_GZIP, KAFKA_CODEC_SNAPPY, KAFKA_CODEC_LZ4, KAFKA_CODEC_ZSTD, KAFKA_CODECS };

enum {
    KAFKA_BATCH_CODEC = 7,           /* mask */
    KAFKA_BATCH_LOG_APPEND = 8,      /* max timestamp is the time of the append, and every record's */
    KAFKA_BATCH_TRANSACTIONAL = 16,
    KAFKA_BATCH_CONTROL = 32,        /* its records are for brokers and clients, not for applications */
    KAFKA_BATCH_DELETE_HORIZON = 64, /* base timestamp is when compaction may drop tombstones */
};

struct kafka_batch {
    int64_t base_offset;
    uint32_t bytes; /* of the whole batch, from the base offset on */
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    uint16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp, max_timestamp;
    int64_t producer_id; /* -1: none */
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t count;
    struct slice records; /* compressed as the codec says; borrowed */
};
static inline enum kafka_codec kafka_batch_codec(const struct kafka_batch *b) { return (enum kafka_codec)(b->attributes & KAFKA_BATCH_CODEC); }
/* Of a batch from outside, whose base offset may be anything, this may be, too. */
static inline int64_t kafka_batch_last_offset(const struct kafka_batch *b) { return (int64_t)((uint64_t)b->base_offset + (uint64_t)b->last_offset_delta); }

/* The batch at the front of bytes: only its head is looked at, and that it is all there.
 * KAFKA_CORRUPT_MESSAGE: too short, or a length that cannot be; KAFKA_INVALID_RECORD: another format (magic is set). */
enum kafka_error kafka_batch_parse(struct slice bytes, struct kafka_batch *out);
/* Whether the checksum of the batch at p is right. */
bool kafka_batch_crc_ok(const char *p, const struct kafka_batch *b);

struct kafka_batch_fault {
    const char *why;   /* text for the answer's error message; NULL: nothing is wrong */
    int32_t index;     /* the record that is at fault, or -1: the batch */
    int64_t max_timestamp; /* the greatest of the records, if they were looked at: what the head should say; else what it says */
    int32_t null_key;  /* the first record without a key, which a compacted topic refuses; -1: there is none, or nobody looked */
};
/* What a broker checks of a batch at p that a producer sent: checksum, counts, attributes; with `records`, every record to its end, inside
 * compressed ones up to KAFKA_INFLATE_BYTES_MAX (beyond: KAFKA_MESSAGE_TOO_LARGE). Not: sequence numbers, the age of timestamps, sizes. */
enum kafka_error kafka_batch_check(const char *p, const struct kafka_batch *b, bool records, struct kafka_batch_fault *why);

/* Gives the batch at p its place in the log. The checksum stays right. */
void kafka_batch_place(char *p, int64_t base_offset, int32_t leader_epoch);
/* Another greatest timestamp for the batch at p, with a new checksum. The batch was parsed before. */
void kafka_batch_max_timestamp(char *p, int64_t ms);
/* Log append time for the whole batch at p, with a new checksum. The batch was parsed before. */
void kafka_batch_stamp(char *p, int64_t log_append_ms);

/* ---- records ------------------------------------------------------------------------------------------------------- */

struct kafka_header {
    struct slice key;
    struct slice value; /* p == NULL: null */
};

struct kafka_record {
    int32_t offset_delta;
    int64_t timestamp_delta;
    struct slice key, value; /* p == NULL: null */
    int32_t headers_n;
    struct slice headers; /* encoded: kafka_header_next() */
};

/* Takes the next record off the front of *rest, decompressed records of a batch; its headers are sound, too. ERR_SYNTAX: malformed. */
enum err kafka_record_next(struct slice *rest, struct kafka_record *out) WARN_UNUSED;
/* Takes the next of a record's headers off the front of *rest; false at the end. */
bool kafka_header_next(struct slice *rest, struct kafka_header *out);
/* The records of a batch, decompressed into scratch where necessary: *out borrows from the batch or from scratch. As kafka_inflate(). */
enum err kafka_batch_records(const struct kafka_batch *b, size_t limit, struct buf *scratch, struct slice *out) WARN_UNUSED;

/* ---- compression ------------------------------------------------------------------------------------------------------ */

/* Adds what `in` inflates to to *out. ERR_LIMIT: that is more than limit bytes; ERR_SYNTAX: malformed; ERR_UNSUPPORTED: no such codec, or, for
 * snappy, no libsnappy.so.1 on this machine; ERR_NOMEM.
 * After an error out holds what it held before. gzip: RFC 1952, several members; snappy: raw, or in the frames of snappy-java, which Kafka's own
 * clients write; lz4: its frame format; zstd: RFC 8878. */
enum err kafka_inflate(enum kafka_codec codec, struct slice in, size_t limit, struct buf *out) WARN_UNUSED;
/* Adds `in` compressed to *out, at the codec's usual level. ERR_UNSUPPORTED, as above; ERR_NOMEM. */
enum err kafka_deflate(enum kafka_codec codec, struct slice in, struct buf *out) WARN_UNUSED;

/* ---- building ----------------------------------------------------------------------------------------------------------- */

/* A batch being built at the end of a buffer, which is the caller's and is not written by others meanwhile. */
struct kafka_batch_builder {
    struct buf *b;
    size_t at;               /* where the batch begins */
    struct kafka_batch head; /* what kafka_batch_end() writes; until then the caller may change what it likes */
};

/* Begins a batch. head gives base_offset, leader_epoch, attributes (without the codec), base_timestamp, producer id, epoch, sequence;
 * the rest comes from the records. kafka_batch_plain is a head for data without a producer id. */
extern const struct kafka_batch kafka_batch_plain;
void kafka_batch_begin(struct kafka_batch_builder *k, struct buf *b, const struct kafka_batch *head);
/* Adds a record behind the last one. Slices with p == NULL are null. */
void kafka_batch_add(struct kafka_batch_builder *k, int64_t timestamp, struct slice key, struct slice value, const struct kafka_header *headers, int32_t headers_n);
/* The same at an offset of its own, above those before it, with headers as they are encoded: for compaction, which leaves holes. */
void kafka_batch_add_at(struct kafka_batch_builder *k, int32_t offset_delta, int64_t timestamp, const struct kafka_record *record);
/* Completes the batch: head, compression, checksum. It is then what stands in the buffer from k->at on. ERR_LIMIT: more than fits a batch's length;
 * otherwise as kafka_deflate(). After an error the buffer is as before kafka_batch_begin(). */
enum err kafka_batch_end(struct kafka_batch_builder *k, enum kafka_codec codec) WARN_UNUSED;

enum kafka_marker { KAFKA_MARKER_ABORT = 0, KAFKA_MARKER_COMMIT = 1 };
/* Adds the control batch that ends a transaction (KIP-98) to *b. */
void kafka_batch_marker(struct buf *b, const struct kafka_batch *head, enum kafka_marker marker, int32_t coordinator_epoch);
/* What a control batch says: false when its first record is no marker. */
bool kafka_batch_marker_read(const struct kafka_batch *b, enum kafka_marker *marker, int32_t *coordinator_epoch);

#endif
