#include "callbacks.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(llq_vec) == sizeof(ngtcp2_vec), "llq_vec has the layout of ngtcp2_vec");
_Static_assert(offsetof(llq_vec, length) == offsetof(ngtcp2_vec, len), "llq_vec has the layout of ngtcp2_vec");

static _Thread_local llq_conn *current;

llq_conn *llq_enter(llq_conn *conn) {
    llq_conn *previous = current;
    current = conn;
    return previous;
}

void llq_leave(llq_conn *previous) { current = previous; }
llq_conn *llq_current(void) { return current; }

static llq_conn *allocate(const llq_owner *owner, bool is_server, const llq_settings *settings, const llq_tls *tls) {
    void *object;
    llq_arena *arena = llq_arena_new(sizeof(llq_conn), &object);
    if (!arena) return NULL;
    llq_conn *conn = object;
    conn->arena = arena;
    conn->owner = *owner;
    conn->is_server = is_server;
    conn->protection = settings->packet_protection;
    conn->verify = tls->verify;
    conn->client_certificates = tls->client_certificates;
    conn->key_log = tls->key_log;
    conn->timer.bidirectional.told = settings->max_streams_bidi;
    conn->timer.unidirectional.told = settings->max_streams_uni;
    llq_guard_init(&conn->guard);
    // Without its name a server's certificate would be good for any.
    if (tls->server_name && !(conn->server_name = strdup(tls->server_name))) goto no_memory;
    if (tls->pin_count > 0) {
        conn->pins = malloc(tls->pin_count * 32);
        if (!conn->pins) goto no_memory;
        memcpy(conn->pins, tls->pins, tls->pin_count * 32);
        conn->pin_count = tls->pin_count;
    }
    return conn;
no_memory:
    llq_conn_free(conn);
    return NULL;
}

static llq_conn *finish(llq_conn *conn, int rv, const llq_tls *tls, int *error) {
    // Where it has no memory ngtcp2 leaves a pointer to what it has freed.
    if (rv != 0) conn->conn = NULL;
    if (rv == 0) {
        llq_conn *previous = llq_enter(conn);
        rv = llq_tls_start(conn, tls);
        llq_leave(previous);
        if (rv != 0) conn->tls_error = rv;
    }
    *error = rv;
    if (rv != 0) {
        llq_conn_free(conn);
        return NULL;
    }
    ngtcp2_conn_set_tls_native_handle(conn->conn, conn->session);
    return conn;
}

llq_conn *llq_conn_client_new(const llq_owner *owner, const llq_cid *dcid, const llq_cid *scid, const llq_path *path,
                              const llq_settings *source, const llq_tls *tls, int *error) {
    llq_conn *conn = allocate(owner, false, source, tls);
    if (!conn) return NULL;
    conn->use_preferred_address = source->use_preferred_address;
    uint32_t version = source->first_version;
    ngtcp2_callbacks callbacks;
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    ngtcp2_cid d, s;
    llq_path_buffer p;
    llq_fill_callbacks(&callbacks, false);
    llq_fill_settings(&settings, source, conn);
    llq_fill_params(&params, source);
    llq_cid_to_ngtcp2(&d, dcid);
    llq_cid_to_ngtcp2(&s, scid);
    llq_path_to_ngtcp2(&p, path);
    llq_conn *previous = llq_enter(conn);
    int rv = ngtcp2_conn_client_new(&conn->conn, &d, &s, &p.path, version, &callbacks, &settings, &params,
                                    llq_arena_mem(conn->arena), conn);
    llq_leave(previous);
    return finish(conn, rv, tls, error);
}

llq_conn *llq_conn_server_new(const llq_owner *owner, const llq_cid *client_scid, const llq_cid *scid,
                              const llq_cid *original_dcid, const llq_cid *retry_scid, int token_from_retry,
                              uint32_t version, const llq_path *path, const uint8_t *reset_token,
                              const llq_settings *source, const llq_tls *tls, int *error) {
    llq_conn *conn = allocate(owner, true, source, tls);
    if (!conn) return NULL;
    ngtcp2_callbacks callbacks;
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    ngtcp2_cid d, s;
    llq_path_buffer p;
    llq_fill_callbacks(&callbacks, true);
    llq_fill_settings(&settings, source, conn);
    llq_fill_params(&params, source);
    llq_cid_to_ngtcp2(&params.original_dcid, original_dcid);
#if LLQ_NGTCP2_1
    params.original_dcid_present = 1;
    settings.token_type = token_from_retry ? NGTCP2_TOKEN_TYPE_RETRY : NGTCP2_TOKEN_TYPE_NEW_TOKEN;
    if (source->token_length == 0) settings.token_type = NGTCP2_TOKEN_TYPE_UNKNOWN;
#else
    (void)token_from_retry;
    settings.qlog.odcid = params.original_dcid;
#endif
    if (retry_scid) {
        llq_cid_to_ngtcp2(&params.retry_scid, retry_scid);
        params.retry_scid_present = 1;
    }
    memcpy(params.stateless_reset_token, reset_token, LLQ_RESET_TOKEN_LENGTH);
    params.stateless_reset_token_present = 1;
    if (conn->owner.qlog && !llq_qlog_fits(&params, scid->length)) {
        conn->owner.qlog = NULL;
#if LLQ_NGTCP2_1
        settings.qlog_write = NULL;
#else
        settings.qlog.write = NULL;
#endif
    }
    llq_cid_to_ngtcp2(&d, client_scid);
    llq_cid_to_ngtcp2(&s, scid);
    llq_path_to_ngtcp2(&p, path);
    llq_alias_init(&conn->aliases, path, source);
    conn->own_cid_length = scid->length;
    conn->first_version = version;
    for (size_t i = 0; i < source->version_count && i < LLQ_MAX_VERSIONS; i++)
        conn->versions[conn->version_count++] = source->versions[i];
    conn->forbids_migration = source->forbid_migration != 0;
    llq_conn *previous = llq_enter(conn);
    int rv = ngtcp2_conn_server_new(&conn->conn, &d, &s, &p.path, version, &callbacks, &settings, &params,
                                    llq_arena_mem(conn->arena), conn);
    llq_leave(previous);
    return finish(conn, rv, tls, error);
}

void llq_conn_free(llq_conn *conn) {
    if (!conn) return;
    if (conn->conn) ngtcp2_conn_del(conn->conn);
    if (conn->session) gnutls_deinit(conn->session);
    free(conn->client_hello);
    free(conn->pins);
    free(conn->server_name);
    gnutls_memset(conn->exporter, 0, sizeof conn->exporter);
    llq_arena_free(conn->arena);
}

int llq_conn_early_data_possible(const llq_conn *conn) { return conn->early_attempted; }

static int normalize(int rv) {
    switch (rv) {
    case NGTCP2_ERR_DRAINING: return LLQ_DRAINING;
    case NGTCP2_ERR_DROP_CONN: return LLQ_DROP;
    case NGTCP2_ERR_RETRY: return LLQ_RETRY;
    case NGTCP2_ERR_IDLE_CLOSE: return LLQ_IDLE;
    case NGTCP2_ERR_HANDSHAKE_TIMEOUT: return LLQ_HANDSHAKE_TIMEOUT;
    case NGTCP2_ERR_CLOSING: return LLQ_CLOSING;
    default: return rv;
    }
}

int llq_conn_read(llq_conn *conn, const llq_path *path, uint8_t ecn, const uint8_t *packets, size_t length,
                  size_t segment, size_t allowed, uint64_t now) {
    llq_path_buffer p;
    ngtcp2_pkt_info info = {.ecn = ecn};
    llq_path known = *path;
    llq_path_alias alias;
    uint64_t authenticated = conn->packets_authenticated;
    if (conn->is_server && !llq_alias_enter(conn, &known, &alias, packets, length, now)) return LLQ_OK;
    llq_path_to_ngtcp2(&p, &known);
    llq_conn *previous = llq_enter(conn);
    if (ecn == NGTCP2_ECN_CE) llq_acks_note_received(conn, false, length);
    int rv = 0;
    bool is_current = !conn->is_server || alias.is_current;
    size_t received = 0;
    llq_arena_set_reading(conn->arena, true);
    while (length > 0 && rv == 0) {
        size_t size = length < segment ? length : segment;
        rv = ngtcp2_conn_read_pkt(conn->conn, &p.path, &info, packets, size, now);
        // ngtcp2 counts a datagram that makes it move, too.
        if (!is_current) is_current = llq_alias_is_current(conn, &alias);
        if (is_current) received += size;
        packets += size;
        length -= size;
        if (rv == 0 && llq_arena_read_bytes(conn->arena) > allowed) rv = LLQ_TOO_MUCH;
    }
    llq_arena_set_reading(conn->arena, false);
    llq_emit_acked(conn);
    llq_leave(previous);
    if (conn->is_server) {
        llq_alias_leave(conn, &alias, conn->packets_authenticated > authenticated);
        llq_limit_note_received(conn, received);
    }
    if (rv == NGTCP2_ERR_CALLBACK_FAILURE && conn->timer.limit_broken) rv = NGTCP2_ERR_STREAM_LIMIT;
    return normalize(rv);
}

llq_close llq_conn_close_for_error(llq_conn *conn, int error) {
    ngtcp2_ccerr ccerr;
    ngtcp2_ccerr_default(&ccerr);
    if (error == NGTCP2_ERR_CRYPTO)
        ngtcp2_ccerr_set_tls_alert(&ccerr, ngtcp2_conn_get_tls_alert(conn->conn), NULL, 0);
    else
        ngtcp2_ccerr_set_liberr(&ccerr, error, NULL, 0);
    llq_close close = {.kind = LLQ_CLOSE_TRANSPORT, .code = ccerr.error_code};
    if (ccerr.type != NGTCP2_CCERR_TYPE_TRANSPORT) close.kind = LLQ_CLOSE_SILENT;
    return close;
}

static llq_close from_ccerr(const ngtcp2_ccerr *error) {
    llq_close close = {.kind = error->type == NGTCP2_CCERR_TYPE_APPLICATION ? LLQ_CLOSE_APPLICATION
                                                                            : LLQ_CLOSE_TRANSPORT,
                       .code = error->error_code,
                       .reason = error->reason,
                       .reason_length = error->reasonlen};
    return close;
}

llq_close llq_conn_peer_close(llq_conn *conn) {
#if LLQ_NGTCP2_1
    return from_ccerr(ngtcp2_conn_get_ccerr(conn->conn));
#else
    ngtcp2_ccerr error;
    ngtcp2_conn_get_connection_close_error(conn->conn, &error);
    return from_ccerr(&error);
#endif
}

uint64_t llq_conn_expiry(llq_conn *conn) {
    if (conn->aliases.is_lost) return llq_alias_lost_until(conn);
    uint64_t expiry = ngtcp2_conn_get_expiry(conn->conn), deadline = llq_size_deadline(conn);
    return deadline < expiry ? deadline : expiry;
}

int llq_conn_handle_expiry(llq_conn *conn, uint64_t now) {
    if (conn->aliases.is_lost) return now >= llq_alias_lost_until(conn) ? LLQ_IDLE : LLQ_OK;
    llq_conn *previous = llq_enter(conn);
    llq_conn_watch_size(conn, now);
    int rv = ngtcp2_conn_handle_expiry(conn->conn, now);
    llq_leave(previous);
    return normalize(rv);
}

void llq_conn_update_tx_time(llq_conn *conn, uint64_t now) {
#if !LLQ_NGTCP2_1
    // Until a round trip is measured, 0.12 paces by the initial RTT (a third of a second): the second packet of a first
    // flight would wait tens of milliseconds, and with it the answer to 0-RTT data. The initial window bounds what leaves
    // meanwhile, which RFC 9002 section 7.7 allows as a burst. 1.x paces by 1 ms then.
    if (!conn->round_trip_known) {
        ngtcp2_conn_info info;
        ngtcp2_conn_get_conn_info(conn->conn, &info);
        conn->round_trip_known = info.first_rtt_sample_ts != UINT64_MAX;
        if (!conn->round_trip_known) now = now > info.smoothed_rtt ? now - info.smoothed_rtt : 0;
    }
#endif
    ngtcp2_conn_update_pkt_tx_time(conn->conn, now);
}
uint64_t llq_conn_pto(llq_conn *conn) { return ngtcp2_conn_get_pto(conn->conn); }
size_t llq_conn_send_quantum(llq_conn *conn) { return ngtcp2_conn_get_send_quantum(conn->conn); }
uint64_t llq_conn_cwnd_left(llq_conn *conn) { return ngtcp2_conn_get_cwnd_left(conn->conn); }
int llq_conn_handshake_completed(llq_conn *conn) { return ngtcp2_conn_get_handshake_completed(conn->conn) != 0; }

void llq_conn_set_keep_alive(llq_conn *conn, uint64_t interval) {
#if LLQ_NGTCP2_1
    ngtcp2_conn_set_keep_alive_timeout(conn->conn, interval ? interval : UINT64_MAX);
#else
    ngtcp2_conn_set_keep_alive_timeout(conn->conn, interval);
#endif
}

int llq_conn_open_stream(llq_conn *conn, int bidirectional, int64_t *stream_id) {
    llq_conn *previous = llq_enter(conn);
    int rv = bidirectional ? ngtcp2_conn_open_bidi_stream(conn->conn, stream_id, NULL)
                           : ngtcp2_conn_open_uni_stream(conn->conn, stream_id, NULL);
    llq_leave(previous);
    return rv == NGTCP2_ERR_STREAM_ID_BLOCKED ? LLQ_NOT_NOW : rv;
}

int llq_conn_reset_stream(llq_conn *conn, int64_t stream_id, uint64_t code) {
    llq_conn *previous = llq_enter(conn);
#if LLQ_NGTCP2_1
    int rv = ngtcp2_conn_shutdown_stream_write(conn->conn, 0, stream_id, code);
#else
    int rv = ngtcp2_conn_shutdown_stream_write(conn->conn, stream_id, code);
#endif
    llq_leave(previous);
    return rv;
}

int llq_conn_stop_sending(llq_conn *conn, int64_t stream_id, uint64_t code) {
    llq_conn *previous = llq_enter(conn);
#if LLQ_NGTCP2_1
    int rv = ngtcp2_conn_shutdown_stream_read(conn->conn, 0, stream_id, code);
#else
    int rv = ngtcp2_conn_shutdown_stream_read(conn->conn, stream_id, code);
#endif
    llq_leave(previous);
    return rv;
}

void llq_conn_extend_stream(llq_conn *conn, int64_t stream_id, uint64_t count) {
    ngtcp2_conn_extend_max_stream_offset(conn->conn, stream_id, count);
}

void llq_conn_extend_connection(llq_conn *conn, uint64_t count) { ngtcp2_conn_extend_max_offset(conn->conn, count); }

void llq_conn_extend_max_streams(llq_conn *conn, int bidirectional, size_t count) {
    if (bidirectional)
        ngtcp2_conn_extend_max_streams_bidi(conn->conn, count);
    else
        ngtcp2_conn_extend_max_streams_uni(conn->conn, count);
}

uint64_t llq_conn_streams_left(llq_conn *conn, int bidirectional) {
    return bidirectional ? ngtcp2_conn_get_streams_bidi_left(conn->conn) : ngtcp2_conn_get_streams_uni_left(conn->conn);
}

uint64_t llq_conn_peer_datagram_limit(llq_conn *conn) {
    const ngtcp2_transport_params *params = ngtcp2_conn_get_remote_transport_params(conn->conn);
    return params ? params->max_datagram_frame_size : 0;
}

int llq_conn_peer_forbids_migration(llq_conn *conn) {
    const ngtcp2_transport_params *params = ngtcp2_conn_get_remote_transport_params(conn->conn);
    return params && params->disable_active_migration;
}

int llq_conn_migrate(llq_conn *conn, const llq_path *path, uint64_t now) {
    llq_path_buffer p;
    llq_path_to_ngtcp2(&p, path);
    llq_conn *previous = llq_enter(conn);
    int rv = ngtcp2_conn_initiate_immediate_migration(conn->conn, &p.path, now);
    llq_leave(previous);
    return rv;
}

int llq_conn_update_key(llq_conn *conn, uint64_t now) {
    // ngtcp2 aborts the process where it is asked before.
    if (!conn->is_past_handshake) return NGTCP2_ERR_INVALID_STATE;
    llq_conn *previous = llq_enter(conn);
    int rv = ngtcp2_conn_initiate_key_update(conn->conn, now);
    llq_leave(previous);
    return rv;
}

llq_path llq_conn_path(llq_conn *conn) {
    llq_path path;
    llq_path_from_ngtcp2(&path, ngtcp2_conn_get_path(conn->conn));
    llq_alias_restore(conn, &path);
    return path;
}

int llq_conn_submit_token(llq_conn *conn, const uint8_t *token, size_t length) {
    return ngtcp2_conn_submit_new_token(conn->conn, token, length);
}

void llq_conn_stats(llq_conn *conn, llq_stats *stats) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(conn->conn, &info);
    stats->latest_rtt = info.latest_rtt;
    stats->min_rtt = info.min_rtt == UINT64_MAX ? 0 : info.min_rtt;
    stats->smoothed_rtt = info.smoothed_rtt;
    stats->rtt_variation = info.rttvar;
    stats->congestion_window = info.cwnd;
    stats->bytes_in_flight = info.bytes_in_flight;
}

uint64_t llq_conn_next_packet(const llq_conn *conn) { return conn->next_packet; }
uint64_t llq_conn_acked_to(const llq_conn *conn) { return conn->guard.acked_to; }

uint64_t llq_conn_loss_delay(llq_conn *conn) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(conn->conn, &info);
    uint64_t rtt = info.latest_rtt > info.smoothed_rtt ? info.latest_rtt : info.smoothed_rtt;
    uint64_t delay = rtt * 9 / 8;
    return delay > NGTCP2_MILLISECONDS ? delay : NGTCP2_MILLISECONDS;
}

uint64_t llq_conn_packets_authenticated(const llq_conn *conn) { return conn->packets_authenticated; }
size_t llq_conn_read_memory(const llq_conn *conn) { return llq_arena_read_bytes(conn->arena); }
uint64_t llq_conn_key_updates(const llq_conn *conn) { return conn->key_updates; }
uint64_t llq_conn_packets_lost(const llq_conn *conn) { return conn->packets_lost; }
uint32_t llq_conn_version(llq_conn *conn) { return ngtcp2_conn_get_negotiated_version(conn->conn); }

int llq_version_available(uint32_t version) {
    // ngtcp2 0.12 also speaks drafts, whose wire images are of no use any more.
    return (version == 0x00000001u || version == 0x6b3343cfu) && ngtcp2_is_supported_version(version) != 0;
}

size_t llq_conn_peer_reset_tokens(llq_conn *conn, uint8_t *tokens, size_t capacity) {
    ngtcp2_cid_token active[16];
    size_t copied = 0;
#if LLQ_NGTCP2_1
    size_t count = ngtcp2_conn_get_active_dcid(conn->conn, NULL);
#else
    size_t count = ngtcp2_conn_get_num_active_dcid(conn->conn);
#endif
    if (count > 16) return 0;
    count = ngtcp2_conn_get_active_dcid(conn->conn, active);
    for (size_t i = 0; i < count && copied < capacity; i++) {
        if (!active[i].token_present) continue;
        memcpy(tokens + copied++ * LLQ_RESET_TOKEN_LENGTH, active[i].token, LLQ_RESET_TOKEN_LENGTH);
    }
    return copied;
}

const char *llq_error_name(int error) { return ngtcp2_strerror(error); }

const char *llq_ngtcp2_version(void) { return ngtcp2_version(0)->version_str; }

int llq_contains_frames(void) { return !LLQ_NGTCP2_1; }

int llq_keeps_stopped_streams(void) { return !LLQ_NGTCP2_1; }

int llq_gives_ids_unacknowledged(void) { return !LLQ_NGTCP2_1; }

int llq_conn_has_stream(llq_conn *conn, int64_t stream_id) {
    // No stream has user data: this only asks whether there is a stream.
    return ngtcp2_conn_set_stream_user_data(conn->conn, stream_id, NULL) == 0;
}

uint64_t llq_conn_data_left(llq_conn *conn) { return ngtcp2_conn_get_max_data_left(conn->conn); }
