/* sim.h - the simulator: rt on a virtual clock, network and disk, in one thread, from one seed. Tests only.
 *
 * One seed, one history: the order of loops, latencies, split reads and faults all come from the seed. Threads become
 * loops stepped in turn; work_submit() runs on the loop. Virtual time jumps to the next event.
 */
#ifndef SIM_H
#define SIM_H

#include "rt.h"

struct sim_conf {
    uint64_t seed;
    uint32_t latency_us_min, latency_us_max; /* one way, per segment; order within a connection is kept */
    uint32_t split_pct;                      /* share of reads that deliver only a part of what is there */
    uint32_t short_write_pct;                /* share of writes that take only a part */
    uint32_t reset_ppm;                      /* chance per segment, in a million, that the connection is reset */
    uint32_t refuse_pct;                     /* share of connects that are refused though somebody listens */
    size_t socket_bytes;                     /* bytes a connection holds per direction, sent and unread; default 64 KiB */
};
void sim_start(const struct sim_conf *conf); /* resets the world; before any loop_new() */
void sim_stop(void);
/* Steps all loops until done() says so or until virtual time has advanced max_ms; true when done() did. */
bool sim_run(bool (*done)(void *ctx), void *ctx, uint64_t max_ms);
uint64_t sim_now_ms(void);
void sim_conf_set(const struct sim_conf *conf);      /* change fault rates midway; the seed is ignored */
/* A hash over all that happened since sim_start(): equal for equal seeds and equal programs. */
uint64_t sim_trace(void);
/* Addresses that are unreachable: connects time out in silence (ETIMEDOUT after 127 s), established connections stall
 * until it ends. Port 0: every port of that IP. */
void sim_partition(const struct addr *a, bool on);
/* As if the process listening on a were killed: its listeners take no more, its connections are reset. A new
 * listen_socket() on a is its restart. */
void sim_kill_addr(const struct addr *a);
/* Network namespaces, as sup makes them for replicas: what listens in one is found only by sockets made in it. rt's own
 * sockets are in namespace 0. */
int sim_socket(uint64_t ns);                         /* unconnected, for stream_connect() */
/* A listening socket; a NULL: takes every connection of its namespace that no other listener takes, as the BPF lookup of
 * sup does: stream_local_addr() of the accepted tells what was meant. */
int sim_listen(uint64_t ns, const struct addr *a);
uint32_t sim_sockets_open(void);                     /* sockets, listeners, pipes and files not closed: to find leaks */
/* Disk: the bytes of path now (NULL when absent); the next n file operations fail with errno e. */
const struct buf *sim_file(const char *path);
void sim_disk_fail(uint32_t n, int errno_value);

#endif
