/* base_test.c - unit tests of base: each function, its edges, and the faults that can be injected. */
#include "base.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ASSERT_SLICE(s, lit)                                             \
    do {                                                                 \
        struct slice slice_ = (s);                                       \
        assert_int_equal(slice_.n, sizeof(lit) - 1);                     \
        assert_true(slice_is(slice_, lit));                              \
    } while (0)

/* ---- results and assertions ---------------------------------------------------------------------------------------- */

static void test_err_text(void **state)
{
    assert_string_equal(err_text(OK), "ok");
    for (int e = 0; e < ERR_COUNT; e++)
        assert_true(err_text((enum err)e)[0]);
    assert_string_equal(err_text((enum err)ERR_COUNT), "unknown error");
    assert_string_equal(err_text((enum err)-1), "unknown error");
}

static void test_err_from_errno(void **state)
{
    static const struct { int from; enum err to; } cases[] = {
        {0, OK}, {ENOMEM, ERR_NOMEM}, {EAGAIN, ERR_AGAIN}, {EPIPE, ERR_CLOSED}, {ECONNRESET, ERR_RESET},
        {ECONNREFUSED, ERR_REFUSED}, {EHOSTUNREACH, ERR_UNREACH}, {ETIMEDOUT, ERR_TIMEOUT}, {EMFILE, ERR_LIMIT},
        {EINVAL, ERR_INVALID}, {ENOENT, ERR_NOTFOUND}, {EEXIST, ERR_EXISTS}, {EADDRINUSE, ERR_INUSE}, {EACCES, ERR_PERM},
        {ENOSPC, ERR_NOSPACE}, {EAFNOSUPPORT, ERR_UNSUPPORTED}, {EIO, ERR_IO}, {99999, ERR_IO},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(err_from_errno(cases[i].from), cases[i].to);
}

/* Runs die() in a child; returns its wait status and what it wrote to stderr. */
static int run_dying(void (*die)(void), char *text, size_t text_n)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        die();
        _exit(0);
    }
    close(fds[1]);
    size_t n = 0;
    for (ssize_t r; n < text_n - 1 && (r = read(fds[0], text + n, text_n - 1 - n)) > 0;)
        n += (size_t)r;
    text[n] = '\0';
    close(fds[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void die_of_must(void) { MUST(1 + 1 == 3); }
static void die_of_double_free(void)
{
    char *p = mem_new(MEM_MISC, 64);
    memset(p - 16, 0, 16); /* as an underrun would */
    mem_free(p);
}
static void die_of_size(void) { (void)!mem_new(MEM_MISC, SIZE_MAX - 4); }

static void test_must(void **state)
{
    char text[2048];
    int status = run_dying(die_of_must, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "1 + 1 == 3"));
    assert_non_null(strstr(text, "die_of_must"));
    assert_non_null(strstr(text, "base_test.c:"));
    MUST(1 + 1 == 2);

    status = run_dying(die_of_double_free, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "MEM_MAGIC"));
}

/* ---- slices ----------------------------------------------------------------------------------------------------------- */

static void test_slice_compare(void **state)
{
    struct slice none = {0};
    assert_true(slice_eq(none, SLICE("")));
    assert_true(slice_ieq(SLICE("Content-Length"), SLICE("cONTENT-lENGTH")));
    assert_false(slice_ieq(SLICE("a"), SLICE("ab")));
    assert_false(slice_ieq(SLICE("@"), SLICE("`"))); /* 0x40 and 0x60 differ by the case bit but are no letters */
    assert_true(slice_starts(SLICE("abc"), SLICE("ab")) && slice_starts(SLICE("abc"), none) && slice_starts(none, none));
    assert_false(slice_starts(SLICE("a"), SLICE("ab")));
    assert_true(slice_ends(SLICE("abc"), SLICE("bc")) && slice_ends(none, none));
    assert_false(slice_ends(SLICE("abc"), SLICE("BC")) || slice_ends(SLICE("c"), SLICE("bc")));
    assert_true(slice_iends(SLICE("x.Example.COM"), SLICE(".example.com")));
    assert_false(slice_iends(SLICE("com"), SLICE(".com")));
}

static void test_slice_cut(void **state)
{
    ASSERT_SLICE(slice_trim(SLICE(" \t a b \t")), "a b");
    ASSERT_SLICE(slice_trim(SLICE(" \t ")), "");
    ASSERT_SLICE(slice_trim((struct slice){0}), "");
    assert_int_equal(slice_find(SLICE("abcb"), 'b'), 1);
    assert_int_equal(slice_find(SLICE("abc"), 'x'), -1);
    assert_int_equal(slice_find((struct slice){0}, 'x'), -1);

    struct slice rest;
    ASSERT_SLICE(slice_cut(SLICE("a,b,c"), ',', &rest), "a");
    ASSERT_SLICE(rest, "b,c");
    ASSERT_SLICE(slice_cut(rest, ',', &rest), "b"); /* in place */
    ASSERT_SLICE(slice_cut(rest, ',', &rest), "c");
    ASSERT_SLICE(rest, "");
    ASSERT_SLICE(slice_cut(SLICE(",x"), ',', &rest), "");
    ASSERT_SLICE(rest, "x");
}

static void test_slice_u64(void **state)
{
    uint64_t v = 7;
    assert_int_equal(slice_u64(SLICE(""), 9, &v), ERR_SYNTAX);
    assert_int_equal(slice_u64(SLICE("+1"), 9, &v), ERR_SYNTAX);
    assert_int_equal(slice_u64(SLICE("1 "), 9, &v), ERR_SYNTAX);
    assert_int_equal(slice_u64(SLICE("0x1"), 9, &v), ERR_SYNTAX);
    assert_int_equal(slice_u64(SLICE("10"), 9, &v), ERR_LIMIT);
    assert_int_equal(slice_u64(SLICE("18446744073709551616"), UINT64_MAX, &v), ERR_LIMIT);
    assert_int_equal(slice_u64(SLICE("99999999999999999999999"), UINT64_MAX, &v), ERR_LIMIT);
    assert_int_equal(slice_u64(SLICE("99999999999999999999999x"), UINT64_MAX, &v), ERR_SYNTAX);
    assert_int_equal(v, 7); /* untouched on failure */
    assert_int_equal(slice_u64(SLICE("18446744073709551615"), UINT64_MAX, &v), OK);
    assert_true(v == UINT64_MAX);
    assert_int_equal(slice_u64(SLICE("0009"), 9, &v), OK);
    assert_int_equal(v, 9);
}

static void test_hash(void **state)
{
    char bytes[80];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    /* Each length and each flipped bit gives another value, and about half of the bits change. */
    uint64_t changed = 0, tried = 0;
    for (size_t n = 1; n <= sizeof bytes; n++) {
        uint64_t h = hash_bytes(bytes, n);
        assert_true(h != hash_bytes(bytes, n - 1));
        for (size_t bit = 0; bit < n * 8; bit++) {
            bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
            uint64_t other = hash_bytes(bytes, n);
            bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
            assert_true(h != other);
            changed += (uint64_t)__builtin_popcountll(h ^ other);
            tried += 64;
        }
    }
    assert_true(changed * 100 > tried * 45 && changed * 100 < tried * 55);
    uint64_t before = hash_slice(SLICE("key"));
    hash_seed(12345);
    assert_true(before != hash_slice(SLICE("key")));
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static void test_mem_counts(void **state)
{
    uint64_t bytes = mem_bytes(MEM_PLAN), count = mem_count(MEM_PLAN);
    char *p = mem_new(MEM_PLAN, 100);
    assert_true(((uintptr_t)p & 15) == 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(p[i], 0);
    assert_int_equal(mem_bytes(MEM_PLAN), bytes + 100);
    memset(p, 'x', 100);
    p = mem_grow(MEM_PLAN, p, 1000);
    assert_true(p[99] == 'x');
    assert_int_equal(mem_bytes(MEM_PLAN), bytes + 1000);
    assert_int_equal(mem_count(MEM_PLAN), count + 1);
    uint64_t api = mem_bytes(MEM_API);
    p = mem_grow(MEM_API, p, 10); /* may move to another tag */
    assert_int_equal(mem_bytes(MEM_PLAN), bytes);
    assert_int_equal(mem_bytes(MEM_API), api + 10);
    mem_free(p);
    mem_free(NULL);
    assert_int_equal(mem_bytes(MEM_API), api);
    assert_int_equal(mem_count(MEM_PLAN), count);

    void *empty = mem_new(MEM_PLAN, 0);
    assert_non_null(empty);
    mem_free(empty);
    assert_null(mem_strdup(MEM_PLAN, NULL));
    char *s = mem_strdup(MEM_PLAN, "abc"), *t = mem_strndup(MEM_PLAN, "abcdef", 2), *u = mem_strndup(MEM_PLAN, NULL, 0);
    assert_string_equal(s, "abc");
    assert_string_equal(t, "ab");
    assert_string_equal(u, "");
    mem_free(s);
    mem_free(t);
    mem_free(u);
    assert_string_equal(mem_tag_name(MEM_MANIFEST), "manifest");
    assert_string_equal(mem_tag_help(MEM_ARENA), "arenas");
}

static void test_mem_fail_nth(void **state)
{
    mem_fail_nth(3);
    for (int i = 1; i <= 5; i++) {
        void *p = mem_try(MEM_MISC, 8);
        assert_int_equal(p == NULL, i == 3);
        mem_free(p);
    }
    mem_fail_nth(1);
    void *p = mem_new(MEM_MISC, 8); /* faults are for mem_try() alone */
    assert_non_null(p);
    mem_free(p);
    mem_fail_nth(0);
    p = mem_try(MEM_MISC, 8);
    assert_non_null(p);
    mem_free(p);
    assert_null(mem_try(MEM_MISC, SIZE_MAX - 4)); /* must not wrap around */

    char text[256];
    int status = run_dying(die_of_size, text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 71);
    assert_non_null(strstr(text, "out of memory"));
}

static void test_array_grow(void **state)
{
    int *a = NULL;
    size_t n = 0, cap = 0;
    for (int i = 0; i < 1000; i++) {
        ARRAY_GROW(MEM_MISC, a, n, cap);
        a[n++] = i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(a[i], i);
    mem_free(a);
}

/* ---- arenas ---------------------------------------------------------------------------------------------------------------- */

static void test_arena(void **state)
{
    uint64_t before = mem_bytes(MEM_ARENA);
    struct arena a;
    arena_init(&a, MEM_ARENA, 1000); /* no multiple of 16, on purpose */
    char *blocks[200];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT_OF(blocks); i++) {
            size_t size = i % 41 == 40 ? 5000 : i; /* now and then one larger than a chunk */
            blocks[i] = arena_alloc(&a, size);
            assert_true(((uintptr_t)blocks[i] & 15) == 0);
            memset(blocks[i], (int)i, size);
        }
        for (size_t i = 0; i < COUNT_OF(blocks); i++)
            for (size_t k = 0; k < (i % 41 == 40 ? 5000 : i); k++)
                assert_int_equal((unsigned char)blocks[i][k], i);
        arena_reset(&a);
        assert_true(mem_bytes(MEM_ARENA) - before < 1100); /* one ordinary chunk is kept */
    }
    char *z = arena_zalloc(&a, 300);
    for (int i = 0; i < 300; i++)
        assert_int_equal(z[i], 0);
    assert_string_equal(arena_strdup(&a, "text"), "text");
    assert_null(arena_strdup(&a, NULL));
    struct slice s = arena_slice(&a, SLICE("slice"));
    ASSERT_SLICE(s, "slice");
    assert_int_equal(s.p[s.n], '\0');
    ASSERT_SLICE(arena_slice(&a, (struct slice){0}), "");
    assert_string_equal(arena_printf(&a, "%d-%s", 42, "x"), "42-x");
    arena_fini(&a);
    assert_int_equal(mem_bytes(MEM_ARENA), before);
    arena_fini(&a); /* once more does no harm */
}

static void test_arena_big_first(void **state)
{
    uint64_t before = mem_bytes(MEM_ARENA);
    struct arena a;
    arena_init(&a, MEM_ARENA, 64);
    char *big = arena_alloc(&a, 4096), *small = arena_alloc(&a, 16);
    memset(big, 1, 4096);
    memset(small, 2, 16);
    assert_int_equal(big[4095], 1);
    arena_reset(&a);
    assert_true(mem_bytes(MEM_ARENA) - before < 200); /* the big one is not kept */
    arena_fini(&a);
    assert_int_equal(mem_bytes(MEM_ARENA), before);
}

/* ---- buf ------------------------------------------------------------------------------------------------------------------------ */

static void test_wipe(void **state)
{
    char secret[8] = "hush", none[8] = {0};
    struct buf b = {0};
    mem_wipe(NULL, 0);
    mem_wipe(secret, sizeof secret);
    assert_memory_equal(secret, none, sizeof secret);
    buf_wipe(&b); /* one that never held anything */
    buf_adds(&b, "hush");
    buf_clear(&b);
    buf_wipe(&b);
    assert_true(!b.p && !b.n && !b.cap);
}

static void test_buf(void **state)
{
    struct buf b = {0};
    buf_clear(&b);
    buf_add(&b, NULL, 0);
    assert_string_equal(b.p, "");
    buf_add(&b, "abc", 3);
    buf_add_slice(&b, SLICE("def"));
    buf_add_u64(&b, 0);
    buf_add_u64(&b, UINT64_MAX);
    assert_string_equal(b.p, "abcdef018446744073709551615");
    buf_clear(&b);
    for (int i = 0; i < 500; i++)
        buf_printf(&b, "%d,", i);
    assert_int_equal(b.n, strlen(b.p));
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 400 * 4);
    assert_true(slice_ends(buf_slice(&b), SLICE("498,499,")));
    char big[300];
    memset(big, 'y', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    struct buf c = {0};
    buf_printf(&c, "%s", big); /* longer than the first block */
    assert_string_equal(c.p, big);
    size_t n;
    char *text = buf_take(&c, &n);
    assert_int_equal(n, sizeof big - 1);
    assert_true(c.p == NULL && c.n == 0 && c.cap == 0);
    mem_free(text);
    text = buf_take(&c, NULL);
    assert_string_equal(text, "");
    mem_free(text);
    buf_free(&b);
    buf_free(&b);
}

static void test_text_clean(void **state)
{
    char text[] = "a\xc3\xa9\n\x7f\xff\xe2\x82z\xe2\x82\xac\xc3";
    text_clean(text);
    assert_string_equal(text, "a\xc3\xa9?????z\xe2\x82\xac?");
    char none[] = "";
    text_clean(none);
}

static void test_json(void **state)
{
    static const struct { struct slice in; const char *out; } cases[] = {
        {{0}, "\"\""},
        {SLICE("plain"), "\"plain\""},
        {SLICE("a\"b\\c/d"), "\"a\\\"b\\\\c/d\""},
        {SLICE("\b\f\n\r\t\x01\x1f\0z\x7f"), "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000z\x7f\""},
        {SLICE("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"), "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\""},
        {SLICE("\xff"), "\"\xef\xbf\xbd\""},
        {SLICE("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\""},             /* overlong '/' */
        {SLICE("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* a surrogate */
        {SLICE("\xe2\x82"), "\"\xef\xbf\xbd\""},                         /* cut short at the end: one for both bytes */
        {SLICE("\xf0\x9f\x98" "x"), "\"\xef\xbf\xbdx\""},                /* cut short before x, which stays */
        {SLICE("\xf4\x90\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* above U+10FFFF */
        {SLICE("\xe0\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {SLICE("a\x80" "b"), "\"a\xef\xbf\xbd" "b\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        buf_add_json(&b, cases[i].in);
        assert_string_equal(b.p, cases[i].out);
        buf_free(&b);
    }
}

/* ---- table ----------------------------------------------------------------------------------------------------------------------- */

#define KEYS 20000

static struct slice key_of(char *text, int i)
{
    int n = snprintf(text, 32, "key-%d", i);
    return slice_of(text, (size_t)n);
}

static void test_table(void **state)
{
    static int values[KEYS];
    char text[32];
    uint64_t before = mem_bytes(MEM_TABLE);
    struct table t = {0};
    assert_null(table_get(&t, SLICE("x")));
    assert_null(table_del(&t, SLICE("x")));
    for (int i = 0; i < KEYS; i++)
        assert_null(table_put(&t, key_of(text, i), &values[i]));
    assert_int_equal(t.n, KEYS);
    for (int i = 0; i < KEYS; i++)
        assert_ptr_equal(table_get(&t, key_of(text, i)), &values[i]);
    assert_ptr_equal(table_put(&t, key_of(text, 5), &values[6]), &values[5]);
    assert_ptr_equal(table_put(&t, key_of(text, 5), &values[5]), &values[6]);
    for (int i = 0; i < KEYS; i += 3)
        assert_ptr_equal(table_del(&t, key_of(text, i)), &values[i]);
    for (int i = 0; i < KEYS; i++)
        assert_ptr_equal(table_get(&t, key_of(text, i)), i % 3 ? &values[i] : NULL);
    size_t seen = 0;
    for (struct table_slot *s = NULL; (s = table_next(&t, s));) {
        int *v = s->value;
        assert_true(slice_eq(slice_of(s->key, s->key_n), key_of(text, (int)(v - values))));
        (*v)++;
        seen++;
    }
    assert_int_equal(seen, t.n);
    for (int i = 0; i < KEYS; i++)
        assert_int_equal(values[i], i % 3 ? 1 : 0);
    table_fini(&t);
    assert_int_equal(mem_bytes(MEM_TABLE), before);
}

/* A small table under many puts and deletes, compared with an array: gaps close across the end of the slots, too. */
static void test_table_churn(void **state)
{
    static int values[16];
    bool present[16] = {0};
    char text[32];
    struct table t = {0};
    uint64_t r = 1;
    for (int step = 0; step < 200000; step++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        int i = (int)(r >> 60);
        struct slice key = key_of(text, i);
        void *was = r >> 40 & 1 ? table_put(&t, key, &values[i]) : table_del(&t, key);
        assert_ptr_equal(was, present[i] ? &values[i] : NULL);
        present[i] = r >> 40 & 1;
    }
    for (int i = 0; i < 16; i++)
        assert_ptr_equal(table_get(&t, key_of(text, i)), present[i] ? &values[i] : NULL);
    table_fini(&t);
}

static void test_table_odd_keys(void **state)
{
    int a, b, c;
    struct table t = {0};
    assert_null(table_put(&t, (struct slice){0}, &a)); /* the empty key is a key */
    assert_null(table_put(&t, slice_of("\0", 1), &b));
    assert_null(table_put(&t, slice_of("\0\0", 2), &c));
    assert_ptr_equal(table_get(&t, SLICE("")), &a);
    assert_ptr_equal(table_get(&t, slice_of("\0", 1)), &b);
    assert_ptr_equal(table_get(&t, slice_of("\0\0", 2)), &c);
    table_fini(&t);
}

/* ---- list ------------------------------------------------------------------------------------------------------------------------ */

struct item {
    int n;
    struct list link;
};

static void test_list(void **state)
{
    struct list head;
    list_init(&head);
    assert_true(list_empty(&head));
    struct item items[5];
    for (int i = 0; i < 5; i++) {
        items[i].n = i;
        if (i % 2)
            list_push_front(&head, &items[i].link);
        else
            list_push(&head, &items[i].link);
    }
    static const int order[] = {3, 1, 0, 2, 4};
    size_t k = 0;
    LIST_FOREACH(it, &head) {
        assert_int_equal(CONTAINER_OF(it, struct item, link)->n, order[k++]);
        list_del(it); /* while iterating, and twice */
        list_del(it);
    }
    assert_int_equal(k, 5);
    assert_true(list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_text), cmocka_unit_test(test_err_from_errno), cmocka_unit_test(test_must),
        cmocka_unit_test(test_slice_compare), cmocka_unit_test(test_slice_cut), cmocka_unit_test(test_slice_u64),
        cmocka_unit_test(test_hash), cmocka_unit_test(test_mem_counts), cmocka_unit_test(test_mem_fail_nth),
        cmocka_unit_test(test_array_grow), cmocka_unit_test(test_arena), cmocka_unit_test(test_arena_big_first),
        cmocka_unit_test(test_buf), cmocka_unit_test(test_wipe), cmocka_unit_test(test_json), cmocka_unit_test(test_text_clean), cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_churn), cmocka_unit_test(test_table_odd_keys), cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
