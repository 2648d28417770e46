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

/// The body of an extension of a complete ClientHello (RFC 8446 section 4.1.2); not 0 if it isn't there.
static int find_extension(const uint8_t *message, size_t length, size_t wanted, cursor *body) {
    cursor c = {message, length}, extensions;
    // Header, version and random; then session ID, cipher suites, compression methods.
    if (take(&c, 4 + 2 + 32, NULL) || take_prefixed(&c, 1, NULL) || take_prefixed(&c, 2, NULL) ||
        take_prefixed(&c, 1, NULL) || take_prefixed(&c, 2, &extensions))
        return -1;
    while (extensions.left > 0) {
        size_t type;
        if (take_number(&extensions, 2, &type) || take_prefixed(&extensions, 2, body)) return -1;
        if (type == wanted) return 0;
    }
    return -1;
}

const uint8_t *llq_client_hello_identity(const uint8_t *message, size_t length, size_t *identity_length) {
    enum { PRE_SHARED_KEY = 41 };
    cursor body, identities, identity;
    if (find_extension(message, length, PRE_SHARED_KEY, &body) || take_prefixed(&body, 2, &identities) ||
        take_prefixed(&identities, 2, &identity))
        return NULL;
    *identity_length = identity.left;
    return identity.position;
}

const uint8_t *llq_client_hello_server_name(const uint8_t *message, size_t length, size_t *name_length) {
    enum { SERVER_NAME = 0, HOST_NAME = 0 };
    cursor body, names, name;
    if (find_extension(message, length, SERVER_NAME, &body) || take_prefixed(&body, 2, &names)) return NULL;
    while (names.left > 0) {
        size_t type;
        if (take_number(&names, 1, &type) || take_prefixed(&names, 2, &name)) return NULL;
        if (type != HOST_NAME) continue;
        *name_length = name.left;
        return name.position;
    }
    return NULL;
}

const uint8_t *llq_client_hello_protocols(const uint8_t *message, size_t length, size_t *names_length) {
    enum { APPLICATION_LAYER_PROTOCOL_NEGOTIATION = 16 };
    cursor body, names;
    if (find_extension(message, length, APPLICATION_LAYER_PROTOCOL_NEGOTIATION, &body) ||
        take_prefixed(&body, 2, &names))
        return NULL;
    *names_length = names.left;
    return names.position;
}

const uint8_t *llq_session_ticket_identity(const uint8_t *body, size_t length, size_t *identity_length) {
    cursor c = {body, length}, identity;
    // Lifetime, what hides the age, nonce.
    if (take(&c, 4 + 4, NULL) || take_prefixed(&c, 1, NULL) || take_prefixed(&c, 2, &identity)) return NULL;
    *identity_length = identity.left;
    return identity.position;
}

static int take_varint(cursor *c, size_t *value) {
    size_t first;
    if (take_number(c, 1, &first)) return -1;
    *value = first & 0x3f;
    for (int left = (1 << (first >> 6)) - 1; left > 0; left--) {
        size_t next;
        if (take_number(c, 1, &next)) return -1;
        *value = *value << 8 | next;
    }
    return 0;
}

int llq_client_hello_has_version(const uint8_t *message, size_t length, uint32_t version) {
    enum { QUIC_TRANSPORT_PARAMETERS = 57, VERSION_INFORMATION = 0x11 };
    cursor parameters, value;
    if (find_extension(message, length, QUIC_TRANSPORT_PARAMETERS, &parameters)) return 0;
    while (parameters.left > 0) {
        size_t id, size, number;
        if (take_varint(&parameters, &id) || take_varint(&parameters, &size) || take(&parameters, size, &value)) return 0;
        if (id != VERSION_INFORMATION) continue;
        // The chosen one, then those available.
        if (take_number(&value, 4, &number)) return 0;
        while (!take_number(&value, 4, &number))
            if (number == version) return 1;
        return 0;
    }
    return 0;
}
