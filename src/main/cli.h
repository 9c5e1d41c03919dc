/* cli.h - what the commands share: the command line, messages, files, tables, YAML, and the way to the node.
 *
 * A command is one function that gets its parsed arguments and returns the process's exit code. Whoever finds an error says
 * it (cli_fail) and returns its code; nobody exits. Commands are short-lived: what they allocate and need until the end is
 * left to the end of the process where freeing it would be all that a line does.
 */
#ifndef CLI_H
#define CLI_H

#include "plan.h"
#include <jansson.h>
#include <stdio.h>

enum cli_exit {
#define X(name, number, meaning) EXIT_##name = number,
#include "exits.def"
#undef X
};

/* ---- the table of commands (commands.c) ------------------------------------------------------------------------------- */

struct args;
struct command {
    const char *name, *args, *summary, *help;
    int (*fn)(struct args *a);
};
struct option {
    const char *command, *name;
    char letter;     /* 0: none */
    const char *arg; /* NULL: a switch */
    const char *help;
};
extern const struct command commands[];
extern const size_t commands_n;
extern const struct option options[];
extern const size_t options_n;
const struct command *command_find(const char *name); /* NULL: unknown */
/* The command or option name that is nearest to a misspelt one, or NULL when none is near. */
const char *nearest_command(const char *name);
const char *nearest_option(const char *command, const char *name);

/* ---- the command line (args.c) ------------------------------------------------------------------------------------------ */

struct args {
    const struct command *cmd;
    const char **pos; /* what is not an option */
    size_t pos_n, pos_cap;
    struct given {
        const struct option *o;
        const char *value;
    } * given;
    size_t given_n, given_cap;
};
/* argv after the command's name. EXIT_OK, or EXIT_USAGE after saying why. */
int args_parse(struct args *a, const struct command *cmd, int argc, char **argv);
bool args_has(const struct args *a, const char *option);
const char *args_str(const struct args *a, const char *option, const char *absent); /* the last one given */
/* The i-th value of an option that may be repeated, or NULL. */
const char *args_nth(const struct args *a, const char *option, size_t i);
/* "90s", "2m", "1h", "500ms", "30" (seconds) to milliseconds. EXIT_USAGE after saying why. */
int args_time(const struct args *a, const char *option, uint32_t absent_ms, uint32_t *ms);
int args_count(const struct args *a, const char *option, uint64_t max, uint64_t *n); /* *n is left alone when absent */
const char *args_namespace(const struct args *a);
void args_free(struct args *a);

/* ---- messages (say.c) ------------------------------------------------------------------------------------------------- */

/* "weir: COMMAND: what; remedy" on standard error (remedy may be NULL); returns code. cmd NULL: no command. */
int cli_fail(int code, const char *cmd, const char *remedy, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Called once before the next message, when set: top leaves the alternate screen. */
extern void (*cli_before_message)(void);
/* Colours are wanted: f is a terminal, NO_COLOR is not set, TERM is not dumb. */
bool cli_colour(FILE *f);
void diag_print(const struct diag *d); /* on standard error */
void diags_print(const struct diags *d, bool warnings);
const char *cli_env(const char *name); /* NULL when unset or empty */

/* ---- manifest files (files.c) -------------------------------------------------------------------------------------------- */

struct source {
    char *file; /* as shown in messages */
    char *path; /* absolute; NULL for standard input */
    char *dir;  /* absolute folder that relative paths in it start from */
    struct buf text;
};
struct sources {
    struct source *items;
    size_t n, cap;
};
/* FILEs, DIRs and "-", read. EXIT_OK, or another code after saying why. */
int sources_read(const struct args *a, const char *const *names, size_t n, struct sources *out);
/* Positional arguments and -f together. */
int sources_of_args(const struct args *a, struct sources *out);
/* Reads them as manifests; prints what is wrong. EXIT_USAGE when there is an error. */
int sources_check(const struct sources *s, const char *ns, bool strict);
/* "files":[...] of POST /v1/apply and /v1/delete. */
void sources_json(const struct sources *s, struct buf *out);
void sources_free(struct sources *s);

/* ---- HTTP over the node's socket (client.c) -------------------------------------------------------------------------- */

enum client_end { CLIENT_OK, CLIENT_NO_NODE, CLIENT_LATE, CLIENT_BROKEN };
struct client_call {
    const char *socket_path, *method, *target;
    struct slice body;
    uint32_t timeout_ms; /* for everything; 0: none */
    const char *late;    /* said when the time is over within a stream that had begun; NULL: the node did not answer */
    /* Where the body of an answer of 200 goes as it comes; false ends the call well. NULL: collect it in the answer. */
    bool (*data)(void *ctx, struct slice data);
    void *ctx;
};
struct client_answer {
    uint16_t status;
    struct buf body;
};
enum client_end client_run(const struct client_call *call, struct client_answer *out);

/* ---- the node (node.c) --------------------------------------------------------------------------------------------------- */

#define NODE_SOCKET "weir.sock"
#define NODE_LOCK "lock"
#define NODE_CALL_MS 30000
/* The data folder: --data, $WEIR_DATA, or the nearest .weir upwards. EXIT_NO_NODE after saying why. Absolute; mem_free(). */
int node_data(const struct args *a, char **dir);
/* The first process of the node that holds the folder, whether it answers or not; 0: none, or it can't be known. */
int node_holder(const char *data_dir);
/* Calls the node; other statuses than 2xx and `also` are said as the command's failure. Returns an exit code. */
int node_call(const struct args *a, const char *method, const char *target, struct slice body, uint16_t also, struct client_answer *out);
/* The same for what takes its time. *lost: the node ended the connection before its answer; nothing is said then. */
int node_call_long(const struct args *a, const char *method, const char *target, struct slice body, uint32_t timeout_ms, bool *lost, struct client_answer *out);
int node_get_json(const struct args *a, const char *target, json_t **out);
/* late: what takes too long when the time is over; may be NULL when there is no limit. */
int node_stream(const struct args *a, const char *target, uint32_t timeout_ms, const char *late, bool (*data)(void *, struct slice), void *ctx);
/* A lock that a node holds for life: true when nobody holds it (*fd is ours then, close-on-exec), else *pid of the holder. */
bool node_lock(const char *data_dir, int *fd, int *pid);
void query_add(struct buf *target, const char *key, const char *value); /* "?key=value" or "&key=value", percent-encoded */

/* ---- output (grid.c, yaml.c) ------------------------------------------------------------------------------------------------ */

/* Cells in rows, aligned as kubectl does: columns padded with three spaces between, the last one not padded. */
struct grid {
    char **cells;
    size_t n, cap, columns;
};
void grid_init(struct grid *g, const char *const *heads, size_t columns);
void grid_add(struct grid *g, const char *fmt, ...) PRINTF_LIKE(2, 3); /* the next cell; empty cells show "-" */
void grid_write(const struct grid *g, struct buf *out);
void grid_free(struct grid *g);
void yaml_write(const json_t *v, FILE *f);        /* block style, YAML 1.2 */
void age_text(const char *rfc3339, char out[16]); /* "12s", "5m", "3h", "2d"; "-" when unknown */

/* ---- kinds (kinds.c) -------------------------------------------------------------------------------------------------------- */

/* What `get` can show: an object kind with its endpoint, or the replicas of workloads. */
struct view {
    const char *name, *endpoint, *prefix;
    enum obj_kind kind;
    bool replicas;
};
/* What is no object: seen, not applied. */
#define VIEW_NODE ((enum obj_kind)(OBJ_KIND_COUNT + 1))
#define VIEW_ENDPOINTSLICE ((enum obj_kind)(OBJ_KIND_COUNT + 2))
const struct view *view_find(const char *name); /* NULL: unknown */
extern const struct view views[];
extern const size_t views_n;

/* ---- the commands ------------------------------------------------------------------------------------------------------------- */

#define CMD(name, arguments, summary, help) int cmd_##name(struct args *a);
#define OPT(command, name, letter, arg, help)
#include "commands.def"
#undef CMD
#undef OPT

void help_usage(FILE *f); /* the list of commands */

/* engine.c: the node itself, started by sup. */
int engine_main(int argc, char **argv);

#endif
