/* configs.c - DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.
 *
 * Topics have settings that can be changed. The broker's are told; of those the defaults of topics can be changed, for all brokers ("") or this one (KIP-226), and others
 * are options of its node. Values are told as text, with where they come from: the topic itself, or a default, under the name that a Kafka broker has for it (the synonym).
 */
#include "frame_int.h"

enum resource_kind { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4, RESOURCE_LOGGER = 8, RESOURCE_METRICS = 16, RESOURCE_GROUP = 32 }; /* ConfigResource.Type */

/* Why a kind of resource has no settings that could be told or changed. */
static const char *unserved(struct breq *r, int8_t kind)
{
    switch (kind) {
    case RESOURCE_LOGGER: return "Resources of the type BROKER_LOGGER are not served: the node's log has no levels of its own for parts of it";
    case RESOURCE_METRICS: return "Resources of the type CLIENT_METRICS are not served: clients send no metrics here";
    case RESOURCE_GROUP: return "Resources of the type GROUP are not served: groups have no settings of their own";
    default: return arena_printf(&r->arena, "Unsupported resource type %d", kind);
    }
}

/* ---- DescribeConfigs ------------------------------------------------------------------------------------------------ */

static bool key_wanted(const struct kafka_describe_configs_req_describe_configs_resource *want, const char *name)
{
    for (int32_t i = 0; i < want->configuration_keys_n; i++)
        if (slice_is(want->configuration_keys[i], name))
            return true;
    return want->configuration_keys_n == -1 || (want->configuration_keys_n == 0);
}

/* Where values come from, in the order in which they count; own: a topic's, NULL for the broker itself. */
static void synonyms(struct breq *r, struct kafka_describe_configs_resp_describe_configs_resource_result *c, const struct topic_settings *own, enum topic_setting i)
{
    static const int8_t sources[DEFAULTS_LAYERS] = {[DEFAULTS_BROKERS] = SOURCE_BROKERS, [DEFAULTS_BROKER] = SOURCE_BROKER};
    const struct broker_defaults *d = own ? own->defaults : r->home->catalog->defaults;
    struct slice name = slice_cstr(default_name(i) ? default_name(i) : arena_printf(&r->arena, "log.%s", topic_setting_infos[i].name));
    c->synonyms = BREQ_ARRAY(r, struct kafka_describe_configs_resp_describe_configs_synonym, 2 + DEFAULTS_LAYERS);
    if (own && own->values[i])
        c->synonyms[c->synonyms_n++] = (struct kafka_describe_configs_resp_describe_configs_synonym){slice_cstr(topic_setting_infos[i].name), arena_slice(&r->arena, slice_cstr(own->values[i])), SOURCE_TOPIC};
    for (int l = DEFAULTS_LAYERS; d && l-- > 0;)
        if (d->layer[l].values[i])
            c->synonyms[c->synonyms_n++] = (struct kafka_describe_configs_resp_describe_configs_synonym){name, arena_slice(&r->arena, slice_cstr(d->layer[l].values[i])), sources[l]};
    c->synonyms[c->synonyms_n++] = (struct kafka_describe_configs_resp_describe_configs_synonym){name, slice_cstr(topic_setting_infos[i].preset), SOURCE_DEFAULT};
}

static void synonym_itself(struct breq *r, struct kafka_describe_configs_resp_describe_configs_resource_result *c)
{
    c->synonyms = BREQ_NEW(r, struct kafka_describe_configs_resp_describe_configs_synonym);
    *c->synonyms = (struct kafka_describe_configs_resp_describe_configs_synonym){c->name, c->value, c->config_source};
    c->synonyms_n = 1;
}

static void describe_topic(struct breq *r, const struct kafka_describe_configs_req_describe_configs_resource *want, struct kafka_describe_configs_resp_describe_configs_result *out)
{
    const struct kafka_describe_configs_req *req = r->req;
    const struct topic *t = catalog_topic(r->home->catalog, want->resource_name);
    if (!topic_name_ok(want->resource_name)) {
        out->error_code = KAFKA_INVALID_TOPIC_EXCEPTION;
        out->error_message = SLICE("Topic name is invalid");
    } else if (!allowed(r, ACL_DESCRIBE_CONFIGS, ACL_TOPIC, want->resource_name)) {
        out->error_code = KAFKA_TOPIC_AUTHORIZATION_FAILED;
    } else if (!t) {
        out->error_code = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    if (out->error_code)
        return;
    out->configs = BREQ_ARRAY(r, struct kafka_describe_configs_resp_describe_configs_resource_result, TOPIC_SETTINGS);
    for (int i = 0; i < TOPIC_SETTINGS; i++) {
        const struct setting_info *f = &topic_setting_infos[i];
        if (!key_wanted(want, f->name))
            continue;
        struct kafka_describe_configs_resp_describe_configs_resource_result *c = &out->configs[out->configs_n++];
        kafka_describe_configs_resp_describe_configs_resource_result_init(c);
        c->name = slice_cstr(f->name);
        c->value = arena_slice(&r->arena, slice_cstr(settings_value(&t->settings, (enum topic_setting)i)));
        c->config_source = settings_source(&t->settings, (enum topic_setting)i);
        c->config_type = (int8_t)f->type;
        if (req->include_documentation)
            c->documentation = slice_cstr(f->doc);
        if (req->include_synonyms)
            synonyms(r, c, &t->settings, (enum topic_setting)i);
    }
}

struct broker_setting {
    const char *name, *value, *doc;
    enum setting_type type;
    bool fixed;
};

static const char *listener_text(struct breq *r) { return arena_printf(&r->arena, "PLAINTEXT://" SLICE_FMT ":%u", SLICE_ARG(r->advertised_host), r->advertised_port); }

#define NUMBER(n) arena_printf(&r->arena, "%llu", (unsigned long long)(n))
#define YES(b) ((b) ? "true" : "false")
#define TEXT(t) (t)

static struct broker_setting *broker_settings(struct breq *r, int *n)
{
    const struct broker_conf *c = &r->home->b->conf;
    const struct broker_setting all[] = {
#define X(name_, type_, fixed_, value_, doc_) {.name = name_, .value = value_, .doc = doc_, .type = SETTING_##type_, .fixed = fixed_},
#include "broker_settings.def"
#undef X
    };
    struct broker_setting *copy = BREQ_ARRAY(r, struct broker_setting, COUNT_OF(all));
    memcpy(copy, all, sizeof all);
    *n = COUNT_OF(all);
    return copy;
}

static bool is_this_broker(struct breq *r, struct slice name)
{
    char id[16];
    struct buf b = {0};
    buf_printf(&b, "%d", r->home->b->conf.node_id);
    size_t n = MIN(b.n, sizeof id);
    memcpy(id, b.p, n);
    buf_free(&b);
    return slice_eq(name, slice_of(id, n));
}

/* The defaults of topics, under the broker's names: those that were set for all brokers, or all that there are. */
static void describe_defaults(struct breq *r, const struct kafka_describe_configs_req_describe_configs_resource *want, struct kafka_describe_configs_resp_describe_configs_result *out, bool all)
{
    const struct kafka_describe_configs_req *req = r->req;
    struct broker_defaults *d = r->home->catalog->defaults;
    const struct topic_settings nobodys = {.defaults = d};
    for (enum topic_setting i = 0; i < TOPIC_SETTINGS; i++) {
        if (!default_name(i) || !key_wanted(want, default_name(i)) || (!all && !(d && d->layer[DEFAULTS_BROKERS].values[i])))
            continue;
        struct kafka_describe_configs_resp_describe_configs_resource_result *c = &out->configs[out->configs_n++];
        kafka_describe_configs_resp_describe_configs_resource_result_init(c);
        c->name = slice_cstr(default_name(i));
        c->value = arena_slice(&r->arena, slice_cstr(all ? settings_value(&nobodys, i) : d->layer[DEFAULTS_BROKERS].values[i]));
        c->config_source = all ? settings_source(&nobodys, i) : SOURCE_BROKERS;
        c->config_type = (int8_t)topic_setting_infos[i].type;
        if (req->include_documentation)
            c->documentation = slice_cstr(topic_setting_infos[i].doc);
        if (req->include_synonyms && all)
            synonyms(r, c, NULL, i);
        else if (req->include_synonyms) /* what one broker has is no matter of all of them */
            synonym_itself(r, c);
    }
}

static void describe_broker(struct breq *r, const struct kafka_describe_configs_req_describe_configs_resource *want, struct kafka_describe_configs_resp_describe_configs_result *out)
{
    const struct kafka_describe_configs_req *req = r->req;
    int n = 0;
    if (!allowed(r, ACL_DESCRIBE_CONFIGS, ACL_CLUSTER, CLUSTER_NAME)) {
        out->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
        return;
    }
    if (want->resource_name.n == 0) { /* what was set for all brokers */
        out->configs = BREQ_ARRAY(r, struct kafka_describe_configs_resp_describe_configs_resource_result, TOPIC_SETTINGS);
        describe_defaults(r, want, out, false);
        return;
    }
    if (!is_this_broker(r, want->resource_name)) {
        out->error_code = KAFKA_INVALID_REQUEST;
        out->error_message = SLICE("Unexpected broker id: there is one broker, whose id Metadata tells.");
        return;
    }
    struct broker_setting *all = broker_settings(r, &n);
    out->configs = BREQ_ARRAY(r, struct kafka_describe_configs_resp_describe_configs_resource_result, n + TOPIC_SETTINGS);
    describe_defaults(r, want, out, true);
    for (int i = 0; i < n; i++) {
        if (!key_wanted(want, all[i].name))
            continue;
        struct kafka_describe_configs_resp_describe_configs_resource_result *c = &out->configs[out->configs_n++];
        kafka_describe_configs_resp_describe_configs_resource_result_init(c);
        c->name = slice_cstr(all[i].name);
        c->value = slice_cstr(all[i].value);
        c->read_only = true;
        c->config_source = all[i].fixed ? SOURCE_DEFAULT : SOURCE_STATIC;
        c->config_type = (int8_t)all[i].type;
        if (req->include_documentation)
            c->documentation = slice_cstr(all[i].doc);
        if (req->include_synonyms)
            synonym_itself(r, c);
    }
}

/* One key for a kind and a name. */
static struct slice resource_key(struct breq *r, int8_t kind, struct slice name)
{
    char *p = arena_alloc(&r->arena, 1 + name.n);
    p[0] = (char)kind;
    if (name.n)
        memcpy(p + 1, name.p, name.n);
    return slice_of(p, 1 + name.n);
}

void describe_configs(struct breq *r)
{
    const struct kafka_describe_configs_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->resources_n, 0), ADMIN_ITEMS_MAX))
        return;
    struct kafka_describe_configs_resp *resp = BREQ_NEW(r, struct kafka_describe_configs_resp);
    struct table seen = {0};
    kafka_describe_configs_resp_init(resp);
    r->resp = resp;
    resp->results_n = MAX(req->resources_n, 0);
    resp->results = BREQ_ARRAY(r, struct kafka_describe_configs_resp_describe_configs_result, resp->results_n);
    for (int32_t i = 0; i < resp->results_n; i++) {
        const struct kafka_describe_configs_req_describe_configs_resource *want = &req->resources[i];
        struct kafka_describe_configs_resp_describe_configs_result *out = &resp->results[i];
        kafka_describe_configs_resp_describe_configs_result_init(out);
        out->error_message = (struct slice){0};
        out->resource_type = want->resource_type;
        out->resource_name = want->resource_name;
        if (table_put(&seen, resource_key(r, want->resource_type, want->resource_name), r)) {
            out->error_code = KAFKA_INVALID_REQUEST;
            out->error_message = SLICE("Each resource must appear at most once");
        } else if (want->resource_type == RESOURCE_TOPIC) {
            describe_topic(r, want, out);
        } else if (want->resource_type == RESOURCE_BROKER) {
            describe_broker(r, want, out);
        } else if (want->resource_type != RESOURCE_METRICS && want->resource_type != RESOURCE_GROUP) { /* of these two nothing is set, as in Kafka before somebody sets it */
            out->error_code = KAFKA_INVALID_REQUEST;
            out->error_message = slice_cstr(unserved(r, want->resource_type));
        }
    }
    table_fini(&seen);
    breq_answer(r, r->home);
}

/* ---- changing ------------------------------------------------------------------------------------------------------------- */

/* Both kinds of request, whose structs differ in names alone. */
struct alter_item {
    struct topic_change change;
    struct alter *a;
    int8_t kind;
    struct slice name;
    int16_t *error;              /* in the answer */
    struct slice *message;
};
struct alter {
    struct breq *r;
    uint32_t left;
    struct alter_item *items;
    int32_t n;
};

static void alter_done(struct shard *home, struct topic_change *c)
{
    struct alter_item *it = CONTAINER_OF(c, struct alter_item, change);
    struct alter *a = it->a;
    *it->error = (int16_t)c->error;
    if (c->message)
        *it->message = arena_slice(&a->r->arena, slice_cstr(c->message));
    topic_unref(c->topic);
    mem_free(c->message);
    if (--a->left == 0)
        breq_answer(a->r, home);
}

static void alter_refuse(struct alter_item *it, enum kafka_error e, const char *why)
{
    *it->error = (int16_t)e;
    *it->message = slice_cstr(why);
}

/* What can be said before the controller is asked; true when it is to be asked. */
static bool alter_check(struct alter_item *it)
{
    struct breq *r = it->a->r;
    if (it->kind == RESOURCE_TOPIC) {
        if (allowed(r, ACL_ALTER_CONFIGS, ACL_TOPIC, it->name))
            return true;
        alter_refuse(it, KAFKA_TOPIC_AUTHORIZATION_FAILED, NULL);
    } else if (it->kind == RESOURCE_BROKER) {
        if (!allowed(r, ACL_ALTER_CONFIGS, ACL_CLUSTER, CLUSTER_NAME))
            alter_refuse(it, KAFKA_CLUSTER_AUTHORIZATION_FAILED, NULL);
        else if (it->name.n == 0 || is_this_broker(r, it->name))
            return true;
        else
            alter_refuse(it, KAFKA_INVALID_REQUEST, "Unexpected broker id: there is one broker, whose id Metadata tells.");
    } else {
        alter_refuse(it, KAFKA_INVALID_REQUEST, unserved(r, it->kind));
    }
    return false;
}

/* Names that stand twice, values that are missing. NULL: fine. */
static const char *pairs_wrong(struct breq *r, const struct topic_change *c)
{
    struct table seen = {0};
    const char *why = NULL;
    for (uint32_t i = 0; i < c->settings_n && !why; i++) {
        enum config_op op = c->ops ? (enum config_op)c->ops[i] : CONFIG_SET;
        if (table_put(&seen, c->settings[2 * i], r))
            why = "Error due to duplicate config keys";
        else if (op < CONFIG_SET || op > CONFIG_SUBTRACT)
            why = "Unknown config operation";
        else if (!c->settings[2 * i + 1].p && op != CONFIG_DELETE)
            why = "Null value not supported: to go back to the default, DELETE the setting";
    }
    table_fini(&seen);
    return why;
}

static void alter_run(struct alter *a, bool validate_only)
{
    struct table seen = {0}, doubles = {0};
    a->left = 1;
    for (int32_t i = 0; i < a->n; i++) {
        struct slice key = resource_key(a->r, a->items[i].kind, a->items[i].name);
        if (table_put(&seen, key, a))
            table_put(&doubles, key, a);
    }
    for (int32_t i = 0; i < a->n; i++) {
        struct alter_item *it = &a->items[i];
        const char *wrong = table_get(&doubles, resource_key(a->r, it->kind, it->name)) ? "Each resource must appear at most once" : pairs_wrong(a->r, &it->change);
        it->a = a;
        if (wrong) {
            alter_refuse(it, KAFKA_INVALID_REQUEST, wrong);
            continue;
        }
        if (!alter_check(it))
            continue;
        it->change.what = it->kind == RESOURCE_BROKER ? BROKER_CONFIGURE : TOPIC_CONFIGURE;
        it->change.name = it->name;
        it->change.validate_only = validate_only;
        it->change.done = alter_done;
        a->left++;
        topic_change(a->r->home, &it->change);
    }
    table_fini(&seen);
    table_fini(&doubles);
    if (--a->left == 0)
        breq_answer(a->r, a->r->home);
}

static struct alter *alter_new(struct breq *r, int32_t n)
{
    struct alter *a = BREQ_NEW(r, struct alter);
    a->r = r;
    a->n = n;
    a->items = BREQ_ARRAY(r, struct alter_item, n);
    return a;
}

static struct slice *alter_pairs(struct breq *r, struct alter_item *it, int32_t n)
{
    struct slice *pairs = BREQ_ARRAY(r, struct slice, 2 * (size_t)MAX(n, 0));
    it->change.settings = pairs;
    it->change.settings_n = (uint32_t)MAX(n, 0);
    return pairs;
}

void alter_configs(struct breq *r)
{
    const struct kafka_alter_configs_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->resources_n, 0), ADMIN_ITEMS_MAX))
        return;
    struct kafka_alter_configs_resp *resp = BREQ_NEW(r, struct kafka_alter_configs_resp);
    kafka_alter_configs_resp_init(resp);
    r->resp = resp;
    resp->responses_n = MAX(req->resources_n, 0);
    resp->responses = BREQ_ARRAY(r, struct kafka_alter_configs_resp_alter_configs_resource_response, resp->responses_n);
    struct alter *a = alter_new(r, resp->responses_n);
    for (int32_t i = 0; i < a->n; i++) {
        const struct kafka_alter_configs_req_alter_configs_resource *in = &req->resources[i];
        struct kafka_alter_configs_resp_alter_configs_resource_response *out = &resp->responses[i];
        struct alter_item *it = &a->items[i];
        kafka_alter_configs_resp_alter_configs_resource_response_init(out);
        out->error_message = (struct slice){0};
        it->kind = out->resource_type = in->resource_type;
        it->name = out->resource_name = in->resource_name;
        it->error = &out->error_code;
        it->message = &out->error_message;
        struct slice *pairs = alter_pairs(r, it, in->configs_n);
        for (int32_t k = 0; k < in->configs_n; k++) {
            pairs[2 * k] = in->configs[k].name;
            pairs[2 * k + 1] = in->configs[k].value;
        }
    }
    alter_run(a, req->validate_only);
}

void incremental_alter_configs(struct breq *r)
{
    const struct kafka_incremental_alter_configs_req *req = r->req;
    if (!breq_items_ok(r, (uint64_t)MAX(req->resources_n, 0), ADMIN_ITEMS_MAX))
        return;
    struct kafka_incremental_alter_configs_resp *resp = BREQ_NEW(r, struct kafka_incremental_alter_configs_resp);
    kafka_incremental_alter_configs_resp_init(resp);
    r->resp = resp;
    resp->responses_n = MAX(req->resources_n, 0);
    resp->responses = BREQ_ARRAY(r, struct kafka_incremental_alter_configs_resp_alter_configs_resource_response, resp->responses_n);
    struct alter *a = alter_new(r, resp->responses_n);
    for (int32_t i = 0; i < a->n; i++) {
        const struct kafka_incremental_alter_configs_req_alter_configs_resource *in = &req->resources[i];
        struct kafka_incremental_alter_configs_resp_alter_configs_resource_response *out = &resp->responses[i];
        struct alter_item *it = &a->items[i];
        kafka_incremental_alter_configs_resp_alter_configs_resource_response_init(out);
        out->error_message = (struct slice){0};
        it->kind = out->resource_type = in->resource_type;
        it->name = out->resource_name = in->resource_name;
        it->error = &out->error_code;
        it->message = &out->error_message;
        struct slice *pairs = alter_pairs(r, it, in->configs_n);
        int8_t *ops = BREQ_ARRAY(r, int8_t, in->configs_n);
        for (int32_t k = 0; k < in->configs_n; k++) {
            pairs[2 * k] = in->configs[k].name;
            pairs[2 * k + 1] = in->configs[k].value;
            ops[k] = in->configs[k].config_operation;
        }
        it->change.ops = ops;
    }
    alter_run(a, req->validate_only);
}

/* ---- ListConfigResources (KIP-1142) ----------------------------------------------------------------------------------------- */

static void list_add(struct breq *r, struct kafka_list_config_resources_resp *resp, struct slice name, int8_t kind)
{
    struct kafka_list_config_resources_resp_config_resource *c = &resp->config_resources[resp->config_resources_n++];
    kafka_list_config_resources_resp_config_resource_init(c);
    c->resource_name = arena_slice(&r->arena, name);
    c->resource_type = kind;
}

void list_config_resources(struct breq *r)
{
    const struct kafka_list_config_resources_req *req = r->req;
    struct kafka_list_config_resources_resp *resp = BREQ_NEW(r, struct kafka_list_config_resources_resp);
    const struct catalog *cat = r->home->catalog;
    uint8_t kinds = 0; /* version 0 asks for client metrics, of which there are none */
    kafka_list_config_resources_resp_init(resp);
    r->resp = resp;
    for (int32_t i = 0; i < req->resource_types_n; i++) {
        int8_t kind = req->resource_types[i];
        if (kind != RESOURCE_TOPIC && kind != RESOURCE_BROKER && kind != RESOURCE_LOGGER && kind != RESOURCE_METRICS && kind != RESOURCE_GROUP)
            resp->error_code = KAFKA_UNSUPPORTED_VERSION;
        kinds |= (uint8_t)kind;
    }
    if (r->version >= 1 && req->resource_types_n <= 0)
        kinds = RESOURCE_TOPIC | RESOURCE_BROKER;
    if (!allowed(r, ACL_DESCRIBE_CONFIGS, ACL_CLUSTER, CLUSTER_NAME))
        resp->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    r->error = resp->error_code;
    resp->config_resources = BREQ_ARRAY(r, struct kafka_list_config_resources_resp_config_resource, cat->by_name.n + 1);
    for (struct table_slot *s = NULL; !r->error && (kinds & RESOURCE_TOPIC) && (s = table_next(&cat->by_name, s));)
        list_add(r, resp, slice_of(s->key, s->key_n), RESOURCE_TOPIC);
    if (!r->error && (kinds & RESOURCE_BROKER))
        list_add(r, resp, slice_cstr(arena_printf(&r->arena, "%d", r->home->b->conf.node_id)), RESOURCE_BROKER);
    breq_answer(r, r->home);
}
