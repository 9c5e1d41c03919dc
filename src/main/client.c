/* client.c - one HTTP request over the node's Unix socket: blocking, with a deadline, one connection per request.
 *
 * It speaks what src/api answers: Content-Length, chunked, or until the end. It does not redirect, retry or keep alive.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536
#define ANSWER_BYTES_MAX (256u << 20) /* of an answer that is collected: a log of 16 MiB and objects fit well */

/* One call in progress. */
struct call {
    const struct client_call *spec;
    struct client_answer *out;
    int fd;
    uint64_t due_ns; /* 0: no deadline */
    struct buf in;   /* received, not yet consumed */
    struct h1_head head;
    struct h1_chunked chunked;
    uint64_t left; /* of a body with a length */
    bool stopped;  /* data() has had enough */
};

static int wait_ms(const struct call *c)
{
    uint64_t now = mono_ns();
    if (!c->due_ns)
        return -1;
    return c->due_ns <= now ? 0 : (int)MIN((c->due_ns - now) / 1000000 + 1, (uint64_t)INT32_MAX);
}

static enum client_end ready(struct call *c, short events)
{
    struct pollfd p = {.fd = c->fd, .events = events};
    int n;
    do
        n = poll(&p, 1, wait_ms(c));
    while (n < 0 && errno == EINTR);
    return n > 0 ? CLIENT_OK : n == 0 ? CLIENT_LATE : CLIENT_BROKEN;
}

static enum client_end call_connect(struct call *c)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    size_t n = strlen(c->spec->socket_path);
    if (n >= sizeof sun.sun_path)
        return CLIENT_NO_NODE;
    memcpy(sun.sun_path, c->spec->socket_path, n + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return CLIENT_BROKEN;
    return connect(c->fd, (struct sockaddr *)&sun, sizeof sun) == 0 ? CLIENT_OK : CLIENT_NO_NODE;
}

static enum client_end call_send(struct call *c, struct slice s)
{
    while (s.n) {
        enum client_end e = ready(c, POLLOUT);
        if (e)
            return e;
        ssize_t n = send(c->fd, s.p, s.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return CLIENT_OK; /* the node refused early: its answer says why */
        if (n > 0)
            s = slice_of(s.p + n, s.n - (size_t)n);
    }
    return CLIENT_OK;
}

/* More bytes into in. *eof at the end of the connection. */
static enum client_end call_recv(struct call *c, bool *eof)
{
    enum client_end e = ready(c, POLLIN);
    if (e)
        return e;
    buf_reserve(&c->in, READ_BYTES);
    ssize_t n = recv(c->fd, c->in.p + c->in.n, READ_BYTES, 0);
    if (n < 0)
        return errno == EINTR ? CLIENT_OK : CLIENT_BROKEN;
    c->in.n += (size_t)n;
    *eof = n == 0;
    return CLIENT_OK;
}

static enum client_end call_head(struct call *c)
{
    enum h1_method m = strcmp(c->spec->method, "HEAD") == 0 ? H1_HEAD : H1_GET;
    bool eof = false;
    for (;;) {
        size_t used = 0;
        enum h1_error error;
        enum h1_result r = c->in.n ? h1_parse_response(c->in.p, c->in.n, &h1_limits_default, m, &c->head, &used, &error) : H1_MORE;
        if (r == H1_BAD || (r == H1_MORE && eof))
            return CLIENT_BROKEN;
        if (r == H1_DONE) {
            uint16_t status = c->head.status;
            memmove(c->in.p, c->in.p + used, c->in.n - used);
            c->in.n -= used;
            if (status >= 200)
                return CLIENT_OK;
            continue; /* 100 Continue */
        }
        enum client_end e = call_recv(c, &eof);
        if (e)
            return e;
    }
}

static void deliver(struct call *c, struct slice data)
{
    if (!data.n || c->stopped)
        return;
    if (c->spec->data && c->head.status == 200)
        c->stopped = !c->spec->data(c->spec->ctx, data);
    else
        buf_add_slice(&c->out->body, data);
}

/* Takes what is in the buffer. *done at the end of the body. False: it is malformed. */
static bool call_body_take(struct call *c, bool *done)
{
    size_t at = 0;
    if (c->head.framing == H1_CHUNKED) {
        enum h1_result r = H1_MORE;
        while (r == H1_MORE && at < c->in.n) {
            struct slice data = {0};
            size_t used = 0;
            enum h1_error error;
            r = h1_chunked_next(&c->chunked, c->in.p + at, c->in.n - at, &used, &data, &error);
            if (r == H1_BAD)
                return false;
            deliver(c, data);
            at += used;
        }
        *done = r == H1_DONE;
    } else {
        size_t n = c->head.framing == H1_LENGTH ? (size_t)MIN((uint64_t)c->in.n, c->left) : c->in.n;
        deliver(c, slice_of(c->in.p, n));
        c->left -= MIN(c->left, (uint64_t)n);
        *done = c->head.framing == H1_LENGTH && c->left == 0;
    }
    c->in.n = 0;
    return true;
}

static enum client_end call_body(struct call *c)
{
    bool eof = false, done = c->head.framing == H1_NO_BODY;
    c->left = c->head.framing == H1_LENGTH ? c->head.length : 0;
    h1_chunked_init(&c->chunked);
    while (!done && !c->stopped) {
        if (!call_body_take(c, &done) || c->out->body.n > ANSWER_BYTES_MAX)
            return CLIENT_BROKEN;
        if (eof && !done)
            return c->head.framing == H1_UNTIL_CLOSE ? CLIENT_OK : CLIENT_BROKEN;
        enum client_end e = done || c->stopped ? CLIENT_OK : call_recv(c, &eof);
        if (e)
            return e;
    }
    return CLIENT_OK;
}

enum client_end client_run(const struct client_call *spec, struct client_answer *out)
{
    struct call *c = mem_new(MEM_MISC, sizeof *c);
    struct buf head = {0};
    *out = (struct client_answer){0};
    c->spec = spec;
    c->out = out;
    c->fd = -1;
    c->due_ns = spec->timeout_ms ? mono_ns() + spec->timeout_ms * 1000000ull : 0;
    buf_printf(&head, "%s %s HTTP/1.1\r\nHost: weir\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", spec->method, spec->target, spec->body.n);
    enum client_end e = call_connect(c);
    if (!e)
        e = call_send(c, buf_slice(&head));
    if (!e)
        e = call_send(c, spec->body);
    if (!e)
        e = call_head(c);
    if (!e) {
        out->status = c->head.status;
        e = call_body(c);
    }
    if (c->fd >= 0)
        close(c->fd);
    buf_free(&head);
    buf_free(&c->in);
    mem_free(c);
    return e;
}
