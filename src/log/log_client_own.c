/* log_client_own.c - the own engine: connections, calls, and what is known of the cluster. See log_client_own.h.
 *
 *     RESOLVING --> CONNECTING --> ASKING (ApiVersions) --> LOGIN, where the settings say so --> READY --> gone
 *                   with TLS: and its handshake
 *
 * A connection begins with ApiVersions in version 0, which every broker since 0.10 answers; then the calls that waited go out. Its end, for
 * whatever reason, fails all of its calls; a call whose time is over ends its connection, since answers come in order. A broker that limits for how
 * long a login counts (KIP-368) ends it, too: the next one logs in again.
 */
#include "log_client_own.h"

#define CALL_MS_LEAST 1000u

/* ---- why ----------------------------------------------------------------------------------------------------------------------- */

static void conn_why(struct own_conn *k, const char *text)
{
    buf_clear(&k->o->why);
    buf_printf(&k->o->why, "%s:%u: %s", k->host, k->port, text);
}

struct slice own_words(const struct own *o, enum kafka_error e, struct slice text)
{
    bool of_connections = e == KAFKA_NETWORK_EXCEPTION || e == KAFKA_SASL_AUTHENTICATION_FAILED || e == KAFKA_UNSUPPORTED_SASL_MECHANISM;
    return text.n || !of_connections ? text : buf_slice(&o->why);
}

/* ---- calls --------------------------------------------------------------------------------------------------------------------- */

static void call_free(struct own_call *call)
{
    timer_clear(&call->timer);
    list_del(&call->fail.link);
    list_del(&call->link);
    list_del(&call->all);
    arena_fini(&call->arena);
    mem_free(call);
}

static void call_end(struct own_call *call, enum kafka_error e)
{
    list_del(&call->link);
    timer_clear(&call->timer);
    call->conn = NULL;
    call->over = true;
    call->error = e;
    if (!call->dropped)
        call->done(call);
    call_free(call);
}

static void call_fail_now(struct task *t)
{
    struct own_call *call = CONTAINER_OF(t, struct own_call, fail);
    call_end(call, call->error);
}

static void call_fail_later(struct own_call *call, enum kafka_error e)
{
    list_del(&call->link);
    call->conn = NULL;
    call->error = e;
    loop_defer(call->o->base.loop, &call->fail);
}

static void call_late(struct timer *t)
{
    struct own_call *call = CONTAINER_OF(t, struct own_call, timer);
    struct own_conn *k = call->conn;
    call_fail_later(call, KAFKA_REQUEST_TIMED_OUT);
    if (k) {
        conn_why(k, "no answer in time");
        own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
    }
}

struct own_call *own_call(struct own *o, int16_t api_key, int16_t version, int32_t node, void (*done)(struct own_call *call), void *ctx)
{
    struct own_call *call = mem_new(MEM_KAFKA, sizeof *call);
    call->o = o;
    call->api = kafka_api_find(api_key);
    MUST(call->api && version <= call->api->last);
    call->version = version;
    call->node = node;
    call->done = done;
    call->ctx = ctx;
    list_init(&call->link);
    list_push(&o->calls, &call->all);
    timer_init(&call->timer, call_late);
    task_init(&call->fail, call_fail_now);
    arena_init(&call->arena, MEM_KAFKA, 1024);
    call->req = arena_zalloc(&call->arena, call->api->request->size);
    call->resp = arena_zalloc(&call->arena, call->api->response->size);
    kafka_schema_init(call->api->request, call->req);
    return call;
}

struct slice own_keep(struct own_call *call, struct slice s) { return s.p ? arena_slice(&call->arena, s) : s; }
void own_call_drop(struct own_call *call) { call->dropped = true; }

void own_calls_drop(struct own *o, const void *owner)
{
    LIST_FOREACH(l, &o->calls) {
        struct own_call *call = CONTAINER_OF(l, struct own_call, all);
        bool never_sent = !call->over && list_empty(&call->link) && list_empty(&call->fail.link);
        call->dropped = call->dropped || call->owner == owner;
        if (call->owner == owner && never_sent)
            call_free(call);
    }
}

/* ---- writing and reading -------------------------------------------------------------------------------------------------------- */

static void call_write(struct own_conn *k, struct own_call *call)
{
    struct buf b = {0};
    struct kafka_writer w;
    call->correlation = ++k->correlation;
    call->sent = true;
    kafka_writer_init(&w, &b);
    struct kafka_frame frame = kafka_frame_begin(&w);
    kafka_request_header_write(&w, &(struct kafka_request_header){call->api->key, call->version, call->correlation, slice_cstr(k->o->client_id)});
    kafka_schema_write(call->api->request, &w, call->version, call->req);
    kafka_frame_end(&w, frame);
    stream_write_slice(&k->s, buf_slice(&b));
    kafka_writer_fini(&w);
    buf_free(&b);
}

/* The newest version that both know; false: there is none. */
static bool call_version(const struct own_conn *k, struct own_call *call)
{
    if (call->api->key == API_API_VERSIONS)
        return true;
    call->version = MIN(call->version, k->versions[call->api->key].max);
    return call->version >= k->versions[call->api->key].min && call->version >= call->api->first && call->version >= 0;
}

static void calls_write(struct own_conn *k)
{
    LIST_FOREACH(l, &k->calls) {
        struct own_call *call = CONTAINER_OF(l, struct own_call, link);
        if (call->sent)
            continue;
        if (call_version(k, call)) {
            call_write(k, call);
            if (call->silent)
                call_fail_later(call, KAFKA_NONE);
        } else
            call_fail_later(call, KAFKA_UNSUPPORTED_VERSION);
    }
}

/* One answer. False: it is no answer to the oldest call, or not well formed. */
static bool answer_read(struct own_conn *k, struct slice frame)
{
    struct kafka_reader r;
    struct own_call *call = list_empty(&k->calls) ? NULL : CONTAINER_OF(k->calls.next, struct own_call, link);
    int32_t correlation;
    if (!call || !call->sent)
        return false;
    kafka_reader_init(&r, frame);
    r.decode_left = OWN_ANSWER_BYTES_MAX;
    if (kafka_response_header_read(&r, call->api->key, call->version, &correlation) != OK || correlation != call->correlation ||
        kafka_schema_read(call->api->response, &r, call->version, &call->arena, call->resp) != OK)
        return false;
    k->o->reached = k->o->reached || k->state == OWN_READY;
    call_end(call, KAFKA_NONE);
    return true;
}

static void conn_data(struct stream *s, char *p, size_t n)
{
    struct own_conn *k = CONTAINER_OF(s, struct own_conn, s);
    size_t at = 0;
    buf_add(&k->in, p, n);
    while (k->state != OWN_GONE && k->in.n - at >= 4) {
        const uint8_t *h = (const uint8_t *)k->in.p + at;
        uint32_t size = (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
        if (size <= OWN_ANSWER_BYTES_MAX && k->in.n - at - 4 < size)
            break;
        if (size > OWN_ANSWER_BYTES_MAX || !answer_read(k, slice_of(k->in.p + at + 4, size))) {
            conn_why(k, k->state == OWN_ASKING ? "what answers is no Kafka broker, or wants TLS (security.protocol)" : "an answer is not what was asked for");
            own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
            return;
        }
        at += 4 + size;
    }
    memmove(k->in.p, k->in.p + at, k->in.n - at);
    k->in.n -= at;
}

/* ---- connections ------------------------------------------------------------------------------------------------------------------ */

/* It is freed when its stream and its look-up let go. */
void own_conn_fail(struct own_conn *k, enum kafka_error e)
{
    enum own_state was = k->state;
    if (was == OWN_GONE)
        return;
    k->state = OWN_GONE;
    list_del(&k->link);
    LIST_FOREACH(l, &k->calls)
        call_fail_later(CONTAINER_OF(l, struct own_call, link), e);
    own_login_drop(k->login);
    k->login = NULL;
    if (was != OWN_RESOLVING)
        stream_close(&k->s);
}

static void own_gone(struct own *o);

static void conn_free(struct own_conn *k)
{
    struct own *o = k->o;
    buf_free(&k->in);
    mem_free(k->host);
    mem_free(k);
    if (--o->conns_n == 0 && o->freed)
        own_gone(o);
}

static void versions_told(struct own_call *call)
{
    const struct kafka_api_versions_resp *resp = call->resp;
    struct own_conn *k = call->ctx;
    if (call->error != KAFKA_NONE || k->state == OWN_GONE)
        return;
    if (resp->error_code) {
        conn_why(k, kafka_error_name((enum kafka_error)resp->error_code));
        own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
        return;
    }
    for (int32_t i = 0; i < resp->api_keys_n; i++)
        if (resp->api_keys[i].api_key >= 0 && resp->api_keys[i].api_key < OWN_KEYS) {
            k->versions[resp->api_keys[i].api_key].min = resp->api_keys[i].min_version;
            k->versions[resp->api_keys[i].api_key].max = resp->api_keys[i].max_version;
        }
    if (k->o->secure.sasl)
        own_login_begin(k);
    else
        own_conn_ready(k);
}

void own_conn_ready(struct own_conn *k)
{
    own_login_drop(k->login);
    k->login = NULL;
    k->state = OWN_READY;
    buf_clear(&k->o->why);
    calls_write(k);
}

struct own_call *own_conn_call(struct own_conn *k, int16_t api_key, int16_t version, void (*done)(struct own_call *call))
{
    struct own_call *call = own_call(k->o, api_key, version, k->node, done, k);
    call->conn = k;
    return call;
}

void own_conn_send(struct own_conn *k, struct own_call *call)
{
    list_push_front(&k->calls, &call->link); /* nothing else was sent */
    timer_set(k->o->base.loop, &call->timer, MIN(k->o->base.timeout_ms, 10000u));
    if (call_version(k, call))
        call_write(k, call);
    else {
        conn_why(k, "the broker does not know this way to log in");
        own_conn_fail(k, KAFKA_SASL_AUTHENTICATION_FAILED);
    }
}

static void conn_connected(struct stream *s)
{
    struct own_conn *k = CONTAINER_OF(s, struct own_conn, s);
    k->state = OWN_ASKING;
    own_conn_send(k, own_conn_call(k, API_API_VERSIONS, 0, versions_told));
}

/* What the other side means by it can only be guessed: it does not speak with who does not do as it wants. */
static void conn_eof(struct stream *s)
{
    struct own_conn *k = CONTAINER_OF(s, struct own_conn, s);
    const struct own_secure *secure = &k->o->secure;
    conn_why(k, k->state == OWN_ASKING && !secure->tls ? "the connection was closed; it may want TLS (security.protocol)"
                : k->state == OWN_READY && !k->o->reached && !secure->sasl ? "the connection was closed; it may want a login (security.protocol, sasl.mechanism)"
                                                                           : "the connection was closed");
    own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
}

static void conn_drained(struct stream *s) { (void)s; }

static void conn_failed(struct stream *s, enum err e)
{
    struct own_conn *k = CONTAINER_OF(s, struct own_conn, s);
    if (e == ERR_RESET || e == ERR_CLOSED) {
        conn_eof(s);
        return;
    }
    conn_why(k, e == ERR_TLS ? stream_tls_error(s) : err_text(e));
    own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
}

static void conn_released(struct stream *s) { conn_free(CONTAINER_OF(s, struct own_conn, s)); }

static const struct stream_ops conn_ops = {
    .connected = conn_connected, .data = conn_data, .eof = conn_eof, .drained = conn_drained, .failed = conn_failed, .released = conn_released};

static void conn_connect(struct own_conn *k)
{
    k->state = OWN_CONNECTING;
    k->addr.port = k->port;
    stream_connect(&k->s, k->o->base.loop, &conn_ops, -1, &k->addr);
    if (!k->o->secure.tls)
        return;
    struct addr literal;
    struct slice host = slice_cstr(k->host);
    bool is_address = addr_parse(host, 0, &literal) == OK; /* no name for SNI (RFC 6066 section 3), but one for the certificate */
    stream_tls_connect(&k->s, k->o->secure.tls, (struct tls_peer_name){.server_name = is_address ? SLICE("") : host, .verify_name = k->o->secure.any_name ? SLICE("") : host}, NULL);
}

static void look_up(struct work *w)
{
    struct own_conn *k = CONTAINER_OF(w, struct own_conn, work);
    k->looked_up = k->o->resolve(k->host, &k->addr);
}

static void looked_up(struct work *w)
{
    struct own_conn *k = CONTAINER_OF(w, struct own_conn, work);
    bool gone = k->state == OWN_GONE;
    if (!gone && k->looked_up == OK) {
        conn_connect(k);
        return;
    }
    if (!gone) {
        conn_why(k, "no address is known for that name");
        own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
    }
    conn_free(k);
}

static struct own_conn *conn_new(struct own *o, int32_t node, enum own_lane_of lane, struct slice host, uint16_t port)
{
    struct own_conn *k = mem_new(MEM_KAFKA, sizeof *k);
    k->o = o;
    k->node = node;
    k->lane = lane;
    k->host = mem_strndup(MEM_KAFKA, host.p, host.n);
    k->port = port;
    list_init(&k->calls);
    list_push(&o->conns, &k->link);
    o->conns_n++;
    for (size_t i = 0; i < OWN_KEYS; i++)
        k->versions[i].max = -1;
    if (addr_parse(host, port, &k->addr) == OK) {
        conn_connect(k);
        return k;
    }
    k->state = OWN_RESOLVING;
    k->work = (struct work){.run = look_up, .done = looked_up};
    if (o->resolve)
        work_submit(o->base.loop, &k->work);
    return k;
}

static struct own_conn *conn_bootstrap(struct own *o)
{
    struct slice rest = slice_cstr(o->bootstrap), host = SLICE("");
    uint16_t port = 0;
    uint32_t n = 0;
    for (struct slice all = rest; all.n; n++)
        if (!log_bootstrap_next(&all, &host, &port))
            break;
    for (uint32_t i = 0; i <= o->bootstrap_at % n; i++)
        MUST(log_bootstrap_next(&rest, &host, &port)); /* log_client_new() has looked at them */
    o->bootstrap_at++;
    return conn_new(o, OWN_ANY, LANE_CALLS, host, port);
}

/* The connection to a node; for OWN_ANY one that is there, else to the next bootstrap address. NULL: there is no such node. */
static struct own_conn *conn_for(struct own *o, int32_t node, enum own_lane_of lane)
{
    LIST_FOREACH(l, &o->conns) {
        struct own_conn *k = CONTAINER_OF(l, struct own_conn, link);
        if ((k->node == node && k->lane == lane) || node == OWN_ANY)
            return k;
    }
    if (node == OWN_ANY)
        return conn_bootstrap(o);
    for (size_t i = 0; i < o->nodes_n; i++)
        if (o->nodes[i].id == node)
            return conn_new(o, node, lane, slice_cstr(o->nodes[i].host), o->nodes[i].port);
    return NULL;
}

void own_send(struct own_call *call, uint32_t timeout_ms)
{
    struct own *o = call->o;
    struct own_conn *k = conn_for(o, call->node, call->lane);
    if (!k || (k->state == OWN_RESOLVING && !o->resolve)) { /* a name, and nobody who could look it up */
        if (k) {
            conn_why(k, "names are not looked up here");
            own_conn_fail(k, KAFKA_NETWORK_EXCEPTION);
            conn_free(k);
        }
        call_fail_later(call, KAFKA_NETWORK_EXCEPTION);
        return;
    }
    call->conn = k;
    list_push(&k->calls, &call->link);
    timer_set(o->base.loop, &call->timer, MAX(timeout_ms, CALL_MS_LEAST));
    if (k->state == OWN_READY)
        calls_write(k);
}

/* ---- the cluster -------------------------------------------------------------------------------------------------------------------- */

struct own_node *own_node_learn(struct own *o, int32_t id, struct slice host, int32_t port)
{
    struct own_node *node = NULL;
    for (size_t i = 0; i < o->nodes_n && !node; i++)
        if (o->nodes[i].id == id)
            node = &o->nodes[i];
    if (id < 0 || port <= 0 || port > 65535 || !host.n || host.n > 253)
        return node;
    if (!node) {
        ARRAY_GROW(MEM_KAFKA, o->nodes, o->nodes_n, o->nodes_cap);
        node = &o->nodes[o->nodes_n++];
        *node = (struct own_node){.id = id};
    } else if (slice_is(host, node->host) && node->port == port) {
        return node;
    }
    mem_free(node->host);
    node->host = mem_strndup(MEM_KAFKA, host.p, host.n);
    node->port = (uint16_t)port;
    return node;
}

static void topic_learn(struct own_topic *t, const struct kafka_metadata_resp_metadata_response_topic *m)
{
    int32_t n = m->partitions_n;
    if (m->error_code || n <= 0)
        return;
    if (n > t->parts_n) {
        t->leaders = mem_grow(MEM_KAFKA, t->leaders, (size_t)n * sizeof *t->leaders);
        t->lanes = mem_grow(MEM_KAFKA, t->lanes, (size_t)n * sizeof *t->lanes);
        for (int32_t i = t->parts_n; i < n; i++) {
            t->leaders[i] = -1;
            t->lanes[i] = NULL;
        }
        t->parts_n = n;
    }
    for (int32_t i = 0; i < n; i++)
        if (m->partitions[i].partition_index >= 0 && m->partitions[i].partition_index < t->parts_n)
            t->leaders[m->partitions[i].partition_index] = m->partitions[i].leader_id;
    own_topic_learnt(t);
}

void own_learn(struct own *o, const struct kafka_metadata_resp *m)
{
    for (int32_t i = 0; i < m->brokers_n; i++)
        own_node_learn(o, m->brokers[i].node_id, m->brokers[i].host, m->brokers[i].port);
    o->controller = m->controller_id >= 0 ? m->controller_id : OWN_ANY;
    for (int32_t i = 0; i < m->topics_n; i++) {
        struct own_topic *t = m->topics[i].name.p ? table_get(&o->topics, m->topics[i].name) : NULL;
        if (t)
            topic_learn(t, &m->topics[i]);
    }
}

struct own_call *own_metadata(struct own *o, const struct slice *names, size_t n, bool create, void (*done)(struct own_call *call), void *ctx)
{
    struct own_call *call = own_call(o, API_METADATA, 9, OWN_ANY, done, ctx);
    struct kafka_metadata_req *req = call->req;
    req->allow_auto_topic_creation = create;
    req->topics_n = names ? (int32_t)n : -1;
    req->topics = OWN_NEW(call, struct kafka_metadata_req_metadata_request_topic, n);
    for (size_t i = 0; i < n; i++)
        req->topics[i].name = own_keep(call, names[i]);
    return call;
}

int32_t own_leader(const struct own_topic *t, int32_t partition) { return partition >= 0 && partition < t->parts_n && t->leaders[partition] >= 0 ? t->leaders[partition] : OWN_ANY; }

bool own_passing(enum kafka_error e)
{
    switch (e) {
    case KAFKA_NETWORK_EXCEPTION:
    case KAFKA_LEADER_NOT_AVAILABLE:
    case KAFKA_NOT_LEADER_OR_FOLLOWER:
    case KAFKA_REQUEST_TIMED_OUT:
    case KAFKA_BROKER_NOT_AVAILABLE:
    case KAFKA_REPLICA_NOT_AVAILABLE:
    case KAFKA_COORDINATOR_LOAD_IN_PROGRESS:
    case KAFKA_COORDINATOR_NOT_AVAILABLE:
    case KAFKA_NOT_COORDINATOR:
    case KAFKA_NOT_ENOUGH_REPLICAS:
    case KAFKA_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case KAFKA_NOT_CONTROLLER:
    case KAFKA_UNSTABLE_OFFSET_COMMIT:
    case KAFKA_CONCURRENT_TRANSACTIONS: return true;
    default: return false;
    }
}

bool own_worth_it(const struct own *o, enum kafka_error e)
{
    bool in_vain = !o->reached && o->reach_ms && loop_now_ms(o->base.loop) - o->made_ms > o->reach_ms;
    return own_passing(e) && !in_vain;
}

/* ---- the engine ----------------------------------------------------------------------------------------------------------------------- */

static enum err own_make(struct loop *l, const struct log_client_conf *conf, struct log_client **out, struct buf *why)
{
    struct own_secure secure = {0};
    enum err er = own_secure_read(&secure, conf->settings, why);
    if (er != OK) {
        own_secure_fini(&secure);
        return er;
    }
    struct own *o = mem_new(MEM_KAFKA, sizeof *o);
    o->secure = secure;
    o->base.loop = l;
    o->bootstrap = mem_strdup(MEM_KAFKA, conf->bootstrap);
    o->client_id = mem_strdup(MEM_KAFKA, conf->client_id ? conf->client_id : "weir");
    o->resolve = conf->resolve;
    o->reach_ms = conf->reach_ms;
    o->made_ms = loop_now_ms(l);
    o->controller = OWN_ANY;
    o->producer_id = -1;
    list_init(&o->conns);
    list_init(&o->calls);
    list_init(&o->topic_list);
    list_init(&o->asks);
    list_init(&o->consumers);
    own_produce_init(o);
    *out = &o->base;
    return OK;
}

static void own_gone(struct own *o)
{
    mem_free(o->bootstrap);
    mem_free(o->client_id);
    own_secure_fini(&o->secure);
    buf_free(&o->why);
    for (size_t i = 0; i < o->nodes_n; i++)
        mem_free(o->nodes[i].host);
    mem_free(o->nodes);
    mem_free(o);
}

static void own_free(struct log_client *c)
{
    struct own *o = CONTAINER_OF(c, struct own, base);
    own_asks_drop(o);
    own_consumers_drop(o);
    own_produce_fini(o);
    LIST_FOREACH(l, &o->calls)
        CONTAINER_OF(l, struct own_call, all)->dropped = true;
    o->conns_n++; /* until this is over */
    while (!list_empty(&o->conns))
        own_conn_fail(CONTAINER_OF(o->conns.next, struct own_conn, link), KAFKA_NETWORK_EXCEPTION);
    while (!list_empty(&o->calls))
        call_free(CONTAINER_OF(o->calls.next, struct own_call, all));
    o->freed = true;
    if (--o->conns_n == 0)
        own_gone(o);
}

const struct log_engine_ops log_engine_own = {.make = own_make,
                                              .free = own_free,
                                              .produce = own_produce,
                                              .consume = own_consume,
                                              .rest = own_consumer_rest,
                                              .commit = own_consumer_commit,
                                              .close = own_consumer_close,
                                              .ask = own_ask};
