#define _GNU_SOURCE
#include "CDatagramSocket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { SLOT = 65536, CONTROL = 128, ECN_BITS = 0x03 };

typedef struct slot {
    struct iovec vector;
    struct sockaddr_storage remote;
    union {
        struct cmsghdr align;
        uint8_t bytes[CONTROL];
    } control;
} slot;

struct lld_reader {
    size_t count, taken;
    struct mmsghdr *headers;
    slot *slots;
    uint8_t *bytes;
};

lld_reader *lld_reader_new(size_t count) {
    lld_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return NULL;
    reader->count = count;
    reader->headers = calloc(count, sizeof *reader->headers);
    reader->slots = calloc(count, sizeof *reader->slots);
    reader->bytes = malloc(count * SLOT);
    if (!reader->headers || !reader->slots || !reader->bytes) {
        lld_reader_free(reader);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        slot *at = &reader->slots[i];
        struct msghdr *header = &reader->headers[i].msg_hdr;
        at->vector = (struct iovec){reader->bytes + i * SLOT, SLOT};
        header->msg_iov = &at->vector;
        header->msg_iovlen = 1;
        header->msg_name = &at->remote;
        header->msg_control = at->control.bytes;
    }
    reader->taken = count;
    return reader;
}

void lld_reader_free(lld_reader *reader) {
    if (!reader) return;
    free(reader->headers);
    free(reader->slots);
    free(reader->bytes);
    free(reader);
}

size_t lld_read(lld_reader *reader, int descriptor) {
    // The kernel wrote what it used of them.
    for (size_t i = 0; i < reader->taken; i++) {
        reader->headers[i].msg_hdr.msg_namelen = sizeof reader->slots[i].remote;
        reader->headers[i].msg_hdr.msg_controllen = sizeof reader->slots[i].control;
    }
    int taken;
    do taken = recvmmsg(descriptor, reader->headers, (unsigned)reader->count, MSG_DONTWAIT, NULL);
    while (taken < 0 && errno == EINTR);
    reader->taken = taken < 0 ? 0 : (size_t)taken;
    return reader->taken;
}

lld_message lld_message_at(const lld_reader *reader, size_t index) {
    struct mmsghdr *header = &reader->headers[index];
    lld_message message = {.bytes = reader->bytes + index * SLOT,
                           .length = header->msg_len,
                           .remote = (const struct sockaddr *)(const void *)&reader->slots[index].remote,
                           .remote_length = header->msg_hdr.msg_namelen};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header->msg_hdr); c; c = CMSG_NXTHDR(&header->msg_hdr, c)) {
        int value = 0;
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
            message.ecn = *CMSG_DATA(c) & ECN_BITS;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            memcpy(&value, CMSG_DATA(c), sizeof value);
            message.ecn = (uint8_t)value & ECN_BITS;
        } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            memcpy(&value, CMSG_DATA(c), sizeof value);
            message.segment = value > 0 ? (size_t)value : 0;
        }
    }
    return message;
}

static void put(struct msghdr *header, int level, int type, const void *value, size_t length) {
    struct cmsghdr *c = (struct cmsghdr *)(void *)((uint8_t *)header->msg_control + header->msg_controllen);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(c), value, length);
    header->msg_controllen += CMSG_SPACE(length);
}

int lld_send(int descriptor, const uint8_t *bytes, size_t length, size_t segment, uint8_t ecn,
             const struct sockaddr *remote, socklen_t remote_length) {
    union {
        struct cmsghdr align;
        uint8_t bytes[CONTROL];
    } control = {.bytes = {0}};
    struct iovec vector = {(void *)(uintptr_t)bytes, length};
    struct msghdr header = {.msg_name = (void *)(uintptr_t)remote,
                            .msg_namelen = remote_length,
                            .msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes};
    if (ecn != 0) {
        int value = ecn;
        bool is_ipv6 = remote->sa_family == AF_INET6;
        put(&header, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_TCLASS : IP_TOS, &value, sizeof value);
    }
    if (segment != 0) {
        uint16_t value = (uint16_t)segment;
        put(&header, IPPROTO_UDP, UDP_SEGMENT, &value, sizeof value);
    }
    if (header.msg_controllen == 0) header.msg_control = NULL;
    ssize_t sent;
    do sent = sendmsg(descriptor, &header, MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0) return 0;
    return errno == EWOULDBLOCK ? EAGAIN : errno;
}
