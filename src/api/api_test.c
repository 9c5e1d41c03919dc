/* api_test.c - the admin interface over real Unix sockets, with a fake node: real objects and files, scripted workloads.
 *
 * The client is a plain socket in the same thread: it writes, the loop is turned until the condition of the test holds.
 * run's and proxy's functions are replaced here, so that a test says what they report.
 */
#include "api_int.h"
#include "seal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 5000

/* ---- the fake node ---------------------------------------------------------------------------------------------------- */

static struct {
    struct loop *loop;
    struct api *api;
    struct objset *set;
    struct plan plan;
    char dir[64], socket[128], log[128];
    int port_fd, socket_fd;
    bool ready, complete, late;
    uint32_t restarts, applied, downs, unplaced;
    bool shared;
    struct node_sync *sync; /* asked, not yet done */
    bool sync_slow;         /* it is left to the test */
    uint32_t syncs;
    const char *why; /* of the replica */
    enum err apply_err, upgrade;
    char upgrade_binary[64];
    uint32_t upgrade_drain_ms;
    struct node_change *change; /* asked, not yet done */
    struct task change_task;
    bool slow;                  /* it is left to the test */
    char by[32];
} node;

static const struct objset *fake_objects(void *ctx) { return node.set; }

static void fake_changed(struct task *t)
{
    struct node_change *c = node.change;
    node.change = NULL;
    if (c->kind == CHANGE_APPLY) {
        node.applied++;
        if (objset_own(c->next, node.set, c->merge, &c->conflicts, &c->diags) == OK) {
            for (size_t i = 0; i < objset_n(c->next); i++)
                node_change_object(c, objset_find(node.set, objset_at(c->next, i)->kind, objset_at(c->next, i)->ns, objset_at(c->next, i)->name), objset_at(c->next, i));
            if (!c->dry_run && !node.apply_err)
                objset_merge(node.set, c->next);
        }
    }
    for (size_t i = 0; i < c->refs_n; i++) {
        bool there = objset_remove(node.set, c->refs[i].kind, c->refs[i].ns, c->refs[i].name);
        node_change_note(c, c->refs[i].kind, c->refs[i].ns, c->refs[i].name, there ? "deleted" : "not found");
        c->missing += !there;
    }
    c->error = node.apply_err;
    if (c->kind == CHANGE_ROLLBACK && c->revision > 5)
        c->error = ERR_NOTFOUND;
    buf_adds(&c->why, c->kind == CHANGE_ROLLBACK ? "there is no such revision" : "the disk says no");
    c->revision = 7;
    snprintf(node.by, sizeof node.by, "%s", c->by);
    c->done(c);
}
static void fake_change(void *ctx, struct node_change *c)
{
    node.change = c;
    if (!node.slow)
        loop_defer(node.loop, &node.change_task);
}

/* Revision 3 made the Service, replaced the Secret, and deleted another object. */
static void fake_history(void *ctx, struct node_history *h)
{
    if (h->revision == 0) {
        buf_adds(&h->json, "{\"revision\":3,\"items\":[]}\n");
    } else if (h->revision == 3) {
        struct diags d = {0};
        buf_adds(&h->json, "{\"revision\":3,\"by\":\"me\",\"changes\":[{\"kind\":\"Service\",\"namespace\":\"default\",\"name\":\"web\",\"change\":\"created\"},"
                           "{\"kind\":\"Secret\",\"namespace\":\"default\",\"name\":\"key\",\"change\":\"configured\"},"
                           "{\"kind\":\"ConfigMap\",\"namespace\":\"default\",\"name\":\"gone\",\"change\":\"deleted\"}]}");
        h->after = objset_copy(node.set);
        h->before = objset_new();
        objset_read(h->before, "before.yaml", "/", SLICE("apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {token: hunter1}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: gone}\n"),
                    "default", false, &d);
        assert_int_equal(d.errors, 0);
    } else {
        h->error = ERR_NOTFOUND;
        buf_adds(&h->why, "there is no such revision");
    }
    h->done(h);
}
static struct run *fake_run(void *ctx) { return (struct run *)&node; }
static const struct plan *fake_plan(void *ctx) { return &node.plan; }
static const char *port_held; /* why no Gateway listens; NULL: all do */
static bool fake_listens(void *ctx, const struct addr *at, const char **why)
{
    *why = port_held ? port_held : "";
    return !port_held;
}
static struct proxy *const *fake_workers(void *ctx, uint32_t *n)
{
    static struct proxy *workers[1];
    *n = 1;
    return workers;
}
static bool fake_ready(void *ctx, struct buf *why)
{
    if (!node.ready)
        buf_adds(why, "workload default/web: 0 of 2 replicas ready");
    return node.ready;
}
static void fake_down(void *ctx) { node.downs++; }
static enum err fake_upgrade(void *ctx, const char *binary, uint32_t ready_ms, uint32_t drain_ms, struct buf *why_not)
{
    if (node.upgrade != OK)
        buf_adds(why_not, "it is what it is");
    snprintf(node.upgrade_binary, sizeof node.upgrade_binary, "%s", binary ? binary : "");
    node.upgrade_drain_ms = drain_ms;
    return node.upgrade;
}
static void fake_metrics(void *ctx, struct buf *out) { buf_adds(out, "# TYPE fake gauge\nfake 1\n"); }
static const char *fake_log_path(void *ctx, const char *ns, const char *d) { return strcmp(d, "web") == 0 ? node.log : NULL; }
static void fake_info(void *ctx, struct buf *json) { buf_adds(json, "{\"warnings\":[]}"); }

static bool fake_shared(void *ctx) { return node.shared; }
static void fake_sync(void *ctx, struct node_sync *s)
{
    node.syncs++;
    if (node.sync_slow)
        node.sync = s;
    else
        s->done(s);
}

/* Two nodes: "a" before this one, "c" behind it; what c said is of a manifest before. */
static void fake_elsewhere(void *ctx, void (*each)(void *x, const char *node_name, const struct workload_status *w), void *x)
{
    struct replica_status on[2] = {{.name = "web-a", .node = "a", .phase = "Running", .ready = true, .why = ""}, {.name = "web-c", .node = "c", .phase = "BackOff", .why = "it ended"}};
    struct workload_status a = {.ns = "default", .name = "web", .generation = 1, .revision = 1, .wanted = 1, .current = 1, .updated = 1, .ready = 1, .available = 1, .complete = true, .why = "", .replicas = on, .replicas_n = 1};
    struct workload_status c = {.ns = "default", .name = "web", .generation = 1, .revision = 5, .wanted = 1, .current = 1, .why = "1 of 1 replicas", .replicas = on + 1, .replicas_n = 1};
    each(x, "a", &a);
    each(x, "c", &c);
}
static uint32_t fake_unplaced(void *ctx, const struct object *dep, const char **why)
{
    *why = node.unplaced ? "0/3 nodes are available: 3 Insufficient cpu." : "";
    return node.unplaced;
}
static const char *fake_name(void *ctx) { return "b"; }

static void fake_nodes(void *ctx, struct buf *json) { buf_adds(json, "{\"items\":[]}"); }

static struct keyring *keyring;
static const struct keyring *fake_keys(void *ctx) { return keyring; }

static const struct node_ops fake_ops = {
    .objects = fake_objects,
    .keys = fake_keys,
    .change = fake_change,
    .history = fake_history,
    .run = fake_run,
    .plan = fake_plan,
    .workers = fake_workers,
    .ready = fake_ready,
    .listens = fake_listens,
    .down = fake_down,
    .upgrade = fake_upgrade,
    .metrics = fake_metrics,
    .log_path = fake_log_path,
    .nodes = fake_nodes,
    .shared = fake_shared,
    .sync = fake_sync,
    .elsewhere = fake_elsewhere,
    .unplaced = fake_unplaced,
    .name = fake_name,
    .info = fake_info,
};

/* The rooms below, as this test wants them. */
const double proxy_duration_bounds_ms[PROXY_DURATION_BUCKETS] = {1, 5, 10};
void run_status(struct run *r, void (*each)(void *ctx, const struct workload_status *w), void *ctx)
{
    struct replica_status replica = {.id = 1, .name = "web-1-a", .node = "b", .phase = "Running", .ready = true, .pid = getpid(), .restarts = 3, .why = node.why ? node.why : "liveness: 500"};
    struct workload_status w = {.ns = "default",
                                .name = "web",
                                .generation = 1,
                                .revision = 2,
                                .wanted = 2,
                                .current = 1,
                                .updated = 1,
                                .ready = 1,
                                .available = 1,
                                .complete = node.complete,
                                .late = node.late,
                                .why = node.complete ? "" : "1 of 2 ready",
                                .replicas = &replica,
                                .replicas_n = 1};
    each(ctx, &w);
}
enum err run_restart(struct run *r, const char *ns, const char *deployment)
{
    if (strcmp(deployment, "web") != 0)
        return ERR_NOTFOUND;
    node.restarts++;
    return OK;
}
void run_metrics(struct run *r, struct buf *out) { buf_adds(out, "run 1\n"); }
void proxy_metrics(struct proxy *const *workers, uint32_t n, struct buf *out) { buf_adds(out, "proxy 1\n"); }
void proxy_series_each(struct proxy *const *workers, uint32_t n, void (*each)(void *ctx, const struct proxy_series *s), void *ctx)
{
    struct proxy_series ok = {
        .service = "web", .service_ns = "default", .workload = "web", .status = 200, .requests = 90, .duration_us_sum = 900, .duration = {90}};
    struct proxy_series bad = {.service = "web", .service_ns = "default", .workload = "web", .status = 503, .requests = 10, .duration = {0, 10}};
    each(ctx, &ok);
    each(ctx, &bad);
}

/* ---- the client ---------------------------------------------------------------------------------------------------------- */

struct client {
    int fd;
    struct buf got;
    bool eof;
};

/* The read-only port of this test is a Unix socket, too: only which listener it is matters to the api. */
static struct client client_open(bool admin)
{
    struct client c = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", node.dir, admin ? "weir.sock" : "port.sock");
    assert_int_equal(connect(c.fd, (struct sockaddr *)&sun, sizeof sun), 0);
    return c;
}

static void client_take(struct client *c)
{
    char p[65536];
    ssize_t n;
    while ((n = recv(c->fd, p, sizeof p, MSG_DONTWAIT)) > 0)
        buf_add(&c->got, p, (size_t)n);
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        c->eof = true;
}

static void client_send(struct client *c, const char *p, size_t n)
{
    while (n) {
        ssize_t sent = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return; /* refused early; what came back tells */
        p += MAX(sent, 0);
        n -= (size_t)MAX(sent, 0);
        loop_turn(node.loop, 0);
        client_take(c);
    }
}

static void client_text(struct client *c, const char *text) { client_send(c, text, strlen(text)); }

/* Turns the loop until the answer contains want; NULL: until the connection ends. */
static void client_until(struct client *c, const char *want)
{
    uint64_t due = mono_ns() + PATIENCE_MS * 1000000ull;
    for (;;) {
        client_take(c);
        if (want ? c->got.p && memmem(c->got.p, c->got.n, want, strlen(want)) : c->eof)
            return;
        if (mono_ns() > due || (want && c->eof))
            fail_msg("no \"%s\" in: %s", want ? want : "(end)", c->got.p ? c->got.p : "");
        loop_turn(node.loop, 5);
    }
}

static void client_close(struct client *c)
{
    close(c->fd);
    buf_free(&c->got);
    for (int i = 0; i < 5; i++)
        loop_turn(node.loop, 0);
}

static size_t count(const struct client *c, const char *what)
{
    size_t n = 0;
    for (const char *p = c->got.p; p && (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

/* One request with Connection: close; the whole answer. */
static struct client ask_on(bool admin, const char *method, const char *target, const char *body)
{
    struct client c = client_open(admin);
    struct buf b = {0};
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, target, strlen(body), body);
    client_send(&c, b.p, b.n);
    client_until(&c, NULL);
    buf_free(&b);
    return c;
}

static struct client ask(const char *method, const char *target, const char *body) { return ask_on(true, method, target, body); }

static void expect(struct client *c, unsigned status, const char *part)
{
    char line[32];
    snprintf(line, sizeof line, "HTTP/1.1 %u ", status);
    if (!c->got.p || strncmp(c->got.p, line, strlen(line)) != 0 || !strstr(c->got.p, part))
        fail_msg("wanted %u and \"%s\", got: %s", status, part, c->got.p ? c->got.p : "");
}

static void ask_expect(const char *method, const char *target, const char *body, unsigned status, const char *part)
{
    struct client c = ask(method, target, body);
    expect(&c, status, part);
    client_close(&c);
}

/* The JSON body of an answer of 200. */
static json_t *ask_json(const char *target)
{
    struct client c = ask("GET", target, "");
    expect(&c, 200, "");
    json_t *o = json_loads(strstr(c.got.p, "\r\n\r\n") + 4, 0, NULL);
    assert_non_null(o);
    client_close(&c);
    return o;
}

/* ---- set-up ----------------------------------------------------------------------------------------------------------------- */

static const char manifest[] =
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n"
    "    metadata: {labels: {app: web}}\n    spec:\n      containers: [{name: web, image: none, command: [sleep, \"9\"], ports: [{containerPort: 80}]}]\n"
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    "---\napiVersion: v1\nkind: Secret\nmetadata: {name: key, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"stringData\":{\"token\":\"hunter2\"}}'}}\nstringData: {token: hunter2}\n"
    "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec: {gatewayClassName: weir, listeners: [{name: http, port: 8080, protocol: HTTP}]}\n"
    "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{name: gw}]\n"
    "  rules: [{backendRefs: [{name: web, port: 80}]}, {matches: [{path: {type: PathPrefix, value: /gone}}], backendRefs: [{name: absent, port: 81}]}]\n";

static int set_up(void **state)
{
    static struct plan_endpoint ep = {.id = 1, .replica_id = 1, .name = "web-1-a"};
    static struct plan_cluster cluster = {.ns = (char *)"default", .service = (char *)"web", .workload = (char *)"web", .port = 80, .eps = &ep, .eps_n = 1};
    static struct plan_listener listener = {.gateway = (char *)"default/gw"};
    struct diags d = {0};
    memset(&node, 0, sizeof node);
    snprintf(node.dir, sizeof node.dir, "/tmp/weir-api-XXXXXX");
    assert_non_null(mkdtemp(node.dir));
    snprintf(node.socket, sizeof node.socket, "%s/weir.sock", node.dir);
    snprintf(node.log, sizeof node.log, "%s/web.log", node.dir);
    struct addr port = {.family = ADDR_UNIX};
    snprintf(port.path, sizeof port.path, "%s/port.sock", node.dir);
    node.ready = node.complete = true;
    node.loop = loop_new("test");
    task_init(&node.change_task, fake_changed);
    node.set = objset_new();
    objset_read(node.set, "set-up.yaml", "/", slice_cstr(manifest), "default", false, &d);
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR)
            fail_msg("%u: %s", d.items[i].line, d.items[i].reason);
    diags_free(&d);
    objset_addresses(node.set);
    ep.address = (struct plan_address){.ip = {127, 0, 0, 1}, .port = 80, .family = ADDR_IP4};
    listener.address = addr_ip4(0x7f000001, 8080);
    node.plan = (struct plan){.clusters = &cluster, .clusters_n = 1, .listeners = &listener, .listeners_n = 1};
    assert_int_equal(listen_socket(&port, 16, false, &node.port_fd), OK);
    struct addr sock = {.family = ADDR_UNIX};
    memcpy(sock.path, node.socket, MIN(strlen(node.socket) + 1, sizeof sock.path - 1));
    assert_int_equal(listen_socket(&sock, 16, false, &node.socket_fd), OK);
    node.api = api_new(node.loop, node.socket_fd, node.port_fd, &fake_ops, NULL);
    return 0;
}

static void remove_file(const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", node.dir, name);
    unlink(path);
}

static int tear_down(void **state)
{
    api_free(node.api);
    socket_close(node.port_fd);
    socket_close(node.socket_fd);
    loop_turn(node.loop, 0);
    loop_free(node.loop);
    objset_free(node.set);
    remove_file("port.sock");
    remove_file("weir.sock");
    remove_file("web.log");
    remove_file("web.log.1");
    assert_int_equal(rmdir(node.dir), 0);
    assert_int_equal(mem_count(MEM_API), 0);
    return 0;
}

static void log_write(const char *path, const char *text) { assert_int_equal(file_replace(path, text, strlen(text), 0600), OK); }

/* ---- HTTP ------------------------------------------------------------------------------------------------------------------- */

static void test_probes(void **state)
{
    ask_expect("GET", "/healthz", "", 200, "\r\n\r\nok\n");
    ask_expect("GET", "/version", "", 200, "{\"version\":\"" WEIR_VERSION "\"}");
    ask_expect("GET", "/readyz", "", 200, "ready");
    node.ready = false;
    ask_expect("GET", "/readyz", "", 503, "0 of 2 replicas ready");
    ask_expect("GET", "/metrics", "", 200, "fake 1\n");
    ask_expect("GET", "/metrics", "", 200, "weir_api_limit_hits_total{limit=\"head_bytes\"} 0");
    ask_expect("GET", "/v1/info", "", 200, "warnings");
}

static void test_methods_and_paths(void **state)
{
    ask_expect("POST", "/metrics", "", 405, "\r\nAllow: GET, HEAD\r\n");
    ask_expect("GET", "/v1/apply", "", 405, "\r\nAllow: POST\r\n");
    ask_expect("DELETE", "/v1/down", "", 405, "\"remedy\":\"use one of: POST\"");
    ask_expect("GET", "/nothing", "", 404, "\"error\":\"there is no endpoint /nothing\"");
    struct client c = ask("HEAD", "/healthz", "");
    expect(&c, 200, "Content-Length: 3\r\n");
    assert_string_equal(strstr(c.got.p, "\r\n\r\n"), "\r\n\r\n");
    client_close(&c);
}

static void test_public_port(void **state)
{
    struct client c = ask_on(false, "GET", "/healthz", "");
    expect(&c, 200, "ok");
    client_close(&c);
    c = ask_on(false, "GET", "/v1/secrets", "");
    expect(&c, 404, "Unix socket");
    client_close(&c);
    c = ask_on(false, "POST", "/v1/down", "{}");
    expect(&c, 404, "Unix socket");
    client_close(&c);
    assert_int_equal(node.downs, 0);
}

/* At a hand-over the next engine accepts what comes now; what is under way is answered and ends its connection, and so is the first request of who was let in and
 * did not come to send it yet. */
static void test_suspend(void **state)
{
    struct client rest = client_open(true), half = client_open(true), mute = client_open(true);
    client_text(&rest, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&rest, "ok");
    client_text(&half, "POST /v1/delete HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{");
    for (int i = 0; i < 20; i++)
        loop_turn(node.loop, 1);
    api_suspend(node.api);
    client_until(&rest, NULL); /* closed */
    assert_int_equal(api_busy(node.api), 2);
    client_text(&half, "}");
    client_until(&half, NULL);
    assert_non_null(strstr(half.got.p, "Connection: close"));
    client_text(&mute, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&mute, NULL);
    assert_non_null(strstr(mute.got.p, "Connection: close"));
    assert_int_equal(api_busy(node.api), 0);
    client_close(&mute);
    client_close(&rest);
    client_close(&half);
    struct client late = client_open(true);
    client_text(&late, "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 20; i++)
        loop_turn(node.loop, 1);
    assert_int_equal(late.got.n, 0); /* it waits in the backlog ... */
    api_resume(node.api);
    client_until(&late, NULL); /* ... until somebody accepts */
    assert_non_null(strstr(late.got.p, "200 OK"));
    client_close(&late);
}

static void upgrade_begin(struct client *c, const char *body)
{
    char text[256];
    *c = client_open(true);
    snprintf(text, sizeof text, "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    client_text(c, text);
    for (int i = 0; i < 20; i++)
        loop_turn(node.loop, 1);
}

static void test_upgrade(void **state)
{
    struct client c;
    ask_expect("POST", "/v1/upgrade", "{\"binary\":\"weir\"}", 400, "no absolute path");
    node.upgrade = ERR_INVALID;
    ask_expect("POST", "/v1/upgrade", "{}", 409, "it is what it is");
    node.upgrade = OK;
    upgrade_begin(&c, "{\"binary\":\"/x/weir\",\"drain_ms\":5}");
    assert_string_equal(node.upgrade_binary, "/x/weir");
    assert_int_equal(node.upgrade_drain_ms, 5);
    assert_int_equal(c.got.n, 0);
    assert_int_equal(api_busy(node.api), 0); /* it is what is waited for */
    ask_expect("POST", "/v1/upgrade", "{}", 409, "in progress");
    api_upgraded(node.api, OK, NULL, 77);
    client_until(&c, "}");
    assert_non_null(strstr(c.got.p, "{\"pid\":77}"));
    client_close(&c);
    upgrade_begin(&c, "{}");
    api_upgraded(node.api, ERR_CLOSED, "it was ended by signal 9", 0);
    client_until(&c, "}");
    assert_non_null(strstr(c.got.p, "409 "));
    assert_non_null(strstr(c.got.p, "signal 9"));
    client_close(&c);
    upgrade_begin(&c, "{}");
    client_close(&c);
    for (int i = 0; i < 20; i++)
        loop_turn(node.loop, 1);
    api_upgraded(node.api, OK, NULL, 78); /* nobody waits any more */
    ask_expect("GET", "/healthz", "", 200, "ok");
}

/* What nobody has declared is there all the same: "default", and where something is. */
static void namespaces_are(const char *want)
{
    json_t *list = ask_json("/v1/namespaces"), *o;
    struct buf names = {0};
    size_t i;
    json_array_foreach (json_object_get(list, "items"), i, o)
        buf_printf(&names, "%s ", json_string_value(json_object_get(json_object_get(o, "metadata"), "name")));
    assert_string_equal(names.p, want);
    buf_free(&names);
    json_decref(list);
}

static void test_namespaces(void **state)
{
    struct diags d = {0};
    const char *more = "apiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: used}\n"
                       "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: used}\n";
    namespaces_are("default ");
    objset_read(node.set, "more.yaml", "/", slice_cstr(more), "default", false, &d);
    diags_free(&d);
    namespaces_are("empty default used ");
}

static void test_pipelined(void **state)
{
    struct client c = client_open(true);
    client_text(
        &c,
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\nPOST /v1/rollout/restart HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
        "{\"name\":\"web\"}GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client_until(&c, NULL);
    assert_int_equal(count(&c, "HTTP/1.1 "), 4);
    char *ok = strstr(c.got.p, "ok\n"), *version = strstr(c.got.p, "\"version\""), *restarting = strstr(c.got.p, "restarting"),
         *ready = strstr(c.got.p, "ready\n");
    assert_true(ok && version && restarting && ready && ok < version && version < restarting && restarting < ready);
    assert_int_equal(node.restarts, 1);
    client_close(&c);
}

static void test_byte_by_byte(void **state)
{
    struct client c = client_open(true);
    const char *text = "POST /v1/rollout/restart HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"name\":\"web\"}";
    for (; *text; text++) {
        client_send(&c, text, 1);
        loop_turn(node.loop, 0);
    }
    client_until(&c, "restarting");
    client_close(&c);
}

static void test_malformed(void **state)
{
    static const struct {
        const char *text;
        unsigned status;
    } bad[] = {
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400},
        {"nonsense\r\n\r\n", 400},
        {"POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
        {"POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct client c = client_open(true);
        client_text(&c, bad[i].text);
        client_until(&c, NULL);
        expect(&c, bad[i].status, "\"error\":");
        expect(&c, bad[i].status, "Connection: close\r\n");
        client_close(&c);
    }
    assert_int_equal(node.api->malformed, 3);
    assert_int_equal(node.api->limit_hits[API_LIMIT_BODY_BYTES], 1);
}

static void test_huge_head(void **state)
{
    struct client c = client_open(true);
    char a[4096];
    memset(a, 'a', sizeof a);
    client_text(&c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ");
    for (int i = 0; i < 8; i++)
        client_send(&c, a, sizeof a);
    client_until(&c, NULL);
    expect(&c, 431, "\"error\":");
    assert_int_equal(node.api->limit_hits[API_LIMIT_HEAD_BYTES], 1);
    client_close(&c);
}

static void test_http10_and_continue(void **state)
{
    struct client c = client_open(true);
    client_text(&c, "GET /healthz HTTP/1.0\r\n\r\n");
    client_until(&c, NULL);
    expect(&c, 200, "ok\n");
    client_close(&c);
    c = client_open(true);
    client_text(&c, "POST /v1/rollout/restart HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n");
    client_until(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    client_text(&c, "{\"name\":\"web\"}");
    client_until(&c, "HTTP/1.1 202 ");
    client_close(&c);
}

static void test_late_clients(void **state)
{
    node.api->limit[API_LIMIT_HEAD_MS] = node.api->limit[API_LIMIT_BODY_MS] = node.api->limit[API_LIMIT_IDLE_MS] = 30;
    struct client head = client_open(true), body = client_open(true), idle = client_open(true);
    client_text(&head, "GET /heal");
    client_text(&body, "POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
    client_until(&head, NULL);
    client_until(&body, NULL);
    client_until(&idle, NULL);
    expect(&head, 408, "head did not arrive");
    expect(&body, 408, "no progress");
    assert_int_equal(idle.got.n, 0);
    assert_int_equal(node.api->limit_hits[API_LIMIT_HEAD_MS], 1);
    assert_int_equal(node.api->limit_hits[API_LIMIT_BODY_MS], 1);
    assert_int_equal(node.api->limit_hits[API_LIMIT_IDLE_MS], 1);
    client_close(&head);
    client_close(&body);
    client_close(&idle);
}

static void test_connections_bounded(void **state)
{
    node.api->limit[API_LIMIT_ADMIN_CONNS] = 2;
    struct client a = client_open(true), b = client_open(true), over;
    client_text(&a, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&a, "ok\n");
    over = client_open(true);
    client_until(&over, NULL);
    assert_int_equal(over.got.n, 0);
    assert_int_equal(node.api->limit_hits[API_LIMIT_ADMIN_CONNS], 1);
    client_close(&a);
    client_close(&b);
    client_close(&over);
    ask_expect("GET", "/healthz", "", 200, "ok");
}

/* Many pipelined requests whose answers nobody reads: bounded memory, then the connection is closed. */
static void test_reader_that_takes_nothing(void **state)
{
    node.api->limit[API_LIMIT_OUT_BYTES] = 65536;
    node.api->limit[API_LIMIT_WRITE_MS] = 50;
    struct client c = client_open(true);
    const char *text = "GET /v1/objects HTTP/1.1\r\nHost: x\r\n\r\n";
    uint64_t due = mono_ns() + PATIENCE_MS * 1000000ull;
    while (!node.api->limit_hits[API_LIMIT_WRITE_MS]) {
        assert_true(mono_ns() < due);
        send(c.fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
        loop_turn(node.loop, 0);
        assert_true(mem_bytes(MEM_STREAM) < 262144);
    }
    client_close(&c);
}

static void test_half_closed(void **state)
{
    struct client c = client_open(true);
    client_text(&c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(c.fd, SHUT_WR);
    client_until(&c, NULL);
    expect(&c, 200, "ok\n");
    client_close(&c);
}

/* ---- objects --------------------------------------------------------------------------------------------------------------- */

static void test_get_workloads(void **state)
{
    json_t *o = ask_json("/v1/workloads?namespace=default&name=web");
    json_t *item = json_array_get(json_object_get(o, "items"), 0), *status = json_object_get(item, "status");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    assert_int_equal(json_integer_value(json_object_get(status, "readyReplicas")), 1);
    assert_int_equal(json_integer_value(json_object_get(status, "unavailableReplicas")), 1);
    json_t *replica = json_array_get(json_object_get(status, "replicaStatuses"), 0);
    assert_string_equal(json_string_value(json_object_get(replica, "why")), "liveness: 500");
    assert_int_equal(json_integer_value(json_object_get(replica, "pid")), getpid());
    assert_string_equal(json_string_value(json_object_get(json_object_get(item, "metadata"), "namespace")), "default");
    json_decref(o);
    ask_expect("GET", "/v1/workloads?name=absent", "", 200, "\"items\":[]");
    ask_expect("GET", "/v1/workloads?namespace=w%65b", "", 200, "\"items\":[]");
}

static void test_get_services_and_routes(void **state)
{
    json_t *o = ask_json("/v1/services");
    json_t *status = json_object_get(json_array_get(json_object_get(o, "items"), 0), "status");
    assert_non_null(strstr(json_string_value(json_object_get(status, "address")), "127."));
    json_t *ep = json_array_get(json_object_get(json_array_get(json_object_get(status, "endpoints"), 0), "endpoints"), 0);
    assert_string_equal(json_string_value(json_object_get(ep, "address")), "127.0.0.1:80");
    json_decref(o);
    ask_expect("GET", "/v1/routes", "", 200, "{\"type\":\"Accepted\",\"status\":\"True\"");
    ask_expect("GET", "/v1/routes", "", 200, "Service default/absent is not there; port 81");
    ask_expect("GET", "/v1/gateways", "", 200, "\"attachedRoutes\":1");
    ask_expect("GET", "/v1/gateways", "", 200, "{\"type\":\"Programmed\",\"status\":\"True\"");
    port_held = "port 80 is held by another"; /* the plan wants it, and there is no socket */
    ask_expect("GET", "/v1/gateways", "", 200, "{\"type\":\"Programmed\",\"status\":\"False\",\"reason\":\"Pending\",\"message\":\"port 80 is held by another\"");
    ask_expect("GET", "/v1/gateways", "", 200, "{\"type\":\"Accepted\",\"status\":\"False\",\"reason\":\"PortUnavailable\"");
    port_held = NULL;
}

/* What registers itself may have another port than the replicas, or an IPv6 address: an EndpointSlice has one of each. */
static void test_slices(void **state)
{
    const struct plan_cluster was = node.plan.clusters[0];
    struct plan_endpoint eps[] = {
        {.id = 2, .name = "127.0.0.1:9", .address = {.ip = {127, 0, 0, 1}, .port = 9, .family = ADDR_IP4}},
        {.id = 3, .name = "[::1]:80", .address = {.ip = {[15] = 1}, .port = 80, .family = ADDR_IP6}},
        was.eps[0],
    };
    node.plan.clusters[0].eps = eps;
    node.plan.clusters[0].eps_n = COUNT_OF(eps);
    json_t *o = ask_json("/v1/endpointslices"), *items = json_object_get(o, "items"), *slice;
    static const struct { const char *name, *type; int port; } want[] = {{"web-80-ipv4-9", "IPv4", 9}, {"web-80-ipv6-80", "IPv6", 80}, {"web-80", "IPv4", 80}};
    assert_int_equal(json_array_size(items), COUNT_OF(want));
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        slice = json_array_get(items, i);
        assert_string_equal(json_string_value(json_object_get(json_object_get(slice, "metadata"), "name")), want[i].name);
        assert_string_equal(json_string_value(json_object_get(slice, "addressType")), want[i].type);
        assert_int_equal(json_array_size(json_object_get(slice, "endpoints")), 1);
        assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(slice, "ports"), 0), "port")), want[i].port);
    }
    json_decref(o);
    node.plan.clusters[0].eps_n = 0;
    ask_expect("GET", "/v1/endpointslices?name=web-80", "", 200, "\"addressType\":\"IPv4\",\"ports\":[],\"endpoints\":[]");
    ask_expect("GET", "/v1/endpointslices?name=web-80-ipv4-9", "", 200, "\"items\":[]");
    node.plan.clusters[0] = was;
}

/* A reason that is no UTF-8 is shown as well as it can be. */
static void test_reason_is_no_utf8(void **state)
{
    node.why = "exec \xff\xfe said \xc3";
    ask_expect("GET", "/v1/workloads", "", 200, "\"why\":\"exec ?? said ?\"");
    node.why = NULL;
}

/* Replicas of other nodes are called as their nodes say, in keys of the control store, which are bytes. */
static void test_names_are_no_utf8(void **state)
{
    static const struct plan_remote far = {.node = "b\xff", .sni = "x"};
    const struct plan_cluster was = node.plan.clusters[0];
    struct plan_endpoint ep = {.id = 2, .name = "web-\xff", .locality = "eu/w\xff", .remote = &far, .address = {.ip = {127, 0, 0, 1}, .port = 9, .family = ADDR_IP4}};
    node.plan.clusters[0].eps = &ep;
    node.plan.clusters[0].eps_n = 1;
    ask_expect("GET", "/v1/services", "", 200, "\"name\":\"web-?\",\"node\":\"b?\"");
    ask_expect("GET", "/v1/endpointslices", "", 200, "\"name\":\"web-?\"},\"nodeName\":\"b?\"}");
    node.plan.clusters[0] = was;
}

static void test_secrets_are_redacted(void **state)
{
    struct client c = ask("GET", "/v1/secrets", "");
    expect(&c, 200, "\"token\":\"(redacted: 7 bytes, digest ");
    assert_int_equal(count(&c, "hunter2"), 0);
    assert_int_equal(count(&c, "aHVudGVyMg"), 0);
    client_close(&c);
    c = ask("GET", "/v1/objects", "");
    expect(&c, 200, "\"kind\":\"Deployment\"");
    assert_int_equal(count(&c, "hunter2"), 0);
    client_close(&c);
    ask_expect("GET", "/v1/objects?kind=secret", "", 200, "redacted");
    ask_expect("GET", "/v1/objects?kind=frog", "", 400, "unknown kind \\\"frog\\\"");
}

/* ---- apply, delete ------------------------------------------------------------------------------------------------------- */

static void test_apply(void **state)
{
    const char *body =
        "{\"files\":[{\"file\":\"a.yaml\",\"dir\":\"/\",\"text\":\"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: m}\\ndata: {k: v}\\n\"}]}";
    char dry[512];
    snprintf(dry, sizeof dry, "{\"dry_run\":true,%s", body + 1);
    ask_expect("POST", "/v1/apply", dry, 200, "\"name\":\"m\",\"change\":\"created\"");
    ask_expect("GET", "/v1/configmaps", "", 200, "\"items\":[]");
    ask_expect("POST", "/v1/apply", body, 200, "\"change\":\"created\"");
    ask_expect("GET", "/v1/configmaps", "", 200, "\"k\":\"v\"");
    ask_expect("POST", "/v1/apply", body, 200, "\"change\":\"unchanged\"");
    ask_expect("POST", "/v1/apply", "{\"files\":[{\"text\":\"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: m}\\ndata: {k: w}\\n\"}]}", 200,
               "\"change\":\"configured\"");
}

static void test_apply_refused(void **state)
{
    ask_expect("POST", "/v1/apply",
               "{\"files\":[{\"file\":\"bad.yaml\",\"text\":\"apiVersion: v1\\nkind: Service\\nmetadata: {name: s}\\nspec: {ports: [{port: -1}]}\\n\"}]}", 422,
               "\"level\":\"error\",\"file\":\"bad.yaml\",\"line\":4");
    assert_int_equal(node.applied, 0);
    ask_expect("POST", "/v1/apply", "not json", 400, "the body is not JSON");
    ask_expect("POST", "/v1/apply", "[]", 400, "not a JSON object");
    ask_expect("POST", "/v1/apply", "{}", 400, "no list \\\"files\\\"");
    ask_expect("POST", "/v1/apply", "{\"files\":[{}]}", 400, "files[0] has no \\\"text\\\"");
    node.apply_err = ERR_NOSPACE;
    ask_expect("POST", "/v1/apply", "{\"files\":[]}", 507, "no space left");
}

static void test_delete(void **state)
{
    ask_expect("POST", "/v1/delete", "{\"kind\":\"svc\",\"name\":\"web\"}", 200,
               "\"kind\":\"Service\",\"namespace\":\"default\",\"name\":\"web\",\"change\":\"deleted\"");
    ask_expect("POST", "/v1/delete", "{\"kind\":\"svc\",\"name\":\"web\"}", 404, "Service default/web: not found");
    ask_expect("POST", "/v1/delete", "{\"kind\":\"frog\",\"name\":\"x\"}", 400, "unknown kind");
    ask_expect("POST", "/v1/delete", "{\"kind\":\"svc\"}", 400, "name is missing");
    ask_expect(
        "POST", "/v1/delete",
        "{\"files\":[{\"text\":\"apiVersion: v1\\nkind: Secret\\nmetadata: {name: key}\\n---\\napiVersion: v1\\nkind: Secret\\nmetadata: {name: nope}\\n\"}]}",
        200, "\"name\":\"nope\",\"change\":\"not found\"");
    ask_expect("GET", "/v1/secrets", "", 200, "\"items\":[]");
}

static void test_down(void **state)
{
    ask_expect("POST", "/v1/down", "{}", 202, "stopping");
    assert_int_equal(node.downs, 1);
}

/* ---- logs, rollouts, top --------------------------------------------------------------------------------------------------- */

static void test_logs(void **state)
{
    char older[140];
    snprintf(older, sizeof older, "%s.1", node.log);
    ask_expect("GET", "/v1/logs?workload=default/web", "", 200, "Content-Length: 0\r\n");
    log_write(node.log, "three\nfour\nhalf");
    log_write(older, "one\ntwo\n");
    ask_expect("GET", "/v1/logs?workload=default/web", "", 200, "\r\n\r\none\ntwo\nthree\nfour\n");
    ask_expect("GET", "/v1/logs?workload=web&tail=3", "", 200, "\r\n\r\ntwo\nthree\nfour\n");
    ask_expect("GET", "/v1/logs?workload=web&tail=0", "", 200, "Content-Length: 0\r\n");
    ask_expect("GET", "/v1/logs?workload=web&tail=x", "", 400, "not a number of lines");
    ask_expect("GET", "/v1/logs?workload=other", "", 404, "no workload default/other");
    ask_expect("GET", "/v1/logs", "", 400, "no workload is named");
}

/* Lines that are in memory and not yet in the file, or in both, come out once and in order. */
static void test_logs_join(void **state)
{
    log_write(node.log, "a\nb\nc\n");
    api_log_line(node.api, "default", "web", SLICE("b"));
    api_log_line(node.api, "default", "web", SLICE("c"));
    api_log_line(node.api, "default", "else", SLICE("not mine"));
    api_log_line(node.api, "default", "web", SLICE("d"));
    ask_expect("GET", "/v1/logs?workload=web", "", 200, "\r\n\r\na\nb\nc\nd\n");
    ask_expect("GET", "/v1/logs?workload=web&tail=2", "", 200, "\r\n\r\nc\nd\n");
}

static void test_logs_follow(void **state)
{
    log_write(node.log, "a\nb\n");
    struct client c = client_open(true), old = client_open(true);
    client_text(&c, "GET /v1/logs?workload=web&tail=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    client_text(&old, "GET /v1/logs?workload=web&follow=1 HTTP/1.0\r\n\r\n");
    api_log_line(node.api, "default", "web", SLICE("early")); /* while the file is read */
    client_until(&c, "early\n");
    client_until(&old, "a\nb\nearly\n");
    assert_int_equal(count(&c, "a\n"), 0);
    api_log_line(node.api, "default", "web", SLICE("live"));
    api_log_line(node.api, "other", "web", SLICE("not mine"));
    client_until(&c, "5\r\nlive\n\r\n");
    client_until(&old, "early\nlive\n");
    assert_int_equal(count(&c, "not mine"), 0);
    assert_int_equal(node.api->admin_n, 2);
    client_close(&c);
    client_close(&old);
    for (int i = 0; i < 50 && node.api->admin_n; i++)
        loop_turn(node.loop, 1);
    assert_int_equal(node.api->admin_n, 0); /* a follower that leaves is noticed without a line */
}

static void test_logs_slow_follower(void **state)
{
    node.api->limit[API_LIMIT_OUT_BYTES] = 1024;
    struct client c = client_open(true);
    char line[1000];
    memset(line, 'x', sizeof line);
    client_text(&c, "GET /v1/logs?workload=web&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&c, "\r\n\r\n");
    for (int i = 0; i < 2000; i++)
        api_log_line(node.api, "default", "web", slice_of(line, sizeof line));
    assert_true(node.api->lines_dropped > 0);
    assert_true(mem_bytes(MEM_STREAM) < 1u << 20);
    for (int i = 0; i < 1000; i++) {
        client_take(&c);
        loop_turn(node.loop, 0);
    }
    api_log_line(node.api, "default", "web", SLICE("after"));
    client_until(&c, "lines left out here");
    client_until(&c, "after\n");
    client_close(&c);
}

/* The client goes while its file is read: the work ends alone. */
static void test_logs_client_gone(void **state)
{
    log_write(node.log, "a\n");
    struct client c = client_open(true);
    client_text(&c, "GET /v1/logs?workload=web&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    client_close(&c);
    for (int i = 0; i < 50; i++)
        loop_turn(node.loop, 1);
    ask_expect("GET", "/healthz", "", 200, "ok");
}

static void sync_now(void)
{
    struct node_sync *s = node.sync;
    node.sync = NULL;
    s->done(s);
}

/* Who asks about the objects waits until those of the store are here; the rest does not, nor does anything on a node alone. */
static void test_synced(void **state)
{
    static const char *const about[] = {"/v1/objects", "/v1/workloads", "/v1/configmaps", "/v1/history", "/v1/rollout/status"}, *const local[] = {"/v1/info", "/readyz", "/v1/nodes", "/v1/top"};
    node.complete = node.ready = true;
    for (size_t i = 0; i < COUNT_OF(about); i++)
        ask_expect("GET", about[i], "", 200, "");
    assert_int_equal(node.syncs, 0);
    node.shared = true;
    for (size_t i = 0; i < COUNT_OF(about); i++)
        ask_expect("GET", about[i], "", 200, "");
    assert_int_equal(node.syncs, COUNT_OF(about));
    for (size_t i = 0; i < COUNT_OF(local); i++)
        ask_expect("GET", local[i], "", 200, "");
    ask_expect("POST", "/v1/objects", "{}", 405, "Allow: GET, HEAD");
    assert_int_equal(node.syncs, COUNT_OF(about));
    ask_expect("POST", "/v1/delete", "{\"kind\":\"ConfigMap\",\"name\":\"nobody\"}", 404, "not found");
    assert_int_equal(node.syncs, COUNT_OF(about) + 1);

    node.sync_slow = true; /* two questions on one connection: one after the other, with what there is when they are answered */
    struct client c = client_open(true);
    client_text(&c, "GET /v1/rollout/status?workload=other HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/objects?kind=ConfigMap&name=late HTTP/1.1\r\nHost: x\r\n\r\n");
    while (!node.sync)
        loop_turn(node.loop, 1);
    assert_int_equal(c.got.n, 0);
    sync_now();
    client_until(&c, "no workload default/other");
    while (!node.sync)
        loop_turn(node.loop, 1);
    struct diags d = {0};
    objset_read(node.set, "late.yaml", "/", SLICE("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\ndata: {a: b}\n"), "default", false, &d);
    assert_int_equal(d.n, 0);
    sync_now();
    client_until(&c, "\"name\":\"late\"");
    assert_true(objset_remove(node.set, OBJ_CONFIGMAP, "default", "late"));

    client_text(&c, "GET /v1/objects HTTP/1.1\r\nHost: x\r\n\r\n"); /* and leaves before */
    while (!node.sync)
        loop_turn(node.loop, 1);
    client_close(&c);
    for (int i = 0; i < 20; i++)
        loop_turn(node.loop, 1);
    sync_now();
    static const char follow[] = "GET /v1/watch?kind=ConfigMap&name=late HTTP/1.1\r\nHost: x\r\n\r\n"; /* or has had enough when it begins */
    c = client_open(true);
    client_text(&c, follow);
    while (!node.sync)
        loop_turn(node.loop, 1);
    assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
    for (int i = 0; i < 5; i++)
        loop_turn(node.loop, 1);
    sync_now();
    client_until(&c, NULL);
    client_close(&c);
    c = client_open(true); /* another engine takes over meanwhile */
    client_text(&c, follow);
    while (!node.sync)
        loop_turn(node.loop, 1);
    api_suspend(node.api);
    sync_now();
    client_until(&c, "{\"interrupted\":true}");
    client_until(&c, NULL);
    client_close(&c);
    api_resume(node.api);
    node.sync_slow = node.shared = false;
    ask_expect("GET", "/v1/objects", "", 200, "");
}

/* What other nodes say of a Deployment is added to what this one knows, in the order of nodes. */
static void test_several_nodes(void **state)
{
    size_t i;
    json_t *r;
    static const char *const nodes[] = {"a", "b", "c"};
    node.shared = node.complete = true;
    json_t *list = ask_json("/v1/workloads"), *s = json_object_get(json_array_get(json_object_get(list, "items"), 0), "status"), *replicas = json_object_get(s, "replicaStatuses");
    assert_int_equal(json_integer_value(json_object_get(s, "readyReplicas")), 2);
    assert_int_equal(json_integer_value(json_object_get(s, "replicas")), 3);
    assert_int_equal(json_integer_value(json_object_get(s, "revision")), 5);
    assert_false(json_is_true(json_object_get(s, "complete"))); /* c is not there yet */
    assert_string_equal(json_string_value(json_object_get(s, "why")), "c: 1 of 1 replicas");
    assert_int_equal(json_array_size(replicas), 3);
    json_array_foreach (replicas, i, r)
        assert_string_equal(json_string_value(json_object_get(r, "node")), nodes[i]);
    assert_int_equal(json_array_size(json_object_get(s, "conditions")), 2);
    json_decref(list);

    node.unplaced = 1;
    ask_expect("GET", "/v1/workloads", "", 200, "\"reason\":\"Unschedulable\"");
    ask_expect("GET", "/v1/rollout/status", "", 200, "1 of 2 replicas have no node: 0/3 nodes are available: 3 Insufficient cpu.");
    node.unplaced = 0;

    uint32_t restarts = node.restarts; /* of all nodes: by the template, which all read */
    ask_expect("POST", "/v1/rollout/restart", "{\"name\":\"web\"}", 200, "\"diagnostics\":[");
    assert_int_equal(node.restarts, restarts);
    assert_non_null(strstr(objset_find(node.set, OBJ_DEPLOYMENT, "default", "web")->json, "\"kubectl.kubernetes.io/restartedAt\":\"20"));
    ask_expect("POST", "/v1/apply", "{\"files\":[{\"file\":\"w.yaml\",\"text\":\"apiVersion: apps/v1\\nkind: Deployment\\nmetadata: {name: web}\\nspec:\\n  replicas: 2\\n  selector: {matchLabels: {app: web}}\\n  template:\\n    metadata: {labels: {app: web}}\\n    spec:\\n      containers: [{name: web, image: none, command: [sleep, \\\"9\\\"], ports: [{containerPort: 80}]}]\\n\"}]}", 200, "unchanged");
    assert_non_null(strstr(objset_find(node.set, OBJ_DEPLOYMENT, "default", "web")->json, "\"kubectl.kubernetes.io/restartedAt\":\"20")); /* nothing is restarted by it */
    ask_expect("POST", "/v1/rollout/restart", "{\"name\":\"nobody\"}", 404, "no workload default/nobody");

    node.slow = true; /* what is changed while a restart is on its way stays changed */
    struct client c = client_open(true);
    client_text(&c, "POST /v1/rollout/restart HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"name\":\"web\"}");
    while (!node.change)
        loop_turn(node.loop, 1);
    struct node_change *restart = node.change;
    node.change = NULL;
    node.slow = false;
    const struct object *web = objset_find(node.set, OBJ_DEPLOYMENT, "default", "web");
    assert_int_equal(web->dep.replicas, 2);
    ask_expect("POST", "/v1/apply", "{\"patch\":true,\"files\":[{\"file\":\"w.yaml\",\"text\":\"apiVersion: apps/v1\\nkind: Deployment\\nmetadata: {name: web}\\nspec: {replicas: 3}\\n\"}]}", 200, "configured");
    node.change = restart;
    loop_defer(node.loop, &node.change_task);
    client_until(&c, "\"name\":\"web\",\"change\":"); /* configured, or unchanged in the same millisecond as the restart before */
    assert_int_equal(objset_find(node.set, OBJ_DEPLOYMENT, "default", "web")->dep.replicas, 3);
    client_close(&c);
    node.shared = false;
}

static void test_rollout(void **state)
{
    ask_expect("POST", "/v1/rollout/restart", "{\"name\":\"nobody\"}", 404, "no workload default/nobody");
    ask_expect("POST", "/v1/rollout/restart", "{}", 400, "name is missing");
    ask_expect("GET", "/v1/rollout/status?workload=default/web", "", 200, "\"complete\":true");
    ask_expect("GET", "/v1/rollout/status?workload=default/no", "", 404, "no workload default/no");
    node.complete = false;
    ask_expect("GET", "/v1/rollout/status?namespace=default", "", 200, "\"why\":\"1 of 2 ready\"");
    struct client c = client_open(true);
    client_text(&c, "GET /v1/rollout/status?workload=web&follow=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client_until(&c, "\"complete\":false");
    node.complete = true;
    client_until(&c, NULL);
    assert_non_null(strstr(c.got.p, "\"complete\":true"));
    assert_non_null(strstr(c.got.p, "\r\n0\r\n\r\n"));
    client_close(&c);
    node.complete = false;
    c = client_open(true);
    client_text(&c, "GET /v1/rollout/status?workload=web&follow=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client_until(&c, "\"complete\":false");
    node.late = true; /* what makes no progress is not waited for */
    client_until(&c, NULL);
    assert_non_null(strstr(c.got.p, "{\"late\":1,\"complete\":false}"));
    client_close(&c);
    node.late = false;
    node.complete = true;
}

#define MAP_IS(value) "{\"files\":[{\"text\":\"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: watched}\\ndata: {k: " value "}\\n\"}]}"

static void test_watch(void **state)
{
    ask_expect("GET", "/v1/watch", "", 400, "no known kind");
    ask_expect("GET", "/v1/watch?kind=Sekret&name=x", "", 400, "no known kind");
    ask_expect("GET", "/v1/watch?kind=ConfigMap", "", 400, "or no name");
    ask_expect("HEAD", "/v1/watch?kind=ConfigMap&name=watched", "", 200, "");
    struct client c = client_open(true), gone = client_open(true);
    client_text(&gone, "GET /v1/watch?kind=ConfigMap&name=watched HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&gone, "absent");
    client_close(&gone); /* in the middle of it */
    client_text(&c, "GET /v1/watch?kind=ConfigMap&namespace=default&name=watched HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&c, "{\"change\":\"absent\",\"generation\":0,\"object\":null}\n");
    ask_expect("POST", "/v1/apply", MAP_IS("v"), 200, "created");
    client_until(&c, "{\"change\":\"created\",\"generation\":1,\"object\":{");
    ask_expect("POST", "/v1/apply", MAP_IS("v"), 200, "unchanged");
    ask_expect("POST", "/v1/apply", MAP_IS("w"), 200, "configured");
    client_until(&c, "{\"change\":\"configured\",\"generation\":2,\"object\":{");
    assert_int_equal(count(&c, "\"change\":"), 3);
    ask_expect("POST", "/v1/delete", "{\"kind\":\"ConfigMap\",\"name\":\"watched\"}", 200, "deleted");
    client_until(&c, "{\"change\":\"deleted\",\"generation\":0,\"object\":null}\n");
    struct client s = client_open(true);
    client_text(&s, "GET /v1/watch?kind=secret&name=key HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&s, "(redacted: 7 bytes, digest ");
    api_suspend(node.api); /* another engine takes over */
    client_until(&s, "{\"interrupted\":true}\n");
    client_until(&c, "{\"interrupted\":true}\n");
    client_close(&s);
    client_close(&c);
}

static void test_conflicts(void **state)
{
    ask_expect("POST", "/v1/apply", MAP_IS("v"), 200, "created");
    ask_expect("POST", "/v1/apply", "{\"manager\":\"two\"," "\"files\":[{\"text\":\"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: watched}\\ndata: {k: w}\\n\"}]}", 409,
               "\"conflicts\":[{\"kind\":\"ConfigMap\",\"namespace\":\"default\",\"name\":\"watched\",\"manager\":\"weir\",\"field\":\".data.k\"}]");
    ask_expect("POST", "/v1/apply", "{\"manager\":\"a b\",\"files\":[]}", 400, "not a manager's name");
    ask_expect("GET", "/v1/objects?kind=ConfigMap&name=watched&owners=1", "", 200, "\"managedFields\":[{\"manager\":\"weir\"");
    ask_expect("POST", "/v1/rollback", "{\"revision\":3,\"kind\":\"ConfigMap\"}", 400, "or no name");
    ask_expect("POST", "/v1/rollback", "{\"revision\":3,\"kind\":\"Sekret\",\"name\":\"x\"}", 400, "no known kind");
}

static void test_top(void **state)
{
    json_t *o = ask_json("/v1/top"), *w = json_array_get(json_object_get(o, "workloads"), 0), *s = json_array_get(json_object_get(o, "services"), 0);
    assert_int_equal(json_integer_value(json_object_get(s, "requests")), 100);
    assert_int_equal(json_integer_value(json_object_get(s, "errors")), 10);
    assert_int_equal(json_integer_value(json_object_get(s, "endpoints")), 1);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(s, "duration"), 1)), 10);
    assert_int_equal(json_integer_value(json_object_get(w, "restarts")), 3);
    assert_true(json_integer_value(json_object_get(w, "memory_bytes")) > 100000); /* this process's own */
    json_decref(o);
}

/* Every connection ends when the api does, in whatever state. */
static void test_free_with_open_connections(void **state)
{
    log_write(node.log, "a\n");
    struct client c[3] = {client_open(true), client_open(true), client_open(true)};
    client_text(&c[0], "GET /v1/logs?workload=web&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    client_until(&c[0], "a\n");
    client_text(&c[1], "POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
    loop_turn(node.loop, 1);
    api_free(node.api);
    node.api = NULL;
    for (int i = 0; i < 3; i++)
        client_close(&c[i]);
}

static void test_rollback_and_history(void **state)
{
    ask_expect("POST", "/v1/rollback", "{}", 400, "the revision is missing");
    ask_expect("POST", "/v1/rollback", "{\"revision\":0}", 400, "whole number");
    ask_expect("POST", "/v1/rollback", "{\"revision\":\"3\"}", 400, "whole number");
    ask_expect("POST", "/v1/rollback", "{\"revision\":3,\"by\":\"ann\"}", 200, "\"changes\":[],\"revision\":7}");
    assert_string_equal(node.by, "ann");
    ask_expect("POST", "/v1/rollback", "{\"revision\":6}", 404, "there is no such revision");
    node.apply_err = ERR_NOSPACE;
    ask_expect("POST", "/v1/rollback", "{\"revision\":3}", 507, "no space left");
    node.apply_err = ERR_INUSE;
    ask_expect("POST", "/v1/rollback", "{\"revision\":3}", 409, "try again");
    ask_expect("GET", "/v1/history", "", 200, "{\"revision\":3,\"items\":[]}");
    ask_expect("GET", "/v1/history/4", "", 404, "there is no such revision");
    ask_expect("GET", "/v1/history/", "", 404, "no endpoint");
    ask_expect("GET", "/v1/history/x", "", 404, "x is no revision");
    ask_expect("GET", "/v1/history/0", "", 404, "0 is no revision");
    ask_expect("GET", "/v1/history/1/3", "", 404, "1/3 is no revision");
    ask_expect("POST", "/v1/history/3", "", 405, "Allow: GET, HEAD");
    json_t *o = ask_json("/v1/history/3"), *changes = json_object_get(o, "changes");
    assert_int_equal(json_array_size(changes), 3);
    assert_true(json_is_null(json_object_get(json_array_get(changes, 0), "before")) && json_is_object(json_object_get(json_array_get(changes, 0), "after")));
    assert_true(json_is_object(json_object_get(json_array_get(changes, 2), "before")) && json_is_null(json_object_get(json_array_get(changes, 2), "after")));
    static char text[2000], before[1000], after[1000];
    assert_in_range(json_dumpb(json_array_get(changes, 1), text, sizeof text - 1, JSON_COMPACT), 1, sizeof text - 1);
    assert_null(strstr(text, "hunter"));
    assert_null(strstr(text, "aHVudGVy"));
    assert_non_null(strstr(text, "\"token\":\"(redacted: 7 bytes, digest "));
    assert_in_range(json_dumpb(json_object_get(json_array_get(changes, 1), "before"), before, sizeof before - 1, 0), 1, sizeof before - 1);
    assert_in_range(json_dumpb(json_object_get(json_array_get(changes, 1), "after"), after, sizeof after - 1, 0), 1, sizeof after - 1);
    assert_string_not_equal(before, after);
    json_decref(o);
}

/* Who asked for a change may leave before it is done: it takes place. */
static void test_change_outlives_connection(void **state)
{
    static const char body[] = "{\"kind\":\"svc\",\"name\":\"web\"}";
    struct client c = client_open(true);
    struct buf b = {0};
    buf_printf(&b, "POST /v1/delete HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", sizeof body - 1, body);
    node.slow = true;
    client_send(&c, b.p, b.n);
    while (!node.change)
        loop_turn(node.loop, 5);
    assert_int_equal(api_busy(node.api), 1);
    client_close(&c);
    assert_non_null(objset_find(node.set, OBJ_SERVICE, "default", "web"));
    fake_changed(&node.change_task);
    assert_null(objset_find(node.set, OBJ_SERVICE, "default", "web"));
    buf_free(&b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_rollback_and_history),
        T(test_change_outlives_connection),
        T(test_probes),
        T(test_methods_and_paths),
        T(test_public_port),
        T(test_namespaces),
        T(test_suspend),
        T(test_upgrade),
        T(test_pipelined),
        T(test_byte_by_byte),
        T(test_malformed),
        T(test_huge_head),
        T(test_http10_and_continue),
        T(test_late_clients),
        T(test_connections_bounded),
        T(test_reader_that_takes_nothing),
        T(test_half_closed),
        T(test_get_workloads),
        T(test_get_services_and_routes),
        T(test_slices),
        T(test_reason_is_no_utf8),
        T(test_names_are_no_utf8),
        T(test_secrets_are_redacted),
        T(test_apply),
        T(test_apply_refused),
        T(test_delete),
        T(test_down),
        T(test_logs),
        T(test_logs_join),
        T(test_logs_follow),
        T(test_logs_slow_follower),
        T(test_logs_client_gone),
        T(test_rollout),
        T(test_synced),
        T(test_several_nodes),
        T(test_watch),
        T(test_conflicts),
        T(test_top),
        T(test_free_with_open_connections),
    };
    struct buf why = {0};
    if (keyring_read(SLICE("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), &keyring, &why) != OK)
        return 1;
    int failed = cmocka_run_group_tests_name("api", tests, NULL, NULL);
    keyring_free(keyring);
    return failed;
}
