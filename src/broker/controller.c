/* controller.c - changes of topics, in one place: shard 0. And numbers that are given once, for producer ids.
 *
 * Changes wait in line; a round takes all that wait, works them into a copy of the catalog one after the other, writes that to DIR/topics.json (whole,
 * atomically, in the pool), and sends it to every shard. When each has made its partitions, the round's changes are done and the next round begins.
 *
 *     topic_change() -> waiting -> round: applied -> topics.json -> news to every shard -> done() of each change
 *                                    | refused: done() with its error, at the end of the same round
 *                                    '- the file could not be written: KAFKA_STORAGE_ERROR for all, and nothing has changed
 *
 * So a topic that anybody has been told of survives a crash, and one that was deleted does not come back: when the folders of its partitions outlive a
 * crash, the next start removes them (parts.c).
 *
 * topics.json: {"format": 1, "cluster_id": ..., "topics": [{"name", "id", "partitions", "settings": {name: text}}], "defaults": {"brokers": {name: text},
 * "broker": {name: text}}}: defaults of topics, by the broker's names (log.retention.ms), of all brokers and of this one. Members that are not known are passed
 * over with a line in the log, so a newer version may add some; a format above ours is refused. producer_ids.json: {"next": number}.
 */
#include "frame_int.h"

#include <jansson.h>

#define FILE_FORMAT 1
#define FILE_BYTES_MAX (256u << 20)
#define PARTITIONS_MAX 200000 /* of all topics */

struct controller {
    struct broker *b;
    struct list waiting;      /* struct topic_change */
    struct round *round;      /* the one under way; NULL */
    struct topic_change making[2]; /* internal topics on their way */
    bool making_now[2];
    struct list ids_waiting;  /* struct id_block */
    struct work ids_work;
    int64_t ids_next, ids_given; /* the file says ids_next; below it, those up to ids_given are given */
    enum err ids_err;
    bool ids_busy;
    int64_t partitions;       /* of all topics, as of the newest round */
};

static struct shard *zero_of(struct broker *b) { return b->shards[0]; }

static char *path_of(const struct broker *b, const char *name)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%s", b->conf.log.dir, name);
    return buf_take(&path, NULL);
}

/* ---- one change ---------------------------------------------------------------------------------------------------- */

static void refuse(struct topic_change *c, enum kafka_error e, char *message)
{
    c->error = e;
    mem_free(c->message);
    c->message = message;
}

#define REFUSE(c, e, ...)                    \
    do {                                     \
        struct buf text_ = {0};              \
        buf_printf(&text_, __VA_ARGS__);     \
        refuse((c), (e), buf_take(&text_, NULL)); \
    } while (0)

static struct topic *changed_topic(struct catalog *cat, struct topic_change *c)
{
    struct topic *t = c->by_id ? catalog_topic_by_id(cat, &c->id) : catalog_topic(cat, c->name);
    if (!t && c->by_id)
        REFUSE(c, KAFKA_UNKNOWN_TOPIC_ID, "This server does not host this topic ID.");
    else if (!t)
        REFUSE(c, KAFKA_UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.");
    return t;
}

/* Names that differ in '.' and '_' alone would be the same metric in Kafka, which refuses them. */
static const struct topic *name_collides(const struct catalog *cat, struct slice name)
{
    bool special = false;
    for (size_t i = 0; i < name.n; i++)
        special |= name.p[i] == '.' || name.p[i] == '_';
    for (struct table_slot *s = NULL; special && (s = table_next(&cat->by_name, s));) {
        const struct topic *t = s->value;
        bool same = s->key_n == name.n;
        for (size_t i = 0; same && i < name.n; i++)
            same = (s->key[i] == '.' ? '_' : s->key[i]) == (name.p[i] == '.' ? '_' : name.p[i]);
        if (same)
            return t;
    }
    return NULL;
}

static int name_find(const struct topic_change *c, struct slice name) { return c->what == BROKER_CONFIGURE ? default_find(name) : setting_find(name); }

static bool setting_apply(struct topic_settings *s, struct topic_change *c, struct slice name, struct slice value)
{
    char *why = NULL;
    int i = name_find(c, name);
    if (i < 0 && c->what == BROKER_CONFIGURE)
        REFUSE(c, KAFKA_INVALID_REQUEST, "Cannot update these configs dynamically: " SLICE_FMT, SLICE_ARG(slice_of(name.p, MIN(name.n, (size_t)200))));
    else if (i < 0)
        REFUSE(c, KAFKA_INVALID_CONFIG, "Unknown topic config name: " SLICE_FMT, SLICE_ARG(slice_of(name.p, MIN(name.n, (size_t)200))));
    else if (value.p && !setting_check((enum topic_setting)i, value, &why))
        refuse(c, KAFKA_INVALID_CONFIG, why);
    else
        settings_set(s, (enum topic_setting)i, value);
    return c->error == KAFKA_NONE;
}

void broker_topic_settings_check(const struct slice *settings, uint32_t n, void (*wrong)(void *ctx, struct slice name, const char *why), void *ctx)
{
    struct topic_settings s;
    bool good = true;
    char *why;
    settings_init(&s);
    for (uint32_t i = 0; i < n; i++) {
        struct topic_change c = {.what = TOPIC_CONFIGURE};
        if (!setting_apply(&s, &c, settings[2 * i], settings[2 * i + 1])) {
            wrong(ctx, settings[2 * i], c.message);
            good = false;
        }
        mem_free(c.message);
    }
    settings_read(&s);
    if (good && !settings_fit(&s, &why)) {
        wrong(ctx, SLICE(""), why);
        mem_free(why);
    }
    settings_fini(&s);
}

static bool word_listed(struct slice list, struct slice word)
{
    while (list.n)
        if (slice_eq(slice_trim(slice_cut(list, ',', &list)), word))
            return true;
    return false;
}

/* APPEND and SUBTRACT of a list's words (KIP-339): the words of `these` that are missing are added, or those that are there are taken out. */
static void list_combine(struct buf *out, struct slice list, struct slice these, bool append)
{
    for (struct slice rest = list; rest.n;) {
        struct slice word = slice_trim(slice_cut(rest, ',', &rest));
        if (word.n == 0 || (!append && word_listed(these, word)))
            continue;
        buf_adds(out, out->n ? "," : "");
        buf_add_slice(out, word);
    }
    for (struct slice rest = these; append && rest.n;) {
        struct slice word = slice_trim(slice_cut(rest, ',', &rest));
        if (word.n == 0 || word_listed(list, word))
            continue;
        buf_adds(out, out->n ? "," : "");
        buf_add_slice(out, word);
    }
}

static bool setting_combine(struct topic_settings *s, struct topic_change *c, struct slice name, struct slice value, bool append)
{
    int i = name_find(c, name);
    if (i < 0)
        return setting_apply(s, c, name, value);
    if (topic_setting_infos[i].type != SETTING_LIST) {
        REFUSE(c, KAFKA_INVALID_CONFIG, "Can't %s config %s: its type is not a list", append ? "APPEND to" : "SUBTRACT from", topic_setting_infos[i].name);
        return false;
    }
    struct buf b = {0};
    buf_reserve(&b, 1);
    list_combine(&b, slice_cstr(settings_value(s, (enum topic_setting)i)), value, append);
    bool ok = setting_apply(s, c, name, slice_of(b.n ? b.p : "", b.n));
    buf_free(&b);
    return ok;
}

static bool settings_apply(struct topic_settings *s, struct topic_change *c)
{
    char *why;
    for (uint32_t i = 0; i < c->settings_n; i++) {
        struct slice name = c->settings[2 * i], value = c->settings[2 * i + 1];
        enum config_op op = c->ops ? (enum config_op)c->ops[i] : CONFIG_SET;
        bool ok = op == CONFIG_APPEND || op == CONFIG_SUBTRACT ? setting_combine(s, c, name, value, op == CONFIG_APPEND)
                                                               : setting_apply(s, c, name, op == CONFIG_DELETE ? (struct slice){0} : value);
        if (!ok)
            return false;
    }
    settings_read(s);
    if (settings_fit(s, &why))
        return true;
    refuse(c, KAFKA_INVALID_CONFIG, why);
    return false;
}

/* Of internal topics, as Kafka makes them: compacted, in small segments, so that what is read at a start is short. */
static const struct slice internal_settings[] = {
    {"cleanup.policy", 14}, {"compact", 7}, {"segment.bytes", 13}, {"104857600", 9}, {"compression.type", 16}, {"producer", 8},
};
static const uint32_t internal_settings_n = COUNT_OF(internal_settings) / 2;

static struct topic *apply_create(struct controller *ct, struct catalog *cat, struct topic_change *c)
{
    const struct topic *like;
    int32_t n = c->partitions == -1 ? ct->b->conf.partitions : c->partitions;
    if (!topic_name_ok(c->name))
        REFUSE(c, KAFKA_INVALID_TOPIC_EXCEPTION, "Topic name is invalid: it must have 1 to %d of the characters a-z, A-Z, 0-9, '.', '_' and '-', and be neither '.' nor '..'", TOPIC_NAME_MAX);
    else if (catalog_topic(cat, c->name))
        REFUSE(c, KAFKA_TOPIC_ALREADY_EXISTS, "Topic '" SLICE_FMT "' already exists.", SLICE_ARG(c->name));
    else if ((like = name_collides(cat, c->name)))
        REFUSE(c, KAFKA_INVALID_TOPIC_EXCEPTION, "Topic '" SLICE_FMT "' collides with existing topic: %s", SLICE_ARG(c->name), like->name);
    else if (n <= 0 || n > TOPIC_PARTITIONS_MAX)
        REFUSE(c, KAFKA_INVALID_PARTITIONS, "Number of partitions was set to an invalid value %d: it must be from 1 to %d", n, TOPIC_PARTITIONS_MAX);
    else if (ct->partitions + n > PARTITIONS_MAX)
        REFUSE(c, KAFKA_POLICY_VIOLATION, "This node takes %d partitions in all; there are %lld", PARTITIONS_MAX, (long long)ct->partitions);
    if (c->error)
        return NULL;
    struct topic *t = topic_new(c->name, uuid_random(), n);
    settings_defaults(&t->settings, t->internal ? NULL : cat->defaults);
    for (uint32_t i = 0; t->internal && i < internal_settings_n; i++) /* whoever makes it: groups and transactions rely on compaction */
        settings_set(&t->settings, (enum topic_setting)setting_find(internal_settings[2 * i]), internal_settings[2 * i + 1]);
    if (settings_apply(&t->settings, c))
        return t;
    topic_unref(t);
    return NULL;
}

static struct topic *apply_grow(struct controller *ct, struct topic_change *c, const struct topic *t)
{
    if (t->internal)
        REFUSE(c, KAFKA_INVALID_REQUEST, "The number of partitions of %s cannot be changed: it says where each group or transactional id is.", t->name);
    else if (c->partitions <= 0)
        REFUSE(c, KAFKA_INVALID_PARTITIONS, "The topic would have %d partitions: the number must be positive", c->partitions);
    else if (c->partitions == t->partitions)
        REFUSE(c, KAFKA_INVALID_PARTITIONS, "Topic already has %d partition(s).", t->partitions);
    else if (c->partitions < t->partitions)
        REFUSE(c, KAFKA_INVALID_PARTITIONS, "The topic %s currently has %d partition(s); %d would not be an increase.", t->name, t->partitions, c->partitions);
    else if (c->partitions > TOPIC_PARTITIONS_MAX)
        REFUSE(c, KAFKA_INVALID_PARTITIONS, "A topic takes %d partitions", TOPIC_PARTITIONS_MAX);
    else if (ct->partitions + c->partitions - t->partitions > PARTITIONS_MAX)
        REFUSE(c, KAFKA_POLICY_VIOLATION, "This node takes %d partitions in all; there are %lld", PARTITIONS_MAX, (long long)ct->partitions);
    return c->error ? NULL : topic_changed(t, c->partitions);
}

static struct topic *apply_configure(struct topic_change *c, const struct topic *t)
{
    struct topic *next = topic_changed(t, t->partitions);
    for (uint32_t i = 0; !c->ops && i < TOPIC_SETTINGS; i++)
        settings_set(&next->settings, i, (struct slice){0});
    if (settings_apply(&next->settings, c))
        return next;
    topic_unref(next);
    return NULL;
}

/* What a topic is with other defaults. NULL: its own settings and these contradict each other, c is refused. */
static struct topic *topic_on(struct topic_change *c, const struct topic *t, struct broker_defaults *d)
{
    struct topic *next = topic_changed(t, t->partitions);
    char *why;
    if (t->internal) /* groups and transactions rely on theirs */
        return next;
    settings_defaults(&next->settings, d);
    settings_read(&next->settings);
    if (settings_fit_as_before(&next->settings, &t->settings, &why))
        return next;
    REFUSE(c, KAFKA_INVALID_REQUEST, "Topic %s: %s", t->name, why);
    mem_free(why);
    topic_unref(next);
    return NULL;
}

static void pair_add(struct round *round, struct topic *before, struct topic *after)
{
    ARRAY_GROW(MEM_BROKER, round->pairs, round->pairs_n, round->pairs_cap);
    round->pairs[round->pairs_n++] = (struct change_pair){before ? topic_ref(before) : NULL, after ? topic_ref(after) : NULL};
}

/* Whether they go together with each other, and with the settings of each topic. */
static bool defaults_fit(struct topic_change *c, const struct catalog *cat, struct broker_defaults *d)
{
    struct topic_settings nobodys = {0};
    char *why;
    settings_defaults(&nobodys, d);
    settings_read(&nobodys);
    if (!settings_fit(&nobodys, &why))
        refuse(c, KAFKA_INVALID_REQUEST, why);
    settings_fini(&nobodys);
    for (struct table_slot *s = NULL; !c->error && (s = table_next(&cat->by_name, s));)
        topic_unref(topic_on(c, s->value, d));
    return c->error == KAFKA_NONE;
}

/* Every topic changes with the defaults: each shard gets all of them anew. */
static void apply_defaults(struct round *round, struct topic_change *c)
{
    struct broker_defaults *d = defaults_copy(round->next->defaults);
    struct topic_settings *layer = &d->layer[c->name.n ? DEFAULTS_BROKER : DEFAULTS_BROKERS];
    for (uint32_t i = 0; !c->ops && i < TOPIC_SETTINGS; i++)
        settings_set(layer, i, (struct slice){0});
    if (!settings_apply(layer, c) || !defaults_fit(c, round->next, d) || c->validate_only) {
        defaults_unref(d);
        return;
    }
    uint32_t first = round->pairs_n;
    for (struct table_slot *s = NULL; (s = table_next(&round->next->by_name, s));) {
        struct topic *t = s->value, *after = topic_on(c, t, d);
        MUST(after); /* defaults_fit() has seen it */
        pair_add(round, t, after);
        topic_unref(after);
    }
    for (uint32_t i = first; i < round->pairs_n; i++)
        catalog_put(round->next, topic_ref(round->pairs[i].after));
    defaults_unref(round->next->defaults);
    round->next->defaults = d;
    round->defaults_changed = true;
}

static void apply(struct controller *ct, struct round *round, struct topic_change *c)
{
    struct topic *before = NULL, *after = NULL;
    c->error = KAFKA_NONE;
    c->message = NULL;
    c->topic = NULL;
    if (c->what == BROKER_CONFIGURE) {
        apply_defaults(round, c);
        return;
    }
    if (c->what != TOPIC_CREATE && !(before = changed_topic(round->next, c)))
        return;
    if (c->what == TOPIC_CREATE)
        after = apply_create(ct, round->next, c);
    else if (c->what == TOPIC_GROW)
        after = apply_grow(ct, c, before);
    else if (c->what == TOPIC_CONFIGURE)
        after = apply_configure(c, before);
    if (c->error)
        return;
    c->topic = after ? topic_ref(after) : NULL;
    c->id = after ? after->id : before->id;
    c->partitions_now = after ? after->partitions : 0;
    if (c->validate_only) {
        topic_unref(after);
        return;
    }
    pair_add(round, before, after);
    ct->partitions += (after ? after->partitions : 0) - (before ? before->partitions : 0);
    if (after)
        catalog_put(round->next, after);
    else
        catalog_remove(round->next, before);
}

/* ---- the file -------------------------------------------------------------------------------------------------------------- */

static void write_topic(struct buf *out, const struct topic *t)
{
    char id[UUID_TEXT + 1];
    bool first = true;
    uuid_text(t->id, id);
    buf_printf(out, "    {\"name\": \"%s\", \"id\": \"%s\", \"partitions\": %d, \"settings\": {", t->name, id, t->partitions);
    for (uint32_t i = 0; i < TOPIC_SETTINGS; i++) {
        if (!t->settings.values[i])
            continue;
        buf_printf(out, "%s\"%s\": ", first ? "" : ", ", topic_setting_infos[i].name);
        buf_add_json(out, slice_cstr(t->settings.values[i]));
        first = false;
    }
    buf_adds(out, "}}");
}

static void write_defaults(struct buf *out, const struct topic_settings *layer, const char *name)
{
    bool first = true;
    buf_printf(out, "\"%s\": {", name);
    for (uint32_t i = 0; i < TOPIC_SETTINGS; i++) {
        if (!layer->values[i])
            continue;
        buf_printf(out, "%s\"%s\": ", first ? "" : ", ", default_name((enum topic_setting)i));
        buf_add_json(out, slice_cstr(layer->values[i]));
        first = false;
    }
    buf_adds(out, "}");
}

static const char *const layer_names[DEFAULTS_LAYERS] = {[DEFAULTS_BROKERS] = "brokers", [DEFAULTS_BROKER] = "broker"};

static void write_catalog(struct buf *out, struct kafka_uuid cluster_id, const struct catalog *cat)
{
    char id[UUID_TEXT + 1];
    bool first = true;
    uuid_text(cluster_id, id);
    buf_printf(out, "{\n  \"format\": %d,\n  \"cluster_id\": \"%s\",\n  \"topics\": [\n", FILE_FORMAT, id);
    for (struct table_slot *s = NULL; (s = table_next(&cat->by_name, s)); first = false) {
        buf_adds(out, first ? "" : ",\n");
        write_topic(out, s->value);
    }
    buf_adds(out, "\n  ]");
    for (int l = 0; cat->defaults && l < DEFAULTS_LAYERS; l++) {
        buf_adds(out, l ? ", " : ",\n  \"defaults\": {");
        write_defaults(out, &cat->defaults->layer[l], layer_names[l]);
    }
    buf_adds(out, cat->defaults ? "}\n}\n" : "\n}\n");
}

static bool read_uuid(const json_t *o, const char *member, struct kafka_uuid *out)
{
    const char *text = json_string_value(json_object_get(o, member));
    return text && uuid_parse(slice_cstr(text), out) == OK;
}

static bool read_settings(struct topic *t, json_t *settings, struct buf *why)
{
    const char *name;
    json_t *v;
    char *wrong = NULL;
    json_object_foreach (settings, name, v) {
        int i = setting_find(slice_cstr(name));
        if (i < 0) {
            log_warn("broker", "topics.json: topic %s has the setting %s, which this version does not know: it has no effect", t->name, name);
            continue;
        }
        if (!json_is_string(v) || !setting_check((enum topic_setting)i, slice_cstr(json_string_value(v)), &wrong)) {
            buf_printf(why, "topic %s, setting %s: %s", t->name, name, wrong ? wrong : "its value is no text");
            mem_free(wrong);
            return false;
        }
        settings_set(&t->settings, (enum topic_setting)i, slice_cstr(json_string_value(v)));
    }
    settings_read(&t->settings);
    if (settings_fit_as_before(&t->settings, NULL, &wrong))
        return true;
    buf_printf(why, "topic %s: %s", t->name, wrong);
    mem_free(wrong);
    return false;
}

static bool read_layer(struct topic_settings *layer, json_t *settings, struct buf *why)
{
    const char *name;
    json_t *v;
    json_object_foreach (settings, name, v) {
        char *wrong = NULL;
        int i = default_find(slice_cstr(name));
        if (i < 0) {
            log_warn("broker", "topics.json: there is a default %s, which this version does not know: it has no effect", name);
            continue;
        }
        if (!json_is_string(v) || !setting_check((enum topic_setting)i, slice_cstr(json_string_value(v)), &wrong)) {
            buf_printf(why, "the default %s: %s", name, wrong ? wrong : "its value is no text");
            mem_free(wrong);
            return false;
        }
        settings_set(layer, (enum topic_setting)i, slice_cstr(json_string_value(v)));
    }
    return true;
}

static bool read_defaults(struct catalog *cat, const json_t *o, struct buf *why)
{
    bool ok = true;
    if (!json_is_object(o))
        return true; /* none were set */
    cat->defaults = defaults_copy(NULL);
    for (int l = 0; l < DEFAULTS_LAYERS; l++)
        ok = ok && read_layer(&cat->defaults->layer[l], json_object_get(o, layer_names[l]), why);
    return ok;
}

static bool read_topic(struct catalog *cat, const json_t *o, size_t i, struct buf *why)
{
    struct kafka_uuid id;
    const char *name = json_string_value(json_object_get(o, "name"));
    json_int_t n = json_integer_value(json_object_get(o, "partitions"));
    if (!name || !topic_name_ok(slice_cstr(name)) || n < 1 || n > TOPIC_PARTITIONS_MAX || !read_uuid(o, "id", &id)) {
        buf_printf(why, "topic %zu%s%s has no valid name, id and number of partitions", i, name ? ", " : "", name ? name : "");
        return false;
    }
    if (catalog_topic(cat, slice_cstr(name)) || catalog_topic_by_id(cat, &id)) {
        buf_printf(why, "topic %s is there twice", name);
        return false;
    }
    struct topic *t = topic_new(slice_cstr(name), id, (int32_t)n);
    settings_defaults(&t->settings, t->internal ? NULL : cat->defaults);
    if (read_settings(t, json_object_get(o, "settings"), why)) {
        catalog_put(cat, t);
        return true;
    }
    topic_unref(t);
    return false;
}

static bool read_catalog(struct broker *b, const json_t *root, struct buf *why)
{
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    const json_t *topics = json_object_get(root, "topics");
    if (format < 1 || !read_uuid(root, "cluster_id", &b->cluster_id) || !json_is_array(topics)) {
        buf_adds(why, "it is no list of topics");
        return false;
    }
    if (format > FILE_FORMAT) {
        buf_printf(why, "it was written by a newer version (format %lld; this one knows %d): start that version", (long long)format, FILE_FORMAT);
        return false;
    }
    if (!read_defaults(b->catalog, json_object_get(root, "defaults"), why))
        return false;
    for (size_t i = 0; i < json_array_size(topics); i++)
        if (!read_topic(b->catalog, json_array_get(topics, i), i, why))
            return false;
    return true;
}

static json_t *parse(const char *path, struct slice text, struct buf *why)
{
    json_error_t e;
    json_t *root = json_loadb(text.p ? text.p : "", text.n, JSON_REJECT_DUPLICATES, &e);
    if (!root)
        buf_printf(why, "%s is broken: line %d, column %d: %s. Mend it, or put a copy in its place; without it the topics are not known", path, e.line, e.column, e.text);
    return root;
}

static enum err open_catalog(struct broker *b, const char *path, struct buf *why)
{
    struct buf text = {0}, wrong = {0};
    enum err e = file_read(path, &text, FILE_BYTES_MAX);
    if (e == ERR_NOTFOUND) {
        b->cluster_id = uuid_random();
        write_catalog(&text, b->cluster_id, b->catalog);
        e = file_replace(path, text.p, text.n, 0600);
        if (e != OK)
            buf_printf(why, "%s could not be written: %s", path, err_text(e));
    } else if (e != OK) {
        buf_printf(why, "%s could not be read: %s", path, err_text(e));
    } else {
        json_t *root = parse(path, buf_slice(&text), why);
        if (!root || !read_catalog(b, root, &wrong))
            e = ERR_SYNTAX;
        if (root && e != OK)
            buf_printf(why, "%s is broken: " SLICE_FMT, path, SLICE_ARG(buf_slice(&wrong)));
        json_decref(root);
    }
    buf_free(&text);
    buf_free(&wrong);
    return e;
}

static enum err open_ids(struct controller *ct, const char *path, struct buf *why)
{
    struct buf text = {0};
    enum err e = file_read(path, &text, FILE_BYTES_MAX);
    if (e == ERR_NOTFOUND) {
        e = OK; /* none was given yet */
    } else if (e != OK) {
        buf_printf(why, "%s could not be read: %s", path, err_text(e));
    } else {
        json_t *root = parse(path, buf_slice(&text), why);
        const json_t *next = json_object_get(root, "next");
        if (!root || !json_is_integer(next) || json_integer_value(next) < 0) {
            e = ERR_SYNTAX;
            if (root)
                buf_printf(why, "%s is broken: it has no number \"next\"", path);
        } else {
            ct->ids_next = ct->ids_given = json_integer_value(next);
        }
        json_decref(root);
    }
    buf_free(&text);
    return e;
}

enum err controller_open(struct broker *b, struct buf *why)
{
    struct controller *ct = mem_new(MEM_BROKER, sizeof *ct);
    char *topics = path_of(b, "topics.json"), *ids = path_of(b, "producer_ids.json");
    b->controller = ct;
    ct->b = b;
    list_init(&ct->waiting);
    list_init(&ct->ids_waiting);
    b->catalog = catalog_new();
    enum err e = open_catalog(b, topics, why);
    if (e == OK)
        e = open_ids(ct, ids, why);
    for (struct table_slot *s = NULL; (s = table_next(&b->catalog->by_name, s));)
        ct->partitions += ((struct topic *)s->value)->partitions;
    mem_free(topics);
    mem_free(ids);
    return e;
}

/* ---- rounds --------------------------------------------------------------------------------------------------------------------- */

static void round_begin(struct controller *ct);

static void change_back(struct shard *from, struct call *call)
{
    struct topic_change *c = CONTAINER_OF(call, struct topic_change, call);
    c->done(from, c);
}

static void round_free(struct round *round)
{
    for (uint32_t i = 0; i < round->pairs_n; i++) {
        topic_unref(round->pairs[i].before);
        topic_unref(round->pairs[i].after);
    }
    catalog_unref(round->next);
    mem_free(round->pairs);
    mem_free(round->path);
    buf_free(&round->text);
    mem_free(round);
}

static void round_end(struct controller *ct)
{
    struct round *round = ct->round;
    LIST_FOREACH(it, &round->changes) {
        struct topic_change *c = CONTAINER_OF(it, struct topic_change, link);
        list_del(it);
        c->call.fn = change_back;
        shard_call(zero_of(ct->b), c->from, &c->call);
    }
    ct->round = NULL;
    round_free(round);
    round_begin(ct);
    shard_stop_step(zero_of(ct->b));
}

static void on_news_back(struct shard *zero, struct call *call)
{
    struct news *n = CONTAINER_OF(call, struct news, call);
    if (--n->round->news_left == 0)
        round_end(zero->b->controller);
}

void round_shard_done(struct shard *here, struct news *n)
{
    n->call.fn = on_news_back;
    shard_call(here, zero_of(here->b), &n->call);
}

static void round_tell(struct controller *ct)
{
    struct round *round = ct->round;
    broker_catalog_set(ct->b, round->next);
    round->news_left = ct->b->shards_n;
    for (uint32_t i = 0; i < ct->b->shards_n; i++) {
        struct news *n = &round->news[i];
        n->shard = ct->b->shards[i];
        n->round = round;
        n->call.fn = news_arrived;
        shard_call(zero_of(ct->b), n->shard, &n->call);
    }
}

static void round_failed(struct controller *ct)
{
    struct round *round = ct->round;
    log_error("broker", "%s could not be written (%s): topics stay as they are", round->path, err_text(round->err));
    for (uint32_t i = 0; i < round->pairs_n; i++)
        ct->partitions -= (round->pairs[i].after ? round->pairs[i].after->partitions : 0) - (round->pairs[i].before ? round->pairs[i].before->partitions : 0);
    LIST_FOREACH(it, &round->changes) {
        struct topic_change *c = CONTAINER_OF(it, struct topic_change, link);
        if (c->error || c->validate_only)
            continue;
        REFUSE(c, KAFKA_KAFKA_STORAGE_ERROR, "The list of topics could not be written: %s", err_text(round->err));
        topic_unref(c->topic);
        c->topic = NULL;
    }
    round_end(ct);
}

static void round_run(struct work *w)
{
    struct round *round = CONTAINER_OF(w, struct round, work);
    round->err = file_replace(round->path, round->text.p, round->text.n, 0600);
}

static void round_written(struct work *w)
{
    struct round *round = CONTAINER_OF(w, struct round, work);
    struct controller *ct = round->b->controller;
    if (round->err != OK)
        round_failed(ct);
    else
        round_tell(ct);
}

static void round_begin(struct controller *ct)
{
    if (ct->round || list_empty(&ct->waiting))
        return;
    struct round *round = mem_new(MEM_BROKER, sizeof *round);
    ct->round = round;
    round->b = ct->b;
    list_init(&round->changes);
    round->next = catalog_copy(ct->b->catalog);
    LIST_FOREACH(it, &ct->waiting) {
        list_del(it);
        list_push(&round->changes, it);
        apply(ct, round, CONTAINER_OF(it, struct topic_change, link));
    }
    if (round->pairs_n == 0 && !round->defaults_changed) {
        round_end(ct);
        return;
    }
    write_catalog(&round->text, ct->b->cluster_id, round->next);
    round->path = path_of(ct->b, "topics.json");
    round->work = (struct work){.run = round_run, .done = round_written};
    work_submit(zero_of(ct->b)->loop, &round->work);
}

static void change_arrived(struct shard *zero, struct call *call)
{
    struct controller *ct = zero->b->controller;
    list_push(&ct->waiting, &CONTAINER_OF(call, struct topic_change, call)->link);
    round_begin(ct);
}

void topic_change(struct shard *from, struct topic_change *c)
{
    c->from = from;
    c->call.fn = change_arrived;
    shard_call(from, zero_of(from->b), &c->call);
}

/* ---- internal topics ------------------------------------------------------------------------------------------------------------- */

static void internal_made(struct shard *zero, struct topic_change *c)
{
    struct controller *ct = zero->b->controller;
    if (c->error && c->error != KAFKA_TOPIC_ALREADY_EXISTS)
        log_error("broker", "topic " SLICE_FMT " could not be made: %s", SLICE_ARG(c->name), c->message ? c->message : kafka_error_name(c->error));
    topic_unref(c->topic);
    mem_free(c->message);
    ct->making_now[c - ct->making] = false;
    shard_stop_step(zero);
}

static void internal_wanted(struct shard *zero, struct call *call)
{
    struct controller *ct = zero->b->controller;
    struct topic_change *wish = CONTAINER_OF(call, struct topic_change, call);
    int i = slice_eq(wish->name, TXN_TOPIC);
    mem_free(wish);
    if (ct->making_now[i] || catalog_topic(zero->catalog, i ? TXN_TOPIC : OFFSETS_TOPIC))
        return;
    ct->making_now[i] = true;
    ct->making[i] = (struct topic_change){.name = i ? TXN_TOPIC : OFFSETS_TOPIC,
                                          .what = TOPIC_CREATE,
                                          .partitions = i ? ct->b->conf.txn_partitions : ct->b->conf.offsets_partitions,
                                          .internal = true,
                                          .done = internal_made};
    topic_change(zero, &ct->making[i]);
}

void internal_topic_make(struct shard *here, struct slice name)
{
    if (catalog_topic(here->catalog, name))
        return;
    struct topic_change *wish = mem_new(MEM_BROKER, sizeof *wish);
    wish->name = slice_eq(name, TXN_TOPIC) ? TXN_TOPIC : OFFSETS_TOPIC;
    wish->call.fn = internal_wanted;
    shard_call(here, zero_of(here->b), &wish->call);
}

/* ---- ids -------------------------------------------------------------------------------------------------------------------------- */

#define IDS_STEP (100 * PRODUCER_ID_BLOCK) /* so many are reserved by one write; those not given are lost with a restart, of 2^63 */

static void ids_go_on(struct controller *ct);

static void ids_back(struct shard *from, struct call *call)
{
    struct id_block *b = CONTAINER_OF(call, struct id_block, call);
    b->done(from, b);
}

static void ids_run(struct work *w)
{
    struct controller *ct = CONTAINER_OF(w, struct controller, ids_work);
    struct buf text = {0};
    char *path = path_of(ct->b, "producer_ids.json");
    buf_printf(&text, "{\"next\": %lld}\n", (long long)ct->ids_next + IDS_STEP);
    ct->ids_err = file_replace(path, text.p, text.n, 0600);
    buf_free(&text);
    mem_free(path);
}

static void ids_written(struct work *w)
{
    struct controller *ct = CONTAINER_OF(w, struct controller, ids_work);
    ct->ids_busy = false;
    if (ct->ids_err == OK)
        ct->ids_next += IDS_STEP;
    else
        log_error("broker", "producer_ids.json could not be written (%s): no producer ids can be given", err_text(ct->ids_err));
    ids_go_on(ct);
    shard_stop_step(zero_of(ct->b));
}

static void id_block_give(struct controller *ct, struct id_block *b)
{
    b->error = ct->ids_given < ct->ids_next ? KAFKA_NONE : KAFKA_KAFKA_STORAGE_ERROR;
    b->first = ct->ids_given;
    if (b->error == KAFKA_NONE)
        ct->ids_given += PRODUCER_ID_BLOCK;
    b->call.fn = ids_back;
    shard_call(zero_of(ct->b), b->from, &b->call);
}

static void ids_go_on(struct controller *ct)
{
    if (ct->ids_busy)
        return;
    while (!list_empty(&ct->ids_waiting)) {
        struct id_block *b = CONTAINER_OF(ct->ids_waiting.next, struct id_block, link);
        if (ct->ids_given == ct->ids_next && ct->ids_err == OK) {
            ct->ids_busy = true;
            ct->ids_work = (struct work){.run = ids_run, .done = ids_written};
            work_submit(zero_of(ct->b)->loop, &ct->ids_work);
            return;
        }
        list_del(&b->link);
        id_block_give(ct, b);
    }
    ct->ids_err = OK; /* whoever asks next makes it try again */
}

static void ids_wanted(struct shard *zero, struct call *call)
{
    struct controller *ct = zero->b->controller;
    list_push(&ct->ids_waiting, &CONTAINER_OF(call, struct id_block, call)->link);
    ids_go_on(ct);
}

void producer_id_block(struct shard *from, struct id_block *b)
{
    b->from = from;
    b->call.fn = ids_wanted;
    shard_call(from, zero_of(from->b), &b->call);
}

/* ---- the end ------------------------------------------------------------------------------------------------------------------------ */

bool controller_at_rest(const struct broker *b)
{
    const struct controller *ct = b->controller;
    return !ct->round && list_empty(&ct->waiting) && !ct->ids_busy && !ct->making_now[0] && !ct->making_now[1] && !b->wishes;
}

void controller_free(struct broker *b)
{
    if (b->controller && b->controller->round)
        round_free(b->controller->round);
    mem_free(b->controller);
    b->controller = NULL;
}
