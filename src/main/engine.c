/* engine.c - the engine's life.
 *
 *   start    sup_client -> take(): run -> adopt_*() -> ready(): the control store, objects from it or from the files of `weir up`
 *            (engine_objects.c) -> run_want(), gates, plan -> engine_settled(): api
 *   stop     gates stop accepting, requests from outside end -> run_stop() -> store_down(), broker_down() -> sup_shutdown()
 *   upgrade  engine_upgrade.c
 *
 * A first start that can't succeed (manifest errors, a taken port) prints why and exits with SUP_EXIT_CONFIG, so that sup
 * does not try again.
 */
#include "engine_int.h"
#include "secrets_key.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRAIN_POLL_MS 10

/* ---- stopping ------------------------------------------------------------------------------------------------------------ */

/* sup is told, and waits for this process to end: one turn later, so that nobody's callback is on the stack. */
static void engine_end_told(struct engine *e)
{
    sup_shutdown(e->sup, e->end_status);
    loop_defer(e->loop, &e->end);
}

static void engine_end(struct engine *e, int exit_status)
{
    e->end_status = exit_status;
    store_down(e, engine_end_told); /* the event log closes last: what is stopped may still have published */
}

static void end_now(struct task *t) { loop_stop(CONTAINER_OF(t, struct engine, end)->loop); }

static void stopped(void *ctx)
{
    struct engine *e = ctx;
    log_info("engine", "all workloads have stopped");
    e->run_stopped = true;
    engine_end(e, 0);
}

/* Waits until every worker says that no client from outside is left, then stops the workloads. */
static void drain_poll(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, drain_poll);
    if (cluster_moving(e) && loop_now_ms(e->loop) - e->drain_since_ms < CLUSTER_MOVE_MS) { /* others take over what runs here */
        timer_set(e->loop, &e->drain_poll, DRAIN_POLL_MS);
        return;
    }
    if (e->drained_n < e->workers_n && loop_now_ms(e->loop) - e->drain_since_ms < GATEWAY_DRAIN_MS + 1000) {
        timer_set(e->loop, &e->drain_poll, DRAIN_POLL_MS);
        return;
    }
    run_stop(e->run, stopped);
}

void engine_stop(struct engine *e)
{
    if (e->stopping)
        return;
    e->stopping = true;
    log_info("engine", "stopping: requests in flight are finished first");
    if (!e->started) {
        engine_end(e, 0);
        return;
    }
    e->drain_since_ms = loop_now_ms(e->loop);
    cluster_cordon(e);
    workers_post_all(e, (struct msg){.type = W_DRAIN, .n = GATEWAY_DRAIN_MS});
    timer_set(e->loop, &e->drain_poll, DRAIN_POLL_MS);
}

static void engine_end_alone(struct engine *e) { loop_defer(e->loop, &e->end); }

/* A later engine can't know what is wanted. What runs goes on: this engine ends, and sup starts others, with back-off, until the
 * file has been mended. */
static void engine_give_way(struct engine *e)
{
    log_error("engine", "what is wanted can't be read; what runs is left alone, and this is tried again");
    e->stopping = true;
    e->exit_status = 1;
    store_down(e, engine_end_alone);
}

/* The first start can't succeed: sup ends everything with the status for bad configuration. */
void engine_config_failed(struct engine *e)
{
    e->stopping = true;
    engine_end(e, 2);
}

/* ---- run's and resolver's calls ---------------------------------------------------------------------------------------------- */

static void on_endpoints_changed(void *ctx)
{
    engine_publish(ctx);
    status_soon(ctx);
}

static bool on_in_flight(void *ctx, uint64_t replica_id) { return engine_in_flight(ctx, replica_id); }

static void on_output(void *ctx, const char *ns, const char *deployment, const char *replica, bool from_stderr, struct slice line)
{
    engine_output(ctx, ns, deployment, replica, from_stderr, line);
}

static void on_replica_up(void *ctx, uint64_t id, const char *ns, const char *deployment, const char *replica, int listen_fd)
{
    mesh_up(ctx, id, ns, deployment, replica, listen_fd);
    cluster_touch(ctx);
}

static void on_replica_gone(void *ctx, uint64_t id)
{
    mesh_gone(ctx, id);
    cluster_touch(ctx);
}

static uint32_t on_share(void *ctx, const struct object *dep) { return cluster_share(ctx, dep); }
static void on_once_starting(void *ctx, uint64_t id) { cluster_once_starting(ctx, id); }

static void on_event(void *ctx, const struct run_event *ev)
{
    status_soon(ctx);
    engine_event(ctx, ev->ns, ev->replica ? "Pod" : "Deployment", ev->replica ? ev->replica : ev->workload, ev->warning, ev->reason, ev->message);
}

static const struct run_ops engine_run_ops = {
    .endpoints_changed = on_endpoints_changed, .in_flight = on_in_flight, .output = on_output, .replica_up = on_replica_up, .replica_gone = on_replica_gone, .event = on_event, .share = on_share,
    .once_starting = on_once_starting};

/* ---- sup's calls ----------------------------------------------------------------------------------------------------------------------- */

/* Both listening sockets are sup's, so that they outlive this engine: weir.sock and, if there is one, the read-only port. */
static void api_start(struct engine *e)
{
    if (e->api_open || !e->socket_known || !e->admin_known)
        return;
    engine_output_flush(e); /* the api remembers lines from here on: those before are read from the files */
    e->api = api_new(e->loop, e->socket_fd, e->admin_fd, &engine_node_ops, e);
    e->api_open = true;
}

void engine_api_open(struct engine *e)
{
    struct addr a = {.family = ADDR_UNIX};
    int n = snprintf(a.path, sizeof a.path, "%s/weir.sock", e->conf.data_dir);
    e->admin_known = e->admin_known || e->admin_addr.family == ADDR_NONE;
    if (n < 0 || (size_t)n >= sizeof a.path) {
        log_error("admin", "the path of %s is too long for a socket in it", e->conf.data_dir);
        engine_config_failed(e);
        return;
    }
    if (e->api_asked)
        return;
    e->api_asked = true;
    if (!e->socket_known)
        sup_listen(e->sup, TOKEN_SOCKET, &a, 0, 1); /* the api follows with the answers */
    if (!e->admin_known)
        sup_listen(e->sup, TOKEN_ADMIN, &e->admin_addr, 0, 1);
    api_start(e);
}

/* Later, what runs is worth more than a way to ask about it. */
static void admin_listening(struct engine *e, uint64_t token, enum err er, const char *text, int fd)
{
    if (er != OK) {
        log_error("admin", "%s", text && *text ? text : err_text(er));
        if (!e->later) {
            engine_config_failed(e);
            return;
        }
    }
    *(token == TOKEN_SOCKET ? &e->socket_fd : &e->admin_fd) = fd;
    *(token == TOKEN_SOCKET ? &e->socket_known : &e->admin_known) = true;
    api_start(e);
}

static void sup_listening(void *ctx, uint64_t token, enum err er, const char *text, const int *fds, int n)
{
    struct engine *e = ctx;
    if (token == TOKEN_ADMIN || token == TOKEN_SOCKET)
        admin_listening(e, token, er, text, n ? fds[0] : -1);
    else if (token == TOKEN_KAFKA || token == TOKEN_KAFKA_SECURE)
        broker_listening(e, token == TOKEN_KAFKA ? WAY_PLAIN : WAY_SECURE, er, text, fds, n);
    else if (token == TOKEN_DNS_UDP || token == TOKEN_DNS_TCP)
        names_listening(e, token, er, text, n ? fds[0] : -1);
    else if (token == TOKEN_ETCD)
        store_listening(e, er, text, fds, n);
    else if (token & TOKEN_INSIDE)
        mesh_inside_listening(e, token, 0, er, text, n ? fds[0] : -1);
    else
        gate_listening(e, token, er, text, fds, n);
}

/* What comes after this engine has let go (run is NULL) is told to the next one by sup. */
static void sup_started(void *ctx, uint64_t id, enum err er, const char *text, const struct sup_replica *r)
{
    struct engine *e = ctx;
    MUST(e->run); /* it lets go only when no start is under way */
    run_on_started(e->run, id, er, text, r);
}

static void sup_exited(void *ctx, uint64_t id, int32_t status, bool oom)
{
    struct engine *e = ctx;
    if (e->run)
        run_on_exited(e->run, id, status, oom);
}

static void sup_exec_done(void *ctx, uint64_t id, uint64_t token, enum err er, int32_t status, struct slice output)
{
    struct engine *e = ctx;
    if (e->run)
        run_on_exec_done(e->run, id, token, er, status, output);
}

static void sup_got_sockets(void *ctx, uint64_t id, uint64_t token, const int *fds, int n)
{
    struct engine *e = ctx;
    if (token & RUN_TOKEN_BIT) {
        if (!e->run || !run_on_sockets(e->run, id, token, fds, n))
            for (int i = 0; i < n; i++)
                socket_close(fds[i]);
        return;
    }
    int *copy = mem_new(MEM_API, ((size_t)n + 1) * sizeof *copy);
    memcpy(copy, fds, (size_t)n * sizeof *copy);
    worker_post(e, (uint32_t)token, (struct msg){.type = W_SOCKETS, .a = id, .n = (uint32_t)n, .p = copy});
}

static void sup_adopt_listener(void *ctx, uint64_t token, const struct addr *a, uint64_t ns_id, const int *fds, int n)
{
    struct engine *e = ctx;
    if (token == TOKEN_ADMIN || token == TOKEN_SOCKET) {
        int *fd = token == TOKEN_SOCKET ? &e->socket_fd : &e->admin_fd;
        bool *known = token == TOKEN_SOCKET ? &e->socket_known : &e->admin_known;
        if (*fd >= 0)
            socket_close(fds[0]); /* this engine was in charge before */
        else
            *fd = fds[0];
        *known = true;
    } else if (token == TOKEN_KAFKA || token == TOKEN_KAFKA_SECURE) {
        broker_adopt(e, token == TOKEN_KAFKA ? WAY_PLAIN : WAY_SECURE, a, fds, n);
    } else if (token == TOKEN_DNS_UDP || token == TOKEN_DNS_TCP) {
        names_adopt(e, token, a, fds[0]);
    } else if (token == TOKEN_ETCD) {
        store_adopt(e, a, fds, n);
    } else if (token & TOKEN_INSIDE && mesh_has_inside(e, token)) {
        socket_close(fds[0]);
    } else if (token & TOKEN_INSIDE) {
        struct mesh_replica *m = table_get(&e->mesh, slice_of((char *)&ns_id, sizeof ns_id));
        e->inside_token = MAX(e->inside_token, token & ~(TOKEN_INSIDE | TOKEN_DGRAM));
        if (m) {
            struct inside_key key = {addr_ip4_host(a), a->port, (token & TOKEN_DGRAM) != 0};
            uint64_t *t = mem_new(MEM_API, sizeof *t);
            *t = token;
            table_put(&m->inside, slice_of((const char *)&key, sizeof key), t);
        }
        mesh_inside_listening(e, token, ns_id, OK, NULL, fds[0]);
    } else
        gate_adopt(e, token, a, fds, n);
}

static void sup_adopt_replica(void *ctx, const struct sup_replica *r) { run_on_adopt(((struct engine *)ctx)->run, r); }

/* A file_replace() that was killed half-way leaves PATH.RANDOM.tmp behind; nobody else writes such names here. */
static void leftovers_remove(const char *data_dir)
{
    DIR *d = opendir(data_dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        struct slice name = slice_cstr(f->d_name);
        bool ours = slice_starts(name, SLICE("objects.copy.")) || slice_starts(name, SLICE("secrets.key.")) || slice_starts(name, SLICE("run.state.")) || slice_starts(name, SLICE("topics."));
        if (ours && slice_ends(name, SLICE(".tmp")))
            (void)unlinkat(dirfd(d), f->d_name, 0);
    }
    if (d)
        closedir(d);
}

static void sup_take(void *ctx)
{
    struct engine *e = ctx;
    char log_address[ADDR_TEXT_MAX], store_address[ADDR_TEXT_MAX];
    struct run_conf rc = {.data_dir = e->conf.data_dir, .node_name = e->conf.name, .log_address = broker_host_address(e, log_address), .store_address = store_host_address(e, store_address)};
    MUST(!e->run);
    leftovers_remove(e->conf.data_dir);
    mesh_adopting(e);
    e->run = run_new(e->loop, e->sup, &rc, &engine_run_ops, e);
}

static void ready_say(const struct engine *e)
{
    if (e->caps.why[0])
        log_warn("engine", "this machine does not permit everything: %s", e->caps.why);
    if (e->leaving_pid)
        log_info("engine", "weir " WEIR_VERSION " takes over from process %d", (int)e->leaving_pid);
    else if (e->restarts)
        log_warn("engine", "restarted by the supervisor (%u times so far)", e->restarts);
}

static void sup_ready(void *ctx, const struct sup_caps *caps, const struct sup_history *h)
{
    struct engine *e = ctx;
    e->caps = *caps;
    e->history = *h;
    e->restarts = h->restarts;
    e->leaving_pid = h->leaving_pid;
    tickets_start(e);
    if (h->again) {
        upgrade_back(e);
        return;
    }
    e->later = h->restarts || h->upgrades;
    ready_say(e);
    e->started = true;
    e->configuring = !e->later;
    broker_up(e); /* before the first workload */
    names_up(e);
    if (!e->stopping)
        store_up(e);
    if (e->stopping)
        return;
    if (e->store.state == STORE_OPEN)
        cluster_objects(e);
    else
        engine_unsettled(e);
}

void engine_settled(struct engine *e)
{
    objects_copy_remove(e);
    if (!e->leaving_pid)
        engine_api_open(e); /* else when this engine serves: until then the upgrade may come to nothing */
    upgrade_serving_soon(e);
    e->configuring = e->configuring && e->gates_n > 0;
}

void engine_unsettled(struct engine *e)
{
    if (e->later)
        engine_give_way(e);
    else
        engine_config_failed(e);
}

static void sup_stop(void *ctx) { engine_stop(ctx); }
static void sup_rehearse(void *ctx) { upgrade_rehearse(ctx); }
static void sup_release(void *ctx) { upgrade_release(ctx); }
static void sup_drain(void *ctx, uint32_t ms, int32_t new_pid) { upgrade_drain(ctx, ms, new_pid); }
static void sup_upgrade_failed(void *ctx, enum err er, const char *text) { upgrade_over(ctx, er, text); }

static void sup_adopt_kept(void *ctx, struct slice bytes) { tickets_adopt(ctx, bytes); }

static void sup_alone(void *ctx)
{
    struct engine *e = ctx;
    e->leaving_pid = 0;
    log_info("engine", "the former engine has ended");
}

static const struct sup_client_ops engine_sup_ops = {.listening = sup_listening,
                                                     .started = sup_started,
                                                     .exited = sup_exited,
                                                     .exec_done = sup_exec_done,
                                                     .sockets = sup_got_sockets,
                                                     .take = sup_take,
                                                     .adopt_listener = sup_adopt_listener,
                                                     .adopt_replica = sup_adopt_replica,
                                                     .ready = sup_ready,
                                                     .stop = sup_stop,
                                                     .rehearse = sup_rehearse,
                                                     .release = sup_release,
                                                     .drain = sup_drain,
                                                     .upgrade_failed = sup_upgrade_failed,
                                                     .alone = sup_alone,
                                                     .adopt_kept = sup_adopt_kept};

/* ---- set-up ------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    return (uint32_t)MAX(1, MIN(CPU_COUNT(&set), WORKERS_MAX));
}

static bool conf_parse(struct engine_conf *c, int argc, char **argv)
{
    *c = (struct engine_conf){.admin = "127.0.0.1:7070", .kafka = "127.0.0.1:9092", .etcd = "127.0.0.1:2379", .kafka_set = "", .dns = "off", .dns_forward = "", .kafka_secure = "off", .kafka_cert = "", .kafka_key = "", .join = "", .etcd_cert = "", .etcd_key = "", .etcd_ca = "", .etcd_password = "", .etcd_user = "", .node_labels = "", .node_listen = "off", .node_cert = "", .node_key = "", .node_ca = "", .secrets_key = "", .secrets_key_command = "", .access_log = "off", .name = "weir", .default_ns = "default", .locality = "", .ticket_ms = TLS_TICKETS_PERIOD_MS, .kernel_tls = "off"};
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char **to = strcmp(argv[i], "--data") == 0         ? &c->data_dir
                          : strcmp(argv[i], "--admin") == 0      ? &c->admin
                          : strcmp(argv[i], "--kafka") == 0      ? &c->kafka
                          : strcmp(argv[i], "--etcd") == 0       ? &c->etcd
                          : strcmp(argv[i], "--kafka-set") == 0  ? &c->kafka_set
                          : strcmp(argv[i], "--kafka-secure") == 0 ? &c->kafka_secure
                          : strcmp(argv[i], "--kafka-cert") == 0 ? &c->kafka_cert
                          : strcmp(argv[i], "--kafka-key") == 0  ? &c->kafka_key
                          : strcmp(argv[i], "--dns") == 0        ? &c->dns
                          : strcmp(argv[i], "--dns-forward") == 0 ? &c->dns_forward
                          : strcmp(argv[i], "--join") == 0       ? &c->join
                          : strcmp(argv[i], "--etcd-cert") == 0  ? &c->etcd_cert
                          : strcmp(argv[i], "--etcd-key") == 0   ? &c->etcd_key
                          : strcmp(argv[i], "--etcd-ca") == 0    ? &c->etcd_ca
                          : strcmp(argv[i], "--etcd-user") == 0  ? &c->etcd_user
                          : strcmp(argv[i], "--etcd-password") == 0 ? &c->etcd_password
                          : strcmp(argv[i], "--node-labels") == 0 ? &c->node_labels
                          : strcmp(argv[i], "--node-listen") == 0 ? &c->node_listen
                          : strcmp(argv[i], "--node-cert") == 0  ? &c->node_cert
                          : strcmp(argv[i], "--node-key") == 0   ? &c->node_key
                          : strcmp(argv[i], "--node-ca") == 0    ? &c->node_ca
                          : strcmp(argv[i], "--secrets-key") == 0 ? &c->secrets_key
                          : strcmp(argv[i], "--secrets-key-command") == 0 ? &c->secrets_key_command
                          : strcmp(argv[i], "--access-log") == 0 ? &c->access_log
                          : strcmp(argv[i], "--kernel-tls") == 0 ? &c->kernel_tls
                          : strcmp(argv[i], "--name") == 0       ? &c->name
                          : strcmp(argv[i], "--namespace") == 0  ? &c->default_ns
                          : strcmp(argv[i], "--locality") == 0   ? &c->locality
                                                                 : NULL;
        uint64_t n;
        if (strcmp(argv[i], "--strict") == 0)
            c->strict = true;
        else if (i + 1 >= argc)
            return false;
        else if (to)
            *to = argv[++i];
        else if (strcmp(argv[i], "--workers") == 0 && slice_u64(slice_cstr(argv[i + 1]), WORKERS_MAX, &n) == OK) {
            c->workers = (uint32_t)n;
            i++;
        } else if (strcmp(argv[i], "--ticket-time") == 0 && slice_u64(slice_cstr(argv[i + 1]), UINT32_MAX, &n) == OK && n) {
            c->ticket_ms = (uint32_t)n;
            i++;
        } else
            return false;
    }
    c->files = argv + MIN(i + 1, argc);
    c->files_n = MAX(0, argc - i - 1);
    if (!c->workers)
        c->workers = cores();
    return c->data_dir != NULL;
}

/* The arguments lie where the process's title will be written. */
static void conf_keep(struct engine_conf *c)
{
    c->data_dir = mem_strdup(MEM_MISC, c->data_dir);
    c->admin = mem_strdup(MEM_MISC, c->admin);
    c->kafka = mem_strdup(MEM_MISC, c->kafka);
    c->etcd = mem_strdup(MEM_MISC, c->etcd);
    c->kafka_set = mem_strdup(MEM_MISC, c->kafka_set);
    c->kafka_secure = mem_strdup(MEM_MISC, c->kafka_secure);
    c->kafka_cert = mem_strdup(MEM_MISC, c->kafka_cert);
    c->kafka_key = mem_strdup(MEM_MISC, c->kafka_key);
    c->join = mem_strdup(MEM_MISC, c->join);
    c->etcd_cert = mem_strdup(MEM_MISC, c->etcd_cert);
    c->etcd_key = mem_strdup(MEM_MISC, c->etcd_key);
    c->etcd_ca = mem_strdup(MEM_MISC, c->etcd_ca);
    c->etcd_user = mem_strdup(MEM_MISC, c->etcd_user);
    c->etcd_password = mem_strdup(MEM_MISC, c->etcd_password);
    c->node_labels = mem_strdup(MEM_MISC, c->node_labels);
    c->dns = mem_strdup(MEM_MISC, c->dns);
    c->dns_forward = mem_strdup(MEM_MISC, c->dns_forward);
    c->node_listen = mem_strdup(MEM_MISC, c->node_listen);
    c->node_cert = mem_strdup(MEM_MISC, c->node_cert);
    c->node_key = mem_strdup(MEM_MISC, c->node_key);
    c->node_ca = mem_strdup(MEM_MISC, c->node_ca);
    c->secrets_key = mem_strdup(MEM_MISC, c->secrets_key);
    c->secrets_key_command = mem_strdup(MEM_MISC, c->secrets_key_command);
    c->access_log = mem_strdup(MEM_MISC, c->access_log);
    c->kernel_tls = mem_strdup(MEM_MISC, c->kernel_tls);
    c->name = mem_strdup(MEM_MISC, c->name);
    c->default_ns = mem_strdup(MEM_MISC, c->default_ns);
    c->locality = mem_strdup(MEM_MISC, c->locality);
    char **files = mem_new(MEM_MISC, ((size_t)c->files_n + 1) * sizeof *files);
    for (int i = 0; i < c->files_n; i++)
        files[i] = mem_strdup(MEM_MISC, c->files[i]);
    c->files = files;
}

static void limits_raise(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* sup has asked for the module, if it may: an engine has no right to. */
static void kernel_tls_find(const struct engine_conf *c)
{
    if (strcmp(c->kernel_tls, "off") != 0 && !tls_kernel_start())
        log_info("engine", "the kernel has no TLS of its own (module tls): large bodies that go out over TLS are encrypted here");
}

static void folder_make(const char *data_dir, const char *name)
{
    struct buf b = {0};
    buf_printf(&b, "%s/%s", data_dir, name);
    if (mkdir(b.p, 0700) && errno != EEXIST)
        log_error("engine", "%s can't be made: %s", b.p, err_text(err_from_errno(errno)));
    buf_free(&b);
}

bool engine_address_parse(struct slice text, struct addr *a)
{
    *a = (struct addr){0};
    if (slice_is(text, "off"))
        return true;
    size_t host = text.n;
    uint64_t port;
    while (host && text.p[host - 1] != ':')
        host--;
    return host && slice_u64(slice_of(text.p + host, text.n - host), 65535, &port) == OK && addr_parse(slice_of(text.p, host - 1), (uint16_t)port, a) == OK;
}

static void engine_init(struct engine *e)
{
    kernel_tls_find(&e->conf);
    e->loop = loop_new("weir: engine");
    timer_init(&e->gate_retry, engine_gates_retry);
    timer_init(&e->drain_poll, drain_poll);
    task_init(&e->end, end_now);
    upgrade_init(e);
    tickets_init(e);
    broker_init(e);
    store_init(e);
    cluster_init(e);
    objects_init(e);
    e->events = events_new(e->loop, e->conf.name);
    if (e->conf.join[0])
        events_share(e->events);
    e->objects = objset_new();
    e->memory = plan_memory_new();
    plan_memory_locality(e->memory, e->conf.locality);
    peers_init(e);
    e->resolver = resolver_new(e->loop, resolve_name, on_endpoints_changed, e);
    if (strcmp(e->conf.access_log, "off") != 0)
        e->access = log_file_open(strcmp(e->conf.access_log, "-") == 0 ? NULL : e->conf.access_log, LOG_FILE_BYTES_MAX * 10);
    e->console = log_file_open(NULL, 0);
    workers_start(e);
}

/* After the loop: threads joined, files flushed, memory given back (so that a leak shows in the sanitizer builds). A run
 * that was not stopped still has work under way: after a failed start, it is left to the end of the process. The channel to
 * sup stays open to the last: closing it tells sup that the engine is of no more use, and sup then ends it. */
static void engine_fini(struct engine *e)
{
    if (e->api_open)
        api_free(e->api);
    e->api_open = false;
    workers_stop(e);
    resolver_free(e->resolver);
    timer_clear(&e->gate_retry);
    timer_clear(&e->drain_poll);
    timer_clear(&e->hand_poll);
    timer_clear(&e->ticket_timer);
    broker_fini(e);
    objects_fini(e);
    events_free(e->events);
    store_fini(e);
    cluster_fini(e);
    peers_fini(e);
    if (e->run_stopped || e->hand == HAND_LEAVING) {
        run_free(e->run);
        mesh_free(e);
        gates_free(e);
        plan_unref(e->plan);
        plan_memory_free(e->memory);
        objset_free(e->objects);
    }
    keyring_free(e->keys);
    engine_logs_close(e);
}

/* Before there is a second thread: a command may be run for it. */
static bool keys_open(struct engine *e)
{
    struct buf why = {0};
    bool good = secrets_key_open(e->conf.data_dir, e->conf.secrets_key, e->conf.secrets_key_command, e->conf.join[0] != 0, &e->keys, &why) == OK;
    if (!good)
        fprintf(stderr, "weir: %s\n", why.p);
    buf_free(&why);
    return good;
}

int engine_main(int argc, char **argv)
{
    static struct engine e = {.admin_fd = -1, .socket_fd = -1};
    const char *fd = getenv(SUP_FD_ENV);
    uint64_t sup_fd;
    if (!fd || slice_u64(slice_cstr(fd), 1u << 20, &sup_fd) != OK || !conf_parse(&e.conf, argc, argv) || !engine_address_parse(slice_cstr(e.conf.admin), &e.admin_addr) ||
        !engine_address_parse(slice_cstr(e.conf.etcd), &e.store.address) || !engine_address_parse(slice_cstr(e.conf.kafka), &e.broker.ways[WAY_PLAIN].address) ||
        !engine_address_parse(slice_cstr(e.conf.kafka_secure), &e.broker.ways[WAY_SECURE].address) || !engine_address_parse(slice_cstr(e.conf.node_listen), &e.peers.gate) ||
        !names_init(&e)) {
        fprintf(stderr, "weir: engine: this command is for the supervisor; use `weir up`\n");
        return SUP_EXIT_CONFIG;
    }
    conf_keep(&e.conf);
    process_title("weir: engine");
    prctl(PR_SET_NAME, "weir: engine");
    mallopt(M_ARENA_MAX, 2);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches the whole foreground group: it is sup that acts on it */
    limits_raise();
    uint64_t seed;
    random_bytes(&seed, sizeof seed);
    hash_seed(seed);
    folder_make(e.conf.data_dir, "logs");
    folder_make(e.conf.data_dir, "net");
    if (!keys_open(&e))
        return SUP_EXIT_CONFIG; /* of a first engine: the end of the start; of a later one: what runs goes on, and sup tries again */
    log_start(LOG_INFO);
    engine_init(&e);
    e.sup = sup_client_new(e.loop, (int)sup_fd, &engine_sup_ops, &e);
    thread_prompt(); /* a change waits for this loop and for the pool by turns; workers, which move bytes, keep the kernel's turns */
    loop_run(e.loop);
    if (e.broker.stuck || e.store.stuck) { /* its shards are on loops that can't be freed under them */
        log_stop();
        _exit(e.exit_status);
    }
    engine_fini(&e);
    log_stop();
    return e.exit_status;
}
