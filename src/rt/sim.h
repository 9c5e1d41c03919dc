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
    uint32_t lose_pct, double_pct;           /* share of datagrams that never arrive, and of those that arrive twice */
    uint32_t tls_refuse_pct;                 /* share of connections for which the kernel refuses to make TLS records */
    size_t socket_bytes;                     /* bytes a connection holds per direction, sent and unread; default 64 KiB */
};
void sim_start(const struct sim_conf *conf); /* resets the world; before any loop_new() */
void sim_stop(void);
void sim_quiet(void);                                /* this world's process log is not written: for tests of many faults */
/* Steps all loops until done() says so or until virtual time has advanced max_ms; true when done() did. */
bool sim_run(bool (*done)(void *ctx), void *ctx, uint64_t max_ms);
uint64_t sim_now_ms(void);
void sim_clock_jump(int64_t ms);                     /* somebody sets the wall clock; the monotonic one goes on as ever */
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
int sim_dgram(uint64_t ns, const struct addr *a);    /* a UDP socket bound to a in a namespace */
uint32_t sim_sockets_open(void);                     /* sockets, listeners, pipes and files not closed: to find leaks */

/* ---- disk ---- */

/* What is written is in the page cache; what disk_sync() and disk_sync_dir() covered is on the disk. rt.h says what power loss may leave, and
 * the seed decides it: for every sector of 512 bytes which of the writes since the last sync was the last to arrive, for every file at which of
 * them its size stands, for every name whether its making, moving or removal is there. */
const struct buf *sim_file(const char *path);        /* the bytes of path now; NULL: no file there */

/* The power fails, or the process is killed (the page cache stays, locks are given back). From then on every operation on the disk is ERR_IO and
 * changes nothing, all descriptors are dead (they may be closed), until sim_restart(): time to take down the objects of the process that ended,
 * which must not use their descriptors afterwards. The sync of a work that ran and is not done yet is not over: it does not count. */
void sim_power_loss(void);
void sim_process_crash(void);
/* The same in front of the n-th change of the disk from now (n >= 1; 0 takes it back), wherever in the program that is. A killed process may
 * leave a part of the write that it is in. */
void sim_crash_after(uint32_t n, bool power);
bool sim_is_down(void);                              /* crashed, and not restarted */
void sim_restart(void);

/* Faults. The next n operations of any kind fail with errno_value (UINT32_MAX: all of them). */
void sim_disk_fail(uint32_t n, int errno_value);
/* The kinds of operation; the first ones change the disk. */
enum sim_disk_op {
    SIM_DISK_CREATE, SIM_DISK_WRITE, SIM_DISK_SYNC, SIM_DISK_TRUNCATE, SIM_DISK_RESERVE, SIM_DISK_RENAME, SIM_DISK_REMOVE, SIM_DISK_MAKE_DIR,
    SIM_DISK_SYNC_DIR, SIM_DISK_CHANGES_LAST = SIM_DISK_SYNC_DIR,
    SIM_DISK_OPEN, SIM_DISK_READ, SIM_DISK_LIST, SIM_DISK_OPS
};
/* One operation fails, after so many others of its kind (errno_value 0: none does any more). What a failed sync should have covered is suspect from then on, as on Linux: it is in
 * the cache, and power loss may take it though another sync succeeded. */
void sim_disk_fail_next(enum sim_disk_op op, uint32_t after, int errno_value);
void sim_disk_bytes_max(uint64_t n);                 /* the disk's size; what is beyond is ENOSPC, behind a short write. 0: no limit */
/* How long a sync takes (0, 0: no time). In a work, run() waits: what others write meanwhile is not covered,
 * other loops go on meanwhile, and run() goes on when the sync is over. Works are a little slow at other operations, too. On a loop: it blocks
 * the world. */
void sim_disk_slow(uint32_t sync_ms_min, uint32_t sync_ms_max);
void sim_disk_cold(uint32_t pct);                    /* how often disk_in_memory() says no */
/* Damage, in the cache and on the disk: one bit of the byte there, false when the file has none; the end cut off, false when there is no file. */
bool sim_file_flip(const char *path, uint64_t offset);
bool sim_file_cut(const char *path, uint64_t bytes);

#endif
