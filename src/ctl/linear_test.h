/* linear_test.h - whether what clients saw of a store can have happened one call after the other: a check for linearizability.
 *
 * A history is a list of operations: what was asked, what was answered, and two ticks of one clock: when it was asked, and when the answer was there. It is
 * linearizable when each operation can be given a moment between its two ticks so that all answers are those of a single copy that does one after the other
 * (Herlihy and Wing 1990). One whose result is not known is open: its moment may come at any time after it was asked, or never.
 *
 * A single copy is a model: a state of a few bytes, and a step. Histories of different keys are independent of each other, and are checked one by one.
 */
#ifndef LINEAR_TEST_H
#define LINEAR_TEST_H

#include "base.h"

#define LIN_OPEN UINT64_MAX        /* as tick of an answer that never came */
#define LIN_UNTOLD (-1)            /* as result: the answer did not say */
#define LIN_STATE_BYTES 254

enum lin_what {
    /* LIN_REGISTER: a value, 0 when there is none */
    LIN_WRITE,                     /* a; result: the value before, or LIN_UNTOLD */
    LIN_READ,                      /* result: the value */
    LIN_CAS,                       /* from a to b; result: 1 done, 0 it was another */
    LIN_CLEAR,                     /* result: how many were removed, 0 or 1 */
    /* LIN_SET: of numbers below 64 */
    LIN_ADD,                       /* a; result: 1 it was there, 0 it was not, or LIN_UNTOLD */
    LIN_REMOVE,                    /* a; result: how many were removed */
    LIN_MOVE,                      /* a is removed and b added, at once */
    LIN_MEMBERS,                   /* list: ascending */
    /* LIN_LIST: of numbers below 256 */
    LIN_APPEND,                    /* a */
    LIN_ITEMS,                     /* list: in their order */
    /* LIN_LEASE: a lease, and keys below 8 that may hang on it */
    LIN_GRANT,                     /* result: 1, or 0: it is there already */
    LIN_REVOKE,                    /* result: 1, or 0: it is not there; keys that hang on it go with it */
    LIN_KEEP,                      /* the same */
    LIN_HANG,                      /* key a is put with the lease; result: 1, or 0: there is no such lease, and nothing was done */
    LIN_PUT,                       /* key a is put without one */
    LIN_KEYS,                      /* list: of those that are there, ascending: twice its number, and 1 if it hangs on the lease */
    LIN_EXPIRE,                    /* nobody's call: the lease may go by itself. Open, from the tick on at which its time may be over */
    LIN_WHATS
};
enum lin_kind { LIN_REGISTER, LIN_SET, LIN_LIST, LIN_LEASE, LIN_KINDS };

struct lin_op {
    enum lin_kind kind;
    enum lin_what what;
    uint32_t key;                  /* of its kind: which register, set, list or lease */
    int32_t a, b;
    int64_t result;                /* of one that is not open */
    uint8_t *list;                 /* the history's */
    uint32_t list_n;
    uint64_t asked, answered;      /* ticks; answered LIN_OPEN: the result is not known */
};

struct lin_state {
    uint8_t n;                     /* bytes used: what is compared */
    uint8_t bytes[LIN_STATE_BYTES];
};
void lin_begin(enum lin_kind kind, struct lin_state *s);
/* False: the operation can't have this result in state s. Else what follows is in s. */
bool lin_step(struct lin_state *s, const struct lin_op *op);

struct lin_history {
    struct lin_op *ops;
    size_t n, cap;
    struct arena mem;              /* of lists */
};
void lin_init(struct lin_history *h);
void lin_fini(struct lin_history *h);
/* The operation is copied, and its list. */
struct lin_op *lin_add(struct lin_history *h, const struct lin_op *op);

enum lin_verdict { LIN_YES, LIN_NO, LIN_TOO_HARD }; /* TOO_HARD: more states than the search may look at */
/* Of the whole history; why: of a LIN_NO, the operations around the place beyond which none was found, of LIN_TOO_HARD, which key. */
enum lin_verdict lin_check(const struct lin_history *h, struct buf *why);

/* As text, a line for each operation: KIND KEY ASKED ANSWERED|- WHAT A B RESULT [LIST,...] */
void lin_write(const struct lin_op *op, struct buf *out);
/* ERR_SYNTAX: what is wrong is in why. */
enum err lin_read(struct lin_history *h, struct slice text, struct buf *why) WARN_UNUSED;

#endif
