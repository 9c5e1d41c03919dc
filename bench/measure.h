/* measure.h - what load generators share: time, latency, and the processor time of the server. Included once, by a program of one file that has defined PROGRAM, its name. */
#ifndef MEASURE_H
#define MEASURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, PROGRAM ": %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p)
        die("memory");
    return p;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- latency: 128 buckets per power of two (less than 0.8 % error) ---------------------------------------------------- */

static uint64_t hist[64 * 128], hist_max, hist_n;
static int hist_index(uint64_t v)
{
    if (v < 128)
        return (int)v;
    int e = 63 - __builtin_clzll(v);
    return (e - 6) * 128 + (int)((v >> (e - 7)) & 127);
}
static void hist_add(uint64_t ns)
{
    hist[hist_index(ns)]++;
    hist_n++;
    if (ns > hist_max)
        hist_max = ns;
}
static double hist_us(double share)
{
    uint64_t n = 0, want = (uint64_t)((double)hist_n * share);
    for (int i = 0; i < 64 * 128 && hist_n; i++) {
        n += hist[i];
        if (n > want)
            return (i < 128 ? (double)i : (double)((1ull << (i / 128 + 6)) + ((uint64_t)(i % 128) << (i / 128 - 1)))) / 1000;
    }
    return (double)hist_max / 1000;
}

/* User and system time of the processes pids ("1,2"), in seconds; *sys: the system's alone. */
static double cpu_seconds(const char *pids, double *sys)
{
    char list[1024], path[64], text[2048];
    double user = 0;
    *sys = 0;
    snprintf(list, sizeof list, "%s", pids);
    for (char *save, *s = strtok_r(list, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
        unsigned long u, k;
        snprintf(path, sizeof path, "/proc/%s/stat", s);
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        text[n > 0 ? n : 0] = 0;
        char *p = strrchr(text, ')');
        if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &k) == 2) {
            user += (double)u;
            *sys += (double)k;
        }
    }
    double hz = (double)sysconf(_SC_CLK_TCK);
    *sys /= hz;
    return user / hz + *sys;
}

#endif
