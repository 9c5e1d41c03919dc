/* cmd_diff.c - weir diff: what weir apply would change, worked out by the node. */
#include "changes.h"
#include "cli.h"

int cmd_diff(struct args *a) { return apply_request(a, true); }
