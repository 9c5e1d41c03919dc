/* etcd_node.c - the services that are about the server itself: Maintenance, Cluster, Auth, health.
 *
 * There is one member, which leads: the node. What belongs to a cluster of etcd (members that come and go, snapshots, hashes to compare) is refused
 * by name in etcd_methods.def. Auth is off, as etcd says it: identities are not the store's.
 */
#include "etcd_int.h"

#define AS(T, m) ((const T *)(const void *)(m))

void etcd_status(struct etcd_call *call, const ProtobufCMessage *m)
{
    struct etcd_api *a = call->api;
    struct ctl_status s;
    Etcd__StatusResponse out = ETCD__STATUS_RESPONSE__INIT;
    char version[] = ETCD_VERSION, *errors[2];
    ctl_status(a->ctl, &s);
    out.header = etcd_header(call, s.revision);
    out.version = version;
    out.dbsize = (int64_t)s.bytes;
    out.dbsizeinuse = (int64_t)s.bytes_used;
    out.leader = a->conf.member_id;
    out.raftindex = out.raftappliedindex = (uint64_t)s.revision;
    out.raftterm = 1;
    out.errors = errors;
    if (s.nospace) /* as etcd prints an alarm */
        errors[out.n_errors++] = arena_printf(&call->mem, "memberID:%llu alarm:NOSPACE ", (unsigned long long)a->conf.member_id);
    if (s.trouble)
        errors[out.n_errors++] = arena_printf(&call->mem, "%s", s.why ? s.why : ctl_error_text(s.trouble));
    etcd_answer(call, &out.base);
}

static void alarm_answer(struct etcd_call *call, bool nospace)
{
    Etcd__AlarmResponse out = ETCD__ALARM_RESPONSE__INIT;
    Etcd__AlarmMember one = ETCD__ALARM_MEMBER__INIT, *all[] = {&one};
    one.memberid = call->api->conf.member_id;
    one.alarm = ETCD__ALARM_TYPE__NOSPACE;
    out.header = etcd_header(call, etcd_revision(call->api));
    out.alarms = all;
    out.n_alarms = nospace;
    etcd_answer(call, &out.base);
}

static void disarm_done(struct etcd_call *call)
{
    if (call->ctl.error)
        etcd_fail_ctl(call);
    else
        alarm_answer(call, call->number != 0); /* those that were taken back */
}

void etcd_alarm(struct etcd_call *call, const ProtobufCMessage *m)
{
    const Etcd__AlarmRequest *q = AS(Etcd__AlarmRequest, m);
    struct ctl_status s;
    ctl_status(call->api->ctl, &s);
    bool ours = q->memberid == 0 || q->memberid == call->api->conf.member_id;
    bool about = ours && (q->alarm == ETCD__ALARM_TYPE__NOSPACE || q->alarm == ETCD__ALARM_TYPE__NONE);
    switch (q->action) {
    case ETCD__ALARM_REQUEST__ALARM_ACTION__GET: alarm_answer(call, about && s.nospace); break;
    case ETCD__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE:
        if (!about || q->alarm == ETCD__ALARM_TYPE__NONE) {
            alarm_answer(call, false);
            return;
        }
        if (!etcd_may_all(call->conn, ETCD_MAY_WRITE)) {
            etcd_deny(call);
            return;
        }
        call->number = s.nospace;
        call->ctl.op = (struct ctl_op){.kind = CTL_DISARM};
        etcd_ask(call, disarm_done);
        break;
    default: etcd_fail(call, GRPC_UNIMPLEMENTED, "weir: an alarm can't be raised from outside"); break;
    }
}

/* The file gives space back by itself as history is compacted. */
void etcd_defragment(struct etcd_call *call, const ProtobufCMessage *m)
{
    Etcd__DefragmentResponse out = ETCD__DEFRAGMENT_RESPONSE__INIT;
    out.header = etcd_header(call, etcd_revision(call->api));
    etcd_answer(call, &out.base);
}

void etcd_member_list(struct etcd_call *call, const ProtobufCMessage *m)
{
    struct etcd_api *a = call->api;
    Etcd__MemberListResponse out = ETCD__MEMBER_LIST_RESPONSE__INIT;
    Etcd__Member one = ETCD__MEMBER__INIT, *all[] = {&one};
    char *urls[] = {arena_strdup(&call->mem, a->conf.client_url)};
    one.id = a->conf.member_id;
    one.name = arena_strdup(&call->mem, a->conf.name);
    one.clienturls = urls;
    one.n_clienturls = 1;
    out.header = etcd_header(call, etcd_revision(a));
    out.members = all;
    out.n_members = 1;
    etcd_answer(call, &out.base);
}

void etcd_authenticate(struct etcd_call *call, const ProtobufCMessage *m)
{
    etcd_fail(call, GRPC_FAILED_PRECONDITION, "etcdserver: authentication is not enabled");
}

/* grpc.health.v1.HealthCheckResponse has one field, status = 1: 1 SERVING, 2 NOT_SERVING. In bytes it is what a LeaseStatus with that id is. */
void etcd_health(struct etcd_call *call, const ProtobufCMessage *m)
{
    struct ctl_status s;
    Etcd__LeaseStatus out = ETCD__LEASE_STATUS__INIT;
    ctl_status(call->api->ctl, &s);
    out.id = s.trouble ? 2 : 1;
    etcd_answer(call, &out.base);
}
