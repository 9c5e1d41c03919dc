/* fields.c - the table of manifest fields: fields.def as arrays, and look-ups in them.
 *
 * The arrays are read on the control thread when a manifest is applied. The rows of a schema stand together (fields.def's
 * rule), so a look-up begins at the schema's first row, which the compiler counts (schema_first), and ends at its last.
 */
#include "plan_int.h"

#define ANY .type = FT_ANY
#define INT(lo, hi) .type = FT_INT, .min = (lo), .max = (hi)
#define OBJ(s) .type = FT_OBJ, .sub = SCH_##s
#define LIST_OF(...) __VA_ARGS__, .list = true
#define MAP_OF(...) __VA_ARGS__, .map = true
#define NUMBER(lo, hi) .type = FT_NUMBER, .min = (lo), .max = (hi)
#define INT_MAP(lo, hi) .type = FT_INT_MAP, .min = (lo), .max = (hi)
#define GO_DURATION .type = FT_GO_DURATION
#define PERCENT .type = FT_PERCENT
#define WEIGHT .type = FT_WEIGHT
#define REGEX .type = FT_REGEX
#define HOST_PATTERN .type = FT_HOST_PATTERN
#define GATEWAY_HOST .type = FT_GATEWAY_HOST
#define GATEWAY_REF .type = FT_GATEWAY_REF
#define ORIGIN .type = FT_ORIGIN
#define SCOPE .type = FT_SCOPE
#define TOPIC_NAME .type = FT_TOPIC_NAME
#define SETTINGS .type = FT_SETTINGS
#define HEADER_MAP .type = FT_HEADER_MAP
#define BOOL .type = FT_BOOL
#define ENUM .type = FT_ENUM
#define CPU .type = FT_CPU
#define MEMORY .type = FT_MEMORY
#define PORT .type = FT_PORT
#define PORT_REF .type = FT_PORT_REF
#define PORT_NAME .type = FT_PORT_NAME
#define DURATION .type = FT_DURATION
#define INT_PCT .type = FT_INT_PCT
#define LABEL .type = FT_LABEL
#define SUBDOMAIN .type = FT_SUBDOMAIN
#define HOSTNAME .type = FT_HOSTNAME
#define HOSTNAME_WILD .type = FT_HOSTNAME_WILD
#define URL_PATH .type = FT_URL_PATH
#define PATH_PART .type = FT_PATH_PART
#define TARGET .type = FT_TARGET
#define HEADER_NAME .type = FT_HEADER_NAME
#define HEADER_VALUE .type = FT_HEADER_VALUE
#define ENV_NAME .type = FT_ENV_NAME
#define CONFIG_KEY .type = FT_CONFIG_KEY
#define IP .type = FT_IP
#define LABELS .type = FT_LABELS
#define ANNOTATIONS .type = FT_ANNOTATIONS
#define DATA .type = FT_DATA
#define DATA64 .type = FT_DATA64
#define STR .type = FT_STR
#define TEXT(lo, hi) .type = FT_STR, .min = (lo), .max = (hi)

#define ROW(s, key, st, fl, text, fix, ...) {.schema = SCH_##s, .name = key, .status = st, .flags = (fl), .note = text, .remedy = fix, __VA_ARGS__},

const struct field fields[] = {
#define SCHEMA(id, text)
#define HON(s, key, type, fl, note) ROW(s, key, ST_HONOURED, fl, note, "", type)
#define APX(s, key, type, fl, note, remedy) ROW(s, key, ST_APPROXIMATED, fl, note, remedy, type)
#define IGN(s, key, note, remedy) ROW(s, key, ST_IGNORED, 0, note, remedy, ANY)
#define REF(s, key, note, remedy) ROW(s, key, ST_REFUSED, 0, note, remedy, ANY)
#define VAL(...)
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
};
const size_t fields_n = COUNT_OF(fields);

static const struct field_value values[] = {
#define SCHEMA(...)
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(s, key, val, st, text, fix) {.schema = SCH_##s, .name = key, .value = val, .status = ST_##st, .note = text, .remedy = fix},
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
};

const struct kind_row kind_rows[] = {
#define SCHEMA(...)
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(...)
#define KIND(version, name, k, sch, type, ns) {.api_version = version, .kind = name, .obj = k, .schema = SCH_##sch, .name_type = type, .namespaced = ns},
#define NOT_BUILT(...)
#include "fields.def"
};
const size_t kind_rows_n = COUNT_OF(kind_rows);

static const struct not_built_row not_built_rows[] = {
#define SCHEMA(...)
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(...)
#define KIND(...)
#define NOT_BUILT(api_group, name, st, text) {.group = api_group, .kind = name, .status = ST_##st, .note = text},
#include "fields.def"
};

/* Rows counted by enumerators: each row is one, and a SCHEMA takes the number of the row after it. */
#define ROW_NAME2(kind, n) kind##_ROW_##n
#define ROW_NAME1(kind, n) ROW_NAME2(kind, n)
#define ROW_NAME(kind) ROW_NAME1(kind, __COUNTER__)
enum {
    FIELD_ROW_BEFORE = -1,
#define SCHEMA(id, text) FIELD_FIRST_##id, FIELD_LAST_BEFORE_##id = FIELD_FIRST_##id - 1,
#define HON(...) ROW_NAME(FIELD),
#define APX(...) ROW_NAME(FIELD),
#define IGN(...) ROW_NAME(FIELD),
#define REF(...) ROW_NAME(FIELD),
#define VAL(...)
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
};
enum {
    VALUE_ROW_BEFORE = -1,
#define SCHEMA(id, text) VALUE_FIRST_##id, VALUE_LAST_BEFORE_##id = VALUE_FIRST_##id - 1,
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(...) ROW_NAME(VALUE),
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
};
static const struct {
    size_t field, value;
} schema_first[SCH_COUNT] = {
    [SCH_NONE] = {COUNT_OF(fields), COUNT_OF(values)},
#define SCHEMA(id, text) [SCH_##id] = {FIELD_FIRST_##id, VALUE_FIRST_##id},
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(...)
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
};

static const char *const schema_texts[SCH_COUNT] = {
    [SCH_NONE] = "",
#define SCHEMA(id, text) [SCH_##id] = text,
#define HON(...)
#define APX(...)
#define IGN(...)
#define REF(...)
#define VAL(...)
#define KIND(...)
#define NOT_BUILT(...)
#include "fields.def"
};

static const char *const type_texts[FT_COUNT] = {
#define X(id, text) [FT_##id] = text,
    FIELD_TYPES(X)
#undef X
};

const char *field_type_text(enum field_type t) { return type_texts[t]; }
const char *schema_text(enum schema_id s) { return schema_texts[s]; }

const char *field_status_name(enum field_status st)
{
    static const char *const names[] = {"honoured", "approximated", "ignored", "refused"};
    return names[st];
}

const struct field *field_next(enum schema_id s, const struct field *prev)
{
    const struct field *f = prev ? prev + 1 : fields + schema_first[s].field;
    return f < fields + COUNT_OF(fields) && f->schema == s ? f : NULL;
}

const struct field *field_find(enum schema_id s, struct slice name)
{
    for (const struct field *f = NULL; (f = field_next(s, f));)
        if (slice_is(name, f->name))
            return f;
    return NULL;
}

const struct field_value *field_value_next(const struct field *f, const struct field_value *prev)
{
    const struct field_value *v = prev ? prev + 1 : values + schema_first[f->schema].value;
    for (; v < values + COUNT_OF(values) && v->schema == f->schema; v++)
        if (strcmp(v->name, f->name) == 0)
            return v;
    return NULL;
}

const struct field_value *field_value_find(const struct field *f, struct slice value)
{
    for (const struct field_value *v = NULL; (v = field_value_next(f, v));)
        if (slice_is(value, v->value))
            return v;
    return NULL;
}

const struct kind_row *kind_find(struct slice api_version, struct slice kind)
{
    for (size_t i = 0; i < kind_rows_n; i++)
        if (slice_is(api_version, kind_rows[i].api_version) && slice_is(kind, kind_rows[i].kind))
            return &kind_rows[i];
    return NULL;
}

const char *kind_api_versions(struct slice kind)
{
    for (size_t i = 0; i < kind_rows_n; i++)
        if (slice_is(kind, kind_rows[i].kind))
            return kind_rows[i].api_version;
    return NULL;
}

const struct not_built_row *not_built_find(struct slice group, struct slice kind)
{
    for (size_t i = 0; i < COUNT_OF(not_built_rows); i++)
        if (slice_is(group, not_built_rows[i].group) && slice_is(kind, not_built_rows[i].kind))
            return &not_built_rows[i];
    return NULL;
}

const struct not_built_row *not_built_next(const struct not_built_row *prev)
{
    const struct not_built_row *next = prev ? prev + 1 : not_built_rows;
    return next < not_built_rows + COUNT_OF(not_built_rows) ? next : NULL;
}

/* ---- likeness ----------------------------------------------------------------------------------------------------- */

#define NAME_MAX_COMPARED 48

/* Edits (insert, delete, replace one character; case is free) that turn a into b. */
static size_t edit_distance(struct slice a, struct slice b)
{
    size_t row[NAME_MAX_COMPARED + 1];
    for (size_t j = 0; j <= b.n; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t replace = diagonal + (ascii_lower(a.p[i - 1]) != ascii_lower(b.p[j - 1]));
            diagonal = row[j];
            row[j] = MIN(replace, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b.n];
}

const char *field_nearest(enum schema_id s, struct slice name)
{
    const char *best = NULL;
    size_t best_distance = MIN(name.n / 3 + 1, 3) + 1;
    if (name.n > NAME_MAX_COMPARED)
        return NULL;
    for (const struct field *f = NULL; (f = field_next(s, f));) {
        struct slice candidate = slice_cstr(f->name);
        if (candidate.n > NAME_MAX_COMPARED)
            continue;
        size_t d = edit_distance(name, candidate);
        if (d < best_distance) {
            best_distance = d;
            best = f->name;
        }
    }
    return best;
}
