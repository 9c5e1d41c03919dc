/* objstore.c - the system's objects in the control store.
 *
 *     /weir/objects/KIND.GROUP/NAMESPACE/NAME               an object (plan/stored.c)
 *     /weir/head                                            {"revision":N,"time","by","what","history":[[REVISION,BYTES],...]}
 *     /weir/history/NNNNNNNNNN                              {"revision":N,"time","by","what","changes":[{"kind","namespace","name","change"}],"bytes"}
 *     /weir/history/NNNNNNNNNN/KIND.GROUP/NAMESPACE/NAME    the object before that revision; null: it was not there
 *
 * A change is one transaction. It compares the revision at which /weir/head was last changed: of two nodes that change something at once, one is told so
 * and reads again. History is made of reverse differences: the state after revision N is the present one, with every key that changed since as the
 * first revision behind N found it. How much there is of it stands in the head, so what is too old goes in the same transaction, without looking.
 *
 * An etcd cluster takes 128 operations and 1.5 MiB in a transaction. A change that is more than conf allows is written ahead:
 *
 *     /weir/redo/ID/NNNNNN    the operations, in parts              seen by nobody
 *     /weir/head              the next one, with "redo":{"id","parts"}, compared as above: from here on the change is done
 *     each part is carried out, if the head is still that one; in the end the head loses its "redo", and /weir/redo/ goes
 *
 * Who reads a head with "redo" carries it out before he reads anything else, whoever wrote it and whether he is still there: parts say the same however
 * often they are carried out, and with the head's next change nobody carries them out any more. So objects and history are as one revision left them, always.
 */
#include "objstore.h"

#include "json_buf.h"

#include <inttypes.h>
#include <jansson.h>
#include <time.h>

#define HEAD_KEY "/weir/head"
#define OBJECTS "/weir/objects/"
#define OBJECTS_END "/weir/objects0"   /* '0' is behind '/' */
#define HISTORY "/weir/history/"
#define HISTORY_END "/weir/history0"
#define REDO "/weir/redo/"
#define REDO_END "/weir/redo0"
#define REDO_PARTS_MAX 100000u
#define REDO_ID_BYTES 8
#define READ_TRIES 10                  /* each time a large change of another node was in the way */
#define REVISION_DIGITS 10
#define REVISION_MAX 9999999999
#define HISTORY_BYTES_MAX (16u << 20)
#define REMEDY "restore the data folder, or move its folder ctl away and start with the manifests"

/* A revision of which history is there. */
struct kept {
    int64_t revision;
    uint64_t bytes;
};
struct head {
    int64_t revision;                   /* the system's; 0: none yet */
    struct kept kept[OBJSTORE_REVISIONS_MAX]; /* oldest first, without a gap, up to revision */
    size_t kept_n;
    char redo[2 * REDO_ID_BYTES + 1];   /* of a large change that is not carried out yet; "": none */
    uint32_t redo_parts;
};
/* A large change on its way. In op.mem, as all that it points to. */
struct redo {
    char id[2 * REDO_ID_BYTES + 1];
    struct slice *parts;                /* operations as text */
    size_t n, at;                       /* at: the next one to be written, or carried out */
    struct slice head;                  /* as it is in the end */
    struct ctl_compare compare;         /* the head is still the one with this redo */
    void (*over)(struct objstore_op *op, bool whole); /* whole: all was carried out, here; else op.call says why not */
};
/* An object that could not be read, for whoever replaces it. */
struct unread {
    struct unread *next;
    struct buf key, value;              /* key: without OBJECTS */
};

/* What an object was read from. */
struct known {
    uint64_t serial;                    /* object.serial: what is in force under its key came of that very reading */
    int64_t mod;                        /* of its key, */
    uint64_t hash;                      /* and of the value: a store that begins anew may come to the same mod again */
    uint64_t round;                     /* of the reading that saw it last */
};

struct objstore {
    struct objstore_conf conf;
    struct ctl *ctl;                    /* NULL: closed */
    struct head head;
    int64_t head_mod;                   /* the store's revision that head is from; 0: it is not there */
    struct unread *unread;
    struct table known;                 /* key, without OBJECTS -> struct known; of readings that have a base */
    uint64_t round;
    bool partial;                       /* what was read last is not all that is there: nobody may take it for what a change begins with */
};

static void known_trim(struct objstore *s, bool all);

void objstore_conf_default(struct objstore_conf *conf)
{
    *conf = (struct objstore_conf){.revisions_max = OBJSTORE_REVISIONS_MAX, .history_bytes_max = HISTORY_BYTES_MAX};
}

struct objstore *objstore_new(const struct objstore_conf *conf)
{
    struct objstore *s = mem_new(MEM_MANIFEST, sizeof *s);
    s->conf = *conf;
    MUST(conf->revisions_max >= 1 && conf->revisions_max <= OBJSTORE_REVISIONS_MAX);
    return s;
}

static void unread_free(struct objstore *s)
{
    for (struct unread *u = s->unread, *next; u; u = next) {
        next = u->next;
        buf_free(&u->key);
        buf_free(&u->value);
        mem_free(u);
    }
    s->unread = NULL;
}

void objstore_free(struct objstore *s)
{
    if (!s)
        return;
    unread_free(s);
    known_trim(s, true);
    table_fini(&s->known);
    mem_free(s);
}

void objstore_on(struct objstore *s, struct ctl *c) { s->ctl = c; }
bool objstore_whole(const struct objstore *s) { return !s->partial; }
int64_t objstore_at(const struct objstore *s) { return s->head_mod; }
int64_t objstore_revision(const struct objstore *s) { return s->head.revision; }

/* ---- what every question has ------------------------------------------------------------------------------------------------- */

static void op_begin(struct objstore *s, struct objstore_op *op)
{
    op->store = s;
    op->redo = NULL;
    op->error = OK;
    arena_init(&op->mem, MEM_MANIFEST, 4096);
}

void objstore_op_fini(struct objstore_op *op)
{
    if (op->store)
        arena_fini(&op->mem);
    buf_free(&op->why);
    op->store = NULL;
}

static void op_submit(struct objstore_op *op, void (*done)(struct ctl_call *call), struct ctl_op what)
{
    op->call = (struct ctl_call){.op = what, .exempt = true, .done = done};
    ctl_submit(op->store->ctl, &op->call);
}

static struct objstore_op *op_of(struct ctl_call *call) { return CONTAINER_OF(call, struct objstore_op, call); }

static enum err err_of(enum ctl_error e)
{
    switch (e) {
    case CTL_OK: return OK;
    case CTL_DISK_FULL:
    case CTL_NOSPACE: return ERR_NOSPACE;
    case CTL_TOO_MANY_OPS:
    case CTL_REQUEST_TOO_LARGE: return ERR_LIMIT;
    case CTL_STOPPED:
    case CTL_UNAVAILABLE:
    case CTL_TOO_MANY_REQUESTS: return ERR_AGAIN;
    default: return ERR_IO;
    }
}

/* False: the call failed, and the reason is in op. */
static bool op_good(struct objstore_op *op)
{
    const struct ctl_call *call = &op->call;
    op->error = err_of(call->error);
    if (call->error == CTL_TOO_MANY_OPS)
        buf_printf(&op->why, "the etcd cluster does not take %zu operations in one transaction: its --max-txn-ops is less than etcd's default", call->op.txn.then_n);
    else if (call->error == CTL_UNKNOWN)
        buf_printf(&op->why, "%s; whether the change was written is not known: weir history tells when the store answers again", call->why);
    else if (op->error != OK)
        buf_adds(&op->why, call->why);
    return op->error == OK;
}

static struct ctl_op get_key(const char *key) { return (struct ctl_op){.kind = CTL_RANGE, .range = {.key = slice_cstr(key)}}; }
static struct ctl_op get_range(const char *key, const char *end) { return (struct ctl_op){.kind = CTL_RANGE, .range = {.key = slice_cstr(key), .end = slice_cstr(end)}}; }

static const char *history_key(struct arena *a, int64_t revision) { return arena_printf(a, HISTORY "%0*" PRId64, REVISION_DIGITS, revision); }

static struct slice behind(struct slice key, size_t n) { return slice_of(key.p + n, key.n - n); }

/* ---- the head ------------------------------------------------------------------------------------------------------------------- */

static bool head_kept(const json_t *list, struct head *h)
{
    size_t i;
    json_t *entry;
    json_array_foreach (list, i, entry) {
        json_int_t revision = json_integer_value(json_array_get(entry, 0)), bytes = json_integer_value(json_array_get(entry, 1));
        int64_t wanted = h->revision - (int64_t)json_array_size(list) + 1 + (int64_t)i;
        if (i >= OBJSTORE_REVISIONS_MAX || revision != wanted || revision < 1 || bytes < 0)
            return false;
        h->kept[h->kept_n++] = (struct kept){revision, (uint64_t)bytes};
    }
    return true;
}

static bool head_redo(const json_t *redo, struct head *h)
{
    const char *id = json_string_value(json_object_get(redo, "id"));
    json_int_t parts = json_integer_value(json_object_get(redo, "parts"));
    if (!redo)
        return true;
    if (!id || strlen(id) != 2 * REDO_ID_BYTES || strspn(id, "0123456789abcdef") != 2 * REDO_ID_BYTES || parts < 1 || parts > (json_int_t)REDO_PARTS_MAX)
        return false;
    memcpy(h->redo, id, sizeof h->redo);
    h->redo_parts = (uint32_t)parts;
    return true;
}

/* What is in the store may have been written by others: false when it is no head. */
static bool head_read(struct slice value, struct head *h)
{
    json_t *o = json_loadb(value.p ? value.p : "", value.n, 0, NULL);
    *h = (struct head){.revision = json_integer_value(json_object_get(o, "revision"))};
    bool good = h->revision >= 1 && h->revision < REVISION_MAX && head_kept(json_object_get(o, "history"), h) && head_redo(json_object_get(o, "redo"), h);
    json_decref(o);
    return good;
}

/* From the answer to get_key(HEAD_KEY). */
static bool head_of(const struct ctl_range_result *r, struct head *h, int64_t *mod)
{
    *h = (struct head){0};
    *mod = 0;
    if (r->n == 0)
        return true;
    *mod = r->kvs[0].mod_revision;
    return head_read(r->kvs[0].value, h);
}

static void text_member(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, ",\"%s\":", key);
    buf_add_json(out, slice_cstr(value));
}

/* {"revision":N,"time":..,"by":..,"what":.. and not yet its end. */
static void stamp(struct buf *out, int64_t revision, const char *by, const char *what)
{
    char when[32];
    time_t t = (time_t)(wall_ns() / 1000000000u);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    buf_printf(out, "{\"revision\":%" PRId64, revision);
    text_member(out, "time", when);
    text_member(out, "by", by);
    text_member(out, "what", what);
}

/* ---- large changes ------------------------------------------------------------------------------------------------------------------ */

/* "p KEY-BYTES VALUE-BYTES\nKEYVALUE", "d KEY-BYTES END-BYTES\nKEYEND": bytes as they are. */
static void redo_text(const struct ctl_op *op, struct buf *out)
{
    bool put = op->kind == CTL_PUT;
    struct slice key = put ? op->put.key : op->del.key, rest = put ? op->put.value : op->del.end;
    buf_printf(out, "%c %zu %zu\n", put ? 'p' : 'd', key.n, rest.n);
    buf_add_slice(out, key);
    buf_add_slice(out, rest);
}

static size_t op_bytes(const struct ctl_op *op)
{
    return op->kind == CTL_PUT ? op->put.key.n + op->put.value.n : op->del.key.n + op->del.end.n;
}

/* One operation off the front of part. False: it is none. */
static bool redo_op(struct slice *part, struct ctl_op *op)
{
    uint64_t key_n, rest_n;
    struct slice text, line = slice_cut(*part, '\n', &text), words, kind = slice_cut(line, ' ', &words), second, first = slice_cut(words, ' ', &second);
    if (slice_u64(first, UINT32_MAX, &key_n) != OK || slice_u64(second, UINT32_MAX, &rest_n) != OK || key_n > text.n || rest_n > text.n - key_n)
        return false;
    struct slice key = slice_of(text.p, key_n), rest = slice_of(text.p + key_n, rest_n);
    if (slice_is(kind, "p"))
        *op = (struct ctl_op){.kind = CTL_PUT, .put = {.key = key, .value = rest}};
    else if (slice_is(kind, "d"))
        *op = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = key, .end = rest}};
    else
        return false;
    *part = behind(text, key_n + rest_n);
    return slice_starts(key, SLICE("/weir/")); /* whoever wrote it */
}

static const char *redo_key(struct objstore_op *op, size_t part) { return arena_printf(&op->mem, REDO "%s/%06zu", op->redo->id, part); }

static void redo_done(struct ctl_call *call);

/* The next part, and behind the last one the head. */
static void redo_next(struct objstore_op *op)
{
    struct redo *r = op->redo;
    struct ctl_op *ops = NULL;
    size_t n = 0, cap = 0;
    struct slice part = r->at < r->n ? r->parts[r->at] : SLICE("");
    for (struct ctl_op one; part.n && redo_op(&part, &one);) {
        ARRAY_GROW(MEM_MANIFEST, ops, n, cap);
        ops[n++] = one;
    }
    struct ctl_op *kept = arena_alloc(&op->mem, (n + 2) * sizeof *kept);
    if (n)
        memcpy(kept, ops, n * sizeof *kept);
    mem_free(ops);
    if (r->at == r->n) {
        kept[n++] = (struct ctl_op){.kind = CTL_PUT, .put = {.key = SLICE(HEAD_KEY), .value = r->head}};
        kept[n++] = (struct ctl_op){.kind = CTL_DELETE, .del = {.key = SLICE(REDO), .end = SLICE(REDO_END)}};
    }
    op_submit(op, redo_done, (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = &r->compare, .compares_n = 1, .then_ops = kept, .then_n = n}});
}

static void redo_done(struct ctl_call *call)
{
    struct objstore_op *op = op_of(call);
    bool good = call->error == CTL_OK && call->result.txn.succeeded;
    if (!good)
        op->redo->over(op, false);
    else if (op->redo->at++ < op->redo->n)
        redo_next(op);
    else
        op->redo->over(op, true);
}

static void redo_begin(struct objstore_op *op, int64_t head_mod, void (*over)(struct objstore_op *op, bool whole))
{
    op->redo->at = 0;
    op->redo->over = over;
    op->redo->compare = (struct ctl_compare){.key = SLICE(HEAD_KEY), .target = CTL_TARGET_MOD, .result = CTL_EQUAL, .number = head_mod};
    redo_next(op);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static void unread_add(struct objstore *s, struct slice key, struct slice value)
{
    struct unread *u = mem_new(MEM_MANIFEST, sizeof *u);
    buf_add_slice(&u->key, key);
    buf_add_slice(&u->value, value);
    u->next = s->unread;
    s->unread = u;
}

/* As it is in force, when it was read from just this. */
static bool known_take(struct objstore_read *r, struct slice key, const struct ctl_kv *kv)
{
    struct known *k = r->base ? table_get(&r->op.store->known, key) : NULL;
    const struct object *o = k && k->mod == kv->mod_revision && k->hash == hash_slice(kv->value) ? objset_find_stored(*r->base, key) : NULL;
    if (!o || o->serial != k->serial)
        return false;
    k->round = r->op.store->round;
    objset_share(r->set, o);
    return true;
}

static void known_note(struct objstore_read *r, struct slice key, const struct ctl_kv *kv)
{
    struct known *k = table_get(&r->op.store->known, key);
    if (!k) {
        k = mem_new(MEM_MANIFEST, sizeof *k);
        table_put(&r->op.store->known, key, k);
    }
    *k = (struct known){objset_find_stored(r->set, key)->serial, kv->mod_revision, hash_slice(kv->value), r->op.store->round};
}

/* Those that this reading has not seen, or all. */
static void known_trim(struct objstore *s, bool all)
{
    struct slice *gone = mem_new(MEM_MANIFEST, (s->known.n + 1) * sizeof *gone);
    size_t n = 0;
    for (struct table_slot *t = NULL; (t = table_next(&s->known, t));)
        if (all || ((struct known *)t->value)->round != s->round)
            gone[n++] = slice_of(t->key, t->key_n);
    for (size_t i = 0; i < n; i++)
        mem_free(table_del(&s->known, gone[i]));
    mem_free(gone);
}

static void read_objects(struct objstore_read *r, const struct ctl_range_result *all)
{
    struct objstore *s = r->op.store;
    s->round++;
    for (size_t i = 0; i < all->n; i++) {
        const struct ctl_kv *kv = &all->kvs[i];
        struct slice key = behind(kv->key, sizeof OBJECTS - 1);
        if (known_take(r, key, kv))
            continue;
        if (objset_load_stored(r->set, key, kv->value, s->conf.keys, REMEDY, &r->diags) == OK) {
            if (r->base)
                known_note(r, key, kv);
            continue;
        }
        unread_add(s, key, kv->value);
        r->op.error = ERR_INVALID;
    }
    known_trim(s, false);
}

static void read_submit(struct objstore_read *r);

static void read_again(struct objstore_read *r)
{
    if (++r->tries < READ_TRIES) {
        read_submit(r);
        return;
    }
    r->op.error = ERR_AGAIN;
    buf_adds(&r->op.why, "a large change in the control store does not come to its end: parts of it are missing, or can't be carried out");
    r->done(r);
}

static void read_redone(struct objstore_op *op, bool whole)
{
    struct objstore_read *r = CONTAINER_OF(op, struct objstore_read, op);
    if (whole || op_good(op)) /* or another one was faster */
        read_again(r);
    else
        r->done(r);
}

static void redo_read(struct ctl_call *call)
{
    struct objstore_op *op = op_of(call);
    struct objstore_read *r = CONTAINER_OF(op, struct objstore_read, op);
    const struct ctl_range_result *all = &call->result.range;
    if (!op_good(op)) {
        r->done(r);
        return;
    }
    if (all->n != op->redo->n) { /* it is carried out, and gone */
        read_again(r);
        return;
    }
    op->redo->parts = arena_alloc(&op->mem, all->n * sizeof *op->redo->parts);
    for (size_t i = 0; i < all->n; i++)
        op->redo->parts[i] = arena_slice(&op->mem, all->kvs[i].value);
    redo_begin(op, op->redo->compare.number, read_redone);
}

/* A large change that was decided and not carried out is carried out first. */
static void read_redo(struct objstore_read *r, const struct ctl_kv *head, const struct head *h)
{
    struct redo *redo = arena_zalloc(&r->op.mem, sizeof *redo);
    json_t *o = json_loadb(head->value.p, head->value.n, 0, NULL);
    json_object_del(o, "redo");
    struct buf text = {0};
    enum err e = json_buf_add(o, JSON_COMPACT, &text);
    MUST(e == OK);
    redo->head = arena_slice(&r->op.mem, buf_slice(&text));
    buf_free(&text);
    json_decref(o);
    memcpy(redo->id, h->redo, sizeof redo->id);
    redo->n = h->redo_parts;
    redo->compare.number = head->mod_revision;
    r->op.redo = redo;
    const char *from = arena_printf(&r->op.mem, REDO "%s/", redo->id), *to = arena_printf(&r->op.mem, REDO "%s0", redo->id);
    op_submit(&r->op, redo_read, get_range(from, to));
}

static void read_done(struct ctl_call *call)
{
    struct objstore_read *r = CONTAINER_OF(op_of(call), struct objstore_read, op);
    struct objstore *s = r->op.store;
    struct head h;
    int64_t mod;
    bool good = op_good(&r->op);
    if (good && head_of(&call->result.txn.ops[0].range, &h, &mod) && h.redo_parts) {
        read_redo(r, &call->result.txn.ops[0].range.kvs[0], &h);
        return;
    }
    if (good) {
        const struct ctl_op_result *ops = call->result.txn.ops;
        unread_free(s);
        r->none = ops[0].range.n == 0;
        if (!head_of(&ops[0].range, &s->head, &s->head_mod)) {
            diags_add(&r->diags, DIAG_ERROR, HEAD_KEY, 0, 0, "", REMEDY, "what the control store has there is not a revision of Weir's");
            r->op.error = ERR_INVALID;
        }
        read_objects(r, &ops[1].range);
    }
    if (r->op.error == ERR_INVALID)
        buf_adds(&r->op.why, "objects in the control store can't be read");
    if (good)
        s->partial = r->op.error != OK;
    r->done(r);
}

static void read_submit(struct objstore_read *r)
{
    struct ctl_op *ops = arena_alloc(&r->op.mem, 2 * sizeof *ops);
    ops[0] = get_key(HEAD_KEY);
    ops[1] = get_range(OBJECTS, OBJECTS_END);
    op_submit(&r->op, read_done, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = 2}});
}

void objstore_read(struct objstore *s, struct objstore_read *r)
{
    op_begin(s, &r->op);
    r->set = objset_new();
    r->tries = 0;
    read_submit(r);
}

static void newest_done(struct ctl_call *call)
{
    struct objstore_newest *n = CONTAINER_OF(op_of(call), struct objstore_newest, op);
    struct head h;
    if (op_good(&n->op) && !head_of(&call->result.range, &h, &n->at)) {
        n->op.error = ERR_INVALID;
        buf_adds(&n->op.why, "what the control store has at " HEAD_KEY " is not a revision of Weir's");
    }
    n->revision = n->op.error == OK ? h.revision : 0;
    n->done(n);
}

void objstore_newest(struct objstore *s, struct objstore_newest *n)
{
    op_begin(s, &n->op);
    n->since = s->head_mod;
    op_submit(&n->op, newest_done, get_key(HEAD_KEY));
}

bool objstore_has(const struct objstore *s, const struct objstore_newest *n)
{
    return (n->at == s->head_mod && n->revision == s->head.revision) || (n->at >= n->since && n->at < s->head_mod);
}

/* ---- changing --------------------------------------------------------------------------------------------------------------------- */

static void commit_op(struct objstore_commit *c, struct ctl_op op)
{
    ARRAY_GROW(MEM_MANIFEST, c->ops, c->n, c->cap);
    c->ops[c->n++] = op;
}

static void commit_put(struct objstore_commit *c, const char *key, struct slice value)
{
    commit_op(c, (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_cstr(key), .value = value}});
}

static void commit_note(struct objstore_commit *c, const struct object *o, const char *change)
{
    buf_printf(&c->changes, "%s{\"kind\":\"%s\"", c->changes.n ? "," : "", obj_kind_name(o->kind));
    text_member(&c->changes, "namespace", o->ns);
    text_member(&c->changes, "name", o->name);
    buf_printf(&c->changes, ",\"change\":\"%s\"}", change);
}

/* The object's place in this revision's history. */
static void commit_before(struct objstore_commit *c, const char *key, struct slice before)
{
    const struct head *next = c->next;
    const char *at = arena_printf(&c->op.mem, "%s/%s", history_key(&c->op.mem, next->revision), key);
    c->bytes += strlen(at) + before.n;
    commit_put(c, at, before);
}

static enum err object_text(struct objstore_commit *c, const struct object *o, struct slice *out)
{
    struct buf b = {0};
    enum err e = object_store(o, c->op.store->conf.keys, &b);
    if (e != OK)
        buf_printf(&c->op.why, "%s %s/%s has a number that is beyond what can be stored as JSON", obj_kind_name(o->kind), o->ns, o->name);
    *out = arena_slice(&c->op.mem, buf_slice(&b));
    buf_free(&b);
    return e;
}

/* The object is as in old (NULL: it is not there), and will be as in o (NULL: it will not be there). */
static enum err commit_object(struct objstore_commit *c, const struct object *old, const struct object *o)
{
    const struct object *any = o ? o : old;
    struct buf b = {0};
    struct slice before = SLICE("null"), now;
    object_key(any->kind, any->ns, any->name, &b);
    const char *key = arena_slice(&c->op.mem, buf_slice(&b)).p;
    buf_free(&b);
    enum err e = old ? object_text(c, old, &before) : OK;
    if (e == OK && o)
        e = object_text(c, o, &now);
    if (e != OK)
        return e;
    char *at = arena_printf(&c->op.mem, OBJECTS "%s", key);
    if (o)
        commit_put(c, at, now);
    else
        commit_op(c, (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(at)}});
    commit_before(c, key, before);
    commit_note(c, any, !old ? "created" : !o ? "deleted" : old->hash == o->hash && strcmp(old->dir, o->dir) == 0 ? "owned" : "configured"); /* owned: only by others now */
    return OK;
}

static int order(const struct object *a, const struct object *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    int c = strcmp(a->ns, b->ns);
    return c ? c : strcmp(a->name, b->name);
}

/* Both sets are ordered alike: what is in one, the other or both. */
static enum err commit_objects(struct objstore_commit *c)
{
    size_t i = 0, k = 0;
    enum err e = OK;
    while (e == OK && (i < objset_n(c->from) || k < objset_n(c->to))) {
        const struct object *old = i < objset_n(c->from) ? objset_at(c->from, i) : NULL, *o = k < objset_n(c->to) ? objset_at(c->to, k) : NULL;
        int way = !old ? 1 : !o ? -1 : order(old, o);
        i += way <= 0;
        k += way >= 0;
        if (way || !object_same(old, o))
            e = commit_object(c, way <= 0 ? old : NULL, way >= 0 ? o : NULL);
    }
    return e;
}

/* True when the set has the object that this is the key of. */
static bool set_has(const struct objset *set, struct slice key)
{
    enum obj_kind k;
    struct slice ns, name;
    if (!object_key_parse(key, &k, &ns, &name))
        return false;
    char *n = mem_strndup(MEM_MANIFEST, ns.p, ns.n), *m = mem_strndup(MEM_MANIFEST, name.p, name.n);
    bool has = objset_find(set, k, n, m);
    mem_free(n);
    mem_free(m);
    return has;
}

/* What could not be read is not in from: where an object of that name is put over it, it counts as new; all else goes, and is in history as it was. */
static void commit_unread(struct objstore_commit *c)
{
    for (struct unread *u = c->op.store->unread; u; u = u->next)
        if (!set_has(c->to, buf_slice(&u->key))) {
            commit_op(c, (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(arena_printf(&c->op.mem, OBJECTS "%s", u->key.p))}});
            commit_before(c, u->key.p, buf_slice(&u->value));
        }
}

/* History that is too old, or too much, goes: it is one range of keys. */
static void commit_prune(struct objstore_commit *c)
{
    const struct objstore_conf *conf = &c->op.store->conf;
    struct head *next = c->next;
    uint64_t sum = 0;
    size_t drop = 0;
    for (size_t i = 0; i < next->kept_n; i++)
        sum += next->kept[i].bytes;
    while (drop < next->kept_n && (next->kept_n - drop + 1 > conf->revisions_max || sum + c->bytes > conf->history_bytes_max))
        sum -= next->kept[drop++].bytes;
    if (drop) {
        const char *from = history_key(&c->op.mem, next->kept[0].revision), *to = history_key(&c->op.mem, next->kept[drop - 1].revision + 1);
        commit_op(c, (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(from), .end = slice_cstr(to)}});
    }
    next->kept_n -= drop;
    memmove(next->kept, next->kept + drop, next->kept_n * sizeof *next->kept);
    next->kept[next->kept_n++] = (struct kept){next->revision, c->bytes};
}

static void commit_history(struct objstore_commit *c)
{
    struct head *next = c->next;
    struct buf b = {0};
    stamp(&b, next->revision, c->by, c->what);
    buf_printf(&b, ",\"changes\":[%s],\"bytes\":", c->changes.p ? c->changes.p : "");
    c->bytes += b.n;
    buf_printf(&b, "%" PRIu64 "}", c->bytes);
    commit_put(c, history_key(&c->op.mem, next->revision), arena_slice(&c->op.mem, buf_slice(&b)));
    commit_prune(c);
    buf_clear(&b);
    stamp(&b, next->revision, c->by, c->what);
    buf_adds(&b, ",\"history\":[");
    for (size_t i = 0; i < next->kept_n; i++)
        buf_printf(&b, "%s[%" PRId64 ",%" PRIu64 "]", i ? "," : "", next->kept[i].revision, next->kept[i].bytes);
    buf_adds(&b, "]}");
    commit_put(c, HEAD_KEY, arena_slice(&c->op.mem, buf_slice(&b)));
    buf_free(&b);
}

static void commit_fini(struct objstore_commit *c)
{
    mem_free(c->ops);
    c->ops = NULL;
    buf_free(&c->changes);
}

/* False: it is not, and op says why. */
static bool commit_decided(struct objstore_commit *c)
{
    if (op_good(&c->op) && !c->op.call.result.txn.succeeded) {
        c->op.error = ERR_INUSE;
        buf_adds(&c->op.why, "another change came first");
    }
    return c->op.error == OK;
}

static void commit_over(struct objstore_commit *c)
{
    struct objstore *s = c->op.store;
    if (c->op.error == OK) {
        s->head = *(struct head *)c->next;
        c->revision = s->head.revision;
        if (c->replace_unread) {
            unread_free(s);
            s->partial = false;
        }
    }
    commit_fini(c);
    c->done(c);
}

static void commit_done(struct ctl_call *call)
{
    struct objstore_commit *c = CONTAINER_OF(op_of(call), struct objstore_commit, op);
    if (commit_decided(c))
        c->op.store->head_mod = call->revision;
    commit_over(c);
}

/* It is done in any case: what was not carried out here is by whoever reads next. The head is another one then, and the next change of this node finds that out. */
static void commit_redone(struct objstore_op *op, bool whole)
{
    if (whole)
        op->store->head_mod = op->call.revision;
    commit_over(CONTAINER_OF(op, struct objstore_commit, op));
}

static void redo_dropped(struct ctl_call *call) { commit_over(CONTAINER_OF(op_of(call), struct objstore_commit, op)); }

static void redo_decided(struct ctl_call *call)
{
    struct objstore_commit *c = CONTAINER_OF(op_of(call), struct objstore_commit, op);
    const char *id = c->op.redo->id;
    if (commit_decided(c)) {
        c->op.store->head_mod = call->revision;
        redo_begin(&c->op, call->revision, commit_redone);
    } else if (c->op.error == ERR_INUSE) { /* nobody will carry it out */
        const char *from = arena_printf(&c->op.mem, REDO "%s/", id), *to = arena_printf(&c->op.mem, REDO "%s0", id);
        op_submit(&c->op, redo_dropped, (struct ctl_op){.kind = CTL_DELETE, .del = {.key = slice_cstr(from), .end = slice_cstr(to)}});
    } else {
        commit_over(c);
    }
}

/* What it is all about: until here nothing has changed for anybody. */
static void redo_decide(struct objstore_commit *c)
{
    struct redo *r = c->op.redo;
    struct buf b = {0};
    buf_add(&b, r->head.p, r->head.n - 1); /* without its last brace */
    buf_printf(&b, ",\"redo\":{\"id\":\"%s\",\"parts\":%zu}}", r->id, r->n);
    struct ctl_op *put = arena_alloc(&c->op.mem, sizeof *put);
    *put = (struct ctl_op){.kind = CTL_PUT, .put = {.key = SLICE(HEAD_KEY), .value = arena_slice(&c->op.mem, buf_slice(&b))}};
    buf_free(&b);
    op_submit(&c->op, redo_decided, (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = &c->head, .compares_n = 1, .then_ops = put, .then_n = 1}});
}

static void redo_put(struct objstore_commit *c);

static void redo_written(struct ctl_call *call)
{
    struct objstore_commit *c = CONTAINER_OF(op_of(call), struct objstore_commit, op);
    if (call->error == CTL_UNKNOWN) {
        c->op.error = ERR_AGAIN;
        buf_printf(&c->op.why, "%s; nothing was changed", call->why);
        commit_over(c);
    } else if (!op_good(&c->op)) {
        commit_over(c);
    } else if (++c->op.redo->at < c->op.redo->n) {
        redo_put(c);
    } else {
        redo_decide(c);
    }
}

static void redo_put(struct objstore_commit *c)
{
    struct redo *r = c->op.redo;
    op_submit(&c->op, redo_written, (struct ctl_op){.kind = CTL_PUT, .put = {.key = slice_cstr(redo_key(&c->op, r->at)), .value = r->parts[r->at]}});
}

/* All operations but the last, which is the head's, in parts. */
static void redo_make(struct objstore_commit *c)
{
    const struct objstore_conf *conf = &c->op.store->conf;
    struct redo *r = c->op.redo = arena_zalloc(&c->op.mem, sizeof *r);
    uint8_t id[REDO_ID_BYTES];
    struct buf b = {0};
    random_bytes(id, sizeof id);
    for (size_t i = 0; i < sizeof id; i++)
        (void)snprintf(r->id + 2 * i, 3, "%02x", id[i]);
    r->head = c->ops[c->n - 1].put.value;
    r->parts = arena_alloc(&c->op.mem, c->n * sizeof *r->parts);
    for (size_t i = 0, n = 0; i + 1 < c->n; i++) {
        redo_text(&c->ops[i], &b);
        n++;
        bool last = i + 2 == c->n;
        if (last || n == conf->ops_max || b.n + op_bytes(&c->ops[i + 1]) > conf->ops_bytes_max) {
            r->parts[r->n++] = arena_slice(&c->op.mem, buf_slice(&b));
            buf_clear(&b);
            n = 0;
        }
    }
    buf_free(&b);
}

static bool is_large(const struct objstore_commit *c)
{
    const struct objstore_conf *conf = &c->op.store->conf;
    size_t bytes = 0;
    for (size_t i = 0; i < c->n; i++)
        bytes += op_bytes(&c->ops[i]);
    return conf->ops_max && (c->n > conf->ops_max || bytes > conf->ops_bytes_max);
}

/* The head is compared, and so it must be of what `from` was read with. Where other objects could not be read (sealed by another node with a key that is
 * not here, or of a later version), `from` is older than the head, and what is made of it would take back what others changed. */
static bool commit_founded(struct objstore_commit *c)
{
    const struct objstore *s = c->op.store;
    if (!s->partial || c->replace_unread)
        return true;
    buf_printf(&c->op.why, "nothing can be changed here while what the control store has can't be read%s%s; the node's log says why", s->unread ? ": " : "", s->unread ? s->unread->key.p : "");
    return false;
}

enum err objstore_commit(struct objstore *s, struct objstore_commit *c)
{
    op_begin(s, &c->op);
    struct head *next = arena_alloc(&c->op.mem, sizeof *next);
    *next = s->head;
    next->revision++;
    c->next = next;
    enum err e = commit_founded(c) ? commit_objects(c) : ERR_INVALID;
    if (e == OK && c->replace_unread)
        commit_unread(c);
    if (e == OK && !c->n)
        e = ERR_NOTFOUND;
    if (e != OK) {
        c->op.error = e;
        commit_fini(c);
        return e;
    }
    commit_history(c);
    c->head = (struct ctl_compare){.key = SLICE(HEAD_KEY), .target = CTL_TARGET_MOD, .result = CTL_EQUAL, .number = s->head_mod};
    if (is_large(c)) {
        redo_make(c);
        redo_put(c);
    } else {
        op_submit(&c->op, commit_done, (struct ctl_op){.kind = CTL_TXN, .txn = {.compares = &c->head, .compares_n = 1, .then_ops = c->ops, .then_n = c->n}});
    }
    return OK;
}

/* ---- looking back ------------------------------------------------------------------------------------------------------------------- */

/* True for a summary that can be shown; others may have written there. */
static bool summary_good(struct slice value)
{
    json_t *o = json_loadb(value.p ? value.p : "", value.n, 0, NULL);
    bool good = json_is_object(o);
    json_decref(o);
    return good;
}

static void list_done(struct ctl_call *call)
{
    struct objstore_list *l = CONTAINER_OF(op_of(call), struct objstore_list, op);
    bool first = true;
    if (op_good(&l->op)) {
        buf_printf(&l->json, "{\"revision\":%" PRId64 ",\"items\":[", l->op.store->head.revision);
        for (size_t i = 0; i < call->result.txn.n; i++) {
            const struct ctl_range_result *r = &call->result.txn.ops[i].range;
            if (r->n && summary_good(r->kvs[0].value)) {
                buf_adds(&l->json, first ? "\n" : ",\n");
                buf_add_slice(&l->json, r->kvs[0].value);
                first = false;
            }
        }
        buf_adds(&l->json, "\n]}\n");
    }
    l->done(l);
}

void objstore_list(struct objstore *s, struct objstore_list *l)
{
    op_begin(s, &l->op);
    struct ctl_op *ops = arena_alloc(&l->op.mem, (s->head.kept_n + 1) * sizeof *ops);
    for (size_t i = 0; i < s->head.kept_n; i++)
        ops[i] = get_key(history_key(&l->op.mem, s->head.kept[i].revision));
    op_submit(&l->op, list_done, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = ops, .then_n = s->head.kept_n}});
}

static void past_absent(struct objstore_back *b, struct objstore_past *p, struct slice key)
{
    enum obj_kind k;
    struct slice ns, name;
    if (!object_key_parse(key, &k, &ns, &name))
        return; /* nobody can have it now either */
    ARRAY_GROW(MEM_MANIFEST, p->absent, p->absent_n, p->absent_cap);
    p->absent[p->absent_n++] = (struct objstore_ref){k, arena_slice(&b->op.mem, ns).p, arena_slice(&b->op.mem, name).p};
}

static void past_add(struct objstore_back *b, struct objstore_past *p, struct slice key, struct slice value)
{
    if (slice_is(value, "null"))
        past_absent(b, p, key);
    else if (objset_load_stored(p->set, key, value, b->op.store->conf.keys, "history can't be used beyond it", &b->diags) != OK)
        b->op.error = ERR_INVALID;
}

/* Keys come in the order of their revisions: of each object the first one behind b->revision counts. */
static void back_entries(struct objstore_back *b, const struct ctl_range_result *all)
{
    struct table seen = {0};
    for (size_t i = 0; i < all->n; i++) {
        struct slice rest, digits = slice_cut(behind(all->kvs[i].key, sizeof HISTORY - 1), '/', &rest);
        uint64_t revision;
        if (slice_u64(digits, REVISION_MAX, &revision) != OK)
            continue;
        if ((int64_t)revision == b->revision && !rest.n && summary_good(all->kvs[i].value))
            b->summary = (char *)(uintptr_t)arena_slice(&b->op.mem, all->kvs[i].value).p;
        else if ((int64_t)revision == b->revision && rest.n)
            past_add(b, &b->before, rest, all->kvs[i].value);
        else if (rest.n && !table_put(&seen, rest, b))
            past_add(b, &b->after, rest, all->kvs[i].value);
    }
    table_fini(&seen);
}

static bool back_reaches(const struct objstore_back *b, const struct head *h)
{
    int64_t oldest = h->kept_n ? h->kept[0].revision : h->revision + 1; /* of which there is history */
    return b->revision >= 1 && b->revision <= h->revision && b->revision >= oldest - (b->itself ? 0 : 1);
}

static void back_done(struct ctl_call *call)
{
    struct objstore_back *b = CONTAINER_OF(op_of(call), struct objstore_back, op);
    struct head h;
    int64_t mod;
    if (op_good(&b->op)) {
        const struct ctl_op_result *ops = call->result.txn.ops;
        bool good = head_of(&ops[0].range, &h, &mod);
        if (good && h.redo_parts) {
            b->op.error = ERR_AGAIN;
            buf_adds(&b->op.why, "a large change is being written");
        } else if (good && back_reaches(b, &h)) {
            back_entries(b, &ops[1].range);
        } else {
            b->op.error = ERR_NOTFOUND;
            buf_printf(&b->op.why, "there is no revision %" PRId64 " in history", b->revision);
            if (h.kept_n)
                buf_printf(&b->op.why, ": it has %" PRId64 " to %" PRId64, h.kept[0].revision, h.revision);
        }
        if (b->op.error == OK && b->itself && !b->summary) {
            b->op.error = ERR_INVALID;
            buf_printf(&b->op.why, "what the control store has about revision %" PRId64 " can't be read", b->revision);
        }
    }
    b->done(b);
}

void objstore_back(struct objstore *s, struct objstore_back *b)
{
    op_begin(s, &b->op);
    b->after.set = objset_new();
    b->before.set = objset_new();
    int64_t from = MIN(MAX(b->revision, 0), REVISION_MAX - 1) + !b->itself;
    b->ops[0] = get_key(HEAD_KEY);
    b->ops[1] = get_range(history_key(&b->op.mem, from), HISTORY_END);
    op_submit(&b->op, back_done, (struct ctl_op){.kind = CTL_TXN, .txn = {.then_ops = b->ops, .then_n = 2}});
}

void objstore_back_fini(struct objstore_back *b)
{
    objset_free(b->after.set);
    objset_free(b->before.set);
    mem_free(b->after.absent);
    mem_free(b->before.absent);
    diags_free(&b->diags);
    objstore_op_fini(&b->op);
}
