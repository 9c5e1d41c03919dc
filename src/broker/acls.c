/* acls.c - who may do what: the decision, and the requests that describe, make and delete ACL bindings.
 *
 * The index of a snapshot has a list of bindings per (kind, pattern, name), and per kind the lengths of the prefixes that occur. A decision looks at the list
 * of the name, of "*", and of each such prefix of the name: a deny that matches decides at once, an allow decides at the end. The rules: SECURITY.md.
 */
#include "security_int.h"

#include <stdlib.h>

#define DELETE_MATCHES_MAX 100000u /* bindings that one DeleteAcls answer tells of */
#define KINDS (ACL_USER + 1)

struct acl_list {
    struct sec_acl **acls;         /* the snapshot's */
    uint32_t n, cap;
};
struct acl_index {
    struct table lists;            /* kind, pattern, name -> struct acl_list */
    struct acl_list by_kind[KINDS];/* allow bindings of one kind, for allowed_write_somewhere() */
    uint32_t n[KINDS];             /* bindings of one kind: where there are none, nothing is looked up */
    uint32_t *lengths[KINDS];      /* of prefixes, ascending, each once */
    uint32_t lengths_n[KINDS], lengths_cap[KINDS];
};

/* ---- the index ------------------------------------------------------------------------------------------------------------------ */

static struct slice list_key(char *to, uint8_t kind, uint8_t pattern, struct slice name)
{
    to[0] = (char)kind;
    to[1] = (char)pattern;
    memcpy(to + 2, name.p, name.n);
    return slice_of(to, name.n + 2);
}

static void list_append(struct acl_list *l, struct sec_acl *a)
{
    ARRAY_GROW(MEM_BROKER, l->acls, l->n, l->cap);
    l->acls[l->n++] = a;
}

static void length_add(struct acl_index *x, uint8_t kind, uint32_t length)
{
    uint32_t i = 0;
    while (i < x->lengths_n[kind] && x->lengths[kind][i] < length)
        i++;
    if (i < x->lengths_n[kind] && x->lengths[kind][i] == length)
        return;
    ARRAY_GROW(MEM_BROKER, x->lengths[kind], x->lengths_n[kind], x->lengths_cap[kind]);
    memmove(&x->lengths[kind][i + 1], &x->lengths[kind][i], (x->lengths_n[kind] - i) * sizeof **x->lengths);
    x->lengths[kind][i] = length;
    x->lengths_n[kind]++;
}

struct acl_index *acl_index_new(const struct secdb *db)
{
    char key[SECURITY_NAME_MAX + 2];
    struct acl_index *x = mem_new(MEM_BROKER, sizeof *x);
    for (uint32_t i = 0; i < db->acls_n; i++) {
        struct sec_acl *a = db->acls[i];
        struct slice k = list_key(key, a->kind, a->pattern, slice_cstr(a->name));
        struct acl_list *l = table_get(&x->lists, k);
        if (!l) {
            l = mem_new(MEM_BROKER, sizeof *l);
            table_put(&x->lists, k, l);
        }
        list_append(l, a);
        x->n[a->kind]++;
        if (a->permission == ACL_ALLOW)
            list_append(&x->by_kind[a->kind], a);
        if (a->pattern == ACL_PREFIXED)
            length_add(x, a->kind, (uint32_t)strlen(a->name));
    }
    return x;
}

void acl_index_free(struct acl_index *x)
{
    if (!x)
        return;
    for (struct table_slot *s = NULL; (s = table_next(&x->lists, s));) {
        mem_free(((struct acl_list *)s->value)->acls);
        mem_free(s->value);
    }
    table_fini(&x->lists);
    for (int i = 0; i < KINDS; i++) {
        mem_free(x->by_kind[i].acls);
        mem_free(x->lengths[i]);
    }
    mem_free(x);
}

/* ---- the decision ------------------------------------------------------------------------------------------------------------------ */

static bool implied(uint8_t allow, enum acl_operation op)
{
    switch (op) {
    case ACL_DESCRIBE: return allow == ACL_READ || allow == ACL_WRITE || allow == ACL_DELETE || allow == ACL_ALTER;
    case ACL_DESCRIBE_CONFIGS: return allow == ACL_ALTER_CONFIGS;
    default: return false;
    }
}

static bool concerns(const struct sec_acl *a, const struct broker_caller *who)
{
    return (strcmp(a->principal, "User:*") == 0 || slice_is(who->principal, a->principal)) && (strcmp(a->host, "*") == 0 || slice_is(who->host, a->host));
}

struct verdict {
    bool any, denied, allowed;     /* there are bindings for this resource; of those for the caller and operation */
};

static void look(const struct acl_list *l, const struct broker_caller *who, enum acl_operation op, struct verdict *v)
{
    for (uint32_t i = 0; l && i < l->n && !v->denied; i++) {
        const struct sec_acl *a = l->acls[i];
        v->any = true;
        if (!concerns(a, who))
            continue;
        bool same = a->operation == op || a->operation == ACL_ALL;
        v->denied = a->permission == ACL_DENY && same;
        v->allowed = v->allowed || (a->permission == ACL_ALLOW && (same || implied(a->operation, op)));
    }
}

bool acl_decide(const struct secdb *db, const struct broker_caller *who, bool when_no_acl, enum acl_operation op, enum acl_resource kind, struct slice name)
{
    const struct acl_index *x = db->index;
    struct verdict v = {0};
    char stack[2 + 256], *key = stack;
    if (x->n[kind] == 0)
        return when_no_acl;
    if (name.n + 2 > sizeof stack)
        key = mem_new(MEM_BROKER, name.n + 2);
    look(table_get(&x->lists, list_key(key, (uint8_t)kind, ACL_LITERAL, name)), who, op, &v);
    if (!slice_is(name, "*"))
        look(table_get(&x->lists, list_key(key, (uint8_t)kind, ACL_LITERAL, SLICE("*"))), who, op, &v);
    for (uint32_t i = 0; i < x->lengths_n[kind] && x->lengths[kind][i] <= name.n && !v.denied; i++)
        look(table_get(&x->lists, list_key(key, (uint8_t)kind, ACL_PREFIXED, slice_of(name.p, x->lengths[kind][i]))), who, op, &v);
    if (key != stack)
        mem_free(key);
    return !v.denied && (v.allowed || (!v.any && when_no_acl));
}

bool allowed(const struct breq *r, enum acl_operation op, enum acl_resource kind, struct slice name)
{
    const struct broker_conf *conf = &r->home->b->conf;
    struct security *sec = r->home->security;
    if (!conf->authorize || r->caller.super)
        return true;
    bool yes = acl_decide(sec->db, &r->caller, conf->allow_when_no_acl, op, kind, name);
    counter_inc(yes ? &sec->counters.allowed : &sec->counters.denied);
    return yes;
}

/* Is this allow binding outweighed by a deny on everything that it covers (KIP-679)? */
static bool outweighed(const struct acl_index *x, const struct sec_acl *a, const struct broker_caller *who, enum acl_operation op)
{
    char key[SECURITY_NAME_MAX + 2];
    struct verdict v = {0};
    struct slice name = slice_cstr(a->name);
    look(table_get(&x->lists, list_key(key, a->kind, ACL_LITERAL, SLICE("*"))), who, op, &v);
    if (a->pattern == ACL_LITERAL && !slice_is(name, "*"))
        look(table_get(&x->lists, list_key(key, a->kind, ACL_LITERAL, name)), who, op, &v);
    bool all = a->pattern == ACL_LITERAL && slice_is(name, "*");
    for (uint32_t i = 0; !all && i < x->lengths_n[a->kind] && x->lengths[a->kind][i] <= name.n && !v.denied; i++)
        look(table_get(&x->lists, list_key(key, a->kind, ACL_PREFIXED, slice_of(name.p, x->lengths[a->kind][i]))), who, op, &v);
    return v.denied;
}

bool allowed_write_somewhere(const struct breq *r)
{
    const struct broker_conf *conf = &r->home->b->conf;
    const struct acl_index *x = r->home->security->db->index;
    if (!conf->authorize || r->caller.super)
        return true;
    for (uint32_t i = 0; i < x->by_kind[ACL_TOPIC].n; i++) {
        const struct sec_acl *a = x->by_kind[ACL_TOPIC].acls[i];
        if ((a->operation == ACL_WRITE || a->operation == ACL_ALL) && concerns(a, &r->caller) && !outweighed(x, a, &r->caller, ACL_WRITE))
            return true;
    }
    return conf->allow_when_no_acl && acl_decide(r->home->security->db, &r->caller, true, ACL_WRITE, ACL_TOPIC, SLICE("*"));
}

int32_t allowed_operations(const struct breq *r, enum acl_resource kind, struct slice name)
{
    static const uint32_t of_kind[KINDS] = {
        [ACL_TOPIC] = 1u << ACL_READ | 1u << ACL_WRITE | 1u << ACL_CREATE | 1u << ACL_DELETE | 1u << ACL_ALTER | 1u << ACL_DESCRIBE | 1u << ACL_DESCRIBE_CONFIGS |
                      1u << ACL_ALTER_CONFIGS,
        [ACL_GROUP] = 1u << ACL_READ | 1u << ACL_DELETE | 1u << ACL_DESCRIBE | 1u << ACL_DESCRIBE_CONFIGS | 1u << ACL_ALTER_CONFIGS,
        [ACL_CLUSTER] = 1u << ACL_CREATE | 1u << ACL_ALTER | 1u << ACL_DESCRIBE | 1u << ACL_CLUSTER_ACTION | 1u << ACL_DESCRIBE_CONFIGS | 1u << ACL_ALTER_CONFIGS |
                        1u << ACL_IDEMPOTENT_WRITE,
        [ACL_TXN] = 1u << ACL_WRITE | 1u << ACL_DESCRIBE | 1u << ACL_TWO_PHASE_COMMIT,
    };
    uint32_t bits = 0;
    for (uint32_t op = ACL_READ; op <= ACL_TWO_PHASE_COMMIT; op++)
        if (of_kind[kind] & 1u << op && allowed(r, (enum acl_operation)op, kind, name))
            bits |= 1u << op;
    return (int32_t)bits;
}

/* ---- filters ---------------------------------------------------------------------------------------------------------------------------- */

struct acl_filter {
    int8_t kind, pattern, operation, permission;
    struct slice name, principal, host; /* p NULL: any */
};

static bool filter_ok(const struct acl_filter *f)
{
    return f->kind > ACL_RESOURCE_UNKNOWN && f->kind <= ACL_USER && f->pattern > ACL_PATTERN_UNKNOWN && f->pattern <= ACL_PREFIXED && f->operation > ACL_UNKNOWN &&
           f->operation <= ACL_TWO_PHASE_COMMIT && f->permission > ACL_PERMISSION_UNKNOWN && f->permission <= ACL_ALLOW;
}

static bool filter_name(const struct acl_filter *f, const struct sec_acl *a)
{
    struct slice name = slice_cstr(a->name);
    if (f->pattern != ACL_PATTERN_ANY && f->pattern != ACL_PATTERN_MATCH && f->pattern != a->pattern)
        return false;
    if (!f->name.p)
        return true;
    if (f->pattern != ACL_PATTERN_MATCH)
        return slice_eq(f->name, name);
    return a->pattern == ACL_PREFIXED ? slice_starts(f->name, name) : slice_eq(f->name, name) || slice_is(name, "*");
}

static bool filter_matches(const struct acl_filter *f, const struct sec_acl *a)
{
    return (f->kind == ACL_RESOURCE_ANY || f->kind == a->kind) && (f->operation == ACL_ANY || f->operation == a->operation) &&
           (f->permission == ACL_PERMISSION_ANY || f->permission == a->permission) && (!f->principal.p || slice_is(f->principal, a->principal)) &&
           (!f->host.p || slice_is(f->host, a->host)) && filter_name(f, a);
}

/* ---- DescribeAcls ------------------------------------------------------------------------------------------------------------------------ */

static int by_resource(const void *pa, const void *pb)
{
    const struct sec_acl *a = *(struct sec_acl *const *)pa, *b = *(struct sec_acl *const *)pb;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->pattern != b->pattern)
        return a->pattern < b->pattern ? -1 : 1;
    return strcmp(a->name, b->name);
}

static void describe_fill(struct breq *r, struct kafka_describe_acls_resp *resp, struct sec_acl **found, uint32_t n)
{
    if (n)
        qsort(found, n, sizeof *found, by_resource);
    resp->resources = BREQ_ARRAY(r, struct kafka_describe_acls_resp_describe_acls_resource, n);
    struct kafka_describe_acls_resp_acl_description *all = BREQ_ARRAY(r, struct kafka_describe_acls_resp_acl_description, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct sec_acl *a = found[i];
        if (i == 0 || by_resource(&found[i - 1], &found[i]))
            resp->resources[resp->resources_n++] = (struct kafka_describe_acls_resp_describe_acls_resource){
                .resource_type = (int8_t)a->kind, .resource_name = arena_slice(&r->arena, slice_cstr(a->name)), .pattern_type = (int8_t)a->pattern, .acls = &all[i]};
        all[i] = (struct kafka_describe_acls_resp_acl_description){.principal = arena_slice(&r->arena, slice_cstr(a->principal)),
                                                                   .host = arena_slice(&r->arena, slice_cstr(a->host)),
                                                                   .operation = (int8_t)a->operation, .permission_type = (int8_t)a->permission};
        resp->resources[resp->resources_n - 1].acls_n++;
    }
}

static const char *const no_authorizer = "No Authorizer is configured.";

void describe_acls_serve(struct breq *r)
{
    const struct kafka_describe_acls_req *req = r->req;
    struct kafka_describe_acls_resp *resp = BREQ_NEW(r, struct kafka_describe_acls_resp);
    const struct secdb *db = r->home->security->db;
    struct acl_filter f = {req->resource_type_filter, req->pattern_type_filter, req->operation, req->permission_type,
                           req->resource_name_filter, req->principal_filter, req->host_filter};
    kafka_describe_acls_resp_init(resp);
    r->resp = resp;
    if (!r->home->b->conf.authorize) {
        resp->error_code = KAFKA_SECURITY_DISABLED;
        resp->error_message = slice_cstr(no_authorizer);
    } else if (!allowed(r, ACL_DESCRIBE, ACL_CLUSTER, CLUSTER_NAME)) {
        resp->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    } else if (!filter_ok(&f)) {
        resp->error_code = KAFKA_INVALID_REQUEST;
        resp->error_message = SLICE("The filter has a value that is not known.");
    } else {
        struct sec_acl **found = BREQ_ARRAY(r, struct sec_acl *, db->acls_n);
        uint32_t n = 0;
        for (uint32_t i = 0; i < db->acls_n; i++)
            if (filter_matches(&f, db->acls[i]))
                found[n++] = db->acls[i];
        describe_fill(r, resp, found, n);
    }
    r->error = resp->error_code;
    breq_answer(r, r->home);
}

/* ---- CreateAcls --------------------------------------------------------------------------------------------------------------------------- */

struct acl_call {
    struct security_change change;
    struct breq *r;
};

/* "User:alice": a type, a colon, a name. */
static bool principal_ok(struct slice s)
{
    struct slice name, type = slice_cut(s, ':', &name);
    return security_name_ok(s) && type.n > 0 && type.n < s.n && name.n > 0;
}

/* What is wrong with a new binding; NULL: nothing. */
static const char *creation_fault(const struct kafka_create_acls_req_acl_creation *c)
{
    if (c->resource_type <= ACL_RESOURCE_ANY || c->resource_type > ACL_USER)
        return "The resource type must be one of the specific ones.";
    if (c->resource_pattern_type != ACL_LITERAL && c->resource_pattern_type != ACL_PREFIXED)
        return "The pattern type must be LITERAL or PREFIXED.";
    if (c->operation <= ACL_ANY || c->operation > ACL_TWO_PHASE_COMMIT)
        return "The operation must be ALL or one of the specific ones.";
    if (c->permission_type != ACL_ALLOW && c->permission_type != ACL_DENY)
        return "The permission must be ALLOW or DENY.";
    if (!security_name_ok(c->resource_name))
        return "The resource name is empty, too long, or not UTF-8.";
    if (c->resource_type == ACL_CLUSTER && !slice_eq(c->resource_name, CLUSTER_NAME))
        return "The only valid name for the CLUSTER resource is kafka-cluster";
    if (!principal_ok(c->principal))
        return "The principal must be TYPE:NAME, such as User:alice.";
    if (!security_name_ok(c->host))
        return "The host must be an address or *.";
    return NULL;
}

static char *text_of(struct breq *r, struct slice s) { return (char *)(uintptr_t)arena_slice(&r->arena, s).p; }

static bool create_apply(struct security_change *change, struct secdb *db)
{
    struct breq *r = CONTAINER_OF(change, struct acl_call, change)->r;
    const struct kafka_create_acls_req *req = r->req;
    struct kafka_create_acls_resp *resp = r->resp;
    bool changed = false;
    for (int32_t i = 0; i < req->creations_n; i++) {
        const struct kafka_create_acls_req_acl_creation *c = &req->creations[i];
        if (resp->results[i].error_code)
            continue;
        if (db->acls_n >= ACLS_MAX) {
            resp->results[i].error_code = KAFKA_POLICY_VIOLATION;
            resp->results[i].error_message = SLICE("There are 10,000 bindings already.");
            continue;
        }
        struct sec_acl a = {.name = text_of(r, c->resource_name), .principal = text_of(r, c->principal), .host = text_of(r, c->host),
                            .kind = (uint8_t)c->resource_type, .pattern = (uint8_t)c->resource_pattern_type, .operation = (uint8_t)c->operation,
                            .permission = (uint8_t)c->permission_type};
        changed = secdb_acl_add(db, &a, (struct slice){0}) || changed;
    }
    return changed;
}

static void create_done(struct shard *from, struct security_change *change, enum kafka_error e)
{
    struct breq *r = CONTAINER_OF(change, struct acl_call, change)->r;
    struct kafka_create_acls_resp *resp = r->resp;
    for (int32_t i = 0; i < resp->results_n && e != KAFKA_NONE; i++)
        if (!resp->results[i].error_code)
            resp->results[i].error_code = (int16_t)e;
    breq_answer(r, from);
}

static void create_refuse(struct breq *r, struct kafka_create_acls_resp *resp, enum kafka_error e, const char *why)
{
    for (int32_t i = 0; i < resp->results_n; i++) {
        resp->results[i].error_code = (int16_t)e;
        resp->results[i].error_message = slice_cstr(why);
    }
    r->error = (int16_t)e;
    breq_answer(r, r->home);
}

void create_acls_serve(struct breq *r)
{
    const struct kafka_create_acls_req *req = r->req;
    struct kafka_create_acls_resp *resp = BREQ_NEW(r, struct kafka_create_acls_resp);
    kafka_create_acls_resp_init(resp);
    r->resp = resp;
    resp->results_n = MAX(req->creations_n, 0);
    resp->results = BREQ_ARRAY(r, struct kafka_create_acls_resp_acl_creation_result, resp->results_n);
    if (!r->home->b->conf.authorize) {
        create_refuse(r, resp, KAFKA_SECURITY_DISABLED, no_authorizer);
        return;
    }
    if (!allowed(r, ACL_ALTER, ACL_CLUSTER, CLUSTER_NAME)) {
        create_refuse(r, resp, KAFKA_CLUSTER_AUTHORIZATION_FAILED, NULL);
        return;
    }
    for (int32_t i = 0; i < resp->results_n; i++) {
        const char *why = creation_fault(&req->creations[i]);
        resp->results[i].error_code = why ? KAFKA_INVALID_REQUEST : KAFKA_NONE;
        resp->results[i].error_message = slice_cstr(why);
    }
    struct acl_call *c = BREQ_NEW(r, struct acl_call);
    c->r = r;
    c->change.apply = create_apply;
    c->change.done = create_done;
    security_change(r->home, &c->change);
}

/* ---- manifests --------------------------------------------------------------------------------------------------------------------------- */

#define OWNER SLICE("manifest")

static bool declared(const struct sec_acl *a, const struct broker_acl *acls, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (acls[i].operation == a->operation && (acls[i].deny ? ACL_DENY : ACL_ALLOW) == a->permission && slice_is(acls[i].principal, a->principal) &&
            slice_is(acls[i].host, a->host))
            return true;
    return false;
}

bool acls_declare(struct secdb *db, struct slice topic, const struct broker_acl *acls, uint32_t n)
{
    bool changed = false;
    for (uint32_t i = db->acls_n; i-- > 0;) {
        const struct sec_acl *a = db->acls[i];
        bool ours = a->owner && a->kind == ACL_TOPIC && a->pattern == ACL_LITERAL && slice_is(topic, a->name);
        if (ours && !declared(a, acls, n)) {
            secdb_acl_del(db, i);
            changed = true;
        }
    }
    for (uint32_t i = 0; i < n && db->acls_n < ACLS_MAX; i++) {
        char *name = mem_strndup(MEM_BROKER, topic.p, topic.n), *principal = mem_strndup(MEM_BROKER, acls[i].principal.p, acls[i].principal.n),
             *host = mem_strndup(MEM_BROKER, acls[i].host.p, acls[i].host.n);
        struct sec_acl a = {.name = name, .principal = principal, .host = host, .kind = ACL_TOPIC, .pattern = ACL_LITERAL, .operation = acls[i].operation,
                            .permission = acls[i].deny ? ACL_DENY : ACL_ALLOW};
        changed = secdb_acl_add(db, &a, OWNER) || changed;
        mem_free(name);
        mem_free(principal);
        mem_free(host);
    }
    return changed;
}

/* ---- DeleteAcls ----------------------------------------------------------------------------------------------------------------------------- */

static struct acl_filter delete_filter(const struct kafka_delete_acls_req_delete_acls_filter *f)
{
    return (struct acl_filter){f->resource_type_filter, f->pattern_type_filter, f->operation, f->permission_type, f->resource_name_filter, f->principal_filter, f->host_filter};
}

/* Tells what the filter matches. What is to go is only marked: each filter of a request sees what there was before it, as in Kafka. left: how many
 * matches the answer may still tell. */
static bool delete_filtered(struct breq *r, const struct secdb *db, const struct acl_filter *f, bool *goes, uint32_t *left,
                            struct kafka_delete_acls_resp_delete_acls_filter_result *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < db->acls_n; i++)
        n += filter_matches(f, db->acls[i]);
    if (n > *left) {
        out->error_code = KAFKA_POLICY_VIOLATION;
        out->error_message = SLICE("the filters of this request match too many bindings; ask with fewer at a time");
        return false;
    }
    *left -= n;
    out->matching_acls = BREQ_ARRAY(r, struct kafka_delete_acls_resp_delete_acls_matching_acl, n);
    for (uint32_t i = db->acls_n; i-- > 0;) {
        const struct sec_acl *a = db->acls[i];
        if (!filter_matches(f, a))
            continue;
        out->matching_acls[out->matching_acls_n++] = (struct kafka_delete_acls_resp_delete_acls_matching_acl){
            .resource_type = (int8_t)a->kind, .resource_name = arena_slice(&r->arena, slice_cstr(a->name)), .pattern_type = (int8_t)a->pattern,
            .principal = arena_slice(&r->arena, slice_cstr(a->principal)), .host = arena_slice(&r->arena, slice_cstr(a->host)),
            .operation = (int8_t)a->operation, .permission_type = (int8_t)a->permission};
        goes[i] = true;
    }
    return n > 0;
}

static bool delete_apply(struct security_change *change, struct secdb *db)
{
    struct breq *r = CONTAINER_OF(change, struct acl_call, change)->r;
    const struct kafka_delete_acls_req *req = r->req;
    struct kafka_delete_acls_resp *resp = r->resp;
    bool changed = false, *goes = BREQ_ARRAY(r, bool, db->acls_n);
    uint32_t left = DELETE_MATCHES_MAX;
    for (int32_t i = 0; i < resp->filter_results_n; i++) {
        struct acl_filter f = delete_filter(&req->filters[i]);
        if (!resp->filter_results[i].error_code)
            changed = delete_filtered(r, db, &f, goes, &left, &resp->filter_results[i]) || changed;
    }
    for (uint32_t i = db->acls_n; i-- > 0;)
        if (goes[i])
            secdb_acl_del(db, i);
    return changed;
}

static void delete_done(struct shard *from, struct security_change *change, enum kafka_error e)
{
    struct breq *r = CONTAINER_OF(change, struct acl_call, change)->r;
    struct kafka_delete_acls_resp *resp = r->resp;
    for (int32_t i = 0; i < resp->filter_results_n && e != KAFKA_NONE; i++) {
        resp->filter_results[i].error_code = (int16_t)e;
        resp->filter_results[i].matching_acls_n = 0;
    }
    breq_answer(r, from);
}

void delete_acls_serve(struct breq *r)
{
    const struct kafka_delete_acls_req *req = r->req;
    struct kafka_delete_acls_resp *resp = BREQ_NEW(r, struct kafka_delete_acls_resp);
    kafka_delete_acls_resp_init(resp);
    r->resp = resp;
    resp->filter_results_n = MAX(req->filters_n, 0);
    resp->filter_results = BREQ_ARRAY(r, struct kafka_delete_acls_resp_delete_acls_filter_result, resp->filter_results_n);
    bool off = !r->home->b->conf.authorize, may = !off && allowed(r, ACL_ALTER, ACL_CLUSTER, CLUSTER_NAME);
    for (int32_t i = 0; i < resp->filter_results_n; i++) {
        struct acl_filter f = delete_filter(&req->filters[i]);
        resp->filter_results[i].error_code = off ? KAFKA_SECURITY_DISABLED : !may ? KAFKA_CLUSTER_AUTHORIZATION_FAILED : !filter_ok(&f) ? KAFKA_INVALID_REQUEST : KAFKA_NONE;
        resp->filter_results[i].error_message = off ? slice_cstr(no_authorizer) : (struct slice){0};
    }
    if (!may) {
        r->error = off ? KAFKA_SECURITY_DISABLED : KAFKA_CLUSTER_AUTHORIZATION_FAILED;
        breq_answer(r, r->home);
        return;
    }
    struct acl_call *c = BREQ_NEW(r, struct acl_call);
    c->r = r;
    c->change.apply = delete_apply;
    c->change.done = delete_done;
    security_change(r->home, &c->change);
}
