/* secrets_key.h - where the keys come from that Secrets are sealed with. */
#ifndef SECRETS_KEY_H
#define SECRETS_KEY_H

#include "seal.h"

#define SECRETS_KEY_FILE "secrets.key"      /* in the data folder, unless --secrets-key names another */
#define SECRETS_KEY_BYTES_MAX 4096          /* of the file, and of what the command prints */
#define SECRETS_KEY_COMMAND_MS 30000        /* the longest the command may take */

/* The keys of a node, by one of: command (a shell's command line that prints them; "" for none), file (absolute; "" for none: then it must be there),
 * or DATA/secrets.key, which is made with a new key when it is absent; not with shared: nodes that share a store need the same key, so it must be given. Files must belong to this user and be closed to all others. Blocks.
 * An error has its reason and remedy in why, never a key. */
enum err secrets_key_open(const char *data_dir, const char *file, const char *command, bool shared, struct keyring **out, struct buf *why) WARN_UNUSED;

#endif
