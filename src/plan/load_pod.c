/* load_pod.c - Deployments: replicas, strategy and the template of a replica.
 *
 * The template's hash says when two replicas are the same: it covers the template as written (keys in any order) and the
 * working folder, and nothing else: not the values of ConfigMaps and Secrets it refers to, as in Kubernetes.
 */
#include "plan_int.h"

#include <stdio.h>

/* ---- ports and probes -------------------------------------------------------------------------------------------------- */

static void load_ports(struct object *o, const struct ynode *c)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *list = y_get(c, "ports");
    pod->ports_n = load_list_n(c, "ports");
    pod->ports = load_array(o, pod->ports_n, sizeof *pod->ports);
    for (uint32_t i = 0; i < pod->ports_n; i++) {
        pod->ports[i].name = load_str(o, list->items[i], "name");
        if (!pod->ports[i].name)
            pod->ports[i].name = arena_strdup(&o->mem, "");
        pod->ports[i].port = (uint16_t)load_int(list->items[i], "containerPort", 0, 65535);
    }
}

/* handler.port, by number or by the name of a container port; 0 when it is neither. */
static uint16_t load_port_ref(struct reader *r, struct object *o, const struct ynode *handler)
{
    const struct ynode *n = y_get(handler, "port");
    if (!y_is_str(n))
        return (uint16_t)load_int(handler, "port", 0, 65535);
    for (size_t i = 0; i < o->dep.pod.ports_n; i++)
        if (n->text.n && slice_is(n->text, o->dep.pod.ports[i].name))
            return o->dep.pod.ports[i].port;
    if (value_is_port_name(n->text))
        reader_error(r, n, ".port", "add it to the container's ports, or give the number", "no container port has the name " SLICE_FMT, SLICE_ARG(n->text));
    return 0;
}

static void load_http_get(struct reader *r, struct object *o, const struct ynode *n, struct probe *p)
{
    const struct ynode *headers = y_get(n, "httpHeaders");
    p->kind = PROBE_HTTP;
    p->path = load_str(o, n, "path");
    if (!p->path)
        p->path = arena_strdup(&o->mem, "/");
    p->host = load_str(o, n, "host");
    p->port = load_port_ref(r, o, n);
    p->headers.n = load_list_n(n, "httpHeaders");
    p->headers.items = load_array(o, p->headers.n, sizeof *p->headers.items);
    for (uint32_t i = 0; i < p->headers.n; i++) {
        struct kv *kv = &p->headers.items[i];
        kv->key = load_str(o, headers->items[i], "name");
        kv->value = load_str(o, headers->items[i], "value");
        kv->value_n = kv->value ? strlen(kv->value) : 0;
    }
}

static char **load_exec(struct reader *r, struct object *o, const struct ynode *n)
{
    size_t argc;
    char **argv = load_strings(o, n, "command", &argc);
    if (argv && !argc)
        reader_error(r, y_get(n, "command"), ".command", "give the program", "empty");
    return argv;
}

static void load_probe(struct reader *r, struct object *o, const struct ynode *c, const char *key, bool readiness, struct probe *p)
{
    static const char *const handlers[] = {"httpGet", "tcpSocket", "exec", "grpc", NULL};
    const struct ynode *n = y_get(c, key);
    if (!n || n->type != Y_MAP)
        return;
    size_t mark = reader_push(r, ".%s", key);
    p->initial_delay_s = (uint32_t)load_int(n, "initialDelaySeconds", 0, 86400);
    p->period_s = (uint32_t)load_int(n, "periodSeconds", 10, 86400);
    p->timeout_s = (uint32_t)load_int(n, "timeoutSeconds", 1, 86400);
    p->success_threshold = (uint32_t)load_int(n, "successThreshold", 1, 1000);
    p->failure_threshold = (uint32_t)load_int(n, "failureThreshold", 3, 1000);
    if (!readiness && p->success_threshold != 1)
        reader_error(r, y_get(n, "successThreshold"), ".successThreshold", "remove it", "must be 1 for a %s", key);
    const char *handler = load_one_of(r, n, handlers);
    const struct ynode *h = handler ? y_get(n, handler) : NULL;
    if (h && h->type == Y_MAP) {
        size_t inner = reader_push(r, ".%s", handler);
        if (handler == handlers[0]) {
            load_http_get(r, o, h, p);
        } else if (handler == handlers[1]) {
            p->kind = PROBE_TCP;
            p->port = load_port_ref(r, o, h);
        } else if (handler == handlers[2]) {
            p->kind = PROBE_EXEC;
            p->argv = load_exec(r, o, h);
        } else {
            p->kind = PROBE_GRPC;
            p->port = (uint16_t)load_int(h, "port", 0, 65535);
            p->service = load_str(o, h, "service");
        }
        reader_pop(r, inner);
    }
    reader_pop(r, mark);
}

static void load_lifecycle(struct reader *r, struct object *o, const struct ynode *c)
{
    static const char *const handlers[] = {"exec", "httpGet", "sleep", "tcpSocket", NULL};
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *n = y_path(c, "lifecycle.preStop");
    if (!n || n->type != Y_MAP)
        return;
    size_t mark = reader_push(r, ".lifecycle.preStop");
    const char *handler = load_one_of(r, n, handlers);
    const struct ynode *h = handler ? y_get(n, handler) : NULL;
    if (h) {
        size_t inner = reader_push(r, ".%s", handler);
        if (handler == handlers[0])
            pod->pre_stop_argv = load_exec(r, o, h);
        else if (handler == handlers[1] && h->type == Y_MAP)
            load_http_get(r, o, h, &pod->pre_stop_http);
        else if (handler == handlers[2])
            pod->pre_stop_sleep_s = (uint32_t)load_int(h, "seconds", 0, 86400);
        reader_pop(r, inner);
    }
    if (pod->pre_stop_http.kind != PROBE_NONE) {
        pod->pre_stop_http.timeout_s = pod->grace_s;
        pod->pre_stop_http.period_s = pod->pre_stop_http.success_threshold = pod->pre_stop_http.failure_threshold = 1;
    }
    reader_pop(r, mark);
}

/* ---- environment ----------------------------------------------------------------------------------------------------------- */

/* valueFrom: exactly one source; the refused ones count, they have their own error. */
static void load_env_source(struct reader *r, struct object *o, const struct ynode *n, struct env_var *v)
{
    static const char *const sources[] = {"configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef", "fileKeyRef", NULL};
    if (n->type != Y_MAP)
        return;
    size_t mark = reader_push(r, ".valueFrom");
    const char *source = load_one_of(r, n, sources);
    reader_pop(r, mark);
    const struct ynode *ref = source ? y_get(n, source) : NULL;
    v->map = load_str(o, ref, "name");
    v->map_key = load_str(o, ref, "key");
    v->optional = load_bool(ref, "optional", false);
    v->secret = source == sources[1];
}

static void load_env(struct reader *r, struct object *o, const struct ynode *c)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *list = y_get(c, "env");
    struct table seen = {0};
    pod->env_n = load_list_n(c, "env");
    pod->env = load_array(o, pod->env_n, sizeof *pod->env);
    for (uint32_t i = 0; i < pod->env_n; i++) {
        const struct ynode *n = list->items[i], *from = y_get(n, "valueFrom"), *value = y_get(n, "value"), *name = y_get(n, "name");
        struct env_var *v = &pod->env[i];
        size_t mark = reader_push(r, ".env[%u]", i);
        v->name = load_str(o, n, "name");
        if (from && value)
            reader_error(r, from, ".valueFrom", "keep one of them", "both value and valueFrom");
        if (from)
            load_env_source(r, o, from, v);
        else
            v->value = y_is_str(value) ? load_str(o, n, "value") : arena_strdup(&o->mem, "");
        const struct ynode *before = y_is_str(name) ? table_put(&seen, name->text, (void *)name) : NULL;
        if (before)
            reader_warn(r, name, ".name", "keep one of them", SLICE_FMT " is given twice, and this one wins: first at line %u", SLICE_ARG(name->text),
                        before->line);
        reader_pop(r, mark);
    }
    table_fini(&seen);
}

static void load_env_from(struct reader *r, struct object *o, const struct ynode *c)
{
    static const char *const sources[] = {"configMapRef", "secretRef", NULL};
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *list = y_get(c, "envFrom");
    pod->env_from_n = load_list_n(c, "envFrom");
    pod->env_from = load_array(o, pod->env_from_n, sizeof *pod->env_from);
    for (uint32_t i = 0; i < pod->env_from_n; i++) {
        const struct ynode *n = list->items[i];
        struct env_from *f = &pod->env_from[i];
        if (n->type != Y_MAP)
            continue;
        size_t mark = reader_push(r, ".envFrom[%u]", i);
        const char *source = load_one_of(r, n, sources);
        reader_pop(r, mark);
        const struct ynode *ref = source ? y_get(n, source) : NULL;
        f->map = load_str(o, ref, "name");
        f->optional = load_bool(ref, "optional", false);
        f->secret = source == sources[1];
        f->prefix = load_str(o, n, "prefix");
    }
}

/* ---- resources, security ------------------------------------------------------------------------------------------------------ */

static uint64_t load_quantity(const struct ynode *map, const char *key, uint32_t digits)
{
    const struct ynode *n = y_get(map, key);
    uint64_t v;
    bool scalar = n && (n->type == Y_STR || n->type == Y_INT || n->type == Y_FLOAT);
    return scalar && value_quantity(n->text, digits, digits ? 1000000 : 1ull << 50, &v) == OK ? v : 0;
}

static void load_resources(struct reader *r, struct object *o, const struct ynode *c)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *requests = y_path(c, "resources.requests"), *limits = y_path(c, "resources.limits");
    pod->cpu_milli_limit = (uint32_t)load_quantity(limits, "cpu", 3);
    pod->memory_limit = load_quantity(limits, "memory", 0);
    pod->cpu_milli_request = y_get(requests, "cpu") ? (uint32_t)load_quantity(requests, "cpu", 3) : pod->cpu_milli_limit;
    pod->memory_request = y_get(requests, "memory") ? load_quantity(requests, "memory", 0) : pod->memory_limit;
    if (pod->cpu_milli_limit && pod->cpu_milli_request > pod->cpu_milli_limit)
        reader_error(r, y_get(requests, "cpu"), ".resources.requests.cpu", "request at most the limit", "more than the limit of %um", pod->cpu_milli_limit);
    if (pod->memory_limit && pod->memory_request > pod->memory_limit)
        reader_error(r, y_get(requests, "memory"), ".resources.requests.memory", "request at most the limit", "more than the limit of %llu bytes",
                     (unsigned long long)pod->memory_limit);
}

#define ID_MAX 4294967294 /* (uid_t)-1 means none */

/* The container's own settings win over the template's. */
static void load_security(struct reader *r, struct object *o, const struct ynode *spec, const struct ynode *c)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *outer = y_get(spec, "securityContext"), *inner = y_get(c, "securityContext");
    pod->run_as_user = load_int(inner, "runAsUser", load_int(outer, "runAsUser", -1, ID_MAX), ID_MAX);
    pod->run_as_group = load_int(inner, "runAsGroup", load_int(outer, "runAsGroup", -1, ID_MAX), ID_MAX);
    const struct ynode *where = y_get(inner, "runAsNonRoot") ? y_get(inner, "runAsNonRoot") : y_get(outer, "runAsNonRoot");
    if (where && where->type == Y_BOOL && where->flag && pod->run_as_user <= 0)
        reader_error(r, where, ".securityContext.runAsNonRoot", "set runAsUser to the user id to run as",
                     pod->run_as_user ? "true, but no runAsUser is given" : "true, but runAsUser is 0, which is root");
}

/* ---- the container --------------------------------------------------------------------------------------------------------------- */

static void load_argv(struct reader *r, struct object *o, const struct ynode *c)
{
    size_t command_n, args_n;
    char **command = load_strings(o, c, "command", &command_n), **args = load_strings(o, c, "args", &args_n);
    char **argv = load_array(o, command_n + args_n + 1, sizeof *argv);
    if (command && !command_n)
        reader_error(r, y_get(c, "command"), ".command", "give the program: an image's entrypoint is not known here", "empty");
    if (command_n && !command[0][0])
        reader_error(r, y_get(c, "command"), ".command[0]", "give the program", "an empty string");
    for (size_t i = 0; i < command_n; i++)
        argv[i] = command[i];
    for (size_t i = 0; i < args_n; i++)
        argv[command_n + i] = args[i];
    o->dep.pod.argv = argv;
}

static char *load_cwd(struct object *o, const struct ynode *c)
{
    const char *dir = load_str(o, c, "workingDir");
    if (!dir || strcmp(dir, ".") == 0)
        return arena_strdup(&o->mem, o->dir);
    if (dir[0] == '/')
        return arena_strdup(&o->mem, dir);
    while (dir[0] == '.' && dir[1] == '/')
        dir += 2;
    return arena_printf(&o->mem, "%s/%s", strcmp(o->dir, "/") == 0 ? "" : o->dir, dir);
}

/* The only container; more than one are refused by name. */
static const struct ynode *the_container(struct reader *r, const struct ynode *spec)
{
    const struct ynode *list = y_get(spec, "containers");
    if (!list || list->type != Y_LIST)
        return NULL;
    if (!list->n)
        reader_error(r, list, "spec.template.spec.containers", "add one", "empty: exactly one container is needed");
    if (list->n > 1) {
        struct buf names = {0};
        for (uint32_t i = 0; i < list->n; i++)
            buf_printf(&names, "%s" SLICE_FMT, i ? ", " : "", SLICE_ARG(y_str(y_get(list->items[i], "name"))));
        reader_error(r, list->items[1], "spec.template.spec.containers", "give each a Deployment of its own; a sidecar proxy is not needed",
                     "refused: %u containers (%s), and replicas of several are not built yet", list->n, names.p);
        buf_free(&names);
    }
    return list->n ? list->items[0] : NULL;
}

static void load_container(struct reader *r, struct object *o, const struct ynode *spec)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *c = the_container(r, spec);
    if (!c || c->type != Y_MAP)
        return;
    size_t mark = reader_push(r, "spec.template.spec.containers[0]");
    pod->container = load_str(o, c, "name");
    pod->image = load_str(o, c, "image");
    pod->cwd = load_cwd(o, c);
    load_argv(r, o, c);
    load_ports(o, c);
    load_env(r, o, c);
    load_env_from(r, o, c);
    load_mounts(r, o, c);
    load_probe(r, o, c, "readinessProbe", true, &pod->readiness);
    load_probe(r, o, c, "livenessProbe", false, &pod->liveness);
    load_probe(r, o, c, "startupProbe", false, &pod->startup);
    load_lifecycle(r, o, c);
    load_resources(r, o, c);
    load_security(r, o, spec, c);
    reader_pop(r, mark);
}

static void load_template(struct reader *r, struct object *o, const struct ynode *template)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *spec = y_get(template, "spec");
    pod->run_as_user = pod->run_as_group = -1;
    load_kvs(o, y_path(template, "metadata.labels"), &pod->labels);
    load_kvs(o, y_path(template, "metadata.annotations"), &pod->annotations);
    pod->grace_s = (uint32_t)load_int(spec, "terminationGracePeriodSeconds", 30, 86400);
    pod->host_network = load_bool(spec, "hostNetwork", false);
    pod->service_links = load_bool(spec, "enableServiceLinks", true);
    load_volumes(r, o, spec);
    load_container(r, o, spec);
    load_place(r, o, spec);
    if (!template)
        return;
    struct buf json = {0};
    y_json(template, true, &json);
    pod->hash = stable_hash64(stable_hash64(STABLE_HASH_INIT, buf_slice(&json)), slice_cstr(pod->cwd));
    buf_free(&json);
}

/* ---- the Deployment ---------------------------------------------------------------------------------------------------------------- */

static struct int_or_pct load_int_or_pct(const struct ynode *map, const char *key)
{
    const struct ynode *n = y_get(map, key);
    uint64_t v;
    if (n && n->type == Y_INT)
        return (struct int_or_pct){.value = (int32_t)load_int(map, key, 0, 1000)};
    if (y_is_str(n) && n->text.n && slice_u64(slice_of(n->text.p, n->text.n - 1), 100, &v) == OK)
        return (struct int_or_pct){.value = (int32_t)v, .pct = true};
    return (struct int_or_pct){.value = 25, .pct = true};
}

static void load_strategy(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *strategy = y_get(spec, "strategy"), *rolling = y_get(strategy, "rollingUpdate");
    o->dep.recreate = slice_is(y_str(y_get(strategy, "type")), "Recreate");
    o->dep.max_surge = load_int_or_pct(rolling, "maxSurge");
    o->dep.max_unavailable = load_int_or_pct(rolling, "maxUnavailable");
    if (o->dep.recreate && rolling)
        reader_error(r, rolling, "spec.strategy.rollingUpdate", "remove it, or use type RollingUpdate", "has no meaning with type Recreate");
    else if (rolling && !o->dep.max_surge.value && !o->dep.max_unavailable.value)
        reader_error(r, rolling, "spec.strategy.rollingUpdate", "allow at least 1 of one of them",
                     "maxSurge and maxUnavailable are both 0: no replica could ever be replaced");
}

/* What is never to run on two nodes at once: a Deployment that is recreated never runs twice on one. */
static void load_run_once(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *n = y_get(y_path(doc, "metadata.annotations"), "weir.dev/run-once");
    bool yes = y_is_str(n) && slice_is(n->text, "true");
    if (y_is_str(n) && !yes && !slice_is(n->text, "false"))
        reader_error(r, n, "metadata.annotations[\"weir.dev/run-once\"]", "give \"true\" or \"false\"", "not known: \"%.*s\"", (int)MIN(n->text.n, 60), n->text.p);
    o->dep.run_once = yes || o->dep.recreate;
}

static void load_selector(struct reader *r, struct object *o, const struct ynode *spec)
{
    const struct ynode *selector = y_get(spec, "selector"), *labels = y_get(selector, "matchLabels");
    load_kvs(o, labels, &o->dep.selector);
    if (!selector || selector->type != Y_MAP || !y_get(spec, "template"))
        return;
    if (!o->dep.selector.n && !y_get(selector, "matchExpressions"))
        reader_error(r, selector, "spec.selector", "add matchLabels, with labels of the template", "empty");
    else if (labels && !kvs_match(&o->dep.selector, &o->dep.pod.labels))
        reader_error(r, labels, "spec.selector.matchLabels", "add the same labels to spec.template.metadata.labels", "does not match the template's labels");
}

void load_deployment(struct reader *r, struct object *o, const struct ynode *doc)
{
    const struct ynode *spec = y_get(doc, "spec");
    struct deployment *dep = &o->dep;
    if (!spec || spec->type != Y_MAP)
        return;
    dep->replicas = (uint32_t)load_int(spec, "replicas", 1, 1000);
    dep->min_ready_s = (uint32_t)load_int(spec, "minReadySeconds", 0, 86400);
    dep->progress_deadline_s = (uint32_t)load_int(spec, "progressDeadlineSeconds", 600, 86400);
    dep->paused = load_bool(spec, "paused", false);
    load_template(r, o, y_get(spec, "template"));
    load_selector(r, o, spec);
    load_strategy(r, o, spec);
    load_run_once(r, o, doc);
    if (dep->progress_deadline_s <= dep->min_ready_s)
        reader_error(r, spec, "spec.progressDeadlineSeconds", "give more", "must be more than minReadySeconds (%u)", dep->min_ready_s);
}
