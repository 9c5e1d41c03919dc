/* floor.c - the least that a log can do: reads the socket, checks the CRC of each batch, writes it to a file, acknowledges. NOT a broker: a floor to
 * measure against. Speaks what loggen -P floor sends (Produce 7, Fetch 11), and nothing else of Kafka.
 *
 *     floor -l port -d dir [-y]     -y: fdatasync() of what a round has written, before it is acknowledged (acks -1)
 *     floor -d dir -f seconds [-b bytes] [-r rate]   no server: the latency of write + fdatasync alone, as one JSON line; one after the other, or so many a
 *                                                    second: a device that rests in between takes longer
 *
 * One thread. A round: all sockets that have something are read, batches are checked, each file gets one pwritev() for 128 KiB, [fdatasync,] answers are sent. No offsets are
 * put in, no index is kept; fetches are answered by sendfile(), which is possible because the batches of loggen are all of one size.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

uint32_t crc32c(uint32_t crc, const void *p, size_t n); /* src/wire/crc32c.c */

#define PARTS_MAX 4096
#define IN_BYTES (1u << 17) /* more is no faster: it has to stay in the core's cache until it is written */
#define WRITE_BYTES (1u << 17) /* of a file: so much is written before the round ends, for the same reason */
#define FETCH_BYTES (1u << 20) /* of one partition */

struct part {
    int fd;
    uint64_t bytes;
    uint32_t batch_bytes, batch_records;
    struct iovec iov[IOV_MAX];
    int iov_n;
    size_t iov_bytes;
    bool dirty;
};
struct conn {
    int fd;
    char *in;
    size_t n, cap, used; /* used: of in, by this round */
    char *out;
    size_t out_n, out_cap, out_at;
    struct { struct part *p; uint64_t pos, n; size_t before; } files[256]; /* sent in front of out[before] */
    int files_n, files_at;
    bool ready, armed;
};

static struct part *parts[PARTS_MAX];
static struct conn *round_conns[65536];
static int round_n, ep;
static const char *dir = ".";
static bool sync_it;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}
static uint64_t get(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}
static void put(struct conn *c, uint64_t v, int n)
{
    if (c->out_n + 8 > c->out_cap && !(c->out = realloc(c->out, c->out_cap = c->out_cap * 2 + 4096)))
        die("memory");
    for (int i = 0; i < n; i++)
        c->out[c->out_n++] = (char)(v >> (8 * (n - 1 - i)));
}

static struct part *part_of(uint32_t i)
{
    char path[4096];
    if (i >= PARTS_MAX)
        die("too many partitions");
    if (!parts[i]) {
        parts[i] = calloc(1, sizeof *parts[i]);
        snprintf(path, sizeof path, "%s/%u.log", dir, i);
        if (!parts[i] || (parts[i]->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
            die(path);
    }
    return parts[i];
}

static void part_write(struct part *p)
{
    size_t n = p->iov_bytes;
    if (n && pwritev(p->fd, p->iov, p->iov_n, (off_t)p->bytes) != (ssize_t)n)
        die("pwritev");
    p->bytes += n;
    p->iov_n = 0;
    p->iov_bytes = 0;
    p->dirty = p->dirty || n;
}

static void produce(struct conn *c, const char *p)
{
    size_t size = c->out_n;
    put(c, 0, 4);
    put(c, get(p, 4), 4);
    p += 4 + 2 + get(p + 4, 2) + 2 + 2 + 4 + 4; /* number, client id, no transactional id, acks, timeout, one topic */
    uint32_t name = (uint32_t)get(p, 2);
    put(c, 1, 4);
    put(c, name, 2);
    for (uint32_t i = 0; i < name; i++)
        put(c, (uint8_t)p[2 + i], 1);
    p += 2 + name;
    uint32_t n = (uint32_t)get(p, 4);
    put(c, n, 4);
    for (p += 4; n--;) {
        struct part *pt = part_of((uint32_t)get(p, 4));
        uint32_t bytes = (uint32_t)get(p + 4, 4);
        bool good = crc32c(0, p + 8 + 21, bytes - 21) == get(p + 8 + 17, 4);
        if (good) {
            pt->iov[pt->iov_n++] = (struct iovec){(void *)(uintptr_t)(p + 8), bytes};
            pt->iov_bytes += bytes;
        }
        if (pt->iov_n == IOV_MAX || pt->iov_bytes >= WRITE_BYTES)
            part_write(pt);
        pt->batch_bytes = bytes;
        pt->batch_records = (uint32_t)get(p + 8 + 57, 4);
        put(c, get(p, 4), 4);
        put(c, good ? 0 : 2, 2);
        put(c, 0, 8);
        put(c, UINT64_MAX, 8);
        put(c, 0, 8);
        p += 8 + bytes;
    }
    put(c, 0, 4);
    size_t end = c->out_n;
    c->out_n = size;
    put(c, end - size - 4, 4);
    c->out_n = end;
}

/* Offsets are places here: loggen takes what stands in the batches, and these were never numbered, so it is told of one batch at a time by a
 * place that goes round. */
static void fetch(struct conn *c, const char *p)
{
    static uint64_t place[PARTS_MAX];
    size_t size = c->out_n;
    uint64_t files = 0;
    put(c, 0, 4);
    put(c, get(p, 4), 4);
    p += 4 + 2 + get(p + 4, 2) + 4 + 4 + 4 + 4 + 1 + 4 + 4 + 4;
    put(c, 0, 4);
    put(c, 0, 2);
    put(c, 0, 4);
    put(c, 1, 4);
    uint32_t name = (uint32_t)get(p, 2);
    put(c, name, 2);
    for (uint32_t i = 0; i < name; i++)
        put(c, (uint8_t)p[2 + i], 1);
    p += 2 + name;
    uint32_t n = (uint32_t)get(p, 4);
    put(c, n, 4);
    for (p += 4; n--; p += 4 + 4 + 8 + 8 + 4) {
        uint32_t i = (uint32_t)get(p, 4);
        struct part *pt = part_of(i);
        uint64_t want = pt->batch_bytes ? FETCH_BYTES / pt->batch_bytes * pt->batch_bytes : 0;
        if (pt->batch_bytes && !want)
            want = pt->batch_bytes;
        if (place[i] >= pt->bytes)
            place[i] = 0;
        if (want > pt->bytes - place[i])
            want = pt->bytes - place[i];
        if (c->files_n == 256)
            want = 0;
        put(c, i, 4);
        put(c, 0, 2);
        put(c, INT64_MAX, 8);
        put(c, INT64_MAX, 8);
        put(c, 0, 8);
        put(c, 0xffffffff, 4);
        put(c, 0xffffffff, 4);
        put(c, want, 4);
        if (want) {
            c->files[c->files_n].p = pt;
            c->files[c->files_n].pos = place[i];
            c->files[c->files_n].n = want;
            c->files[c->files_n++].before = c->out_n;
        }
        place[i] += want;
        files += want;
    }
    size_t end = c->out_n;
    c->out_n = size;
    put(c, end - size - 4 + files, 4);
    c->out_n = end;
}

static void arm(struct conn *c, bool out)
{
    if (c->armed == out)
        return;
    c->armed = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void flush(struct conn *c)
{
    for (;;) {
        size_t upto = c->files_at < c->files_n ? c->files[c->files_at].before : c->out_n;
        ssize_t n = 0;
        if (c->out_at < upto) {
            n = send(c->fd, c->out + c->out_at, upto - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT | (c->files_at < c->files_n ? MSG_MORE : 0));
            if (n > 0)
                c->out_at += (size_t)n;
        } else if (c->files_at < c->files_n) {
            off_t at = (off_t)c->files[c->files_at].pos;
            n = sendfile(c->fd, c->files[c->files_at].p->fd, &at, c->files[c->files_at].n);
            if (n > 0) {
                c->files[c->files_at].pos += (uint64_t)n;
                c->files[c->files_at].n -= (uint64_t)n;
                c->files_at += c->files[c->files_at].n == 0;
            }
        } else {
            break;
        }
        if (n < 0) {
            arm(c, true);
            return;
        }
    }
    c->out_n = c->out_at = 0;
    c->files_n = c->files_at = 0;
    arm(c, false);
}

static void readable(struct conn *c)
{
    if (c->files_at < c->files_n || c->out_at < c->out_n)
        return; /* it has to take its answers first */
    size_t want = IN_BYTES;
    if (c->n + want > c->cap && !(c->in = realloc(c->in, c->cap = c->n + want)))
        die("memory");
    ssize_t n = recv(c->fd, c->in + c->n, c->cap - c->n, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close(c->fd);
        free(c->in);
        free(c->out);
        free(c);
        return;
    }
    c->n += (size_t)n;
    size_t at = 0;
    for (; c->n - at >= 4 && c->n - at >= get(c->in + at, 4) + 4; at += get(c->in + at, 4) + 4) {
        const char *p = c->in + at + 4;
        if (get(p, 2) == 0)
            produce(c, p + 4);
        else
            fetch(c, p + 4);
    }
    c->used = at;
    if (at)
        round_conns[round_n++] = c;
}

static void round_end(void)
{
    for (int i = 0; i < PARTS_MAX; i++)
        if (parts[i] && parts[i]->iov_n)
            part_write(parts[i]);
    for (int i = 0; i < PARTS_MAX && sync_it; i++)
        if (parts[i] && parts[i]->dirty) {
            if (fdatasync(parts[i]->fd))
                die("fdatasync");
            parts[i]->dirty = false;
        }
    for (int i = 0; i < round_n; i++) {
        struct conn *c = round_conns[i];
        memmove(c->in, c->in + c->used, c->n - c->used);
        c->n -= c->used;
        flush(c);
    }
    round_n = 0;
}

static void serve(int port)
{
    int one = 1, ls = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (ls < 0 || bind(ls, (void *)&a, sizeof a) || listen(ls, 1024))
        die("listen");
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e);
    for (;;) {
        struct epoll_event ev[256];
        int n = epoll_wait(ep, ev, 256, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            if (c) {
                if (ev[i].events & EPOLLOUT)
                    flush(c);
                if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    readable(c);
                continue;
            }
            int fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0)
                continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            c = calloc(1, sizeof *c);
            if (!c)
                die("memory");
            c->fd = fd;
            e = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
        }
        round_end();
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Busy, as the generator is: the processor does not rest. */
static void wait_until(const struct timespec *from, double seconds)
{
    struct timespec t;
    do
        clock_gettime(CLOCK_MONOTONIC, &t);
    while ((double)(t.tv_sec - from->tv_sec) + (double)(t.tv_nsec - from->tv_nsec) / 1e9 < seconds);
}

static void disk(double seconds, size_t bytes, double rate)
{
    static double us[1 << 20];
    char path[4096], *p = calloc(1, bytes);
    struct timespec t0, t1, t2;
    int n = 0;
    snprintf(path, sizeof path, "%s/sync.probe", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || !p)
        die(path);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    do {
        if (rate > 0)
            wait_until(&t0, n / rate);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        if (pwrite(fd, p, bytes, (off_t)bytes * n) != (ssize_t)bytes || fdatasync(fd))
            die("fdatasync");
        clock_gettime(CLOCK_MONOTONIC, &t2);
        us[n++] = (double)(t2.tv_sec - t1.tv_sec) * 1e6 + (double)(t2.tv_nsec - t1.tv_nsec) / 1e3;
    } while (n < 1 << 20 && (double)(t2.tv_sec - t0.tv_sec) < seconds);
    unlink(path);
    qsort(us, (size_t)n, sizeof us[0], by_size);
    printf("{\"syncs\":%d,\"bytes\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", n, bytes, us[n / 2], us[(size_t)n * 99 / 100], us[n - 1]);
}

int main(int argc, char **argv)
{
    int port = 9092;
    double seconds = 0, rate = 0;
    size_t bytes = 65536;
    for (int o; (o = getopt(argc, argv, "l:d:yf:b:r:")) != -1;) {
        switch (o) {
        case 'l': port = atoi(optarg); break;
        case 'd': dir = optarg; break;
        case 'y': sync_it = true; break;
        case 'f': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'b': bytes = strtoul(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (seconds > 0)
        disk(seconds, bytes, rate);
    else
        serve(port);
    return 0;
}
