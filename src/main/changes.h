/* changes.h - the answer that apply and delete share: diagnostics and changes. */
#ifndef CHANGES_H
#define CHANGES_H

#include "cli.h"

/* POSTs body to target, prints the diagnostics on standard error and the changes, each with suffix, on standard output, before them the difference that each
 * makes where the answer has it. suffix NULL: only differences are shown, and there being any is EXIT_FAILED. EXIT_USAGE when the node found errors in the
 * manifests. */
int changes_request(const struct args *a, const char *target, struct slice body, const char *suffix);

/* Adds ",\"by\":WHO", for history: who calls this, as far as the environment says. */
void changes_by(struct buf *body);

/* cmd_apply.c: the files of a to POST /v1/apply, with its options. diff: nothing is applied, only differences are shown. */
int apply_request(const struct args *a, bool diff);

#endif
