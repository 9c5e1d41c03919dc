/* cmd_explain.c - weir explain: what Weir does with each field of a manifest. Offline; the table is plan's. */
#include "cli.h"

int cmd_explain(struct args *a)
{
    struct sources files = {0};
    struct buf out = {0};
    struct diags d = {0};
    if (args_has(a, "fields")) {
        explain_table(&out);
        fwrite(out.p, 1, out.n, stdout);
        buf_free(&out);
        return EXIT_OK;
    }
    int code = sources_of_args(a, &files);
    for (size_t i = 0; i < files.n && !code; i++) {
        buf_clear(&out);
        explain_text(files.items[i].file, buf_slice(&files.items[i].text), &out, &d);
        if (out.n)
            fwrite(out.p, 1, out.n, stdout);
    }
    fflush(stdout);
    diags_print(&d, true);
    if (!code && d.errors)
        code = EXIT_USAGE;
    diags_free(&d);
    buf_free(&out);
    sources_free(&files);
    return code;
}
