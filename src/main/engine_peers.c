/* engine_peers.c - this node among others: its certificate, its key, the CA of all nodes, and the address of its gate.
 *
 *     files --peers_init()--> plan_memory_node() --each plan--> contexts of the gate and to other gates
 *       '---- looked at every PEERS_LOOK_MS: what has changed and is sound is used from the next plan on, which is made at once
 *
 * New files are used when all three fit together: while one of them is already new and another still old, the old ones stay, and the log says so once.
 * Connections that stand keep what they began with, unless the gate would not take their certificate any more. What happens on them is proxy's
 * (proxy/README.md, "Between nodes").
 */
#include "engine_int.h"

#define PEER_FILE_BYTES_MAX (1u << 20)
#define PEERS_LOOK_MS 2000

static void texts_free(struct peer_texts *t)
{
    buf_free(&t->cert);
    buf_wipe(&t->key);
    buf_free(&t->ca);
}

static bool text_read(const char *path, struct buf *out, struct buf *why)
{
    enum err er = file_read(path, out, PEER_FILE_BYTES_MAX);
    if (er != OK)
        buf_printf(why, "%s can't be read: %s", path, err_text(er));
    return er == OK;
}

static bool texts_read(const struct engine *e, struct peer_texts *t, struct buf *why)
{
    return text_read(e->conf.node_cert, &t->cert, why) && text_read(e->conf.node_key, &t->key, why) && text_read(e->conf.node_ca, &t->ca, why);
}

static struct plan_node node_of(const struct engine *e, const struct peer_texts *t)
{
    return (struct plan_node){.name = e->conf.name, .listen = e->peers.gate, .cert_pem = buf_slice(&t->cert), .key_pem = buf_slice(&t->key), .ca_pem = buf_slice(&t->ca)};
}

static bool same(const struct buf *a, const struct buf *b) { return slice_eq(buf_slice(a), buf_slice(b)); }

/* Reads the files. True: they are other than those in use, and sound. */
static bool peers_read(struct engine *e)
{
    struct engine_peers *p = &e->peers;
    struct peer_texts t = {0};
    struct buf why = {0};
    bool read = texts_read(e, &t, &why);
    bool news = read && !(same(&t.cert, &p->texts.cert) && same(&t.key, &p->texts.key) && same(&t.ca, &p->texts.ca));
    struct plan_node n = node_of(e, &t);
    if (news && plan_node_check(&n, &why) != OK)
        news = false;
    if (news) {
        plan_memory_node(e->memory, &n);
        texts_free(&p->texts);
        p->texts = t;
    } else
        texts_free(&t);
    if (why.n && (!p->why || strcmp(p->why, why.p) != 0))
        log_error("engine", "between nodes: %s (--node-cert, --node-key, --node-ca); %s", why.p, p->texts.cert.n ? "those before are still used" : "nothing goes from or to other nodes until that is mended");
    mem_free(p->why);
    p->why = why.n ? mem_strdup(MEM_API, why.p) : NULL;
    buf_free(&why);
    return news;
}

static void peers_look(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, peers.look);
    bool first = !e->peers.texts.cert.n;
    if (peers_read(e)) {
        if (!first)
            log_info("engine", "between nodes: the new certificate is used from now on");
        engine_publish(e);
    }
    timer_set(e->loop, t, PEERS_LOOK_MS);
}

void peers_init(struct engine *e)
{
    timer_init(&e->peers.look, peers_look);
    if (e->peers.gate.family == ADDR_NONE)
        return;
    peers_read(e);
    timer_set(e->loop, &e->peers.look, PEERS_LOOK_MS);
}

const char *peers_trouble(const struct engine *e) { return e->peers.texts.cert.n ? NULL : e->peers.why; }

void peers_fini(struct engine *e)
{
    timer_clear(&e->peers.look);
    texts_free(&e->peers.texts);
    mem_free(e->peers.why);
}

static void clash(const struct object *gw, struct diags *d)
{
    diags_add(d, DIAG_ERROR, gw->file, gw->line, gw->column, gw->name, "give the listener another port or address, or move --node-listen", "the Gateway listens at the address that other nodes come to");
}

void peers_check(const struct engine *e, const struct objset *set, struct diags *d)
{
    const struct addr local = addr_ip4(0x7f000001, 0);
    for (size_t i = 0; i < objset_n(set) && e->peers.gate.family != ADDR_NONE; i++) {
        const struct object *o = objset_at(set, i);
        if (o->kind != OBJ_GATEWAY && o->kind != OBJ_ISTIO_GATEWAY)
            continue;
        const struct addr *addresses = o->gw.addresses_n ? o->gw.addresses : &local;
        for (size_t k = 0; k < o->gw.listeners_n * MAX(o->gw.addresses_n, (size_t)1); k++) {
            struct addr a = addresses[k / o->gw.listeners_n];
            a.port = o->gw.listeners[k % o->gw.listeners_n].port;
            if (addr_eq(&a, &e->peers.gate))
                clash(o, d);
        }
    }
}
