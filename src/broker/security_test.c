/* security_test.c - the parts of security that need no broker: SCRAM against the vectors of its RFC, the file, ACL decisions, rates and meters. */
#include "security_int.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* ---- SCRAM ------------------------------------------------------------------------------------------------------------------ */

/* RFC 7677 section 3. */
#define VECTOR_FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define VECTOR_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define VECTOR_CHALLENGE "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define VECTOR_FINAL "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define VECTOR_SERVER "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
static const uint8_t vector_salt[16] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};

static void cred_make(enum scram_kind k, struct slice password, int32_t iterations, struct scram_cred *out)
{
    uint8_t salted[SCRAM_KEY_MAX];
    *out = (struct scram_cred){.iterations = iterations, .salt_n = sizeof vector_salt};
    memcpy(out->salt, vector_salt, sizeof vector_salt);
    assert_int_equal(scram_salt_password(k, password, out->salt, out->salt_n, iterations, salted), OK);
    assert_int_equal(scram_keys(k, salted, out), OK);
}

static enum err converse(struct scram *x, const struct scram_cred *cred, bool known, struct slice first, struct slice final, struct buf *challenge, struct buf *end)
{
    enum err e = scram_first(x, first);
    if (e != OK)
        return e;
    scram_challenge(x, cred, known, SLICE(VECTOR_NONCE), challenge);
    return scram_final(x, final, end);
}

static void test_scram_vector(void **state)
{
    struct scram_cred cred;
    struct buf challenge = {0}, end = {0};
    struct scram x = {.kind = SCRAM_SHA256};
    (void)state;
    cred_make(SCRAM_SHA256, SLICE("pencil"), 4096, &cred);
    assert_int_equal(converse(&x, &cred, true, SLICE(VECTOR_FIRST), SLICE(VECTOR_FINAL), &challenge, &end), OK);
    assert_string_equal(challenge.p, VECTOR_CHALLENGE);
    assert_string_equal(end.p, VECTOR_SERVER);
    assert_string_equal(x.user, "user");
    buf_free(&challenge);
    buf_free(&end);
    scram_fini(&x);
}

/* The same conversation with one thing changed. */
static void test_scram_refused(void **state)
{
    static const struct {
        const char *first, *final;
        bool known;
        enum err want;
    } rows[] = {
        {VECTOR_FIRST, VECTOR_FINAL, false, ERR_PERM}, /* right by chance, but the user does not exist */
        {VECTOR_FIRST, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", true, ERR_PERM},
        {VECTOR_FIRST, "c=eSws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", true, ERR_PERM},
        {VECTOR_FIRST, "c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", true, ERR_PERM},
        {VECTOR_FIRST, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=", true, ERR_SYNTAX},
        {VECTOR_FIRST, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", true, ERR_SYNTAX},
        {VECTOR_FIRST, "c=biws,r=x,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ", true, ERR_SYNTAX},
        {VECTOR_FIRST, "", true, ERR_SYNTAX},
        {"p=tls-unique,,n=user,r=abc", "", true, ERR_SYNTAX},
        {"n,,n=user", "", true, ERR_SYNTAX},
        {"n,,n=,r=abc", "", true, ERR_SYNTAX},
        {"n,,n=user,r=", "", true, ERR_SYNTAX},
        {"n,,m=x,n=user,r=abc", "", true, ERR_SYNTAX},
        {"n,,n=us=er,r=abc", "", true, ERR_SYNTAX},
        {"n,,n=us=2,r=abc", "", true, ERR_SYNTAX},
        {"n,a=other,n=user,r=abc", "", true, ERR_PERM},
        {"n,b=user,n=user,r=abc", "", true, ERR_SYNTAX},
        {"n", "", true, ERR_SYNTAX},
        {"", "", true, ERR_SYNTAX},
    };
    struct scram_cred cred;
    (void)state;
    cred_make(SCRAM_SHA256, SLICE("pencil"), 4096, &cred);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct buf challenge = {0}, end = {0};
        struct scram x = {.kind = SCRAM_SHA256};
        assert_int_equal(converse(&x, &cred, rows[i].known, slice_cstr(rows[i].first), slice_cstr(rows[i].final), &challenge, &end), rows[i].want);
        assert_int_equal(end.n, 0);
        buf_free(&challenge);
        buf_free(&end);
        scram_fini(&x);
    }
}

static void test_scram_names(void **state)
{
    struct scram x = {.kind = SCRAM_SHA512};
    (void)state;
    assert_int_equal(scram_first(&x, SLICE("y,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=abc,x=ext")), OK);
    assert_string_equal(x.user, "a,b=c");
    scram_fini(&x);
}

static void test_password(void **state)
{
    struct scram_cred cred;
    (void)state;
    for (int k = SCRAM_SHA256; k < SCRAM_KINDS; k++) {
        cred_make((enum scram_kind)k, SLICE("secret"), 4096, &cred);
        assert_int_equal(cred.key_n, scram_key_bytes((enum scram_kind)k));
        assert_true(scram_password_ok((enum scram_kind)k, &cred, SLICE("secret")));
        assert_false(scram_password_ok((enum scram_kind)k, &cred, SLICE("Secret")));
        assert_false(scram_password_ok((enum scram_kind)k, &cred, SLICE("")));
        cred.iterations++;
        assert_false(scram_password_ok((enum scram_kind)k, &cred, SLICE("secret")));
    }
}

/* ---- the file ------------------------------------------------------------------------------------------------------------------ */

static void acl(struct secdb *db, enum acl_permission permission, const char *principal, const char *host, enum acl_operation op, enum acl_resource kind,
                enum acl_pattern pattern, const char *name)
{
    struct sec_acl a = {.name = (char *)(uintptr_t)name, .principal = (char *)(uintptr_t)principal, .host = (char *)(uintptr_t)host, .kind = (uint8_t)kind,
                        .pattern = (uint8_t)pattern, .operation = (uint8_t)op, .permission = (uint8_t)permission};
    secdb_acl_add(db, &a, (struct slice){0});
}

static void rate(struct secdb *db, const char *user, const char *client, enum quota q, double value)
{
    /* "" is the default, NULL: not a part of the entity */
    struct sec_quota e = {.user_mode = !user ? QUOTA_ABSENT : *user ? QUOTA_NAMED : QUOTA_DEFAULT, .client_mode = !client ? QUOTA_ABSENT : *client ? QUOTA_NAMED : QUOTA_DEFAULT};
    e.user = (char *)(uintptr_t)(user && *user ? user : NULL);
    e.client = (char *)(uintptr_t)(client && *client ? client : NULL);
    secdb_quota(db, &e, true)->rate[q] = value;
}

static struct secdb *example(void)
{
    struct secdb *db = secdb_new();
    cred_make(SCRAM_SHA256, SLICE("pw"), 4096, &secdb_user_add(db, SLICE("zoe \"q\" \\"))->cred[SCRAM_SHA256]);
    cred_make(SCRAM_SHA512, SLICE("pw"), 4100, &secdb_user_add(db, SLICE("alice"))->cred[SCRAM_SHA512]);
    acl(db, ACL_ALLOW, "User:alice", "*", ACL_READ, ACL_TOPIC, ACL_PREFIXED, "orders-");
    acl(db, ACL_DENY, "User:*", "10.0.0.1", ACL_ALL, ACL_CLUSTER, ACL_LITERAL, "kafka-cluster");
    rate(db, "alice", "", QUOTA_FETCH, 0.1);
    rate(db, NULL, "app", QUOTA_PRODUCE, 1e6);
    return db;
}

static void test_file(void **state)
{
    struct secdb *db = example(), *back, *clone;
    struct buf a = {0}, b = {0}, c = {0}, why = {0};
    (void)state;
    assert_string_equal(db->users[0]->name, "alice");
    secdb_write(db, &a);
    assert_int_equal(secdb_read(buf_slice(&a), &back, &why), OK);
    secdb_write(back, &b);
    assert_string_equal(a.p, b.p);
    clone = secdb_clone(back);
    secdb_write(clone, &c);
    assert_string_equal(a.p, c.p);
    assert_memory_equal(secdb_user(back, SLICE("alice"))->cred, db->users[0]->cred, sizeof db->users[0]->cred);
    secdb_unref(db);
    secdb_unref(back);
    secdb_unref(clone);
    buf_free(&a);
    buf_free(&b);
    buf_free(&c);
    buf_free(&why);
}

/* A file that was cut or changed by hand is never half taken. */
static void test_file_broken(void **state)
{
    static const char *const texts[] = {
        "", "x", "[]", "{}", "{\"format\": 0}", "{\"format\": 2}", "{\"format\": 1, \"format\": 1}",
        "{\"format\": 1, \"users\": [{}]}",
        "{\"format\": 1, \"users\": [{\"name\": \"a\", \"mechanism\": \"PLAIN\", \"iterations\": 4096, \"salt\": \"00\", \"stored_key\": \"\", \"server_key\": \"\"}]}",
        "{\"format\": 1, \"users\": [{\"name\": \"a\", \"mechanism\": \"SCRAM-SHA-256\", \"iterations\": 4096, \"salt\": \"00\", \"stored_key\": \"00\", \"server_key\": \"00\"}]}",
        "{\"format\": 1, \"acls\": [{\"kind\": 8, \"pattern\": 3, \"operation\": 3, \"permission\": 3, \"name\": \"a\", \"principal\": \"User:a\", \"host\": \"*\"}]}",
        "{\"format\": 1, \"acls\": [{\"kind\": 2, \"pattern\": 3, \"operation\": 3, \"permission\": 3, \"name\": \"a\", \"principal\": \"User:a\"}]}",
        "{\"format\": 1, \"acls\": [1]}",
        "{\"format\": 1, \"quotas\": [{\"user_mode\": 2, \"client_mode\": 0}]}",
        "{\"format\": 1, \"quotas\": [{\"user_mode\": 3, \"client_mode\": 0, \"user\": \"a\"}]}",
    };
    struct secdb *db = example(), *back;
    struct buf text = {0}, why = {0};
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        buf_clear(&why);
        assert_int_equal(secdb_read(slice_cstr(texts[i]), &back, &why), ERR_SYNTAX);
        assert_true(why.n > 0);
    }
    secdb_write(db, &text);
    for (size_t n = 0; n + 2 < text.n; n++) { /* without its last brace it is none */
        buf_clear(&why);
        assert_int_equal(secdb_read(slice_of(text.p, n), &back, &why), ERR_SYNTAX);
    }
    secdb_unref(db);
    buf_free(&text);
    buf_free(&why);
}

/* ---- ACLs ------------------------------------------------------------------------------------------------------------------------ */

static void test_acl_matrix(void **state)
{
    static const struct {
        const char *principal, *host;
        enum acl_operation op;
        enum acl_resource kind;
        const char *name;
        bool want, want_open; /* want_open: with allow.everyone.if.no.acl.found */
    } rows[] = {
        {"User:alice", "1.1.1.1", ACL_READ, ACL_TOPIC, "orders-1", true, true},            /* prefix */
        {"User:alice", "1.1.1.1", ACL_DESCRIBE, ACL_TOPIC, "orders-1", true, true},        /* implied by READ */
        {"User:alice", "1.1.1.1", ACL_DESCRIBE_CONFIGS, ACL_TOPIC, "orders-1", false, false},
        {"User:alice", "1.1.1.1", ACL_WRITE, ACL_TOPIC, "orders-1", false, false},
        {"User:alice", "1.1.1.1", ACL_READ, ACL_TOPIC, "orders-secret", false, false},     /* deny on the name wins */
        {"User:alice", "1.1.1.1", ACL_DESCRIBE, ACL_TOPIC, "orders-secret", true, true},   /* deny of READ implies nothing */
        {"User:alice", "1.1.1.1", ACL_READ, ACL_TOPIC, "orders", false, true},             /* shorter than the prefix: no binding at all */
        {"User:bob", "1.1.1.1", ACL_READ, ACL_TOPIC, "orders-1", false, false},            /* there are bindings, none for bob */
        {"User:bob", "1.1.1.1", ACL_WRITE, ACL_GROUP, "any", true, true},                  /* "*" and ALL */
        {"User:bob", "1.1.1.1", ACL_DESCRIBE, ACL_GROUP, "any", true, true},
        {"User:carol", "1.1.1.1", ACL_READ, ACL_GROUP, "any", false, false},
        {"User:carol", "10.0.0.9", ACL_READ, ACL_GROUP, "any", true, true},                /* from that host */
        {"User:dave", "10.0.0.9", ACL_READ, ACL_GROUP, "locked", false, false},            /* deny for everybody */
        {"User:bob", "1.1.1.1", ACL_READ, ACL_GROUP, "locked", false, false},
        {"User:x", "1.1.1.1", ACL_CREATE, ACL_CLUSTER, "kafka-cluster", false, true},
        {"User:erin", "1.1.1.1", ACL_DESCRIBE_CONFIGS, ACL_TOPIC, "conf", true, true},     /* implied by ALTER_CONFIGS */
        {"User:erin", "1.1.1.1", ACL_ALTER_CONFIGS, ACL_TOPIC, "conf", true, true},
        {"User:erin", "1.1.1.1", ACL_DESCRIBE, ACL_TOPIC, "conf", false, false},
        {"User:frank", "1.1.1.1", ACL_READ, ACL_TOPIC, "aa", false, false},                /* longer prefix denies */
        {"User:frank", "1.1.1.1", ACL_READ, ACL_TOPIC, "ab", true, true},
    };
    struct secdb *db = secdb_new();
    (void)state;
    acl(db, ACL_ALLOW, "User:alice", "*", ACL_READ, ACL_TOPIC, ACL_PREFIXED, "orders-");
    acl(db, ACL_DENY, "User:alice", "*", ACL_READ, ACL_TOPIC, ACL_LITERAL, "orders-secret");
    acl(db, ACL_ALLOW, "User:bob", "*", ACL_ALL, ACL_GROUP, ACL_LITERAL, "*");
    acl(db, ACL_ALLOW, "User:carol", "10.0.0.9", ACL_READ, ACL_GROUP, ACL_LITERAL, "*");
    acl(db, ACL_DENY, "User:*", "*", ACL_ALL, ACL_GROUP, ACL_LITERAL, "locked");
    acl(db, ACL_ALLOW, "User:erin", "*", ACL_ALTER_CONFIGS, ACL_TOPIC, ACL_LITERAL, "conf");
    acl(db, ACL_ALLOW, "User:frank", "*", ACL_READ, ACL_TOPIC, ACL_PREFIXED, "a");
    acl(db, ACL_DENY, "User:frank", "*", ACL_READ, ACL_TOPIC, ACL_PREFIXED, "aa");
    db->index = acl_index_new(db);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct broker_caller who = {.principal = slice_cstr(rows[i].principal), .host = slice_cstr(rows[i].host)};
        if (acl_decide(db, &who, false, rows[i].op, rows[i].kind, slice_cstr(rows[i].name)) != rows[i].want)
            fail_msg("row %zu", i);
        if (acl_decide(db, &who, true, rows[i].op, rows[i].kind, slice_cstr(rows[i].name)) != rows[i].want_open)
            fail_msg("row %zu, open", i);
    }
    secdb_unref(db);
}

/* A name longer than what fits the stack's key. */
static void test_acl_long_name(void **state)
{
    static char name[SECURITY_NAME_MAX + 1], longer[4 * SECURITY_NAME_MAX];
    struct secdb *db = secdb_new();
    struct broker_caller who = {.principal = SLICE("User:a"), .host = SLICE("1.1.1.1")};
    (void)state;
    memset(name, 'n', SECURITY_NAME_MAX);
    memset(longer, 'n', sizeof longer);
    acl(db, ACL_ALLOW, "User:a", "*", ACL_READ, ACL_GROUP, ACL_PREFIXED, name);
    db->index = acl_index_new(db);
    assert_true(acl_decide(db, &who, false, ACL_READ, ACL_GROUP, slice_of(longer, sizeof longer)));
    assert_false(acl_decide(db, &who, false, ACL_READ, ACL_GROUP, slice_of(longer, SECURITY_NAME_MAX - 1)));
    secdb_unref(db);
}

/* ---- quotas ------------------------------------------------------------------------------------------------------------------------ */

/* The order of KIP-55: rates are taken away from the most specific on. */
static void test_rate_precedence(void **state)
{
    static const struct {
        const char *user, *client;
        double rate;
        bool by_user, by_client;
    } order[] = {{"u", "c", 1, true, true}, {"u", "", 2, true, true}, {"u", NULL, 3, true, false}, {"", "c", 4, true, true}, {"", "", 5, true, true}, {"", NULL, 6, true, false},
                 {NULL, "c", 7, false, true}, {NULL, "", 8, false, true}};
    bool by_user, by_client;
    (void)state;
    for (size_t from = 0; from < COUNT(order); from++) {
        struct secdb *db = secdb_new();
        rate(db, "other", "c", QUOTA_PRODUCE, 99);
        rate(db, "u", "other", QUOTA_PRODUCE, 98);
        rate(db, "u", "c", QUOTA_FETCH, 97);
        for (size_t i = COUNT(order); i-- > from;)
            rate(db, order[i].user, order[i].client, QUOTA_PRODUCE, order[i].rate);
        assert_true(quota_rate(db, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), &by_user, &by_client) == order[from].rate);
        assert_int_equal(by_user, order[from].by_user);
        assert_int_equal(by_client, order[from].by_client);
        secdb_unref(db);
    }
    struct secdb *none = secdb_new();
    assert_true(quota_rate(none, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), &by_user, &by_client) < 0);
    secdb_unref(none);
}

/* A client that rests as it is told gets the rate, over any number of shards, and no more. */
static void test_meter(void **state)
{
    struct quota_meters *m = quota_meters_new();
    struct quota_use *shards[3];
    struct security_counters n = {0};
    struct secdb *db = secdb_new();
    uint64_t now = 5000000000ull, begun = now, bytes = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(shards); i++)
        shards[i] = quota_use_new(m);
    rate(db, "u", NULL, QUOTA_PRODUCE, 1000000);
    for (int i = 0; i < 1000; i++) {
        int32_t ms = quota_use_note(shards[i % 3], db, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), now, 40000, &n);
        bytes += 40000;
        now += (uint64_t)ms * 1000000 + 1000;
    }
    double seconds = (double)(now - begun) / 1e9, got = (double)bytes / (seconds + 1); /* a second's burst is free */
    assert_true(got > 990000 && got < 1010000);
    assert_true(counter_read(&n.throttled[QUOTA_PRODUCE]) > 900);
    /* another user is not concerned; after a pause there is a burst again */
    assert_int_equal(quota_use_note(shards[0], db, QUOTA_PRODUCE, SLICE("v"), SLICE("c"), now, 1e9, &n), 0);
    assert_int_equal(quota_use_note(shards[0], db, QUOTA_FETCH, SLICE("u"), SLICE("c"), now, 1e9, &n), 0);
    now += 10000000000ull;
    assert_int_equal(quota_use_note(shards[1], db, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), now, 999999, &n), 0);
    assert_in_range(quota_use_note(shards[2], db, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), now, 500000, &n), 499, 501);
    /* a huge amount: the time told is bounded, the debt stays */
    assert_int_equal(quota_use_note(shards[2], db, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), now, 1e15, &n), 30000);
    assert_int_equal(quota_use_note(shards[0], db, QUOTA_PRODUCE, SLICE("u"), SLICE("c"), now + 60000000000ull, 0, &n), 30000);
    for (size_t i = 0; i < COUNT(shards); i++)
        quota_use_free(shards[i]);
    quota_meters_free(m);
    secdb_unref(db);
}

/* controller_mutation_rate: refused before it is noted, so asking in vain costs nothing. Requests: of a thread's time. */
static void test_meter_kinds(void **state)
{
    struct quota_meters *m = quota_meters_new();
    struct quota_use *u = quota_use_new(m);
    struct security_counters n = {0};
    struct secdb *db = secdb_new();
    uint64_t now = 1000000000ull;
    (void)state;
    rate(db, NULL, "c", QUOTA_CONTROLLER, 10);
    rate(db, NULL, "c", QUOTA_REQUEST, 25);
    assert_int_equal(quota_use_note(u, db, QUOTA_CONTROLLER, SLICE("u"), SLICE("c"), now, 120, &n), 0); /* into the red, once */
    int32_t first = quota_use_note(u, db, QUOTA_CONTROLLER, SLICE("u"), SLICE("c"), now, 10, &n);
    assert_int_equal(first, 1000);
    assert_int_equal(quota_use_note(u, db, QUOTA_CONTROLLER, SLICE("u"), SLICE("c"), now, 10, &n), first);
    assert_int_equal(quota_use_note(u, db, QUOTA_CONTROLLER, SLICE("u"), SLICE("c"), now + 1000000000ull, 10, &n), 0);
    assert_int_equal(quota_use_note(u, db, QUOTA_REQUEST, SLICE("u"), SLICE("c"), now, 250e6, &n), 0); /* a quarter of a second: one second's share */
    assert_int_equal(quota_use_note(u, db, QUOTA_REQUEST, SLICE("u"), SLICE("c"), now, 25e6, &n), 100);
    quota_use_free(u);
    quota_meters_free(m);
    secdb_unref(db);
}

/* More entities than there are meters: they share one, and are counted. */
static void test_meter_limit(void **state)
{
    struct quota_meters *m = quota_meters_new();
    struct quota_use *a = quota_use_new(m), *b = quota_use_new(m);
    struct security_counters n = {0};
    struct secdb *db = secdb_new();
    char name[16];
    (void)state;
    rate(db, "", NULL, QUOTA_PRODUCE, 1000);
    for (uint32_t i = 0; i < 9999; i++) {
        size_t len = (size_t)snprintf(name, sizeof name, "a%u", i);
        quota_use_note(a, db, QUOTA_PRODUCE, slice_of(name, len), SLICE("c"), 1, 1, &n);
    }
    for (uint32_t i = 0; i < 3; i++) {
        size_t len = (size_t)snprintf(name, sizeof name, "b%u", i);
        quota_use_note(b, db, QUOTA_PRODUCE, slice_of(name, len), SLICE("c"), 1, 1, &n);
    }
    assert_int_equal(counter_read(&n.meters_shared), 2);
    quota_use_free(a);
    quota_use_free(b);
    quota_meters_free(m);
    secdb_unref(db);
}

/* ---- what manifests give ---------------------------------------------------------------------------------------------------------------- */

/* The same after its file was written and read. */
static struct secdb *again(struct secdb *db)
{
    struct buf text = {0}, why = {0};
    struct secdb *back = NULL;
    secdb_write(db, &text);
    assert_int_equal(secdb_read(buf_slice(&text), &back, &why), OK);
    buf_free(&text);
    buf_free(&why);
    secdb_unref(db);
    return back;
}

/* Manifests replace what they gave, by topic; bindings of clients stay, also where a manifest says the same and no longer. */
static void test_declared_acls(void **state)
{
    static const struct broker_acl two[] = {{SLICE("User:a"), SLICE("*"), ACL_READ, false}, {SLICE("User:b"), SLICE("*"), ACL_WRITE, true}};
    struct sec_acl own = {.name = "t", .principal = "User:a", .host = "*", .kind = ACL_TOPIC, .pattern = ACL_LITERAL, .operation = ACL_READ, .permission = ACL_ALLOW};
    struct secdb *db = secdb_new();
    (void)state;
    assert_true(secdb_acl_add(db, &own, (struct slice){0}));
    assert_true(acls_declare(db, SLICE("t"), two, 2));
    assert_true(acls_declare(db, SLICE("other"), two, 1));
    assert_int_equal(db->acls_n, 4); /* one is there twice: as the client's, and as the manifest's */
    assert_false(acls_declare(db, SLICE("t"), two, 2));
    db = again(db);
    assert_false(acls_declare(db, SLICE("t"), two, 2)); /* it knows whose they are */
    assert_true(acls_declare(db, SLICE("t"), NULL, 0));
    assert_int_equal(db->acls_n, 2);
    assert_string_equal(db->acls[0]->principal, "User:a");
    assert_true(acls_declare(db, SLICE("other"), NULL, 0));
    assert_int_equal(db->acls_n, 1);
    secdb_unref(db);
}

static void test_declared_quotas(void **state)
{
    static const struct broker_quota two[] = {{.user = SLICE("shop/a"), .producer_bytes = 100, .request_percent = 50}, {.user = SLICE("shop/b"), .consumer_bytes = 7}};
    struct secdb *db = secdb_new();
    bool u, c;
    (void)state;
    rate(db, "kept", NULL, QUOTA_PRODUCE, 1000);
    assert_true(quotas_declare(db, two, 2));
    assert_false(quotas_declare(db, two, 2));
    db = again(db);
    assert_false(quotas_declare(db, two, 2));
    assert_true(quota_rate(db, QUOTA_PRODUCE, SLICE("shop/a"), SLICE(""), &u, &c) == 100 && u && !c);
    assert_true(quota_rate(db, QUOTA_FETCH, SLICE("shop/a"), SLICE(""), &u, &c) < 0);
    assert_true(quotas_declare(db, two + 1, 1));
    assert_true(quota_rate(db, QUOTA_PRODUCE, SLICE("shop/a"), SLICE(""), &u, &c) < 0);
    assert_true(quota_rate(db, QUOTA_FETCH, SLICE("shop/b"), SLICE(""), &u, &c) == 7);
    assert_true(quotas_declare(db, NULL, 0));
    assert_int_equal(db->quotas_n, 1);
    assert_true(quota_rate(db, QUOTA_PRODUCE, SLICE("kept"), SLICE(""), &u, &c) == 1000);
    secdb_unref(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scram_vector), cmocka_unit_test(test_scram_refused), cmocka_unit_test(test_scram_names), cmocka_unit_test(test_password),
        cmocka_unit_test(test_file), cmocka_unit_test(test_file_broken), cmocka_unit_test(test_acl_matrix), cmocka_unit_test(test_acl_long_name),
        cmocka_unit_test(test_rate_precedence), cmocka_unit_test(test_meter), cmocka_unit_test(test_meter_kinds), cmocka_unit_test(test_meter_limit),
        cmocka_unit_test(test_declared_acls), cmocka_unit_test(test_declared_quotas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
