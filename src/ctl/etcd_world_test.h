/* etcd_world_test.h - real etcd-servers for tests: members of a cluster as child processes, on ports that are free, with their data in memory.
 *
 * They end with the test, however it ends. For tests of any room that use dep_rt_os.
 */
#ifndef ETCD_WORLD_TEST_H
#define ETCD_WORLD_TEST_H

#include "ctl_world_test.h"

#include <sys/types.h>

#define MEMBERS_MAX 3

struct member {
    pid_t pid;                   /* 0: does not run */
    uint16_t port, peer_port;
    char name[16], dir[96];
};
struct cluster {
    struct world w;              /* its loop, and the store that is open */
    struct member members[MEMBERS_MAX];
    int n;
    const char *options[16];     /* further ones for each, NULL at the end */
    bool tls;                    /* clients come by https:// (its options are in options) */
    char dir[64];
    bool closed;
};
/* Makes the cluster's folder, picks ports. cluster_start() then starts the members, and does not wait. */
void cluster_init(struct cluster *c, int members);
void cluster_start(struct cluster *c);
void cluster_fini(struct cluster *c);
void member_start(struct cluster *c, int i);
void member_signal(struct cluster *c, int i, int signal); /* SIGKILL: and waits until it is gone */
/* A configuration for all members, the given one first. endpoints: room for MEMBERS_MAX. */
struct ctl_etcd_conf cluster_conf(const struct cluster *c, int first, struct ctl_etcd_endpoint *endpoints);
void cluster_open(struct cluster *c, const struct ctl_etcd_conf *conf);
void cluster_close(struct cluster *c);
bool kernel_run(struct world *w, bool (*done)(void *ctx), void *ctx, uint64_t ms);
void cluster_wipe(struct cluster *c);                     /* deletes all keys */
/* Runs etcdctl against a member, waits while the loop goes on; its output. False: it failed. */
bool cluster_ctl(struct cluster *c, int i, const char *const *words, struct buf *out);
/* The member that leads, as etcdctl says; -1: none now. */
int cluster_leader(struct cluster *c);

#endif
