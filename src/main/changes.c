/* changes.c - sending a change to the node and showing its answer: {"diagnostics":[...],"changes":[...]}. */
#include "changes.h"
#include "diff.h"

#include <ctype.h>

void changes_by(struct buf *body)
{
    const char *who = cli_env("SUDO_USER");
    who = who ? who : cli_env("USER");
    who = who ? who : cli_env("LOGNAME");
    buf_adds(body, ",\"by\":");
    buf_add_json(body, slice_cstr(who ? who : ""));
}

static char *member(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return (char *)(uintptr_t)(s ? s : "");
}

static void show_diag(const json_t *o)
{
    struct diag d = {
        .level = strcmp(member(o, "level"), "error") == 0 ? DIAG_ERROR : DIAG_WARNING,
        .file = member(o, "file"),
        .line = (uint32_t)json_integer_value(json_object_get(o, "line")),
        .column = (uint32_t)json_integer_value(json_object_get(o, "column")),
        .where = member(o, "where"),
        .reason = member(o, "reason"),
        .remedy = member(o, "remedy"),
    };
    diag_print(&d);
}

/* "deployment/catalog created", as kubectl words it; the namespace when it is not the default one. */
static void show_change(const json_t *o, const char *suffix)
{
    const char *ns = member(o, "namespace");
    for (const char *k = member(o, "kind"); *k; k++)
        putchar(tolower((unsigned char)*k));
    printf("/%s %s", member(o, "name"), member(o, "change"));
    if (*ns && strcmp(ns, "default") != 0)
        printf(" in namespace %s", ns);
    puts(suffix);
}

/* True: there is one. */
static bool show_diff(const json_t *o)
{
    struct buf name = {0}, out = {0};
    const char *ns = member(o, "namespace");
    const json_t *after = json_object_get(o, "after");
    buf_printf(&name, "%s/%s%s%s", member(o, "kind"), ns, *ns ? "/" : "", member(o, "name"));
    if (after)
        diff_json(name.p, json_object_get(o, "before"), after, cli_colour(stdout), &out);
    bool any = out.n > 0;
    if (any)
        fwrite(out.p, 1, out.n, stdout);
    buf_free(&name);
    buf_free(&out);
    return any;
}

static int show_answer(const struct args *a, const struct client_answer *answer, const char *suffix)
{
    json_t *o = json_loadb(answer->body.p ? answer->body.p : "", answer->body.n, JSON_ALLOW_NUL, NULL), *e;
    const char *error = json_string_value(json_object_get(o, "error"));
    size_t i, errors = 0, missing = 0, differ = 0;
    int code = EXIT_OK;
    json_array_foreach (json_object_get(o, "diagnostics"), i, e) {
        show_diag(e);
        errors += strcmp(member(e, "level"), "error") == 0;
    }
    json_array_foreach (json_object_get(o, "changes"), i, e) {
        differ += show_diff(e);
        if (suffix)
            show_change(e, suffix);
        missing += strcmp(member(e, "change"), "not found") == 0;
    }
    if (errors)
        code = cli_fail(EXIT_USAGE, a->cmd->name, "correct what is listed above", "%zu error%s, nothing was done", errors, errors == 1 ? "" : "s");
    else if (!o || answer->status == 422)
        code = cli_fail(EXIT_FAILED, a->cmd->name, "is the node of another version?", "the node's answer can't be read");
    else if (error)
        code = cli_fail(EXIT_FAILED, a->cmd->name, member(o, "remedy"), "%s", error);
    else if (missing && !args_has(a, "ignore-not-found"))
        code = cli_fail(EXIT_FAILED, a->cmd->name, "--ignore-not-found makes that no error", "%zu of the objects %s not there", missing, missing == 1 ? "was" : "were");
    if (!code && !suffix && differ)
        code = EXIT_FAILED;
    json_decref(o);
    return code;
}

int changes_request(const struct args *a, const char *target, struct slice body, const char *suffix)
{
    struct client_answer answer;
    int code = node_call(a, "POST", target, body, 422, &answer);
    if (!code)
        code = show_answer(a, &answer, suffix);
    buf_free(&answer.body);
    return code;
}
