/* plan_topic_test.c - Topics and KafkaTopics as they are read, what is said about bad ones, Keyspaces, and what manifests say of the event log's name and port. */
#include "plan_reader_test.h"

#define TOPIC(spec) "apiVersion: weir.dev/v1\nkind: Topic\nmetadata: { name: orders }\nspec: {\n" spec " }\n"
#define AT_T "Topic/default/orders spec."

static const struct object *only(const struct objset *s)
{
    assert_int_equal(objset_n(s), 1);
    return objset_at(s, 0);
}

static const char *setting(const struct object *o, const char *name)
{
    const struct kv *kv = kvs_get(&o->topic.config, slice_cstr(name));
    return kv ? kv->value : NULL;
}

static void test_topic(void **state)
{
    struct objset *s = read_good(TOPIC("topicName: shop.Orders_1, partitions: 12, replicas: 1, config: { retention.ms: 604800000, cleanup.policy: \"compact,delete\", unclean.leader.election.enable: false, "
                                       "min.cleanable.dirty.ratio: 0.2 },\nacls: [ { principal: \"User:shop/orders\", operations: [ Read, Write ] }, { principal: \"User:*\", operations: [ All ], permission: Deny, host: 10.0.0.1 } ],\nquotas: [ { principal: \"User:shop/orders\", producerByteRate: 1000000, requestPercentage: 50 } ]"));
    const struct topic_spec *t = &only(s)->topic;
    assert_string_equal(t->topic, "shop.Orders_1");
    assert_int_equal(t->partitions, 12);
    assert_string_equal(setting(only(s), "retention.ms"), "604800000");
    assert_string_equal(setting(only(s), "cleanup.policy"), "compact,delete");
    assert_string_equal(setting(only(s), "unclean.leader.election.enable"), "false");
    assert_string_equal(setting(only(s), "min.cleanable.dirty.ratio"), "0.2");
    assert_true(t->quotas_n == 1 && t->quotas[0].producer_bytes == 1000000 && t->quotas[0].consumer_bytes == 0 && t->quotas[0].request_percent == 50);
    assert_int_equal(t->acls_n, 2);
    assert_int_equal(t->acls[0].operations, 1u << TOPIC_READ | 1u << TOPIC_WRITE);
    assert_true(!t->acls[0].deny && strcmp(t->acls[0].host, "*") == 0);
    assert_true(t->acls[1].deny && strcmp(t->acls[1].host, "10.0.0.1") == 0);
    objset_free(s);
    s = read_good("apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaTopic\nmetadata: { name: a.b, labels: { strimzi.io/cluster: my-cluster } }\n");
    assert_true(only(s)->kind == OBJ_KAFKATOPIC && !only(s)->topic.acls_n && only(s)->topic.partitions == 1);
    assert_string_equal(only(s)->topic.topic, "a.b");
    objset_free(s);
}

static const struct bad_case bad_topics[] = {
    {"copies", TOPIC("replicas: 3"), "m.yaml:5:1: warning: " AT_T "replicas: approximated: there is one node"},
    {"name", TOPIC("topicName: \"a b\""), "m.yaml:5:12: error: " AT_T "topicName: not valid here: \"a b\"; give a topic's name"},
    {"dots", TOPIC("topicName: \"..\""), "m.yaml:5:12: error: " AT_T "topicName: not valid here: \"..\""},
    {"internal", TOPIC("topicName: __consumer_offsets"), "m.yaml:1:1: error: " AT_T "topicName: the broker's own topics are not to be declared: __consumer_offsets"},
    {"partitions", TOPIC("partitions: 0"), "m.yaml:5:13: error: " AT_T "partitions: 0 is out of range; give a number from 1 to 10000"},
    {"settings", TOPIC("config: { \"a b\": 1, retention.ms: [ 1 ] }"), "m.yaml:5:11: error: " AT_T "config[\"a b\"]: not a valid key\nm.yaml:5:35: error: " AT_T "config[\"retention.ms\"]: is a list"},
    {"settings of another type", TOPIC("config: [ 1 ]"), "m.yaml:5:9: error: " AT_T "config: is a list"},
    {"quotas", TOPIC("quotas: [ { principal: \"User:*\", consumerByteRate: 1 }, { principal: \"User:a\" } ]"),
     "m.yaml:5:24: error: " AT_T "quotas[0].principal: not one principal: \"User:*\"\nm.yaml:5:57: error: " AT_T "quotas[1]: no rate: nothing is limited"},
    {"nobody", TOPIC("acls: []"), "m.yaml:5:7: error: " AT_T "acls: an empty list would not say who may use the topic; name who may use the topic, or leave the list out"},
    {"acls", TOPIC("acls: [ { principal: orders, operations: [ Fly ] }, { principal: \"User:a\", operations: [] } ]"),
     "m.yaml:5:22: error: " AT_T "acls[0].principal: not a principal: \"orders\"; write User:NAMESPACE/WORKLOAD\n"
     "m.yaml:5:44: error: " AT_T "acls[0].operations[0]: \"Fly\" is not known; known here: All, Read, Write\n"
     "m.yaml:5:88: error: " AT_T "acls[1].operations: an empty list permits nothing"},
};

static void test_bad(void **state) { expect_bad(bad_topics, COUNT_OF(bad_topics)); }

static void test_twice(void **state)
{
    struct diags d = {0};
    struct objset *s = read_good("apiVersion: weir.dev/v1\nkind: Topic\nmetadata: { name: a, namespace: one }\n---\napiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaTopic\nmetadata: { name: b, namespace: two }\n"
                                 "spec: { topicName: a }\n");
    objset_check(s, &d);
    expect_diags("twice", &d, "m.yaml:5:1: error: KafkaTopic/two/b spec.topicName: the topic a is that of Topic one/a already; remove one");
    diags_free(&d);
    objset_free(s);
}

/* ---- keyspaces ---- */

#define KEYSPACE(spec) "apiVersion: weir.dev/v1\nkind: Keyspace\nmetadata: { name: k }\nspec: {\n" spec " }\n"
#define AT_K "Keyspace/default/k spec."

static void test_keyspace(void **state)
{
    struct objset *s = read_good(KEYSPACE("prefix: /orders/, acls: [ { principal: \"User:shop/orders\", operations: [ Read, Write ] }, { principal: \"User:*\", operations: [ Read ] }, "
                                          "{ principal: \"User:ANONYMOUS\", operations: [ Write ] } ]"));
    const struct keyspace_spec *k = &only(s)->keyspace;
    assert_string_equal(k->prefix, "/orders/");
    assert_int_equal(k->acls_n, 3);
    assert_string_equal(k->acls[0].principal, "User:shop/orders");
    assert_true(k->acls[0].read && k->acls[0].write && k->acls[1].read && !k->acls[1].write && !k->acls[2].read && k->acls[2].write);
    objset_free(s);
}

static const struct bad_case bad_keyspaces[] = {
    {"no prefix", KEYSPACE("acls: [ { principal: \"User:a\", operations: [ Read ] } ]"), "m.yaml:4:7: error: " AT_K "prefix: missing"},
    {"no acls", KEYSPACE("prefix: a"), "m.yaml:4:7: error: " AT_K "acls: missing"},
    {"nobody", KEYSPACE("prefix: a, acls: []"), "m.yaml:5:18: error: " AT_K "acls: an empty list would not say who may use the keys; name who may use the keys, or remove the Keyspace"},
    {"the node's", KEYSPACE("prefix: /weir/nodes, acls: [ { principal: \"User:a\", operations: [ Read ] } ]"),
     "m.yaml:5:9: error: " AT_K "prefix: keys below /weir/ are the node's own"},
    {"acls", KEYSPACE("prefix: a, acls: [ { principal: orders, operations: [ Delete ] }, { principal: \"User:a\", operations: [] } ]"),
     "m.yaml:5:33: error: " AT_K "acls[0].principal: not a principal: \"orders\"; write User:NAMESPACE/WORKLOAD, or another name behind User:\n"
     "m.yaml:5:55: error: " AT_K "acls[0].operations[0]: \"Delete\" is not known; known here: Read, Write\n"
     "m.yaml:5:102: error: " AT_K "acls[1].operations: an empty list permits nothing"},
};

static void test_keyspace_bad(void **state) { expect_bad(bad_keyspaces, COUNT_OF(bad_keyspaces)); }

static void test_keyspace_twice(void **state)
{
    struct diags d = {0};
    struct objset *s = read_good(KEYSPACE("prefix: a, acls: [ { principal: \"User:a\", operations: [ Read ] } ]") "---\n"
                                 "apiVersion: weir.dev/v1\nkind: Keyspace\nmetadata: { name: k, namespace: two }\nspec: { prefix: a, acls: [ { principal: \"User:b\", operations: [ Read ] } ] }\n");
    objset_check(s, &d);
    expect_diags("twice", &d, "m.yaml:7:1: error: Keyspace/two/k spec.prefix: the prefix a is that of Keyspace default/k already; put the acls of both into one");
    diags_free(&d);
    objset_free(s);
}

/* ---- the name kafka, and its port ------------------------------------------------------------------------------------------ */

static const char log_objects[] = "apiVersion: v1\nkind: Service\nmetadata: { name: kafka, namespace: own }\nspec: { selector: { app: k }, ports: [ { port: 9092 } ] }\n---\n"
                                  "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: k, namespace: own }\nspec: { selector: { matchLabels: { app: k } }, template: { metadata: { labels: { app: k } }, "
                                  "spec: { containers: [ { name: k, command: [ k ] } ] } } }\n---\n"
                                  "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: w }\nspec: { selector: { matchLabels: { app: w } }, template: { metadata: { labels: { app: w } }, "
                                  "spec: { containers: [ { name: w, command: [ w ], ports: [ { containerPort: 80 } ] } ] } } }\n---\n"
                                  "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: { name: e, namespace: out }\nspec: { hosts: [ kafka ], ports: [ { number: 9092, name: tcp, protocol: TCP } ], "
                                  "resolution: STATIC, endpoints: [ { address: 10.0.0.1 } ], exportTo: [ \".\" ] }\n";

static void test_log(void **state)
{
    struct diags d = {0};
    struct objset *s = read_text(log_objects, false, &d);
    assert_int_equal(d.errors, 0);
    assert_true(objset_log_named(s, "default"));
    assert_false(objset_log_named(s, "own"));
    assert_false(objset_log_named(s, "out"));
    assert_true(objset_port_free(s, objset_find(s, OBJ_DEPLOYMENT, "default", "w"), LOG_PORT));
    assert_false(objset_port_free(s, objset_find(s, OBJ_DEPLOYMENT, "default", "w"), 80));
    assert_false(objset_port_free(s, objset_find(s, OBJ_DEPLOYMENT, "own", "k"), LOG_PORT));
    diags_free(&d);
    objset_free(s);
}

/* A Service that holds the log's address, from a file of an older node, gets another. */
static void test_log_address(void **state)
{
    struct objset *s = read_good("apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { selector: { a: b }, ports: [ { port: 80 } ] }\n");
    struct object *o = (struct object *)only(s);
    o->svc.address = addr_ip4(LOG_ADDRESS, 0);
    objset_addresses(s);
    assert_true(addr_ip4_host(&o->svc.address) != LOG_ADDRESS && o->svc.address.family == ADDR_IP4);
    objset_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_topic), cmocka_unit_test(test_bad), cmocka_unit_test(test_twice), cmocka_unit_test(test_keyspace), cmocka_unit_test(test_keyspace_bad), cmocka_unit_test(test_keyspace_twice), cmocka_unit_test(test_log), cmocka_unit_test(test_log_address)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
