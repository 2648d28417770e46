#include "client_hello.h"
#include "internal.h"
#include "packet_protection.h"
#include "tls.h"

#include <arpa/inet.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_CLIENT_HELLO = 16384, TICKET_MASTER_LENGTH = 64, KEY_NAME_LENGTH = 16 };

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref) { return ((llq_conn *)ref->user_data)->conn; }

llq_conn *llq_conn_of(gnutls_session_t session) {
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);
    return ref->user_data;
}

static int on_key_log(gnutls_session_t session, const char *label, const gnutls_datum_t *secret) {
    llq_conn *conn = llq_conn_of(session);
    gnutls_datum_t client, server;
    char line[512];
    size_t used;
    // Kept for what the application exports when the session is gone.
    if (strcmp(label, "EXPORTER_SECRET") == 0 && secret->size <= sizeof conn->exporter) {
        memcpy(conn->exporter, secret->data, secret->size);
        conn->exporter_length = secret->size;
    }
    if (!conn->key_log || strlen(label) > 64 || secret->size > 64) return 0;
    gnutls_session_get_random(session, &client, &server);
    used = (size_t)snprintf(line, sizeof line, "%s ", label);
    for (unsigned i = 0; i < client.size && i < 32; i++) used += (size_t)sprintf(line + used, "%02x", client.data[i]);
    line[used++] = ' ';
    for (unsigned i = 0; i < secret->size; i++) used += (size_t)sprintf(line + used, "%02x", secret->data[i]);
    line[used] = 0;
    conn->owner.key_log(conn->owner.context, line);
    gnutls_memset(line, 0, sizeof line);
    return 0;
}

/// Client: before and after each handshake message.
static int on_message(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                      const gnutls_datum_t *message) {
    llq_conn *conn = llq_conn_of(session);
    if (!incoming) return 0;
    if (type == GNUTLS_HANDSHAKE_NEW_SESSION_TICKET && when == GNUTLS_HOOK_POST)
        llq_emit_simple(conn, LLQ_EVENT_TICKET);
    if (type == GNUTLS_HANDSHAKE_ENCRYPTED_EXTENSIONS && when == GNUTLS_HOOK_PRE && conn->owner.qlog &&
        !llq_qlog_takes(message->data, message->size)) {
        conn->qlog_overflow = true;
        ngtcp2_conn_set_tls_error(conn->conn, NGTCP2_ERR_MALFORMED_TRANSPORT_PARAM);
        return GNUTLS_E_ILLEGAL_PARAMETER;
    }
    return 0;
}

/// Server: before each NewSessionTicket.
static int on_ticket(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                     const gnutls_datum_t *message) {
    (void)type;
    (void)when;
    llq_conn *conn = llq_conn_of(session);
    size_t length = 0;
    const uint8_t *ticket = incoming ? NULL : llq_session_ticket_identity(message->data, message->size, &length);
    if (ticket) conn->owner.ticket_sealed(conn->owner.context, ticket, length);
    return 0;
}

static int start_client(llq_conn *conn, const llq_tls *tls) {
    gnutls_session_t session = conn->session;
    int rv;
    gnutls_session_set_verify_function(session, llq_on_verify);
    gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_BOTH, on_message);
    // A numeric address is no name for SNI (RFC 6066 section 3).
    struct in6_addr scratch;
    if (conn->server_name && *conn->server_name && inet_pton(AF_INET, conn->server_name, &scratch) != 1 &&
        inet_pton(AF_INET6, conn->server_name, &scratch) != 1) {
        rv = gnutls_server_name_set(session, GNUTLS_NAME_DNS, conn->server_name, strlen(conn->server_name));
        if (rv != 0) return rv;
    }
    if (tls->session && gnutls_session_set_data(session, tls->session, tls->session_length) == 0 &&
        tls->early_parameters && gnutls_record_get_max_early_data_size(session) > 0) {
#if LLQ_NGTCP2_1
        conn->early_attempted = ngtcp2_conn_decode_and_set_0rtt_transport_params(
                                    conn->conn, tls->early_parameters, tls->early_parameters_length) == 0;
#else
        ngtcp2_transport_params params;
        if (ngtcp2_decode_transport_params(&params, NGTCP2_TRANSPORT_PARAMS_TYPE_ENCRYPTED_EXTENSIONS,
                                           tls->early_parameters, tls->early_parameters_length) == 0) {
            ngtcp2_conn_set_early_remote_transport_params(conn->conn, &params);
            conn->early_attempted = true;
        }
#endif
    }
    return 0;
}

static int start_server(llq_conn *conn, const llq_tls *tls) {
    gnutls_session_t session = conn->session;
    conn->tickets = tls->tickets && conn->owner.ticket_master;
    if (conn->client_certificates != LLQ_CLIENT_CERTIFICATES_NONE) {
        gnutls_session_set_verify_function(session, llq_on_verify);
        gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_CERTIFICATE_PKT, GNUTLS_HOOK_PRE,
                                           llq_on_certificate);
        gnutls_certificate_server_set_request(
            session, conn->client_certificates == LLQ_CLIENT_CERTIFICATES_REQUIRED ? GNUTLS_CERT_REQUIRE
                                                                                   : GNUTLS_CERT_REQUEST);
    }
    conn->ticket_lifetime = tls->ticket_lifetime;
    if (tls->ticket_lifetime) gnutls_db_set_cache_expiration(session, (int)tls->ticket_lifetime);
    if (tls->anti_replay) {
        gnutls_anti_replay_enable(session, tls->anti_replay);
        // A session has one hook; that of client certificates, which allow no 0-RTT, is not needed here.
        gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET, GNUTLS_HOOK_PRE, on_ticket);
        // QUIC's one allowed value (RFC 9001 section 4.6.1).
        int rv = gnutls_record_set_max_early_data_size(session, 0xffffffffu);
        if (rv != 0) return rv;
    }
    return 0;
}

int llq_tls_start(llq_conn *conn, const llq_tls *tls) {
    unsigned flags = GNUTLS_NO_END_OF_EARLY_DATA;
    flags |= conn->is_server ? GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET : GNUTLS_CLIENT;
    if (!conn->is_server || tls->anti_replay) flags |= GNUTLS_ENABLE_EARLY_DATA;
    int rv = gnutls_init(&conn->session, flags);
    if (rv != 0) return rv;
    gnutls_session_t session = conn->session;

    conn->ref.get_conn = get_conn;
    conn->ref.user_data = conn;
    gnutls_session_set_ptr(session, &conn->ref);
    rv = gnutls_priority_set(session, tls->priority);
    if (rv != 0) return rv;
    rv = conn->is_server ? ngtcp2_crypto_gnutls_configure_server_session(session)
                         : ngtcp2_crypto_gnutls_configure_client_session(session);
    if (rv != 0) return GNUTLS_E_INTERNAL_ERROR;
    llq_protection_configure(conn);
    rv = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
    if (rv != 0) return rv;

    gnutls_datum_t names[16];
    unsigned count = 0;
    for (size_t i = 0; i < tls->alpn_length && count < 16; i += 1 + tls->alpn[i]) {
        names[count].data = (unsigned char *)(uintptr_t)(tls->alpn + i + 1);
        names[count++].size = tls->alpn[i];
    }
    rv = gnutls_alpn_set_protocols(session, names, count,
                                   GNUTLS_ALPN_MANDATORY | (conn->is_server ? GNUTLS_ALPN_SERVER_PRECEDENCE : 0));
    if (rv != 0) return rv;
    gnutls_session_set_keylog_function(session, on_key_log);
    return conn->is_server ? start_server(conn, tls) : start_client(conn, tls);
}

static gnutls_record_encryption_level_t gnutls_level(ngtcp2_encryption_level level) {
    switch (level) {
    case NGTCP2_ENCRYPTION_LEVEL_INITIAL: return GNUTLS_ENCRYPTION_LEVEL_INITIAL;
    case NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE: return GNUTLS_ENCRYPTION_LEVEL_HANDSHAKE;
    case NGTCP2_ENCRYPTION_LEVEL_0RTT: return GNUTLS_ENCRYPTION_LEVEL_EARLY;
    default: return GNUTLS_ENCRYPTION_LEVEL_APPLICATION;
    }
}

static int failed(llq_conn *conn, int rv) {
    conn->tls_error = rv;
    gnutls_alert_send_appropriate(conn->session, rv);
    int liberr = ngtcp2_conn_get_tls_error(conn->conn);
    return liberr != 0 ? liberr : NGTCP2_ERR_CRYPTO;
}

/// The version that ngtcp2 will settle on for a client that began with another (RFC 9368 section 2.3): the first of ours
/// that is available to the client, too.
static uint32_t expected_version(const llq_conn *conn) {
    for (size_t i = 0; i < conn->version_count; i++)
        if (conn->versions[i] == conn->first_version ||
            llq_client_hello_has_version(conn->client_hello, conn->client_hello_length, conn->versions[i]))
            return conn->versions[i];
    return conn->first_version;
}

/// Server: a session has one ticket master, to be chosen before GnuTLS reads the ticket.
static int choose_ticket_master(llq_conn *conn) {
    uint8_t master[TICKET_MASTER_LENGTH];
    llq_ticket_offer offer = {.first = conn->first_version, .expected = expected_version(conn)};
    conn->ticket_master_set = true;
    if (!conn->tickets) return 0;
    offer.ticket = llq_client_hello_identity(conn->client_hello, conn->client_hello_length, &offer.ticket_length);
    if (offer.ticket_length < KEY_NAME_LENGTH) offer.ticket = NULL;
    offer.protocols =
        llq_client_hello_protocols(conn->client_hello, conn->client_hello_length, &offer.protocols_length);
    if (conn->owner.ticket_master(conn->owner.context, &offer, &conn->ticket_version, master) != 0) {
        conn->tickets = false;
        return 0;
    }
    gnutls_datum_t key = {master, sizeof master};
    int rv = gnutls_session_ticket_enable_server(conn->session, &key);
    gnutls_memset(master, 0, sizeof master);
    return rv;
}

/// Server: the certificate for the name that the client asks for.
static int choose_credentials(llq_conn *conn) {
    size_t length = 0;
    if (!conn->owner.credentials) return 0;
    const uint8_t *name = llq_client_hello_server_name(conn->client_hello, conn->client_hello_length, &length);
    void *chosen = name ? conn->owner.credentials(conn->owner.context, (const char *)name, length) : NULL;
    return chosen ? gnutls_credentials_set(conn->session, GNUTLS_CRD_CERTIFICATE, chosen) : 0;
}

/// Server: holds the first ClientHello back until it is complete. Returns 1 when it can be passed on.
static int collect_client_hello(llq_conn *conn, const uint8_t *data, size_t length, int *error) {
    *error = 0;
    if (conn->client_hello_length + length > MAX_CLIENT_HELLO) {
        *error = GNUTLS_E_HANDSHAKE_TOO_LARGE;
        return 0;
    }
    uint8_t *grown = realloc(conn->client_hello, conn->client_hello_length + length);
    if (!grown) {
        *error = GNUTLS_E_MEMORY_ERROR;
        return 0;
    }
    conn->client_hello = grown;
    memcpy(grown + conn->client_hello_length, data, length);
    conn->client_hello_length += length;
    if (conn->client_hello_length < 4) return 0;
    size_t expected = 4 + ((size_t)grown[1] << 16 | (size_t)grown[2] << 8 | grown[3]);
    if (conn->client_hello_length < expected) return 0;
    *error = choose_ticket_master(conn);
    if (*error == 0) *error = choose_credentials(conn);
    return 1;
}

int llq_tls_receive(llq_conn *conn, ngtcp2_encryption_level level, uint64_t offset, const uint8_t *data,
                    size_t length) {
    (void)offset;
    if (length == 0) return 0;
    bool was_completed = ngtcp2_conn_get_handshake_completed(conn->conn);
    int alert = llq_filter_messages(conn, level, data, length);
    if (alert != 0) {
        llq_emit_simple(conn, LLQ_EVENT_CONTAINED_MESSAGE);
        ngtcp2_conn_set_tls_alert(conn->conn, (uint8_t)alert);
        return NGTCP2_ERR_CRYPTO;
    }
    // The session may be gone; only NewSessionTicket can have come this far, and it is ignored.
    if (!conn->session) return 0;

    int rv = 0;
    if (conn->is_server && !conn->ticket_master_set) {
        if (!collect_client_hello(conn, data, length, &rv)) return rv == 0 ? 0 : failed(conn, rv);
        if (rv == 0)
            rv = gnutls_handshake_write(conn->session, gnutls_level(level), conn->client_hello,
                                        conn->client_hello_length);
        free(conn->client_hello);
        conn->client_hello = NULL;
        conn->client_hello_length = 0;
    } else {
        rv = gnutls_handshake_write(conn->session, gnutls_level(level), data, length);
    }
    if (rv < 0 && gnutls_error_is_fatal(rv)) return failed(conn, rv);
    if (was_completed) return 0;
    rv = gnutls_handshake(conn->session);
    if (rv < 0) return gnutls_error_is_fatal(rv) ? failed(conn, rv) : 0;
    // GnuTLS doesn't look at the certificates of a resumed session; they may have expired.
    if (conn->is_server && conn->client_certificates != LLQ_CLIENT_CERTIFICATES_NONE &&
        gnutls_session_is_resumed(conn->session)) {
        rv = llq_verify_client(conn->session, conn);
        if (rv != 0) return failed(conn, rv);
    }
    // ngtcp2 0.12 returns nothing here, 1.x neither; the callback follows.
    ngtcp2_conn_tls_handshake_completed(conn->conn);
    return 0;
}

/// Whether the client may have a ticket: it must not outlive what it stands for. (Its lifetime can't be changed: GnuTLS
/// derives the key that seals it from that, too.)
static bool may_have_ticket(llq_conn *conn) {
    // A ticket belongs to one QUIC version (RFC 9369 section 5).
    if (conn->ticket_version != llq_conn_version(conn)) return false;
    if (conn->client_certificates == LLQ_CLIENT_CERTIFICATES_NONE) return true;
    // It ends with the first one, whose certificates lived long enough.
    if (gnutls_session_is_resumed(conn->session)) return true;
    unsigned count = 0, sealed = 0;
    const gnutls_datum_t *chain = llq_peer_chain(conn, &count);
    // GnuTLS seals what is in the session, also certificates that the client didn't show.
    if (!chain || count == 0) return !gnutls_certificate_get_peers(conn->session, &sealed) || sealed == 0;
    return llq_earliest_expiry(chain, count) >= llq_wall_clock() + conn->ticket_lifetime;
}

int llq_tls_send_ticket(llq_conn *conn) {
    if (!conn->session || !conn->tickets || !may_have_ticket(conn)) return 0;
    llq_conn *previous = llq_enter(conn);
    int rv = gnutls_session_ticket_send(conn->session, 1, 0);
    llq_leave(previous);
    return rv;
}

int llq_tls_resumed(const llq_conn *conn) { return conn->session && gnutls_session_is_resumed(conn->session) != 0; }

int llq_tls_early_data_accepted(const llq_conn *conn) {
    return conn->session && (gnutls_session_get_flags(conn->session) & GNUTLS_SFLAGS_EARLY_DATA) != 0;
}

static size_t copy(void *destination, size_t capacity, const void *source, size_t length) {
    if (!source || length > capacity) return 0;
    memcpy(destination, source, length);
    return length;
}

size_t llq_tls_alpn(const llq_conn *conn, uint8_t *destination, size_t capacity) {
    gnutls_datum_t name;
    if (!conn->session || gnutls_alpn_get_selected_protocol(conn->session, &name) != 0) return 0;
    return copy(destination, capacity, name.data, name.size);
}

size_t llq_tls_server_name(const llq_conn *conn, char *destination, size_t capacity) {
    if (!conn->is_server)
        return conn->server_name ? copy(destination, capacity, conn->server_name, strlen(conn->server_name)) : 0;
    unsigned type = 0;
    size_t length = capacity;
    if (!conn->session || gnutls_server_name_get(conn->session, destination, &length, &type, 0) != 0) return 0;
    return strnlen(destination, length < capacity ? length : capacity);
}

size_t llq_tls_cipher_suite(const llq_conn *conn, char *destination, size_t capacity) {
    if (!conn->session) return 0;
    const char *name = gnutls_cipher_get_name(gnutls_cipher_get(conn->session));
    return name ? copy(destination, capacity, name, strlen(name)) : 0;
}

uint8_t *llq_tls_session(const llq_conn *conn, size_t *length) {
    gnutls_datum_t data;
    // A ticket that can't be read empties the one before it, and GnuTLS would look into it all the same.
    if (!conn->session || conn->tls_error != 0 || gnutls_session_get_data2(conn->session, &data) != 0) return NULL;
    *length = data.size;
    return data.data;
}

uint32_t llq_tls_ticket_lifetime(const llq_conn *conn) { return conn->ticket_lifetime; }
int llq_tls_error(const llq_conn *conn) { return conn->tls_error; }
uint32_t llq_tls_verify_status(const llq_conn *conn) { return conn->verify_status; }
int llq_tls_pin_mismatch(const llq_conn *conn) { return conn->pin_mismatch; }
int llq_tls_qlog_overflow(const llq_conn *conn) { return conn->qlog_overflow; }
int llq_tls_alert(llq_conn *conn) { return ngtcp2_conn_get_tls_alert(conn->conn); }
const char *llq_tls_alert_name(int alert) { return gnutls_alert_get_name((gnutls_alert_description_t)alert); }
const char *llq_tls_error_name(int error) { return gnutls_strerror(error); }
void llq_free(void *pointer) { gnutls_free(pointer); }

void llq_tls_release(llq_conn *conn) {
    if (!conn->session) return;
    ngtcp2_conn_set_tls_native_handle(conn->conn, NULL);
    gnutls_deinit(conn->session);
    conn->session = NULL;
}

int llq_ticket_key_names(const uint8_t *master, uint32_t ticket_lifetime, uint8_t *names) {
    // GnuTLS derives the key from its master once in three lifetimes: SHA3-512(period || master), and the first 16
    // bytes are the name. Should a version do otherwise, no name matches and the newest master is taken.
    uint64_t period = llq_wall_clock() / ((uint64_t)ticket_lifetime * 3);
    for (int i = 0; i < 2; i++, period--) {
        uint8_t input[8 + TICKET_MASTER_LENGTH], digest[64];
        for (int j = 0; j < 8; j++) input[j] = (uint8_t)(period >> (56 - 8 * j));
        memcpy(input + 8, master, TICKET_MASTER_LENGTH);
        int rv = gnutls_hash_fast(GNUTLS_DIG_SHA3_512, input, sizeof input, digest);
        if (rv == 0) memcpy(names + i * KEY_NAME_LENGTH, digest, KEY_NAME_LENGTH);
        gnutls_memset(input, 0, sizeof input);
        gnutls_memset(digest, 0, sizeof digest);
        if (rv != 0) return rv;
    }
    return 0;
}

uint64_t llq_wall_clock(void) { return (uint64_t)time(NULL); }
