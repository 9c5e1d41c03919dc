/* zone.c - what there is under names: Services, hosts of ServiceEntries, the event log; and answers from it.
 *
 *     NAME.NAMESPACE.svc.cluster.local                  A: the Service's address            (any caller; also NAME.NAMESPACE.svc, NAME.NAMESPACE)
 *     NAME                                              the same of the caller's namespace
 *     _PORT._tcp.NAME.NAMESPACE.svc.cluster.local       SRV: a named port; of NAME...: all ports
 *     NAME..., a headless Service                       A: all that it stands for; SRV: each of their ports, at the names below
 *     ENDPOINT.NAME.NAMESPACE.svc.cluster.local         A: one of them
 *     ADDRESS.in-addr.arpa                              PTR, for addresses in 127.0.0.0/8
 *     a host of a ServiceEntry that the caller may see  A: its address
 *     localhost                                         A: 127.0.0.1 (RFC 6761 section 6.3)
 *
 * An ExternalName is a Service like others to a workload in a network of its own: it could not reach the name's real addresses, and can
 * reach the Service's. Whoever may leave gets CNAME and the addresses that were looked up.
 *
 * A headless Service of which nothing is ready is NXDOMAIN (Kubernetes DNS specification 1.1.0, 2.4.1). What stands first in an answer takes turns, by the
 * question's number, since many clients take the first.
 *
 * Other types of such names are NODATA: NOERROR without a record, with the SOA in the authority section (RFC 2308 section 2.2). Names below
 * cluster.local or in 127.in-addr.arpa that are not there are NXDOMAIN; others are none of ours.
 *
 * A name in the middle, such as default.svc.cluster.local, exists without having anything (RFC 8020): NODATA.
 */
#include "names_int.h"

#include <stdio.h>

#define ZONE_LABELS_MAX 6 /* of a name below cluster.local, as far as they tell anything */
#define NS_LABEL "ns"

struct zone_port {
    char *name;                  /* may be "" */
    uint16_t port;
};
/* What a headless Service stands for. */
struct zone_named {
    struct dns_name full;        /* ENDPOINT.NAME.NAMESPACE.svc.cluster.local */
    const char *host;            /* ENDPOINT */
    uint8_t ip[4];
    struct zone_port *ports;     /* its own: what targetPort is there */
    size_t ports_n;
};
struct zone_service {
    struct dns_name full;        /* NAME.NAMESPACE.svc.cluster.local */
    uint8_t ip[4];
    struct zone_port *ports;
    size_t ports_n;
    struct dns_name external;    /* of an ExternalName; n is 0 else */
    struct addr *outside;        /* where that is, as it was looked up */
    size_t outside_n;
    bool headless;               /* ip is none; it stands for: */
    struct zone_named *named;
    size_t named_n;
};
/* One ServiceEntry that names a host. */
struct zone_view {
    struct zone_view *next;
    const char *ns;
    char **export_to;
    size_t export_to_n;
};
struct zone_host {
    struct dns_name name;
    uint8_t ip[4];
    struct zone_view *views;
};
struct names_zone {
    uint32_t refs;
    struct arena mem;
    struct table services;       /* "name.ns" in lower case -> zone_service */
    struct table namespaces;     /* -> anything */
    struct table hosts;          /* in lower case -> zone_host */
    struct table ips;            /* 4 bytes -> dns_name */
    struct dns_name top, reverse, ns_name, localhost;
    struct dns_soa soa;
};

/* ---- making ---- */

static struct dns_name name_must(const char *text)
{
    struct dns_name n;
    enum err e = dns_name_of(slice_cstr(text), &n);
    MUST(e == OK);
    return n;
}

/* a.b in lower case; ERR_LIMIT when it can be no key. */
static void *service_find(const struct names_zone *z, struct slice name, struct slice ns)
{
    char key[2 * DNS_LABEL_MAX + 1];
    size_t n = 0;
    if (name.n > DNS_LABEL_MAX || ns.n > DNS_LABEL_MAX || slice_find(name, '.') >= 0)
        return NULL;
    for (size_t i = 0; i < name.n; i++)
        key[n++] = ascii_lower(name.p[i]);
    key[n++] = '.';
    for (size_t i = 0; i < ns.n; i++)
        key[n++] = ascii_lower(ns.p[i]);
    return table_get(&z->services, slice_of(key, n));
}

static struct zone_service *service_add(struct names_zone *z, const char *name, const char *ns, uint32_t ip, size_t ports_n)
{
    struct zone_service *v = arena_zalloc(&z->mem, sizeof *v);
    char *full = arena_printf(&z->mem, "%s.%s.svc.cluster.local", name, ns);
    if (dns_name_of(slice_cstr(full), &v->full) != OK)
        return NULL; /* names of objects are labels: this does not happen, and would be no name */
    for (int i = 0; i < 4; i++)
        v->ip[i] = (uint8_t)(ip >> (24 - 8 * i));
    v->ports = arena_zalloc(&z->mem, (ports_n + 1) * sizeof *v->ports);
    v->ports_n = ports_n;
    table_put(&z->services, slice_cstr(arena_printf(&z->mem, "%s.%s", name, ns)), v);
    table_put(&z->namespaces, slice_cstr(ns), z);
    if (ip)
        table_put(&z->ips, slice_of((const char *)v->ip, 4), &v->full);
    return v;
}

static void service_take(struct names_zone *z, const struct object *o, const struct live_address *ext, size_t ext_n)
{
    struct zone_service *v = o->svc.headless || o->svc.address.family == ADDR_IP4 ? service_add(z, o->name, o->ns, addr_ip4_host(&o->svc.address), o->svc.ports_n) : NULL;
    if (!v)
        return;
    v->headless = o->svc.headless;
    for (size_t i = 0; i < v->ports_n; i++)
        v->ports[i] = (struct zone_port){arena_strdup(&z->mem, o->svc.ports[i].name ? o->svc.ports[i].name : ""), o->svc.ports[i].port};
    if (!o->svc.external_name || dns_name_of(slice_cstr(o->svc.external_name), &v->external) != OK)
        return;
    v->outside = arena_zalloc(&z->mem, (ext_n + 1) * sizeof *v->outside);
    for (size_t i = 0; i < ext_n; i++)
        if (strcmp(ext[i].ns, o->ns) == 0 && strcmp(ext[i].service, o->name) == 0)
            v->outside[v->outside_n++] = ext[i].ip;
}

/* Those of one Service are neighbours in named. */
static void named_take(struct names_zone *z, const struct plan_named *named, size_t n)
{
    struct zone_named *all = arena_zalloc(&z->mem, (n + 1) * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        const struct plan_named *from = &named[i];
        struct zone_named *d = &all[i];
        struct zone_service *v = service_find(z, slice_cstr(from->service), slice_cstr(from->ns));
        char *full = arena_printf(&z->mem, "%s.%s.%s.svc.cluster.local", from->host, from->service, from->ns);
        if (!v || !v->headless || dns_name_of(slice_cstr(full), &d->full) != OK)
            continue;
        uint32_t ip = addr_ip4_host(&from->address);
        for (int k = 0; k < 4; k++)
            d->ip[k] = (uint8_t)(ip >> (24 - 8 * k));
        d->host = arena_strdup(&z->mem, from->host);
        d->ports = arena_zalloc(&z->mem, (from->ports_n + 1) * sizeof *d->ports);
        for (; d->ports_n < from->ports_n; d->ports_n++)
            d->ports[d->ports_n] = (struct zone_port){arena_strdup(&z->mem, from->ports[d->ports_n].name), from->ports[d->ports_n].port};
        if (!v->named_n)
            v->named = d;
        if (d == v->named + v->named_n)
            v->named_n++;
        if (!table_get(&z->ips, slice_of((const char *)d->ip, 4)))
            table_put(&z->ips, slice_of((const char *)d->ip, 4), &d->full);
    }
}

static void entry_take(struct names_zone *z, const struct object *o)
{
    for (size_t i = 0; i < o->entry.hosts_n && i < o->entry.addresses_n; i++) {
        struct dns_name name;
        uint32_t ip = addr_ip4_host(&o->entry.addresses[i]);
        if (!ip || dns_name_of(slice_cstr(o->entry.hosts[i]), &name) != OK)
            continue;
        char *key = arena_strdup(&z->mem, o->entry.hosts[i]);
        for (char *c = key; *c; c++)
            *c = ascii_lower(*c);
        struct zone_host *h = table_get(&z->hosts, slice_cstr(key));
        if (!h) {
            h = arena_zalloc(&z->mem, sizeof *h);
            h->name = name;
            for (int k = 0; k < 4; k++)
                h->ip[k] = (uint8_t)(ip >> (24 - 8 * k));
            table_put(&z->hosts, slice_cstr(key), h);
            if (!table_get(&z->ips, slice_of((const char *)h->ip, 4)))
                table_put(&z->ips, slice_of((const char *)h->ip, 4), &h->name);
        }
        struct zone_view *v = arena_zalloc(&z->mem, sizeof *v);
        *v = (struct zone_view){.next = h->views, .ns = arena_strdup(&z->mem, o->ns), .export_to_n = o->entry.export_to_n};
        v->export_to = arena_zalloc(&z->mem, (v->export_to_n + 1) * sizeof *v->export_to);
        for (size_t k = 0; k < v->export_to_n; k++)
            v->export_to[k] = arena_strdup(&z->mem, o->entry.export_to[k]);
        h->views = v;
    }
}

/* The event log, in each namespace where nobody else has its name. */
static void log_take(struct names_zone *z, const struct objset *s)
{
    struct table done = {0};
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        if (o->kind != OBJ_DEPLOYMENT || table_put(&done, slice_cstr(o->ns), z) || !objset_log_named(s, o->ns))
            continue;
        struct zone_service *v = service_add(z, LOG_HOST, o->ns, LOG_ADDRESS, 1);
        if (v)
            v->ports[0] = (struct zone_port){"kafka", LOG_PORT};
    }
    table_fini(&done);
}

struct names_zone *names_zone_new(const struct objset *s, const struct live_address *ext, size_t ext_n, const struct plan_named *named, size_t named_n, bool log, uint32_t serial)
{
    struct names_zone *z = mem_new(MEM_NAMES, sizeof *z);
    z->refs = 1;
    arena_init(&z->mem, MEM_NAMES, 8192);
    z->top = name_must("cluster.local");
    z->reverse = name_must("127.in-addr.arpa");
    z->ns_name = name_must(NS_LABEL ".dns.cluster.local");
    z->localhost = name_must("localhost");
    z->soa = (struct dns_soa){.mname = z->ns_name, .rname = name_must("hostmaster.cluster.local"), .serial = serial, .refresh_s = 7200, .retry_s = 1800,
                              .expire_s = 86400, .minimum_s = NAMES_NEGATIVE_TTL_S};
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        if (o->kind == OBJ_SERVICE)
            service_take(z, o, ext, ext_n);
        else if (o->kind == OBJ_SERVICEENTRY)
            entry_take(z, o);
        else if (o->kind == OBJ_DEPLOYMENT)
            table_put(&z->namespaces, slice_cstr(o->ns), z);
    }
    named_take(z, named, named_n);
    if (log)
        log_take(z, s);
    return z;
}

struct names_zone *names_zone_ref(struct names_zone *z)
{
    __atomic_fetch_add(&z->refs, 1, __ATOMIC_RELAXED);
    return z;
}

void names_zone_unref(struct names_zone *z)
{
    if (!z || __atomic_sub_fetch(&z->refs, 1, __ATOMIC_ACQ_REL))
        return;
    table_fini(&z->services);
    table_fini(&z->namespaces);
    table_fini(&z->hosts);
    table_fini(&z->ips);
    arena_fini(&z->mem);
    mem_free(z);
}

/* ---- looking ---- */

/* One question being answered. */
struct look {
    const struct names_zone *z;
    const struct names_caller *c;
    const struct dns_query *q;
    struct dns_writer w;
    const struct dns_name *zone_name; /* whose SOA stands with what is not there */
    enum dns_rcode rcode;
};

static const struct dns_name *asked(const struct look *k) { return &k->q->question.name; }
static bool wants(const struct look *k, enum dns_type t) { return k->q->question.type == t || k->q->question.type == DNS_ANY; }

static bool namespace_there(const struct names_zone *z, struct slice ns)
{
    char key[DNS_LABEL_MAX];
    for (size_t i = 0; i < ns.n; i++)
        key[i] = ascii_lower(ns.p[i]);
    return table_get(&z->namespaces, slice_of(key, ns.n)) != NULL;
}

/* Up to max labels; returns how many there are in all. */
static size_t labels_of(const struct dns_name *name, struct slice *out, size_t max)
{
    size_t n = 0, at = 0;
    for (struct slice label; (label = dns_label_next(name, &at)).n; n++)
        if (n < max)
            out[n] = label;
    return n;
}

static bool port_is(const struct zone_port *p, struct slice name) { return !name.n || slice_ieq(name, slice_cstr(p->name)); }

/* A port of all that a headless Service stands for; "": all ports. True: somebody has it. */
static bool named_srv(struct look *k, const struct zone_service *v, struct slice port)
{
    bool found = false, srv = k->q->question.type == DNS_SRV;
    for (int more = 0; more < 2; more++) /* the sections come one after the other */
        for (size_t i = 0; i < v->named_n; i++) {
            const struct zone_named *d = &v->named[(i + k->q->id) % v->named_n];
            bool has = false;
            for (size_t p = 0; p < d->ports_n; p++) {
                bool it = port_is(&d->ports[p], port);
                has = has || it;
                if (it && srv && !more)
                    dns_add_srv(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, 0, 100, d->ports[p].port, &d->full);
            }
            if (has && srv && more)
                dns_add_a(&k->w, DNS_ADDITIONAL, &d->full, NAMES_TTL_S, d->ip);
            found = found || has;
        }
    return found;
}

/* False: there is none. */
static bool headless_say(struct look *k, const struct zone_service *v)
{
    for (size_t i = 0; i < v->named_n && wants(k, DNS_A); i++)
        dns_add_a(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, v->named[(i + k->q->id) % v->named_n].ip);
    if (k->q->question.type == DNS_SRV)
        (void)named_srv(k, v, SLICE(""));
    return v->named_n > 0;
}

static bool named_say(struct look *k, const struct zone_service *v, struct slice host)
{
    for (size_t i = 0; i < v->named_n; i++) {
        if (!slice_ieq(host, slice_cstr(v->named[i].host)))
            continue;
        if (wants(k, DNS_A))
            dns_add_a(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, v->named[i].ip);
        return true;
    }
    return false;
}

static void srv_add(struct look *k, const struct zone_service *v, const struct zone_port *p)
{
    dns_add_srv(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, 0, 100, p->port, &v->full);
}

static void external_add(struct look *k, const struct zone_service *v)
{
    if (!wants(k, DNS_A) && !wants(k, DNS_AAAA) && !wants(k, DNS_CNAME))
        return;
    dns_add_name(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, DNS_CNAME, &v->external);
    for (size_t i = 0; i < v->outside_n; i++)
        if (v->outside[i].family == ADDR_IP4 && wants(k, DNS_A))
            dns_add_a(&k->w, DNS_ANSWER, &v->external, NAMES_TTL_S, v->outside[i].ip);
        else if (v->outside[i].family == ADDR_IP6 && wants(k, DNS_AAAA))
            dns_add_aaaa(&k->w, DNS_ANSWER, &v->external, NAMES_TTL_S, v->outside[i].ip);
}

/* False: a headless one of which nothing is ready. */
static bool service_say(struct look *k, const struct zone_service *v)
{
    if (v->headless)
        return headless_say(k, v);
    if (v->external.n && k->c->leaves) {
        external_add(k, v);
        return true;
    }
    if (wants(k, DNS_A))
        dns_add_a(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, v->ip);
    if (k->q->question.type != DNS_SRV)
        return true;
    for (size_t i = 0; i < v->ports_n; i++)
        srv_add(k, v, &v->ports[i]);
    if (v->ports_n)
        dns_add_a(&k->w, DNS_ADDITIONAL, &v->full, NAMES_TTL_S, v->ip);
    return true;
}

/* _PORT._tcp, or _tcp alone, in front of a Service. False: it has no such port. */
static bool port_say(struct look *k, const struct zone_service *v, struct slice port, struct slice proto)
{
    bool found = false;
    if (!slice_ieq(proto, SLICE("_tcp")))
        return false;
    if (v->headless && port.n > 1 && port.p[0] == '_')
        return named_srv(k, v, slice_of(port.p + 1, port.n - 1));
    if (v->headless)
        return !port.n && v->named_n > 0;
    for (size_t i = 0; i < v->ports_n; i++) {
        const struct zone_port *p = &v->ports[i];
        bool it = port.n > 1 ? port.p[0] == '_' && slice_ieq(slice_of(port.p + 1, port.n - 1), slice_cstr(p->name)) : p->name[0] != 0;
        found = found || it;
        if (it && port.n && k->q->question.type == DNS_SRV) {
            srv_add(k, v, p);
            dns_add_a(&k->w, DNS_ADDITIONAL, &v->full, NAMES_TTL_S, v->ip);
            break;
        }
    }
    return found;
}

/* The top itself. */
static void top_say(struct look *k)
{
    static const uint8_t here[4] = {127, 0, 0, 1};
    if (wants(k, DNS_SOA))
        dns_add_soa(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, &k->z->soa);
    if (!wants(k, DNS_NS))
        return;
    dns_add_name(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, DNS_NS, &k->z->ns_name);
    dns_add_a(&k->w, DNS_ADDITIONAL, &k->z->ns_name, NAMES_TTL_S, here);
}

/* ns.dns, which is where one asks, and dns above it. */
static bool own_say(struct look *k, const struct slice *l, size_t n)
{
    static const uint8_t here[4] = {127, 0, 0, 1};
    if (n == 2 && slice_ieq(l[0], SLICE(NS_LABEL)) && slice_ieq(l[1], SLICE("dns"))) {
        if (wants(k, DNS_A))
            dns_add_a(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, here);
        return true;
    }
    return n == 1 && slice_ieq(l[0], SLICE("dns"));
}

/* What stands before cluster.local. False: there is no such name. */
static bool cluster_say(struct look *k, const struct dns_name *below)
{
    struct slice l[ZONE_LABELS_MAX];
    size_t n = labels_of(below, l, ZONE_LABELS_MAX);
    if (n == 0) {
        top_say(k);
        return true;
    }
    if (n >= ZONE_LABELS_MAX || !slice_ieq(l[n - 1], SLICE("svc")))
        return n < ZONE_LABELS_MAX && own_say(k, l, n);
    if (n <= 2)
        return n == 1 || namespace_there(k->z, l[0]);
    const struct zone_service *v = service_find(k->z, l[n - 3], l[n - 2]);
    if (!v)
        return false;
    if (n == 4 && v->headless && named_say(k, v, l[0]))
        return true;
    if (n > 3)
        return port_say(k, v, n == 5 ? l[0] : SLICE(""), l[n - 4]);
    return service_say(k, v);
}

/* ---- addresses to names ---- */

static bool octet(struct slice s, uint8_t *out)
{
    uint64_t v;
    if (!s.n || s.n > 3 || slice_u64(s, 255, &v) != OK)
        return false;
    *out = (uint8_t)v;
    return true;
}

static bool reverse_say(struct look *k, const struct dns_name *below)
{
    struct slice l[3];
    uint8_t ip[4] = {127, 0, 0, 0};
    size_t n = labels_of(below, l, 3);
    if (n < 3)
        return true; /* a name in the middle */
    for (size_t i = 0; i < 3; i++)
        if (n > 3 || !octet(l[i], &ip[3 - i]))
            return false;
    const struct dns_name *name = table_get(&k->z->ips, slice_of((const char *)ip, 4));
    if (!name && memcmp(ip, "\177\0\0\1", 4) == 0)
        name = &k->z->localhost;
    if (name && wants(k, DNS_PTR))
        dns_add_name(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, DNS_PTR, name);
    return name != NULL;
}

/* ---- short names and hosts outside ---- */

static bool seen_by(const struct zone_host *h, const char *ns)
{
    for (const struct zone_view *v = h->views; v; v = v->next) {
        for (size_t i = 0; i < v->export_to_n; i++) {
            const char *to = v->export_to[i];
            if (strcmp(to, "*") == 0 || strcmp(to, ns) == 0 || (strcmp(to, ".") == 0 && strcmp(v->ns, ns) == 0))
                return true;
        }
        if (!v->export_to_n)
            return true;
    }
    return false;
}

static const struct zone_service *short_find(const struct look *k)
{
    struct slice l[3];
    size_t n = labels_of(asked(k), l, 3);
    if (n == 1)
        return service_find(k->z, l[0], slice_cstr(k->c->ns));
    bool whole = n == 2 || (n == 3 && slice_ieq(l[2], SLICE("svc")));
    return whole ? service_find(k->z, l[0], l[1]) : NULL;
}

static bool host_say(struct look *k)
{
    char text[DNS_TEXT_MAX];
    size_t n = dns_name_text(asked(k), text);
    for (size_t i = 0; i < n; i++)
        text[i] = ascii_lower(text[i]);
    const struct zone_host *h = table_get(&k->z->hosts, slice_of(text, n));
    if (!h || k->c->leaves || !seen_by(h, k->c->ns)) /* who may leave gets the real one */
        return false;
    if (wants(k, DNS_A))
        dns_add_a(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, h->ip);
    return true;
}

/* A name as Services have them as such, and no Service has it. To who may leave it is a name of outside; to the others nobody can have it but a Service. They are told so: stubs
 * take REFUSED for a server that fails, ask again, and have their programs do so (EAI_AGAIN). */
static bool short_gone(struct look *k)
{
    struct slice l[3];
    size_t n = labels_of(asked(k), l, 3);
    if (k->c->leaves || n < 1 || n > 3)
        return false;
    bool svc = slice_ieq(l[n - 1], SLICE("svc"));
    if (n > 1 && !svc && (n > 2 || !namespace_there(k->z, l[1])))
        return false;
    bool above = n == 1 ? svc || namespace_there(k->z, l[0]) : n == 2 && svc && namespace_there(k->z, l[0]); /* names with more labels are below it (RFC 8020) */
    k->rcode = above ? DNS_NOERROR : DNS_NXDOMAIN;
    return true;
}

static bool other_say(struct look *k)
{
    static const uint8_t here[4] = {127, 0, 0, 1};
    struct dns_name below;
    if (dns_name_below(asked(k), &k->z->localhost, &below)) {
        if (wants(k, DNS_A))
            dns_add_a(&k->w, DNS_ANSWER, asked(k), NAMES_TTL_S, here);
        return true;
    }
    const struct zone_service *v = short_find(k);
    if (v && !service_say(k, v))
        k->rcode = DNS_NXDOMAIN;
    return v || host_say(k) || short_gone(k);
}

/* ---- answers ---- */

/* False: none of ours. */
static bool look(struct look *k)
{
    struct dns_name below;
    bool there;
    k->zone_name = &k->z->top;
    if (dns_name_below(asked(k), &k->z->top, &below)) {
        there = cluster_say(k, &below);
    } else if (dns_name_below(asked(k), &k->z->reverse, &below)) {
        k->zone_name = &k->z->reverse;
        there = reverse_say(k, &below);
    } else {
        return other_say(k);
    }
    k->rcode = there ? DNS_NOERROR : DNS_NXDOMAIN;
    return true;
}

size_t names_answer(const struct names_zone *z, const struct names_caller *c, const struct dns_query *q, char *out, size_t cap)
{
    struct look k = {.z = z, .c = c, .q = q, .rcode = DNS_NOERROR};
    uint16_t type = q->question.type;
    dns_answer_begin(&k.w, out, cap, q);
    if (q->question.class != DNS_CLASS_IN || type == DNS_AXFR || type == DNS_IXFR || type == DNS_OPT)
        return dns_answer_end(&k.w, DNS_REFUSED, false, c->leaves);
    if (!look(&k))
        return 0;
    if (!k.w.counts[DNS_ANSWER] && !k.w.truncated)
        dns_add_soa(&k.w, DNS_AUTHORITY, k.zone_name, NAMES_NEGATIVE_TTL_S, &z->soa);
    return dns_answer_end(&k.w, k.rcode, true, c->leaves);
}
