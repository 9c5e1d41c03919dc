/* cmd_completion.c - weir completion bash|zsh: scripts made of the table of commands.
 *
 * Both complete commands, options, kinds and files; names of workloads come from the running node (`get -o name`). zsh uses
 * the bash script through its bashcompinit, so that there is one thing to keep right.
 */
#include "cli.h"

static void print_options(const char *command)
{
    for (size_t i = 0; i < options_n; i++)
        if (!*options[i].command || strcmp(options[i].command, command) == 0) {
            printf(" --%s", options[i].name);
            if (options[i].letter)
                printf(" -%c", options[i].letter);
        }
}

static void print_words(void)
{
    fputs("_weir_words() {\n    case \"$1\" in\n    '') echo \"", stdout);
    for (size_t i = 0; i < commands_n; i++)
        printf("%s%s", i ? " " : "", commands[i].name);
    puts("\" ;;");
    for (size_t i = 0; i < commands_n; i++) {
        printf("    %s) echo \"", commands[i].name);
        print_options(commands[i].name);
        puts("\" ;;");
    }
    puts("    esac\n}");
    fputs("_weir_kinds=\"all", stdout);
    for (size_t i = 0; i < views_n; i++)
        printf(" %s", views[i].name);
    puts("\"");
}

static const char body[] =
    "_weir_names() { weir get \"$1\" -o name 2>/dev/null | sed 's,.*/,,'; }\n"
    "_weir() {\n"
    "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" cmd=\"${COMP_WORDS[1]}\" words=\n"
    "    COMPREPLY=()\n"
    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
    "        words=$(_weir_words '')\n"
    "    elif [ \"${cur#-}\" != \"$cur\" ]; then\n"
    "        words=$(_weir_words \"$cmd\")\n"
    "    else\n"
    "        case \"$prev\" in\n"
    "        -o|--output) words=\"json yaml wide name\" ;;\n"
    "        -n|--namespace) words=$(_weir_names namespaces) ;;\n"
    "        --data|--access-log|-f|--filename) [ \"$cmd\" = logs ] || { COMPREPLY=($(compgen -f -- \"$cur\")); return; } ;;\n"
    "        esac\n"
    "        if [ -z \"$words\" ]; then\n"
    "            case \"$cmd\" in\n"
    "            up|apply|explain) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
    "            get|delete) if [ \"$COMP_CWORD\" -eq 2 ]; then words=$_weir_kinds; else words=$(_weir_names \"${COMP_WORDS[2]}\"); fi ;;\n"
    "            logs) words=$(_weir_names workloads) ;;\n"
    "            rollout) if [ \"$COMP_CWORD\" -eq 2 ]; then words=\"restart status\"; else words=$(_weir_names workloads); fi ;;\n"
    "            help) words=$(_weir_words '') ;;\n"
    "            completion) words=\"bash zsh\" ;;\n"
    "            esac\n"
    "        fi\n"
    "    fi\n"
    "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
    "}\n"
    "complete -o filenames -F _weir weir";

int cmd_completion(struct args *a)
{
    const char *shell = a->pos_n == 1 ? a->pos[0] : "";
    bool zsh = strcmp(shell, "zsh") == 0;
    if (!zsh && strcmp(shell, "bash") != 0)
        return cli_fail(EXIT_USAGE, a->cmd->name, "use weir completion bash or weir completion zsh", "which shell is not given");
    puts(zsh ? "#compdef weir\nautoload -U +X bashcompinit && bashcompinit" : "# bash completion of weir; made by: weir completion bash");
    print_words();
    puts(body);
    return EXIT_OK;
}
