/* linear_models_test.c - the single copies that histories are compared with, and operations as text.
 *
 *     LIN_REGISTER   value: 4 bytes                LIN_SET    one bit for each number: 8 bytes
 *     LIN_LIST       one byte for each item        LIN_LEASE  there or not, then for each key: 0 not there, 1 without the lease, 2 on it
 */
#include "linear_test.h"

#define LEASE_KEYS 8

static const char *const kind_names[LIN_KINDS] = {"register", "set", "list", "lease"};
static const char *const what_names[LIN_WHATS] = {"write", "read", "cas", "clear", "add", "remove", "move", "members", "append", "items",
                                                  "grant", "revoke", "keep", "hang", "put", "keys", "expire"};

/* ---- steps ------------------------------------------------------------------------------------------------------------ */

void lin_begin(enum lin_kind kind, struct lin_state *s)
{
    static const uint8_t sizes[LIN_KINDS] = {sizeof(int32_t), sizeof(uint64_t), 0, 1 + LEASE_KEYS};
    memset(s, 0, sizeof *s);
    s->n = sizes[kind];
}

/* The result is known, and another than is. */
static bool differs(const struct lin_op *op, int64_t is) { return op->answered != LIN_OPEN && op->result != LIN_UNTOLD && op->result != is; }

static bool lists(const struct lin_op *op, const uint8_t *p, size_t n)
{
    return op->answered == LIN_OPEN || (op->list_n == n && (!n || memcmp(op->list, p, n) == 0));
}

static bool register_step(struct lin_state *s, const struct lin_op *op)
{
    int32_t value;
    memcpy(&value, s->bytes, sizeof value);
    int32_t before = value;
    switch (op->what) {
    case LIN_WRITE: value = op->a; break;
    case LIN_READ: break;
    case LIN_CAS:
        if (differs(op, before == op->a)) return false;
        if (before == op->a) value = op->b;
        memcpy(s->bytes, &value, sizeof value);
        return true;
    case LIN_CLEAR:
        value = 0;
        memcpy(s->bytes, &value, sizeof value);
        return !differs(op, before != 0);
    default: return false;
    }
    memcpy(s->bytes, &value, sizeof value);
    return !differs(op, before);
}

static bool set_step(struct lin_state *s, const struct lin_op *op)
{
    uint64_t bits, a = 1ull << (op->a & 63), b = 1ull << (op->b & 63);
    memcpy(&bits, s->bytes, sizeof bits);
    bool had = bits & a;
    uint8_t list[64];
    size_t n = 0;
    switch (op->what) {
    case LIN_ADD: bits |= a; break;
    case LIN_REMOVE: bits &= ~a; break;
    case LIN_MOVE: bits = (bits & ~a) | b; break;
    case LIN_MEMBERS:
        for (uint8_t i = 0; i < 64; i++)
            if (bits >> i & 1) list[n++] = i;
        return lists(op, list, n);
    default: return false;
    }
    memcpy(s->bytes, &bits, sizeof bits);
    return !differs(op, had);
}

static bool list_step(struct lin_state *s, const struct lin_op *op)
{
    if (op->what == LIN_ITEMS) return lists(op, s->bytes, s->n);
    if (op->what != LIN_APPEND) return false;
    MUST(s->n < LIN_STATE_BYTES);
    s->bytes[s->n++] = (uint8_t)op->a;
    return true;
}

static void lease_gone(struct lin_state *s)
{
    s->bytes[0] = 0;
    for (size_t i = 1; i <= LEASE_KEYS; i++)
        if (s->bytes[i] == 2) s->bytes[i] = 0;
}

static bool lease_step(struct lin_state *s, const struct lin_op *op)
{
    bool there = s->bytes[0];
    uint8_t *key = &s->bytes[1 + op->a % LEASE_KEYS], list[LEASE_KEYS];
    size_t n = 0;
    switch (op->what) {
    case LIN_GRANT:
        s->bytes[0] = 1;
        return !differs(op, !there);
    case LIN_REVOKE:
    case LIN_EXPIRE:
        if (there) lease_gone(s);
        return !differs(op, there);
    case LIN_KEEP: return !differs(op, there);
    case LIN_HANG:
        if (there) *key = 2;
        return !differs(op, there);
    case LIN_PUT: *key = 1; return true;
    case LIN_KEYS:
        for (uint8_t i = 0; i < LEASE_KEYS; i++)
            if (s->bytes[1 + i]) list[n++] = (uint8_t)(2 * i + (s->bytes[1 + i] == 2));
        return lists(op, list, n);
    default: return false;
    }
}

bool lin_step(struct lin_state *s, const struct lin_op *op)
{
    switch (op->kind) {
    case LIN_REGISTER: return register_step(s, op);
    case LIN_SET: return set_step(s, op);
    case LIN_LIST: return list_step(s, op);
    case LIN_LEASE: return lease_step(s, op);
    case LIN_KINDS: break;
    }
    return false;
}

/* ---- histories ---------------------------------------------------------------------------------------------------------- */

void lin_init(struct lin_history *h)
{
    *h = (struct lin_history){0};
    arena_init(&h->mem, MEM_MISC, 4096);
}

void lin_fini(struct lin_history *h)
{
    mem_free(h->ops);
    arena_fini(&h->mem);
    *h = (struct lin_history){0};
}

struct lin_op *lin_add(struct lin_history *h, const struct lin_op *op)
{
    ARRAY_GROW(MEM_MISC, h->ops, h->n, h->cap);
    struct lin_op *mine = &h->ops[h->n++];
    *mine = *op;
    mine->list = arena_alloc(&h->mem, MAX(op->list_n, 1u));
    if (op->list_n) memcpy(mine->list, op->list, op->list_n);
    return mine;
}

/* ---- text ----------------------------------------------------------------------------------------------------------------- */

void lin_write(const struct lin_op *op, struct buf *out)
{
    buf_printf(out, "%s %u %llu ", kind_names[op->kind], op->key, (unsigned long long)op->asked);
    if (op->answered == LIN_OPEN) buf_adds(out, "-");
    else buf_add_u64(out, op->answered);
    buf_printf(out, " %s %d %d %lld", what_names[op->what], op->a, op->b, (long long)op->result);
    for (uint32_t i = 0; i < op->list_n; i++) buf_printf(out, "%s%u", i ? "," : " ", op->list[i]);
    buf_addc(out, '\n');
}

static bool word_number(struct slice *line, int64_t *out)
{
    struct slice word = slice_cut(*line, ' ', line);
    uint64_t v;
    bool minus = word.n && word.p[0] == '-';
    if (minus) word = slice_of(word.p + 1, word.n - 1);
    if (slice_u64(word, INT64_MAX, &v) != OK) return false;
    *out = minus ? -(int64_t)v : (int64_t)v;
    return true;
}

static bool word_name(struct slice *line, const char *const *names, int names_n, int *out)
{
    struct slice word = slice_cut(*line, ' ', line);
    for (int i = 0; i < names_n; i++)
        if (slice_is(word, names[i])) {
            *out = i;
            return true;
        }
    return false;
}

static bool list_read(struct slice text, uint8_t *list, uint32_t *n)
{
    while (text.n) {
        uint64_t v;
        if (slice_u64(slice_cut(text, ',', &text), UINT8_MAX, &v) != OK || *n == LIN_STATE_BYTES) return false;
        list[(*n)++] = (uint8_t)v;
    }
    return true;
}

static bool op_read(struct slice line, struct lin_op *op)
{
    int kind, what;
    int64_t key, asked, answered = -1, a, b;
    if (!word_name(&line, kind_names, LIN_KINDS, &kind) || !word_number(&line, &key) || !word_number(&line, &asked)) return false;
    bool open = slice_starts(line, SLICE("- "));
    if (open) line = slice_of(line.p + 2, line.n - 2);
    if ((!open && !word_number(&line, &answered)) || !word_name(&line, what_names, LIN_WHATS, &what)) return false;
    if (!word_number(&line, &a) || !word_number(&line, &b) || !word_number(&line, &op->result)) return false;
    op->kind = (enum lin_kind)kind;
    op->what = (enum lin_what)what;
    op->key = (uint32_t)key;
    op->a = (int32_t)a;
    op->b = (int32_t)b;
    op->asked = (uint64_t)asked;
    op->answered = open ? LIN_OPEN : (uint64_t)answered;
    return op->asked < op->answered && list_read(line, op->list, &op->list_n);
}

enum err lin_read(struct lin_history *h, struct slice text, struct buf *why)
{
    for (size_t number = 1; text.n; number++) {
        struct slice line = slice_cut(text, '\n', &text);
        uint8_t list[LIN_STATE_BYTES];
        struct lin_op op = {.list = list};
        if (line.n == 0) continue;
        if (!op_read(line, &op)) {
            buf_printf(why, "line %zu is no operation: " SLICE_FMT, number, SLICE_ARG(line));
            return ERR_SYNTAX;
        }
        lin_add(h, &op);
    }
    return OK;
}
