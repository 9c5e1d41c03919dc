/* labels.c - what selectors and expressions say of labels (Kubernetes' API reference, LabelSelector and NodeSelectorRequirement). load_place.c reads them. */
#include "plan_int.h"

static bool one_of(const struct label_expr *e, const char *value)
{
    for (size_t i = 0; i < e->values_n; i++)
        if (strcmp(e->values[i], value) == 0)
            return true;
    return false;
}

/* A whole number, perhaps with a sign: false when it is none. */
static bool number_of(const char *text, int64_t *out)
{
    uint64_t v;
    bool minus = text[0] == '-';
    if (slice_u64(slice_cstr(text + minus), INT64_MAX, &v) != OK)
        return false;
    *out = minus ? -(int64_t)v : (int64_t)v;
    return true;
}

bool label_expr_holds(const struct label_expr *e, const char *have)
{
    int64_t a, b;
    switch (e->op) {
    case LABEL_IN: return have && one_of(e, have);
    case LABEL_NOT_IN: return !have || !one_of(e, have);
    case LABEL_EXISTS: return have != NULL;
    case LABEL_DOES_NOT_EXIST: return !have;
    case LABEL_GT:
    case LABEL_LT: return have && e->values_n == 1 && number_of(have, &a) && number_of(e->values[0], &b) && (e->op == LABEL_GT ? a > b : a < b);
    }
    return false;
}

bool label_exprs_hold(const struct label_expr *exprs, size_t n, const struct kvs *labels)
{
    for (size_t i = 0; i < n; i++) {
        const struct kv *kv = kvs_get(labels, slice_cstr(exprs[i].key));
        if (!label_expr_holds(&exprs[i], kv ? kv->value : NULL))
            return false;
    }
    return true;
}

bool label_select_match(const struct label_select *s, const struct kvs *labels)
{
    return s->given && kvs_match(&s->labels, labels) && label_exprs_hold(s->exprs, s->exprs_n, labels);
}
