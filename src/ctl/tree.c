/* tree.c - the ordered tree of keys.
 *
 * A treap: a search tree by key that is at once a heap by the key's hash (seeded per process, so nobody outside can choose keys that
 * make it deep). Every node knows how many keys are below it: counting a range is two descents. Nodes are the kvs themselves. The hash is computed anew where it is
 * compared, which is twice or thrice for a key that comes or goes: that is cheaper than four bytes in each.
 */
#include "ctl_int.h"

static uint64_t prio_of(const struct kv *k) { return hash_slice(kv_key(k)); }

static uint32_t size_of(const struct kv *k) { return k ? k->size : 0; }
static void node_sum(struct kv *k) { k->size = 1 + size_of(k->kid[0]) + size_of(k->kid[1]); }

struct kv *tree_get(const struct tree *t, struct slice key)
{
    struct kv *k = t->root;
    while (k) {
        int c = key_cmp(key, kv_key(k));
        if (c == 0) return k;
        k = k->kid[c > 0];
    }
    return NULL;
}

/* Lifts the kid on that side above k. */
static struct kv *node_rotate(struct kv *k, int side)
{
    struct kv *up = k->kid[side];
    k->kid[side] = up->kid[!side];
    up->kid[!side] = k;
    node_sum(k);
    node_sum(up);
    return up;
}

static struct kv *node_put(struct kv *at, struct kv *k, struct kv **old)
{
    if (!at) return k;
    int c = key_cmp(kv_key(k), kv_key(at));
    if (c == 0) { /* takes its place */
        memcpy(k->kid, at->kid, sizeof k->kid);
        k->size = at->size;
        *old = at;
        return k;
    }
    int side = c > 0;
    at->kid[side] = node_put(at->kid[side], k, old);
    if (at->kid[side] == k && !*old && prio_of(k) > prio_of(at)) return node_rotate(at, side); /* still on its way up */
    node_sum(at);
    return at;
}

struct kv *tree_put(struct tree *t, struct kv *k)
{
    struct kv *old = NULL;
    k->kid[0] = k->kid[1] = NULL;
    k->size = 1;
    t->root = node_put(t->root, k, &old);
    if (old) old->kid[0] = old->kid[1] = NULL;
    return old;
}

/* One tree of two, all keys of a smaller than those of b. */
static struct kv *node_join(struct kv *a, struct kv *b)
{
    if (!a || !b) return a ? a : b;
    struct kv *top = prio_of(a) > prio_of(b) ? a : b;
    if (top == a) a->kid[1] = node_join(a->kid[1], b);
    else b->kid[0] = node_join(a, b->kid[0]);
    node_sum(top);
    return top;
}

static struct kv *node_del(struct kv *at, struct slice key, struct kv **old)
{
    if (!at) return NULL;
    int c = key_cmp(key, kv_key(at));
    if (c == 0) {
        *old = at;
        return node_join(at->kid[0], at->kid[1]);
    }
    at->kid[c > 0] = node_del(at->kid[c > 0], key, old);
    node_sum(at);
    return at;
}

struct kv *tree_del(struct tree *t, struct slice key)
{
    struct kv *old = NULL;
    t->root = node_del(t->root, key, &old);
    if (old) old->kid[0] = old->kid[1] = NULL;
    return old;
}

uint64_t tree_rank(const struct tree *t, struct slice key)
{
    uint64_t n = 0;
    for (struct kv *k = t->root; k;) {
        bool behind = key_cmp(key, kv_key(k)) > 0;
        if (behind) n += size_of(k->kid[0]) + 1u;
        k = k->kid[behind];
    }
    return n;
}

uint64_t tree_count(const struct tree *t, struct slice key, struct slice end)
{
    if (end.n == 0) return tree_get(t, key) != NULL;
    uint64_t from = tree_rank(t, key), to = end_is_open(end) ? tree_size(t) : tree_rank(t, end);
    return to > from ? to - from : 0;
}

static void iter_down(struct tree_iter *it, struct kv *k)
{
    for (; k; k = k->kid[0]) {
        MUST(it->n < TREE_DEPTH_MAX);
        it->path[it->n++] = k;
    }
}

void tree_seek(struct tree_iter *it, const struct tree *t, struct slice from)
{
    it->n = 0;
    for (struct kv *k = t->root; k;) {
        bool smaller = key_cmp(kv_key(k), from) < 0;
        if (!smaller) {
            MUST(it->n < TREE_DEPTH_MAX);
            it->path[it->n++] = k;
        }
        k = k->kid[smaller];
    }
}

struct kv *tree_next(struct tree_iter *it)
{
    if (it->n == 0) return NULL;
    struct kv *k = it->path[--it->n];
    iter_down(it, k->kid[1]);
    return k;
}

static void node_free(struct kv *k)
{
    if (!k) return;
    node_free(k->kid[0]);
    node_free(k->kid[1]);
    struct kv_leased *l = kv_leased(k);
    if (l) list_del(&l->link);
    if (k->value) list_del(&k->value->link);
    kv_unref(k);
}

void tree_free(struct tree *t)
{
    node_free(t->root);
    t->root = NULL;
}
