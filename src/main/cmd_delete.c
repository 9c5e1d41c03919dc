/* cmd_delete.c - weir delete: objects by kind and name, or all that manifests name. */
#include "changes.h"

static int delete_files(struct args *a)
{
    struct sources files = {0};
    struct buf body = {0};
    int code = sources_of_args(a, &files);
    if (!code) {
        buf_addc(&body, '{');
        sources_json(&files, &body);
        buf_adds(&body, ",\"namespace\":");
        buf_add_json(&body, slice_cstr(args_namespace(a)));
        changes_by(&body);
        buf_addc(&body, '}');
        code = changes_request(a, "/v1/delete", buf_slice(&body), "");
    }
    sources_free(&files);
    buf_free(&body);
    return code;
}

/* True when the node has no such object; only asked when that is to be no error. */
static bool absent(const struct args *a, const struct view *v, const char *name)
{
    struct buf target = {0};
    json_t *list = NULL;
    buf_adds(&target, v->endpoint);
    if (v->kind != OBJ_NAMESPACE)
        query_add(&target, "namespace", args_namespace(a));
    query_add(&target, "name", name);
    bool none = node_get_json(a, target.p, &list) == EXIT_OK && json_array_size(json_object_get(list, "items")) == 0;
    json_decref(list);
    buf_free(&target);
    return none;
}

static int delete_one(const struct args *a, const char *kind, const char *name)
{
    const struct view *v = view_find(kind);
    struct buf body = {0};
    if (!v)
        return cli_fail(EXIT_USAGE, a->cmd->name, "use a kind that weir get shows, such as workload, service, route or virtualservice", "there is no kind \"%s\"", kind);
    if (v->replicas)
        return cli_fail(EXIT_USAGE, a->cmd->name, "restart a workload's replicas with weir rollout restart WORKLOAD", "replicas can't be deleted one by one");
    if (args_has(a, "ignore-not-found") && absent(a, v, name))
        return EXIT_OK;
    buf_printf(&body, "{\"kind\":\"%s\",\"namespace\":", obj_kind_name(v->kind));
    buf_add_json(&body, slice_cstr(args_namespace(a)));
    buf_adds(&body, ",\"name\":");
    buf_add_json(&body, slice_cstr(name));
    changes_by(&body);
    buf_addc(&body, '}');
    int code = changes_request(a, "/v1/delete", buf_slice(&body), "");
    buf_free(&body);
    return code;
}

/* KIND NAME..., or KIND/NAME.... The first failure is returned, the others are tried all the same. */
int cmd_delete(struct args *a)
{
    int code = EXIT_OK;
    if (args_has(a, "filename") && a->pos_n)
        return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "give either names or -f FILE, not both");
    if (args_has(a, "filename"))
        return delete_files(a);
    bool pairs = a->pos_n && strchr(a->pos[0], '/');
    if (a->pos_n < (pairs ? 1u : 2u))
        return cli_fail(EXIT_USAGE, a->cmd->name, "e.g. weir delete workload catalog, weir delete -f shop.yaml", "what to delete is not given");
    for (size_t i = 0; pairs && i < a->pos_n; i++)
        if (!strchr(a->pos[i], '/'))
            return cli_fail(EXIT_USAGE, a->cmd->name, "write KIND/NAME", "\"%s\" has no kind", a->pos[i]);
    for (size_t i = !pairs; i < a->pos_n; i++) {
        char *text = mem_strdup(MEM_MISC, a->pos[i]), *slash = pairs ? strchr(text, '/') : NULL;
        if (slash)
            *slash = 0;
        int one = slash ? delete_one(a, text, slash + 1) : delete_one(a, a->pos[0], text);
        code = code ? code : one;
        mem_free(text);
    }
    return code;
}
