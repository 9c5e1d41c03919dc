/* linear_check_test.c - the check as a program: a history on the standard input (a line for each operation, see linear_test.h), 0 when it is linearizable. */
#include "linear_test.h"

#include <stdio.h>

int main(void)
{
    struct lin_history h;
    struct buf text = {0}, why = {0};
    char part[65536];
    size_t open = 0;
    for (size_t n; (n = fread(part, 1, sizeof part, stdin)) > 0;) buf_add(&text, part, n);
    lin_init(&h);
    enum lin_verdict v = LIN_NO;
    if (lin_read(&h, buf_slice(&text), &why) == OK) v = lin_check(&h, &why);
    for (size_t i = 0; i < h.n; i++) open += h.ops[i].answered == LIN_OPEN;
    if (v != LIN_YES) fprintf(stderr, "%s\n", why.p);
    else printf("%zu operations, %zu of them open: linearizable\n", h.n, open);
    lin_fini(&h);
    buf_free(&text);
    buf_free(&why);
    return v == LIN_YES ? 0 : 1;
}
