/* rt_int.h - what the files of rt share: the loop's inside, the timer wheel, queued bytes. PRIVATE to rt.
 *
 * Everything in struct loop belongs to the loop's thread, except the three words marked "any thread".
 */
#ifndef RT_INT_H
#define RT_INT_H

#include "rt.h"
#include "sys.h"

/* ---- limits ---- */
#define EVENTS_PER_POLL 256       /* events taken from the kernel in one turn */
#define ACCEPTS_PER_EVENT 64      /* connections taken from one listener in one turn, at most */
#define ACCEPTS_GROW_AFTER 4      /* events in a row that found as many as it then takes: it takes twice as many */
#define READS_PER_TURN 4          /* rounds over the streams that have more to read, so none starves the others */
#define INTO_ROUND_BYTES (1 << 20) /* of one read for stream_into(), before others have their turn */
#define POURS_PER_TURN 64         /* pours from files that follow each other on one stream */
#define CHUNK_BYTES 16384         /* a piece of queued output, its head included */
#define CHUNKS_KEPT 32            /* free chunks kept per loop */
#define FLUSH_IOV 16              /* chunks per flushing system call */
#define IOV_PER_CALL 1024         /* the kernel's limit (IOV_MAX) */
#define DGRAMS_PER_EVENT 64       /* datagrams taken from one socket in one turn */
#define ACCEPT_PAUSE_MS 100       /* after EMFILE and the like */
#define PIPES_PER_LOOP 256        /* pipes that hold bytes at the same time; then relays and pours copy */
#define PIPES_KEPT 16             /* empty pipes kept per loop */
#define PIPE_BYTES (1 << 19)      /* asked of the system, which may give less */
#define PIPE_RETRY_NS 1000000000ULL /* after the system refused a pipe */
#define TLS_KERNEL_MIN 65536      /* a pour of so many bytes is worth a change to records made by the kernel */
#define TLS_KERNEL_WRITE_MIN UINT64_MAX /* so is one stream_write(): never */

/* ---- timer wheel (timer.c) ---- */
#define WHEEL_BITS 6
#define WHEEL_SLOTS (1U << WHEEL_BITS)
#define WHEEL_LEVELS 8            /* 2^48 ms: 8,900 years; later timers are cut to that */
#define WHEEL_NEVER UINT64_MAX
struct wheel {
    uint64_t now;                                   /* in ms; every timer in a slot is due after it */
    uint64_t used[WHEEL_LEVELS];                    /* bit per slot: may hold timers (cleared lazily) */
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
    struct list expired;                            /* taken out of their slots, about to fire, in order of due time */
};
void wheel_init(struct wheel *w, uint64_t now_ms);
void wheel_fini(struct wheel *w);                   /* unlinks all timers */
uint64_t wheel_next(struct wheel *w);               /* ms at which wheel_advance() has something to do, or WHEEL_NEVER */
void wheel_advance(struct wheel *w, uint64_t now_ms); /* moves what is due to expired */

/* ---- the loop (loop.c) ---- */

struct loop {
    char name[16];
    int poller, wake_fd;
    bool stop;                     /* loop_stop() was called */
    uint64_t now_ns;               /* the turn's time */
    uint64_t random;               /* state of loop_random() */
    char *read_buf;                /* STREAM_HEADROOM + STREAM_READ_BYTES, shared by all streams */
    struct list ready;             /* streams to look at without polling; link: stream.ready */
    struct list fresh;             /* adopted streams, not yet in the poller; link: stream.reap.link */
    struct list reaps;             /* closed streams that wait for released(); link: stream.reap.link */
    struct list tasks;             /* loop_defer() */
    struct list mailboxes;
    struct list listeners;
    struct stream_chunk *chunks;   /* free ones */
    uint32_t chunks_n;
    struct pipe *pipes;            /* empty ones (pipe.c) */
    uint32_t pipes_n, pipes_kept;  /* in all; of these, empty */
    uint32_t pipes_max;            /* PIPES_PER_LOOP; tests set less */
    uint64_t pipe_retry_ns;        /* no pipe is made before */
    counter pipe_misses;
    uint32_t works;                /* submitted and not yet done */
    struct work *sim_queue, *sim_due; /* without threads: submitted in this turn; to be run in the next (work.c) */
    struct work *sim_waits;        /* the same: run() sleeps; the first to go on first */
    struct tls_loop *tls;          /* buffers; NULL before the first TLS stream */
    struct tls_counters tls_counters;
    void *current;                 /* the listener or mailbox whose callbacks run; NULL once it is stopped or freed */
    struct sys_event events[EVENTS_PER_POLL];
    int events_n, event_at;        /* the batch in work; entries of what was stopped meanwhile are emptied */
    struct wheel wheel;

    char apart[64];                /* keeps what other threads write off the loop's cache lines */
    bool may_sleep;                /* any thread: in the poller or about to be; who clears it wakes the loop */
    struct work *done;             /* any thread: a stack of works whose run() returned */
    uint32_t work_wakers;          /* any thread: pool threads between putting a work there and having woken the loop; loop_free() waits for them */
};

/* What an event's pointer points to: the low two bits tell. */
enum { SRC_STREAM, SRC_LISTENER, SRC_WATCH, SRC_WAKE, SRC_MASK = 3 };
static inline void *src_tag(void *p, uintptr_t kind) { return (void *)((uintptr_t)p | kind); }

void loop_wake(struct loop *l);                    /* from any thread, after what it shall see was published */
void loop_forget_events(struct loop *l, void *tagged); /* p was stopped: no event of this batch reaches it any more */
/* The time (ns) at which a turn would have something to do apart from the poller's events: 0 for at once, UINT64_MAX for
 * never. For the simulator. */
uint64_t loop_due_ns(struct loop *l);
int loop_poller(const struct loop *l);

/* ---- streams (stream.c) ---- */
struct stream_chunk {
    struct stream_chunk *next;
    uint32_t from, to;             /* bytes [from, to) wait */
    char bytes[CHUNK_BYTES - 16];
};
void stream_event(struct stream *s, uint32_t what);
void stream_look(struct stream *s);                /* taken off the ready list */
void stream_register(struct stream *s);            /* into the poller, if it is not yet */
void stream_queue_ready(struct stream *s);         /* to be looked at in this turn */
void stream_read_end(struct stream *s, ssize_t r); /* a read gave r <= 0: 0 for the end, or -errno */
void stream_break(struct stream *s, enum err e);   /* notes a failure, which is told later in the turn */
void stream_tell_failed(struct stream *s, enum err e); /* from the loop only */
void stream_tell_drained(struct stream *s);        /* from the loop only */
void stream_send(struct stream *s, const struct iovec *iov, int n); /* as stream_write(), the bytes as they are */
void stream_shut_now(struct stream *s);            /* FIN */
void stream_into_took(struct stream *s, size_t n, size_t more); /* n bytes are where stream_into() wanted them; more follow, in hand */
void stream_deliver(struct stream *s, char *p, size_t n); /* bytes in the loop's read buffer, to stream_into()'s memory and data(); or kept */
size_t iov_bytes(const struct iovec *iov, int n);

/* ---- TLS (tls_stream.c): what stream.c calls for streams with s->tls ---- */
void tls_start(struct stream *s);                  /* a client's connection stands; may tell failed() */
void tls_read(struct stream *s);                   /* s may be readable, and is reading or in the handshake */
size_t tls_write(struct stream *s, const struct iovec *iov, int n);
void tls_notify_close(struct stream *s);           /* close_notify, unless it is too early or was sent */
bool tls_drained(struct stream *s);                /* the queue is empty; true: the owner waits for that */
void tls_close(struct stream *s, bool polite);     /* frees s->tls; polite: with close_notify if it is sound */
extern uint64_t tls_kernel_min, tls_kernel_write_min; /* the limits above; tests set less, before the first loop runs */
bool tls_direct(struct stream *s, uint64_t n);     /* n bytes are to come: true if they may go to the socket as they are, for the kernel encrypts them */
bool tls_kernel_sends(const struct stream *s);     /* the kernel encrypts what s sends: stream_send() takes plaintext */
bool tls_may_shut(struct stream *s);               /* false: not yet; stream_shut_now() is called again */
void tls_loop_free(struct loop *l);

/* ---- a peer that is gone without a word (silence.c) ---- */
void silence_end(struct stream *s);                /* s is being closed */

/* ---- relays and pours (relay.c) ---- */
struct flow_ops {
    void (*filled)(struct flow *f);               /* all bytes that were asked for are in the kernel */
    bool (*ended)(struct flow *f);                /* from has ended; true: its owner is not to be told */
    bool (*failed)(struct flow *f, struct stream *s, enum err e); /* one of its streams; true: its owner is not to be told */
    void (*room)(struct flow *f);                 /* nothing waits for to any more */
    void (*cut)(struct flow *f);                  /* one of its streams is being closed */
};
void flow_read(struct flow *f);                    /* f->from may be readable */
bool flow_ended(struct flow *f);                   /* f->from is at its end; true: its owner is not to be told */
void flow_room(struct flow *f);                    /* f->to has sent its queue and may have room */
bool flow_failed(struct stream *s, enum err e);    /* s has an in_flow or an out_flow; true: its owner is not to be told */
void flow_cut(struct stream *s);                   /* s is being closed */

/* ---- pipes (pipe.c) ---- */
struct pipe {
    struct pipe *next;
    int r, w;
    uint32_t bytes;                /* the most that one read puts in */
};
struct pipe *pipe_get(struct loop *l);             /* NULL, and counted, when there is none to be had */
void pipe_put(struct loop *l, struct pipe *p, bool empty);
void pipes_free(struct loop *l);

/* ---- listeners and watches (listener.c) ---- */
void listener_event(struct listener *ln);

/* ---- mailboxes (mailbox.c) and work (work.c) ---- */
bool mailboxes_pending(struct loop *l);
void mailboxes_drain(struct loop *l);
bool works_pending(struct loop *l);
void works_finish(struct loop *l);
void works_end(struct loop *l); /* before the loop is freed */

/* ---- threads (thread.c) ---- */
void thread_name(const char *name);                /* the calling thread, unless it is the process's first */

#endif
