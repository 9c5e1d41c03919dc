/* plan_int.h - what the files of this room share: the tree that text becomes, the table of manifest fields, the reader's
 * state, and the set's insides. See README.md for the way from text to plan.
 */
#ifndef PLAN_INT_H
#define PLAN_INT_H

#include "plan.h"

/* ---- limits: each is an error that names itself ------------------------------------------------------------------ */

#define MANIFEST_BYTES_MAX (4u << 20)     /* one file */
#define MANIFEST_DEPTH_MAX 48             /* nesting of maps and lists, aliases followed */
#define MANIFEST_NODES_MAX 200000u        /* values of one file, aliases counted each time they are used */
#define MANIFEST_EXPANDED_MAX (16u << 20) /* bytes of text of one file, aliases counted each time they are used */
#define STATE_BYTES_MAX (256u << 20)      /* the file of objset_save() */
#define DIAGS_MAX 1000                    /* diagnostics kept; further errors are counted only */
#define ENV_EXPANDED_MAX (1u << 20)       /* bytes of one variable after $(VAR) expansion */

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

enum ytype { Y_NULL, Y_BOOL, Y_INT, Y_FLOAT, Y_STR, Y_MAP, Y_LIST };
struct ynode {
    enum ytype type;
    bool complete;         /* its end has been read: an alias may refer to it */
    bool flag;             /* Y_BOOL */
    uint32_t line, column; /* from 1 */
    uint32_t n;            /* of pairs or items */
    uint32_t nodes;        /* in this subtree, aliases expanded, itself included */
    uint32_t height;       /* levels of maps and lists from here down: 0 for a scalar */
    uint64_t bytes;        /* of text in this subtree, aliases expanded */
    int64_t num;           /* Y_INT */
    double real;           /* Y_FLOAT */
    struct slice text;     /* scalars: as written, escapes resolved; NUL-terminated */
    struct ypair *pairs;   /* Y_MAP, in the order of the text */
    struct ynode **items;  /* Y_LIST; an alias is the same pointer again */
};
struct ypair {
    struct slice key;
    uint32_t line, column;
    struct ynode *value;
};

/* The documents of one file. Nodes live in the arena given. */
struct ydocs {
    struct ynode **items;
    size_t n, cap;
};
/* Reads every document of text. What is malformed goes to d; sound documents before and after it are still returned.
 * MEM_MANIFEST owns docs->items: ydocs_free(). */
void yaml_read(const char *file, struct slice text, struct arena *a, struct ydocs *docs, struct diags *d);
void ydocs_free(struct ydocs *docs);
bool utf8_valid(struct slice s, size_t *bad); /* *bad: where it stops being so */

/* The value of a map's key; NULL when n is no map, has no such key, or the value is null. */
const struct ynode *y_get(const struct ynode *n, const char *key);
/* The same for a path "spec.template.metadata". */
const struct ynode *y_path(const struct ynode *n, const char *path);
struct slice y_str(const struct ynode *n); /* empty unless a string; NULL-safe */
bool y_is_str(const struct ynode *n);
/* Compact JSON. sorted: keys in byte order, so that equal values give equal text. */
void y_json(const struct ynode *n, bool sorted, struct buf *out);
const char *ytype_name(enum ytype t); /* "a number", "a map" ... */

/* ---- values: text to numbers, and grammars ------------------------------------------------------------------------ */

enum err value_quantity(struct slice s, uint32_t scale_digits, uint64_t max, uint64_t *out) WARN_UNUSED; /* in 10^-scale_digits, rounded up */
enum err value_duration_ms(struct slice s, uint32_t *out) WARN_UNUSED;                                   /* Gateway API GEP-2257 */
enum err value_go_duration_ms(struct slice s, uint32_t *out) WARN_UNUSED;                                /* Go's and protobuf's, as Istio takes it */
enum err value_base64(struct slice s, struct buf *out) WARN_UNUSED;                                      /* RFC 4648 section 4; white space skipped */
bool value_is_label(struct slice s);                                                                     /* RFC 1123 label */
bool value_is_label1035(struct slice s);               /* the same, beginning with a letter: names of Services */
bool value_is_subdomain(struct slice s);               /* RFC 1123 subdomain */
bool value_is_hostname(struct slice s, bool wildcard); /* subdomain that is no IPv4 address; may begin with "*." */
bool value_is_port_name(struct slice s);               /* RFC 6335 service name */
bool value_is_label_key(struct slice s);
bool value_is_label_value(struct slice s);
bool value_is_config_key(struct slice s);
bool value_is_env_name(struct slice s);
bool value_is_url_path(struct slice s);  /* of a path match: normal form (Gateway API HTTPPathMatch) */
bool value_is_path_part(struct slice s); /* of a rewrite: may be empty */
bool value_is_target(struct slice s);    /* of a probe: path and query */
bool value_is_host_pattern(struct slice s); /* Istio: a host name, an address, "*", or one that begins with "*." */
bool value_is_gateway_host(struct slice s); /* Istio: the same, perhaps after "ns/", "./" or "*\/" */
bool value_is_gateway_ref(struct slice s);  /* Istio: "mesh", "name", "ns/name" */
bool value_is_origin(struct slice s);       /* Gateway API's CORSOrigin: "*", or scheme://host[:port], the host perhaps with a leading "*." */
bool value_is_scope(struct slice s);        /* Istio's exportTo: ".", "*" or a namespace */

/* ---- fields.def ----------------------------------------------------------------------------------------------------- */

enum field_status { ST_HONOURED, ST_APPROXIMATED, ST_IGNORED, ST_REFUSED };
const char *field_status_name(enum field_status st);

/* Types, with the words that error messages and documents use. */
#define FIELD_TYPES(X)                                                                                                                                         \
    X(ANY, "anything")                                                                                                                                         \
    X(STR, "a string")                                                                                                                                         \
    X(INT, "a whole number")                                                                                                                                   \
    X(BOOL, "true or false")                                                                                                                                   \
    X(ENUM, "one of the values listed")                                                                                                                        \
    X(CPU, "an amount of CPU such as 250m or 1.5")                                                                                                             \
    X(MEMORY, "an amount of memory such as 128Mi or 1G")                                                                                                       \
    X(PORT, "a port number from 1 to 65535")                                                                                                                   \
    X(PORT_REF, "a port number from 1 to 65535, or the name of a port")                                                                                        \
    X(PORT_NAME, "a port name: at most 15 of a-z, 0-9 and '-', with a letter")                                                                                 \
    X(DURATION, "a duration such as 500ms, 10s or 1m30s")                                                                                                      \
    X(INT_PCT, "a whole number, or a percentage such as \"25%\"")                                                                                              \
    X(LABEL, "a name: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")                                                            \
    X(SUBDOMAIN, "a name: at most 253 of a-z, 0-9, '-' and '.', each part beginning and ending with a letter or digit")                                        \
    X(HOSTNAME, "a host name in lower case, without port")                                                                                                     \
    X(HOSTNAME_WILD, "a host name in lower case, without port, which may begin with \"*.\"")                                                                   \
    X(URL_PATH, "a path that begins with '/', without empty, '.' or '..' elements, query or fragment")                                                         \
    X(PATH_PART, "a path that begins with '/', without query or fragment, or nothing")                                                                         \
    X(TARGET, "a path that begins with '/', perhaps with a query")                                                                                             \
    X(HEADER_NAME, "an HTTP field name")                                                                                                                       \
    X(HEADER_VALUE, "an HTTP field value: no line breaks or other control characters")                                                                         \
    X(ENV_NAME, "a variable's name: letters, digits, '_', '-' and '.', not beginning with a digit")                                                            \
    X(CONFIG_KEY, "a key: letters, digits, '-', '_' and '.', at most 253")                                                                                     \
    X(IP, "an IP address")                                                                                                                                     \
    X(GO_DURATION, "a duration such as 1.5s, 100ms or 1h")                                                                                                      \
    X(PERCENT, "a number from 0 to 100")                                                                                                                       \
    X(NUMBER, "a number")                                                                                                                                      \
    X(WEIGHT, "a whole number, or an amount such as 500m")                                                                                                     \
    X(REGEX, "a regular expression of at most 1024 bytes")                                                                                                     \
    X(HOST_PATTERN, "a host name in lower case, an IP address, \"*\", or a name that begins with \"*.\"")                                                      \
    X(GATEWAY_HOST, "a host name in lower case, \"*\", or one that begins with \"*.\", perhaps after NAMESPACE/, ./ or */")                                    \
    X(GATEWAY_REF, "mesh, the name of a Gateway, or NAMESPACE/NAME")                                                                                           \
    X(ORIGIN, "an origin such as https://example.com or https://*.example.com, or \"*\"")                                                                      \
    X(SCOPE, "\".\", \"*\" or the name of a namespace")                                                                                                         \
    X(HEADER_MAP, "a map of HTTP field names to values")                                                                                                       \
    X(INT_MAP, "a map of names to whole numbers")                                                                                                              \
    X(TOPIC_NAME, "a topic's name: at most 249 of letters, digits, '.', '_' and '-'")                                                                          \
    X(SETTINGS, "a map of names to strings, numbers, true or false")                                                                                           \
    X(LABELS, "a map of label keys to label values")                                                                                                           \
    X(ANNOTATIONS, "a map of label keys to strings")                                                                                                           \
    X(DATA, "a map of keys to strings")                                                                                                                        \
    X(DATA64, "a map of keys to base64")                                                                                                                       \
    X(OBJ, "a map")
enum field_type {
#define X(id, text) FT_##id,
    FIELD_TYPES(X)
#undef X
        FT_COUNT
};
enum field_flag {
    FL_REQUIRED = 1,
    FL_QUIET = 2,  /* approximated, but shown by explain only: nearly every manifest has it */
    FL_UNIQUE = 4, /* a list of maps whose "name" must differ */
    FL_SECRET = 8, /* no message repeats what is in it */
};
/* A map with known keys; ids come from the SCHEMA rows of fields.def. */
enum schema_id {
    SCH_NONE,
#define SCHEMA(id, text) SCH_##id,
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(...)
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
    SCH_COUNT
};
struct field {
    enum schema_id schema;
    const char *name;
    enum field_status status;
    uint32_t flags;
    const char *note;   /* what it does, or why it is not done */
    const char *remedy; /* what to do instead, for errors and warnings */
    enum field_type type;
    bool list;          /* a list of type */
    bool map;           /* a map of any keys to type (FT_OBJ) */
    enum schema_id sub; /* FT_OBJ */
    int64_t min, max;   /* FT_INT, FT_NUMBER, FT_INT_MAP: range; FT_STR: length; max 0: none */
};
/* A value of a field that has a status of its own. */
struct field_value {
    enum schema_id schema;
    const char *name, *value;
    enum field_status status;
    const char *note, *remedy;
};
struct kind_row {
    const char *api_version, *kind;
    enum obj_kind obj;
    enum schema_id schema;
    enum field_type name_type;
    bool namespaced;
};
struct not_built_row {
    const char *group, *kind;
    enum field_status status; /* ST_IGNORED or ST_REFUSED */
    const char *note;         /* why, and what to do */
};
extern const struct field fields[];
extern const size_t fields_n;
extern const struct kind_row kind_rows[];
extern const size_t kind_rows_n;
const char *schema_text(enum schema_id s);
const struct field *field_next(enum schema_id s, const struct field *prev); /* the rows of s; NULL begins and ends */
const struct field *field_find(enum schema_id s, struct slice name);
const struct field_value *field_value_find(const struct field *f, struct slice value); /* NULL when it has no row */
const struct field_value *field_value_next(const struct field *f, const struct field_value *prev);
const char *field_type_text(enum field_type t);
const struct kind_row *kind_find(struct slice api_version, struct slice kind);
const char *kind_api_versions(struct slice kind); /* an apiVersion under which kind is known; NULL: none */
const struct not_built_row *not_built_find(struct slice group, struct slice kind);
const struct not_built_row *not_built_next(const struct not_built_row *prev);
/* The field of s whose name is likest, or NULL when none is near. */
const char *field_nearest(enum schema_id s, struct slice name);

/* ---- the reader ------------------------------------------------------------------------------------------------------ */

/* One call of objset_read(), objset_load() or explain_text(). */
struct reader {
    const char *file, *dir, *default_ns;
    bool strict;
    bool silent; /* no warnings: they were given when the manifest was first read */
    bool parts;  /* an object that lacks what is required is put into the set, too: see object.lacks */
    size_t missing; /* required fields that the object being read lacks */
    struct diags *d;
    struct objset *set; /* NULL for explain */
    struct table seen;  /* kind/ns/name -> object, of this call: the same twice is an error */
    struct buf where;   /* "Deployment/default/catalog spec.replicas", the place being looked at */
    size_t where_base;  /* length of "Deployment/default/catalog " in it */
    /* For explain: called for each field in the order of the text; NULL otherwise. */
    void (*seen_field)(void *ctx, uint32_t line, const char *path, const char *status, const char *note);
    void (*seen_object)(void *ctx, uint32_t line, const char *name);
    void *ctx;
};
/* where + path is where the value at n is; path may be "". */
void reader_error(struct reader *r, const struct ynode *n, const char *path, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
void reader_error_at(struct reader *r, uint32_t line, uint32_t column, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
/* An error with strict, else a warning. */
void reader_warn_at(struct reader *r, uint32_t line, uint32_t column, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
void reader_warn(struct reader *r, const struct ynode *n, const char *path, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
/* Always a warning. */
void reader_note_at(struct reader *r, uint32_t line, uint32_t column, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
size_t reader_push(struct reader *r, const char *fmt, ...) PRINTF_LIKE(2, 3); /* adds to where; returns what reader_pop() wants */
void reader_pop(struct reader *r, size_t mark);
const char *reader_path(const struct reader *r); /* the field's path in where, without the object */

/* Checks n against schema s: everything wrong becomes a diagnostic. */
void walk_map(struct reader *r, enum schema_id s, const struct ynode *n);

/* The typed loaders: fill o from a document that walk_map() has seen. They bear wrong types (reported already, read as
 * absent) and report only what spans several fields. */
void load_deployment(struct reader *r, struct object *o, const struct ynode *doc);
void load_place(struct reader *r, struct object *o, const struct ynode *spec); /* of a template's spec */
void load_volumes(struct reader *r, struct object *o, const struct ynode *spec);   /* of a template's spec */
void load_mounts(struct reader *r, struct object *o, const struct ynode *c);       /* of its container, after them */
void load_service(struct reader *r, struct object *o, const struct ynode *doc);
void load_data(struct reader *r, struct object *o, const struct ynode *doc);
void load_gateway(struct reader *r, struct object *o, const struct ynode *doc);
void load_istio_gateway(struct reader *r, struct object *o, const struct ynode *doc);
void load_reference_grant(struct reader *r, struct object *o, const struct ynode *doc);
void load_http_route(struct reader *r, struct object *o, const struct ynode *doc); /* and GRPCRoute */
void load_stream_route(struct reader *r, struct object *o, const struct ynode *doc); /* TCPRoute, TLSRoute */
void load_traffic_split(struct reader *r, struct object *o, const struct ynode *doc);
void load_virtual_service(struct reader *r, struct object *o, const struct ynode *doc);
void load_service_entry(struct reader *r, struct object *o, const struct ynode *doc);
void load_destination_rule(struct reader *r, struct object *o, const struct ynode *doc);
void load_backend_tls(struct reader *r, struct object *o, const struct ynode *doc);
void load_backend_policy(struct reader *r, struct object *o, const struct ynode *doc);
void load_http_filter(struct reader *r, struct object *o, const struct ynode *doc);
void load_topic(struct reader *r, struct object *o, const struct ynode *doc); /* and KafkaTopic */
void load_keyspace(struct reader *r, struct object *o, const struct ynode *doc);
/* The helpers of the loaders. NULL or the default when the key is absent or of another type. */
char *load_str(struct object *o, const struct ynode *map, const char *key);
int64_t load_int(const struct ynode *map, const char *key, int64_t def, int64_t max);
bool load_bool(const struct ynode *map, const char *key, bool def);
struct label_select load_select(struct reader *r, struct object *o, const struct ynode *map, const char *key);
void load_kvs(struct object *o, const struct ynode *map, struct kvs *out);
/* A NULL-terminated list of strings; NULL when absent. */
char **load_strings(struct object *o, const struct ynode *map, const char *key, size_t *n);
uint32_t load_list_n(const struct ynode *map, const char *key); /* 0 unless a list */
/* Room for n of size bytes, zeroed, in the object's arena. With n 0 never NULL, not to be written, and the same for all. */
void *load_array(struct object *o, size_t n, size_t size);
uint32_t load_duration(const struct ynode *map, const char *key);                     /* Gateway API's, in ms; 0 when absent */
uint32_t load_go_duration(const struct ynode *map, const char *key, uint32_t def);    /* Istio's, in ms */
uint32_t load_ppm(const struct ynode *map, const char *key, uint32_t def);            /* a percentage, in parts per million */
double load_real(const struct ynode *map, const char *key, double def);
bool load_is(const struct ynode *map, const char *key, const char *value);            /* the key's value is this string */
char *load_joined(struct object *o, const struct ynode *map, const char *key);        /* a list of strings, with ", " between; NULL when absent or empty */
/* {name, namespace} of a reference to a Secret or ConfigMap; the object's own namespace is the default. */
struct secret_ref load_secret_ref(struct object *o, const struct ynode *ref);
struct secret_ref *load_secret_refs(struct object *o, const struct ynode *map, const char *key, size_t *n);
/* Exactly one of keys (NULL-terminated) is in n: it; else NULL, after an error. */
const char *load_one_of(struct reader *r, const struct ynode *n, const char *const *keys);
void load_check_regex(struct reader *r, const struct ynode *n, const char *path, const char *regex); /* an error at n when it does not compile */
void load_header_edit(struct reader *r, struct object *o, const struct ynode *n, struct header_edit *edit); /* Gateway API's modifier */
void load_check_edit_name(struct reader *r, const struct ynode *n, const char *name);  /* fields that only the proxy may write */
void load_cors(struct reader *r, struct object *o, const struct ynode *n, struct cors_policy *cors); /* Gateway API's filter */
void load_session(struct reader *r, struct object *o, const struct ynode *n, struct session_policy *session);

/* What an exportTo list lets namespace ns see of an object in own (compile.c). */
bool exported(char *const *export_to, size_t n, const char *own, const char *ns);

/* ---- the set ------------------------------------------------------------------------------------------------------------ */

/* Objects are in boxes. What an object points to never changes once read; a copy of a set has new boxes (its own address,
 * generation, created_ns) that share the rest with the box they were copied from, which lives as long. Control thread only. */
struct obj_box {
    struct object o;
    struct obj_box *base; /* owns the memory o points to; NULL: o.mem does */
    uint32_t refs;
};
struct objset {
    struct object **items; /* ordered by kind, namespace, name; each inside a box */
    size_t n, cap;
};
/* addresses.c: the address in 127.128.0.0/9 that follows from name, or the next that is not among taken (4 bytes in the host's order -> anything). */
uint32_t service_address_pick(const struct table *taken, struct slice name);
/* The objects of one kind in one namespace ("": of all) are neighbours: the index of the first, or where it would be. */
size_t objset_first(const struct objset *s, enum obj_kind k, const char *ns);
const char *obj_kind_group(enum obj_kind k); /* of the API, "" for the core group */
const char *obj_kind_word(enum obj_kind k);  /* the name in manifests, which two kinds may share */
struct object *object_new(enum obj_kind k);
void object_unref(struct object *o);
void entry_addresses_set(struct object *o, const struct addr *addresses); /* o's copy of one for each of its hosts */
void objset_put(struct objset *s, struct object *o); /* takes o; replaces one of the same kind, namespace and name */
/* Reads one manifest that is already a tree: the common part of objset_read() and objset_load(). NULL when there were
 * errors, or when the kind is not one of ours. */
struct object *reader_object(struct reader *r, const struct ynode *doc);
/* The same of a manifest in JSON, without warnings: they were given when it was first read. */
struct object_origin {
    const char *file, *dir, *ns; /* as of an object; ns: for a manifest that names none */
    uint32_t line, column;
};
struct json_t; /* jansson's */
struct object *object_from_json(struct json_t *manifest, const struct object_origin *from, struct diags *d);
/* Reads all documents of text through r, which stays the caller's: reader_fini(). */
void reader_text(struct reader *r, struct slice text);
void reader_fini(struct reader *r);
uint64_t stable_hash64(uint64_t h, struct slice s); /* FNV-1a: the same in every process, for what is kept on disk */
#define STABLE_HASH_INIT 0xcbf29ce484222325u

#endif
