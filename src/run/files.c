/* files.c - what a replica finds around it: hosts and resolv files, and the environment that every replica has.
 *
 * Two hosts files and one resolv file per namespace, in DATA/net/: with the host's network another hosts file holds. sup bind-mounts them into replicas, and a bind mount refers
 * to an inode: so they are rewritten in place, never replaced. rt's files are replaced by renaming, which is right for
 * everything else; therefore these few system calls are made here. A reader that comes in the middle of it must not see half an
 * old line: the new text is written with one call, padded with newlines to the old length, and cut afterwards.
 */
#include "run_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---------------------------------------------------------------------------------------------------------- */

#define HOST_HOSTS "/etc/hosts"
#define HOST_HOSTS_MAX (1u << 20) /* bytes of it that are copied */

char *run_files_hosts_path(struct run *r, const char *ns, bool host_network, struct arena *a)
{
    return arena_printf(a, "%s/net/%s.%s", r->conf.data_dir, ns, host_network ? "host-hosts" : "hosts");
}

/* With the host's network there is the host's resolver, as Kubernetes has it for hostNetwork. */
char *run_files_resolv_path(struct run *r, const char *ns, bool host_network, struct arena *a)
{
    if (host_network)
        return arena_strdup(a, "/etc/resolv.conf");
    return arena_printf(a, "%s/net/%s.resolv", r->conf.data_dir, ns);
}

static enum err fd_write_all(int fd, struct slice text)
{
    for (size_t at = 0; at < text.n;) {
        ssize_t n = pwrite(fd, text.p + at, text.n - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? err_from_errno(errno) : ERR_IO;
        at += (size_t)n;
    }
    return OK;
}

enum err run_file_write(const char *path, struct slice text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    struct stat st;
    if (fd < 0)
        return err_from_errno(errno);
    enum err e = fstat(fd, &st) < 0 ? err_from_errno(errno) : OK;
    struct buf padded = {0};
    buf_add_slice(&padded, text);
    while (e == OK && padded.n < (size_t)st.st_size)
        buf_addc(&padded, '\n');
    if (e == OK)
        e = fd_write_all(fd, buf_slice(&padded));
    if (e == OK && ftruncate(fd, (off_t)text.n) < 0)
        e = err_from_errno(errno);
    buf_free(&padded);
    (void)close(fd);
    return e;
}

static void file_put(struct run *r, const char *path, const struct buf *text)
{
    enum err e = run_file_write(path, buf_slice(text));
    if (e == OK)
        return;
    r->file_failures++;
    log_warn("run", "%s: %s; workloads keep the names they have", path, err_text(e));
}

/* The search list and ndots are Kubernetes'. The name server is the engine's, at 127.0.0.1 in the namespace (main/engine_names.c); while another engine takes
 * over questions wait in its socket, hence more than one attempt. What needs no server is in the hosts file all the same. */
static void resolv_text(const char *ns, struct buf *out)
{
    buf_printf(out, "search %s.svc.cluster.local svc.cluster.local cluster.local\n", ns);
    buf_adds(out, "nameserver 127.0.0.1\noptions ndots:5 timeout:2 attempts:3\n");
}

static bool read_host_hosts(struct buf *out)
{
    int fd = open(HOST_HOSTS, O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    while (fd >= 0 && n > 0 && out->n < HOST_HOSTS_MAX) {
        char piece[4096];
        n = read(fd, piece, sizeof piece);
        if (n > 0)
            buf_add(out, piece, (size_t)n);
    }
    if (fd >= 0)
        (void)close(fd);
    return fd >= 0 && n == 0;
}

/* Whether a line of the hosts file gives this name an address. */
static bool hosts_have(struct slice text, struct slice name)
{
    while (text.n) {
        struct slice line = slice_cut(text, '\n', &text), word;
        line = slice_cut(line, '#', &word);
        while (line.n) {
            size_t n = 0;
            while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t')
                n++;
            if (slice_eq(slice_of(line.p, n), name))
                return true;
            line = slice_of(line.p + MIN(n + 1, line.n), line.n - MIN(n + 1, line.n));
        }
    }
    return false;
}

/* With the host's network: the host's own file as it is now, as Kubernetes has it, since addresses of Services lead nowhere there; and the event log by its name, where
 * it has its customary port. */
static void hosts_of_host(struct run *r, const char *ns, struct buf *text)
{
    const char *at = r->conf.log_address, *colon = at ? strrchr(at, ':') : NULL;
    struct addr a;
    char ip[ADDR_TEXT_MAX];
    uint64_t port;
    if (!read_host_hosts(text)) {
        buf_clear(text);
        buf_adds(text, "127.0.0.1 localhost\n");
    }
    if (!colon || slice_u64(slice_cstr(colon + 1), UINT16_MAX, &port) != OK || port != LOG_PORT || addr_parse(slice_of(at, (size_t)(colon - at)), LOG_PORT, &a) != OK ||
        !objset_log_named(r->set, ns) || hosts_have(buf_slice(text), SLICE(LOG_HOST)))
        return;
    addr_format_ip(&a, ip);
    buf_printf(text, "%s%s " LOG_HOST "\n", text->n && text->p[text->n - 1] != '\n' ? "\n" : "", ip);
}

static void files_write_ns(struct run *r, const char *ns)
{
    struct buf text = {0};
    arena_reset(&r->scratch);
    objset_hosts(r->set, ns, &text);
    if (r->conf.log_address && objset_log_named(r->set, ns)) {
        struct addr a = addr_ip4(LOG_ADDRESS, 0);
        char ip[ADDR_TEXT_MAX];
        addr_format_ip(&a, ip);
        buf_printf(&text, "%s " LOG_HOST "\n", ip);
    }
    file_put(r, run_files_hosts_path(r, ns, false, &r->scratch), &text);
    buf_clear(&text);
    hosts_of_host(r, ns, &text);
    file_put(r, run_files_hosts_path(r, ns, true, &r->scratch), &text);
    buf_clear(&text);
    resolv_text(ns, &text);
    file_put(r, run_files_resolv_path(r, ns, false, &r->scratch), &text);
    buf_free(&text);
}

/* Workloads are ordered by namespace, so each namespace is met once in a row. */
void run_files_write(struct run *r)
{
    const char *last = NULL;
    arena_reset(&r->scratch);
    (void)mkdir(r->conf.data_dir, 0755);
    (void)mkdir(arena_printf(&r->scratch, "%s/net", r->conf.data_dir), 0755); /* an error shows when files are opened */
    LIST_FOREACH(it, &r->workloads) {
        const struct workload *wl = CONTAINER_OF(it, struct workload, link);
        if (last && strcmp(last, wl->ns) == 0)
            continue;
        last = wl->ns;
        files_write_ns(r, wl->ns);
    }
}

/* ---- environment ------------------------------------------------------------------------------------------------------ */

/* HOME is this process's own only when the replica runs as the same user; another user's would be unreadable or worse. */
const char **run_files_env_base(struct run *r, const struct replica *rp, struct arena *a)
{
    const struct pod_template *pod = rep_pod(rp);
    bool same_user = pod->run_as_user < 0 || (uid_t)pod->run_as_user == getuid();
    const char **env = arena_zalloc(a, 7 * sizeof *env);
    size_t n = 4;
    env[0] = arena_printf(a, "PATH=%s", r->env_path);
    env[1] = arena_printf(a, "HOSTNAME=%s", rp->name);
    env[2] = arena_printf(a, "HOME=%s", same_user ? r->env_home : "/");
    env[3] = arena_printf(a, "LANG=%s", r->env_lang);
    if (r->conf.log_address && pod->host_network)
        env[n++] = arena_printf(a, "KAFKA_BOOTSTRAP_SERVERS=%s", r->conf.log_address);
    else if (r->conf.log_address && objset_log_named(r->set, rp->rev->obj->ns)) /* else who has the name says what it is */
        env[n++] = arena_printf(a, "KAFKA_BOOTSTRAP_SERVERS=" LOG_HOST ":%d", LOG_PORT);
    if (r->conf.store_address && pod->host_network)
        env[n++] = arena_printf(a, "ETCDCTL_ENDPOINTS=%s", r->conf.store_address);
    else if (r->conf.store_address && objset_port_free(r->set, rp->rev->obj, STORE_PORT))
        env[n++] = arena_printf(a, "ETCDCTL_ENDPOINTS=127.0.0.1:%d", STORE_PORT);
    return env;
}
