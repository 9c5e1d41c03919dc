/* parts.c - the partitions that a shard owns: made when the catalog says so, loaded in the pool, deleted.
 *
 *     (catalog) -> wanted -> loading, in rt's pool -> ready -------> gone
 *                                |                      ^ part_attach(), modules are told
 *                                '-> offline: KAFKA_STORAGE_ERROR; tried again by and by; its topic can be deleted
 *
 * A partition that is ready and of which the disk fails goes on serving what is sound, and is renewed by and by: loaded once more beside the one that
 * serves, and put in its place, which to modules is as if it had gone and come back.
 *
 * What a partition is now stands in its topic_live, where any thread may read it: LIVE_LOADING, LIVE_OFFLINE or its leader epoch. The load touches no
 * shard: it has a copy of what it needs. At most LOADS works are in the pool for a shard, each with up to LOAD_BATCH partitions, so that a start with many partitions
 * leaves threads for syncs. Internal topics are loaded first, because groups and transactions wait for them.
 *
 * A change of the catalog (news) has arrived when what it made is loaded: whoever created a topic may use it at once. A partition's folder bears the
 * topic's id, so that what a deleted topic left behind is never taken for the partition of a new one of that name; what a crash left is removed at the start.
 */
#include "frame_int.h"

#include <stdio.h>

#define LOADS 2
#define LOAD_BATCH 16
#define FOLDER_NAME_BYTES 200 /* of the topic's name, in that of the folder: the id tells which it is */

struct load_item {
    struct bpart *p;
    struct part_renewal *renewal; /* of `old`; NULL: it is loaded for the first time */
    struct part *old;
    struct part_conf conf;     /* as when it began */
    char name[PART_NAME_MAX + 1];
    struct part *part;         /* result */
    enum err err;
    struct buf why;
};
struct load {
    struct work work;
    struct shard *shard;
    uint32_t n;
    struct load_item items[LOAD_BATCH];
};
/* When partitions that could not be loaded, or of which the disk failed, are tried again, all together: the longer it goes on, the less often. */
#define RETRY_MS_MIN 1000
#define RETRY_MS_MAX 60000
#define RETRY_CALM_MS 120000   /* without a failure: the next one is a new story */
struct shard_parts {
    struct shard *shard;
    struct list wanted;        /* struct bpart */
    struct list lame;          /* struct bpart: offline, or to be renewed, waiting for the next try */
    struct timer retry;        /* set while lame is not empty */
    uint64_t retry_ms;         /* until the next try, once there is one */
    uint64_t failed_ms;        /* loop time of the last failure */
    struct load loads[LOADS];
    uint32_t running;          /* bit i: loads[i] is in the pool */
    struct list grave;         /* struct bpart: deleted; whoever saw it in this turn may still look at it */
    struct list grave_old;     /* of the turn before */
    struct task bury;
    bool stopped;
};

void part_folder(const struct topic *t, int32_t partition, char out[PART_NAME_MAX + 1])
{
    char id[UUID_TEXT + 1];
    uuid_text(t->id, id);
    snprintf(out, PART_NAME_MAX + 1, "%.*s.%s-%d", FOLDER_NAME_BYTES, t->name, id, partition);
}

struct shard *shard_of_part(struct broker *b, const struct kafka_uuid *topic_id, int32_t partition)
{
    uint32_t first;
    memcpy(&first, topic_id->b + 8, sizeof first); /* random bits: partitions of a topic lie side by side, topics begin anywhere */
    return b->shards[(first + (uint32_t)partition) % b->shards_n];
}

static struct slice key_of(struct part_key *key, const struct kafka_uuid *topic_id, int32_t partition)
{
    memcpy(key->topic, topic_id->b, sizeof key->topic);
    key->partition = partition;
    return slice_of((const char *)key, sizeof *key);
}

struct bpart *shard_part(struct shard *s, const struct kafka_uuid *topic_id, int32_t partition)
{
    struct part_key key;
    return table_get(&s->parts, key_of(&key, topic_id, partition));
}

struct bpart *shard_part_named(struct shard *s, struct slice topic, int32_t partition)
{
    struct topic *t = catalog_topic(s->catalog, topic);
    return t ? shard_part(s, &t->id, partition) : NULL;
}

enum kafka_error bpart_error(const struct bpart *p)
{
    if (!p)
        return KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (p->part)
        return KAFKA_NONE;
    return p->offline ? KAFKA_KAFKA_STORAGE_ERROR : KAFKA_NOT_LEADER_OR_FOLLOWER;
}

static void live_set(struct bpart *p, int32_t epoch) { __atomic_store_n(&bpart_live(p)->epoch, epoch, __ATOMIC_RELAXED); }

/* ---- what a crash left behind ------------------------------------------------------------------------------------------- */

struct orphans {
    struct broker *b;
    const char *folder;        /* whose files are being removed; NULL: the data folder is being read */
    struct buf names;          /* each with its NUL */
};

/* The topic's id in a folder's name, NAME.ID-PARTITION; false: it is none of ours. */
static bool folder_topic(struct slice name, struct kafka_uuid *id)
{
    size_t n = name.n;
    while (n && name.p[n - 1] >= '0' && name.p[n - 1] <= '9')
        n--;
    if (n == name.n || n < UUID_TEXT + 2 || name.p[n - 1] != '-' || name.p[n - 2 - UUID_TEXT] != '.')
        return false;
    return uuid_parse(slice_of(name.p + n - 1 - UUID_TEXT, UUID_TEXT), id) == OK;
}

static void orphan_each(void *ctx, const char *name, bool folder, uint64_t bytes)
{
    struct orphans *o = ctx;
    struct kafka_uuid id;
    (void)bytes;
    if (o->folder ? !folder : folder && folder_topic(slice_cstr(name), &id) && !catalog_topic_by_id(o->b->catalog, &id))
        buf_add(&o->names, name, strlen(name) + 1);
}

static enum err orphan_remove(struct broker *b, const char *path)
{
    struct orphans files = {.b = b, .folder = path};
    enum err e = disk_list(path, orphan_each, &files);
    for (size_t i = 0; e == OK && i < files.names.n; i += strlen(files.names.p + i) + 1) {
        struct buf file = {0};
        buf_printf(&file, "%s/%s", path, files.names.p + i);
        e = disk_remove(file.p);
        buf_free(&file);
    }
    buf_free(&files.names);
    return e == OK ? disk_remove_dir(path) : e;
}

void parts_remove_orphans(struct broker *b)
{
    struct orphans all = {.b = b};
    if (disk_list(b->conf.log.dir, orphan_each, &all) != OK)
        all.names.n = 0;
    for (size_t i = 0; i < all.names.n; i += strlen(all.names.p + i) + 1) {
        struct buf path = {0};
        buf_printf(&path, "%s/%s", b->conf.log.dir, all.names.p + i);
        enum err e = orphan_remove(b, path.p);
        if (e == OK)
            log_info("broker", "%s: its topic was deleted before the last process ended: removed", path.p);
        else
            log_warn("broker", "%s belongs to a topic that was deleted, and can't be removed: %s; it takes space and does no harm", path.p, err_text(e));
        buf_free(&path);
    }
    buf_free(&all.names);
}

/* ---- deleting ------------------------------------------------------------------------------------------------------ */

static void bpart_free(struct bpart *p)
{
    topic_unref(p->topic);
    mem_free(p);
}

static void grave_clear(struct list *grave)
{
    LIST_FOREACH(it, grave) {
        list_del(it);
        bpart_free(CONTAINER_OF(it, struct bpart, link));
    }
}

static void on_bury(struct task *t)
{
    struct shard_parts *sp = CONTAINER_OF(t, struct shard_parts, bury);
    grave_clear(&sp->grave_old);
    LIST_FOREACH(it, &sp->grave) {
        list_del(it);
        list_push(&sp->grave_old, it);
    }
    if (!list_empty(&sp->grave_old))
        loop_defer(sp->shard->loop, t);
}

static void bpart_bury(struct shard_parts *sp, struct bpart *p)
{
    list_push(&sp->grave, &p->link);
    loop_defer(sp->shard->loop, &sp->bury);
}

static void news_loaded(struct shard *s, struct news *n)
{
    if (n && --n->loads_left == 0)
        round_shard_done(s, n);
}

/* It is not offline, or does not count as such any more. */
static void bpart_online(struct shard *s, struct bpart *p)
{
    if (p->offline)
        counter_add(&s->counters->parts_offline, (uint64_t)-1);
    p->offline = false;
}

static void bpart_delete(struct shard *s, struct bpart *p)
{
    struct part_key key;
    for (uint32_t i = 0; i < modules_n; i++)
        if (modules[i]->part_gone)
            modules[i]->part_gone(s, p);
    table_del(&s->parts, key_of(&key, &p->topic->id, p->partition));
    counter_set(&s->counters->parts, s->parts.n);
    bpart_online(s, p);
    p->gone = true;
    if (p->part)
        counter_add(&s->counters->parts_ready, (uint64_t)-1);
    struct part *part = p->part;
    p->part = NULL;
    if (p->loading)
        return; /* it is deleted when it comes back */
    if (part)
        part_delete(part);
    list_del(&p->link);
    news_loaded(s, p->news);
    p->news = NULL;
    bpart_bury(s->loading, p);
}

/* ---- loading ----------------------------------------------------------------------------------------------------------- */

static void load_run(struct work *w)
{
    struct load *load = CONTAINER_OF(w, struct load, work);
    for (uint32_t i = 0; i < load->n; i++) {
        struct load_item *it = &load->items[i];
        if (it->renewal)
            it->err = part_renew_run(it->renewal, &it->why);
        else
            it->err = part_load(load->shard->b->log, it->name, &it->conf, &it->part, &it->why);
    }
}

/* It is tried (again), when the time has come. */
static void lame_add(struct shard *s, struct bpart *p)
{
    struct shard_parts *sp = s->loading;
    if (sp->stopped || p->gone)
        return;
    list_push(&sp->lame, &p->link);
    if (loop_now_ms(s->loop) > sp->failed_ms + RETRY_CALM_MS)
        sp->retry_ms = RETRY_MS_MIN;
    sp->failed_ms = loop_now_ms(s->loop);
    if (!timer_is_set(&sp->retry)) {
        timer_set(s->loop, &sp->retry, sp->retry_ms);
        sp->retry_ms = MIN(sp->retry_ms * 2, RETRY_MS_MAX);
    }
}

static void on_failure(void *ctx, struct part *part)
{
    struct bpart *p = part_owner(part);
    if (p && list_empty(&p->link))
        lame_add(ctx, p);
}

/* What failed for want of room need not wait for its turn. */
static void on_room(void *ctx)
{
    struct shard *s = ctx;
    struct shard_parts *sp = s->loading;
    sp->retry_ms = RETRY_MS_MIN;
    if (!sp->stopped && !list_empty(&sp->lame))
        timer_set(s->loop, &sp->retry, 1);
}

/* Said once, however often it is tried. One that serves what is sound goes on with that. */
static void item_failed(struct shard *s, struct load_item *it)
{
    struct bpart *p = it->p;
    if (p->gone)
        return;
    if (!p->offline && !it->old) {
        log_error("broker", "partition %d of topic %s is offline, and is tried again by and by: %s: " SLICE_FMT, p->partition, p->topic->name, err_text(it->err),
                  SLICE_ARG(buf_slice(&it->why)));
        p->offline = true;
        live_set(p, LIVE_OFFLINE);
        counter_inc(&s->counters->parts_offline);
    }
    lame_add(s, p);
}

/* The one in the pool is to take the place of the one that serves. */
static void item_replace(struct shard *s, struct load_item *it)
{
    struct bpart *p = it->p;
    if (p->gone)
        return;
    for (uint32_t i = 0; i < modules_n; i++)
        if (modules[i]->part_gone)
            modules[i]->part_gone(s, p);
    p->part = NULL;
    counter_add(&s->counters->parts_ready, (uint64_t)-1);
}

static void item_attach(struct shard *s, struct load_item *it)
{
    struct bpart *p = it->p;
    if (p->offline || it->old)
        log_info("broker", "partition %d of topic %s could be loaded and is back", p->partition, p->topic->name);
    bpart_online(s, p);
    part_attach(it->part, s->log);
    p->part = it->part;
    part_owner_set(p->part, p);
    part_conf_set(p->part, &p->topic->settings.part); /* they may have changed meanwhile */
    if (p->gone) {
        part_delete(p->part);
        p->part = NULL;
        return;
    }
    struct part_offsets o;
    part_offsets(p->part, &o);
    live_set(p, o.epoch);
    counter_inc(&s->counters->parts_ready);
    for (uint32_t i = 0; i < modules_n; i++)
        if (modules[i]->part_attached)
            modules[i]->part_attached(s, p);
    if (o.failed)
        lame_add(s, p);
}

static void item_done(struct shard *s, struct load_item *it)
{
    struct bpart *p = it->p;
    p->loading = false;
    if (it->renewal)
        it->part = part_renew_end(it->renewal);
    if (it->old && it->part)
        item_replace(s, it);
    else if (it->old && p->gone)
        part_delete(it->old);
    if (it->err == OK)
        item_attach(s, it);
    else
        item_failed(s, it);
    buf_free(&it->why);
    news_loaded(s, p->news);
    p->news = NULL;
    if (p->gone)
        bpart_bury(s->loading, p);
}

static void loads_begin(struct shard_parts *sp);

static void load_done(struct work *w)
{
    struct load *load = CONTAINER_OF(w, struct load, work);
    struct shard *s = load->shard;
    for (uint32_t i = 0; i < load->n; i++)
        item_done(s, &load->items[i]);
    s->loading->running &= ~(1u << (load - s->loading->loads));
    loads_begin(s->loading);
    shard_stop_step(s);
}

/* False: works still use the partition that is to be renewed. */
static bool item_begin(struct load_item *it, struct bpart *p)
{
    *it = (struct load_item){.p = p, .conf = p->topic->settings.part, .old = p->part};
    if (p->part && !(it->renewal = part_renew_begin(p->part, &it->conf)))
        return false;
    p->loading = true;
    part_folder(p->topic, p->partition, it->name);
    return true;
}

static void load_begin(struct shard_parts *sp, struct load *load)
{
    load->shard = sp->shard;
    load->work = (struct work){.run = load_run, .done = load_done};
    for (load->n = 0; load->n < LOAD_BATCH && !list_empty(&sp->wanted);) {
        struct bpart *p = CONTAINER_OF(sp->wanted.next, struct bpart, link);
        list_del(&p->link);
        if (item_begin(&load->items[load->n], p))
            load->n++;
        else
            lame_add(sp->shard, p);
    }
    if (load->n == 0)
        return;
    sp->running |= 1u << (load - sp->loads);
    work_submit(sp->shard->loop, &load->work);
}

static void loads_begin(struct shard_parts *sp)
{
    for (uint32_t i = 0; i < LOADS && !sp->stopped && !list_empty(&sp->wanted); i++)
        if (!(sp->running & 1u << i))
            load_begin(sp, &sp->loads[i]);
}

static void on_retry(struct timer *t)
{
    struct shard_parts *sp = CONTAINER_OF(t, struct shard_parts, retry);
    LIST_FOREACH(it, &sp->lame) {
        list_del(it);
        list_push(&sp->wanted, it);
    }
    loads_begin(sp);
}

/* ---- the catalog's changes --------------------------------------------------------------------------------------------------- */

static void bpart_make(struct shard *s, struct topic *t, int32_t partition, struct news *n)
{
    struct bpart *p = mem_new(MEM_BROKER, sizeof *p);
    struct slice key = key_of(&p->key, &t->id, partition);
    p->topic = topic_ref(t);
    p->partition = partition;
    list_init(&p->link);
    MUST(!table_put(&s->parts, key, p));
    if (s->loading->stopped)
        return;
    p->news = n;
    if (n)
        n->loads_left++;
    if (t->internal)
        list_push_front(&s->loading->wanted, &p->link);
    else
        list_push(&s->loading->wanted, &p->link);
}

static bool is_mine(struct shard *s, const struct topic *t, int32_t partition) { return shard_of_part(s->b, &t->id, partition) == s; }

static void topic_made(struct shard *s, struct topic *t, int32_t from, struct news *n)
{
    for (int32_t i = from; i < t->partitions; i++)
        if (is_mine(s, t, i))
            bpart_make(s, t, i, n);
    counter_set(&s->counters->parts, s->parts.n);
}

/* The new state of a topic; when it has grown, what this shard counted moves to the new place. */
static void bpart_renew(struct bpart *p, struct topic *t)
{
    struct topic *old = p->topic;
    struct part_live *was = bpart_live(p);
    p->topic = topic_ref(t);
    if (old->live != t->live) {
        struct part_live *live = bpart_live(p);
        counter_set(&live->in_bytes, was->in_bytes);
        counter_set(&live->in_batches, was->in_batches);
        counter_set(&live->in_records, was->in_records);
        counter_set(&live->out_bytes, was->out_bytes);
        live_set(p, __atomic_load_n(&was->epoch, __ATOMIC_RELAXED));
    }
    if (p->part)
        part_conf_set(p->part, &t->settings.part);
    topic_unref(old);
}

static void topic_news(struct shard *s, const struct change_pair *c, struct news *n)
{
    int32_t there = c->before ? c->before->partitions : 0;
    for (int32_t i = 0; i < there; i++) {
        if (!is_mine(s, c->before, i))
            continue;
        struct bpart *p = shard_part(s, &c->before->id, i);
        if (c->after)
            bpart_renew(p, c->after);
        else
            bpart_delete(s, p);
    }
    if (c->after)
        topic_made(s, c->after, there, n);
    for (uint32_t i = 0; !c->after && i < modules_n; i++)
        if (modules[i]->topic_gone)
            modules[i]->topic_gone(s, c->before);
}

void news_arrived(struct shard *here, struct call *call)
{
    struct news *n = CONTAINER_OF(call, struct news, call);
    struct round *round = n->round;
    struct catalog *old = here->catalog;
    n->loads_left = 1;
    here->catalog = catalog_ref(round->next);
    for (uint32_t i = 0; i < round->pairs_n; i++)
        topic_news(here, &round->pairs[i], n);
    catalog_unref(old);
    loads_begin(here->loading);
    news_loaded(here, n);
}

void parts_init(struct shard *s)
{
    struct shard_parts *sp = mem_new(MEM_BROKER, sizeof *sp);
    s->loading = sp;
    sp->shard = s;
    list_init(&sp->wanted);
    list_init(&sp->lame);
    timer_init(&sp->retry, on_retry);
    sp->retry_ms = RETRY_MS_MIN;
    list_init(&sp->grave);
    list_init(&sp->grave_old);
    task_init(&sp->bury, on_bury);
}

void parts_begin(struct shard *s)
{
    log_shard_on_failure(s->log, on_failure, s);
    log_shard_on_room(s->log, on_room, s);
    for (struct table_slot *slot = NULL; (slot = table_next(&s->catalog->by_name, slot));)
        topic_made(s, slot->value, 0, NULL);
    loads_begin(s->loading);
}

void parts_stop(struct shard *s)
{
    struct shard_parts *sp = s->loading;
    sp->stopped = true;
    timer_clear(&sp->retry);
    LIST_FOREACH(it, &sp->wanted) {
        struct bpart *p = CONTAINER_OF(it, struct bpart, link);
        list_del(it);
        news_loaded(s, p->news);
        p->news = NULL;
    }
}

bool parts_at_rest(const struct shard *s) { return s->loading->running == 0; }

void parts_fini(struct shard *s)
{
    struct shard_parts *sp = s->loading;
    list_del(&sp->bury.link);
    timer_clear(&sp->retry);
    grave_clear(&sp->grave);
    grave_clear(&sp->grave_old);
    for (struct table_slot *slot = NULL; (slot = table_next(&s->parts, slot));)
        bpart_free(slot->value);
    table_fini(&s->parts);
    mem_free(sp);
}
