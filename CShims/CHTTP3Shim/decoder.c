#include <stdlib.h>
#include <string.h>

#include "CHTTP3Shim.h"
#include "compat.h"

struct llh3_decoder {
    nghttp3_qpack_decoder *qpack;
    size_t capacity;
    nghttp3_buf instructions;
};

struct llh3_partial {
    nghttp3_qpack_stream_context *context;
    // Bytes of the section that were read before it had to wait.
    size_t offset;
};

llh3_decoder *llh3_decoder_new(size_t capacity, size_t blocked_streams, size_t concurrent_streams) {
    llh3_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return NULL;
    nghttp3_buf_init(&decoder->instructions);
    decoder->capacity = capacity;
    if (nghttp3_qpack_decoder_new(&decoder->qpack, capacity, blocked_streams, nghttp3_mem_default()) != 0) {
        free(decoder);
        return NULL;
    }
    // The instructions for so many streams may wait to be taken: they are after each batch.
    nghttp3_qpack_decoder_set_max_concurrent_streams(decoder->qpack, concurrent_streams);
    return decoder;
}

void llh3_decoder_free(llh3_decoder *decoder) {
    if (!decoder) return;
    nghttp3_qpack_decoder_del(decoder->qpack);
    free(decoder->instructions.begin);
    free(decoder);
}

int llh3_decoder_read(llh3_decoder *decoder, const uint8_t *bytes, size_t length) {
    nghttp3_ssize rv = nghttp3_qpack_decoder_read_encoder(decoder->qpack, bytes, length);
    if (rv >= 0) return LLH3_OK;
    return rv == NGHTTP3_ERR_NOMEM ? LLH3_NO_MEMORY : LLH3_ENCODER_STREAM_ERROR;
}

static void discard(llh3_partial **partial) {
    if (!*partial) return;
    nghttp3_qpack_stream_context_del((*partial)->context);
    free(*partial);
    *partial = NULL;
}

static int begin(llh3_partial **partial, int64_t stream) {
    if (*partial) return LLH3_OK;
    *partial = calloc(1, sizeof **partial);
    if (!*partial) return LLH3_NO_MEMORY;
    if (nghttp3_qpack_stream_context_new(&(*partial)->context, stream, nghttp3_mem_default()) == 0) return LLH3_OK;
    free(*partial);
    *partial = NULL;
    return LLH3_NO_MEMORY;
}

// tchar of RFC 9110 section 5.6.2, without uppercase letters.
static int is_name_byte(uint8_t c) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return 1;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static uint32_t judge(nghttp3_vec name, nghttp3_vec value) {
    uint32_t flags = 0;
    size_t i = 0;
    if (name.len > 0 && name.base[0] == ':') {
        flags |= LLH3_FIELD_PSEUDO;
        i = 1;
    }
    if (i == name.len) flags |= LLH3_FIELD_BAD_NAME;
    for (; i < name.len; i += 1) {
        if (!is_name_byte(name.base[i])) flags |= LLH3_FIELD_BAD_NAME;
    }
    for (i = 0; i < value.len; i += 1) {
        uint8_t c = value.base[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) flags |= LLH3_FIELD_BAD_VALUE;
    }
    return flags;
}

static int reserve(llh3_section *section, size_t bytes) {
    if (section->length + bytes > section->capacity) {
        size_t capacity = (section->length + bytes) * 2;
        uint8_t *grown = realloc(section->bytes, capacity);
        if (!grown) return LLH3_NO_MEMORY;
        section->bytes = grown;
        section->capacity = capacity;
    }
    if (section->count == section->field_capacity) {
        size_t capacity = section->field_capacity ? section->field_capacity * 2 : 32;
        llh3_field *grown = realloc(section->fields, capacity * sizeof *grown);
        if (!grown) return LLH3_NO_MEMORY;
        section->fields = grown;
        section->field_capacity = capacity;
    }
    return LLH3_OK;
}

static int append(llh3_section *section, const nghttp3_qpack_nv *nv, size_t *left) {
    nghttp3_vec name = nghttp3_rcbuf_get_buf(nv->name), value = nghttp3_rcbuf_get_buf(nv->value);
    size_t cost = name.len + value.len + 32;
    if (cost > *left) return LLH3_TOO_LARGE;
    *left -= cost;
    if (reserve(section, name.len + value.len) != LLH3_OK) return LLH3_NO_MEMORY;
    if (name.len > 0) memcpy(section->bytes + section->length, name.base, name.len);
    if (value.len > 0) memcpy(section->bytes + section->length + name.len, value.base, value.len);
    section->length += name.len + value.len;
    llh3_field *field = &section->fields[section->count];
    section->count += 1;
    field->name_length = (uint32_t)name.len;
    field->value_length = (uint32_t)value.len;
    field->token = nv->token;
    field->flags = judge(name, value);
    if (nv->flags & NGHTTP3_NV_FLAG_NEVER_INDEX) field->flags |= LLH3_FIELD_NEVER_INDEX;
    return LLH3_OK;
}

int llh3_decoder_decode(
    llh3_decoder *decoder, llh3_partial **partial, int64_t stream, const uint8_t *bytes, size_t length, size_t limit,
    llh3_section *into) {
    into->length = 0;
    into->count = 0;
    int result = begin(partial, stream);
    if (result != LLH3_OK) return result;
    size_t offset = (*partial)->offset, left = limit;
    for (;;) {
        nghttp3_qpack_nv nv;
        uint8_t flags = 0;
        nghttp3_ssize rv = nghttp3_qpack_decoder_read_request(
            decoder->qpack, (*partial)->context, &nv, &flags, bytes + offset, length - offset, 1);
        if (rv < 0) {
            discard(partial);
            return rv == NGHTTP3_ERR_NOMEM ? LLH3_NO_MEMORY : LLH3_DECOMPRESSION_FAILED;
        }
        offset += (size_t)rv;
        if (flags & NGHTTP3_QPACK_DECODE_FLAG_BLOCKED) {
            (*partial)->offset = offset;
            return LLH3_BLOCKED;
        }
        if (flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT) {
            result = append(into, &nv, &left);
            nghttp3_rcbuf_decref(nv.name);
            nghttp3_rcbuf_decref(nv.value);
            if (result != LLH3_OK) {
                int cancelled = llh3_decoder_cancel(decoder, partial, stream);
                return cancelled == LLH3_OK ? result : cancelled;
            }
        }
        if (flags & NGHTTP3_QPACK_DECODE_FLAG_FINAL) break;
        // Neither a line nor the end: what is left can't be a section.
        if (!(flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT)) {
            discard(partial);
            return LLH3_DECOMPRESSION_FAILED;
        }
    }
    discard(partial);
    return LLH3_OK;
}

int llh3_decoder_cancel(llh3_decoder *decoder, llh3_partial **partial, int64_t stream) {
    discard(partial);
    // Nothing refers to a table that doesn't exist.
    if (decoder->capacity == 0) return LLH3_OK;
    return nghttp3_qpack_decoder_cancel_stream(decoder->qpack, stream) == 0 ? LLH3_OK : LLH3_NO_MEMORY;
}

const uint8_t *llh3_decoder_instructions(llh3_decoder *decoder, size_t *length) {
    size_t needed = nghttp3_qpack_decoder_get_decoder_streamlen(decoder->qpack);
    nghttp3_buf *buffer = &decoder->instructions;
    *length = 0;
    if (needed == 0) return NULL;
    if ((size_t)(buffer->end - buffer->begin) < needed) {
        uint8_t *grown = realloc(buffer->begin, needed * 2);
        // They stay where they are, and leave with the next call.
        if (!grown) return NULL;
        buffer->begin = grown;
        buffer->end = grown + needed * 2;
    }
    buffer->pos = buffer->last = buffer->begin;
    nghttp3_qpack_decoder_write_decoder(decoder->qpack, buffer);
    *length = nghttp3_buf_len(buffer);
    return buffer->pos;
}

void llh3_section_free(llh3_section *section) {
    free(section->bytes);
    free(section->fields);
    memset(section, 0, sizeof *section);
}

int llh3_parse_priority(const uint8_t *bytes, size_t length, uint8_t *urgency, uint8_t *incremental) {
    nghttp3_pri priority = {.urgency = *urgency, .inc = *incremental};
    if (LLH3_PARSE_PRIORITY(&priority, bytes, length) != 0) return -1;
    *urgency = (uint8_t)priority.urgency;
    *incremental = (uint8_t)priority.inc;
    return 0;
}

const char *llh3_version(void) { return nghttp3_version(0)->version_str; }
