// Whom a connection believes: the certificates that a peer shows.

#include "tls.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>
#include <time.h>

/// SHA-256 of the SubjectPublicKeyInfo of a certificate in DER.
static int public_key_hash(const gnutls_datum_t *der, uint8_t *hash) {
    gnutls_x509_crt_t certificate = NULL;
    gnutls_pubkey_t key = NULL;
    gnutls_datum_t spki = {NULL, 0};
    int rv = gnutls_x509_crt_init(&certificate);
    if (rv == 0) rv = gnutls_x509_crt_import(certificate, der, GNUTLS_X509_FMT_DER);
    if (rv == 0) rv = gnutls_pubkey_init(&key);
    if (rv == 0) rv = gnutls_pubkey_import_x509(key, certificate, 0);
    if (rv == 0) rv = gnutls_pubkey_export2(key, GNUTLS_X509_FMT_DER, &spki);
    if (rv == 0) rv = gnutls_hash_fast(GNUTLS_DIG_SHA256, spki.data, spki.size, hash);
    gnutls_free(spki.data);
    if (key) gnutls_pubkey_deinit(key);
    if (certificate) gnutls_x509_crt_deinit(certificate);
    return rv;
}

/// The peer's certificates. GnuTLS puts those of a client's ticket into the session before it knows that the ticket is
/// the client's: they count only once the ticket has resumed the session. Any client can offer the ticket of another with
/// an age that makes GnuTLS go on without it, and show no certificate of its own.
const gnutls_datum_t *llq_peer_chain(const llq_conn *conn, unsigned *count) {
    *count = 0;
    if (conn->is_server && !conn->certificate_shown && !gnutls_session_is_resumed(conn->session)) return NULL;
    return gnutls_certificate_get_peers(conn->session, count);
}

/// Server: before each Certificate message of the client.
int llq_on_certificate(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                       const gnutls_datum_t *message) {
    (void)type;
    (void)when;
    // RFC 8446 section 4.4.2: an empty context, and the length of a list.
    if (incoming)
        llq_conn_of(session)->certificate_shown = message->size > 4 && message->data[0] == 0 &&
                                                  (message->data[1] | message->data[2] | message->data[3]) != 0;
    return 0;
}

int llq_verify_client(gnutls_session_t session, llq_conn *conn) {
    unsigned count = 0, status = 0;
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                     .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT};
    if (!llq_peer_chain(conn, &count) || count == 0)
        return conn->client_certificates == LLQ_CLIENT_CERTIFICATES_REQUIRED ? GNUTLS_E_NO_CERTIFICATE_FOUND : 0;
    int rv = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
    conn->verify_status = status;
    if (rv < 0) return rv;
    return status == 0 ? 0 : GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

int llq_on_verify(gnutls_session_t session) {
    llq_conn *conn = llq_conn_of(session);
    if (conn->is_server) return llq_verify_client(session, conn);
    if (conn->verify == LLQ_VERIFY_NONE) return 0;
    if (conn->verify == LLQ_VERIFY_PIN) {
        unsigned count = 0;
        const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
        uint8_t hash[32];
        if (chain && count > 0 && public_key_hash(&chain[0], hash) == 0) {
            for (size_t i = 0; i < conn->pin_count; i++)
                if (memcmp(conn->pins + 32 * i, hash, 32) == 0) return 0;
        }
        conn->pin_mismatch = true;
        return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
    }
    unsigned status = 0;
    // A numeric address is compared with the certificate's addresses.
    gnutls_typed_vdata_st wanted[] = {
        {.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)conn->server_name},
        {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_SERVER},
    };
    int rv = gnutls_certificate_verify_peers(session, wanted, 2, &status);
    conn->verify_status = status;
    if (rv < 0) return rv;
    return status == 0 ? 0 : GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

/// When the first of some certificates expires; 0: one can't be read.
uint64_t llq_earliest_expiry(const gnutls_datum_t *chain, unsigned count) {
    uint64_t earliest = UINT64_MAX;
    for (unsigned i = 0; i < count; i++) {
        gnutls_x509_crt_t certificate;
        if (gnutls_x509_crt_init(&certificate) != 0) return 0;
        time_t expiry = -1;
        if (gnutls_x509_crt_import(certificate, &chain[i], GNUTLS_X509_FMT_DER) == 0)
            expiry = gnutls_x509_crt_get_expiration_time(certificate);
        gnutls_x509_crt_deinit(certificate);
        if (expiry <= 0) return 0;
        if ((uint64_t)expiry < earliest) earliest = (uint64_t)expiry;
    }
    return earliest;
}

const uint8_t *llq_tls_peer_certificate(const llq_conn *conn, size_t index, size_t *length) {
    unsigned count = 0;
    const gnutls_datum_t *chain = conn->session ? llq_peer_chain(conn, &count) : NULL;
    if (!chain || index >= count) return NULL;
    *length = chain[index].size;
    return chain[index].data;
}
