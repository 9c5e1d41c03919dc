/* env.c - the environment and the command line of a replica.
 *
 *     extra (HOSTNAME, PATH ...)  <  service variables  <  envFrom  <  env       the later wins
 *
 * A variable keeps the place where its name came first; its value is the last one. $(VAR) in a value of env, and in the command,
 * stands for a variable that is known by then; $$ is a dollar sign; a reference to an unknown variable stays as it is (the
 * rules of Kubernetes' "dependent environment variables").
 */
#include "plan_int.h"

/* Variables in the order of their names' first appearance. */
struct env_list {
    struct arena *a;
    struct table index; /* name -> number + 1 */
    char **items;       /* "NAME=VALUE" */
    size_t n, cap;
};

static void env_set(struct env_list *l, struct slice name, struct slice value)
{
    struct buf b = {0};
    buf_add_slice(&b, name);
    buf_addc(&b, '=');
    buf_add_slice(&b, value);
    char *item = (char *)arena_slice(l->a, buf_slice(&b)).p;
    buf_free(&b);
    uintptr_t at = (uintptr_t)table_get(&l->index, name);
    if (at) {
        l->items[at - 1] = item;
        return;
    }
    ARRAY_GROW(MEM_MANIFEST, l->items, l->n, l->cap);
    l->items[l->n++] = item;
    table_put(&l->index, name, (void *)(uintptr_t)l->n);
}

/* The value of name in "NAME=VALUE" strings; false when it is not there. */
static bool env_get(const struct env_list *l, char *const *env, struct slice name, struct slice *value)
{
    const char *item = NULL;
    if (l) {
        uintptr_t at = (uintptr_t)table_get(&l->index, name);
        item = at ? l->items[at - 1] : NULL;
    }
    for (; env && *env && !item; env++)
        if (strncmp(*env, name.p, name.n) == 0 && (*env)[name.n] == '=')
            item = *env;
    if (item)
        *value = slice_cstr(item + name.n + 1);
    return item != NULL;
}

/* text with its references replaced, from l or env. false: it would be longer than ENV_EXPANDED_MAX. */
static bool expand(struct slice text, const struct env_list *l, char *const *env, struct buf *out)
{
    for (size_t i = 0; i < text.n && out->n <= ENV_EXPANDED_MAX; i++) {
        char next = i + 1 < text.n ? text.p[i + 1] : '\0';
        if (text.p[i] != '$' || (next != '$' && next != '(')) {
            buf_addc(out, text.p[i]);
            continue;
        }
        if (next == '$') {
            buf_addc(out, '$');
            i++;
            continue;
        }
        const char *close = memchr(text.p + i + 2, ')', text.n - i - 2);
        struct slice name = close ? slice_of(text.p + i + 2, (size_t)(close - text.p) - i - 2) : SLICE(""), value;
        if (!close) {
            buf_adds(out, "$(");
            i++;
        } else if (env_get(l, env, name, &value)) {
            buf_add_slice(out, value);
            i += name.n + 2;
        } else {
            buf_printf(out, "$(" SLICE_FMT ")", SLICE_ARG(name));
            i += name.n + 2;
        }
    }
    buf_reserve(out, 0);
    return out->n <= ENV_EXPANDED_MAX;
}

/* ---- sources --------------------------------------------------------------------------------------------------------- */

static void env_error(const struct object *dep, struct diags *d, enum diag_level lv, const char *remedy, const char *fmt, ...) PRINTF_LIKE(5, 6);
static void env_error(const struct object *dep, struct diags *d, enum diag_level lv, const char *remedy, const char *fmt, ...)
{
    struct buf where = {0}, reason = {0};
    buf_printf(&where, "Deployment/%s/%s", dep->ns, dep->name);
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&reason, fmt, ap);
    va_end(ap);
    diags_add(d, lv, dep->file, dep->line, dep->column, where.p, remedy, "%s", reason.p);
    buf_free(&where);
    buf_free(&reason);
}

/* CATALOG_DB of "catalog-db". */
static void add_env_prefix(struct buf *b, const char *service)
{
    for (const char *p = service; *p; p++)
        buf_addc(b, *p == '-' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p));
}

static void env_service(struct env_list *l, const struct object *svc)
{
    char ip[ADDR_TEXT_MAX];
    struct buf name = {0}, port = {0};
    size_t ip_n = addr_format_ip(&svc->svc.address, ip);
    add_env_prefix(&name, svc->name);
    size_t prefix = name.n;
    buf_adds(&name, "_SERVICE_HOST");
    env_set(l, buf_slice(&name), slice_of(ip, ip_n));
    for (size_t i = 0; i < svc->svc.ports_n; i++) {
        buf_clear(&port);
        buf_add_u64(&port, svc->svc.ports[i].port);
        name.n = prefix;
        buf_adds(&name, "_SERVICE_PORT");
        if (i == 0)
            env_set(l, buf_slice(&name), buf_slice(&port));
        if (!svc->svc.ports[i].name[0])
            continue;
        buf_addc(&name, '_');
        add_env_prefix(&name, svc->svc.ports[i].name);
        env_set(l, buf_slice(&name), buf_slice(&port));
    }
    buf_free(&name);
    buf_free(&port);
}

static void env_services(struct env_list *l, const struct objset *s, const struct object *dep)
{
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *svc = objset_at(s, i);
        if (svc->kind == OBJ_SERVICE && strcmp(svc->ns, dep->ns) == 0 && !svc->svc.external_name && svc->svc.address.family != ADDR_NONE)
            env_service(l, svc);
    }
}

static void env_from_map(struct env_list *l, const struct objset *s, const struct object *dep, const struct env_from *f, struct diags *d)
{
    const char *kind = f->secret ? "Secret" : "ConfigMap";
    const struct object *map = objset_find(s, f->secret ? OBJ_SECRET : OBJ_CONFIGMAP, dep->ns, f->map);
    if (!map && !f->optional)
        env_error(dep, d, DIAG_ERROR, "add it, or set optional: true", "envFrom: there is no %s %s in the namespace %s", kind, f->map, dep->ns);
    for (size_t i = 0; map && i < map->data.n; i++) {
        const struct kv *kv = &map->data.items[i];
        struct buf name = {0};
        buf_printf(&name, "%s%s", f->prefix ? f->prefix : "", kv->key);
        if (!value_is_env_name(buf_slice(&name)))
            env_error(dep, d, DIAG_WARNING, "rename the key, or take it with valueFrom", "envFrom: the key %s of the %s %s is left out: no name of a variable",
                      kv->key, kind, f->map);
        else if (memchr(kv->value, '\0', kv->value_n))
            env_error(dep, d, DIAG_ERROR, "remove the key, or encode it", "envFrom: the key %s of the %s %s holds a NUL byte, which no variable can", kv->key,
                      kind, f->map);
        else
            env_set(l, buf_slice(&name), slice_of(kv->value, kv->value_n));
        buf_free(&name);
    }
}

static void env_from_key(struct env_list *l, const struct objset *s, const struct object *dep, const struct env_var *v, struct diags *d)
{
    const char *kind = v->secret ? "Secret" : "ConfigMap";
    const struct object *map = objset_find(s, v->secret ? OBJ_SECRET : OBJ_CONFIGMAP, dep->ns, v->map);
    const struct kv *kv = map ? kvs_get(&map->data, slice_cstr(v->map_key)) : NULL;
    if (kv && memchr(kv->value, '\0', kv->value_n))
        env_error(dep, d, DIAG_ERROR, "encode the value", "env %s: the key %s of the %s %s holds a NUL byte, which no variable can", v->name, v->map_key, kind,
                  v->map);
    else if (kv)
        env_set(l, slice_cstr(v->name), slice_of(kv->value, kv->value_n));
    else if (!v->optional && map)
        env_error(dep, d, DIAG_ERROR, "add the key, or set optional: true", "env %s: the %s %s has no key %s", v->name, kind, v->map, v->map_key);
    else if (!v->optional)
        env_error(dep, d, DIAG_ERROR, "add it, or set optional: true", "env %s: there is no %s %s in the namespace %s", v->name, kind, v->map, dep->ns);
}

static void env_own(struct env_list *l, const struct objset *s, const struct object *dep, struct diags *d)
{
    for (size_t i = 0; i < dep->dep.pod.env_n; i++) {
        const struct env_var *v = &dep->dep.pod.env[i];
        struct buf value = {0};
        if (v->map)
            env_from_key(l, s, dep, v, d);
        else if (expand(slice_cstr(v->value), l, NULL, &value))
            env_set(l, slice_cstr(v->name), buf_slice(&value));
        else
            env_error(dep, d, DIAG_ERROR, "write less", "env %s: more than %u bytes after expansion", v->name, ENV_EXPANDED_MAX);
        buf_free(&value);
    }
}

char **objset_env(const struct objset *s, const struct object *dep, const char *const *extra, struct arena *a, struct diags *d)
{
    MUST(dep->kind == OBJ_DEPLOYMENT);
    struct env_list l = {.a = a};
    const struct pod_template *pod = &dep->dep.pod;
    for (; extra && *extra; extra++) {
        struct slice value, name = slice_cut(slice_cstr(*extra), '=', &value);
        env_set(&l, name, value);
    }
    if (pod->service_links)
        env_services(&l, s, dep);
    for (size_t i = 0; i < pod->env_from_n; i++)
        env_from_map(&l, s, dep, &pod->env_from[i], d);
    env_own(&l, s, dep, d);
    char **env = arena_zalloc(a, (l.n + 1) * sizeof *env);
    for (size_t i = 0; i < l.n; i++)
        env[i] = l.items[i];
    mem_free(l.items);
    table_fini(&l.index);
    return env;
}

char **objset_argv(const struct object *dep, char *const *env, struct arena *a)
{
    MUST(dep->kind == OBJ_DEPLOYMENT);
    char *const *argv = dep->dep.pod.argv;
    size_t n = 0;
    while (argv[n])
        n++;
    char **out = arena_zalloc(a, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        struct buf b = {0};
        bool fits = expand(slice_cstr(argv[i]), NULL, env, &b);
        out[i] = fits ? (char *)arena_slice(a, buf_slice(&b)).p : argv[i]; /* the system refuses what is so long anyway */
        buf_free(&b);
    }
    return out;
}
