/* topic_settings.c - the settings of topics (topic_settings.def): checking a value, and what the log and the data plane make of them. */
#include "frame_int.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

const struct setting_info topic_setting_infos[TOPIC_SETTINGS] = {
#define X(id, name_, type_, def_, least_, greatest_, words_, doc_) \
    [TOPIC_##id] = {.name = name_, .preset = def_, .words = words_, .doc = doc_, .type = SETTING_##type_, .least = least_, .greatest = greatest_},
#include "topic_settings.def"
#undef X
};

int setting_find(struct slice name)
{
    for (int i = 0; i < TOPIC_SETTINGS; i++)
        if (slice_is(name, topic_setting_infos[i].name))
            return i;
    return -1;
}

/* ---- checking ------------------------------------------------------------------------------------------------------ */

#define NUMBER_TEXT_MAX 40

static bool number_parse(struct slice text, int64_t *out)
{
    char t[NUMBER_TEXT_MAX + 1], *end;
    if (text.n == 0 || text.n > NUMBER_TEXT_MAX || !((text.p[0] >= '0' && text.p[0] <= '9') || text.p[0] == '-' || text.p[0] == '+'))
        return false;
    memcpy(t, text.p, text.n);
    t[text.n] = '\0';
    errno = 0;
    long long v = strtoll(t, &end, 10);
    *out = v;
    return errno == 0 && *end == '\0' && end != t;
}

static bool double_parse(struct slice text, double *out)
{
    char t[NUMBER_TEXT_MAX + 1], *end;
    if (text.n == 0 || text.n > NUMBER_TEXT_MAX)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        t[i] = text.p[i];
        if (!(t[i] >= '0' && t[i] <= '9') && !strchr("+-.eE", t[i]))
            return false;
    }
    t[text.n] = '\0';
    *out = strtod(t, &end);
    return *end == '\0' && end != t && isfinite(*out);
}

static bool word_in(const char *words, struct slice word)
{
    struct slice rest = slice_cstr(words);
    while (rest.n)
        if (slice_eq(slice_cut(rest, '|', &rest), word))
            return true;
    return false;
}

/* An empty list is one without words. */
static bool list_ok(const char *words, struct slice list)
{
    struct slice rest = list;
    while (words && rest.n)
        if (!word_in(words, slice_trim(slice_cut(rest, ',', &rest))))
            return false;
    return true;
}

static char *say_value(const struct setting_info *f, struct slice value, const char *what)
{
    struct buf b = {0};
    struct slice shown = slice_of(value.p, MIN(value.n, (size_t)200));
    buf_printf(&b, "Invalid value " SLICE_FMT " for configuration %s: %s", SLICE_ARG(shown), f->name, what);
    return buf_take(&b, NULL);
}

static char *say_bounds(const struct setting_info *f, struct slice value)
{
    struct buf what = {0};
    buf_printf(&what, "it must be a whole number of at least %lld and at most %lld", (long long)f->least, (long long)f->greatest);
    char *text = say_value(f, value, what.p);
    buf_free(&what);
    return text;
}

static char *say_words(const struct setting_info *f, struct slice value)
{
    struct buf what = {0};
    buf_printf(&what, "it must be %sof %s", f->type == SETTING_LIST ? "a list " : "one ", f->words);
    char *text = say_value(f, value, what.p);
    buf_free(&what);
    return text;
}

bool setting_check(enum topic_setting i, struct slice value, char **why)
{
    const struct setting_info *f = &topic_setting_infos[i];
    int64_t n;
    double d;
    *why = NULL;
    switch (f->type) {
    case SETTING_SHORT:
    case SETTING_INT:
    case SETTING_LONG:
        if (!number_parse(slice_trim(value), &n) || n < f->least || n > f->greatest)
            *why = say_bounds(f, value);
        break;
    case SETTING_DOUBLE:
        if (!double_parse(slice_trim(value), &d) || d < (double)f->least || d > (double)f->greatest)
            *why = say_value(f, value, "it must be a number between 0 and 1");
        break;
    case SETTING_BOOL:
        if (!slice_ieq(slice_trim(value), SLICE("true")) && !slice_ieq(slice_trim(value), SLICE("false")))
            *why = say_value(f, value, "it must be true or false");
        else if (i == TOPIC_REMOTE_STORAGE_ENABLE && slice_ieq(slice_trim(value), SLICE("true")))
            *why = say_value(f, value, "there is no tiered storage here");
        break;
    case SETTING_LIST:
        if (!list_ok(f->words, value))
            *why = say_words(f, value);
        break;
    case SETTING_STRING:
        if (f->words && !word_in(f->words, value))
            *why = say_words(f, value);
        break;
    }
    return *why == NULL;
}

/* ---- meaning ------------------------------------------------------------------------------------------------------------ */

void settings_init(struct topic_settings *s)
{
    char *why;
    *s = (struct topic_settings){0};
    MUST(settings_read(s, &why)); /* the defaults go together */
}

void settings_fini(struct topic_settings *s)
{
    for (uint32_t i = 0; i < TOPIC_SETTINGS; i++)
        mem_free(s->values[i]);
}

void settings_set(struct topic_settings *s, enum topic_setting i, struct slice value)
{
    mem_free(s->values[i]);
    s->values[i] = value.p ? mem_strndup(MEM_BROKER, value.p, value.n) : NULL;
}

const char *settings_value(const struct topic_settings *s, enum topic_setting i) { return s->values[i] ? s->values[i] : topic_setting_infos[i].preset; }

static struct slice text_of(const struct topic_settings *s, enum topic_setting i) { return slice_trim(slice_cstr(settings_value(s, i))); }

static int64_t number_of(const struct topic_settings *s, enum topic_setting i)
{
    int64_t n;
    MUST(number_parse(text_of(s, i), &n)); /* setting_check() has seen it */
    return n;
}

static bool list_has(struct slice list, const char *word)
{
    while (list.n)
        if (slice_is(slice_trim(slice_cut(list, ',', &list)), word))
            return true;
    return false;
}

static void part_settings(const struct topic_settings *s, struct part_conf *c)
{
    part_conf_default(c);
    c->segment_bytes = (uint32_t)number_of(s, TOPIC_SEGMENT_BYTES);
    c->index_interval_bytes = (uint32_t)number_of(s, TOPIC_INDEX_INTERVAL_BYTES);
    c->max_message_bytes = (uint32_t)number_of(s, TOPIC_MAX_MESSAGE_BYTES);
    c->segment_ms = number_of(s, TOPIC_SEGMENT_MS);
    c->retention_ms = number_of(s, TOPIC_RETENTION_MS);
    c->retention_bytes = MAX(number_of(s, TOPIC_RETENTION_BYTES), -1);
    c->delete_retention_ms = number_of(s, TOPIC_DELETE_RETENTION_MS);
    c->min_compaction_lag_ms = number_of(s, TOPIC_MIN_COMPACTION_LAG_MS);
    c->max_compaction_lag_ms = number_of(s, TOPIC_MAX_COMPACTION_LAG_MS);
    c->file_delete_delay_ms = number_of(s, TOPIC_FILE_DELETE_DELAY_MS);
    MUST(double_parse(text_of(s, TOPIC_MIN_CLEANABLE_DIRTY_RATIO), &c->min_cleanable_ratio));
    c->cleanup_delete = list_has(text_of(s, TOPIC_CLEANUP_POLICY), "delete");
    c->cleanup_compact = list_has(text_of(s, TOPIC_CLEANUP_POLICY), "compact");
}

static void compression_settings(struct topic_settings *s)
{
    struct slice type = text_of(s, TOPIC_COMPRESSION_TYPE);
    s->compression = COMPRESSION_PRODUCER;
    s->compression_level = 0;
    if (slice_is(type, "uncompressed")) {
        s->compression = KAFKA_CODEC_NONE;
    } else if (slice_is(type, "snappy")) {
        s->compression = KAFKA_CODEC_SNAPPY;
    } else if (slice_is(type, "gzip")) {
        s->compression = KAFKA_CODEC_GZIP;
        s->compression_level = (int32_t)number_of(s, TOPIC_COMPRESSION_GZIP_LEVEL);
    } else if (slice_is(type, "lz4")) {
        s->compression = KAFKA_CODEC_LZ4;
        s->compression_level = (int32_t)number_of(s, TOPIC_COMPRESSION_LZ4_LEVEL);
    } else if (slice_is(type, "zstd")) {
        s->compression = KAFKA_CODEC_ZSTD;
        s->compression_level = (int32_t)number_of(s, TOPIC_COMPRESSION_ZSTD_LEVEL);
    }
}

bool settings_read(struct topic_settings *s, char **why)
{
    *why = NULL;
    part_settings(s, &s->part);
    compression_settings(s);
    s->log_append_time = slice_is(text_of(s, TOPIC_MESSAGE_TIMESTAMP_TYPE), "LogAppendTime");
    s->timestamp_before_max_ms = number_of(s, TOPIC_MESSAGE_TIMESTAMP_BEFORE_MAX_MS);
    s->timestamp_after_max_ms = number_of(s, TOPIC_MESSAGE_TIMESTAMP_AFTER_MAX_MS);
    s->min_insync = (int32_t)number_of(s, TOPIC_MIN_INSYNC_REPLICAS);
    if (s->part.cleanup_compact && s->part.min_compaction_lag_ms > s->part.max_compaction_lag_ms) {
        struct buf b = {0};
        buf_printf(&b, "conflict between min.compaction.lag.ms (%lld) and max.compaction.lag.ms (%lld): the first must not be greater", (long long)s->part.min_compaction_lag_ms,
                   (long long)s->part.max_compaction_lag_ms);
        *why = buf_take(&b, NULL);
    }
    return *why == NULL;
}
