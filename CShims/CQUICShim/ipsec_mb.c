// AES-GCM and header protection on intel-ipsec-mb: some three times as fast as GnuTLS 3.7 on a CPU with VAES.

#include "packet_protection.h"

#include <gnutls/crypto.h>

#if LLQ_IPSEC_MB && defined(__x86_64__)

#include <immintrin.h>
#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_LENGTH = 16, BLOCK = 16, MAX_KEY_LENGTH = 32, MAX_ROUND_KEYS = 15, MAX_TABLES = 1024 };

struct mb_tables;

/// The key itself; what is computed from it takes more than a kilobyte and lies in the tables of the thread that used the
/// key last.
typedef struct mb_aead {
    _Atomic(struct mb_tables *) tables;
    struct gcm_key_data *expanded; // as long as `tables` is a thread's
    size_t place;                  // there
    size_t key_length;
    uint8_t key[MAX_KEY_LENGTH];
} mb_aead;

typedef struct mb_mask {
    __m128i round_keys[MAX_ROUND_KEYS];
    int rounds;
} mb_mask;

/// What every handle points to, so that freeing knows how much to wipe.
typedef struct mb_object {
    size_t size;
    bool is_aead;
    union {
        mb_aead aead;
        mb_mask mask;
    };
} mb_object;

/// The expanded keys that a thread used last. An idle connection costs none, nor do keys that ngtcp2 has ready for the
/// next key update; to expand one takes about as long as to protect a packet.
typedef struct mb_tables {
    mb_aead *owners[MAX_TABLES];
    bool used[MAX_TABLES]; // since the hand went by
    size_t hand;
} mb_tables;

// Who owns what changes under the lock only, for a key may be freed by another thread than the one that used it. The
// tables of an attached key are read without it: only the thread itself takes them away.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t at_thread_end;
static _Thread_local mb_tables *own_tables;

// Set once and only read afterwards: the functions called through it keep no state in it.
static IMB_MGR *manager;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_tables(void *tables);

static void start(void) {
    const uint64_t wanted = IMB_FEATURE_AVX512_SKX | IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ | IMB_FEATURE_AESNI;
    IMB_MGR *made = alloc_mb_mgr(0);
    if (!made) return;
    if ((made->features & wanted) != wanted) {
        free_mb_mgr(made);
        return;
    }
    if (pthread_key_create(&at_thread_end, free_tables) != 0) {
        free_mb_mgr(made);
        return;
    }
    init_mb_mgr_avx512(made);
    manager = made;
}

bool llq_mb_available(void) {
    pthread_once(&once, start);
    return manager != NULL;
}

// Expanded keys.

static void wipe(struct gcm_key_data *expanded) {
    gnutls_memset(expanded, 0, sizeof *expanded);
    free(expanded);
}

/// Under the lock.
static struct gcm_key_data *detach(mb_aead *aead) {
    mb_tables *tables = atomic_load_explicit(&aead->tables, memory_order_relaxed);
    if (!tables) return NULL;
    tables->owners[aead->place] = NULL;
    atomic_store_explicit(&aead->tables, NULL, memory_order_relaxed);
    return aead->expanded;
}

static void free_tables(void *pointer) {
    mb_tables *tables = pointer;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < MAX_TABLES; i++)
        if (tables->owners[i]) wipe(detach(tables->owners[i]));
    pthread_mutex_unlock(&lock);
    own_tables = NULL;
    free(tables);
}

static mb_tables *make_own_tables(void) {
    own_tables = calloc(1, sizeof *own_tables);
    if (!own_tables || pthread_setspecific(at_thread_end, own_tables) == 0) return own_tables;
    free(own_tables);
    return own_tables = NULL;
}

/// Attaches a key to this thread's tables, in a free place or in that of a key that was not used for long. Its memory, if
/// it had any, is reused. NULL: no memory.
static struct gcm_key_data *attach(mb_tables *tables, mb_aead *aead) {
    pthread_mutex_lock(&lock);
    struct gcm_key_data *expanded = detach(aead);
    size_t place = tables->hand;
    for (; tables->owners[place] && tables->used[place]; place = (place + 1) % MAX_TABLES) tables->used[place] = false;
    if (tables->owners[place]) {
        struct gcm_key_data *taken = detach(tables->owners[place]);
        if (expanded) wipe(taken);
        if (!expanded) expanded = taken;
    }
    if (expanded || posix_memalign((void **)&expanded, 64, sizeof *expanded) == 0) {
        tables->hand = (place + 1) % MAX_TABLES;
        tables->owners[place] = aead;
        tables->used[place] = true;
        aead->place = place;
        aead->expanded = expanded;
        atomic_store_explicit(&aead->tables, tables, memory_order_relaxed);
    }
    pthread_mutex_unlock(&lock);
    return expanded;
}

/// NULL: no memory.
static const struct gcm_key_data *expand(mb_aead *aead) {
    mb_tables *tables = own_tables;
    if (tables && atomic_load_explicit(&aead->tables, memory_order_relaxed) == tables) {
        tables->used[aead->place] = true;
        return aead->expanded;
    }
    if (!tables) tables = make_own_tables();
    struct gcm_key_data *expanded = tables ? attach(tables, aead) : NULL;
    if (!expanded) return NULL;
    if (aead->key_length == 16)
        IMB_AES128_GCM_PRE(manager, aead->key, expanded);
    else
        IMB_AES256_GCM_PRE(manager, aead->key, expanded);
    return expanded;
}

// Handles.

static mb_object *allocate(size_t size) {
    mb_object *object = aligned_alloc(BLOCK, (size + BLOCK - 1) & ~(size_t)(BLOCK - 1));
    if (!object) return NULL;
    memset(object, 0, size);
    object->size = size;
    return object;
}

static void *mark(mb_object *object) { return (void *)((uintptr_t)object | 1); }
static mb_object *unmark(const void *handle) { return (mb_object *)((uintptr_t)handle & ~(uintptr_t)1); }

void *llq_mb_aead_new(const uint8_t *key, size_t key_length) {
    if (key_length > MAX_KEY_LENGTH) return NULL;
    mb_object *object = allocate(offsetof(mb_object, aead) + sizeof(mb_aead));
    if (!object) return NULL;
    object->is_aead = true;
    object->aead.key_length = key_length;
    memcpy(object->aead.key, key, key_length);
    return mark(object);
}

void *llq_mb_mask_new(const uint8_t *key, size_t key_length) {
    mb_object *object = allocate(offsetof(mb_object, mask) + sizeof(mb_mask));
    if (!object) return NULL;
    __m128i unused[MAX_ROUND_KEYS];
    if (key_length == 16)
        IMB_AES_KEYEXP_128(manager, key, object->mask.round_keys, unused);
    else
        IMB_AES_KEYEXP_256(manager, key, object->mask.round_keys, unused);
    gnutls_memset(unused, 0, sizeof unused);
    object->mask.rounds = key_length == 16 ? 10 : 14;
    return mark(object);
}

void llq_mb_free(void *handle) {
    mb_object *object = unmark(handle);
    if (object->is_aead) {
        pthread_mutex_lock(&lock);
        struct gcm_key_data *expanded = detach(&object->aead);
        pthread_mutex_unlock(&lock);
        if (expanded) wipe(expanded);
    }
    gnutls_memset(object, 0, object->size);
    free(object);
}

int llq_mb_seal(const void *handle, uint8_t *destination, const uint8_t *plaintext, size_t length,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_length) {
    mb_aead *aead = &unmark(handle)->aead;
    const struct gcm_key_data *expanded = expand(aead);
    if (!expanded) return -1;
    struct gcm_context_data context;
    uint8_t *tag = destination + length;
    if (aead->key_length == 16)
        IMB_AES128_GCM_ENC(manager, expanded, &context, destination, plaintext, length, nonce, aad, aad_length, tag,
                           TAG_LENGTH);
    else
        IMB_AES256_GCM_ENC(manager, expanded, &context, destination, plaintext, length, nonce, aad, aad_length, tag,
                           TAG_LENGTH);
    return 0;
}

int llq_mb_open(const void *handle, uint8_t *destination, const uint8_t *ciphertext, size_t length,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_length) {
    mb_aead *aead = &unmark(handle)->aead;
    struct gcm_context_data context;
    uint8_t tag[TAG_LENGTH];
    if (length < TAG_LENGTH) return -1;
    const struct gcm_key_data *expanded = expand(aead);
    if (!expanded) return -1;
    length -= TAG_LENGTH;
    if (aead->key_length == 16)
        IMB_AES128_GCM_DEC(manager, expanded, &context, destination, ciphertext, length, nonce, aad, aad_length, tag,
                           TAG_LENGTH);
    else
        IMB_AES256_GCM_DEC(manager, expanded, &context, destination, ciphertext, length, nonce, aad, aad_length, tag,
                           TAG_LENGTH);
    return gnutls_memcmp(tag, ciphertext + length, TAG_LENGTH) == 0 ? 0 : -1;
}

__attribute__((target("aes,sse2"))) void llq_mb_mask(const void *handle, uint8_t *mask, const uint8_t *sample) {
    const mb_mask *key = &unmark(handle)->mask;
    uint8_t block[BLOCK];
    __m128i state = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)sample), key->round_keys[0]);
    for (int i = 1; i < key->rounds; i++) state = _mm_aesenc_si128(state, key->round_keys[i]);
    state = _mm_aesenclast_si128(state, key->round_keys[key->rounds]);
    _mm_storeu_si128((__m128i *)(void *)block, state);
    memcpy(mask, block, NGTCP2_HP_MASKLEN);
}

#else

bool llq_mb_available(void) { return false; }

// Nobody has a handle that these could be called with.
void *llq_mb_aead_new(const uint8_t *key, size_t key_length) {
    (void)key;
    (void)key_length;
    return NULL;
}

void *llq_mb_mask_new(const uint8_t *key, size_t key_length) { return llq_mb_aead_new(key, key_length); }

void llq_mb_free(void *handle) { (void)handle; }

int llq_mb_seal(const void *handle, uint8_t *destination, const uint8_t *plaintext, size_t length,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_length) {
    (void)handle;
    (void)destination;
    (void)plaintext;
    (void)length;
    (void)nonce;
    (void)aad;
    (void)aad_length;
    return -1;
}

int llq_mb_open(const void *handle, uint8_t *destination, const uint8_t *ciphertext, size_t length,
                const uint8_t *nonce, const uint8_t *aad, size_t aad_length) {
    return llq_mb_seal(handle, destination, ciphertext, length, nonce, aad, aad_length);
}

void llq_mb_mask(const void *handle, uint8_t *mask, const uint8_t *sample) {
    (void)handle;
    (void)mask;
    (void)sample;
}

#endif
