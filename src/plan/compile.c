/* compile.c - from a checked objset and the live endpoints to one immutable plan.
 *
 *   Services, ServiceEntries         -> targets: names that traffic can go to
 *   DestinationRules, Backend*       -> the policies of targets
 *   targets, live endpoints          -> clusters, one for each port and subset
 *   HTTPRoutes, VirtualServices, ... -> sources: rules, and their matches in order, once for all listeners
 *   Gateways of both kinds           -> listeners, one for each address and port, with host and path tables
 *   this node, if one of several     -> one more listener, the gate; contexts, and names of its replicas for other nodes
 *   headless Services                -> targets for each of their endpoints
 *   targets again                    -> mesh: service address and port -> rules
 *
 * Nothing fails: what a checked set cannot contain is asserted, what it can lack (a Service behind a backend, endpoints of
 * a Service, a named port of an endpoint) has a meaning in the plan. All that the plan keeps is copied into its arena; what
 * only the compilation needs lies in a second arena that goes at the end. compile_int.h says which file does what.
 */
#include "compile_int.h"

#define PLAN_CHUNK_BYTES 16384
#define SCRATCH_CHUNK_BYTES 65536

/* plan_compile() hands out the first member. */
struct plan_whole {
    struct plan plan;
    struct plan_life *life;
    struct plan_holds holds;
};

/* ---- what the files share ----------------------------------------------------------------------------------------------- */

struct object_list *list_new(struct compile *c)
{
    struct object_list *l = arena_zalloc(&c->scratch, sizeof *l);
    l->next = c->lists;
    c->lists = l;
    return l;
}

void list_add(struct object_list *l, const struct object *o)
{
    ARRAY_GROW(MEM_PLAN, l->items, l->n, l->cap);
    l->items[l->n++] = o;
}

struct object_list *list_at(struct compile *c, struct table *t, struct slice key)
{
    struct object_list *l = table_get(t, key);
    if (!l) {
        l = list_new(c);
        table_put(t, key, l);
    }
    return l;
}

int object_age_cmp(const struct object *a, const struct object *b)
{
    if (a->created_ns != b->created_ns)
        return a->created_ns < b->created_ns ? -1 : 1;
    int c = strcmp(a->ns, b->ns);
    return c ? c : strcmp(a->name, b->name);
}

bool exported(char *const *export_to, size_t n, const char *own, const char *ns)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(export_to[i], "*") == 0 || strcmp(export_to[i], ns) == 0 || (strcmp(export_to[i], ".") == 0 && strcmp(own, ns) == 0))
            return true;
    return n == 0;
}

struct kvs kvs_keep(struct keep *k, const struct kvs *from)
{
    struct kvs to = {keep_new(k, from->n * sizeof *to.items), from->n};
    for (size_t i = 0; i < from->n; i++) {
        to.items[i].key = keep_str(k, from->items[i].key);
        to.items[i].value = (char *)keep_slice(k, slice_of(from->items[i].value, from->items[i].value_n)).p;
        to.items[i].value_n = from->items[i].value_n;
    }
    return to;
}

char **strings_keep(struct keep *k, char *const *from, size_t n)
{
    char **to = keep_new(k, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        to[i] = keep_str(k, from[i]);
    return to;
}

const struct plan_regex *regex_keep(struct compile *c, const char *text, bool whole)
{
    if (!text)
        return NULL;
    struct slice key = slice_cstr(arena_printf(&c->scratch, "%c%s", whole ? 'w' : 'p', text));
    struct plan_regex *r = table_get(&c->regexes, key);
    if (r || !(r = memory_regex(c->m, slice_cstr(text), whole)))
        return r;
    struct plan_holds *h = c->holds;
    ARRAY_GROW(MEM_PLAN, h->regexes, h->regexes_n, h->regexes_cap);
    h->regexes[h->regexes_n++] = regex_ref(r);
    c->keep.bytes += regex_bytes(r);
    table_put(&c->regexes, key, r);
    return r;
}

/* ---- ReferenceGrants: who may refer to whom ----------------------------------------------------------------------------- */

static struct slice grant_key(const struct compile *c, const char *from_kind, const char *from_ns, const char *to_kind, const char *to_ns, const char *to_name)
{
    return slice_cstr(arena_printf((struct arena *)&c->scratch, "%s/%s>%s/%s/%s", from_kind, from_ns, to_kind, to_ns, to_name));
}

/* One key for each pair; a grant without a name is for all of them. */
static void grants_index(struct compile *c)
{
    for (size_t i = 0; i < objset_n(c->s); i++) {
        const struct object *o = objset_at(c->s, i);
        if (o->kind != OBJ_REFERENCEGRANT)
            continue;
        for (size_t f = 0; f < o->grant.from_n; f++)
            for (size_t t = 0; t < o->grant.to_n; t++) {
                const struct grant_entry *from = &o->grant.from[f], *to = &o->grant.to[t];
                table_put(&c->grants, grant_key(c, from->kind, from->ns, to->kind, o->ns, to->name ? to->name : ""), (void *)o);
            }
    }
}

bool grant_given(const struct compile *c, const char *from_kind, const char *from_ns, const char *to_kind, const char *to_ns, const char *to_name)
{
    return c->grants.n && (table_get(&c->grants, grant_key(c, from_kind, from_ns, to_kind, to_ns, "")) || table_get(&c->grants, grant_key(c, from_kind, from_ns, to_kind, to_ns, to_name)));
}

/* ---- the plan ----------------------------------------------------------------------------------------------------------- */

static void compile_slots(struct compile *c)
{
    struct plan *p = c->plan;
    slots_end(c->m);
    p->cluster_slots = slots_top(c->m, SLOT_CLUSTER);
    p->endpoint_slots = slots_top(c->m, SLOT_ENDPOINT);
    p->route_slots = slots_top(c->m, SLOT_ROUTE);
    p->route_names = keep_new(&c->keep, p->route_slots * sizeof *p->route_names);
    for (uint32_t i = 0; i < p->route_slots; i++)
        p->route_names[i] = (char *)keep_slice(&c->keep, slots_key(c->m, SLOT_ROUTE, i)).p;
}

static void compile_fini(struct compile *c)
{
    for (struct object_list *l = c->lists; l; l = l->next)
        mem_free(l->items);
    table_fini(&c->hosts);
    table_fini(&c->named);
    table_fini(&c->taken);
    table_fini(&c->clusters);
    table_fini(&c->dests);
    table_fini(&c->backend_policies);
    table_fini(&c->backend_tls);
    table_fini(&c->addresses);
    table_fini(&c->grants);
    table_fini(&c->filters);
    table_fini(&c->regexes);
    table_fini(&c->specs);
    table_fini(&c->localities);
    arena_fini(&c->scratch);
}

struct plan *plan_compile(struct plan_memory *m, const struct objset *s, const struct live_endpoint *eps, size_t eps_n, const struct live_address *ext, size_t ext_n)
{
    uint64_t start = mono_ns();
    struct plan_whole *whole = mem_new(MEM_PLAN, sizeof *whole);
    struct plan *p = &whole->plan;
    struct compile c = {.m = m, .s = s, .eps = eps, .eps_n = eps_n, .ext = ext, .ext_n = ext_n, .plan = p, .keep = {&p->mem, sizeof *whole}, .holds = &whole->holds,
                        .node = memory_node(m)};
    arena_init(&p->mem, MEM_PLAN, PLAN_CHUNK_BYTES);
    arena_init(&c.scratch, MEM_PLAN, SCRATCH_CHUNK_BYTES);
    p->refs = 1;
    p->generation = slots_begin(m);
    p->locality = keep_str(&c.keep, memory_locality(m));
    grants_index(&c);
    compile_targets(&c);
    policies_index(&c);
    compile_node(&c);
    compile_clusters(&c);
    compile_routes(&c);
    compile_listeners(&c);
    compile_mesh(&c);
    compile_callers(&c);
    compile_named(&c);
    compile_slots(&c);
    whole->life = slots_life(m);
    p->bytes = c.keep.bytes;
    compile_fini(&c);
    p->compile_ns = mono_ns() - start;
    return p;
}

struct plan *plan_ref(struct plan *p)
{
    uint32_t before = __atomic_fetch_add(&p->refs, 1, __ATOMIC_RELAXED);
    MUST(before > 0 && before < UINT32_MAX);
    return p;
}

static void holds_free(struct plan_holds *h)
{
    for (size_t i = 0; i < h->regexes_n; i++)
        regex_unref(h->regexes[i]);
    for (size_t i = 0; i < h->tls_n; i++)
        tls_ctx_unref(h->tls[i]);
    mem_free(h->regexes);
    mem_free(h->tls);
}

void plan_unref(struct plan *p)
{
    if (!p || __atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    struct plan_whole *whole = CONTAINER_OF(p, struct plan_whole, plan);
    struct plan_life *life = whole->life;
    for (uint32_t i = 0; i < p->clusters_n; i++) {
        cluster_shared_unref(p->clusters[i].shared);
        for (uint32_t k = 0; k < p->clusters[i].eps_n; k++)
            endpoint_health_unref(p->clusters[i].eps[k].health);
    }
    holds_free(&whole->holds);
    table_fini(&p->mesh);
    table_fini(&p->callers);
    table_fini(&p->targets);
    arena_fini(&p->mem);
    mem_free(whole);
    plan_life_end(life);
}
