/* sup_work_test.h - the workload's part in sup_test.c: what a replica does that runs this program with "work WHAT ...". */
#ifndef SUP_WORK_TEST_H
#define SUP_WORK_TEST_H

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in ip4(uint32_t ip, int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(ip)};
}

static int listen_on(uint32_t ip, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = ip4(ip, port);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

/* What the server at ip:port says, or why there is none. */
static const char *ask_server(uint32_t ip, int port)
{
    static char text[128];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = ip4(ip, port);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        snprintf(text, sizeof text, "%s", strerror(errno));
    } else {
        ssize_t n = read(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = 0;
    }
    close(fd);
    return text;
}

/* Answers every connection with a text, for ever. */
static _Noreturn void serve_text(int lfd, const char *text)
{
    for (;;) {
        int fd = accept(lfd, NULL, NULL);
        if (fd < 0)
            _exit(1);
        (void)!write(fd, text, strlen(text));
        close(fd);
    }
}

static int work_serve(int port, const char *text)
{
    int fd = listen_on(INADDR_ANY, port);
    printf("%s\n", fd < 0 ? strerror(errno) : "listening");
    fflush(stdout);
    if (fd >= 0)
        serve_text(fd, text);
    return 1;
}

/* Listens on 0.0.0.0:80 itself, and calls: itself, a service address on the same port and on another, and the host. */
static int work_lookup(int host_port)
{
    int fd = listen_on(INADDR_ANY, 80);
    pid_t pid = fd < 0 ? -1 : fork();
    if (pid == 0)
        serve_text(fd, "own");
    printf("own %s\n", fd < 0 ? strerror(errno) : ask_server(0x7f000001, 80));
    printf("service80 %s\n", ask_server(0x7fc80102, 80));
    printf("service5432 %s\n", ask_server(0x7fc80103, 5432));
    printf("host %s\n", ask_server(0x7f000001, host_port));
    fflush(stdout);
    if (pid > 0)
        kill(pid, SIGKILL);
    return 0;
}

static int work_eat(size_t mib)
{
    for (size_t i = 0; i < mib; i++) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return 1;
        memset(p, 1, 1 << 20);
    }
    return 0;
}

static int work_fork(int n)
{
    int made = 0;
    for (; made < n; made++) {
        pid_t pid = fork();
        if (pid == 0)
            pause();
        if (pid < 0)
            break;
    }
    printf("forked %d\n", made);
    return 0;
}

static int work(char **argv)
{
    const char *what = argv[0];
    if (strcmp(what, "serve") == 0)
        return work_serve((int)strtol(argv[1], NULL, 10), argv[2]);
    if (strcmp(what, "lookup") == 0)
        return work_lookup((int)strtol(argv[1], NULL, 10));
    if (strcmp(what, "call") == 0)
        return printf("%s\n", ask_server((uint32_t)strtoul(argv[1], NULL, 16), (int)strtol(argv[2], NULL, 10))) < 0;
    if (strcmp(what, "sleep") == 0)
        return pause();
    if (strcmp(what, "eat") == 0)
        return work_eat((size_t)strtoul(argv[1], NULL, 10));
    return work_fork((int)strtol(argv[1], NULL, 10));
}

#endif
