/* sys.h - the system as rt sees it: the one seam between Weir and the kernel. PRIVATE to rt (other rooms use rt.h).
 *
 * Two back ends implement these functions, chosen at link time: os_sys.c (Linux) and sim_sys.c (a virtual clock, a
 * virtual network of streams, a virtual disk, seeded faults). Convention: a result >= 0 is success, < 0 is -errno.
 * File descriptors are small ints in both; a sim descriptor is never a kernel descriptor.
 */
#ifndef SYS_H
#define SYS_H

#include "rt.h"
#include <sys/types.h>
#include <sys/uio.h>

/* False: one thread steps all loops; nothing may sleep and thread_start() is refused. */
bool sys_threads(void);
/* The back end hears of every loop: the simulator steps them, the kernel back end does nothing. */
void sys_loop_added(struct loop *l);
void sys_loop_gone(struct loop *l);

/* ---- clock and chance ---- */
uint64_t sys_mono_ns(void);
uint64_t sys_wall_ns(void); /* since 1970 */
void sys_random(void *p, size_t n);

/* ---- readiness: edge-triggered, read and write interest from the start ---- */
enum { SYS_IN = 1, SYS_OUT = 2, SYS_HUP = 4 /* EOF or error pending: read until told so */, SYS_ERR = 8 /* with HUP: an error */ };
struct sys_event {
    void *ptr;
    uint32_t what; /* SYS_* */
};
int sys_poller_new(void);
int sys_poller_add(int poller, int fd, void *ptr);      /* edge-triggered: in, out, hup */
int sys_poller_add_level(int poller, int fd, void *ptr, bool exclusive); /* level-triggered, input only: listeners, watches */
int sys_poller_del(int poller, int fd);
int sys_poller_wait(int poller, struct sys_event *ev, int max, int timeout_ms); /* -1: no limit */
int sys_wake_new(void);        /* a descriptor that becomes readable on sys_wake(); eventfd */
void sys_wake(int fd);
void sys_wake_clear(int fd);

/* ---- sockets: all non-blocking, close-on-exec ---- */
int sys_socket(const struct addr *a);                   /* a stream socket of a's family, TCP_NODELAY */
int sys_pair(int fds[2]);                               /* two ends of one connection, of stream sockets; nobody else can have one */
int sys_connect(int fd, const struct addr *a);          /* 0, or -EINPROGRESS */
int sys_connect_result(int fd);                         /* 0 once connected, or -errno (SO_ERROR) */
int sys_listen(const struct addr *a, int backlog, bool reuseport);
int sys_accept(int lfd, struct addr *peer);             /* peer may be NULL */
int sys_local_addr(int fd, struct addr *a);
int sys_peer_addr(int fd, struct addr *a);
/* Seconds; 0: as the kernel has it. Nothing on sockets that are not TCP's. */
void sys_keepalive(int fd, uint32_t time_s, uint32_t interval_s, uint32_t probes);
/* How many segments have come from the peer so far; owed: something that was sent is not acknowledged. -errno: nothing can be said (a Unix socket). */
int sys_heard(int fd, uint32_t *segments, bool *owed);
void sys_nodelay(int fd);                               /* TCP_NODELAY; nothing on other sockets */
int sys_dgram(const struct addr *at, const struct addr *to); /* a UDP socket: bound to at, connected to to; one may be NULL */
ssize_t sys_dgram_recv(int fd, void *p, size_t n, struct addr *from); /* one datagram; what is beyond n is lost */
ssize_t sys_dgram_send(int fd, const void *p, size_t n, const struct addr *to); /* to NULL: connected */
ssize_t sys_recv(int fd, void *p, size_t n);
ssize_t sys_recvv(int fd, const struct iovec *iov, int n);
ssize_t sys_recv_peek(int fd);                          /* 1: bytes wait; 0: at its end; -errno: -EAGAIN or the pending error */
ssize_t sys_writev(int fd, const struct iovec *iov, int n);
ssize_t sys_writev_more(int fd, const struct iovec *iov, int n); /* more follows at once: an incomplete segment may wait for it */
/* How many of the bytes that were written the peer's kernel has taken, as far as is known here. -errno: nothing can be said (a Unix socket). */
int sys_acked(int fd, uint64_t *bytes);
int sys_given(int fd, uint64_t *bytes);                 /* how many of the bytes that were written TCP has: counted from some beginning */
int sys_shutdown_write(int fd);
int sys_linger_reset(int fd);                           /* the coming close sends RST */
void sys_close(int fd);
ssize_t sys_read(int fd, void *p, size_t n);            /* pipes and files */

/* ---- bytes that stay in the kernel ---- */
/* A pipe, fds[0] to be read, fds[1] to be written; returns the bytes that it was made to hold, at most want. -ENOSPC when the
 * system grants only pipes too small to be of use. */
int sys_pipe(size_t want, int fds[2]);
/* Up to n bytes from a socket into an empty pipe, or from a pipe into a socket. Fewer bytes than n from a socket do not
 * prove it empty: a pipe counts pieces, too. 0: the socket's end. -EINVAL: not with this socket. */
ssize_t sys_splice_in(int fd, int pipe_w, size_t n);
ssize_t sys_splice_out(int pipe_r, int fd, size_t n);
ssize_t sys_sendfile(int fd, int file, uint64_t offset, size_t n); /* fewer than n, and an edge is owed, when the socket is full */

/* ---- records of TLS that the kernel makes (tls_kernel.c); info: one of linux/tls.h's structures for a cipher ---- */
int sys_tls_present(void);                              /* 0: it can; asks for the module to be loaded, which needs CAP_NET_ADMIN */
int sys_tls_send(int fd, const void *info, size_t n);   /* what is written from now on is plaintext; an error: nothing has changed */
int sys_tls_state(int fd, void *info, size_t n);        /* as it is now, with the number of the next record */
ssize_t sys_tls_control(int fd, uint8_t type, const void *p, size_t n); /* one record that is no data, behind all that was written */

/* ---- disk ---- */
int sys_file_read(const char *path, struct buf *out, size_t max); /* whole file; -EFBIG above max */
int sys_file_replace(const char *path, const void *p, size_t n, int mode); /* temporary file, fsync, rename, fsync of the folder */
int sys_file_append_open(const char *path, int mode);
ssize_t sys_file_write(int fd, const void *p, size_t n);
bool sys_file_ready(int fd);                            /* a write of up to 4 KiB (PIPE_BUF) would not wait for a reader */
int sys_rename(const char *from, const char *to);
bool sys_file_is(int fd, const char *path);             /* path names the very file that fd has open */
int sys_unlink(const char *path);
int64_t sys_file_size(int fd);                             /* -ESPIPE: no regular file */
int sys_file_open(const char *path, uint64_t *mtime_ns);          /* a regular file, to be read; -EINVAL for anything else */
int sys_file_open_in(const char *root, const char *path, struct file_found *out); /* 0; -EXDEV: it leads outside */
ssize_t sys_file_pread(int fd, void *p, size_t n, uint64_t offset);

/* ---- files written at offsets, and folders: see the disk section of rt.h ---- */
int sys_disk_open(const char *path, bool create);       /* a regular file, to be read and written; -EINVAL for anything else */
ssize_t sys_file_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset); /* n <= IOV_PER_CALL; perhaps a part */
int sys_file_sync(int fd);                              /* bytes and size */
void sys_file_sync_start(int fd, uint64_t offset, uint64_t n);
int sys_file_truncate(int fd, uint64_t bytes);
int sys_file_reserve(int fd, uint64_t offset, uint64_t n); /* -EOPNOTSUPP */
int sys_file_lock(const char *path);                    /* a descriptor; -EWOULDBLOCK */
void sys_file_hint(int fd, uint64_t offset, uint64_t n);
bool sys_file_cached(int fd, uint64_t offset, uint64_t n);
int sys_dir_make(const char *path);                     /* 0 also when it is there; -EEXIST: something else is */
int sys_dir_sync(const char *path);
int sys_dir_remove(const char *path);
int sys_dir_list(const char *path, void (*each)(void *ctx, const char *name, bool folder, uint64_t bytes), void *ctx);
int sys_disk_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes);

/* ---- blocking work without threads: never called when sys_threads() ---- */
/* Calls run(), or goes on with it: true when it has returned; else w->sim_due_ns says when to call this again. */
bool sys_work_run(struct work *w);

#endif
