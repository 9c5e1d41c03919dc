/* filter.h - what a route's filters do to messages: pure of connections and exchanges, so that each can be tested alone.
 *
 * exchange.c calls them: at the request's head, at the answer's head, and for the pieces of a body when a body_filter was put
 * in its way. A filter that is not on a route costs nothing. Private to the room.
 */
#ifndef FILTER_H
#define FILTER_H

#include "http.h"
#include "plan.h"

/* ---- bodies -------------------------------------------------------------------------------------------------------- */

/* Changes a body on its way. Made at a head, fed with the pieces as they come, freed with the exchange. */
struct body_filter {
    const struct body_filter_ops *ops;
};
struct body_filter_ops {
    /* Appends to out what may go on now; at end all that is left. Anything but OK: the message can't be finished (ERR_LIMIT: larger
     * than the filter takes; ERR_SYNTAX: not what the filter expects). */
    enum err (*feed)(struct body_filter *f, struct pieces in, bool end, struct buf *out);
    void (*free)(struct body_filter *f);
};

/* One behind the other; owns both. Where one is NULL it is the other, so both may be. */
struct body_filter *body_filter_chain(struct body_filter *first, struct body_filter *second);

/* Fields of a head that a changed body makes untrue (digests, ranges): dropped by the caller along with Content-Length. */
bool body_changed_drops(struct slice field_name);
/* W/"...": what becomes of a strong ETag when the body is changed on its way; a weak one stays. Appends the value. */
void body_changed_etag(struct slice etag, struct head_out *o);
/* What a request's If-None-Match says of the copy that its client has: a weak tag among them is that of a changed body, or the service's own. */
enum tags_asked { TAGS_NONE, TAGS_STRONG, TAGS_WEAK };
enum tags_asked tags_asked(const struct h1_head *h);

/* Of all workers together, for /metrics. */
enum filter_counter {
#define X(name, metric, help) FILTER_##name,
#include "filter_counters.def"
#undef X
    FILTER_COUNTER_COUNT
};
uint64_t filter_counter_read(enum filter_counter c);
/* Frees what the calling thread keeps for reuse. A thread that ends does so by itself. */
void filters_fini(void);

/* ---- compression: filter_compress.c ------------------------------------------------------------------------------- */

#define COMPRESS_LIVE_BYTES (64u << 20) /* of contexts in use, per worker, each counted as the most it can take; above: gzip, then uncompressed */
#define COMPRESS_KEPT_BYTES (8u << 20)  /* contexts and their memory kept for reuse, per worker */
#define COMPRESS_FLUSH_BELOW 32768      /* a read that is shorter has emptied the socket: what it brought goes on at once */

/* What a client accepts, gathered at the request's head (RFC 9110 section 12.5.3, with q values): three bits a coding of
 * preference; 0: identity only. */
uint16_t compress_accepts(const struct h1_head *h);
/* Whether this answer is compressed for that client: its type, its length (or unknown), its status, no Content-Encoding or
 * Cache-Control: no-transform, not a range, not an event stream unless listed. NULL: not. Else the filter, and *coding
 * ("gzip", "br", "zstd") for Content-Encoding. The caller removes Content-Length, weakens a strong ETag, adds Vary:
 * Accept-Encoding (also when compress_varies() and the answer is not compressed for this client). */
struct body_filter *compress_begin(const struct compress_filter *spec, uint16_t accepts, const struct h1_head *answer, struct slice *coding);
bool compress_varies(const struct compress_filter *spec, const struct h1_head *answer);
/* What compress_begin() would choose, for an answer whose body is not sent; empty: none. */
struct slice compress_coding(const struct compress_filter *spec, uint16_t accepts, const struct h1_head *answer);

/* ---- CORS: filter_cors.c ---------------------------------------------------------------------------------------------- */

struct cors_state {
    char origin[256]; uint16_t origin_n; bool allowed; bool preflight;
    struct slice want_method, want_headers; /* of a preflight; in its head: cors_put() comes during the same call */
};
/* At the request's head. True: it is a preflight that we answer (204, with cors_put()); else the request goes on. regex(ctx, m,
 * value): string matching of origins is the caller's, since regular expressions are compiled into the plan. */
bool cors_request(const struct cors_policy *c, const struct h1_head *h, bool (*match)(void *ctx, const struct string_match *m, struct slice value), void *ctx, struct cors_state *s);
/* The fields of an answer (Access-Control-*, Vary: Origin). What the service sent of that name is dropped by the caller: cors_owns(). */
void cors_put(const struct cors_policy *c, const struct cors_state *s, struct head_out *o);
bool cors_owns(struct slice field_name);

/* ---- bodies transformed: filter_transform.c ------------------------------------------------------------------------------ */

/* NULL: nothing in spec concerns this direction or this body (not JSON, for JSON ops). The length changes: the caller sends it
 * chunked, or with the length once all is there. */
struct body_filter *transform_begin(const struct plan_filter *pf, bool request, const struct h1_head *h);
/* Answers are to be changed, so the service is asked for them whole and uncompressed: the caller drops Accept-Encoding and Range from the
 * request that it sends on. */
bool transform_wants_plain(const struct plan_filter *pf);
#define TRANSFORM_BYTES_MAX (1u << 20) /* of a body, where the filter names no other limit */

/* ---- static files: filter_static.c ------------------------------------------------------------------------------------------ */

/* What answers a GET or HEAD for a file (RFC 9110 sections 13 and 14): status 200, 206, 304, 404, 405, 412, 416, 301 (a folder without its
 * slash), 500 (the file can't be opened: text says why). o has status line and fields but those of framing and Date; then bytes
 * [offset, offset + length) of fd, which is the caller's to close with file_close() (-1: none; then body, if any, is text). To HEAD
 * no fd is given; length is what GET would have been sent, for Content-Length. A file of 0 bytes has no fd either. */
struct static_answer {
    uint16_t status;
    int fd;
    uint64_t offset, length;
    char text[256]; uint32_t text_n;
};
/* path: what is left of the request's path behind the matched prefix; decoded here; nothing outside root is ever opened
 * (openat2 RESOLVE_BENEATH), no dot files. */
void static_request(const struct static_filter *spec, const struct h1_head *h, struct slice path, struct head_out *o, struct static_answer *a);

/* ---- aggregation: filter_aggregate.c ------------------------------------------------------------------------------------------ */

struct aggregate_result { bool arrived; uint16_t status; const char *why; /* not arrived: "timeout", "refused", "status 500", "not JSON", "too large" */ struct slice body; };
/* The request target of a part: its path with placeholders filled from h ({query:NAME}, {header:NAME}, {1}.. path elements, {path} all of
 * it with its first slash; percent-encoded anew, so that a value never ends an element or a parameter). At most AGGREGATE_PATH_MAX bytes. False: a placeholder has
 * no value, or one that can't stand there (".."): out is as it was, and *missing is fit for aggregate_result.why of this part ("no value for
 * NAME"); it points into part->path and is no text for others. */
#define AGGREGATE_PATH_MAX 8192
bool aggregate_path(const struct aggregate_part *part, const struct h1_head *h, struct buf *out, const char **missing);
/* Merges: {"name": body, ...}, in the order of the parts, bodies passed through unparsed where no pointer and no merging of members asks for
 * parsing; what is missing is null, and "missing": [{"part": ..., "reason": ...}] with "partial": true are added. Of members with one name the
 * last counts, in the place of the first. Returns the status: 200, or 502/504 when a required part is missing (out then says which, as JSON). */
uint16_t aggregate_merge(const struct aggregate_filter *spec, const struct aggregate_result *results, struct buf *out);

#endif
