/* sim_int.h - the inside of the simulator, shared by sim_world.c (time, loops), sim_net.c and sim_disk.c. PRIVATE to rt.
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

enum sim_kind { SIM_SOCKET, SIM_LISTENER, SIM_POLLER, SIM_WAKE, SIM_FILE, SIM_PIPE };
enum sim_state { SIM_NEW, SIM_CONNECTING, SIM_OPEN, SIM_DEAD /* reset, refused or timed out */ };

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
    size_t unread;               /* sent to this end and not yet read by it */
    uint64_t last_ns;            /* when the last thing sent to this end arrives: keeps order */
    int error;                   /* to be told once */
    bool fin_sent, fin_seen;     /* by this end; arrived at this end */
    bool nospace;                /* a write found no room: an edge is owed */
    bool held;                   /* a read was split: the rest shows later */
    bool linger_reset;
    /* listener */
    bool any, reuseport;
    uint32_t backlog;
    struct sim_obj **waiting;    /* connections not yet accepted, oldest first */
    uint32_t waiting_n, waiting_cap;
    /* file */
    struct sim_disk_file *file;
};

/* Something that happens to an object at a time. */
enum sim_what { SIM_DATA, SIM_FIN, SIM_RST, SIM_SYN, SIM_SYNACK, SIM_CONNECT_TIMEOUT, SIM_ROOM, SIM_UNHOLD };
struct sim_happening {
    uint64_t at_ns, seq;         /* seq: order among equals */
    enum sim_what what;
    struct sim_obj *to;
    char *bytes;                 /* SIM_DATA; owned */
    size_t n;
    int error;                   /* SIM_RST */
};

struct sim_world {
    bool on;
    struct sim_conf conf;
    uint64_t random, trace, now_ns, seq;
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
    struct table files;          /* path -> struct sim_disk_file */
    struct sim_disk_file *files_all;
    uint32_t disk_fails;
    int disk_errno;
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

#endif
