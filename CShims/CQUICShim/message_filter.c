// A TLS KeyUpdate, or any handshake message where it has no place, makes GnuTLS install keys a second time, on which
// every version of ngtcp2 aborts the process. So messages are looked at before GnuTLS gets them; RFC 9001 section 6
// wants the connection closed with unexpected_message (0x10a).

#include "internal.h"

enum {
    CLIENT_HELLO = 1,
    SERVER_HELLO = 2,
    NEW_SESSION_TICKET = 4,
    ENCRYPTED_EXTENSIONS = 8,
    CERTIFICATE = 11,
    CERTIFICATE_REQUEST = 13,
    CERTIFICATE_VERIFY = 15,
    FINISHED = 20,
};

static bool is_allowed(bool is_server, int level, bool finished, uint8_t type) {
    if (level == 0) return type == (is_server ? CLIENT_HELLO : SERVER_HELLO);
    if (level == 2) return !is_server && type == NEW_SESSION_TICKET;
    if (finished) return false;
    switch (type) {
    case CERTIFICATE:
    case CERTIFICATE_VERIFY:
    case FINISHED: return true;
    case ENCRYPTED_EXTENSIONS:
    case CERTIFICATE_REQUEST: return !is_server;
    default: return false;
    }
}

int llq_filter_messages(llq_conn *conn, ngtcp2_encryption_level level, const uint8_t *data, size_t length) {
    int index;
    switch (level) {
    case NGTCP2_ENCRYPTION_LEVEL_INITIAL: index = 0; break;
    case NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE: index = 1; break;
    case NGTCP2_ENCRYPTION_LEVEL_1RTT: index = 2; break;
    default: return GNUTLS_A_UNEXPECTED_MESSAGE;
    }
    // After the handshake nothing may come at the levels it used.
    if (index < 2 && length > 0 && ngtcp2_conn_get_handshake_completed(conn->conn)) return GNUTLS_A_UNEXPECTED_MESSAGE;
    llq_message_filter *filter = &conn->filters[index];
    while (length > 0) {
        if (filter->remaining > 0) {
            size_t part = filter->remaining < length ? filter->remaining : length;
            for (size_t i = 0; i < part && filter->body_offset < 4; i++, filter->body_offset++)
                filter->lifetime = filter->lifetime << 8 | data[i];
            // GnuTLS hands its hook only what it has left over of the message, so the lifetime is read here.
            if (index == 2 && filter->body_offset == 4) conn->ticket_lifetime = filter->lifetime;
            filter->remaining -= (uint32_t)part;
            data += part;
            length -= part;
            continue;
        }
        filter->header[filter->header_length++] = *data++;
        length--;
        uint8_t type = filter->header[0];
        if (filter->header_length == 1) {
            if (!is_allowed(conn->is_server, index, filter->finished, type)) return GNUTLS_A_UNEXPECTED_MESSAGE;
            if (type == FINISHED) filter->finished = true;
        }
        if (filter->header_length == 4) {
            filter->header_length = 0;
            filter->body_offset = filter->lifetime = 0;
            filter->remaining =
                (uint32_t)filter->header[1] << 16 | (uint32_t)filter->header[2] << 8 | filter->header[3];
            // GnuTLS holds a message in memory until it is complete.
            if (filter->remaining > 65536) return GNUTLS_A_UNEXPECTED_MESSAGE;
        }
    }
    return 0;
}
