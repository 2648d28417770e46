// Packet protection: the seam where a faster AEAD can take the place of GnuTLS's.

#include "internal.h"

#include <string.h>

int llq_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                const uint8_t *plaintext, size_t plaintextlen, const uint8_t *nonce, size_t noncelen,
                const uint8_t *aad, size_t aadlen) {
    llq_conn *conn = llq_current();
    // The key phase bit of a short header.
    if (conn && aadlen > 0 && !(aad[0] & 0x80) && (aad[0] & 0x04) != (conn->key_phase ? 0x04 : 0)) {
        conn->key_phase = !conn->key_phase;
        conn->key_updates++;
    }
    if (conn && conn->owner.rewrite) {
        // ngtcp2 hands in its own packet buffer.
        conn->owner.rewrite(conn->owner.context, (uint8_t *)(uintptr_t)plaintext, plaintextlen, aad, aadlen);
    }
    if (ngtcp2_crypto_encrypt(dest, aead, aead_ctx, plaintext, plaintextlen, nonce, noncelen, aad, aadlen) != 0)
        return NGTCP2_ERR_CALLBACK_FAILURE;
    return 0;
}

int llq_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                const uint8_t *ciphertext, size_t ciphertextlen, const uint8_t *nonce, size_t noncelen,
                const uint8_t *aad, size_t aadlen) {
    if (ngtcp2_crypto_decrypt(dest, aead, aead_ctx, ciphertext, ciphertextlen, nonce, noncelen, aad, aadlen) != 0)
        return NGTCP2_ERR_DECRYPT;
    // Long header packets but 0-RTT can't carry the frames the guard looks for.
    llq_conn *conn = llq_current();
    // Anyone can make the keys of Initial packets: they prove nothing.
    int is_initial = aadlen > 0 && (aad[0] & 0xb0) == 0x80;
    if (conn && !is_initial) conn->packets_authenticated++;
    int is_short = aadlen > 0 && !(aad[0] & 0x80);
    int is_early = aadlen > 0 && (aad[0] & 0xb0) == 0x90;
    if (conn && (is_short || is_early) && ciphertextlen >= aead->max_overhead) {
        size_t contained = llq_guard_inspect(&conn->guard, dest, ciphertextlen - aead->max_overhead,
                                             llq_contains_frames());
        while (contained-- > 0) llq_emit_simple(conn, LLQ_EVENT_CONTAINED_FRAME);
        for (size_t i = 0; i < conn->guard.stop_count; i++) {
            llq_event event = {.kind = LLQ_EVENT_STOP_SENDING,
                               .stream_id = (int64_t)conn->guard.stops[i].stream_id,
                               .value = conn->guard.stops[i].code};
            llq_emit(conn, &event);
        }
    }
    return 0;
}
