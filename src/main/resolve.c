/* resolve.c - addresses of names: of ExternalName Services, and of the hosts and endpoints of ServiceEntries.
 *
 *   resolver
 *    |- name      one for each different name: its last addresses, when it is looked up again
 *    '- want      a Service, or a name in a ServiceEntry, that uses the addresses of a name
 *
 * Look-ups are the host's own (getaddrinfo: /etc/hosts, DNS) and block, so they run on the pool of blocking threads, at most
 * LOOKUPS_MAX at a time: the pool has other work, and a name server that is silent must not take all of it. What getaddrinfo
 * hides is the answer's time to live: names are looked up again every RESOLVE_MS, those that fail after RESOLVE_RETRY_MS, doubling up to
 * RESOLVE_MS. A name that can't be resolved keeps the addresses it had: a resolver's outage does not take services away.
 *
 * Addresses are sorted, since name servers rotate them: only a different set is a change. Changes are gathered for GATHER_MS,
 * so that many names at a start make few plans.
 */
#include "engine_int.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LOOKUPS_MAX 2
#define GATHER_MS 20
#define RESOLVE_RETRY_MS 1000

struct name {
    struct resolver *r;
    char *text;
    struct list link;          /* in resolver.names */
    struct resolved found;     /* the last that were found */
    uint64_t due_ms;           /* loop time of the next look-up */
    uint32_t fails;            /* in a row */
    bool asked;                /* looked up at least once, whatever came of it */
    bool wanted;
    bool cut;                  /* it has more than ADDRESSES_PER_NAME; said once */
    bool running;              /* answer and error are the pool thread's */
    struct work work;
    struct resolved answer;
    enum err error;
};
struct want {
    char *ns, *service;        /* as in struct live_address */
    struct name *name;
};
struct resolver {
    struct loop *loop;
    enum err (*lookup)(const char *name, struct resolved *out);
    void (*changed)(void *ctx);
    void *ctx;
    struct list names;
    struct table index;        /* text -> struct name */
    struct want *wants;
    size_t wants_n, wants_cap;
    struct live_address *out;
    size_t out_n;
    uint32_t running;
    bool freed;                /* the last look-up frees it */
    struct timer timer;        /* the next name is due */
    struct timer gather;       /* changed() is due */
};

/* ---- one name -------------------------------------------------------------------------------------------------------------- */

static int addr_order(const void *a, const void *b) { return memcmp(a, b, sizeof(struct addr)); }

static bool addr_from(const struct addrinfo *a, struct addr *out)
{
    memset(out, 0, sizeof *out);
    if (a->ai_family == AF_INET) {
        out->family = ADDR_IP4;
        memcpy(out->ip, &((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr, 4);
    } else if (a->ai_family == AF_INET6) {
        out->family = ADDR_IP6;
        memcpy(out->ip, &((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_addr, 16);
    }
    return out->family != ADDR_NONE;
}

enum err resolve_name(const char *name, struct resolved *out)
{
    struct addrinfo want = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    uint32_t cap = 0, v4 = 0;
    *out = (struct resolved){0};
    if (getaddrinfo(name, NULL, &want, &list) != 0)
        return ERR_NOTFOUND;
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        struct addr to;
        if (!addr_from(a, &to))
            continue;
        ARRAY_GROW(MEM_API, out->items, out->n, cap);
        out->items[out->n++] = to;
    }
    freeaddrinfo(list);
    /* Both families of one host are one endpoint as often as not: IPv4 where there is any. */
    for (uint32_t i = 0; i < out->n; i++)
        if (out->items[i].family == ADDR_IP4)
            out->items[v4++] = out->items[i];
    if (v4)
        out->n = v4;
    return out->n ? OK : ERR_NOTFOUND;
}

static void name_free(struct name *m)
{
    list_del(&m->link);
    table_del(&m->r->index, slice_cstr(m->text));
    mem_free(m->found.items);
    mem_free(m->text);
    mem_free(m);
}

static struct name *name_of(struct resolver *r, const char *text)
{
    struct name *m = table_get(&r->index, slice_cstr(text));
    if (m)
        return m;
    m = mem_new(MEM_API, sizeof *m);
    m->r = r;
    m->text = mem_strdup(MEM_API, text);
    list_push(&r->names, &m->link);
    table_put(&r->index, slice_cstr(text), m);
    return m;
}

/* ---- answers ------------------------------------------------------------------------------------------------------------------ */

static void resolver_out(struct resolver *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->wants_n; i++)
        n += r->wants[i].name->found.n;
    mem_free(r->out);
    r->out = mem_new(MEM_API, (n + 1) * sizeof *r->out);
    r->out_n = 0;
    for (size_t i = 0; i < r->wants_n; i++)
        for (uint32_t k = 0; k < r->wants[i].name->found.n; k++)
            r->out[r->out_n++] = (struct live_address){r->wants[i].ns, r->wants[i].service, r->wants[i].name->found.items[k]};
}

static void gathered(struct timer *t)
{
    struct resolver *r = CONTAINER_OF(t, struct resolver, gather);
    resolver_out(r);
    r->changed(r->ctx);
}

static void name_failed(struct name *m)
{
    if (m->fails++ == 0)
        log_warn("resolve", "the name %s can't be resolved; %s", m->text, m->found.n ? "its last addresses stay in use" : "it has no endpoints");
    uint32_t doubled = MIN(m->fails - 1, 16u);
    m->due_ms = loop_now_ms(m->r->loop) + MIN((uint64_t)RESOLVE_RETRY_MS << doubled, (uint64_t)RESOLVE_MS);
}

/* True: its addresses are others now. */
static bool name_found(struct name *m)
{
    struct resolved *to = &m->found, *from = &m->answer;
    if (from->n > ADDRESSES_PER_NAME) { /* sorted, so that the same ones are left out each time */
        if (!m->cut)
            log_warn("resolve", "the name %s has %u addresses; the first %u are used", m->text, from->n, ADDRESSES_PER_NAME);
        m->cut = true;
        from->n = ADDRESSES_PER_NAME;
    }
    if (m->fails)
        log_info("resolve", "the name %s can be resolved again", m->text);
    m->fails = 0;
    m->due_ms = loop_now_ms(m->r->loop) + RESOLVE_MS - loop_random(m->r->loop) % (RESOLVE_MS / 10);
    bool same = to->n == from->n && memcmp(to->items, from->items, to->n * sizeof *to->items) == 0;
    mem_free(to->items);
    *to = *from;
    *from = (struct resolved){0};
    return !same;
}

static void resolver_next(struct resolver *r);

static void lookup_run(struct work *w)
{
    struct name *m = CONTAINER_OF(w, struct name, work);
    m->error = m->r->lookup(m->text, &m->answer);
    if (m->answer.n)
        qsort(m->answer.items, m->answer.n, sizeof *m->answer.items, addr_order);
}

static void lookup_done(struct work *w)
{
    struct name *m = CONTAINER_OF(w, struct name, work);
    struct resolver *r = m->r;
    m->running = false;
    r->running--;
    m->asked = true;
    if (m->error != OK)
        name_failed(m);
    else if (name_found(m) && m->wanted && !r->freed && !timer_is_set(&r->gather))
        timer_set(r->loop, &r->gather, GATHER_MS);
    mem_free(m->answer.items);
    m->answer = (struct resolved){0};
    if (!m->wanted)
        name_free(m);
    if (!r->freed)
        resolver_next(r);
    else if (r->running == 0)
        resolver_free(r);
}

/* Begins the look-ups that are due, in the order in which they became so, as far as may run. */
static void resolver_next(struct resolver *r)
{
    uint64_t now = loop_now_ms(r->loop);
    for (;;) {
        struct name *first = NULL;
        LIST_FOREACH(l, &r->names) {
            struct name *m = CONTAINER_OF(l, struct name, link);
            if (m->wanted && !m->running && (!first || m->due_ms < first->due_ms))
                first = m;
        }
        if (!first || r->running >= LOOKUPS_MAX)
            return; /* what ends goes on */
        if (first->due_ms > now) {
            timer_set(r->loop, &r->timer, first->due_ms - now);
            return;
        }
        first->running = true;
        r->running++;
        first->work = (struct work){.run = lookup_run, .done = lookup_done};
        work_submit(r->loop, &first->work);
    }
}

static void resolver_timer(struct timer *t) { resolver_next(CONTAINER_OF(t, struct resolver, timer)); }

/* ---- for the engine -------------------------------------------------------------------------------------------------------------- */

struct resolver *resolver_new(struct loop *l, enum err (*lookup)(const char *name, struct resolved *out), void (*changed)(void *ctx), void *ctx)
{
    struct resolver *r = mem_new(MEM_API, sizeof *r);
    r->loop = l;
    r->lookup = lookup;
    r->changed = changed;
    r->ctx = ctx;
    list_init(&r->names);
    timer_init(&r->timer, resolver_timer);
    timer_init(&r->gather, gathered);
    return r;
}

static void wants_clear(struct resolver *r)
{
    for (size_t i = 0; i < r->wants_n; i++) {
        mem_free(r->wants[i].ns);
        mem_free(r->wants[i].service);
    }
    r->wants_n = 0;
}

static void names_unwanted_free(struct resolver *r)
{
    LIST_FOREACH(l, &r->names) {
        struct name *m = CONTAINER_OF(l, struct name, link);
        if (!m->wanted && !m->running)
            name_free(m);
    }
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    timer_clear(&r->timer);
    timer_clear(&r->gather);
    wants_clear(r);
    LIST_FOREACH(l, &r->names)
        CONTAINER_OF(l, struct name, link)->wanted = false;
    names_unwanted_free(r);
    r->freed = r->running > 0; /* its threads still read their names: the last one's done() comes back here */
    if (r->freed)
        return;
    table_fini(&r->index);
    mem_free(r->wants);
    mem_free(r->out);
    mem_free(r);
}

static void want_add(struct resolver *r, const char *ns, const char *service, const char *name)
{
    struct name *m = name_of(r, name);
    m->wanted = true;
    ARRAY_GROW(MEM_API, r->wants, r->wants_n, r->wants_cap);
    r->wants[r->wants_n++] = (struct want){mem_strdup(MEM_API, ns), mem_strdup(MEM_API, service), m};
}

/* A name in a ServiceEntry; seen: those that others have named already. */
static void want_host(struct resolver *r, const char *host, struct table *seen)
{
    struct addr a;
    if (addr_parse(slice_cstr(host), 0, &a) != OK && host[0] != '*' && !table_put(seen, slice_cstr(host), r))
        want_add(r, "", host, host);
}

/* The hosts of an entry are looked up where nothing else says where they are (plan/compile_cluster.c). */
static void want_entry(struct resolver *r, const struct service_entry *e, struct table *seen)
{
    for (size_t i = 0; i < e->endpoints_n; i++)
        want_host(r, e->endpoints[i].address, seen);
    if (e->endpoints_n || e->selector.n || e->resolution == ENTRY_STATIC)
        return;
    for (size_t i = 0; i < e->hosts_n; i++)
        want_host(r, e->hosts[i], seen);
}

void resolver_want(struct resolver *r, const struct objset *set)
{
    struct table seen = {0};
    wants_clear(r);
    LIST_FOREACH(l, &r->names)
        CONTAINER_OF(l, struct name, link)->wanted = false;
    for (size_t i = 0; i < objset_n(set); i++) {
        const struct object *o = objset_at(set, i);
        if (o->kind == OBJ_SERVICE && o->svc.external_name)
            want_add(r, o->ns, o->name, o->svc.external_name);
        else if (o->kind == OBJ_SERVICEENTRY)
            want_entry(r, &o->entry, &seen);
    }
    table_fini(&seen);
    names_unwanted_free(r);
    resolver_out(r);
    resolver_next(r);
}

bool resolver_settled(const struct resolver *r)
{
    for (const struct list *l = r->names.next; l != &r->names; l = l->next)
        if (CONTAINER_OF(l, struct name, link)->wanted && !CONTAINER_OF(l, struct name, link)->asked)
            return false;
    return !timer_is_set(&r->gather);
}

const struct live_address *resolver_addresses(struct resolver *r, size_t *n)
{
    *n = r->out_n;
    return r->out;
}
