/* h2_int.h - what both ends of an HTTP/2 connection share: the session over a stream, its streams, and their memory.
 *
 * nghttp2 frames, compresses headers and keeps the windows; it does no I/O. Everything else is here: what is handed to the
 * owner and when, what is queued, what is written. Private to the h2_ files.
 */
#ifndef H2_INT_H
#define H2_INT_H

#include "h2.h"
#include "http2.h"
#include <nghttp2/nghttp2.h>

/* ---- memory (h2_mem.c) ------------------------------------------------------------------------------------------------ */

/* Blocks from per-thread free lists by size; larger ones from base. NULL when there is no memory. */
void *h2_get(size_t size) WARN_UNUSED;
void h2_put(void *p); /* NULL-safe */
extern nghttp2_mem h2_ng_mem;
/* A session begins or ends on this thread: with the last one the free lists are emptied. */
void h2_mem_user(int change);

/* Bytes kept, in order. Zero-initialised is empty. */
struct h2_chunk {
    struct h2_chunk *next;
    uint32_t from, to, cap;
    char bytes[];
};
struct h2_queue {
    struct h2_chunk *first, *last;
    size_t bytes;
};
bool h2_queue_add(struct h2_queue *q, const void *p, size_t n) WARN_UNUSED; /* false: no memory, q is as it was or longer */
void h2_queue_take(struct h2_queue *q, size_t n);                           /* drops the first n */
void h2_queue_clear(struct h2_queue *q);

/* ---- field sections -------------------------------------------------------------------------------------------------------- */

/* One being read, or read and not yet handed on: names and values lie in nghttp2's buffers, which are held by reference. */
#define H2_REFS_MAX (2 * (H1_FIELDS_MAX + H2_PSEUDO_COUNT))
struct h2_block {
    uint32_t refs_n;
    nghttp2_rcbuf *refs[H2_REFS_MAX];
    struct h2_fields f;
};

/* Names that were met before: those in the peer's table for compression come as the same buffer again and again, and are judged once. */
#define H2_NAMES 32u           /* a power of two */
#define H2_NAME_BYTES_MAX 64u  /* longer ones are not kept alive */
struct h2_known {
    nghttp2_rcbuf *buf;        /* held; NULL: none here */
    int id;                    /* h2_name() of it */
};

/* A head or trailers to be sent (h2_head.c). Text is HTTP/1 lines; fields that only HTTP/1 has are left out. */
#define H2_NV_MAX 256
struct h2_nva {
    int n;
    uint8_t flags;      /* NGHTTP2_NV_FLAG_NO_COPY_..., when the memory lives until the frame is made */
    bool over;          /* more than H2_NV_MAX fields: nothing counts */
    struct slice host;  /* of Host, which is left out */
    struct slice upgrade;
    struct slice key;   /* of Sec-WebSocket-Key, which is left out */
    char digits[24];
    nghttp2_nv v[H2_NV_MAX];
};
void h2_nva_init(struct h2_nva *a, bool no_copy);
void h2_nva_put(struct h2_nva *a, struct slice name, struct slice value);
void h2_nva_lines(struct h2_nva *a, struct slice text); /* up to the empty line, or the end */
void h2_nva_length(struct h2_nva *a, uint64_t length);

/* ---- streams --------------------------------------------------------------------------------------------------------------------- */

enum { H2_NOTE_FAIL = 1, H2_NOTE_RESUME = 2, H2_NOTE_DRAINED = 4 }; /* to be told at the end of the turn */

/* One of a connection; begins the ends' own structs. over and closed both: it is freed at the end of the turn. */
struct h2_stream {
    struct list link;           /* on the connection's streams, or its dead */
    struct list note_link;      /* on the connection's notes, when notes != 0 */
    struct list yield_link;     /* on the connection's yielded: has sent its share of this round */
    struct h2_conn *c;
    int32_t id;                 /* 0: not begun */
    /* sending */
    struct h2_queue out;        /* bytes that wait for the window or the connection */
    const struct iovec *lent;   /* during a send: the owner's pieces, behind out */
    int lent_n;
    size_t lent_skip;           /* of lent[0], sent */
    size_t lent_bytes;          /* of lent, not sent */
    char *trailers;             /* lines to be sent behind the body; owned */
    uint32_t trailers_n;
    uint32_t round_bytes;       /* sent in this round */
    /* receiving */
    struct h2_queue in;         /* bytes that came while the owner did not read */
    struct h2_block *in_trailers; /* that came while the owner did not read, or of the call that is being made; then they go */
    uint64_t in_left;           /* with in_counted: bytes of the body to come */
    size_t discarded;           /* bytes thrown away */
    size_t unreturned;          /* bytes of its window that were used and not given back */
    /* life */
    struct timer stall;
    uint64_t active_ms;         /* when something last moved */
    enum err err;               /* with H2_NOTE_FAIL */
    uint8_t notes;
    bool known;                 /* the owner was told of it (server), or asked for it (client) */
    bool over;                  /* the owner is not told anything any more */
    bool closed;                /* nghttp2 has forgotten it */
    bool dead;                  /* on the connection's dead */
    bool out_open;              /* our head was given to nghttp2, with more to follow */
    bool out_end;               /* all that we send was given or queued */
    bool out_done;              /* END_STREAM was framed, or is about to be */
    bool deferred;              /* nghttp2 waits to be told that there is more to send */
    bool want_drained;          /* a send returned > 0 since drained() */
    bool in_counted;
    bool in_end;                /* all that the peer sends has come */
    bool in_end_told;
    bool head_done;             /* the (final) head has come: what follows are trailers */
    bool paused;                /* the owner does not read */
    bool discard;               /* what comes is thrown away */
    bool held;                  /* as paused, because a tunnel is not agreed to yet */
    bool tunnel;
};

/* What is different at both ends. */
struct h2_role {
    /* A stream for a head that begins; NULL: it is not wanted. */
    struct h2_stream *(*begin)(struct h2_conn *c, int32_t id);
    /* The head is complete: judge it. True: it will be handed on by head(). end: the peer sends no more. */
    bool (*judge)(struct h2_stream *st, struct h2_block *b, bool end);
    void (*head)(struct h2_stream *st, const struct h1_head *h, struct pieces body, bool end);
    void (*body)(struct h2_stream *st, struct pieces body, bool end);
    void (*drained)(struct h2_stream *st);
    void (*failed)(struct h2_stream *st, enum err e); /* the owner knows it and is not told more */
    void (*unknown)(struct h2_conn *c); /* a stream was at fault before the owner heard of it */
    /* nghttp2 closes it. */
    void (*closing)(struct h2_stream *st, uint32_t code);
    void (*frame)(struct h2_conn *c, const nghttp2_frame *f);    /* one came */
    void (*sent)(struct h2_conn *c, const nghttp2_frame *f);     /* one is about to leave */
    void (*unsent)(struct h2_conn *c, const nghttp2_frame *f);   /* one can't be made */
    void (*invalid)(struct h2_conn *c, const nghttp2_frame *f, int why); /* one broke a rule; nghttp2 answers it */
    void (*turned)(struct h2_conn *c);                           /* at the end of a turn, all written */
    /* The connection is of no more use: nothing more comes (ERR_CLOSED), it broke, or its peer broke the protocol (ERR_SYNTAX). */
    void (*broken)(struct h2_conn *c, enum err e);
};

struct h2_out;
struct h2_conn {
    nghttp2_session *ng;
    struct stream *s;
    const struct h2_role *role;
    const struct h1_limits *limits;
    struct list streams, notes, yielded, dead;
    uint32_t streams_n;
    struct task turn;
    struct h2_stream *last;     /* the one looked up last */
    struct h2_stream *pend;     /* has something to be handed on */
    bool pend_head, pend_end;
    int pend_n;
    size_t pend_bytes;
    struct h2_block *head;      /* of pend, or being read */
    struct h2_block *trail;     /* being read, or of pend */
    struct h2_stream *trail_of; /* whose trailers trail holds */
    struct h2_stream *reading;  /* whose section is being read; NULL: none, or to be skipped */
    struct h2_block *block;     /* it goes in here */
    struct h2_out *out;         /* bytes to be written this turn */
    size_t unacked;             /* bytes of DATA read in this call whose part of the connection's window is to be given back */
    size_t held_bytes, held_max; /* of streams whose owner does not read; up to held_max their part of the window is given back */
    size_t held_owed;           /* part of the window to be given back when they are taken */
    uint64_t total_bytes, payload_bytes; /* read; of these, heads and bodies (and bodies sent): what is left over is noise */
    uint64_t section_since_ms;  /* a section being read began */
    uint64_t section_bytes;     /* of it so far, uncompressed */
    uint32_t ng_error;          /* the code of our GOAWAY, when it ends the connection at once */
    bool server;
    bool receiving;             /* nghttp2 is on the stack */
    bool pulling;               /* so it is, the other way */
    bool blocked;               /* the stream is backed up: no DATA is framed */
    bool choked;                /* and too much waits: nothing is read */
    bool sick;                  /* there was no memory: the connection ends */
    bool in_section;
    bool leaving;               /* all is written that will be */
    bool closed;
    struct h2_known names[H2_NAMES];
    struct iovec pend_v[PIECES_MAX];
};

/* ---- the connection (h2.c) ------------------------------------------------------------------------------------------------------------ */

/* server: which end we are. settings are sent. False: no memory. */
bool h2_conn_init(struct h2_conn *c, struct stream *s, const struct h2_role *role, bool server, const struct h1_limits *limits,
                  const nghttp2_settings_entry *settings, size_t settings_n, uint32_t conn_window) WARN_UNUSED;
void h2_conn_fini(struct h2_conn *c); /* in released(), when no stream is left */
/* Bytes came. */
void h2_conn_data(struct h2_conn *c, const char *p, size_t n);
void h2_conn_drained(struct h2_conn *c);
/* Closes the stream; nothing more is handed on. */
void h2_conn_close(struct h2_conn *c);
/* Something waits for the end of the turn. */
void h2_later(struct h2_conn *c);
/* What waits is framed and written now, as far as it may be. */
void h2_flush(struct h2_conn *c);
void h2_conn_write(struct h2_conn *c); /* the same, and it is in the stream */
/* Whether frames may be made at once, so that memory needs not to be copied. */
static inline bool h2_direct(const struct h2_conn *c) { return !c->receiving && !c->pulling && !c->closed && !c->leaving; }
/* Ends the connection by GOAWAY with this code. */
void h2_conn_terminate(struct h2_conn *c, uint32_t code);

/* The first stream that is not over, or NULL. */
struct h2_stream *h2_conn_open_stream(const struct h2_conn *c);
void h2_stream_init(struct h2_stream *st, struct h2_conn *c, int32_t id, void (*stall)(struct timer *));
void h2_stream_over(struct h2_stream *st);    /* the owner is done with it */
void h2_stream_reset(struct h2_stream *st, uint32_t code);
void h2_stream_fault(struct h2_stream *st, uint32_t code); /* the peer broke the rules within it */
void h2_stream_note(struct h2_stream *st, uint8_t note);
void h2_stream_fail(struct h2_stream *st, enum err e); /* told at the end of the turn */
void h2_stream_free(struct h2_stream *st);    /* h2_conn_fini() and the turn's end do it */
nghttp2_data_provider h2_provider(struct h2_stream *st);
/* The head was given to nghttp2. body goes out, or waits. Returns bytes that wait. */
size_t h2_stream_send(struct h2_stream *st, struct pieces body, bool end);
/* Everything was sent; trailers may be empty. */
void h2_stream_end(struct h2_stream *st, struct slice trailers);
void h2_stream_reading(struct h2_stream *st, bool on);
int h2_stream_trailers(const struct h2_stream *st, struct h1_field *fields, int max);

#endif
