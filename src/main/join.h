/* join.h - values of the options that make a node one of several, for weir up, which checks them, and the engine, which uses them. */
#ifndef JOIN_H
#define JOIN_H

#include "base.h"

/* One member of --join: [etcd://|etcds://|http://|https://]HOST:PORT. tls: etcds and https. host has no brackets. */
bool join_endpoint_parse(struct slice text, bool *tls, struct slice *host, uint16_t *port);
/* A label of --node-labels: a key, perhaps with a prefix, and a value, as Kubernetes takes them. */
bool join_label_good(struct slice key, struct slice value);

#endif
