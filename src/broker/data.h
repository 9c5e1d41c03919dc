/* data.h - shared by the files of the data plane: produce.c, fetch.c, fetch_group.c, session.c, offsets.c. The model: DATA.md. */
#ifndef DATA_H
#define DATA_H

#include "broker_int.h"

/* To shard `to`; at once when that is the present one. Not mixed with shard_call() for what needs an order. */
static inline void call_now(struct shard *from, struct shard *to, struct call *c)
{
    if (from == to)
        c->fn(to, c);
    else
        shard_call(from, to, c);
}

/* Why part_* may not be called: NONE, or what a client is told of a partition that is in the catalog but not ready here. */
static inline enum kafka_error part_state(const struct bpart *p)
{
    if (!p || p->gone)
        return KAFKA_NOT_LEADER_OR_FOLLOWER;
    if (p->offline)
        return KAFKA_KAFKA_STORAGE_ERROR;
    return p->part ? KAFKA_NONE : KAFKA_NOT_LEADER_OR_FOLLOWER;
}

/* What a request names: a topic by name (id all zero) or by id. NONE: *out is in home's catalog and has the partition. */
enum kafka_error part_find(const struct shard *home, struct slice name, const struct kafka_uuid *id, int32_t partition, struct topic **out);

/* The leader epoch that a client believes in, against ours (KIP-320). -1: it doesn't say. */
static inline enum kafka_error epoch_check(int32_t current, int32_t ours)
{
    if (current < 0 || current == ours)
        return KAFKA_NONE;
    return current < ours ? KAFKA_FENCED_LEADER_EPOCH : KAFKA_UNKNOWN_LEADER_EPOCH;
}

/* Partitions that one request may name. Entries are a few bytes each, and what is kept for one while it is served is many times that. */
#define REQUEST_PARTS_MAX 100000u
/* False, and r has been answered by ending its connection: it names more. */
bool request_parts_ok(struct breq *r, uint64_t parts);

/* The handlers, named in api.def. */
void produce_serve(struct breq *r);
void fetch_serve(struct breq *r);
void list_offsets_serve(struct breq *r);
void offset_for_leader_epoch_serve(struct breq *r);
void delete_records_serve(struct breq *r);
void describe_producers_serve(struct breq *r);
extern const struct module sessions_module, producing_module;

/* ---- one question to many partitions (scatter.c) ------------------------------------------------------------------------- */

struct scatter;
/* One partition. Embedded in what the handler keeps for it, in the request's arena. */
struct scatter_item {
    struct scatter_item *next;     /* of the same shard */
    struct kafka_uuid topic_id;
    int32_t partition;
};
struct scatter_group {
    struct call call;
    struct scatter *s;
    struct shard *owner;
    struct scatter_item *first, **last;
};
struct scatter {
    struct breq *r;
    struct table seen;             /* struct part_key: the partitions that were added; while they are */
    /* On the owner's shard. p->part is there when error is NONE. It writes into the item alone. */
    void (*visit)(struct scatter_item *it, struct bpart *p, enum kafka_error error);
    void (*done)(struct breq *r);  /* at home, after all visits */
    struct scatter_group *groups;  /* by index of shard */
    uint32_t left;
};
struct scatter *scatter_new(struct breq *r, void (*visit)(struct scatter_item *, struct bpart *, enum kafka_error), void (*done)(struct breq *));
/* False: the request has named it before. Asked once, a partition costs what it holds; asked a hundred thousand times it would cost that as often. */
bool scatter_add(struct scatter *s, struct scatter_item *it, const struct topic *t, int32_t partition) WARN_UNUSED;
void scatter_run(struct scatter *s); /* done() may come before this returns */

/* ---- fetches (fetch.c, fetch_group.c) -------------------------------------------------------------------------------------- */

#define FETCH_BYTES_MAX (55u << 20)
#define FETCH_WAIT_MAX_MS 60000
#define FETCH_SESSIONS_MAX 1000u
#define FETCH_SESSION_PARTS_MAX 250000u /* about half a KiB each */
#define FETCH_SESSION_IDLE_MS 120000u /* min.incremental.fetch.session.eviction.ms */

struct fetch_group;
struct fetch_session;
/* A partition that somebody wants to read: of one request, or of a session. */
struct fetch_part {
    struct list link;              /* owner: on ready or idle of its group; alone while it is watched */
    struct part_watch watch;       /* owner */
    struct fetch_group *group;     /* NULL: there is no such partition, error says why */
    struct kafka_uuid topic_id;
    int32_t partition;
    /* What is wanted: home writes, while the group rests. */
    int32_t bytes_max;
    int32_t epoch;                 /* the leader epoch that the client believes in; -1: it doesn't say */
    int32_t last_epoch;            /* of the last record that it has; -1 */
    int64_t offset;
    /* What was found: the owner writes, home reads after the reply. */
    struct part_read read;         /* error: also of the checks */
    int32_t diverging_epoch;       /* -1: the client's records are ours */
    int64_t diverging_end;
    struct bpart *bp;              /* of the present look, not beyond; NULL */
    uint32_t found;                /* bytes that the last read brought, also when they were put back */
    struct fetch_part *reported;   /* the next one that has something to say */
    /* Home's, or the owner's during a look. */
    struct fetch_part *next;       /* on changed or forgotten of its group */
    bool listed;                   /* it is on one of them */
    bool leaves;                   /* it is to be freed */
    bool first;                    /* it has waited longest: in front of the others */
    struct slice name;             /* the topic's: in the request, in sessions owned; empty when the topic is named by id */
    struct list absent;            /* of a session: on its list of partitions that are not there */
    int64_t sent_high, sent_start; /* in sessions: what the client was told last; -1: nothing */
};

enum fetch_state { FETCH_REST, FETCH_PARKED, FETCH_COLD };
/* The partitions of a fetch, or of a session, that one shard owns. */
struct fetch_group {
    struct call down, finish, up, ack;
    struct fetch *f;               /* the one at work */
    struct shard *home, *owner;
    struct list link;              /* home: on its session's list */
    bool session;                  /* parts stay, and stay watched */
    /* A look's wishes: home writes, while the group rests. */
    struct fetch_part *changed, **changed_last; /* chain by `next`: new ones, and those that want something else */
    struct fetch_part *forgotten;  /* those to be let go: freed by the owner */
    int64_t enough;                /* a reply comes at so many bytes; 0: at once */
    uint32_t bytes_max;
    enum part_until until;
    /* Results, after the reply. */
    struct fetch_part *first, *last; /* chain by `reported` */
    int64_t bytes;
    bool urgent;                   /* an error, or a diverging epoch: to be told now */
    /* Owner's. */
    struct list ready;             /* struct fetch_part: may have something to read */
    struct list idle;              /* had nothing to read, and is not watched yet */
    struct list stir;              /* on the shard's list of groups to look at again */
    enum fetch_state state;
    bool watched;                  /* some of `changed` may be watched: a fetch without session unwatches all at its end */
    struct arena arena;            /* aborted transactions; until the answer is made */
    struct work cold;
    /* Home's. */
    bool replied;
    bool asked;                    /* by `finish`, in this look */
};
void fetch_group_init(struct fetch_group *g, struct shard *home, struct shard *owner);
void fetch_group_change(struct fetch_group *g, struct fetch_part *fp); /* home: fp is new or wants something else */
void fetch_group_forget(struct fetch_group *g, struct fetch_part *fp); /* home: fp, of a session and out of its tables, is to be freed */
void fetch_group_look(struct shard *here, struct call *c);   /* down */
void fetch_group_finish(struct shard *here, struct call *c); /* finish */
void fetch_group_close(struct shard *here, struct call *c);  /* down: of a session; forgotten are all its parts; both are freed */
void fetch_stirred_init(struct sessions *ss);
void fetch_part_init(struct fetch_part *fp);                 /* of zeroed memory */
void fetch_group_drop(struct fetch_group *g);                /* lets go of what a reply brought */
void fetch_part_drop(struct fetch_part *fp);                 /* the same of one */
void fetch_part_free(struct fetch_part *fp);                 /* of a session */
void fetch_replied(struct shard *here, struct call *c);      /* fetch.c: up */
void fetch_acknowledged(struct shard *here, struct call *c); /* fetch.c: ack */

/* ---- sessions (session.c) ------------------------------------------------------------------------------------------------------ */

struct fetch_session {
    struct list link;              /* by last use, oldest first */
    int32_t id, epoch;             /* epoch: of the next request */
    bool by_id;                    /* topics are named by id (version 13 and above) */
    bool busy, closed;             /* a fetch is at work; it is to be freed after that */
    uint64_t made_ms, used_ms;
    struct table parts;            /* struct fetch_part by topic (name or id) and partition */
    struct list groups;            /* struct fetch_group */
    struct list absent;            /* struct fetch_part without a group */
    uint32_t turn;                 /* which group comes first in the next answer */
};
/* Everything of fetches on one shard. */
struct sessions {
    struct table by_id;            /* int32_t -> struct fetch_session */
    struct list used;              /* struct fetch_session.link */
    uint32_t parts;                /* in all sessions */
    struct list stirred;           /* owner: struct fetch_group.stir */
    uint64_t looks;                /* owner: the number of the present look (fetch_group.c: collect()) */
    struct task task;
    struct shard *shard;
    counter made, evicted, refused;/* sessions; refused: no slot, or too many partitions */
    counter open, open_parts;      /* now */
    counter polls, cold;           /* fetches; looks that read ahead in the pool */
};
/* What the session id and epoch of a request with so many partitions mean (KIP-227). NONE: *out is its session, or NULL: there is none (yet). */
enum kafka_error session_find(struct shard *s, const struct kafka_fetch_req *req, int16_t version, uint32_t parts, struct fetch_session **out);
/* No topic's name is longer than a topic's name may be: then there is no room for it in a session. */
bool session_fits(const struct kafka_fetch_req *req);
/* A new one for so many partitions, or NULL: no slot. */
struct fetch_session *session_new(struct shard *s, bool by_id, uint32_t parts);
/* The session's object for a partition. *made: it was not there before, and is without a group. */
struct fetch_part *session_part(struct shard *s, struct fetch_session *fs, struct slice name, const struct kafka_uuid *id, int32_t partition, bool *made);
void session_part_forget(struct shard *s, struct fetch_session *fs, struct slice name, const struct kafka_uuid *id, int32_t partition);
/* What fp stood for is no more: another takes its place in the session, without a group, and fp goes. */
void session_part_lost(struct shard *s, struct fetch_session *fs, struct fetch_part *fp);
struct fetch_group *session_group(struct shard *s, struct fetch_session *fs, struct shard *owner);
/* At the end of a fetch: notes the use, frees it when it was closed meanwhile. */
void session_rest(struct shard *s, struct fetch_session *fs);
/* Now, or when its fetch is over. */
void session_close(struct shard *s, struct fetch_session *fs);

#endif
