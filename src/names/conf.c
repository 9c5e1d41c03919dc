/* conf.c - the host's resolvers; and what the servers have counted. */
#include "names_int.h"
#include "prom.h"

/* "nameserver ADDRESS" lines, the first three (resolv.conf(5)). Others, and addresses with a zone (fe80::1%eth0), are passed over. */
void names_conf_read(struct names_conf *c, struct slice text, const struct addr *own)
{
    static const char word[] = "nameserver";
    c->upstreams_n = 0;
    while (text.n && c->upstreams_n < NAMES_UPSTREAMS_MAX) {
        struct slice line = slice_trim(slice_cut(text, '\n', &text));
        struct addr a;
        if (!slice_starts(line, SLICE("nameserver")))
            continue;
        line = slice_of(line.p + sizeof word - 1, line.n - (sizeof word - 1));
        struct slice value = slice_trim(line);
        if (value.n < line.n && addr_parse(value, DNS_PORT, &a) == OK && a.family != ADDR_UNIX && !addr_eq(&a, own))
            c->upstreams[c->upstreams_n++] = a;
    }
}

/* One family with one label, summed over workers. offset: of the first counter in struct names_counters. */
struct family {
    const char *name, *help, *label;
    const char *const *values;
    size_t n, offset;
    bool gauge;
};

static uint64_t summed(struct names *const *workers, uint32_t workers_n, size_t offset)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < workers_n; i++)
        sum += counter_read((const counter *)(const void *)((const char *)&workers[i]->c + offset));
    return sum;
}

void names_metrics(struct names *const *workers, uint32_t workers_n, struct buf *out)
{
    static const char *const ways[] = {"udp", "tcp"};
    static const char *const outcomes[] = {"noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other"};
    static const char *const limits[] = {"connections", "query_bytes", "out_bytes", "pending", "bad_answers"};
    _Static_assert(COUNT_OF(ways) == WAYS_N && COUNT_OF(outcomes) == OUT_COUNT && COUNT_OF(limits) == LIMIT_COUNT, "a name for each");
    static const struct family families[] = {
        {"weir_dns_queries_total", "Questions to the name server.", "transport", ways, WAYS_N, offsetof(struct names_counters, queries), false},
        {"weir_dns_answers_total", "Its answers.", "rcode", outcomes, OUT_COUNT, offsetof(struct names_counters, answers), false},
        {"weir_dns_limit_hits_total", "Times that a limit of the name server was hit.", "limit", limits, LIMIT_COUNT, offsetof(struct names_counters, limits), false},
        {"weir_dns_truncated_total", "Answers by UDP that were too long: the client comes again by TCP.", NULL, NULL, 1, offsetof(struct names_counters, truncated), false},
        {"weir_dns_dropped_total", "Messages that are no questions, and not answered.", NULL, NULL, 1, offsetof(struct names_counters, dropped), false},
        {"weir_dns_connections", "Clients by TCP.", NULL, NULL, 1, offsetof(struct names_counters, conns), true},
        {"weir_dns_forwarded_total", "Questions for names outside, asked of the host's resolvers.", NULL, NULL, 1, offsetof(struct names_counters, forwarded), false},
        {"weir_dns_forward_tries_failed_total", "Tries of those without a good answer.", NULL, NULL, 1, offsetof(struct names_counters, tries_failed), false},
        {"weir_dns_forward_bad_answers_total", "Answers of those that did not fit their question.", NULL, NULL, 1, offsetof(struct names_counters, bad_answers), false},
        {"weir_dns_forward_pending", "Such questions under way.", NULL, NULL, 1, offsetof(struct names_counters, pending), true},
    };
    for (size_t i = 0; i < COUNT_OF(families); i++) {
        const struct family *f = &families[i];
        prom_family(out, f->name, f->gauge ? PROM_GAUGE : PROM_COUNTER, f->help);
        for (size_t k = 0; k < f->n; k++) {
            struct prom_label l = {f->label, slice_cstr(f->label ? f->values[k] : "")};
            prom_u64(out, f->name, "", f->label ? &l : NULL, f->label ? 1 : 0, summed(workers, workers_n, f->offset + k * sizeof(counter)));
        }
    }
}
