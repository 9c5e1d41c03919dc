/* topic_check_test.c - what is said against Topics before the broker is asked. */
#include "topic_check.h"

#include <setjmp.h>

#include <cmocka.h>

static struct objset *manifests(const char *text)
{
    struct diags d = {0};
    struct objset *s = objset_new();
    objset_read(s, "t.yaml", "/", slice_cstr(text), "default", false, &d);
    assert_int_equal(d.errors, 0);
    diags_free(&d);
    return s;
}

#define TOPIC(name, spec) "---\napiVersion: weir.dev/v1\nkind: Topic\nmetadata: { name: " name " }\nspec: { " spec " }\n"

/* want: what is said of where and why, in turn, NULL behind the last. */
static void says(const struct diags *d, const char *const *want)
{
    size_t n = 0;
    for (; want[2 * n]; n++) {
        assert_true(n < d->n);
        assert_string_equal(d->items[n].where, want[2 * n]);
        assert_non_null(strstr(d->items[n].reason, want[2 * n + 1]));
    }
    assert_int_equal(d->n, n);
    assert_int_equal(d->errors, n);
}

static void settings_say(const char *text, const char *const *want)
{
    struct diags d = {0};
    struct objset *s = manifests(text);
    topic_check_settings(s, &d);
    says(&d, want);
    diags_free(&d);
    objset_free(s);
}

static void settings(void **state)
{
    settings_say(TOPIC("a", "partitions: 2"), (const char *[]){NULL});
    settings_say(TOPIC("a", "config: { retention.ms: -1, cleanup.policy: \"compact,delete\", preallocate: true, min.cleanable.dirty.ratio: 0.1 }"), (const char *[]){NULL});
    settings_say(TOPIC("a", "config: { retention.ms: soon, cleanup.policy: delete, nonsense: 1 }") TOPIC("b", "config: { max.message.bytes: -5 }"),
                 (const char *[]){"Topic/default/a spec.config.retention.ms", "Invalid value soon", "Topic/default/a spec.config.nonsense", "Unknown topic config name",
                                  "Topic/default/b spec.config.max.message.bytes", "Invalid value -5", NULL});
    settings_say(TOPIC("a", "config: { cleanup.policy: compact, min.compaction.lag.ms: 9, max.compaction.lag.ms: 8 }"),
                 (const char *[]){"Topic/default/a spec.config", "conflict between min.compaction.lag.ms", NULL});
    settings_say("apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaTopic\nmetadata: { name: s }\nspec: { config: { segment.bytes: 1 } }\n",
                 (const char *[]){"KafkaTopic/default/s spec.config.segment.bytes", "Invalid value 1", NULL});
    (void)state;
}

/* now becomes merged, of which given is what the change is about. */
static void names_say(const char *now, const char *merged, const char *given, const char *const *want)
{
    struct diags d = {0};
    struct objset *a = manifests(now), *b = manifests(merged), *c = manifests(given);
    topic_check_names(a, b, c, &d);
    says(&d, want);
    diags_free(&d);
    objset_free(a);
    objset_free(b);
    objset_free(c);
}

static void names(void **state)
{
    const char *one = TOPIC("a", "topicName: one"), *two = TOPIC("a", "topicName: two");
    names_say("", one, one, (const char *[]){NULL});
    names_say(one, one, one, (const char *[]){NULL});
    names_say(one, two, two, (const char *[]){"Topic/default/a spec.topicName", "it is one, and can't become two", NULL});
    names_say(TOPIC("a", "partitions: 2"), two, two, (const char *[]){"Topic/default/a spec.topicName", "it is a, and can't become two", NULL});
    /* another object takes the topic over, with its records */
    names_say(one, TOPIC("a", "topicName: two") TOPIC("b", "topicName: one"), TOPIC("a", "topicName: two") TOPIC("b", "topicName: one"), (const char *[]){NULL});
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(settings), cmocka_unit_test(names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
