/* explain.c - what Weir does with each field: of a file, and of all.
 *
 * explain_text() is the reader's own walk with a listener, so it cannot differ from what apply does. explain_table()
 * writes fields.def as Markdown: docs/manifests.md is its output.
 */
#include "plan_int.h"

/* ---- of a file ------------------------------------------------------------------------------------------------------ */

static void explain_object(void *ctx, uint32_t line, const char *name)
{
    struct buf *out = ctx;
    struct slice s = slice_trim(slice_cstr(name));
    buf_printf(out, "%s%u " SLICE_FMT "\n", out->n ? "\n" : "", line, SLICE_ARG(s));
}

static void explain_field(void *ctx, uint32_t line, const char *path, const char *status, const char *note)
{
    struct buf *out = ctx;
    buf_printf(out, "%6u  %-12s  ", line, status);
    buf_printf(out, note[0] ? "%-52s  %s\n" : "%s%s\n", path, note);
}

void explain_text(const char *file, struct slice text, struct buf *out, struct diags *d)
{
    struct reader r = {.file = file, .dir = "/", .default_ns = "default", .d = d, .seen_field = explain_field, .seen_object = explain_object, .ctx = out};
    reader_text(&r, text);
    reader_fini(&r);
}

/* ---- of all ------------------------------------------------------------------------------------------------------------ */

/* Text for a cell of a table: | would end it. */
static void add_cell(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            buf_addc(out, '\\');
        buf_addc(out, *text);
    }
}

static void add_note(struct buf *out, const char *note, const char *remedy)
{
    add_cell(out, note);
    if (note[0] && remedy[0])
        buf_adds(out, "; ");
    add_cell(out, remedy);
}

static void table_type(struct buf *out, const struct field *f)
{
    if (f->status == ST_REFUSED || f->status == ST_IGNORED || f->type == FT_ANY)
        return;
    buf_adds(out, f->list ? "list of: " : f->map ? "map of: " : "");
    add_cell(out, field_type_text(f->type));
    if (f->type == FT_INT || f->type == FT_NUMBER || f->type == FT_INT_MAP)
        buf_printf(out, ", %lld to %lld", (long long)f->min, (long long)f->max);
    if (f->flags & FL_REQUIRED)
        buf_adds(out, "; required");
}

static void table_values(struct buf *out, const char *path, const struct field *f)
{
    for (const struct field_value *v = NULL; (v = field_value_next(f, v));) {
        buf_printf(out, "| `%s: %s` | %s | | ", path, v->value[0] ? v->value : "\"\"", field_status_name(v->status));
        add_note(out, v->note, v->remedy);
        buf_adds(out, " |\n");
    }
}

/* Where each schema was written out in the table at hand; a second time a reference is enough. */
struct shown {
    char *path[SCH_COUNT];
};

static void shown_free(struct shown *sh)
{
    for (size_t i = 0; i < SCH_COUNT; i++)
        mem_free(sh->path[i]);
}

/* The rows of schema s below path; recursion ends because fields.def has no schema inside itself. */
static void table_schema(struct buf *out, const char *path, enum schema_id s, struct shown *sh)
{
    for (const struct field *f = NULL; (f = field_next(s, f));) {
        struct buf sub = {0};
        buf_printf(&sub, "%s%s%s%s", path, path[0] ? "." : "", f->name, f->list ? "[]" : f->map ? ".*" : "");
        buf_printf(out, "| `%s` | %s | ", sub.p, field_status_name(f->status));
        table_type(out, f);
        buf_adds(out, " | ");
        add_note(out, f->note, f->remedy);
        bool again = f->type == FT_OBJ && sh->path[f->sub];
        if (again)
            buf_printf(out, "%sfields as of `%s`", f->note[0] || f->remedy[0] ? "; " : "", sh->path[f->sub]);
        buf_adds(out, " |\n");
        table_values(out, sub.p, f);
        if (f->type == FT_OBJ && f->sub != SCH_META && !again) {
            sh->path[f->sub] = mem_strdup(MEM_MANIFEST, sub.p);
            table_schema(out, sub.p, f->sub, sh);
        }
        buf_free(&sub);
    }
}

static const char table_head[] = "| field | status | type | |\n|---|---|---|---|\n";

void explain_table(struct buf *out)
{
    buf_adds(out, "# Manifest fields\n\n"
                  "This page is generated from `src/plan/fields.def`; `weir explain FILE` says the same of one file.\n\n"
                  "- **honoured**: does what Kubernetes says.\n"
                  "- **approximated**: works, with the difference given; a warning where it matters.\n"
                  "- **ignored**: has no effect; a warning, and an error with `--strict`.\n"
                  "- **refused**: an error: running without it would not be what was asked for.\n"
                  "- A field that is not listed is unknown: a warning, and an error with `--strict`. Of a Secret it is not kept.\n\n");
    buf_printf(out, "## metadata of every kind\n\n%s", table_head);
    struct shown shown = {0};
    table_schema(out, "metadata", SCH_META, &shown);
    shown_free(&shown);
    for (size_t i = 0; i < kind_rows_n; i++) {
        const struct kind_row *row = &kind_rows[i];
        if (i && kind_rows[i - 1].schema == row->schema)
            continue; /* another apiVersion of the same */
        bool older = i && kind_rows[i - 1].obj == row->obj;
        buf_printf(out, "\n## %s%s\n\n`apiVersion: %s`", obj_kind_name(row->obj), older ? ", as it was" : "", row->api_version);
        for (size_t k = i + 1; k < kind_rows_n && kind_rows[k].schema == row->schema; k++)
            buf_printf(out, " or `%s`", kind_rows[k].api_version);
        buf_printf(out, "\n\n%s", table_head);
        shown = (struct shown){0};
        table_schema(out, "", row->schema, &shown);
        shown_free(&shown);
    }
    buf_adds(out, "\n## Kinds that are not built\n\nWhat is ignored is reported, and an error with `--strict`. Any other kind is unknown, and treated alike.\n\n"
                  "| apiVersion's group | kind | status | |\n|---|---|---|---|\n");
    for (const struct not_built_row *row = NULL; (row = not_built_next(row));) {
        buf_printf(out, "| %s | %s | %s | ", row->group[0] ? row->group : "(core)", row->kind, field_status_name(row->status));
        add_cell(out, row->note);
        buf_adds(out, " |\n");
    }
}
