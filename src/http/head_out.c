/* head_out.c - a message head being written: plain appends into one scratch buffer per worker. */
#include "http_int.h"

void head_out_init(struct head_out *o)
{
    o->p = mem_new(MEM_CONN, HEAD_OUT_BYTES);
    head_clear(o);
}

void head_out_fini(struct head_out *o)
{
    mem_free(o->p);
    o->p = NULL;
}

void head_u64(struct head_out *o, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    head_put(o, digits + at, sizeof digits - at);
}

void head_status(struct head_out *o, uint16_t status, struct slice reason)
{
    if (LIKELY(status == 200 && (reason.n == 0 || slice_eq(reason, SLICE("OK"))))) {
        head_lit(o, "HTTP/1.1 200 OK\r\n");
        return;
    }
    head_lit(o, "HTTP/1.1 ");
    head_u64(o, status);
    head_lit(o, " ");
    if (reason.n)
        head_slice(o, reason);
    else
        head_slice(o, slice_cstr(h1_reason(status)));
    head_lit(o, "\r\n");
}
