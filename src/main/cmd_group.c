/* cmd_group.c - weir group list|describe|reset|delete: consumer groups of a broker, and how far behind they are. */
#include "cli_log.h"

#include <stdlib.h>

/* One partition that a group has a place in, or is assigned. */
struct row {
    char *topic;
    int32_t partition;
    int64_t place, end;        /* -1: none, not known */
    char *member, *host;       /* NULL: nobody has it */
};
struct groups {
    struct cli_log k;
    const struct args *a;
    struct row *rows; size_t n, cap;
    char *state, *protocol;
    size_t members;
    json_t *list;
};

static char *copy(struct slice s) { return mem_strndup(MEM_MISC, s.p ? s.p : "", s.n); }

static struct row *row_of(struct groups *g, struct slice topic, int32_t partition)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->rows[i].partition == partition && slice_is(topic, g->rows[i].topic))
            return &g->rows[i];
    ARRAY_GROW(MEM_MISC, g->rows, g->n, g->cap);
    g->rows[g->n] = (struct row){.topic = copy(topic), .partition = partition, .place = -1, .end = -1};
    return &g->rows[g->n++];
}

static int by_place(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    int c = strcmp(x->topic, y->topic);
    return c ? c : x->partition < y->partition ? -1 : x->partition > y->partition;
}

/* ---- list ------------------------------------------------------------------------------------------------------------------------------ */

static void list_told(void *ctx, const struct log_answer *a)
{
    struct groups *g = ctx;
    for (size_t i = 0; i < a->groups_n; i++)
        json_array_append_new(g->list, json_pack("{s:o,s:o,s:o}", "name", cli_log_text(a->groups[i].name), "state", cli_log_text(a->groups[i].state), "type", cli_log_text(a->groups[i].protocol)));
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static int by_group(const void *a, const void *b) { return strcmp(text_at(*(json_t *const *)a, "name"), text_at(*(json_t *const *)b, "name")); }

static int group_list(struct groups *g)
{
    static const char *const heads[] = {"NAME", "STATE"};
    struct log_ask ask = {.kind = LOG_ASK_GROUPS};
    struct grid grid;
    struct buf out = {0};
    size_t n = 0, i;
    json_t *o;
    g->list = json_array();
    int code = cli_log_ask(&g->k, &ask, "groups", list_told, g);
    if (code)
        return code;
    json_t **sorted = mem_new(MEM_MISC, (json_array_size(g->list) + 1) * sizeof *sorted);
    json_array_foreach (g->list, i, o)
        sorted[n++] = o;
    qsort(sorted, n, sizeof *sorted, by_group);
    grid_init(&grid, heads, COUNT_OF(heads));
    for (i = 0; i < n; i++) {
        grid_add(&grid, "%s", text_at(sorted[i], "name"));
        grid_add(&grid, "%s", text_at(sorted[i], "state"));
    }
    grid_write(&grid, &out);
    if (cli_log_json(g->a))
        cli_log_print(json_incref(g->list));
    else
        fwrite(out.p, 1, out.n, stdout);
    mem_free(sorted);
    grid_free(&grid);
    buf_free(&out);
    return EXIT_OK;
}

/* ---- what is known of one group ------------------------------------------------------------------------------------------------------------ */

static void group_told(void *ctx, const struct log_answer *a)
{
    struct groups *g = ctx;
    if (!a->groups_n)
        return;
    g->state = copy(a->groups[0].state);
    g->protocol = copy(a->groups[0].protocol);
    g->members = a->groups[0].members_n;
    for (uint32_t i = 0; i < a->groups[0].members_n; i++) {
        const struct log_member *m = &a->groups[0].members[i];
        for (uint32_t p = 0; p < m->places_n; p++) {
            struct row *r = row_of(g, m->places[p].topic, m->places[p].partition);
            r->member = copy(m->client_id);
            r->host = copy(m->host);
        }
    }
}

static void places_told(void *ctx, const struct log_answer *a)
{
    struct groups *g = ctx;
    for (size_t i = 0; i < a->places_n; i++)
        row_of(g, a->places[i].topic, a->places[i].partition)->place = a->places[i].offset;
}

static void ends_told(void *ctx, const struct log_answer *a)
{
    struct groups *g = ctx;
    for (size_t i = 0; i < a->places_n; i++)
        if (!a->places[i].error)
            row_of(g, a->places[i].topic, a->places[i].partition)->end = a->places[i].offset;
}

/* The offset that `which` says, of every row. */
static int ends_ask(struct groups *g, int64_t which)
{
    struct log_place *places = mem_new(MEM_MISC, (g->n + 1) * sizeof *places);
    for (size_t i = 0; i < g->n; i++)
        places[i] = (struct log_place){.topic = slice_cstr(g->rows[i].topic), .partition = g->rows[i].partition, .offset = which};
    struct log_ask ask = {.kind = LOG_ASK_OFFSETS, .places = places, .places_n = g->n};
    int code = g->n ? cli_log_ask(&g->k, &ask, "offsets", ends_told, g) : EXIT_OK;
    mem_free(places);
    return code;
}

static int group_ask(struct groups *g, const char *name)
{
    struct buf doing = {0};
    struct log_ask group = {.kind = LOG_ASK_GROUP, .name = slice_cstr(name)}, places = {.kind = LOG_ASK_GROUP_PLACES, .name = slice_cstr(name)};
    buf_printf(&doing, "group %s", name);
    int code = cli_log_ask(&g->k, &group, doing.p, group_told, g);
    if (!code)
        code = cli_log_ask(&g->k, &places, doing.p, places_told, g);
    buf_free(&doing);
    return code;
}

/* ---- describe ---------------------------------------------------------------------------------------------------------------------------------- */

static void describe_text(const struct groups *g, const char *name)
{
    static const char *const heads[] = {"TOPIC", "PARTITION", "PLACE", "END", "LAG", "MEMBER", "HOST"};
    struct grid grid;
    struct buf out = {0};
    printf("group %s: %s, %zu member%s%s%s\n\n", name, g->state, g->members, g->members == 1 ? "" : "s", *g->protocol ? ", " : "", g->protocol);
    grid_init(&grid, heads, COUNT_OF(heads));
    for (size_t i = 0; i < g->n; i++) {
        const struct row *r = &g->rows[i];
        grid_add(&grid, "%s", r->topic);
        grid_add(&grid, "%d", r->partition);
        cli_log_cell(&grid, r->place);
        cli_log_cell(&grid, r->end);
        cli_log_cell(&grid, r->place < 0 || r->end < 0 ? -1 : MAX(r->end - r->place, 0));
        grid_add(&grid, "%s", r->member ? r->member : "");
        grid_add(&grid, "%s", r->host ? r->host : "");
    }
    grid_write(&grid, &out);
    fwrite(out.p, 1, out.n, stdout);
    grid_free(&grid);
    buf_free(&out);
}

static void describe_json(const struct groups *g, const char *name)
{
    json_t *o = json_pack("{s:s,s:s,s:s,s:I}", "name", name, "state", g->state, "protocol", g->protocol, "members", (json_int_t)g->members), *list = json_array();
    for (size_t i = 0; i < g->n; i++) {
        const struct row *r = &g->rows[i];
        json_t *p = json_pack("{s:s,s:i,s:I,s:I,s:s?,s:s?}", "topic", r->topic, "partition", r->partition, "place", (json_int_t)r->place, "end", (json_int_t)r->end, "member", r->member, "host", r->host);
        if (r->place >= 0 && r->end >= 0)
            json_object_set_new(p, "lag", json_integer((json_int_t)MAX(r->end - r->place, 0)));
        json_array_append_new(list, p);
    }
    json_object_set_new(o, "partitions", list);
    cli_log_print(o);
}

static int group_describe(struct groups *g, const char *name)
{
    int code = group_ask(g, name);
    if (!code)
        code = ends_ask(g, LOG_END);
    if (code)
        return code;
    qsort(g->rows, g->n, sizeof *g->rows, by_place);
    if (cli_log_json(g->a))
        describe_json(g, name);
    else
        describe_text(g, name);
    return EXIT_OK;
}

/* ---- reset ------------------------------------------------------------------------------------------------------------------------------------------ */

static void topics_told(void *ctx, const struct log_answer *a)
{
    struct groups *g = ctx;
    for (size_t i = 0; i < a->topics_n; i++)
        for (int32_t p = 0; !a->topics[i].error && p < a->topics[i].partitions; p++)
            row_of(g, a->topics[i].name, p);
}

/* Rows become those of the named topics, all of their partitions; without names what the group has places in. */
static int reset_rows(struct groups *g, const char *name)
{
    const struct args *a = g->a;
    if (a->pos_n < 3) {
        struct log_ask places = {.kind = LOG_ASK_GROUP_PLACES, .name = slice_cstr(name)};
        int code = cli_log_ask(&g->k, &places, name, places_told, g);
        return code || g->n ? code : cli_fail(EXIT_FAILED, a->cmd->name, "name topics behind it", "the group %s has no places to move", name);
    }
    struct slice *names = mem_new(MEM_MISC, a->pos_n * sizeof *names);
    for (size_t i = 2; i < a->pos_n; i++)
        names[i - 2] = slice_cstr(a->pos[i]);
    struct log_ask ask = {.kind = LOG_ASK_TOPICS, .names = names, .names_n = a->pos_n - 2};
    int code = cli_log_ask(&g->k, &ask, "topics", topics_told, g);
    mem_free(names);
    return code || g->n ? code : cli_fail(EXIT_FAILED, a->cmd->name, "weir topic list shows what there is", "there is no such topic");
}

/* Partitions without a record so young: their end. */
static int ends_late(struct groups *g)
{
    struct groups rest = {.k = g->k, .a = g->a};
    for (size_t i = 0; i < g->n; i++)
        if (g->rows[i].end < 0)
            row_of(&rest, slice_cstr(g->rows[i].topic), g->rows[i].partition);
    int code = ends_ask(&rest, LOG_END);
    for (size_t i = 0; i < rest.n; i++) {
        row_of(g, slice_cstr(rest.rows[i].topic), rest.rows[i].partition)->end = rest.rows[i].end;
        mem_free(rest.rows[i].topic);
    }
    mem_free(rest.rows);
    return code;
}

/* An offset that a partition has not is its beginning or its end, whichever is nearer, as kafka-consumer-groups.sh does: a reader at a place that is not there would
 * go where its auto.offset.reset says, and perhaps pass records over. How many those are: *moved. */
static int ends_within(struct groups *g, int64_t to, size_t *moved)
{
    int64_t *first = mem_new(MEM_MISC, (g->n + 1) * sizeof *first);
    int code = ends_ask(g, LOG_BEGINNING);
    for (size_t i = 0; i < g->n; i++)
        first[i] = g->rows[i].end;
    code = code ? code : ends_ask(g, LOG_END);
    for (size_t i = 0; i < g->n && !code; i++) {
        int64_t at = MIN(MAX(to, first[i]), MAX(g->rows[i].end, 0));
        *moved += at != to;
        g->rows[i].end = at;
    }
    mem_free(first);
    return code;
}

static int group_reset(struct groups *g, const char *name)
{
    int64_t to = 0;
    bool is_time;
    size_t moved = 0;
    struct buf doing = {0};
    const char *text = args_str(g->a, "to", NULL);
    int code = text ? cli_log_place(g->a, text, &to, &is_time) : cli_fail(EXIT_USAGE, g->a->cmd->name, "write --to beginning, end, an offset or a time", "where to is not said");
    if (!code)
        code = reset_rows(g, name);
    if (!code)
        code = to < 0 || is_time ? ends_ask(g, to) : ends_within(g, to, &moved);
    if (!code && is_time)
        code = ends_late(g);
    struct log_place *places = mem_new(MEM_MISC, (g->n + 1) * sizeof *places);
    for (size_t i = 0; i < g->n; i++)
        places[i] = (struct log_place){.topic = slice_cstr(g->rows[i].topic), .partition = g->rows[i].partition, .offset = g->rows[i].end};
    struct log_ask ask = {.kind = LOG_ASK_GROUP_MOVE, .name = slice_cstr(name), .places = places, .places_n = g->n};
    buf_printf(&doing, "group %s", name);
    if (!code)
        code = cli_log_ask(&g->k, &ask, doing.p, NULL, NULL);
    if (!code)
        printf("group %s: %zu partition%s moved to %s\n", name, g->n, g->n == 1 ? "" : "s", text);
    if (!code && moved)
        printf("group %s: %zu of them to the beginning or end, having no such offset\n", name, moved);
    buf_free(&doing);
    mem_free(places);
    return code;
}

static int group_delete(struct groups *g, const char *name)
{
    struct buf doing = {0};
    struct log_ask ask = {.kind = LOG_ASK_GROUP_DELETE, .name = slice_cstr(name)};
    buf_printf(&doing, "group %s", name);
    int code = cli_log_ask(&g->k, &ask, doing.p, NULL, NULL);
    if (!code)
        printf("group %s deleted\n", name);
    buf_free(&doing);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------------------------------------ */

static void groups_free(struct groups *g)
{
    for (size_t i = 0; i < g->n; i++) {
        mem_free(g->rows[i].topic);
        mem_free(g->rows[i].member);
        mem_free(g->rows[i].host);
    }
    mem_free(g->rows);
    mem_free(g->state);
    mem_free(g->protocol);
    json_decref(g->list);
    cli_log_close(&g->k);
}

int cmd_group(struct args *a)
{
    static const struct {
        const char *word;
        int (*fn)(struct groups *g, const char *name);
        bool more;
    } orders[] = {{"describe", group_describe, false}, {"reset", group_reset, true}, {"delete", group_delete, false}};
    struct groups g = {.a = a};
    const char *word = a->pos_n ? a->pos[0] : "";
    size_t i = 0;
    while (i < COUNT_OF(orders) && strcmp(orders[i].word, word) != 0)
        i++;
    bool list = strcmp(word, "list") == 0;
    if (!list && i == COUNT_OF(orders))
        return cli_fail(EXIT_USAGE, a->cmd->name, "say list, describe, reset or delete", *word ? "\"%s\" is nothing to do with groups" : "what to do is not said%s", word);
    if (list ? a->pos_n != 1 : a->pos_n < 2 || (a->pos_n > 2 && !orders[i].more))
        return cli_fail(EXIT_USAGE, a->cmd->name, "weir group list shows what there is", list ? "list takes no names" : "name one group");
    int code = cli_log_open(&g.k, a, -1);
    if (!code)
        code = list ? group_list(&g) : orders[i].fn(&g, a->pos[1]);
    groups_free(&g);
    return code;
}
