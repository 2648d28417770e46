// A CONNECTION_CLOSE is repeated in no more than three times the bytes that came (RFC 9000 section 10.2.1), which for one with a reason
// may take more packets than a peer sends that waits for answers. ngtcp2 writes one for a connection and no more packets behind it.
// Beside it another is made here, from what ngtcp2 hands to packet protection: without the reason, and with the next number, which
// nothing else can have. Only 1-RTT packets have reasons.
//
// Until the handshake is confirmed, the datagram has packets for a peer without 1-RTT keys, too (RFC 9000 section 10.2.3), and none is
// made in its place: a 1-RTT packet alone would say nothing to that peer.

#include "packet_protection.h"

#include <string.h>

// A short header with the longest connection ID and number; the frame; the tag.
enum { NONCE_LENGTH = 12, TAG_LENGTH = 16, MAX_HEADER = 25, MAX_FRAME = 11 };
_Static_assert(MAX_HEADER + MAX_FRAME + TAG_LENGTH <= LLQ_BRIEF_CLOSE_LENGTH, "it fits");

static size_t write_frame(uint8_t *frame, const llq_close *close) {
    size_t length = 0;
    frame[length++] = close->kind == LLQ_CLOSE_APPLICATION ? 0x1d : 0x1c;
    for (int shift = 56; shift >= 0; shift -= 8) frame[length++] = (uint8_t)(close->code >> shift);
    frame[1] |= 0xc0;
    // No frame is to blame, and there is no reason.
    if (close->kind != LLQ_CLOSE_APPLICATION) frame[length++] = 0;
    frame[length++] = 0;
    return length;
}

void llq_brief_seal(llq_conn *conn, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                    const uint8_t *nonce, size_t nonce_length, const uint8_t *header, size_t header_length) {
    llq_brief_close *brief = conn->brief;
    size_t count = (size_t)(header[0] & 3) + 1;
    if (header_length <= count || header_length > MAX_HEADER || nonce_length != NONCE_LENGTH) return;
    uint64_t number = conn->next_packet - 1, next = conn->next_packet;
    memcpy(brief->bytes, header, header_length);
    for (size_t i = 0; i < count; i++) brief->bytes[header_length - 1 - i] = (uint8_t)(next >> 8 * i);
    // The number is part of the nonce by exclusive or (RFC 9001 section 5.3).
    uint8_t own_nonce[NONCE_LENGTH];
    memcpy(own_nonce, nonce, sizeof own_nonce);
    for (size_t i = 0; i < 8; i++) own_nonce[NONCE_LENGTH - 1 - i] ^= (uint8_t)((number ^ next) >> 8 * i);
    uint8_t frame[MAX_FRAME];
    size_t length = write_frame(frame, brief->close);
    if (llq_seal(brief->bytes + header_length, aead, aead_ctx, frame, length, own_nonce, sizeof own_nonce, brief->bytes,
                 header_length) != 0)
        return;
    brief->number_offset = header_length - count;
    brief->sealed_length = header_length + length + TAG_LENGTH;
}

void llq_brief_mask(llq_conn *conn, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *hp_ctx) {
    llq_brief_close *brief = conn->brief;
    if (brief->sealed_length == 0 || brief->length > 0) return;
    uint8_t mask[32];
    uint8_t *number = brief->bytes + brief->number_offset;
    size_t count = (size_t)(brief->bytes[0] & 3) + 1;
    if (llq_mask(mask, hp, hp_ctx, number + 4) != 0) return;
    // RFC 9001 section 5.4.1.
    brief->bytes[0] ^= mask[0] & 0x1f;
    for (size_t i = 0; i < count; i++) number[i] ^= mask[1 + i];
    brief->length = brief->sealed_length;
}
