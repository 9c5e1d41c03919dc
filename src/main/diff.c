/* diff.c - the difference of two texts.
 *
 * What is the same at both ends is set aside; of the rest the longest common subsequence of lines is found by the table of its lengths (so many
 * cells as the product of the lines). Where that would be more than DIFF_CELLS_MAX, the whole rest is shown as replaced: it is right, and no
 * longer short.
 */
#include "diff.h"

#include "cli.h"

#include <stdlib.h>

#define DIFF_CELLS_MAX (16u << 20)
#define DIFF_AROUND 3

struct text_lines {
    struct slice *items; /* without their ends */
    size_t n, cap;
};
/* One step of the way from a to b: a line that both have, that only a has, that only b has. */
struct edit {
    char sign; /* ' ', '-', '+' */
    struct slice line;
};
struct edits {
    struct edit *items;
    size_t n, cap;
};

static struct text_lines lines_of(struct slice text)
{
    struct text_lines l = {0};
    while (text.n) {
        ARRAY_GROW(MEM_MISC, l.items, l.n, l.cap);
        l.items[l.n++] = slice_cut(text, '\n', &text);
    }
    return l;
}

static void edit_add(struct edits *e, char sign, struct slice line)
{
    ARRAY_GROW(MEM_MISC, e->items, e->n, e->cap);
    e->items[e->n++] = (struct edit){sign, line};
}

/* a[0..n) to b[0..m), which begin and end differently. */
static void edits_between(const struct slice *a, size_t n, const struct slice *b, size_t m, struct edits *e)
{
    size_t i = 0, k = 0;
    bool all = n && m && n < DIFF_CELLS_MAX / m;
    uint32_t *lcs = all ? mem_new(MEM_MISC, (n + 1) * (m + 1) * sizeof *lcs) : NULL; /* lcs[i][k]: of what is from a[i] and b[k] on */
#define CELL(x, y) lcs[(x) * (m + 1) + (y)]
    for (size_t x = all ? n : 0; x-- > 0;)
        for (size_t y = m; y-- > 0;)
            CELL(x, y) = slice_eq(a[x], b[y]) ? CELL(x + 1, y + 1) + 1 : MAX(CELL(x + 1, y), CELL(x, y + 1));
    while (all && i < n && k < m) {
        if (slice_eq(a[i], b[k])) {
            edit_add(e, ' ', a[i++]);
            k++;
        } else if (CELL(i + 1, k) >= CELL(i, k + 1)) {
            edit_add(e, '-', a[i++]);
        } else {
            edit_add(e, '+', b[k++]);
        }
    }
#undef CELL
    while (i < n)
        edit_add(e, '-', a[i++]);
    while (k < m)
        edit_add(e, '+', b[k++]);
    mem_free(lcs);
}

static struct edits edits_of(const struct text_lines *a, const struct text_lines *b)
{
    struct edits e = {0};
    size_t head = 0, tail = 0, least = MIN(a->n, b->n);
    while (head < least && slice_eq(a->items[head], b->items[head]))
        head++;
    while (tail < least - head && slice_eq(a->items[a->n - 1 - tail], b->items[b->n - 1 - tail]))
        tail++;
    for (size_t i = 0; i < head; i++)
        edit_add(&e, ' ', a->items[i]);
    if (head + tail < a->n || head + tail < b->n)
        edits_between(a->n ? a->items + head : NULL, a->n - head - tail, b->n ? b->items + head : NULL, b->n - head - tail, &e);
    for (size_t i = a->n - tail; i < a->n; i++)
        edit_add(&e, ' ', a->items[i]);
    return e;
}

static void line_add(struct buf *out, const struct edit *e, bool colour)
{
    const char *on = !colour || e->sign == ' ' ? "" : e->sign == '-' ? "\033[31m" : "\033[32m";
    buf_printf(out, "%s%c" SLICE_FMT "%s\n", on, e->sign, SLICE_ARG(e->line), *on ? "\033[0m" : "");
}

/* One past the last edit of the hunk that begins at the change `from`: changes with at most twice DIFF_AROUND lines between them are one. */
static size_t hunk_end(const struct edits *e, size_t from)
{
    size_t last = from;
    for (size_t i = from; i < e->n && i - last <= 2 * DIFF_AROUND + 1; i++)
        if (e->items[i].sign != ' ')
            last = i;
    return last + 1;
}

static void hunk_add(struct buf *out, const struct edits *e, size_t from, size_t to, size_t a_line, size_t b_line, bool colour)
{
    size_t a_n = 0, b_n = 0;
    for (size_t i = from; i < to; i++) {
        a_n += e->items[i].sign != '+';
        b_n += e->items[i].sign != '-';
    }
    buf_printf(out, "%s@@ -%zu,%zu +%zu,%zu @@%s\n", colour ? "\033[36m" : "", a_n ? a_line + 1 : a_line, a_n, b_n ? b_line + 1 : b_line, b_n, colour ? "\033[0m" : "");
    for (size_t i = from; i < to; i++)
        line_add(out, &e->items[i], colour);
}

void diff_text(struct slice a, struct slice b, bool colour, struct buf *out)
{
    struct text_lines al = lines_of(a), bl = lines_of(b);
    struct edits e = edits_of(&al, &bl);
    size_t a_line = 0, b_line = 0, done = 0; /* what is before edit `done` in each */
    for (size_t i = 0; i < e.n; i++) {
        if (e.items[i].sign == ' ')
            continue;
        size_t from = i - MIN(i - done, (size_t)DIFF_AROUND), end = hunk_end(&e, i), to = MIN(e.n, end + DIFF_AROUND);
        a_line += from - done;
        b_line += from - done;
        hunk_add(out, &e, from, to, a_line, b_line, colour);
        for (done = from; done < to; done++) {
            a_line += e.items[done].sign != '+';
            b_line += e.items[done].sign != '-';
        }
        i = to - 1;
    }
    mem_free(al.items);
    mem_free(bl.items);
    mem_free(e.items);
}

/* ---- as YAML ------------------------------------------------------------------------------------------------------------------- */

static char *yaml_text(const json_t *v, size_t *n)
{
    char *text = NULL;
    *n = 0;
    FILE *f = open_memstream(&text, n);
    MUST(f);
    if (v && !json_is_null(v))
        yaml_write(v, f);
    fclose(f);
    return text;
}

void diff_json(const char *name, const json_t *before, const json_t *after, bool colour, struct buf *out)
{
    size_t a_n, b_n, mark = out->n;
    char *a = yaml_text(before, &a_n), *b = yaml_text(after, &b_n);
    buf_printf(out, "--- %s%s\n+++ %s%s\n", name, a_n ? "" : " (not there)", name, b_n ? "" : " (not there)");
    size_t head = out->n;
    diff_text(slice_of(a, a_n), slice_of(b, b_n), colour, out);
    if (out->n == head)
        out->p[out->n = mark] = 0;
    free(a);
    free(b);
}
