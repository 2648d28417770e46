/// One-shot raw DEFLATE (RFC 1951) on zlib, whose ways in are macros that Swift can't see.
#ifndef LLZ_CDEFLATE_H
#define LLZ_CDEFLATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Compresses all of a source by itself: nothing of another call is in it. Returns the bytes written; -1 when they are more than
/// `capacity`, or without memory.
long llz_deflate(const uint8_t *source, size_t count, uint8_t *target, size_t capacity);

/// Decompresses what is exactly one stream. Returns the bytes written; -1 when the stream is damaged, ends early, is followed by
/// more, or holds more than `capacity`: no more than that is ever written.
long llz_inflate(const uint8_t *source, size_t count, uint8_t *target, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
