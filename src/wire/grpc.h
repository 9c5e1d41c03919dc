/* grpc.h - what gRPC puts around its messages on HTTP/2: frames, statuses, timeouts.
 *
 *     frame = compressed:uint8 (0 or 1), length:uint32, message        (the body, both ways: frames one behind the other)
 *
 * Source: grpc/doc/PROTOCOL-HTTP2.md. Message compression (grpc-encoding) is not offered here, so a compressed frame is one to be refused
 * with GRPC_UNIMPLEMENTED. The messages of the health service are in grpc_health.h.
 */
#ifndef GRPC_H
#define GRPC_H

#include "base.h"

enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
    GRPC_STATUS_COUNT
};

#define GRPC_FRAME_HEAD 5

/* Takes the first message off *bytes; msg lies in them. ERR_AGAIN: more bytes are needed, *bytes is untouched. ERR_LIMIT: it is longer than
 * bytes_max; msg.n says how long, as soon as its head is read. ERR_UNSUPPORTED: compressed. ERR_SYNTAX: neither compressed nor not. */
enum err grpc_frame_next(struct slice *bytes, uint32_t bytes_max, struct slice *msg) WARN_UNUSED;
/* Writing: the head goes in first, the message is added behind it, end puts its length in. Returns what end wants. */
size_t grpc_frame_begin(struct buf *b);
void grpc_frame_end(struct buf *b, size_t at);

/* grpc-timeout: up to 8 digits and one of H M S m u n. In milliseconds, rounded up, so that a timeout is never shorter than asked. */
enum err grpc_timeout_parse(struct slice text, uint64_t *timeout_ms) WARN_UNUSED;
/* grpc-message: bytes outside printable ASCII, and '%', are percent-encoded. */
void grpc_message_add(struct buf *b, struct slice text);
/* The reverse, in place in out[max], cut when it does not fit; what is no valid escape stays as it is. Returns bytes. */
size_t grpc_message_read(struct slice text, char *out, size_t max);

#endif
