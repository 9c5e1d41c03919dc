/* broker_alone.c - the broker as a program of its own, for benchmarks and for trying clients: no workloads, no manifests, no other rooms.
 *
 *     broker_alone DIR PORT [SHARDS [SASL_PORT [CHAIN.pem KEY.pem [SETTINGS]]]]     listens on 127.0.0.1:PORT; ends on SIGTERM or SIGINT, having made everything durable
 *
 * With SASL_PORT permissions are looked at: whoever comes to PORT is a super user, whoever comes to SASL_PORT has to prove who he is;
 * with a certificate and its key, over TLS. SETTINGS: NAME=VALUE,NAME=VALUE (broker_conf_set()).
 *
 * One thread per shard with a listener of its own (SO_REUSEPORT), and the main thread as control loop. Not installed.
 */
#include "broker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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
        struct listener listener, sasl;
        struct mailbox *inbox;     /* a message: stop */
        struct thread *thread;
    } shards[SHARDS_MOST];
    uint16_t port, sasl_port;      /* sasl_port 0: none */
    struct tls_ctx *tls;           /* of sasl_port; NULL: plain */
    struct watch signals;
};

static void on_accepted(struct listener *ln, int fd, const struct addr *peer)
{
    struct one *s = CONTAINER_OF(ln, struct one, listener);
    const struct broker_door door = {.advertised_host = SLICE("127.0.0.1"), .advertised_port = s->a->port,
                                     .caller = {.principal = SLICE("User:ANONYMOUS"), .super = s->a->sasl_port != 0}};
    (void)peer;
    broker_accept(s->shard, fd, &door);
}

static void on_accepted_sasl(struct listener *ln, int fd, const struct addr *peer)
{
    struct one *s = CONTAINER_OF(ln, struct one, sasl);
    const struct broker_door door = {.advertised_host = SLICE("127.0.0.1"), .advertised_port = s->a->sasl_port, .sasl = true, .tls = s->a->tls,
                                     .caller = {.principal = SLICE("User:ANONYMOUS")}};
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

static bool listen_on(struct one *s, struct listener *ln, uint16_t port, void (*accepted)(struct listener *, int, const struct addr *))
{
    struct addr at = addr_ip4(0x7f000001, port);
    int fd;
    enum err e = listen_socket(&at, 1024, true, &fd);
    if (e != OK) {
        fprintf(stderr, "port %u: %s\n", port, err_text(e));
        return false;
    }
    listener_start(ln, s->loop, fd, false, accepted);
    return true;
}

static bool shard_make(struct alone *a, uint32_t i)
{
    struct one *s = &a->shards[i];
    s->a = a;
    s->loop = loop_new("shard");
    s->inbox = mailbox_new(s->loop, 2, on_stop, s);
    s->shard = broker_shard_new(a->broker, i, s->loop);
    return listen_on(s, &s->listener, a->port, on_accepted) && (!a->sasl_port || listen_on(s, &s->sasl, a->sasl_port, on_accepted_sasl));
}

static void unlisten(struct listener *ln)
{
    int fd = ln->fd;
    listener_stop(ln);
    socket_close(fd);
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
        unlisten(&s->listener);
        if (a->sasl_port)
            unlisten(&s->sasl);
        broker_shard_free(s->shard);
        mailbox_free(s->inbox);
        loop_free(s->loop);
    }
    broker_free(a->broker);
}

/* A number up to max, or 0. */
static uint32_t number(const char *text, uint32_t max)
{
    uint64_t n;
    return slice_u64(slice_cstr(text), max, &n) == OK ? (uint32_t)n : 0;
}

static struct tls_ctx *tls_make(const char *chain, const char *key)
{
    struct buf chain_pem = {0}, key_pem = {0}, why = {0};
    struct tls_ctx *out = NULL;
    if (file_read(chain, &chain_pem, 1 << 20) != OK || file_read(key, &key_pem, 1 << 20) != OK) {
        fprintf(stderr, "broker_alone: %s or %s can't be read\n", chain, key);
        exit(1);
    }
    const struct tls_cert_conf cert = {.chain_pem = buf_slice(&chain_pem), .key_pem = buf_slice(&key_pem)};
    const struct tls_server_conf conf = {.certs = &cert, .certs_n = 1};
    if (tls_server_new(&conf, &out, &why) != OK) {
        fprintf(stderr, "broker_alone: %s\n", why.p);
        exit(1);
    }
    buf_free(&chain_pem);
    buf_free(&key_pem);
    return out;
}

int main(int argc, char **argv)
{
    static struct alone a;
    struct broker_conf conf;
    struct buf why = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: broker_alone DIR PORT [SHARDS [SASL_PORT [CHAIN.pem KEY.pem [SETTINGS]]]]\n");
        return 2;
    }
    broker_conf_default(&conf);
    conf.log.dir = argv[1];
    conf.shards = a.shards_n = argc > 3 ? number(argv[3], SHARDS_MOST) : 1;
    conf.group_delay_ms = 0;
    a.port = (uint16_t)number(argv[2], UINT16_MAX);
    a.sasl_port = argc > 4 ? (uint16_t)number(argv[4], UINT16_MAX) : 0;
    conf.authorize = a.sasl_port != 0;
    a.tls = argc > 6 ? tls_make(argv[5], argv[6]) : NULL;
    a.loop = loop_new("control");
    watch_signals(&a);
    if (conf.shards < 1 || conf.shards > SHARDS_MOST || (argc > 7 && broker_conf_set(&conf, slice_cstr(argv[7]), &why) != OK) || broker_open(&conf, &a.broker, &why) != OK) {
        fprintf(stderr, "broker_alone: %s\n", why.p ? why.p : "1 to 64 shards");
        return 1;
    }
    for (uint32_t i = 0; i < a.shards_n; i++)
        if (!shard_make(&a, i))
            return 1;
    run(&a);
    tls_ctx_unref(a.tls);
    return 0;
}
