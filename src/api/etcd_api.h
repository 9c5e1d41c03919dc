/* etcd_api.h - etcd's v3 API: the control store as services see it.
 *
 *     client --HTTP/2--> http_srv --> a call (gRPC) --> ctl          KV, Lease, Watch, Maintenance, Cluster, Auth: see ETCD.md
 *
 * It translates; what a request means, and every error of the store, is ctl's. On the loop of the store.
 */
#ifndef ETCD_API_H
#define ETCD_API_H

#include "ctl.h"

struct etcd_api_conf {
    uint64_t cluster_id, member_id; /* not 0; the same after a restart: clients may remember them */
    const char *name;               /* of the member */
    const char *client_url;         /* where it says that it is reached: http://127.0.0.1:2379 */
};
struct etcd_api;
/* ctl and the strings of conf stay the caller's, and outlive it. */
struct etcd_api *etcd_api_new(struct loop *l, struct ctl *ctl, const struct etcd_api_conf *conf);
/* Accepts from a listening socket, which stays the caller's: clients on the host, User:ANONYMOUS. */
void etcd_api_listen(struct etcd_api *a, int fd);
/* Takes a connection that was accepted elsewhere, from a workload: principal is copied, "User:NAMESPACE/WORKLOAD". */
void etcd_api_accept(struct etcd_api *a, int fd, struct slice principal);
/* Who may do what with keys that begin with a prefix: from now on, and instead of what was said before. Copied. Watches of what is no longer their clients' end. */
enum { ETCD_MAY_READ = 1, ETCD_MAY_WRITE = 2 };
struct etcd_acl {
    struct slice principal;         /* "User:*": everybody */
    unsigned may;
};
struct etcd_keyspace {
    struct slice prefix;            /* not empty; each once */
    const struct etcd_acl *acls;
    size_t acls_n;
};
void etcd_api_keyspaces(struct etcd_api *a, const struct etcd_keyspace *keyspaces, size_t n);
/* Accepts nothing more. Streams end with UNAVAILABLE, so that clients come again (to whoever listens then); calls under way are answered. */
void etcd_api_suspend(struct etcd_api *a);
bool etcd_api_busy(const struct etcd_api *a); /* calls that are not answered yet */
/* Connections end at once, watches are stopped. Before ctl_close(); calls that the store still holds are given back by it, and freed then. */
void etcd_api_free(struct etcd_api *a);
void etcd_api_metrics(const struct etcd_api *a, struct buf *out);

#endif
