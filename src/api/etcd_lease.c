/* etcd_lease.c - the service Lease.
 *
 * LeaseKeepAlive is a stream of questions, one lease each, answered in their order: the next one is taken up when the one before it is answered. A
 * lease that is not there (any more) is answered with TTL 0, and with TTL -1 by LeaseTimeToLive; only LeaseRevoke calls it an error.
 */
#include "etcd_int.h"

#define AS(T, m) ((const T *)(const void *)(m))

static struct ctl_lease *lease_op(struct etcd_call *call, enum ctl_kind kind, int64_t id)
{
    call->ctl.op = (struct ctl_op){.kind = kind, .lease = {.id = id}};
    return &call->ctl.op.lease;
}

static void grant_done(struct etcd_call *call)
{
    Etcd__LeaseGrantResponse m = ETCD__LEASE_GRANT_RESPONSE__INIT;
    if (call->ctl.error) {
        etcd_fail_ctl(call);
        return;
    }
    m.header = etcd_header(call, call->ctl.revision);
    m.id = call->ctl.result.lease.id;
    m.ttl = call->ctl.result.lease.ttl_s;
    etcd_answer(call, &m.base);
}

void etcd_lease_grant(struct etcd_call *call, const ProtobufCMessage *m)
{
    lease_op(call, CTL_LEASE_GRANT, AS(Etcd__LeaseGrantRequest, m)->id)->ttl_s = AS(Etcd__LeaseGrantRequest, m)->ttl;
    etcd_ask(call, grant_done);
}

static void revoke_done(struct etcd_call *call)
{
    Etcd__LeaseRevokeResponse m = ETCD__LEASE_REVOKE_RESPONSE__INIT;
    if (call->ctl.error) {
        etcd_fail_ctl(call);
        return;
    }
    m.header = etcd_header(call, call->ctl.revision);
    etcd_answer(call, &m.base);
}

void etcd_lease_revoke(struct etcd_call *call, const ProtobufCMessage *m)
{
    lease_op(call, CTL_LEASE_REVOKE, AS(Etcd__LeaseRevokeRequest, m)->id);
    etcd_ask_lease(call, revoke_done);
}

static void keep_done(struct etcd_call *call)
{
    Etcd__LeaseKeepAliveResponse m = ETCD__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    if (call->ctl.error && call->ctl.error != CTL_LEASE_NOT_FOUND) {
        etcd_fail_ctl(call);
        return;
    }
    m.header = etcd_header(call, call->ctl.revision);
    m.id = call->ctl.op.lease.id;
    m.ttl = call->ctl.error ? 0 : call->ctl.result.lease.ttl_s;
    etcd_stream_send(call, &m.base);
    call->held = false;
    etcd_stream_next(call);
}

void etcd_lease_keep(struct etcd_call *call, const ProtobufCMessage *m)
{
    call->held = true;
    lease_op(call, CTL_LEASE_KEEP, AS(Etcd__LeaseKeepAliveRequest, m)->id);
    etcd_ask_lease(call, keep_done);
}

static void ttl_done(struct etcd_call *call)
{
    const struct ctl_lease_result *r = &call->ctl.result.lease;
    Etcd__LeaseTimeToLiveResponse m = ETCD__LEASE_TIME_TO_LIVE_RESPONSE__INIT;
    if (call->ctl.error && call->ctl.error != CTL_LEASE_NOT_FOUND) {
        etcd_fail_ctl(call);
        return;
    }
    for (size_t i = 0; !call->ctl.error && i < r->keys_n; i++)
        if (!etcd_may(call->conn, r->keys[i], SLICE(""), ETCD_MAY_READ)) {
            etcd_deny(call);
            return;
        }
    m.header = etcd_header(call, call->ctl.revision);
    m.id = call->ctl.op.lease.id;
    m.ttl = -1;
    if (!call->ctl.error) {
        m.ttl = r->ttl_s;
        m.grantedttl = r->granted_s;
        m.keys = arena_alloc(&call->mem, (r->keys_n + 1) * sizeof *m.keys);
        m.n_keys = r->keys_n;
        for (size_t i = 0; i < r->keys_n; i++)
            m.keys[i] = etcd_data(r->keys[i]);
    }
    etcd_answer(call, &m.base);
}

void etcd_lease_ttl(struct etcd_call *call, const ProtobufCMessage *m)
{
    lease_op(call, CTL_LEASE_INFO, AS(Etcd__LeaseTimeToLiveRequest, m)->id)->keys = AS(Etcd__LeaseTimeToLiveRequest, m)->keys;
    etcd_ask(call, ttl_done);
}

static void list_done(struct etcd_call *call)
{
    const struct ctl_lease_result *r = &call->ctl.result.lease;
    Etcd__LeaseLeasesResponse m = ETCD__LEASE_LEASES_RESPONSE__INIT;
    if (call->ctl.error) {
        etcd_fail_ctl(call);
        return;
    }
    m.header = etcd_header(call, call->ctl.revision);
    m.leases = arena_alloc(&call->mem, (r->ids_n + 1) * sizeof *m.leases);
    m.n_leases = r->ids_n;
    Etcd__LeaseStatus *each = arena_alloc(&call->mem, (r->ids_n + 1) * sizeof *each);
    for (size_t i = 0; i < r->ids_n; i++) {
        etcd__lease_status__init(&each[i]);
        each[i].id = r->ids[i];
        m.leases[i] = &each[i];
    }
    etcd_answer(call, &m.base);
}

void etcd_lease_list(struct etcd_call *call, const ProtobufCMessage *m)
{
    lease_op(call, CTL_LEASE_LIST, 0);
    if (etcd_may_all(call->conn, ETCD_MAY_READ)) /* who knows an id may keep it alive */
        etcd_ask(call, list_done);
    else
        etcd_deny(call);
}
