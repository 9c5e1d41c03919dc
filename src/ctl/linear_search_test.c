/* linear_search_test.c - the search for an order of a history's operations.
 *
 * Wing and Gong's, with Lowe's improvement (Testing for linearizability, 2017), as Porcupine has it. Asking and answer of every operation are entries of a list, by their
 * ticks. The first operations of the list, up to the first answer, are those that may come next: one whose result fits the state is taken out of the list,
 * with its answer, and the search begins anew at the front. When an answer is at the front whose operation does not fit, the last one taken is put back, and the
 * next is tried. What was taken (a set of bits) together with the state that this led to is remembered: coming there again by another way leads nowhere either.
 *
 * An open operation has no answer in the list, so nothing waits for it; the search is over when no answers are left.
 *
 * Lists only grow, so whatever a list becomes begins with the longest that anybody read, or is a beginning of it: other states are not looked at. Without that, appends of
 * unknown result would be tried at every place.
 */
#include "linear_test.h"

#include <stdlib.h>

#define STATES_MAX 2000000u        /* remembered ones, of one key */
#define WHY_OPS 12                 /* operations that a report shows */

struct entry {
    struct entry *next, *prev;
    const struct lin_op *op;
    struct entry *answer;          /* of an asking entry: NULL when the operation is open */
    uint32_t number;               /* of the operation: its bit */
    bool is_answer;
};
struct taken {                     /* operations in the order in which they were taken */
    struct entry *entry;
    struct lin_state before;
};
struct search {
    struct entry head;             /* of the list */
    struct entry *entries;
    struct lin_state state;
    const struct lin_op *longest;  /* LIN_LIST: the longest list that was read; or NULL */
    struct taken *taken;
    size_t taken_n, best_n;        /* best_n: the most that were taken at once */
    uint64_t best_answered;        /* the answer that stood in the way then */
    size_t left;                   /* answers in the list */
    uint8_t *memo;                 /* the bits of what is taken, and the state: the key of a look-up */
    size_t bits_n;                 /* bytes of them */
    struct table seen;
};

static void entry_out(struct entry *e)
{
    e->prev->next = e->next;
    if (e->next) e->next->prev = e->prev;
}

static void entry_back(struct entry *e)
{
    e->prev->next = e;
    if (e->next) e->next->prev = e;
}

/* ---- the list ---------------------------------------------------------------------------------------------------------- */

static uint64_t entry_tick(const struct entry *e) { return e->is_answer ? e->op->answered : e->op->asked; }

/* Equal ticks: asking comes first, so that the two overlap. */
static int entry_cmp(const void *x, const void *y)
{
    const struct entry *a = *(struct entry *const *)x, *b = *(struct entry *const *)y;
    uint64_t at = entry_tick(a), bt = entry_tick(b);
    return at != bt ? (at < bt ? -1 : 1) : a->is_answer - b->is_answer;
}

static void search_init(struct search *s, const struct lin_op *const *ops, size_t n)
{
    *s = (struct search){.bits_n = (n + 7) / 8};
    s->entries = mem_new(MEM_MISC, 2 * n * sizeof *s->entries);
    s->taken = mem_new(MEM_MISC, n * sizeof *s->taken);
    s->memo = mem_new(MEM_MISC, s->bits_n + LIN_STATE_BYTES);
    struct entry **order = mem_new(MEM_MISC, 2 * n * sizeof(struct entry *));
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        struct entry *e = &s->entries[2 * i], *answer = e + 1;
        bool open = ops[i]->answered == LIN_OPEN;
        *e = (struct entry){.op = ops[i], .number = (uint32_t)i, .answer = open ? NULL : answer};
        order[m++] = e;
        if (open) continue;
        *answer = (struct entry){.op = ops[i], .number = (uint32_t)i, .is_answer = true};
        order[m++] = answer;
        s->left++;
        if (ops[i]->kind == LIN_LIST && ops[i]->what == LIN_ITEMS && (!s->longest || ops[i]->list_n > s->longest->list_n)) s->longest = ops[i];
    }
    qsort(order, m, sizeof *order, entry_cmp);
    struct entry *last = &s->head;
    for (size_t i = 0; i < m; last = order[i++]) {
        order[i]->prev = last;
        last->next = order[i];
    }
    mem_free(order);
    lin_begin(ops[0]->kind, &s->state);
}

static void search_fini(struct search *s)
{
    mem_free(s->entries);
    mem_free(s->taken);
    mem_free(s->memo);
    table_fini(&s->seen);
}

/* ---- the search ---------------------------------------------------------------------------------------------------------- */

static void bit_flip(struct search *s, const struct entry *e) { s->memo[e->number / 8] ^= (uint8_t)(1u << (e->number % 8)); }

/* Nothing that was read can come of it. */
static bool is_hopeless(const struct search *s, const struct lin_state *then)
{
    uint32_t n = s->longest ? MIN(s->longest->list_n, (uint32_t)then->n) : 0;
    return n && memcmp(then->bytes, s->longest->list, n) != 0;
}

/* e can come next, and leads to where the search has not been: it is taken. */
static bool take(struct search *s, struct entry *e)
{
    struct lin_state then = s->state;
    if (!lin_step(&then, e->op) || is_hopeless(s, &then)) return false;
    bit_flip(s, e);
    memcpy(s->memo + s->bits_n, then.bytes, then.n);
    if (table_put(&s->seen, slice_of((const char *)s->memo, s->bits_n + then.n), s)) {
        bit_flip(s, e);
        return false;
    }
    s->taken[s->taken_n++] = (struct taken){e, s->state};
    s->state = then;
    entry_out(e);
    if (e->answer) {
        entry_out(e->answer);
        s->left--;
    }
    return true;
}

/* The one that was taken last is put back. */
static struct entry *untake(struct search *s)
{
    struct taken *t = &s->taken[--s->taken_n];
    struct entry *e = t->entry;
    s->state = t->before;
    bit_flip(s, e);
    if (e->answer) {
        entry_back(e->answer);
        s->left++;
    }
    entry_back(e);
    return e;
}

static enum lin_verdict search(struct search *s)
{
    struct entry *e = s->head.next;
    while (s->left) {
        if (!e->is_answer) { /* while answers are left there is one behind every asking entry, or it is open and has others behind */
            e = take(s, e) ? s->head.next : e->next;
            continue;
        }
        if (s->taken_n >= s->best_n) {
            s->best_n = s->taken_n;
            s->best_answered = entry_tick(e);
        }
        if (!s->taken_n) return LIN_NO;
        if (s->seen.n > STATES_MAX) return LIN_TOO_HARD;
        e = untake(s)->next;
    }
    return LIN_YES;
}

/* ---- a history, key by key ------------------------------------------------------------------------------------------------- */

static int op_cmp(const void *x, const void *y)
{
    const struct lin_op *a = *(const struct lin_op *const *)x, *b = *(const struct lin_op *const *)y;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->asked != b->asked ? (a->asked < b->asked ? -1 : 1) : 0;
}

/* The operations around the answer that nothing fits to. */
static void report(const struct search *s, const struct lin_op *const *ops, size_t n, struct buf *why)
{
    size_t to = 0;
    while (to < n && ops[to]->asked <= s->best_answered) to++;
    size_t from = to > WHY_OPS ? to - WHY_OPS : 0;
    buf_printf(why, "no order of these operations has these results; the answer at %llu fits nowhere:\n", (unsigned long long)s->best_answered);
    for (size_t i = from; i < to; i++) lin_write(ops[i], why);
}

static enum lin_verdict key_check(const struct lin_op *const *ops, size_t n, struct buf *why)
{
    struct search s;
    search_init(&s, ops, n);
    enum lin_verdict v = search(&s);
    if (v == LIN_NO) report(&s, ops, n, why);
    if (v == LIN_TOO_HARD) {
        buf_printf(why, "more than %u states, key of: ", STATES_MAX);
        lin_write(ops[0], why);
    }
    search_fini(&s);
    return v;
}

enum lin_verdict lin_check(const struct lin_history *h, struct buf *why)
{
    const struct lin_op **ops = mem_new(MEM_MISC, MAX(h->n, (size_t)1) * sizeof(struct lin_op *));
    enum lin_verdict v = LIN_YES;
    for (size_t i = 0; i < h->n; i++) ops[i] = &h->ops[i];
    qsort(ops, h->n, sizeof *ops, op_cmp);
    for (size_t at = 0, end; at < h->n && v == LIN_YES; at = end) {
        for (end = at + 1; end < h->n && ops[end]->kind == ops[at]->kind && ops[end]->key == ops[at]->key;) end++;
        v = key_check(ops + at, end - at, why);
    }
    mem_free(ops);
    return v;
}
