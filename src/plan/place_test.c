/* place_test.c - placement: each rule by itself, and random systems against what must hold in all of them. */
#include "place.h"
#include "repeat_test.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define NODES_MAX 8
#define WANTS_MAX 8

/* ---- a small system ------------------------------------------------------------------------------------------------------ */

struct system {
    struct place_node nodes[NODES_MAX];
    struct kvs labels[NODES_MAX];
    struct kv pairs[NODES_MAX][4];
    char names[NODES_MAX][16], zones[NODES_MAX][16];
    size_t nodes_n;
    struct objset *set;
    struct place_want wants[WANTS_MAX];
    uint32_t counts[WANTS_MAX][NODES_MAX];
    size_t wants_n;
};

static void node_add(struct system *s, char letter, int zone, uint64_t cpu, uint64_t memory)
{
    size_t i = s->nodes_n++;
    snprintf(s->names[i], sizeof s->names[i], "%c", letter);
    snprintf(s->zones[i], sizeof s->zones[i], "z%d", zone);
    s->pairs[i][0] = (struct kv){.key = (char *)PLACE_HOSTNAME, .value = s->names[i]};
    s->pairs[i][1] = (struct kv){.key = (char *)"disk", .value = (char *)(i % 2 ? "ssd" : "hdd")};
    s->pairs[i][2] = (struct kv){.key = (char *)"rank", .value = (char *)(i % 2 ? "7" : "12")};
    s->pairs[i][3] = (struct kv){.key = (char *)PLACE_ZONE, .value = s->zones[i]};
    s->labels[i] = (struct kvs){s->pairs[i], zone ? 4 : 3};
    s->nodes[i] = (struct place_node){.name = s->names[i], .labels = &s->labels[i], .cpu_milli = cpu, .memory = memory, .ready = true};
}

static void dep_text(struct buf *b, const char *name, unsigned replicas, const char *spec, const char *resources)
{
    buf_printf(b, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: { name: %s }\nspec: { replicas: %u, selector: { matchLabels: { app: %s } },\n"
                  " template: { metadata: { labels: { app: %s, tier: %s } }, spec: { %s%s\n  containers: [ { name: c, command: [ x ], resources: { requests: { %s } } } ] } } }\n",
               name, replicas, name, name, name[0] < 'm' ? "low" : "high", spec, spec[0] ? "," : "", resources);
}

static void wants_read(struct system *s, struct buf *text)
{
    struct diags d = {0};
    s->set = objset_new();
    objset_read(s->set, "m.yaml", "/", buf_slice(text), "default", true, &d);
    for (size_t i = 0; i < d.n; i++)
        fail_msg("%s: %s", d.items[i].where, d.items[i].reason);
    s->wants_n = objset_n(s->set);
    for (size_t i = 0; i < s->wants_n; i++)
        s->wants[i] = (struct place_want){.dep = objset_at(s->set, i), .counts = s->counts[i]};
    diags_free(&d);
    buf_free(text);
}

static void system_free(struct system *s)
{
    for (size_t i = 0; i < s->wants_n; i++)
        mem_free(s->wants[i].why);
    objset_free(s->set);
    memset(s, 0, sizeof *s);
}

static void run(struct system *s)
{
    for (size_t i = 0; i < s->wants_n; i++)
        mem_free(s->wants[i].why);
    place(s->nodes, s->nodes_n, s->wants, s->wants_n);
}

/* "a:2 b:1" */
static const char *shown(const struct system *s, size_t w)
{
    static char text[128];
    size_t n = 0;
    text[0] = 0;
    for (size_t i = 0; i < s->nodes_n; i++)
        if (s->counts[w][i])
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s:%u", n ? " " : "", s->names[i], s->counts[w][i]);
    return text;
}

/* One Deployment on nodes a (zone 1), b (zone 1), c (zone 2), each with 4 CPUs and 4 Gi. */
static void one(struct system *s, unsigned replicas, const char *spec, const char *resources)
{
    struct buf b = {0};
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 3; i++)
        node_add(s, (char)('a' + i), 1 + i / 2, 4000, 4ull << 30);
    dep_text(&b, "web", replicas, spec, resources);
    wants_read(s, &b);
}

/* ---- rules --------------------------------------------------------------------------------------------------------------------- */

static void test_rules(void **state)
{
    static const struct {
        unsigned replicas;
        const char *spec, *resources, *placed, *why;
    } cases[] = {
        {1, "", "", "a:1", NULL},
        {2, "", "", "a:1 c:1", NULL}, /* zones first */
        {3, "", "", "a:1 b:1 c:1", NULL},
        {5, "", "", "a:2 b:1 c:2", NULL},
        {3, "", "cpu: \"3\"", "a:1 b:1 c:1", NULL},
        {4, "", "cpu: \"3\"", "a:1 b:1 c:1", "0/3 nodes are available: 3 Insufficient cpu."},
        {9, "", "memory: 3Gi, cpu: \"4\"", "a:1 b:1 c:1", "0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory."},
        {2, "nodeSelector: { disk: ssd }", "", "b:2", NULL},
        {2, "nodeSelector: { disk: tape }", "", "", "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."},
        {2, "nodeSelector: { disk: ssd }", "memory: 3Gi", "b:1", "0/3 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, 1 Insufficient memory."},
        {2, "nodeName: c", "", "c:2", NULL},
        {2, "nodeName: d", "", "", "0/3 nodes are available: 3 node(s) didn't match the requested node name."},
        {1, "affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [ { matchExpressions: [ { key: rank, operator: Lt, values: [ \"10\" ] } ] } ] } } }", "", "b:1", NULL},
        {1, "affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [ { matchExpressions: [ { key: rank, operator: Gt, values: [ \"12\" ] } ] } ] } } }", "", "",
         "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."},
        {2, "affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [ { matchFields: [ { key: metadata.name, operator: In, values: [ a, c ] } ] } ] } } }", "", "a:1 c:1", NULL},
        {3, "affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [ { weight: 5, preference: { matchExpressions: [ { key: disk, operator: NotIn, values: [ hdd ] } ] } } ] } }", "cpu: \"2\"", "b:2 c:1", NULL}, /* full: the other zone */
        {4, "affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { app: web } }, topologyKey: kubernetes.io/hostname } ] } }", "", "a:1 b:1 c:1",
         "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."},
        {3, "affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { app: web } }, topologyKey: topology.kubernetes.io/zone } ] } }", "", "a:1 c:1",
         "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."},
        {3, "affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { app: web } }, topologyKey: topology.kubernetes.io/zone } ] } }", "", "a:2 b:1", NULL},
        {1, "affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { app: db } }, topologyKey: kubernetes.io/hostname } ] } }", "", "",
         "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."},
        {3, "affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [ { weight: 1, podAffinityTerm: { labelSelector: { matchExpressions: [ { key: app, operator: In, values: [ web ] } ] }, topologyKey: kubernetes.io/hostname } } ] } }", "",
         "a:1 b:1 c:1", NULL},
        {6, "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } } ]", "", "a:2 b:1 c:3", NULL},
        {6, "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } } ]", "cpu: \"2\"", "a:2 b:1 c:2",
         "0/3 nodes are available: 2 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints."},
        {3, "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: rack, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } } ]", "", "",
         "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing required label)."},
        {3, "topologySpreadConstraints: [ { maxSkew: 1, minDomains: 3, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } } ]", "", "a:1 c:1",
         "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints."},
        {0, "", "", "", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct system s;
        one(&s, cases[i].replicas, cases[i].spec, cases[i].resources);
        run(&s);
        if (strcmp(shown(&s, 0), cases[i].placed) != 0)
            fail_msg("case %zu: %s, not %s", i, shown(&s, 0), cases[i].placed);
        if (cases[i].why ? !s.wants[0].why || strcmp(s.wants[0].why, cases[i].why) != 0 : s.wants[0].why != NULL)
            fail_msg("case %zu: %s", i, s.wants[0].why ? s.wants[0].why : "(nothing)");
        system_free(&s);
    }
}

/* What is placed stays; what loses its node goes to others; a node that is back gets nothing by itself. */
static void test_stable(void **state)
{
    struct system s;
    one(&s, 6, "", "");
    run(&s);
    assert_string_equal(shown(&s, 0), "a:2 b:2 c:2");
    s.nodes[2].ready = false;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:3 b:3");
    s.nodes[2].ready = true;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:3 b:3");
    ((struct object *)s.wants[0].dep)->dep.replicas = 7;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:3 b:3 c:1");
    ((struct object *)s.wants[0].dep)->dep.replicas = 4;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:2 b:1 c:1"); /* from the fullest zone */
    for (size_t i = 0; i < 3; i++)
        s.nodes[i].ready = false;
    run(&s);
    assert_int_equal(s.wants[0].unplaced, 4);
    assert_string_equal(s.wants[0].why, "0/3 nodes are available: 3 node(s) were not ready.");
    system_free(&s);
}

/* A hard spread that was broken by what happened is mended, one at a time, when all is well. */
static void test_mended(void **state)
{
    struct system s;
    one(&s, 4, "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } } ]", "");
    s.nodes[2].ready = false;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:2 b:2");
    s.nodes[2].ready = true;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:2 b:2");
    s.wants[0].settled = true;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:2 b:1 c:1");
    run(&s);
    assert_string_equal(shown(&s, 0), "a:1 b:1 c:2");
    run(&s);
    assert_string_equal(shown(&s, 0), "a:1 b:1 c:2");
    system_free(&s);
}

/* What runs once is together, and moves as a whole. */
static void test_once(void **state)
{
    struct system s;
    one(&s, 2, "", "cpu: \"1\"");
    ((struct object *)s.wants[0].dep)->dep.run_once = true;
    run(&s);
    assert_string_equal(shown(&s, 0), "a:2");
    s.nodes[0].ready = false;
    run(&s);
    assert_int_equal(s.counts[0][0], 0);
    assert_true(s.counts[0][1] == 2 || s.counts[0][2] == 2);
    s.nodes[0].ready = true;
    s.counts[0][0] = 1; /* two nodes think it theirs: one keeps it */
    run(&s);
    assert_int_equal(s.counts[0][0], 0);
    ((struct object *)s.wants[0].dep)->dep.replicas = 5;
    run(&s);
    assert_int_equal(s.wants[0].unplaced, 1);
    assert_non_null(strstr(s.wants[0].why, "runs once"));
    system_free(&s);
}

/* Anti-affinity holds for those that come later and say nothing; affinity brings together; the host's ports meet. */
static void test_others(void **state)
{
    struct system s = {0};
    struct buf b = {0};
    for (int i = 0; i < 3; i++)
        node_add(&s, (char)('a' + i), 0, 4000, 4ull << 30);
    dep_text(&b, "alone", 1, "affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { tier: high } }, topologyKey: kubernetes.io/hostname } ] } }", "");
    dep_text(&b, "follow", 2, "affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { app: alone } }, topologyKey: kubernetes.io/hostname } ] } }", "");
    dep_text(&b, "web", 3, "", "");
    wants_read(&s, &b);
    run(&s);
    assert_string_equal(shown(&s, 0), "a:1");
    assert_string_equal(shown(&s, 1), "a:2");
    assert_int_equal(s.counts[2][0], 0);
    assert_int_equal(s.counts[2][1] + s.counts[2][2], 3);
    s.nodes[1].ready = s.nodes[2].ready = false;
    run(&s);
    assert_string_equal(s.wants[2].why, "0/3 nodes are available: 2 node(s) were not ready, 1 node(s) didn't satisfy existing pods anti-affinity rules.");
    system_free(&s);
    node_add(&s, 'a', 0, 4000, 4ull << 30);
    buf_adds(&b, "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: h }\nspec: { replicas: 2, selector: { matchLabels: { a: b } },\n"
                 " template: { metadata: { labels: { a: b } }, spec: { hostNetwork: true, containers: [ { name: c, command: [ x ], ports: [ { containerPort: 80 } ] } ] } } }\n");
    wants_read(&s, &b);
    run(&s);
    assert_string_equal(s.wants[0].why, "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.");
    assert_string_equal(shown(&s, 0), "a:1");
    system_free(&s);
}

/* ---- random systems ---------------------------------------------------------------------------------------------------------------- */

static uint64_t chance_state;
static unsigned chance(unsigned n) { return test_chance(&chance_state, n); }

static const char *const specs[] = {
    "",
    "",
    "nodeSelector: { disk: ssd }",
    "affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { tier: low } }, topologyKey: kubernetes.io/hostname } ] } }",
    "affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { tier: high } }, topologyKey: topology.kubernetes.io/zone } ] } }",
    "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { tier: low } } } ]",
    "affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [ { weight: 10, preference: { matchExpressions: [ { key: disk, operator: In, values: [ ssd ] } ] } } ] } }",
    "affinity: { podAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [ { weight: 10, podAffinityTerm: { labelSelector: { matchLabels: { tier: high } }, topologyKey: kubernetes.io/hostname } } ] } }",
};

static void system_random(struct system *s)
{
    struct buf b = {0};
    memset(s, 0, sizeof *s);
    for (unsigned n = 1 + chance(NODES_MAX - 1), i = 0; i < n; i++)
        node_add(s, (char)('a' + i), (int)chance(4), 1000 * (1 + chance(4)), (uint64_t)(1 + chance(4)) << 30);
    for (unsigned n = 1 + chance(WANTS_MAX - 1), i = 0; i < n; i++) {
        char name[3] = {(char)('i' + i), 'x', 0}, resources[64];
        snprintf(resources, sizeof resources, "cpu: %um, memory: %uMi", (1 + chance(8)) * 100, (1 + chance(8)) * 64);
        dep_text(&b, name, chance(7), specs[chance(COUNT_OF(specs))], chance(3) ? resources : "");
    }
    wants_read(s, &b);
    for (size_t i = 0; i < s->wants_n; i++)
        ((struct object *)s->wants[i].dep)->dep.run_once = chance(6) == 0;
}

static bool same_domain(const struct system *s, size_t a, size_t b, const char *key)
{
    const struct kv *x = kvs_get(&s->labels[a], slice_cstr(key)), *y = kvs_get(&s->labels[b], slice_cstr(key));
    return x && y && strcmp(x->value, y->value) == 0;
}

static void apart_check(const struct system *s, size_t w)
{
    const struct place_spec *p = &s->wants[w].dep->dep.pod.place;
    for (size_t t = 0; t < p->apart_n; t++)
        for (size_t v = 0; v < s->wants_n; v++)
            for (size_t i = 0; i < s->nodes_n; i++)
                for (size_t k = 0; k < s->nodes_n; k++) {
                    uint32_t there = s->counts[v][k];
                    if (!label_select_match(&p->apart[t].who, &s->wants[v].dep->dep.pod.labels) || !same_domain(s, i, k, p->apart[t].topology))
                        continue;
                    if (v == w && i == k)
                        assert_true(s->counts[w][i] <= 1);
                    else
                        assert_false(s->counts[w][i] && there);
                }
}

static void check(const struct system *s)
{
    for (size_t i = 0; i < s->nodes_n; i++) {
        uint64_t cpu = 0, memory = 0;
        for (size_t w = 0; w < s->wants_n; w++) {
            const struct pod_template *pod = &s->wants[w].dep->dep.pod;
            cpu += (uint64_t)s->counts[w][i] * pod->cpu_milli_request;
            memory += s->counts[w][i] * pod->memory_request;
            if (s->counts[w][i])
                assert_true(s->nodes[i].ready && kvs_match(&pod->place.node_selector, &s->labels[i]));
        }
        assert_true(cpu <= s->nodes[i].cpu_milli && memory <= s->nodes[i].memory);
    }
    for (size_t w = 0; w < s->wants_n; w++) {
        uint64_t sum = s->wants[w].unplaced, on = 0;
        for (size_t i = 0; i < s->nodes_n; i++) {
            sum += s->counts[w][i];
            on += s->counts[w][i] != 0;
        }
        assert_int_equal(sum, s->wants[w].dep->dep.replicas);
        assert_true(!s->wants[w].unplaced == !s->wants[w].why);
        assert_true(!s->wants[w].dep->dep.run_once || on <= 1);
        apart_check(s, w);
    }
}

/* Nothing is less anywhere than before, but on node without. */
static void check_stays(const struct system *s, uint32_t before[WANTS_MAX][NODES_MAX], size_t without)
{
    for (size_t w = 0; w < s->wants_n; w++)
        for (size_t i = 0; i < s->nodes_n; i++)
            if (i != without && s->counts[w][i] < before[w][i])
                fail_msg("%s has left node %s without need", s->wants[w].dep->name, s->names[i]);
}

static void test_random(void **state)
{
    uint32_t before[WANTS_MAX][NODES_MAX];
    size_t placed = 0, homeless = 0;
    unsigned n = (unsigned)test_repeats(3000);
    for (unsigned seed = 0; seed < n; seed++) {
        struct system s;
        chance_state = seed;
        system_random(&s);
        run(&s);
        check(&s);
        for (size_t w = 0; w < s.wants_n; w++) {
            homeless += s.wants[w].unplaced;
            placed += s.wants[w].dep->dep.replicas - s.wants[w].unplaced;
        }
        memcpy(before, s.counts, sizeof before);
        memset(s.counts, 0, sizeof s.counts);
        run(&s); /* the same once more, from nothing */
        assert_memory_equal(before, s.counts, sizeof before);
        run(&s); /* and from itself */
        assert_memory_equal(before, s.counts, sizeof before);
        size_t lost = chance((unsigned)s.nodes_n);
        s.nodes[lost].ready = false;
        run(&s);
        check(&s);
        check_stays(&s, before, lost);
        memcpy(before, s.counts, sizeof before);
        s.nodes[lost].ready = true;
        run(&s);
        check(&s);
        check_stays(&s, before, NODES_MAX);
        system_free(&s);
    }
    assert_true(test_few(n, 3000) || (placed > homeless && homeless > n / 3)); /* both are met often */
}

static const char *const spreads[] = {
    "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { tier: low } } },"
    " { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { tier: low } } } ]",
    "topologySpreadConstraints: [ { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { tier: low } } } ]",
    "topologySpreadConstraints: [ { maxSkew: 2, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { tier: low } } },"
    " { maxSkew: 1, topologyKey: disk, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { tier: low } } } ]",
    "nodeSelector: { disk: ssd }",
    "",
};

/* Mending comes to an end, whatever several spreads want of the same replicas: nothing moves for ever. */
static void test_settles(void **state)
{
    uint32_t before[WANTS_MAX][NODES_MAX];
    unsigned mended = 0, seeds = (unsigned)test_repeats(3000);
    for (unsigned seed = 0; seed < seeds; seed++) {
        struct system s;
        struct buf b = {0};
        unsigned step = 0;
        chance_state = seed + 77777;
        memset(&s, 0, sizeof s);
        for (unsigned n = 2 + chance(NODES_MAX - 2), i = 0; i < n; i++)
            node_add(&s, (char)('a' + i), (int)chance(4), 1000 * (1 + chance(6)), (uint64_t)(2 + chance(4)) << 30);
        for (unsigned n = 1 + chance(WANTS_MAX - 1), i = 0; i < n; i++) {
            char name[3] = {(char)('i' + i), 'x', 0};
            dep_text(&b, name, chance(7), spreads[chance(COUNT_OF(spreads))], "cpu: 200m, memory: 100Mi");
        }
        wants_read(&s, &b);
        for (size_t w = 0; w < s.wants_n; w++)
            for (unsigned k = chance(4); k > 0; k--)
                s.counts[w][chance((unsigned)s.nodes_n)] += chance(3);
        do {
            if (++step > 200)
                fail_msg("seed %u: it still moves after %u steps", seed, step);
            memcpy(before, s.counts, sizeof before);
            for (size_t w = 0; w < s.wants_n; w++)
                s.wants[w].settled = true;
            run(&s);
        } while (memcmp(before, s.counts, sizeof before) != 0);
        check(&s);
        mended += step > 2;
        system_free(&s);
    }
    assert_true(test_few(seeds, 3000) || mended > seeds / 30);
}

/* What is wrong with the fields is said. */
static void test_errors(void **state)
{
    static const struct { const char *spec, *error; } cases[] = {
        {"affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { topologyKey: z, labelSelector: { matchExpressions: [ { key: a, operator: In } ] } } ] } }", "In takes values"},
        {"affinity: { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [ { labelSelector: { matchLabels: { a: b } } } ] } }", "topologyKey"},
        {"affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [ { matchExpressions: [ { key: a, operator: Exists, values: [ x ] } ] } ] } } }", "Exists takes no values"},
        {"affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [ { matchExpressions: [ { key: a, operator: Gt, values: [ x ] } ] } ] } } }", "Gt takes one number"},
        {"affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [ { matchFields: [ { key: spec.x, operator: In, values: [ x ] } ] } ] } } }", "not a field of nodes"},
        {"topologySpreadConstraints: [ { maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule } ]", "maxSkew"},
        {"topologySpreadConstraints: [ { maxSkew: 1, topologyKey: z, whenUnsatisfiable: Maybe } ]", "whenUnsatisfiable"},
        {"topologySpreadConstraints: [ { maxSkew: 1, topologyKey: z, minDomains: 2, whenUnsatisfiable: ScheduleAnyway } ]", "DoNotSchedule only"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        struct diags d = {0};
        struct objset *set = objset_new();
        bool found = false;
        dep_text(&b, "web", 1, cases[i].spec, "");
        objset_read(set, "m.yaml", "/", buf_slice(&b), "default", false, &d);
        for (size_t k = 0; k < d.n; k++)
            found = found || (d.items[k].level == DIAG_ERROR && (strstr(d.items[k].reason, cases[i].error) || strstr(d.items[k].where, cases[i].error)));
        if (!found)
            fail_msg("case %zu: no error", i);
        diags_free(&d);
        objset_free(set);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules),  cmocka_unit_test(test_stable), cmocka_unit_test(test_mended), cmocka_unit_test(test_once),
                                       cmocka_unit_test(test_others), cmocka_unit_test(test_random), cmocka_unit_test(test_settles), cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
