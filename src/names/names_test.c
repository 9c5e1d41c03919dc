/* names_test.c - zones, and a server of names with its clients and the servers it asks, in the simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "names_int.h"
#include "sim.h"

static const char manifest[] =
    "apiVersion: v1\nkind: Service\nmetadata: { name: shop }\nspec: { selector: { app: shop }, ports: [ { name: http, port: 80 }, { name: admin, port: 81 } ] }\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: { name: shop, namespace: other }\nspec: { selector: { app: shop }, ports: [ { port: 80 } ] }\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: { name: far }\nspec: { type: ExternalName, externalName: far.example, ports: [ { port: 80 } ] }\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: { name: near }\nspec: { type: ExternalName, externalName: near.example }\n---\n"
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: seen }\nspec: { hosts: [ api.example ], ports: [ { number: 80, name: http, protocol: HTTP } ], resolution: DNS, exportTo: [ \".\" ] }\n---\n"
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: shop }\nspec: { selector: { matchLabels: { app: shop } }, template: { metadata: { labels: { app: shop } }, spec: { containers: [ { name: c, command: [ x ] } ] } } }\n";

static char shop_ip[ADDR_TEXT_MAX], other_ip[ADDR_TEXT_MAX], api_ip[ADDR_TEXT_MAX];

/* What headless Services stand for in zones made from now on. */
static const struct plan_named *named;
static size_t named_n;

static struct names_zone *zone_of(const char *text)
{
    struct diags d = {0};
    struct objset *s = objset_new();
    objset_read(s, "m.yaml", ".", slice_cstr(text), "default", false, &d);
    if (d.errors)
        fail_msg("%s: %s", d.items[0].where, d.items[0].reason);
    objset_addresses(s);
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *o = objset_at(s, i);
        if (o->kind == OBJ_SERVICE && strcmp(o->name, "shop") == 0)
            addr_format_ip(&o->svc.address, strcmp(o->ns, "other") ? shop_ip : other_ip);
        else if (o->kind == OBJ_SERVICEENTRY)
            addr_format_ip(&o->entry.addresses[0], api_ip);
    }
    const struct live_address ext[] = {{"default", "far", addr_ip4(0xc0000201, 0)}, {"default", "near", addr_ip4(0xc0000202, 0)}};
    struct names_zone *z = names_zone_new(s, ext, COUNT_OF(ext), named, named_n, true, 7);
    objset_free(s);
    diags_free(&d);
    return z;
}

/* A Service with so many named ports. */
static struct names_zone *wide_zone(uint32_t ports)
{
    struct buf b = {0};
    buf_adds(&b, "apiVersion: v1\nkind: Service\nmetadata: { name: wide }\nspec:\n  selector: { app: a }\n  ports:\n");
    for (uint32_t i = 0; i < ports; i++)
        buf_printf(&b, "  - { name: p%u, port: %u }\n", i, 1000 + i);
    struct names_zone *z = zone_of(b.p);
    buf_free(&b);
    return z;
}

/* ---- answers as text ---- */

static const char *type_text(uint16_t t)
{
    return t == DNS_A ? "A" : t == DNS_AAAA ? "AAAA" : t == DNS_CNAME ? "CNAME" : t == DNS_SOA ? "SOA" : t == DNS_NS ? "NS" : t == DNS_PTR ? "PTR" : t == DNS_SRV ? "SRV" : "?";
}

static void record_text(const struct dns_message *m, const struct dns_record *r, struct buf *out)
{
    char text[DNS_TEXT_MAX];
    struct dns_name name;
    if (r->type == DNS_OPT)
        return;
    buf_printf(out, " %s%s", r->section == DNS_ANSWER ? "" : r->section == DNS_AUTHORITY ? "-" : "+", type_text(r->type));
    const uint8_t *p = (const uint8_t *)r->data.p;
    assert_int_equal(r->ttl_s, 5);
    if (r->type == DNS_A)
        buf_printf(out, " %u.%u.%u.%u", p[0], p[1], p[2], p[3]);
    else if (r->type == DNS_SRV)
        buf_printf(out, " %u", p[4] << 8 | p[5]);
    else if (dns_record_target(m, r, &name) == OK && dns_name_text(&name, text))
        buf_printf(out, " %s", text);
}

/* "NOERROR A 127.1.2.3", "NXDOMAIN -SOA"; tc in front when it is truncated. */
static char *answer_text(const char *p, size_t n)
{
    static char text[2000];
    struct dns_message m;
    struct dns_cursor c = {0};
    struct dns_record r;
    struct buf b = {0};
    assert_int_equal(dns_message_parse(p, n, &m), OK);
    assert_true(m.answer);
    buf_printf(&b, "%s%s", m.truncated ? "tc " : "", dns_rcode_text((enum dns_rcode)m.rcode));
    while (dns_record_next(&m, &c, &r))
        record_text(&m, &r, &b);
    snprintf(text, sizeof text, "%s", b.p);
    buf_free(&b);
    return text;
}

static struct dns_query query_of(const char *name, uint16_t type)
{
    struct dns_query q = {.id = 99, .rd = true, .asked = true, .udp_bytes = DNS_UDP_BYTES, .question = {.type = type, .class = DNS_CLASS_IN}};
    assert_int_equal(dns_name_of(slice_cstr(name), &q.question.name), OK);
    return q;
}

static void says(const struct names_zone *z, const char *ns, bool leaves, const char *name, uint16_t type, const char *want)
{
    static char out[DNS_MESSAGE_MAX];
    struct dns_query q = query_of(name, type);
    size_t n = names_answer(z, &(struct names_caller){ns, leaves}, &q, out, sizeof out);
    const char *got = n ? answer_text(out, n) : "outside";
    if (strcmp(got, want) != 0)
        fail_msg("%s %s for \"%s\": got \"%s\", wanted \"%s\"", name, type_text(type), ns, got, want);
}

static char *with(const char *before, const char *ip)
{
    static char text[4][200];
    static int i;
    i = (i + 1) % 4;
    snprintf(text[i], sizeof text[0], "%s %s", before, ip);
    return text[i];
}

/* ---- zones ---- */

static void test_services(void **state)
{
    struct names_zone *z = zone_of(manifest);
    char *shop = with("NOERROR A", shop_ip), *other = with("NOERROR A", other_ip);
    says(z, "default", false, "shop.default.svc.cluster.local", DNS_A, shop);
    says(z, "", true, "SHOP.Default.SVC.cluster.LOCAL", DNS_A, shop);
    says(z, "default", false, "shop.default.svc", DNS_A, shop);
    says(z, "default", false, "shop.default", DNS_A, shop);
    says(z, "default", false, "shop", DNS_A, shop);
    says(z, "other", false, "shop", DNS_A, other);
    says(z, "default", false, "shop.other", DNS_A, other);
    says(z, "", true, "shop", DNS_A, "outside");
    says(z, "default", false, "shop.default.svc.cluster.local", DNS_AAAA, "NOERROR -SOA");
    says(z, "default", false, "shop.default.svc.cluster.local", DNS_TXT, "NOERROR -SOA");
    says(z, "default", false, "nobody.default.svc.cluster.local", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "nobody.default.svc.cluster.local", DNS_AAAA, "NXDOMAIN -SOA");
    says(z, "default", false, "shop.shop.default.svc.cluster.local", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "a.b.c.shop.default.svc.cluster.local", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "shop.default.pod.cluster.local", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "default.svc.cluster.local", DNS_A, "NOERROR -SOA"); /* there is something below it (RFC 8020) */
    says(z, "default", false, "nowhere.svc.cluster.local", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "svc.cluster.local", DNS_A, "NOERROR -SOA");
    says(z, "default", false, "cluster.local", DNS_A, "NOERROR -SOA");
    says(z, "default", false, "cluster.local", DNS_SOA, "NOERROR SOA");
    says(z, "default", false, "cluster.local", DNS_NS, "NOERROR NS ns.dns.cluster.local +A 127.0.0.1");
    says(z, "default", false, "ns.dns.cluster.local", DNS_A, "NOERROR A 127.0.0.1");
    says(z, "default", false, "kafka.default.svc.cluster.local", DNS_A, "NOERROR A 127.255.255.254");
    says(z, "other", false, "kafka.other.svc.cluster.local", DNS_A, "NXDOMAIN -SOA"); /* nobody runs there */
    static const char *const gone[] = {"nobody", "com", "nobody.other", "Nobody.DEFAULT", "nobody.default.svc", "nobody.nowhere.svc", "nowhere.svc"};
    for (size_t i = 0; i < COUNT_OF(gone); i++) {
        says(z, "default", false, gone[i], DNS_A, "NXDOMAIN -SOA");
        says(z, "default", false, gone[i], DNS_AAAA, "NXDOMAIN -SOA");
        says(z, "", true, gone[i], DNS_A, "outside"); /* who may leave asks others, who have it perhaps */
    }
    static const char *const above[] = {"svc", "default", "default.svc"};
    for (size_t i = 0; i < COUNT_OF(above); i++) {
        says(z, "default", false, above[i], DNS_A, "NOERROR -SOA");
        says(z, "", true, above[i], DNS_A, "outside");
    }
    static const char *const outside[] = {"nobody.nowhere", "example.org", "a.nobody.default", "a.nobody.default.svc"};
    for (size_t i = 0; i < COUNT_OF(outside); i++)
        says(z, "default", false, outside[i], DNS_A, "outside");
    says(z, "", true, "com", DNS_NS, "outside");
    says(z, "default", false, ".", DNS_NS, "outside");
    says(z, "default", false, "localhost", DNS_A, "NOERROR A 127.0.0.1");
    names_zone_unref(z);
}

static void test_ports(void **state)
{
    struct names_zone *z = zone_of(manifest);
    says(z, "default", false, "_http._tcp.shop.default.svc.cluster.local", DNS_SRV, with("NOERROR SRV 80 +A", shop_ip));
    says(z, "default", false, "_Admin._TCP.shop.default.svc.cluster.local", DNS_SRV, with("NOERROR SRV 81 +A", shop_ip));
    says(z, "default", false, "shop.default.svc.cluster.local", DNS_SRV, with("NOERROR SRV 80 SRV 81 +A", shop_ip));
    says(z, "default", false, "_http._tcp.shop.default.svc.cluster.local", DNS_A, "NOERROR -SOA");
    says(z, "default", false, "_tcp.shop.default.svc.cluster.local", DNS_SRV, "NOERROR -SOA");
    says(z, "default", false, "_none._tcp.shop.default.svc.cluster.local", DNS_SRV, "NXDOMAIN -SOA");
    says(z, "default", false, "_http._udp.shop.default.svc.cluster.local", DNS_SRV, "NXDOMAIN -SOA");
    says(z, "default", false, "http._tcp.shop.default.svc.cluster.local", DNS_SRV, "NXDOMAIN -SOA");
    says(z, "default", false, "_._tcp.shop.other.svc.cluster.local", DNS_SRV, "NXDOMAIN -SOA"); /* its port has no name */
    names_zone_unref(z);
}

static void test_headless(void **state)
{
    static const char text[] =
        "apiVersion: v1\nkind: Service\nmetadata: { name: db }\nspec: { clusterIP: None, selector: { app: db }, ports: [ { name: sql, port: 80 }, { name: peers, port: 81 } ] }\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata: { name: idle }\nspec: { clusterIPs: [ None ], selector: { app: idle }, ports: [ { name: sql, port: 80 } ] }\n";
    static const struct plan_named_port both[] = {{"sql", 5432}, {"peers", 7000}}, one[] = {{"sql", 5432}};
    const struct plan_named all[] = {{"default", "db", "db-1", addr_ip4(0x7f900001, 0), both, 2}, {"default", "db", "db-2", addr_ip4(0x7f900002, 0), one, 1}, {"default", "gone", "x", addr_ip4(0x7f900003, 0), one, 1}};
    named = all;
    named_n = COUNT_OF(all);
    struct names_zone *z = zone_of(text);
    named = NULL;
    named_n = 0;
    for (size_t i = 0; i < 4; i++) {
        static const char *const names[] = {"db.default.svc.cluster.local", "db.default.svc", "DB.default", "db"};
        says(z, "default", false, names[i], DNS_A, "NOERROR A 127.144.0.2 A 127.144.0.1"); /* the question's number is odd */
    }
    says(z, "default", false, "db.default.svc.cluster.local", DNS_AAAA, "NOERROR -SOA");
    says(z, "default", false, "db-1.db.default.svc.cluster.local", DNS_A, "NOERROR A 127.144.0.1");
    says(z, "", true, "DB-2.db.default.svc.cluster.local", DNS_A, "NOERROR A 127.144.0.2");
    says(z, "default", false, "db-2.db.default.svc.cluster.local", DNS_AAAA, "NOERROR -SOA");
    says(z, "default", false, "db-3.db.default.svc.cluster.local", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "db.default.svc.cluster.local", DNS_SRV, "NOERROR SRV 5432 SRV 5432 SRV 7000 +A 127.144.0.2 +A 127.144.0.1");
    says(z, "default", false, "_sql._tcp.db.default.svc.cluster.local", DNS_SRV, "NOERROR SRV 5432 SRV 5432 +A 127.144.0.2 +A 127.144.0.1");
    says(z, "default", false, "_Peers._tcp.db.default.svc.cluster.local", DNS_SRV, "NOERROR SRV 7000 +A 127.144.0.1"); /* the other has no such port */
    says(z, "default", false, "_none._tcp.db.default.svc.cluster.local", DNS_SRV, "NXDOMAIN -SOA");
    says(z, "default", false, "_tcp.db.default.svc.cluster.local", DNS_SRV, "NOERROR -SOA");
    says(z, "default", false, "2.0.144.127.in-addr.arpa", DNS_PTR, "NOERROR PTR db-2.db.default.svc.cluster.local");
    says(z, "default", false, "idle.default.svc.cluster.local", DNS_A, "NXDOMAIN -SOA"); /* nothing is ready */
    says(z, "default", false, "idle", DNS_A, "NXDOMAIN -SOA");
    says(z, "default", false, "_sql._tcp.idle.default.svc.cluster.local", DNS_SRV, "NXDOMAIN -SOA");
    says(z, "default", false, "x.gone.default.svc.cluster.local", DNS_A, "NXDOMAIN -SOA");
    names_zone_unref(z);
}

static void test_outside(void **state)
{
    struct names_zone *z = zone_of(manifest);
    struct dns_query q = query_of("far.default.svc.cluster.local", DNS_A);
    char out[DNS_UDP_BYTES];
    size_t n = names_answer(z, &(struct names_caller){"default", false}, &q, out, sizeof out);
    assert_memory_equal(answer_text(out, n), "NOERROR A 127.", 14); /* through the mesh */
    says(z, "", true, "far.default.svc.cluster.local", DNS_A, "NOERROR CNAME far.example A 192.0.2.1");
    says(z, "", true, "far.default.svc.cluster.local", DNS_AAAA, "NOERROR CNAME far.example");
    says(z, "", true, "far.default.svc.cluster.local", DNS_TXT, "NOERROR -SOA");
    says(z, "", true, "near.default.svc.cluster.local", DNS_A, "NOERROR CNAME near.example A 192.0.2.2"); /* without ports: a name only */
    says(z, "", true, "near.default.svc.cluster.local", DNS_SRV, "NOERROR -SOA");
    says(z, "default", false, "api.EXAMPLE", DNS_A, with("NOERROR A", api_ip));
    says(z, "default", false, "api.example", DNS_AAAA, "NOERROR -SOA");
    says(z, "other", false, "api.example", DNS_A, "outside"); /* not exported there */
    says(z, "", true, "api.example", DNS_A, "outside");
    says(z, "default", false, "example.org", DNS_A, "outside");
    says(z, "default", false, "shop.default.svc.cluster.local", DNS_AXFR, "REFUSED");
    names_zone_unref(z);
}

static void test_reverse(void **state)
{
    struct names_zone *z = zone_of(manifest);
    unsigned a, b, c, d;
    char name[100];
    assert_int_equal(sscanf(shop_ip, "%u.%u.%u.%u", &a, &b, &c, &d), 4);
    snprintf(name, sizeof name, "%u.%u.%u.%u.in-addr.arpa", d, c, b, a);
    says(z, "default", false, name, DNS_PTR, "NOERROR PTR shop.default.svc.cluster.local");
    says(z, "default", false, name, DNS_A, "NOERROR -SOA");
    says(z, "default", false, "1.0.0.127.in-addr.arpa", DNS_PTR, "NOERROR PTR localhost");
    says(z, "default", false, "1.2.3.127.in-addr.arpa", DNS_PTR, "NXDOMAIN -SOA");
    says(z, "default", false, "1.2.300.127.in-addr.arpa", DNS_PTR, "NXDOMAIN -SOA");
    says(z, "default", false, "9.1.2.3.127.in-addr.arpa", DNS_PTR, "NXDOMAIN -SOA");
    says(z, "default", false, "127.in-addr.arpa", DNS_PTR, "NOERROR -SOA");
    says(z, "default", false, "1.2.0.192.in-addr.arpa", DNS_PTR, "outside");
    names_zone_unref(z);
}

static void test_resolv_conf(void **state)
{
    struct names_conf c;
    struct addr own = addr_ip4(0x7f000001, 53);
    names_conf_read(&c, SLICE("# nameserver 1.1.1.1\nsearch a\n nameserver\t192.0.2.1 \nnameserver 127.0.0.1\nnameservers 9.9.9.9\nnameserver fe80::1%eth0\nnameserver\nnameserver 2001:db8::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3"),
                    &own);
    char text[ADDR_TEXT_MAX];
    static const char *const want[] = {"192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"};
    assert_int_equal(c.upstreams_n, 3);
    for (uint32_t i = 0; i < 3; i++) {
        addr_format(&c.upstreams[i], text);
        assert_string_equal(text, want[i]);
    }
}

/* ---- a server in its world ---- */

#define UP(i) addr_ip4(0x7f000900 + (uint32_t)(i), 53)

/* A server of others, by UDP and TCP. */
struct upstream {
    struct dgram d;
    struct listener ln;
    struct stream s;
    int fd, listen_fd;
    uint32_t asked, silent, forged; /* of the next questions: not answered; answered wrongly first, so many times */
    enum dns_rcode rcode;
    uint32_t records;
    bool open;                      /* s */
    char in[2 + DNS_UDP_BYTES];     /* read from s, in pieces */
    size_t in_n;
};

static struct {
    struct loop *l;
    struct names *n;
    struct dgram client, host;      /* in a namespace; on the host */
    int client_fd, host_fd;
    struct upstream up[2];
    struct stream tcp;
    bool tcp_open, tcp_eof;
    struct buf got;                 /* the last answer by UDP; all bytes by TCP */
    uint32_t answers;
} W;

static void client_received(struct dgram *d, char *p, size_t n, const struct addr *from)
{
    buf_clear(&W.got);
    buf_add(&W.got, p, n);
    W.answers++;
}

static size_t upstream_answer(struct upstream *u, const char *p, size_t n, char *out, size_t cap)
{
    static const uint8_t ip[4] = {192, 0, 2, 77};
    struct dns_query q;
    enum dns_rcode rcode;
    struct dns_writer w;
    assert_int_equal(dns_query_parse(p, n, &q, &rcode), DNS_OK);
    assert_true(q.rd);
    dns_answer_begin(&w, out, cap, &q);
    for (uint32_t i = 0; i < MAX(u->records, 1u); i++)
        dns_add_a(&w, DNS_ANSWER, &q.question.name, 5, ip);
    return dns_answer_end(&w, u->rcode, false, true);
}

static void upstream_received(struct dgram *d, char *p, size_t n, const struct addr *from)
{
    struct upstream *u = d->owner;
    char out[DNS_UDP_BYTES];
    u->asked++;
    if (u->silent) {
        u->silent--;
        return;
    }
    size_t m = upstream_answer(u, p, n, out, sizeof out);
    for (uint32_t i = 0; i < u->forged; i++) { /* another id, another question, or junk */
        char bad[DNS_UDP_BYTES];
        memcpy(bad, out, m);
        bad[i % 3 == 0 ? 0 : i % 3 == 1 ? 13 : 5] ^= 1;
        assert_int_equal(dgram_send(d, bad, m, from), OK);
    }
    assert_int_equal(dgram_send(d, out, m, from), OK);
}

static void upstream_data(struct stream *s, char *p, size_t n)
{
    struct upstream *u = CONTAINER_OF(s, struct upstream, s);
    static char out[2 + DNS_MESSAGE_MAX];
    assert_true(u->in_n + n <= sizeof u->in);
    memcpy(u->in + u->in_n, p, n);
    u->in_n += n;
    if (u->in_n < 2 || u->in_n < (size_t)(uint8_t)u->in[1] + 2)
        return;
    u->asked++;
    size_t m = upstream_answer(u, u->in + 2, u->in_n - 2, out + 2, DNS_MESSAGE_MAX);
    u->in_n = 0;
    out[0] = (char)(m >> 8);
    out[1] = (char)m;
    stream_write_slice(s, slice_of(out, m + 2));
}
static void upstream_close(struct stream *s) { stream_close(s); }
static void upstream_failed(struct stream *s, enum err e) { stream_close(s); }
static void upstream_released(struct stream *s) { CONTAINER_OF(s, struct upstream, s)->open = false; }
static const struct stream_ops upstream_ops = {.data = upstream_data, .eof = upstream_close, .drained = NULL, .failed = upstream_failed, .released = upstream_released};

static void upstream_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct upstream *u = ln->owner;
    assert_false(u->open);
    u->open = true;
    u->in_n = 0;
    memset(&u->s, 0, sizeof u->s);
    stream_adopt(&u->s, W.l, &upstream_ops, fd);
}

static void tcp_connected(struct stream *s) { }
static void tcp_data(struct stream *s, char *p, size_t n) { buf_add(&W.got, p, n); }
static void tcp_eof(struct stream *s)
{
    W.tcp_eof = true;
    stream_close(s);
}
static void tcp_drained(struct stream *s) { }
static void tcp_failed(struct stream *s, enum err e) { tcp_eof(s); }
static void tcp_released(struct stream *s) { W.tcp_open = false; }
static const struct stream_ops tcp_ops = {.connected = tcp_connected, .data = tcp_data, .eof = tcp_eof, .drained = tcp_drained, .failed = tcp_failed, .released = tcp_released};

static void client_open(struct dgram *d, int *fd, uint64_t ns, uint16_t port)
{
    struct addr at = addr_ip4(0x7f000002, port);
    *fd = sim_dgram(ns, &at);
    *d = (struct dgram){.received = client_received};
    dgram_start(d, W.l, *fd);
}

static void world_start(const struct sim_conf *conf, struct names_zone *z)
{
    sim_start(conf);
    memset(&W, 0, sizeof W);
    W.l = loop_new("test");
    struct names_conf nc = {.upstreams = {UP(0), UP(1)}, .upstreams_n = 2};
    for (size_t i = 0; i < 2; i++) {
        struct upstream *u = &W.up[i];
        struct addr at = UP(i);
        assert_int_equal(dgram_socket(&at, NULL, &u->fd), OK);
        u->d = (struct dgram){.received = upstream_received, .owner = u};
        dgram_start(&u->d, W.l, u->fd);
        assert_int_equal(listen_socket(&at, 10, false, &u->listen_fd), OK);
        u->ln.owner = u;
        listener_start(&u->ln, W.l, u->listen_fd, false, upstream_accepted);
    }
    W.n = names_new(W.l, &nc);
    struct addr inside = addr_ip4(0x7f000001, 53);
    names_dgram(W.n, 1, sim_dgram(1, &inside), &(struct names_caller){"default", false});
    names_listen(W.n, 1, sim_listen(1, &inside), &(struct names_caller){"default", false});
    names_dgram(W.n, 0, sim_dgram(0, &inside), &(struct names_caller){"", true});
    names_listen(W.n, 0, sim_listen(0, &inside), &(struct names_caller){"", true});
    if (z)
        names_zone_set(W.n, z);
    client_open(&W.client, &W.client_fd, 1, 4000);
    client_open(&W.host, &W.host_fd, 0, 4000);
}

static bool never(void *ctx) { return false; }
static bool has_answer(void *ctx) { return W.answers > 0; }
static bool tcp_gone(void *ctx) { return !W.tcp_open; }
static bool all_closed(void *ctx) { return !W.up[0].open && !W.up[1].open && !W.tcp_open; }

static void world_stop(void)
{
    if (W.tcp_open)
        stream_close(&W.tcp);
    names_free(W.n);
    dgram_stop(&W.client);
    dgram_stop(&W.host);
    socket_close(W.client_fd);
    socket_close(W.host_fd);
    for (size_t i = 0; i < 2; i++) {
        struct upstream *u = &W.up[i];
        dgram_stop(&u->d);
        listener_stop(&u->ln);
        socket_close(u->fd);
        socket_close(u->listen_fd);
        if (u->open)
            stream_close(&u->s);
    }
    assert_true(sim_run(all_closed, NULL, 60000));
    loop_free(W.l);
    buf_free(&W.got);
    assert_int_equal(sim_sockets_open(), 0);
    sim_stop();
    assert_int_equal(mem_bytes(MEM_NAMES), 0);
}

static void send_bytes(struct dgram *from, const void *p, size_t n)
{
    struct addr to = addr_ip4(0x7f000001, 53);
    W.answers = 0;
    assert_int_equal(dgram_send(from, p, n, &to), OK);
}

static void ask(struct dgram *from, const char *name, uint16_t type, uint16_t udp_bytes)
{
    char b[DNS_UDP_BYTES];
    struct dns_query q = query_of(name, type);
    send_bytes(from, b, dns_query_write(b, 4242, &q.question, udp_bytes, false, false));
}

static void reply_is(struct dgram *from, const char *name, uint16_t type, uint16_t udp_bytes, const char *want)
{
    ask(from, name, type, udp_bytes);
    assert_true(sim_run(has_answer, NULL, 30000));
    assert_string_equal(answer_text(W.got.p, W.got.n), want);
    assert_memory_equal(W.got.p, "\x10\x92", 2); /* the client's own id, whoever answered */
}

static const struct sim_conf calm = {.seed = 5, .latency_us_min = 20, .latency_us_max = 300, .split_pct = 50};

static void test_udp(void **state)
{
    world_start(&calm, NULL);
    ask(&W.client, "shop", DNS_A, 0); /* no plan yet: it waits */
    assert_false(sim_run(has_answer, NULL, 1000));
    names_zone_set(W.n, zone_of(manifest));
    assert_true(sim_run(has_answer, NULL, 1000));
    reply_is(&W.client, "shop", DNS_A, 0, with("NOERROR A", shop_ip));
    reply_is(&W.client, "example.org", DNS_A, 1232, "REFUSED"); /* it can't leave */
    reply_is(&W.client, "nobody.default.svc.cluster.local", DNS_A, 1232, "NXDOMAIN -SOA");
    reply_is(&W.client, "nobody", DNS_A, 1232, "NXDOMAIN -SOA");
    send_bytes(&W.client, "short", 5);
    assert_false(sim_run(has_answer, NULL, 100));
    send_bytes(&W.client, "\1\2\1\0\0\1\0\0\0\0\0\0\300\14\0\1\0\1", 18);
    assert_true(sim_run(has_answer, NULL, 1000));
    assert_int_equal(W.got.p[3] & 15, DNS_FORMERR);
    assert_int_equal(counter_read(&W.n->c.dropped), 1);
    assert_int_equal(counter_read(&W.n->c.answers[OUT_FORMERR]), 1);
    names_zone_set(W.n, wide_zone(60));
    ask(&W.client, "wide", DNS_SRV, 0);
    assert_true(sim_run(has_answer, NULL, 1000));
    assert_memory_equal(answer_text(W.got.p, W.got.n), "tc NOERROR SRV", 14);
    assert_true(W.got.n <= 512 && counter_read(&W.n->c.truncated) == 1);
    ask(&W.client, "wide", DNS_SRV, 4096);
    assert_true(sim_run(has_answer, NULL, 1000));
    assert_true(W.got.n > 512 && W.got.n <= DNS_EDNS_BYTES);
    names_close(W.n, 1); /* the replica is gone */
    ask(&W.client, "wide", DNS_A, 0);
    assert_false(sim_run(has_answer, NULL, 1000));
    world_stop();
}

/* ---- TCP ---- */

static void tcp_open(uint64_t ns)
{
    struct addr to = addr_ip4(0x7f000001, 53);
    buf_clear(&W.got);
    W.tcp_eof = false;
    W.tcp_open = true;
    memset(&W.tcp, 0, sizeof W.tcp);
    stream_connect(&W.tcp, W.l, &tcp_ops, sim_socket(ns), &to);
}

static void tcp_ask(const char *name, uint16_t type)
{
    char b[2 + DNS_UDP_BYTES];
    struct dns_query q = query_of(name, type);
    size_t n = dns_query_write(b + 2, 4242, &q.question, 0, false, false);
    b[0] = 0;
    b[1] = (char)n;
    stream_write_slice(&W.tcp, slice_of(b, n + 2));
}

/* The nth whole answer is there. */
static bool tcp_nth(uint32_t nth, struct slice *out)
{
    size_t at = 0;
    for (uint32_t i = 0; at + 2 <= W.got.n; i++) {
        size_t n = (size_t)(uint8_t)W.got.p[at] << 8 | (uint8_t)W.got.p[at + 1];
        if (at + 2 + n > W.got.n)
            return false;
        *out = slice_of(W.got.p + at + 2, n);
        if (i == nth)
            return true;
        at += 2 + n;
    }
    return false;
}
static bool tcp_has(void *ctx)
{
    struct slice s;
    return tcp_nth(*(uint32_t *)ctx - 1, &s);
}

static void test_tcp(void **state)
{
    struct slice s = {0};
    uint32_t want = 3;
    world_start(&calm, wide_zone(60));
    tcp_open(1);
    for (int i = 0; i < 3; i++) /* all at once */
        tcp_ask(i == 1 ? "nobody.default.svc.cluster.local" : "wide", DNS_SRV);
    assert_true(sim_run(tcp_has, &want, 5000));
    assert_true(tcp_nth(0, &s) && s.n > DNS_EDNS_BYTES);
    assert_memory_equal(answer_text(s.p, s.n), "NOERROR SRV 1000 SRV 1001", 25);
    assert_true(tcp_nth(1, &s));
    assert_string_equal(answer_text(s.p, s.n), "NXDOMAIN -SOA");
    assert_true(tcp_nth(2, &s) && s.n > DNS_EDNS_BYTES);
    assert_int_equal(counter_read(&W.n->c.conns), 1);
    uint64_t before = sim_now_ms();
    assert_true(sim_run(tcp_gone, NULL, 20000)); /* it rests too long */
    assert_true(sim_now_ms() - before >= NAMES_IDLE_MS - 100);
    assert_int_equal(counter_read(&W.n->c.conns), 0);
    tcp_open(1);
    stream_write_slice(&W.tcp, SLICE("\20\1")); /* longer than any question */
    before = sim_now_ms();
    assert_true(sim_run(tcp_gone, NULL, 5000));
    assert_int_equal(counter_read(&W.n->c.limits[LIMIT_QUERY_BYTES]), 1);
    tcp_open(1);
    stream_write_slice(&W.tcp, SLICE("\0\3abc")); /* shorter */
    assert_true(sim_run(tcp_gone, NULL, 5000));
    world_stop();
}

/* Who asks and does not read is read no further, and gets all in the end. */
static void test_tcp_slow(void **state)
{
    uint32_t want = 600;
    world_start(&calm, wide_zone(100));
    tcp_open(1);
    stream_reading(&W.tcp, false);
    for (uint32_t i = 0; i < want; i++)
        tcp_ask("wide", DNS_SRV);
    assert_false(sim_run(never, NULL, 3000));
    assert_true(counter_read(&W.n->c.limits[LIMIT_OUT_BYTES]) >= 1);
    assert_true(counter_read(&W.n->c.queries[WAY_TCP]) < want);
    assert_true(mem_bytes(MEM_STREAM) < 4 * NAMES_OUT_BYTES_MAX);
    stream_reading(&W.tcp, true);
    assert_true(sim_run(tcp_has, &want, 8000));
    world_stop();
}

static void test_tcp_limit(void **state)
{
    enum { HALF = NAMES_CONNS_MAX / 2, ASKERS = 5, FEW = HALF / (ASKERS - 1) };
    static struct stream many[ASKERS][HALF + 1];
    static const struct stream_ops ops = {.connected = tcp_connected, .data = tcp_data, .eof = stream_close, .drained = tcp_drained, .failed = tcp_failed, .released = tcp_drained};
    struct addr to = addr_ip4(0x7f000001, 53);
    _Static_assert(FEW == NAMES_SHARE, "four shares are the other half");
    world_start(&calm, zone_of(manifest));
    for (uint32_t k = 0; k < ASKERS; k++) { /* the first has half of all, the others their shares */
        if (k)
            names_listen(W.n, 1 + k, sim_listen(1 + k, &to), &(struct names_caller){"default", false});
        for (uint32_t i = 0; i <= (k ? FEW : HALF); i++) {
            memset(&many[k][i], 0, sizeof many[k][i]);
            stream_connect(&many[k][i], W.l, &ops, sim_socket(1 + k), &to);
        }
        assert_false(sim_run(never, NULL, 500));
        assert_int_equal(counter_read(&W.n->c.conns), HALF + k * FEW);
        assert_int_equal(counter_read(&W.n->c.limits[LIMIT_CONNS]), 1 + k);
    }
    for (uint32_t k = 0; k < ASKERS; k++)
        for (uint32_t i = 0; i <= (k ? FEW : HALF); i++)
            stream_close(&many[k][i]);
    world_stop();
}

/* ---- names outside ---- */

static void test_forward(void **state)
{
    world_start(&calm, zone_of(manifest));
    reply_is(&W.host, "wWw.example.org", DNS_A, 0, "NOERROR A 192.0.2.77");
    assert_true(W.up[0].asked == 1 && W.up[1].asked == 0);
    W.up[0].forged = 5; /* who guesses is not believed */
    reply_is(&W.host, "www.example.org", DNS_A, 1232, "NOERROR A 192.0.2.77");
    assert_int_equal(counter_read(&W.n->c.bad_answers) > 0, 1);
    W.up[0].forged = 0;
    W.up[0].silent = 1;
    reply_is(&W.host, "www.example.org", DNS_A, 0, "NOERROR A 192.0.2.77");
    assert_int_equal(W.up[1].asked, 1);
    W.up[0].rcode = DNS_SERVFAIL;
    reply_is(&W.host, "www.example.org", DNS_A, 0, "NOERROR A 192.0.2.77");
    assert_int_equal(W.up[1].asked, 2);
    W.up[0].rcode = W.up[1].rcode = DNS_NXDOMAIN;
    reply_is(&W.host, "www.example.org", DNS_A, 0, "NXDOMAIN A 192.0.2.77");
    W.up[0].silent = W.up[1].silent = 10;
    reply_is(&W.host, "www.example.org", DNS_A, 0, "SERVFAIL");
    reply_is(&W.host, "shop.default", DNS_A, 0, with("NOERROR A", shop_ip));
    assert_int_equal(counter_read(&W.n->c.pending), 0);
    world_stop();
}

static void test_forward_tcp(void **state)
{
    struct slice s = {0};
    uint32_t want = 1;
    world_start(&calm, zone_of(manifest));
    W.up[0].records = 300;
    ask(&W.host, "big.example", DNS_A, 0);
    assert_true(sim_run(has_answer, NULL, 5000));
    assert_memory_equal(answer_text(W.got.p, W.got.n), "tc NOERROR", 10);
    tcp_open(0);
    tcp_ask("big.example", DNS_A);
    assert_true(sim_run(tcp_has, &want, 5000));
    assert_true(tcp_nth(0, &s) && s.n > 4000);
    struct addr dead = UP(0);
    sim_kill_addr(&dead); /* the next server is asked */
    tcp_ask("www.example", DNS_A);
    want = 2;
    assert_true(sim_run(tcp_has, &want, 9000));
    assert_true(tcp_nth(1, &s));
    assert_string_equal(answer_text(s.p, s.n), "NOERROR A 192.0.2.77");
    W.up[1].silent = 100;
    tcp_ask("www.example", DNS_A);
    assert_false(sim_run(never, NULL, 100));
    stream_close(&W.tcp); /* nobody waits any more */
    assert_true(sim_run(tcp_gone, NULL, 1000));
    assert_false(sim_run(never, NULL, 20000));
    assert_int_equal(counter_read(&W.n->c.pending), 0);
    world_stop();
}

static void test_forward_limit(void **state)
{
    world_start(&calm, zone_of(manifest));
    W.up[0].silent = W.up[1].silent = UINT32_MAX;
    enum { HALF = NAMES_PENDING_MAX / 2, ASKERS = 5, FEW = HALF / (ASKERS - 1) };
    struct dgram others[ASKERS];
    int fds[ASKERS];
    struct addr inside = addr_ip4(0x7f000001, 53);
    _Static_assert(FEW == NAMES_SHARE, "four shares are the other half");
    for (uint32_t k = 0; k < ASKERS; k++) { /* the first has half of all, the others their shares */
        if (k) {
            names_dgram(W.n, 1 + k, sim_dgram(1 + k, &inside), &(struct names_caller){"default", true});
            client_open(&others[k], &fds[k], 1 + k, 4000);
        }
        for (uint32_t i = 0; i <= (k ? FEW : HALF); i++)
            ask(k ? &others[k] : &W.host, "www.example.org", DNS_A, 0);
        assert_true(sim_run(has_answer, NULL, 100)); /* the one too many, at once */
        assert_string_equal(answer_text(W.got.p, W.got.n), "SERVFAIL");
        assert_int_equal(counter_read(&W.n->c.limits[LIMIT_PENDING]), 1 + k);
        assert_int_equal(counter_read(&W.n->c.pending), HALF + k * FEW);
    }
    names_leave(W.n); /* with all of them under way */
    assert_int_equal(counter_read(&W.n->c.pending), 0);
    for (uint32_t k = 1; k < ASKERS; k++) {
        dgram_stop(&others[k]);
        socket_close(fds[k]);
    }
    world_stop();
}

/* Datagrams are lost, doubled and overtake each other: whoever asks again is answered in the end, and nothing is left over. */
static void test_rough(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct sim_conf rough = {.seed = seed, .latency_us_min = 20, .latency_us_max = 400000, .split_pct = 50, .short_write_pct = 30, .lose_pct = 25, .double_pct = 25};
        world_start(&rough, zone_of(manifest));
        W.up[0].forged = (uint32_t)(seed % 3);
        uint32_t tries = 0;
        do {
            assert_true(tries++ < 30);
            ask(&W.host, "www.example.org", DNS_A, 1232);
        } while (!sim_run(has_answer, NULL, 5000) || W.got.p[3] & 15);
        assert_string_equal(answer_text(W.got.p, W.got.n), "NOERROR A 192.0.2.77");
        ask(&W.host, "www.example.org", DNS_A, 1232); /* torn down with this one under way */
        sim_run(never, NULL, seed * 10);
        world_stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_services), cmocka_unit_test(test_ports), cmocka_unit_test(test_headless), cmocka_unit_test(test_outside), cmocka_unit_test(test_reverse), cmocka_unit_test(test_resolv_conf),
        cmocka_unit_test(test_udp), cmocka_unit_test(test_tcp), cmocka_unit_test(test_tcp_slow), cmocka_unit_test(test_tcp_limit), cmocka_unit_test(test_forward),
        cmocka_unit_test(test_forward_tcp), cmocka_unit_test(test_forward_limit), cmocka_unit_test(test_rough),
    };
    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
