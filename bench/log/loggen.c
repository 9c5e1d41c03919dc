/* loggen.c - load for message logs: produces or consumes as fast as the other side takes (closed loop), or at a constant rate, over many connections in one
 * thread, and measures what an acknowledged record costs the server.
 *
 * -P kafka|floor|nats|redis  protocol (floor: Kafka's Produce 7 and Fetch 11, nothing else)     -p port
 * -m produce|consume         -c n  connections (4)            -n n  partitions: of topic, or streams of that number (1)
 * -t name                    topic (bench)                     -s n  bytes of a record's value (1024)
 * -b n   bytes of a batch (16384); at least one record         -k n  batches of different partitions in one request (1)
 * -w n   requests under way per connection (5); for NATS and Redis, which have no batches, times the records of a batch
 * -a 0|1|-1  acks (1)        -r n  records/s, on a schedule: latency counts from the scheduled time        -z  compressible values
 * -d s / -W s  measured seconds (4) / warm-up (1)              -L n  stop after n records (to fill a topic before it is consumed)
 * -e           consume in fetch sessions (KIP-227)
 * -x pid,pid   read these processes' CPU time at both ends     -S    busy-poll      -i  don't create the topic
 * -B MiB -D f  so much of the page cache is filled first, with a file f, and let go as records are acknowledged; the run ends when it is used up (see below)
 *
 * What is sent is made once: a request is the same bytes again and again, with a new number. So the generator's cost does not limit the server.
 * Consumers begin again at the start when they reach the end. Prints one JSON line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM "loggen"
#include "../measure.h"

uint32_t crc32c(uint32_t crc, const void *p, size_t n); /* src/wire/crc32c.c */

enum proto { KAFKA, FLOOR, NATS, REDIS };
#define RING 65536 /* requests under way per connection, at most */

/* Something ready to be sent, and what an answer to it is worth. */
struct req {
    char *p;
    size_t n;
    uint32_t records;
    uint32_t bytes; /* of values */
};
struct conn {
    int fd;
    bool out_armed;
    struct req *reqs; /* used in turn */
    uint32_t reqs_n, turn;
    size_t at;        /* sent bytes of the present one */
    bool sending;
    char *in;         /* bytes read and not understood yet */
    size_t in_n, in_cap, in_at;
    uint64_t begun[RING]; /* when what is under way was (to be) sent, by number */
    uint32_t units[RING];
    uint32_t head, tail;  /* answered, sent */
    uint64_t next_ns;     /* -r: the next one's time */
    /* consuming */
    int *parts;
    uint32_t parts_n;
    int64_t *offset;      /* of each */
    size_t *offset_at;    /* where it stands in the request */
    size_t session_at;    /* -e: the session's id and epoch do */
    int32_t session, epoch;
    char redis_last[64];
    uint32_t nats_name, nats_left;
};

static enum proto proto = KAFKA;
static bool produce = true, spin, keep_topic, compressible, sessions;
static int port = 9092, nconn = 4, nparts = 1, acks = 1, per_request = 1, window = 5;
static uint32_t value_bytes = 1024, batch_bytes = 16384;
static double dur = 4, warm = 1, rate;
static uint64_t limit, held;
static const char *topic = "bench", *pids = "", *held_path = "held";
static struct conn *conns;
static int ep;
static bool measuring, stop;
static uint64_t records, bytes, requests, errors, total, total_bytes;
static char first_error[200];

static void failed(const char *what, int code)
{
    errors++;
    if (!first_error[0])
        snprintf(first_error, sizeof first_error, "%s %d", what, code);
}

/* ---- memory for the server's files --------------------------------------------------------------------------------- */

/* A log that is written grows in the page cache, by memory that was free. A virtual machine may give free memory back to its host (free page reporting), and then the
 * first touch is a fault of the host's: here that makes a write ten times as dear, for whoever happens to get such pages, which depends on what was removed before and
 * on the size of each write. A log that has run for a while lives in a full memory, and gets pages that were just given up. So that is what is made here: the
 * generator fills the page cache with a file that nobody needs, and makes holes in it, a little ahead of what the server writes; when nothing is left the
 * run is over, and a quarter of it at most is warm-up. Where memory stays with its machine this changes nothing. The file is never on the disk if it is smaller than what may
 * be dirty (vm.dirty_background_ratio). */
#define HELD_WRITE (64u << 10)
#define HELD_STEP (1u << 20)
#define HELD_AHEAD (64u << 20)
#define HELD_RECORD 32 /* what a record takes beside its value */

static int held_fd = -1;
static uint64_t held_bytes, held_gone;

static void held_take(const char *path, uint64_t n)
{
    static char zeros[HELD_WRITE];
    held_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (held_fd < 0)
        die(path);
    unlink(path);
    for (; held_bytes < n; held_bytes += HELD_WRITE)
        if (pwrite(held_fd, zeros, HELD_WRITE, (off_t)held_bytes) != HELD_WRITE)
            die(path);
}

/* What the server has taken; Redis keeps what it writes in memory, too. */
static uint64_t held_used(void) { return (total_bytes + total * HELD_RECORD) * (proto == REDIS ? 2 : 1); }

static void held_release(void)
{
    for (; held_gone < held_bytes && held_gone < held_used() + HELD_AHEAD; held_gone += HELD_STEP)
        if (fallocate(held_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)held_gone, HELD_STEP))
            die("a hole in what is held");
    if (held_bytes && held_used() >= held_bytes)
        stop = true;
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------- */

struct out {
    char *p;
    size_t n, cap;
};
static void put(struct out *o, const void *p, size_t n)
{
    if (o->n + n > o->cap) {
        o->cap = (o->n + n) * 2;
        o->p = realloc(o->p, o->cap);
        if (!o->p)
            die("memory");
    }
    memcpy(o->p + o->n, p, n);
    o->n += n;
}
static void put_int(struct out *o, uint64_t v, int n)
{
    char b[8];
    for (int i = 0; i < n; i++)
        b[i] = (char)(v >> (8 * (n - 1 - i)));
    put(o, b, (size_t)n);
}
static void put_at(char *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (char)(v >> (8 * (n - 1 - i)));
}
static uint64_t get(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}
static void put_string(struct out *o, const char *s)
{
    put_int(o, strlen(s), 2);
    put(o, s, strlen(s));
}
static void put_varint(struct out *o, int64_t v)
{
    uint64_t u = (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
    for (; u > 127; u >>= 7)
        put_int(o, u | 128, 1);
    put_int(o, u, 1);
}
static void put_value(struct out *o)
{
    static uint64_t x = 88172645463325252ull;
    for (uint32_t i = 0; i < value_bytes; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint64_t v = compressible && i % 64 ? 0x2061626364656667ull : x;
        put(o, &v, value_bytes - i < 8 ? value_bytes - i : 8);
    }
}
static uint32_t batch_records(void) { return batch_bytes / value_bytes ? batch_bytes / value_bytes : 1; }

/* ---- Kafka --------------------------------------------------------------------------------------------------------------- */

static size_t frame_begin(struct out *o, int key, int version)
{
    size_t at = o->n;
    put_int(o, 0, 4);
    put_int(o, (uint64_t)key, 2);
    put_int(o, (uint64_t)version, 2);
    put_int(o, 0, 4);
    put_string(o, "loggen");
    return at;
}
static void frame_end(struct out *o, size_t at) { put_at(o->p + at, o->n - at - 4, 4); }

static void put_batch(struct out *o)
{
    uint32_t n = batch_records();
    size_t at = o->n;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    put_int(o, 0, 8);
    put_int(o, 0, 4);
    put_int(o, 0xffffffff, 4);
    put_int(o, 2, 1);
    put_int(o, 0, 4);
    put_int(o, 0, 2);
    put_int(o, n - 1, 4);
    put_int(o, ms, 8);
    put_int(o, ms, 8);
    put_int(o, UINT64_MAX, 8); /* no producer id */
    put_int(o, 0xffff, 2);
    put_int(o, 0xffffffff, 4);
    put_int(o, n, 4);
    for (uint32_t i = 0; i < n; i++) {
        struct out r = {0};
        put_int(&r, 0, 1);
        put_varint(&r, 0);
        put_varint(&r, i);
        put_varint(&r, -1);
        put_varint(&r, value_bytes);
        put_value(&r);
        put_varint(&r, 0);
        put_varint(o, (int64_t)r.n);
        put(o, r.p, r.n);
        free(r.p);
    }
    put_at(o->p + at + 8, o->n - at - 12, 4);
    put_at(o->p + at + 17, crc32c(0, o->p + at + 21, o->n - at - 21), 4);
}

static struct req kafka_produce_req(int first)
{
    struct out o = {0};
    size_t at = frame_begin(&o, 0, 7);
    int n = per_request < nparts ? per_request : nparts;
    put_int(&o, 0xffff, 2); /* no transactional id */
    put_int(&o, (uint64_t)acks, 2);
    put_int(&o, 30000, 4);
    put_int(&o, 1, 4);
    put_string(&o, topic);
    put_int(&o, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) {
        put_int(&o, (uint64_t)((first + i) % nparts), 4);
        size_t size = o.n;
        put_int(&o, 0, 4);
        put_batch(&o);
        put_at(o.p + size, o.n - size - 4, 4);
    }
    frame_end(&o, at);
    return (struct req){o.p, o.n, batch_records() * (uint32_t)n, batch_records() * (uint32_t)n * value_bytes};
}

static struct req kafka_fetch_req(struct conn *c)
{
    struct out o = {0};
    size_t at = frame_begin(&o, 1, 11);
    put_int(&o, 0xffffffff, 4);
    put_int(&o, 500, 4);
    put_int(&o, 1, 4);
    put_int(&o, 50u << 20, 4);
    put_int(&o, 0, 1);
    c->session_at = o.n;
    put_int(&o, 0, 4);
    put_int(&o, sessions ? 0 : 0xffffffff, 4);
    put_int(&o, 1, 4);
    put_string(&o, topic);
    put_int(&o, c->parts_n, 4);
    for (uint32_t i = 0; i < c->parts_n; i++) {
        put_int(&o, (uint64_t)c->parts[i], 4);
        put_int(&o, 0xffffffff, 4);
        c->offset_at[i] = o.n;
        put_int(&o, 0, 8);
        put_int(&o, UINT64_MAX, 8);
        put_int(&o, 1u << 20, 4); /* max.partition.fetch.bytes */
    }
    put_int(&o, 0, 4);
    put_string(&o, "");
    frame_end(&o, at);
    return (struct req){o.p, o.n, 0, 0};
}

static const char *produce_answer(const char *p)
{
    uint32_t topics = (uint32_t)get(p, 4);
    p += 4;
    while (topics--) {
        p += 2 + get(p, 2);
        uint32_t n = (uint32_t)get(p, 4);
        p += 4;
        for (; n--; p += 30)
            if (get(p + 4, 2))
                failed("Kafka error", (int)get(p + 4, 2));
    }
    return p;
}

/* Whole batches at p: counts their records, returns the offset behind them. A cut batch at the end is left. */
static int64_t count_batches(const char *p, size_t n, int64_t offset, uint32_t *got)
{
    while (n >= 61) {
        size_t size = get(p + 8, 4) + 12;
        if (size > n)
            break;
        *got += (uint32_t)get(p + 57, 4);
        offset = (int64_t)get(p, 8) + (int64_t)get(p + 23, 4) + 1;
        p += size;
        n -= size;
    }
    return offset;
}

static void fetch_answer(struct conn *c, const char *p, uint32_t *got)
{
    p += 4;
    if (get(p, 2))
        failed("fetch", (int)get(p, 2));
    if (sessions) {
        c->session = (int32_t)get(p + 2, 4);
        c->epoch = c->session ? c->epoch + 1 : 0;
    }
    p += 6;
    uint32_t topics = (uint32_t)get(p, 4);
    p += 4;
    while (topics--) {
        p += 2 + get(p, 2);
        uint32_t n = (uint32_t)get(p, 4);
        p += 4;
        while (n--) {
            int part = (int)get(p, 4), error = (int)get(p + 4, 2);
            int64_t high = (int64_t)get(p + 6, 8);
            int32_t aborted = (int32_t)get(p + 30, 4);
            p += 34 + (aborted > 0 ? aborted * 16 : 0) + 4;
            int32_t size = (int32_t)get(p, 4);
            p += 4;
            if (error)
                failed("fetch of a partition", error);
            for (uint32_t i = 0; i < c->parts_n; i++) {
                if (c->parts[i] != part)
                    continue;
                if (size > 0)
                    c->offset[i] = count_batches(p, (size_t)size, c->offset[i], got);
                if (c->offset[i] >= high)
                    c->offset[i] = 0;
            }
            p += size > 0 ? size : 0;
        }
    }
}

/* ---- NATS and Redis ---------------------------------------------------------------------------------------------------------- */

static struct req text_req(struct out o, uint32_t n) { return (struct req){o.p, o.n, n, n * value_bytes}; }

static struct req nats_produce_req(int part, int inbox)
{
    struct out o = {0};
    char head[200];
    for (uint32_t i = 0; i < batch_records(); i++) {
        if (acks)
            snprintf(head, sizeof head, "PUB %s%d _I.%d %u\r\n", topic, part, inbox, value_bytes);
        else
            snprintf(head, sizeof head, "PUB %s%d %u\r\n", topic, part, value_bytes);
        put(&o, head, strlen(head));
        put_value(&o);
        put(&o, "\r\n", 2);
    }
    return text_req(o, batch_records());
}

static struct req redis_produce_req(int part)
{
    struct out o = {0};
    char head[300], len[20], key[64];
    uint32_t keep = (256u << 20) / value_bytes;
    snprintf(len, sizeof len, "%u", keep);
    snprintf(key, sizeof key, "%s%d", topic, part);
    for (uint32_t i = 0; i < batch_records(); i++) {
        snprintf(head, sizeof head, "*8\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$%zu\r\n%s\r\n$1\r\n*\r\n$1\r\nf\r\n$%u\r\n", strlen(key), key,
                 strlen(len), len, value_bytes);
        put(&o, head, strlen(head));
        put_value(&o);
        put(&o, "\r\n", 2);
    }
    return text_req(o, batch_records());
}

static struct req nats_next_req(struct conn *c, int inbox)
{
    struct out o = {0};
    char text[400], body[] = "{\"batch\":1000,\"no_wait\":true}";
    snprintf(text, sizeof text, "PUB $JS.API.CONSUMER.MSG.NEXT.%s%d.g%d_%u _I.%d %zu\r\n%s\r\n", topic, c->parts[0], inbox, c->nats_name, inbox, strlen(body), body);
    put(&o, text, strlen(text));
    return (struct req){o.p, o.n, 0, 0};
}

static struct req nats_consumer_req(struct conn *c, int inbox)
{
    struct out o = {0};
    char text[600], body[300];
    c->nats_name++;
    snprintf(body, sizeof body,
             "{\"stream_name\":\"%s%d\",\"config\":{\"durable_name\":\"g%d_%u\",\"deliver_policy\":\"all\",\"ack_policy\":\"none\",\"replay_policy\":\"instant\"}}", topic,
             c->parts[0], inbox, c->nats_name);
    snprintf(text, sizeof text, "PUB $JS.API.CONSUMER.DURABLE.CREATE.%s%d.g%d_%u _C.%d %zu\r\n%s\r\n", topic, c->parts[0], inbox, c->nats_name, inbox, strlen(body), body);
    put(&o, text, strlen(text));
    return (struct req){o.p, o.n, 0, 0};
}

static struct req redis_read_req(struct conn *c)
{
    struct out o = {0};
    char key[64], text[300];
    snprintf(key, sizeof key, "%s%d", topic, c->parts[0]);
    snprintf(text, sizeof text, "*6\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$4\r\n1000\r\n$7\r\nSTREAMS\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(key), key, strlen(c->redis_last),
             c->redis_last);
    put(&o, text, strlen(text));
    return (struct req){o.p, o.n, 0, 0};
}

/* ---- answers --------------------------------------------------------------------------------------------------------------- */

static void answered(struct conn *c, uint32_t n, uint32_t value_n)
{
    uint32_t i = c->head++ % RING;
    requests++;
    total += n;
    total_bytes += value_n;
    held_release();
    if (limit && total >= limit)
        stop = true;
    if (measuring) {
        records += n;
        bytes += value_n;
        hist_add(now_ns() - c->begun[i]);
    }
}

/* Messages that come one by one: so many make up what was sent as one. */
static void answered_one(struct conn *c)
{
    uint32_t i = c->head % RING;
    if (--c->units[i] == 0)
        answered(c, c->reqs[0].records, c->reqs[0].bytes);
}

static char *line_end(char *p, size_t n) { return memmem(p, n, "\r\n", 2); }

/* How many bytes of p are a whole answer that was dealt with; 0: not all there. */
static size_t kafka_take(struct conn *c, char *p, size_t n)
{
    if (n < 4 || n < get(p, 4) + 4)
        return 0;
    uint32_t got = 0;
    if (produce) {
        produce_answer(p + 8);
        uint32_t i = c->head % c->reqs_n;
        answered(c, c->reqs[i].records, c->reqs[i].bytes);
    } else {
        fetch_answer(c, p + 8, &got);
        answered(c, got, got * value_bytes);
    }
    return get(p, 4) + 4;
}

static void nats_message(struct conn *c, const char *subject, const char *body, size_t n)
{
    if (produce) {
        if (memmem(body, n, "\"error\"", 7))
            failed("JetStream refused", 0);
        answered_one(c);
    } else if (subject[0] == '_' && subject[1] == 'C') {
        if (memmem(body, n, "\"error\"", 7))
            failed("consumer", 0);
        c->nats_left = 0;
        answered(c, 0, 0);
    } else if (++c->nats_left == 1000) {
        answered(c, c->nats_left, c->nats_left * value_bytes);
        c->nats_left = 0;
    }
}

static size_t nats_take(struct conn *c, char *p, size_t n)
{
    char *e = line_end(p, n), subject[200], reply[200];
    unsigned a = 0, b = 0;
    if (!e)
        return 0;
    size_t used = (size_t)(e - p) + 2;
    if (!strncmp(p, "PING", 4)) {
        if (write(c->fd, "PONG\r\n", 6) != 6)
            failed("pong", 0);
    } else if (!strncmp(p, "-ERR", 4)) {
        failed("-ERR", 0);
    } else if (!strncmp(p, "MSG ", 4) || !strncmp(p, "HMSG ", 5)) {
        bool head = p[0] == 'H';
        char line[600];
        memcpy(line, p, used < sizeof line ? used : sizeof line - 1);
        line[used < sizeof line ? used : sizeof line - 1] = 0;
        int f = head ? sscanf(line, "HMSG %199s %*s %199s %u %u", subject, reply, &a, &b) : sscanf(line, "MSG %199s %*s %199s %u", subject, reply, &a);
        if (head && f < 4 && sscanf(line, "HMSG %199s %*s %u %u", subject, &a, &b) == 3)
            a = b;
        else if (head)
            a = b;
        else if (f < 3)
            sscanf(line, "MSG %199s %*s %u", subject, &a);
        if (n < used + a + 2)
            return 0;
        if (head) { /* 404: the end; 408: nothing in time. Begin again */
            uint32_t left = c->nats_left;
            c->nats_left = UINT32_MAX;
            answered(c, left, left * value_bytes);
        } else {
            nats_message(c, subject, p + used, a);
        }
        used += a + 2;
    }
    return used;
}

/* A whole RESP value at p; 0: not all there. Notes ids of stream entries on the way, and counts them. */
static size_t resp_value(struct conn *c, char *p, size_t n, int depth, uint32_t *entries)
{
    char *e = line_end(p, n);
    if (!e)
        return 0;
    size_t used = (size_t)(e - p) + 2;
    long k = atol(p + 1);
    if (p[0] == '$' && k >= 0) {
        if (n < used + (size_t)k + 2)
            return 0;
        if (depth == 4 && k < 60 && memchr(p + used, '-', (size_t)k)) {
            memcpy(c->redis_last, p + used, (size_t)k);
            c->redis_last[k] = 0;
            ++*entries;
        }
        return used + (size_t)k + 2;
    }
    if (p[0] == '-')
        failed("Redis error", 0);
    for (long i = 0; p[0] == '*' && i < k; i++) {
        size_t one = resp_value(c, p + used, n - used, depth + 1, entries);
        if (!one)
            return 0;
        used += one;
    }
    return used;
}

static size_t redis_take(struct conn *c, char *p, size_t n)
{
    uint32_t entries = 0;
    size_t used = resp_value(c, p, n, 0, &entries);
    if (!used)
        return 0;
    if (produce) {
        answered_one(c);
    } else {
        if (!entries)
            strcpy(c->redis_last, "0");
        answered(c, entries, entries * value_bytes);
    }
    return used;
}

/* ---- connections ------------------------------------------------------------------------------------------------------------- */

static void arm(struct conn *c, bool out)
{
    if (c->out_armed == out)
        return;
    c->out_armed = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

/* What is sent next depends on what came, when consuming. */
static void renew(struct conn *c)
{
    int inbox = (int)(c - conns);
    if (produce)
        return;
    if (proto == KAFKA || proto == FLOOR) {
        for (uint32_t i = 0; i < c->parts_n; i++)
            put_at(c->reqs[0].p + c->offset_at[i], (uint64_t)c->offset[i], 8);
        if (sessions) {
            put_at(c->reqs[0].p + c->session_at, (uint64_t)c->session, 4);
            put_at(c->reqs[0].p + c->session_at + 4, (uint64_t)c->epoch, 4);
        }
        return;
    }
    free(c->reqs[0].p);
    if (proto == REDIS)
        c->reqs[0] = redis_read_req(c);
    else if (c->nats_left == UINT32_MAX || !c->nats_name)
        c->reqs[0] = nats_consumer_req(c, inbox);
    else
        c->reqs[0] = nats_next_req(c, inbox);
}

static void send_more(struct conn *c)
{
    while (!stop) {
        struct req *r = &c->reqs[c->turn % c->reqs_n];
        if (!c->sending) {
            uint64_t now = now_ns();
            if (c->tail - c->head >= (uint32_t)(produce ? window : 1))
                break;
            if (rate > 0 && c->next_ns > now)
                return;
            renew(c);
            uint32_t i = c->tail % RING;
            c->begun[i] = rate > 0 ? c->next_ns : now;
            c->units[i] = r->records;
            if (rate > 0)
                c->next_ns += (uint64_t)((double)r->records * nconn / rate * 1e9);
            if (proto == KAFKA || proto == FLOOR)
                put_at(r->p + 8, c->tail, 4);
            c->tail++;
            c->sending = true;
            c->at = 0;
        }
        ssize_t n = send(c->fd, r->p + c->at, r->n - c->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            arm(c, true);
            return;
        }
        if (n < 0)
            die("send");
        c->at += (size_t)n;
        if (c->at < r->n)
            continue;
        c->sending = false;
        c->turn++;
        if (produce && acks == 0) {
            c->units[c->head % RING] = 0;
            answered(c, r->records, r->bytes);
        }
    }
    arm(c, false);
}

static void receive(struct conn *c)
{
    size_t want = 65536;
    if ((proto == KAFKA || proto == FLOOR) && c->in_n >= 4 && get(c->in, 4) + 4 > c->in_n + want)
        want = get(c->in, 4) + 4 - c->in_n;
    if (c->in_n + want > c->in_cap) {
        c->in_cap = c->in_n + want;
        c->in = realloc(c->in, c->in_cap);
        if (!c->in)
            die("memory");
    }
    ssize_t n = recv(c->fd, c->in + c->in_n, c->in_cap - c->in_n, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("the server closed a connection");
    c->in_n += (size_t)n;
    size_t at = 0, used;
    while (c->in_n > at && (used = proto == NATS ? nats_take(c, c->in + at, c->in_n - at) : proto == REDIS ? redis_take(c, c->in + at, c->in_n - at)
                                                                                                          : kafka_take(c, c->in + at, c->in_n - at)))
        at += used;
    memmove(c->in, c->in + at, c->in_n - at);
    c->in_n -= at;
    send_more(c);
}

static int dial(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || connect(fd, (void *)&a, sizeof a) < 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Sends a text or a frame and waits for one answer, on a connection of its own. */
static void ask(int fd, const char *p, size_t n, char *answer, size_t cap)
{
    if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("send");
    ssize_t got = recv(fd, answer, cap - 1, 0);
    if (got <= 0)
        die("no answer");
    answer[got] = 0;
}

static const char nats_hello[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\nSUB _I.%d 1\r\nSUB _C.%d 2\r\nPING\r\n";

static void nats_greet(int fd, int inbox)
{
    char text[4096];
    if (recv(fd, text, sizeof text, 0) <= 0)
        die("NATS: no greeting");
    int n = snprintf(text, sizeof text, nats_hello, inbox, inbox);
    char answer[4096];
    ask(fd, text, (size_t)n, answer, sizeof answer);
    if (!strstr(answer, "PONG"))
        fprintf(stderr, "loggen: NATS said %s\n", answer);
}

static void topic_create(void)
{
    int fd = dial();
    char answer[65536];
    if (proto == KAFKA) {
        struct out o = {0};
        size_t at = frame_begin(&o, 19, 2);
        put_int(&o, 1, 4);
        put_string(&o, topic);
        put_int(&o, (uint64_t)nparts, 4);
        put_int(&o, 1, 2);
        put_int(&o, 0, 4);
        put_int(&o, 0, 4);
        put_int(&o, 30000, 4);
        put_int(&o, 0, 1);
        frame_end(&o, at);
        ask(fd, o.p, o.n, answer, sizeof answer);
        int error = (int)get(answer + 8 + 4 + 4 + 2 + strlen(topic), 2);
        if (error && error != 36)
            fprintf(stderr, "loggen: CreateTopics: error %d\n", error);
        usleep(300000);
    } else if (proto == NATS) {
        nats_greet(fd, 9999);
        for (int i = 0; i < nparts; i++) {
            char text[600], body[300];
            snprintf(body, sizeof body, "{\"name\":\"%s%d\",\"subjects\":[\"%s%d\"],\"storage\":\"file\",\"num_replicas\":1,\"retention\":\"limits\",\"discard\":\"old\"}", topic, i,
                     topic, i);
            int n = snprintf(text, sizeof text, "PUB $JS.API.STREAM.CREATE.%s%d _I.9999 %zu\r\n%s\r\n", topic, i, strlen(body), body);
            ask(fd, text, (size_t)n, answer, sizeof answer);
            if (strstr(answer, "\"error\""))
                fprintf(stderr, "loggen: stream: %s\n", answer);
        }
    }
    close(fd);
}

static void conn_open(struct conn *c)
{
    int index = (int)(c - conns);
    c->fd = dial();
    if (proto == NATS)
        nats_greet(c->fd, index);
    c->parts = alloc(sizeof *c->parts * (size_t)nparts);
    c->offset = alloc(sizeof *c->offset * (size_t)nparts);
    c->offset_at = alloc(sizeof *c->offset_at * (size_t)nparts);
    for (int i = 0; i < nparts; i++)
        if (i % nconn == index % nparts || (nparts <= nconn && i == index % nparts))
            c->parts[c->parts_n++] = i;
    strcpy(c->redis_last, "0");
    c->reqs_n = produce && c->parts_n ? c->parts_n : 1;
    c->reqs = alloc(sizeof *c->reqs * c->reqs_n);
    for (uint32_t i = 0; i < c->reqs_n; i++) {
        int part = c->parts[i];
        if (!produce)
            c->reqs[i] = proto == KAFKA || proto == FLOOR ? kafka_fetch_req(c) : (struct req){alloc(1), 0, 0, 0};
        else
            c->reqs[i] = proto == NATS ? nats_produce_req(part, index) : proto == REDIS ? redis_produce_req(part) : kafka_produce_req(part);
    }
    c->next_ns = now_ns() + (rate > 0 ? (uint64_t)((double)index * c->reqs[0].records / rate * 1e9) : 0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}

static void turn(void)
{
    struct epoll_event ev[256];
    int n = epoll_wait(ep, ev, 256, spin || rate > 0 ? 0 : 100);
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            receive(c);
        else
            send_more(c);
    }
    if (rate > 0)
        for (int i = 0; i < nconn; i++)
            send_more(&conns[i]);
}

static void options(int argc, char **argv)
{
    static const char *names[] = {"kafka", "floor", "nats", "redis"};
    for (int o; (o = getopt(argc, argv, "P:p:m:c:n:t:s:b:k:w:a:r:d:W:L:x:B:D:Siez")) != -1;) {
        switch (o) {
        case 'P':
            for (int i = 0; i < 4; i++)
                if (!strcmp(optarg, names[i]))
                    proto = (enum proto)i;
            break;
        case 'p': port = atoi(optarg); break;
        case 'm': produce = strcmp(optarg, "consume") != 0; break;
        case 'c': nconn = atoi(optarg); break;
        case 'n': nparts = atoi(optarg); break;
        case 't': topic = optarg; break;
        case 's': value_bytes = (uint32_t)atoi(optarg); break;
        case 'b': batch_bytes = (uint32_t)atoi(optarg); break;
        case 'k': per_request = atoi(optarg); break;
        case 'w': window = atoi(optarg); break;
        case 'a': acks = atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'd': dur = atof(optarg); break;
        case 'W': warm = atof(optarg); break;
        case 'L': limit = strtoull(optarg, NULL, 10); break;
        case 'x': pids = optarg; break;
        case 'B': held = strtoull(optarg, NULL, 10) << 20; break;
        case 'D': held_path = optarg; break;
        case 'S': spin = true; break;
        case 'i': keep_topic = true; break;
        case 'e': sessions = true; break;
        case 'z': compressible = true; break;
        default: fprintf(stderr, "loggen: see the head of loggen.c\n"); exit(2);
        }
    }
    if (window >= RING || nconn < 1 || nparts < 1 || !value_bytes) {
        fprintf(stderr, "loggen: that can't be\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    double sys0 = 0, cpu0 = 0, sys1;
    options(argc, argv);
    if (held)
        held_take(held_path, held);
    ep = epoll_create1(0);
    if (!keep_topic && proto != FLOOR && proto != REDIS)
        topic_create();
    conns = alloc(sizeof *conns * (size_t)nconn);
    for (int i = 0; i < nconn; i++)
        conn_open(&conns[i]);
    uint64_t t0 = now_ns(), from = t0 + (uint64_t)(warm * 1e9), end = from + (uint64_t)(dur * 1e9), now;
    for (int i = 0; i < nconn; i++)
        send_more(&conns[i]);
    while ((now = now_ns()) < end && !stop) {
        if (!measuring && (now >= from || (held_bytes && held_used() >= held_bytes / 4))) {
            measuring = true;
            from = now;
            end = now + (uint64_t)(dur * 1e9);
            cpu0 = cpu_seconds(pids, &sys0);
        }
        turn();
    }
    double wall = (double)(now_ns() - from) / 1e9, cpu = cpu_seconds(pids, &sys1) - cpu0;
    printf("{\"records\":%llu,\"bytes\":%llu,\"requests\":%llu,\"wall\":%.3f,\"rps\":%.0f,\"mb_s\":%.1f,\"cpu_s\":%.3f,\"sys_s\":%.3f,\"req_per_cpu_s\":%.0f,"
           "\"util\":%.3f,\"errors\":%llu,\"error\":\"%s\",\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"total\":%llu}\n",
           (unsigned long long)records, (unsigned long long)bytes, (unsigned long long)requests, wall, (double)records / wall, (double)bytes / wall / 1e6, cpu,
           sys1 - sys0, cpu > 0 ? (double)records / cpu : 0, cpu / wall, (unsigned long long)errors, first_error, hist_us(.5), hist_us(.99), hist_us(.999),
           (double)hist_max / 1000, (unsigned long long)total);
    return 0;
}
