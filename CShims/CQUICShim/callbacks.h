#ifndef LLQ_CALLBACKS_H
#define LLQ_CALLBACKS_H

#include "internal.h"

void llq_fill_callbacks(ngtcp2_callbacks *callbacks, bool is_server);
void llq_random(uint8_t *dest, size_t length, const ngtcp2_rand_ctx *context);

#endif
