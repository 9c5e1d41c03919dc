/* broker_alone.c - the broker as a program of its own, for benchmarks and for trying clients: no workloads, no manifests, no other rooms.
 *
 *     broker_alone DIR PORT [SHARDS]     listens on 127.0.0.1:PORT; ends on SIGTERM or SIGINT, having made everything durable
 *
 * One thread per shard with a listener of its own (SO_REUSEPORT), and the main thread as control loop. Not installed.
 */
#include "broker.h"

#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define SHARDS_MOST 64

struct alone {
    struct loop *loop;             /* control */
    struct broker *broker;
    uint32_t shards_n;
    struct one {
        struct alone *a;
        struct loop *loop;
        struct shard *shard;
        struct listener listener;
        struct mailbox *inbox;     /* a message: stop */
        struct thread *thread;
    } shards[SHARDS_MOST];
    uint16_t port;
    struct watch signals;
};

static void on_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct one *s = CONTAINER_OF(ln, struct one, listener);
    const struct broker_door door = {.advertised_host = SLICE("127.0.0.1"), .advertised_port = s->a->port, .caller = {.principal = SLICE("User:ANONYMOUS")}};
    (void)peer;
    broker_accept(s->shard, fd, &door);
}

static void on_stop(void *ctx, const struct msg *m)
{
    (void)m;
    loop_stop(((struct one *)ctx)->loop);
}

static void shard_main(void *arg) { loop_run(((struct one *)arg)->loop); }

static void on_stopped(void *ctx)
{
    struct alone *a = ctx;
    for (uint32_t i = 0; i < a->shards_n; i++)
        MUST(mailbox_post(a->shards[i].inbox, &(struct msg){.type = 0}));
    loop_stop(a->loop);
}

static void on_signal(struct watch *w)
{
    struct alone *a = CONTAINER_OF(w, struct alone, signals);
    watch_stop(w);
    broker_stop(a->broker, a->loop, on_stopped, a);
}

static void watch_signals(struct alone *a)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    watch_start(&a->signals, a->loop, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), on_signal);
    signal(SIGPIPE, SIG_IGN);
}

/* Another broker_alone on this port would not be noticed: SO_REUSEPORT shares it. */
static bool port_free(const struct alone *a)
{
    struct addr at = addr_ip4(0x7f000001, a->port);
    int fd;
    enum err e = listen_socket(&at, 1, false, &fd);
    if (e == OK)
        socket_close(fd);
    else
        fprintf(stderr, "port %u: %s\n", a->port, err_text(e));
    return e == OK;
}

static bool shard_make(struct alone *a, uint32_t i)
{
    struct one *s = &a->shards[i];
    struct addr at = addr_ip4(0x7f000001, a->port);
    int fd;
    s->a = a;
    s->loop = loop_new("shard");
    s->inbox = mailbox_new(s->loop, 2, on_stop, s);
    s->shard = broker_shard_new(a->broker, i, s->loop);
    if (listen_socket(&at, 1024, true, &fd) != OK)
        return false;
    listener_start(&s->listener, s->loop, fd, false, on_accepted);
    return true;
}

static void run(struct alone *a)
{
    broker_start(a->broker);
    for (uint32_t i = 0; i < a->shards_n; i++)
        a->shards[i].thread = thread_start("shard", shard_main, &a->shards[i]);
    loop_run(a->loop);
    for (uint32_t i = 0; i < a->shards_n; i++) {
        struct one *s = &a->shards[i];
        thread_join(s->thread);
        int fd = s->listener.fd;
        listener_stop(&s->listener);
        socket_close(fd);
        broker_shard_free(s->shard);
        mailbox_free(s->inbox);
        loop_free(s->loop);
    }
    broker_free(a->broker);
}

static bool number(const char *text, uint64_t max, uint64_t *out) { return slice_u64(slice_cstr(text), max, out) == OK && *out > 0; }

int main(int argc, char **argv)
{
    static struct alone a;
    struct broker_conf conf;
    struct buf why = {0};
    uint64_t port, shards = 1;
    if (argc < 3 || !number(argv[2], UINT16_MAX, &port) || (argc > 3 && !number(argv[3], SHARDS_MOST, &shards))) {
        fprintf(stderr, "usage: broker_alone DIR PORT [SHARDS]\n");
        return 2;
    }
    broker_conf_default(&conf);
    conf.log.dir = argv[1];
    conf.shards = a.shards_n = (uint32_t)shards;
    conf.group_delay_ms = 0;
    a.port = (uint16_t)port;
    a.loop = loop_new("control");
    watch_signals(&a);
    if (broker_open(&conf, &a.broker, &why) != OK) {
        fprintf(stderr, "broker_alone: %s\n", why.p);
        return 1;
    }
    if (!port_free(&a))
        return 1;
    for (uint32_t i = 0; i < a.shards_n; i++)
        if (!shard_make(&a, i))
            return 1;
    run(&a);
    return 0;
}
