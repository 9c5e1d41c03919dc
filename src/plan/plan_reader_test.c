/* plan_reader_test.c - the reader: what good manifests become, what is said about bad ones (each with its line and column),
 * limits, references, save and load, environments, explain.
 */
#include "plan_reader_test.h"

#include <stdlib.h>

/* ---- good manifests ------------------------------------------------------------------------------------------------- */

static const char good_app[] =
    "apiVersion: v1\n"
    "kind: List\n"
    "items:\n"
    "- apiVersion: v1\n"
    "  kind: ConfigMap\n"
    "  metadata: { name: cfg }\n"
    "  data: { A: \"1\", GREETING: \"hello $(A)\", 9x: out }\n"
    "  binaryData: { B: aGVsbG8= }\n"
    "- apiVersion: v1\n"
    "  kind: Secret\n"
    "  metadata: { name: sec }\n"
    "  type: Opaque\n"
    "  data: { PASS: c2VjcmV0, USER: b2xk, ZERO: YQBi }\n"
    "  stringData: { USER: me }\n"
    "---\n"
    "apiVersion: apps/v1\n"
    "kind: Deployment\n"
    "metadata: { name: web, annotations: { note: \"any text, even: this\" } }\n"
    "spec:\n"
    "  replicas: 2\n"
    "  minReadySeconds: 1\n"
    "  selector: { matchLabels: &l { app: web } }\n"
    "  strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0% } }\n"
    "  template:\n"
    "    metadata: { labels: { <<: *l, v: \"1\" } }\n"
    "    spec:\n"
    "      terminationGracePeriodSeconds: 5\n"
    "      securityContext: { runAsUser: 1000, runAsNonRoot: true }\n"
    "      containers:\n"
    "      - name: web\n"
    "        image: web:1\n"
    "        command: [./web, \"--user=$(USER)\", \"$$(USER)\", $(NOPE), $(A]\n"
    "        args: [a$]\n"
    "        workingDir: ./sub\n"
    "        ports: [ { containerPort: 8080, name: http } ]\n"
    "        envFrom: [ { configMapRef: { name: cfg } }, { secretRef: { name: none, optional: true }, prefix: S_ } ]\n"
    "        env:\n"
    "        - { name: USER, valueFrom: { secretKeyRef: { name: sec, key: USER } } }\n"
    "        - { name: URL, value: \"http://$(WEB_SERVICE_HOST):$(WEB_SERVICE_PORT_HTTP)/$(USER)$$(X)$(LATER)\" }\n"
    "        - { name: A, value: over }\n"
    "        - { name: LATER }\n"
    "        readinessProbe: { httpGet: { port: http, path: \"/h?x=1\", httpHeaders: [ { name: X, value: z } ] }, failureThreshold: 1 }\n"
    "        livenessProbe: { exec: { command: [check, now] }, timeoutSeconds: 2 }\n"
    "        startupProbe: { tcpSocket: { port: 8080 }, initialDelaySeconds: 3, periodSeconds: 4 }\n"
    "        lifecycle: { preStop: { sleep: { seconds: 1 } } }\n"
    "        resources: { requests: { cpu: 0.1 }, limits: { cpu: \"1\", memory: 1.5Gi } }\n"
    "---\n"
    "apiVersion: v1\n"
    "kind: Service\n"
    "metadata: { name: web }\n"
    "spec: { selector: { app: web }, ports: [ { port: 80, targetPort: http, name: http }, { port: 81, name: b } ] }\n"
    "---\n"
    "apiVersion: v1\n"
    "kind: Service\n"
    "metadata: { name: out }\n"
    "spec: { type: ExternalName, externalName: api.example.com, ports: [ { port: 80 } ] }\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1\n"
    "kind: Gateway\n"
    "metadata: { name: gw }\n"
    "spec:\n"
    "  gatewayClassName: weir\n"
    "  addresses: [ { value: 0.0.0.0 } ]\n"
    "  listeners: [ { name: http, port: 8080, protocol: HTTP, hostname: \"*.example.com\", allowedRoutes: { namespaces: { from: All } } } ]\n"
    "---\n"
    "apiVersion: gateway.networking.k8s.io/v1beta1\n"
    "kind: HTTPRoute\n"
    "metadata: { name: r }\n"
    "spec:\n"
    "  parentRefs: [ { name: gw, sectionName: http, port: 8080 } ]\n"
    "  hostnames: [ \"*.example.com\", shop.example.com ]\n"
    "  rules:\n"
    "  - matches: [ { path: { value: /api } } ]\n"
    "    filters:\n"
    "    - { type: URLRewrite, urlRewrite: { hostname: inner, path: { type: ReplacePrefixMatch, replacePrefixMatch: / } } }\n"
    "    - { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: a, value: b } ], remove: [ c ] } }\n"
    "    backendRefs:\n"
    "    - { name: web, port: 80, weight: 9, filters: [ { type: ResponseHeaderModifier, responseHeaderModifier: { add: [ { name: x, value: z } ] } } ] }\n"
    "    - { name: out, port: 80 }\n"
    "    timeouts: { request: 1m30s, backendRequest: 500ms }\n"
    "  - matches: [ { path: { type: Exact, value: /old }, method: GET, headers: [ { name: H, value: v } ], queryParams: [ { name: q, value: w } ] } ]\n"
    "    filters: [ { type: RequestRedirect, requestRedirect: { scheme: https, port: 8443, statusCode: 301, path: { type: ReplaceFullPath, replaceFullPath: /new } } } ]\n"
    "  - backendRefs: [ { name: web, port: 81 } ]\n"
    "---\n"
    "apiVersion: v1\n"
    "kind: Namespace\n"
    "metadata: { name: shop }\n";

static void test_deployment(void **state)
{
    struct objset *s = read_good(good_app);
    assert_int_equal(objset_n(s), 8);
    const struct object *o = objset_find(s, OBJ_DEPLOYMENT, "default", "web");
    assert_non_null(o);
    assert_int_equal(o->line, 16);
    assert_int_equal(o->column, 1);
    assert_string_equal(kvs_get(&o->annotations, SLICE("note"))->value, "any text, even: this");
    const struct deployment *dep = &o->dep;
    const struct pod_template *pod = &dep->pod;
    assert_int_equal(dep->replicas, 2);
    assert_int_equal(dep->min_ready_s, 1);
    assert_int_equal(dep->progress_deadline_s, 600);
    assert_true(dep->max_surge.value == 1 && !dep->max_surge.pct);
    assert_true(dep->max_unavailable.value == 0 && dep->max_unavailable.pct);
    assert_string_equal(kvs_get(&pod->labels, SLICE("app"))->value, "web"); /* by << */
    assert_string_equal(kvs_get(&pod->labels, SLICE("v"))->value, "1");
    assert_string_equal(pod->cwd, "/srv/app/sub");
    assert_string_equal(pod->argv[0], "./web");
    assert_string_equal(pod->argv[5], "a$");
    assert_null(pod->argv[6]);
    assert_int_equal(pod->grace_s, 5);
    assert_true(pod->run_as_user == 1000 && pod->run_as_group == -1 && pod->service_links && !pod->host_network);
    assert_int_equal(pod->readiness.kind, PROBE_HTTP);
    assert_int_equal(pod->readiness.port, 8080);
    assert_string_equal(pod->readiness.path, "/h?x=1");
    assert_true(pod->readiness.period_s == 10 && pod->readiness.timeout_s == 1 && pod->readiness.success_threshold == 1 &&
                pod->readiness.failure_threshold == 1);
    assert_int_equal(pod->liveness.kind, PROBE_EXEC);
    assert_string_equal(pod->liveness.argv[1], "now");
    assert_true(pod->startup.kind == PROBE_TCP && pod->startup.port == 8080 && pod->startup.initial_delay_s == 3);
    assert_int_equal(pod->pre_stop_sleep_s, 1);
    assert_true(pod->cpu_milli_request == 100 && pod->cpu_milli_limit == 1000);
    assert_true(pod->memory_limit == 1536ull << 20 && pod->memory_request == pod->memory_limit);
    objset_free(s);
}

static void test_network_objects(void **state)
{
    struct objset *s = read_good(good_app);
    const struct service *svc = &objset_find(s, OBJ_SERVICE, "default", "web")->svc;
    assert_true(svc->ports_n == 2 && svc->ports[0].target == 0 && svc->ports[1].target == 81);
    assert_string_equal(svc->ports[0].target_name, "http");
    assert_string_equal(objset_find(s, OBJ_SERVICE, "default", "out")->svc.external_name, "api.example.com");
    const struct gateway *gw = &objset_find(s, OBJ_GATEWAY, "default", "gw")->gw;
    assert_true(gw->addresses_n == 1 && addr_ip4_host(&gw->addresses[0]) == 0 && gw->addresses[0].family == ADDR_IP4);
    assert_true(gw->listeners_n == 1 && gw->listeners[0].from == LISTEN_FROM_ALL && gw->listeners[0].port == 8080);
    const struct http_route *route = &objset_find(s, OBJ_HTTPROUTE, "default", "r")->route;
    assert_true(route->parents_n == 1 && route->hostnames_n == 2 && route->rules_n == 3);
    assert_string_equal(route->parents[0].ns, "default");
    const struct route_rule *rule = route->rules;
    assert_true(rule->matches_n == 1 && rule->matches[0].path_kind == MATCH_PREFIX);
    assert_true(rule->rewrite_path_kind == REWRITE_PREFIX && strcmp(rule->rewrite_path, "/") == 0 && strcmp(rule->rewrite_host, "inner") == 0);
    assert_true(rule->req.set.n == 1 && rule->req.remove_n == 1 && rule->timeout_ms == 90000 && rule->backend_timeout_ms == 500);
    assert_true(rule->backends_n == 2 && rule->backends[0].weight == 9 && rule->backends[1].weight == 1 && rule->backends[0].resp.add.n == 1);
    assert_true(rule[1].redirect && rule[1].redirect_status == 301 && rule[1].redirect_port == 8443 && rule[1].redirect_path_kind == REWRITE_FULL);
    assert_string_equal(rule[1].matches[0].method, "GET");
    assert_true(rule[1].matches[0].headers_n == 1 && rule[1].matches[0].queries_n == 1 && rule[1].matches[0].path_kind == MATCH_EXACT);
    assert_true(rule[2].matches_n == 0 && rule[2].line == 83);
    const struct kvs *sec = &objset_find(s, OBJ_SECRET, "default", "sec")->data;
    assert_string_equal(kvs_get(sec, SLICE("USER"))->value, "me");
    assert_int_equal(kvs_get(sec, SLICE("ZERO"))->value_n, 3);
    struct diags d = {0};
    objset_check(s, &d);
    expect_diags("check", &d, "");
    objset_free(s);
}

/* ---- bad manifests ---------------------------------------------------------------------------------------------------- */

/* A Deployment whose container gets more, indented by 8, from line 10 on. */
#define DEP(more)                                                                                                                                              \
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\n"                                                                                           \
    "spec:\n  selector: { matchLabels: { a: b } }\n"                                                                                                           \
    "  template:\n    metadata: { labels: { a: b } }\n    spec: { containers: [ { name: c, command: [x],\n" more " } ] }\n"
#define VOL(volumes, mounts)                                                                                                                                   \
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\n"                                                                                           \
    "spec:\n  selector: { matchLabels: { a: b } }\n"                                                                                                           \
    "  template:\n    metadata: { labels: { a: b } }\n    spec: { volumes: [ " volumes " ],\n containers: [ { name: c, command: [x],\n  volumeMounts: " mounts " } ] }\n"
#define AT_C "Deployment/default/a spec.template.spec.containers[0]."
#define SVC(spec) "apiVersion: v1\nkind: Service\nmetadata: { name: s }\nspec: " spec "\n"
#define AT_S "Service/default/s spec."
#define GW(spec) "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: { name: g }\nspec: { gatewayClassName: x,\n" spec " }\n"
#define AT_G "Gateway/default/g spec."
#define ROUTE(rules)                                                                                                                                           \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ],\nrules: [ " rules " ] }\n"
#define AT_R "HTTPRoute/default/r spec."
#define TO_S "backendRefs: [ { name: s, port: 80 } ]"

static const struct bad_case bad_cases[] = {
    /* text that is no YAML, and documents that are no objects */
    {"empty", "", "m.yaml: warning: the file holds no object"},
    {"comment only", "# nothing\n---\n", "m.yaml: warning: the file holds no object"},
    {"open bracket", "a: [1, 2\n", "m.yaml:2:1: error: not YAML: flow sequence without a closing bracket"},
    {"tab indentation", "a:\n\tb: c\n", "m.yaml:2:"},
    {"one bad document does not hide the next", "a: {\n---\nkind: X\n---\n- a\n",
     "m.yaml:2:1: error: not YAML:\nm.yaml:3:1: error: apiVersion: missing\nm.yaml:5:1: error: a document is a list"},
    {"not UTF-8", "a: b\nc: \xff\n", "m.yaml:2:4: error: the text is not UTF-8; save the file as UTF-8"},
    {"control character", "a: \x01", "m.yaml:1:4: error: a control character (01)"},
    {"escaped NUL", "a: \"x\\0\"\n", "m.yaml:1:1: error: apiVersion: missing\nm.yaml:1:1: error: kind: missing\nm.yaml:1:4: error: a string may not hold a NUL"},
    {"duplicate key", "apiVersion: v1\nkind: Namespace\nmetadata: { name: a }\nmetadata:\n  name: b\n", "m.yaml:4:1: error: the key metadata is given twice: first at line 3; keep one of them"},
    {"unknown alias", "a: *x\n", "m.yaml:1:4: error: there is no anchor for the alias *x"},
    {"alias inside its anchor", "a: &x { b: *x }\n", "m.yaml:1:12: error: the alias *x stands inside its own anchor"},
    {"unknown tag", "apiVersion: v1\nkind: !secret Namespace\nmetadata: { name: a }\n", "m.yaml:2:15: error: the tag !secret is not known"},
    {"complex key", "? [a]\n: b\n", "m.yaml:1:1: error: apiVersion: missing\nm.yaml:1:1: error: kind: missing\nm.yaml:1:"},
    {"merge of a string", "a: { <<: x }\n", "m.yaml:1:1: error: apiVersion: missing\nm.yaml:1:1: error: kind: missing\nm.yaml:1:10: error: << merges maps"},
    {"kind is a number", "apiVersion: v1\nkind: 1\n", "m.yaml:2:7: error: kind: must be a string"},

    /* kinds */
    {"unknown kind", "apiVersion: v1\nkind: Sekret\nmetadata: { name: a }\n", "m.yaml:2:7: warning: Sekret/default/a: ignored: the kind Sekret of v1 is not known here"},
    {"not built", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: { name: a }\n", "m.yaml:2:7: warning: StatefulSet/default/a: StatefulSet is not built yet"},
    {"old apiVersion", "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: { name: a }\n",
     "m.yaml:1:13: error: Deployment/default/a apiVersion: extensions/v1beta1 has no kind Deployment known here; write apiVersion: apps/v1"},
    {"same object twice", "apiVersion: v1\nkind: Namespace\nmetadata: { name: a }\n---\napiVersion: v1\nkind: Namespace\nmetadata: { name: a }\n",
     "m.yaml:5:1: error: Namespace/a: the object is in this file twice: first at line 1"},
    {"namespaced Namespace", "apiVersion: v1\nkind: Namespace\nmetadata: { name: a, namespace: b }\n", "m.yaml:3:33: error: Namespace/a metadata.namespace: a Namespace is in no namespace"},
    {"bad names", "apiVersion: v1\nkind: Service\nmetadata: { name: 0a, namespace: A_b }\nspec: { selector: { a: b }, ports: [ { port: 1 } ] }\n",
     "m.yaml:3:19: error: Service/A_b/0a metadata.name: not a host name: \"0a\"\nm.yaml:3:34: error: Service/A_b/0a metadata.namespace: not valid here: \"A_b\""},
    {"no metadata", "apiVersion: v1\nkind: ConfigMap\n", "m.yaml:1:1: error: ConfigMap/default/ metadata: missing; add it"},
    {"number as a name", "apiVersion: v1\nkind: Namespace\nmetadata: { name: 12 }\n", "m.yaml:3:19: error: Namespace/ metadata.name: must be a string"},

    /* fields */
    {"unknown field, with a guess", DEP("  imagePulPolicy: Always"), "m.yaml:9:3: warning: " AT_C "imagePulPolicy: unknown field of a container; did you mean imagePullPolicy?"},
    {"ignored field", DEP("  imagePullPolicy: Always"), "m.yaml:9:3: warning: " AT_C "imagePullPolicy: ignored: no images are pulled"},
    {"refused field", DEP("  volumeDevices: []"), "m.yaml:9:3: error: " AT_C "volumeDevices: refused: block devices are not built"},
    {"mount of no volume", DEP("  volumeMounts: [ { name: v, mountPath: /v } ]"), "m.yaml:9:27: error: " AT_C "volumeMounts[0].name: there is no volume v"},
    {"mounts at bad places", VOL("{ name: v, configMap: { name: c } }", "[ { name: v, mountPath: v },\n{ name: v, mountPath: /a/../b },\n{ name: v, mountPath: / },\n{ name: v, mountPath: /proc/x },\n{ name: v, mountPath: /a/ },\n{ name: v, mountPath: /a } ]"),
     "m.yaml:10:41: error: " AT_C "volumeMounts[0].mountPath: \"v\" is no place for a volume\nm.yaml:11:23: error: " AT_C "volumeMounts[1].mountPath: \"/a/../b\" is no place\n"
     "m.yaml:12:23: error: " AT_C "volumeMounts[2].mountPath: \"/\" is no place\nm.yaml:13:23: error: " AT_C "volumeMounts[3].mountPath: /proc is Weir's to give\n"
     "m.yaml:15:23: error: " AT_C "volumeMounts[5].mountPath: /a is given twice"},
    {"bad volumes", VOL("{ name: v },\n{ name: w, configMap: { name: c }, secret: { secretName: s } },\n{ name: x, emptyDir: {} }, { name: z, secret: { secretName: s, items: [ { key: k, path: ../k } ] } }", "[]"),
     "m.yaml:8:24: error: Deployment/default/a spec.template.spec.volumes[0]: none of configMap, secret\nm.yaml:9:1: error: Deployment/default/a spec.template.spec.volumes[1]: more than one of\n"
     "m.yaml:10:12: error: Deployment/default/a spec.template.spec.volumes[2].emptyDir: refused: empty folders are not built yet\n"
     "m.yaml:10:89: error: Deployment/default/a spec.template.spec.volumes[3].secret.items[0].path: \"../k\" is no path in a volume"},
    {"number as a string", DEP("  env: [ { name: PORT, value: 8080 } ]"), "m.yaml:9:31: error: " AT_C "env[0].value: 8080 is a whole number, and must be a string; put it in quotes: \"8080\""},
    {"yes as a string", DEP("  env: [ { name: X, value: yes } ]"), "m.yaml:9:28: error: " AT_C "env[0].value: yes is a boolean, and must be a string; put it in quotes: \"yes\""},
    {"float as a string", DEP("  env: [ { name: X, value: 1.50 } ]"), "m.yaml:9:28: error: " AT_C "env[0].value: 1.50 is a fraction, and must be a string; put it in quotes: \"1.50\""},
    {"string as a number", DEP("  readinessProbe: { tcpSocket: { port: 1 }, periodSeconds: \"5\" }"), "m.yaml:9:60: error: " AT_C "readinessProbe.periodSeconds: is a string, and must be a whole number"},
    {"list expected", DEP("  args: a"), "m.yaml:9:9: error: " AT_C "args: is a string, and must be a list; begin each item with '- '"},
    {"map expected", DEP("  resources: [a]"), "m.yaml:9:14: error: " AT_C "resources: is a list, and must be a map"},
    {"null item", DEP("  args: [a, null]"), "m.yaml:9:13: error: " AT_C "args[1]: an item without a value"},
    {"out of range", DEP("  readinessProbe: { tcpSocket: { port: 70000 }, periodSeconds: 0 }"),
     "m.yaml:9:40: error: " AT_C "readinessProbe.tcpSocket.port: 70000 is out of range; give a number from 1 to 65535\n"
     "m.yaml:9:64: error: " AT_C "readinessProbe.periodSeconds: 0 is out of range; give a number from 1 to 86400"},
    {"bad quantities", DEP("  resources: { limits: { cpu: 100x, memory: 128m }, requests: { cpu: 2000000 } }"),
     "m.yaml:9:31: error: " AT_C "resources.limits.cpu: not an amount: \"100x\"\n"
     "m.yaml:9:45: error: " AT_C "resources.limits.memory: m is a thousandth of a byte: \"128m\"\n"
     "m.yaml:9:70: error: " AT_C "resources.requests.cpu: too much: \"2000000\""},
    {"request above limit", DEP("  resources: { limits: { cpu: 1 }, requests: { cpu: 1001m } }"), "m.yaml:9:53: error: " AT_C "resources.requests.cpu: more than the limit of 1000m"},
    {"duplicate variable", DEP("  env: [ { name: A }, { name: A } ]"), "m.yaml:9:31: warning: " AT_C "env[1].name: A is given twice, and this one wins: first at line 9"},
    {"two sources of a variable", DEP("  env: [ { name: A, value: b, valueFrom: { configMapKeyRef: { name: m, key: k } } } ]"), "m.yaml:9:42: error: " AT_C "env[0].valueFrom: both value and valueFrom"},
    {"no source of a variable", DEP("  env: [ { name: A, valueFrom: {} } ]"), "m.yaml:9:32: error: " AT_C "env[0].valueFrom: none of configMapKeyRef, secretKeyRef"},
    {"downward API", DEP("  env: [ { name: A, valueFrom: { fieldRef: { fieldPath: metadata.name } } } ]"), "m.yaml:9:34: error: " AT_C "env[0].valueFrom.fieldRef: refused: the downward API is not built yet"},
    {"envFrom without source", DEP("  envFrom: [ { prefix: A } ]"), "m.yaml:9:14: error: " AT_C "envFrom[0]: none of configMapRef, secretRef"},
    {"probe without handler", DEP("  readinessProbe: {}"), "m.yaml:9:19: error: " AT_C "readinessProbe: none of httpGet, tcpSocket, exec, grpc; give exactly one"},
    {"probe with two handlers", DEP("  livenessProbe: { tcpSocket: { port: 1 }, exec: { command: [a] } }"), "m.yaml:9:18: error: " AT_C "livenessProbe: more than one of httpGet"},
    {"probe of gRPC without port", DEP("  livenessProbe: { grpc: { service: a } }"), "m.yaml:9:26: error: " AT_C "livenessProbe.grpc.port: missing"},
    {"probe over TLS", DEP("  livenessProbe: { httpGet: { port: 1, scheme: HTTPS } }"), "m.yaml:9:48: error: " AT_C "livenessProbe.httpGet.scheme: refused: probes over TLS are not built"},
    {"probe of an unknown port", DEP("  livenessProbe: { httpGet: { port: web } }"), "m.yaml:9:37: error: " AT_C "livenessProbe.httpGet.port: no container port has the name web"},
    {"liveness successThreshold", DEP("  livenessProbe: { successThreshold: 2, tcpSocket: { port: 1 } }"), "m.yaml:9:38: error: " AT_C "livenessProbe.successThreshold: must be 1 for a livenessProbe"},
    {"header injection in a probe", DEP("  livenessProbe: { httpGet: { port: 1, httpHeaders: [ { name: A, value: \"b\\r\\nC: d\" } ] } }"), "m.yaml:9:73: error: " AT_C "livenessProbe.httpGet.httpHeaders[0].value: not valid here"},
    {"postStart", DEP("  lifecycle: { postStart: { exec: { command: [a] } } }"), "m.yaml:9:16: error: " AT_C "lifecycle.postStart: refused: postStart is not built yet"},
    {"privileged", DEP("  securityContext: { privileged: true, runAsNonRoot: true, runAsUser: 0 }"),
     "m.yaml:9:34: error: " AT_C "securityContext.privileged: refused: workloads never have the host's privileges\n"
     "m.yaml:9:54: error: " AT_C "securityContext.runAsNonRoot: true, but runAsUser is 0, which is root"},
    {"hostPort and UDP", DEP("  ports: [ { containerPort: 53, protocol: UDP, hostPort: 53 } ]"),
     "m.yaml:9:43: error: " AT_C "ports[0].protocol: refused: UDP is not built\nm.yaml:9:48: error: " AT_C "ports[0].hostPort: refused: ports of the host are opened by Gateways only"},
    {"same port name", DEP("  ports: [ { containerPort: 1, name: a }, { containerPort: 2, name: a } ]"), "m.yaml:9:69: error: " AT_C "ports[1].name: the name a is given twice: first at line 9"},

    /* Deployments */
    {"no command", "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec:\n  selector: { matchLabels: { a: b } }\n  template:\n    metadata: { labels: { a: b } }\n    spec: { containers: [ { name: c, image: nginx } ] }\n",
     "m.yaml:8:27: error: " AT_C "command: missing; add it: the program"},
    {"selector does not match", "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec:\n  selector: { matchLabels: { a: c } }\n  template:\n    metadata: { labels: { a: b } }\n    spec: { containers: [ { name: c, command: [x] } ] }\n",
     "m.yaml:5:28: error: Deployment/default/a spec.selector.matchLabels: does not match the template's labels"},
    {"two containers",
     "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec:\n  selector: { matchLabels: { a: b } }\n  template:\n    metadata: { labels: { a: b } }\n    spec:\n      containers:\n      - { name: c, command: [x] }\n"
     "      - { name: side, command: [z] }\n      initContainers: []\n",
     "m.yaml:11:9: error: Deployment/default/a spec.template.spec.containers: refused: 2 containers (c, side)\n"
     "m.yaml:12:7: error: Deployment/default/a spec.template.spec.initContainers: refused: init containers are not built yet"},
    {"strategy",
     "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec:\n  replicas: -1\n  strategy: { type: Recreate, rollingUpdate: { maxSurge: 50 %, maxUnavailable: 1001 } }\n  selector: { matchExpressions: [] }\n"
     "  template:\n    spec: { containers: [] }\n",
     "m.yaml:5:13: error: Deployment/default/a spec.replicas: -1 is out of range; give a number from 0 to 1000\n"
     "m.yaml:6:46: error: Deployment/default/a spec.strategy.rollingUpdate: has no meaning with type Recreate\n"
     "m.yaml:6:58: error: Deployment/default/a spec.strategy.rollingUpdate.maxSurge: not valid here: \"50 %\"\n"
     "m.yaml:6:80: error: Deployment/default/a spec.strategy.rollingUpdate.maxUnavailable: 1001 is out of range\n"
     "m.yaml:7:15: error: Deployment/default/a spec.selector.matchExpressions: refused: selectors by expression are not built yet\n"
     "m.yaml:9:25: error: Deployment/default/a spec.template.spec.containers: empty: exactly one container is needed"},
    {"no surge and none unavailable",
     "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a }\nspec:\n  strategy: { rollingUpdate: { maxSurge: 0, maxUnavailable: 0 } }\n  selector: { matchLabels: { a: b } }\n  template:\n    metadata: { labels: { a: b } }\n"
     "    spec: { containers: [ { name: c, command: [x] } ], hostPID: true }\n",
     "m.yaml:5:30: error: Deployment/default/a spec.strategy.rollingUpdate: maxSurge and maxUnavailable are both 0\n"
     "m.yaml:9:65: error: Deployment/default/a spec.template.spec.hostPID: refused: replicas are kept in PID namespaces"},

    /* Services, data */
    {"NodePort", SVC("{ type: NodePort, selector: { a: b }, ports: [ { port: 80 } ] }"), "m.yaml:4:15: warning: " AT_S "type: approximated: works as ClusterIP"},
    {"session affinity", SVC("{ sessionAffinity: ClientIP, selector: { a: b }, ports: [ { port: 80, protocol: SCTP } ] }"),
     "m.yaml:4:26: error: " AT_S "sessionAffinity: refused: session affinity is not a Service's here; remove it, and write a DestinationRule\nm.yaml:4:87: error: " AT_S "ports[0].protocol: refused: SCTP is not built"},
    {"nothing in a Service", SVC("{}"), "m.yaml:4:7: error: " AT_S "ports: missing: nothing can be called\nm.yaml:4:7: warning: " AT_S "selector: missing: only what registers itself"},
    {"ports of a Service", SVC("{ selector: { a: b }, ports: [ { port: 80 }, { port: 80, name: b, targetPort: \"80\" } ] }"),
     "m.yaml:4:38: error: " AT_S "ports[0].name: missing, where there are several ports\n"
     "m.yaml:4:52: error: " AT_S "ports[1].port: the port 80 is given twice: first at line 4\n"
     "m.yaml:4:85: error: " AT_S "ports[1].targetPort: the string \"80\" is no name of a port; write a port number without quotes"},
    {"ExternalName without name", SVC("{ type: ExternalName, ports: [ { port: 80 } ] }"), "m.yaml:4:7: error: " AT_S "externalName: missing, with type ExternalName"},
    {"ExternalName without ports", SVC("{ type: ExternalName, externalName: api.example.com }"),
     "m.yaml:4:7: warning: " AT_S "ports: missing: it is a name, and what can be called is only the ports that routes to it give; list the ports that callers use"},
    {"ExternalName of an address", SVC("{ type: ExternalName, externalName: 10.0.0.1, ports: [ { port: 80 } ] }"), "m.yaml:4:43: error: " AT_S "externalName: not valid here: \"10.0.0.1\""},
    {"ConfigMap data", "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: m }\ndata: { a: 1, \"b c\": x, d: z }\nbinaryData: { d: aGk=, e: \"*\" }\n",
     "m.yaml:4:12: error: ConfigMap/default/m data[\"a\"]: 1 is a whole number, and must be a string; put it in quotes: \"1\"\n"
     "m.yaml:4:15: error: ConfigMap/default/m data[\"b c\"]: not a valid key\n"
     "m.yaml:5:15: error: ConfigMap/default/m binaryData: the key d is in data as well\n"
     "m.yaml:5:24: error: ConfigMap/default/m binaryData[\"e\"]: not base64"},
    {"Secret of numbers", "apiVersion: v1\nkind: Secret\nmetadata: { name: m }\nstringData: { a: 17171717, b: yes }\n",
     "m.yaml:4:18: error: Secret/default/m stringData[\"a\"]: is a whole number, and must be a string; put it in quotes\n"
     "m.yaml:4:31: error: Secret/default/m stringData[\"b\"]: is a boolean, and must be a string; put it in quotes"},
    {"Secret that is a number", "apiVersion: v1\nkind: Secret\nmetadata: { name: m }\ndata: 17171717\n", "m.yaml:4:7: error: Secret/default/m data: is a whole number, and must be a map"},
    {"Secret data in clear", "apiVersion: v1\nkind: Secret\nmetadata: { name: m }\ndata: { a: hunter2! }\n", "m.yaml:4:9: error: Secret/default/m data[\"a\"]: not base64"},

    /* Gateways, routes */
    {"TLS of listeners", GW("listeners: [ { name: a, port: 443, protocol: HTTPS, tls: {} }, { name: b, port: 444, protocol: TLS },\n{ name: c, port: 445, protocol: HTTPS, tls: { mode: Passthrough } },\n{ name: d, port: 80, protocol: HTTP, tls: {} }, { name: e, port: 81, protocol: UDP } ]"),
     "m.yaml:5:58: error: " AT_G "listeners[0].tls.certificateRefs: missing, with mode Terminate\n"
     "m.yaml:5:64: error: " AT_G "listeners[1].tls: missing, with this protocol\n"
     "m.yaml:6:53: error: " AT_G "listeners[2].tls.mode: HTTPS cannot be passed through\n"
     "m.yaml:7:43: error: " AT_G "listeners[3].tls: has no meaning with this protocol\n"
     "m.yaml:7:80: error: " AT_G "listeners[4].protocol: refused: UDP is not built"},
    {"options of TLS", GW("listeners: [ { name: a, port: 443, protocol: HTTPS, tls: { certificateRefs: [ { name: s } ],\noptions: { weir.dev/min-version: \"1.1\", x.example/y: z } } } ]"),
     "m.yaml:6:12: error: " AT_G "listeners[0].tls.options[\"weir.dev/min-version\"]: not a version of TLS: \"1.1\"\n"
     "m.yaml:6:41: warning: " AT_G "listeners[0].tls.options[\"x.example/y\"]: ignored: the option is not known here"},
    {"routes that a protocol cannot carry", GW("listeners: [ { name: a, port: 80, protocol: HTTP, allowedRoutes: { kinds: [ { kind: TCPRoute } ] } }, { name: b, port: 9, protocol: TCP, hostname: x.example } ]"),
     "m.yaml:5:77: error: " AT_G "listeners[0].allowedRoutes.kinds[0].kind: the protocol of this listener cannot carry a TCPRoute\n"
     "m.yaml:5:148: error: " AT_G "listeners[1].hostname: has no meaning with protocol TCP"},
    {"same listener", GW("listeners: [ { name: a, port: 80, protocol: HTTP }, { name: a, port: 80, protocol: HTTP } ]"),
     "m.yaml:5:53: error: " AT_G "listeners[1]: the same port and hostname as the listener at line 5\nm.yaml:5:61: error: " AT_G "listeners[1].name: the name a is given twice"},
    {"routes by selector", GW("listeners: [ { name: a, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: Selector } } },\n{ name: b, port: 81, protocol: HTTP, allowedRoutes: { namespaces: { from: All, selector: { matchLabels: { a: b } } } } },\n"
                              "{ name: c, port: 82, protocol: HTTP, allowedRoutes: { namespaces: { from: Selector, selector: { matchExpressions: [ { key: a, operator: In } ] } } } } ]"),
     "m.yaml:5:80: error: " AT_G "listeners[0].allowedRoutes.namespaces.selector: from: Selector needs it; give the labels of the namespaces; {} is all of them\n"
     "m.yaml:6:90: warning: " AT_G "listeners[1].allowedRoutes.namespaces.selector: has no effect without from: Selector; set from: Selector, or remove it\n"
     "m.yaml:7:117: error: " AT_G "listeners[2].allowedRoutes.namespaces.selector.matchExpressions[0].values: In takes values; give at least one"},
    {"address by name", GW("addresses: [ { value: localhost } ], listeners: [ { name: a, port: 80, protocol: HTTP } ]"), "m.yaml:5:23: error: " AT_G "addresses[0].value: not valid here: \"localhost\"; give an IP address"},
    {"address covered", GW("addresses: [ { value: 0.0.0.0 }, { value: 127.0.0.1 } ], listeners: [ { name: a, port: 80, protocol: HTTP } ]"), "m.yaml:5:43: error: " AT_G "addresses[1].value: an address that another one of this list is or covers"},
    {"mesh route", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { kind: Service, name: s }, { group: \"\", name: g } ], rules: [ { " TO_S " } ] }\n",
     "m.yaml:4:23: error: " AT_R "parentRefs[0].group: a Service is of the core group; add group\nm.yaml:4:51: error: " AT_R "parentRefs[1].kind: a Gateway is not of the core group"},
    {"regular expressions", ROUTE("{ " TO_S ",\nmatches: [ { path: { type: RegularExpression, value: /a( } }, { headers: [ { type: RegularExpression, name: a, value: \"*\" } ] } ] }"),
     "m.yaml:6:54: error: " AT_R "rules[0].matches[0].path.value: not a regular expression: at byte 4\n"
     "m.yaml:6:119: error: " AT_R "rules[0].matches[1].headers[0].value: not a regular expression: at byte 1"},
    {"paths", ROUTE("{ " TO_S ",\nmatches: [ { path: { value: a } }, { path: { value: /a//b } }, { path: { value: /../x } }, { path: { value: /%2F } } ] }"),
     "m.yaml:6:29: error: " AT_R "rules[0].matches[0].path.value: not valid here: \"a\"\n"
     "m.yaml:6:53: error: " AT_R "rules[0].matches[1].path.value: not valid here: \"/a//b\"\n"
     "m.yaml:6:81: error: " AT_R "rules[0].matches[2].path.value: not valid here: \"/../x\"\n"
     "m.yaml:6:109: error: " AT_R "rules[0].matches[3].path.value: not valid here: \"/%2F\""},
    {"filters", ROUTE("{ " TO_S ",\nfilters: [ { type: RequestMirror, requestMirror: { backendRef: {} } }, { type: URLRewrite }, { type: ExternalAuth },\n"
                      "{ type: CORS, cors: { allowOrigins: [ \"*\", \"example.com\" ] } }, { type: ExtensionRef, extensionRef: { group: x, kind: Y, name: z } } ] }"),
     "m.yaml:6:64: error: " AT_R "rules[0].filters[0].requestMirror.backendRef.name: missing\n"
     "m.yaml:6:64: error: " AT_R "rules[0].filters[0].requestMirror.backendRef.port: missing\n"
     "m.yaml:6:72: error: " AT_R "rules[0].filters[1]: urlRewrite is missing, with type URLRewrite\n"
     "m.yaml:6:102: error: " AT_R "rules[0].filters[2].type: refused: authorization by another service is not built yet\n"
     "m.yaml:7:37: error: " AT_R "rules[0].filters[3].cors.allowOrigins: \"*\" is every origin\n"
     "m.yaml:7:44: error: " AT_R "rules[0].filters[3].cors.allowOrigins[1]: not valid here: \"example.com\"; give an origin\n"
     "m.yaml:7:110: error: " AT_R "rules[0].filters[4].extensionRef.group: \"x\" is not known; known here: weir.dev\n"
     "m.yaml:7:119: error: " AT_R "rules[0].filters[4].extensionRef.kind: \"Y\" is not known; known here: HTTPFilter"},
    {"shares of a mirror", ROUTE("{ " TO_S ",\nfilters: [ { type: RequestMirror, requestMirror: { " "backendRef: { name: s, port: 80 }, percent: 101, fraction: { numerator: 3, denominator: 2 } } } ] }"),
     "m.yaml:6:96: error: " AT_R "rules[0].filters[0].requestMirror.percent: 101 is out of range; give a number from 0 to 100\n"
     "m.yaml:6:111: error: " AT_R "rules[0].filters[0].requestMirror.fraction: both percent and fraction\n"
     "m.yaml:6:111: error: " AT_R "rules[0].filters[0].requestMirror.fraction: more than all"},
    {"retries and sessions", ROUTE("{ " TO_S ",\nretry: { codes: [ 200 ], backoff: 5 },\nsessionPersistence: { idleTimeout: 1h, type: Header, cookieConfig: { lifetimeType: Permanent } } }"),
     "m.yaml:6:19: error: " AT_R "rules[0].retry.codes[0]: 200 is out of range\n"
     "m.yaml:6:35: error: " AT_R "rules[0].retry.backoff: 5 is a whole number\n"
     "m.yaml:7:23: warning: " AT_R "rules[0].sessionPersistence.idleTimeout: ignored\n"
     "m.yaml:7:84: error: " AT_R "rules[0].sessionPersistence.cookieConfig.lifetimeType: Permanent needs absoluteTimeout\n"
     "m.yaml:7:84: error: " AT_R "rules[0].sessionPersistence.cookieConfig.lifetimeType: has no meaning with type Header"},
    {"redirect and backends", ROUTE("{ " TO_S ",\nfilters: [ { type: RequestRedirect, requestRedirect: { statusCode: 305 } } ] }"),
     "m.yaml:5:25: error: " AT_R "rules[0].backendRefs: a rule with RequestRedirect has no backends\n"
     "m.yaml:6:68: error: " AT_R "rules[0].filters[0].requestRedirect.statusCode: \"305\" is not known; known here: 301, 302"},
    {"prefix rewrite of an exact path",
     ROUTE("{ " TO_S ", matches: [ { path: { type: Exact, value: /a } } ],\nfilters: [ { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /b } } } ] }"),
     "m.yaml:6:44: error: " AT_R "rules[0].filters[0].urlRewrite.path.type: ReplacePrefixMatch needs exactly one match"},
    {"editing framing", ROUTE("{ " TO_S ",\nfilters: [ { type: RequestHeaderModifier, requestHeaderModifier: { remove: [ Content-Length ], set: [ { name: host, value: x } ] } } ] }"),
     "m.yaml:6:78: error: " AT_R "rules[0].filters[0].requestHeaderModifier.remove[0]: refused: the field Content-Length belongs to the proxy\n"
     "m.yaml:6:103: error: " AT_R "rules[0].filters[0].requestHeaderModifier.set[0].name: refused: the field host belongs to the proxy; use URLRewrite"},
    {"backend filters", ROUTE("{ backendRefs: [ { name: s, port: 80,\nfilters: [ { type: URLRewrite, urlRewrite: {} } ] } ] }"), "m.yaml:6:20: error: " AT_R "rules[0].backendRefs[0].filters[0].type: refused: rewrites of one backendRef"},
    {"timeouts", ROUTE("{ " TO_S ",\ntimeouts: { request: 5, backendRequest: 10 s } }, { " TO_S ",\ntimeouts: { request: 1s, backendRequest: 2s } }"),
     "m.yaml:6:22: error: " AT_R "rules[0].timeouts.request: 5 is a whole number, and must be a duration such as 500ms, 10s or 1m30s; give a duration\n"
     "m.yaml:6:41: error: " AT_R "rules[0].timeouts.backendRequest: not valid here: \"10 s\"\n"
     "m.yaml:7:42: error: " AT_R "rules[1].timeouts.backendRequest: longer than request"},
    {"hostnames", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: r }\nspec: { parentRefs: [ { name: g } ], hostnames: [ 127.0.0.1, a.*.b, \"a:80\" ], rules: [ { " TO_S " } ] }\n",
     "m.yaml:4:51: error: " AT_R "hostnames[0]: not valid here: \"127.0.0.1\"\nm.yaml:4:62: error: " AT_R "hostnames[1]: not valid here\nm.yaml:4:69: error: " AT_R "hostnames[2]: not valid here"},
    {"route without parents", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: r }\nspec: { rules: [ { } ] }\n",
     "m.yaml:4:7: warning: " AT_R "parentRefs: missing: no Gateway serves this route\nm.yaml:4:18: warning: " AT_R "rules[0].backendRefs: none: requests of this rule are answered with 500"},
};

/* What may be left out, and what 0s says that nothing does not. */
static void test_route_defaults(void **state)
{
    struct objset *s = read_good(ROUTE("{ " TO_S ",\nfilters: [ { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /b } } } ] },\n"
                                       "{ " TO_S ", timeouts: { request: 0s } }, { " TO_S ", timeouts: { request: 1s, backendRequest: 0s } }, { " TO_S ", timeouts: { request: 0s, backendRequest: 1s } }"));
    const struct route_rule *r = objset_find(s, OBJ_HTTPROUTE, "default", "r")->route.rules;
    assert_true(r[0].matches_n == 0 && r[0].rewrite_path_kind == REWRITE_PREFIX && !r[0].untimed); /* a rule without matches has one, of the prefix "/" */
    assert_true(r[1].untimed && r[1].timeout_ms == 0);
    assert_true(r[2].untimed && r[2].timeout_ms == 1000);
    assert_true(r[3].untimed && r[3].backend_timeout_ms == 1000);
    objset_free(s);
}

static void test_bad(void **state) { expect_bad(bad_cases, COUNT_OF(bad_cases)); }

/* With strict every warning but those for approximations is an error. */
static void test_strict(void **state)
{
    struct diags d = {0};
    objset_free(read_text(DEP("  imagePullPolicy: Always, image: x, colour: red") "---\napiVersion: batch/v1\nkind: Job\nmetadata: { name: j }\n---\n" SVC(
                              "{ type: NodePort, selector: { a: b }, ports: [ { port: 80 } ] }"),
                          true, &d));
    expect_diags("strict", &d,
                 "m.yaml:9:3: error: " AT_C "imagePullPolicy: ignored\n"
                 "m.yaml:9:38: error: " AT_C "colour: unknown field of a container\n"
                 "m.yaml:12:7: error: Job/default/j: Job is not built yet\n"
                 "m.yaml:18:15: warning: " AT_S "type: approximated");
    assert_int_equal(d.errors, 3);
    diags_free(&d);
}

/* ---- limits ------------------------------------------------------------------------------------------------------------ */

static void expect_limit(struct buf *text, const char *want)
{
    struct diags d = {0};
    struct objset *s = objset_new();
    objset_read(s, FILE_NAME, "/", buf_slice(text), NULL, false, &d);
    expect_diags("limit", &d, want);
    objset_free(s);
    diags_free(&d);
    buf_free(text);
}

static void test_limits(void **state)
{
    struct buf b = {0};
    for (size_t i = 0; i <= MANIFEST_BYTES_MAX; i += 64)
        buf_adds(&b, "# 234567890123456789012345678901234567890123456789012345678901\n\n");
    expect_limit(&b, "m.yaml: error: the file has 4");
    for (int i = 0; i < MANIFEST_DEPTH_MAX + 1; i++)
        buf_addc(&b, '[');
    expect_limit(&b, "m.yaml:1:49: error: more levels of nesting than the 48 a file may have");
    buf_adds(&b, "a: &a [x, x, x, x, x, x, x, x, x, x]\n"); /* each line ten times the one before */
    for (char c = 'b'; c < 'z'; c++)
        buf_printf(&b, "%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1,
                   c - 1);
    expect_limit(&b, "m.yaml:6:8: error: more values (aliases counted where they are used) than the 200000");
    buf_adds(&b, "a: &a \"");
    for (int i = 0; i < 1 << 20; i++)
        buf_addc(&b, 'x');
    buf_adds(&b, "\"\nb: [");
    for (int i = 0; i < 20; i++)
        buf_adds(&b, "*a, ");
    expect_limit(&b, "m.yaml:2:61: error: more bytes of text");
}

static void test_many_diags(void **state)
{
    struct buf b = {0};
    struct diags d = {0};
    buf_adds(&b, "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: m }\ndata:\n");
    for (int i = 0; i < DIAGS_MAX + 500; i++)
        buf_printf(&b, "  k%d: %d\n", i, i);
    objset_free(read_text(b.p, false, &d));
    assert_int_equal(d.n, DIAGS_MAX + 1);
    assert_int_equal(d.errors, DIAGS_MAX + 500);
    assert_non_null(strstr(d.items[DIAGS_MAX].reason, "the rest is not shown"));
    diags_free(&d);
    buf_free(&b);
}

/* ---- references ---------------------------------------------------------------------------------------------------------- */

static void test_check(void **state)
{
    static const char text[] = DEP(
        "  env: [ { name: A, valueFrom: { secretKeyRef: { name: nos, key: k } } }, { name: B, valueFrom: { configMapKeyRef: { name: m, key: nok } } } ],\n"
        "  envFrom: [ { configMapRef: { name: gone } } ]") "---\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: m }\n---\n" SVC("{ selector: { a: b }, ports: [ { port: 80, targetPort: web } ] }") "---\napiVersion: v1\nkind: Service\nmetadata: { name: t }\nspec: { selector: { a: z }, ports: [ { port: 80 } ] }\n---\n" GW("listeners: [ { name: a, port: 80, protocol: HTTP, hostname: a.example } ]") "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: { name: h, namespace: other }\n"
                                                                                                                                                                                                                                                                                                                                                                                                                  "spec: { gatewayClassName: x, addresses: [ { value: 0.0.0.0 } ], listeners: [ { name: a, port: 80, protocol: HTTP } ] }\n---\n"
                                                                                                                                                                                                                                                                                                                                                                                                                  "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: r }\nspec:\n  hostnames: [ b.example ]\n"
                                                                                                                                                                                                                                                                                                                                                                                                                  "  parentRefs: [ { name: none }, { name: g, sectionName: zz }, { name: h, namespace: other }, { name: g } ]\n"
                                                                                                                                                                                                                                                                                                                                                                                                                  "  rules:\n  - backendRefs: [ { name: s, port: 81 }, { name: u, port: 80 } ]\n";
    struct diags d = {0};
    struct objset *s = read_text(text, false, &d);
    expect_diags("read", &d, "");
    objset_check(s, &d);
    expect_diags("check", &d,
                 "m.yaml:16:1: error: Service/default/s spec.ports[0].targetPort: the Deployment a has no port named web\n"
                 "m.yaml:21:1: warning: Service/default/t spec.selector: matches no Deployment in the namespace default\n"
                 "m.yaml:1:1: error: Deployment/default/a spec.template.spec.containers[0].env[0].valueFrom: there is no Secret nos in the namespace default\n"
                 "m.yaml:1:1: error: Deployment/default/a spec.template.spec.containers[0].env[1].valueFrom: the ConfigMap m has no key nok\n"
                 "m.yaml:1:1: error: Deployment/default/a spec.template.spec.containers[0].envFrom[0]: there is no ConfigMap gone\n"
                 "m.yaml:32:1: error: Gateway/other/h spec.listeners[0].port: the port 80 is used by the Gateway default/g as well, on an address that covers the other\n"
                 "m.yaml:37:1: error: HTTPRoute/default/r spec.parentRefs[0]: there is no Gateway none\n"
                 "m.yaml:37:1: error: HTTPRoute/default/r spec.parentRefs[1]: the Gateway g has no listener named zz\n"
                 "m.yaml:37:1: error: HTTPRoute/default/r spec.parentRefs[2]: the Gateway h allows no routes of the namespace default\n"
                 "m.yaml:37:1: warning: HTTPRoute/default/r spec.parentRefs[3]: no hostname of the route is one of the Gateway g\n"
                 "m.yaml:44:1: error: HTTPRoute/default/r spec.rules[0].backendRefs[0]: the Service s has no port 81\n"
                 "m.yaml:44:1: error: HTTPRoute/default/r spec.rules[0].backendRefs[1]: there is no Service u in the namespace default");
    objset_free(s);
    diags_free(&d);
}

/* ---- the set --------------------------------------------------------------------------------------------------------------- */

static uint64_t pod_hash(const struct objset *s) { return objset_find(s, OBJ_DEPLOYMENT, "default", "a")->dep.pod.hash; }

static void test_merge(void **state)
{
    struct objset *s = read_good(DEP("  args: [a]") "---\n" SVC("{ selector: { a: b }, ports: [ { port: 80 } ] }"));
    struct object *svc = (struct object *)objset_find(s, OBJ_SERVICE, "default", "s");
    svc->svc.address = addr_ip4(0x7f800007, 0);
    svc->created_ns = 42;
    uint64_t hash = pod_hash(s);

    struct objset *copy = objset_copy(s), *same = read_good(SVC("{ selector: { a: b }, ports: [ { port: 80 } ] }"));
    objset_merge(copy, same);
    objset_free(same);
    assert_int_equal(objset_find(copy, OBJ_SERVICE, "default", "s")->generation, 1);

    struct objset *changed = read_good(
        DEP("  args: [b]") "---\n" SVC("{ selector: { a: b }, ports: [ { port: 81 } ] }") "---\napiVersion: v1\nkind: Namespace\nmetadata: { name: nn }\n");
    objset_merge(copy, changed);
    assert_int_equal(objset_n(changed), 0);
    objset_free(changed);
    const struct object *now = objset_find(copy, OBJ_SERVICE, "default", "s");
    assert_true(now->generation == 2 && now->created_ns == 42 && addr_ip4_host(&now->svc.address) == 0x7f800007 && now->svc.ports[0].port == 81);
    assert_true(objset_n(copy) == 3 && objset_n(s) == 2);
    assert_true(pod_hash(copy) != hash && pod_hash(s) == hash);
    assert_int_equal(objset_find(s, OBJ_SERVICE, "default", "s")->svc.ports[0].port, 80);

    assert_true(objset_remove(copy, OBJ_DEPLOYMENT, "default", "a"));
    assert_false(objset_remove(copy, OBJ_DEPLOYMENT, "default", "a"));
    assert_null(objset_find(copy, OBJ_DEPLOYMENT, "default", "a"));
    objset_free(s); /* copies outlive what they were copied from */
    assert_int_equal(objset_find(copy, OBJ_SERVICE, "default", "s")->svc.ports[0].port, 81);
    objset_free(copy);
}

static const char *json_of(const char *text, enum obj_kind k)
{
    static char json[2000];
    struct diags d = {0};
    struct objset *s = read_text(text, false, &d);
    assert_int_equal(d.errors, 0);
    snprintf(json, sizeof json, "%s", objset_find(s, k, "default", "c")->json);
    objset_free(s);
    diags_free(&d);
    return json;
}

/* What was shown comes back: the fields that Kubernetes writes are no part of a manifest. And what nobody knows of a Secret is not kept, since nobody would seal it. */
static void test_kept(void **state)
{
    assert_string_equal(json_of("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c, uid: u, resourceVersion: \"7\", generation: 3, creationTimestamp: null, labels: { a: b }, odd: 1 }\ndata: { a: b }\n"
                                "status: { x: 1 }\nodd: { y: 1 }\n",
                                OBJ_CONFIGMAP),
                        "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\",\"labels\":{\"a\":\"b\"},\"odd\":1},\"data\":{\"a\":\"b\"},\"odd\":{\"y\":1}}");
    assert_string_equal(json_of("apiVersion: v1\nkind: Secret\nmetadata: { name: c, stringData: { k: hunter2 } }\nstringdata: { k: hunter2 }\ntype: Opaque\ndata: { a: eA== }\n", OBJ_SECRET),
                        "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"c\"},\"type\":\"Opaque\",\"data\":{\"a\":\"eA==\"}}");
}

static void expect_immutable(const char *now, const char *given, const char *want)
{
    struct diags d = {0};
    struct objset *a = read_good(now), *b = read_good(given);
    objset_check_immutable(a, b, &d);
    expect_diags(given, &d, want);
    diags_free(&d);
    objset_free(a);
    objset_free(b);
}

#define MAP(rest) "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\n" rest "\n"
#define SECRET(rest) "apiVersion: v1\nkind: Secret\nmetadata: { name: c }\n" rest "\n"
#define SAYS(kind, field) "m.yaml:1:1: error: " kind "/default/c " field ": can't be changed, because the " kind " is immutable"

/* As Kubernetes has it: data, binaryData and immutable itself stay until the object is deleted, all else may change. */
static void test_immutable(void **state)
{
    static const char now[] = MAP("data: { a: \"1\", b: x }\nbinaryData: { c: eA== }\nimmutable: true");
    static const char secret[] = SECRET("data: { a: eA== }\nimmutable: true");
    expect_immutable(now, now, "");
    expect_immutable("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: other }\nimmutable: true\n", now, "");
    expect_immutable(now, "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c, labels: { x: z } }\nimmutable: true\nbinaryData: { c: eA== }\ndata: { b: x, a: \"1\" }\n", "");
    expect_immutable(now, MAP("data: { a: \"2\", b: x }\nbinaryData: { c: eA== }\nimmutable: true"), SAYS("ConfigMap", "data"));
    expect_immutable(now, MAP("data: { a: \"1\" }\nbinaryData: { c: eA== }\nimmutable: true"), SAYS("ConfigMap", "data"));
    expect_immutable(now, MAP("data: { a: \"1\", d: x }\nbinaryData: { c: eA== }\nimmutable: true"), SAYS("ConfigMap", "data"));
    expect_immutable(now, MAP("data: { a: \"1\", b: x }\nbinaryData: { c: eQ== }\nimmutable: true"), SAYS("ConfigMap", "binaryData"));
    expect_immutable(now, MAP("data: { a: \"1\", b: x }\nbinaryData: { c: eA== }"), SAYS("ConfigMap", "immutable"));
    expect_immutable(now, MAP("data: { a: \"1\", b: x, c: x }\nimmutable: false"), SAYS("ConfigMap", "data") "\n" SAYS("ConfigMap", "binaryData") "\n" SAYS("ConfigMap", "immutable"));
    expect_immutable(secret, SECRET("data: { a: eQ== }\nimmutable: true"), SAYS("Secret", "data"));
    expect_immutable(secret, SECRET("data: { a: eA== }"), SAYS("Secret", "immutable"));
    expect_immutable(secret, now, ""); /* another kind */
    expect_immutable(MAP("data: { a: \"1\" }\nimmutable: false"), MAP("data: { a: \"2\" }\nimmutable: true"), "");
    expect_immutable(MAP("immutable: true"), MAP("data: {}\nimmutable: true"), "");
}

/* The hash of a template is about what it means: order, comments and replicas do not count; labels and arguments do. */
static void test_pod_hash(void **state)
{
    struct objset *a = read_good(DEP("  args: [a], image: x")), *b = read_good("# comment\n" DEP("  image: \"x\", args: [\"a\"]"));
    assert_int_equal(pod_hash(a), pod_hash(b));
    assert_int_equal(pod_hash(a), UINT64_C(0x8550ab6df673f13b)); /* the same in every process: it is kept in the data folder */
    objset_free(a);
    objset_free(b);
}

static void test_save_load(void **state)
{
    struct objset *s = read_good(good_app), *loaded = objset_new();
    struct diags d = {0};
    objset_addresses(s);
    ((struct object *)objset_find(s, OBJ_DEPLOYMENT, "default", "web"))->generation = 7;
    struct buf first = {0}, second = {0};
    objset_save(s, NULL, &first);
    assert_int_equal(objset_load(loaded, "state.json", buf_slice(&first), NULL, &d), OK);
    expect_diags("load", &d, "");
    objset_save(loaded, NULL, &second);
    assert_string_equal(first.p, second.p);
    assert_int_equal(objset_n(loaded), objset_n(s));
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *x = objset_at(s, i), *y = objset_at(loaded, i);
        assert_true(x->hash == y->hash && x->kind == y->kind && x->generation == y->generation && x->created_ns == y->created_ns);
        assert_string_equal(x->dir, y->dir);
        if (x->kind == OBJ_DEPLOYMENT)
            assert_true(x->dep.pod.hash == y->dep.pod.hash && y->generation == 7);
        if (x->kind == OBJ_SERVICE)
            assert_true(addr_eq(&x->svc.address, &y->svc.address));
    }
    objset_free(s);
    objset_free(loaded);
    buf_free(&first);
    buf_free(&second);
}

static void test_load_bad(void **state)
{
    static const struct {
        const char *text;
        enum err e;
        const char *want;
    } cases[] = {
        {"{", ERR_SYNTAX, "state.json:1:1: error: not JSON"},
        {"{\"version\":3,\"objects\":[]}", ERR_INVALID, "state.json: error: not a set of objects of version 1 or 2"},
        {"{\"version\":1,\"objects\":[{}]}", ERR_INVALID, "state.json: error: object 1 of the file cannot be read"},
        {"{\"version\":2,\"objects\":[{}]}", ERR_INVALID, "state.json: error: object 1 of the file cannot be read: it has no member weir.dev/stored"},
        {"{\"version\":1,\"objects\":[{\"file\":\"f\",\"line\":3,\"column\":4,\"manifest\":{\"apiVersion\":\"v1\",\"kind\":\"Namespace\"}}]}", ERR_INVALID,
         "f:3:4: error: Namespace/ metadata: missing"},
        {"{\"version\":2,\"objects\":[{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"weir.dev/stored\":{\"file\":\"f\",\"line\":3,\"column\":4}}]}", ERR_INVALID,
         "f:3:4: error: Namespace/ metadata: missing"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct objset *s = objset_new();
        struct diags d = {0};
        assert_int_equal(objset_load(s, "state.json", slice_cstr(cases[i].text), NULL, &d), cases[i].e);
        expect_diags(cases[i].text, &d, cases[i].want);
        diags_free(&d);
        objset_free(s);
    }
}

/* What Weir wrote before the control store. */
static void test_load_plain(void **state)
{
    static const char text[] =
        "{\"version\":1,\"objects\":[\n{\"kind\":\"Service\",\"namespace\":\"shop\",\"name\":\"web\",\"file\":\"/srv/web.yaml\",\"line\":12,\"column\":1,\"dir\":\"/srv\","
        "\"created_ns\":1795254305755815034,\"generation\":3,\"address\":\"127.253.145.179\",\"manifest\":{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":"
        "{\"name\":\"web\"},\"spec\":{\"selector\":{\"a\":\"b\"},\"ports\":[{\"port\":80}]}}}\n]}\n";
    struct objset *s = objset_new();
    struct diags d = {0};
    assert_int_equal(objset_load(s, "objects.json", SLICE(text), NULL, &d), OK);
    const struct object *o = objset_find(s, OBJ_SERVICE, "shop", "web");
    assert_true(o && o->line == 12 && o->generation == 3 && o->created_ns == 1795254305755815034u && addr_ip4_host(&o->svc.address) == 0x7ffd91b3u);
    assert_string_equal(o->json, "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\"},\"spec\":{\"selector\":{\"a\":\"b\"},\"ports\":[{\"port\":80}]}}");
    objset_free(s);
}

/* One object as it is in the control store: completed for who reads it there, as given for who loads it. */
static void test_stored(void **state)
{
    static const char given[] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generation: 9, name: c, namespace: shop}\nweir.dev/stored: mine\ndata: {a: \"1\"}\n---\n"
                                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {b: \"2\"}\n";
    struct diags d = {0};
    struct objset *s = objset_new(), *loaded = objset_new();
    objset_read(s, "f.yaml", "/srv", SLICE(given), "shop", false, &d);
    assert_int_equal(d.errors, 0);
    for (size_t i = 0; i < objset_n(s); i++) {
        struct object *o = (struct object *)objset_at(s, i);
        struct buf key = {0}, value = {0};
        o->created_ns = 1795254305755815034u;
        o->generation = 4;
        object_key(o->kind, o->ns, o->name, &key);
        assert_int_equal(object_store(o, NULL, &value), OK);
        assert_int_equal(objset_load_stored(loaded, buf_slice(&key), buf_slice(&value), NULL, "", &d), OK);
        if (i == 1)
            assert_string_equal(value.p, "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"d\",\"namespace\":\"shop\",\"creationTimestamp\":\"2026-11-21T09:45:05Z\","
                                         "\"generation\":4},\"data\":{\"b\":\"2\"},\"weir.dev/stored\":{\"namespace\":\"shop\",\"file\":\"f.yaml\",\"line\":7,\"column\":1,\"dir\":\"/srv\","
                                         "\"created_ns\":1795254305755815034,\"generation\":4,\"added\":[\"namespace\",\"creationTimestamp\",\"generation\"]}}");
        const struct object *back = objset_find(loaded, OBJ_CONFIGMAP, "shop", o->name);
        assert_true(back && object_same(o, back));
        buf_free(&key);
        buf_free(&value);
    }
    diags_free(&d);
    objset_free(s);
    objset_free(loaded);
}

static void test_object_keys(void **state)
{
    static const struct {
        enum obj_kind kind;
        const char *ns, *name, *key;
    } keys[] = {
        {OBJ_DEPLOYMENT, "shop", "web", "Deployment.apps/shop/web"},
        {OBJ_NAMESPACE, "", "shop", "Namespace/-/shop"},
        {OBJ_CONFIGMAP, "default", "a.b-c", "ConfigMap/default/a.b-c"},
        {OBJ_GATEWAY, "default", "gw", "Gateway.gateway.networking.k8s.io/default/gw"},
        {OBJ_ISTIO_GATEWAY, "default", "gw", "Gateway.networking.istio.io/default/gw"},
    };
    static const char *const bad[] = {"", "/", "Deployment/shop/web", "Deployment.apps/shop", "Deployment.apps/shop/", "Deployment.apps/shop/a/b", "Thing.apps/shop/web", "deployment.apps/shop/web"};
    enum obj_kind k;
    struct slice ns, name;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        struct buf b = {0};
        object_key(keys[i].kind, keys[i].ns, keys[i].name, &b);
        assert_string_equal(b.p, keys[i].key);
        assert_true(object_key_parse(buf_slice(&b), &k, &ns, &name) && k == keys[i].kind && slice_is(ns, keys[i].ns) && slice_is(name, keys[i].name));
        buf_free(&b);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(object_key_parse(slice_cstr(bad[i]), &k, &ns, &name));
    struct objset *s = objset_new();
    struct diags d = {0};
    assert_int_equal(objset_load_stored(s, SLICE("ConfigMap/default/a"), SLICE("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"b\"},\"weir.dev/stored\":{\"namespace\":\"default\"}}"), NULL, "mend it", &d), ERR_INVALID);
    assert_int_equal(objset_load_stored(s, SLICE("ConfigMap/default/a"), SLICE("{"), NULL, "mend it", &d), ERR_INVALID);
    expect_diags("keys", &d, "ConfigMap/default/a: error: the stored object can't be read: it holds ConfigMap default/b; mend it\nConfigMap/default/a: error: the stored object can't be read: it is no JSON");
    diags_free(&d);
    objset_free(s);
}

static void test_keep_same(void **state)
{
    struct objset *old = read_good("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"), *moved = read_good("\n\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"),
                  *now = objset_copy(old);
    objset_merge(now, moved);
    assert_false(object_same(objset_at(old, 0), objset_at(now, 0)));
    objset_keep_same(now, old, true);
    assert_true(object_same(objset_at(old, 0), objset_at(now, 0)));
    struct objset *other = read_good("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n");
    objset_merge(now, other);
    objset_keep_same(now, old, true);
    assert_true(objset_at(now, 0)->generation == 2 && !object_same(objset_at(old, 0), objset_at(now, 0)));
    objset_free(old);
    objset_free(moved);
    objset_free(other);
    objset_free(now);
}

static void test_kinds(void **state)
{
    static const struct {
        const char *text;
        enum obj_kind kind;
    } names[] = {
        {"Deployment", OBJ_DEPLOYMENT}, {"deployments", OBJ_DEPLOYMENT},
        {"deploy", OBJ_DEPLOYMENT},     {"deployments.apps", OBJ_DEPLOYMENT},
        {"svc", OBJ_SERVICE},           {"cm", OBJ_CONFIGMAP},
        {"secrets", OBJ_SECRET},        {"ns", OBJ_NAMESPACE},
        {"HTTPRoutes", OBJ_HTTPROUTE},  {"gateways.gateway.networking.k8s.io", OBJ_GATEWAY},
    };
    enum obj_kind k;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        assert_true(obj_kind_parse(slice_cstr(names[i].text), &k) && k == names[i].kind);
    assert_false(obj_kind_parse(SLICE("deploymentz"), &k));
    assert_false(obj_kind_parse(SLICE(""), &k));
}

/* ---- environments ------------------------------------------------------------------------------------------------------------ */

static void expect_strings(char *const *got, const char *const *want)
{
    for (size_t i = 0; got[i] || want[i]; i++) {
        if (!got[i] || !want[i])
            fail_msg("string %zu: got %s, wanted %s", i, got[i] ? got[i] : "nothing more", want[i] ? want[i] : "nothing more");
        assert_string_equal(got[i], want[i]);
    }
}

static void test_env(void **state)
{
    struct objset *s = read_good(good_app);
    struct object *svc = (struct object *)objset_find(s, OBJ_SERVICE, "default", "web");
    const struct object *dep = objset_find(s, OBJ_DEPLOYMENT, "default", "web");
    const char *const extra[] = {"HOSTNAME=web-1", "A=from extra", NULL};
    struct arena a;
    struct diags d = {0};
    svc->svc.address = addr_ip4(0x7f800007, 0);
    arena_init(&a, MEM_MANIFEST, 4096);
    char **env = objset_env(s, dep, extra, &a, &d);
    expect_strings(env, (const char *const[]){"HOSTNAME=web-1", "A=over", "WEB_SERVICE_HOST=127.128.0.7", "WEB_SERVICE_PORT=80", "WEB_SERVICE_PORT_HTTP=80",
                                              "WEB_SERVICE_PORT_B=81", "GREETING=hello $(A)", "B=hello", "USER=me", "URL=http://127.128.0.7:80/me$(X)$(LATER)",
                                              "LATER=", NULL});
    expect_diags("env", &d, "m.yaml:16:1: warning: Deployment/default/web: envFrom: the key 9x of the ConfigMap cfg is left out");
    expect_strings(objset_argv(dep, env, &a), (const char *const[]){"./web", "--user=me", "$(USER)", "$(NOPE)", "$(A", "a$", NULL});
    diags_free(&d);
    assert_true(objset_remove(s, OBJ_SECRET, "default", "sec"));
    (void)objset_env(s, dep, NULL, &a, &d);
    assert_int_equal(d.errors, 1);
    assert_non_null(strstr(d.items[1].reason, "env USER: there is no Secret sec in the namespace default"));
    diags_free(&d);
    arena_fini(&a);
    objset_free(s);
}

/* Values that double each time must not fill the memory. */
static void test_env_bomb(void **state)
{
    struct buf b = {0};
    buf_adds(&b, "  env: [ { name: A0, value: xxxxxxxxxx }");
    for (int i = 1; i < 60; i++)
        buf_printf(&b, ", { name: A%d, value: \"$(A%d)$(A%d)\" }", i, i - 1, i - 1);
    buf_adds(&b, " ]");
    struct buf text = {0};
    buf_printf(&text, DEP("%s"), b.p);
    struct objset *s = read_good(text.p);
    struct arena a;
    struct diags d = {0};
    arena_init(&a, MEM_MANIFEST, 4096);
    (void)objset_env(s, objset_find(s, OBJ_DEPLOYMENT, "default", "a"), NULL, &a, &d);
    assert_true(d.errors >= 1);
    assert_non_null(strstr(d.items[0].reason, "more than 1048576 bytes after expansion"));
    diags_free(&d);
    arena_fini(&a);
    objset_free(s);
    buf_free(&b);
    buf_free(&text);
}

/* ---- values ------------------------------------------------------------------------------------------------------------------ */

static void test_values(void **state)
{
    static const struct {
        const char *text;
        uint32_t digits;
        int64_t want;
    } amounts[] = {
        {"100m", 3, 100},
        {"1", 3, 1000},
        {"0.1", 3, 100},
        {"1.0001", 3, 1001},
        {".5", 3, 500},
        {"2k", 3, 2000000},
        {"1e3", 0, 1000},
        {"128Mi", 0, 128 << 20},
        {"1.5Gi", 0, 1610612736},
        {"1G", 0, 1000000000},
        {"128974848000m", 0, 128974848},
        {"0", 0, 0},
        {"1u", 3, 1},
        {"", 0, -1},
        {"Mi", 0, -1},
        {"1.2.3", 0, -1},
        {"-1", 0, -1},
        {"1 Mi", 0, -1},
        {"1mi", 0, -1},
        {"99999999999999999999", 0, -1},
        {"1E", 0, -1},
        {"1e19", 0, -1},
    };
    for (size_t i = 0; i < COUNT_OF(amounts); i++) {
        uint64_t v = 0;
        enum err e = value_quantity(slice_cstr(amounts[i].text), amounts[i].digits, 1ull << 50, &v);
        if (amounts[i].want < 0 ? e == OK : e != OK || v != (uint64_t)amounts[i].want)
            fail_msg("%s: err %d, %llu", amounts[i].text, e, (unsigned long long)v);
    }
    static const struct {
        const char *text;
        int64_t want;
    } durations[] = {
        {"1h30m", 5400000}, {"500ms", 500},   {"0s", 0},          {"1h1m1s1ms", 3661001}, {"99999ms", 99999}, {"1000h", 3600000000}, {"", -1},   {"1", -1},
        {"1d", -1},         {"100000ms", -1}, {"1s1s1s1s1s", -1}, {"1.5s", -1},           {"1001h", -1},      {"-1s", -1},           {"ms", -1},
    };
    for (size_t i = 0; i < COUNT_OF(durations); i++) {
        uint32_t v = 0;
        enum err e = value_duration_ms(slice_cstr(durations[i].text), &v);
        if (durations[i].want < 0 ? e == OK : e != OK || v != (uint64_t)durations[i].want)
            fail_msg("%s: err %d, %u", durations[i].text, e, v);
    }
    static const struct {
        const char *text, *want;
    } base64[] = {{"", ""},     {"aGk=", "hi"}, {"aGVs\nbG8=", "hello"}, {"YQ==", "a"},  {"YWJj", "abc"}, {"YQ=", NULL},
                  {"YQ", NULL}, {"Y===", NULL}, {"YQ==YQ==", NULL},      {"YR==", NULL}, {"a-b_", NULL},  {"====", NULL}};
    for (size_t i = 0; i < COUNT_OF(base64); i++) {
        struct buf out = {0};
        buf_reserve(&out, 0);
        enum err e = value_base64(slice_cstr(base64[i].text), &out);
        if (base64[i].want ? e != OK || strcmp(out.p, base64[i].want) != 0 : e == OK)
            fail_msg("%s: err %d, %s", base64[i].text, e, out.p);
        buf_free(&out);
    }
}

/* ---- explain ------------------------------------------------------------------------------------------------------------------- */

static void test_explain(void **state)
{
    struct buf out = {0};
    struct diags d = {0};
    explain_text(
        FILE_NAME,
        slice_cstr(
            "apiVersion: v1\nkind: Service\nmetadata: { name: s, uid: x }\nspec:\n  type: LoadBalancer\n  clusterIP: None\n  selector: { a: b }\n  colour: red\n  ports:\n  - port: 80\n---\n"
            "apiVersion: batch/v1\nkind: Job\nmetadata: { name: j }\n"),
        &out, &d);
    static const char want[] =
        "1 Service/default/s\n"
        "     1  honoured      apiVersion                                            v1\n"
        "     2  honoured      kind                                                  Service\n"
        "     3  honoured      metadata                                              the name is the host name that workloads call\n"
        "     3  honoured      metadata.name                                         with kind and namespace, what the object is known by\n"
        "     3  ignored       metadata.uid                                          written by Kubernetes\n"
        "     4  honoured      spec\n"
        "     5  approximated  spec.type                                             works as ClusterIP: no address outside is given\n"
        "     6  honoured      spec.clusterIP                                        headless: its name leads to the addresses of the ready replicas, and each of these has a name below it\n"
        "     7  honoured      spec.selector                                         requests go to the ready replicas whose template has these labels\n"
        "     8  unknown       spec.colour                                           no field of this name is known here\n"
        "    10  honoured      spec.ports[0].port                                    what callers connect to\n"
        "\n"
        "12 Job/default/j\n"
        "    13  ignored       kind                                                  Job is not built yet; run it from your shell or your CI until then\n";
    assert_string_equal(out.p, want);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    buf_free(&out);
}

/* Every row can be reached and is well formed: schemas are used, enums have values, values have fields. */
static void test_table(void **state)
{
    bool used[SCH_COUNT] = {[SCH_NONE] = true};
    for (size_t i = 0; i < kind_rows_n; i++)
        used[kind_rows[i].schema] = true;
    for (size_t i = 0; i < fields_n; i++) {
        const struct field *f = &fields[i];
        used[f->sub] = true;
        assert_ptr_equal(field_find(f->schema, slice_cstr(f->name)), f); /* no key twice */
        assert_true(f->type != FT_ENUM || field_value_next(f, NULL));
        assert_true((f->status != ST_REFUSED && f->status != ST_IGNORED) || (f->note[0] && f->remedy[0]));
    }
    for (size_t i = 0; i < SCH_COUNT; i++)
        if (!used[i])
            fail_msg("the schema %s is not used", schema_text((enum schema_id)i));
}

/* docs/manifests.md is what the table says now. WEIR_WRITE_DOCS=1 writes it anew. */
static void test_docs(void **state)
{
    static char text[1 << 20];
    struct buf out = {0};
    explain_table(&out);
    FILE *f = fopen(DOCS_FILE, getenv("WEIR_WRITE_DOCS") ? "w+" : "r");
    assert_non_null(f);
    if (getenv("WEIR_WRITE_DOCS")) {
        assert_int_equal(fwrite(out.p, 1, out.n, f), out.n);
        rewind(f);
    }
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    if (strcmp(text, out.p) != 0)
        fail_msg("docs/manifests.md differs from fields.def: run this test with WEIR_WRITE_DOCS=1 and look at the change");
    buf_free(&out);
}

/* Nothing is left behind by any of the above. */
static void test_no_leak(void **state)
{
    uint64_t before = mem_bytes(MEM_MANIFEST);
    struct diags d = {0};
    for (size_t i = 0; i < COUNT_OF(bad_cases); i++)
        objset_free(read_text(bad_cases[i].text, true, &d));
    diags_free(&d);
    assert_int_equal(mem_bytes(MEM_MANIFEST), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),          cmocka_unit_test(test_kinds),    cmocka_unit_test(test_table),   cmocka_unit_test(test_deployment),
        cmocka_unit_test(test_network_objects), cmocka_unit_test(test_route_defaults), cmocka_unit_test(test_bad),      cmocka_unit_test(test_strict),  cmocka_unit_test(test_limits),
        cmocka_unit_test(test_many_diags),      cmocka_unit_test(test_check),    cmocka_unit_test(test_merge),   cmocka_unit_test(test_kept), cmocka_unit_test(test_immutable), cmocka_unit_test(test_pod_hash),
        cmocka_unit_test(test_save_load),       cmocka_unit_test(test_load_bad), cmocka_unit_test(test_load_plain), cmocka_unit_test(test_stored), cmocka_unit_test(test_object_keys), cmocka_unit_test(test_keep_same), cmocka_unit_test(test_env),     cmocka_unit_test(test_env_bomb),
        cmocka_unit_test(test_explain),         cmocka_unit_test(test_docs),     cmocka_unit_test(test_no_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
