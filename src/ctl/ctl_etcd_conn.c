/* ctl_etcd_conn.c - the connection to one member of the cluster, and which member that is.
 *
 *     remote_dial() --> DIAL --> [AUTH] --> GREET --> READY <--> LEADERLESS          any of them: fails --> the next endpoint
 *                                 ^___token refused___|                                gently: LEAVING --last call over--> CLOSED
 *
 * The pulse. A member is asked for its Status when the connection stands, and every pulse_ms from then on. So a peer that is gone without a word (half-open,
 * stopped, on the other side of a cut) is known by its silence, a member without a leader by its own word, and the store's size, revision and alarm are at
 * hand. PING of HTTP/2 would show less, and gRPC's servers end a connection whose client sends them more often than every few seconds.
 *
 * Attempts. Endpoints are tried one after the other, at once while there is one that was not tried since a member was well; after that with a pause
 * that doubles, between half and all of it by chance. The first round is a quick one (DIAL_FIRST_MS for each, then twice that, up to dial_ms), so that a member that
 * hangs costs little. A member that answers for another cluster than the first one that served is refused: revisions
 * of two clusters have nothing to do with each other.
 */
#include "ctl_etcd_int.h"

#include <stdio.h>

#define HASTE_MS 1 /* not in this turn: a connection that broke has told its calls first */

static const struct rpc_method method_authenticate, method_status;

/* ---- ends ---- */

static void rconn_hang_up(struct rconn *c)
{
    c->state = RCONN_CLOSED;
    c->close = true;
    timer_clear(&c->timer);
    remote_turn(c->r);
}

static void rconn_calm(struct rconn *c)
{
    if (c->state == RCONN_LEAVING && list_empty(&c->rpcs)) rconn_hang_up(c);
}

/* It is no longer the one that calls go to: what is the store's own ends, calls may end or are cut with it. */
static void rconn_leave(struct rconn *c, bool gently)
{
    struct remote *r = c->r;
    if (r->conn == c) {
        r->conn = NULL;
        rwatches_away(r);
        rpc_cancel(&r->keep);
        rcalls_unkeep(r);
    }
    rpc_cancel(&c->ask);
    timer_clear(&c->timer);
    c->state = RCONN_LEAVING;
    if (!gently) rconn_hang_up(c);
    rconn_calm(c);
    remote_turn(r);
}

void rconn_fail(struct rconn *c, bool gently, const char *fmt, ...)
{
    struct remote *r = c->r;
    char text[WHY_MAX / 2];
    va_list ap;
    if (c->state >= RCONN_LEAVING) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(r->why, sizeof r->why, "etcd at %s %s", c->at->authority, text);
    if (!c->greeted) {
        counter_inc(&r->ctl.counters.connects_failed);
    } else {
        log_warn("ctl", "%s: the control store goes to another member", r->why);
        r->lost_member = c->member_id;
        r->lost_ms = loop_now_ms(r->loop);
    }
    r->trouble = CTL_UNAVAILABLE;
    rconn_leave(c, gently);
}

void rconn_lost(struct rconn *c, enum err e)
{
    const char *tls = e == ERR_TLS ? stream_tls_error(http_cli_stream(&c->cli)) : "";
    if (c->state == RCONN_CLOSED) return;
    if (c->state < RCONN_LEAVING) rconn_fail(c, false, "%s: %s", c->greeted ? "is lost" : "can't be reached", *tls ? tls : err_text(e));
    rconn_hang_up(c);
}

void rconn_stop(struct rconn *c)
{
    if (c->state < RCONN_LEAVING) rconn_leave(c, false);
    else if (c->state == RCONN_LEAVING) rconn_hang_up(c);
}

void rconn_released(struct rconn *c)
{
    struct remote *r = c->r;
    MUST(list_empty(&c->rpcs));
    timer_clear(&c->timer);
    list_del(&c->link);
    r->conns_n--;
    remote_turn(r);
    mem_free(c);
}

/* Closing calls back for all that is under way: only from here. */
void rconns_turn(struct remote *r)
{
    LIST_FOREACH(it, &r->conns) {
        struct rconn *c = CONTAINER_OF(it, struct rconn, link);
        rconn_calm(c);
        if (!c->close) continue;
        c->close = false;
        http_cli_close(&c->cli);
    }
}

/* ---- what a member says ---- */

/* True: the header is of our cluster. */
static bool rconn_header(struct rconn *c, const Etcd__ResponseHeader *h)
{
    struct remote *r = c->r;
    if (!h) {
        rconn_fail(c, false, "sent an answer without a header: it is no etcd");
        return false;
    }
    if (r->cluster_id && h->cluster_id != r->cluster_id) {
        rconn_fail(c, false, "belongs to another cluster (%llx) than the members before it (%llx)", (unsigned long long)h->cluster_id,
                   (unsigned long long)r->cluster_id);
        return false;
    }
    r->cluster_id = h->cluster_id;
    remote_revision(r, h->revision);
    return true;
}

/* Whether the answer to a question for progress comes in order with the events: not before 3.4.25 and 3.5.8 (etcd's issue 15220). */
static bool version_marks(const char *text)
{
    uint64_t v[3] = {0};
    struct slice rest = slice_cstr(text);
    for (int i = 0; i < 3; i++) {
        struct slice part = slice_cut(rest, '.', &rest);
        while (part.n && (part.p[part.n - 1] < '0' || part.p[part.n - 1] > '9')) part.n--;
        if (slice_u64(part, 1000000, &v[i]) != OK) return false;
    }
    return v[0] > 3 || (v[0] == 3 && (v[1] > 5 || (v[1] == 5 && v[2] >= 8) || (v[1] == 4 && v[2] >= 25)));
}

static void remote_note(struct remote *r, const Etcd__StatusResponse *m)
{
    r->bytes = m->dbsize > 0 ? (uint64_t)m->dbsize : 0;
    r->bytes_used = m->dbsizeinuse > 0 ? (uint64_t)m->dbsizeinuse : 0;
    r->nospace = false;
    for (size_t i = 0; i < m->n_errors; i++) r->nospace |= strstr(m->errors[i], "NOSPACE") != NULL;
    r->mark_trusted = version_marks(m->version);
}

/* Whether it knows a leader, and not just the one that is gone: what it sent there would be lost, and nobody would be told for seconds. When only our way to that one
 * is gone, the time for which this is believed is over soon. */
static bool rconn_is_led(const struct rconn *c, const Etcd__StatusResponse *m)
{
    const struct remote *r = c->r;
    bool gone = m->leader == r->lost_member && m->leader != c->member_id && loop_now_ms(r->loop) - r->lost_ms < r->conf.leaderless_ms;
    return m->leader && !gone;
}

static void rconn_serve(struct rconn *c)
{
    struct remote *r = c->r;
    c->state = RCONN_READY;
    r->trouble = CTL_OK;
    rwatches_ready(r);
    remote_turn(r);
}

/* The first Status. */
static void rconn_greeted(struct rconn *c, const Etcd__StatusResponse *m)
{
    struct remote *r = c->r;
    if (m->islearner || !m->leader) {
        rconn_fail(c, false, m->islearner ? "is a learner" : "has no leader");
        return;
    }
    remote_note(r, m);
    counter_inc(&r->ctl.counters.connects);
    log_info("ctl", "the control store is served by etcd %s at %s", m->version, c->at->authority);
    c->greeted = true;
    c->member_id = m->header->member_id;
    c->term = m->header->raft_term;
    timer_set(r->loop, &c->timer, r->conf.pulse_ms);
    c->state = RCONN_READY;
    if (rconn_is_led(c, m)) rconn_serve(c);
    else rconn_no_leader(c);
}

/* Another leader than before: calls that were sent before may have been on their way to the old one, and nobody answers them then before their time is over. Those
 * that were not lost are answered soon. */
static void rconn_term(struct rconn *c, uint64_t term)
{
    uint64_t now_ms = loop_now_ms(c->r->loop);
    if (term > c->term) {
        c->term = term;
        c->term_ms = now_ms;
        timer_set(c->r->loop, &c->timer, MIN(c->r->conf.pulse_ms, TERM_GRACE_MS));
    } else if (c->term_ms && now_ms - c->term_ms >= TERM_GRACE_MS) {
        rcalls_of_term(c->r, c->term_ms);
        c->term_ms = 0;
    }
}

static void rconn_pulse_heard(struct rconn *c, const Etcd__StatusResponse *m)
{
    struct remote *r = c->r;
    bool led = rconn_is_led(c, m);
    remote_note(r, m);
    rconn_term(c, m->header->raft_term); /* may tell calls, whose owners submit others: m is gone then */
    if (!led) {
        rconn_no_leader(c);
    } else {
        r->rounds = 0;
        r->round_left = (uint32_t)r->peers_n;
        if (c->state == RCONN_LEADERLESS) rconn_serve(c);
        rwatches_tick(r);
    }
}

static void status_over(struct rpc *p, const struct rpc_end *end)
{
    struct rconn *c = CONTAINER_OF(p, struct rconn, ask);
    struct remote *r = c->r;
    ProtobufCMessage *m;
    if (c->state >= RCONN_LEAVING) return;
    if (end->err != OK || end->status != 0) {
        if (end->err != OK) rconn_lost(c, end->err);
        else if (end->status == GRPC_UNAUTHENTICATED && r->user && c->greeted) rconn_authenticate(c);
        else rconn_fail(c, false, "does not tell its status: %s", end->text);
        return;
    }
    arena_reset(&r->asking);
    if (etcd_read(&etcd__status_response__descriptor, &r->asking, end->message, &m) != OK) {
        rconn_fail(c, false, "sent a status that can't be read");
        return;
    }
    const Etcd__StatusResponse *status = (const Etcd__StatusResponse *)(void *)m;
    if (!rconn_header(c, status->header)) return;
    if (c->state == RCONN_GREET) rconn_greeted(c, status);
    else rconn_pulse_heard(c, status);
}

static void rconn_ask_status(struct rconn *c)
{
    Etcd__StatusRequest m = ETCD__STATUS_REQUEST__INIT;
    if (rpc_on(&c->ask)) return;
    c->asked_ms = loop_now_ms(c->r->loop);
    rpc_begin(c, &c->ask, &method_status, &m.base, 0);
}

static const struct rpc_method method_status = {.path = "/etcdserverpb.Maintenance/Status", .plain = true, .over = status_over};

/* ---- who we are ---- */

static void token_set(struct remote *r, const char *token)
{
    mem_free(r->token);
    r->token = mem_strdup(MEM_CTL, token);
    r->token_turn++;
}

static void rconn_greet(struct rconn *c)
{
    if (c->greeted) {
        rconn_serve(c);
        return;
    }
    c->state = RCONN_GREET;
    rconn_ask_status(c);
}

static void authenticate_over(struct rpc *p, const struct rpc_end *end)
{
    struct rconn *c = CONTAINER_OF(p, struct rconn, ask);
    struct remote *r = c->r;
    ProtobufCMessage *m = NULL;
    if (c->state >= RCONN_LEAVING) return;
    if (end->err != OK) {
        rconn_lost(c, end->err);
    } else if (end->status == GRPC_FAILED_PRECONDITION) { /* "authentication is not enabled": then nobody needs a token, as etcd's own clients take it */
        token_set(r, NULL);
        rconn_greet(c);
    } else if (end->status != 0) {
        rconn_fail(c, false, "does not let %s in: %s", r->user, end->text);
        if (end->status == GRPC_INVALID_ARGUMENT || end->status == GRPC_UNAUTHENTICATED) r->trouble = CTL_UNAUTHENTICATED;
    } else {
        arena_reset(&r->asking);
        enum err e = etcd_read(&etcd__authenticate_response__descriptor, &r->asking, end->message, &m);
        const Etcd__AuthenticateResponse *a = (const Etcd__AuthenticateResponse *)(void *)m;
        if (e != OK || !a->token[0] || !h1_is_value(slice_cstr(a->token))) {
            rconn_fail(c, false, "sent a token that can't be used");
            return;
        }
        token_set(r, a->token);
        rconn_greet(c);
    }
}

static const struct rpc_method method_authenticate = {.path = "/etcdserverpb.Auth/Authenticate", .plain = true, .over = authenticate_over};

void rconn_authenticate(struct rconn *c)
{
    Etcd__AuthenticateRequest m = ETCD__AUTHENTICATE_REQUEST__INIT;
    struct remote *r = c->r;
    union {
        const char *from;
        char *to;
    } user = {.from = r->user}, password = {.from = r->password ? r->password : ""};
    if (c->state >= RCONN_LEAVING || c->state == RCONN_AUTH) return;
    m.name = user.to;
    m.password = password.to;
    mem_free(r->token); /* one that is no longer good would be refused here, too */
    r->token = NULL;
    rpc_cancel(&c->ask);
    c->state = RCONN_AUTH;
    c->asked_ms = loop_now_ms(r->loop);
    rpc_begin(c, &c->ask, &method_authenticate, &m.base, 0);
}

/* ---- the pulse ---- */

void rconn_no_leader(struct rconn *c)
{
    struct remote *r = c->r;
    uint64_t now_ms = loop_now_ms(r->loop);
    if (c->state == RCONN_READY) {
        c->state = RCONN_LEADERLESS;
        c->leaderless_ms = now_ms;
        timer_set(r->loop, &c->timer, LEADERLESS_POLL_MS);
    } else if (c->state == RCONN_LEADERLESS && now_ms - c->leaderless_ms >= r->conf.leaderless_ms) {
        rconn_fail(c, true, "has had no leader for %u ms", r->conf.leaderless_ms);
        rcalls_elsewhere(r, c); /* it answers reads when it has found a leader, and not for seconds behind that */
    }
}

static void rconn_pulse(struct rconn *c)
{
    struct remote *r = c->r;
    uint64_t now_ms = loop_now_ms(r->loop), quiet_ms = now_ms - MAX(c->heard_ms, c->asked_ms);
    uint64_t next_ms = c->state == RCONN_LEADERLESS ? LEADERLESS_POLL_MS : r->conf.pulse_ms;
    if (c->cli.ending) { /* GOAWAY: calls under way are still answered */
        rconn_fail(c, true, "asked us to leave");
        return;
    }
    if (rpc_on(&c->ask)) {
        if (quiet_ms >= r->conf.silence_ms) {
            rconn_fail(c, false, "has been silent for %llu ms", (unsigned long long)quiet_ms);
            return;
        }
        next_ms = MIN(next_ms, r->conf.silence_ms - quiet_ms);
    } else {
        rconn_ask_status(c);
        next_ms = MIN(next_ms, r->conf.silence_ms);
    }
    timer_set(r->loop, &c->timer, next_ms);
}

void rconn_hasten(struct rconn *c)
{
    struct loop *l = c->r->loop;
    if (c->timer.due_ms > loop_now_ms(l) + HASTE_MS) timer_set(l, &c->timer, HASTE_MS);
}

static void rconn_time(struct timer *t)
{
    struct rconn *c = CONTAINER_OF(t, struct rconn, timer);
    if (c->greeted) rconn_pulse(c);
    else rconn_fail(c, false, "%s within %u ms", c->state == RCONN_DIAL ? "can't be reached" : "does not answer", c->dial_ms);
}

/* ---- dialing ---- */

void rconn_connected(struct rconn *c)
{
    if (c->state != RCONN_DIAL) return;
    c->heard_ms = loop_now_ms(c->r->loop);
    if (c->r->user && !c->r->token) rconn_authenticate(c);
    else rconn_greet(c);
}

/* Of those that are left, the oldest makes room. */
static void rconns_limit(struct remote *r)
{
    LIST_FOREACH(it, &r->conns) {
        struct rconn *c = CONTAINER_OF(it, struct rconn, link);
        if (c->state != RCONN_LEAVING) continue;
        rconn_hang_up(c);
        return;
    }
}

static void rconn_dial(struct remote *r)
{
    struct rpeer *at = &r->peers[r->at];
    struct rconn *c = mem_new(MEM_CTL, sizeof *c);
    if (r->conns_n >= RCONNS_MAX) rconns_limit(r);
    r->at = (r->at + 1) % r->peers_n;
    c->r = r;
    c->at = at;
    list_init(&c->rpcs);
    timer_init(&c->timer, rconn_time);
    list_push(&r->conns, &c->link);
    r->conns_n++;
    r->conn = c;
    c->dial_ms = (uint32_t)MIN((uint64_t)DIAL_FIRST_MS << MIN(r->rounds, 16), r->conf.dial_ms);
    timer_set(r->loop, &c->timer, c->dial_ms);
    struct slice host = slice_cstr(at->host);
    struct http_tls tls = {.ctx = r->tls, .name = {.server_name = host, .verify_name = host}, .sessions = &at->session};
    struct addr ignored;
    if (addr_parse(host, 0, &ignored) == OK) tls.name.server_name = SLICE(""); /* RFC 6066 section 3: no addresses */
    http_cli_connect(&c->cli, r->loop, &r->http, &rpc_cli_ops, -1, &at->addr, HTTP_2, r->tls ? &tls : NULL);
}

void remote_again(struct timer *t)
{
    struct remote *r = CONTAINER_OF(t, struct remote, again);
    r->round_left = (uint32_t)r->peers_n;
    remote_dial(r);
}

void remote_dial(struct remote *r)
{
    if (r->conn || r->closing || timer_is_set(&r->again)) return;
    if (r->round_left) {
        r->round_left--;
        rconn_dial(r);
        return;
    }
    if (r->rounds == 0) log_warn("ctl", "no member of the etcd cluster serves the control store: %s; they are tried again", r->why);
    uint64_t pause_ms = MIN((uint64_t)r->conf.backoff_min_ms << MIN(r->rounds, 16), r->conf.backoff_max_ms);
    r->rounds++;
    timer_set(r->loop, &r->again, pause_ms / 2 + loop_random(r->loop) % (pause_ms / 2 + 1));
}
