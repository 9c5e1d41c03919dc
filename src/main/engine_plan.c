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
    if (!e->started || !e->run)
        return;
    size_t eps_n, ext_n;
    const struct live_endpoint *eps = run_endpoints(e->run, &eps_n);
    const struct live_address *ext = resolver_addresses(e->resolver, &ext_n);
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

/* ---- objects --------------------------------------------------------------------------------------------------------------------- */

static enum err objects_save(struct engine *e, const struct objset *set, struct diags *d)
{
    struct buf path = {0}, text = {0};
    buf_printf(&path, "%s/objects.json", e->conf.data_dir);
    objset_save(set, &text);
    enum err er = file_replace(path.p, text.p, text.n, 0600);
    if (er != OK)
        diags_add(d, DIAG_ERROR, path.p, 0, 0, "", "make room or mend the permissions, and apply again; nothing was changed", "the objects could not be saved: %s", err_text(er));
    buf_free(&path);
    buf_free(&text);
    return er;
}

/* From here on next is what is wanted. */
static void objects_use(struct engine *e, struct objset *next)
{
    struct objset *old = e->objects;
    e->objects = next;
    run_want(e->run, next);
    resolver_want(e->resolver, next);
    engine_publish(e);
    topics_follow(e);
    objset_free(old);
    engine_logs_trim(e);
    mem_trim();
}

/* Without sk_lookup a service's port has a listener of Weir's in every namespace, and a workload there that listens on the
 * same port with all addresses could not start: EADDRINUSE, which it would not explain. */
static void port_check(const struct object *service, const struct object *dep, struct diags *d)
{
    struct buf where = {0};
    buf_printf(&where, "Service/%s/%s spec.ports", service->ns, service->name);
    for (size_t i = 0; i < service->svc.ports_n; i++)
        for (size_t k = 0; k < dep->dep.pod.ports_n; k++)
            if (service->svc.ports[i].port == dep->dep.pod.ports[k].port)
                diags_add(d, DIAG_ERROR, service->file, service->line, service->column, where.p, "give the Service another port, such as 80, with this one as targetPort; or run Weir as root",
                          "port %u is also a container port of Deployment %s/%s, and without root (BPF sk_lookup) the two would be in each other's way", service->svc.ports[i].port, dep->ns, dep->name);
    buf_free(&where);
}

/* What this machine does not permit is refused by name, before anything is started. */
static void machine_check(struct engine *e, const struct objset *set, struct diags *d)
{
    for (size_t i = 0; i < objset_n(set) && e->caps.net != SUP_NET_LOOKUP; i++) {
        const struct object *dep = objset_at(set, i);
        if (dep->kind != OBJ_DEPLOYMENT || dep->dep.pod.host_network)
            continue;
        if (e->caps.net == SUP_NET_HOST)
            diags_add(d, DIAG_ERROR, dep->file, dep->line, dep->column, dep->name, "run Weir as root, permit user namespaces, or set hostNetwork: true with one replica and a free port",
                      "this machine permits no network namespaces (%s), and running replicas on host ports is not built yet", e->caps.why);
        for (size_t k = 0; k < objset_n(set) && e->caps.net == SUP_NET_LISTEN; k++)
            if (objset_at(set, k)->kind == OBJ_SERVICE)
                port_check(objset_at(set, k), dep, d);
    }
}

/* True when g is about an object of set. */
static bool about(const struct diag *g, const struct objset *set)
{
    bool found = false;
    for (size_t i = 0; i < objset_n(set) && !found; i++) {
        const struct object *o = objset_at(set, i);
        struct buf name = {0};
        buf_printf(&name, "%s/%s%s%s ", obj_kind_name(o->kind), o->ns, o->ns[0] ? "/" : "", o->name);
        found = slice_starts(slice_cstr(g->where), buf_slice(&name));
        buf_free(&name);
    }
    return found;
}

static bool said(const struct diags *d, const struct diag *g)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->items[i].where, g->where) == 0 && strcmp(d->items[i].reason, g->reason) == 0)
            return true;
    return false;
}

/* What was amiss before with objects that next does not touch (a reference to what has been deleted) is neither a reason to
 * refuse next nor worth repeating. */
static void references_check(struct engine *e, const struct objset *merged, const struct objset *next, struct diags *d)
{
    struct diags now = {0}, before = {0};
    objset_check(merged, &now);
    objset_check(e->objects, &before);
    for (size_t i = 0; i < now.n; i++) {
        const struct diag *g = &now.items[i];
        if (!said(&before, g) || about(g, next))
            diags_add(d, g->level, g->file, g->line, g->column, g->where, g->remedy, "%s", g->reason);
    }
    diags_free(&now);
    diags_free(&before);
}

void engine_restore(struct engine *e, const struct objset *saved)
{
    struct diags d = {0};
    struct objset *set = objset_copy(saved);
    objset_check(set, &d);
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR)
            log_warn("engine", "%s: %s", d.items[i].where, d.items[i].reason);
    diags_free(&d);
    objset_addresses(set);
    objects_use(e, set);
}

enum err engine_apply(struct engine *e, struct objset *next, bool dry_run, struct diags *d)
{
    if (e->stopping)
        return ERR_AGAIN; /* nothing would be started any more */
    struct objset *merged = objset_copy(e->objects), *given = objset_copy(next);
    objset_merge(merged, next); /* next is empty now */
    references_check(e, merged, given, d);
    objset_free(given);
    machine_check(e, merged, d);
    enum err er = d->errors ? ERR_INVALID : OK;
    if (er == OK && !dry_run) {
        objset_addresses(merged);
        er = objects_save(e, merged, d);
    }
    if (er != OK || dry_run) {
        objset_free(merged);
        return er;
    }
    objects_use(e, merged);
    return OK;
}

enum err engine_remove(struct engine *e, enum obj_kind k, const char *ns, const char *name)
{
    if (e->stopping)
        return ERR_AGAIN;
    struct objset *next = objset_copy(e->objects);
    struct diags d = {0};
    enum err er = objset_remove(next, k, ns, name) ? objects_save(e, next, &d) : ERR_NOTFOUND;
    diags_free(&d);
    if (er != OK) {
        objset_free(next);
        return er;
    }
    objects_use(e, next);
    return OK;
}
