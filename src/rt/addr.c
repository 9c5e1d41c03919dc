/* addr.c - addresses of sockets as values and as text. No names: resolving is somebody else's work.
 *
 * Text forms: "127.0.0.1" and "::1" or "[::1]" without a port on the way in; "127.0.0.1:80" and "[::1]:80" on the way out
 * (RFC 3986 section 3.2.2 brackets); "unix:/path" both ways.
 */
#include "rt.h"

#include <arpa/inet.h>
#include <stdio.h>

static enum err addr_parse_unix(struct slice path, struct addr *out)
{
    struct addr a = {.family = ADDR_UNIX};
    if (path.n == 0 || memchr(path.p, 0, path.n)) return ERR_SYNTAX;
    if (path.n >= sizeof a.path) return ERR_LIMIT;
    memcpy(a.path, path.p, path.n);
    *out = a;
    return OK;
}

enum err addr_parse(struct slice text, uint16_t port, struct addr *out)
{
    struct slice prefix = SLICE("unix:");
    if (slice_starts(text, prefix)) return addr_parse_unix(slice_of(text.p + prefix.n, text.n - prefix.n), out);
    bool brackets = text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']';
    if (brackets) text = slice_of(text.p + 1, text.n - 2);
    char cstr[INET6_ADDRSTRLEN];
    if (text.n == 0 || text.n >= sizeof cstr || memchr(text.p, 0, text.n)) return ERR_SYNTAX;
    memcpy(cstr, text.p, text.n);
    cstr[text.n] = 0;
    struct addr a = {.port = port};
    if (!brackets && inet_pton(AF_INET, cstr, a.ip) == 1) a.family = ADDR_IP4;
    else if (inet_pton(AF_INET6, cstr, a.ip) == 1) a.family = ADDR_IP6;
    else return ERR_SYNTAX;
    *out = a;
    return OK;
}

struct addr addr_ip4(uint32_t ip, uint16_t port)
{
    struct addr a = {.family = ADDR_IP4, .port = port};
    for (int i = 0; i < 4; i++) a.ip[i] = (uint8_t)(ip >> (24 - 8 * i));
    return a;
}

uint32_t addr_ip4_host(const struct addr *a)
{
    if (a->family != ADDR_IP4) return 0;
    return (uint32_t)a->ip[0] << 24 | (uint32_t)a->ip[1] << 16 | (uint32_t)a->ip[2] << 8 | a->ip[3];
}

bool addr_eq(const struct addr *a, const struct addr *b)
{
    if (a->family != b->family) return false;
    switch (a->family) {
    case ADDR_IP4: return a->port == b->port && memcmp(a->ip, b->ip, 4) == 0;
    case ADDR_IP6: return a->port == b->port && memcmp(a->ip, b->ip, 16) == 0;
    case ADDR_UNIX: return strncmp(a->path, b->path, sizeof a->path) == 0;
    case ADDR_NONE: break;
    }
    return true;
}

/* By hand, because it is done for each connection and inet_ntop() goes through printf's machinery. */
static size_t ip4_format(const uint8_t ip[4], char *out)
{
    char *p = out;
    for (int i = 0; i < 4; i++) {
        unsigned v = ip[i];
        if (i)
            *p++ = '.';
        if (v >= 100)
            *p++ = (char)('0' + v / 100);
        if (v >= 10)
            *p++ = (char)('0' + v / 10 % 10);
        *p++ = (char)('0' + v % 10);
    }
    *p = 0;
    return (size_t)(p - out);
}

size_t addr_format_ip(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    out[0] = 0;
    switch (a->family) {
    case ADDR_IP4: return ip4_format(a->ip, out);
    case ADDR_IP6: inet_ntop(AF_INET6, a->ip, out, ADDR_TEXT_MAX); break;
    case ADDR_UNIX: snprintf(out, ADDR_TEXT_MAX, "unix:%.*s", (int)sizeof a->path, a->path); break;
    case ADDR_NONE: snprintf(out, ADDR_TEXT_MAX, "none"); break;
    }
    return strlen(out);
}

size_t addr_format(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    if (a->family == ADDR_IP4 || a->family == ADDR_IP6) {
        char ip[ADDR_TEXT_MAX];
        addr_format_ip(a, ip);
        int n = snprintf(out, ADDR_TEXT_MAX, a->family == ADDR_IP6 ? "[%s]:%u" : "%s:%u", ip, a->port);
        return (size_t)n;
    }
    return addr_format_ip(a, out);
}
