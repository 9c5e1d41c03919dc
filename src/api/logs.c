/* logs.c - GET /v1/logs: the captured output of a workload, from its file and then live.
 *
 * The file is read on a pool thread, so that a large one never stops the control loop. Three things happen at once: the
 * log thread writes lines to the file, the pool thread reads it, new lines arrive at api_log_line(). A line must come out
 * exactly once, in order. So the api remembers recent lines of all workloads (they reach the disk well before they are
 * forgotten), a follower is also handed those that arrive while its file is read, and when the file is there, the two are
 * joined where they overlap:
 *
 *     file:     a b c d e
 *     recent:         d e f g      the longest head of `recent` that is a tail of `file` is left out
 *     answer:   a b c d e f g      then the last `tail` lines of it
 *
 * With after=TEXT what comes up to the last line that begins with TEXT is left out: so a follower whose stream was cut goes on.
 *
 * A follower that reads too slowly loses lines and is told how many; nothing here ever waits for it.
 */
#include "api_int.h"

#include <stdio.h>

#define RECENT_BYTES_MAX 262144          /* of remembered lines, all workloads together */
#define FILE_BYTES_MAX ((size_t)1 << 30) /* of one file of captured output; they are rotated long before */
#define ROTATED ".1"                     /* what log_file appends to the name of the older file */

/* One reading of a file, on its way through the pool. It outlives its connection if it must. */
struct log_job {
    struct work work;
    struct api_conn *conn; /* NULL: the connection is gone */
    char *path, *key;
    bool follow;
    bool all;          /* no tail was given */
    char *after;       /* NULL, or how the last line that the reader has begins */
    uint64_t tail;     /* lines wanted */
    struct buf text;   /* of the file */
    struct list lines; /* struct recent_line: remembered at the start, then arriving */
    size_t lines_bytes;
    enum err err;
};

/* What a connection that follows needs. Hangs on conn->hold. */
struct follower {
    char *key;
    uint64_t dropped; /* lines since it became too slow */
};

/* ---- remembered lines ------------------------------------------------------------------------------------------------- */

static struct recent_line *line_new(const char *key, struct slice text)
{
    struct recent_line *r = mem_try(MEM_LOG, sizeof *r);
    if (!r)
        return NULL;
    r->key = mem_strdup(MEM_LOG, key);
    r->text = mem_strndup(MEM_LOG, text.p ? text.p : "", text.n);
    r->n = text.n;
    list_init(&r->link);
    return r;
}

static void line_free(struct recent_line *r)
{
    list_del(&r->link);
    mem_free(r->key);
    mem_free(r->text);
    mem_free(r);
}

static void lines_free(struct list *lines)
{
    LIST_FOREACH (it, lines)
        line_free(CONTAINER_OF(it, struct recent_line, link));
}

static void lines_copy(struct list *from, const char *key, struct log_job *to)
{
    LIST_FOREACH (it, from) {
        struct recent_line *r = CONTAINER_OF(it, struct recent_line, link);
        struct recent_line *copy = strcmp(r->key, key) == 0 ? line_new(key, slice_of(r->text, r->n)) : NULL;
        if (copy) {
            list_push(&to->lines, &copy->link);
            to->lines_bytes += copy->n;
        }
    }
}

static void recent_add(struct api *a, const char *key, struct slice text)
{
    struct recent_line *r = line_new(key, text);
    if (!r)
        return;
    list_push(&a->recent, &r->link);
    a->recent_bytes += r->n;
    while (a->recent_bytes > RECENT_BYTES_MAX) {
        struct recent_line *oldest = CONTAINER_OF(a->recent.next, struct recent_line, link);
        a->recent_bytes -= oldest->n;
        line_free(oldest);
    }
}

void api_logs_fini(struct api *a) { lines_free(&a->recent); }

/* ---- live lines ------------------------------------------------------------------------------------------------------------ */

static void send_line(struct api_conn *c, struct slice line)
{
    struct buf b = {0};
    buf_add_slice(&b, line);
    buf_addc(&b, '\n');
    api_stream_chunk(c, buf_slice(&b));
    buf_free(&b);
}

static void follower_line(struct api_conn *c, struct follower *f, struct slice line)
{
    if (c->stream.out_bytes >= c->api->limit[API_LIMIT_OUT_BYTES]) {
        if (!f->dropped++)
            api_limit_hit(c->api, API_LIMIT_OUT_BYTES);
        counter_inc(&c->api->lines_dropped);
        return;
    }
    if (f->dropped) {
        char note[96];
        int n = snprintf(note, sizeof note, "[weir: %llu lines left out here: this reader was too slow]", (unsigned long long)f->dropped);
        f->dropped = 0;
        send_line(c, slice_of(note, (size_t)n));
    }
    send_line(c, line);
}

/* A connection on the followers' list either has its file still on the way (BUSY, hold is the job) or streams. */
static void conn_line(struct api_conn *c, const char *key, struct slice line)
{
    if (c->state == CONN_STREAM) {
        struct follower *f = c->hold;
        if (strcmp(f->key, key) == 0)
            follower_line(c, f, line);
        return;
    }
    struct log_job *job = c->hold;
    struct recent_line *r = strcmp(job->key, key) == 0 && job->lines_bytes < c->api->limit[API_LIMIT_LOG_BYTES] ? line_new(key, line) : NULL;
    if (r) {
        list_push(&job->lines, &r->link);
        job->lines_bytes += r->n;
    }
}

void api_log_line(struct api *a, const char *ns, const char *deployment, struct slice line)
{
    char key[512];
    snprintf(key, sizeof key, "%s/%s", ns, deployment);
    recent_add(a, key, line);
    LIST_FOREACH (it, &a->followers)
        conn_line(CONTAINER_OF(it, struct api_conn, follow), key, line);
}

/* ---- joining ---------------------------------------------------------------------------------------------------------------- */

/* Splits text into lines, without a last one that is still being written. */
static struct slice *text_lines(struct slice text, size_t *n)
{
    struct slice *out = NULL;
    size_t cap = 0;
    *n = 0;
    while (text.n) {
        ptrdiff_t at = slice_find(text, '\n');
        if (at < 0)
            break;
        ARRAY_GROW(MEM_API, out, *n, cap);
        out[(*n)++] = slice_of(text.p, (size_t)at);
        text = slice_of(text.p + at + 1, text.n - (size_t)at - 1);
    }
    return out;
}

/* How many of recent's first lines are the file's last lines already: the longest such overlap. */
static size_t overlap(const struct slice *file, size_t file_n, const struct slice *recent, size_t recent_n)
{
    for (size_t k = MIN(file_n, recent_n); k > 0; k--) {
        size_t i = 0;
        while (i < k && slice_eq(file[file_n - k + i], recent[i]))
            i++;
        if (i == k)
            return k;
    }
    return 0;
}

/* The answer's text: file and lines joined, the last `tail` lines, at most bytes_max. */
static void job_join(struct log_job *job, size_t bytes_max, struct buf *out)
{
    size_t file_n, recent_n = 0, cap = 0;
    struct slice *file = text_lines(buf_slice(&job->text), &file_n), *recent = NULL;
    LIST_FOREACH (it, &job->lines) {
        struct recent_line *r = CONTAINER_OF(it, struct recent_line, link);
        ARRAY_GROW(MEM_API, recent, recent_n, cap);
        recent[recent_n++] = slice_of(r->text, r->n);
    }
    size_t skip = overlap(file, file_n, recent, recent_n);
    size_t total = file_n + recent_n - skip, bytes = 0, from = total;
    struct slice after = job->after ? slice_cstr(job->after) : (struct slice){0};
    while (from > 0 && (job->all || total - from < job->tail)) {
        struct slice l = from - 1 < file_n ? file[from - 1] : recent[from - 1 - file_n + skip];
        if (bytes + l.n + 1 > bytes_max || (after.n && slice_starts(l, after)))
            break;
        bytes += l.n + 1;
        from--;
    }
    buf_reserve(out, bytes + 1);
    for (; from < total; from++) {
        buf_add_slice(out, from < file_n ? file[from] : recent[from - file_n + skip]);
        buf_addc(out, '\n');
    }
    mem_free(file);
    mem_free(recent);
}

/* ---- the job ------------------------------------------------------------------------------------------------------------------ */

/* On a pool thread. The older file is read only when the newer one has too few lines. */
static void job_run(struct work *w)
{
    struct log_job *job = CONTAINER_OF(w, struct log_job, work);
    struct buf now = {0};
    char older[4200];
    uint64_t lines = 0;
    job->err = file_read(job->path, &now, FILE_BYTES_MAX);
    for (size_t i = 0; i < now.n; i++)
        lines += now.p[i] == '\n';
    snprintf(older, sizeof older, "%s" ROTATED, job->path);
    if ((job->all || lines < job->tail) && file_read(older, &job->text, FILE_BYTES_MAX) != OK)
        buf_clear(&job->text); /* there was no rotation yet */
    buf_add(&job->text, now.p ? now.p : "", now.n);
    buf_free(&now);
}

static void job_free(struct log_job *job)
{
    lines_free(&job->lines);
    buf_free(&job->text);
    mem_free(job->path);
    mem_free(job->key);
    mem_free(job->after);
    mem_free(job);
}

static void job_detach(struct api_conn *c)
{
    struct log_job *job = c->hold;
    job->conn = NULL; /* job_done() frees it */
}

static void follower_detach(struct api_conn *c)
{
    struct follower *f = c->hold;
    c->hold = NULL;
    mem_free(f->key);
    mem_free(f);
}

static void follow_begin(struct api_conn *c, struct log_job *job, struct slice text)
{
    if (!api_stream_begin(c, "text/plain; charset=utf-8"))
        return; /* HEAD, answered */
    struct follower *f = mem_new(MEM_API, sizeof *f);
    f->key = mem_strdup(MEM_API, job->key);
    c->hold = f;
    c->detach = follower_detach;
    api_stream_chunk(c, text);
    if (c->eof)
        api_stream_end(c); /* it sent its FIN while the file was read */
}

/* Back on the loop. */
static void job_done(struct work *w)
{
    struct log_job *job = CONTAINER_OF(w, struct log_job, work);
    struct api_conn *c = job->conn;
    struct buf text = {0};
    if (c && job->err && job->err != ERR_NOTFOUND) { /* not found: it has written nothing yet */
        list_del(&c->follow);
        api_error(c, 500, "see the node's log", "the captured output can't be read: %s", err_text(job->err));
    } else if (c) {
        job_join(job, c->api->limit[API_LIMIT_LOG_BYTES], &text);
        if (job->follow) {
            follow_begin(c, job, buf_slice(&text));
        } else {
            list_del(&c->follow);
            api_answer(c, 200, "text/plain; charset=utf-8", buf_slice(&text));
        }
    }
    buf_free(&text);
    job_free(job);
}

static bool tail_of(struct api_conn *c, struct log_job *job)
{
    const char *tail = api_query(c, "tail");
    job->all = !tail || strcmp(tail, "-1") == 0;
    if (job->all || slice_u64(slice_cstr(tail), UINT32_MAX, &job->tail) == OK)
        return true;
    api_error(c, 400, "give a number of lines, or -1 for all", "tail=\"%s\" is not a number of lines", tail);
    return false;
}

void api_get_logs(struct api_conn *c)
{
    const char *ns, *name;
    struct log_job probe = {0};
    struct api *a = c->api;
    if (!api_query_workload(c, &ns, &name)) {
        api_error(c, 400, "add ?workload=NAMESPACE/NAME", "no workload is named");
        return;
    }
    const char *path = a->ops->log_path(a->ctx, ns, name);
    if (!path) {
        api_error(c, 404, "list workloads with weir get workloads -A", "there is no workload %s/%s", ns, name);
        return;
    }
    if (!tail_of(c, &probe))
        return;
    struct log_job *job = mem_new(MEM_API, sizeof *job);
    *job = probe;
    job->conn = c;
    job->follow = api_query_flag(c, "follow") && !c->req.head_only;
    job->path = mem_strdup(MEM_API, path);
    const char *after = api_query(c, "after");
    job->after = after && *after ? mem_strdup(MEM_API, after) : NULL;
    struct buf key = {0};
    buf_printf(&key, "%s/%s", ns, name);
    job->key = buf_take(&key, NULL);
    list_init(&job->lines);
    lines_copy(&a->recent, job->key, job);
    job->work.run = job_run;
    job->work.done = job_done;
    api_conn_hold(c, job, job_detach);
    list_push(&a->followers, &c->follow);
    work_submit(a->loop, &job->work);
}
