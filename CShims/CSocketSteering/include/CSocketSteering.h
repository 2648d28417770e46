/// The kernel's choice among sockets that share an address, which takes macros and structs that Swift can't reach.
#ifndef LLS_CSOCKETSTEERING_H
#define LLS_CSOCKETSTEERING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Most sockets that one filter tells apart.
#define LLS_MAX_WORKERS 64

/// Gives the group of sockets that `descriptor` shares its address with (SO_REUSEPORT) a filter: a datagram whose
/// destination connection ID names a worker goes to that worker's socket, any other to the one that the kernel's hash
/// chooses. The filter replaces the group's earlier one.
/// - `workers`: the worker of each socket of the group, in the kernel's order; `count` of them.
/// - `worker_offset`: where the worker's byte is in a connection ID.
/// Returns 0, or an errno; ENOTSUP where the kernel has no such filters or there are too many sockets.
int lls_attach(int descriptor, const uint8_t *workers, size_t count, size_t worker_offset);

#ifdef __cplusplus
}
#endif

#endif
