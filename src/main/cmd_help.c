/* cmd_help.c - weir help: the list of commands, one command in full, or all of them as the man page has them. */
#include "cli.h"

static bool hidden(const struct option *o) { return strcmp(o->command, "help") == 0; } /* --mdoc serves the man page's test */

void help_usage(FILE *f)
{
    fputs("Weir runs microservices: gateway, mesh and supervisor in one program.\n\nusage: weir COMMAND [ARGUMENT...]\n\n", f);
    for (size_t i = 0; i < commands_n; i++)
        fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fputs("\nweir help COMMAND explains one of them. Exit codes:\n\n", f);
#define X(name, number, meaning) fprintf(f, "  %-4d %s\n", number, meaning);
#include "exits.def"
#undef X
}

static void option_show(const struct option *o)
{
    char left[64], letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    printf("  %-32s %s\n", left, o->help);
}

static int help_command(const char *name)
{
    const struct command *c = command_find(name);
    const char *near = nearest_command(name);
    if (!c && near)
        return cli_fail(EXIT_USAGE, "help", NULL, "there is no command \"%s\"; did you mean \"%s\"?", name, near);
    if (!c)
        return cli_fail(EXIT_USAGE, "help", "see weir help", "there is no command \"%s\"", name);
    printf("usage: weir %s%s%s\n\n%c%s.\n%s\n\n", c->name, *c->args ? " " : "", c->args, c->summary[0] - 'a' + 'A', c->summary + 1, c->help);
    for (size_t i = 0; i < options_n; i++)
        if (!*options[i].command || (strcmp(options[i].command, c->name) == 0 && !hidden(&options[i])))
            option_show(&options[i]);
    return EXIT_OK;
}

/* ---- the man page's section ------------------------------------------------------------------------------------------- */

/* Text as mdoc takes it: sentences on lines of their own, no line that begins as a request does, '-' that stays one. */
static void mdoc_text(const char *s)
{
    for (bool start = true; *s; s++) {
        if (start && (*s == '.' || *s == '\''))
            fputs("\\&", stdout);
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else if (*s == '.' && s[1] == ' ' && s[2] >= 'A' && s[2] <= 'Z')
            fputs(".\n", stdout), s++;
        else
            putchar(*s);
        start = *s == '\n';
    }
    putchar('\n');
}

static void mdoc_option(const struct option *o)
{
    fputs(".It ", stdout);
    if (o->letter)
        printf("Fl %c%s%s , ", o->letter, o->arg ? " Ar " : "", o->arg ? o->arg : "");
    printf("Fl \\-%s", o->name);
    if (o->arg)
        printf(" Ar %s", o->arg);
    putchar('\n');
    mdoc_text(o->help);
}

static void mdoc_command(const struct command *c)
{
    bool any = false;
    printf(".It Ic %s", c->name);
    if (*c->args)
        printf(" Ar %s", c->args);
    putchar('\n');
    printf("%c%s.\n", c->summary[0] - 'a' + 'A', c->summary + 1);
    mdoc_text(c->help);
    for (size_t i = 0; i < options_n; i++) {
        if (strcmp(options[i].command, c->name) != 0 || hidden(&options[i]))
            continue;
        if (!any)
            puts(".Bl -tag -width indent");
        any = true;
        mdoc_option(&options[i]);
    }
    if (any)
        puts(".El");
}

static void help_mdoc(void)
{
    puts(".Sh COMMANDS\n.Bl -tag -width indent");
    for (size_t i = 0; i < commands_n; i++)
        mdoc_command(&commands[i]);
    puts(".El\n.Sh EXIT STATUS\n.Bl -tag -width indent -compact");
#define X(name, number, meaning) printf(".It %d\n%s\n", number, meaning);
#include "exits.def"
#undef X
    puts(".El");
}

int cmd_help(struct args *a)
{
    if (args_has(a, "mdoc")) {
        help_mdoc();
        return EXIT_OK;
    }
    if (a->pos_n > 1)
        return cli_fail(EXIT_USAGE, a->cmd->name, NULL, "name one command");
    if (a->pos_n)
        return help_command(a->pos[0]);
    help_usage(stdout);
    return EXIT_OK;
}
