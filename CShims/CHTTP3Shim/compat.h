// What differs between nghttp3 0.8 (Debian 12) and 1.x (Debian 13).
#ifndef LLH3_COMPAT_H
#define LLH3_COMPAT_H

#include <nghttp3/nghttp3.h>

#if NGHTTP3_VERSION_NUM >= 0x010000
#define LLH3_NV_BYTES(bytes) (bytes)
#define LLH3_PARSE_PRIORITY(into, bytes, length) nghttp3_pri_parse_priority((into), (bytes), (length))
#else
// 0.8 doesn't write through them either.
#define LLH3_NV_BYTES(bytes) ((uint8_t *)(uintptr_t)(bytes))
#define LLH3_PARSE_PRIORITY(into, bytes, length) nghttp3_http_parse_priority((into), (bytes), (length))
#endif

#ifdef NGHTTP3_NV_FLAG_TRY_INDEX
#define LLH3_NV_TRY_INDEX NGHTTP3_NV_FLAG_TRY_INDEX
#else
#define LLH3_NV_TRY_INDEX 0
#endif

#endif
