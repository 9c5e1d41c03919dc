/* lookup.c - BPF sk_lookup: one listening socket takes every connection to a service address, on any port.
 *
 *     connect(127.128.0.0/9, any port) ---> [sk_lookup program of this network namespace] ---> the socket in the map
 *     anything else                    ---> the usual search for a listener
 *
 * The kernel asks the program before it searches its own table of listeners, so a workload that listens on 0.0.0.0:80
 * does not take what is meant for a service on port 80. getsockname() on the accepted socket gives the service's address.
 * The program and the map live as long as the link does, and the link is a descriptor that sup holds. If the map is
 * empty (the listener was closed) the program lets the kernel search as usual: nothing listens there, so it is refused.
 *
 * Needs CAP_BPF and CAP_NET_ADMIN in the first user namespace (kernel 5.9 and later).
 */
#include "sup_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(int cmd, union bpf_attr *attr)
{
    long r = syscall(SYS_bpf, cmd, attr, sizeof *attr);
    return r < 0 ? -errno : (int)r;
}

/* Fills in the one slot of a new sockmap. The map, or -errno. */
static int map_of(int listen_fd)
{
    union bpf_attr make = {.map_type = BPF_MAP_TYPE_SOCKMAP, .key_size = 4, .value_size = 8, .max_entries = 1};
    int map = bpf(BPF_MAP_CREATE, &make);
    if (map < 0 || listen_fd < 0)
        return map;
    uint32_t key = 0;
    uint64_t value = (uint64_t)listen_fd;
    union bpf_attr set = {0};
    set.map_fd = (uint32_t)map;
    set.key = (uint64_t)(uintptr_t)&key;
    set.value = (uint64_t)(uintptr_t)&value;
    int r = bpf(BPF_MAP_UPDATE_ELEM, &set);
    if (r < 0) {
        close(map);
        return r;
    }
    return map;
}

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (int32_t)(i)})
#define CTX(field) ((int16_t)offsetof(struct bpf_sk_lookup, field))

/* The program, written by hand: no compiler is needed at run time and nothing is loaded from a file. */
static int program_load(int map)
{
    struct bpf_insn p[] = {
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),                        /* r6 = ctx */
        INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 6, CTX(protocol), 0),              /* r2 = protocol */
        INSN(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 17, IPPROTO_TCP),               /* not TCP: pass */
        INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 6, CTX(local_ip4), 0),             /* r2 = the address, network order; 0 for IPv6 */
        INSN(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, htonl(0xff800000u)),
        INSN(BPF_JMP32 | BPF_JNE | BPF_K, 2, 0, 14, htonl(0x7f800000u)),      /* not in 127.128.0.0/9: pass */
        INSN(BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, 0),                         /* key = 0, on the stack */
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
        INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),
        INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, map),        /* r1 = map (two slots) */
        INSN(0, 0, 0, 0, 0),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
        INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 7, 0),                          /* empty: pass */
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 7, 0, 0, 0),                        /* r7 = the socket, with a reference */
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 6, 0, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 7, 0, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, 0),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sk_assign),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 7, 0, 0),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sk_release),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, SK_PASS),                  /* pass: */
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    };
    union bpf_attr load = {0};
    load.prog_type = BPF_PROG_TYPE_SK_LOOKUP;
    load.expected_attach_type = BPF_SK_LOOKUP;
    load.insns = (uint64_t)(uintptr_t)p;
    load.insn_cnt = COUNT_OF(p);
    load.license = (uint64_t)(uintptr_t)"Apache-2.0"; /* none of the helpers used is restricted to GPL programs */
    memcpy(load.prog_name, "weir_services", sizeof "weir_services");
    return bpf(BPF_PROG_LOAD, &load);
}

int lookup_attach(int netns_fd, int listen_fd, char text[SUP_TEXT_MAX])
{
    const char *step = "socket map";
    int link = -1;
    int map = map_of(listen_fd);
    int prog = map < 0 ? map : program_load(map);
    if (map >= 0)
        step = "program";
    if (prog >= 0) {
        step = "link";
        union bpf_attr make = {0};
        make.link_create.prog_fd = (uint32_t)prog;
        make.link_create.target_fd = (uint32_t)netns_fd;
        make.link_create.attach_type = BPF_SK_LOOKUP;
        link = bpf(BPF_LINK_CREATE, &make);
    } else {
        link = prog;
    }
    if (link < 0)
        snprintf(text, SUP_TEXT_MAX, "BPF sk_lookup is not to be had: %s: %s", step, strerror(-link));
    if (prog >= 0)
        close(prog);
    if (map >= 0)
        close(map);
    return link;
}
