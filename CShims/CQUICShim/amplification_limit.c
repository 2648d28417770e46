// ngtcp2 sends no more than three times the bytes that came from a path, until that is validated (RFC 9000 section 8.1).
// When it is asked for a packet and has used that up, it cancels its loss timer, as RFC 9002 appendix A.8 wants. Once the
// handshake is complete it doesn't set it again, though, when more bytes come or the path is validated: only a packet
// that it sends or an acknowledgement that it gets does. If what is under way is lost and fills the congestion window,
// there is neither. After a client's move its answers can fill it, and ngtcp2's window can be smaller than that then.
//
// So ngtcp2 is never asked at the limit: the last byte is kept from it. Its timer runs on meanwhile, and the probes that it
// asks for leave as soon as there is room. What ngtcp2 counts is counted here too, and nothing that it might not count.
//
// Where less is left than a packet needs, ngtcp2 gets no room at all: with a little, it takes a PATH_CHALLENGE for sent that
// had none.

#include "internal.h"

#include <string.h>

// A PATH_CHALLENGE behind a short header with the longest connection ID and packet number, and the tag.
#define SMALLEST_PACKET (1 + LLQ_MAX_CID_LENGTH + 4 + 9 + 16)

void llq_limit_begin(llq_conn *conn) {
    conn->limit.is_in_force = true;
    conn->limit.challenge_count = 0;
}

void llq_limit_note_challenge(llq_conn *conn, const uint8_t *data) {
    size_t place = conn->limit.challenge_count++ % LLQ_LIMIT_CHALLENGES;
    memcpy(conn->limit.challenges[place], data, LLQ_CHALLENGE_LENGTH);
}

void llq_limit_note_response(llq_conn *conn, const uint8_t *data) {
    llq_path_limit *limit = &conn->limit;
    if (!limit->is_in_force) return;
    size_t count = limit->challenge_count < LLQ_LIMIT_CHALLENGES ? limit->challenge_count : LLQ_LIMIT_CHALLENGES;
    for (size_t i = 0; i < count; i++)
        if (memcmp(limit->challenges[i], data, LLQ_CHALLENGE_LENGTH) == 0) llq_limit_end(conn);
}

void llq_limit_end(llq_conn *conn) {
    llq_allowance *allowance = llq_alias_allowance(conn);
    if (allowance) allowance->is_validated = true;
}

void llq_limit_note_received(llq_conn *conn, size_t length) {
    if (!conn->limit.is_in_force) return;
    llq_allowance *allowance = llq_alias_allowance(conn);
    if (allowance) allowance->received += length;
}

size_t llq_limit_room(llq_conn *conn, size_t capacity) {
    if (!conn->limit.is_in_force) return capacity;
    const llq_allowance *allowance = llq_alias_allowance(conn);
    if (!allowance || allowance->is_validated) {
        conn->limit.is_in_force = false;
        return capacity;
    }
    uint64_t allowed = 3 * allowance->received;
    uint64_t left = allowed > allowance->sent ? allowed - allowance->sent : 0;
    if (left <= SMALLEST_PACKET) return 0;
    return left - 1 < capacity ? (size_t)left - 1 : capacity;
}

void llq_limit_note_sent(llq_conn *conn, const ngtcp2_path *path, ngtcp2_ssize length) {
    if (!conn->limit.is_in_force || length <= 0 || !ngtcp2_path_eq(path, ngtcp2_conn_get_path(conn->conn))) return;
    llq_allowance *allowance = llq_alias_allowance(conn);
    if (allowance) allowance->sent += (uint64_t)length;
}
