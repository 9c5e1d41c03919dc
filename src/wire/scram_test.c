/* scram_test.c - the client's side of SCRAM against the vector of its RFC, against the server's side, and against servers that are none.
 * The server's side by itself: ../broker/security_test.c.
 */
#include "scram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* RFC 7677 section 3. */
#define FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define CHALLENGE "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define FINAL "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SERVER "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static void test_vector(void **state)
{
    struct scram_client x = {.kind = SCRAM_SHA256};
    struct buf first = {0}, final = {0};
    uint8_t salted[SCRAM_KEY_MAX];
    scram_client_first(&x, SLICE("user"), SLICE("rOprNGfwEbeRWgbNEkqO"), &first);
    assert_string_equal(first.p, FIRST);
    assert_int_equal(scram_client_answer(&x, SLICE(CHALLENGE)), OK);
    assert_true(x.iterations == 4096 && x.salt_n == 16);
    assert_int_equal(scram_salt_password(x.kind, SLICE("pencil"), x.salt, x.salt_n, x.iterations, salted), OK);
    assert_int_equal(scram_client_final(&x, salted, &final), OK);
    assert_string_equal(final.p, FINAL);
    assert_int_equal(scram_client_verify(&x, SLICE(SERVER)), OK);
    assert_int_equal(scram_client_verify(&x, SLICE("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95H4=")), ERR_PERM);
    assert_int_equal(scram_client_verify(&x, SLICE("v=6rri")), ERR_PERM);
    assert_int_equal(scram_client_verify(&x, SLICE("e=invalid-proof")), ERR_PERM);
    assert_int_equal(scram_client_verify(&x, SLICE("")), ERR_PERM);
    buf_free(&first);
    buf_free(&final);
    scram_client_fini(&x);
}

/* Both sides, with a name that has to be escaped; password is what the client thinks it is. */
static enum err converse(enum scram_kind k, struct slice password)
{
    struct scram_client x = {.kind = k};
    struct scram server = {.kind = k};
    struct scram_cred cred = {.iterations = 5000, .salt_n = 18};
    struct buf first = {0}, challenge = {0}, final = {0}, end = {0};
    uint8_t salted[SCRAM_KEY_MAX];
    assert_int_equal(scram_salt_password(k, SLICE("right"), cred.salt, cred.salt_n, cred.iterations, salted), OK);
    assert_int_equal(scram_keys(k, salted, &cred), OK);
    scram_client_first(&x, SLICE("a=b,c"), SLICE("abc"), &first);
    assert_int_equal(scram_first(&server, buf_slice(&first)), OK);
    assert_string_equal(server.user, "a=b,c");
    scram_challenge(&server, &cred, true, SLICE("def"), &challenge);
    assert_int_equal(scram_client_answer(&x, buf_slice(&challenge)), OK);
    assert_int_equal(scram_salt_password(k, password, x.salt, x.salt_n, x.iterations, salted), OK);
    assert_int_equal(scram_client_final(&x, salted, &final), OK);
    enum err e = scram_final(&server, buf_slice(&final), &end);
    if (e == OK)
        assert_int_equal(scram_client_verify(&x, buf_slice(&end)), OK);
    buf_free(&first);
    buf_free(&challenge);
    buf_free(&final);
    buf_free(&end);
    scram_client_fini(&x);
    scram_fini(&server);
    return e;
}

static void test_both(void **state)
{
    for (int k = SCRAM_SHA256; k < SCRAM_KINDS; k++) {
        assert_int_equal(converse((enum scram_kind)k, SLICE("right")), OK);
        assert_int_equal(converse((enum scram_kind)k, SLICE("wrong")), ERR_PERM);
    }
}

/* What a server says first that a client must not go on with. */
static void test_refused(void **state)
{
    static const struct {
        const char *text;
        enum err e;
    } cases[] = {
        {"", ERR_SYNTAX}, {"e=other-error", ERR_SYNTAX}, {"r=abcd", ERR_SYNTAX}, {"r=abcd,s=", ERR_SYNTAX}, {"r=abcd,s=AAAA", ERR_SYNTAX},
        {"m=ext,r=abcd,s=AAAA,i=4096", ERR_SYNTAX}, {"r=abcd,s=AAA,i=4096", ERR_SYNTAX}, {"r=abcd,s=A*AA,i=4096", ERR_SYNTAX}, {"r=abcd,s====,i=4096", ERR_SYNTAX},
        {"r=abcd,s=AAAA,i=-1", ERR_SYNTAX}, {"r=abcd,s=AAAA,i=4096x", ERR_SYNTAX}, {"r=ab\tcd,s=AAAA,i=4096", ERR_SYNTAX},
        {"r=abc,s=AAAA,i=4096", ERR_PERM} /* nothing of its own */, {"r=xyzd,s=AAAA,i=4096", ERR_PERM}, {"r=ab,s=AAAA,i=4096", ERR_PERM},
        {"r=abcd,s=AAAA,i=4095", ERR_LIMIT}, {"r=abcd,s=AAAA,i=1", ERR_LIMIT}, {"r=abcd,s=AAAA,i=2147483647", ERR_LIMIT},
        {"r=abcd,s=AAAA,i=4096,x=ext", OK},
    };
    char salt[4 * 64] = "r=abcd,s=";
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct scram_client x = {.kind = SCRAM_SHA256};
        struct buf first = {0};
        scram_client_first(&x, SLICE("u"), SLICE("abc"), &first);
        if (scram_client_answer(&x, slice_cstr(cases[i].text)) != cases[i].e)
            fail_msg("%s", cases[i].text);
        buf_free(&first);
        scram_client_fini(&x);
    }
    memset(salt + 9, 'A', 176); /* 132 bytes */
    memcpy(salt + 9 + 176, ",i=4096", 8);
    struct scram_client x = {.kind = SCRAM_SHA256};
    struct buf first = {0};
    scram_client_first(&x, SLICE("u"), SLICE("abc"), &first);
    assert_int_equal(scram_client_answer(&x, slice_cstr(salt)), ERR_SYNTAX);
    buf_free(&first);
    scram_client_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vector), cmocka_unit_test(test_both), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
