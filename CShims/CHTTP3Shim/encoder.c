#include <stdlib.h>

#include "CHTTP3Shim.h"
#include "compat.h"

struct llh3_encoder {
    nghttp3_qpack_encoder *qpack;
    nghttp3_buf prefix;
    nghttp3_buf lines;
    nghttp3_buf instructions;
    nghttp3_nv *nv;
    size_t nv_capacity;
    // What nghttp3 would read from the decoder stream in one go.
    int failed;
};

llh3_encoder *llh3_encoder_new(uint64_t peer_capacity, size_t own_capacity, size_t blocked_streams) {
    llh3_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder) return NULL;
    nghttp3_buf_init(&encoder->prefix);
    nghttp3_buf_init(&encoder->lines);
    nghttp3_buf_init(&encoder->instructions);
    // The peer's number decides how an insert count is written (RFC 9204 section 4.5.1.1), also where less is used.
    size_t limit = own_capacity == 0 ? 0 : (size_t)peer_capacity;
    if (nghttp3_qpack_encoder_new(&encoder->qpack, limit, nghttp3_mem_default()) != 0) {
        free(encoder);
        return NULL;
    }
    if (limit > 0) {
        nghttp3_qpack_encoder_set_max_dtable_capacity(encoder->qpack, own_capacity < limit ? own_capacity : limit);
        nghttp3_qpack_encoder_set_max_blocked_streams(encoder->qpack, blocked_streams);
    }
    return encoder;
}

void llh3_encoder_free(llh3_encoder *encoder) {
    if (!encoder) return;
    const nghttp3_mem *memory = nghttp3_mem_default();
    nghttp3_qpack_encoder_del(encoder->qpack);
    nghttp3_buf_free(&encoder->prefix, memory);
    nghttp3_buf_free(&encoder->lines, memory);
    nghttp3_buf_free(&encoder->instructions, memory);
    free(encoder->nv);
    free(encoder);
}

int llh3_encoder_encode(
    llh3_encoder *encoder, int64_t stream, const uint8_t *bytes, const llh3_field *fields, size_t count) {
    if (encoder->failed) return LLH3_NO_MEMORY;
    if (count > encoder->nv_capacity) {
        nghttp3_nv *grown = realloc(encoder->nv, count * sizeof *grown);
        if (!grown) return LLH3_NO_MEMORY;
        encoder->nv = grown;
        encoder->nv_capacity = count;
    }
    for (size_t i = 0; i < count; i += 1) {
        nghttp3_nv *nv = &encoder->nv[i];
        nv->name = LLH3_NV_BYTES(bytes);
        nv->namelen = fields[i].name_length;
        bytes += fields[i].name_length;
        nv->value = LLH3_NV_BYTES(bytes);
        nv->valuelen = fields[i].value_length;
        bytes += fields[i].value_length;
        nv->flags = NGHTTP3_NV_FLAG_NONE;
        if (fields[i].flags & LLH3_FIELD_NEVER_INDEX) nv->flags |= NGHTTP3_NV_FLAG_NEVER_INDEX;
        if (fields[i].flags & LLH3_FIELD_TRY_INDEX) nv->flags |= LLH3_NV_TRY_INDEX;
    }
    nghttp3_buf_reset(&encoder->prefix);
    nghttp3_buf_reset(&encoder->lines);
    nghttp3_buf_reset(&encoder->instructions);
    int rv = nghttp3_qpack_encoder_encode(
        encoder->qpack, &encoder->prefix, &encoder->lines, &encoder->instructions, stream, encoder->nv, count);
    if (rv == 0) return LLH3_OK;
    encoder->failed = 1;
    return LLH3_NO_MEMORY;
}

const uint8_t *llh3_encoder_prefix(const llh3_encoder *encoder, size_t *length) {
    *length = nghttp3_buf_len(&encoder->prefix);
    return encoder->prefix.pos;
}

const uint8_t *llh3_encoder_lines(const llh3_encoder *encoder, size_t *length) {
    *length = nghttp3_buf_len(&encoder->lines);
    return encoder->lines.pos;
}

const uint8_t *llh3_encoder_instructions(const llh3_encoder *encoder, size_t *length) {
    *length = nghttp3_buf_len(&encoder->instructions);
    return encoder->instructions.pos;
}

int llh3_encoder_read(llh3_encoder *encoder, const uint8_t *bytes, size_t length) {
    nghttp3_ssize rv = nghttp3_qpack_encoder_read_decoder(encoder->qpack, bytes, length);
    if (rv >= 0) return LLH3_OK;
    encoder->failed = 1;
    return rv == NGHTTP3_ERR_NOMEM ? LLH3_NO_MEMORY : LLH3_DECODER_STREAM_ERROR;
}

size_t llh3_encoder_blocked_streams(llh3_encoder *encoder) {
    return nghttp3_qpack_encoder_get_num_blocked_streams(encoder->qpack);
}
