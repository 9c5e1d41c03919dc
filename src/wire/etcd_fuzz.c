/* etcd_fuzz.c - etcd's messages from any bytes: what is read can be written, and from then on it stays the same.
 *
 * The first byte chooses the message. Requests come from clients, responses from a cluster that Weir is a client of.
 */
#include "etcd.h"

#define DECODE_BYTES_MAX (4u * 1024 * 1024)         /* so that one input takes little time */
#define AGAIN_BYTES_MAX (16 * DECODE_BYTES_MAX)     /* packed numbers may be written one by one */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const ProtobufCMessageDescriptor *const messages[] = {
    &etcd__range_request__descriptor, &etcd__put_request__descriptor, &etcd__delete_range_request__descriptor,
    &etcd__txn_request__descriptor, &etcd__compaction_request__descriptor, &etcd__watch_request__descriptor,
    &etcd__lease_grant_request__descriptor, &etcd__lease_time_to_live_request__descriptor, &etcd__alarm_request__descriptor,
    &etcd__authenticate_request__descriptor, &etcd__hash_kvrequest__descriptor, &etcd__range_response__descriptor,
    &etcd__txn_response__descriptor, &etcd__watch_response__descriptor, &etcd__lease_leases_response__descriptor,
    &etcd__member_list_response__descriptor, &etcd__status_response__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    const ProtobufCMessageDescriptor *d = messages[data[0] % COUNT_OF(messages)];
    struct arena a;
    ProtobufCMessage *m, *again;
    arena_init(&a, MEM_MISC, 65536);
    enum err e = etcd_read_max(d, &a, slice_of((const char *)data + 1, n - 1), DECODE_BYTES_MAX, &m);
    if (e == OK) {
        struct buf one = {0}, two = {0};
        etcd_write(m, &one);
        e = etcd_read_max(d, &a, buf_slice(&one), AGAIN_BYTES_MAX, &again);
        MUST(e == OK);
        etcd_write(again, &two);
        MUST(slice_eq(buf_slice(&one), buf_slice(&two)));
        buf_free(&one);
        buf_free(&two);
    } else {
        MUST(e == ERR_SYNTAX || e == ERR_LIMIT);
    }
    arena_fini(&a);
    struct slice rest = slice_of((const char *)data, n), msg;
    while (grpc_frame_next(&rest, ETCD_FRAME_BYTES_MAX, &msg) == OK)
        MUST(msg.p >= (const char *)data && msg.p + msg.n == rest.p);
    return 0;
}
