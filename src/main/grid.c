/* grid.c - tables for people: columns as wide as their widest cell, counted in characters, three spaces between. */
#include "cli.h"

void grid_init(struct grid *g, const char *const *heads, size_t columns)
{
    *g = (struct grid){.columns = columns};
    for (size_t i = 0; i < columns; i++)
        grid_add(g, "%s", heads[i]);
}

void grid_add(struct grid *g, const char *fmt, ...)
{
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < b.n; i++)
        if ((unsigned char)b.p[i] < ' ')
            b.p[i] = ' '; /* a line break or an escape in a reason must not break the table or drive the terminal */
    if (!b.n)
        buf_addc(&b, '-');
    ARRAY_GROW(MEM_MISC, g->cells, g->n, g->cap);
    g->cells[g->n++] = buf_take(&b, NULL);
}

/* Characters of UTF-8 text: bytes that begin one. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static size_t column_width(const struct grid *g, size_t column)
{
    size_t max = 0;
    for (size_t i = column; i < g->n; i += g->columns)
        max = MAX(max, width(g->cells[i]));
    return max;
}

void grid_write(const struct grid *g, struct buf *out)
{
    size_t *widths = mem_new(MEM_MISC, g->columns * sizeof *widths);
    for (size_t c = 0; c < g->columns; c++)
        widths[c] = column_width(g, c);
    for (size_t i = 0; i < g->n; i++) {
        size_t c = i % g->columns;
        buf_adds(out, g->cells[i]);
        if (c + 1 == g->columns)
            buf_addc(out, '\n');
        else
            buf_printf(out, "%*s", (int)(widths[c] - width(g->cells[i]) + 3), "");
    }
    mem_free(widths);
}

void grid_free(struct grid *g)
{
    for (size_t i = 0; i < g->n; i++)
        mem_free(g->cells[i]);
    mem_free(g->cells);
    *g = (struct grid){0};
}
