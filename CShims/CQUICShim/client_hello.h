#ifndef LLQ_CLIENT_HELLO_H
#define LLQ_CLIENT_HELLO_H

#include <stddef.h>
#include <stdint.h>

/// Finds the first PSK identity a complete ClientHello message (with its header) offers; NULL if there is none or the
/// message is malformed, which GnuTLS will notice.
const uint8_t *llq_client_hello_identity(const uint8_t *message, size_t length, size_t *identity_length);

/// Finds the DNS name a complete ClientHello message asks for (RFC 6066 section 3); NULL if there is none.
const uint8_t *llq_client_hello_server_name(const uint8_t *message, size_t length, size_t *name_length);

/// Finds the application protocols a complete ClientHello message offers (RFC 7301): each name after its length; NULL if there
/// are none.
const uint8_t *llq_client_hello_protocols(const uint8_t *message, size_t length, size_t *names_length);

/// Finds the ticket in a NewSessionTicket message without its header (RFC 8446 section 4.6.1): what the client will offer as
/// identity; NULL if the message is malformed.
const uint8_t *llq_session_ticket_identity(const uint8_t *body, size_t length, size_t *identity_length);

/// Whether the client's version information (RFC 9368 section 3) has this QUIC version among those available.
int llq_client_hello_has_version(const uint8_t *message, size_t length, uint32_t version);

#endif
