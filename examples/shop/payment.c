/* payment.c - the shop's payment service: accepts or declines cards. One file, POSIX sockets, one thread, no heap.
 *
 *   POST /charge {"order": "...", "amount_cents": N, "card": "digits"}, Authorization: Bearer $PAYMENT_KEY
 *       200 {"charge", "order", "amount_cents", "served_by"}     cards that begin with 4242
 *       402 {"error", "served_by"}                               all others
 *       400 malformed, 401 wrong key
 *   GET /healthz -> 200
 *
 * Model: a fixed table of connections around poll(2). A connection reads until a whole request is in its buffer, answers it,
 * moves what follows (pipelining) to the front and goes on. An order is charged once: the last CHARGES_KEPT orders are
 * remembered, and asking again gives the same charge. SIGTERM: stop accepting, close connections that wait, finish those
 * in the middle of a request, end. One JSON log line per request on standard output.
 *
 * It speaks as much of HTTP/1.1 as a service behind a proxy meets: bodies have a Content-Length (chunked: 411), heads and
 * bodies fit in REQUEST_BYTES_MAX (else 413).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNS_MAX 256
#define REQUEST_BYTES_MAX 8192
#define ANSWER_BYTES_MAX 2048
#define CHARGES_KEPT 1024
#define GRACE_MS 15000

struct conn {
    int fd;                            /* -1: free */
    size_t in_n;                       /* bytes in in[] */
    size_t out_n, out_sent;            /* bytes in out[], and how many of them are sent */
    bool closing;                      /* close when out[] is sent */
    char in[REQUEST_BYTES_MAX + 1];    /* always NUL-terminated */
    char out[ANSWER_BYTES_MAX];
};

/* One request: slices of a connection's buffer, NUL-terminated in place. */
struct request {
    char *method, *path, *body;
    const char *authorization, *traceparent, *request_id; /* "" when absent */
    size_t bytes;                                         /* of head and body */
    bool close;
};

struct charge {
    char order[64];
    char id[24];
    uint64_t amount_cents;
};

static struct conn conns[CONNS_MAX];
static struct charge charges[CHARGES_KEPT];
static unsigned charges_n; /* ever made; the slot is this modulo CHARGES_KEPT */
static char replica[65];
static const char *payment_key;
static volatile sig_atomic_t stopping;

static int listen_on(uint16_t port);
static void serve(int listener);

int main(void)
{
    const char *port = getenv("PORT"), *name = getenv("HOSTNAME");
    payment_key = getenv("PAYMENT_KEY");
    if (!payment_key)
        payment_key = "";
    if (name)
        snprintf(replica, sizeof replica, "%.64s", name);
    else
        gethostname(replica, sizeof replica - 1);
    unsigned long number = port ? strtoul(port, NULL, 10) : 8080;
    if (number == 0 || number > 65535) {
        fprintf(stderr, "payment: PORT is not a port: %s\n", port);
        return 1;
    }
    int listener = listen_on((uint16_t)number);
    if (listener < 0) {
        fprintf(stderr, "payment: port %lu: %s\n", number, strerror(errno));
        return 1;
    }
    serve(listener);
    return 0;
}

/* ---- JSON: as much as a flat object of strings and numbers takes ------------------------------------------------------ */

static const char *json_space(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')
        p++;
    return p;
}

/* Reads a string without escapes (order ids and cards have none) into out; NULL when malformed or too long. */
static const char *json_string(const char *p, char *out, size_t out_max)
{
    size_t n = 0;
    if (*p++ != '"')
        return NULL;
    for (; *p != '"'; p++) {
        if ((unsigned char)*p < 0x20 || *p == '\\' || n + 1 >= out_max)
            return NULL;
        out[n++] = *p;
    }
    out[n] = 0;
    return p + 1;
}

/* The value of a member as text: a string, or a number's digits. */
static const char *json_value(const char *p, char *out, size_t out_max)
{
    if (*p == '"')
        return json_string(p, out, out_max);
    size_t n = strspn(p, "0123456789");
    if (n == 0 || n + 1 > out_max)
        return NULL;
    memcpy(out, p, n);
    out[n] = 0;
    return p + n;
}

struct charge_request {
    char order[64], card[32], amount[20];
};

static bool charge_request_read(const char *p, struct charge_request *r)
{
    char name[32], value[64];
    memset(r, 0, sizeof *r);
    p = json_space(p);
    if (*p++ != '{')
        return false;
    for (p = json_space(p); *p != '}'; p = json_space(p)) {
        if (!(p = json_string(p, name, sizeof name)) || *(p = json_space(p)) != ':' || !(p = json_value(json_space(p + 1), value, sizeof value)))
            return false;
        if (strcmp(name, "order") == 0)
            snprintf(r->order, sizeof r->order, "%s", value);
        else if (strcmp(name, "card") == 0)
            snprintf(r->card, sizeof r->card, "%.31s", value);
        else if (strcmp(name, "amount_cents") == 0)
            snprintf(r->amount, sizeof r->amount, "%.19s", value);
        p = json_space(p);
        if (*p == ',')
            p++;
        else if (*p != '}')
            return false;
    }
    return *json_space(p + 1) == 0 && r->order[0] && r->card[0] && r->amount[0];
}

/* ---- charging ------------------------------------------------------------------------------------------------------------- */

/* Compares without telling by its time how much of the key was right. */
static bool key_is_right(const char *authorization)
{
    static const char scheme[] = "Bearer ";
    if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return payment_key[0] == 0;
    const char *key = authorization + sizeof scheme - 1;
    size_t n = strlen(payment_key), given = strlen(key);
    unsigned char different = n != given;
    for (size_t i = 0; i < n; i++)
        different |= (unsigned char)(payment_key[i] ^ key[i < given ? i : given]);
    return !different;
}

/* The order's charge, made now if this is the first time; NULL: the order is known with another amount. */
static const struct charge *charge_make(const char *order, uint64_t amount_cents)
{
    for (unsigned i = 0; i < CHARGES_KEPT; i++)
        if (strcmp(charges[i].order, order) == 0)
            return charges[i].amount_cents == amount_cents ? &charges[i] : NULL;
    struct charge *c = &charges[charges_n++ % CHARGES_KEPT];
    uint64_t id = 0;
    if (getrandom(&id, sizeof id, 0) != sizeof id)
        id = charges_n;
    snprintf(c->order, sizeof c->order, "%s", order);
    snprintf(c->id, sizeof c->id, "ch_%016" PRIx64, id);
    c->amount_cents = amount_cents;
    return c;
}

static int charge_answer(const struct request *rq, char *body, size_t body_max)
{
    struct charge_request r;
    if (!key_is_right(rq->authorization)) {
        snprintf(body, body_max, "{\"error\":\"the key is wrong\"}\n");
        return 401;
    }
    if (!charge_request_read(rq->body, &r)) {
        snprintf(body, body_max, "{\"error\":\"wants order, amount_cents and card\"}\n");
        return 400;
    }
    if (strncmp(r.card, "4242", 4) != 0) {
        snprintf(body, body_max, "{\"error\":\"declined\",\"served_by\":\"%s\"}\n", replica);
        return 402;
    }
    const struct charge *c = charge_make(r.order, strtoull(r.amount, NULL, 10));
    if (!c) {
        snprintf(body, body_max, "{\"error\":\"the order was charged with another amount\"}\n");
        return 409;
    }
    snprintf(body, body_max, "{\"charge\":\"%s\",\"order\":\"%s\",\"amount_cents\":%" PRIu64 ",\"served_by\":\"%s\"}\n", c->id, c->order, c->amount_cents, replica);
    return 200;
}

/* ---- requests --------------------------------------------------------------------------------------------------------------- */

/* Copies a header value for a log line; what JSON would have to escape is left out. */
static void log_safe(char *out, size_t out_max, const char *s)
{
    size_t n = 0;
    for (; *s && n + 1 < out_max; s++)
        if ((unsigned char)*s >= 0x20 && *s != '"' && *s != '\\')
            out[n++] = *s;
    out[n] = 0;
}

static void log_request(const struct request *rq, int status, const struct timespec *began)
{
    struct timespec now;
    struct tm tm;
    char when[32], path[128], trace[33] = "", id[128];
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ms = (double)(now.tv_sec - began->tv_sec) * 1e3 + (double)(now.tv_nsec - began->tv_nsec) / 1e6;
    time_t t = time(NULL);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    log_safe(path, sizeof path, rq->path);
    log_safe(id, sizeof id, rq->request_id);
    if (strlen(rq->traceparent) >= 55) /* W3C Trace Context: version-traceid-parentid-flags */
        log_safe(trace, sizeof trace, rq->traceparent + 3);
    printf("{\"time\":\"%s\",\"replica\":\"%s\",\"service\":\"payment\",\"method\":\"%s\",\"path\":\"%s\",\"status\":%d,\"ms\":%.2f,"
           "\"trace_id\":\"%s\",\"request_id\":\"%s\"}\n", when, replica, rq->method, path, status, ms, trace, id);
    fflush(stdout);
}

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 404: return "Not Found";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    default: return "Error";
    }
}

static void conn_answer(struct conn *c, int status, const char *body, bool head_only)
{
    c->closing |= stopping;
    int n = snprintf(c->out, sizeof c->out, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nX-Served-By: %s\r\n%s\r\n%s", status,
                     reason(status), strlen(body), replica, c->closing ? "Connection: close\r\n" : "", head_only ? "" : body);
    c->out_n = n < (int)sizeof c->out ? (size_t)n : 0;
    c->out_sent = 0;
}

static void conn_serve(struct conn *c, const struct request *rq)
{
    struct timespec began;
    char body[512] = "{\"ok\":true}\n";
    int status = 200;
    clock_gettime(CLOCK_MONOTONIC, &began);
    bool head = strcmp(rq->method, "HEAD") == 0, health = strcmp(rq->path, "/healthz") == 0;
    if (strcmp(rq->path, "/charge") == 0 && strcmp(rq->method, "POST") == 0) {
        status = charge_answer(rq, body, sizeof body);
    } else if (!health) {
        status = 404;
        snprintf(body, sizeof body, "{\"error\":\"there is POST /charge and GET /healthz\"}\n");
    }
    c->closing |= rq->close;
    conn_answer(c, status, body, head);
    if (!health)
        log_request(rq, status, &began);
}

/* Takes a request apart, in place. 0: it is not complete; > 0: done; < 0: refused with that status. */
static int request_read(struct conn *c, struct request *rq)
{
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end)
        return c->in_n < REQUEST_BYTES_MAX ? 0 : -413;
    size_t length = 0;
    *rq = (struct request){.authorization = "", .traceparent = "", .request_id = ""};
    char *line = c->in, *save = NULL;
    char head[REQUEST_BYTES_MAX + 1]; /* a copy: an incomplete request must stay as it is */
    size_t head_n = (size_t)(end - c->in) + 2;
    memcpy(head, line, head_n);
    head[head_n] = 0;
    bool first = true;
    for (char *l = strtok_r(head, "\r\n", &save); l; l = strtok_r(NULL, "\r\n", &save), first = false) {
        char *at = c->in + (l - head), *colon = strchr(l, ':');
        if (first)
            continue;
        if (!colon)
            return -400;
        const char *value = at + (colon - l) + 1 + strspn(colon + 1, " \t");
        size_t name_n = (size_t)(colon - l);
        if (name_n == 14 && strncasecmp(l, "content-length", 14) == 0) {
            if (*value < '0' || *value > '9' || (length = strtoul(value, NULL, 10)) > REQUEST_BYTES_MAX)
                return -413;
        } else if (name_n == 17 && strncasecmp(l, "transfer-encoding", 17) == 0) {
            return -411;
        } else if (name_n == 10 && strncasecmp(l, "connection", 10) == 0) {
            rq->close = strncasecmp(value, "close", 5) == 0;
        } else if (name_n == 13 && strncasecmp(l, "authorization", 13) == 0) {
            rq->authorization = value;
        } else if (name_n == 11 && strncasecmp(l, "traceparent", 11) == 0) {
            rq->traceparent = value;
        } else if (name_n == 12 && strncasecmp(l, "x-request-id", 12) == 0) {
            rq->request_id = value;
        }
    }
    rq->body = end + 4;
    rq->bytes = (size_t)(rq->body - c->in) + length;
    if (rq->bytes > REQUEST_BYTES_MAX)
        return -413;
    if (c->in_n < rq->bytes)
        return 0;
    for (char *p = c->in; p < end; p++) /* the head is complete: its lines become strings */
        if (*p == '\r')
            *p = 0;
    *end = 0;
    rq->method = c->in;
    rq->path = strchr(c->in, ' ');
    char *version = rq->path ? strchr(rq->path + 1, ' ') : NULL;
    if (!version)
        return -400;
    *rq->path++ = 0;
    *version = 0;
    rq->path[strcspn(rq->path, "?")] = 0;
    rq->close |= strcmp(version + 1, "HTTP/1.0") == 0;
    return 1;
}

/* ---- connections ---------------------------------------------------------------------------------------------------------- */

static void conn_close(struct conn *c)
{
    close(c->fd);
    c->fd = -1;
}

static void conn_flush(struct conn *c)
{
    while (c->out_sent < c->out_n) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_n - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            conn_close(c);
            return;
        }
        c->out_sent += (size_t)n;
    }
    c->out_n = c->out_sent = 0;
    if (c->closing)
        conn_close(c);
}

/* Serves the complete requests in the buffer, one after the other, as long as each answer could be sent. */
static void conn_work(struct conn *c)
{
    while (c->fd >= 0 && c->out_n == 0) {
        struct request rq;
        int r = request_read(c, &rq);
        if (r == 0)
            return;
        if (r < 0) {
            c->closing = true;
            conn_answer(c, -r, "{\"error\":\"the request is malformed or too large\"}\n", false);
            c->in_n = 0;
        } else {
            char after = rq.body[rq.bytes - (size_t)(rq.body - c->in)];
            c->in[rq.bytes] = 0;
            conn_serve(c, &rq);
            c->in[rq.bytes] = after;
            c->in_n -= rq.bytes;
            memmove(c->in, c->in + rq.bytes, c->in_n);
        }
        c->in[c->in_n] = 0;
        conn_flush(c);
    }
}

static void conn_read(struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_n, REQUEST_BYTES_MAX - c->in_n, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        conn_close(c);
        return;
    }
    c->in_n += (size_t)n;
    c->in[c->in_n] = 0;
    if (memchr(c->in, 0, c->in_n)) {
        conn_close(c);
        return;
    }
    conn_work(c);
}

static void conn_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (int i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &conns[i];
        if (c->fd >= 0)
            continue;
        c->fd = fd;
        c->in_n = c->out_n = c->out_sent = 0;
        c->in[0] = 0;
        c->closing = false;
        return;
    }
    close(fd);
}

/* ---- the loop ---------------------------------------------------------------------------------------------------------------- */

static int listen_on(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 511) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void on_stop(int signo)
{
    (void)signo;
    stopping = 1;
}

/* Fills pfd with the listener (while there is room) and every open connection; returns how many. who[i] tells whose pfd[i] is. */
static nfds_t poll_set(struct pollfd *pfd, struct conn **who, int listener)
{
    nfds_t n = 0;
    for (int i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &conns[i];
        if (c->fd < 0)
            continue;
        who[n] = c;
        pfd[n++] = (struct pollfd){.fd = c->fd, .events = c->out_n ? POLLOUT : POLLIN};
    }
    if (n < CONNS_MAX && listener >= 0) {
        who[n] = NULL;
        pfd[n++] = (struct pollfd){.fd = listener, .events = POLLIN};
    }
    return n;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Until SIGTERM or SIGINT, then until no request is unfinished, at most GRACE_MS. The signals are blocked except inside
 * ppoll(), so none is missed between looking at `stopping` and waiting. */
static void serve(int listener)
{
    static struct pollfd pfd[CONNS_MAX + 1];
    static struct conn *who[CONNS_MAX + 1];
    struct sigaction sa = {.sa_handler = on_stop};
    sigset_t stops, before;
    uint64_t deadline_ms = 0;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGINT);
    sigprocmask(SIG_BLOCK, &stops, &before);
    sigdelset(&before, SIGTERM);
    sigdelset(&before, SIGINT);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    for (int i = 0; i < CONNS_MAX; i++)
        conns[i].fd = -1;
    for (;;) {
        if (stopping && !deadline_ms) {
            deadline_ms = now_ms() + GRACE_MS;
            close(listener);
            listener = -1;
        }
        for (int i = 0; stopping && i < CONNS_MAX; i++)
            if (conns[i].fd >= 0 && conns[i].in_n == 0 && conns[i].out_n == 0)
                conn_close(&conns[i]);
        nfds_t n = poll_set(pfd, who, listener);
        if (stopping && (n == 0 || now_ms() > deadline_ms))
            return;
        struct timespec second = {.tv_sec = 1};
        if (ppoll(pfd, n, stopping ? &second : NULL, &before) <= 0)
            continue;
        for (nfds_t i = 0; i < n; i++) {
            if (!pfd[i].revents)
                continue;
            if (!who[i]) {
                conn_accept(listener);
            } else if (pfd[i].events & POLLOUT) {
                conn_flush(who[i]);
                conn_work(who[i]);
            } else {
                conn_read(who[i]);
            }
        }
    }
}
