#include "internal.h"

#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_SECRET_LENGTH = 32 };

/// A long header as every version has it (RFC 8999 section 5.1). Not 0: the IDs don't lie within the packet.
static int read_long_header(llq_header *header, const uint8_t *packet, size_t length) {
    size_t used = 1 + 4;
    if (length < used + 1) return -1;
    header->version = (uint32_t)packet[1] << 24 | (uint32_t)packet[2] << 16 | (uint32_t)packet[3] << 8 | packet[4];
    header->dcid_length = packet[used++];
    if (length - used < header->dcid_length + 1) return -1;
    header->dcid_bytes = packet + used;
    used += header->dcid_length;
    header->scid_length = packet[used++];
    if (length - used < header->scid_length) return -1;
    header->scid_bytes = packet + used;
    return 0;
}

static void fill_cid(llq_cid *cid, const uint8_t *bytes, size_t length) {
    cid->length = (uint8_t)length;
    if (length > 0) memcpy(cid->data, bytes, length);
}

void llq_decode(llq_header *header, const uint8_t *packet, size_t length, size_t cid_length) {
    memset(header, 0, sizeof *header);
    if (length == 0) return;
    if (!(packet[0] & 0x80)) {
        if (length - 1 < cid_length || cid_length > LLQ_MAX_CID_LENGTH) return;
        fill_cid(&header->dcid, packet + 1, cid_length);
        header->kind = LLQ_PACKET_SHORT;
        return;
    }
    if (read_long_header(header, packet, length) != 0) return;
    bool is_known = header->version == 0 || ngtcp2_is_supported_version(header->version);
    if (!is_known && length < LLQ_MIN_INITIAL_SIZE) return;
    if (header->dcid_length > LLQ_MAX_CID_LENGTH || header->scid_length > LLQ_MAX_CID_LENGTH) {
        // No version that we speak has such IDs; one that we don't may.
        header->kind = header->version == 0 ? LLQ_PACKET_INVALID : LLQ_PACKET_OVERLONG_IDS;
        return;
    }
    fill_cid(&header->dcid, header->dcid_bytes, header->dcid_length);
    fill_cid(&header->scid, header->scid_bytes, header->scid_length);
    header->kind = is_known ? LLQ_PACKET_LONG : LLQ_PACKET_UNSUPPORTED_VERSION;
}

int llq_accept(llq_initial *initial, const uint8_t *packet, size_t length) {
    ngtcp2_pkt_hd header;
    memset(initial, 0, sizeof *initial);
    // 1.x renamed nothing here, but tells an unsupported version apart; routing has handled that.
    if (ngtcp2_accept(&header, packet, length) != 0 || header.type != NGTCP2_PKT_INITIAL) return -1;
    initial->version = header.version;
    llq_cid_from_ngtcp2(&initial->dcid, &header.dcid);
    llq_cid_from_ngtcp2(&initial->scid, &header.scid);
#if LLQ_NGTCP2_1
    initial->token = header.token;
    initial->token_length = header.tokenlen;
#else
    initial->token = header.token.base;
    initial->token_length = header.token.len;
#endif
    return 0;
}

ssize_t llq_write_version_negotiation(uint8_t *destination, size_t capacity, uint8_t random, const llq_header *header,
                                      const uint32_t *versions, size_t count) {
    return ngtcp2_pkt_write_version_negotiation(destination, capacity, random, header->scid_bytes, header->scid_length,
                                                header->dcid_bytes, header->dcid_length, versions, count);
}

ssize_t llq_write_retry(uint8_t *destination, size_t capacity, uint32_t version, const llq_cid *dcid,
                        const llq_cid *scid, const llq_cid *original_dcid, const uint8_t *token, size_t token_length) {
    ngtcp2_cid d, s, o;
    llq_cid_to_ngtcp2(&d, dcid);
    llq_cid_to_ngtcp2(&s, scid);
    llq_cid_to_ngtcp2(&o, original_dcid);
    return ngtcp2_crypto_write_retry(destination, capacity, version, &d, &s, &o, token, token_length);
}

ssize_t llq_write_refusal(uint8_t *destination, size_t capacity, uint32_t version, const llq_cid *dcid,
                          const llq_cid *scid, uint64_t code) {
    ngtcp2_cid d, s;
    llq_cid_to_ngtcp2(&d, dcid);
    llq_cid_to_ngtcp2(&s, scid);
    return ngtcp2_crypto_write_connection_close(destination, capacity, version, &d, &s, code, NULL, 0);
}

ssize_t llq_write_stateless_reset(uint8_t *destination, size_t capacity, const uint8_t *token, const uint8_t *random,
                                  size_t random_length) {
    return ngtcp2_pkt_write_stateless_reset(destination, capacity, token, random, random_length);
}

// A server makes a token for each of up to eight connection IDs of a handshake. One HMAC with a key that is set up once
// costs a tenth of ngtcp2's helper, which derives a key for each token.
struct llq_reset_key {
    gnutls_hmac_hd_t mac;
};

llq_reset_key *llq_reset_key_new(const uint8_t *secret, size_t length, const uint8_t *server, size_t server_length) {
    static const char label[] = "stateless reset";
    uint8_t key[32], use[sizeof label - 1 + LLQ_MAX_CID_LENGTH];
    if (server_length > LLQ_MAX_CID_LENGTH) return NULL;
    memcpy(use, label, sizeof label - 1);
    if (server_length > 0) memcpy(use + sizeof label - 1, server, server_length);
    llq_reset_key *self = calloc(1, sizeof *self);
    if (!self) return NULL;
    // The secret serves other ends, too: each has a key of its own. So has each server: one that is sent a packet of another's
    // connection would otherwise tell whoever sent it how to end that (RFC 9000 section 21.11).
    if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, length, use, sizeof label - 1 + server_length, key) != 0 ||
        gnutls_hmac_init(&self->mac, GNUTLS_MAC_SHA256, key, sizeof key) != 0) {
        free(self);
        self = NULL;
    }
    gnutls_memset(key, 0, sizeof key);
    return self;
}

void llq_reset_key_free(llq_reset_key *key) {
    if (!key) return;
    gnutls_hmac_deinit(key->mac, NULL);
    free(key);
}

int llq_reset_token(llq_reset_key *key, uint8_t *token, const llq_cid *cid) {
    uint8_t digest[32];
    if (gnutls_hmac(key->mac, cid->data, cid->length) != 0) return -1;
    gnutls_hmac_output(key->mac, digest);
    memcpy(token, digest, LLQ_RESET_TOKEN_LENGTH);
    return 0;
}

int llq_token_kind(const uint8_t *token, size_t length) {
    if (length == 0) return LLQ_TOKEN_NONE;
    if (token[0] == NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY) return LLQ_TOKEN_RETRY;
    if (token[0] == NGTCP2_CRYPTO_TOKEN_MAGIC_REGULAR) return LLQ_TOKEN_REGULAR;
    return LLQ_TOKEN_NONE;
}

_Static_assert(NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN <= LLQ_MAX_TOKEN_LENGTH, "retry tokens fit");
_Static_assert(NGTCP2_CRYPTO_MAX_REGULAR_TOKENLEN <= LLQ_MAX_TOKEN_LENGTH, "regular tokens fit");

ssize_t llq_retry_token(uint8_t *token, const uint8_t *secret, size_t secret_length, uint32_t version,
                        const llq_address *remote, const llq_cid *retry_scid, const llq_cid *original_dcid,
                        uint64_t now) {
    llq_sockaddr address;
    ngtcp2_cid r, o;
    llq_address_to_sockaddr(&address, remote);
    llq_cid_to_ngtcp2(&r, retry_scid);
    llq_cid_to_ngtcp2(&o, original_dcid);
    return ngtcp2_crypto_generate_retry_token(token, secret, secret_length, version, &address.sa, address.length, &r,
                                              &o, now);
}

int llq_verify_retry_token(llq_cid *original_dcid, const uint8_t *token, size_t length, const uint8_t *secret,
                           size_t secret_length, uint32_t version, const llq_address *remote, const llq_cid *dcid,
                           uint64_t timeout, uint64_t now) {
    llq_sockaddr address;
    ngtcp2_cid o, d;
    llq_address_to_sockaddr(&address, remote);
    llq_cid_to_ngtcp2(&d, dcid);
    int rv = ngtcp2_crypto_verify_retry_token(&o, token, length, secret, secret_length, version, &address.sa,
                                              address.length, &d, timeout, now);
    if (rv == 0) llq_cid_from_ngtcp2(original_dcid, &o);
    return rv;
}

/// The secret for tokens of a version; for version 1 the one that its tokens always had. Not 0: the TLS library failed.
static int secret_for_version(uint8_t *derived, const uint8_t *secret, size_t length, uint32_t version) {
    const uint8_t number[4] = {(uint8_t)(version >> 24), (uint8_t)(version >> 16), (uint8_t)(version >> 8),
                               (uint8_t)version};
    if (length != TOKEN_SECRET_LENGTH) return GNUTLS_E_INVALID_REQUEST;
    if (version == 1) {
        memcpy(derived, secret, length);
        return 0;
    }
    return gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, length, number, sizeof number, derived);
}

ssize_t llq_regular_token(uint8_t *token, const uint8_t *secret, size_t secret_length, uint32_t version,
                          const llq_address *remote, uint64_t now) {
    llq_sockaddr address;
    uint8_t derived[TOKEN_SECRET_LENGTH];
    if (secret_for_version(derived, secret, secret_length, version) != 0) return -1;
    llq_address_to_sockaddr(&address, remote);
    ngtcp2_ssize length =
        ngtcp2_crypto_generate_regular_token(token, derived, sizeof derived, &address.sa, address.length, now);
    gnutls_memset(derived, 0, sizeof derived);
    return length;
}

int llq_verify_regular_token(const uint8_t *token, size_t length, const uint8_t *secret, size_t secret_length,
                             uint32_t version, const llq_address *remote, uint64_t timeout, uint64_t now) {
    llq_sockaddr address;
    uint8_t derived[TOKEN_SECRET_LENGTH];
    if (secret_for_version(derived, secret, secret_length, version) != 0) return -1;
    llq_address_to_sockaddr(&address, remote);
    int rv = ngtcp2_crypto_verify_regular_token(token, length, derived, sizeof derived, &address.sa, address.length,
                                                timeout, now);
    gnutls_memset(derived, 0, sizeof derived);
    return rv;
}
