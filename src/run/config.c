/* config.c - restarts of workloads whose environment has changed behind them.
 *
 * A variable of a process can't be changed from outside. What counts for a workload is one hash (objset_config_hash()); the hash of its last start is
 * kept over a restart of the engine, so nothing is forgotten. Where the two differ, the workload is restarted by a rolling update, as run_restart() does
 * it: one workload after the other, the next when the last is complete, so that a Secret that nobody can start with stops at the first one that uses it
 * for as long as its progress deadline, and even there old replicas go on serving.
 */
#include "run_int.h"

/* Of a workload that is new, or gets a new template anyway, nothing is left to do. */
void config_want(struct workload *wl)
{
    if (!wl->obj)
        return;
    wl->config_now = objset_config_hash(wl->run->set, wl->obj);
    bool new_template = !wl->cur || !wl->cur->obj || wl->cur->obj->dep.pod.hash != wl->obj->dep.pod.hash;
    bool adopted = !wl->cur && wl->last_key == revision_key(wl->obj->dep.pod.hash, wl->restart_n);
    if (wl->config_known && (!new_template || adopted) && wl->config && wl->config_now)
        return;
    wl->config = wl->config_now;
    wl->config_known = true;
}

/* Until it is complete, or has given up getting on. */
static bool still_rolling(struct workload *wl)
{
    if (!wl->config_rolling)
        return false;
    wl->config_rolling = wl->obj && !wl->complete && !wl->late && !wl->obj->dep.paused;
    if (!wl->config_rolling && wl->late)
        log_warn("run", "%s/%s: it does not come up with its changed configuration; the next one is restarted", wl->ns, wl->name);
    return wl->config_rolling;
}

void config_step(struct run *r)
{
    LIST_FOREACH(it, &r->workloads)
        if (still_rolling(CONTAINER_OF(it, struct workload, link)))
            return; /* its end touches it, and so comes here */
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        if (!wl->obj || wl->obj->dep.paused || wl->config == wl->config_now)
            continue;
        wl->config = wl->config_now;
        wl->config_rolling = true;
        log_info("run", "%s/%s: restarted, because a ConfigMap or Secret that it uses has changed", wl->ns, wl->name);
        if (run_restart(r, wl->ns, wl->name) != OK)
            MUST(r->stopping); /* it is there and not paused */
        return;
    }
}
