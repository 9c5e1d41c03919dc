/* metrics.c - what the broker tells of itself, in Prometheus' format.
 *
 * Counters are written by the loop of their shard and added up here, on whatever thread asks. What is counted of a partition stands in its topic's
 * topic_live; topics are taken from the newest catalog. Groups, transactions and security tell their own (struct module).
 */
#include "frame_int.h"

#include "prom.h"

#define TOPICS_TOLD_MAX 2000 /* of their own; what others count is told as topic="other", so that topics made by chance don't fill a Prometheus */

static uint64_t bound_us(uint32_t i) { return 16ull << (2 * i); }

void count_answer(struct shard *s, const struct breq *r)
{
    if (r->key < 0 || r->key >= API_KEYS_MAX || r->api == &api_none)
        return;
    struct api_counters *n = &s->counters->api[r->key];
    uint64_t us = (loop_now_ns(s->loop) - r->begun_ns) / 1000;
    uint32_t i = 0;
    while (i < LATENCY_BUCKETS && us > bound_us(i))
        i++;
    counter_inc(&n->requests);
    counter_add(&n->us, us);
    counter_inc(&n->latency[i]);
    if (r->error)
        counter_inc(&n->errors);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

/* The sum over all shards of the counter that lies `offset` bytes into struct broker_counters. */
static uint64_t sum(const struct broker *b, size_t offset)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->shards_n; i++)
        n += counter_read((const counter *)(const void *)((const char *)b->shards[i]->counters + offset));
    return n;
}
#define SUM(b, field) sum((b), offsetof(struct broker_counters, field))

static uint64_t sum_api(const struct broker *b, int16_t key, size_t offset)
{
    return sum(b, offsetof(struct broker_counters, api) + (size_t)key * sizeof(struct api_counters) + offset);
}
#define SUM_API(b, key, field) sum_api((b), (key), offsetof(struct api_counters, field))

static void tell_apis(const struct broker *b, struct buf *out)
{
    const struct api *a;
    prom_family(out, "weir_kafka_requests_total", PROM_COUNTER, "Requests answered, by API.");
    for (uint32_t i = 0; (a = api_at(i)); i++)
        if (SUM_API(b, a->key, requests))
            prom_u64(out, "weir_kafka_requests_total", "", &(struct prom_label){"api", slice_cstr(a->wire->name)}, 1, SUM_API(b, a->key, requests));
    prom_family(out, "weir_kafka_request_errors_total", PROM_COUNTER, "Requests that were refused as a whole, by API.");
    for (uint32_t i = 0; (a = api_at(i)); i++)
        if (SUM_API(b, a->key, requests))
            prom_u64(out, "weir_kafka_request_errors_total", "", &(struct prom_label){"api", slice_cstr(a->wire->name)}, 1, SUM_API(b, a->key, errors));
    prom_family(out, "weir_kafka_request_duration_seconds", PROM_HISTOGRAM, "From a request's last byte to its answer being written; fetches and joins include the wait they ask for.");
    double bounds[LATENCY_BUCKETS];
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
        bounds[i] = (double)bound_us(i) / 1e6;
    for (uint32_t i = 0; (a = api_at(i)); i++) {
        uint64_t counts[LATENCY_BUCKETS + 1];
        if (!SUM_API(b, a->key, requests))
            continue;
        for (uint32_t k = 0; k <= LATENCY_BUCKETS; k++)
            counts[k] = sum_api(b, a->key, offsetof(struct api_counters, latency) + k * sizeof(counter));
        prom_histogram(out, "weir_kafka_request_duration_seconds", &(struct prom_label){"api", slice_cstr(a->wire->name)}, 1, bounds, counts, LATENCY_BUCKETS,
                       (double)SUM_API(b, a->key, us) / 1e6);
    }
}

static void one(struct buf *out, const char *name, enum prom_type type, const char *help, uint64_t value)
{
    prom_family(out, name, type, help);
    prom_u64(out, name, "", NULL, 0, value);
}

static void labelled(struct buf *out, const char *name, const char *label, const char *value, uint64_t n)
{
    prom_u64(out, name, "", &(struct prom_label){label, slice_cstr(value)}, 1, n);
}

static void tell_connections(const struct broker *b, struct buf *out)
{
    one(out, "weir_kafka_connections", PROM_GAUGE, "Connections now.", SUM(b, connections));
    one(out, "weir_kafka_connections_accepted_total", PROM_COUNTER, "Connections taken.", SUM(b, accepted));
    prom_family(out, "weir_kafka_connections_closed_total", PROM_COUNTER, "Connections that the broker refused or closed, by reason.");
    const char *name = "weir_kafka_connections_closed_total";
    labelled(out, name, "reason", "too_many", SUM(b, refused));
    labelled(out, name, "reason", "idle", SUM(b, closed_idle));
    labelled(out, name, "reason", "slow", SUM(b, closed_slow));
    labelled(out, name, "reason", "malformed", SUM(b, malformed));
    labelled(out, name, "reason", "too_large", SUM(b, too_large));
    labelled(out, name, "reason", "not_served", SUM(b, unserved));
    one(out, "weir_kafka_received_bytes_total", PROM_COUNTER, "Bytes read from clients.", SUM(b, bytes_in));
    one(out, "weir_kafka_sent_bytes_total", PROM_COUNTER, "Bytes written to clients.", SUM(b, bytes_out));
    one(out, "weir_kafka_memory_bytes", PROM_GAUGE, "Requests and answers under way.", SUM(b, memory));
    prom_family(out, "weir_kafka_waits_total", PROM_COUNTER, "How often a connection had to wait: for memory, or for its own earlier requests.");
    labelled(out, "weir_kafka_waits_total", "for", "memory", SUM(b, starved));
    labelled(out, "weir_kafka_waits_total", "for", "order", SUM(b, waited));
    one(out, "weir_kafka_lines_dropped_total", PROM_COUNTER, "Lines about clients that were not logged, being too many in a second.", SUM(b, unspoken));
    one(out, "weir_kafka_topics_auto_created_total", PROM_COUNTER, "Topics made because a client asked for them.", SUM(b, auto_created));
}

/* ---- topics -------------------------------------------------------------------------------------------------------------- */

struct topic_sums {
    uint64_t in_bytes, in_batches, in_records, out_bytes;
};

static void add_topic(struct topic_sums *n, const struct topic *t)
{
    for (int32_t i = 0; i < t->partitions; i++) {
        const struct part_live *p = &t->live->part[i];
        n->in_bytes += counter_read(&p->in_bytes);
        n->in_batches += counter_read(&p->in_batches);
        n->in_records += counter_read(&p->in_records);
        n->out_bytes += counter_read(&p->out_bytes);
    }
}

static void tell_topic_family(const struct catalog *cat, struct buf *out, const char *name, const char *help, size_t offset)
{
    struct topic_sums other = {0};
    uint32_t told = 0;
    prom_family(out, name, PROM_COUNTER, help);
    for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s));) {
        struct topic_sums n = {0};
        bool own = told++ < TOPICS_TOLD_MAX;
        add_topic(own ? &n : &other, s->value);
        if (own)
            labelled(out, name, "topic", ((const struct topic *)s->value)->name, *(const uint64_t *)(const void *)((const char *)&n + offset));
    }
    if (told > TOPICS_TOLD_MAX)
        labelled(out, name, "topic", "other", *(const uint64_t *)(const void *)((const char *)&other + offset));
}

static void tell_topics(struct broker *b, struct buf *out)
{
    struct catalog *cat = broker_catalog(b);
    one(out, "weir_kafka_topics", PROM_GAUGE, "Topics now.", cat->by_name.n);
    prom_family(out, "weir_kafka_partitions", PROM_GAUGE, "Partitions, by state.");
    uint64_t ready = SUM(b, parts_ready), offline = SUM(b, parts_offline), all = SUM(b, parts);
    labelled(out, "weir_kafka_partitions", "state", "ready", ready);
    labelled(out, "weir_kafka_partitions", "state", "loading", all - MIN(all, ready + offline));
    labelled(out, "weir_kafka_partitions", "state", "offline", offline);
    tell_topic_family(cat, out, "weir_kafka_topic_in_bytes_total", "Bytes of batches appended, by topic.", offsetof(struct topic_sums, in_bytes));
    tell_topic_family(cat, out, "weir_kafka_topic_in_batches_total", "Batches appended, by topic.", offsetof(struct topic_sums, in_batches));
    tell_topic_family(cat, out, "weir_kafka_topic_in_records_total", "Records appended, by topic.", offsetof(struct topic_sums, in_records));
    tell_topic_family(cat, out, "weir_kafka_topic_out_bytes_total", "Bytes of batches given to fetches, by topic.", offsetof(struct topic_sums, out_bytes));
    catalog_unref(cat);
}

/* ---- the log ---------------------------------------------------------------------------------------------------------------- */

static uint64_t sum_log(const struct broker *b, size_t offset)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->shards_n; i++)
        n += counter_read((const counter *)(const void *)((const char *)log_shard_counters(b->shards[i]->log) + offset));
    return n;
}
#define SUM_LOG(b, field) sum_log((b), offsetof(struct log_counters, field))

#define SYNC_BUCKETS COUNT_OF(((struct log_counters *)0)->sync_rounds_us)

static void tell_syncs(const struct broker *b, struct buf *out)
{
    double bounds[SYNC_BUCKETS];
    uint64_t counts[SYNC_BUCKETS + 1] = {0}, inside = 0;
    for (uint32_t i = 0; i < SYNC_BUCKETS; i++) {
        bounds[i] = (double)(1ull << i) / 1e6;
        counts[i] = sum_log(b, offsetof(struct log_counters, sync_rounds_us) + i * sizeof(counter));
        inside += counts[i];
    }
    uint64_t all = SUM_LOG(b, sync_rounds);
    counts[SYNC_BUCKETS] = all - MIN(all, inside);
    prom_family(out, "weir_kafka_log_sync_duration_seconds", PROM_HISTOGRAM, "Rounds of syncs: one makes durable all that waits on a worker.");
    prom_histogram(out, "weir_kafka_log_sync_duration_seconds", NULL, 0, bounds, counts, SYNC_BUCKETS, (double)SUM_LOG(b, sync_ns) / 1e9);
    one(out, "weir_kafka_log_synced_files_total", PROM_COUNTER, "Files synced in these rounds.", SUM_LOG(b, synced_files));
}

static void tell_log(const struct broker *b, struct buf *out)
{
    tell_syncs(b, out);
    one(out, "weir_kafka_log_bytes", PROM_GAUGE, "Bytes of all segments.", SUM_LOG(b, bytes));
    one(out, "weir_kafka_log_segments", PROM_GAUGE, "Segments.", SUM_LOG(b, segments));
    one(out, "weir_kafka_log_appended_bytes_total", PROM_COUNTER, "Bytes appended.", SUM_LOG(b, appended_bytes));
    one(out, "weir_kafka_log_appended_batches_total", PROM_COUNTER, "Batches appended.", SUM_LOG(b, appended_batches));
    one(out, "weir_kafka_log_read_bytes_total", PROM_COUNTER, "Bytes read, or sent from files.", SUM_LOG(b, read_bytes));
    one(out, "weir_kafka_log_cold_reads_total", PROM_COUNTER, "Reads that were not in memory and went through the pool.", SUM_LOG(b, cold_reads));
    one(out, "weir_kafka_log_refused_batches_total", PROM_COUNTER, "Batches refused because the disk is full or has failed.", SUM_LOG(b, written_refused));
    one(out, "weir_kafka_log_deleted_segments_total", PROM_COUNTER, "Segments deleted by retention.", SUM_LOG(b, deleted_segments));
    one(out, "weir_kafka_log_compacted_segments_total", PROM_COUNTER, "Segments compacted.", SUM_LOG(b, compacted_segments));
    one(out, "weir_kafka_log_compacted_bytes_total", PROM_COUNTER, "Bytes read by compaction.", SUM_LOG(b, compacted_bytes));
    one(out, "weir_kafka_log_producers_forgotten_total", PROM_COUNTER, "Idempotent producers that a partition forgot because it had too many.",
        SUM_LOG(b, producers_forgotten));
    one(out, "weir_kafka_log_truncated_bytes_total", PROM_COUNTER, "Bytes of torn tails cut off at starts.", SUM_LOG(b, truncated_bytes));
    one(out, "weir_kafka_log_files_open", PROM_GAUGE, "Descriptors of segments.", SUM_LOG(b, files_open));
    one(out, "weir_kafka_log_files_closed_total", PROM_COUNTER, "Descriptors closed by their limit.", SUM_LOG(b, files_closed));
    one(out, "weir_kafka_log_offline_partitions", PROM_GAUGE, "Partitions that take no more writes because the disk failed.", SUM_LOG(b, offline));
    uint64_t full = 0;
    for (uint32_t i = 0; i < b->shards_n; i++)
        full |= counter_read(&log_shard_counters(b->shards[i]->log)->disk_full);
    one(out, "weir_kafka_log_disk_full", PROM_GAUGE, "1 while writing is stopped for want of space.", full);
}

/* ---- for weir top ------------------------------------------------------------------------------------------------------------- */

void broker_top(struct broker *b, struct buf *out)
{
    struct catalog *cat = broker_catalog(b);
    struct topic_sums n = {0};
    for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s));)
        if (!((const struct topic *)s->value)->internal)
            add_topic(&n, s->value);
    catalog_unref(cat);
    buf_printf(out, "{\"partitions\":%llu,\"offline\":%llu,\"records_in\":%llu,\"bytes_in\":%llu,\"bytes_out\":%llu,\"sync_us\":[", (unsigned long long)SUM(b, parts),
               (unsigned long long)SUM(b, parts_offline), (unsigned long long)n.in_records, (unsigned long long)n.in_bytes, (unsigned long long)n.out_bytes);
    for (uint32_t i = 0; i < SYNC_BUCKETS; i++)
        buf_printf(out, "%s%llu", i ? "," : "", (unsigned long long)sum_log(b, offsetof(struct log_counters, sync_rounds_us) + i * sizeof(counter)));
    buf_adds(out, "],\"groups\":");
    group_top(b, out);
    buf_addc(out, '}');
}

/* ---- all of it --------------------------------------------------------------------------------------------------------------- */

void broker_metrics(struct broker *b, struct buf *out)
{
    tell_connections(b, out);
    tell_apis(b, out);
    tell_topics(b, out);
    tell_log(b, out);
    for (uint32_t i = 0; i < modules_n; i++)
        if (modules[i]->metrics)
            modules[i]->metrics(b, out);
}
