/* sim_world_test.c - hosts, clients, the beginning and the end of the suites of policies. See sim_world_test.h. */
#include "sim_world_test.h"

#define GATE_IP 0x7f000001u
#define BODY_MAX (1u << 20)

struct sim_world_test T;
bool world_secure;
static struct head_out host_out, client_out;
static struct http_srv_conf host_conf;
static struct http_cli_conf client_conf;
static struct kv label = {"app", "svc", 3};
static struct kvs labels = {&label, 1};
static struct live_endpoint live[HOSTS_MAX];
static struct list host_conns;
static uint64_t mem_before[MEM_TAG_COUNT];
static char filler[BODY_MAX];

uint64_t chance(uint64_t below)
{
    uint64_t z = (T.chance += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

/* What byte at of the body of request id is. */
static char body_byte(uint32_t id, uint64_t at) { return (char)(id * 31 + at * 7 + (at >> 8)); }

static void body_make(uint32_t id, uint64_t from, char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = body_byte(id, from + i);
}

static struct pieces one(struct iovec *v, const void *p, size_t n)
{
    *v = (struct iovec){(void *)(uintptr_t)p, n};
    return (struct pieces){v, n ? 1 : 0, n};
}

/* ---- hosts ---------------------------------------------------------------------------------------------------------------- */

struct host_conn {
    struct http_srv srv;
    struct host *h;
    struct list link, reqs;
};
struct host_req {
    struct http_req *r;
    struct host_conn *c;
    struct list link;
    struct timer timer;
    struct deed deed;
    uint32_t visit;     /* index */
    bool rest;          /* the second half is due */
};

static void host_req_over(struct host_req *q)
{
    struct visit *v = &T.visits[q->visit];
    v->over_ms = sim_now_ms();
    timer_clear(&q->timer);
    list_del(&q->link);
    q->c->h->running--;
    T.running--;
    mem_free(q);
}

static void host_answer_rest(struct host_req *q)
{
    struct iovec v;
    struct http_req *r = q->r;
    uint32_t n = q->deed.bytes - q->deed.bytes / 2;
    T.visits[q->visit].answered = true;
    r->owner = NULL;
    host_req_over(q);
    http_req_send(r, one(&v, filler, n));
    http_req_end(r, SLICE(""));
}

static void host_answer(struct host_req *q)
{
    struct deed d = q->deed;
    struct http_req *r = q->r;
    struct iovec v;
    bool half = d.rest_ms && d.bytes > 1;
    head_clear(&host_out);
    head_status(&host_out, d.status ? d.status : 200, SLICE(""));
    head_lit(&host_out, "X-Visit: ");
    head_u64(&host_out, q->visit);
    head_lit(&host_out, "\r\nX-Id: ");
    head_u64(&host_out, T.visits[q->visit].id);
    head_lit(&host_out, "\r\n");
    if (half) {
        q->rest = true;
        http_req_answer(r, &host_out, H1_LENGTH, d.bytes, one(&v, filler, d.bytes / 2), false);
        timer_set(T.host_loop, &q->timer, d.rest_ms);
        return;
    }
    T.visits[q->visit].answered = true;
    r->owner = NULL;
    host_req_over(q);
    http_req_answer(r, &host_out, H1_LENGTH, d.bytes, one(&v, filler, d.bytes), true);
}

static void host_act(struct host_req *q)
{
    struct http_req *r = q->r;
    switch (q->deed.kind) {
    case DEED_ANSWER:
        if (q->rest)
            host_answer_rest(q);
        else
            host_answer(q);
        return;
    case DEED_SILENT:
        return;
    case DEED_RESET:
        r->owner = NULL;
        host_req_over(q);
        if (!http_req_is_h2(r))
            stream_reset(http_srv_stream(r->c));
        http_req_cut(r);
        return;
    }
}

static void host_timer(struct timer *t) { host_act(CONTAINER_OF(t, struct host_req, timer)); }

static void host_decide(struct host_req *q)
{
    T.visits[q->visit].whole = true;
    q->deed = T.script ? T.script(&T.visits[q->visit]) : (struct deed){0};
    if (q->deed.delay_ms)
        timer_set(T.host_loop, &q->timer, q->deed.delay_ms);
    else
        host_act(q);
}

static void host_body_take(struct host_req *q, struct pieces body)
{
    struct visit *v = &T.visits[q->visit];
    for (int i = 0; i < body.n; i++) {
        const char *p = body.v[i].iov_base;
        for (size_t k = 0; k < body.v[i].iov_len; k++)
            if (p[k] != body_byte(v->id, v->body_bytes++))
                fail_msg("request %u: byte %u of its body is not what was sent", v->id, v->body_bytes - 1);
    }
}

static void host_check(struct host_conn *c, struct http_req *r)
{
    head_clear(&host_out);
    head_status(&host_out, T.check((uint32_t)(c->h - T.hosts)), SLICE(""));
    http_req_answer(r, &host_out, H1_LENGTH, 0, (struct pieces){0}, true);
}

static void host_tunnel(struct http_req *r)
{
    head_clear(&host_out);
    head_status(&host_out, 101, SLICE(""));
    head_lit(&host_out, "Upgrade: websocket\r\nSec-WebSocket-Accept: host\r\n");
    http_req_answer(r, &host_out, H1_TUNNEL, 0, (struct pieces){0}, false);
}

static void host_request(struct http_srv *s, struct http_req *r, const struct h1_head *h, struct pieces body, bool end)
{
    struct host_conn *c = CONTAINER_OF(s, struct host_conn, srv);
    if (T.hosts_tunnel && h->upgrade) {
        host_tunnel(r);
        return;
    }
    if (T.check && slice_is(h->path, "/health")) {
        host_check(c, r);
        return;
    }
    struct host_req *q = mem_new(MEM_SIM, sizeof *q);
    const struct h1_field *f = h1_find(h, SLICE("x-id"));
    uint64_t id = 0;
    assert_true(f && slice_u64(f->value, T.asks_n - 1, &id) == OK);
    if (T.seen)
        T.seen(h);
    q->r = r;
    q->c = c;
    r->owner = q;
    timer_init(&q->timer, host_timer);
    list_push(&c->reqs, &q->link);
    c->h->running++;
    c->h->visits++;
    T.running++;
    ARRAY_GROW(MEM_SIM, T.visits, T.visits_n, T.visits_cap);
    q->visit = T.visits_n++;
    T.visits[q->visit] = (struct visit){.id = (uint32_t)id, .host = (uint32_t)(c->h - T.hosts), .nth = ++T.asks[id].visits, .at_ms = sim_now_ms(), .method = h->method_id};
    host_body_take(q, body);
    if (end)
        host_decide(q);
}

static void host_body(struct http_req *r, struct pieces body, bool end)
{
    struct host_req *q = r->owner;
    if (!q && T.hosts_tunnel) {
        http_req_send(r, body);
        if (end)
            http_req_end(r, SLICE(""));
    }
    if (!q)
        return;
    host_body_take(q, body);
    if (end)
        host_decide(q);
}

static void host_aborted(struct http_req *r, enum err e)
{
    struct host_req *q = r->owner;
    if (!q)
        return;
    r->owner = NULL;
    T.visits[q->visit].aborted = true;
    host_req_over(q);
}

static void host_drained(struct http_req *r) {}
static void host_refused(struct http_srv *s, uint16_t status, const char *text) { fail_msg("a host refused what the proxy sent: %u %s", status, text); }
static void host_released(struct http_srv *s)
{
    struct host_conn *c = CONTAINER_OF(s, struct host_conn, srv);
    assert_true(list_empty(&c->reqs));
    list_del(&c->link);
    c->h->connections--;
    T.connections--;
    mem_free(c);
}
static const struct http_srv_ops host_ops = {
    .request = host_request, .body = host_body, .drained = host_drained, .aborted = host_aborted, .refused = host_refused, .released = host_released};

static void host_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct host_conn *c = mem_new(MEM_SIM, sizeof *c);
    c->h = ln->owner;
    list_init(&c->reqs);
    list_push(&host_conns, &c->link);
    c->h->connections++;
    T.connections++;
    http_srv_open(&c->srv, T.host_loop, &host_conf, &host_ops, fd, NULL);
}

void host_live(uint32_t i)
{
    struct host *h = &T.hosts[i];
    struct addr a = addr_ip4(GATE_IP, 8080);
    if (h->up)
        return;
    h->fd = sim_listen(h->replica_id, &a);
    h->ln = (struct listener){.owner = h};
    listener_start(&h->ln, T.host_loop, h->fd, false, host_accepted);
    h->up = true;
}

static void host_conn_close(struct host_conn *c)
{
    LIST_FOREACH(l, &c->reqs) {
        struct host_req *q = CONTAINER_OF(l, struct host_req, link);
        q->r->owner = NULL;
        host_req_over(q);
    }
    http_srv_close(&c->srv);
}

void host_kill(uint32_t i)
{
    struct host *h = &T.hosts[i];
    if (!h->up)
        return;
    h->up = false;
    listener_stop(&h->ln);
    socket_close(h->fd);
    LIST_FOREACH(l, &host_conns) {
        struct host_conn *c = CONTAINER_OF(l, struct host_conn, link);
        if (c->h != h)
            continue;
        stream_reset(http_srv_stream(&c->srv));
        host_conn_close(c);
    }
}

/* ---- clients ----------------------------------------------------------------------------------------------------------------- */

struct ask_call {
    struct http_call call;
    struct client *c;
    struct list link;
    struct timer rest;   /* the second half of the body */
    uint32_t id, sent;
};

static void client_pump(struct client *c);

static void ask_over(struct ask_call *k, enum ask_state state)
{
    struct client *c = k->c;
    struct ask *a = &T.asks[k->id];
    a->state = state;
    a->over_ms = sim_now_ms();
    timer_clear(&k->rest);
    list_del(&k->link);
    mem_free(k);
    c->running--;
    T.open--;
    if (c->cli.version == HTTP_1 && c->open && http_cli_room(&c->cli))
        http_cli_rest(&c->cli);
    if (!timer_is_set(&c->next))
        timer_set(T.client_loop, &c->next, c->gap_ms ? chance(c->gap_ms + 1) : 0);
}

static void client_next(struct timer *t) { client_pump(CONTAINER_OF(t, struct client, next)); }

static void client_part(struct ask_call *k, struct pieces body, bool end)
{
    T.asks[k->id].got += body.bytes;
    if (end)
        ask_over(k, ASK_ANSWERED);
}

static void client_response(struct http_call *call, const struct h1_head *h, struct pieces body, bool end)
{
    struct ask_call *k = CONTAINER_OF(call, struct ask_call, call);
    struct ask *a = &T.asks[k->id];
    const struct h1_field *id = h1_find(h, SLICE("x-id")), *visit = h1_find(h, SLICE("x-visit"));
    uint64_t n;
    a->heads++;
    a->status = h->status;
    if (visit) {
        assert_true(slice_u64(visit->value, T.visits_n - 1, &n) == OK);
        a->visit = (uint32_t)n;
        assert_true(id && slice_u64(id->value, UINT32_MAX, &n) == OK && n == k->id); /* its own answer, nobody else's */
    }
    client_part(k, body, end);
}

static void client_body(struct http_call *call, struct pieces body, bool end) { client_part(CONTAINER_OF(call, struct ask_call, call), body, end); }
static void client_failed(struct http_call *call, enum err e)
{
    struct ask_call *k = CONTAINER_OF(call, struct ask_call, call);
    k->c->failed = true;
    T.asks[k->id].unsent = call->unsent;
    ask_over(k, T.asks[k->id].heads ? ASK_CUT : ASK_LOST);
}
static void client_ended(struct http_cli *cli, enum err e)
{
    struct client *c = CONTAINER_OF(cli, struct client, cli);
    c->closed_at_rest += !c->failed;
    c->failed = false;
    http_cli_close(cli);
}
static void client_released(struct http_cli *cli)
{
    struct client *c = CONTAINER_OF(cli, struct client, cli);
    c->open = false;
    if (!timer_is_set(&c->next))
        timer_set(T.client_loop, &c->next, 0);
}
static void client_connected(struct http_cli *c) {}
static void client_interim(struct http_call *k, const struct h1_head *h) {}
static void client_drained(struct http_call *k) {}
static const struct http_cli_ops client_ops = {client_connected, client_interim, client_response, client_body, client_drained, client_failed, client_ended, client_released};

static void ask_rest(struct timer *t)
{
    struct ask_call *k = CONTAINER_OF(t, struct ask_call, rest);
    static char part[16384];
    while (k->sent < T.asks[k->id].body_bytes) {
        struct iovec v;
        size_t n = MIN(T.asks[k->id].body_bytes - k->sent, sizeof part);
        body_make(k->id, k->sent, part, n);
        http_call_send(&k->call, one(&v, part, n));
        k->sent += (uint32_t)n;
    }
    http_call_end(&k->call, SLICE(""));
}

static void ask_begin(struct client *c)
{
    static const char *const names[] = {[H1_GET] = "GET", [H1_POST] = "POST", [H1_PUT] = "PUT"};
    static char first[BODY_MAX];
    ARRAY_GROW(MEM_SIM, T.asks, T.asks_n, T.asks_cap);
    struct ask *a = &T.asks[T.asks_n];
    *a = (struct ask){.id = T.asks_n++, .method = c->method, .body_bytes = c->body_bytes, .at_ms = sim_now_ms(), .visit = NO_VISIT};
    struct ask_call *k = mem_new(MEM_SIM, sizeof *k);
    k->c = c;
    k->id = a->id;
    list_push(&c->calls, &k->link);
    timer_init(&k->rest, ask_rest);
    c->left--;
    c->running++;
    char head[512];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\nX-Id: %u\r\n%s", names[c->method], c->path, a->id, c->fields ? c->fields : "");
    if (c->body_bytes)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %u\r\n", c->body_bytes);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    k->sent = c->slow_ms ? c->body_bytes / 2 : c->body_bytes;
    body_make(a->id, 0, first, k->sent);
    struct iovec v;
    bool end = k->sent == c->body_bytes;
    http_cli_request(&c->cli, &k->call, c->method, slice_of(head, (size_t)n), c->body_bytes ? H1_LENGTH : H1_NO_BODY, one(&v, first, k->sent), end);
    if (!end)
        timer_set(T.client_loop, &k->rest, c->slow_ms);
}

static void client_pump(struct client *c)
{
    struct addr a = addr_ip4(GATE_IP, 8080);
    if (!c->left && !c->running && c->open) {
        client_end(c);
        return;
    }
    if (c->open && !c->running && !http_cli_room(&c->cli)) {
        http_cli_close(&c->cli); /* released() comes back here */
        return;
    }
    if (!c->open && c->left) {
        if (c->once && c->connections) {
            T.open -= c->left;
            c->left = 0;
            return;
        }
        memset(&c->cli, 0, sizeof c->cli);
        c->open = true;
        c->connections++;
        http_cli_connect(&c->cli, T.client_loop, &client_conf, &client_ops, -1, &a, c->version, NULL);
    }
    while (c->left && c->running < c->parallel && http_cli_room(&c->cli)) {
        ask_begin(c);
        if (c->gap_ms)
            break;
    }
    if (c->gap_ms && c->left && c->running < c->parallel && http_cli_room(&c->cli) && !timer_is_set(&c->next))
        timer_set(T.client_loop, &c->next, chance(c->gap_ms + 1));
}

struct client *client_start(enum http_version version, uint32_t requests)
{
    struct client *c = mem_new(MEM_SIM, sizeof *c);
    c->version = version;
    c->path = "/";
    c->method = H1_GET;
    c->left = requests;
    c->parallel = version == HTTP_1 ? 1 : 8;
    timer_init(&c->next, client_next);
    list_init(&c->calls);
    MUST(T.clients_n < COUNT_OF(T.clients));
    T.clients[T.clients_n++] = c;
    T.open += requests;
    return c;
}

void client_go(struct client *c) { timer_set(T.client_loop, &c->next, c->gap_ms ? chance(c->gap_ms + 1) : 0); }

void client_end(struct client *c)
{
    T.open -= c->left;
    c->left = 0;
    if (c->open)
        http_cli_close(&c->cli);
    timer_clear(&c->next);
}

/* ---- the proxies' sockets ------------------------------------------------------------------------------------------------------ */

/* The answer to sockets_wanted(): not from inside the call, as sup's comes by another turn. */
struct late_sockets {
    struct timer t;
    struct proxy *p;
    uint64_t replica_id;
    uint32_t n;
};

static void sockets_late(struct timer *t)
{
    struct late_sockets *l = CONTAINER_OF(t, struct late_sockets, t);
    int fds[64];
    uint32_t n = MIN(l->n, (uint32_t)COUNT_OF(fds));
    for (uint32_t i = 0; i < n; i++)
        fds[i] = sim_socket(l->replica_id);
    proxy_sockets(l->p, l->replica_id, fds, n);
    mem_free(l);
}

static void sockets_wanted(void *ctx, uint32_t worker, uint64_t replica_id, uint32_t n)
{
    struct late_sockets *l = mem_new(MEM_SIM, sizeof *l);
    l->p = *(struct proxy **)ctx;
    l->replica_id = replica_id;
    l->n = n;
    timer_init(&l->t, sockets_late);
    timer_set(T.proxy_loop, &l->t, 1);
}

static void endpoint_left(void *ctx, uint32_t worker, uint64_t endpoint_id, uint64_t replica_id) { T.left++; }
static const struct proxy_ops proxy_ops = {sockets_wanted, endpoint_left};

static void proxy_start(uint32_t i)
{
    struct proxy_conf pc;
    proxy_conf_default(&pc);
    struct addr a = addr_ip4(GATE_IP, 8080);
    T.proxies[i] = proxy_new(T.proxy_loop, &pc, &proxy_ops, &T.proxies[i]);
    proxy_plan(T.proxies[i], plan_ref(T.plan));
    int fd = -1;
    assert_int_equal(listen_socket(&a, 1024, true, &fd), OK);
    proxy_listen(T.proxies[i], T.plan->listeners[0].token, fd);
}

struct proxy *proxy_more(void)
{
    proxy_start(1);
    return T.proxies[1];
}

/* ---- the world ------------------------------------------------------------------------------------------------------------------- */

void world_plan(uint32_t mask)
{
    struct live_endpoint eps[HOSTS_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < T.hosts_n; i++)
        if (mask & 1u << i)
            eps[n++] = live[i];
    struct plan *old = T.plan;
    T.plan = plan_compile(T.memory, T.objects, eps, n, NULL, 0);
    for (int i = 0; i < PROXIES_MAX; i++)
        if (T.proxies[i])
            proxy_plan(T.proxies[i], plan_ref(T.plan));
    plan_unref(old);
}

static void objects_read(const char *more)
{
    static const char base[] = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: { name: gw }\n"
                               "spec: { selector: { istio: ingressgateway }, servers: [ { port: { number: 8080, name: http, protocol: HTTP }, hosts: [ \"*\" ] } ] }\n---\n"
                               "apiVersion: v1\nkind: Service\nmetadata: { name: svc }\nspec: { selector: { app: svc }, ports: [ { port: 80, targetPort: 8080 } ] }\n";
    struct diags d = {0};
    struct buf text = {0};
    buf_printf(&text, "%s%s", base, more);
    T.objects = objset_new();
    objset_read(T.objects, "test.yaml", "/", buf_slice(&text), "default", false, &d);
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR)
            print_message("%u: %s %s\n", d.items[i].line, d.items[i].where, d.items[i].reason);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    buf_free(&text);
    objset_addresses(T.objects);
}

static void hosts_start(uint32_t n)
{
    static char names[HOSTS_MAX][16];
    T.hosts_n = n;
    list_init(&host_conns);
    head_out_init(&host_out);
    http_srv_conf_default(&host_conf);
    host_conf.h1.limits = &h1_limits_default;
    host_conf.h1.out = &host_out;
    host_conf.h1.head_timeout_ms = host_conf.h1.idle_timeout_ms = host_conf.h1.body_timeout_ms = 100000000;
    host_conf.window_bytes = BODY_MAX;
    for (uint32_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "svc-%u", i);
        T.hosts[i].replica_id = i + 1ull;
        live[i] = (struct live_endpoint){.replica_id = i + 1ull, .ns = "default", .deployment = "svc", .name = names[i], .labels = &labels};
        host_live(i);
    }
}

void world_start(uint64_t seed, const struct sim_conf *faults, uint32_t hosts, const char *more)
{
    struct sim_conf sc = faults ? *faults : (struct sim_conf){.latency_us_min = 20, .latency_us_max = 400};
    if (T.seed) {
        print_message("the test before failed with seed %llu; what it left is no world to go on with\n", (unsigned long long)T.seed);
        exit(1);
    }
    sc.seed = seed;
    memset(&T, 0, sizeof T);
    T.seed = seed;
    T.chance = seed * 0x2545f4914f6cdd1du;
    sim_start(&sc);
    T.proxy_loop = loop_new("proxy");
    T.host_loop = loop_new("hosts");
    T.client_loop = loop_new("clients");
    head_out_init(&client_out);
    http_cli_conf_default(&client_conf);
    client_conf.limits = &h1_limits_default;
    client_conf.out = &client_out;
    hosts_start(hosts);
    objects_read(more);
    T.memory = plan_memory_new();
    T.plan = plan_compile(T.memory, T.objects, live, hosts, NULL, 0);
    assert_true(T.plan->listeners_n >= 1 && T.plan->listeners[0].address.port == 8080);
    proxy_start(0);
}

static uint64_t mix(uint64_t h, uint64_t v) { return (h ^ v) * 0x100000001b3u; }

/* All that clients and hosts have seen. */
static uint64_t history(void)
{
    uint64_t h = sim_trace();
    for (uint32_t i = 0; i < T.asks_n; i++) {
        const struct ask *a = &T.asks[i];
        h = mix(mix(mix(mix(h, a->state), a->status), a->over_ms), (uint64_t)a->visit << 32 | a->visits);
    }
    for (uint32_t i = 0; i < T.visits_n; i++)
        h = mix(mix(mix(h, T.visits[i].host), T.visits[i].over_ms), T.visits[i].id);
    return h;
}

static void clients_stop(void)
{
    for (uint32_t i = 0; i < T.clients_n; i++)
        client_end(T.clients[i]);
    pass(50);
    for (uint32_t i = 0; i < T.clients_n; i++) {
        assert_false(T.clients[i]->open);
        timer_clear(&T.clients[i]->next);
        mem_free(T.clients[i]);
    }
}

/* What the workers have counted is given back when the last request is over. */
static void assert_at_rest(struct proxy *p)
{
    assert_int_equal(counter_read(&p->c.requests_now), 0);
    for (uint32_t s = 0; s < p->eps_n; s++)
        if (p->eps[s])
            assert_int_equal(p->eps[s]->lb.in_flight, 0);
    for (uint32_t s = 0; s < p->upstreams_n; s++)
        if (p->upstreams[s]) {
            const struct cluster_shared *shared = p->upstreams[s]->c->shared;
            assert_int_equal(shared->requests | shared->pending | shared->retries, 0);
            assert_true(list_empty(&p->upstreams[s]->waiting));
        }
}

uint64_t world_stop(void)
{
    clients_stop();
    uint64_t h = history();
    for (int i = 0; i < PROXIES_MAX; i++)
        if (T.proxies[i]) {
            assert_at_rest(T.proxies[i]);
            proxy_free(T.proxies[i]);
        }
    for (uint32_t i = 0; i < T.hosts_n; i++)
        host_kill(i);
    pass(50);
    assert_true(list_empty(&host_conns));
    assert_int_equal(T.connections | T.running, 0);
    assert_int_equal(sim_sockets_open(), 0);
    plan_unref(T.plan);
    plan_memory_free(T.memory);
    objset_free(T.objects);
    mem_free(T.asks);
    mem_free(T.visits);
    head_out_fini(&host_out);
    head_out_fini(&client_out);
    loop_free(T.proxy_loop);
    loop_free(T.host_loop);
    loop_free(T.client_loop);
    sim_stop();
    T.seed = 0;
    for (int t = 0; t < MEM_TAG_COUNT; t++)
        if (mem_bytes((enum mem_tag)t) != mem_before[t])
            fail_msg("%llu bytes of %s are left", (unsigned long long)(mem_bytes((enum mem_tag)t) - mem_before[t]), mem_tag_name((enum mem_tag)t));
    return h;
}

/* A half-closed connection may still want its answer, so the http room goes on; a host that knows its client better does not. */
static void hosts_look(void)
{
    LIST_FOREACH(l, &host_conns) {
        struct host_conn *c = CONTAINER_OF(l, struct host_conn, link);
        if (!http_srv_stream(&c->srv)->eof_seen || list_empty(&c->reqs))
            continue;
        LIST_FOREACH(r, &c->reqs)
            T.visits[CONTAINER_OF(r, struct host_req, link)->visit].aborted = true;
        host_conn_close(c);
    }
}

/* Called between steps: what hosts see at once is looked at when all loops have run. */
static bool look(void)
{
    if (T.hosts_notice)
        hosts_look();
    T.connections_max = MAX(T.connections_max, T.connections);
    T.running_max = MAX(T.running_max, T.running);
    return false;
}

bool all_over(void *ctx) { return look() || T.open == 0; }
bool never(void *ctx) { return look(); }
void pass(uint64_t ms) { sim_run(never, NULL, ms); }

void run_all(uint64_t ms)
{
    if (sim_run(all_over, NULL, ms))
        return;
    for (uint32_t i = 0; i < T.asks_n; i++)
        if (T.asks[i].state == ASK_OPEN)
            fail_msg("request %u (%u visits) and %u others are not over after %llu ms", i, T.asks[i].visits, T.open - 1, (unsigned long long)ms);
    fail_msg("%u requests were never begun", T.open);
}

uint64_t counted(const counter *c) { return counter_read(c); }

struct cluster *cluster_now(void)
{
    for (uint32_t s = 0; s < T.proxies[0]->upstreams_n; s++)
        if (T.proxies[0]->upstreams[s])
            return T.proxies[0]->upstreams[s]->c;
    return NULL;
}

uint32_t ejected_now(void)
{
    uint64_t now = loop_now_ms(T.proxy_loop);
    uint32_t n = 0;
    for (uint32_t i = 0; i < T.plan->clusters_n; i++)
        for (uint32_t k = 0; k < T.plan->clusters[i].eps_n; k++)
            n += __atomic_load_n(&T.plan->clusters[i].eps[k].health->ejected_until_ms, __ATOMIC_RELAXED) > now;
    return n;
}

uint32_t count_status(uint16_t status)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < T.asks_n; i++)
        n += T.asks[i].state == ASK_ANSWERED && T.asks[i].status == status;
    return n;
}

void each_seed(uint64_t n, void (*body)(uint64_t seed))
{
    uint64_t first = 0;
    for (uint64_t seed = REPEAT_PART > 1; seed <= n; seed++) { /* where each is dear, one history is enough of the first */
        uint64_t s = MAX(seed, 1u); /* the first one twice */
        for (int t = 0; t < MEM_TAG_COUNT; t++)
            mem_before[t] = mem_bytes((enum mem_tag)t);
        body(s);
        uint64_t h = world_stop();
        if (seed == 0)
            first = h;
        else if (seed == 1 && first && h != first && !world_secure)
            fail_msg("seed 1 has two histories");
    }
}
