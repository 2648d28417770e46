// Frames of decrypted packets (RFC 9000 section 19), read where they lie.

#include "frame_reader.h"

#include <stddef.h>
#include <string.h>

int llq_read_varint(llq_reader *r, uint64_t *value) {
    if (r->position == r->end) return -1;
    size_t length = (size_t)1 << (*r->position >> 6);
    if ((size_t)(r->end - r->position) < length) return -1;
    uint64_t v = *r->position & 0x3f;
    for (size_t i = 1; i < length; i++) v = v << 8 | r->position[i];
    r->position += length;
    *value = v;
    return 0;
}

int llq_skip(llq_reader *r, uint64_t count) {
    if ((uint64_t)(r->end - r->position) < count) return -1;
    r->position += count;
    return 0;
}

int llq_skip_varints(llq_reader *r, int count) {
    uint64_t ignored;
    while (count-- > 0)
        if (llq_read_varint(r, &ignored)) return -1;
    return 0;
}

/// Often most of a packet: eight bytes at a time.
static void skip_padding(llq_reader *r) {
    uint64_t word;
    for (; (size_t)(r->end - r->position) >= sizeof word; r->position += sizeof word) {
        memcpy(&word, r->position, sizeof word);
        if (word != 0) break;
    }
    while (r->position < r->end && *r->position == 0) r->position++;
}

static int skip_prefixed(llq_reader *r) {
    uint64_t length;
    return llq_read_varint(r, &length) ? -1 : llq_skip(r, length);
}

int llq_read_ack(llq_reader *r, int ecn, llq_ack *ack, llq_ack_range *range, void *context) {
    uint64_t gap, length;
    // Largest acknowledged, delay, range count, first range.
    if (llq_read_varint(r, &ack->largest) || llq_skip_varints(r, 1) || llq_read_varint(r, &ack->gaps) ||
        llq_read_varint(r, &length) || length > ack->largest)
        return -1;
    uint64_t first = ack->largest - length;
    if (range) range(context, first, ack->largest);
    for (uint64_t i = 0; i < ack->gaps; i++) {
        if (llq_read_varint(r, &gap) || llq_read_varint(r, &length) || gap + 2 + length > first) return -1;
        uint64_t last = first - gap - 2;
        first = last - length;
        if (range && i < LLQ_ACK_RANGES) range(context, first, last);
    }
    ack->smallest = first;
    return ecn ? llq_skip_varints(r, 3) : 0;
}

int llq_read_stream(llq_reader *r, uint64_t type, uint64_t *stream_id, uint64_t *length) {
    if (llq_read_varint(r, stream_id) || (type & 0x04 && llq_skip_varints(r, 1))) return -1;
    if (type & 0x02) {
        if (llq_read_varint(r, length)) return -1;
    } else {
        *length = (uint64_t)(r->end - r->position);
    }
    return llq_skip(r, *length);
}

int llq_skip_frame(llq_reader *r, uint64_t type) {
    uint64_t ignored, others;
    llq_ack ack;
    switch (type) {
    case 0x00: skip_padding(r); return 0;
    case 0x01: // PING
    case 0x1e: // HANDSHAKE_DONE
        return 0;
    case 0x02:
    case 0x03: return llq_read_ack(r, type == 0x03, &ack, NULL, NULL);
    case 0x04: return llq_skip_varints(r, 3); // RESET_STREAM
    case 0x06: return llq_skip_varints(r, 1) || skip_prefixed(r) ? -1 : 0; // CRYPTO
    case 0x07: return skip_prefixed(r); // NEW_TOKEN
    case 0x10: // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID
    case 0x12:
    case 0x13:
    case 0x14:
    case 0x16:
    case 0x17:
    case 0x19: return llq_skip_varints(r, 1);
    case 0x05: // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
    case 0x11:
    case 0x15: return llq_skip_varints(r, 2);
    case 0x18: // NEW_CONNECTION_ID: an ID with its length, and a reset token
        if (llq_skip_varints(r, 2) || r->position == r->end) return -1;
        return llq_skip(r, (uint64_t)1 + *r->position + 16);
    case 0x1a: // PATH_CHALLENGE, PATH_RESPONSE
    case 0x1b: return llq_skip(r, 8);
    case 0x1c: return llq_skip_varints(r, 2) || skip_prefixed(r) ? -1 : 0; // CONNECTION_CLOSE
    case 0x1d: return llq_skip_varints(r, 1) || skip_prefixed(r) ? -1 : 0;
    case 0x30: // DATAGRAM to the end
        r->position = r->end;
        return 0;
    case 0x31: return skip_prefixed(r);
    default: return llq_is_stream(type) ? llq_read_stream(r, type, &ignored, &others) : -1;
    }
}
