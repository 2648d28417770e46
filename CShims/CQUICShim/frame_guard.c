// ngtcp2 0.12 aborts the process when NEW_CONNECTION_ID names a sequence number below the retire threshold that it knew
// before and whose retirement is not yet acknowledged; an honest late retransmission can do that. The guard reads
// each decrypted packet first and turns such a frame into PING and PADDING: never PADDING alone, because the packet must
// stay ack-eliciting or the peer would send it for ever.
//
// The guard sees what ngtcp2 sees only as long as both read a packet alike. ngtcp2 takes any type with the bit 0x08 that it does
// not know for STREAM, and skips the ranges of an ACK frame that it has no room for without a check, so that frames behind
// such a one would pass unseen. Where the guard can't go on it leaves a type that ngtcp2 refuses, too.
//
// ngtcp2 0.12 doesn't look at a STREAM_DATA_BLOCKED frame's stream, which may be one that there can't be. A STREAM frame without
// data takes its place: it opens the same streams, breaks the same rules, and does nothing else (RFC 9000 section 19.13).
//
// It runs on packets that ngtcp2 then discards as duplicates too; what it remembers doesn't mind repetition.

#include "CQUICShim.h"
#include "frame_reader.h"

#include <string.h>

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
static int inspect_new_cid(llq_frame_guard *guard, llq_reader *r, uint8_t *start, int contain) {
    uint64_t sequence, retire_prior_to;
    if (llq_read_varint(r, &sequence) || llq_read_varint(r, &retire_prior_to) || r->position == r->end) return -1;
    uint8_t length = *r->position++;
    if (length < 1 || length > LLQ_MAX_CID_LENGTH || retire_prior_to > sequence) return -1;
    if (llq_skip(r, (uint64_t)length + LLQ_RESET_TOKEN_LENGTH)) return -1;
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

/// Reads a STREAM_DATA_BLOCKED frame after its type.
static int replace_blocked(llq_reader *r, uint8_t *start, int contain) {
    if (llq_skip_varints(r, 1)) return -1;
    uint8_t *limit = r->position;
    if (llq_skip_varints(r, 1)) return -1;
    if (!contain) return 0;
    // The limit becomes the length, and PADDING.
    *start = 0x0a;
    memset(limit, 0, (size_t)(r->position - limit));
    return 0;
}

static int tell_stop(llq_reader *r, const llq_guard_listener *listener) {
    uint64_t stream_id, code;
    if (llq_read_varint(r, &stream_id) || llq_read_varint(r, &code)) return -1;
    if (listener->stop) listener->stop(listener->context, stream_id, code);
    return 0;
}

static int note_ack(llq_frame_guard *guard, llq_reader *r, int ecn, const llq_guard_listener *listener) {
    llq_ack ack;
    if (llq_read_ack(r, ecn, &ack, listener->acknowledged, listener->context)) return -1;
    // A packet is left out, perhaps behind those that the peer no longer tells of: it may be lost, and what it had is sent again.
    if (ack.gaps > 0 || ack.smallest > guard->acked_to) guard->is_ordinary = 0;
    if (ack.largest >= guard->acked_to) guard->acked_to = ack.largest + 1;
    return 0;
}

static int note_response(llq_frame_guard *guard, llq_reader *r) {
    const uint8_t *data = r->position;
    if (llq_skip(r, LLQ_GUARD_RESPONSE_LENGTH)) return -1;
    if (guard->response_count < LLQ_GUARD_RESPONSES)
        memcpy(guard->responses[guard->response_count++], data, LLQ_GUARD_RESPONSE_LENGTH);
    return 0;
}

/// Frames that want no answer but the acknowledgement: ACK, the limits of what may be sent, STREAM, DATAGRAM, PADDING.
static int is_ordinary(uint8_t type) {
    return type == 0x00 || type == 0x02 || type == 0x03 || (0x10 <= type && type <= 0x13) || llq_is_stream(type) ||
           type == 0x30 || type == 0x31;
}

/// A type that is nobody's: ngtcp2 closes the connection with FRAME_ENCODING_ERROR (RFC 9000 section 12.4).
#define UNKNOWN_FRAME 0x20

size_t llq_guard_inspect(llq_frame_guard *guard, uint8_t *plaintext, size_t length, int contain,
                         const llq_guard_listener *listener) {
    llq_reader r = {plaintext, plaintext + length};
    size_t overwritten = 0;
    guard->challenge_count = 0;
    guard->response_count = 0;
    guard->is_probing = 1;
    guard->is_eliciting = 0;
    guard->is_ordinary = 1;
    while (r.position < r.end) {
        uint8_t *start = r.position;
        // All types that are known have one byte; ngtcp2 looks at no more of them.
        uint8_t type = *r.position++;
        int rv;
        // PADDING, NEW_CONNECTION_ID, PATH_CHALLENGE, PATH_RESPONSE.
        if (type != 0x00 && type != 0x18 && type != 0x1a && type != 0x1b) guard->is_probing = 0;
        // PADDING, ACK, CONNECTION_CLOSE (RFC 9002 section 2).
        if (type != 0x00 && type != 0x02 && type != 0x03 && type != 0x1c && type != 0x1d) guard->is_eliciting = 1;
        if (!is_ordinary(type)) guard->is_ordinary = 0;
        switch (type) {
        case 0x02:
        case 0x03: rv = note_ack(guard, &r, type == 0x03, listener); break;
        case 0x05: rv = tell_stop(&r, listener); break;
        case 0x15: rv = replace_blocked(&r, start, contain); break;
        case 0x18:
            rv = inspect_new_cid(guard, &r, start, contain);
            if (rv > 0) overwritten++;
            break;
        case 0x1b: rv = note_response(guard, &r); break;
        case 0x1a: guard->challenge_count++; // fall through
        default: rv = llq_skip_frame(&r, type);
        }
        if (rv < 0) {
            *start = UNKNOWN_FRAME;
            break;
        }
    }
    return overwritten;
}

int llq_guard_is_too_early(uint8_t *plaintext, size_t length, int has_preferred_address) {
    llq_reader r = {plaintext, plaintext + length};
    while (r.position < r.end) {
        uint8_t type = *r.position++;
        if (type == 0x1e) return 1;
        if (type == 0x18) {
            llq_reader frame = r;
            uint64_t sequence, retire_prior_to;
            if (llq_read_varint(&frame, &sequence) || llq_read_varint(&frame, &retire_prior_to)) return 0;
            if (retire_prior_to > 0 || (has_preferred_address && sequence == 1)) return 1;
        }
        // Of a frame that can't be read ngtcp2 takes nothing, nor of those behind it.
        if (llq_skip_frame(&r, type)) return 0;
    }
    return 0;
}
