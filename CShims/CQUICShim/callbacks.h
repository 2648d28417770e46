#ifndef LLQ_CALLBACKS_H
#define LLQ_CALLBACKS_H

#include "internal.h"

void llq_fill_settings(ngtcp2_settings *settings, const llq_settings *source, llq_conn *conn);
void llq_fill_params(ngtcp2_transport_params *params, const llq_settings *source);
void llq_fill_callbacks(ngtcp2_callbacks *callbacks, bool is_server);
void llq_qlog(void *user_data, uint32_t flags, const void *data, size_t length);
void llq_random(uint8_t *dest, size_t length, const ngtcp2_rand_ctx *context);

#endif
