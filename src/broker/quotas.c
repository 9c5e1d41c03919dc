/* quotas.c - limits of rate: which one applies to a caller, how it is accounted over all shards, and the requests that describe and change them (KIP-13, KIP-546).
 *
 *     quota_note(): (user, client id) -> this shard's table -> rate of the snapshot, meter of the broker -> paid-until time moves on -> throttle time
 *
 * A meter is one atomic number, the time up to which what was used is paid for: amount / rate is added to it, from now at the earliest. What it is ahead of
 * now, beyond the burst, is how long the caller is to rest. All shards that see an entity share its meter; they find it under quota_meters_lock once, and
 * again when the rules have changed. Nothing on the way of a request locks or allocates after that.
 */
#include "prom.h"
#include "security_int.h"

#include <math.h>
#include <pthread.h>

#define METERS_MAX 10000u          /* of the broker */
#define USES_MAX 10000u            /* callers in a shard's table; it is emptied when there are more */
#define BURST_NS 1000000000ull
#define BURST_CONTROLLER_NS 11000000000ull
#define DEBT_MAX_NS 3600000000000ull
#define THROTTLE_MAX_MS 30000
#define FRACTION_MAX 1e-6          /* of a byte rate, which comes as a double, and is a whole number: as Kafka has it */
#define REQUEST_LEAST_NS 10000     /* of a request, beside its serve(): reading and decoding it, writing its answer */

/* ---- which rate -------------------------------------------------------------------------------------------------------------------- */

static bool part_fits(enum quota_entity_mode mode, const char *name, struct slice who) { return mode != QUOTA_NAMED || slice_is(who, name); }

/* The more specific the greater; the order of KIP-55. */
static int specific(const struct sec_quota *q)
{
    static const int rank[3][3] = {/* user absent, default, named; client absent, default, named */
                                   {-1, 0, 1}, {2, 3, 4}, {5, 6, 7}};
    return rank[q->user_mode][q->client_mode];
}

double quota_rate(const struct secdb *db, enum quota q, struct slice user, struct slice client, bool *by_user, bool *by_client)
{
    const struct sec_quota *best = NULL;
    *by_user = *by_client = false;
    for (uint32_t i = 0; i < db->quotas_n; i++) {
        const struct sec_quota *it = db->quotas[i];
        if (it->rate[q] >= 0 && part_fits(it->user_mode, it->user, user) && part_fits(it->client_mode, it->client, client) && (!best || specific(it) > specific(best)))
            best = it;
    }
    if (!best)
        return -1;
    *by_user = best->user_mode != QUOTA_ABSENT;
    *by_client = best->client_mode != QUOTA_ABSENT;
    return best->rate[q];
}

/* ---- manifests ------------------------------------------------------------------------------------------------------------------------ */

static bool rate_set(struct sec_quota *q, enum quota key, double rate)
{
    double old = q->rate[key], now = rate > 0 ? rate : -1;
    q->rate[key] = now;
    return old != now; /* both were given to us as they are: no arithmetic */
}

static bool is_user(const struct sec_quota *q) { return q->user_mode == QUOTA_NAMED && q->client_mode == QUOTA_ABSENT; }

bool quotas_declare(struct secdb *db, const struct broker_quota *quotas, uint32_t n)
{
    bool changed = false;
    for (uint32_t i = 0; i < db->quotas_n; i++) {
        struct sec_quota *q = db->quotas[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n && is_user(q); k++)
            wanted = wanted || slice_is(quotas[k].user, q->user);
        if (!q->declared || wanted)
            continue;
        for (int k = 0; k < QUOTA_KEYS; k++)
            q->rate[k] = -1;
        q->declared = false;
        changed = true;
    }
    secdb_quota_prune(db);
    for (uint32_t i = 0; i < n && db->quotas_n < QUOTAS_MAX; i++) {
        char *user = mem_strndup(MEM_BROKER, quotas[i].user.p, quotas[i].user.n);
        struct sec_quota *q = secdb_quota(db, &(struct sec_quota){.user_mode = QUOTA_NAMED, .user = user}, true);
        mem_free(user);
        changed = rate_set(q, QUOTA_PRODUCE, quotas[i].producer_bytes) || changed;
        changed = rate_set(q, QUOTA_FETCH, quotas[i].consumer_bytes) || changed;
        changed = rate_set(q, QUOTA_REQUEST, quotas[i].request_percent) || changed;
        changed = !q->declared || changed;
        q->declared = true;
    }
    return changed;
}

/* ---- meters ---------------------------------------------------------------------------------------------------------------------------- */

struct quota_meter {
    uint64_t paid_ns;              /* atomic; loop time */
    uint32_t refs;                 /* under quota_meters_lock */
};
struct quota_meters {
    pthread_mutex_t quota_meters_lock; /* the table and refs; taken alone */
    struct table by_entity;        /* quota, user or not, client or not -> struct quota_meter */
    struct quota_meter overflow[QUOTA_KEYS]; /* shared by the entities that found no room */
};
/* A caller on one shard. */
struct use {
    struct {
        double rate;               /* < 0: unlimited */
        struct quota_meter *meter; /* NULL: unlimited */
        struct slice key;          /* the meter's; owned; p NULL: the overflow meter */
    } of[QUOTA_KEYS];
};
struct quota_use {
    struct quota_meters *meters;
    uint64_t version;              /* of the snapshot that the table was made with */
    struct table by_caller;        /* user NUL client -> struct use */
    struct buf key;                /* scratch */
    struct buf user, client;       /* of the request that is being timed: it may be gone at the end of its serve() */
    uint64_t began_ns;
};

struct quota_meters *quota_meters_new(void)
{
    struct quota_meters *m = mem_new(MEM_BROKER, sizeof *m);
    MUST(pthread_mutex_init(&m->quota_meters_lock, NULL) == 0);
    return m;
}

void quota_meters_free(struct quota_meters *m)
{
    if (!m)
        return;
    MUST(m->by_entity.n == 0);
    table_fini(&m->by_entity);
    pthread_mutex_destroy(&m->quota_meters_lock);
    mem_free(m);
}

static struct quota_meter *meter_get(struct quota_meters *m, enum quota q, struct slice key, bool *shared)
{
    pthread_mutex_lock(&m->quota_meters_lock);
    struct quota_meter *meter = table_get(&m->by_entity, key);
    if (!meter && m->by_entity.n < METERS_MAX) {
        meter = mem_new(MEM_BROKER, sizeof *meter);
        table_put(&m->by_entity, key, meter);
    }
    if (meter)
        meter->refs++;
    pthread_mutex_unlock(&m->quota_meters_lock);
    *shared = !meter;
    return meter ? meter : &m->overflow[q];
}

static void meter_put(struct quota_meters *m, struct quota_meter *meter, struct slice key)
{
    pthread_mutex_lock(&m->quota_meters_lock);
    if (--meter->refs == 0) {
        table_del(&m->by_entity, key);
        mem_free(meter);
    }
    pthread_mutex_unlock(&m->quota_meters_lock);
}

/* The meter is paid up to `cost` later; returns how far it is ahead of now. `strict`: nothing is noted when it is ahead by more than burst already. */
static uint64_t meter_note(struct quota_meter *m, uint64_t now_ns, uint64_t cost_ns, uint64_t burst_ns, bool strict)
{
    uint64_t paid = __atomic_load_n(&m->paid_ns, __ATOMIC_RELAXED), next;
    do {
        uint64_t from = MAX(paid, now_ns);
        if (strict && from - now_ns > burst_ns)
            return from - now_ns;
        next = MIN(from + cost_ns, now_ns + DEBT_MAX_NS);
    } while (!__atomic_compare_exchange_n(&m->paid_ns, &paid, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return strict ? 0 : next - now_ns;
}

/* ---- a shard's use ------------------------------------------------------------------------------------------------------------------------ */

struct quota_use *quota_use_new(struct quota_meters *m)
{
    struct quota_use *u = mem_new(MEM_BROKER, sizeof *u);
    u->meters = m;
    return u;
}

static void uses_clear(struct quota_use *u)
{
    for (struct table_slot *s = NULL; (s = table_next(&u->by_caller, s));) {
        struct use *use = s->value;
        for (int q = 0; q < QUOTA_KEYS; q++) {
            if (use->of[q].key.p)
                meter_put(u->meters, use->of[q].meter, use->of[q].key);
            mem_free((char *)(uintptr_t)use->of[q].key.p);
        }
        mem_free(use);
    }
    table_fini(&u->by_caller);
    u->by_caller = (struct table){0};
}

void quota_use_free(struct quota_use *u)
{
    if (!u)
        return;
    uses_clear(u);
    buf_free(&u->key);
    buf_free(&u->user);
    buf_free(&u->client);
    mem_free(u);
}

static void use_meter(struct quota_use *u, struct use *use, const struct secdb *db, enum quota q, struct slice user, struct slice client, struct security_counters *counters)
{
    bool by_user, by_client, shared;
    struct buf key = {0};
    use->of[q].rate = quota_rate(db, q, user, client, &by_user, &by_client);
    if (use->of[q].rate < 0)
        return;
    buf_addc(&key, (char)q);
    buf_addc(&key, by_user ? 'u' : '-');
    buf_addc(&key, by_client ? 'c' : '-');
    buf_add_slice(&key, by_user ? user : (struct slice){0});
    buf_addc(&key, 0);
    buf_add_slice(&key, by_client ? client : (struct slice){0});
    use->of[q].meter = meter_get(u->meters, q, buf_slice(&key), &shared);
    if (shared) {
        counter_inc(&counters->meters_shared);
        buf_free(&key);
    } else {
        use->of[q].key.p = buf_take(&key, &use->of[q].key.n);
    }
}

static struct use *use_of(struct quota_use *u, const struct secdb *db, struct slice user, struct slice client, struct security_counters *counters)
{
    if (u->version != db->version || u->by_caller.n >= USES_MAX) {
        uses_clear(u);
        u->version = db->version;
    }
    buf_clear(&u->key);
    buf_add_slice(&u->key, user);
    buf_addc(&u->key, 0);
    buf_add_slice(&u->key, client);
    struct use *use = table_get(&u->by_caller, buf_slice(&u->key));
    if (use)
        return use;
    use = mem_new(MEM_BROKER, sizeof *use);
    for (int q = 0; q < QUOTA_KEYS; q++)
        use_meter(u, use, db, (enum quota)q, user, client, counters);
    table_put(&u->by_caller, buf_slice(&u->key), use);
    return use;
}

/* Time that the amount is worth at this rate. */
static uint64_t cost_ns(enum quota q, double rate, double amount)
{
    double ns = q == QUOTA_REQUEST ? amount / (rate / 100) : amount / rate * 1e9; /* a request's amount is its nanoseconds */
    return amount <= 0 ? 0 : ns < (double)DEBT_MAX_NS ? (uint64_t)ns : DEBT_MAX_NS;
}

static int32_t use_note(struct quota_use *u, const struct secdb *db, enum quota q, struct slice user, struct slice client, uint64_t now_ns, double amount, bool strict,
                        struct security_counters *counters)
{
    if (db->quotas_n == 0)
        return 0;
    struct use *use = use_of(u, db, user, client, counters);
    if (!use->of[q].meter)
        return 0;
    uint64_t burst = q == QUOTA_CONTROLLER ? BURST_CONTROLLER_NS : BURST_NS;
    uint64_t ahead = meter_note(use->of[q].meter, now_ns, cost_ns(q, use->of[q].rate, amount), burst, strict);
    if (ahead <= burst)
        return 0;
    int32_t ms = (int32_t)MIN((ahead - burst + 999999) / 1000000, (uint64_t)THROTTLE_MAX_MS);
    counter_inc(&counters->throttled[q]);
    counter_add(&counters->throttle_ms[q], (uint64_t)ms);
    return ms;
}

int32_t quota_use_note(struct quota_use *u, const struct secdb *db, enum quota q, struct slice user, struct slice client, uint64_t now_ns, double amount,
                       struct security_counters *counters)
{
    return use_note(u, db, q, user, client, now_ns, amount, q == QUOTA_CONTROLLER, counters);
}

/* "User:alice" -> "alice" */
static struct slice user_of(struct slice principal)
{
    return slice_starts(principal, SLICE("User:")) ? slice_of(principal.p + 5, principal.n - 5) : principal;
}

int32_t quota_note(struct breq *r, enum quota q, uint64_t amount)
{
    struct security *sec = r->home->security;
    if (sec->db->quotas_n == 0)
        return r->throttle_ms;
    int32_t ms = quota_use_note(sec->quotas, sec->db, q, user_of(r->caller.principal), r->client_id, loop_now_ns(r->home->loop), (double)amount, &sec->counters);
    r->throttle_ms = MAX(r->throttle_ms, ms);
    return r->throttle_ms;
}

bool quota_mutation(struct breq *r, uint64_t partitions, int16_t strict_from, int32_t *throttle_ms)
{
    struct security *sec = r->home->security;
    bool strict = r->version >= strict_from;
    int32_t ms = use_note(sec->quotas, sec->db, QUOTA_CONTROLLER, user_of(r->caller.principal), r->client_id, loop_now_ns(r->home->loop), (double)partitions, strict, &sec->counters);
    r->throttle_ms = MAX(r->throttle_ms, ms);
    *throttle_ms = MAX(*throttle_ms, r->throttle_ms);
    return !strict || ms == 0;
}

bool quota_time_begin(struct breq *r)
{
    struct security *sec = r->home->security;
    struct quota_use *u = sec->quotas;
    struct slice user = user_of(r->caller.principal);
    if (LIKELY(sec->db->quotas_n == 0) || !use_of(u, sec->db, user, r->client_id, &sec->counters)->of[QUOTA_REQUEST].meter)
        return false;
    buf_clear(&u->user);
    buf_clear(&u->client);
    buf_add_slice(&u->user, user);
    buf_add_slice(&u->client, r->client_id);
    quota_note(r, QUOTA_REQUEST, 0); /* what those before it have run up */
    u->began_ns = mono_ns();
    return true;
}

void quota_time_end(struct shard *here)
{
    struct security *sec = here->security;
    struct quota_use *u = sec->quotas;
    uint64_t took_ns = mono_ns() - u->began_ns + REQUEST_LEAST_NS;
    quota_use_note(u, sec->db, QUOTA_REQUEST, buf_slice(&u->user), buf_slice(&u->client), loop_now_ns(here->loop), (double)took_ns, &sec->counters);
}

/* ---- DescribeClientQuotas --------------------------------------------------------------------------------------------------------------------- */

enum { MATCH_EXACT, MATCH_DEFAULT, MATCH_ANY };

struct quota_filter {
    bool user_wanted, client_wanted, ip_wanted;
    int8_t user_match, client_match;
    struct slice user, client;
};

static const char *filter_component(struct quota_filter *f, const struct kafka_describe_client_quotas_req_component_data *c, enum kafka_error *e)
{
    bool user = slice_is(c->entity_type, "user"), client = slice_is(c->entity_type, "client-id"), ip = slice_is(c->entity_type, "ip");
    *e = KAFKA_INVALID_REQUEST;
    if (c->entity_type.n == 0)
        return "Invalid empty entity type.";
    if (!user && !client && !ip) {
        *e = KAFKA_UNSUPPORTED_VERSION;
        return "Unsupported entity type: user, client-id and ip are known.";
    }
    if ((user && f->user_wanted) || (client && f->client_wanted) || (ip && f->ip_wanted))
        return "An entity type cannot appear more than once in the filter.";
    if (c->match_type < MATCH_EXACT || c->match_type > MATCH_ANY)
        return "Unknown match type.";
    if ((c->match_type == MATCH_EXACT) != (c->match.p != NULL))
        return "An exact match needs a name, and the others have none.";
    if (user)
        *f = (struct quota_filter){true, f->client_wanted, f->ip_wanted, c->match_type, f->client_match, c->match, f->client};
    else if (client)
        *f = (struct quota_filter){f->user_wanted, true, f->ip_wanted, f->user_match, c->match_type, f->user, c->match};
    else
        f->ip_wanted = true;
    *e = KAFKA_NONE;
    return NULL;
}

static bool part_matches(bool wanted, int8_t match, struct slice name, enum quota_entity_mode mode, const char *has, bool strict)
{
    if (!wanted)
        return !strict || mode == QUOTA_ABSENT;
    if (match == MATCH_EXACT)
        return mode == QUOTA_NAMED && slice_is(name, has);
    return match == MATCH_DEFAULT ? mode == QUOTA_DEFAULT : mode != QUOTA_ABSENT;
}

static void describe_entry(struct breq *r, const struct sec_quota *q, struct kafka_describe_client_quotas_resp_entry_data *out)
{
    out->entity = BREQ_ARRAY(r, struct kafka_describe_client_quotas_resp_entity_data, 2);
    out->values = BREQ_ARRAY(r, struct kafka_describe_client_quotas_resp_value_data, QUOTA_KEYS);
    if (q->user_mode != QUOTA_ABSENT)
        out->entity[out->entity_n++] = (struct kafka_describe_client_quotas_resp_entity_data){
            .entity_type = SLICE("user"), .entity_name = q->user ? arena_slice(&r->arena, slice_cstr(q->user)) : (struct slice){0}};
    if (q->client_mode != QUOTA_ABSENT)
        out->entity[out->entity_n++] = (struct kafka_describe_client_quotas_resp_entity_data){
            .entity_type = SLICE("client-id"), .entity_name = q->client ? arena_slice(&r->arena, slice_cstr(q->client)) : (struct slice){0}};
    for (int k = 0; k < QUOTA_KEYS; k++)
        if (q->rate[k] >= 0)
            out->values[out->values_n++] = (struct kafka_describe_client_quotas_resp_value_data){.key = slice_cstr(quota_keys[k]), .value = q->rate[k]};
}

static void describe_fill(struct breq *r, const struct quota_filter *f, bool strict, struct kafka_describe_client_quotas_resp *resp)
{
    const struct secdb *db = r->home->security->db;
    resp->entries = BREQ_ARRAY(r, struct kafka_describe_client_quotas_resp_entry_data, db->quotas_n);
    resp->entries_n = 0;
    for (uint32_t i = 0; i < db->quotas_n && !f->ip_wanted; i++) {
        const struct sec_quota *q = db->quotas[i];
        if (part_matches(f->user_wanted, f->user_match, f->user, q->user_mode, q->user, strict) &&
            part_matches(f->client_wanted, f->client_match, f->client, q->client_mode, q->client, strict))
            describe_entry(r, q, &resp->entries[resp->entries_n++]);
    }
}

void describe_client_quotas_serve(struct breq *r)
{
    const struct kafka_describe_client_quotas_req *req = r->req;
    struct kafka_describe_client_quotas_resp *resp = BREQ_NEW(r, struct kafka_describe_client_quotas_resp);
    struct quota_filter f = {0};
    enum kafka_error e = allowed(r, ACL_DESCRIBE_CONFIGS, ACL_CLUSTER, CLUSTER_NAME) ? KAFKA_NONE : KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    const char *why = NULL;
    kafka_describe_client_quotas_resp_init(resp);
    r->resp = resp;
    for (int32_t i = 0; i < req->components_n && e == KAFKA_NONE; i++)
        why = filter_component(&f, &req->components[i], &e);
    resp->entries_n = -1;
    resp->error_code = (int16_t)e;
    resp->error_message = slice_cstr(why);
    if (e == KAFKA_NONE)
        describe_fill(r, &f, req->strict, resp);
    r->error = resp->error_code;
    breq_answer(r, r->home);
}

/* ---- AlterClientQuotas ---------------------------------------------------------------------------------------------------------------------------- */

struct quotas_call {
    struct security_change change;
    struct breq *r;
};

static const char *entity_read(struct breq *r, const struct kafka_alter_client_quotas_req_entry_data *in, struct sec_quota *out)
{
    *out = (struct sec_quota){0};
    if (in->entity_n <= 0)
        return "Invalid empty client quota entity";
    for (int32_t i = 0; i < in->entity_n; i++) {
        struct slice type = in->entity[i].entity_type, name = in->entity[i].entity_name;
        bool user = slice_is(type, "user");
        if (!user && !slice_is(type, "client-id"))
            return "Unsupported entity type: user and client-id are supported";
        if ((user ? out->user_mode : out->client_mode) != QUOTA_ABSENT)
            return "An entity type cannot appear more than once in an entity";
        if (name.p && !security_name_ok(name))
            return "An entity's name must have 1 to 1024 bytes, of UTF-8 without NUL; the default has none";
        char *text = name.p ? (char *)(uintptr_t)arena_slice(&r->arena, name).p : NULL;
        enum quota_entity_mode mode = name.p ? QUOTA_NAMED : QUOTA_DEFAULT;
        if (user)
            out->user = text, out->user_mode = mode;
        else
            out->client = text, out->client_mode = mode;
    }
    return NULL;
}

static int quota_key(struct slice name)
{
    for (int k = 0; k < QUOTA_KEYS; k++)
        if (slice_is(name, quota_keys[k]))
            return k;
    return -1;
}

/* Of what fits 63 bits. */
static bool is_whole(double x) { return fabs(x - (double)(int64_t)(x + FRACTION_MAX)) <= FRACTION_MAX; }

static const char *ops_check(const struct kafka_alter_client_quotas_req_entry_data *in)
{
    for (int32_t i = 0; i < in->ops_n; i++) {
        int k = quota_key(in->ops[i].key);
        if (k < 0)
            return "Unknown quota key: producer_byte_rate, consumer_byte_rate, request_percentage and controller_mutation_rate are known";
        if (in->ops[i].remove)
            continue;
        if (!(in->ops[i].value > 0) || !isfinite(in->ops[i].value))
            return "A quota must be greater than 0";
        if (k != QUOTA_PRODUCE && k != QUOTA_FETCH)
            continue;
        if (in->ops[i].value > 9e18)
            return "A byte rate must fit 63 bits";
        if (!is_whole(in->ops[i].value))
            return "A byte rate must be a whole number";
    }
    return NULL;
}

static bool quotas_apply(struct security_change *change, struct secdb *db)
{
    struct breq *r = CONTAINER_OF(change, struct quotas_call, change)->r;
    const struct kafka_alter_client_quotas_req *req = r->req;
    struct kafka_alter_client_quotas_resp *resp = r->resp;
    struct sec_quota entity;
    bool changed = false;
    for (int32_t i = 0; i < req->entries_n; i++) {
        if (resp->entries[i].error_code || entity_read(r, &req->entries[i], &entity))
            continue;
        bool there = secdb_quota(db, &entity, false);
        if (!there && db->quotas_n >= QUOTAS_MAX) {
            resp->entries[i].error_code = KAFKA_POLICY_VIOLATION;
            resp->entries[i].error_message = SLICE("There are 10,000 quotas already");
            continue;
        }
        struct sec_quota *q = secdb_quota(db, &entity, true);
        for (int32_t j = 0; j < req->entries[i].ops_n; j++)
            q->rate[quota_key(req->entries[i].ops[j].key)] = req->entries[i].ops[j].remove ? -1 : req->entries[i].ops[j].value;
        changed = true;
    }
    secdb_quota_prune(db);
    return changed;
}

static void quotas_done(struct shard *from, struct security_change *change, enum kafka_error e)
{
    struct breq *r = CONTAINER_OF(change, struct quotas_call, change)->r;
    struct kafka_alter_client_quotas_resp *resp = r->resp;
    for (int32_t i = 0; i < resp->entries_n && e != KAFKA_NONE; i++)
        if (!resp->entries[i].error_code)
            resp->entries[i].error_code = (int16_t)e;
    breq_answer(r, from);
}

static void alter_begin(struct breq *r, const struct kafka_alter_client_quotas_req *req, struct kafka_alter_client_quotas_resp *resp, bool may)
{
    struct sec_quota entity;
    for (int32_t i = 0; i < resp->entries_n; i++) {
        const struct kafka_alter_client_quotas_req_entry_data *in = &req->entries[i];
        struct kafka_alter_client_quotas_resp_entry_data *out = &resp->entries[i];
        const char *why = entity_read(r, in, &entity);
        if (!why)
            why = ops_check(in);
        out->error_code = !may ? KAFKA_CLUSTER_AUTHORIZATION_FAILED : why ? KAFKA_INVALID_REQUEST : KAFKA_NONE;
        out->error_message = may ? slice_cstr(why) : (struct slice){0};
        out->entity_n = MAX(in->entity_n, 0);
        out->entity = BREQ_ARRAY(r, struct kafka_alter_client_quotas_resp_entity_data, out->entity_n);
        for (int32_t j = 0; j < out->entity_n; j++) {
            out->entity[j].entity_type = in->entity[j].entity_type;
            out->entity[j].entity_name = in->entity[j].entity_name;
        }
    }
}

void alter_client_quotas_serve(struct breq *r)
{
    const struct kafka_alter_client_quotas_req *req = r->req;
    struct kafka_alter_client_quotas_resp *resp = BREQ_NEW(r, struct kafka_alter_client_quotas_resp);
    bool may = allowed(r, ACL_ALTER_CONFIGS, ACL_CLUSTER, CLUSTER_NAME);
    kafka_alter_client_quotas_resp_init(resp);
    r->resp = resp;
    resp->entries_n = MAX(req->entries_n, 0);
    resp->entries = BREQ_ARRAY(r, struct kafka_alter_client_quotas_resp_entry_data, resp->entries_n);
    alter_begin(r, req, resp, may);
    if (!may || req->validate_only) {
        r->error = may ? KAFKA_NONE : KAFKA_CLUSTER_AUTHORIZATION_FAILED;
        breq_answer(r, r->home);
        return;
    }
    struct quotas_call *c = BREQ_NEW(r, struct quotas_call);
    c->r = r;
    c->change.apply = quotas_apply;
    c->change.done = quotas_done;
    security_change(r->home, &c->change);
}

/* ---- metrics of the whole of security -------------------------------------------------------------------------------------------------------------- */

static uint64_t sum(const struct broker *b, size_t offset)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->shards_n; i++)
        if (b->shards[i] && b->shards[i]->security)
            n += counter_read((const counter *)(const void *)((const char *)&b->shards[i]->security->counters + offset));
    return n;
}

void security_metrics(struct broker *b, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } rows[] = {
        {"weir_kafka_acl_allowed_total", "Decisions by ACLs to allow.", offsetof(struct security_counters, allowed)},
        {"weir_kafka_acl_denied_total", "Decisions by ACLs to refuse.", offsetof(struct security_counters, denied)},
        {"weir_kafka_sasl_succeeded_total", "SASL authentications that succeeded.", offsetof(struct security_counters, sasl_succeeded)},
        {"weir_kafka_sasl_failed_total", "SASL authentications that failed.", offsetof(struct security_counters, sasl_failed)},
        {"weir_kafka_quota_meters_shared_total", "Callers that share a meter because there are too many.", offsetof(struct security_counters, meters_shared)},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        prom_family(out, rows[i].name, PROM_COUNTER, rows[i].help);
        prom_u64(out, rows[i].name, "", NULL, 0, sum(b, rows[i].offset));
    }
    static const char *const family[] = {"weir_kafka_throttled_total", "weir_kafka_throttle_seconds_total"};
    static const char *const help[] = {"Requests that were throttled, by quota.", "Time for which connections were told to rest, by quota."};
    for (size_t f = 0; f < 2; f++) {
        prom_family(out, family[f], PROM_COUNTER, help[f]);
        for (size_t q = 0; q < QUOTA_KEYS; q++) {
            size_t at = (f ? offsetof(struct security_counters, throttle_ms) : offsetof(struct security_counters, throttled)) + q * sizeof(counter);
            struct prom_label quota = {"quota", slice_cstr(quota_keys[q])};
            if (f)
                prom_double(out, family[f], "", &quota, 1, (double)sum(b, at) / 1e3);
            else
                prom_u64(out, family[f], "", &quota, 1, sum(b, at));
        }
    }
}
