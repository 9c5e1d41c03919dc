/* cmd_apply.c - weir apply: sends manifests to the node and shows what changed, or everything that is wrong. */
#include "changes.h"
#include "cli.h"
#include "merge.h"

static const char *flag(bool on) { return on ? "true" : "false"; }

/* diff: nothing is applied, and only differences are shown. */
int apply_request(const struct args *a, bool diff)
{
    struct sources files = {0};
    struct buf body = {0};
    bool dry_run = diff || args_has(a, "dry-run");
    int code = sources_of_args(a, &files);
    if (!code) {
        buf_addc(&body, '{');
        sources_json(&files, &body);
        buf_adds(&body, ",\"namespace\":");
        buf_add_json(&body, slice_cstr(args_namespace(a)));
        buf_adds(&body, ",\"manager\":");
        buf_add_json(&body, slice_cstr(args_str(a, "field-manager", MERGE_MANAGER)));
        buf_printf(&body, ",\"strict\":%s,\"dry_run\":%s,\"force\":%s,\"diff\":%s", flag(args_has(a, "strict")), flag(dry_run), flag(args_has(a, "force-conflicts")),
                   flag(diff || args_has(a, "diff")));
        changes_by(&body);
        buf_addc(&body, '}');
        code = changes_request(a, "/v1/apply", buf_slice(&body), diff ? NULL : dry_run ? " (dry run)" : "");
    }
    sources_free(&files);
    buf_free(&body);
    return code;
}

int cmd_apply(struct args *a) { return apply_request(a, false); }
