/* http_int.h - shared inside the http room. */
#ifndef HTTP_INT_H
#define HTTP_INT_H

#include "http.h"

/* Writes what is in before, then body in the given framing, then the end of it: one system call. Returns bytes queued. */
size_t body_write(struct stream *s, struct slice before, struct pieces body, enum h1_framing framing, bool end, struct slice trailers);

/* The body of the message with head h begins. */
void body_begin(struct body_in *b, const struct h1_head *h);
void body_fini(struct body_in *b);
/* Takes what it can of p[n]: *used bytes, whose data are the pieces in v. *end: the body is complete. False: the chunked
 * framing is broken. When v was full, *used < n without the end: call again. */
bool body_take(struct body_in *b, const char *p, size_t n, size_t *used, struct iovec v[PIECES_MAX], struct pieces *out, bool *end);

/* Bytes read ahead. keep: appends p[n], or, when p lies in *in, makes it all that is kept. */
void ahead_keep(char **in, uint32_t *in_n, uint32_t *in_cap, const char *p, size_t n);
void ahead_free(char **in, uint32_t *in_n, uint32_t *in_cap);

#endif
