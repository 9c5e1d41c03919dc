/* regex.c - regular expressions over PCRE2, for matches, rewrites and transformations.
 *
 * Expressions come from manifests, subjects from anybody. So compiling may cost what it costs, but a match has limits: on
 * steps (which the JIT counts too), on nested backtracking and on memory. A match that reaches one is no match, and is
 * counted. Bytes are bytes: no UTF mode, since a path with broken UTF-8 is a path too.
 *
 *   control thread   regex_new(): one compiled pattern, anchored at both ends when whole subjects will be asked for (options
 *                    given at match time would turn the JIT off)
 *   any thread       plan_regex_match(), plan_regex_replace(): the pattern is shared and read-only; PCRE2's match data lies in
 *                    thread-local memory, so that no match allocates (the interpreter alone, where there is no JIT, does)
 *
 * Syntax: PCRE2's, which has all of RE2's that Istio and Gateway API users write.
 */
#include "route_int.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define REGEX_GROUPS 10        /* \0 to \9 */
#define MATCH_ROOM_BYTES 1024  /* PCRE2's match data for REGEX_GROUPS pairs takes some 300 */

struct plan_regex {
    uint32_t refs;      /* atomic */
    bool whole;         /* compiled to match whole subjects only */
    bool jit;
    pcre2_code *code;   /* read-only once made */
};

static uint64_t overruns; /* atomic */
/* Made by the first regex_new() and never freed: every thread's matches refer to them. */
static pcre2_general_context *matching; /* the memory of match data */
static pcre2_compile_context *compiling;
static pcre2_match_context *limits;

/* The match data of a thread. room is what match_memory() hands out first. */
static _Thread_local struct {
    pcre2_match_data *data;
    bool begun; /* the next allocation is the match data itself */
    _Alignas(16) char room[MATCH_ROOM_BYTES];
} mine;

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

static void *pattern_alloc(size_t n, void *ctx) { return mem_try(MEM_PLAN, n); }
static void pattern_free(void *p, void *ctx) { mem_free(p); }

static void *match_alloc(size_t n, void *ctx)
{
    if (!mine.begun || n > sizeof mine.room)
        return mem_try(MEM_PLAN, n);
    mine.begun = false;
    return mine.room;
}

static void match_free(void *p, void *ctx)
{
    if (p != mine.room)
        mem_free(p);
}

static pcre2_match_data *match_data(void)
{
    if (!mine.data) {
        mine.begun = true;
        mine.data = pcre2_match_data_create(REGEX_GROUPS, matching);
    }
    return mine.data;
}

static void contexts_make(void)
{
    if (limits)
        return;
    pcre2_general_context *patterns = pcre2_general_context_create(pattern_alloc, pattern_free, NULL);
    matching = pcre2_general_context_create(match_alloc, match_free, NULL);
    MUST(patterns && matching);
    compiling = pcre2_compile_context_create(patterns);
    limits = pcre2_match_context_create(patterns);
    MUST(compiling && limits);
    pcre2_general_context_free(patterns);
    pcre2_set_max_pattern_length(compiling, REGEX_BYTES_MAX);
    pcre2_set_match_limit(limits, REGEX_MATCH_MAX);
    pcre2_set_depth_limit(limits, REGEX_DEPTH_MAX);
    pcre2_set_heap_limit(limits, REGEX_HEAP_KIB_MAX);
}

/* ---- patterns ------------------------------------------------------------------------------------------------------------ */

struct plan_regex *regex_new(struct slice text, bool whole, struct buf *why)
{
    int code;
    PCRE2_SIZE at;
    contexts_make();
    uint32_t options = PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | (whole ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0);
    pcre2_code *made = pcre2_compile((PCRE2_SPTR)(text.n ? text.p : ""), text.n, options, &code, &at, compiling);
    if (!made) {
        PCRE2_UCHAR said[160];
        pcre2_get_error_message(code, said, sizeof said);
        if (why && code == PCRE2_ERROR_PATTERN_STRING_TOO_LONG)
            buf_printf(why, "longer than %d bytes", REGEX_BYTES_MAX);
        else if (why)
            buf_printf(why, "at byte %zu: %s", (size_t)at + 1, (const char *)said);
        return NULL;
    }
    struct plan_regex *r = mem_new(MEM_PLAN, sizeof *r);
    *r = (struct plan_regex){.refs = 1, .whole = whole, .code = made};
    r->jit = pcre2_jit_compile(made, PCRE2_JIT_COMPLETE) == 0; /* not on every machine: then the interpreter matches */
    return r;
}

struct plan_regex *regex_ref(struct plan_regex *r)
{
    uint32_t before = __atomic_fetch_add(&r->refs, 1, __ATOMIC_RELAXED);
    MUST(before > 0 && before < UINT32_MAX);
    return r;
}

void regex_unref(struct plan_regex *r)
{
    if (!r || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pcre2_code_free(r->code);
    mem_free(r);
}

uint64_t regex_bytes(const struct plan_regex *r)
{
    size_t code = 0, jit = 0;
    pcre2_pattern_info(r->code, PCRE2_INFO_SIZE, &code);
    pcre2_pattern_info(r->code, PCRE2_INFO_JITSIZE, &jit);
    return sizeof *r + code + jit;
}

bool plan_regex_check(struct slice text, struct buf *why)
{
    struct plan_regex *r = regex_new(text, false, why);
    bool fine = r != NULL;
    regex_unref(r);
    return fine;
}

/* ---- matching ------------------------------------------------------------------------------------------------------------ */

bool plan_regex_overrun(void)
{
    __atomic_fetch_add(&overruns, 1, __ATOMIC_RELAXED);
    return false;
}

/* The number of groups set, at least 1; 0: no match; below 0: given up, which is counted. */
static int regex_run(const struct plan_regex *r, struct slice subject, size_t from, uint32_t options, pcre2_match_data *data)
{
    int n = data ? pcre2_match(r->code, (PCRE2_SPTR)(subject.n ? subject.p : ""), subject.n, from, options, data, limits) : PCRE2_ERROR_NOMEMORY;
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    if (n < 0)
        plan_regex_overrun();
    return n == 0 ? REGEX_GROUPS : n; /* 0: more groups than there is room for */
}

/* The interpreter keeps its frames with the match data; they go at once, so that an ending thread leaves nothing. */
static void regex_done(const struct plan_regex *r)
{
    if (r->jit || !mine.data)
        return;
    pcre2_match_data_free(mine.data);
    mine.data = NULL;
}

bool plan_regex_match(const struct plan_regex *r, struct slice subject, bool whole)
{
    MUST(whole || !r->whole);
    uint32_t options = whole && !r->whole ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0;
    int n = regex_run(r, subject, 0, options, match_data());
    regex_done(r);
    return n > 0;
}

/* \1 to \9 are groups, \0 the whole match, \\ a backslash; any other backslash stands for itself. */
static void replacement_add(struct buf *out, struct slice with, struct slice subject, const PCRE2_SIZE *ends, int groups)
{
    for (size_t i = 0; i < with.n; i++) {
        char c = with.p[i];
        if (c != '\\' || i + 1 == with.n) {
            buf_addc(out, c);
            continue;
        }
        char d = with.p[i + 1];
        int group = d - '0';
        if (d == '\\') {
            buf_addc(out, '\\');
            i++;
        } else if (d >= '0' && d <= '9') {
            if (group < groups && ends[2 * group] != PCRE2_UNSET)
                buf_add(out, subject.p + ends[2 * group], ends[2 * group + 1] - ends[2 * group]);
            i++;
        } else {
            buf_addc(out, c);
        }
    }
}

/* Appends the subject with every match replaced. An empty match is replaced too, and one byte is stepped over. */
static bool replace_all(const struct plan_regex *r, struct slice subject, struct slice with, size_t end_max, struct buf *out)
{
    pcre2_match_data *data = match_data();
    size_t at = 0, last_end = SIZE_MAX;
    while (at <= subject.n) {
        int n = regex_run(r, subject, at, 0, data);
        if (n < 0)
            return false;
        if (n == 0)
            break;
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
        if (ends[0] > ends[1])
            return false; /* \K in a look-ahead: the end before the beginning */
        if (ends[0] > at)
            buf_add(out, subject.p + at, ends[0] - at);
        bool empty = ends[0] == ends[1], again = empty && ends[1] == last_end; /* right behind a match: not once more */
        if (!again)
            replacement_add(out, with, subject, ends, n);
        at = last_end = ends[1];
        if (empty && at < subject.n)
            buf_addc(out, subject.p[at]);
        at += empty;
        if (out->n > end_max)
            return false;
    }
    if (at < subject.n)
        buf_add(out, subject.p + at, subject.n - at);
    return out->n <= end_max;
}

bool plan_regex_replace(const struct plan_regex *r, struct slice subject, struct slice with, size_t out_max, struct buf *out)
{
    MUST(!r->whole);
    size_t before = out->n;
    bool fine = replace_all(r, subject, with, before + out_max, out);
    regex_done(r);
    if (!fine && out->p) {
        out->n = before;
        out->p[before] = '\0';
    }
    return fine;
}

uint64_t plan_regex_overruns(void) { return __atomic_load_n(&overruns, __ATOMIC_RELAXED); }

bool plan_string_match(const struct string_match *m, const struct plan_regex *r, struct slice s)
{
    struct slice want = slice_cstr(m->value);
    bool holds = false;
    switch (m->kind) {
    case MATCH_EXACT: holds = m->ignore_case ? slice_ieq(s, want) : slice_eq(s, want); break;
    case MATCH_STRING_PREFIX: holds = m->ignore_case ? s.n >= want.n && slice_ieq(slice_of(s.p, want.n), want) : slice_starts(s, want); break;
    case MATCH_PREFIX: holds = slice_starts(s, want) && (s.n == want.n || s.p[want.n] == '/'); break;
    case MATCH_REGEX: holds = r && plan_regex_match(r, s, true); break;
    case MATCH_PRESENT: holds = true; break;
    }
    return holds != m->invert;
}
