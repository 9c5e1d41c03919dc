/* names.h - the name server: what Services and outside hosts are called, over UDP and TCP, to workloads and to the host.
 *
 * Two halves. A zone is what can be answered: immutable, counted, made on the control loop from the objects of the plan, and read by all
 * workers. A struct names is one worker's server: its sockets, its connections, its questions to others. Which workload asks is known by the
 * socket that the question came through; what it may know follows from that.
 */
#ifndef NAMES_H
#define NAMES_H

#include "dns.h"
#include "plan.h"

#define NAMES_TTL_S 5            /* of what is there */
#define NAMES_NEGATIVE_TTL_S 5   /* of what is not (RFC 2308): a Service that is applied is found at most so much later */

/* ---- zones --------------------------------------------------------------------------------------------------------- */

struct names_zone;
/* ext: the addresses of names outside, as for plan_compile(). log: the event log is there under its name. All is copied. One reference, for the
 * caller. Throws away nothing: a checked set makes a zone. */
struct names_zone *names_zone_new(const struct objset *s, const struct live_address *ext, size_t ext_n, const struct plan_named *named, size_t named_n, bool log, uint32_t serial);
struct names_zone *names_zone_ref(struct names_zone *z);
void names_zone_unref(struct names_zone *z); /* NULL-safe, any thread */

/* Who asks. */
struct names_caller {
    const char *ns;              /* of the workload; "" on the host */
    bool leaves;                 /* it may leave: names outside are looked up for it, and an ExternalName is told as what it is */
};
/* Writes the answer to q into out[0..cap) and returns its length; 0: the name is of outside, and nothing is known of it here. Pure. */
size_t names_answer(const struct names_zone *z, const struct names_caller *c, const struct dns_query *q, char *out, size_t cap);

/* ---- a server ------------------------------------------------------------------------------------------------------ */

#define NAMES_UPSTREAMS_MAX 3    /* as resolv.conf(5) has it */
struct names_conf {
    struct addr upstreams[NAMES_UPSTREAMS_MAX]; /* who is asked for names outside */
    uint32_t upstreams_n;        /* 0: nobody, such names are refused */
};
/* The servers of a resolv.conf(5), port 53; own is left out, for it would be asked by itself (may be ADDR_NONE). */
void names_conf_read(struct names_conf *c, struct slice resolv_conf, const struct addr *own);

struct names;
struct names *names_new(struct loop *l, const struct names_conf *conf);
void names_free(struct names *n);                       /* closes everything at once */
void names_zone_set(struct names *n, struct names_zone *z); /* takes one reference. Before the first one questions wait */
/* Sockets that questions come through, until names_close(id) or names_leave(): a bound UDP socket, a listening one, an accepted one. All own fd;
 * c is copied. id: whose they are; several may have the same. */
void names_dgram(struct names *n, uint64_t id, int fd, const struct names_caller *c);
void names_listen(struct names *n, uint64_t id, int fd, const struct names_caller *c);
void names_accept(struct names *n, uint64_t id, int fd, const struct names_caller *c);
void names_close(struct names *n, uint64_t id);
/* Another engine serves: no socket is listened to any more, connections end when they rest. */
void names_leave(struct names *n);
/* Prometheus families of this room, merged over workers. From any thread. */
void names_metrics(struct names *const *workers, uint32_t n, struct buf *out);

#endif
