/* log.c - lines to files, written by one thread of their own, so that no disk or terminal ever holds up a request.
 *
 * Each file has a ring of bytes. A producer, on any thread, reserves room with a compare-and-swap on head, copies its line
 * and then publishes it by setting the record's word:
 *
 *     | word: length + 1, or 0 while not published | the line, padded to 8 bytes |      positions only grow; index = pos mod RING
 *
 * The writer takes published records from tail, writes them in batches, and clears the bytes before it gives them back,
 * so a word is 0 until its record is published. A ring that is full drops the line and counts it.
 *
 * The writer naps LOG_NAP_MS between rounds while lines come, which gathers them; when none came it sleeps until the first
 * one wakes it. A producer also wakes it when a ring is half full. Before log_start() and after log_stop() there is no
 * writer, and lines are written by their producer under log_lock. So it is, always, in the simulator.
 *
 * Standard error is somebody else's: a pipe whose reader has stopped, a terminal that is held. Nothing here waits for it.
 * It is written only when it has room, in pieces that a pipe takes whole; meanwhile lines gather in the ring. What cannot
 * wait there is lost and counted: what does not fit into the ring, and what the process says without a writer.
 *
 * A write that fails (a full disk) drops its batch and counts the lines; it is said once on standard error until a write
 * succeeds again. A line that was cut in the middle is ended before the next one.
 */
#include "rt_int.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#define LOG_RING_BYTES (1U << 20)     /* per file */
#define LOG_RING_BYTES_STDERR (1U << 17)
#define LOG_LINE_MAX 16384            /* longer lines are cut */
#define LOG_TEXT_MAX 2048             /* of log_line(); longer ones are cut */
#define LOG_BATCH_BYTES 65536
#define LOG_PIECE_BYTES 4096          /* per write to standard error: PIPE_BUF */
#define LOG_NAP_MS 20
#define LOG_FILES_MODE 0640
#define STDERR_FD 2

struct log_file {
    struct list link;            /* on log_files; log_lock */
    char *path;                  /* NULL: standard error */
    int fd;                      /* -1: could not be opened; tried again with every batch */
    uint64_t bytes, bytes_max;   /* in the file now; rotation above */
    bool regular;                /* else it is never renamed: /dev/null is not ours to replace */
    bool failing;                /* the last write failed, which has been said */
    bool torn;                   /* it wrote half a line */
    uint64_t lost_told;          /* dropped, as last said on standard error */
    char *ring;
    uint32_t ring_bytes;         /* a power of two */
    uint64_t dropped;            /* any thread */
    char apart_tail[64];         /* keep the producers and the writer off each other's cache lines */
    uint64_t tail;               /* next to write; the writer's, read by producers */
    char apart_head[64];
    uint64_t head;               /* next to reserve; the producers' */
};

/* log_lock guards the list of files, their descriptors and sizes; taken by the writer for each round, by open and close,
 * and by producers only while there is no writer. Innermost: nothing else is locked while it is held. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list log_files = {&log_files, &log_files};
static char log_batch[LOG_BATCH_BYTES];          /* log_lock */
static struct log_file *log_process;             /* standard error; NULL before log_start() */
static struct thread *log_thread;
static enum log_level log_min = LOG_INFO;
static bool log_writer;                          /* any thread: a writer runs */
static bool log_asleep;                          /* any thread: the writer sleeps until woken */
static bool log_ending;                          /* any thread: log_stop() was called */
static int log_wake_fd = -1, log_poller = -1;

/* ---- the ring ---- */

static uint64_t *ring_word(struct log_file *f, uint64_t pos)
{
    return (uint64_t *)(void *)(f->ring + (pos & (f->ring_bytes - 1)));
}

static uint64_t ring_need(size_t n)
{
    return sizeof(uint64_t) + (n + 7) / 8 * 8;
}

static void ring_copy_in(struct log_file *f, uint64_t pos, const char *p, size_t n)
{
    uint64_t at = pos & (f->ring_bytes - 1);
    size_t first = MIN(n, f->ring_bytes - at);
    memcpy(f->ring + at, p, first);
    memcpy(f->ring, p + first, n - first);
}

static void ring_copy_out(struct log_file *f, uint64_t pos, char *p, size_t n)
{
    uint64_t at = pos & (f->ring_bytes - 1);
    size_t first = MIN(n, f->ring_bytes - at);
    memcpy(p, f->ring + at, first);
    memcpy(p + first, f->ring, n - first);
}

static void ring_clear(struct log_file *f, uint64_t pos, size_t n)
{
    uint64_t at = pos & (f->ring_bytes - 1);
    size_t first = MIN(n, f->ring_bytes - at);
    memset(f->ring + at, 0, first);
    memset(f->ring, 0, n - first);
}

static bool ring_put(struct log_file *f, const char *p, size_t n)
{
    uint64_t need = ring_need(n), pos = __atomic_load_n(&f->head, __ATOMIC_RELAXED), tail;
    do {
        tail = __atomic_load_n(&f->tail, __ATOMIC_ACQUIRE);
        if (pos + need - tail > f->ring_bytes) {
            /* pos may be older than tail: then the exchange below would have failed, and the difference is huge. */
            uint64_t now = __atomic_load_n(&f->head, __ATOMIC_RELAXED);
            if (now == pos) return false;
            pos = now;
            continue;
        }
        if (__atomic_compare_exchange_n(&f->head, &pos, pos + need, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
    } while (true);
    ring_copy_in(f, pos + sizeof(uint64_t), p, n);
    __atomic_store_n(ring_word(f, pos), n + 1, __ATOMIC_SEQ_CST);
    uint64_t half = f->ring_bytes / 2, used = pos - tail;
    bool crossed = used < half && used + need >= half;
    if (crossed || __atomic_load_n(&log_asleep, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&log_asleep, false, __ATOMIC_SEQ_CST);
        sys_wake(log_wake_fd);
    }
    return true;
}

/* Moves published lines to out, each ended by a newline, until there are max bytes; counts them. At least one: out has room
 * for the longest. */
static size_t ring_take(struct log_file *f, char *out, size_t max, uint64_t *lines)
{
    size_t n = 0;
    uint64_t pos = f->tail;
    for (;;) {
        uint64_t word = __atomic_load_n(ring_word(f, pos), __ATOMIC_SEQ_CST);
        if (word == 0) break;
        size_t len = (size_t)(word - 1);
        if (n > 0 && n + len + 1 > max) break;
        ring_copy_out(f, pos + sizeof word, out + n, len);
        n += len;
        out[n++] = '\n';
        ring_clear(f, pos, ring_need(len));
        pos += ring_need(len);
        (*lines)++;
        if (pos - f->tail == f->ring_bytes) break;
    }
    __atomic_store_n(&f->tail, pos, __ATOMIC_RELEASE);
    return n;
}

/* ---- writing (log_lock held) ---- */

/* At once, or not at all: there is nowhere else to say it. */
static void log_stderr(const char *text, size_t n)
{
    ssize_t r = sys_file_ready(STDERR_FD) ? sys_file_write(STDERR_FD, text, n) : 0;
    (void)r;
}

static void log_say(const char *text)
{
    log_stderr(text, strlen(text));
}

static void file_count_lost(struct log_file *f, uint64_t lines, int e)
{
    __atomic_fetch_add(&f->dropped, lines, __ATOMIC_RELAXED);
    if (f->failing) return;
    f->failing = true;
    if (!f->path) return;
    char text[512];
    snprintf(text, sizeof text, "weir: cannot write the log %.300s: %s; lines are dropped until it can be written again\n", f->path,
             err_text(err_from_errno(e)));
    log_say(text);
}

static int sink_open(struct log_file *f)
{
    if (f->fd >= 0) return 0;
    int fd = sys_file_append_open(f->path, LOG_FILES_MODE);
    if (fd < 0) return fd;
    int64_t size = sys_file_size(fd);
    f->fd = fd;
    f->regular = size >= 0;
    f->bytes = size > 0 ? (uint64_t)size : 0;
    return 0;
}

static void file_rotate(struct log_file *f)
{
    char old[4096];
    int n = snprintf(old, sizeof old, "%s.1", f->path);
    if (n < 0 || (size_t)n >= sizeof old) return;
    /* Another process may write the same file while one engine hands over to the next: who comes second finds a new one there. */
    if (sys_file_is(f->fd, f->path) && sys_rename(f->path, old) < 0) return; /* goes on growing, tried again next time */
    sys_close(f->fd);
    f->fd = -1;
}

/* Standard error has no room. */
static bool file_stuck(const struct log_file *f)
{
    return !f->path && !sys_file_ready(f->fd);
}

static int file_write_all(struct log_file *f, const char *p, size_t n)
{
    while (n) {
        if (file_stuck(f)) return -EAGAIN;
        ssize_t r = sys_file_write(f->fd, p, f->path ? n : MIN(n, LOG_PIECE_BYTES));
        if (r == 0) r = -EIO;
        if (r < 0) return (int)r;
        f->torn = p[r - 1] != '\n';
        f->bytes += (uint64_t)r;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

static void file_write(struct log_file *f, const char *p, size_t n, uint64_t lines)
{
    if (f->path && f->bytes_max && f->fd >= 0 && f->regular && f->bytes > 0 && f->bytes + n > f->bytes_max) file_rotate(f);
    int r = sink_open(f);
    if (r == 0 && f->torn) r = file_write_all(f, "\n", 1);
    if (r == 0) r = file_write_all(f, p, n);
    if (r == 0) f->failing = false;
    else file_count_lost(f, lines, -r);
}

/* True when there was something to write, or still is. */
static bool file_drain(struct log_file *f)
{
    bool any = false;
    for (;;) {
        uint64_t lines = 0;
        if (file_stuck(f)) return any || __atomic_load_n(ring_word(f, f->tail), __ATOMIC_SEQ_CST) != 0;
        size_t n = ring_take(f, log_batch, f->path ? sizeof log_batch : LOG_PIECE_BYTES, &lines);
        if (lines == 0) return any;
        file_write(f, log_batch, n, lines);
        any = true;
    }
}

PRINTF_LIKE(5, 0) static size_t log_format(char *out, size_t max, enum log_level lv, const char *room, const char *fmt, va_list ap);

PRINTF_LIKE(3, 4) static size_t log_format_of(char *out, size_t max, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t n = log_format(out, max, LOG_WARN, "rt", fmt, ap);
    va_end(ap);
    return n;
}

/* Full rings are told on standard error, with the next round that finds the number changed. */
static void file_tell_lost(struct log_file *f)
{
    uint64_t lost = __atomic_load_n(&f->dropped, __ATOMIC_RELAXED);
    if (lost == f->lost_told || f->failing || !sys_file_ready(STDERR_FD)) return;
    char text[512];
    size_t n = log_format_of(text, sizeof text - 1, "%llu lines of the log %.300s were dropped",
                             (unsigned long long)(lost - f->lost_told), f->path ? f->path : "on standard error");
    text[n] = '\n';
    text[n + 1] = 0;
    f->lost_told = lost;
    log_say(text);
}

static bool log_round(void)
{
    bool any = false;
    pthread_mutex_lock(&log_lock);
    LIST_FOREACH(it, &log_files) {
        struct log_file *f = CONTAINER_OF(it, struct log_file, link);
        if (file_drain(f)) {
            any = true;
            file_tell_lost(f);
        }
    }
    pthread_mutex_unlock(&log_lock);
    return any;
}

/* ---- the writer ---- */

static void log_wait(int timeout_ms)
{
    struct sys_event ev;
    if (sys_poller_wait(log_poller, &ev, 1, timeout_ms) > 0) sys_wake_clear(log_wake_fd);
}

static void log_main(void *arg)
{
    while (!__atomic_load_n(&log_ending, __ATOMIC_ACQUIRE)) {
        if (log_round()) {
            log_wait(LOG_NAP_MS);
            continue;
        }
        /* Announce the sleep, then look once more: a producer publishes first and looks at log_asleep second. */
        __atomic_store_n(&log_asleep, true, __ATOMIC_SEQ_CST);
        bool any = log_round();
        log_wait(any || __atomic_load_n(&log_ending, __ATOMIC_ACQUIRE) ? 0 : -1);
        __atomic_store_n(&log_asleep, false, __ATOMIC_SEQ_CST);
    }
}

void log_start(enum log_level min)
{
    __atomic_store_n(&log_min, min, __ATOMIC_RELAXED);
    if (!sys_threads() || log_thread) return;
    log_wake_fd = sys_wake_new();
    log_poller = sys_poller_new();
    MUST(log_wake_fd >= 0 && log_poller >= 0);
    MUST(sys_poller_add_level(log_poller, log_wake_fd, &log_wake_fd, false) == 0);
    log_process = log_file_open(NULL, 0);
    __atomic_store_n(&log_ending, false, __ATOMIC_RELEASE);
    log_thread = thread_start("log", log_main, NULL);
    __atomic_store_n(&log_writer, true, __ATOMIC_RELEASE);
}

void log_stop(void)
{
    if (!log_thread) return;
    __atomic_store_n(&log_writer, false, __ATOMIC_RELEASE);
    __atomic_store_n(&log_ending, true, __ATOMIC_RELEASE);
    sys_wake(log_wake_fd);
    thread_join(log_thread);
    log_thread = NULL;
    log_round();
    struct log_file *f = log_process;
    log_process = NULL;
    log_file_close(f);
    sys_close(log_poller);
    sys_close(log_wake_fd);
    log_wake_fd = log_poller = -1;
}

/* ---- lines ---- */

/* "2026-11-21T08:00:00.123Z info  room: text"; control characters, which could forge lines, become '?'. */
static size_t log_format(char *out, size_t max, enum log_level lv, const char *room, const char *fmt, va_list ap)
{
    static const char *const names[] = {"debug", "info ", "warn ", "error"};
    uint64_t now_ns = sys_wall_ns();
    time_t sec = (time_t)(now_ns / 1000000000);
    struct tm tm;
    gmtime_r(&sec, &tm);
    int head = snprintf(out, max, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %s %s: ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                        tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(now_ns / 1000000 % 1000), names[lv], room);
    size_t n = MIN((size_t)MAX(head, 0), max - 1);
    int text = vsnprintf(out + n, max - n, fmt, ap);
    size_t end = MIN(n + (size_t)MAX(text, 0), max - 1);
    for (size_t i = n; i < end; i++)
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f) out[i] = '?';
    return end;
}

void log_line(enum log_level lv, const char *room, const char *fmt, ...)
{
    if (lv < __atomic_load_n(&log_min, __ATOMIC_RELAXED)) return;
    char text[LOG_TEXT_MAX + 1];
    va_list ap;
    va_start(ap, fmt);
    size_t n = log_format(text, LOG_TEXT_MAX, lv, room, fmt, ap);
    va_end(ap);
    if (__atomic_load_n(&log_writer, __ATOMIC_ACQUIRE)) {
        log_file_put(log_process, text, n);
        return;
    }
    text[n++] = '\n';
    log_stderr(text, n);
}

struct log_file *log_file_open(const char *path, size_t bytes_max)
{
    struct log_file *f = mem_new(MEM_LOG, sizeof *f);
    f->path = path ? mem_strdup(MEM_LOG, path) : NULL;
    f->fd = path ? -1 : STDERR_FD;
    f->bytes_max = bytes_max;
    f->ring_bytes = path ? LOG_RING_BYTES : LOG_RING_BYTES_STDERR;
    f->ring = mem_new(MEM_LOG, f->ring_bytes);
    pthread_mutex_lock(&log_lock);
    list_push(&log_files, &f->link);
    int r = sink_open(f);
    if (r < 0) file_count_lost(f, 0, -r);
    pthread_mutex_unlock(&log_lock);
    return f;
}

void log_file_flush(struct log_file *f)
{
    pthread_mutex_lock(&log_lock);
    file_drain(f);
    pthread_mutex_unlock(&log_lock);
}

void log_file_close(struct log_file *f)
{
    if (!f) return;
    pthread_mutex_lock(&log_lock);
    file_drain(f);
    list_del(&f->link);
    if (f->path && f->fd >= 0) sys_close(f->fd);
    pthread_mutex_unlock(&log_lock);
    mem_free(f->ring);
    mem_free(f->path);
    mem_free(f);
}

/* Without a writer: at once, by the caller. */
static void log_file_put_now(struct log_file *f, const char *p, size_t n)
{
    pthread_mutex_lock(&log_lock);
    memcpy(log_batch, p, n);
    log_batch[n] = '\n';
    file_write(f, log_batch, n + 1, 1);
    pthread_mutex_unlock(&log_lock);
}

bool log_file_put(struct log_file *f, const char *p, size_t n)
{
    n = MIN(n, LOG_LINE_MAX);
    if (!__atomic_load_n(&log_writer, __ATOMIC_ACQUIRE)) {
        log_file_put_now(f, p, n);
        return true;
    }
    if (ring_put(f, p, n)) return true;
    __atomic_fetch_add(&f->dropped, 1, __ATOMIC_RELAXED);
    return false;
}

uint64_t log_file_dropped(const struct log_file *f)
{
    return __atomic_load_n(&f->dropped, __ATOMIC_RELAXED);
}
