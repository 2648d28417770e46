#ifndef LLQ_FRAME_READER_H
#define LLQ_FRAME_READER_H

#include <stdint.h>

/// What is left of a packet's payload.
typedef struct llq_reader {
    uint8_t *position;
    uint8_t *end;
} llq_reader;

// These return 0, or -1: the payload ends before.

int llq_read_varint(llq_reader *r, uint64_t *value);
int llq_skip_varints(llq_reader *r, int count);
int llq_skip(llq_reader *r, uint64_t count);
/// Is told of packet numbers that are acknowledged.
typedef void llq_ack_range(void *context, uint64_t first, uint64_t last);
/// What ngtcp2 takes of an ACK frame besides the first range: what is in others is sent again.
#define LLQ_ACK_RANGES 32
/// What an ACK frame says: the packet numbers at its ends, and how many gaps it has.
typedef struct llq_ack {
    uint64_t smallest, largest, gaps;
} llq_ack;
/// Reads an ACK frame after its type (RFC 9000 section 19.3). `range` is NULL or gets `context`, with the ranges that ngtcp2 takes.
int llq_read_ack(llq_reader *r, int ecn, llq_ack *ack, llq_ack_range *range, void *context);
static inline int llq_is_stream(uint64_t type) { return type >= 0x08 && type <= 0x0f; }
/// Reads over a STREAM frame after its type (RFC 9000 section 19.8).
int llq_read_stream(llq_reader *r, uint64_t type, uint64_t *stream_id, uint64_t *length);
/// Reads over a frame of a 1-RTT or 0-RTT packet, after its type. -1 also for a type that no such packet has.
int llq_skip_frame(llq_reader *r, uint64_t type);

#endif
