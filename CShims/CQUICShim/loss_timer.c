// ngtcp2 sets its loss timer only for packets with frames that it would send again, and for its own PATH_CHALLENGE; not for
// PATH_RESPONSE and, in version 0.12, not for PING and DATAGRAM. Packets with nothing else count against the congestion
// window all the same. Where they or their acknowledgements are lost and nothing else is under way, nothing finds out:
// nobody hears that a datagram was lost, and once such packets fill the window nothing is sent any more, until the idle
// timeout. Forty rebindings of a NAT at once are enough, or a second of datagrams into a tunnel.
//
// So each of them gets a frame with it that ngtcp2 would send again: MAX_STREAMS for unidirectional streams, with the limit
// that the peer knows already, which tells it nothing (RFC 9000 section 19.11). ngtcp2 writes one only when the limit rises.
// It is raised by one then, and what that adds up to, the surplus, is taken off the frame again before the packet is
// protected. That the peer opens no stream of the surplus is checked here.
//
// ngtcp2 0.12 lets the peer open another stream in place of one whose first frame is RESET_STREAM at once, whatever its owner says: a
// peer could be ahead of the owner for ever. Such a stream is of the surplus, too, for either kind, and the owner gives credit for it.
//
// A packet that is to have its timer keeps it by having the newest such frame: of two, ngtcp2 sends only the newer one
// again, and the older one's packet lies before it, so that the acknowledgement of the newer one's tells of its loss.

#include "frame_reader.h"
#include "internal.h"

// Type, and the longest number.
#define LIMIT_FRAME_LENGTH 9
#define MAX_UNTIMED 8

void llq_timer_request(llq_conn *conn) {
    // Before that the handshake's own packets are under way, and there is no other limit than the one that goes with them.
    if (conn->timer.is_due || !ngtcp2_conn_get_handshake_completed(conn->conn)) return;
    ngtcp2_conn_extend_max_streams_uni(conn->conn, 1);
    conn->timer.unidirectional.surplus++;
    conn->timer.is_due = true;
}

static llq_stream_limit *limit_of(llq_conn *conn, bool bidirectional) {
    return bidirectional ? &conn->timer.bidirectional : &conn->timer.unidirectional;
}

void llq_timer_withhold(llq_conn *conn, int64_t stream_id) { limit_of(conn, !(stream_id & 2))->surplus++; }

void llq_timer_note_limit(llq_conn *conn, bool bidirectional, uint64_t limit) {
    llq_stream_limit *known = limit_of(conn, bidirectional);
    known->told = limit - known->surplus;
    if (bidirectional) return;
    conn->timer.is_due = false;
    if (conn->timer.untimed > 0) conn->timer.untimed--;
}

void llq_timer_expect(llq_conn *conn, size_t count) {
    // ngtcp2 answers the latest ones only.
    conn->timer.untimed += count;
    if (conn->timer.untimed > MAX_UNTIMED) conn->timer.untimed = MAX_UNTIMED;
}

void llq_timer_begin(llq_conn *conn) {
    if (conn->timer.untimed > 0 && !conn->timer.is_packet_open) llq_timer_request(conn);
}

void llq_timer_end(llq_conn *conn, ngtcp2_ssize result) {
    if (result == NGTCP2_ERR_WRITE_MORE) conn->timer.is_packet_open = true;
    if (result >= 0) conn->timer.is_packet_open = false;
}

void llq_timer_conceal(const llq_conn *conn, uint8_t *plaintext, size_t length) {
    if (conn->timer.bidirectional.surplus == 0 && conn->timer.unidirectional.surplus == 0) return;
    llq_reader r = {plaintext, plaintext + length};
    while (r.position < r.end && *r.position != 0) {
        uint64_t type, limit;
        if (llq_read_varint(&r, &type)) return;
        // MAX_STREAMS.
        if (type != 0x12 && type != 0x13) {
            if (llq_skip_frame(&r, type)) return;
            continue;
        }
        uint8_t *number = r.position;
        if (llq_read_varint(&r, &limit)) return;
        uint64_t surplus = type == 0x12 ? conn->timer.bidirectional.surplus : conn->timer.unidirectional.surplus;
        // A frame from before the surplus grew says too little then. The one behind it says more.
        limit = limit > surplus ? limit - surplus : 0;
        uint8_t prefix = *number & 0xc0;
        for (uint8_t *byte = r.position; byte-- > number; limit >>= 8) *byte = (uint8_t)limit;
        *number |= prefix;
    }
}

bool llq_timer_admits(llq_conn *conn, int64_t stream_id) {
    bool is_peers = (stream_id & 1) == (conn->is_server ? 0 : 1);
    if (!is_peers || (uint64_t)stream_id >> 2 < limit_of(conn, !(stream_id & 2))->told) return true;
    conn->timer.limit_broken = true;
    return false;
}

void llq_conn_elicit(llq_conn *conn) { llq_timer_request(conn); }
int llq_conn_owes_packet(const llq_conn *conn) { return conn->timer.is_due; }

size_t llq_datagram_overhead(void) {
    // Type and length of the frame.
    return 3 + (LLQ_NGTCP2_1 ? 0 : LIMIT_FRAME_LENGTH);
}
