/* args.c - the command line: --name VALUE, --name=VALUE, -n VALUE, -nVALUE, -fd (switches together), anywhere among the
 * arguments; "--" ends options, "-" is an argument. The table of options says which take a value.
 */
#include "cli.h"

static const struct option *option_long(const struct command *cmd, struct slice name)
{
    for (size_t i = 0; i < options_n; i++)
        if ((!*options[i].command || strcmp(options[i].command, cmd->name) == 0) && slice_is(name, options[i].name))
            return &options[i];
    return NULL;
}

static const struct option *option_letter(const struct command *cmd, char letter)
{
    for (size_t i = 0; i < options_n; i++)
        if ((!*options[i].command || strcmp(options[i].command, cmd->name) == 0) && options[i].letter == letter)
            return &options[i];
    return NULL;
}

static void give(struct args *a, const struct option *o, const char *value)
{
    ARRAY_GROW(MEM_MISC, a->given, a->given_n, a->given_cap);
    a->given[a->given_n++] = (struct given){o, value};
}

static int needs_value(const struct args *a, const char *shown, const struct option *o)
{
    return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "option %s needs a value: %s", shown, o->arg);
}

/* text is "--name" or "--name=value"; next is the argument after it or NULL. *took says whether next was used. */
static int parse_long(struct args *a, const char *text, const char *next, bool *took)
{
    struct slice value, name = slice_cut(slice_cstr(text + 2), '=', &value);
    bool inlined = memchr(text, '=', strlen(text)) != NULL;
    const struct option *o = option_long(a->cmd, name);
    if (!o) {
        char *word = mem_strndup(MEM_MISC, name.p, name.n);
        const char *near = nearest_option(a->cmd->name, word);
        mem_free(word);
        if (near)
            return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "there is no option --" SLICE_FMT "; did you mean --%s?", SLICE_ARG(name), near);
        return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "there is no option --" SLICE_FMT "; see weir help %s", SLICE_ARG(name), a->cmd->name);
    }
    if (!o->arg && inlined)
        return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "option --%s takes no value", o->name);
    if (o->arg && !inlined && !next)
        return needs_value(a, text, o);
    *took = o->arg && !inlined;
    give(a, o, !o->arg ? "" : inlined ? value.p : next);
    return EXIT_OK;
}

static int parse_letters(struct args *a, const char *text, const char *next, bool *took)
{
    for (const char *p = text + 1; *p; p++) {
        char shown[3] = {'-', *p, 0};
        const struct option *o = option_letter(a->cmd, *p);
        if (!o)
            return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "there is no option %s; see weir help %s", shown, a->cmd->name);
        if (!o->arg) {
            give(a, o, "");
            continue;
        }
        if (!p[1] && !next)
            return needs_value(a, shown, o);
        *took = !p[1];
        give(a, o, p[1] ? p + 1 + (p[1] == '=') : next);
        break;
    }
    return EXIT_OK;
}

int args_parse(struct args *a, const struct command *cmd, int argc, char **argv)
{
    *a = (struct args){.cmd = cmd};
    a->pos_cap = (size_t)argc + 1;
    a->pos = mem_new(MEM_MISC, a->pos_cap * sizeof *a->pos);
    bool all_pos = false;
    for (int i = 0; i < argc; i++) {
        const char *text = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        bool took = false;
        int code = EXIT_OK;
        if (all_pos || text[0] != '-' || !text[1])
            a->pos[a->pos_n++] = text;
        else if (strcmp(text, "--") == 0)
            all_pos = true;
        else
            code = text[1] == '-' ? parse_long(a, text, next, &took) : parse_letters(a, text, next, &took);
        if (code)
            return code;
        i += took;
    }
    return EXIT_OK;
}

const char *args_nth(const struct args *a, const char *option, size_t nth)
{
    for (size_t i = 0; i < a->given_n; i++)
        if (strcmp(a->given[i].o->name, option) == 0 && nth-- == 0)
            return a->given[i].value;
    return NULL;
}

bool args_has(const struct args *a, const char *option) { return args_nth(a, option, 0) != NULL; }

const char *args_str(const struct args *a, const char *option, const char *absent)
{
    const char *v, *last = absent;
    for (size_t i = 0; (v = args_nth(a, option, i)); i++)
        last = v;
    return last;
}

const char *args_namespace(const struct args *a) { return args_str(a, "namespace", "default"); }

int args_count(const struct args *a, const char *option, uint64_t max, uint64_t *n)
{
    const char *v = args_str(a, option, NULL);
    if (!v || slice_u64(slice_cstr(v), max, n) == OK)
        return EXIT_OK;
    return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "--%s \"%s\" is not a number up to %llu", option, v, (unsigned long long)max);
}

int args_time(const struct args *a, const char *option, uint32_t absent_ms, uint32_t *ms)
{
    static const struct {
        const char *unit;
        uint32_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1000}};
    const char *v = args_str(a, option, NULL);
    uint64_t n;
    *ms = absent_ms;
    if (!v)
        return EXIT_OK;
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        struct slice s = slice_cstr(v), unit = slice_cstr(units[i].unit);
        if (slice_ends(s, unit) && slice_u64(slice_of(s.p, s.n - unit.n), UINT32_MAX / units[i].ms, &n) == OK && n > 0) {
            *ms = (uint32_t)n * units[i].ms;
            return EXIT_OK;
        }
    }
    return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "--%s \"%s\" is not a time; write it as 90s, 2m or 500ms", option, v);
}

void args_free(struct args *a)
{
    mem_free(a->pos);
    mem_free(a->given);
    *a = (struct args){0};
}
