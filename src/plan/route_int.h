/* route_int.h - what the compiler writes and the request path reads: host tables, path tables, predicates; and the seams
 * between the files that build them. Private to the room. See ROUTING.md for the picture.
 *
 * Everything that plan_route() touches lies in the plan's arena and never changes after plan_compile() returned.
 */
#ifndef ROUTE_INT_H
#define ROUTE_INT_H

#include "plan.h"

/* ---- read by plan_route() ---------------------------------------------------------------------------------------- */

/* A DNS name in text has at most 253 bytes (RFC 1035 section 2.3.4: 255 on the wire). */
#define HOST_BYTES_MAX 253

/* One required header field or query parameter. */
struct route_pred {
    struct slice name, value;
    enum h1_name id; /* headers: the field's id, to find it without comparing names; H1_OTHER for unknown ones and parameters */
};
/* All that a match asks for besides host and path; every part must hold. */
struct route_preds {
    bool has_method;
    enum h1_method method;    /* H1_M_OTHER: compare method_text */
    uint16_t headers_n, queries_n;
    struct slice method_text;
    const struct route_pred *headers, *queries;
};
/* One match of one rule, in a list that is sorted by precedence. */
struct route_cand {
    const struct plan_rule *rule;
    const struct route_preds *preds; /* NULL: nothing more is asked, so the list ends here */
};
/* An exact path. Open addressing, linear probing; cands NULL: free. */
struct route_exact {
    struct slice path;
    const struct route_cand *cands;
    uint32_t cands_n;
    uint32_t hash;
};
/* A node of the radix tree of path prefixes. The bytes from the root to here are a prefix of `depth` bytes without its
 * trailing slash; it ends an entry when it has candidates. */
struct radix_node {
    const char *label;             /* bytes between the parent and here; the root has none */
    uint32_t label_n;
    uint32_t depth;
    const char *firsts;            /* first byte of each kid's label, ascending */
    const struct radix_node *kids; /* kids_n of them, in the order of firsts */
    uint32_t kids_n;
    uint32_t cands_n;
    const struct route_cand *cands;
    const struct radix_node *up;   /* the longest shorter prefix with candidates that covers this one element by element */
};
/* The paths of one route hostname on one Gateway listener. */
struct route_paths {
    const struct route_paths *next; /* of the next less specific hostname on the same Gateway listener, or NULL */
    const struct route_exact *exact;
    uint32_t exact_mask;            /* slots - 1 */
    uint32_t exact_n;
    uint64_t exact_lens;            /* bit (length mod 64) of every exact path: most requests need no hash */
    struct radix_node root;
};
/* A hostname that some Gateway listener or route names. Open addressing, linear probing; used false: free. */
struct route_host {
    struct slice name;               /* lower case; of "*.example.com" the part ".example.com" */
    uint32_t hash;
    bool wildcard, used;
    const struct route_paths *first; /* NULL: the Gateway listener that owns this name has no route for it: 404 */
};
struct plan_hosts {
    const struct route_host *hosts;
    uint32_t mask;                   /* slots - 1 */
    uint32_t n;                      /* names in hosts; 0: only `any` */
    const struct route_paths *any;   /* for hosts that no name matches; may be NULL */
    uint64_t exact_lens[4], wild_lens[4]; /* bit of the length of every name, so that impossible ones cost no hash */
};

/* Hash of route tables. Not seeded: keys come from manifests, so nobody outside chooses collisions. */
static inline uint32_t route_hash(const char *p, size_t n)
{
    uint64_t h = (uint64_t)n * 0x9e3779b97f4a7c15u, w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    w = 0;
    if (n >= 4) {
        uint32_t lo, hi;
        memcpy(&lo, p, 4);
        memcpy(&hi, p + n - 4, 4);
        w = lo | (uint64_t)hi << 32;
    } else if (n) {
        w = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint64_t)(uint8_t)p[n - 1] << 16;
    }
    h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h ^ h >> 32);
}

/* ---- written by plan_compile() ------------------------------------------------------------------------------------- */

/* Memory of the plan, counted. */
struct keep {
    struct arena *mem;
    uint64_t bytes;
};
void *keep_new(struct keep *k, size_t size) WARN_UNUSED; /* zeroed; NULL when size is 0 */
char *keep_str(struct keep *k, const char *s) WARN_UNUSED; /* NULL gives NULL */
struct slice keep_slice(struct keep *k, struct slice s) WARN_UNUSED;

/* One match of one rule of one HTTPRoute. */
struct route_one {
    bool exact;
    struct slice path;   /* prefixes without trailing slashes: "" is "/" */
    uint32_t order;      /* rank by all criteria of Gateway API but host and path; smaller wins; unique */
    struct route_cand cand;
};
/* One HTTPRoute, compiled once for all listeners. */
struct route_source {
    const struct object *object;
    const char *name;        /* "namespace/name", in the plan */
    struct route_one *ones; uint32_t ones_n;
    struct slice *patterns; uint32_t patterns_n; /* its hostnames, see pattern_of() */
};
/* source serves hosts that match pattern on the Gateway listener `site` (an index). */
struct route_attach {
    uint32_t site;
    struct slice pattern;
    const struct route_source *source;
};

/* A hostname as the tables keep it: lower case, "*.example.com" as ".example.com", none and "*" as "". */
struct slice pattern_of(struct arena *a, const char *hostname);
/* The next less specific pattern; p must not be "". */
struct slice pattern_up(struct slice p);
/* Every host that narrow matches is matched by wide. */
bool pattern_covers(struct slice wide, struct slice narrow);
/* The host table of one address. sites: the different hostnames of its Gateway listeners, as patterns. Sorts at. */
struct plan_hosts *hosts_build(struct keep *k, struct arena *scratch, const struct slice *sites, uint32_t sites_n, struct route_attach *at, size_t at_n);

/* ---- plan_memory: slots.c ------------------------------------------------------------------------------------------- */

enum slot_kind { SLOT_CLUSTER, SLOT_ENDPOINT, SLOT_ROUTE, SLOT_KINDS };
struct slot_take {
    uint32_t slot;
    uint64_t id; /* new with each first appearance of the key, never given twice */
};
/* One compilation: begin, a take for each thing in the plan (again for the same key gives the same), end. */
uint64_t slots_begin(struct plan_memory *m);
struct slot_take slots_take(struct plan_memory *m, enum slot_kind kind, struct slice key);
void slots_end(struct plan_memory *m);
uint32_t slots_top(const struct plan_memory *m, enum slot_kind kind); /* one more than the largest ever given */
/* The key that holds the slot, or held it last. */
struct slice slots_key(const struct plan_memory *m, enum slot_kind kind, uint32_t slot);

/* Says, from any thread, that the plan of one generation is gone. */
struct plan_life;
struct plan_life *slots_life(struct plan_memory *m);
void plan_life_end(struct plan_life *life);

#endif
