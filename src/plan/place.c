/* place.c - placement: filter, then choose, one replica after the other; what is somewhere stays there while it may.
 *
 *     keep     each Deployment keeps what it has on nodes that are ready, fit its labels, have room, and are not forbidden by an anti-affinity;
 *              too many: from where there are most
 *     fill     what is missing, one at a time: filters leave the nodes that may have it, the choice takes the best
 *     mend     a Deployment that is wholly ready and whose hard spread is broken moves one replica
 *
 * The choice compares, the first that differs decides: preferences that the manifest gives (weights added up), soft spread (by default over zones and
 * nodes), what is left of CPU and memory, replicas of any Deployment, the name. Counts of matching replicas are kept for each term and domain
 * (struct view) while a Deployment is placed, so a replica costs nodes times terms.
 */
#include "place.h"

#include "plan_int.h"

#define NO_DOMAIN UINT32_MAX

enum view_of { VIEW_NEAR, VIEW_APART, VIEW_NEAR_PREFERRED, VIEW_APART_PREFERRED, VIEW_SPREAD_HARD, VIEW_SPREAD_SOFT };
/* A term as one Deployment sees it. */
struct view {
    enum view_of of;
    uint32_t weight;             /* of a preference */
    uint32_t max_skew, min_domains;
    bool self;                   /* its own replicas match */
    uint32_t *domain;            /* by node: which one; NO_DOMAIN: it lacks the label */
    uint32_t *have;              /* by domain: matching replicas */
    bool *eligible;              /* by domain: some node of it may be chosen as far as labels go: counts for the skew */
    uint32_t domains_n;
    uint64_t total;              /* matching replicas in all domains, and in none */
};

/* Why a node can't have a replica: the texts are those of Kubernetes' scheduler. */
enum refusal { FITS, NOT_READY, NODE_NAME, NODE_LABELS, PORTS, NO_CPU, NO_MEMORY, NO_CPU_NO_MEMORY, SPREAD, SPREAD_LABEL, NEAR, APART, APART_OF_OTHERS, TOGETHER, REFUSALS };
static const char *const refusal_texts[REFUSALS] = {
    [NOT_READY] = "node(s) were not ready",
    [NODE_NAME] = "node(s) didn't match the requested node name",
    [NODE_LABELS] = "node(s) didn't match Pod's node affinity/selector",
    [PORTS] = "node(s) didn't have free ports for the requested pod ports",
    [NO_CPU] = "Insufficient cpu",
    [NO_MEMORY] = "Insufficient memory",
    [SPREAD] = "node(s) didn't match pod topology spread constraints",
    [SPREAD_LABEL] = "node(s) didn't match pod topology spread constraints (missing required label)",
    [NEAR] = "node(s) didn't match pod affinity rules",
    [APART] = "node(s) didn't match pod anti-affinity rules",
    [APART_OF_OTHERS] = "node(s) didn't satisfy existing pods anti-affinity rules",
    [TOGETHER] = "node(s) didn't have the other replicas, which must be together because it runs once",
};

struct placing {
    const struct place_node *nodes;
    size_t n;
    struct place_want *wants;
    size_t wants_n;
    uint32_t **was;              /* by Deployment: counts as they were given */
    uint64_t *cpu, *memory;      /* by node: requested by what is there */
    uint64_t *replicas;          /* by node: of any Deployment */
    struct arena mem;            /* all of the above */
    struct arena scratch;        /* of one Deployment */
    /* The Deployment that is being placed: */
    struct place_want *w;
    size_t w_at;
    struct view *views;
    size_t views_n;
    bool *labels_fit, *forbidden; /* by node: selectors hold; another Deployment's anti-affinity does not let it in */
};

/* ---- labels ---------------------------------------------------------------------------------------------------------------- */

/* A term without any expression matches no node (Kubernetes' API reference, NodeSelectorTerm). */
static bool node_term_holds(const struct node_term *t, const struct place_node *node)
{
    for (size_t i = 0; i < t->names_n; i++)
        if (!label_expr_holds(&t->names[i], node->name))
            return false;
    return (t->exprs_n || t->names_n) && label_exprs_hold(t->exprs, t->exprs_n, node->labels);
}

static bool node_labels_fit(const struct place_spec *p, const struct place_node *node)
{
    bool holds = !p->node_required;
    for (size_t i = 0; i < p->node_terms_n && !holds; i++)
        holds = node_term_holds(&p->node_terms[i], node);
    return holds && kvs_match(&p->node_selector, node->labels);
}

static const struct place_spec *spec_of(const struct place_want *w) { return &w->dep->dep.pod.place; }

static bool in_namespaces(const struct pod_term *t, const char *own, const char *ns)
{
    if (!t->namespaces_n)
        return strcmp(own, ns) == 0;
    for (size_t i = 0; i < t->namespaces_n; i++)
        if (strcmp(t->namespaces[i], ns) == 0)
            return true;
    return false;
}

/* A term of the Deployment own is about the replicas of other. */
static bool term_about(const struct pod_term *t, const struct object *own, const struct object *other)
{
    return in_namespaces(t, own->ns, other->ns) && label_select_match(&t->who, &other->dep.pod.labels);
}

static const char *node_label(const struct place_node *node, const char *key)
{
    const struct kv *kv = kvs_get(node->labels, slice_cstr(key));
    return kv ? kv->value : NULL;
}

/* ---- views ------------------------------------------------------------------------------------------------------------------- */

static void view_domains(struct placing *p, struct view *v, const char *topology)
{
    struct table seen = {0};
    v->domain = arena_alloc(&p->scratch, (p->n + 1) * sizeof *v->domain);
    v->have = arena_zalloc(&p->scratch, (p->n + 1) * sizeof *v->have);
    v->eligible = arena_zalloc(&p->scratch, (p->n + 1) * sizeof *v->eligible);
    for (size_t i = 0; i < p->n; i++) {
        const char *value = node_label(&p->nodes[i], topology);
        v->domain[i] = NO_DOMAIN;
        if (!value)
            continue;
        uintptr_t at = (uintptr_t)table_get(&seen, slice_cstr(value));
        if (!at) {
            at = ++v->domains_n; /* from 1: 0 is absent */
            table_put(&seen, slice_cstr(value), (void *)at);
        }
        v->domain[i] = (uint32_t)at - 1;
        if (p->nodes[i].ready && p->labels_fit[i])
            v->eligible[v->domain[i]] = true;
    }
    table_fini(&seen);
}

static void view_count(struct placing *p, struct view *v, const struct place_want *other)
{
    for (size_t i = 0; i < p->n; i++) {
        v->total += other->counts[i];
        if (v->domain[i] != NO_DOMAIN)
            v->have[v->domain[i]] += other->counts[i];
    }
}

static struct view *view_add(struct placing *p, enum view_of of, const char *topology)
{
    struct view *v = &p->views[p->views_n++];
    *v = (struct view){.of = of};
    view_domains(p, v, topology);
    return v;
}

static void views_of_terms(struct placing *p, enum view_of of, const struct pod_term *terms, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct view *v = view_add(p, of, terms[i].topology);
        v->weight = terms[i].weight;
        v->self = term_about(&terms[i], p->w->dep, p->w->dep);
        for (size_t k = 0; k < p->wants_n; k++)
            if (term_about(&terms[i], p->w->dep, p->wants[k].dep))
                view_count(p, v, &p->wants[k]);
    }
}

/* A constraint counts replicas of its own namespace. */
static void view_of_spread(struct placing *p, const struct spread_rule *s)
{
    const struct object *dep = p->w->dep;
    struct view *v = view_add(p, s->hard ? VIEW_SPREAD_HARD : VIEW_SPREAD_SOFT, s->topology);
    v->max_skew = s->max_skew;
    v->min_domains = s->min_domains;
    v->self = label_select_match(&s->who, &dep->dep.pod.labels);
    for (size_t k = 0; k < p->wants_n; k++)
        if (strcmp(p->wants[k].dep->ns, dep->ns) == 0 && label_select_match(&s->who, &p->wants[k].dep->dep.pod.labels))
            view_count(p, v, &p->wants[k]);
}

/* Where the manifest says nothing: its own replicas over zones, then nodes. */
static void views_default(struct placing *p)
{
    static const char *const keys[] = {PLACE_ZONE, PLACE_HOSTNAME};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        struct view *v = view_add(p, VIEW_SPREAD_SOFT, keys[i]);
        v->self = true;
        view_count(p, v, p->w);
    }
}

/* Nodes in the same domain as a replica of somebody whose anti-affinity is about this Deployment. */
static void forbidden_mark(struct placing *p, const struct place_want *other, const char *topology)
{
    for (size_t i = 0; i < p->n; i++) {
        const char *there = other->counts[i] ? node_label(&p->nodes[i], topology) : NULL;
        for (size_t k = 0; there && k < p->n; k++) {
            const char *here = node_label(&p->nodes[k], topology);
            p->forbidden[k] = p->forbidden[k] || (here && strcmp(here, there) == 0);
        }
    }
}

/* Turns to a Deployment. */
static void placing_turn(struct placing *p, size_t at)
{
    p->w_at = at;
    p->w = &p->wants[at];
    const struct place_spec *s = spec_of(p->w);
    arena_reset(&p->scratch);
    p->labels_fit = arena_zalloc(&p->scratch, p->n + 1);
    p->forbidden = arena_zalloc(&p->scratch, p->n + 1);
    for (size_t i = 0; i < p->n; i++)
        p->labels_fit[i] = node_labels_fit(s, &p->nodes[i]);
    p->views_n = 0;
    p->views = arena_alloc(&p->scratch, (s->near_n + s->near_preferred_n + s->apart_n + s->apart_preferred_n + s->spread_n + 2) * sizeof *p->views);
    views_of_terms(p, VIEW_NEAR, s->near, s->near_n);
    views_of_terms(p, VIEW_APART, s->apart, s->apart_n);
    views_of_terms(p, VIEW_NEAR_PREFERRED, s->near_preferred, s->near_preferred_n);
    views_of_terms(p, VIEW_APART_PREFERRED, s->apart_preferred, s->apart_preferred_n);
    for (size_t i = 0; i < s->spread_n; i++)
        view_of_spread(p, &s->spread[i]);
    if (!s->spread_n)
        views_default(p);
    for (size_t k = 0; k < p->wants_n; k++)
        for (size_t i = 0; k != at && i < spec_of(&p->wants[k])->apart_n; i++)
            if (term_about(&spec_of(&p->wants[k])->apart[i], p->wants[k].dep, p->w->dep))
                forbidden_mark(p, &p->wants[k], spec_of(&p->wants[k])->apart[i].topology);
}

/* One replica more (or less) on a node. */
static void replica_put(struct placing *p, size_t node, bool more)
{
    const struct pod_template *pod = &p->w->dep->dep.pod;
    uint32_t one = more ? 1 : UINT32_MAX; /* modulo 2^32: -1 */
    p->w->counts[node] += one;
    p->cpu[node] += more ? pod->cpu_milli_request : 0 - (uint64_t)pod->cpu_milli_request;
    p->memory[node] += more ? pod->memory_request : 0 - pod->memory_request;
    p->replicas[node] += more ? 1 : UINT64_MAX;
    for (size_t i = 0; i < p->views_n; i++) {
        struct view *v = &p->views[i];
        if (!v->self)
            continue;
        v->total += more ? 1 : UINT64_MAX;
        if (v->domain[node] != NO_DOMAIN)
            v->have[v->domain[node]] += one;
    }
}

/* ---- filters ------------------------------------------------------------------------------------------------------------------- */

static bool ports_meet(const struct pod_template *a, const struct pod_template *b)
{
    for (size_t i = 0; i < a->ports_n; i++)
        for (size_t k = 0; k < b->ports_n; k++)
            if (a->ports[i].port == b->ports[k].port)
                return true;
    return false;
}

/* Only on the host's network do ports meet. */
static bool ports_free(const struct placing *p, size_t node)
{
    const struct pod_template *pod = &p->w->dep->dep.pod;
    for (size_t k = 0; pod->host_network && k < p->wants_n; k++)
        if (p->wants[k].counts[node] && p->wants[k].dep->dep.pod.host_network && ports_meet(pod, &p->wants[k].dep->dep.pod))
            return false;
    return true;
}

static enum refusal room(const struct placing *p, size_t node)
{
    const struct pod_template *pod = &p->w->dep->dep.pod;
    bool cpu = !pod->cpu_milli_request || p->cpu[node] + pod->cpu_milli_request <= p->nodes[node].cpu_milli;
    bool memory = !pod->memory_request || p->memory[node] + pod->memory_request <= p->nodes[node].memory;
    return cpu ? memory ? FITS : NO_MEMORY : memory ? NO_CPU : NO_CPU_NO_MEMORY;
}

/* The fewest that any domain has; with fewer domains than wanted: 0. */
static uint32_t view_least(const struct view *v)
{
    uint32_t least = UINT32_MAX, n = 0;
    for (uint32_t d = 0; d < v->domains_n; d++)
        if (v->eligible[d]) {
            n++;
            least = MIN(least, v->have[d]);
        }
    return n && n >= v->min_domains ? least : 0;
}

static enum refusal spread_fits(const struct view *v, size_t node)
{
    if (v->domain[node] == NO_DOMAIN)
        return SPREAD_LABEL;
    return (uint64_t)v->have[v->domain[node]] + v->self <= (uint64_t)view_least(v) + v->max_skew ? FITS : SPREAD;
}

/* The first replica of a workload that wants to be near its own kind may go anywhere: there would never be one. */
static bool near_fits(const struct view *v, size_t node)
{
    if (v->domain[node] == NO_DOMAIN)
        return false;
    return v->have[v->domain[node]] || (v->self && !v->total);
}

static enum refusal views_fit(const struct placing *p, size_t node)
{
    enum refusal r = FITS;
    for (size_t i = 0; i < p->views_n && r == FITS; i++)
        if (p->views[i].of == VIEW_SPREAD_HARD)
            r = spread_fits(&p->views[i], node);
    for (size_t i = 0; i < p->views_n && r == FITS; i++)
        if (p->views[i].of == VIEW_NEAR && !near_fits(&p->views[i], node))
            r = NEAR;
    return r;
}

static bool apart_fits(const struct placing *p, size_t node)
{
    for (size_t i = 0; i < p->views_n; i++) {
        const struct view *v = &p->views[i];
        if (v->of == VIEW_APART && v->domain[node] != NO_DOMAIN && v->have[v->domain[node]])
            return false;
    }
    return true;
}

/* What runs once is on one node, all of it. */
static bool together_fits(const struct placing *p, size_t node)
{
    for (size_t i = 0; p->w->dep->dep.run_once && i < p->n; i++)
        if (i != node && p->w->counts[i])
            return false;
    return true;
}

/* What holds also for a replica that is there. */
static enum refusal stay_fits(const struct placing *p, size_t node)
{
    const struct place_spec *s = spec_of(p->w);
    if (!p->nodes[node].ready)
        return NOT_READY;
    if (s->node_name && strcmp(s->node_name, p->nodes[node].name) != 0)
        return NODE_NAME;
    if (!p->labels_fit[node])
        return NODE_LABELS;
    if (!ports_free(p, node))
        return PORTS;
    enum refusal r = room(p, node);
    if (r == FITS && !together_fits(p, node))
        r = TOGETHER;
    return r;
}

static enum refusal new_fits(const struct placing *p, size_t node)
{
    enum refusal r = stay_fits(p, node);
    if (r == FITS)
        r = views_fit(p, node);
    if (r == FITS && !apart_fits(p, node))
        r = APART;
    if (r == FITS && p->forbidden[node])
        r = APART_OF_OTHERS;
    return r;
}

/* ---- the choice ------------------------------------------------------------------------------------------------------------------ */

struct score {
    int64_t preferred;   /* more is better */
    uint64_t crowd;      /* of soft spread: less is better */
    uint64_t left;       /* per mille of CPU and memory: more is better */
    uint64_t replicas;   /* less is better */
};

static uint64_t left_permille(uint64_t used, uint64_t all) { return all > used ? (uint64_t)((double)(all - used) * 1000 / (double)all) : 0; }

static void score_make(const struct placing *p, size_t node, struct score *s)
{
    const struct place_spec *spec = spec_of(p->w);
    *s = (struct score){.replicas = p->replicas[node]};
    s->left = left_permille(p->cpu[node], p->nodes[node].cpu_milli) + left_permille(p->memory[node], p->nodes[node].memory);
    for (size_t i = 0; i < spec->node_preferred_n; i++)
        s->preferred += node_term_holds(&spec->node_preferred[i], &p->nodes[node]) ? spec->node_preferred[i].weight : 0;
    for (size_t i = 0; i < p->views_n; i++) {
        const struct view *v = &p->views[i];
        int64_t have = v->domain[node] == NO_DOMAIN ? 0 : v->have[v->domain[node]];
        if (v->of == VIEW_NEAR_PREFERRED)
            s->preferred += v->weight * have;
        else if (v->of == VIEW_APART_PREFERRED)
            s->preferred -= v->weight * have;
        else if (v->of == VIEW_SPREAD_SOFT)
            s->crowd += (uint64_t)have;
    }
}

static bool score_better(const struct score *a, const struct score *b)
{
    if (a->preferred != b->preferred)
        return a->preferred > b->preferred;
    if (a->crowd != b->crowd)
        return a->crowd < b->crowd;
    if (a->left != b->left)
        return a->left > b->left;
    return a->replicas < b->replicas;
}

/* The best node for one more; n: none. */
static size_t choose(const struct placing *p)
{
    size_t best = p->n;
    struct score best_score = {0}, s;
    for (size_t i = 0; i < p->n; i++) {
        if (new_fits(p, i) != FITS)
            continue;
        score_make(p, i, &s);
        if (best == p->n || score_better(&s, &best_score)) {
            best = i;
            best_score = s;
        }
    }
    return best;
}

/* ---- reasons ----------------------------------------------------------------------------------------------------------------------- */

static char *reasons(const struct placing *p)
{
    uint32_t n[REFUSALS] = {0};
    struct buf b = {0};
    for (size_t i = 0; i < p->n; i++) {
        enum refusal r = new_fits(p, i);
        n[NO_CPU] += r == NO_CPU || r == NO_CPU_NO_MEMORY;
        n[NO_MEMORY] += r == NO_MEMORY || r == NO_CPU_NO_MEMORY;
        n[r] += r != NO_CPU && r != NO_MEMORY;
    }
    buf_printf(&b, "0/%zu nodes are available", p->n);
    const char *sep = ": ";
    for (enum refusal r = FITS + 1; r < REFUSALS; r++)
        if (n[r] && refusal_texts[r]) {
            buf_printf(&b, "%s%u %s", sep, n[r], refusal_texts[r]);
            sep = ", ";
        }
    buf_addc(&b, '.');
    return buf_take(&b, NULL);
}

/* ---- the phases ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t placed(const struct placing *p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->w->counts[i];
    return n;
}

/* Of what runs once, one node keeps it: the one with most, the first of them. */
static void keep_together(struct placing *p)
{
    uint32_t *was = p->was[p->w_at];
    size_t most = 0;
    for (size_t i = 1; i < p->n; i++)
        if (p->nodes[i].ready && (was[i] > was[most] || !p->nodes[most].ready))
            most = i;
    for (size_t i = 0; i < p->n; i++)
        was[i] = i == most ? was[i] : 0;
}

/* The node from which one goes when there are too many: of the fullest zone, the fullest; of equals the last. */
static size_t fullest(const struct placing *p)
{
    size_t best = p->n;
    uint64_t most = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint64_t crowd = p->w->counts[i];
        for (size_t k = 0; k < p->views_n; k++) {
            const struct view *v = &p->views[k];
            if (v->of >= VIEW_SPREAD_HARD && v->domain[i] != NO_DOMAIN)
                crowd += v->have[v->domain[i]];
        }
        if (p->w->counts[i] && (best == p->n || crowd >= most)) {
            best = i;
            most = crowd;
        }
    }
    return best;
}

static void keep(struct placing *p, size_t at)
{
    placing_turn(p, at);
    if (p->w->dep->dep.run_once && p->n)
        keep_together(p);
    for (size_t i = 0; i < p->n; i++)
        for (uint32_t k = 0; k < p->was[at][i] && stay_fits(p, i) == FITS && apart_fits(p, i) && !p->forbidden[i]; k++)
            replica_put(p, i, true);
    for (uint64_t n = placed(p); n > p->w->dep->dep.replicas; n--)
        replica_put(p, fullest(p), false);
}

/* What is missing of a Deployment, as far as there are nodes: how many it placed. */
static uint64_t fill(struct placing *p, size_t at)
{
    uint64_t did = 0;
    placing_turn(p, at);
    mem_free(p->w->why);
    p->w->why = NULL;
    p->w->unplaced = (uint32_t)(p->w->dep->dep.replicas - placed(p));
    while (p->w->unplaced) {
        size_t node = choose(p);
        if (node == p->n) {
            p->w->why = reasons(p);
            break;
        }
        replica_put(p, node, true);
        p->w->unplaced--;
        did++;
    }
    return did;
}

/* Again while it helps: what one Deployment waits for may have come with a later one (affinity, a spread over several). */
static void fill_all(struct placing *p)
{
    uint64_t did = 1;
    while (did) {
        did = 0;
        for (size_t i = 0; i < p->wants_n; i++)
            did += fill(p, i);
    }
}

static bool skew_broken(const struct view *v)
{
    uint32_t most = 0;
    for (uint32_t d = 0; d < v->domains_n; d++)
        most = MAX(most, v->have[d]);
    return v->of == VIEW_SPREAD_HARD && v->self && most > (uint64_t)view_least(v) + v->max_skew;
}

static void mend(struct placing *p, size_t at)
{
    bool broken = false;
    if (!p->wants[at].settled || p->wants[at].unplaced || !spec_of(&p->wants[at])->spread_n)
        return;
    placing_turn(p, at);
    for (size_t i = 0; i < p->views_n; i++)
        broken = broken || skew_broken(&p->views[i]);
    size_t from = broken ? fullest(p) : p->n;
    if (from == p->n)
        return;
    replica_put(p, from, false);
    size_t to = choose(p);
    replica_put(p, to == p->n ? from : to, true);
}

void place(const struct place_node *nodes, size_t nodes_n, struct place_want *wants, size_t wants_n)
{
    struct placing p = {.nodes = nodes, .n = nodes_n, .wants = wants, .wants_n = wants_n};
    arena_init(&p.mem, MEM_PLAN, 16384);
    arena_init(&p.scratch, MEM_PLAN, 16384);
    p.cpu = arena_zalloc(&p.mem, (nodes_n + 1) * sizeof *p.cpu);
    p.memory = arena_zalloc(&p.mem, (nodes_n + 1) * sizeof *p.memory);
    p.replicas = arena_zalloc(&p.mem, (nodes_n + 1) * sizeof *p.replicas);
    p.was = arena_zalloc(&p.mem, (wants_n + 1) * sizeof *p.was);
    for (size_t i = 0; i < wants_n; i++) {
        wants[i].unplaced = 0;
        wants[i].why = NULL;
        p.was[i] = arena_alloc(&p.mem, (nodes_n + 1) * sizeof *p.was[i]);
        memcpy(p.was[i], wants[i].counts, nodes_n * sizeof *p.was[i]);
        memset(wants[i].counts, 0, nodes_n * sizeof *p.was[i]);
    }
    for (size_t i = 0; i < wants_n; i++)
        keep(&p, i);
    fill_all(&p);
    for (size_t i = 0; i < wants_n; i++)
        mend(&p, i);
    arena_fini(&p.scratch);
    arena_fini(&p.mem);
}
