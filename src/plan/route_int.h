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

/* One required header field or query parameter; or, without a name, what the path, method, scheme or authority must be. */
struct route_pred {
    struct slice name, value;        /* value: empty with MATCH_PRESENT and MATCH_REGEX */
    const struct plan_regex *regex;  /* MATCH_REGEX; NULL there: never holds */
    enum h1_name id;                 /* headers: the field's id, to find it without comparing names; H1_OTHER for unknown ones and parameters */
    uint8_t kind;                    /* enum match_kind */
    bool invert, ignore_case;
};
/* What few matches ask for. Parts that are NULL or 0 ask for nothing. */
struct route_more {
    const struct route_pred *path;   /* a path that no table can hold: an expression, or without regard to case */
    const struct route_pred *method, *scheme, *authority;
    uint16_t port;                   /* connected to */
    bool source;                     /* something is asked of the caller, so calls from outside never match */
    const char *source_ns;
    struct kvs source_labels;
};
/* All that a match asks for besides host and path; every part must hold. */
struct route_preds {
    bool has_method;
    enum h1_method method;    /* H1_M_OTHER: compare method_text */
    uint16_t headers_n, queries_n;
    struct slice method_text;
    const struct route_pred *headers, *queries;
    const struct route_more *more; /* or NULL */
};
/* One match of one rule, in a list that is sorted by precedence. */
struct route_cand {
    const struct plan_rule *rule;
    const struct route_preds *preds; /* NULL: nothing more is asked, so the list ends here */
    uint32_t order;                  /* in ordered tables: smaller wins, whatever list it is in */
};
/* An exact path. Open addressing, linear probing; cands NULL: free. */
struct route_exact {
    struct slice path;
    const struct route_cand *cands;
    uint32_t cands_n;
    uint32_t hash;
};
/* A node of the radix tree of path prefixes. The bytes from the root to here are a prefix of `depth` bytes, without its
 * trailing slash in plain tables; it ends an entry when it has candidates. */
struct radix_node {
    const char *label;             /* bytes between the parent and here; the root has none */
    uint32_t label_n;
    uint32_t depth;
    const char *firsts;            /* first byte of each kid's label, ascending */
    const struct radix_node *kids; /* kids_n of them, in the order of firsts */
    uint32_t kids_n;
    uint32_t cands_n;
    const struct route_cand *cands;
    const struct radix_node *up;   /* the longest shorter prefix with candidates that covers this one: element by element in plain tables */
};
/* The paths of one route hostname on one Gateway listener: of the HTTPRoutes and GRPCRoutes (plain: the path decides before
 * the rest), or of the VirtualServices (ordered: their order decides, the path is a way to find candidates fast). */
struct route_paths {
    const struct route_paths *next; /* of the next less specific hostname on the same Gateway listener, or NULL */
    const struct route_exact *exact;
    uint32_t exact_mask;            /* slots - 1 */
    uint32_t exact_n;
    uint64_t exact_lens;            /* bit (length mod 64) of every exact path: most requests need no hash */
    const struct route_cand *rest;  /* paths that are in neither table: route_more.path */
    uint32_t rest_n;
    bool ordered;
    struct radix_node root;
};
/* One match of one rule of bytes. */
struct tcp_preds {
    const char *source_ns;          /* NULL: any */
    struct kvs source_labels;
    uint16_t port;                  /* connected to; 0: any */
    bool source;                    /* see route_more */
};
struct tcp_cand {
    const struct plan_tcp_rule *rule;
    const struct tcp_preds *preds;  /* NULL: always */
};
/* The rules of bytes of one server name on one Gateway listener. */
struct route_bytes {
    const struct route_bytes *next; /* as in route_paths */
    const struct tcp_cand *cands;
    uint32_t cands_n;
};
/* A hostname of a Gateway listener: what it owns, no other serves. */
struct route_site {
    struct slice pattern;
    bool https_redirect;             /* requests in clear are sent to https */
    bool passed;                     /* TLS is passed through */
};
/* A hostname that some Gateway listener or route names. Open addressing, linear probing; used false: free. */
struct route_host {
    struct slice name;               /* lower case; of "*.example.com" the part ".example.com" */
    uint32_t hash;
    bool wildcard, used;
    const struct route_site *site;   /* the owner, or NULL */
    const struct route_paths *first; /* NULL: the owner has no route for this name: 404 */
    const struct route_bytes *bytes; /* NULL: nothing for bytes */
};
struct plan_hosts {
    const struct route_host *hosts;
    uint32_t mask;                   /* slots - 1 */
    uint32_t n;                      /* names in hosts; 0: only `any` */
    struct route_host any;           /* for hosts that no name matches */
    uint32_t sites_n;                /* hostnames of Gateway listeners */
    bool redirects;                  /* some site has https_redirect */
    uint64_t exact_lens[4], wild_lens[4]; /* bit of the length of every name, so that impossible ones cost no hash */
};

/* What one VirtualService, or the HTTPRoutes of one namespace, make of calls to a service address. */
struct mesh_table {
    const char *const *from;         /* namespaces of the callers it is for; from_n 0: all */
    uint32_t from_n;
    const struct route_paths *http;  /* NULL: says nothing about HTTP */
    const struct plan_hosts *tls;    /* by server name; or NULL */
    const struct tcp_cand *tcp;
    uint32_t tcp_n;
};
/* A service address and port. */
struct mesh_entry {
    enum mesh_protocol protocol;
    const struct plan_rule *rule;         /* where no table says anything */
    const struct plan_tcp_rule *bytes;    /* the same for bytes */
    const struct mesh_table *const *tables; /* the first that is for the caller decides */
    uint32_t tables_n;
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

/* Where a match is found. */
enum one_place { ONE_EXACT, ONE_PREFIX, ONE_REST };
/* One match of one rule of one HTTP route. */
struct route_one {
    enum one_place place;
    struct slice path;   /* plain prefixes without trailing slashes: "" is "/" */
    uint32_t order;      /* rank by all criteria but host and path; smaller wins; unique */
    struct route_cand cand;
    char *const *gateways; size_t gateways_n; /* VirtualServices: only for these; none: all of the route's */
};
/* One HTTP route, compiled. */
struct route_source {
    const struct object *object;
    const char *name;        /* "namespace/name", in the plan */
    bool ordered;
    struct route_one *ones; uint32_t ones_n;
    struct slice *patterns; uint32_t patterns_n; /* its hostnames, see pattern_of() */
};
/* One match of one rule of bytes. */
struct tcp_one {
    const struct object *object;
    uint32_t order;          /* smaller wins; unique */
    struct slice *patterns; uint32_t patterns_n; /* server names */
    struct tcp_cand cand;
    char *const *gateways; size_t gateways_n;    /* as in route_one */
};
/* source, or tcp, serves hosts that match pattern on the Gateway listener `site` (an index). */
struct route_attach {
    uint32_t site;
    struct slice pattern;
    const struct route_source *source; /* or */
    const struct tcp_one *tcp;
    const char *gateway;     /* "ns/name" through which it is attached, or "mesh" */
};

/* A hostname as the tables keep it: lower case, "*.example.com" as ".example.com", none and "*" as "". */
struct slice pattern_of(struct arena *a, const char *hostname);
/* The next less specific pattern; p must not be "". */
struct slice pattern_up(struct slice p);
/* Every host that narrow matches is matched by wide. */
bool pattern_covers(struct slice wide, struct slice narrow);
/* The host table of one address. sites: the different hostnames of its Gateway listeners. Sorts at. */
struct plan_hosts *hosts_build(struct keep *k, struct arena *scratch, const struct route_site *sites, uint32_t sites_n, struct route_attach *at, size_t at_n);
/* One path table of all given sources, which are all plain or all ordered, without regard to their hostnames. */
const struct route_paths *paths_of(struct keep *k, struct arena *scratch, const struct route_source *const *sources, size_t n, const char *gateway);

/* ---- regex.c ---------------------------------------------------------------------------------------------------------- */

#define REGEX_BYTES_MAX 2048       /* of an expression: an error of the reader */
#define REGEX_MATCH_MAX 50000u     /* steps of one match (pcre2_set_match_limit) */
#define REGEX_DEPTH_MAX 1000u      /* nested backtracking, without JIT (pcre2_set_depth_limit) */
#define REGEX_HEAP_KIB_MAX 1024u   /* memory of one match, without JIT (pcre2_set_heap_limit) */
/* whole: it will be asked for matches of the whole subject. NULL: no valid expression, *why says so where given. */
struct plan_regex *regex_new(struct slice text, bool whole, struct buf *why);
struct plan_regex *regex_ref(struct plan_regex *r);
void regex_unref(struct plan_regex *r);   /* NULL-safe, any thread */
uint64_t regex_bytes(const struct plan_regex *r);
/* Counts a text that was too long to be matched; false. */
bool plan_regex_overrun(void);

/* ---- plan_memory: slots.c ------------------------------------------------------------------------------------------- */

enum slot_kind { SLOT_CLUSTER, SLOT_ENDPOINT, SLOT_ROUTE, SLOT_KINDS };
struct slot_take {
    uint32_t slot;
    uint64_t id;       /* new with each first appearance of the key, never given twice */
    uint64_t since_ms; /* monotonic time of that appearance */
    void *shared;      /* SLOT_CLUSTER: the memory's struct cluster_shared: take a reference to keep it; else NULL */
    bool again;        /* taken in this compilation already */
};
/* One compilation: begin, a take for each thing in the plan (again for the same key gives the same), end. */
uint64_t slots_begin(struct plan_memory *m);
struct slot_take slots_take(struct plan_memory *m, enum slot_kind kind, struct slice key);
void slots_end(struct plan_memory *m);
/* What workers share of the endpoint that was given this slot in this compilation; a reference of the memory's. wanted: its policy asks for that. An
 * endpoint for which none ever did has what all such share, which is not to be written (endpoint_health.nobody). */
struct endpoint_health *slots_health(struct plan_memory *m, uint32_t slot, bool wanted);
uint32_t slots_top(const struct plan_memory *m, enum slot_kind kind); /* one more than the largest ever given */
/* The key that holds the slot, or held it last. */
struct slice slots_key(const struct plan_memory *m, enum slot_kind kind, uint32_t slot);

/* What is costly to make is kept from plan to plan by content, and dropped by slots_end() of the second compilation in a row that did not ask for it. */
/* The memory's own; NULL when text is no valid expression. */
struct plan_regex *memory_regex(struct plan_memory *m, struct slice text, bool whole);
/* The context kept under hash; *found is also true when making it failed before, with NULL. */
struct tls_ctx *memory_tls(struct plan_memory *m, const uint64_t hash[2], bool *found);
void memory_tls_put(struct plan_memory *m, const uint64_t hash[2], struct tls_ctx *ctx); /* takes over the caller's reference; ctx may be NULL */
const char *memory_locality(const struct plan_memory *m);
const struct plan_node *memory_node(const struct plan_memory *m); /* NULL: there are no other nodes */

/* Says, from any thread, that the plan of one generation is gone. */
struct plan_life;
struct plan_life *slots_life(struct plan_memory *m);
void plan_life_end(struct plan_life *life);

#endif
