// ngtcp2 gathers a packet's qlog record in a buffer that the packet's first frame empties. It doesn't count PADDING as one: a
// packet with nothing else, which 1.11 sends to fill up a datagram, is written behind the record of the packet before it, as the
// end of a record without a beginning.

#define _GNU_SOURCE // memmem, memrchr

#include "internal.h"

#include <string.h>

// Of ngtcp2's buffer, and a beginning.
enum { MAX_RECORD = 4096 + 128 };

size_t llq_qlog_complete(const uint8_t *written, size_t length, uint8_t *record, size_t capacity) {
    static const char name[] = ",\"name\":\"transport:packet_sent\",\"data\":{\"frames\":[";
    const uint8_t *end = written + length;
    const uint8_t *line = length > 1 ? memrchr(written, '\n', length - 1) : NULL;
    const uint8_t *time = line ? memchr(written, ',', (size_t)(line - written)) : NULL;
    // Nothing is in front of it from which it could be completed.
    if (!time || *written != 0x1e) return 0;
    line++;
    // Both packets are of one datagram, and of one time.
    size_t beginning = (size_t)(time - written), rest = (size_t)(end - line), total = beginning + sizeof name - 1 + rest;
    if (total > capacity) return 0;
    memcpy(record, written, beginning);
    memcpy(record + beginning, name, sizeof name - 1);
    memcpy(record + beginning + sizeof name - 1, line, rest);
    return total;
}

void llq_qlog(void *user_data, uint32_t flags, const void *data, size_t length) {
    static const char lost[] = "\"recovery:packet_lost\"";
    llq_conn *self = user_data;
    const uint8_t *bytes = data;
    // The name comes first, behind the time.
    if (length > 0 && memmem(data, length < 80 ? length : 80, lost, sizeof lost - 1)) self->packets_lost++;
    int is_last = (flags & NGTCP2_QLOG_WRITE_FLAG_FIN) != 0;
    if (length == 0 || (*bytes == 0x1e && !memchr(bytes, '\n', length - 1))) {
        self->owner.qlog(self->owner.context, bytes, length, is_last);
        return;
    }
    uint8_t record[MAX_RECORD];
    size_t completed = llq_qlog_complete(bytes, length, record, sizeof record);
    if (completed > 0 || is_last) self->owner.qlog(self->owner.context, record, completed, is_last);
}
