/* cmd_history.c - weir history, weir rollback: the system's revisions, and the way back to one. */
#include "changes.h"
#include "diff.h"

#include <ctype.h>

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void thing(struct buf *out, const json_t *change)
{
    for (const char *k = text(change, "kind"); *k; k++)
        buf_addc(out, (char)tolower((unsigned char)*k));
    buf_printf(out, "/%s %s", text(change, "name"), text(change, "change"));
}

/* "deployment/web configured, and 2 more" */
static void changes_cell(struct grid *g, const json_t *revision)
{
    const json_t *changes = json_object_get(revision, "changes");
    struct buf b = {0};
    size_t n = json_array_size(changes);
    if (n)
        thing(&b, json_array_get(changes, 0));
    if (n > 1)
        buf_printf(&b, ", and %zu more", n - 1);
    grid_add(g, "%s", b.p ? b.p : "");
    buf_free(&b);
}

static void list_show(const json_t *list)
{
    static const char *const heads[] = {"REVISION", "AGE", "BY", "WHAT", "CHANGES"};
    struct grid g;
    struct buf out = {0};
    size_t i;
    json_t *r;
    grid_init(&g, heads, COUNT_OF(heads));
    json_array_foreach (json_object_get(list, "items"), i, r) {
        char age[16];
        age_text(text(r, "time"), age);
        grid_add(&g, "%lld", (long long)json_integer_value(json_object_get(r, "revision")));
        grid_add(&g, "%s", age);
        grid_add(&g, "%s", text(r, "by"));
        grid_add(&g, "%s", text(r, "what"));
        changes_cell(&g, r);
    }
    grid_write(&g, &out);
    fwrite(out.p, 1, out.n, stdout);
    buf_free(&out);
    grid_free(&g);
}

static void change_show(const json_t *change)
{
    struct buf name = {0}, out = {0};
    const char *ns = text(change, "namespace");
    buf_printf(&name, "%s/%s%s%s", text(change, "kind"), ns, *ns ? "/" : "", text(change, "name"));
    thing(&out, change);
    if (*ns && strcmp(ns, "default") != 0)
        buf_printf(&out, " in namespace %s", ns);
    buf_addc(&out, '\n');
    diff_json(name.p, json_object_get(change, "before"), json_object_get(change, "after"), cli_colour(stdout), &out);
    fwrite(out.p, 1, out.n, stdout);
    buf_free(&name);
    buf_free(&out);
}

static void revision_show(const json_t *r)
{
    size_t i;
    json_t *change;
    const char *by = text(r, "by");
    printf("revision %lld, %s: %s%s%s\n", (long long)json_integer_value(json_object_get(r, "revision")), text(r, "time"), text(r, "what"), *by ? ", by " : "", by);
    json_array_foreach (json_object_get(r, "changes"), i, change)
        change_show(change);
}

static int number(const struct args *a, size_t i, uint64_t *out)
{
    if (slice_u64(slice_cstr(a->pos[i]), INT64_MAX, out) == OK && *out)
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, a->cmd->name, "weir history lists them", "\"%s\" is no revision", a->pos[i]);
}

int cmd_history(struct args *a)
{
    uint64_t n = 0;
    struct buf target = {0};
    json_t *answer = NULL;
    const char *format = args_str(a, "output", "");
    int code = a->pos_n ? number(a, 0, &n) : EXIT_OK;
    if (!code && a->pos_n > 1)
        code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "name one revision, or none");
    if (!code && *format && strcmp(format, "json") != 0 && strcmp(format, "yaml") != 0)
        code = cli_fail(EXIT_USAGE, a->cmd->name, "use json or yaml", "there is no format \"%s\"", format);
    buf_adds(&target, "/v1/history");
    if (n)
        buf_printf(&target, "/%llu", (unsigned long long)n);
    if (!code)
        code = node_get_json(a, target.p, &answer);
    if (!code && strcmp(format, "yaml") == 0)
        yaml_write(answer, stdout);
    else if (!code && *format)
        json_dumpf(answer, stdout, JSON_INDENT(2)), putchar('\n');
    else if (!code && n)
        revision_show(answer);
    else if (!code)
        list_show(answer);
    json_decref(answer);
    buf_free(&target);
    return code;
}

int cmd_rollback(struct args *a)
{
    uint64_t n;
    struct buf body = {0};
    bool dry_run = args_has(a, "dry-run");
    if (a->pos_n != 1)
        return cli_fail(EXIT_USAGE, a->cmd->name, "weir history lists them", "name the revision to go back to");
    int code = number(a, 0, &n);
    if (!code) {
        buf_printf(&body, "{\"revision\":%llu,\"dry_run\":%s,\"diff\":%s", (unsigned long long)n, dry_run ? "true" : "false", args_has(a, "diff") ? "true" : "false");
        changes_by(&body);
        buf_addc(&body, '}');
        code = changes_request(a, "/v1/rollback", buf_slice(&body), dry_run ? " (dry run)" : "");
    }
    buf_free(&body);
    return code;
}
