/* cmd_produce.c - weir produce: lines of standard input, or one value, as records of a topic.
 *
 * Each record carries a trace context (W3C Trace Context's traceparent, as a header of the record), unless one is given: what the record
 * causes in services that pass it on can be followed from here.
 */
#include "cli_log.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define LINE_BYTES_MAX (16u << 20)
#define HEADERS_MAX 64u

struct producing {
    struct cli_log k;
    const struct args *a;
    struct slice topic, key;
    int32_t partition;
    struct log_header headers[HEADERS_MAX + 1];
    uint32_t headers_n;
    bool traced;               /* a traceparent is given */
    const char *separator;     /* between key and value on a line; NULL: none */
    uint64_t sent, done;
    struct buf in;             /* read, not yet sent */
    bool ended;
    int code;                  /* of the first failure */
};

static void told(void *ctx, const struct log_fault *e, int32_t partition, int64_t offset)
{
    struct producing *p = ctx;
    p->done++;
    if (e && !p->code)
        p->code = cli_log_failed(&p->k, p->a->pos[0], e);
    if (!e && cli_log_json(p->a))
        printf("{\"topic\":\"%s\",\"partition\":%d,\"offset\":%lld}\n", p->a->pos[0], partition, (long long)offset);
}

/* 00-TRACE-SPAN-01: a new trace, sampled. */
static void traceparent(char out[56])
{
    uint8_t id[24];
    size_t n = 0;
    random_bytes(id, sizeof id);
    id[0] |= 1; /* neither may be all zeros */
    id[16] |= 1;
    n += (size_t)snprintf(out, 56, "00-");
    for (size_t i = 0; i < sizeof id; i++)
        n += (size_t)snprintf(out + n, 56 - n, "%s%02x", i == 16 ? "-" : "", id[i]);
    snprintf(out + n, 56 - n, "-01");
}

static void send_one(struct producing *p, struct slice value)
{
    char trace[56];
    struct slice key = p->key;
    struct log_header headers[HEADERS_MAX + 1];
    memcpy(headers, p->headers, sizeof headers);
    uint32_t n = p->headers_n;
    const char *at = p->separator ? memmem(value.p, value.n, p->separator, strlen(p->separator)) : NULL;
    if (at) {
        key = slice_of(value.p, (size_t)(at - value.p));
        at += strlen(p->separator);
        value = slice_of(at, value.n - (size_t)(at - value.p));
    }
    if (!p->traced) {
        traceparent(trace);
        headers[n++] = (struct log_header){SLICE("traceparent"), slice_cstr(trace)};
    }
    if (args_has(p->a, "null"))
        value = (struct slice){0};
    struct log_message m = {.topic = p->topic, .partition = p->partition, .key = key, .value = value, .headers = headers, .headers_n = n, .timestamp_ms = -1, .done = told, .ctx = p};
    while (log_produce(p->k.client, &m) != OK && !p->code) /* as much waits as may */
        loop_turn(p->k.loop, 10);
    p->sent++;
}

static void lines_send(struct producing *p)
{
    size_t at = 0;
    char *nl;
    while (!p->code && (nl = memchr(p->in.p + at, '\n', p->in.n - at))) {
        send_one(p, slice_of(p->in.p + at, (size_t)(nl - p->in.p) - at));
        at = (size_t)(nl - p->in.p) + 1;
    }
    if (p->ended && p->in.n > at && !p->code) {
        send_one(p, slice_of(p->in.p + at, p->in.n - at));
        at = p->in.n;
    }
    memmove(p->in.p, p->in.p + at, p->in.n - at);
    p->in.n -= at;
}

/* Reads while there is something, so that records leave in batches, and lets the loop turn while there is not. */
static int input_send(struct producing *p)
{
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!p->ended && !p->code && !cli_log_interrupted) {
        if (poll(&fd, 1, 0) == 0) {
            loop_turn(p->k.loop, 10);
            continue;
        }
        buf_reserve(&p->in, STREAM_READ_BYTES);
        ssize_t n = read(STDIN_FILENO, p->in.p + p->in.n, STREAM_READ_BYTES);
        if (n < 0 && errno != EINTR)
            return cli_fail(EXIT_FAILED, p->a->cmd->name, NULL, "standard input can't be read: %s", strerror(errno));
        p->in.n += n > 0 ? (size_t)n : 0;
        p->ended = n == 0;
        lines_send(p);
        if (p->in.n > LINE_BYTES_MAX)
            return cli_fail(EXIT_FAILED, p->a->cmd->name, "records are lines: end each with a newline", "a line is longer than %u MiB", LINE_BYTES_MAX >> 20);
        loop_turn(p->k.loop, 0);
    }
    return EXIT_OK;
}

static int headers_read(struct producing *p)
{
    const char *given;
    for (; (given = args_nth(p->a, "header", p->headers_n)); p->headers_n++) {
        struct slice value, name = slice_cut(slice_cstr(given), '=', &value);
        if (p->headers_n == HEADERS_MAX)
            return cli_fail(EXIT_USAGE, p->a->cmd->name, NULL, "more than %u headers", HEADERS_MAX);
        if (!name.n || !strchr(given, '='))
            return cli_fail(EXIT_USAGE, p->a->cmd->name, "write NAME=VALUE", "--header \"%s\" is no header", given);
        p->headers[p->headers_n] = (struct log_header){name, value.p ? value : SLICE("")};
        p->traced = p->traced || slice_is(name, "traceparent");
    }
    return EXIT_OK;
}

static int acks_read(const struct args *a, int16_t *acks)
{
    const char *v = args_str(a, "acks", "all");
    *acks = strcmp(v, "all") == 0 ? -1 : strcmp(v, "0") == 0 ? 0 : 1;
    return *acks != 1 || strcmp(v, "1") == 0 ? EXIT_OK : cli_fail(EXIT_USAGE, a->cmd->name, "write all, 1 or 0", "--acks \"%s\" is not known", v);
}

static int produce_all(struct producing *p)
{
    const char *value = args_str(p->a, "value", NULL);
    int code = EXIT_OK;
    cli_log_signals();
    if (value || args_has(p->a, "null"))
        send_one(p, slice_cstr(value ? value : ""));
    else
        code = input_send(p);
    while (p->done < p->sent)
        loop_turn(p->k.loop, 100);
    code = code ? code : p->code;
    if (!code && !cli_log_json(p->a))
        printf("%llu record%s to %s\n", (unsigned long long)p->sent, p->sent == 1 ? "" : "s", p->a->pos[0]);
    return code;
}

int cmd_produce(struct args *a)
{
    struct producing *p = mem_new(MEM_MISC, sizeof *p);
    const char *key = args_str(a, "key", NULL);
    uint64_t partition = UINT64_MAX;
    int16_t acks = -1;
    *p = (struct producing){.a = a, .partition = -1, .separator = args_str(a, "key-separator", NULL)};
    int code = a->pos_n == 1 ? args_count(a, "partition", INT32_MAX, &partition) : cli_fail(EXIT_USAGE, a->cmd->name, "e.g. echo hello | weir produce greetings", "name one topic");
    if (!code && partition != UINT64_MAX)
        p->partition = (int32_t)partition;
    if (!code)
        code = headers_read(p);
    if (!code)
        code = acks_read(a, &acks);
    if (!code)
        code = cli_log_open(&p->k, a, acks);
    if (!code) {
        p->topic = slice_cstr(a->pos[0]);
        p->key = key ? slice_cstr(key) : (struct slice){0};
        code = produce_all(p);
        cli_log_close(&p->k);
    }
    buf_free(&p->in);
    mem_free(p);
    return code;
}
