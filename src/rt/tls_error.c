/* tls_error.c - what a failure of TLS means, in words for whoever runs the service.
 *
 * OpenSSL leaves a queue of errors; the first that comes from its TLS part is the cause, others tell how it went on. The
 * frequent ones get a sentence of our own, the rest keep OpenSSL's.
 */
#include "tls_int.h"

#include <openssl/err.h>
#include <openssl/sslerr.h>

void tls_why(struct stream_tls *t, const char *fmt, ...)
{
    if (t->why) return;
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    text_clean(b.p);
    t->why = mem_strdup(MEM_TLS, b.p);
    buf_free(&b);
}

static const struct {
    int reason;
    enum tls_fault fault;
    const char *text;
} sentences[] = {
    {SSL_R_UNSUPPORTED_PROTOCOL, TLS_FAULT_PARAMETERS, "the peer and this side have no TLS version in common"},
    {SSL_R_VERSION_TOO_LOW, TLS_FAULT_PARAMETERS, "the peer and this side have no TLS version in common"},
    {SSL_R_VERSION_TOO_HIGH, TLS_FAULT_PARAMETERS, "the peer and this side have no TLS version in common"},
    {SSL_R_NO_PROTOCOLS_AVAILABLE, TLS_FAULT_PARAMETERS, "the peer and this side have no TLS version in common"},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, TLS_FAULT_PARAMETERS, "the peer and this side have no TLS version in common"},
    {SSL_R_NO_SHARED_CIPHER, TLS_FAULT_PARAMETERS, "the peer and this side have no cipher in common"},
    {SSL_R_NO_SUITABLE_KEY_SHARE, TLS_FAULT_PARAMETERS, "the peer and this side have no key exchange group in common"},
    {SSL_R_NO_SHARED_GROUPS, TLS_FAULT_PARAMETERS, "the peer and this side have no key exchange group in common"},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, TLS_FAULT_PARAMETERS, "the peer accepts no signature that this side's certificate can make"},
    {SSL_R_NO_APPLICATION_PROTOCOL, TLS_FAULT_PARAMETERS, "the peer and this side have no application protocol (ALPN) in common"},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, TLS_FAULT_CERTIFICATE, "no certificate was sent by the client"},
    {SSL_R_WRONG_VERSION_NUMBER, TLS_FAULT_OTHER, "the peer does not speak TLS"},
    {SSL_R_UNKNOWN_PROTOCOL, TLS_FAULT_OTHER, "the peer does not speak TLS"},
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, TLS_FAULT_OTHER, "a record was damaged on its way"},
};

static void explain_alert(int alert, struct buf *out)
{
    buf_printf(out, "the peer sent the alert \"%s\"", SSL_alert_desc_string_long(alert));
    if (alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_BAD_CERTIFICATE) buf_adds(out, ": it does not trust the certificate of this side");
    if (alert == SSL_AD_CERTIFICATE_REQUIRED) buf_adds(out, ": it wants a client certificate");
    if (alert == SSL_AD_HANDSHAKE_FAILURE) buf_adds(out, ": it accepts nothing that this side offered, or wants a client certificate");
}

static enum tls_fault explain_reason(const struct stream_tls *t, unsigned long e, struct buf *out)
{
    int reason = ERR_GET_REASON(e);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        buf_printf(out, "the certificate of the peer is not trusted: %s", X509_verify_cert_error_string(SSL_get_verify_result(t->ssl)));
        return TLS_FAULT_CERTIFICATE;
    }
    for (size_t i = 0; i < COUNT_OF(sentences); i++) {
        if (reason != sentences[i].reason) continue;
        buf_adds(out, sentences[i].text);
        return sentences[i].fault;
    }
    const char *text = ERR_reason_error_string(e);
    if (reason > SSL_AD_REASON_OFFSET) explain_alert(reason - SSL_AD_REASON_OFFSET, out);
    else buf_printf(out, "TLS failed: %s", text ? text : "for a reason that OpenSSL does not name");
    return reason > SSL_AD_REASON_OFFSET ? TLS_FAULT_ALERT : TLS_FAULT_OTHER;
}

enum tls_fault tls_explain(const struct stream_tls *t, struct buf *out)
{
    unsigned long cause = 0;
    for (unsigned long e; (e = ERR_get_error());)
        if (!cause || (ERR_GET_LIB(cause) != ERR_LIB_SSL && ERR_GET_LIB(e) == ERR_LIB_SSL)) cause = e;
    if (t->ssl && cause && ERR_GET_LIB(cause) == ERR_LIB_SSL) return explain_reason(t, cause, out);
    buf_printf(out, "TLS failed: %s", cause && ERR_reason_error_string(cause) ? ERR_reason_error_string(cause) : "out of memory");
    return TLS_FAULT_OTHER;
}
