/* cli_log.h - what the commands of the event log share: a client of some Kafka cluster, its loop, its errors. */
#ifndef CLI_LOG_H
#define CLI_LOG_H

#include "cli.h"
#include "log_client.h"

/* A client, and a loop that runs while something is waited for. */
struct cli_log {
    const struct args *a;
    const char *bootstrap;
    struct loop *loop;
    struct log_client *client;
    uint32_t timeout_ms;
    /* of the ask under way */
    bool told;
    int code;
    void (*answer)(void *ctx, const struct log_answer *a);
    void *ctx;
    const char *doing;
};
/* --bootstrap, else $KAFKA_BOOTSTRAP_SERVERS, else 127.0.0.1:9092. EXIT_OK, or another code after saying why. */
int cli_log_open(struct cli_log *k, const struct args *a, int16_t acks);
void cli_log_close(struct cli_log *k);
/* Asks, and waits for the answer, which answer() (may be NULL) gets; failures are said: "DOING: why; remedy". An exit code. */
int cli_log_ask(struct cli_log *k, struct log_ask *ask, const char *doing, void (*answer)(void *ctx, const struct log_answer *a), void *ctx);
/* Says a failure; its exit code. */
int cli_log_failed(const struct cli_log *k, const char *doing, const struct log_fault *e);
/* "beginning", "end", an offset, a time ("2026-11-21T18:00:00Z", or "1h": so long ago). EXIT_USAGE after saying why. */
int cli_log_place(const struct args *a, const char *text, int64_t *at, bool *is_time);
/* "name=value" pairs of a repeated option as settings; the slices borrow from argv. mem_free(). */
int cli_log_settings(const struct args *a, const char *option, struct log_setting **out, size_t *n);
void cli_log_cell(struct grid *g, int64_t n); /* a number; below 0 nothing */
bool cli_log_json(const struct args *a);
void cli_log_print(json_t *v);  /* and frees it */
json_t *cli_log_text(struct slice s); /* a JSON string whatever the bytes are; null when p is NULL */
/* Set by SIGINT and SIGTERM once cli_log_signals() was called. */
extern volatile int cli_log_interrupted;
void cli_log_signals(void);

#endif
