/* h2_srv_test.c - the server's end of HTTP/2 against frames made by hand, that a well-behaved client would not send. */
#include "h2_world_test.h"

/* ---- heads ------------------------------------------------------------------------------------------------------------------------ */

static void test_head(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    raw_headers(r, END_STREAM | END_HEADERS, 1,
                ":method\tPUT\n:scheme\thttps\n:authority\tX.example:8080\n:path\t/a/b?c=d?e\ncookie\ta=1\nx-one\tv w\ncookie\tb=2\nte\ttrailers\ncookie\tc=3\n"
                "expect\t100-continue\nx-empty\t\n");
    pass(5);
    assert_int_equal(W.requests_n, 1);
    assert_string_equal(W.last->line.p, "PUT /a/b ?c=d?e host=X.example port=8080 authority=X.example:8080");
    assert_string_equal(W.last->fields.p, "cookie: a=1; b=2; c=3\nx-one: v w\nte: trailers\nexpect: 100-continue\nx-empty: \nhost: X.example:8080\n");
    assert_true(W.last->te_trailers && W.last->expect && W.last->end);
    assert_int_equal(W.last->framing, H1_NO_BODY);
    raw_headers(r, END_STREAM | END_HEADERS, 3, ":method\tOPTIONS\n:scheme\thttp\n:path\t*\nhost\ty\n");
    pass(5);
    assert_string_equal(W.last->line.p, "OPTIONS * ? host=y port=0 authority=y");
    raw_headers(r, END_STREAM | END_HEADERS, 5, ":method\tGET\n:scheme\thttp\n:path\t/\n:authority\ty\nhost\tY\n");
    pass(5);
    assert_string_equal(W.last->fields.p, "host: Y\n");
    raw_headers(r, END_STREAM | END_HEADERS, 13, GET_LINES("/") "cookie\t\ncookie\ta=1\ncookie\t\ncookie\tb=2\ncookie\t\n"); /* empty crumbs */
    pass(5);
    assert_string_equal(W.last->fields.p, "cookie: a=1; b=2\nhost: x.example\n");
    raw_headers(r, END_HEADERS, 15, ":method\tCONNECT\n:authority\tz:443\n");
    pass(5);
    assert_string_equal(W.last->line.p, "CONNECT  ? host=z port=443 authority=z:443");
    raw_headers(r, END_HEADERS, 17, ":method\tCONNECT\n:protocol\twebsocket\n:scheme\thttp\n:path\t/chat\n:authority\ty\nsec-websocket-version\t13\n");
    pass(5);
    assert_string_equal(W.last->line.p, "GET /chat ? host=y port=0 authority=y");
    assert_true(W.last->upgrade && has(&W.last->fields, "upgrade: websocket\n"));
    assert_int_equal(W.requests_n, 6);
    assert_int_equal(W.own->refusals, 0);
    world_stop();
}

/* More crumbs of a cookie than a head may have fields: what comes behind them is still the client's. */
static void test_crumbs(void **state)
{
    enum { CRUMBS = 300 };
    plain_start();
    struct raw *r = raw_open(true);
    struct buf lines = {0}, want = {0};
    buf_adds(&lines, GET_LINES("/size/3") "x-first\tone\n");
    buf_adds(&want, "x-first: one\ncookie: c");
    for (int i = 0; i < CRUMBS; i++) {
        buf_adds(&lines, "cookie\tc\n");
        buf_adds(&want, i ? "; c" : "");
    }
    for (int i = 0; i < 40; i++) {
        buf_printf(&lines, "x-late-%d\tvalue of the field %d\n", i, i);
        buf_printf(&want, "%sx-late-%d: value of the field %d", "\n", i, i);
    }
    buf_adds(&want, "\nhost: x.example\n");
    raw_headers(r, END_STREAM | END_HEADERS, 1, lines.p);
    pass(5);
    assert_int_equal(W.requests_n, 1);
    assert_string_equal(W.last->fields.p, want.p);
    buf_free(&lines);
    buf_free(&want);
    world_stop();
}

/* A head and its body that come together are one call; so are a head, its body and its trailers. */
static void test_gather(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct buf b = {0};
    headers_add(&b, END_HEADERS, 1, POST_LINES("/echo"));
    frame_add(&b, DATA, 0, 1, "hello ", 6);
    frame_add(&b, DATA, PADDED, 1, "\3world\0\0\0", 9);
    frame_add(&b, DATA, END_STREAM, 1, "!", 1);
    headers_add(&b, END_HEADERS, 3, POST_LINES("/echo") "content-length\t5\n");
    frame_add(&b, DATA, 0, 3, "third", 5);
    headers_add(&b, END_HEADERS | END_STREAM, 3, "x-sum\t1\ncontent-length\t7\n");
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(W.requests_n, 2);
    assert_int_equal(W.requests[0]->calls, 1);
    assert_string_equal(W.requests[0]->body.p, "hello world!");
    assert_int_equal(W.requests[0]->framing, H1_CHUNKED);
    assert_int_equal(W.requests[1]->calls, 1);
    assert_string_equal(W.requests[1]->body.p, "third");
    assert_string_equal(W.requests[1]->trailer.p, "x-sum: 1\n");
    assert_true(ended(r, 1) && ended(r, 3));
    assert_int_equal(data_bytes(r, 1), 12);
    assert_int_equal(frames(r, RST_STREAM, -1, NULL), 0);
    world_stop();
}

/* What is sent while some of it waits for the end of the reading goes out in the same turn. */
static void test_talks_on(void **state)
{
    enum { PARTS = PIECES_MAX + 5 }; /* more than come in one call */
    plain_start();
    struct raw *r = raw_open(true);
    struct buf b = {0};
    headers_add(&b, END_HEADERS, 1, POST_LINES("/chat"));
    for (int i = 0; i < PARTS; i++)
        frame_add(&b, DATA, 0, 1, "p", 1);
    raw_buf(r, &b);
    pass(5);
    assert_true(W.last->calls > 1);
    assert_int_equal(data_bytes(r, 1), PARTS);
    world_stop();
}

static void test_malformed(void **state)
{
    static const struct {
        const char *lines, *label;
    } bad[] = {
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nX-Upper\t1\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx y\t1\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx:y\t1\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n\tvalue\n", "h2_field_name"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\ta~b\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\ta^b\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\t lead\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nx\ttrail \n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/~X: y\n:authority\tx\n", "h2_field_value"},
        {":method\tGET\n:scheme\thttp\n:path\t/a b\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\t/a#b\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\ta\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\t*\n:authority\tx\n", "target"},
        {":method\tGET\n:scheme\thttp\n:path\thttp://y/\n:authority\tx\n", "target"},
        {":method\tG T\n:scheme\thttp\n:path\t/\n:authority\tx\n", "method"},
        {":method\tGET HTTP/1.1\n:scheme\thttp\n:path\t/\n:authority\tx\n", "method"},
        {":method\tGET\n:scheme\tftp\n:path\t/\n:authority\tx\n", "h2_scheme"},
        {":method\tGET\n:scheme\thttp\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":scheme\thttp\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\nx\ty\n:path\t/\n:authority\tx\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n:status\t200\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n:other\t200\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\n:protocol\twebsocket\n", "h2_pseudo_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nhost\ty\n", "h2_authority"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tu@x\n", "host"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx:99999\n", "host"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n", "host_missing"},
        {":method\tGET\n:scheme\thttp\n:path\t/\nhost\tx\nhost\tx\n", "host_duplicate"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nconnection\tclose\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nkeep-alive\t5\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nproxy-connection\tx\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ntransfer-encoding\tchunked\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nupgrade\th2c\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\nte\tgzip\n", "h2_connection_field"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t1\n", "h2_content_length"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t+0\n", "content_length"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t0, 0\n", "content_length"},
        {":method\tGET\n:scheme\thttp\n:path\t/\n:authority\tx\ncontent-length\t0\ncontent-length\t0\n", "content_length_duplicate"},
        {":method\tCONNECT\n:authority\tx\n", "target"},
        {":method\tCONNECT\n:authority\tx:1\n:scheme\thttp\n:path\t/\n", "h2_pseudo_field"},
    };
    plain_start();
    struct raw *r = raw_open(true);
    uint32_t id = 1;
    for (size_t i = 0; i < COUNT_OF(bad); i++, id += 2) {
        raw_headers(r, END_STREAM | END_HEADERS, id, bad[i].lines);
        pass(3);
        assert_int_equal(W.own->refusals, i + 1);
        assert_string_equal(W.own->label, bad[i].label);
        assert_int_equal(W.own->status, 400);
        assert_int_equal(rst_code(r, id), PROTOCOL_ERROR);
    }
    assert_int_equal(W.requests_n, 0);
    raw_headers(r, END_STREAM | END_HEADERS, id, GET_LINES("/size/3"));
    pass(3);
    assert_true(ended(r, id) && !over(r)); /* the connection is none the worse */
    assert_int_equal(goaway_code(r), -1);
    world_stop();
}

/* Who serves one thing by whatever name need not look at the authority. All else is judged as before. */
static void test_any_authority(void **state)
{
    struct h1_limits limits = h1_limits_default;
    plain_start();
    W.sconf.h1.limits = &limits;
    limits.any_authority = true;
    struct raw *r = raw_open(true);
    raw_headers(r, END_STREAM | END_HEADERS, 1, ":method\tGET\n:scheme\thttp\n:path\t/size/3\n:authority\thttp://127.0.0.1:2379\n");
    pass(3);
    assert_int_equal(W.requests_n, 1);
    assert_string_equal(W.last->line.p, "GET /size/3 ? host=localhost port=0 authority=localhost");
    raw_headers(r, END_STREAM | END_HEADERS, 3, ":method\tGET\n:scheme\thttp\n:path\t/size/3\n");
    raw_headers(r, END_STREAM | END_HEADERS, 5, ":method\tGET\n:scheme\thttp\n:path\t/size/3\n:authority\tx\nhost\ty\n");
    pass(3);
    assert_int_equal(W.requests_n, 3);
    assert_string_equal(W.last->line.p, "GET /size/3 ? host=y port=0 authority=y");
    raw_headers(r, END_STREAM | END_HEADERS, 7, ":method\tGET\n:scheme\thttp\n:path\t/a b\n:authority\tx\n");
    pass(3);
    assert_true(W.own->refusals == 1 && W.requests_n == 3);
    world_stop();
}

static void test_bodies_malformed(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    raw_headers(r, END_HEADERS, 1, POST_LINES("/echo") "content-length\t5\n"); /* too long */
    raw_frame(r, DATA, 0, 1, "sixsix", 6);
    pass(3);
    assert_int_equal(rst_code(r, 1), PROTOCOL_ERROR);
    raw_headers(r, END_HEADERS, 3, POST_LINES("/echo") "content-length\t5\n"); /* too short */
    raw_frame(r, DATA, END_STREAM, 3, "four", 4);
    pass(3);
    assert_int_equal(rst_code(r, 3), PROTOCOL_ERROR);
    raw_headers(r, END_HEADERS, 5, POST_LINES("/echo")); /* trailers that don't end it */
    raw_headers(r, END_HEADERS, 5, "x\ty\n");
    pass(3);
    assert_int_equal(rst_code(r, 5), PROTOCOL_ERROR);
    raw_headers(r, END_HEADERS, 7, POST_LINES("/echo")); /* a pseudo field in trailers */
    raw_headers(r, END_HEADERS | END_STREAM, 7, ":path\t/\n");
    pass(3);
    assert_int_equal(rst_code(r, 7), PROTOCOL_ERROR);
    for (int i = 0; i < W.requests_n; i++) {
        assert_true(W.requests[i]->aborted && !W.requests[i]->end);
        assert_int_equal(W.requests[i]->err, ERR_SYNTAX);
    }
    assert_int_equal((uint32_t)W.requests_n + W.own->refusals, 4);
    assert_false(over(r));
    world_stop();
}

/* A target that is too long. */
static void long_target(struct raw *r)
{
    struct buf b = {0}, lines = {0};
    buf_adds(&lines, ":method\tGET\n:scheme\thttp\n:authority\tx\n:path\t/");
    for (int i = 0; i < 8300; i++)
        buf_addc(&lines, 'p');
    buf_addc(&lines, '\n');
    headers_add(&b, END_STREAM | END_HEADERS, 1, lines.p);
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(W.own->status, 414);
    assert_true(ended(r, 1));
    buf_free(&lines);
}

/* Too many fields, on a request that is not ended: answered, and told to stop. */
static void many_fields(struct raw *r)
{
    struct buf b = {0}, lines = {0};
    buf_adds(&lines, POST_LINES("/"));
    for (int i = 0; i < 101; i++)
        buf_printf(&lines, "x-%d\ty\n", i);
    headers_add(&b, END_HEADERS, 3, lines.p);
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(W.own->status, 431);
    assert_true(ended(r, 3));
    assert_int_equal(rst_code(r, 3), -1);
    pass(2100);
    assert_int_equal(rst_code(r, 3), NO_ERROR);
    b = (struct buf){0}; /* the same, and it sends more than will be thrown away */
    headers_add(&b, END_HEADERS, 33, lines.p);
    raw_buf(r, &b);
    for (int i = 0; i < 80; i++) {
        raw_frame(r, DATA, 0, 33, filler, 16000);
        pass(2);
    }
    assert_int_equal(rst_code(r, 33), NO_ERROR);
    assert_true(ended(r, 33));
    buf_free(&lines);
}

/* Larger than a head may be, over CONTINUATION. */
static void large_head(struct raw *r)
{
    struct buf b = {0}, block = {0}, lines = {0};
    buf_adds(&lines, GET_LINES("/"));
    for (int i = 0; i < 70; i++) {
        buf_printf(&lines, "x-%d\t", i);
        for (int k = 0; k < 1000; k++)
            buf_addc(&lines, 'v');
        buf_addc(&lines, '\n');
    }
    hpack_lines(&block, lines.p);
    for (size_t at = 0; at < block.n; at += 16000) {
        size_t n = MIN(block.n - at, 16000);
        frame_add(&b, at ? CONTINUATION : HEADERS, (at ? 0 : END_STREAM) | (at + n == block.n ? END_HEADERS : 0), 35, block.p + at, n);
    }
    raw_buf(r, &b);
    pass(20);
    assert_int_equal(W.own->status, 431);
    assert_int_equal(W.own->refusals, 4);
    assert_true(ended(r, 35));
    buf_free(&block);
    buf_free(&lines);
}

/* A bomb: one field of 4 KB in the table, named again and again by one byte. */
static void bomb(struct raw *r)
{
    struct buf b = {0}, block = {0};
    hpack_lines(&block, GET_LINES("/"));
    buf_addc(&block, 0x40);
    hpack_string(&block, "x", 1);
    hpack_string(&block, filler, 4000);
    for (int i = 0; i < 8000; i++)
        buf_addc(&block, (char)(0x80 | 62));
    frame_add(&b, HEADERS, END_STREAM | END_HEADERS, 37, block.p, block.n);
    raw_buf(r, &b);
    pass(20);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_flood");
    assert_true(over(r));
    buf_free(&block);
}

static void test_head_limits(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct frame f;
    long_target(r);
    many_fields(r);
    large_head(r);
    bomb(r);
    assert_int_equal(W.requests_n, 0);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 1);
    world_stop();
}

/* ---- floods ---------------------------------------------------------------------------------------------------------------------------- */

static void test_rapid_reset(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    for (uint32_t i = 0, id = 1; i < 300 && !over(r); i++, id += 2) {
        struct buf b = {0};
        headers_add(&b, END_STREAM | END_HEADERS, id, GET_LINES("/never"));
        frame_add(&b, RST_STREAM, 0, id, "\0\0\0\10", 4);
        raw_buf(r, &b);
        if (i % 50 == 49)
            pass(2);
    }
    pass(20);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_resets");
    assert_true(over(r) && W.requests_n <= 210);
    for (int i = 0; i < W.requests_n; i++)
        assert_true(W.requests[i]->aborted);
    /* the same by making us reset (CVE-2025-8671): each stream gets an impossible WINDOW_UPDATE */
    r = raw_open(true);
    for (uint32_t i = 0, id = 1; i < 300 && !over(r); i++, id += 2) {
        struct buf b = {0};
        headers_add(&b, END_HEADERS, id, POST_LINES("/never"));
        frame_add(&b, WINDOW_UPDATE, 0, id, "\x7f\xff\xff\xff", 4);
        raw_buf(r, &b);
        if (i % 20 == 19)
            pass(2);
    }
    pass(20);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_resets");
    /* slower than the limit: nothing happens */
    r = raw_open(true);
    for (uint32_t i = 0, id = 1; i < 500; i++, id += 2) {
        struct buf b = {0};
        headers_add(&b, END_STREAM | END_HEADERS, id, GET_LINES("/never"));
        frame_add(&b, RST_STREAM, 0, id, "\0\0\0\10", 4);
        raw_buf(r, &b);
        pass(6);
    }
    assert_int_equal(goaway_code(r), -1);
    world_stop();
}

static void flood(int type, int flags, uint32_t id, const char *p, size_t n, uint32_t times, bool reads)
{
    struct raw *r = raw_open(true);
    if (id)
        raw_headers(r, END_HEADERS, id, POST_LINES("/never"));
    if (!reads)
        stream_reading(&r->s, false);
    for (uint32_t i = 0; i < times && !over(r);) {
        struct buf b = {0};
        for (int k = 0; k < 500 && i < times; k++, i++)
            frame_add(&b, type, flags, id, p, n);
        raw_buf(r, &b);
        pass(1);
        assert_true(mem_bytes(MEM_CONN) < 2 * BIG);
        assert_true(http_srv_stream(&W.own->srv)->out_bytes < 400000);
    }
    pass(100);
    stream_reading(&r->s, true);
    pass(100);
}

static void test_floods(void **state)
{
    plain_start();
    flood(DATA, 0, 1, "", 0, 1200000, true); /* empty DATA (CVE-2019-9518) */
    assert_int_equal(goaway_code(W.raws[W.raws_n - 1]), CALM);
    assert_string_equal(W.own->label, "h2_flood");
    flood(PING, 0, 0, "12345678", 8, 700000, true);
    assert_int_equal(goaway_code(W.raws[W.raws_n - 1]), CALM);
    flood(SETTINGS, 0, 0, "\0\1\0\0\20\0", 6, 700000, true);
    assert_int_equal(goaway_code(W.raws[W.raws_n - 1]), CALM);
    struct raw *r = raw_open(true); /* more of them in one read than are acknowledged */
    struct buf b = {0};
    for (int i = 0; i < 3000; i++)
        frame_add(&b, PING, 0, 0, "12345678", 8);
    raw_buf(r, &b);
    pass(100);
    assert_int_equal(goaway_code(r), CALM);
    assert_string_equal(W.own->label, "h2_flood");
    flood(PING, 0, 0, "12345678", 8, 100000, false); /* acknowledgements that nobody reads (CVE-2019-9512) */
    world_stop();
}

static void test_continuation_flood(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct buf b = {0}, block = {0};
    hpack_lines(&block, GET_LINES("/"));
    frame_add(&b, HEADERS, END_STREAM, 1, block.p, block.n);
    for (int i = 0; i < 1000; i++)
        frame_add(&b, CONTINUATION, 0, 1, "", 0);
    raw_buf(r, &b);
    pass(20);
    assert_true(over(r));
    assert_int_equal(W.requests_n, 0);
    assert_int_equal(W.own->refusals, 1);
    buf_free(&block);
    world_stop();
}

static void test_streams_max(void **state)
{
    plain_start();
    W.sconf.streams_max = 4;
    struct raw *r = raw_open(true);
    for (uint32_t id = 1; id < 20; id += 2) /* before our SETTINGS are acknowledged */
        raw_headers(r, END_STREAM | END_HEADERS, id, GET_LINES("/never"));
    pass(5);
    assert_int_equal(W.requests_n, 4);
    assert_int_equal(rst_code(r, 9), REFUSED_STREAM);
    assert_int_equal(frames(r, RST_STREAM, -1, NULL), 6);
    assert_int_equal(W.own->refusals, 6);
    assert_string_equal(W.own->label, "h2_streams");
    raw_frame(r, SETTINGS, ACK, 0, "", 0);
    raw_headers(r, END_STREAM | END_HEADERS, 21, GET_LINES("/never")); /* and afterwards it is an error */
    pass(10);
    assert_int_equal(goaway_code(r), PROTOCOL_ERROR);
    for (int i = 0; i < 4; i++)
        assert_true(W.requests[i]->aborted);
    world_stop();
}

/* Connection errors, as RFC 9113 names them. */
static void test_violations(void **state)
{
    static const struct {
        int type, flags;
        uint32_t id;
        const char *p;
        size_t n;
        int64_t code;
    } bad[] = {
        {DATA, 0, 0, "x", 1, PROTOCOL_ERROR},              /* 6.1 */
        {DATA, 0, 99, "x", 1, PROTOCOL_ERROR},             /* 5.1: idle */
        {DATA, PADDED, 1, "\5x", 2, PROTOCOL_ERROR},       /* 6.1: padding longer than the frame */
        {HEADERS, END_HEADERS, 0, "", 0, PROTOCOL_ERROR},  /* 6.2 */
        {HEADERS, END_HEADERS, 2, "", 0, PROTOCOL_ERROR},  /* 5.1.1: even */
        {RST_STREAM, 0, 0, "\0\0\0\0", 4, PROTOCOL_ERROR}, /* 6.4 */
        {RST_STREAM, 0, 99, "\0\0\0\0", 4, PROTOCOL_ERROR},
        {RST_STREAM, 0, 1, "\0\0\0", 3, FRAME_SIZE_ERROR},
        {SETTINGS, 0, 1, "", 0, PROTOCOL_ERROR}, /* 6.5 */
        {SETTINGS, 0, 0, "\0\0\0", 3, FRAME_SIZE_ERROR},
        {SETTINGS, ACK, 0, "\0\1\0\0\0\0", 6, FRAME_SIZE_ERROR},
        {SETTINGS, 0, 0, "\0\2\0\0\0\2", 6, PROTOCOL_ERROR},     /* ENABLE_PUSH 2 */
        {SETTINGS, 0, 0, "\0\4\x80\0\0\0", 6, FLOW_CONTROL_ERROR}, /* INITIAL_WINDOW_SIZE */
        {SETTINGS, 0, 0, "\0\5\0\0\0\1", 6, PROTOCOL_ERROR},     /* MAX_FRAME_SIZE */
        {PUSH_PROMISE, END_HEADERS, 1, "\0\0\0\2", 4, PROTOCOL_ERROR}, /* 8.4 */
        {PING, 0, 0, "1234567", 7, FRAME_SIZE_ERROR},  /* 6.7 */
        {PING, 0, 1, "12345678", 8, PROTOCOL_ERROR},
        {GOAWAY, 0, 1, "\0\0\0\0\0\0\0\0", 8, PROTOCOL_ERROR}, /* 6.8 */
        {WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4, PROTOCOL_ERROR}, /* 6.9 */
        {WINDOW_UPDATE, 0, 0, "\0\0\0", 3, FRAME_SIZE_ERROR},
        {WINDOW_UPDATE, 0, 0, "\x7f\xff\xff\xff", 4, FLOW_CONTROL_ERROR},
        {CONTINUATION, END_HEADERS, 1, "", 0, PROTOCOL_ERROR}, /* 6.10 */
        {HEADERS, END_HEADERS, 3, "\x80", 1, COMPRESSION_ERROR}, /* index 0 */
        {HEADERS, END_HEADERS, 3, "\xff\xff\xff\xff", 4, COMPRESSION_ERROR},
    };
    plain_start();
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct raw *r = raw_open(true);
        raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
        pass(3);
        raw_frame(r, bad[i].type, bad[i].flags, bad[i].id, bad[i].p, bad[i].n);
        pass(20);
        assert_int_equal(goaway_code(r), bad[i].code);
        assert_true(over(r));
        assert_true(W.last->aborted);
        assert_int_equal(W.own->refusals, 1);
        stream_close(&r->s);
        pass(2300);
        assert_true(W.own->released);
        W.owns_n--;
        mem_free(W.own);
    }
    struct raw *r = raw_open(false); /* 3.4: no preface */
    stream_write_slice(&r->s, SLICE("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"));
    pass(20);
    assert_true(over(r));
    r = raw_open(true); /* 4.2: a frame that is too large */
    raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
    raw_frame(r, DATA, 0, 1, filler, 16385);
    pass(20);
    assert_int_equal(goaway_code(r), FRAME_SIZE_ERROR);
    world_stop();
}

/* ---- time ------------------------------------------------------------------------------------------------------------------------------ */

static void times_short(void)
{
    plain_start();
    W.sconf.h1.head_timeout_ms = 1000;
    W.sconf.h1.idle_timeout_ms = 3000;
    W.sconf.h1.body_timeout_ms = 2000;
    W.sconf.h1.linger_ms = 500;
}

static void test_times(void **state)
{
    times_short();
    struct raw *r = raw_open(false); /* the preface, and no SETTINGS */
    stream_write_slice(&r->s, SLICE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    pass(800);
    assert_false(over(r));
    pass(400);
    assert_true(over(r));
    assert_string_equal(W.own->label, "slow_head");
    r = raw_open(true); /* idle */
    pass(2800);
    assert_false(over(r));
    pass(500);
    assert_true(over(r));
    assert_int_equal(goaway_code(r), NO_ERROR);
    assert_int_equal(W.own->refusals, 0);
    r = raw_open(true); /* HEADERS without their end */
    struct buf block = {0};
    hpack_lines(&block, GET_LINES("/"));
    raw_frame(r, HEADERS, END_STREAM, 1, block.p, block.n);
    pass(900);
    assert_false(over(r));
    pass(400);
    assert_true(over(r));
    assert_string_equal(W.own->label, "slow_head");
    buf_free(&block);
    r = raw_open(true); /* a body that stops coming: the stream ends, not the connection */
    raw_headers(r, END_HEADERS, 1, POST_LINES("/echo"));
    for (int i = 0; i < 5; i++) {
        raw_frame(r, DATA, 0, 1, "x", 1);
        pass(1500);
    }
    assert_false(W.last->aborted);
    pass(1000);
    assert_true(W.last->aborted && W.last->err == ERR_TIMEOUT);
    assert_int_equal(rst_code(r, 1), CANCEL);
    assert_false(over(r));
    raw_headers(r, END_HEADERS, 3, POST_LINES("/stream")); /* once answered, both sides may take their time */
    pass(2900);
    assert_false(W.last->aborted);
    raw_frame(r, RST_STREAM, 0, 3, "\0\0\0\10", 4);
    pass(5);
    assert_true(W.last->aborted && W.last->err == ERR_CLOSED);
    world_stop();
}

/* A client that gives no window, or does not read. */
static void test_slow_reader(void **state)
{
    times_short();
    struct raw *r = raw_open(true);
    raw_headers(r, END_STREAM | END_HEADERS, 1, GET_LINES("/size/200000")); /* 65,535 go */
    pass(50);
    assert_int_equal(data_bytes(r, 1), 65535);
    raw_frame(r, WINDOW_UPDATE, 0, 0, "\0\1\0\0", 4);
    raw_frame(r, WINDOW_UPDATE, 0, 1, "\0\0\1\0", 4);
    pass(1900);
    assert_int_equal(data_bytes(r, 1), 65535 + 256);
    assert_int_equal(rst_code(r, 1), -1);
    pass(2300);
    assert_int_equal(rst_code(r, 1), CANCEL);
    raw_headers(r, END_STREAM | END_HEADERS, 3, GET_LINES("/drip/200000"));
    pass(2500);
    assert_true(W.last->aborted && W.last->err == ERR_TIMEOUT);
    assert_false(over(r));
    /* and one that takes nothing from its socket */
    r = raw_open(true);
    raw_frame(r, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
    raw_frame(r, WINDOW_UPDATE, 0, 0, "\x70\0\0\0", 4);
    pass(5);
    stream_reading(&r->s, false);
    for (uint32_t id = 1; id < 20; id += 2)
        raw_headers(r, END_STREAM | END_HEADERS, id, GET_LINES("/drip/900000"));
    pass(1000);
    assert_true(http_srv_stream(&W.own->srv)->out_bytes < 200000);
    assert_true(mem_bytes(MEM_CONN) < 800000);
    assert_false(W.own->released);
    pass(3000);
    assert_true(W.own->released);
    W.owns_n--;
    mem_free(W.own);
    world_stop();
}

/* ---- the end ------------------------------------------------------------------------------------------------------------------------------ */

static void test_going(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct frame f;
    raw_headers(r, END_HEADERS, 1, POST_LINES("/echo"));
    pass(5);
    assert_false(http_srv_idle(&W.own->srv));
    http_srv_last(&W.own->srv);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 1);
    assert_int_equal(code_at(f.p), 0x7fffffff);
    size_t said = (size_t)(f.p - (const uint8_t *)r->got.p);
    raw_headers(r, END_STREAM | END_HEADERS, 3, GET_LINES("/size/3")); /* was on its way */
    pass(5);
    assert_true(ended(r, 3));
    assert_int_equal(frames(r, PING, 0, &f), 1);
    assert_true((size_t)(f.p - (const uint8_t *)r->got.p) > said); /* behind it: who answers it has seen it */
    raw_frame(r, PING, ACK, 0, f.p, 8);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 3);
    raw_headers(r, END_STREAM | END_HEADERS, 5, GET_LINES("/size/3")); /* too late */
    raw_frame(r, DATA, END_STREAM, 1, "body", 4);
    pass(5);
    assert_true(ended(r, 1) && !ended(r, 5));
    assert_true(r->eof);
    assert_int_equal(W.requests_n, 2);
    stream_close(&r->s);
    pass(5);
    assert_true(W.own->released);
    W.owns_n--;
    mem_free(W.own);
    r = raw_open(true); /* who does not answer PING */
    raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
    pass(5);
    http_srv_last(&W.own->srv);
    pass(1100);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 1);
    assert_false(r->eof);
    r = raw_open(true); /* idle: what is on its way is served */
    assert_true(http_srv_idle(&W.own->srv));
    http_srv_last(&W.own->srv);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 1);
    assert_int_equal(code_at(f.p), 0x7fffffff);
    raw_headers(r, END_STREAM | END_HEADERS, 1, GET_LINES("/size/3"));
    assert_int_equal(frames(r, PING, 0, &f), 1);
    raw_frame(r, PING, ACK, 0, f.p, 8);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 1);
    assert_true(ended(r, 1) && r->eof);
    r = raw_open(true); /* idle, and it does not answer PING */
    http_srv_last(&W.own->srv);
    pass(1100);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 0);
    assert_true(r->eof);
    world_stop();
}

/* A request that comes in one piece with the answer to PING: the last GOAWAY does not name it, so its client may send it elsewhere, and it must not be done here. */
static void test_going_late(void **state)
{
    plain_start();
    struct raw *r = raw_open(true);
    struct frame f;
    struct buf b = {0};
    raw_headers(r, END_HEADERS, 1, POST_LINES("/never"));
    pass(5);
    http_srv_last(&W.own->srv);
    pass(5);
    assert_int_equal(frames(r, PING, 0, &f), 1);
    frame_add(&b, PING, ACK, 0, f.p, 8);
    headers_add(&b, END_STREAM | END_HEADERS, 3, GET_LINES("/size/3"));
    raw_buf(r, &b);
    pass(5);
    assert_int_equal(frames(r, GOAWAY, 0, &f), 2);
    assert_int_equal(code_at(f.p), 1);
    assert_int_equal(W.requests_n, 1);
    assert_int_equal(rst_code(r, 3), REFUSED_STREAM);
    world_stop();
}

/* Whatever an owner does inside a callback. */
static void test_inside(void **state)
{
    static const char *const paths[] = {"/cut", "/drop", "/early", "/last", "/none", "/discard", "/close"};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        for (int kind = 0; kind < 3; kind++) {
            plain_start();
            struct raw *r = raw_open(true);
            struct buf b = {0}, lines = {0};
            buf_printf(&lines, ":method\tPOST\n:scheme\thttp\n:path\t%s\n:authority\tx\n", paths[i]);
            headers_add(&b, END_HEADERS | (kind == 0 ? END_STREAM : 0), 1, lines.p);
            if (kind)
                frame_add(&b, DATA, kind == 1 ? END_STREAM : 0, 1, "body", 4);
            headers_add(&b, END_HEADERS | END_STREAM, 3, GET_LINES("/size/10"));
            if (kind == 2)
                frame_add(&b, DATA, END_STREAM, 1, "more", 4);
            headers_add(&b, END_HEADERS | END_STREAM, 5, GET_LINES("/size/10"));
            raw_buf(r, &b);
            buf_free(&lines);
            pass(20);
            assert_int_equal(ended(r, 5), i < 6);
            if (i == 6)
                assert_true(over(r) && W.requests_n == 1);
            else if (i < 2)
                assert_true(rst_code(r, 1) > 0);
            else if (kind == 2 && i != 5)
                assert_true(ended(r, 1) && rst_code(r, 1) <= 0);
            world_stop();
        }
}

/* A test's name as argument: only that one. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_crumbs),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_talks_on),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_any_authority),
        cmocka_unit_test(test_bodies_malformed),
        cmocka_unit_test(test_head_limits),
        cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_continuation_flood),
        cmocka_unit_test(test_streams_max),
        cmocka_unit_test(test_violations),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_going),
        cmocka_unit_test(test_going_late),
        cmocka_unit_test(test_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
