// ngtcp2's callbacks. They only report.

#include "callbacks.h"

#include <string.h>

void llq_emit_acked(llq_conn *conn) {
    if (conn->acked_count == 0) return;
    llq_event event = {.kind = LLQ_EVENT_STREAM_ACKED, .stream_id = conn->acked_stream, .value = conn->acked_count};
    conn->acked_count = 0;
    conn->owner.event(conn->owner.context, &event);
}

void llq_emit(llq_conn *conn, const llq_event *event) {
    llq_emit_acked(conn);
    conn->owner.event(conn->owner.context, event);
}

void llq_emit_simple(llq_conn *conn, int kind) {
    llq_event event = {.kind = kind, .stream_id = -1};
    llq_emit(conn, &event);
}

static int emit_stream(void *user_data, int kind, int64_t stream_id, uint64_t value) {
    llq_event event = {.kind = kind, .stream_id = stream_id, .value = value};
    llq_emit(user_data, &event);
    return 0;
}

static int emit_bytes(void *user_data, int kind, const uint8_t *data, size_t length) {
    llq_event event = {.kind = kind, .stream_id = -1, .data = data, .length = length};
    llq_emit(user_data, &event);
    return 0;
}

static int on_crypto_data(ngtcp2_conn *conn, ngtcp2_encryption_level level, uint64_t offset, const uint8_t *data,
                          size_t length, void *user_data) {
    (void)conn;
    return llq_tls_receive(user_data, level, offset, data, length);
}

static int on_handshake_completed(ngtcp2_conn *conn, void *user_data) {
    llq_conn *self = user_data;
    if (!self->is_server && self->early_attempted && !llq_tls_early_data_accepted(self)) {
        int rv = ngtcp2_conn_tls_early_data_rejected(conn);
        if (rv != 0) return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    const ngtcp2_transport_params *params = ngtcp2_conn_get_remote_transport_params(conn);
    if (!self->is_server && params && params->preferred_addr_present) llq_guard_know(&self->guard, 1);
    llq_emit_simple(self, LLQ_EVENT_HANDSHAKE_COMPLETED);
    return 0;
}

static int on_handshake_confirmed(ngtcp2_conn *conn, void *user_data) {
    (void)conn;
    llq_emit_simple(user_data, LLQ_EVENT_HANDSHAKE_CONFIRMED);
    return 0;
}

static int on_early_data_rejected(ngtcp2_conn *conn, void *user_data) {
    (void)conn;
    llq_emit_simple(user_data, LLQ_EVENT_EARLY_DATA_REJECTED);
    return 0;
}

static int on_version_negotiation(ngtcp2_conn *conn, const ngtcp2_pkt_hd *header, const uint32_t *versions,
                                  size_t count, void *user_data) {
    (void)conn;
    (void)header;
    return emit_bytes(user_data, LLQ_EVENT_VERSION_NEGOTIATION, (const uint8_t *)versions, count * sizeof *versions);
}

static int on_preferred_address(ngtcp2_conn *conn, ngtcp2_path *destination, const ngtcp2_preferred_addr *preferred,
                                void *user_data) {
    llq_conn *self = user_data;
    if (!self->use_preferred_address) return 0;
    // Of the family in use: that this machine has the other at all isn't known.
    if (ngtcp2_conn_get_path(conn)->remote.addr->sa_family == AF_INET6) {
        if (!preferred->ipv6_present) return 0;
        memcpy(destination->remote.addr, &preferred->ipv6, sizeof preferred->ipv6);
        destination->remote.addrlen = sizeof preferred->ipv6;
    } else {
        if (!preferred->ipv4_present) return 0;
        memcpy(destination->remote.addr, &preferred->ipv4, sizeof preferred->ipv4);
        destination->remote.addrlen = sizeof preferred->ipv4;
    }
    return 0;
}

static int on_stream_data(ngtcp2_conn *conn, uint32_t flags, int64_t stream_id, uint64_t offset, const uint8_t *data,
                          size_t length, void *user_data, void *stream_user_data) {
    (void)conn;
    (void)offset;
    (void)stream_user_data;
    llq_event event = {.kind = LLQ_EVENT_STREAM_DATA, .stream_id = stream_id, .data = data, .length = length};
    if (flags & NGTCP2_STREAM_DATA_FLAG_FIN) event.flags |= LLQ_FLAG_FIN;
    if (flags & NGTCP2_STREAM_DATA_FLAG_0RTT) event.flags |= LLQ_FLAG_EARLY;
    llq_emit(user_data, &event);
    return 0;
}

static int on_acked(ngtcp2_conn *conn, int64_t stream_id, uint64_t offset, uint64_t length, void *user_data,
                    void *stream_user_data) {
    (void)conn;
    (void)offset;
    (void)stream_user_data;
    llq_conn *self = user_data;
    if (self->acked_stream != stream_id) llq_emit_acked(self);
    self->acked_stream = stream_id;
    self->acked_count += length;
    // An end by itself, or with bytes that others before them are still missed for.
    if (length == 0) return emit_stream(self, LLQ_EVENT_END_ACKED, stream_id, 0);
    return 0;
}

static int on_stream_open(ngtcp2_conn *conn, int64_t stream_id, void *user_data) {
    (void)conn;
    if (!llq_timer_admits(user_data, stream_id)) return NGTCP2_ERR_CALLBACK_FAILURE;
    return emit_stream(user_data, LLQ_EVENT_STREAM_OPENED, stream_id, 0);
}

static int on_stream_close(ngtcp2_conn *conn, uint32_t flags, int64_t stream_id, uint64_t code, void *user_data,
                           void *stream_user_data) {
    (void)conn;
    (void)flags;
    (void)stream_user_data;
    return emit_stream(user_data, LLQ_EVENT_STREAM_CLOSED, stream_id, code);
}

static int on_stream_reset(ngtcp2_conn *conn, int64_t stream_id, uint64_t final_size, uint64_t code, void *user_data,
                           void *stream_user_data) {
    (void)conn;
    (void)final_size;
    (void)stream_user_data;
    if (!llq_timer_admits(user_data, stream_id)) return NGTCP2_ERR_CALLBACK_FAILURE;
    llq_event event = {.kind = LLQ_EVENT_STREAM_RESET, .stream_id = stream_id, .value = code};
    if (!llq_conn_has_stream(user_data, stream_id)) {
        event.flags |= LLQ_FLAG_STILLBORN;
        llq_timer_withhold(user_data, stream_id);
    }
    llq_emit(user_data, &event);
    return 0;
}

static int on_max_streams_bidi(ngtcp2_conn *conn, uint64_t count, void *user_data) {
    (void)conn;
    return emit_stream(user_data, LLQ_EVENT_MAX_STREAMS_BIDI, -1, count);
}

static int on_max_streams_uni(ngtcp2_conn *conn, uint64_t count, void *user_data) {
    (void)conn;
    return emit_stream(user_data, LLQ_EVENT_MAX_STREAMS_UNI, -1, count);
}

static int on_limit_bidi(ngtcp2_conn *conn, uint64_t limit, void *user_data) {
    (void)conn;
    llq_timer_note_limit(user_data, true, limit);
    return 0;
}

static int on_limit_uni(ngtcp2_conn *conn, uint64_t limit, void *user_data) {
    (void)conn;
    llq_timer_note_limit(user_data, false, limit);
    return 0;
}

static int on_max_stream_data(ngtcp2_conn *conn, int64_t stream_id, uint64_t limit, void *user_data,
                              void *stream_user_data) {
    (void)conn;
    (void)stream_user_data;
    return emit_stream(user_data, LLQ_EVENT_MAX_STREAM_DATA, stream_id, limit);
}

static int on_stateless_reset(ngtcp2_conn *conn, const ngtcp2_pkt_stateless_reset *reset, void *user_data) {
    (void)conn;
    (void)reset;
    llq_emit_simple(user_data, LLQ_EVENT_STATELESS_RESET);
    return 0;
}

static int on_new_cid(ngtcp2_conn *conn, ngtcp2_cid *cid, uint8_t *token, size_t length, void *user_data) {
    llq_conn *self = user_data;
    (void)conn;
    cid->datalen = length;
    self->owner.new_cid(self->owner.context, cid->data, length, token);
    return emit_bytes(user_data, LLQ_EVENT_CID_ADDED, cid->data, length);
}

static int on_remove_cid(ngtcp2_conn *conn, const ngtcp2_cid *cid, void *user_data) {
    (void)conn;
    return emit_bytes(user_data, LLQ_EVENT_CID_REMOVED, cid->data, cid->datalen);
}

#if LLQ_NGTCP2_1
static int on_peer_cid(ngtcp2_conn *conn, ngtcp2_connection_id_status_type type, uint64_t sequence,
                       const ngtcp2_cid *cid, const uint8_t *token, void *user_data) {
#else
static int on_peer_cid(ngtcp2_conn *conn, int type, uint64_t sequence, const ngtcp2_cid *cid, const uint8_t *token,
                       void *user_data) {
#endif
    llq_conn *self = user_data;
    (void)conn;
    (void)cid;
    bool activates = (int)type == NGTCP2_CONNECTION_ID_STATUS_TYPE_ACTIVATE;
    if (activates) {
        // The first is the one of the handshake, which is over for ngtcp2 then.
        self->is_past_handshake = true;
        llq_guard_note_active(&self->guard, sequence);
    }
    if (!token) return 0;
    int kind = activates ? LLQ_EVENT_PEER_CID_ACTIVE : LLQ_EVENT_PEER_CID_INACTIVE;
    return emit_bytes(user_data, kind, token, LLQ_RESET_TOKEN_LENGTH);
}

static int emit_path(void *user_data, ngtcp2_path_validation_result result, const ngtcp2_path *path) {
    // An aborted validation is one that a newer path replaced.
    llq_event event = {.kind = result == NGTCP2_PATH_VALIDATION_RESULT_SUCCESS ? LLQ_EVENT_PATH_VALIDATED
                                                                               : LLQ_EVENT_PATH_FAILED,
                       .stream_id = -1};
    llq_path_from_ngtcp2(&event.path, path);
    llq_alias_restore(user_data, &event.path);
    if (result != NGTCP2_PATH_VALIDATION_RESULT_ABORTED)
        llq_alias_note_validation(user_data, event.kind == LLQ_EVENT_PATH_VALIDATED);
    if (event.kind == LLQ_EVENT_PATH_VALIDATED) llq_limit_end(user_data);
    llq_emit(user_data, &event);
    return 0;
}

#if LLQ_NGTCP2_1
static int on_path_validation(ngtcp2_conn *conn, uint32_t flags, const ngtcp2_path *path, const ngtcp2_path *old_path,
                              ngtcp2_path_validation_result result, void *user_data) {
    (void)old_path;
#else
static int on_path_validation(ngtcp2_conn *conn, uint32_t flags, const ngtcp2_path *path,
                              ngtcp2_path_validation_result result, void *user_data) {
#endif
    (void)conn;
    (void)flags;
    return emit_path(user_data, result, path);
}

#if LLQ_NGTCP2_1
static int on_new_token(ngtcp2_conn *conn, const uint8_t *token, size_t length, void *user_data) {
    (void)conn;
    return emit_bytes(user_data, LLQ_EVENT_NEW_TOKEN, token, length);
}
#else
static int on_new_token(ngtcp2_conn *conn, const ngtcp2_vec *token, void *user_data) {
    (void)conn;
    return emit_bytes(user_data, LLQ_EVENT_NEW_TOKEN, token->base, token->len);
}
#endif

static int on_datagram(ngtcp2_conn *conn, uint32_t flags, const uint8_t *data, size_t length, void *user_data) {
    (void)conn;
    llq_event event = {.kind = LLQ_EVENT_DATAGRAM, .stream_id = -1, .data = data, .length = length};
    if (flags & NGTCP2_DATAGRAM_FLAG_0RTT) event.flags |= LLQ_FLAG_EARLY;
    llq_emit(user_data, &event);
    return 0;
}

static int on_datagram_acked(ngtcp2_conn *conn, uint64_t id, void *user_data) {
    (void)conn;
    return emit_stream(user_data, LLQ_EVENT_DATAGRAM_ACKED, -1, id);
}

static int on_datagram_lost(ngtcp2_conn *conn, uint64_t id, void *user_data) {
    (void)conn;
    return emit_stream(user_data, LLQ_EVENT_DATAGRAM_LOST, -1, id);
}

static int on_path_challenge(ngtcp2_conn *conn, uint8_t *data, void *user_data) {
    llq_conn *self = user_data;
    (void)conn;
    self->owner.random(self->owner.context, data, NGTCP2_PATH_CHALLENGE_DATALEN);
    llq_limit_note_challenge(self, data);
    return 0;
}

void llq_random(uint8_t *dest, size_t length, const ngtcp2_rand_ctx *context) {
    llq_conn *self = context->native_handle;
    self->owner.random(self->owner.context, dest, length);
}

void llq_fill_callbacks(ngtcp2_callbacks *c, bool is_server) {
    memset(c, 0, sizeof *c);
    if (is_server) {
        c->recv_client_initial = ngtcp2_crypto_recv_client_initial_cb;
    } else {
        c->client_initial = ngtcp2_crypto_client_initial_cb;
        c->recv_retry = ngtcp2_crypto_recv_retry_cb;
        c->recv_version_negotiation = on_version_negotiation;
        c->recv_new_token = on_new_token;
        c->handshake_confirmed = on_handshake_confirmed;
        c->select_preferred_addr = on_preferred_address;
#if LLQ_NGTCP2_1
        c->tls_early_data_rejected = on_early_data_rejected;
#else
        c->early_data_rejected = on_early_data_rejected;
#endif
    }
    c->recv_crypto_data = on_crypto_data;
    c->handshake_completed = on_handshake_completed;
    c->encrypt = llq_encrypt;
    c->decrypt = llq_decrypt;
    c->hp_mask = llq_hp_mask;
    c->recv_stream_data = on_stream_data;
    c->acked_stream_data_offset = on_acked;
    c->stream_open = on_stream_open;
    c->stream_close = on_stream_close;
    c->stream_reset = on_stream_reset;
    c->extend_max_local_streams_bidi = on_max_streams_bidi;
    c->extend_max_local_streams_uni = on_max_streams_uni;
    c->extend_max_remote_streams_bidi = on_limit_bidi;
    c->extend_max_remote_streams_uni = on_limit_uni;
    c->extend_max_stream_data = on_max_stream_data;
    c->recv_stateless_reset = on_stateless_reset;
    c->rand = llq_random;
    c->get_new_connection_id = on_new_cid;
    c->remove_connection_id = on_remove_cid;
    c->dcid_status = on_peer_cid;
    c->update_key = llq_on_update_key;
    c->path_validation = on_path_validation;
    c->recv_datagram = on_datagram;
    c->ack_datagram = on_datagram_acked;
    c->lost_datagram = on_datagram_lost;
    c->get_path_challenge_data = on_path_challenge;
    c->delete_crypto_aead_ctx = llq_delete_aead;
    c->delete_crypto_cipher_ctx = llq_delete_mask;
    c->version_negotiation = ngtcp2_crypto_version_negotiation_cb;
}
