/// Packets that belong to no connection, address tokens, and stateless reset tokens.
#ifndef LLQ_PACKETS_H
#define LLQ_PACKETS_H

#include "llq_types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LLQ_PACKET_INVALID = 0,
    LLQ_PACKET_SHORT = 1,
    LLQ_PACKET_LONG = 2,
    LLQ_PACKET_UNSUPPORTED_VERSION = 3,
    /// Connection IDs of more than LLQ_MAX_CID_LENGTH bytes, which are for other versions than ngtcp2's to have: belongs
    /// to no connection.
    LLQ_PACKET_OVERLONG_IDS = 4,
};

/// What a datagram that begins a connection, or may ask for other versions, has at least (RFC 9000 section 14.1).
#define LLQ_MIN_INITIAL_SIZE 1200

typedef struct llq_header {
    int kind;
    uint32_t version;
    llq_cid dcid;
    llq_cid scid;
    // Long headers: the IDs as they lie in the packet, up to 255 bytes (RFC 8999 section 5.1).
    const uint8_t *dcid_bytes;
    const uint8_t *scid_bytes;
    size_t dcid_length;
    size_t scid_length;
} llq_header;

/// Reads what routing needs; `cid_length` is the length of our own connection IDs. `dcid` and `scid` are empty in a packet
/// with IDs that are too long for them.
void llq_decode(llq_header *header, const uint8_t *packet, size_t length, size_t cid_length);

typedef struct llq_initial {
    uint32_t version;
    llq_cid dcid;
    llq_cid scid;
    const uint8_t *token;
    size_t token_length;
} llq_initial;

/// Whether a packet may start a connection: a client's Initial in a datagram of full size. Returns 0 if so.
int llq_accept(llq_initial *initial, const uint8_t *packet, size_t length);

/// Answers a packet, whose bytes must still be there. Negative if it doesn't fit.
ssize_t llq_write_version_negotiation(uint8_t *destination, size_t capacity, uint8_t random, const llq_header *header,
                                      const uint32_t *versions, size_t count);
ssize_t llq_write_retry(uint8_t *destination, size_t capacity, uint32_t version, const llq_cid *dcid,
                        const llq_cid *scid, const llq_cid *original_dcid, const uint8_t *token, size_t token_length);
/// Refuses a connection without keeping state.
ssize_t llq_write_refusal(uint8_t *destination, size_t capacity, uint32_t version, const llq_cid *dcid,
                          const llq_cid *scid, uint64_t code);
ssize_t llq_write_stateless_reset(uint8_t *destination, size_t capacity, const uint8_t *token, const uint8_t *random,
                                  size_t random_length);
/// Makes the stateless reset tokens of connection IDs (RFC 9000 section 10.3.2): of one secret and server always the same
/// ones. Not thread-safe.
typedef struct llq_reset_key llq_reset_key;
/// `server`: which of those that share the secret it is, at most LLQ_MAX_CID_LENGTH bytes; empty: nobody says. NULL: the TLS
/// library failed.
llq_reset_key *llq_reset_key_new(const uint8_t *secret, size_t length, const uint8_t *server, size_t server_length);
void llq_reset_key_free(llq_reset_key *key);
/// Writes LLQ_RESET_TOKEN_LENGTH bytes. 0 on success.
int llq_reset_token(llq_reset_key *key, uint8_t *token, const llq_cid *cid);

#define LLQ_MAX_TOKEN_LENGTH 256
enum { LLQ_TOKEN_NONE = 0, LLQ_TOKEN_RETRY = 1, LLQ_TOKEN_REGULAR = 2 };
int llq_token_kind(const uint8_t *token, size_t length);
ssize_t llq_retry_token(uint8_t *token, const uint8_t *secret, size_t secret_length, uint32_t version,
                        const llq_address *remote, const llq_cid *retry_scid, const llq_cid *original_dcid,
                        uint64_t now);
int llq_verify_retry_token(llq_cid *original_dcid, const uint8_t *token, size_t length, const uint8_t *secret,
                           size_t secret_length, uint32_t version, const llq_address *remote, const llq_cid *dcid,
                           uint64_t timeout, uint64_t now);
/// A token for connections of this QUIC version only (RFC 9369 section 5).
ssize_t llq_regular_token(uint8_t *token, const uint8_t *secret, size_t secret_length, uint32_t version,
                          const llq_address *remote, uint64_t now);
int llq_verify_regular_token(const uint8_t *token, size_t length, const uint8_t *secret, size_t secret_length,
                             uint32_t version, const llq_address *remote, uint64_t timeout, uint64_t now);

#ifdef __cplusplus
}
#endif

#endif
