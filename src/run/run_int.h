/* run_int.h - private to run: workloads, revisions, replicas, and what their files call of each other.
 *
 * The model and the states are in README.md. Everything here belongs to the control loop. No function frees a replica at
 * once: rep_bury() unlinks it, and the next turn frees it (style 16).
 */
#ifndef RUN_INT_H
#define RUN_INT_H

#include "run.h"

/* ---- limits (README, "Limits") ------------------------------------------------------------------------------------ */

#define RUN_STARTS_MAX 16u           /* sup_start requests without an answer */
#define RUN_LINE_MAX 16384u          /* bytes of one line of output */
#define RUN_READ_MAX 65536u          /* bytes read from one pipe per callback */
#define RUN_EXIT_READ_MAX 1048576u   /* bytes read from one pipe after the exit: more than a pipe can hold */
#define RUN_CHECK_BYTES_MAX 16384u   /* of the head of an answer to a probe */
#define RUN_WHY_MAX 512u             /* bytes of a reason */
#define RUN_ACCEPT_MS_MAX 60000u     /* without a readiness probe: until a declared port must accept */
#define RUN_FAST_MS_MIN 50u          /* first repeat of a check that has not succeeded yet; doubles */
#define RUN_FAST_MS_MAX 1000u
#define RUN_FLIGHT_POLL_MS 10u       /* between two questions whether requests are in flight */
#define RUN_STABLE_MS 600000u        /* running this long resets the back-off */
#define RUN_BACKOFF_STEP_MAX 32u     /* doublings of the back-off: beyond any maximum of it */
#define RUN_PRE_STOP_EXTRA_MS 2000u  /* after a preStop that used the whole grace period */
#define RUN_KILL_AGAIN_MS 10000u     /* between two SIGKILLs of a process whose exit is not reported */
#define RUN_SAVE_MS 20u              /* changes within this time are written together */
#define RUN_EXEC_SLACK_MS 1000u      /* beyond an exec probe's timeout: sup's answer is lost */
#define RUN_STATE_BYTES_MAX (64u << 20)
#define RUN_NAME_MAX 63u             /* a DNS label, sup's limit */
#define RUN_SUFFIX_CHARS 5u
#define RUN_REV_CHARS 8u
#define RUN_LABEL_MAX 1024u          /* sup's limit */

/* ---- revisions -------------------------------------------------------------------------------------------------------- */

/* One pod template in use. Counted: by its workload while it is current, and by its replicas. */
struct revision {
    uint32_t refs;
    uint64_t key;                /* of template hash and restart count: equal keys, equal replicas */
    char text[RUN_REV_CHARS + 1];/* the key in names */
    uint64_t number;             /* what people see; 0 until it has been current */
    struct objset *own;          /* holds obj alone; NULL: the template is unknown (adopted without a record) */
    const struct object *obj;    /* the Deployment as it was; into own */
    struct probe accept;         /* the check that stands in for a missing readiness probe; PROBE_NONE when not needed */
};

/* ---- probes ------------------------------------------------------------------------------------------------------------- */

enum probe_use { USE_STARTUP, USE_READINESS, USE_LIVENESS, USE_PRE_STOP, USE_COUNT };
enum prober_state { PROBER_OFF, PROBER_WAIT, PROBER_SOCKET, PROBER_CHECK, PROBER_EXEC };

struct check;
struct replica;

/* One probe of one replica. Its timer is the next attempt in PROBER_WAIT, and the timeout of this one in the others. */
struct prober {
    struct replica *rp;
    enum probe_use use;
    enum prober_state state;
    const struct probe *spec;  /* of rp's revision; NULL when off */
    struct timer timer;
    struct check *check;       /* in PROBER_CHECK */
    uint64_t token;            /* of the question to sup; 0: none */
    uint64_t counted_ms;       /* when a failure last counted; 0: never */
    uint64_t began_ms;         /* when this prober was switched on */
    uint32_t oks, fails;       /* in a row; fails: counted ones */
    uint32_t fast_ms;          /* the next fast repeat */
    bool settled;              /* has succeeded enough once (or is a liveness probe): the plain period holds */
};

/* ---- output --------------------------------------------------------------------------------------------------------------- */

/* One pipe. part holds memory only while a line is incomplete. */
struct outpipe {
    struct replica *rp;
    struct watch watch;
    int fd;                /* -1: closed */
    bool from_stderr, on;  /* on: the watch is started */
    struct buf part;
};

/* ---- replicas --------------------------------------------------------------------------------------------------------------- */

enum replica_phase { PH_PENDING, PH_STARTING, PH_RUNNING, PH_DRAINING, PH_STOPPING, PH_BACKOFF, PH_EXITED, PH_COUNT };
enum stop_step { STOP_NONE, STOP_FLIGHT, STOP_PRE_STOP, STOP_TERM, STOP_KILL };

#define REPLICA_MAGIC 0x7265706cu
struct replica {
    uint32_t magic;
    struct list link;           /* in its workload's replicas, oldest first; or in the graveyard */
    struct workload *wl;
    struct revision *rev;       /* counted */
    uint64_t id;                /* of the process; 0 before the first start */
    uint64_t seq;               /* order of birth, for "youngest" and for the order of starts */
    char name[RUN_NAME_MAX + 1];
    enum replica_phase phase;
    enum stop_step step;        /* within Draining and Stopping */
    bool doomed;                /* will not be restarted, does not count towards what is wanted */
    bool known;                 /* sup knows id: it is in by_id */
    bool up;                    /* ops.replica_up was called for id */
    bool ready;
    bool was_endpoint;          /* this process has been ready: requests may be in flight */
    bool started_up;            /* the startup probe succeeded, or there is none */
    bool adopted;               /* this process was found, not started, by this engine */
    bool bad_stop;              /* being stopped because of a probe: why is kept at the exit */
    int32_t pid;                /* 0: no process */
    uint32_t restarts;
    uint32_t backoff_step;      /* exponent of the next delay */
    uint64_t started_wall_ns;   /* 0: no process */
    uint64_t started_ms;        /* loop time of the start or adoption */
    uint64_t age0_ms;           /* age at adoption; 0 when started here: see rep_age_ms() */
    uint64_t ready_ms;          /* loop time of becoming ready */
    bool available;             /* ready for minReadySeconds: set by the rollout */
    uint64_t grace_end_ms;      /* Draining from preStop on, Stopping */
    uint64_t flight_end_ms;     /* the longest wait for what is in flight */
    uint64_t drop_ms;           /* loop time by which it is to be gone; 0: as its grace period says. For one that is being started */
    uint64_t serial;            /* of tokens */
    uint64_t token;             /* preStop's question to sup; 0: none */
    struct check *pre_stop;     /* preStop httpGet */
    struct timer timer;         /* back-off, drain, preStop, grace: see phase and step */
    struct prober probers[USE_PRE_STOP];
    struct outpipe out[2];      /* standard output, standard error */
    char *why;                  /* NULL: nothing to say */
    char *ended_why;            /* why its last process ended; NULL: none has */
};

/* ---- workloads ----------------------------------------------------------------------------------------------------------------- */

struct workload {
    struct list link;           /* in run->workloads, ordered by namespace and name */
    struct run *run;
    char *ns, *name;
    const struct object *obj;   /* in the set of run_want(); NULL: not wanted */
    uint32_t share;             /* replicas that this node is to run; with obj */
    struct revision *cur;       /* what replicas should be; NULL: none yet (not wanted, or new and paused) */
    struct list replicas;       /* oldest first */
    uint64_t restart_n;         /* run_restart() calls: part of the key */
    uint64_t revision_n;        /* the last revision's number */
    uint64_t progress_ms;       /* when the rollout last got on */
    bool touched;               /* rollout_step() is due this turn */
    uint64_t last_key;          /* of cur, kept over a restart of the engine so that it is not taken for a new revision */
    bool complete;              /* as of the last rollout_step() */
    bool rolling;               /* since cur changed until complete: the progress deadline holds */
    bool late;                  /* the progress deadline has passed */
    struct timer timer;         /* minReadySeconds and the progress deadline */
    char *why;                  /* why it can't be rolled out at all; NULL */
    uint64_t config;            /* objset_config_hash() of the last start or restart for it; 0: nothing counts, or not known */
    uint64_t config_now;        /* the same of the set of run_want() */
    bool config_known;          /* config says something */
    bool config_rolling;        /* restarted because of it, and not complete since */
    /* counters, monotonic */
    uint64_t restarts;          /* of all replicas, also of those that are gone */
    uint64_t lines[2], bytes[2];/* of output, by stream */
    uint64_t probes[USE_PRE_STOP][2]; /* results by use: [0] failure, [1] success */
};

enum run_limit { LIMIT_STARTS, LIMIT_LINE, LIMIT_PROBE_ANSWER, LIMIT_ACCEPT, LIMIT_COUNT };

#define RUN_MAGIC 0x72756e21u
struct run {
    uint32_t magic;
    struct loop *loop;
    struct sup_client *sup;
    struct run_conf conf;       /* strings owned */
    struct run_ops ops;
    void *ctx;
    const struct objset *set;   /* borrowed; NULL before run_want() */
    struct list workloads;
    struct table by_id;         /* 8 bytes of id -> struct replica, while sup knows the process */
    uint64_t next_id, next_seq;
    uint32_t replicas_n;        /* in all workloads */
    uint32_t starting_n;        /* in PH_STARTING */
    struct task turn;           /* run_turn(), queued by whatever changes */
    struct list grave;          /* dead replicas, freed by grave_timer */
    struct timer grave_timer;
    struct live_endpoint *eps;  /* run_endpoints() */
    size_t eps_n, eps_cap;
    bool volumes_stale;         /* a replica with volumes is gone: volumes_trim() is due */
    bool eps_dirty;             /* the set of ready replicas changed since endpoints_changed() */
    uint64_t *gone;             /* ids to tell replica_gone() this turn */
    size_t gone_n, gone_cap;
    bool stopping;
    void (*stop_done)(void *ctx);
    void (*release_done)(void *ctx, enum err e); /* run_release() is under way; NULL */
    bool released;              /* and is over: replicas are somebody else's */
    char *env_path, *env_home, *env_lang; /* of this process, for replicas */
    /* run.state */
    struct buf saved;           /* as read at run_new(); dropped at the second run_want() */
    uint32_t wants_n;
    struct timer save_timer;
    struct save_job *save;      /* being written; NULL */
    bool save_again;            /* changed meanwhile */
    /* counters */
    uint64_t limit_hits[LIMIT_COUNT];
    uint64_t starts, start_failures, adoptions, save_failures, file_failures;
    struct arena scratch;       /* reset per use */
};

/* ---- run.c ---- */
void run_touch(struct workload *wl);          /* rollout_step() at the end of this turn */
void run_endpoints_dirty(struct run *r);
void run_gone(struct run *r, uint64_t id);    /* tell replica_gone() at the end of this turn */
struct replica *run_find(struct run *r, uint64_t id);
struct workload *workload_get(struct run *r, const char *ns, const char *name, bool make);
#define RUN_OF(rp) ((rp)->wl->run)

/* ---- rollout.c ---- */
struct tally {
    uint32_t total;       /* every replica, doomed ones too */
    uint32_t live;        /* not doomed */
    uint32_t new_live, old_live, old_total; /* of the current revision or not */
    uint32_t new_unavailable;
    uint32_t ready, available, new_ready;   /* of the live */
};
void rollout_tally(const struct workload *wl, struct tally *t);
void rollout_want(struct workload *wl);       /* obj or restart_n changed: the current revision may be another */
void rollout_step(struct workload *wl);
uint32_t rollout_surge(const struct workload *wl);       /* of this node's share; with obj */
uint32_t rollout_unavailable(const struct workload *wl);

/* What run.state says of a process. */
struct saved_replica {
    bool ready, doomed;
    bool termed;          /* SIGTERM was sent; due_wall_ms: when SIGKILL follows */
    bool backoff;         /* it has ended; due_wall_ms: when it is started again */
    uint64_t due_wall_ms; /* 0: not known */
    struct slice part[2]; /* what its pipes began to say: a line without its end */
};

/* ---- replica.c ---- */
struct replica *rep_new(struct workload *wl, struct revision *rev, const char *name); /* name NULL: a fresh one */
void rep_free(struct replica *rp);        /* only run.c, from the graveyard or run_free() */
void rep_start(struct replica *rp);       /* Pending -> Starting, or BackOff when that fails */
void rep_started(struct replica *rp, enum err e, const char *text, const struct sup_replica *rep);
void rep_adopt(struct replica *rp, const struct sup_replica *rep, const struct saved_replica *was);
void rep_let_go(struct replica *rp);      /* without a word to sup or to the process */
void rep_exited(struct replica *rp, int32_t status, bool oom_killed);
void rep_doom(struct replica *rp);        /* drained and stopped, not restarted */
void rep_drop(struct replica *rp, uint64_t ms); /* the same without drain, and gone within ms */
void rep_kill_bad(struct replica *rp);    /* a probe says it must be restarted; why is set */
void rep_event(const struct replica *rp, bool warning, const char *reason, const char *message); /* for whoever keeps events */
void rep_ready_set(struct replica *rp, bool ready);
void rep_why(struct replica *rp, const char *fmt, ...) PRINTF_LIKE(2, 3);
void rep_pre_stop_done(struct replica *rp);
uint64_t rep_token(struct replica *rp, enum probe_use use);
uint64_t rep_age_ms(const struct replica *rp);
bool rep_runs_once(const struct replica *rp);
const struct pod_template *rep_pod(const struct replica *rp); /* NULL when its template is unknown */
const char *rep_phase_name(enum replica_phase p);
void rep_bound(struct replica *rp);       /* its template became known after adoption */
static inline enum probe_use token_use(uint64_t token) { return (enum probe_use)(token & 3u); }

/* ---- probe.c ---- */
void probers_init(struct replica *rp);
void probers_start(struct replica *rp);       /* the process runs (or was adopted) and its template is known */
void probers_stop(struct replica *rp);
void prober_sockets(struct prober *p, uint64_t token, const int *fds, int n); /* owns fds */
void prober_exec_done(struct prober *p, uint64_t token, enum err e, int32_t status, struct slice output);
const char *probe_use_name(enum probe_use use);
void probe_describe(const struct probe *spec, struct buf *out); /* "GET /health" */
void run_wait_text(int32_t status, struct buf *out);         /* "exit status 1", "killed by SIGSEGV" */

/* ---- check.c ---- */
/* One attempt at spec over socket fd (-1: make one); done() is called once, never from inside this call, unless cancelled. */
struct check *netcheck_start(struct run *r, int fd, const struct probe *spec, void (*done)(void *owner, bool ok, const char *text), void *owner);
void netcheck_cancel(struct check *c);           /* NULL-safe; done() is not called any more */

/* ---- output.c ---- */
void outpipe_init(struct outpipe *o, struct replica *rp, bool from_stderr);
void outpipe_open(struct outpipe *o, int fd); /* owns fd */
void outpipe_drop(struct outpipe *o);         /* closes, and reads and tells nothing more */
void outpipe_finish(struct outpipe *o);       /* reads what is left, tells it, closes */
bool outpipe_read(struct outpipe *o, size_t max); /* false at the end of the pipe */

/* ---- revision.c ---- */
uint64_t revision_key(uint64_t template_hash, uint64_t restart_n);
struct revision *revision_new(uint64_t key);  /* template unknown; one reference */
bool revision_set(struct revision *rev, const char *ns, const char *dir, struct slice json, struct buf *why);
struct revision *revision_find(struct workload *wl, uint64_t key); /* among its replicas and cur; not referenced */
struct revision *revision_ref(struct revision *rev);
void revision_unref(struct revision *rev);    /* NULL-safe */
void rep_name_make(struct workload *wl, const struct revision *rev, char out[RUN_NAME_MAX + 1]);
void run_label_format(const struct replica *rp, struct buf *out);
struct label { struct slice ns, deployment, name; uint64_t key, restarts, backoff_step; };
bool run_label_parse(struct slice text, struct label *out);
void run_state_init(struct run *r);
void run_state_load(struct run *r);               /* at run_new() */
void run_state_changed(struct run *r);            /* written soon */
void run_state_detach(struct run *r);             /* run_free() */
void run_state_workload(struct run *r, struct workload *wl);                   /* its counters, if they were saved */
bool run_state_revision(struct run *r, const struct workload *wl, struct revision *rev); /* its template, if it was saved */
void run_state_replica(struct run *r, uint64_t id, struct saved_replica *out); /* zero when it was not saved; its slices point into r->saved */
enum err run_state_release(struct run *r) WARN_UNUSED;                    /* written at once, with half-read lines */

/* ---- config.c: ConfigMaps and Secrets in the environment ---- */
void config_want(struct workload *wl);            /* before rollout_want() */
void config_step(struct run *r);                  /* restarts one of those that are due */

/* ---- volumes.c: ConfigMaps and Secrets as files ---- */
/* Written and complete before the replica starts; false: why says what is missing. */
bool volumes_prepare(struct run *r, struct workload *wl, struct revision *rev, struct buf *why) WARN_UNUSED;
void volumes_follow(struct run *r);               /* the set of run_want() is another: files of all replicas follow it */
void volumes_trim(struct run *r);                 /* folders of revisions that are gone are removed */
/* "SOURCE", "TARGET", ... for sup_spec.mounts, in a. */
const char **volumes_mounts(struct run *r, const struct workload *wl, const struct revision *rev, struct arena *a);

/* ---- files.c ---- */
void run_files_write(struct run *r);              /* hosts and resolv of every namespace with a Deployment */
char *run_files_hosts_path(struct run *r, const char *ns, bool host_network, struct arena *a);
char *run_files_resolv_path(struct run *r, const char *ns, bool host_network, struct arena *a);
/* "NAME=value" pairs every replica has, NULL-terminated, in a. */
const char **run_files_env_base(struct run *r, const struct replica *rp, struct arena *a);
enum err run_file_write(const char *path, struct slice text) WARN_UNUSED;

#endif
