/* objset.c - the set of objects: an array in the order of kind, namespace and name.
 *
 * Objects are immutable but for an address, a generation and a time, and are shared between copies of a set (struct
 * obj_box in plan_int.h), so copying a set costs a few hundred bytes per object. How they are kept: stored.c.
 */
#include "plan_int.h"

/* ---- objects ------------------------------------------------------------------------------------------------------- */

struct object *object_new(enum obj_kind k)
{
    struct obj_box *box = mem_new(MEM_MANIFEST, sizeof *box);
    box->refs = 1;
    box->o.kind = k;
    box->o.generation = 1;
    box->o.created_ns = wall_ns();
    arena_init(&box->o.mem, MEM_MANIFEST, 512);
    return &box->o;
}

static struct obj_box *object_box(struct object *o) { return CONTAINER_OF(o, struct obj_box, o); }

void object_unref(struct object *o)
{
    struct obj_box *box = object_box(o);
    MUST(box->refs > 0);
    if (--box->refs)
        return;
    arena_fini(&o->mem);
    if (box->base) {
        object_unref(&box->base->o);
    } else if (o->lacks) {
        diags_free(o->lacks);
        mem_free(o->lacks);
    }
    mem_free(box);
}

/* Addresses of a ServiceEntry's hosts are the box's own, as a Service's address is: never written in place. */
void entry_addresses_set(struct object *o, const struct addr *addresses)
{
    struct addr *own = arena_alloc(&o->mem, (o->entry.hosts_n + 1) * sizeof *own);
    memcpy(own, addresses, o->entry.hosts_n * sizeof *own);
    o->entry.addresses = own;
    o->entry.addresses_n = o->entry.hosts_n;
}

/* A new box with the same content. The memory stays with the first box, which lives as long as its copies. */
static struct object *object_copy(struct object *o)
{
    struct obj_box *from = object_box(o), *box = mem_new(MEM_MANIFEST, sizeof *box);
    box->o = *o;
    box->refs = 1;
    box->base = from->base ? from->base : from;
    box->base->refs++;
    arena_init(&box->o.mem, MEM_MANIFEST, 512);
    if (o->kind == OBJ_SERVICEENTRY)
        entry_addresses_set(&box->o, o->entry.addresses);
    return &box->o;
}

static int key_order(enum obj_kind k, const char *ns, const char *name, const struct object *o)
{
    if (k != o->kind)
        return k < o->kind ? -1 : 1;
    int c = strcmp(ns, o->ns);
    return c ? c : strcmp(name, o->name);
}

/* Where the object is, or where it would be inserted. */
static size_t objset_index(const struct objset *s, enum obj_kind k, const char *ns, const char *name, bool *found)
{
    size_t lo = 0, hi = s->n;
    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = key_order(k, ns, name, s->items[mid]);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* ---- the set --------------------------------------------------------------------------------------------------------- */

struct objset *objset_new(void) { return mem_new(MEM_MANIFEST, sizeof(struct objset)); }

static void objset_clear(struct objset *s)
{
    for (size_t i = 0; i < s->n; i++)
        object_unref(s->items[i]);
    mem_free(s->items);
    *s = (struct objset){0};
}

void objset_free(struct objset *s)
{
    if (!s)
        return;
    objset_clear(s);
    mem_free(s);
}

void objset_put(struct objset *s, struct object *o)
{
    bool found;
    size_t i = objset_index(s, o->kind, o->ns, o->name, &found);
    if (found) {
        object_unref(s->items[i]);
        s->items[i] = o;
        return;
    }
    ARRAY_GROW(MEM_MANIFEST, s->items, s->n, s->cap);
    memmove(s->items + i + 1, s->items + i, (s->n - i) * sizeof *s->items);
    s->items[i] = o;
    s->n++;
}

size_t objset_n(const struct objset *s) { return s->n; }

const struct object *objset_at(const struct objset *s, size_t i)
{
    MUST(i < s->n);
    return s->items[i];
}

const struct object *objset_find(const struct objset *s, enum obj_kind k, const char *ns, const char *name)
{
    bool found;
    size_t i = objset_index(s, k, ns, name, &found);
    return found ? s->items[i] : NULL;
}

size_t objset_first(const struct objset *s, enum obj_kind k, const char *ns)
{
    bool found;
    return objset_index(s, k, ns, "", &found); /* no object has the name "" */
}

/* Names of the API in grants are compared with case, as Kubernetes does. */
static bool grant_holds(const struct reference_grant *g, const struct object *from, enum obj_kind to, const char *name)
{
    bool from_ok = false, to_ok = false;
    for (size_t i = 0; i < g->from_n && !from_ok; i++)
        from_ok = strcmp(g->from[i].group, obj_kind_group(from->kind)) == 0 && strcmp(g->from[i].kind, obj_kind_word(from->kind)) == 0 &&
                  strcmp(g->from[i].ns, from->ns) == 0;
    for (size_t i = 0; from_ok && i < g->to_n && !to_ok; i++)
        to_ok = strcmp(g->to[i].group, obj_kind_group(to)) == 0 && strcmp(g->to[i].kind, obj_kind_word(to)) == 0 &&
                (!g->to[i].name || strcmp(g->to[i].name, name) == 0);
    return to_ok;
}

bool objset_granted(const struct objset *s, const struct object *from, enum obj_kind to, const char *ns, const char *name)
{
    if (strcmp(from->ns, ns) == 0)
        return true;
    for (size_t i = objset_first(s, OBJ_REFERENCEGRANT, ns); i < s->n; i++) {
        const struct object *o = s->items[i];
        if (o->kind != OBJ_REFERENCEGRANT || strcmp(o->ns, ns) != 0)
            return false;
        if (grant_holds(&o->grant, from, to, name))
            return true;
    }
    return false;
}

bool objset_listener_allows(const struct objset *s, const struct object *gw, const struct gw_listener *ln, const char *ns)
{
    const struct object *space = objset_find(s, OBJ_NAMESPACE, "", ns);
    size_t own = space ? space->labels.n : 0;
    if (ln->from != LISTEN_FROM_SELECTOR)
        return ln->from == LISTEN_FROM_ALL || strcmp(gw->ns, ns) == 0;
    struct kvs labels = {.items = mem_new(MEM_MANIFEST, (own + 1) * sizeof *labels.items), .n = own + 1};
    labels.items[0] = (struct kv){.key = "kubernetes.io/metadata.name", .value = (char *)ns, .value_n = strlen(ns)}; /* the first of a name counts: nobody can take another's */
    for (size_t i = 0; i < own; i++)
        labels.items[i + 1] = space->labels.items[i];
    bool allows = label_select_match(&ln->namespaces, &labels);
    mem_free(labels.items);
    return allows;
}

bool objset_remove(struct objset *s, enum obj_kind k, const char *ns, const char *name)
{
    bool found;
    size_t i = objset_index(s, k, ns, name, &found);
    if (!found)
        return false;
    object_unref(s->items[i]);
    s->n--;
    memmove(s->items + i, s->items + i + 1, (s->n - i) * sizeof *s->items);
    return true;
}

struct objset *objset_copy(const struct objset *s)
{
    struct objset *copy = objset_new();
    copy->items = mem_new(MEM_MANIFEST, (s->n + 1) * sizeof *copy->items);
    copy->cap = s->n + 1;
    for (size_t i = 0; i < s->n; i++)
        copy->items[copy->n++] = object_copy(s->items[i]);
    return copy;
}

void objset_share(struct objset *into, const struct object *o) { objset_put(into, object_copy((struct object *)(uintptr_t)o)); }

/* A host that was in old keeps its address. */
static void entry_inherit(struct object *o, const struct object *old)
{
    for (size_t i = 0; i < o->entry.hosts_n; i++)
        for (size_t k = 0; k < old->entry.hosts_n; k++)
            if (o->entry.addresses[i].family == ADDR_NONE && strcmp(o->entry.hosts[i], old->entry.hosts[k]) == 0)
                o->entry.addresses[i] = old->entry.addresses[k]; /* o is new: nobody shares it yet */
}

/* What an object keeps from the one it replaces. */
static void object_inherit(struct object *o, const struct object *old)
{
    bool same = o->hash == old->hash && strcmp(o->dir, old->dir) == 0;
    o->created_ns = old->created_ns;
    o->generation = old->generation + !same;
    if (o->kind == OBJ_SERVICE && o->svc.address.family == ADDR_NONE && !o->svc.headless)
        o->svc.address = old->svc.address;
    if (o->kind == OBJ_SERVICEENTRY)
        entry_inherit(o, old);
}

void objset_merge(struct objset *into, struct objset *from)
{
    for (size_t i = 0; i < from->n; i++) {
        struct object *o = from->items[i];
        const struct object *old = objset_find(into, o->kind, o->ns, o->name);
        if (old)
            object_inherit(o, old);
        objset_put(into, o);
    }
    from->n = 0;
    objset_clear(from);
}

/* ---- what is to be written ------------------------------------------------------------------------------------------------ */

static bool addresses_same(const struct object *a, const struct object *b)
{
    if (a->kind == OBJ_SERVICE)
        return addr_eq(&a->svc.address, &b->svc.address);
    if (a->kind != OBJ_SERVICEENTRY)
        return true;
    bool same = a->entry.addresses_n == b->entry.addresses_n;
    for (size_t i = 0; same && i < a->entry.addresses_n; i++)
        same = addr_eq(&a->entry.addresses[i], &b->entry.addresses[i]);
    return same;
}

/* But for file, line and column; and for who owns which field, unless owners. */
static bool object_same_content(const struct object *a, const struct object *b, bool owners)
{
    return a->hash == b->hash && (!owners || strcmp(a->json, b->json) == 0) && strcmp(a->dir, b->dir) == 0 && a->generation == b->generation && a->created_ns == b->created_ns &&
           addresses_same(a, b);
}

bool object_same(const struct object *a, const struct object *b)
{
    return object_same_content(a, b, true) && a->line == b->line && a->column == b->column && strcmp(a->file, b->file) == 0;
}

void objset_keep_same(struct objset *into, const struct objset *old, bool owners)
{
    for (size_t i = 0; i < into->n; i++) {
        bool found;
        size_t k = objset_index(old, into->items[i]->kind, into->items[i]->ns, into->items[i]->name, &found);
        if (found && !object_same(into->items[i], old->items[k]) && object_same_content(into->items[i], old->items[k], owners)) {
            struct object *kept = object_copy(old->items[k]);
            object_unref(into->items[i]);
            into->items[i] = kept;
        }
    }
}
