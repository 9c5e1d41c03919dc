/* linear_test.c - the check for linearizability, checked: histories of which it is known, and small random ones against every order there is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "linear_test.h"

/* ---- known histories -------------------------------------------------------------------------------------------------------- */

static const struct {
    bool linear;
    const char *name, *text;
} known[] = {
    {true, "nothing", ""},
    {true, "one after the other", "register 1 1 2 write 5 0 0\nregister 1 3 4 read 0 0 5\n"},
    {false, "a read of nothing behind a write", "register 1 1 2 write 5 0 0\nregister 1 3 4 read 0 0 0\n"},
    {true, "the same on another key", "register 1 1 2 write 5 0 0\nregister 2 3 4 read 0 0 0\n"},
    {true, "a read beside a write may see it or not", "register 1 1 10 write 5 0 0\nregister 1 2 3 read 0 0 0\nregister 1 4 5 read 0 0 5\n"},
    {false, "but not the new and then the old", "register 1 1 10 write 5 0 0\nregister 1 2 3 read 0 0 5\nregister 1 4 5 read 0 0 0\n"},
    {false, "a write tells what was there before", "register 1 1 2 write 5 0 0\nregister 1 3 4 write 6 0 4\n"},
    {true, "two that compare and set: one wins", "register 1 1 9 cas 0 1 1\nregister 1 2 8 cas 0 2 0\nregister 1 10 11 read 0 0 1\n"},
    {false, "both win: an update is lost", "register 1 1 9 cas 0 1 1\nregister 1 2 8 cas 0 2 1\n"},
    {false, "none wins", "register 1 1 9 cas 0 1 0\nregister 1 2 8 cas 0 2 0\n"},
    {true, "cleared", "register 1 1 2 write 5 0 -1\nregister 1 3 4 clear 0 0 1\nregister 1 5 6 clear 0 0 0\nregister 1 7 8 read 0 0 0\n"},
    {false, "cleared, and still there", "register 1 1 2 write 5 0 -1\nregister 1 3 4 clear 0 0 1\nregister 1 5 6 read 0 0 5\n"},
    {false, "an acknowledged write is lost", "register 1 1 2 write 5 0 0\nregister 1 3 4 write 6 0 5\nregister 1 5 6 read 0 0 5\n"},
    {true, "a write of unknown result was made", "register 1 1 - write 5 0 0\nregister 1 3 4 read 0 0 5\n"},
    {true, "or was not", "register 1 1 - write 5 0 0\nregister 1 3 4 read 0 0 0\n"},
    {true, "or is made later", "register 1 1 - write 5 0 0\nregister 1 3 4 read 0 0 0\nregister 1 5 6 write 7 0 0\nregister 1 7 8 read 0 0 5\n"},
    {false, "but not twice", "register 1 1 - write 5 0 0\nregister 1 3 4 read 0 0 5\nregister 1 5 6 write 7 0 5\nregister 1 7 8 read 0 0 5\n"},
    {false, "and not before it was asked for", "register 1 1 2 read 0 0 5\nregister 1 3 - write 5 0 0\n"},
    {true, "an open compare and set", "register 1 1 - cas 0 5 0\nregister 1 2 3 read 0 0 5\n"},
    {false, "that compares with another value", "register 1 1 - cas 1 5 0\nregister 1 2 3 read 0 0 5\n"},
    {true, "a set", "set 0 1 2 add 3 0 0\nset 0 3 4 add 1 0 0\nset 0 5 6 members 0 0 0 1,3\nset 0 7 8 remove 3 0 1\nset 0 9 10 members 0 0 0 1\n"},
    {false, "one is missing", "set 0 1 2 add 3 0 0\nset 0 3 4 add 1 0 0\nset 0 5 6 members 0 0 0 1\n"},
    {false, "one comes back", "set 0 1 2 add 3 0 0\nset 0 3 4 remove 3 0 1\nset 0 5 6 members 0 0 0 3\n"},
    {false, "removed twice", "set 0 1 2 add 3 0 0\nset 0 3 10 remove 3 0 1\nset 0 4 9 remove 3 0 1\n"},
    {true, "moved at once", "set 0 1 2 add 3 0 0\nset 0 3 10 move 3 4 1\nset 0 4 5 members 0 0 0 3\nset 0 6 7 members 0 0 0 4\n"},
    {false, "seen in between", "set 0 1 2 add 3 0 0\nset 0 3 10 move 3 4 1\nset 0 4 5 members 0 0 0\n"},
    {false, "seen at both places", "set 0 1 2 add 3 0 0\nset 0 3 10 move 3 4 1\nset 0 4 5 members 0 0 0 3,4\n"},
    {true, "a list in either order", "list 0 1 9 append 1 0 0\nlist 0 2 8 append 2 0 0\nlist 0 10 11 items 0 0 0 2,1\n"},
    {false, "in both orders", "list 0 1 9 append 1 0 0\nlist 0 2 8 append 2 0 0\nlist 0 10 11 items 0 0 0 2,1\nlist 0 12 13 items 0 0 0 1,2\n"},
    {false, "in the wrong one", "list 0 1 2 append 1 0 0\nlist 0 3 4 append 2 0 0\nlist 0 10 11 items 0 0 0 2,1\n"},
    {false, "an item that nobody gave", "list 0 1 2 append 1 0 0\nlist 0 10 11 items 0 0 0 1,2\n"},
    {true, "a lease and its keys", "lease 7 1 2 grant 0 0 1\nlease 7 3 4 hang 0 0 1\nlease 7 5 6 put 1 0 0\nlease 7 7 8 keys 0 0 0 1,2\nlease 7 9 10 revoke 0 0 1\nlease 7 11 12 keys 0 0 0 2\n"},
    {false, "a key outlives its lease", "lease 7 1 2 grant 0 0 1\nlease 7 3 4 hang 0 0 1\nlease 7 5 6 revoke 0 0 1\nlease 7 7 8 keys 0 0 0 1\n"},
    {false, "a key hangs on a lease that is gone", "lease 7 1 2 grant 0 0 1\nlease 7 3 4 revoke 0 0 1\nlease 7 5 6 hang 0 0 1\n"},
    {false, "granted twice", "lease 7 1 5 grant 0 0 1\nlease 7 2 6 grant 0 0 1\n"},
    {false, "a put without the lease takes a key off it", "lease 7 1 2 grant 0 0 1\nlease 7 3 4 hang 0 0 1\nlease 7 5 6 put 0 0 0\nlease 7 7 8 revoke 0 0 1\nlease 7 9 10 keys 0 0 0\n"},
    {true, "its time is over", "lease 7 1 2 grant 0 0 1\nlease 7 3 4 hang 0 0 1\nlease 7 5 - expire 0 0 0\nlease 7 6 7 keys 0 0 0\nlease 7 8 9 keep 0 0 0\n"},
    {false, "it is not over yet", "lease 7 1 2 grant 0 0 1\nlease 7 3 4 hang 0 0 1\nlease 7 5 6 keys 0 0 0\nlease 7 7 - expire 0 0 0\n"},
    {false, "gone, and there again", "lease 7 1 2 grant 0 0 1\nlease 7 5 - expire 0 0 0\nlease 7 6 7 keep 0 0 0\nlease 7 8 9 keep 0 0 1\n"},
};

static enum lin_verdict text_check(const char *text, struct buf *why)
{
    struct lin_history h;
    lin_init(&h);
    if (lin_read(&h, slice_cstr(text), why) != OK) fail_msg("%s", why->p);
    enum lin_verdict v = lin_check(&h, why);
    lin_fini(&h);
    return v;
}

static void test_known(void **state)
{
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        struct buf why = {0};
        if (text_check(known[i].text, &why) != (known[i].linear ? LIN_YES : LIN_NO)) fail_msg("%s: %s", known[i].name, why.n ? why.p : "taken for linearizable");
        assert_int_equal(why.n == 0, known[i].linear);
        buf_free(&why);
    }
}

static void test_report(void **state)
{
    struct buf why = {0};
    assert_int_equal(text_check("register 3 1 2 write 5 0 0\nregister 3 3 4 read 0 0 6\nregister 3 5 6 read 0 0 5\n", &why), LIN_NO);
    assert_string_equal(why.p, "no order of these operations has these results; the answer at 4 fits nowhere:\nregister 3 1 2 write 5 0 0\nregister 3 3 4 read 0 0 6\n");
    buf_free(&why);
}

/* ---- text ------------------------------------------------------------------------------------------------------------------------ */

static void test_text(void **state)
{
    static const char *const bad[] = {"register", "register 1 1 2 write 5 0", "registers 1 1 2 write 5 0 0", "register 1 1 2 wrote 5 0 0", "register 1 2 1 write 5 0 0", "register 1 1 2 write x 0 0",
                                      "set 1 1 2 members 0 0 0 1,,2", "set 1 1 2 members 0 0 0 300", "register x 1 2 write 5 0 0"};
    struct lin_history h;
    struct buf out = {0}, why = {0};
    lin_init(&h);
    const char *text = "register 1 1 - write -5 0 -1\n\nset 2 3 4 members 0 0 0 1,2,63\nlease 3 5 18446744073 keys 0 0 0\n";
    assert_int_equal(lin_read(&h, slice_cstr(text), &why), OK);
    for (size_t i = 0; i < h.n; i++) lin_write(&h.ops[i], &out);
    assert_string_equal(out.p, "register 1 1 - write -5 0 -1\nset 2 3 4 members 0 0 0 1,2,63\nlease 3 5 18446744073 keys 0 0 0\n");
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        buf_clear(&why);
        assert_int_equal(lin_read(&h, slice_cstr(bad[i]), &why), ERR_SYNTAX);
        assert_non_null(strstr(why.p, bad[i]));
    }
    lin_fini(&h);
    buf_free(&out);
    buf_free(&why);
}

/* ---- against every order there is --------------------------------------------------------------------------------------------------- */

#define SMALL 6

static uint64_t chance;
static int32_t roll(int32_t n) /* 0 .. n - 1 */
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (int32_t)((chance >> 11) % (uint64_t)n);
}

/* Whether those that are not in `used` can follow on state s: every next one is tried. */
static bool follows(const struct lin_history *h, uint32_t used, struct lin_state s)
{
    bool left = false;
    uint64_t first = LIN_OPEN; /* the first answer that is to come: what was asked later can't be next */
    for (size_t i = 0; i < h->n; i++) {
        if (used >> i & 1) continue;
        left |= h->ops[i].answered != LIN_OPEN;
        first = MIN(first, h->ops[i].answered);
    }
    if (!left) return true;
    for (size_t i = 0; i < h->n; i++) {
        struct lin_state then = s;
        if ((used >> i & 1) || h->ops[i].asked > first || !lin_step(&then, &h->ops[i])) continue;
        if (follows(h, used | 1u << i, then)) return true;
    }
    return false;
}

/* Answers that a copy gives which does one after the other; some are then made wrong, some open. */
static void small_make(struct lin_history *h, enum lin_kind kind)
{
    static const enum lin_what first[LIN_KINDS] = {LIN_WRITE, LIN_ADD, LIN_APPEND, LIN_GRANT}, last[LIN_KINDS] = {LIN_CLEAR, LIN_MEMBERS, LIN_ITEMS, LIN_KEYS};
    struct lin_state s;
    uint8_t list[8];
    lin_begin(kind, &s);
    for (uint32_t i = 0; i < SMALL; i++) {
        struct lin_op op = {.kind = kind, .what = first[kind] + (enum lin_what)roll((int32_t)(last[kind] - first[kind]) + 1), .a = roll(3), .b = roll(3), .list = list};
        uint64_t at = 10 * (uint64_t)i + 10;
        op.asked = at - (uint64_t)roll(25);
        if (op.asked > at) op.asked = 0;
        op.answered = at + 1 + (uint64_t)roll(25);
        op.result = roll(3);
        op.list_n = (uint32_t)roll(3);
        for (uint32_t k = 0; k < op.list_n; k++) list[k] = (uint8_t)roll(3);
        for (int tries = 0; tries < 200; tries++) { /* the right result is one of few */
            struct lin_state then = s;
            if (lin_step(&then, &op)) {
                s = then;
                break;
            }
            op.result = roll(3);
            op.list_n = (uint32_t)roll(4);
            for (uint32_t k = 0; k < op.list_n; k++) list[k] = (uint8_t)roll(6);
        }
        if (roll(6) == 0) op.answered = LIN_OPEN;
        lin_add(h, &op);
    }
    if (roll(2)) h->ops[roll(SMALL)].result = roll(3);
}

static void test_every_order(void **state)
{
    int yes[LIN_KINDS] = {0}, no[LIN_KINDS] = {0};
    chance = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        enum lin_kind kind = (enum lin_kind)(i % LIN_KINDS);
        struct lin_history h;
        struct lin_state s;
        struct buf why = {0};
        lin_init(&h);
        small_make(&h, kind);
        lin_begin(kind, &s);
        bool linear = follows(&h, 0, s);
        *(linear ? &yes[kind] : &no[kind]) += 1;
        if (lin_check(&h, &why) != (linear ? LIN_YES : LIN_NO)) {
            for (size_t k = 0; k < h.n; k++) lin_write(&h.ops[k], &why);
            fail_msg("%s: %s", linear ? "there is an order" : "there is no order", why.p);
        }
        buf_free(&why);
        lin_fini(&h);
    }
    for (int k = 0; k < LIN_KINDS; k++) assert_true(yes[k] > 500 && no[k] > 500);
}

/* Ten writers of unknown result at once, and a reader that sees them all: the search does not go through every order. */
static void test_many_open(void **state)
{
    struct lin_history h;
    struct buf why = {0};
    lin_init(&h);
    for (int32_t i = 1; i <= 14; i++) lin_add(&h, &(struct lin_op){.kind = LIN_REGISTER, .what = LIN_WRITE, .a = i, .asked = (uint64_t)i, .answered = LIN_OPEN});
    for (int32_t i = 14; i >= 1; i--)
        lin_add(&h, &(struct lin_op){.kind = LIN_REGISTER, .what = LIN_READ, .result = i, .asked = 100 - 5 * (uint64_t)i, .answered = 102 - 5 * (uint64_t)i});
    assert_int_equal(lin_check(&h, &why), LIN_YES);
    lin_add(&h, &(struct lin_op){.kind = LIN_REGISTER, .what = LIN_READ, .result = 14, .asked = 200, .answered = 201});
    assert_int_equal(lin_check(&h, &why), LIN_NO); /* seen, seen again when others were there: once too often */
    buf_free(&why);
    lin_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known), cmocka_unit_test(test_report), cmocka_unit_test(test_text), cmocka_unit_test(test_every_order), cmocka_unit_test(test_many_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
