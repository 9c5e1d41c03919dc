/* grpc_health.c - HealthCheckRequest { string service = 1; } and HealthCheckResponse { ServingStatus status = 1; }.
 *
 * A field of Protocol Buffers is a varint key, number << 3 | type, and its value. Fields that are not known are passed over,
 * as the specification asks; of a field that comes twice the last counts; a field that is absent is 0.
 */
#include "grpc_health.h"

#define FRAME_HEAD 5
#define VARINT_BYTES_MAX 10
enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

size_t grpc_health_request(struct slice service, char out[GRPC_HEALTH_REQUEST_MAX])
{
    size_t n = MIN(service.n, (size_t)GRPC_HEALTH_SERVICE_MAX), at = FRAME_HEAD;
    if (n) { /* proto3: an empty string is left out */
        out[at++] = 1 << 3 | WIRE_BYTES;
        if (n >= 0x80)
            out[at++] = (char)(0x80 | (n & 0x7f));
        out[at++] = (char)(n >= 0x80 ? n >> 7 : n);
        memcpy(out + at, service.p, n);
        at += n;
    }
    size_t length = at - FRAME_HEAD;
    out[0] = out[1] = out[2] = 0;
    out[3] = (char)(length >> 8);
    out[4] = (char)(length & 0xff);
    return at;
}

static bool varint(struct slice *s, uint64_t *out)
{
    *out = 0;
    for (uint32_t i = 0; i < VARINT_BYTES_MAX && s->n; i++) {
        uint8_t b = (uint8_t)*s->p;
        s->p++;
        s->n--;
        *out |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80))
            return true;
    }
    return false;
}

static bool skip(struct slice *s, uint64_t n)
{
    if (n > s->n)
        return false;
    s->p += n;
    s->n -= n;
    return true;
}

static bool field(struct slice *s, uint64_t *status)
{
    uint64_t key, value;
    if (!varint(s, &key) || key >> 3 == 0)
        return false;
    switch (key & 7) {
    case WIRE_VARINT:
        if (!varint(s, &value))
            return false;
        if (key >> 3 == 1)
            *status = value;
        return true;
    case WIRE_64: return skip(s, 8);
    case WIRE_32: return skip(s, 4);
    case WIRE_BYTES: return varint(s, &value) && skip(s, value);
    default: return false; /* groups went with proto2 */
    }
}

enum err grpc_health_response(struct slice frame, uint64_t *status)
{
    uint64_t found = GRPC_SERVING_UNKNOWN;
    const uint8_t *p = (const uint8_t *)frame.p;
    if (frame.n < FRAME_HEAD || p[0] > 1)
        return ERR_SYNTAX;
    if (p[0] == 1)
        return ERR_UNSUPPORTED;
    uint32_t length = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    if (length != frame.n - FRAME_HEAD)
        return ERR_SYNTAX;
    struct slice rest = slice_of(frame.p + FRAME_HEAD, length);
    while (rest.n)
        if (!field(&rest, &found))
            return ERR_SYNTAX;
    *status = found;
    return OK;
}

const char *grpc_serving_text(uint64_t status)
{
    static const char *const names[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
    return status < COUNT_OF(names) ? names[status] : "an unknown status";
}
