/* addresses.c - service addresses and the hosts file that makes them names.
 *
 * Every Service has one address in 127.128.0.0/9, the half of the loopback network that nothing else uses by custom. It
 * follows from a hash of "namespace/name", so that the same manifests give the same addresses on every machine; where two
 * names fall on one address, the later (in the order of the set) takes the next free one, and keeps it from then on.
 *
 *   127 . 1hhhhhhh . hhhhhhhh . hhhhhhhh     h: 23 bits of the hash; a last byte of 0 or 255 is skipped, because tools
 *                                            take such addresses for networks and broadcasts
 */
#include "plan.h"

#define SERVICE_NET 0x7f800000u            /* 127.128.0.0 */
#define SERVICE_MASK 0x007fffffu           /* the 23 bits that vary */
#define SERVICE_MAX (((SERVICE_MASK + 1) / 256) * 254) /* addresses there are */

/* FNV-1a, 64 bits: unlike hash_bytes() the same in every process. */
static uint64_t stable_hash(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return h;
}

static bool address_fits(uint32_t ip)
{
    uint32_t last = ip & 0xff;
    return (ip & ~SERVICE_MASK) == SERVICE_NET && last != 0 && last != 255;
}

static struct slice address_key(const uint32_t *ip)
{
    return slice_of((const char *)ip, sizeof *ip);
}

static uint32_t address_pick(const struct table *taken, const struct object *o)
{
    MUST(taken->n < SERVICE_MAX);
    uint64_t h = stable_hash(stable_hash(stable_hash(0xcbf29ce484222325u, o->ns), "/"), o->name);
    uint32_t offset = (uint32_t)(h ^ h >> 32) & SERVICE_MASK;
    for (;; offset = (offset + 1) & SERVICE_MASK) {
        uint32_t ip = SERVICE_NET | offset;
        if (address_fits(ip) && !table_get(taken, address_key(&ip)))
            return ip;
    }
}

/* The address of a service that has a valid one nobody before it has; else 0. */
static uint32_t address_kept(const struct table *taken, const struct object *o)
{
    uint32_t ip = addr_ip4_host(&o->svc.address);
    return address_fits(ip) && !table_get(taken, address_key(&ip)) ? ip : 0;
}

void objset_addresses(struct objset *s)
{
    struct table taken = {0}; /* address -> its service */
    for (int fresh = 0; fresh < 2; fresh++) { /* first those that have one, so that none is taken from them */
        for (size_t i = 0; i < objset_n(s); i++) {
            struct object *o = (struct object *)objset_at(s, i); /* s is ours to change, and so are its objects */
            if (o->kind != OBJ_SERVICE || table_get(&taken, address_key(&(uint32_t){addr_ip4_host(&o->svc.address)})) == o)
                continue;
            uint32_t ip = fresh ? address_pick(&taken, o) : address_kept(&taken, o);
            if (!ip)
                continue;
            o->svc.address = addr_ip4(ip, 0);
            table_put(&taken, address_key(&ip), o);
        }
    }
    table_fini(&taken);
}

/* No line for ::1, on purpose: services have IPv4 addresses only, and with "::1 localhost" in the file many clients try ::1
 * first for localhost, where a workload that listens on 127.0.0.1 does not answer. */
void objset_hosts(const struct objset *s, const char *ns, struct buf *out)
{
    buf_adds(out, "127.0.0.1 localhost\n");
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        if (o->kind != OBJ_SERVICE || o->svc.address.family != ADDR_IP4)
            continue;
        char ip[ADDR_TEXT_MAX];
        addr_format_ip(&o->svc.address, ip);
        buf_printf(out, "%s %s.%s.svc.cluster.local %s.%s.svc %s.%s", ip, o->name, o->ns, o->name, o->ns, o->name, o->ns);
        if (strcmp(o->ns, ns) == 0)
            buf_printf(out, " %s", o->name);
        buf_addc(out, '\n');
    }
}
