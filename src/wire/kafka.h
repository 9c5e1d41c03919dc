/* kafka.h - the Kafka protocol's messages: bytes to structs and back.
 *
 *     frame    = size:int32, header, body                     (size counts what follows it)
 *     request  = api_key:int16, api_version:int16, correlation_id:int32, client_id:string, [tags], body
 *     response = correlation_id:int32, [tags], body           ([tags]: where the version is flexible, KIP-482)
 *
 * Messages are tables (src/wire/kafka/, one per message) from which tools/kafka_codec.py makes the structs of kafka_msg.h and the
 * schemas that the functions here interpret. So every message can be read and written, whichever side of the connection one is on.
 *
 * For each message X, and for each struct inside it, with the names of the protocol guide in small letters:
 *
 *     struct kafka_produce_req, struct kafka_produce_resp, struct kafka_produce_req_topic_produce_data, ...
 *     kafka_X_init(&m)                           every field at its default
 *     err = kafka_X_read(&r, version, arena, &m) fields absent from the version get their defaults
 *     kafka_X_write(&w, version, &m)             fields absent from the version are left out
 *
 * In the structs a string or bytes is a slice, null when p is NULL; an array is a pointer x and a count x_n, null when x_n is -1; a struct
 * that can be null is a pointer. What was read borrows its bytes from the reader's; arrays and such structs are in the arena.
 *
 * Not here: record batches (kafka_batch.h), which versions are offered, what a message means.
 */
#ifndef KAFKA_H
#define KAFKA_H

#include "base.h"

#define KAFKA_STRING_MAX 32767                     /* bytes of a string: its length was an int16 once, and the limit stayed */
#define KAFKA_DECODE_BYTES_MAX (64u * 1024 * 1024) /* arena bytes that one message may take when it is read */
#define KAFKA_NEVER 32767                          /* as first flexible version: none is */

/* ---- small types ------------------------------------------------------------------------------------------------- */

enum kafka_error {
#define X(name, code) KAFKA_##name = code,
#include "kafka_errors.def"
#undef X
};
/* The protocol's name of a code, such as "NOT_COORDINATOR"; "UNKNOWN" for a number that is none. */
const char *kafka_error_name(int code);

struct kafka_uuid {
    uint8_t b[16];
};
static inline bool kafka_uuid_eq(struct kafka_uuid a, struct kafka_uuid b) { return memcmp(a.b, b.b, sizeof a.b) == 0; }
static inline bool kafka_uuid_is_zero(struct kafka_uuid a) { return kafka_uuid_eq(a, (struct kafka_uuid){{0}}); }

/* The record batches of one partition in a response. Written: `bytes`, then `outside_n` bytes that are elsewhere (a range of a file).
 * Read: bytes alone. Null: bytes.p is NULL and outside_n is 0. */
struct kafka_records {
    struct slice bytes;
    uint64_t outside_n;
    void *outside; /* the writer's caller knows what it is; passed on in struct kafka_gap */
};

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* Bytes being read. After a failure nothing more is read: every call gives zero, empty or null, and err stays the first error:
 * ERR_SYNTAX for bytes that are no such message, ERR_LIMIT when it would take too much memory. */
struct kafka_reader {
    const char *p, *end;
    enum err err;
    size_t decode_left; /* arena bytes that may yet be taken */
};
static inline void kafka_reader_init(struct kafka_reader *r, struct slice bytes)
{
    *r = (struct kafka_reader){.p = bytes.p, .end = bytes.n ? bytes.p + bytes.n : bytes.p, .decode_left = KAFKA_DECODE_BYTES_MAX};
}
static inline size_t kafka_reader_left(const struct kafka_reader *r) { return r->p ? (size_t)(r->end - r->p) : 0; }
void kafka_reader_fail(struct kafka_reader *r, enum err e);

/* The protocol's primitive types, for blobs that have no table. */
int8_t kafka_read_int8(struct kafka_reader *r);
int16_t kafka_read_int16(struct kafka_reader *r);
int32_t kafka_read_int32(struct kafka_reader *r);
int64_t kafka_read_int64(struct kafka_reader *r);
uint32_t kafka_read_uvarint(struct kafka_reader *r);
int32_t kafka_read_varint(struct kafka_reader *r);  /* zigzag */
int64_t kafka_read_varlong(struct kafka_reader *r); /* zigzag */
struct kafka_uuid kafka_read_uuid(struct kafka_reader *r);
/* compact: the length as in flexible versions. Null is allowed: p is NULL then. */
struct slice kafka_read_string(struct kafka_reader *r, bool compact);
struct slice kafka_read_bytes(struct kafka_reader *r, bool compact);
void kafka_read_tags(struct kafka_reader *r); /* tagged fields that nobody knows: skipped */

/* ---- writing -------------------------------------------------------------------------------------------------------- */

/* Where bytes that are not in the buffer belong. */
struct kafka_gap {
    size_t at;      /* they go in front of this position of the buffer */
    uint64_t bytes;
    void *outside;  /* struct kafka_records.outside */
};

/* A message, or several, being written at the end of a buffer. Not to be moved in the buffer once it has gaps. */
struct kafka_writer {
    struct buf *b;          /* the caller's */
    struct kafka_gap *gaps; /* in order of their positions; owned, kafka_writer_fini() */
    size_t gaps_n, gaps_cap;
    uint64_t gap_bytes;     /* of all gaps together */
    enum err err;           /* sticky; ERR_LIMIT: a string longer than KAFKA_STRING_MAX was cut, or a size does not fit its field */
};
static inline void kafka_writer_init(struct kafka_writer *w, struct buf *b) { *w = (struct kafka_writer){.b = b}; }
/* Forgets gaps and error, keeps their memory; the buffer is the caller's to clear. */
void kafka_writer_reset(struct kafka_writer *w);
void kafka_writer_fini(struct kafka_writer *w); /* not the buffer */

void kafka_write_int8(struct kafka_writer *w, int8_t v);
void kafka_write_int16(struct kafka_writer *w, int16_t v);
void kafka_write_int32(struct kafka_writer *w, int32_t v);
void kafka_write_int64(struct kafka_writer *w, int64_t v);
void kafka_write_uvarint(struct kafka_writer *w, uint32_t v);
void kafka_write_varint(struct kafka_writer *w, int32_t v);
void kafka_write_varlong(struct kafka_writer *w, int64_t v);
void kafka_write_uuid(struct kafka_writer *w, struct kafka_uuid v);
void kafka_write_string(struct kafka_writer *w, struct slice s, bool compact); /* p == NULL: null */
void kafka_write_bytes(struct kafka_writer *w, struct slice s, bool compact);

/* ---- frames and headers ---------------------------------------------------------------------------------------------- */

/* Begins a frame: returns its position, which kafka_frame_end() wants, to fill in the size; gaps count. */
struct kafka_frame {
    size_t at;
    uint64_t gap_bytes;
};
struct kafka_frame kafka_frame_begin(struct kafka_writer *w);
void kafka_frame_end(struct kafka_writer *w, struct kafka_frame frame);

struct kafka_request_header {
    int16_t api_key, api_version;
    int32_t correlation_id;
    struct slice client_id; /* p == NULL: null */
};
/* Reads the header behind the frame's size, with its tags when the version is flexible. An API without a table is read as one without
 * flexible versions: then the body is not to be read. */
enum err kafka_request_header_read(struct kafka_reader *r, struct kafka_request_header *out) WARN_UNUSED;
void kafka_request_header_write(struct kafka_writer *w, const struct kafka_request_header *h);
/* Of the answer to a request of this API and version. That to ApiVersions never has tags: its reader may be older (KIP-511). */
void kafka_response_header_write(struct kafka_writer *w, int16_t api_key, int16_t api_version, int32_t correlation_id);
enum err kafka_response_header_read(struct kafka_reader *r, int16_t api_key, int16_t api_version, int32_t *correlation_id) WARN_UNUSED;

/* ---- schemas: what the tables become ----------------------------------------------------------------------------------- */

enum kafka_type {
    KAFKA_TYPE_BOOL,
    KAFKA_TYPE_INT8,
    KAFKA_TYPE_INT16,
    KAFKA_TYPE_UINT16,
    KAFKA_TYPE_INT32,
    KAFKA_TYPE_UINT32,
    KAFKA_TYPE_INT64,
    KAFKA_TYPE_FLOAT64,
    KAFKA_TYPE_UUID,
    KAFKA_TYPE_STRING,
    KAFKA_TYPE_BYTES,
    KAFKA_TYPE_RECORDS, /* struct kafka_records; the records of requests are KAFKA_TYPE_BYTES */
    KAFKA_TYPE_STRUCT,
};

struct kafka_schema;

struct kafka_field {
    const struct kafka_schema *of;   /* KAFKA_TYPE_STRUCT: which */
    uint16_t offset;                 /* in the C struct; an array's count is right behind its pointer */
    uint8_t type;                    /* enum kafka_type; of an array: of its elements */
    bool array;
    int8_t first, last;              /* the versions that have it */
    int8_t null_first, null_last;    /* those in which it may be null; first > last: none */
    int8_t tag;                      /* -1: an ordinary field */
};

/* One struct of a message. Ordinary fields stand in wire order, tagged ones after them in the order of their tags. */
struct kafka_schema {
    const struct kafka_field *fields;
    uint16_t fields_n, tagged_n;
    uint16_t size;        /* of the C struct */
    const void *defaults; /* such a struct, with every field at its default */
    const uint8_t *least; /* for each version from `first`: the fewest bytes that it is encoded in */
    int16_t first, last;  /* versions of the message */
    int16_t flexible;     /* the first flexible one, or KAFKA_NEVER */
    const char *name;     /* of the message, for people */
};

struct kafka_api {
    int16_t key, first, last, flexible;
    const char *name;
    const struct kafka_schema *request, *response;
};
extern const struct kafka_api kafka_apis[]; /* by key, ascending */
extern const size_t kafka_apis_n;
extern const struct kafka_schema *const kafka_record_schemas[];
extern const size_t kafka_record_schemas_n;
/* The API of a key, or NULL: it has no table. */
const struct kafka_api *kafka_api_find(int16_t key);

/* What kafka_X_init(), kafka_X_read() and kafka_X_write() do, for any message. Reading a version that the table has not is ERR_UNSUPPORTED;
 * writing one is a programmer's error. Bytes left behind a message are the caller's to judge. After an error `out` holds what was read. */
void kafka_schema_init(const struct kafka_schema *s, void *m);
enum err kafka_schema_read(const struct kafka_schema *s, struct kafka_reader *r, int16_t version, struct arena *a, void *out) WARN_UNUSED;
void kafka_schema_write(const struct kafka_schema *s, struct kafka_writer *w, int16_t version, const void *m);
/* Every field is equal; floats are compared by their bits, records without what is outside. */
bool kafka_schema_equal(const struct kafka_schema *s, const void *a, const void *b);

#include "kafka_msg.h"

#endif
