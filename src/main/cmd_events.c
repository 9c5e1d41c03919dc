/* cmd_events.c - weir events: what happened in the last hour, and with -w what happens.
 *
 * Following is a stream of JSON objects, one a line; when another engine takes over, it is asked for again, and what was shown is left out.
 */
#include "cli.h"

#include <ctype.h>

struct following {
    struct buf part;    /* the line that is still arriving */
    bool json;
    bool interrupted;   /* another engine takes over: it is asked again */
    json_int_t last_ns; /* of what was shown */
    json_int_t shown_ns;/* what is older was shown before the interruption. Within a stream those of other nodes come late */
};

static const json_t *at(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    return b ? json_object_get(v, b) : v;
}

static const char *text(const json_t *o, const char *a, const char *b)
{
    const char *s = json_string_value(at(o, a, b));
    return s ? s : "";
}

/* "12s", and of what happened more than once "12s (x5 over 3m)". */
static void when(const json_t *e, struct buf *out)
{
    char last[16], first[16];
    json_int_t count = json_integer_value(at(e, "count", NULL));
    age_text(text(e, "lastTimestamp", NULL), last);
    age_text(text(e, "firstTimestamp", NULL), first);
    buf_adds(out, last);
    if (count > 1)
        buf_printf(out, " (x%lld over %s)", (long long)count, first);
}

static void object(const json_t *e, struct buf *out)
{
    for (const char *k = text(e, "involvedObject", "kind"); *k; k++)
        buf_addc(out, (char)tolower((unsigned char)*k));
    buf_printf(out, "/%s", text(e, "involvedObject", "name"));
}

static void row(struct grid *g, const json_t *e, bool all)
{
    struct buf age = {0}, what = {0};
    when(e, &age);
    object(e, &what);
    if (all)
        grid_add(g, "%s", text(e, "metadata", "namespace"));
    grid_add(g, "%s", age.p);
    grid_add(g, "%s", text(e, "type", NULL));
    grid_add(g, "%s", text(e, "reason", NULL));
    grid_add(g, "%s", what.p);
    grid_add(g, "%s", text(e, "message", NULL));
    buf_free(&age);
    buf_free(&what);
}

static void list_show(const json_t *list, bool all)
{
    static const char *const heads[] = {"NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"};
    struct grid g;
    struct buf out = {0};
    size_t i;
    json_t *e;
    grid_init(&g, heads + !all, COUNT_OF(heads) - !all);
    json_array_foreach (json_object_get(list, "items"), i, e)
        row(&g, e, all);
    grid_write(&g, &out);
    fwrite(out.p, 1, out.n, stdout);
    buf_free(&out);
    grid_free(&g);
}

/* A line of its own: the widths of a table are not known before its end. */
static void line_show(struct following *f, struct slice line)
{
    json_t *e = json_loadb(line.p, line.n, 0, NULL);
    json_int_t last_ns = json_integer_value(at(e, "weir.dev/stored", "last_ns"));
    if (json_is_true(json_object_get(e, "interrupted"))) {
        f->interrupted = true;
    } else if (last_ns > f->shown_ns && f->json) {
        f->last_ns = MAX(f->last_ns, last_ns);
        printf(SLICE_FMT "\n", SLICE_ARG(line));
    } else if (last_ns > f->shown_ns) {
        struct buf age = {0}, what = {0};
        f->last_ns = MAX(f->last_ns, last_ns);
        when(e, &age);
        object(e, &what);
        printf("%-20s %-8s %-12s %-40s %s\n", age.p, text(e, "type", NULL), text(e, "reason", NULL), what.p, text(e, "message", NULL));
        buf_free(&age);
        buf_free(&what);
    }
    fflush(stdout);
    json_decref(e);
}

static bool take(void *ctx, struct slice data)
{
    struct following *f = ctx;
    struct slice rest;
    buf_add_slice(&f->part, data);
    size_t whole = 0;
    for (size_t i = 0; i < f->part.n; i++)
        if (f->part.p[i] == '\n') {
            line_show(f, slice_of(f->part.p + whole, i - whole));
            whole = i + 1;
        }
    rest = slice_of(f->part.p + whole, f->part.n - whole);
    memmove(f->part.p, rest.p, rest.n);
    f->part.n = rest.n;
    return true;
}

static int follow(const struct args *a, struct buf *target, bool json)
{
    struct following f = {.json = json};
    int code;
    query_add(target, "follow", "1");
    do {
        f.interrupted = false;
        f.shown_ns = f.last_ns;
        code = node_stream(a, target->p, 0, NULL, take, &f);
    } while (!code && f.interrupted);
    buf_free(&f.part);
    return code;
}

int cmd_events(struct args *a)
{
    struct buf target = {0};
    json_t *list = NULL;
    bool all = args_has(a, "all-namespaces");
    const char *format = args_str(a, "output", ""), *about = args_str(a, "for", NULL);
    if (a->pos_n)
        return cli_fail(EXIT_USAGE, a->cmd->name, "name an object with --for KIND/NAME", "\"%s\" is too much", a->pos[0]);
    if (*format && strcmp(format, "json") != 0)
        return cli_fail(EXIT_USAGE, a->cmd->name, "use json", "there is no format \"%s\"", format);
    buf_adds(&target, "/v1/events");
    if (!all)
        query_add(&target, "namespace", args_namespace(a));
    if (about)
        query_add(&target, "for", about);
    int code = args_has(a, "watch") ? follow(a, &target, *format) : node_get_json(a, target.p, &list);
    if (list && *format)
        json_dumpf(list, stdout, JSON_INDENT(2)), putchar('\n');
    else if (list)
        list_show(list, all);
    json_decref(list);
    buf_free(&target);
    return code;
}
