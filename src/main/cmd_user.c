/* cmd_user.c - weir user list|set|delete: who may log in to a Kafka broker with SASL (KIP-554).
 *
 * The password is read from standard input and never leaves this process: what is sent is what SCRAM keeps of it (RFC 5802), once for SHA-256 and
 * once for SHA-512, each with a salt of its own.
 */
#include "cli_log.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

#define SALT_BYTES 24
#define PASSWORD_BYTES_MAX 1024
#define ITERATIONS_MIN 4096
#define ITERATIONS_MAX 16384

struct users {
    struct cli_log k;
    const struct args *a;
    json_t *list;
};

static const char *mechanism_name(int8_t m) { return m == 1 ? "SCRAM-SHA-256" : m == 2 ? "SCRAM-SHA-512" : "unknown"; }

static void users_told(void *ctx, const struct log_answer *answer)
{
    struct users *u = ctx;
    for (size_t i = 0; i < answer->users_n; i++) {
        json_t *has = json_array();
        for (uint32_t c = 0; c < answer->users[i].credentials_n; c++)
            json_array_append_new(has, json_pack("{s:s, s:i}", "mechanism", mechanism_name(answer->users[i].credentials[c].mechanism), "iterations",
                                                 answer->users[i].credentials[c].iterations));
        json_array_append_new(u->list, json_pack("{s:o, s:o}", "user", cli_log_text(answer->users[i].name), "credentials", has));
    }
}

static int user_list(struct users *u, const char *name)
{
    (void)name;
    u->list = json_array();
    struct log_ask ask = {.kind = LOG_ASK_USERS};
    int code = cli_log_ask(&u->k, &ask, "users", users_told, u);
    if (code)
        return code;
    if (cli_log_json(u->a)) {
        cli_log_print(json_incref(u->list));
        return EXIT_OK;
    }
    size_t i;
    json_t *one;
    json_array_foreach(u->list, i, one) {
        struct buf line = {0};
        size_t c;
        json_t *has;
        buf_adds(&line, json_string_value(json_object_get(one, "user")));
        json_array_foreach(json_object_get(one, "credentials"), c, has)
            buf_printf(&line, "  %s", json_string_value(json_object_get(has, "mechanism")));
        text_clean(line.p);
        printf("%s\n", line.p);
        buf_free(&line);
    }
    return EXIT_OK;
}

/* The first line of standard input. */
static int password_read(const struct users *u, char out[PASSWORD_BYTES_MAX + 2])
{
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "password (it will be shown): ");
    if (!fgets(out, PASSWORD_BYTES_MAX + 2, stdin))
        out[0] = 0;
    size_t n = strcspn(out, "\r\n");
    bool whole = out[n] || n <= PASSWORD_BYTES_MAX;
    out[n] = 0;
    if (n == 0)
        return cli_fail(EXIT_USAGE, u->a->cmd->name, "write it on standard input, in one line", "there is no password");
    if (!whole)
        return cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "the password is longer than %d bytes", PASSWORD_BYTES_MAX);
    return EXIT_OK;
}

struct hashed {
    uint8_t salt[SALT_BYTES], salted[EVP_MAX_MD_SIZE];
};

static bool hash(const char *password, int8_t mechanism, int32_t iterations, struct hashed *h, struct log_credential *c)
{
    const EVP_MD *md = mechanism == 1 ? EVP_sha256() : EVP_sha512();
    int n = EVP_MD_get_size(md);
    random_bytes(h->salt, sizeof h->salt);
    *c = (struct log_credential){.mechanism = mechanism, .iterations = iterations, .salt = slice_of((char *)h->salt, sizeof h->salt), .salted = slice_of((char *)h->salted, (size_t)n)};
    return PKCS5_PBKDF2_HMAC(password, (int)strlen(password), h->salt, sizeof h->salt, iterations, md, n, h->salted) == 1;
}

static int user_set(struct users *u, const char *name)
{
    char password[PASSWORD_BYTES_MAX + 2];
    struct hashed h[2];
    struct log_credential c[2];
    uint64_t iterations = ITERATIONS_MIN;
    int code = args_count(u->a, "iterations", ITERATIONS_MAX, &iterations);
    if (!code && iterations < ITERATIONS_MIN)
        code = cli_fail(EXIT_USAGE, u->a->cmd->name, NULL, "--iterations must be at least %d", ITERATIONS_MIN);
    if (!code)
        code = password_read(u, password);
    if (code)
        return code;
    bool ok = hash(password, 1, (int32_t)iterations, &h[0], &c[0]) && hash(password, 2, (int32_t)iterations, &h[1], &c[1]);
    mem_wipe(password, sizeof password);
    if (!ok)
        return cli_fail(EXIT_FAILED, u->a->cmd->name, NULL, "OpenSSL can't hash the password");
    struct log_ask ask = {.kind = LOG_ASK_USER_SET, .name = slice_cstr(name), .credentials = c, .credentials_n = 2};
    code = cli_log_ask(&u->k, &ask, name, NULL, NULL);
    if (!code)
        printf("user %s may log in\n", name);
    return code;
}

struct mechanisms {
    const char *name;
    struct log_credential has[2];
    size_t n;
};

static void mechanisms_told(void *ctx, const struct log_answer *answer)
{
    struct mechanisms *d = ctx;
    for (size_t i = 0; i < answer->users_n; i++)
        for (uint32_t c = 0; c < answer->users[i].credentials_n && slice_is(answer->users[i].name, d->name) && d->n < 2; c++)
            d->has[d->n++].mechanism = answer->users[i].credentials[c].mechanism;
}

static int user_delete(struct users *u, const char *name)
{
    struct mechanisms d = {.name = name};
    struct log_ask ask = {.kind = LOG_ASK_USERS};
    int code = cli_log_ask(&u->k, &ask, name, mechanisms_told, &d);
    if (!code && d.n == 0)
        code = cli_fail(EXIT_FAILED, u->a->cmd->name, "weir user list shows who there is", "there is no user %s", name);
    ask = (struct log_ask){.kind = LOG_ASK_USER_DELETE, .name = slice_cstr(name), .credentials = d.has, .credentials_n = d.n};
    if (!code)
        code = cli_log_ask(&u->k, &ask, name, NULL, NULL);
    if (!code)
        printf("user %s deleted\n", name);
    return code;
}

int cmd_user(struct args *a)
{
    static const struct {
        const char *word;
        int (*fn)(struct users *u, const char *name);
        uint32_t words;
    } orders[] = {{"list", user_list, 1}, {"set", user_set, 2}, {"delete", user_delete, 2}};
    struct users u = {.a = a};
    const char *word = a->pos_n ? a->pos[0] : "";
    size_t i = 0;
    while (i < COUNT_OF(orders) && strcmp(orders[i].word, word) != 0)
        i++;
    if (i == COUNT_OF(orders))
        return cli_fail(EXIT_USAGE, a->cmd->name, "say list, set or delete", *word ? "\"%s\" is nothing to do with users" : "what to do is not said%s", word);
    if ((uint32_t)a->pos_n != orders[i].words)
        return cli_fail(EXIT_USAGE, a->cmd->name, "weir user list shows who there is", orders[i].words == 1 ? "list takes no names" : "name one user");
    int code = cli_log_open(&u.k, a, -1);
    if (!code)
        code = orders[i].fn(&u, a->pos_n > 1 ? a->pos[1] : NULL);
    json_decref(u.list);
    cli_log_close(&u.k);
    return code;
}
