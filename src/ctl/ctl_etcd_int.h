/* ctl_etcd_int.h - what the files of the control store's second engine share: a store in an etcd cluster. ETCD.md has the model.
 *
 *     ctl_etcd.c        opening, closing, calls coming in, status           struct remote
 *     ctl_etcd_conn.c   the connection to one member: dial, greet, pulse    struct rconn
 *     ctl_etcd_rpc.c    gRPC on it: unary calls and streams                 struct rpc
 *     ctl_etcd_call.c   a call of ctl's and its fate                        struct rcall
 *     ctl_etcd_msg.c    operations to messages, messages to results
 *     ctl_etcd_watch.c  the watch stream and its watches                    struct rwatch
 */
#ifndef CTL_ETCD_INT_H
#define CTL_ETCD_INT_H

#include "ctl_int.h"
#include "etcd.h"
#include "http.h"

#define RCONNS_MAX 4             /* connections at once: the one in use, and those whose last calls end */
#define ROOM_RESERVED 8          /* streams of HTTP/2 kept for questions of the engine's own */
#define SENT_BYTES_MAX (16u << 20) /* of requests that are asked; the others wait */
#define REST_MS 50               /* a call that was refused for the moment is sent again */
#define DIAL_FIRST_MS 500        /* of dial_ms, in the first round */
#define LEADERLESS_POLL_MS 100   /* how often a member without a leader is asked again */
#define TERM_GRACE_MS 500        /* calls that a new leader has not answered by then were lost with the old one */
#define CLOSE_MS 1000            /* the longest ctl_close() waits for calls under way */
#define CREATING_MAX 256         /* watches whose making is not confirmed */
#define MARK_AGAIN_MS 100        /* a question for progress that was not answered is asked again */
#define MARK_SETTLE_MS 1000      /* see ctl_etcd_watch.c */
#define MARK_PERIOD_MS 60000     /* watches without events learn how far they are */
#define RPC_TEXT_MAX 300         /* of an error's text */
#define WHY_MAX 400

struct remote;
struct rconn;
struct rpc;

/* ---- gRPC (ctl_etcd_rpc.c) ------------------------------------------------------------------------------------------ */

/* How a call ended. */
struct rpc_end {
    struct rconn *conn;          /* it was on */
    enum err err;                /* of the connection, or of the answer's frames; OK: status says */
    bool unsent;                 /* with err: the member has certainly not seen it */
    uint16_t http;               /* HTTP's status; 0: none came */
    int32_t status;              /* gRPC's; -1: none came */
    struct slice message;        /* of a unary call with status 0: the answer */
    const char *text;            /* of status; "" */
};
struct rpc_method {
    const char *path;
    bool stream;
    bool plain;                  /* also of a member that has no leader */
    void (*message)(struct rpc *p, struct slice message); /* of a stream: one came; may cancel p */
    void (*over)(struct rpc *p, const struct rpc_end *end); /* p is nobody's any more, and may be freed or begun again; not after rpc_cancel() */
};
/* Embedded in its owner. */
struct rpc {
    struct http_call k;
    struct rconn *conn;          /* NULL: not under way */
    struct list link;            /* conn->rpcs */
    const struct rpc_method *method;
    struct buf in;               /* bytes of the answer that are not a whole message yet; of a unary call all */
    uint16_t http;
    int32_t status;
    char text[RPC_TEXT_MAX];
};
/* Begins a call on a connection that stands. m: its message, of a stream the first one, or NULL. timeout_ms: told to the member; 0: none. */
void rpc_begin(struct rconn *c, struct rpc *p, const struct rpc_method *method, const ProtobufCMessage *m, uint64_t timeout_ms);
void rpc_send(struct rpc *p, const ProtobufCMessage *m);  /* a further message of a stream */
void rpc_cancel(struct rpc *p);                           /* over() is not called; nothing happens when it is not under way */
static inline bool rpc_on(const struct rpc *p) { return p->conn != NULL; }
extern const struct http_cli_ops rpc_cli_ops;

/* ---- the connection to a member (ctl_etcd_conn.c) ------------------------------------------------------------------------ */

enum rconn_state {
    RCONN_DIAL,                  /* TCP, TLS */
    RCONN_AUTH,                  /* Authenticate is asked */
    RCONN_GREET,                 /* Status is asked for the first time */
    RCONN_READY,
    RCONN_LEADERLESS,            /* it has no leader: calls wait */
    RCONN_LEAVING,               /* calls that were asked may end; no others */
    RCONN_CLOSED
};
struct rconn {
    struct http_cli cli;
    struct remote *r;
    struct list link;            /* r->conns */
    struct list rpcs;            /* under way */
    struct rpeer *at;
    enum rconn_state state;
    struct timer timer;          /* DIAL to GREET: dial_ms; then the pulse */
    struct rpc ask;              /* Authenticate, Status */
    uint32_t dial_ms;            /* that it has until it is READY */
    uint64_t heard_ms;           /* loop time at which something of an answer came last */
    uint64_t asked_ms;           /* when `ask` was */
    uint64_t leaderless_ms;      /* since when */
    uint64_t member_id, term;    /* of the member; of its leader, as it told last */
    uint64_t term_ms;            /* when that changed, and calls sent before are still to be looked at; 0: no */
    bool greeted;                /* has been READY */
    bool close;                  /* to be closed at the end of the turn */
};
/* An endpoint. */
struct rpeer {
    struct addr addr;
    char *host;                  /* for certificates; "" */
    char *authority;             /* host and port */
    struct tls_session_slot session;
};
void remote_dial(struct remote *r);                       /* when there is no connection: the next one, now or after a while */
void remote_again(struct timer *t);
/* The connection is of no more use; what the endpoint did is remembered as the reason. gently: calls under way may end. */
void rconn_fail(struct rconn *c, bool gently, const char *fmt, ...) PRINTF_LIKE(3, 4);
void rconn_lost(struct rconn *c, enum err e);             /* it broke, or its peer ended it */
void rconn_stop(struct rconn *c);                         /* it is not wanted any more */
void rconn_connected(struct rconn *c);
void rconn_released(struct rconn *c);
void rconn_no_leader(struct rconn *c);                    /* a call was refused for that */
void rconn_authenticate(struct rconn *c);                 /* the token is no longer good */
void rconns_turn(struct remote *r);
void rconn_hasten(struct rconn *c);                       /* it takes no more calls, and some wait: its pulse comes now */
static inline bool rconn_serves(const struct rconn *c) { return c && c->state == RCONN_READY; }

/* ---- calls (ctl_etcd_call.c) ------------------------------------------------------------------------------------------------ */

struct rcall {
    struct remote *r;
    struct ctl_call *call;
    struct list link;            /* r->waiting, r->resting, r->sent or r->keeps */
    struct rpc rpc;              /* while it is on r->sent */
    struct timer deadline;
    size_t bytes;                /* of the request, while it is sent */
    uint64_t sent_ms;            /* loop time */
    uint32_t token_turn;         /* of the token that it was sent with */
    bool writes;                 /* may change something: never sent twice */
    bool sent;                   /* is on r->sent or r->keeps */
    bool renewed;                /* was refused for its token already */
    bool capped;                 /* was sent when the alarm NOSPACE was known */
    bool listed;                 /* CTL_DISARM: members is filled in */
    uint64_t *members;           /* that raised the alarm; owned */
    size_t members_n, members_at;
};
void rcall_new(struct remote *r, struct ctl_call *call);
void rcall_free(struct rcall *rc);
void rcalls_flush(struct remote *r);                      /* sends what may be sent */
void rcalls_stop(struct remote *r, bool sent);            /* those that wait end with CTL_STOPPED; sent: the others end, too */
void rcalls_of_term(struct remote *r, uint64_t before_ms); /* those that were sent before have lost their leader */
void rcalls_elsewhere(struct remote *r, const struct rconn *c); /* reads that were sent there are sent again; when it is not the one that calls go to */
void rcall_rested(struct timer *t);
void rcalls_unkeep(struct remote *r);                     /* the stream of keep-alives is gone: its calls go on another */
/* The call's answer: error, why. done() follows at the end of the turn. For calls that have no struct rcall. */
void remote_over(struct remote *r, struct ctl_call *call, enum ctl_error e, const char *why);

/* ---- messages (ctl_etcd_msg.c) ------------------------------------------------------------------------------------------------ */

/* The request of a call, in the arena; borrows from the call. */
const ProtobufCMessage *msg_request(struct arena *a, const struct ctl_op *op);
/* Reads the answer into call->result and call->revision; all in the arena. m: the message itself. */
enum err msg_answer(struct arena *a, struct slice bytes, size_t bytes_max, struct ctl_call *call, const ProtobufCMessage **m) WARN_UNUSED;
void msg_kv(const Etcd__KeyValue *m, struct ctl_kv *out);
/* The error with this text of etcd's; CTL_OK: none of ours. */
enum ctl_error msg_error(const char *text);

/* ---- watches (ctl_etcd_watch.c) ------------------------------------------------------------------------------------------------ */

struct ctl_watch *remote_watch_start(struct ctl *c, const struct ctl_watch_conf *conf, const struct ctl_watch_ops *ops, void *ctx);
void remote_watch_resume(struct ctl_watch *w);
void remote_watch_progress(struct ctl_watch *w);
void remote_watch_stop(struct ctl_watch *w);
void rwatches_init(struct remote *r);
void rwatches_ready(struct remote *r);                    /* there is a connection: makes the stream and its watches */
void rwatches_away(struct remote *r);                     /* there is none any more */
void rwatches_turn(struct remote *r);                     /* tells what is to be told */
void rwatches_tick(struct remote *r);                     /* with each pulse */
void rwatches_stop(struct remote *r);                     /* the store is closing */
bool rwatches_quiet(const struct remote *r);              /* nothing is left to be told */
void rwatches_fini(struct remote *r);

/* ---- the store (ctl_etcd.c) -------------------------------------------------------------------------------------------------------- */

struct rwatch;
struct remote {
    struct ctl ctl;
    struct loop *loop;
    struct ctl_etcd_conf conf;
    struct rpeer *peers;         /* the endpoints */
    size_t peers_n, at;          /* at: the next one to be tried */
    uint32_t round_left;         /* that may be tried at once: all of them, since one was well */
    uint32_t rounds;             /* through all of them without success */
    struct tls_ctx *tls;         /* NULL: clear text */
    char *user, *password;       /* NULL: none */
    char *token;                 /* NULL: none (yet) */
    uint32_t token_turn;         /* counts tokens */
    struct http_cli_conf http;
    struct head_out out;         /* http's scratch */
    struct timer again;          /* back-off between attempts */

    struct rconn *conn;          /* the one that calls go to, or that is on its way there; NULL: none */
    struct list conns;           /* all */
    uint32_t conns_n;

    struct list waiting;         /* struct rcall, to be sent */
    struct list resting;         /* refused for the moment; back to waiting with `rest` */
    struct list sent;
    struct list keeps;           /* CTL_LEASE_KEEP on the stream, oldest first */
    struct list over;            /* struct ctl_call, whose done() follows */
    struct rpc keep;             /* the stream of keep-alives */
    struct timer rest;
    size_t calls_n;              /* not done */
    size_t sent_n;               /* on sent or keeps */
    uint64_t sent_bytes;         /* of their requests */
    uint64_t answer_bytes;       /* that rpcs hold */

    struct rpc watch;            /* the stream of watches */
    struct list watches;         /* all; struct rwatch */
    struct list watches_new;     /* to be made */
    struct list watches_creating;/* asked for; confirmed in this order */
    struct list watches_due;     /* something is to be told */
    struct table watch_ids;      /* 8 bytes of id on the stream -> struct rwatch */
    uint64_t watches_n;
    uint32_t creating_n;
    int64_t watch_id;            /* the last one given out */
    uint64_t kept_bytes;         /* of events, for watches that do not take them */
    struct rwatch *calling;      /* the one whose callback runs */
    bool calling_gone;           /* it was stopped there */
    uint32_t progress_n;         /* watches whose owners wait for progress */
    struct timer mark;           /* progress is asked for again */
    int64_t mark_revision;       /* the first answer of an old member, while it settles */
    bool mark_settling, mark_again; /* it was asked for again since */
    bool mark_trusted;           /* the member's answers can be taken at their word */
    uint64_t marked_ms;          /* when progress was last asked for */

    struct buf body, head;       /* scratch of requests */
    struct arena asking;         /* the same */
    struct arena answer;         /* an answer that is being given */
    struct task task;            /* the end of a turn in which something came */
    struct timer closing_timer;

    uint64_t lost_member, lost_ms; /* the connection to whom broke last, and when; 0: none */
    uint64_t cluster_id;         /* 0: not known yet */
    int64_t revision, compact;   /* the newest that were told */
    uint64_t bytes, bytes_used;
    bool nospace;
    enum ctl_error trouble;      /* CTL_OK while a member serves */
    char why[WHY_MAX];           /* of trouble, and of the last attempt that failed */
    bool closing, cut;           /* closing; and time is over */
    void (*closed)(void *ctx);
    void *closed_ctx;
};
static inline void remote_turn(struct remote *r) { loop_defer(r->loop, &r->task); }
static inline void remote_revision(struct remote *r, int64_t revision)
{
    if (revision > r->revision) r->revision = revision;
}

#endif
