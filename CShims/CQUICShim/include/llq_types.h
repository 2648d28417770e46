/// Addresses, connection IDs and vectors.
#ifndef LLQ_TYPES_H
#define LLQ_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Numbers are in host order; an IPv4 address fills the upper 32 bits of `high`.
typedef struct llq_address {
    uint64_t high;
    uint64_t low;
    uint32_t scope;
    uint16_t port;
    uint8_t is_ipv6;
} llq_address;

typedef struct llq_path {
    llq_address local;
    llq_address remote;
} llq_path;

#define LLQ_MAX_CID_LENGTH 20
#define LLQ_MAX_VERSIONS 8
#define LLQ_RESET_TOKEN_LENGTH 16
#define LLQ_NO_DEADLINE UINT64_MAX

typedef struct llq_cid {
    uint8_t length;
    uint8_t data[LLQ_MAX_CID_LENGTH];
} llq_cid;

/// Has the layout of ngtcp2_vec.
typedef struct llq_vec {
    uint8_t *base;
    size_t length;
} llq_vec;

#endif
