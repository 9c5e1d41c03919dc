/* sim_tls.c - the simulator's kernel that makes records of TLS 1.3: what a connection is given as plaintext arrives at its other end as records.
 *
 *     sys_writev() -> record -> out -> the connection, as far as it takes
 *
 * As Linux does it: a write makes records as long as the connection takes them; the last of them is accepted whole and may wait in out, unseen by who
 * wrote. When there is room again it goes on by itself. A FIN overtakes it, and a close throws it away.
 */
#include "sim_int.h"

#include <errno.h>
#include <linux/tls.h>
#include <openssl/evp.h>

#define RECORD_BYTES 16384
#define TAG_BYTES 16
#define NONCE_BYTES 12
#define INFO_BYTES_MAX sizeof(struct tls12_crypto_info_aes_gcm_256)

struct sim_tls {
    EVP_CIPHER_CTX *cipher;
    unsigned char info[INFO_BYTES_MAX]; /* as given */
    size_t info_bytes, number_at;       /* number_at: where in it the number of the next record is */
    unsigned char iv[NONCE_BYTES];
    uint64_t number;
    struct buf out;                     /* records that the connection has not taken, from out_from on */
    size_t out_from;
};

_Static_assert(sizeof(struct tls12_crypto_info_chacha20_poly1305) <= INFO_BYTES_MAX, "the longest");

static uint64_t number_read(const unsigned char *p)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n = n << 8 | p[i];
    return n;
}

int sys_tls_present(void) { return 0; }

static bool cipher_set(struct sim_tls *t, const void *info)
{
    const struct tls12_crypto_info_aes_gcm_128 *a = info;
    const struct tls12_crypto_info_aes_gcm_256 *b = info;
    const struct tls12_crypto_info_chacha20_poly1305 *c = info;
    bool gcm = a->info.cipher_type != TLS_CIPHER_CHACHA20_POLY1305, small = a->info.cipher_type == TLS_CIPHER_AES_GCM_128;
    if (gcm) {
        memcpy(t->iv, small ? a->salt : b->salt, 4);
        memcpy(t->iv + 4, small ? a->iv : b->iv, 8);
    } else {
        memcpy(t->iv, c->iv, NONCE_BYTES);
    }
    t->number_at = !gcm    ? offsetof(struct tls12_crypto_info_chacha20_poly1305, rec_seq)
                   : small ? offsetof(struct tls12_crypto_info_aes_gcm_128, rec_seq)
                           : offsetof(struct tls12_crypto_info_aes_gcm_256, rec_seq);
    t->number = number_read((const unsigned char *)info + t->number_at);
    t->cipher = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *kind = !gcm ? EVP_chacha20_poly1305() : small ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
    return t->cipher && EVP_EncryptInit_ex(t->cipher, kind, NULL, !gcm ? c->key : small ? a->key : b->key, NULL) == 1;
}

int sys_tls_send(int fd, const void *info, size_t n)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (o->peer.family == ADDR_UNIX) return -EOPNOTSUPP;
    if (o->tls) return -EEXIST;
    if (o->state != SIM_OPEN || o->fin_seen || o->fin_sent) return -ENOTCONN;
    if (sim_chance(sim.conf.tls_refuse_pct, 100)) return -EINVAL;
    MUST(n <= INFO_BYTES_MAX);
    struct sim_tls *t = o->tls = mem_new(MEM_SIM, sizeof *t);
    memcpy(t->info, info, n);
    t->info_bytes = n;
    MUST(cipher_set(t, info));
    return 0;
}

int sys_tls_state(int fd, void *info, size_t n)
{
    const struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (!o->tls || n != o->tls->info_bytes) return -EINVAL;
    unsigned char *p = info;
    memcpy(p, o->tls->info, n);
    for (int i = 0; i < 8; i++) p[o->tls->number_at + (size_t)i] = (unsigned char)(o->tls->number >> (56 - 8 * i));
    return 0;
}

int sys_given(int fd, uint64_t *bytes)
{
    const struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    if (o->peer.family == ADDR_UNIX) return -EOPNOTSUPP;
    *bytes = o->given;
    return 0;
}

/* ---- records ---- */

/* RFC 8446 section 5.2: head, then encrypted the plaintext and its type; the nonce is the iv with the record's number. */
static void record_add(struct sim_tls *t, uint8_t type, const char *p, size_t n)
{
    size_t body = n + 1 + TAG_BYTES;
    unsigned char head[5] = {23, 3, 3, (unsigned char)(body >> 8), (unsigned char)body}, nonce[NONCE_BYTES], bytes[RECORD_BYTES + 1 + TAG_BYTES];
    memcpy(nonce, t->iv, sizeof nonce);
    for (int i = 0; i < 8; i++) nonce[4 + i] ^= (unsigned char)(t->number >> (56 - 8 * i));
    t->number++;
    int a = 0, b = 0, c = 0;
    bool good = EVP_EncryptInit_ex(t->cipher, NULL, NULL, NULL, nonce) == 1 && EVP_EncryptUpdate(t->cipher, NULL, &a, head, sizeof head) == 1 &&
                EVP_EncryptUpdate(t->cipher, bytes, &a, (const unsigned char *)p, (int)n) == 1 && EVP_EncryptUpdate(t->cipher, bytes + a, &b, &type, 1) == 1 &&
                EVP_EncryptFinal_ex(t->cipher, bytes + a + b, &c) == 1 && (size_t)(a + b + c) == n + 1 &&
                EVP_CIPHER_CTX_ctrl(t->cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, bytes + n + 1) == 1;
    MUST(good);
    buf_add(&t->out, (const char *)head, sizeof head);
    buf_add(&t->out, (const char *)bytes, body);
}

/* 1: nothing waits; 0: something does, and there is no room; or -errno. */
static int out_push(struct sim_obj *o)
{
    struct sim_tls *t = o->tls;
    struct iovec iov = {t->out.n ? t->out.p + t->out_from : NULL, t->out.n - t->out_from};
    ssize_t r = sim_writev(o, &iov, iov.iov_len ? 1 : 0); /* with nothing to write it tells errors */
    if (r < 0) return r == -EAGAIN ? 0 : (int)r;
    t->out_from += (size_t)r;
    if (t->out_from < t->out.n) return 0;
    buf_clear(&t->out);
    t->out_from = 0;
    return 1;
}

static ssize_t record_write(struct sim_obj *o, uint8_t type, const struct iovec *iov, int n)
{
    size_t taken = 0;
    int r = out_push(o);
    for (int i = 0; i < n && r > 0; i++) {
        const char *p = iov[i].iov_base;
        for (size_t left = iov[i].iov_len, part; left && r > 0; left -= part, p += part, taken += part) {
            part = MIN(left, RECORD_BYTES);
            record_add(o->tls, type, p, part);
            r = out_push(o);
        }
    }
    if (taken) return (ssize_t)taken;
    return r < 0 ? r : r == 0 ? -EAGAIN : 0;
}

ssize_t sim_tls_writev(struct sim_obj *o, const struct iovec *iov, int n) { return record_write(o, 23, iov, n); }

ssize_t sys_tls_control(int fd, uint8_t type, const void *p, size_t n)
{
    struct sim_obj *o = sim_obj_get(fd, SIM_SOCKET);
    struct iovec iov = {(void *)(uintptr_t)p, n};
    if (!o->tls) return -EINVAL;
    return record_write(o, type, &iov, 1);
}

void sim_tls_room(struct sim_obj *o)
{
    if (o->state == SIM_OPEN && !o->fin_sent) (void)out_push(o);
}

void sim_tls_lose(struct sim_obj *o)
{
    buf_clear(&o->tls->out);
    o->tls->out_from = 0;
}

void sim_tls_free(struct sim_obj *o)
{
    EVP_CIPHER_CTX_free(o->tls->cipher);
    buf_free(&o->tls->out);
    mem_free(o->tls);
    o->tls = NULL;
}
