/* security_int.h - users, permissions and quotas: what conn.c calls, and what security.c, acls.c, users.c, sasl.c and quotas.c share.
 * The model: SECURITY.md.
 */
#ifndef SECURITY_INT_H
#define SECURITY_INT_H

#include "broker_int.h"
#include "scram.h"

/* The handlers. */
#define X(key, name, min, max, served, parallel, serve) void serve(struct breq *r);
#include "api.def"
#undef X

/* ---- the data: immutable once it is published ------------------------------------------------------------------------------ */

#define ACLS_MAX 10000u
#define USERS_MAX 10000u
#define QUOTAS_MAX 10000u
#define SECURITY_NAME_MAX 1024u            /* bytes of a name of a user, principal, host or client */
/* One that the file can keep as it is: 1 to SECURITY_NAME_MAX bytes of UTF-8 without NUL. What is no UTF-8 comes back from it as something else, and longer. */
bool security_name_ok(struct slice name);
#define SECURITY_FILE_MAX (256u << 20)

struct sec_user {
    char *name;
    struct scram_cred cred[SCRAM_KINDS];
};
/* PatternType: 1 any, 2 match (both in filters only), 3 literal, 4 prefixed. AclPermissionType: 1 any (filters), 2 deny, 3 allow. */
enum acl_pattern { ACL_PATTERN_UNKNOWN, ACL_PATTERN_ANY, ACL_PATTERN_MATCH, ACL_LITERAL, ACL_PREFIXED };
enum acl_permission { ACL_PERMISSION_UNKNOWN, ACL_PERMISSION_ANY, ACL_DENY, ACL_ALLOW };
struct sec_acl {
    char *name, *principal, *host;
    char *owner;                           /* a manifest that made it; NULL: a client */
    uint8_t kind, pattern, operation, permission; /* enum acl_resource, acl_pattern, acl_operation, acl_permission */
};
enum quota_entity_mode { QUOTA_ABSENT, QUOTA_DEFAULT, QUOTA_NAMED };
#define QUOTA_KEYS 4                       /* enum quota */
struct sec_quota {
    enum quota_entity_mode user_mode, client_mode;
    char *user, *client;                   /* NULL unless named */
    double rate[QUOTA_KEYS];               /* per second; percent for QUOTA_REQUEST; < 0: not set */
    bool declared;                         /* by a manifest */
};
extern const char *const quota_keys[QUOTA_KEYS]; /* "producer_byte_rate", ... */

struct secdb {
    uint32_t refs;                         /* atomic */
    uint64_t version;
    struct sec_user **users;               /* in order of names */
    uint32_t users_n, users_cap;
    struct sec_acl **acls;
    uint32_t acls_n, acls_cap;
    struct sec_quota **quotas;
    uint32_t quotas_n, quotas_cap;
    struct acl_index *index;               /* acls.c; made before it is published */
};
struct secdb *secdb_new(void);
struct secdb *secdb_ref(struct secdb *db);
void secdb_unref(struct secdb *db);
struct secdb *secdb_clone(const struct secdb *db);
struct sec_user *secdb_user(const struct secdb *db, struct slice name); /* NULL: none */
/* Changes, on a db that is not published. */
struct sec_user *secdb_user_add(struct secdb *db, struct slice name);   /* the one that is there, or a new one without keys */
void secdb_user_prune(struct secdb *db, struct slice name);             /* away when it has no keys left */
bool secdb_acl_add(struct secdb *db, const struct sec_acl *acl, struct slice owner); /* copied; false: it is there already */
void secdb_acl_append(struct secdb *db, const struct sec_acl *acl, struct slice owner); /* without looking whether it is there */
void secdb_acl_del(struct secdb *db, uint32_t i);
struct sec_quota *secdb_quota(struct secdb *db, const struct sec_quota *entity, bool add); /* by its entity; NULL: none and !add */
void secdb_quota_prune(struct secdb *db);                               /* those without any rate */
/* Text of the file and back. why: what is wrong, with the line. */
void secdb_write(const struct secdb *db, struct buf *out);
enum err secdb_read(struct slice text, struct secdb **out, struct buf *why) WARN_UNUSED;

/* ---- on each shard ------------------------------------------------------------------------------------------------------------ */

struct security_counters {
    counter denied, allowed;               /* decisions, with authorize on */
    counter sasl_succeeded, sasl_failed;
    counter throttled[QUOTA_KEYS], throttle_ms[QUOTA_KEYS];
    counter meters_shared;                 /* entities beyond the limit of meters */
};
struct quota_use;
struct security {
    struct shard *s;
    struct secdb *db;                      /* this shard's reference */
    struct quota_use *quotas;              /* quotas.c */
    struct security_counters counters;
};
/* Reads DIR/security.json; an absent file is an empty database. Blocks. */
enum err security_load(const char *dir, struct secdb **out, struct buf *why) WARN_UNUSED;

/* A new snapshot on its way to one shard. */
struct secdb_news {
    struct call call;
    struct security_control *control;
    struct secdb *db;                      /* a reference, taken over by the shard */
};
/* The controller's part: on shard 0, once the shards run. */
struct security_control {
    struct shard *zero;
    struct secdb *db;                      /* the newest that is durable */
    struct secdb *next;                    /* the one of the round */
    char *path;
    struct list waiting, round;            /* struct security_change */
    struct work work;
    struct buf text;                       /* of the file, while it is written */
    enum err err;                          /* of the write */
    bool busy;                             /* a round is under way */
    uint32_t shards_left;                  /* that have not swapped */
    struct secdb_news news[SHARDS_MAX];
    uint8_t salt_secret[32];               /* makes the salts of users that do not exist; never changes: any shard reads it */
};
/* start, within broker_open(): b->security, b->meters. */
enum err security_open(struct broker *b, struct buf *why) WARN_UNUSED;
void security_close(struct broker *b);     /* NULL-safe; after the last shard */
void security_metrics(struct broker *b, struct buf *out);

/* A change: apply() is called on shard 0 with a clone, to change it, and says whether it did; then, when the file is written and every shard has the new snapshot (at
 * once if nothing changed), done() on shard `from`. Embedded in the arena of the request. error: NONE or KAFKA_STORAGE_ERROR. */
struct security_change {
    struct call call;
    struct list link;
    struct shard *from;
    bool (*apply)(struct security_change *c, struct secdb *db);
    void (*done)(struct shard *from, struct security_change *c, enum kafka_error e);
    enum kafka_error error;
    bool changed;
};
void security_change(struct shard *from, struct security_change *c);

/* ---- acls.c ------------------------------------------------------------------------------------------------------------------- */

struct acl_index;
struct acl_index *acl_index_new(const struct secdb *db);
void acl_index_free(struct acl_index *x);
/* What a manifest permits of a topic becomes this; bindings that clients made stay. For security_change.apply(); false: nothing has changed. */
bool acls_declare(struct secdb *db, struct slice topic, const struct broker_acl *acls, uint32_t n);
/* The same for quotas of users: all that manifests give. */
bool quotas_declare(struct secdb *db, const struct broker_quota *quotas, uint32_t n);
/* WRITE on any topic: what InitProducerId of an idempotent producer needs, besides IDEMPOTENT_WRITE on the cluster. */
bool allowed_write_somewhere(const struct breq *r);
/* The decision itself, for tests: who, from where. */
bool acl_decide(const struct secdb *db, const struct broker_caller *who, bool when_no_acl, enum acl_operation op, enum acl_resource kind, struct slice name);

/* ---- quotas.c -------------------------------------------------------------------------------------------------------------------------- */

struct quota_meters;                       /* of the broker: shared by its shards */
struct quota_meters *quota_meters_new(void);
void quota_meters_free(struct quota_meters *m); /* NULL-safe; after all shards' quota_use_free() */
struct quota_use *quota_use_new(struct quota_meters *m);
void quota_use_free(struct quota_use *u);
/* The rate for this caller, < 0: unlimited; the entity that it is counted for. */
double quota_rate(const struct secdb *db, enum quota q, struct slice user, struct slice client, bool *by_user, bool *by_client);
/* request.c, around serve(): its time on this loop counts for request_percentage. begin: false when nothing limits this caller; end only after true. */
bool quota_time_begin(struct breq *r);
void quota_time_end(struct shard *here);
/* For tests: notes amount for an entity at a time; the throttle in milliseconds. */
int32_t quota_use_note(struct quota_use *u, const struct secdb *db, enum quota q, struct slice user, struct slice client, uint64_t now_ns, double amount,
                       struct security_counters *counters);

#endif
