/* rt.h - the run time: one event loop per thread, with its streams, timers, mailboxes; threads; disk; logs; counters.
 *
 * Model: an object belongs to one loop for life and is touched only by that loop's thread. Callbacks run to completion and
 * never nest: no call into rt runs another object's callback before it returns. Crossing threads is a message in a
 * mailbox. Time, chance, sockets and disk are reached only through here; the same code runs on the kernel (rt linked with
 * os_sys) and in the simulator (linked with sim_sys, see sim.h).
 */
#ifndef RT_H
#define RT_H

#include "base.h"
#include <sys/uio.h>

/* ---- addresses ------------------------------------------------------------------------------------------------- */

enum addr_family { ADDR_NONE, ADDR_IP4, ADDR_IP6, ADDR_UNIX };
struct addr {
    enum addr_family family;
    uint16_t port;          /* host byte order; 0 for unix */
    union {
        uint8_t ip[16];     /* network byte order; the first 4 for IPv4 */
        char path[108];
    };
};
/* "127.0.0.1", "::1", "[::1]" or "unix:/path"; no names. */
enum err addr_parse(struct slice text, uint16_t port, struct addr *out) WARN_UNUSED;
/* IPv4 from a host-order number. */
struct addr addr_ip4(uint32_t ip, uint16_t port);
uint32_t addr_ip4_host(const struct addr *a); /* 0 when not IPv4 */
bool addr_eq(const struct addr *a, const struct addr *b);
/* "127.0.0.1:80", "[::1]:80", "unix:/p"; returns its length. addr_format_ip leaves the port out. */
#define ADDR_TEXT_MAX 128
size_t addr_format(const struct addr *a, char out[ADDR_TEXT_MAX]);
size_t addr_format_ip(const struct addr *a, char out[ADDR_TEXT_MAX]);

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

struct loop;
struct loop *loop_new(const char *name); /* name: up to 15 characters, shown in logs and as the thread's name */
/* After loop_run() returned. Streams closed since get their released() from here; whatever is still open is a programmer
 * error. Timers and tasks that are still set are unlinked. */
void loop_free(struct loop *l);
void loop_run(struct loop *l);           /* until loop_stop(), from any callback of this loop */
void loop_stop(struct loop *l);
void loop_turn(struct loop *l, int wait_ms); /* one turn, waiting at most wait_ms for events: for simulation and tests */
uint64_t loop_now_ns(const struct loop *l);  /* monotonic; read once per turn */
uint64_t loop_now_ms(const struct loop *l);
uint64_t wall_ns(void);                      /* since 1970; reads the clock */
uint64_t mono_ns(void);                      /* reads the clock, not the turn's cached time */
void random_bytes(void *p, size_t n);        /* for keys and ids */
uint64_t loop_random(struct loop *l);        /* fast, seeded per loop; for balancing and jitter, not for secrets */

/* A function to run once at the end of this turn, after all events (deferred by a task: at the end of the next turn).
 * Intrusive; queueing a queued task does nothing; list_del(&t->link) takes it back. */
struct task {
    struct list link;
    void (*fn)(struct task *);
};
void task_init(struct task *t, void (*fn)(struct task *));
void loop_defer(struct loop *l, struct task *t);

/* ---- timers: a wheel, O(1) to set and to clear; resolution about a millisecond ---------------------------------- */

struct timer {
    struct list link;       /* alone when not set */
    uint64_t due_ms;        /* loop time */
    void (*fn)(struct timer *);
};
void timer_init(struct timer *t, void (*fn)(struct timer *));
void timer_set(struct loop *l, struct timer *t, uint64_t in_ms); /* moves it when already set; never fires early */
void timer_clear(struct timer *t);
static inline bool timer_is_set(const struct timer *t) { return t->link.next != &t->link; }

/* ---- streams: connected byte pipes with backpressure -------------------------------------------------------------- */

struct stream;
struct stream_ops {
    /* The connection stands (outgoing only). */
    void (*connected)(struct stream *s);
    /* n > 0 bytes arrived in the loop's own read buffer: they may be changed in place and are gone when this returns, so
     * what is not consumed must be copied. p[-STREAM_HEADROOM] to p[-1] are writable scratch. */
    void (*data)(struct stream *s, char *p, size_t n);
    /* The peer sent FIN; nothing more will be read. Writing goes on. */
    void (*eof)(struct stream *s);
    /* All that stream_write() queued is in the kernel. Only after a write that returned > 0. */
    void (*drained)(struct stream *s);
    /* The connection is dead: connect failed, reset, write error. The owner calls stream_close(). Called at most once. */
    void (*failed)(struct stream *s, enum err e);
    /* stream_close() was called in an earlier callback and no event refers to s any more: its memory may go. */
    void (*released)(struct stream *s);
};
#define STREAM_HEADROOM 64
#define STREAM_READ_BYTES 65536 /* the most that one data() call delivers */

/* Embedded in its owner. All fields are rt's; read-only to others. */
struct stream {
    const struct stream_ops *ops;
    struct loop *loop;
    struct stream_chunk *out;     /* queued bytes, oldest first; NULL when all is in the kernel */
    struct stream_chunk *out_last;
    size_t out_bytes;             /* bytes queued */
    struct list ready;            /* on the loop's list of streams to read (or to be told a failure) without polling */
    struct task reap;             /* its link: on the loop's fresh list until in_poller, on its reap list once closed */
    int fd;                       /* -1 when closed */
    enum err fail;                /* a failure found by a write or a connect, not yet told */
    bool connecting;              /* connected() not yet called */
    bool reading;                 /* the owner wants data() */
    bool readable;                /* the kernel may hold bytes, an end or an error */
    bool hup;                     /* an end or an error is pending: read until it shows, a short read proves nothing */
    bool eof_seen;                /* eof() was called */
    bool shut_wanted, shut_done;  /* stream_shut() was called; FIN is in the kernel */
    bool failed_told, closed;     /* failed() was called; stream_close() was called */
    bool in_poller;
    bool given;                   /* fd came from the caller of stream_connect(): others may hold it too */
};
/* Connects to a. fd >= 0: use this unconnected non-blocking socket (made in another network namespace) and own it, also on
 * failure; -1: make one. connected() or failed() follows later, never from inside this call. Reading is on afterwards. */
void stream_connect(struct stream *s, struct loop *l, const struct stream_ops *ops, int fd, const struct addr *a);
/* Adopts an accepted socket. Reading is on; data() may come in this turn, never from inside this call. */
void stream_adopt(struct stream *s, struct loop *l, const struct stream_ops *ops, int fd);
/* Writes all of iov in order: into the kernel what fits now, the rest is copied and queued. Returns bytes now queued: 0
 * means nothing waits. Errors are told later through failed(). After stream_shut() nothing may be written. */
size_t stream_write(struct stream *s, const struct iovec *iov, int n);
size_t stream_write_slice(struct stream *s, struct slice b);
/* Off: no data() or eof() until on again, and the kernel's window closes. On: what arrived meanwhile follows this turn. */
void stream_reading(struct stream *s, bool on);
void stream_shut(struct stream *s);   /* FIN after what is queued */
void stream_close(struct stream *s);  /* at once, unsent bytes are lost; released() at the end of the turn. Idempotent. */
void stream_reset(struct stream *s);  /* the same with RST */
enum err stream_local_addr(const struct stream *s, struct addr *a) WARN_UNUSED;
enum err stream_peer_addr(const struct stream *s, struct addr *a) WARN_UNUSED;

/* ---- listeners ----------------------------------------------------------------------------------------------------- */

struct listener {
    struct loop *loop;
    int fd;
    void (*accepted)(struct listener *ln, int fd, const struct addr *peer); /* the callee owns fd; may stop and free ln */
    void *owner;             /* the user's; listener_start() leaves it alone */
    uint64_t accept_errors;  /* EMFILE and the like; accepting pauses 100 ms each time */
    struct timer pause;
    struct list link;        /* on the loop's list */
    uint32_t quota, fulls;   /* accepts per event, and how many events in a row used it up */
    bool open, shared, polled; /* started; see listener_start(); in the poller, not pausing */
};
/* fd: a listening, non-blocking socket, which stays the caller's (listener_stop() does not close it). shared: other loops accept from
 * the same descriptor (wakes one of them). */
void listener_start(struct listener *ln, struct loop *l, int fd, bool shared, void (*accepted)(struct listener *, int, const struct addr *));
void listener_stop(struct listener *ln);
/* A listening stream socket, or -errno as err. */
enum err listen_socket(const struct addr *a, int backlog, bool reuseport, int *fd) WARN_UNUSED;
void socket_close(int fd);

/* ---- watches: any descriptor's readability, level-triggered -------------------------------------------------------- */

struct watch {
    struct loop *loop;
    int fd;
    void (*fn)(struct watch *w); /* readable, or at its end: read it */
    bool on;
};
void watch_start(struct watch *w, struct loop *l, int fd, void (*fn)(struct watch *));
void watch_stop(struct watch *w); /* does not close fd; fn is not called again. Before fd is closed. */

/* ---- mailboxes ------------------------------------------------------------------------------------------------------- */

/* A bounded queue of small typed messages, any thread to one loop. */
struct msg {
    uint32_t type;      /* the receiving room's enum */
    uint32_t n;
    uint64_t a, b;
    void *p;            /* ownership as the type says */
};
struct mailbox;
struct mailbox *mailbox_new(struct loop *l, uint32_t cap, void (*fn)(void *ctx, const struct msg *m), void *ctx);
void mailbox_free(struct mailbox *mb);
/* From any thread. False when full: the sender keeps p and decides (counted in mailbox_full()). */
bool mailbox_post(struct mailbox *mb, const struct msg *m) WARN_UNUSED;
uint64_t mailbox_full(const struct mailbox *mb);

/* ---- threads and blocking work ------------------------------------------------------------------------------------- */

struct thread;
struct thread *thread_start(const char *name, void (*fn)(void *), void *arg);
void thread_join(struct thread *t); /* and free */
void thread_pin(int cpu);           /* the calling thread; best effort */

/* Blocking work on a small pool of threads; done() runs on loop l. In the simulator both run on the loop. */
struct work {
    void (*run)(struct work *);  /* on a pool thread */
    void (*done)(struct work *); /* on the loop */
    struct loop *loop;
    struct work *next;
};
void work_submit(struct loop *l, struct work *w);

/* ---- disk ------------------------------------------------------------------------------------------------------------ */

enum err file_read(const char *path, struct buf *out, size_t max) WARN_UNUSED; /* ERR_LIMIT above max */
/* Atomically: the old or the new content, never a mixture, also after power loss. Blocks. */
enum err file_replace(const char *path, const void *p, size_t n, int mode) WARN_UNUSED;

/* ---- counters: written by their loop only, read by any thread ------------------------------------------------------ */

typedef uint64_t counter; /* the one typedef: a scalar with a rule */
static inline void counter_add(counter *c, uint64_t n) { __atomic_store_n(c, *c + n, __ATOMIC_RELAXED); }
static inline void counter_inc(counter *c) { counter_add(c, 1); }
static inline void counter_set(counter *c, uint64_t v) { __atomic_store_n(c, v, __ATOMIC_RELAXED); }
static inline uint64_t counter_read(const counter *c) { return __atomic_load_n(c, __ATOMIC_RELAXED); }

/* ---- logs: lines into a ring, written by another thread ------------------------------------------------------------ */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
/* Sinks: the process log goes to stderr; each extra sink is a file with rotation. Before log_start() and after log_stop(),
 * lines are written at once by the caller. */
void log_start(enum log_level min);
void log_stop(void); /* writes what is left; after all other threads ended */
void log_line(enum log_level lv, const char *room, const char *fmt, ...) PRINTF_LIKE(3, 4);
#define log_debug(room, ...) log_line(LOG_DEBUG, room, __VA_ARGS__)
#define log_info(room, ...) log_line(LOG_INFO, room, __VA_ARGS__)
#define log_warn(room, ...) log_line(LOG_WARN, room, __VA_ARGS__)
#define log_error(room, ...) log_line(LOG_ERROR, room, __VA_ARGS__)

/* A file that lines are appended to from any thread, written by the log thread, rotated to PATH.1 above bytes_max. */
struct log_file;
struct log_file *log_file_open(const char *path, size_t bytes_max); /* NULL path: standard error */
void log_file_close(struct log_file *f);                            /* after what was put is written */
/* One line (the newline is added). False, and counted, when the ring is full: a log never blocks a request. */
bool log_file_put(struct log_file *f, const char *p, size_t n);
uint64_t log_file_dropped(const struct log_file *f);

#endif
