/// Reads the frames of decrypted packets before ngtcp2 does; exposed for its tests. Only 0.12.x needs what is withheld from
/// it; what the guard tells of STOP_SENDING every version needs, because ngtcp2 answers that frame by itself and reports
/// it to nobody.
#ifndef LLQ_FRAME_GUARD_H
#define LLQ_FRAME_GUARD_H

#include "llq_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LLQ_GUARD_RANGES 32
#define LLQ_GUARD_SPARES 8
#define LLQ_GUARD_RESPONSES 4
#define LLQ_GUARD_RESPONSE_LENGTH 8
typedef struct llq_frame_guard {
    uint64_t retire_prior_to;
    size_t count;
    struct { uint64_t first, last; } known[LLQ_GUARD_RANGES];
    /// The peer's IDs that no path has taken yet, as far as ngtcp2 keeps them.
    size_t spare_count;
    uint64_t spare[LLQ_GUARD_SPARES];
    /// PATH_CHALLENGE frames of that packet.
    size_t challenge_count;
    /// Whether that packet has probing frames only (RFC 9000 section 9.1).
    int is_probing;
    /// Whether that packet is to be acknowledged.
    int is_eliciting;
    /// Whether it wants no other answer, and tells of no loss.
    int is_ordinary;
    /// PATH_RESPONSE frames of that packet.
    size_t response_count;
    uint8_t responses[LLQ_GUARD_RESPONSES][LLQ_GUARD_RESPONSE_LENGTH];
    /// One more than the largest packet number that the peer acknowledged; 0: none yet.
    uint64_t acked_to;
} llq_frame_guard;

void llq_guard_init(llq_frame_guard *guard);
/// A path took one of the peer's IDs.
void llq_guard_note_active(llq_frame_guard *guard, uint64_t sequence);
/// A sequence number that the handshake told: that of the preferred address.
void llq_guard_know(llq_frame_guard *guard, uint64_t sequence);
/// Who is told of what a packet has; NULL: nobody.
typedef struct llq_guard_listener {
    /// A STOP_SENDING frame.
    void (*stop)(void *context, uint64_t stream_id, uint64_t code);
    /// Packet numbers that an ACK frame acknowledges.
    void (*acknowledged)(void *context, uint64_t first, uint64_t last);
    void *context;
} llq_guard_listener;
/// Reads the frames of a decrypted 1-RTT or 0-RTT packet and, if `contain`, overwrites NEW_CONNECTION_ID frames ngtcp2
/// 0.12 would abort on; returns how many. STREAM_DATA_BLOCKED, of which it checks nothing, becomes STREAM without data then.
/// A frame that is malformed or unknown becomes one that ngtcp2 closes the connection at: nothing behind it is read.
size_t llq_guard_inspect(llq_frame_guard *guard, uint8_t *plaintext, size_t length, int contain,
                         const llq_guard_listener *listener);
/// Whether a decrypted 1-RTT packet has what ngtcp2's client can't take until it has written behind the handshake's end:
/// HANDSHAKE_DONE, NEW_CONNECTION_ID that retires an ID, or one with the number that a server's preferred address has.
int llq_guard_is_too_early(uint8_t *plaintext, size_t length, int has_preferred_address);

#ifdef __cplusplus
}
#endif

#endif
