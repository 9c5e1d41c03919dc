/* linear_clients_test.c - what clients ask, and what their answers are to the models: linear_clients_test.h. */
#include "linear_clients_test.h"

#include <stdio.h>

uint32_t roll(struct life *l, uint32_t n)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return (uint32_t)((l->random >> 11) % n);
}

/* ---- asking ----------------------------------------------------------------------------------------------------------------- */

static struct slice text_of(struct client *c, int i, const char *what, int number)
{
    snprintf(c->text[i], sizeof c->text[i], "%.8s%03d", what, number);
    return slice_cstr(c->text[i]);
}

static struct slice value_of(struct client *c, int i, int number)
{
    snprintf(c->text[i], sizeof c->text[i], "%d", number);
    return slice_cstr(c->text[i]);
}

static struct ctl_op prefix_op(const char *from, const char *to)
{
    struct ctl_op op = {.kind = CTL_RANGE, .range = {.key = slice_cstr(from), .end = slice_cstr(to)}};
    return op;
}

static struct ctl_op register_ask(struct client *c)
{
    struct life *l = c->life;
    uint32_t what = roll(l, 10);
    c->op = (struct lin_op){.kind = LIN_REGISTER, .key = roll(l, REGISTERS), .a = 1 + (int32_t)roll(l, 4), .b = 1 + (int32_t)roll(l, 4)};
    struct slice key = text_of(c, 0, "r/", (int)c->op.key);
    if (what < 4) {
        c->op.what = LIN_READ;
        return (struct ctl_op){.kind = CTL_RANGE, .range = {.key = key}};
    }
    if (what < 7) {
        c->op.what = LIN_WRITE;
        return (struct ctl_op){.kind = CTL_PUT, .put = {.key = key, .value = value_of(c, 1, c->op.a), .prev_kv = true}};
    }
    if (what < 8) {
        c->op.what = LIN_CLEAR;
        return (struct ctl_op){.kind = CTL_DELETE, .del = {.key = key}};
    }
    c->op.what = LIN_CAS;
    c->compare = (struct ctl_compare){.key = key, .target = CTL_TARGET_VALUE, .result = CTL_EQUAL, .value = value_of(c, 1, c->op.a)};
    c->ops[0] = (struct ctl_op){.kind = CTL_PUT, .put = {.key = key, .value = value_of(c, 2, c->op.b)}};
    return (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = &c->compare, .compares_n = 1, .then_ops = c->ops, .then_n = 1}};
}

static struct ctl_op set_ask(struct client *c)
{
    struct life *l = c->life;
    uint32_t what = roll(l, 10);
    c->op = (struct lin_op){.kind = LIN_SET, .a = (int32_t)roll(l, SET_MEMBERS), .b = (int32_t)roll(l, SET_MEMBERS)};
    if (what < 3) {
        c->op.what = LIN_MEMBERS;
        return prefix_op("s/", "s0");
    }
    struct slice key = text_of(c, 0, "s/", c->op.a);
    struct ctl_op add = {.kind = CTL_PUT, .put = {.key = key, .value = SLICE("in"), .prev_kv = true}}, del = {.kind = CTL_DELETE, .del = {.key = key}};
    if (what < 6 || c->op.a == c->op.b) {
        c->op.what = LIN_ADD;
        return add;
    }
    if (what < 8) {
        c->op.what = LIN_REMOVE;
        return del;
    }
    c->op.what = LIN_MOVE;
    add.put.key = text_of(c, 1, "s/", c->op.b);
    c->ops[0] = del;
    c->ops[1] = add;
    return (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = c->ops, .then_n = 2}};
}

static struct ctl_op list_ask(struct client *c)
{
    struct life *l = c->life;
    c->op = (struct lin_op){.kind = LIN_LIST};
    if (roll(l, 3) == 0 || l->appended == LIST_MAX) {
        c->op.what = LIN_ITEMS;
        struct ctl_op op = prefix_op("l/", "l0");
        op.range.order = CTL_SORT_ASCEND;
        op.range.target = CTL_SORT_CREATE;
        return op;
    }
    c->op.what = LIN_APPEND;
    c->op.a = (int32_t)l->appended++;
    return (struct ctl_op){.kind = CTL_PUT, .put = {.key = text_of(c, 0, "l/", c->op.a), .value = SLICE("x")}};
}

static struct ctl_op lease_ask(struct client *c)
{
    struct life *l = c->life;
    static const enum lin_what whats[] = {LIN_GRANT, LIN_GRANT, LIN_REVOKE, LIN_KEEP, LIN_HANG, LIN_HANG, LIN_HANG, LIN_PUT, LIN_KEYS, LIN_KEYS, LIN_KEYS};
    c->op = (struct lin_op){.kind = LIN_LEASE, .what = whats[roll(l, COUNT_OF(whats))], .key = roll(l, LEASES), .a = (int32_t)roll(l, LEASE_KEYS)};
    int64_t id = c->op.key + 1;
    snprintf(c->text[1], sizeof c->text[1], "h%u/", c->op.key);
    snprintf(c->text[2], sizeof c->text[2], "h%u0", c->op.key);
    struct ctl_put put = {.key = text_of(c, 0, c->text[1], c->op.a), .value = SLICE("x")};
    switch (c->op.what) {
    case LIN_GRANT: return (struct ctl_op){.kind = CTL_LEASE_GRANT, .lease = {.id = id, .ttl_s = LEASE_TTL_S}};
    case LIN_REVOKE: return (struct ctl_op){.kind = CTL_LEASE_REVOKE, .lease = {.id = id}};
    case LIN_KEEP: return (struct ctl_op){.kind = CTL_LEASE_KEEP, .lease = {.id = id}};
    case LIN_HANG: put.lease = id; return (struct ctl_op){.kind = CTL_PUT, .put = put};
    case LIN_PUT: return (struct ctl_op){.kind = CTL_PUT, .put = put};
    default: return prefix_op(c->text[1], c->text[2]);
    }
}

static void client_done(struct ctl_call *call);

static uint64_t tick_next(struct life *l);

static void client_submit(struct client *c, struct ctl_op op)
{
    c->op.asked = tick_next(c->life);
    c->op.result = LIN_UNTOLD;
    c->asked_ms = loop_now_ms(c->life->loop);
    c->call = (struct ctl_call){.op = op, .done = client_done};
    c->busy = true;
    ctl_submit(c->life->ctl, &c->call);
}

static void client_ask(struct client *c)
{
    struct life *l = c->life;
    uint32_t kind = roll(l, 10);
    l->calls++;
    struct ctl_op op = kind < 4 ? register_ask(c) : kind < 6 ? set_ask(c) : kind < 8 ? list_ask(c) : lease_ask(c);
    client_submit(c, op);
}

static void client_rested(struct timer *t)
{
    struct client *c = CONTAINER_OF(t, struct client, rest);
    if (c->life->over || c->life->calls >= CALLS) return;
    if (c->life->ctl && !c->life->reopen) client_ask(c);
    else timer_set(c->life->loop, &c->rest, 1 + roll(c->life, c->life->rest_ms));
}

/* ---- answers -------------------------------------------------------------------------------------------------------------------- */

/* The number behind the last '/'. */
static uint8_t number_of(struct slice key)
{
    uint64_t v;
    while (slice_find(key, '/') >= 0) (void)slice_cut(key, '/', &key);
    assert_int_equal(slice_u64(key, UINT8_MAX, &v), OK);
    return (uint8_t)v;
}

static int64_t value_number(struct slice value)
{
    uint64_t v;
    assert_int_equal(slice_u64(value, 100, &v), OK);
    return (int64_t)v;
}

static void list_take(struct lin_op *op, const struct ctl_range_result *r, uint8_t *list)
{
    op->list = list;
    assert_true(r->n <= LIN_STATE_BYTES && r->count == (int64_t)r->n);
    for (size_t i = 0; i < r->n; i++) {
        uint8_t n = number_of(r->kvs[i].key);
        list[op->list_n++] = op->kind == LIN_LEASE ? (uint8_t)(2 * n + (r->kvs[i].lease != 0)) : n;
    }
}

/* What was answered, as the models have it. */
static void result_take(struct lin_op *op, const struct ctl_call *call, uint8_t *list)
{
    const struct ctl_op_result *r = &call->result;
    switch (op->what) {
    case LIN_READ: op->result = r->range.n ? value_number(r->range.kvs[0].value) : 0; return;
    case LIN_WRITE: op->result = r->put.has_prev ? value_number(r->put.prev.value) : 0; return;
    case LIN_ADD: op->result = r->put.has_prev; return;
    case LIN_CLEAR:
    case LIN_REMOVE: op->result = r->del.deleted; return;
    case LIN_MOVE: op->result = r->txn.ops[0].del.deleted; return;
    case LIN_CAS: op->result = r->txn.succeeded; return;
    case LIN_MEMBERS:
    case LIN_ITEMS:
    case LIN_KEYS: list_take(op, &r->range, list); return;
    case LIN_GRANT:
    case LIN_REVOKE:
    case LIN_HANG: op->result = 1; return;
    case LIN_KEEP: op->result = r->lease.ttl_s > 0; return;
    default: return;
    }
}

/* A tick; in front of it, those leases' time is over whose time is over now. */
static uint64_t tick_next(struct life *l)
{
    for (uint32_t i = 0; i < l->expiries_n;) {
        struct expiry *x = &l->expiries[i];
        if (loop_now_ms(l->loop) < x->due_ms) {
            i++;
            continue;
        }
        lin_add(&l->h, &(struct lin_op){.kind = LIN_LEASE, .what = LIN_EXPIRE, .key = x->lease, .asked = ++l->tick, .answered = LIN_OPEN});
        *x = l->expiries[--l->expiries_n];
    }
    return ++l->tick;
}

/* A lease that was granted has its time from when that was asked for. One that was kept alive has its time from then; what was granted before that was
 * asked for is this lease, or is gone already. */
static void expiry_note(struct client *c)
{
    struct life *l = c->life;
    uint64_t due_ms = c->asked_ms + LEASE_TTL_S * 1000;
    if (c->op.what == LIN_GRANT && c->op.result != 0) l->expiries[l->expiries_n++] = (struct expiry){due_ms, c->op.answered, c->op.key};
    if (c->op.what != LIN_KEEP || c->op.result != 1) return;
    for (uint32_t i = 0; i < l->expiries_n; i++)
        if (l->expiries[i].lease == c->op.key && l->expiries[i].granted < c->op.asked) l->expiries[i].due_ms = MAX(l->expiries[i].due_ms, due_ms);
}

static bool changes(const struct lin_op *op) { return op->what != LIN_READ && op->what != LIN_MEMBERS && op->what != LIN_ITEMS && op->what != LIN_KEYS; }

static void client_done(struct ctl_call *call)
{
    struct client *c = CONTAINER_OF(call, struct client, call);
    struct life *l = c->life;
    uint8_t list[LIN_STATE_BYTES];
    enum ctl_error e = call->error;
    bool dead = l->dead && l->dead();
    c->busy = false;
    c->op.answered = tick_next(l);
    if (e == CTL_UNKNOWN || (dead && (e == CTL_OK || e == CTL_LEASE_EXISTS || e == CTL_LEASE_NOT_FOUND))) {
        c->op.answered = LIN_OPEN; /* nobody heard it */
        l->unknown++;
        if (changes(&c->op)) lin_add(&l->h, &c->op);
    } else if (e == CTL_OK) {
        result_take(&c->op, call, list);
        lin_add(&l->h, &c->op);
    } else if (e == CTL_LEASE_EXISTS || e == CTL_LEASE_NOT_FOUND) {
        c->op.result = 0;
        lin_add(&l->h, &c->op);
    } else {
        if (!dead && !l->refused(e)) fail_msg("%s", call->why);
    }
    if (e == CTL_OK || c->op.answered == LIN_OPEN) expiry_note(c);
    if (l->answered) l->answered(l, e);
    if (!l->over) timer_set(l->loop, &c->rest, roll(l, l->rest_ms));
}

/* ---- the life -------------------------------------------------------------------------------------------------------------------- */

bool life_is_quiet(void *ctx)
{
    const struct life *l = ctx;
    for (int i = 0; i < CLIENTS; i++)
        if (l->clients[i].busy) return false;
    return true;
}

bool life_read(struct life *l, uint32_t i)
{
    struct client *c = &l->clients[0];
    struct ctl_op op;
    if (i >= REGISTERS + 2 + LEASES) return false;
    if (i < REGISTERS) {
        c->op = (struct lin_op){.kind = LIN_REGISTER, .what = LIN_READ, .key = i};
        op = (struct ctl_op){.kind = CTL_RANGE, .range = {.key = text_of(c, 0, "r/", (int)i)}};
    } else if (i < REGISTERS + 2) {
        bool set = i == REGISTERS;
        c->op = (struct lin_op){.kind = set ? LIN_SET : LIN_LIST, .what = set ? LIN_MEMBERS : LIN_ITEMS};
        op = set ? prefix_op("s/", "s0") : prefix_op("l/", "l0");
        if (!set) op.range.target = CTL_SORT_CREATE;
    } else {
        c->op = (struct lin_op){.kind = LIN_LEASE, .what = LIN_KEYS, .key = i - REGISTERS - 2};
        snprintf(c->text[1], sizeof c->text[1], "h%u/", c->op.key);
        snprintf(c->text[2], sizeof c->text[2], "h%u0", c->op.key);
        op = prefix_op(c->text[1], c->text[2]);
    }
    client_submit(c, op);
    return true;
}

void life_start(struct life *l)
{
    lin_init(&l->h);
    for (int i = 0; i < CLIENTS; i++) {
        l->clients[i].life = l;
        timer_init(&l->clients[i].rest, client_rested);
        timer_set(l->loop, &l->clients[i].rest, roll(l, l->rest_ms));
    }
}

void life_fini(struct life *l)
{
    for (int i = 0; i < CLIENTS; i++) timer_clear(&l->clients[i].rest);
    lin_fini(&l->h);
}

void life_judge(struct life *l, uint64_t seed, bool tells, struct lives *all)
{
    struct buf why = {0};
    if (lin_check(&l->h, &why) != LIN_YES) {
        for (size_t i = 0; tells && i < l->h.n; i++) lin_write(&l->h.ops[i], &why);
        fail_msg("life %llu: %s", (unsigned long long)seed, why.p);
    }
    buf_free(&why);
    all->ops += l->h.n;
    all->open += l->unknown;
    all->crashes += l->crashes;
}
