/* seal_test.c - sealed values: there and back, damaged, moved, under other keys; and that no reason ever shows what was sealed. */
#include "seal.h"

#include "plan_int.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define KEY_B "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
#define ID_A "66687aad" /* printf '\0%.0s' {1..32} | sha256sum */
#define ID_B "72cd6e84"
#define DIGEST_1234 "7f74d6fc" /* printf "weir value digest 1:1234" | openssl dgst -sha256 -mac HMAC -macopt hexkey:00...00 */
#define PLAIN "correct horse battery staple"

static struct keyring *ring(const char *text)
{
    struct keyring *k = NULL;
    struct buf why = {0};
    assert_int_equal(keyring_read(slice_cstr(text), &k, &why), OK);
    buf_free(&why);
    return k;
}

static void sealed(const struct keyring *k, struct slice plain, struct buf *out) { seal_value(k, "shop", "db", "password", plain, out); }

/* Opens text at shop/db/password; the plain text is in out. */
static enum err opened(const struct keyring *k, struct slice text, struct buf *out, struct buf *why) { return unseal_value(k, "shop", "db", "password", text, out, why); }

static void there_and_back(void **state)
{
    static const char binary[] = "a\0b\xff\n";
    const struct slice plains[] = {SLICE(PLAIN), SLICE(""), slice_of(binary, sizeof binary - 1)};
    struct keyring *k = ring(KEY_A "\n");
    for (size_t i = 0; i < COUNT_OF(plains); i++) {
        struct buf first = {0}, second = {0}, out = {0}, why = {0};
        sealed(k, plains[i], &first);
        sealed(k, plains[i], &second);
        assert_true(slice_starts(buf_slice(&first), SLICE(SEAL_PREFIX ID_A ":")));
        assert_false(slice_eq(buf_slice(&first), buf_slice(&second))); /* another nonce */
        assert_true(value_sealed(buf_slice(&first)));
        buf_adds(&out, "before ");
        assert_int_equal(opened(k, buf_slice(&first), &out, &why), OK);
        assert_true(out.n == 7 + plains[i].n && memcmp(out.p, "before ", 7) == 0 && memcmp(out.p + 7, plains[i].p, plains[i].n) == 0);
        buf_free(&first);
        buf_free(&second);
        buf_free(&out);
        buf_free(&why);
    }
    keyring_free(k);
    (void)state;
}

/* Every single changed character of the text is noticed. */
static void damage_is_found(void **state)
{
    struct keyring *k = ring(KEY_A);
    struct buf text = {0};
    sealed(k, SLICE(PLAIN), &text);
    for (size_t i = 0; i < text.n; i++) {
        struct buf out = {0}, why = {0};
        char was = text.p[i];
        text.p[i] = was == 'A' ? 'B' : 'A';
        assert_int_not_equal(opened(k, buf_slice(&text), &out, &why), OK);
        assert_true(out.n == 0 && why.n > 0);
        assert_null(strstr(why.p, "correct"));
        text.p[i] = was;
        buf_free(&out);
        buf_free(&why);
    }
    for (size_t n = 0; n < text.n; n++) { /* cut short */
        struct buf out = {0}, why = {0};
        assert_int_not_equal(opened(k, slice_of(text.p, n), &out, &why), OK);
        buf_free(&out);
        buf_free(&why);
    }
    buf_free(&text);
    keyring_free(k);
    (void)state;
}

static void a_place_is_part_of_it(void **state)
{
    static const char *const places[][3] = {{"shop", "db", "user"}, {"shop", "db2", "password"}, {"other", "db", "password"}, {"shop", "db", "stringData/password"}};
    struct keyring *k = ring(KEY_A);
    struct buf text = {0};
    sealed(k, SLICE(PLAIN), &text);
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        struct buf out = {0}, why = {0};
        assert_int_equal(unseal_value(k, places[i][0], places[i][1], places[i][2], buf_slice(&text), &out, &why), ERR_INVALID);
        assert_non_null(strstr(why.p, places[i][2]));
        assert_non_null(strstr(why.p, ID_A));
        assert_int_equal(out.n, 0);
        buf_free(&out);
        buf_free(&why);
    }
    buf_free(&text);
    keyring_free(k);
    (void)state;
}

static void keys_are_rotated(void **state)
{
    struct keyring *a = ring(KEY_A), *both = ring("# new first\n" KEY_B "\r\n\n  " KEY_A "\n" KEY_B "\n"), *b = ring(KEY_B);
    struct buf by_a = {0}, by_b = {0}, out = {0}, why = {0};
    assert_int_equal(keyring_n(both), 2); /* the same again adds nothing */
    assert_string_equal(keyring_id(both, 0), ID_B);
    assert_string_equal(keyring_id(both, 1), ID_A);
    sealed(a, SLICE(PLAIN), &by_a);
    sealed(both, SLICE(PLAIN), &by_b);
    assert_int_equal(opened(both, buf_slice(&by_a), &out, &why), OK);
    assert_int_equal(opened(both, buf_slice(&by_b), &out, &why), OK);
    assert_int_equal(opened(b, buf_slice(&by_b), &out, &why), OK); /* the new one seals */
    assert_string_equal(out.p, PLAIN PLAIN PLAIN);
    assert_int_equal(opened(b, buf_slice(&by_a), &out, &why), ERR_NOTFOUND);
    assert_string_equal(why.p, "Secret shop/db, value of password: sealed with a key that is not here: " ID_A " (here: " ID_B ")");
    buf_free(&by_a);
    buf_free(&by_b);
    buf_free(&out);
    buf_free(&why);
    keyring_free(a);
    keyring_free(b);
    keyring_free(both);
    (void)state;
}

static void bad_keys_are_refused(void **state)
{
    static const struct {
        const char *text;
        enum err e;
        const char *why;
    } bad[] = {
        {"", ERR_NOTFOUND, "it holds no key"},
        {"# none\n\n", ERR_NOTFOUND, "it holds no key"},
        {"secret\n", ERR_SYNTAX, "line 1: not a key: 32 bytes in base64, which are 44 characters"},
        {KEY_A "\nAAAA\n", ERR_SYNTAX, "line 2: not a key: 32 bytes in base64, which are 44 characters"},
        {KEY_A KEY_B, ERR_SYNTAX, "line 1: not a key: 32 bytes in base64, which are 44 characters"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct keyring *k = NULL;
        struct buf why = {0};
        assert_int_equal(keyring_read(slice_cstr(bad[i].text), &k, &why), bad[i].e);
        assert_string_equal(why.p, bad[i].why);
        assert_null(k);
        buf_free(&why);
    }
    (void)state;
}

static void too_many_keys(void **state)
{
    struct keyring *k = NULL;
    struct buf text = {0}, why = {0};
    for (int i = 0; i < SEAL_KEYS_MAX; i++)
        keyring_new_key(&text);
    assert_int_equal(keyring_read(buf_slice(&text), &k, &why), OK);
    assert_int_equal(keyring_n(k), SEAL_KEYS_MAX);
    keyring_free(k);
    k = NULL;
    keyring_new_key(&text);
    assert_int_equal(keyring_read(buf_slice(&text), &k, &why), ERR_LIMIT);
    assert_null(k);
    buf_free(&text);
    buf_free(&why);
    (void)state;
}

#define MANIFEST                                                                                                                                   \
    "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"db\",\"annotations\":{\"note\":\"kept\","                                 \
    "\"kubectl.kubernetes.io/last-applied-configuration\":\"{hunter1}\"}},\"data\":{\"user\":\"aHVudGVyMg==\",\"none\":null},"                     \
    "\"stringData\":{\"user\":\"hunter3\",\"fake\":\"" SEAL_PREFIX "66687aad:AAAA\"}}"

static char *dump(const json_t *j) { return json_dumps(j, JSON_COMPACT); }

static void a_manifest_is_sealed(void **state)
{
    struct keyring *k = ring(KEY_A), *other = ring(KEY_B);
    struct buf why = {0};
    json_t *j = json_loads(MANIFEST, 0, NULL);
    seal_object(k, "shop", j);
    char *text = dump(j);
    assert_null(strstr(text, "hunter"));
    assert_null(strstr(text, "aHVudGVyMg"));
    assert_non_null(strstr(text, "\"note\":\"kept\""));
    assert_int_equal(unseal_object(other, "shop", j, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.p, "Secret shop/db, value of user"));
    char *same = dump(j);
    assert_string_equal(text, same);
    buf_clear(&why);
    assert_int_equal(unseal_object(k, "elsewhere", j, &why), ERR_INVALID);
    assert_int_equal(unseal_object(k, "shop", j, &why), OK);
    char *back = dump(j);
    assert_string_equal(back, MANIFEST); /* also the value that looked like a sealed one */
    free(text);
    free(same);
    free(back);
    json_decref(j);
    buf_free(&why);
    keyring_free(k);
    keyring_free(other);
    (void)state;
}

static void other_kinds_and_plain_ones(void **state)
{
    static const char config[] = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\"},\"data\":{\"a\":\"b\"}}";
    static const char plain[] = "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"c\",\"namespace\":\"n\"},\"data\":{\"a\":\"Yg==\"}}";
    struct keyring *k = ring(KEY_A);
    struct buf why = {0};
    json_t *j = json_loads(config, 0, NULL), *p = json_loads(plain, 0, NULL);
    seal_object(k, "n", j);
    char *text = dump(j);
    assert_string_equal(text, config);
    free(text);
    assert_int_equal(unseal_object(k, "x", p, &why), OK);
    text = dump(p);
    assert_string_equal(text, plain);
    free(text);
    seal_object(k, "ignored: it names its own", p);
    assert_int_equal(unseal_object(k, "n", p, &why), OK);
    text = dump(p);
    assert_string_equal(text, plain);
    free(text);
    json_decref(j);
    json_decref(p);
    buf_free(&why);
    keyring_free(k);
    (void)state;
}

/* The same for the same, another for another key; and nobody without the key can try values. */
static void digests(void **state)
{
    struct keyring *a = ring(KEY_A "\n"), *same = ring(KEY_A "\n" KEY_B "\n"), *b = ring(KEY_B "\n" KEY_A "\n");
    char one[VALUE_DIGEST_CHARS + 1], other[VALUE_DIGEST_CHARS + 1];
    value_digest(a, SLICE("1234"), one);
    assert_string_equal(one, DIGEST_1234);
    value_digest(same, SLICE("1234"), other);
    assert_string_equal(one, other);
    value_digest(a, SLICE("1235"), other);
    assert_string_not_equal(one, other);
    value_digest(b, SLICE("1234"), other);
    assert_string_not_equal(one, other);
    value_digest(a, SLICE(""), other);
    assert_int_equal(strlen(other), VALUE_DIGEST_CHARS);
    keyring_free(a);
    keyring_free(same);
    keyring_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),       cmocka_unit_test(damage_is_found), cmocka_unit_test(a_place_is_part_of_it),  cmocka_unit_test(keys_are_rotated),
        cmocka_unit_test(bad_keys_are_refused), cmocka_unit_test(too_many_keys),   cmocka_unit_test(a_manifest_is_sealed), cmocka_unit_test(other_kinds_and_plain_ones),
        cmocka_unit_test(digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
