/* tls_scenarios.h - tests of TLS that both back ends must pass: tls_os_test.c and tls_sim_test.c each bring a world. */
#ifndef TLS_SCENARIOS_H
#define TLS_SCENARIOS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tls_int.h"
#include "tls_testcert.h"

/* What a back end's test program provides. */
void world_start(void);
void world_stop(void);
bool world_run(struct loop *l, bool (*done)(void *ctx), void *ctx, uint64_t ms); /* as in rt_scenarios.h */
extern const size_t world_transfer_bytes;
extern bool world_alerts;         /* the last words of a side that closes arrive: no write is short */
extern const uint32_t world_many; /* connections in the test of many */

/* One end of a connection. It sends a pattern, or a text, and checks that it receives the same pattern. */
struct side {
    struct stream s;
    const char *say;             /* sent as soon as possible, before connected() if need be */
    uint64_t want, sent, got;    /* bytes of the pattern */
    struct buf heard;            /* the beginning of what came */
    uint32_t data_calls, drains, pause_ms;
    struct timer pause;
    bool open, connected, eof, truncated, failed, released, bad, shut_after, echo, resumed, deaf, answer_plain;
    enum { CLOSE_NOWHERE, CLOSE_IN_CONNECTED, CLOSE_IN_DATA, CLOSE_IN_EOF, CLOSE_IN_FAILED } close_in;
    enum err why;
    char error[300], version[16], cipher[64], alpn[32], name[64], peer[64]; /* peer: its first subjectAltName */
};
/* A client and a server of it, perhaps with a middleman between them. */
struct duo {
    struct loop *l;
    struct listener ln, middle_ln;
    int listen_fd, middle_fd;
    struct addr at, middle_at;
    struct side client, server;
    struct tls_ctx *client_ctx, *server_ctx; /* NULL: that side is plain */
    const char *server_name, *verify_name;
    struct tls_session_slot *slot;
    struct slice proxied;        /* what the server's owner reads before TLS begins */
    struct { /* who passes on step bytes a turn, and may change or cut something */
        struct stream up, down;
        struct buf to_up, to_down;
        size_t step, up_at, down_at, spoil_at; /* spoil_at: offset of a byte from client to server; 0: none */
        bool on, open, cut_down;
        struct task task;
        uint32_t released;
    } middle;
};
void duo_open(struct duo *d, struct loop *l);
void duo_close(struct duo *d);
bool duo_settled(void *ctx); /* both heard all and ended, or one failed */

void tls_certs_make(void);   /* once, before the scenarios */
void tls_certs_free(void);
struct tls_ctx *tls_scenario_server(struct tls_tickets *keys); /* for a.example, with these ticket keys */
extern struct tls_ctx *tls_server_plainly, *tls_client_plainly; /* default contexts: any client; trust in the test CA */

extern const struct CMUnitTest tls_scenario_tests[];
extern const size_t tls_scenario_tests_n;

#endif
