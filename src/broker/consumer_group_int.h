/* consumer_group_int.h - groups of KIP-848, whose assignments the broker makes: shared by consumer_*.c. The model: GROUPS.md. */
#ifndef CONSUMER_GROUP_INT_H
#define CONSUMER_GROUP_INT_H

#include "group_int.h"

#define CONSUMERS_SESSION_MS 45000u         /* group.consumer.session.timeout.ms */
#define CONSUMERS_HEARTBEAT_MS 5000         /* group.consumer.heartbeat.interval.ms */
#define CONSUMERS_SIZE_MAX 1000u            /* members: assignments are made on the loop */
#define CONSUMERS_TOPICS_MAX 10000          /* names that one member subscribes to */
#define CONSUMERS_PARTS_MAX 20000u          /* partitions that one group is dealt; the topics beyond are left out. Also those that a member says it owns */
#define CONSUMERS_REGEX_MAX 4096u           /* bytes of a subscription's pattern */
#define MEMBER_JOINS 0                   /* member epochs of requests with a meaning of their own */
#define MEMBER_LEAVES (-1)
#define MEMBER_LEAVES_STATIC (-2)        /* it will be back */

/* ---- sets of partitions: sorted, nothing twice -------------------------------------------------------------------------- */

struct tp {
    struct kafka_uuid topic;
    int32_t partition;
};
struct tps {
    struct tp *p;                /* owned */
    uint32_t n, cap;
};
void tps_add(struct tps *s, struct tp x);        /* at the end; tps_sort() before anything else is asked */
void tps_sort(struct tps *s);
bool tps_has(const struct tps *s, struct tp x);
bool tps_equal(const struct tps *a, const struct tps *b);
bool tps_meet(const struct tps *a, const struct tps *b);        /* have something in common */
bool tps_within(const struct tps *a, const struct tps *b);      /* all of a is in b */
struct tps tps_and(const struct tps *a, const struct tps *b);
struct tps tps_minus(const struct tps *a, const struct tps *b);
struct tps tps_copy(const struct tps *a);
void tps_clear(struct tps *s);
void tps_take(struct tps *to, struct tps from);  /* frees what was there */

/* ---- members and groups ------------------------------------------------------------------------------------------------------ */

enum cmember_state { CMEMBER_STABLE, CMEMBER_UNREVOKED, CMEMBER_UNRELEASED }; /* as they are written */
struct cmember {
    struct list link;            /* consumers.in_order */
    struct group *g;
    struct slice id;             /* the table's key */
    struct slice instance, rack, client_id, client_host; /* owned; p NULL: none */
    struct slice *topics;        /* owned, each too: names that it subscribes to */
    int32_t topics_n;
    struct slice regex;          /* owned; p NULL or empty: none */
    struct slice principal, from;/* owned; who and where it was at its last heartbeat, which says what its pattern may match. p NULL: none came since a start */
    bool super;
    struct slice assignor;       /* owned; p NULL: whichever */
    int32_t rebalance_ms;
    int32_t epoch, previous;     /* member epochs; epoch MEMBER_LEAVES_STATIC: away */
    enum cmember_state state;
    struct tps assigned;         /* it may use these */
    struct tps revoking;         /* it must give these up first */
    struct tps target;
    bool target_new;             /* target is to be written */
    struct timer session, rebalance;
};
struct consumers {
    struct group *g;
    int32_t epoch, target_epoch;
    struct table members;        /* member id -> struct cmember */
    struct list in_order;
    struct table statics;        /* instance id -> struct cmember */
    struct table owners;         /* struct tp -> struct cmember: assigned to it, or not given up yet */
    uint64_t subscribed;         /* a hash of what all subscribe to as the catalog has it: the epoch goes up when it changes */
    uint64_t catalog_version;    /* with which that was made */
    uint64_t rules_version;      /* and with which permissions */
    bool rewrite;                /* a write failed: everything is written with the next one */
};

struct consumers *consumers_make(struct group *g);     /* g has no classic members; sets g->consumer */
void consumers_stop(struct group *g);               /* timers end */
void consumers_free(struct group *g);               /* members too; g is a classic group without members again */
const char *consumers_state_name(const struct group *g);
struct cmember *cmember_find(const struct consumers *cg, struct slice id);
struct cmember *cmember_static(const struct consumers *cg, struct slice instance);
struct cmember *cmember_add(struct consumers *cg, struct slice id, struct slice instance);
void cmember_remove(struct cmember *m);
void cmember_rename(struct cmember *m, struct slice id);
void cmember_topics_set(struct cmember *m, const struct slice *names, int32_t n);
/* What it has or had changes: owners are kept in step. The sets are taken over. */
void cmember_own(struct cmember *m, struct tps assigned, struct tps revoking);
struct cmember *consumers_owner(const struct consumers *cg, struct tp x);

/* consumer_assign.c: whether the pattern can be used; NONE or INVALID_REGULAR_EXPRESSION, and why (in the arena). */
enum kafka_error consumers_regex_check(struct slice pattern, struct arena *a, const char **why);
bool consumers_assignor_known(struct slice name);
struct slice consumers_assignor(const struct consumers *cg); /* the one that most members want */
/* A hash of all subscriptions and of the partitions of their topics. */
uint64_t consumers_subscribed(const struct consumers *cg, const struct catalog *cat);
/* A target for every member: sets target and target_new where it is another one. */
void consumers_assign(struct consumers *cg, const struct catalog *cat);
bool cmember_subscribes(const struct cmember *m, struct slice topic);
bool consumers_subscribes(const struct consumers *cg, struct slice topic);

/* consumer_log.c: records. */
void consumers_write_epoch(struct group_write *w, const struct consumers *cg);
void consumers_write_target_epoch(struct group_write *w, const struct consumers *cg);
void consumers_write_member(struct group_write *w, const struct cmember *m);
void consumers_write_target(struct group_write *w, const struct cmember *m);
void consumers_write_current(struct group_write *w, const struct cmember *m);
void consumers_write_all(struct group_write *w, const struct consumers *cg);
void consumers_write_member_gone(struct group_write *w, struct slice group, struct slice member);
bool consumers_take_record(struct group_part *gp, int16_t key_version, struct kafka_reader *key, struct slice value, struct arena *a);
void consumers_tombs(struct group_tombs *t, const struct group *g);   /* of a group without members */
void consumers_loaded(struct group *g);                                /* sessions begin */

/* consumer_group.c */
void consumer_group_heartbeat(struct breq *r);
void consumer_group_describe(struct breq *r);
void cmember_session_expired(struct timer *t);
void cmember_rebalance_expired(struct timer *t);
/* UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH or NONE for who commits or fetches offsets. */
enum kafka_error consumers_check_epoch(const struct group *g, struct slice member, int32_t epoch);

#endif
