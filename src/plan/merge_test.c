/* merge_test.c - server-side apply, against what Kubernetes does: each case is a life of an object, step by step, with what it is after each of them, who
 * owns what, and which conflicts there are.
 */
#include "merge.h"

#include "plan_int.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- lives ---------------------------------------------------------------------------------------------------------------------- */

enum how { APPLY, FORCE, PATCH };
struct step {
    const char *manager;
    enum how how;
    const char *given;     /* what is behind apiVersion, kind and metadata.name: "data":{...}; single quotes stand for double ones */
    const char *conflicts; /* "manager .field" each, with a space between; NULL: none, and it succeeds */
    const char *after;     /* the object then, the same part of it; NULL: as before */
    const char *owners;    /* "manager/operation:fields" each, with a space between; NULL: not looked at */
};

static void quotes(const char *s, struct buf *out)
{
    for (; *s; s++)
        buf_addc(out, *s == '\'' ? '"' : *s);
}

static json_t *manifest(const char *kind, const char *part)
{
    struct buf b = {0};
    buf_printf(&b, "{\"apiVersion\":\"%s\",\"kind\":\"%s\",\"metadata\":{\"name\":\"x\"}%s", strcmp(kind, "Deployment") == 0 ? "apps/v1" : "v1", kind, *part ? "," : "");
    quotes(part, &b);
    buf_addc(&b, '}');
    json_t *j = json_loads(b.p, 0, NULL);
    if (!j)
        fail_msg("not JSON: %s", b.p);
    buf_free(&b);
    return j;
}

static char *dumped(const json_t *j) { return json_dumps(j, JSON_COMPACT); }

/* The object without what every manifest of this test has. */
static void shown(const json_t *object, struct buf *out)
{
    json_t *copy = json_deep_copy(object);
    json_object_del(copy, "apiVersion");
    json_object_del(copy, "kind");
    json_t *meta = json_object_get(copy, "metadata");
    json_object_del(meta, "name");
    json_object_del(meta, "managedFields");
    if (!json_object_size(meta))
        json_object_del(copy, "metadata");
    char *text = dumped(copy);
    buf_add(out, text + 1, strlen(text) - 2);
    free(text);
    json_decref(copy);
}

static void owners_shown(const json_t *object, struct buf *out)
{
    size_t i;
    json_t *e, *list = merge_owners(object);
    json_array_foreach (list, i, e) {
        char *text = dumped(json_object_get(e, "fieldsV1"));
        buf_printf(out, "%s%s/%s:%s", out->n ? " " : "", json_string_value(json_object_get(e, "manager")), json_string_value(json_object_get(e, "operation")), text);
        assert_string_equal(json_string_value(json_object_get(e, "fieldsType")), "FieldsV1");
        if (json_object_get(e, "time"))
            assert_string_equal(json_string_value(json_object_get(e, "time")), "2026-11-22T00:00:00Z");
        free(text);
    }
    json_decref(list);
}

static void conflicts_shown(const struct merge_conflicts *c, struct buf *out)
{
    buf_adds(out, "");
    for (size_t i = 0; i < c->kept; i++)
        buf_printf(out, "%s%s %s", i ? " " : "", c->items[i].manager, c->items[i].field);
}

static void same_text(size_t step, const char *what, const char *want_quotes, const struct buf *got)
{
    struct buf want = {0};
    buf_adds(&want, "");
    quotes(want_quotes, &want);
    if (strcmp(want.p, got->p ? got->p : "") != 0)
        fail_msg("step %zu, %s:\n want %s\n got  %s", step + 1, what, want.p, got->p ? got->p : "");
    buf_free(&want);
}

static void live_on(const char *kind, const struct step *steps, size_t n)
{
    json_t *live = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct step *s = &steps[i];
        struct merge_conf conf = {.manager = s->manager, .force = s->how == FORCE, .patch = s->how == PATCH, .now_ns = 1795305600000000000u};
        struct merge_conflicts c = {0};
        struct buf conflicts = {0}, after = {0}, owners = {0};
        json_t *given = manifest(kind, s->given), *out = NULL, *kept = json_deep_copy(live);
        enum err e = merge_manifest(live, given, &conf, &out, &c);
        assert_true((!live && !kept) || json_equal(live, kept)); /* not written to */
        json_decref(kept);
        conflicts_shown(&c, &conflicts);
        same_text(i, "conflicts", s->conflicts ? s->conflicts : "", &conflicts);
        assert_int_equal(e, s->conflicts ? ERR_INUSE : OK);
        if (e == OK) {
            json_decref(live);
            live = out;
        }
        shown(live, &after);
        owners_shown(live, &owners);
        if (s->after)
            same_text(i, "after", s->after, &after);
        if (s->owners)
            same_text(i, "owners", s->owners, &owners);
        buf_free(&conflicts);
        buf_free(&after);
        buf_free(&owners);
        merge_conflicts_free(&c);
        json_decref(given);
    }
    json_decref(live);
}
#define LIFE(kind, ...)                              \
    do {                                             \
        const struct step steps[] = {__VA_ARGS__};   \
        live_on(kind, steps, COUNT_OF(steps));       \
    } while (0)

#define AB "'data':{'a':'1','b':'2'}"

/* ---- maps ------------------------------------------------------------------------------------------------------------------------- */

static void one_manager(void **state)
{
    LIFE("ConfigMap", {"weir", APPLY, AB, NULL, AB, "weir/Apply:{'f:data':{'f:a':{},'f:b':{}}}"},
         {"weir", APPLY, "'data':{'b':'3','c':'4'}", NULL, "'data':{'b':'3','c':'4'}", "weir/Apply:{'f:data':{'f:b':{},'f:c':{}}}"}, /* what is left out goes */
         {"weir", APPLY, "'data':{'c':'4','b':'3'}", NULL, "'data':{'b':'3','c':'4'}", NULL},                                        /* another order is no change */
         {"weir", APPLY, "'data':{'b':'3','c':null}", NULL, "'data':{'b':'3'}", "weir/Apply:{'f:data':{'f:b':{}}}"},                 /* null is nothing */
         {"weir", APPLY, "", NULL, "", ""}, /* a map that this emptied goes with its last key */
         {"weir", APPLY, "'data':{}", NULL, "'data':{}", "weir/Apply:{'f:data':{}}"});
    (void)state;
}

static void two_managers(void **state)
{
    LIFE("ConfigMap", {"one", APPLY, AB, NULL, AB, NULL},
         {"two", APPLY, "'data':{'c':'3'}", NULL, "'data':{'a':'1','b':'2','c':'3'}", "one/Apply:{'f:data':{'f:a':{},'f:b':{}}} two/Apply:{'f:data':{'f:c':{}}}"},
         {"two", APPLY, "'data':{'a':'9','b':'8','c':'3'}", "one .data.a one .data.b", "'data':{'a':'1','b':'2','c':'3'}", NULL},
         {"two", APPLY, "'data':{'a':'1','c':'3'}", NULL, "'data':{'a':'1','b':'2','c':'3'}", "one/Apply:{'f:data':{'f:a':{},'f:b':{}}} two/Apply:{'f:data':{'f:a':{},'f:c':{}}}"}, /* the same value is shared */
         {"one", APPLY, "'data':{'a':'7','b':'2'}", "two .data.a", NULL, NULL},                                                 /* each is asked */
         {"one", APPLY, "'data':{'b':'2'}", NULL, "'data':{'a':'1','b':'2','c':'3'}", "one/Apply:{'f:data':{'f:b':{}}} two/Apply:{'f:data':{'f:a':{},'f:c':{}}}"}, /* left to the other */
         {"one", FORCE, "'data':{'a':'7','b':'2'}", NULL, "'data':{'a':'7','b':'2','c':'3'}", "one/Apply:{'f:data':{'f:a':{},'f:b':{}}} two/Apply:{'f:data':{'f:c':{}}}"},
         {"two", APPLY, "'data':{'c':'3'}", NULL, "'data':{'a':'7','b':'2','c':'3'}", NULL}, /* it has lost a: leaving it out removes nothing */
         {"two", APPLY, "", NULL, "'data':{'a':'7','b':'2'}", "one/Apply:{'f:data':{'f:a':{},'f:b':{}}}"});
    (void)state;
}

static void updates(void **state)
{
    LIFE("ConfigMap", {"weir", APPLY, AB, NULL, NULL, NULL},
         {"weir-config", PATCH, "'data':{'a':'5','c':'6'}", NULL, "'data':{'a':'5','b':'2','c':'6'}",
          "weir/Apply:{'f:data':{'f:b':{}}} weir-config/Update:{'f:data':{'f:a':{},'f:c':{}}}"},
         {"weir-config", PATCH, "'data':{'b':'2'}", NULL, "'data':{'a':'5','b':'2','c':'6'}",
          "weir/Apply:{'f:data':{'f:b':{}}} weir-config/Update:{'f:data':{'f:a':{},'f:c':{}}}"}, /* it changes nothing, so it owns nothing */
         {"weir", APPLY, AB, "weir-config .data.a", NULL, NULL},
         {"weir", APPLY, "'data':{'a':'5','b':'2'}", NULL, "'data':{'a':'5','b':'2','c':'6'}",
          "weir/Apply:{'f:data':{'f:a':{},'f:b':{}}} weir-config/Update:{'f:data':{'f:a':{},'f:c':{}}}"},
         {"weir", FORCE, AB, NULL, "'data':{'a':'1','b':'2','c':'6'}", "weir/Apply:{'f:data':{'f:a':{},'f:b':{}}} weir-config/Update:{'f:data':{'f:c':{}}}"},
         {"weir-config", PATCH, "'data':{'b':null,'c':null,'d':null}", NULL, "'data':{'a':'1'}", "weir/Apply:{'f:data':{'f:a':{}}}"},
         {"weir", APPLY, AB, NULL, AB, NULL}); /* what nobody owns may be given again */
    LIFE("ConfigMap", {"weir-config", PATCH, "'data':{'a':'5'}", NULL, "'data':{'a':'5'}", "weir-config/Update:{'f:data':{'f:a':{}}}"});
    (void)state;
}

static void labels_and_annotations(void **state)
{
    LIFE("ConfigMap", {"one", APPLY, "'metadata':{'name':'x','labels':{'app.kubernetes.io/name':'a'},'uid':'u','creationTimestamp':'t'}", NULL,
                       "'metadata':{'labels':{'app.kubernetes.io/name':'a'},'uid':'u','creationTimestamp':'t'}", "one/Apply:{'f:metadata':{'f:labels':{'f:app.kubernetes.io/name':{}}}}"},
         {"two", APPLY, "'metadata':{'name':'x','labels':{'app.kubernetes.io/name':'b'}}", "one .metadata.labels.app.kubernetes.io/name", NULL, NULL},
         {"two", APPLY, "'metadata':{'name':'x','annotations':{'n':'1'},'finalizers':['two']}", NULL, NULL,
          "one/Apply:{'f:metadata':{'f:labels':{'f:app.kubernetes.io/name':{}}}} two/Apply:{'f:metadata':{'f:annotations':{'f:n':{}},'f:finalizers':{'v:\\'two\\'':{}}}}"},
         {"one", APPLY, "'metadata':{'name':'x','finalizers':['one']}", NULL, "'metadata':{'uid':'u','creationTimestamp':'t','annotations':{'n':'1'},'finalizers':['two','one']}", NULL},
         {"two", APPLY, "'metadata':{'name':'x'}", NULL, "'metadata':{'uid':'u','creationTimestamp':'t','finalizers':['one']}", "one/Apply:{'f:metadata':{'f:finalizers':{'v:\\'one\\'':{}}}}"});
    (void)state;
}

/* ---- lists ------------------------------------------------------------------------------------------------------------------------ */

#define POD(containers) "'spec':{'template':{'spec':{'containers':[" containers "]}}}"
#define WEB "'name':'web'"

static void containers_are_told_by_name(void **state)
{
    LIFE("Deployment", {"weir", APPLY, POD("{" WEB ",'image':'1'}"), NULL, NULL, "weir/Apply:{'f:spec':{'f:template':{'f:spec':{'f:containers':{'k:{\\'name\\':\\'web\\'}':{'f:name':{},'f:image':{},'.':{}}}}}}}"},
         {"mesh", APPLY, POD("{'name':'side','image':'s'}"), NULL, POD("{" WEB ",'image':'1'},{'name':'side','image':'s'}"), NULL},
         {"mesh", APPLY, POD("{" WEB ",'image':'2'},{'name':'side','image':'s'}"), "weir .spec.template.spec.containers[name='web'].image", NULL, NULL},
         {"weir", APPLY, POD("{" WEB ",'image':'3','args':['x']}"), NULL, POD("{" WEB ",'image':'3','args':['x']},{'name':'side','image':'s'}"), NULL},
         {"weir", APPLY, POD("{" WEB ",'image':'3'}"), NULL, POD("{" WEB ",'image':'3'},{'name':'side','image':'s'}"), NULL},
         {"mesh", APPLY, "'spec':{}", NULL, POD("{" WEB ",'image':'3'}"), NULL}, /* nobody else means the side car */
         {"weir", APPLY, POD("{'name':'app','image':'3'}"), NULL, POD("{'name':'app','image':'3'}"), NULL});
    (void)state;
}

static void an_item_that_two_mean_stays(void **state)
{
    LIFE("Deployment", {"one", APPLY, POD("{" WEB ",'image':'1','env':[{'name':'A','value':'1'}]}"), NULL, NULL, NULL},
         {"two", APPLY, POD("{" WEB ",'env':[{'name':'B','value':'2'}]}"), NULL, POD("{" WEB ",'image':'1','env':[{'name':'A','value':'1'},{'name':'B','value':'2'}]}"), NULL},
         {"two", APPLY, POD("{" WEB ",'env':[{'name':'A','value':'9'},{'name':'B','value':'2'}]}"), "one .spec.template.spec.containers[name='web'].env[name='A'].value", NULL, NULL},
         {"one", APPLY, "'spec':{}", NULL, POD("{" WEB ",'env':[{'name':'B','value':'2'}]}"), NULL},
         {"two", APPLY, "'spec':{}", NULL, "'spec':{}", "one/Apply:{'f:spec':{}} two/Apply:{'f:spec':{}}"});
    (void)state;
}

static void the_order_of_a_list(void **state)
{
#define E(n) "{'name':'" n "'}"
#define ENV(list) POD("{" WEB ",'env':[" list "]}")
    LIFE("Deployment", {"one", APPLY, ENV(E("A") "," E("B") "," E("C")), NULL, NULL, NULL},
         {"one", APPLY, ENV(E("C") "," E("A") "," E("B")), NULL, ENV(E("C") "," E("A") "," E("B")), NULL},
         {"two", APPLY, ENV(E("X") "," E("A")), NULL, ENV(E("C") "," E("X") "," E("A") "," E("B")), NULL},
         {"one", APPLY, ENV(E("B") "," E("A")), NULL, ENV(E("X") "," E("B") "," E("A")), NULL});
    (void)state;
}

/* A key that is left out has its default; lists without keys, and with an item twice, are taken as a whole. */
static void lists_of_other_kinds(void **state)
{
#define PORTS(list) "'spec':{'ports':[" list "]}"
    LIFE("Service", {"one", APPLY, PORTS("{'port':80,'targetPort':1}"), NULL, NULL, "one/Apply:{'f:spec':{'f:ports':{'k:{\\'port\\':80,\\'protocol\\':\\'TCP\\'}':{'f:port':{},'f:targetPort':{},'.':{}}}}}"},
         {"two", APPLY, PORTS("{'port':80,'protocol':'TCP','targetPort':2}"), "one .spec.ports[port=80,protocol='TCP'].targetPort", NULL, NULL},
         {"two", APPLY, PORTS("{'port':80,'protocol':'UDP','targetPort':2}"), NULL, PORTS("{'port':80,'targetPort':1},{'port':80,'protocol':'UDP','targetPort':2}"), NULL},
         {"two", APPLY, "'spec':{'selector':{'a':'1','b':'2'}}", NULL, NULL, "one/Apply:{'f:spec':{'f:ports':{'k:{\\'port\\':80,\\'protocol\\':\\'TCP\\'}':{'f:port':{},'f:targetPort':{},'.':{}}}}} two/Apply:{'f:spec':{'f:selector':{}}}"},
         {"one", APPLY, "'spec':{'selector':{'a':'1'}}", "two .spec.selector", NULL, NULL}, /* a selector is one thing */
         {"one", FORCE, "'spec':{'selector':{'a':'1'}}", NULL, "'spec':{'selector':{'a':'1'}}", "one/Apply:{'f:spec':{'f:selector':{}}}"});
    LIFE("Deployment", {"one", APPLY, POD("{" WEB ",'command':['a','b']}"), NULL, NULL, NULL}, {"two", APPLY, POD("{" WEB ",'command':['a']}"), "one .spec.template.spec.containers[name='web'].command", NULL, NULL},
         {"two", FORCE, POD("{" WEB ",'command':['a']}"), NULL, POD("{" WEB ",'command':['a']}"), NULL});
    LIFE("Deployment", {"one", APPLY, ENV(E("A") "," E("B")), NULL, NULL, NULL}, {"two", APPLY, ENV(E("A") "," E("A")), "one .spec.template.spec.containers[name='web'].env[name='A'].name one .spec.template.spec.containers[name='web'].env[name='B'].name", NULL, NULL},
         {"one", APPLY, ENV(E("A") "," E("A")), NULL, ENV(E("A") "," E("A")), "one/Apply:{'f:spec':{'f:template':{'f:spec':{'f:containers':{'k:{\\'name\\':\\'web\\'}':{'f:name':{},'f:env':{},'.':{}}}}}}}"},
         {"one", APPLY, ENV(E("B")), NULL, ENV(E("B")), NULL});
    (void)state;
}

/* ---- what belongs to nobody ---------------------------------------------------------------------------------------------------------- */

static void status_and_foreign_owners_are_not_taken(void **state)
{
    LIFE("ConfigMap", {"one", APPLY, "'data':{'a':'1'},'status':{'x':1},'metadata':{'name':'x','managedFields':[{'manager':'evil','operation':'Apply','fieldsV1':{'f:data':{'f:a':{}}}}]}", NULL, "'data':{'a':'1'}",
                       "one/Apply:{'f:data':{'f:a':{}}}"});
    (void)state;
}

static void a_value_becomes_a_map(void **state)
{
    LIFE("ConfigMap", {"one", APPLY, "'data':{'a':'1'},'x':{'y':1}", NULL, NULL, NULL}, {"two", APPLY, "'x':{'y':{'z':1}}", "one .x.y", NULL, NULL},
         {"two", FORCE, "'x':{'y':{'z':1}}", NULL, "'data':{'a':'1'},'x':{'y':{'z':1}}", "one/Apply:{'f:data':{'f:a':{}}} two/Apply:{'f:x':{'f:y':{'f:z':{}}}}"},
         {"one", FORCE, "'data':{'a':'1'},'x':5", NULL, "'data':{'a':'1'},'x':5", "one/Apply:{'f:data':{'f:a':{}},'f:x':{}}"});
    (void)state;
}

static void secrets_are_folded(void **state)
{
    LIFE("Secret", {"weir", APPLY, "'data':{'a':'MQ==','b':'Mg=='},'stringData':{'b':'three','c':''}", NULL, "'data':{'a':'MQ==','b':'dGhyZWU=','c':''}", "weir/Apply:{'f:data':{'f:a':{},'f:b':{},'f:c':{}}}"},
         {"weir-config", PATCH, "'data':{'b':'NA=='}", NULL, "'data':{'a':'MQ==','b':'NA==','c':''}", NULL},
         {"weir", APPLY, "'stringData':{'b':'three'}", "weir-config .data.b", NULL, NULL},
         {"weir", APPLY, "'stringData':{'a':'1'}", NULL, "'data':{'a':'MQ==','b':'NA=='}", NULL});
    (void)state;
}

/* An object of a version without owners: all of it was "weir"'s. */
static void objects_without_owners(void **state)
{
    struct merge_conf conf = {.manager = "weir", .now_ns = 1795305600000000000u}, other = {.manager = "other"};
    struct merge_conflicts c = {0};
    struct buf after = {0};
    json_t *live = manifest("ConfigMap", AB), *given = manifest("ConfigMap", "'data':{'a':'9'}"), *out = NULL;
    assert_int_equal(merge_manifest(live, given, &other, &out, &c), ERR_INUSE);
    assert_int_equal(c.n, 1);
    assert_string_equal(c.items[0].manager, "weir");
    assert_int_equal(merge_manifest(live, given, &conf, &out, &c), OK);
    shown(out, &after);
    same_text(0, "after", "'data':{'a':'9'}", &after);
    buf_free(&after);
    merge_conflicts_free(&c);
    json_decref(live);
    json_decref(given);
    json_decref(out);
    (void)state;
}

/* Whoever may write to the store may write owners there: they are taken for what they are worth. */
static void owners_of_any_kind(void **state)
{
    static const char *const owners[] = {
        "5", "{}", "[]", "[5,null,{},{'manager':5,'fieldsV1':{}}]", "[{'manager':'x','operation':'Apply','fieldsV1':{'f:data':5,'k:{':[],'k:5':{'f:y':null},'v:':'z','':{'':{}},'.':7}}]",
        "[{'manager':'x','fieldsV1':{'f:data':{'f:a':'text','k:{\'name\':[]}':{'.':{}}}}},{'manager':'x','fieldsV1':{'f:data':{}}}]",
    };
    for (size_t i = 0; i < COUNT_OF(owners); i++) {
        struct merge_conflicts c = {0};
        struct buf text = {0};
        json_t *live = manifest("ConfigMap", AB), *given = manifest("ConfigMap", "'data':{'a':'9','c':'1'}"), *out = NULL;
        quotes(owners[i], &text);
        json_object_set_new(json_object_get(live, "metadata"), "managedFields", json_loads(text.p, JSON_DECODE_ANY, NULL));
        if (merge_manifest(live, given, &(struct merge_conf){.manager = "one"}, &out, &c) == OK)
            json_decref(out);
        assert_int_equal(merge_manifest(live, given, &(struct merge_conf){.manager = "one", .force = true}, &out, &c), OK);
        assert_string_equal(json_string_value(json_object_get(json_object_get(out, "data"), "a")), "9");
        json_decref(out);
        assert_int_equal(merge_manifest(live, given, &(struct merge_conf){.manager = "one", .patch = true}, &out, &c), OK);
        json_decref(out);
        json_decref(live);
        json_decref(given);
        merge_conflicts_free(&c);
        buf_free(&text);
    }
    (void)state;
}

/* The usual owner of everything goes without saying, and any other is said. */
static void what_goes_without_saying(void **state)
{
    struct merge_conf weir = {.manager = "weir"}, other = {.manager = "other"};
    struct merge_conflicts c = {0};
    json_t *given = manifest("ConfigMap", AB), *out = NULL, *then = NULL;
    assert_int_equal(merge_manifest(NULL, given, &weir, &out, &c), OK);
    assert_null(json_object_get(json_object_get(out, "metadata"), "managedFields"));
    assert_int_equal(merge_manifest(out, given, &other, &then, &c), OK);
    assert_int_equal(json_array_size(json_object_get(json_object_get(then, "metadata"), "managedFields")), 2);
    json_decref(out);
    assert_int_equal(merge_manifest(NULL, given, &other, &out, &c), OK);
    assert_int_equal(json_array_size(json_object_get(json_object_get(out, "metadata"), "managedFields")), 1);
    json_decref(given);
    json_decref(out);
    json_decref(then);
    (void)state;
}

/* ---- limits ------------------------------------------------------------------------------------------------------------------------ */

static void too_many(void **state)
{
    struct merge_conflicts c = {0};
    json_t *live = manifest("ConfigMap", AB), *out = NULL;
    for (int i = 0; i <= MERGE_MANAGERS_MAX; i++) {
        char name[16], data[64];
        snprintf(name, sizeof name, "m%d", i);
        snprintf(data, sizeof data, "'data':{'k%d':'1'}", i);
        json_t *given = manifest("ConfigMap", data);
        enum err e = merge_manifest(live, given, &(struct merge_conf){.manager = name}, &out, &c);
        assert_int_equal(e, i < MERGE_MANAGERS_MAX - 1 ? OK : ERR_LIMIT); /* "weir" is one of them */
        json_decref(given);
        if (e == OK) {
            json_decref(live);
            live = out;
        }
    }
    json_decref(live);
    struct buf many = {0}, other = {0};
    for (int i = 0; i < MERGE_CONFLICTS_MAX + 5; i++) {
        buf_printf(&many, "%s'k%d':'1'", i ? "," : "'data':{", i);
        buf_printf(&other, "%s'k%d':'2'", i ? "," : "'data':{", i);
    }
    buf_addc(&many, '}');
    buf_addc(&other, '}');
    json_t *given = manifest("ConfigMap", other.p);
    live = manifest("ConfigMap", many.p);
    assert_int_equal(merge_manifest(live, given, &(struct merge_conf){.manager = "two"}, &out, &c), ERR_INUSE);
    assert_int_equal(c.n, MERGE_CONFLICTS_MAX + 5);
    assert_int_equal(c.kept, MERGE_CONFLICTS_MAX);
    merge_conflicts_free(&c);
    json_decref(given);
    json_decref(live);
    buf_free(&many);
    buf_free(&other);
    assert_true(merge_manager_valid(SLICE("weir-config")));
    assert_false(merge_manager_valid(SLICE("")));
    assert_false(merge_manager_valid(SLICE("a b")));
    assert_false(merge_manager_valid(SLICE("a\n")));
    (void)state;
}

/* ---- sets of objects ------------------------------------------------------------------------------------------------------------------ */

static struct objset *set_of(const char *yaml)
{
    struct objset *s = objset_new();
    struct diags d = {0};
    objset_read(s, "a.yaml", "/srv", slice_cstr(yaml), "default", false, &d);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    return s;
}

#define CONFIG(data) "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { " data " }\n"

static enum err own(struct objset *live, const char *manager, const char *yaml, struct merge_conflicts *c)
{
    struct diags d = {0};
    struct objset *given = set_of(yaml);
    enum err e = objset_own(given, live, &(struct merge_conf){.manager = manager, .now_ns = 1}, c, &d);
    assert_int_equal(d.errors, 0);
    if (e == OK)
        objset_merge(live, given);
    objset_free(given);
    diags_free(&d);
    return e;
}

/* Owners are no part of what makes an object another one, and they come through what is kept of it. */
static void in_a_set(void **state)
{
    struct objset *live = objset_new();
    struct merge_conflicts c = {0};
    struct diags d = {0};
    assert_int_equal(own(live, "weir", CONFIG("a: \"1\""), &c), OK);
    uint64_t hash = objset_find(live, OBJ_CONFIGMAP, "default", "c")->hash;
    assert_int_equal(own(live, "two", CONFIG("a: \"1\""), &c), OK);
    const struct object *o = objset_find(live, OBJ_CONFIGMAP, "default", "c");
    assert_true(o->hash == hash && o->generation == 1);
    assert_non_null(strstr(o->json, "\"manager\":\"two\""));
    assert_int_equal(own(live, "two", CONFIG("a: \"2\""), &c), ERR_INUSE);
    assert_int_equal(c.n, 1);
    assert_string_equal(c.items[0].kind, "ConfigMap");
    assert_string_equal(c.items[0].ns, "default");
    assert_string_equal(c.items[0].name, "c");
    assert_int_equal(own(live, "two", CONFIG("b: \"2\""), &c), OK);
    o = objset_find(live, OBJ_CONFIGMAP, "default", "c");
    assert_true(o->hash != hash && o->generation == 2 && o->data.n == 2);
    json_t *kept = json_loads(o->json, 0, NULL);
    struct object_origin from = {.file = o->file, .dir = o->dir, .ns = o->ns, .line = o->line, .column = o->column};
    struct object *again = object_from_json(kept, &from, &d);
    assert_non_null(again);
    assert_string_equal(again->json, o->json);
    assert_true(again->hash == o->hash);
    object_unref(again);
    json_decref(kept);
    merge_conflicts_free(&c);
    diags_free(&d);
    objset_free(live);
    (void)state;
}

#define PART_OF "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web }\nspec:\n"

/* An apply of parts; d is the caller's. */
static enum err own_part(struct objset *live, const char *yaml, struct diags *d)
{
    struct merge_conflicts c = {0};
    struct objset *given = objset_new();
    enum err e = ERR_INVALID;
    objset_read_parts(given, "part.yaml", "/part", slice_cstr(yaml), "default", false, d);
    if (!d->errors)
        e = objset_own(given, live, &(struct merge_conf){.manager = "part", .force = true, .now_ns = 1}, &c, d);
    if (e == OK)
        objset_merge(live, given);
    merge_conflicts_free(&c);
    objset_free(given);
    return e;
}

/* Who owns a few fields applies these alone: what the kind requires is there already. */
static void a_part_of_an_object(void **state)
{
    struct objset *live = objset_new();
    struct merge_conflicts c = {0};
    struct diags d = {0};
    assert_int_equal(own_part(live, PART_OF "  replicas: 3\n", &d), ERR_INVALID); /* of what is not there */
    assert_true(d.errors >= 2 && d.items[0].line == 5 && strstr(d.items[0].reason, "missing"));
    diags_free(&d);
    assert_int_equal(own(live, "weir", PART_OF "  selector: { matchLabels: { app: web } }\n  template:\n    metadata: { labels: { app: web } }\n"
                         "    spec: { containers: [ { name: web, command: [ run ] } ] }\n", &c), OK);
    assert_int_equal(own_part(live, PART_OF "  replicas: 3\n  template: { spec: { containers: [ { name: web, env: [ { name: A, value: b } ] } ] } }\n", &d), OK);
    assert_int_equal(d.n, 0);
    const struct object *o = objset_find(live, OBJ_DEPLOYMENT, "default", "web");
    assert_true(o->dep.replicas == 3 && o->dep.pod.argv[0] && o->dep.pod.env_n == 1 && !o->lacks);
    assert_string_equal(o->dir, "/srv"); /* the command is of who applied the whole */
    assert_int_equal(own_part(live, PART_OF "  nonsense: 1\n", &d), OK);
    assert_true(d.errors == 0 && d.n == 1 && d.items[0].level == DIAG_WARNING); /* told all the same */
    assert_int_equal(objset_find(live, OBJ_DEPLOYMENT, "default", "web")->dep.replicas, 1);
    diags_free(&d);
    assert_int_equal(own_part(live, PART_OF "  selector: { matchLabels: { app: x } }\n  template: { metadata: { labels: { app: web } } }\n", &d), ERR_INVALID); /* the whole would be wrong */
    assert_true(d.errors == 1 && strcmp(d.items[0].file, "part.yaml") == 0 && d.items[0].line == 5 && strstr(d.items[0].reason, "does not match"));
    diags_free(&d);
    assert_int_equal(own_part(live, PART_OF "  template: { spec: { containers: [ { name: second } ] } }\n", &d), ERR_INVALID); /* it as well, in other places than the part's */
    assert_true(d.errors >= 1 && strcmp(d.items[0].file, "part.yaml") == 0 && d.items[0].line == 1);
    diags_free(&d);
    assert_int_equal(own_part(live, PART_OF "  replicas: many\n", &d), ERR_INVALID); /* a mistake is one at once */
    diags_free(&d);
    objset_free(live);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_manager),
        cmocka_unit_test(two_managers),
        cmocka_unit_test(updates),
        cmocka_unit_test(labels_and_annotations),
        cmocka_unit_test(containers_are_told_by_name),
        cmocka_unit_test(an_item_that_two_mean_stays),
        cmocka_unit_test(the_order_of_a_list),
        cmocka_unit_test(lists_of_other_kinds),
        cmocka_unit_test(status_and_foreign_owners_are_not_taken),
        cmocka_unit_test(a_value_becomes_a_map),
        cmocka_unit_test(secrets_are_folded),
        cmocka_unit_test(objects_without_owners),
        cmocka_unit_test(owners_of_any_kind),
        cmocka_unit_test(what_goes_without_saying),
        cmocka_unit_test(too_many),
        cmocka_unit_test(in_a_set),
        cmocka_unit_test(a_part_of_an_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
