/* data_world_test.c - see its header. */
#include "data_world_test.h"

#include <stdio.h>

int64_t now_ms(void) { return (int64_t)(wall_ns() / 1000000); }

struct slice batch(struct client *c, const char *tag, const struct batch_conf *conf)
{
    static const struct batch_conf plain;
    struct kafka_batch head = kafka_batch_plain;
    struct kafka_batch_builder k;
    struct buf b = {0};
    char key[32], *value;
    conf = conf ? conf : &plain;
    int64_t at = conf->at_ms ? conf->at_ms : now_ms();
    head.base_timestamp = at;
    head.attributes = conf->attributes;
    if (conf->producer_id) {
        head.producer_id = conf->producer_id;
        head.producer_epoch = conf->epoch;
        head.base_sequence = conf->sequence;
    }
    kafka_batch_begin(&k, &b, &head);
    for (int32_t i = 0; i < MAX(conf->records, 1); i++) {
        value = arena_zalloc(client_arena(c), conf->value_bytes + 64);
        int n = snprintf(value, conf->value_bytes + 64, "%s-%d", tag, i);
        snprintf(key, sizeof key, "k%d", i);
        kafka_batch_add(&k, i == conf->records - 1 && conf->last_ms ? conf->last_ms : at + i, conf->keyless && i % conf->keyless == 0 ? slice_of(NULL, 0) : slice_cstr(key), slice_of(value, MAX((size_t)n, conf->value_bytes)), NULL, 0);
    }
    MUST(kafka_batch_end(&k, conf->codec) == OK);
    struct slice s = arena_slice(client_arena(c), buf_slice(&b));
    buf_free(&b);
    return s;
}

struct kafka_produce_req *produce_req(struct client *c, const struct to *to, int n, int16_t acks)
{
    struct kafka_produce_req *req = arena_zalloc(client_arena(c), sizeof *req);
    kafka_produce_req_init(req);
    req->acks = acks;
    req->timeout_ms = 30000;
    req->topic_data = arena_zalloc(client_arena(c), (size_t)n * sizeof *req->topic_data);
    req->topic_data_n = n;
    for (int i = 0; i < n; i++) {
        struct kafka_produce_req_topic_produce_data *t = &req->topic_data[i];
        kafka_produce_req_topic_produce_data_init(t);
        t->name = slice_cstr(to[i].topic);
        t->partition_data = arena_zalloc(client_arena(c), sizeof *t->partition_data);
        t->partition_data_n = 1;
        kafka_produce_req_partition_produce_data_init(t->partition_data);
        t->partition_data->index = to[i].partition;
        t->partition_data->records = to[i].batch;
    }
    return req;
}

struct kafka_fetch_req *fetch_req(struct client *c, const struct fetch_conf *conf, const struct from *from, int n)
{
    struct kafka_fetch_req *req = arena_zalloc(client_arena(c), sizeof *req);
    kafka_fetch_req_init(req);
    req->max_wait_ms = conf->wait_ms;
    req->min_bytes = conf->min_bytes ? conf->min_bytes : 1;
    req->max_bytes = conf->max_bytes ? conf->max_bytes : 10 << 20;
    req->isolation_level = conf->isolation;
    req->session_id = conf->session;
    req->session_epoch = conf->sessions ? conf->epoch : -1;
    req->topics = arena_zalloc(client_arena(c), (size_t)n * sizeof *req->topics + 1);
    req->topics_n = n;
    for (int i = 0; i < n; i++) {
        struct kafka_fetch_req_fetch_topic *t = &req->topics[i];
        kafka_fetch_req_fetch_topic_init(t);
        t->topic = slice_cstr(from[i].topic);
        t->topic_id = from[i].id;
        t->partitions = arena_zalloc(client_arena(c), sizeof *t->partitions);
        t->partitions_n = 1;
        kafka_fetch_req_fetch_partition_init(t->partitions);
        t->partitions->partition = from[i].partition;
        t->partitions->fetch_offset = from[i].offset;
        t->partitions->partition_max_bytes = conf->part_bytes ? conf->part_bytes : 1 << 20;
        t->partitions->current_leader_epoch = conf->leader_epoch - 1;
        t->partitions->last_fetched_epoch = conf->last_epoch - 1;
    }
    req->forgotten_topics_data = arena_zalloc(client_arena(c), (size_t)conf->forget_n * sizeof *req->forgotten_topics_data + 1);
    req->forgotten_topics_data_n = conf->forget_n;
    for (int i = 0; i < conf->forget_n; i++) {
        struct kafka_fetch_req_forgotten_topic *t = &req->forgotten_topics_data[i];
        kafka_fetch_req_forgotten_topic_init(t);
        t->topic = slice_cstr(conf->forget[i].topic);
        t->topic_id = conf->forget[i].id;
        t->partitions = arena_zalloc(client_arena(c), sizeof *t->partitions);
        t->partitions_n = 1;
        t->partitions[0] = conf->forget[i].partition;
    }
    return req;
}

const char *values(struct client *c, const struct kafka_fetch_resp_partition_data *p, int64_t offset, int64_t *next)
{
    struct slice rest = p->records.bytes;
    struct buf out = {0}, scratch = {0};
    int64_t expect = -1;
    while (rest.n) {
        struct kafka_batch b;
        struct kafka_record r;
        struct slice records;
        MUST(kafka_batch_parse(rest, &b) == KAFKA_NONE);
        MUST(kafka_batch_crc_ok(rest.p, &b));
        MUST(expect < 0 ? b.base_offset <= offset && kafka_batch_last_offset(&b) >= offset : b.base_offset == expect);
        buf_clear(&scratch);
        MUST(kafka_batch_records(&b, 1 << 26, &scratch, &records) == OK);
        while (records.n) {
            MUST(kafka_record_next(&records, &r) == OK);
            if (b.base_offset + r.offset_delta >= offset)
                buf_printf(&out, "%s ", r.value.p ? arena_strdup(client_arena(c), arena_slice(client_arena(c), r.value).p) : "null");
        }
        expect = kafka_batch_last_offset(&b) + 1;
        rest = slice_of(rest.p + b.bytes, rest.n - b.bytes);
    }
    if (next)
        *next = expect;
    const char *text = arena_strdup(client_arena(c), out.p ? out.p : "");
    buf_free(&out);
    buf_free(&scratch);
    return text;
}

bool all_loaded(void *ctx)
{
    const struct topic *t = catalog_topic(W.broker->shards[0]->catalog, slice_cstr(ctx));
    for (int32_t p = 0; t && p < t->partitions; p++)
        if (topic_epoch(t, p) < 0)
            return false;
    return t != NULL;
}
