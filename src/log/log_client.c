/* log_client.c - what does not depend on the engine: which engine it is, copies, words for errors, the partition of a key. */
#include "log_client_int.h"

static const struct log_engine_ops *const engines[] = {[LOG_ENGINE_OWN] = &log_engine_own, [LOG_ENGINE_RDKAFKA] = &log_engine_rdkafka};

/* ---- bootstrap addresses ------------------------------------------------------------------------------------------------------ */

bool log_bootstrap_next(struct slice *rest, struct slice *host, uint16_t *port)
{
    struct slice one = slice_trim(slice_cut(*rest, ',', rest));
    uint64_t n;
    ptrdiff_t colon = (ptrdiff_t)one.n - 1;
    while (colon >= 0 && one.p[colon] != ':')
        colon--;
    if (colon < 1 || slice_u64(slice_of(one.p + colon + 1, one.n - (size_t)colon - 1), 65535, &n) != OK || !n)
        return false;
    *host = slice_of(one.p, (size_t)colon);
    *port = (uint16_t)n;
    if (host->p[0] == '[' && host->n > 2 && host->p[host->n - 1] == ']')
        *host = slice_of(host->p + 1, host->n - 2);
    return host->n <= 253;
}

static bool bootstrap_good(const char *text)
{
    struct slice rest = slice_cstr(text), host;
    uint16_t port;
    do
        if (!log_bootstrap_next(&rest, &host, &port))
            return false;
    while (rest.n);
    return true;
}

/* ---- the interface -------------------------------------------------------------------------------------------------------------- */

enum err log_client_new(struct loop *l, const struct log_client_conf *conf, struct log_client **out, struct buf *why)
{
    *out = NULL;
    if (!conf->bootstrap || !bootstrap_good(conf->bootstrap)) {
        buf_printf(why, "\"%s\" is no address of a broker; write HOST:PORT, several with commas", conf->bootstrap ? conf->bootstrap : "");
        return ERR_INVALID;
    }
    MUST(conf->engine < COUNT_OF(engines));
    enum err er = engines[conf->engine]->make(l, conf, out, why);
    if (er != OK)
        return er;
    (*out)->ops = engines[conf->engine];
    (*out)->loop = l;
    (*out)->timeout_ms = conf->timeout_ms ? conf->timeout_ms : LOG_TIMEOUT_MS;
    (*out)->acks = conf->acks;
    return OK;
}

void log_client_free(struct log_client *c)
{
    if (c)
        c->ops->free(c);
}

enum err log_produce(struct log_client *c, const struct log_message *m)
{
    return c->produce_bytes > LOG_CLIENT_BYTES_MAX ? ERR_LIMIT : c->ops->produce(c, m);
}

size_t log_produce_bytes(const struct log_client *c) { return c->produce_bytes; }

struct log_consumer *log_consume(struct log_client *c, const struct log_consumer_conf *conf, const struct log_consumer_ops *ops, void *ctx)
{
    MUST(conf->topics_n && ops->record && ops->failed && (!conf->group || conf->partition == -1));
    return c->ops->consume(c, conf, ops, ctx);
}

void log_consumer_rest(struct log_consumer *k, bool rest) { k->c->ops->rest(k, rest); }
void log_consumer_commit(struct log_consumer *k, void (*done)(void *ctx, const struct log_fault *e), void *ctx) { k->c->ops->commit(k, done, ctx); }
void log_consumer_close(struct log_consumer *k, void (*done)(void *ctx), void *ctx) { k->c->ops->close(k, done, ctx); }

void log_ask(struct log_client *c, const struct log_ask *ask)
{
    MUST(ask->kind < LOG_ASK_KINDS && ask->done);
    c->ops->ask(c, ask);
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------------- */

/* Null stays null, and what is empty is not. */
static struct slice slice_copy(struct arena *a, struct slice s)
{
    return s.p ? arena_slice(a, s) : s;
}

struct log_ask *log_ask_copy(struct arena *a, const struct log_ask *ask)
{
    struct log_ask *to = arena_zalloc(a, sizeof *to);
    *to = *ask;
    to->name = slice_copy(a, ask->name);
    struct slice *names = arena_zalloc(a, (ask->names_n + 1) * sizeof *names);
    struct log_place *places = arena_zalloc(a, (ask->places_n + 1) * sizeof *places);
    struct log_setting *settings = arena_zalloc(a, (ask->settings_n + 1) * sizeof *settings);
    for (size_t i = 0; i < ask->names_n; i++)
        names[i] = slice_copy(a, ask->names[i]);
    for (size_t i = 0; i < ask->places_n; i++) {
        places[i] = ask->places[i];
        places[i].topic = slice_copy(a, ask->places[i].topic);
    }
    for (size_t i = 0; i < ask->settings_n; i++)
        settings[i] = (struct log_setting){.name = slice_copy(a, ask->settings[i].name), .value = slice_copy(a, ask->settings[i].value)};
    struct log_credential *credentials = arena_zalloc(a, (ask->credentials_n + 1) * sizeof *credentials);
    for (size_t i = 0; i < ask->credentials_n; i++) {
        credentials[i] = ask->credentials[i];
        credentials[i].salt = slice_copy(a, ask->credentials[i].salt);
        credentials[i].salted = slice_copy(a, ask->credentials[i].salted);
    }
    to->credentials = credentials;
    to->names = names;
    to->places = places;
    to->settings = settings;
    return to;
}

/* ---- words ------------------------------------------------------------------------------------------------------------------------- */

static const struct {
    enum kafka_error code;
    const char *text;
} words_of[] = {
    {KAFKA_NETWORK_EXCEPTION, "no broker can be reached"},
    {KAFKA_REQUEST_TIMED_OUT, "no answer in time"},
    {KAFKA_SASL_AUTHENTICATION_FAILED, "the broker does not let this user in"},
    {KAFKA_UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic or partition"},
    {KAFKA_TOPIC_AUTHORIZATION_FAILED, "not permitted with this topic"},
    {KAFKA_GROUP_AUTHORIZATION_FAILED, "not permitted with this group"},
    {KAFKA_CLUSTER_AUTHORIZATION_FAILED, "not permitted"},
    {KAFKA_TOPIC_ALREADY_EXISTS, "the topic is there already"},
    {KAFKA_INVALID_PARTITIONS, "not a number of partitions that the topic can have"},
    {KAFKA_INVALID_CONFIG, "a setting is not valid"},
    {KAFKA_INVALID_TOPIC_EXCEPTION, "not a name that a topic can have"},
    {KAFKA_MESSAGE_TOO_LARGE, "the record is larger than the topic takes (max.message.bytes)"},
    {KAFKA_OFFSET_OUT_OF_RANGE, "there is no record at that offset"},
    {KAFKA_NON_EMPTY_GROUP, "the group has members"},
    {KAFKA_GROUP_ID_NOT_FOUND, "there is no such group"},
    {KAFKA_UNKNOWN_MEMBER_ID, "the group has members"},
    {KAFKA_UNSUPPORTED_VERSION, "the broker does not know this request"},
    {KAFKA_UNSUPPORTED_COMPRESSION_TYPE, "compressed in a way that is not known here"},
    {KAFKA_CORRUPT_MESSAGE, "bytes that are not what they should be"},
    {KAFKA_KAFKA_STORAGE_ERROR, "the broker can't write: its disk is full or has failed"},
    {KAFKA_SECURITY_DISABLED, "the broker checks no permissions"},
    {KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER, "records before it were lost: whether this one was written is not known"},
};

const struct log_fault *log_fault_of(struct log_fault *e, enum kafka_error code, struct slice text, struct buf *words)
{
    const char *known = NULL;
    for (size_t i = 0; i < COUNT_OF(words_of) && !known; i++)
        if (words_of[i].code == code)
            known = words_of[i].text;
    buf_clear(words);
    if (text.n)
        buf_add_slice(words, text);
    else
        buf_adds(words, known ? known : kafka_error_name(code));
    *e = (struct log_fault){.code = code, .text = words->p};
    return e;
}

/* ---- partitions ---------------------------------------------------------------------------------------------------------------------- */

/* Austin Appleby's MurmurHash2 with Kafka's seed, over little-endian words (org.apache.kafka.common.utils.Utils.murmur2). */
static uint32_t murmur2(const char *p, size_t n)
{
    const uint32_t m = 0x5bd1e995;
    uint32_t h = 0x9747b28cu ^ (uint32_t)n;
    for (; n >= 4; p += 4, n -= 4) {
        uint32_t k;
        memcpy(&k, p, 4);
        k *= m;
        k ^= k >> 24;
        h = (h * m) ^ (k * m);
    }
    if (n >= 3)
        h ^= (uint32_t)(uint8_t)p[2] << 16;
    if (n >= 2)
        h ^= (uint32_t)(uint8_t)p[1] << 8;
    if (n >= 1)
        h = (h ^ (uint8_t)p[0]) * m;
    h ^= h >> 13;
    h *= m;
    return h ^ (h >> 15);
}

int32_t log_partition_of(struct slice key, int32_t n)
{
    MUST(n > 0);
    return (int32_t)((murmur2(key.p, key.n) & 0x7fffffffu) % (uint32_t)n);
}
