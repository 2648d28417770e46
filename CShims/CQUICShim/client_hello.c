#include "client_hello.h"

typedef struct cursor {
    const uint8_t *position;
    size_t left;
} cursor;

static int take(cursor *c, size_t count, cursor *part) {
    if (c->left < count) return -1;
    if (part) {
        part->position = c->position;
        part->left = count;
    }
    c->position += count;
    c->left -= count;
    return 0;
}

static int take_number(cursor *c, int width, size_t *value) {
    if (c->left < (size_t)width) return -1;
    size_t v = 0;
    for (int i = 0; i < width; i++) v = v << 8 | c->position[i];
    c->position += width;
    c->left -= (size_t)width;
    *value = v;
    return 0;
}

static int take_prefixed(cursor *c, int width, cursor *part) {
    size_t length;
    return take_number(c, width, &length) || take(c, length, part);
}

const uint8_t *llq_client_hello_identity(const uint8_t *message, size_t length, size_t *identity_length) {
    cursor c = {message, length}, extensions, body, identities, identity;
    // Header, version and random; then session ID, cipher suites, compression methods (RFC 8446 section 4.1.2).
    if (take(&c, 4 + 2 + 32, NULL) || take_prefixed(&c, 1, NULL) || take_prefixed(&c, 2, NULL) ||
        take_prefixed(&c, 1, NULL) || take_prefixed(&c, 2, &extensions))
        return NULL;
    while (extensions.left > 0) {
        size_t type;
        if (take_number(&extensions, 2, &type) || take_prefixed(&extensions, 2, &body)) return NULL;
        if (type != 41) continue; // pre_shared_key
        if (take_prefixed(&body, 2, &identities) || take_prefixed(&identities, 2, &identity)) return NULL;
        *identity_length = identity.left;
        return identity.position;
    }
    return NULL;
}
