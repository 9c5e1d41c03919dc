/* etcd_test.c - etcd's messages and gRPC's frames: known bytes, what is refused, limits. */
#include "etcd.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct arena A;

static int setup(void **state)
{
    arena_init(&A, MEM_MISC, 4096);
    return 0;
}

static int teardown(void **state)
{
    arena_fini(&A);
    return 0;
}

static void *read_ok(const ProtobufCMessageDescriptor *d, struct slice bytes)
{
    ProtobufCMessage *m = NULL;
    assert_int_equal(etcd_read(d, &A, bytes, &m), OK);
    return m;
}

static enum err read_err(const ProtobufCMessageDescriptor *d, struct slice bytes)
{
    ProtobufCMessage *m = NULL;
    enum err e = etcd_read(d, &A, bytes, &m);
    assert_true(e == OK || m == NULL);
    return e;
}

/* The bytes that Go's client sends, by the protocol's rules: keys are number << 3 | type. */
static void test_known_bytes(void **state)
{
    Etcd__PutRequest *put = read_ok(&etcd__put_request__descriptor, SLICE("\x0a\3foo\x12\3bar\x18\x07\x20\1"));
    assert_true(slice_is(etcd_slice(put->key), "foo") && slice_is(etcd_slice(put->value), "bar"));
    assert_int_equal(put->lease, 7);
    assert_true(put->prev_kv && !put->ignore_value && !put->ignore_lease);

    struct buf b = {0};
    Etcd__RangeResponse resp = ETCD__RANGE_RESPONSE__INIT;
    Etcd__ResponseHeader header = ETCD__RESPONSE_HEADER__INIT;
    Etcd__KeyValue kv = ETCD__KEY_VALUE__INIT, *kvs[] = {&kv};
    header.revision = 300;
    kv.key = etcd_data(SLICE("k"));
    kv.create_revision = kv.mod_revision = 2;
    kv.version = 1;
    kv.lease = -1;
    resp.header = &header;
    resp.kvs = kvs;
    resp.n_kvs = 1;
    resp.count = 1;
    etcd_write_frame(&resp.base, &b);
    static const char want[] = "\0\0\0\0\x1d\x0a\3\x18\xac\2\x12\x14\x0a\1k\x10\2\x18\2\x20\1\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\x20\1";
    assert_int_equal(b.n, sizeof want - 1);
    assert_memory_equal(b.p, want, b.n);
    assert_int_equal(b.p[b.n], 0);
    buf_free(&b);
}

static void test_empty(void **state)
{
    Etcd__RangeRequest *r = read_ok(&etcd__range_request__descriptor, SLICE(""));
    assert_int_equal(r->key.len, 0);
    assert_int_equal(r->limit, 0);
    struct buf b = {0};
    etcd_write(&r->base, &b);
    assert_int_equal(b.n, 0);
    buf_free(&b);
    Etcd__WatchRequest *w = read_ok(&etcd__watch_request__descriptor, SLICE("\x1a\0"));
    assert_int_equal(w->request_union_case, ETCD__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST);
    w = read_ok(&etcd__watch_request__descriptor, SLICE(""));
    assert_int_equal(w->request_union_case, ETCD__WATCH_REQUEST__REQUEST_UNION__NOT_SET);
}

/* if version("a") == 0 and value("b") > "x" then { put } else { get, nested transaction } */
static void txn_write(struct buf *b)
{
    Etcd__Compare c1 = ETCD__COMPARE__INIT, c2 = ETCD__COMPARE__INIT, *compares[] = {&c1, &c2};
    Etcd__RequestOp o1 = ETCD__REQUEST_OP__INIT, o2 = ETCD__REQUEST_OP__INIT, o3 = ETCD__REQUEST_OP__INIT;
    Etcd__RequestOp *then[] = {&o1}, *otherwise[] = {&o2, &o3};
    Etcd__PutRequest put = ETCD__PUT_REQUEST__INIT;
    Etcd__RangeRequest get = ETCD__RANGE_REQUEST__INIT;
    Etcd__TxnRequest txn = ETCD__TXN_REQUEST__INIT, inner = ETCD__TXN_REQUEST__INIT;
    c1.key = etcd_data(SLICE("a"));
    c1.target_union_case = ETCD__COMPARE__TARGET_UNION_VERSION;
    c2.key = etcd_data(SLICE("b"));
    c2.range_end = etcd_data(SLICE("c"));
    c2.result = ETCD__COMPARE__COMPARE_RESULT__GREATER;
    c2.target = ETCD__COMPARE__COMPARE_TARGET__VALUE;
    c2.target_union_case = ETCD__COMPARE__TARGET_UNION_VALUE;
    c2.value = etcd_data(SLICE("x"));
    put.key = get.key = etcd_data(SLICE("a"));
    o1.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_PUT;
    o1.request_put = &put;
    o2.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE;
    o2.request_range = &get;
    o3.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_TXN;
    o3.request_txn = &inner;
    txn.compare = compares;
    txn.n_compare = 2;
    txn.success = then;
    txn.n_success = 1;
    txn.failure = otherwise;
    txn.n_failure = 2;
    etcd_write(&txn.base, b);
}

static void test_txn(void **state)
{
    struct buf b = {0};
    txn_write(&b);
    Etcd__TxnRequest *t = read_ok(&etcd__txn_request__descriptor, buf_slice(&b));
    assert_int_equal(t->n_compare, 2);
    assert_int_equal(t->compare[0]->target_union_case, ETCD__COMPARE__TARGET_UNION_VERSION); /* said though it is 0 */
    assert_int_equal(t->compare[1]->result, ETCD__COMPARE__COMPARE_RESULT__GREATER);
    assert_true(slice_is(etcd_slice(t->compare[1]->value), "x") && slice_is(etcd_slice(t->compare[1]->range_end), "c"));
    assert_int_equal(t->n_success, 1);
    assert_true(slice_is(etcd_slice(t->success[0]->request_put->key), "a"));
    assert_int_equal(t->n_failure, 2);
    assert_int_equal(t->failure[1]->request_case, ETCD__REQUEST_OP__REQUEST_REQUEST_TXN);
    assert_int_equal(t->failure[1]->request_txn->n_compare, 0);
    buf_free(&b);
}

/* Damage: every prefix in a block of exactly that size, and every byte changed. Nothing but OK, SYNTAX and LIMIT comes of it. */
static void test_damage(void **state)
{
    struct buf b = {0};
    txn_write(&b);
    size_t refused = 0;
    for (size_t n = 0; n < b.n; n++) {
        char *part = mem_strndup(MEM_MISC, b.p, n);
        refused += read_err(&etcd__txn_request__descriptor, slice_of(part, n)) == ERR_SYNTAX;
        mem_free(part);
    }
    assert_true(refused > b.n / 2); /* some end where a field ends */
    for (size_t i = 0; i < b.n * 8; i++) {
        b.p[i / 8] ^= (char)(1 << i % 8);
        enum err e = read_err(&etcd__txn_request__descriptor, buf_slice(&b));
        assert_true(e == OK || e == ERR_SYNTAX || e == ERR_LIMIT);
        b.p[i / 8] ^= (char)(1 << i % 8);
    }
    buf_free(&b);
}

static void test_refused(void **state)
{
    const ProtobufCMessageDescriptor *d = &etcd__put_request__descriptor;
    assert_int_equal(read_err(d, SLICE("\x0a\5foo")), ERR_SYNTAX);                                      /* longer than the bytes */
    assert_int_equal(read_err(d, SLICE("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\1")), ERR_SYNTAX);     /* far longer */
    assert_int_equal(read_err(d, SLICE("\x02\1x")), ERR_SYNTAX);                                        /* field 0 */
    assert_int_equal(read_err(d, SLICE("\x0b\x0c")), ERR_SYNTAX);                                       /* a group */
    assert_int_equal(read_err(d, SLICE("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1")), ERR_SYNTAX); /* a varint without end */
    assert_int_equal(read_err(d, SLICE("\x0d" "abc")), ERR_SYNTAX);                                     /* a fixed32 cut short */
    assert_int_equal(read_err(d, SLICE("\x0d" "abcd")), ERR_SYNTAX);                                    /* key of a type that it has not */
    assert_int_equal(read_err(d, SLICE("\xa2\6\1x\x0a\1k")), OK);                                       /* unknown: field 100 */
}

/* Transactions in each other, each the failure of the one around it; the innermost is empty. */
static void nest(struct buf *b, int txns)
{
    struct buf inner = {0};
    for (int i = 0; i < txns; i++) {
        struct buf op = {0}, txn = {0};
        for (int level = 0; level < 2; level++) { /* RequestOp.request_txn = 4, TxnRequest.failure = 3 */
            struct buf *from = level ? &op : &inner, *to = level ? &txn : &op;
            buf_addc(to, level ? 0x1a : 0x22);
            for (size_t n = from->n; ; n >>= 7) {
                buf_addc(to, (char)(n >= 0x80 ? (n & 0x7f) | 0x80 : n));
                if (n < 0x80)
                    break;
            }
            buf_add_slice(to, buf_slice(from));
        }
        buf_free(&inner);
        buf_free(&op);
        inner = txn;
    }
    *b = inner;
}

static void test_nesting(void **state)
{
    struct buf b;
    int most = (ETCD_NESTING_MAX - 1) / 2;
    nest(&b, most);
    Etcd__TxnRequest *t = read_ok(&etcd__txn_request__descriptor, buf_slice(&b));
    int depth = 0;
    for (; t->n_failure; depth++)
        t = t->failure[0]->request_txn;
    assert_int_equal(depth, most);
    buf_free(&b);
    nest(&b, most + 1);
    assert_int_equal(read_err(&etcd__txn_request__descriptor, buf_slice(&b)), ERR_LIMIT);
    buf_free(&b);
    nest(&b, 3000); /* a recursion would feel it */
    assert_int_equal(read_err(&etcd__txn_request__descriptor, buf_slice(&b)), ERR_LIMIT);
    buf_free(&b);
}

/* Two bytes each become a struct each: the bytes of the arena are what is limited. */
static void test_decode_limit(void **state)
{
    struct buf b = {0};
    while (b.n < ETCD_REQUEST_BYTES_MAX)
        buf_add(&b, "\x0a\0", 2);
    assert_int_equal(read_err(&etcd__txn_request__descriptor, buf_slice(&b)), ERR_LIMIT);
    b.n = 2000;
    Etcd__TxnRequest *t = read_ok(&etcd__txn_request__descriptor, buf_slice(&b));
    assert_int_equal(t->n_compare, 1000);
    for (size_t max = 0, ok = 0; !ok; max += 97) { /* whichever allocation is refused */
        ProtobufCMessage *m = NULL;
        enum err e = etcd_read_max(&etcd__txn_request__descriptor, &A, slice_of(b.p, 40), max, &m);
        assert_true(e == (m ? OK : ERR_LIMIT));
        ok = m != NULL;
    }
    buf_free(&b);
}

static void test_frames(void **state)
{
    struct slice s = SLICE("\0\0\0\0\2ab\0\0\0\0\0\0\0\0"), msg;
    assert_int_equal(grpc_frame_next(&s, 2, &msg), OK);
    assert_true(slice_is(msg, "ab"));
    assert_int_equal(grpc_frame_next(&s, 2, &msg), OK);
    assert_int_equal(msg.n, 0);
    assert_int_equal(grpc_frame_next(&s, 2, &msg), ERR_AGAIN);
    assert_int_equal(s.n, 3);
    s = SLICE("\0\0\0\0\3abc");
    assert_int_equal(grpc_frame_next(&s, 2, &msg), ERR_LIMIT);
    assert_int_equal(msg.n, 3);
    s.n--;
    assert_int_equal(grpc_frame_next(&s, 3, &msg), ERR_AGAIN);
    s = SLICE("\1\0\0\0\3abc");
    assert_int_equal(grpc_frame_next(&s, 3, &msg), ERR_UNSUPPORTED);
    s = SLICE("\2");
    assert_int_equal(grpc_frame_next(&s, 3, &msg), ERR_SYNTAX);
    s = SLICE("\0\xff\xff\xff\xff");
    assert_int_equal(grpc_frame_next(&s, ETCD_FRAME_BYTES_MAX, &msg), ERR_LIMIT);
    struct buf b = {0};
    buf_adds(&b, "x");
    size_t at = grpc_frame_begin(&b);
    for (int i = 0; i < 300; i++)
        buf_addc(&b, 'm');
    grpc_frame_end(&b, at);
    assert_memory_equal(b.p, "x\0\0\0\1\x2cm", 7);
    buf_free(&b);
}

static void test_timeouts(void **state)
{
    static const struct {
        const char *text;
        enum err e;
        uint64_t ms;
    } cases[] = {{"1S", OK, 1000},          {"4999m", OK, 4999},      {"1n", OK, 1},        {"1000001u", OK, 1001}, {"2M", OK, 120000},
                 {"99999999H", OK, 359999996400000}, {"0m", OK, 0}, {"123456789m", ERR_SYNTAX, 0}, {"S", ERR_SYNTAX, 0}, {"1", ERR_SYNTAX, 0},
                 {"1s", ERR_SYNTAX, 0}, {"", ERR_SYNTAX, 0}, {"-1S", ERR_SYNTAX, 0}, {"1.5S", ERR_SYNTAX, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t ms = 0;
        assert_int_equal(grpc_timeout_parse(slice_cstr(cases[i].text), &ms), cases[i].e);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void test_message(void **state)
{
    struct buf b = {0};
    char out[32];
    grpc_message_add(&b, SLICE("50% \xc3\xa9\n~"));
    assert_string_equal(b.p, "50%25 %C3%A9%0A~");
    assert_int_equal(grpc_message_read(buf_slice(&b), out, sizeof out), 8);
    assert_memory_equal(out, "50% \xc3\xa9\n~", 8);
    assert_int_equal(grpc_message_read(SLICE("a%2"), out, sizeof out), 3);
    assert_memory_equal(out, "a%2", 3);
    assert_int_equal(grpc_message_read(SLICE("%zz%c3"), out, sizeof out), 4);
    assert_memory_equal(out, "%zz\xc3", 4);
    assert_int_equal(grpc_message_read(buf_slice(&b), out, 3), 3);
    buf_free(&b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_known_bytes), T(test_empty), T(test_txn), T(test_damage), T(test_refused), T(test_nesting),
                                       T(test_decode_limit), T(test_frames), T(test_timeouts), T(test_message)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
