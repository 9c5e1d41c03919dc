/* sim_int.h - the inside of the simulator, shared by sim_world.c (time, loops), sim_net.c, sim_disk.c and sim_power.c. PRIVATE to rt.
 *
 * One world at a time, in static storage; sim_start() empties it. A descriptor is SIM_FD_BASE plus the index of its
 * object; numbers are never used twice, so that use after close is found (MUST) instead of hitting somebody else.
 */
#ifndef SIM_INT_H
#define SIM_INT_H

#include "rt_int.h"
#include "sim.h"

#define SIM_FD_BASE (1 << 20)
#define SIM_LOOPS_MAX 64

enum sim_kind { SIM_SOCKET, SIM_LISTENER, SIM_POLLER, SIM_WAKE, SIM_FILE, SIM_PIPE, SIM_DGRAM };
enum sim_state { SIM_NEW, SIM_CONNECTING, SIM_OPEN, SIM_DEAD /* reset, refused or timed out */ };

/* A datagram. */
struct sim_letter {
    char *bytes;                 /* owned */
    size_t n;
    struct addr from;
};

/* Whatever a descriptor names. Fields of other kinds are zero. */
struct sim_obj {
    enum sim_kind kind;
    int fd;
    bool closed;
    /* its place in a poller */
    struct sim_obj *poller;      /* NULL: in none */
    void *ptr;
    bool level, hot;             /* hot: on the poller's list of what may have something to tell */
    /* poller */
    struct sim_obj **hots;
    uint32_t hots_n, hots_cap;
    /* wake */
    uint64_t wakes;
    /* socket */
    enum sim_state state;
    struct addr local, peer;
    struct addr server;          /* the listening side's address: what partitions and kills name */
    uint64_t ns;
    bool is_server;
    struct sim_obj *other;       /* the other end, from accept on; stays set after close. Of a pipe: likewise */
    struct buf rx;               /* arrived bytes; read from rx_from. Of a pipe: in the end that is read */
    size_t rx_from;
    uint64_t arrived;            /* bytes that this end took while it was open */
    uint32_t heard;              /* times that its peer was asked for and was there */
    size_t unread;               /* sent to this end and not yet read by it */
    uint64_t last_ns;            /* when the last thing sent to this end arrives: keeps order */
    int error;                   /* to be told once */
    bool fin_sent, fin_seen;     /* by this end; arrived at this end */
    bool nospace;                /* a write found no room: an edge is owed */
    bool held;                   /* a read was split: the rest shows later */
    bool linger_reset;
    uint64_t given;              /* bytes that this end has written and the connection has taken */
    struct sim_tls *tls;         /* the kernel makes records of what is written (sim_tls.c); or NULL */
    /* listener */
    bool any, reuseport;
    uint32_t backlog;
    struct sim_obj **waiting;    /* connections not yet accepted, oldest first */
    uint32_t waiting_n, waiting_cap;
    /* datagrams */
    struct sim_letter *letters;  /* arrived and not read, oldest first */
    uint32_t letters_n, letters_cap;
    /* file */
    struct sim_node *file;       /* NULL: a crash ended the process that had it open */
    bool locks;                  /* holds the file's lock */
};

/* Something that happens to an object at a time. */
enum sim_what { SIM_DATA, SIM_FIN, SIM_RST, SIM_SYN, SIM_SYNACK, SIM_CONNECT_TIMEOUT, SIM_ROOM, SIM_UNHOLD, SIM_LETTER, SIM_UNREACHED };
struct sim_happening {
    uint64_t at_ns, seq;         /* seq: order among equals */
    enum sim_what what;
    struct sim_obj *to;
    char *bytes;                 /* SIM_DATA, SIM_LETTER; owned */
    size_t n;
    int error;                   /* SIM_RST */
    uint64_t ns;                 /* SIM_LETTER: where it goes; to is who sent it */
    struct addr from, dest;      /* the same */
};

/* ---- records of TLS that the kernel makes (sim_tls.c) ---- */
ssize_t sim_writev(struct sim_obj *o, const struct iovec *iov, int n);     /* as sys_writev(), the bytes as they are (sim_net.c) */
ssize_t sim_tls_writev(struct sim_obj *o, const struct iovec *iov, int n); /* o->tls is set */
void sim_tls_room(struct sim_obj *o);    /* the connection takes bytes again: Linux goes on by itself */
void sim_tls_lose(struct sim_obj *o);    /* what the connection has not taken is gone */
void sim_tls_free(struct sim_obj *o);

/* ---- the disk (sim_disk.c, sim_power.c) ---- */

/* A change of a file's bytes that is not on the disk for certain. */
struct sim_change {
    uint64_t at, n;              /* written: [at, at + n); truncated: to at, n is 0 */
    uint64_t size;               /* of the file afterwards */
    char *bytes;                 /* what was written; NULL: a truncation */
    uint64_t safe_ns;            /* when the sync that covers it is over; UINT64_MAX: none does */
    bool started;                /* disk_sync_start() was told of it */
    bool suspect;                /* a sync that covered it failed: no later one carries it over for certain */
};

/* A file or a folder: an inode. */
struct sim_node {
    uint64_t inode;
    bool folder;
    bool linked;                 /* has a name in the cache; takes space while it has or is open */
    bool locked;
    uint32_t opened;             /* descriptors */
    struct buf bytes;            /* of a file: as the page cache has it */
    struct buf disk;             /* as the disk has it for certain: without the changes */
    struct sim_change *changes;  /* oldest first */
    uint32_t changes_n, changes_cap;
    bool lost;                   /* disk lacks something of bytes that no change tells of any more: a failed sync lost it */
    uint64_t reserved;           /* space up to this offset is the file's; in bytes */
    uint64_t reserved_disk;      /* the same, after power loss */
    struct table names;          /* of a folder: name -> sim_node; as found now */
    struct table names_disk;     /* as found after power loss */
    struct sim_node *next;       /* on sim.nodes, the newest first */
};

/* A change of names that is not on the disk for certain. */
struct sim_name_change {
    enum { SIM_NAME_ADDED, SIM_NAME_REMOVED, SIM_NAME_MOVED } what;
    struct sim_node *folder, *to; /* to: where it was moved */
    struct sim_node *node;
    char *name, *name_to;        /* owned */
    uint64_t safe_ns;            /* as of a sim_change */
};

/* sim_disk_fail_next() of one kind of operation. */
struct sim_disk_fault {
    bool armed;
    uint32_t after;
    int errno_value;
};

struct sim_world {
    bool on;
    bool quiet;                  /* nothing goes to the real standard error */
    struct sim_conf conf;
    uint64_t random, trace, now_ns, seq;
    uint64_t wall_jumps_ns;      /* of the wall clock; those back wrap around */
    struct loop *loops[SIM_LOOPS_MAX];
    uint32_t loops_n;
    struct sim_obj **objs;
    uint32_t objs_n, objs_cap;
    struct sim_happening *heap;  /* a binary heap by (at_ns, seq) */
    uint32_t heap_n, heap_cap;
    struct sim_happening *stalled; /* kept back by a partition, in order */
    uint32_t stalled_n, stalled_cap;
    struct addr *parted;
    uint32_t parted_n, parted_cap;
    uint16_t next_port;
    struct sim_node *root, *nodes; /* the topmost folder, NULL before its first use; all of them */
    uint64_t inodes;
    bool folders_made;           /* disk_make_dir() was called: paths need their folders */
    struct sim_name_change *name_changes; /* oldest first */
    uint32_t name_changes_n, name_changes_cap;
    uint32_t disk_fails;
    int disk_errno;
    struct sim_disk_fault disk_fail_next[SIM_DISK_OPS];
    uint64_t disk_bytes_max;     /* 0: no limit */
    uint32_t disk_cold_pct;
    uint32_t sync_ms_min, sync_ms_max;
    bool disk_off;               /* after a crash, before sim_restart() */
    uint32_t crash_ops;          /* changes of the disk until a crash, 0: none is due */
    bool crash_power;            /* it is one of power */
    struct sim_fiber *fiber;     /* the work that is being run, on a stack of its own; or NULL */
    struct sim_fiber *fibers;    /* those not in use */
};
extern struct sim_world sim;

uint64_t sim_random(void);
uint64_t sim_between(uint64_t min, uint64_t max);   /* both included */
bool sim_chance(uint64_t of, uint64_t in);           /* of in in */
void sim_note(uint64_t what, uint64_t a, uint64_t b); /* into the trace */
struct sim_obj *sim_obj_new(enum sim_kind kind);
struct sim_obj *sim_obj_get(int fd, enum sim_kind kind);

/* sim_net.c */
void sim_net_due(void);                              /* everything that happens up to now */
uint64_t sim_net_next(void);                         /* when the next thing happens; UINT64_MAX */
bool sim_poller_hot(int poller);
void sim_net_fini(void);

/* sim_disk.c */
void sim_disk_fini(void);
void sim_file_closed(struct sim_obj *o);             /* its descriptor is; repeatable */
void sim_node_free(struct sim_node *f);

/* sim_power.c */
void sim_bytes_put(struct buf *b, uint64_t at, const void *p, size_t n); /* zeroes between its end and at */
void sim_bytes_cut(struct buf *b, uint64_t n);       /* or grown with zeroes */
void sim_changed(struct sim_node *f, uint64_t at, const void *p, size_t n); /* f->bytes was; p NULL: truncated to at */
void sim_synced(struct sim_node *f, int r, uint64_t over_ns); /* a sync began now and ends then; r < 0: it fails */
void sim_settle(struct sim_node *f);                 /* the disk has all of it */
void sim_name_changed(struct sim_name_change c, struct slice name, struct slice name_to);
void sim_names_synced(struct sim_node *folder, uint64_t over_ns);
void sim_names_forget(void);
uint64_t sim_disk_busy(void);                        /* when a sync that begins now is over */
void sim_crash_tick(void);                           /* the disk is about to be changed: the crash, if one is due */

/* sim_work.c */
struct sim_fiber;
void sim_wait_until(uint64_t ns);                    /* by the work that is being run; by a loop: the world waits */
void sim_work_dawdle(void);                          /* the work that is being run is slow, perhaps */
void sim_work_fini(void);

#endif
