/* hello.c - what a connection begins with, where that has to be found out before anything else: a PROXY header, the server name of
 * a ClientHello.
 */
#include "proxy_int.h"

static void hello_data(struct stream *s, char *p, size_t n) { (void)s; (void)p; (void)n; }
static void hello_released(struct stream *s) { (void)s; }
static const struct stream_ops hello_ops = {.data = hello_data, .released = hello_released};

void hello_start(struct down *d, int fd, bool proxy_protocol, bool tls)
{
    stream_adopt(http_srv_stream(&d->srv), d->p->loop, &hello_ops, fd);
    if (!proxy_protocol && !tls)
        down_speaks(d, SLICE(""), false, SLICE(""));
}

void hello_stop(struct down *d) { stream_close(http_srv_stream(&d->srv)); }
