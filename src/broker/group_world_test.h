/* group_world_test.h - members of consumer groups for tests, on top of broker_world_test.h: one call is one request and its answer. */
#ifndef GROUP_WORLD_TEST_H
#define GROUP_WORLD_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker_world_test.h"
#include "group_int.h"

/* A member as its client sees it. */
struct tm {
    struct client *c;
    const char *group;
    char id[256], instance[64];   /* instance "": dynamic */
    int32_t generation, session_ms, rebalance_ms;
    const char *protocols[4];     /* names, preferred first, up to a NULL; default "range" */
    const char *topics;           /* "a,b": the subscription in the metadata; NULL: the metadata is "m" */
    int16_t join_version;         /* default 9 */
    int32_t join_id, sync_id;     /* of requests under way */
    bool leads, skip;
    char protocol[64];
    char assignment[256];
};
void tm_init(struct tm *m, uint32_t shard, const char *group);
void tm_free(struct tm *m);
/* Until the coordinator is there and has loaded. */
void group_ready(struct client *c, const char *group);
void tm_join_send(struct tm *m);
/* The answer to what was sent: fills id, generation, leads. */
enum kafka_error tm_join_await(struct tm *m);
bool tm_join_come(struct tm *m);                  /* has it come? */
enum kafka_error tm_join(struct tm *m);           /* once: MEMBER_ID_REQUIRED is told, the id is taken */
enum kafka_error tm_enter(struct tm *m);          /* with its second round, if that is asked for */
/* Assignments by the leader: "id=bytes" is made for each of the n members; followers: n 0. */
void tm_sync_send(struct tm *m, struct tm *const *all, const char *const *bytes, int n);
enum kafka_error tm_sync_await(struct tm *m);
bool tm_sync_come(struct tm *m);
enum kafka_error tm_sync(struct tm *m, struct tm *const *all, const char *const *bytes, int n);
enum kafka_error tm_heartbeat(struct tm *m);
enum kafka_error tm_leave(struct tm *m);
/* n members that have not joined become Stable; the first leads. Each has assignment "a<i>". */
void tm_settle(struct tm *all, int n);
/* generation, id as in m; m->generation -1 and id "" for a simple consumer. */
enum kafka_error tm_commit(struct tm *m, const char *topic, int32_t partition, int64_t offset, const char *metadata);
/* -1: none; errors are told as -100 - code. metadata: into a buffer of 5000, may be NULL. */
int64_t tm_fetch(struct tm *m, const char *topic, int32_t partition, bool stable, char *metadata);
const char *tm_state(struct client *c, const char *group); /* by DescribeGroups; "" with an error */
const struct kafka_describe_groups_resp_described_group *tm_describe(struct client *c, const char *group);

#endif
