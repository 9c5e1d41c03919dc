/* cmd_explain.c - weir explain: what Weir does with each field of a manifest. Offline; the tables are plan's, and the broker's for settings of topics. */
#include "cli.h"
#include "topic_check.h"

/* Settings of topics are the broker's to know. What is wrong with the manifests themselves has been said. */
static void explain_topics(const char *file, struct slice text, struct diags *d)
{
    struct objset *set = objset_new();
    struct diags heard = {0};
    objset_read(set, file, "/", text, "default", false, &heard);
    if (!heard.errors)
        topic_check_settings(set, d);
    diags_free(&heard);
    objset_free(set);
}

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
        explain_topics(files.items[i].file, buf_slice(&files.items[i].text), &d);
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
