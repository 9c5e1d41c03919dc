/* h2_test.c - both ends of HTTP/2 against each other, and the client's against frames made by hand. */
#include "h2_world_test.h"

/* ---- both ends ------------------------------------------------------------------------------------------------------------------------------ */

static bool all_over(void *ctx)
{
    for (int i = 0; i < W.calls_n; i++)
        if (!W.calls[i]->over)
            return false;
    return true;
}

static void test_kinds(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct call *a = get(u, "/size/100"); /* before it is connected */
    struct call *b = call_make(u, "HEAD /size/100", "", H1_NO_BODY, "", 0, 0);
    struct call *c = get(u, "/none"), *d = get(u, "/trailers-only"), *e = get(u, "/interim"), *f = get(u, "/cut"), *g = get(u, "/drop"), *refused = get(u, "/refuse");
    struct call *h = call_make(u, "POST /echo?q=1", "TE: gzip, trailers\r\nX-A: b\r\nContent-Length: 3\r\nTransfer-Encoding: x\r\n", H1_LENGTH, "abc", 3, 0);
    struct call *i = call_make(u, "POST /echo", "", H1_CHUNKED, "abc", 3, 300000);
    struct call *j = call_make(u, "POST /stream", "", H1_CHUNKED, "abc", 3, 300000);
    struct call *k = call_make(u, "POST /early", "", H1_CHUNKED, "abc", 3, 1000000);
    struct call *l = get(u, "/drip/300000");
    assert_true(sim_run(all_over, NULL, 5000));
    assert_int_equal(a->body.n, 100);
    assert_int_equal(a->framing, H1_LENGTH);
    assert_true(has(&a->fields, "x-test: yes\n") && !has(&a->fields, "connection"));
    assert_int_equal(b->status, 200);
    assert_true(b->end && b->body.n == 0 && has(&b->fields, "content-length: 100\n"));
    assert_int_equal(c->status, 204);
    assert_true(c->end && c->framing == H1_NO_BODY);
    assert_true(d->end && has(&d->fields, "grpc-status: 7\n"));
    assert_int_equal(e->interims, 1);
    assert_string_equal(e->body.p, "ok");
    assert_true(f->failed && !f->end && f->err == ERR_RESET && !f->unsent);
    assert_int_equal(f->k.reset_code, INTERNAL_ERROR);
    assert_true(g->failed && !g->answered && g->k.reset_code == CANCEL && !g->unsent);
    assert_true(refused->failed && !refused->answered && refused->k.reset_code == REFUSED_STREAM && refused->unsent);
    assert_string_equal(h->body.p, "abc");
    assert_int_equal(i->body.n, 300003);
    assert_string_equal(i->trailer.p, "x-echo: yes\n");
    assert_int_equal(j->body.n, 300003);
    assert_string_equal(j->trailer.p, "grpc-status: 0\n");
    assert_int_equal(k->status, 403);
    assert_string_equal(k->body.p, "early");
    assert_true(k->end && !k->failed);
    assert_int_equal(l->body.n, 300000);
    assert_string_equal(l->trailer.p, "x-sum: 9\n");
    for (int n = 0; n < W.requests_n; n++) {
        struct request *q = W.requests[n];
        assert_false(has(&q->fields, "transfer-encoding") || has(&q->fields, "connection"));
        assert_true(has(&q->fields, "host: x.example:81\n"));
        if (has(&q->line, "q=1"))
            assert_true(q->te_trailers && q->framing == H1_LENGTH && has(&q->fields, "content-length: 3\n") && has(&q->fields, "x-a: b\n"));
    }
    assert_int_equal(u->ended, 0);
    assert_int_equal(http_cli_calls(&u->cli), 0);
    assert_int_equal(http_cli_room(&u->cli), 256);
    world_stop();
}

/* Under split reads, short writes and small sockets nothing is lost or mixed up. */
static void test_faults(void **state)
{
    static const char *const what[] = {"POST /echo", "POST /stream", "GET /drip/70000", "GET /size/1", "GET /size/200000", "POST /early", "GET /cut"};
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct sim_conf faults = {.latency_us_min = 10, .latency_us_max = 900, .split_pct = (uint32_t)(seed % 3) * 30, .short_write_pct = (uint32_t)(seed % 2) * 50, .socket_bytes = seed % 4 == 1 ? 4096 : 0};
        world_start(seed, &faults, false);
        struct use *u = use_open();
        for (int i = 0; i < 60; i++) {
            const char *w = what[(seed + (uint64_t)i * 5) % COUNT_OF(what)];
            bool post = w[0] == 'P';
            struct call *x = call_make(u, w, "", post ? H1_CHUNKED : H1_NO_BODY, filler, post ? (size_t)i * 37 : 0, post && i % 3 ? 10000 * (size_t)(i % 7) : 0);
            if (i % 11 == 10) {
                http_call_cancel(&x->k);
                x->over = true;
            }
            pass(i % 3);
        }
        assert_true(sim_run(all_over, NULL, 60000));
        for (int i = 0; i < W.calls_n; i++) {
            struct call *x = W.calls[i];
            const char *w = what[(seed + (uint64_t)i * 5) % COUNT_OF(what)];
            if (i % 11 == 10)
                continue;
            assert_int_equal(x->failed, strstr(w, "/cut") != NULL);
            size_t sent = w[0] == 'P' ? (size_t)i * 37 + (i % 3 ? 10000 * (size_t)(i % 7) : 0) : 0;
            if (strstr(w, "echo") || strstr(w, "stream"))
                assert_int_equal(x->body.n, sent);
            if (strstr(w, "200000"))
                assert_true(x->body.n == 200000 && memcmp(x->body.p, filler, 200000) == 0);
        }
        world_stop();
    }
}

static void test_many(void **state)
{
    plain_start();
    struct use *u = use_open();
    for (int i = 0; i < 10000; i++) {
        struct call *x = get(u, "/size/10");
        for (int k = 0; k < 20 && !x->over; k++)
            pass(1);
        assert_true(x->end && x->body.n == 10);
    }
    size_t before = mem_bytes(MEM_CONN);
    for (int i = 0; i < 256; i++) {
        assert_true(http_cli_room(&u->cli) > 0);
        call_make(u, "POST /echo", "", H1_CHUNKED, filler, 100, 20000);
    }
    assert_int_equal(http_cli_room(&u->cli), 0);
    assert_true(sim_run(all_over, NULL, 10000));
    for (int i = 10000; i < W.calls_n; i++)
        assert_true(W.calls[i]->end && W.calls[i]->body.n == 20100);
    pass(10);
    assert_true(mem_bytes(MEM_CONN) < before + 4 * BIG);
    world_stop();
}

/* One stream whose owner does not read: it stops, the others go on, and what is kept is bounded. */
static void test_paused(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct call *p = call_make(u, "POST /pause", "", H1_CHUNKED, filler, 1000, 500000);
    pass(50);
    struct request *q = W.last;
    assert_true(q->body.n + 65535 >= 500000 - p->left - 20000);
    size_t kept = q->body.n;
    for (int i = 0; i < 20; i++) {
        struct call *x = call_make(u, "POST /echo", "", H1_CHUNKED, filler, 1000, 100000);
        assert_true(sim_run(all_over, NULL, 100) || x->end);
        assert_int_equal(x->body.n, 101000);
    }
    assert_int_equal(q->body.n, kept);
    http_req_reading(q->r, true);
    pass(100);
    assert_int_equal(q->body.n, 501000);
    assert_true(q->end && q->calls > 1);
    http_req_cut(q->r);
    q->over = true;
    pass(10);
    assert_true(p->failed);
    /* forty of them: no more than twice the connection's window is kept */
    for (int i = 0; i < 60; i++)
        call_make(u, "POST /pause", "", H1_CHUNKED, filler, 1000, 100000);
    pass(200);
    assert_true(mem_bytes(MEM_CONN) < 8 * BIG);
    for (int i = 0; i < W.requests_n; i++)
        if (!W.requests[i]->over && path_is(W.requests[i], "/pause"))
            http_req_reading(W.requests[i]->r, true);
    pass(200);
    for (int i = 0; i < W.requests_n; i++)
        if (path_is(W.requests[i], "/pause"))
            assert_true(W.requests[i]->end);
    world_stop();
}

/* The client's owner does not read; the answer is complete and the server gone before it does. */
static void test_paused_answer(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct iovec v;
    struct call *x = call_make(u, "POST /stream", "", H1_CHUNKED, "", 0, OPEN), *y;
    x->pause = true;
    pass(20);
    assert_true(x->answered && x->body.n == 0);
    http_call_send(&x->k, one(&v, filler, 1000));
    http_call_end(&x->k, SLICE(""));
    pass(20);
    assert_true(!x->end && x->body.n == 0);
    y = get(u, "/close");
    pass(20);
    assert_true(y->failed && !y->unsent && u->ended == 0);
    http_call_reading(&x->k, true);
    pass(20);
    assert_true(x->end && x->body.n == 1000);
    assert_string_equal(x->trailer.p, "grpc-status: 0\n");
    assert_int_equal(u->ended, 1);
    world_stop();
}

static void test_tunnels(void **state)
{
    plain_start();
    struct use *u = use_open();
    struct iovec v;
    const char *lines = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    struct call *x = call_make(u, "GET /tunnel", lines, H1_TUNNEL, "", 0, 0); /* before SETTINGS */
    struct call *z = call_make(u, "GET /early", lines, H1_TUNNEL, "", 0, 0);
    pass(20);
    assert_int_equal(x->status, 101);
    assert_int_equal(x->framing, H1_TUNNEL);
    assert_true(has(&x->fields, "upgrade: websocket\n") && has(&x->fields, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n"));
    assert_true(z->end && z->status == 403);
    struct call *y = call_make(u, "GET /tunnel", lines, H1_TUNNEL, "", 0, 0);
    pass(20);
    assert_int_equal(y->status, 101);
    http_call_send(&x->k, one(&v, "ping", 4));
    http_call_send(&y->k, one(&v, filler, 200000));
    pass(50);
    assert_string_equal(x->body.p, "ping");
    assert_int_equal(y->body.n, 200000);
    assert_false(x->over || y->over);
    http_call_end(&x->k, SLICE(""));
    pass(20);
    assert_true(x->end);
    http_call_cancel(&y->k);
    y->over = true;
    pass(20);
    for (int i = 0; i < W.requests_n; i++)
        assert_true(W.requests[i]->over);
    world_stop();
    /* a peer that knows no extended CONNECT */
    u = raw_server_start("", 0);
    x = call_make(u, "GET /tunnel", lines, H1_TUNNEL, "", 0, 0);
    pass(5);
    assert_true(x->failed && x->unsent && x->err == ERR_UNSUPPORTED);
    assert_int_equal(http_cli_calls(&u->cli), 0);
    /* plain CONNECT needs none */
    x = call_make(u, "CONNECT h:1", "", H1_TUNNEL, "", 0, 0);
    pass(5);
    raw_headers(W.raw, END_HEADERS, 1, ":status\t200\n");
    raw_frame(W.raw, DATA, 0, 1, "abc", 3);
    pass(5);
    assert_true(x->answered && x->framing == H1_TUNNEL && x->body.n == 3);
    world_stop();
}

/* Many that send at once over a narrow pipe share it. */
static void test_fair(void **state)
{
    struct sim_conf narrow = {.latency_us_min = 500, .latency_us_max = 1000, .socket_bytes = 20000};
    world_start(1, &narrow, false);
    W.cconf.window_bytes = 4 * BIG;
    W.cconf.conn_window_bytes = 16 * BIG;
    struct use *u = use_open();
    for (int i = 0; i < 6; i++)
        get(u, "/drip/1000000");
    pass(60);
    size_t least = SIZE_MAX, most = 0;
    for (int i = 0; i < 6; i++) {
        least = MIN(least, W.calls[i]->body.n);
        most = MAX(most, W.calls[i]->body.n);
    }
    assert_true(most > 50000 && least * 2 + 50000 > most);
    assert_true(sim_run(all_over, NULL, 60000));
    for (int i = 0; i < 6; i++)
        assert_int_equal(W.calls[i]->body.n, 1000000);
    world_stop();
}

/* ---- our client against a server made by hand -------------------------------------------------------------------------------------------- */

static void test_cli_answers(void **state)
{
    static const struct {
        const char *lines;
        int flags;
        uint16_t status; /* 0: refused */
    } answers[] = {
        {":status\t200\n", END_STREAM, 200},
        {":status\t200\ncontent-length\t0\n", END_STREAM, 200},
        {":status\t304\ncontent-length\t7\n", END_STREAM, 304},
        {":status\t200\ncontent-length\t7\n", END_STREAM, 0},
        {":status\t101\n", END_STREAM, 0},
        {":status\t20\n", END_STREAM, 0},
        {":status\t2000\n", END_STREAM, 0},
        {":status\t20x\n", END_STREAM, 0},
        {"x\ty\n", END_STREAM, 0},
        {":status\t200\n:status\t200\n", END_STREAM, 0},
        {":status\t200\n:path\t/\n", END_STREAM, 0},
        {":status\t100\n", END_STREAM, 0},
        {":status\t200\nconnection\tclose\n", END_STREAM, 0},
        {":status\t200\ntransfer-encoding\tchunked\n", END_STREAM, 0},
        {":status\t200\nBig\tx\n", END_STREAM, 0},
        {":status\t200\nx\ta~b\n", END_STREAM, 0},
        {":status\t200\ncontent-length\t1\ncontent-length\t1\n", 0, 0},
    };
    struct use *u = raw_server_start("", 0);
    for (uint32_t i = 0; i < COUNT_OF(answers); i++) {
        struct call *x = get(u, "/");
        pass(3);
        raw_headers(W.raw, answers[i].flags | END_HEADERS, 1 + 2 * i, answers[i].lines);
        pass(3);
        assert_true(x->over);
        assert_int_equal(x->status, answers[i].status);
        if (!answers[i].status) {
            assert_true(x->failed && x->err == ERR_SYNTAX && !x->unsent);
            assert_int_equal(rst_code(W.raw, 1 + 2 * i), PROTOCOL_ERROR);
        }
    }
    assert_int_equal(u->ended, 0);
    uint32_t id = 1 + 2 * COUNT_OF(answers);
    struct call *x = call_make(u, "HEAD /", "", H1_NO_BODY, "", 0, 0); /* a body where none may be */
    pass(3);
    raw_headers(W.raw, END_HEADERS, id, ":status\t200\ncontent-length\t3\n");
    raw_frame(W.raw, DATA, END_STREAM, id, "abc", 3);
    pass(3);
    assert_true(x->failed && x->err == ERR_SYNTAX);
    id += 2;
    x = get(u, "/"); /* an end behind an interim answer, without a byte of a body: there is no answer */
    pass(3);
    raw_headers(W.raw, END_HEADERS, id, ":status\t103\n");
    pass(3);
    raw_frame(W.raw, DATA, END_STREAM, id, "", 0);
    pass(3);
    assert_true(x->failed && x->err == ERR_SYNTAX && !x->end && x->interims == 1);
    assert_int_equal(rst_code(W.raw, id), PROTOCOL_ERROR);
    id += 2;
    x = get(u, "/"); /* interim answers without end */
    pass(3);
    for (int i = 0; i < 3000 && !x->over; i++) {
        raw_headers(W.raw, END_HEADERS, id, ":status\t103\nx\ty\n");
        if (i % 100 == 0)
            pass(1);
    }
    pass(5);
    assert_true(x->failed && x->err == ERR_SYNTAX && x->interims > 100);
    world_stop();
}

static void test_cli_resets(void **state)
{
    struct use *u = raw_server_start("\0\3\0\0\0\12", 6); /* ten streams */
    assert_int_equal(http_cli_room(&u->cli), 10);
    struct call *x[8];
    for (int i = 0; i < 8; i++)
        x[i] = get(u, "/");
    assert_int_equal(http_cli_room(&u->cli), 2);
    pass(5);
    raw_frame(W.raw, RST_STREAM, 0, 1, "\0\0\0\7", 4);  /* REFUSED_STREAM */
    raw_frame(W.raw, RST_STREAM, 0, 3, "\0\0\0\15", 4); /* HTTP_1_1_REQUIRED */
    pass(5);
    assert_true(x[0]->failed && x[0]->unsent && x[0]->k.reset_code == REFUSED_STREAM);
    assert_true(x[1]->failed && !x[1]->unsent && x[1]->k.reset_code == 13);
    assert_int_equal(http_cli_calls(&u->cli), 6);
    raw_frame(W.raw, GOAWAY, 0, 0, "\0\0\0\13\0\0\0\0", 8); /* 11 is the last: 13 and 15 were not looked at */
    pass(5);
    assert_int_equal(http_cli_room(&u->cli), 0);
    assert_true(x[6]->failed && x[6]->unsent && x[7]->failed && x[7]->unsent && !x[5]->over);
    assert_int_equal(u->ended, 0);
    for (uint32_t i = 2; i < 6; i++)
        raw_headers(W.raw, END_STREAM | END_HEADERS, 1 + 2 * i, ":status\t200\n");
    pass(5);
    for (int i = 2; i < 6; i++)
        assert_true(x[i]->end);
    assert_int_equal(u->ended, 1);
    assert_true(u->released);
    world_stop();
    /* the server leaves */
    u = raw_server_start("", 0);
    x[0] = get(u, "/");
    pass(5);
    stream_close(&W.raw->s);
    pass(5);
    assert_true(x[0]->failed && !x[0]->unsent && u->ended == 1);
    world_stop();
    /* nobody there */
    world_start(1, NULL, true);
    struct addr none = addr_ip4(0x7f000001, PORT + 1);
    u = mem_new(MEM_SIM, sizeof *u);
    W.uses[W.uses_n++] = u;
    http_cli_connect(&u->cli, W.far, &W.cconf, &use_ops, -1, &none, HTTP_2, NULL);
    x[0] = get(u, "/");
    pass(20);
    assert_true(x[0]->failed && x[0]->unsent && x[0]->err == ERR_REFUSED && u->ended == 1);
    world_stop();
    /* closed by its owner, with calls */
    u = raw_server_start("", 0);
    x[0] = get(u, "/");
    x[1] = call_make(u, "POST /", "", H1_CHUNKED, filler, 100, 200000);
    pass(2);
    http_cli_close(&u->cli);
    assert_true(x[0]->failed && x[1]->failed && x[0]->err == ERR_CLOSED);
    pass(5);
    assert_true(u->released && u->ended == 0);
    world_stop();
}

/* What goes over the wire of a request. */
static void test_cli_flow(void **state)
{
    struct use *u = raw_server_start("\0\4\0\0\0\144", 6); /* windows of 100 bytes */
    struct call *x = call_make(u, "POST /", "", H1_CHUNKED, filler, 300, 1000);
    pass(5);
    assert_int_equal(data_bytes(W.raw, 1), 100);
    assert_int_equal(x->drains, 0);
    raw_frame(W.raw, WINDOW_UPDATE, 0, 1, "\0\0\0\310", 4);
    pass(5);
    assert_int_equal(data_bytes(W.raw, 1), 300);
    assert_int_equal(x->drains, 1);
    raw_frame(W.raw, SETTINGS, 0, 0, "\0\4\0\0\100\0", 6); /* a wider one, for all */
    pass(5);
    assert_true(data_bytes(W.raw, 1) == 1300 && x->k.sent && ended(W.raw, 1));
    raw_headers(W.raw, END_HEADERS, 1, ":status\t200\n");
    x->pause = true;
    for (int i = 0; i < 40; i++)
        raw_frame(W.raw, DATA, 0, 1, filler, 10000);
    pass(20);
    assert_int_equal(rst_code(W.raw, 1), FLOW_CONTROL_ERROR); /* 400,000 where 262,144 were allowed */
    assert_true(x->failed && u->ended == 0);
    world_stop();
}

/* A test's name as argument: only that one. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_paused),
        cmocka_unit_test(test_paused_answer),
        cmocka_unit_test(test_tunnels),
        cmocka_unit_test(test_fair),
        cmocka_unit_test(test_cli_answers),
        cmocka_unit_test(test_cli_resets),
        cmocka_unit_test(test_cli_flow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
