#define _GNU_SOURCE
#include "arena.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LLQ_PLAIN_MALLOC 1
#endif
#endif

#ifdef LLQ_PLAIN_MALLOC

// So that the sanitizer sees every allocation.

struct llq_arena {
    void *object;
};

llq_arena *llq_arena_new(size_t size, void **object) {
    llq_arena *arena = malloc(sizeof *arena);
    if (!arena) return NULL;
    *object = arena->object = calloc(1, size);
    if (arena->object) return arena;
    free(arena);
    return NULL;
}

void llq_arena_free(llq_arena *arena) {
    free(arena->object);
    free(arena);
}

const ngtcp2_mem *llq_arena_mem(const llq_arena *arena) {
    (void)arena;
    return NULL;
}

#else

enum {
    PAGE = 4096,
    MAX_PAGES = 8,           // of a run
    SLAB_PAGES = 256,        // taken from the system at a time
    MAX_WARM = 256,          // free runs of one length that keep their pages
    MAX_RUNS = 24,           // of one arena; beyond, malloc's
    LARGEST_SMALL = 2304,
    MAX_SHARED = 6,          // runs of one arena that small allocations and a large block share; beyond, malloc's
    FRONT = 3072,            // of a shared run, for small allocations
    RESERVE = 9216,          // of a shared run, for a large block
    ALIGN = 16,
    LARGEST_CLASS = 256 / ALIGN, // freed memory beyond waits in one list
};

// Runs of pages, for all connections of the process.

typedef struct free_run {
    struct free_run *next;
} free_run;

static struct {
    pthread_mutex_t lock;
    /// By length. Warm runs hold their pages; cold ones hold addresses only, so their links lie elsewhere.
    free_run *warm[MAX_PAGES + 1];
    size_t warm_count[MAX_PAGES + 1];
    void **cold[MAX_PAGES + 1];
    size_t cold_count[MAX_PAGES + 1], cold_capacity[MAX_PAGES + 1];
    uint8_t *slab;
    size_t slab_pages;
} pages = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *carve(size_t count) {
    if (pages.slab_pages < count) {
        void *slab = mmap(NULL, (size_t)SLAB_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slab == MAP_FAILED) return NULL;
        // A huge page would make all of it resident.
        (void)madvise(slab, (size_t)SLAB_PAGES * PAGE, MADV_NOHUGEPAGE);
        pages.slab = slab;
        pages.slab_pages = SLAB_PAGES;
    }
    void *run = pages.slab;
    pages.slab += count * PAGE;
    pages.slab_pages -= count;
    return run;
}

static void *take_run(size_t count) {
    void *run;
    pthread_mutex_lock(&pages.lock);
    if (pages.warm[count]) {
        run = pages.warm[count];
        pages.warm[count] = pages.warm[count]->next;
        pages.warm_count[count]--;
    } else if (pages.cold_count[count] > 0) {
        run = pages.cold[count][--pages.cold_count[count]];
    } else {
        run = carve(count);
    }
    pthread_mutex_unlock(&pages.lock);
    return run;
}

/// Gives a run's pages back to the system and keeps its addresses. Not 0: no memory for the list.
static int make_cold(void *run, size_t count) {
    if (pages.cold_count[count] == pages.cold_capacity[count]) {
        size_t capacity = pages.cold_capacity[count] ? pages.cold_capacity[count] * 2 : 256;
        void **grown = realloc(pages.cold[count], capacity * sizeof *grown);
        if (!grown) return -1;
        pages.cold[count] = grown;
        pages.cold_capacity[count] = capacity;
    }
    if (madvise(run, count * PAGE, MADV_DONTNEED) != 0) return -1;
    pages.cold[count][pages.cold_count[count]++] = run;
    return 0;
}

static void give_run(void *run, size_t count) {
    pthread_mutex_lock(&pages.lock);
    if (pages.warm_count[count] < MAX_WARM || make_cold(run, count) != 0) {
        free_run *entry = run;
        entry->next = pages.warm[count];
        pages.warm[count] = entry;
        pages.warm_count[count]++;
    }
    pthread_mutex_unlock(&pages.lock);
}

// The arena of one connection.

/// Stands before every allocation.
typedef struct header {
    uint32_t size;  // of what follows, rounded up
    uint16_t pages; // of the run it lies in; 0: small, or malloc's
    uint16_t is_malloc;
    uint64_t unused;
} header;

_Static_assert(sizeof(header) == ALIGN, "a header keeps what follows it aligned");

typedef struct free_cell {
    struct free_cell *next;
} free_cell;

struct llq_arena {
    ngtcp2_mem mem;
    /// Every run, so that all can be freed at once. Large blocks that were freed are gone from it.
    struct {
        uint8_t *base;
        size_t pages;
    } runs[MAX_RUNS];
    size_t run_count;
    /// Where small allocations come from: the rest of the front of the newest shared run.
    uint8_t *front, *front_end;
    /// Room for a large block behind each front; NULL: taken.
    uint8_t *reserves[MAX_SHARED];
    size_t shared_count;
    /// Freed memory by size; what is larger, blocks of pools too, is in the list of class 0.
    free_cell *cells[LARGEST_CLASS + 1];
};

static size_t round_up(size_t size) { return (size + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

static uint8_t *add_run(llq_arena *arena, size_t count) {
    if (arena->run_count == MAX_RUNS || count > MAX_PAGES) return NULL;
    uint8_t *base = take_run(count);
    if (!base) return NULL;
    arena->runs[arena->run_count].base = base;
    arena->runs[arena->run_count++].pages = count;
    return base;
}

static void *finish(uint8_t *at, size_t size, size_t run_pages, bool is_malloc) {
    header *h = (header *)(void *)at;
    h->size = (uint32_t)size;
    h->pages = (uint16_t)run_pages;
    h->is_malloc = is_malloc;
    return h + 1;
}

static void *from_malloc(size_t size) {
    uint8_t *at = size > UINT32_MAX - ALIGN ? NULL : malloc(sizeof(header) + size);
    return at ? finish(at, size, 0, true) : NULL;
}

/// A run that begins with room for small allocations and has room for a large block behind it.
static int add_shared_run(llq_arena *arena) {
    enum { COUNT = (FRONT + RESERVE) / PAGE };
    _Static_assert((FRONT + RESERVE) % PAGE == 0, "a shared run fills its pages");
    uint8_t *base = arena->shared_count < MAX_SHARED ? add_run(arena, COUNT) : NULL;
    if (!base) return -1;
    arena->front = base;
    arena->front_end = base + FRONT;
    arena->reserves[arena->shared_count++] = base + FRONT;
    return 0;
}

static void *allocate_large(llq_arena *arena, size_t size) {
    size_t needed = sizeof(header) + size;
    // The blocks that stay for the connection's life are the larger ones; the others come and go with the handshake.
    if (needed > RESERVE / 2 && needed <= RESERVE) {
        for (size_t i = 0; i < arena->shared_count; i++) {
            uint8_t *at = arena->reserves[i];
            arena->reserves[i] = NULL;
            if (at) return finish(at, size, 0, false);
        }
    }
    size_t count = (needed + PAGE - 1) / PAGE;
    uint8_t *base = add_run(arena, count);
    return base ? finish(base, size, count, false) : from_malloc(size);
}

static void *allocate_small(llq_arena *arena, size_t size) {
    size_t needed = sizeof(header) + size;
    if ((size_t)(arena->front_end - arena->front) < needed && add_shared_run(arena) != 0) return from_malloc(size);
    uint8_t *at = arena->front;
    arena->front += needed;
    return finish(at, size, 0, false);
}

/// Freed memory of this size, or a little larger; NULL: none.
static void *reuse(llq_arena *arena, size_t size) {
    free_cell **link = &arena->cells[size / ALIGN <= LARGEST_CLASS ? size / ALIGN : 0];
    for (; *link; link = &(*link)->next) {
        size_t found = ((header *)(void *)*link - 1)->size;
        if (found < size || found > size + size / 4) continue;
        free_cell *cell = *link;
        *link = cell->next;
        return cell;
    }
    return NULL;
}

static void *arena_malloc(size_t size, void *user_data) {
    size = round_up(size == 0 ? 1 : size);
    void *freed = reuse(user_data, size);
    if (freed) return freed;
    return size <= LARGEST_SMALL ? allocate_small(user_data, size) : allocate_large(user_data, size);
}

static void arena_free(void *pointer, void *user_data) {
    llq_arena *arena = user_data;
    if (!pointer) return;
    header *h = (header *)pointer - 1;
    if (h->is_malloc) {
        free(h);
    } else if (h->pages > 0) {
        for (size_t i = 0; i < arena->run_count; i++) {
            if (arena->runs[i].base != (uint8_t *)h) continue;
            give_run(h, h->pages);
            arena->runs[i] = arena->runs[--arena->run_count];
            return;
        }
    } else {
        free_cell **list = &arena->cells[h->size / ALIGN <= LARGEST_CLASS ? h->size / ALIGN : 0];
        free_cell *cell = pointer;
        cell->next = *list;
        *list = cell;
    }
}

static void *arena_calloc(size_t count, size_t size, void *user_data) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) return NULL;
    void *pointer = arena_malloc(total, user_data);
    if (pointer) memset(pointer, 0, total);
    return pointer;
}

static void *arena_realloc(void *pointer, size_t size, void *user_data) {
    if (!pointer) return arena_malloc(size, user_data);
    size_t present = ((header *)pointer - 1)->size;
    if (size <= present) return pointer;
    void *larger = arena_malloc(size, user_data);
    if (!larger) return NULL;
    memcpy(larger, pointer, present);
    arena_free(pointer, user_data);
    return larger;
}

llq_arena *llq_arena_new(size_t size, void **object) {
    uint8_t *base = take_run((FRONT + RESERVE) / PAGE);
    if (!base) return NULL;
    llq_arena *arena = (llq_arena *)(void *)base;
    memset(arena, 0, sizeof *arena);
    arena->mem = (ngtcp2_mem){arena, arena_malloc, arena_free, arena_calloc, arena_realloc};
    arena->runs[0].base = base;
    arena->runs[0].pages = (FRONT + RESERVE) / PAGE;
    arena->run_count = 1;
    arena->front = base + round_up(sizeof *arena);
    arena->front_end = base + FRONT;
    arena->reserves[0] = base + FRONT;
    arena->shared_count = 1;
    *object = arena_calloc(1, size, arena);
    if (*object) return arena;
    llq_arena_free(arena);
    return NULL;
}

void llq_arena_free(llq_arena *arena) {
    // The first run holds the arena itself.
    for (size_t i = arena->run_count; i-- > 0;) {
        uint8_t *base = arena->runs[i].base;
        size_t count = arena->runs[i].pages;
        give_run(base, count);
    }
}

const ngtcp2_mem *llq_arena_mem(const llq_arena *arena) { return &arena->mem; }

#endif
