// ngtcp2 0.12 aborts the process when NEW_CONNECTION_ID names a sequence number below the retire threshold that it knew
// before and whose retirement is not yet acknowledged; an honest late retransmission can do that. The guard reads
// each decrypted packet first and turns such a frame into PING and PADDING: never PADDING alone, because the packet must
// stay ack-eliciting or the peer would send it for ever.
//
// It runs on packets that ngtcp2 then discards as duplicates too; what it remembers doesn't mind repetition.

#include "CQUICShim.h"

#include <string.h>

typedef struct reader {
    uint8_t *position;
    uint8_t *end;
} reader;

static int read_varint(reader *r, uint64_t *value) {
    if (r->position == r->end) return -1;
    size_t length = (size_t)1 << (*r->position >> 6);
    if ((size_t)(r->end - r->position) < length) return -1;
    uint64_t v = *r->position & 0x3f;
    for (size_t i = 1; i < length; i++) v = v << 8 | r->position[i];
    r->position += length;
    *value = v;
    return 0;
}

static int skip(reader *r, uint64_t count) {
    if ((uint64_t)(r->end - r->position) < count) return -1;
    r->position += count;
    return 0;
}

static int skip_varints(reader *r, int count) {
    uint64_t ignored;
    while (count-- > 0)
        if (read_varint(r, &ignored)) return -1;
    return 0;
}

static int skip_prefixed(reader *r) {
    uint64_t length;
    return read_varint(r, &length) ? -1 : skip(r, length);
}

static int skip_ack(reader *r, int ecn) {
    uint64_t ranges;
    // Largest acknowledged, delay, range count, first range.
    if (skip_varints(r, 2) || read_varint(r, &ranges) || skip_varints(r, 1)) return -1;
    while (ranges-- > 0)
        if (skip_varints(r, 2)) return -1;
    return ecn ? skip_varints(r, 3) : 0;
}

static int skip_stream(reader *r, uint64_t type) {
    if (skip_varints(r, type & 0x04 ? 2 : 1)) return -1;
    if (type & 0x02) return skip_prefixed(r);
    r->position = r->end;
    return 0;
}

void llq_guard_init(llq_frame_guard *guard) {
    memset(guard, 0, sizeof *guard);
    guard->count = 1; // sequence number 0 is the handshake's
}

static int is_known(const llq_frame_guard *guard, uint64_t sequence) {
    for (size_t i = 0; i < guard->count; i++)
        if (guard->known[i].first <= sequence && sequence <= guard->known[i].last) return 1;
    return 0;
}

static void remove_range(llq_frame_guard *guard, size_t index) {
    memmove(&guard->known[index], &guard->known[index + 1], (guard->count - index - 1) * sizeof guard->known[0]);
    guard->count--;
}

static void remember(llq_frame_guard *guard, uint64_t sequence) {
    if (is_known(guard, sequence)) return;
    if (guard->count == LLQ_GUARD_RANGES) {
        // No honest peer leaves so many gaps. The lowest gap is taken as known: its frames are ignored.
        guard->known[0].last = guard->known[1].last;
        remove_range(guard, 1);
        if (is_known(guard, sequence)) return;
    }
    size_t index = 0;
    while (index < guard->count && guard->known[index].first < sequence) index++;
    if (index > 0 && guard->known[index - 1].last + 1 == sequence) {
        guard->known[index - 1].last = sequence;
        index--;
    } else {
        memmove(&guard->known[index + 1], &guard->known[index], (guard->count - index) * sizeof guard->known[0]);
        guard->known[index].first = guard->known[index].last = sequence;
        guard->count++;
    }
    if (index + 1 < guard->count && guard->known[index].last + 1 == guard->known[index + 1].first) {
        guard->known[index].last = guard->known[index + 1].last;
        remove_range(guard, index + 1);
    }
}

static void remove_spare(llq_frame_guard *guard, size_t index) {
    guard->spare[index] = guard->spare[--guard->spare_count];
}

void llq_guard_note_active(llq_frame_guard *guard, uint64_t sequence) {
    for (size_t i = guard->spare_count; i-- > 0;)
        if (guard->spare[i] == sequence) remove_spare(guard, i);
}

static void raise_threshold(llq_frame_guard *guard, uint64_t retire_prior_to) {
    guard->retire_prior_to = retire_prior_to;
    for (size_t i = guard->spare_count; i-- > 0;)
        if (guard->spare[i] < retire_prior_to) remove_spare(guard, i);
}

void llq_guard_know(llq_frame_guard *guard, uint64_t sequence) {
    if (!is_known(guard, sequence) && guard->spare_count < LLQ_GUARD_SPARES)
        guard->spare[guard->spare_count++] = sequence;
    remember(guard, sequence);
}

/// Reads a NEW_CONNECTION_ID frame after its type; 1 if it was overwritten, -1 if it is malformed.
static int inspect_new_cid(llq_frame_guard *guard, reader *r, uint8_t *start, int contain) {
    uint64_t sequence, retire_prior_to;
    if (read_varint(r, &sequence) || read_varint(r, &retire_prior_to) || r->position == r->end) return -1;
    uint8_t length = *r->position++;
    if (length < 1 || length > LLQ_MAX_CID_LENGTH || retire_prior_to > sequence) return -1;
    if (skip(r, (uint64_t)length + LLQ_RESET_TOKEN_LENGTH)) return -1;
    int known = is_known(guard, sequence);
    int overwrite = sequence < guard->retire_prior_to && known;
    remember(guard, sequence);
    if (!known && sequence >= guard->retire_prior_to && guard->spare_count < LLQ_GUARD_SPARES)
        guard->spare[guard->spare_count++] = sequence;
    if (retire_prior_to > guard->retire_prior_to) raise_threshold(guard, retire_prior_to);
    if (!overwrite || !contain) return 0;
    memset(start, 0, (size_t)(r->position - start));
    *start = 0x01;
    return 1;
}

static int note_stop(llq_frame_guard *guard, reader *r) {
    uint64_t stream_id, code;
    if (read_varint(r, &stream_id) || read_varint(r, &code)) return -1;
    if (guard->stop_count < LLQ_GUARD_STOPS) {
        guard->stops[guard->stop_count].stream_id = stream_id;
        guard->stops[guard->stop_count++].code = code;
    }
    return 0;
}

size_t llq_guard_inspect(llq_frame_guard *guard, uint8_t *plaintext, size_t length, int contain) {
    reader r = {plaintext, plaintext + length};
    size_t overwritten = 0;
    guard->stop_count = 0;
    while (r.position < r.end) {
        uint8_t *start = r.position;
        uint64_t type;
        int rv = 0;
        if (read_varint(&r, &type)) break;
        switch (type) {
        case 0x00: // PADDING, often most of a packet
            while (r.position < r.end && *r.position == 0) r.position++;
            break;
        case 0x01: // PING
        case 0x1e: // HANDSHAKE_DONE
            break;
        case 0x02:
        case 0x03: rv = skip_ack(&r, type == 0x03); break;
        case 0x04: rv = skip_varints(&r, 3); break; // RESET_STREAM
        case 0x05: rv = note_stop(guard, &r); break; // STOP_SENDING
        case 0x06: rv = skip_varints(&r, 1) || skip_prefixed(&r); break; // CRYPTO
        case 0x07: rv = skip_prefixed(&r); break; // NEW_TOKEN
        case 0x10: // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID
        case 0x12:
        case 0x13:
        case 0x14:
        case 0x16:
        case 0x17:
        case 0x19: rv = skip_varints(&r, 1); break;
        case 0x11: // MAX_STREAM_DATA, STREAM_DATA_BLOCKED
        case 0x15: rv = skip_varints(&r, 2); break;
        case 0x18:
            rv = inspect_new_cid(guard, &r, start, contain);
            if (rv > 0) overwritten++;
            break;
        case 0x1a: // PATH_CHALLENGE, PATH_RESPONSE
        case 0x1b: rv = skip(&r, 8); break;
        case 0x1c: rv = skip_varints(&r, 2) || skip_prefixed(&r); break; // CONNECTION_CLOSE
        case 0x1d: rv = skip_varints(&r, 1) || skip_prefixed(&r); break;
        case 0x30: return overwritten; // DATAGRAM to the end
        case 0x31: rv = skip_prefixed(&r); break;
        default:
            if (type < 0x08 || type > 0x0f) return overwritten; // unknown: ngtcp2 closes
            rv = skip_stream(&r, type);
        }
        // `rv` is -1 or a truth value for malformed; ngtcp2 closes the connection at this frame. Only 0x18 returns 1
        // for something else.
        if (rv != 0 && type != 0x18) break;
        if (rv < 0) break;
    }
    return overwritten;
}
