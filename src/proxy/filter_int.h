/* filter_int.h - what the filters share: JSON as text, HTTP dates, types of content, counters. PRIVATE to the filters and their tests.
 *
 * JSON is edited as text: a scanner checks it once, then members are found and cut out by their place in it. Numbers, escapes,
 * order and white space that no edit concerns stay as they were, and no tree is built.
 */
#ifndef FILTER_INT_H
#define FILTER_INT_H

#include "filter.h"

/* ---- counters: filter.c ------------------------------------------------------------------------------------------------ */

void filter_count(enum filter_counter c, uint64_t n); /* any thread */
/* Type and subtype of a Content-Type, without parameters; empty when the head has none. */
struct slice content_type(const struct h1_head *h);
bool content_encoded(const struct h1_head *h); /* has a Content-Encoding other than identity */
bool content_is_json(struct slice type);       /* application/json, text/json, anything + "+json" */
/* The list elements of all fields of one name (RFC 9110 section 5.6.1): false at the end. *at begins as {0}. */
struct list_at { uint16_t field; struct slice rest; };
bool list_next(const struct h1_head *h, struct slice name, struct list_at *at, struct slice *element);

/* Of what compress_accepts() returned: 0 when the coding is not acceptable, else the higher the rather. filter_compress.c */
uint16_t compress_rank(uint16_t accepts, struct slice coding);

/* The most that a context of this coding and level takes; what contexts in use have taken together at most since it was last asked (this thread). */
size_t compress_context_bytes(struct slice coding, uint8_t level);
size_t compress_most_bytes(void);

/* ---- JSON as text: filter_json.c ---------------------------------------------------------------------------------------- */

#define JSON_DEPTH_MAX 256

/* OK: text is one JSON value (RFC 8259, valid UTF-8) in white space, perhaps behind a byte order mark; *value is it alone. ERR_SYNTAX: it is not.
 * ERR_LIMIT: nested deeper than JSON_DEPTH_MAX. */
enum err jtext_check(struct slice text, struct slice *value) WARN_UNUSED;

/* What follows is for values that jtext_check() let pass; slices lie in it. */
struct jtext_iter { const char *p, *end; bool object; };
struct jtext_iter jtext_iter(struct slice value);       /* of an object or array; of anything else: empty */
/* The next element; name: with its quotes, empty in an array. */
bool jtext_next(struct jtext_iter *it, struct slice *name, struct slice *value);

struct jtext_place {
    struct slice value;   /* what the pointer names; p NULL: nothing is there */
    struct slice name;    /* of that member, with quotes; empty: an element, or the whole */
    struct slice parent;  /* the innermost object or array on the way; p NULL: none */
    struct slice rest;    /* of the pointer, when nothing is there: from the '/' of the first token that parent lacks */
};
/* RFC 6901. ERR_INVALID: malformed pointer. ERR_SYNTAX: a member on the way stands there twice, so that readers would disagree. */
enum err jtext_find(struct slice value, struct slice pointer, struct jtext_place *out) WARN_UNUSED;
void jtext_string(struct slice quoted, struct buf *out);          /* the text of a JSON string, as UTF-8 */
void jtext_token(struct slice token, struct buf *out);    /* ~1 and ~0 undone */

/* ---- dates (RFC 9110 section 5.6.7): filter_date.c ---------------------------------------------------------------------- */

#define HTTP_DATE_BYTES 29
void http_date(uint64_t seconds, char out[HTTP_DATE_BYTES + 1]); /* since 1970, before the year 10000; IMF-fixdate */
/* Any of the three forms. now: in seconds, to place two-digit years. */
bool http_date_parse(struct slice s, uint64_t now, uint64_t *seconds);

/* ---- static files, the parts that tests and fuzzers reach alone: filter_static.c ------------------------------------------- */

#define STATIC_PATH_MAX 2048
/* Decodes what is left of a request's path into a path below the root, without leading slash. False: refused. */
bool static_path(struct slice path, char out[STATIC_PATH_MAX], size_t *n);
const char *static_type(struct slice name); /* by extension; application/octet-stream when unknown */
enum range_result { RANGE_NONE /* none, or not understood: all of it */, RANGE_ONE, RANGE_UNSATISFIABLE };
enum range_result range_parse(struct slice value, uint64_t length, uint64_t *offset, uint64_t *n);

#endif
