/* http1_oracle_fuzz.c - our HTTP/1 codec beside another one, Debian's libhttp-parser (2.9.4, which Node used for years), on the
 * same bytes. The first byte chooses: q a request, s a response to GET, h to HEAD, t to CONNECT; then one message, body included.
 *
 *     ours            theirs       must be
 *     complete        complete     the same: bytes used, method, target, status, version, fields, trailers, body, persistence
 *     complete        refused      one of their_refusals()
 *     more wanted     complete     never
 *     refused         complete     one of stricter[]
 *
 * stricter[] is the list of wire/README.md, where each entry has its reason. The library has a strict mode that is chosen when
 * it is compiled; Debian's build is the lenient one, with http_parser_settings' own leniency switched off.
 */
#include "http1_int.h"

#include <http_parser.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Where they accept and we do not. */
static const enum h1_error stricter[] = {
    H1_E_REQUEST_LINE,             /* RFC 9112 3: HTTP/0.9, several spaces, several empty lines before */
    H1_E_TARGET,                   /* RFC 9112 3.2: form does not suit the method, other schemes, '#', 0x80 and above */
    H1_E_STATUS_LINE,              /* RFC 9112 4: status codes of other than three digits, below 100, no space */
    H1_E_VERSION,                  /* RFC 9110 2.5 */
    H1_E_BARE_LF,                  /* RFC 9112 2.2 */
    H1_E_BARE_CR,                  /* RFC 9112 2.2, in places where they do not look */
    H1_E_OBS_FOLD,                 /* RFC 9112 5.2 */
    H1_E_FIELD_SPACE,              /* RFC 9112 5.1: before the colon or within the name */
    H1_E_FIELD_VALUE,              /* RFC 9110 5.5: they let any CTL be the first byte */
    H1_E_HOST_MISSING,             /* RFC 9112 3.2 */
    H1_E_HOST_DUPLICATE,           /* RFC 9112 3.2 */
    H1_E_HOST,                     /* RFC 9112 3.2, RFC 3986 3.2 */
    H1_E_CONTENT_LENGTH,           /* RFC 9112 6.2: 2^63 and above */
    H1_E_CODING_SYNTAX,            /* RFC 9112 6.1: in responses */
    H1_E_CODING_VERSION,           /* RFC 9112 6.1 */
    H1_E_CODING_UNKNOWN,           /* RFC 9112 6.1: other codings */
    H1_E_CODING_LAST,              /* RFC 9112 6.3: chunked twice, or not last in a response */
    H1_E_CHUNK_SIZE,               /* RFC 9112 7.1: space behind the size */
    H1_E_CHUNK_SIZE_OVERFLOW,      /* RFC 9112 7.1: more than 16 digits */
    H1_E_CHUNK_EXTENSION,          /* RFC 9112 7.1.1 */
    H1_E_CHUNK_LINE_SIZE,          /* our limit */
    H1_E_CHUNK_END,                /* RFC 9112 7.1: not looked at in their lenient build */
    H1_E_TARGET_SIZE,              /* our limit */
    H1_E_HEAD_SIZE,                /* our limit */
    H1_E_FIELDS_COUNT,             /* our limit */
    H1_E_TRAILERS_SIZE,            /* our limit */
};

/* A whole message as one side understood it. Fields are one text: name NUL value LF, trailers included. */
struct message {
    enum h1_result result;
    enum h1_error error;     /* ours */
    enum http_errno refusal; /* theirs */
    size_t used;
    struct buf method, target, fields, body;
    uint16_t status;
    uint8_t minor;
    bool keep_alive;
    bool until_close;
    bool head_done;
    bool length_tab;         /* ours: HTAB behind the Content-Length */
    bool coding_tab;         /* ours: HTAB behind the Transfer-Encoding */
    size_t head_fields_n;    /* bytes of fields that come from the head */
    bool framing_trailer;    /* ours: a trailer is named Content-Length or Transfer-Encoding, or begins so */
    bool coding_prefix;      /* ours: a field whose name begins with Transfer-Encoding and is longer */
    /* theirs, while parsing */
    struct buf name, value;
    bool in_value;
    char stopped_at;         /* the byte they refused */
    uint8_t major;
    enum h1_method request_method;
};

static void message_reset(struct message *m)
{
    struct buf *bufs[] = {&m->method, &m->target, &m->fields, &m->body, &m->name, &m->value};
    struct message kept = *m;
    *m = (struct message){.result = H1_MORE, .method = kept.method, .target = kept.target, .fields = kept.fields, .body = kept.body,
                          .name = kept.name, .value = kept.value};
    for (size_t i = 0; i < COUNT_OF(bufs); i++)
        buf_clear(bufs[i]);
}

static void field_add(struct message *m, struct slice name, struct slice value)
{
    value = slice_trim(value); /* theirs keeps the spaces behind */
    buf_add_slice(&m->fields, name);
    buf_add(&m->fields, "", 1);
    buf_add_slice(&m->fields, value);
    buf_add(&m->fields, "\n", 1);
}

static bool begins(struct slice name, struct slice with)
{
    return name.n >= with.n && slice_ieq(slice_of(name.p, with.n), with);
}

/* ---- ours ---------------------------------------------------------------------------------------------------------------- */

static void body_chunked(struct message *m, const char *p, size_t n)
{
    static struct h1_chunked c;
    h1_chunked_init(&c);
    m->result = H1_MORE;
    while (m->used < n && m->result == H1_MORE) {
        size_t taken;
        struct slice data;
        m->result = h1_chunked_next(&c, p + m->used, n - m->used, &taken, &data, &m->error);
        if (m->result == H1_BAD)
            return;
        m->used += taken;
        buf_add_slice(&m->body, data);
    }
    const char *at = c.trailer, *end = at + c.trailer_n;
    struct h1_field f;
    while (at < end) { /* all of them, also those that h1_chunked_trailers() leaves out, and one that is not whole */
        struct slice rest = slice_of(at, (size_t)(end - at));
        m->framing_trailer |= begins(rest, SLICE("content-length")) || begins(rest, SLICE("transfer-encoding"));
        if (h1_field_line(&at, end, &f))
            break;
        field_add(m, f.name, f.value);
    }
    MUST(at == end || m->result == H1_MORE);
}

static void body(struct message *m, const struct h1_head *h, const char *p, size_t n)
{
    size_t left = n - m->used, take = 0;
    switch (h->framing) {
    case H1_NO_BODY:
    case H1_TUNNEL: return;
    case H1_CHUNKED: body_chunked(m, p, n); return;
    case H1_LENGTH:
        take = h->length < left ? (size_t)h->length : left;
        m->result = take == h->length ? H1_DONE : H1_MORE;
        break;
    case H1_UNTIL_CLOSE:
        take = left;
        m->until_close = true;
        break;
    }
    buf_add(&m->body, p + m->used, take);
    m->used += take;
}

/* HTAB stands between the value and the end of its line. */
static bool tab_behind(const struct h1_field *f)
{
    const char *p = f ? f->value.p + f->value.n : "\r";
    while (*p == ' ')
        p++;
    return *p == '\t';
}

/* Notes the fields, and what about them is known to confuse theirs. */
static void note_fields(struct message *m, const struct h1_head *h)
{
    for (uint16_t i = 0; i < h->n; i++) {
        struct slice name = h->fields[i].name, begin = SLICE("transfer-encoding");
        field_add(m, name, h->fields[i].value);
        m->coding_prefix |= name.n > begin.n && begins(name, begin);
    }
    m->head_fields_n = m->fields.n;
    m->length_tab = tab_behind(h1_get(h, H1_CONTENT_LENGTH));
    m->coding_tab = tab_behind(h1_get(h, H1_TRANSFER_ENCODING));
}

static void parse_ours(struct message *m, bool is_request, enum h1_method request_method, const char *p, size_t n)
{
    static struct h1_head h;
    m->result = is_request ? h1_parse_request(p, n, &h1_limits_default, &h, &m->used, &m->error)
                           : h1_parse_response(p, n, &h1_limits_default, request_method, &h, &m->used, &m->error);
    if (m->result != H1_DONE)
        return;
    m->head_done = true;
    buf_add_slice(&m->method, h.method);
    buf_add_slice(&m->target, h.target);
    m->status = h.status;
    m->minor = h.minor;
    m->keep_alive = h.keep_alive;
    m->request_method = h.method_id;
    note_fields(m, &h);
    if (h.method_id != H1_CONNECT) /* they end a CONNECT with its head, whatever its fields say (RFC 9110 section 9.3.6) */
        body(m, &h, p, n);
}

/* ---- theirs ---------------------------------------------------------------------------------------------------------------- */

static void field_flush(struct message *m)
{
    if (m->in_value)
        field_add(m, buf_slice(&m->name), buf_slice(&m->value));
    m->in_value = false;
    buf_clear(&m->name);
    buf_clear(&m->value);
}

static int on_url(http_parser *parser, const char *p, size_t n)
{
    struct message *m = parser->data;
    buf_add(&m->target, p, n);
    return 0;
}

static int on_field(http_parser *parser, const char *p, size_t n)
{
    struct message *m = parser->data;
    if (m->in_value)
        field_flush(m);
    buf_add(&m->name, p, n);
    return 0;
}

static int on_value(http_parser *parser, const char *p, size_t n)
{
    struct message *m = parser->data;
    buf_add(&m->value, p, n);
    m->in_value = true;
    return 0;
}

static int on_head(http_parser *parser)
{
    struct message *m = parser->data;
    field_flush(m);
    m->head_done = true;
    m->head_fields_n = m->fields.n;
    m->major = (uint8_t)parser->http_major;
    m->minor = (uint8_t)parser->http_minor;
    m->status = (uint16_t)parser->status_code;
    if (parser->type == HTTP_REQUEST)
        return 0;
    /* They leave the rules of RFC 9112 section 6.3 about 1xx, 204, 304, HEAD and CONNECT to this answer. */
    if (m->request_method == H1_CONNECT && m->status / 100 == 2)
        return 2;
    return m->request_method == H1_HEAD || m->status < 200 || m->status == 204 || m->status == 304;
}

static int on_body(http_parser *parser, const char *p, size_t n)
{
    struct message *m = parser->data;
    buf_add(&m->body, p, n);
    return 0;
}

static int on_complete(http_parser *parser)
{
    struct message *m = parser->data;
    field_flush(m);
    m->result = H1_DONE;
    m->keep_alive = http_should_keep_alive(parser); /* not earlier: they must know what on_head() said */
    http_parser_pause(parser, 1);
    return 0;
}

static void parse_theirs(struct message *m, bool is_request, enum h1_method request_method, const char *p, size_t n)
{
    static const http_parser_settings settings = {.on_url = on_url, .on_header_field = on_field, .on_header_value = on_value,
                                                  .on_headers_complete = on_head, .on_body = on_body, .on_message_complete = on_complete};
    http_parser parser = {0};
    http_parser_set_max_header_size(INT32_MAX);
    http_parser_init(&parser, is_request ? HTTP_REQUEST : HTTP_RESPONSE);
    parser.data = m;
    m->request_method = request_method;
    m->used = http_parser_execute(&parser, &settings, p, n);
    m->refusal = HTTP_PARSER_ERRNO(&parser);
    if (m->refusal == HPE_OK && m->result == H1_MORE && m->head_done) {
        http_parser_execute(&parser, &settings, p, 0); /* the connection closes: what lasts until then is complete */
        m->until_close = m->result == H1_DONE;
    } else if (m->refusal != HPE_OK && m->refusal != HPE_PAUSED) {
        m->result = H1_BAD;
        m->stopped_at = m->used < n ? p[m->used] : '\0';
    }
    if (is_request && m->head_done)
        buf_printf(&m->method, "%s", http_method_str((enum http_method)parser.method));
}

/* ---- comparing --------------------------------------------------------------------------------------------------------------- */

/* Where we accept and they may refuse. */
static bool their_refusal_known(const struct message *ours, const struct message *theirs)
{
    if (theirs->refusal == HPE_INVALID_CHUNK_SIZE)
        return theirs->stopped_at == '\t'; /* they take spaces before a chunk extension, and not HTAB (RFC 9112 section 7.1.1) */
    if (ours->framing_trailer && theirs->refusal != HPE_INVALID_METHOD)
        return true; /* they read framing fields among the trailers, too (RFC 9110 section 6.5.1: not to be merged) */
    if (theirs->refusal == HPE_INVALID_CONTENT_LENGTH)
        return ours->length_tab; /* they take spaces behind the number, and not HTAB (RFC 9110 section 5.6.3) */
    if (theirs->refusal != HPE_INVALID_METHOD)
        return false;
    /* They have a closed list of methods (RFC 9110 section 9.1). */
#define X(num, name, string)                                  \
    if (slice_is(buf_slice(&ours->method), #string))          \
        return false;
    HTTP_METHOD_MAP(X)
#undef X
    return true;
}

static bool stricter_known(enum h1_error e)
{
    for (size_t i = 0; i < COUNT_OF(stricter); i++)
        if (stricter[i] == e)
            return true;
    return false;
}

/* Both have a whole head and the same share of a body. */
static void compare_messages(const struct message *ours, const struct message *theirs, bool is_request)
{
    MUST(slice_eq(buf_slice(&ours->method), buf_slice(&theirs->method)));
    MUST(slice_eq(buf_slice(&ours->target), buf_slice(&theirs->target)));
    MUST(ours->status == theirs->status);
    MUST(theirs->major == 1 && ours->minor == (theirs->minor > 0));
    MUST(ours->head_fields_n == theirs->head_fields_n);
    MUST(slice_eq(slice_of(ours->fields.p, ours->head_fields_n), slice_of(theirs->fields.p, ours->head_fields_n)));
    MUST(ours->result != H1_DONE || slice_eq(buf_slice(&ours->fields), buf_slice(&theirs->fields))); /* with trailers */
    MUST(slice_eq(buf_slice(&ours->body), buf_slice(&theirs->body)));
    MUST(ours->until_close == theirs->until_close);
    MUST(ours->used == theirs->used);
    /* We go on only where they would. (Their answer mixes trailers in, and is there only for whole messages.) */
    MUST(!ours->keep_alive || theirs->keep_alive || ours->result != H1_DONE || ours->fields.n > ours->head_fields_n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char letters[] = "qsht";
    static struct message ours, theirs;
    if (n == 0)
        return 0;
    const char *letter = data[0] ? strchr(letters, data[0]) : NULL;
    char kind = letter ? *letter : letters[data[0] % 4];
    enum h1_method request_method = kind == 'h' ? H1_HEAD : kind == 't' ? H1_CONNECT : H1_GET;
    bool is_request = kind == 'q';
    const char *p = (const char *)data + 1;
    n--;
    message_reset(&ours);
    message_reset(&theirs);
    parse_ours(&ours, is_request, request_method, p, n);
    parse_theirs(&theirs, is_request, request_method, p, n);
    /* Two messages that they frame wrongly: optional white space is SP or HTAB (RFC 9110 section 5.6.3), but "chunked" before HTAB
     * is another coding to them; and a longer name that begins with Transfer-Encoding is the same name to them. */
    if (ours.coding_tab || ours.coding_prefix)
        return 0;
    if (ours.result == H1_BAD)
        MUST(theirs.result != H1_DONE || stricter_known(ours.error));
    else if (theirs.result == H1_BAD)
        MUST(!ours.head_done || their_refusal_known(&ours, &theirs));
    else
        MUST(ours.result == theirs.result && ours.head_done == theirs.head_done);
    if (ours.result != H1_BAD && theirs.result != H1_BAD && ours.head_done)
        compare_messages(&ours, &theirs, is_request);
    return 0;
}
