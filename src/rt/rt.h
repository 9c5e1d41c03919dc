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
struct silence;
struct flow;
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
    uint64_t sent;                /* bytes that writes, relays and pours brought into the kernel; of TLS: ciphertext, and plaintext once the kernel encrypts */
    struct list ready;            /* on the loop's list of streams to read (or to be told a failure) without polling */
    struct task reap;             /* its link: on the loop's fresh list until in_poller, on its reap list once closed */
    char *into;                   /* where stream_into() wants the next into_left bytes */
    size_t into_left;             /* 0: nowhere, data() gets them */
    void (*filled)(struct stream *s); /* of stream_into() */
    char *kept;                   /* read behind what stream_into() wanted, when the owner switched reading off; or NULL */
    size_t kept_n;                /* its bytes; within filled(): bytes in hand that follow */
    struct flow *in_flow;         /* takes what is read from here, instead of data() and eof(); see relays and pours */
    struct flow *out_flow;        /* writes here, and is told instead of drained() */
    int fd;                       /* -1 when closed */
    enum err fail;                /* a failure found by a write or a connect, not yet told */
    bool connecting;              /* connected() not yet called */
    bool reading;                 /* the owner wants data() */
    bool readable;                /* the kernel may hold bytes, an end or an error */
    bool hup;                     /* an end or an error is pending: read until it shows, a short read proves nothing */
    bool broken;                  /* the poller told of an error */
    bool eof_seen;                /* eof() was called */
    bool shut_wanted, shut_done;  /* stream_shut() was called; FIN is in the kernel */
    bool failed_told, closed;     /* failed() was called; stream_close() was called */
    bool in_poller;
    bool more_follows;            /* within stream_write_more() */
    bool given;                   /* fd came from the caller of stream_connect(): others may hold it too */
    bool tls_handshake;           /* TLS, and connected() waits for the handshake: reading goes on whatever the owner wants */
    bool truncated;               /* TLS: eof() came from a bare FIN; what was read may not be all that was sent */
    bool tls_plain_http;          /* failed() because the client speaks plain HTTP: see stream_tls_drop() */
    struct stream_tls *tls;       /* NULL: plain */
    struct silence *silence;      /* stream_silence(): looks at whether the peer is there; NULL: nobody does */
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
/* The same for bytes that are followed by more at once: by another write or a pour, before the turn ends. The kernel may keep an incomplete
 * segment back for that (MSG_MORE; after 200 ms it goes without). */
size_t stream_write_more(struct stream *s, const struct iovec *iov, int n);
/* The next n > 0 bytes that are read go straight to p, which stays the owner's and must stay until filled() or stream_close(). filled() comes
 * from the loop, when all are there; what follows them comes through data() again. May be called within data(), whose bytes are the owner's to
 * copy first, and within filled(), for the next; not before the last one is filled. stream_reading(), eof() and failed() are as usual:
 * stream_into_left() then tells how many are missing. */
void stream_into(struct stream *s, char *p, size_t n, void (*filled)(struct stream *s));
static inline size_t stream_into_left(const struct stream *s) { return s->into_left; }
/* Off: no data() or eof() until on again, and the kernel's window closes. On: what arrived meanwhile follows this turn. */
void stream_reading(struct stream *s, bool on);
/* TCP's keep-alive: after time_s without a byte the kernel asks every interval_s whether the peer is there, and breaks the connection after
 * probes questions without an answer. 0: as the kernel has it. Nothing happens on Unix sockets. */
void stream_keepalive(struct stream *s, uint32_t time_s, uint32_t interval_s, uint32_t probes);
/* The connection fails with ERR_TIMEOUT when for so long no segment has come from its peer's kernel, which is asked meanwhile; a peer that is there
 * and does not read is no silent one. Noticed within a third of that more. Both ends should have it: silence.c. Once the stream has a socket. */
void stream_silence(struct stream *s, uint32_t ms);
void stream_shut(struct stream *s);   /* FIN after what is queued */
void stream_close(struct stream *s);  /* at once, unsent bytes are lost; released() at the end of the turn. Idempotent. */
void stream_reset(struct stream *s);  /* the same with RST */
/* After eof() or within failed(): whether the peer's program has certainly got nothing of what was sent behind the first `from` bytes (s->sent
 * before it was written). So it is when the kernel took none of it; and when the peer ended the connection before any of it had arrived there: its
 * FIN says what had. A mere reset does not. Asks the kernel: not for every request. */
bool stream_unheard(const struct stream *s, uint64_t from);
enum err stream_local_addr(const struct stream *s, struct addr *a) WARN_UNUSED;
enum err stream_peer_addr(const struct stream *s, struct addr *a) WARN_UNUSED;

/* ---- relays and pours: bytes from one stream to another, without their owner ------------------------------------------ */

/* One direction: takes bytes from a source and writes them to a stream, as fast as that takes them. Small amounts go
 * through the loop's read buffer; where many come they are spliced, and never leave the kernel. All fields are rt's;
 * moved and spliced may be read by others. */
struct flow {
    const struct flow_ops *ops;   /* what it belongs to: a relay or a pour */
    struct stream *from;          /* NULL: a file */
    struct stream *to;            /* NULL: not in work */
    struct pipe *pipe;            /* from the loop's pool, while it holds bytes */
    size_t in_pipe;               /* how many */
    uint64_t left;                /* bytes still to be taken; UINT64_MAX: until the source ends */
    uint64_t moved;               /* bytes taken from the source so far */
    uint64_t spliced;             /* of these, the ones that were not copied */
    uint64_t active_ns;           /* loop time at which bytes last moved */
    uint8_t streak;               /* large reads in a row, or small ones while splicing */
    bool is_back;                 /* of its relay */
    bool splicing;
    bool unspliceable;            /* the kernel said so */
    bool ended;                   /* the source has ended; what waits is still to be written */
    bool done;                    /* nothing waits any more, and the end was passed on */
};

/* Joins two connected streams, both ways, until both have ended. Ends are passed on one by one (half-close), and no side is
 * read faster than the other takes. */
struct relay {
    struct flow there, back;      /* client to service, service to client */
    void (*done)(struct relay *r, enum err e);
    struct timer idle;
    uint32_t idle_ms;
    size_t waiting;               /* bytes that waited when the idle timer was last set */
    enum err why;                 /* one side broke; bytes that it sent before are still being written to the other */
};
/* Takes both streams over: of their owner's callbacks only released() is called from now on. What the owner has queued is sent first;
 * bytes written by it are not counted. idle_ms: ends with ERR_TIMEOUT when no byte moved for so long; 0: never.
 * False: nothing was done, because one of them is closed, failed, ended, encrypted, or in work for stream_into(); the owner copies.
 * done() comes once, never from inside relay_start(): OK when both sides have sent their end and all bytes are in the kernel, else what broke.
 * The relay is not touched afterwards; the owner closes both streams. After an error, stream_close() lets what was written still
 * arrive, and the end then looks like any other; stream_reset() shows that it is none, and takes back what is not sent yet.
 * stream_close() of either before done() ends the relay without it. */
bool relay_start(struct relay *r, struct stream *client, struct stream *service, uint32_t idle_ms,
                 void (*done)(struct relay *r, enum err e)) WARN_UNUSED;
void relay_stop(struct relay *r);  /* without done(); both streams remain, with reading off and bytes lost: close them */

/* Moves a known number of bytes, from a stream or from a regular file, into a stream. */
struct pour {
    struct flow flow;
    void (*done)(struct pour *p, enum err e);
    struct task task;             /* from a file: a round to make */
    int file;                     /* the owner's */
    uint64_t offset;              /* of the next byte in file */
};
/* The next n > 0 bytes of from go to to, after what is queued there; what follows them stays in the kernel and comes with data() after
 * done(). Until then the owner gets no data() and eof() of from, no drained() of to, and writes nothing to to; the other direction of both is
 * not touched. False: nothing was done, because one of them is closed, failed, ended, encrypted (but to, if the kernel does that), or from is in work
 * for stream_into(); the owner copies.
 * done() comes once, never from inside pour_start(): OK when all are in the kernel. Else flow.moved tells how many were taken, some of
 * them perhaps not written: ERR_CLOSED when from ended too early, or what broke; the stream's own eof() or failed() follows unless done()
 * closed it. The pour is not touched after done(). stream_close() of either before that ends the pour without done(). */
bool pour_start(struct pour *p, struct stream *from, struct stream *to, uint64_t n, void (*done)(struct pour *p, enum err e)) WARN_UNUSED;
/* The same from offset of a file that the owner keeps open; encrypted streams are served, by copying unless the kernel encrypts. ERR_IO: the file is shorter.
 * Reading a file that is not in memory blocks the loop. It begins at the end of this turn, so a head that goes before it should leave by
 * stream_write_more(). Within done(), the next write and pour of a chain follow without delay (up to POURS_PER_TURN). */
bool pour_file_start(struct pour *p, int file, uint64_t offset, struct stream *to, uint64_t n,
                     void (*done)(struct pour *p, enum err e)) WARN_UNUSED;
void pour_stop(struct pour *p);    /* without done(); what was taken from the source and not written is lost */
uint64_t loop_pipe_misses(const struct loop *l); /* how often bytes were copied because the loop had no pipe left */

/* ---- TLS: a transport under a stream ------------------------------------------------------------------------------- */

/* A stream over TLS is used like any other: data() and stream_write() carry plaintext, out_bytes counts what waits as
 * ciphertext (or, before the handshake is over, as plaintext), stream_shut() sends close_notify and FIN. What differs:
 * connected() comes on both sides, when the handshake is complete; nothing limits how long that takes but the owner's timer;
 * failed(ERR_TLS) has a text in stream_tls_error(). TLS 1.2 and 1.3; no renegotiation, compression or early data. */

#define TLS_NAME_MAX 255 /* bytes of a server name */
enum tls_version { TLS_VERSION_DEFAULT, TLS_VERSION_1_2, TLS_VERSION_1_3 }; /* default: 1.2 to the newest */
enum tls_san_kind { TLS_SAN_ANY, TLS_SAN_DNS, TLS_SAN_URI, TLS_SAN_IP, TLS_SAN_EMAIL };
/* A subjectAltName. To be matched exactly (DNS names without regard to case); ANY: of whichever kind. */
struct tls_san {
    enum tls_san_kind kind;
    struct slice text;
};
struct tls_cert_conf {
    struct slice chain_pem;  /* the certificate, then its intermediates */
    struct slice key_pem;    /* not encrypted */
    struct slice ocsp;       /* an OCSP response in DER, stapled for clients that ask; or empty */
};

/* Session ticket keys: shared by all workers and by the contexts of every plan, so that sessions survive a change of plan.
 * Reference-counted, any thread. The current key and the two before it are accepted. */
struct tls_tickets;
struct tls_tickets *tls_tickets_new(uint64_t now_ms);
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
void tls_tickets_unref(struct tls_tickets *t);              /* NULL-safe */
void tls_tickets_rotate(struct tls_tickets *t, uint64_t now_ms);
/* Rotates when the current key has been in use for period_ms, and as often as it was missed meanwhile. How long until that is due again. */
uint64_t tls_tickets_refresh(struct tls_tickets *t, uint64_t now_ms, uint64_t period_ms);
#define TLS_TICKETS_PERIOD_MS 21600000u /* of rotation: a ticket of the two keys before the current one can be 12 h old, and no session lives longer */
uint64_t tls_tickets_rotated_ms(const struct tls_tickets *t); /* as given to new or rotate, by whichever process */
/* The keys as bytes, for the next engine process: secret. */
void tls_tickets_export(const struct tls_tickets *t, struct buf *out);
enum err tls_tickets_import(struct slice bytes, struct tls_tickets **out) WARN_UNUSED;

/* What a server's or a client's connections have in common. Immutable, reference-counted, shared by all threads. */
struct tls_ctx;
enum tls_client_auth { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED }; /* optional: what is sent must be valid */
struct tls_server_conf {
    const struct tls_cert_conf *certs; /* chosen by server name, from their subjectAltNames; the first is the default. Two with */
    size_t certs_n;                    /* the same names and different kinds of key are one choice */
    bool any_time;                     /* take certificates that are expired or not yet valid */
    enum tls_client_auth client_auth;
    struct slice client_ca_pem;        /* needed unless TLS_CLIENT_NONE */
    const struct tls_san *client_sans; /* a client's certificate must have one of them; none: any that the CA signed */
    size_t client_sans_n;
    enum tls_version min, max;
    const char *ciphers;               /* TLS 1.2, OpenSSL's syntax; NULL: ECDHE with AEAD */
    const char *ciphersuites;          /* TLS 1.3; NULL: AES-128-GCM, AES-256-GCM, ChaCha20 */
    const struct slice *alpn;          /* protocols, preferred first; none: the extension is not answered */
    size_t alpn_n;
    struct tls_tickets *tickets;       /* NULL: no resumption */
};
/* Whether OpenSSL knows a cipher of this list for TLS 1.2; names in it that it does not know count for nothing. */
bool tls_ciphers_known(const char *ciphers);
/* why: a sentence that names what is wrong. */
enum err tls_server_new(const struct tls_server_conf *conf, struct tls_ctx **out, struct buf *why) WARN_UNUSED;

/* Several servers behind one listener, by server name. Patterns: "a.example"; "*.example", any name below it, the longest
 * first; "" or "*", clients without a name and names that no other pattern has. Without that, such clients get an alert. */
struct tls_host {
    struct slice pattern;
    struct tls_ctx *ctx;
};
enum err tls_hosts_new(const struct tls_host *hosts, size_t n, struct tls_ctx **out, struct buf *why) WARN_UNUSED;

enum tls_trust { TLS_TRUST_CA, TLS_TRUST_SYSTEM, TLS_TRUST_ALL /* nothing is verified */ };
struct tls_client_conf {
    enum tls_trust trust;
    struct slice ca_pem;               /* for TLS_TRUST_CA */
    const struct tls_cert_conf *cert;  /* shown when the server asks; or NULL */
    bool any_time;                     /* take cert though it is expired or not yet valid */
    const struct tls_san *sans;        /* the server's certificate must have one of them; none: the name given to */
    size_t sans_n;                     /* stream_tls_connect() alone decides */
    enum tls_version min, max;
    const char *ciphers, *ciphersuites; /* as above */
    const struct slice *alpn;
    size_t alpn_n;
};
enum err tls_client_new(const struct tls_client_conf *conf, struct tls_ctx **out, struct buf *why) WARN_UNUSED;
struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx);
void tls_ctx_unref(struct tls_ctx *ctx);               /* NULL-safe */
int64_t tls_ctx_expires_s(const struct tls_ctx *ctx);  /* since 1970: the earliest end of its certificates; INT64_MAX: none */

/* The first certificate of chain_pem is now of a CA in ca_pem, by way of the others, and for the DNS name or address; else why says what is wrong. */
enum err tls_cert_belongs(struct slice chain_pem, struct slice ca_pem, struct slice name, struct buf *why) WARN_UNUSED;

/* A client's newest session with one server: embedded by whoever keeps connections to it, zero-initialised, used by one
 * loop. It outlives the streams that were given it, or is taken from them first: tickets come as long as the peer sends them. */
#define TLS_TERMS_BYTES 32
struct tls_session_slot {
    void *session;
    unsigned char terms[TLS_TERMS_BYTES]; /* with session: whom it believes, as whom it comes; under others it is not used */
};
void tls_session_slot_fini(struct tls_session_slot *slot);

/* Right after stream_adopt(), or within data() of a stream that read something before TLS (a PROXY header): early are the
 * bytes of the handshake that came with it, at most STREAM_READ_BYTES. */
void stream_tls_accept(struct stream *s, struct tls_ctx *ctx, struct slice early);
/* Right after stream_connect(). What was written before goes out plain, ahead of the handshake; what is written afterwards
 * waits for its end. server_name: sent as SNI; verify_name: the certificate must be for it (a DNS name, or an address);
 * either may be empty. slot may be NULL. */
struct tls_peer_name {
    struct slice server_name, verify_name;
};
void stream_tls_connect(struct stream *s, struct tls_ctx *ctx, struct tls_peer_name name, struct tls_session_slot *slot);
/* The slot is not touched any more: it may go before s does. Nothing happens where there is none, or no TLS. */
void stream_tls_slot_end(struct stream *s);
/* Within failed(), when tls_plain_http is set: the stream goes on without TLS. What the client sent comes as data(). */
void stream_tls_drop(struct stream *s);

/* All valid until stream_close(). */
const char *stream_tls_error(const struct stream *s);     /* why it failed; "" when it did not */
struct slice stream_tls_server_name(const struct stream *s); /* as the client sent it, in lower case */
struct slice stream_tls_alpn(const struct stream *s);     /* empty: none was agreed on */
const char *stream_tls_version(const struct stream *s);   /* "TLSv1.3"; "" before the handshake is over */
const char *stream_tls_cipher(const struct stream *s);
bool stream_tls_resumed(const struct stream *s);
struct tls_cert_info {
    struct slice subject, issuer;      /* RFC 2253 */
    struct slice sha256;               /* of the DER, 64 hexadecimal digits */
    struct slice pem_url;              /* PEM, percent-encoded */
    struct tls_san *sans;
    size_t sans_n;
    int64_t expires_s;                 /* since 1970 */
};
/* The peer's certificate, or the one that was shown to it; the texts are in a. ERR_NOTFOUND: there is none. */
enum err stream_tls_peer(const struct stream *s, struct arena *a, struct tls_cert_info *out) WARN_UNUSED;
enum err stream_tls_own(const struct stream *s, struct arena *a, struct tls_cert_info *out) WARN_UNUSED;
/* Whether ctx, a server's that asks for certificates, would let the peer in now with the one that it has shown: for connections that are older than ctx. */
bool stream_tls_trusted(const struct stream *s, const struct tls_ctx *ctx);

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
/* Two ends of one connection inside this process, not blocking: each for stream_adopt(). */
enum err socket_pair(int fds[2]) WARN_UNUSED;
enum err socket_local_addr(int fd, struct addr *a) WARN_UNUSED;

/* ---- watches: any descriptor's readability, level-triggered -------------------------------------------------------- */

struct watch {
    struct loop *loop;
    int fd;
    void (*fn)(struct watch *w); /* readable, or at its end: read it */
    bool on;
};
void watch_start(struct watch *w, struct loop *l, int fd, void (*fn)(struct watch *));
void watch_stop(struct watch *w); /* does not close fd; fn is not called again. Before fd is closed. */

/* ---- datagrams -------------------------------------------------------------------------------------------------------- */

#define DGRAM_BYTES_MAX 65536   /* no datagram is longer */
/* A UDP socket. Datagrams get lost, doubled and overtaken on their way; none is ever queued here. */
struct dgram {
    struct watch watch;          /* rt's */
    void (*received)(struct dgram *d, char *p, size_t n, const struct addr *from); /* p: the loop's, during the call; may stop and free d */
    void (*failed)(struct dgram *d, enum err e); /* the system told of an error, such as ERR_REFUSED by the peer of a connected one; goes on. NULL: nobody cares */
    void *owner;                 /* the user's; dgram_start() leaves it alone */
};
/* Non-blocking; at: bound to that. to: it sends to that address only, takes datagrams from nobody else, and, without at, its port is by chance.
 * One of them may be NULL. */
enum err dgram_socket(const struct addr *at, const struct addr *to, int *fd) WARN_UNUSED;
/* fd stays the caller's: dgram_stop() before socket_close(). */
void dgram_start(struct dgram *d, struct loop *l, int fd);
void dgram_stop(struct dgram *d);
/* to: NULL for a connected one. ERR_AGAIN: the system's buffer is full and the datagram is gone, as it might be on its way. */
enum err dgram_send(struct dgram *d, const void *p, size_t n, const struct addr *to);

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
/* When all that was posted has arrived: then no sender touches mb any more, though one may still be waking its loop, which must outlive him. */
void mailbox_free(struct mailbox *mb);
/* From any thread. False when full: the sender keeps p and decides (counted in mailbox_full()). */
bool mailbox_post(struct mailbox *mb, const struct msg *m) WARN_UNUSED;
uint64_t mailbox_full(const struct mailbox *mb);

/* Messages in order to one mailbox, also while it is full: what it does not take waits here. Belongs to the sending loop; without limit, so
 * its user bounds how much he sends. All fields are rt's. */
struct outbox {
    struct loop *loop;
    struct mailbox *to;
    struct msg *waiting;
    size_t n, cap;
    struct timer retry;
};
void outbox_init(struct outbox *o, struct loop *l, struct mailbox *to);
void outbox_post(struct outbox *o, struct msg m);
void outbox_fini(struct outbox *o); /* what waits is lost */

/* ---- threads and blocking work ------------------------------------------------------------------------------------- */

struct thread;
struct thread *thread_start(const char *name, void (*fn)(void *), void *arg);
void thread_join(struct thread *t); /* and free */
void thread_pin(int cpu);           /* the calling thread; best effort */
/* The calling thread, not those that it starts, comes to run soon after it wakes though others keep its processor busy, and runs for shorter turns: for what waits much, and is waited
 * for. Best effort: Linux 6.12 and later know such turns (sched_setattr(2), sched_runtime of SCHED_OTHER), the kernels before ignore it. */
void thread_prompt(void);

/* Blocking work on a small pool of threads; done() runs on loop l. In the simulator both run on the loop (sim_work.c). */
struct work {
    void (*run)(struct work *);  /* on a pool thread */
    void (*done)(struct work *); /* on the loop */
    struct loop *loop;
    struct work *next;
    bool slow;                   /* may take long, and nobody waits at once: half of the threads at most run such works */
    uint64_t sim_due_ns;         /* in the simulator: when run() goes on, which waits for the disk */
    void *sim_fiber;             /* the same: its stack */
};
void work_submit(struct loop *l, struct work *w);
/* Within run(): fn(ctx, i) for every i < n, here and on up to 15 more threads at once; returns when all are over. For operations of a disk that cost
 * less together than one after the other, as syncs do: the device's flushes are merged. fn may not spread. In the simulator: one by one. */
void work_spread(uint32_t n, void (*fn)(void *ctx, uint32_t i), void *ctx);

/* ---- disk ------------------------------------------------------------------------------------------------------------ */

/* A regular file, to be read by pour_file_start(); ERR_INVALID for anything else. Closed by file_close(). */
enum err file_open(const char *path, int *fd, uint64_t *bytes, uint64_t *mtime_ns) WARN_UNUSED;
void file_close(int fd);
enum err file_read_at(int fd, uint64_t offset, void *p, size_t n) WARN_UNUSED; /* ERR_IO: the file is shorter */
/* What file_open_in() found. A folder is not kept open. */
struct file_found {
    int fd;              /* a regular file, for pour_file_start() and file_close(); -1: a folder */
    bool folder;
    uint64_t bytes, mtime_ns, inode;
};
/* Opens path below the folder root, and nothing outside of it: path is relative and without ".." elements, and a symbolic link on the way
 * may lead anywhere but out of root. ERR_NOTFOUND: not there, or outside; ERR_PERM; ERR_INVALID: neither file nor folder; ERR_UNSUPPORTED: a
 * kernel before 5.6, without openat2(). Blocks no longer than the folder's file system does. */
enum err file_open_in(const char *root, const char *path, struct file_found *out) WARN_UNUSED;
enum err file_read(const char *path, struct buf *out, size_t max) WARN_UNUSED; /* ERR_LIMIT above max */
/* Atomically: the old or the new content, never a mixture, also after power loss. Blocks. */
enum err file_replace(const char *path, const void *p, size_t n, int mode) WARN_UNUSED;

/* Files written at offsets, as logs do, and their folders. All of these block as long as their file system does; disk_sync() and large cold
 * reads belong to work_submit(). Descriptors are closed by file_close() and read by file_read_at() and pour_file_start(). A full disk (or quota)
 * is ERR_NOSPACE.
 *
 * What power loss leaves: what disk_sync() returned OK for, all of it; of later writes any part, down to single sectors of 512 bytes, in any
 * order; a size that may have grown without its bytes (zeroes then). Names that were made, moved or removed in a folder are certain after
 * disk_sync_dir() of it, each for itself before; a rename is done or not done. After a failed disk_sync() nothing is known of what was written
 * since the last one that succeeded, and a later success does not change that: the kernel tells an error once, and takes the pages for clean. */

/* To be read and written, close-on-exec; bytes: its size. ERR_NOTFOUND: absent, and not create (mode 0600); ERR_INVALID: no regular file. */
enum err disk_open(const char *path, bool create, int *fd, uint64_t *bytes) WARN_UNUSED;
/* All of iov, in order, from offset on; what is behind the end of the file and before offset reads as zeroes. On an error *written tells how
 * many of the first bytes are in the file. */
enum err disk_write_at(int fd, uint64_t offset, const struct iovec *iov, int n, uint64_t *written) WARN_UNUSED;
enum err disk_sync(int fd) WARN_UNUSED;                       /* all that was written to the file, by any descriptor, and its size (fdatasync) */
void disk_sync_start(int fd, uint64_t offset, uint64_t n);    /* begins to write back, seldom waits, promises nothing */
enum err disk_truncate(int fd, uint64_t bytes) WARN_UNUSED;   /* reservations behind the new end are given up, too */
/* Space that is there when the disk fills, without a change of the file's size. ERR_UNSUPPORTED: the file system can't. */
enum err disk_reserve(int fd, uint64_t offset, uint64_t n) WARN_UNUSED;
enum err disk_make_dir(const char *path) WARN_UNUSED;         /* mode 0700; OK when it is one already, ERR_EXISTS when it is something else */
enum err disk_sync_dir(const char *path) WARN_UNUSED;
enum err disk_remove(const char *path) WARN_UNUSED;           /* a file; its bytes go when nobody has it open. ERR_NOTFOUND */
enum err disk_remove_dir(const char *path) WARN_UNUSED;       /* ERR_EXISTS: it is not empty; ERR_NOTFOUND */
enum err disk_rename(const char *from, const char *to) WARN_UNUSED; /* files and folders; a file at to is replaced */
/* Calls each for every entry but "." and "..", in any order; it may add and remove entries, which are then listed or not. Links are followed. */
enum err disk_list(const char *path, void (*each)(void *ctx, const char *name, bool folder, uint64_t bytes), void *ctx) WARN_UNUSED;
enum err disk_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes) WARN_UNUSED; /* free: to an ordinary user */
/* Makes the file if needed and locks it for this process until file_close() or its end. ERR_INUSE: somebody holds it; does not wait. */
enum err disk_lock(const char *path, int *fd) WARN_UNUSED;
void disk_hint_read(int fd, uint64_t offset, uint64_t n);     /* will be read soon: begins to read ahead */
/* True: a read of these bytes will probably not wait for the disk (or nobody can tell). Looks at their first and last page only. */
bool disk_in_memory(int fd, uint64_t offset, uint64_t n);

/* ---- counters: written by their loop only, read by any thread ------------------------------------------------------ */

typedef uint64_t counter; /* the one typedef: a scalar with a rule */
static inline void counter_add(counter *c, uint64_t n) { __atomic_store_n(c, *c + n, __ATOMIC_RELAXED); }
static inline void counter_inc(counter *c) { counter_add(c, 1); }
static inline void counter_set(counter *c, uint64_t v) { __atomic_store_n(c, v, __ATOMIC_RELAXED); }
static inline uint64_t counter_read(const counter *c) { return __atomic_load_n(c, __ATOMIC_RELAXED); }

/* TLS on one loop; handshakes that came to their end count as accepted or connected. */
struct tls_counters {
    counter accepted, connected, resumed; /* resumed: of both */
    counter failed;                       /* handshakes and established connections, by a fault of TLS */
    counter plain_http;                   /* of failed: plain HTTP on a TLS port */
    counter limits;                       /* of failed: TLS_HANDSHAKE_BYTES_MAX, TLS_CONTROL_MAX */
    counter certificate;                  /* of failed: the peer's certificate is missing or not trusted */
    counter alerts;                       /* of failed: the peer refused, with an alert */
    counter parameters;                   /* of failed: no version, cipher, group or protocol in common */
    counter closed;                       /* of failed: the peer closed within the handshake */
    counter truncated;                    /* ends without close_notify */
    counter kernel;                       /* connections whose records the kernel makes, since a large body was to be sent */
    counter kernel_refused;               /* the kernel did not want to: OpenSSL went on */
    counter kernel_outdated;              /* of failed: the peer wanted new keys from the kernel */
};
const struct tls_counters *loop_tls_counters(const struct loop *l);
/* Records of TLS may be made by the kernel from now on, where that pays: for contexts that are made afterwards. Before the first loop runs. Asks for the
 * kernel's module tls, so it does most in a process that may have it loaded; another process then finds it. False: the kernel has
 * none, and nothing changes. */
bool tls_kernel_start(void);

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
void log_file_flush(struct log_file *f);                            /* what was put is written now, by the caller: the disk holds it up */
/* One line (the newline is added). False, and counted, when the ring is full: a log never blocks a request. */
bool log_file_put(struct log_file *f, const char *p, size_t n);
uint64_t log_file_dropped(const struct log_file *f);

#endif
