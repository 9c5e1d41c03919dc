/* kinds.c - what `get` can show, and how long ago something was. */
#include "cli.h"

#include <time.h>

#define OBJECTS "/v1/objects?kind=" /* kinds without an endpoint of their own */

const struct view views[] = {
    {"workloads", "/v1/workloads", "deployment", OBJ_DEPLOYMENT, false},
    {"replicas", "/v1/workloads", "replica", OBJ_DEPLOYMENT, true},
    {"services", "/v1/services", "service", OBJ_SERVICE, false},
    {"gateways", "/v1/gateways", "gateway", OBJ_GATEWAY, false},
    {"routes", "/v1/routes", "httproute", OBJ_HTTPROUTE, false},
    {"configmaps", "/v1/configmaps", "configmap", OBJ_CONFIGMAP, false},
    {"secrets", "/v1/secrets", "secret", OBJ_SECRET, false},
    {"namespaces", "/v1/namespaces", "namespace", OBJ_NAMESPACE, false},
    {"grpcroutes", OBJECTS "GRPCRoute", "grpcroute", OBJ_GRPCROUTE, false},
    {"tcproutes", OBJECTS "TCPRoute", "tcproute", OBJ_TCPROUTE, false},
    {"tlsroutes", OBJECTS "TLSRoute", "tlsroute", OBJ_TLSROUTE, false},
    {"referencegrants", OBJECTS "ReferenceGrant", "referencegrant", OBJ_REFERENCEGRANT, false},
    {"backendtlspolicies", OBJECTS "BackendTLSPolicy", "backendtlspolicy", OBJ_BACKENDTLSPOLICY, false},
    {"virtualservices", OBJECTS "VirtualService", "virtualservice", OBJ_VIRTUALSERVICE, false},
    {"destinationrules", OBJECTS "DestinationRule", "destinationrule", OBJ_DESTINATIONRULE, false},
    {"gateways.networking.istio.io", OBJECTS "Gateway.networking.istio.io", "gateway.networking.istio.io", OBJ_ISTIO_GATEWAY, false},
    {"serviceentries", OBJECTS "ServiceEntry", "serviceentry", OBJ_SERVICEENTRY, false},
    {"sidecars", OBJECTS "Sidecar", "sidecar", OBJ_SIDECAR, false},
    {"peerauthentications", OBJECTS "PeerAuthentication", "peerauthentication", OBJ_PEERAUTHENTICATION, false},
    {"trafficsplits", OBJECTS "TrafficSplit", "trafficsplit", OBJ_TRAFFICSPLIT, false},
    {"httpfilters", OBJECTS "HTTPFilter", "httpfilter", OBJ_HTTPFILTER, false},
    {"backendpolicies", OBJECTS "BackendPolicy", "backendpolicy", OBJ_BACKENDPOLICY, false},
    {"topics", OBJECTS "Topic", "topic", OBJ_TOPIC, false},
    {"keyspaces", OBJECTS "Keyspace", "keyspace", OBJ_KEYSPACE, false},
    {"kafkatopics", OBJECTS "KafkaTopic", "kafkatopic", OBJ_KAFKATOPIC, false},
    {"nodes", "/v1/nodes", "node", VIEW_NODE, false},
    {"endpointslices", "/v1/endpointslices", "endpointslice", VIEW_ENDPOINTSLICE, false},
};
const size_t views_n = COUNT_OF(views);

const struct view *view_find(const char *name)
{
    static const char *const workloads[] = {"workload", "workloads"}, *const replicas[] = {"replica", "replicas", "pod", "pods", "po"};
    static const char *const routes[] = {"route", "routes"};
    static const char *const seen[][2] = {{"node", "nodes"}, {"nodes", "nodes"}, {"no", "nodes"}, {"endpointslice", "endpointslices"}, {"endpointslices", "endpointslices"}, {"endpointslices.discovery.k8s.io", "endpointslices"}};
    enum obj_kind k;
    for (size_t i = 0; i < COUNT_OF(seen); i++)
        for (size_t v = 0; v < views_n && strcmp(name, seen[i][0]) == 0; v++)
            if (strcmp(views[v].name, seen[i][1]) == 0)
                return &views[v];
    for (size_t i = 0; i < COUNT_OF(workloads); i++)
        if (strcmp(name, workloads[i]) == 0)
            return &views[0];
    for (size_t i = 0; i < COUNT_OF(replicas); i++)
        if (strcmp(name, replicas[i]) == 0)
            return &views[1];
    for (size_t i = 0; i < COUNT_OF(routes); i++)
        if (strcmp(name, routes[i]) == 0)
            return view_find("httproute");
    if (!obj_kind_parse(slice_cstr(name), &k))
        return NULL;
    for (size_t i = 0; i < views_n; i++)
        if (views[i].kind == k && !views[i].replicas)
            return &views[i];
    return NULL;
}

void age_text(const char *rfc3339, char out[16])
{
    struct tm tm = {0};
    const char *end = rfc3339 ? strptime(rfc3339, "%Y-%m-%dT%H:%M:%SZ", &tm) : NULL;
    if (!end || *end) {
        snprintf(out, 16, "-");
        return;
    }
    int64_t s = (int64_t)(wall_ns() / 1000000000u) - timegm(&tm);
    s = MAX(s, 0);
    if (s < 120)
        snprintf(out, 16, "%ds", (int)s);
    else if (s < 7200)
        snprintf(out, 16, "%dm", (int)(s / 60));
    else if (s < 172800)
        snprintf(out, 16, "%dh", (int)(s / 3600));
    else
        snprintf(out, 16, "%dd", (int)(s / 86400));
}
