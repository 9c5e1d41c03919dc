/* os_sys.c - the seam of sys.h on Linux: thin wrappers that turn errno into results. No policy here.
 *
 * Every descriptor is non-blocking where it can be and close-on-exec always: the engine's sockets never reach a workload.
 */
#include "sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RESULT(call) ((call) < 0 ? -errno : 0)
#define PIPE_BYTES_MIN 65536 /* below this, copying is no worse */
#define WRITE_WAIT_MS 1000 /* the longest that a file write waits for a full, non-blocking pipe or terminal */

bool sys_threads(void) { return true; }
void sys_loop_added(struct loop *l) {}
void sys_loop_gone(struct loop *l) {}

/* ---- clock and chance ---- */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

uint64_t sys_mono_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
uint64_t sys_wall_ns(void) { return clock_ns(CLOCK_REALTIME); }

void sys_random(void *p, size_t n)
{
    char *at = p;
    while (n) {
        ssize_t r = getrandom(at, n, 0);
        if (r < 0 && errno == EINTR) continue;
        MUST(r > 0); /* the system call has existed since Linux 3.17 and cannot fail otherwise */
        at += r;
        n -= (size_t)r;
    }
}

/* ---- readiness ---- */

int sys_poller_new(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int sys_poller_add(int poller, int fd, void *ptr)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = ptr};
    return RESULT(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &ev));
}

int sys_poller_add_level(int poller, int fd, void *ptr, bool exclusive)
{
    struct epoll_event ev = {.events = EPOLLIN | (exclusive ? (uint32_t)EPOLLEXCLUSIVE : 0), .data.ptr = ptr};
    return RESULT(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &ev));
}

int sys_poller_del(int poller, int fd)
{
    struct epoll_event ev = {0};
    return RESULT(epoll_ctl(poller, EPOLL_CTL_DEL, fd, &ev));
}

int sys_poller_wait(int poller, struct sys_event *ev, int max, int timeout_ms)
{
    struct epoll_event got[256];
    int n = epoll_wait(poller, got, MIN(max, (int)COUNT_OF(got)), timeout_ms);
    if (n < 0) return -errno;
    for (int i = 0; i < n; i++) {
        uint32_t e = got[i].events;
        ev[i].ptr = got[i].data.ptr;
        ev[i].what = (e & EPOLLIN ? SYS_IN : 0U) | (e & EPOLLOUT ? SYS_OUT : 0U) | (e & EPOLLERR ? SYS_ERR : 0U) |
                     (e & (EPOLLHUP | EPOLLRDHUP | EPOLLERR) ? SYS_HUP : 0U);
    }
    return n;
}

int sys_wake_new(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void sys_wake(int fd)
{
    uint64_t one = 1;
    ssize_t r = write(fd, &one, sizeof one);
    (void)r; /* EAGAIN: the counter is full, so it is readable, which is all we want */
}

void sys_wake_clear(int fd)
{
    uint64_t n;
    ssize_t r = read(fd, &n, sizeof n);
    (void)r; /* EAGAIN: somebody cleared it already */
}

/* ---- socket addresses ---- */

union os_addr {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

static socklen_t os_addr_of(const struct addr *a, union os_addr *out)
{
    memset(out, 0, sizeof *out);
    switch (a->family) {
    case ADDR_IP4:
        out->in4.sin_family = AF_INET;
        out->in4.sin_port = htons(a->port);
        memcpy(&out->in4.sin_addr, a->ip, 4);
        return sizeof out->in4;
    case ADDR_IP6:
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(a->port);
        memcpy(&out->in6.sin6_addr, a->ip, 16);
        return sizeof out->in6;
    case ADDR_UNIX:
        out->un.sun_family = AF_UNIX;
        memcpy(out->un.sun_path, a->path, sizeof out->un.sun_path);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strnlen(a->path, sizeof a->path - 1) + 1);
    case ADDR_NONE: break;
    }
    return 0;
}

static void os_addr_to(const union os_addr *from, socklen_t n, struct addr *a)
{
    memset(a, 0, sizeof *a);
    switch (n ? from->any.sa_family : AF_UNSPEC) {
    case AF_INET:
        a->family = ADDR_IP4;
        a->port = ntohs(from->in4.sin_port);
        memcpy(a->ip, &from->in4.sin_addr, 4);
        break;
    case AF_INET6:
        a->family = ADDR_IP6;
        a->port = ntohs(from->in6.sin6_port);
        memcpy(a->ip, &from->in6.sin6_addr, 16);
        break;
    case AF_UNIX:
        a->family = ADDR_UNIX;
        if (n > offsetof(struct sockaddr_un, sun_path)) memcpy(a->path, from->un.sun_path, sizeof a->path - 1);
        break;
    default: break;
    }
}

/* ---- sockets ---- */

void sys_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on Unix sockets, which never delay */
}

static void tcp_option(int fd, int option, uint32_t value, uint32_t max)
{
    int v = (int)MIN(value, max);
    if (v) setsockopt(fd, IPPROTO_TCP, option, &v, sizeof v);
}

/* The kernel refuses more than these (tcp(7): MAX_TCP_KEEPIDLE, _KEEPINTVL, _KEEPCNT). */
void sys_keepalive(int fd, uint32_t time_s, uint32_t interval_s, uint32_t probes)
{
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0) return;
    tcp_option(fd, TCP_KEEPIDLE, time_s, 32767);
    tcp_option(fd, TCP_KEEPINTVL, interval_s, 32767);
    tcp_option(fd, TCP_KEEPCNT, probes, 127);
}

int sys_socket(const struct addr *a)
{
    union os_addr to;
    if (os_addr_of(a, &to) == 0) return -EAFNOSUPPORT;
    int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (a->family != ADDR_UNIX) sys_nodelay(fd);
    return fd;
}

int sys_pair(int fds[2]) { return RESULT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds)); }

int sys_connect(int fd, const struct addr *a)
{
    union os_addr to;
    socklen_t n = os_addr_of(a, &to);
    if (n == 0) return -EAFNOSUPPORT;
    int r;
    do r = connect(fd, &to.any, n);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int sys_connect_result(int fd)
{
    int e = 0;
    socklen_t n = sizeof e;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0) return -errno;
    return -e;
}

static int os_listen_on(int fd, const struct addr *a, int backlog, bool reuseport)
{
    int on = 1;
    if (a->family != ADDR_UNIX) {
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) return -errno;
        if (reuseport && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) return -errno;
    }
    if (a->family == ADDR_IP6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) return -errno;
    union os_addr at;
    socklen_t n = os_addr_of(a, &at);
    if (bind(fd, &at.any, n) < 0) return -errno;
    return RESULT(listen(fd, backlog));
}

int sys_listen(const struct addr *a, int backlog, bool reuseport)
{
    int fd = sys_socket(a);
    if (fd < 0) return fd;
    int r = os_listen_on(fd, a, backlog, reuseport);
    if (r == 0) return fd;
    close(fd);
    return r;
}

int sys_accept(int lfd, struct addr *peer)
{
    union os_addr from;
    socklen_t n = sizeof from;
    int fd = accept4(lfd, &from.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return -errno;
    if (peer) os_addr_to(&from, n, peer);
    return fd;
}

int sys_local_addr(int fd, struct addr *a)
{
    union os_addr at;
    socklen_t n = sizeof at;
    if (getsockname(fd, &at.any, &n) < 0) return -errno;
    os_addr_to(&at, n, a);
    return 0;
}

int sys_peer_addr(int fd, struct addr *a)
{
    union os_addr at;
    socklen_t n = sizeof at;
    if (getpeername(fd, &at.any, &n) < 0) return -errno;
    os_addr_to(&at, n, a);
    return 0;
}

int sys_dgram(const struct addr *at, const struct addr *to)
{
    union os_addr local, peer;
    socklen_t local_n = at ? os_addr_of(at, &local) : 0, peer_n = to ? os_addr_of(to, &peer) : 0;
    enum addr_family family = at ? at->family : to->family;
    if (family != ADDR_IP4 && family != ADDR_IP6) return -EAFNOSUPPORT;
    int fd = socket(family == ADDR_IP4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int r = at ? RESULT(bind(fd, &local.any, local_n)) : 0;
    if (r == 0 && to) r = RESULT(connect(fd, &peer.any, peer_n));
    if (r == 0) return fd;
    close(fd);
    return r;
}

ssize_t sys_dgram_recv(int fd, void *p, size_t n, struct addr *from)
{
    union os_addr at;
    socklen_t at_n = sizeof at;
    ssize_t r;
    do r = recvfrom(fd, p, n, 0, &at.any, &at_n);
    while (r < 0 && errno == EINTR);
    if (r < 0) return -errno;
    os_addr_to(&at, at_n, from);
    return r;
}

ssize_t sys_dgram_send(int fd, const void *p, size_t n, const struct addr *to)
{
    union os_addr at;
    socklen_t at_n = to ? os_addr_of(to, &at) : 0;
    ssize_t r;
    do r = sendto(fd, p, n, MSG_NOSIGNAL, at_n ? &at.any : NULL, at_n);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* What each request costs goes past the C library: its wrappers are points of cancellation, which in a process with threads is two atomic operations a call, and
 * nobody here cancels a thread. */
static ssize_t os_recv(int fd, void *p, size_t n)
{
    ssize_t r;
    do r = syscall(SYS_recvfrom, fd, p, n, 0, NULL, NULL);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

ssize_t sys_recv(int fd, void *p, size_t n) { return os_recv(fd, p, n); }

ssize_t sys_recvv(int fd, const struct iovec *iov, int n)
{
    ssize_t r;
    if (n == 1) return os_recv(fd, iov->iov_base, iov->iov_len);
    do r = readv(fd, iov, n);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

ssize_t sys_recv_peek(int fd)
{
    char c;
    ssize_t r = recv(fd, &c, 1, MSG_PEEK);
    return r < 0 ? -errno : r;
}

/* With the SYN as a byte. What the kernel says stays true behind the end of the connection. */
static int os_acked(int fd, uint64_t *bytes)
{
    struct tcp_info ti = {0};
    socklen_t n = sizeof ti;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n) < 0) return -errno;
    if (n < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof ti.tcpi_bytes_acked) return -ENOTSUP;
    *bytes = ti.tcpi_bytes_acked;
    return 0;
}

int sys_acked(int fd, uint64_t *bytes)
{
    int r = os_acked(fd, bytes);
    if (r == 0 && *bytes) *bytes -= 1;
    return r;
}

int sys_heard(int fd, uint32_t *segments, bool *owed)
{
    struct tcp_info ti = {0};
    socklen_t n = sizeof ti;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n) < 0) return -errno;
    if (n < offsetof(struct tcp_info, tcpi_segs_in) + sizeof ti.tcpi_segs_in) return -ENOTSUP;
    *segments = ti.tcpi_segs_in;
    *owed = ti.tcpi_unacked > 0;
    return 0;
}

int sys_given(int fd, uint64_t *bytes)
{
    int waiting = 0, r = os_acked(fd, bytes);
    if (r == 0) r = RESULT(ioctl(fd, SIOCOUTQ, &waiting));
    if (r == 0) *bytes += (uint64_t)waiting;
    return r;
}

static ssize_t os_send(int fd, const void *p, size_t n, int flags)
{
    ssize_t r;
    do r = syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* Pieces that are together smaller than this are cheaper copied than told to the kernel one by one. */
#define SEND_COPY_BYTES 1024

static ssize_t os_sendv(int fd, const struct iovec *iov, int n, int flags)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
    char copy[SEND_COPY_BYTES];
    size_t bytes = 0;
    ssize_t r;
    if (n == 1) return os_send(fd, iov->iov_base, iov->iov_len, flags);
    for (int i = 0; i < n && iov[i].iov_len <= sizeof copy - bytes; i++) {
        memcpy(copy + bytes, iov[i].iov_base, iov[i].iov_len);
        bytes += iov[i].iov_len;
        if (i == n - 1) return os_send(fd, copy, bytes, flags);
    }
    do r = syscall(SYS_sendmsg, fd, &m, flags);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

ssize_t sys_writev(int fd, const struct iovec *iov, int n) { return os_sendv(fd, iov, n, MSG_NOSIGNAL); }
ssize_t sys_writev_more(int fd, const struct iovec *iov, int n) { return os_sendv(fd, iov, n, MSG_NOSIGNAL | MSG_MORE); }

int sys_shutdown_write(int fd)
{
    return RESULT(shutdown(fd, SHUT_WR));
}

int sys_linger_reset(int fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    return RESULT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now));
}

void sys_close(int fd)
{
    close(fd);
}

ssize_t sys_read(int fd, void *p, size_t n)
{
    ssize_t r;
    do r = read(fd, p, n);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* ---- bytes that stay in the kernel ---- */

/* The system may refuse large pipes to those who have many (/proc/sys/fs/pipe-user-pages-soft), down to a page or two. */
int sys_pipe(size_t want, int fds[2])
{
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return -errno;
    int bytes = -1;
    for (; bytes < 0 && want >= PIPE_BYTES_MIN; want /= 2) bytes = fcntl(fds[1], F_SETPIPE_SZ, (int)want);
    if (bytes >= PIPE_BYTES_MIN) return bytes;
    close(fds[0]);
    close(fds[1]);
    return -ENOSPC;
}

static ssize_t os_splice(int from, int to, size_t n)
{
    ssize_t r;
    do r = splice(from, NULL, to, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

ssize_t sys_splice_in(int fd, int pipe_w, size_t n) { return os_splice(fd, pipe_w, n); }
ssize_t sys_splice_out(int pipe_r, int fd, size_t n) { return os_splice(pipe_r, fd, n); }

ssize_t sys_sendfile(int fd, int file, uint64_t offset, size_t n)
{
    off_t at = (off_t)offset;
    ssize_t r;
    do r = sendfile(fd, file, &at, n);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* ---- records of TLS that the kernel makes (Documentation/networking/tls.rst) ---- */

static const char ulp_tls[] = "tls";

/* Only a connection can have it, which a fresh socket is not: that is what a kernel with the module says. */
int sys_tls_present(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int r = RESULT(setsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp_tls, sizeof ulp_tls));
    close(fd);
    return r == -ENOTCONN ? 0 : r;
}

int sys_tls_send(int fd, const void *info, size_t n)
{
    if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp_tls, sizeof ulp_tls) < 0) return -errno;
    return RESULT(setsockopt(fd, SOL_TLS, TLS_TX, info, (socklen_t)n)); /* without that the socket goes on as it was */
}

int sys_tls_state(int fd, void *info, size_t n)
{
    socklen_t len = (socklen_t)n;
    return RESULT(getsockopt(fd, SOL_TLS, TLS_TX, info, &len));
}

ssize_t sys_tls_control(int fd, uint8_t type, const void *p, size_t n)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof type)];
    } control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
    control.head.cmsg_level = SOL_TLS;
    control.head.cmsg_type = TLS_SET_RECORD_TYPE;
    control.head.cmsg_len = CMSG_LEN(sizeof type);
    memcpy(CMSG_DATA(&control.head), &type, sizeof type);
    ssize_t r;
    do r = sendmsg(fd, &m, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* ---- disk ---- */

static int os_read_all(int fd, struct buf *out, size_t max)
{
    buf_clear(out);
    buf_reserve(out, 1);
    for (;;) {
        buf_reserve(out, 16384);
        ssize_t r = sys_read(fd, out->p + out->n, 16384);
        if (r < 0) return (int)r;
        if (r == 0) break;
        out->n += (size_t)r;
        if (out->n > max) return -EFBIG;
    }
    out->p[out->n] = 0;
    return 0;
}

int sys_file_read(const char *path, struct buf *out, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat st;
    int r = RESULT(fstat(fd, &st));
    if (r == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > max) r = -EFBIG;
    if (r == 0) r = os_read_all(fd, out, max);
    close(fd);
    return r;
}

ssize_t sys_file_write(int fd, const void *p, size_t n)
{
    for (;;) {
        ssize_t r = write(fd, p, n);
        if (r >= 0) return r;
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return -errno;
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        if (poll(&room, 1, WRITE_WAIT_MS) <= 0) return -EAGAIN;
    }
}

bool sys_file_ready(int fd)
{
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    return poll(&room, 1, 0) != 0; /* an error counts: the write tells which */
}

static int os_write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t r = sys_file_write(fd, p, n);
        if (r < 0) return (int)r;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

/* The name in a folder is durable only when the folder is. */
static int os_sync_folder_of(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? MAX((size_t)(slash - path), 1) : 1;
    if (n >= sizeof dir) return -ENAMETOOLONG;
    memcpy(dir, slash ? path : ".", n);
    dir[n] = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int r = RESULT(fsync(fd));
    close(fd);
    return r;
}

static int os_fill(int fd, const void *p, size_t n, int mode)
{
    int r = RESULT(fchmod(fd, (mode_t)mode)); /* whatever the umask says */
    if (r == 0) r = os_write_all(fd, p, n);
    if (r == 0) r = RESULT(fsync(fd));
    return r;
}

int sys_file_replace(const char *path, const void *p, size_t n, int mode)
{
    char tmp[4096];
    uint64_t id;
    sys_random(&id, sizeof id);
    int len = snprintf(tmp, sizeof tmp, "%s.%016llx.tmp", path, (unsigned long long)id);
    if (len < 0 || (size_t)len >= sizeof tmp) return -ENAMETOOLONG;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    int r = os_fill(fd, p, n, mode);
    if (close(fd) < 0 && r == 0) r = -errno;
    if (r == 0) r = sys_rename(tmp, path);
    if (r < 0) {
        unlink(tmp);
        return r;
    }
    return os_sync_folder_of(path);
}

int sys_file_append_open(const char *path, int mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, (mode_t)mode);
    return fd < 0 ? -errno : fd;
}

int sys_rename(const char *from, const char *to) { return RESULT(rename(from, to)); }

bool sys_file_is(int fd, const char *path)
{
    struct stat ours, theirs;
    return fstat(fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

int sys_unlink(const char *path) { return RESULT(unlink(path)); }

int64_t sys_file_size(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return -errno;
    return S_ISREG(st.st_mode) ? (int64_t)st.st_size : -ESPIPE;
}

/* A FIFO would wait for its writer, and a device is nobody's static content: only regular files. */
int sys_file_open(const char *path, uint64_t *mtime_ns)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat st;
    int r = RESULT(fstat(fd, &st));
    if (r == 0 && !S_ISREG(st.st_mode)) r = -EINVAL;
    if (r < 0) {
        close(fd);
        return r;
    }
    *mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000ULL + (uint64_t)st.st_mtim.tv_nsec;
    return fd;
}

/* openat2() has no wrapper in the C library. -EAGAIN: something was renamed meanwhile and the kernel can't be sure; so few times. */
static int open_beneath(int root, const char *path)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    for (int tries = 0;; tries++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0)
            return fd;
        if ((errno != EAGAIN && errno != EINTR) || tries == 8)
            return -errno;
    }
}

int sys_file_open_in(const char *root, const char *path, struct file_found *out)
{
    int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    int fd = open_beneath(dir, path);
    close(dir);
    if (fd < 0)
        return fd;
    struct stat st;
    int r = RESULT(fstat(fd, &st));
    if (r == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        r = -EINVAL;
    if (r < 0 || S_ISDIR(st.st_mode)) {
        close(fd);
        fd = -1;
    }
    if (r < 0)
        return r;
    *out = (struct file_found){.fd = fd, .folder = fd < 0, .bytes = (uint64_t)st.st_size, .inode = (uint64_t)st.st_ino,
                               .mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000ULL + (uint64_t)st.st_mtim.tv_nsec};
    return 0;
}

ssize_t sys_file_pread(int fd, void *p, size_t n, uint64_t offset)
{
    ssize_t r;
    do r = pread(fd, p, n, (off_t)offset);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}
