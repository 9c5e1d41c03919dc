/* load_place.c - where replicas may run: nodeSelector, nodeName, affinity, topologySpreadConstraints of a template's spec.
 *
 * The meaning is Kubernetes' (its API reference, PodSpec and below); place.c acts on it. What a single expression may be is checked here, since it
 * spans operator and values.
 */
#include "plan_int.h"

#define HOSTNAME_FIELD "metadata.name"

const char *const label_op_names[] = {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"};

static enum label_op load_op(const struct ynode *n)
{
    for (size_t i = 0; i < COUNT_OF(label_op_names); i++)
        if (load_is(n, "operator", label_op_names[i]))
            return (enum label_op)i;
    return LABEL_EXISTS; /* reported by the walk */
}

static bool is_number(const char *text)
{
    uint64_t v;
    return slice_u64(slice_cstr(text[0] == '-' ? text + 1 : text), INT64_MAX, &v) == OK;
}

/* How many values an operator takes (Kubernetes' validation of requirements). */
static void load_values_check(struct reader *r, const struct ynode *n, const struct label_expr *e)
{
    bool none = e->op == LABEL_EXISTS || e->op == LABEL_DOES_NOT_EXIST, number = e->op == LABEL_GT || e->op == LABEL_LT;
    if (n->type != Y_MAP || !y_get(n, "operator"))
        return;
    if (none && e->values_n)
        reader_error(r, y_get(n, "values"), ".values", "remove them", "%s takes no values", label_op_names[e->op]);
    else if (number && (e->values_n != 1 || !is_number(e->values[0])))
        reader_error(r, n, ".values", "give one whole number, in quotes", "%s takes one number", label_op_names[e->op]);
    else if (!none && !number && !e->values_n)
        reader_error(r, n, ".values", "give at least one", "%s takes values", label_op_names[e->op]);
}

static struct label_expr *load_exprs(struct reader *r, struct object *o, const struct ynode *map, const char *key, size_t *n)
{
    const struct ynode *list = y_get(map, key);
    *n = load_list_n(map, key);
    struct label_expr *exprs = load_array(o, *n, sizeof *exprs);
    for (size_t i = 0; i < *n; i++) {
        const struct ynode *item = list->items[i];
        size_t mark = reader_push(r, ".%s[%zu]", key, i);
        exprs[i] = (struct label_expr){.key = load_str(o, item, "key"), .op = load_op(item)};
        exprs[i].values = load_strings(o, item, "values", &exprs[i].values_n);
        load_values_check(r, item, &exprs[i]);
        if (!exprs[i].key)
            exprs[i].key = arena_strdup(&o->mem, ""); /* reported by the walk */
        reader_pop(r, mark);
    }
    return exprs;
}

struct label_select load_select(struct reader *r, struct object *o, const struct ynode *map, const char *key)
{
    const struct ynode *n = y_get(map, key);
    struct label_select s = {.given = n && n->type == Y_MAP};
    if (!s.given)
        return s;
    size_t mark = reader_push(r, ".%s", key);
    load_kvs(o, y_get(n, "matchLabels"), &s.labels);
    s.exprs = load_exprs(r, o, n, "matchExpressions", &s.exprs_n);
    reader_pop(r, mark);
    return s;
}

/* ---- nodes -------------------------------------------------------------------------------------------------------------- */

static void load_node_term(struct reader *r, struct object *o, const struct ynode *n, struct node_term *t)
{
    t->exprs = load_exprs(r, o, n, "matchExpressions", &t->exprs_n);
    t->names = load_exprs(r, o, n, "matchFields", &t->names_n);
    for (size_t i = 0; i < t->names_n; i++)
        if (strcmp(t->names[i].key, HOSTNAME_FIELD) != 0 || t->names[i].op > LABEL_NOT_IN)
            reader_error(r, y_get(n, "matchFields")->items[i], ".matchFields", "use metadata.name with In or NotIn", "not a field of nodes that is known here");
}

static void load_node_affinity(struct reader *r, struct object *o, const struct ynode *n, struct place_spec *p)
{
    const struct ynode *required = y_get(n, "requiredDuringSchedulingIgnoredDuringExecution"), *preferred = y_get(n, "preferredDuringSchedulingIgnoredDuringExecution");
    size_t mark = reader_push(r, ".nodeAffinity");
    p->node_required = required && required->type == Y_MAP;
    p->node_terms_n = load_list_n(required, "nodeSelectorTerms");
    p->node_terms = load_array(o, p->node_terms_n, sizeof *p->node_terms);
    for (size_t i = 0; i < p->node_terms_n; i++)
        load_node_term(r, o, y_get(required, "nodeSelectorTerms")->items[i], &p->node_terms[i]);
    p->node_preferred_n = load_list_n(n, "preferredDuringSchedulingIgnoredDuringExecution");
    p->node_preferred = load_array(o, p->node_preferred_n, sizeof *p->node_preferred);
    for (size_t i = 0; i < p->node_preferred_n; i++) {
        load_node_term(r, o, y_get(preferred->items[i], "preference"), &p->node_preferred[i]);
        p->node_preferred[i].weight = (uint32_t)load_int(preferred->items[i], "weight", 1, 100);
    }
    reader_pop(r, mark);
}

/* ---- replicas ------------------------------------------------------------------------------------------------------------- */

static void load_pod_term(struct reader *r, struct object *o, const struct ynode *n, struct pod_term *t)
{
    t->who = load_select(r, o, n, "labelSelector");
    t->namespaces = load_strings(o, n, "namespaces", &t->namespaces_n);
    t->topology = load_str(o, n, "topologyKey");
    if (!t->topology)
        t->topology = arena_strdup(&o->mem, "");
}

/* One of podAffinity and podAntiAffinity. */
static void load_pod_affinity(struct reader *r, struct object *o, const struct ynode *affinity, const char *key, struct pod_term **required, size_t *required_n, struct pod_term **preferred,
                              size_t *preferred_n)
{
    static const char *const names[] = {"requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"};
    const struct ynode *n = y_get(affinity, key);
    size_t mark = reader_push(r, ".%s", key);
    *required_n = load_list_n(n, names[0]);
    *required = load_array(o, *required_n, sizeof **required);
    for (size_t i = 0; i < *required_n; i++)
        load_pod_term(r, o, y_get(n, names[0])->items[i], &(*required)[i]);
    *preferred_n = load_list_n(n, names[1]);
    *preferred = load_array(o, *preferred_n, sizeof **preferred);
    for (size_t i = 0; i < *preferred_n; i++) {
        const struct ynode *item = y_get(n, names[1])->items[i];
        load_pod_term(r, o, y_get(item, "podAffinityTerm"), &(*preferred)[i]);
        (*preferred)[i].weight = (uint32_t)load_int(item, "weight", 1, 100);
    }
    reader_pop(r, mark);
}

static void load_spread(struct reader *r, struct object *o, const struct ynode *spec, struct place_spec *p)
{
    const struct ynode *list = y_get(spec, "topologySpreadConstraints");
    p->spread_n = load_list_n(spec, "topologySpreadConstraints");
    p->spread = load_array(o, p->spread_n, sizeof *p->spread);
    for (size_t i = 0; i < p->spread_n; i++) {
        const struct ynode *n = list->items[i];
        struct spread_rule *s = &p->spread[i];
        size_t mark = reader_push(r, ".topologySpreadConstraints[%zu]", i);
        *s = (struct spread_rule){.who = load_select(r, o, n, "labelSelector"), .topology = load_str(o, n, "topologyKey"), .hard = load_is(n, "whenUnsatisfiable", "DoNotSchedule")};
        s->max_skew = (uint32_t)load_int(n, "maxSkew", 1, 1000);
        s->min_domains = (uint32_t)load_int(n, "minDomains", 0, 1000);
        if (!s->topology)
            s->topology = arena_strdup(&o->mem, "");
        if (s->min_domains && !s->hard)
            reader_error(r, y_get(n, "minDomains"), ".minDomains", "remove it, or use DoNotSchedule", "has a meaning with whenUnsatisfiable: DoNotSchedule only");
        reader_pop(r, mark);
    }
}

void load_place(struct reader *r, struct object *o, const struct ynode *spec)
{
    struct place_spec *p = &o->dep.pod.place;
    const struct ynode *affinity = y_get(spec, "affinity");
    size_t mark = reader_push(r, "spec.template.spec");
    load_kvs(o, y_get(spec, "nodeSelector"), &p->node_selector);
    p->node_name = load_str(o, spec, "nodeName");
    load_spread(r, o, spec, p);
    size_t inner = reader_push(r, ".affinity");
    load_node_affinity(r, o, y_get(affinity, "nodeAffinity"), p);
    load_pod_affinity(r, o, affinity, "podAffinity", &p->near, &p->near_n, &p->near_preferred, &p->near_preferred_n);
    load_pod_affinity(r, o, affinity, "podAntiAffinity", &p->apart, &p->apart_n, &p->apart_preferred, &p->apart_preferred_n);
    reader_pop(r, inner);
    reader_pop(r, mark);
}
