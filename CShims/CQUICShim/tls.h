#ifndef LLQ_TLS_PRIVATE_H
#define LLQ_TLS_PRIVATE_H

#include "internal.h"

/// The connection of a session.
llq_conn *llq_conn_of(gnutls_session_t session);

/// The peer's certificates, as far as they are its own; NULL: none.
const gnutls_datum_t *llq_peer_chain(const llq_conn *conn, unsigned *count);
/// Server: a hook for Certificate messages.
int llq_on_certificate(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                       const gnutls_datum_t *message);
/// Server: whether the client's certificates are good, or none are needed. 0 or an error of GnuTLS.
int llq_verify_client(gnutls_session_t session, llq_conn *conn);
/// Either side: GnuTLS asks whether the peer's certificates are good.
int llq_on_verify(gnutls_session_t session);
/// When the first of some certificates expires; 0: one can't be read.
uint64_t llq_earliest_expiry(const gnutls_datum_t *chain, unsigned count);

#endif
