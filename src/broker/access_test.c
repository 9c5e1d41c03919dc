/* access_test.c - users, SASL, ACLs and quotas of a broker on the simulator: conversations, what each request may do, what survives a restart, throttling over time. */
#include "security_int.h"
#include "txn_world_test.h"

#include <stdio.h>

enum { KEY_DESCRIBE_ACLS = 29, KEY_CREATE_ACLS = 30, KEY_DELETE_ACLS = 31, KEY_DESCRIBE_QUOTAS = 48, KEY_ALTER_QUOTAS = 49, KEY_DESCRIBE_USERS = 50, KEY_ALTER_USERS = 51 };

static bool tune_authorize, tune_when_no_acl;
static void tune(struct broker_conf *c)
{
    c->authorize = tune_authorize;
    c->allow_when_no_acl = tune_when_no_acl;
}

/* With permissions: the test's own connections are a super user's until it says otherwise. */
static void begin(bool authorize)
{
    tune_authorize = authorize;
    tune_when_no_acl = false;
    world_start(&(struct world_conf){.seed = 11, .shards = 3, .tune = tune, .quiet = true});
    W.door.caller.super = true;
    world_topic("a", 3, NULL);
}

static struct client *client_as(const char *principal, uint32_t shard)
{
    W.door.caller = (struct broker_caller){.principal = slice_cstr(principal), .host = SLICE("10.0.0.7")};
    struct client *c = client_new(shard);
    W.door.caller = (struct broker_caller){.principal = SLICE("User:test"), .super = true};
    return c;
}

/* ---- users ------------------------------------------------------------------------------------------------------------------------ */

static int16_t user_put(struct client *c, const char *name, enum scram_kind k, const char *password, int32_t iterations)
{
    struct kafka_alter_user_scram_credentials_req req;
    struct kafka_alter_user_scram_credentials_req_scram_credential_upsertion u = {.name = slice_cstr(name), .mechanism = (int8_t)k, .iterations = iterations, .salt = SLICE("salt&salt")};
    uint8_t salted[SCRAM_KEY_MAX];
    assert_int_equal(scram_salt_password(k == SCRAM_SHA512 ? k : SCRAM_SHA256, slice_cstr(password), (const uint8_t *)u.salt.p, u.salt.n, MAX(iterations, 1), salted), OK);
    u.salted_password = slice_of((const char *)salted, scram_key_bytes(k));
    kafka_alter_user_scram_credentials_req_init(&req);
    req.upsertions = &u;
    req.upsertions_n = 1;
    const struct kafka_alter_user_scram_credentials_resp *resp = client_ask(c, KEY_ALTER_USERS, 0, &req);
    assert_int_equal(resp->results_n, 1);
    assert_true(slice_is(resp->results[0].user, name));
    return resp->results[0].error_code;
}

static int16_t user_del(struct client *c, const char *name, enum scram_kind k)
{
    struct kafka_alter_user_scram_credentials_req req;
    struct kafka_alter_user_scram_credentials_req_scram_credential_deletion d = {.name = slice_cstr(name), .mechanism = (int8_t)k};
    kafka_alter_user_scram_credentials_req_init(&req);
    req.deletions = &d;
    req.deletions_n = 1;
    const struct kafka_alter_user_scram_credentials_resp *resp = client_ask(c, KEY_ALTER_USERS, 0, &req);
    return resp->results[0].error_code;
}

/* "name:1=4096,2=8192;..." of what DescribeUserScramCredentials says; an error instead of the list as "!91". */
static const char *users(struct client *c, const char *const *names, int n)
{
    static char text[512];
    struct kafka_describe_user_scram_credentials_req req;
    struct kafka_describe_user_scram_credentials_req_user_name wanted[4];
    size_t at = 0;
    kafka_describe_user_scram_credentials_req_init(&req);
    for (int i = 0; i < n; i++)
        wanted[i].name = slice_cstr(names[i]);
    req.users = n ? wanted : NULL;
    req.users_n = n ? n : -1;
    const struct kafka_describe_user_scram_credentials_resp *resp = client_ask(c, KEY_DESCRIBE_USERS, 0, &req);
    text[0] = 0;
    if (resp->error_code)
        snprintf(text, sizeof text, "!%d", resp->error_code);
    for (int32_t i = 0; i < resp->results_n; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, SLICE_FMT ":", SLICE_ARG(resp->results[i].user));
        if (resp->results[i].error_code)
            at += (size_t)snprintf(text + at, sizeof text - at, "!%d", resp->results[i].error_code);
        for (int32_t j = 0; j < resp->results[i].credential_infos_n; j++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%d=%d,", resp->results[i].credential_infos[j].mechanism, resp->results[i].credential_infos[j].iterations);
        at += (size_t)snprintf(text + at, sizeof text - at, ";");
    }
    return text;
}

static void test_users(void **state)
{
    (void)state;
    begin(false);
    struct client *c = client_new(2);
    assert_string_equal(users(c, NULL, 0), "");
    assert_int_equal(user_put(c, "zoe", SCRAM_SHA256, "pw", 4096), KAFKA_NONE);
    assert_int_equal(user_put(c, "alice", SCRAM_SHA512, "pw", 8192), KAFKA_NONE);
    assert_int_equal(user_put(c, "alice", SCRAM_SHA256, "pw", 4096), KAFKA_NONE);
    assert_string_equal(users(c, NULL, 0), "alice:1=4096,2=8192,;zoe:1=4096,;");
    const char *some[] = {"zoe", "nobody", "alice", "alice"};
    assert_string_equal(users(c, some, 4), "zoe:1=4096,;nobody:!91;alice:!92;");
    assert_int_equal(user_put(c, "", SCRAM_SHA256, "pw", 4096), KAFKA_UNACCEPTABLE_CREDENTIAL);
    assert_int_equal(user_put(c, "bob\xff", SCRAM_SHA256, "pw", 4096), KAFKA_UNACCEPTABLE_CREDENTIAL); /* no UTF-8 */
    assert_int_equal(user_put(c, "bob", SCRAM_SHA256, "pw", 4095), KAFKA_UNACCEPTABLE_CREDENTIAL);
    assert_int_equal(user_put(c, "bob", SCRAM_SHA256, "pw", 16385), KAFKA_UNACCEPTABLE_CREDENTIAL);
    assert_int_equal(user_put(c, "bob", 3, "pw", 4096), KAFKA_UNSUPPORTED_SASL_MECHANISM);
    assert_int_equal(user_put(c, "bob", 0, "pw", 4096), KAFKA_UNSUPPORTED_SASL_MECHANISM);
    assert_int_equal(user_del(c, "zoe", SCRAM_SHA512), KAFKA_RESOURCE_NOT_FOUND);
    assert_int_equal(user_del(c, "zoe", SCRAM_SHA256), KAFKA_NONE);
    assert_int_equal(user_del(c, "zoe", SCRAM_SHA256), KAFKA_RESOURCE_NOT_FOUND);
    world_crash(true); /* what was answered is there */
    c = client_new(0);
    assert_string_equal(users(c, NULL, 0), "alice:1=4096,2=8192,;");
    world_stop();
}

/* A change that the disk refuses: nothing has changed, and it is told. */
static void test_users_disk(void **state)
{
    (void)state;
    begin(false);
    struct client *c = client_new(1);
    assert_int_equal(user_put(c, "alice", SCRAM_SHA256, "pw", 4096), KAFKA_NONE);
    sim_disk_fail_next(SIM_DISK_RENAME, 0, 5 /* EIO */);
    assert_int_equal(user_put(c, "bob", SCRAM_SHA256, "pw", 4096), KAFKA_KAFKA_STORAGE_ERROR);
    assert_string_equal(users(c, NULL, 0), "alice:1=4096,;");
    assert_int_equal(user_put(c, "bob", SCRAM_SHA256, "pw", 4096), KAFKA_NONE);
    assert_string_equal(users(c, NULL, 0), "alice:1=4096,;bob:1=4096,;");
    world_stop();
}

/* ---- SASL ------------------------------------------------------------------------------------------------------------------------- */

static int16_t handshake(struct client *c, const char *mechanism, int16_t version, int32_t *listed)
{
    struct kafka_sasl_handshake_req req = {.mechanism = slice_cstr(mechanism)};
    const struct kafka_sasl_handshake_resp *resp = client_ask(c, KEY_SASL_HANDSHAKE, version, &req);
    *listed = resp->mechanisms_n;
    return resp->error_code;
}

static const struct kafka_sasl_authenticate_resp *authenticate(struct client *c, struct slice token)
{
    struct kafka_sasl_authenticate_req req = {.auth_bytes = token};
    return client_ask(c, KEY_SASL_AUTHENTICATE, 2, &req);
}

static struct slice plain_token(const char *authz, const char *user, const char *password, struct buf *b)
{
    buf_clear(b);
    buf_adds(b, authz);
    buf_addc(b, 0);
    buf_adds(b, user);
    buf_addc(b, 0);
    buf_adds(b, password);
    return buf_slice(b);
}

/* A client's side of SCRAM, with the server's own arithmetic: the proof is ClientKey ^ signature, where the client knows the password. */
#include <openssl/evp.h>
#include <openssl/hmac.h>

static bool nonce_twice;                /* as librdkafka before 2.6 does: the client's part once more in front */

static struct slice scram_proof(struct client *c, enum scram_kind k, const char *password, struct slice first_bare, struct slice challenge)
{
    struct slice rest = challenge, nonce = slice_cut(rest, ',', &rest), salt = slice_cut(rest, ',', &rest), iterations = rest;
    const EVP_MD *md = k == SCRAM_SHA512 ? EVP_sha512() : EVP_sha256();
    unsigned char raw_salt[256], salted[64], client_key[64], stored[64], signature[64], proof[64];
    char base64[128];
    uint64_t n;
    unsigned len = 0;
    int salt_n = EVP_DecodeBlock(raw_salt, (const unsigned char *)salt.p + 2, (int)salt.n - 2);
    for (size_t i = salt.n; salt.p[i - 1] == '='; i--)
        salt_n--;
    assert_int_equal(slice_u64(slice_of(iterations.p + 2, iterations.n - 2), 100000, &n), OK);
    size_t size = scram_key_bytes(k);
    assert_true(PKCS5_PBKDF2_HMAC(password, (int)strlen(password), raw_salt, salt_n, (int)n, md, (int)size, salted));
    assert_non_null(HMAC(md, salted, (int)size, (const unsigned char *)"Client Key", 10, client_key, &len));
    assert_true(EVP_Digest(client_key, size, stored, &len, md, NULL));
    struct buf auth = {0}, final = {0};
    buf_printf(&final, "c=biws,r=%s" SLICE_FMT, nonce_twice ? "abcdef" : "", SLICE_ARG(slice_of(nonce.p + 2, nonce.n - 2)));
    buf_printf(&auth, SLICE_FMT "," SLICE_FMT ",%s", SLICE_ARG(first_bare), SLICE_ARG(challenge), final.p);
    assert_non_null(HMAC(md, stored, (int)size, (const unsigned char *)auth.p, auth.n, signature, &len));
    for (size_t i = 0; i < size; i++)
        proof[i] = client_key[i] ^ signature[i];
    EVP_EncodeBlock((unsigned char *)base64, proof, (int)size);
    buf_printf(&final, ",p=%s", base64);
    struct slice out = arena_slice(client_arena(c), buf_slice(&final));
    buf_free(&auth);
    buf_free(&final);
    return out;
}

static int16_t scram_login(struct client *c, enum scram_kind k, const char *user, const char *password)
{
    char first[128];
    snprintf(first, sizeof first, "n,,n=%s,r=abcdef", user);
    const struct kafka_sasl_authenticate_resp *resp = authenticate(c, slice_cstr(first));
    if (resp->error_code)
        return resp->error_code;
    resp = authenticate(c, scram_proof(c, k, password, slice_cstr(first + 3), resp->auth_bytes));
    return resp->error_code;
}

static void sasl_begin(void)
{
    begin(false);
    struct client *c = client_new(0);
    assert_int_equal(user_put(c, "alice", SCRAM_SHA256, "wonder land", 4096), KAFKA_NONE);
    assert_int_equal(user_put(c, "bob", SCRAM_SHA512, "builder", 4096), KAFKA_NONE);
    client_free(c);
    W.door.sasl = true;
}

static void test_sasl_plain(void **state)
{
    static const struct {
        const char *authz, *user, *password;
        int16_t want;
    } rows[] = {
        {"", "alice", "wonder land", KAFKA_NONE}, {"alice", "alice", "wonder land", KAFKA_NONE}, {"", "bob", "builder", KAFKA_NONE},
        {"", "alice", "wonder lane", KAFKA_SASL_AUTHENTICATION_FAILED}, {"", "alice", "", KAFKA_SASL_AUTHENTICATION_FAILED}, {"", "", "x", KAFKA_SASL_AUTHENTICATION_FAILED},
        {"", "nobody", "wonder land", KAFKA_SASL_AUTHENTICATION_FAILED}, {"bob", "alice", "wonder land", KAFKA_SASL_AUTHENTICATION_FAILED},
    };
    struct buf b = {0};
    int32_t listed;
    (void)state;
    sasl_begin();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct client *c = client_new((uint32_t)i % 3);
        assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_NONE);
        const struct kafka_sasl_authenticate_resp *resp = authenticate(c, plain_token(rows[i].authz, rows[i].user, rows[i].password, &b));
        assert_int_equal(resp->error_code, rows[i].want);
        if (rows[i].want) {
            assert_true(resp->error_message.n > 0);
            client_await_close(c);
        } else {
            struct kafka_list_offsets_req req;
            kafka_list_offsets_req_init(&req);
            client_ask(c, KEY_LIST_OFFSETS, 5, &req); /* it may ask now */
            assert_false(client_closed(c));
        }
        client_free(c);
    }
    buf_free(&b);
    world_stop();
}

static void test_sasl_scram(void **state)
{
    static const struct {
        enum scram_kind k;
        const char *user, *password;
        int16_t want;
    } rows[] = {
        {SCRAM_SHA256, "alice", "wonder land", KAFKA_NONE}, {SCRAM_SHA512, "bob", "builder", KAFKA_NONE},
        {SCRAM_SHA256, "alice", "wonderland", KAFKA_SASL_AUTHENTICATION_FAILED}, {SCRAM_SHA512, "alice", "wonder land", KAFKA_SASL_AUTHENTICATION_FAILED}, /* has no such key */
        {SCRAM_SHA256, "nobody", "x", KAFKA_SASL_AUTHENTICATION_FAILED},
    };
    int32_t listed;
    (void)state;
    sasl_begin();
    for (size_t j = 0; j < 2 * COUNT_OF(rows); j++) {
        size_t i = j / 2;
        struct client *c = client_new((uint32_t)i % 3);
        nonce_twice = j % 2;
        assert_int_equal(handshake(c, scram_name(rows[i].k), 1, &listed), KAFKA_NONE);
        assert_int_equal(scram_login(c, rows[i].k, rows[i].user, rows[i].password), rows[i].want);
        if (rows[i].want)
            client_await_close(c);
        client_free(c);
    }
    nonce_twice = false;
    world_stop();
}

/* A user that does not exist looks like one that does: the same salt each time, on every shard. */
static void test_sasl_nobody(void **state)
{
    struct buf salts[3] = {{0}, {0}, {0}};
    int32_t listed;
    (void)state;
    sasl_begin();
    for (uint32_t i = 0; i < 3; i++) {
        struct client *c = client_new(i);
        assert_int_equal(handshake(c, "SCRAM-SHA-256", 1, &listed), KAFKA_NONE);
        const struct kafka_sasl_authenticate_resp *resp = authenticate(c, slice_cstr(i < 2 ? "n,,n=nobody,r=x" : "n,,n=someone,r=x"));
        assert_int_equal(resp->error_code, KAFKA_NONE);
        struct slice rest, nonce = slice_cut(resp->auth_bytes, ',', &rest);
        assert_true(nonce.n > 20);
        buf_add_slice(&salts[i], rest);
        client_free(c);
    }
    assert_string_equal(salts[0].p, salts[1].p);
    assert_string_not_equal(salts[0].p, salts[2].p);
    for (uint32_t i = 0; i < 3; i++)
        buf_free(&salts[i]);
    world_stop();
}

static void test_sasl_states(void **state)
{
    struct kafka_api_versions_req versions;
    struct kafka_list_offsets_req req;
    int32_t listed;
    (void)state;
    sasl_begin();
    kafka_api_versions_req_init(&versions);
    versions.client_software_name = versions.client_software_version = SLICE("x");
    kafka_list_offsets_req_init(&req);
    struct client *c = client_new(0); /* other requests close the connection */
    client_ask(c, KEY_API_VERSIONS, 3, &versions);
    client_send(c, KEY_LIST_OFFSETS, 5, &req);
    client_await_close(c);
    client_free(c);
    c = client_new(1); /* in the middle, too */
    assert_int_equal(handshake(c, "SCRAM-SHA-256", 1, &listed), KAFKA_NONE);
    authenticate(c, SLICE("n,,n=alice,r=x"));
    client_send(c, KEY_LIST_OFFSETS, 5, &req);
    client_await_close(c);
    client_free(c);
    c = client_new(2);
    assert_int_equal(handshake(c, "GSSAPI", 1, &listed), KAFKA_UNSUPPORTED_SASL_MECHANISM);
    assert_int_equal(listed, 3);
    client_await_close(c);
    client_free(c);
    c = client_new(0);
    assert_int_equal(authenticate(c, SLICE("x"))->error_code, KAFKA_ILLEGAL_SASL_STATE); /* no handshake */
    client_await_close(c);
    client_free(c);
    c = client_new(0);
    assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_NONE);
    assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_ILLEGAL_SASL_STATE); /* a conversation is under way */
    client_await_close(c);
    client_free(c);
    W.door.sasl = false; /* a door that asks nobody */
    c = client_new(0);
    assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_ILLEGAL_SASL_STATE);
    client_await_close(c);
    client_free(c);
    c = client_new(0);
    assert_int_equal(authenticate(c, SLICE("x"))->error_code, KAFKA_ILLEGAL_SASL_STATE);
    client_await_close(c);
    world_stop();
}

/* After handshake v0: size and token, without a header. */
static void test_sasl_bare(void **state)
{
    struct kafka_list_offsets_req req;
    struct buf b = {0};
    int32_t listed;
    (void)state;
    sasl_begin();
    kafka_list_offsets_req_init(&req);
    struct client *c = client_new(0);
    assert_int_equal(handshake(c, "PLAIN", 0, &listed), KAFKA_NONE);
    client_frame(c, plain_token("", "alice", "wonder land", &b));
    assert_int_equal(client_await_frame(c).n, 0);
    client_ask(c, KEY_LIST_OFFSETS, 5, &req);
    client_free(c);
    c = client_new(1);
    assert_int_equal(handshake(c, "SCRAM-SHA-512", 0, &listed), KAFKA_NONE);
    client_frame(c, SLICE("n,,n=bob,r=abc"));
    struct slice challenge = client_await_frame(c);
    client_frame(c, scram_proof(c, SCRAM_SHA512, "builder", SLICE("n=bob,r=abc"), challenge));
    assert_true(slice_starts(client_await_frame(c), SLICE("v=")));
    client_ask(c, KEY_LIST_OFFSETS, 5, &req);
    client_free(c);
    c = client_new(2);
    assert_int_equal(handshake(c, "PLAIN", 0, &listed), KAFKA_NONE);
    client_frame(c, plain_token("", "alice", "wrong", &b));
    client_await_close(c);
    client_free(c);
    buf_free(&b);
    world_stop();
}

/* KIP-368: again on the same connection, as the same principal with the same mechanism. */
static void test_sasl_again(void **state)
{
    struct kafka_list_offsets_req req;
    struct buf b = {0};
    int32_t listed;
    (void)state;
    sasl_begin();
    kafka_list_offsets_req_init(&req);
    for (int what = 0; what < 4; what++) {
        struct client *c = client_new(0);
        assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_NONE);
        assert_int_equal(authenticate(c, plain_token("", "alice", "wonder land", &b))->error_code, KAFKA_NONE);
        client_ask(c, KEY_LIST_OFFSETS, 5, &req);
        if (what == 3) {
            assert_int_equal(handshake(c, "SCRAM-SHA-256", 1, &listed), KAFKA_ILLEGAL_SASL_STATE);
        } else {
            assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_NONE);
            int16_t want = what == 0 ? KAFKA_NONE : KAFKA_SASL_AUTHENTICATION_FAILED;
            struct slice token = what == 2 ? plain_token("", "bob", "builder", &b) : plain_token("", "alice", what ? "wrong" : "wonder land", &b);
            assert_int_equal(authenticate(c, token)->error_code, want);
        }
        if (what == 0)
            client_ask(c, KEY_LIST_OFFSETS, 5, &req);
        else
            client_await_close(c);
        client_free(c);
    }
    buf_free(&b);
    world_stop();
}

/* The connection ends while the password is being verified; nothing is left behind. */
static void test_sasl_gone(void **state)
{
    struct buf b = {0};
    int32_t listed;
    (void)state;
    sasl_begin();
    for (int i = 0; i < 5; i++) {
        struct client *c = client_new(0);
        assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_NONE);
        struct kafka_sasl_authenticate_req req = {.auth_bytes = plain_token("", "alice", "wonder land", &b)};
        client_send(c, KEY_SASL_AUTHENTICATE, 1, &req);
        client_free(c);
        world_sleep(50);
    }
    buf_free(&b);
    world_stop();
}

/* ---- ACLs --------------------------------------------------------------------------------------------------------------------------- */

static int16_t acl_put(struct client *c, enum acl_permission permission, const char *principal, const char *host, int op, int kind, int pattern, const char *name)
{
    struct kafka_create_acls_req req;
    struct kafka_create_acls_req_acl_creation a = {.resource_type = (int8_t)kind, .resource_name = slice_cstr(name), .resource_pattern_type = (int8_t)pattern,
                                                   .principal = slice_cstr(principal), .host = slice_cstr(host), .operation = (int8_t)op, .permission_type = (int8_t)permission};
    kafka_create_acls_req_init(&req);
    req.creations = &a;
    req.creations_n = 1;
    const struct kafka_create_acls_resp *resp = client_ask(c, KEY_CREATE_ACLS, 3, &req);
    assert_int_equal(resp->results_n, 1);
    return resp->results[0].error_code;
}

/* How many bindings match; the error as a negative number. */
static int acl_count(struct client *c, int kind, int pattern, const char *name, const char *principal, int op)
{
    struct kafka_describe_acls_req req;
    kafka_describe_acls_req_init(&req);
    req.resource_type_filter = (int8_t)kind;
    req.pattern_type_filter = (int8_t)pattern;
    req.resource_name_filter = slice_cstr(name);
    req.principal_filter = slice_cstr(principal);
    req.host_filter = (struct slice){0};
    req.operation = (int8_t)op;
    req.permission_type = ACL_PERMISSION_ANY;
    const struct kafka_describe_acls_resp *resp = client_ask(c, KEY_DESCRIBE_ACLS, 3, &req);
    int n = 0;
    for (int32_t i = 0; i < resp->resources_n; i++)
        n += resp->resources[i].acls_n;
    return resp->error_code ? -resp->error_code : n;
}

static int acl_del(struct client *c, int kind, int pattern, const char *name)
{
    struct kafka_delete_acls_req req;
    struct kafka_delete_acls_req_delete_acls_filter f;
    kafka_delete_acls_req_delete_acls_filter_init(&f);
    f.resource_type_filter = (int8_t)kind;
    f.pattern_type_filter = (int8_t)pattern;
    f.resource_name_filter = slice_cstr(name);
    f.principal_filter = f.host_filter = (struct slice){0};
    f.operation = ACL_ANY;
    f.permission_type = ACL_PERMISSION_ANY;
    kafka_delete_acls_req_init(&req);
    req.filters = &f;
    req.filters_n = 1;
    const struct kafka_delete_acls_resp *resp = client_ask(c, KEY_DELETE_ACLS, 3, &req);
    assert_int_equal(resp->filter_results_n, 1);
    return resp->filter_results[0].error_code ? -resp->filter_results[0].error_code : resp->filter_results[0].matching_acls_n;
}

static void test_acl_requests(void **state)
{
    (void)state;
    begin(true);
    struct client *c = client_new(1);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "orders"), KAFKA_NONE);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "orders"), KAFKA_NONE); /* it is there already */
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:b", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "orders"), KAFKA_NONE);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_WRITE, ACL_TOPIC, ACL_PREFIXED, "ord"), KAFKA_NONE);
    assert_int_equal(acl_put(c, ACL_DENY, "User:*", "*", ACL_ALL, ACL_TOPIC, ACL_LITERAL, "*"), KAFKA_NONE);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_GROUP, ACL_LITERAL, "orders"), KAFKA_NONE);
    assert_int_equal(acl_count(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), 5);
    assert_int_equal(acl_count(c, ACL_TOPIC, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), 4);
    assert_int_equal(acl_count(c, ACL_TOPIC, ACL_LITERAL, "orders", NULL, ACL_ANY), 2);
    assert_int_equal(acl_count(c, ACL_TOPIC, ACL_PATTERN_MATCH, "orders", NULL, ACL_ANY), 4);
    assert_int_equal(acl_count(c, ACL_TOPIC, ACL_PATTERN_MATCH, "orders", "User:a", ACL_ANY), 2);
    assert_int_equal(acl_count(c, ACL_TOPIC, ACL_PREFIXED, NULL, NULL, ACL_ANY), 1);
    assert_int_equal(acl_count(c, ACL_TOPIC, ACL_PREFIXED, "orders", NULL, ACL_ANY), 0);
    assert_int_equal(acl_count(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, "orders", NULL, ACL_READ), 3);
    assert_int_equal(acl_count(c, 0, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), -KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_count(c, ACL_TOPIC, 5, NULL, NULL, ACL_ANY), -KAFKA_INVALID_REQUEST);
    /* bindings that make no sense */
    assert_int_equal(acl_put(c, ACL_ALLOW, "a", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_DENY, "User:\xff", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST); /* no UTF-8 */
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "", ACL_READ, ACL_TOPIC, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_ANY, ACL_TOPIC, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_RESOURCE_ANY, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_TOPIC, ACL_PATTERN_MATCH, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, ""), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_CLUSTER, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    assert_int_equal(acl_put(c, ACL_PERMISSION_ANY, "User:a", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "x"), KAFKA_INVALID_REQUEST);
    world_crash(true);
    c = client_new(2);
    assert_int_equal(acl_count(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), 5);
    assert_int_equal(acl_del(c, ACL_TOPIC, ACL_PATTERN_MATCH, "orders"), 4);
    assert_int_equal(acl_del(c, ACL_TOPIC, ACL_PATTERN_MATCH, "orders"), 0);
    assert_int_equal(acl_count(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), 1);
    /* others may not */
    struct client *d = client_as("User:mallory", 0);
    assert_int_equal(acl_count(d, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), -KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(acl_put(d, ACL_ALLOW, "User:mallory", "*", ACL_ALL, ACL_CLUSTER, ACL_LITERAL, "kafka-cluster"), KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(acl_del(d, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL), -KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    assert_string_equal(users(d, NULL, 0), "!31");
    assert_int_equal(user_put(d, "mallory", SCRAM_SHA256, "x", 4096), KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    world_stop();
}

/* 10,000 bindings and no more; a request that makes room for itself may go on. */
static void test_acl_limit(void **state)
{
    enum { EACH = 500 };
    static struct kafka_create_acls_req_acl_creation make[EACH];
    char names[EACH][16];
    struct kafka_create_acls_req req;
    (void)state;
    begin(true);
    struct client *c = client_new(2);
    kafka_create_acls_req_init(&req);
    req.creations = make;
    req.creations_n = EACH;
    for (uint32_t n = 0; n < ACLS_MAX; n += EACH) {
        for (uint32_t i = 0; i < EACH; i++) {
            snprintf(names[i], sizeof names[i], "t%u", n + i);
            make[i] = (struct kafka_create_acls_req_acl_creation){.resource_type = ACL_TOPIC, .resource_name = slice_cstr(names[i]), .resource_pattern_type = ACL_LITERAL,
                                                                  .principal = SLICE("User:a"), .host = SLICE("*"), .operation = ACL_READ, .permission_type = ACL_ALLOW};
        }
        const struct kafka_create_acls_resp *resp = client_ask(c, KEY_CREATE_ACLS, 3, &req);
        assert_int_equal(resp->results[EACH - 1].error_code, KAFKA_NONE);
        client_forget(c);
    }
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_GROUP, ACL_LITERAL, "g"), KAFKA_POLICY_VIOLATION);
    assert_int_equal(acl_count(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), ACLS_MAX);
    assert_int_equal(acl_del(c, ACL_TOPIC, ACL_LITERAL, "t77"), 1);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_GROUP, ACL_LITERAL, "g"), KAFKA_NONE);
    world_restart();
    c = client_new(0);
    assert_int_equal(acl_count(c, ACL_GROUP, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), 1);
    world_stop();
}

/* More credentials in one request than are looked at; a token that is longer than any. */
static void test_sasl_limits(void **state)
{
    enum { MANY = 1001 };
    static struct kafka_alter_user_scram_credentials_req_scram_credential_deletion many[MANY];
    static char names[MANY][8], token[16385];
    struct kafka_alter_user_scram_credentials_req req;
    int32_t listed;
    (void)state;
    begin(false);
    struct client *c = client_new(0);
    kafka_alter_user_scram_credentials_req_init(&req);
    req.deletions = many;
    req.deletions_n = MANY;
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "u%d", i);
        many[i] = (struct kafka_alter_user_scram_credentials_req_scram_credential_deletion){.name = slice_cstr(names[i]), .mechanism = SCRAM_SHA256};
    }
    const struct kafka_alter_user_scram_credentials_resp *resp = client_ask(c, KEY_ALTER_USERS, 0, &req);
    assert_int_equal(resp->results_n, MANY);
    assert_int_equal(resp->results[MANY - 1].error_code, KAFKA_POLICY_VIOLATION);
    W.door.sasl = true;
    c = client_new(1);
    assert_int_equal(handshake(c, "PLAIN", 1, &listed), KAFKA_NONE);
    memset(token, 'x', sizeof token);
    assert_int_equal(authenticate(c, slice_of(token, sizeof token))->error_code, KAFKA_SASL_AUTHENTICATION_FAILED);
    client_await_close(c);
    world_stop();
}

static void test_acl_off(void **state)
{
    (void)state;
    begin(false);
    struct client *c = client_new(1);
    assert_int_equal(acl_put(c, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "orders"), KAFKA_SECURITY_DISABLED);
    assert_int_equal(acl_count(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL, NULL, ACL_ANY), -KAFKA_SECURITY_DISABLED);
    assert_int_equal(acl_del(c, ACL_RESOURCE_ANY, ACL_PATTERN_ANY, NULL), -KAFKA_SECURITY_DISABLED);
    world_stop();
}

/* What the transaction requests need, taken away one by one. */
static void test_acl_transactions(void **state)
{
    (void)state;
    begin(true);
    struct client *root = client_new(0), *c = client_as("User:app", 2);
    assert_int_equal(txn_init_once(c, "t", 60000, NULL).error, KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_int_equal(txn_init_once(c, NULL, 60000, NULL).error, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(acl_put(root, ACL_ALLOW, "User:app", "*", ACL_WRITE, ACL_TXN, ACL_PREFIXED, "t"), KAFKA_NONE);
    struct producer_id p = txn_init(c, "t"); /* at once: who was answered meets the new rules everywhere */
    assert_int_equal(p.error, KAFKA_NONE);
    assert_int_equal(txn_add_once(c, "t", p, "a", 0, 3), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(txn_add_once(c, "u", p, "a", 0, 3), KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_int_equal(txn_finish_once(c, "u", p, true, 4), KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_int_equal(acl_put(root, ACL_ALLOW, "User:app", "10.0.0.7", ACL_WRITE, ACL_TOPIC, ACL_LITERAL, "a"), KAFKA_NONE);
    assert_int_equal(txn_add(c, "t", p, "a", 0), KAFKA_NONE);
    assert_int_equal(txn_produce_one(c, "t", &p, 0, "a", 0, 1), KAFKA_NONE);
    assert_int_equal(txn_init(c, NULL).error, KAFKA_NONE); /* WRITE on some topic is enough (KIP-679) */
    assert_int_equal(txn_finish(c, "t", p, true), KAFKA_NONE);
    assert_int_equal(acl_put(root, ACL_DENY, "User:app", "*", ACL_WRITE, ACL_TOPIC, ACL_PREFIXED, "a"), KAFKA_NONE);
    assert_int_equal(txn_add_once(c, "t", p, "a", 0, 3), KAFKA_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(txn_init(c, NULL).error, KAFKA_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(acl_put(root, ACL_ALLOW, "User:app", "*", ACL_IDEMPOTENT_WRITE, ACL_CLUSTER, ACL_LITERAL, "kafka-cluster"), KAFKA_NONE);
    assert_int_equal(txn_init(c, NULL).error, KAFKA_NONE);
    world_stop();
}

/* ---- quotas -------------------------------------------------------------------------------------------------------------------------------- */

/* user, client: NULL not a part, "" the default. value <= 0: removed. */
static int16_t quota_put(struct client *c, const char *user, const char *client, const char *key, double value)
{
    struct kafka_alter_client_quotas_req req;
    struct kafka_alter_client_quotas_req_entity_data entity[2];
    struct kafka_alter_client_quotas_req_op_data op = {.key = slice_cstr(key), .value = value, .remove = value == 0};
    struct kafka_alter_client_quotas_req_entry_data entry = {.entity = entity, .ops = &op, .ops_n = 1};
    if (user)
        entity[entry.entity_n++] = (struct kafka_alter_client_quotas_req_entity_data){SLICE("user"), *user ? slice_cstr(user) : (struct slice){0}};
    if (client)
        entity[entry.entity_n++] = (struct kafka_alter_client_quotas_req_entity_data){SLICE("client-id"), *client ? slice_cstr(client) : (struct slice){0}};
    kafka_alter_client_quotas_req_init(&req);
    req.entries = &entry;
    req.entries_n = 1;
    const struct kafka_alter_client_quotas_resp *resp = client_ask(c, KEY_ALTER_QUOTAS, 1, &req);
    assert_int_equal(resp->entries_n, 1);
    return resp->entries[0].error_code;
}

static int quota_count(struct client *c, const char *type, int8_t match, const char *name, bool strict, double *value)
{
    struct kafka_describe_client_quotas_req req;
    struct kafka_describe_client_quotas_req_component_data d = {.entity_type = slice_cstr(type), .match_type = match, .match = slice_cstr(name)};
    kafka_describe_client_quotas_req_init(&req);
    req.components = &d;
    req.components_n = type ? 1 : 0;
    req.strict = strict;
    const struct kafka_describe_client_quotas_resp *resp = client_ask(c, KEY_DESCRIBE_QUOTAS, 1, &req);
    if (resp->error_code)
        return -resp->error_code;
    *value = resp->entries_n == 1 && resp->entries[0].values_n == 1 ? resp->entries[0].values[0].value : -1;
    return resp->entries_n;
}

static void test_quota_requests(void **state)
{
    double v;
    (void)state;
    begin(false);
    struct client *c = client_new(2);
    assert_int_equal(quota_put(c, "alice", NULL, "producer_byte_rate", 1000), KAFKA_NONE);
    assert_int_equal(quota_put(c, "alice", "app", "consumer_byte_rate", 2000), KAFKA_NONE);
    assert_int_equal(quota_put(c, "", NULL, "request_percentage", 12.5), KAFKA_NONE);
    assert_int_equal(quota_put(c, NULL, "app", "controller_mutation_rate", 3), KAFKA_NONE);
    assert_int_equal(quota_count(c, NULL, 0, NULL, false, &v), 4);
    assert_int_equal(quota_count(c, "user", 0, "alice", false, &v), 2);
    assert_int_equal(quota_count(c, "user", 0, "alice", true, &v), 1);
    assert_true(v == 1000);
    assert_int_equal(quota_count(c, "user", 1, NULL, true, &v), 1);
    assert_true(v == 12.5);
    assert_int_equal(quota_count(c, "user", 2, NULL, false, &v), 3);
    assert_int_equal(quota_count(c, "client-id", 2, NULL, false, &v), 2);
    assert_int_equal(quota_count(c, "ip", 2, NULL, false, &v), 0);
    assert_int_equal(quota_count(c, "planet", 2, NULL, false, &v), -KAFKA_UNSUPPORTED_VERSION);
    assert_int_equal(quota_count(c, "user", 0, NULL, false, &v), -KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_count(c, "user", 3, NULL, false, &v), -KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_put(c, NULL, NULL, "producer_byte_rate", 1), KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_put(c, "a", NULL, "nonsense", 1), KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_put(c, "a", NULL, "producer_byte_rate", -1), KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_put(c, "a", NULL, "producer_byte_rate", 1.5), KAFKA_INVALID_REQUEST); /* bytes are whole; shares of time and partitions per second need not be */
    assert_int_equal(quota_put(c, "a", NULL, "consumer_byte_rate", 999.999), KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_put(c, "a", NULL, "controller_mutation_rate", 0.5), KAFKA_NONE);
    assert_int_equal(quota_put(c, "a", NULL, "controller_mutation_rate", 0), KAFKA_NONE);
    char name[SECURITY_NAME_MAX + 1]; /* no UTF-8: the file would have three bytes for each, and not be read again */
    memset(name, '\xff', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(quota_put(c, name, NULL, "producer_byte_rate", 1), KAFKA_INVALID_REQUEST);
    assert_int_equal(quota_put(c, "a\xc3", NULL, "producer_byte_rate", 1), KAFKA_INVALID_REQUEST);
    memset(name, 'x', sizeof name - 1);
    assert_int_equal(quota_put(c, name, NULL, "producer_byte_rate", 1), KAFKA_NONE);
    assert_int_equal(quota_put(c, name, NULL, "producer_byte_rate", 0), KAFKA_NONE);
    world_crash(true);
    c = client_new(0);
    assert_int_equal(quota_count(c, NULL, 0, NULL, false, &v), 4);
    assert_int_equal(quota_put(c, "alice", NULL, "producer_byte_rate", 0), KAFKA_NONE);
    assert_int_equal(quota_count(c, "user", 0, "alice", true, &v), 0);
    assert_int_equal(quota_count(c, NULL, 0, NULL, false, &v), 3);
    world_stop();
}

/* Produce over virtual time: the answer says how long, comes at once, and the connection rests so long. */
static void test_quota_produce(void **state)
{
    int payload[256] = {0};
    (void)state;
    begin(false);
    struct client *root = client_new(0), *c = client_as("User:slow", 1), *d = client_as("User:slow", 2), *e = client_as("User:other", 1);
    assert_int_equal(quota_put(root, "slow", NULL, "producer_byte_rate", 10000), KAFKA_NONE);
    uint64_t begun = sim_now_ms(), bytes = 0;
    for (int i = 0; i < 40; i++) { /* about 3 KiB each, over two connections on two shards */
        assert_int_equal(txn_produce(i % 2 ? c : d, NULL, NULL, 0, "a", i % 3, payload, 256), KAFKA_NONE);
        bytes += 256 * 11;
    }
    uint64_t took = sim_now_ms() - begun;
    assert_true(took > (bytes - 25000) / 10 && took < 2 * bytes / 10); /* a second's burst, and what is told with the last answers */
    begun = sim_now_ms();
    for (int i = 0; i < 40; i++)
        assert_int_equal(txn_produce(e, NULL, NULL, 0, "a", i % 3, payload, 256), KAFKA_NONE);
    assert_true(sim_now_ms() - begun < 2000);
    assert_int_equal(quota_put(root, "slow", NULL, "producer_byte_rate", 0), KAFKA_NONE);
    world_sleep(30000);
    begun = sim_now_ms();
    for (int i = 0; i < 40; i++)
        assert_int_equal(txn_produce(c, NULL, NULL, 0, "a", i % 3, payload, 256), KAFKA_NONE);
    assert_true(sim_now_ms() - begun < 2000);
    world_stop();
}

/* request_percentage: a request costs 10 us at least (in the simulator, exactly); 0.01 % of a second is 10 such. */
static void test_quota_requests_time(void **state)
{
    struct kafka_list_offsets_req req;
    (void)state;
    begin(false);
    kafka_list_offsets_req_init(&req);
    struct client *root = client_new(0), *c = client_as("User:slow", 1), *e = client_as("User:other", 1);
    assert_int_equal(quota_put(root, "slow", NULL, "request_percentage", 0.01), KAFKA_NONE);
    uint64_t begun = sim_now_ms();
    for (int i = 0; i < 100; i++)
        client_ask(c, KEY_LIST_OFFSETS, 5, &req);
    assert_in_range(sim_now_ms() - begun, 8500, 9500);
    const struct kafka_list_offsets_resp *resp = client_ask(c, KEY_LIST_OFFSETS, 5, &req);
    assert_in_range(resp->throttle_time_ms, 50, 110);
    begun = sim_now_ms();
    for (int i = 0; i < 100; i++)
        client_ask(e, KEY_LIST_OFFSETS, 5, &req);
    assert_true(sim_now_ms() - begun < 1000);
    world_stop();
}

static const struct kafka_create_topics_resp *topic_make(struct client *c, const char *name, int32_t partitions, int16_t version)
{
    struct kafka_create_topics_req req;
    struct kafka_create_topics_req_creatable_topic t;
    kafka_create_topics_req_init(&req);
    kafka_create_topics_req_creatable_topic_init(&t);
    t.name = slice_cstr(name);
    t.num_partitions = partitions;
    t.replication_factor = 1;
    req.topics = &t;
    req.topics_n = 1;
    return client_ask(c, KEY_CREATE_TOPICS, version, &req);
}

/* controller_mutation_rate: 11 seconds' worth at once, then new clients are refused and old ones rest (KIP-599). */
static void test_quota_mutations(void **state)
{
    (void)state;
    begin(false);
    struct client *root = client_new(0), *c = client_as("User:maker", 1);
    assert_int_equal(quota_put(root, "maker", NULL, "controller_mutation_rate", 2), KAFKA_NONE);
    assert_int_equal(topic_make(c, "m1", 23, 6)->topics[0].error_code, KAFKA_NONE); /* into the red, once */
    const struct kafka_create_topics_resp *resp = topic_make(c, "m2", 1, 6);
    assert_int_equal(resp->topics[0].error_code, KAFKA_THROTTLING_QUOTA_EXCEEDED);
    assert_in_range(resp->throttle_time_ms, 1, 500);
    uint64_t begun = sim_now_ms(); /* the connection rests, and then it may */
    assert_int_equal(topic_make(c, "m2", 4, 6)->topics[0].error_code, KAFKA_NONE);
    assert_true(sim_now_ms() - begun >= (uint64_t)resp->throttle_time_ms);
    resp = topic_make(c, "m3", 2, 4); /* a version that does not know the error: made, and rested for */
    assert_int_equal(resp->topics[0].error_code, KAFKA_NONE);
    assert_in_range(resp->throttle_time_ms, 2000, 3500);
    assert_int_equal(topic_make(root, "m4", 100, 6)->topics[0].error_code, KAFKA_NONE);
    world_stop();
}

/* A file that is no such file is an error at the start that names it. */
static void test_file_at_start(void **state)
{
    struct broker_conf conf;
    struct broker *b;
    struct buf why = {0};
    (void)state;
    begin(false);
    struct client *c = client_new(0);
    assert_int_equal(user_put(c, "alice", SCRAM_SHA256, "pw", 4096), KAFKA_NONE);
    client_free(c);
    world_down(false, false);
    assert_true(sim_file_cut(WORLD_DIR "/security.json", 100));
    broker_conf_default(&conf);
    conf.log.dir = WORLD_DIR;
    assert_int_equal(broker_open(&conf, &b, &why), ERR_SYNTAX);
    assert_non_null(strstr(why.p, WORLD_DIR "/security.json"));
    assert_int_equal(file_replace(WORLD_DIR "/security.json", "{\"format\": 1}", 13, 0600), OK);
    buf_free(&why);
    world_up();
    c = client_new(0);
    assert_string_equal(users(c, NULL, 0), "");
    world_stop();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_users), cmocka_unit_test(test_users_disk), cmocka_unit_test(test_sasl_plain), cmocka_unit_test(test_sasl_scram), cmocka_unit_test(test_sasl_nobody),
        cmocka_unit_test(test_sasl_states), cmocka_unit_test(test_sasl_bare), cmocka_unit_test(test_sasl_again), cmocka_unit_test(test_sasl_gone),
        cmocka_unit_test(test_acl_requests), cmocka_unit_test(test_acl_off), cmocka_unit_test(test_acl_limit), cmocka_unit_test(test_sasl_limits), cmocka_unit_test(test_acl_transactions), cmocka_unit_test(test_quota_requests),
        cmocka_unit_test(test_quota_produce), cmocka_unit_test(test_quota_requests_time), cmocka_unit_test(test_quota_mutations), cmocka_unit_test(test_file_at_start),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
