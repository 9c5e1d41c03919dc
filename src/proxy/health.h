/* health.h - active checks: endpoints are asked whether they are well, and left out of the balancing while they are not.
 *
 * Each endpoint of a cluster whose policy asks for checks is checked by one worker, for all: what it finds goes into struct
 * endpoint_health (plan.h), which every worker's balancer reads. BALANCING.md ("Active checks") tells the rules.
 */
#ifndef HEALTH_H
#define HEALTH_H

#include "plan.h"

#define HEALTH_RUNNING_MAX 256   /* checks under way at once, per worker; others wait */
#define HEALTH_SPREAD_MS 250     /* the first checks after a plan are spread over so long */
#define HEALTH_PAUSE_MS 10       /* at least, between the end of a check and the next of that endpoint */
#define HEALTH_SOCKET_MS 10      /* between two looks for a socket in a replica's namespace */
#define HEALTH_SLACK_MS 2000     /* more than two intervals and a timeout without a check: another worker takes over */

struct proxy;
struct endpoint;
struct checker;

/* Of one worker; embedded in struct proxy. */
struct health {
    struct list queue;           /* checkers that wait for others to end */
    struct task pump;            /* lets them begin */
    uint32_t running;            /* checks under way */
    uint32_t clusters_n;         /* clusters of the current plan that have checks */
};
void health_init(struct proxy *p);
/* A plan was taken into use: begins and ends checkers. States of endpoints that stay, stay. */
void health_plan(struct proxy *p, const struct plan *plan);
void health_sweep(struct proxy *p);          /* once a second: takes over what nobody checks */
void health_forget(struct endpoint *ep);     /* it leaves: a check under way ends without a result */

/* What a result makes of an endpoint. */
enum health_turn { HEALTH_STAYS, HEALTH_PROVEN /* the first answer, a good one */, HEALTH_FAILS, HEALTH_RECOVERS };
enum health_turn health_judge(struct endpoint_health *h, const struct health_policy *policy, bool ok);
/* How long until the next check, of one that began took_ms ago: an interval from beginning to beginning, at random up to a tenth shorter. */
uint64_t health_pause_ms(const struct health_policy *policy, uint64_t took_ms, uint64_t random);

#endif
