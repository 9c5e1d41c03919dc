/* etcd_played_test.h - members of a cluster that a test plays, in the simulator: they speak gRPC over HTTP/2, and the test answers each request when and as it likes.
 *
 * A request is a question from its first byte until it is answered, broken off or its connection is gone; the test is told of it by heard(), and keeps a pointer to
 * it only as long as over() has not named it.
 */
#ifndef ETCD_PLAYED_TEST_H
#define ETCD_PLAYED_TEST_H

#include "ctl_etcd_int.h"
#include "ctl_world_test.h"

#define PLAYED_MEMBERS_MAX 2
#define PLAYED_CONNS_MAX 512
#define PLAYED_PORT 23790 /* of the first; the others' are behind it */

/* A request at a member. */
struct question {
    struct played *played;
    struct http_req *r;
    struct list link;                /* in played.questions */
    struct buf body;                 /* as much as has come */
    size_t at;                       /* of body: what the test has taken */
    int member;                      /* the one who is asked */
    unsigned ask;                    /* what for, in the test's own words */
    char path[64];
};
struct played_conn {
    struct http_srv srv;
    struct played *played;
    int member;
    bool open;
};
struct played {
    struct loop *loop;               /* the members' */
    struct played_member {
        struct listener listener;
        struct addr addr;
        int fd;
    } members[PLAYED_MEMBERS_MAX];
    int members_n;
    struct http_srv_conf conf;
    struct head_out out;
    struct played_conn *conns[PLAYED_CONNS_MAX];
    int conns_n;
    struct list questions;
    /* A question has come, or more of its body, which is in q->body; first: it is new, end: that is all. It may be over when this returns. */
    void (*heard)(struct question *q, bool first, bool end);
    void (*over)(struct question *q);/* it goes now; or NULL */
};
/* So many members listen, on a loop of their own. p is zeroed, but for heard and over. */
void played_start(struct played *p, int members);
/* Every connection is closed, whatever was asked and not answered; the loop is freed. */
void played_stop(struct played *p);

/* The question is no more: what is done with its request is the caller's. */
void question_over(struct question *q);
/* The head of an answer is in played.out. */
void played_head(struct played *p, uint16_t status);
/* The whole answer: a body of these bytes, and an end with these trailers. q is over. */
void played_answer(struct question *q, uint16_t status, struct slice bytes, const char *trailers);
/* The head of an answer that goes on; played_say() more. */
void played_open(struct question *q);
void played_say(struct question *q, struct slice bytes);

#endif
