/* cmd_up.c - weir up: starts a node.
 *
 *     files -> read and checked here, so that a typing error ends at once and nothing was started
 *     data folder -> made, locked (the lock is held by sup for life), its socket looked at
 *     foreground:  sup_main() in this process
 *     -d:          fork; the child becomes sup with its output in DATA/weir.log; this process waits until the node says
 *                  that it is ready, or has failed, and tells which
 *
 * What the files mean as a whole (references between objects and to what the node already has) is the engine's to check:
 * it ends with SUP_EXIT_CONFIG then, which is EXIT_USAGE here.
 */
#include "broker.h"
#include "cli.h"
#include "join.h"
#include "names.h"
#include "sup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX 64 /* as the engine has it */
#define LOG_FILE "weir.log"
#define STORE_FILE "ctl/ctl.db"     /* the control store: what the node was told last, kept by the engine */
#define OBJECTS_FILE "objects.json" /* the same of Weir before the control store */
#define STDIN_FILE "stdin.yaml"     /* what came over standard input, for the engine */
#define LOOK_MS 50
#define TAIL_BYTES 16384 /* of the log, shown when a detached node did not come up */

/* Everything that the engine's command line is made of. */
struct up {
    const struct args *a;
    struct sources files;
    char data[PATH_MAX];       /* absolute */
    uint32_t ticket_ms;        /* of --ticket-time */
    const char *kernel_tls;    /* "auto" or "off" */
    char access_log[PATH_MAX]; /* absolute, "-" or "off" */
    char name[64];
    uint64_t workers;
    const char *admin, *etcd, *kafka, *kafka_set, *kafka_secure, *dns, *dns_forward;
    char kafka_cert[4096], kafka_key[4096]; /* absolute; "" when not given */
    const char *node_listen;
    char node_cert[4096], node_key[4096], node_ca[4096]; /* likewise */
    char secrets_key[4096];    /* the same */
    const char *join, *node_labels, *etcd_user; /* "" when not given */
    char etcd_cert[4096], etcd_key[4096], etcd_ca[4096], etcd_password[4096]; /* files, absolute; "" when not given */
    const char *secrets_key_command; /* "" when not given */
    const char *locality; /* "region/zone/subzone", perhaps only its beginning; NULL: not said */
    uint32_t timeout_ms;
    int lock_fd;
    char **argv; /* of the engine */
};

/* ---- the data folder --------------------------------------------------------------------------------------------------- */

static const char *data_named(const struct up *u)
{
    const char *named = args_str(u->a, "data", cli_env("WEIR_DATA"));
    return named ? named : ".weir";
}

static int data_open(struct up *u)
{
    const char *dir = data_named(u);
    struct stat st;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "name another one with --data", "data folder %s can't be made: %s", dir, strerror(errno));
    if (!realpath(dir, u->data) || stat(u->data, &st) != 0 || !S_ISDIR(st.st_mode))
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "name another one with --data", "%s is no folder", dir);
    if (st.st_uid != geteuid() || (st.st_mode & 0022))
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "chown it to yourself and chmod it to 0700", "data folder %s can be written by others", u->data);
    if (strlen(u->data) + sizeof "/" NODE_SOCKET > sizeof((struct sockaddr_un *)0)->sun_path)
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "choose a shorter one with --data", "the path of data folder %s is too long for a Unix socket in it",
                        u->data);
    return EXIT_OK;
}

static bool socket_answers(const struct up *u, const char *target, struct client_answer *answer)
{
    struct buf path = {0};
    buf_printf(&path, "%s/" NODE_SOCKET, u->data);
    struct client_call call = {.socket_path = path.p, .method = "GET", .target = target, .timeout_ms = 2000};
    enum client_end e = client_run(&call, answer);
    buf_free(&path);
    return e == CLIENT_OK || e == CLIENT_LATE;
}

static int data_lock(struct up *u)
{
    struct client_answer answer = {0};
    int pid;
    const char *remedy = "bring your changes to it with weir apply, or stop it with weir down";
    if (!node_lock(u->data, &u->lock_fd, &pid)) {
        if (!pid)
            return cli_fail(EXIT_FAILED, u->a->cmd->name, remedy, "a node already runs on %s, or its file \"lock\" can't be opened", u->data);
        return cli_fail(EXIT_FAILED, u->a->cmd->name, remedy, "a node already runs on %s (process %d)", u->data, pid);
    }
    bool alive = socket_answers(u, "/healthz", &answer);
    buf_free(&answer.body);
    return alive ? cli_fail(EXIT_FAILED, u->a->cmd->name, remedy, "a node already answers on %s/" NODE_SOCKET, u->data) : EXIT_OK;
}

/* Our process number, for those who find the lock held. */
static void lock_sign(const struct up *u)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%d\n", getpid());
    if (ftruncate(u->lock_fd, 0) != 0 || pwrite(u->lock_fd, text, (size_t)n, 0) != n)
        cli_fail(0, u->a->cmd->name, NULL, "the lock file could not be signed: %s", strerror(errno)); /* it holds all the same */
}

/* ---- options -------------------------------------------------------------------------------------------------------------- */

/* "shop-3fa2": the folder that the data folder is in, and four digits that tell nodes of equal folders apart. */
static void name_default(struct up *u)
{
    uint32_t hash = 2166136261u; /* FNV-1a: the same in every process */
    char parent[PATH_MAX], word[41];
    size_t n = 0;
    for (const char *p = u->data; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    snprintf(parent, sizeof parent, "%s", u->data);
    char *slash = strrchr(parent, '/');
    if (slash && strcmp(slash, "/.weir") == 0)
        *slash = 0;
    slash = strrchr(parent, '/');
    for (const char *p = slash ? slash + 1 : parent; *p && n < sizeof word - 1; p++) {
        char c = ascii_lower(*p);
        if (isalnum((unsigned char)c) && (unsigned char)c < 128)
            word[n++] = c;
        else if (n && word[n - 1] != '-')
            word[n++] = '-';
    }
    while (n && word[n - 1] == '-')
        n--;
    word[n] = 0;
    snprintf(u->name, sizeof u->name, "%s-%04x", n ? word : "node", hash & 0xffff);
}

static int name_read(struct up *u)
{
    const char *v = args_str(u->a, "name", NULL);
    if (!v) {
        name_default(u);
        return EXIT_OK;
    }
    bool good = *v && strlen(v) <= 40 && isalnum((unsigned char)*v);
    for (const char *p = v; *p && good; p++)
        good = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-';
    if (!good)
        return cli_fail(EXIT_USAGE, u->a->cmd->name, "use up to 40 of a-z, 0-9 and -", "\"%s\" is no name for a node", v);
    snprintf(u->name, sizeof u->name, "%s", v);
    return EXIT_OK;
}

/* Up to three elements, as in the locality of a ServiceEntry's endpoint. */
static int locality_read(struct up *u)
{
    const char *v = u->locality = args_str(u->a, "locality", NULL);
    size_t slashes = 0;
    bool good = !v || (*v && strlen(v) <= 253 && *v != '/' && v[strlen(v) - 1] != '/' && !strstr(v, "//"));
    for (const char *p = v; p && *p && good; p++) {
        slashes += *p == '/';
        good = isalnum((unsigned char)*p) || strchr("-_./", *p);
    }
    if (good && slashes <= 2)
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, u->a->cmd->name, "write it as REGION, REGION/ZONE or REGION/ZONE/SUBZONE", "\"%s\" is no locality", v);
}

/* An address and a port. */
static bool address_parse(struct slice text, struct addr *out)
{
    size_t host = text.n;
    uint64_t port;
    while (host && text.p[host - 1] != ':')
        host--;
    return host && slice_u64(slice_of(text.p + host, text.n - host), 65535, &port) == OK && addr_parse(slice_of(text.p, host - 1), (uint16_t)port, out) == OK &&
           out->family != ADDR_UNIX;
}

/* An option that is "off", or an address and a port. */
static bool address_good(struct slice text)
{
    struct addr a;
    return address_parse(text, &a);
}

static int address_read(const struct up *u, const char *option, const char *absent, const char **out)
{
    const char *v = *out = args_str(u->a, option, absent);
    if (strcmp(v, "off") == 0 || address_good(slice_cstr(v)))
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, u->a->cmd->name, "write it as 127.0.0.1:7070, [::1]:7070 or off", "--%s \"%s\" is no address and port", option, v);
}

static int dns_forward_read(struct up *u)
{
    struct slice rest = slice_cstr(u->dns_forward = args_str(u->a, "dns-forward", ""));
    uint32_t n = 0;
    if (slice_is(rest, "off"))
        return EXIT_OK;
    while (rest.n) {
        if (++n > NAMES_UPSTREAMS_MAX || !address_good(slice_cut(rest, ',', &rest)))
            return cli_fail(EXIT_USAGE, u->a->cmd->name, "write it as 192.0.2.1:53,[2001:db8::1]:53, three at most, or off", "--dns-forward \"%s\" is no list of addresses and ports", u->dns_forward);
    }
    return EXIT_OK;
}

static int kafka_set_read(struct up *u)
{
    struct broker_conf conf;
    struct buf why = {0};
    int code = EXIT_OK;
    u->kafka_set = args_str(u->a, "kafka-set", "");
    broker_conf_default(&conf);
    if (broker_conf_set(&conf, slice_cstr(u->kafka_set), &why) != OK)
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "--kafka-set: %s", why.p);
    buf_free(&why);
    return code;
}

static int access_log_read(struct up *u)
{
    const char *v = args_str(u->a, "access-log", NULL);
    char cwd[PATH_MAX];
    int n;
    if (!v)
        n = snprintf(u->access_log, sizeof u->access_log, "%s/access.log", u->data);
    else if (*v == '/' || strcmp(v, "-") == 0 || strcmp(v, "off") == 0)
        n = snprintf(u->access_log, sizeof u->access_log, "%s", v);
    else
        n = snprintf(u->access_log, sizeof u->access_log, "%s/%s", getcwd(cwd, sizeof cwd) ? cwd : "", v);
    if (n < 0 || (size_t)n >= sizeof u->access_log)
        return cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "the path of --access-log is too long");
    return EXIT_OK;
}

static int kernel_tls_read(struct up *u)
{
    u->kernel_tls = args_str(u->a, "kernel-tls", "off");
    if (strcmp(u->kernel_tls, "auto") == 0 || strcmp(u->kernel_tls, "off") == 0)
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, u->a->cmd->name, "write auto or off", "--kernel-tls \"%s\" is neither auto nor off", u->kernel_tls);
}

/* Where this option's file is, absolute: the engine works elsewhere. */
static int file_option(struct up *u, const char *option, char *out, size_t max)
{
    const char *v = args_str(u->a, option, "");
    char cwd[2048];
    int n = !*v || v[0] == '/' ? snprintf(out, max, "%s", v) : snprintf(out, max, "%s/%s", getcwd(cwd, sizeof cwd) ? cwd : "", v);
    if (n < 0 || (size_t)n >= max)
        return cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "the path of --%s is too long", option);
    return EXIT_OK;
}

static int kafka_secure_read(struct up *u)
{
    int code = address_read(u, "kafka-secure", "off", &u->kafka_secure);
    if (!code)
        code = file_option(u, "kafka-cert", u->kafka_cert, sizeof u->kafka_cert);
    if (!code)
        code = file_option(u, "kafka-key", u->kafka_key, sizeof u->kafka_key);
    bool on = strcmp(u->kafka_secure ? u->kafka_secure : "off", "off") != 0;
    if (!code && on && (!u->kafka_cert[0] || !u->kafka_key[0]))
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "give the certificate chain and its key, in PEM", "--kafka-secure needs --kafka-cert and --kafka-key");
    return code;
}

/* Anybody can come to an address of all interfaces, but it is none that another node could be told. */
static bool address_any(const char *text)
{
    struct addr a;
    static const uint8_t zero[sizeof a.ip];
    return address_parse(slice_cstr(text), &a) && memcmp(a.ip, zero, a.family == ADDR_IP4 ? 4 : sizeof zero) == 0;
}

static int node_read(struct up *u)
{
    int code = address_read(u, "node-listen", "off", &u->node_listen);
    if (!code)
        code = file_option(u, "node-cert", u->node_cert, sizeof u->node_cert);
    if (!code)
        code = file_option(u, "node-key", u->node_key, sizeof u->node_key);
    if (!code)
        code = file_option(u, "node-ca", u->node_ca, sizeof u->node_ca);
    bool on = strcmp(u->node_listen, "off") != 0, all = u->node_cert[0] && u->node_key[0] && u->node_ca[0], any = u->node_cert[0] || u->node_key[0] || u->node_ca[0];
    if (!code && (on ? !all : any))
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "give all four of them, or none", "--node-listen, --node-cert, --node-key and --node-ca belong together");
    if (!code && on && address_any(u->node_listen))
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "name the address by which the other nodes reach this one", "--node-listen %s is every address of this host, and other nodes must be told one", u->node_listen);
    return code;
}

/* "a=b,c=d": as Kubernetes has labels. */
static int node_labels_read(struct up *u)
{
    struct slice rest = slice_cstr(u->node_labels = args_str(u->a, "node-labels", ""));
    while (rest.n) {
        struct slice value, pair = slice_cut(rest, ',', &rest), key = slice_cut(pair, '=', &value);
        if (!join_label_good(key, value) || slice_find(pair, '=') < 0)
            return cli_fail(EXIT_USAGE, u->a->cmd->name, "write them as disk=ssd,example.com/rack=r7", "--node-labels \"%s\" is no list of labels", u->node_labels);
    }
    return EXIT_OK;
}

static int join_read(struct up *u)
{
    struct slice rest = slice_cstr(u->join = args_str(u->a, "join", ""));
    int code = EXIT_OK;
    static const char *const names[] = {"etcd-cert", "etcd-key", "etcd-ca", "etcd-password"};
    char *const files[] = {u->etcd_cert, u->etcd_key, u->etcd_ca, u->etcd_password};
    for (size_t i = 0; i < COUNT_OF(names) && !code; i++)
        code = file_option(u, names[i], files[i], sizeof u->etcd_cert);
    u->etcd_user = args_str(u->a, "etcd-user", "");
    while (rest.n && !code) {
        bool tls;
        uint16_t port;
        struct slice host, one = slice_cut(rest, ',', &rest);
        if (!join_endpoint_parse(one, &tls, &host, &port))
            code = cli_fail(EXIT_USAGE, u->a->cmd->name, "write it as etcd://10.0.0.1:2379,10.0.0.2:2379, or https:// for TLS", "--join \"%s\" is no list of members of an etcd cluster", u->join);
    }
    bool any = u->etcd_cert[0] || u->etcd_key[0] || u->etcd_ca[0] || u->etcd_password[0] || u->etcd_user[0];
    if (!code && any && !u->join[0])
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "give --join as well", "--etcd-cert, --etcd-key, --etcd-ca, --etcd-user and --etcd-password are for --join");
    if (!code && !u->etcd_cert[0] != !u->etcd_key[0])
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "give both", "--etcd-cert and --etcd-key belong together");
    if (!code && !u->etcd_user[0] != !u->etcd_password[0])
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "give both", "--etcd-user and --etcd-password belong together");
    return code;
}

static int secrets_key_read(struct up *u)
{
    int code = file_option(u, "secrets-key", u->secrets_key, sizeof u->secrets_key);
    u->secrets_key_command = args_str(u->a, "secrets-key-command", "");
    if (!code && u->secrets_key[0] && u->secrets_key_command[0])
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, "give one of them", "--secrets-key and --secrets-key-command are two answers to one question");
    return code;
}

static int workers_read(struct up *u)
{
    cpu_set_t set;
    u->workers = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
    u->workers = MIN(MAX(u->workers, 1u), WORKERS_MAX);
    int code = args_count(u->a, "workers", WORKERS_MAX, &u->workers);
    if (!code && u->workers == 0)
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "--workers must be at least 1");
    return code;
}

/* ---- the engine's command line ------------------------------------------------------------------------------------------- */

/* What came over standard input becomes a file for the engine, which removes it as soon as it is taken: values of Secrets are in clear in it. What a start
 * left that came to no end goes now. */
static int stdin_keep(struct up *u)
{
    struct buf path = {0};
    int code = EXIT_OK;
    buf_printf(&path, "%s/" STDIN_FILE, u->data);
    (void)unlink(path.p);
    for (size_t i = 0; i < u->files.n; i++) {
        struct source *s = &u->files.items[i];
        if (s->path)
            continue;
        s->path = mem_strdup(MEM_MISC, path.p);
        enum err e = file_replace(s->path, s->text.p ? s->text.p : "", s->text.n, 0600);
        if (e)
            code = cli_fail(EXIT_FAILED, u->a->cmd->name, "check the data folder", "%s can't be written: %s", s->path, err_text(e));
    }
    buf_free(&path);
    return code;
}

static void argv_build(struct up *u)
{
    char workers[24], ticket_ms[16];
    snprintf(workers, sizeof workers, "%llu", (unsigned long long)u->workers);
    snprintf(ticket_ms, sizeof ticket_ms, "%u", u->ticket_ms);
    const char *fixed[] = {"weir",   "engine",       "--data",      u->data,  "--workers", workers,       "--admin",
                           u->admin, "--access-log", u->access_log, "--name", u->name,     "--namespace", args_namespace(u->a),
                           "--ticket-time", ticket_ms,    "--kernel-tls", u->kernel_tls, "--etcd", u->etcd, "--kafka",      u->kafka,  "--kafka-set", u->kafka_set,
                           "--kafka-secure", u->kafka_secure, "--kafka-cert", u->kafka_cert, "--kafka-key", u->kafka_key, "--dns", u->dns, "--dns-forward", u->dns_forward,
                           "--join", u->join, "--etcd-cert", u->etcd_cert, "--etcd-key", u->etcd_key, "--etcd-ca", u->etcd_ca, "--etcd-user", u->etcd_user, "--etcd-password", u->etcd_password,
                           "--node-labels", u->node_labels, "--node-listen", u->node_listen, "--node-cert", u->node_cert, "--node-key", u->node_key, "--node-ca", u->node_ca,
                           "--secrets-key", u->secrets_key, "--secrets-key-command", u->secrets_key_command};
    size_t n = 0;
    u->argv = mem_new(MEM_MISC, (COUNT_OF(fixed) + u->files.n + 5) * sizeof *u->argv);
    for (size_t i = 0; i < COUNT_OF(fixed); i++)
        u->argv[n++] = mem_strdup(MEM_MISC, fixed[i]);
    if (args_has(u->a, "strict"))
        u->argv[n++] = mem_strdup(MEM_MISC, "--strict");
    if (u->locality) {
        u->argv[n++] = mem_strdup(MEM_MISC, "--locality");
        u->argv[n++] = mem_strdup(MEM_MISC, u->locality);
    }
    u->argv[n++] = mem_strdup(MEM_MISC, "--");
    for (size_t i = 0; i < u->files.n; i++)
        u->argv[n++] = mem_strdup(MEM_MISC, u->files.items[i].path);
}

static int run_sup(struct up *u)
{
    struct sup_conf conf = {.engine_argv = u->argv, .data_dir = u->data, .name = u->name};
    if (strcmp(u->kernel_tls, "off") != 0)
        tls_kernel_start(); /* loads the kernel's module for the engine, which has no right to */
    lock_sign(u);
    sources_free(&u->files); /* sup stays small: the engine reads them itself */
    mem_trim();
    int status = sup_main(&conf);
    return status == SUP_EXIT_CONFIG ? EXIT_USAGE : status;
}

/* ---- in the background ------------------------------------------------------------------------------------------------- */

static int log_open(const struct up *u, off_t *end)
{
    struct buf path = {0};
    buf_printf(&path, "%s/" LOG_FILE, u->data);
    int fd = open(path.p, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    *end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    buf_free(&path);
    return fd;
}

/* What the node wrote since `from`, its end when that is long. */
static void log_show(const struct up *u, off_t from)
{
    struct buf path = {0};
    char text[TAIL_BYTES];
    buf_printf(&path, "%s/" LOG_FILE, u->data);
    int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    ssize_t n = fd >= 0 ? pread(fd, text, sizeof text, MAX(from, end - (off_t)sizeof text)) : 0;
    if (n > 0)
        fwrite(text, 1, (size_t)n, stderr);
    if (fd >= 0)
        close(fd);
    buf_free(&path);
}

_Noreturn static void child(struct up *u, int log_fd)
{
    int null = open("/dev/null", O_RDONLY);
    setsid();
    dup2(null, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    if (null > STDERR_FILENO)
        close(null);
    _exit(run_sup(u));
}

static int child_ended(const struct up *u, int status, off_t log_from)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
    log_show(u, log_from);
    if (WIFSIGNALED(status))
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "see above", "the node was ended by signal %d before it was ready", WTERMSIG(status));
    return cli_fail(code ? code : EXIT_FAILED, u->a->cmd->name, "correct what is said above", "the node ended before it was ready");
}

/* The node's own warnings: what this machine does not permit, and what that means. */
static void warnings_show(const struct up *u)
{
    struct client_answer answer = {0};
    size_t i;
    json_t *w, *info = NULL;
    if (socket_answers(u, "/v1/info", &answer) && answer.status == 200)
        info = json_loadb(answer.body.p ? answer.body.p : "", answer.body.n, 0, NULL);
    json_array_foreach (json_object_get(info, "warnings"), i, w)
        if (json_is_string(w))
            fprintf(stderr, "weir: warning: %s\n", json_string_value(w));
    json_decref(info);
    buf_free(&answer.body);
}

static int wait_ready(const struct up *u, pid_t pid, off_t log_from)
{
    uint64_t due = mono_ns() + u->timeout_ms * 1000000ull;
    for (;;) {
        struct client_answer answer = {0};
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid)
            return child_ended(u, status, log_from);
        bool answers = socket_answers(u, "/readyz", &answer);
        bool is_ready = answers && answer.status == 200, late = mono_ns() >= due;
        int code = EXIT_OK;
        if (!is_ready && late && !answers)
            log_show(u, log_from);
        if (!is_ready && late)
            code = cli_fail(EXIT_TIMEOUT, u->a->cmd->name, answers ? "see weir get workloads and weir logs; it goes on starting" : "see above; it goes on starting, and weir down ends it",
                            "the node is not ready yet: " SLICE_FMT,
                            SLICE_ARG(answer.body.n ? slice_trim(slice_cut(buf_slice(&answer.body), '\n', &(struct slice){0})) : SLICE("it does not answer")));
        buf_free(&answer.body);
        if (is_ready || late)
            return code;
        poll(NULL, 0, LOOK_MS);
    }
}

static int run_detached(struct up *u)
{
    off_t log_from;
    int log_fd = log_open(u, &log_from);
    if (log_fd < 0)
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "check the data folder", "%s/" LOG_FILE " can't be written: %s", u->data, strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return cli_fail(EXIT_FAILED, u->a->cmd->name, "try again", "no process can be started: %s", strerror(errno));
    if (pid == 0)
        child(u, log_fd);
    close(log_fd);
    close(u->lock_fd); /* the child's copy goes on holding it */
    int code = wait_ready(u, pid, log_from);
    if (code != EXIT_OK)
        return code;
    warnings_show(u);
    printf("node %s is ready (process %d); log: %s/" LOG_FILE "; stop it with: weir down\n", u->name, pid, u->data);
    return EXIT_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------- */

/* Without a file the node goes on with what it was told last. */
static int objects_kept(const struct up *u)
{
    struct buf path = {0};
    const char *dir = data_named(u);
    buf_printf(&path, "%s/" STORE_FILE, dir);
    bool kept = access(path.p, R_OK) == 0;
    buf_clear(&path);
    buf_printf(&path, "%s/" OBJECTS_FILE, dir);
    kept = kept || access(path.p, R_OK) == 0;
    buf_free(&path);
    return kept || u->files.n || args_has(u->a, "join") ? EXIT_OK
                              : cli_fail(EXIT_USAGE, u->a->cmd->name, "name a manifest file, a folder of them, or - for standard input",
                                         "no file is given, and data folder %s has no objects of an earlier node", dir);
}

static int up_prepare(struct up *u)
{
    int code = u->a->pos_n ? sources_of_args(u->a, &u->files) : EXIT_OK;
    if (!code)
        code = objects_kept(u);
    if (!code)
        code = address_read(u, "admin", "127.0.0.1:7070", &u->admin);
    if (!code)
        code = address_read(u, "kafka", "127.0.0.1:9092", &u->kafka);
    if (!code)
        code = address_read(u, "dns", "off", &u->dns);
    if (!code)
        code = dns_forward_read(u);
    if (!code)
        code = address_read(u, "etcd", "127.0.0.1:2379", &u->etcd);
    if (!code)
        code = kafka_set_read(u);
    if (!code)
        code = kafka_secure_read(u);
    if (!code)
        code = node_read(u);
    if (!code)
        code = join_read(u);
    if (!code)
        code = node_labels_read(u);
    if (!code)
        code = secrets_key_read(u);
    if (!code)
        code = locality_read(u);
    if (!code)
        code = workers_read(u);
    if (!code)
        code = kernel_tls_read(u);
    if (!code)
        code = args_time(u->a, "timeout", 120000, &u->timeout_ms);
    if (!code)
        code = args_time(u->a, "ticket-time", TLS_TICKETS_PERIOD_MS, &u->ticket_ms);
    if (!code && !u->ticket_ms)
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "--ticket-time must be more than 0");
    if (!code)
        code = sources_check(&u->files, args_namespace(u->a), args_has(u->a, "strict"));
    if (!code)
        code = data_open(u);
    if (!code)
        code = name_read(u);
    if (!code)
        code = access_log_read(u);
    if (!code)
        code = data_lock(u);
    return code ? code : stdin_keep(u);
}

int cmd_up(struct args *a)
{
    struct up *u = mem_new(MEM_MISC, sizeof *u);
    u->a = a;
    u->lock_fd = -1;
    int code = up_prepare(u);
    if (!code) {
        argv_build(u);
        for (size_t i = 0; i < u->files.n; i++)
            buf_free(&u->files.items[i].text); /* this process becomes sup: it keeps no manifest */
        code = args_has(a, "detach") ? run_detached(u) : run_sup(u);
    }
    for (char **p = u->argv; p && *p; p++)
        mem_free(*p);
    mem_free(u->argv);
    sources_free(&u->files);
    mem_free(u);
    return code;
}
