/* conf.c - the settings of the broker that an operator may change, by Kafka's names.
 *
 * "NAME=VALUE,NAME=VALUE": only what does something here can be set. What Kafka has besides is refused with its name, rather than taken and forgotten.
 */
#include "frame_int.h"

#include <stddef.h>

enum conf_type { CONF_INT32, CONF_UINT32, CONF_BOOL };

static const struct conf_setting {
    const char *name;
    enum conf_type type;
    size_t at;                     /* in struct broker_conf */
    uint32_t least, most;          /* of numbers */
} settings[] = {
    {"num.partitions", CONF_INT32, offsetof(struct broker_conf, partitions), 1, 10000},
    {"auto.create.topics.enable", CONF_BOOL, offsetof(struct broker_conf, auto_create), 0, 0},
    {"group.initial.rebalance.delay.ms", CONF_UINT32, offsetof(struct broker_conf, group_delay_ms), 0, 600000},
    {"connections.max.idle.ms", CONF_UINT32, offsetof(struct broker_conf, idle_ms), 1000, INT32_MAX},
    {"socket.request.max.bytes", CONF_UINT32, offsetof(struct broker_conf, request_bytes_max), 1u << 20, 512u << 20},
    {"allow.everyone.if.no.acl.found", CONF_BOOL, offsetof(struct broker_conf, allow_when_no_acl), 0, 0},
};

static bool setting_put(const struct conf_setting *s, struct slice value, struct broker_conf *c)
{
    char *at = (char *)c + s->at;
    uint64_t n;
    if (s->type == CONF_BOOL) {
        if (!slice_is(value, "true") && !slice_is(value, "false"))
            return false;
        *(bool *)at = slice_is(value, "true");
        return true;
    }
    if (slice_u64(value, s->most, &n) != OK || n < s->least)
        return false;
    *(uint32_t *)at = (uint32_t)n; /* an int32_t has the same size, and the bounds are below its greatest */
    return true;
}

static enum err one_set(struct slice text, struct broker_conf *c, struct buf *why)
{
    const char *eq = memchr(text.p, '=', text.n);
    struct slice name = slice_of(text.p, eq ? (size_t)(eq - text.p) : text.n);
    if (!eq) {
        buf_printf(why, "\"" SLICE_FMT "\" is no NAME=VALUE", SLICE_ARG(text));
        return ERR_SYNTAX;
    }
    for (size_t i = 0; i < COUNT_OF(settings); i++) {
        if (!slice_is(name, settings[i].name))
            continue;
        if (setting_put(&settings[i], slice_of(eq + 1, (size_t)(text.p + text.n - eq - 1)), c))
            return OK;
        if (settings[i].type == CONF_BOOL)
            buf_printf(why, "%s is true or false", settings[i].name);
        else
            buf_printf(why, "%s is a number from %u to %u", settings[i].name, settings[i].least, settings[i].most);
        return ERR_SYNTAX;
    }
    buf_printf(why, "\"" SLICE_FMT "\" is no setting of the broker that can be changed; these are:", SLICE_ARG(name));
    for (size_t i = 0; i < COUNT_OF(settings); i++)
        buf_printf(why, "%s %s", i ? "," : "", settings[i].name);
    return ERR_SYNTAX;
}

enum err broker_conf_set(struct broker_conf *c, struct slice text, struct buf *why)
{
    while (text.n) {
        const char *comma = memchr(text.p, ',', text.n);
        size_t n = comma ? (size_t)(comma - text.p) : text.n;
        enum err e = one_set(slice_of(text.p, n), c, why);
        if (e)
            return e;
        n = MIN(n + 1, text.n);
        text = slice_of(text.p + n, text.n - n);
    }
    return OK;
}
