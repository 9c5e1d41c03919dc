/* engine_names.c - the name server in the engine: who may ask it, and through which sockets.
 *
 *     in a workload's namespace   127.0.0.1:53, UDP and TCP, unless the workload declares that port for itself; its resolv.conf names it
 *     on the host                 --dns, UDP and TCP, worker 0; off unless wanted
 *
 * All sockets are sup's, so they outlive this engine: questions by UDP wait in them until the next one reads. A zone follows each plan and goes to
 * every worker. A workload in a network of its own can't leave it, so names outside are refused there, but for those that ServiceEntries give an
 * address; the host may leave, and so its questions go on to the host's resolvers (--dns-forward).
 */
#include "engine_int.h"

#define HOST_ID 0                 /* whose doors the host's are; replicas count from 1 */
#define RESOLV_CONF "/etc/resolv.conf"
#define RESOLV_BYTES_MAX 65536
#define LOOPBACK 0x7f000001u

/* ---- on the worker's thread ---------------------------------------------------------------------------------------------- */

void worker_names_door(struct worker *w, struct names_door_msg *m)
{
    struct names_caller c = {.ns = m->ns, .leaves = m->id == HOST_ID};
    if (m->dgram)
        names_dgram(w->names, m->id, m->fd, &c);
    else
        names_listen(w->names, m->id, m->fd, &c);
    mem_free(m->ns);
    mem_free(m);
}

/* Through a door of the mesh came somebody who wants none of it. */
bool worker_inside(void *ctx, const struct proxy_caller *c, int fd)
{
    struct worker *w = ctx;
    if (c->local.port != DNS_PORT || addr_ip4_host(&c->local) != LOOPBACK)
        return worker_inside_etcd(w, c, fd) || worker_inside_log(w, c, fd);
    names_accept(w->names, c->replica_id, fd, &(struct names_caller){.ns = c->ns});
    return true;
}

/* ---- on the control thread -------------------------------------------------------------------------------------------------- */

static void door_send(struct engine *e, uint32_t worker, uint64_t id, int fd, bool dgram, const char *ns)
{
    struct names_door_msg *m = mem_new(MEM_API, sizeof *m);
    *m = (struct names_door_msg){.id = id, .fd = fd, .dgram = dgram, .ns = mem_strdup(MEM_API, ns)};
    worker_post(e, worker, (struct msg){.type = W_NAMES_DOOR, .p = m});
}

/* Questions by UDP of a replica. */
void names_inside_open(struct engine *e, const struct mesh_replica *m, int fd) { door_send(e, (uint32_t)(m->id % e->workers_n), m->id, fd, true, m->ns); }

void names_inside_gone(struct engine *e, uint64_t replica_id)
{
    worker_post(e, (uint32_t)(replica_id % e->workers_n), (struct msg){.type = W_NAMES_CLOSE, .a = replica_id});
}

void names_inside_follow(struct engine *e, struct mesh_replica *m)
{
    struct addr a = addr_ip4(LOOPBACK, DNS_PORT);
    const struct object *dep = objset_find(e->objects, OBJ_DEPLOYMENT, m->ns, m->workload);
    if (!dep || dep->dep.pod.host_network || e->caps.net == SUP_NET_HOST || !objset_port_free(e->objects, dep, DNS_PORT))
        return;
    mesh_listen(e, m, &a);
    mesh_listen_dgram(e, m, &a);
}

void names_publish(struct engine *e)
{
    size_t ext_n;
    const struct live_address *ext = resolver_addresses(e->resolver, &ext_n);
    struct names_zone *z = names_zone_new(e->objects, ext, ext_n, e->plan->named, e->plan->named_n, !e->broker.off, (uint32_t)e->plan->generation);
    for (uint32_t i = 0; i < e->workers_n; i++)
        worker_post(e, i, (struct msg){.type = W_ZONE, .p = names_zone_ref(z)});
    names_zone_unref(z);
}

/* ---- the host's ---------------------------------------------------------------------------------------------------------------- */

void names_up(struct engine *e)
{
    for (int dgram = 0; dgram < 2 && e->dns.address.family != ADDR_NONE; dgram++) {
        if (e->dns.open[dgram] || e->dns.asked[dgram])
            continue;
        e->dns.asked[dgram] = true;
        if (dgram)
            sup_listen_dgram(e->sup, TOKEN_DNS_UDP, &e->dns.address, 0);
        else
            sup_listen(e->sup, TOKEN_DNS_TCP, &e->dns.address, 0, 1);
    }
}

static void host_open(struct engine *e, bool dgram, int fd)
{
    char at[ADDR_TEXT_MAX];
    e->dns.open[dgram] = true;
    door_send(e, 0, HOST_ID, fd, dgram, "");
    addr_format(&e->dns.address, at);
    if (e->dns.open[0] && e->dns.open[1])
        log_info("names", "the name server answers on %s", at);
}

void names_listening(struct engine *e, uint64_t token, enum err er, const char *text, int fd)
{
    bool dgram = token == TOKEN_DNS_UDP;
    e->dns.asked[dgram] = false;
    if (er == OK) {
        host_open(e, dgram, fd);
        return;
    }
    log_error("names", "%s (--dns moves the name server's port)", text && *text ? text : err_text(er));
    if (!e->later)
        engine_config_failed(e);
}

void names_adopt(struct engine *e, uint64_t token, const struct addr *a, int fd)
{
    bool dgram = token == TOKEN_DNS_UDP;
    if (e->dns.open[dgram] || !addr_eq(a, &e->dns.address)) { /* this engine was in charge before, or another port is wanted now */
        socket_close(fd);
        if (!e->dns.open[dgram])
            sup_unlisten(e->sup, token);
        return;
    }
    host_open(e, dgram, fd);
}

/* ---- set-up ----------------------------------------------------------------------------------------------------------------------- */

/* ADDRESS:PORT,... */
static bool forward_parse(struct slice text, struct names_conf *c)
{
    while (text.n) {
        struct slice one = slice_cut(text, ',', &text);
        if (c->upstreams_n == NAMES_UPSTREAMS_MAX || !engine_address_parse(one, &c->upstreams[c->upstreams_n]))
            return false;
        c->upstreams_n++;
    }
    return true;
}

/* The host's resolv.conf is read once. Without one there is nobody to ask. */
bool names_init(struct engine *e)
{
    struct buf text = {0};
    struct slice forward = slice_cstr(e->conf.dns_forward);
    bool good = engine_address_parse(slice_cstr(e->conf.dns), &e->dns.address);
    if (good && forward.n && !slice_is(forward, "off"))
        good = forward_parse(forward, &e->dns.conf);
    else if (good && !forward.n && e->dns.address.family != ADDR_NONE && file_read(RESOLV_CONF, &text, RESOLV_BYTES_MAX) == OK)
        names_conf_read(&e->dns.conf, buf_slice(&text), &e->dns.address);
    buf_free(&text);
    return good;
}
