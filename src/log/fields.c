/* fields.c - the small files that are the log's own: big-endian fields, one after another, ended by a CRC-32C of everything before.
 *
 *     file    magic u32, fields ..., crc u32
 *     name    u16 length, bytes
 *
 * A file that was torn or changed fails its CRC and counts as absent. Reading beyond the end gives zeroes and sets `bad`, so a reader
 * checks once at its end.
 */
#include "log_int.h"

void add16(struct buf *b, uint16_t v)
{
    char x[2];
    put16(x, v);
    buf_add(b, x, sizeof x);
}

void add32(struct buf *b, uint32_t v)
{
    char x[4];
    put32(x, v);
    buf_add(b, x, sizeof x);
}

void add64(struct buf *b, uint64_t v)
{
    char x[8];
    put64(x, v);
    buf_add(b, x, sizeof x);
}

void add_crc(struct buf *b) { add32(b, crc32c(0, b->p, b->n)); }

bool fields_open(struct slice file, uint32_t magic, struct fields *f)
{
    *f = (struct fields){.bad = true};
    if (file.n < 8 || get32(file.p) != magic || crc32c(0, file.p, file.n - 4) != get32(file.p + file.n - 4))
        return false;
    *f = (struct fields){.p = file.p + 4, .n = file.n - 8};
    return true;
}

struct slice take_bytes(struct fields *f, size_t n)
{
    if (f->bad || f->n < n) {
        f->bad = true;
        return (struct slice){0};
    }
    struct slice s = slice_of(f->p, n);
    f->p += n;
    f->n -= n;
    return s;
}

uint16_t take16(struct fields *f)
{
    struct slice s = take_bytes(f, 2);
    return s.p ? get16(s.p) : 0;
}

uint32_t take32(struct fields *f)
{
    struct slice s = take_bytes(f, 4);
    return s.p ? get32(s.p) : 0;
}

uint64_t take64(struct fields *f)
{
    struct slice s = take_bytes(f, 8);
    return s.p ? get64(s.p) : 0;
}
