/* manifest_fuzz.c - any bytes as a manifest: reading, checking, explaining, saving and loading hold together.
 *
 * What must be true of every input: nothing crashes or leaks; a manifest without errors can be saved, and what is loaded
 * from that saves as the same bytes; explain reports exactly the diagnostics of the reader.
 */
#include "plan.h"

#include <stddef.h>
#include <stdint.h>

#define FUZZ_BYTES_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(struct objset *s)
{
    struct buf first = {0}, second = {0};
    struct diags d = {0};
    struct objset *loaded = objset_new();
    objset_addresses(s);
    objset_save(s, NULL, &first);
    enum err e = objset_load(loaded, "state.json", buf_slice(&first), NULL, &d);
    MUST(e == OK && d.n == 0);
    objset_save(loaded, NULL, &second);
    MUST(slice_eq(buf_slice(&first), buf_slice(&second)));
    for (size_t i = 0; i < objset_n(s); i++) {
        const struct object *a = objset_at(s, i), *b = objset_at(loaded, i);
        MUST(a->hash == b->hash && (a->kind != OBJ_DEPLOYMENT || a->dep.pod.hash == b->dep.pod.hash));
    }
    objset_free(loaded);
    diags_free(&d);
    buf_free(&first);
    buf_free(&second);
}

static void environments(const struct objset *s, struct diags *d)
{
    struct arena a;
    arena_init(&a, MEM_MANIFEST, 4096);
    for (size_t i = 0; i < objset_n(s); i++)
        if (objset_at(s, i)->kind == OBJ_DEPLOYMENT) {
            char **argv = objset_argv(objset_at(s, i), objset_env(s, objset_at(s, i), NULL, &a, d), &a);
            MUST(argv[0]);
        }
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > FUZZ_BYTES_MAX)
        return 0;
    struct slice text = slice_of((const char *)data, n);
    struct diags d = {0}, explained = {0};
    struct buf out = {0};
    struct objset *s = objset_new();
    objset_read(s, "m.yaml", "/srv", text, NULL, false, &d);
    explain_text("m.yaml", text, &out, &explained);
    MUST(d.n == explained.n && d.errors == explained.errors);
    for (size_t i = 0; i < d.n; i++)
        diag_format(&d.items[i], &out);
    if (!d.errors) {
        round_trip(s);
        objset_check(s, &d);
        environments(s, &d);
    }
    objset_free(s);
    diags_free(&d);
    diags_free(&explained);
    buf_free(&out);
    return 0;
}
