/// Packet protection: which implementations there are, and AES-GCM with its header protection by themselves, as
/// connections use them, for tests and measurements.
#ifndef LLQ_PROTECTION_H
#define LLQ_PROTECTION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LLQ_PROTECTION_AUTOMATIC = 0, LLQ_PROTECTION_GNUTLS = 1, LLQ_PROTECTION_IPSEC_MB = 2 };

/// Whether an implementation of packet protection is built in and this CPU has what it needs.
int llq_protection_available(int protection);
/// The one that `protection` comes to here. LONGLINE_PACKET_PROTECTION=gnutls in the environment rules intel-ipsec-mb out
/// where the choice is automatic.
int llq_protection_resolve(int protection);

typedef struct llq_protector llq_protector;
/// `key_length` is 16 or 32, of both keys. NULL: not available.
llq_protector *llq_protector_new(int protection, size_t key_length, const uint8_t *key, const uint8_t *mask_key);
void llq_protector_free(llq_protector *protector);
/// Writes 16 bytes more than `length`. The nonce has 12 bytes.
int llq_protector_seal(const llq_protector *protector, uint8_t *destination, const uint8_t *plaintext, size_t length,
                       const uint8_t *nonce, const uint8_t *aad, size_t aad_length);
/// Writes 16 bytes less than `length`; not 0: the tag is wrong.
int llq_protector_open(const llq_protector *protector, uint8_t *destination, const uint8_t *ciphertext, size_t length,
                       const uint8_t *nonce, const uint8_t *aad, size_t aad_length);
/// Five bytes of mask for a sample of 16.
int llq_protector_mask(const llq_protector *protector, uint8_t *mask, const uint8_t *sample);

/// Whether a packet is read whose header ends with the lowest bytes of its number, where `expected` is the largest number so far and
/// one. Exposed for its tests.
int llq_number_is_read(uint64_t expected, const uint8_t *header, size_t length);

#ifdef __cplusplus
}
#endif

#endif
