/* message.c - the packets between sup, the engine and the inits.
 *
 *     0        4        8        12       16
 *     | type   | seq    | bytes  | fds    | payload ...              (struct sup_head; machine byte order)
 *
 * A SOCK_SEQPACKET socket keeps the bounds of messages and carries descriptors with the very message that they belong
 * to, so there is no framing and no reassembly. Both readers check every length against what is there: the engine is
 * the process that talks to the world, and sup must stand even when the engine has been taken over.
 */
#include "sup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ABSENT UINT32_MAX /* the length of a NULL string */

struct out_msg {
    struct list link; /* sup_chan.out */
    struct sup_head head;
    char *payload;
    int fds[SUP_FDS_MAX]; /* duplicates, closed when sent */
};

/* ---- writing -------------------------------------------------------------------------------------------------------- */

void sup_put_u32(struct buf *b, uint32_t v) { buf_add(b, &v, sizeof v); }

void sup_put_u64(struct buf *b, uint64_t v) { buf_add(b, &v, sizeof v); }

void sup_put_str(struct buf *b, const char *s)
{
    if (!s) {
        sup_put_u32(b, ABSENT);
        return;
    }
    size_t n = strlen(s);
    sup_put_u32(b, (uint32_t)n);
    buf_add(b, s, n + 1);
}

void sup_put_bytes(struct buf *b, struct slice s)
{
    sup_put_u32(b, (uint32_t)s.n);
    buf_add(b, s.p, s.n);
}

void sup_put_strv(struct buf *b, const char *const *v)
{
    uint32_t n = 0;
    while (v && v[n])
        n++;
    sup_put_u32(b, n);
    for (uint32_t i = 0; i < n; i++)
        sup_put_str(b, v[i]);
}

void sup_put_addr(struct buf *b, const struct addr *a)
{
    sup_put_u32(b, (uint32_t)a->family);
    sup_put_u32(b, a->port);
    if (a->family == ADDR_UNIX)
        sup_put_str(b, a->path);
    else
        sup_put_bytes(b, slice_of((const char *)a->ip, sizeof a->ip));
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* The next n bytes, or NULL. */
static const char *take(struct sup_reader *r, size_t n)
{
    if (r->bad || n > r->n) {
        r->bad = true;
        return NULL;
    }
    const char *p = r->p;
    r->p += n;
    r->n -= n;
    return p;
}

uint32_t sup_get_u32(struct sup_reader *r)
{
    uint32_t v = 0;
    const char *p = take(r, sizeof v);
    if (p)
        memcpy(&v, p, sizeof v);
    return v;
}

uint64_t sup_get_u64(struct sup_reader *r)
{
    uint64_t v = 0;
    const char *p = take(r, sizeof v);
    if (p)
        memcpy(&v, p, sizeof v);
    return v;
}

const char *sup_get_str(struct sup_reader *r)
{
    uint32_t n = sup_get_u32(r);
    if (r->bad || n == ABSENT)
        return NULL;
    const char *p = take(r, (size_t)n + 1);
    if (!p)
        return NULL;
    if (memchr(p, 0, (size_t)n + 1) != p + n) { /* the NUL is where the length says, and nowhere before */
        r->bad = true;
        return NULL;
    }
    return p;
}

struct slice sup_get_bytes(struct sup_reader *r)
{
    uint32_t n = sup_get_u32(r);
    const char *p = take(r, n);
    return p ? slice_of(p, n) : slice_of(NULL, 0);
}

const char **sup_get_strv(struct sup_reader *r)
{
    uint32_t n = sup_get_u32(r);
    if (r->bad || n > r->n / 5) { /* a string takes at least 5 bytes: no count can make us reserve more than was sent */
        r->bad = true;
        return NULL;
    }
    const char **v = mem_new(MEM_SUP, ((size_t)n + 1) * sizeof *v);
    for (uint32_t i = 0; i < n; i++) {
        v[i] = sup_get_str(r);
        if (!v[i]) {
            r->bad = true;
            mem_free(v);
            return NULL;
        }
    }
    return v;
}

struct addr sup_get_addr(struct sup_reader *r)
{
    struct addr a = {0};
    uint32_t family = sup_get_u32(r);
    a.port = (uint16_t)sup_get_u32(r);
    if (family == ADDR_UNIX) {
        const char *path = sup_get_str(r);
        if (path && strlen(path) < sizeof a.path)
            memcpy(a.path, path, strlen(path) + 1);
        else
            r->bad = true;
    } else {
        struct slice ip = sup_get_bytes(r);
        if (ip.n == sizeof a.ip && (family == ADDR_IP4 || family == ADDR_IP6))
            memcpy(a.ip, ip.p, sizeof a.ip);
        else
            r->bad = true;
    }
    a.family = r->bad ? ADDR_NONE : (enum addr_family)family;
    return a;
}

bool sup_get_end(const struct sup_reader *r) { return !r->bad && r->n == 0; }

/* ---- packets -------------------------------------------------------------------------------------------------------- */

union control {
    struct cmsghdr align;
    char space[CMSG_SPACE(SUP_FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

static ssize_t send_iov(int fd, struct iovec *iov, size_t iov_n, const int *fds, int fds_n)
{
    union control ctl;
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = iov_n};
    MUST(fds_n >= 0 && fds_n <= SUP_FDS_MAX);
    if (fds_n > 0) {
        memset(&ctl, 0, sizeof ctl);
        mh.msg_control = &ctl;
        mh.msg_controllen = CMSG_SPACE((size_t)fds_n * sizeof(int));
        struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN((size_t)fds_n * sizeof(int));
        memcpy(CMSG_DATA(cm), fds, (size_t)fds_n * sizeof(int));
    }
    ssize_t got;
    do
        got = sendmsg(fd, &mh, MSG_NOSIGNAL);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

/* Takes descriptors and credentials out of the control data; never more than SUP_FDS_MAX descriptors. */
static void read_control(struct msghdr *mh, int *fds, int *fds_n, pid_t *pid)
{
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
        if (cm->cmsg_level != SOL_SOCKET)
            continue;
        if (cm->cmsg_type == SCM_CREDENTIALS && pid) {
            struct ucred cred;
            memcpy(&cred, CMSG_DATA(cm), sizeof cred);
            *pid = cred.pid;
        }
        if (cm->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
            if (fds && *fds_n < SUP_FDS_MAX)
                fds[(*fds_n)++] = fd;
            else
                close(fd);
        }
    }
}

ssize_t packet_send(int fd, const void *p, size_t n, const int *fds, int fds_n)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    return send_iov(fd, &iov, 1, fds, fds_n);
}

ssize_t packet_recv(int fd, void *p, size_t n, int *fds, int *fds_n, pid_t *creds_pid)
{
    union control ctl;
    struct iovec iov = {p, n};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl};
    ssize_t got;
    if (fds_n)
        *fds_n = 0;
    if (creds_pid)
        *creds_pid = 0;
    /* A peer that ended without reading all makes one ECONNRESET, in front of what it had sent itself. */
    bool reset = false, again;
    do {
        got = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
        again = got < 0 && (errno == EINTR || (errno == ECONNRESET && !reset));
        reset = reset || (got < 0 && errno == ECONNRESET);
    } while (again);
    if (got < 0)
        return -errno;
    read_control(&mh, fds, fds_n, creds_pid);
    return mh.msg_flags & MSG_TRUNC ? -EMSGSIZE : got;
}

/* ---- the channel ---------------------------------------------------------------------------------------------------- */

void sup_chan_init(struct sup_chan *c, int fd)
{
    *c = (struct sup_chan){.fd = fd};
    list_init(&c->out);
    c->in = mem_new(MEM_SUP, SUP_MESSAGE_BYTES_MAX);
    /* Room for a few of the largest messages; the kernel may give less, then more of them wait in the queue. */
    int want = 4 * SUP_MESSAGE_BYTES_MAX;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &want, sizeof want);
}

static void out_msg_free(struct sup_chan *c, struct out_msg *m)
{
    for (uint32_t i = 0; i < m->head.fds; i++)
        close(m->fds[i]);
    c->out_bytes -= m->head.bytes + sizeof *m;
    list_del(&m->link);
    mem_free(m->payload);
    mem_free(m);
}

void sup_chan_fini(struct sup_chan *c)
{
    LIST_FOREACH (it, &c->out)
        out_msg_free(c, CONTAINER_OF(it, struct out_msg, link));
    mem_free(c->in);
    c->in = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

/* The result of one attempt in our words. */
static enum err send_result(ssize_t got)
{
    if (got >= 0)
        return OK;
    if (got == -EAGAIN || got == -ENOBUFS || got == -ENOMEM || got == -ETOOMANYREFS)
        return ERR_AGAIN;
    return got == -EMSGSIZE ? ERR_LIMIT : ERR_CLOSED;
}

static enum err send_now(struct sup_chan *c, const struct sup_head *h, const char *payload, const int *fds)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)h, sizeof *h}, {(void *)(uintptr_t)payload, h->bytes}};
    return send_result(send_iov(c->fd, iov, h->bytes ? 2 : 1, fds, (int)h->fds));
}

static enum err enqueue(struct sup_chan *c, const struct sup_head *h, const char *payload, const int *fds)
{
    if (c->out_bytes + h->bytes > SUP_QUEUE_BYTES_MAX)
        return ERR_LIMIT;
    struct out_msg *m = mem_new(MEM_SUP, sizeof *m);
    m->head = *h;
    m->payload = mem_new(MEM_SUP, h->bytes + 1u);
    if (h->bytes)
        memcpy(m->payload, payload, h->bytes);
    for (uint32_t i = 0; i < h->fds; i++) {
        m->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (m->fds[i] < 0) { /* out of descriptors: refuse the whole message */
            m->head.fds = i;
            list_init(&m->link);
            c->out_bytes += m->head.bytes + sizeof *m;
            out_msg_free(c, m);
            return ERR_LIMIT;
        }
    }
    list_push(&c->out, &m->link);
    c->out_bytes += h->bytes + sizeof *m;
    c->queued++;
    return OK;
}

enum err sup_chan_send(struct sup_chan *c, uint32_t type, const struct buf *payload, const int *fds, int n)
{
    size_t bytes = payload ? payload->n : 0;
    if (bytes > SUP_MESSAGE_BYTES_MAX - sizeof(struct sup_head))
        return ERR_LIMIT;
    if (c->fd < 0)
        return ERR_CLOSED;
    struct sup_head h = {type, c->seq_out + 1, (uint32_t)bytes, (uint32_t)n};
    enum err e = list_empty(&c->out) ? send_now(c, &h, payload ? payload->p : NULL, fds) : ERR_AGAIN;
    if (e == ERR_AGAIN)
        e = enqueue(c, &h, payload ? payload->p : NULL, fds);
    if (e == OK)
        c->seq_out++;
    return e;
}

enum err sup_chan_flush(struct sup_chan *c)
{
    while (!list_empty(&c->out)) {
        struct out_msg *m = CONTAINER_OF(c->out.next, struct out_msg, link);
        enum err e = send_now(c, &m->head, m->payload, m->fds);
        if (e != OK)
            return e == ERR_AGAIN ? ERR_AGAIN : ERR_CLOSED;
        out_msg_free(c, m);
    }
    return OK;
}

enum err sup_chan_recv(struct sup_chan *c, struct sup_in *in)
{
    struct sup_head h;
    in->fds_n = 0;
    if (c->fd < 0)
        return ERR_CLOSED;
    ssize_t got = packet_recv(c->fd, c->in, SUP_MESSAGE_BYTES_MAX, in->fds, &in->fds_n, NULL);
    if (got == -EAGAIN)
        return ERR_AGAIN;
    if (got == 0 || (got < 0 && got != -EMSGSIZE))
        return ERR_CLOSED;
    if (got < (ssize_t)sizeof h) {
        sup_in_done(in);
        return ERR_SYNTAX;
    }
    memcpy(&h, c->in, sizeof h);
    if (h.bytes != (size_t)got - sizeof h || h.fds != (uint32_t)in->fds_n || h.seq != c->seq_in + 1) {
        sup_in_done(in);
        return ERR_SYNTAX;
    }
    c->seq_in = h.seq;
    in->type = h.type;
    in->r = (struct sup_reader){c->in + sizeof h, h.bytes, false};
    return OK;
}

void sup_in_done(struct sup_in *in)
{
    for (int i = 0; i < in->fds_n; i++)
        if (in->fds[i] >= 0)
            close(in->fds[i]);
    in->fds_n = 0;
}
