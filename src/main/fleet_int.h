/* fleet_int.h - private to fleet*.c. */
#ifndef FLEET_INT_H
#define FLEET_INT_H

#include "fleet.h"
#include "mirror.h"
#include "place.h"

#define FLEET_FENCE_MS 1000u     /* before the lease may have run out: what runs once is told to end */
#define FLEET_FENCE_SLACK_MS 200u/* of these: kept back, so that it is gone in time, even if it has to be killed */
#define FLEET_SETTLE_MS 2000u    /* after this node has come (back): others may be coming, too, before anything is placed anew or forgotten */
#define FLEET_MISSED_MS 500u     /* after another's key has gone: it may only have lost its lease, and be back at once */
#define FLEET_KEY_LOST "its key in the control store has gone"
#define FLEET_BLIND_MS 2000u     /* a leader that does not know the objects: after this another is to lead */
#define FLEET_AGAIN_MS 300u      /* after a call that failed */
#define FLEET_TAKEN_MS 1000u     /* another node has the name: look again after this */
#define FLEET_OPS_MAX 60u        /* puts and deletes of one transaction; etcd's --max-txn-ops is 128 */
#define FLEET_KEEPS_MAX 4u       /* renewals under way */

/* What this node keeps under its lease. */
struct own_key {
    char *value;                 /* wanted; NULL: to be deleted */
    bool written;                /* the store has it, with this lease */
    bool flying;                 /* being written as it is */
};

/* The claim of a Deployment that runs once. */
struct claim {
    bool have;                   /* written with this lease */
    bool asking;
    int64_t revision;            /* that made it: what the mirror knows from then on counts */
};

/* Parsed values. Counted: the mirror has one reference, the table of others another. */
struct remote {
    uint32_t refs;
    struct fleet_endpoint ep;
    struct arena mem;
};
struct member {
    struct fleet_node n;
    char *instance, *place;
    struct arena mem;
};
struct placed {
    uint32_t n, unplaced;
    char *why;
    uint32_t replicas;           /* of the Deployment as it was placed */
    struct placed_node { char *node; uint32_t count, moving; /* of count: replicas that leave when those that follow them are ready */ } *nodes;
    struct arena mem;
};

struct fleet;
/* A call to the store. */
struct ask {
    struct ctl_call call;
    struct fleet *f;
    void (*then)(struct fleet *f, struct ask *a); /* a is gone when it returns */
    uint64_t sent_ms;
    int64_t lease;               /* under which it was asked */
    char *name;                  /* of the claim; or NULL */
    struct arena mem;            /* what the call refers to */
};

struct fleet {
    struct loop *loop;
    struct ctl *ctl;
    struct fleet_conf conf;      /* strings owned; in mem */
    struct fleet_ops ops;
    void *ctx;
    struct arena mem;
    char *node_key;              /* "/weir/nodes/NAME" */
    uint32_t refs;               /* the owner's, and one for each call under way */
    bool stopped;
    /* the lease (fleet.c) */
    enum { FLEET_OUT, FLEET_GRANTING, FLEET_JOINING, FLEET_IN, FLEET_LEFT } state;
    int64_t lease;               /* 0: none */
    int64_t former_lease;        /* of an engine before this one: revoked when everything is written with ours; 0: none */
    uint64_t valid_until_ms;     /* the store keeps the lease so long at least: counted from before the call was sent */
    int64_t joined_revision;     /* that made the node's key with this lease */
    uint64_t settle_until_ms;
    uint32_t keeps_n;
    bool fenced;                 /* what runs once was told to go */
    bool was_in;                 /* has been a member */
    bool leaving;                /* fleet_cordon() was called */
    uint64_t since_ns;
    char *why;
    struct timer timer;          /* by state: the next attempt; IN: the next renewal */
    struct timer edge;           /* IN: the fence, then the end of the lease */
    uint64_t rejoins, fenced_n;
    /* own keys (fleet_own.c) */
    struct table own;            /* key -> struct own_key */
    bool writing;
    struct timer write_again;
    /* what all say */
    struct mirror *nodes, *leader, *placement, *endpoints, *once, *services;
    bool recalled;               /* fleet_recall(): endpoints are followed before all was read */
    struct table remotes;        /* key -> struct remote: with those that are doubted */
    const struct fleet_endpoint **others; size_t others_n;
    const struct fleet_node **node_list; size_t node_list_n;
    struct table present;        /* the names of nodes, without those that said that they leave: a key that goes is missed */
    struct timer doubt;          /* the end of settle_until_ms */
    /* leading (fleet_lead.c) */
    int64_t leader_revision;     /* the create_revision of /weir/leader as we made it; 0: we do not lead */
    int64_t lost_revision;       /* of the last one that was ours and is no more: a mirror that is late may still show it */
    int64_t placed_revision;     /* of the last write of placement: the mirror has to know it before the next */
    bool campaigning, placing;
    struct timer place_again;
    struct timer blind;          /* we lead, and do not know the objects: the end of that */
    /* claims (fleet_once.c) */
    struct table claims;         /* "ns/name" -> struct claim */
    struct timer claim_again;
    /* the event log (fleet_log.c) */
    struct mirror *log;
    bool log_asking;
    bool log_here;               /* it is this node, and this data folder */
    struct timer log_again;
    struct task turn;            /* decisions, once per turn */
    bool tell;                   /* ops.changed() is due */
    void (*left)(void *ctx); void *left_ctx;
    struct timer leave_timer;
};

/* fleet.c */
void fleet_defer(struct fleet *f);
void fleet_tell(struct fleet *f);                     /* and ops.changed() */
struct ask *ask_new(struct fleet *f, void (*then)(struct fleet *f, struct ask *a));
void ask_send(struct ask *a);
void ask_drop(struct ask *a);                         /* one that is not sent */
/* Asks to be the one who holds a key (the leader's, a claim, the event log's): it is put if all compares in is hold, and this node is a member still. It goes
 * with lease; 0: it stays until somebody deletes it. a is sent; key and what is refers to live as long as a. */
void ask_hold(struct ask *a, struct slice key, int64_t lease, const struct ctl_compare *is, size_t is_n);
bool fleet_valid(const struct fleet *f);              /* the lease has not run out */
bool fleet_settled(const struct fleet *f);            /* a member, and who is not there is not coming */
void fleet_out(struct fleet *f, const char *why);     /* this lease is no more: another one */
/* The compare that this node is who it was when it got its lease. */
struct ctl_compare fleet_is_member(const struct fleet *f);
struct ctl_compare fleet_is_missing(struct slice key); /* the compare that nobody has made key */
/* fleet_own.c */
void own_put(struct fleet *f, const char *key, char *value); /* takes value; NULL: deletes */
void own_unwritten(struct fleet *f);
void own_write(struct fleet *f);
bool own_settled(const struct fleet *f);
uint32_t own_ready(const struct fleet *f, const struct object *dep); /* replicas that this node says are ready */
void own_free(struct fleet *f);
void own_node(struct fleet *f, struct buf *out);
/* fleet_read.c: values */
extern const struct mirror_ops member_ops, placed_ops, remote_ops, leader_ops, external_ops;
void remote_unref(struct remote *r);
void holder_json(const struct fleet *f, struct buf *out); /* the value that says: this node, by its data folder */
/* Whether holder, which leader_ops made of such a value ("NODE/INSTANCE"), is that one. NULL: nobody holds the key. */
bool holder_is(const char *holder, const char *node, const char *instance);
bool holder_is_me(const struct fleet *f, const char *holder);
uint32_t placed_on(const struct placed *p, const char *node);
uint32_t placed_moving(const struct placed *p, const char *node);
/* fleet_lead.c */
void lead_turn(struct fleet *f);
void lead_lost(struct fleet *f);
void lead_init(struct fleet *f);
void lead_fini(struct fleet *f);
/* fleet_once.c */
void once_turn(struct fleet *f);
void once_lost(struct fleet *f);                      /* all claims are void */
void once_drop(struct fleet *f, uint32_t ms);
bool once_have(const struct fleet *f, const struct object *dep);
bool once_known(const struct fleet *f);               /* claims that the store has of this node are ours again */
void once_init(struct fleet *f);
void once_fini(struct fleet *f);
/* fleet_log.c */
void log_turn(struct fleet *f);
void log_init(struct fleet *f);
void log_fini(struct fleet *f);

#endif
