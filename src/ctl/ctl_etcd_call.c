/* ctl_etcd_call.c - a call of ctl's on its way to a member of the cluster, and what becomes of it.
 *
 *     rcall_new() --> waiting --> sent --answer--> done()
 *                      ^  ^        |  '--not done: refused, or never seen-- resting --REST_MS--.
 *                      |  '--------+----a read, whatever became of it------------------'       |
 *                      '-----------------------------------------------------------------------'
 *     deadline: of a call that was not sent, and of a read: CTL_UNAVAILABLE; of a change that was sent: CTL_UNKNOWN
 *
 * A call that may change something is sent again only when it is certain that nothing was done: the member never saw it (HTTP/2 says so), or refused it before
 * it looked at it. Everything else ends with CTL_UNKNOWN, at once. What only reads, and keep-alives, may be asked as often as one likes.
 *
 * Keep-alives share one stream, whose member answers them one after the other.
 */
#include "ctl_etcd_int.h"

#include <stdio.h>

#define DECODE_FACTOR 24         /* memory of an answer that is read, as a multiple of its bytes: a key with its numbers */

enum fate {
    FATE_DONE,                   /* with an error of its own */
    FATE_AGAIN,                  /* nothing was done: later, or elsewhere */
    FATE_LOST                    /* may have been done */
};

/* ---- ends ---- */

void rcall_free(struct rcall *rc)
{
    timer_clear(&rc->deadline);
    list_del(&rc->link);
    mem_free(rc->members);
    mem_free(rc);
}

static void rcall_unsend(struct rcall *rc)
{
    struct remote *r = rc->r;
    if (rc->sent) {
        r->sent_n--;
        r->sent_bytes -= rc->bytes;
    }
    rc->sent = false;
    list_del(&rc->link);
}

/* Its answer is in the call: tells. Both are gone then. */
static void rcall_done(struct rcall *rc)
{
    struct remote *r = rc->r;
    struct ctl_call *call = rc->call;
    rcall_unsend(rc);
    rcall_free(rc);
    r->calls_n--;
    counter_inc(&r->ctl.counters.calls);
    if (call->error != CTL_OK) counter_inc(&r->ctl.counters.calls_failed);
    if (call->error == CTL_UNKNOWN) counter_inc(&r->ctl.counters.calls_unknown);
    if (call->error != CTL_OK && !call->why[0]) call->why = ctl_error_text(call->error);
    call->done(call);
    remote_turn(r);
}

static void rcall_fail(struct rcall *rc, enum ctl_error e, const char *why)
{
    rc->call->error = e;
    rc->call->why = why;
    rc->call->revision = rc->r->revision;
    rcall_done(rc);
}

/* Back in line: at once, or after a rest. */
static void rcall_again(struct rcall *rc, bool rest)
{
    struct remote *r = rc->r;
    rcall_unsend(rc);
    counter_inc(&r->ctl.counters.calls_again);
    if (r->closing) {
        rcall_fail(rc, CTL_STOPPED, ctl_error_text(CTL_STOPPED));
        return;
    }
    if (rest) {
        list_push(&r->resting, &rc->link);
        if (!timer_is_set(&r->rest)) timer_set(r->loop, &r->rest, REST_MS / 2 + loop_random(r->loop) % REST_MS);
    } else {
        list_push_front(&r->waiting, &rc->link);
    }
    remote_turn(r);
}

void rcall_rested(struct timer *t)
{
    struct remote *r = CONTAINER_OF(t, struct remote, rest);
    while (!list_empty(&r->resting)) {
        struct list *last = r->resting.prev; /* in front of those that came meanwhile, in their order */
        list_del(last);
        list_push_front(&r->waiting, last);
    }
    remote_turn(r);
}

/* ---- what an end means ---- */

static bool text_begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* Refused by the token, in etcd's words: nothing was looked at. */
static bool end_wants_token(const struct rpc_end *end)
{
    return end->status == GRPC_UNAUTHENTICATED || strcmp(end->text, "etcdserver: revision of auth store is old") == 0 ||
           strcmp(end->text, "etcdserver: user name is empty") == 0;
}

/* Refused before anything was done (etcdserver's v3rpc interceptors, and raft before an entry is appended). */
static bool end_refused(const struct rpc_end *end)
{
    static const char *const texts[] = {"etcdserver: no leader", "etcdserver: not capable", "etcdserver: rpc not supported for learner", "raft proposal dropped",
                                        "etcdserver: raft proposal dropped"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        if (strcmp(end->text, texts[i]) == 0) return true;
    return false;
}

/* Statuses of HTTP are of somebody between us and a member, or of something that is no etcd (gRPC takes 404 for "not implemented"): 3xx and 4xx say that the request
 * was not taken, all else says nothing about what a member did. */
static enum fate fate_of_http(bool writes, const struct rpc_end *end, enum ctl_error *e)
{
    switch (end->http) {
    case 401: case 403: *e = CTL_PERMISSION_DENIED; return FATE_DONE;
    case 408: case 429: case 502: case 503: case 504: return FATE_LOST;
    default: *e = CTL_UNSUPPORTED; return writes && end->http / 100 != 3 && end->http / 100 != 4 ? FATE_LOST : FATE_DONE;
    }
}

static enum fate fate_of_status(bool writes, bool capped, const struct rpc_end *end, enum ctl_error *e)
{
    *e = msg_error(end->text);
    if (end_refused(end)) return FATE_AGAIN;
    if (text_begins(end->text, "grpc: received message larger than max")) *e = CTL_REQUEST_TOO_LARGE;
    if (text_begins(end->text, "grpc: trying to send message larger than max")) { /* an answer: what was asked is done */
        *e = CTL_REQUEST_TOO_LARGE;
        return writes ? FATE_LOST : FATE_DONE;
    }
    if (*e == CTL_NOSPACE && writes && !capped) return FATE_LOST;
    if (*e != CTL_OK && *e != CTL_UNKNOWN && *e != CTL_STOPPED && *e != CTL_UNAVAILABLE) return FATE_DONE;
    switch (end->status) {
    case GRPC_INVALID_ARGUMENT: case GRPC_OUT_OF_RANGE: case GRPC_NOT_FOUND: case GRPC_FAILED_PRECONDITION: case GRPC_ALREADY_EXISTS:
        *e = CTL_INVALID_ARGUMENT;
        return FATE_DONE;
    case GRPC_PERMISSION_DENIED: *e = CTL_PERMISSION_DENIED; return FATE_DONE;
    case GRPC_RESOURCE_EXHAUSTED: *e = CTL_TOO_MANY_REQUESTS; return FATE_DONE;
    case GRPC_UNIMPLEMENTED: *e = CTL_UNSUPPORTED; return FATE_DONE;
    default: return FATE_LOST; /* timed out, leader changed, stopped, and what we don't know */
    }
}

/* What became of a call that changes something, or does not: of one that reads nothing is ever lost. capped: it was sent when the alarm NOSPACE was known. */
static enum fate fate_of(bool writes, bool capped, const struct rpc_end *end, enum ctl_error *e)
{
    enum fate f;
    *e = CTL_OK;
    if (end->err == ERR_LIMIT) {
        *e = CTL_REQUEST_TOO_LARGE; /* its answer is */
        f = writes ? FATE_LOST : FATE_DONE;
    } else if (end->http && end->http != 200) {
        f = fate_of_http(writes, end, e);
    } else if (end->err != OK || end->status < 0) {
        f = end->unsent ? FATE_AGAIN : FATE_LOST;
    } else {
        f = fate_of_status(writes, capped, end, e);
    }
    return f == FATE_LOST && !writes ? FATE_AGAIN : f;
}

static void why_write(const struct remote *r, char out[WHY_MAX], const struct rpc_end *end)
{
    const struct rconn *c = end->conn;
    if (end->err == ERR_LIMIT)
        snprintf(out, WHY_MAX, "etcd at %s: the answer is larger than %llu bytes", c->at->authority, (unsigned long long)r->conf.answer_bytes_max);
    else if (end->http && end->http != 200)
        snprintf(out, WHY_MAX, "etcd at %s answers with HTTP status %u", c->at->authority, end->http);
    else if (end->err != OK)
        snprintf(out, WHY_MAX, "etcd at %s: the connection ended before the answer: %s", c->at->authority, err_text(end->err));
    else
        snprintf(out, WHY_MAX, "etcd at %s: %s (gRPC status %d)", c->at->authority, end->text, end->status);
}

/* ---- answers ---- */

static void disarm_next(struct rcall *rc, const Etcd__AlarmResponse *m)
{
    if (!rc->listed) {
        rc->listed = true;
        rc->members = mem_new(MEM_CTL, (m->n_alarms + 1) * sizeof *rc->members);
        for (size_t i = 0; i < m->n_alarms; i++)
            if (m->alarms[i]->alarm == ETCD__ALARM_TYPE__NOSPACE) rc->members[rc->members_n++] = m->alarms[i]->memberid;
    } else {
        rc->members_at++;
    }
    if (rc->members_at < rc->members_n) {
        rcall_again(rc, false);
        return;
    }
    rc->r->nospace = false;
    rcall_done(rc);
}

/* True: the answer is in the call. */
static bool rcall_read(struct rcall *rc, struct rconn *c, struct slice bytes, const ProtobufCMessage **m)
{
    struct remote *r = rc->r;
    struct ctl_call *call = rc->call;
    char why[WHY_MAX];
    arena_reset(&r->answer);
    enum err e = msg_answer(&r->answer, bytes, MAX(bytes.n * DECODE_FACTOR, ETCD_DECODE_BYTES_MAX), call, m);
    remote_revision(r, call->revision);
    if (call->revision == 0) call->revision = r->revision; /* some errors that are none have an empty header */
    if (e == OK) return true;
    snprintf(why, sizeof why, "etcd at %s sent an answer that can't be read: %s", c->at->authority, err_text(e));
    if (rc->writes) rcall_fail(rc, CTL_UNKNOWN, why);
    else rcall_fail(rc, CTL_UNSUPPORTED, why);
    return false;
}

static void rcall_answered(struct rcall *rc, struct rconn *c, const struct rpc_end *end)
{
    struct ctl_call *call = rc->call;
    const ProtobufCMessage *m;
    if (!rcall_read(rc, c, end->message, &m)) return;
    if (call->op.kind == CTL_RANGE && call->op.range.revision) counter_inc(&rc->r->ctl.counters.past_reads);
    if (call->op.kind == CTL_COMPACT) rc->r->compact = MAX(rc->r->compact, call->op.compact);
    if (call->op.kind == CTL_DISARM) disarm_next(rc, (const Etcd__AlarmResponse *)(const void *)m);
    else rcall_done(rc);
}

static void rcall_over(struct rpc *p, const struct rpc_end *end)
{
    struct rcall *rc = CONTAINER_OF(p, struct rcall, rpc);
    struct remote *r = rc->r;
    struct rconn *c = end->conn;
    enum ctl_error e;
    char why[WHY_MAX];
    if (end->err == OK && end->status == 0) {
        rcall_answered(rc, c, end);
        return;
    }
    why_write(r, why, end);
    if (end->err == OK && r->user && end_wants_token(end) && !rc->renewed) {
        rc->renewed = true;
        if (rc->token_turn == r->token_turn && c == r->conn) rconn_authenticate(c);
        rcall_again(rc, true);
        return;
    }
    switch (fate_of(rc->writes, rc->capped, end, &e)) {
    case FATE_DONE:
        rcall_fail(rc, end_wants_token(end) ? CTL_UNAUTHENTICATED : e, why);
        return;
    case FATE_AGAIN:
        if (end->status == GRPC_UNAVAILABLE && strcmp(end->text, ctl_error_text(CTL_UNAVAILABLE)) == 0 && c == r->conn) rconn_no_leader(c);
        rcall_again(rc, !end->unsent || c == r->conn);
        return;
    case FATE_LOST: rcall_fail(rc, CTL_UNKNOWN, why); return;
    }
}

/* ---- the stream of keep-alives ---- */

static void keep_message(struct rpc *p, struct slice message)
{
    struct remote *r = CONTAINER_OF(p, struct remote, keep);
    struct rconn *c = p->conn;
    const ProtobufCMessage *m;
    ProtobufCMessage *first;
    arena_reset(&r->asking);
    enum err e = etcd_read(&etcd__lease_keep_alive_response__descriptor, &r->asking, message, &first);
    int64_t id = e == OK ? ((const Etcd__LeaseKeepAliveResponse *)(void *)first)->id : 0;
    LIST_FOREACH(it, &r->keeps) {
        struct rcall *rc = CONTAINER_OF(it, struct rcall, link);
        if (e != OK || rc->call->op.lease.id != id) continue;
        if (rcall_read(rc, c, message, &m)) rcall_done(rc);
        return;
    }
    rpc_cancel(p); /* nobody asked for that: what comes next could be anybody's */
    rcalls_unkeep(r);
}

static void keep_over(struct rpc *p, const struct rpc_end *end)
{
    struct remote *r = CONTAINER_OF(p, struct remote, keep);
    struct rconn *c = end->conn;
    struct list now;
    char why[WHY_MAX];
    enum ctl_error e;
    why_write(r, why, end);
    if (c == r->conn && end->err == OK && strcmp(end->text, ctl_error_text(CTL_UNAVAILABLE)) == 0) rconn_no_leader(c);
    if (c == r->conn && end->err == OK && r->user && end_wants_token(end)) rconn_authenticate(c);
    bool done = end->status != 0 && !end_wants_token(end) && fate_of(false, false, end, &e) == FATE_DONE, rest = !end->unsent;
    list_take(&r->keeps, &now);
    while (!list_empty(&now)) { /* whose done() may begin the stream anew: end's text is gone then */
        struct rcall *rc = CONTAINER_OF(now.next, struct rcall, link);
        if (done) rcall_fail(rc, e, why);
        else rcall_again(rc, rest);
    }
}

static const struct rpc_method method_keep = {
    .path = "/etcdserverpb.Lease/LeaseKeepAlive", .stream = true, .message = keep_message, .over = keep_over};

void rcalls_unkeep(struct remote *r)
{
    struct list now;
    list_take(&r->keeps, &now);
    while (!list_empty(&now)) rcall_again(CONTAINER_OF(now.next, struct rcall, link), false);
}

static void keep_send(struct remote *r, struct rcall *rc)
{
    const ProtobufCMessage *m = msg_request(&r->asking, &rc->call->op);
    list_push(&r->keeps, &rc->link);
    if (rpc_on(&r->keep)) rpc_send(&r->keep, m);
    else rpc_begin(r->conn, &r->keep, &method_keep, m, 0);
}

/* ---- sending ---- */

static const struct rpc_method methods[CTL_KINDS] = {
    [CTL_RANGE] = {.path = "/etcdserverpb.KV/Range", .over = rcall_over},
    [CTL_PUT] = {.path = "/etcdserverpb.KV/Put", .over = rcall_over},
    [CTL_DELETE] = {.path = "/etcdserverpb.KV/DeleteRange", .over = rcall_over},
    [CTL_TXN] = {.path = "/etcdserverpb.KV/Txn", .over = rcall_over},
    [CTL_COMPACT] = {.path = "/etcdserverpb.KV/Compact", .over = rcall_over},
    [CTL_LEASE_GRANT] = {.path = "/etcdserverpb.Lease/LeaseGrant", .over = rcall_over},
    [CTL_LEASE_REVOKE] = {.path = "/etcdserverpb.Lease/LeaseRevoke", .over = rcall_over},
    [CTL_LEASE_INFO] = {.path = "/etcdserverpb.Lease/LeaseTimeToLive", .over = rcall_over},
    [CTL_LEASE_LIST] = {.path = "/etcdserverpb.Lease/LeaseLeases", .over = rcall_over},
    [CTL_DISARM] = {.path = "/etcdserverpb.Maintenance/Alarm", .over = rcall_over},
};

static uint64_t rcall_left_ms(const struct rcall *rc)
{
    uint64_t now_ms = loop_now_ms(rc->r->loop);
    return rc->deadline.due_ms > now_ms ? rc->deadline.due_ms - now_ms : 1;
}

static const ProtobufCMessage *rcall_message(struct rcall *rc, Etcd__AlarmRequest *alarm)
{
    if (rc->call->op.kind != CTL_DISARM) return msg_request(&rc->r->asking, &rc->call->op);
    etcd__alarm_request__init(alarm);
    alarm->alarm = ETCD__ALARM_TYPE__NOSPACE;
    alarm->action = ETCD__ALARM_REQUEST__ALARM_ACTION__GET;
    if (rc->listed) {
        alarm->action = ETCD__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
        alarm->memberid = rc->members[rc->members_at];
    }
    return &alarm->base;
}

static void rcall_send(struct rcall *rc)
{
    struct remote *r = rc->r;
    Etcd__AlarmRequest alarm;
    list_del(&rc->link);
    arena_reset(&r->asking);
    rc->sent = true;
    rc->bytes = 0;
    rc->sent_ms = loop_now_ms(r->loop);
    rc->capped = r->nospace;
    rc->token_turn = r->token_turn;
    r->sent_n++;
    if (rc->call->op.kind == CTL_LEASE_KEEP) {
        keep_send(r, rc);
        return;
    }
    const ProtobufCMessage *m = rcall_message(rc, &alarm);
    rc->bytes = etcd_bytes(m);
    r->sent_bytes += rc->bytes;
    list_push(&r->sent, &rc->link);
    rpc_begin(r->conn, &rc->rpc, &methods[rc->call->op.kind], m, rcall_left_ms(rc));
}

void rcalls_flush(struct remote *r)
{
    while (!list_empty(&r->waiting) && rconn_serves(r->conn) && r->sent_n < r->conf.sent_max && r->sent_bytes < SENT_BYTES_MAX &&
           http_cli_room(&r->conn->cli) > ROOM_RESERVED)
        rcall_send(CONTAINER_OF(r->waiting.next, struct rcall, link));
    if (!list_empty(&r->waiting) && rconn_serves(r->conn) && r->conn->cli.ending) rconn_hasten(r->conn);
}

/* Time is over. */
static void rcall_late(struct rcall *rc, enum ctl_error otherwise, const char *why)
{
    struct remote *r = rc->r;
    bool sent = rc->sent;
    if (rpc_on(&rc->rpc)) {
        rpc_cancel(&rc->rpc);
    } else if (sent) { /* its answer would be taken for that of a later one */
        rcall_unsend(rc);
        rpc_cancel(&r->keep);
        rcalls_unkeep(r);
    }
    rcall_fail(rc, sent && rc->writes ? CTL_UNKNOWN : otherwise, why);
}

void rcalls_of_term(struct remote *r, uint64_t before_ms)
{
    struct list now;
    char why[WHY_MAX];
    list_take(&r->sent, &now);
    while (!list_empty(&now)) {
        struct rcall *rc = CONTAINER_OF(now.next, struct rcall, link);
        list_del(&rc->link);
        list_push(&r->sent, &rc->link);
        if (rc->sent_ms >= before_ms || !r->conn || rc->rpc.conn != r->conn) continue; /* the owner may have closed the store meanwhile */
        snprintf(why, sizeof why, "etcd at %s: the leader changed, and there is no answer", r->conn->at->authority);
        rpc_cancel(&rc->rpc);
        if (rc->writes) rcall_fail(rc, CTL_UNKNOWN, why);
        else rcall_again(rc, false);
    }
    if (list_empty(&r->keeps) || CONTAINER_OF(r->keeps.next, struct rcall, link)->sent_ms >= before_ms) return;
    rpc_cancel(&r->keep);
    rcalls_unkeep(r);
}

/* A connection is left whose member is of no use to them: what only reads is asked elsewhere. */
void rcalls_elsewhere(struct remote *r, const struct rconn *c)
{
    LIST_FOREACH(it, &r->sent) {
        struct rcall *rc = CONTAINER_OF(it, struct rcall, link);
        if (rc->writes || rc->rpc.conn != c) continue;
        rpc_cancel(&rc->rpc);
        rcall_again(rc, false);
    }
}

static void rcall_time(struct timer *t)
{
    struct rcall *rc = CONTAINER_OF(t, struct rcall, deadline);
    struct remote *r = rc->r;
    char why[2 * WHY_MAX];
    const struct rconn *c = rpc_on(&rc->rpc) ? rc->rpc.conn : r->conn;
    if (rc->sent && c)
        snprintf(why, sizeof why, "etcd at %s has not answered within %u ms", c->at->authority, r->conf.request_ms);
    else
        snprintf(why, sizeof why, "no member of the etcd cluster has answered within %u ms%s%s", r->conf.request_ms, r->why[0] ? "; " : "", r->why);
    rcall_late(rc, r->trouble != CTL_OK ? r->trouble : CTL_UNAVAILABLE, why);
}

void rcall_new(struct remote *r, struct ctl_call *call)
{
    struct rcall *rc = mem_new(MEM_CTL, sizeof *rc);
    rc->r = r;
    rc->call = call;
    rc->writes = op_writes(&call->op);
    call->priv = rc;
    list_init(&rc->link);
    timer_init(&rc->deadline, rcall_time);
    timer_set(r->loop, &rc->deadline, r->conf.request_ms);
    list_push(&r->waiting, &rc->link);
}

void rcalls_stop(struct remote *r, bool sent)
{
    struct list *lists[] = {&r->waiting, &r->resting, &r->sent, &r->keeps}, now;
    for (size_t i = 0; i < (sent ? COUNT_OF(lists) : 2); i++) {
        list_take(lists[i], &now);
        while (!list_empty(&now)) rcall_late(CONTAINER_OF(now.next, struct rcall, link), CTL_STOPPED, ctl_error_text(CTL_STOPPED));
    }
}
