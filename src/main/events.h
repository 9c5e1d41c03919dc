/* events.h - what happened lately: Events as Kubernetes has them, counted when they repeat, kept for an hour. */
#ifndef EVENTS_H
#define EVENTS_H

#include "api.h"
#include "ctl.h"

#define EVENTS_MAX 1000          /* kept; the oldest goes for a new one */
#define EVENTS_SHARED_MAX 5000   /* of all nodes that share a store: more are not shown */
#define EVENTS_SIMILAR_MAX 10u   /* with different messages, of one object and reason; further ones share the newest of them */
#define EVENTS_KEPT_MS 3600000u  /* since it last happened, as Kubernetes has it */
#define EVENTS_WRITE_MS 5000u    /* between two writes to the store at the least */
#define EVENTS_AGAIN_MS 300000u  /* between two of one event that only repeats: the store keeps each for a day */
#define EVENTS_OPS_MAX 100u      /* operations of one write: an etcd cluster takes 128 in a transaction */
#define EVENTS_MESSAGE_MAX 1024u /* bytes; what is longer is cut, as in Kubernetes */

struct events;
struct events *events_new(struct loop *l, const char *node);
void events_free(struct events *ev);
/* Before events_on(): other nodes write into the same store, and each node shows the events of all. */
void events_share(struct events *ev);
/* The store is open: what it has from before is read, and what happens is written. NULL: it is closed; what is written by then is known to the next engine. */
void events_on(struct events *ev, struct ctl *c);
void events_write(struct events *ev);      /* all, now: the store is about to close */
bool events_busy(const struct events *ev); /* that is under way */
/* It happened now; copied. e: without seq, count and times. */
void events_add(struct events *ev, const struct node_event *e);
/* Those that were added or happened again behind `after`, in the order in which that was. */
void events_each(const struct events *ev, uint64_t after, void (*each)(void *ctx, const struct node_event *e), void *ctx);
void events_metrics(const struct events *ev, struct buf *out);

#endif
