/* json_buf.h - jansson's values as text in a buf. */
#ifndef JSON_BUF_H
#define JSON_BUF_H

#include "base.h"

#include <jansson.h>

static inline int json_buf_bytes(const char *p, size_t n, void *out)
{
    buf_add(out, p, n);
    return 0;
}

/* Adds j, as flags (jansson's) want it. ERR_INVALID: j is NULL, or not an array or object and JSON_ENCODE_ANY is not given; something may have been added then. */
static inline enum err json_buf_add(const json_t *j, size_t flags, struct buf *out)
{
    return json_dump_callback(j, json_buf_bytes, out, flags) == 0 ? OK : ERR_INVALID;
}

#endif
