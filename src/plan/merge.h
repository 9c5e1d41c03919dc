/* merge.h - server-side apply: who owns which field of an object, and what becomes of it when somebody applies a manifest.
 *
 * As Kubernetes defines it ("Server-Side Apply"; KEP-555). Pure functions on trees of jansson; an object's owners are kept in its
 * metadata.managedFields, in Kubernetes' form; most have one owner of everything, "weir", and that goes without saying.
 */
#ifndef MERGE_H
#define MERGE_H

#include "plan.h"

#include <jansson.h>

#define MERGE_MANAGER "weir"           /* who applies when nobody says; also the owner of all that has no owners yet */
#define MERGE_MANAGER_CHARS_MAX 128    /* of a manager's name, as in Kubernetes */
#define MERGE_MANAGERS_MAX 32          /* of one object */
#define MERGE_CONFLICTS_MAX 200        /* told of one apply; n counts on */

struct merge_conf {
    const char *manager; /* who applies */
    bool force;          /* take over what others own with another value */
    bool patch;          /* not apply but update: what the manifest gives is set, null removes, all else stays; nobody is asked (Kubernetes' operation Update) */
    uint64_t now_ns;     /* wall clock */
};
struct merge_conflict {
    char *kind, *ns, *name; /* the object; set by objset_own() only, else NULL */
    char *manager;          /* who owns the field */
    char *field;            /* ".spec.template.spec.containers[name=\"web\"].image" */
};
struct merge_conflicts {
    struct merge_conflict *items;
    size_t kept, cap;
    size_t n; /* all, also those that are not kept */
};
void merge_conflicts_free(struct merge_conflicts *c);
/* Who owns what, as metadata.managedFields has it, also where that is left out since all is MERGE_MANAGER's. A new reference. */
json_t *merge_owners(const json_t *manifest);
bool merge_manager_valid(struct slice name); /* printable, 1 to MERGE_MANAGER_CHARS_MAX bytes */

/* What becomes of live (NULL: there is none) when conf->manager gives this manifest: *out, a new reference, with managedFields. ERR_INUSE: others own
 * fields that would change; they are added to c, and *out is untouched. ERR_LIMIT: MERGE_MANAGERS_MAX. Neither live nor given is changed, both
 * must be manifests that the reader took. In Secrets stringData becomes data, as in Kubernetes. */
enum err merge_manifest(const json_t *live, const json_t *given, const struct merge_conf *conf, json_t **out, struct merge_conflicts *c) WARN_UNUSED;

/* The same for each object of given, which becomes what it will be. Objects that can't be read any more once they are merged are errors in d. On
 * ERR_INUSE and errors given is meaningless. What objset_read_parts() left incomplete needs its other fields from live. */
enum err objset_own(struct objset *given, const struct objset *live, const struct merge_conf *conf, struct merge_conflicts *c, struct diags *d) WARN_UNUSED;

#endif
