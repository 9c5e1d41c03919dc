/* head.c - heads on their way through: hop-by-hop fields go, what a gateway must add comes, edits of the route apply.
 *
 * Sources: RFC 9110 sections 7.6.1 (Connection), 7.6.3 (Via), 10.1.1 (Expect); RFC 7239 (Forwarded); W3C Trace Context
 * level 1 section 3.2 (traceparent); Gateway API HTTPHeaderFilter, HTTPURLRewriteFilter, HTTPRequestRedirectFilter.
 */
#include "proxy_int.h"

#define PATH_BYTES_MAX 8192 /* of a path that a regular expression has rewritten */

/* ---- which fields pass ----------------------------------------------------------------------------------------------- */

enum {
    DROP_REQUEST = 1, DROP_RESPONSE = 2,
    DROP_GATEWAY = 4,                    /* rewritten where the client is outside */
    DROP_OURS = 8, DROP_OURS_BACK = 16,  /* put anew in requests, in answers; but not between nodes, where it is as it should be */
    DROP_CHECKED = 32,                   /* only who has checked it may say it: dropped from clients outside and from workloads alike */
};
#define DROP_CLAIMS (DROP_GATEWAY | DROP_CHECKED) /* what services go by who their client is */
static const uint8_t drop[H1_NAME_COUNT] = {
    [H1_HOST] = DROP_REQUEST,
    [H1_CONNECTION] = DROP_REQUEST | DROP_RESPONSE,
    [H1_CONTENT_LENGTH] = DROP_REQUEST | DROP_RESPONSE,
    [H1_TRANSFER_ENCODING] = DROP_REQUEST | DROP_RESPONSE,
    [H1_UPGRADE] = DROP_REQUEST | DROP_RESPONSE,
    [H1_TE] = DROP_REQUEST,
    [H1_KEEP_ALIVE] = DROP_REQUEST | DROP_RESPONSE,
    [H1_PROXY_CONNECTION] = DROP_REQUEST | DROP_RESPONSE,
    [H1_PROXY_AUTHENTICATE] = DROP_RESPONSE,
    [H1_PROXY_AUTHORIZATION] = DROP_REQUEST,
    [H1_VIA] = DROP_OURS | DROP_OURS_BACK,
    [H1_FORWARDED] = DROP_GATEWAY,
    [H1_X_FORWARDED_FOR] = DROP_GATEWAY,
    [H1_X_FORWARDED_PROTO] = DROP_GATEWAY,
    [H1_X_FORWARDED_HOST] = DROP_GATEWAY,
    [H1_X_FORWARDED_PORT] = DROP_GATEWAY,
    [H1_X_FORWARDED_CLIENT_CERT] = DROP_CHECKED,
    [H1_X_REQUEST_ID] = DROP_OURS,
    [H1_TRACEPARENT] = DROP_OURS,
};

/* What of the client's request goes no further. */
static uint8_t request_drops(const struct exchange *x)
{
    if (UNLIKELY(x->target != NULL))
        return DROP_REQUEST;
    return x->door->token ? DROP_REQUEST | DROP_OURS | DROP_GATEWAY | DROP_CHECKED : DROP_REQUEST | DROP_OURS | DROP_CHECKED;
}

/* Programs that get fields as CGI has them can't tell X_Forwarded_For from X-Forwarded-For (RFC 3875 section 4.1.18: both are HTTP_X_FORWARDED_FOR). What
 * is dropped by the one name is dropped by the other. */
static bool dropped_in_disguise(const struct h1_field *f, uint8_t dropped)
{
    char name[sizeof "x-forwarded-client-cert"];
    if (LIKELY(f->id != H1_OTHER) || !(dropped & DROP_CLAIMS) || ((f->name.p[0] | 32) != 'x' && (f->name.p[0] | 32) != 'f'))
        return false;
    if (f->name.n >= sizeof name || !memchr(f->name.p, '_', f->name.n))
        return false;
    for (size_t i = 0; i < f->name.n; i++)
        name[i] = f->name.p[i] == '_' ? '-' : f->name.p[i];
    return drop[h1_name_id(slice_of(name, f->name.n))] & dropped & DROP_CLAIMS;
}

static uint8_t answer_drops(const struct exchange *x) { return UNLIKELY(x->target != NULL) ? DROP_RESPONSE : DROP_RESPONSE | DROP_OURS_BACK; }

static bool edited(const struct header_edit *e, struct slice name)
{
    if (!e)
        return false;
    for (size_t i = 0; i < e->set.n; i++)
        if (slice_ieq(slice_cstr(e->set.items[i].key), name))
            return true;
    for (size_t i = 0; i < e->remove_n; i++)
        if (slice_ieq(slice_cstr(e->remove[i]), name))
            return true;
    return false;
}

/* Whether the proxy's own field of this name is wanted: what the route sets or removes is not put as well. A part has no backend. */
static bool ours(const struct exchange *x, struct slice name)
{
    return !edited(x->rule->req, name) && !(x->backend && edited(x->backend->req, name));
}

static void edit_put(struct head_out *o, const struct header_edit *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->set.n; i++)
        head_field(o, slice_cstr(e->set.items[i].key), slice_of(e->set.items[i].value, e->set.items[i].value_n));
    for (size_t i = 0; i < e->add.n; i++)
        head_field(o, slice_cstr(e->add.items[i].key), slice_of(e->add.items[i].value, e->add.items[i].value_n));
}

/* The names that Connection lists, gathered once: looking each field up in a list that a peer made as long as a head may be
 * would cost the product of both. */
#define LISTED_MAX 32
struct listed {
    struct slice name[LISTED_MAX];
    int n;
};

static bool listed_gather(struct listed *l, const struct h1_head *h)
{
    l->n = 0;
    if (LIKELY(!h->connection_lists))
        return true;
    for (uint16_t i = (uint16_t)(h->known[H1_CONNECTION] - 1); i < h->n; i++) {
        struct slice rest = h->fields[i].id == H1_CONNECTION ? h->fields[i].value : SLICE("");
        while (rest.n) {
            struct slice name = slice_trim(slice_cut(rest, ',', &rest));
            if (name.n && l->n == LISTED_MAX)
                return false;
            if (name.n)
                l->name[l->n++] = name;
        }
    }
    return true;
}

static bool listed_has(const struct listed *l, struct slice name)
{
    for (int i = 0; i < l->n; i++)
        if (slice_ieq(l->name[i], name))
            return true;
    return false;
}

static void fields_put(struct head_out *o, const struct h1_head *h, uint8_t dropped, const struct header_edit *a, const struct header_edit *b, const struct exchange_more *m)
{
    struct listed listed;
    if (!listed_gather(&listed, h)) { /* more than LISTED_MAX: no honest peer, and refused like a head that is too large */
        o->over = true;
        return;
    }
    bool slow = a || b || m || listed.n;
    for (uint16_t i = 0; i < h->n; i++) {
        const struct h1_field *f = &h->fields[i];
        if (drop[f->id] & dropped || dropped_in_disguise(f, dropped))
            continue;
        if (UNLIKELY(slow) && (edited(a, f->name) || edited(b, f->name) || listed_has(&listed, f->name) || (m && (dropped & DROP_REQUEST ? steps_withholds(m, f) : steps_owns(m, f)))))
            continue;
        head_field(o, f->name, f->value);
    }
}

/* ---- ids ------------------------------------------------------------------------------------------------------------------ */

static void hex_put(char *out, uint64_t v)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 15; i >= 0; i--, v >>= 4)
        out[i] = digits[v & 15];
}

static bool is_hex(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return false;
    return true;
}

static bool is_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != '0')
            return false;
    return true;
}

/* version "-" trace-id "-" parent-id "-" flags; a version above 00 may have more behind another '-' (section 3.2.2). */
static bool is_traceparent(struct slice v)
{
    const char *p = v.p;
    if (v.n < 55 || p[2] != '-' || p[35] != '-' || p[52] != '-' || !is_hex(p, 2) || memcmp(p, "ff", 2) == 0)
        return false;
    if (!is_hex(p + 3, 32) || is_zero(p + 3, 32) || !is_hex(p + 36, 16) || is_zero(p + 36, 16) || !is_hex(p + 53, 2))
        return false;
    return v.n == 55 || (memcmp(p, "00", 2) != 0 && p[55] == '-');
}

/* The trace that the request belongs to: the caller's, or a new one. An invalid traceparent is replaced, as the specification asks. */
static void trace_take(struct exchange *x, const struct h1_head *h)
{
    const struct h1_field *f = h1_get(h, H1_TRACEPARENT);
    if (f && is_traceparent(f->value)) {
        memcpy(x->trace_id, f->value.p + 3, sizeof x->trace_id);
        memcpy(x->trace_flags, f->value.p + 53, sizeof x->trace_flags);
        return;
    }
    hex_put((char *)x->trace_id, loop_random(x->p->loop));
    hex_put((char *)x->trace_id + 16, loop_random(x->p->loop));
    memcpy(x->trace_flags, "01", sizeof x->trace_flags);
}

/* traceparent goes on with a parent id of ours. */
static void trace_put(struct head_out *o, struct exchange *x)
{
    char line[] = "traceparent: 00-00000000000000000000000000000000-0000000000000000-01\r\n";
    memcpy(line + 16, x->trace_id, sizeof x->trace_id);
    hex_put(line + 49, loop_random(x->p->loop) | 1);
    memcpy(line + 66, x->trace_flags, sizeof x->trace_flags);
    if (ours(x, SLICE("traceparent")))
        head_put(o, line, sizeof line - 1);
}

static void request_id_take(struct exchange *x, const struct h1_head *h)
{
    const struct h1_field *f = h1_get(h, H1_X_REQUEST_ID);
    if (f && f->value.n && f->value.n <= sizeof x->request_id) {
        memcpy(x->request_id, f->value.p, f->value.n);
        x->request_id_n = (uint8_t)f->value.n;
        return;
    }
    char hex[32]; /* a random UUID (RFC 9562 section 5.4), in the usual form */
    hex_put(hex, loop_random(x->p->loop));
    hex_put(hex + 16, loop_random(x->p->loop));
    hex[12] = '4';
    hex[16] = "89ab"[hex[16] & 3];
    static const uint8_t from[5] = {0, 8, 12, 16, 20}, len[5] = {8, 4, 4, 4, 12};
    uint8_t n = 0;
    for (int i = 0; i < 5; i++) {
        if (i)
            x->request_id[n++] = '-';
        memcpy(x->request_id + n, hex + from[i], len[i]);
        n = (uint8_t)(n + len[i]);
    }
    x->request_id_n = n;
}

static void request_id_put(struct head_out *o, const struct exchange *x)
{
    if (ours(x, SLICE("x-request-id")))
        head_field(o, SLICE("x-request-id"), slice_of(x->request_id, x->request_id_n));
}

void head_identify(struct exchange *x, const struct h1_head *h)
{
    trace_take(x, h);
    request_id_take(x, h);
}

/* The chain of a list field, with ours behind what came. */
static void chain_put(struct head_out *o, const struct h1_head *h, enum h1_name id, struct slice name)
{
    head_slice(o, name);
    head_lit(o, ": ");
    if (!h->known[id])
        return;
    for (uint16_t i = (uint16_t)(h->known[id] - 1); i < h->n; i++)
        if (h->fields[i].id == id && h->fields[i].value.n) {
            head_slice(o, h->fields[i].value);
            head_lit(o, ", ");
        }
}

/* Every quoted string in the field's lines is closed on its line. One that is left open would swallow the element that is put
 * behind it, and a client could hide its address so. */
static bool quotes_closed(const struct h1_head *h, enum h1_name id)
{
    for (uint16_t i = 0; i < h->n; i++) {
        if (h->fields[i].id != id)
            continue;
        struct slice v = h->fields[i].value;
        bool quoted = false;
        for (size_t k = 0; k < v.n; k++) {
            if (v.p[k] == '"')
                quoted = !quoted;
            else if (quoted && v.p[k] == '\\')
                k++;
        }
        if (quoted)
            return false;
    }
    return true;
}

/* RFC 7239 section 4. An unsound chain is dropped; ours begins a new one. */
static void forwarded_element_put(struct head_out *o, const struct h1_head *h, struct slice peer, bool secure)
{
    bool v6 = slice_find(peer, ':') >= 0;
    if (h->known[H1_FORWARDED] && !quotes_closed(h, H1_FORWARDED))
        head_lit(o, "forwarded: ");
    else
        chain_put(o, h, H1_FORWARDED, SLICE("forwarded"));
    head_lit(o, "for=");
    if (v6)
        head_lit(o, "\"[");
    head_slice(o, peer);
    if (v6)
        head_lit(o, "]\"");
    if (h->authority.n) {
        head_lit(o, ";host=\"");
        head_slice(o, h->authority);
        head_lit(o, "\"");
    }
    head_slice(o, secure ? SLICE(";proto=https\r\n") : SLICE(";proto=http\r\n"));
}

/* Forwarded and X-Forwarded-*: for clients outside only; between workloads the caller's own fields pass as they are. */
static void forwarded_put(struct head_out *o, struct exchange *x, const struct h1_head *h)
{
    const struct down *d = UNLIKELY(x->role == X_PART) ? x->more->parent->down : x->down;
    struct slice peer = slice_of(d->peer, d->peer_n);
    if (ours(x, SLICE("x-forwarded-for"))) {
        chain_put(o, h, H1_X_FORWARDED_FOR, SLICE("x-forwarded-for"));
        head_slice(o, peer);
        head_lit(o, "\r\n");
    }
    if (ours(x, SLICE("x-forwarded-proto")))
        head_slice(o, x->secure ? SLICE("x-forwarded-proto: https\r\n") : SLICE("x-forwarded-proto: http\r\n"));
    if (h->authority.n && ours(x, SLICE("x-forwarded-host")))
        head_field(o, SLICE("x-forwarded-host"), h->authority);
    if (ours(x, SLICE("forwarded")))
        forwarded_element_put(o, h, peer, x->secure);
    if (UNLIKELY(d->identity != NULL) && ours(x, SLICE("x-forwarded-client-cert")))
        head_field(o, SLICE("x-forwarded-client-cert"), slice_cstr(d->identity));
}

static void via_put(struct head_out *o, struct exchange *x, const struct h1_head *h)
{
    if (!x->p->conf.via)
        return;
    chain_put(o, h, H1_VIA, SLICE("via"));
    head_slice(o, h->major == 2 ? SLICE("2 ") : h->minor ? SLICE("1.1 ") : SLICE("1.0 "));
    head_slice(o, slice_cstr(x->p->conf.node_name));
    head_lit(o, "\r\n");
}

/* ---- paths ------------------------------------------------------------------------------------------------------------------- */

/* The path after a rewrite: what a prefix leaves goes on behind what replaces it, with one slash where both have one. Gateway API's prefixes
 * (HTTPPathModifier) leave nothing, or whole elements; a VirtualService's may end anywhere: "/api/" to "/v2/", "/item" to "/thing". The result
 * begins with a slash. */
static void path_put(struct head_out *o, const struct h1_head *h, enum path_rewrite kind, const char *to, uint32_t prefix_len)
{
    if (kind == REWRITE_NONE || slice_is(h->path, "*")) { /* OPTIONS *: the server as a whole, and no path (RFC 9110 section 7.1) */
        head_slice(o, h->path);
        return;
    }
    struct slice with = slice_cstr(to), left = SLICE("");
    if (kind == REWRITE_PREFIX)
        left = slice_of(h->path.p + MIN(prefix_len, h->path.n), h->path.n - MIN(prefix_len, h->path.n));
    while (with.n && with.p[with.n - 1] == '/' && left.n && left.p[0] == '/')
        with.n--;
    if (with.n ? with.p[0] != '/' : !left.n || left.p[0] != '/')
        head_lit(o, "/");
    head_slice(o, with);
    head_slice(o, left);
}

/* Every match in the path is replaced. What comes of it must be a path, or the head would be another message. */
static void path_regex_put(struct head_out *o, const struct plan_regex *r, struct slice path, struct slice with)
{
    struct buf to = {0};
    bool sound = r && plan_regex_replace(r, path, with, PATH_BYTES_MAX, &to) && to.n && to.p[0] == '/';
    for (size_t i = 0; sound && i < to.n; i++)
        sound = (unsigned char)to.p[i] > ' ' && to.p[i] != 0x7f;
    if (sound)
        head_slice(o, buf_slice(&to));
    else
        head_slice(o, path);
    buf_free(&to);
}

static void query_put(struct head_out *o, const struct h1_head *h)
{
    if (!h->has_query)
        return;
    head_lit(o, "?");
    head_slice(o, h->query);
}

static void base64_16(const uint8_t in[16], char out[24])
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 6; i++) {
        uint32_t v = (uint32_t)in[3 * i] << 16 | (i < 5 ? (uint32_t)in[3 * i + 1] << 8 | in[3 * i + 2] : 0);
        for (int k = 0; k < 4; k++)
            out[4 * i + k] = set[v >> (18 - 6 * k) & 63];
    }
    out[22] = out[23] = '=';
}

/* ---- requests ------------------------------------------------------------------------------------------------------------------- */

static void request_line_put(struct head_out *o, struct exchange *x, const struct h1_head *h, const struct plan_hit *hit)
{
    const struct route_rule *spec = x->rule->spec;
    if (UNLIKELY(h->method_id == H1_CONNECT)) { /* RFC 9110 section 9.3.6: the target is whom it is to be passed on to, and no path */
        head_lit(o, "CONNECT ");
        head_slice(o, h->target);
        head_lit(o, " HTTP/1.1\r\nHost: ");
        head_slice(o, h->target);
        head_lit(o, "\r\n");
        return;
    }
    head_slice(o, h->method);
    head_lit(o, " ");
    if (spec && spec->rewrite_path_kind == REWRITE_REGEX)
        path_regex_put(o, x->rule->rewrite, h->path, slice_cstr(spec->rewrite_path));
    else if (spec && spec->rewrite_path_kind != REWRITE_NONE)
        path_put(o, h, spec->rewrite_path_kind, spec->rewrite_path, hit->prefix_len);
    else
        head_slice(o, h->path);
    query_put(o, h);
    head_lit(o, " HTTP/1.1\r\nHost: ");
    if (spec && spec->rewrite_host)
        head_slice(o, slice_cstr(spec->rewrite_host));
    else if (x->cluster->authority)
        head_slice(o, slice_cstr(x->cluster->authority));
    else if (h->authority.n)
        head_slice(o, h->authority);
    else
        head_slice(o, slice_cstr(x->cluster->host));
    head_lit(o, "\r\n");
}

static bool head_keep(struct exchange *x)
{
    struct head_out *o = &x->p->out;
    if (o->over)
        return false;
    if (o->n > HEAD_INLINE_BYTES)
        x->head = mem_new(MEM_CONN, o->n);
    memcpy(x->head, o->p, o->n);
    x->head_n = (uint32_t)o->n;
    return true;
}

/* An upgrade passes on hop by hop (RFC 9110 section 7.8). A WebSocket that came over HTTP/2 has no key (RFC 8441 section 5): the
 * service's side gets one. */
static void upgrade_put(struct head_out *o, struct exchange *x, const struct h1_head *h)
{
    const struct h1_field *f = h1_get(h, H1_UPGRADE);
    if (h->method_id == H1_CONNECT)
        return;
    head_lit(o, "Connection: Upgrade\r\n");
    head_field(o, SLICE("Upgrade"), f->value);
    if (h->major == 2 && slice_ieq(f->value, SLICE("websocket")) && !h1_find(h, SLICE("sec-websocket-key"))) {
        uint64_t r[2] = {loop_random(x->p->loop), loop_random(x->p->loop)};
        char key[24];
        base64_16((const uint8_t *)r, key);
        head_field(o, SLICE("Sec-WebSocket-Key"), slice_of(key, sizeof key));
    }
}

/* What every request is given by the node that it came to first. */
static void added_put(struct head_out *o, struct exchange *x, const struct h1_head *h)
{
    if (x->door->token)
        forwarded_put(o, x, h);
    if (ours(x, SLICE("via")))
        via_put(o, x, h);
    trace_put(o, x);
    request_id_put(o, x);
}

bool head_request(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit)
{
    struct head_out *o = &x->p->out;
    head_clear(o);
    request_line_put(o, x, h, hit);
    fields_put(o, h, request_drops(x), x->rule->req, x->backend->req, x->more);
    if (LIKELY(!x->target))
        added_put(o, x, h);
    if (UNLIKELY(x->framing == H1_TUNNEL))
        upgrade_put(o, x, h);
    else if (h->te_trailers)
        head_lit(o, "te: trailers\r\nconnection: TE\r\n");
    if (x->framing == H1_LENGTH) {
        head_lit(o, "content-length: ");
        head_u64(o, h->length);
        head_lit(o, "\r\n");
    } else if (x->framing == H1_CHUNKED)
        head_lit(o, "transfer-encoding: chunked\r\n");
    edit_put(o, x->rule->req);
    edit_put(o, x->backend->req);
    head_lit(o, "\r\n");
    return head_keep(x);
}

/* What a part asks for is JSON, as it is: conditions, ranges and codings of the client's request concern the merged answer. What a gateway adds
 * and what the route's own edits say of requests holds for parts as for any request. */
bool head_part(struct exchange *x, const struct h1_head *h, struct slice path)
{
    static const char *const withheld[] = {"accept-encoding", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "content-type"};
    struct head_out *o = &x->p->out;
    uint8_t dropped = request_drops(x);
    head_clear(o);
    head_lit(o, "GET ");
    head_slice(o, path);
    head_lit(o, " HTTP/1.1\r\nHost: ");
    head_slice(o, slice_cstr(x->cluster->authority ? x->cluster->authority : x->cluster->host));
    head_lit(o, "\r\n");
    for (uint16_t i = 0; i < h->n; i++) {
        const struct h1_field *f = &h->fields[i];
        bool skip = (drop[f->id] & dropped) || dropped_in_disguise(f, dropped) || f->id == H1_EXPECT || h1_connection_names(h, f->name);
        for (size_t k = 0; k < COUNT_OF(withheld) && !skip; k++)
            skip = slice_ieq(f->name, slice_cstr(withheld[k]));
        if (!skip && !edited(x->rule->req, f->name))
            head_field(o, f->name, f->value);
    }
    added_put(o, x, h);
    edit_put(o, x->rule->req);
    head_lit(o, "\r\n");
    return head_keep(x);
}

void head_location(struct exchange *x, const struct h1_head *h, const struct plan_hit *hit, struct buf *out)
{
    const struct route_rule *s = x->rule->spec;
    struct head_out *o = &x->p->out;
    uint16_t port = s->redirect_port;
    bool scheme_given = s->redirect_scheme != NULL;
    const char *here_scheme = x->secure ? "https" : "http";
    const char *scheme = scheme_given ? s->redirect_scheme : here_scheme;
    uint16_t usual = strcmp(scheme, "https") == 0 ? 443 : 80;
    struct addr here;
    bool hostless = !s->redirect_host && !h->host.n; /* HTTP/1.0: it knows us by our address */
    bool local = (hostless || s->redirect_listener_port) && stream_local_addr(http_srv_stream(&x->down->srv), &here) == OK;
    if (!port) /* HTTPRequestRedirectFilter: the scheme's own port when one is given, else the listener's; who names another one came through it */
        port = scheme_given && !s->redirect_derive_port ? usual : h->port ? h->port : local ? here.port : usual;
    buf_adds(out, scheme);
    buf_adds(out, "://");
    char text[ADDR_TEXT_MAX];
    if (!hostless)
        buf_add_slice(out, s->redirect_host ? slice_cstr(s->redirect_host) : h->host);
    else if (local) {
        addr_format_ip(&here, text);
        buf_printf(out, here.family == ADDR_IP6 ? "[%s]" : "%s", text);
    }
    if (port != usual)
        buf_printf(out, ":%u", port);
    head_clear(o);
    if (slice_is(h->path, "*"))
        head_lit(o, "/");
    else
        path_put(o, h, s->redirect_path_kind, s->redirect_path, hit->prefix_len);
    query_put(o, h);
    buf_add(out, o->p, o->over ? 0 : o->n);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------------------ */

/* A recipient with a clock adds the date that an origin left out (RFC 9110 section 6.6.1). */
static void date_put(struct head_out *o, struct proxy *p)
{
    static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t s = wall_ns() / 1000000000u;
    if (s != p->date_s) {
        /* Civil from days: Howard Hinnant's algorithm. */
        uint64_t day = s / 86400, of_day = s % 86400, z = day + 719468, era = z / 146097, doe = z % 146097;
        uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
        unsigned d = (unsigned)(doy - (153 * mp + 2) / 5 + 1), m = (unsigned)(mp < 10 ? mp + 2 : mp - 10), y = (unsigned)(yoe + era * 400 + (m <= 1));
        struct buf b = {0};
        buf_printf(&b, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + day % 7 * 3, d, months + m * 3, y, (unsigned)(of_day / 3600), (unsigned)(of_day / 60 % 60), (unsigned)(of_day % 60));
        memcpy(p->date, b.p, 29);
        buf_free(&b);
        p->date_s = s;
    }
    head_field(o, SLICE("date"), slice_of(p->date, 29));
}

void head_response(struct exchange *x, const struct h1_head *h)
{
    struct head_out *o = &x->p->out;
    head_clear(o);
    head_status(o, h->status, h->reason);
    bool interim = h->status < 200 && h->status != 101;
    fields_put(o, h, answer_drops(x), x->rule->resp, x->backend->resp, x->more);
    if (interim)
        return;
    if (UNLIKELY(h->status == 101))
        head_field(o, SLICE("Upgrade"), h1_get(h, H1_UPGRADE) ? h1_get(h, H1_UPGRADE)->value : SLICE("websocket"));
    const struct h1_field *length = h1_get(h, H1_CONTENT_LENGTH);
    if (h->framing == H1_NO_BODY && length && (x->method_id == H1_HEAD || h->status == 304) && !(x->more && x->more->changed))
        head_field(o, length->name, length->value); /* the length that a GET would have had */
    const struct header_edit *a = x->rule->resp, *b = x->backend->resp;
    if (!h->known[H1_DATE] && !edited(a, SLICE("date")) && !edited(b, SLICE("date")))
        date_put(o, x->p);
    if (LIKELY(!x->target) && !edited(a, SLICE("via")) && !edited(b, SLICE("via")))
        via_put(o, x, h);
    if (UNLIKELY(x->more != NULL))
        steps_put(x, h, o);
    edit_put(o, x->rule->resp);
    edit_put(o, x->backend->resp);
}

/* ---- trailers ----------------------------------------------------------------------------------------------------------------------- */

/* What may not pass in a head does not pass behind the body either. */
static int trailers_put(struct exchange *x, const struct h1_field *f, int n, uint8_t dropped, const struct header_edit *a, const struct header_edit *b)
{
    struct head_out *o = &x->p->out;
    const struct exchange_more *m = x->more;
    int put = 0;
    head_clear(o);
    for (int i = 0; i < n; i++) {
        if ((drop[f[i].id] & dropped) || dropped_in_disguise(&f[i], dropped) || edited(a, f[i].name) || edited(b, f[i].name))
            continue;
        if (UNLIKELY(m != NULL) && (dropped & DROP_REQUEST ? steps_withholds(m, &f[i]) : steps_owns(m, &f[i])))
            continue;
        head_field(o, f[i].name, f[i].value);
        put++;
    }
    return put;
}

int trailers_request(struct exchange *x, const struct h1_field *f, int n) { return trailers_put(x, f, n, request_drops(x), x->rule->req, x->backend->req); }
int trailers_response(struct exchange *x, const struct h1_field *f, int n) { return trailers_put(x, f, n, answer_drops(x), x->rule->resp, x->backend->resp); }

/* Takes out of a head that is being written, status line first, the fields that e sets or removes. */
static void edited_out(struct head_out *o, const struct header_edit *e)
{
    struct slice line, rest = slice_of(o->p, o->n);
    slice_cut(rest, '\n', &rest);
    size_t kept = o->n - rest.n;
    while (rest.n) {
        struct slice from = rest, value;
        slice_cut(rest, '\n', &rest);
        line = slice_of(from.p, from.n - rest.n);
        if (edited(e, slice_cut(line, ':', &value)))
            continue;
        memmove(o->p + kept, line.p, line.n);
        kept += line.n;
    }
    o->n = kept;
}

/* The route's edits hold for what Weir itself answers, refusals too: a policy such as Strict-Transport-Security is for every answer of a
 * route. (Envoy does the same with its routes' response_headers_to_add.) A backend's edits are for its own answers. */
void head_local_end(struct exchange *x, struct head_out *o)
{
    const struct header_edit *e = x->rule ? x->rule->resp : NULL;
    date_put(o, x->p);
    if (x->request_id_n)
        head_field(o, SLICE("x-request-id"), slice_of(x->request_id, x->request_id_n));
    if (LIKELY(!e) || o->over)
        return;
    edited_out(o, e);
    edit_put(o, e);
}

/* ---- answers of our own ---------------------------------------------------------------------------------------------------------------- */

void head_local(struct exchange *x, uint16_t status, const char *type)
{
    struct head_out *o = &x->p->out;
    head_clear(o);
    head_status(o, status, SLICE(""));
    if (type)
        head_field(o, SLICE("Content-Type"), slice_cstr(type));
    head_local_end(x, o);
}
