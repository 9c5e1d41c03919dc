/* rt_scenarios.h - tests that both back ends must pass: rt_os_test.c and rt_sim_test.c each bring a world to run them in. */
#ifndef RT_SCENARIOS_H
#define RT_SCENARIOS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rt_int.h"

/* What a back end's test program provides. */
void world_start(void);
void world_stop(void);
/* Runs l (and in the simulator all loops) until done(ctx) or for ms of its time; true when done() said so. */
bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms);
extern const size_t world_transfer_bytes;
const char *world_path(const char *name, char out[256]); /* of a file that a test may make */

/* ---- an end of a connection that checks what it reads, for scenarios and fault tests ---- */

/* Sends a pattern and checks that it receives the same pattern from its beginning. */
struct end {
    struct stream s;
    struct loop *l;
    uint64_t want, sent, got;    /* bytes to send in all; sent; received */
    size_t queue_max;            /* the most that was queued */
    uint32_t data_calls, drains;
    bool connected, eof, failed, released, shut_after, echo, bad;
    uint32_t pause_ms;           /* reading goes off this long after each data() */
    struct timer pause;
    enum err why;
    void (*on_data)(struct end *e, char *p, size_t n); /* replaces checking */
    enum { CLOSE_NEVER, CLOSE_CONNECTED, CLOSE_DATA, CLOSE_EOF, CLOSE_DRAINED, CLOSE_FAILED } close_in;
};
extern const struct stream_ops end_ops;
void end_unpause(struct timer *t);               /* of every end's pause */
char pattern(uint64_t at);                       /* the byte there */

struct pair {
    struct loop *l;
    struct listener ln;
    int listen_fd;
    struct addr at;
    struct end client, server;
    bool accepted;
};
void pair_open(struct pair *p, struct loop *l);  /* the client on p->client.l when that is set */
void pair_close(struct pair *p);
void end_pump(struct end *e);                    /* sends what it wants to, as far as its queue allows */
bool pair_finished(void *ctx);                   /* both sent, received and ended; or one failed */
bool pair_released(void *ctx);

extern const struct CMUnitTest scenario_tests[];
extern const size_t scenario_tests_n;

/* ---- relays and pours (relay_scenarios.c) ---- */

/* client - down [relay or pour] up - server: four streams, one loop, or two with the ends on a loop of their own. */
struct bridge {
    struct loop *l;
    struct listener front, back;
    int front_fd, back_fd;
    struct addr back_at;
    struct end client, server;
    struct stream down, up;
    struct relay relay;
    struct pour pour;
    uint32_t idle_ms;
    uint64_t owner_at;           /* position in the pattern at which down's owner reads next */
    bool owner_bad, owner_eof;
    uint32_t owner_failed;       /* failed() of down or up, told to their owner */
    bool by_hand;                /* the test starts what it wants to when ready */
    bool down_open, ready, closed;
    bool ended;                  /* done() was called */
    enum err why;
    uint32_t released;
};
void bridge_open(struct bridge *b, struct loop *l); /* the ends are on b->client.l when that is set */
void bridge_close(struct bridge *b);
bool bridge_over(void *ctx);                     /* done() was called, and both ends know */
extern const struct CMUnitTest relay_tests[];
extern const size_t relay_tests_n;

/* ---- files written at offsets (disk_scenarios.c) ---- */
extern const struct CMUnitTest disk_tests[];
extern const size_t disk_tests_n;

/* ---- stream_into(), and chains of writes and pours (into_scenarios.c) ---- */
extern const struct CMUnitTest into_tests[];
extern const size_t into_tests_n;

#endif
