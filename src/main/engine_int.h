/* engine_int.h - shared by the engine's files. */
#ifndef ENGINE_INT_H
#define ENGINE_INT_H

#include "broker.h"
#include "engine.h"
#include "etcd_api.h"
#include "events.h"
#include "fleet.h"
#include "names.h"
#include "objstore.h"
#include "seal.h"

#define WORKERS_MAX 64
#define MAILBOX_CAP 1024
#define GATEWAY_DRAIN_MS 20000      /* the longest a stop waits for requests from outside */
#define REHEARSE_RESOLVE_MS 5000    /* the longest a new engine waits for external names before it takes over */
#define API_REST_MS 1000            /* the longest a hand-over waits for requests of tools */
#define CLUSTER_MOVE_MS 10000       /* the longest a stop waits for other nodes to take over */
#define RESOLVE_MS 30000            /* names of hosts outside are looked up again after this, up to a tenth less */
#define LOG_FILE_BYTES_MAX (10u << 20)
#define TOKEN_ADMIN (1ULL << 62)
#define TOKEN_SOCKET (TOKEN_ADMIN | 1)  /* DATA/weir.sock */
#define TOKEN_KAFKA (TOKEN_ADMIN | 2)   /* the event log's on the host: one for each way */
#define TOKEN_KAFKA_SECURE (TOKEN_ADMIN | 3)
#define TOKEN_DNS_UDP (TOKEN_ADMIN | 4) /* the name server's on the host */
#define TOKEN_DNS_TCP (TOKEN_ADMIN | 5)
#define TOKEN_ETCD (TOKEN_ADMIN | 6)    /* the etcd API's on the host */
#define TOKEN_INSIDE (1ULL << 61)   /* listeners inside namespaces */
#define TOKEN_DGRAM (1ULL << 60)    /* of these: UDP sockets */

/* control -> worker: W_*, worker -> control: C_*. */
enum engine_msg {
    W_PLAN,         /* p: struct plan, one reference */
    W_LISTEN,       /* a: token, n: descriptor */
    W_UNLISTEN,     /* a: token */
    W_DOOR,         /* p: struct door_msg, the receiver frees it */
    W_DOOR_CLOSE,   /* a: replica id */
    W_SOCKETS,      /* a: replica id, n: count, p: int[n], the receiver frees it */
    W_DRAIN,        /* n: ms */
    W_PERMITS,      /* n: slot of a cluster */
    W_LEAVE,        /* n: ms; another engine serves */
    W_SHARD,        /* p: struct broker, which this worker makes its shard of */
    W_SHARD_FREE,
    W_LOG_LISTEN,   /* a: enum log_way_kind, n: descriptor of Kafka's port on the host, the control loop's */
    W_LOG_UNLISTEN, /* no more connections to the event log, from anywhere */
    W_LOG_AWAY,     /* p: struct log_home, the receiver owns it: connections to the event log are passed on to that node */
    W_ZONE,         /* p: struct names_zone, one reference */
    W_NAMES_DOOR,   /* p: struct names_door_msg, the receiver frees it */
    W_NAMES_CLOSE,  /* a: replica id */
    W_STOP,
    C_SOCKETS,      /* a: replica id, b: worker, n: how many */
    C_LEFT,         /* a: endpoint id, b: replica id */
    C_PERMITS,      /* n: slot of a cluster, b: worker */
    C_DRAINED,      /* b: worker */
    C_SHARD,        /* W_SHARD is done */
    C_SHARD_FREED,
    C_ETCD,         /* n: descriptor of a connection from inside a namespace, p: who makes it (char *); the receiver owns both */
};
struct door_msg {
    uint64_t replica_id;
    int fd;
    char *ns, *workload, *replica;
};

/* A socket that questions for names come through. */
struct names_door_msg {
    uint64_t id;                /* of the replica; 0: on the host */
    int fd;
    bool dgram;
    char *ns;
};

/* The node that keeps the event log of all, where it is another. */
struct log_home {
    char *node;                 /* its name */
    struct addr gate;           /* ADDR_NONE: nobody knows where it is now */
};

struct worker {
    struct engine *e;
    uint32_t index;
    struct thread *thread;
    struct loop *loop;
    struct proxy *proxy;
    struct mailbox *inbox;      /* to the worker */
    struct outbox to_worker;    /* the control loop's */
    struct outbox to_control;   /* the worker's */
    struct names *names;
    struct shard *shard;        /* of the event log, while connections to it are taken */
    struct shard *shard_made;   /* until it is freed */
    struct list log_doors;      /* struct log_door: Kafka's port on the host */
    struct log_home *log_home;  /* while connections to the event log are passed on; else NULL */
};

/* A Gateway's address and its sockets. */
struct gate {
    uint64_t token;
    struct addr address;
    char *gateway;
    uint8_t protocol;           /* enum listen_protocol */
    bool open, wanted;
    char *why;                  /* why it could not be opened; NULL */
};

/* A replica that has a way into the mesh. */
struct mesh_replica {
    uint64_t id;
    char *ns, *workload, *name;
    bool found;                 /* adopted since this engine last came into charge */
    struct table inside;        /* what is listened to there: struct inside_key -> its token (heap) */
};

/* The key of mesh_replica.inside. */
struct inside_key {
    uint32_t ip;                /* host order */
    uint16_t port;
    uint8_t dgram;
} __attribute__((packed));

/* The name server (engine_names.c). */
struct engine_names {
    struct addr address;        /* on the host; ADDR_NONE: not there */
    struct names_conf conf;
    bool asked[2], open[2];     /* sup_listen() is under way; it is open: TCP, UDP */
};

/* The ways to the event log on the host: in clear, for whoever can reach it; over TLS, for users who log in with SASL. */
enum log_way_kind { WAY_PLAIN, WAY_SECURE, WAYS };
struct log_way {
    struct addr address;        /* ADDR_NONE: off */
    bool asked;                 /* sup_listen() is under way */
    int fds[WORKERS_MAX];       /* listening there; shared with sup, which keeps them for the next engine */
    int fds_n;
};

/* The event log (engine_broker.c). */
struct engine_broker {
    bool off;                   /* --kafka off: there is none */
    bool served;                /* it has been open in this engine */
    bool stuck;                 /* it did not come to rest */
    bool known;                 /* objects are in force, so who may do what is known: before, nobody is served */
    enum { BROKER_CLOSED, BROKER_MAKING, BROKER_SERVING, BROKER_STOPPING, BROKER_FREEING, BROKER_AWAY } state;
    enum { LOG_UNKNOWN, LOG_HERE, LOG_AWAY } place; /* which node keeps the event log (engine_log_home.c); alone: this one */
    struct log_home home;       /* with LOG_AWAY */
    bool lost_said;             /* that the log is in another data folder of this node's name */
    struct broker *b;           /* NULL with BROKER_CLOSED */
    uint32_t answers;           /* of workers, with BROKER_MAKING and BROKER_FREEING */
    struct log_way ways[WAYS];
    struct tls_ctx *tls;        /* of WAY_SECURE; changed only while nobody accepts */
    char *dir;                  /* DATA/log */
    char *why;                  /* why it could not be opened or listened for; NULL */
    struct timer retry, patience;
    void (*then)(struct engine *e); /* broker_down(): what comes after it */
    struct table topics;        /* name -> struct declared (engine_topics.c) */
    struct timer topics_retry;  /* set while the broker refuses one */
    bool quotas_asked, quotas_again; /* the broker is being told; and is to be told once more */
};

/* The control store and the etcd API (engine_store.c). */
struct engine_store {
    bool off;                   /* --etcd off: there is no API; the store is there all the same */
    bool served;                /* it has been open in this engine */
    bool stuck;                 /* it did not come to rest */
    bool known;                 /* objects are in force, so who may do what is known: before, nobody is served */
    enum { STORE_CLOSED, STORE_OPEN, STORE_RESTING, STORE_CLOSING } state;
    struct ctl *ctl;            /* NULL with STORE_CLOSED */
    struct etcd_api *api;       /* with STORE_OPEN and STORE_RESTING, unless off */
    struct addr address;        /* on the host */
    bool asked;                 /* sup_listen() is under way */
    bool listening;             /* api accepts from fd */
    int fd;                     /* listening there, or -1; shared with sup, which keeps it for the next engine */
    char *dir, *url;            /* DATA/ctl; http://ADDRESS */
    char *why;                  /* why it could not be opened or listened for; NULL */
    struct timer timer;         /* what is next, by state */
    uint64_t since_ms;          /* of the state, on the way down */
    void (*then)(struct engine *e); /* store_down(): what comes after it and the broker */
};

/* What the node shows other nodes, and whom it believes (engine_peers.c). */
struct peer_texts { struct buf cert, key, ca; }; /* PEM */
struct engine_peers {
    struct addr gate;           /* where other nodes come to; ADDR_NONE: there are none */
    struct peer_texts texts;    /* in use; empty: none could be used yet */
    char *why;                  /* why the files, as they are now, can't be used; NULL */
    struct timer look;          /* the files may have changed */
};

/* The objects of the system (engine_objects.c). What is in force is engine.objects. */
struct engine_objects {
    struct objstore *store;
    bool settled;               /* the first objects are in force */
    bool reading, reread;       /* read is under way; it is to be, since another node changed something */
    int64_t read_from;          /* objstore_at() as it was known when reading began: the store had this */
    bool replace;               /* first: what is not in it goes */
    bool taking_in;             /* first: from an older version, as it is */
    struct list queue;          /* struct node_change: they take turns */
    struct task turn;           /* the next of them */
    struct list syncing;        /* struct syncing: questions that wait for the objects of another node's change */
    struct timer trim;          /* gives back what a change has left free */
    struct node_change *now;    /* under way; NULL */
    struct objset *next;        /* as objects are to be after it */
    struct objset *given;       /* with join, of an apply: what was given, for another try; else NULL */
    size_t diags_n;             /* what was said of it before it was checked */
    uint32_t tries;             /* of it that other nodes' changes came before */
    bool again;                 /* now is to be made once more, on the objects as they are when they have been read again */
    struct objstore_commit commit; /* its steps */
    struct objstore_newest newest;
    struct objstore_back back;
    struct objstore_read read;
    struct node_change first;   /* of this engine's start */
    struct merge_conf own;      /* and its */
};

/* This node among others: who is there and who runs what (engine_cluster.c). */
struct engine_cluster {
    bool join;                  /* --join: the store is an etcd cluster's */
    bool tls;                   /* an endpoint of it wants TLS */
    bool waiting;               /* to be a member, before the objects are read */
    bool leaving;               /* the lease is being given back */
    struct fleet *fleet;        /* with STORE_OPEN and STORE_RESTING */
    struct mirror *head;        /* with join: the revision of the objects, whoever made it */
    struct timer head_again, patience;
    struct node_sync check;     /* whether the store is as it was, each time this node is a member again */
    bool checking;              /* it is under way */
    uint64_t checked;           /* of fleet_status.rejoins: for how many it was done */
    struct mirror *told;        /* with join: what nodes say of their workloads (engine_status.c) */
    struct timer tell;          /* what this one says */
    struct table unplaced;      /* "ns/name" -> the last event's text about replicas without a node */
    struct ctl_etcd_endpoint *endpoints; size_t endpoints_n; /* of the store */
    struct kvs labels;          /* --node-labels */
    char *instance;             /* DATA/node.id */
    uint64_t others_hash;       /* of what the plan has of others */
    struct live_endpoint *live; /* cluster_endpoints() */
    struct live_address *addresses; /* cluster_addresses() */
    struct table serviceless;       /* "NAMESPACE/SERVICE" of registrations for which there is no Service, as was said */
    uint64_t fence_ms;          /* loop time at which sup kills what runs once, unless it is told another; 0: none */
    uint64_t *fenced; size_t fenced_n, fenced_cap; /* the processes that it was told of */
};

/* The last plan (engine_last.c). */
struct last_write;
struct engine_last {
    bool began;                 /* this engine began with it */
    bool serving;               /* ... and the objects of the store have not been read yet */
    bool well, again;           /* the last writing went well; something changed during one */
    char *why;                  /* the store is back, and could not be read: for what reason; or NULL */
    uint64_t objects_hash, fleet_hash; /* of what the files have; 0: not known */
    struct last_write *writing; /* under way; NULL */
    struct timer write_timer, begin_timer;
};

struct engine_conf {
    const char *join;           /* etcd://HOST:PORT,...; "": a node alone */
    const char *etcd_cert, *etcd_key, *etcd_ca, *etcd_password; /* files, absolute paths; "" */
    const char *etcd_user, *node_labels;
    const char *etcd;           /* ADDRESS:PORT, or "off" */
    const char *kafka;          /* ADDRESS:PORT, or "off" */
    const char *kafka_secure, *kafka_cert, *kafka_key; /* the same over TLS; files in PEM, absolute paths */
    const char *kafka_set;      /* settings of the broker, see broker_conf_set() */
    const char *dns;            /* ADDRESS:PORT, or "off" */
    const char *dns_forward;    /* ADDRESS:PORT,...; "off"; "": as the host's resolv.conf has it */
    const char *node_listen, *node_cert, *node_key, *node_ca; /* the gate, ADDRESS:PORT or "off"; files in PEM, absolute paths */
    const char *secrets_key, *secrets_key_command; /* see secrets_key_open() */
    const char *data_dir, *admin, *access_log, *name, *default_ns, *locality;
    uint32_t workers;
    uint32_t ticket_ms;         /* how long one key of TLS session tickets is used */
    const char *kernel_tls;     /* "auto" or "off" */
    bool strict;
    char **files;
    int files_n;
};

struct engine {
    struct engine_conf conf;
    struct loop *loop;
    struct sup_client *sup;
    struct sup_caps caps;
    struct keyring *keys;       /* what values of Secrets are sealed with on disk; from the first moment to the last */
    uint32_t restarts;
    struct sup_history history;
    bool later;                 /* another engine was there before: what is wanted is in the data folder */
    struct engine_broker broker;
    struct engine_names dns;
    struct engine_peers peers;
    struct engine_store store;
    struct engine_last last;
    struct engine_cluster cluster;
    struct engine_objects objs;
    struct events *events;
    int end_status;             /* what sup is told when the broker has closed */
    struct run *run;            /* NULL while this engine is not in charge */
    struct api *api;
    struct objset *objects;
    struct plan_memory *memory;
    struct plan *plan;
    struct worker *workers[WORKERS_MAX];
    struct proxy *proxies[WORKERS_MAX];
    struct names *names[WORKERS_MAX];
    uint32_t workers_n, drained_n;
    struct mailbox *inbox;      /* from the workers */
    struct gate *gates; size_t gates_n, gates_cap;
    struct table mesh;          /* replica id (8 bytes) -> struct mesh_replica */
    struct table leaving;       /* replica id (8 bytes) -> uint64_t: endpoints that workers have not let go of */
    uint64_t inside_token;
    struct log_file *access, *console;
    struct table logs;          /* "ns/deployment" -> struct workload_log */
    uint64_t log_lines_dropped; /* by logs that are closed */
    struct resolver *resolver;
    struct timer gate_retry, drain_poll;
    struct timer ticket_timer;  /* the next rotation of session ticket keys */
    uint64_t ticket_rotations;
    bool tickets_adopted;       /* they are in memory: given by an engine before, or sup has ours */
    uint64_t drain_since_ms;
    /* hand-over (engine_upgrade.c) */
    int32_t leaving_pid;        /* of the engine that made way for this one and still has requests in flight; 0: none */
    struct timer hand_poll;     /* waits for the workers' plan, for the api, or for the end of the drain, by the state below */
    uint64_t hand_since_ms;
    enum { HAND_NONE, HAND_REHEARSING, HAND_SERVING, HAND_RELEASING, HAND_RELEASED, HAND_LEAVING } hand;
    bool started;               /* the first objects are in force */
    bool was_ready;             /* all workloads have been ready once */
    bool stopping;
    bool configuring;           /* the first gates are being opened: a failure ends the start */
    bool run_stopped;           /* run has nothing left to do */
    int exit_status;            /* of this process */
    struct task end;
    int admin_fd, socket_fd;    /* -1: none */
    struct addr admin_addr;
    bool admin_known, socket_known; /* sup has answered, or they were adopted */
    bool api_asked, api_open;
};

/* engine.c */
bool engine_address_parse(struct slice text, struct addr *a); /* "off" (ADDR_NONE), "127.0.0.1:7070", "[::1]:7070" */
void engine_config_failed(struct engine *e);
void engine_settled(struct engine *e);   /* the first objects are in force */
void engine_unsettled(struct engine *e); /* there are none: it has been said why */
void engine_api_open(struct engine *e);
void engine_stop(struct engine *e); /* drain, stop the workloads, end: once */
/* engine_objects.c: what is wanted, from the control store and into it */
void objects_init(struct engine *e);
void objects_fini(struct engine *e);
void objects_begin(struct engine *e);   /* the store is open for the first time: engine_settled() or engine_unsettled() follows */
void engine_change(struct engine *e, struct node_change *c);
void engine_history(struct engine *e, struct node_history *h);
/* engine_sync.c: questions about the objects, when other nodes change them, too */
void engine_sync(struct engine *e, struct node_sync *s);
bool syncs_follow(struct engine *e);    /* ends what has what it waits for; true: others wait for objects that this node has not read */
void syncs_reading(struct engine *e);   /* the objects are asked for: what is read now is new enough for those whose answer was there before */
void syncs_read(struct engine *e);      /* and have been read */
void syncs_end(struct engine *e);       /* with what there is */
enum err objects_copy(struct engine *e); /* for the rehearsal of another engine, until objects_copy_remove() */
void objects_copy_remove(struct engine *e);
bool objects_rehearse(struct engine *e, struct objset *set, struct diags *d); /* what the engine in charge left; errors are in d */
/* engine_plan.c: objects and endpoints -> plan -> workers */
/* It happened now to that object; ns "": to the node itself. */
void engine_event(struct engine *e, const char *ns, const char *kind, const char *name, bool warning, const char *reason, const char *message);
void engine_publish(struct engine *e);
void engine_gates_retry(struct timer *t);
void gate_listening(struct engine *e, uint64_t token, enum err er, const char *text, const int *fds, int n);
void gate_adopt(struct engine *e, uint64_t token, const struct addr *a, const int *fds, int n);
struct gate *gate_find(struct engine *e, uint64_t token);
void gates_free(struct engine *e);
bool engine_in_flight(struct engine *e, uint64_t replica_id);
void mesh_up(struct engine *e, uint64_t id, const char *ns, const char *deployment, const char *replica, int fd);
void mesh_gone(struct engine *e, uint64_t id);
void mesh_adopting(struct engine *e); /* marks all as not found */
void mesh_trim(struct engine *e);     /* what was not found is gone */
bool mesh_has_inside(struct engine *e, uint64_t token);
void mesh_free(struct engine *e);
void mesh_listen(struct engine *e, struct mesh_replica *m, const struct addr *a); /* in its namespace, once */
void mesh_listen_dgram(struct engine *e, struct mesh_replica *m, const struct addr *a); /* the same for UDP */
void mesh_inside_listening(struct engine *e, uint64_t token, uint64_t replica_id, enum err er, const char *text, int fd);
/* engine_workers.c */
void workers_start(struct engine *e);
void workers_stop(struct engine *e);
void worker_post(struct engine *e, uint32_t worker, struct msg m);
void workers_post_all(struct engine *e, struct msg m); /* only for messages without ownership */
/* engine_upgrade.c: this engine's part in an upgrade, as the new one and as the old one */
void upgrade_init(struct engine *e);
void upgrade_rehearse(struct engine *e);
void upgrade_serving_soon(struct engine *e); /* tells sup when every worker uses the plan; opens the api if that has waited */
void upgrade_release(struct engine *e);
void upgrade_back(struct engine *e);         /* in charge again */
void upgrade_drain(struct engine *e, uint32_t ms, int32_t new_pid);
void upgrade_over(struct engine *e, enum err er, const char *text); /* the upgrade that was asked for has failed */
enum err upgrade_ask(struct engine *e, const char *path, uint32_t ready_ms, uint32_t drain_ms, struct buf *why_not);
/* engine_broker.c: the event log */
void broker_init(struct engine *e);
void broker_fini(struct engine *e);
void broker_up(struct engine *e);   /* in charge: opens it, or goes on trying */
void broker_down(struct engine *e, void (*then)(struct engine *e)); /* then() when it is closed: perhaps at once, and after BROKER_STOP_MS at the latest */
bool broker_ready(const struct engine *e, struct buf *why_not);
struct addr host_reached(struct addr a); /* where on this host a listener of that address is reached */
const char *broker_host_address(const struct engine *e, char text[ADDR_TEXT_MAX]);
void broker_listening(struct engine *e, enum log_way_kind kind, enum err er, const char *text, const int *fds, int n);
void broker_adopt(struct engine *e, enum log_way_kind kind, const struct addr *a, const int *fds, int n);
void broker_inside_follow(struct engine *e, struct mesh_replica *m);
void broker_shard_made(struct engine *e);
void broker_shard_freed(struct engine *e);
bool worker_inside_log(struct worker *w, const struct proxy_caller *c, int fd); /* this and the next two: on the worker's thread */
void worker_log_listen(struct worker *w, enum log_way_kind kind, int fd);
void worker_log_unlisten(struct worker *w);
void broker_ways_open(struct engine *e);
/* engine_log_home.c: where the event log is, and the way there */
void log_home_init(struct engine *e);
void log_home_fini(struct engine *e);
void log_home_follow(struct engine *e); /* the fleet knows something else */
void log_home_open(struct engine *e);   /* LOG_AWAY: the doors lead there */
void log_home_close(struct engine *e);
bool worker_log_away(struct worker *w, int fd, const struct broker_door *door); /* this and the rest: on the worker's thread. False: connections are not passed on now */
void worker_log_home(struct worker *w, struct log_home *h); /* takes it; NULL: none */
bool worker_log_service(void *ctx, struct slice line, int *fd); /* another node asks */
/* engine_names.c: the name server */
bool names_init(struct engine *e);  /* false: an option that can't be read */
void names_up(struct engine *e);
void names_publish(struct engine *e); /* behind each plan */
void names_listening(struct engine *e, uint64_t token, enum err er, const char *text, int fd);
void names_adopt(struct engine *e, uint64_t token, const struct addr *a, int fd);
void names_inside_follow(struct engine *e, struct mesh_replica *m);
void names_inside_open(struct engine *e, const struct mesh_replica *m, int fd);
void names_inside_gone(struct engine *e, uint64_t replica_id);
bool worker_inside(void *ctx, const struct proxy_caller *c, int fd); /* this and the next: on the worker's thread */
void worker_names_door(struct worker *w, struct names_door_msg *m);
/* engine_store.c: the control store */
void store_init(struct engine *e);
void store_fini(struct engine *e);
void store_up(struct engine *e);    /* in charge: opens it, or goes on trying */
void store_down(struct engine *e, void (*then)(struct engine *e)); /* then the broker, then() */
/* For workloads on the host's network: where they reach it. NULL: there is none. */
const char *store_host_address(const struct engine *e, char text[ADDR_TEXT_MAX]);
bool store_ready(const struct engine *e, struct buf *why_not);
void store_metrics(const struct engine *e, struct buf *out);
void store_listening(struct engine *e, enum err er, const char *text, const int *fds, int n);
void store_adopt(struct engine *e, const struct addr *a, const int *fds, int n);
void store_inside_follow(struct engine *e, struct mesh_replica *m);
void store_accept(struct engine *e, int fd, char *principal); /* takes both */
void store_follow(struct engine *e); /* the objects have changed: who may do what; serves from then on */
int store_keyspace_status(struct engine *e, struct buf *why); /* as node_ops.keyspace */
bool worker_inside_etcd(struct worker *w, const struct proxy_caller *c, int fd); /* on the worker's thread */
/* engine_cluster.c: several nodes */
void cluster_init(struct engine *e);
void cluster_fini(struct engine *e);
enum err cluster_store_open(struct engine *e, struct ctl **out, struct buf *why) WARN_UNUSED; /* of --join */
void cluster_up(struct engine *e);      /* the store is open */
void cluster_objects(struct engine *e); /* objects_begin() as soon as shares are known */
void cluster_cordon(struct engine *e);  /* the node stops: others take over what it runs, */
bool cluster_moving(const struct engine *e); /* ... and have not yet */
void cluster_leave(struct engine *e);   /* cluster.leaving until it is over */
void cluster_down(struct engine *e);    /* the store closes */
void last_init(struct engine *e);
void last_fini(struct engine *e);
void last_soon(struct engine *e);       /* something that is kept may be different */
void last_wait(struct engine *e);       /* a while for the store: then it begins with the last plan, or tries again to end that */
void last_failed(struct engine *e, const char *why); /* the store's objects can't be read, or there are none: later again */
void last_over(struct engine *e);       /* the store's objects are in force */
void objects_recalled(struct engine *e, struct objset *set); /* takes set: in force until the store has been read */
void status_init(struct engine *e);
void status_fini(struct engine *e);
void status_up(struct engine *e);
void status_again(struct engine *e);    /* what nodes say is read anew */
void status_down(struct engine *e);
void status_soon(struct engine *e);     /* something about workloads may be different: others are told */
void status_unplaced(struct engine *e); /* placement may be different */
void cluster_elsewhere(struct engine *e, void (*each)(void *x, const char *node, const struct workload_status *w), void *x);
void cluster_touch(struct engine *e);   /* objects, or what runs here, are different */
int64_t cluster_head_at(const struct engine *e); /* the store's revision of the system's newest revision, as far as was heard; 0: nothing was */
void cluster_went_back(struct engine *e); /* the store is older than it was */
void cluster_head_again(struct engine *e); /* objects of others could not be read: soon once more */
void cluster_once_starting(struct engine *e, uint64_t id); /* a process of what runs once is about to be asked for */
uint32_t cluster_share(struct engine *e, const struct object *dep);
bool cluster_placed(const struct engine *e, const struct object *dep); /* it is known what this node runs of it */
/* With what others have; valid until the next call. The own ones are made known. */
const struct live_endpoint *cluster_endpoints(struct engine *e, const struct live_endpoint *own, size_t own_n, size_t *n);
const struct live_address *cluster_addresses(struct engine *e, const struct live_address *own, size_t own_n, size_t *n);
const char *cluster_trouble(const struct engine *e); /* why this node is not a member; NULL: it is, or is alone */
void cluster_nodes(struct engine *e, struct buf *out); /* JSON */
void nodes_metrics(const struct engine *e, struct buf *out);
/* engine_topics.c: topics that objects declare */
void topics_init(struct engine *e);
void topics_fini(struct engine *e);
void topics_follow(struct engine *e); /* the objects have changed, or the broker is open */
void topics_rest(struct engine *e);   /* the broker closes */
void topics_given(struct engine *e, const struct objset *given); /* a change has these objects */
void topics_again(struct engine *e, bool applied); /* the change is over: the broker is told again what they say, also what has not changed */
int topics_status(struct engine *e, const struct object *o, struct buf *why); /* as node_ops.topic */
/* engine_peers.c: this node among others */
void peers_init(struct engine *e); /* before the first plan */
void peers_fini(struct engine *e);
const char *peers_trouble(const struct engine *e); /* why nothing goes between nodes, though it should; NULL: nothing is amiss */
void peers_check(const struct engine *e, const struct objset *set, struct diags *d); /* no Gateway is in the gate's way */
/* engine_tickets.c: the keys of TLS session tickets */
void tickets_init(struct engine *e);
void tickets_adopt(struct engine *e, struct slice bytes); /* of an engine before */
void tickets_start(struct engine *e);                     /* in charge: before the first plan, and when it is so again */
/* engine_node.c: what api asks of the node */
extern const struct node_ops engine_node_ops;
void engine_output(struct engine *e, const char *ns, const char *deployment, const char *replica, bool from_stderr, struct slice line);
/* Closes the files of workloads that are no longer wanted and have no replica. */
void engine_logs_trim(struct engine *e);
void engine_output_flush(struct engine *e); /* of workloads: what was captured is in the files */
void engine_output_close(struct engine *e); /* of workloads: written, and closed until the next line */
void engine_logs_close(struct engine *e);
/* resolve.c: names of hosts outside */
#define ADDRESSES_PER_NAME 64u
struct resolved { struct addr *items; uint32_t n; }; /* owned by whoever has it */
/* The addresses of a name, of one family, by the host's own resolver; ports are 0. Blocks. */
enum err resolve_name(const char *name, struct resolved *out) WARN_UNUSED;
/* lookup() is resolve_name() but in tests; it runs on a thread of the pool. */
struct resolver *resolver_new(struct loop *l, enum err (*lookup)(const char *name, struct resolved *out), void (*changed)(void *ctx), void *ctx);
void resolver_free(struct resolver *r);
/* Looks up the names of set's ExternalName Services and ServiceEntries, now and again every RESOLVE_MS. */
void resolver_want(struct resolver *r, const struct objset *set);
bool resolver_settled(const struct resolver *r); /* each name has been looked up, well or not */
const struct live_address *resolver_addresses(struct resolver *r, size_t *n);

#endif
