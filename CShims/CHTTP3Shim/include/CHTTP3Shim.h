// QPACK (RFC 9204) of nghttp3, in calls that Swift can make: whole field sections in flat memory, no callbacks, and nothing
// that differs between nghttp3 0.8 and 1.x.
#ifndef CHTTP3SHIM_H
#define CHTTP3SHIM_H

#include <stddef.h>
#include <stdint.h>

// What a call came to. The failures end the connection (RFC 9204 section 6), but LLH3_TOO_LARGE, which ends its stream.
enum {
    LLH3_OK = 0,
    // The section refers to table entries that have not come yet; call again with the same section when some have.
    LLH3_BLOCKED = 1,
    // The section has more bytes, counted as RFC 9114 section 4.2.2 does, than were allowed.
    LLH3_TOO_LARGE = 2,
    LLH3_DECOMPRESSION_FAILED = -1,
    LLH3_ENCODER_STREAM_ERROR = -2,
    LLH3_DECODER_STREAM_ERROR = -3,
    LLH3_NO_MEMORY = -4,
};

// Of a field line.
enum {
    // Encoding: shall not enter the dynamic table; decoding: the peer asks the same of whoever passes the line on.
    LLH3_FIELD_NEVER_INDEX = 1,
    // Encoding: shall enter the dynamic table, also where the library wouldn't put it (nghttp3 1.x only).
    LLH3_FIELD_TRY_INDEX = 2,
    // Decoding: the name has a byte that RFC 9114 section 4.2 forbids, such as an uppercase letter.
    LLH3_FIELD_BAD_NAME = 4,
    // Decoding: the value has a byte that RFC 9110 section 5.5 forbids, such as a line feed.
    LLH3_FIELD_BAD_VALUE = 8,
    // Decoding: the name begins with a colon.
    LLH3_FIELD_PSEUDO = 16,
};

// One field line: name and value lie one behind the other in the section's bytes.
typedef struct {
    uint32_t name_length;
    uint32_t value_length;
    // nghttp3's number for the name, or -1; decoding only.
    int32_t token;
    uint32_t flags;
} llh3_field;

// Decoded field lines, reused from section to section.
typedef struct {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    llh3_field *fields;
    size_t count;
    size_t field_capacity;
} llh3_section;

void llh3_section_free(llh3_section *section);

// Encoding.
typedef struct llh3_encoder llh3_encoder;

// peer_capacity is SETTINGS_QPACK_MAX_TABLE_CAPACITY of the peer, own_capacity how much of it is used at most; 0: no dynamic
// table. NULL: no memory.
llh3_encoder *llh3_encoder_new(uint64_t peer_capacity, size_t own_capacity, size_t blocked_streams);
void llh3_encoder_free(llh3_encoder *encoder);
// Encodes a section. Its bytes are what llh3_encoder_prefix and then llh3_encoder_lines return, until the next call; what
// llh3_encoder_instructions returns belongs on the encoder stream.
int llh3_encoder_encode(
    llh3_encoder *encoder, int64_t stream, const uint8_t *bytes, const llh3_field *fields, size_t count);
const uint8_t *llh3_encoder_prefix(const llh3_encoder *encoder, size_t *length);
const uint8_t *llh3_encoder_lines(const llh3_encoder *encoder, size_t *length);
const uint8_t *llh3_encoder_instructions(const llh3_encoder *encoder, size_t *length);
// Takes bytes of the peer's decoder stream.
int llh3_encoder_read(llh3_encoder *encoder, const uint8_t *bytes, size_t length);
// Streams whose sections may wait for table entries at the peer.
size_t llh3_encoder_blocked_streams(llh3_encoder *encoder);

// Decoding.
typedef struct llh3_decoder llh3_decoder;
// A section that is being decoded, or waits.
typedef struct llh3_partial llh3_partial;

llh3_decoder *llh3_decoder_new(size_t capacity, size_t blocked_streams, size_t concurrent_streams);
void llh3_decoder_free(llh3_decoder *decoder);
// Takes bytes of the peer's encoder stream.
int llh3_decoder_read(llh3_decoder *decoder, const uint8_t *bytes, size_t length);
// Decodes a section, which is whole, into `into`, which is emptied before.
//   partial: NULL at first; what is left there with LLH3_BLOCKED is handed in again, or to llh3_decoder_cancel. Else it is
//            NULL afterwards.
//   limit:   bytes of names and values, with 32 for each line.
int llh3_decoder_decode(
    llh3_decoder *decoder, llh3_partial **partial, int64_t stream, const uint8_t *bytes, size_t length, size_t limit,
    llh3_section *into);
// The stream is given up: its sections that weren't decoded will not be (RFC 9204 section 2.2.2.2).
int llh3_decoder_cancel(llh3_decoder *decoder, llh3_partial **partial, int64_t stream);
// What belongs on the decoder stream; until the next call.
const uint8_t *llh3_decoder_instructions(llh3_decoder *decoder, size_t *length);

// Reads a Priority field value (RFC 9218). Urgency and incremental keep what they have where the value has none.
// Returns 0, or -1: not a dictionary.
int llh3_parse_priority(const uint8_t *bytes, size_t length, uint8_t *urgency, uint8_t *incremental);

// The version of nghttp3 in use, as text.
const char *llh3_version(void);

#endif
