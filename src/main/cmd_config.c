/* cmd_config.c - weir config: ConfigMaps and Secrets, their keys and their past.
 *
 *     get        GET /v1/objects                            values of ConfigMaps; of Secrets sizes and digests, which is all that leaves the node
 *     set        POST /v1/apply, as an update by "weir-config"     only the keys that are given change; they are its own from then on
 *     history    GET /v1/history, what is about this object
 *     diff       GET /v1/history/N                          the object after two revisions
 *     rollback   POST /v1/rollback, of this object alone
 *     watch      GET /v1/watch
 *
 * What is given on a command line can be seen by others on the machine (ps) and stays in the shell's history: values of Secrets are better given as
 * KEY=@FILE or KEY=@-, and help says so.
 */
#include "changes.h"
#include "diff.h"
#include "json_buf.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <time.h>
#include <unistd.h>

#define MANAGER "weir-config"
#define VALUE_BYTES_MAX (1u << 20) /* as Kubernetes has it for a whole ConfigMap */

/* ---- which object ----------------------------------------------------------------------------------------------------------- */

struct config {
    const struct args *a;
    bool secret;
    const char *name;
};

static const char *kind_of(const struct config *c) { return c->secret ? "Secret" : "ConfigMap"; }

/* NAME, configmap/NAME, secret/NAME. */
static int config_read(const struct args *a, struct config *c)
{
    const char *text = a->pos_n > 1 ? a->pos[1] : "", *slash = strchr(text, '/');
    enum obj_kind k = OBJ_CONFIGMAP;
    *c = (struct config){.a = a, .name = slash ? slash + 1 : text};
    bool known = !slash || (obj_kind_parse(slice_of(text, (size_t)(slash - text)), &k) && (k == OBJ_CONFIGMAP || k == OBJ_SECRET));
    c->secret = k == OBJ_SECRET;
    if (*c->name && known && !strchr(c->name, '/'))
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, a->cmd->name, "write NAME, configmap/NAME or secret/NAME", *text ? "\"%s\" names no ConfigMap or Secret" : "no ConfigMap or Secret is named%s", text);
}

static void ref_add(const struct config *c, struct buf *body)
{
    buf_printf(body, "\"kind\":\"%s\",\"namespace\":", kind_of(c));
    buf_add_json(body, slice_cstr(args_namespace(c->a)));
    buf_adds(body, ",\"name\":");
    buf_add_json(body, slice_cstr(c->name));
}

/* *object: NULL when it is not there; a new reference. */
static int object_get(const struct config *c, json_t **object)
{
    struct buf target = {0};
    json_t *list = NULL;
    buf_adds(&target, "/v1/objects");
    query_add(&target, "kind", kind_of(c));
    query_add(&target, "namespace", args_namespace(c->a));
    query_add(&target, "name", c->name);
    int code = node_get_json(c->a, target.p, &list);
    *object = json_incref(json_array_get(json_object_get(list, "items"), 0));
    json_decref(list);
    buf_free(&target);
    return code;
}

static int missing(const struct config *c)
{
    return cli_fail(EXIT_FAILED, c->a->cmd->name, "list what is there with weir get configmaps, weir get secrets", "there is no %s %s in the namespace %s", kind_of(c), c->name, args_namespace(c->a));
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* ---- get ----------------------------------------------------------------------------------------------------------------------- */

/* One value as it is, for scripts; a line of its own when it does not end one. */
static int value_show(const struct config *c, const json_t *object, const char *key)
{
    const json_t *v = json_object_get(json_object_get(object, "data"), key);
    const char *s = json_string_value(v);
    size_t n = json_string_length(v);
    if (!s && json_object_get(json_object_get(object, "binaryData"), key))
        return cli_fail(EXIT_FAILED, c->a->cmd->name, "see weir get configmaps -o yaml", "%s is binary", key);
    if (!s)
        return cli_fail(EXIT_FAILED, c->a->cmd->name, "weir config get without a key shows all", "the %s %s has no key %s", kind_of(c), c->name, key);
    fwrite(s, 1, n, stdout);
    if (!n || s[n - 1] != '\n')
        putchar('\n');
    return EXIT_OK;
}

static void values_show(const json_t *object)
{
    json_t *all = json_object();
    json_object_update(all, json_object_get(object, "data"));
    json_object_update(all, json_object_get(object, "binaryData"));
    if (json_object_size(all))
        yaml_write(all, stdout);
    json_decref(all);
}

static int config_get(const struct config *c)
{
    json_t *o = NULL;
    const char *format = args_str(c->a, "output", "");
    int code = object_get(c, &o);
    if (!code && !o)
        code = missing(c);
    else if (!code && c->a->pos_n > 2)
        code = value_show(c, o, c->a->pos[2]);
    else if (!code && strcmp(format, "json") == 0)
        json_dumpf(o, stdout, JSON_INDENT(2)), putchar('\n');
    else if (!code && strcmp(format, "yaml") == 0)
        yaml_write(o, stdout);
    else if (!code && *format)
        code = cli_fail(EXIT_USAGE, c->a->cmd->name, "use json or yaml", "there is no format \"%s\"", format);
    else if (!code)
        values_show(o);
    json_decref(o);
    return code;
}

/* ---- set ------------------------------------------------------------------------------------------------------------------------- */

static int stdin_read(const struct config *c, struct buf *out)
{
    ssize_t n;
    do {
        buf_reserve(out, 65536);
        n = read(STDIN_FILENO, out->p + out->n, 65536);
        out->n += n > 0 ? (size_t)n : 0;
    } while (n > 0 && out->n <= VALUE_BYTES_MAX);
    return n < 0 ? cli_fail(EXIT_FAILED, c->a->cmd->name, NULL, "standard input can't be read") : EXIT_OK;
}

/* What follows "KEY=". */
static int value_read(const struct config *c, const char *given, struct buf *out)
{
    int code = EXIT_OK;
    enum err e = OK;
    if (given[0] != '@') {
        buf_adds(out, given);
    } else if (strcmp(given, "@-") == 0) {
        code = stdin_read(c, out);
    } else {
        e = file_read(given + 1, out, VALUE_BYTES_MAX);
    }
    if (!code && e != OK)
        code = e == ERR_LIMIT ? cli_fail(EXIT_FAILED, c->a->cmd->name, "a ConfigMap or Secret holds small values; keep big files elsewhere", "%s has more than %u bytes", given + 1, (unsigned)VALUE_BYTES_MAX)
                              : cli_fail(EXIT_FAILED, c->a->cmd->name, NULL, "%s can't be read: %s", given + 1, err_text(e));
    if (!code && out->n > VALUE_BYTES_MAX)
        code = cli_fail(EXIT_USAGE, c->a->cmd->name, NULL, "a value has more than %u bytes", VALUE_BYTES_MAX);
    return code;
}

static json_t *value_json(const struct config *c, const struct buf *value)
{
    struct buf b64 = {0};
    if (!c->secret)
        return json_stringn(value->p ? value->p : "", value->n); /* NULL: not UTF-8 */
    buf_reserve(&b64, (value->n + 2) / 3 * 4 + 1);
    b64.n = (size_t)EVP_EncodeBlock((unsigned char *)b64.p, (const unsigned char *)(value->p ? value->p : ""), (int)value->n);
    json_t *v = json_stringn(b64.p, b64.n);
    OPENSSL_cleanse(b64.p, b64.cap);
    buf_free(&b64);
    return v;
}

/* KEY=VALUE, KEY=@FILE, or KEY- to remove it. */
static int setting_add(const struct config *c, const char *word, json_t *data)
{
    const char *equals = strchr(word, '=');
    size_t n = strlen(word);
    struct buf value = {0};
    bool removal = !equals && n > 1 && word[n - 1] == '-';
    if (!removal && (!equals || equals == word))
        return cli_fail(EXIT_USAGE, c->a->cmd->name, "write KEY=VALUE, KEY=@FILE, or KEY- to remove a key", "\"%s\" sets nothing", word);
    int code = removal ? EXIT_OK : value_read(c, equals + 1, &value);
    json_t *v = code ? NULL : removal ? json_null() : value_json(c, &value);
    char *key = mem_strndup(MEM_MISC, word, removal ? n - 1 : (size_t)(equals - word));
    if (!code && !v)
        code = cli_fail(EXIT_USAGE, c->a->cmd->name, "give it in binaryData of a manifest, in base64", "the value of %s is not UTF-8", key);
    else if (!code && json_object_set_new(data, key, v) != 0)
        code = cli_fail(EXIT_USAGE, c->a->cmd->name, NULL, "the key is not UTF-8");
    if (value.p)
        OPENSSL_cleanse(value.p, value.cap);
    buf_free(&value);
    mem_free(key);
    return code;
}

static void set_body(const struct config *c, json_t *data, struct buf *body)
{
    struct buf manifest = {0};
    json_t *m = json_pack("{s:s, s:s, s:{s:s, s:s}, s:O}", "apiVersion", "v1", "kind", kind_of(c), "metadata", "name", c->name, "namespace", args_namespace(c->a), "data", data);
    (void)json_buf_add(m, JSON_COMPACT, &manifest);
    buf_adds(body, "{\"files\":[{\"file\":\"weir config set\",\"dir\":\"/\",\"text\":");
    buf_add_json(body, buf_slice(&manifest));
    buf_printf(body, "}],\"patch\":true,\"manager\":\"" MANAGER "\",\"what\":\"config set\",\"dry_run\":%s,\"diff\":%s", args_has(c->a, "dry-run") ? "true" : "false",
               args_has(c->a, "diff") ? "true" : "false");
    changes_by(body);
    buf_addc(body, '}');
    json_decref(m);
    if (manifest.p)
        OPENSSL_cleanse(manifest.p, manifest.cap);
    buf_free(&manifest);
}

static int config_set(const struct config *c)
{
    json_t *data = json_object();
    struct buf body = {0};
    int inputs = 0;
    int code = c->a->pos_n > 2 ? EXIT_OK : cli_fail(EXIT_USAGE, c->a->cmd->name, "write KEY=VALUE, KEY=@FILE, or KEY- to remove a key", "nothing to set");
    for (size_t i = 2; !code && i < c->a->pos_n; i++) {
        const char *equals = strchr(c->a->pos[i], '=');
        inputs += equals && strcmp(equals, "=@-") == 0;
        if (inputs > 1)
            code = cli_fail(EXIT_USAGE, c->a->cmd->name, NULL, "only one key can be given on standard input");
        else
            code = setting_add(c, c->a->pos[i], data);
    }
    if (!code) {
        set_body(c, data, &body);
        code = changes_request(c->a, "/v1/apply", buf_slice(&body), args_has(c->a, "dry-run") ? " (dry run)" : "");
    }
    if (body.p)
        OPENSSL_cleanse(body.p, body.cap);
    buf_free(&body);
    json_decref(data);
    return code;
}

/* ---- the past ----------------------------------------------------------------------------------------------------------------------- */

/* The change of this object in a revision's list; NULL: it was not changed. */
static const json_t *change_of(const struct config *c, const json_t *revision)
{
    size_t i;
    json_t *x;
    json_array_foreach (json_object_get(revision, "changes"), i, x)
        if (strcmp(text(x, "kind"), kind_of(c)) == 0 && strcmp(text(x, "namespace"), args_namespace(c->a)) == 0 && strcmp(text(x, "name"), c->name) == 0)
            return x;
    return NULL;
}

static int64_t number_of(const json_t *revision) { return (int64_t)json_integer_value(json_object_get(revision, "revision")); }

/* The revisions that changed the object, as GET /v1/history has them; oldest first. A new reference. *begins: the oldest revision that is kept at all. */
static int past_get(const struct config *c, json_t **out, int64_t *begins)
{
    json_t *list = NULL, *r;
    size_t i;
    int code = node_get_json(c->a, "/v1/history", &list);
    *out = json_array();
    *begins = number_of(json_array_get(json_object_get(list, "items"), 0));
    json_array_foreach (json_object_get(list, "items"), i, r)
        if (change_of(c, r))
            json_array_append(*out, r);
    json_decref(list);
    return code;
}

static int config_history(const struct config *c)
{
    static const char *const heads[] = {"REVISION", "AGE", "BY", "WHAT", "CHANGE"};
    json_t *past = NULL, *r;
    struct grid g;
    struct buf out = {0};
    size_t i;
    int64_t begins;
    int code = past_get(c, &past, &begins);
    grid_init(&g, heads, COUNT_OF(heads));
    json_array_foreach (past, i, r) {
        char age[16];
        age_text(text(r, "time"), age);
        grid_add(&g, "%lld", (long long)number_of(r));
        grid_add(&g, "%s", age);
        grid_add(&g, "%s", text(r, "by"));
        grid_add(&g, "%s", text(r, "what"));
        grid_add(&g, "%s", text(change_of(c, r), "change"));
    }
    if (!code && !json_array_size(past)) {
        code = cli_fail(EXIT_FAILED, c->a->cmd->name, "weir history shows what is kept", "no revision that is kept has changed the %s %s", kind_of(c), c->name);
    } else if (!code) {
        grid_write(&g, &out);
        fwrite(out.p, 1, out.n, stdout);
    }
    grid_free(&g);
    buf_free(&out);
    json_decref(past);
    return code;
}

/* The object before or after a revision that changed it. A new reference; JSON null: it was not there. */
static int side_get(const struct config *c, int64_t revision, const char *side, json_t **out)
{
    struct buf target = {0};
    json_t *r = NULL;
    buf_printf(&target, "/v1/history/%lld", (long long)revision);
    int code = node_get_json(c->a, target.p, &r);
    const json_t *x = change_of(c, r);
    *out = json_incref(json_object_get(x, side));
    if (!code && !*out)
        code = cli_fail(EXIT_FAILED, c->a->cmd->name, "try again", "history has changed meanwhile");
    json_decref(r);
    buf_free(&target);
    return code;
}

/* As it was after revision n: after the last change until then, or before the first one since. Of what is before the history that is kept nothing is known:
 * changes may be missing between n and the first one that is there. */
static int state_get(const struct config *c, const json_t *past, int64_t begins, int64_t n, json_t **out)
{
    int64_t last = 0, next = 0;
    size_t i;
    json_t *r;
    if (begins && n < begins - 1)
        return cli_fail(EXIT_FAILED, c->a->cmd->name, "weir history shows what is kept", "there is no revision %lld in history any more: it begins with %lld", (long long)n, (long long)begins);
    json_array_foreach (past, i, r) {
        if (number_of(r) <= n)
            last = MAX(last, number_of(r));
        else
            next = next ? MIN(next, number_of(r)) : number_of(r);
    }
    if (last || next)
        return side_get(c, last ? last : next, last ? "after" : "before", out);
    return cli_fail(EXIT_FAILED, c->a->cmd->name, "weir history shows what is kept", "no revision that is kept has changed the %s %s", kind_of(c), c->name);
}

static int revision_read(const struct config *c, size_t i, int64_t absent, int64_t *out)
{
    uint64_t n;
    *out = absent;
    if (c->a->pos_n <= i)
        return EXIT_OK;
    if (slice_u64(slice_cstr(c->a->pos[i]), INT64_MAX, &n) != OK)
        return cli_fail(EXIT_USAGE, c->a->cmd->name, "weir config history lists them", "\"%s\" is no revision", c->a->pos[i]);
    *out = (int64_t)n;
    return EXIT_OK;
}

/* Before the last change, unless another revision is named. */
static int revision_from(const struct config *c, const json_t *past, int64_t *out)
{
    const json_t *newest = json_array_get(past, json_array_size(past) - 1);
    return revision_read(c, 2, newest ? number_of(newest) - 1 : 0, out);
}

static int config_diff(const struct config *c)
{
    json_t *past = NULL, *a = NULL, *b = NULL;
    struct buf name = {0}, out = {0};
    int64_t from, to, begins;
    int code = past_get(c, &past, &begins);
    if (!code)
        code = revision_from(c, past, &from);
    if (!code)
        code = revision_read(c, 3, INT64_MAX, &to);
    if (!code)
        code = state_get(c, past, begins, from, &a);
    if (!code)
        code = state_get(c, past, begins, to, &b);
    buf_printf(&name, "%s/%s/%s", kind_of(c), args_namespace(c->a), c->name);
    if (!code)
        diff_json(name.p, a, b, cli_colour(stdout), &out);
    if (out.n) {
        fwrite(out.p, 1, out.n, stdout);
        code = EXIT_FAILED; /* as diff(1) has it */
    }
    json_decref(past);
    json_decref(a);
    json_decref(b);
    buf_free(&name);
    buf_free(&out);
    return code;
}

static int config_rollback(const struct config *c)
{
    json_t *past = NULL;
    struct buf body = {0};
    int64_t n = 0, begins;
    int code = past_get(c, &past, &begins);
    if (!code)
        code = revision_from(c, past, &n);
    if (!code && n < 1)
        code = cli_fail(EXIT_FAILED, c->a->cmd->name, "weir config history shows what is kept", "there is no earlier state of the %s %s", kind_of(c), c->name);
    if (!code) {
        buf_printf(&body, "{\"revision\":%lld,", (long long)n);
        ref_add(c, &body);
        buf_printf(&body, ",\"what\":\"config rollback to revision %lld\",\"dry_run\":%s,\"diff\":%s", (long long)n, args_has(c->a, "dry-run") ? "true" : "false",
                   args_has(c->a, "diff") ? "true" : "false");
        changes_by(&body);
        buf_addc(&body, '}');
        code = changes_request(c->a, "/v1/rollback", buf_slice(&body), args_has(c->a, "dry-run") ? " (dry run)" : "");
    }
    json_decref(past);
    buf_free(&body);
    return code;
}

/* ---- watch ---------------------------------------------------------------------------------------------------------------------------- */

/* What watch has seen. */
struct follower {
    struct buf part, name; /* the line that is still arriving; "ConfigMap/default/web" */
    json_t *last;          /* the object; JSON null: not there; NULL: nothing seen yet */
    bool json, interrupted;/* lines as they come; another engine takes over: it is asked again */
};

static void change_show(struct follower *f, const json_t *line)
{
    struct buf out = {0};
    char when[32];
    time_t now = (time_t)(wall_ns() / 1000000000u);
    struct tm tm;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    json_t *object = json_object_get(line, "object");
    bool first = !f->last, same = f->last && json_equal(f->last, object); /* the same after another engine has taken over */
    if (!same) {
        printf("%s %s %s, generation %lld\n", when, f->name.p, text(line, "change"), (long long)json_integer_value(json_object_get(line, "generation")));
        if (!first)
            diff_json(f->name.p, f->last, object, cli_colour(stdout), &out);
        fwrite(out.p ? out.p : "", 1, out.n, stdout);
    }
    json_decref(f->last);
    f->last = json_incref(object);
    buf_free(&out);
}

static void line_show(struct follower *f, struct slice line)
{
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    if (json_is_true(json_object_get(o, "interrupted")))
        f->interrupted = true;
    else if (f->json)
        printf(SLICE_FMT "\n", SLICE_ARG(line));
    else if (json_is_object(o))
        change_show(f, o);
    fflush(stdout);
    json_decref(o);
}

static bool take(void *ctx, struct slice data)
{
    struct follower *f = ctx;
    while (data.n) {
        const char *end = memchr(data.p, '\n', data.n);
        size_t n = end ? (size_t)(end - data.p) : data.n;
        buf_add(&f->part, data.p, n);
        data = slice_of(data.p + n + (end != NULL), data.n - n - (end != NULL));
        if (end) {
            line_show(f, buf_slice(&f->part));
            buf_clear(&f->part);
        }
    }
    return true;
}

static int config_watch(const struct config *c)
{
    struct follower f = {.json = strcmp(args_str(c->a, "output", ""), "json") == 0};
    struct buf target = {0};
    int code;
    buf_printf(&f.name, "%s/%s/%s", kind_of(c), args_namespace(c->a), c->name);
    buf_adds(&target, "/v1/watch");
    query_add(&target, "kind", kind_of(c));
    query_add(&target, "namespace", args_namespace(c->a));
    query_add(&target, "name", c->name);
    do {
        f.interrupted = false;
        code = node_stream(c->a, target.p, 0, NULL, take, &f);
    } while (!code && f.interrupted);
    json_decref(f.last);
    buf_free(&f.part);
    buf_free(&f.name);
    buf_free(&target);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------------------ */

int cmd_config(struct args *a)
{
    static const struct {
        const char *name;
        size_t words; /* with the name of the object, at most; 0: any number */
        int (*fn)(const struct config *c);
    } verbs[] = {{"get", 3, config_get}, {"set", 0, config_set}, {"history", 2, config_history}, {"diff", 4, config_diff}, {"rollback", 3, config_rollback}, {"watch", 2, config_watch}};
    struct config c;
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        if (!a->pos_n || strcmp(a->pos[0], verbs[i].name) != 0)
            continue;
        if (verbs[i].words && a->pos_n > verbs[i].words)
            return cli_fail(EXIT_USAGE, a->cmd->name, "see weir help config", "\"%s\" is one word too many", a->pos[verbs[i].words]);
        int code = config_read(a, &c);
        return code ? code : verbs[i].fn(&c);
    }
    return cli_fail(EXIT_USAGE, a->cmd->name, "use get, set, history, diff, rollback or watch", a->pos_n ? "there is no \"%s\"" : "what is to be done%s?", a->pos_n ? a->pos[0] : "");
}
