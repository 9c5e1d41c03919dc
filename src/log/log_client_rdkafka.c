/* log_client_rdkafka.c - the engine over librdkafka: for clusters that want what the own engine has not.
 *
 *     librdkafka's threads --> its queues --byte in a pipe--> watch on our loop --> callbacks here
 *     what would block (asking, administering, looking for partitions, leaving a group) --> rt's pool of threads --> done() on our loop
 *
 * One instance publishes and asks; each consumer is an instance of its own, as librdkafka wants it. librdkafka's own log is off: failures are told.
 *
 * The library is loaded when the first client of this engine is made, and not linked: a node never makes one, and it would be 0.4 MiB of every process. Its
 * functions are called through a table (rdkafka_functions.def): rdkafka.new() is rd_kafka_new().
 *
 * Differences from the own engine: settings of a topic are changed all at once (AlterConfigs: this version has no incremental form), after reading
 * those that are there; without a key partitions are chosen at random, not in turn; groups of the consumer protocol (KIP-848) are not found.
 */
#include "log_client_int.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef RDKAFKA_LIBRARY /* a test takes a name that nothing has */
#define RDKAFKA_LIBRARY "librdkafka.so.1"
#endif

/* A pipe that librdkafka writes a byte into when a queue is no longer empty. */
struct wake {
    struct watch watch;
    int read_fd, write_fd;
};

struct rdk {
    struct log_client base;
    char *bootstrap, *client_id;
    char **settings; size_t settings_n;  /* pairs */
    rd_kafka_t *rk;                      /* publishes and asks */
    rd_kafka_queue_t *queue;             /* its main one */
    struct wake wake;
    struct list consumers;               /* struct rdk_consumer, open ones */
    struct list refused;                 /* struct rdk_msg: librdkafka did not take them; told at the end of the turn */
    struct task tell;
    uint32_t works;                      /* in the pool */
    bool freed;                          /* goes with the last of them */
};

struct rdk_msg {
    struct list link;
    struct rdk *r;
    size_t bytes;
    rd_kafka_resp_err_t err;
    void (*done)(void *ctx, const struct log_fault *e, int32_t partition, int64_t offset);
    void *ctx;
};

struct rdk_consumer {
    struct log_consumer base;
    struct list link;
    struct rdk *r;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue, *commits;
    struct list committing;              /* struct commit */
    struct wake wake;
    char **topics; size_t topics_n;
    int32_t only;
    int64_t from;
    bool group, from_time;
    int64_t *moved_from;       /* by index of found: the offset that was asked for and is not there; -1. NULL: none was looked at */
    bool rests, closed, failed;
    bool busy;                           /* its work is in the pool */
    struct work work;
    rd_kafka_topic_partition_list_t *found; /* by the work: where to begin */
    rd_kafka_resp_err_t err;
    void (*left)(void *ctx);
    void *left_ctx;
    struct log_header *headers; size_t headers_cap;
};

/* ---- the library --------------------------------------------------------------------------------------------------------------------- */

static struct rdkafka_functions {
#define X(name) __typeof__(rd_kafka_##name) *name;
#include "rdkafka_functions.def"
#undef X
} rdkafka; /* filled once, read-only afterwards */
static const char *const rdkafka_names[] = {
#define X(name) "rd_kafka_" #name,
#include "rdkafka_functions.def"
#undef X
};
_Static_assert(sizeof rdkafka == COUNT_OF(rdkafka_names) * sizeof(void *), "nothing but the functions, in their order");
static pthread_once_t rdkafka_once = PTHREAD_ONCE_INIT;
static const char *rdkafka_missing; /* the library, or the first function that it has not; NULL: nothing */

static void rdkafka_load(void)
{
    struct rdkafka_functions f;
    void *lib = dlopen(RDKAFKA_LIBRARY, RTLD_NOW | RTLD_LOCAL); /* stays */
    if (!lib)
        rdkafka_missing = RDKAFKA_LIBRARY;
    for (size_t i = 0; i < COUNT_OF(rdkafka_names) && !rdkafka_missing; i++) {
        void *at = dlsym(lib, rdkafka_names[i]);
        memcpy((char *)&f + i * sizeof at, &at, sizeof at);
        if (!at)
            rdkafka_missing = rdkafka_names[i];
    }
    if (!rdkafka_missing)
        rdkafka = f;
}

static bool rdkafka_there(struct buf *why)
{
    pthread_once(&rdkafka_once, rdkafka_load);
    if (rdkafka_missing)
        buf_printf(why, "this needs librdkafka 2.0 or newer, and %s is not on this machine (Debian: librdkafka1)", rdkafka_missing);
    return !rdkafka_missing;
}

/* ---- small things ------------------------------------------------------------------------------------------------------------------- */

static enum kafka_error code_of(rd_kafka_resp_err_t e)
{
    switch (e) {
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__SSL: return KAFKA_NETWORK_EXCEPTION;
    case RD_KAFKA_RESP_ERR__AUTHENTICATION: return KAFKA_SASL_AUTHENTICATION_FAILED;
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE: return KAFKA_REQUEST_TIMED_OUT;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION: return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE: return KAFKA_UNSUPPORTED_VERSION;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET: return KAFKA_OFFSET_OUT_OF_RANGE;
    default: return e < 0 ? KAFKA_UNKNOWN_SERVER_ERROR : (enum kafka_error)e;
    }
}

/* The words are librdkafka's where the code is only its own. */
static const struct log_fault *fault_of(struct log_fault *f, rd_kafka_resp_err_t e, const char *text, struct buf *words)
{
    enum kafka_error code = code_of(e);
    return log_fault_of(f, code, slice_cstr(text && *text ? text : code == KAFKA_UNKNOWN_SERVER_ERROR ? rdkafka.err2str(e) : ""), words);
}

static void wake_open(struct wake *w, struct loop *l, rd_kafka_queue_t *q, void (*fn)(struct watch *))
{
    int fds[2];
    MUST(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
    w->read_fd = fds[0];
    w->write_fd = fds[1];
    watch_start(&w->watch, l, w->read_fd, fn);
    rdkafka.queue_io_event_enable(q, w->write_fd, "1", 1);
    MUST(write(w->write_fd, "1", 1) == 1); /* it tells of a queue that is empty and gets something: what is in it already is looked for now */
}

static void wake_read(struct wake *w)
{
    char bytes[64];
    while (read(w->read_fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}

static void wake_close(struct wake *w)
{
    watch_stop(&w->watch);
    close(w->read_fd);
    close(w->write_fd);
}

static void conf_put(rd_kafka_conf_t *c, const char *name, const char *value)
{
    char err[256];
    MUST(rdkafka.conf_set(c, name, value, err, sizeof err) == RD_KAFKA_CONF_OK); /* ours; the user's were tried by make() */
}

static rd_kafka_conf_t *conf_new(const struct rdk *r)
{
    rd_kafka_conf_t *c = rdkafka.conf_new();
    conf_put(c, "bootstrap.servers", r->bootstrap);
    conf_put(c, "client.id", r->client_id);
    rdkafka.conf_set_log_cb(c, NULL);
    for (size_t i = 0; i + 1 < r->settings_n; i += 2)
        conf_put(c, r->settings[i], r->settings[i + 1]);
    return c;
}

/* ---- the producer ---------------------------------------------------------------------------------------------------------------------- */

static void msg_end(struct rdk_msg *m, rd_kafka_resp_err_t e, int32_t partition, int64_t offset)
{
    struct log_fault fault;
    struct buf words = {0};
    m->r->base.produce_bytes -= m->bytes;
    list_del(&m->link);
    if (m->done)
        m->done(m->ctx, e ? fault_of(&fault, e, NULL, &words) : NULL, e ? -1 : partition, e || offset < 0 ? -1 : offset);
    buf_free(&words);
    mem_free(m);
}

static void refused_tell(struct task *t)
{
    struct rdk *r = CONTAINER_OF(t, struct rdk, tell);
    while (!list_empty(&r->refused)) {
        struct rdk_msg *m = CONTAINER_OF(r->refused.next, struct rdk_msg, link);
        msg_end(m, m->err, -1, -1);
    }
}

static void events_take(struct watch *w)
{
    struct rdk *r = CONTAINER_OF(w, struct rdk, wake.watch);
    rd_kafka_event_t *ev;
    wake_read(&r->wake);
    while ((ev = rdkafka.queue_poll(r->queue, 0))) {
        const rd_kafka_message_t *m;
        while (rdkafka.event_type(ev) == RD_KAFKA_EVENT_DR && (m = rdkafka.event_message_next(ev)))
            msg_end(m->_private, m->err, m->partition, m->offset);
        rdkafka.event_destroy(ev);
    }
}

static enum err rdk_produce(struct log_client *c, const struct log_message *m)
{
    struct rdk *r = CONTAINER_OF(c, struct rdk, base);
    char *topic = mem_strndup(MEM_KAFKA, m->topic.p, m->topic.n);
    rd_kafka_headers_t *headers = rdkafka.headers_new(m->headers_n);
    struct rdk_msg *msg = mem_new(MEM_KAFKA, sizeof *msg);
    *msg = (struct rdk_msg){.r = r, .bytes = sizeof *msg + m->key.n + m->value.n, .done = m->done, .ctx = m->ctx};
    list_init(&msg->link);
    for (uint32_t i = 0; i < m->headers_n; i++)
        rdkafka.header_add(headers, m->headers[i].name.p, (ssize_t)m->headers[i].name.n, m->headers[i].value.p, (ssize_t)m->headers[i].value.n);
    c->produce_bytes += msg->bytes;
    rd_kafka_resp_err_t e = rdkafka.producev(r->rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(m->partition < 0 ? RD_KAFKA_PARTITION_UA : m->partition),
                                              RD_KAFKA_V_KEY(m->key.p, m->key.n), RD_KAFKA_V_VALUE((void *)(uintptr_t)m->value.p, m->value.n),
                                              RD_KAFKA_V_TIMESTAMP(m->timestamp_ms >= 0 ? m->timestamp_ms : (int64_t)(wall_ns() / 1000000u)),
                                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(msg), RD_KAFKA_V_END);
    mem_free(topic);
    if (e)
        rdkafka.headers_destroy(headers);
    if (e == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
        c->produce_bytes -= msg->bytes;
        mem_free(msg);
        return ERR_LIMIT;
    }
    if (e) {
        msg->err = e;
        list_push(&r->refused, &msg->link);
        loop_defer(c->loop, &r->tell);
    }
    return OK;
}

/* ---- consumers --------------------------------------------------------------------------------------------------------------------------- */

static void consumer_fail(struct rdk_consumer *k, rd_kafka_resp_err_t e, const char *text)
{
    struct log_fault fault;
    struct buf words = {0};
    if (k->failed || k->closed)
        return;
    k->failed = true;
    k->base.ops->failed(k->base.ctx, fault_of(&fault, e, text, &words));
    buf_free(&words);
}

static void assigned(struct rdk_consumer *k, const rd_kafka_topic_partition_list_t *list)
{
    if (!k->closed && k->base.ops->assigned)
        k->base.ops->assigned(k->base.ctx, (uint32_t)list->cnt);
}

/* Called by rdkafka.consumer_poll() on our loop; and while the group is left by the pool's thread, when nobody wants to know. */
static void rebalanced(rd_kafka_t *rk, rd_kafka_resp_err_t e, rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct rdk_consumer *k = opaque;
    if (e != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        rdkafka.assign(rk, NULL);
        return;
    }
    rdkafka.assign(rk, list);
    if (__atomic_load_n(&k->closed, __ATOMIC_RELAXED))
        return;
    if (k->rests)
        rdkafka.pause_partitions(rk, list);
    assigned(k, list);
}

static void record_give(struct rdk_consumer *k, const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers = NULL;
    size_t n = 0, size;
    const char *name;
    const void *value;
    if (rdkafka.message_headers(m, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
        while (rdkafka.header_get_all(headers, n, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR) {
            ARRAY_GROW(MEM_KAFKA, k->headers, n, k->headers_cap);
            k->headers[n++] = (struct log_header){slice_cstr(name), slice_of(value, size)};
        }
    const struct log_record out = {.topic = slice_cstr(rdkafka.topic_name(m->rkt)),
                                   .partition = m->partition,
                                   .offset = m->offset,
                                   .timestamp_ms = rdkafka.message_timestamp(m, NULL),
                                   .key = slice_of(m->key, m->key_len),
                                   .value = slice_of(m->payload, m->len),
                                   .headers = k->headers,
                                   .headers_n = (uint32_t)n};
    k->base.ops->record(k->base.ctx, &out);
}

/* What librdkafka repeats by itself is no failure. */
static bool is_final(rd_kafka_resp_err_t e)
{
    switch (e) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
    case RD_KAFKA_RESP_ERR_INVALID_GROUP_ID:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
    case RD_KAFKA_RESP_ERR__BAD_MSG:
    case RD_KAFKA_RESP_ERR__FATAL: return true;
    default: return false;
    }
}

static void message_take(struct rdk_consumer *k, const rd_kafka_message_t *m)
{
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        record_give(k, m);
    else if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && k->base.ops->caught_up)
        k->base.ops->caught_up(k->base.ctx, slice_cstr(rdkafka.topic_name(m->rkt)), m->partition, m->offset);
    else if (is_final(m->err))
        consumer_fail(k, m->err, rdkafka.message_errstr(m));
}

static void messages_take(struct watch *w)
{
    struct rdk_consumer *k = CONTAINER_OF(w, struct rdk_consumer, wake.watch);
    rd_kafka_message_t *m;
    wake_read(&k->wake);
    rdkafka.queue_poll_callback(k->commits, 0);
    while (!k->closed && !k->failed && (m = rdkafka.consumer_poll(k->rk, 0))) {
        message_take(k, m);
        rdkafka.message_destroy(m);
    }
}

/* Under way. */
struct commit {
    struct list link;          /* rdk_consumer.committing */
    void (*done)(void *ctx, const struct log_fault *e);
    void *ctx;
};

static void consumer_gone(struct rdk_consumer *k)
{
    while (!list_empty(&k->committing)) {
        struct commit *c = CONTAINER_OF(k->committing.next, struct commit, link);
        list_del(&c->link);
        mem_free(c);
    }
    for (size_t i = 0; i < k->topics_n; i++)
        mem_free(k->topics[i]);
    mem_free(k->topics);
    mem_free(k->headers);
    mem_free(k->moved_from);
    if (k->found)
        rdkafka.topic_partition_list_destroy(k->found);
    mem_free(k);
}

static void work_begin(struct rdk *r, struct work *w)
{
    r->works++;
    work_submit(r->base.loop, w);
}

static void rdk_gone(struct rdk *r);

static void work_end(struct rdk *r)
{
    if (--r->works == 0 && r->freed)
        rdk_gone(r);
}

/* In the pool: leaves the group. */
static void leave(struct work *w)
{
    struct rdk_consumer *k = CONTAINER_OF(w, struct rdk_consumer, work);
    rdkafka.consumer_close(k->rk);
    rdkafka.queue_destroy(k->queue);
    rdkafka.queue_destroy(k->commits);
    rdkafka.destroy(k->rk);
}

static void left(struct work *w)
{
    struct rdk_consumer *k = CONTAINER_OF(w, struct rdk_consumer, work);
    struct rdk *r = k->r;
    if (k->left && !r->freed)
        k->left(k->left_ctx);
    consumer_gone(k);
    work_end(r);
}

static void leave_begin(struct rdk_consumer *k)
{
    k->work = (struct work){.run = leave, .done = left};
    work_begin(k->r, &k->work);
}

static void rdk_close(struct log_consumer *base, void (*done)(void *ctx), void *ctx)
{
    struct rdk_consumer *k = CONTAINER_OF(base, struct rdk_consumer, base);
    __atomic_store_n(&k->closed, true, __ATOMIC_RELAXED);
    k->left = done;
    k->left_ctx = ctx;
    list_del(&k->link);
    rdkafka.queue_io_event_enable(k->queue, -1, NULL, 0);
    rdkafka.queue_io_event_enable(k->commits, -1, NULL, 0);
    wake_close(&k->wake);
    if (!k->busy) /* else when the look for partitions is over */
        leave_begin(k);
}

/* In the pool. A partition without the offset that is asked for goes on at its nearest end. */
static rd_kafka_resp_err_t parts_clamp(struct rdk_consumer *k, int ms)
{
    rd_kafka_resp_err_t e = RD_KAFKA_RESP_ERR_NO_ERROR;
    k->moved_from = mem_new(MEM_KAFKA, ((size_t)k->found->cnt + 1) * sizeof *k->moved_from);
    for (int i = 0; !e && i < k->found->cnt; i++) {
        rd_kafka_topic_partition_t *p = &k->found->elems[i];
        int64_t first = 0, end = 0, asked = p->offset;
        e = rdkafka.query_watermark_offsets(k->rk, p->topic, p->partition, &first, &end, ms);
        p->offset = MAX(MIN(asked, end), first);
        k->moved_from[i] = p->offset != asked ? asked : -1;
    }
    return e;
}

/* In the pool, of a consumer without a group: its partitions, and where each begins. */
static void parts_find(struct work *w)
{
    struct rdk_consumer *k = CONTAINER_OF(w, struct rdk_consumer, work);
    int ms = (int)k->r->base.timeout_ms;
    k->found = rdkafka.topic_partition_list_new(8);
    for (size_t i = 0; i < k->topics_n && !k->err; i++) {
        const struct rd_kafka_metadata *md;
        rd_kafka_topic_t *rkt = rdkafka.topic_new(k->rk, k->topics[i], NULL);
        k->err = rkt ? rdkafka.metadata(k->rk, 0, rkt, &md, ms) : rdkafka.last_error();
        if (!k->err) {
            k->err = md->topic_cnt == 1 ? md->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
            for (int p = 0; !k->err && p < md->topics[0].partition_cnt; p++)
                if (k->only == -1 || k->only == md->topics[0].partitions[p].id)
                    rdkafka.topic_partition_list_add(k->found, k->topics[i], md->topics[0].partitions[p].id)->offset =
                        k->from_time || k->from >= 0 ? k->from : k->from == LOG_BEGINNING ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END;
            rdkafka.metadata_destroy(md);
        }
        if (rkt)
            rdkafka.topic_destroy(rkt);
    }
    if (!k->err && !k->found->cnt)
        k->err = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (!k->err && k->from_time)
        k->err = rdkafka.offsets_for_times(k->rk, k->found, ms);
    for (int i = 0; !k->err && k->from_time && i < k->found->cnt; i++)
        if (k->found->elems[i].offset < 0)
            k->found->elems[i].offset = RD_KAFKA_OFFSET_END;
    if (!k->err && !k->from_time && k->from >= 0)
        k->err = parts_clamp(k, ms);
}

static void moved(struct rdk_consumer *k)
{
    for (int i = 0; k->moved_from && i < k->found->cnt && !k->closed; i++) {
        const rd_kafka_topic_partition_t *p = &k->found->elems[i];
        if (k->moved_from[i] >= 0 && k->base.ops->moved)
            k->base.ops->moved(k->base.ctx, slice_cstr(p->topic), p->partition, k->moved_from[i], p->offset);
    }
}

static void parts_found(struct work *w)
{
    struct rdk_consumer *k = CONTAINER_OF(w, struct rdk_consumer, work);
    struct rdk *r = k->r;
    k->busy = false;
    if (k->closed) {
        leave_begin(k);
    } else if (k->err) {
        consumer_fail(k, k->err, NULL);
    } else {
        rdkafka.assign(k->rk, k->found);
        if (k->rests)
            rdkafka.pause_partitions(k->rk, k->found);
        assigned(k, k->found);
        moved(k);
    }
    work_end(r);
}

static rd_kafka_conf_t *consumer_conf(struct rdk_consumer *k, const struct log_consumer_conf *conf)
{
    rd_kafka_conf_t *c = conf_new(k->r);
    char session[16];
    snprintf(session, sizeof session, "%u", conf->session_ms ? conf->session_ms : LOG_SESSION_MS);
    conf_put(c, "group.id", conf->group ? conf->group : "weir"); /* without a subscription it is no member of it */
    conf_put(c, "enable.auto.commit", "false");
    conf_put(c, "enable.auto.offset.store", "false");
    conf_put(c, "enable.partition.eof", "true");
    conf_put(c, "partition.assignment.strategy", "range");
    conf_put(c, "session.timeout.ms", session);
    conf_put(c, "isolation.level", conf->uncommitted ? "read_uncommitted" : "read_committed");
    conf_put(c, "auto.offset.reset", conf->from == LOG_END ? "latest" : "earliest");
    conf_put(c, "fetch.wait.max.ms", "100");
    conf_put(c, "allow.auto.create.topics", "false");
    rdkafka.conf_set_rebalance_cb(c, rebalanced);
    rdkafka.conf_set_opaque(c, k);
    return c;
}

static struct log_consumer *rdk_consume(struct log_client *c, const struct log_consumer_conf *conf, const struct log_consumer_ops *ops, void *ctx)
{
    struct rdk *r = CONTAINER_OF(c, struct rdk, base);
    struct rdk_consumer *k = mem_new(MEM_KAFKA, sizeof *k);
    char err[256];
    *k = (struct rdk_consumer){.base = {c, ops, ctx}, .r = r, .only = conf->partition, .from = conf->from, .from_time = conf->from_time, .group = conf->group != NULL};
    list_init(&k->committing);
    k->topics = mem_new(MEM_KAFKA, conf->topics_n * sizeof *k->topics);
    for (uint32_t i = 0; i < conf->topics_n; i++)
        k->topics[k->topics_n++] = mem_strndup(MEM_KAFKA, conf->topics[i].p, conf->topics[i].n);
    k->rk = rdkafka.new(RD_KAFKA_CONSUMER, consumer_conf(k, conf), err, sizeof err);
    MUST(k->rk); /* threads can't be made: as with ours */
    rdkafka.poll_set_consumer(k->rk);
    k->queue = rdkafka.queue_get_consumer(k->rk);
    k->commits = rdkafka.queue_new(k->rk);
    wake_open(&k->wake, c->loop, k->queue, messages_take);
    rdkafka.queue_io_event_enable(k->commits, k->wake.write_fd, "1", 1);
    list_push(&r->consumers, &k->link);
    if (!conf->group) {
        k->busy = true;
        k->work = (struct work){.run = parts_find, .done = parts_found};
        work_begin(r, &k->work);
        return &k->base;
    }
    rd_kafka_topic_partition_list_t *list = rdkafka.topic_partition_list_new((int)k->topics_n);
    for (size_t i = 0; i < k->topics_n; i++)
        rdkafka.topic_partition_list_add(list, k->topics[i], RD_KAFKA_PARTITION_UA);
    rdkafka.subscribe(k->rk, list);
    rdkafka.topic_partition_list_destroy(list);
    return &k->base;
}

static void rdk_rest(struct log_consumer *base, bool rest)
{
    struct rdk_consumer *k = CONTAINER_OF(base, struct rdk_consumer, base);
    rd_kafka_topic_partition_list_t *list = NULL;
    k->rests = rest;
    if (rdkafka.assignment(k->rk, &list) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    if (rest)
        rdkafka.pause_partitions(k->rk, list);
    else
        rdkafka.resume_partitions(k->rk, list);
    rdkafka.topic_partition_list_destroy(list);
}

/* ---- places of a group ------------------------------------------------------------------------------------------------------------------------- */

static void committed(rd_kafka_t *rk, rd_kafka_resp_err_t e, rd_kafka_topic_partition_list_t *list, void *commit_opaque)
{
    struct commit *c = commit_opaque;
    struct log_fault fault;
    struct buf words = {0};
    bool nothing = e == RD_KAFKA_RESP_ERR__NO_OFFSET;
    for (int i = 0; list && !e && i < list->cnt; i++)
        e = list->elems[i].err;
    list_del(&c->link);
    if (c->done)
        c->done(c->ctx, e && !nothing ? fault_of(&fault, e, NULL, &words) : NULL);
    buf_free(&words);
    mem_free(c);
}

static void rdk_commit(struct log_consumer *base, void (*done)(void *ctx, const struct log_fault *e), void *ctx)
{
    struct rdk_consumer *k = CONTAINER_OF(base, struct rdk_consumer, base);
    rd_kafka_topic_partition_list_t *all = NULL, *list = rdkafka.topic_partition_list_new(8);
    struct commit *c = mem_new(MEM_KAFKA, sizeof *c);
    *c = (struct commit){.done = done, .ctx = ctx};
    list_push(&k->committing, &c->link);
    if (rdkafka.assignment(k->rk, &all) == RD_KAFKA_RESP_ERR_NO_ERROR && rdkafka.position(k->rk, all) == RD_KAFKA_RESP_ERR_NO_ERROR)
        for (int i = 0; i < all->cnt; i++)
            if (all->elems[i].offset >= 0)
                rdkafka.topic_partition_list_add(list, all->elems[i].topic, all->elems[i].partition)->offset = all->elems[i].offset;
    rd_kafka_resp_err_t e = rdkafka.commit_queue(k->rk, list, k->commits, committed, c);
    MUST(!e); /* it only queues */
    if (all)
        rdkafka.topic_partition_list_destroy(all);
    rdkafka.topic_partition_list_destroy(list);
}

/* ---- asking: in the pool, with librdkafka's blocking calls ------------------------------------------------------------------------------------------ */

struct rdk_ask {
    struct work work;
    struct rdk *r;
    struct arena arena;
    struct log_ask *ask;
    struct log_answer answer;
    rd_kafka_resp_err_t err;
    char *text;                /* librdkafka's or the broker's words, in the arena; NULL: none */
    int ms;
};
#define ASK_NEW(k, type, n) ((type *)arena_zalloc(&(k)->arena, sizeof(type) * (size_t)((n) + 1)))

static struct slice keep(struct rdk_ask *k, const char *s) { return s ? arena_slice(&k->arena, slice_cstr(s)) : (struct slice){0}; }
static char *name_of(struct rdk_ask *k) { return (char *)(uintptr_t)arena_slice(&k->arena, k->ask->name).p; }

static void ask_failed(struct rdk_ask *k, rd_kafka_resp_err_t e, const char *text)
{
    if (!e || k->err)
        return;
    k->err = e;
    k->text = text && *text ? arena_strdup(&k->arena, text) : NULL;
}

static void topic_add(struct rdk_ask *k, const struct rd_kafka_metadata_topic *m)
{
    struct log_topic *t = (struct log_topic *)(uintptr_t)&k->answer.topics[k->answer.topics_n++];
    int32_t *leaders = ASK_NEW(k, int32_t, m->partition_cnt);
    for (int p = 0; p < m->partition_cnt; p++)
        if (m->partitions[p].id >= 0 && m->partitions[p].id < m->partition_cnt)
            leaders[m->partitions[p].id] = m->partitions[p].leader;
    *t = (struct log_topic){.name = keep(k, m->topic),
                            .internal = strncmp(m->topic, "__", 2) == 0, /* it does not pass on what Metadata says */
                            .partitions = m->partition_cnt,
                            .replicas = m->partition_cnt ? m->partitions[0].replica_cnt : 0,
                            .leaders = leaders,
                            .error = code_of(m->err)};
}

static void run_topics(struct rdk_ask *k)
{
    const struct rd_kafka_metadata *md;
    if (!k->ask->names_n) {
        ask_failed(k, rdkafka.metadata(k->r->rk, 1, NULL, &md, k->ms), NULL);
        if (k->err)
            return;
        k->answer.topics = ASK_NEW(k, struct log_topic, md->topic_cnt);
        for (int i = 0; i < md->topic_cnt; i++)
            topic_add(k, &md->topics[i]);
        rdkafka.metadata_destroy(md);
        return;
    }
    k->answer.topics = ASK_NEW(k, struct log_topic, k->ask->names_n);
    for (size_t i = 0; i < k->ask->names_n && !k->err; i++) {
        rd_kafka_topic_t *rkt = rdkafka.topic_new(k->r->rk, arena_slice(&k->arena, k->ask->names[i]).p, NULL);
        ask_failed(k, rkt ? rdkafka.metadata(k->r->rk, 0, rkt, &md, k->ms) : rdkafka.last_error(), NULL);
        if (rkt)
            rdkafka.topic_destroy(rkt);
        if (k->err)
            return;
        for (int t = 0; t < md->topic_cnt; t++)
            topic_add(k, &md->topics[t]);
        rdkafka.metadata_destroy(md);
    }
}

static void run_offsets(struct rdk_ask *k)
{
    struct log_place *places = ASK_NEW(k, struct log_place, k->ask->places_n);
    for (size_t i = 0; i < k->ask->places_n; i++) {
        const struct log_place *p = &k->ask->places[i];
        const char *topic = arena_slice(&k->arena, p->topic).p;
        int64_t low = -1, high = -1;
        rd_kafka_resp_err_t e;
        places[i] = *p;
        if (p->offset >= 0) {
            rd_kafka_topic_partition_list_t *list = rdkafka.topic_partition_list_new(1);
            rdkafka.topic_partition_list_add(list, topic, p->partition)->offset = p->offset;
            e = rdkafka.offsets_for_times(k->r->rk, list, k->ms);
            e = e ? e : list->elems[0].err;
            places[i].offset = list->elems[0].offset >= 0 ? list->elems[0].offset : -1;
            rdkafka.topic_partition_list_destroy(list);
        } else {
            e = rdkafka.query_watermark_offsets(k->r->rk, topic, p->partition, &low, &high, k->ms);
            places[i].offset = e ? -1 : p->offset == LOG_BEGINNING ? low : high;
        }
        places[i].error = code_of(e);
    }
    k->answer.places = places;
    k->answer.places_n = k->ask->places_n;
}

/* One answer of the admin interface, or NULL after noting why. */
static rd_kafka_event_t *admin_wait(struct rdk_ask *k, rd_kafka_queue_t *q)
{
    rd_kafka_event_t *ev = rdkafka.queue_poll(q, k->ms + 1000);
    if (!ev)
        ask_failed(k, RD_KAFKA_RESP_ERR__TIMED_OUT, NULL);
    else
        ask_failed(k, rdkafka.event_error(ev), rdkafka.event_error_string(ev));
    if (ev && k->err) {
        rdkafka.event_destroy(ev);
        ev = NULL;
    }
    return ev;
}

static rd_kafka_AdminOptions_t *admin_options(struct rdk_ask *k, rd_kafka_admin_op_t op)
{
    char err[128];
    rd_kafka_AdminOptions_t *o = rdkafka.AdminOptions_new(k->r->rk, op);
    (void)rdkafka.AdminOptions_set_request_timeout(o, k->ms, err, sizeof err); /* bounds are its own: else its default counts */
    return o;
}

static void topic_result(struct rdk_ask *k, const rd_kafka_topic_result_t *const *results, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ask_failed(k, rdkafka.topic_result_error(results[i]), rdkafka.topic_result_error_string(results[i]));
}

static void run_create(struct rdk_ask *k)
{
    char err[256];
    size_t n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_NewTopic_t *t = rdkafka.NewTopic_new(name_of(k), k->ask->partitions, -1, err, sizeof err);
    rd_kafka_event_t *ev = NULL;
    ask_failed(k, t ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR__INVALID_ARG, err);
    for (size_t i = 0; t && i < k->ask->settings_n; i++)
        ask_failed(k, rdkafka.NewTopic_set_config(t, arena_slice(&k->arena, k->ask->settings[i].name).p, arena_slice(&k->arena, k->ask->settings[i].value).p), NULL);
    if (!k->err) {
        rdkafka.CreateTopics(k->r->rk, &t, 1, o, q);
        ev = admin_wait(k, q);
    }
    if (ev) {
        const rd_kafka_topic_result_t *const *results = (const rd_kafka_topic_result_t *const *)rdkafka.CreateTopics_result_topics(rdkafka.event_CreateTopics_result(ev), &n);
        topic_result(k, results, n);
        rdkafka.event_destroy(ev);
    }
    if (t)
        rdkafka.NewTopic_destroy(t);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

static void run_delete(struct rdk_ask *k)
{
    size_t n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_DELETETOPICS);
    rd_kafka_DeleteTopic_t *t = rdkafka.DeleteTopic_new(name_of(k));
    rdkafka.DeleteTopics(k->r->rk, &t, 1, o, q);
    rd_kafka_event_t *ev = admin_wait(k, q);
    if (ev) {
        const rd_kafka_topic_result_t *const *results = (const rd_kafka_topic_result_t *const *)rdkafka.DeleteTopics_result_topics(rdkafka.event_DeleteTopics_result(ev), &n);
        topic_result(k, results, n);
        rdkafka.event_destroy(ev);
    }
    rdkafka.DeleteTopic_destroy(t);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

static void run_grow(struct rdk_ask *k)
{
    char err[256] = "";
    size_t n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS);
    rd_kafka_NewPartitions_t *p = rdkafka.NewPartitions_new(name_of(k), (size_t)MAX(k->ask->partitions, 0), err, sizeof err);
    ask_failed(k, p ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR_INVALID_PARTITIONS, err);
    if (p)
        rdkafka.CreatePartitions(k->r->rk, &p, 1, o, q);
    rd_kafka_event_t *ev = p ? admin_wait(k, q) : NULL;
    if (ev) {
        const rd_kafka_topic_result_t *const *results =
            (const rd_kafka_topic_result_t *const *)rdkafka.CreatePartitions_result_topics(rdkafka.event_CreatePartitions_result(ev), &n);
        topic_result(k, results, n);
        rdkafka.event_destroy(ev);
    }
    if (p)
        rdkafka.NewPartitions_destroy(p);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

static void run_settings(struct rdk_ask *k)
{
    size_t n, entries_n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_ConfigResource_t *res = rdkafka.ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, name_of(k));
    rdkafka.DescribeConfigs(k->r->rk, &res, 1, o, q);
    rd_kafka_event_t *ev = admin_wait(k, q);
    if (ev) {
        const rd_kafka_ConfigResource_t **results = rdkafka.DescribeConfigs_result_resources(rdkafka.event_DescribeConfigs_result(ev), &n);
        for (size_t i = 0; i < n; i++)
            ask_failed(k, rdkafka.ConfigResource_error(results[i]), rdkafka.ConfigResource_error_string(results[i]));
        const rd_kafka_ConfigEntry_t **entries = k->err || !n ? NULL : rdkafka.ConfigResource_configs(results[0], &entries_n);
        struct log_setting *s = ASK_NEW(k, struct log_setting, entries ? entries_n : 0);
        for (size_t i = 0; entries && i < entries_n; i++)
            s[k->answer.settings_n++] = (struct log_setting){.name = keep(k, rdkafka.ConfigEntry_name(entries[i])),
                                                             .value = keep(k, rdkafka.ConfigEntry_value(entries[i])),
                                                             .is_default = rdkafka.ConfigEntry_source(entries[i]) != RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG,
                                                             .read_only = rdkafka.ConfigEntry_is_read_only(entries[i]) == 1};
        k->answer.settings = s;
        rdkafka.event_destroy(ev);
    }
    rdkafka.ConfigResource_destroy(res);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

static const struct log_setting *asked(const struct rdk_ask *k, struct slice name)
{
    for (size_t i = 0; i < k->ask->settings_n; i++)
        if (slice_eq(k->ask->settings[i].name, name))
            return &k->ask->settings[i];
    return NULL;
}

/* AlterConfigs replaces all: what is set and not asked for is sent again. */
static void run_set(struct rdk_ask *k)
{
    size_t n;
    run_settings(k);
    if (k->err)
        return;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_ALTERCONFIGS);
    rd_kafka_ConfigResource_t *res = rdkafka.ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, name_of(k));
    for (size_t i = 0; i < k->answer.settings_n; i++)
        if (!k->answer.settings[i].is_default && !asked(k, k->answer.settings[i].name))
            rdkafka.ConfigResource_set_config(res, k->answer.settings[i].name.p, k->answer.settings[i].value.p);
    for (size_t i = 0; i < k->ask->settings_n; i++)
        if (k->ask->settings[i].value.p)
            rdkafka.ConfigResource_set_config(res, arena_slice(&k->arena, k->ask->settings[i].name).p, arena_slice(&k->arena, k->ask->settings[i].value).p);
    rdkafka.AlterConfigs(k->r->rk, &res, 1, o, q);
    rd_kafka_event_t *ev = admin_wait(k, q);
    if (ev) {
        const rd_kafka_ConfigResource_t **results = rdkafka.AlterConfigs_result_resources(rdkafka.event_AlterConfigs_result(ev), &n);
        for (size_t i = 0; i < n; i++)
            ask_failed(k, rdkafka.ConfigResource_error(results[i]), rdkafka.ConfigResource_error_string(results[i]));
        rdkafka.event_destroy(ev);
    }
    k->answer = (struct log_answer){0};
    rdkafka.ConfigResource_destroy(res);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

/* What a member was given: the bytes are the consumer protocol's. */
static void member_places(struct rdk_ask *k, struct slice assignment, struct log_member *out)
{
    struct kafka_reader rd;
    struct kafka_consumer_protocol_assignment a;
    kafka_reader_init(&rd, arena_slice(&k->arena, assignment));
    int16_t version = kafka_read_int16(&rd);
    if (rd.err || version < 0 || kafka_consumer_protocol_assignment_read(&rd, MIN(version, 3), &k->arena, &a) != OK)
        return;
    size_t n = 0;
    for (int32_t i = 0; i < a.assigned_partitions_n; i++)
        n += (size_t)MAX(a.assigned_partitions[i].partitions_n, 0);
    struct log_place *places = ASK_NEW(k, struct log_place, n);
    for (int32_t i = 0; i < a.assigned_partitions_n; i++)
        for (int32_t p = 0; p < a.assigned_partitions[i].partitions_n; p++)
            places[out->places_n++] = (struct log_place){.topic = a.assigned_partitions[i].topic, .partition = a.assigned_partitions[i].partitions[p], .offset = -1};
    out->places = places;
}

static void run_groups(struct rdk_ask *k)
{
    const struct rd_kafka_group_list *list;
    bool one = k->ask->kind == LOG_ASK_GROUP;
    ask_failed(k, rdkafka.list_groups(k->r->rk, one ? name_of(k) : NULL, &list, k->ms), NULL);
    if (k->err)
        return;
    struct log_group *groups = ASK_NEW(k, struct log_group, list->group_cnt);
    for (int i = 0; i < list->group_cnt; i++) {
        const struct rd_kafka_group_info *g = &list->groups[i];
        struct log_group *out = &groups[k->answer.groups_n++];
        *out = (struct log_group){.name = keep(k, g->group), .state = keep(k, g->state), .protocol = keep(k, one ? g->protocol : g->protocol_type)};
        struct log_member *members = ASK_NEW(k, struct log_member, g->member_cnt);
        for (int m = 0; one && m < g->member_cnt; m++) {
            members[m] = (struct log_member){.id = keep(k, g->members[m].member_id), .client_id = keep(k, g->members[m].client_id), .host = keep(k, g->members[m].client_host)};
            if (g->members[m].member_assignment_size > 0)
                member_places(k, slice_of(g->members[m].member_assignment, (size_t)g->members[m].member_assignment_size), &members[m]);
            out->members_n++;
        }
        out->members = members;
        if (one)
            ask_failed(k, g->err ? g->err : slice_is(out->state, "Dead") ? RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND : RD_KAFKA_RESP_ERR_NO_ERROR, NULL);
    }
    k->answer.groups = groups;
    if (one && !list->group_cnt)
        ask_failed(k, RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND, NULL);
    rdkafka.group_list_destroy(list);
}

static void places_take(struct rdk_ask *k, const rd_kafka_topic_partition_list_t *list)
{
    struct log_place *places = ASK_NEW(k, struct log_place, list ? list->cnt : 0);
    for (int i = 0; list && i < list->cnt; i++)
        places[k->answer.places_n++] = (struct log_place){.topic = keep(k, list->elems[i].topic),
                                                          .partition = list->elems[i].partition,
                                                          .offset = list->elems[i].offset >= 0 ? list->elems[i].offset : -1,
                                                          .error = code_of(list->elems[i].err)};
    k->answer.places = places;
}

static void group_results(struct rdk_ask *k, const rd_kafka_group_result_t **results, size_t n, bool take)
{
    for (size_t i = 0; i < n; i++) {
        const rd_kafka_error_t *e = rdkafka.group_result_error(results[i]);
        const rd_kafka_topic_partition_list_t *list = rdkafka.group_result_partitions(results[i]);
        if (e)
            ask_failed(k, rdkafka.error_code(e), rdkafka.error_string(e));
        for (int p = 0; list && !take && p < list->cnt; p++)
            ask_failed(k, list->elems[p].err, NULL);
        if (take && !k->err)
            places_take(k, list);
    }
}

static void run_places(struct rdk_ask *k)
{
    size_t n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
    rd_kafka_ListConsumerGroupOffsets_t *g = rdkafka.ListConsumerGroupOffsets_new(name_of(k), NULL);
    rdkafka.ListConsumerGroupOffsets(k->r->rk, &g, 1, o, q);
    rd_kafka_event_t *ev = admin_wait(k, q);
    if (ev) {
        const rd_kafka_group_result_t **results = rdkafka.ListConsumerGroupOffsets_result_groups(rdkafka.event_ListConsumerGroupOffsets_result(ev), &n);
        group_results(k, results, n, true);
        rdkafka.event_destroy(ev);
    }
    rdkafka.ListConsumerGroupOffsets_destroy(g);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

static void run_move(struct rdk_ask *k)
{
    size_t n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);
    rd_kafka_topic_partition_list_t *list = rdkafka.topic_partition_list_new((int)k->ask->places_n);
    for (size_t i = 0; i < k->ask->places_n; i++)
        rdkafka.topic_partition_list_add(list, arena_slice(&k->arena, k->ask->places[i].topic).p, k->ask->places[i].partition)->offset = k->ask->places[i].offset;
    rd_kafka_AlterConsumerGroupOffsets_t *g = rdkafka.AlterConsumerGroupOffsets_new(name_of(k), list);
    rdkafka.AlterConsumerGroupOffsets(k->r->rk, &g, 1, o, q);
    rd_kafka_event_t *ev = admin_wait(k, q);
    if (ev) {
        const rd_kafka_group_result_t **results = rdkafka.AlterConsumerGroupOffsets_result_groups(rdkafka.event_AlterConsumerGroupOffsets_result(ev), &n);
        group_results(k, results, n, false);
        rdkafka.event_destroy(ev);
    }
    rdkafka.AlterConsumerGroupOffsets_destroy(g);
    rdkafka.topic_partition_list_destroy(list);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

static void run_group_delete(struct rdk_ask *k)
{
    size_t n;
    rd_kafka_queue_t *q = rdkafka.queue_new(k->r->rk);
    rd_kafka_AdminOptions_t *o = admin_options(k, RD_KAFKA_ADMIN_OP_DELETEGROUPS);
    rd_kafka_DeleteGroup_t *g = rdkafka.DeleteGroup_new(name_of(k));
    rdkafka.DeleteGroups(k->r->rk, &g, 1, o, q);
    rd_kafka_event_t *ev = admin_wait(k, q);
    if (ev) {
        const rd_kafka_group_result_t **results = rdkafka.DeleteGroups_result_groups(rdkafka.event_DeleteGroups_result(ev), &n);
        group_results(k, results, n, false);
        rdkafka.event_destroy(ev);
    }
    rdkafka.DeleteGroup_destroy(g);
    rdkafka.AdminOptions_destroy(o);
    rdkafka.queue_destroy(q);
}

/* Users came into librdkafka's interface with 2.2. */
static void run_unsupported(struct rdk_ask *k)
{
    k->err = RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE;
    k->text = arena_strdup(&k->arena, "users can't be asked for through this librdkafka; leave --librdkafka out");
}

static void (*const runs[LOG_ASK_KINDS])(struct rdk_ask *) = {[LOG_ASK_TOPICS] = run_topics,
                                                              [LOG_ASK_OFFSETS] = run_offsets,
                                                              [LOG_ASK_CREATE] = run_create,
                                                              [LOG_ASK_GROW] = run_grow,
                                                              [LOG_ASK_DELETE] = run_delete,
                                                              [LOG_ASK_SETTINGS] = run_settings,
                                                              [LOG_ASK_SET] = run_set,
                                                              [LOG_ASK_GROUPS] = run_groups,
                                                              [LOG_ASK_GROUP] = run_groups,
                                                              [LOG_ASK_GROUP_PLACES] = run_places,
                                                              [LOG_ASK_GROUP_MOVE] = run_move,
                                                              [LOG_ASK_GROUP_DELETE] = run_group_delete,
                                                              [LOG_ASK_USERS] = run_unsupported,
                                                              [LOG_ASK_USER_SET] = run_unsupported,
                                                              [LOG_ASK_USER_DELETE] = run_unsupported};

static void ask_run(struct work *w)
{
    struct rdk_ask *k = CONTAINER_OF(w, struct rdk_ask, work);
    runs[k->ask->kind](k);
}

static void ask_done(struct work *w)
{
    struct rdk_ask *k = CONTAINER_OF(w, struct rdk_ask, work);
    struct rdk *r = k->r;
    struct log_fault fault;
    struct buf words = {0};
    const struct log_answer none = {0};
    if (!r->freed)
        k->ask->done(k->ask->ctx, k->err ? fault_of(&fault, k->err, k->text, &words) : NULL, k->err ? &none : &k->answer);
    buf_free(&words);
    arena_fini(&k->arena);
    mem_free(k);
    work_end(r);
}

static void rdk_ask(struct log_client *c, const struct log_ask *ask)
{
    struct rdk *r = CONTAINER_OF(c, struct rdk, base);
    struct rdk_ask *k = mem_new(MEM_KAFKA, sizeof *k);
    k->r = r;
    k->ms = (int)MIN(c->timeout_ms, 3600000u);
    arena_init(&k->arena, MEM_KAFKA, 1024);
    k->ask = log_ask_copy(&k->arena, ask);
    k->work = (struct work){.run = ask_run, .done = ask_done};
    work_begin(r, &k->work);
}

/* ---- the engine ---------------------------------------------------------------------------------------------------------------------------------------- */

static void rdk_gone(struct rdk *r)
{
    if (r->queue)
        rdkafka.queue_destroy(r->queue);
    if (r->rk)
        rdkafka.destroy(r->rk);
    for (size_t i = 0; i < r->settings_n; i++)
        mem_free(r->settings[i]);
    mem_free(r->settings);
    mem_free(r->bootstrap);
    mem_free(r->client_id);
    mem_free(r);
}

/* Tries the settings on a conf that is thrown away: what librdkafka says of a bad one. */
static bool settings_good(const struct rdk *r, struct buf *why)
{
    rd_kafka_conf_t *c = rdkafka.conf_new();
    char err[256] = "";
    bool good = true;
    for (size_t i = 0; i + 1 < r->settings_n && good; i += 2)
        good = rdkafka.conf_set(c, r->settings[i], r->settings[i + 1], err, sizeof err) == RD_KAFKA_CONF_OK;
    if (!good)
        buf_adds(why, err);
    rdkafka.conf_destroy(c);
    return good;
}

static enum err rdk_make(struct loop *l, const struct log_client_conf *conf, struct log_client **out, struct buf *why)
{
    if (!rdkafka_there(why))
        return ERR_UNSUPPORTED;
    struct rdk *r = mem_new(MEM_KAFKA, sizeof *r);
    char number[16], err[256] = "";
    r->base.loop = l;
    r->bootstrap = mem_strdup(MEM_KAFKA, conf->bootstrap);
    r->client_id = mem_strdup(MEM_KAFKA, conf->client_id ? conf->client_id : "weir");
    list_init(&r->consumers);
    list_init(&r->refused);
    task_init(&r->tell, refused_tell);
    size_t n = 0;
    while (conf->settings && conf->settings[n])
        n++;
    r->settings = mem_new(MEM_KAFKA, (n + 1) * sizeof *r->settings);
    for (; r->settings_n < n; r->settings_n++)
        r->settings[r->settings_n] = mem_strdup(MEM_KAFKA, conf->settings[r->settings_n]);
    if (!settings_good(r, why)) {
        rdk_gone(r);
        return ERR_INVALID;
    }
    rd_kafka_conf_t *c = conf_new(r);
    snprintf(number, sizeof number, "%u", conf->timeout_ms ? conf->timeout_ms : LOG_TIMEOUT_MS);
    conf_put(c, "message.timeout.ms", number);
    conf_put(c, "linger.ms", "1");
    conf_put(c, "partitioner", "murmur2_random");
    conf_put(c, "enable.idempotence", conf->acks == -1 ? "true" : "false");
    if (conf->acks != -1)
        conf_put(c, "acks", conf->acks ? "1" : "0");
    rdkafka.conf_set_events(c, RD_KAFKA_EVENT_DR);
    r->rk = rdkafka.new(RD_KAFKA_PRODUCER, c, err, sizeof err);
    if (!r->rk) {
        rdkafka.conf_destroy(c);
        buf_adds(why, err);
        rdk_gone(r);
        return ERR_INVALID;
    }
    r->queue = rdkafka.queue_get_main(r->rk);
    wake_open(&r->wake, l, r->queue, events_take);
    *out = &r->base;
    return OK;
}

/* Messages that are not acknowledged are taken back, and their memory with the reports of that. */
static void messages_drop(struct rdk *r)
{
    rd_kafka_event_t *ev;
    rdkafka.purge(r->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (r->base.produce_bytes && (ev = rdkafka.queue_poll(r->queue, 1000))) {
        const rd_kafka_message_t *m;
        while (rdkafka.event_type(ev) == RD_KAFKA_EVENT_DR && (m = rdkafka.event_message_next(ev))) {
            struct rdk_msg *msg = m->_private;
            msg->done = NULL;
            msg_end(msg, RD_KAFKA_RESP_ERR_NO_ERROR, -1, -1);
        }
        rdkafka.event_destroy(ev);
    }
}

static void rdk_free(struct log_client *c)
{
    struct rdk *r = CONTAINER_OF(c, struct rdk, base);
    list_del(&r->tell.link);
    LIST_FOREACH(l, &r->refused)
        CONTAINER_OF(l, struct rdk_msg, link)->done = NULL;
    refused_tell(&r->tell);
    rdkafka.queue_io_event_enable(r->queue, -1, NULL, 0);
    wake_close(&r->wake);
    messages_drop(r);
    LIST_FOREACH(l, &r->consumers)
        rdk_close(&CONTAINER_OF(l, struct rdk_consumer, link)->base, NULL, NULL);
    r->freed = true;
    if (!r->works)
        rdk_gone(r);
}

const struct log_engine_ops log_engine_rdkafka = {
    .make = rdk_make, .free = rdk_free, .produce = rdk_produce, .consume = rdk_consume, .rest = rdk_rest, .commit = rdk_commit, .close = rdk_close, .ask = rdk_ask};
