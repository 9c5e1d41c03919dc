/* report.c - what `get` shows, and the Prometheus families of this room.
 *
 * Reads only. Families that kube-state-metrics has keep its names, so that dashboards made for Kubernetes work; what has
 * no such name begins with weir_. Their list is in README.
 */
#include "run_int.h"

#include "prom.h"

#include <stdio.h>

/* ---- status ----------------------------------------------------------------------------------------------------- */

/* While all is well with a replica that was restarted, the reason of its last restart is still what is asked for. */
static const char *replica_why(const struct replica *rp, struct arena *a)
{
    if (rp->why)
        return rp->why;
    return rp->ended_why && !rp->doomed ? arena_printf(a, "restarted: %s", rp->ended_why) : "";
}

/* Oldest first; a doomed replica is shown for as long as it lasts. */
static struct replica_status *status_replicas(const struct workload *wl, uint32_t n, struct arena *a)
{
    struct replica_status *out = arena_zalloc(a, (n + 1) * sizeof *out), *at = out;
    LIST_FOREACH(it, &wl->replicas) {
        const struct replica *rp = CONTAINER_OF(it, struct replica, link);
        *at++ = (struct replica_status){.id = rp->id, .name = rp->name, .node = RUN_OF(rp)->conf.node_name, .phase = rep_phase_name(rp->phase), .ready = rp->ready,
            .up_to_date = rp->rev == wl->cur && wl->cur, .pid = rp->pid, .restarts = rp->restarts,
            .started_wall_ns = rp->started_wall_ns, .why = replica_why(rp, a)};
    }
    MUST(at == out + n);
    return out;
}

/* The first reason that a live replica of the current revision gives. */
static const struct replica *status_blocker(const struct workload *wl)
{
    const struct replica *any = NULL;
    LIST_FOREACH(it, &wl->replicas) {
        const struct replica *rp = CONTAINER_OF(it, struct replica, link);
        if (rp->doomed || rp->available)
            continue;
        if (rp->rev == wl->cur && rp->why)
            return rp;
        if (rp->why && !any)
            any = rp;
    }
    return any;
}

static const char *status_why(struct workload *wl, const struct tally *t, struct arena *a)
{
    const struct deployment *d = wl->obj ? &wl->obj->dep : NULL;
    if (!d)
        return "no longer wanted: being stopped";
    if (wl->why)
        return wl->why;
    if (d->paused && (!wl->cur || wl->cur->key != revision_key(d->pod.hash, wl->restart_n)))
        return "paused: its template is not taken up";
    if (wl->complete)
        return "";
    const struct replica *rp = status_blocker(wl);
    const char *late = wl->late ? "progress deadline exceeded: " : "", *who = rp ? rp->name : "", *what = rp ? rp->why : "";
    const char *sep = rp ? "; " : "", *colon = rp ? ": " : "";
    if (t->new_live < wl->share)
        return arena_printf(a, "%s%u of %u replicas updated%s%s%s%s", late, t->new_live, wl->share, sep, who, colon, what);
    if (t->available < wl->share || t->new_unavailable)
        return arena_printf(a, "%s%u of %u replicas available%s%s%s%s", late, t->new_live - t->new_unavailable, wl->share, sep, who, colon, what);
    return arena_printf(a, "%s%u old replicas are being stopped", late, t->total - t->new_live);
}

void run_status(struct run *r, void (*each)(void *ctx, const struct workload_status *w), void *ctx)
{
    struct arena a;
    arena_init(&a, MEM_RUN, 4096);
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        struct tally t;
        rollout_tally(wl, &t);
        struct workload_status s = {.ns = wl->ns, .name = wl->name, .generation = wl->obj ? wl->obj->generation : 0,
            .revision = wl->cur ? wl->cur->number : 0, .wanted = wl->obj ? wl->share : 0, .current = t.total,
            .updated = t.new_live, .ready = t.ready, .available = t.available, .complete = wl->obj && wl->complete && !wl->why, .late = wl->obj && wl->late,
            .why = status_why(wl, &t, &a), .replicas = status_replicas(wl, t.total, &a), .replicas_n = t.total};
        each(ctx, &s);
        arena_reset(&a);
    }
    arena_fini(&a);
}

/* ---- metrics ----------------------------------------------------------------------------------------------------------- */

struct family { const char *name, *help; };

enum { GAUGE_WANTED, GAUGE_TOTAL, GAUGE_READY, GAUGE_AVAILABLE, GAUGE_UNAVAILABLE, GAUGE_UPDATED, GAUGE_GENERATION, GAUGE_COUNT };
static const struct family gauges[GAUGE_COUNT] = {
    [GAUGE_WANTED] = {"kube_deployment_spec_replicas", "Replicas that the Deployment asks for on this node."},
    [GAUGE_TOTAL] = {"kube_deployment_status_replicas", "Replicas there are, draining ones too."},
    [GAUGE_READY] = {"kube_deployment_status_replicas_ready", "Replicas that may be sent requests."},
    [GAUGE_AVAILABLE] = {"kube_deployment_status_replicas_available", "Replicas ready for at least minReadySeconds."},
    [GAUGE_UNAVAILABLE] = {"kube_deployment_status_replicas_unavailable", "Replicas that are missing to the number asked for."},
    [GAUGE_UPDATED] = {"kube_deployment_status_replicas_updated", "Replicas of the current revision."},
    [GAUGE_GENERATION] = {"kube_deployment_status_observed_generation", "The generation of the Deployment that is acted upon."},
};

static uint64_t gauge_value(const struct workload *wl, const struct tally *t, int g)
{
    uint32_t wanted = wl->obj ? wl->share : 0;
    switch (g) {
    case GAUGE_WANTED: return wanted;
    case GAUGE_TOTAL: return t->total;
    case GAUGE_READY: return t->ready;
    case GAUGE_AVAILABLE: return t->available;
    case GAUGE_UNAVAILABLE: return wanted > t->available ? wanted - t->available : 0;
    case GAUGE_UPDATED: return t->new_live;
    default: return wl->obj ? wl->obj->generation : 0;
    }
}

static void metrics_deployments(struct run *r, struct buf *out)
{
    for (int g = 0; g < GAUGE_COUNT; g++) {
        prom_family(out, gauges[g].name, PROM_GAUGE, gauges[g].help);
        LIST_FOREACH(it, &r->workloads) {
            const struct workload *wl = CONTAINER_OF(it, struct workload, link);
            struct tally t;
            rollout_tally(wl, &t);
            struct prom_label lb[] = {{"namespace", slice_cstr(wl->ns)}, {"deployment", slice_cstr(wl->name)}};
            prom_u64(out, gauges[g].name, "", lb, 2, gauge_value(wl, &t, g));
        }
    }
}

static const char *container_name(const struct replica *rp)
{
    const struct pod_template *pod = rep_pod(rp);
    return pod && pod->container ? pod->container : rp->wl->name;
}

enum { POD_RESTARTS, POD_READY, POD_RUNNING, POD_COUNT };
static const struct family pods[POD_COUNT] = {
    [POD_RESTARTS] = {"kube_pod_container_status_restarts_total", "Restarts of the replica's process."},
    [POD_READY] = {"kube_pod_container_status_ready", "1 when the replica may be sent requests."},
    [POD_RUNNING] = {"kube_pod_container_status_running", "1 when the replica's process runs."},
};

static void metrics_replicas(struct run *r, struct buf *out)
{
    for (int f = 0; f < POD_COUNT; f++) {
        prom_family(out, pods[f].name, f == POD_RESTARTS ? PROM_COUNTER : PROM_GAUGE, pods[f].help);
        LIST_FOREACH(it, &r->workloads) {
            const struct workload *wl = CONTAINER_OF(it, struct workload, link);
            LIST_FOREACH(rit, &wl->replicas) {
                const struct replica *rp = CONTAINER_OF(rit, struct replica, link);
                struct prom_label lb[] = {{"namespace", slice_cstr(wl->ns)}, {"pod", slice_cstr(rp->name)}, {"container", slice_cstr(container_name(rp))}};
                prom_u64(out, pods[f].name, "", lb, 3, f == POD_RESTARTS ? rp->restarts : f == POD_READY ? rp->ready : rp->pid != 0);
            }
        }
    }
}

static void metrics_states(struct run *r, struct buf *out)
{
    prom_family(out, "weir_replicas", PROM_GAUGE, "Replicas by state.");
    LIST_FOREACH(it, &r->workloads) {
        const struct workload *wl = CONTAINER_OF(it, struct workload, link);
        uint64_t n[PH_COUNT] = {0};
        LIST_FOREACH(rit, &wl->replicas)
            n[CONTAINER_OF(rit, struct replica, link)->phase]++;
        for (int p = 0; p < PH_EXITED; p++) {
            struct prom_label lb[] = {{"namespace", slice_cstr(wl->ns)}, {"deployment", slice_cstr(wl->name)}, {"state", slice_cstr(rep_phase_name((enum replica_phase)p))}};
            prom_u64(out, "weir_replicas", "", lb, 3, n[p]);
        }
    }
    prom_family(out, "weir_workload_restarts_total", PROM_COUNTER, "Restarts of all replicas of a Deployment, also of those that are gone.");
    LIST_FOREACH(it, &r->workloads) {
        const struct workload *wl = CONTAINER_OF(it, struct workload, link);
        struct prom_label lb[] = {{"namespace", slice_cstr(wl->ns)}, {"deployment", slice_cstr(wl->name)}};
        prom_u64(out, "weir_workload_restarts_total", "", lb, 2, wl->restarts);
    }
}

static void metrics_probes(struct run *r, struct buf *out)
{
    prom_family(out, "weir_probe_results_total", PROM_COUNTER, "Results of probes; readiness includes the check of a declared port.");
    LIST_FOREACH(it, &r->workloads) {
        const struct workload *wl = CONTAINER_OF(it, struct workload, link);
        for (int i = 0; i < USE_PRE_STOP * 2; i++) {
            struct prom_label lb[] = {{"namespace", slice_cstr(wl->ns)}, {"deployment", slice_cstr(wl->name)},
                {"probe", slice_cstr(probe_use_name((enum probe_use)(i / 2)))}, {"result", slice_cstr(i % 2 ? "success" : "failure")}};
            prom_u64(out, "weir_probe_results_total", "", lb, 4, wl->probes[i / 2][i % 2]);
        }
    }
}

static void metrics_output(struct run *r, struct buf *out)
{
    static const struct family f[] = {{"weir_output_lines_total", "Lines of output captured."}, {"weir_output_bytes_total", "Bytes of output captured."}};
    for (int k = 0; k < 2; k++) {
        prom_family(out, f[k].name, PROM_COUNTER, f[k].help);
        LIST_FOREACH(it, &r->workloads) {
            const struct workload *wl = CONTAINER_OF(it, struct workload, link);
            for (int s = 0; s < 2; s++) {
                struct prom_label lb[] = {{"namespace", slice_cstr(wl->ns)}, {"deployment", slice_cstr(wl->name)}, {"stream", slice_cstr(s ? "stderr" : "stdout")}};
                prom_u64(out, f[k].name, "", lb, 3, k ? wl->bytes[s] : wl->lines[s]);
            }
        }
    }
}

static void metrics_node(const struct run *r, struct buf *out)
{
    static const char *const limits[LIMIT_COUNT] = {[LIMIT_STARTS] = "starts", [LIMIT_LINE] = "line", [LIMIT_PROBE_ANSWER] = "probe_answer", [LIMIT_ACCEPT] = "accept"};
    const struct { struct family f; uint64_t v; } counters[] = {
        {{"weir_run_starts_total", "Processes that sup was asked to start."}, r->starts},
        {{"weir_run_start_failures_total", "Starts that failed."}, r->start_failures},
        {{"weir_run_adoptions_total", "Processes found again after a restart of the engine."}, r->adoptions},
        {{"weir_run_state_write_failures_total", "Times that run.state could not be written."}, r->save_failures},
        {{"weir_run_file_write_failures_total", "Times that a hosts or resolv file could not be written."}, r->file_failures},
    };
    for (size_t i = 0; i < COUNT_OF(counters); i++) {
        prom_family(out, counters[i].f.name, PROM_COUNTER, counters[i].f.help);
        prom_u64(out, counters[i].f.name, "", NULL, 0, counters[i].v);
    }
    prom_family(out, "weir_run_starts_in_flight", PROM_GAUGE, "Starts that sup has not answered yet.");
    prom_u64(out, "weir_run_starts_in_flight", "", NULL, 0, r->starting_n);
    prom_family(out, "weir_run_limit_hits_total", PROM_COUNTER, "Times that a limit of this room was hit.");
    for (int i = 0; i < LIMIT_COUNT; i++) {
        struct prom_label lb[] = {{"limit", slice_cstr(limits[i])}};
        prom_u64(out, "weir_run_limit_hits_total", "", lb, 1, r->limit_hits[i]);
    }
}

void run_metrics(struct run *r, struct buf *out)
{
    metrics_deployments(r, out);
    metrics_replicas(r, out);
    metrics_states(r, out);
    metrics_probes(r, out);
    metrics_output(r, out);
    metrics_node(r, out);
}
