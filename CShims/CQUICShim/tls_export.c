// Secrets for the application (RFC 8446 section 7.5).

#include "internal.h"

#include <gnutls/crypto.h>
#include <string.h>

/// RFC 8446 section 7.1.
static int expand_label(gnutls_mac_algorithm_t mac, const uint8_t *secret, size_t secret_length, const char *label,
                        size_t label_length, const uint8_t *context, size_t context_length, uint8_t *destination,
                        size_t length) {
    static const char prefix[] = "tls13 ";
    uint8_t text[4 + 255 + 64];
    size_t used = 0, full = sizeof prefix - 1 + label_length;
    if (full > 255 || context_length > 64 || length > 65535) return GNUTLS_E_INVALID_REQUEST;
    text[used++] = (uint8_t)(length >> 8);
    text[used++] = (uint8_t)length;
    text[used++] = (uint8_t)full;
    memcpy(text + used, prefix, sizeof prefix - 1);
    memcpy(text + used + sizeof prefix - 1, label, label_length);
    used += full;
    text[used++] = (uint8_t)context_length;
    memcpy(text + used, context, context_length);
    used += context_length;
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)secret, (unsigned)secret_length};
    gnutls_datum_t info = {text, (unsigned)used};
    return gnutls_hkdf_expand(mac, &key, &info, destination, length);
}

int llq_export(const uint8_t *secret, size_t secret_length, const char *label, size_t label_length,
               const uint8_t *context, size_t context_length, uint8_t *destination, size_t length) {
    if (secret_length != 32 && secret_length != 48) return GNUTLS_E_INVALID_REQUEST;
    gnutls_mac_algorithm_t mac = secret_length == 48 ? GNUTLS_MAC_SHA384 : GNUTLS_MAC_SHA256;
    gnutls_digest_algorithm_t digest = secret_length == 48 ? GNUTLS_DIG_SHA384 : GNUTLS_DIG_SHA256;
    uint8_t hash[48], derived[48];
    int rv = gnutls_hash_fast(digest, "", 0, hash);
    if (rv == 0)
        rv = expand_label(mac, secret, secret_length, label, label_length, hash, secret_length, derived, secret_length);
    if (rv == 0) rv = gnutls_hash_fast(digest, context, context_length, hash);
    if (rv == 0)
        rv = expand_label(mac, derived, secret_length, "exporter", 8, hash, secret_length, destination, length);
    gnutls_memset(derived, 0, sizeof derived);
    return rv;
}

int llq_tls_export(const llq_conn *conn, const char *label, size_t label_length, const uint8_t *context,
                   size_t context_length, uint8_t *destination, size_t length) {
    return llq_export(conn->exporter, conn->exporter_length, label, label_length, context, context_length, destination,
                      length);
}
