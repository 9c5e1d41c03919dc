/* linear_clients_test.h - clients whose history is checked for linearizability: on a store in the simulator that is killed, and on one in an etcd cluster whose members are.
 *
 * CLIENTS clients, each of which asks, waits for the answer, rests a little and asks again: registers, a set, a list, leases. A call that ended with CTL_UNKNOWN is open: it may
 * have been made, or be none. One that ended with any other error was not made, so it is no part of the history at all: if it was made nevertheless, a later read shows it.
 */
#ifndef LINEAR_CLIENTS_TEST_H
#define LINEAR_CLIENTS_TEST_H

#include "ctl_world_test.h"
#include "linear_test.h"

#define CLIENTS 6
#define CALLS 220              /* of a life */
#define REGISTERS 3
#define SET_MEMBERS 12         /* of the set: numbers below that */
#define LEASES 2
#define LEASE_KEYS 3
#define LEASE_TTL_S 1          /* that is asked for; more may be granted */
#define LIST_MAX 200           /* items */

struct life;
struct client {
    struct life *life;
    struct timer rest;
    struct ctl_call call;
    struct lin_op op;
    uint64_t asked_ms;
    bool busy;
    char text[4][32];          /* what the call refers to */
    struct ctl_op ops[2];
    struct ctl_compare compare;
};
/* A lease that was granted, or perhaps, may go by itself: once, and not before this. */
struct expiry {
    uint64_t due_ms;
    uint64_t granted;          /* the tick of the answer; LIN_OPEN: it was none */
    uint32_t lease;
};
struct life {
    struct loop *loop;
    struct ctl *ctl;           /* NULL: the process is dead */
    bool (*dead)(void);        /* NULL, or whether whoever would get an answer now is dead: it is none */
    bool (*refused)(enum ctl_error e); /* whether an error may be that says that nothing was done */
    void (*answered)(struct life *l, enum ctl_error e); /* or NULL */
    struct client clients[CLIENTS];
    struct lin_history h;
    uint64_t tick, random;
    uint32_t calls, appended;
    uint32_t unknown, crashes;
    struct expiry expiries[CALLS];
    uint32_t expiries_n;
    bool reopen;               /* nobody asks for now: the disk has failed the store, or the process is dead */
    bool over;                 /* clients ask nothing more */
    bool cold;                 /* the store keeps no value in memory */
    uint32_t rest_ms;          /* of a client between two calls, at most: some lives are crowded, in some leases expire */
};
/* With loop, random, rest_ms and the functions filled in; ctl may come later. */
void life_start(struct life *l);
void life_fini(struct life *l);
uint32_t roll(struct life *l, uint32_t n);
bool life_is_quiet(void *ctx); /* no client waits for an answer */
/* The i-th question of those that read everything; false: there are no more. */
bool life_read(struct life *l, uint32_t i);

/* What the lives of a test were, together. */
struct lives {
    uint64_t ops, open;        /* operations; those whose result nobody knows */
    uint64_t crashes;
};
/* A life that is over: its history has to be linearizable. tells: a failure tells all of it. */
void life_judge(struct life *l, uint64_t seed, bool tells, struct lives *all);

#endif
