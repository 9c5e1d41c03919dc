/* mirror.c - a prefix of the control store, held here.
 *
 *     READING  pages of a range, all at the revision of the first      --> WATCHING from the one behind it
 *     WATCHING events in order                                         --> READING when history is gone; WAITING when the watch ended otherwise
 *     WAITING  a while, after a failure                                --> READING
 *
 * A reading is compared with what is held: what it did not see is gone. So nothing is lost or told twice, however long the store was away.
 */
#include "mirror.h"

#include <stdlib.h>

#define MIRROR_PAGE 500
#define MIRROR_AGAIN_MS 300

struct mirror {
    struct loop *loop;
    struct ctl *ctl;
    char *prefix;
    struct slice end;            /* of the range of the prefix; in end_text */
    char end_text[256];
    struct mirror_ops ops;
    void *ctx;
    struct table items;          /* key behind the prefix -> struct mirror_item */
    const struct mirror_item **sorted; /* of mirror_items(); NULL: to be made anew */
    size_t sorted_n;
    enum { MIRROR_READING, MIRROR_WATCHING, MIRROR_WAITING } state;
    struct ctl_call call;        /* of READING */
    struct buf next;             /* the key that it goes on with */
    bool asking;                 /* call is the store's */
    bool stopped, synced, different;
    bool mixed;                  /* a reading of several pages is under way: some keys are newer than others */
    struct ctl_watch *watch;
    int64_t revision;
    uint64_t left_out;
    uint64_t round;
    struct timer timer;          /* of WAITING */
};

static void mirror_read(struct mirror *m);

static void item_free(struct mirror *m, struct mirror_item *it)
{
    if (it->data)
        m->ops.drop(it->data);
    mem_free(it->value);
    mem_free(it);
}

static void mirror_free(struct mirror *m)
{
    for (struct table_slot *s = NULL; (s = table_next(&m->items, s));)
        item_free(m, s->value);
    table_fini(&m->items);
    mem_free(m->sorted);
    buf_free(&m->next);
    mem_free(m->prefix);
    mem_free(m);
}

/* ---- what is held ------------------------------------------------------------------------------------------------------- */

static void mirror_differs(struct mirror *m)
{
    mem_free(m->sorted);
    m->sorted = NULL;
    m->different = true;
}

static void item_put(struct mirror *m, const struct ctl_kv *kv)
{
    size_t skip = strlen(m->prefix);
    struct slice key = slice_of(kv->key.p + skip, kv->key.n - skip);
    struct mirror_item *it = table_get(&m->items, key);
    if (it && it->mod_revision == kv->mod_revision) {
        it->round = m->round;
        return;
    }
    if (!it && m->ops.items_max && m->items.n >= m->ops.items_max) {
        m->left_out++;
        return;
    }
    if (!it) {
        it = mem_new(MEM_CTL, sizeof *it);
        table_put(&m->items, key, it);
        it->key = table_key(&m->items, key);
    }
    if (it->data)
        m->ops.drop(it->data);
    it->data = m->ops.make(m->ctx, it->key, kv->value);
    if (m->ops.values && it->data) {
        mem_free(it->value);
        it->value = mem_strndup(MEM_CTL, kv->value.p, kv->value.n);
        it->value_n = kv->value.n;
    }
    it->create_revision = kv->create_revision;
    it->mod_revision = kv->mod_revision;
    it->lease = kv->lease;
    it->round = m->round;
    mirror_differs(m);
}

static void item_del(struct mirror *m, struct slice key)
{
    struct mirror_item *it = table_del(&m->items, key);
    if (!it)
        return;
    item_free(m, it);
    mirror_differs(m);
}

/* What the reading did not see. */
static void items_sweep(struct mirror *m)
{
    for (struct table_slot *s = NULL; (s = table_next(&m->items, s));)
        if (((struct mirror_item *)s->value)->round != m->round) {
            item_del(m, ((struct mirror_item *)s->value)->key);
            s = NULL; /* the table has moved: from the start */
        }
}

static void mirror_tell(struct mirror *m)
{
    bool first = !m->synced;
    m->synced = true;
    if (!m->different && !first)
        return;
    m->different = false;
    m->ops.changed(m->ctx);
}

static void mirror_wait(struct mirror *m)
{
    m->state = MIRROR_WAITING;
    timer_set(m->loop, &m->timer, MIRROR_AGAIN_MS + loop_random(m->loop) % MIRROR_AGAIN_MS);
}

/* ---- watching ------------------------------------------------------------------------------------------------------------- */

static bool on_events(void *ctx, const struct ctl_event *events, size_t n, int64_t revision)
{
    struct mirror *m = ctx;
    size_t skip = strlen(m->prefix);
    for (size_t i = 0; i < n; i++) {
        const struct ctl_kv *kv = &events[i].kv;
        if (events[i].type == CTL_EVENT_PUT)
            item_put(m, kv);
        else
            item_del(m, slice_of(kv->key.p + skip, kv->key.n - skip));
    }
    m->revision = MAX(m->revision, revision);
    if (n)
        mirror_tell(m);
    return true;
}

static void on_ended(void *ctx, enum ctl_error error, int64_t compact_revision, const char *why)
{
    struct mirror *m = ctx;
    ctl_watch_stop(m->watch);
    m->watch = NULL;
    if (error == CTL_COMPACTED)
        mirror_read(m);
    else
        mirror_wait(m);
}

static const struct ctl_watch_ops watch_ops = {.events = on_events, .ended = on_ended};

static void mirror_watch(struct mirror *m)
{
    struct ctl_watch_conf conf = {.key = slice_cstr(m->prefix), .end = m->end, .revision = m->revision + 1};
    m->state = MIRROR_WATCHING;
    m->watch = ctl_watch_start(m->ctl, &conf, &watch_ops, m);
    if (!m->watch)
        mirror_wait(m);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

static void page_ask(struct mirror *m)
{
    struct ctl_range r = {.key = buf_slice(&m->next), .end = m->end, .limit = MIRROR_PAGE, .revision = m->revision};
    m->call = (struct ctl_call){.op = {.kind = CTL_RANGE, .range = r}, .done = m->call.done};
    m->asking = true;
    ctl_submit(m->ctl, &m->call);
}

static void page_done(struct ctl_call *call)
{
    struct mirror *m = CONTAINER_OF(call, struct mirror, call);
    m->asking = false;
    if (m->stopped) {
        mirror_free(m);
        return;
    }
    if (call->error != CTL_OK) {
        mirror_wait(m);
        return;
    }
    const struct ctl_range_result *r = &call->result.range;
    if (!m->revision)
        m->revision = call->revision;
    for (size_t i = 0; i < r->n; i++)
        item_put(m, &r->kvs[i]);
    m->mixed = r->more && r->n;
    if (r->more && r->n) {
        buf_clear(&m->next);
        buf_add_slice(&m->next, r->kvs[r->n - 1].key);
        buf_addc(&m->next, 0);
        page_ask(m);
        return;
    }
    items_sweep(m);
    mirror_watch(m);
    mirror_tell(m); /* the last thing: it may stop the mirror */
}

static void mirror_read(struct mirror *m)
{
    m->state = MIRROR_READING;
    m->round++;
    m->revision = 0;
    buf_clear(&m->next);
    buf_adds(&m->next, m->prefix);
    page_ask(m);
}

static void mirror_timer(struct timer *t) { mirror_read(CONTAINER_OF(t, struct mirror, timer)); }

/* ---- the interface ------------------------------------------------------------------------------------------------------------ */

struct mirror *mirror_start(struct loop *l, struct ctl *ctl, const char *prefix, const struct mirror_ops *ops, void *ctx)
{
    struct mirror *m = mem_new(MEM_CTL, sizeof *m);
    MUST(strlen(prefix) && strlen(prefix) <= sizeof m->end_text);
    *m = (struct mirror){.loop = l, .ctl = ctl, .prefix = mem_strdup(MEM_CTL, prefix), .ops = *ops, .ctx = ctx};
    m->end = ctl_prefix_end(slice_cstr(m->prefix), m->end_text);
    m->call.done = page_done;
    timer_init(&m->timer, mirror_timer);
    mirror_read(m);
    return m;
}

void mirror_stop(struct mirror *m)
{
    if (!m)
        return;
    m->stopped = true;
    timer_clear(&m->timer);
    if (m->watch)
        ctl_watch_stop(m->watch);
    m->watch = NULL;
    if (!m->asking)
        mirror_free(m);
}

void mirror_again(struct mirror *m)
{
    if (m->state != MIRROR_WATCHING)
        return; /* it is about to */
    ctl_watch_stop(m->watch);
    m->watch = NULL;
    mirror_read(m);
}

void mirror_recall(struct mirror *m, struct slice key, struct slice value)
{
    struct buf full = {0};
    if (m->synced || table_get(&m->items, key)) /* the store knows better */
        return;
    buf_printf(&full, "%s" SLICE_FMT, m->prefix, SLICE_ARG(key));
    struct ctl_kv kv = {.key = buf_slice(&full), .value = value};
    uint64_t round = m->round;
    m->round = 0; /* no reading has seen it */
    item_put(m, &kv);
    m->round = round;
    buf_free(&full);
}

bool mirror_synced(const struct mirror *m) { return m->synced && !m->mixed; }
uint64_t mirror_left_out(const struct mirror *m) { return m->left_out; }
int64_t mirror_revision(const struct mirror *m) { return m->revision; }
const struct mirror_item *mirror_get(const struct mirror *m, struct slice key) { return table_get(&m->items, key); }

static int item_cmp(const void *a, const void *b)
{
    struct slice x = (*(const struct mirror_item *const *)a)->key, y = (*(const struct mirror_item *const *)b)->key;
    int c = memcmp(x.p, y.p, MIN(x.n, y.n));
    return c ? c : x.n < y.n ? -1 : x.n > y.n;
}

const struct mirror_item *const *mirror_items(struct mirror *m, size_t *n)
{
    if (!m->sorted) {
        m->sorted = mem_new(MEM_CTL, (m->items.n + 1) * sizeof(struct mirror_item *));
        m->sorted_n = 0;
        for (struct table_slot *s = NULL; (s = table_next(&m->items, s));)
            m->sorted[m->sorted_n++] = s->value;
        qsort(m->sorted, m->sorted_n, sizeof *m->sorted, item_cmp);
    }
    *n = m->sorted_n;
    return m->sorted;
}
