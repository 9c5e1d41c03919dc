/* topic_settings.c - the settings of topics (topic_settings.def): checking a value, their defaults, and what the log and the data plane make of them.
 *
 *     a topic's own -> this broker's default -> all brokers' default -> topic_settings.def: the first that there is
 */
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
    *s = (struct topic_settings){0};
    settings_read(s);
}

void settings_fini(struct topic_settings *s)
{
    defaults_unref(s->defaults);
    for (uint32_t i = 0; i < TOPIC_SETTINGS; i++)
        mem_free(s->values[i]);
}

void settings_set(struct topic_settings *s, enum topic_setting i, struct slice value)
{
    mem_free(s->values[i]);
    s->values[i] = value.p ? mem_strndup(MEM_BROKER, value.p, value.n) : NULL;
}

const char *settings_value(const struct topic_settings *s, enum topic_setting i)
{
    if (s->values[i])
        return s->values[i];
    for (int l = DEFAULTS_LAYERS; s->defaults && l-- > 0;)
        if (s->defaults->layer[l].values[i])
            return s->defaults->layer[l].values[i];
    return topic_setting_infos[i].preset;
}

int8_t settings_source(const struct topic_settings *s, enum topic_setting i)
{
    if (s->values[i])
        return SOURCE_TOPIC;
    if (s->defaults && s->defaults->layer[DEFAULTS_BROKER].values[i])
        return SOURCE_BROKER;
    return s->defaults && s->defaults->layer[DEFAULTS_BROKERS].values[i] ? SOURCE_BROKERS : SOURCE_DEFAULT;
}

/* ---- defaults ------------------------------------------------------------------------------------------------------------ */

static const char *const default_names[TOPIC_SETTINGS] = {
    [TOPIC_SEGMENT_BYTES] = "log.segment.bytes",
    [TOPIC_SEGMENT_MS] = "log.roll.ms",
    [TOPIC_SEGMENT_JITTER_MS] = "log.roll.jitter.ms",
    [TOPIC_SEGMENT_INDEX_BYTES] = "log.index.size.max.bytes",
    [TOPIC_FLUSH_MESSAGES] = "log.flush.interval.messages",
    [TOPIC_FLUSH_MS] = "log.flush.interval.ms",
    [TOPIC_RETENTION_BYTES] = "log.retention.bytes",
    [TOPIC_RETENTION_MS] = "log.retention.ms",
    [TOPIC_MAX_MESSAGE_BYTES] = "message.max.bytes",
    [TOPIC_INDEX_INTERVAL_BYTES] = "log.index.interval.bytes",
    [TOPIC_DELETE_RETENTION_MS] = "log.cleaner.delete.retention.ms",
    [TOPIC_MIN_COMPACTION_LAG_MS] = "log.cleaner.min.compaction.lag.ms",
    [TOPIC_MAX_COMPACTION_LAG_MS] = "log.cleaner.max.compaction.lag.ms",
    [TOPIC_FILE_DELETE_DELAY_MS] = "log.segment.delete.delay.ms",
    [TOPIC_MIN_CLEANABLE_DIRTY_RATIO] = "log.cleaner.min.cleanable.ratio",
    [TOPIC_CLEANUP_POLICY] = "log.cleanup.policy",
    [TOPIC_UNCLEAN_LEADER_ELECTION_ENABLE] = "unclean.leader.election.enable",
    [TOPIC_MIN_INSYNC_REPLICAS] = "min.insync.replicas",
    [TOPIC_COMPRESSION_TYPE] = "compression.type",
    [TOPIC_COMPRESSION_GZIP_LEVEL] = "compression.gzip.level",
    [TOPIC_COMPRESSION_LZ4_LEVEL] = "compression.lz4.level",
    [TOPIC_COMPRESSION_ZSTD_LEVEL] = "compression.zstd.level",
    [TOPIC_PREALLOCATE] = "log.preallocate",
    [TOPIC_MESSAGE_TIMESTAMP_TYPE] = "log.message.timestamp.type",
    [TOPIC_MESSAGE_TIMESTAMP_BEFORE_MAX_MS] = "log.message.timestamp.before.max.ms",
    [TOPIC_MESSAGE_TIMESTAMP_AFTER_MAX_MS] = "log.message.timestamp.after.max.ms",
    [TOPIC_LOCAL_RETENTION_MS] = "log.local.retention.ms",
    [TOPIC_LOCAL_RETENTION_BYTES] = "log.local.retention.bytes",
};

const char *default_name(enum topic_setting i) { return default_names[i]; }

int default_find(struct slice name)
{
    for (int i = 0; i < TOPIC_SETTINGS; i++)
        if (default_names[i] && slice_is(name, default_names[i]))
            return i;
    return -1;
}

struct broker_defaults *defaults_copy(const struct broker_defaults *d)
{
    struct broker_defaults *copy = mem_new(MEM_BROKER, sizeof *copy);
    copy->refs = 1;
    for (int l = 0; d && l < DEFAULTS_LAYERS; l++)
        for (uint32_t i = 0; i < TOPIC_SETTINGS; i++)
            if (d->layer[l].values[i])
                settings_set(&copy->layer[l], i, slice_cstr(d->layer[l].values[i]));
    return copy;
}

struct broker_defaults *defaults_ref(struct broker_defaults *d)
{
    if (d)
        __atomic_fetch_add(&d->refs, 1, __ATOMIC_RELAXED);
    return d;
}

void defaults_unref(struct broker_defaults *d)
{
    if (!d || __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    for (int l = 0; l < DEFAULTS_LAYERS; l++)
        settings_fini(&d->layer[l]);
    mem_free(d);
}

void settings_defaults(struct topic_settings *s, struct broker_defaults *d)
{
    struct broker_defaults *was = s->defaults;
    s->defaults = defaults_ref(d);
    defaults_unref(was);
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

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

void settings_read(struct topic_settings *s)
{
    part_settings(s, &s->part);
    compression_settings(s);
    s->log_append_time = slice_is(text_of(s, TOPIC_MESSAGE_TIMESTAMP_TYPE), "LogAppendTime");
    s->timestamp_before_max_ms = number_of(s, TOPIC_MESSAGE_TIMESTAMP_BEFORE_MAX_MS);
    s->timestamp_after_max_ms = number_of(s, TOPIC_MESSAGE_TIMESTAMP_AFTER_MAX_MS);
    s->min_insync = (int32_t)number_of(s, TOPIC_MIN_INSYNC_REPLICAS);
}

bool settings_fit(const struct topic_settings *s, char **why)
{
    *why = NULL;
    if (s->part.min_compaction_lag_ms <= s->part.max_compaction_lag_ms)
        return true;
    struct buf b = {0};
    buf_printf(&b, "conflict between min.compaction.lag.ms (%lld) and max.compaction.lag.ms (%lld): the first must not be greater", (long long)s->part.min_compaction_lag_ms,
               (long long)s->part.max_compaction_lag_ms);
    *why = buf_take(&b, NULL);
    return false;
}

bool settings_fit_as_before(const struct topic_settings *s, const struct topic_settings *before, char **why)
{
    char *old = NULL;
    if (settings_fit(s, why))
        return true;
    if (s->part.cleanup_compact || (before && settings_fit(before, &old)))
        return false;
    mem_free(old);
    mem_free(*why);
    *why = NULL;
    return true;
}
