/* resolve.c - addresses of ExternalName services, looked up on the pool of blocking threads.
 *
 * One look-up of all names at a time, again every RESOLVE_MS and whenever the set of names changes. A name that can't be
 * resolved keeps the addresses it had: a resolver's outage does not take services away.
 */
#include "engine_int.h"
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define ADDRESSES_PER_NAME 16

struct external {
    char *ns, *service, *name;
    struct addr found[ADDRESSES_PER_NAME];
    uint32_t found_n;
    bool failed; /* the last look-up; said once */
};
struct lookup {
    struct work work;
    struct resolver *r;
    struct external *items;
    size_t n;
};
struct resolver {
    struct loop *loop;
    void (*changed)(void *ctx);
    void *ctx;
    struct external *items; /* what is wanted, with the last addresses */
    size_t n;
    struct live_address *out;
    size_t out_n;
    struct lookup *running;
    bool again;             /* the names changed while a look-up ran */
    bool freed;
    struct timer timer;
};

static void externals_free(struct external *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mem_free(items[i].ns);
        mem_free(items[i].service);
        mem_free(items[i].name);
    }
    mem_free(items);
}

static void external_resolve(struct external *x)
{
    struct addrinfo want = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    x->found_n = 0;
    x->failed = getaddrinfo(x->name, NULL, &want, &list) != 0;
    for (struct addrinfo *a = list; a && x->found_n < ADDRESSES_PER_NAME; a = a->ai_next) {
        struct addr *to = &x->found[x->found_n];
        *to = (struct addr){0};
        if (a->ai_family == AF_INET) {
            to->family = ADDR_IP4;
            memcpy(to->ip, &((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr, 4);
        } else if (a->ai_family == AF_INET6) {
            to->family = ADDR_IP6;
            memcpy(to->ip, &((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_addr, 16);
        } else
            continue;
        x->found_n++;
    }
    /* Both families of one host are one endpoint as often as not: IPv4 where there is any. */
    uint32_t v4 = 0;
    for (uint32_t i = 0; i < x->found_n; i++)
        if (x->found[i].family == ADDR_IP4)
            x->found[v4++] = x->found[i];
    if (v4)
        x->found_n = v4;
    if (list)
        freeaddrinfo(list);
}

static void lookup_run(struct work *w)
{
    struct lookup *l = CONTAINER_OF(w, struct lookup, work);
    for (size_t i = 0; i < l->n; i++)
        external_resolve(&l->items[i]);
}

static void resolver_out(struct resolver *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        n += r->items[i].found_n;
    mem_free(r->out);
    r->out = mem_new(MEM_API, (n + 1) * sizeof *r->out);
    r->out_n = 0;
    for (size_t i = 0; i < r->n; i++)
        for (uint32_t k = 0; k < r->items[i].found_n; k++)
            r->out[r->out_n++] = (struct live_address){r->items[i].ns, r->items[i].service, r->items[i].found[k]};
}

static void lookup_start(struct resolver *r);

static bool external_take(struct external *to, const struct external *from)
{
    if (from->failed) {
        if (!to->failed)
            log_warn("resolve", "service %s/%s: the external name %s can't be resolved; %s", to->ns, to->service, to->name, to->found_n ? "its last addresses stay in use" : "it has no endpoints");
        to->failed = true;
        return false;
    }
    to->failed = false;
    bool same = to->found_n == from->found_n;
    for (uint32_t i = 0; same && i < from->found_n; i++)
        same = addr_eq(&to->found[i], &from->found[i]);
    memcpy(to->found, from->found, sizeof to->found);
    to->found_n = from->found_n;
    return !same;
}

static void lookup_done(struct work *w)
{
    struct lookup *l = CONTAINER_OF(w, struct lookup, work);
    struct resolver *r = l->r;
    bool changed = false;
    r->running = NULL;
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < l->n; k++)
            if (strcmp(r->items[i].name, l->items[k].name) == 0 && strcmp(r->items[i].service, l->items[k].service) == 0 && strcmp(r->items[i].ns, l->items[k].ns) == 0)
                changed |= external_take(&r->items[i], &l->items[k]);
    externals_free(l->items, l->n);
    mem_free(l);
    if (r->freed) {
        r->freed = false;
        resolver_free(r);
        return;
    }
    if (r->again)
        lookup_start(r);
    else
        timer_set(r->loop, &r->timer, RESOLVE_MS);
    if (changed) {
        resolver_out(r);
        r->changed(r->ctx);
    }
}

static void lookup_start(struct resolver *r)
{
    r->again = r->running != NULL;
    if (r->running || r->n == 0)
        return;
    struct lookup *l = mem_new(MEM_API, sizeof *l);
    l->work = (struct work){.run = lookup_run, .done = lookup_done};
    l->r = r;
    l->n = r->n;
    l->items = mem_new(MEM_API, r->n * sizeof *l->items);
    for (size_t i = 0; i < r->n; i++)
        l->items[i] = (struct external){.ns = mem_strdup(MEM_API, r->items[i].ns), .service = mem_strdup(MEM_API, r->items[i].service), .name = mem_strdup(MEM_API, r->items[i].name)};
    r->running = l;
    timer_clear(&r->timer);
    work_submit(r->loop, &l->work);
}

static void resolver_timer(struct timer *t) { lookup_start(CONTAINER_OF(t, struct resolver, timer)); }

struct resolver *resolver_new(struct loop *l, void (*changed)(void *ctx), void *ctx)
{
    struct resolver *r = mem_new(MEM_API, sizeof *r);
    r->loop = l;
    r->changed = changed;
    r->ctx = ctx;
    timer_init(&r->timer, resolver_timer);
    return r;
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    timer_clear(&r->timer);
    if (r->running) { /* its thread still reads what it was given: done() frees */
        r->freed = true;
        return;
    }
    externals_free(r->items, r->n);
    mem_free(r->out);
    mem_free(r);
}

void resolver_want(struct resolver *r, const struct objset *set)
{
    struct external *items = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < objset_n(set); i++) {
        const struct object *o = objset_at(set, i);
        if (o->kind != OBJ_SERVICE || !o->svc.external_name)
            continue;
        ARRAY_GROW(MEM_API, items, n, cap);
        items[n] = (struct external){.ns = mem_strdup(MEM_API, o->ns), .service = mem_strdup(MEM_API, o->name), .name = mem_strdup(MEM_API, o->svc.external_name)};
        for (size_t k = 0; k < r->n; k++)
            if (strcmp(r->items[k].name, items[n].name) == 0 && r->items[k].found_n) {
                memcpy(items[n].found, r->items[k].found, sizeof items[n].found);
                items[n].found_n = r->items[k].found_n;
            }
        n++;
    }
    externals_free(r->items, r->n);
    r->items = items;
    r->n = n;
    resolver_out(r);
    lookup_start(r);
}

bool resolver_settled(const struct resolver *r) { return !r->running; }

const struct live_address *resolver_addresses(struct resolver *r, size_t *n)
{
    *n = r->out_n;
    return r->out;
}
