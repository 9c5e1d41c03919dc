/* http_int.h - shared inside the http room. */
#ifndef HTTP_INT_H
#define HTTP_INT_H

#include "http.h"

/* Writes what is in before, then body in the given framing, then the end of it: one system call. Returns bytes queued. */
size_t body_write(struct stream *s, struct slice before, struct pieces body, enum h1_framing framing, bool end, struct slice trailers);

/* Decodes as much of a chunked body as fits into v. Like h1_chunked_next() for all pieces of one read: H1_MORE with
 * *used < n means that v was full, call again. */
enum h1_result chunked_gather(struct h1_chunked *ch, const char *p, size_t n, size_t *used, struct iovec v[PIECES_MAX], struct pieces *out, enum h1_error *error);

/* Bytes read ahead. keep: appends p[n], or, when p lies in *in, makes it all that is kept. */
void ahead_keep(char **in, uint32_t *in_n, uint32_t *in_cap, const char *p, size_t n);
void ahead_free(char **in, uint32_t *in_n, uint32_t *in_cap);

#endif
