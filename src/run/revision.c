/* revision.c - templates, names, labels, and what is kept over a restart of the engine.
 *
 * A revision holds its own parsed copy of the Deployment, made from the manifest's JSON by the manifest reader itself, so
 * nothing here copies templates field by field and an old replica never refers to an objset that is gone.
 *
 * Names:   <deployment, cut to fit>-<key in base 32, 8 characters>-<5 random characters>
 * Labels:  1 NAMESPACE DEPLOYMENT KEY RESTARTS BACKOFF-STEP NAME            (numbers in decimal, one space between)
 * File:    DATA/run.state, lines:
 *
 *     weir-run 1
 *     workload NAMESPACE NAME RESTART-COUNT REVISION-NUMBER KEY-OF-THE-CURRENT-REVISION
 *     config NAMESPACE NAME HASH                                  of the ConfigMaps and Secrets that it was last started with
 *     revision NAMESPACE NAME KEY DIR-BYTES DIR JSON              JSON is compact: it holds no newline
 *     replica ID FLAGS DUE                                        r: ready, d: doomed, t: SIGTERM was sent, b: back-off, -: none;
 *                                                                 DUE: of t and b, wall clock in ms; 0: none
 *     part ID STREAM TEXT                                         a line that has begun; STREAM 0 or 1. Only at a release
 *
 * The file is written off the loop by a save_job that owns all it needs, one at a time; changes meanwhile cause another.
 * It is read once, when the engine starts. What it says of an id matters only if sup still has that process: ids are never
 * used twice, so the lines of an earlier life of the node mean nobody.
 */
#include "run_int.h"

#include <stdio.h>

/* Crockford's base 32: digits and letters without i, l, o, u, so that names read well aloud. */
static const char base32[] = "0123456789abcdefghjkmnpqrstvwxyz";

/* ---- revisions ---------------------------------------------------------------------------------------------------- */

/* SplitMix64's finaliser: spreads the bits, and is the same in every process (names outlive the engine). */
static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

uint64_t revision_key(uint64_t template_hash, uint64_t restart_n)
{
    return mix64(template_hash + mix64(restart_n * 0x9e3779b97f4a7c15ULL));
}

struct revision *revision_new(uint64_t key)
{
    struct revision *rev = mem_new(MEM_RUN, sizeof *rev);
    rev->refs = 1;
    rev->key = key;
    for (unsigned i = 0; i < RUN_REV_CHARS; i++)
        rev->text[i] = base32[(key >> (59 - 5 * i)) & 31];
    return rev;
}

struct revision *revision_ref(struct revision *rev)
{
    MUST(rev->refs > 0);
    rev->refs++;
    return rev;
}

void revision_unref(struct revision *rev)
{
    if (!rev)
        return;
    MUST(rev->refs > 0);
    if (--rev->refs)
        return;
    objset_free(rev->own);
    mem_free(rev);
}

/* The stand-in for a missing readiness probe: does the first declared port accept? */
static void revision_accept(struct revision *rev)
{
    const struct pod_template *pod = &rev->obj->dep.pod;
    if (pod->readiness.kind != PROBE_NONE || pod->ports_n == 0)
        return;
    rev->accept = (struct probe){.kind = PROBE_TCP, .port = pod->ports[0].port, .period_s = 1, .timeout_s = 1, .success_threshold = 1, .failure_threshold = 1};
}

bool revision_set(struct revision *rev, const char *ns, const char *dir, struct slice json, struct buf *why)
{
    MUST(!rev->own);
    struct diags d = {0};
    struct objset *own = objset_new();
    objset_read(own, "Deployment", dir ? dir : "/", json, ns, false, &d);
    bool good = d.errors == 0 && objset_n(own) == 1 && objset_at(own, 0)->kind == OBJ_DEPLOYMENT;
    if (good) {
        rev->own = own;
        rev->obj = objset_at(own, 0);
        revision_accept(rev);
    } else {
        for (size_t i = 0; i < d.n; i++)
            if (d.items[i].level == DIAG_ERROR)
                buf_printf(why, "%s%s", why->n ? "; " : "", d.items[i].reason);
        if (why->n == 0)
            buf_adds(why, "it holds no Deployment");
        objset_free(own);
    }
    diags_free(&d);
    return good;
}

struct revision *revision_find(struct workload *wl, uint64_t key)
{
    if (wl->cur && wl->cur->key == key)
        return wl->cur;
    LIST_FOREACH(it, &wl->replicas) {
        struct replica *rp = CONTAINER_OF(it, struct replica, link);
        if (rp->rev->key == key)
            return rp->rev;
    }
    return NULL;
}

/* ---- names ------------------------------------------------------------------------------------------------------------ */

static bool name_taken(const struct run *r, const char *name)
{
    LIST_FOREACH(it, &r->workloads) {
        const struct workload *wl = CONTAINER_OF(it, struct workload, link);
        LIST_FOREACH(rit, &wl->replicas)
            if (strcmp(CONTAINER_OF(rit, struct replica, link)->name, name) == 0)
                return true;
    }
    return false;
}

/* Unique among all namespaces: sup names cgroups by it. */
void rep_name_make(struct workload *wl, const struct revision *rev, char out[RUN_NAME_MAX + 1])
{
    size_t room = RUN_NAME_MAX - 2 - RUN_REV_CHARS - RUN_SUFFIX_CHARS, n = MIN(strlen(wl->name), room);
    while (n > 1 && (wl->name[n - 1] == '-' || wl->name[n - 1] == '.'))
        n--; /* a label does not end in these before a '-' */
    do {
        char suffix[RUN_SUFFIX_CHARS + 1] = {0};
        uint64_t chance = loop_random(wl->run->loop);
        for (unsigned i = 0; i < RUN_SUFFIX_CHARS; i++, chance >>= 5)
            suffix[i] = base32[chance & 31];
        (void)snprintf(out, RUN_NAME_MAX + 1, "%.*s-%s-%s", (int)n, wl->name, rev->text, suffix);
    } while (name_taken(wl->run, out));
}

/* ---- labels -------------------------------------------------------------------------------------------------------------- */

void run_label_format(const struct replica *rp, struct buf *out)
{
    buf_printf(out, "1 %s %s %llu %u %u %s", rp->wl->ns, rp->wl->name, (unsigned long long)rp->rev->key, rp->restarts, rp->backoff_step, rp->name);
    MUST(out->n < RUN_LABEL_MAX); /* names are at most 253 bytes (Kubernetes) */
}

bool run_label_parse(struct slice text, struct label *out)
{
    struct slice rest, key, restarts, step;
    if (!slice_is(slice_cut(text, ' ', &rest), "1"))
        return false;
    out->ns = slice_cut(rest, ' ', &rest);
    out->deployment = slice_cut(rest, ' ', &rest);
    key = slice_cut(rest, ' ', &rest);
    restarts = slice_cut(rest, ' ', &rest);
    step = slice_cut(rest, ' ', &rest);
    out->name = rest;
    return out->ns.n && out->deployment.n && out->name.n && out->name.n <= RUN_NAME_MAX && slice_find(out->name, ' ') < 0 &&
           slice_u64(key, UINT64_MAX, &out->key) == OK && slice_u64(restarts, UINT32_MAX, &out->restarts) == OK &&
           slice_u64(step, UINT32_MAX, &out->backoff_step) == OK;
}

/* ---- the state file: reading ------------------------------------------------------------------------------------------------ */

static char *state_path(const struct run *r)
{
    struct buf b = {0};
    buf_printf(&b, "%s/run.state", r->conf.data_dir);
    return buf_take(&b, NULL);
}

void run_state_load(struct run *r)
{
    char *path = state_path(r);
    enum err e = file_read(path, &r->saved, RUN_STATE_BYTES_MAX);
    if (e != OK && e != ERR_NOTFOUND)
        log_warn("run", "%s: %s; replicas are probed anew", path, err_text(e));
    struct slice rest;
    if (e != OK || !slice_is(slice_cut(buf_slice(&r->saved), '\n', &rest), "weir-run 1"))
        buf_free(&r->saved);
    mem_free(path);
}

/* The rest of the next line that begins with word, at and after *at; false when there is none. */
static bool state_line(const char *word, struct slice *at, struct slice *rest)
{
    while (at->n) {
        struct slice line = slice_cut(*at, '\n', at);
        if (slice_is(slice_cut(line, ' ', rest), word))
            return true;
    }
    return false;
}

static bool state_names(struct slice *rest, const struct workload *wl)
{
    return slice_is(slice_cut(*rest, ' ', rest), wl->ns) && slice_is(slice_cut(*rest, ' ', rest), wl->name);
}

void run_state_workload(struct run *r, struct workload *wl)
{
    struct slice at = buf_slice(&r->saved), rest;
    while (state_line("workload", &at, &rest)) {
        uint64_t restart_n, revision_n, key;
        if (!state_names(&rest, wl))
            continue;
        struct slice a = slice_cut(rest, ' ', &rest), b = slice_cut(rest, ' ', &rest);
        if (slice_u64(a, UINT64_MAX, &restart_n) == OK && slice_u64(b, UINT64_MAX, &revision_n) == OK && slice_u64(rest, UINT64_MAX, &key) == OK) {
            wl->restart_n = restart_n;
            wl->revision_n = revision_n;
            wl->last_key = key;
        }
        break;
    }
    at = buf_slice(&r->saved);
    while (state_line("config", &at, &rest))
        if (state_names(&rest, wl) && slice_u64(rest, UINT64_MAX, &wl->config) == OK)
            wl->config_known = true;
}

bool run_state_revision(struct run *r, const struct workload *wl, struct revision *rev)
{
    struct slice at = buf_slice(&r->saved), rest;
    while (state_line("revision", &at, &rest)) {
        uint64_t key, dir_n;
        if (!state_names(&rest, wl) || slice_u64(slice_cut(rest, ' ', &rest), UINT64_MAX, &key) != OK || key != rev->key)
            continue;
        if (slice_u64(slice_cut(rest, ' ', &rest), 4096, &dir_n) != OK || dir_n + 1 >= rest.n)
            return false;
        char *dir = mem_strndup(MEM_RUN, rest.p, dir_n);
        struct buf why = {0};
        bool good = revision_set(rev, wl->ns, dir, slice_of(rest.p + dir_n + 1, rest.n - dir_n - 1), &why);
        if (!good)
            log_warn("run", "%s/%s: a saved revision cannot be read: %s", wl->ns, wl->name, why.p);
        buf_free(&why);
        mem_free(dir);
        return good;
    }
    return false;
}

/* The next line of word that begins with id. */
static bool state_line_of(const char *word, uint64_t id, struct slice *at, struct slice *rest)
{
    uint64_t have;
    while (state_line(word, at, rest))
        if (slice_u64(slice_cut(*rest, ' ', rest), UINT64_MAX, &have) == OK && have == id)
            return true;
    return false;
}

void run_state_replica(struct run *r, uint64_t id, struct saved_replica *out)
{
    struct slice at = buf_slice(&r->saved), rest;
    *out = (struct saved_replica){0};
    if (state_line_of("replica", id, &at, &rest)) {
        struct slice flags = slice_cut(rest, ' ', &rest);
        out->ready = slice_find(flags, 'r') >= 0;
        out->doomed = slice_find(flags, 'd') >= 0;
        out->termed = slice_find(flags, 't') >= 0;
        out->backoff = slice_find(flags, 'b') >= 0;
        if (slice_u64(rest, UINT64_MAX, &out->due_wall_ms) != OK)
            out->due_wall_ms = 0;
    }
    at = buf_slice(&r->saved);
    while (state_line_of("part", id, &at, &rest)) {
        struct slice stream = slice_cut(rest, ' ', &rest);
        out->part[slice_is(stream, "1")] = rest;
    }
}

/* ---- the state file: writing ------------------------------------------------------------------------------------------------ */

struct save_job {
    struct work work;
    struct run *run;  /* NULL: the run is gone, nobody waits */
    char *path;
    struct buf text;
    enum err e;       /* written by the pool thread, read after it */
};

static void state_save(struct timer *t);

static void state_put_revision(const struct workload *wl, const struct revision *rev, struct buf *out)
{
    if (!rev->obj)
        return;
    const char *dir = rev->obj->dir ? rev->obj->dir : "/";
    if (strchr(dir, '\n') || strlen(dir) > 4096)
        return; /* such a folder cannot be kept: after a restart of the engine its replicas get the current template */
    buf_printf(out, "revision %s %s %llu %zu %s ", wl->ns, wl->name, (unsigned long long)rev->key, strlen(dir), dir);
    buf_adds(out, rev->obj->json);
    buf_addc(out, '\n');
}

static void state_put_replica(const struct replica *rp, struct buf *out)
{
    bool termed = rp->phase == PH_STOPPING, backoff = rp->phase == PH_BACKOFF;
    uint64_t due = 0, now = loop_now_ms(RUN_OF(rp)->loop);
    if ((termed || backoff) && timer_is_set(&rp->timer))
        due = wall_ns() / 1000000 + (rp->timer.due_ms > now ? rp->timer.due_ms - now : 0);
    buf_printf(out, "replica %llu %s%s%s%s %llu\n", (unsigned long long)rp->id, rp->ready ? "r" : "-", rp->doomed ? "d" : "", termed ? "t" : "",
               backoff ? "b" : "", (unsigned long long)due);
}

/* Each revision once: by cur, and by the first replica of it. */
static void state_put_workload(struct workload *wl, struct buf *out)
{
    buf_printf(out, "workload %s %s %llu %llu %llu\n", wl->ns, wl->name, (unsigned long long)wl->restart_n,
               (unsigned long long)wl->revision_n, (unsigned long long)wl->last_key);
    if (wl->config_known)
        buf_printf(out, "config %s %s %llu\n", wl->ns, wl->name, (unsigned long long)wl->config);
    if (wl->cur)
        state_put_revision(wl, wl->cur, out);
    LIST_FOREACH(it, &wl->replicas) {
        const struct replica *rp = CONTAINER_OF(it, struct replica, link);
        bool first = rp->rev != wl->cur;
        for (const struct list *b = wl->replicas.next; first && b != &rp->link; b = b->next)
            first = CONTAINER_OF(b, struct replica, link)->rev != rp->rev;
        if (first)
            state_put_revision(wl, rp->rev, out);
        if (rp->known)
            state_put_replica(rp, out);
    }
}

static void state_text(struct run *r, struct buf *out)
{
    buf_adds(out, "weir-run 1\n");
    LIST_FOREACH(it, &r->workloads)
        state_put_workload(CONTAINER_OF(it, struct workload, link), out);
}

static void save_run(struct work *w)
{
    struct save_job *job = CONTAINER_OF(w, struct save_job, work);
    job->e = file_replace(job->path, job->text.p, job->text.n, 0600); /* manifests may hold secrets */
}

static void save_done(struct work *w)
{
    struct save_job *job = CONTAINER_OF(w, struct save_job, work);
    struct run *r = job->run;
    if (r) {
        r->save = NULL;
        if (job->e != OK) {
            r->save_failures++;
            log_warn("run", "%s: %s; readiness is not kept over a restart of the engine", job->path, err_text(job->e));
        }
        if (r->save_again)
            run_state_changed(r);
        loop_defer(r->loop, &r->turn); /* run_stop() waits for it */
    }
    mem_free(job->path);
    buf_free(&job->text);
    mem_free(job);
}

static void state_save(struct timer *t)
{
    struct run *r = CONTAINER_OF(t, struct run, save_timer);
    struct save_job *job = mem_new(MEM_RUN, sizeof *job);
    r->save_again = false;
    r->save = job;
    job->run = r;
    job->path = state_path(r);
    job->work.run = save_run;
    job->work.done = save_done;
    state_text(r, &job->text);
    work_submit(r->loop, &job->work);
}

void run_state_changed(struct run *r)
{
    if (!r->set && !r->stopping)
        return; /* adoption is under way: the file still says more than we know */
    if (r->save)
        r->save_again = true;
    else if (!timer_is_set(&r->save_timer))
        timer_set(r->loop, &r->save_timer, RUN_SAVE_MS);
}

/* On the loop: the engine that asks for it runs no workloads until another does, and the file is small. */
enum err run_state_release(struct run *r)
{
    struct buf text = {0};
    char *path = state_path(r);
    MUST(!r->save);
    state_text(r, &text);
    LIST_FOREACH(it, &r->workloads) {
        LIST_FOREACH(rit, &CONTAINER_OF(it, struct workload, link)->replicas) {
            const struct replica *rp = CONTAINER_OF(rit, struct replica, link);
            for (int i = 0; i < 2 && rp->known; i++) {
                if (!rp->out[i].part.n)
                    continue;
                buf_printf(&text, "part %llu %d ", (unsigned long long)rp->id, i);
                buf_add_slice(&text, buf_slice(&rp->out[i].part));
                buf_addc(&text, '\n');
            }
        }
    }
    enum err e = file_replace(path, text.p, text.n, 0600);
    if (e != OK) {
        r->save_failures++;
        log_error("run", "%s: %s", path, err_text(e));
    } else {
        timer_clear(&r->save_timer);
    }
    mem_free(path);
    buf_free(&text);
    return e;
}

void run_state_init(struct run *r) { timer_init(&r->save_timer, state_save); }

void run_state_detach(struct run *r)
{
    timer_clear(&r->save_timer);
    if (r->save)
        r->save->run = NULL;
    r->save = NULL;
}
