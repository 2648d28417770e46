// ngtcp2, 0.12 and 1.11 alike, writes transport parameters into a qlog record of 1,024 bytes on its stack and doesn't look
// at the end. A server's can be longer: with a preferred address, a Retry and long connection IDs, some of which the
// client chooses, even an honest one's. So their length is found first.

#include "internal.h"

// A record with every parameter present, all connection IDs empty, and the numbers below left out; the time since the
// connection's start takes up to 13 digits more.
enum { RECORD = 1024, FIXED = 828, TIME = 13 };

static size_t digits(uint64_t value) {
    size_t count = 1;
    for (; value >= 10; value /= 10) count++;
    return count;
}

bool llq_qlog_fits(const ngtcp2_transport_params *p, size_t initial_scid_length) {
    // What else there is takes 950 bytes at most.
    if (!p->preferred_addr_present) return true;
    size_t ids = initial_scid_length + p->original_dcid.datalen + p->retry_scid.datalen + p->preferred_addr.cid.datalen;
    size_t numbers = digits(p->max_idle_timeout / 1000000) + digits(p->max_udp_payload_size) +
                     digits(p->ack_delay_exponent) + digits(p->max_ack_delay / 1000000) +
                     digits(p->active_connection_id_limit) + digits(p->initial_max_data) +
                     digits(p->initial_max_stream_data_bidi_local) + digits(p->initial_max_stream_data_bidi_remote) +
                     digits(p->initial_max_stream_data_uni) + digits(p->initial_max_streams_bidi) +
                     digits(p->initial_max_streams_uni) + digits(p->max_datagram_frame_size);
    return FIXED + TIME + 2 * ids + numbers <= RECORD;
}

bool llq_qlog_takes(const uint8_t *message, size_t length) {
    // EncryptedExtensions: a length, then type, length and body of each (RFC 8446 section 4.3.1).
    if (length < 2) return true;
    const uint8_t *p = message + 2, *end = message + length;
    while (end - p >= 4) {
        size_t type = (size_t)p[0] << 8 | p[1], size = (size_t)p[2] << 8 | p[3];
        p += 4;
        if ((size_t)(end - p) < size) break;
        if (type == 0x39) {
            ngtcp2_transport_params params;
#if LLQ_NGTCP2_1
            int rv = ngtcp2_transport_params_decode(&params, p, size);
#else
            int rv = ngtcp2_decode_transport_params(&params, NGTCP2_TRANSPORT_PARAMS_TYPE_ENCRYPTED_EXTENSIONS, p, size);
#endif
            // What can't be read ngtcp2 refuses by itself.
            return rv != 0 || llq_qlog_fits(&params, params.initial_scid.datalen);
        }
        p += size;
    }
    return true;
}
