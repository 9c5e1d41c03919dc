/* secrets_key_test.c - keys from files and commands, and every way in which they can be wrong. */
#include "secrets_key.h"

#include <setjmp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt.h"

#include <cmocka.h>

#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define ID_A "66687aad"

static char dir[] = "/tmp/weir-secrets-key-XXXXXX";

static int dir_make(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static void path_of(const char *name, struct buf *out) { buf_printf(out, "%s/%s", dir, name); }

static int dir_remove(void **state)
{
    static const char *const names[] = {"secrets.key", "own.key"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct buf path = {0};
        path_of(names[i], &path);
        (void)unlink(path.p);
        buf_free(&path);
    }
    (void)state;
    return rmdir(dir);
}

static void fails(const char *file, const char *command, enum err e, const char *why_part)
{
    struct keyring *k = NULL;
    struct buf why = {0};
    assert_int_equal(secrets_key_open(dir, file, command, false, &k, &why), e);
    assert_null(k);
    assert_non_null(why.p);
    assert_non_null(strstr(why.p, why_part));
    assert_null(strstr(why.p, "AAAA"));
    buf_free(&why);
}

static struct keyring *opens(const char *file, const char *command)
{
    struct keyring *k = NULL;
    struct buf why = {0};
    assert_int_equal(secrets_key_open(dir, file, command, false, &k, &why), OK);
    assert_int_equal(why.n, 0);
    buf_free(&why);
    return k;
}

static void the_first_start_makes_one(void **state)
{
    struct buf path = {0};
    struct stat st;
    path_of("secrets.key", &path);
    struct keyring *first = opens("", ""), *again = opens("", "");
    assert_string_equal(keyring_id(first, 0), keyring_id(again, 0));
    assert_int_equal(stat(path.p, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    keyring_free(first);
    keyring_free(again);
    assert_int_equal(chmod(path.p, 0640), 0);
    fails("", "", ERR_PERM, "open to others (mode 0640)");
    assert_int_equal(chmod(path.p, 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path.p, 12345, 12345), 0);
        fails("", "", ERR_PERM, "belongs to user 12345");
        assert_int_equal(chown(path.p, 0, 0), 0);
    }
    keyring_free(opens("", ""));
    buf_free(&path);
    (void)state;
}

/* Each of several nodes with a key of its own would seal what the others can't open. */
static void nodes_that_share_a_store(void **state)
{
    struct buf path = {0}, why = {0};
    struct keyring *k = NULL;
    path_of("secrets.key", &path);
    (void)unlink(path.p);
    assert_int_equal(secrets_key_open(dir, "", "", true, &k, &why), ERR_NOTFOUND);
    assert_true(slice_starts(buf_slice(&why), SLICE("nodes that share a store need the same key for Secrets")));
    assert_null(k);
    assert_int_not_equal(access(path.p, F_OK), 0);
    keyring_free(opens("", ""));
    buf_clear(&why);
    assert_int_equal(secrets_key_open(dir, "", "", true, &k, &why), OK); /* it was put there */
    keyring_free(k);
    buf_free(&path);
    buf_free(&why);
    (void)state;
}

static void a_file_of_the_users(void **state)
{
    struct buf path = {0};
    char big[SECRETS_KEY_BYTES_MAX + 1];
    path_of("own.key", &path);
    (void)unlink(path.p);
    fails(path.p, "", ERR_NOTFOUND, "is not there"); /* and none is made */
    assert_int_not_equal(access(path.p, F_OK), 0);
    assert_int_equal(file_replace(path.p, "", 0, 0600), OK);
    fails(path.p, "", ERR_INVALID, "it holds no key");
    assert_int_equal(file_replace(path.p, KEY_A "\nAAAA\n", sizeof KEY_A "\nAAAA\n" - 1, 0600), OK);
    fails(path.p, "", ERR_SYNTAX, "line 2: not a key");
    memset(big, '#', sizeof big);
    assert_int_equal(file_replace(path.p, big, sizeof big, 0600), OK);
    fails(path.p, "", ERR_PERM, "4096 are the most");
    fails(dir, "", ERR_PERM, "is no regular file");
    assert_int_equal(file_replace(path.p, KEY_A, sizeof KEY_A - 1, 0600), OK);
    struct keyring *k = opens(path.p, "");
    assert_string_equal(keyring_id(k, 0), ID_A);
    keyring_free(k);
    buf_free(&path);
    (void)state;
}

static void a_command(void **state)
{
    struct keyring *k = opens("", "printf '%s\\n' " KEY_A);
    assert_string_equal(keyring_id(k, 0), ID_A);
    keyring_free(k);
    fails("", "exit 3", ERR_INVALID, "exit status 3");
    fails("", "kill -9 $$", ERR_INVALID, "signal 9");
    fails("", "true", ERR_NOTFOUND, "it holds no key");
    fails("", "yes " KEY_A, ERR_LIMIT, "more than 4096 bytes");
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_first_start_makes_one), cmocka_unit_test(nodes_that_share_a_store), cmocka_unit_test(a_file_of_the_users), cmocka_unit_test(a_command)};
    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
