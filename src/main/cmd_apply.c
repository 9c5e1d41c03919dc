/* cmd_apply.c - weir apply: sends manifests to the node and shows what changed, or everything that is wrong. */
#include "changes.h"
#include "cli.h"

int cmd_apply(struct args *a)
{
    struct sources files = {0};
    struct buf body = {0};
    int code = sources_of_args(a, &files);
    if (!code) {
        buf_addc(&body, '{');
        sources_json(&files, &body);
        buf_adds(&body, ",\"namespace\":");
        buf_add_json(&body, slice_cstr(args_namespace(a)));
        buf_printf(&body, ",\"strict\":%s,\"dry_run\":%s}", args_has(a, "strict") ? "true" : "false", args_has(a, "dry-run") ? "true" : "false");
        code = changes_request(a, "/v1/apply", buf_slice(&body), args_has(a, "dry-run") ? " (dry run)" : "");
    }
    sources_free(&files);
    buf_free(&body);
    return code;
}
