/* files.c - manifests on the command line: files, folders, standard input; read whole, checked to be text. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_BYTES_MAX (4u << 20) /* of one file; an apply request as a whole is at most 8 MiB */

/* Bytes of the character that c begins; 0: it begins none (RFC 3629). */
static size_t utf8_length(unsigned char c) { return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0; }

static bool utf8_valid(struct slice s)
{
    for (size_t i = 0; i < s.n;) {
        size_t n = utf8_length((unsigned char)s.p[i]);
        if (n == 0 || n > s.n - i)
            return false;
        for (size_t k = 1; k < n; k++)
            if (((unsigned char)s.p[i + k] & 0xc0) != 0x80)
                return false;
        i += n;
    }
    return true;
}

static char *cwd_text(void)
{
    char path[PATH_MAX];
    return mem_strdup(MEM_MISC, getcwd(path, sizeof path) ? path : "/");
}

static struct source *source_new(struct sources *out, const char *file)
{
    ARRAY_GROW(MEM_MISC, out->items, out->n, out->cap);
    struct source *s = &out->items[out->n++];
    *s = (struct source){.file = mem_strdup(MEM_MISC, file)};
    return s;
}

static int source_check(const struct args *a, const struct source *s)
{
    if (utf8_valid(buf_slice(&s->text)))
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, a->cmd->name, "save it as UTF-8", "%s is not UTF-8 text", s->file);
}

static int read_stdin(const struct args *a, struct sources *out)
{
    struct source *s = source_new(out, "-");
    s->dir = cwd_text();
    for (;;) {
        buf_reserve(&s->text, 65536);
        ssize_t n = read(STDIN_FILENO, s->text.p + s->text.n, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_fail(EXIT_FAILED, a->cmd->name, NULL, "standard input can't be read: %s", strerror(errno));
        if (n == 0)
            break;
        s->text.n += (size_t)n;
        s->text.p[s->text.n] = 0;
        if (s->text.n > MANIFEST_BYTES_MAX)
            return cli_fail(EXIT_USAGE, a->cmd->name, "split it", "standard input has more than 4 MiB");
    }
    return source_check(a, s);
}

static int read_file(const struct args *a, const char *name, struct sources *out)
{
    struct source *s = source_new(out, name);
    char path[PATH_MAX];
    enum err e = realpath(name, path) ? file_read(path, &s->text, MANIFEST_BYTES_MAX) : err_from_errno(errno);
    if (e == ERR_NOTFOUND)
        return cli_fail(EXIT_USAGE, a->cmd->name, "check the path", "there is no file %s", name);
    if (e == ERR_LIMIT)
        return cli_fail(EXIT_USAGE, a->cmd->name, "split it", "%s is larger than 4 MiB", name);
    if (e)
        return cli_fail(EXIT_USAGE, a->cmd->name, "check its permissions", "%s can't be read: %s", name, err_text(e));
    s->path = mem_strdup(MEM_MISC, path);
    const char *slash = strrchr(s->path, '/');
    s->dir = slash == s->path ? mem_strdup(MEM_MISC, "/") : mem_strndup(MEM_MISC, s->path, (size_t)(slash - s->path));
    return source_check(a, s);
}

static bool is_manifest(const char *name)
{
    struct slice n = slice_cstr(name);
    return name[0] != '.' && (slice_ends(n, SLICE(".yaml")) || slice_ends(n, SLICE(".yml")) || slice_ends(n, SLICE(".json")));
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The paths of a folder's manifests in name order. ERR_* when it can't be read. */
static enum err dir_list(const char *name, char ***paths, size_t *n)
{
    DIR *dir = opendir(name);
    size_t cap = 0;
    *paths = NULL;
    *n = 0;
    if (!dir)
        return err_from_errno(errno);
    for (struct dirent *d; (d = readdir(dir));) {
        struct buf path = {0};
        struct stat st;
        buf_printf(&path, "%s%s%s", name, slice_ends(slice_cstr(name), SLICE("/")) ? "" : "/", d->d_name);
        if (is_manifest(d->d_name) && (stat(path.p, &st) != 0 || !S_ISDIR(st.st_mode))) {
            ARRAY_GROW(MEM_MISC, *paths, *n, cap);
            (*paths)[(*n)++] = buf_take(&path, NULL);
        }
        buf_free(&path);
    }
    closedir(dir);
    if (*n)
        qsort(*paths, *n, sizeof **paths, by_text);
    return OK;
}

static int read_dir(const struct args *a, const char *name, struct sources *out)
{
    char **paths;
    size_t n;
    int code = EXIT_OK;
    enum err e = dir_list(name, &paths, &n);
    if (e)
        return cli_fail(EXIT_USAGE, a->cmd->name, "check its permissions", "folder %s can't be read: %s", name, err_text(e));
    if (n == 0)
        code = cli_fail(EXIT_USAGE, a->cmd->name, "name the folder of the manifests", "folder %s has no *.yaml, *.yml or *.json", name);
    for (size_t i = 0; i < n; i++) {
        if (!code)
            code = read_file(a, paths[i], out);
        mem_free(paths[i]);
    }
    mem_free(paths);
    return code;
}

int sources_read(const struct args *a, const char *const *names, size_t n, struct sources *out)
{
    int code = EXIT_OK;
    bool stdin_read = false;
    for (size_t i = 0; i < n && !code; i++) {
        struct stat st;
        if (strcmp(names[i], "-") == 0 && stdin_read)
            code = cli_fail(EXIT_USAGE, a->cmd->name, NULL, "standard input (-) is named twice");
        else if (strcmp(names[i], "-") == 0)
            code = read_stdin(a, out), stdin_read = true;
        else if (stat(names[i], &st) == 0 && S_ISDIR(st.st_mode))
            code = read_dir(a, names[i], out);
        else
            code = read_file(a, names[i], out);
    }
    return code;
}

int sources_of_args(const struct args *a, struct sources *out)
{
    const char **names = NULL, *v;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < a->pos_n; i++) {
        ARRAY_GROW(MEM_MISC, names, n, cap);
        names[n++] = a->pos[i];
    }
    for (size_t i = 0; (v = args_nth(a, "filename", i)); i++) {
        ARRAY_GROW(MEM_MISC, names, n, cap);
        names[n++] = v;
    }
    int code = n ? sources_read(a, names, n, out)
                 : cli_fail(EXIT_USAGE, a->cmd->name, "name a manifest file, a folder of them, or - for standard input", "no file is given");
    mem_free(names);
    return code;
}

int sources_check(const struct sources *s, const char *ns, bool strict)
{
    struct objset *set = objset_new();
    struct diags d = {0};
    for (size_t i = 0; i < s->n; i++)
        objset_read(set, s->items[i].file, s->items[i].dir, buf_slice(&s->items[i].text), ns, strict, &d);
    int code = d.errors ? EXIT_USAGE : EXIT_OK;
    if (code)
        diags_print(&d, true);
    diags_free(&d);
    objset_free(set);
    return code;
}

void sources_json(const struct sources *s, struct buf *out)
{
    buf_adds(out, "\"files\":[");
    for (size_t i = 0; i < s->n; i++) {
        buf_adds(out, i ? ",{\"file\":" : "{\"file\":");
        buf_add_json(out, slice_cstr(s->items[i].file));
        buf_adds(out, ",\"dir\":");
        buf_add_json(out, slice_cstr(s->items[i].dir));
        buf_adds(out, ",\"text\":");
        buf_add_json(out, buf_slice(&s->items[i].text));
        buf_addc(out, '}');
    }
    buf_addc(out, ']');
}

void sources_free(struct sources *s)
{
    for (size_t i = 0; i < s->n; i++) {
        mem_free(s->items[i].file);
        mem_free(s->items[i].path);
        mem_free(s->items[i].dir);
        buf_free(&s->items[i].text);
    }
    mem_free(s->items);
    *s = (struct sources){0};
}
