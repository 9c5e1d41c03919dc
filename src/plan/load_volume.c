/* load_volume.c - volumes of a template, and where its container mounts them.
 *
 *     volumes:                                            volumeMounts:
 *     - { name: conf, configMap: { name: web } }    <---  - { name: conf, mountPath: /etc/web }
 *
 * All are folders of files made of ConfigMaps and Secrets; a volume of one of them is a projected one with a single source.
 */
#include "plan_int.h"

#include <stdlib.h>

#define MOUNTS_MAX 32 /* of one container: what the message to the supervisor has room for in any case */

/* A path in a volume: relative, no element that is empty, "." or begins with "..". */
static bool path_within(const char *path)
{
    for (const char *part = path;; part++) {
        size_t n = strcspn(part, "/");
        if (!n || (n == 1 && part[0] == '.') || (part[0] == '.' && part[1] == '.'))
            return false;
        part += n;
        if (!*part)
            return true;
    }
}

static void load_items(struct reader *r, struct object *o, const struct ynode *map, struct volume_source *s)
{
    const struct ynode *list = y_get(map, "items");
    s->items_n = load_list_n(map, "items");
    s->items = load_array(o, s->items_n, sizeof *s->items);
    for (uint32_t i = 0; i < s->items_n; i++) {
        const struct ynode *n = list->items[i];
        struct volume_item *it = &s->items[i];
        it->key = load_str(o, n, "key");
        it->path = load_str(o, n, "path");
        it->mode = (int32_t)load_int(n, "mode", -1, 511);
        if (it->path && !path_within(it->path)) {
            size_t mark = reader_push(r, ".items[%u]", i);
            reader_error(r, y_get(n, "path"), ".path", "give a relative path without empty, \".\" and \"..\" elements", "\"%s\" is no path in a volume", it->path);
            reader_pop(r, mark);
        }
    }
}

static void load_source(struct reader *r, struct object *o, const struct ynode *map, bool secret, const char *name_key, struct volume_source *s)
{
    s->secret = secret;
    s->map = load_str(o, map, name_key);
    s->optional = load_bool(map, "optional", false);
    load_items(r, o, map, s);
}

static void load_projected(struct reader *r, struct object *o, const struct ynode *projected, struct volume *v)
{
    static const char *const kinds[] = {"configMap", "secret", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", NULL};
    const struct ynode *list = y_get(projected, "sources");
    v->sources_n = load_list_n(projected, "sources");
    v->sources = load_array(o, v->sources_n, sizeof *v->sources);
    for (uint32_t i = 0; i < v->sources_n; i++) {
        size_t mark = reader_push(r, ".projected.sources[%u]", i);
        const char *kind = list->items[i]->type == Y_MAP ? load_one_of(r, list->items[i], kinds) : NULL;
        if (kind == kinds[0] || kind == kinds[1])
            load_source(r, o, y_get(list->items[i], kind), kind == kinds[1], "name", &v->sources[i]);
        reader_pop(r, mark);
    }
}

static void load_volume(struct reader *r, struct object *o, const struct ynode *n, struct volume *v)
{
    static const char *const kinds[] = {"configMap", "secret", "projected", "emptyDir", "hostPath", "persistentVolumeClaim", "downwardAPI", "csi", "ephemeral", "nfs", NULL};
    v->name = load_str(o, n, "name");
    v->mode = 0644;
    const char *kind = n->type == Y_MAP ? load_one_of(r, n, kinds) : NULL;
    const struct ynode *map = kind ? y_get(n, kind) : NULL;
    size_t mark = reader_push(r, ".%s", kind ? kind : "");
    if (kind == kinds[0] || kind == kinds[1]) {
        v->sources_n = 1;
        v->sources = load_array(o, 1, sizeof *v->sources);
        load_source(r, o, map, kind == kinds[1], kind == kinds[1] ? "secretName" : "name", &v->sources[0]);
    }
    reader_pop(r, mark);
    if (kind == kinds[2])
        load_projected(r, o, map, v);
    v->mode = (uint32_t)load_int(map, "defaultMode", 0644, 511);
}

void load_volumes(struct reader *r, struct object *o, const struct ynode *spec)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *list = y_get(spec, "volumes");
    pod->volumes_n = load_list_n(spec, "volumes");
    pod->volumes = load_array(o, pod->volumes_n, sizeof *pod->volumes);
    for (uint32_t i = 0; i < pod->volumes_n; i++) {
        size_t mark = reader_push(r, "spec.template.spec.volumes[%u]", i);
        load_volume(r, o, list->items[i], &pod->volumes[i]);
        reader_pop(r, mark);
    }
}

/* ---- mounts ------------------------------------------------------------------------------------------------------------------- */

static bool below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == 0 || path[n] == '/');
}

/* Without '/' at its end. NULL: no place for a volume, as was said. */
static char *mount_path(struct reader *r, struct object *o, const struct ynode *n)
{
    static const char *const taken[] = {"/proc", "/sys", "/dev", "/etc/hosts", "/etc/resolv.conf"};
    char *path = load_str(o, n, "mountPath");
    const struct ynode *at = y_get(n, "mountPath");
    size_t len = path ? strlen(path) : 0;
    while (len > 1 && path[len - 1] == '/')
        path[--len] = 0;
    if (!path)
        return NULL;
    if (path[0] != '/' || !path[1] || !path_within(path + 1)) {
        reader_error(r, at, ".mountPath", "give an absolute path other than /, without empty, \".\" and \"..\" elements", "\"%s\" is no place for a volume", path);
        return NULL;
    }
    for (size_t i = 0; i < COUNT_OF(taken); i++) {
        if (!below(path, taken[i]))
            continue;
        reader_error(r, at, ".mountPath", "choose another path", "%s is Weir's to give", taken[i]);
        return NULL;
    }
    return path;
}

/* False: no such volume. */
static bool volume_index(const struct pod_template *pod, const char *name, uint32_t *i)
{
    for (*i = 0; *i < pod->volumes_n; (*i)++)
        if (pod->volumes[*i].name && strcmp(pod->volumes[*i].name, name) == 0)
            return true;
    return false;
}

static void load_mount(struct reader *r, struct object *o, const struct ynode *n)
{
    struct pod_template *pod = &o->dep.pod;
    struct volume_mount m = {.path = mount_path(r, o, n), .sub_path = load_str(o, n, "subPath")};
    char *name = load_str(o, n, "name");
    if (name && !volume_index(pod, name, &m.volume))
        reader_error(r, y_get(n, "name"), ".name", "add it to spec.template.spec.volumes, or correct the name", "there is no volume %s", name);
    if (m.sub_path && !path_within(m.sub_path))
        reader_error(r, y_get(n, "subPath"), ".subPath", "give a relative path without empty, \".\" and \"..\" elements", "\"%s\" is no path in a volume", m.sub_path);
    for (size_t i = 0; m.path && i < pod->mounts_n; i++)
        if (strcmp(pod->mounts[i].path, m.path) == 0)
            reader_error(r, y_get(n, "mountPath"), ".mountPath", "keep one of them", "%s is given twice", m.path);
    if (m.path && name)
        pod->mounts[pod->mounts_n++] = m;
}

static int mount_order(const void *a, const void *b) { return strcmp(((const struct volume_mount *)a)->path, ((const struct volume_mount *)b)->path); }

void load_mounts(struct reader *r, struct object *o, const struct ynode *c)
{
    struct pod_template *pod = &o->dep.pod;
    const struct ynode *list = y_get(c, "volumeMounts");
    uint32_t n = load_list_n(c, "volumeMounts");
    pod->mounts = load_array(o, n, sizeof *pod->mounts);
    if (n > MOUNTS_MAX)
        reader_error(r, list, ".volumeMounts", "put several sources into one projected volume", "%u mounts, and %d are the most", n, MOUNTS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        size_t mark = reader_push(r, ".volumeMounts[%u]", i);
        if (list->items[i]->type == Y_MAP)
            load_mount(r, o, list->items[i]);
        reader_pop(r, mark);
    }
    if (pod->mounts_n)
        qsort(pod->mounts, pod->mounts_n, sizeof *pod->mounts, mount_order);
}
