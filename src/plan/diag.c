/* diag.c - diagnostics: what is wrong with a manifest, where, and what to do.
 *
 * A list that only grows. At most DIAGS_MAX are kept, so that a hostile file cannot fill the memory with them; errors
 * beyond are still counted, and the last entry says that there are more.
 */
#include "plan_int.h"

#define DIAG_TEXT_MAX 1000 /* bytes of one reason or place: keys and values of a manifest may be long */

/* A copy fit for a terminal: no control characters, not longer than DIAG_TEXT_MAX, cut between characters. */
static char *diag_text(const char *s, size_t n)
{
    size_t keep = MIN(n, DIAG_TEXT_MAX);
    while (keep < n && keep > 0 && ((uint8_t)s[keep] & 0xc0) == 0x80)
        keep--;
    struct buf b = {0};
    buf_add(&b, s, keep);
    for (size_t i = 0; i < b.n; i++)
        if ((uint8_t)b.p[i] < 0x20 || b.p[i] == 0x7f)
            b.p[i] = '?';
    if (keep < n)
        buf_adds(&b, "...");
    char *text = mem_strndup(MEM_MANIFEST, b.p, b.n);
    buf_free(&b);
    return text;
}

static void diag_push(struct diags *d, struct diag item)
{
    ARRAY_GROW(MEM_MANIFEST, d->items, d->n, d->cap);
    d->items[d->n++] = item;
}

void diags_add(struct diags *d, enum diag_level lv, const char *file, uint32_t line, uint32_t column, const char *where, const char *remedy,
               const char *reason_fmt, ...)
{
    if (lv == DIAG_ERROR)
        d->errors++;
    if (d->n > DIAGS_MAX)
        return;
    struct buf reason = {0};
    if (d->n == DIAGS_MAX) {
        buf_printf(&reason, "more than %d errors and warnings: the rest is not shown", DIAGS_MAX);
        where = "";
        remedy = "correct these first";
        line = column = 0;
    } else {
        va_list ap;
        va_start(ap, reason_fmt);
        buf_vprintf(&reason, reason_fmt, ap);
        va_end(ap);
    }
    where = where ? where : "";
    diag_push(d, (struct diag){.level = lv,
                               .file = mem_strdup(MEM_MANIFEST, file ? file : ""),
                               .line = line,
                               .column = column,
                               .where = diag_text(where, strlen(where)),
                               .reason = diag_text(reason.p, reason.n),
                               .remedy = mem_strdup(MEM_MANIFEST, remedy ? remedy : "")});
    buf_free(&reason);
}

void diags_cut(struct diags *d, size_t n, size_t errors, struct diags *out)
{
    *out = (struct diags){.errors = d->errors - errors};
    for (size_t i = n; i < d->n; i++)
        diag_push(out, d->items[i]);
    d->n = MIN(d->n, n);
    d->errors = errors;
}

void diags_free(struct diags *d)
{
    for (size_t i = 0; i < d->n; i++) {
        mem_free(d->items[i].file);
        mem_free(d->items[i].where);
        mem_free(d->items[i].reason);
        mem_free(d->items[i].remedy);
    }
    mem_free(d->items);
    *d = (struct diags){0};
}

void diag_format(const struct diag *d, struct buf *out)
{
    buf_adds(out, d->file);
    if (d->line)
        buf_printf(out, ":%u:%u", d->line, d->column);
    buf_adds(out, d->level == DIAG_ERROR ? ": error: " : ": warning: ");
    if (d->where[0])
        buf_printf(out, "%s: ", d->where);
    buf_adds(out, d->reason);
    if (d->remedy[0])
        buf_printf(out, "; %s", d->remedy);
}
