/* port_test.h - ports for programs that tests start, and kill, and start again. */
#ifndef PORT_TEST_H
#define PORT_TEST_H

#include "rt.h"

#include <unistd.h>

#define TEST_PORT_FIRST 10000u /* below those that the kernel gives to who connects: nobody takes one by chance while its program is not there */
#define TEST_PORTS 10000u

/* A port of 127.0.0.1 that nobody listens on now, another one with each call; tests that run at the same time begin elsewhere. */
static inline uint16_t test_port(void)
{
    static uint32_t next;
    for (next = next ? next : (uint32_t)getpid() * 101;;) {
        struct addr a = addr_ip4(0x7f000001, (uint16_t)(TEST_PORT_FIRST + next++ % TEST_PORTS));
        int fd;
        if (listen_socket(&a, 1, false, &fd) != OK)
            continue;
        socket_close(fd);
        return a.port;
    }
}

#endif
