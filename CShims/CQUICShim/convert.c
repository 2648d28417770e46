#include "internal.h"

#include <arpa/inet.h>
#include <string.h>

static uint64_t load64(const uint8_t *p) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | p[i];
    return value;
}

static void store64(uint8_t *p, uint64_t value) {
    for (int i = 7; i >= 0; i--, value >>= 8) p[i] = (uint8_t)value;
}

void llq_address_to_sockaddr(llq_sockaddr *destination, const llq_address *source) {
    memset(destination, 0, sizeof *destination);
    if (source->is_ipv6) {
        destination->in6.sin6_family = AF_INET6;
        destination->in6.sin6_port = htons(source->port);
        destination->in6.sin6_scope_id = source->scope;
        store64(destination->in6.sin6_addr.s6_addr, source->high);
        store64(destination->in6.sin6_addr.s6_addr + 8, source->low);
        destination->length = sizeof destination->in6;
    } else {
        destination->in.sin_family = AF_INET;
        destination->in.sin_port = htons(source->port);
        destination->in.sin_addr.s_addr = htonl((uint32_t)(source->high >> 32));
        destination->length = sizeof destination->in;
    }
}

void llq_address_from_sockaddr(llq_address *destination, const struct sockaddr *source) {
    memset(destination, 0, sizeof *destination);
    if (source->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)source;
        destination->is_ipv6 = 1;
        destination->port = ntohs(in6->sin6_port);
        destination->scope = in6->sin6_scope_id;
        destination->high = load64(in6->sin6_addr.s6_addr);
        destination->low = load64(in6->sin6_addr.s6_addr + 8);
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)source;
        destination->port = ntohs(in->sin_port);
        destination->high = (uint64_t)ntohl(in->sin_addr.s_addr) << 32;
    }
}

void llq_path_to_ngtcp2(llq_path_buffer *destination, const llq_path *source) {
    llq_address_to_sockaddr(&destination->local, &source->local);
    llq_address_to_sockaddr(&destination->remote, &source->remote);
    destination->path.local.addr = &destination->local.sa;
    destination->path.local.addrlen = destination->local.length;
    destination->path.remote.addr = &destination->remote.sa;
    destination->path.remote.addrlen = destination->remote.length;
    destination->path.user_data = NULL;
}

void llq_path_from_ngtcp2(llq_path *destination, const ngtcp2_path *source) {
    llq_address_from_sockaddr(&destination->local, source->local.addr);
    llq_address_from_sockaddr(&destination->remote, source->remote.addr);
}

void llq_cid_to_ngtcp2(ngtcp2_cid *destination, const llq_cid *source) {
    ngtcp2_cid_init(destination, source->data, source->length);
}

void llq_cid_from_ngtcp2(llq_cid *destination, const ngtcp2_cid *source) {
    memset(destination, 0, sizeof *destination);
    destination->length = (uint8_t)source->datalen;
    memcpy(destination->data, source->data, source->datalen);
}
