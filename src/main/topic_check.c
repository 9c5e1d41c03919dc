/* topic_check.c - what can be said against a Topic before the broker is asked: settings that it would refuse, and another name for a topic that has records.
 *
 * The manifests' fields are plan's affair, and plan knows no settings of topics: their table is the broker's. Everything else that the broker may object to (a
 * name that collides with one that a client made, fewer partitions) depends on what is there, and is told in the object's condition Ready.
 */
#include "topic_check.h"
#include "broker.h"

static bool is_topic(const struct object *o) { return o->kind == OBJ_TOPIC || o->kind == OBJ_KAFKATOPIC; }

struct checking {
    const struct object *o;
    struct diags *d;
};

/* name is empty when it is about several that don't go together. */
static void setting_wrong(void *ctx, struct slice name, const char *why)
{
    const struct checking *c = ctx;
    struct buf where = {0};
    buf_printf(&where, "%s/%s/%s spec.config%s" SLICE_FMT, obj_kind_name(c->o->kind), c->o->ns, c->o->name, name.n ? "." : "", SLICE_ARG(name));
    diags_add(c->d, DIAG_ERROR, c->o->file, c->o->line, c->o->column, where.p, "correct it, or leave it out; weir topic describe --all shows a topic's settings", "%s", why);
    buf_free(&where);
}

void topic_check_settings(const struct objset *set, struct diags *d)
{
    for (size_t i = 0; i < objset_n(set); i++) {
        const struct object *o = objset_at(set, i);
        if (!is_topic(o) || !o->topic.config.n)
            continue;
        const struct kvs *config = &o->topic.config;
        struct slice *pairs = mem_new(MEM_MANIFEST, 2 * config->n * sizeof *pairs);
        for (size_t k = 0; k < config->n; k++) {
            pairs[2 * k] = slice_cstr(config->items[k].key);
            pairs[2 * k + 1] = slice_of(config->items[k].value, config->items[k].value_n);
        }
        broker_topic_settings_check(pairs, (uint32_t)config->n, setting_wrong, &(struct checking){o, d});
        mem_free(pairs);
    }
}

static bool declares(const struct objset *set, const char *topic)
{
    for (size_t i = 0; i < objset_n(set); i++)
        if (is_topic(objset_at(set, i)) && strcmp(objset_at(set, i)->topic.topic, topic) == 0)
            return true;
    return false;
}

void topic_check_names(const struct objset *now, const struct objset *merged, const struct objset *given, struct diags *d)
{
    for (size_t i = 0; i < objset_n(given); i++) {
        const struct object *o = objset_at(given, i);
        const struct object *was = is_topic(o) ? objset_find(now, o->kind, o->ns, o->name) : NULL;
        if (!was || strcmp(was->topic.topic, o->topic.topic) == 0 || declares(merged, was->topic.topic))
            continue;
        struct buf where = {0};
        buf_printf(&where, "%s/%s/%s spec.topicName", obj_kind_name(o->kind), o->ns, o->name);
        diags_add(d, DIAG_ERROR, o->file, o->line, o->column, where.p, "declare the other topic by an object of its own; when the records may go, delete this one first",
                  "it is %s, and can't become %s: a topic keeps its name, and its records would be deleted", was->topic.topic, o->topic.topic);
        buf_free(&where);
    }
}
