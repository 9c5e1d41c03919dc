/* engine_tickets.c - the keys of TLS session tickets: one set for all workers and every plan, rotated by time.
 *
 *     tickets_adopt() --.                        .--> plan_memory --> every TLS context of every plan
 *     (sup kept them)    '--> tickets_start() --+
 *                              ^                '--> sup_keep(), for the engine that comes after this one
 *                              '--- timer: the current key is old enough
 *
 * They are in the memory of the engine and of sup, and never in a file. An engine that has made way for another rotates no more: its
 * tickets would be worth nothing to the other one.
 */
#include "engine_int.h"

static void tickets_keep(struct engine *e)
{
    struct buf b = {0};
    tls_tickets_export(plan_memory_tickets(e->memory), &b);
    sup_keep(e->sup, buf_slice(&b));
    buf_wipe(&b);
}

static void tickets_turn(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, ticket_timer);
    if (!e->run || e->hand == HAND_RELEASING)
        return; /* not in charge; tickets_start() when it is again */
    struct tls_tickets *keys = plan_memory_tickets(e->memory);
    uint64_t before_ms = tls_tickets_rotated_ms(keys);
    uint64_t due_ms = tls_tickets_refresh(keys, wall_ns() / 1000000, e->conf.ticket_ms);
    if (tls_tickets_rotated_ms(keys) != before_ms) {
        e->ticket_rotations++;
        tickets_keep(e);
    }
    timer_set(e->loop, t, due_ms);
}

void tickets_init(struct engine *e) { timer_init(&e->ticket_timer, tickets_turn); }

void tickets_adopt(struct engine *e, struct slice bytes)
{
    struct tls_tickets *t;
    if (e->tickets_adopted)
        return; /* in charge again: what its contexts use stays */
    if (tls_tickets_import(bytes, &t) != OK) {
        log_warn("engine", "the session ticket keys of the engine before can't be read; clients begin new TLS sessions");
        return;
    }
    plan_memory_tickets_set(e->memory, t);
    tls_tickets_unref(t);
    e->tickets_adopted = true;
}

void tickets_start(struct engine *e)
{
    e->tickets_adopted = true;
    tickets_keep(e);
    tickets_turn(&e->ticket_timer);
}
