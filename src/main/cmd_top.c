/* cmd_top.c - weir top: rates, latency, errors and restarts per service, and what the event log does, drawn again each second.
 *
 *     GET /v1/top twice -> differences of counters over the time between -> one frame
 *
 * Quantiles come from histograms, by linear interpolation within the bucket that holds them. The terminal is put into raw
 * mode and the alternate screen, and back again on every way out, signals included. --once prints one plain frame.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* ---- the numbers ------------------------------------------------------------------------------------------------------- */

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The entry of list with the namespace and name of o; NULL when it is new. */
static const json_t *same(const json_t *list, const json_t *o)
{
    size_t i;
    json_t *e;
    json_array_foreach (list, i, e)
        if (strcmp(text(e, "namespace"), text(o, "namespace")) == 0 && strcmp(text(e, "name"), text(o, "name")) == 0)
            return e;
    return NULL;
}

static double grown(const json_t *now, const json_t *then, const char *key)
{
    double d = number(now, key) - number(then, key);
    return d > 0 ? d : 0;
}

static double bucket(const json_t *now, const json_t *then, size_t i)
{
    double d = json_number_value(json_array_get(json_object_get(now, "duration"), i)) - json_number_value(json_array_get(json_object_get(then, "duration"), i));
    return d > 0 ? d : 0;
}

/* The q-quantile in ms of what was added between; negative when nothing was. Above the last bound: that bound. */
static double quantile(const json_t *now, const json_t *then, const json_t *bounds, double q)
{
    size_t n = json_array_size(bounds);
    double total = 0, seen = 0;
    for (size_t i = 0; i <= n; i++)
        total += bucket(now, then, i);
    for (size_t i = 0; i < n && total > 0; i++) {
        double low = i ? json_number_value(json_array_get(bounds, i - 1)) : 0, high = json_number_value(json_array_get(bounds, i));
        double count = bucket(now, then, i);
        if (count > 0 && seen + count >= q * total)
            return low + (high - low) * (q * total - seen) / count;
        seen += count;
    }
    return total > 0 ? json_number_value(json_array_get(bounds, n - 1)) : -1;
}

/* ---- one frame --------------------------------------------------------------------------------------------------------- */

static void cell_ms(struct grid *g, double ms)
{
    if (ms < 0)
        grid_add(g, "-");
    else if (ms < 10)
        grid_add(g, "%.1f ms", ms);
    else if (ms < 10000)
        grid_add(g, "%.0f ms", ms);
    else
        grid_add(g, "%.1f s", ms / 1000);
}

static void cell_bytes(struct grid *g, double n)
{
    if (n <= 0)
        grid_add(g, "-");
    else if (n < 10 * 1048576.0)
        grid_add(g, "%.1f MiB", n / 1048576);
    else if (n < 10 * 1073741824.0)
        grid_add(g, "%.0f MiB", n / 1048576);
    else
        grid_add(g, "%.1f GiB", n / 1073741824);
}

/* NAMESPACE/NAME where it isn't the default namespace, and the columns that services and workloads share. */
static void cells_traffic(struct grid *g, const json_t *o, const json_t *then, const json_t *bounds, double seconds)
{
    const char *ns = text(o, "namespace");
    double requests = grown(o, then, "requests"), errors = grown(o, then, "errors");
    bool plain = !*ns || strcmp(ns, "default") == 0;
    grid_add(g, "%s%s%s", plain ? "" : ns, plain ? "" : "/", text(o, "name"));
    grid_add(g, "%.1f", requests / seconds);
    cell_ms(g, quantile(o, then, bounds, 0.50));
    cell_ms(g, quantile(o, then, bounds, 0.99));
    if (requests > 0)
        grid_add(g, "%.1f %%", 100 * errors / requests);
    else
        grid_add(g, "-");
    grid_add(g, "%.1f", grown(o, then, "duration_us_sum") / 1e6 / seconds);
}

static bool shown(const struct args *a, const json_t *o)
{
    const char *ns = args_str(a, "namespace", NULL);
    return !ns || strcmp(ns, text(o, "namespace")) == 0;
}

/* The entries of a list that are shown, by namespace and name. mem_free(). */
static const json_t **sorted(const struct args *a, const json_t *list, size_t *n)
{
    const json_t **out = mem_new(MEM_MISC, (json_array_size(list) + 1) * sizeof *out);
    size_t i;
    json_t *o;
    *n = 0;
    json_array_foreach (list, i, o) {
        size_t at = (*n)++;
        if (!shown(a, o)) {
            --*n;
            continue;
        }
        for (; at > 0; at--) {
            int c = strcmp(text(out[at - 1], "namespace"), text(o, "namespace"));
            if (c < 0 || (c == 0 && strcmp(text(out[at - 1], "name"), text(o, "name")) <= 0))
                break;
            out[at] = out[at - 1];
        }
        out[at] = o;
    }
    return out;
}

static void frame_services(const struct args *a, const json_t *now, const json_t *then, double seconds, struct buf *out)
{
    static const char *const heads[] = {"SERVICE", "REQ/S", "P50", "P99", "ERRORS", "IN FLIGHT", "ENDPOINTS"};
    struct grid g;
    size_t n;
    const json_t **list = sorted(a, json_object_get(now, "services"), &n);
    grid_init(&g, heads, COUNT_OF(heads));
    for (size_t i = 0; i < n; i++) {
        const json_t *o = list[i];
        cells_traffic(&g, o, same(json_object_get(then, "services"), o), json_object_get(now, "bounds_ms"), seconds);
        grid_add(&g, "%.0f", number(o, "endpoints"));
    }
    grid_write(&g, out);
    grid_free(&g);
    mem_free(list);
}

static void frame_workloads(const struct args *a, const json_t *now, const json_t *then, double seconds, struct buf *out)
{
    static const char *const heads[] = {"WORKLOAD", "REQ/S", "P50", "P99", "ERRORS", "IN FLIGHT", "READY", "RESTARTS", "MEMORY", "STATE"};
    struct grid g;
    size_t n;
    const json_t **list = sorted(a, json_object_get(now, "workloads"), &n);
    grid_init(&g, heads, COUNT_OF(heads));
    for (size_t i = 0; i < n; i++) {
        const json_t *o = list[i];
        cells_traffic(&g, o, same(json_object_get(then, "workloads"), o), json_object_get(now, "bounds_ms"), seconds);
        grid_add(&g, "%.0f/%.0f", number(o, "ready"), number(o, "wanted"));
        grid_add(&g, "%.0f", number(o, "restarts"));
        cell_bytes(&g, number(o, "memory_bytes"));
        grid_add(&g, "%s", *text(o, "why") ? text(o, "why") : "ok");
    }
    grid_write(&g, out);
    grid_free(&g);
    mem_free(list);
}

/* ---- the event log ------------------------------------------------------------------------------------------------------- */

static double sync_bucket(const json_t *now, const json_t *then, size_t i)
{
    double d = json_number_value(json_array_get(json_object_get(now, "sync_us"), i)) - json_number_value(json_array_get(json_object_get(then, "sync_us"), i));
    return d > 0 ? d : 0;
}

/* The 99th percentile in ms of the rounds of syncs between: buckets are powers of two of microseconds. Negative: there was none. */
static double sync_p99(const json_t *now, const json_t *then)
{
    size_t n = json_array_size(json_object_get(now, "sync_us"));
    double total = 0, seen = 0;
    for (size_t i = 0; i < n; i++)
        total += sync_bucket(now, then, i);
    for (size_t i = 0; i < n && total > 0; i++) {
        double count = sync_bucket(now, then, i), high = (double)(1ull << i) / 1000, low = i ? high / 2 : 0;
        if (count > 0 && seen + count >= 0.99 * total)
            return low + (high - low) * (0.99 * total - seen) / count;
        seen += count;
    }
    return -1;
}

static void cell_rate(struct grid *g, double bytes)
{
    if (bytes < 1024)
        grid_add(g, "%.0f B/s", bytes);
    else if (bytes < 10 * 1048576.0)
        grid_add(g, "%.1f KiB/s", bytes / 1024);
    else
        grid_add(g, "%.1f MiB/s", bytes / 1048576);
}

/* Nothing where no event log serves, or nothing was ever in it. */
static void frame_log(const json_t *all_now, const json_t *all_then, double seconds, struct buf *out)
{
    static const char *const heads[] = {"EVENT LOG", "RECORDS/S", "IN", "OUT", "SYNC P99", "OFFLINE"}, *const groups[] = {"GROUP", "LAG"};
    const json_t *now = json_object_get(all_now, "log"), *then = json_object_get(all_then, "log"), *o;
    struct grid g;
    size_t i;
    if (number(now, "partitions") <= 0)
        return;
    grid_init(&g, heads, COUNT_OF(heads));
    grid_add(&g, "%.0f partitions", number(now, "partitions"));
    grid_add(&g, "%.1f", grown(now, then, "records_in") / seconds);
    cell_rate(&g, grown(now, then, "bytes_in") / seconds);
    cell_rate(&g, grown(now, then, "bytes_out") / seconds);
    cell_ms(&g, sync_p99(now, then));
    grid_add(&g, "%.0f", number(now, "offline"));
    buf_addc(out, '\n');
    grid_write(&g, out);
    grid_free(&g);
    if (!json_array_size(json_object_get(now, "groups")))
        return;
    grid_init(&g, groups, COUNT_OF(groups));
    json_array_foreach (json_object_get(now, "groups"), i, o) {
        grid_add(&g, "%s", text(o, "name"));
        grid_add(&g, "%.0f", number(o, "lag"));
    }
    buf_addc(out, '\n');
    grid_write(&g, out);
    grid_free(&g);
}

/* ---- all of it ----------------------------------------------------------------------------------------------------------- */

/* Counters of another engine have begun anew: then == now's own beginning, zero. */
static void frame(const struct args *a, const json_t *now, const json_t *then, struct buf *out)
{
    if (number(now, "engine") != number(then, "engine"))
        then = now;
    double seconds = (number(now, "mono_ns") - number(then, "mono_ns")) / 1e9;
    seconds = seconds > 0.001 ? seconds : 1;
    frame_services(a, now, then, seconds, out);
    buf_addc(out, '\n');
    frame_workloads(a, now, then, seconds, out);
    if (!args_has(a, "namespace"))
        frame_log(now, then, seconds, out);
}

/* ---- the terminal --------------------------------------------------------------------------------------------------------- */

static struct termios term_before;
static volatile sig_atomic_t stop_asked, size_changed;

static void on_stop(int signo) { stop_asked = 1; }
static void on_size(int signo) { size_changed = 1; }

static void term_end(void)
{
    if (cli_before_message != term_end)
        return;
    cli_before_message = NULL;
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, &term_before);
}

static void term_begin(void)
{
    struct termios raw;
    struct sigaction stop = {.sa_handler = on_stop}, size = {.sa_handler = on_size};
    tcgetattr(STDIN_FILENO, &term_before);
    raw = term_before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGWINCH, &size, NULL);
    fputs("\033[?1049h\033[?25l", stdout);
    cli_before_message = term_end; /* an error must be seen after the alternate screen is left */
}

/* Writes what fits of the text: rows cut at the width, the rest below left out; the first row of a table is bold. */
static void draw(const char *p)
{
    struct winsize ws = {.ws_row = 24, .ws_col = 80};
    bool colour = cli_colour(stdout);
    struct slice rest = slice_cstr(p);
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws);
    fputs("\033[H", stdout);
    for (unsigned row = 0; row + 1 < ws.ws_row && rest.n; row++) {
        struct slice line = slice_cut(rest, '\n', &rest);
        size_t n = MIN(line.n, (size_t)ws.ws_col);
        while (n && n < line.n && ((unsigned char)line.p[n] & 0xc0) == 0x80)
            n--; /* never half a character */
        bool bold = colour && (slice_starts(line, SLICE("SERVICE ")) || slice_starts(line, SLICE("WORKLOAD ")) || slice_starts(line, SLICE("EVENT LOG ")) || slice_starts(line, SLICE("GROUP ")));
        printf("%s%.*s%s\033[K\r\n", bold ? "\033[1m" : "", (int)n, line.p, bold ? "\033[0m" : "");
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

/* Waits for the next frame. False: q, Ctrl-C or the end of input. */
static bool wait_key(uint32_t ms)
{
    uint64_t due = mono_ns() + ms * 1000000ull;
    while (!stop_asked && !size_changed) {
        uint64_t now = mono_ns();
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (now >= due)
            return true;
        int n = poll(&p, 1, (int)((due - now) / 1000000 + 1));
        char key = 0;
        if (n > 0 && (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q' || key == 4))
            return false;
    }
    return !stop_asked;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------ */

static void redraw(const struct args *a, const json_t *now, const json_t *then, struct buf *out)
{
    buf_clear(out);
    buf_adds(out, "weir top - q quits\n\n");
    frame(a, now, then, out);
    draw(out->p);
}

static int watch(const struct args *a, uint32_t interval_ms)
{
    json_t *then = NULL, *now = NULL;
    struct buf out = {0};
    int code = node_get_json(a, "/v1/top", &then);
    if (code)
        return code;
    term_begin();
    redraw(a, then, then, &out);
    while (!code && wait_key(interval_ms)) {
        if (size_changed) { /* only draw again: rates need the whole interval */
            size_changed = 0;
            draw(out.p);
            continue;
        }
        code = node_get_json(a, "/v1/top", &now);
        if (!code) {
            redraw(a, now, then, &out);
            json_decref(then);
            then = now;
        }
    }
    term_end();
    json_decref(then);
    buf_free(&out);
    return code;
}

static int once(const struct args *a, uint32_t interval_ms)
{
    json_t *then = NULL, *now = NULL;
    struct buf out = {0};
    int code = node_get_json(a, "/v1/top", &then);
    if (!code) {
        poll(NULL, 0, (int)interval_ms);
        code = node_get_json(a, "/v1/top", &now);
    }
    if (!code) {
        frame(a, now, then, &out);
        fwrite(out.p, 1, out.n, stdout);
    }
    buf_free(&out);
    json_decref(then);
    json_decref(now);
    return code;
}

int cmd_top(struct args *a)
{
    uint32_t interval_ms;
    int code = args_time(a, "interval", 1000, &interval_ms);
    if (code)
        return code;
    if (args_has(a, "once"))
        return once(a, interval_ms);
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return cli_fail(EXIT_USAGE, a->cmd->name, "use weir top --once in scripts", "standard input and output are not a terminal");
    return watch(a, interval_ms);
}
