/* ctl_scenarios_test.c - what every engine of the control store has to show: etcd's semantics, one by one, through the interface alone.
 *
 * Revisions are compared with each other, never with numbers: an engine's store need not begin at 1. All keys begin with "t/", and are gone when a scenario begins.
 */
#include "ctl_world_test.h"

#include <stdio.h>

static void expect_get(struct world *w, struct ctl_range range, const char *want)
{
    struct answer a;
    assert_string_equal(get(w, &a, range), want);
    answer_fini(&a);
}

static void expect_error(struct world *w, struct ctl_op op, enum ctl_error want)
{
    struct answer a;
    assert_int_equal(do_op(w, &a, op), want);
    assert_true(a.call.why[0] != '\0');
    answer_fini(&a);
}

static void expect_ok(struct world *w, struct ctl_op op)
{
    struct answer a;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    answer_fini(&a);
}

static int64_t revision_now(struct world *w)
{
    struct answer a;
    assert_int_equal(do_op(w, &a, op_get("t/")), CTL_OK);
    answer_fini(&a);
    return a.call.revision;
}

static struct ctl_kv kv_of(struct world *w, struct answer *a, const char *key)
{
    assert_int_equal(do_op(w, a, op_get(key)), CTL_OK);
    assert_int_equal(a->call.result.range.n, 1);
    return a->call.result.range.kvs[0];
}

static void clear(struct world *w) { expect_ok(w, op_delete("t/", "t0")); }

#define ALL .key = SLICE("t/"), .end = SLICE("t0")

/* ---- keys ---- */

static void test_revisions(void **state)
{
    struct world *w = *state;
    struct answer a;
    int64_t start = revision_now(w);
    int64_t r1 = put(w, "t/a", "1"), r2 = put(w, "t/b", "1"), r3 = put(w, "t/a", "2");
    assert_true(r1 == start + 1 && r2 == r1 + 1 && r3 == r2 + 1);
    struct ctl_kv k = kv_of(w, &a, "t/a");
    assert_true(k.create_revision == r1 && k.mod_revision == r3 && k.version == 2 && k.lease == 0 && slice_is(k.value, "2"));
    answer_fini(&a);
    /* A deletion of nothing makes no revision; one of several keys makes one. */
    assert_int_equal(do_op(w, &a, op_delete("t/x", "")), CTL_OK);
    assert_true(a.call.result.del.deleted == 0 && a.call.revision == r3);
    answer_fini(&a);
    struct ctl_op op = op_delete("t/", "t0");
    op.del.prev_kv = true;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_true(a.call.result.del.deleted == 2 && a.call.revision == r3 + 1 && a.call.result.del.prev_n == 2);
    assert_true(slice_is(a.call.result.del.prev[0].key, "t/a") && a.call.result.del.prev[0].version == 2);
    answer_fini(&a);
    /* A key that was deleted begins anew. */
    int64_t r4 = put(w, "t/a", "3");
    k = kv_of(w, &a, "t/a");
    assert_true(k.create_revision == r4 && k.version == 1);
    answer_fini(&a);
}

static void test_put_options(void **state)
{
    struct world *w = *state;
    struct answer a;
    clear(w);
    struct ctl_op op = op_put("t/a", "");
    op.put.ignore_value = true;
    expect_error(w, op, CTL_KEY_NOT_FOUND);
    op.put.value = SLICE("x");
    expect_error(w, op, CTL_VALUE_PROVIDED);
    expect_error(w, op_put("", "x"), CTL_EMPTY_KEY);
    op = op_put("t/a", "x");
    op.put.lease = 77777;
    expect_error(w, op, CTL_LEASE_NOT_FOUND);
    op.put.ignore_lease = true;
    expect_error(w, op, CTL_LEASE_PROVIDED);
    op = op_put("t/a", "one");
    op.put.prev_kv = true;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_false(a.call.result.put.has_prev);
    answer_fini(&a);
    op = op_put("t/a", "");
    op.put.ignore_value = op.put.prev_kv = true;
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_true(a.call.result.put.has_prev && slice_is(a.call.result.put.prev.value, "one") && a.call.result.put.prev.version == 1);
    answer_fini(&a);
    struct ctl_kv k = kv_of(w, &a, "t/a");
    assert_true(slice_is(k.value, "one") && k.version == 2);
    answer_fini(&a);
    /* Keys and values are bytes. */
    op = (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_of("t/\0\xff", 4), .value = slice_of("\0\0", 2)}};
    expect_ok(w, op);
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_RANGE, .range = {.key = slice_of("t/\0\xff", 4)}}), CTL_OK);
    assert_true(a.call.result.range.n == 1 && a.call.result.range.kvs[0].value.n == 2);
    answer_fini(&a);
}

/* ---- ranges ---- */

static void test_ranges(void **state)
{
    struct world *w = *state;
    struct answer a;
    clear(w);
    put(w, "t/a", "5");
    put(w, "t/ab", "4");
    put(w, "t/b", "3");
    put(w, "t/c", "2");
    int64_t r5 = put(w, "t/a", "6");
    expect_get(w, (struct ctl_range){ALL}, "t/a=6 t/ab=4 t/b=3 t/c=2");
    expect_get(w, (struct ctl_range){.key = SLICE("t/a")}, "t/a=6");
    expect_get(w, (struct ctl_range){.key = SLICE("t/a"), .end = SLICE("t/b")}, "t/a=6 t/ab=4");
    expect_get(w, (struct ctl_range){.key = SLICE("t/b"), .end = SLICE("t/b")}, "");
    expect_get(w, (struct ctl_range){.key = SLICE("t/c"), .end = SLICE("t/a")}, "");
    expect_get(w, (struct ctl_range){.key = SLICE("t/b"), .end = slice_of("\0", 1)}, "t/b=3 t/c=2");
    expect_get(w, (struct ctl_range){ALL, .limit = 2}, "t/a=6 t/ab=4 more");
    expect_get(w, (struct ctl_range){ALL, .limit = 4}, "t/a=6 t/ab=4 t/b=3 t/c=2");
    expect_get(w, (struct ctl_range){ALL, .keys_only = true, .limit = 1}, "t/a= more");
    expect_get(w, (struct ctl_range){ALL, .order = CTL_SORT_DESCEND}, "t/c=2 t/b=3 t/ab=4 t/a=6");
    expect_get(w, (struct ctl_range){ALL, .order = CTL_SORT_DESCEND, .limit = 1}, "t/c=2 more");
    expect_get(w, (struct ctl_range){ALL, .target = CTL_SORT_VALUE}, "t/c=2 t/b=3 t/ab=4 t/a=6");
    expect_get(w, (struct ctl_range){ALL, .target = CTL_SORT_MOD, .order = CTL_SORT_ASCEND}, "t/ab=4 t/b=3 t/c=2 t/a=6");
    expect_get(w, (struct ctl_range){ALL, .target = CTL_SORT_CREATE, .order = CTL_SORT_DESCEND}, "t/c=2 t/b=3 t/ab=4 t/a=6");
    expect_get(w, (struct ctl_range){ALL, .target = CTL_SORT_VERSION, .order = CTL_SORT_DESCEND, .limit = 1}, "t/a=6 more");
    expect_get(w, (struct ctl_range){ALL, .min_mod_revision = r5}, "t/a=6");
    expect_get(w, (struct ctl_range){ALL, .max_mod_revision = r5 - 1}, "t/ab=4 t/b=3 t/c=2");
    expect_get(w, (struct ctl_range){ALL, .min_create_revision = r5 - 2, .limit = 1}, "t/b=3 more");
    expect_get(w, (struct ctl_range){ALL, .max_create_revision = r5 - 4}, "t/a=6");
    struct ctl_op op = {.kind = CTL_RANGE, .range = {ALL, .limit = 1, .max_create_revision = r5 - 4}};
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_int_equal(a.call.result.range.count, 4); /* whatever was left out */
    answer_fini(&a);
    op.range = (struct ctl_range){ALL, .count_only = true};
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_true(a.call.result.range.count == 4 && a.call.result.range.n == 0);
    answer_fini(&a);
    op.range = (struct ctl_range){ALL, .order = (enum ctl_sort_order)7};
    expect_error(w, op, CTL_INVALID_SORT);
    expect_error(w, op_get(""), CTL_EMPTY_KEY);
    expect_error(w, op_delete("", ""), CTL_EMPTY_KEY);
}

static void test_prefix(void **state)
{
    char out[8];
    assert_true(slice_is(ctl_prefix_end(SLICE("ab"), out), "ac"));
    assert_true(slice_eq(ctl_prefix_end(slice_of("a\xff", 2), out), SLICE("b")));
    assert_true(slice_eq(ctl_prefix_end(slice_of("\xff\xff", 2), out), slice_of("\0", 1)));
    assert_true(slice_eq(ctl_prefix_end(slice_of("", 0), out), slice_of("\0", 1)));
}

static void test_past(void **state)
{
    struct world *w = *state;
    clear(w);
    int64_t r1 = put(w, "t/a", "1");
    int64_t r2 = put(w, "t/b", "1");
    int64_t r3 = put(w, "t/a", "2");
    expect_ok(w, op_delete("t/b", ""));
    int64_t r5 = put(w, "t/c", "3");
    expect_get(w, (struct ctl_range){ALL, .revision = r1}, "t/a=1");
    expect_get(w, (struct ctl_range){ALL, .revision = r2}, "t/a=1 t/b=1");
    expect_get(w, (struct ctl_range){ALL, .revision = r3}, "t/a=2 t/b=1");
    expect_get(w, (struct ctl_range){ALL, .revision = r3 + 1}, "t/a=2");
    expect_get(w, (struct ctl_range){ALL, .revision = r5}, "t/a=2 t/c=3");
    expect_get(w, (struct ctl_range){.key = SLICE("t/a"), .revision = r2}, "t/a=1");
    expect_get(w, (struct ctl_range){.key = SLICE("t/b"), .end = slice_of("\0", 1), .revision = r2}, "t/b=1");
    expect_get(w, (struct ctl_range){ALL, .revision = r2, .limit = 1}, "t/a=1 more");
    expect_get(w, (struct ctl_range){ALL, .revision = r2, .order = CTL_SORT_DESCEND}, "t/b=1 t/a=1");
    struct ctl_op op = {.kind = CTL_RANGE, .range = {ALL, .revision = r5 + 1}};
    expect_error(w, op, CTL_FUTURE_REVISION);
    /* In a transaction, beside changes. */
    struct ctl_op ops[] = {op_put("t/a", "9"), {.kind = CTL_RANGE, .range = {ALL, .revision = r2}}, {.kind = CTL_RANGE, .range = {ALL, .revision = r5}},
                           {.kind = CTL_RANGE, .range = {ALL}}};
    struct answer a;
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = 4}}), CTL_OK);
    const struct ctl_op_result *r = a.call.result.txn.ops;
    assert_true(r[1].range.n == 2 && slice_is(r[1].range.kvs[0].value, "1") && slice_is(r[1].range.kvs[1].key, "t/b"));
    assert_true(r[2].range.n == 2 && slice_is(r[2].range.kvs[0].value, "2"));
    assert_true(r[3].range.n == 2 && slice_is(r[3].range.kvs[0].value, "9"));
    answer_fini(&a);
}

static void test_compact(void **state)
{
    struct world *w = *state;
    clear(w);
    int64_t r1 = put(w, "t/a", "1");
    put(w, "t/b", "1");
    int64_t r3 = put(w, "t/a", "2");
    expect_ok(w, op_delete("t/b", ""));
    int64_t r5 = put(w, "t/a", "3");
    struct ctl_op compact = {.kind = CTL_COMPACT, .compact = r5 + 1};
    expect_error(w, compact, CTL_FUTURE_REVISION);
    compact.compact = r3;
    expect_ok(w, compact);
    expect_error(w, compact, CTL_COMPACTED);
    compact.compact = r1;
    expect_error(w, compact, CTL_COMPACTED);
    expect_error(w, (struct ctl_op){.kind = CTL_RANGE, .range = {ALL, .revision = r3 - 1}}, CTL_COMPACTED);
    expect_get(w, (struct ctl_range){ALL, .revision = r3}, "t/a=2 t/b=1");
    expect_get(w, (struct ctl_range){ALL, .revision = r3 + 1}, "t/a=2");
    struct ctl_op op = {.kind = CTL_RANGE, .range = {ALL, .revision = r3 - 1}};
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = &op, .then_n = 1}}, CTL_COMPACTED);
    compact.compact = r5;
    expect_ok(w, compact);
    expect_get(w, (struct ctl_range){ALL}, "t/a=3");
    expect_get(w, (struct ctl_range){ALL, .revision = r5}, "t/a=3");
}

/* ---- transactions ---- */

static bool txn(struct world *w, struct ctl_compare c, enum ctl_error want)
{
    struct answer a;
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = &c, .compares_n = 1}}), want);
    answer_fini(&a);
    return want == CTL_OK && a.call.result.txn.succeeded;
}

static void test_compare(void **state)
{
    struct world *w = *state;
    clear(w);
    int64_t r1 = put(w, "t/a", "m");
    int64_t r2 = put(w, "t/a", "n");
    put(w, "t/b", "n");
    static const enum ctl_compare_result results[] = {CTL_EQUAL, CTL_GREATER, CTL_LESS, CTL_NOT_EQUAL};
    static const int64_t off[] = {0, -1, 1, 1};
    struct { enum ctl_compare_target target; int64_t is; } numbers[] = {
        {CTL_TARGET_VERSION, 2}, {CTL_TARGET_CREATE, r1}, {CTL_TARGET_MOD, r2}, {CTL_TARGET_LEASE, 0}};
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        for (size_t j = 0; j < 4; j++)
            for (int64_t d = -1; d <= 1; d++) {
                struct ctl_compare c = {.key = SLICE("t/a"), .target = numbers[i].target, .result = results[j], .number = numbers[i].is + d};
                bool holds = off[j] == d || (results[j] == CTL_NOT_EQUAL && d == -1);
                assert_int_equal(txn(w, c, CTL_OK), holds);
            }
    struct ctl_compare c = {.key = SLICE("t/a"), .target = CTL_TARGET_VALUE, .result = CTL_EQUAL, .value = SLICE("n")};
    assert_true(txn(w, c, CTL_OK));
    c.result = CTL_GREATER;
    assert_false(txn(w, c, CTL_OK));
    c.value = SLICE("m");
    assert_true(txn(w, c, CTL_OK));
    /* All keys of a range; no key. */
    struct ctl_compare all = {ALL, .target = CTL_TARGET_VALUE, .result = CTL_EQUAL, .value = SLICE("n")};
    assert_true(txn(w, all, CTL_OK));
    all.target = CTL_TARGET_VERSION;
    all.number = 2;
    assert_false(txn(w, all, CTL_OK));
    struct ctl_compare none = {.key = SLICE("t/none"), .target = CTL_TARGET_CREATE, .result = CTL_EQUAL};
    assert_true(txn(w, none, CTL_OK));
    none.target = CTL_TARGET_VALUE;
    none.result = CTL_NOT_EQUAL;
    none.value = SLICE("x");
    assert_false(txn(w, none, CTL_OK));
    c.key = SLICE("");
    (void)txn(w, c, CTL_EMPTY_KEY);
}

static void test_txn(void **state)
{
    struct world *w = *state;
    struct answer a;
    clear(w);
    int64_t before = put(w, "t/a", "1");
    struct ctl_compare a_is_1 = {.key = SLICE("t/a"), .target = CTL_TARGET_VALUE, .result = CTL_EQUAL, .value = SLICE("1")};
    struct ctl_op inner_then[] = {op_put("t/in", "then")}, inner_else[] = {op_put("t/in", "else")};
    struct ctl_op ops[] = {op_put("t/a", "2"), op_get("t/a"), op_put("t/b", "2"), op_delete("t/c", ""),
                           {.kind = CTL_TXN, .txn = {.compares = &a_is_1, .compares_n = 1, .then_ops = inner_then, .then_n = 1, .else_ops = inner_else, .else_n = 1}}};
    struct ctl_op op = {.kind = CTL_TXN, .txn = {.compares = &a_is_1, .compares_n = 1, .then_ops = ops, .then_n = 5}};
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    const struct ctl_txn_result *r = &a.call.result.txn;
    assert_true(r->succeeded && r->n == 5 && a.call.revision == before + 1);
    assert_true(slice_is(r->ops[1].range.kvs[0].value, "2")); /* sees what came before it */
    assert_true(r->ops[3].del.deleted == 0);
    assert_true(r->ops[4].txn.succeeded); /* compared before anything was changed */
    answer_fini(&a);
    expect_get(w, (struct ctl_range){ALL}, "t/a=2 t/b=2 t/in=then");
    struct ctl_kv k = kv_of(w, &a, "t/in");
    assert_true(k.mod_revision == before + 1); /* one revision for all */
    answer_fini(&a);
    /* The other branch is empty: nothing is made. */
    assert_int_equal(do_op(w, &a, op), CTL_OK);
    assert_true(!a.call.result.txn.succeeded && a.call.result.txn.n == 0 && a.call.revision == before + 1);
    answer_fini(&a);
    /* A requirement that fails anywhere on the path: nothing of it is done. */
    struct ctl_op bad[] = {op_put("t/x", "1"), op_put("t/none", "")};
    bad[1].put.ignore_value = true;
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = bad, .then_n = 2}}, CTL_KEY_NOT_FOUND);
    expect_get(w, (struct ctl_range){.key = SLICE("t/x")}, "");
    assert_int_equal(revision_now(w), before + 1);
    /* Several changes of one key by deletion and nested ones count as one revision with its own order. */
    struct ctl_op range[] = {op_delete("t/", "t0"), op_get("t/a")};
    assert_int_equal(do_op(w, &a, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = range, .then_n = 2}}), CTL_OK);
    assert_true(a.call.result.txn.ops[0].del.deleted == 3 && a.call.result.txn.ops[1].range.n == 0);
    answer_fini(&a);
}

static void test_duplicates(void **state)
{
    struct world *w = *state;
    clear(w);
    struct ctl_op same[] = {op_put("t/a", "1"), op_put("t/a", "2")};
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = same, .then_n = 2}}, CTL_DUPLICATE_KEY);
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.else_ops = same, .else_n = 2}}, CTL_DUPLICATE_KEY);
    struct ctl_op covered[] = {op_put("t/a", "1"), op_delete("t/", "t0")};
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = covered, .then_n = 2}}, CTL_DUPLICATE_KEY);
    struct ctl_op apart[] = {op_put("t/a", "1"), op_delete("t/b", "t0"), op_delete("t/b", "t0")};
    expect_ok(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = apart, .then_n = 3}});
    /* The branches of one nested transaction exclude each other; two nested ones do not. */
    struct ctl_op a = op_put("t/a", "1");
    struct ctl_op nested[] = {{.kind = CTL_TXN, .txn = {.then_ops = &a, .then_n = 1, .else_ops = &a, .else_n = 1}},
                              {.kind = CTL_TXN, .txn = {.then_ops = &a, .then_n = 1}}};
    expect_ok(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = nested, .then_n = 1}});
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = nested, .then_n = 2}}, CTL_DUPLICATE_KEY);
    struct ctl_op over[] = {nested[0], op_delete("t/a", "")};
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = over, .then_n = 2}}, CTL_DUPLICATE_KEY);
    struct ctl_op many[129];
    for (size_t i = 0; i < COUNT_OF(many); i++) many[i] = op_get("t/a");
    expect_error(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = many, .then_n = 129}}, CTL_TOO_MANY_OPS);
    expect_ok(w, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = many, .then_n = 128}});
}

/* ---- leases ---- */

static struct ctl_op op_lease(enum ctl_kind kind, int64_t id, int64_t ttl_s)
{
    return (struct ctl_op){.kind = kind, .lease = {.id = id, .ttl_s = ttl_s, .keys = true}};
}

static void put_with(struct world *w, const char *key, int64_t lease)
{
    struct ctl_op op = op_put(key, "v");
    op.put.lease = lease;
    expect_ok(w, op);
}

static bool has_id(const struct ctl_lease_result *r, int64_t id)
{
    for (size_t i = 0; i < r->ids_n; i++)
        if (r->ids[i] == id) return true;
    return false;
}

static void test_leases(void **state)
{
    struct world *w = *state;
    struct answer a;
    clear(w);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_GRANT, 0, 100)), CTL_OK);
    int64_t id = a.call.result.lease.id;
    assert_true(id != 0 && a.call.result.lease.ttl_s == 100);
    answer_fini(&a);
    expect_ok(w, op_lease(CTL_LEASE_GRANT, 4711, 200));
    expect_error(w, op_lease(CTL_LEASE_GRANT, 4711, 200), CTL_LEASE_EXISTS);
    expect_error(w, op_lease(CTL_LEASE_GRANT, 0, 9000000001ll), CTL_LEASE_TTL_TOO_LARGE);
    put_with(w, "t/b", id);
    put_with(w, "t/a", id);
    put_with(w, "t/c", 4711);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_INFO, id, 0)), CTL_OK);
    const struct ctl_lease_result *r = &a.call.result.lease;
    assert_true(r->granted_s == 100 && r->ttl_s > 95 && r->ttl_s <= 100 && r->keys_n == 2);
    assert_true(slice_is(r->keys[0], "t/a") && slice_is(r->keys[1], "t/b"));
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_LIST, 0, 0)), CTL_OK);
    assert_true(has_id(&a.call.result.lease, id) && has_id(&a.call.result.lease, 4711));
    answer_fini(&a);
    /* A key goes over to another lease, and away from all. */
    put_with(w, "t/b", 4711);
    put(w, "t/a", "free");
    struct ctl_op keep = op_put("t/c", "kept");
    keep.put.ignore_lease = true;
    expect_ok(w, keep);
    int64_t before = revision_now(w);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_REVOKE, id, 0)), CTL_OK);
    assert_int_equal(a.call.revision, before); /* nothing hung on it */
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_REVOKE, 4711, 0)), CTL_OK);
    assert_int_equal(a.call.revision, before + 1);
    answer_fini(&a);
    expect_get(w, (struct ctl_range){ALL}, "t/a=free");
    expect_error(w, op_lease(CTL_LEASE_REVOKE, 4711, 0), CTL_LEASE_NOT_FOUND);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_INFO, 4711, 0)), CTL_OK);
    assert_int_equal(a.call.result.lease.ttl_s, -1);
    answer_fini(&a);
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_KEEP, 4711, 0)), CTL_OK);
    assert_int_equal(a.call.result.lease.ttl_s, 0);
    answer_fini(&a);
}

static void test_expiry(void **state)
{
    struct world *w = *state;
    struct answer a;
    clear(w);
    expect_ok(w, op_lease(CTL_LEASE_GRANT, 1, 2));
    expect_ok(w, op_lease(CTL_LEASE_GRANT, 2, 60));
    put_with(w, "t/a", 1);
    put_with(w, "t/b", 1);
    put_with(w, "t/c", 2);
    struct seen s = {0};
    seen_start(w, &s, &(struct ctl_watch_conf){ALL});
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_KEEP, 1, 0)), CTL_OK);
    assert_int_equal(a.call.result.lease.ttl_s, 2);
    answer_fini(&a);
    seen_wait(w, &s, 2);
    assert_string_equal(s.text.p, "-t/a -t/b |"); /* in one revision */
    seen_stop(&s);
    expect_get(w, (struct ctl_range){ALL}, "t/c=v");
    assert_int_equal(do_op(w, &a, op_lease(CTL_LEASE_KEEP, 1, 0)), CTL_OK);
    assert_int_equal(a.call.result.lease.ttl_s, 0);
    answer_fini(&a);
    expect_ok(w, op_lease(CTL_LEASE_REVOKE, 2, 0));
}

/* ---- watches ---- */

static void test_watch(void **state)
{
    struct world *w = *state;
    clear(w);
    struct seen all = {0}, one = {0}, puts = {0}, dels = {0}, tail = {0};
    int64_t r0 = revision_now(w);
    seen_start(w, &all, &(struct ctl_watch_conf){ALL, .prev_kv = true});
    seen_start(w, &one, &(struct ctl_watch_conf){.key = SLICE("t/b")});
    seen_start(w, &puts, &(struct ctl_watch_conf){ALL, .no_delete = true});
    seen_start(w, &dels, &(struct ctl_watch_conf){ALL, .no_put = true});
    seen_start(w, &tail, &(struct ctl_watch_conf){.key = SLICE("t/b"), .end = slice_of("\0", 1), .revision = r0 + 3}); /* to come */
    put(w, "t/a", "1");
    put(w, "t/a", "2");
    put(w, "t/b", "3");
    put(w, "t0", "no");
    expect_ok(w, op_delete("t/", "t0"));
    seen_wait(w, &all, 5);
    seen_wait(w, &one, 2);
    seen_wait(w, &puts, 3);
    seen_wait(w, &dels, 2);
    seen_wait(w, &tail, 3);
    assert_string_equal(all.text.p, "+t/a=1 |+t/a=2(1) |+t/b=3 |-t/a(2) -t/b(3) |");
    assert_string_equal(one.text.p, "+t/b=3 |-t/b |");
    assert_string_equal(puts.text.p, "+t/a=1 |+t/a=2 |+t/b=3 |");
    assert_string_equal(dels.text.p, "-t/a -t/b |");
    assert_string_equal(tail.text.p, "+t/b=3 |+t0=no |-t/b |");
    struct seen past = {0};
    seen_start(w, &past, &(struct ctl_watch_conf){ALL, .revision = r0 + 2, .prev_kv = true});
    seen_wait(w, &past, 4);
    assert_int_equal(past.last, r0 + 5);
    put(w, "t/c", "4");
    seen_wait(w, &past, 5);
    /* Stopped ones hear nothing. */
    ctl_watch_stop(one.watch);
    one.watch = NULL;
    size_t heard = one.events;
    put(w, "t/b", "5");
    seen_wait(w, &all, 7);
    assert_int_equal(one.events, heard);
    expect_ok(w, op_delete("t0", ""));
    struct seen *seens[] = {&all, &one, &puts, &dels, &tail, &past};
    for (size_t i = 0; i < COUNT_OF(seens); i++) seen_stop(seens[i]);
}

static bool progressed(void *ctx)
{
    struct seen *s = ctx;
    return s->messages > 0;
}

static void test_watch_progress(void **state)
{
    struct world *w = *state;
    int64_t r = put(w, "t/a", "1");
    struct seen s = {0};
    seen_start(w, &s, &(struct ctl_watch_conf){.key = SLICE("t/quiet")});
    ctl_watch_progress(s.watch);
    assert_true(w->run(w, progressed, &s, 5000));
    assert_true(s.events == 0 && s.revision >= r);
    seen_stop(&s);
}

static void test_watch_compacted(void **state)
{
    struct world *w = *state;
    clear(w);
    int64_t r1 = put(w, "t/a", "1");
    put(w, "t/a", "2");
    int64_t r3 = put(w, "t/a", "3");
    expect_ok(w, (struct ctl_op){.kind = CTL_COMPACT, .compact = r3});
    struct seen s = {0}, t = {0};
    seen_start(w, &s, &(struct ctl_watch_conf){ALL, .revision = r1});
    seen_start(w, &t, &(struct ctl_watch_conf){ALL, .revision = r3, .prev_kv = true});
    seen_wait(w, &s, 1);
    assert_true(s.ended && s.error == CTL_COMPACTED && s.compact_revision == r3 && s.events == 0);
    seen_wait(w, &t, 1);
    assert_string_equal(t.text.p, "+t/a=3 |"); /* what was before it is forgotten */
    seen_stop(&s);
    seen_stop(&t);
}

/* A slow one gets every event once and in order, however often it stops. */
static void test_watch_slow(void **state)
{
    struct world *w = *state;
    clear(w);
    struct seen slow = {.pause_after = 1, .quiet = true}, fast = {.quiet = true};
    seen_start(w, &slow, &(struct ctl_watch_conf){ALL});
    seen_start(w, &fast, &(struct ctl_watch_conf){ALL});
    char key[16];
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "t/%d", i % 7);
        put(w, key, "x");
    }
    seen_wait(w, &fast, 300);
    assert_true(slow.events < 300);
    seen_wait(w, &slow, 300);
    assert_true(slow.events == 300 && slow.last == fast.last);
    seen_stop(&slow);
    seen_stop(&fast);
}

const struct CMUnitTest ctl_scenarios[] = {
    cmocka_unit_test(test_revisions), cmocka_unit_test(test_put_options), cmocka_unit_test(test_ranges), cmocka_unit_test(test_prefix),
    cmocka_unit_test(test_past), cmocka_unit_test(test_compact), cmocka_unit_test(test_compare), cmocka_unit_test(test_txn),
    cmocka_unit_test(test_duplicates), cmocka_unit_test(test_leases), cmocka_unit_test(test_expiry), cmocka_unit_test(test_watch),
    cmocka_unit_test(test_watch_progress), cmocka_unit_test(test_watch_compacted), cmocka_unit_test(test_watch_slow),
};
const size_t ctl_scenarios_n = COUNT_OF(ctl_scenarios);
