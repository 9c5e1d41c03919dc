/* walk.c - checks a tree against fields.def: the one generic walker.
 *
 * For each key of a map, in the order of the text: is it known, is it refused, ignored or approximated, is its value of the
 * right type and within its range; then: are the required keys there. Everything wrong becomes a diagnostic at its own line
 * and column; the walk goes on. `explain` is the same walk with a listener. What spans several fields is left to the loaders.
 */
#include "plan_int.h"

#include <stdio.h>

/* ---- where we are, and what is wrong there --------------------------------------------------------------------------- */

size_t reader_push(struct reader *r, const char *fmt, ...)
{
    size_t mark = r->where.n;
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&r->where, fmt, ap);
    va_end(ap);
    return mark;
}

void reader_pop(struct reader *r, size_t mark)
{
    r->where.n = mark;
    r->where.p[mark] = '\0';
}

const char *reader_path(const struct reader *r) { return r->where.p + r->where_base; }

static void reader_add(struct reader *r, enum diag_level lv, uint32_t line, uint32_t column, const char *remedy, const char *fmt, va_list ap) PRINTF_LIKE(6, 0);
static void reader_add(struct reader *r, enum diag_level lv, uint32_t line, uint32_t column, const char *remedy, const char *fmt, va_list ap)
{
    if (lv == DIAG_WARNING && r->silent)
        return;
    struct buf reason = {0};
    buf_vprintf(&reason, fmt, ap);
    struct slice where = slice_trim(buf_slice(&r->where));
    char *text = mem_strndup(MEM_MANIFEST, where.p, where.n);
    diags_add(r->d, lv, r->file, line, column, text, remedy, "%s", reason.p);
    mem_free(text);
    buf_free(&reason);
}

void reader_error_at(struct reader *r, uint32_t line, uint32_t column, const char *remedy, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    reader_add(r, DIAG_ERROR, line, column, remedy, fmt, ap);
    va_end(ap);
}

void reader_warn_at(struct reader *r, uint32_t line, uint32_t column, const char *remedy, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    reader_add(r, r->strict ? DIAG_ERROR : DIAG_WARNING, line, column, remedy, fmt, ap);
    va_end(ap);
}

void reader_note_at(struct reader *r, uint32_t line, uint32_t column, const char *remedy, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    reader_add(r, DIAG_WARNING, line, column, remedy, fmt, ap);
    va_end(ap);
}

void reader_error(struct reader *r, const struct ynode *n, const char *path, const char *remedy, const char *fmt, ...)
{
    size_t mark = reader_push(r, "%s", path);
    va_list ap;
    va_start(ap, fmt);
    reader_add(r, DIAG_ERROR, n->line, n->column, remedy, fmt, ap);
    va_end(ap);
    reader_pop(r, mark);
}

void reader_warn(struct reader *r, const struct ynode *n, const char *path, const char *remedy, const char *fmt, ...)
{
    size_t mark = reader_push(r, "%s", path);
    va_list ap;
    va_start(ap, fmt);
    reader_add(r, r->strict ? DIAG_ERROR : DIAG_WARNING, n->line, n->column, remedy, fmt, ap);
    va_end(ap);
    reader_pop(r, mark);
}

#define SHOWN_MAX 60 /* bytes of a value that messages repeat */
#define SHOW(s) (int)MIN((s).n, (size_t)SHOWN_MAX), (s).p

/* ---- types -------------------------------------------------------------------------------------------------------------- */

/* A string of this text would be a valid value. */
static bool str_fits(enum field_type t, struct slice s)
{
    struct addr a;
    uint32_t ms;
    switch (t) {
    case FT_DURATION: return value_duration_ms(s, &ms) == OK;
    case FT_LABEL: return value_is_label(s);
    case FT_SUBDOMAIN: return value_is_subdomain(s);
    case FT_HOSTNAME: return value_is_hostname(s, false);
    case FT_HOSTNAME_WILD: return value_is_hostname(s, true);
    case FT_PORT_NAME: return value_is_port_name(s);
    case FT_URL_PATH: return value_is_url_path(s);
    case FT_PATH_PART: return value_is_path_part(s);
    case FT_TARGET: return value_is_target(s);
    case FT_HEADER_NAME: return s.n <= 256 && h1_is_token(s);
    case FT_HEADER_VALUE: return s.n <= 4096 && h1_is_value(s);
    case FT_ENV_NAME: return value_is_env_name(s);
    case FT_CONFIG_KEY: return value_is_config_key(s);
    case FT_IP: return addr_parse(s, 0, &a) == OK && a.family != ADDR_UNIX;
    case FT_GO_DURATION: return value_go_duration_ms(s, &ms) == OK;
    case FT_REGEX: return s.n && s.n <= 1024;
    case FT_HOST_PATTERN: return value_is_host_pattern(s);
    case FT_GATEWAY_HOST: return value_is_gateway_host(s);
    case FT_GATEWAY_REF: return value_is_gateway_ref(s);
    case FT_ORIGIN: return value_is_origin(s);
    case FT_SCOPE: return value_is_scope(s);
    case FT_TOPIC_NAME: return topic_name_is_good(s);
    case FT_SETTINGS:
    case FT_PERCENT:
    case FT_NUMBER:
    case FT_INT_MAP:
    case FT_HEADER_MAP:
    case FT_OBJ:
    case FT_BOOL:
    case FT_INT:
    case FT_PORT:
    case FT_INT_PCT:
    case FT_LABELS:
    case FT_ANNOTATIONS:
    case FT_DATA:
    case FT_DATA64: return false; /* no strings at all */
    default: return true;
    }
}

/* A scalar of the wrong type. The two usual mistakes get their own remedy. */
static void wrong_type(struct reader *r, const struct field *f, const struct ynode *n)
{
    const char *wanted = field_type_text(f->type);
    bool scalar = n->type == Y_BOOL || n->type == Y_INT || n->type == Y_FLOAT;
    bool shown = scalar && !(f->flags & FL_SECRET);
    struct buf remedy = {0};
    if (scalar && !shown && str_fits(f->type, n->text))
        buf_adds(&remedy, "put it in quotes");
    else if (scalar && str_fits(f->type, n->text))
        buf_printf(&remedy, "put it in quotes: \"%.*s\"", SHOW(n->text));
    else if (n->type == Y_STR && (f->type == FT_INT || f->type == FT_BOOL || f->type == FT_PORT))
        buf_adds(&remedy, "write it without quotes");
    else if (scalar)
        buf_printf(&remedy, "give %s", wanted);
    else
        buf_adds(&remedy, "correct the value; the indentation may be wrong");
    if (shown)
        reader_error(r, n, "", remedy.p, "%.*s is %s, and must be %s", SHOW(n->text), ytype_name(n->type), wanted);
    else
        reader_error(r, n, "", remedy.p, "is %s, and must be %s", ytype_name(n->type), wanted);
    buf_free(&remedy);
}

static void bad_value(struct reader *r, const struct ynode *n, const char *text, const char *wanted)
{
    struct buf remedy = {0};
    buf_printf(&remedy, "give %s", wanted);
    reader_error(r, n, "", remedy.p, "%s \"%.*s\"", text, SHOW(n->text));
    buf_free(&remedy);
}

static void check_range(struct reader *r, const struct ynode *n, int64_t min, int64_t max)
{
    if (n->num < min || n->num > max) {
        char remedy[80];
        snprintf(remedy, sizeof remedy, "give a number from %lld to %lld", (long long)min, (long long)max);
        reader_error(r, n, "", remedy, "%lld is out of range", (long long)n->num);
    }
}

static void check_str(struct reader *r, const struct field *f, const struct ynode *n)
{
    if (n->type != Y_STR) {
        wrong_type(r, f, n);
        return;
    }
    if (!str_fits(f->type, n->text)) {
        bad_value(r, n, "not valid here:", field_type_text(f->type));
    } else if (f->max && ((int64_t)n->text.n < f->min || (int64_t)n->text.n > f->max)) {
        char remedy[80];
        snprintf(remedy, sizeof remedy, "give %lld to %lld bytes", (long long)f->min, (long long)f->max);
        reader_error(r, n, "", remedy, "a text of %zu bytes", n->text.n);
    }
}

/* Quantities may be numbers or strings. */
static void check_quantity(struct reader *r, const struct field *f, const struct ynode *n)
{
    uint64_t v;
    bool cpu = f->type == FT_CPU;
    if (n->type != Y_STR && n->type != Y_INT && n->type != Y_FLOAT) {
        wrong_type(r, f, n);
        return;
    }
    enum err e = value_quantity(n->text, cpu ? 3 : 0, cpu ? 1000000 : 1ull << 50, &v);
    if (e == ERR_LIMIT)
        bad_value(r, n, "too much:", cpu ? "at most 1000 CPUs" : "at most 1Pi");
    else if (e != OK)
        bad_value(r, n, "not an amount:", field_type_text(f->type));
    else if (!cpu && slice_ends(n->text, SLICE("m")))
        bad_value(r, n, "m is a thousandth of a byte:", "an amount with M or Mi");
    else if (cpu && v == 0 && n->text.n)
        bad_value(r, n, "too little:", "at least 1m, or leave it out");
    else if (!cpu && f->schema == SCH_LIMITS && v < 1 << 20)
        bad_value(r, n, "too little for any process:", "at least 1Mi");
}

static void check_int_pct(struct reader *r, const struct field *f, const struct ynode *n)
{
    uint64_t v;
    if (n->type == Y_INT)
        check_range(r, n, 0, 1000);
    else if (n->type != Y_STR)
        wrong_type(r, f, n);
    else if (!slice_ends(n->text, SLICE("%")) || slice_u64(slice_of(n->text.p, n->text.n - 1), 100, &v) != OK)
        bad_value(r, n, "not valid here:", "a whole number, or a percentage from \"0%\" to \"100%\"");
}

static void check_port_ref(struct reader *r, const struct field *f, const struct ynode *n)
{
    if (n->type == Y_INT)
        check_range(r, n, 1, 65535);
    else if (n->type != Y_STR)
        wrong_type(r, f, n);
    else if (n->text.n && n->text.p[0] >= '0' && n->text.p[0] <= '9' && !value_is_port_name(n->text))
        reader_error(r, n, "", "write a port number without quotes", "the string \"%.*s\" is no name of a port", SHOW(n->text));
    else if (!value_is_port_name(n->text))
        bad_value(r, n, "not valid here:", field_type_text(FT_PORT_REF));
}

static void check_enum(struct reader *r, const struct field *f, const struct ynode *n)
{
    if (n->type == Y_MAP || n->type == Y_LIST) {
        wrong_type(r, f, n);
        return;
    }
    struct buf list = {0};
    for (const struct field_value *v = NULL; (v = field_value_next(f, v));) {
        if (v->status == ST_REFUSED)
            continue;
        buf_printf(&list, "%s%s", list.n ? ", " : "", v->value[0] ? v->value : "\"\"");
    }
    struct buf remedy = {0};
    buf_printf(&remedy, "known here: %s", list.p ? list.p : "nothing");
    reader_error(r, n, "", remedy.p, "\"%.*s\" is not known", SHOW(n->text));
    buf_free(&remedy);
    buf_free(&list);
}

static void check_number(struct reader *r, const struct field *f, const struct ynode *n)
{
    int64_t min = f->type == FT_PERCENT ? 0 : f->min, max = f->type == FT_PERCENT ? 100 : f->max;
    double v = n->type == Y_INT ? (double)n->num : n->real;
    if (n->type != Y_INT && n->type != Y_FLOAT) {
        wrong_type(r, f, n);
    } else if (!(v >= (double)min && v <= (double)max)) {
        char remedy[80];
        snprintf(remedy, sizeof remedy, "give a number from %lld to %lld", (long long)min, (long long)max);
        reader_error(r, n, "", remedy, "%.*s is out of range", SHOW(n->text));
    }
}

/* SMI's first version has amounts ("500m"), the later ones whole numbers. */
static void check_weight(struct reader *r, const struct field *f, const struct ynode *n)
{
    uint64_t v;
    if (n->type != Y_STR && n->type != Y_INT)
        wrong_type(r, f, n);
    else if (value_quantity(n->text, 3, 1000000000, &v) != OK)
        bad_value(r, n, "not a weight:", "a whole number up to 1000000, or an amount such as 500m");
}

/* ---- maps of strings ------------------------------------------------------------------------------------------------------ */

/* What is wrong with the pair, or NULL; *remedy: what to give. */
static const char *str_map_wrong(enum field_type t, const struct ypair *p, const char **remedy)
{
    struct buf decoded = {0};
    bool labels = t == FT_LABELS || t == FT_ANNOTATIONS;
    const char *wrong = NULL;
    if (labels && !value_is_label_key(p->key)) {
        wrong = "not a valid key";
        *remedy = "give at most 63 of letters, digits, '-', '_' and '.', perhaps after a prefix such as example.com/";
    } else if (t == FT_HEADER_MAP && !h1_is_token(p->key)) {
        wrong = "not a valid name of an HTTP field";
        *remedy = "give letters, digits and '-'";
    } else if (!labels && t != FT_HEADER_MAP && !value_is_config_key(p->key)) {
        wrong = "not a valid key";
        *remedy = "give letters, digits, '-', '_' and '.', at most 253";
    } else if (t == FT_HEADER_MAP && !h1_is_value(p->value->text)) {
        wrong = "not valid as an HTTP field's value";
        *remedy = "leave line breaks and other control characters out";
    } else if (t == FT_LABELS && !value_is_label_value(p->value->text)) {
        wrong = "not a valid value of a label";
        *remedy = "give at most 63 of letters, digits, '-', '_' and '.', the ends letters or digits";
    } else if (t == FT_DATA64 && value_base64(p->value->text, &decoded) != OK) {
        wrong = "not base64";
        *remedy = "encode it (RFC 4648 section 4); in a Secret, stringData takes clear text";
    }
    buf_free(&decoded);
    return wrong;
}

static void check_str_map(struct reader *r, const struct field *f, const struct ynode *n)
{
    if (n->type != Y_MAP) {
        wrong_type(r, f, n);
        return;
    }
    const struct field any_string = {.type = FT_STR, .flags = f->flags & FL_SECRET};
    for (uint32_t i = 0; i < n->n; i++) {
        const struct ypair *p = &n->pairs[i];
        if (p->value->type == Y_NULL && f->type != FT_LABELS)
            continue; /* empty, as in Kubernetes */
        size_t mark = reader_push(r, "[\"%.*s\"]", SHOW(p->key));
        if (p->value->type != Y_STR) {
            wrong_type(r, &any_string, p->value);
        } else {
            const char *remedy, *wrong = str_map_wrong(f->type, p, &remedy);
            if (wrong)
                reader_error_at(r, p->line, p->column, remedy, "%s", wrong);
        }
        reader_pop(r, mark);
    }
}

static void check_int_map(struct reader *r, const struct field *f, const struct ynode *n)
{
    static const struct field any_int = {.type = FT_INT};
    if (n->type != Y_MAP)
        wrong_type(r, f, n);
    for (uint32_t i = 0; n->type == Y_MAP && i < n->n; i++) {
        size_t mark = reader_push(r, "[\"%.*s\"]", SHOW(n->pairs[i].key));
        if (n->pairs[i].value->type != Y_INT)
            wrong_type(r, &any_int, n->pairs[i].value);
        else
            check_range(r, n->pairs[i].value, f->min, f->max);
        reader_pop(r, mark);
    }
}

/* Names of settings have the characters of keys; what they mean is the broker's. */
static void check_settings(struct reader *r, const struct field *f, const struct ynode *n)
{
    static const struct field any_string = {.type = FT_STR};
    if (n->type != Y_MAP)
        wrong_type(r, f, n);
    for (uint32_t i = 0; n->type == Y_MAP && i < n->n; i++) {
        const struct ypair *p = &n->pairs[i];
        size_t mark = reader_push(r, "[\"%.*s\"]", SHOW(p->key));
        if (!value_is_config_key(p->key))
            reader_error_at(r, p->line, p->column, "give letters, digits, '-', '_' and '.', at most 253", "not a valid key");
        else if (p->value->type == Y_MAP || p->value->type == Y_LIST)
            wrong_type(r, &any_string, p->value);
        reader_pop(r, mark);
    }
}

/* ---- fields ---------------------------------------------------------------------------------------------------------------- */

static void check_type(struct reader *r, const struct field *f, const struct ynode *n)
{
    switch (f->type) {
    case FT_ANY: break;
    case FT_OBJ: walk_map(r, f->sub, n); break;
    case FT_INT:
    case FT_PORT:
        if (n->type != Y_INT)
            wrong_type(r, f, n);
        else
            check_range(r, n, f->type == FT_PORT ? 1 : f->min, f->type == FT_PORT ? 65535 : f->max);
        break;
    case FT_BOOL:
        if (n->type != Y_BOOL)
            wrong_type(r, f, n);
        break;
    case FT_ENUM: check_enum(r, f, n); break;
    case FT_CPU:
    case FT_MEMORY: check_quantity(r, f, n); break;
    case FT_PORT_REF: check_port_ref(r, f, n); break;
    case FT_INT_PCT: check_int_pct(r, f, n); break;
    case FT_PERCENT:
    case FT_NUMBER: check_number(r, f, n); break;
    case FT_WEIGHT: check_weight(r, f, n); break;
    case FT_INT_MAP: check_int_map(r, f, n); break;
    case FT_SETTINGS: check_settings(r, f, n); break;
    case FT_HEADER_MAP:
    case FT_LABELS:
    case FT_ANNOTATIONS:
    case FT_DATA:
    case FT_DATA64: check_str_map(r, f, n); break;
    default: check_str(r, f, n); break;
    }
}

/* The row of a value that has a status of its own: strings as written, booleans and numbers in their plain form. */
static const struct field_value *value_row(const struct field *f, const struct ynode *n)
{
    if (n->type == Y_BOOL)
        return f->type == FT_BOOL || f->status != ST_HONOURED ? field_value_find(f, n->flag ? SLICE("true") : SLICE("false")) : NULL;
    if (n->type == Y_STR || n->type == Y_INT)
        return field_value_find(f, n->text);
    return NULL;
}

static void walk_value(struct reader *r, const struct field *f, const struct ynode *n, uint32_t line, uint32_t column)
{
    const struct field_value *v = value_row(f, n);
    enum field_status st = v ? v->status : f->status;
    const char *note = v ? v->note : f->note, *remedy = v ? v->remedy : f->remedy;
    if (r->seen_field)
        r->seen_field(r->ctx, line, reader_path(r), field_status_name(st), note[0] || !v ? note : f->note);
    if (v) { /* the value is what is meant, not the key */
        line = n->line;
        column = n->column;
    }
    if (st == ST_REFUSED) {
        reader_error_at(r, line, column, remedy, "refused: %s", note);
    } else if (st == ST_IGNORED) {
        reader_warn_at(r, line, column, remedy, "ignored: %s", note);
    } else {
        if (st == ST_APPROXIMATED && !(f->flags & FL_QUIET))
            reader_note_at(r, line, column, remedy, "approximated: %s", note);
        if (!v)
            check_type(r, f, n);
    }
}

/* Lists of maps with a "name": each only once. */
static void check_unique(struct reader *r, const struct ynode *list)
{
    struct table seen = {0};
    for (uint32_t i = 0; i < list->n; i++) {
        const struct ynode *name = y_get(list->items[i], "name");
        if (!y_is_str(name))
            continue;
        const struct ynode *before = table_put(&seen, name->text, (void *)name);
        if (before) {
            size_t mark = reader_push(r, "[%u].name", i);
            reader_error(r, name, "", "give each its own", "the name %.*s is given twice: first at line %u", SHOW(name->text), before->line);
            reader_pop(r, mark);
        }
    }
    table_fini(&seen);
}

static void walk_list(struct reader *r, const struct field *f, const struct ypair *p)
{
    const struct ynode *list = p->value;
    if (f->status == ST_REFUSED || f->status == ST_IGNORED || list->type != Y_LIST) {
        if (list->type != Y_LIST && f->status != ST_REFUSED && f->status != ST_IGNORED)
            reader_error(r, list, "", "begin each item with '- '", "is %s, and must be a list", ytype_name(list->type));
        else
            walk_value(r, f, list, p->line, p->column);
        return;
    }
    if (r->seen_field && f->type != FT_OBJ)
        r->seen_field(r->ctx, p->line, reader_path(r), field_status_name(f->status), f->note);
    for (uint32_t i = 0; i < list->n; i++) {
        size_t mark = reader_push(r, "[%u]", i);
        struct field item = *f;
        item.list = false;
        if (list->items[i]->type == Y_NULL) {
            reader_error(r, list->items[i], "", "remove the item, or give it a value", "an item without a value");
        } else if (f->type == FT_OBJ) {
            check_type(r, &item, list->items[i]);
        } else {
            void (*seen)(void *, uint32_t, const char *, const char *, const char *) = r->seen_field;
            r->seen_field = NULL; /* the list is one line of explain */
            walk_value(r, &item, list->items[i], p->line, p->column);
            r->seen_field = seen;
        }
        reader_pop(r, mark);
    }
    if (f->flags & FL_UNIQUE)
        check_unique(r, list);
}

/* A map of any keys to maps of one schema. */
static void walk_object_map(struct reader *r, const struct field *f, const struct ypair *p)
{
    static const struct field map = {.type = FT_OBJ};
    const struct ynode *n = p->value;
    if (r->seen_field)
        r->seen_field(r->ctx, p->line, reader_path(r), field_status_name(f->status), f->note);
    if (n->type != Y_MAP)
        wrong_type(r, &map, n);
    for (uint32_t i = 0; n->type == Y_MAP && i < n->n; i++) {
        size_t mark = reader_push(r, "[\"%.*s\"]", SHOW(n->pairs[i].key));
        walk_map(r, f->sub, n->pairs[i].value);
        reader_pop(r, mark);
    }
}

/* A list of the key's values that has rows of its own (clusterIPs: [None]). */
static bool list_of_valued(const struct field *f, const struct ynode *n)
{
    return n->type == Y_LIST && f->type == FT_ANY && !f->list && n->n && value_row(f, n->items[0]) != NULL;
}

static void walk_unknown(struct reader *r, enum schema_id s, const struct ypair *p)
{
    const char *near = field_nearest(s, p->key);
    struct buf remedy = {0};
    if (near)
        buf_printf(&remedy, "did you mean %s? ", near);
    buf_adds(&remedy, near ? "else remove it" : "check the spelling and the indentation, or remove it");
    if (r->seen_field)
        r->seen_field(r->ctx, p->line, reader_path(r), "unknown", "no field of this name is known here");
    reader_warn_at(r, p->line, p->column, remedy.p, "unknown field of %s", schema_text(s));
    buf_free(&remedy);
}

static void walk_pair(struct reader *r, enum schema_id s, const struct ypair *p)
{
    const struct field *f = field_find(s, p->key);
    size_t mark = reader_push(r, "%s%.*s", r->where.n > r->where_base ? "." : "", SHOW(p->key));
    if (!f)
        walk_unknown(r, s, p);
    else if (p->value->type == Y_NULL)
        ; /* absent, as in Kubernetes */
    else if (f->list)
        walk_list(r, f, p);
    else if (f->map)
        walk_object_map(r, f, p);
    else if (list_of_valued(f, p->value))
        walk_value(r, f, p->value->items[0], p->line, p->column);
    else
        walk_value(r, f, p->value, p->line, p->column);
    reader_pop(r, mark);
}

void walk_map(struct reader *r, enum schema_id s, const struct ynode *n)
{
    if (n->type != Y_MAP) {
        static const struct field map = {.type = FT_OBJ};
        wrong_type(r, &map, n);
        return;
    }
    for (uint32_t i = 0; i < n->n; i++)
        walk_pair(r, s, &n->pairs[i]);
    for (const struct field *f = NULL; (f = field_next(s, f));) {
        if (!(f->flags & FL_REQUIRED) || y_get(n, f->name))
            continue;
        size_t mark = reader_push(r, "%s%s", r->where.n > r->where_base ? "." : "", f->name);
        struct buf remedy = {0};
        buf_printf(&remedy, "add it%s%s", f->note[0] ? ": " : "", f->note);
        reader_error(r, n, "", remedy.p, "missing");
        r->missing++;
        buf_free(&remedy);
        reader_pop(r, mark);
    }
}
