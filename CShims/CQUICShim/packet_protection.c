// Packet protection: ngtcp2's callbacks, and the choice of who does the work. Initial, Handshake and 0-RTT packets are few
// and always GnuTLS's; so is ChaCha20.

#include "packet_protection.h"

#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { IV_LENGTH = 12, MAX_KEY_LENGTH = 32 };

// The callbacks.

typedef enum packet_kind { ONE_RTT, INITIAL, ZERO_RTT, OTHER } packet_kind;

/// Reads the first bytes of a header (RFC 9000 section 17.2, RFC 9369 section 3.2).
static packet_kind kind_of(const uint8_t *header, size_t length) {
    if (length < 5 || !(header[0] & 0x80)) return ONE_RTT;
    int type = header[0] >> 4 & 3;
    uint32_t version = (uint32_t)header[1] << 24 | (uint32_t)header[2] << 16 | (uint32_t)header[3] << 8 | header[4];
    if (version == 0x6b3343cfu) type = (type + 3) & 3; // version 2 counts from 1 and ends with 0
    return type == 0 ? INITIAL : type == 1 ? ZERO_RTT : OTHER;
}

/// The end of a packet's number at the end of its header, which is as long as the first byte says; and what its next bit
/// is worth. False: the header is too short.
static bool read_number(const uint8_t *header, size_t length, uint64_t *low, uint64_t *step) {
    size_t count = (size_t)(header[0] & 3) + 1;
    if (length <= count) return false;
    *low = 0;
    *step = (uint64_t)1 << 8 * count;
    for (size_t i = length - count; i < length; i++) *low = *low << 8 | header[i];
    return true;
}

/// Notes the number of a packet that is about to be protected.
static void note_number(llq_conn *conn, const uint8_t *header, size_t length) {
    uint64_t low, step;
    if (!read_number(header, length, &low, &step)) return;
    uint64_t number = (conn->next_packet & ~(step - 1)) | low;
    if (number < conn->next_packet) number += step;
    conn->next_packet = number + 1;
}

/// The number of a packet that came, in full (RFC 9000 appendix A.3). False: the header is too short.
static bool read_received(uint64_t expected, const uint8_t *header, size_t length, uint64_t *number) {
    uint64_t low, step;
    if (!read_number(header, length, &low, &step)) return false;
    *number = (expected & ~(step - 1)) | low;
    if (*number + step / 2 <= expected)
        *number += step;
    else if (*number > expected + step / 2 && *number >= step)
        *number -= step;
    return true;
}

/// Whether a packet is the newest that came so far.
static bool is_newest(llq_conn *conn, const uint8_t *header, size_t length) {
    uint64_t number;
    if (!read_received(conn->next_received, header, length, &number) || number < conn->next_received) return false;
    conn->next_received = number + 1;
    return true;
}

// ngtcp2 aborts the process on a number that may be beyond the last there can be, 2^62 - 1: on any whose lowest bits are small, once one
// within 2^32 of that has come. A peer needs two billion packets for it, which leave out as many numbers each as they may.
static const uint64_t LAST_READ = ((uint64_t)1 << 62) - ((uint64_t)1 << 33);

int llq_number_is_read(uint64_t expected, const uint8_t *header, size_t length) {
    uint64_t number;
    return read_received(expected, header, length, &number) && number <= LAST_READ;
}

/// What is done with a packet before it is protected.
static void prepare(llq_conn *conn, uint8_t *plaintext, size_t length, const uint8_t *aad, size_t aadlen) {
    if (aadlen == 0) return;
    packet_kind kind = kind_of(aad, aadlen);
    if (kind == ONE_RTT || kind == ZERO_RTT) {
        note_number(conn, aad, aadlen);
        llq_timer_conceal(conn, plaintext, length);
        llq_ends_search(conn, plaintext, length);
    }
    // The key phase bit of a short header.
    if (kind == ONE_RTT && (aad[0] & 0x04) != (conn->key_phase ? 0x04 : 0)) {
        conn->key_phase = !conn->key_phase;
        conn->key_updates++;
    }
    if (conn->owner.rewrite) conn->owner.rewrite(conn->owner.context, plaintext, length, aad, aadlen);
}

int llq_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                const uint8_t *plaintext, size_t plaintextlen, const uint8_t *nonce, size_t noncelen,
                const uint8_t *aad, size_t aadlen) {
    llq_conn *conn = llq_current();
    // ngtcp2 hands in its own packet buffer. What has no plaintext is no packet but the check of a Retry's tag (RFC 9001
    // section 5.8), whose first byte only looks like a header's.
    if (conn && plaintextlen > 0) {
        prepare(conn, (uint8_t *)(uintptr_t)plaintext, plaintextlen, aad, aadlen);
        if (conn->brief && aadlen > 0) {
            if (kind_of(aad, aadlen) == ONE_RTT)
                llq_brief_seal(conn, aead, aead_ctx, nonce, noncelen, aad, aadlen);
            else
                conn->brief->has_others = true;
        }
    }
    int rv = llq_seal(dest, aead, aead_ctx, plaintext, plaintextlen, nonce, noncelen, aad, aadlen);
    return rv == 0 ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

int llq_seal(uint8_t *destination, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
             const uint8_t *plaintext, size_t length, const uint8_t *nonce, size_t nonce_length, const uint8_t *aad,
             size_t aad_length) {
    if (llq_mb_owns(aead_ctx->native_handle))
        return llq_mb_seal(aead_ctx->native_handle, destination, plaintext, length, nonce, aad, aad_length);
    return ngtcp2_crypto_encrypt(destination, aead, aead_ctx, plaintext, length, nonce, nonce_length, aad, aad_length);
}

static void emit_stop(void *context, uint64_t stream_id, uint64_t code) {
    llq_event event = {.kind = LLQ_EVENT_STOP_SENDING, .stream_id = (int64_t)stream_id, .value = code};
    llq_emit(context, &event);
}

static void note_acknowledged(void *context, uint64_t first, uint64_t last) {
    llq_conn *conn = context;
    llq_size_note_acknowledged(conn, first, last);
    if (conn->tells_acknowledged) llq_ends_acknowledged(conn, first, last);
}

/// What an authentic packet tells before ngtcp2 reads it.
static void inspect(llq_conn *conn, uint8_t *plaintext, size_t length, const uint8_t *aad, size_t aadlen) {
    packet_kind kind = kind_of(aad, aadlen);
    // Anyone can make the keys of Initial packets: they prove nothing.
    if (kind != INITIAL) conn->packets_authenticated++;
    // Other packets can't carry the frames the guard looks for.
    if (kind != ONE_RTT && kind != ZERO_RTT) {
        llq_acks_note_received(conn, false, length);
        return;
    }
    uint64_t expected = conn->next_received;
    bool newest = is_newest(conn, aad, aadlen);
    bool tells_acknowledged = kind == ONE_RTT && (conn->tells_acknowledged || llq_size_is_watched(conn));
    const llq_guard_listener listener = {emit_stop, tells_acknowledged ? note_acknowledged : NULL, conn};
    size_t contained = llq_guard_inspect(&conn->guard, plaintext, length, llq_contains_frames(), &listener);
    while (contained-- > 0) llq_emit_simple(conn, LLQ_EVENT_CONTAINED_FRAME);
    bool follows = newest && conn->next_received == expected + 1;
    llq_acks_note_received(conn, kind == ONE_RTT && follows && conn->guard.is_ordinary, length);
    if (kind == ONE_RTT && newest && !conn->guard.is_probing) conn->aliases.is_followed = true;
    if (conn->guard.challenge_count > 0) llq_emit_simple(conn, LLQ_EVENT_CHALLENGED);
    llq_timer_expect(conn, conn->guard.challenge_count);
    for (size_t i = 0; i < conn->guard.response_count; i++) llq_limit_note_response(conn, conn->guard.responses[i]);
}

/// Whether a server's packet has what ngtcp2 would abort the process on. It is taken for lost then: what it has comes again.
static bool comes_too_early(llq_conn *conn, uint8_t *plaintext, size_t length, const uint8_t *aad, size_t aadlen) {
    if (conn->is_server || conn->is_past_handshake || kind_of(aad, aadlen) != ONE_RTT) return false;
    const ngtcp2_transport_params *params = ngtcp2_conn_get_remote_transport_params(conn->conn);
    return llq_guard_is_too_early(plaintext, length, params && params->preferred_addr_present) != 0;
}

int llq_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *aead_ctx,
                const uint8_t *ciphertext, size_t ciphertextlen, const uint8_t *nonce, size_t noncelen,
                const uint8_t *aad, size_t aadlen) {
    int rv = llq_mb_owns(aead_ctx->native_handle)
                 ? llq_mb_open(aead_ctx->native_handle, dest, ciphertext, ciphertextlen, nonce, aad, aadlen)
                 : ngtcp2_crypto_decrypt(dest, aead, aead_ctx, ciphertext, ciphertextlen, nonce, noncelen, aad, aadlen);
    if (rv != 0) return NGTCP2_ERR_DECRYPT;
    llq_conn *conn = llq_current();
    if (!conn || ciphertextlen < aead->max_overhead) return 0;
    size_t length = ciphertextlen - aead->max_overhead;
    if (comes_too_early(conn, dest, length, aad, aadlen)) return NGTCP2_ERR_DECRYPT;
    packet_kind kind = kind_of(aad, aadlen);
    if ((kind == ONE_RTT || kind == ZERO_RTT) && !llq_number_is_read(conn->next_received, aad, aadlen))
        return NGTCP2_ERR_DECRYPT;
    inspect(conn, dest, length, aad, aadlen);
    return 0;
}

int llq_hp_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *hp_ctx,
                const uint8_t *sample) {
    llq_conn *conn = llq_current();
    if (conn && conn->brief) llq_brief_mask(conn, hp, hp_ctx);
    return llq_mask(dest, hp, hp_ctx, sample);
}

int llq_mask(uint8_t *destination, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *hp_ctx,
             const uint8_t *sample) {
    if (llq_mb_owns(hp_ctx->native_handle)) {
        llq_mb_mask(hp_ctx->native_handle, destination, sample);
        return 0;
    }
    return ngtcp2_crypto_hp_mask_cb(destination, hp, hp_ctx, sample);
}

void llq_delete_aead(ngtcp2_conn *conn, ngtcp2_crypto_aead_ctx *aead_ctx, void *user_data) {
    if (llq_mb_owns(aead_ctx->native_handle))
        llq_mb_free(aead_ctx->native_handle);
    else
        ngtcp2_crypto_delete_crypto_aead_ctx_cb(conn, aead_ctx, user_data);
}

void llq_delete_mask(ngtcp2_conn *conn, ngtcp2_crypto_cipher_ctx *cipher_ctx, void *user_data) {
    if (llq_mb_owns(cipher_ctx->native_handle))
        llq_mb_free(cipher_ctx->native_handle);
    else
        ngtcp2_crypto_delete_crypto_cipher_ctx_cb(conn, cipher_ctx, user_data);
}

// 1-RTT keys for intel-ipsec-mb (RFC 9001 section 5.1).

static int expand_label(uint8_t *destination, size_t length, const ngtcp2_crypto_md *md, const uint8_t *secret,
                        size_t secret_length, const char *label) {
    uint8_t info[64];
    size_t label_length = strlen(label), used = 0;
    info[used++] = (uint8_t)(length >> 8);
    info[used++] = (uint8_t)length;
    info[used++] = (uint8_t)(6 + label_length);
    memcpy(info + used, "tls13 ", 6);
    used += 6;
    memcpy(info + used, label, label_length);
    used += label_length;
    info[used++] = 0;
    return ngtcp2_crypto_hkdf_expand(destination, length, md, secret, secret_length, info, used);
}

/// An AEAD key and IV of a secret; NULL on failure.
static void *derive_aead(uint8_t *iv, const llq_conn *conn, const ngtcp2_crypto_md *md, const uint8_t *secret,
                         size_t secret_length) {
    uint8_t key[MAX_KEY_LENGTH];
    void *handle = NULL;
    if (expand_label(key, conn->mb_key_length, md, secret, secret_length, "quic key") == 0 &&
        expand_label(iv, IV_LENGTH, md, secret, secret_length, "quic iv") == 0)
        handle = llq_mb_aead_new(key, conn->mb_key_length);
    gnutls_memset(key, 0, sizeof key);
    return handle;
}

static void *derive_mask(const llq_conn *conn, const ngtcp2_crypto_md *md, const uint8_t *secret,
                         size_t secret_length) {
    uint8_t key[MAX_KEY_LENGTH];
    void *handle = NULL;
    if (expand_label(key, conn->mb_key_length, md, secret, secret_length, "quic hp") == 0)
        handle = llq_mb_mask_new(key, conn->mb_key_length);
    gnutls_memset(key, 0, sizeof key);
    return handle;
}

static int install(llq_conn *conn, bool receives, const uint8_t *secret, size_t length) {
    const ngtcp2_crypto_md *md = &ngtcp2_conn_get_crypto_ctx(conn->conn)->md;
    uint8_t iv[IV_LENGTH];
    ngtcp2_crypto_aead_ctx aead = {derive_aead(iv, conn, md, secret, length)};
    ngtcp2_crypto_cipher_ctx mask = {derive_mask(conn, md, secret, length)};
    int rv = -1;
    if (aead.native_handle && mask.native_handle)
        rv = receives ? ngtcp2_conn_install_rx_key(conn->conn, secret, length, &aead, iv, sizeof iv, &mask)
                      : ngtcp2_conn_install_tx_key(conn->conn, secret, length, &aead, iv, sizeof iv, &mask);
    if (rv != 0) {
        if (aead.native_handle) llq_mb_free(aead.native_handle);
        if (mask.native_handle) llq_mb_free(mask.native_handle);
    }
    return rv == 0 ? 0 : -1;
}

static size_t mb_key_length(gnutls_session_t session) {
    switch (gnutls_cipher_get(session)) {
    case GNUTLS_CIPHER_AES_128_GCM: return 16;
    case GNUTLS_CIPHER_AES_256_GCM: return 32;
    default: return 0;
    }
}

/// What ngtcp2's helper does for GnuTLS, but for the 1-RTT keys. The helper's other duties at this place, the transport
/// parameters, are no duties with GnuTLS: it reads them in an extension hook.
static int on_secret(gnutls_session_t session, gnutls_record_encryption_level_t gnutls_level, const void *rx_secret,
                     const void *tx_secret, size_t length) {
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);
    llq_conn *conn = ref->user_data;
    ngtcp2_encryption_level level = ngtcp2_crypto_gnutls_from_gnutls_record_encryption_level(gnutls_level);
    // Other versions have other labels.
    if (level == NGTCP2_ENCRYPTION_LEVEL_1RTT && conn->mb_key_length == 0 &&
        ngtcp2_conn_get_negotiated_version(conn->conn) == NGTCP2_PROTO_VER_V1)
        conn->mb_key_length = mb_key_length(session);
    if (level == NGTCP2_ENCRYPTION_LEVEL_1RTT && conn->mb_key_length > 0) {
        if (rx_secret && install(conn, true, rx_secret, length) != 0) return -1;
        return tx_secret && install(conn, false, tx_secret, length) != 0 ? -1 : 0;
    }
    if (rx_secret &&
        ngtcp2_crypto_derive_and_install_rx_key(conn->conn, NULL, NULL, NULL, level, rx_secret, length) != 0)
        return -1;
    if (tx_secret &&
        ngtcp2_crypto_derive_and_install_tx_key(conn->conn, NULL, NULL, NULL, level, tx_secret, length) != 0)
        return -1;
    return 0;
}

int llq_on_update_key(ngtcp2_conn *conn, uint8_t *rx_secret, uint8_t *tx_secret, ngtcp2_crypto_aead_ctx *rx_aead,
                      uint8_t *rx_iv, ngtcp2_crypto_aead_ctx *tx_aead, uint8_t *tx_iv, const uint8_t *old_rx_secret,
                      const uint8_t *old_tx_secret, size_t length, void *user_data) {
    llq_conn *self = user_data;
    if (self->mb_key_length == 0)
        return ngtcp2_crypto_update_key_cb(conn, rx_secret, tx_secret, rx_aead, rx_iv, tx_aead, tx_iv, old_rx_secret,
                                           old_tx_secret, length, user_data);
    const ngtcp2_crypto_md *md = &ngtcp2_conn_get_crypto_ctx(conn)->md;
    if (expand_label(rx_secret, length, md, old_rx_secret, length, "quic ku") != 0 ||
        expand_label(tx_secret, length, md, old_tx_secret, length, "quic ku") != 0)
        return NGTCP2_ERR_CALLBACK_FAILURE;
    rx_aead->native_handle = derive_aead(rx_iv, self, md, rx_secret, length);
    tx_aead->native_handle = derive_aead(tx_iv, self, md, tx_secret, length);
    if (rx_aead->native_handle && tx_aead->native_handle) return 0;
    if (rx_aead->native_handle) llq_mb_free(rx_aead->native_handle);
    if (tx_aead->native_handle) llq_mb_free(tx_aead->native_handle);
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

// The choice.

int llq_protection_available(int protection) {
    return protection == LLQ_PROTECTION_IPSEC_MB ? llq_mb_available() : protection == LLQ_PROTECTION_GNUTLS;
}

static int automatic;
static pthread_once_t automatic_once = PTHREAD_ONCE_INIT;

static void choose(void) {
    const char *wish = getenv("LONGLINE_PACKET_PROTECTION");
    automatic = wish && strcmp(wish, "gnutls") == 0 ? LLQ_PROTECTION_GNUTLS : LLQ_PROTECTION_IPSEC_MB;
}

int llq_protection_resolve(int protection) {
    if (protection == LLQ_PROTECTION_AUTOMATIC) {
        pthread_once(&automatic_once, choose);
        protection = automatic;
    }
    return llq_protection_available(protection) ? protection : LLQ_PROTECTION_GNUTLS;
}

void llq_protection_configure(llq_conn *conn) {
    if (llq_protection_resolve(conn->protection) == LLQ_PROTECTION_IPSEC_MB)
        gnutls_handshake_set_secret_function(conn->session, on_secret);
}

// By itself, for tests.

struct llq_protector {
    ngtcp2_crypto_aead aead;
    ngtcp2_crypto_cipher cipher;
    ngtcp2_crypto_aead_ctx seal, open;
    ngtcp2_crypto_cipher_ctx mask;
};

static int set_gnutls_keys(llq_protector *p, size_t key_length, const uint8_t *key, const uint8_t *mask_key) {
    gnutls_datum_t datum = {(unsigned char *)(uintptr_t)mask_key, (unsigned)key_length};
    gnutls_cipher_hd_t mask = NULL;
    if (ngtcp2_crypto_aead_ctx_encrypt_init(&p->seal, &p->aead, key, IV_LENGTH) != 0 ||
        ngtcp2_crypto_aead_ctx_decrypt_init(&p->open, &p->aead, key, IV_LENGTH) != 0 ||
        gnutls_cipher_init(&mask, (gnutls_cipher_algorithm_t)(intptr_t)p->cipher.native_handle, &datum, NULL) != 0)
        return -1;
    p->mask.native_handle = mask;
    return 0;
}

static int set_mb_keys(llq_protector *p, size_t key_length, const uint8_t *key, const uint8_t *mask_key) {
    p->seal.native_handle = llq_mb_aead_new(key, key_length);
    p->open.native_handle = llq_mb_aead_new(key, key_length);
    p->mask.native_handle = llq_mb_mask_new(mask_key, key_length);
    return p->seal.native_handle && p->open.native_handle && p->mask.native_handle ? 0 : -1;
}

llq_protector *llq_protector_new(int protection, size_t key_length, const uint8_t *key, const uint8_t *mask_key) {
    if (!llq_protection_available(protection) || (key_length != 16 && key_length != 32)) return NULL;
    llq_protector *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->aead.native_handle =
        (void *)(intptr_t)(key_length == 16 ? GNUTLS_CIPHER_AES_128_GCM : GNUTLS_CIPHER_AES_256_GCM);
    p->aead.max_overhead = 16;
    p->cipher.native_handle =
        (void *)(intptr_t)(key_length == 16 ? GNUTLS_CIPHER_AES_128_CBC : GNUTLS_CIPHER_AES_256_CBC);
    int rv = protection == LLQ_PROTECTION_IPSEC_MB ? set_mb_keys(p, key_length, key, mask_key)
                                                   : set_gnutls_keys(p, key_length, key, mask_key);
    if (rv == 0) return p;
    llq_protector_free(p);
    return NULL;
}

void llq_protector_free(llq_protector *p) {
    if (!p) return;
    if (p->seal.native_handle) llq_delete_aead(NULL, &p->seal, NULL);
    if (p->open.native_handle) llq_delete_aead(NULL, &p->open, NULL);
    if (p->mask.native_handle) llq_delete_mask(NULL, &p->mask, NULL);
    free(p);
}

int llq_protector_seal(const llq_protector *p, uint8_t *destination, const uint8_t *plaintext, size_t length,
                       const uint8_t *nonce, const uint8_t *aad, size_t aad_length) {
    return llq_encrypt(destination, &p->aead, &p->seal, plaintext, length, nonce, IV_LENGTH, aad, aad_length);
}

int llq_protector_open(const llq_protector *p, uint8_t *destination, const uint8_t *ciphertext, size_t length,
                       const uint8_t *nonce, const uint8_t *aad, size_t aad_length) {
    return llq_decrypt(destination, &p->aead, &p->open, ciphertext, length, nonce, IV_LENGTH, aad, aad_length);
}

int llq_protector_mask(const llq_protector *p, uint8_t *mask, const uint8_t *sample) {
    return llq_hp_mask(mask, &p->cipher, &p->mask, sample);
}
