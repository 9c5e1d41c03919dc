/* grpc_health.h - the two messages of grpc.health.v1.Health/Check, framed as gRPC frames them.
 *
 * Sources: "GRPC Health Checking Protocol" (health.proto), "gRPC over HTTP2" (Length-Prefixed-Message), the wire format of
 * Protocol Buffers. A frame is a byte that tells whether it is compressed, four bytes of length, and the message.
 */
#ifndef GRPC_HEALTH_H
#define GRPC_HEALTH_H

#include "base.h"

#define GRPC_HEALTH_PATH "/grpc.health.v1.Health/Check"
#define GRPC_HEALTH_SERVICE_MAX 253 /* bytes of a service's name, as manifests bound it */
#define GRPC_HEALTH_REQUEST_MAX (5 + 3 + GRPC_HEALTH_SERVICE_MAX)

/* The frame of a HealthCheckRequest; service may be empty (the whole server), a longer one is cut. Returns its bytes. */
size_t grpc_health_request(struct slice service, char out[GRPC_HEALTH_REQUEST_MAX]);

/* HealthCheckResponse.ServingStatus */
enum grpc_serving { GRPC_SERVING_UNKNOWN, GRPC_SERVING, GRPC_NOT_SERVING, GRPC_SERVICE_UNKNOWN };
/* The status in one whole frame. ERR_SYNTAX: it is none. ERR_UNSUPPORTED: compressed, though nobody asked for that. */
enum err grpc_health_response(struct slice frame, uint64_t *status) WARN_UNUSED;
const char *grpc_serving_text(uint64_t status); /* "SERVING", ...; "an unknown status" */

#endif
