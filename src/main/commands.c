/* commands.c - the table of commands and options, out of commands.def, and finding the nearest name to a misspelt one. */
#include "cli.h"

const struct command commands[] = {
#define CMD(name, arguments, summary, help) {#name, arguments, summary, help, cmd_##name},
#define OPT(command, name, letter, arg, help)
#include "commands.def"
#undef CMD
#undef OPT
};
const size_t commands_n = COUNT_OF(commands);

const struct option options[] = {
#define CMD(name, arguments, summary, help)
#define OPT(command, name, letter, arg, help) {#command, name, letter, arg, help},
#include "commands.def"
#undef CMD
#undef OPT
    {"", "help", 'h', NULL, "explain this command"},
};
const size_t options_n = COUNT_OF(options);

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < commands_n; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

#define NAME_MAX_BYTES 32

static unsigned min3(unsigned a, unsigned b, unsigned c) { return MIN(MIN(a, b), c); }

/* Levenshtein's distance: letters to insert, remove or replace. Long words are far from everything. */
static unsigned distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned row[NAME_MAX_BYTES + 1];
    if (n > NAME_MAX_BYTES || m > NAME_MAX_BYTES)
        return UINT32_MAX;
    for (size_t k = 0; k <= m; k++)
        row[k] = (unsigned)k;
    for (size_t i = 1; i <= n; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i;
        for (size_t k = 1; k <= m; k++) {
            unsigned up = row[k];
            row[k] = min3(up + 1, row[k - 1] + 1, corner + (a[i - 1] != b[k - 1]));
            corner = up;
        }
    }
    return row[m];
}

/* a is b with two neighbouring letters exchanged, the commonest slip of all. */
static bool swapped(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a && a[1] && a[0] == b[1] && a[1] == b[0] && strcmp(a + 2, b + 2) == 0;
}

/* A better candidate than *best: near in letters, or name is the beginning of it. */
static void consider(const char *name, const char *candidate, const char **best, unsigned *best_distance)
{
    unsigned d = distance(name, candidate);
    if ((strlen(name) >= 2 && strncmp(name, candidate, strlen(name)) == 0) || swapped(name, candidate))
        d = 1;
    if (d <= (strlen(candidate) < 5 ? 1u : 2u) && d < *best_distance) {
        *best = candidate;
        *best_distance = d;
    }
}

const char *nearest_command(const char *name)
{
    const char *best = NULL;
    unsigned d = UINT32_MAX;
    for (size_t i = 0; i < commands_n; i++)
        consider(name, commands[i].name, &best, &d);
    return best;
}

const char *nearest_option(const char *command, const char *name)
{
    const char *best = NULL;
    unsigned d = UINT32_MAX;
    for (size_t i = 0; i < options_n; i++)
        if (!*options[i].command || strcmp(options[i].command, command) == 0)
            consider(name, options[i].name, &best, &d);
    return best;
}
