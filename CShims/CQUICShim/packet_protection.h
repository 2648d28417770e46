// A second implementation of packet protection beside GnuTLS's, on intel-ipsec-mb. Its keys hide behind the same ngtcp2
// handles, marked by their lowest bit, which no pointer of GnuTLS has.
#ifndef LLQ_PACKET_PROTECTION_H
#define LLQ_PACKET_PROTECTION_H

#include "internal.h"

/// Whether it is built in and this CPU has what makes it worth having.
bool llq_mb_available(void);

/// A key for AES-128-GCM or AES-256-GCM, for header protection; NULL: no memory.
void *llq_mb_aead_new(const uint8_t *key, size_t key_length);
void *llq_mb_mask_new(const uint8_t *key, size_t key_length);
void llq_mb_free(void *handle);

static inline bool llq_mb_owns(const void *handle) { return ((uintptr_t)handle & 1) != 0; }

/// `destination` takes 16 bytes more than the plaintext, and may be the plaintext. 0, or -1: no memory.
int llq_mb_seal(const void *handle, uint8_t *destination, const uint8_t *plaintext, size_t length,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_length);
/// 0, or -1 when the tag is wrong or there is no memory; then what stands in `destination` is worthless.
int llq_mb_open(const void *handle, uint8_t *destination, const uint8_t *ciphertext, size_t length,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_length);
void llq_mb_mask(const void *handle, uint8_t *mask, const uint8_t *sample);

/// Protects a packet, or its header, whoever has the key. 0, or an error.
int llq_seal(uint8_t *destination, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
             const uint8_t *plaintext, size_t length, const uint8_t *nonce, size_t nonce_length, const uint8_t *aad,
             size_t aad_length);
int llq_mask(uint8_t *destination, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *hp_ctx,
             const uint8_t *sample);

/// While a CONNECTION_CLOSE is written: makes the brief one beside it, of a 1-RTT packet; see brief_close.c.
void llq_brief_seal(llq_conn *conn, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                    const uint8_t *nonce, size_t nonce_length, const uint8_t *header, size_t header_length);
/// Protects its header, as ngtcp2 does the other's.
void llq_brief_mask(llq_conn *conn, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *hp_ctx);

/// Takes over the session's 1-RTT secrets if the connection is to use this implementation.
void llq_protection_configure(llq_conn *conn);

#endif
