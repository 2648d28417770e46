#include "CQUICShim.h"

#include <ngtcp2/ngtcp2.h>

uint32_t llq_ngtcp2_version_compiled(void) { return NGTCP2_VERSION_NUM; }
