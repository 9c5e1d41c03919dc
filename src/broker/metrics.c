/* metrics.c - what the broker tells of itself, in Prometheus' format. Counters are written by their shard's loop and added up here, on any thread. */
#include "frame_int.h"

#include "prom.h"

void count_answer(struct shard *s, const struct breq *r)
{
    if (r->key < 0 || r->key >= API_KEYS_MAX || r->api == &api_none)
        return;
    struct api_counters *n = &s->counters->api[r->key];
    uint64_t us = (loop_now_ns(s->loop) - r->begun_ns) / 1000;
    uint32_t i = 0;
    while (i < LATENCY_BUCKETS && us > 1ull << i)
        i++;
    counter_inc(&n->requests);
    counter_add(&n->us, us);
    if (i < LATENCY_BUCKETS)
        counter_inc(&n->latency[i]);
    if (r->error)
        counter_inc(&n->errors);
}
