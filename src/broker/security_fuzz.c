/* security_fuzz.c - bytes that strangers send before anybody knows them, and a file that somebody wrote by hand.
 *
 * The first byte says what the others are: 's', 'S' a SCRAM conversation: the client's first message, a NUL, its final one; 'f' a security.json. Nothing may crash, no proof is right by
 * chance, and a file that is taken is written and read again as the same.
 */
#include "security_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void scram_fuzz(struct slice in, enum scram_kind k)
{
    struct scram x = {.kind = k};
    struct scram_cred cred = {.iterations = 4096, .salt_n = 4, .key_n = (uint8_t)scram_key_bytes(k)};
    struct buf challenge = {0}, end = {0};
    struct slice final, first = slice_cut(in, 0, &final);
    memset(cred.stored_key, 7, sizeof cred.stored_key);
    if (scram_first(&x, first) == OK) {
        MUST(x.user_n > 0 && x.user_n <= SCRAM_USER_MAX && x.user[x.user_n] == 0);
        scram_challenge(&x, &cred, true, SLICE("0123456789abcdef"), &challenge);
        MUST(scram_final(&x, final, &end) != OK && end.n == 0);
    }
    buf_free(&challenge);
    buf_free(&end);
    scram_fini(&x);
}

static void file_fuzz(struct slice in)
{
    struct secdb *db, *again;
    struct buf why = {0}, first = {0}, second = {0};
    if (secdb_read(in, &db, &why) == OK) {
        struct broker_caller who = {.principal = SLICE("User:a"), .host = SLICE("1.2.3.4")};
        bool by_user, by_client;
        secdb_write(db, &first);
        MUST(secdb_read(buf_slice(&first), &again, &why) == OK);
        secdb_write(again, &second);
        MUST(slice_eq(buf_slice(&first), buf_slice(&second)));
        again->index = acl_index_new(again);
        (void)acl_decide(again, &who, false, ACL_READ, ACL_TOPIC, SLICE("orders"));
        (void)quota_rate(again, QUOTA_FETCH, SLICE("a"), SLICE("b"), &by_user, &by_client);
        secdb_unref(db);
        secdb_unref(again);
    } else {
        MUST(why.n > 0);
    }
    buf_free(&why);
    buf_free(&first);
    buf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct slice in = slice_of((const char *)data, n);
    if (n == 0)
        return 0;
    struct slice rest = slice_of(in.p + 1, n - 1);
    if (in.p[0] == 'f')
        file_fuzz(rest);
    else if (in.p[0] == 's' || in.p[0] == 'S')
        scram_fuzz(rest, in.p[0] == 's' ? SCRAM_SHA256 : SCRAM_SHA512);
    return 0;
}
