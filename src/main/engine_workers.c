/* engine_workers.c - the worker threads: one loop and one proxy each, and the messages to and from them. */
#include "engine_int.h"

/* ---- on the worker's thread ------------------------------------------------------------------------------------------- */

static void worker_sockets_wanted(void *ctx, uint32_t worker, uint64_t replica_id, uint32_t n)
{
    struct worker *w = ctx;
    outbox_post(&w->to_control, (struct msg){.type = C_SOCKETS, .n = n, .a = replica_id, .b = worker});
}

static void worker_endpoint_left(void *ctx, uint32_t worker, uint64_t endpoint_id, uint64_t replica_id)
{
    struct worker *w = ctx;
    outbox_post(&w->to_control, (struct msg){.type = C_LEFT, .a = endpoint_id, .b = replica_id});
}

static void worker_permits_wanted(void *ctx, uint32_t worker, uint32_t cluster_slot)
{
    struct worker *w = ctx;
    if (w->e->conf.workers > 1)
        outbox_post(&w->to_control, (struct msg){.type = C_PERMITS, .n = cluster_slot, .b = worker});
}

static void worker_drained(void *ctx)
{
    struct worker *w = ctx;
    outbox_post(&w->to_control, (struct msg){.type = C_DRAINED, .b = w->index});
}

static const struct proxy_ops worker_proxy_ops = {
    .sockets_wanted = worker_sockets_wanted, .endpoint_left = worker_endpoint_left, .permits_wanted = worker_permits_wanted, .inside = worker_inside, .service = worker_log_service};

static void worker_door(struct worker *w, struct door_msg *door)
{
    proxy_mesh_listen(w->proxy, door->replica_id, door->fd, door->ns, door->workload, door->replica);
    mem_free(door->ns);
    mem_free(door->workload);
    mem_free(door->replica);
    mem_free(door);
}

static void worker_sockets(struct worker *w, uint64_t replica_id, int *fds, uint32_t n)
{
    proxy_sockets(w->proxy, replica_id, fds, n);
    mem_free(fds);
}

static void worker_leave(struct worker *w, uint32_t limit_ms)
{
    names_leave(w->names);
    proxy_leave(w->proxy, limit_ms, worker_drained, w);
}

static void worker_shard(struct worker *w, struct broker *b)
{
    w->shard = w->shard_made = broker_shard_new(b, w->index, w->loop);
    outbox_post(&w->to_control, (struct msg){.type = C_SHARD});
}

static void worker_shard_free(struct worker *w)
{
    broker_shard_free(w->shard_made);
    w->shard_made = NULL;
    outbox_post(&w->to_control, (struct msg){.type = C_SHARD_FREED});
}

/* No more connections to the event log: neither to a shard here nor to another node. */
static void worker_log_end(struct worker *w)
{
    worker_log_unlisten(w);
    worker_log_home(w, NULL);
    w->shard = NULL;
}

static void worker_message(void *ctx, const struct msg *m)
{
    struct worker *w = ctx;
    switch ((enum engine_msg)m->type) {
    case W_PLAN: proxy_plan(w->proxy, m->p); return;
    case W_LISTEN: proxy_listen(w->proxy, m->a, (int)m->n); return;
    case W_UNLISTEN: proxy_unlisten(w->proxy, m->a); return;
    case W_DOOR: worker_door(w, m->p); return;
    case W_DOOR_CLOSE: proxy_mesh_unlisten(w->proxy, m->a); return;
    case W_SOCKETS: worker_sockets(w, m->a, m->p, m->n); return;
    case W_DRAIN: proxy_drain(w->proxy, m->n, worker_drained, w); return;
    case W_LEAVE: worker_leave(w, m->n); return;
    case W_PERMITS: proxy_permits(w->proxy, m->n); return;
    case W_SHARD: worker_shard(w, m->p); return;
    case W_SHARD_FREE: worker_shard_free(w); return;
    case W_LOG_LISTEN: worker_log_listen(w, (enum log_way_kind)m->a, (int)m->n); return;
    case W_LOG_UNLISTEN: worker_log_end(w); return;
    case W_LOG_AWAY: worker_log_home(w, m->p); return;
    case W_ZONE: names_zone_set(w->names, m->p); return;
    case W_NAMES_DOOR: worker_names_door(w, m->p); return;
    case W_NAMES_CLOSE: names_close(w->names, m->a); return;
    case W_STOP: loop_stop(w->loop); return;
    case C_SOCKETS:
    case C_LEFT:
    case C_PERMITS:
    case C_DRAINED:
    case C_SHARD:
    case C_SHARD_FREED:
    case C_ETCD:
        break;
    }
    MUST(false && "a message for the control loop reached a worker");
}

static void worker_thread(void *arg)
{
    struct worker *w = arg;
    if (w->e->conf.workers > 1)
        thread_pin((int)w->index);
    loop_run(w->loop);
}

/* ---- on the control thread ------------------------------------------------------------------------------------------------- */

static uint64_t *leaving_of(struct engine *e, uint64_t replica_id) { return table_get(&e->leaving, slice_of((char *)&replica_id, sizeof replica_id)); }

static void control_message(void *ctx, const struct msg *m)
{
    struct engine *e = ctx;
    switch ((enum engine_msg)m->type) {
    case C_SOCKETS:
        sup_sockets(e->sup, m->a, m->b, (int)MIN(m->n, 64u));
        return;
    case C_LEFT: {
        uint64_t replica_id = m->b, *left = leaving_of(e, replica_id);
        if (left && --*left == 0)
            mem_free(table_del(&e->leaving, slice_of((char *)&replica_id, sizeof replica_id)));
        return;
    }
    case C_PERMITS:
        for (uint32_t i = 0; i < e->workers_n; i++)
            if (i != m->b)
                worker_post(e, i, (struct msg){.type = W_PERMITS, .n = m->n});
        return;
    case C_DRAINED:
        e->drained_n++;
        return;
    case C_SHARD:
        broker_shard_made(e);
        return;
    case C_SHARD_FREED:
        broker_shard_freed(e);
        return;
    case C_ETCD:
        store_accept(e, (int)m->n, m->p);
        return;
    default:
        break;
    }
    MUST(false && "a message for a worker reached the control loop");
}

/* An engine that is leaving may have requests anywhere: nothing is stopped before it has ended, or the drain's own limit has come. */
bool engine_in_flight(struct engine *e, uint64_t replica_id) { return e->leaving_pid || leaving_of(e, replica_id) != NULL; }

void worker_post(struct engine *e, uint32_t worker, struct msg m) { outbox_post(&e->workers[worker]->to_worker, m); }

void workers_post_all(struct engine *e, struct msg m)
{
    for (uint32_t i = 0; i < e->workers_n; i++)
        worker_post(e, i, m);
}

static struct worker *worker_new(struct engine *e, uint32_t index)
{
    struct worker *w = mem_new(MEM_LOOP, sizeof *w);
    struct buf name = {0};
    w->e = e;
    w->index = index;
    list_init(&w->log_doors);
    buf_printf(&name, "worker-%u", index);
    w->loop = loop_new(name.p);
    w->inbox = mailbox_new(w->loop, MAILBOX_CAP, worker_message, w);
    outbox_init(&w->to_worker, e->loop, w->inbox);
    outbox_init(&w->to_control, w->loop, e->inbox);
    struct proxy_conf conf;
    proxy_conf_default(&conf);
    conf.worker = index;
    conf.workers = e->conf.workers;
    conf.access_log = e->access;
    w->proxy = proxy_new(w->loop, &conf, &worker_proxy_ops, w);
    e->proxies[index] = w->proxy;
    w->names = e->names[index] = names_new(w->loop, &e->dns.conf);
    w->thread = thread_start(name.p, worker_thread, w);
    buf_free(&name);
    return w;
}

void workers_start(struct engine *e)
{
    e->inbox = mailbox_new(e->loop, MAILBOX_CAP, control_message, e);
    for (uint32_t i = 0; i < e->conf.workers; i++)
        e->workers[e->workers_n++] = worker_new(e, i);
}

/* A full inbox is waited for with turns of the control loop, whose callbacks may use any worker: so all are told before the first
 * of them goes. */
void workers_stop(struct engine *e)
{
    struct msg stop = {.type = W_STOP};
    for (uint32_t i = 0; i < e->workers_n; i++)
        while (!mailbox_post(e->workers[i]->inbox, &stop))
            loop_turn(e->loop, 1);
    for (uint32_t i = 0; i < e->workers_n; i++)
        thread_join(e->workers[i]->thread); /* all of them: workers also send to each other, and wake each other's loops */
    for (uint32_t i = 0; i < e->workers_n; i++) {
        struct worker *w = e->workers[i];
        worker_log_unlisten(w);
        worker_log_home(w, NULL);
        names_free(w->names);
        proxy_free(w->proxy);
        outbox_fini(&w->to_worker);
        outbox_fini(&w->to_control);
        mailbox_free(w->inbox);
        loop_free(w->loop);
        mem_free(w);
    }
    e->workers_n = 0;
    for (struct table_slot *s = NULL; (s = table_next(&e->leaving, s));)
        mem_free(s->value);
    table_fini(&e->leaving);
    mailbox_free(e->inbox);
}
