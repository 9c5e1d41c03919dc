/* walk.c - from batch to batch through a segment's file, by their headers.
 *
 *     base offset i64 | length i32 | leader epoch i32 | magic i8 | crc u32 | attributes i16 | last offset delta i32 | base timestamp i64 |
 *     max timestamp i64 | producer id i64 | producer epoch i16 | base sequence i32 | count i32 | records ...        (61 bytes, then length - 49)
 *
 * Bytes are read through one window of WALK_BYTES, also a batch's when its CRC is asked for, so a header that lies about its length costs
 * no memory. A walk trusts nothing: what can't be a header, or reaches beyond the end, is WALK_BAD.
 */
#include "log_int.h"

#define FIRST_READ 4096u               /* of a window: the next ones are larger, unless batches are so large that headers alone are wanted */
#define SEARCH_BYTES (64u << 20)       /* a search checks CRCs of so many bytes, or twice what it goes through */

bool batch_head(const char *p, struct kafka_batch *b)
{
    int32_t length = (int32_t)get32(p + 8);
    *b = (struct kafka_batch){.base_offset = (int64_t)get64(p),
                              .bytes = (uint32_t)length + 12,
                              .leader_epoch = (int32_t)get32(p + 12),
                              .magic = (int8_t)p[16],
                              .crc = get32(p + 17),
                              .attributes = get16(p + 21),
                              .last_offset_delta = (int32_t)get32(p + 23),
                              .base_timestamp = (int64_t)get64(p + 27),
                              .max_timestamp = (int64_t)get64(p + 35),
                              .producer_id = (int64_t)get64(p + 43),
                              .producer_epoch = (int16_t)get16(p + 51),
                              .base_sequence = (int32_t)get32(p + 53),
                              .count = (int32_t)get32(p + 57)};
    return length >= KAFKA_BATCH_HEADER - 12 && length <= (int32_t)(SEG_BYTES_MAX - 12) && b->magic == 2 && b->base_offset >= 0 && b->last_offset_delta >= 0 &&
           b->base_offset <= OFFSET_MAX && b->count >= 0 && b->count <= (int64_t)b->last_offset_delta + 1;
}

void walk_init(struct walk *w, int fd, uint64_t pos, uint64_t end, char *window)
{
    *w = (struct walk){.fd = fd, .pos = pos, .next = pos, .end = end, .window = window, .want = FIRST_READ};
}

/* n <= WALK_BYTES bytes at pos, in the window; NULL after an error of the disk. The caller has checked that they are before the end. */
static const char *walk_at(struct walk *w, uint64_t pos, size_t n, size_t want)
{
    if (pos >= w->at && pos + n <= w->at + w->n)
        return w->window + (pos - w->at);
    size_t take = (size_t)MIN((uint64_t)MAX(n, want), w->end - pos);
    w->at = pos;
    w->n = 0;
    w->err = file_read_at(w->fd, pos, w->window, take);
    if (w->err != OK)
        return NULL;
    w->n = take;
    w->want = MIN(2 * w->want, (size_t)WALK_BYTES);
    return w->window;
}

enum walked walk_next(struct walk *w)
{
    w->pos = w->next;
    if (w->pos == w->end)
        return WALK_END;
    if (w->end - w->pos < KAFKA_BATCH_HEADER)
        return WALK_BAD;
    w->head = walk_at(w, w->pos, KAFKA_BATCH_HEADER, w->b.bytes > WALK_BYTES / 4 ? FIRST_READ : w->want);
    if (!w->head)
        return WALK_IO;
    if (!batch_head(w->head, &w->b) || w->b.bytes > w->end - w->pos)
        return WALK_BAD;
    w->next = w->pos + w->b.bytes;
    return WALK_BATCH;
}

bool walk_crc_ok(struct walk *w)
{
    uint32_t crc = 0;
    uint64_t pos = w->pos + 21, end = w->pos + w->b.bytes;
    while (pos < end) {
        size_t n = (size_t)MIN(end - pos, (uint64_t)WALK_BYTES);
        if (pos >= w->at && pos < w->at + w->n)
            n = (size_t)MIN((uint64_t)n, w->at + w->n - pos);
        const char *p = walk_at(w, pos, n, WALK_BYTES);
        if (!p)
            return false;
        crc = crc32c(crc, p, n);
        pos += n;
    }
    return crc == w->b.crc;
}

bool walk_search(struct walk *w, uint64_t from, int64_t offset)
{
    uint64_t left = MAX((uint64_t)SEARCH_BYTES, 2 * (w->end - MIN(from, w->end))); /* bytes that look like many large batches cost no more */
    for (uint64_t pos = from; w->end - pos >= KAFKA_BATCH_HEADER && pos < w->end; pos++) {
        const char *p = walk_at(w, pos, KAFKA_BATCH_HEADER, WALK_BYTES);
        struct kafka_batch b;
        if (!p || p[16] != 2 || !batch_head(p, &b) || b.base_offset < offset || b.bytes > w->end - pos || b.bytes > left)
            continue;
        left -= b.bytes;
        w->pos = pos;
        w->b = b;
        w->next = pos + b.bytes;
        if (walk_crc_ok(w))
            return true;
    }
    return false;
}
