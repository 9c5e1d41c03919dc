/* broker.c - the broker of a process: opening its folder, its shards, what threads outside ask of it. The model: README.md. */
#include "frame_int.h"
#include "security_int.h"

#include <pthread.h>

#define CONNECTIONS_MAX 10000
#define REQUEST_BYTES_MAX 104857600u /* socket.request.max.bytes */
#define IDLE_MS 600000u              /* connections.max.idle.ms */
#define MEMORY_BYTES (256ull << 20)
#define INTERNAL_PARTITIONS 50

/* catalog_lock guards broker.catalog: written by shard 0, read by threads that have no snapshot of their own. Innermost; on no data path. */
static pthread_mutex_t catalog_lock = PTHREAD_MUTEX_INITIALIZER;

const struct module *const modules[] = {
#define X(name) &name##_module,
#include "modules.def"
#undef X
    NULL};
const uint32_t modules_n = COUNT_OF(modules) - 1;

void broker_conf_default(struct broker_conf *c)
{
    *c = (struct broker_conf){.node_name = "weir",
                              .node_id = 1,
                              .shards = 1,
                              .connections_max = CONNECTIONS_MAX,
                              .request_bytes_max = REQUEST_BYTES_MAX,
                              .idle_ms = IDLE_MS,
                              .memory_bytes = MEMORY_BYTES,
                              .partitions = 1,
                              .offsets_partitions = INTERNAL_PARTITIONS,
                              .txn_partitions = INTERNAL_PARTITIONS,
                              .group_delay_ms = 3000,
                              .auto_create = true,
                              .records_checked = true};
    log_store_conf_default(&c->log);
}

enum err broker_open(const struct broker_conf *conf, struct broker **out, struct buf *why)
{
    MUST(conf->shards >= 1 && conf->shards <= SHARDS_MAX);
    struct broker *b = mem_new(MEM_BROKER, sizeof *b);
    b->conf = *conf;
    b->conf.log.dir = mem_strdup(MEM_BROKER, conf->log.dir);
    b->conf.node_name = mem_strdup(MEM_BROKER, conf->node_name);
    apis_init();
    enum err e = log_store_open(&conf->log, &b->log, why);
    if (e == OK)
        e = controller_open(b, why);
    for (uint32_t i = 0; i < modules_n && e == OK; i++)
        if (modules[i]->open)
            e = modules[i]->open(b, why);
    if (e == OK) {
        parts_remove_orphans(b);
        *out = b;
        return OK;
    }
    broker_free(b);
    return e;
}

struct shard *broker_shard_new(struct broker *b, uint32_t index, struct loop *loop)
{
    MUST(index == b->shards_n && index < b->conf.shards);
    struct shard *s = mem_new(MEM_BROKER, sizeof *s);
    b->shards[b->shards_n++] = s;
    s->b = b;
    s->index = index;
    s->loop = loop;
    s->catalog = catalog_ref(b->catalog);
    s->counters = mem_new(MEM_BROKER, sizeof *s->counters);
    s->log = log_shard_new(b->log, loop, index);
    shard_comm_new(s);
    parts_init(s);
    conns_init(s);
    for (uint32_t i = 0; i < modules_n; i++)
        if (modules[i]->init)
            modules[i]->init(s);
    return s;
}

struct start_call {
    struct call call;
};

static void shard_start(struct shard *here, struct call *c)
{
    mem_free(CONTAINER_OF(c, struct start_call, call));
    if (!here->stopping)
        parts_begin(here);
}

void broker_start(struct broker *b)
{
    MUST(b->shards_n == b->conf.shards);
    for (uint32_t i = 0; i < b->shards_n; i++) {
        struct start_call *c = mem_new(MEM_BROKER, sizeof *c);
        c->call.fn = shard_start;
        shard_post(b->shards[i], &c->call);
    }
}

void broker_shard_free(struct shard *s)
{
    s->b->shards[s->index] = NULL;
    for (uint32_t i = modules_n; i-- > 0;)
        if (modules[i]->fini)
            modules[i]->fini(s);
    conns_fini(s);
    log_shard_free(s->log);
    parts_fini(s);
    shard_comm_free(s);
    catalog_unref(s->catalog);
    mem_free(s->counters);
    mem_free(s);
}

void broker_free(struct broker *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->shards_n; i++)
        MUST(!b->shards[i]);
    for (uint32_t i = modules_n; i-- > 0;)
        if (modules[i]->close)
            modules[i]->close(b);
    controller_free(b);
    catalog_unref(b->catalog);
    if (b->log)
        log_store_close(b->log);
    mem_free((char *)(uintptr_t)b->conf.log.dir);
    mem_free((char *)(uintptr_t)b->conf.node_name);
    mem_free(b);
}

void broker_catalog_set(struct broker *b, struct catalog *cat)
{
    struct catalog *old = b->catalog;
    catalog_ref(cat);
    pthread_mutex_lock(&catalog_lock);
    b->catalog = cat;
    pthread_mutex_unlock(&catalog_lock);
    catalog_unref(old);
}

struct catalog *broker_catalog(struct broker *b)
{
    pthread_mutex_lock(&catalog_lock);
    struct catalog *cat = catalog_ref(b->catalog);
    pthread_mutex_unlock(&catalog_lock);
    return cat;
}

/* ---- topics for the control loop -------------------------------------------------------------------------------------- */

/* What a manifest wants of a topic: first its permissions, so that it is never open to others; then it is made when it is not there, else first
 * grown, then configured. When it is deleted, they go last. */
struct wish {
    struct outsider outsider;
    struct call call;
    struct arena arena;
    struct topic_change change;
    struct slice name;
    struct slice *settings;
    uint32_t settings_n;
    int32_t partitions;
    bool only_these, remove;
    struct security_change permissions;
    struct broker_acl *acls;
    uint32_t acls_n;
    struct broker_quota *quotas; /* of broker_quotas_apply(); then nothing else */
    uint32_t quotas_n;
    char *error;               /* in the arena; NULL: it is as wished */
    void (*told)(void *ctx, const char *error);
    void *ctx;
};

static void wish_told(struct outsider *o, struct call *c)
{
    struct wish *w = CONTAINER_OF(o, struct wish, outsider);
    (void)c;
    outsider_fini(o);
    w->told(w->ctx, w->error);
    arena_fini(&w->arena);
    mem_free(w);
}

static void wish_end(struct shard *zero, struct wish *w)
{
    zero->b->wishes--;
    outsider_tell(zero, &w->outsider, &w->call);
    shard_stop_step(zero);
}

static void wish_change(struct shard *here, struct wish *w, void (*done)(struct shard *from, struct topic_change *c))
{
    w->change.name = w->name;
    w->change.ctx = w;
    w->change.done = done;
    topic_change(here, &w->change);
}

/* True when it went wrong, which is then told. */
static bool wish_failed(struct shard *here, struct wish *w)
{
    struct topic_change *c = &w->change;
    bool failed = c->error != KAFKA_NONE;
    if (failed)
        w->error = arena_printf(&w->arena, "%s: %s", kafka_error_name(c->error), c->message ? c->message : "refused");
    mem_free(c->message);
    topic_unref(c->topic);
    *c = (struct topic_change){0};
    if (failed)
        wish_end(here, w);
    return failed;
}

static bool permissions_apply(struct security_change *c, struct secdb *db)
{
    struct wish *w = CONTAINER_OF(c, struct wish, permissions);
    return acls_declare(db, w->name, w->acls, w->acls_n);
}

static void permissions_change(struct shard *zero, struct wish *w, void (*done)(struct shard *from, struct security_change *c, enum kafka_error e))
{
    w->permissions.apply = permissions_apply;
    w->permissions.done = done;
    security_change(zero, &w->permissions);
}

static bool permissions_failed(struct shard *here, struct wish *w, enum kafka_error e)
{
    if (e == KAFKA_NONE)
        return false;
    w->error = arena_printf(&w->arena, "%s: the permissions could not be written", kafka_error_name(e));
    wish_end(here, w);
    return true;
}

static void permissions_gone(struct shard *here, struct security_change *c, enum kafka_error e)
{
    struct wish *w = CONTAINER_OF(c, struct wish, permissions);
    if (!permissions_failed(here, w, e))
        wish_end(here, w);
}

static void wish_done(struct shard *here, struct topic_change *c)
{
    struct wish *w = c->ctx;
    if (wish_failed(here, w))
        return;
    if (w->remove)
        permissions_change(here, w, permissions_gone);
    else
        wish_end(here, w);
}

static void wish_configure(struct shard *here, struct wish *w)
{
    w->change = (struct topic_change){.what = TOPIC_CONFIGURE, .settings = w->settings, .settings_n = w->settings_n};
    if (!w->only_these)
        w->change.ops = arena_zalloc(&w->arena, MAX(w->settings_n, 1u)); /* CONFIG_SET each; the others stay */
    wish_change(here, w, wish_done);
}

static void wish_grown(struct shard *here, struct topic_change *c)
{
    struct wish *w = c->ctx;
    if (!wish_failed(here, w))
        wish_configure(here, w);
}

static void permissions_given(struct shard *zero, struct security_change *c, enum kafka_error e)
{
    struct wish *w = CONTAINER_OF(c, struct wish, permissions);
    const struct topic *t = catalog_topic(zero->catalog, w->name);
    if (permissions_failed(zero, w, e))
        return;
    if (!t) {
        w->change = (struct topic_change){.what = TOPIC_CREATE, .partitions = w->partitions, .settings = w->settings, .settings_n = w->settings_n};
        wish_change(zero, w, wish_done);
    } else if (w->partitions != -1 && w->partitions != t->partitions) {
        w->change = (struct topic_change){.what = TOPIC_GROW, .partitions = w->partitions};
        wish_change(zero, w, wish_grown);
    } else {
        wish_configure(zero, w);
    }
}

static bool quotas_set(struct security_change *c, struct secdb *db)
{
    struct wish *w = CONTAINER_OF(c, struct wish, permissions);
    return quotas_declare(db, w->quotas, w->quotas_n);
}

static void wish_arrived(struct shard *zero, struct call *call)
{
    struct wish *w = CONTAINER_OF(call, struct wish, call);
    zero->b->wishes++;
    if (w->quotas) {
        w->permissions.apply = quotas_set;
        w->permissions.done = permissions_gone;
        security_change(zero, &w->permissions);
    } else if (w->remove) {
        w->change = (struct topic_change){.what = TOPIC_DELETE};
        wish_change(zero, w, wish_done);
    } else {
        permissions_change(zero, w, permissions_given);
    }
}

static struct wish *wish_new(struct broker *b, struct slice name, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx)
{
    struct wish *w = mem_new(MEM_BROKER, sizeof *w);
    arena_init(&w->arena, MEM_BROKER, 1024);
    w->name = arena_slice(&w->arena, name);
    w->told = told;
    w->ctx = ctx;
    w->call.fn = wish_arrived;
    outsider_init(&w->outsider, b, l, wish_told);
    return w;
}

void broker_topic_apply(struct broker *b, const struct broker_topic *t, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx)
{
    struct wish *w = wish_new(b, t->name, l, told, ctx);
    w->partitions = t->partitions;
    w->only_these = t->only_these;
    w->settings_n = t->settings_n;
    w->settings = arena_alloc(&w->arena, sizeof(struct slice) * 2 * MAX(t->settings_n, 1u));
    for (uint32_t i = 0; i < 2 * t->settings_n; i++)
        w->settings[i] = t->settings[i].p ? arena_slice(&w->arena, t->settings[i]) : (struct slice){0};
    w->acls_n = t->acls_n;
    w->acls = arena_alloc(&w->arena, sizeof *w->acls * MAX(t->acls_n, 1u));
    for (uint32_t i = 0; i < t->acls_n; i++)
        w->acls[i] = (struct broker_acl){arena_slice(&w->arena, t->acls[i].principal), arena_slice(&w->arena, t->acls[i].host), t->acls[i].operation, t->acls[i].deny};
    outsider_call(&w->outsider, &w->call);
}

bool broker_topic_there(struct broker *b, struct slice name)
{
    struct catalog *cat = broker_catalog(b);
    bool there = catalog_topic(cat, name) != NULL;
    catalog_unref(cat);
    return there;
}

void broker_topic_delete(struct broker *b, struct slice name, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx)
{
    struct wish *w = wish_new(b, name, l, told, ctx);
    w->remove = true;
    outsider_call(&w->outsider, &w->call);
}

void broker_quotas_apply(struct broker *b, const struct broker_quota *quotas, uint32_t n, struct loop *l, void (*told)(void *ctx, const char *error), void *ctx)
{
    struct wish *w = wish_new(b, SLICE(""), l, told, ctx);
    w->quotas_n = n;
    w->quotas = arena_alloc(&w->arena, sizeof *w->quotas * MAX(n, 1u));
    for (uint32_t i = 0; i < n; i++) {
        w->quotas[i] = quotas[i];
        w->quotas[i].user = arena_slice(&w->arena, quotas[i].user);
    }
    outsider_call(&w->outsider, &w->call);
}
