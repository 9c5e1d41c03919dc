/* diff.h - the difference of two texts, line by line, as diff -u shows it. */
#ifndef DIFF_H
#define DIFF_H

#include "base.h"

#include <jansson.h>

/* Adds the hunks that make b of a, with 3 lines around each; nothing when they are the same. Lines end with \n; colour: as git has it. */
void diff_text(struct slice a, struct slice b, bool colour, struct buf *out);
/* The same of two JSON values as YAML, with the two lines that name them before it; null is an empty text. */
void diff_json(const char *name, const json_t *before, const json_t *after, bool colour, struct buf *out);

#endif
