/* log_power_test.h - what the durability tests of the log share: a model of what was sent, said to be done, and must therefore be there. Tests only.
 *
 * Every batch has a number, which is in its first record (of a marker: in the coordinator's epoch), so that a scan of a partition knows what it
 * sees. The model keeps, for each partition, which batch lies at which offset as far as anybody was told or has read it, up to where that is
 * certain whatever happens, and how far a crash of the process alone must leave it.
 */
#ifndef LOG_POWER_H
#define LOG_POWER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "log.h"
#include "sim.h"

#define POWER_PARTS 5
#define POWER_COMPACTED 4        /* the number of the partition that is compacted */
#define POWER_RETAINED 3         /* ... whose oldest segments go by size */
#define POWER_SHARDS 2
#define POWER_KEYS 6

struct client;

/* A batch that was sent, perhaps several times. */
struct sent {
    uint64_t id;                 /* its place in P.sent */
    uint32_t part;
    uint32_t n;                  /* bytes */
    char *orig;                  /* as it was made */
    char *bytes;                 /* as it is given to the log */
    struct kafka_batch head;     /* of orig */
    struct append a;
    struct client *client;       /* whose done() it is; NULL: nobody's */
    int64_t base;                /* where it is, as somebody was told or has read; -1 */
    bool waits;                  /* in the log's hands */
    bool ok;                     /* the last time it was sent it succeeded */
    bool refused;                /* each time it was sent the log said for certain that it is not there */
    bool marker;
    enum kafka_marker says;
    uint32_t scan;               /* the last scan that found it */
};

/* A batch that is known to be somewhere. */
struct known {
    int64_t base, end;
    uint64_t id;
    int32_t epoch;
};

struct power_part {
    struct part *p;
    uint32_t shard;
    char name[16];
    struct part_conf conf;
    struct known *log;           /* ascending; without what was lost */
    uint32_t log_n, log_cap;
    int64_t durable;             /* all known before it must be there after anything */
    int64_t start, start_max;    /* the log's start: what was told, and what was asked for without an answer */
    int64_t high;                /* high watermark of this life, as somebody was told */
    int32_t epoch;               /* leader epoch of this life */
};

struct power {
    uint64_t seed;
    struct sent **sent;          /* by number; the first is unused, a marker of 0 says nothing */
    uint32_t sent_n, sent_cap;
    struct power_part parts[POWER_PARTS];
    /* since partitions were last compared with the model */
    bool faulty;                 /* operations failed on request: what was not durable may go in any crash */
    bool power;                  /* a loss of power */
    bool clean;                  /* no crash at all: it was stopped */
    uint32_t scans, reads, lookups, lost, found; /* how often; batches that were lost, and found though nobody was told */
};
extern struct power P;

/* Ends the test with the seed and what is wrong. */
#define POWER_FAIL(...) power_fail(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void power_fail(const char *file, int line, const char *fmt, ...) PRINTF_LIKE(3, 4);
#define POWER_CHECK(x) ((x) ? (void)0 : POWER_FAIL("does not hold: %s", #x))

uint64_t power_random(uint64_t n);               /* 0 to n - 1 */
bool power_chance(uint64_t of, uint64_t in);

void power_model_init(uint64_t seed);
void power_model_fini(void);
/* A batch of records for a partition; head gives producer and attributes. */
struct sent *power_batch(uint32_t part, const struct kafka_batch *head);
struct sent *power_marker(uint32_t part, const struct kafka_batch *head, enum kafka_marker says);
/* What an append said, while the process that sent it lives. */
void power_told(struct sent *s);
/* Everything about a partition that was just opened: compares what is there with what must and may be, and takes it over. */
void power_verify(uint32_t part);
/* While it serves: some bytes at a random place, and a look-up. */
void power_read_some(uint32_t part);

#endif
