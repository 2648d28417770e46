// ngtcp2 puts an acknowledgement into a packet only when it is due: with the second packet received, or an eighth of a round trip behind
// the first (RFC 9000 section 13.2.1). An answer that leaves sooner goes without, and a packet with nothing else follows it; where the
// round trip is short the acknowledgement is due at once, before any answer. So ngtcp2 takes each as due, which puts it into
// whatever is written next, and how long nothing is written is for the owner to say, for as long as this allows.

#include "internal.h"

// A packet of the least size that every path takes counts four times. RFC 9000 section 13.2.2 advises not to wait behind two packets
// of any size; TCP's rule, of two full-sized ones, is what congestion controllers need.
#define BYTES_EACH 256
#define LEAST_DELAY (5 * NGTCP2_MILLISECONDS)

void llq_acks_note_received(llq_conn *conn, bool is_ordinary, size_t length) {
    llq_unacknowledged *acks = &conn->unacknowledged;
    if (!is_ordinary) {
        acks->is_urgent = true;
    } else if (conn->guard.is_eliciting) {
        size_t weight = length / BYTES_EACH;
        acks->weight += weight > 0 ? weight : 1;
    }
}

void llq_acks_note_sent(llq_conn *conn, ngtcp2_ssize length) {
    // A probe of the path goes without, and what is behind it is written in the same go: nothing waits then.
    if (length >= 0) conn->unacknowledged = (llq_unacknowledged){0};
}

int llq_conn_acks_wait(const llq_conn *conn) {
    const llq_unacknowledged *acks = &conn->unacknowledged;
    return acks->weight > 0 && acks->weight < conn->ack_threshold && !acks->is_urgent && !conn->timer.is_due &&
           conn->timer.untimed == 0;
}

uint64_t llq_conn_ack_delay(llq_conn *conn) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(conn->conn, &info);
    uint64_t delay = info.smoothed_rtt / 8;
    return delay > LEAST_DELAY ? delay : LEAST_DELAY;
}
