/// Datagrams of a UDP socket with what the kernel says about them, in few instructions: a handshake is some datagrams, and
/// reading or writing each must not cost more than the kernel's part of it.
#ifndef LLD_CDATAGRAMSOCKET_H
#define LLD_CDATAGRAMSOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/// What the kernel gave for one message.
typedef struct lld_message {
    const uint8_t *bytes; // until the next read
    size_t length;
    size_t segment; // of datagrams that the kernel joined (UDP_GRO); 0: it is one
    uint8_t ecn;    // the two bits of the IP header
    const struct sockaddr *remote;
    socklen_t remote_length;
} lld_message;

/// Room for the messages of one read.
typedef struct lld_reader lld_reader;

/// `count` messages of up to 64 KiB; pages of what is never used are never touched. NULL: no memory.
lld_reader *lld_reader_new(size_t count);
void lld_reader_free(lld_reader *reader);

/// Takes the messages that wait, as far as there is room, without waiting for more. Returns how many; 0 also after an
/// error: those that end a socket's use come with sending.
size_t lld_read(lld_reader *reader, int descriptor);

/// A message of the last read.
lld_message lld_message_at(const lld_reader *reader, size_t index);

/// Sends one message; with a `segment` that is not 0 the kernel makes datagrams of that size of it (UDP_SEGMENT).
/// Returns 0, or an errno; EAGAIN: the socket's buffer is full.
int lld_send(int descriptor, const uint8_t *bytes, size_t length, size_t segment, uint8_t ecn,
             const struct sockaddr *remote, socklen_t remote_length);

#ifdef __cplusplus
}
#endif

#endif
