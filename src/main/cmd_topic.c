/* cmd_topic.c - weir topic list|describe|create|delete|alter|grow: topics of a broker, by Kafka's protocol. */
#include "cli_log.h"

#include <stdlib.h>

struct topics {
    struct cli_log k;
    const struct args *a;
    /* copies of what was told: names in sorted order; of one topic also offsets and settings */
    struct shown_topic {
        char *name;
        int32_t partitions, replicas;
        bool internal;
        enum kafka_error error;
        int32_t *leaders;
        int64_t *begin, *end;
    } *items;
    size_t n;
    json_t *settings;          /* name -> value, of those that are not defaults */
    int64_t **offsets;         /* where offsets_told() writes */
    struct shown_topic *at;
};

static int by_name(const void *a, const void *b) { return strcmp(((const struct shown_topic *)a)->name, ((const struct shown_topic *)b)->name); }

static void topics_told(void *ctx, const struct log_answer *a)
{
    struct topics *t = ctx;
    t->items = mem_new(MEM_MISC, (a->topics_n + 1) * sizeof *t->items);
    for (size_t i = 0; i < a->topics_n; i++) {
        const struct log_topic *from = &a->topics[i];
        size_t bytes = ((size_t)from->partitions + 1) * sizeof(int64_t);
        struct shown_topic *to = &t->items[t->n++];
        *to = (struct shown_topic){.name = mem_strndup(MEM_MISC, from->name.p, from->name.n), .partitions = from->partitions, .replicas = from->replicas, .internal = from->internal, .error = from->error};
        to->leaders = mem_new(MEM_MISC, bytes);
        to->begin = mem_new(MEM_MISC, bytes);
        to->end = mem_new(MEM_MISC, bytes);
        for (int32_t p = 0; p < from->partitions; p++) {
            to->leaders[p] = from->leaders[p];
            to->begin[p] = to->end[p] = -1;
        }
    }
    qsort(t->items, t->n, sizeof *t->items, by_name);
}

static int topics_ask(struct topics *t, const struct slice *names, size_t n)
{
    struct log_ask ask = {.kind = LOG_ASK_TOPICS, .names = names, .names_n = n};
    int code = cli_log_ask(&t->k, &ask, "topics", topics_told, t);
    for (size_t i = 0; i < t->n && !code && n; i++)
        if (t->items[i].error) {
            struct buf b = {0};
            buf_printf(&b, "topic %s", t->items[i].name);
            struct log_fault e = {t->items[i].error, t->items[i].error == KAFKA_UNKNOWN_TOPIC_OR_PARTITION ? "there is no such topic" : kafka_error_name(t->items[i].error)};
            code = cli_log_failed(&t->k, b.p, &e);
            buf_free(&b);
        }
    return code;
}

/* ---- list -------------------------------------------------------------------------------------------------------------------------- */

static int topic_list(struct topics *t)
{
    static const char *const heads[] = {"NAME", "PARTITIONS", "REPLICAS"};
    int code = topics_ask(t, NULL, 0);
    if (code)
        return code;
    struct grid g;
    struct buf out = {0};
    json_t *list = json_array();
    grid_init(&g, heads, COUNT_OF(heads));
    for (size_t i = 0; i < t->n; i++) {
        const struct shown_topic *s = &t->items[i];
        if (s->internal && !args_has(t->a, "internal"))
            continue;
        grid_add(&g, "%s", s->name);
        grid_add(&g, "%d", s->partitions);
        grid_add(&g, "%d", s->replicas);
        json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:b}", "name", s->name, "partitions", s->partitions, "replicas", s->replicas, "internal", s->internal));
    }
    grid_write(&g, &out);
    if (cli_log_json(t->a))
        cli_log_print(json_incref(list));
    else
        fwrite(out.p, 1, out.n, stdout);
    json_decref(list);
    grid_free(&g);
    buf_free(&out);
    return EXIT_OK;
}

/* ---- describe ------------------------------------------------------------------------------------------------------------------------ */

static void offsets_told(void *ctx, const struct log_answer *a)
{
    struct topics *t = ctx;
    for (size_t i = 0; i < a->places_n; i++)
        if (a->places[i].partition < t->at->partitions)
            (*t->offsets)[a->places[i].partition] = a->places[i].error ? -1 : a->places[i].offset;
}

static int offsets_ask(struct topics *t, struct shown_topic *s, int64_t which, int64_t **out)
{
    struct log_place *places = mem_new(MEM_MISC, ((size_t)s->partitions + 1) * sizeof *places);
    for (int32_t p = 0; p < s->partitions; p++)
        places[p] = (struct log_place){.topic = slice_cstr(s->name), .partition = p, .offset = which};
    t->at = s;
    t->offsets = out;
    struct log_ask ask = {.kind = LOG_ASK_OFFSETS, .places = places, .places_n = (size_t)s->partitions};
    int code = cli_log_ask(&t->k, &ask, "offsets", offsets_told, t);
    mem_free(places);
    return code;
}

static void settings_told(void *ctx, const struct log_answer *a)
{
    struct topics *t = ctx;
    for (size_t i = 0; i < a->settings_n; i++) {
        char *name = mem_strndup(MEM_MISC, a->settings[i].name.p, a->settings[i].name.n);
        if (!a->settings[i].is_default || args_has(t->a, "all"))
            json_object_set_new(t->settings, name, cli_log_text(a->settings[i].value));
        mem_free(name);
    }
}

static void describe_text(const struct topics *t, const struct shown_topic *s)
{
    static const char *const heads[] = {"PARTITION", "LEADER", "BEGINNING", "END", "RECORDS"};
    const char *key;
    json_t *value;
    struct grid g;
    struct buf out = {0};
    grid_init(&g, heads, COUNT_OF(heads));
    for (int32_t p = 0; p < s->partitions; p++) {
        grid_add(&g, "%d", p);
        cli_log_cell(&g, s->leaders[p]);
        cli_log_cell(&g, s->begin[p]);
        cli_log_cell(&g, s->end[p]);
        cli_log_cell(&g, s->end[p] < 0 ? -1 : s->end[p] - s->begin[p]);
    }
    grid_write(&g, &out);
    printf("topic %s: %d partition%s%s\n", s->name, s->partitions, s->partitions == 1 ? "" : "s", s->internal ? ", internal" : "");
    json_object_foreach (t->settings, key, value)
        printf("  %s=%s\n", key, json_string_value(value) ? json_string_value(value) : "");
    printf("\n%s", out.p);
    grid_free(&g);
    buf_free(&out);
}

static void describe_json(const struct topics *t, const struct shown_topic *s)
{
    json_t *o = json_pack("{s:s,s:b,s:i,s:O}", "name", s->name, "internal", s->internal, "replicas", s->replicas, "settings", t->settings), *list = json_array();
    for (int32_t p = 0; p < s->partitions; p++)
        json_array_append_new(list, json_pack("{s:i,s:i,s:I,s:I}", "partition", p, "leader", s->leaders[p], "beginning", (json_int_t)s->begin[p], "end", (json_int_t)s->end[p]));
    json_object_set_new(o, "partitions", list);
    cli_log_print(o);
}

static int topic_describe(struct topics *t, const struct slice *names, size_t n)
{
    int code = topics_ask(t, names, n);
    for (size_t i = 0; i < t->n && !code; i++) {
        struct shown_topic *s = &t->items[i];
        struct log_ask ask = {.kind = LOG_ASK_SETTINGS, .name = slice_cstr(s->name)};
        json_decref(t->settings);
        t->settings = json_object();
        code = offsets_ask(t, s, LOG_BEGINNING, &s->begin);
        if (!code)
            code = offsets_ask(t, s, LOG_END, &s->end);
        if (!code)
            code = cli_log_ask(&t->k, &ask, "settings", settings_told, t);
        if (code)
            break;
        if (cli_log_json(t->a))
            describe_json(t, s);
        else
            describe_text(t, s);
    }
    return code;
}

/* ---- orders ------------------------------------------------------------------------------------------------------------------------------ */

static int partitions_read(const struct args *a, int32_t *n)
{
    uint64_t v = 0;
    int code = args_count(a, "partitions", 100000, &v);
    if (!code && args_has(a, "partitions") && !v)
        code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "--partitions must be at least 1");
    *n = v ? (int32_t)v : -1;
    return code;
}

static int order(struct topics *t, struct log_ask *ask, struct slice name, const char *done)
{
    struct buf doing = {0};
    ask->name = name;
    buf_printf(&doing, "topic " SLICE_FMT, SLICE_ARG(name));
    int code = cli_log_ask(&t->k, ask, doing.p, NULL, NULL);
    if (!code)
        printf("topic " SLICE_FMT " %s\n", SLICE_ARG(name), done);
    buf_free(&doing);
    return code;
}

static int topic_create(struct topics *t, const struct slice *names, size_t n)
{
    struct log_ask ask = {.kind = LOG_ASK_CREATE};
    struct log_setting *settings = NULL;
    int code = partitions_read(t->a, &ask.partitions);
    if (!code)
        code = cli_log_settings(t->a, "config", &settings, &ask.settings_n);
    ask.settings = settings;
    for (size_t i = 0; i < n && !code; i++)
        code = order(t, &ask, names[i], "created");
    mem_free(settings);
    return code;
}

static int topic_delete(struct topics *t, const struct slice *names, size_t n)
{
    int code = EXIT_OK;
    for (size_t i = 0; i < n; i++) { /* the first failure is returned, the others are tried all the same */
        struct log_ask ask = {.kind = LOG_ASK_DELETE};
        int one = order(t, &ask, names[i], "deleted");
        code = code ? code : one;
    }
    return code;
}

static int topic_grow(struct topics *t, const struct slice *names, size_t n)
{
    struct log_ask ask = {.kind = LOG_ASK_GROW};
    int code = partitions_read(t->a, &ask.partitions);
    if (!code && ask.partitions < 0)
        code = cli_fail(EXIT_USAGE, t->a->cmd->name, "say how many with --partitions N", "how many partitions is not given");
    for (size_t i = 0; i < n && !code; i++)
        code = order(t, &ask, names[i], "grown");
    return code;
}

static int topic_alter(struct topics *t, const struct slice *names, size_t n)
{
    struct log_setting *settings = NULL;
    size_t set = 0, unset = 0;
    int code = cli_log_settings(t->a, "config", &settings, &set);
    while (args_nth(t->a, "unset", unset))
        unset++;
    settings = mem_grow(MEM_MISC, settings, (set + unset + 1) * sizeof *settings);
    for (size_t i = 0; i < unset; i++)
        settings[set + i] = (struct log_setting){.name = slice_cstr(args_nth(t->a, "unset", i))};
    if (!code && !(set + unset))
        code = cli_fail(EXIT_USAGE, t->a->cmd->name, "use --config NAME=VALUE or --unset NAME", "what to alter is not given");
    struct log_ask ask = {.kind = LOG_ASK_SET, .settings = settings, .settings_n = set + unset};
    for (size_t i = 0; i < n && !code; i++)
        code = order(t, &ask, names[i], "altered");
    mem_free(settings);
    return code;
}

/* ---- the command --------------------------------------------------------------------------------------------------------------------------- */

static void topics_free(struct topics *t)
{
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->items[i].name);
        mem_free(t->items[i].leaders);
        mem_free(t->items[i].begin);
        mem_free(t->items[i].end);
    }
    mem_free(t->items);
    json_decref(t->settings);
    cli_log_close(&t->k);
}

int cmd_topic(struct args *a)
{
    static const struct {
        const char *word;
        int (*fn)(struct topics *t, const struct slice *names, size_t n);
    } orders[] = {{"describe", topic_describe}, {"create", topic_create}, {"delete", topic_delete}, {"grow", topic_grow}, {"alter", topic_alter}};
    struct topics t = {.a = a};
    const char *word = a->pos_n ? a->pos[0] : "";
    size_t n = a->pos_n ? a->pos_n - 1 : 0, i = 0;
    while (i < COUNT_OF(orders) && strcmp(orders[i].word, word) != 0)
        i++;
    bool list = strcmp(word, "list") == 0;
    if (!list && i == COUNT_OF(orders))
        return cli_fail(EXIT_USAGE, a->cmd->name, "say list, describe, create, delete, alter or grow", *word ? "\"%s\" is nothing to do with topics" : "what to do is not said%s", word);
    if (list == (n > 0))
        return cli_fail(EXIT_USAGE, a->cmd->name, list ? "use weir topic describe NAME" : "weir topic list shows what there is", list ? "list takes no names" : "no topic is named");
    int code = cli_log_open(&t.k, a, -1);
    if (code)
        return code;
    struct slice *names = mem_new(MEM_MISC, (n + 1) * sizeof *names);
    for (size_t k = 0; k < n; k++)
        names[k] = slice_cstr(a->pos[k + 1]);
    code = list ? topic_list(&t) : orders[i].fn(&t, names, n);
    mem_free(names);
    topics_free(&t);
    return code;
}
