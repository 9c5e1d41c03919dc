/* cmd_version.c - weir version. */
#include "cli.h"

int cmd_version(struct args *a)
{
    puts("weir " WEIR_VERSION);
    return EXIT_OK;
}
