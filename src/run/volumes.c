/* volumes.c - ConfigMaps and Secrets as files, in the way of kubelet's atomic writer.
 *
 *     DATA/volumes/NAMESPACE/DEPLOYMENT-REVISION/VOLUME/     what a replica sees at its mountPath
 *         app.yaml -> ..data/app.yaml                        for each first element of a path
 *         ..data   -> ..5f1c0e9a3b7d2468                     exchanged by rename(2): all files change at once
 *         ..5f1c0e9a3b7d2468/app.yaml                        named after a hash of what is in it
 *
 * One folder serves all replicas of a revision: they have the same template. It is written before the first of them starts, follows the objects with
 * every run_want(), also for revisions that are on their way out, and goes when the last replica of its revision is gone. All of it is on the
 * control loop, like the other files around a replica: files are small, and the folder is in memory where sup could make it so (sup/README.md).
 *
 * rt replaces single files; folders of links that a workload looks into while they change need these system calls.
 */
#include "run_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_DEPTH_MAX 1100 /* of paths in a volume, which have at most 1,024 characters */

/* ---- trees ---------------------------------------------------------------------------------------------------------------------- */

/* Removes name in folder at, and all below; links are not followed. */
static void tree_remove(int at, const char *name, int depth)
{
    if (unlinkat(at, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; d && depth < TREE_DEPTH_MAX && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            tree_remove(dirfd(d), e->d_name, depth + 1);
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    (void)unlinkat(at, name, AT_REMOVEDIR);
}

/* Opens the folder of this path below at, and makes what is missing of it. -1: errno. */
static int folder_open(int at, const char *path, mode_t mode)
{
    char part[1025];
    int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (const char *p = path; fd >= 0 && *p;) {
        size_t n = strcspn(p, "/");
        (void)snprintf(part, sizeof part, "%.*s", (int)MIN(n, sizeof part - 1), p);
        p += n + (p[n] == '/');
        if (!n)
            continue;
        (void)mkdirat(fd, part, mode);
        int next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int e = errno;
        close(fd);
        errno = e;
        fd = next;
    }
    return fd;
}

/* ---- one volume -------------------------------------------------------------------------------------------------------------------- */

static bool bytes_write(int fd, struct slice bytes)
{
    for (size_t done = 0; done < bytes.n;) {
        ssize_t n = write(fd, bytes.p + done, bytes.n - done);
        if (n < 0 && errno != EINTR)
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* A file below folder at. 0 or errno. */
static int file_make(int at, const struct volume_file *f)
{
    const char *slash = strrchr(f->path, '/'), *base = slash ? slash + 1 : f->path;
    char *dir = slash ? mem_strndup(MEM_RUN, f->path, (size_t)(slash - f->path)) : mem_strdup(MEM_RUN, "");
    int in = folder_open(at, dir, 0755), fd = in >= 0 ? openat(in, base, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;
    /* Unlike the umask's, these are the permissions that the manifest gives. */
    int e = fd < 0 || fchmod(in, 0755) < 0 || !bytes_write(fd, f->bytes) || fchmod(fd, f->mode) < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (in >= 0)
        close(in);
    mem_free(dir);
    return e;
}

static uint64_t files_hash(const struct volume_file *files, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        const uint64_t head[3] = {strlen(files[i].path), files[i].bytes.n, files[i].mode};
        const struct slice parts[] = {slice_of((const char *)head, sizeof head), slice_cstr(files[i].path), files[i].bytes};
        for (size_t k = 0; k < COUNT_OF(parts); k++)
            for (size_t b = 0; b < parts[k].n; b++)
                h = (h ^ (uint8_t)parts[k].p[b]) * 0x100000001b3u;
    }
    return h;
}

/* "sub" of "sub/app.yaml". */
static char *first_part(const char *path) { return mem_strndup(MEM_RUN, path, strcspn(path, "/")); }

/* Links to what is new, none to what is gone, and no older content. 0 or errno: a link is missing. */
static int links_follow(int at, const char *data, const struct volume_file *files, size_t n)
{
    struct table wanted = {0};
    int error = 0;
    for (size_t i = 0; i < n; i++) {
        char *first = first_part(files[i].path), target[300];
        (void)snprintf(target, sizeof target, "..data/%s", first);
        if (symlinkat(target, at, first) < 0 && errno != EEXIST) /* it is there already, as a rule */
            error = errno;
        table_put(&wanted, slice_cstr(first), &wanted);
        mem_free(first);
    }
    DIR *d = fdopendir(openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (struct dirent *e; d && (e = readdir(d));) {
        bool ours = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strcmp(e->d_name, "..data") == 0 || strcmp(e->d_name, data) == 0;
        if (!ours && !table_get(&wanted, slice_cstr(e->d_name)))
            tree_remove(at, e->d_name, 0);
    }
    if (d)
        closedir(d);
    table_fini(&wanted);
    return error;
}

/* Whether every file is there with its length. A power failure may have kept a folder's name and not what was in its files. */
static bool files_whole(int at, const char *data, const struct volume_file *files, size_t n)
{
    struct stat st;
    struct buf path = {0};
    bool whole = true;
    for (size_t i = 0; i < n && whole; i++) {
        buf_clear(&path);
        buf_printf(&path, "%s/%s", data, files[i].path);
        whole = fstatat(at, path.p, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_size == (off_t)files[i].bytes.n;
    }
    buf_free(&path);
    return whole;
}

/* The files become what the volume's folder shows. 0 or errno. Also where `..data` leads to the right folder already something may be missing: whoever
 * exchanged it may have died, or have found the disk full, before the links were made. */
static int volume_write(int at, const struct volume_file *files, size_t n)
{
    char data[24], now[24] = "";
    (void)snprintf(data, sizeof data, "..%016llx", (unsigned long long)files_hash(files, n));
    ssize_t len = readlinkat(at, "..data", now, sizeof now - 1);
    if (len > 0 && (now[len] = 0, strcmp(now, data) == 0) && files_whole(at, data, files, n))
        return links_follow(at, data, files, n);
    tree_remove(at, data, 0); /* an engine that died in the middle of it */
    int fd = folder_open(at, data, 0755), e = fd < 0 || fchmod(fd, 0755) < 0 ? errno : 0;
    for (size_t i = 0; i < n && !e; i++)
        e = file_make(fd, &files[i]);
    if (fd >= 0)
        close(fd);
    (void)unlinkat(at, "..data_tmp", 0);
    if (!e && (symlinkat(data, at, "..data_tmp") < 0 || renameat(at, "..data_tmp", at, "..data") < 0))
        e = errno;
    if (!e)
        return links_follow(at, data, files, n);
    tree_remove(at, data, 0);
    return e;
}

/* ---- a revision's volumes ----------------------------------------------------------------------------------------------------------- */

static char *revision_folder(const struct run *r, const struct workload *wl, const struct revision *rev, struct arena *a)
{
    return arena_printf(a, "%s/volumes/%s/%s-%s", r->conf.data_dir, wl->ns, wl->name, rev->text);
}

static bool has_volumes(const struct revision *rev) { return rev->obj && rev->obj->dep.pod.mounts_n; }

static bool one_prepare(struct run *r, const struct revision *rev, const struct volume *v, int folder, struct arena *a, struct buf *why)
{
    struct diags d = {0};
    size_t n;
    struct volume_file *files = objset_volume(r->set, rev->obj, v, a, &n, &d);
    bool good = d.errors == 0;
    if (!good) {
        buf_printf(why, "%s; %s", d.items[0].reason, d.items[0].remedy);
    } else {
        int at = folder_open(folder, v->name, 0755), e = at < 0 || fchmod(at, 0755) < 0 ? errno : volume_write(at, files, n);
        good = e == 0;
        if (!good)
            buf_printf(why, "the files of volume %s can't be written: %s", v->name, err_text(err_from_errno(e)));
        if (at >= 0)
            close(at);
    }
    diags_free(&d);
    return good;
}

bool volumes_prepare(struct run *r, struct workload *wl, struct revision *rev, struct buf *why)
{
    struct arena a;
    bool good = true;
    if (!has_volumes(rev))
        return true;
    arena_init(&a, MEM_RUN, 4096);
    const struct pod_template *pod = &rev->obj->dep.pod;
    int root = open(r->conf.data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int folder = root < 0 ? -1 : folder_open(root, revision_folder(r, wl, rev, &a) + strlen(r->conf.data_dir) + 1, 0700);
    if (folder < 0) {
        buf_printf(why, "the folder of its volumes can't be made: %s", err_text(err_from_errno(errno)));
        good = false;
    }
    for (size_t i = 0; good && i < pod->volumes_n; i++)
        good = one_prepare(r, rev, &pod->volumes[i], folder, &a, why);
    if (root >= 0)
        close(root);
    if (folder >= 0)
        close(folder);
    arena_fini(&a);
    return good;
}

/* What is missing now leaves the files of running processes as they are, as in Kubernetes. */
static void revision_follow(struct run *r, struct workload *wl, struct revision *rev)
{
    struct buf why = {0};
    if (!volumes_prepare(r, wl, rev, &why)) {
        r->file_failures++;
        log_warn("run", "%s/%s: %s; its files stay as they are", wl->ns, wl->name, why.p);
    }
    buf_free(&why);
}

/* The first replica of each revision speaks for it; of a revision without a process the folder is written when one starts. */
static bool first_of_revision(const struct workload *wl, const struct replica *rp)
{
    for (const struct list *b = wl->replicas.next; b != &rp->link; b = b->next)
        if (CONTAINER_OF(b, struct replica, link)->rev == rp->rev)
            return false;
    return true;
}

void volumes_follow(struct run *r)
{
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        LIST_FOREACH(rit, &wl->replicas) {
            struct replica *rp = CONTAINER_OF(rit, struct replica, link);
            if (has_volumes(rp->rev) && first_of_revision(wl, rp))
                revision_follow(r, wl, rp->rev);
        }
    }
}

const char **volumes_mounts(struct run *r, const struct workload *wl, const struct revision *rev, struct arena *a)
{
    const struct pod_template *pod = &rev->obj->dep.pod;
    const char **out = arena_zalloc(a, (2 * pod->mounts_n + 1) * sizeof *out);
    for (size_t i = 0; i < pod->mounts_n; i++) {
        const struct volume_mount *m = &pod->mounts[i];
        const char *folder = revision_folder(r, wl, rev, a), *name = pod->volumes[m->volume].name;
        out[2 * i] = m->sub_path ? arena_printf(a, "%s/%s/..data/%s", folder, name, m->sub_path) : arena_printf(a, "%s/%s", folder, name);
        out[2 * i + 1] = m->path;
    }
    return out;
}

/* ---- what is left over -------------------------------------------------------------------------------------------------------------- */

static void folders_wanted(struct run *r, struct arena *a, struct table *wanted)
{
    LIST_FOREACH(it, &r->workloads) {
        struct workload *wl = CONTAINER_OF(it, struct workload, link);
        LIST_FOREACH(rit, &wl->replicas) {
            const struct replica *rp = CONTAINER_OF(rit, struct replica, link);
            table_put(wanted, slice_cstr(revision_folder(r, wl, rp->rev, a)), r);
        }
    }
}

static void namespace_trim(const char *path, const struct table *wanted, struct arena *a)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && !table_get(wanted, slice_cstr(arena_printf(a, "%s/%s", path, e->d_name))))
            tree_remove(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}

void volumes_trim(struct run *r)
{
    struct table wanted = {0};
    struct arena a;
    r->volumes_stale = false;
    arena_init(&a, MEM_RUN, 4096);
    folders_wanted(r, &a, &wanted);
    DIR *d = opendir(arena_printf(&a, "%s/volumes", r->conf.data_dir));
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            namespace_trim(arena_printf(&a, "%s/volumes/%s", r->conf.data_dir, e->d_name), &wanted, &a);
    if (d)
        closedir(d);
    table_fini(&wanted);
    arena_fini(&a);
}
