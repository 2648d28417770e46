#include "CDeflate.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

/* Negative: no zlib header and checksum around the stream. A reader takes any window with the largest. */
#define RAW(bits) (-(bits))
#define LARGEST 15
#define SMALLEST 9

long llz_deflate(const uint8_t *source, size_t count, uint8_t *target, size_t capacity) {
    if (count > INT_MAX || capacity > INT_MAX) return -1;
    /* As much memory as the source needs, which is little, and has to be cleared each time. */
    int bits = SMALLEST;
    while (bits < LARGEST && ((size_t)1 << bits) < count) bits++;
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, RAW(bits), bits - 7, Z_DEFAULT_STRATEGY) != Z_OK)
        return -1;
    stream.next_in = (Bytef *)source;
    stream.avail_in = (uInt)count;
    stream.next_out = target;
    stream.avail_out = (uInt)capacity;
    int result = deflate(&stream, Z_FINISH);
    long written = (long)(capacity - stream.avail_out);
    deflateEnd(&stream);
    return result == Z_STREAM_END ? written : -1;
}

long llz_inflate(const uint8_t *source, size_t count, uint8_t *target, size_t capacity) {
    if (count > INT_MAX || capacity > INT_MAX) return -1;
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (inflateInit2(&stream, RAW(LARGEST)) != Z_OK) return -1;
    stream.next_in = (Bytef *)source;
    stream.avail_in = (uInt)count;
    stream.next_out = target;
    stream.avail_out = (uInt)capacity;
    int result = inflate(&stream, Z_FINISH);
    long written = (long)(capacity - stream.avail_out);
    uInt left = stream.avail_in;
    inflateEnd(&stream);
    return result == Z_STREAM_END && left == 0 ? written : -1;
}
