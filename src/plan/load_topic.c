/* load_topic.c - topics of the event log: Weir's Topic, and Strimzi's KafkaTopic, which has less; and Weir's Keyspace, which is about keys of the control store.
 *
 * Names and values of settings pass through as they are: the broker knows them, and main asks it about them before objects are in force (topic_check.c). Numbers and booleans become the text that Kafka's tools would send.
 */
#include "plan_int.h"

#define TOPIC_NAME_MAX 249

const char *const topic_operation_names[TOPIC_OPERATIONS] = {"All", "Read", "Write", "Create", "Delete", "Alter", "Describe", "DescribeConfigs", "AlterConfigs"};

bool topic_name_is_good(struct slice s)
{
    bool good = s.n >= 1 && s.n <= TOPIC_NAME_MAX && !slice_is(s, ".") && !slice_is(s, "..");
    for (size_t i = 0; i < s.n && good; i++)
        good = (ascii_lower(s.p[i]) >= 'a' && ascii_lower(s.p[i]) <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.' || s.p[i] == '_' || s.p[i] == '-';
    return good;
}

static void load_settings(struct object *o, const struct ynode *map, struct kvs *out)
{
    *out = (struct kvs){0};
    if (!map || map->type != Y_MAP)
        return;
    out->items = load_array(o, map->n, sizeof *out->items);
    for (uint32_t i = 0; i < map->n; i++) {
        const struct ynode *v = map->pairs[i].value;
        if (v->type == Y_MAP || v->type == Y_LIST || v->type == Y_NULL)
            continue;
        struct slice value = v->type == Y_BOOL ? v->flag ? SLICE("true") : SLICE("false") : v->text;
        out->items[out->n++] = (struct kv){.key = (char *)arena_slice(&o->mem, map->pairs[i].key).p, .value = (char *)arena_slice(&o->mem, value).p, .value_n = value.n};
    }
}

/* A principal of an entry of acls, and its operations, of which there has to be one. */
static char *load_principal(struct reader *r, struct object *o, const struct ynode *n)
{
    char *principal = load_str(o, n, "principal");
    if (principal && !slice_starts(slice_cstr(principal), SLICE("User:")))
        reader_error(r, y_get(n, "principal"), ".principal", "write User:NAMESPACE/WORKLOAD, or another name behind User:", "not a principal: \"%s\"", principal);
    if (y_get(n, "operations") && y_get(n, "operations")->type == Y_LIST && !load_list_n(n, "operations"))
        reader_error(r, y_get(n, "operations"), ".operations", "name at least one, such as Read", "an empty list permits nothing, and denies nothing");
    return principal;
}

static void load_acl(struct reader *r, struct object *o, const struct ynode *n, struct topic_acl *acl)
{
    acl->principal = load_principal(r, o, n);
    acl->host = load_str(o, n, "host");
    acl->deny = load_is(n, "permission", "Deny");
    if (!acl->host)
        acl->host = arena_strdup(&o->mem, "*");
    for (uint32_t i = 0; i < load_list_n(n, "operations"); i++)
        for (uint32_t op = 0; op < TOPIC_OPERATIONS; op++)
            if (slice_is(y_str(y_get(n, "operations")->items[i]), topic_operation_names[op]))
                acl->operations |= 1u << op;
}

static void load_quota(struct reader *r, struct object *o, const struct ynode *n, struct topic_quota *q)
{
    q->principal = load_str(o, n, "principal");
    q->producer_bytes = load_int(n, "producerByteRate", 0, INT64_MAX);
    q->consumer_bytes = load_int(n, "consumerByteRate", 0, INT64_MAX);
    q->request_percent = load_int(n, "requestPercentage", 0, INT64_MAX);
    if (q->principal && (!slice_starts(slice_cstr(q->principal), SLICE("User:")) || strcmp(q->principal, "User:*") == 0))
        reader_error(r, y_get(n, "principal"), ".principal", "write User:NAMESPACE/WORKLOAD, or another name behind User:", "not one principal: \"%s\"", q->principal);
    if (n->type == Y_MAP && !q->producer_bytes && !q->consumer_bytes && !q->request_percent)
        reader_error(r, n, "", "add producerByteRate, consumerByteRate or requestPercentage", "no rate: nothing is limited");
}

void load_topic(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    struct topic_spec *t = &o->topic;
    t->topic = load_str(o, spec, "topicName");
    if (!t->topic && !topic_name_is_good(slice_cstr(o->name)) && o->name[0])
        reader_error(r, doc, "metadata.name", "give spec.topicName", "too long for the name of a topic");
    if (!t->topic)
        t->topic = o->name;
    if (slice_starts(slice_cstr(t->topic), SLICE("__")))
        reader_error(r, doc, "spec.topicName", "choose a name that does not begin with __", "the broker's own topics are not to be declared: %s", t->topic);
    t->partitions = (uint32_t)load_int(spec, "partitions", 1, 10000);
    load_settings(o, y_get(spec, "config"), &t->config);
    if (y_get(spec, "acls") && y_get(spec, "acls")->type == Y_LIST && !load_list_n(spec, "acls"))
        reader_error(r, y_get(spec, "acls"), "spec.acls", "name who may use the topic, or leave the list out", "an empty list would not say who may use the topic");
    t->quotas = load_array(o, load_list_n(spec, "quotas"), sizeof *t->quotas);
    for (uint32_t i = 0; i < load_list_n(spec, "quotas"); i++) {
        size_t mark = reader_push(r, "spec.quotas[%u]", i);
        load_quota(r, o, y_get(spec, "quotas")->items[i], &t->quotas[t->quotas_n++]);
        reader_pop(r, mark);
    }
    t->acls = load_array(o, load_list_n(spec, "acls"), sizeof *t->acls);
    for (uint32_t i = 0; i < load_list_n(spec, "acls"); i++) {
        size_t mark = reader_push(r, "spec.acls[%u]", i);
        load_acl(r, o, y_get(spec, "acls")->items[i], &t->acls[t->acls_n++]);
        reader_pop(r, mark);
    }
}

void load_keyspace(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec"), *acls = y_get(spec, "acls");
    struct keyspace_spec *k = &o->keyspace;
    k->prefix = load_str(o, spec, "prefix");
    struct slice prefix = slice_cstr(k->prefix), reserved = SLICE(KEYSPACE_RESERVED);
    if (slice_starts(prefix, reserved))
        reader_error(r, y_get(spec, "prefix"), "spec.prefix", "choose another one", "keys below " KEYSPACE_RESERVED " are the node's own: nobody writes them, and they are read from the host only");
    if (acls && acls->type == Y_LIST && !acls->n)
        reader_error(r, acls, "spec.acls", "name who may use the keys, or remove the Keyspace", "an empty list would not say who may use the keys");
    k->acls = load_array(o, load_list_n(spec, "acls"), sizeof *k->acls);
    for (uint32_t i = 0; i < load_list_n(spec, "acls"); i++) {
        const struct ynode *n = acls->items[i];
        size_t mark = reader_push(r, "spec.acls[%u]", i);
        struct keyspace_acl *acl = &k->acls[k->acls_n++];
        acl->principal = load_principal(r, o, n);
        for (uint32_t op = 0; op < load_list_n(n, "operations"); op++) {
            acl->read |= slice_is(y_str(y_get(n, "operations")->items[op]), "Read");
            acl->write |= slice_is(y_str(y_get(n, "operations")->items[op]), "Write");
        }
        reader_pop(r, mark);
    }
}
