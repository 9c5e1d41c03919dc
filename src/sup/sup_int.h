/* sup_int.h - what the files of this room share. Nothing outside of sup/ includes it.
 *
 * The parent is one thread around one epoll descriptor. Its children are the engine, one init per replica, and one helper
 * per exec probe that is under way:
 *
 *     weir: sup ---- chan (SOCK_SEQPACKET, messages below) ---- weir: engine
 *        |
 *        +---- ctl (SOCK_SEQPACKET, struct init_msg) ---- init of replica 1 (PID 1 of its namespace) ---- workload
 *        +---- ctl ------------------------------------- init of replica 2 ---- workload
 *        +---- pipes ----------------------------------- exec helper ---- the command
 *
 * A message between sup and the engine is one packet: struct sup_head, then its payload. Numbers are in the machine's
 * byte order (both ends are of one machine, and say the version of their protocol first); a string is its u32 length, its
 * bytes and a NUL (length UINT32_MAX and nothing else: NULL); a list is a u32 count and its strings. Descriptors travel
 * in SCM_RIGHTS, at most SUP_FDS_MAX. The order of the fields of each message is in README.md.
 */
#ifndef SUP_INT_H
#define SUP_INT_H

#include "sup.h"

#include <sys/types.h>

/* ---- limits: each is answered with ERR_LIMIT and a log line, except where the comment says otherwise ------------- */

#define SUP_FDS_MAX 64            /* descriptors in one message: workers per listener, sockets per request */
#define SUP_REPLICAS_MAX 4096     /* replicas, the exited but not forgotten ones included */
#define SUP_LISTENERS_MAX 8192    /* listeners that are open or being opened */
#define SUP_EXECS_MAX 256         /* exec probes under way */
#define SUP_ASKS_MAX 256          /* questions to one init that have no answer yet; answered with 0 sockets */
#define SUP_QUEUE_BYTES_MAX (16u << 20) /* waiting for the engine; above it the engine counts as hung and is killed */
#define SUP_TEXT_MAX 512          /* bytes of an error text */
#define SUP_EXEC_OUTPUT_MAX 1024  /* bytes kept of what an exec probe wrote */
#define SUP_NAME_MAX 63
#define SUP_LABEL_MAX 1024
#define SUP_START_MS_MAX 10000    /* from sup_start() to the workload's exec; then the start has failed */
#define SUP_STOP_MS_MAX 60000     /* from stop() to the engine's sup_shutdown(); then all is killed */
#define SUP_END_MS_MAX 5000       /* the engine's time to exit after sup_shutdown(), and the kernel's to reap all */
#define SUP_BACKOFF_MS_MIN 100    /* the second restart of the engine in a row; the first is immediate */
#define SUP_BACKOFF_MS_MAX 5000
#define SUP_BACKOFF_RESET_MS 10000 /* an engine that lived this long is sound again */
#define SUP_PIDS_DEFAULT 1024     /* processes and threads of a replica without a limit of its own */
#define SUP_MOUNTS_MAX 32         /* of one replica */
#define SUP_VOLUMES_OPTIONS "mode=700,size=128m" /* of DATA/volumes: what the files of all volumes may take */
#define SUP_EXEC_MS_MAX 600000    /* the longest exec probe; also for timeout 0 */
#define SUP_LISTEN_BACKLOG 4096
#define SUP_READY_MS_MAX 600000   /* the longest that an upgrade may allow its new engine until it is prepared */
#define SUP_DRAIN_MS_MAX 86400000 /* the longest that it may allow the old one for its requests */
#define SUP_ORPHAN_MS_MAX 1000    /* while nobody is in charge: the candidate's time to be prepared */
#define SUP_RELEASE_MS_MAX 15000  /* from release() to sup_released(): longer than a start of a replica may take */
#define SUP_TAKE_MS_MAX 15000     /* from take() to sup_serving() */
#define SUP_LEAVE_MS_MAX 5000     /* beyond the drain: the old engine's time to exit */

/* ---- message.c: the protocol ----------------------------------------------------------------------------------------- */

/* The version of this protocol and of the engine's command line. An engine of another binary says its own in SUP_HELLO, whose
 * number and first fields stay as they are for ever; sup can't be exchanged while the node runs. */
#define SUP_PROTOCOL 5u

enum sup_type {
    /* engine to sup */
    SUP_LISTEN = 1, SUP_UNLISTEN, SUP_START, SUP_SIGNAL, SUP_EXEC, SUP_SOCKETS, SUP_FORGET, SUP_SHUTDOWN, SUP_ACK,
    SUP_HELLO, SUP_UPGRADE, SUP_PREPARED, SUP_RELEASED, SUP_SERVING, SUP_KEEP, SUP_FENCE,
    /* sup to engine */
    SUP_LISTENING = 64, SUP_STARTED, SUP_EXITED, SUP_EXEC_DONE, SUP_SOCKETS_MADE, SUP_ADOPT_LISTENER, SUP_ADOPT_REPLICA,
    SUP_READY, SUP_STOP, SUP_REHEARSE, SUP_TAKE, SUP_RELEASE, SUP_DRAIN, SUP_UPGRADE_FAILED, SUP_ALONE, SUP_ADOPT_KEPT,
};

struct sup_head {
    uint32_t type;   /* enum sup_type */
    uint32_t seq;    /* counts the messages of this direction from 1: a gap is a defect */
    uint32_t bytes;  /* of the payload */
    uint32_t fds;    /* descriptors beside it */
};

void sup_put_u32(struct buf *b, uint32_t v);
void sup_put_u64(struct buf *b, uint64_t v);
void sup_put_str(struct buf *b, const char *s);               /* NULL is kept as NULL */
void sup_put_bytes(struct buf *b, struct slice s);            /* may hold NUL bytes */
void sup_put_strv(struct buf *b, const char *const *v);       /* NULL-terminated; NULL is an empty list */
void sup_put_addr(struct buf *b, const struct addr *a);

/* Reads a payload field by field. After the first field that does not fit, bad is set and all later results are zero. */
struct sup_reader {
    const char *p;
    size_t n;
    bool bad;
};
uint32_t sup_get_u32(struct sup_reader *r);
uint64_t sup_get_u64(struct sup_reader *r);
const char *sup_get_str(struct sup_reader *r);                /* points into the payload; NULL when absent or bad */
struct slice sup_get_bytes(struct sup_reader *r);
const char **sup_get_strv(struct sup_reader *r);              /* NULL-terminated, of mem_new; NULL when bad */
struct addr sup_get_addr(struct sup_reader *r);
bool sup_get_end(const struct sup_reader *r);                 /* all was read and nothing was bad */

/* One end of the channel. */
struct sup_chan {
    int fd;
    uint32_t seq_out, seq_in;
    struct list out;      /* struct out_msg: what did not fit into the socket, oldest first */
    size_t out_bytes;
    char *in;             /* one message's space */
    uint64_t queued;      /* messages that ever had to wait */
};
struct sup_in {
    uint32_t type;
    struct sup_reader r;          /* into the channel's space: valid until the next receive */
    int fds[SUP_FDS_MAX];         /* the receiver sets what it takes to -1 and calls sup_in_done() */
    int fds_n;
};
void sup_chan_init(struct sup_chan *c, int fd);
void sup_chan_fini(struct sup_chan *c);                       /* closes fd and what is queued */
/* Sends or queues; descriptors stay the caller's. ERR_LIMIT: the message is too large, or the queue is (then nothing is
 * queued). ERR_CLOSED: the other end is gone. */
enum err sup_chan_send(struct sup_chan *c, uint32_t type, const struct buf *payload, const int *fds, int n) WARN_UNUSED;
enum err sup_chan_flush(struct sup_chan *c) WARN_UNUSED;      /* OK when nothing waits any more, else ERR_AGAIN or ERR_CLOSED */
/* ERR_AGAIN: nothing there. ERR_CLOSED: the end. ERR_SYNTAX: not a message of ours, or one is missing. */
enum err sup_chan_recv(struct sup_chan *c, struct sup_in *in) WARN_UNUSED;
void sup_in_done(struct sup_in *in);

/* One packet with descriptors and nothing more, for the inits and helpers. creds_pid (may be NULL) gets the sender's PID
 * as this process sees it, or 0. Results are bytes, or -errno. */
ssize_t packet_send(int fd, const void *p, size_t n, const int *fds, int fds_n);
ssize_t packet_recv(int fd, void *p, size_t n, int *fds, int *fds_n, pid_t *creds_pid);

/* ---- cgroup.c ------------------------------------------------------------------------------------------------------------ */

enum { CG_CPU, CG_MEMORY, CG_PIDS, CG_COUNT };
struct cgroup_root {
    int version;             /* 0 none, 1, 2 */
    char *dir[CG_COUNT];     /* .../weir-NAME-PID of each controller; on v2 all three are equal. NULL: not usable */
    int held[CG_COUNT];      /* where there is a dir: it is open, with a lock that says that it is somebody's */
};
/* What a replica may use; and the directory of the replica below each dir of the root. */
struct cgroup {
    char *dir[CG_COUNT];     /* NULL: none */
};
struct cgroup_limits {
    uint32_t cpu_milli_max, cpu_milli_share, pids_max;
    uint64_t memory_bytes_max;
};
/* Makes the root's groups and removes those of dead sups. What is missing is said in why. */
void cgroup_root_init(struct cgroup_root *r, const char *name, struct buf *why);
void cgroup_root_fini(struct cgroup_root *r);
enum err cgroup_make(const struct cgroup_root *r, const char *replica, const struct cgroup_limits *lim, struct cgroup *out, char text[SUP_TEXT_MAX]) WARN_UNUSED;
/* Moves the calling process in: for children, before they do anything. 0 or -errno. */
int cgroup_join(const struct cgroup *g);
bool cgroup_oom_killed(const struct cgroup_root *r, const struct cgroup *g);
void cgroup_rmdir(const struct cgroup *g); /* after the last process is gone; fails while an exec probe is still in it */
void cgroup_remove(struct cgroup *g);      /* the same, and forgets it */

/* ---- mounts.c: a replica's view of the file system. Called by init in its own mount namespace ----------------------- */

struct sandbox;
/* 0, or -errno with text. */
int mounts_enter(const struct sandbox *sb, char text[SUP_TEXT_MAX]);
/* In sup, before there is an engine: DATA/volumes is in memory from here on, seen by what sup starts and by nobody else. Without the rights for that it
 * stays what it is: files on disk, while replicas run. */
void mounts_volumes(const char *data_dir);
extern bool mounts_setattr_absent; /* tests set it to try the way of kernels before 5.12 */

/* ---- sandbox.c: what a process gives up before it runs somebody else's program ------------------------------------------ */

/* What init, workload and probes need to know; strings point into the replica's copy of its START message. */
struct sandbox {
    const char *name;
    const char *const *argv;
    const char *const *envp;
    const char *cwd, *hosts_path, *resolv_path;
    const char *const *mounts; /* pairs of source and target; NULL-terminated */
    const char *data_dir;
    int64_t uid, gid;
    bool namespaces;      /* else: SUP_NET_HOST, only what works without */
    bool user_namespace;
    bool host_network;
    bool listener;        /* make the listener for BPF sk_lookup */
    uint16_t early_port;  /* of 127.0.0.1: bound before the workload runs, and given to INIT_LISTEN; 0: none */
};
struct seccomp_filter {
    void *insns;          /* struct sock_filter[n], of mem_new; NULL: none */
    uint16_t n;
};
/* False, with why, when libseccomp or the kernel refuses. */
bool seccomp_build(struct seccomp_filter *f, struct buf *why);
void seccomp_free(struct seccomp_filter *f);
/* Credentials, capabilities, no_new_privs, seccomp, limits, signals, umask; then the program. Returns only on failure:
 * the err, with text. argv may be another than the workload's own. */
enum err sandbox_exec(const struct sandbox *sb, const struct seccomp_filter *f, const char *const *argv, char text[SUP_TEXT_MAX]);
/* Keeps only these capabilities (bits by number), in all sets but the ambient one; the bounding set where permitted. 0 or -errno. */
int caps_keep(uint64_t keep);
/* Signals to their defaults, none blocked. */
void signals_reset(void);
/* Closes all descriptors from first on. */
void fds_close_from(int first);

/* ---- init.c: PID 1 of a replica -------------------------------------------------------------------------------------------- */

enum init_op {
    /* init to sup */
    INIT_PREPARED = 1,    /* namespaces stand; the listener beside it when one was asked for */
    INIT_HELLO,           /* from the workload's process before exec: its credentials carry its PID */
    INIT_EXIT,            /* value: the workload's status as wait(2) gives it */
    INIT_SOCKETS_MADE,    /* the sockets beside it; token repeated */
    INIT_LISTENING,       /* value: 0 or errno; token repeated */
    /* sup to init */
    INIT_GO = 32,         /* run the workload */
    INIT_SIGNAL,          /* value: signal */
    INIT_SOCKETS,         /* value: how many; token */
    INIT_LISTEN,          /* addr; token; value: enum listen_kind */
};
struct init_msg {
    uint32_t op;
    int32_t value;
    uint64_t token;
    struct addr addr;
};
/* What the child gets from its parent. */
struct init_args {
    struct sandbox sb;
    const struct seccomp_filter *filter;
    const struct cgroup *cgroup;
    int sup_pidfd;        /* readable when sup is dead */
    int ctl;              /* its end of the socket pair */
    int err;              /* write end of the error pipe: one byte of enum err, then text; closed by exec */
    int out, err_out;     /* the workload's standard output and error */
    bool probe;           /* go all the way but run nothing: exit 0 instead */
};
_Noreturn void init_main(const struct init_args *a);

/* ---- listen.c ---------------------------------------------------------------------------------------------------------------- */

/* n listening sockets on a in this network namespace. */
enum err listen_open(const struct addr *a, int n, int *fds, char text[SUP_TEXT_MAX]) WARN_UNUSED;
enum listen_kind { LISTEN_STREAM, LISTEN_DGRAM /* a bound UDP socket */ };
int listen_one(const struct addr *a, bool reuseport); /* a descriptor, or -errno */
int listen_dgram(const struct addr *a);               /* the same */
void listen_text(const struct addr *a, int errno_value, char text[SUP_TEXT_MAX]); /* why it failed, and the remedy */

/* ---- lookup.c: BPF sk_lookup ----------------------------------------------------------------------------------------------- */

/* Attaches to the network namespace netns_fd: connections to 127.128.0.0/9 go to listen_fd. The link, or -errno with text. */
int lookup_attach(int netns_fd, int listen_fd, char text[SUP_TEXT_MAX]);

/* ---- sup.c: the parent's state ----------------------------------------------------------------------------------------------- */

struct sup;
struct source {          /* a descriptor in the parent's epoll set */
    int fd;              /* -1: none */
    void (*fn)(struct sup *s, struct source *src);
};
void source_open(struct sup *s, struct source *src, int fd, void (*fn)(struct sup *, struct source *));
void source_close(struct sup *s, struct source *src);   /* closes fd too */
void source_writable(struct sup *s, struct source *src, bool on);

enum replica_state { REPLICA_STARTING, REPLICA_RUNNING, REPLICA_EXITED };
struct replica {
    struct list link;             /* sup.replicas */
    uint64_t id;
    enum replica_state state;
    bool forgotten;               /* sup_forget() came while it ran: it is freed when it has ended */
    bool killed;                  /* it is being ended by sup itself: no message when it has */
    char *spec;                   /* payload of its START message; sb's strings point into it */
    const char **argv, **envp, **mounts;
    const char *label;            /* into spec */
    struct sandbox sb;
    struct cgroup cgroup;
    pid_t init_pid;               /* 0: reaped, or never started */
    int32_t pid;                  /* the workload's first process, 0 until INIT_HELLO */
    struct source ctl, errs;      /* socket to init; error pipe of the start */
    struct buf err_text;          /* what came through errs */
    struct list asks;             /* struct ask: questions to init without an answer */
    size_t asks_n;
    int out_fd, err_fd;           /* read ends of the pipes */
    int listen_fd, link_fd;       /* the listener for sk_lookup and the link that feeds it; -1 */
    bool status_known;
    int32_t status;               /* as wait(2) gives it */
    bool oom_killed;
    uint64_t started_wall_ns, deadline_ms;
};
struct ask {
    struct list link;             /* replica.asks */
    uint32_t op;                  /* INIT_SOCKETS or INIT_LISTEN */
    uint64_t token;
    uint32_t engine;              /* the engine that asked: an answer is for no other */
};
struct sup_listener {
    struct list link;             /* sup.listeners */
    uint64_t token, ns_id;
    struct addr addr;
    int fds[SUP_FDS_MAX];
    int n;                        /* 0: being opened by an init */
};
struct exec {
    struct list link;             /* sup.execs */
    uint64_t id, token;
    uint32_t engine;
    pid_t pid;                    /* the helper's */
    struct source out;
    int result_fd;                /* the helper writes a struct exec_result */
    char output[SUP_EXEC_OUTPUT_MAX];
    size_t output_n;
};

/* An engine's process. Exactly one is in charge (sup.charge) or none; during an upgrade there is one more. */
struct sup_engine {
    struct list link;             /* sup.engines */
    struct source src;            /* of chan.fd; -1: the channel is closed */
    struct sup_chan chan;
    uint32_t number;              /* 1 is the first */
    pid_t pid;
    int exec_fd;                  /* the child writes its errno here when the binary can't be executed */
    bool greeted;                 /* its SUP_HELLO was read: it may be spoken to */
    uint64_t start_ms;
};

/* The states are in README.md. */
enum upgrade_state { UPGRADE_NONE, UPGRADE_PREPARING, UPGRADE_RELEASING, UPGRADE_TAKING, UPGRADE_DRAINING };
struct upgrade {
    enum upgrade_state state;
    struct sup_engine *from, *to; /* NULL: has ended */
    int exe_fd;                   /* to's binary, until it serves; -1 */
    char *path;                   /* its name, for messages */
    char *failed;                 /* RELEASING: why it has failed; `from` takes again when it has released */
    uint32_t drain_ms;
    uint64_t deadline_ms;         /* of the state */
};

enum sup_phase { SUP_RUNNING, SUP_STOPPING, SUP_ENDING };
struct sup {
    char **engine_argv;           /* copies: the title overwrites the originals */
    char *data_dir, *name;
    struct sup_caps caps;
    struct cgroup_root cgroups;
    struct seccomp_filter filter;
    int epoll, self_pidfd;
    struct source signals;        /* signalfd */
    struct list engines;
    struct sup_engine *charge;    /* NULL: none */
    uint32_t engines_n;           /* started so far: the number of the last */
    uint32_t restarts, upgrades;
    struct upgrade up;
    int exe_fd;                   /* the binary of the engine in charge and of those after it */
    uint64_t restart_at_ms;       /* 0 when none is due */
    uint32_t backoff_ms;          /* before the next restart */
    struct buf kept;              /* of the last SUP_KEEP: secret */
    uint64_t fence_ms;            /* sup_now_ms() at which fenced are killed; 0: never */
    uint64_t fence_until_ms;      /* the same, also when it is over: who is fenced is not started any more */
    uint64_t *fenced;             /* ids of the last SUP_FENCE; those of processes that are yet to be asked for, too */
    uint32_t fenced_n;
    enum sup_phase phase;
    uint64_t deadline_ms;         /* of STOPPING and ENDING */
    int exit_status;
    struct list replicas, listeners, execs;
    size_t replicas_n, listeners_n, execs_n, starting_n;
};
uint64_t sup_now_ms(void);
/* To the engine in charge; nothing when there is none. An engine that does not read is killed. */
void sup_tell(struct sup *s, uint32_t type, const struct buf *payload, const int *fds, int n);
void sup_tell_to(struct sup *s, struct sup_engine *e, uint32_t type, const struct buf *payload, const int *fds, int n);
void sup_on_engine(struct sup *s, struct source *src);
void sup_read_engine(struct sup *s, struct sup_engine *e); /* until nothing is left */
void sup_end(struct sup *s, int exit_status, bool at_once); /* at_once: the engine too is killed */

/* ---- caps.c ------------------------------------------------------------------------------------------------------------------ */

/* Tries every mechanism for real and fills s->caps, s->filter, s->cgroups; enters the user namespace when that is the way. */
void caps_probe(struct sup *s);
extern bool caps_no_namespaces; /* tests set it to try SUP_NET_HOST */

/* ---- spawn.c ----------------------------------------------------------------------------------------------------------------- */

/* Clones an init. Its PID or -errno. */
pid_t spawn_init(const struct init_args *a);
struct replica *replica_find(struct sup *s, uint64_t id);
bool replica_fenced(const struct sup *s, uint64_t id); /* it runs once, and the time in which it may run here is over */
void replica_start(struct sup *s, struct sup_in *in);
void replica_signal(struct sup *s, uint64_t id, int signo);
void replica_kill(struct sup *s, struct replica *r);
void replica_forget(struct sup *s, uint64_t id);
void replica_sockets(struct sup *s, struct sup_engine *asker, uint64_t id, uint64_t token, int n);
bool replica_ask(struct replica *r, uint32_t engine, uint32_t op, uint64_t token, int32_t value, const struct addr *a);
bool replica_reaped(struct sup *s, pid_t pid, int status);  /* false: not an init */
void replica_deadlines(struct sup *s, uint64_t now_ms);
void replicas_engine_gone(struct sup *s);
void replicas_adopt(struct sup *s);
void replicas_free(struct sup *s);

/* ---- listen.c, the table ------------------------------------------------------------------------------------------------------ */

void listener_request(struct sup *s, uint64_t token, const struct addr *a, uint64_t ns_id, int n, enum listen_kind kind);
void listener_answer(struct sup *s, struct replica *r, uint64_t token, uint32_t engine, int errno_value, int fd); /* owns fd */
void listener_drop(struct sup *s, uint64_t token);
void listeners_drop_ns(struct sup *s, uint64_t ns_id);
void listeners_adopt(struct sup *s);
void listeners_free(struct sup *s);

/* ---- exec.c -------------------------------------------------------------------------------------------------------------------- */

void exec_start(struct sup *s, uint64_t id, uint64_t token, const char *const *argv, uint32_t timeout_ms);
bool exec_reaped(struct sup *s, pid_t pid, int status);
void execs_free(struct sup *s);

/* ---- engine.c ------------------------------------------------------------------------------------------------------------------ */

void engine_start(struct sup *s);                            /* it will be in charge */
struct sup_engine *engine_launch(struct sup *s, int exe_fd); /* NULL with errno */
void engine_hello(struct sup *s, struct sup_engine *e, uint32_t protocol, const char *version);
/* e is in charge from now on: all that there is and SUP_READY. */
void engine_take(struct sup *s, struct sup_engine *e, bool again);
void engine_restart_later(struct sup *s, uint64_t lived_ms);
struct sup_engine *engine_find(struct sup *s, uint32_t number); /* NULL when it has ended */
static inline uint32_t engine_number(const struct sup *s) { return s->charge ? s->charge->number : 0; }
/* "ended with status 1"; false: "can't be executed: ..." */
bool engine_end_text(const struct sup_engine *e, int status, char text[SUP_TEXT_MAX]);
bool engine_reaped(struct sup *s, pid_t pid, int status);
void engine_kill(struct sup_engine *e);  /* NULL-safe */
void engine_discard(struct sup *s, struct sup_engine *e); /* NULL-safe: killed, and heard no more */
void engines_free(struct sup *s);

/* ---- upgrade.c ----------------------------------------------------------------------------------------------------------------- */

void upgrade_request(struct sup *s, struct sup_engine *from, struct sup_in *in);
void upgrade_greeted(struct sup *s, struct sup_engine *e, const char *wrong); /* wrong: NULL, or why it can't be spoken to */
void upgrade_prepared(struct sup *s, struct sup_engine *e, enum err er, const char *why_not);
void upgrade_released(struct sup *s, struct sup_engine *e, enum err er, const char *why_not);
void upgrade_serving(struct sup *s, struct sup_engine *e);
/* An engine has ended (status as wait(2)); it is in no list any more, and charge is NULL if it was its. False: nothing of an upgrade, the
 * caller goes on as for any engine. */
bool upgrade_reaped(struct sup *s, struct sup_engine *e, bool was_charge, int status);
void upgrade_stop(struct sup *s);        /* the node is being stopped: to whom STOP goes */
void upgrade_deadline(struct sup *s, uint64_t now_ms);
void upgrade_free(struct sup *s);

#endif
