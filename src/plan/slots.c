/* slots.c - plan_memory: small numbers that stay the same from one plan to the next.
 *
 * Workers keep tables indexed by slot: outstanding requests by endpoint, pools by cluster, counters by route. So the same
 * thing must keep its slot over reloads, and a slot must not pass to another thing while anybody can take the one for the
 * other. Workers change plans at different moments, and a request in flight finishes on the plan it began with. A slot is
 * therefore given away again only when
 *
 *   1. its owner was absent from a whole plan before this one: a worker that walks from plan to plan meets one in which
 *      nobody has the slot, and can clear its row; and
 *   2. every plan in which the owner was is gone (plan_life), so no request can still name the old owner.
 *
 * A cluster or route that comes back before that gets its old slot: its counters go on. An endpoint does not: it is a new
 * endpoint with a new id, and nothing that was learnt about the old one holds for it.
 *
 *   live --absent from plan G--> retired --slots_begin() of a plan > G, no held plan has it--> free --another key--> gone
 *
 * The memory also keeps what workers share of endpoints and clusters (counted, so plans may outlive the memory), and what is
 * costly to make and often the same in the next plan: compiled expressions, TLS contexts, ticket keys.
 *
 * Control thread only, plan_life_end() and the unref functions excepted.
 */
#include "route_int.h"

#define SLOT_INDEX_MIN 8

/* There is one for each endpoint, and of those there may be many: one block, and 8 bytes in the index. */
struct slot_entry {
    struct list link;      /* on retired or free of its space; alone while live */
    uint32_t slot;
    uint32_t hash;         /* of key */
    uint64_t id;
    uint32_t first, last;  /* generations of the first and the last plan that has it */
    uint64_t since_ms;     /* monotonic: when the entry was made */
    void *shared;          /* one reference: struct endpoint_health, once it was asked for; struct cluster_shared; NULL for routes */
    uint32_t key_n;
    bool live;             /* it is in the last plan, or in the one being compiled */
    bool keyed;            /* the index still leads here; false for an endpoint's old entry after it came back */
    char key[];
};
/* Key -> entry: open addressing as in base/table.c, but the keys are in the entries. */
struct slot_index {
    struct slot_entry **at;      /* NULL: free */
    uint32_t n, cap;             /* cap: a power of two, or 0 */
};
struct slot_space {
    struct slot_index keys;
    struct list retired;         /* not in the last plan; oldest first */
    struct list free;            /* the same, and the slot may go to another key */
    struct slot_entry **by_slot; /* the holder, or the last one */
    uint32_t top, cap;
};
/* Something made once, by content. */
struct made {
    void *thing;          /* one reference; NULL: making it failed */
    uint64_t generation;  /* that asked for it last */
};
/* Shared by the memory and one plan; whoever lets go last frees it. */
struct plan_life {
    struct plan_life *next;  /* the memory's: the next younger plan */
    uint64_t generation;
    uint32_t refs;           /* atomic: 2, 1 */
    uint32_t ended;          /* atomic: the plan is gone */
};
struct plan_memory {
    uint64_t generation;     /* of the plan being compiled, or of the last one */
    uint64_t next_id;
    uint64_t now_ms;         /* monotonic, when the compilation began */
    struct slot_space spaces[SLOT_KINDS];
    struct plan_life *lives; /* oldest first */
    struct table regexes;    /* 'w' or 'p' and the text -> struct made of struct plan_regex */
    struct table tls;        /* 16 bytes of hash -> struct made of struct tls_ctx */
    struct tls_tickets *tickets;
    struct endpoint_health *nobody; /* for endpoints that have none of their own; one reference */
    char *locality;
    struct plan_node node;   /* its texts are one block at node_text; name NULL: there are no other nodes */
    char *node_text;
    size_t node_text_n;
};

static struct endpoint_health *health_new(void)
{
    struct endpoint_health *h = mem_new(MEM_PLAN, sizeof *h);
    h->refs = 1;
    return h;
}

struct plan_memory *plan_memory_new(void)
{
    struct plan_memory *m = mem_new(MEM_PLAN, sizeof *m);
    m->next_id = 1;
    m->nobody = health_new();
    m->nobody->nobody = true;
    for (int k = 0; k < SLOT_KINDS; k++) {
        list_init(&m->spaces[k].retired);
        list_init(&m->spaces[k].free);
    }
    return m;
}

/* ---- what all workers share of an endpoint or a cluster ---------------------------------------------------------------- */

struct endpoint_health *endpoint_health_ref(struct endpoint_health *h)
{
    uint32_t before = __atomic_fetch_add(&h->refs, 1, __ATOMIC_RELAXED);
    MUST(before > 0 && before < UINT32_MAX);
    return h;
}

void endpoint_health_unref(struct endpoint_health *h)
{
    if (h && __atomic_sub_fetch(&h->refs, 1, __ATOMIC_ACQ_REL) == 0)
        mem_free(h);
}

struct cluster_shared *cluster_shared_ref(struct cluster_shared *s)
{
    uint32_t before = __atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
    MUST(before > 0 && before < UINT32_MAX);
    return s;
}

void cluster_shared_unref(struct cluster_shared *s)
{
    if (s && __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) == 0)
        mem_free(s);
}

static struct cluster_shared *shared_new(void)
{
    struct cluster_shared *s = mem_new(MEM_PLAN, sizeof *s);
    s->refs = 1;
    return s;
}

static void entry_free(enum slot_kind kind, struct slot_entry *e)
{
    if (!e)
        return;
    if (kind == SLOT_ENDPOINT)
        endpoint_health_unref(e->shared);
    else if (kind == SLOT_CLUSTER)
        cluster_shared_unref(e->shared);
    mem_free(e);
}

/* ---- entries by key --------------------------------------------------------------------------------------------------- */

static struct slice entry_key(const struct slot_entry *e) { return slice_of(e->key, e->key_n); }

/* Where the entry with that key is, or the free place where it belongs. cap is not 0. */
static uint32_t index_place(const struct slot_index *x, struct slice key, uint32_t hash)
{
    uint32_t i = hash & (x->cap - 1);
    while (x->at[i] && (x->at[i]->hash != hash || !slice_eq(entry_key(x->at[i]), key)))
        i = (i + 1) & (x->cap - 1);
    return i;
}

static struct slot_entry *index_get(const struct slot_index *x, struct slice key, uint32_t hash)
{
    return x->n ? x->at[index_place(x, key, hash)] : NULL;
}

static void index_enlarge(struct slot_index *x)
{
    struct slot_index old = *x;
    MUST(old.cap <= UINT32_MAX / 2);
    x->cap = old.cap ? old.cap * 2 : SLOT_INDEX_MIN;
    x->at = mem_new(MEM_PLAN, x->cap * sizeof *x->at);
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.at[i])
            x->at[index_place(x, entry_key(old.at[i]), old.at[i]->hash)] = old.at[i];
    mem_free(old.at);
}

/* The key is not there. */
static void index_put(struct slot_index *x, struct slot_entry *e)
{
    if (x->n >= x->cap / 4 * 3)
        index_enlarge(x);
    uint32_t i = index_place(x, entry_key(e), e->hash);
    MUST(!x->at[i]);
    x->at[i] = e;
    x->n++;
}

/* Closes the gap, so that whoever lies behind it is still found. */
static void index_del(struct slot_index *x, const struct slot_entry *e)
{
    uint32_t mask = x->cap - 1, gap = index_place(x, entry_key(e), e->hash);
    MUST(x->at[gap] == e);
    for (uint32_t i = (gap + 1) & mask; x->at[i]; i = (i + 1) & mask) {
        uint32_t home = x->at[i]->hash & mask;
        if (((i - home) & mask) < ((i - gap) & mask))
            continue; /* its home lies behind the gap: it may not move in front of it */
        x->at[gap] = x->at[i];
        gap = i;
    }
    x->at[gap] = NULL;
    x->n--;
}

/* ---- the memory ------------------------------------------------------------------------------------------------------- */

static void life_unref(struct plan_life *life)
{
    if (__atomic_sub_fetch(&life->refs, 1, __ATOMIC_ACQ_REL) == 0)
        mem_free(life);
}

static void regex_drop(void *thing) { regex_unref(thing); }
static void tls_drop(void *thing) { tls_ctx_unref(thing); }

/* Lets go what nobody asked for since generation `before`. A table must not change while it is walked: the rest moves to a new one. */
static void made_drop(struct table *t, uint64_t before, void (*drop)(void *))
{
    struct table keep = {0};
    bool any = false;
    for (struct table_slot *s = NULL; !any && (s = table_next(t, s));)
        any = ((struct made *)s->value)->generation < before;
    if (!any)
        return;
    for (struct table_slot *s = NULL; (s = table_next(t, s));) {
        struct made *made = s->value;
        if (made->generation >= before) {
            table_put(&keep, slice_of(s->key, s->key_n), made);
            continue;
        }
        drop(made->thing);
        mem_free(made);
    }
    table_fini(t);
    *t = keep;
}

static void node_drop(struct plan_memory *m)
{
    if (m->node_text)
        memset(m->node_text, 0, m->node_text_n); /* it had the key in it */
    mem_free(m->node_text);
    m->node_text = NULL;
    m->node = (struct plan_node){0};
}

void plan_memory_free(struct plan_memory *m)
{
    if (!m)
        return;
    for (int k = 0; k < SLOT_KINDS; k++) {
        struct slot_space *sp = &m->spaces[k];
        for (uint32_t i = 0; i < sp->top; i++) /* every entry that exists holds a slot, or held it last */
            entry_free((enum slot_kind)k, sp->by_slot[i]);
        mem_free(sp->by_slot);
        mem_free(sp->keys.at);
    }
    endpoint_health_unref(m->nobody);
    while (m->lives) {
        struct plan_life *life = m->lives;
        m->lives = life->next;
        life_unref(life);
    }
    made_drop(&m->regexes, UINT64_MAX, regex_drop);
    made_drop(&m->tls, UINT64_MAX, tls_drop);
    tls_tickets_unref(m->tickets);
    mem_free(m->locality);
    node_drop(m);
    mem_free(m);
}

void plan_memory_locality(struct plan_memory *m, const char *locality)
{
    mem_free(m->locality);
    m->locality = mem_strdup(MEM_PLAN, locality);
}

const char *memory_locality(const struct plan_memory *m) { return m->locality ? m->locality : ""; }

static struct slice text_keep(char **at, struct slice s)
{
    struct slice kept = {*at, s.n};
    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return kept;
}

void plan_memory_node(struct plan_memory *m, const struct plan_node *n)
{
    node_drop(m);
    if (!n)
        return;
    m->node_text_n = strlen(n->name) + 1 + n->cert_pem.n + n->key_pem.n + n->ca_pem.n;
    char *at = m->node_text = mem_new(MEM_PLAN, m->node_text_n);
    m->node.name = text_keep(&at, slice_of(n->name, strlen(n->name) + 1)).p;
    m->node.cert_pem = text_keep(&at, n->cert_pem);
    m->node.key_pem = text_keep(&at, n->key_pem);
    m->node.ca_pem = text_keep(&at, n->ca_pem);
    m->node.listen = n->listen;
}

const struct plan_node *memory_node(const struct plan_memory *m) { return m->node.name ? &m->node : NULL; }

struct tls_tickets *plan_memory_tickets(struct plan_memory *m)
{
    if (!m->tickets)
        m->tickets = tls_tickets_new(wall_ns() / 1000000);
    return m->tickets;
}

void plan_memory_tickets_set(struct plan_memory *m, struct tls_tickets *t)
{
    struct tls_tickets *old = m->tickets;
    m->tickets = tls_tickets_ref(t);
    tls_tickets_unref(old);
}

struct plan_regex *memory_regex(struct plan_memory *m, struct slice text, bool whole)
{
    struct buf key = {0};
    buf_addc(&key, whole ? 'w' : 'p');
    buf_add_slice(&key, text);
    struct made *made = table_get(&m->regexes, buf_slice(&key));
    if (!made) {
        made = mem_new(MEM_PLAN, sizeof *made);
        made->thing = regex_new(text, whole, NULL);
        table_put(&m->regexes, buf_slice(&key), made);
    }
    buf_free(&key);
    made->generation = m->generation;
    return made->thing;
}

static struct slice tls_key(const uint64_t hash[2]) { return slice_of((const char *)hash, 2 * sizeof *hash); }

struct tls_ctx *memory_tls(struct plan_memory *m, const uint64_t hash[2], bool *found)
{
    struct made *made = table_get(&m->tls, tls_key(hash));
    *found = made != NULL;
    if (!made)
        return NULL;
    made->generation = m->generation;
    return made->thing;
}

void memory_tls_put(struct plan_memory *m, const uint64_t hash[2], struct tls_ctx *ctx)
{
    struct made *made = mem_new(MEM_PLAN, sizeof *made);
    *made = (struct made){ctx, m->generation};
    struct made *before = table_put(&m->tls, tls_key(hash), made);
    MUST(!before);
}

/* ---- one compilation ----------------------------------------------------------------------------------------------- */

/* Forgets plans that are gone. */
static void lives_sweep(struct plan_memory *m)
{
    for (struct plan_life **at = &m->lives; *at;) {
        struct plan_life *life = *at;
        if (__atomic_load_n(&life->ended, __ATOMIC_ACQUIRE)) {
            *at = life->next;
            life_unref(life);
        } else {
            at = &life->next;
        }
    }
}

/* Some plan that is held may have the entry. */
static bool slot_held(const struct plan_memory *m, const struct slot_entry *e)
{
    for (const struct plan_life *life = m->lives; life && life->generation <= e->last; life = life->next)
        if (life->generation >= e->first)
            return true;
    return false;
}

uint64_t slots_begin(struct plan_memory *m)
{
    m->generation++;
    MUST(m->generation <= UINT32_MAX); /* a plan a second for 136 years */
    m->now_ms = mono_ns() / 1000000;
    lives_sweep(m);
    for (int k = 0; k < SLOT_KINDS; k++) {
        struct slot_space *sp = &m->spaces[k];
        LIST_FOREACH(at, &sp->retired) {
            struct slot_entry *e = CONTAINER_OF(at, struct slot_entry, link);
            if (slot_held(m, e))
                continue;
            list_del(&e->link);
            list_push(&sp->free, &e->link);
        }
    }
    return m->generation;
}

/* A slot that may pass to another key, the one that rested longest first; else a new one. */
static uint32_t slot_pick(struct slot_space *sp, enum slot_kind kind)
{
    if (!list_empty(&sp->free)) {
        struct slot_entry *old = CONTAINER_OF(sp->free.next, struct slot_entry, link);
        uint32_t slot = old->slot;
        list_del(&old->link);
        if (old->keyed)
            index_del(&sp->keys, old);
        entry_free(kind, old);
        sp->by_slot[slot] = NULL;
        return slot;
    }
    ARRAY_GROW(MEM_PLAN, sp->by_slot, sp->top, sp->cap);
    sp->by_slot[sp->top] = NULL;
    return sp->top++;
}

static struct slot_entry *slot_new(struct plan_memory *m, enum slot_kind kind, struct slice key, uint32_t hash)
{
    struct slot_space *sp = &m->spaces[kind];
    uint32_t slot = slot_pick(sp, kind);
    MUST(key.n <= UINT32_MAX); /* made of names that are bounded */
    struct slot_entry *e = mem_new(MEM_PLAN, offsetof(struct slot_entry, key) + key.n);
    list_init(&e->link);
    e->slot = slot;
    e->hash = hash;
    e->key_n = (uint32_t)key.n;
    if (key.n)
        memcpy(e->key, key.p, key.n);
    e->id = m->next_id++;
    e->first = (uint32_t)m->generation;
    e->since_ms = m->now_ms;
    e->shared = kind == SLOT_CLUSTER ? shared_new() : NULL;
    e->keyed = true;
    sp->by_slot[slot] = e;
    index_put(&sp->keys, e);
    return e;
}

struct slot_take slots_take(struct plan_memory *m, enum slot_kind kind, struct slice key)
{
    struct slot_space *sp = &m->spaces[kind];
    uint32_t hash = (uint32_t)hash_slice(key);
    struct slot_entry *e = index_get(&sp->keys, key, hash);
    if (e && !e->live && kind == SLOT_ENDPOINT) {
        index_del(&sp->keys, e); /* the entry stays in its list with its slot */
        e->keyed = false;
        e = NULL;
    }
    if (!e)
        e = slot_new(m, kind, key, hash);
    bool again = e->live && e->last == m->generation;
    list_del(&e->link);
    e->live = true;
    e->last = (uint32_t)m->generation;
    return (struct slot_take){e->slot, e->id, e->since_ms, e->shared, again};
}

/* Once an endpoint has its own it keeps it: workers may still hold what they know of it. */
struct endpoint_health *slots_health(struct plan_memory *m, uint32_t slot, bool wanted)
{
    MUST(slot < m->spaces[SLOT_ENDPOINT].top);
    struct slot_entry *e = m->spaces[SLOT_ENDPOINT].by_slot[slot];
    if (!e->shared && wanted)
        e->shared = health_new();
    return e->shared ? e->shared : m->nobody;
}

void slots_end(struct plan_memory *m)
{
    for (int k = 0; k < SLOT_KINDS; k++) {
        struct slot_space *sp = &m->spaces[k];
        for (uint32_t i = 0; i < sp->top; i++) {
            struct slot_entry *e = sp->by_slot[i];
            if (e->last == m->generation || !e->live)
                continue;
            e->live = false;
            list_push(&sp->retired, &e->link);
        }
    }
    made_drop(&m->regexes, m->generation - 1, regex_drop);
    made_drop(&m->tls, m->generation - 1, tls_drop);
}

uint32_t slots_top(const struct plan_memory *m, enum slot_kind kind)
{
    return m->spaces[kind].top;
}

struct slice slots_key(const struct plan_memory *m, enum slot_kind kind, uint32_t slot)
{
    MUST(slot < m->spaces[kind].top);
    return entry_key(m->spaces[kind].by_slot[slot]);
}

/* ---- lives ------------------------------------------------------------------------------------------------------------ */

struct plan_life *slots_life(struct plan_memory *m)
{
    struct plan_life *life = mem_new(MEM_PLAN, sizeof *life), **at = &m->lives;
    life->generation = m->generation;
    life->refs = 2;
    while (*at)
        at = &(*at)->next;
    *at = life;
    return life;
}

void plan_life_end(struct plan_life *life)
{
    __atomic_store_n(&life->ended, 1, __ATOMIC_RELEASE);
    life_unref(life);
}
