/* etcd.h - the messages of etcd's v3 API: bytes to structs and back.
 *
 *     etcd/etcd.proto -- protoc-c, at build time --> etcd.pb-c.h (structs, X__init), etcd.pb-c.c (descriptors)
 *
 * protobuf-c does the coding; what is here gives it what it lacks. It allocates field by field: here from an arena, whose bytes are
 * counted, so that a message that unfolds into too much is refused. It follows nested messages as deep as they go: here their depth is
 * measured before, without a stack. Its names are those of the specification behind "Etcd__"; `base` of each struct is what is passed
 * around as ProtobufCMessage.
 *
 * Not here: gRPC's frames (grpc.h), what a message means, and the texts of errors (those of the store's: ctl.h).
 */
#ifndef ETCD_H
#define ETCD_H

#include "etcd.pb-c.h"
#include "grpc.h"

#define ETCD_REQUEST_BYTES_MAX (1536u * 1024)               /* etcd's --max-request-bytes: what a put or a transaction may be */
#define ETCD_FRAME_BYTES_MAX (ETCD_REQUEST_BYTES_MAX + 512u * 1024) /* and what gRPC takes before anybody looks at it */
#define ETCD_DECODE_BYTES_MAX (16u * 1024 * 1024)           /* arena bytes of one message that is read */
#define ETCD_NESTING_MAX 32                                 /* messages within messages; a transaction in a transaction is two */

/* Reads a message: etcd_read(&etcd__put_request__descriptor, ...). Everything it has is in the arena, strings and bytes are copies.
 * ERR_SYNTAX: no such message; ERR_LIMIT: deeper than ETCD_NESTING_MAX, or larger than bytes_max when read. Unknown fields are passed over
 * (they are kept by protobuf-c, and would be written again). */
enum err etcd_read_max(const ProtobufCMessageDescriptor *d, struct arena *a, struct slice bytes, size_t bytes_max, ProtobufCMessage **out) WARN_UNUSED;
static inline enum err etcd_read(const ProtobufCMessageDescriptor *d, struct arena *a, struct slice bytes, ProtobufCMessage **out)
{
    return etcd_read_max(d, a, bytes, ETCD_DECODE_BYTES_MAX, out);
}
/* Writes a message at the end of b. */
void etcd_write(const ProtobufCMessage *m, struct buf *b);
/* The same as a frame of gRPC. */
void etcd_write_frame(const ProtobufCMessage *m, struct buf *b);
size_t etcd_bytes(const ProtobufCMessage *m); /* that it takes when written */

static inline struct slice etcd_slice(ProtobufCBinaryData d) { return slice_of((const char *)d.data, d.len); }
/* Borrows: s has to stay until the message is written, and is not written to. */
static inline ProtobufCBinaryData etcd_data(struct slice s)
{
    union {
        const char *from;
        uint8_t *to;
    } p = {.from = s.p};
    return (ProtobufCBinaryData){.len = s.n, .data = p.to};
}

#endif
