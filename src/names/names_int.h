/* names_int.h - what the files of names share: limits, the server's inside. PRIVATE to names. */
#ifndef NAMES_INT_H
#define NAMES_INT_H

#include "names.h"

/* ---- limits, of one server (a worker) ---- */
#define NAMES_CONNS_MAX 256          /* connections: the next one is closed */
#define NAMES_IDLE_MS 10000          /* without a question: the connection is closed (RFC 7766 section 6.2.3) */
#define NAMES_QUERY_BYTES_MAX 4096   /* of a question by TCP: the connection is closed */
#define NAMES_OUT_BYTES_MAX 262144   /* that wait for a slow reader: no more questions are read */
#define NAMES_PENDING_MAX 256        /* questions to others under way: the next one is answered SERVFAIL */
#define NAMES_SHARE 32               /* of connections, and of questions to others, that one asker may have while half of all are taken: the rest is for others */
#define NAMES_TRIES 3                /* of one question to others, each to the next server */
#define NAMES_TRY_MS 1500            /* one of them waits so long */
#define NAMES_BAD_ANSWERS_MAX 16     /* to one try that do not fit its question: somebody guesses, and the try is given up */

enum names_way { WAY_UDP, WAY_TCP, WAYS_N };
enum names_outcome { OUT_NOERROR, OUT_FORMERR, OUT_SERVFAIL, OUT_NXDOMAIN, OUT_NOTIMP, OUT_REFUSED, OUT_OTHER, OUT_COUNT };
enum names_limit { LIMIT_CONNS, LIMIT_QUERY_BYTES, LIMIT_OUT_BYTES, LIMIT_PENDING, LIMIT_BAD_ANSWERS, LIMIT_COUNT };

struct names_counters {
    counter queries[WAYS_N];
    counter answers[OUT_COUNT];
    counter truncated;               /* of answers: the client must come again by TCP */
    counter dropped;                 /* datagrams that are no questions */
    counter limits[LIMIT_COUNT];
    counter conns;                   /* now */
    counter forwarded, tries_failed; /* questions to others; tries without a good answer */
    counter bad_answers;             /* that do not fit the question (RFC 5452) */
    counter pending;                 /* now */
};

struct names {
    struct loop *loop;
    struct names_conf conf;
    struct names_zone *zone;         /* NULL: none yet */
    struct list doors;               /* struct door */
    struct list conns;               /* struct conn */
    struct list pending;             /* struct pending, in any order */
    uint32_t conns_n, pending_n;
    bool leaving;
    struct names_counters c;
    char out[2 + DNS_MESSAGE_MAX];   /* an answer, behind the length that TCP wants */
};

/* A UDP socket or a listening one. */
struct door {
    struct list link;                /* names.doors */
    struct names *n;
    uint64_t id;
    int fd;
    bool tcp, open;                  /* open: it is read */
    struct dgram dgram;              /* UDP */
    struct listener ln;              /* TCP */
    struct names_caller caller;      /* its ns is owned */
};

/* A client by TCP. */
struct conn {
    struct stream s;
    struct list link;                /* names.conns; alone once it is closed */
    struct names *n;
    uint64_t id;
    struct names_caller caller;      /* its ns is owned */
    struct buf in;                   /* read and not yet answered */
    struct timer idle;
    uint32_t waits;                  /* for answers of others */
};

/* Where an answer goes. */
struct asker {
    struct door *door;               /* by UDP: with peer */
    struct addr peer;
    struct conn *conn;               /* by TCP */
};

/* ---- server.c ---- */
/* Sends n->out[2..2+bytes) on its way and counts it. */
void names_reply(struct names *n, const struct asker *to, size_t bytes);
/* The answer to q that has nothing but rcode; truncated: it says that there would be more. */
void names_reply_bare(struct names *n, const struct asker *to, const struct dns_query *q, enum dns_rcode rcode, bool truncated);

/* ---- forward.c: questions to others ---- */
bool forward_wanted(const struct names *n, const struct names_caller *c, const struct dns_query *q);
void forward_start(struct names *n, const struct asker *from, const struct dns_query *q);
void forward_drop_door(struct names *n, const struct door *d); /* nobody waits there any more */
void forward_drop_conn(struct names *n, const struct conn *c);
void forward_drop_all(struct names *n);

#endif
