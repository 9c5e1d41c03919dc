/* cluster_metrics.c - what is counted of clusters, by name, and how /metrics shows it.
 *
 *   worker     upstream -> cluster -> count --.
 *                                             v
 *              record "shop/cart:80/v2" [cluster_counters]     one per name that the worker ever had, found when a plan brings a cluster
 *   control    records[0..records_n) of all workers -> merged by name -> families
 *
 * Clusters come and go with plans while another thread reads, so they count in records, which stay. Counters of a name go on when
 * it comes back; gauges are shown only while a plan names it. Gauges are the largest of the workers': each sees the whole
 * cluster. What is told by kind (ejections, overflows) is shown from its first event on, so that a node with a thousand quiet clusters does not
 * answer with ten thousand zeros.
 */
#include "proxy_int.h"
#include "prom.h"

#define RECORD_OTHER "other"

/* ---- a worker's records ------------------------------------------------------------------------------------------------- */

static struct cluster_record *record_find(struct proxy *p, struct slice name)
{
    struct cluster_record *r = table_get(&p->record_index, name);
    if (r)
        return r;
    if (p->records_n >= RECORDS_MAX - 1) {
        counter_inc(&p->c.records_over);
        name = SLICE(RECORD_OTHER);
        r = table_get(&p->record_index, name);
        if (r)
            return r;
    }
    r = mem_new(MEM_METRIC, sizeof *r);
    r->name = mem_strndup(MEM_METRIC, name.p, name.n);
    table_put(&p->record_index, name, r);
    p->records[p->records_n] = r;
    __atomic_store_n(&p->records_n, p->records_n + 1, __ATOMIC_RELEASE);
    return r;
}

struct cluster_record *record_take(struct proxy *p, const struct plan_cluster *pc)
{
    struct buf name = {0};
    buf_printf(&name, "%s/%s:%u%s%s", pc->ns, pc->service, pc->port, pc->subset ? "/" : "", pc->subset ? pc->subset : "");
    struct cluster_record *r = record_find(p, buf_slice(&name));
    buf_free(&name);
    counter_inc(&r->uses);
    return r;
}

void record_drop(struct cluster_record *r) { counter_set(&r->uses, r->uses - 1); }

void records_free(struct proxy *p)
{
    for (uint64_t i = 0; i < p->records_n; i++) {
        mem_free(p->records[i]->name);
        mem_free(p->records[i]);
    }
    mem_free(p->records);
    table_fini(&p->record_index);
}

/* ---- merged ------------------------------------------------------------------------------------------------------------------ */

/* Counters without a label of their own. */
static const struct {
    const char *name, *help;
    size_t offset;
} counters[] = {
    {"weir_cluster_ejections_refused_total", "Endpoints that were not ejected because as many as may be were already.", offsetof(struct cluster_counters, ejections_over)},
    {"weir_cluster_unejections_total", "Ejections that ended.", offsetof(struct cluster_counters, unejections)},
    {"weir_cluster_panic_picks_total", "Choices among all endpoints because too few were up.", offsetof(struct cluster_counters, picks_panic)},
    {"weir_cluster_no_endpoint_total", "Attempts for which there was no endpoint.", offsetof(struct cluster_counters, picks_none)},
    {"weir_cluster_last_resort_picks_total", "Choices of an endpoint that had failed just before, since there was no other.", offsetof(struct cluster_counters, picks_last)},
    {"weir_cluster_moved_picks_total", "Hashed requests that did not go to the first endpoint of their hash.", offsetof(struct cluster_counters, picks_moved)},
    {"weir_cluster_tables_built_total", "Rings and Maglev tables built.", offsetof(struct cluster_counters, tables)},
    {"weir_cluster_limit_changes_total", "Changes of the adaptive limit.", offsetof(struct cluster_counters, limit_changes)},
    {"weir_cluster_retries_total", "Attempts beyond the first.", offsetof(struct cluster_counters, retries)},
    {"weir_cluster_hedges_total", "Second attempts begun beside a slow first one.", offsetof(struct cluster_counters, hedges)},
    {"weir_cluster_mirrored_total", "Copies of requests sent there as to a mirror.", offsetof(struct cluster_counters, mirrored)},
    {"weir_cluster_connect_failures_total", "Attempts that ended because no connection could be made.", offsetof(struct cluster_counters, connect_failures)},
    {"weir_cluster_timeouts_total", "Attempts that ended because no answer began in time.", offsetof(struct cluster_counters, timeouts)},
};

struct merged {
    struct cluster_counters sum;
    bool live;                /* a current plan names it */
    struct merged *next;
    char name[];
};

static void sum_add(struct merged *m, const struct cluster_record *r)
{
    const struct cluster_counters *c = &r->count;
    for (size_t i = 0; i < COUNT_OF(counters); i++) {
        uint64_t *to = (uint64_t *)(void *)((char *)&m->sum + counters[i].offset);
        *to += counter_read((const counter *)(const void *)((const char *)c + counters[i].offset));
    }
    for (int i = 0; i < EJECTION_COUNT; i++)
        m->sum.ejections[i] += counter_read(&c->ejections[i]);
    for (int i = 0; i < OVERFLOW_COUNT; i++)
        m->sum.overflow[i] += counter_read(&c->overflow[i]);
    if (!counter_read(&r->uses))
        return;
    m->live = true;
    m->sum.hosts = MAX(m->sum.hosts, counter_read(&c->hosts));
    m->sum.hosts_up = MAX(m->sum.hosts_up, counter_read(&c->hosts_up));
    m->sum.hosts_ejected = MAX(m->sum.hosts_ejected, counter_read(&c->hosts_ejected));
    m->sum.limit = MAX(m->sum.limit, counter_read(&c->limit));
}

/* All clusters by name, in the order in which they were first seen. */
static struct merged *merge(struct proxy *const *workers, uint32_t n)
{
    struct table index = {0};
    struct merged *first = NULL, **last = &first;
    for (uint32_t w = 0; w < n; w++) {
        uint64_t count = __atomic_load_n(&workers[w]->records_n, __ATOMIC_ACQUIRE);
        for (uint64_t i = 0; i < count; i++) {
            const struct cluster_record *r = workers[w]->records[i];
            struct merged *m = table_get(&index, slice_cstr(r->name));
            if (!m) {
                size_t bytes = strlen(r->name) + 1;
                m = mem_new(MEM_METRIC, sizeof *m + bytes);
                memcpy(m->name, r->name, bytes);
                table_put(&index, slice_cstr(r->name), m);
                *last = m;
                last = &m->next;
            }
            sum_add(m, r);
        }
    }
    table_fini(&index);
    return first;
}

/* ---- shown -------------------------------------------------------------------------------------------------------------------- */

static void sample(struct buf *out, const char *name, const struct merged *m, const char *label, const char *value, uint64_t v)
{
    struct prom_label l[] = {{"cluster", slice_cstr(m->name)}, {label ? label : "", slice_cstr(value ? value : "")}};
    prom_u64(out, name, "", l, label ? 2 : 1, v);
}

static void gauges_show(const struct merged *first, struct buf *out)
{
    prom_family(out, "weir_cluster_endpoints", PROM_GAUGE, "Endpoints by state: up, ejected as an outlier, or down by their health checks.");
    for (const struct merged *m = first; m; m = m->next) {
        if (!m->live || strcmp(m->name, RECORD_OTHER) == 0)
            continue;
        uint64_t up = MIN(m->sum.hosts_up, m->sum.hosts), ejected = MIN(m->sum.hosts_ejected, m->sum.hosts - up);
        sample(out, "weir_cluster_endpoints", m, "state", "up", up);
        sample(out, "weir_cluster_endpoints", m, "state", "ejected", ejected);
        sample(out, "weir_cluster_endpoints", m, "state", "down", m->sum.hosts - up - ejected);
    }
    prom_family(out, "weir_cluster_adaptive_limit", PROM_GAUGE, "Requests that may be in flight at once, as the adaptive limit has found.");
    for (const struct merged *m = first; m; m = m->next)
        if (m->live && m->sum.limit)
            sample(out, "weir_cluster_adaptive_limit", m, NULL, NULL, m->sum.limit);
}

static void kinds_show(const struct merged *first, struct buf *out)
{
    prom_family(out, "weir_cluster_ejections_total", PROM_COUNTER, "Endpoints ejected as outliers, by reason.");
    for (const struct merged *m = first; m; m = m->next)
        for (int i = 0; i < EJECTION_COUNT; i++)
            if (m->sum.ejections[i])
                sample(out, "weir_cluster_ejections_total", m, "reason", ejection_label((enum ejection)i), m->sum.ejections[i]);
    prom_family(out, "weir_cluster_overflows_total", PROM_COUNTER, "Requests and retries that a limit of the cluster's policy did not let through, by limit.");
    for (const struct merged *m = first; m; m = m->next)
        for (int i = OVERFLOW_NONE + 1; i < OVERFLOW_COUNT; i++)
            if (m->sum.overflow[i])
                sample(out, "weir_cluster_overflows_total", m, "limit", overflow_label((enum overflow)i), m->sum.overflow[i]);
}

void cluster_metrics(struct proxy *const *workers, uint32_t n, struct buf *out)
{
    struct merged *first = merge(workers, n);
    gauges_show(first, out);
    kinds_show(first, out);
    for (size_t i = 0; i < COUNT_OF(counters); i++) {
        prom_family(out, counters[i].name, PROM_COUNTER, counters[i].help);
        for (const struct merged *m = first; m; m = m->next) {
            uint64_t v = *(const uint64_t *)(const void *)((const char *)&m->sum + counters[i].offset);
            if (v)
                sample(out, counters[i].name, m, NULL, NULL, v);
        }
    }
    for (struct merged *m = first, *next; m; m = next) {
        next = m->next;
        mem_free(m);
    }
}
