// A connection writes its packets.

#include "internal.h"

#include <string.h>

/// How much ngtcp2 may have for its next packet.
static size_t room(llq_conn *conn, size_t capacity) { return llq_size_room(conn, llq_limit_room(conn, capacity)); }

static void note_sent(llq_conn *conn, const ngtcp2_path *path, ngtcp2_ssize length, uint64_t now) {
    llq_limit_note_sent(conn, path, length);
    llq_acks_note_sent(conn, length);
    llq_size_note_sent(conn, path, length, now);
}

/// Whether a packet stays open for more. ngtcp2 pads one with an answer to PATH_CHALLENGE (RFC 9000 section 8.2.2), and forgets to when
/// more goes into it: such a packet is over with what it gets first.
static bool stays_open(const llq_conn *conn, uint32_t more) {
    return more && (conn->timer.untimed == 0 || conn->timer.is_packet_open);
}

static ssize_t normalize_write(llq_conn *conn, ngtcp2_ssize rv, llq_path *path, uint8_t *ecn,
                               const ngtcp2_path_storage *storage, const ngtcp2_pkt_info *info) {
    if (rv > 0) {
        llq_path_from_ngtcp2(path, &storage->path);
        llq_alias_restore(conn, path);
        *ecn = (uint8_t)(info->ecn & NGTCP2_ECN_MASK);
        return rv;
    }
    switch (rv) {
    case NGTCP2_ERR_WRITE_MORE: return LLQ_WRITE_MORE;
    case NGTCP2_ERR_STREAM_DATA_BLOCKED: return LLQ_STREAM_BLOCKED;
    case NGTCP2_ERR_STREAM_SHUT_WR:
    case NGTCP2_ERR_STREAM_NOT_FOUND: return LLQ_STREAM_SHUT;
    case NGTCP2_ERR_NO_VIABLE_PATH:
        if (!conn->is_server) return rv;
        conn->aliases.is_lost = true;
        return 0;
    default: return rv;
    }
}

ssize_t llq_conn_write_stream(llq_conn *conn, llq_path *path, uint8_t *ecn, uint8_t *destination, size_t capacity,
                              ssize_t *accepted, uint32_t more, uint32_t fin, int64_t stream_id, const llq_vec *data,
                              size_t count, uint64_t now) {
    ngtcp2_path_storage storage;
    ngtcp2_pkt_info info = {0};
    ngtcp2_ssize taken = -1;
    uint32_t flags = (stays_open(conn, more) ? NGTCP2_WRITE_STREAM_FLAG_MORE : 0u) |
                     (fin ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0u);
    ngtcp2_path_storage_zero(&storage);
    *accepted = -1;
    if (conn->aliases.is_lost) return 0;
    llq_conn *previous = llq_enter(conn);
    llq_timer_begin(conn);
    ngtcp2_ssize rv =
        ngtcp2_conn_writev_stream(conn->conn, &storage.path, &info, destination, room(conn, capacity),
                                  &taken, flags, stream_id, (const ngtcp2_vec *)(const void *)data, count, now);
    llq_timer_end(conn, rv);
    note_sent(conn, &storage.path, rv, now);
    llq_leave(previous);
    *accepted = taken;
    return normalize_write(conn, rv, path, ecn, &storage, &info);
}

/// Drops bytes that were taken from the front of the vectors.
static void advance_vectors(llq_vec **data, size_t *count, size_t taken) {
    while (taken > 0 && *count > 0) {
        if (taken < (*data)->length) {
            (*data)->base += taken;
            (*data)->length -= taken;
            return;
        }
        taken -= (*data)->length;
        (*data)++;
        (*count)--;
    }
}

void llq_conn_write_run(llq_conn *conn, llq_run *run, uint8_t *destination, size_t capacity, size_t segments,
                        int64_t stream_id, llq_vec *data, size_t count, size_t bytes, uint64_t now) {
    ngtcp2_path_storage first, storage;
    ngtcp2_pkt_info info = {0};
    uint8_t first_ecn = 0;
    size_t largest = ngtcp2_conn_get_max_tx_udp_payload_size(conn->conn);
    size_t path_largest = ngtcp2_conn_get_path_max_tx_udp_payload_size(conn->conn);
    memset(run, 0, sizeof *run);
    if (conn->aliases.is_lost) return;
    run->result = LLQ_WRITE_MORE;
    ngtcp2_path_storage_zero(&first);
    ngtcp2_path_storage_zero(&storage);
    llq_conn *previous = llq_enter(conn);
    // Less than two packets' worth is left to the caller, who fills the last packet with what else there is.
    while (run->segments < segments && capacity - run->length >= largest && bytes >= 2 * largest) {
        ngtcp2_path *path = run->segments == 0 ? &first.path : &storage.path;
        ngtcp2_ssize taken = -1;
        llq_timer_begin(conn);
        ngtcp2_ssize rv =
            ngtcp2_conn_writev_stream(conn->conn, path, &info, destination + run->length,
                                      room(conn, largest), &taken, 0, stream_id,
                                      (const ngtcp2_vec *)(const void *)data, count, now);
        llq_timer_end(conn, rv);
        note_sent(conn, path, rv, now);
        if (taken > 0) {
            run->accepted += (size_t)taken;
            bytes -= (size_t)taken;
            advance_vectors(&data, &count, (size_t)taken);
        }
        if (rv <= 0) {
            run->result = normalize_write(conn, rv, NULL, NULL, NULL, NULL);
            break;
        }
        uint8_t ecn = (uint8_t)(info.ecn & NGTCP2_ECN_MASK);
        if (run->segments == 0) {
            run->segment = (size_t)rv;
            first_ecn = ecn;
        } else if (ecn != first_ecn || (size_t)rv > run->segment || !ngtcp2_path_eq(&first.path, path) ||
                   // A probe larger than the path's packets travels alone.
                   (run->segment > path_largest && (size_t)rv != run->segment)) {
            run->extra = (size_t)rv;
            run->extra_ecn = ecn;
            llq_path_from_ngtcp2(&run->extra_path, path);
            llq_alias_restore(conn, &run->extra_path);
            break;
        }
        run->length += (size_t)rv;
        run->segments++;
        if ((size_t)rv < run->segment) break;
    }
    llq_leave(previous);
    if (run->segments > 0) {
        run->ecn = first_ecn;
        llq_path_from_ngtcp2(&run->path, &first.path);
        llq_alias_restore(conn, &run->path);
    }
}

#if !LLQ_NGTCP2_1
/// Whether a datagram fits a packet with the frame that sets the timer. One for which the path has become too small would
/// be displaced by that frame again and again.
static bool leaves_room(llq_conn *conn, size_t length) {
    // A short header with the longest connection ID and packet number, and the tag.
    size_t overhead = 1 + LLQ_MAX_CID_LENGTH + 4 + 16 + llq_datagram_overhead();
    return length + overhead <= ngtcp2_conn_get_path_max_tx_udp_payload_size(conn->conn);
}
#endif

ssize_t llq_conn_write_datagram(llq_conn *conn, llq_path *path, uint8_t *ecn, uint8_t *destination, size_t capacity,
                                int *accepted, uint32_t more, uint64_t id, const uint8_t *data, size_t length,
                                uint64_t now) {
    ngtcp2_path_storage storage;
    ngtcp2_pkt_info info = {0};
    ngtcp2_vec vec = {.base = (uint8_t *)(uintptr_t)data, .len = length};
    uint32_t flags = stays_open(conn, more) ? NGTCP2_WRITE_DATAGRAM_FLAG_MORE : 0u;
    ngtcp2_path_storage_zero(&storage);
    *accepted = 0;
    if (conn->aliases.is_lost) return 0;
#if !LLQ_NGTCP2_1
    // A 0-RTT packet with nothing else is too short for its header to be protected, on which this version aborts the process.
    if (!conn->is_server && length == 0 && !ngtcp2_conn_get_handshake_completed(conn->conn)) return LLQ_NOT_NOW;
#endif
    llq_conn *previous = llq_enter(conn);
    llq_timer_begin(conn);
#if !LLQ_NGTCP2_1
    if (!conn->timer.is_packet_open && leaves_room(conn, length)) llq_timer_request(conn);
#endif
    // Every version aborts the process on a vector without bytes.
    size_t count = length > 0 ? 1 : 0;
    ngtcp2_ssize rv = ngtcp2_conn_writev_datagram(conn->conn, &storage.path, &info, destination, room(conn, capacity),
                                                  accepted, flags, id, &vec, count, now);
    llq_timer_end(conn, rv);
    note_sent(conn, &storage.path, rv, now);
    llq_leave(previous);
    if (rv == NGTCP2_ERR_INVALID_STATE || rv == NGTCP2_ERR_INVALID_ARGUMENT) return LLQ_NOT_NOW;
    return normalize_write(conn, rv, path, ecn, &storage, &info);
}

ssize_t llq_conn_write_close(llq_conn *conn, llq_path *path, uint8_t *ecn, uint8_t *destination, size_t capacity,
                             uint8_t *brief, size_t *brief_length, const llq_close *close, uint64_t now) {
    llq_brief_close made = {.close = close, .bytes = brief};
    ngtcp2_path_storage storage;
    ngtcp2_pkt_info info = {0};
    ngtcp2_ccerr error;
    ngtcp2_path_storage_zero(&storage);
    ngtcp2_ccerr_default(&error);
    if (close->kind == LLQ_CLOSE_APPLICATION)
        ngtcp2_ccerr_set_application_error(&error, close->code, close->reason, close->reason_length);
    else
        ngtcp2_ccerr_set_transport_error(&error, close->code, close->reason, close->reason_length);
    llq_conn *previous = llq_enter(conn);
    if (close->reason_length > 0) conn->brief = &made;
    ngtcp2_ssize rv = ngtcp2_conn_write_connection_close(conn->conn, &storage.path, &info, destination, capacity,
                                                         &error, now);
    conn->brief = NULL;
    llq_leave(previous);
    *brief_length = rv > 0 && !made.has_others ? made.length : 0;
    return rv < 0 ? 0 : normalize_write(conn, rv, path, ecn, &storage, &info);
}
