// The memory of one connection. ngtcp2 takes its pools in blocks of several kilobytes of which an idle connection touches
// the beginning: a block that begins near a page's start costs one resident page, and what room is left on that page takes
// the connection's many small allocations.
#ifndef LLQ_ARENA_H
#define LLQ_ARENA_H

#include <ngtcp2/ngtcp2.h>
#include <stdbool.h>

typedef struct llq_arena llq_arena;

/// Makes an arena with `size` zeroed bytes in it, which `*object` is set to; NULL: no memory.
llq_arena *llq_arena_new(size_t size, void **object);
/// Frees everything, the first object included. What ngtcp2 took must have been given back.
void llq_arena_free(llq_arena *arena);
/// For ngtcp2.
const ngtcp2_mem *llq_arena_mem(const llq_arena *arena);
/// Whether what ngtcp2 takes from now on is for what it reads.
void llq_arena_set_reading(llq_arena *arena, bool on);
/// Bytes that it took for what it read and hasn't given back: the peer's doing.
size_t llq_arena_read_bytes(const llq_arena *arena);

#endif
