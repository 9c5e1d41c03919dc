/* etcd_played_test.c - members of a cluster that a test plays (etcd_played_test.h). */
#include "etcd_played_test.h"
#include "sim.h"

#include <stdio.h>

static bool never(void *ctx) { return false; }

/* ---- answers ---- */

void question_over(struct question *q)
{
    if (q->played->over) q->played->over(q);
    list_del(&q->link);
    buf_free(&q->body);
    mem_free(q);
}

static struct pieces piece(struct iovec *v, struct slice s)
{
    *v = (struct iovec){(void *)(uintptr_t)s.p, s.n};
    return (struct pieces){v, s.n ? 1 : 0, s.n};
}

void played_head(struct played *p, uint16_t status)
{
    head_clear(&p->out);
    head_status(&p->out, status, SLICE(""));
    head_field(&p->out, SLICE("content-type"), SLICE("application/grpc"));
}

void played_answer(struct question *q, uint16_t status, struct slice bytes, const char *trailers)
{
    struct played *p = q->played;
    struct http_req *r = q->r;
    struct iovec v;
    question_over(q);
    played_head(p, status);
    http_req_answer(r, &p->out, H1_CHUNKED, 0, piece(&v, bytes), false);
    http_req_end(r, slice_cstr(trailers));
}

void played_open(struct question *q)
{
    played_head(q->played, 200);
    http_req_answer(q->r, &q->played->out, H1_CHUNKED, 0, (struct pieces){0}, false);
}

void played_say(struct question *q, struct slice bytes)
{
    struct iovec v;
    http_req_send(q->r, piece(&v, bytes));
}

/* ---- requests ---- */

static struct played_conn *conn_of(struct http_srv *c) { return CONTAINER_OF(c, struct played_conn, srv); }

/* NULL: it was answered already. */
static struct question *question_of(const struct http_req *r)
{
    LIST_FOREACH(it, &conn_of(r->c)->played->questions)
        if (CONTAINER_OF(it, struct question, link)->r == r) return CONTAINER_OF(it, struct question, link);
    return NULL;
}

static void body_take(struct question *q, struct pieces body, bool first, bool end)
{
    for (int i = 0; i < body.n; i++) buf_add(&q->body, body.v[i].iov_base, body.v[i].iov_len);
    q->played->heard(q, first, end);
}

static void on_request(struct http_srv *c, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct question *q = mem_new(MEM_SIM, sizeof *q);
    q->r = r;
    q->played = conn_of(c)->played;
    q->member = conn_of(c)->member;
    snprintf(q->path, sizeof q->path, SLICE_FMT, SLICE_ARG(h->target));
    list_push(&q->played->questions, &q->link);
    body_take(q, body, true, end);
}

static void on_body(struct http_req *r, struct pieces body, bool end)
{
    struct question *q = question_of(r);
    if (q) body_take(q, body, false, end);
}
static void on_drained(struct http_req *r) {}
static void on_aborted(struct http_req *r, enum err e)
{
    struct question *q = question_of(r);
    if (q) question_over(q);
}
static void on_refused(struct http_srv *c, uint16_t status, const char *label) {}
static void on_released(struct http_srv *c) { conn_of(c)->open = false; }
static const struct http_srv_ops srv_ops = {.request = on_request, .body = on_body, .drained = on_drained, .aborted = on_aborted, .refused = on_refused, .released = on_released};

static void on_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct played *p = ln->owner;
    assert_true(p->conns_n < PLAYED_CONNS_MAX);
    struct played_conn *c = p->conns[p->conns_n++] = mem_new(MEM_SIM, sizeof *c);
    c->played = p;
    c->open = true;
    c->member = (int)(CONTAINER_OF(ln, struct played_member, listener) - p->members);
    http_srv_open(&c->srv, p->loop, &p->conf, &srv_ops, fd, NULL);
}

/* ---- beginning and end ---- */

void played_start(struct played *p, int members)
{
    p->loop = loop_new("members");
    p->members_n = members;
    list_init(&p->questions);
    head_out_init(&p->out);
    http_srv_conf_default(&p->conf);
    p->conf.h1.limits = &h1_limits_default;
    p->conf.h1.out = &p->out;
    p->conf.h2 = true;
    for (int i = 0; i < members; i++) {
        struct played_member *m = &p->members[i];
        m->addr = addr_ip4(0x7f000001, (uint16_t)(PLAYED_PORT + i));
        m->fd = sim_listen(0, &m->addr);
        m->listener.owner = p;
        listener_start(&m->listener, p->loop, m->fd, false, on_accepted);
    }
}

void played_stop(struct played *p)
{
    for (int i = 0; i < p->members_n; i++) listener_stop(&p->members[i].listener);
    for (int i = 0; i < p->conns_n; i++)
        if (p->conns[i]->open) http_srv_close(&p->conns[i]->srv);
    sim_run(never, NULL, 50);
    for (int i = 0; i < p->conns_n; i++) {
        assert_false(p->conns[i]->open);
        mem_free(p->conns[i]);
    }
    while (!list_empty(&p->questions)) question_over(CONTAINER_OF(p->questions.next, struct question, link));
    for (int i = 0; i < p->members_n; i++) socket_close(p->members[i].fd);
    head_out_fini(&p->out);
    loop_free(p->loop);
}
