/* changes.h - the answer that apply and delete share: diagnostics and changes. */
#ifndef CHANGES_H
#define CHANGES_H

#include "cli.h"

/* POSTs body to target, prints the diagnostics on standard error and the changes, each with suffix, on standard output.
 * EXIT_USAGE when the node found errors in the manifests. */
int changes_request(const struct args *a, const char *target, struct slice body, const char *suffix);

#endif
