/* tls_kernel.c - connections whose records the kernel makes (module tls), so that files and spliced bytes need not come to user space.
 *
 * OpenSSL does the handshake and all reading. When it has made the key for sending it offers it to its BIO (a control of its own kernel TLS, see
 * tls_kernel_offer()). We keep it and decline: OpenSSL goes on, and we count its records as they pass. When a large body is to be sent, the kernel gets the
 * key and the number of the next record. From then on what is written to the socket is plaintext.
 *
 *                offered            a large body              key update asked for
 *     (no key) ----------> KEPT ---------------------> SENDS ---------------------> the connection ends
 *                           |  refused, or a key update
 *                           +-----------------------------> (no key): OpenSSL sends for ever
 *
 * There is no way back: a socket that makes records can't be given other bytes. So what OpenSSL still makes is thrown away, its alerts are sent by us,
 * and a peer that asks for new keys (which Linux before 6.14 can't change) gets an end.
 *
 * TLS 1.3 only. In 1.2 a record's nonce is not its number alone; that is not worth a second way to get it wrong.
 *
 * The last record. Linux may have taken plaintext whose record it could not yet give to TCP, as that was full; it does so later, but a FIN overtakes it,
 * and a close throws it away. So before the FIN we ask how many records were made and how many bytes TCP has, and wait until it is all.
 */
#include "tls_int.h"

#include <errno.h>
#include <linux/tls.h>
#include <openssl/crypto.h>

#define RECORD_HEAD 5
#define RECORD_EXTRA 22             /* a record of TLS 1.3 is so much longer than its plaintext: head, type, tag */
#define RETRY_MS_MAX 64             /* between two looks at whether TCP has the last record; the first after 1 ms */
#define ALERT_RECORD 21
#define KEY_UPDATE_MESSAGE 24       /* RFC 8446 section 4: HandshakeType */

/* What linux/tls.h has for each cipher; all begin with struct tls_crypto_info. */
union kernel_info {
    struct tls_crypto_info any;
    struct tls12_crypto_info_aes_gcm_128 aes_128;
    struct tls12_crypto_info_aes_gcm_256 aes_256;
    struct tls12_crypto_info_chacha20_poly1305 chacha;
};

struct tls_kernel {
    struct stream *s;
    union kernel_info info;         /* the key is wiped once the kernel has it */
    size_t info_bytes;
    uint64_t records;               /* the number of the next record that OpenSSL makes; once the kernel sends: of its first one */
    uint32_t left;                  /* bytes of the record that is passing */
    uint8_t head_n;                 /* bytes of its head that have passed */
    unsigned char head[RECORD_HEAD];
    unsigned char alert[2];         /* that OpenSSL wanted to send; 0, 0: none */
    bool sends;                     /* the kernel does */
    bool unfit;                     /* what passed was not what this expects, or the key is not in use any more: the kernel never sends */
    bool outdated;                  /* the peer asked for a new key, or got one from OpenSSL */
    bool alerted;                   /* close_notify is in the kernel, or another alert was our last word */
    uint32_t control_bytes;         /* of plaintext in records that are no data, made by the kernel */
    uint64_t sent_at, given_at;     /* when the kernel began: the stream's sent; what TCP had */
    struct timer retry;             /* the FIN waits for TCP to have the last record */
    uint32_t retry_ms;
};

/* ---- found out once ---- */

static bool kernel_on; /* written before the first loop runs */
uint64_t tls_kernel_min = TLS_KERNEL_MIN, tls_kernel_write_min = TLS_KERNEL_WRITE_MIN;

bool tls_kernel_start(void)
{
    kernel_on = sys_tls_present() == 0;
    return kernel_on;
}

bool tls_kernel_on(void) { return kernel_on; }

/* ---- the key ---- */

static size_t info_bytes(const struct tls_crypto_info *info)
{
    switch (info->cipher_type) {
    case TLS_CIPHER_AES_GCM_128: return sizeof(struct tls12_crypto_info_aes_gcm_128);
    case TLS_CIPHER_AES_GCM_256: return sizeof(struct tls12_crypto_info_aes_gcm_256);
    case TLS_CIPHER_CHACHA20_POLY1305: return sizeof(struct tls12_crypto_info_chacha20_poly1305);
    default: return 0;
    }
}

/* The number of the next record, big-endian: 8 bytes with every cipher. */
static unsigned char *info_number(union kernel_info *info)
{
    switch (info->any.cipher_type) {
    case TLS_CIPHER_AES_GCM_128: return info->aes_128.rec_seq;
    case TLS_CIPHER_AES_GCM_256: return info->aes_256.rec_seq;
    default: return info->chacha.rec_seq;
    }
}

static uint64_t number_get(const unsigned char *p)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n = n << 8 | p[i];
    return n;
}

static void number_put(unsigned char *p, uint64_t n)
{
    for (int i = 7; i >= 0; i--, n >>= 8) p[i] = (unsigned char)n;
}

void tls_kernel_free(struct stream_tls *t)
{
    struct tls_kernel *k = t->kernel;
    if (!k) return;
    timer_clear(&k->retry);
    OPENSSL_cleanse(&k->info, sizeof k->info);
    mem_free(k);
    t->kernel = NULL;
}

/* ---- what OpenSSL does meanwhile ---- */

/* Every message of the protocol that OpenSSL sends or has read, in plaintext: SSL_set_msg_callback(3). */
static void on_message(int sent, int version, int type, const void *p, size_t n, SSL *ssl, void *arg)
{
    const struct stream *s = SSL_get_app_data(ssl);
    struct tls_kernel *k = s->tls->kernel;
    const unsigned char *b = p;
    if (!k) return;
    if (type == SSL3_RT_ALERT && sent && n == 2) memcpy(k->alert, b, 2);
    if (type == SSL3_RT_HANDSHAKE && n > 4 && b[0] == KEY_UPDATE_MESSAGE && (sent || b[4] == SSL_KEY_UPDATE_REQUESTED)) k->outdated = true;
}

static void shut_again(struct timer *timer);

void tls_kernel_offer(struct stream *s, const void *info)
{
    struct stream_tls *t = s->tls;
    const struct tls_crypto_info *head = info;
    size_t n = info_bytes(head);
    if (!kernel_on || n == 0 || head->version != TLS_1_3_VERSION || (t->kernel && t->kernel->sends)) return;
    tls_kernel_free(t);
    struct tls_kernel *k = t->kernel = mem_try(MEM_TLS, sizeof *k);
    if (!k) return;
    *k = (struct tls_kernel){.s = s, .info_bytes = n};
    memcpy(&k->info, info, n);
    k->records = number_get(info_number(&k->info));
    timer_init(&k->retry, shut_again);
    SSL_set_msg_callback(t->ssl, on_message);
}

bool tls_kernel_saw(struct stream_tls *t, const char *p, size_t n)
{
    struct tls_kernel *k = t->kernel;
    if (k->sends) return false;
    while (n) {
        size_t take = k->left ? MIN(n, k->left) : MIN(n, (size_t)(RECORD_HEAD - k->head_n));
        if (k->left) {
            k->left -= (uint32_t)take;
        } else {
            memcpy(k->head + k->head_n, p, take);
            k->head_n = (uint8_t)(k->head_n + take);
        }
        p += take;
        n -= take;
        if (k->head_n < RECORD_HEAD) continue;
        k->head_n = 0;
        k->left = (uint32_t)(k->head[3] << 8 | k->head[4]);
        k->records++;
        if (k->head[0] != SSL3_RT_APPLICATION_DATA || k->left == 0) k->unfit = true; /* with this key there is nothing else, RFC 8446 section 5.2 */
    }
    return true;
}

/* ---- the kernel sends ---- */

bool tls_kernel_sends(const struct stream *s) { return s->tls && s->tls->kernel && s->tls->kernel->sends; }

static bool hand_over(struct stream *s, struct tls_kernel *k)
{
    uint64_t given;
    number_put(info_number(&k->info), k->records);
    int r = sys_given(s->fd, &given);
    if (r == 0) r = sys_tls_send(s->fd, &k->info, k->info_bytes);
    if (r < 0) {
        counter_inc(&s->loop->tls_counters.kernel_refused);
        tls_kernel_free(s->tls);
        return false;
    }
    union kernel_info shown = {.any = k->info.any};
    OPENSSL_cleanse(&k->info, sizeof k->info);
    k->info = shown;
    k->sent_at = s->sent;
    k->given_at = given;
    k->sends = true;
    counter_inc(&s->loop->tls_counters.kernel);
    return true;
}

bool tls_direct(struct stream *s, uint64_t n)
{
    struct stream_tls *t = s->tls;
    struct tls_kernel *k = t->kernel;
    if (!k || t->state != TLS_OPEN || s->fail) return false;
    if (k->sends) return true;
    if (n < tls_kernel_min || k->unfit || k->outdated || t->close_sent) return false;
    tls_settle(s);
    if (s->out || s->fail || k->left || k->head_n) return false; /* a record waits here, in whole or in part */
    return hand_over(s, k);
}

/* ---- control records ---- */

static int alert_send(struct stream *s, const unsigned char alert[2])
{
    struct tls_kernel *k = s->tls->kernel;
    ssize_t r = sys_tls_control(s->fd, ALERT_RECORD, alert, 2);
    if (r == 2) k->control_bytes += 2;
    return r == 2 ? 0 : r < 0 ? (int)r : -EAGAIN;
}

static int close_notify_send(struct stream *s)
{
    static const unsigned char close_notify[2] = {SSL3_AL_WARNING, SSL_AD_CLOSE_NOTIFY};
    struct tls_kernel *k = s->tls->kernel;
    int r = k->alerted ? 0 : alert_send(s, close_notify);
    if (r == 0) k->alerted = true;
    return r;
}

void tls_kernel_last_word(struct stream *s)
{
    static const unsigned char cut[2] = {SSL3_AL_FATAL, SSL_AD_INTERNAL_ERROR};
    struct tls_kernel *k = s->tls->kernel;
    if (k->alerted) return;
    if (k->alert[0] == SSL3_AL_FATAL) (void)alert_send(s, k->alert);
    else if (s->out || s->out_flow) (void)alert_send(s, cut); /* what was sent is not all */
    else (void)close_notify_send(s);
    k->alerted = true;
}

void tls_kernel_bye(struct stream *s) { (void)close_notify_send(s); }

bool tls_kernel_outdated(const struct stream_tls *t)
{
    return t->kernel && t->kernel->sends && t->kernel->outdated;
}

/* ---- the end ---- */

/* TCP has all that was written. What it has is asked for first as acknowledged, then as waiting: if something is acknowledged meanwhile, it is
 * counted too little. */
static bool all_given(struct stream *s)
{
    struct tls_kernel *k = s->tls->kernel;
    union kernel_info now = k->info;
    uint64_t given;
    if (sys_tls_state(s->fd, &now, k->info_bytes) < 0 || sys_given(s->fd, &given) < 0) return true; /* it will not be known later either */
    uint64_t records = number_get(info_number(&now)) - k->records;
    OPENSSL_cleanse(&now, sizeof now);
    return given - k->given_at >= s->sent - k->sent_at + k->control_bytes + records * RECORD_EXTRA;
}

static void shut_again(struct timer *timer)
{
    struct tls_kernel *k = CONTAINER_OF(timer, struct tls_kernel, retry);
    if (!k->s->shut_done && !k->s->fail && !k->s->failed_told) stream_shut_now(k->s);
}

bool tls_may_shut(struct stream *s)
{
    if (!tls_kernel_sends(s)) return true;
    struct tls_kernel *k = s->tls->kernel;
    int r = close_notify_send(s);
    if (r < 0 && r != -EAGAIN) {
        stream_break(s, err_from_errno(-r));
        return false;
    }
    if (r == 0 && all_given(s)) return true;
    if (timer_is_set(&k->retry)) return false;
    k->retry_ms = k->retry_ms ? MIN(2 * k->retry_ms, (uint32_t)RETRY_MS_MAX) : 1;
    timer_set(s->loop, &k->retry, k->retry_ms);
    return false;
}
