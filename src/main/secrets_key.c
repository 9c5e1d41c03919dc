/* secrets_key.c - where the keys come from that Secrets are sealed with.
 *
 *     --secrets-key-command CMD    its standard output: how a KMS is asked (sh -c CMD, within SECRETS_KEY_COMMAND_MS)
 *     --secrets-key FILE           a file of the user's
 *     neither                      DATA/secrets.key, made at the first start
 *
 * One key in base64 a line, the one that seals first (seal.h). A key that others can read protects nothing, so such a file is refused. The command
 * is run whenever an engine starts, before anything else runs: the key is in no file, no argument and no environment then. What the command
 * prints to standard error is its own to answer for: it goes where the engine's messages go.
 */
#include "secrets_key.h"

#include "rt.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void text_wipe(struct buf *b)
{
    if (b->p)
        OPENSSL_cleanse(b->p, b->cap);
    buf_free(b);
}

static enum err keys_read(const char *from, const struct buf *text, struct keyring **out, struct buf *why)
{
    struct buf reason = {0};
    enum err e = keyring_read(buf_slice(text), out, &reason);
    if (e != OK)
        buf_printf(why, "the key for Secrets in %s can't be used: %s; it must have one key a line, 32 random bytes in base64 (openssl rand -base64 32)", from, reason.p);
    buf_free(&reason);
    return e;
}

/* ---- a file ------------------------------------------------------------------------------------------------------------------- */

static enum err file_guarded(int fd, const char *path, struct buf *why)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_from_errno(errno);
    if (!S_ISREG(st.st_mode))
        buf_printf(why, "the key for Secrets, %s, is no regular file", path);
    else if (st.st_uid != geteuid() && st.st_uid != 0)
        buf_printf(why, "the key for Secrets, %s, belongs to user %u; chown it to yourself", path, (unsigned)st.st_uid);
    else if (st.st_mode & 0077)
        buf_printf(why, "the key for Secrets, %s, is open to others (mode %04o); chmod 0600 it, and think of the key as known", path, (unsigned)(st.st_mode & 07777));
    else if (st.st_size > SECRETS_KEY_BYTES_MAX)
        buf_printf(why, "the key for Secrets, %s, has %lld bytes, and %d are the most", path, (long long)st.st_size, SECRETS_KEY_BYTES_MAX);
    else
        return OK;
    return ERR_PERM;
}

/* ERR_NOTFOUND: there is no such file, and why says nothing. */
static enum err file_keys(const char *path, struct keyring **out, struct buf *why)
{
    struct buf text = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* the same descriptor is looked at and read */
    enum err e = fd < 0 ? err_from_errno(errno) : file_guarded(fd, path, why);
    if (e == OK) {
        buf_reserve(&text, SECRETS_KEY_BYTES_MAX + 1);
        ssize_t n = pread(fd, text.p, SECRETS_KEY_BYTES_MAX, 0);
        text.n = n > 0 ? (size_t)n : 0;
        e = n < 0 ? err_from_errno(errno) : keys_read(path, &text, out, why);
    }
    if (e != OK && e != ERR_NOTFOUND && !why->n)
        buf_printf(why, "the key for Secrets, %s, can't be read: %s", path, err_text(e));
    if (e == ERR_NOTFOUND && why->n)
        e = ERR_INVALID; /* the file is there, and empty */
    if (fd >= 0)
        close(fd);
    text_wipe(&text);
    return e;
}

/* file_replace() syncs the file and its folder: what is sealed with a key must not outlive it. */
static enum err file_make(const char *path, struct keyring **out, struct buf *why)
{
    struct buf text = {0};
    buf_reserve(&text, 256);
    keyring_new_key(&text);
    enum err e = file_replace(path, text.p, text.n, 0600);
    if (e != OK)
        buf_printf(why, "a key for Secrets can't be written to %s: %s", path, err_text(e));
    else
        e = keys_read(path, &text, out, why);
    text_wipe(&text);
    return e;
}

/* ---- a command ------------------------------------------------------------------------------------------------------------------ */

_Noreturn static void command_child(const char *command, int out_fd)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setpgid(0, 0); /* so that what it starts ends with it */
    dup2(null, STDIN_FILENO);
    dup2(out_fd, STDOUT_FILENO);
    for (int fd = 3; fd < 256; fd++) /* the way to sup above all; one is as old as the process, so there are few */
        close(fd);
    signal(SIGINT, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/* Its output until the end of it. ERR_LIMIT, ERR_TIMEOUT, ERR_IO. */
static enum err command_output(int fd, struct buf *text)
{
    uint64_t due = mono_ns() + SECRETS_KEY_COMMAND_MS * 1000000ull;
    buf_reserve(text, SECRETS_KEY_BYTES_MAX + 1);
    for (;;) {
        uint64_t now = mono_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= due)
            return ERR_TIMEOUT;
        if (poll(&p, 1, (int)((due - now) / 1000000) + 1) <= 0)
            continue;
        ssize_t n = read(fd, text->p + text->n, SECRETS_KEY_BYTES_MAX + 1 - text->n);
        if (n == 0)
            return OK;
        if (n < 0 && errno != EINTR)
            return ERR_IO;
        text->n += n > 0 ? (size_t)n : 0;
        if (text->n > SECRETS_KEY_BYTES_MAX)
            return ERR_LIMIT;
    }
}

static enum err command_end(pid_t pid, enum err e, struct buf *why)
{
    int status = 0;
    if (e != OK)
        kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (e == ERR_TIMEOUT)
        buf_printf(why, "the command of --secrets-key-command has not ended within %d s", SECRETS_KEY_COMMAND_MS / 1000);
    else if (e == ERR_LIMIT)
        buf_printf(why, "the command of --secrets-key-command has printed more than %d bytes; it must print keys only", SECRETS_KEY_BYTES_MAX);
    else if (e != OK)
        buf_printf(why, "the output of the command of --secrets-key-command can't be read: %s", err_text(e));
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        buf_printf(why, "the command of --secrets-key-command has failed (%s %d)", WIFEXITED(status) ? "exit status" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        e = ERR_INVALID;
    }
    return e;
}

static enum err command_keys(const char *command, struct keyring **out, struct buf *why)
{
    struct buf text = {0};
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) {
        buf_adds(why, "the command of --secrets-key-command can't be started");
        return err_from_errno(errno);
    }
    pid_t pid = fork();
    if (pid == 0)
        command_child(command, fds[1]);
    close(fds[1]);
    enum err e = pid < 0 ? ERR_NOMEM : command_output(fds[0], &text);
    close(fds[0]);
    if (pid < 0)
        buf_adds(why, "the command of --secrets-key-command can't be started");
    else
        e = command_end(pid, e, why);
    if (e == OK)
        e = keys_read("the output of --secrets-key-command", &text, out, why);
    text_wipe(&text);
    return e;
}

/* ---- all together ---------------------------------------------------------------------------------------------------------------- */

enum err secrets_key_open(const char *data_dir, const char *file, const char *command, bool shared, struct keyring **out, struct buf *why)
{
    struct buf path = {0};
    if (*command)
        return command_keys(command, out, why);
    if (*file)
        buf_adds(&path, file);
    else
        buf_printf(&path, "%s/" SECRETS_KEY_FILE, data_dir);
    enum err e = file_keys(path.p, out, why);
    if (e == ERR_NOTFOUND && *file)
        buf_printf(why, "the key for Secrets, %s, is not there; make one: openssl rand -base64 32 > FILE, with mode 0600", file);
    else if (e == ERR_NOTFOUND && shared)
        buf_printf(why, "nodes that share a store need the same key for Secrets, and %s is not there; give one to each of them with --secrets-key (openssl rand -base64 32 > FILE, with mode 0600), or copy another node's " SECRETS_KEY_FILE,
                   path.p);
    else if (e == ERR_NOTFOUND)
        e = file_make(path.p, out, why);
    buf_free(&path);
    return e;
}
