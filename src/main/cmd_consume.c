/* cmd_consume.c - weir consume: records of topics on standard output.
 *
 * Without --follow it ends when it has shown what was there when it came to the end of each partition; with -n after so many records. As a member
 * of a group (--group) it begins where the group is, and notes where it has come to: what has been written to standard output is committed, each second
 * and at the end.
 */
#include "cli_log.h"

#include <time.h>

#define COMMIT_MS 1000

struct consuming {
    struct cli_log k;
    const struct args *a;
    struct log_consumer *consumer;
    const char *format;        /* NULL: the value and a newline */
    uint64_t shown, max;       /* max 0: no limit */
    uint32_t partitions;       /* assigned; 0: not told yet */
    bool assigned;
    struct table ended;        /* "topic/partition" -> 1 */
    bool over, closed, committing;
    uint64_t commit_ms;
    enum kafka_error uncommitted; /* why the last commit failed; NONE: it has not */
    struct buf why;
    int code;
};

/* ---- how a record looks ---------------------------------------------------------------------------------------------------------------- */

static void record_json(const struct log_record *r)
{
    json_t *headers = json_array();
    for (uint32_t i = 0; i < r->headers_n; i++)
        json_array_append_new(headers, json_pack("{s:o,s:o}", "name", cli_log_text(r->headers[i].name), "value", cli_log_text(r->headers[i].value)));
    json_t *o = json_pack("{s:o,s:i,s:I,s:I,s:o,s:o,s:o}", "topic", cli_log_text(r->topic), "partition", r->partition, "offset", (json_int_t)r->offset, "timestamp", (json_int_t)r->timestamp_ms, "key",
                          cli_log_text(r->key), "value", cli_log_text(r->value), "headers", headers);
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static void slice_show(struct slice s) { fwrite(s.p ? s.p : "", 1, s.n, stdout); }

static void headers_show(const struct log_record *r)
{
    for (uint32_t i = 0; i < r->headers_n; i++) {
        fputs(i ? "," : "", stdout);
        slice_show(r->headers[i].name);
        putchar('=');
        slice_show(r->headers[i].value);
    }
}

/* kcat's letters: %t topic, %p partition, %o offset, %T time, %k key, %s value, %h headers, %% a percent sign; \n, \t, \\. */
static void record_format(const char *f, const struct log_record *r)
{
    for (; *f; f++) {
        if (*f == '\\' && f[1]) {
            f++;
            putchar(*f == 'n' ? '\n' : *f == 't' ? '\t' : *f);
            continue;
        }
        if (*f != '%' || !f[1]) {
            putchar(*f);
            continue;
        }
        switch (*++f) {
        case 't': slice_show(r->topic); break;
        case 'p': printf("%d", r->partition); break;
        case 'o': printf("%lld", (long long)r->offset); break;
        case 'T': printf("%lld", (long long)r->timestamp_ms); break;
        case 'k': slice_show(r->key); break;
        case 's': slice_show(r->value); break;
        case 'h': headers_show(r); break;
        default: putchar(*f); break;
        }
    }
}

/* ---- what the client tells ---------------------------------------------------------------------------------------------------------------- */

static void on_record(void *ctx, const struct log_record *r)
{
    struct consuming *c = ctx;
    c->shown++;
    if (cli_log_json(c->a))
        record_json(r);
    else if (c->format)
        record_format(c->format, r);
    else {
        slice_show(r->value);
        putchar('\n');
    }
    if (c->shown == c->max) {
        c->over = true;
        log_consumer_rest(c->consumer, true); /* what is not shown is not committed */
    }
}

static void on_caught(void *ctx, struct slice topic, int32_t partition, int64_t offset)
{
    struct consuming *c = ctx;
    struct buf key = {0};
    buf_printf(&key, SLICE_FMT "/%d", SLICE_ARG(topic), partition);
    table_put(&c->ended, buf_slice(&key), c);
    buf_free(&key);
}

static void on_assigned(void *ctx, uint32_t partitions)
{
    struct consuming *c = ctx;
    c->partitions = partitions;
    c->assigned = true;
    table_fini(&c->ended); /* what was taken away ends elsewhere */
}

static void on_moved(void *ctx, struct slice topic, int32_t partition, int64_t asked, int64_t offset)
{
    (void)cli_fail(EXIT_OK, "consume", NULL, "partition %d of " SLICE_FMT " has no offset %lld: from %lld on, the %s of what it has", partition,
                   SLICE_ARG(topic), (long long)asked, (long long)offset, offset < asked ? "end" : "beginning");
}

static void on_failed(void *ctx, const struct log_fault *e)
{
    struct consuming *c = ctx;
    c->code = cli_log_failed(&c->k, c->a->pos[0], e);
    c->over = true;
}

static const struct log_consumer_ops consume_ops = {
    .record = on_record, .caught_up = on_caught, .assigned = on_assigned, .moved = on_moved, .failed = on_failed};

static void on_committed(void *ctx, const struct log_fault *e)
{
    struct consuming *c = ctx;
    c->committing = false;
    c->uncommitted = e ? e->code : KAFKA_NONE;
    buf_clear(&c->why);
    buf_adds(&c->why, e ? e->text : "");
}

static void on_closed(void *ctx) { ((struct consuming *)ctx)->closed = true; }

/* ---- the run -------------------------------------------------------------------------------------------------------------------------------- */

/* What is committed must have been written: a reader that went away has not seen it. */
static void places_commit(struct consuming *c)
{
    if (!args_has(c->a, "group") || c->committing || c->code)
        return;
    if (fflush(stdout) != 0) {
        c->over = true; /* main.c says that the output did not arrive */
        return;
    }
    c->committing = true;
    c->commit_ms = loop_now_ms(c->k.loop);
    log_consumer_commit(c->consumer, on_committed, c);
}

static void commit_await(struct consuming *c)
{
    while (c->committing)
        loop_turn(c->k.loop, 100);
}

/* One that is under way may have begun before the last record was shown. What a commit meets while the command goes on is no matter: the next one says as much, and more. What the
 * last one meets is, but that the group has gone on without this member: others have its partitions by now, and what they show. */
static void places_commit_last(struct consuming *c)
{
    commit_await(c);
    if (c->shown && !ferror(stdout))
        places_commit(c);
    commit_await(c);
    bool elsewhere = c->uncommitted == KAFKA_REBALANCE_IN_PROGRESS || c->uncommitted == KAFKA_ILLEGAL_GENERATION || c->uncommitted == KAFKA_UNKNOWN_MEMBER_ID;
    if (c->uncommitted && !elsewhere && !c->code)
        c->code = cli_log_failed(&c->k, "commit", &(struct log_fault){c->uncommitted, c->why.p ? c->why.p : ""});
}

static void consume_run(struct consuming *c)
{
    bool follow = args_has(c->a, "follow");
    uint64_t begun_ms = mono_ns() / 1000000;
    while (!c->over && !cli_log_interrupted) {
        loop_turn(c->k.loop, 100);
        if (!c->assigned && mono_ns() / 1000000 - begun_ms > c->k.timeout_ms) /* later it waits for brokers that went away, as long as it takes */
            on_failed(c, &(struct log_fault){KAFKA_REQUEST_TIMED_OUT, "no partitions to read from were given in time"});
        if (ferror(stdout))
            break;
        if (!follow && c->assigned && c->ended.n >= c->partitions)
            break;
        if (c->shown && loop_now_ms(c->k.loop) - c->commit_ms >= COMMIT_MS)
            places_commit(c);
        if (follow)
            fflush(stdout);
    }
    places_commit_last(c);
    log_consumer_close(c->consumer, on_closed, c);
    while (!c->closed)
        loop_turn(c->k.loop, 100);
}

static int conf_read(struct consuming *c, struct log_consumer_conf *conf, struct slice *topics)
{
    const struct args *a = c->a;
    uint64_t partition = UINT64_MAX;
    conf->group = args_str(a, "group", NULL);
    c->format = args_str(a, "format", NULL);
    for (size_t i = 0; i < a->pos_n; i++)
        topics[i] = slice_cstr(a->pos[i]);
    conf->topics = topics;
    conf->topics_n = (uint32_t)a->pos_n;
    int code = a->pos_n ? args_count(a, "partition", INT32_MAX, &partition) : cli_fail(EXIT_USAGE, a->cmd->name, "weir topic list shows what there is", "no topic is named");
    conf->partition = partition == UINT64_MAX ? -1 : (int32_t)partition;
    conf->uncommitted = args_has(a, "uncommitted");
    if (!code)
        code = args_count(a, "count", UINT64_MAX, &c->max);
    if (!code)
        code = cli_log_place(a, args_str(a, "from", "beginning"), &conf->from, &conf->from_time);
    if (!code && conf->group && conf->partition >= 0)
        code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "a group shares out the partitions by itself: leave --partition or --group out");
    if (!code && conf->group && (conf->from >= 0 || conf->from_time))
        code = cli_fail(EXIT_USAGE, a->cmd->name, "move the group with weir group reset", "--from with a group is beginning or end: where it begins that has no place yet");
    return code;
}

int cmd_consume(struct args *a)
{
    struct consuming *c = mem_new(MEM_MISC, sizeof *c);
    struct log_consumer_conf conf = {0};
    struct slice *topics = mem_new(MEM_MISC, (a->pos_n + 1) * sizeof *topics);
    c->a = a;
    int code = conf_read(c, &conf, topics);
    if (!code)
        code = cli_log_open(&c->k, a, -1);
    if (!code) {
        cli_log_signals();
        c->consumer = log_consume(c->k.client, &conf, &consume_ops, c);
        consume_run(c);
        cli_log_close(&c->k);
        code = c->code;
    }
    table_fini(&c->ended);
    buf_free(&c->why);
    mem_free(topics);
    mem_free(c);
    return code;
}
