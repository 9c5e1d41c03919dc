/* merge.c - server-side apply, after Kubernetes' definition (KEP-555; structured-merge-diff is its reference).
 *
 * A set of fields is a tree in the form of managedFields ("FieldsV1"): a key f:NAME is a field, k:{...} the item of a list with these keys,
 * v:VALUE the item of a set, and "." the node itself where there is more below it. A node without anything below is in the set.
 *
 *     apply:    given --fields_of()--> what the manager means from now on
 *               live + given --merged--> what others gave stays; what changed and is another's is a conflict, or is taken with force
 *               what the manager meant before, does not mean now, and nobody else means, is removed
 *     update:   live + given --merged, null removes--> what changed is the manager's, and nobody else's any more
 *
 * Lists are merged by listmap.def. A list that lacks its keys, or has an item twice (a variable that is given twice, which the reader takes), is
 * taken as a whole where it is so. Sets of this object's own life (name, uid, status and the like) belong to nobody.
 *
 * Nothing here bounds depth or size: trees come from the reader, which does.
 */
#include "merge.h"

#include "plan_int.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <time.h>

/* ---- how a field is merged ---------------------------------------------------------------------------------------------------- */

enum merge_way { WAY_USUAL, WAY_LIST, WAY_SET, WAY_WHOLE };
static const struct merge_row {
    const char *kind, *path;
    enum merge_way way;
    const char *keys; /* of WAY_LIST */
} merge_rows[] = {
#define LIST(kind, path, keys) {kind, path, WAY_LIST, keys},
#define SET(kind, path) {kind, path, WAY_SET, ""},
#define WHOLE(kind, path) {kind, path, WAY_WHOLE, ""},
#include "listmap.def"
#undef LIST
#undef SET
#undef WHOLE
};

/* Where a walk through manifests is. */
struct place {
    const char *kind;
    struct buf path; /* "spec.template.spec.containers.*.ports" */
};

static size_t place_push(struct place *p, const char *key)
{
    size_t mark = p->path.n;
    buf_printf(&p->path, "%s%s", mark ? "." : "", key);
    return mark;
}

static void place_pop(struct place *p, size_t mark)
{
    p->path.n = mark;
    p->path.p[mark] = 0;
}

static bool row_matches(const struct merge_row *row, const struct place *p)
{
    static const char pod[] = "spec.template.spec";
    const char *path = p->path.p, *want = row->path;
    if (*row->kind && strcmp(row->kind, p->kind) != 0)
        return false;
    if (strncmp(want, "POD.", 4) == 0) {
        if (strncmp(path, pod, sizeof pod - 1) != 0)
            return false;
        path += sizeof pod - 1;
        want += 3;
    }
    return strcmp(path, want) == 0;
}

static const struct merge_row *row_here(const struct place *p)
{
    static const struct merge_row usual = {"", "", WAY_USUAL, ""};
    for (size_t i = 0; i < COUNT_OF(merge_rows); i++)
        if (row_matches(&merge_rows[i], p))
            return &merge_rows[i];
    return &usual;
}

/* The name of an item in a set of fields, "k:{"containerPort":80,"protocol":"TCP"}"; false: it lacks a key. */
static bool item_key(const struct merge_row *row, const json_t *item, struct buf *out)
{
    struct slice keys = slice_cstr(row->keys);
    buf_clear(out);
    buf_adds(out, row->way == WAY_SET ? "v:" : "k:{");
    if (row->way == WAY_SET) {
        if (json_is_string(item))
            buf_add_json(out, slice_cstr(json_string_value(item)));
        return json_is_string(item);
    }
    while (keys.n) {
        struct slice key = slice_cut(keys, ',', &keys);
        const json_t *value = json_object_getn(item, key.p, key.n);
        buf_printf(out, "%s\"%.*s\":", out->p[out->n - 1] == '{' ? "" : ",", SLICE_ARG(key));
        if (json_is_string(value))
            buf_add_json(out, slice_cstr(json_string_value(value)));
        else if (json_is_integer(value))
            buf_printf(out, "%lld", (long long)json_integer_value(value));
        else if (!value && slice_is(key, "protocol"))
            buf_adds(out, "\"TCP\""); /* the default in Kubernetes' schema, the only one of a key */
        else
            return false;
    }
    buf_addc(out, '}');
    return true;
}

/* Every item has its keys, and no two the same. */
static bool list_keyed(const struct merge_row *row, const json_t *list)
{
    static char mark;
    struct table seen = {0};
    struct buf key = {0};
    bool good = (row->way == WAY_LIST || row->way == WAY_SET) && json_is_array(list);
    for (size_t i = 0; good && i < json_array_size(list); i++)
        good = item_key(row, json_array_get(list, i), &key) && !table_put(&seen, buf_slice(&key), &mark);
    table_fini(&seen);
    buf_free(&key);
    return good;
}

/* Names of a list's items, which is keyed, to where they are: 1 for the first. table_fini(). */
static struct table list_names(const struct merge_row *row, const json_t *list)
{
    struct table names = {0};
    struct buf key = {0};
    for (size_t i = 0; i < json_array_size(list); i++)
        if (item_key(row, json_array_get(list, i), &key))
            table_put(&names, buf_slice(&key), (void *)(uintptr_t)(i + 1));
    buf_free(&key);
    return names;
}

static json_t *item_get(const json_t *list, const struct table *names, const struct buf *key)
{
    size_t at = (size_t)(uintptr_t)table_get(names, buf_slice(key));
    return at ? json_array_get(list, at - 1) : NULL;
}

/* ---- sets of fields ------------------------------------------------------------------------------------------------------------- */

static void put_new(json_t *o, const char *key, json_t *value) { MUST(json_object_set_new_nocheck(o, key, value) == 0); }
static bool set_has_self(const json_t *s) { return json_object_size(s) == 0 || json_object_get(s, "."); }
static bool set_has_below(const json_t *s) { return json_object_size(s) > (json_object_get(s, ".") ? 1u : 0u); }

static json_t *set_copy(const json_t *s)
{
    json_t *copy = json_deep_copy(s);
    MUST(copy);
    return copy;
}

/* a := a + b */
static void set_add(json_t *a, const json_t *b)
{
    const char *key;
    json_t *theirs;
    if (set_has_self(b) && set_has_below(b) && !json_object_get(a, "."))
        put_new(a, ".", json_object());
    json_object_foreach ((json_t *)(uintptr_t)b, key, theirs) {
        json_t *ours = json_object_get(a, key);
        if (strcmp(key, ".") == 0)
            continue;
        if (!ours) {
            put_new(a, key, set_copy(theirs));
            continue;
        }
        bool self = set_has_self(ours) || set_has_self(theirs);
        set_add(ours, theirs);
        if (self && set_has_below(ours) && !json_object_get(ours, "."))
            put_new(ours, ".", json_object());
    }
}

/* a := a - b. What is below a node that is in b as a whole (it was replaced) goes as well; what contains a node of b stays. */
static void set_remove(json_t *a, const json_t *b)
{
    const char *key;
    void *next;
    json_t *ours;
    json_object_foreach_safe (a, next, key, ours) {
        const json_t *theirs = json_object_get(b, key);
        if (!theirs || strcmp(key, ".") == 0)
            continue;
        if (!set_has_below(theirs)) {
            json_object_del(a, key);
            continue;
        }
        if (!set_has_below(ours)) {
            if (set_has_self(theirs))
                json_object_del(a, key);
            continue;
        }
        if (json_object_get(theirs, "."))
            json_object_del(ours, ".");
        set_remove(ours, theirs);
        if (!json_object_size(ours))
            json_object_del(a, key);
    }
}

/* Fields of b that a, a set of changes, touches: each with its path, by tell(). */
struct touch {
    void (*tell)(void *ctx, const char *path);
    void *ctx;
    struct buf path;
};

/* ".ports[containerPort=80,protocol="TCP"]": as structured-merge-diff writes paths. */
static void path_add(struct buf *path, const char *key)
{
    if (strncmp(key, "f:", 2) == 0) {
        buf_printf(path, ".%s", key + 2);
    } else if (strncmp(key, "k:", 2) == 0) {
        json_t *keys = json_loads(key + 2, 0, NULL), *value;
        const char *name;
        buf_addc(path, '[');
        json_object_foreach (keys, name, value) {
            buf_printf(path, "%s%s=", path->p[path->n - 1] == '[' ? "" : ",", name);
            if (json_is_string(value))
                buf_add_json(path, slice_cstr(json_string_value(value)));
            else
                buf_printf(path, "%lld", (long long)json_integer_value(value));
        }
        buf_addc(path, ']');
        json_decref(keys);
    } else {
        buf_printf(path, "[%s]", key + MIN(strlen(key), 2u));
    }
}

static void touch_all(struct touch *t, const json_t *b)
{
    const char *key;
    json_t *below;
    if (!set_has_below(b)) {
        t->tell(t->ctx, t->path.p);
        return;
    }
    json_object_foreach ((json_t *)(uintptr_t)b, key, below) {
        size_t mark = t->path.n;
        if (strcmp(key, ".") == 0)
            continue;
        path_add(&t->path, key);
        touch_all(t, below);
        t->path.p[t->path.n = mark] = 0;
    }
}

static void touch_each(struct touch *t, const json_t *a, const json_t *b)
{
    const char *key;
    json_t *ours;
    json_object_foreach ((json_t *)(uintptr_t)a, key, ours) {
        const json_t *theirs = json_object_get(b, key);
        size_t mark = t->path.n;
        if (!theirs || strcmp(key, ".") == 0)
            continue;
        path_add(&t->path, key);
        if (!set_has_below(ours))
            touch_all(t, theirs);
        else if (set_has_self(ours) && set_has_self(theirs))
            t->tell(t->ctx, t->path.p);
        else
            touch_each(t, ours, theirs);
        t->path.p[t->path.n = mark] = 0;
    }
}

/* ---- the fields of a manifest ------------------------------------------------------------------------------------------------------ */

static json_t *fields_of_map(struct place *p, const json_t *map);

static json_t *fields_of_list(struct place *p, const struct merge_row *row, const json_t *list)
{
    json_t *set = json_object();
    struct buf key = {0};
    size_t mark = place_push(p, "*");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        bool keyed = item_key(row, item, &key); /* it was asked of the list */
        json_t *below = row->way == WAY_LIST && keyed ? fields_of_map(p, item) : json_object();
        if (json_object_size(below))
            put_new(below, ".", json_object());
        put_new(set, key.p, below);
    }
    place_pop(p, mark);
    buf_free(&key);
    return set;
}

static json_t *fields_of(struct place *p, const json_t *value)
{
    const struct merge_row *row = row_here(p);
    if (json_is_object(value) && row->way != WAY_WHOLE)
        return fields_of_map(p, value);
    if (json_is_array(value) && list_keyed(row, value))
        return fields_of_list(p, row, value);
    return json_object();
}

static void put_field(json_t *set, const char *key, json_t *below)
{
    struct buf name = {0};
    buf_printf(&name, "f:%s", key);
    put_new(set, name.p, below);
    buf_free(&name);
}

static json_t *fields_of_map(struct place *p, const json_t *map)
{
    const char *key;
    json_t *value, *set = json_object();
    json_object_foreach ((json_t *)(uintptr_t)map, key, value) {
        size_t mark = place_push(p, key);
        if (!json_is_null(value))
            put_field(set, key, fields_of(p, value));
        place_pop(p, mark);
    }
    return set;
}

/* What is nobody's: it says which object this is, or is written by the node. */
static void set_strip(json_t *set)
{
    static const char *const top[] = {"f:apiVersion", "f:kind", "f:status"};
    static const char *const meta[] = {"f:name", "f:namespace", "f:creationTimestamp", "f:deletionTimestamp", "f:generation", "f:managedFields", "f:resourceVersion", "f:selfLink", "f:uid"};
    json_t *m = json_object_get(set, "f:metadata");
    for (size_t i = 0; i < COUNT_OF(top); i++)
        json_object_del(set, top[i]);
    for (size_t i = 0; i < COUNT_OF(meta); i++)
        json_object_del(m, meta[i]);
    if (m && !json_object_size(m))
        json_object_del(set, "f:metadata");
}

/* ---- merging ------------------------------------------------------------------------------------------------------------------------- */

/* A copy of what is given for the first time: without null, which is the same as nothing. */
static json_t *given_copy(const json_t *value)
{
    const char *key;
    json_t *v, *copy;
    if (json_is_object(value)) {
        copy = json_object();
        json_object_foreach ((json_t *)(uintptr_t)value, key, v)
            if (!json_is_null(v))
                put_new(copy, key, given_copy(v));
    } else if (json_is_array(value)) {
        copy = json_array();
        for (size_t i = 0; i < json_array_size(value); i++)
            MUST(json_array_append_new(copy, given_copy(json_array_get(value, i))) == 0);
    } else {
        copy = json_deep_copy(value);
        MUST(copy);
    }
    return copy;
}

static json_t *merged(struct place *p, const json_t *live, const json_t *given, bool patch);

static json_t *merged_map(struct place *p, const json_t *live, const json_t *given, bool patch)
{
    const char *key;
    json_t *value, *out = json_object();
    json_object_foreach ((json_t *)(uintptr_t)live, key, value) {
        const json_t *theirs = json_object_get(given, key);
        size_t mark = place_push(p, key);
        if (!theirs || (json_is_null(theirs) && !patch))
            put_new(out, key, json_deep_copy(value));
        else if (!json_is_null(theirs))
            put_new(out, key, merged(p, value, theirs, patch));
        place_pop(p, mark);
    }
    json_object_foreach ((json_t *)(uintptr_t)given, key, value)
        if (!json_object_get(live, key) && !json_is_null(value))
            put_new(out, key, given_copy(value));
    return out;
}

/* Items of live that are not given, each behind the given one that it follows: first[i] is the first behind given[i - 1], next[] goes on; 1 is live[0]. */
struct followers {
    size_t *first, *last; /* one more than there are given */
    size_t *next;         /* one more than live has */
};

static void followers_find(const struct merge_row *row, const json_t *live, const struct table *given, struct followers *f)
{
    struct buf key = {0};
    size_t behind = 0;
    for (size_t i = 0; i < json_array_size(live); i++) {
        size_t at = item_key(row, json_array_get(live, i), &key) ? (size_t)(uintptr_t)table_get(given, buf_slice(&key)) : 0;
        if (at) {
            behind = at;
            continue;
        }
        *(f->first[behind] ? &f->next[f->last[behind]] : &f->first[behind]) = i + 1;
        f->last[behind] = i + 1;
    }
    buf_free(&key);
}

/* The items that are given come in their order; each of the others stays behind the one that it followed. */
static json_t *merged_list(struct place *p, const struct merge_row *row, const json_t *live, const json_t *given, bool patch)
{
    json_t *out = json_array();
    struct buf key = {0};
    size_t mark = place_push(p, "*"), n = json_array_size(given);
    struct table old = list_names(row, live), new = list_names(row, given);
    struct followers f = {.first = mem_new(MEM_MANIFEST, (n + 1) * 2 * sizeof(size_t)), .next = mem_new(MEM_MANIFEST, (json_array_size(live) + 1) * sizeof(size_t))};
    f.last = f.first + n + 1;
    followers_find(row, live, &new, &f);
    for (size_t i = 0; i <= n; i++) {
        const json_t *item = i ? json_array_get(given, i - 1) : NULL;
        const json_t *was = i && item_key(row, item, &key) ? item_get(live, &old, &key) : NULL;
        if (i)
            MUST(json_array_append_new(out, was ? merged(p, was, item, patch) : given_copy(item)) == 0);
        for (size_t k = f.first[i]; k; k = f.next[k])
            MUST(json_array_append_new(out, json_deep_copy(json_array_get(live, k - 1))) == 0);
    }
    mem_free(f.first);
    mem_free(f.next);
    table_fini(&old);
    table_fini(&new);
    place_pop(p, mark);
    buf_free(&key);
    return out;
}

static json_t *merged(struct place *p, const json_t *live, const json_t *given, bool patch)
{
    const struct merge_row *row = row_here(p);
    if (json_is_object(live) && json_is_object(given) && row->way != WAY_WHOLE)
        return merged_map(p, live, given, patch);
    if (list_keyed(row, live) && list_keyed(row, given))
        return merged_list(p, row, live, given, patch);
    return given_copy(given);
}

/* ---- what has changed ------------------------------------------------------------------------------------------------------------------ */

static void changed_map(struct place *p, const json_t *a, const json_t *b, json_t *set);

static void changed_list(struct place *p, const struct merge_row *row, const json_t *a, const json_t *b, json_t *set)
{
    struct buf key = {0};
    struct table names = list_names(row, a);
    size_t mark = place_push(p, "*");
    for (size_t i = 0; i < json_array_size(b); i++) {
        const json_t *item = json_array_get(b, i);
        const json_t *old = item_key(row, item, &key) ? item_get(a, &names, &key) : NULL;
        json_t *below = json_object();
        if (!old) {
            if (row->way == WAY_LIST) {
                json_decref(below);
                below = fields_of_map(p, item);
                put_new(below, ".", json_object());
            }
            put_new(set, key.p, below);
            continue;
        }
        if (row->way == WAY_LIST)
            changed_map(p, old, item, below);
        if (json_object_size(below))
            put_new(set, key.p, json_incref(below));
        json_decref(below);
    }
    place_pop(p, mark);
    table_fini(&names);
    buf_free(&key);
}

/* Fields of b that a has not, or has with another value. */
static void changed_map(struct place *p, const json_t *a, const json_t *b, json_t *set)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)b, key, value) {
        const json_t *old = json_object_get(a, key);
        size_t mark = place_push(p, key);
        const struct merge_row *row = row_here(p);
        json_t *below = NULL;
        if (json_is_null(value)) {
            place_pop(p, mark);
            continue;
        }
        if (!old || json_is_null(old)) {
            put_field(set, key, fields_of(p, value));
        } else if (json_is_object(old) && json_is_object(value) && row->way != WAY_WHOLE) {
            below = json_object();
            changed_map(p, old, value, below);
        } else if (list_keyed(row, old) && list_keyed(row, value)) {
            below = json_object();
            changed_list(p, row, old, value, below);
        } else if (!json_equal(old, value)) {
            put_field(set, key, json_object());
        }
        if (json_object_size(below))
            put_field(set, key, json_incref(below));
        json_decref(below);
        place_pop(p, mark);
    }
}

static json_t *changed(struct place *p, const json_t *a, const json_t *b)
{
    json_t *set = json_object();
    changed_map(p, a, b, set);
    set_strip(set);
    return set;
}

/* ---- what is not meant any more ---------------------------------------------------------------------------------------------------------- */

/* Removes from the value what is in gone and not in keep. True: nothing is left of it. */
static bool prune(struct place *p, json_t *value, const json_t *gone, const json_t *keep);

static void prune_map(struct place *p, json_t *map, const json_t *gone, const json_t *keep)
{
    const char *name;
    json_t *below;
    json_object_foreach ((json_t *)(uintptr_t)gone, name, below) {
        json_t *value = strncmp(name, "f:", 2) == 0 ? json_object_get(map, name + 2) : NULL;
        const json_t *kept = json_object_get(keep, name);
        if (!value)
            continue;
        size_t mark = place_push(p, name + 2);
        bool empty = set_has_below(below) && prune(p, value, below, kept);
        place_pop(p, mark);
        if (set_has_self(below) || empty) {
            if (!kept || (empty && !set_has_self(kept)))
                json_object_del(map, name + 2);
        }
    }
}

static void prune_list(struct place *p, const struct merge_row *row, json_t *list, const json_t *gone, const json_t *keep)
{
    struct buf key = {0};
    size_t mark = place_push(p, "*");
    for (size_t i = json_array_size(list); i-- > 0;) {
        const json_t *below = item_key(row, json_array_get(list, i), &key) ? json_object_get(gone, key.p) : NULL;
        const json_t *kept = json_object_get(keep, key.p);
        if (!below)
            continue;
        if (!kept && set_has_self(below))
            json_array_remove(list, i);
        else if (set_has_below(below))
            (void)prune(p, json_array_get(list, i), below, kept);
    }
    place_pop(p, mark);
    buf_free(&key);
}

static bool prune(struct place *p, json_t *value, const json_t *gone, const json_t *keep)
{
    const struct merge_row *row = row_here(p);
    if (json_is_object(value) && row->way != WAY_WHOLE) {
        prune_map(p, value, gone, keep);
        return json_object_size(value) == 0;
    }
    if (!list_keyed(row, value))
        return false; /* it is another thing now than what was owned */
    prune_list(p, row, value, gone, keep);
    return json_array_size(value) == 0;
}

/* ---- managers --------------------------------------------------------------------------------------------------------------------------- */

/* One entry of managedFields. */
struct owner {
    char *name;
    bool update;
    char *version, *time; /* apiVersion; when its fields last changed */
    json_t *fields;
};
struct owners {
    struct owner items[MERGE_MANAGERS_MAX];
    size_t n;
};

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void owner_fini(struct owner *o)
{
    mem_free(o->name);
    mem_free(o->version);
    mem_free(o->time);
    json_decref(o->fields);
}

static void owners_fini(struct owners *all)
{
    for (size_t i = 0; i < all->n; i++)
        owner_fini(&all->items[i]);
}

static char *time_text(uint64_t ns)
{
    time_t s = (time_t)(ns / 1000000000u);
    struct tm tm;
    char text[40];
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&s, &tm));
    return mem_strndup(MEM_MANIFEST, text, n);
}

/* NULL: there are too many. */
static struct owner *owner_get(struct owners *all, const char *name, bool update, bool make)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->items[i].update == update && strcmp(all->items[i].name, name) == 0)
            return &all->items[i];
    if (!make || all->n == MERGE_MANAGERS_MAX)
        return NULL;
    struct owner *o = &all->items[all->n++];
    *o = (struct owner){.name = mem_strdup(MEM_MANIFEST, name), .update = update, .version = mem_strdup(MEM_MANIFEST, ""), .time = mem_strdup(MEM_MANIFEST, ""), .fields = json_object()};
    return o;
}

/* What the store has there may have been written by anybody: in a set every node is an object. */
static void set_clean(json_t *set)
{
    const char *key;
    void *next;
    json_t *below;
    json_object_foreach_safe (set, next, key, below) {
        if (json_is_object(below))
            set_clean(below);
        else
            put_new(set, key, json_object());
    }
}

/* What MERGE_MANAGER owns when nothing is said. */
static json_t *fields_implied(const json_t *manifest)
{
    struct place p = {.kind = text_of(manifest, "kind")};
    buf_adds(&p.path, "");
    json_t *set = fields_of_map(&p, manifest);
    set_strip(set);
    buf_free(&p.path);
    return set;
}

/* Who owns what of live. An object that does not say it was applied by MERGE_MANAGER alone, or by a version of Weir that had no owners. */
static void owners_read(const json_t *live, struct owners *all)
{
    const json_t *list = json_object_get(json_object_get(live, "metadata"), "managedFields");
    for (size_t i = 0; i < json_array_size(list) && all->n < MERGE_MANAGERS_MAX; i++) {
        const json_t *e = json_array_get(list, i), *means = json_object_get(e, "fieldsV1");
        struct owner *o = json_is_object(means) ? owner_get(all, text_of(e, "manager"), strcmp(text_of(e, "operation"), "Update") == 0, true) : NULL;
        if (!o)
            continue;
        mem_free(o->version);
        mem_free(o->time);
        o->version = mem_strdup(MEM_MANIFEST, text_of(e, "apiVersion"));
        o->time = mem_strdup(MEM_MANIFEST, text_of(e, "time"));
        json_t *clean = set_copy(means);
        set_clean(clean);
        set_add(o->fields, clean);
        json_decref(clean);
    }
    if (live && !json_is_array(list)) {
        struct owner *o = owner_get(all, MERGE_MANAGER, false, true);
        json_decref(o->fields);
        o->fields = fields_implied(live);
    }
}

/* One owner of everything, the usual one. */
static bool owners_implied(const struct owners *all, const json_t *manifest)
{
    const struct owner *only = NULL;
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++)
        if (json_object_size(all->items[i].fields)) {
            only = &all->items[i];
            n++;
        }
    if (n != 1 || only->update || strcmp(only->name, MERGE_MANAGER) != 0)
        return false;
    json_t *implied = fields_implied(manifest);
    bool same = json_equal(implied, only->fields);
    json_decref(implied);
    return same;
}

static json_t *owner_json(const char *name, bool update, const char *version, const char *time, json_t *means)
{
    json_t *e = json_object();
    put_new(e, "manager", json_string(name));
    put_new(e, "operation", json_string(update ? "Update" : "Apply"));
    put_new(e, "apiVersion", json_string(version));
    if (time)
        put_new(e, "time", json_string(time));
    put_new(e, "fieldsType", json_string("FieldsV1"));
    put_new(e, "fieldsV1", json_incref(means));
    return e;
}

json_t *merge_owners(const json_t *manifest)
{
    json_t *list = json_object_get(json_object_get(manifest, "metadata"), "managedFields");
    if (json_is_array(list))
        return json_incref(list);
    json_t *means = fields_implied(manifest);
    list = json_array();
    MUST(json_array_append_new(list, owner_json(MERGE_MANAGER, false, text_of(manifest, "apiVersion"), NULL, means)) == 0);
    json_decref(means);
    return list;
}

static void owners_write(const struct owners *all, json_t *manifest)
{
    if (owners_implied(all, manifest))
        return;
    json_t *list = json_array(), *meta = json_object_get(manifest, "metadata");
    for (size_t i = 0; i < all->n; i++) {
        const struct owner *o = &all->items[i];
        if (json_object_size(o->fields))
            MUST(json_array_append_new(list, owner_json(o->name, o->update, o->version, *o->time ? o->time : NULL, o->fields)) == 0);
    }
    put_new(meta, "managedFields", list);
}

/* The owner's fields are these from now on. */
static void owner_set(struct owner *o, json_t *means, const json_t *manifest, uint64_t now_ns)
{
    bool same = *o->time && json_equal(o->fields, means) && strcmp(o->version, text_of(manifest, "apiVersion")) == 0;
    json_decref(o->fields);
    o->fields = means;
    if (same)
        return;
    mem_free(o->version);
    mem_free(o->time);
    o->version = mem_strdup(MEM_MANIFEST, text_of(manifest, "apiVersion"));
    o->time = time_text(now_ns);
}

/* ---- conflicts ----------------------------------------------------------------------------------------------------------------------------- */

struct conflict_of {
    struct merge_conflicts *c;
    const char *manager;
};

static void conflict_tell(void *ctx, const char *path)
{
    struct conflict_of *of = ctx;
    struct merge_conflicts *c = of->c;
    if (c->n++ >= MERGE_CONFLICTS_MAX)
        return;
    ARRAY_GROW(MEM_MANIFEST, c->items, c->kept, c->cap);
    c->items[c->kept++] = (struct merge_conflict){.manager = mem_strdup(MEM_MANIFEST, of->manager), .field = mem_strdup(MEM_MANIFEST, path)};
}

void merge_conflicts_free(struct merge_conflicts *c)
{
    for (size_t i = 0; i < c->kept; i++) {
        mem_free(c->items[i].kind);
        mem_free(c->items[i].ns);
        mem_free(c->items[i].name);
        mem_free(c->items[i].manager);
        mem_free(c->items[i].field);
    }
    mem_free(c->items);
    *c = (struct merge_conflicts){0};
}

static void conflicts_find(const struct owners *all, const struct owner *me, const json_t *changes, struct merge_conflicts *c)
{
    for (size_t i = 0; i < all->n; i++) {
        struct conflict_of of = {.c = c, .manager = all->items[i].name};
        struct touch t = {.tell = conflict_tell, .ctx = &of};
        if (&all->items[i] == me)
            continue;
        buf_adds(&t.path, "");
        touch_each(&t, changes, all->items[i].fields);
        buf_free(&t.path);
    }
}

/* ---- apply and update ---------------------------------------------------------------------------------------------------------------------- */

bool merge_manager_valid(struct slice name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((uint8_t)name.p[i] < 0x21 || (uint8_t)name.p[i] > 0x7e)
            return false;
    return name.n > 0 && name.n <= MERGE_MANAGER_CHARS_MAX;
}

/* Kubernetes does this when a Secret is written: what stringData gives is in data, in base64, and wins there. */
static void secret_fold(json_t *manifest)
{
    const char *key;
    json_t *value, *strings = json_object_get(manifest, "stringData");
    if (strcmp(text_of(manifest, "kind"), "Secret") != 0 || !strings)
        return;
    if (!json_is_object(json_object_get(manifest, "data")))
        put_new(manifest, "data", json_object());
    json_object_foreach (strings, key, value) {
        size_t n = json_string_length(value);
        struct buf text = {0};
        buf_reserve(&text, (n + 2) / 3 * 4 + 1);
        if (json_is_string(value))
            text.n = (size_t)EVP_EncodeBlock((unsigned char *)text.p, (const unsigned char *)json_string_value(value), (int)n);
        if (json_is_string(value) || json_is_null(value))
            put_new(json_object_get(manifest, "data"), key, json_is_null(value) ? json_null() : json_stringn(text.p, text.n));
        buf_free(&text);
    }
    json_object_del(manifest, "stringData");
}

/* A manifest as it takes part in merging. */
static json_t *taken(const json_t *manifest)
{
    json_t *copy = json_deep_copy(manifest);
    MUST(copy);
    json_object_del(copy, "status");
    secret_fold(copy);
    return copy;
}

static enum err apply(struct place *p, const json_t *live, const json_t *given, const struct merge_conf *conf, struct owners *all, json_t *out, struct merge_conflicts *c)
{
    struct owner *me = owner_get(all, conf->manager, false, true);
    if (!me)
        return ERR_LIMIT;
    json_t *changes = changed(p, live, out), *means = fields_of_map(p, given), *keep;
    size_t before = c->n;
    set_strip(means);
    if (!conf->force)
        conflicts_find(all, me, changes, c);
    if (c->n > before) {
        json_decref(changes);
        json_decref(means);
        return ERR_INUSE;
    }
    keep = set_copy(means);
    for (size_t i = 0; i < all->n; i++) {
        struct owner *o = &all->items[i];
        if (o == me)
            continue;
        set_remove(o->fields, changes);
        set_add(keep, o->fields);
    }
    prune_map(p, out, me->fields, keep);
    owner_set(me, means, given, conf->now_ns);
    json_decref(changes);
    json_decref(keep);
    return OK;
}

static enum err update(struct place *p, const json_t *live, const json_t *given, const struct merge_conf *conf, struct owners *all, json_t *out)
{
    json_t *changes = changed(p, live, out), *gone = changed(p, out, live ? live : json_null());
    enum err e = OK;
    if (json_object_size(changes) || json_object_size(gone)) {
        struct owner *me = owner_get(all, conf->manager, true, true);
        for (size_t i = 0; i < all->n; i++) {
            set_remove(all->items[i].fields, changes);
            set_remove(all->items[i].fields, gone);
        }
        if (me) {
            json_t *means = set_copy(me->fields);
            set_add(means, changes);
            owner_set(me, means, given, conf->now_ns);
        } else {
            e = ERR_LIMIT;
        }
    }
    json_decref(changes);
    json_decref(gone);
    return e;
}

enum err merge_manifest(const json_t *live, const json_t *given, const struct merge_conf *conf, json_t **out, struct merge_conflicts *c)
{
    struct place p = {.kind = text_of(given, "kind")};
    struct owners *all = mem_new(MEM_MANIFEST, sizeof *all);
    json_t *old = live ? taken(live) : NULL, *wanted = taken(given);
    buf_adds(&p.path, "");
    json_object_del(json_object_get(wanted, "metadata"), "managedFields"); /* they are the node's */
    owners_read(old, all);
    json_object_del(json_object_get(old, "metadata"), "managedFields");
    json_t *both = old ? merged_map(&p, old, wanted, conf->patch) : given_copy(wanted);
    enum err e = conf->patch ? update(&p, old, wanted, conf, all, both) : apply(&p, old, wanted, conf, all, both, c);
    if (e == OK)
        owners_write(all, *out = both);
    else
        json_decref(both);
    owners_fini(all);
    mem_free(all);
    json_decref(old);
    json_decref(wanted);
    buf_free(&p.path);
    return e;
}

/* ---- sets of objects ------------------------------------------------------------------------------------------------------------------------ */

static void conflicts_name(struct merge_conflicts *c, size_t from, const struct object *o)
{
    for (size_t i = from; i < c->kept; i++) {
        c->items[i].kind = mem_strdup(MEM_MANIFEST, obj_kind_name(o->kind));
        c->items[i].ns = mem_strdup(MEM_MANIFEST, o->ns);
        c->items[i].name = mem_strdup(MEM_MANIFEST, o->name);
    }
}

/* A new object in place of o, which is in a set: it is what o becomes on top of live. NULL: an error, or a conflict. */
static struct object *object_own(const struct object *o, const struct object *live, const struct merge_conf *conf, struct merge_conflicts *c, struct diags *d, enum err *e)
{
    json_t *given = json_loads(o->json, JSON_ALLOW_NUL, NULL), *old = live ? json_loads(live->json, JSON_ALLOW_NUL, NULL) : NULL, *both = NULL;
    const struct object *origin = (conf->patch || o->lacks) && live ? live : o; /* a part of an object says what changes, not where the object comes from */
    struct object_origin from = {.file = origin->file, .dir = origin->dir, .ns = o->ns, .line = origin->line, .column = origin->column};
    struct object *made = NULL;
    size_t kept = c->kept, errors = d->errors;
    *e = given && (!live || old) ? merge_manifest(old, given, conf, &both, c) : ERR_INVALID; /* numbers that JSON has no place for */
    conflicts_name(c, kept, o);
    if (*e == OK && !(made = object_from_json(both, &from, d)))
        *e = ERR_INVALID;
    if (*e != OK && *e != ERR_INUSE && d->errors == errors)
        diags_add(d, DIAG_ERROR, o->file, o->line, o->column, o->name, "apply it as one of those who own fields of it", "the %s can't be merged with what is there: %s", obj_kind_name(o->kind),
                  *e == ERR_LIMIT ? "too many different managers have applied to it" : err_text(*e));
    json_decref(given);
    json_decref(old);
    json_decref(both);
    return made;
}

static void diag_copy(struct diags *d, const struct diag *x, const struct diag *at)
{
    diags_add(d, x->level, at->file, at->line, at->column, x->where, x->remedy, "%s", x->reason);
}

/* What is wrong with the whole that o, a part, would have made: told where the part has it, if it has it as well, else where it begins. */
static void tell_whole(struct diags *d, const struct diags *whole, const struct object *o)
{
    const struct diags *part = o->lacks;
    const struct diag begin = {.file = o->file, .line = o->line, .column = o->column};
    for (size_t i = 0; i < whole->n; i++) {
        const struct diag *x = &whole->items[i], *at = &begin;
        for (size_t k = 0; k < part->n && at == &begin; k++)
            if (strcmp(part->items[k].where, x->where) == 0 && strcmp(part->items[k].reason, x->reason) == 0)
                at = &part->items[k];
        diag_copy(d, x, at);
    }
}

static void tell_part(struct diags *d, const struct diags *part, bool errors)
{
    for (size_t i = 0; i < part->n; i++)
        if (errors || part->items[i].level != DIAG_ERROR)
            diag_copy(d, &part->items[i], &part->items[i]);
}

/* The same of a part of an object: there must be the rest of it. */
static struct object *part_own(const struct object *o, const struct object *live, const struct merge_conf *conf, struct merge_conflicts *c, struct diags *d, enum err *e)
{
    struct diags whole = {0};
    struct object *made = NULL;
    *e = ERR_INVALID;
    if (live)
        made = object_own(o, live, conf, c, &whole, e);
    tell_part(d, o->lacks, !live);
    tell_whole(d, &whole, o);
    diags_free(&whole);
    return made;
}

enum err objset_own(struct objset *given, const struct objset *live, const struct merge_conf *conf, struct merge_conflicts *c, struct diags *d)
{
    enum err result = OK;
    for (size_t i = 0; i < given->n; i++) {
        const struct object *o = given->items[i];
        enum err e;
        const struct object *there = objset_find(live, o->kind, o->ns, o->name);
        struct object *made = o->lacks ? part_own(o, there, conf, c, d, &e) : object_own(o, there, conf, c, d, &e);
        if (made)
            objset_put(given, made); /* takes o's place */
        result = result == OK || e == ERR_INVALID ? e : result;
    }
    return d->errors && result == OK ? ERR_INVALID : result;
}
