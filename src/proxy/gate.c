/* gate.c - what comes from other nodes: for one replica of this one, and for no other; or for the node itself.
 *
 *     HTTP/2 stream --> plan_target_find(SNI) --> exchange, pinned by x->target --> the replica
 *                                       '--> not here: REFUSED_STREAM
 *
 * The node that asks has routed the request, and keeps it until it is answered: so nothing is answered here. What fails before it was
 * sent is refused, so that it may go elsewhere whatever its method; what fails later is reset, and the other node does with that what it
 * does with any service that breaks off. What is for no replica but for the node itself: link.c. See README.md, "Between nodes".
 */
#include "proxy_int.h"

void gate_give_back(struct exchange *x, bool unsent, enum flag f)
{
    struct http_req *r = x->req;
    x->req = NULL;
    r->owner = NULL;
    if (unsent)
        counter_inc(&x->p->c.node_refused);
    exchange_abandon(x, f);
    if (unsent)
        http_req_refuse(r);
    else
        http_req_cut(r);
}

static const struct plan_target *target_of(struct down *d)
{
    return plan_target_find(door_hold(d->door)->plan, stream_tls_server_name(http_srv_stream(&d->srv)));
}

void gate_request(struct exchange *x, const struct h1_head *h, struct pieces body)
{
    struct proxy *p = x->p;
    struct plan_hit hit = {0};
    counter_inc(&p->c.node_requests);
    const struct plan_target *t = target_of(x->down);
    struct upstream *us = t ? upstream_of(p, t->backend.cluster) : NULL;
    if (!us) { /* gone, or not yet in this node's plan; or the plan that has it is not the newest any more */
        gate_give_back(x, true, FLAG_UH);
        return;
    }
    x->target = t;
    x->rule = &x->hold->plan->gate->rule;
    x->backend = &t->backend;
    x->cluster = t->backend.cluster;
    x->us = upstream_hold(us);
    const struct upstream_tls *tls = &x->cluster->policy->tls;
    if ((tls->mode == TLS_SIMPLE || tls->mode == TLS_MUTUAL) && !tls->ctx) /* nothing is sent in clear */
        gate_give_back(x, true, FLAG_UF);
    else if (!head_request(x, h, &hit))
        gate_give_back(x, false, FLAG_NONE);
    else
        exchange_begin(x, body);
}

void gate_bytes(struct down *d, struct slice early)
{
    if (link_asked(d)) {
        link_begin(d, early);
        return;
    }
    counter_inc(&d->p->c.node_sessions);
    tcp_begin_target(d, target_of(d), early);
}
