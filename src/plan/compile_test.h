/* compile_test.h - what the tests of the compiler share. Sets are made from manifests, so the reader is part of what is tested;
 * a request is one line of text, "METHOD HOST TARGET [NAME:VALUE...]".
 */
#ifndef COMPILE_TEST_H
#define COMPILE_TEST_H

#include "route_int.h"
#include "route_naive.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- sets, plans, requests -------------------------------------------------------------------------------------------- */

static inline struct objset *set_read(struct slice text)
{
    struct objset *s = objset_new();
    struct diags d = {0};
    objset_read(s, "test.yaml", "/", text, "default", false, &d);
    struct buf out = {0};
    for (size_t i = 0; i < d.n; i++)
        if (d.items[i].level == DIAG_ERROR) {
            diag_format(&d.items[i], &out);
            buf_addc(&out, '\n');
        }
    if (d.errors)
        fail_msg("%s", out.p ? out.p : "errors without a text");
    diags_free(&d);
    buf_free(&out);
    return s;
}

static inline struct plan *plan_only(const struct objset *s)
{
    struct plan_memory *m = plan_memory_new();
    struct plan *p = plan_compile(m, s, NULL, 0, NULL, 0);
    plan_memory_free(m);
    return p;
}

#define GATEWAY(name, listeners)                                                                                          \
    "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: " name "}, spec: {gatewayClassName: weir, " \
    "listeners: [" listeners "]}}\n"
#define LISTENER(name, more) "{name: " name ", protocol: HTTP, port: 80" more "}"
#define FROM_ALL ", allowedRoutes: {namespaces: {from: All}}"
#define ROUTE(meta, parent, hosts, rules)                                                                                  \
    "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {" meta "}, spec: {parentRefs: [" parent "], " \
    "hostnames: [" hosts "], rules: [" rules "]}}\n"
#define RULE(name, matches) "{name: " name ", matches: [" matches "], backendRefs: [{name: web, port: 80}]}"
#define SERVICE "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}\n"

static inline void request_parse(struct h1_head *h, const char *line)
{
    struct slice rest, value, method = slice_cut(slice_cstr(line), ' ', &rest);
    struct slice host = slice_cut(rest, ' ', &rest), target = slice_cut(rest, ' ', &rest);
    request_begin(h, method, host, target);
    while (rest.n) {
        struct slice name = slice_cut(slice_cut(rest, ' ', &rest), ':', &value);
        request_field(h, name, value);
    }
}

/* ---- looking into plans ------------------------------------------------------------------------------------------------ */

static inline const struct plan_cluster *cluster_find(const struct plan *p, const char *ns, const char *service, uint16_t port)
{
    for (uint32_t i = 0; i < p->clusters_n; i++)
        if (strcmp(p->clusters[i].ns, ns) == 0 && strcmp(p->clusters[i].service, service) == 0 && p->clusters[i].port == port && !p->clusters[i].subset)
            return &p->clusters[i];
    return NULL;
}

static inline const struct plan_listener *listener_at(const struct plan *p, uint16_t port)
{
    for (uint32_t i = 0; i < p->listeners_n; i++)
        if (p->listeners[i].address.port == port)
            return &p->listeners[i];
    fail_msg("no listener on port %u", port);
    return NULL;
}

#endif
