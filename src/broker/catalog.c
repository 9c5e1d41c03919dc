/* catalog.c - the topics there are: a snapshot that never changes, counted, one reference in each shard.
 *
 *     catalog --by_name, by_id--> topic (counted: successive catalogs share what did not change) --> topic_live (what its partitions' owners tell)
 *
 * A change makes a new catalog with new states of the topics that changed; the old ones go with their last reader. So whoever holds a topic
 * sees one state of it, and nobody locks. Not here: how changes come about (controller.c).
 */
#include "frame_int.h"

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ---- ids ------------------------------------------------------------------------------------------------------------ */

void uuid_text(struct kafka_uuid id, char out[UUID_TEXT + 1])
{
    uint32_t bits = 0, n = 0;
    size_t k = 0;
    for (size_t i = 0; i < sizeof id.b; i++) {
        bits = bits << 8 | id.b[i];
        for (n += 8; n >= 6; n -= 6)
            out[k++] = base64url[bits >> (n - 6) & 63];
    }
    out[k++] = base64url[bits << (6 - n) & 63];
    out[k] = '\0';
    MUST(k == UUID_TEXT);
}

enum err uuid_parse(struct slice text, struct kafka_uuid *out)
{
    struct kafka_uuid id = {{0}};
    uint32_t bits = 0, n = 0;
    size_t k = 0;
    if (text.n != UUID_TEXT)
        return ERR_SYNTAX;
    for (size_t i = 0; i < text.n; i++) {
        const char *at = text.p[i] ? strchr(base64url, text.p[i]) : NULL;
        if (!at)
            return ERR_SYNTAX;
        bits = bits << 6 | (uint32_t)(at - base64url);
        n += 6;
        if (n >= 8 && k < sizeof id.b)
            id.b[k++] = (uint8_t)(bits >> (n -= 8));
    }
    *out = id;
    return OK;
}

/* A version 4 UUID (RFC 9562) whose text does not begin with '-', which tools would take for an option; as Kafka makes them. */
struct kafka_uuid uuid_random(void)
{
    struct kafka_uuid id;
    char text[UUID_TEXT + 1];
    do {
        random_bytes(id.b, sizeof id.b);
        id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40);
        id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80);
        uuid_text(id, text);
    } while (text[0] == '-');
    return id;
}

/* ---- names ------------------------------------------------------------------------------------------------------------ */

/* Kafka's Topic.validate(): letters, digits, '.', '_', '-'; neither "." nor ".."; up to 249. */
bool topic_name_ok(struct slice name)
{
    if (name.n == 0 || name.n > TOPIC_NAME_MAX || slice_is(name, ".") || slice_is(name, ".."))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool topic_is_internal(struct slice name) { return slice_eq(name, OFFSETS_TOPIC) || slice_eq(name, TXN_TOPIC); }

/* ---- topics -------------------------------------------------------------------------------------------------------------- */

static struct topic_live *live_new(int32_t n)
{
    struct topic_live *live = mem_new(MEM_BROKER, sizeof *live + (size_t)n * sizeof live->part[0]);
    live->refs = 1;
    live->n = n;
    for (int32_t i = 0; i < n; i++)
        live->part[i].epoch = LIVE_LOADING;
    return live;
}

static struct topic_live *live_ref(struct topic_live *live)
{
    __atomic_fetch_add(&live->refs, 1, __ATOMIC_RELAXED);
    return live;
}

static void live_unref(struct topic_live *live)
{
    if (__atomic_sub_fetch(&live->refs, 1, __ATOMIC_ACQ_REL) == 0)
        mem_free(live);
}

struct slice topic_name(const struct topic *t) { return slice_cstr(t->name); }

struct topic *topic_new(struct slice name, struct kafka_uuid id, int32_t partitions)
{
    struct topic *t = mem_new(MEM_BROKER, sizeof *t);
    t->refs = 1;
    t->name = mem_strndup(MEM_BROKER, name.p, name.n);
    t->id = id;
    t->partitions = partitions;
    t->internal = topic_is_internal(name);
    t->live = live_new(partitions);
    settings_init(&t->settings);
    return t;
}

struct topic *topic_changed(const struct topic *t, int32_t partitions)
{
    struct topic *c = mem_new(MEM_BROKER, sizeof *c);
    c->refs = 1;
    c->name = mem_strdup(MEM_BROKER, t->name);
    c->id = t->id;
    c->partitions = partitions;
    c->internal = t->internal;
    c->live = partitions == t->partitions ? live_ref(t->live) : live_new(partitions);
    for (int32_t i = 0; c->live != t->live && i < MIN(partitions, t->partitions); i++)
        c->live->part[i].epoch = topic_epoch(t, i);
    settings_init(&c->settings);
    settings_defaults(&c->settings, t->settings.defaults);
    for (uint32_t i = 0; i < TOPIC_SETTINGS; i++)
        if (t->settings.values[i])
            settings_set(&c->settings, i, slice_cstr(t->settings.values[i]));
    settings_read(&c->settings);
    return c;
}

struct topic *topic_ref(struct topic *t)
{
    __atomic_fetch_add(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

void topic_unref(struct topic *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    settings_fini(&t->settings);
    live_unref(t->live);
    mem_free(t->name);
    mem_free(t);
}

/* ---- catalogs -------------------------------------------------------------------------------------------------------------- */

static struct slice id_key(const struct kafka_uuid *id) { return slice_of((const char *)id->b, sizeof id->b); }

struct catalog *catalog_new(void)
{
    struct catalog *c = mem_new(MEM_BROKER, sizeof *c);
    c->refs = 1;
    return c;
}

struct catalog *catalog_copy(const struct catalog *c)
{
    struct catalog *copy = catalog_new();
    copy->version = c->version + 1;
    copy->defaults = defaults_ref(c->defaults);
    for (struct table_slot *s = NULL; (s = table_next(&c->by_name, s));)
        catalog_put(copy, topic_ref(s->value));
    return copy;
}

void catalog_put(struct catalog *c, struct topic *t)
{
    topic_unref(table_put(&c->by_name, topic_name(t), t));
    table_put(&c->by_id, id_key(&t->id), t);
}

void catalog_remove(struct catalog *c, struct topic *t)
{
    table_del(&c->by_id, id_key(&t->id));
    MUST(table_del(&c->by_name, topic_name(t)) == t);
    topic_unref(t);
}

struct catalog *catalog_ref(struct catalog *c)
{
    __atomic_fetch_add(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

void catalog_unref(struct catalog *c)
{
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    for (struct table_slot *s = NULL; (s = table_next(&c->by_name, s));)
        topic_unref(s->value);
    table_fini(&c->by_name);
    table_fini(&c->by_id);
    defaults_unref(c->defaults);
    mem_free(c);
}

struct topic *catalog_topic(const struct catalog *c, struct slice name) { return table_get(&c->by_name, name); }
struct topic *catalog_topic_by_id(const struct catalog *c, const struct kafka_uuid *id) { return table_get(&c->by_id, id_key(id)); }

/* ---- coordinators ------------------------------------------------------------------------------------------------------------- */

/* Over UTF-16 units, as Java has its strings; what is no UTF-8 counts as U+FFFD per byte. */
int32_t java_hash(struct slice utf8)
{
    uint32_t h = 0;
    for (size_t i = 0; i < utf8.n;) {
        uint8_t c = (uint8_t)utf8.p[i];
        size_t n = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc0 && c < 0xe0 ? 2 : 0;
        uint32_t u = n == 1 ? c : n == 2 ? c & 0x1fu : n == 3 ? c & 0x0fu : c & 0x07u;
        for (size_t k = 1; k < n; k++) {
            if (i + k >= utf8.n || ((uint8_t)utf8.p[i + k] & 0xc0) != 0x80) {
                n = 0;
                break;
            }
            u = u << 6 | ((uint8_t)utf8.p[i + k] & 0x3fu);
        }
        if (n == 0) {
            u = 0xfffd;
            n = 1;
        }
        if (u >= 0x10000) {
            h = 31 * h + (0xd800 + ((u - 0x10000) >> 10));
            u = 0xdc00 + ((u - 0x10000) & 0x3ff);
        }
        h = 31 * h + u;
        i += n;
    }
    return (int32_t)h;
}

struct shard *coordinator_of(struct shard *here, struct slice topic, struct slice key, int32_t *partition)
{
    const struct topic *t = catalog_topic(here->catalog, topic);
    if (!t)
        return NULL;
    *partition = (int32_t)((uint32_t)java_hash(key) & 0x7fffffff) % t->partitions;
    return shard_of_part(here->b, &t->id, *partition);
}
