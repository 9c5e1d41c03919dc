/* producer_ids.c - producer ids for idempotent and transactional producers: each shard gives them out of a block that the controller has made durable.
 *
 *     producer_id_get() -- the block has one --> done()
 *                       -- it is empty --> waits; one producer_id_block() is under way, its ids serve those who wait
 *
 * What is left of a block when the process ends is never given out: there are 2^63.
 */
#include "txn_int.h"

#define WAITING_MAX 10000u

struct producer_ids {
    int64_t next, end;             /* of the block */
    struct list waiting;           /* struct producer_id_wait */
    uint32_t waiting_n;
    struct id_block block;         /* the request to the controller */
    bool asking;                   /* it is under way */
};

struct producer_ids *producer_ids_new(void)
{
    struct producer_ids *ids = mem_new(MEM_BROKER, sizeof *ids);
    list_init(&ids->waiting);
    return ids;
}

void producer_ids_free(struct producer_ids *ids) { mem_free(ids); }

static void ids_ask(struct shard *here);

static void ids_came(struct shard *here, struct id_block *b)
{
    struct producer_ids *ids = here->txns->ids;
    ids->asking = false;
    if (b->error == KAFKA_NONE) {
        ids->next = b->first;
        ids->end = b->first + PRODUCER_ID_BLOCK;
    }
    while (!list_empty(&ids->waiting) && (b->error != KAFKA_NONE || ids->next < ids->end)) {
        struct producer_id_wait *w = CONTAINER_OF(ids->waiting.next, struct producer_id_wait, link);
        list_del(&w->link);
        ids->waiting_n--;
        w->error = b->error;
        w->id = b->error == KAFKA_NONE ? ids->next++ : -1;
        w->done(here, w);
    }
    if (!list_empty(&ids->waiting))
        ids_ask(here);
}

static void ids_ask(struct shard *here)
{
    struct producer_ids *ids = here->txns->ids;
    if (ids->asking)
        return;
    ids->asking = true;
    ids->block = (struct id_block){.from = here, .done = ids_came};
    producer_id_block(here, &ids->block);
}

void producer_id_get(struct shard *here, struct producer_id_wait *w)
{
    struct producer_ids *ids = here->txns->ids;
    w->error = KAFKA_NONE;
    w->id = -1;
    if (ids->next < ids->end && list_empty(&ids->waiting)) {
        w->id = ids->next++;
        w->done(here, w);
    } else if (ids->waiting_n >= WAITING_MAX) {
        w->error = KAFKA_COORDINATOR_LOAD_IN_PROGRESS;
        w->done(here, w);
    } else {
        list_push(&ids->waiting, &w->link);
        ids->waiting_n++;
        ids_ask(here);
    }
}
