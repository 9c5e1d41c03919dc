/* main.c - the table of contents: which command is meant, and that its output arrived.
 *
 *     weir COMMAND ...   -> commands.def -> cmd_COMMAND()      one file each: cmd_up.c, cmd_apply.c, ...
 *     weir engine ...    -> engine_main()                      private: how sup starts the node
 */
#include "cli.h"

static int run_command(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    int code = args_parse(&a, cmd, argc, argv);
    if (code == EXIT_OK && args_has(&a, "help")) {
        a.pos_n = 0;
        a.pos[a.pos_n++] = cmd->name;
        code = cmd_help(&a);
    } else if (code == EXIT_OK) {
        code = cmd->fn(&a);
    }
    args_free(&a);
    return code;
}

static int unknown_command(const char *name)
{
    const char *near = nearest_command(name);
    if (near)
        return cli_fail(EXIT_USAGE, NULL, "see weir help", "there is no command \"%s\"; did you mean \"%s\"?", name, near);
    return cli_fail(EXIT_USAGE, NULL, "see weir help", "there is no command \"%s\"", name);
}

/* A full disk or a closed pipe makes a command fail that otherwise worked. */
static int output_checked(int code)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_OK)
        return cli_fail(EXIT_FAILED, NULL, "check where it goes", "the output could not be written");
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help_usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "engine") == 0)
        return engine_main(argc - 1, argv + 1);
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    const struct command *cmd = command_find(name);
    return output_checked(cmd ? run_command(cmd, argc - 2, argv + 2) : unknown_command(name));
}
