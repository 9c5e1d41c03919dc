/* engine_plan.c - from objects and live endpoints to a plan in every worker; gateway sockets; doors into the mesh.
 *
 * Publishing compares the new plan with the last one: endpoints that it does not name any more are counted in leaving, once
 * per worker, until each worker has told that its last request there is over. That count is what a drain waits for.
 */
#include "engine_int.h"

#define GATE_RETRY_MS 5000

static struct slice id_key(const uint64_t *id) { return slice_of((const char *)id, sizeof *id); }

/* ---- gates: sockets of Gateways ------------------------------------------------------------------------------------- */

struct gate *gate_find(struct engine *e, uint64_t token)
{
    for (size_t i = 0; i < e->gates_n; i++)
        if (e->gates[i].token == token)
            return &e->gates[i];
    return NULL;
}

static struct gate *gate_add(struct engine *e, uint64_t token, const struct addr *a)
{
    ARRAY_GROW(MEM_API, e->gates, e->gates_n, e->gates_cap);
    struct gate *g = &e->gates[e->gates_n++];
    *g = (struct gate){.token = token, .address = *a};
    return g;
}

static void gate_share(struct engine *e, struct gate *g, const int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        /* A socket that nobody accepts from would still be given connections: every one needs a worker. */
        worker_post(e, (uint32_t)i % e->workers_n, (struct msg){.type = W_LISTEN, .a = g->token, .n = (uint32_t)fds[i]});
    }
    g->open = true;
    mem_free(g->why);
    g->why = NULL;
    bool all = true;
    for (size_t i = 0; i < e->gates_n; i++)
        all &= e->gates[i].open;
    if (all)
        e->configuring = false;
}

/* What a client writes before the address. */
static const char *gate_scheme(const struct gate *g)
{
    switch ((enum listen_protocol)g->protocol) {
    case LISTEN_HTTPS: return "https://";
    case LISTEN_TLS: return "tls://";
    case LISTEN_TCP: return "tcp://";
    case LISTEN_HTTP: break;
    }
    return "http://";
}

void gate_listening(struct engine *e, uint64_t token, enum err er, const char *text, const int *fds, int n)
{
    struct gate *g = gate_find(e, token);
    if (er == OK && g && g->wanted) {
        gate_share(e, g, fds, n);
        char at[ADDR_TEXT_MAX];
        addr_format(&g->address, at);
        log_info("gateway", "%s listens on %s%s/", g->gateway, gate_scheme(g), at);
        return;
    }
    for (int i = 0; i < n; i++)
        socket_close(fds[i]);
    if (er == OK || !g)
        return;
    mem_free(g->why);
    g->why = mem_strdup(MEM_API, text && *text ? text : err_text(er));
    log_error("gateway", "%s: %s", g->gateway, g->why);
    struct slice name, ns = slice_cut(slice_cstr(g->gateway), '/', &name);
    char *ns_text = mem_strndup(MEM_API, ns.p, ns.n);
    engine_event(e, ns_text, "Gateway", name.p, true, "ListenFailed", g->why);
    mem_free(ns_text);
    if (e->configuring)
        engine_config_failed(e);
    else
        timer_set(e->loop, &e->gate_retry, GATE_RETRY_MS);
}

void gate_adopt(struct engine *e, uint64_t token, const struct addr *a, const int *fds, int n)
{
    if (gate_find(e, token)) { /* this engine was in charge before, and its workers have not let go of it */
        for (int i = 0; i < n; i++)
            socket_close(fds[i]);
        return;
    }
    struct gate *g = gate_add(e, token, a);
    g->gateway = mem_strdup(MEM_API, "");
    gate_share(e, g, fds, n);
}

void engine_gates_retry(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, gate_retry);
    for (size_t i = 0; i < e->gates_n; i++)
        if (e->gates[i].wanted && !e->gates[i].open)
            sup_listen(e->sup, e->gates[i].token, &e->gates[i].address, 0, (int)e->workers_n);
}

void gates_free(struct engine *e)
{
    for (size_t i = 0; i < e->gates_n; i++) {
        mem_free(e->gates[i].gateway);
        mem_free(e->gates[i].why);
    }
    mem_free(e->gates);
}

static void gates_follow(struct engine *e, const struct plan *plan)
{
    for (size_t i = 0; i < e->gates_n; i++)
        e->gates[i].wanted = false;
    for (uint32_t i = 0; i < plan->listeners_n; i++) {
        const struct plan_listener *ln = &plan->listeners[i];
        struct gate *g = gate_find(e, ln->token);
        bool fresh = !g;
        if (fresh)
            g = gate_add(e, ln->token, &ln->address);
        mem_free(g->gateway);
        g->gateway = mem_strdup(MEM_API, ln->gateway);
        g->protocol = (uint8_t)ln->protocol;
        g->wanted = true;
        if (fresh)
            sup_listen(e->sup, g->token, &g->address, 0, (int)e->workers_n);
    }
    for (size_t i = 0; i < e->gates_n;) {
        struct gate *g = &e->gates[i];
        if (g->wanted) {
            i++;
            continue;
        }
        workers_post_all(e, (struct msg){.type = W_UNLISTEN, .a = g->token});
        sup_unlisten(e->sup, g->token);
        mem_free(g->gateway);
        mem_free(g->why);
        *g = e->gates[--e->gates_n];
    }
}

/* ---- doors into the mesh ------------------------------------------------------------------------------------------------ */

static void door_post(struct engine *e, const struct mesh_replica *m, int fd)
{
    struct door_msg *d = mem_new(MEM_API, sizeof *d);
    *d = (struct door_msg){m->id, fd, mem_strdup(MEM_API, m->ns), mem_strdup(MEM_API, m->workload), mem_strdup(MEM_API, m->name)};
    worker_post(e, (uint32_t)(m->id % e->workers_n), (struct msg){.type = W_DOOR, .p = d});
}

static void inside_listen(struct engine *e, struct mesh_replica *m, const struct addr *a, bool dgram)
{
    struct inside_key key = {addr_ip4_host(a), a->port, dgram};
    struct slice k = slice_of((const char *)&key, sizeof key);
    if (a->family != ADDR_IP4 || table_get(&m->inside, k))
        return;
    uint64_t *token = mem_new(MEM_API, sizeof *token);
    *token = TOKEN_INSIDE | (dgram ? TOKEN_DGRAM : 0) | ++e->inside_token;
    table_put(&m->inside, k, token);
    if (dgram)
        sup_listen_dgram(e->sup, *token, a, m->id);
    else
        sup_listen(e->sup, *token, a, m->id, 1);
}

void mesh_listen(struct engine *e, struct mesh_replica *m, const struct addr *a) { inside_listen(e, m, a, false); }
void mesh_listen_dgram(struct engine *e, struct mesh_replica *m, const struct addr *a) { inside_listen(e, m, a, true); }

/* Without sk_lookup each service address and port has a listener of its own inside each namespace; the event log and the name server have some in any case. */
static void inside_follow(struct engine *e, struct mesh_replica *m)
{
    for (uint32_t i = 0; i < e->plan->clusters_n && e->caps.net == SUP_NET_LISTEN; i++) {
        struct addr a = e->plan->clusters[i].address;
        a.port = e->plan->clusters[i].port;
        mesh_listen(e, m, &a);
    }
    broker_inside_follow(e, m);
    names_inside_follow(e, m);
    store_inside_follow(e, m);
}

static struct mesh_replica *mesh_find(struct engine *e, uint64_t id) { return table_get(&e->mesh, id_key(&id)); }

/* The replica that a listener is in, and what it listens on: the table's key. NULL: it is gone. */
static struct mesh_replica *mesh_of(struct engine *e, uint64_t token, struct slice *key)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));) {
        struct mesh_replica *m = s->value;
        for (struct table_slot *t = NULL; (t = table_next(&m->inside, t));)
            if (*(uint64_t *)t->value == token) {
                *key = slice_of(t->key, t->key_n);
                return m;
            }
    }
    return NULL;
}

void mesh_inside_listening(struct engine *e, uint64_t token, uint64_t replica_id, enum err er, const char *text, int fd)
{
    struct slice key = SLICE("");
    uint32_t ip = 0;
    struct mesh_replica *m = replica_id ? mesh_find(e, replica_id) : NULL;
    if (!m)
        m = mesh_of(e, token, &key);
    if (key.n >= sizeof ip)
        memcpy(&ip, key.p, sizeof ip);
    if (er != OK && m && ip != 0x7f000001u) /* there the workload listens itself, which is its right */
        log_warn("mesh", "%s can't reach a service: %s", m->name, text && *text ? text : err_text(er));
    if (m && er == OK && fd >= 0 && token & TOKEN_DGRAM)
        names_inside_open(e, m, fd);
    else if (m && er == OK && fd >= 0)
        door_post(e, m, fd);
    else if (fd >= 0)
        socket_close(fd);
}

void mesh_up(struct engine *e, uint64_t id, const char *ns, const char *deployment, const char *replica, int fd)
{
    struct mesh_replica *m = mesh_find(e, id);
    if (m) { /* this engine was in charge before: its door is open */
        m->found = true;
        socket_close(fd);
        return;
    }
    m = mem_new(MEM_API, sizeof *m);
    m->id = id;
    m->found = true;
    m->ns = mem_strdup(MEM_API, ns);
    m->workload = mem_strdup(MEM_API, deployment);
    m->name = mem_strdup(MEM_API, replica);
    table_put(&e->mesh, id_key(&id), m);
    if (fd >= 0)
        door_post(e, m, fd);
    if (e->plan)
        inside_follow(e, m);
}

static void mesh_replica_free(struct mesh_replica *m)
{
    for (struct table_slot *t = NULL; (t = table_next(&m->inside, t));)
        mem_free(t->value);
    table_fini(&m->inside);
    mem_free(m->ns);
    mem_free(m->workload);
    mem_free(m->name);
    mem_free(m);
}

void mesh_gone(struct engine *e, uint64_t id)
{
    struct mesh_replica *m = table_del(&e->mesh, id_key(&id));
    if (!m)
        return;
    worker_post(e, (uint32_t)(id % e->workers_n), (struct msg){.type = W_DOOR_CLOSE, .a = id});
    names_inside_gone(e, id);
    for (struct table_slot *t = NULL; (t = table_next(&m->inside, t));)
        sup_unlisten(e->sup, *(uint64_t *)t->value);
    mesh_replica_free(m);
    engine_logs_trim(e);
}

void mesh_adopting(struct engine *e)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));)
        ((struct mesh_replica *)s->value)->found = false;
}

void mesh_trim(struct engine *e)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));) {
        const struct mesh_replica *m = s->value;
        if (m->found)
            continue;
        mesh_gone(e, m->id);
        s = NULL; /* the table has moved: from the start */
    }
}

bool mesh_has_inside(struct engine *e, uint64_t token)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));)
        for (struct table_slot *t = NULL; (t = table_next(&((struct mesh_replica *)s->value)->inside, t));)
            if (*(uint64_t *)t->value == token)
                return true;
    return false;
}

void mesh_free(struct engine *e)
{
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));)
        mesh_replica_free(s->value);
    table_fini(&e->mesh);
}

/* ---- publishing -------------------------------------------------------------------------------------------------------------- */

static void leaving_add(struct engine *e, uint64_t replica_id, uint64_t n)
{
    uint64_t *left = table_get(&e->leaving, id_key(&replica_id));
    if (!left) {
        left = mem_new(MEM_API, sizeof *left);
        table_put(&e->leaving, id_key(&replica_id), left);
    }
    *left += n;
}

static void leaving_count(struct engine *e, const struct plan *old, const struct plan *plan)
{
    struct table named = {0};
    for (uint32_t i = 0; i < plan->clusters_n; i++)
        for (uint32_t k = 0; k < plan->clusters[i].eps_n; k++)
            table_put(&named, id_key(&plan->clusters[i].eps[k].id), e);
    for (uint32_t i = 0; old && i < old->clusters_n; i++)
        for (uint32_t k = 0; k < old->clusters[i].eps_n; k++) {
            const struct plan_endpoint *ep = &old->clusters[i].eps[k];
            if (ep->replica_id && !table_get(&named, id_key(&ep->id)))
                leaving_add(e, ep->replica_id, e->workers_n);
        }
    table_fini(&named);
}

void engine_publish(struct engine *e)
{
    if (!e->objs.settled || !e->run) /* a plan of no objects would close every door */
        return;
    size_t eps_n, ext_n;
    const struct live_endpoint *eps = run_endpoints(e->run, &eps_n);
    const struct live_address *ext = resolver_addresses(e->resolver, &ext_n);
    eps = cluster_endpoints(e, eps, eps_n, &eps_n);
    ext = cluster_addresses(e, ext, ext_n, &ext_n);
    struct plan *old = e->plan;
    e->plan = plan_compile(e->memory, e->objects, eps, eps_n, ext, ext_n);
    leaving_count(e, old, e->plan);
    names_publish(e); /* first: who is accepted by the plan may ask at once */
    for (uint32_t i = 0; i < e->workers_n; i++)
        worker_post(e, i, (struct msg){.type = W_PLAN, .p = plan_ref(e->plan)});
    if (!e->stopping)
        gates_follow(e, e->plan);
    for (struct table_slot *s = NULL; (s = table_next(&e->mesh, s));)
        inside_follow(e, s->value);
    plan_unref(old);
}
