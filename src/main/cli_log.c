/* cli_log.c - what the commands of the event log share. They are Kafka clients: any cluster will do, and no node need run here. */
#include "cli_log.h"

#include <netdb.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#define REACH_MS 1500 /* a node that is there has its port open, also while its engine starts again: who finds nobody is told soon */
#define TURN_MS 100 /* the longest that an interruption waits to be seen */

volatile int cli_log_interrupted;

static void interrupted(int signal_number) { cli_log_interrupted = 1; }

void cli_log_signals(void)
{
    struct sigaction sa = {.sa_handler = interrupted};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

/* The first address of a name. Blocks. */
static enum err host_address(const char *host, struct addr *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char text[NI_MAXHOST];
    enum err er = ERR_NOTFOUND;
    if (getaddrinfo(host, NULL, &hints, &found) == 0 && getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
        er = addr_parse(slice_cstr(text), 0, out);
    if (found)
        freeaddrinfo(found);
    return er;
}

/* ---- settings of the client ------------------------------------------------------------------------------------------------------ */

#define SETTINGS_FILE_MAX (1u << 20)

/* Pairs, as log_client_conf wants them. */
struct settings {
    const char **items;
    size_t n, cap;
};

static void settings_free(struct settings *s)
{
    for (size_t i = 0; i < s->n; i += 2) {
        mem_wipe((char *)(uintptr_t)s->items[i + 1], strlen(s->items[i + 1])); /* a password, perhaps */
        mem_free((char *)(uintptr_t)s->items[i]);
        mem_free((char *)(uintptr_t)s->items[i + 1]);
    }
    mem_free(s->items);
}

static void settings_add(struct settings *s, struct slice name, struct slice value)
{
    s->items = mem_grow(MEM_MISC, s->items, (s->n + 3) * sizeof *s->items);
    s->items[s->n++] = mem_strndup(MEM_MISC, name.p, name.n);
    s->items[s->n++] = mem_strndup(MEM_MISC, value.n ? value.p : "", value.n);
    s->items[s->n] = NULL;
}

static bool settings_add_text(struct settings *s, struct slice text, bool from_file)
{
    struct slice value, name = slice_cut(text, '=', &value);
    if (!name.n || name.n == text.n)
        return false;
    settings_add(s, slice_trim(name), from_file ? slice_trim(value) : value);
    return true;
}

/* Lines of NAME=VALUE, as Kafka's own tools and librdkafka's have them; # begins a comment. */
static int settings_add_file(struct settings *s, const struct args *a, const char *path)
{
    struct buf text = {0};
    int code = EXIT_OK;
    uint32_t at = 0;
    enum err er = file_read(path, &text, SETTINGS_FILE_MAX);
    if (er != OK)
        code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "%s can't be read: %s", path, err_text(er));
    for (struct slice rest = buf_slice(&text); !code && rest.n;) {
        struct slice line = slice_cut(rest, '\n', &rest);
        line = slice_trim(line.n && line.p[line.n - 1] == '\r' ? slice_of(line.p, line.n - 1) : line);
        at++;
        if (line.n && line.p[0] != '#' && !settings_add_text(s, line, true))
            code = cli_fail(EXIT_USAGE, a->cmd->name, "write NAME=VALUE in each line", "%s, line %u is no setting", path, at);
    }
    buf_wipe(&text);
    return code;
}

/* ssl.X.location, whose file the own engine wants as ssl.X.pem; else the name itself. */
static const char *setting_of_file(const char *name)
{
    static const char *const pairs[][2] = {{"ssl.ca.location", "ssl.ca.pem"}, {"ssl.certificate.location", "ssl.certificate.pem"}, {"ssl.key.location", "ssl.key.pem"}};
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        if (strcmp(name, pairs[i][0]) == 0)
            return pairs[i][1];
    return name;
}

static int settings_read_files(struct settings *s, const struct args *a)
{
    for (size_t i = 0; i < s->n; i += 2) {
        const char *name = setting_of_file(s->items[i]);
        struct buf pem = {0};
        if (name == s->items[i])
            continue;
        enum err er = file_read(s->items[i + 1], &pem, SETTINGS_FILE_MAX);
        if (er != OK) {
            buf_free(&pem);
            return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "%s can't be read: %s (%s)", s->items[i + 1], err_text(er), s->items[i]);
        }
        mem_free((char *)(uintptr_t)s->items[i]);
        mem_free((char *)(uintptr_t)s->items[i + 1]);
        s->items[i] = mem_strdup(MEM_MISC, name);
        s->items[i + 1] = mem_strndup(MEM_MISC, pem.p, pem.n);
        buf_wipe(&pem);
    }
    return EXIT_OK;
}

/* --settings FILE, then -X NAME=VALUE. Weir's own client knows how to encrypt and to log in; for any other setting, and with --librdkafka, it is librdkafka. */
static int settings_read(struct settings *s, const struct args *a, bool *rdkafka)
{
    const char *given;
    int code = EXIT_OK;
    for (size_t i = 0; !code && (given = args_nth(a, "settings", i)); i++)
        code = settings_add_file(s, a, given);
    for (size_t i = 0; !code && (given = args_nth(a, "setting", i)); i++)
        if (!settings_add_text(s, slice_cstr(given), false))
            code = cli_fail(EXIT_USAGE, a->cmd->name, "write NAME=VALUE, such as -X security.protocol=sasl_ssl", "-X \"%s\" is no setting", given);
    *rdkafka = args_has(a, "librdkafka");
    for (size_t i = 0; i < s->n; i += 2)
        *rdkafka |= !log_setting_common(slice_cstr(setting_of_file(s->items[i])));
    return code || *rdkafka ? code : settings_read_files(s, a);
}

int cli_log_open(struct cli_log *k, const struct args *a, int16_t acks)
{
    struct buf why = {0};
    const char *given = cli_env("KAFKA_BOOTSTRAP_SERVERS");
    *k = (struct cli_log){.a = a, .bootstrap = args_str(a, "bootstrap", given ? given : "127.0.0.1:9092")};
    int code = args_time(a, "timeout", 30000, &k->timeout_ms);
    if (code)
        return code;
    struct settings settings = {0};
    bool rdkafka = false;
    code = settings_read(&settings, a, &rdkafka);
    if (code) {
        settings_free(&settings);
        return code;
    }
    k->loop = loop_new("weir");
    struct log_client_conf conf = {.engine = rdkafka ? LOG_ENGINE_RDKAFKA : LOG_ENGINE_OWN, .settings = settings.items, .bootstrap = k->bootstrap, .client_id = "weir-cli", .timeout_ms = k->timeout_ms, .reach_ms = REACH_MS, .acks = acks, .resolve = host_address};
    if (log_client_new(k->loop, &conf, &k->client, &why) != OK) {
        code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "%s", why.p);
        loop_free(k->loop);
        k->loop = NULL;
    }
    settings_free(&settings);
    buf_free(&why);
    return code;
}

void cli_log_close(struct cli_log *k)
{
    if (!k->loop)
        return;
    log_client_free(k->client);
    loop_turn(k->loop, 0); /* what was closed is released */
    loop_free(k->loop);
    k->loop = NULL;
}

int cli_log_failed(const struct cli_log *k, const char *doing, const struct log_fault *e)
{
    const char *cmd = k->a->cmd->name;
    switch (e->code) {
    case KAFKA_NETWORK_EXCEPTION:
        return cli_fail(EXIT_NO_NODE, cmd, "start a node with weir up, or name another broker with --bootstrap HOST:PORT", "%s: nobody answers at %s: %s", doing, k->bootstrap, e->text);
    case KAFKA_SASL_AUTHENTICATION_FAILED:
    case KAFKA_UNSUPPORTED_SASL_MECHANISM: return cli_fail(EXIT_FAILED, cmd, "see sasl.mechanism, sasl.username and sasl.password of -X; weir user makes users", "%s: %s", doing, e->text);
    case KAFKA_REQUEST_TIMED_OUT: return cli_fail(EXIT_TIMEOUT, cmd, "look at the node's log, or allow more with --timeout", "%s: %s", doing, e->text);
    case KAFKA_UNKNOWN_TOPIC_OR_PARTITION: return cli_fail(EXIT_FAILED, cmd, "weir topic list shows what there is", "%s: %s", doing, e->text);
    case KAFKA_NON_EMPTY_GROUP:
    case KAFKA_UNKNOWN_MEMBER_ID: return cli_fail(EXIT_FAILED, cmd, "stop its members first; weir group describe shows them", "%s: %s", doing, e->text);
    case KAFKA_GROUP_ID_NOT_FOUND: return cli_fail(EXIT_FAILED, cmd, "weir group list shows what there is", "%s: %s", doing, e->text);
    case KAFKA_TOPIC_AUTHORIZATION_FAILED:
    case KAFKA_GROUP_AUTHORIZATION_FAILED:
    case KAFKA_CLUSTER_AUTHORIZATION_FAILED:
        return cli_fail(EXIT_FAILED, cmd, "on the host commands are User:ANONYMOUS: allow that in spec.acls of the Topic, or run the command in a workload", "%s: %s", doing, e->text);
    default: return cli_fail(EXIT_FAILED, cmd, NULL, "%s: %s", doing, e->text);
    }
}

static void ask_told(void *ctx, const struct log_fault *e, const struct log_answer *a)
{
    struct cli_log *k = ctx;
    k->told = true;
    k->code = e ? cli_log_failed(k, k->doing, e) : EXIT_OK;
    if (!e && k->answer)
        k->answer(k->ctx, a);
}

int cli_log_ask(struct cli_log *k, struct log_ask *ask, const char *doing, void (*answer)(void *ctx, const struct log_answer *a), void *ctx)
{
    k->told = false;
    k->doing = doing;
    k->answer = answer;
    k->ctx = ctx;
    ask->done = ask_told;
    ask->ctx = k;
    log_ask(k->client, ask);
    while (!k->told)
        loop_turn(k->loop, TURN_MS);
    return k->code;
}

/* ---- what people write --------------------------------------------------------------------------------------------------------- */

static bool time_ago(struct slice s, int64_t *ms)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    uint64_t n;
    for (size_t i = 0; i < COUNT_OF(units) && s.n > 1; i++)
        if (s.p[s.n - 1] == units[i].unit && slice_u64(slice_of(s.p, s.n - 1), 100000000, &n) == OK) {
            *ms = (int64_t)(wall_ns() / 1000000) - (int64_t)n * units[i].ms;
            return true;
        }
    return false;
}

int cli_log_place(const struct args *a, const char *text, int64_t *at, bool *is_time)
{
    struct tm tm = {0};
    uint64_t n;
    *is_time = false;
    if (strcmp(text, "beginning") == 0 || strcmp(text, "earliest") == 0)
        *at = LOG_BEGINNING;
    else if (strcmp(text, "end") == 0 || strcmp(text, "latest") == 0)
        *at = LOG_END;
    else if (slice_u64(slice_cstr(text), INT64_MAX, &n) == OK)
        *at = (int64_t)n;
    else {
        const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
        *is_time = true;
        if (rest && (!*rest || strcmp(rest, "Z") == 0))
            *at = (int64_t)timegm(&tm) * 1000;
        else if (!time_ago(slice_cstr(text), at))
            return cli_fail(EXIT_USAGE, a->cmd->name, "write beginning, end, an offset, a time such as 2026-11-21T18:00:00Z, or how long ago, such as 2h", "\"%s\" is no place in a log", text);
    }
    return EXIT_OK;
}

int cli_log_settings(const struct args *a, const char *option, struct log_setting **out, size_t *n)
{
    const char *given;
    size_t max = 0;
    *n = 0;
    while (args_nth(a, option, max))
        max++;
    *out = mem_new(MEM_MISC, (max + 1) * sizeof **out);
    for (; (given = args_nth(a, option, *n)); ++*n) {
        struct slice value, name = slice_cut(slice_cstr(given), '=', &value);
        if (!strchr(given, '=') || !name.n)
            return cli_fail(EXIT_USAGE, a->cmd->name, "write NAME=VALUE, such as retention.ms=86400000", "--%s \"%s\" is no setting", option, given);
        (*out)[*n] = (struct log_setting){.name = name, .value = value.p ? value : SLICE("")};
    }
    return EXIT_OK;
}

/* ---- output ---------------------------------------------------------------------------------------------------------------------- */

void cli_log_cell(struct grid *g, int64_t n)
{
    if (n < 0)
        grid_add(g, "%s", "");
    else
        grid_add(g, "%lld", (long long)n);
}

bool cli_log_json(const struct args *a) { return strcmp(args_str(a, "output", ""), "json") == 0; }

void cli_log_print(json_t *v)
{
    json_dumpf(v, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(v);
}

json_t *cli_log_text(struct slice s)
{
    if (!s.p)
        return json_null();
    json_t *v = json_stringn(s.p, s.n);
    if (v)
        return v;
    struct buf b = {0}; /* not UTF-8 */
    buf_add_json(&b, s);
    v = json_loads(b.p, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    buf_free(&b);
    return v ? v : json_null();
}
