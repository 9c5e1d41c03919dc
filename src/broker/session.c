/* session.c - fetch sessions (KIP-227): what a consumer wants of many partitions is kept here between its fetches, so that a request names only what has
 * changed, and an answer only what has something to say.
 *
 *     request (id, epoch)          meaning
 *     0, -1                        no session: all is in the request
 *     any, 0                       a new session; one with that id ends
 *     id, -1                       the session ends; all is in the request
 *     id, n > 0                    the session's next request; n is one more than the last one's (after 2147483647 comes 1)
 *
 * A session lives on the shard that made it. Its partitions (struct fetch_part) are in a table here, and, grouped by the shards that own them, in the
 * hands of these (fetch_group.c); those that are not in the catalog are on the list `absent`.
 */
#include "data.h"
#include "prom.h"

static void count_open(struct sessions *ss)
{
    counter_set(&ss->open, ss->by_id.n);
    counter_set(&ss->open_parts, ss->parts);
}

static struct slice id_key(const int32_t *id) { return slice_of((const char *)id, sizeof *id); }

#define PART_KEY_MAX (TOPIC_NAME_MAX + 4)
/* Names are at most TOPIC_NAME_MAX long. */
static struct slice part_key(char key[PART_KEY_MAX], bool by_id, struct slice name, const struct kafka_uuid *id, int32_t partition)
{
    struct slice topic = by_id ? slice_of((const char *)id->b, sizeof id->b) : name;
    MUST(topic.n + sizeof partition <= PART_KEY_MAX);
    memcpy(key, topic.p, topic.n);
    memcpy(key + topic.n, &partition, sizeof partition);
    return slice_of(key, topic.n + sizeof partition);
}

static int32_t epoch_next(int32_t epoch) { return epoch == INT32_MAX ? 1 : epoch + 1; }
static uint32_t slots(const struct shard *s) { return MAX(FETCH_SESSIONS_MAX / s->b->shards_n, 1u); }
static uint32_t parts_max(const struct shard *s) { return FETCH_SESSION_PARTS_MAX / s->b->shards_n; }

/* ---- partitions ------------------------------------------------------------------------------------------------------------ */

struct fetch_part *session_part(struct shard *s, struct fetch_session *fs, struct slice name, const struct kafka_uuid *id, int32_t partition, bool *made)
{
    char key[PART_KEY_MAX];
    struct slice k = part_key(key, fs->by_id, name, id, partition);
    struct fetch_part *fp = table_get(&fs->parts, k);
    *made = false;
    if (fp)
        return fp;
    fp = mem_new(MEM_BROKER, sizeof *fp);
    fetch_part_init(fp);
    fp->topic_id = *id;
    fp->partition = partition;
    if (!fs->by_id)
        fp->name = slice_of(mem_strndup(MEM_BROKER, name.p, name.n), name.n);
    table_put(&fs->parts, k, fp);
    list_push(&fs->absent, &fp->absent);
    s->sessions->parts++;
    *made = true;
    return fp;
}

/* fp is in no table any more. */
static void part_release(struct fetch_part *fp)
{
    list_del(&fp->absent);
    if (fp->group)
        fetch_group_forget(fp->group, fp);
    else
        fetch_part_free(fp);
}

void session_part_forget(struct shard *s, struct fetch_session *fs, struct slice name, const struct kafka_uuid *id, int32_t partition)
{
    char key[PART_KEY_MAX];
    struct fetch_part *fp = table_del(&fs->parts, part_key(key, fs->by_id, name, id, partition));
    if (!fp)
        return;
    s->sessions->parts--;
    part_release(fp);
}

void session_part_lost(struct shard *s, struct fetch_session *fs, struct fetch_part *fp)
{
    bool made;
    struct slice name = fp->name;
    struct fetch_part wanted = *fp;
    fp->name = slice_of(NULL, 0);
    char key[PART_KEY_MAX];
    MUST(table_del(&fs->parts, part_key(key, fs->by_id, name, &fp->topic_id, fp->partition)) == fp);
    s->sessions->parts--;
    part_release(fp);
    struct fetch_part *next = session_part(s, fs, name, &wanted.topic_id, wanted.partition, &made);
    mem_free((char *)(uintptr_t)name.p);
    next->offset = wanted.offset;
    next->bytes_max = wanted.bytes_max;
    next->epoch = wanted.epoch;
    next->last_epoch = wanted.last_epoch;
}

struct fetch_group *session_group(struct shard *s, struct fetch_session *fs, struct shard *owner)
{
    LIST_FOREACH(it, &fs->groups) {
        struct fetch_group *g = CONTAINER_OF(it, struct fetch_group, link);
        if (g->owner == owner)
            return g;
    }
    struct fetch_group *g = mem_new(MEM_BROKER, sizeof *g);
    fetch_group_init(g, s, owner);
    g->session = true;
    list_push(&fs->groups, &g->link);
    return g;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------------------- */

/* Takes it out of the tables and apart: its partitions go with the groups that hold them. */
static void session_free(struct shard *s, struct fetch_session *fs)
{
    struct sessions *ss = s->sessions;
    for (struct table_slot *slot = NULL; (slot = table_next(&fs->parts, slot));)
        part_release(slot->value);
    ss->parts -= (uint32_t)fs->parts.n;
    table_fini(&fs->parts);
    while (!list_empty(&fs->groups)) {
        struct fetch_group *g = CONTAINER_OF(fs->groups.next, struct fetch_group, link);
        list_del(&g->link);
        g->down.fn = fetch_group_close;
        call_now(s, g->owner, &g->down);
    }
    table_del(&ss->by_id, id_key(&fs->id));
    list_del(&fs->link);
    mem_free(fs);
    count_open(ss);
}

void session_close(struct shard *s, struct fetch_session *fs)
{
    if (fs->busy)
        fs->closed = true;
    else
        session_free(s, fs);
}

void session_rest(struct shard *s, struct fetch_session *fs)
{
    fs->busy = false;
    fs->used_ms = loop_now_ms(s->loop);
    list_del(&fs->link);
    list_push(&s->sessions->used, &fs->link);
    count_open(s->sessions);
    if (fs->closed || s->stopping)
        session_free(s, fs);
}

bool session_fits(const struct kafka_fetch_req *req)
{
    for (int32_t i = 0; i < req->topics_n; i++)
        if (req->topics[i].topic.n > TOPIC_NAME_MAX)
            return false;
    for (int32_t i = 0; i < req->forgotten_topics_data_n; i++)
        if (req->forgotten_topics_data[i].topic.n > TOPIC_NAME_MAX)
            return false;
    return true;
}

enum kafka_error session_find(struct shard *s, const struct kafka_fetch_req *req, int16_t version, uint32_t parts, struct fetch_session **out)
{
    struct fetch_session *fs = req->session_id ? table_get(&s->sessions->by_id, id_key(&req->session_id)) : NULL;
    *out = NULL;
    if (fs && fs->closed)
        fs = NULL;
    if (req->session_epoch <= 0) {
        if (fs)
            session_close(s, fs);
        return KAFKA_NONE;
    }
    if (!fs)
        return KAFKA_FETCH_SESSION_ID_NOT_FOUND;
    if (fs->busy || fs->epoch != req->session_epoch)
        return KAFKA_INVALID_FETCH_SESSION_EPOCH;
    if (fs->by_id != (version >= 13))
        return KAFKA_FETCH_SESSION_TOPIC_ID_ERROR;
    if (s->sessions->parts + parts > parts_max(s) || !session_fits(req)) { /* so it has to go on without a session */
        counter_inc(&s->sessions->refused);
        session_close(s, fs);
        return KAFKA_FETCH_SESSION_ID_NOT_FOUND;
    }
    fs->busy = true;
    fs->epoch = epoch_next(fs->epoch);
    *out = fs;
    return KAFKA_NONE;
}

/* Whom a new session of so many partitions may push out: one that nobody has used for long, or an old one that is smaller, the smallest. */
static struct fetch_session *session_to_evict(struct sessions *ss, uint32_t parts, uint64_t now_ms)
{
    struct fetch_session *least = NULL;
    LIST_FOREACH(it, &ss->used) {
        struct fetch_session *fs = CONTAINER_OF(it, struct fetch_session, link);
        if (fs->busy)
            continue;
        if (now_ms - fs->used_ms > FETCH_SESSION_IDLE_MS)
            return fs;
        if (now_ms - fs->made_ms > FETCH_SESSION_IDLE_MS && fs->parts.n < parts && (!least || fs->parts.n < least->parts.n))
            least = fs;
    }
    return least;
}

struct fetch_session *session_new(struct shard *s, bool by_id, uint32_t parts)
{
    struct sessions *ss = s->sessions;
    uint64_t now_ms = loop_now_ms(s->loop);
    if (s->stopping)
        return NULL;
    if (ss->by_id.n >= slots(s) || ss->parts + parts > parts_max(s)) {
        struct fetch_session *old = session_to_evict(ss, parts, now_ms);
        if (old) {
            session_free(s, old);
            counter_inc(&ss->evicted);
        }
        if (!old || ss->parts + parts > parts_max(s)) {
            counter_inc(&ss->refused);
            return NULL;
        }
    }
    struct fetch_session *fs = mem_new(MEM_BROKER, sizeof *fs);
    *fs = (struct fetch_session){.by_id = by_id, .epoch = 1, .busy = true, .made_ms = now_ms, .used_ms = now_ms};
    do {
        fs->id = (int32_t)(loop_random(s->loop) & INT32_MAX);
    } while (fs->id == 0 || table_get(&ss->by_id, id_key(&fs->id)));
    list_init(&fs->groups);
    list_init(&fs->absent);
    table_put(&ss->by_id, id_key(&fs->id), fs);
    list_push(&ss->used, &fs->link);
    counter_inc(&ss->made);
    return fs;
}

/* ---- the module ---------------------------------------------------------------------------------------------------------------- */

static void sessions_init(struct shard *s)
{
    struct sessions *ss = mem_new(MEM_BROKER, sizeof *ss);
    ss->shard = s;
    list_init(&ss->used);
    fetch_stirred_init(ss);
    s->sessions = ss;
}

static void sessions_stop(struct shard *s)
{
    LIST_FOREACH(it, &s->sessions->used)
        session_close(s, CONTAINER_OF(it, struct fetch_session, link));
}

static void sessions_metrics(struct broker *b, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t offset;
        enum prom_type type;
    } rows[] = {
        {"weir_kafka_fetches_total", "Fetches that were looked at.", offsetof(struct sessions, polls), PROM_COUNTER},
        {"weir_kafka_fetches_cold_total", "Reads for fetches that were probably not in memory and were read ahead by the pool.", offsetof(struct sessions, cold), PROM_COUNTER},
        {"weir_kafka_fetch_sessions", "Fetch sessions (KIP-227).", offsetof(struct sessions, open), PROM_GAUGE},
        {"weir_kafka_fetch_session_partitions", "Partitions in them.", offsetof(struct sessions, open_parts), PROM_GAUGE},
        {"weir_kafka_fetch_sessions_made_total", "Fetch sessions made.", offsetof(struct sessions, made), PROM_COUNTER},
        {"weir_kafka_fetch_sessions_evicted_total", "Fetch sessions that went for a new one.", offsetof(struct sessions, evicted), PROM_COUNTER},
        {"weir_kafka_fetch_sessions_refused_total", "Fetches that got no session, for want of a slot or of room for their partitions.", offsetof(struct sessions, refused), PROM_COUNTER},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint64_t n = 0;
        for (uint32_t k = 0; k < b->shards_n; k++)
            if (b->shards[k] && b->shards[k]->sessions)
                n += counter_read((const counter *)(const void *)((const char *)b->shards[k]->sessions + rows[i].offset));
        prom_family(out, rows[i].name, rows[i].type, rows[i].help);
        prom_u64(out, rows[i].name, "", NULL, 0, n);
    }
}

static void sessions_fini(struct shard *s)
{
    list_del(&s->sessions->task.link);
    MUST(s->sessions->by_id.n == 0);
    table_fini(&s->sessions->by_id);
    mem_free(s->sessions);
}

const struct module sessions_module = {.init = sessions_init, .stop = sessions_stop, .fini = sessions_fini, .metrics = sessions_metrics};
