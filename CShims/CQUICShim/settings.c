// What ngtcp2 and the peer are told at a connection's start, and what a client keeps of it for its return.

#include "callbacks.h"

#include <string.h>

void llq_fill_settings(ngtcp2_settings *settings, const llq_settings *source, llq_conn *conn) {
    ngtcp2_settings_default(settings);
    settings->initial_ts = source->now;
    settings->initial_rtt = source->initial_rtt;
    settings->handshake_timeout = source->handshake_timeout;
    settings->cc_algo = source->congestion_control == LLQ_CC_BBR ? NGTCP2_CC_ALGO_BBR : NGTCP2_CC_ALGO_CUBIC;
    settings->max_tx_udp_payload_size = source->max_udp_payload;
    settings->no_pmtud = !source->discover_mtu;
    settings->rand_ctx.native_handle = conn;
    settings->ack_thresh = 1;
    conn->ack_threshold = source->ack_threshold;
    settings->original_version = source->original_version;
    settings->preferred_versions = (uint32_t *)(uintptr_t)source->versions;
    settings->preferred_versionslen = source->version_count;
#if LLQ_NGTCP2_1
    settings->available_versions = source->versions;
    settings->available_versionslen = source->version_count;
    if (conn->owner.qlog) settings->qlog_write = llq_qlog;
#else
    settings->other_versions = (uint32_t *)(uintptr_t)source->versions;
    settings->other_versionslen = source->version_count;
    if (conn->owner.qlog) settings->qlog.write = llq_qlog;
#endif
    // Windows stay as configured: they bound memory.
    settings->max_window = source->connection_window;
    settings->max_stream_window = source->stream_window;
#if LLQ_NGTCP2_1
    settings->token = source->token;
    settings->tokenlen = source->token_length;
#else
    settings->token.base = (uint8_t *)(uintptr_t)source->token;
    settings->token.len = source->token_length;
#endif
}

void llq_fill_params(ngtcp2_transport_params *params, const llq_settings *source) {
    ngtcp2_transport_params_default(params);
    params->initial_max_stream_data_bidi_local = source->stream_window;
    params->initial_max_stream_data_bidi_remote = source->stream_window;
    params->initial_max_stream_data_uni = source->stream_window;
    params->initial_max_data = source->connection_window;
    params->initial_max_streams_bidi = source->max_streams_bidi;
    params->initial_max_streams_uni = source->max_streams_uni;
    params->max_idle_timeout = source->max_idle_timeout;
    params->max_ack_delay = source->max_ack_delay;
    params->max_datagram_frame_size = source->max_datagram_frame_size;
    params->active_connection_id_limit = 7;
    params->grease_quic_bit = 1;
    params->disable_active_migration = source->forbid_migration != 0;
    const llq_preferred_address *preferred = source->preferred_address;
    if (!preferred) return;
    llq_sockaddr address;
    params->preferred_addr_present = 1;
    if (preferred->has_ipv4) {
        llq_address_to_sockaddr(&address, &preferred->ipv4);
        params->preferred_addr.ipv4_present = 1;
        memcpy(&params->preferred_addr.ipv4, &address.in, sizeof address.in);
    }
    if (preferred->has_ipv6) {
        llq_address_to_sockaddr(&address, &preferred->ipv6);
        params->preferred_addr.ipv6_present = 1;
        memcpy(&params->preferred_addr.ipv6, &address.in6, sizeof address.in6);
    }
    llq_cid_to_ngtcp2(&params->preferred_addr.cid, &preferred->cid);
    memcpy(params->preferred_addr.stateless_reset_token, preferred->reset_token, LLQ_RESET_TOKEN_LENGTH);
}

size_t llq_conn_encode_early_parameters(llq_conn *conn, uint8_t *destination, size_t capacity) {
#if LLQ_NGTCP2_1
    ngtcp2_ssize rv = ngtcp2_conn_encode_0rtt_transport_params(conn->conn, destination, capacity);
#else
    const ngtcp2_transport_params *remote = ngtcp2_conn_get_remote_transport_params(conn->conn);
    ngtcp2_transport_params params;
    if (!remote) return 0;
    ngtcp2_transport_params_default(&params);
    params.initial_max_stream_data_bidi_local = remote->initial_max_stream_data_bidi_local;
    params.initial_max_stream_data_bidi_remote = remote->initial_max_stream_data_bidi_remote;
    params.initial_max_stream_data_uni = remote->initial_max_stream_data_uni;
    params.initial_max_data = remote->initial_max_data;
    params.initial_max_streams_bidi = remote->initial_max_streams_bidi;
    params.initial_max_streams_uni = remote->initial_max_streams_uni;
    params.max_idle_timeout = remote->max_idle_timeout;
    params.max_udp_payload_size = remote->max_udp_payload_size;
    params.active_connection_id_limit = remote->active_connection_id_limit;
    params.max_datagram_frame_size = remote->max_datagram_frame_size;
    params.disable_active_migration = remote->disable_active_migration;
    // The decoder wants them; 0-RTT doesn't use them.
    params.original_dcid.datalen = 1;
    params.initial_scid.datalen = 1;
    ngtcp2_ssize rv = ngtcp2_encode_transport_params(destination, capacity,
                                                     NGTCP2_TRANSPORT_PARAMS_TYPE_ENCRYPTED_EXTENSIONS, &params);
#endif
    return rv < 0 ? 0 : (size_t)rv;
}
