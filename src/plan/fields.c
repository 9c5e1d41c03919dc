/* fields.c - the table of manifest fields: fields.def as arrays, and look-ups in them.
 *
 * The arrays are small (some hundred rows) and read on the control thread when a manifest is applied: searched in order.
 */
#include "plan_int.h"

#define ANY .type = FT_ANY
#define INT(lo, hi) .type = FT_INT, .min = (lo), .max = (hi)
#define OBJ(s) .type = FT_OBJ, .sub = SCH_##s
#define LIST_OF(...) __VA_ARGS__, .list = true
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
#define NOT_BUILT(api_group, name, text) {.group = api_group, .kind = name, .note = text},
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

const struct field *field_find(enum schema_id s, struct slice name)
{
    for (size_t i = 0; i < fields_n; i++)
        if (fields[i].schema == s && slice_is(name, fields[i].name))
            return &fields[i];
    return NULL;
}

const struct field_value *field_value_next(const struct field *f, const struct field_value *prev)
{
    for (const struct field_value *v = prev ? prev + 1 : values; v < values + COUNT_OF(values); v++)
        if (v->schema == f->schema && strcmp(v->name, f->name) == 0)
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
    for (size_t i = 0; i < fields_n; i++) {
        struct slice candidate = slice_cstr(fields[i].name);
        if (fields[i].schema != s || candidate.n > NAME_MAX_COMPARED)
            continue;
        size_t d = edit_distance(name, candidate);
        if (d < best_distance) {
            best_distance = d;
            best = fields[i].name;
        }
    }
    return best;
}
