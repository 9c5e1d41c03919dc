/* addresses.c - addresses of Services and hosts outside, and the hosts file that makes them names.
 *
 * Every Service, and every host of a ServiceEntry, has one address in 127.128.0.0/9, the half of the loopback network that nothing
 * else uses by custom. It follows from a hash of "namespace/name", or of the host, so that the same manifests give the same
 * addresses on every machine; where two names fall on one address, the later (in the order of the set) takes the next free one,
 * and keeps it from then on. Two ServiceEntries for one host share its address: their ports add up, as in Istio. A host that
 * is a Service's own name has the Service's.
 *
 * A headless Service has none. What it stands for has, from the same numbers: by the name of the replica, which tells it from all others in its namespace, so
 * all nodes give it the same one. Who holds an address of those named above keeps it; two names on one are as good as never, and the later has the next free one.
 *
 * One address is kept for the event log (LOG_ADDRESS).
 *
 *   127 . 1hhhhhhh . hhhhhhhh . hhhhhhhh     h: 23 bits of the hash; a last byte of 0 or 255 is skipped, because tools
 *                                            take such addresses for networks and broadcasts
 */
#include "plan_int.h"

#define SERVICE_NET 0x7f800000u            /* 127.128.0.0 */
#define SERVICE_MASK 0x007fffffu           /* the 23 bits that vary */
#define SERVICE_MAX (((SERVICE_MASK + 1) / 256) * 254 - 1) /* addresses there are */

/* What has an address: a Service, or one host of a ServiceEntry. */
struct holder {
    struct object *o;
    size_t host;
};

static bool address_fits(uint32_t ip)
{
    uint32_t last = ip & 0xff;
    return (ip & ~SERVICE_MASK) == SERVICE_NET && last != 0 && last != 255 && ip != LOG_ADDRESS;
}

static struct slice address_key(const uint32_t *ip)
{
    return slice_of((const char *)ip, sizeof *ip);
}

/* The name that the address follows from; also tells holders apart. */
static void holder_name(const struct holder *h, struct buf *out)
{
    buf_clear(out);
    if (h->o->kind == OBJ_SERVICE)
        buf_printf(out, "%s/%s", h->o->ns, h->o->name);
    else
        buf_adds(out, h->o->entry.hosts[h->host]);
}

static struct addr *holder_address(const struct holder *h)
{
    return h->o->kind == OBJ_SERVICE ? &h->o->svc.address : &h->o->entry.addresses[h->host];
}

uint32_t service_address_pick(const struct table *taken, struct slice name)
{
    MUST(taken->n < SERVICE_MAX);
    uint64_t h = stable_hash64(STABLE_HASH_INIT, name);
    uint32_t offset = (uint32_t)(h ^ h >> 32) & SERVICE_MASK;
    for (;; offset = (offset + 1) & SERVICE_MASK) {
        uint32_t ip = SERVICE_NET | offset;
        if (address_fits(ip) && !table_get(taken, address_key(&ip)))
            return ip;
    }
}

/* One pass over what has addresses: the first gives those that are held to their holders, the second new ones to the rest. */
struct pass {
    struct table taken; /* address -> 1 */
    struct table names; /* name -> its address */
    struct buf name;
    bool fresh;
};

static void address_give(struct pass *p, const struct holder *h)
{
    struct addr *a = holder_address(h);
    holder_name(h, &p->name);
    uintptr_t ip = (uintptr_t)table_get(&p->names, buf_slice(&p->name));
    if (!ip) {
        uint32_t held = addr_ip4_host(a);
        bool keep = a->family == ADDR_IP4 && address_fits(held) && !table_get(&p->taken, address_key(&held));
        if (!keep && !p->fresh)
            return;
        held = keep ? held : service_address_pick(&p->taken, buf_slice(&p->name));
        table_put(&p->taken, address_key(&held), (void *)(uintptr_t)1);
        table_put(&p->names, buf_slice(&p->name), (void *)(uintptr_t)held);
        ip = held;
    }
    *a = addr_ip4((uint32_t)ip, 0);
}

/* The Service that host names in full; NULL: it is none. */
static const struct object *service_of_host(const struct objset *s, const char *host)
{
    static const char tail[] = ".svc.cluster.local";
    struct slice all = slice_cstr(host), ns_part;
    char ns[64], name[64];
    if (!slice_ends(all, SLICE(tail)))
        return NULL;
    struct slice first = slice_cut(slice_of(all.p, all.n - strlen(tail)), '.', &ns_part);
    if (first.n >= sizeof name || ns_part.n >= sizeof ns)
        return NULL;
    memcpy(name, first.p, first.n);
    memcpy(ns, ns_part.p, ns_part.n);
    name[first.n] = ns[ns_part.n] = '\0';
    return objset_find(s, OBJ_SERVICE, ns, name);
}

static void entry_give(struct pass *p, const struct objset *s, struct object *o)
{
    for (size_t i = 0; i < o->entry.hosts_n; i++) {
        const struct object *svc = service_of_host(s, o->entry.hosts[i]);
        if (svc)
            o->entry.addresses[i] = svc->svc.address;
        else if (o->entry.hosts[i][0] != '*') /* nobody can connect to a pattern */
            address_give(p, &(struct holder){o, i});
    }
}

void objset_addresses(struct objset *s)
{
    struct pass p = {0};
    for (int fresh = 0; fresh < 2; fresh++) { /* first those that have one, so that none is taken from them */
        p.fresh = fresh;
        for (size_t i = 0; i < objset_n(s); i++) {
            struct object *o = (struct object *)objset_at(s, i); /* s is ours to change, and so are its boxes */
            if (o->kind == OBJ_SERVICE && o->svc.headless)
                o->svc.address = (struct addr){0}; /* it may have been another one */
            else if (o->kind == OBJ_SERVICE)
                address_give(&p, &(struct holder){o, 0});
            else if (o->kind == OBJ_SERVICEENTRY)
                entry_give(&p, s, o);
        }
    }
    table_fini(&p.taken);
    table_fini(&p.names);
    buf_free(&p.name);
}

/* ---- hosts file ---------------------------------------------------------------------------------------------------------- */

static bool entry_seen_by(const struct object *o, const char *ns)
{
    for (size_t i = 0; i < o->entry.export_to_n; i++) {
        const char *to = o->entry.export_to[i];
        if (strcmp(to, "*") == 0 || strcmp(to, ns) == 0 || (strcmp(to, ".") == 0 && strcmp(o->ns, ns) == 0))
            return true;
    }
    return !o->entry.export_to_n;
}

static void service_hosts(const struct object *o, const char *ns, struct buf *out)
{
    char ip[ADDR_TEXT_MAX];
    if (o->svc.address.family != ADDR_IP4)
        return;
    addr_format_ip(&o->svc.address, ip);
    buf_printf(out, "%s %s.%s.svc.cluster.local %s.%s.svc %s.%s", ip, o->name, o->ns, o->name, o->ns, o->name, o->ns);
    if (strcmp(o->ns, ns) == 0)
        buf_printf(out, " %s", o->name);
    buf_addc(out, '\n');
}

/* A host once, whatever the number of entries; not at all where it is a Service's name, which has a line already. */
static void entry_hosts(const struct objset *s, const struct object *o, struct table *seen, struct buf *out)
{
    char ip[ADDR_TEXT_MAX];
    for (size_t i = 0; i < o->entry.addresses_n; i++) {
        if (o->entry.addresses[i].family != ADDR_IP4 || service_of_host(s, o->entry.hosts[i]) || table_put(seen, slice_cstr(o->entry.hosts[i]), (void *)o))
            continue;
        addr_format_ip(&o->entry.addresses[i], ip);
        buf_printf(out, "%s %s\n", ip, o->entry.hosts[i]);
    }
}

/* No line for ::1, on purpose: services have IPv4 addresses only, and with "::1 localhost" in the file many clients try ::1
 * first for localhost, where a workload that listens on 127.0.0.1 does not answer. */
void objset_hosts(const struct objset *s, const char *ns, struct buf *out)
{
    struct table seen = {0};
    buf_adds(out, "127.0.0.1 localhost\n");
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        if (o->kind == OBJ_SERVICE)
            service_hosts(o, ns, out);
        else if (o->kind == OBJ_SERVICEENTRY && entry_seen_by(o, ns))
            entry_hosts(s, o, &seen, out);
    }
    table_fini(&seen);
}

/* ---- the event log -------------------------------------------------------------------------------------------------------- */

bool objset_log_named(const struct objset *s, const char *ns)
{
    if (objset_find(s, OBJ_SERVICE, ns, LOG_HOST))
        return false;
    for (size_t i = objset_first(s, OBJ_SERVICEENTRY, ""); i < objset_n(s) && objset_at(s, i)->kind == OBJ_SERVICEENTRY; i++) {
        const struct object *o = objset_at(s, i);
        for (size_t h = 0; h < o->entry.hosts_n && entry_seen_by(o, ns); h++)
            if (strcmp(o->entry.hosts[h], LOG_HOST) == 0)
                return false;
    }
    return true;
}

bool objset_port_free(const struct objset *s, const struct object *dep, uint16_t port)
{
    for (size_t i = 0; i < dep->dep.pod.ports_n; i++)
        if (dep->dep.pod.ports[i].port == port)
            return false;
    for (size_t i = objset_first(s, OBJ_SERVICE, dep->ns); i < objset_n(s); i++) {
        const struct object *svc = objset_at(s, i);
        if (svc->kind != OBJ_SERVICE || strcmp(svc->ns, dep->ns) != 0)
            break;
        for (size_t k = 0; k < svc->svc.ports_n && kvs_match(&svc->svc.selector, &dep->dep.pod.labels); k++)
            if (svc->svc.ports[k].target == port)
                return false;
    }
    return true;
}
