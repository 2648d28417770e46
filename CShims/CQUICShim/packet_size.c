// ngtcp2's path MTU discovery only finds more. Where a path takes less than before, because a route changed or a tunnel came up
// below, each packet of the size that was found is lost, and what it carried is sent again in packets of that size: nothing but
// small packets arrives any more. So the largest packets are watched, which is the black hole detection of RFC 8899 section 4.3.
//
//   open --of the largest packets none is acknowledged for six probe timeouts--> doubted
//   doubted --one is--> open             doubted --the packet that tried again isn't for three--> closed
//   closed --after 10 s, and twice as long each time, at most 600 s (PMTU_RAISE_TIMER)--> doubted
//
// While a size is in doubt ngtcp2 gets no more room for a packet than what every path takes, and something of that size leaves at
// once. When the peer acknowledges that, the path is alive, and one larger packet tries again: it tells a path that takes
// less from one that took nothing for a while. Only when that is lost, too, is the lesser size told as the path's.
//
// A new path begins with what every path takes: all that was known of the one before is forgotten.

#include "internal.h"

#include <string.h>

// What every path takes (RFC 9000 section 14).
#define LEAST 1200
// A packet that is smaller by no more counts as one of the largest: not each is filled to its last byte. One that is smaller by
// more proves nothing: a path may take the largest datagrams, and not the few bytes that a stream's packets have more.
#define SLACK 3
#define LEAST_LOST 4
#define DOUBTED_AFTER 6 // probe timeouts
#define ANSWERED_AFTER 2 // probe timeouts: the last of those that count had a chance to be acknowledged
#define CLOSED_AFTER 3  // probe timeouts
#define STALE_AFTER (10 * NGTCP2_SECONDS)
#define FIRST_RETRY (10 * NGTCP2_SECONDS)
#define LAST_RETRY (600 * NGTCP2_SECONDS)

static size_t path_largest(const llq_conn *conn) {
    return ngtcp2_conn_get_path_max_tx_udp_payload_size(conn->conn);
}

static void remember(llq_size_watch *watch, uint64_t number) {
    watch->lost++;
    if (watch->count > 0 && watch->sent[watch->count - 1].last + 1 == number) {
        watch->sent[watch->count - 1].last = number;
        return;
    }
    if (watch->count == LLQ_SIZE_RUNS) {
        // Every second one stays, so that there are some of all the time.
        watch->count /= 2;
        for (size_t i = 1; i < watch->count; i++) watch->sent[i] = watch->sent[2 * i];
    }
    watch->sent[watch->count].first = watch->sent[watch->count].last = number;
    watch->count++;
}

void llq_size_note_sent(llq_conn *conn, const ngtcp2_path *path, ngtcp2_ssize length, uint64_t now) {
    if (length <= LEAST) return;
    size_t size = (size_t)length;
    // Not a probe of discovery, and not what another path carries.
    if (size > path_largest(conn) || !ngtcp2_path_eq(path, ngtcp2_conn_get_path(conn->conn))) return;
    llq_size_watch *watch = &conn->size;
    if (watch->state != LLQ_SIZE_OPEN) {
        // Also one of another size: nothing larger may come, and this would be watched by nobody.
        if (watch->state != LLQ_SIZE_DOUBTED || watch->has_trial) return;
        watch->has_trial = true;
        watch->trial = conn->next_packet - 1;
        watch->until = now + CLOSED_AFTER * ngtcp2_conn_get_pto(conn->conn);
        return;
    }
    if (watch->count > 0 && size + SLACK < watch->size) {
        // Few that were lost by chance, and none of that size since: what is sent now is smaller.
        if (watch->lost >= LEAST_LOST || now < watch->last + STALE_AFTER) return;
        watch->count = 0;
    }
    if (watch->count == 0 || size > watch->size) *watch = (llq_size_watch){.size = size, .since = now};
    watch->last = now;
    remember(watch, conn->next_packet - 1);
    if (watch->lost == LEAST_LOST) watch->until = now + ANSWERED_AFTER * ngtcp2_conn_get_pto(conn->conn);
}

bool llq_size_is_watched(const llq_conn *conn) {
    return conn->size.count > 0 || conn->size.state != LLQ_SIZE_OPEN;
}

void llq_size_note_acknowledged(llq_conn *conn, uint64_t first, uint64_t last) {
    llq_size_watch *watch = &conn->size;
    bool arrived = watch->has_trial && first <= watch->trial && watch->trial <= last;
    for (size_t i = 0; i < watch->count && !arrived; i++)
        arrived = first <= watch->sent[i].last && watch->sent[i].first <= last;
    if (arrived)
        memset(watch, 0, sizeof *watch);
    else if (watch->state == LLQ_SIZE_DOUBTED && last >= watch->first_small)
        watch->is_alive = true;
}

void llq_conn_watch_size(llq_conn *conn, uint64_t now) {
    llq_size_watch *watch = &conn->size;
    if (!llq_size_is_watched(conn)) return;
    if (path_largest(conn) <= LEAST) {
        memset(watch, 0, sizeof *watch);
        return;
    }
    switch (watch->state) {
    case LLQ_SIZE_OPEN:
        if (watch->lost < LEAST_LOST || now < watch->until) return;
        if (now < watch->since + DOUBTED_AFTER * ngtcp2_conn_get_pto(conn->conn)) return;
        watch->state = LLQ_SIZE_DOUBTED;
        watch->first_small = conn->next_packet;
        llq_timer_request(conn);
        return;
    case LLQ_SIZE_DOUBTED:
        if (!watch->has_trial || now < watch->until) return;
        watch->state = LLQ_SIZE_CLOSED;
        watch->retry = watch->retry == 0 ? FIRST_RETRY : 2 * watch->retry;
        if (watch->retry > LAST_RETRY) watch->retry = LAST_RETRY;
        watch->until = now + watch->retry;
        return;
    case LLQ_SIZE_CLOSED:
        if (now < watch->until) return;
        watch->state = LLQ_SIZE_DOUBTED;
        watch->is_alive = true;
        watch->has_trial = false;
    }
}

uint64_t llq_size_deadline(const llq_conn *conn) {
    return conn->size.state == LLQ_SIZE_DOUBTED && conn->size.has_trial ? conn->size.until : UINT64_MAX;
}

size_t llq_size_room(const llq_conn *conn, size_t capacity) {
    const llq_size_watch *watch = &conn->size;
    if (watch->state == LLQ_SIZE_OPEN || capacity <= LEAST) return capacity;
    return watch->state == LLQ_SIZE_DOUBTED && watch->is_alive && !watch->has_trial ? capacity : LEAST;
}

size_t llq_conn_max_payload(llq_conn *conn) {
    return llq_size_room(conn, ngtcp2_conn_get_max_tx_udp_payload_size(conn->conn));
}

size_t llq_conn_path_max_payload(llq_conn *conn) {
    size_t largest = path_largest(conn);
    return conn->size.state == LLQ_SIZE_CLOSED && largest > LEAST ? LEAST : largest;
}
