/* engine_log_home.c - of several nodes one keeps the event log of all; on the others its doors lead there.
 *
 *     LOG_UNKNOWN --/weir/log is read, or made (fleet_log.c)--> LOG_HERE: the broker opens here (engine_broker.c)
 *                                                           '-> LOG_AWAY: BROKER_AWAY
 *
 *     workload --kafka:9092--> worker here --proxy_link()--> gate of that node --> worker there --> broker_accept()
 *
 * So who is connected through another node meets the same broker, under the same name and address, as the same principal: all of that is decided at
 * the door here, as it is for the broker here, and told in the link's line:
 *
 *     log 0|1 ADVERTISED_HOST ADVERTISED_PORT CLIENT_HOST|- PRINCIPAL          1: over TLS, with SASL (--kafka-secure), which end at the broker
 *
 * While that node is away its gate takes no connection: clients are closed and come again.
 */
#include "engine_int.h"
#include <stdio.h>

#define SERVICE_LOG "log"

/* ---- on the worker's thread --------------------------------------------------------------------------------------------------------- */

static void home_free(struct log_home *h)
{
    if (h)
        mem_free(h->node);
    mem_free(h);
}

void worker_log_home(struct worker *w, struct log_home *h)
{
    struct log_home *was = w->log_home;
    w->log_home = h;
    if (was && h && strcmp(was->node, h->node) != 0)
        proxy_links_close(w->proxy); /* who is connected to the former one comes again */
    home_free(was);
}

bool worker_log_away(struct worker *w, int fd, const struct broker_door *door)
{
    struct buf line = {0};
    const struct log_home *h = w->log_home;
    if (!h)
        return false;
    struct slice host = door->caller.host.n ? door->caller.host : SLICE("-");
    buf_printf(&line, SERVICE_LOG " %d " SLICE_FMT " %u " SLICE_FMT " " SLICE_FMT, door->sasl, SLICE_ARG(door->advertised_host), door->advertised_port, SLICE_ARG(host), SLICE_ARG(door->caller.principal));
    proxy_link(w->proxy, fd, &(struct proxy_link){.node = h->node, .gate = h->gate, .line = buf_slice(&line)});
    buf_free(&line);
    return true;
}

static bool door_parse(struct slice line, struct broker_door *door, bool *secure)
{
    struct slice rest = line, service = slice_cut(rest, ' ', &rest), how = slice_cut(rest, ' ', &rest);
    uint64_t port;
    door->advertised_host = slice_cut(rest, ' ', &rest);
    struct slice number = slice_cut(rest, ' ', &rest);
    door->caller.host = slice_cut(rest, ' ', &rest);
    door->caller.principal = rest;
    if (slice_is(door->caller.host, "-"))
        door->caller.host = SLICE("");
    *secure = slice_is(how, "1");
    if (!slice_is(service, SERVICE_LOG) || !door->advertised_host.n || !slice_starts(rest, SLICE("User:")) || slice_u64(number, 65535, &port) != OK)
        return false;
    door->advertised_port = (uint16_t)port;
    return true;
}

bool worker_log_service(void *ctx, struct slice line, int *fd)
{
    struct worker *w = ctx;
    struct broker_door door = {0};
    bool secure;
    int fds[2];
    if (!w->shard || !door_parse(line, &door, &secure) || (secure && !w->e->broker.tls))
        return false;
    door.tls = secure ? w->e->broker.tls : NULL;
    door.sasl = secure;
    enum err er = socket_pair(fds);
    if (er != OK) {
        log_error("broker", "a connection of another node can't be taken: %s", err_text(er));
        return false;
    }
    broker_accept(w->shard, fds[1], &door);
    *fd = fds[0];
    return true;
}

/* ---- on the control thread ------------------------------------------------------------------------------------------------------------ */

static void home_tell(struct engine *e)
{
    for (uint32_t i = 0; i < e->workers_n; i++) {
        struct log_home *h = mem_new(MEM_API, sizeof *h);
        *h = (struct log_home){mem_strdup(MEM_API, e->broker.home.node), e->broker.home.gate};
        worker_post(e, i, (struct msg){.type = W_LOG_AWAY, .p = h});
    }
}

void log_home_open(struct engine *e)
{
    e->broker.state = BROKER_AWAY;
    e->broker.served = true;
    home_tell(e);
    broker_ways_open(e);
}

void log_home_close(struct engine *e)
{
    e->broker.state = BROKER_CLOSED;
    workers_post_all(e, (struct msg){.type = W_LOG_UNLISTEN});
}

/* Another data folder of this node's name had it: where that is, nobody can tell. */
static void lost_say(struct engine *e, const struct fleet_log *l)
{
    bool lost = !l->here && slice_is(l->node, e->conf.name);
    if (lost && !e->broker.lost_said)
        log_error("broker", "the event log of all nodes is in another data folder of node %s; start that one, or give its records up: etcdctl del /weir/log", e->conf.name);
    e->broker.lost_said = lost;
}

/* True when it is another place than before. What is not known now stays as it was. */
static bool home_take(struct engine *e, const struct fleet_log *l)
{
    struct engine_broker *b = &e->broker;
    struct addr gate = {0};
    if (l->here) {
        bool news = b->place != LOG_HERE;
        b->place = LOG_HERE;
        return news;
    }
    bool same = b->place == LOG_AWAY && slice_is(l->node, b->home.node);
    if (!l->gate || !engine_address_parse(slice_cstr(l->gate), &gate))
        gate = same ? b->home.gate : (struct addr){0};
    if (same && addr_eq(&gate, &b->home.gate))
        return false;
    if (!same) {
        mem_free(b->home.node);
        b->home.node = mem_strndup(MEM_API, l->node.p, l->node.n);
        log_info("broker", "node %s keeps the event log of all nodes", b->home.node);
    }
    b->home.gate = gate;
    b->place = LOG_AWAY;
    return true;
}

void log_home_follow(struct engine *e)
{
    struct engine_broker *b = &e->broker;
    struct fleet_log l;
    if (b->off || !e->cluster.join || !e->cluster.fleet)
        return;
    fleet_log(e->cluster.fleet, &l);
    if (!l.known)
        return;
    lost_say(e, &l);
    if (!home_take(e, &l) || b->then || e->stopping || !e->run) /* on its way down: the next broker_up() finds it */
        return;
    if (b->state == BROKER_CLOSED)
        broker_up(e);
    else if (b->state == BROKER_AWAY && b->place == LOG_AWAY)
        home_tell(e);
    else
        broker_down(e, broker_up);
}

void log_home_init(struct engine *e) { e->broker.place = e->conf.join[0] ? LOG_UNKNOWN : LOG_HERE; }

void log_home_fini(struct engine *e)
{
    mem_free(e->broker.home.node);
    e->broker.home.node = NULL;
}
