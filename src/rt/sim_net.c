/* sim_net.c - the simulated network: pollers, wake descriptors, listeners, and connections as pairs of byte pipes.
 *
 * What is sent becomes happenings in a heap ordered by time; each arrives after a latency of its own but never before
 * what was sent earlier in the same direction. The semantics are those that rt relies on in Linux:
 *
 *     edges      a poller tells of an object once after each change; what it tells is the state at the time of asking
 *     short read of a socket means that it is empty; a split read therefore hides the rest until a later edge
 *     short write owes an edge, given when the reader has made room
 *     reset      bytes that arrived before it can still be read; then the error is told once, by read, write or
 *                sys_connect_result(), and afterwards reads give the end and writes EPIPE
 *                (behind a FIN, reads give the end at once)
 *     close with unread bytes, or after sys_linger_reset(), sends a reset instead of FIN (RFC 2525 section 2.17)
 *
 * Sent and unread bytes together are limited by conf.socket_bytes; there are no separate buffers of sender and receiver.
 * Datagrams take their own way each: they may be lost, doubled, overtaken; a partition loses them.
 * Not simulated: loss of segments (TCP hides it; latency and partitions stand for it), addresses of interfaces, Unix permissions.
 */
#include "sim_int.h"

#include <errno.h>

#define SIM_SEGMENT_BYTES 16384
#define SIM_PIPE_BYTES 40000
#define SIM_LETTERS_MAX 256                      /* datagrams that one socket holds */
#define SIM_SYN_RETRY_NS 1000000000ULL           /* a full backlog drops the SYN, which is sent again */
#define SIM_CONNECT_TIMEOUT_NS 127000000000ULL   /* six retries of Linux's SYN */

/* ---- happenings ---- */

static bool sim_before(const struct sim_happening *a, const struct sim_happening *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void sim_swap(uint32_t i, uint32_t j)
{
    struct sim_happening h = sim.heap[i];
    sim.heap[i] = sim.heap[j];
    sim.heap[j] = h;
}

static void sim_push(struct sim_happening h)
{
    h.seq = ++sim.seq;
    ARRAY_GROW(MEM_SIM, sim.heap, sim.heap_n, sim.heap_cap);
    uint32_t i = sim.heap_n++;
    sim.heap[i] = h;
    for (; i && sim_before(&sim.heap[i], &sim.heap[(i - 1) / 2]); i = (i - 1) / 2) sim_swap(i, (i - 1) / 2);
}

static struct sim_happening sim_pop(void)
{
    struct sim_happening h = sim.heap[0];
    sim.heap[0] = sim.heap[--sim.heap_n];
    for (uint32_t i = 0;;) {
        uint32_t least = i, left = 2 * i + 1, right = left + 1;
        if (left < sim.heap_n && sim_before(&sim.heap[left], &sim.heap[least])) least = left;
        if (right < sim.heap_n && sim_before(&sim.heap[right], &sim.heap[least])) least = right;
        if (least == i) return h;
        sim_swap(i, least);
        i = least;
    }
}

static uint64_t sim_latency(void)
{
    return 1000 * sim_between(sim.conf.latency_us_min, sim.conf.latency_us_max);
}

/* To an end of a connection, behind all that was sent to it before. */
static void sim_send(struct sim_obj *to, struct sim_happening h)
{
    uint64_t soonest = sim.now_ns + sim_latency();
    h.to = to;
    h.at_ns = to->last_ns = MAX(to->last_ns, soonest);
    sim_push(h);
}

/* Outside of the order of the connection. */
static void sim_later(struct sim_obj *to, enum sim_what what, uint64_t in_ns)
{
    sim_push((struct sim_happening){.at_ns = sim.now_ns + in_ns, .what = what, .to = to});
}

uint64_t sim_net_next(void)
{
    return sim.heap_n ? sim.heap[0].at_ns : UINT64_MAX;
}

/* ---- pollers ---- */

static size_t rx_n(const struct sim_obj *o)
{
    return o->rx.n - o->rx_from;
}

static size_t tx_room(const struct sim_obj *o)
{
    return o->other->unread < sim.conf.socket_bytes ? sim.conf.socket_bytes - o->other->unread : 0;
}

static uint32_t socket_ready(const struct sim_obj *o)
{
    if (o->state == SIM_NEW || o->state == SIM_CONNECTING) return 0;
    uint32_t what = o->error ? SYS_ERR : 0U;
    bool dead = o->state == SIM_DEAD;
    if (dead || (!o->held && (rx_n(o) || o->fin_seen))) what |= SYS_IN;
    if (dead || o->fin_seen) what |= SYS_HUP;
    if (dead || (!o->nospace && tx_room(o))) what |= SYS_OUT;
    return what;
}

static uint32_t obj_ready(const struct sim_obj *o)
{
    switch (o->kind) {
    case SIM_SOCKET: return socket_ready(o);
    case SIM_LISTENER: return o->waiting_n ? SYS_IN : 0;
    case SIM_WAKE: return o->wakes ? SYS_IN : 0;
    case SIM_DGRAM: return o->letters_n || o->error ? SYS_IN : 0;
    case SIM_POLLER:
    case SIM_FILE:
    case SIM_PIPE: break;
    }
    return 0;
}

/* o changed: its poller, if it is in one, will tell. */
static void obj_edge(struct sim_obj *o)
{
    struct sim_obj *p = o->poller;
    if (!p || o->hot) return;
    o->hot = true;
    ARRAY_GROW(MEM_SIM, p->hots, p->hots_n, p->hots_cap);
    p->hots[p->hots_n++] = o;
}

static void obj_unpoll(struct sim_obj *o)
{
    struct sim_obj *p = o->poller;
    o->poller = NULL;
    o->hot = false;
    for (uint32_t i = 0; p && i < p->hots_n; i++)
        if (p->hots[i] == o) p->hots[i--] = p->hots[--p->hots_n];
}

int sys_poller_new(void) { return sim_obj_new(SIM_POLLER)->fd; }

static struct sim_obj *pollable(int fd)
{
    MUST(fd >= SIM_FD_BASE && (uint32_t)(fd - SIM_FD_BASE) < sim.objs_n);
    struct sim_obj *o = sim.objs[fd - SIM_FD_BASE];
    MUST(!o->closed && o->kind != SIM_POLLER && o->kind != SIM_PIPE);
    return o;
}

static int poller_put(int poller, int fd, void *ptr, bool level)
{
    struct sim_obj *p = sim_obj_get(poller, SIM_POLLER), *o = pollable(fd);
    if (o->kind == SIM_FILE) return -EPERM;
    if (o->poller) return -EEXIST;
    o->poller = p;
    o->ptr = ptr;
    o->level = level;
    if (obj_ready(o)) obj_edge(o);
    return 0;
}

int sys_poller_add(int poller, int fd, void *ptr) { return poller_put(poller, fd, ptr, false); }
int sys_poller_add_level(int poller, int fd, void *ptr, bool exclusive) { return poller_put(poller, fd, ptr, true); }

int sys_poller_del(int poller, int fd)
{
    struct sim_obj *o = pollable(fd);
    if (!o->poller) return -ENOENT;
    obj_unpoll(o);
    return 0;
}

bool sim_poller_hot(int poller)
{
    return sim_obj_get(poller, SIM_POLLER)->hots_n > 0;
}

/* Tells of what is hot, in an order that chance chooses. Never waits: sim_run() moves time. */
int sys_poller_wait(int poller, struct sys_event *ev, int max, int timeout_ms)
{
    sim_net_due();
    struct sim_obj *p = sim_obj_get(poller, SIM_POLLER);
    uint32_t kept = 0, todo = p->hots_n;
    int n = 0;
    while (todo) {
        uint32_t i = kept + (uint32_t)(sim_random() % todo);
        struct sim_obj *o = p->hots[i];
        p->hots[i] = p->hots[kept];
        p->hots[kept] = o;
        todo--;
        uint32_t what = o->level ? obj_ready(o) & SYS_IN : obj_ready(o);
        if (n == max) {
            kept++;
            continue;
        }
        if (what) ev[n++] = (struct sys_event){o->ptr, what};
        if (what && o->level) {
            kept++;
            continue;
        }
        o->hot = false;
        p->hots[kept] = p->hots[kept + todo]; /* closes the gap with the last one */
        p->hots_n--;
    }
    return n;
}

int sys_wake_new(void) { return sim_obj_new(SIM_WAKE)->fd; }

void sys_wake(int fd)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_WAKE);
    o->wakes++;
    obj_edge(o);
}

void sys_wake_clear(int fd) { sim_obj_get(fd, SIM_WAKE)->wakes = 0; }

/* ---- addresses ---- */

static bool addr_covers(const struct addr *a, const struct addr *b)
{
    struct addr c = *b;
    if (a->family != ADDR_UNIX && a->port == 0) c.port = 0;
    return addr_eq(a, &c);
}

static bool addr_is_wildcard(const struct addr *a)
{
    static const uint8_t zero[16];
    return a->family != ADDR_UNIX && memcmp(a->ip, zero, a->family == ADDR_IP4 ? 4 : 16) == 0;
}

static bool listener_takes(const struct sim_obj *o, uint64_t ns, const struct addr *a)
{
    if (o->kind != SIM_LISTENER || o->closed || o->state == SIM_DEAD || o->ns != ns) return false;
    if (o->any) return true;
    if (addr_eq(&o->local, a)) return true;
    return addr_is_wildcard(&o->local) && o->local.family == a->family && o->local.port == a->port;
}

/* Exact before wildcard before any; among equals (SO_REUSEPORT) chance chooses. */
static struct sim_obj *listener_find(uint64_t ns, const struct addr *a)
{
    struct sim_obj *best = NULL;
    int best_rank = 0;
    uint32_t equals = 0;
    for (uint32_t i = 0; i < sim.objs_n; i++) {
        struct sim_obj *o = sim.objs[i];
        if (!listener_takes(o, ns, a)) continue;
        int rank = o->any ? 1 : addr_eq(&o->local, a) ? 3 : 2;
        equals = rank > best_rank ? 1 : equals + (rank == best_rank);
        if (rank > best_rank || (rank == best_rank && sim_chance(1, equals))) best = o;
        best_rank = MAX(rank, best_rank);
    }
    return best;
}

static struct addr addr_ephemeral(enum addr_family family)
{
    struct addr a = {.family = family};
    if (family == ADDR_UNIX) return a;
    if (family == ADDR_IP4) a.ip[0] = 127;
    a.ip[family == ADDR_IP4 ? 3 : 15] = 1;
    a.port = sim.next_port++;
    if (sim.next_port < 32768) sim.next_port = 32768;
    return a;
}

/* ---- what arrives ---- */

static bool parted(const struct sim_obj *o)
{
    for (uint32_t i = 0; i < sim.parted_n; i++)
        if (addr_covers(&sim.parted[i], &o->server)) return true;
    return false;
}

static void socket_die(struct sim_obj *o, int error)
{
    if (o->closed || o->state == SIM_DEAD) return;
    o->state = SIM_DEAD;
    o->error = error;
    o->held = false;
    obj_edge(o);
}

static void send_rst(struct sim_obj *to)
{
    if (to && !to->closed) sim_send(to, (struct sim_happening){.what = SIM_RST, .error = ECONNRESET});
}

static void arrive_data(struct sim_happening *h)
{
    struct sim_obj *o = h->to;
    if (o->closed || o->state == SIM_DEAD) {
        o->unread -= h->n;
        if (o->closed) send_rst(o->other); /* nobody there: RFC 9293 section 3.10.7.1 */
        return;
    }
    if (o->rx_from == o->rx.n) {
        buf_clear(&o->rx);
        o->rx_from = 0;
    }
    buf_add(&o->rx, h->bytes, h->n);
    o->arrived += h->n;
    if (!o->held) obj_edge(o);
}

static void arrive_syn(struct sim_obj *client)
{
    if (client->closed || client->state != SIM_CONNECTING) return;
    struct sim_obj *ln = listener_find(client->ns, &client->peer);
    if (!ln || sim_chance(sim.conf.refuse_pct, 100)) {
        sim_send(client, (struct sim_happening){.what = SIM_RST, .error = client->peer.family == ADDR_UNIX ? ENOENT : ECONNREFUSED});
        return;
    }
    if (ln->waiting_n >= ln->backlog) {
        sim_later(client, SIM_SYN, SIM_SYN_RETRY_NS);
        return;
    }
    struct sim_obj *o = sim_obj_new(SIM_SOCKET);
    o->state = SIM_OPEN;
    o->is_server = true;
    o->ns = ln->ns;
    o->local = o->server = client->peer;
    o->peer = client->local;
    o->other = client;
    client->other = o;
    ARRAY_GROW(MEM_SIM, ln->waiting, ln->waiting_n, ln->waiting_cap);
    ln->waiting[ln->waiting_n++] = o;
    obj_edge(ln);
    sim_send(client, (struct sim_happening){.what = SIM_SYNACK});
}

static void arrive_synack(struct sim_obj *o)
{
    if (o->closed) {
        send_rst(o->other);
    } else if (o->state == SIM_CONNECTING) {
        o->state = SIM_OPEN;
        obj_edge(o);
    }
}

static struct sim_obj *dgram_find(uint64_t ns, const struct addr *a)
{
    for (uint32_t i = 0; i < sim.objs_n; i++) {
        struct sim_obj *o = sim.objs[i];
        bool there = o->kind == SIM_DGRAM && !o->closed && o->ns == ns;
        if (there && (addr_eq(&o->local, a) || (addr_is_wildcard(&o->local) && o->local.port == a->port && o->local.family == a->family))) return o;
    }
    return NULL;
}

/* Nobody there: a sender that is connected is told (ICMP), others are not. A full socket drops. */
static void arrive_letter(struct sim_happening *h)
{
    struct sim_obj *o = dgram_find(h->ns, &h->dest);
    for (uint32_t i = 0; i < sim.parted_n; i++)
        if (addr_covers(&sim.parted[i], &h->dest) || addr_covers(&sim.parted[i], &h->from)) return;
    if (!o) {
        if (h->to->peer.family != ADDR_NONE && !h->to->closed) sim_later(h->to, SIM_UNREACHED, sim_latency());
        return;
    }
    bool taken = o->peer.family == ADDR_NONE || addr_eq(&o->peer, &h->from);
    if (!taken || o->letters_n >= SIM_LETTERS_MAX) return;
    ARRAY_GROW(MEM_SIM, o->letters, o->letters_n, o->letters_cap);
    o->letters[o->letters_n++] = (struct sim_letter){h->bytes, h->n, h->from};
    h->bytes = NULL;
    obj_edge(o);
}

static void arrive(struct sim_happening *h)
{
    struct sim_obj *o = h->to;
    sim_note(2 + h->what, (uint64_t)o->fd, h->n);
    switch (h->what) {
    case SIM_DATA: arrive_data(h); break;
    case SIM_FIN:
        o->fin_seen = true;
        obj_edge(o);
        break;
    case SIM_RST: socket_die(o, h->error); break;
    case SIM_SYN: arrive_syn(o); break;
    case SIM_SYNACK: arrive_synack(o); break;
    case SIM_CONNECT_TIMEOUT:
        if (o->state == SIM_CONNECTING) socket_die(o, ETIMEDOUT);
        break;
    case SIM_ROOM:
        if (!tx_room(o)) break; /* full again meanwhile: the edge stays owed until the peer reads */
        o->nospace = false;
        if (o->tls) sim_tls_room(o);
        obj_edge(o);
        break;
    case SIM_UNHOLD:
        o->held = false;
        obj_edge(o);
        break;
    case SIM_LETTER: arrive_letter(h); break;
    case SIM_UNREACHED:
        if (o->closed) break;
        o->error = ECONNREFUSED;
        obj_edge(o);
        break;
    }
    mem_free(h->bytes);
}

static bool crosses_network(enum sim_what what)
{
    return what == SIM_DATA || what == SIM_FIN || what == SIM_RST || what == SIM_SYN || what == SIM_SYNACK;
}

void sim_net_due(void)
{
    while (sim.heap_n && sim.heap[0].at_ns <= sim.now_ns) {
        struct sim_happening h = sim_pop();
        if (sim.parted_n && crosses_network(h.what) && parted(h.to)) {
            ARRAY_GROW(MEM_SIM, sim.stalled, sim.stalled_n, sim.stalled_cap);
            sim.stalled[sim.stalled_n++] = h;
            continue;
        }
        arrive(&h);
    }
}

/* ---- sockets ---- */

static struct sim_obj *socket_new(uint64_t ns)
{
    struct sim_obj *o = sim_obj_new(SIM_SOCKET);
    o->ns = ns;
    return o;
}

int sim_socket(uint64_t ns) { return socket_new(ns)->fd; }
int sys_socket(const struct addr *a) { return a->family == ADDR_NONE ? -EAFNOSUPPORT : sim_socket(0); }
void sys_keepalive(int fd, uint32_t time_s, uint32_t interval_s, uint32_t probes) { pollable(fd); } /* a peer that is gone is the business of timeouts here */
void sys_nodelay(int fd) { pollable(fd); }

int sys_pair(int fds[2])
{
    struct sim_obj *a = socket_new(0), *b = socket_new(0);
    a->state = b->state = SIM_OPEN;
    a->local.family = a->peer.family = b->local.family = b->peer.family = ADDR_UNIX;
    a->other = b;
    b->other = a;
    b->is_server = true;
    fds[0] = a->fd;
    fds[1] = b->fd;
    return 0;
}

int sys_connect(int fd, const struct addr *a)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (a->family == ADDR_NONE) return -EAFNOSUPPORT;
    if (o->state != SIM_NEW) return -EISCONN;
    o->state = SIM_CONNECTING;
    o->local = addr_ephemeral(a->family);
    o->peer = o->server = *a;
    sim_later(o, SIM_SYN, sim_latency());
    sim_later(o, SIM_CONNECT_TIMEOUT, SIM_CONNECT_TIMEOUT_NS);
    return -EINPROGRESS;
}

static int take_error(struct sim_obj *o)
{
    int e = o->error;
    o->error = 0;
    return -e;
}

int sys_connect_result(int fd)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    return o->state == SIM_CONNECTING ? -EINPROGRESS : take_error(o);
}

static int listener_new(uint64_t ns, const struct addr *a, int backlog, bool reuseport)
{
    for (uint32_t i = 0; a && i < sim.objs_n; i++) {
        struct sim_obj *o = sim.objs[i];
        if (o->kind != SIM_LISTENER || o->any || !listener_takes(o, ns, a) || !addr_eq(&o->local, a)) continue;
        if (!reuseport || !o->reuseport) return -EADDRINUSE;
    }
    struct sim_obj *o = sim_obj_new(SIM_LISTENER);
    o->ns = ns;
    o->any = !a;
    o->reuseport = reuseport;
    o->backlog = (uint32_t)MAX(backlog, 1);
    if (a) o->local = *a;
    if (a && a->family != ADDR_UNIX && a->port == 0) o->local.port = addr_ephemeral(a->family).port;
    return o->fd;
}

int sys_listen(const struct addr *a, int backlog, bool reuseport)
{
    if (a->family == ADDR_NONE) return -EAFNOSUPPORT;
    return listener_new(0, a, backlog, reuseport);
}

int sim_listen(uint64_t ns, const struct addr *a)
{
    int fd = listener_new(ns, a, 1024, false);
    MUST(fd >= 0);
    return fd;
}

int sys_accept(int lfd, struct addr *peer)
{
    struct sim_obj *ln = sim_obj_get(lfd, SIM_LISTENER);
    if (ln->waiting_n == 0) return -EAGAIN;
    struct sim_obj *o = ln->waiting[0];
    ln->waiting_n--;
    memmove(ln->waiting, ln->waiting + 1, ln->waiting_n * sizeof ln->waiting[0]);
    if (peer) *peer = o->peer;
    return o->fd;
}

int sys_local_addr(int fd, struct addr *a)
{
    *a = pollable(fd)->local;
    return 0;
}

int sys_peer_addr(int fd, struct addr *a)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (o->state != SIM_OPEN) return -ENOTCONN;
    *a = o->peer;
    return 0;
}

/* What a socket without readable bytes answers: -errno, 0 at its end. */
static ssize_t recv_nothing(struct sim_obj *o)
{
    if (o->state == SIM_NEW) return -ENOTCONN;
    if (o->error && !o->fin_seen) return take_error(o); /* a reset behind the peer's FIN does not undo the end that was read */
    if (o->state == SIM_DEAD || (o->fin_seen && !o->held)) return 0;
    return -EAGAIN;
}

/* How many of n bytes a read gets, n > 0: sometimes the rest shows only later. */
static size_t recv_split(struct sim_obj *o, size_t n)
{
    if (n < 2 || !sim_chance(sim.conf.split_pct, 100)) return n;
    o->held = true;
    sim_later(o, SIM_UNHOLD, sim_latency());
    return sim_between(1, n - 1);
}

static void recv_take(struct sim_obj *o, size_t n)
{
    o->rx_from += n;
    o->unread -= n;
    if (o->other->nospace && !o->other->closed) sim_later(o->other, SIM_ROOM, sim_latency());
    sim_note(20, (uint64_t)o->fd, n);
}

ssize_t sys_recv(int fd, void *p, size_t n)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    size_t have = o->held ? 0 : rx_n(o);
    if (have == 0) return recv_nothing(o);
    n = recv_split(o, MIN(n, have));
    memcpy(p, o->rx.p + o->rx_from, n);
    recv_take(o, n);
    return (ssize_t)n;
}

ssize_t sys_recvv(int fd, const struct iovec *iov, int n)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    size_t have = o->held ? 0 : rx_n(o);
    if (have == 0) return recv_nothing(o);
    size_t take = recv_split(o, MIN(have, iov_bytes(iov, n)));
    for (size_t done = 0, part; done < take; iov++, done += part) {
        part = MIN(iov->iov_len, take - done);
        memcpy(iov->iov_base, o->rx.p + o->rx_from + done, part);
    }
    recv_take(o, take);
    return (ssize_t)take;
}

ssize_t sys_recv_peek(int fd)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    return !o->held && rx_n(o) ? 1 : recv_nothing(o);
}

ssize_t sys_read(int fd, void *p, size_t n) { return sys_recv(fd, p, n); }

/* Copies skip.. of iov into a segment to the other end. */
static void send_segment(struct sim_obj *o, const struct iovec *iov, size_t skip, size_t n)
{
    struct sim_happening h = {.what = SIM_DATA, .bytes = mem_new(MEM_SIM, n), .n = n};
    for (size_t done = 0; done < n; iov++) {
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        size_t take = MIN(n - done, iov->iov_len - skip);
        memcpy(h.bytes + done, (const char *)iov->iov_base + skip, take);
        done += take;
        skip = 0;
    }
    o->other->unread += n;
    sim_send(o->other, h);
    if (sim_chance(sim.conf.reset_ppm, 1000000)) {
        send_rst(o->other);
        send_rst(o);
    }
}

/* What has arrived: a little more than a sender would know already. */
int sys_acked(int fd, uint64_t *bytes)
{
    const struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (o->peer.family == ADDR_UNIX) return -EOPNOTSUPP;
    *bytes = o->other ? o->other->arrived : 0;
    return 0;
}

/* Kernels ask each other all the time; what is parted hears nothing. */
int sys_heard(int fd, uint32_t *segments, bool *owed)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (o->peer.family == ADDR_UNIX) return -EOPNOTSUPP;
    if (!parted(o)) o->heard++;
    *segments = o->heard;
    *owed = false;
    return 0;
}

ssize_t sim_writev(struct sim_obj *o, const struct iovec *iov, int n)
{
    if (o->error && o->state == SIM_DEAD) return take_error(o);
    if (o->state == SIM_DEAD || o->fin_sent) return -EPIPE;
    if (o->state == SIM_NEW) return -ENOTCONN;
    if (o->state == SIM_CONNECTING) return -EAGAIN;
    size_t want = 0;
    for (int i = 0; i < n; i++) want += iov[i].iov_len;
    size_t take = MIN(want, tx_room(o));
    if (take < want) o->nospace = true;
    if (take > 1 && sim_chance(sim.conf.short_write_pct, 100)) {
        take = sim_between(1, take - 1);
        o->nospace = true;
        sim_later(o, SIM_ROOM, sim_latency());
    }
    if (want && take == 0) return -EAGAIN;
    for (size_t done = 0; done < take;) {
        size_t seg = MIN(take - done, SIM_SEGMENT_BYTES);
        send_segment(o, iov, done, seg);
        done += seg;
    }
    o->given += take;
    sim_note(21, (uint64_t)o->fd, take);
    return (ssize_t)take;
}

ssize_t sys_writev(int fd, const struct iovec *iov, int n)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    return o->tls ? sim_tls_writev(o, iov, n) : sim_writev(o, iov, n);
}

/* Segments have no size to fill here. */
ssize_t sys_writev_more(int fd, const struct iovec *iov, int n) { return sys_writev(fd, iov, n); }

/* ---- datagrams ---- */

static int dgram_new(uint64_t ns, const struct addr *at, const struct addr *to)
{
    if (at && at->port && dgram_find(ns, at)) return -EADDRINUSE;
    struct sim_obj *o = sim_obj_new(SIM_DGRAM);
    o->ns = ns;
    o->local = at ? *at : addr_ephemeral(to->family);
    if (at && at->port == 0) o->local.port = addr_ephemeral(at->family).port;
    if (to) o->peer = *to;
    return o->fd;
}

int sys_dgram(const struct addr *at, const struct addr *to)
{
    enum addr_family family = at ? at->family : to->family;
    return family == ADDR_IP4 || family == ADDR_IP6 ? dgram_new(0, at, to) : -EAFNOSUPPORT;
}

int sim_dgram(uint64_t ns, const struct addr *a)
{
    int fd = dgram_new(ns, a, NULL);
    MUST(fd >= 0);
    return fd;
}

ssize_t sys_dgram_recv(int fd, void *p, size_t n, struct addr *from)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_DGRAM);
    if (o->error) return take_error(o);
    if (!o->letters_n) return -EAGAIN;
    struct sim_letter first = o->letters[0];
    memmove(o->letters, o->letters + 1, --o->letters_n * sizeof *o->letters);
    n = MIN(n, first.n);
    memcpy(p, first.bytes, n);
    *from = first.from;
    mem_free(first.bytes);
    sim_note(23, (uint64_t)fd, n);
    return (ssize_t)n;
}

/* Each goes its own way, so they overtake each other. */
static void letter_send(struct sim_obj *o, const void *p, size_t n, const struct addr *to)
{
    struct sim_happening h = {.at_ns = sim.now_ns + sim_latency(), .what = SIM_LETTER, .to = o, .bytes = mem_new(MEM_SIM, n + 1), .n = n, .ns = o->ns,
                              .from = o->local, .dest = *to};
    memcpy(h.bytes, p, n);
    sim_push(h);
}

ssize_t sys_dgram_send(int fd, const void *p, size_t n, const struct addr *to)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_DGRAM);
    if (!to && o->peer.family == ADDR_NONE) return -EDESTADDRREQ;
    to = to ? to : &o->peer;
    sim_note(24, (uint64_t)fd, n);
    if (sim_chance(sim.conf.lose_pct, 100)) return (ssize_t)n;
    letter_send(o, p, n, to);
    if (sim_chance(sim.conf.double_pct, 100)) letter_send(o, p, n, to);
    return (ssize_t)n;
}

/* ---- pipes ---- */

int sys_pipe(size_t want, int fds[2])
{
    struct sim_obj *r = sim_obj_new(SIM_PIPE), *w = sim_obj_new(SIM_PIPE);
    r->other = w;
    w->other = r;
    fds[0] = r->fd;
    fds[1] = w->fd;
    return SIM_PIPE_BYTES;
}

/* Sometimes the pipe has no piece left (Linux: 16 or more, each with a few bytes or many): the rest stays readable in the
 * socket, and no edge will tell of it. */
ssize_t sys_splice_in(int fd, int pipe_w, size_t n)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET), *r = sim_obj_get(pipe_w, SIM_PIPE)->other;
    size_t have = o->held ? 0 : rx_n(o), room = SIM_PIPE_BYTES - rx_n(r);
    if (room == 0) return -EAGAIN;
    if (have == 0) return recv_nothing(o);
    n = MIN(MIN(n, have), room);
    if (sim_chance(sim.conf.split_pct, 100)) n = sim_between(1, n);
    else n = recv_split(o, n);
    buf_add(&r->rx, o->rx.p + o->rx_from, n);
    recv_take(o, n);
    return (ssize_t)n;
}

ssize_t sys_splice_out(int pipe_r, int fd, size_t n)
{
    struct sim_obj *r = sim_obj_get(pipe_r, SIM_PIPE);
    MUST(rx_n(r) > 0); /* would wait for a writer */
    struct iovec iov = {r->rx.p + r->rx_from, MIN(n, rx_n(r))};
    ssize_t sent = sys_writev(fd, &iov, 1);
    if (sent > 0) r->rx_from += (size_t)sent;
    if (rx_n(r) == 0) {
        buf_clear(&r->rx);
        r->rx_from = 0;
    }
    return sent;
}

ssize_t sys_sendfile(int fd, int file, uint64_t offset, size_t n)
{
    char bytes[SIM_SEGMENT_BYTES];
    ssize_t r = sys_file_pread(file, bytes, MIN(n, sizeof bytes), offset);
    if (r <= 0) return r;
    struct iovec iov = {bytes, (size_t)r};
    return sys_writev(fd, &iov, 1);
}

int sys_shutdown_write(int fd)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (o->state != SIM_OPEN) return -ENOTCONN;
    if (o->tls) sim_tls_lose(o); /* Linux's FIN overtakes it */
    if (!o->fin_sent && !o->other->closed) sim_send(o->other, (struct sim_happening){.what = SIM_FIN});
    o->fin_sent = true;
    return 0;
}

int sys_linger_reset(int fd)
{
    sim_obj_get(fd, SIM_SOCKET)->linger_reset = true;
    return 0;
}

/* ---- closing ---- */

static void socket_close_sim(struct sim_obj *o)
{
    o->closed = true;
    if (o->tls) sim_tls_free(o);
    if (o->state == SIM_OPEN && o->other && !o->other->closed) {
        if (o->linger_reset || rx_n(o)) send_rst(o->other);
        else if (!o->fin_sent) sim_send(o->other, (struct sim_happening){.what = SIM_FIN});
    }
    o->unread -= rx_n(o);
    buf_free(&o->rx);
    o->rx_from = 0;
}

static void listener_drop(struct sim_obj *ln)
{
    for (uint32_t i = 0; i < ln->waiting_n; i++) {
        ln->waiting[i]->linger_reset = true;
        socket_close_sim(ln->waiting[i]);
    }
    ln->waiting_n = 0;
}

static void letters_drop(struct sim_obj *o)
{
    for (uint32_t i = 0; i < o->letters_n; i++) mem_free(o->letters[i].bytes);
    mem_free(o->letters);
    o->letters = NULL;
    o->letters_n = 0;
}

void sys_close(int fd)
{
    MUST(fd >= SIM_FD_BASE && (uint32_t)(fd - SIM_FD_BASE) < sim.objs_n);
    struct sim_obj *o = sim.objs[fd - SIM_FD_BASE];
    MUST(!o->closed); /* closed twice */
    sim_note(22, (uint64_t)fd, 0);
    obj_unpoll(o);
    if (o->kind == SIM_SOCKET) socket_close_sim(o);
    if (o->kind == SIM_LISTENER) listener_drop(o);
    if (o->kind == SIM_PIPE) buf_free(&o->rx);
    if (o->kind == SIM_DGRAM) letters_drop(o);
    if (o->kind == SIM_FILE) sim_file_closed(o);
    o->closed = true;
}

/* ---- faults ---- */

void sim_partition(const struct addr *a, bool on)
{
    for (uint32_t i = 0; i < sim.parted_n; i++)
        if (addr_eq(&sim.parted[i], a)) sim.parted[i--] = sim.parted[--sim.parted_n];
    if (on) {
        ARRAY_GROW(MEM_SIM, sim.parted, sim.parted_n, sim.parted_cap);
        sim.parted[sim.parted_n++] = *a;
        return;
    }
    /* What was kept back goes on its way again, in order; what is still parted returns here when due. */
    uint32_t n = sim.stalled_n;
    sim.stalled_n = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct sim_happening h = sim.stalled[i];
        if (parted(h.to)) sim.stalled[sim.stalled_n++] = h;
        else sim_send(h.to, h);
    }
}

void sim_kill_addr(const struct addr *a)
{
    for (uint32_t i = 0, n = sim.objs_n; i < n; i++) {
        struct sim_obj *o = sim.objs[i];
        if (o->closed) continue;
        if (o->kind == SIM_LISTENER && addr_covers(a, &o->local)) {
            listener_drop(o);
            o->state = SIM_DEAD;
        } else if (o->kind == SIM_SOCKET && o->is_server && addr_covers(a, &o->server)) {
            send_rst(o->other);
            socket_die(o, ECONNRESET);
        }
    }
}

uint32_t sim_sockets_open(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < sim.objs_n; i++) {
        const struct sim_obj *o = sim.objs[i];
        n += !o->closed && (o->kind == SIM_SOCKET || o->kind == SIM_LISTENER || o->kind == SIM_PIPE || o->kind == SIM_DGRAM || o->file);
    }
    return n;
}

void sim_net_fini(void)
{
    for (uint32_t i = 0; i < sim.heap_n; i++) mem_free(sim.heap[i].bytes);
    for (uint32_t i = 0; i < sim.stalled_n; i++) mem_free(sim.stalled[i].bytes);
    mem_free(sim.heap);
    mem_free(sim.stalled);
    mem_free(sim.parted);
}
