/* listen.c - listening sockets: opening them, saying who holds a taken port, and the table of them.
 *
 * A listener on the host is opened here, at once. One inside a replica's network namespace is opened by that replica's
 * init, and the answer comes later. sup keeps a copy of every descriptor that it gives to the engine: when the engine
 * dies the sockets stay open, connections wait in the backlog, and the next engine gets the same sockets.
 *
 * Several sockets on one address need SO_REUSEPORT, which would also let a second Weir of the same user in unseen. So a
 * plain socket is bound first, as a question; it is closed before the real ones are opened.
 */
#include "sup_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

union sockaddr_any {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

/* ---- who holds a port ------------------------------------------------------------------------------------------------ */

/* The inode of the listening socket in one of /proc/net/tcp{,6} that a's port and address collide with, or 0. A line is
 * "  0: 0100007F:1F90 00000000:0000 0A ... inode ..."; the address is in words of the machine's byte order. */
static unsigned long holder_inode(const char *path, const struct addr *a)
{
    static const char any4[] = "00000000", any6[] = "00000000000000000000000000000000";
    char want4[9] = "";
    if (a->family == ADDR_IP4) {
        uint32_t ip;
        memcpy(&ip, a->ip, sizeof ip);
        snprintf(want4, sizeof want4, "%08X", ip);
    }
    FILE *f = fopen(path, "re");
    char line[512];
    unsigned long found = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        char ip[33];
        unsigned port, state;
        unsigned long inode;
        if (sscanf(line, " %*d: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*s %*s %lu", ip, &port, &state, &inode) != 4)
            continue;
        if (port != a->port || state != 0x0A)
            continue;
        bool wild = strcmp(ip, any4) == 0 || strcmp(ip, any6) == 0;
        bool ours_wild = a->family == ADDR_IP4 ? strcmp(want4, any4) == 0 : true; /* IPv6: the port decides, the bind has failed */
        if (wild || ours_wild || strcmp(ip, want4) == 0)
            found = inode;
    }
    if (f)
        fclose(f);
    return found;
}

/* True when process pid has the socket open. */
static bool has_socket(const char *pid, unsigned long inode)
{
    char path[300], want[64], target[64];
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        snprintf(path, sizeof path, "/proc/%s/fd/%.20s", pid, e->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n > 0) {
            target[n] = 0;
            found = strcmp(target, want) == 0;
        }
    }
    if (d)
        closedir(d);
    return found;
}

/* "nginx (pid 123)" of the process that has the socket open; the lowest PID, which is the parent of a family. */
static bool holder_name(unsigned long inode, char *out, size_t out_n)
{
    DIR *d = opendir("/proc");
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || !has_socket(e->d_name, inode))
            continue;
        char path[300], comm[32] = "a process";
        snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(comm, sizeof comm, f))
            comm[strcspn(comm, "\n")] = 0;
        if (f)
            fclose(f);
        snprintf(out, out_n, "%s (pid %.10s)", comm, e->d_name);
        found = true;
    }
    if (d)
        closedir(d);
    return found;
}

static void in_use_text(const struct addr *a, const char *ip, char text[SUP_TEXT_MAX])
{
    char holder[128];
    unsigned long inode = holder_inode("/proc/net/tcp", a);
    if (!inode)
        inode = holder_inode("/proc/net/tcp6", a);
    if (inode && holder_name(inode, holder, sizeof holder))
        snprintf(text, SUP_TEXT_MAX, "port %u on %s is held by %s; stop it or choose another port", a->port, ip, holder);
    else
        snprintf(text, SUP_TEXT_MAX, "port %u on %s is held by a process that cannot be looked into%s; stop it or choose another port", a->port, ip,
                 geteuid() == 0 ? "" : " without root");
}

void listen_text(const struct addr *a, int errno_value, char text[SUP_TEXT_MAX])
{
    char ip[ADDR_TEXT_MAX];
    addr_format_ip(a, ip);
    if (a->family == ADDR_UNIX) {
        snprintf(text, SUP_TEXT_MAX, "cannot listen on %s: %s%s", a->path, strerror(errno_value),
                 errno_value == EADDRINUSE ? "; another process listens there, or a file of that name is in the way" : "");
        return;
    }
    switch (errno_value) {
    case EADDRINUSE: in_use_text(a, ip, text); return;
    case EACCES:
        snprintf(text, SUP_TEXT_MAX, "port %u on %s is not permitted to this user; choose a port of 1024 or above, or run as root", a->port, ip);
        return;
    case EADDRNOTAVAIL:
        snprintf(text, SUP_TEXT_MAX, "address %s is not one of this machine's; choose another", ip);
        return;
    default: snprintf(text, SUP_TEXT_MAX, "cannot listen on port %u on %s: %s", a->port, ip, strerror(errno_value));
    }
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static socklen_t to_sockaddr(const struct addr *a, union sockaddr_any *sa)
{
    memset(sa, 0, sizeof *sa);
    if (a->family == ADDR_IP4) {
        sa->in.sin_family = AF_INET;
        sa->in.sin_port = htons(a->port);
        memcpy(&sa->in.sin_addr, a->ip, 4);
        return sizeof sa->in;
    }
    if (a->family == ADDR_IP6) {
        sa->in6.sin6_family = AF_INET6;
        sa->in6.sin6_port = htons(a->port);
        memcpy(&sa->in6.sin6_addr, a->ip, 16);
        return sizeof sa->in6;
    }
    sa->un.sun_family = AF_UNIX;
    memcpy(sa->un.sun_path, a->path, sizeof sa->un.sun_path);
    return sizeof sa->un;
}

/* A socket file that nobody listens on any more is in the way of the next one: removes it. */
static void unix_remove_stale(const union sockaddr_any *sa, socklen_t n)
{
    struct stat st;
    if (lstat(sa->un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, &sa->sa, n) < 0 && errno == ECONNREFUSED)
        unlink(sa->un.sun_path);
    if (fd >= 0)
        close(fd);
}

int listen_one(const struct addr *a, bool reuseport)
{
    union sockaddr_any sa;
    socklen_t n = to_sockaddr(a, &sa);
    int fd = socket(sa.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* past connections in TIME_WAIT are not in the way */
    if (reuseport && a->family != ADDR_UNIX)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (a->family == ADDR_IP6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one); /* IPv4 has its own listener */
    if (a->family == ADDR_UNIX)
        unix_remove_stale(&sa, n);
    mode_t mask = umask(0177); /* a socket file is its owner's */
    int r = bind(fd, &sa.sa, n) < 0 || listen(fd, SUP_LISTEN_BACKLOG) < 0 ? -errno : fd;
    umask(mask);
    if (r < 0)
        close(fd);
    return r;
}

enum err listen_open(const struct addr *a, int n, int *fds, char text[SUP_TEXT_MAX])
{
    MUST(n >= 1 && n <= SUP_FDS_MAX);
    int first = listen_one(a, false), made = 0, e = first < 0 ? -first : 0;
    bool share = a->family == ADDR_UNIX || n == 1;
    if (e == 0 && share) {
        fds[made++] = first;
        while (made < n && (fds[made] = fcntl(first, F_DUPFD_CLOEXEC, 3)) >= 0)
            made++;
    } else if (e == 0) {
        close(first);
        while (made < n && (fds[made] = listen_one(a, true)) >= 0)
            made++;
        e = made < n ? -fds[made] : 0;
    }
    if (e == 0 && made == n)
        return OK;
    e = e ? e : EMFILE;
    for (int i = 0; i < made; i++)
        close(fds[i]);
    listen_text(a, e, text);
    return err_from_errno(e);
}

int listen_dgram(const struct addr *a)
{
    union sockaddr_any sa;
    if (a->family != ADDR_IP4 && a->family != ADDR_IP6)
        return -EAFNOSUPPORT;
    socklen_t n = to_sockaddr(a, &sa);
    int fd = socket(sa.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0)
        return -errno;
    if (a->family == ADDR_IP6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, &sa.sa, n) == 0)
        return fd;
    int e = errno;
    close(fd);
    return -e;
}

/* Who holds a taken port is looked up among listeners of TCP: for UDP only that it is taken is said. */
static enum err dgram_open(const struct addr *a, int *fd, char text[SUP_TEXT_MAX])
{
    char at[ADDR_TEXT_MAX];
    *fd = listen_dgram(a);
    if (*fd >= 0)
        return OK;
    addr_format(a, at);
    snprintf(text, SUP_TEXT_MAX, "cannot receive datagrams at %s: %s%s", at, strerror(-*fd), *fd == -EADDRINUSE ? "; stop who does, or choose another port" : "");
    return err_from_errno(-*fd);
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

static struct sup_listener *find(struct sup *s, uint64_t token)
{
    LIST_FOREACH (it, &s->listeners) {
        struct sup_listener *ln = CONTAINER_OF(it, struct sup_listener, link);
        if (ln->token == token)
            return ln;
    }
    return NULL;
}

static void listener_free(struct sup *s, struct sup_listener *ln)
{
    for (int i = 0; i < ln->n; i++)
        close(ln->fds[i]);
    list_del(&ln->link);
    s->listeners_n--;
    mem_free(ln);
}

static void tell(struct sup *s, uint64_t token, enum err e, const char *text, const int *fds, int n)
{
    struct buf b = {0};
    sup_put_u64(&b, token);
    sup_put_u32(&b, (uint32_t)e);
    sup_put_str(&b, text);
    sup_tell(s, SUP_LISTENING, &b, fds, n);
    buf_free(&b);
}

void listener_request(struct sup *s, uint64_t token, const struct addr *a, uint64_t ns_id, int n, enum listen_kind kind)
{
    char text[SUP_TEXT_MAX];
    if (n < 1 || n > SUP_FDS_MAX || s->listeners_n >= SUP_LISTENERS_MAX) {
        snprintf(text, sizeof text, "a listener has 1 to %d sockets, and there are at most %d listeners", SUP_FDS_MAX, SUP_LISTENERS_MAX);
        tell(s, token, ERR_LIMIT, text, NULL, 0);
        return;
    }
    if (find(s, token)) {
        tell(s, token, ERR_EXISTS, "a listener of this token exists", NULL, 0);
        return;
    }
    struct sup_listener *ln = mem_new(MEM_SUP, sizeof *ln);
    *ln = (struct sup_listener){.token = token, .addr = *a, .ns_id = ns_id};
    list_push(&s->listeners, &ln->link);
    s->listeners_n++;
    if (ns_id) {
        struct replica *r = replica_find(s, ns_id);
        if (r && replica_ask(r, engine_number(s), INIT_LISTEN, token, kind, a))
            return;
        tell(s, token, ERR_NOTFOUND, "the replica is gone", NULL, 0);
        listener_free(s, ln);
        return;
    }
    enum err e = kind == LISTEN_DGRAM ? dgram_open(a, ln->fds, text) : listen_open(a, n, ln->fds, text);
    ln->n = e == OK ? n : 0;
    tell(s, token, e, e == OK ? "" : text, ln->fds, ln->n);
    if (e != OK)
        listener_free(s, ln);
}

void listener_answer(struct sup *s, struct replica *r, uint64_t token, uint32_t engine, int errno_value, int fd)
{
    struct sup_listener *ln = find(s, token);
    /* Dropped meanwhile, or asked for by an engine that is no more (the next one asks anew). */
    if (!ln || ln->ns_id != r->id || ln->n > 0 || engine != engine_number(s)) {
        if (fd >= 0)
            close(fd);
        if (ln && ln->n == 0)
            listener_free(s, ln);
        return;
    }
    if (fd < 0) {
        char text[SUP_TEXT_MAX], ip[ADDR_TEXT_MAX];
        addr_format_ip(&ln->addr, ip);
        snprintf(text, sizeof text, "cannot listen on port %u on %s inside %s: %s", ln->addr.port, ip, r->sb.name, strerror(errno_value));
        tell(s, token, err_from_errno(errno_value), text, NULL, 0);
        listener_free(s, ln);
        return;
    }
    ln->fds[0] = fd;
    ln->n = 1;
    tell(s, token, OK, "", ln->fds, 1);
}

void listener_drop(struct sup *s, uint64_t token)
{
    struct sup_listener *ln = find(s, token);
    if (!ln)
        return;
    if (ln->addr.family == ADDR_UNIX && ln->n > 0)
        unlink(ln->addr.path);
    listener_free(s, ln);
}

void listeners_drop_ns(struct sup *s, uint64_t ns_id)
{
    LIST_FOREACH (it, &s->listeners) {
        struct sup_listener *ln = CONTAINER_OF(it, struct sup_listener, link);
        if (ln->ns_id == ns_id)
            listener_free(s, ln);
    }
}

void listeners_adopt(struct sup *s)
{
    LIST_FOREACH (it, &s->listeners) {
        struct sup_listener *ln = CONTAINER_OF(it, struct sup_listener, link);
        if (ln->n == 0) {
            listener_free(s, ln); /* the engine that asked is gone; the init's answer will find nobody */
            continue;
        }
        struct buf b = {0};
        sup_put_u64(&b, ln->token);
        sup_put_addr(&b, &ln->addr);
        sup_put_u64(&b, ln->ns_id);
        sup_tell(s, SUP_ADOPT_LISTENER, &b, ln->fds, ln->n);
        buf_free(&b);
    }
}

void listeners_free(struct sup *s)
{
    LIST_FOREACH (it, &s->listeners)
        listener_drop(s, CONTAINER_OF(it, struct sup_listener, link)->token);
}
