#ifndef LLQ_CQUICSHIM_H
#define LLQ_CQUICSHIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/// The versions of ngtcp2 this package was built against, as in NGTCP2_VERSION_NUM.
uint32_t llq_ngtcp2_version_compiled(void);

#endif
