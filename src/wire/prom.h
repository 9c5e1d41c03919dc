/* prom.h - the Prometheus text exposition format 0.0.4, written into a buf. */
#ifndef PROM_H
#define PROM_H

#include "base.h"

enum prom_type { PROM_COUNTER, PROM_GAUGE, PROM_HISTOGRAM };
struct prom_label { const char *name; struct slice value; };
/* # HELP and # TYPE of a family; its samples follow, and no other family's between them. */
void prom_family(struct buf *out, const char *name, enum prom_type type, const char *help);
/* One sample; suffix (may be "") is put behind the name. Label values are escaped. */
void prom_u64(struct buf *out, const char *name, const char *suffix, const struct prom_label *labels, size_t n, uint64_t value);
void prom_double(struct buf *out, const char *name, const char *suffix, const struct prom_label *labels, size_t n, double value);
/* A histogram's _bucket lines (cumulative, with +Inf), _sum and _count. counts[bounds_n] is what lies above the last bound;
 * counts are per bucket, not cumulative. */
void prom_histogram(struct buf *out, const char *name, const struct prom_label *labels, size_t n, const double *bounds, const uint64_t *counts, size_t bounds_n, double sum);

#endif
