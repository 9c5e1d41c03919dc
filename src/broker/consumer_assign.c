/* consumer_assign.c - the assignors of KIP-848 groups: who is to have which partition.
 *
 *     uniform   as even as can be; a member keeps what it has unless that makes the group uneven. Chosen when nobody wants another
 *     range     each topic's partitions in runs, to its subscribers in the order of their ids: the same numbers of several topics meet
 *
 * Subscriptions are names, and a pattern (PCRE2, the whole name must match; internal topics never do, nor those that the member may not know of). A target is made from the catalog of the moment; it is not
 * written which topics a pattern means.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "consumer_group_int.h"
#include "security_int.h"

#include <pcre2.h>
#include <stdlib.h>

#define REGEX_MATCH_LIMIT 100000 /* steps for one name: a pattern cannot hold the loop */

static pcre2_code *regex_compile(struct slice pattern, int *error)
{
    size_t at;
    pcre2_compile_context *how = pcre2_compile_context_create(NULL);
    MUST(how);
    pcre2_set_compile_extra_options(how, PCRE2_EXTRA_MATCH_LINE);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, PCRE2_NEVER_BACKSLASH_C, error, &at, how);
    pcre2_compile_context_free(how);
    return code;
}

enum kafka_error consumers_regex_check(struct slice pattern, struct arena *a, const char **why)
{
    int error = 0;
    if (pattern.n > CONSUMERS_REGEX_MAX) {
        *why = "The subscription's pattern is too long.";
        return KAFKA_INVALID_REGULAR_EXPRESSION;
    }
    pcre2_code *code = regex_compile(pattern, &error);
    if (!code) {
        char text[120];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        *why = arena_printf(a, "SubscribedTopicRegex `" SLICE_FMT "` is not a valid regular expression: %s.", SLICE_ARG(pattern), text);
        return KAFKA_INVALID_REGULAR_EXPRESSION;
    }
    pcre2_code_free(code);
    return KAFKA_NONE;
}

bool consumers_assignor_known(struct slice name) { return slice_is(name, "uniform") || slice_is(name, "range"); }

struct slice consumers_assignor(const struct consumers *cg)
{
    uint32_t range = 0, uniform = 0;
    LIST_FOREACH (it, &cg->in_order) {
        const struct cmember *m = CONTAINER_OF(it, struct cmember, link);
        range += slice_is(m->assignor, "range");
        uniform += slice_is(m->assignor, "uniform");
    }
    return range > uniform ? SLICE("range") : SLICE("uniform");
}

/* ---- what members subscribe to --------------------------------------------------------------------------------------------- */

/* One topic and its subscribers. */
struct deal_topic {
    const struct topic *t;
    struct deal_member **who;    /* by member id */
    uint32_t n, cap;
};
struct deal_member {
    struct cmember *m;
    struct tps target;
    uint32_t at;                 /* among the members */
};
struct deal {
    struct deal_member *members; /* by id */
    uint32_t members_n;
    struct deal_topic *topics;   /* by id */
    uint32_t n, cap;
    uint32_t parts;              /* of all topics */
};

static int member_order(const void *pa, const void *pb)
{
    struct slice a = ((const struct deal_member *)pa)->m->id, b = ((const struct deal_member *)pb)->m->id;
    int c = memcmp(a.p, b.p, MIN(a.n, b.n));
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int topic_order(const void *pa, const void *pb)
{
    return memcmp(((const struct deal_topic *)pa)->t->id.b, ((const struct deal_topic *)pb)->t->id.b, 16);
}

static void topic_join(struct deal *d, const struct topic *t, struct deal_member *dm, struct table *seen)
{
    uintptr_t at = (uintptr_t)table_get(seen, slice_of((const char *)t->id.b, 16));
    if (!at) {
        if (d->parts + (uint32_t)t->partitions > CONSUMERS_PARTS_MAX)
            return;
        ARRAY_GROW(MEM_BROKER, d->topics, d->n, d->cap);
        d->topics[d->n] = (struct deal_topic){.t = t};
        d->parts += (uint32_t)t->partitions;
        at = ++d->n;
        (void)table_put(seen, slice_of((const char *)t->id.b, 16), (void *)at);
    }
    struct deal_topic *dt = &d->topics[at - 1];
    if (dt->n && dt->who[dt->n - 1] == dm)
        return; /* by name and by pattern, or named twice */
    ARRAY_GROW(MEM_BROKER, dt->who, dt->n, dt->cap);
    dt->who[dt->n++] = dm;
}

/* What names it may subscribe to is looked at when it says them; what a pattern may match, here (KIP-848). A member that was read from the log and has not been heard of yet keeps what
 * it had. */
static bool member_may(const struct cmember *m, const struct topic *t)
{
    const struct shard *here = m->g->gs->here;
    const struct broker_conf *conf = &here->b->conf;
    const struct broker_caller who = {.principal = m->principal, .host = m->from};
    return !conf->authorize || m->super || !m->principal.p ||
           acl_decide(here->security->db, &who, conf->allow_when_no_acl, ACL_DESCRIBE, ACL_TOPIC, slice_cstr(t->name));
}

static void member_join(struct deal *d, struct deal_member *dm, const struct catalog *cat, struct table *seen)
{
    const struct cmember *m = dm->m;
    for (int32_t i = 0; i < m->topics_n; i++) {
        const struct topic *t = catalog_topic(cat, m->topics[i]);
        if (t)
            topic_join(d, t, dm, seen);
    }
    int error;
    pcre2_code *code = m->regex.n ? regex_compile(m->regex, &error) : NULL;
    if (!code)
        return;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    MUST(match && limits);
    pcre2_set_match_limit(limits, REGEX_MATCH_LIMIT);
    for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s));) {
        const struct topic *t = s->value;
        if (!t->internal && pcre2_match(code, (PCRE2_SPTR)t->name, strlen(t->name), 0, 0, match, limits) >= 0 && member_may(m, t))
            topic_join(d, t, dm, seen);
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    pcre2_code_free(code);
}

static void deal_init(struct deal *d, const struct consumers *cg, const struct catalog *cat)
{
    struct table seen = {0};
    *d = (struct deal){.members = mem_new(MEM_BROKER, MAX(cg->members.n, 1) * sizeof *d->members)};
    LIST_FOREACH (it, &cg->in_order)
        d->members[d->members_n++].m = CONTAINER_OF(it, struct cmember, link);
    if (d->members_n)
        qsort(d->members, d->members_n, sizeof *d->members, member_order);
    for (uint32_t i = 0; i < d->members_n; i++) {
        d->members[i].at = i;
        member_join(d, &d->members[i], cat, &seen);
    }
    if (d->n)
        qsort(d->topics, d->n, sizeof *d->topics, topic_order);
    table_fini(&seen);
}

static void deal_fini(struct deal *d)
{
    for (uint32_t i = 0; i < d->n; i++)
        mem_free(d->topics[i].who);
    for (uint32_t i = 0; i < d->members_n; i++)
        tps_clear(&d->members[i].target);
    mem_free(d->topics);
    mem_free(d->members);
}

uint64_t consumers_subscribed(const struct consumers *cg, const struct catalog *cat)
{
    struct deal d;
    uint64_t hash = 0;
    deal_init(&d, cg, cat);
    for (uint32_t i = 0; i < d.n; i++) {
        const struct deal_topic *dt = &d.topics[i];
        uint64_t one[3] = {hash_bytes(dt->t->id.b, 16), (uint64_t)dt->t->partitions, dt->n};
        hash = hash * 31 + hash_bytes(one, sizeof one);
        for (uint32_t k = 0; k < dt->n; k++)
            hash = hash * 31 + hash_slice(dt->who[k]->m->id);
    }
    deal_fini(&d);
    return hash;
}

/* ---- range -------------------------------------------------------------------------------------------------------------------- */

static void deal_range(struct deal *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        struct deal_topic *dt = &d->topics[i];
        uint32_t parts = (uint32_t)dt->t->partitions, each = parts / dt->n, more = parts % dt->n, next = 0;
        for (uint32_t k = 0; k < dt->n; k++)
            for (uint32_t left = each + (k < more); left; left--)
                tps_add(&dt->who[k]->target, (struct tp){dt->t->id, (int32_t)next++});
    }
}

/* ---- uniform --------------------------------------------------------------------------------------------------------------------- */

/* owner[i] is that of the i-th partition of the deal; load[k] how many member k has. */
static struct deal_member *least_loaded(const struct deal_topic *dt, const uint32_t *load)
{
    struct deal_member *best = dt->who[0];
    for (uint32_t k = 1; k < dt->n; k++)
        if (load[dt->who[k]->at] < load[best->at])
            best = dt->who[k];
    return best;
}

static struct deal_member *subscriber(const struct deal_topic *dt, const struct cmember *m)
{
    for (uint32_t k = 0; k < dt->n; k++)
        if (dt->who[k]->m == m)
            return dt->who[k];
    return NULL;
}

/* Who had each partition in the target before. */
static void keepers(const struct deal *d, struct table *was)
{
    for (uint32_t k = 0; k < d->members_n; k++) {
        const struct tps *target = &d->members[k].m->target;
        for (uint32_t i = 0; i < target->n; i++)
            (void)table_put(was, slice_of((const char *)&target->p[i], sizeof target->p[i]), &d->members[k]);
    }
}

/* Who was to have it, if he may still. */
static struct deal_member *keeper(const struct table *was, const struct deal_topic *dt, struct tp x)
{
    const struct deal_member *dm = table_get(was, slice_of((const char *)&x, sizeof x));
    return dm ? subscriber(dt, dm->m) : NULL;
}

/* One pass of moves from who has two or more too many; false when there was none. */
static bool level(const struct deal *d, struct deal_member **owner, uint32_t *load)
{
    bool moved = false;
    for (uint32_t i = 0, at = 0; i < d->n; i++)
        for (int32_t p = 0; p < d->topics[i].t->partitions; p++, at++) {
            struct deal_member *to = least_loaded(&d->topics[i], load);
            if (load[owner[at]->at] < load[to->at] + 2)
                continue;
            load[owner[at]->at]--;
            load[to->at]++;
            owner[at] = to;
            moved = true;
        }
    return moved;
}

static void deal_uniform(struct deal *d)
{
    struct deal_member **owner = mem_new(MEM_BROKER, MAX(d->parts, 1) * sizeof *owner);
    uint32_t *load = mem_new(MEM_BROKER, MAX(d->members_n, 1) * sizeof *load);
    struct table was = {0};
    keepers(d, &was);
    for (uint32_t i = 0, at = 0; i < d->n; i++)
        for (int32_t p = 0; p < d->topics[i].t->partitions; p++, at++)
            if ((owner[at] = keeper(&was, &d->topics[i], (struct tp){d->topics[i].t->id, p})))
                load[owner[at]->at]++;
    table_fini(&was);
    for (uint32_t i = 0, at = 0; i < d->n; i++)
        for (int32_t p = 0; p < d->topics[i].t->partitions; p++, at++)
            if (!owner[at]) {
                owner[at] = least_loaded(&d->topics[i], load);
                load[owner[at]->at]++;
            }
    for (uint32_t pass = 0; pass < 8 && level(d, owner, load); pass++)
        ;
    for (uint32_t i = 0, at = 0; i < d->n; i++)
        for (int32_t p = 0; p < d->topics[i].t->partitions; p++, at++)
            tps_add(&owner[at]->target, (struct tp){d->topics[i].t->id, p});
    mem_free(owner);
    mem_free(load);
}

void consumers_assign(struct consumers *cg, const struct catalog *cat)
{
    struct deal d;
    deal_init(&d, cg, cat);
    if (slice_is(consumers_assignor(cg), "range"))
        deal_range(&d);
    else
        deal_uniform(&d);
    for (uint32_t i = 0; i < d.members_n; i++) {
        struct cmember *m = d.members[i].m;
        tps_sort(&d.members[i].target);
        if (tps_equal(&m->target, &d.members[i].target))
            continue;
        tps_take(&m->target, d.members[i].target);
        d.members[i].target = (struct tps){0};
        m->target_new = true;
    }
    deal_fini(&d);
}

bool cmember_subscribes(const struct cmember *m, struct slice topic)
{
    int error;
    for (int32_t i = 0; i < m->topics_n; i++)
        if (slice_eq(m->topics[i], topic))
            return true;
    pcre2_code *code = m->regex.n ? regex_compile(m->regex, &error) : NULL;
    if (!code)
        return false;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    MUST(match && limits);
    pcre2_set_match_limit(limits, REGEX_MATCH_LIMIT);
    bool found = pcre2_match(code, (PCRE2_SPTR)topic.p, topic.n, 0, 0, match, limits) >= 0;
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    return found;
}

bool consumers_subscribes(const struct consumers *cg, struct slice topic)
{
    LIST_FOREACH (it, &cg->in_order)
        if (cmember_subscribes(CONTAINER_OF(it, struct cmember, link), topic))
            return true;
    return false;
}
