/* users.c - SCRAM credentials of users: DescribeUserScramCredentials, AlterUserScramCredentials (KIP-554).
 *
 * A client salts the password itself and sends the salted one; only the keys that follow from it are kept. All changes of one user in a request happen, or none.
 */
#include "security_int.h"

#include <openssl/crypto.h>

#define CHANGES_MAX 1000           /* of one request; results are looked for one by one */

struct users_call {
    struct security_change change;
    struct breq *r;
};

static bool mechanism_ok(int8_t m) { return m == SCRAM_SHA256 || m == SCRAM_SHA512; }

static struct slice said(struct breq *r, const char *text, struct slice name)
{
    return slice_cstr(arena_printf(&r->arena, "%s: " SLICE_FMT, text, (int)MIN(name.n, (size_t)200), name.p));
}

/* ---- DescribeUserScramCredentials ----------------------------------------------------------------------------------------------- */

static void describe_user(struct breq *r, const struct sec_user *u, struct kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result *out)
{
    out->credential_infos = BREQ_ARRAY(r, struct kafka_describe_user_scram_credentials_resp_credential_info, SCRAM_KINDS);
    for (int k = SCRAM_SHA256; k < SCRAM_KINDS; k++)
        if (u->cred[k].iterations)
            out->credential_infos[out->credential_infos_n++] =
                (struct kafka_describe_user_scram_credentials_resp_credential_info){.mechanism = (int8_t)k, .iterations = u->cred[k].iterations};
}

static void describe_named(struct breq *r, const struct kafka_describe_user_scram_credentials_req *req, struct kafka_describe_user_scram_credentials_resp *resp)
{
    const struct secdb *db = r->home->security->db;
    struct table seen = {0}; /* name -> its result */
    resp->results = BREQ_ARRAY(r, struct kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result, req->users_n);
    for (int32_t i = 0; i < req->users_n; i++) {
        struct slice name = req->users[i].name;
        struct kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result *out = table_get(&seen, name);
        if (out) {
            out->error_code = KAFKA_DUPLICATE_RESOURCE;
            out->error_message = said(r, "Cannot describe SCRAM credentials for the same user twice in a single request", name);
            out->credential_infos_n = 0;
            continue;
        }
        out = &resp->results[resp->results_n++];
        kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result_init(out);
        table_put(&seen, name, out);
        out->user = name;
        const struct sec_user *u = secdb_user(db, name);
        if (u) {
            describe_user(r, u, out);
        } else {
            out->error_code = KAFKA_RESOURCE_NOT_FOUND;
            out->error_message = said(r, "Attempt to describe a user credential that does not exist", name);
        }
    }
    table_fini(&seen);
}

static void describe_all(struct breq *r, struct kafka_describe_user_scram_credentials_resp *resp)
{
    const struct secdb *db = r->home->security->db;
    resp->results = BREQ_ARRAY(r, struct kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result, db->users_n);
    resp->results_n = (int32_t)db->users_n;
    for (uint32_t i = 0; i < db->users_n; i++) {
        kafka_describe_user_scram_credentials_resp_describe_user_scram_credentials_result_init(&resp->results[i]);
        resp->results[i].user = arena_slice(&r->arena, slice_cstr(db->users[i]->name));
        describe_user(r, db->users[i], &resp->results[i]);
    }
}

void describe_user_scram_credentials_serve(struct breq *r)
{
    const struct kafka_describe_user_scram_credentials_req *req = r->req;
    struct kafka_describe_user_scram_credentials_resp *resp = BREQ_NEW(r, struct kafka_describe_user_scram_credentials_resp);
    kafka_describe_user_scram_credentials_resp_init(resp);
    r->resp = resp;
    if (!allowed(r, ACL_DESCRIBE, ACL_CLUSTER, CLUSTER_NAME))
        resp->error_code = KAFKA_CLUSTER_AUTHORIZATION_FAILED;
    else if (req->users_n > 0)
        describe_named(r, req, resp);
    else
        describe_all(r, resp);
    r->error = resp->error_code;
    breq_answer(r, r->home);
}

/* ---- AlterUserScramCredentials --------------------------------------------------------------------------------------------------- */

#define RESULT kafka_alter_user_scram_credentials_resp_alter_user_scram_credentials_result

/* The result of a user; each has one. */
static struct RESULT *result_of(struct kafka_alter_user_scram_credentials_resp *resp, struct table *by_name, struct slice name)
{
    struct RESULT *out = table_get(by_name, name);
    if (out)
        return out;
    out = &resp->results[resp->results_n++];
    out->user = name;
    table_put(by_name, name, out);
    return out;
}

static void refuse(struct RESULT *out, enum kafka_error e, const char *why)
{
    if (out->error_code)
        return;
    out->error_code = (int16_t)e;
    out->error_message = slice_cstr(why);
}

static void upsertion_check(struct RESULT *out, const struct kafka_alter_user_scram_credentials_req_scram_credential_upsertion *u)
{
    if (u->name.n == 0)
        refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "Username must not be empty");
    else if (u->name.n > SCRAM_USER_MAX || !security_name_ok(u->name))
        refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "Username must have at most 255 bytes, of UTF-8 without NUL");
    else if (!mechanism_ok(u->mechanism))
        refuse(out, KAFKA_UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism");
    else if (u->iterations < SCRAM_ITERATIONS_MIN)
        refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "Too few iterations");
    else if (u->iterations > SCRAM_ITERATIONS_MAX)
        refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "Too many iterations");
    else if (u->salt.n == 0 || u->salt.n > SCRAM_SALT_MAX)
        refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "The salt must have 1 to 128 bytes");
    else if (u->salted_password.n != scram_key_bytes((enum scram_kind)u->mechanism))
        refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "The salted password has not the size of the mechanism's digest");
}

/* One user and one mechanism once, in deletions and upsertions together. */
static void twice_check(struct table *pairs, struct RESULT *out, struct slice name, int8_t mechanism)
{
    char key[SCRAM_USER_MAX + 1];
    if (name.n > SCRAM_USER_MAX || !mechanism_ok(mechanism))
        return;
    memcpy(key, name.p, name.n);
    key[name.n] = (char)mechanism;
    if (table_put(pairs, slice_of(key, name.n + 1), out))
        refuse(out, KAFKA_DUPLICATE_RESOURCE, "A user credential cannot be altered twice in the same request");
}

static void alter_check(struct breq *r, struct kafka_alter_user_scram_credentials_resp *resp)
{
    const struct kafka_alter_user_scram_credentials_req *req = r->req;
    struct table by_name = {0}, pairs = {0};
    resp->results = BREQ_ARRAY(r, struct RESULT, MAX(req->deletions_n, 0) + MAX(req->upsertions_n, 0));
    for (int32_t i = 0; i < req->deletions_n; i++) {
        struct RESULT *out = result_of(resp, &by_name, req->deletions[i].name);
        if (req->deletions[i].name.n == 0)
            refuse(out, KAFKA_UNACCEPTABLE_CREDENTIAL, "Username must not be empty");
        else if (!mechanism_ok(req->deletions[i].mechanism))
            refuse(out, KAFKA_UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism");
        twice_check(&pairs, out, req->deletions[i].name, req->deletions[i].mechanism);
    }
    for (int32_t i = 0; i < req->upsertions_n; i++) {
        struct RESULT *out = result_of(resp, &by_name, req->upsertions[i].name);
        upsertion_check(out, &req->upsertions[i]);
        twice_check(&pairs, out, req->upsertions[i].name, req->upsertions[i].mechanism);
    }
    table_fini(&by_name);
    table_fini(&pairs);
}

static struct RESULT *result_find(struct kafka_alter_user_scram_credentials_resp *resp, struct slice name)
{
    for (int32_t i = 0; i < resp->results_n; i++)
        if (slice_eq(resp->results[i].user, name))
            return &resp->results[i];
    MUST(false && "every user of the request has a result");
    return NULL;
}

/* What depends on the users that there are; on shard 0. */
static void alter_check_present(const struct kafka_alter_user_scram_credentials_req *req, struct kafka_alter_user_scram_credentials_resp *resp, const struct secdb *db)
{
    uint32_t more = 0;
    for (int32_t i = 0; i < req->deletions_n; i++) {
        const struct sec_user *u = secdb_user(db, req->deletions[i].name);
        if (!u || !mechanism_ok(req->deletions[i].mechanism) || !u->cred[req->deletions[i].mechanism].iterations)
            refuse(result_find(resp, req->deletions[i].name), KAFKA_RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist");
    }
    for (int32_t i = 0; i < req->upsertions_n; i++)
        if (!secdb_user(db, req->upsertions[i].name) && db->users_n + ++more > USERS_MAX)
            refuse(result_find(resp, req->upsertions[i].name), KAFKA_POLICY_VIOLATION, "There are 10,000 users already");
}

static bool alter_apply(struct security_change *change, struct secdb *db)
{
    struct breq *r = CONTAINER_OF(change, struct users_call, change)->r;
    const struct kafka_alter_user_scram_credentials_req *req = r->req;
    struct kafka_alter_user_scram_credentials_resp *resp = r->resp;
    bool changed = false;
    alter_check_present(req, resp, db);
    for (int32_t i = 0; i < req->upsertions_n; i++) {
        const struct kafka_alter_user_scram_credentials_req_scram_credential_upsertion *u = &req->upsertions[i];
        struct scram_cred c = {.iterations = u->iterations, .salt_n = (uint8_t)u->salt.n};
        if (result_find(resp, u->name)->error_code)
            continue;
        memcpy(c.salt, u->salt.p, u->salt.n);
        if (scram_keys((enum scram_kind)u->mechanism, (const uint8_t *)u->salted_password.p, &c) != OK) {
            refuse(result_find(resp, u->name), KAFKA_UNKNOWN_SERVER_ERROR, NULL);
            continue;
        }
        secdb_user_add(db, u->name)->cred[u->mechanism] = c;
        changed = true;
    }
    for (int32_t i = 0; i < req->deletions_n; i++) {
        if (result_find(resp, req->deletions[i].name)->error_code)
            continue;
        secdb_user(db, req->deletions[i].name)->cred[req->deletions[i].mechanism] = (struct scram_cred){0};
        secdb_user_prune(db, req->deletions[i].name);
        changed = true;
    }
    return changed;
}

static void alter_done(struct shard *from, struct security_change *change, enum kafka_error e)
{
    struct breq *r = CONTAINER_OF(change, struct users_call, change)->r;
    struct kafka_alter_user_scram_credentials_resp *resp = r->resp;
    for (int32_t i = 0; i < resp->results_n && e != KAFKA_NONE; i++)
        refuse(&resp->results[i], e, NULL);
    const struct kafka_alter_user_scram_credentials_req *req = r->req;
    for (int32_t i = 0; i < req->upsertions_n; i++) /* in the frame */
        OPENSSL_cleanse((char *)(uintptr_t)req->upsertions[i].salted_password.p, req->upsertions[i].salted_password.n);
    breq_answer(r, from);
}

static void alter_refuse(struct breq *r, struct kafka_alter_user_scram_credentials_resp *resp, enum kafka_error e, const char *why)
{
    for (int32_t i = 0; i < resp->results_n; i++) {
        resp->results[i].error_code = (int16_t)e;
        resp->results[i].error_message = slice_cstr(why);
    }
    r->error = (int16_t)e;
    breq_answer(r, r->home);
}

void alter_user_scram_credentials_serve(struct breq *r)
{
    const struct kafka_alter_user_scram_credentials_req *req = r->req;
    struct kafka_alter_user_scram_credentials_resp *resp = BREQ_NEW(r, struct kafka_alter_user_scram_credentials_resp);
    kafka_alter_user_scram_credentials_resp_init(resp);
    r->resp = resp;
    alter_check(r, resp);
    if (!allowed(r, ACL_ALTER, ACL_CLUSTER, CLUSTER_NAME)) {
        alter_refuse(r, resp, KAFKA_CLUSTER_AUTHORIZATION_FAILED, NULL);
        return;
    }
    if (MAX(req->deletions_n, 0) + (int64_t)MAX(req->upsertions_n, 0) > CHANGES_MAX) {
        alter_refuse(r, resp, KAFKA_POLICY_VIOLATION, "A request may change at most 1,000 credentials");
        return;
    }
    struct users_call *c = BREQ_NEW(r, struct users_call);
    c->r = r;
    c->change.apply = alter_apply;
    c->change.done = alter_done;
    security_change(r->home, &c->change);
}
