/// What a connection needs to know of TLS, and what it tells of it.
#ifndef LLQ_TLS_H
#define LLQ_TLS_H

#include "llq_types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LLQ_VERIFY_NONE = 0,
    LLQ_VERIFY_CHAIN = 1,
    LLQ_VERIFY_PIN = 2,
};

enum {
    LLQ_CLIENT_CERTIFICATES_NONE = 0,
    LLQ_CLIENT_CERTIFICATES_REQUESTED = 1,
    LLQ_CLIENT_CERTIFICATES_REQUIRED = 2,
};

/// Pointers are GnuTLS objects that outlive the connection.
typedef struct llq_tls {
    void *credentials;
    void *priority;
    void *anti_replay;      // server; NULL: no 0-RTT
    const char *server_name; // client
    const uint8_t *alpn;    // as on the wire: each name after its length
    size_t alpn_length;
    const uint8_t *session; // client: ticket
    size_t session_length;
    const uint8_t *early_parameters; // client: what the ticket's server allowed; NULL: no 0-RTT
    size_t early_parameters_length;
    int verify;
    const uint8_t *pins;    // 32 bytes each
    size_t pin_count;
    int tickets;            // server
    int client_certificates; // server: LLQ_CLIENT_CERTIFICATES_
    int key_log;
    uint32_t ticket_lifetime; // seconds
} llq_tls;

typedef struct llq_conn llq_conn;

/// Seals and submits one session ticket.
int llq_tls_send_ticket(llq_conn *conn);
int llq_tls_resumed(const llq_conn *conn);
int llq_tls_early_data_accepted(const llq_conn *conn);
/// These return the length, or 0; text isn't terminated.
size_t llq_tls_alpn(const llq_conn *conn, uint8_t *destination, size_t capacity);
size_t llq_tls_server_name(const llq_conn *conn, char *destination, size_t capacity);
size_t llq_tls_cipher_suite(const llq_conn *conn, char *destination, size_t capacity);
/// The peer's n-th certificate in DER, alive as long as the TLS session; NULL beyond the last. A server's client has shown
/// it in this handshake, or in the one that its ticket is from.
const uint8_t *llq_tls_peer_certificate(const llq_conn *conn, size_t index, size_t *length);
/// Keying material for the application (RFC 8446 section 7.5), also after the TLS session was freed. 0 on success.
int llq_tls_export(const llq_conn *conn, const char *label, size_t label_length, const uint8_t *context,
                   size_t context_length, uint8_t *destination, size_t length);
/// The same from the exporter master secret of a suite with SHA-256 (32 bytes) or SHA-384 (48). GnuTLS's own function takes
/// short labels only.
int llq_export(const uint8_t *secret, size_t secret_length, const char *label, size_t label_length,
               const uint8_t *context, size_t context_length, uint8_t *destination, size_t length);
/// Client: the session for a later connection, to be freed with `llq_free`; NULL if there is none.
uint8_t *llq_tls_session(const llq_conn *conn, size_t *length);
/// Client: what the server allows in 0-RTT later.
size_t llq_conn_encode_early_parameters(llq_conn *conn, uint8_t *destination, size_t capacity);
/// Client: the lifetime in seconds of the latest ticket.
uint32_t llq_tls_ticket_lifetime(const llq_conn *conn);
/// The last error of the TLS library, 0 if none, and what the certificate check found (GnuTLS's flags).
int llq_tls_error(const llq_conn *conn);
uint32_t llq_tls_verify_status(const llq_conn *conn);
int llq_tls_pin_mismatch(const llq_conn *conn);
/// Client: the server was refused because what it says doesn't fit a qlog record.
int llq_tls_qlog_overflow(const llq_conn *conn);
/// The alert sent, or received from the peer as a CRYPTO_ERROR code; -1 if none.
int llq_tls_alert(llq_conn *conn);
const char *llq_tls_alert_name(int alert);
const char *llq_tls_error_name(int error);
/// Frees the TLS session; nothing needs it once the handshake is confirmed and tickets are sent.
void llq_tls_release(llq_conn *conn);
void llq_free(void *pointer);

/// The names GnuTLS gives to keys derived from a master, now and in the period before: 2 * 16 bytes.
int llq_ticket_key_names(const uint8_t *master, uint32_t ticket_lifetime, uint8_t *names);
/// The wall clock the TLS library uses, in seconds since 1970.
uint64_t llq_wall_clock(void);

#ifdef __cplusplus
}
#endif

#endif
