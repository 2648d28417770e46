// ngtcp2 tells of a stream's acknowledged bytes, and of the acknowledgement of its end only where that came without new ones.
// An end that left by itself and was lost is sent again together with lost bytes before it, if there are some. Of their
// acknowledgement ngtcp2 tells as of any bytes: nobody hears that the peer has the end, until the other direction ends, too.
//
// So while an end that left by itself is awaited, packets are searched for such a frame before they are protected, and told
// of; and while some are under way, the packet numbers that the peer acknowledges are told of.

#include "frame_reader.h"
#include "internal.h"

void llq_ends_search(llq_conn *conn, uint8_t *plaintext, size_t length) {
    if (!conn->searches_ends) return;
    llq_reader r = {plaintext, plaintext + length};
    while (r.position < r.end) {
        uint64_t type, stream_id, bytes;
        if (llq_read_varint(&r, &type)) return;
        if (!llq_is_stream(type)) {
            if (llq_skip_frame(&r, type)) return;
            continue;
        }
        if (llq_read_stream(&r, type, &stream_id, &bytes)) return;
        if (!(type & 0x01) || bytes == 0) continue;
        llq_event event = {.kind = LLQ_EVENT_END_JOINED, .stream_id = (int64_t)stream_id, .value = conn->next_packet - 1};
        llq_emit(conn, &event);
    }
}

void llq_ends_acknowledged(llq_conn *conn, uint64_t first, uint64_t last) {
    llq_event event = {.kind = LLQ_EVENT_PACKETS_ACKED, .stream_id = -1, .value = first, .last = last};
    llq_emit(conn, &event);
}

void llq_conn_search_ends(llq_conn *conn, int on) { conn->searches_ends = on != 0; }
void llq_conn_tell_acknowledged(llq_conn *conn, int on) { conn->tells_acknowledged = on != 0; }
