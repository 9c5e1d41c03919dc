/* sup.h - the supervisor: the privileged parent process, and the engine's way to talk to it.
 *
 * Two halves. sup_main() IS the parent: single-threaded, it holds the listening sockets, starts workloads in their
 * namespaces and cgroups, reaps them, and restarts the engine. It parses nothing from outside: the engine tells it what to
 * do in fixed binary messages over a SOCK_SEQPACKET pair; descriptors travel beside them. struct sup_client is the engine's
 * half, living on the engine's control loop. The protocol's table is in sup/README.md and sup_int.h.
 */
#ifndef SUP_H
#define SUP_H

#include "rt.h"

/* ---- the parent --------------------------------------------------------------------------------------------------- */

struct sup_conf {
    char *const *engine_argv;  /* the engine is this binary, later that of an upgrade, with these arguments; SUP_FD_ENV tells it its descriptor */
    const char *data_dir;      /* absolute; hidden from workloads */
    const char *name;          /* of this node's cgroups: weir-NAME */
};
#define SUP_FD_ENV "WEIR_SUP_FD"
/* Runs until the engine said sup_shutdown(), or gave up starting (exit status SUP_EXIT_CONFIG of the first engine means: do
 * not restart; then it returns 2). The process must have one thread only: call it before log_start(). SIGTERM and SIGINT are passed to the engine as stop(); a second one within the drain ends all at once.
 * Returns the process's exit status. Nothing that it started is left. */
int sup_main(const struct sup_conf *conf);
#define SUP_EXIT_CONFIG 78
/* What ps shows for this process: overwrites the memory of its arguments, so copy what is needed of them first. */
void process_title(const char *title);

/* ---- what this machine permits ------------------------------------------------------------------------------------ */

enum sup_net { SUP_NET_LOOKUP, /* one listener per replica through BPF sk_lookup */
               SUP_NET_LISTEN, /* listeners on each service address and port inside the namespace */
               SUP_NET_HOST    /* no namespaces: host ports through PORT and service variables */ };
struct sup_caps {
    enum sup_net net;
    bool namespaces;      /* net, mount, PID, UTS, IPC */
    bool user_namespace;  /* ... by way of a user namespace: not root */
    int cgroup;           /* 0 none, 1 v1, 2 v2 */
    bool seccomp;
    char why[512];        /* what is missing and why, for people; empty when nothing is */
};

/* ---- the engine's half ---------------------------------------------------------------------------------------------- */

/* All strings are copied by sup_start(). */
struct sup_spec {
    uint64_t id;               /* the engine's, unique for the life of the node */
    const char *name;          /* host name and cgroup, e.g. "catalog-5d9f-x2k1"; [a-z0-9-.], at most 63 */
    const char *label;         /* opaque to sup, given back on adoption; at most 1 KiB */
    const char *const *argv;   /* NULL-terminated; argv[0] is looked up in the workload's PATH */
    const char *const *envp;
    const char *cwd;           /* absolute */
    const char *hosts_path;    /* absolute file that becomes /etc/hosts, kept up to date by the engine in place; or NULL */
    const char *resolv_path;   /* the same for /etc/resolv.conf; or NULL */
    const char *const *mounts; /* pairs of a folder or file in the data folder and where it is shown, read-only; parents first; NULL: none */
    int64_t uid, gid;          /* -1: as Weir itself */
    uint32_t cpu_milli_max;    /* thousandths of a core; 0: no limit */
    uint32_t cpu_milli_share;  /* requests.cpu; 0: default weight */
    uint64_t memory_bytes_max; /* 0: no limit */
    uint32_t pids_max;         /* 0: the default, 1024 */
    bool host_network;
    uint16_t early_port;       /* of 127.0.0.1 in its own network, TCP and UDP: bound before the workload runs, so that nobody is refused who asks at once.
                                * sup_listen() and sup_listen_dgram() then get these sockets. 0: none */
};

/* A running replica as sup knows it. Descriptors become the receiver's. */
struct sup_replica {
    uint64_t id;
    const char *label;     /* valid during the call */
    int32_t pid;           /* on the host: of the workload's first process (not of its init) */
    int out_fd, err_fd;    /* read ends of its pipes, non-blocking; sup keeps duplicates until sup_forget(), so output survives the engine */
    int listen_fd;         /* SUP_NET_LOOKUP: the listening socket inside its namespace; else -1 */
    bool exited;           /* it ended while no engine was there: exit_status is valid */
    int32_t exit_status;   /* as wait(2) gives it */
    bool oom_killed;
    uint64_t started_wall_ns;
};

/* What a new engine finds. */
struct sup_history {
    uint32_t restarts;     /* engines that were started because one had died */
    uint32_t upgrades;     /* engines that have handed over to another binary's */
    int32_t leaving_pid;   /* of the engine that hands over to this one and still finishes its requests; 0: none. alone() follows */
    bool again;            /* this engine was in charge before: the upgrade that it made way for came to nothing */
};

struct sup_client;
struct sup_client_ops {
    /* Answer to sup_listen(): n descriptors (one per worker) or an error whose text names the holder of the port. */
    void (*listening)(void *ctx, uint64_t token, enum err e, const char *text, const int *fds, int n);
    /* r is NULL unless e is OK. After an error the id is free again: no sup_forget(). */
    void (*started)(void *ctx, uint64_t id, enum err e, const char *text, const struct sup_replica *r);
    /* The workload ended, all of its processes are gone. sup_forget(id) releases its namespaces. */
    void (*exited)(void *ctx, uint64_t id, int32_t status, bool oom_killed);
    /* sup_exec() ended: status as wait(2); ERR_TIMEOUT when it was killed for taking too long. output: up to 1 KiB of what it
     * wrote. A program that can't be run ends with exit status 127 and the reason as its output. */
    void (*exec_done)(void *ctx, uint64_t id, uint64_t token, enum err e, int32_t status, struct slice output);
    /* Unconnected, non-blocking TCP sockets inside replica id's namespace (IPv4); n may be 0 when it is gone. */
    void (*sockets)(void *ctx, uint64_t id, uint64_t token, const int *fds, int n);
    /* This engine is in charge from here on: what is already there follows, then ready(). */
    void (*take)(void *ctx);
    /* Only after a restart of the engine or at a hand-over, between take() and ready(): what is already there. */
    void (*adopt_listener)(void *ctx, uint64_t token, const struct addr *a, uint64_t ns_id, const int *fds, int n);
    void (*adopt_replica)(void *ctx, const struct sup_replica *r);
    /* All adopted; requests may be sent. sup_serving() answers when this engine serves. */
    void (*ready)(void *ctx, const struct sup_caps *caps, const struct sup_history *h);
    /* SIGTERM or SIGINT: drain, stop everything, then sup_shutdown(). */
    void (*stop)(void *ctx);
    /* The new engine of an upgrade: show that you can do it, change nothing; sup_prepared() answers. */
    void (*rehearse)(void *ctx);
    /* The old engine of an upgrade: let go of everything but the requests in flight, keep accepting; sup_released() answers.
     * Then either drain() or take() follows. */
    void (*release)(void *ctx);
    /* Another engine serves: stop accepting, finish what is in flight, and exit within so many ms. From release() on only
     * sup_sockets() may be asked. */
    void (*drain)(void *ctx, uint32_t ms, int32_t new_pid);
    /* The upgrade that this engine asked for was refused or has failed; it goes on. */
    void (*upgrade_failed)(void *ctx, enum err e, const char *text);
    /* The engine that was leaving has ended. */
    void (*alone)(void *ctx);
    /* What an engine gave to sup_keep(), between take() and ready(); not when none did. The bytes are valid during the call. */
    void (*adopt_kept)(void *ctx, struct slice bytes);
};
/* fd: from SUP_FD_ENV. If the connection ends the process exits: without sup there is no engine. */
struct sup_client *sup_client_new(struct loop *l, int fd, const struct sup_client_ops *ops, void *ctx);
void sup_client_free(struct sup_client *c);

/* Requests. They are queued in memory when the socket is full; answers come through ops, never from inside the call.
 * ERR_LIMIT: the message is larger than SUP_MESSAGE_BYTES_MAX (e.g. a huge environment). */
#define SUP_MESSAGE_BYTES_MAX 131072
/* n (at most 64) sockets on a (SO_REUSEPORT, one per worker). token: unique among the listeners that are open. ns_id: inside that replica's namespace (n = 1); 0: on the host. */
void sup_listen(struct sup_client *c, uint64_t token, const struct addr *a, uint64_t ns_id, int n);
/* The same for one UDP socket. Told by the token alone from others: its user has numbers of its own for such. */
void sup_listen_dgram(struct sup_client *c, uint64_t token, const struct addr *a, uint64_t ns_id);
void sup_unlisten(struct sup_client *c, uint64_t token);
enum err sup_start(struct sup_client *c, const struct sup_spec *spec) WARN_UNUSED;
void sup_signal(struct sup_client *c, uint64_t id, int signo);  /* SIGKILL ends every process of the replica */
/* timeout_ms: 0 means the longest, 10 minutes. */
enum err sup_exec(struct sup_client *c, uint64_t id, uint64_t token, const char *const *argv, uint32_t timeout_ms) WARN_UNUSED;
void sup_sockets(struct sup_client *c, uint64_t id, uint64_t token, int n); /* n <= 64 */
/* Releases an exited replica. One that runs or is being started is killed first, and nothing more is told of it. */
void sup_forget(struct sup_client *c, uint64_t id);
void sup_shutdown(struct sup_client *c, int exit_status);
/* A new engine from the binary exe_fd (stays the caller's) is to take over: within ready_ms it must be prepared, and the old one has
 * drain_ms for what it has in flight. path: for messages. Answered by drain() or upgrade_failed(). */
void sup_upgrade(struct sup_client *c, int exe_fd, const char *path, uint32_t ready_ms, uint32_t drain_ms);
void sup_prepared(struct sup_client *c, enum err e, const char *why_not); /* OK, or the upgrade has failed */
void sup_released(struct sup_client *c, enum err e, const char *why_not); /* OK, or this engine stays in charge */
void sup_serving(struct sup_client *c);                                   /* once after each ready() */
/* These processes are killed at until_ms (CLOCK_MONOTONIC) whatever becomes of the engine, unless this is called again before: each call replaces what the one
 * before said. n 0: none are. One that is named before sup_start() is not started when it is too late (ERR_TIMEOUT). What must not run longer than somebody else's leave for it is so ended in time even when the engine hangs. n <= SUP_FENCED_MAX. */
#define SUP_FENCED_MAX 4096
void sup_fence(struct sup_client *c, uint64_t until_ms, const uint64_t *ids, size_t n);
/* Bytes that sup holds in memory, instead of those before, for the engine that is in charge next: after an upgrade or a restart. sup does
 * not look at them, and wipes them when they are replaced. */
#define SUP_KEEP_BYTES_MAX 4096
void sup_keep(struct sup_client *c, struct slice bytes);

#endif
