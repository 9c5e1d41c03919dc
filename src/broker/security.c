/* security.c - users, ACLs and quotas as one immutable database: in memory, in DIR/security.json, and how it changes.
 *
 *     security_change() --call--> shard 0: waiting -> a round: clone, every apply() -> file_replace() in the pool -> a call to each shard: swap -> done()
 *
 * A round takes all changes that wait. A shard that has swapped looks at the new snapshot from its next request on; done() comes when all have. What the rules
 * mean: acls.c, quotas.c, sasl.c. The file is written whole; members that are not known are kept out of it and passed over when it is read.
 */
#include "security_int.h"

#include <jansson.h>

#define FILE_FORMAT 1

const char *const quota_keys[QUOTA_KEYS] = {"producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate"};

/* ---- the database --------------------------------------------------------------------------------------------------------------- */

struct secdb *secdb_new(void)
{
    struct secdb *db = mem_new(MEM_BROKER, sizeof *db);
    db->refs = 1;
    return db;
}

struct secdb *secdb_ref(struct secdb *db)
{
    __atomic_add_fetch(&db->refs, 1, __ATOMIC_RELAXED);
    return db;
}

static void acl_free(struct sec_acl *a)
{
    mem_free(a->name);
    mem_free(a->principal);
    mem_free(a->host);
    mem_free(a->owner);
    mem_free(a);
}

static void user_free(struct sec_user *u)
{
    mem_free(u->name);
    mem_wipe(u, sizeof *u);
    mem_free(u);
}

static void quota_free(struct sec_quota *q)
{
    mem_free(q->user);
    mem_free(q->client);
    mem_free(q);
}

void secdb_unref(struct secdb *db)
{
    if (!db || __atomic_sub_fetch(&db->refs, 1, __ATOMIC_ACQ_REL))
        return;
    for (uint32_t i = 0; i < db->users_n; i++)
        user_free(db->users[i]);
    for (uint32_t i = 0; i < db->acls_n; i++)
        acl_free(db->acls[i]);
    for (uint32_t i = 0; i < db->quotas_n; i++)
        quota_free(db->quotas[i]);
    mem_free(db->users);
    mem_free(db->acls);
    mem_free(db->quotas);
    acl_index_free(db->index);
    mem_free(db);
}

static void quota_copy(struct sec_quota *to, const struct sec_quota *from)
{
    memcpy(to->rate, from->rate, sizeof to->rate);
    to->declared = from->declared;
}

struct secdb *secdb_clone(const struct secdb *from)
{
    struct secdb *db = secdb_new();
    db->version = from->version;
    for (uint32_t i = 0; i < from->users_n; i++) {
        struct sec_user *u = secdb_user_add(db, slice_cstr(from->users[i]->name));
        memcpy(u->cred, from->users[i]->cred, sizeof u->cred);
    }
    for (uint32_t i = 0; i < from->acls_n; i++)
        secdb_acl_append(db, from->acls[i], slice_cstr(from->acls[i]->owner));
    for (uint32_t i = 0; i < from->quotas_n; i++)
        quota_copy(secdb_quota(db, from->quotas[i], true), from->quotas[i]);
    return db;
}

/* Where the user is, or would be. */
static uint32_t user_at(const struct secdb *db, struct slice name, bool *found)
{
    uint32_t low = 0, high = db->users_n;
    *found = false;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        struct slice have = slice_cstr(db->users[mid]->name);
        int order = memcmp(have.p, name.p, MIN(have.n, name.n));
        if (order == 0 && have.n == name.n) {
            *found = true;
            return mid;
        }
        if (order < 0 || (order == 0 && have.n < name.n))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct sec_user *secdb_user(const struct secdb *db, struct slice name)
{
    bool found;
    uint32_t i = user_at(db, name, &found);
    return found ? db->users[i] : NULL;
}

struct sec_user *secdb_user_add(struct secdb *db, struct slice name)
{
    bool found;
    uint32_t i = user_at(db, name, &found);
    if (found)
        return db->users[i];
    ARRAY_GROW(MEM_BROKER, db->users, db->users_n, db->users_cap);
    memmove(&db->users[i + 1], &db->users[i], (db->users_n - i) * sizeof *db->users);
    struct sec_user *u = db->users[i] = mem_new(MEM_BROKER, sizeof *u);
    u->name = mem_strndup(MEM_BROKER, name.p, name.n);
    db->users_n++;
    return u;
}

void secdb_user_prune(struct secdb *db, struct slice name)
{
    bool found;
    uint32_t i = user_at(db, name, &found);
    if (!found || db->users[i]->cred[SCRAM_SHA256].iterations || db->users[i]->cred[SCRAM_SHA512].iterations)
        return;
    user_free(db->users[i]);
    db->users_n--;
    memmove(&db->users[i], &db->users[i + 1], (db->users_n - i) * sizeof *db->users);
}

static bool acl_same(const struct sec_acl *a, const struct sec_acl *b)
{
    return a->kind == b->kind && a->pattern == b->pattern && a->operation == b->operation && a->permission == b->permission && strcmp(a->name, b->name) == 0 &&
           strcmp(a->principal, b->principal) == 0 && strcmp(a->host, b->host) == 0;
}

void secdb_acl_append(struct secdb *db, const struct sec_acl *acl, struct slice owner)
{
    ARRAY_GROW(MEM_BROKER, db->acls, db->acls_n, db->acls_cap);
    struct sec_acl *a = db->acls[db->acls_n++] = mem_new(MEM_BROKER, sizeof *a);
    *a = *acl;
    a->name = mem_strdup(MEM_BROKER, acl->name);
    a->principal = mem_strdup(MEM_BROKER, acl->principal);
    a->host = mem_strdup(MEM_BROKER, acl->host);
    a->owner = owner.n ? mem_strndup(MEM_BROKER, owner.p, owner.n) : NULL;
}

bool secdb_acl_add(struct secdb *db, const struct sec_acl *acl, struct slice owner)
{
    for (uint32_t i = 0; i < db->acls_n; i++)
        if (acl_same(db->acls[i], acl) && slice_eq(slice_cstr(db->acls[i]->owner), owner))
            return false;
    secdb_acl_append(db, acl, owner);
    return true;
}

void secdb_acl_del(struct secdb *db, uint32_t i)
{
    acl_free(db->acls[i]);
    db->acls_n--;
    memmove(&db->acls[i], &db->acls[i + 1], (db->acls_n - i) * sizeof *db->acls);
}

static bool text_same(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

struct sec_quota *secdb_quota(struct secdb *db, const struct sec_quota *entity, bool add)
{
    for (uint32_t i = 0; i < db->quotas_n; i++) {
        struct sec_quota *q = db->quotas[i];
        if (q->user_mode == entity->user_mode && q->client_mode == entity->client_mode && text_same(q->user, entity->user) && text_same(q->client, entity->client))
            return q;
    }
    if (!add)
        return NULL;
    ARRAY_GROW(MEM_BROKER, db->quotas, db->quotas_n, db->quotas_cap);
    struct sec_quota *q = db->quotas[db->quotas_n++] = mem_new(MEM_BROKER, sizeof *q);
    *q = (struct sec_quota){.user_mode = entity->user_mode, .client_mode = entity->client_mode, .user = mem_strdup(MEM_BROKER, entity->user),
                            .client = mem_strdup(MEM_BROKER, entity->client), .rate = {-1, -1, -1, -1}};
    return q;
}

void secdb_quota_prune(struct secdb *db)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < db->quotas_n; i++) {
        bool set = false;
        for (int k = 0; k < QUOTA_KEYS; k++)
            set = set || db->quotas[i]->rate[k] >= 0;
        if (set)
            db->quotas[n++] = db->quotas[i];
        else
            quota_free(db->quotas[i]);
    }
    db->quotas_n = n;
}

/* ---- the file ------------------------------------------------------------------------------------------------------------------------- */

static void hex_add(struct buf *b, const char *key, const uint8_t *p, size_t n)
{
    buf_printf(b, ", \"%s\": \"", key);
    for (size_t i = 0; i < n; i++)
        buf_printf(b, "%02x", p[i]);
    buf_addc(b, '"');
}

static void text_add(struct buf *b, const char *before, const char *key, const char *text)
{
    buf_printf(b, "%s\"%s\": ", before, key);
    buf_add_json(b, slice_cstr(text));
}

static void users_write(const struct secdb *db, struct buf *out)
{
    bool first = true;
    buf_adds(out, " \"users\": [");
    for (uint32_t i = 0; i < db->users_n; i++) {
        for (int k = SCRAM_SHA256; k < SCRAM_KINDS; k++) {
            const struct scram_cred *c = &db->users[i]->cred[k];
            if (!c->iterations)
                continue;
            text_add(out, first ? "\n  {" : ",\n  {", "name", db->users[i]->name);
            text_add(out, ", ", "mechanism", scram_name((enum scram_kind)k));
            buf_printf(out, ", \"iterations\": %d", c->iterations);
            hex_add(out, "salt", c->salt, c->salt_n);
            hex_add(out, "stored_key", c->stored_key, c->key_n);
            hex_add(out, "server_key", c->server_key, c->key_n);
            buf_addc(out, '}');
            first = false;
        }
    }
    buf_adds(out, "],\n");
}

static void acls_write(const struct secdb *db, struct buf *out)
{
    buf_adds(out, " \"acls\": [");
    for (uint32_t i = 0; i < db->acls_n; i++) {
        const struct sec_acl *a = db->acls[i];
        buf_printf(out, "%s\n  {\"kind\": %u, \"pattern\": %u, \"operation\": %u, \"permission\": %u", i ? "," : "", a->kind, a->pattern, a->operation, a->permission);
        text_add(out, ", ", "name", a->name);
        text_add(out, ", ", "principal", a->principal);
        text_add(out, ", ", "host", a->host);
        if (a->owner)
            text_add(out, ", ", "owner", a->owner);
        buf_addc(out, '}');
    }
    buf_adds(out, "],\n");
}

static void quotas_write(const struct secdb *db, struct buf *out)
{
    buf_adds(out, " \"quotas\": [");
    for (uint32_t i = 0; i < db->quotas_n; i++) {
        const struct sec_quota *q = db->quotas[i];
        buf_printf(out, "%s\n  {\"user_mode\": %u, \"client_mode\": %u", i ? "," : "", q->user_mode, q->client_mode);
        if (q->user)
            text_add(out, ", ", "user", q->user);
        if (q->client)
            text_add(out, ", ", "client", q->client);
        for (int k = 0; k < QUOTA_KEYS; k++)
            if (q->rate[k] >= 0)
                buf_printf(out, ", \"%s\": %.17g", quota_keys[k], q->rate[k]);
        if (q->declared)
            buf_adds(out, ", \"declared\": true");
        buf_addc(out, '}');
    }
    buf_adds(out, "]\n");
}

void secdb_write(const struct secdb *db, struct buf *out)
{
    buf_printf(out, "{\"format\": %d,\n", FILE_FORMAT);
    users_write(db, out);
    acls_write(db, out);
    quotas_write(db, out);
    buf_adds(out, "}\n");
}

static bool hex_of(const json_t *o, const char *key, uint8_t *out, size_t max, uint8_t *n)
{
    const char *s = json_string_value(json_object_get(o, key));
    size_t len = s ? strlen(s) : 1;
    if (len % 2 || len / 2 > max)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = ascii_lower(s[i]);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        uint8_t v = (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | v : v << 4);
    }
    *n = (uint8_t)(len / 2);
    return true;
}

bool security_name_ok(struct slice name)
{
    if (name.n == 0 || name.n > SECURITY_NAME_MAX || memchr(name.p, 0, name.n))
        return false;
    json_t *text = json_stringn(name.p, name.n); /* NULL: not UTF-8 */
    json_decref(text);
    return text != NULL;
}

static bool name_of(const json_t *o, const char *key, const char **out)
{
    *out = json_string_value(json_object_get(o, key));
    return *out && strlen(*out) <= SECURITY_NAME_MAX;
}

static bool user_read(struct secdb *db, const json_t *o)
{
    const char *name, *mechanism;
    struct scram_cred c = {0};
    uint8_t server_n;
    if (!name_of(o, "name", &name) || !*name || !name_of(o, "mechanism", &mechanism) || db->users_n >= USERS_MAX)
        return false;
    enum scram_kind k = strcmp(mechanism, scram_name(SCRAM_SHA256)) == 0 ? SCRAM_SHA256 : strcmp(mechanism, scram_name(SCRAM_SHA512)) == 0 ? SCRAM_SHA512 : SCRAM_NONE;
    json_int_t iterations = json_integer_value(json_object_get(o, "iterations"));
    if (k == SCRAM_NONE || iterations < 1 || iterations > INT32_MAX || !hex_of(o, "salt", c.salt, SCRAM_SALT_MAX, &c.salt_n) ||
        !hex_of(o, "stored_key", c.stored_key, SCRAM_KEY_MAX, &c.key_n) || !hex_of(o, "server_key", c.server_key, SCRAM_KEY_MAX, &server_n) ||
        c.key_n != scram_key_bytes(k) || server_n != c.key_n)
        return false;
    c.iterations = (int32_t)iterations;
    secdb_user_add(db, slice_cstr(name))->cred[k] = c;
    return true;
}

static bool number_of(const json_t *o, const char *key, json_int_t max, uint8_t *out)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    *out = (uint8_t)v;
    return v >= 0 && v <= max && json_is_integer(json_object_get(o, key));
}

static bool acl_read(struct secdb *db, const json_t *o)
{
    struct sec_acl a = {0};
    const char *name, *principal, *host;
    if (!number_of(o, "kind", ACL_USER, &a.kind) || !number_of(o, "pattern", ACL_PREFIXED, &a.pattern) || !number_of(o, "operation", ACL_TWO_PHASE_COMMIT, &a.operation) ||
        !number_of(o, "permission", ACL_ALLOW, &a.permission) || !name_of(o, "name", &name) || !name_of(o, "principal", &principal) || !name_of(o, "host", &host) ||
        db->acls_n >= ACLS_MAX)
        return false;
    a.name = (char *)(uintptr_t)name; /* copied */
    a.principal = (char *)(uintptr_t)principal;
    a.host = (char *)(uintptr_t)host;
    secdb_acl_append(db, &a, slice_cstr(json_string_value(json_object_get(o, "owner"))));
    return true;
}

static bool quota_read(struct secdb *db, const json_t *o)
{
    struct sec_quota q = {0};
    uint8_t user_mode, client_mode;
    const char *user = NULL, *client = NULL;
    if (!number_of(o, "user_mode", QUOTA_NAMED, &user_mode) || !number_of(o, "client_mode", QUOTA_NAMED, &client_mode) ||
        (user_mode == QUOTA_NAMED && !name_of(o, "user", &user)) || (client_mode == QUOTA_NAMED && !name_of(o, "client", &client)) || db->quotas_n >= QUOTAS_MAX)
        return false;
    q.user_mode = (enum quota_entity_mode)user_mode;
    q.client_mode = (enum quota_entity_mode)client_mode;
    q.user = (char *)(uintptr_t)user;
    q.client = (char *)(uintptr_t)client;
    struct sec_quota *to = secdb_quota(db, &q, true);
    for (int k = 0; k < QUOTA_KEYS; k++)
        if (json_is_number(json_object_get(o, quota_keys[k])))
            to->rate[k] = json_number_value(json_object_get(o, quota_keys[k]));
    to->declared = json_is_true(json_object_get(o, "declared"));
    return true;
}

static bool list_read(struct secdb *db, const json_t *root, const char *key, bool (*read)(struct secdb *, const json_t *), struct buf *why)
{
    size_t i;
    json_t *o;
    json_array_foreach (json_object_get(root, key), i, o) {
        if (!read(db, o)) {
            buf_printf(why, "entry %zu of \"%s\" is not valid", i + 1, key);
            return false;
        }
    }
    return true;
}

enum err secdb_read(struct slice text, struct secdb **out, struct buf *why)
{
    json_error_t e;
    json_t *root = json_loadb(text.p ? text.p : "", text.n, JSON_REJECT_DUPLICATES, &e);
    struct secdb *db = secdb_new();
    bool ok = json_is_object(root);
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    if (!root)
        buf_printf(why, "line %d: %s", e.line, e.text);
    else if (!ok)
        buf_adds(why, "it is no JSON object");
    else if (format < 1 || format > FILE_FORMAT) {
        buf_printf(why, "it has format %lld, and this version knows %d", (long long)format, FILE_FORMAT);
        ok = false;
    }
    ok = ok && list_read(db, root, "users", user_read, why) && list_read(db, root, "acls", acl_read, why) && list_read(db, root, "quotas", quota_read, why);
    json_decref(root);
    if (!ok) {
        secdb_unref(db);
        return ERR_SYNTAX;
    }
    *out = db;
    return OK;
}

enum err security_load(const char *dir, struct secdb **out, struct buf *why)
{
    struct buf path = {0}, text = {0}, fault = {0};
    buf_printf(&path, "%s/security.json", dir);
    enum err e = file_read(path.p, &text, SECURITY_FILE_MAX);
    if (e == ERR_NOTFOUND) {
        *out = secdb_new();
        e = OK;
    } else if (e != OK) {
        buf_printf(why, "%s can't be read: %s", path.p, err_text(e));
    } else if ((e = secdb_read(buf_slice(&text), out, &fault)) != OK) {
        buf_printf(why, "%s: %s; mend it or move it away (users, permissions and quotas are then gone)", path.p, fault.p ? fault.p : "");
    }
    if (e == OK)
        (*out)->index = acl_index_new(*out);
    buf_wipe(&text);
    buf_free(&path);
    buf_free(&fault);
    return e;
}

/* ---- changes, on shard 0 ------------------------------------------------------------------------------------------------------------------ */

static void round_begin(struct security_control *c);

static void change_back(struct shard *here, struct call *call)
{
    struct security_change *ch = CONTAINER_OF(call, struct security_change, call);
    ch->done(here, ch, ch->error);
}

static void change_tell(struct security_control *c, struct security_change *ch, enum kafka_error e)
{
    list_del(&ch->link);
    ch->error = e;
    ch->call.fn = change_back;
    shard_call(c->zero, ch->from, &ch->call);
}

static void round_end(struct security_control *c, enum kafka_error e)
{
    LIST_FOREACH (it, &c->round)
        change_tell(c, CONTAINER_OF(it, struct security_change, link), e);
    c->busy = false;
    round_begin(c);
    if (!c->busy)
        shard_rested(c->zero);
}

static void news_back(struct shard *here, struct call *call)
{
    struct security_control *c = CONTAINER_OF(call, struct secdb_news, call)->control;
    (void)here;
    if (--c->shards_left == 0)
        round_end(c, KAFKA_NONE);
}

static void news_arrived(struct shard *here, struct call *call)
{
    struct secdb_news *n = CONTAINER_OF(call, struct secdb_news, call);
    secdb_unref(here->security->db);
    here->security->db = n->db;
    n->db = NULL;
    n->call.fn = news_back;
    shard_call(here, n->control->zero, &n->call);
}

static void round_write(struct work *w)
{
    struct security_control *c = CONTAINER_OF(w, struct security_control, work);
    c->err = file_replace(c->path, c->text.p, c->text.n, 0600);
}

static void round_written(struct work *w)
{
    struct security_control *c = CONTAINER_OF(w, struct security_control, work);
    buf_wipe(&c->text);
    if (c->err != OK) {
        log_error("broker", "%s can't be written (%s): users, permissions and quotas stay as they were", c->path, err_text(c->err));
        secdb_unref(c->next);
        c->next = NULL;
        round_end(c, KAFKA_KAFKA_STORAGE_ERROR);
        return;
    }
    secdb_unref(c->db);
    c->db = c->next;
    c->next = NULL;
    c->shards_left = c->zero->b->shards_n;
    for (uint32_t i = 0; i < c->zero->b->shards_n; i++) {
        c->news[i] = (struct secdb_news){.call.fn = news_arrived, .control = c, .db = secdb_ref(c->db)};
        shard_call(c->zero, c->zero->b->shards[i], &c->news[i].call);
    }
}

static void round_begin(struct security_control *c)
{
    bool changed = false;
    if (c->busy || list_empty(&c->waiting))
        return;
    c->busy = true;
    c->next = secdb_clone(c->db);
    LIST_FOREACH (it, &c->waiting) {
        struct security_change *ch = CONTAINER_OF(it, struct security_change, link);
        list_del(&ch->link);
        list_push(&c->round, &ch->link);
        changed = ch->apply(ch, c->next) || changed;
    }
    if (!changed) {
        secdb_unref(c->next);
        c->next = NULL;
        round_end(c, KAFKA_NONE);
        return;
    }
    c->next->version++;
    c->next->index = acl_index_new(c->next);
    secdb_write(c->next, &c->text);
    c->work = (struct work){.run = round_write, .done = round_written, .loop = c->zero->loop};
    work_submit(c->zero->loop, &c->work);
}

static void change_arrived(struct shard *here, struct call *call)
{
    struct security_change *ch = CONTAINER_OF(call, struct security_change, call);
    struct security_control *c = here->b->security;
    list_push(&c->waiting, &ch->link);
    round_begin(c);
}

void security_change(struct shard *from, struct security_change *c)
{
    c->from = from;
    c->call.fn = change_arrived;
    list_init(&c->link);
    shard_call(from, from->b->shards[0], &c->call);
}

/* ---- the broker's part and each shard's --------------------------------------------------------------------------------------------------------- */

enum err security_open(struct broker *b, struct buf *why)
{
    struct secdb *db;
    enum err e = security_load(b->conf.log.dir, &db, why);
    if (e != OK)
        return e;
    struct security_control *c = b->security = mem_new(MEM_BROKER, sizeof *c);
    struct buf path = {0};
    buf_printf(&path, "%s/security.json", b->conf.log.dir);
    c->path = buf_take(&path, NULL);
    c->db = db;
    list_init(&c->waiting);
    list_init(&c->round);
    random_bytes(c->salt_secret, sizeof c->salt_secret);
    b->meters = quota_meters_new();
    return OK;
}

void security_close(struct broker *b)
{
    struct security_control *c = b->security;
    if (!c)
        return;
    for (uint32_t i = 0; i < SHARDS_MAX; i++)
        secdb_unref(c->news[i].db);
    secdb_unref(c->db);
    secdb_unref(c->next);
    buf_free(&c->text);
    mem_free(c->path);
    mem_free(c);
    b->security = NULL;
    quota_meters_free(b->meters);
    b->meters = NULL;
}

static void security_init(struct shard *s)
{
    struct security *sec = s->security = mem_new(MEM_BROKER, sizeof *sec);
    sec->s = s;
    sec->db = secdb_ref(s->b->security->db);
    sec->quotas = quota_use_new(s->b->meters);
    if (s->index == 0)
        s->b->security->zero = s;
}

/* A round of changes is over for every shard, or for none. */
static bool security_at_rest(const struct shard *s) { return s->index != 0 || !s->b->security->busy; }

static void security_fini(struct shard *s)
{
    struct security *sec = s->security;
    if (!sec)
        return;
    quota_use_free(sec->quotas);
    secdb_unref(sec->db);
    mem_free(sec);
    s->security = NULL;
}

const struct module security_module = {.open = security_open, .close = security_close, .init = security_init, .at_rest = security_at_rest, .fini = security_fini, .metrics = security_metrics};
