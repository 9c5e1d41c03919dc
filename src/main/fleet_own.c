/* fleet_own.c - what this node keeps under its lease: its own key and its ready replicas.
 *
 * A table of what is wanted, and of what the store has; the difference is written in transactions of up to FLEET_OPS_MAX, one at a time, on the condition
 * that the node's key still has this lease. A write whose fate is unknown is made again: it says the same.
 */
#include "fleet_int.h"

static struct slice cstr_key(const char *key) { return slice_cstr(key); }

static void own_key_free(struct own_key *k)
{
    mem_free(k->value);
    mem_free(k);
}

void own_put(struct fleet *f, const char *key, char *value)
{
    struct own_key *k = table_get(&f->own, cstr_key(key));
    if (k && k->value && value && strcmp(k->value, value) == 0) {
        mem_free(value);
        return;
    }
    if (!k && !value)
        return;
    if (!k) {
        k = mem_new(MEM_CTL, sizeof *k);
        table_put(&f->own, cstr_key(key), k);
    }
    mem_free(k->value);
    k->value = value;
    k->written = k->flying = false;
    fleet_defer(f);
}

/* Under a new lease nothing is. */
void own_unwritten(struct fleet *f)
{
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s));) {
        struct own_key *k = s->value;
        k->written = k->flying = false;
    }
}

bool own_settled(const struct fleet *f)
{
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s));)
        if (!((struct own_key *)s->value)->written)
            return false;
    return !f->writing;
}

void own_free(struct fleet *f)
{
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s));)
        own_key_free(s->value);
    table_fini(&f->own);
}

/* What flew and was not changed meanwhile is there; what was to be deleted is forgotten. */
static void own_landed(struct fleet *f)
{
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s));) {
        struct own_key *k = s->value;
        if (!k->flying)
            continue;
        k->flying = false;
        k->written = true;
        if (!k->value) {
            own_key_free(table_del(&f->own, slice_of(s->key, s->key_n)));
            s = NULL; /* the table has moved: from the start */
        }
    }
}

static void own_written(struct fleet *f, struct ask *a)
{
    f->writing = false;
    if (a->lease != f->lease || f->state != FLEET_IN)
        return; /* all of it is to be written anew */
    if (a->call.error != CTL_OK) {
        own_unwritten(f); /* which of them arrived is not known */
        timer_set(f->loop, &f->write_again, FLEET_AGAIN_MS);
        return;
    }
    if (!a->call.result.txn.succeeded) {
        fleet_out(f, FLEET_KEY_LOST);
        return;
    }
    own_landed(f);
    fleet_defer(f); /* perhaps there is more */
}

void own_write(struct fleet *f)
{
    if (f->state != FLEET_IN || f->writing || timer_is_set(&f->write_again))
        return;
    struct ask *a = NULL;
    struct ctl_op *ops = NULL;
    size_t n = 0;
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s)) && n < FLEET_OPS_MAX;) {
        struct own_key *k = s->value;
        if (k->written)
            continue;
        if (!a) {
            a = ask_new(f, own_written);
            ops = arena_zalloc(&a->mem, FLEET_OPS_MAX * sizeof *ops);
        }
        struct slice key = arena_slice(&a->mem, slice_of(s->key, s->key_n));
        if (k->value)
            ops[n++] = (struct ctl_op){.kind = CTL_PUT, .put = {.key = key, .value = slice_cstr(arena_strdup(&a->mem, k->value)), .lease = f->lease}};
        else
            ops[n++] = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = key}};
        k->flying = true;
    }
    if (!a)
        return;
    struct ctl_compare *is = arena_alloc(&a->mem, sizeof *is);
    *is = fleet_is_member(f);
    a->call.op = (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = is, .compares_n = 1, .then_ops = ops, .then_n = n}};
    f->writing = true;
    ask_send(a);
}

/* ---- values --------------------------------------------------------------------------------------------------------------- */

static void labels_json(const struct kvs *labels, struct buf *out)
{
    buf_addc(out, '{');
    for (size_t i = 0; i < labels->n; i++) {
        buf_adds(out, i ? "," : "");
        buf_add_json(out, slice_cstr(labels->items[i].key));
        buf_addc(out, ':');
        buf_add_json(out, slice_of(labels->items[i].value, labels->items[i].value_n));
    }
    buf_addc(out, '}');
}

static void member_json(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, ",\"%s\":", key);
    buf_add_json(out, slice_cstr(value));
}

void own_node(struct fleet *f, struct buf *out)
{
    buf_adds(out, "{\"name\":");
    buf_add_json(out, slice_cstr(f->conf.node));
    member_json(out, "instance", f->conf.instance);
    member_json(out, "place", f->conf.place);
    if (f->conf.gate)
        member_json(out, "gate", f->conf.gate);
    member_json(out, "locality", f->conf.locality);
    member_json(out, "version", f->conf.version);
    if (f->leaving)
        buf_adds(out, ",\"leaving\":true");
    buf_printf(out, ",\"since_ns\":%llu,\"allocatable\":{\"cpu_milli\":%llu,\"memory_bytes\":%llu},\"labels\":", (unsigned long long)f->since_ns, (unsigned long long)f->conf.cpu_milli,
               (unsigned long long)f->conf.memory);
    labels_json(f->conf.labels, out);
    buf_addc(out, '}');
}

static char *endpoint_json(const struct fleet *f, const struct live_endpoint *ep)
{
    struct buf b = {0};
    buf_adds(&b, "{\"node\":");
    buf_add_json(&b, slice_cstr(f->conf.node));
    buf_printf(&b, ",\"id\":%llu,\"ready\":true,\"ports\":[", (unsigned long long)ep->replica_id);
    for (size_t i = 0; i < ep->ports_n; i++) {
        buf_printf(&b, "%s{\"port\":%u", i ? "," : "", ep->ports[i].port);
        if (ep->ports[i].name)
            member_json(&b, "name", ep->ports[i].name);
        buf_addc(&b, '}');
    }
    buf_adds(&b, "],\"labels\":");
    labels_json(ep->labels, &b);
    buf_addc(&b, '}');
    return buf_take(&b, NULL);
}

#define ENDPOINTS "/weir/endpoints/"

/* What is below prefix and not named is deleted. */
static void own_keep(struct fleet *f, struct slice prefix, const struct table *named)
{
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s));) {
        struct own_key *k = s->value;
        struct slice name = slice_of(s->key, s->key_n);
        if (!k->value || !slice_starts(name, prefix) || table_get(named, name))
            continue;
        mem_free(k->value);
        k->value = NULL;
        k->written = k->flying = false;
        fleet_defer(f);
    }
}

void fleet_tells(struct fleet *f, const struct fleet_told *items, size_t n)
{
    struct table named = {0};
    struct buf key = {0};
    for (size_t i = 0; i < n; i++) {
        buf_clear(&key);
        buf_printf(&key, FLEET_TOLD "%s/%s/%s", items[i].ns, items[i].name, f->conf.node);
        own_put(f, key.p, mem_strdup(MEM_CTL, items[i].json));
        table_put(&named, buf_slice(&key), f);
    }
    own_keep(f, SLICE(FLEET_TOLD), &named);
    table_fini(&named);
    buf_free(&key);
}

/* Those that are no longer there are deleted: what is not named in this call. */
void fleet_endpoints(struct fleet *f, const struct live_endpoint *eps, size_t n)
{
    struct table named = {0};
    struct buf key = {0};
    for (size_t i = 0; i < n; i++) {
        buf_clear(&key);
        buf_printf(&key, ENDPOINTS "%s/%s/%s", eps[i].ns, eps[i].deployment, eps[i].name);
        own_put(f, key.p, endpoint_json(f, &eps[i]));
        table_put(&named, buf_slice(&key), f);
    }
    own_keep(f, SLICE(ENDPOINTS), &named);
    table_fini(&named);
    buf_free(&key);
}

uint32_t own_ready(const struct fleet *f, const struct object *dep)
{
    uint32_t n = 0;
    struct buf prefix = {0};
    buf_printf(&prefix, ENDPOINTS "%s/%s/", dep->ns, dep->name);
    for (struct table_slot *s = NULL; (s = table_next(&f->own, s));)
        n += ((struct own_key *)s->value)->value && slice_starts(slice_of(s->key, s->key_n), buf_slice(&prefix));
    buf_free(&prefix);
    return n;
}
