/* assert.c - what happens when a MUST() does not hold: one line on stderr, then abort().
 *
 * The heap may be the very thing that is broken, so nothing is allocated and stdio is not used: the line is put together on
 * the stack and leaves with one write(2), so that lines of several threads do not mix.
 */
#include "base.h"

#include <stdlib.h>
#include <unistd.h>

struct line {
    char text[1024];
    size_t n;
};

static void line_add(struct line *l, const char *s)
{
    while (*s && l->n < sizeof l->text - 1) /* the last byte is kept for the newline */
        l->text[l->n++] = *s++;
}

static void line_add_int(struct line *l, int v)
{
    char digits[12];
    size_t i = sizeof digits;
    digits[--i] = '\0';
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    line_add(l, digits + i);
}

_Noreturn void must_failed(const char *expr, const char *file, int line, const char *func)
{
    struct line l = {.n = 0};
    line_add(&l, "weir: does not hold: ");
    line_add(&l, expr);
    line_add(&l, " (");
    line_add(&l, func);
    line_add(&l, ", ");
    line_add(&l, file);
    line_add(&l, ":");
    line_add_int(&l, line);
    line_add(&l, ")");
    l.text[l.n++] = '\n';
    ssize_t written = write(STDERR_FILENO, l.text, l.n);
    (void)written; /* nobody is left to tell */
    abort();
}
