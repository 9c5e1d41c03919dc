/* engine_topics.c - topics that objects declare (Topic, KafkaTopic), brought to the broker.
 *
 *     TOPIC_NEW --broker_topic_apply()--> TOPIC_ASKED --told--> TOPIC_READY | TOPIC_REFUSED        again when the object has changed, or was applied as it is;
 *                                                                                               refused: every TOPICS_RETRY_MS
 *     no object has it any more           --broker_topic_delete()--> gone
 *
 * Which topics were declared is kept in DATA/topics: a topic whose object was deleted while the broker was closed, or just before
 * the engine died, is deleted by the next engine. Only names in that file are ever deleted; what clients made by themselves stays.
 * The file is written before a topic is asked for, and again when one is gone.
 */
#include "engine_int.h"

#define TOPICS_FILE_BYTES_MAX (16u << 20)
#define TOPICS_RETRY_MS 10000 /* what the broker refused may do now: a topic in its way is gone, the disk has room */

struct declared {
    struct engine *e;
    char *topic;
    uint64_t hash;       /* of the object that was asked for last */
    enum { TOPIC_NEW, TOPIC_ASKED, TOPIC_READY, TOPIC_REFUSED } state;
    bool wanted;         /* an object has it */
    bool deleting;       /* TOPIC_ASKED: it is being deleted */
    bool again;          /* the change under way gives its object: asked again afterwards */
    char *why;           /* TOPIC_REFUSED, and while it is asked again: in the broker's words */
};

static void topics_path(const struct engine *e, struct buf *path) { buf_printf(path, "%s/topics", e->conf.data_dir); }

static void topics_save(struct engine *e)
{
    struct buf path = {0}, text = {0};
    topics_path(e, &path);
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));) {
        buf_add(&text, s->key, s->key_n);
        buf_addc(&text, '\n');
    }
    enum err er = file_replace(path.p, text.p ? text.p : "", text.n, 0600);
    if (er != OK)
        log_error("broker", "%s can't be written: %s; a topic whose object is deleted may stay when the engine restarts", path.p, err_text(er));
    buf_free(&path);
    buf_free(&text);
}

static struct declared *declared_make(struct engine *e, struct slice topic)
{
    struct declared *d = mem_new(MEM_API, sizeof *d);
    d->e = e;
    d->topic = mem_strndup(MEM_API, topic.p, topic.n);
    table_put(&e->broker.topics, topic, d);
    return d;
}

static void declared_free(struct declared *d)
{
    mem_free(d->topic);
    mem_free(d->why);
    mem_free(d);
}

static void topics_retry(struct timer *t);

void topics_init(struct engine *e)
{
    timer_init(&e->broker.topics_retry, topics_retry);
    struct buf path = {0}, text = {0};
    topics_path(e, &path);
    enum err er = e->broker.off ? ERR_NOTFOUND : file_read(path.p, &text, TOPICS_FILE_BYTES_MAX);
    if (er != OK && er != ERR_NOTFOUND)
        log_error("broker", "%s can't be read: %s; topics whose objects were deleted while the engine was down stay", path.p, err_text(er));
    for (struct slice rest = er == OK ? buf_slice(&text) : SLICE(""), line; rest.n;) {
        line = slice_cut(rest, '\n', &rest);
        if (topic_name_is_good(line) && !table_get(&e->broker.topics, line))
            declared_make(e, line);
    }
    buf_free(&path);
    buf_free(&text);
}

void topics_fini(struct engine *e)
{
    timer_clear(&e->broker.topics_retry);
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));)
        declared_free(s->value);
    table_fini(&e->broker.topics);
}

/* ---- asking ---------------------------------------------------------------------------------------------------------------------- */

static void declared_next(struct declared *d, const struct object *o);
static void quotas_follow(struct engine *e);

static const struct object *object_of(const struct engine *e, const char *topic)
{
    for (size_t i = 0; i < objset_n(e->objects); i++) {
        const struct object *o = objset_at(e->objects, i);
        if ((o->kind == OBJ_TOPIC || o->kind == OBJ_KAFKATOPIC) && strcmp(o->topic.topic, topic) == 0)
            return o;
    }
    return NULL;
}

/* The broker has answered. error is its sentence, or NULL. */
static void topic_told(void *ctx, const char *error)
{
    struct declared *d = ctx;
    struct engine *e = d->e;
    bool deleted = d->deleting;
    if (error && (!d->why || strcmp(d->why, error) != 0)) /* once, and not with each try */
        log_error("broker", "topic %s: %s", d->topic, error);
    mem_free(d->why);
    d->why = mem_strdup(MEM_API, error);
    d->state = error ? TOPIC_REFUSED : TOPIC_READY;
    if (error && !timer_is_set(&e->broker.topics_retry))
        timer_set(e->loop, &e->broker.topics_retry, TOPICS_RETRY_MS);
    d->deleting = false;
    if (deleted && !d->wanted) { /* also after an error: it was said, and the topic is now its clients' affair */
        table_del(&e->broker.topics, slice_cstr(d->topic));
        declared_free(d);
        topics_save(e);
        return;
    }
    if (deleted)
        d->state = TOPIC_NEW; /* declared again meanwhile */
    declared_next(d, object_of(e, d->topic));
}

/* One binding for each operation of each entry. mem_free(). */
static struct broker_acl *acls_of(const struct topic_spec *t, uint32_t *n)
{
    static const uint8_t on_wire[TOPIC_OPERATIONS] = {[TOPIC_ALL] = 2,      [TOPIC_READ] = 3,     [TOPIC_WRITE] = 4,             [TOPIC_CREATE_IT] = 5,    [TOPIC_DELETE_IT] = 6,
                                                      [TOPIC_ALTER] = 7,    [TOPIC_DESCRIBE] = 8, [TOPIC_DESCRIBE_CONFIGS] = 10, [TOPIC_ALTER_CONFIGS] = 11};
    struct broker_acl *acls = mem_new(MEM_API, (t->acls_n * TOPIC_OPERATIONS + 1) * sizeof *acls);
    *n = 0;
    for (size_t i = 0; i < t->acls_n; i++)
        for (uint32_t op = 0; op < TOPIC_OPERATIONS; op++)
            if (t->acls[i].operations & 1u << op)
                acls[(*n)++] = (struct broker_acl){slice_cstr(t->acls[i].principal), slice_cstr(t->acls[i].host), on_wire[op], t->acls[i].deny};
    return acls;
}

static void topic_ask(struct declared *d, const struct object *o)
{
    const struct topic_spec *t = &o->topic;
    uint32_t acls_n;
    struct broker_acl *acls = acls_of(t, &acls_n);
    struct slice *settings = mem_new(MEM_API, (2 * t->config.n + 1) * sizeof *settings);
    for (size_t i = 0; i < t->config.n; i++) {
        settings[2 * i] = slice_cstr(t->config.items[i].key);
        settings[2 * i + 1] = slice_of(t->config.items[i].value, t->config.items[i].value_n);
    }
    struct broker_topic bt = {.name = slice_cstr(t->topic),
                              .partitions = (int32_t)t->partitions,
                              .settings = settings,
                              .settings_n = (uint32_t)t->config.n,
                              .only_these = true,
                              .acls = acls,
                              .acls_n = acls_n};
    d->state = TOPIC_ASKED;
    d->hash = o->hash;
    broker_topic_apply(d->e->broker.b, &bt, d->e->loop, topic_told, d);
    mem_free(settings);
    mem_free(acls);
}

/* The next step for one topic, if there is one. It may be gone afterwards. */
static void declared_next(struct declared *d, const struct object *o)
{
    if (d->state == TOPIC_ASKED || d->e->broker.state != BROKER_SERVING)
        return;
    if (o && (d->state == TOPIC_NEW || d->hash != o->hash)) {
        topic_ask(d, o);
    } else if (!o) {
        d->state = TOPIC_ASKED;
        d->deleting = true;
        broker_topic_delete(d->e->broker.b, slice_cstr(d->topic), d->e->loop, topic_told, d);
    }
}

/* ---- quotas: all of them together --------------------------------------------------------------------------------------------------- */

static void quotas_told(void *ctx, const char *error)
{
    struct engine *e = ctx;
    e->broker.quotas_asked = false;
    if (error)
        log_error("broker", "quotas: %s", error);
    if (e->broker.quotas_again)
        quotas_follow(e);
}

static double least(double a, int64_t b) { return b && (a == 0 || (double)b < a) ? (double)b : a; }

/* What all Topics say of each principal. mem_free(). */
static struct broker_quota *quotas_gather(const struct engine *e, uint32_t *n)
{
    struct broker_quota *all = NULL;
    uint32_t cap = 0;
    *n = 0;
    for (size_t i = 0; i < objset_n(e->objects); i++) {
        const struct object *o = objset_at(e->objects, i);
        for (size_t k = 0; o->kind == OBJ_TOPIC && k < o->topic.quotas_n; k++) {
            const struct topic_quota *q = &o->topic.quotas[k];
            struct slice user = slice_cstr(q->principal + strlen("User:"));
            uint32_t at = 0;
            while (at < *n && !slice_eq(all[at].user, user))
                at++;
            if (at == *n) {
                ARRAY_GROW(MEM_API, all, *n, cap);
                all[(*n)++] = (struct broker_quota){.user = user};
            }
            all[at].producer_bytes = least(all[at].producer_bytes, q->producer_bytes);
            all[at].consumer_bytes = least(all[at].consumer_bytes, q->consumer_bytes);
            all[at].request_percent = least(all[at].request_percent, q->request_percent);
        }
    }
    return all;
}

static void quotas_follow(struct engine *e)
{
    uint32_t n;
    e->broker.quotas_again = e->broker.quotas_asked;
    if (e->broker.quotas_asked || e->broker.state != BROKER_SERVING)
        return;
    struct broker_quota *all = quotas_gather(e, &n);
    e->broker.quotas_asked = true;
    broker_quotas_apply(e->broker.b, all, n, e->loop, quotas_told, e); /* nothing is written when nothing has changed */
    mem_free(all);
}

/* ---- following the objects --------------------------------------------------------------------------------------------------------- */

/* Marks what objects want; true when there are names that the file has not. */
static bool topics_mark(struct engine *e)
{
    bool fresh = false;
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));)
        ((struct declared *)s->value)->wanted = false;
    for (size_t i = 0; i < objset_n(e->objects); i++) {
        const struct object *o = objset_at(e->objects, i);
        if (o->kind != OBJ_TOPIC && o->kind != OBJ_KAFKATOPIC)
            continue;
        struct slice name = slice_cstr(o->topic.topic);
        struct declared *d = table_get(&e->broker.topics, name);
        fresh = fresh || !d;
        d = d ? d : declared_make(e, name);
        d->wanted = true;
    }
    return fresh;
}

void topics_follow(struct engine *e)
{
    if (e->broker.off || !e->objs.settled) /* nobody knows yet what is declared */
        return;
    if (topics_mark(e))
        topics_save(e);
    if (e->broker.state != BROKER_SERVING)
        return;
    struct declared **all = mem_new(MEM_API, (e->broker.topics.n + 1) * sizeof *all); /* an answer may come at once, and change the table */
    size_t n = 0;
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));)
        all[n++] = s->value;
    for (size_t i = 0; i < n; i++)
        declared_next(all[i], object_of(e, all[i]->topic));
    mem_free(all);
    quotas_follow(e);
}

void topics_given(struct engine *e, const struct objset *given)
{
    for (size_t i = 0; i < objset_n(given); i++) {
        const struct object *o = objset_at(given, i);
        struct declared *d = o->kind == OBJ_TOPIC || o->kind == OBJ_KAFKATOPIC ? table_get(&e->broker.topics, slice_cstr(o->topic.topic)) : NULL;
        if (d)
            d->again = true;
    }
}

void topics_again(struct engine *e, bool applied)
{
    bool any = false;
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));) {
        struct declared *d = s->value;
        if (d->again && applied && (d->state == TOPIC_READY || d->state == TOPIC_REFUSED)) {
            d->state = TOPIC_NEW;
            any = true;
        }
        d->again = false;
    }
    if (any)
        topics_follow(e);
}

static void topics_retry(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, broker.topics_retry);
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));) {
        struct declared *d = s->value;
        if (d->state == TOPIC_REFUSED)
            d->state = TOPIC_NEW;
    }
    topics_follow(e);
}

/* The broker closes: what was asked is asked again of the next one. */
void topics_rest(struct engine *e)
{
    timer_clear(&e->broker.topics_retry);
    for (struct table_slot *s = NULL; (s = table_next(&e->broker.topics, s));) {
        struct declared *d = s->value;
        d->state = TOPIC_NEW;
        d->deleting = false;
    }
    e->broker.quotas_asked = e->broker.quotas_again = false;
}

int topics_status(struct engine *e, const struct object *o, struct buf *why)
{
    const struct declared *d = table_get(&e->broker.topics, slice_cstr(o->topic.topic));
    if (e->broker.off) {
        buf_adds(why, "the node runs without an event log (--kafka off)");
        return -1;
    }
    if (e->broker.place == LOG_AWAY) {
        buf_printf(why, "node %s keeps the event log; it knows", e->broker.home.node);
        return 0;
    }
    bool serving = e->broker.state == BROKER_SERVING, asked = d && serving && d->hash == o->hash;
    bool refused = asked && d->why && !d->deleting, ready = asked && d->state == TOPIC_READY; /* refused: also while it is tried again */
    if (refused) {
        buf_adds(why, d->why);
    } else if (!ready) {
        buf_adds(why, serving ? "the broker has been asked" : "the event log is not open yet");
    } else if (!broker_topic_there(e->broker.b, slice_cstr(d->topic))) {
        buf_adds(why, "a client has deleted the topic; apply the object again, and it is made anew");
        return 0;
    }
    return refused ? -1 : ready;
}
