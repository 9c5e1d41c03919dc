/* say.c - messages to people: errors in one form, diagnostics of manifests, colours where they are wanted, environment. */
#include "cli.h"

#include <stdlib.h>
#include <unistd.h>

void (*cli_before_message)(void);

int cli_fail(int code, const char *cmd, const char *remedy, const char *fmt, ...)
{
    struct buf b = {0};
    va_list ap;
    buf_printf(&b, "weir: %s%s", cmd ? cmd : "", cmd ? ": " : "");
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    if (remedy && *remedy)
        buf_printf(&b, "; %s", remedy);
    if (cli_before_message)
        cli_before_message();
    fflush(stdout); /* what was said before comes before */
    fprintf(stderr, "%s\n", b.p);
    buf_free(&b);
    return code;
}

const char *cli_env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

bool cli_colour(FILE *f)
{
    const char *term = cli_env("TERM");
    return isatty(fileno(f)) && !cli_env("NO_COLOR") && term && strcmp(term, "dumb") != 0;
}

void diag_print(const struct diag *d)
{
    struct buf b = {0};
    diag_format(d, &b);
    while (b.n && b.p[b.n - 1] == '\n')
        b.p[--b.n] = 0;
    const char *word = d->level == DIAG_ERROR ? "error:" : "warning:";
    char *at = cli_colour(stderr) && b.p ? strstr(b.p, word) : NULL;
    if (at)
        fprintf(stderr, "%.*s\033[%sm%s\033[0m%s\n", (int)(at - b.p), b.p, d->level == DIAG_ERROR ? "1;31" : "1;33", word, at + strlen(word));
    else
        fprintf(stderr, "%s\n", b.p ? b.p : "");
    buf_free(&b);
}

void diags_print(const struct diags *d, bool warnings)
{
    for (size_t i = 0; i < d->n; i++)
        if (warnings || d->items[i].level == DIAG_ERROR)
            diag_print(&d->items[i]);
}
